/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * miss - how translations come into the device's page table, and how they leave it.
 *
 * They enter by program() only, under the update lock, with an answer that is true then (G2),
 * and leave by uring_forget(), table first: what the device cannot translate it does not use.
 */
#include "uring_private.h"

#define TIMEOUT_MS 100 /* somebody else waits for `miss` */
#define KEPT (HMM_PFN_VALID | HMM_PFN_WRITE | HMM_PFN_DMA_MAPPED | HMM_PFN_DMA_BOUNCE)

void uring_forget(struct uring *dev, uintptr_t start, uintptr_t end)
{
	uintptr_t from = start, to = end;

	/* With chunks neighbours go along; they go from the table before. */
	hmm_dma_widen(dev->dma, &from, &to);
	uhmm_ptable_clear(&dev->table, from, to);
	hmm_range_dma_unmap(dev->dma, start, end, false);
}

static int program(const struct hmm_range *range, const uint64_t *daddrs, void *arg)
{
	struct uring *dev = arg;
	int err = 0, mapped = 0;

	for (size_t i = 0; i < (range->end - range->start) / PAGE && !err; i++) {
		if (!daddrs[i])
			continue;
		err = uhmm_ptable_set(&dev->table, range->start + i * PAGE,
				      (range->pfns[i] & KEPT) | daddrs[i] / PAGE);
		mapped++;
	}
	return err ? err : mapped;
}

/* All buffers, for room: whoever needs one takes it again. false: there were none. */
static bool evict(struct uring *dev)
{
	bool some;

	pthread_mutex_lock(&dev->lock);
	some = dev->buffers.used != 0;
	if (some)
		uring_forget(dev, 0, UINTPTR_MAX);
	pthread_mutex_unlock(&dev->lock);
	if (some)
		atomic_fetch_add(&dev->evictions, 1);
	return some;
}

/* What may be registered as one buffer with [*start, *end): all of the chunks. */
static void widen(const struct uring *dev, uintptr_t *start, uintptr_t *end)
{
	*start &= -dev->chunk;
	*end = (*end + dev->chunk - 1) & -dev->chunk;
}

/* Nothing is asked for yet. At most PIECE bytes. */
static struct hmm_range range_of(struct uring *dev, uintptr_t start, uintptr_t end)
{
	for (size_t i = 0; i < (end - start) / PAGE; i++)
		dev->pfns[i] = 0;
	return (struct hmm_range){
		.size = sizeof(struct hmm_range),
		.hmm = dev->hmm,
		.notifier = dev->notifier,
		.start = start,
		.end = end,
		.pfns = dev->pfns,
		.pfn_flags_mask = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
		.owner = dev, /* what is in the memory of another device comes home */
	};
}

/*
 * Under `miss`. Widened: what lies in the same chunks is taken along if it is there, but not at
 * the price of a copy.
 */
static int map_piece(struct uring *dev, const struct piece *p, bool widened,
		     struct hmm_range *range)
{
	uint64_t want = HMM_PFN_REQ_FAULT | (p->to_memory ? HMM_PFN_REQ_WRITE : 0);
	uintptr_t first = p->addr & -PAGE, start = first, end = p->addr + p->n;
	unsigned flags = dev->map_flags | (widened ? HMM_DMA_NO_BOUNCE : 0);

	if (widened)
		widen(dev, &start, &end);
	*range = range_of(dev, start, (end + PAGE - 1) & -PAGE);
	for (uintptr_t at = first; at < p->addr + p->n; at += PAGE)
		dev->pfns[(at - start) / PAGE] = want;
	return hmm_range_dma_program(range, dev->dma, dev->daddrs, flags, TIMEOUT_MS,
				     &dev->lock, program, dev);
}

static int fault_and_map(struct uring *dev, struct piece *p)
{
	bool widened = dev->chunk > PAGE;
	struct hmm_range range;
	int err, tries = 0;

	do
		err = map_piece(dev, p, widened, &range);
	while (err == -ENOMEM && tries++ < 2 && evict(dev));
	/* A neighbour has spoiled it, or it has to be copied itself. */
	if (widened && (err == -EOPNOTSUPP || err == -ENOMEM))
		err = map_piece(dev, p, false, &range);
	if (err >= 0)
		return 0;
	/* Others of this user have locked all that may be; or it changes without pause. */
	if (err == -ENOMEM || err == -EBUSY)
		return ALIEN;
	if ((err == -EFAULT || err == -EPERM || err == -EOPNOTSUPP) &&
	    range.fault_addr > p->addr && range.fault_addr < p->addr + p->n) {
		p->n = range.fault_addr - p->addr;
		return 0;
	}
	if (err == -EOPNOTSUPP && range.fault_reason == HMM_REASON_NOT_MIRRORABLE)
		return ALIEN;
	return err;
}

int uring_miss(struct uring *dev, struct piece *p)
{
	int err;

	atomic_fetch_add(&dev->misses, 1);
	pthread_mutex_lock(&dev->miss);
	err = fault_and_map(dev, p);
	pthread_mutex_unlock(&dev->miss);
	return err;
}

/*
 * The loop by hand: nothing is asked for, so what is present is mapped and no more. The entries
 * are answers of one moment, and stale unless read_retry says no under the lock. The range is of
 * whole chunks: an unmap that takes neighbours along has overlapped it then.
 */
static int register_some(struct uring *dev, struct hmm_range *range)
{
	int64_t mapped;
	int err, tries = TRIES;

	do {
		err = hmm_notifier_read_begin(range);
		if (err)
			return err;
		mapped = hmm_range_dma_map(range, dev->dma, dev->daddrs, dev->map_flags);
		if (mapped < 0 && mapped != -EBUSY)
			return (int)mapped;
		err = -EBUSY;
		pthread_mutex_lock(&dev->lock);
		if (mapped >= 0 && !hmm_notifier_read_retry(range))
			err = program(range, dev->daddrs, dev);
		pthread_mutex_unlock(&dev->lock);
	} while (err == -EBUSY && tries--);
	return err;
}

int64_t uring_register(struct uring *dev, const void *start, size_t length)
{
	uintptr_t at = (uintptr_t)start, end = at + length;
	int64_t all = 0;
	int some = 0;

	if (end < at || (at | end) & (PAGE - 1))
		return -EINVAL;
	if (uring_check(dev))
		return -ENODEV;
	widen(dev, &at, &end);
	for (; at < end && some >= 0; at += PIECE) {
		struct hmm_range range;

		pthread_mutex_lock(&dev->miss);
		range = range_of(dev, at, end - at < PIECE ? end : at + PIECE);
		some = register_some(dev, &range);
		pthread_mutex_unlock(&dev->miss);
		all += some;
	}
	return some < 0 ? some : all;
}
