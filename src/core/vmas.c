/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * vmas - the map: which mapping is registered with which context.
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
 * It is filled by register.c, and emptied by the worker and by unregister.c.
 */
#include <errno.h>

#include "core/core.h"

#define VALUE_CTX 0xffu
#define VALUE_PROT_SHIFT 8
#define VALUE_SYSV (1u << 16)
#define VALUE_ANON (1u << 17)
#define VALUE_SEGMENT_SHIFT 32

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

void vmas_entering(struct hmm *hmm, unsigned ctx, const struct whole *whole)
{
	lock_take(&hmm->vmas_lock);
	hmm->entering = (struct entering){ .ctx = ctx, .start = whole->start,
					   .end = whole->end, .ended_start = UINTPTR_MAX };
	lock_drop(&hmm->vmas_lock);
}

int vmas_enter(struct hmm *hmm, const struct mirrored *m)
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

unsigned vmas_context(struct hmm *hmm, const struct mirrored *want, enum overlap *overlap)
{
	unsigned ctx;

	lock_take(&hmm->vmas_lock);
	ctx = context_of(hmm, want, overlap);
	lock_drop(&hmm->vmas_lock);
	return ctx;
}

bool vmas_only_of(struct hmm *hmm, unsigned ctx, const struct mirrored *m)
{
	enum overlap overlap;
	unsigned there = vmas_context(hmm, m, &overlap);

	return overlap == NOTHING || (overlap == ONE_CONTEXT && there == ctx);
}

bool vmas_has(struct hmm *hmm, const struct mirrored *m)
{
	struct mirrored there;

	return vmas_next(hmm, m->start, m->start + PAGE, &there) && there.start <= m->start &&
	       there.end >= m->end && there.ctx == m->ctx && there.prot == m->prot;
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
unsigned vmas_choose(struct hmm *hmm, const struct mirrored *want, unsigned beside,
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
