/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ptable - the radix page table for drivers; see include/uhmm/ptable.h.
 *
 * Model: behind what lookup sees stand the books: in each leaf how many pages of
 * each 2 MiB block are set and which blocks have anything at all; in the root
 * which leaves have anything. Only set, set_huge and clear look at them.
 *
 * Laws:
 * 1. The books are exact: clear visits what is populated and nothing else. A walk of
 *    the whole root looks at 64 words and one more for each 64 GiB in use.
 * 2. Entries are stored with release. Where a page entry hides a huge one and both go,
 *    the huge one goes first: a lookup that finds the page gone must not find what it
 *    hid. Where a huge entry replaces pages it is there before they go.
 * 3. A leaf that was made stays until destroy; lookup may be looking at it.
 *
 * Leaves come in slabs, because each mapping takes a slot of the table of owned
 * mappings and up to three VMAs. No transparent huge pages: one touched page of a leaf
 * would cost 2 MiB.
 *
 * Locks: the driver's, over everything but lookup.
 */
#include <errno.h>
#include <sys/mman.h>

#include <uhmm/ptable.h>

#include "util/arena.h"
#include "util/ptable_next.h"

#define BLOCK_PAGES (UHMM_PTABLE_PAGES / UHMM_PTABLE_HUGES)
#define BLOCK_SHIFT (UHMM_PTABLE_HUGE_SHIFT - UHMM_PTABLE_PAGE_SHIFT)
#define LEAF_PAGES_SHIFT (UHMM_PTABLE_LEAF_SHIFT - UHMM_PTABLE_PAGE_SHIFT)
#define VA_END (UINT64_C(1) << UHMM_PTABLE_VA_BITS)
#define WORD_BITS 64u
#define ROOT_WORDS (UHMM_PTABLE_ROOTS / WORD_BITS)
#define SLAB_MAX 16u

/* What lookup sees comes first in both: a pointer to it is a pointer to the whole. */
struct leaf {
	struct uhmm_ptable_leaf seen;
	/* page entries in each block; and which blocks have a page or huge entry */
	uint16_t pages[UHMM_PTABLE_HUGES];
	uint64_t busy[UHMM_PTABLE_HUGES / WORD_BITS];
	uint32_t busy_blocks;
	/* in a slab's first leaf: how many it has, and the slab made before */
	uint32_t slab_leaves;
	struct leaf *slab_next;
} __attribute__((aligned(4096)));

struct root {
	struct uhmm_ptable_leaf *seen[UHMM_PTABLE_ROOTS];
	/* which leaves have anything in them; and which words of that are not 0 */
	uint64_t busy[ROOT_WORDS];
	uint64_t busy_words[ROOT_WORDS / WORD_BITS];
	struct leaf *slabs;  /* newest first */
	uint32_t slab_taken; /* leaves of the newest that are in use */
};

static struct root *root_of(const struct uhmm_ptable *table)
{
	return (struct root *)table->root;
}

/* One writes; ptable_next() may be read by others. */
static void bit_set(uint64_t *words, uint32_t bit)
{
	uint64_t *word = &words[bit / WORD_BITS];

	__atomic_store_n(word, *word | UINT64_C(1) << (bit % WORD_BITS), __ATOMIC_RELEASE);
}

static void bit_clear(uint64_t *words, uint32_t bit)
{
	uint64_t *word = &words[bit / WORD_BITS];

	__atomic_store_n(word, *word & ~(UINT64_C(1) << (bit % WORD_BITS)), __ATOMIC_RELEASE);
}

static bool bit_test(const uint64_t *words, uint32_t bit)
{
	return words[bit / WORD_BITS] >> (bit % WORD_BITS) & 1;
}

/* The first set bit in [from, end), a multiple of 64 bits; `end` if none. */
static uint32_t bit_next(const uint64_t *words, uint32_t from, uint32_t end)
{
	uint64_t word;

	while (from < end) {
		word = __atomic_load_n(&words[from / WORD_BITS], __ATOMIC_ACQUIRE) >>
		       (from % WORD_BITS);
		if (word)
			return from + (uint32_t)__builtin_ctzll(word);
		from = (from / WORD_BITS + 1) * WORD_BITS;
	}
	return end;
}

/*
 * Of the two levels: the next leaf in [from, last] that has anything in it; a greater number if
 * none. Who asks about one leaf does not pay for a look at all of them.
 */
static uint32_t root_next(const struct root *root, uint32_t from, uint64_t last)
{
	uint32_t word = from / WORD_BITS, bit;

	if (from > last || from >= UHMM_PTABLE_ROOTS)
		return UHMM_PTABLE_ROOTS;
	bit = bit_next(root->busy, from, (word + 1) * WORD_BITS);
	if (bit < (word + 1) * WORD_BITS || bit > last)
		return bit;
	word = bit_next(root->busy_words, word + 1, ROOT_WORDS);
	return bit_next(root->busy, word * WORD_BITS, UHMM_PTABLE_ROOTS);
}

static void root_mark(struct root *root, uint32_t top)
{
	bit_set(root->busy, top);
	bit_set(root->busy_words, top / WORD_BITS);
}

static void root_unmark(struct root *root, uint32_t top)
{
	bit_clear(root->busy, top);
	if (!root->busy[top / WORD_BITS])
		bit_clear(root->busy_words, top / WORD_BITS);
}

/* Memory that stays in small pages. */
static void *sparse_map(size_t size)
{
	void *memory = arena_map(size);

	/* EINVAL says that this kernel has no huge pages: then none will come */
	if (memory)
		madvise(memory, size, MADV_NOHUGEPAGE);
	return memory;
}

int uhmm_ptable_init(struct uhmm_ptable *table)
{
	struct root *root = sparse_map(sizeof(*root));

	if (!root)
		return -ENOMEM;
	table->root = root->seen;
	return 0;
}

void uhmm_ptable_destroy(struct uhmm_ptable *table)
{
	struct root *root = root_of(table);
	struct leaf *slab, *next;

	if (!root)
		return;
	for (slab = root->slabs; slab; slab = next) {
		next = slab->slab_next;
		arena_unmap(slab, slab->slab_leaves * sizeof(*slab));
	}
	arena_unmap(root, sizeof(*root));
	table->root = NULL;
}

/* A leaf never used before; slabs double up to SLAB_MAX leaves. NULL: no memory. */
static struct leaf *leaf_new(struct root *root)
{
	struct leaf *slab = root->slabs;
	uint32_t leaves = 1;

	if (slab && root->slab_taken < slab->slab_leaves)
		return &slab[root->slab_taken++];
	if (slab)
		leaves = slab->slab_leaves < SLAB_MAX ? 2 * slab->slab_leaves : SLAB_MAX;
	slab = sparse_map(leaves * sizeof(*slab));
	if (!slab)
		return NULL;
	slab->slab_leaves = leaves;
	slab->slab_next = root->slabs;
	root->slabs = slab;
	root->slab_taken = 1;
	return slab;
}

static int leaf_get(struct uhmm_ptable *table, uintptr_t va, struct leaf **leaf)
{
	uintptr_t top = va >> UHMM_PTABLE_LEAF_SHIFT;

	if (va >= VA_END)
		return -ERANGE;
	*leaf = (struct leaf *)table->root[top];
	if (*leaf)
		return 0;
	*leaf = leaf_new(root_of(table));
	if (!*leaf)
		return -ENOMEM;
	__atomic_store_n(&table->root[top], &(*leaf)->seen, __ATOMIC_RELEASE);
	return 0;
}

static void block_mark(struct root *root, struct leaf *leaf, uint32_t top, uint32_t block)
{
	if (bit_test(leaf->busy, block))
		return;
	bit_set(leaf->busy, block);
	if (!leaf->busy_blocks++)
		root_mark(root, top);
}

/* Clear the page entries first..last of a block; how many there were. */
static uint64_t pages_clear(struct leaf *leaf, uint32_t block, uint32_t first,
			    uint32_t last)
{
	uint64_t *page = leaf->seen.page, count = 0;
	uint32_t i;

	for (i = first; i <= last && leaf->pages[block]; i++) {
		if (!page[i])
			continue;
		__atomic_store_n(&page[i], 0, __ATOMIC_RELEASE);
		leaf->pages[block]--;
		count++;
	}
	return count;
}

int uhmm_ptable_set(struct uhmm_ptable *table, uintptr_t va, uint64_t entry)
{
	uint32_t page = (va >> UHMM_PTABLE_PAGE_SHIFT) & (UHMM_PTABLE_PAGES - 1);
	struct leaf *leaf;
	int err;

	if (!entry)
		return -EINVAL;
	err = leaf_get(table, va, &leaf);
	if (err)
		return err;
	if (!leaf->seen.page[page])
		leaf->pages[page >> BLOCK_SHIFT]++;
	__atomic_store_n(&leaf->seen.page[page], entry, __ATOMIC_RELEASE);
	block_mark(root_of(table), leaf, (uint32_t)(va >> UHMM_PTABLE_LEAF_SHIFT),
		   page >> BLOCK_SHIFT);
	return 0;
}

int uhmm_ptable_set_huge(struct uhmm_ptable *table, uintptr_t va, uint64_t entry)
{
	uint32_t block = (va >> UHMM_PTABLE_HUGE_SHIFT) & (UHMM_PTABLE_HUGES - 1);
	struct leaf *leaf;
	int err;

	if (!entry)
		return -EINVAL;
	err = leaf_get(table, va, &leaf);
	if (err)
		return err;
	__atomic_store_n(&leaf->seen.huge[block], entry, __ATOMIC_RELEASE);
	pages_clear(leaf, block, block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES - 1);
	block_mark(root_of(table), leaf, (uint32_t)(va >> UHMM_PTABLE_LEAF_SHIFT), block);
	return 0;
}

/* Pages first..last of a leaf, which has something in it. */
static uint64_t leaf_clear(struct leaf *leaf, uint32_t first, uint32_t last)
{
	uint32_t block = first >> BLOCK_SHIFT, from, to;
	uint64_t count = 0;

	for (;; block++) {
		block = bit_next(leaf->busy, block, UHMM_PTABLE_HUGES);
		if (block > last >> BLOCK_SHIFT)
			return count;
		if (leaf->seen.huge[block]) { /* law 2: before the pages */
			__atomic_store_n(&leaf->seen.huge[block], 0, __ATOMIC_RELEASE);
			count++;
		}
		from = block * BLOCK_PAGES;
		to = from + BLOCK_PAGES - 1;
		count += pages_clear(leaf, block, from > first ? from : first,
				     to < last ? to : last);
		if (leaf->pages[block])
			continue;
		bit_clear(leaf->busy, block);
		leaf->busy_blocks--;
	}
}

uint64_t uhmm_ptable_clear(struct uhmm_ptable *table, uintptr_t start, uintptr_t end)
{
	uint64_t first = start >> UHMM_PTABLE_PAGE_SHIFT, last, base, count = 0;
	struct root *root = root_of(table);
	uint32_t top, from, to;
	struct leaf *leaf;

	if (end > VA_END)
		end = VA_END;
	if (start >= end)
		return 0;
	last = (end - 1) >> UHMM_PTABLE_PAGE_SHIFT;
	top = root_next(root, (uint32_t)(first >> LEAF_PAGES_SHIFT), last >> LEAF_PAGES_SHIFT);
	while (top <= last >> LEAF_PAGES_SHIFT && top < UHMM_PTABLE_ROOTS) {
		leaf = (struct leaf *)root->seen[top];
		base = (uint64_t)top << LEAF_PAGES_SHIFT;
		from = first > base ? (uint32_t)(first - base) : 0;
		to = last - base < UHMM_PTABLE_PAGES ? (uint32_t)(last - base)
						     : UHMM_PTABLE_PAGES - 1;
		count += leaf_clear(leaf, from, to);
		if (!leaf->busy_blocks)
			root_unmark(root, top);
		top = root_next(root, top + 1, last >> LEAF_PAGES_SHIFT);
	}
	return count;
}

/* The first page entry of a leaf in [first, last); last if none. */
static uint32_t leaf_next(const struct leaf *leaf, uint32_t first, uint32_t last)
{
	while (first < last) {
		uint32_t block = bit_next(leaf->busy, first / BLOCK_PAGES, UHMM_PTABLE_HUGES);
		uint32_t block_end = (block + 1) * BLOCK_PAGES;

		if (block == UHMM_PTABLE_HUGES)
			return last;
		if (first < block * BLOCK_PAGES)
			first = block * BLOCK_PAGES;
		for (; first < last && first < block_end; first++)
			if (__atomic_load_n(&leaf->seen.page[first], __ATOMIC_RELAXED))
				return first;
	}
	return last;
}

bool ptable_next(const struct uhmm_ptable *table, uintptr_t *va, uintptr_t end,
		 uint64_t *entry)
{
	const struct root *root = root_of(table);
	uint64_t at = *va >> UHMM_PTABLE_PAGE_SHIFT, stop;

	if (end > VA_END)
		end = VA_END;
	if (*va >= end)
		return false;
	stop = (end + ((uint64_t)1 << UHMM_PTABLE_PAGE_SHIFT) - 1) >> UHMM_PTABLE_PAGE_SHIFT;
	while (at < stop) {
		uint32_t top = root_next(root, (uint32_t)(at >> LEAF_PAGES_SHIFT),
					 (stop - 1) >> LEAF_PAGES_SHIFT), last, found;
		uint64_t base = (uint64_t)top << LEAF_PAGES_SHIFT;
		const struct leaf *leaf;

		if (top >= UHMM_PTABLE_ROOTS || base >= stop)
			return false;
		if (at < base)
			at = base;
		last = stop - base < UHMM_PTABLE_PAGES ? (uint32_t)(stop - base)
							: UHMM_PTABLE_PAGES;
		leaf = (const struct leaf *)__atomic_load_n(&root->seen[top], __ATOMIC_ACQUIRE);
		found = leaf_next(leaf, (uint32_t)(at - base), last);
		if (found < last) {
			*va = (uintptr_t)((base + found) << UHMM_PTABLE_PAGE_SHIFT);
			*entry = __atomic_load_n(&leaf->seen.page[found], __ATOMIC_RELAXED);
			return true;
		}
		at = base + UHMM_PTABLE_PAGES;
	}
	return false;
}
