/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away_self - what a process stands on moves while it runs: heap, stacks, .bss.
 *
 * Churners are threads that use such memory and check what they read. movers find memory
 * by what is mapped, send it away and leave it to the churners to bring it home.
 */
#ifndef LIVE_AWAY_SELF_H
#define LIVE_AWAY_SELF_H

#include <pthread.h>
#include <stdatomic.h>

#include "away.h"

struct churner {
	pthread_t thread;
	atomic_bool *stop;
	unsigned n;
	_Atomic unsigned long rounds;
	char wrong[120];
	_Atomic uintptr_t stack_start, stack_end;
};

#define CHURNERS_MAX 8u

struct churn {
	struct churner churner[CHURNERS_MAX];
	unsigned count;
	atomic_bool stop;
};

typedef void *churn_fn(void *churner);

churn_fn churn_malloc;	 /* malloc, realloc, free, with patterns in them */
churn_fn churn_recurse;	 /* deep stacks, large buffers for snprintf() */
churn_fn churn_stdio;	 /* FILEs, getenv, qsort, strtod, time */
churn_fn churn_children; /* fork, posix_spawn, raw clone */
churn_fn churn_threads;	 /* pthread_create and join, pthread_once, condition variables */
churn_fn churn_bss;	 /* counters in static data */

enum verdict churn_start(struct churn *churn, churn_fn *fn);
/* Each has done something, and nobody has seen a wrong byte. */
enum verdict churn_end(struct churn *churn);

/* Pages of [start, end) that were sent away; errors that must not be become FAIL. */
enum verdict self_out(struct away *dev, uintptr_t start, uintptr_t end, uint64_t *moved);
/* All of the process's anonymous memory that is present. */
enum verdict self_all_out(struct away *dev, uint64_t *moved);
/* .bss of the test */
extern char self_bss[256 * 1024];

#endif
