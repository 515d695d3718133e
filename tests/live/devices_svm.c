/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices_svm - svm as a device of the table. Two GPUs, so that each case also asks whether
 * what one has written the other reads, wherever the page lies.
 */
#include <errno.h>
#include <stdlib.h>

#include <uhmm/svm.h>

#include "devices_svm.h"

#define GPUS 2u
#define VRAM ((uint64_t)8 << 20)
#define READER 0
#define WRITER 1

struct pair {
	struct svm *svm;
	struct gpu_queue *queue[GPUS];
};

static int open_with(struct device *dev, const struct svm_options *options)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int err = pair ? svm_open(options, &pair->svm) : -ENOMEM;

	for (unsigned i = 0; i < GPUS && !err; i++)
		err = gpu_queue_create(svm_gpu(pair->svm, i), &pair->queue[i]);
	if (err && pair)
		svm_close(pair->svm);
	if (err)
		free(pair);
	dev->priv = err ? NULL : pair;
	return err;
}

int live_svm_open(struct device *dev)
{
	return open_with(dev, &(struct svm_options){ .size = sizeof(struct svm_options),
						     .gpus = GPUS,
						     .verify = true });
}

int live_svm_open_vram(struct device *dev)
{
	dev->memory = true;
	dev->fleeting = true; /* who compares by the CPU takes the page home */
	return open_with(dev, &(struct svm_options){ .size = sizeof(struct svm_options),
						     .gpus = GPUS,
						     .verify = true,
						     .timeslice_us = 1,
						     .vram_bytes = VRAM });
}

void live_svm_close(struct device *dev)
{
	struct pair *pair = dev->priv;

	svm_close(pair->svm);
	free(pair);
}

int live_svm_read(struct device *dev, void *dst, const void *src, size_t length)
{
	struct pair *pair = dev->priv;

	return gpu_read(pair->queue[READER], dst, src, length);
}

int live_svm_write(struct device *dev, void *dst, const void *src, size_t length)
{
	struct pair *pair = dev->priv;

	return gpu_write(pair->queue[WRITER], dst, src, length);
}

uint64_t live_svm_lookup(const struct device *dev, const void *addr)
{
	const struct pair *pair = dev->priv;
	uint64_t written = gpu_lookup(svm_gpu(pair->svm, WRITER), addr);

	return written ? written : gpu_lookup(svm_gpu(pair->svm, READER), addr);
}

void live_svm_mark(struct device *dev, const void *start, size_t length)
{
	struct pair *pair = dev->priv;

	for (unsigned i = 0; i < GPUS; i++)
		gpu_verify_mark(svm_gpu(pair->svm, i), start, length);
}

uint64_t live_svm_stale(struct device *dev)
{
	struct gpu_stats stats = { .size = sizeof(stats) };
	struct pair *pair = dev->priv;
	uint64_t stale = 0;

	for (unsigned i = 0; i < GPUS; i++) {
		gpu_get_stats(svm_gpu(pair->svm, i), &stats);
		stale += stats.stale;
	}
	return stale;
}
