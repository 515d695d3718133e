/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * missing - VMAs that are registered MISSING: whole, so that the program's mremap of the
 * whole works, and for as long as something of them is away.
 *
 * Laws:
 * - the list has what was registered and has not been touched by an event since. It may lack what
 *   is registered; and what has come to a place without a message, after what was there was
 *   registered, or left without one, it has as well. But that has no token until the mirror
 *   registers it, and from then on what the list says of the place does not hold (registering.c);
 * - of what an event has touched the list is not sure: it counts as not being on it, but for going back
 *   to plain, which looks;
 * - what is on the list is not registered again, so that what has pages away does not come into
 *   doubt (doubts.c).
 * Back to plain: plain.c.
 */
#include <errno.h>

#include "core/migrate.h"

/* How often in a row what lies beside a mapping is refused, before that goes alone. */
#define WHOLES 8u

/* The end of what the list has from `at` on; `at` if nothing. */
static uintptr_t covered(const struct pager *pager, unsigned ctx, uintptr_t at)
{
	for (unsigned i = 0; i < pager->missing_n; i++) {
		const struct missing *m = &pager->missing[i];

		if (m->sure && m->ctx == ctx && m->start <= at && at < m->end) {
			at = m->end;
			i = -1u; /* from the start: another may go on there */
		}
	}
	return at;
}

/* Where the list begins again at or above `at`. */
static uintptr_t uncovered(const struct pager *pager, unsigned ctx, uintptr_t at, uintptr_t end)
{
	for (unsigned i = 0; i < pager->missing_n; i++) {
		const struct missing *m = &pager->missing[i];

		if (m->sure && m->ctx == ctx && m->start > at && m->start < end)
			end = m->start;
	}
	return end;
}

bool missing_nothing(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	uint64_t entry;

	return !books_next(hmm, &start, end, &entry) && !transfers_cover(hmm, start, end);
}

/*
 * Anonymous, and not what the pager needs, which could wait for itself at a hole there. Somebody else's
 * is refused, and another context's. What is on the list is not registered again, nor what has anything
 * away and is not on it: it would come into doubt. (Where nothing is away there is no doubt.)
 */
static bool may_be_missing(struct hmm *hmm, unsigned ctx, const struct os_vma *piece)
{
	const struct pager *pager = hmm->pager;

	return !piece->shared && !piece->inode && !migrate_is_ours(hmm, piece) &&
	       covered(pager, ctx, piece->start) == piece->start &&
	       uncovered(pager, ctx, piece->start, piece->end) == piece->end &&
	       missing_nothing(hmm, piece->start, piece->end);
}

/* What the list is not sure of makes room. */
static bool has_room(struct pager *pager)
{
	for (unsigned i = 0; pager->missing_n == MISSING_VMAS && i < MISSING_VMAS; i++)
		if (!pager->missing[i].sure)
			pager->missing[i] = pager->missing[--pager->missing_n];
	return pager->missing_n < MISSING_VMAS;
}

void missing_note(struct pager *pager, unsigned ctx, uintptr_t start, uintptr_t end,
		  uint64_t known)
{
	if (has_room(pager))
		pager->missing[pager->missing_n++] = (struct missing){
			.start = start, .end = end, .ctx = ctx, .sure = true, .known = known };
}

/* What was registered along. */
static void list_others(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
			const struct whole *whole, uint64_t known)
{
	uintptr_t at = whole->start;
	struct os_vma vma;

	for (; at < whole->end; at = vma.end) {
		if (at == start)
			at = end;
		if (hmm->os->vma_find_fast(&hmm->reader_mm, at, &vma) || vma.end > whole->end)
			return;
		if (vma.end <= start || vma.start >= end)
			missing_note(hmm->pager, ctx, vma.start, vma.end, known);
	}
}

/* What there is to register along with [start, end), a mapping or what of it is not on the list. */
static int find_whole(const struct whole_asks *asks, uintptr_t start, uintptr_t end,
		      struct whole *whole)
{
	const struct pager *pager = asks->hmm->pager;
	unsigned ctx = asks->ctx;
	struct os_vma vma;

	*whole = (struct whole){ start, end, start, end };
	if (asks->hmm->os->vma_find(asks->mm, start, &vma) || vma.start > start)
		return -EAGAIN;
	if (vma.start == start && vma.end == end)
		return whole_of(asks, &vma, whole);
	/* Not what it was, unless its list tells why. */
	if (vma.end < end || (vma.end > end && covered(pager, ctx, end) == end) ||
	    (vma.start < start && covered(pager, ctx, start - PAGE) != start))
		return -EAGAIN;
	return 0;
}

/* -EAGAIN: it, or what belongs to it, changes. */
static int register_whole(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
			  struct whole *whole)
{
	struct whole_asks asks = { .hmm = hmm, .mm = &hmm->reader_mm, .ctx = ctx,
				   .may = may_be_missing };
	struct pager *pager = hmm->pager;
	int err = find_whole(&asks, start, end, whole);

	if (err)
		return err;
	if (pager->wholes_refused >= WHOLES)
		*whole = (struct whole){ start, end, start, end };
	err = whole_register(&asks, whole, hmm->os->ctx_register_missing);
	if ((err == -EBUSY || err == -EINVAL || err == -EPERM) && (whole->start < start || whole->end > end)) {
		pager->wholes_refused++;
		return -EAGAIN; /* something has come there */
	}
	pager->wholes_refused = 0;
	return err;
}

static int register_piece(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	uint64_t known = registering_now(hmm);
	struct pager *pager = hmm->pager;
	struct whole whole;
	unsigned flags = 0;
	int err;

	/* Without room on the list it would be registered, and in doubt, each time. */
	if (!has_room(pager))
		return -ENOSPC;
	if (!doubts_have_room(pager))
		return -EAGAIN;
	err = dropped_strangers(hmm, start, end);
	if (err)
		return err;
	/* Registered before, and only not on the list any more: it does not come into doubt. */
	if (!hmm->os->vma_flags(start, &flags) && (flags & OS_VMA_MISSING) &&
	    belongs(hmm, ctx, start)) {
		/* Asked last: it is the mapping that was found. */
		if (hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
			return -EAGAIN;
		missing_note(pager, ctx, start, end, known);
		return 0;
	}
	if (hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
		return -EAGAIN;
	err = register_whole(hmm, ctx, start, end, &whole);
	if (err)
		return err;
	if (hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
		doubts_add(pager, ctx, whole.start, whole.end);
	list_others(hmm, ctx, start, end, &whole, known);
	missing_note(pager, ctx, start, end, known);
	return 0;
}

bool missing_outdated(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;
	bool some = false;

	for (unsigned i = 0; i < pager->missing_n; i++) {
		const struct missing m = pager->missing[i];

		if (!m.sure || m.ctx != ctx || m.start >= end || m.end <= start ||
		    !registering_since(hmm, m.known, m.start, m.end))
			continue;
		missing_forget(hmm, ctx, m.start, m.end);
		some = true;
		i = -1u; /* the list is another one */
	}
	return some;
}

int missing_register(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;
	int err = 0;

	doubts_settle(hmm);
	missing_outdated(hmm, ctx, start, end);
	for (uintptr_t at = covered(pager, ctx, start); at < end && !err;
	     at = covered(pager, ctx, at))
		err = register_piece(hmm, ctx, at, uncovered(pager, ctx, at, end));
	return err;
}

/* Is it said already? */
static bool is_known(const struct pager *pager, const struct missing *what)
{
	for (unsigned i = 0; i < pager->missing_n; i++) {
		const struct missing *m = &pager->missing[i];

		if (m->ctx == what->ctx && m->start <= what->start && m->end >= what->end &&
		    (m->sure || (!what->sure && (m->given_up || !what->given_up))))
			return true;
	}
	return false;
}

/* Where there is no room for it, in the place of something unsure; nothing moves: the list is being walked.
 * What finds no place at all is registered again when it is needed. */
static void add_rest(struct pager *pager, struct missing rest)
{
	if (rest.start >= rest.end || is_known(pager, &rest))
		return;
	if (pager->missing_n < MISSING_VMAS) {
		pager->missing[pager->missing_n++] = rest;
		return;
	}
	for (unsigned i = 0; rest.sure && i < MISSING_VMAS; i++)
		if (!pager->missing[i].sure) {
			pager->missing[i] = rest;
			return;
		}
}

/* Take [start, end) out of the list; or keep it there, unsure. */
static void take_out(struct pager *pager, unsigned ctx, uintptr_t start, uintptr_t end, bool keep)
{
	unsigned n = pager->missing_n;

	for (unsigned i = 0; i < n; i++) {
		struct missing *m = &pager->missing[i], above = *m, in = *m;

		if (m->ctx != ctx || m->start >= end || m->end <= start)
			continue;
		in.start = in.start > start ? in.start : start;
		in.end = in.end < end ? in.end : end;
		in.sure = false;
		above.start = in.end;
		m->end = in.start; /* if nothing is left of it, swept below */
		add_rest(pager, above);
		if (keep)
			add_rest(pager, in);
	}
	n = 0;
	for (unsigned i = 0; i < pager->missing_n; i++)
		if (pager->missing[i].start < pager->missing[i].end)
			pager->missing[n++] = pager->missing[i];
	pager->missing_n = n;
}

void missing_forget(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	take_out(hmm->pager, ctx, start, end, false);
}

void missing_give_up(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	const struct missing given_up = { .start = start, .end = end, .ctx = ctx, .given_up = true };

	if (is_known(hmm->pager, &given_up))
		return;
	missing_forget(hmm, ctx, start, end);
	add_rest(hmm->pager, given_up);
}

void missing_touched(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	take_out(hmm->pager, ctx, start, end, true);
}

void missing_moved(struct hmm *hmm, unsigned ctx, const struct os_msg *msg)
{
	struct pager *pager = hmm->pager;
	unsigned n;

	missing_touched(hmm, ctx, msg->to, msg->to + (msg->end - msg->start));
	missing_touched(hmm, ctx, msg->start, msg->end);
	n = pager->missing_n;
	for (unsigned i = 0; i < n; i++) {
		struct missing moved = pager->missing[i];

		if (moved.ctx != ctx || moved.start < msg->start || moved.end > msg->end)
			continue;
		moved.start = moved.start - msg->start + msg->to;
		moved.end = moved.end - msg->start + msg->to;
		moved.home_since = 0;
		add_rest(pager, moved);
	}
}
