/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * register - a VMA is registered with one of the contexts, and entered in the map.
 *
 * Which one is not ours to choose where it is registered already: what was moved there brought its
 * context along. With it goes what belongs to it (whole.c): with a piece of a mapping
 * registered the program's own mremap of the whole would fail. The laws are the map's (vmas.c).
 */
#include <errno.h>

#include "core/pager.h"

#define STRANGERS_NS UINT64_C(10000000000)

/*
 * The map's permission changes after its change has been pushed, or no fence would see it.
 * What a SysV segment was replaced by counts as changed: without perf nobody else says so.
 */
static void tell_permission(struct hmm *hmm, const struct mirrored *want)
{
	struct event event = { .kind = EVENT_PROTECTION };
	uintptr_t start = want->start;
	struct mirrored m;

	while (start < want->end && vmas_next(hmm, start, want->end, &m)) {
		event.start = m.start > start ? m.start : start;
		event.end = m.end < want->end ? m.end : want->end;
		if (m.prot != want->prot || m.sysv)
			side_push(hmm, &event);
		start = event.end;
	}
}

static struct mirrored describe(const struct os_vma *vma)
{
	bool sysv = vma->kind == OS_VMA_SYSV;

	return (struct mirrored){ .start = vma->start, .end = vma->end, .prot = vma->prot,
				  .sysv = sysv, .anon = !vma->shared && !vma->inode,
				  .segment = sysv ? (uint32_t)vma->inode : 0 };
}

/*
 * What was described may have been replaced before it was registered, without a message.
 * From then on a change sends one, or the token fails. *now: as it is.
 */
static bool as_described(struct hmm *hmm, const struct mirrored *m, struct mirrored *now)
{
	struct os_vma vma;

	if (hmm->os->vma_find(&hmm->mm, m->start, &vma))
		return false;
	*now = describe(&vma);
	return now->start <= m->start && now->end >= m->end && now->sysv == m->sysv &&
	       now->anon == m->anon && now->segment == m->segment;
}

/* Pages that are away belong to a mapping that is registered. Where one is not, it has taken the place of
 * theirs (strangers_home). */
static bool has_strangers(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	return books_any(hmm, start, end) && !vmas_has_token(hmm, &hmm->mm, start);
}

static bool may_enter(struct hmm *hmm, unsigned ctx, const struct os_vma *piece)
{
	struct mirrored m = describe(piece);

	return vmas_only_of(hmm, ctx, &m) && !has_strangers(hmm, piece->start, piece->end);
}

/* What is registered along: all that belongs to it, what may be, nothing. */
enum along { ALONG_ALL, ALONG_SOME, ALONG_NONE };

/* *whole: what was registered. */
static int register_whole(struct hmm *hmm, const struct mirrored *m, enum along along,
			  struct whole *whole)
{
	struct whole_asks asks = { .hmm = hmm, .mm = &hmm->mm, .ctx = m->ctx, .may = may_enter,
				   .strict = along == ALONG_ALL, .mirrors = true };
	struct whole wider;
	struct os_vma vma;
	int err = 0;

	if (hmm->os->vma_find(&hmm->mm, m->start, &vma) || vma.start > m->start ||
	    vma.end < m->end)
		return -EAGAIN;
	*whole = (struct whole){ vma.start, vma.end, vma.start, vma.end };
	if (along != ALONG_NONE)
		err = whole_of(&asks, &vma, whole);
	if (err)
		return err;
	vmas_entering(hmm, m->ctx, whole);
	wider = *whole; /* which vmas_entering() does not know */
	return whole_register(&asks, &wider, hmm->os->ctx_register);
}

/*
 * Is it this context's? Where something was free when it was registered, or has been replaced since,
 * there may be another context's, which was moved there, or nobody's; the token does not tell them
 * apart. All is registered once more, which another context's in it refuses, and it is there still:
 * whatever takes it away from then on sends this context a message, and the map hears of it
 * (vmas_entering). All, and not this alone: a longer one that takes its place is not to be cut.
 */
static bool is_proven(struct hmm *hmm, struct whole whole, struct mirrored *m)
{
	const struct whole_asks asks = { .hmm = hmm, .mm = &hmm->mm, .ctx = m->ctx,
					 .may = may_enter, .mirrors = true };
	struct mirrored now;

	if (whole_register(&asks, &whole, hmm->os->ctx_register) || !as_described(hmm, m, &now))
		return false;
	m->prot = now.prot;
	return true;
}

/* If nothing of another context moves, nothing of it has been moved here. */
static bool others_rest(struct hmm *hmm, unsigned ctx)
{
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (i != ctx && !fence_rests(hmm, i))
			return false;
	return true;
}

/* What was registered along with `m` is in the map, too, as far as it may be. */
static void enter_others(struct hmm *hmm, const struct mirrored *m, const struct whole *whole)
{
	uintptr_t at = whole->start;
	struct os_vma vma;

	for (; at < whole->end; at = vma.end) {
		struct mirrored other;

		if (at == m->start)
			at = m->end;
		if (hmm->os->vma_find(&hmm->mm, at, &vma) || vma.end > whole->end)
			return;
		if (vma.start < whole->start)
			continue;
		other = describe(&vma);
		other.ctx = m->ctx;
		if ((vma.start < m->end && vma.end > m->start) || vmas_has(hmm, &other) ||
		    !vmas_only_of(hmm, m->ctx, &other) ||
		    !vmas_has_token(hmm, &hmm->mm, vma.start) || !is_proven(hmm, *whole, &other))
			continue;
		if (!hmm->perf || other.sysv)
			tell_permission(hmm, &other);
		vmas_enter(hmm, &other);
	}
}

/*
 * Under the register lock. 0, -EBUSY this context does not have it, -EINVAL, -ENOMEM,
 * -EAGAIN it changed. Entered when it is registered, so that an entry always names the
 * context to ask.
 */
static int try_context(struct hmm *hmm, struct mirrored *m, unsigned ctx, enum along along)
{
	struct mirrored now;
	struct whole whole;
	int err;

	m->ctx = ctx;
	err = register_whole(hmm, m, along, &whole);
	if (err)
		return err;
	if (!as_described(hmm, m, &now) || now.start < whole.start || now.end > whole.end)
		return -EAGAIN;
	if (!vmas_only_of(hmm, ctx, &now)) { /* it has grown over what is about to leave */
		now.start = m->start;
		now.end = m->end;
	}
	now.ctx = ctx;
	if (!others_rest(hmm, ctx) && !is_proven(hmm, whole, &now))
		return -EAGAIN;
	if (!hmm->perf || now.sysv)
		tell_permission(hmm, &now);
	err = vmas_enter(hmm, &now);
	if (!err)
		enter_others(hmm, &now, &whole);
	return err;
}

/*
 * Another context of ours may have it: a mapping that was moved here. Its entry
 * under the old context, if there is one, may go only when what is pending there has been
 * told; the caller has seen to that.
 */
static int try_others(struct hmm *hmm, struct mirrored *m, unsigned but, enum along along)
{
	int err = -EBUSY;

	for (unsigned i = 0; i < CONTEXTS && err == -EBUSY; i++)
		if (i != but)
			err = try_context(hmm, m, i, along);
	return err;
}

/* A child's mappings belong to a context that the parent's reader is about to close. */
static bool wait_for_parent(struct hmm *hmm, unsigned *waited_ms)
{
	if (!hmm->after_fork || *waited_ms >= 100)
		return false;
	hmm->os->sleep(1000000);
	*waited_ms += 1;
	return true;
}

/*
 * Entered under one context (or several), registered with another: drop what devices
 * have of it, after all that is pending there; only then may the entry change.
 */
static int mirror_moved(struct hmm *hmm, struct mirrored *m, enum along along)
{
	int err = fence_range(hmm, m->start, m->end);

	if (!err)
		err = fence_clear(hmm, (1u << CONTEXTS) - 1, m->start, m->end);
	if (err)
		return err;
	lock_take(&hmm->register_lock);
	err = try_others(hmm, m, CONTEXTS, along);
	lock_drop(&hmm->register_lock);
	return err;
}

/*
 * What has taken the place of pages that are away, which nothing tells of shmat(SHM_REMAP): registered with
 * them there it would be where they come home to. Sent home before, they find no such place; and the device
 * has let go of their frames.
 */
static int strangers_home(struct hmm *hmm, const struct mirrored *m)
{
	struct request home = { .kind = REQUEST_HOME, .start = m->start, .end = m->end };

	if (!has_strangers(hmm, m->start, m->end))
		return 0;
	home.deadline = hmm->os->now() + STRANGERS_NS;
	return request_do(hmm, &home);
}

/* -EBUSY: none of our contexts has all of it, or had when it was asked. */
static int mirror_once(struct hmm *hmm, struct mirrored *m, unsigned beside, enum along along)
{
	enum overlap overlap;
	int err = -EBUSY;
	unsigned ctx;

	lock_take(&hmm->register_lock);
	ctx = vmas_choose(hmm, m, beside, &overlap);
	if (overlap != SEVERAL_CONTEXTS)
		err = try_context(hmm, m, ctx, along);
	if (err == -EBUSY && overlap == NOTHING)
		err = try_others(hmm, m, ctx, along);
	lock_drop(&hmm->register_lock);
	if (err == -EBUSY && overlap != NOTHING)
		err = mirror_moved(hmm, m, along);
	return err;
}

static bool may_any(struct hmm *hmm, unsigned ctx, const struct os_vma *piece)
{
	return true;
}

/* Before it is registered. */
static int pieces_home(struct hmm *hmm, const struct whole *whole)
{
	uintptr_t at = whole->from;
	struct os_vma vma;
	int err = 0;

	for (; !err && at < whole->to && !hmm->os->vma_find_fast(&hmm->mm, at, &vma) &&
	       vma.start < whole->to; at = vma.end) {
		struct mirrored m = describe(&vma);

		err = strangers_home(hmm, &m);
	}
	return err;
}

/*
 * Before a VMA is registered: what is away below it and what belongs to it. *ctx: which context the map
 * has there; CONTEXTS: none, or several. Several: some of what was there before has not left yet,
 * and would keep the pieces apart; that is waited for.
 */
static int prepare(struct hmm *hmm, const struct os_vma *vma, unsigned *ctx)
{
	struct whole_asks asks = { .hmm = hmm, .mm = &hmm->mm, .may = may_any };
	struct mirrored all = describe(vma);
	enum overlap overlap;
	struct whole whole;
	int err;

	*ctx = CONTEXTS;
	if (all.sysv)
		return strangers_home(hmm, &all);
	if (whole_of(&asks, vma, &whole))
		return -EAGAIN;
	err = pieces_home(hmm, &whole);
	all.start = whole.from;
	all.end = whole.to;
	for (unsigned i = 0; !err; i++) {
		*ctx = vmas_context(hmm, &all, &overlap);
		if (overlap != SEVERAL_CONTEXTS)
			return 0;
		*ctx = CONTEXTS;
		if (i)
			return 0;
		err = fence_range(hmm, all.start, all.end);
	}
	return err;
}

/* How much is asked for at the nth try. A mapping that is moved here while contexts are asked one after
 * the other may be missed, and what is beside it may be on its way out. */
static const enum along ask[] = { ALONG_ALL, ALONG_ALL, ALONG_ALL, ALONG_SOME, ALONG_SOME,
				  ALONG_NONE };
#define TRIES (sizeof(ask) / sizeof(ask[0]))

/* What the kernel does not give is asked for with less at once. */
static unsigned next_try(unsigned tries, int err)
{
	return err == -EBUSY || ask[tries] != ALONG_ALL ? tries + 1 : TRIES - 2;
}

int vmas_mirror(struct hmm *hmm, const struct os_vma *vma)
{
	struct mirrored m = describe(vma);
	unsigned waited = 0, tries = 0, beside;
	struct mirrored now;
	int err;

	do {
		err = prepare(hmm, vma, &beside);
		if (err)
			return err;
		err = mirror_once(hmm, &m, beside, ask[tries]);
		if (err != -EBUSY && err != -EINVAL && err != -EPERM)
			return err;
		if (!as_described(hmm, &m, &now))
			return -EAGAIN; /* several mappings, of which no context has all? */
		if (err == -EBUSY && wait_for_parent(hmm, &waited))
			continue;
		tries = next_try(tries, err);
	} while (tries < TRIES);
	/* -EPERM: a shared mapping of a file that was opened for reading only. */
	return err == -EBUSY || err == -EPERM ? -EOPNOTSUPP : err;
}

bool vmas_has_token(struct hmm *hmm, const struct os_mm *mm, uintptr_t page)
{
	struct os_run run;
	uintptr_t next;

	return hmm->os->scan(mm, page, page + PAGE, OS_SCAN_CHECK, &run, 1, &next) >= 0;
}

void vmas_claim(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct os_vma vma;

	lock_take(&hmm->register_lock);
	while (start < end && !hmm->os->vma_find(&hmm->mm, start, &vma) && vma.start < end) {
		struct mirrored m = describe(&vma);

		/* Another context's entry there is of what the move replaced, if this context
		 * has the mapping now; and what devices had of it the REMAP has taken away. */
		m.start = m.start > start ? m.start : start;
		m.end = m.end < end ? m.end : end;
		if (vma.prot && vmas_has_token(hmm, &hmm->mm, vma.start) &&
		    try_context(hmm, &m, ctx, ALONG_SOME))
			try_context(hmm, &m, ctx, ALONG_NONE);
		start = vma.end;
	}
	lock_drop(&hmm->register_lock);
}
