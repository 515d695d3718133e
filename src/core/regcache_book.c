/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * regcache_book - regions: their memory, where they are found, and who goes for a new one.
 *
 * Everything is registered by one and deregistered by one: whoever clears REG. Ends of a region are
 * an event, a replacement, an eviction, and its last put; all but the last under `lock`, and the
 * driver is called after it was dropped.
 */
#include <errno.h>

#include "core/regcache.h"

#define SLAB_REGIONS 62u
#define HUGE_BYTES ((uintptr_t)1 << UHMM_PTABLE_HUGE_SHIFT)

/* Never given back before destroy: a get may look at a region that was over long ago. */
struct region_slab {
	struct region_slab *next;
	char pad[56];
	struct hmm_region region[SLAB_REGIONS] __attribute__((aligned(64)));
};

static void put_free(struct hmm_region *r)
{
	r->next = r->cache->free;
	r->cache->free = r;
}

struct hmm_region *region_take(struct hmm_regcache *cache)
{
	struct region_slab *slab;
	struct hmm_region *r;

	if (!cache->free) {
		slab = arena_alloc(cache->hmm->arena, sizeof(*slab));
		if (!slab)
			return NULL;
		slab->next = cache->slabs;
		cache->slabs = slab;
		for (unsigned i = SLAB_REGIONS; i-- > 0;) {
			slab->region[i].cache = cache;
			put_free(&slab->region[i]);
		}
	}
	r = cache->free;
	cache->free = r->next;
	r->next = r->prev = NULL;
	return r;
}

static size_t frames_size(const struct hmm_region *r)
{
	return (r->end - r->start) / PAGE * sizeof(*r->frame);
}

void region_free(struct hmm_region *r)
{
	const uint64_t flags = REGION_LIVE | REGION_REG | REGION_CHANGED | REGION_MAKING;

	assert(!(r->state & REGION_LIVE));
	/* Who is passing by may have a reference for a moment still. */
	atomic_fetch_and(&r->state, ~flags);
	arena_free(r->cache->hmm->arena, r->frame, r->frame ? frames_size(r) : 0);
	r->frame = NULL;
	put_free(r);
}

void region_count(struct hmm_region *r)
{
	uint32_t gets = (uint32_t)(r->state >> REGION_GET_SHIFT);

	/* Whatever order two threads do this in, the differences add up. */
	atomic_fetch_add(&r->cache->count.hits,
			 (uint64_t)(int32_t)(gets - atomic_exchange(&r->counted, gets)));
}

void regions_count(struct hmm_regcache *cache)
{
	for (struct region_slab *slab = cache->slabs; slab; slab = slab->next)
		for (unsigned i = 0; i < SLAB_REGIONS; i++)
			region_count(&slab->region[i]);
}

/* ---- where they are found ---- */

int region_list(struct hmm_region *r)
{
	struct range_entry entry = { .start = r->start, .end = r->end, .id = (uintptr_t)r,
				     .value = (uintptr_t)r };
	int err = rangemap_insert(&r->cache->regions, &entry);

	if (!err)
		atomic_fetch_or(&r->state, REGION_MAKING);
	return err;
}

void region_unlist(struct hmm_region *r)
{
	rangemap_remove(&r->cache->regions, r->start, (uintptr_t)r);
}

static void list_add(struct hmm_region *r)
{
	struct hmm_regcache *cache = r->cache;

	r->next = NULL;
	r->prev = cache->newest;
	*(r->prev ? &r->prev->next : &cache->oldest) = r;
	cache->newest = r;
}

static void list_remove(struct hmm_region *r)
{
	struct hmm_regcache *cache = r->cache;

	*(r->prev ? &r->prev->next : &cache->oldest) = r->next;
	*(r->next ? &r->next->prev : &cache->newest) = r->prev;
	r->next = r->prev = NULL;
}

bool region_show(struct hmm_region *r)
{
	struct hmm_regcache *cache = r->cache;
	uintptr_t at = r->start;
	int err = 0;

	while (at < r->end && !err) {
		bool huge = !(at & (HUGE_BYTES - 1)) && r->end - at >= HUGE_BYTES;

		err = huge ? uhmm_ptable_set_huge(&cache->table, at, (uintptr_t)r)
			   : uhmm_ptable_set(&cache->table, at, (uintptr_t)r);
		if (!err)
			at += huge ? HUGE_BYTES : PAGE;
	}
	if (err) {
		uhmm_ptable_clear(&cache->table, r->start, at);
		return false;
	}
	r->seen = (uint32_t)(r->state >> REGION_GET_SHIFT);
	list_add(r);
	cache->live++;
	cache->bytes += r->end - r->start;
	return true;
}

static void hide(struct hmm_region *r)
{
	struct hmm_regcache *cache = r->cache;

	uhmm_ptable_clear(&cache->table, r->start, r->end);
	list_remove(r);
	cache->live--;
	cache->bytes -= r->end - r->start;
}

/* ---- and ends ---- */

static void doom(struct hmm_region *r, struct hmm_region **doomed)
{
	region_unlist(r);
	r->next = *doomed;
	*doomed = r;
}

void region_over(struct hmm_region *r, uint64_t why, struct hmm_region **doomed)
{
	uint64_t state = r->state, next;

	do {
		next = (state & ~REGION_LIVE) | why;
		if (region_is_due(next))
			next &= ~REGION_REG;
	} while (!atomic_compare_exchange_weak(&r->state, &state, next));
	if (state & REGION_LIVE)
		hide(r);
	if (state & ~next & REGION_REG)
		doom(r, doomed);
}

/* Idle, and nobody comes: then it is ours. */
static bool claim_idle(struct hmm_region *r)
{
	uint64_t state = r->state;

	while (!(state & REGION_REFS))
		if (atomic_compare_exchange_weak(&r->state, &state,
						 state & ~(REGION_LIVE | REGION_REG)))
			return true;
	return false;
}

bool region_flush(struct hmm_region *r, struct hmm_region **doomed)
{
	if (!claim_idle(r))
		return false;
	hide(r);
	doom(r, doomed);
	return true;
}

/* Second chance: who is held, or was since the last look, is the youngest. */
bool region_evict(struct hmm_regcache *cache, struct hmm_region **doomed)
{
	struct hmm_region *r;

	for (unsigned i = 2 * cache->live; i > 0; i--) {
		uint32_t gets;

		r = cache->oldest;
		gets = (uint32_t)(r->state >> REGION_GET_SHIFT);
		if (gets == r->seen && region_flush(r, doomed)) {
			atomic_fetch_add(&cache->count.evictions, 1);
			return true;
		}
		r->seen = gets;
		list_remove(r);
		list_add(r);
	}
	return false;
}

static void deregister(struct hmm_region *r)
{
	struct hmm_regcache *cache = r->cache;

	cache->ops.dereg(cache->priv, r->handle, r->start, r->end - r->start);
}

unsigned doomed_end(struct hmm_regcache *cache, struct hmm_region *doomed)
{
	struct hmm_region *r, *next;
	unsigned n = 0;

	if (!doomed)
		return 0;
	for (r = doomed; r; r = r->next, n++)
		deregister(r);
	lock_take(&cache->lock);
	for (r = doomed; r; r = next) {
		next = r->next;
		region_free(r);
	}
	lock_drop(&cache->lock);
	return n;
}

void region_last(struct hmm_region *r, uint64_t state)
{
	struct hmm_regcache *cache = r->cache;

	/* In a forked child nothing is registered, and `lock` may be held by nobody. */
	if (cache->hmm->pid != hmm_pid())
		return;
	while (!atomic_compare_exchange_weak(&r->state, &state, state & ~REGION_REG))
		if (!region_is_due(state))
			return;
	deregister(r);
	lock_take(&cache->lock);
	region_unlist(r);
	region_free(r);
	lock_drop(&cache->lock);
}

void regions_end(struct hmm_regcache *cache)
{
	struct region_slab *slab = cache->slabs, *next;

	for (; slab; slab = next) {
		next = slab->next;
		for (unsigned i = 0; i < SLAB_REGIONS; i++) {
			struct hmm_region *r = &slab->region[i];

			assert(!(r->state & REGION_REFS) && "a region is held");
			if (r->state & REGION_REG)
				deregister(r);
			arena_free(cache->hmm->arena, r->frame, r->frame ? frames_size(r) : 0);
		}
		arena_free(cache->hmm->arena, slab, sizeof(*slab));
	}
	cache->slabs = NULL;
}
