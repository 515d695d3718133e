/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * regcache_make - a get that found nothing registers.
 *
 *	[ plan; into `regions` ]; fence, fault; numbers; the driver's reg; numbers; [ changed? show ]
 *
 * What is in brackets is under `lock`, which the event of a change takes as well: one that comes in
 * between marks the region, and then it is taken back and made anew. A later one finds it live.
 *
 * Who finds that another thread is making what it wants waits for that. None waits that is
 * in `regions` itself, so they do not wait in a circle.
 */
#include <errno.h>
#include <string.h>

#include "core/pager.h"
#include "core/regcache.h"

#define PIECE 512u /* pages that are faulted in at once */

enum outcome {
	MADE,
	LOOK_AGAIN, /* another thread makes it, or has made it */
	CHANGED,    /* its memory did: begin again */
	FAILED,
};

struct make {
	struct hmm_regcache *cache;
	uintptr_t first, last; /* pages that are asked for */
	unsigned asked;
	bool alone;	       /* without what it overlaps with */

	/* One attempt. */
	uintptr_t start, end;
	unsigned access;
	bool merged;
	struct hmm_region *region;
	struct hmm_region *doomed;
	bool waits; /* for whoever makes what is in the way; `made` as it was then */
	uint32_t made;
	int err;
};

static struct hmm_region *region_of(const struct range_entry *entry)
{
	return (struct hmm_region *)(uintptr_t)entry->value;
}

static bool is_being_made(const struct hmm_regcache *cache, uintptr_t start, uintptr_t end)
{
	struct range_entry e;
	bool some = rangemap_first(&cache->regions, start, end, &e);

	while (some && !(region_of(&e)->state & REGION_MAKING))
		some = rangemap_next(&cache->regions, start, end, &e, &e);
	return some;
}

/* What is registered: the pages, and what is live there. false: that has them already. */
static bool widen(struct make *m)
{
	struct rangemap *regions = &m->cache->regions;
	struct range_entry e;
	uintptr_t start = m->first, end = m->last;
	unsigned access = m->asked;
	bool some = rangemap_first(regions, start, end, &e), merged = false;

	for (; some; some = rangemap_next(regions, m->first, m->last, &e, &e)) {
		const struct hmm_region *r = region_of(&e);

		if (!(r->state & REGION_LIVE))
			continue;
		if (r->start <= m->first && m->last <= r->end && !(m->asked & ~r->access))
			return false;
		merged = true;
		start = r->start < start ? r->start : start;
		end = r->end > end ? r->end : end;
		access |= r->access;
	}
	m->merged = merged && !m->alone && end - start <= m->cache->max_bytes;
	m->start = m->merged ? start : m->first;
	m->end = m->merged ? end : m->last;
	m->access = m->merged ? access : m->asked;
	return true;
}

/* Under `lock`. MADE: go on. */
static enum outcome plan(struct make *m)
{
	struct hmm_regcache *cache = m->cache;
	struct hmm_region *r;

	m->made = cache->made;
	m->region = m->doomed = NULL;
	m->err = 0;
	if (!widen(m))
		return LOOK_AGAIN;
	if (is_being_made(cache, m->start, m->end)) {
		m->waits = true;
		atomic_fetch_add(&cache->waiters, 1);
		return LOOK_AGAIN;
	}
	r = region_take(cache);
	if (r) {
		r->start = m->start;
		r->end = m->end;
		r->access = m->access;
		if (!region_list(r)) {
			m->region = r;
			return MADE;
		}
		region_free(r);
	}
	m->err = error_say(-ENOMEM, "no memory for a region");
	return FAILED;
}

static void wait_for_maker(struct make *m)
{
	struct hmm_regcache *cache = m->cache;

	cache->hmm->os->wait((const uint32_t *)&cache->made, m->made, 0);
	atomic_fetch_sub(&cache->waiters, 1);
}

/* Present, and its changes are told from now on. */
static int make_present(struct make *m)
{
	uint64_t pfns[PIECE];
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = m->cache->hmm,
		.notifier = m->cache->notifier,
		.pfns = pfns,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (m->access & HMM_REGCACHE_WRITE ? HMM_PFN_REQ_WRITE : 0),
	};
	int err = 0;

	for (uintptr_t at = m->start; at < m->end && !err; at = range.end) {
		memset(pfns, 0, sizeof(pfns));
		range.start = at;
		range.end = m->end - at > PIECE * PAGE ? at + PIECE * PAGE : m->end;
		err = hmm_notifier_read_begin(&range);
		if (!err && at == m->start && m->cache->pinned)
			err = unsettled_wait(m->cache->hmm, m->start, m->end);
		if (err >= 0)
			err = hmm_range_fault(&range);
	}
	return err;
}

/* So many idle regions, to have room. */
static unsigned evict(struct hmm_regcache *cache, unsigned n)
{
	struct hmm_region *doomed = NULL;

	lock_take(&cache->lock);
	while (n > 0 && region_evict(cache, &doomed))
		n--;
	lock_drop(&cache->lock);
	return doomed_end(cache, doomed);
}

static int call_driver(struct hmm_regcache *cache, struct hmm_region *r)
{
	unsigned n = 1;
	int err;

	for (;; n *= 2) {
		err = cache->ops.reg(cache->priv, r->start, r->end - r->start, r->access,
				     &r->handle);
		if ((err != -ENOMEM && err != -ENOSPC) || !evict(cache, n))
			break;
	}
	return err ? error_say(err, "the driver cannot register %#lx, %zu bytes",
			       (unsigned long)r->start, (size_t)(r->end - r->start))
		   : 0;
}

/* Under `lock`: is there room for it, without what it replaces? */
static bool make_room(struct make *m)
{
	struct hmm_regcache *cache = m->cache;
	uint64_t length = m->end - m->start;

	if (length > cache->max_bytes)
		return false;
	for (;;) {
		unsigned live = cache->live;
		uint64_t bytes = cache->bytes;
		struct range_entry e;
		bool some = rangemap_first(&cache->regions, m->start, m->end, &e);

		for (; some; some = rangemap_next(&cache->regions, m->start, m->end, &e, &e)) {
			if (!(region_of(&e)->state & REGION_LIVE))
				continue;
			live--;
			bytes -= e.end - e.start;
		}
		if (live < cache->max_regions && bytes <= cache->max_bytes - length)
			return true;
		if (!region_evict(cache, &m->doomed))
			return false;
	}
}

/* Under `lock`: what is live there makes room for what is shown. Its memory has not changed. */
static void replace(struct make *m)
{
	struct range_entry e;
	bool some = rangemap_first(&m->cache->regions, m->start, m->end, &e);

	for (; some; some = rangemap_next(&m->cache->regions, m->start, m->end, &e, &e))
		if (region_of(&e)->state & REGION_LIVE)
			region_over(region_of(&e), 0, &m->doomed);
}

/* Under `lock`, registered and not changed: kept for others, if it can be, and held. */
static void finish(struct make *m)
{
	struct hmm_regcache *cache = m->cache;
	uint64_t state = REGION_REG | REGION_REF;

	if ((!cache->pinned || m->region->frame) && make_room(m)) {
		replace(m);
		if (region_show(m->region))
			state |= REGION_LIVE;
	}
	atomic_fetch_add(&m->region->state, state - REGION_MAKING);
	atomic_fetch_add(&cache->count.misses, 1);
	if (m->merged)
		atomic_fetch_add(&cache->count.merges, 1);
}

/* Registered, unless it fails. true: it may be used, if no event came. */
static bool try_register(struct make *m, bool *registered)
{
	struct hmm_region *r = m->region;

	if (m->cache->pinned)
		pins_note(r);
	m->err = call_driver(m->cache, r);
	*registered = !m->err;
	return m->err || pins_hold(r, r->start, r->end);
}

static void take_back(struct make *m, bool registered)
{
	struct hmm_regcache *cache = m->cache;
	struct hmm_region *r = m->region;

	if (registered)
		cache->ops.dereg(cache->priv, r->handle, r->start, r->end - r->start);
	lock_take(&cache->lock);
	region_unlist(r);
	region_free(r);
	lock_drop(&cache->lock);
}

/* The region is in `regions`, as this thread's. */
static enum outcome make(struct make *m)
{
	struct hmm_regcache *cache = m->cache;
	bool registered = false, changed;

	m->err = make_present(m);
	changed = m->err == -EBUSY || (!m->err && !try_register(m, &registered));
	lock_take(&cache->lock);
	changed |= !!(m->region->state & REGION_CHANGED);
	if (registered && !changed)
		finish(m);
	lock_drop(&cache->lock);
	if (!registered || changed)
		take_back(m, registered);
	atomic_fetch_add(&cache->made, 1);
	if (cache->waiters)
		cache->hmm->os->wake((const uint32_t *)&cache->made);
	doomed_end(cache, m->doomed);
	return changed ? CHANGED : m->err ? FAILED : MADE;
}

static enum outcome attempt(struct make *m)
{
	enum outcome outcome;

	lock_take(&m->cache->lock);
	m->waits = false;
	outcome = plan(m);
	lock_drop(&m->cache->lock);
	if (m->waits)
		wait_for_maker(m);
	return outcome == MADE ? make(m) : outcome;
}

int regcache_make(struct hmm_regcache *cache, uintptr_t addr, uintptr_t end, unsigned access,
		  struct hmm_region **out)
{
	struct make m = { .cache = cache, .first = PAGE_DOWN(addr),
			  .last = PAGE_DOWN(end + PAGE - 1), .asked = access };
	const struct os_ops *os = cache->hmm->os;
	uint64_t deadline = os->now() + (uint64_t)HMM_RANGE_DEFAULT_TIMEOUT * 1000000;
	uint64_t pause = 1000;

	for (;;) {
		enum outcome outcome = attempt(&m);

		if (outcome == MADE)
			*out = m.region;
		else if (outcome == LOOK_AGAIN)
			*out = regcache_find(cache, addr, end, access);
		if (outcome == MADE || (outcome == LOOK_AGAIN && *out))
			return 0;
		if (outcome == FAILED && !m.merged)
			return m.err;
		/* What it overlaps with may be what cannot be registered. */
		if (outcome == FAILED)
			m.alone = true;
		if (outcome != CHANGED)
			continue;
		if (os->now() > deadline)
			return range_stale();
		os->sleep(pause);
		pause = pause < 1000000 ? pause * 2 : pause;
	}
}
