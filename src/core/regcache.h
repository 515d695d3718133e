/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * regcache - registrations that are kept: what its parts share.
 *
 *	regcache.c       making and ending a cache; get on a hit, put; what changes
 *	regcache_book.c  regions: their memory, where they are found, who goes for a new one
 *	regcache_make.c  get on a miss
 *	regcache_pins.c  is what is pinned what a CPU finds? (R3)
 *
 * A struct hmm_region is in one of four states. All steps to the right are made under `lock`, but
 * for the last put's.
 *
 *	free     -> making   -> live     -> over     -> free
 *	nobody's    listed,     found by    held, or
 *	            found by    gets        about to be
 *	            no get                  deregistered
 *
 * Laws (docs/regcache.md has the argument):
 * - The memory of a region is a region's until destroy, so whoever has a pointer to one, however
 *   old, may add itself to `state`, and sees by what it replaces whether it holds something: only
 *   if it was LIVE. What it does not hold it does not read.
 * - Fields but `state` and `counted` are written while the region is neither LIVE nor REG.
 * - REG is cleared by one thread only, by a compare-and-exchange from a state without references:
 *   that thread deregisters.
 * - Whatever is not free is in `regions`, so that an event finds it: a making one begins again,
 *   a live one is over, one that is over and held says so at its last put.
 * - Live regions do not overlap, nor do those in the making.
 */
#ifndef UHMM_CORE_REGCACHE_H
#define UHMM_CORE_REGCACHE_H

#include <uhmm/ptable.h>
#include <uhmm/regcache.h>

#include "core/core.h"

/* Bits of hmm_region.state; above them references, and gets that found it, modulo 2^32. */
#define REGION_LIVE UINT64_C(1)	   /* a get may find it */
#define REGION_REG UINT64_C(2)	   /* it is registered */
#define REGION_CHANGED UINT64_C(4) /* its memory changed */
#define REGION_MAKING UINT64_C(8)
#define REGION_REF (UINT64_C(1) << 8)
#define REGION_REFS (((UINT64_C(1) << 24) - 1) << 8)
#define REGION_GET_SHIFT 32
#define REGION_GET (UINT64_C(1) << REGION_GET_SHIFT)

struct hmm_region {
	_Atomic uint64_t state;
	uintptr_t start, end;
	void *handle;
	struct hmm_regcache *cache;
	unsigned access;
	_Atomic uint32_t counted;	/* gets that are in the cache's `hits` */
	uint32_t seen;			/* gets when it was last looked at for eviction */
	uint64_t *frame;		/* pinned: of each page the number; NULL: not known */
	struct hmm_region *next, *prev; /* live: by age. Free, doomed: next only */
};

struct region_slab;

struct hmm_regcache {
	/* What a hit looks at. */
	struct uhmm_ptable table; /* of each page that is live the region */
	struct hmm *hmm;
	bool pinned;
	_Atomic bool unverified; /* page numbers are not told to us */

	unsigned max_regions;
	uint64_t max_bytes;
	struct hmm_regcache_ops ops;
	void *priv;
	struct hmm_notifier *notifier;

	struct lock lock; /* protects all below but the counts, and changes of `table` */
	struct rangemap regions;
	struct hmm_region *oldest, *newest; /* of the live ones */
	struct hmm_region *free;
	struct region_slab *slabs;
	unsigned live;
	uint64_t bytes; /* of the live ones */

	_Atomic uint32_t made;	  /* futex: bumped when something was made, or was not */
	_Atomic uint32_t waiters; /* on made */
	struct {
		_Atomic uint64_t hits, misses, merges, evictions, invalidations, busy, stale;
	} count;
};

/* ---- regcache_book.c ---- */
/* Under `lock`: one that nobody uses; NULL: no memory. And back. */
struct hmm_region *region_take(struct hmm_regcache *cache);
void region_free(struct hmm_region *region);
void regions_end(struct hmm_regcache *cache);
/* Under `lock`: into `regions`, as MAKING; -ENOMEM. And out again. */
int region_list(struct hmm_region *region);
void region_unlist(struct hmm_region *region);
/* Under `lock`: gets find it. false: it cannot be, nothing is changed. */
bool region_show(struct hmm_region *region);
/*
 * Under `lock`: no get finds it any more; `why` is added to its state. If nobody holds it, it goes
 * to *doomed.
 */
void region_over(struct hmm_region *region, uint64_t why, struct hmm_region **doomed);
/* Under `lock`, of a live one: the same if nobody holds it. */
bool region_flush(struct hmm_region *region, struct hmm_region **doomed);
/* Under `lock`: of the idle regions the one that was not used for the longest. false: none. */
bool region_evict(struct hmm_regcache *cache, struct hmm_region **doomed);
/* Not under `lock`: deregister what is doomed. How many. */
unsigned doomed_end(struct hmm_regcache *cache, struct hmm_region *doomed);
/* What gets have counted in its state goes to the cache's hits. Any thread. */
void region_count(struct hmm_region *region);
/* Under `lock`: of all of them. */
void regions_count(struct hmm_regcache *cache);
/* It may have been the last who held it, and it is over. */
void region_last(struct hmm_region *region, uint64_t state);

/* Nobody holds it, and it is to be deregistered. */
static inline bool region_is_due(uint64_t state)
{
	return (state & (REGION_REFS | REGION_LIVE | REGION_REG)) == REGION_REG;
}

/* `what`: REGION_REF, and REGION_GET if it is to be as if it had not been found. */
static inline uint64_t region_drop(struct hmm_region *region, uint64_t what)
{
	uint64_t state = atomic_fetch_sub_explicit(&region->state, what, memory_order_acq_rel) -
			 what;

	if (__builtin_expect(region_is_due(state), 0))
		region_last(region, state);
	return state;
}

/* ---- regcache.c ---- */
/*
 * Is it live, does it cover [addr, end) and, if it is pinned, is it what a CPU finds there? Then it
 * is held. Where the pointer was read does not matter, nor when.
 */
bool region_hold(struct hmm_region *region, uintptr_t addr, uintptr_t end, unsigned access);
/* One that is; NULL. */
struct hmm_region *regcache_find(struct hmm_regcache *cache, uintptr_t addr, uintptr_t end,
				 unsigned access);

/* ---- regcache_make.c ---- */
int regcache_make(struct hmm_regcache *cache, uintptr_t addr, uintptr_t end, unsigned access,
		  struct hmm_region **out);

/* ---- regcache_pins.c ---- */
/* Before it is registered, of what is present: note the numbers. */
void pins_note(struct hmm_region *region);
/* Are pages [start, end) those that were noted? True where nothing could be. */
bool pins_hold(const struct hmm_region *region, uintptr_t start, uintptr_t end);

#endif
