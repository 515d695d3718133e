/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * gpu - a software GPU after nouveau's SVM: open, close, the notifier, statistics.
 *
 * The parts, one file each: SMs with a TLB (sm.c, access.c), the page table (mmu.c) and
 * how translations leave it (shootdown.c), the fault buffer (fault.c, exclusive.c,
 * command.c), what maps (window.c, bind.c), the GPU's own memory (vram.c), what copies
 * (engine.c) and what moves (migrate.c), jobs (queue.c) and why they end (error.c),
 * thread.c, verify.c, late.c; other GPUs (hive.c) and who decides for us (policy.c).
 *
 * One notifier over the whole address space, as nouveau has one per process. An
 * invalidate forgets the range whatever the event was, except after a fork: what an
 * address reads is unchanged by it, and all our accesses go by address. Of pages that move
 * to our own memory only the system's translations have to go. The callback waits for
 * nothing but sections (shootdown.c).
 */
#include <string.h>
#include <unistd.h>

#include "gpu_private.h"

#define SMS_DEFAULT 2
#define MIGRATE_AFTER_MAX 30000 /* migrate.c counts to 65535 */

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct gpu *gpu = priv;

	atomic_fetch_add(&gpu->count.invalidations, 1);
	if (event->kind == HMM_EVENT_FORK)
		return;
	if (gpu->naive)
		gpu_late_put(gpu, event->start, event->end);
	else if (event->kind == HMM_EVENT_MIGRATE && event->owner == gpu->owner)
		gpu_mmu_forget_system(gpu, event->start, event->end);
	else
		gpu_mmu_forget(gpu, event->start, event->end);
}

static void release(void *priv)
{
	gpu_sched_kill(priv, "the mirror is dead");
}

static const struct hmm_notifier_ops ops = {
	.size = sizeof(ops),
	.invalidate = invalidate,
	.release = release,
};

static int take_options(struct gpu *gpu, const struct gpu_options *options)
{
	struct gpu_options *known = &gpu->options;
	const char *raw = (const char *)options;
	size_t i;

	if (options) {
		for (i = sizeof(*known); i < options->size; i++) {
			if (raw[i])
				return -E2BIG;
		}
		memcpy(known, options,
		       options->size < sizeof(*known) ? options->size : sizeof(*known));
	}
	gpu->sms = known->sms ? known->sms : SMS_DEFAULT;
	gpu->fault_window = known->fault_window ? known->fault_window : GPU_WINDOW_MAX;
	gpu->verify.on = known->verify;
	gpu->naive = known->naive;
	gpu->log = known->log != NULL;
	gpu->hive = known->hive;
	gpu->slot = GPU_HIVE_MAX;
	gpu->owner = gpu->hive ? (void *)gpu->hive : gpu;
	if (known->policy)
		gpu->policy = *known->policy;
	if (gpu->hive || gpu->policy.size)
		known->no_exclusive = true;
	gpu->migrate.after = known->vram_bytes ? known->migrate_after : 0;
	if (gpu->sms > GPU_SMS_MAX || gpu->fault_window > GPU_WINDOW_MAX ||
	    gpu->fault_window & (gpu->fault_window - 1) || known->vram_bytes % GPU_PAGE ||
	    known->migrate_after > MIGRATE_AFTER_MAX ||
	    (known->policy &&
	     (known->policy->size != sizeof(*known->policy) || !known->policy->fault ||
	      !known->policy->may || !known->policy->sequence)))
		return -EINVAL;
	return 0;
}

static void init_locks(struct gpu *gpu)
{
	pthread_mutex_init(&gpu->sched.lock, NULL);
	pthread_cond_init(&gpu->sched.work, NULL);
	pthread_cond_init(&gpu->sched.settled, NULL);
	pthread_cond_init(&gpu->sched.resumed, NULL);
	pthread_mutex_init(&gpu->faults.lock, NULL);
	pthread_cond_init(&gpu->faults.put, NULL);
	pthread_cond_init(&gpu->faults.answered, NULL);
	pthread_mutex_init(&gpu->late.lock, NULL);
	pthread_cond_init(&gpu->late.put, NULL);
	pthread_mutex_init(&gpu->migrate.lock, NULL);
	pthread_cond_init(&gpu->migrate.put, NULL);
	pthread_cond_init(&gpu->migrate.done, NULL);
}

/* Everything but threads, which the caller has joined. */
static void destroy(struct gpu *gpu)
{
	gpu_mmu_destroy(gpu);
	gpu_verify_destroy(gpu);
	gpu_sched_destroy(gpu);
	pthread_mutex_destroy(&gpu->sched.lock);
	pthread_cond_destroy(&gpu->sched.work);
	pthread_cond_destroy(&gpu->sched.settled);
	pthread_cond_destroy(&gpu->sched.resumed);
	pthread_mutex_destroy(&gpu->faults.lock);
	pthread_cond_destroy(&gpu->faults.put);
	pthread_cond_destroy(&gpu->faults.answered);
	pthread_mutex_destroy(&gpu->late.lock);
	pthread_cond_destroy(&gpu->late.put);
	pthread_mutex_destroy(&gpu->migrate.lock);
	pthread_cond_destroy(&gpu->migrate.put);
	pthread_cond_destroy(&gpu->migrate.done);
	hmm_put(gpu->hmm);
	if (gpu->log)
		hmm_set_log(NULL, NULL);
	hmm_free(gpu->sm, gpu->sms * sizeof(*gpu->sm));
	hmm_free(gpu, sizeof(*gpu));
}

/* Memory and tables: nothing runs yet. */
static int build(struct gpu *gpu)
{
	int err;

	gpu->sm = hmm_alloc(gpu->sms * sizeof(*gpu->sm));
	if (!gpu->sm)
		return -ENOMEM;
	gpu_shootdown_init(gpu);
	err = gpu_mmu_init(gpu);
	if (!err)
		err = gpu_verify_init(gpu);
	return err ? err : hmm_open(&gpu->hmm);
}

/* Back in the other order; what was not started is nothing to stop. */
static void stop(struct gpu *gpu)
{
	gpu_sms_stop(gpu);
	gpu_migrate_stop(gpu);
	gpu_memories_destroy(gpu);
	gpu_hive_leave(gpu);
	gpu_engine_stop(gpu);
	gpu_memories_free(gpu);
	gpu_faults_stop(gpu);
	hmm_notifier_remove(gpu->notifier);
	if (gpu->naive)
		gpu_late_stop(gpu);
}

/* In the order in which they need each other: what invalidates, what serves, what runs. */
static int start(struct gpu *gpu)
{
	int err = gpu->naive ? gpu_late_start(gpu) : 0;

	if (!err)
		err = hmm_notifier_insert(gpu->hmm, 0, UINTPTR_MAX, &ops, gpu,
					  &gpu->notifier);
	if (!err)
		err = gpu_faults_start(gpu);
	if (!err)
		err = gpu_engine_start(gpu);
	if (!err)
		err = gpu_memories_create(gpu);
	if (!err)
		err = gpu_hive_join(gpu);
	if (!err)
		err = gpu_migrate_start(gpu);
	if (!err)
		err = gpu_sms_start(gpu);
	if (err)
		stop(gpu);
	return err;
}

int gpu_open(const struct gpu_options *options, struct gpu **out)
{
	struct gpu *gpu = hmm_alloc(sizeof(*gpu));
	int err;

	if (!gpu)
		return -ENOMEM;
	err = take_options(gpu, options);
	if (err) {
		hmm_free(gpu, sizeof(*gpu));
		return err;
	}
	if (gpu->log)
		hmm_set_log(gpu->options.log, gpu->options.log_arg);
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
	gpu_drain(gpu);
	stop(gpu);
	destroy(gpu);
}

static void add_memories(struct gpu *gpu, struct gpu_stats *now)
{
	struct hmm_devmem_stats vram = {.size = sizeof(vram)};
	struct hmm_devmem_stats exclusive = {.size = sizeof(exclusive)};

	if (gpu->vram.devmem)
		hmm_devmem_get_stats(gpu->vram.devmem, &vram);
	if (gpu->exclusive.devmem)
		hmm_devmem_get_stats(gpu->exclusive.devmem, &exclusive);
	now->vram_frames = vram.frames;
	now->vram_used = vram.in_use;
	now->to_vram = vram.to_device;
	now->from_vram = vram.to_host;
	now->cpu_faults = vram.cpu_faults;
	now->exclusive_returned = exclusive.cpu_faults;
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
		.evictions = atomic_load(&count->evictions),
		.hot_blocks = atomic_load(&count->hot_blocks),
		.exclusive = atomic_load(&count->exclusive),
		.atomic_fallbacks = atomic_load(&count->atomic_fallbacks),
		.engine_jobs = atomic_load(&gpu->engine.jobs),
		.engine_deaths = atomic_load(&gpu->engine.deaths),
	};
	unsigned i;

	for (i = 0; i < gpu->sms; i++) {
		now.tlb_hits += atomic_load(&gpu->sm[i].hits);
		now.tlb_misses += atomic_load(&gpu->sm[i].misses);
		now.vram_accesses += atomic_load(&gpu->sm[i].vram);
	}
	add_memories(gpu, &now);
	memcpy(stats, &now, stats->size < sizeof(now) ? stats->size : sizeof(now));
}
