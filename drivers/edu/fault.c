/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fault - a translation is missing: map the page, and what is present around it.
 *
 * With a chunk above a page one mapping takes all of an aligned block that is present:
 * fewer mappings, of which a container has a limited number. Only the page that is missed
 * is asked for, but a neighbour may spoil it for all (it cannot be pinned); then the page
 * goes alone.
 */
#include <errno.h>
#include <string.h>

#include "edu_private.h"

/* Law 2. Called by hmm_range_dma_program() under `lock` with an answer that is true. */
static int program(const struct hmm_range *range, const uint64_t *daddrs, void *arg)
{
	const uint64_t kept =
		HMM_PFN_VALID | HMM_PFN_WRITE | HMM_PFN_DMA_MAPPED | HMM_PFN_DMA_BOUNCE;
	struct edu *dev = arg;
	size_t i, n = (range->end - range->start) / PAGE;
	int err = 0;

	for (i = 0; i < n && !err; i++) {
		if (range->pfns[i] & HMM_PFN_DMA_MAPPED)
			err = uhmm_ptable_set(&dev->table, range->start + i * PAGE,
					      (range->pfns[i] & kept) | daddrs[i] / PAGE);
	}
	return err;
}

static int fault_window(struct edu *dev, uintptr_t addr, size_t window, bool write)
{
	const uint64_t want = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0);
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = dev->hmm,
		.notifier = dev->notifier,
		.start = addr & -window,
		.end = (addr & -window) + window,
		.pfns = dev->pfns,
		.pfn_flags_mask = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};
	unsigned flags = (dev->flags & EDU_NO_BOUNCE ? HMM_DMA_NO_BOUNCE : 0) |
			 (dev->flags & EDU_NAIVE ? HMM_DMA_SHORT_JOBS : 0);
	int err;

	memset(dev->pfns, 0, window / PAGE * sizeof(*dev->pfns));
	dev->pfns[(addr - range.start) / PAGE] = want;
	err = hmm_range_dma_program(&range, dev->dma, dev->daddrs, flags, 0, &dev->lock,
				    program, dev);
	return err < 0 ? err : 0;
}

int edu_fault(struct edu *dev, uintptr_t addr, bool write)
{
	int err = fault_window(dev, addr, dev->window, write);

	atomic_fetch_add(&dev->count.faults, 1);
	if (err && err != -EBUSY && err != -ENODEV && dev->window > PAGE)
		err = fault_window(dev, addr, PAGE, write);
	return err;
}
