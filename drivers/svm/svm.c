/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * svm - open, close, statistics. The parts: attrs.c and tree.c say what attributes are,
 * set.c is the program's calls, fault.c what a GPU's fault becomes, place.c where pages go,
 * evict.c what must always be mapped, collect.c what the address space does to ranges.
 */
#include <string.h>
#include <unistd.h>

#include "svm_private.h"

#define TIMESLICE_US 5000
#define TIMESLICES 8 /* the most, of a block that GPUs fight for */
#define RESTORE_US 1000
#define SECOND_US 1000000

unsigned svm_index(const struct svm *svm, const struct gpu *gpu)
{
	unsigned i;

	for (i = 0; i < svm->options.gpus && svm->gpu[i] != gpu; i++)
		;
	return i;
}

int svm_check_range(const struct svm *svm, uintptr_t start, size_t length, uintptr_t *end)
{
	if (svm->pid != getpid())
		return -ENODEV;
	if (!length || (start | length) % SVM_PAGE)
		return -EINVAL;
	*end = start + length;
	return *end < start ? -EOVERFLOW : 0;
}

struct svm_attrs svm_attrs_of(struct svm *svm, uintptr_t addr, uintptr_t *start,
			      uintptr_t *end)
{
	struct svm_attrs attrs;

	pthread_mutex_lock(&svm->tree_lock);
	attrs = svm_tree_at(&svm->tree, addr, start, end);
	pthread_mutex_unlock(&svm->tree_lock);
	return attrs;
}

static int take_options(struct svm_options *known, const struct svm_options *options)
{
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
	known->gpus = known->gpus ? known->gpus : 1;
	known->timeslice_us = known->timeslice_us ? known->timeslice_us : TIMESLICE_US;
	if (!known->timeslice_most_us)
		known->timeslice_most_us = known->timeslice_us < SECOND_US / TIMESLICES
						   ? known->timeslice_us * TIMESLICES
						   : SECOND_US;
	known->restore_us = known->restore_us ? known->restore_us : RESTORE_US;
	if (known->gpus > SVM_GPUS_MAX || known->vram_bytes % SVM_PAGE ||
	    known->timeslice_us > known->timeslice_most_us ||
	    known->timeslice_most_us > SECOND_US || known->restore_us > SECOND_US)
		return -EINVAL;
	return 0;
}

static void init_locks(struct svm *svm)
{
	unsigned i;

	pthread_mutex_init(&svm->set_lock, NULL);
	pthread_mutex_init(&svm->tree_lock, NULL);
	pthread_mutex_init(&svm->evict.lock, NULL);
	pthread_cond_init(&svm->evict.restored, NULL);
	for (i = 0; i < SVM_STRIPES; i++)
		pthread_mutex_init(&svm->stripe[i].lock, NULL);
}

static int open_gpus(struct svm *svm)
{
	const struct svm_options *options = &svm->options;
	const struct gpu_policy policy = {
		.size = sizeof(policy),
		.arg = svm,
		.fault = svm_gpu_fault,
		.may = svm_may,
		.home = svm_home,
		.sequence = &svm->sequence,
	};
	/* A GPU in a hive of its own reaches nobody else's memory. */
	struct gpu_options gpu = {
		.size = sizeof(gpu),
		.sms = options->sms,
		.verify = options->verify,
		.vram_bytes = options->vram_bytes,
		.vram_host = options->vram_host,
		.timeslice_us = options->timeslice_us,
		.policy = &policy,
	};
	unsigned i;
	int err = 0;

	if (!options->no_peers) {
		svm->hive = gpu_hive_create();
		if (!svm->hive)
			return -ENOMEM;
	}
	gpu.hive = svm->hive;
	for (i = 0; i < options->gpus && !err; i++)
		err = gpu_open(&gpu, &svm->gpu[i]);
	return err;
}

/* Also what was only begun. Jobs first: they may wait for a restore. */
static void destroy(struct svm *svm)
{
	unsigned i;

	for (i = 0; i < SVM_GPUS_MAX; i++) {
		if (svm->gpu[i])
			gpu_drain(svm->gpu[i]);
	}
	hmm_notifier_remove(svm->notifier);
	atomic_store(&svm->closing, true); /* what comes home from now on is our doing */
	svm_evict_stop(svm);
	for (i = 0; i < SVM_GPUS_MAX; i++)
		gpu_close(svm->gpu[i]);
	gpu_hive_destroy(svm->hive);
	svm_tree_destroy(&svm->tree);
	hmm_put(svm->hmm);
	hmm_free(svm, sizeof(*svm));
}

int svm_open(const struct svm_options *options, struct svm **out)
{
	struct svm_options known = { .size = 0 };
	struct svm *svm;
	int err = take_options(&known, options);

	if (err)
		return err;
	svm = hmm_alloc(sizeof(*svm));
	if (!svm)
		return -ENOMEM;
	svm->options = known;
	svm->pid = getpid();
	init_locks(svm);
	svm_homing_init(&svm->homing);
	svm_tree_init(&svm->tree, known.gpus, !known.no_xnack);
	err = hmm_open(&svm->hmm);
	if (!err)
		err = open_gpus(svm);
	if (!err)
		err = svm_evict_start(svm);
	if (!err)
		err = hmm_notifier_insert(svm->hmm, 0, UINTPTR_MAX, &svm_notifier_ops, svm,
					  &svm->notifier);
	if (err) {
		destroy(svm);
		return err;
	}
	*out = svm;
	return 0;
}

void svm_close(struct svm *svm)
{
	unsigned i;

	if (!svm)
		return;
	if (svm->pid == getpid()) {
		destroy(svm);
		return;
	}
	for (i = 0; i < svm->options.gpus; i++)
		gpu_close(svm->gpu[i]); /* forgets */
	hmm_put(svm->hmm);
}

struct gpu *svm_gpu(struct svm *svm, unsigned gpu)
{
	return gpu < svm->options.gpus ? svm->gpu[gpu] : NULL;
}

void svm_get_stats(struct svm *svm, struct svm_stats *stats)
{
	struct svm_counters *count = &svm->count;
	struct svm_stats now = {
		.size = stats->size,
		.collected = atomic_load(&count->collected),
		.faults = atomic_load(&count->faults),
		.duplicates = atomic_load(&count->duplicates),
		.drained = atomic_load(&count->drained),
		.denied = atomic_load(&count->denied),
		.migrated = atomic_load(&count->migrated),
		.prefetched = atomic_load(&count->prefetched),
		.fallbacks = atomic_load(&count->fallbacks),
		.in_place = atomic_load(&count->in_place),
		.evictions = atomic_load(&count->evictions),
		.quiesced = atomic_load(&count->quiesced),
		.restored = atomic_load(&count->restored),
		.followed = atomic_load(&count->followed),
		.timeslice_us = atomic_load(&count->longest_ns) / 1000,
	};
	unsigned i;

	for (i = 0; i < SVM_SIZES; i++)
		now.chunks[i] = atomic_load(&count->chunks[i]);
	pthread_mutex_lock(&svm->tree_lock);
	now.ranges = svm->tree.nodes;
	now.splits = svm->tree.splits;
	now.merges = svm->tree.merges;
	pthread_mutex_unlock(&svm->tree_lock);
	memcpy(stats, &now, stats->size < sizeof(now) ? stats->size : sizeof(now));
}
