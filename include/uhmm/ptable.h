/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: ptable - a radix page table for drivers
 *
 * Two levels over 48 bits of virtual address: a root of 2^18 pointers, and for
 * each GiB that is used a leaf of 512 entries for 2 MiB blocks and 2^18 for
 * 4 KiB pages. Both are lazily zero-filled memory, so what is untouched costs
 * nothing. An entry is 64 bits of the driver's choice; 0 means none.
 *
 * Laws: a 4 KiB entry hides the 2 MiB entry around it. Lookup takes no lock
 * and may run beside everything but init and destroy; it sees an entry whole, old
 * or new, and never one that was hidden when it went. set, set_huge and clear are
 * called under one lock of the driver's. Leaves are never freed before destroy, so
 * a lookup never touches freed memory; nor is a table's memory ever mirrored.
 */
#ifndef UHMM_PTABLE_H
#define UHMM_PTABLE_H

#include <stdint.h>

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UHMM_PTABLE_VA_BITS 48
#define UHMM_PTABLE_LEAF_SHIFT 30
#define UHMM_PTABLE_HUGE_SHIFT 21
#define UHMM_PTABLE_PAGE_SHIFT 12
#define UHMM_PTABLE_ROOTS (1u << (UHMM_PTABLE_VA_BITS - UHMM_PTABLE_LEAF_SHIFT))
#define UHMM_PTABLE_HUGES (1u << (UHMM_PTABLE_LEAF_SHIFT - UHMM_PTABLE_HUGE_SHIFT))
#define UHMM_PTABLE_PAGES (1u << (UHMM_PTABLE_LEAF_SHIFT - UHMM_PTABLE_PAGE_SHIFT))

struct uhmm_ptable_leaf {
	uint64_t huge[UHMM_PTABLE_HUGES];
	uint64_t page[UHMM_PTABLE_PAGES];
};

/** struct uhmm_ptable - visible so that lookup is inline; touch by functions only */
struct uhmm_ptable {
	struct uhmm_ptable_leaf **root;
};

/**
 * uhmm_ptable_init() - an empty table
 * @table: to be filled in
 * Context: any thread. Return: 0; -ENOMEM.
 */
UHMM_API int uhmm_ptable_init(struct uhmm_ptable *table);

/**
 * uhmm_ptable_destroy() - give all memory back; no lookup may be running
 * @table: from uhmm_ptable_init(), or all zero
 */
UHMM_API void uhmm_ptable_destroy(struct uhmm_ptable *table);

/**
 * uhmm_ptable_set() - set the entry of one 4 KiB page
 * @table: the table
 * @va: an address in the page
 * @entry: not 0
 * Locks: the driver's. Return: 0; -EINVAL @entry is 0; -ERANGE @va needs more than
 * 48 bits; -ENOMEM. On failure the table is as it was.
 */
UHMM_API int uhmm_ptable_set(struct uhmm_ptable *table, uintptr_t va, uint64_t entry);

/**
 * uhmm_ptable_set_huge() - set one entry for a 2 MiB block
 * @table: the table
 * @va: an address in the block; 4 KiB entries of the block are cleared
 * @entry: not 0
 * Locks: the driver's. Return: as uhmm_ptable_set().
 */
UHMM_API int uhmm_ptable_set_huge(struct uhmm_ptable *table, uintptr_t va, uint64_t entry);

/**
 * uhmm_ptable_clear() - forget a range
 * @table: the table
 * @start: rounded down to 4 KiB; @end: rounded up, at most UINTPTR_MAX
 *
 * A 2 MiB entry that is partly covered goes as a whole; 4 KiB entries of that block
 * outside the range stay. Costs what is populated, not the length. Locks: the driver's.
 * Return: how many entries were cleared, a 2 MiB entry counting one.
 */
UHMM_API uint64_t uhmm_ptable_clear(struct uhmm_ptable *table, uintptr_t start,
				    uintptr_t end);

/**
 * uhmm_ptable_lookup() - the entry that translates an address, 0 if none
 * @table: the table
 * @va: any address
 * Context: any thread, no lock.
 */
static inline uint64_t uhmm_ptable_lookup(const struct uhmm_ptable *table, uintptr_t va)
{
	uintptr_t top = va >> UHMM_PTABLE_LEAF_SHIFT;
	const struct uhmm_ptable_leaf *leaf;
	uint64_t entry;

	if (__builtin_expect(top >= UHMM_PTABLE_ROOTS, 0))
		return 0;
	leaf = __atomic_load_n(&table->root[top], __ATOMIC_ACQUIRE);
	if (!leaf)
		return 0;
	entry = __atomic_load_n(
		&leaf->page[(va >> UHMM_PTABLE_PAGE_SHIFT) & (UHMM_PTABLE_PAGES - 1)],
		__ATOMIC_ACQUIRE);
	if (entry)
		return entry;
	return __atomic_load_n(
		&leaf->huge[(va >> UHMM_PTABLE_HUGE_SHIFT) & (UHMM_PTABLE_HUGES - 1)],
		__ATOMIC_ACQUIRE);
}

#ifdef __cplusplus
}
#endif
#endif /* UHMM_PTABLE_H */
