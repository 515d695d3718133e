/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * racy - pages that all threads and devices write at once.
 *
 * Every word has one writer: word i below 496 is thread i % 16's. It gives all its words of
 * a page a new version, from the first to the last; so whoever reads from the last to the
 * first never sees a version fall, nor one that is older than what it has seen there
 * before. The last eight words are counters that everybody adds to; their sums are known at
 * the end.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "stress.h"

#define OWN_WORDS 31u
#define COUNTER 504u
#define COUNTERS 8u

struct racy_page {
	uint32_t mine[WORKERS_MAX];		 /* what each has written last */
	uint32_t seen[WORKERS_MAX][WORKERS_MAX]; /* by reader and writer */
	_Atomic uint64_t added[COUNTERS];
};

struct racy {
	unsigned id, pages;
	char *at;
	struct racy_page *page;
};

static uint64_t racy_word(const struct racy *r, unsigned page, unsigned writer,
			  uint32_t version)
{
	return version ? UINT64_C(3) << 62 | (uint64_t)r->id << 56 | (uint64_t)page << 40 |
				 (uint64_t)writer << 32 | version
		       : 0;
}

static uint64_t *page_at(const struct racy *r, unsigned page)
{
	return (uint64_t *)(r->at + page * PAGE);
}

static void racy_write(struct worker *w, struct racy *r, unsigned page, bool by_device)
{
	struct racy_page *p = &r->page[page];
	uint32_t version = p->mine[w->id] + 1;
	uint64_t value = racy_word(r, page, w->id, version);
	volatile uint64_t *words = page_at(r, page);

	if (by_device) {
		int err = dev_words(dev_take(w), (uintptr_t)(words + w->id), WORKERS_MAX,
				    OWN_WORDS, value);

		dev_leave(w);
		if (err && err != -EBUSY && !(w->world->inject && err == -ENOMEM))
			fail("device write of racy page %u: %s", page, hmm_strerror(err));
		if (err)
			return;
	} else {
		for (unsigned i = 0; i < OWN_WORDS; i++)
			words[w->id + i * WORKERS_MAX] = value;
	}
	p->mine[w->id] = version;
}

static void racy_wrong(const struct racy *r, unsigned page, unsigned word, uint64_t got,
		       uint64_t least, const char *how)
{
	const volatile uint64_t *words = page_at(r, page);
	unsigned zeros = 0;

	for (unsigned i = 0; i < WORDS; i++)
		zeros += !words[i];
	fail("WRONG: racy area %u page %u at %p, word %u by %s: got %#llx, expected %#llx "
	     "or "
	     "later; now it reads %#llx, and %u words of the page read 0",
	     r->id, page, (const void *)(uintptr_t)words, word, how,
	     (unsigned long long)got, (unsigned long long)least,
	     (unsigned long long)words[word], zeros);
}

/* `ordered`: read from the last to the first. */
static void racy_check(struct worker *w, struct racy *r, unsigned page,
		       const volatile uint64_t *words, bool ordered, const char *how)
{
	struct racy_page *p = &r->page[page];

	for (unsigned writer = 0; writer < w->world->threads; writer++) {
		uint32_t least = writer == w->id ? p->mine[writer] : p->seen[w->id][writer];
		uint32_t first = least;

		for (unsigned i = OWN_WORDS; i-- > 0;) {
			unsigned word = writer + i * WORKERS_MAX;
			uint64_t got = words[word];
			uint32_t version = (uint32_t)got;

			if (got != racy_word(r, page, writer, version) || version < least ||
			    (writer == w->id && version != least))
				racy_wrong(r, page, word, got,
					   racy_word(r, page, writer, least), how);
			/* The last word is the oldest: what it has, all have from now on.
			 */
			if (ordered && i == OWN_WORDS - 1)
				first = version;
			if (ordered)
				least = version;
		}
		if (ordered)
			p->seen[w->id][writer] = first;
	}
}

static void racy_read(struct worker *w, struct racy *r, unsigned page, bool by_device)
{
	int err;

	if (!by_device) {
		racy_check(w, r, page, page_at(r, page), true, "the CPU");
		return;
	}
	err = dev_read(dev_take(w), (uintptr_t)page_at(r, page), w->buffer, PAGE);
	dev_leave(w);
	if (!err)
		racy_check(w, r, page, (const void *)w->buffer, false, "a device");
	else if (err != -EBUSY && !(w->world->inject && err == -ENOMEM))
		fail("device read of racy page %u: %s", page, hmm_strerror(err));
}

/* The device looks, and the page comes home between its look and its lock. */
static void racy_both(struct worker *w, struct racy *r, unsigned page)
{
	struct dev *dev = dev_take(w);
	uintptr_t at = (uintptr_t)page_at(r, page);
	int64_t moved = hmm_migrate_to_device(dev_devmem(dev), at, PAGE);
	struct job *job;
	int err;

	if (moved < 0 && !migrate_may_fail(w, moved))
		fail("migration of a racy page: %s", hmm_strerror((int)moved));
	job = dev_read_begin(dev, at, PAGE);
	for (volatile unsigned i = pick(w, 30000); i; i--)
		;
	/* Not a check of all words: what the device reads may be older than what we see. */
	if (*(volatile uint64_t *)(page_at(r, page) + w->id) !=
	    racy_word(r, page, w->id, r->page[page].mine[w->id]))
		racy_wrong(r, page, w->id, page_at(r, page)[w->id],
			   racy_word(r, page, w->id, r->page[page].mine[w->id]),
			   "the CPU beside a device");
	err = dev_read_end(job, w->buffer);
	if (!err)
		racy_check(w, r, page, (const void *)w->buffer, false,
			   "a device beside the CPU");
	else if (err != -EBUSY && !(w->world->inject && err == -ENOMEM))
		fail("device read of racy page %u: %s", page, hmm_strerror(err));
	dev_leave(w);
}

static void racy_add(struct worker *w, struct racy *r, unsigned page, bool exclusive)
{
	unsigned i = pick(w, COUNTERS);
	uint64_t *word = page_at(r, page) + COUNTER + i, frame;
	struct dev *dev = w->world->dev[1];
	int err = 0;

	if (exclusive) {
		err = hmm_make_exclusive(dev_devmem(dev), (uintptr_t)word, &frame);
		if (err && !migrate_may_fail(w, err))
			fail("hmm_make_exclusive of racy page %u: %s", page,
			     hmm_strerror(err));
		if (err)
			return;
		word = (uint64_t *)hmm_devmem_host(dev_devmem(dev), frame) + COUNTER + i;
	}
	__atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
	r->page[page].added[i]++;
	if (exclusive)
		hmm_exclusive_release(dev_devmem(dev), frame);
}

static void racy_move(struct worker *w, struct racy *r, unsigned page)
{
	unsigned n = 1 + pick(w, one_in(w, 4) ? r->pages : 8);
	struct dev *dev = dev_take(w);
	uintptr_t at = (uintptr_t)page_at(r, page);
	int64_t moved;

	n = n < r->pages - page ? n : r->pages - page;
	if (one_in(w, 6))
		moved = hmm_migrate_to_host(w->world->hmm, at, n * PAGE);
	else
		moved = hmm_migrate_to_device(dev_devmem(dev), at, n * PAGE);
	if (moved < 0 && !migrate_may_fail(w, moved))
		fail("migration of %u racy pages: %s", n, hmm_strerror((int)moved));
	dev_leave(w);
}

void racy_op(struct worker *w)
{
	struct racy *r = &w->world->racy[pick(w, w->world->racies)];
	/* Mostly where the others are. */
	unsigned page = pick(w, one_in(w, 2) ? 2 : r->pages), how = pick(w, 100);

	w->area = r->id;
	w->page = page;
	if (how < 30) {
		doing(w, "racy write", NULL, page);
		racy_write(w, r, page, how < 15);
	} else if (how < 45) {
		doing(w, "racy read by both", NULL, page);
		racy_both(w, r, page);
	} else if (how < 65) {
		doing(w, "racy read", NULL, page);
		racy_read(w, r, page, how < 50);
	} else if (how < 80) {
		doing(w, "racy add", NULL, page);
		racy_add(w, r, page, how < 67);
	} else {
		doing(w, "racy migrate", NULL, page);
		racy_move(w, r, page);
	}
}

int racy_begin(struct world *world, unsigned racies)
{
	static struct racy all[8];

	world->racies = racies < 8 ? racies : 8;
	world->racy = all;
	for (unsigned i = 0; i < world->racies; i++) {
		struct racy *r = &all[i];

		r->id = i;
		r->pages = i % 2 ? 16 : 600;
		r->at = mmap(NULL, r->pages * PAGE + BLOCK, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		r->page = mmap(NULL, r->pages * sizeof(*r->page), PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (r->at == MAP_FAILED || r->page == MAP_FAILED)
			return -ENOMEM;
		if (i % 4 == 0)
			madvise(r->at, r->pages * PAGE + BLOCK, MADV_HUGEPAGE);
		r->at += -(uintptr_t)r->at & (BLOCK - 1);
	}
	return 0;
}

void racy_end(struct world *world)
{
	for (unsigned i = 0; i < world->racies; i++) {
		struct racy *r = &world->racy[i];

		for (unsigned page = 0; page < r->pages; page++) {
			for (unsigned t = 0; t < world->threads; t++)
				racy_check(&world->worker[t], r, page, page_at(r, page),
					   true, "the CPU at the end");
			for (unsigned c = 0; c < COUNTERS; c++)
				if (page_at(r, page)[COUNTER + c] != r->page[page].added[c])
					racy_wrong(r, page, COUNTER + c,
						   page_at(r, page)[COUNTER + c],
						   r->page[page].added[c],
						   "the CPU, a counter");
		}
	}
}
