/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * sm - a streaming multiprocessor: a thread that runs kernels, and its TLB.
 *
 * It takes a few indices of a job at a time (queue.c) and calls the kernel for each.
 * An access of the kernel that cannot be served leaves by siglongjmp() to run_chunk():
 * the job is over, the SM and everybody else go on. Kernels therefore hold nothing
 * across an access.
 *
 * Its stack and all that a section touches never move (gpu_private.h): the kernel's locals
 * are there, and accesses copy to and from them directly (access.c).
 *
 * While it has work it is "a device now" (hmm_access_begin), and it keeps a reference on
 * the mirror as long as it lives.
 */
#include <signal.h>
#include <stdio.h>

#include "gpu_private.h"

/* One writer: no need for a locked instruction. */
static void count(_Atomic uint64_t *counter)
{
	uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);

	atomic_store_explicit(counter, now + 1, memory_order_relaxed);
}

/* The page table's answer and, in verify mode, when it was installed (verify.c). */
static uint64_t walk(struct gpu_sm *sm, uintptr_t addr)
{
	const struct uhmm_ptable *stamps = &sm->gpu->verify.stamps;
	uint64_t entry, stamp;

	if (!sm->gpu->verify.on)
		return gpu_mmu_lookup(sm->gpu, addr);
	do {
		stamp = uhmm_ptable_lookup(stamps, addr);
		entry = gpu_mmu_lookup(sm->gpu, addr);
	} while (uhmm_ptable_lookup(stamps, addr) != stamp);
	if (entry)
		sm->stamp[addr / GPU_PAGE % GPU_TLB_ENTRIES] = stamp;
	return entry;
}

/*
 * Inside a section: the entry of an address if it allows `need`, from the TLB, else
 * from the table. 0: fault.
 */
uint64_t gpu_sm_translate(struct gpu_sm *sm, uintptr_t addr, uint64_t need)
{
	uint64_t entry = gpu_tlb_lookup(&sm->tlb, addr, need);

	if (__builtin_expect(entry != 0, 1)) {
		count(&sm->hits);
		return entry;
	}
	entry = walk(sm, addr);
	if (!entry)
		return 0;
	gpu_tlb_fill(&sm->tlb, addr, entry);
	if (!(entry & need))
		return 0;
	count(&sm->misses);
	if (hmm_pfn_is_device(entry)) {
		count(&sm->vram);
		gpu_memory_touch(sm->gpu, entry);
	} else if (sm->gpu->migrate.after) {
		gpu_migrate_heat(sm, addr);
	}
	return entry;
}

/* Until the indices are done or the job is cancelled, by this SM or another. */
static void run_indices(struct gpu_sm *sm, uint64_t from, uint64_t to)
{
	struct gpu_job *job = sm->job;

	for (; from < to; from++) {
		if (__builtin_expect(atomic_load_explicit(&job->attention, memory_order_relaxed) !=
					     0,
				     0)) {
			gpu_sched_rest(sm);
			if (atomic_load_explicit(&job->attention, memory_order_relaxed) &
			    GPU_JOB_CANCELLED)
				return;
		}
		job->kernel(sm, job->arg, from);
	}
}

static void run_chunk(struct gpu_sm *sm, uint64_t from, uint64_t to)
{
	if (!sigsetjmp(sm->cancel, 0))
		run_indices(sm, from, to);
}

static void set_active(struct gpu_sm *sm, bool active)
{
	atomic_store_explicit(&sm->active, active, memory_order_release);
	/* Said before the first section looks at anything (shootdown.c). */
	atomic_thread_fence(memory_order_seq_cst);
}

/* false: the mirror refuses, and the job has failed with its reason. */
static bool open_scope(struct gpu_sm *sm)
{
	struct gpu_error error = {.err = sm->scope ? 0 : hmm_access_begin(sm->hmm)};

	sm->scope = !error.err;
	if (!sm->scope) {
		snprintf(error.text, sizeof(error.text), "%s", hmm_strerror(error.err));
		gpu_sched_fail(sm->job, &error);
	}
	return sm->scope;
}

static void close_scope(struct gpu_sm *sm)
{
	if (sm->scope)
		hmm_access_end(sm->hmm);
	sm->scope = false;
}

static void *sm_main(void *arg)
{
	struct gpu_sm *sm = arg;
	uint64_t from, to;

	for (;;) {
		if (!gpu_sched_take(sm, &from, &to, false)) {
			close_scope(sm);
			if (!gpu_sched_take(sm, &from, &to, true))
				return NULL;
		}
		if (open_scope(sm)) {
			set_active(sm, true);
			run_chunk(sm, from, to);
			set_active(sm, false);
		}
		gpu_sched_done(sm);
	}
}

/* On failure gpu_sms_stop() takes back what was started. */
int gpu_sms_start(struct gpu *gpu)
{
	int err = 0;

	while (gpu->started < gpu->sms && !err) {
		struct gpu_sm *sm = &gpu->sm[gpu->started];

		sm->gpu = gpu;
		sm->index = gpu->started;
		sm->hmm = hmm_get(gpu->hmm);
		err = gpu_thread_start(&sm->thread, sm_main, sm);
		if (err)
			hmm_put(sm->hmm);
		else
			gpu->started++;
	}
	return err;
}

void gpu_sms_stop(struct gpu *gpu)
{
	unsigned i;

	pthread_mutex_lock(&gpu->sched.lock);
	gpu->sched.stop = true;
	pthread_cond_broadcast(&gpu->sched.work);
	pthread_mutex_unlock(&gpu->sched.lock);
	for (i = 0; i < gpu->started; i++) {
		gpu_thread_join(&gpu->sm[i].thread);
		hmm_put(gpu->sm[i].hmm);
	}
}
