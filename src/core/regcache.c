/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * regcache - registrations that are kept: made and ended, found and put; what changes.
 *
 * A get that finds: fence, look into the table, one atomic addition. A put: one subtraction.
 * What they count and who was used lately is in the same word (regcache.h).
 */
#include <errno.h>
#include <string.h>

#include "core/pager.h"
#include "core/regcache.h"

#define DEFAULT_REGIONS 4096u
/* So often what a region's gets have counted is taken out: before it can wrap. */
#define COUNT_MASK ((UINT64_C(1) << 30) - 1)

/* ---- what changes ---- */

/*
 * FORK is none: what an address reads is the same. (A page that is pinned is copied for the child at
 * once, so the parent keeps it; and what a driver does not pin as the kernel wants it pinned
 * the look at the numbers finds.)
 */
static void invalidate(void *priv, const struct hmm_event *event)
{
	struct hmm_regcache *cache = priv;
	struct hmm_region *doomed = NULL;
	struct range_entry e;
	bool some;

	if (event->kind == HMM_EVENT_FORK)
		return;
	lock_take(&cache->lock);
	some = rangemap_first(&cache->regions, event->start, event->end, &e);
	for (; some; some = rangemap_next(&cache->regions, event->start, event->end, &e, &e)) {
		struct hmm_region *r = (struct hmm_region *)(uintptr_t)e.value, *before = doomed;
		bool live = r->state & REGION_LIVE;

		region_over(r, REGION_CHANGED, &doomed);
		atomic_fetch_add(&cache->count.invalidations, live);
		atomic_fetch_add(&cache->count.busy, live && doomed == before);
	}
	lock_drop(&cache->lock);
	doomed_end(cache, doomed);
}

static const struct hmm_notifier_ops notifier_ops = { .size = sizeof(notifier_ops),
						      .invalidate = invalidate };

/* A page of it is another one, and nobody was told. The caller holds it. */
static void over_stale(struct hmm_region *r)
{
	struct hmm_regcache *cache = r->cache;
	struct hmm_region *doomed = NULL;
	bool live;

	lock_take(&cache->lock);
	live = r->state & REGION_LIVE;
	region_over(r, REGION_CHANGED, &doomed);
	lock_drop(&cache->lock);
	assert(!doomed);
	atomic_fetch_add(&cache->count.invalidations, live);
	atomic_fetch_add(&cache->count.stale, live);
	/* The caller's own reference is no use of it. */
	atomic_fetch_add(&cache->count.busy,
			 live && (r->state & REGION_REFS) != REGION_REF);
}

/* ---- get and put ---- */

/* Inlined: two atomic operations are most of what a hit costs, and the rest shall not be calls. */
static inline __attribute__((always_inline)) bool hold(struct hmm_region *r, uintptr_t addr,
						       uintptr_t end, unsigned access)
{
	/* It may be over, and another one by now: what it is now is what counts. */
	uint64_t state = atomic_fetch_add_explicit(&r->state, REGION_REF + REGION_GET,
						   memory_order_acquire);

	if (__builtin_expect((state >> REGION_GET_SHIFT & COUNT_MASK) == COUNT_MASK, 0))
		region_count(r);
	if (__builtin_expect((state & REGION_LIVE) && r->start <= addr && end <= r->end &&
			     !(access & ~r->access), 1)) {
		if (__builtin_expect(!r->cache->pinned, 1) || pins_hold(r, addr, end))
			return true;
		over_stale(r);
	}
	region_drop(r, REGION_REF + REGION_GET);
	return false;
}

bool region_hold(struct hmm_region *r, uintptr_t addr, uintptr_t end, unsigned access)
{
	return hold(r, addr, end, access);
}

static inline __attribute__((always_inline)) struct hmm_region *
find(struct hmm_regcache *cache, uintptr_t addr, uintptr_t end, unsigned access)
{
	struct hmm_region *r = (void *)(uintptr_t)uhmm_ptable_lookup(&cache->table, addr);

	return r && hold(r, addr, end, access) ? r : NULL;
}

struct hmm_region *regcache_find(struct hmm_regcache *cache, uintptr_t addr, uintptr_t end,
				 unsigned access)
{
	return find(cache, addr, end, access);
}

static int fence(struct hmm *hmm, uintptr_t addr, size_t length)
{
	int err = hmm_try_fence(hmm, addr, length);

	return err == -EAGAIN ? hmm_fence(hmm, addr, length) : err;
}

/* What is wrong with a get whose arguments are. */
static __attribute__((cold, noinline)) int refuse(const struct hmm_regcache *cache, size_t length,
						  unsigned access, unsigned flags,
						  struct hmm_region **out)
{
	if (!cache || !out)
		return error_say(-EINVAL, "no cache, or nowhere to put the region");
	if (!length || (access & ~HMM_REGCACHE_WRITE) || (flags & ~HMM_REGCACHE_FENCED))
		return error_say(-EINVAL, "no bytes, or an unknown access or flag");
	return error_say(-EOVERFLOW, "the range wraps around the end of the address space");
}

int hmm_regcache_get(struct hmm_regcache *cache, uintptr_t addr, size_t length, unsigned access,
		     unsigned flags, struct hmm_region **out)
{
	uintptr_t end = addr + length;
	struct hmm_region *r;
	int err;

	if (__builtin_expect(!cache || !out || (access & ~HMM_REGCACHE_WRITE) ||
			     (flags & ~HMM_REGCACHE_FENCED) || end <= addr ||
			     end > UINTPTR_MAX - PAGE, 0))
		return refuse(cache, length, access, flags, out);
	err = hmm_check_sleep(cache->hmm);
	if (!err && !(flags & HMM_REGCACHE_FENCED))
		err = fence(cache->hmm, addr, length);
	if (err)
		return err;
	r = find(cache, addr, end, access);
	if (__builtin_expect(!r, 0))
		return regcache_make(cache, addr, end, access, out);
	*out = r;
	return 0;
}

bool hmm_regcache_put(struct hmm_region *r)
{
	return r && (region_drop(r, REGION_REF) & REGION_CHANGED);
}

void *hmm_region_handle(const struct hmm_region *r)
{
	return r->handle;
}

uintptr_t hmm_region_start(const struct hmm_region *r)
{
	return r->start;
}

int hmm_regcache_fence(struct hmm_regcache *cache)
{
	return cache ? hmm_notifier_fence(cache->notifier)
		     : error_say(-EINVAL, "the cache is NULL");
}

unsigned hmm_regcache_flush(struct hmm_regcache *cache)
{
	struct hmm_region *doomed = NULL, *r, *next;

	if (!cache || hmm_check_sleep(cache->hmm))
		return 0;
	lock_take(&cache->lock);
	for (r = cache->oldest; r; r = next) {
		next = r->next;
		region_flush(r, &doomed);
	}
	lock_drop(&cache->lock);
	return doomed_end(cache, doomed);
}

/* ---- made and ended ---- */

static int check_create(struct hmm *hmm, const struct hmm_regcache_options *options,
			const struct hmm_regcache_ops *ops, struct hmm_regcache **out)
{
	int err = hmm_check_sleep(hmm);

	if (!err && (!ops || !out))
		err = error_say(-EINVAL, "no operations, or nowhere to put the handle");
	if (!err && options)
		err = struct_check(options, options->size, sizeof(*options));
	if (!err)
		err = struct_check(ops, ops->size, sizeof(*ops));
	if (!err && (!ops->reg || !ops->dereg))
		err = error_say(-EINVAL, "a cache needs reg and dereg");
	return err;
}

static void release(struct hmm_regcache *cache)
{
	struct hmm *hmm = cache->hmm;

	regions_end(cache);
	rangemap_destroy(&cache->regions);
	uhmm_ptable_destroy(&cache->table);
	lock_destroy(&cache->lock);
	arena_free(hmm->arena, cache, sizeof(*cache));
}

int hmm_regcache_create(struct hmm *hmm, const struct hmm_regcache_options *options,
			const struct hmm_regcache_ops *ops, void *priv, struct hmm_regcache **out)
{
	struct hmm_regcache *cache;
	int err = check_create(hmm, options, ops, out);

	if (err)
		return err;
	cache = arena_alloc(hmm->arena, sizeof(*cache));
	if (!cache)
		return error_say(-ENOMEM, "no memory for a cache");
	cache->hmm = hmm;
	cache->ops = *ops;
	cache->priv = priv;
	cache->pinned = options && options->pinned;
	cache->max_regions = options && options->max_regions ? options->max_regions
							     : DEFAULT_REGIONS;
	cache->max_bytes = options && options->max_bytes ? options->max_bytes : UINT64_MAX;
	lock_init(&cache->lock, LOCK_REGCACHE);
	rangemap_init(&cache->regions, hmm->arena);
	err = uhmm_ptable_init(&cache->table);
	/* It is what remembers which DONTNEEDs may not have ended yet. */
	if (!err && cache->pinned)
		err = pager_need(hmm);
	if (err)
		error_say(err, "no memory for a cache");
	else
		err = hmm_notifier_insert(hmm, 0, UINTPTR_MAX, &notifier_ops, cache,
					  &cache->notifier);
	if (err) {
		release(cache);
		return err;
	}
	hmm_get(hmm);
	*out = cache;
	return 0;
}

void hmm_regcache_destroy(struct hmm_regcache *cache)
{
	struct hmm *hmm;

	/* A forked child: it is the parent's, and what is registered too. */
	if (!cache || cache->hmm->pid != hmm_pid())
		return;
	hmm = cache->hmm;
	hmm_notifier_remove(cache->notifier);
	release(cache);
	hmm_put(hmm);
}

void hmm_regcache_get_stats(struct hmm_regcache *cache, struct hmm_regcache_stats *stats)
{
	size_t size = stats->size < sizeof(*stats) ? stats->size : sizeof(*stats);
	struct hmm_regcache_stats all = { 0 };

	if (cache->hmm->pid == hmm_pid()) {
		lock_take(&cache->lock);
		regions_count(cache);
		all.regions = cache->live;
		all.bytes = cache->bytes;
		lock_drop(&cache->lock);
		all.hits = cache->count.hits;
		all.misses = cache->count.misses;
		all.merges = cache->count.merges;
		all.evictions = cache->count.evictions;
		all.invalidations = cache->count.invalidations;
		all.busy = cache->count.busy;
		all.stale = cache->count.stale;
	}
	all.size = size;
	memcpy(stats, &all, size);
}
