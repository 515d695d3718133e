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
 * - REGISTER does not look whether a change is pending. Done while one is, it may have hit the
 *   VMA that came after the one we mean. A probe that says "quiet" *after* it proves that
 *   no change from before is unread; until then the range is in doubt, and the flag
 *   in smaps proves nothing there. What is on the list already is not registered again, so
 *   what has pages away does not come into doubt.
 * - back to plain: the reader unregisters, inside an odd sequence of the gate, so that a fence
 *   which follows a change that nobody told us waits for the event that says so.
 */
#include <errno.h>

#include "core/migrate.h"

/* How long all is home before a VMA goes back to plain, and how often that is looked at. */
#define HOME_NS UINT64_C(200000000)
#define TRIM_NS UINT64_C(50000000)
/* How often in a row what lies beside a mapping is refused, before that goes alone. */
#define WHOLES 8u

/* The end of what the list has from `at` on; `at` if nothing. */
static uintptr_t covered(const struct pager *pager, unsigned ctx, uintptr_t at)
{
	for (unsigned i = 0; i < pager->missing_n; i++) {
		const struct missing *m = &pager->missing[i];

		if (m->ctx == ctx && m->start <= at && at < m->end) {
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

		if (m->ctx == ctx && m->start > at && m->start < end)
			end = m->start;
	}
	return end;
}

/* A change is pending: how sure is what was just registered? Full: everything is in doubt. */
static void doubt_add(struct pager *pager, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct doubt *d = &pager->doubt[pager->doubts];

	if (pager->doubts == DOUBTS) {
		d = &pager->doubt[0];
		*d = (struct doubt){ .end = UINTPTR_MAX, .ctx = CONTEXTS };
		pager->doubts = 1;
		return;
	}
	*d = (struct doubt){ .start = start, .end = end, .ctx = ctx };
	pager->doubts++;
}

/*
 * What a REMAP that is read after the doubt was made has brought was MISSING before, if anything of it is
 * away, and our REGISTER has changed nothing there. (Unless it has been replaced again by then:
 * the message of that comes later, and accuses what is there.)
 */
void missing_excuse(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;
	unsigned n = pager->doubts;

	for (unsigned i = 0; i < n && pager->doubts + 2 <= DOUBTS; i++) {
		struct doubt *d = &pager->doubt[i], whole = *d;

		if (d->ctx != ctx || d->excused || d->start >= end || d->end <= start)
			continue;
		d->excused = true;
		if (whole.start < start) {
			d->start = start;
			pager->doubt[pager->doubts] = whole;
			pager->doubt[pager->doubts++].end = start;
		}
		if (whole.end > end) {
			d->end = end;
			pager->doubt[pager->doubts] = whole;
			pager->doubt[pager->doubts++].start = end;
		}
	}
}

void missing_accuse(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < pager->doubts; i++) {
		struct doubt *d = &pager->doubt[i];

		if (d->ctx == ctx && d->start < end && d->end > start)
			d->excused = false;
	}
}

void missing_settle(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	unsigned kept = 0;

	for (unsigned i = 0; i < pager->doubts; i++) {
		const struct doubt *d = &pager->doubt[i];
		bool quiet = true;

		for (unsigned c = 0; c < CONTEXTS; c++)
			if (d->ctx == c || d->ctx == CONTEXTS)
				quiet &= !hmm->os->ctx_probe(&hmm->os_ctx[c]);
		/* A verdict that is outstanding is given with the doubts that there were. */
		if (!quiet || judging(hmm, d->start, d->end))
			pager->doubt[kept++] = *d;
	}
	pager->doubts = kept;
}

bool missing_proves(const struct hmm *hmm, unsigned ctx, uintptr_t page)
{
	const struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < pager->doubts; i++) {
		const struct doubt *d = &pager->doubt[i];

		if (!d->excused && d->start <= page && page < d->end &&
		    (d->ctx == ctx || d->ctx == CONTEXTS))
			return false;
	}
	return true;
}

static bool all_home(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	uint64_t entry;

	return !books_next(hmm, &start, end, &entry);
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
	       all_home(hmm, piece->start, piece->end) &&
	       !transfers_cover(hmm, piece->start, piece->end);
}

/* What is away is MISSING, and was before something else has been registered there. */
static void list_add(struct pager *pager, unsigned ctx, uintptr_t start, uintptr_t end,
		     uint64_t known)
{
	if (pager->missing_n < MISSING_VMAS)
		pager->missing[pager->missing_n++] = (struct missing){
			.start = start, .end = end, .ctx = ctx, .known = known };
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
			list_add(hmm->pager, ctx, vma.start, vma.end, known);
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
	if (pager->missing_n == MISSING_VMAS)
		return -ENOSPC;
	err = dropped_strangers(hmm, start, end);
	if (err)
		return err;
	/* Registered before, and only not on the list any more: it does not come into doubt. */
	if (!hmm->os->vma_flags(start, &flags) && (flags & OS_VMA_MISSING) &&
	    belongs(hmm, ctx, start)) {
		/* Asked last: it is the mapping that was found. */
		if (hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
			return -EAGAIN;
		list_add(pager, ctx, start, end, known);
		return 0;
	}
	err = register_whole(hmm, ctx, start, end, &whole);
	if (err)
		return err;
	if (hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
		doubt_add(pager, ctx, start, end);
	list_others(hmm, ctx, start, end, &whole, known);
	list_add(pager, ctx, start, end, known);
	return 0;
}

bool missing_outdated(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;
	bool some = false;

	for (unsigned i = 0; i < pager->missing_n; i++) {
		const struct missing m = pager->missing[i];

		if (m.ctx != ctx || m.start >= end || m.end <= start ||
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

	missing_settle(hmm);
	missing_outdated(hmm, ctx, start, end);
	for (uintptr_t at = covered(pager, ctx, start); at < end && !err;
	     at = covered(pager, ctx, at))
		err = register_piece(hmm, ctx, at, uncovered(pager, ctx, at, end));
	return err;
}

void missing_forget(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;
	unsigned n = pager->missing_n;

	for (unsigned i = 0; i < n; i++) {
		struct missing *m = &pager->missing[i], whole = *m;

		if (m->ctx != ctx || m->start >= end || m->end <= start)
			continue;
		m->end = m->start; /* empty: swept below */
		if (whole.start < start) {
			m->start = whole.start;
			m->end = start;
		}
		/* Without room the rest is registered again when it is needed. */
		if (whole.end > end && pager->missing_n < MISSING_VMAS) {
			pager->missing[pager->missing_n] = whole;
			pager->missing[pager->missing_n++].start = end;
		}
	}
	n = 0;
	for (unsigned i = 0; i < pager->missing_n; i++)
		if (pager->missing[i].start < pager->missing[i].end)
			pager->missing[n++] = pager->missing[i];
	pager->missing_n = n;
}

int missing_unregister(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	/* Asked last that no change is pending: something with pages away could have come there. */
	if (!all_home(hmm, start, end) || transfers_cover(hmm, start, end) ||
	    hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
		return -EBUSY;
	missing_forget(hmm, ctx, start, end);
	hmm->os->ctx_unregister(&hmm->os_ctx[ctx], start, end);
	return 0;
}

/*
 * Unregister, and tell the worker that the map and the devices have to forget it. Said also
 * where it failed: a part may be unregistered then.
 */
static void make_plain(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct gate *gate = &hmm->gate[ctx];
	struct event event = { .kind = EVENT_PLAIN, .start = start, .end = end };

	atomic_fetch_add(&gate->seq, 1);
	hmm->os->ctx_unregister(&hmm->os_ctx[ctx], start, end);
	queue_push(&gate->queue, &event);
	gate_flip(hmm, gate);
	worker_wake(hmm);
	missing_forget(hmm, ctx, start, end);
}

static bool is_ours(struct hmm *hmm, unsigned ctx, const struct os_vma *piece)
{
	return belongs(hmm, ctx, piece->start);
}

static bool is_home(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	return all_home(hmm, start, end) && !transfers_cover(hmm, start, end);
}

/*
 * The whole VMA as it is now, which may have grown, and its pieces; if all of it is at home, for pieces
 * in different modes cannot be one mapping again. That no change is pending is asked last: what
 * was found could be another mapping else.
 */
static bool try_plain(struct hmm *hmm, const struct missing *m)
{
	struct whole_asks asks = { .hmm = hmm, .mm = &hmm->reader_mm, .ctx = m->ctx,
				   .may = is_ours };
	struct whole whole;
	struct os_vma vma;

	if (hmm->os->vma_find(&hmm->reader_mm, m->start, &vma) || vma.start > m->start) {
		missing_forget(hmm, m->ctx, m->start, m->end);
		return true;
	}
	if (whole_of(&asks, &vma, &whole) || !is_ours(hmm, m->ctx, &vma) ||
	    !is_home(hmm, whole.from, whole.to) || hmm->os->ctx_probe(&hmm->os_ctx[m->ctx]))
		return false;
	make_plain(hmm, m->ctx, whole.start, whole.end);
	for (unsigned i = 0; i < 2; i++)
		if (whole_cut(&asks, &whole, i, &vma) && is_home(hmm, vma.start, vma.end) &&
		    !hmm->os->ctx_probe(&hmm->os_ctx[m->ctx]))
			make_plain(hmm, m->ctx, vma.start, vma.end);
	return true;
}

void missing_trim(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	uint64_t now;

	if (!pager->missing_n || (now = hmm->os->now()) - pager->trimmed < TRIM_NS)
		return;
	pager->trimmed = now;
	for (unsigned i = 0; i < pager->missing_n; i++) {
		struct missing *m = &pager->missing[i];

		if (!all_home(hmm, m->start, m->end))
			m->home_since = 0;
		else if (!m->home_since)
			m->home_since = now;
	}
	for (unsigned i = 0; i < pager->missing_n; i++) {
		const struct missing m = pager->missing[i];

		/* The list is another one afterwards. */
		if (m.home_since && now - m.home_since >= HOME_NS && try_plain(hmm, &m))
			i = -1u;
	}
}
