/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * doubts - MISSING that proves nothing.
 *
 * REGISTER does not look whether a change is pending. Done while one is, it may have hit the
 * VMA that came after the one we mean. A probe that says "quiet" *after* it proves that
 * no change from before is unread; until then the range is in doubt, and the flag in smaps proves
 * nothing there: a page whose mapping may be gone is given up (dropped.c).
 *
 * So what has pages away must not come into doubt. What is on the list already is not registered again
 * (missing.c), and what is moved there is excused.
 */
#include "core/pager.h"

bool doubts_have_room(const struct pager *pager)
{
	return pager->doubts < DOUBTS_NEW;
}

void doubts_add(struct pager *pager, unsigned ctx, uintptr_t start, uintptr_t end)
{
	pager->doubt[pager->doubts++] = (struct doubt){ .start = start, .end = end, .ctx = ctx };
}

static void add_part(struct pager *pager, struct doubt whole, uintptr_t start, uintptr_t end)
{
	whole.start = start;
	whole.end = end;
	if (start < end)
		pager->doubt[pager->doubts++] = whole;
}

static void sweep(struct pager *pager)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < pager->doubts; i++)
		if (pager->doubt[i].start < pager->doubt[i].end)
			pager->doubt[kept++] = pager->doubt[i];
	pager->doubts = kept;
}

enum change { EXCUSE, ACCUSE, END };

/* What of the doubts lies in [start, end), and no more. */
static void change(struct pager *pager, unsigned ctx, uintptr_t start, uintptr_t end,
		   enum change what)
{
	unsigned n = pager->doubts;

	for (unsigned i = 0; i < n && pager->doubts + 2 <= DOUBTS; i++) {
		struct doubt *d = &pager->doubt[i], whole = *d;

		if (d->ctx != ctx || d->start >= end || d->end <= start ||
		    (what != END && d->excused == (what == EXCUSE)))
			continue;
		d->start = whole.start > start ? whole.start : start;
		d->end = whole.end < end ? whole.end : end;
		add_part(pager, whole, whole.start, d->start);
		add_part(pager, whole, d->end, whole.end);
		d->excused = what == EXCUSE;
		if (what == END)
			d->end = d->start;
	}
	sweep(pager);
}

/*
 * What a REMAP that is read after the doubt was made has brought was MISSING before, if anything of it is
 * away, and our REGISTER has changed nothing there. (Unless it has been replaced again by then:
 * the message of that comes later, and accuses what is there.)
 */
void doubts_excuse(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	change(hmm->pager, ctx, start, end, EXCUSE);
}

void doubts_accuse(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	change(hmm->pager, ctx, start, end, ACCUSE);
}

void doubts_end(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	if (hmm->pager->doubts && !judging(hmm, start, end))
		change(hmm->pager, ctx, start, end, END);
}

void doubts_settle(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	unsigned kept = 0;

	for (unsigned i = 0; i < pager->doubts; i++) {
		const struct doubt *d = &pager->doubt[i];

		/* A verdict that is outstanding is given with the doubts that there were. */
		if (hmm->os->ctx_probe(&hmm->os_ctx[d->ctx]) || judging(hmm, d->start, d->end))
			pager->doubt[kept++] = *d;
	}
	pager->doubts = kept;
}

bool doubts_none_at(const struct hmm *hmm, unsigned ctx, uintptr_t page)
{
	const struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < pager->doubts; i++) {
		const struct doubt *d = &pager->doubt[i];

		if (!d->excused && d->ctx == ctx && d->start <= page && page < d->end)
			return false;
	}
	return true;
}
