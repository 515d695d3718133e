/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * vmas - which mapping is registered with which context.
 *
 * Laws, on which the fence stands (docs/gate.md):
 * - a VMA is entered when it is registered, and only if no event of the context has taken
 *   anything out there since before it was;
 * - its permission is read again after that: a record that came in between was filtered away;
 * - the entry of a context leaves only when an event of that context is
 *   processed, before notifiers are told: who finds no entry has nothing to
 *   wait for, and who finds one waits for what is pending there;
 * - an entry may be there without a registration (the message came late). The
 *   registration token, in every scan of a fault, finds that.
 * Whole VMAs are registered: with a piece of it registered the program's own
 * mremap of the whole would fail. What is registered together: whole.c.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/pager.h"

#define VALUE_CTX 0xffu
#define VALUE_PROT_SHIFT 8
#define VALUE_SYSV (1u << 16)
#define VALUE_ANON (1u << 17)
#define VALUE_SEGMENT_SHIFT 32
#define STRANGERS_NS UINT64_C(10000000000)

static struct mirrored unpack(const struct range_entry *entry)
{
	return (struct mirrored){
		.start = entry->start,
		.end = entry->end,
		.ctx = entry->value & VALUE_CTX,
		.prot = (entry->value >> VALUE_PROT_SHIFT) & 7,
		.sysv = entry->value & VALUE_SYSV,
		.anon = entry->value & VALUE_ANON,
		.segment = (uint32_t)(entry->value >> VALUE_SEGMENT_SHIFT),
	};
}

static uint64_t pack(const struct mirrored *m)
{
	return m->ctx | (uint64_t)(m->prot & 7) << VALUE_PROT_SHIFT | (m->sysv ? VALUE_SYSV : 0) |
	       (m->anon ? VALUE_ANON : 0) | (uint64_t)m->segment << VALUE_SEGMENT_SHIFT;
}

/* Counts follow the map: each change of it goes through here. Under vmas_lock. */
static void count(struct hmm *hmm, uintptr_t start, uintptr_t end, int by)
{
	struct range_entry e;
	bool more = rangemap_first(&hmm->vmas, start, end, &e);

	for (; more; more = rangemap_next(&hmm->vmas, start, end, &e, &e)) {
		struct mirrored m = unpack(&e);

		atomic_fetch_add(&hmm->gate[m.ctx].vmas, (size_t)by);
		if (m.sysv)
			hmm->sysv += (size_t)by;
	}
}

static int erase_locked(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	/* One page to each side: a cut leaves pieces there that count anew. */
	uintptr_t lo = start ? start - 1 : 0, hi = end < UINTPTR_MAX ? end + 1 : end;
	int err;

	count(hmm, lo, hi, -1);
	err = rangemap_erase(&hmm->vmas, start, end);
	count(hmm, lo, hi, 1);
	return err;
}

static int put_locked(struct hmm *hmm, const struct mirrored *m)
{
	struct range_entry e = { .start = m->start, .end = m->end, .value = pack(m) };
	int err = erase_locked(hmm, m->start, m->end);

	if (err)
		return err;
	err = rangemap_insert(&hmm->vmas, &e);
	if (err)
		hmm->map_lost = true;
	else
		count(hmm, m->start, m->end, 1);
	return err;
}

/* From before it is registered. Under the register lock, so that there is one. */
static void entering_begins(struct hmm *hmm, unsigned ctx, const struct whole *whole)
{
	lock_take(&hmm->vmas_lock);
	hmm->entering = (struct entering){ .ctx = ctx, .start = whole->start,
					   .end = whole->end, .ended_start = UINTPTR_MAX };
	lock_drop(&hmm->vmas_lock);
}

/* -EAGAIN: an event of the context has come meanwhile, that may have been the mapping's end. */
static int enter(struct hmm *hmm, const struct mirrored *m)
{
	int err;

	lock_take(&hmm->vmas_lock);
	if (m->start < hmm->entering.ended_end && m->end > hmm->entering.ended_start)
		err = -EAGAIN;
	else
		err = put_locked(hmm, m);
	lock_drop(&hmm->vmas_lock);
	if (!err)
		worker_entered(hmm);
	return err;
}

/*
 * Take context `ctx`'s entries out of a range. When a cut in the middle finds no
 * memory the entry stays: too much is registered then, never too little.
 */
static void erase_of(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct range_entry e;
	bool more = rangemap_first(&hmm->vmas, start, end, &e);

	while (more) {
		if ((e.value & VALUE_CTX) == ctx)
			erase_locked(hmm, e.start > start ? e.start : start,
				     e.end < end ? e.end : end);
		more = rangemap_next(&hmm->vmas, start, end, &e, &e);
	}
}

void vmas_erase(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	lock_take(&hmm->vmas_lock);
	erase_of(hmm, ctx, start, end);
	lock_drop(&hmm->vmas_lock);
}

void vmas_leave(struct hmm *hmm, const struct leaving *leaving)
{
	struct entering *entering = &hmm->entering;

	lock_take(&hmm->vmas_lock);
	for (unsigned i = 0; i < 2; i++) {
		erase_of(hmm, leaving->ctx, leaving->start[i], leaving->end[i]);
		if (leaving->ctx != entering->ctx || leaving->start[i] >= entering->end ||
		    leaving->end[i] <= entering->start)
			continue;
		if (leaving->start[i] < entering->ended_start)
			entering->ended_start = leaving->start[i];
		if (leaving->end[i] > entering->ended_end)
			entering->ended_end = leaving->end[i];
	}
	hmm->leaving = *leaving;
	lock_drop(&hmm->vmas_lock);
}

bool vmas_next(struct hmm *hmm, uintptr_t start, uintptr_t end, struct mirrored *out)
{
	struct range_entry e;
	bool found;

	lock_take(&hmm->vmas_lock);
	found = rangemap_first(&hmm->vmas, start, end, &e);
	lock_drop(&hmm->vmas_lock);
	if (found)
		*out = unpack(&e);
	return found;
}

bool vmas_overlap(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct mirrored m;

	return hmm->map_lost || vmas_next(hmm, start, end, &m);
}

/* In one step: an entry that the worker takes out meanwhile must not come back (M1). */
void vmas_set_prot(struct hmm *hmm, uintptr_t start, uintptr_t end, int prot)
{
	struct range_entry e;
	bool more;

	lock_take(&hmm->vmas_lock);
	more = rangemap_first(&hmm->vmas, start, end, &e);
	while (more) {
		struct mirrored m = unpack(&e);

		m.start = m.start > start ? m.start : start;
		m.end = m.end < end ? m.end : end;
		m.prot = prot;
		/* Without memory the old permission stays, and is reported as changed again. */
		put_locked(hmm, &m);
		more = rangemap_next(&hmm->vmas, start, end, &e, &e);
	}
	lock_drop(&hmm->vmas_lock);
}

/* Under vmas_lock. Of a long list the contexts in use say the same, or a little more. */
static void find_contexts(struct hmm *hmm, uintptr_t start, uintptr_t end, struct to_fence *to)
{
	struct range_entry e;
	bool more = rangemap_first(&hmm->vmas, start, end, &e);

	for (unsigned seen = 0; more && seen < 64; seen++) {
		to->probe |= 1u << (e.value & VALUE_CTX);
		to->compare |= !!(e.value & VALUE_SYSV);
		more = rangemap_next(&hmm->vmas, start, end, &e, &e);
	}
	if (!more && !hmm->map_lost)
		return;
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (hmm->gate[i].vmas || hmm->map_lost)
			to->probe |= 1u << i;
	to->compare |= hmm->sysv != 0;
}

struct to_fence vmas_to_fence(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	const struct leaving *leaving = &hmm->leaving;
	struct to_fence to = { 0 };

	lock_take(&hmm->vmas_lock);
	find_contexts(hmm, start, end, &to);
	for (unsigned i = 0; i < 2; i++)
		if (leaving->start[i] < end && leaving->end[i] > start)
			to.wait = 1u << leaving->ctx;
	lock_drop(&hmm->vmas_lock);
	to.compare |= to.probe && !hmm->perf;
	return to;
}

enum overlap { NOTHING, ONE_CONTEXT, SEVERAL_CONTEXTS };

/* The context of the entries that overlap a VMA; none: CONTEXTS. */
static unsigned context_of(struct hmm *hmm, const struct mirrored *want, enum overlap *overlap)
{
	struct range_entry e;
	unsigned ctx = CONTEXTS;
	bool more = rangemap_first(&hmm->vmas, want->start, want->end, &e);

	*overlap = more ? ONE_CONTEXT : NOTHING;
	for (; more; more = rangemap_next(&hmm->vmas, want->start, want->end, &e, &e)) {
		if (ctx != CONTEXTS && ctx != unpack(&e).ctx)
			*overlap = SEVERAL_CONTEXTS;
		ctx = unpack(&e).ctx;
	}
	return ctx;
}

static bool mergeable(const struct range_entry *e, const struct mirrored *want)
{
	struct mirrored m = unpack(e);

	return m.anon && want->anon && (m.end == want->start || m.start == want->end);
}

/*
 * A neighbour that the kernel would merge with keeps that possible: same context. Also where only
 * the permission differs, which mprotect may change (whole.c).
 */
static unsigned choose(struct hmm *hmm, const struct mirrored *want, unsigned beside,
		       enum overlap *overlap)
{
	struct range_entry e;
	unsigned ctx;

	lock_take(&hmm->vmas_lock);
	ctx = context_of(hmm, want, overlap);
	if (*overlap == NOTHING && rangemap_before(&hmm->vmas, want->start, &e) &&
	    mergeable(&e, want))
		ctx = unpack(&e).ctx;
	else if (*overlap == NOTHING && want->end < UINTPTR_MAX &&
		 rangemap_first(&hmm->vmas, want->end, want->end + 1, &e) &&
		 mergeable(&e, want))
		ctx = unpack(&e).ctx;
	lock_drop(&hmm->vmas_lock);
	if (ctx == CONTEXTS)
		ctx = beside;
	return ctx < CONTEXTS ? ctx : hmm->next_ctx++ % CONTEXTS;
}

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

/* Has the map nothing there but this context's? Another one's leaves by its event (the laws above). */
static bool only_of(struct hmm *hmm, unsigned ctx, const struct mirrored *m)
{
	enum overlap overlap;
	unsigned there;

	lock_take(&hmm->vmas_lock);
	there = context_of(hmm, m, &overlap);
	lock_drop(&hmm->vmas_lock);
	return overlap == NOTHING || (overlap == ONE_CONTEXT && there == ctx);
}

static bool may_enter(struct hmm *hmm, unsigned ctx, const struct os_vma *piece)
{
	struct mirrored m = describe(piece);

	return only_of(hmm, ctx, &m);
}

/* What is registered along: all that belongs to it, what may be, nothing. */
enum along { ALONG_ALL, ALONG_SOME, ALONG_NONE };

/* *whole: what was registered. */
static int register_whole(struct hmm *hmm, const struct mirrored *m, enum along along,
			  struct whole *whole)
{
	struct whole_asks asks = { .hmm = hmm, .mm = &hmm->mm, .ctx = m->ctx, .may = may_enter,
				   .strict = along == ALONG_ALL, .room = true };
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
	entering_begins(hmm, m->ctx, whole);
	return whole_register(&asks, whole, hmm->os->ctx_register);
}

static bool is_entered(struct hmm *hmm, const struct mirrored *m)
{
	struct mirrored there;

	return vmas_next(hmm, m->start, m->start + PAGE, &there) && there.start <= m->start &&
	       there.end >= m->end && there.ctx == m->ctx && there.prot == m->prot;
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
		other = describe(&vma);
		other.ctx = m->ctx;
		if ((vma.start < m->end && vma.end > m->start) || is_entered(hmm, &other) ||
		    !only_of(hmm, m->ctx, &other))
			continue;
		if (!hmm->perf || other.sysv)
			tell_permission(hmm, &other);
		enter(hmm, &other);
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
	if (!only_of(hmm, ctx, &now)) { /* it has grown over what is about to leave */
		now.start = m->start;
		now.end = m->end;
	}
	now.ctx = ctx;
	if (!hmm->perf || now.sysv)
		tell_permission(hmm, &now);
	err = enter(hmm, &now);
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
 * Pages that are away belong to a mapping that is registered. Where one is not, it has taken the
 * place of theirs, and nothing tells so of shmat(SHM_REMAP). Registered with them there it would be
 * where they come home to. Sent home before, they find no such place; and the device has let go of
 * their frames.
 */
static int strangers_home(struct hmm *hmm, const struct mirrored *m)
{
	struct request home = { .kind = REQUEST_HOME, .start = m->start, .end = m->end };

	if (!books_any(hmm, m->start, m->end) || vmas_has_token(hmm, &hmm->mm, m->start))
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
	ctx = choose(hmm, m, beside, &overlap);
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
		lock_take(&hmm->vmas_lock);
		*ctx = context_of(hmm, &all, &overlap);
		lock_drop(&hmm->vmas_lock);
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

/*
 * Register a VMA whole. 0; -EOPNOTSUPP the kernel does not give it, or somebody else's
 * userfaultfd has it; -EAGAIN it changed, look again; -EINVAL the same, or it is of a kind
 * that is refused; -ENOMEM; -ENODEV.
 */
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

/* What a REMAP left behind belongs to the context that told of it: enter it. Worker. */
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
		if (vma.prot && vmas_has_token(hmm, &hmm->mm, vma.start))
			try_context(hmm, &m, ctx, ALONG_SOME);
		start = vma.end;
	}
	lock_drop(&hmm->register_lock);
}

/* What has pages away stays registered; only the pager knows, and keeps it so. */
static bool unregister(struct hmm *hmm, const struct mirrored *m)
{
	struct request trim = { .kind = REQUEST_TRIM, .start = m->start, .end = m->end,
				.number = m->ctx };

	if (hmm->pager)
		return !request_do(hmm, &trim);
	hmm->os->ctx_unregister(&hmm->os_ctx[m->ctx], m->start, m->end);
	return true;
}

/* Is it this context's? */
static bool may_leave(struct hmm *hmm, unsigned ctx, const struct os_vma *piece)
{
	struct mirrored m;

	if (vmas_next(hmm, piece->start, piece->end, &m) && m.ctx != ctx)
		return false;
	return vmas_has_token(hmm, &hmm->mm, piece->start) &&
	       !hmm->os->ctx_register(&hmm->os_ctx[ctx], piece->start, piece->end);
}

/* What of it no notifier covers. Under the notifiers' lock. */
static bool leave(struct hmm *hmm, const struct mirrored *m)
{
	if (notifiers_overlap_locked(hmm, m->start, m->end) || !unregister(hmm, m))
		return false;
	vmas_erase(hmm, m->ctx, m->start, m->end);
	return true;
}

/*
 * With what belongs to it: the mapping may have grown, or been merged, since it was entered. (And what
 * has grown just now: it has no entry.)
 */
static void leave_whole(struct hmm *hmm, const struct mirrored *m)
{
	struct whole_asks asks = { .hmm = hmm, .mm = &hmm->mm, .ctx = m->ctx, .may = may_leave };
	struct mirrored all = *m;
	struct os_vma vma;
	struct whole whole;

	if (!hmm->os->vma_find(&hmm->mm, m->start, &vma) && vma.start <= m->start &&
	    !whole_of(&asks, &vma, &whole)) {
		all.start = whole.from < all.start ? whole.from : all.start;
		all.end = whole.to > all.end ? whole.to : all.end;
	}
	if (!leave(hmm, &all))
		return;
	whole = (struct whole){ .start = all.start, .end = all.end };
	for (unsigned i = 0; i < 2; i++)
		if (whole_cut(&asks, &whole, i, &vma)) {
			all.start = vma.start;
			all.end = vma.end;
			leave(hmm, &all);
		}
}

/*
 * Unregister what no notifier covers any more. The notifiers' lock is held over the
 * system call: a notifier that is inserted later faults later, and finds the VMA gone
 * from the map.
 */
void vmas_trim(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct mirrored m;

	while (start < end && vmas_next(hmm, start, end, &m)) {
		lock_take(&hmm->register_lock);
		lock_take(&hmm->notifiers_lock);
		leave_whole(hmm, &m);
		lock_drop(&hmm->notifiers_lock);
		lock_drop(&hmm->register_lock);
		start = m.end;
	}
}

static void unregister_one(struct hmm *hmm, const struct os_vma *vma)
{
	if (!vmas_has_token(hmm, &hmm->mm, vma->start))
		return;
	/* By us? Then registering again succeeds. (A number that was taken from us may be the
	 * program's own userfaultfd now.) */
	for (unsigned i = 0; i < CONTEXTS; i++) {
		if (!hmm->os->ctx_is_ours(&hmm->os_ctx[i]) ||
		    hmm->os->ctx_register(&hmm->os_ctx[i], vma->start, vma->end))
			continue;
		hmm->os->ctx_unregister(&hmm->os_ctx[i], vma->start, vma->end);
		return;
	}
}

/* Everything, also what moved behind the map's back: the last put. */
void vmas_unregister_all(struct hmm *hmm)
{
	struct os_vma vma;
	uintptr_t at = 0;

	lock_take(&hmm->register_lock);
	while (!hmm->os->vma_find_fast(&hmm->mm, at, &vma)) {
		unregister_one(hmm, &vma);
		at = vma.end;
	}
	lock_drop(&hmm->register_lock);
}
