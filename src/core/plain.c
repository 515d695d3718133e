/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * plain - back from MISSING: the registration is taken back where all is home.
 *
 * UNREGISTER asks nobody whether a change is pending, and what was found out before it may be of another
 * mapping by then: one with pages away, which was moved there meanwhile. Without its registration they could
 * not come home. So the reader asks afterwards:
 * - a change of this context is pending: whatever is there is registered again before the message is read, and
 *   so before the mremap that may have moved it there returns: nobody can have touched it as what it is. It
 *   comes into doubt, and the REMAP excuses it (doubts.c);
 * - what another context has there the kernel refuses to unregister, and nothing is done. Before Linux 6.15 it
 *   does not look: there it is done only while no other context has anything away.
 *
 * It happens inside an odd sequence of the gate, so that a fence which follows a change that nobody
 * told us waits for the event that says so.
 */
#include <errno.h>

#include "core/pager.h"

/* How long all is home before a VMA goes back to plain, and how often that is looked at. */
#define HOME_NS UINT64_C(200000000)
#define TRIM_NS UINT64_C(50000000)
#define AT_ONCE 16u /* then it is the program's turn */

/* ---- taking it back ---- */

static bool others_are_home(struct hmm *hmm, unsigned ctx)
{
	uint64_t entry;

	for (uintptr_t at = 0; books_next(hmm, &at, UINTPTR_MAX, &entry); at += PAGE)
		if (book_ctx(entry) != ctx)
			return false;
	return true;
}

/* Asked last that no change is pending: what was found could be another mapping else. */
static bool may_unregister(struct hmm *hmm, unsigned ctx)
{
	const struct os_ctx *os_ctx = &hmm->os_ctx[ctx];

	return doubts_have_room(hmm->pager) &&
	       (!os_ctx->unregisters_all || (!hmm->pager->aside_n && others_are_home(hmm, ctx))) &&
	       !hmm->os->ctx_probe(os_ctx);
}

/*
 * Not MISSING where the pager has data of its own (as in may_be_missing(), missing.c). The library's can come
 * there until it is done.
 */
static void register_piece(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
			   uint64_t known)
{
	const struct os_ctx *os_ctx = &hmm->os_ctx[ctx];

	if (arena_owns(start, end))
		return;
	if (hmm->os->critical(start, end))
		hmm->os->ctx_register(os_ctx, start, end);
	else if (!hmm->os->ctx_register_missing(os_ctx, start, end))
		missing_note(hmm->pager, ctx, start, end, known);
	if (arena_owns(start, end)) {
		hmm->os->ctx_unregister(os_ctx, start, end);
		missing_forget(hmm, ctx, start, end);
	}
}

/* As it was: private anonymous memory, whatever it is by now. All of it where that cannot be told. */
static void register_again(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
			   uint64_t known)
{
	uintptr_t at = start;

	while (at < end) {
		struct os_vma vma = { .start = at, .end = end };
		int err = hmm->os->vma_find_fast(&hmm->reader_mm, at, &vma);

		if (err == -ENOENT || vma.start >= end)
			break;
		if (vma.start < at)
			vma.start = at;
		at = vma.end;
		if (!vma.shared && !vma.inode)
			register_piece(hmm, ctx, vma.start, at < end ? at : end, known);
	}
	if (hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
		doubts_add(hmm->pager, ctx, start, end);
}

/* -EBUSY: it is registered as before. A refusal may come after a part of it was unregistered. */
static int unregister(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	const struct os_ctx *os_ctx = &hmm->os_ctx[ctx];
	uint64_t known = registering_now(hmm);
	int err = hmm->os->ctx_unregister(os_ctx, start, end);

	missing_forget(hmm, ctx, start, end);
	if (!err && !hmm->os->ctx_probe(os_ctx))
		return 0;
	register_again(hmm, ctx, start, end, known);
	return -EBUSY;
}

int plain_if_home(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	int err = -EBUSY;

	if (missing_nothing(hmm, start, end) && may_unregister(hmm, ctx))
		err = unregister(hmm, ctx, start, end);
	if (err)
		missing_give_up(hmm, ctx, start, end);
	return err;
}

/* ---- what has been home for a while ---- */

/* And the worker is told that the map and the devices have to forget it, also where it failed: it may
 * have been unregistered for a moment. */
static void make_plain(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct gate *gate = &hmm->gate[ctx];
	struct event event = { .kind = EVENT_PLAIN, .start = start, .end = end };

	atomic_fetch_add(&gate->seq, 1);
	unregister(hmm, ctx, start, end);
	queue_push(&gate->queue, &event);
	gate_flip(hmm, gate);
	worker_wake(hmm);
}

static bool is_ours(struct hmm *hmm, unsigned ctx, const struct os_vma *piece)
{
	return belongs(hmm, ctx, piece->start);
}

/*
 * What has been there is gone, or an event has touched it. If it is MISSING still the list is sure of it
 * again; that is in smaps only, which is dear: once. true: the list is another one.
 */
static bool look_again(struct hmm *hmm, const struct missing *m)
{
	uint64_t known = registering_now(hmm);
	uintptr_t end = m->end;
	bool missing = false;
	unsigned flags = 0;
	struct os_vma vma;

	if (hmm->os->ctx_probe(&hmm->os_ctx[m->ctx]))
		return false; /* for nothing, it would be */
	if (!hmm->os->vma_find(&hmm->reader_mm, m->start, &vma) && vma.start <= m->start &&
	    belongs(hmm, m->ctx, m->start) && !hmm->os->vma_flags(m->start, &flags)) {
		missing = flags & OS_VMA_MISSING;
		end = vma.end < end ? vma.end : end;
	}
	/* It may have moved on, which is not read yet. */
	if (hmm->os->ctx_probe(&hmm->os_ctx[m->ctx]))
		return false;
	missing_forget(hmm, m->ctx, m->start, end);
	if (missing)
		missing_note(hmm->pager, m->ctx, m->start, end, known);
	return true;
}

/*
 * The whole VMA as it is now, which may have grown, and its pieces; if all of it is at home, for pieces
 * in different modes cannot be one mapping again.
 */
static bool try_plain(struct hmm *hmm, const struct missing *m)
{
	struct whole_asks asks = { .hmm = hmm, .mm = &hmm->reader_mm, .ctx = m->ctx,
				   .may = is_ours };
	struct whole whole;
	struct os_vma vma;

	if ((!m->sure && !m->given_up) ||
	    hmm->os->vma_find(&hmm->reader_mm, m->start, &vma) || vma.start > m->start)
		return look_again(hmm, m);
	if (whole_of(&asks, &vma, &whole) || !is_ours(hmm, m->ctx, &vma) ||
	    !missing_nothing(hmm, whole.from, whole.to) || !may_unregister(hmm, m->ctx))
		return false;
	make_plain(hmm, m->ctx, whole.start, whole.end);
	for (unsigned i = 0; i < 2; i++)
		if (whole_cut(&asks, &whole, i, &vma) &&
		    missing_nothing(hmm, vma.start, vma.end) && may_unregister(hmm, m->ctx))
			make_plain(hmm, m->ctx, vma.start, vma.end);
	return true;
}

void plain_trim(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	uint64_t now, entry;

	if (!pager->missing_n || (now = hmm->os->now()) - pager->trimmed < TRIM_NS)
		return;
	pager->trimmed = now;
	for (unsigned i = 0; i < pager->missing_n; i++) {
		struct missing *m = &pager->missing[i];
		uintptr_t at = m->start;

		if (books_next(hmm, &at, m->end, &entry))
			m->home_since = 0;
		else if (!m->home_since)
			m->home_since = now;
	}
	for (unsigned i = 0, did = 0; i < pager->missing_n && did < AT_ONCE; i++) {
		const struct missing m = pager->missing[i];

		/* The list is another one afterwards. */
		if (m.home_since && now - m.home_since >= HOME_NS && try_plain(hmm, &m)) {
			i = -1u;
			did++;
		}
	}
}
