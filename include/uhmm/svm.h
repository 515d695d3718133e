/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: svm - shared virtual memory with attributes, after amdkfd's and xe's (drivers/svm/README.md)
 *
 * One or several software GPUs (uhmm/gpu.h) run kernels on the program's own pointers. Which
 * GPU may use a page, and where it shall lie, is said by attributes of ranges: set and asked for
 * over any range, with amdkfd's algebra. A GPU's fault brings a chunk (2 MiB, 64 KiB or 4 KiB)
 * to the place that the attributes name, and maps it; what cannot move is used where it is.
 *
 *	svm_open(&options, &svm);			// two GPUs, say
 *	svm_advise(svm, data, size, SVM_ADVISE_PREFERRED, 1);
 *	svm_prefetch(svm, data, size, 1, 0);
 *	gpu_queue_create(svm_gpu(svm, 0), &queue);	// GPU 0 reads GPU 1's memory in place
 *	gpu_submit(queue, kernel, &job, n, &fence);
 *
 * Words: a page without attributes has the defaults; those a program gets back when it unmaps
 * the page, or moves it with mremap (the attributes are of addresses, not of bytes). A location
 * is the index of a GPU, SVM_SYSTEM, or SVM_UNDEFINED.
 *
 * Retry faults (xnack, the default): a GPU that misses faults, and goes on when it is served.
 * Without: what a GPU may use (SVM_ATTR_ACCESS) is mapped when that is said. Each later change of
 * a range that is mapped so, by the address space or because its pages move (a CPU's touch too),
 * is an eviction: the first stops all queues; restore_us later what was evicted is mapped again,
 * and the queues go on. An unmap, both ends of an mremap, a fork and new attributes are none.
 * A miss anywhere else ends the job.
 *
 * Errors: negative errno, outputs untouched on failure. Context: any thread that is no kernel
 * and no callback. A forked child has no SVM: -ENODEV, and svm_close() forgets.
 */
#ifndef UHMM_SVM_H
#define UHMM_SVM_H

#include <uhmm/gpu.h>

#ifdef __cplusplus
extern "C" {
#endif

struct svm;

#define SVM_GPUS_MAX 8u

/* A location that is no GPU. */
#define SVM_SYSTEM UINT32_C(0xfffffffe)
#define SVM_UNDEFINED UINT32_C(0xffffffff)

/**
 * enum svm_attr_type - what a struct svm_attr is about; kfd_ioctl_svm_attr_type
 * The value of PREFERRED and PREFETCH is a location, of the three kinds of access a GPU, of
 * GRANULARITY log2 of pages, of ATOMIC enum svm_atomic.
 */
enum svm_attr_type {
	SVM_ATTR_PREFERRED = 0, /* where pages go when a GPU faults */
	SVM_ATTR_PREFETCH = 1,	/* set: they go there now. Get: where they were sent last */
	SVM_ATTR_ACCESS = 2,	/* the GPU may use it, and pages may move to it */
	SVM_ATTR_IN_PLACE = 3,	/* it may use it where it lies; its faults move nothing */
	SVM_ATTR_NO_ACCESS = 4, /* its accesses end the job with -EACCES */
	SVM_ATTR_SET_FLAGS = 5, /* SVM_FLAG_*. Get: those that every page has */
	SVM_ATTR_CLR_FLAGS = 6, /* Get: those that no page has */
	SVM_ATTR_GRANULARITY = 7, /* a fault moves what is aligned to that; after a CPU's the rest
				   * of it comes home, in one 2 MiB block. Get: the least */
	SVM_ATTR_ATOMIC = 8,	/* Get: SVM_ATOMIC_UNDEFINED where pages differ */
};

/**
 * enum svm_atomic - what atomics of a GPU need; drm_xe_vm_madvise's
 * UNDEFINED and GLOBAL: nothing: they lose no count to another GPU's or a CPU's, wherever the
 * page lies. DEVICE: the page lies in a GPU's memory: an atomic brings it there, and ends its
 * job with -EBUSY if it cannot be. CPU: atomics are the CPU's alone: -EACCES.
 */
enum svm_atomic {
	SVM_ATOMIC_UNDEFINED = 0,
	SVM_ATOMIC_DEVICE = 1,
	SVM_ATOMIC_GLOBAL = 2,
	SVM_ATOMIC_CPU = 3,
};

#define SVM_FLAG_GPU_RO (UINT32_C(1) << 0)	  /* GPUs only read: a write is -EPERM */
#define SVM_FLAG_READ_MOSTLY (UINT32_C(1) << 1)	  /* a GPU that reads moves nothing, and maps
						   * it read-only; one that writes faults */
#define SVM_FLAG_ALWAYS_MAPPED (UINT32_C(1) << 2) /* as without xnack, for this range */
#define SVM_FLAG_WHOLE (UINT32_C(1) << 3)	  /* a fault moves a chunk as a whole, or nothing */
#define SVM_FLAG_MUST_MOVE (UINT32_C(1) << 4)	  /* a page that a fault should move to a GPU,
						   * and that stays, ends the job: -EBUSY */
#define SVM_FLAGS_ALL                                                                      \
	(SVM_FLAG_GPU_RO | SVM_FLAG_READ_MOSTLY | SVM_FLAG_ALWAYS_MAPPED | SVM_FLAG_WHOLE |  \
	 SVM_FLAG_MUST_MOVE)

/**
 * SVM_GRANULARITY - the default: 2 MiB. Of more a fault moves, after its own chunk of 2 MiB, the
 * others that have the same attributes, as far as the GPU's memory holds them at once
 */
#define SVM_GRANULARITY 9u
#define SVM_GRANULARITY_MAX 63u

/** struct svm_attr - one attribute */
struct svm_attr {
	uint32_t type; /* enum svm_attr_type */
	uint32_t value;
};

/**
 * struct svm_options - zero means default
 * @size: sizeof(struct svm_options)
 * @gpus: how many (default 1, at most SVM_GPUS_MAX)
 * @sms: threads of each (default 2)
 * @vram_bytes: memory of each, a multiple of 4096; 0: none, everything stays where it is
 * @vram_host: that memory is the library's host memory: pages move, nobody copies
 * @no_xnack: no retry faults. The default access is then none
 * @no_peers: no GPU reaches another's memory: pages go by way of the system's
 * @timeslice_us: a page stays with a GPU at least this long (default 5000, at most 1 s)
 * @timeslice_most_us: a 2 MiB block that GPUs take from each other stays twice as long with each
 *	as with the one before, up to this (default 8 times @timeslice_us, at most 1 s; not
 *	less than @timeslice_us). CPUs wait for @timeslice_us
 * @restore_us: how long queues rest before evicted ranges are mapped again (default 1000)
 * @verify: as gpu_options.verify
 */
struct svm_options {
	size_t size;
	unsigned gpus, sms;
	uint64_t vram_bytes;
	bool vram_host, no_xnack, no_peers, verify;
	unsigned timeslice_us, restore_us;
	unsigned timeslice_most_us;
};

/**
 * svm_open() - Return: 0; -EINVAL bad option; -E2BIG an unknown tail that is not zero;
 * -ENOMEM; as gpu_open()
 */
UHMM_API int svm_open(const struct svm_options *options, struct svm **svm);
/** svm_close() - waits for jobs; pages come home; NULL is allowed */
UHMM_API void svm_close(struct svm *svm);

/** svm_gpu() - for queues and jobs; svm_close() closes it. NULL: no such GPU */
UHMM_API struct gpu *svm_gpu(struct svm *svm, unsigned gpu);

/**
 * svm_set_attr() - change attributes of a range
 * @start: page aligned; @length: bytes, a multiple of 4096
 * @attrs: applied in this order, all or none; @n: how many
 *
 * When it returns no GPU uses the range by the old attributes. SVM_ATTR_PREFETCH then moves it
 * as svm_prefetch() without flags does, and what that says is no error here. What must always
 * be mapped is mapped.
 * Return: 0; -EINVAL unaligned, empty, an unknown type, flag, location or GPU; -EOVERFLOW it
 * wraps; -EFAULT a page of it is not mapped; -ENOMEM; -ENODEV.
 * Kernel counterpart: AMDKFD_IOC_SVM with SET_ATTR; DRM_XE_MADVISE.
 */
UHMM_API int svm_set_attr(struct svm *svm, const void *start, size_t length,
			  const struct svm_attr *attrs, unsigned n);

/**
 * svm_get_attr() - what all pages of a range have in common
 * @attrs: in: types, and of the three kinds of access which GPU; out: a location is
 *	SVM_UNDEFINED where pages differ; any kind of access becomes the one that all have, and
 *	SVM_ATTR_NO_ACCESS where they differ
 * Return: as svm_set_attr(), but a range with nothing mapped has the defaults.
 */
UHMM_API int svm_get_attr(struct svm *svm, const void *start, size_t length,
			  struct svm_attr *attrs, unsigned n);

/** enum svm_advice - the same in the words of madvise() and of cudaMemAdvise() */
enum svm_advice {
	SVM_ADVISE_NORMAL = 0,	       /* the defaults again */
	SVM_ADVISE_PREFERRED = 1,      /* location: where it shall lie */
	SVM_ADVISE_NO_PREFERRED = 2,
	SVM_ADVISE_ACCESSED = 3,       /* GPU: may use it, pages come */
	SVM_ADVISE_IN_PLACE = 4,       /* GPU: may use it where it is */
	SVM_ADVISE_NO_ACCESS = 5,      /* GPU */
	SVM_ADVISE_READ_MOSTLY = 6,    /* and 7: not any more */
	SVM_ADVISE_NO_READ_MOSTLY = 7,
	SVM_ADVISE_READ_ONLY = 8,
	SVM_ADVISE_READ_WRITE = 9,
	SVM_ADVISE_MAPPED = 10,	       /* no fault there, ever */
	SVM_ADVISE_FAULTED = 11,
	SVM_ADVISE_ATOMIC = 12,	       /* enum svm_atomic */
	SVM_ADVISE_WHOLE = 13,	       /* and 14: what of a chunk can move does */
	SVM_ADVISE_PARTS = 14,
	SVM_ADVISE_MUST_MOVE = 15,     /* and 16: what cannot move is used where it is */
	SVM_ADVISE_MAY_STAY = 16,
};

/**
 * svm_advise() - one attribute of the pages that a range touches
 * @start: any address; @length: bytes; rounded outwards to pages
 * @where: location, GPU or enum svm_atomic, where the advice has one
 * Return: as svm_set_attr().
 */
UHMM_API int svm_advise(struct svm *svm, const void *start, size_t length,
			enum svm_advice advice, uint32_t where);

/** SVM_PREFETCH_ALL - a chunk moves as a whole, or not at all: then -EBUSY */
#define SVM_PREFETCH_ALL (1u << 0)

/**
 * svm_prefetch() - move a range ahead of use, and map it there
 * @location: a GPU, or SVM_SYSTEM
 * What cannot move stays, and is mapped where it is. The prefetch location of the pages is
 * set. With SVM_PREFETCH_ALL the first chunk of which a page cannot move ends it: that
 * chunk is as it was, those before it have moved.
 * Return: pages that are there now; -EINVAL; -EOVERFLOW; -EFAULT; -EBUSY; -ENODEV no such
 * GPU, no memory of its own, or it died.
 */
UHMM_API int64_t svm_prefetch(struct svm *svm, const void *start, size_t length,
			      uint32_t location, unsigned flags);

/** struct svm_stats - since svm_open() */
struct svm_stats {
	size_t size;
	uint64_t ranges;	/* with attributes, now */
	uint64_t splits, merges; /* of ranges */
	uint64_t collected;	/* ranges and parts of them that went with their mapping */
	uint64_t faults;	/* that reached us */
	uint64_t duplicates;	/* somebody else's had been served */
	uint64_t drained;	/* older than an unmap: tried again, not served */
	uint64_t denied;	/* -EACCES, -EPERM */
	uint64_t chunks[3];	/* moved to a GPU by faults: of 2 MiB, 64 KiB, 4 KiB */
	uint64_t migrated;	/* pages, by faults */
	uint64_t prefetched;	/* pages */
	uint64_t fallbacks;	/* faults whose page should have moved and stayed where it was */
	uint64_t in_place;	/* faults that were to be served where the page was */
	uint64_t evictions;	/* of each range that must be mapped, each change of it */
	uint64_t quiesced;	/* times that all queues stopped for that */
	uint64_t restored;	/* and went on */
	uint64_t followed;	/* pages that went home because a CPU had touched their granule */
	uint64_t timeslice_us;	/* the longest that a GPU had a block for, so far */
};
/** svm_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void svm_get_stats(struct svm *svm, struct svm_stats *stats);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_SVM_H */
