/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * evict - what must always be mapped: everything that a GPU has access to where there are
 * no retry faults, and ranges that say so (SVM_FLAG_ALWAYS_MAPPED).
 *
 * After svm_range_evict: the address space changes under such a range, so all queues stop;
 * a little later, in the hope that the program is done, a thread maps all such ranges
 * again, asks whether anything was evicted meanwhile, and if not lets the queues go on. The
 * GPUs' own notifiers take the translations away (G4); this is about not faulting for them.
 *
 * A frame that goes home for a CPU's fault is not told to anybody but its GPU. So a miss in
 * such a range counts as an eviction too, and the SM waits for the restore; if the page is
 * not mapped then, it cannot be, and the job ends.
 */
#include <signal.h>
#include <time.h>

#include "svm_private.h"

#define MISS_TRIES 16

bool svm_must_map(const struct svm *svm, const struct svm_attrs *attrs)
{
	return (attrs->access | attrs->in_place) &&
	       (svm->options.no_xnack || attrs->flags & SVM_FLAG_ALWAYS_MAPPED);
}

/* evict.lock held. */
static void evict(struct svm *svm)
{
	unsigned i;

	svm_count(&svm->count.evictions, 1);
	svm->evict.pending = true;
	if (!svm->evict.quiet) {
		svm->evict.quiet = true;
		for (i = 0; i < svm->options.gpus; i++)
			gpu_quiesce(svm->gpu[i]);
		svm_count(&svm->count.quiesced, 1);
	}
	pthread_cond_signal(&svm->evict.put);
}

void svm_evict(struct svm *svm)
{
	pthread_mutex_lock(&svm->evict.lock);
	evict(svm);
	pthread_mutex_unlock(&svm->evict.lock);
}

/* An SM outside sections, no lock held. Return: 1 try again; -EFAULT it cannot be mapped.
 */
int svm_miss(struct svm *svm, struct gpu *gpu, uintptr_t addr, enum gpu_access access)
{
	struct svm_evict *state = &svm->evict;
	unsigned tries;
	uint64_t before;

	for (tries = 0; tries < MISS_TRIES; tries++) {
		pthread_mutex_lock(&state->lock);
		evict(svm);
		before = state->generation;
		while (state->generation == before && !state->stop)
			pthread_cond_wait(&state->restored, &state->lock);
		pthread_mutex_unlock(&state->lock);
		if (svm_allows(gpu_lookup(gpu, (void *)addr), access))
			return 1;
	}
	return -EFAULT;
}

/* Where attributes do not allow to write, or the mapping does not, for reading. */
static void map_node(struct svm *svm, uintptr_t start, uintptr_t end,
		     const struct svm_attrs *attrs)
{
	uint32_t gpus = attrs->access | attrs->in_place;
	unsigned i;

	for (i = 0; i < svm->options.gpus; i++) {
		if (!(gpus >> i & 1))
			continue;
		if (!(attrs->flags & SVM_FLAG_GPU_RO))
			gpu_prefetch(svm->gpu[i], (void *)start, end - start, GPU_WRITE);
		gpu_prefetch(svm->gpu[i], (void *)start, end - start, GPU_READ);
	}
}

/* Best effort, as a restore is: what cannot be mapped is missed. */
void svm_map(struct svm *svm, uintptr_t start, uintptr_t end)
{
	while (start < end) {
		const struct svm_node *node;
		struct svm_attrs attrs = { 0 };
		uintptr_t from, to = end;

		pthread_mutex_lock(&svm->tree_lock);
		node = svm_tree_next(&svm->tree, start);
		from = node && node->start < end ? node->start : end;
		if (from < end) {
			to = node->end;
			attrs = node->attrs;
		}
		pthread_mutex_unlock(&svm->tree_lock);
		if (from == end)
			return;
		from = from > start ? from : start;
		to = to < end ? to : end;
		if (svm_must_map(svm, &attrs))
			map_node(svm, from, to, &attrs);
		start = to;
	}
}

static void rest(const struct svm *svm)
{
	const uint64_t us = svm->options.restore_us;
	const struct timespec delay = { (time_t)(us / 1000000),
					(long)(us % 1000000 * 1000) };

	nanosleep(&delay, NULL);
}

static void *restore_main(void *arg)
{
	struct svm *svm = arg;
	struct svm_evict *state = &svm->evict;
	unsigned i;

	pthread_mutex_lock(&state->lock);
	for (;;) {
		while (!state->pending && !state->stop)
			pthread_cond_wait(&state->put, &state->lock);
		if (state->stop)
			break;
		state->pending = false;
		pthread_mutex_unlock(&state->lock);
		rest(svm);
		svm_map(svm, 0, UINTPTR_MAX);
		pthread_mutex_lock(&state->lock);
		if (state->pending)
			continue; /* something went while we mapped: it is mapped next time
				   */
		state->quiet = false;
		state->generation++;
		svm_count(&svm->count.restored, 1);
		for (i = 0; i < svm->options.gpus; i++)
			gpu_resume(svm->gpu[i]);
		pthread_cond_broadcast(&state->restored);
	}
	pthread_mutex_unlock(&state->lock);
	return NULL;
}

int svm_evict_start(struct svm *svm)
{
	sigset_t all, before;
	int err;

	sigfillset(&all); /* the program's signals are not for it */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = pthread_create(&svm->evict.thread, NULL, restore_main, svm);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	svm->evict.started = !err;
	return -err;
}

/* No job is left. */
void svm_evict_stop(struct svm *svm)
{
	if (!svm->evict.started)
		return;
	pthread_mutex_lock(&svm->evict.lock);
	svm->evict.stop = true;
	pthread_cond_signal(&svm->evict.put);
	pthread_cond_broadcast(&svm->evict.restored);
	pthread_mutex_unlock(&svm->evict.lock);
	pthread_join(svm->evict.thread, NULL);
}
