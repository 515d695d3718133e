/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * evict - what must always be mapped: everything that a GPU has access to where there are
 * no retry faults, and ranges that say so (SVM_FLAG_ALWAYS_MAPPED).
 *
 * After svm_range_evict: the address space changes under such a range, or its pages move, so all
 * queues stop; a little later, in the hope that the program is done, a thread maps what was
 * evicted, and nothing else, again; if nothing was evicted meanwhile the queues go on. The GPUs'
 * own notifiers take the translations away (G4); this is about not faulting for them.
 *
 * What counts. A range is mapped from the call on that says who may use it (svm_note_mapped);
 * each change of a mapped range is one eviction, told by the mirror (collect.c) or by a GPU whose
 * pages go home (homing.c), and the first since the last restore stops the queues. No eviction is
 * what takes the range itself: an unmap, both ends of an mremap, attributes that say so.
 *
 * The thread has a second task: what follows a page that a CPU has fetched (follow.c).
 *
 * An SM that misses such a page while something is evicted waits for the restore. Else nobody took
 * the page: it is being mapped by svm_set_attr(), which has begun by forgetting, or it could not be
 * mapped when the rest was. Then the GPU's handler finds out which, and nobody else rests for it.
 */
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "svm_private.h"

bool svm_must_map(const struct svm *svm, const struct svm_attrs *attrs)
{
	return (attrs->access | attrs->in_place) &&
	       (svm->options.no_xnack || attrs->flags & SVM_FLAG_ALWAYS_MAPPED);
}

void svm_bell_ring(_Atomic uint32_t *bell)
{
	atomic_fetch_add(bell, 1);
	syscall(SYS_futex, bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void bell_wait(_Atomic uint32_t *bell, uint32_t seen)
{
	syscall(SYS_futex, bell, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

/* What must be mapped of it is so from now on, and what need not be is not watched. Without
 * memory for another node its changes are not counted, and missed. */
void svm_note_mapped(struct svm *svm, uintptr_t start, uintptr_t end)
{
	pthread_mutex_lock(&svm->tree_lock);
	while (start < end) {
		const struct svm_node *node = svm_tree_next(&svm->tree, start);
		struct svm_change change = { .mapped_set = true };
		uintptr_t from, to;

		if (!node || node->start >= end)
			break;
		from = node->start > start ? node->start : start;
		to = node->end < end ? node->end : end;
		change.mapped = svm_must_map(svm, &node->attrs);
		if (change.mapped)
			atomic_store(&svm->evict.watch, true);
		if (change.mapped != node->attrs.mapped)
			svm_tree_set(&svm->tree, from, to, &change);
		start = to;
	}
	pthread_mutex_unlock(&svm->tree_lock);
}

/* Ranges that are mapped there. */
static uint64_t count_mapped(struct svm *svm, uintptr_t start, uintptr_t end)
{
	const struct svm_node *node;
	uint64_t n = 0;

	pthread_mutex_lock(&svm->tree_lock);
	for (node = svm_tree_next(&svm->tree, start); node && node->start < end;
	     node = svm_tree_next(&svm->tree, node->end))
		n += node->attrs.mapped;
	pthread_mutex_unlock(&svm->tree_lock);
	return n;
}

/* Spans may cover more than was evicted: it is looked at for nothing. */
static void add_span(struct svm_evict *state, uintptr_t start, uintptr_t end)
{
	struct svm_span *span = state->span;
	unsigned i;

	for (i = 0; i < state->n && (span[i].start > end || span[i].end < start); i++)
		;
	if (i == SVM_SPANS)
		i--;
	if (i == state->n) {
		span[state->n++] = (struct svm_span){ start, end };
		return;
	}
	span[i].start = start < span[i].start ? start : span[i].start;
	span[i].end = end > span[i].end ? end : span[i].end;
}

/* evict.lock held. again: it was counted already. */
static void evict(struct svm *svm, uintptr_t start, uintptr_t end, bool again)
{
	struct svm_evict *state = &svm->evict;
	uint64_t mapped = count_mapped(svm, start, end);
	unsigned i;

	if (!mapped)
		return;
	svm_count(&svm->count.evictions, again ? 0 : mapped);
	add_span(state, start, end);
	if (!state->quiet) {
		state->quiet = true;
		for (i = 0; i < svm->options.gpus; i++)
			gpu_quiesce(svm->gpu[i]);
		svm_count(&svm->count.quiesced, 1);
	}
	svm_bell_ring(&state->bell);
}

/* evict.lock held. */
static void take_notices(struct svm *svm)
{
	struct svm_evict *state = &svm->evict;
	struct svm_span span;
	bool touched;

	while (svm_homing_take(&svm->homing, &span, &touched)) {
		/* What follows a page was evicted with it. */
		evict(svm, span.start, span.end,
		      span.start >= state->following.start && span.end <= state->following.end);
		if (touched && state->touched_n < SVM_TOUCHED)
			state->touched[state->touched_n++] = span.start;
	}
}

/* evict.lock held, and again when it returns. */
static void follow(struct svm *svm)
{
	struct svm_evict *state = &svm->evict;
	uintptr_t addr;

	while (state->touched_n && !state->stop) {
		addr = state->touched[--state->touched_n];
		pthread_mutex_unlock(&state->lock);
		svm_follow(svm, addr);
		pthread_mutex_lock(&state->lock);
		take_notices(svm);
		state->following = (struct svm_span){ 0, 0 };
	}
}

void svm_evict(struct svm *svm, uintptr_t start, uintptr_t end)
{
	if (!atomic_load(&svm->evict.watch))
		return;
	pthread_mutex_lock(&svm->evict.lock);
	evict(svm, start, end, false);
	pthread_mutex_unlock(&svm->evict.lock);
}

/* An SM outside sections, no lock held. true: it was evicted, and is mapped again. */
bool svm_miss(struct svm *svm)
{
	struct svm_evict *state = &svm->evict;
	uint64_t before;
	bool quiet;

	pthread_mutex_lock(&state->lock);
	take_notices(svm);
	quiet = state->quiet;
	before = state->generation;
	while (quiet && state->generation == before && !state->stop)
		pthread_cond_wait(&state->restored, &state->lock);
	pthread_mutex_unlock(&state->lock);
	return quiet;
}

/*
 * In one block. Not while a fault or a prefetch moves it: what is being looked at cannot move.
 * Where attributes do not allow to write, or the mapping does not, for reading.
 */
static void map_block(struct svm *svm, uintptr_t start, uintptr_t end,
		      const struct svm_attrs *attrs)
{
	struct svm_stripe *stripe = svm_stripe_of(svm, start);
	uint32_t gpus = attrs->access | attrs->in_place;
	unsigned i;

	pthread_mutex_lock(&stripe->lock);
	for (i = 0; i < svm->options.gpus; i++) {
		if (!(gpus >> i & 1))
			continue;
		if (!(attrs->flags & SVM_FLAG_GPU_RO))
			gpu_prefetch(svm->gpu[i], (void *)start, end - start, GPU_WRITE);
		gpu_prefetch(svm->gpu[i], (void *)start, end - start, GPU_READ);
	}
	pthread_mutex_unlock(&stripe->lock);
}

static void map_node(struct svm *svm, uintptr_t start, uintptr_t end,
		     const struct svm_attrs *attrs)
{
	uintptr_t to;

	for (; start < end; start = to) {
		to = (start & -SVM_BLOCK) + SVM_BLOCK;
		to = to < end ? to : end;
		map_block(svm, start, to, attrs);
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

/* evict.lock held, and again when it returns. */
static void restore(struct svm *svm)
{
	struct svm_evict *state = &svm->evict;
	struct svm_span span[SVM_SPANS];
	unsigned n = state->n, i;

	memcpy(span, state->span, sizeof(span));
	state->n = 0;
	pthread_mutex_unlock(&state->lock);
	for (i = 0; i < n; i++)
		svm_map(svm, span[i].start, span[i].end);
	pthread_mutex_lock(&state->lock);
	take_notices(svm);
	if (state->n)
		return; /* something went while we mapped: it is mapped next time */
	state->quiet = false;
	state->generation++;
	svm_count(&svm->count.restored, 1);
	for (i = 0; i < svm->options.gpus; i++)
		gpu_resume(svm->gpu[i]);
	pthread_cond_broadcast(&state->restored);
}

static void *restore_main(void *arg)
{
	struct svm *svm = arg;
	struct svm_evict *state = &svm->evict;
	uint32_t bell;
	unsigned n;

	pthread_mutex_lock(&state->lock);
	for (;;) {
		bell = atomic_load(&state->bell);
		take_notices(svm);
		follow(svm);
		n = state->n;
		if (state->stop)
			break;
		pthread_mutex_unlock(&state->lock);
		if (n)
			rest(svm);
		else
			bell_wait(&state->bell, bell);
		pthread_mutex_lock(&state->lock);
		if (!n)
			continue; /* the delay comes before a restore */
		take_notices(svm);
		follow(svm);
		if (!state->stop)
			restore(svm);
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
	pthread_cond_broadcast(&svm->evict.restored);
	svm_bell_ring(&svm->evict.bell);
	pthread_mutex_unlock(&svm->evict.lock);
	pthread_join(svm->evict.thread, NULL);
}
