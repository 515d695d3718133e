/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * late - naive mode: invalidations applied after the callback has returned.
 *
 * This is what a notifier does that reads its event, and so releases the program,
 * before it invalidates. Everything else of the driver is as it should be, so that the
 * litmus test sees what this one mistake costs. Only gpu_options.naive starts it.
 */
#include <stdlib.h>
#include <time.h>

#include "gpu_private.h"

/* Stands for the preemption between read and invalidate that a real one meets. */
#define LATE_NS 20000

struct gpu_late_range {
	struct gpu_late_range *next;
	uintptr_t start, end;
};

void gpu_late_put(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	struct gpu_late *late = &gpu->late;
	struct gpu_late_range *range = malloc(sizeof(*range));

	if (!range) {
		hmm_log(HMM_LOG_ERROR, "gpu: no memory, invalidation applied at once");
		gpu_mmu_forget(gpu, start, end);
		return;
	}
	*range = (struct gpu_late_range){.start = start, .end = end};
	pthread_mutex_lock(&late->lock);
	*late->last = range;
	late->last = &range->next;
	pthread_cond_signal(&late->put);
	pthread_mutex_unlock(&late->lock);
}

static void *late_main(void *arg)
{
	const struct timespec delay = {.tv_nsec = LATE_NS};
	struct gpu *gpu = arg;
	struct gpu_late *late = &gpu->late;
	struct gpu_late_range *range;

	for (;;) {
		pthread_mutex_lock(&late->lock);
		while (!late->first && !late->stop)
			pthread_cond_wait(&late->put, &late->lock);
		range = late->first;
		if (range)
			late->first = range->next;
		if (!late->first)
			late->last = &late->first;
		pthread_mutex_unlock(&late->lock);
		if (!range)
			return NULL;
		nanosleep(&delay, NULL);
		gpu_mmu_forget(gpu, range->start, range->end);
		free(range);
	}
}

int gpu_late_start(struct gpu *gpu)
{
	gpu->late.last = &gpu->late.first;
	return gpu_thread_start(&gpu->late.thread, late_main, gpu);
}

/* No callback is running any more. */
void gpu_late_stop(struct gpu *gpu)
{
	pthread_mutex_lock(&gpu->late.lock);
	gpu->late.stop = true;
	pthread_cond_signal(&gpu->late.put);
	pthread_mutex_unlock(&gpu->late.lock);
	gpu_thread_join(&gpu->late.thread);
}
