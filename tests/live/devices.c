/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices - every driver behind one table.
 *
 * The gpu runs in verify mode: an access that a job submitted after a change makes
 * through a translation from before it is counted, and no case may have one. A
 * ramdev has no such count; its page table is looked at instead.
 */
#include <errno.h>
#include <stdlib.h>

#include <uhmm/gpu.h>
#include <uhmm/ramdev.h>

#include "devices_odp.h"
#include "devices_svm.h"
#include "devices_uring.h"

static int ram_open(struct device *dev)
{
	struct ramdev *ram;
	int err = ramdev_open(0, &ram);

	dev->priv = err ? NULL : ram;
	return err;
}

static void ram_close(struct device *dev)
{
	ramdev_close(dev->priv);
}

static int ram_read(struct device *dev, void *dst, const void *src, size_t length)
{
	return ramdev_read(dev->priv, dst, src, length);
}

static int ram_write(struct device *dev, void *dst, const void *src, size_t length)
{
	return ramdev_write(dev->priv, dst, src, length);
}

static uint64_t ram_lookup(const struct device *dev, const void *addr)
{
	return ramdev_lookup(dev->priv, addr);
}

void device_no_mark(struct device *dev, const void *start, size_t length)
{
}

uint64_t device_no_stale(struct device *dev)
{
	return 0;
}

struct gpu_pair {
	struct gpu *gpu;
	struct gpu_queue *queue;
};

static int pair_open(struct device *dev)
{
	struct gpu_options options = { .size = sizeof(options), .verify = true };
	struct gpu_pair *pair = calloc(1, sizeof(*pair));
	int err = pair ? gpu_open(&options, &pair->gpu) : -ENOMEM;

	if (!err) {
		err = gpu_queue_create(pair->gpu, &pair->queue);
		if (err)
			gpu_close(pair->gpu);
	}
	if (err)
		free(pair);
	dev->priv = err ? NULL : pair;
	return err;
}

static void pair_close(struct device *dev)
{
	struct gpu_pair *pair = dev->priv;

	gpu_queue_destroy(pair->queue);
	gpu_close(pair->gpu);
	free(pair);
}

static int pair_read(struct device *dev, void *dst, const void *src, size_t length)
{
	struct gpu_pair *pair = dev->priv;

	return gpu_read(pair->queue, dst, src, length);
}

static int pair_write(struct device *dev, void *dst, const void *src, size_t length)
{
	struct gpu_pair *pair = dev->priv;

	return gpu_write(pair->queue, dst, src, length);
}

static uint64_t pair_lookup(const struct device *dev, const void *addr)
{
	const struct gpu_pair *pair = dev->priv;

	return gpu_lookup(pair->gpu, addr);
}

static void pair_mark(struct device *dev, const void *start, size_t length)
{
	struct gpu_pair *pair = dev->priv;

	gpu_verify_mark(pair->gpu, start, length);
}

static uint64_t pair_stale(struct device *dev)
{
	struct gpu_stats stats = { .size = sizeof(stats) };
	struct gpu_pair *pair = dev->priv;

	gpu_get_stats(pair->gpu, &stats);
	return stats.stale;
}

const struct driver live_drivers[] = {
	{ "ramdev", ram_open, ram_close, ram_read, ram_write, ram_lookup, device_no_mark,
	  .stale = device_no_stale },
	{ "gpu", pair_open, pair_close, pair_read, pair_write, pair_lookup, pair_mark,
	  .stale = pair_stale },
	{ "uring", live_uring_open, live_uring_close, live_uring_read, live_uring_write,
	  live_uring_lookup, device_no_mark, .stale = live_uring_stale },
	{ "uring-chunk", live_uring_open_chunked, live_uring_close, live_uring_read,
	  live_uring_write, live_uring_lookup, device_no_mark, .stale = live_uring_stale },
	{ "uring-plain", live_uring_open_plain, live_uring_close, live_uring_read,
	  live_uring_write, live_uring_lookup, device_no_mark, .stale = live_uring_stale },
	{ "odp", live_odp_open, live_odp_close, live_odp_read, live_odp_write,
	  live_odp_lookup, device_no_mark, .stale = device_no_stale },
	{ "svm", live_svm_open, live_svm_close, live_svm_read, live_svm_write,
	  live_svm_lookup, live_svm_mark, .stale = live_svm_stale },
	{ "svm-vram", live_svm_open_vram, live_svm_close, live_svm_read, live_svm_write,
	  live_svm_lookup, live_svm_mark, .stale = live_svm_stale },
};
const unsigned live_driver_count = sizeof(live_drivers) / sizeof(live_drivers[0]);

int device_open(const struct driver *driver, struct device *dev)
{
	int err;

	*dev = (struct device){ .driver = driver };
	err = hmm_open(&dev->hmm);
	if (err)
		return err;
	err = driver->open(dev);
	if (err)
		hmm_put(dev->hmm);
	return err;
}

void device_close(struct device *dev)
{
	dev->driver->close(dev);
	hmm_put(dev->hmm);
}

int device_byte(struct device *dev, const void *addr)
{
	unsigned char byte = 0;
	int err = device_read(dev, &byte, addr, 1);

	return err ? err : byte;
}

int device_fence(struct device *dev, const void *start, size_t length)
{
	return hmm_fence(dev->hmm, (uintptr_t)start, length);
}
