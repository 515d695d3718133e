/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * churn_during - forks, advice and migrations of the graph's memory while a launch reads
 * it.
 *
 * Laws: none of this changes what an address reads. A child spoils its copy of ranks
 * and nodes, which must not be seen here; PAGEOUT, COLLAPSE and NOHUGEPAGE make the
 * kernel move pages about under the same addresses; the library moves some to the GPU's
 * memory and home. Advice that the kernel declines (no swap, no 2 MiB page to be had) and
 * migrations of nothing are not counted.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "churn.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; absent from older headers */
#endif

#define HUGE ((uintptr_t)2 << 20)
#define BLOCK ((uintptr_t)64 << 10)

/* In the child, which may do nothing but write and leave. */
static void spoil(const struct churn_graph *target)
{
	const struct graph *nodes = &target->deb->graph;

	for (unsigned i = 0; i < 2; i++) {
		if (!target->read_only[i])
			memset(target->rank[i], 0xff, target->bytes);
	}
	for (uint32_t i = 0; i < nodes->count; i += 64) {
		nodes->nodes[i]->out_degree = 1;
		nodes->nodes[i]->in = NULL;
	}
	_exit(0);
}

static bool fork_under(struct churn_during *during)
{
	pid_t child = fork();

	if (!child)
		spoil(during->target);
	if (child < 0) {
		churn_bad(during->target->tally, false, "fork: %s", strerror(errno));
		return false;
	}
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return true;
}

/* The aligned block around some node. */
static void *some_block(struct churn_graph *target, uintptr_t size)
{
	const struct graph *nodes = &target->deb->graph;
	uint32_t index = (uint32_t)(churn_random(&target->random) % nodes->count);

	return (void *)((uintptr_t)nodes->nodes[index] & ~(size - 1));
}

/* Split the mapping, and have it whole again: no huge pages here, then again. */
static bool split_under(struct churn_graph *target)
{
	void *block = some_block(target, BLOCK);

	return !madvise(block, BLOCK, MADV_NOHUGEPAGE) &&
	       !madvise(block, BLOCK, MADV_HUGEPAGE);
}

static void one(struct churn_during *during)
{
	struct churn_graph *target = during->target;
	enum churn_kind kind = CHURN_FORK_UNDER + churn_random(&target->random) %
							  (CHURN_KINDS - CHURN_FORK_UNDER);
	bool done;

	switch (kind) {
	case CHURN_FORK_UNDER:
		done = fork_under(during);
		break;
	case CHURN_PAGEOUT:
		done = !madvise(some_block(target, BLOCK), BLOCK, MADV_PAGEOUT);
		break;
	case CHURN_COLLAPSE:
		done = !madvise(some_block(target, HUGE), HUGE, MADV_COLLAPSE);
		break;
	case CHURN_TO_VRAM:
	case CHURN_FROM_VRAM:
		done = target->vram && churn_migrate(target, some_block(target, BLOCK),
						     BLOCK, kind == CHURN_FROM_VRAM);
		break;
	default:
		done = split_under(target);
		break;
	}
	if (done)
		atomic_fetch_add(&target->tally->changes[kind], 1);
}

static void *run(void *arg)
{
	const struct timespec pause = { .tv_nsec = 2000000 };
	struct churn_during *during = arg;

	while (!atomic_load(&during->stop)) {
		pthread_mutex_lock(&during->graph);
		one(during);
		pthread_mutex_unlock(&during->graph);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

int churn_during_start(struct churn_during *during, struct churn_graph *target)
{
	pthread_mutex_init(&during->graph, NULL);
	during->target = target;
	atomic_store(&during->stop, false);
	return -pthread_create(&during->thread, NULL, run, during);
}

void churn_during_stop(struct churn_during *during)
{
	atomic_store(&during->stop, true);
	pthread_join(during->thread, NULL);
	pthread_mutex_destroy(&during->graph);
}
