/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_iova - which I/O address a page gets: its own where that is allowed and free, else
 * one from a window, by first fit from a hint.
 *
 * Law: windows has every address that is given out and is not its page's own; an own address is
 * taken if the book has the page. So both are asked before an address is given.
 */
#include <errno.h>

#include "core/dma.h"

static uint64_t align_up(uint64_t at, uint64_t by)
{
	return (at + by - 1) & ~(by - 1);
}

/* The end of the aperture that has all of [iova, +length); 0: none. */
static uint64_t within(const struct hmm_dma *dma, uint64_t iova, size_t length)
{
	for (unsigned i = 0; i < dma->options.n_apertures; i++) {
		const struct hmm_dma_aperture *a = &dma->aperture[i];

		if (iova >= a->start && iova < a->end && a->end - iova >= length)
			return a->end;
	}
	return 0;
}

/* What is in the way of [iova, +length): its end; 0: nothing. */
static uint64_t blocked(const struct hmm_dma *dma, uint64_t iova, size_t length)
{
	struct range_entry entry;
	uintptr_t at = iova;
	uint64_t page;

	if (rangemap_first(&dma->windows, iova, iova + length, &entry))
		return entry.end;
	for (; dma_next(dma, &at, iova + length, &page); at += PAGE)
		if (!(page & DMA_WINDOW))
			return at + PAGE;
	return 0;
}

/* In one aperture, from `from` on. 0: no room. */
static uint64_t fit(const struct hmm_dma *dma, const struct hmm_dma_aperture *aperture,
		    uint64_t from, size_t length)
{
	uint64_t at = align_up(from > aperture->start ? from : aperture->start,
			       dma->options.granule), end;

	while (at >= aperture->start && at < aperture->end && aperture->end - at >= length) {
		end = blocked(dma, at, length);
		if (!end)
			return at;
		at = align_up(end, dma->options.granule);
	}
	return 0;
}

static uint64_t find(const struct hmm_dma *dma, uint64_t from, size_t length)
{
	for (unsigned i = 0; i < dma->options.n_apertures; i++) {
		uint64_t at = fit(dma, &dma->aperture[i], from, length);

		if (at)
			return at;
	}
	return 0;
}

int iova_take(struct hmm_dma *dma, uintptr_t va, size_t length, uint64_t *iova, bool *window)
{
	struct range_entry entry = { .value = va };
	uint64_t at;
	int err;

	*window = false;
	*iova = va;
	if (within(dma, va, length) &&
	    !rangemap_first(&dma->windows, va, va + length, &entry))
		return 0;
	at = find(dma, dma->window_hint, length);
	if (!at)
		at = find(dma, 0, length);
	if (!at)
		return -ENOSPC;
	entry = (struct range_entry){ .start = at, .end = at + length, .value = va };
	err = rangemap_insert(&dma->windows, &entry);
	if (err)
		return err;
	dma->window_hint = at + length;
	*iova = at;
	*window = true;
	return 0;
}

void iova_give(struct hmm_dma *dma, uint64_t iova)
{
	rangemap_remove(&dma->windows, iova, 0);
}

/* What the options allow below 2^bits, without the lowest: 0 says "not mapped", and a driver may want
 * some for itself. */
void iova_init(struct hmm_dma *dma)
{
	uint64_t top = dma->options.address_bits >= 64 ? UINT64_MAX & ~(PAGE - 1)
						       : UINT64_C(1) << dma->options.address_bits;

	rangemap_init(&dma->windows, dma->hmm->arena);
	if (!dma->options.n_apertures) {
		dma->options.n_apertures = 1;
		dma->aperture[0] = (struct hmm_dma_aperture){ 0, top };
	}
	for (unsigned i = 0; i < dma->options.n_apertures; i++) {
		struct hmm_dma_aperture *a = &dma->aperture[i];

		if (a->start < HMM_DMA_FIRST)
			a->start = HMM_DMA_FIRST;
		if (a->end > top)
			a->end = top;
	}
}
