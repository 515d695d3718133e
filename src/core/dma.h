/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma - an I/O address space: what its parts share.
 *
 *	dma.c         making and ending one; the back-ends of the library
 *	dma_map.c     map and unmap; the driver's loop
 *	dma_iova.c    which I/O address a page gets
 *	dma_bounce.c  copies of what cannot be pinned
 *	dma_fence.c   is what is pinned what a CPU finds? (D3)
 *
 * Laws (docs/dma.md has the argument):
 * - The book says what is mapped, page by page, whoever asked for it. A mapping of the back-end
 *   is a row of pages from one with HEAD to before the next; it is taken back whole.
 * - `lock` is held from the look at the notifier's sequence to the back-end's map, and in
 *   unmap. So what is mapped by a look that is stale already is mapped before the invalidate
 *   that says so unmaps (D1).
 * - Memory of the program is touched under `lock` by the back-end's map only: a page of the
 *   range cannot be away then, because the devices have not forgotten it yet (the worker may be
 *   waiting for `lock` in the very callback that would let it leave). Bounced pages are copied
 *   outside.
 * - `maps` serializes maps, so that one which fails takes back what is its own (D2); unmap does
 *   not take it.
 */
#ifndef UHMM_CORE_DMA_H
#define UHMM_CORE_DMA_H

#include <uhmm/dma.h>
#include <uhmm/ptable.h>

#include "core/core.h"

#define DMA_APERTURES OS_IOMMU_RANGES

/* An entry of the book: an I/O address, and */
#define DMA_MAPPED UINT64_C(1)
#define DMA_WRITE UINT64_C(2)
#define DMA_BOUNCE UINT64_C(4)
#define DMA_HEAD UINT64_C(8)   /* the first page of a mapping */
#define DMA_WINDOW UINT64_C(16) /* its I/O address is another */
#define DMA_FRESH UINT64_C(32)	/* made by the map that is under way */
#define DMA_ADDRESS (~UINT64_C(4095))

struct bounce; /* dma_bounce.c: a granule of memory */

struct hmm_dma {
	struct hmm *hmm;
	struct hmm_dma_options options; /* name and apertures are ours */
	char name[32];
	struct hmm_dma_aperture aperture[DMA_APERTURES];
	struct hmm_dma_ops ops;
	void *priv;
	struct os_iommu iommu; /* priv of the library's own back-ends */
	bool host;

	pthread_mutex_t maps; /* before `lock` */
	struct lock lock;     /* protects all below but the counts */
	struct uhmm_ptable book;
	struct uhmm_ptable behind; /* pinned: 1 + the page's number; bounced: the struct bounce */
	struct rangemap windows;   /* I/O addresses that are not their pages' own */
	uint64_t window_hint;
	struct bounce *bounce_free;
	struct bounce *bounce_slabs;

	_Atomic bool unverified; /* page numbers are not told to us */
	struct {
		_Atomic uint64_t mapped, mapped_max, maps, unmaps, mappings, bounced, window,
			fences, stale, settled;
	} count;
};

/* ---- dma.c ---- */
/* -EINVAL, -ENODEV, -EDEADLK, ...: may a call that sleeps be made? */
int dma_check(struct hmm_dma *dma);

/* ---- dma_map.c; under `lock` ---- */
/* A whole mapping: its first page and its end. *at: any page of it. */
void dma_extent(const struct hmm_dma *dma, uintptr_t at, uintptr_t *start, uintptr_t *end);
/* Take it back. */
void dma_drop(struct hmm_dma *dma, uintptr_t start, uintptr_t end);
/* The first page at or above *at and below end that is mapped. */
bool dma_next(const struct hmm_dma *dma, uintptr_t *at, uintptr_t end, uint64_t *entry);

/* ---- dma_iova.c; under `lock` ---- */
void iova_init(struct hmm_dma *dma);
/* An I/O address for [va, +length): *window says that it is not its own. -ENOSPC, -ENOMEM. */
int iova_take(struct hmm_dma *dma, uintptr_t va, size_t length, uint64_t *iova, bool *window);
void iova_give(struct hmm_dma *dma, uint64_t iova);

/* ---- dma_bounce.c ---- */
/* Under `lock`: a zeroed granule; NULL: no memory. And where it lies. */
struct bounce *bounce_take(struct hmm_dma *dma);
uintptr_t bounce_at(const struct bounce *bounce);
/* Under `lock`: nobody needs it any more, but who is copying. */
void bounce_give(struct hmm_dma *dma, struct bounce *bounce);
void bounce_end(struct hmm_dma *dma);
/* Copy what is bounced of [start, end); only what the map under way has made, if `fresh`. Pages, or
 * -EFAULT. Not under `lock`. */
int64_t bounce_sync(struct hmm_dma *dma, uintptr_t start, uintptr_t end,
		    enum hmm_dma_direction direction, bool fresh);

/* ---- dma_fence.c ---- */
/* Under `lock`: note which pages are about to be pinned; and, pinned, are they those? */
void dma_note(struct hmm_dma *dma, uintptr_t start, uintptr_t end);
bool dma_holds(struct hmm_dma *dma, uintptr_t start, uintptr_t end);
/* Under no lock of ours: tell everybody that it may be other memory now, and unmap it. */
int dma_clear(struct hmm_dma *dma, uintptr_t start, uintptr_t end);

#endif
