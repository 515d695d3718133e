/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * books - where the pages are that are not at home.
 *
 * The pager writes, anybody reads without a lock: an entry is one word, and a leaf of the
 * table is never freed while the mirror lives.
 */
#include "core/pager.h"
#include "util/ptable_next.h"

uint64_t book_away(enum book_state state, unsigned ctx, unsigned devmem, uint64_t frame)
{
	return (uint64_t)state << BOOK_STATE_SHIFT | (uint64_t)ctx << BOOK_CTX_SHIFT |
	       (uint64_t)devmem << HMM_PFN_DEVMEM_SHIFT | frame;
}

uint64_t book_moving(unsigned ctx, unsigned transfer, unsigned index)
{
	return (uint64_t)BOOK_MOVING << BOOK_STATE_SHIFT | (uint64_t)ctx << BOOK_CTX_SHIFT |
	       (transfer * BLOCK_PAGES + index);
}

uint64_t books_get(const struct hmm *hmm, uintptr_t page)
{
	const struct pager *pager = hmm->pager;

	return pager ? uhmm_ptable_lookup(&pager->books, page) : 0;
}

bool books_any(const struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	uint64_t entry;

	if (!hmm->pager)
		return false;
	/* By the table's index, which may lag behind; only for what was here long ago. */
	if (end - start > BLOCK)
		return ptable_next(&hmm->pager->books, &start, end, &entry);
	while (start < end && !books_get(hmm, start))
		start += PAGE;
	return start < end;
}

int books_set(struct hmm *hmm, uintptr_t page, uint64_t entry)
{
	return uhmm_ptable_set(&hmm->pager->books, page, entry);
}

void books_erase(struct hmm *hmm, uintptr_t page)
{
	books_erase_row(hmm, page, 1);
}

void books_erase_row(struct hmm *hmm, uintptr_t page, unsigned n)
{
	uhmm_ptable_clear(&hmm->pager->books, page, page + n * PAGE);
}

bool books_next(struct hmm *hmm, uintptr_t *at, uintptr_t end, uint64_t *entry)
{
	/* Entries come in rows: mostly it is the very next page. */
	if (*at < end && (*entry = books_get(hmm, *at)))
		return true;
	return ptable_next(&hmm->pager->books, at, end, entry);
}
