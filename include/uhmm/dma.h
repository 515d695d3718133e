/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: DMA - memory of the process in a device's own address space
 *
 * A device that reaches memory by itself needs its pages mapped where it looks: in an IOMMU, in
 * a table of registered buffers. A struct hmm_dma is one such I/O address space, and its
 * back-end is who maps there: the host (nothing to do), VFIO type1, iommufd, or a driver's own.
 * hmm_range_dma_map() is hmm_range_fault() that goes on to map what it found.
 *
 * The loop of a driver (hmm_range_dma_program() is that loop):
 *
 *	again:
 *		hmm_notifier_read_begin(&range);
 *		hmm_range_dma_map(&range, dma, daddrs, 0);	// faults, maps
 *		lock(driver);
 *		if (hmm_notifier_read_retry(&range)) { unlock(driver); goto again; }
 *		program the device from daddrs;
 *		unlock(driver);
 *
 *	invalidate:	lock; the device stops using [start, end); hmm_range_dma_unmap(); unlock
 *	submit:		hmm_dma_fence(); on a miss the loop; hmm_range_dma_sync(); start
 *
 * A page has one mapping in a struct hmm_dma, whoever asked for it: a second map finds it and
 * answers the same address; an unmap is for all. What it is mapped to is the page that a CPU
 * finds at the address, for as long as the mapping lives and the driver asks before each job:
 *
 * D1  When hmm_range_dma_unmap() returns nothing of the range is mapped, and no
 *     hmm_range_dma_map() whose read_begin came before the event maps it again.
 * D2  A map that fails leaves nothing mapped that was not, and its entries as they were.
 * D3  On return of hmm_dma_fence(), a page of the range that is still mapped is the page that a
 *     CPU finds there: also after a change that no event tells (a guard page, a truncation or a
 *     hole punch by any process, the end of a DONTNEED whose message was read before it was
 *     mapped).
 *
 * Why a pin needs D3: it keeps the page that it found. docs/dma.md has the argument, and
 * docs/dax.md which memory can be mapped how.
 *
 * Memory that cannot be pinned (a file on a DAX filesystem, a shared mapping of most files for
 * writing) is mapped by way of a bounce page, which HMM_PFN_DMA_BOUNCE says; its bytes go to
 * and fro by hmm_range_dma_sync() only.
 */
#ifndef UHMM_DMA_H
#define UHMM_DMA_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hmm_dma;

/* Beside HMM_PFN_DMA_MAPPED in an entry: it is a copy of the page that is mapped. */
#define HMM_PFN_DMA_BOUNCE (UINT64_C(1) << 59)

/**
 * struct hmm_dma_ops - what a back-end does
 * @size: sizeof(struct hmm_dma_ops)
 * @map: [iova, +length) is [va, +length) from now on, for reading, and for writing if @write.
 *	All of it or nothing. -EOPNOTSUPP, -EFAULT: this memory cannot be pinned; -ENOMEM
 * @unmap: takes back exactly one mapping that map made. When it returns the device reaches it
 *	no more. It cannot fail
 *
 * Context: one call at a time for each struct hmm_dma; any thread, the library's worker
 * included (inside an invalidate). They may sleep and allocate, and may not call the library.
 */
struct hmm_dma_ops {
	size_t size;
	int (*map)(void *priv, uint64_t iova, uintptr_t va, size_t length, bool write);
	void (*unmap)(void *priv, uint64_t iova, size_t length);
};

/** struct hmm_dma_aperture - I/O addresses that may be used: [start, end) */
struct hmm_dma_aperture {
	uint64_t start, end;
};

/* I/O addresses below are never given out: a driver may map something of its own there. */
#define HMM_DMA_FIRST UINT64_C(0x10000)

/**
 * struct hmm_dma_options - an I/O address space
 * @size: sizeof(struct hmm_dma_options)
 * @name: for messages; "" if NULL
 * @address_bits: addresses have no more than so many; 20 to 64; 0: 64
 * @granule: bytes; a mapping begins and ends at multiples of it; a power of two; 0: 4096
 * @chunk: bytes; a mapping lies within one aligned block of so many; a power of two; 0:
 *	@granule. When a part of a mapping is unmapped all of it goes: with a chunk above the
 *	granule mappings are fewer, and an invalidation takes neighbours along (hmm_dma_widen())
 * @pinned: a mapping keeps the page that it found (D3 is not for nothing)
 * @apertures: which addresses may be used; NULL: all from HMM_DMA_FIRST on
 * @n_apertures: how many
 *
 * A page is mapped at its own address where that is allowed, else at one from a window.
 */
struct hmm_dma_options {
	size_t size;
	const char *name;
	unsigned address_bits;
	size_t granule, chunk;
	bool pinned;
	const struct hmm_dma_aperture *apertures;
	unsigned n_apertures;
};

/**
 * hmm_dma_create() - an I/O address space with a driver's own back-end
 * @hmm: own mirror; the space takes a reference
 * @options: what it is
 * @ops: must outlive it
 * @priv: handed to @ops
 * @dma: where the handle goes
 *
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EINVAL an option; -E2BIG; -EOPNOTSUPP an attached process; -ENOMEM; -ENODEV.
 */
UHMM_API int hmm_dma_create(struct hmm *hmm, const struct hmm_dma_options *options,
			    const struct hmm_dma_ops *ops, void *priv, struct hmm_dma **dma);

/**
 * hmm_dma_host() - the device uses the process's own addresses, as a thread of it would
 *
 * Nothing is pinned, and an address is its own I/O address. Context, return: as
 * hmm_dma_create().
 */
UHMM_API int hmm_dma_host(struct hmm *hmm, struct hmm_dma **dma);

/**
 * hmm_dma_type1() - a VFIO container with a type1 (v2) IOMMU
 * @container: a /dev/vfio/vfio descriptor, with a group in it and its IOMMU set; stays the
 *	caller's, and open until hmm_dma_destroy()
 * @chunk: as in struct hmm_dma_options
 *
 * The granule is the smallest page of the IOMMU, and the apertures are what the kernel says.
 * Each mapping counts against the module's dma_entry_limit (65,535) and RLIMIT_MEMLOCK.
 * Return: as hmm_dma_create(); -ENOTTY, -EINVAL it is no such container.
 */
UHMM_API int hmm_dma_type1(struct hmm *hmm, int container, size_t chunk, struct hmm_dma **dma);

/**
 * hmm_dma_iommufd() - an I/O address space of an iommufd
 * @iommufd: a /dev/iommu descriptor; stays the caller's, open until hmm_dma_destroy()
 * @ioas: of IOMMU_IOAS_ALLOC, with the device attached to it
 * @chunk: as in struct hmm_dma_options
 * Return: as hmm_dma_create(); -ENOTTY, -ENOENT it is no such object.
 */
UHMM_API int hmm_dma_iommufd(struct hmm *hmm, int iommufd, uint32_t ioas, size_t chunk,
			     struct hmm_dma **dma);

/**
 * hmm_dma_destroy() - everything is unmapped, then the space is gone
 * @dma: a handle, or NULL. Bounced pages are not synced.
 * Context: any thread, not a callback. No other call on it may be running.
 */
UHMM_API void hmm_dma_destroy(struct hmm_dma *dma);

/* Flags of hmm_range_dma_map(). */
#define HMM_DMA_NO_BOUNCE (1u << 0) /* what cannot be pinned is -EOPNOTSUPP */
/*
 * Not to wait until a DONTNEED that is under way has ended: a page that it discards later is found
 * by the next hmm_dma_fence(). For devices whose jobs end before the update lock is dropped.
 */
#define HMM_DMA_SHORT_JOBS (1u << 1)

/**
 * hmm_range_dma_map() - hmm_range_fault(), and map what it found
 * @range: as for hmm_range_fault(), with a notifier, after hmm_notifier_read_begin()
 * @dma: where
 * @daddrs: out: one for each page: its I/O address, 0 if it is not mapped
 * @flags: HMM_DMA_NO_BOUNCE, HMM_DMA_SHORT_JOBS, or 0
 *
 * Mapped is every entry that is VALID and system memory, whether it was asked for or not:
 * without any request that is what is present (a registration that faults nothing in). For
 * writing where the entry says WRITE, else for reading. HMM_PFN_DMA_MAPPED is set in its entry,
 * and HMM_PFN_DMA_BOUNCE if a copy is mapped. A page that is mapped already keeps its address.
 * If it is for writing now and was for reading, its mapping goes as by any change
 * (HMM_EVENT_CLEAR), and the range has to begin again (-EBUSY): no back-end can change a mapping,
 * and while one is made anew whoever uses it would find nothing there.
 *
 * With a chunk above the granule a page may be mapped with neighbours outside of the range, and
 * goes with them: a loop of one's own asks hmm_notifier_read_retry() of the range widened by
 * hmm_dma_widen(), as hmm_range_dma_program() does.
 *
 * Context: any thread, not a callback; sleeps. Locks: none that a callback takes.
 * Return: how many pages are mapped; on failure a negative errno, and D2 holds: as
 * hmm_range_fault(); -EBUSY the range changed, begin again, or a DONTNEED of it does not end;
 * -EOPNOTSUPP it cannot be pinned and shall not bounce; -ENOSPC no I/O address is free;
 * -ENOMEM, with the sentence that names the limit; -EINVAL the entry's memory does not fit the
 * granule.
 * Kernel counterpart: hmm_range_dma_map() (2019, A15), hmm_dma_map_pfn() (B20).
 */
UHMM_API int64_t hmm_range_dma_map(struct hmm_range *range, struct hmm_dma *dma,
				   uint64_t *daddrs, unsigned flags);

/**
 * hmm_range_dma_unmap() - D1: nothing of [start, end) is mapped any more
 * @dma: where
 * @start: first address; @end: past the last
 * @dirty: bounced pages that the device may have written are copied back first. Never
 *	inside invalidate: whose memory it is now nobody knows
 *
 * Mappings that begin before or end after the range go as a whole (hmm_dma_widen()). Pages that
 * the device has written to by a pin have to be dirty when their file is asked. VFIO and iommufd
 * see to that when they unpin; a back-end whose unpin does not (io_uring's) does it after a job.
 *
 * A driver that unmaps of its own, to have room, and not because of an event, keeps maps of that
 * range away meanwhile, by a lock of its own: to them it is no change.
 * Context: any thread, and inside invalidate, which is what it is for; sleeps. Locks: the
 * driver's update lock may be held.
 * Return: how many pages were mapped; -EFAULT with @dirty: some could not be copied back (all
 * are unmapped).
 * Kernel counterpart: hmm_range_dma_unmap() (2019, A16), hmm_dma_unmap_pfn() (B21).
 */
UHMM_API int64_t hmm_range_dma_unmap(struct hmm_dma *dma, uintptr_t start, uintptr_t end,
				     bool dirty);

/**
 * hmm_dma_widen() - what an unmap of [*start, *end) may take away
 *
 * For invalidate, where the device has to stop using it first. Nothing more with a chunk of one
 * granule.
 */
UHMM_API void hmm_dma_widen(const struct hmm_dma *dma, uintptr_t *start, uintptr_t *end);

/** enum hmm_dma_direction - where bytes of bounced pages go */
enum hmm_dma_direction {
	HMM_DMA_FOR_DEVICE = 1, /* from memory to the bounce page: before a job */
	HMM_DMA_FOR_CPU = 2,	/* and back, where it is mapped for writing: after a job */
};

/**
 * hmm_range_dma_sync() - bounced pages of [start, end): copy them
 * @direction: HMM_DMA_FOR_*
 *
 * Exactly those bytes go, so a CPU may write others of the page while a job runs; of bytes that
 * both write one writer wins. What has changed before the call is not written to (FOR_CPU begins
 * with a fence).
 * Context: any thread, not a callback. No signal is raised, whatever became of the memory.
 * Return: pages copied; 0 nothing is bounced there; -EFAULT the memory of some is gone or
 * read-only (the others were copied).
 */
UHMM_API int64_t hmm_range_dma_sync(struct hmm_dma *dma, uintptr_t start, uintptr_t end,
				    enum hmm_dma_direction direction);

/**
 * hmm_dma_fence() - G1, G3 and D3: before a job
 * @dma: where; @start: first address; @length: bytes
 *
 * hmm_fence(), and then it looks whether what is pinned of the range is what a CPU finds there.
 * What is not is told to the notifiers as HMM_EVENT_CLEAR, so that their invalidate unmaps it,
 * before this returns. Costs some 20 ns for each page that is pinned in the range. Which page
 * it is says /proc/self/pagemap, to root (CAP_SYS_ADMIN) only; without, everything that is
 * pinned in the range is given up at each fence, and mapped again for the next job: right, and
 * dear (one line in the log).
 *
 * Context, return: as hmm_fence().
 */
UHMM_API int hmm_dma_fence(struct hmm_dma *dma, uintptr_t start, size_t length);

/**
 * typedef hmm_dma_program_fn - put I/O addresses into the device's page table
 * As hmm_program_fn; @daddrs belongs to range->pfns.
 */
typedef int (*hmm_dma_program_fn)(const struct hmm_range *range, const uint64_t *daddrs,
				  void *arg);

/**
 * hmm_range_dma_program() - the loop above, once and for all
 * @timeout_ms, @update_lock, @program, @arg: as for hmm_range_program(). On failure of @program
 * what is mapped stays mapped: its invalidate unmaps it. Context, return: as
 * hmm_range_dma_map() and hmm_range_program(): 0 or more: what @program returned.
 */
UHMM_API int hmm_range_dma_program(struct hmm_range *range, struct hmm_dma *dma,
				   uint64_t *daddrs, unsigned flags, unsigned timeout_ms,
				   pthread_mutex_t *update_lock, hmm_dma_program_fn program,
				   void *arg);

/** struct hmm_dma_stats - counted since create, in pages but for @fences */
struct hmm_dma_stats {
	size_t size;
	uint64_t mapped, mapped_max; /* now, and at most */
	uint64_t maps, unmaps;	     /* pages that were */
	uint64_t mappings;	     /* calls of the back-end's map that succeeded */
	uint64_t bounced;	     /* pages that were mapped by way of a copy */
	uint64_t window;	     /* pages that were mapped at another address than their own */
	uint64_t fences, stale;	     /* hmm_dma_fence(); pages that it found to be others */
	uint64_t settled;	     /* maps that had to wait for the end of a DONTNEED */
};
/** hmm_dma_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void hmm_dma_get_stats(struct hmm_dma *dma, struct hmm_dma_stats *stats);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_DMA_H */
