/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ucxmon - what its objects share.
 *
 *	ucxmon.c	the event source: notifier, watch, fence
 *	rcache.c	in front of UCX's registration caches; in the shared library alone
 *
 * Law: what a callback of ours does (ucm_vm_munmap) waits for no lock that a caller of
 * watch or fence may hold: the caches' handler tries its lock, and queues the range if it
 *is taken. So both may be called with a cache locked, and mem_reg is.
 */
#ifndef UHMM_UCXMON_PRIVATE_H
#define UHMM_UCXMON_PRIVATE_H

#include <stdatomic.h>
#include <stdbool.h>

#include <uhmm/ucxmon.h>

struct source {
	struct hmm *hmm; /* NULL: not installed */
	struct hmm_notifier *notifier;
	pid_t owner;
	void (*vm_munmap)(void *addr, size_t length);
	_Atomic uint64_t events, watched, unwatched, fenced;
};

extern struct source ucxmon;

#endif
