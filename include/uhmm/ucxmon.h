/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: ucxmon - UCX's registration caches, told of the changes that its hooks miss
 *
 * UCX hooks libc's munmap, mremap, madvise and so on; a raw system call, a mapping laid over
 * another and mprotect pass it by. This tells it of those, beside its own hooks:
 *
 *	UHMM_UCXMON=1 LD_PRELOAD=libuhmm-ucxmon.so.0 program
 *
 * With that each region is watched before UCX registers it, and each lookup is fenced, by standing
 * in front of ucs_rcache_create() and ucs_rcache_get(). A program with a cache of its own
 * that listens to UCM calls ucxmon_watch() before it registers, and ucxmon_fence() before it looks.
 *
 * U1  When ucxmon_fence() has returned 0, each change of the range that happened before it was
 *     called, since the range was watched, has been told to all handlers of UCM_EVENT_VM_UNMAPPED.
 * U2  Without a fence the same is true a little later: when the event has been delivered.
 */
#ifndef UHMM_UCXMON_H
#define UHMM_UCXMON_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * ucxmon_install() - become an event source of UCM
 *
 * UCX's own hooks stay. Only if the environment switches them off (UCX_MEM_MMAP_HOOK_MODE=none,
 * UCX_MEM_EVENTS=n) is the event declared external, so that caches can be made without hooks.
 *
 * Context: any thread, before the first cache is made. Return: 0, also if it is installed;
 * -ENOSYS there is no libucm.so.0; as hmm_open().
 */
UHMM_API int ucxmon_install(void);

/** ucxmon_remove() - end that; Context: any thread, no other call of ucxmon is running */
UHMM_API void ucxmon_remove(void);

/**
 * ucxmon_watch() - from its return on, changes of a range are told to UCM
 * @addr, @length: any; rounded to pages
 *
 * Context: any thread; waits for callbacks. Locks: none that a callback takes; UCX's cache may
 * be locked, its handler does not wait for it.
 * Return: 0; -EOPNOTSUPP some of it cannot be mirrored, or nothing is mapped there; -EAGAIN it
 * never stopped changing; -ENODEV not installed, or a forked child; -EOVERFLOW; -EDEADLK.
 */
UHMM_API int ucxmon_watch(const void *addr, size_t length);

/**
 * ucxmon_fence() - U1; before a lookup of what is about to be transferred
 * @addr, @length: what is asked
 *
 * Context, return: as hmm_fence(). If the mirror has died it tells UCM that the range is gone,
 * which is then registered each time, and returns 0.
 */
UHMM_API int ucxmon_fence(const void *addr, size_t length);

/**
 * struct ucxmon_stats - since the process began
 * @size: sizeof(struct ucxmon_stats), set by the caller
 * @events: changes told to UCM
 * @watched: ranges; @unwatched: regions of caches that could not be, UCX's hooks are all they have
 * @fenced: lookups
 */
struct ucxmon_stats {
	size_t size;
	uint64_t events, watched, unwatched, fenced;
};

/** ucxmon_get_stats() - Context: any. Return: 0; -E2BIG the struct is from a newer header */
UHMM_API int ucxmon_get_stats(struct ucxmon_stats *stats);

#ifdef __cplusplus
}
#endif

#endif /* UHMM_UCXMON_H */
