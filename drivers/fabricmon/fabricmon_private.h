/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fabricmon - the monitor and its two threads.
 *
 * Words: to *tell* is to call libfabric's notify, which takes its lock mm_lock; a range is
 * *pending* from the event that named it to the return of the notify that told it.
 *
 * Laws (the reasons are in README.md):
 *  L1  The worker (invalidate) takes m->lock alone, and only to put a range among the
 * pending. L2  Nobody who holds m->lock takes another lock. L3  Only the teller thread
 * calls notify. Only the watcher thread calls what waits for a fence. L4  An operation may
 * be called with mm_lock held: it waits for neither thread without end.
 */
#ifndef UHMM_FABRICMON_PRIVATE_H
#define UHMM_FABRICMON_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <rdma/fi_ext.h>

#include <uhmm/fabricmon.h>

/* More changes than this between two turns of the teller become one range around several.
 */
#define FABRICMON_PENDING 128u

struct span {
	uintptr_t start, end;
};

struct monitor {
	struct fid_mem_monitor fid; /* first: what libfabric hands us is a pointer to it */
	struct fid *cache;	    /* libfabric's, while installed */
	struct hmm *hmm;	    /* while started */
	struct hmm_notifier *notifier;
	pid_t owner; /* the process that started it */

	atomic_bool running; /* between start and stop, which do not overlap */

	pthread_mutex_t lock; /* protects what follows, down to the counters */
	bool quit;

	/* tell.c: pending[0] is being told. */
	struct span pending[FABRICMON_PENDING];
	unsigned pending_count;
	pthread_cond_t to_tell;
	pthread_t teller;

	/* subscribe.c: one question at a time for the watcher. */
	struct span question;
	uint64_t asked, answered; /* the same: it is idle */
	int answer;
	pthread_cond_t to_watch, watched;
	pthread_t watcher;

	_Atomic uint64_t subscribed, refused, valid, invalid, notified;
};

extern struct monitor fabricmon;

/* tell.c */
extern const struct hmm_notifier_ops fabricmon_notifier_ops;
void *fabricmon_teller(void *monitor);
bool fabricmon_is_pending(struct monitor *m, uintptr_t start, uintptr_t end);

/* subscribe.c */
void *fabricmon_watcher(void *monitor);
int fabricmon_subscribe(struct fid_mem_monitor *fid, const void *addr, size_t len);
bool fabricmon_valid(struct fid_mem_monitor *fid, const void *addr, size_t len);

#endif
