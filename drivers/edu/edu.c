/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * edu - QEMU's edu PCI device: open, close, the notifier, statistics. The laws are in
 * edu_private.h.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "edu_private.h"

#define TIMEOUT_MS 5000 /* fifty times what a DMA takes */

void edu_forget(struct edu *dev, uintptr_t start, uintptr_t end)
{
	uintptr_t from = start, to = end;

	pthread_mutex_lock(&dev->lock);
	/* The device stops using neighbours too, where they were mapped with it. */
	hmm_dma_widen(dev->dma, &from, &to);
	uhmm_ptable_clear(&dev->table, from, to);
	if (from <= dev->job.page && dev->job.page < to)
		dev->job.forgotten = true;
	hmm_range_dma_unmap(dev->dma, start, end, false);
	pthread_mutex_unlock(&dev->lock);
}

/*
 * Whatever the event was, forgetting is right. After a fork it is not needed: a page that
 * is pinned stays the parent's (the kernel copies it for the child at once), and a bounced
 * one is copied by its address.
 */
static void invalidate(void *priv, const struct hmm_event *event)
{
	struct edu *dev = priv;

	atomic_fetch_add(&dev->count.invalidations, 1);
	if (event->kind != HMM_EVENT_FORK)
		edu_forget(dev, event->start, event->end);
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
					     .invalidate = invalidate };

/* The options that we know, and zero for what an older caller does not. */
static int take_options(struct edu *dev, const struct edu_options *given,
			struct edu_options *options)
{
	const char *raw = (const char *)given;

	memset(options, 0, sizeof(*options));
	if (given) {
		for (size_t i = sizeof(*options); i < given->size; i++) {
			if (raw[i])
				return -E2BIG;
		}
		memcpy(options, given,
		       given->size < sizeof(*options) ? given->size : sizeof(*options));
	}
	if (options->flags & ~(EDU_NO_BOUNCE | EDU_NAIVE) || options->way > EDU_IOMMUFD ||
	    options->chunk > FAULT_PAGES * PAGE || options->chunk & (options->chunk - 1) ||
	    (options->chunk && options->chunk < PAGE))
		return edu_say(-EINVAL, "an option of the edu is out of its range");
	dev->flags = options->flags;
	dev->window = options->chunk ? options->chunk : PAGE;
	dev->timeout_ms = options->timeout_ms ? options->timeout_ms : TIMEOUT_MS;
	return 0;
}

/* Answering, silent, and off everything. */
static int take_device(struct edu *dev, const struct edu_options *options)
{
	struct edu_place place;
	int err = edu_find(options->pci, &place);

	if (!err)
		err = edu_bus_open(&dev->bus, &place, options->way);
	if (!err)
		err = edu_bus_master(&dev->bus, false);
	return err ? err : edu_engine_check(dev);
}

static int build(struct edu *dev)
{
	int err = uhmm_ptable_init(&dev->table);

	dev->page = hmm_alloc(PAGE);
	if (err || !dev->page)
		return -ENOMEM;
	err = edu_bus_map(&dev->bus, dev->page, PAGE);
	if (err)
		return err;
	dev->page_mapped = true;
	err = hmm_open(&dev->hmm);
	if (!err && dev->bus.way == EDU_IOMMUFD)
		err = hmm_dma_iommufd(dev->hmm, dev->bus.iommufd, dev->bus.ioas,
				      dev->window, &dev->dma);
	else if (!err)
		err = hmm_dma_type1(dev->hmm, dev->bus.container, dev->window, &dev->dma);
	/* Over everything: what the device did not map costs nothing. */
	if (!err)
		err = hmm_notifier_insert(dev->hmm, 0, UINTPTR_MAX, &ops, dev,
					  &dev->notifier);
	return err ? err : edu_bus_master(&dev->bus, true);
}

int edu_open(const struct edu_options *given, struct edu **out)
{
	struct edu_options options;
	struct edu *dev;
	int err;

	edu_hush();
	dev = hmm_alloc(sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->owner = getpid();
	pthread_mutex_init(&dev->jobs, NULL);
	pthread_mutex_init(&dev->lock, NULL);
	edu_bus_init(&dev->bus);
	err = take_options(dev, given, &options);
	if (!err)
		err = take_device(dev, &options);
	if (!err)
		err = build(dev);
	if (err) {
		edu_close(dev);
		return err;
	}
	*out = dev;
	return 0;
}

/* In the other order. A forked child leaves the device to its parent. */
void edu_close(struct edu *dev)
{
	bool mine;

	if (!dev)
		return;
	mine = dev->owner == getpid();
	if (mine && dev->bus.registers)
		edu_bus_master(&dev->bus, false);
	hmm_notifier_remove(dev->notifier);
	hmm_dma_destroy(dev->dma);
	hmm_put(dev->hmm);
	if (mine && dev->page_mapped)
		edu_bus_unmap(&dev->bus, dev->page, PAGE);
	edu_bus_close(&dev->bus);
	uhmm_ptable_destroy(&dev->table);
	hmm_free(dev->page, PAGE);
	pthread_mutex_destroy(&dev->lock);
	pthread_mutex_destroy(&dev->jobs);
	hmm_free(dev, sizeof(*dev));
}

uint64_t edu_lookup(const struct edu *dev, const void *addr)
{
	return uhmm_ptable_lookup(&dev->table, (uintptr_t)addr);
}

struct hmm_dma *edu_dma(struct edu *dev)
{
	return dev->dma;
}

int edu_map_raw(struct edu *dev, void *memory, size_t length)
{
	edu_hush();
	return dev->owner == getpid() ? edu_bus_map(&dev->bus, memory, length) : -ENODEV;
}

void edu_unmap_raw(struct edu *dev, void *memory, size_t length)
{
	if (dev->owner == getpid())
		edu_bus_unmap(&dev->bus, memory, length);
}

void edu_get_stats(struct edu *dev, struct edu_stats *stats)
{
	struct hmm_dma_stats dma = { .size = sizeof(dma) };
	struct edu_stats all = {
		.size = stats->size,
		.way = dev->bus.way,
		.dmas = atomic_load(&dev->count.dmas),
		.bytes_read = atomic_load(&dev->count.bytes_read),
		.bytes_written = atomic_load(&dev->count.bytes_written),
		.faults = atomic_load(&dev->count.faults),
		.again = atomic_load(&dev->count.again),
		.syncs = atomic_load(&dev->count.syncs),
		.invalidations = atomic_load(&dev->count.invalidations),
	};

	hmm_dma_get_stats(dev->dma, &dma);
	all.mapped = dma.mapped;
	all.mappings = dma.mappings;
	memcpy(stats, &all, stats->size < sizeof(all) ? stats->size : sizeof(all));
}
