/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * gpu - a software GPU after nouveau's SVM: open, close, the notifier, statistics.
 *
 * The parts, one file each: SMs with a TLB (sm.c, access.c), the page table (mmu.c) and
 * how translations leave it (shootdown.c), the fault buffer (fault.c), what maps
 * (window.c, bind.c), jobs (queue.c) and why they end (error.c), verify.c, late.c.
 *
 * One notifier over the whole address space, as nouveau has one per process. An
 * invalidate forgets the range whatever the event was, except after a fork: what an
 * address reads is unchanged by it, and all our accesses go by address.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu_private.h"

#define SMS_DEFAULT 2

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct gpu *gpu = priv;

	atomic_fetch_add(&gpu->count.invalidations, 1);
	if (event->kind == HMM_EVENT_FORK)
		return;
	if (gpu->naive)
		gpu_late_put(gpu, event->start, event->end);
	else
		gpu_mmu_forget(gpu, event->start, event->end);
}

static void release(void *priv)
{
	gpu_sched_kill(priv);
}

static const struct hmm_notifier_ops ops = {
	.size = sizeof(ops),
	.invalidate = invalidate,
	.release = release,
};

/* Asynchronous signals are the program's; faults must reach the thread that made them. */
int gpu_thread(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
	sigset_t mask, before;
	size_t i;
	int err;

	sigfillset(&mask);
	for (i = 0; i < sizeof(own) / sizeof(*own); i++)
		sigdelset(&mask, own[i]);
	pthread_sigmask(SIG_SETMASK, &mask, &before);
	err = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

static int take_options(struct gpu *gpu, const struct gpu_options *options, hmm_log_fn *log,
			void **log_arg)
{
	struct gpu_options known = {0};
	const char *raw = (const char *)options;
	size_t i;

	if (options) {
		for (i = sizeof(known); i < options->size; i++) {
			if (raw[i])
				return -E2BIG;
		}
		memcpy(&known, options,
		       options->size < sizeof(known) ? options->size : sizeof(known));
	}
	gpu->sms = known.sms ? known.sms : SMS_DEFAULT;
	gpu->fault_window = known.fault_window ? known.fault_window : GPU_WINDOW_MAX;
	gpu->verify.on = known.verify;
	gpu->naive = known.naive;
	gpu->log = known.log != NULL;
	*log = known.log;
	*log_arg = known.log_arg;
	if (gpu->sms > GPU_SMS_MAX || gpu->fault_window > GPU_WINDOW_MAX ||
	    gpu->fault_window & (gpu->fault_window - 1))
		return -EINVAL;
	return 0;
}

static void init_locks(struct gpu *gpu)
{
	pthread_mutex_init(&gpu->sched.lock, NULL);
	pthread_cond_init(&gpu->sched.work, NULL);
	pthread_cond_init(&gpu->sched.settled, NULL);
	pthread_mutex_init(&gpu->faults.lock, NULL);
	pthread_cond_init(&gpu->faults.put, NULL);
	pthread_cond_init(&gpu->faults.answered, NULL);
	pthread_mutex_init(&gpu->late.lock, NULL);
	pthread_cond_init(&gpu->late.put, NULL);
}

/* Everything but threads, which the caller has joined. */
static void destroy(struct gpu *gpu)
{
	gpu_mmu_destroy(gpu);
	gpu_verify_destroy(gpu);
	pthread_mutex_destroy(&gpu->sched.lock);
	pthread_cond_destroy(&gpu->sched.work);
	pthread_cond_destroy(&gpu->sched.settled);
	pthread_mutex_destroy(&gpu->faults.lock);
	pthread_cond_destroy(&gpu->faults.put);
	pthread_cond_destroy(&gpu->faults.answered);
	pthread_mutex_destroy(&gpu->late.lock);
	pthread_cond_destroy(&gpu->late.put);
	hmm_put(gpu->hmm);
	if (gpu->log)
		hmm_set_log(NULL, NULL);
	free(gpu->sm);
	free(gpu);
}

/* Memory and tables: nothing runs yet. */
static int build(struct gpu *gpu)
{
	size_t size = gpu->sms * sizeof(*gpu->sm);
	int err;

	gpu->sm = aligned_alloc(_Alignof(struct gpu_sm), size);
	if (!gpu->sm)
		return -ENOMEM;
	memset(gpu->sm, 0, size);
	gpu_shootdown_init(gpu);
	err = gpu_mmu_init(gpu);
	if (!err)
		err = gpu_verify_init(gpu);
	return err ? err : hmm_open(&gpu->hmm);
}

/* In the order in which they need each other: what invalidates, what serves, what runs. */
static int start(struct gpu *gpu)
{
	int err = gpu->naive ? gpu_late_start(gpu) : 0;

	if (err)
		return err;
	err = hmm_notifier_insert(gpu->hmm, 0, UINTPTR_MAX, &ops, gpu, &gpu->notifier);
	if (err)
		goto no_notifier;
	err = gpu_faults_start(gpu);
	if (err)
		goto no_faults;
	err = gpu_sms_start(gpu);
	if (!err)
		return 0;
	gpu_sms_stop(gpu);
	gpu_faults_stop(gpu);
no_faults:
	hmm_notifier_remove(gpu->notifier);
no_notifier:
	if (gpu->naive)
		gpu_late_stop(gpu);
	return err;
}

int gpu_open(const struct gpu_options *options, struct gpu **out)
{
	struct gpu *gpu = calloc(1, sizeof(*gpu));
	void *log_arg;
	hmm_log_fn log;
	int err;

	if (!gpu)
		return -ENOMEM;
	err = take_options(gpu, options, &log, &log_arg);
	if (err) {
		free(gpu);
		return err;
	}
	if (gpu->log)
		hmm_set_log(log, log_arg);
	init_locks(gpu);
	gpu->pid = getpid();
	err = build(gpu);
	if (!err)
		err = start(gpu);
	if (err) {
		destroy(gpu);
		return err;
	}
	*out = gpu;
	return 0;
}

void gpu_close(struct gpu *gpu)
{
	if (!gpu)
		return;
	if (gpu->pid != getpid()) {
		hmm_put(gpu->hmm); /* the threads stayed with the parent: only forget */
		return;
	}
	gpu_sched_drain(gpu);
	gpu_sms_stop(gpu);
	gpu_faults_stop(gpu);
	hmm_notifier_remove(gpu->notifier);
	if (gpu->naive)
		gpu_late_stop(gpu);
	destroy(gpu);
}

void gpu_get_stats(struct gpu *gpu, struct gpu_stats *stats)
{
	struct gpu_counters *count = &gpu->count;
	struct gpu_stats now = {
		.size = stats->size,
		.jobs = atomic_load(&count->jobs),
		.cancelled = atomic_load(&count->cancelled),
		.faults = atomic_load(&count->faults),
		.faults_merged = atomic_load(&count->faults_merged),
		.replays = atomic_load(&count->replays),
		.invalidations = atomic_load(&count->invalidations),
		.shootdowns = atomic_load(&count->shootdowns),
		.unmirrored = atomic_load(&count->unmirrored),
		.stale = atomic_load(&count->stale),
	};
	unsigned i;

	for (i = 0; i < gpu->sms; i++) {
		now.tlb_hits += atomic_load(&gpu->sm[i].hits);
		now.tlb_misses += atomic_load(&gpu->sm[i].misses);
	}
	memcpy(stats, &now, stats->size < sizeof(now) ? stats->size : sizeof(now));
}
