/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uring - open, close, the notifier, statistics.
 *
 * Laws, as in every driver (ramdev.c):
 *  1. The device works under `lock`, and invalidate takes it: when that returns nothing of the
 *     range is in flight, translated, mapped or pinned (G4, D1).
 *  2. Translations enter by hmm_range_dma_program(), or its loop by hand, only (G2).
 *  3. A hmm_dma_fence() comes before each look at the table (G3, D3).
 */
#include <string.h>

#include "uring_private.h"

/* After a fork a pinned page stays the parent's, and what an address reads is unchanged. */
static void invalidate(void *priv, const struct hmm_event *event)
{
	struct uring *dev = priv;

	if (event->kind == HMM_EVENT_FORK)
		return;
	atomic_fetch_add(&dev->invalidations, 1);
	pthread_mutex_lock(&dev->lock);
	uring_forget(dev, event->start, event->end);
	pthread_mutex_unlock(&dev->lock);
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
					     .invalidate = invalidate };

static int take_options(struct uring_options *known, const struct uring_options *options)
{
	const char *raw = (const char *)options;

	if (options) {
		for (size_t i = sizeof(*known); i < options->size; i++)
			if (raw[i])
				return -E2BIG;
		memcpy(known, options,
		       options->size < sizeof(*known) ? options->size : sizeof(*known));
	}
	known->chunk = known->chunk ? known->chunk : PAGE;
	known->buffers = known->buffers ? known->buffers : URING_BUFFERS_MAX;
	if (known->chunk < PAGE || known->chunk > PIECE ||
	    known->chunk & (known->chunk - 1) || known->buffers > URING_BUFFERS_MAX ||
	    known->flags & ~(URING_NO_BOUNCE | URING_NAIVE))
		return -EINVAL;
	return 0;
}

/* Of 4 KiB each there must be buffers for a whole piece. */
static size_t piece_of(const struct uring_options *options)
{
	size_t piece = PIECE;

	while (options->fixed && piece > PAGE && piece / PAGE > options->buffers)
		piece /= 2;
	return piece;
}

static int address_space(struct uring *dev, const struct uring_options *options)
{
	struct hmm_dma_options dma = {
		.size = sizeof(dma),
		.name = "uring",
		.address_bits = UHMM_PTABLE_VA_BITS,
		.granule = PAGE,
		.chunk = options->chunk,
		.pinned = !(options->flags & URING_NAIVE),
	};

	if (!options->fixed)
		return hmm_dma_host(dev->hmm, &dev->dma);
	return hmm_dma_create(dev->hmm, &dma, &uring_dma_ops, dev, &dev->dma);
}

void uring_close(struct uring *dev)
{
	if (!dev)
		return;
	hmm_notifier_remove(dev->notifier); /* no callback runs from here on */
	hmm_dma_destroy(dev->dma);	    /* clears slots, so the ring must be there */
	uring_buffers_close(dev);
	uhmm_ptable_destroy(&dev->table);
	hmm_put(dev->hmm);
	hmm_free(dev, sizeof(*dev));
}

int uring_open(const struct uring_options *given, struct uring **out)
{
	struct uring_options options = { 0 };
	struct uring *dev;
	int err = take_options(&options, given);

	if (err)
		return err;
	dev = hmm_alloc(sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->pid = getpid();
	dev->fixed = options.fixed;
	dev->map_flags = HMM_DMA_SHORT_JOBS |
			 (options.flags & URING_NO_BOUNCE ? HMM_DMA_NO_BOUNCE : 0);
	dev->piece = piece_of(&options);
	dev->chunk = options.chunk;
	pthread_mutex_init(&dev->lock, NULL);
	pthread_mutex_init(&dev->miss, NULL);
	err = hmm_open(&dev->hmm);
	if (!err)
		err = uhmm_ptable_init(&dev->table);
	if (!err)
		err = uring_buffers_open(dev, options.buffers);
	if (!err)
		err = address_space(dev, &options);
	if (!err)
		err = hmm_notifier_insert(dev->hmm, 0, UINTPTR_MAX, &ops, dev,
					  &dev->notifier);
	if (err) {
		uring_close(dev);
		return err;
	}
	*out = dev;
	return 0;
}

uint64_t uring_lookup(const struct uring *dev, const void *addr)
{
	return uhmm_ptable_lookup(&dev->table, (uintptr_t)addr);
}

struct hmm_dma *uring_dma(struct uring *dev)
{
	return dev->dma;
}

void uring_get_stats(struct uring *dev, struct uring_stats *stats)
{
	struct hmm_dma_stats dma = { .size = sizeof(dma) };
	struct uring_stats now = {
		.size = stats->size,
		.invalidations = dev->invalidations,
		.misses = dev->misses,
		.requests = dev->buffers.requests,
		.again = dev->again,
		.evictions = dev->evictions,
		.refused = dev->refused,
		.late = dev->buffers.late,
		.unregistered = dev->unregistered,
	};

	hmm_dma_get_stats(dev->dma, &dma);
	now.registered = dma.mapped;
	now.buffers = dma.mappings;
	now.bounced = dma.bounced;
	now.stale = dma.stale;
	memcpy(stats, &now, stats->size < sizeof(now) ? stats->size : sizeof(now));
}
