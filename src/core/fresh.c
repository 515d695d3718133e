/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fresh - pages that a driver copies home to, made before they are needed.
 *
 * Making a page costs more than all the rest of bringing it home. So each transfer has a block
 * of them in two halves: pages are taken from one, from its start to its end, while the helper
 * (helper.c) fills the other. What is not there when it is needed is made then.
 *
 * A half: USED -> WANTED (all of it was taken, and has left) -> FILLING -> FULL -> USED.
 *
 * Laws:
 * - The pager takes a half, whatever it is; only the helper makes it FULL, and only out of
 *   FILLING: one that was taken meanwhile does not become full by what was wanted before.
 * - Populating does nothing to a page that is there. So it does not matter that the helper may
 *   still be at it when the pager has taken the half.
 * - No page comes here but new ones (L5): they leave by MOVE, or are discarded.
 */
#include "core/pager.h"

#define HALF (BLOCK_PAGES / 2)
#define NEITHER 2u
#define STEP (64 * PAGE) /* between two of them the helper looks for what is more urgent */

enum { USED, WANTED, FILLING, FULL };

static uintptr_t half_of(const struct pager *pager, unsigned transfer, unsigned half)
{
	return pager->fresh + transfer * BLOCK + half * HALF * PAGE;
}

static void want(struct pager *pager, struct fresh *fresh, unsigned half)
{
	fresh->half[half] = WANTED;
	pager->hungry = true;
}

/* Is all of it there? It is the pager's in any case. */
static bool take_half(struct fresh *fresh, unsigned half)
{
	if (fresh->now == half)
		return fresh->full && !fresh->used;
	return atomic_exchange(&fresh->half[half], USED) == FULL;
}

static int take_both(struct hmm_transfer *t, struct fresh *fresh, unsigned n, uintptr_t start)
{
	bool low = take_half(fresh, 0), high = take_half(fresh, 1);
	uintptr_t from = low ? start + HALF * PAGE : start;

	fresh->both = true;
	fresh->now = NEITHER;
	return low && high ? 0 : t->hmm->os->populate(from, start + n * PAGE, true);
}

int fresh_take(struct hmm_transfer *t, unsigned n, uintptr_t *start)
{
	struct pager *pager = t->hmm->pager;
	struct fresh *fresh = &pager->fresh_of[t->index];

	if (n > HALF) {
		*start = half_of(pager, t->index, 0);
		return take_both(t, fresh, n, *start);
	}
	if (fresh->now == NEITHER || fresh->used + n > HALF) {
		unsigned next = fresh->now == 0;

		/* Its pages have left: a block has one transfer at a time. */
		if (fresh->now != NEITHER)
			want(pager, fresh, fresh->now);
		fresh->full = take_half(fresh, next);
		fresh->now = next;
		fresh->used = 0;
	}
	*start = half_of(pager, t->index, fresh->now) + fresh->used * PAGE;
	fresh->used += n;
	return fresh->full ? 0 : t->hmm->os->populate(*start, *start + n * PAGE, true);
}

void fresh_over(struct hmm_transfer *t)
{
	struct pager *pager = t->hmm->pager;
	struct fresh *fresh = &pager->fresh_of[t->index];

	if (!fresh->both)
		return;
	fresh->both = false;
	want(pager, fresh, 0);
	want(pager, fresh, 1);
}

/* true: there may be more to do. Without memory it stays wanted, and is made when it is needed. */
static bool fill(struct hmm *hmm, unsigned transfer, unsigned half)
{
	struct pager *pager = hmm->pager;
	_Atomic uint32_t *state = &pager->fresh_of[transfer].half[half];
	uintptr_t at = half_of(pager, transfer, half), end = at + HALF * PAGE;
	uint32_t wanted = WANTED, filling = FILLING;
	int err = 0;

	if (!atomic_compare_exchange_strong(state, &wanted, FILLING))
		return false;
	for (; at < end && !err && *state == FILLING && !helper_hurries(pager); at += STEP)
		err = hmm->os->populate(at, at + STEP, true);
	atomic_compare_exchange_strong(state, &filling, at < end || err ? WANTED : FULL);
	return !err;
}

bool fresh_fill(struct hmm *hmm)
{
	bool more = false;

	for (unsigned i = 0; i < TRANSFERS; i++)
		for (unsigned half = 0; half < 2; half++)
			more |= fill(hmm, i, half);
	return more;
}
