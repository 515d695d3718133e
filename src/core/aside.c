/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * aside - entries that have moved on, by a REMAP that is not read yet.
 *
 * Messages of two mremaps can be read in the other order than they happened: what came to a place is
 * read first, and that place has the entries still of what was there before and had moved on. Those are kept
 * here, by the address that they moved on from, until their REMAP is read.
 *
 * What had moved on may have had nothing away, so that there is nothing to keep. So every place that something
 * came to is noted, until all is quiet: a REMAP from there may be of what was there before (dropped.c).
 */
#include "core/pager.h"
#include "util/ptable_next.h"

/* The last one takes all that finds no room: a page more that is asked about. */
void aside_newcomer(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end, bool displaced)
{
	struct pager *pager = hmm->pager;
	struct newcomer *last = pager->newcomers ? &pager->newcomer[pager->newcomers - 1] : NULL;
	bool alike = last && last->ctx == ctx && last->displaced == displaced;

	if (alike && last->start <= start && last->end >= end)
		return;
	if (pager->newcomers == NEWCOMERS || (alike && last->end == start)) {
		last->ctx = last->ctx == ctx ? ctx : CONTEXTS;
		last->start = last->start < start ? last->start : start;
		last->end = last->end > end ? last->end : end;
		last->displaced |= displaced;
		return;
	}
	pager->newcomer[pager->newcomers++] = (struct newcomer){
		.start = start, .end = end, .ctx = ctx, .displaced = displaced };
}

static bool is_in(const struct newcomer *n, uintptr_t page)
{
	return n->start <= page && page < n->end;
}

bool aside_over(const struct pager *pager, unsigned ctx, uintptr_t page)
{
	for (unsigned i = 0; i < pager->newcomers; i++) {
		const struct newcomer *n = &pager->newcomer[i];

		if ((n->ctx == ctx || n->ctx == CONTEXTS) && is_in(n, page))
			return true;
	}
	return false;
}

bool aside_displaced(const struct pager *pager, uintptr_t page)
{
	for (unsigned i = 0; i < pager->newcomers; i++)
		if (pager->newcomer[i].displaced && is_in(&pager->newcomer[i], page))
			return true;
	return false;
}

static bool is_quiet(struct hmm *hmm, unsigned ctx)
{
	for (unsigned i = 0; i < CONTEXTS; i++)
		if ((ctx == i || ctx == CONTEXTS) && hmm->os->ctx_probe(&hmm->os_ctx[i]))
			return false;
	return true;
}

void aside_settle(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	unsigned kept = 0;

	if (pager->aside_n)
		return;
	for (unsigned i = 0; i < pager->newcomers; i++)
		if (!is_quiet(hmm, pager->newcomer[i].ctx))
			pager->newcomer[kept++] = pager->newcomer[i];
	pager->newcomers = kept;
}

bool aside_put(struct hmm *hmm, uintptr_t at, uint64_t entry)
{
	struct pager *pager = hmm->pager;

	if (uhmm_ptable_lookup(&pager->aside, at) || uhmm_ptable_set(&pager->aside, at, entry))
		return false;
	pager->aside_n++;
	return true;
}

static bool next(struct pager *pager, unsigned ctx, uintptr_t *at, uintptr_t end, uint64_t *entry)
{
	if (!pager->aside_n)
		return false;
	for (; ptable_next(&pager->aside, at, end, entry); *at += PAGE)
		if (ctx == CONTEXTS || book_ctx(*entry) == ctx)
			return true;
	return false;
}

bool aside_has(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	uint64_t entry;

	return next(hmm->pager, ctx, &start, end, &entry);
}

bool aside_take(struct hmm *hmm, unsigned ctx, uintptr_t *at, uintptr_t end, uint64_t *entry)
{
	struct pager *pager = hmm->pager;

	if (!next(pager, ctx, at, end, entry))
		return false;
	uhmm_ptable_clear(&pager->aside, *at, *at + PAGE);
	pager->aside_n--;
	return true;
}

bool aside_take_gone(struct hmm *hmm, uintptr_t *at, uint64_t *entry)
{
	struct pager *pager = hmm->pager;

	for (; next(pager, CONTEXTS, at, UINTPTR_MAX, entry); *at += PAGE)
		if (!hmm->os->ctx_probe(&hmm->os_ctx[book_ctx(*entry)]))
			return aside_take(hmm, CONTEXTS, at, *at + PAGE, entry);
	return false;
}
