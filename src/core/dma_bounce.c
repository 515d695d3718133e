/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_bounce - copies of memory that cannot be pinned: the device reaches the copy.
 *
 * Copying touches the program's memory, which may be away in a device's; whoever brings it home
 * may need a lock that a callback holds which waits for ours. So it is done without `lock`, and
 * a granule that is unmapped meanwhile lives until its copying has ended.
 */
#include <errno.h>
#include <string.h>

#include "core/dma.h"

#define SLAB 32u /* granules */

struct bounce {
	struct bounce *next; /* free, or of slabs */
	uintptr_t at;
	unsigned copying;
	bool given; /* while it was being copied */
	void *memory; /* first of a slab: what was mapped, */
	size_t size;  /* and how much */
	size_t bytes; /* and of the slab's structs */
};

static int slab_make(struct hmm_dma *dma)
{
	size_t granule = dma->options.granule, bytes = SLAB * sizeof(struct bounce);
	struct bounce *slab = arena_alloc(dma->hmm->arena, bytes);
	/* Aligned to the granule. Never the program's: the IOMMU pins it, nobody mirrors it. */
	size_t size = SLAB * granule + (granule > PAGE ? granule : 0);
	char *memory = slab ? arena_map(size) : NULL;
	uintptr_t at;

	if (!memory) {
		arena_free(dma->hmm->arena, slab, bytes);
		return -ENOMEM;
	}
	at = ((uintptr_t)memory + granule - 1) & ~(granule - 1);
	slab[0] = (struct bounce){ .next = dma->bounce_slabs, .memory = memory, .size = size,
				   .bytes = bytes };
	dma->bounce_slabs = &slab[0];
	/* The first struct stands for the slab; it has no granule. */
	for (unsigned i = 1; i < SLAB; i++) {
		slab[i].at = at + i * granule;
		slab[i].next = dma->bounce_free;
		dma->bounce_free = &slab[i];
	}
	return 0;
}

struct bounce *bounce_take(struct hmm_dma *dma)
{
	struct bounce *bounce;

	if (!dma->bounce_free && slab_make(dma))
		return NULL;
	bounce = dma->bounce_free;
	dma->bounce_free = bounce->next;
	bounce->given = false;
	memset((void *)bounce->at, 0, dma->options.granule);
	return bounce;
}

uintptr_t bounce_at(const struct bounce *bounce)
{
	return bounce->at;
}

static void put_free(struct hmm_dma *dma, struct bounce *bounce)
{
	bounce->next = dma->bounce_free;
	dma->bounce_free = bounce;
}

void bounce_give(struct hmm_dma *dma, struct bounce *bounce)
{
	if (bounce->copying)
		bounce->given = true;
	else
		put_free(dma, bounce);
}

void bounce_end(struct hmm_dma *dma)
{
	struct bounce *slab, *next;

	for (slab = dma->bounce_slabs; slab; slab = next) {
		next = slab->next;
		arena_unmap(slab->memory, slab->size);
		arena_free(dma->hmm->arena, slab, slab->bytes);
	}
	dma->bounce_slabs = dma->bounce_free = NULL;
}

/* The next page that is to be copied, held. */
static struct bounce *hold_next(struct hmm_dma *dma, uintptr_t *at, uintptr_t end,
				enum hmm_dma_direction direction, bool fresh, uintptr_t *copy)
{
	struct bounce *bounce = NULL;
	uintptr_t start, stop;
	uint64_t entry;

	lock_take(&dma->lock);
	for (; !bounce && dma_next(dma, at, end, &entry); *at += bounce ? 0 : PAGE) {
		if (!(entry & DMA_BOUNCE) || (fresh && !(entry & DMA_FRESH)) ||
		    (direction == HMM_DMA_FOR_CPU && !(entry & DMA_WRITE)))
			continue;
		dma_extent(dma, *at, &start, &stop);
		bounce = (struct bounce *)(uintptr_t)uhmm_ptable_lookup(&dma->behind, start);
		*copy = bounce->at + (*at - start);
		bounce->copying++;
	}
	lock_drop(&dma->lock);
	return bounce;
}

static void release(struct hmm_dma *dma, struct bounce *bounce)
{
	lock_take(&dma->lock);
	if (!--bounce->copying && bounce->given)
		put_free(dma, bounce);
	lock_drop(&dma->lock);
}

int64_t bounce_sync(struct hmm_dma *dma, uintptr_t start, uintptr_t end,
		    enum hmm_dma_direction direction, bool fresh)
{
	const struct os_ops *os = dma->hmm->os;
	int64_t pages = 0;
	int failed = 0;

	for (uintptr_t at = PAGE_DOWN(start); at < end; at += PAGE) {
		uintptr_t copy = 0, from, to;
		struct bounce *bounce = hold_next(dma, &at, end, direction, fresh, &copy);
		int err;

		if (!bounce)
			break;
		from = at > start ? at : start;
		to = end - at < PAGE ? end : at + PAGE;
		copy += from - at;
		if (direction == HMM_DMA_FOR_DEVICE)
			err = os->copy_from(&dma->hmm->mm, (void *)copy, from, to - from);
		else
			err = os->copy_to(&dma->hmm->mm, from, (const void *)copy, to - from);
		release(dma, bounce);
		pages += !err;
		if (err)
			failed = error_say(-EFAULT, "%#lx: the memory behind a bounced page is gone, "
					   "or may not be written", (unsigned long)at);
	}
	return failed ? failed : pages;
}
