/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: fabricmon - libfabric's registration cache, told of every change
 *
 * A memory monitor for an unmodified libfabric (1.13 or later), by its public import interface:
 *
 *	fabricmon_install();	// before the first domain that caches registrations
 *
 * or, with a program that knows nothing of it:
 *
 *	UHMM_FABRICMON=1 LD_PRELOAD=libuhmm-fabricmon.so.0 program
 *
 * F1  A cache that asks @valid under its lock before it serves an entry, as libfabric does, serves
 *     none whose memory has changed since it was subscribed: the entry is gone, or @valid is false.
 * F2  No operation waits for a lock that libfabric holds while it calls the operation: neither
 *     does the library's worker, which takes none of libfabric's at all.
 * F3  In a forked child the monitor is inert: nothing is valid, nothing can be subscribed.
 */
#ifndef UHMM_FABRICMON_H
#define UHMM_FABRICMON_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fid_mem_monitor; /* rdma/fi_ext.h */

/**
 * fabricmon_install() - become this process's memory monitor
 *
 * Opens the mirror only when libfabric starts the monitor, with the first cache.
 * The environment must not name another monitor (FI_MR_CACHE_MONITOR unset).
 *
 * Context: any thread. Return: 0; -EBUSY a monitor has been imported, or a cache is active;
 * -ENOSYS no libfabric.so.1 can be loaded, or it is older than 1.13; what libfabric says.
 */
UHMM_API int fabricmon_install(void);

/**
 * fabricmon_remove() - take that back
 *
 * libfabric puts no other monitor in its place: caches made later do without, and it imports
 * another only after fi_getinfo() has initialised it.
 *
 * Context: any thread. Return: 0; -EBUSY a cache still uses it; -ENOENT it was not installed.
 */
UHMM_API int fabricmon_remove(void);

/**
 * fabricmon_monitor() - the monitor itself, for a cache that is not libfabric's
 *
 * The caller does what libfabric does: sets import_ops, calls export_ops->start, then subscribe
 * for what it caches and valid before it serves it, notify being called by a thread of ours;
 * at the end export_ops->stop. Not together with fabricmon_install().
 *
 * Context: any. Return: the one monitor of the process.
 */
UHMM_API struct fid_mem_monitor *fabricmon_monitor(void);

/**
 * struct fabricmon_stats - since the process began
 * @size: sizeof(struct fabricmon_stats), set by the caller
 * @subscribed: ranges that are watched; @refused: those that could not be (libfabric then
 *	registers them each time)
 * @valid: entries found good; @invalid: those of which it could not be said at once
 * @notified: changes told to the cache
 */
struct fabricmon_stats {
	size_t size;
	uint64_t subscribed, refused, valid, invalid, notified;
};

/** fabricmon_get_stats() - Context: any. Return: 0; -E2BIG as hmm_notifier_insert() */
UHMM_API int fabricmon_get_stats(struct fabricmon_stats *stats);

#ifdef __cplusplus
}
#endif

#endif /* UHMM_FABRICMON_H */
