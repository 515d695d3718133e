/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: regcache - registrations of memory, kept, and never stale
 *
 * Registering memory with a network card, a GPU runtime or a fabric is dear, so who does it
 * keeps registrations by address and looks there first. When the program unmaps the memory
 * and maps other there, such a cache serves the old pages; those who hook munmap miss raw
 * system calls, and those who read userfaultfd and then tell their cache are late.
 *
 * Here a registration is given up before a lookup could find it stale:
 *
 *	hmm_regcache_get(cache, addr, length, HMM_REGCACHE_WRITE, 0, &region);
 *	start the transfer with hmm_region_handle(region)
 *	...
 *	changed = hmm_regcache_put(region);		// when it has ended
 *
 * R1  A region that hmm_regcache_get() returns was registered after every change of its range
 *     that G1 covers and that happened before the call (before the fence, with
 *     HMM_REGCACHE_FENCED).
 * R2  Nothing is deregistered while somebody holds it, and everything is, once: when it is
 *     put after a change, replaced, or evicted, and at the latest in hmm_regcache_destroy().
 * R3  @pinned: the pages that the registration holds are those that a CPU finds at the
 *     addresses asked for, at the time of the get: also after changes that no event tells
 *     (D3, dma.h). The ends of DONTNEEDs are waited for when it is made.
 *
 * A change of memory in use does not wait for its users (they may wait for a peer that has
 * died): the region is found by no get any more, and its last put deregisters it and says so.
 *
 * Regions do not overlap: a get that overlaps what is there registers the union.
 */
#ifndef UHMM_REGCACHE_H
#define UHMM_REGCACHE_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hmm_regcache;
struct hmm_region;

/* Access, of a get and of the driver's reg. Reading by the device is always included. */
#define HMM_REGCACHE_WRITE (1u << 0) /* the device may write */

/* Flags of hmm_regcache_get(). */
/* The caller has fenced (hmm_fence(), hmm_regcache_fence()) since whatever it has to see. */
#define HMM_REGCACHE_FENCED (1u << 0)

/**
 * struct hmm_regcache_ops - how the driver registers
 * @size: sizeof(struct hmm_regcache_ops)
 * @reg: register [start, start + length), page aligned, for @access; the memory is present.
 *	*handle is what hmm_region_handle() will say. Any negative errno; -ENOMEM, -ENOSPC: give
 *	up idle regions and try again
 * @dereg: take that back. It cannot fail
 *
 * Context: any thread; @dereg also the library's worker, inside an event. Several calls may
 * run at once. They may sleep and allocate; they may not call hmm_regcache_*() of this cache,
 * nor wait for a fence.
 */
struct hmm_regcache_ops {
	size_t size;
	int (*reg)(void *priv, uintptr_t start, size_t length, unsigned access, void **handle);
	void (*dereg)(void *priv, void *handle, uintptr_t start, size_t length);
};

/**
 * struct hmm_regcache_options - a cache
 * @size: sizeof(struct hmm_regcache_options)
 * @max_regions: at most so many are kept, in use or not; 0: 4096. Idle ones go, longest unused
 *	first (second chance); if all are in use a get registers beyond it, for itself
 * @max_bytes: the same for their bytes; 0: no limit
 * @pinned: a registration pins pages (R3)
 */
struct hmm_regcache_options {
	size_t size;
	unsigned max_regions;
	uint64_t max_bytes;
	bool pinned;
};

/**
 * hmm_regcache_create() - an empty cache
 * @hmm: own mirror; the cache takes a reference
 * @options: NULL: all zero
 * @ops: must outlive it
 * @priv: handed to @ops
 * @cache: where the handle goes
 *
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EINVAL; -E2BIG; -EOPNOTSUPP an attached process; -ENOMEM; -ENODEV; -EDEADLK.
 */
UHMM_API int hmm_regcache_create(struct hmm *hmm, const struct hmm_regcache_options *options,
				 const struct hmm_regcache_ops *ops, void *priv,
				 struct hmm_regcache **cache);

/**
 * hmm_regcache_destroy() - everything is deregistered
 * @cache: a handle, or NULL. No call on it may be running, and no region be held.
 * Context: any thread, not a callback. In a forked child it only forgets.
 */
UHMM_API void hmm_regcache_destroy(struct hmm_regcache *cache);

/**
 * hmm_regcache_get() - a registration that covers [addr, addr + length)
 * @cache: a cache
 * @addr: any address
 * @length: bytes, not 0
 * @access: HMM_REGCACHE_WRITE or 0
 * @flags: HMM_REGCACHE_FENCED or 0
 * @region: where it goes; held until hmm_regcache_put()
 *
 * A hit takes no lock: a fence of the range (one system call, usually; none with
 * HMM_REGCACHE_FENCED), a lookup, a reference. A miss makes the pages present (as
 * hmm_range_fault() with the access), registers whole pages, and what overlaps with them as one.
 *
 * Context: any thread, not a callback; sleeps. Locks: none that @ops take.
 * Return: 0; as hmm_range_fault(): -EFAULT, -EPERM, -EOPNOTSUPP (the memory cannot be mirrored,
 * so nothing may be kept of it: register without a cache); -EBUSY it changes all the time;
 * -EOVERFLOW; -EINVAL; -ENOMEM; -ENODEV; -EDEADLK; what @reg says.
 */
UHMM_API int hmm_regcache_get(struct hmm_regcache *cache, uintptr_t addr, size_t length,
			      unsigned access, unsigned flags, struct hmm_region **region);

/**
 * hmm_regcache_put() - the transfer has ended
 * @region: from hmm_regcache_get()
 *
 * Context: any thread, any callback; does not sleep unless it deregisters.
 * Return: false, or true: the memory, or a part of the region, changed while it was held, so
 * what was transferred may not be where the addresses are now.
 */
UHMM_API bool hmm_regcache_put(struct hmm_region *region);

/** hmm_region_handle() - what the driver's reg gave; good while the region is held */
UHMM_API void *hmm_region_handle(const struct hmm_region *region);

/** hmm_region_start() - its first address: offsets are from here for who registers so */
UHMM_API uintptr_t hmm_region_start(const struct hmm_region *region);

/**
 * hmm_regcache_fence() - G1 for all that is in the cache, once for many gets
 * Context, return: as hmm_fence(). Pins are checked by each get (R3).
 */
UHMM_API int hmm_regcache_fence(struct hmm_regcache *cache);

/**
 * hmm_regcache_flush() - give up every idle region
 * Context: any thread, not a callback. Return: how many.
 */
UHMM_API unsigned hmm_regcache_flush(struct hmm_regcache *cache);

/** struct hmm_regcache_stats - counted since create, but for @regions and @bytes */
struct hmm_regcache_stats {
	size_t size;
	uint64_t regions, bytes; /* now, in use or not; without those that only wait for a put */
	uint64_t hits, misses;
	uint64_t merges;	/* misses that registered a union */
	uint64_t evictions;	/* for the limits, or because reg had no room */
	uint64_t invalidations; /* regions that went because their memory changed */
	uint64_t busy;		/* of those, how many were held */
	uint64_t stale;		/* of those, how many only the look at the pins found (R3) */
};

/** hmm_regcache_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void hmm_regcache_get_stats(struct hmm_regcache *cache,
				     struct hmm_regcache_stats *stats);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_REGCACHE_H */
