/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fault - the replayable fault buffer and its handler (nouveau_svm_fault).
 *
 * An SM that misses puts an entry into the ring and sleeps. The handler takes all that
 * is there (the cache), sorts by address with the most demanding access first, merges
 * neighbours into windows, serves each window with one hmm_range_program(), answers
 * every entry (0: replay the access; else: cancel) and replays once for the batch.
 *
 * Differences from nouveau. There is one instance: a GPU belongs to one process, so
 * nothing is sorted or looked up by it. A follower is skipped only if what was served
 * includes *its own* access, and no entry's access colours the rest of the batch.
 * A window that fails is served again page by page, so that a bad page takes nobody
 * with it and each gets its own reason.
 *
 * The handler is the one thread that programs the page table: after a batch it does what
 * others have asked of it, one command a batch (command.c).
 */
#include <stdlib.h>

#include "gpu_private.h"

/*
 * A window that keeps changing is left for single pages, which meet fewer changes, after
 * a tenth of what a page gets (HMM_RANGE_DEFAULT_TIMEOUT).
 */
#define WINDOW_MS (HMM_RANGE_DEFAULT_TIMEOUT / 10)

/* An atomic's page is served by itself. */
static bool is_exclusive(const struct gpu *gpu, const struct gpu_fault *fault)
{
	return fault->access == GPU_ATOMIC && gpu->exclusive.devmem;
}

static unsigned demand(const struct gpu_fault *fault)
{
	return fault->access == GPU_ATOMIC  ? 3
	       : fault->access == GPU_WRITE ? 2
	       : fault->access == GPU_READ  ? 1
					    : 0;
}

/* Address, then the most demanding; the order of enum gpu_access says nothing here. */
static int by_address(const void *a, const void *b)
{
	const struct gpu_fault *x = *(struct gpu_fault *const *)a;
	const struct gpu_fault *y = *(struct gpu_fault *const *)b;
	uintptr_t page_x = x->addr / GPU_PAGE, page_y = y->addr / GPU_PAGE;

	if (page_x != page_y)
		return page_x < page_y ? -1 : 1;
	return demand(x) > demand(y) ? -1 : demand(x) < demand(y) ? 1 : 0;
}

static bool same_page(const struct gpu_fault *a, const struct gpu_fault *b)
{
	return a->addr / GPU_PAGE == b->addr / GPU_PAGE;
}

static void fail(struct gpu_fault *fault, int err, enum hmm_reason reason)
{
	fault->err = err;
	fault->reason = reason;
}

/* One page for one entry. */
static void serve_page(struct gpu_window *window, struct gpu_fault *fault)
{
	int err;

	window->start = fault->addr & -GPU_PAGE;
	window->end = window->start + GPU_PAGE;
	window->want[0] = gpu_request(fault->access);
	err = gpu_window_map(window, 0);
	fail(fault, err, err ? window->fault_reason : HMM_REASON_NONE);
}

/* The window failed. A read may follow a write that failed, so it is tried by itself. */
static void serve_singly(struct gpu_window *window, struct gpu_fault **faults, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++) {
		struct gpu_fault *before = i ? faults[i - 1] : NULL;

		if (before && same_page(before, faults[i]) &&
		    (!before->err ||
		     gpu_request(before->access) == gpu_request(faults[i]->access))) {
			fail(faults[i], before->err, before->reason);
			atomic_fetch_add(&window->gpu->count.faults_merged, 1);
		} else {
			serve_page(window, faults[i]);
		}
	}
}

/* All entries from the first on that one window can serve. Return: how many. */
static unsigned serve_window(struct gpu_window *window, struct gpu_fault **faults,
			     unsigned n)
{
	uintptr_t pages, i;
	unsigned served;

	gpu_window_clip(window, faults[0]->addr);
	pages = (window->end - window->start) / GPU_PAGE;
	for (i = 0; i < pages; i++)
		window->want[i] = 0;
	for (served = 0; served < n && faults[served]->addr < window->end &&
			 !is_exclusive(window->gpu, faults[served]);
	     served++) {
		i = (faults[served]->addr - window->start) / GPU_PAGE;
		window->want[i] |= gpu_request(faults[served]->access);
	}
	if (gpu_window_map(window, WINDOW_MS)) {
		serve_singly(window, faults, served);
	} else {
		for (i = 0; i < served; i++)
			fail(faults[i], 0, HMM_REASON_NONE);
		atomic_fetch_add(&window->gpu->count.faults_merged, served - 1);
	}
	return served;
}

/* Answered without the library: already there, or never to be. */
static bool serve_at_once(struct gpu *gpu, struct gpu_fault *fault)
{
	uintptr_t start = fault->addr, end = start, page = start & -GPU_PAGE;

	if (fault->gone)
		gpu_mmu_forget(gpu, page, page + GPU_PAGE);
	if (fault->addr >= GPU_VA_END || !gpu_mmu_managed(gpu, fault->addr, &start, &end)) {
		fail(fault, -EFAULT, HMM_REASON_NO_MAPPING);
		return true;
	}
	if (!(gpu_mmu_lookup(gpu, fault->addr) & gpu_need(fault->access)))
		return false;
	fail(fault, 0, HMM_REASON_NONE); /* an earlier window brought it */
	atomic_fetch_add(&gpu->count.faults_merged, 1);
	return true;
}

/* From here on they are their SMs' again. */
static void answer(struct gpu *gpu, struct gpu_fault **faults, unsigned n)
{
	bool replay = false;

	pthread_mutex_lock(&gpu->faults.lock);
	for (unsigned i = 0; i < n; i++) {
		replay |= !faults[i]->err;
		faults[i]->answered = true;
	}
	pthread_cond_broadcast(&gpu->faults.answered);
	pthread_mutex_unlock(&gpu->faults.lock);
	if (replay)
		atomic_fetch_add(&gpu->count.replays, 1);
}

/*
 * What is exclusive is answered at once: its page is locked until the SM has used it, and what serves the
 * next fault may wait for the worker, or for a fork, which may wait for that page.
 */
static void serve_batch(struct gpu *gpu, struct gpu_fault **batch, unsigned n)
{
	struct gpu_window window = {.gpu = gpu};
	unsigned i, from = 0; /* batch[from] to batch[i - 1]: served, to be answered */

	qsort(batch, n, sizeof(*batch), by_address);
	for (i = 0; i < n;) {
		if (serve_at_once(gpu, batch[i])) {
			i++;
		} else if (is_exclusive(gpu, batch[i])) {
			gpu_exclusive_serve(&window, batch[i++]);
			answer(gpu, batch + from, i - from);
			from = i;
		} else {
			i += serve_window(&window, batch + i, n - i);
		}
	}
	answer(gpu, batch + from, n - from);
}

static void *handler_main(void *arg)
{
	struct gpu *gpu = arg;
	struct gpu_faults *faults = &gpu->faults;
	struct gpu_fault *batch[GPU_SMS_MAX];
	struct gpu_command *command;
	unsigned n;

	for (;;) {
		pthread_mutex_lock(&faults->lock);
		while (faults->head == faults->tail && !faults->first && !faults->stop)
			pthread_cond_wait(&faults->put, &faults->lock);
		for (n = 0; faults->head != faults->tail; n++)
			batch[n] = faults->ring[faults->head++ % GPU_SMS_MAX];
		command = faults->first;
		if (command)
			faults->first = command->next;
		if (!faults->first)
			faults->last = &faults->first;
		pthread_mutex_unlock(&faults->lock);
		if (!n && !command)
			return NULL;
		if (n)
			serve_batch(gpu, batch, n);
		if (command)
			gpu_command_run(gpu, command);
	}
}

/* An SM's miss: sleep until it is answered. Outside sections, no lock held. */
void gpu_fault_raise(struct gpu *gpu, struct gpu_fault *fault)
{
	struct gpu_faults *faults = &gpu->faults;

	atomic_fetch_add(&gpu->count.faults, 1);
	pthread_mutex_lock(&faults->lock);
	fault->answered = false;
	fault->locked = 0;
	faults->ring[faults->tail++ % GPU_SMS_MAX] = fault;
	pthread_cond_signal(&faults->put);
	while (!fault->answered)
		pthread_cond_wait(&faults->answered, &faults->lock);
	pthread_mutex_unlock(&faults->lock);
}

int gpu_faults_start(struct gpu *gpu)
{
	gpu->faults.last = &gpu->faults.first;
	return gpu_thread_start(&gpu->faults.thread, handler_main, gpu);
}

/* No SM is left that could raise one. */
void gpu_faults_stop(struct gpu *gpu)
{
	pthread_mutex_lock(&gpu->faults.lock);
	gpu->faults.stop = true;
	pthread_cond_signal(&gpu->faults.put);
	pthread_mutex_unlock(&gpu->faults.lock);
	gpu_thread_join(&gpu->faults.thread);
}
