/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: device memory
 *
 * A devmem is the memory of a device, in frames of 4 KiB. Private anonymous pages of the
 * program move there and come back; the program notices nothing but the time it takes.
 * G5: a page has one owner at every step, and no failure loses a byte.
 * docs/migration.md has the protocol and why it is right.
 *
 * What serves a CPU's fault must not itself wait for one. So everything that a devmem's
 * operations touch - the driver's structs, queues, the frames, the stack of a copy engine,
 * and what a thread touches while it holds a lock that they take - lies in memory that
 * never moves: hmm_alloc(), or static data of the driver's shared library.
 */
#ifndef UHMM_DEVMEM_H
#define UHMM_DEVMEM_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hmm_devmem;
struct hmm_transfer;

/**
 * hmm_alloc() - zeroed memory that is never mirrored and never moves
 * @size: bytes; rounded up to pages, with an inaccessible page on either side
 * Context: any thread, any callback. Return: NULL: no memory (or 4096 such mappings).
 */
UHMM_API void *hmm_alloc(size_t size);
/** hmm_free() - give it back; @size as given to hmm_alloc(); NULL is allowed */
UHMM_API void hmm_free(void *memory, size_t size);

/** enum hmm_devmem_type - who can reach a page that is there (hmm-reference B16) */
enum hmm_devmem_type {
	HMM_DEVMEM_PRIVATE = 1,	 /* the device only: a CPU's touch brings it back */
	HMM_DEVMEM_COHERENT = 2, /* both: the page stays mapped, the device owns it */
};

/**
 * struct hmm_devmem_copy - one page of a transfer
 * @addr: address of the page in the program, as it is now
 * @frame: in the devmem
 * @host: the page's bytes: source of to_device, destination of to_host. NULL: to_device:
 *	fill the frame with zeros; to_host: only stop using the frame
 * @err: out: set negative by the driver if this page could not be copied; 0 before
 */
struct hmm_devmem_copy {
	uintptr_t addr;
	uint64_t frame;
	void *host;
	int err;
};

/**
 * struct hmm_devmem_ops - what a devmem asks of its driver
 * @size: sizeof(struct hmm_devmem_ops)
 * @to_device: copy host pages to frames, which nobody uses yet. NULL together with @to_host's
 *	copying: the frames are host memory (hmm_devmem_options.host_frames).
 * @to_host: first make the device stop using the frames, by whatever address it knows them
 *	(mremap may have moved the page since), and keep it from using them again without
 *	asking hmm_range_*() anew; then copy frames to host pages. host NULL: only stop. The
 *	frames keep their bytes until frame_free: a forked child's copy leaves the page there.
 * @frame_alloc: optional: may decline a frame by a negative errno: that page stays
 * @frame_free: optional: the frame is nobody's now
 *
 * Both transfers only start the work and return; hmm_devmem_done() says that it is done,
 * from any thread, or before they return. Context: the library's reader thread, on which every
 * fault and every munmap of the process waits. They may not block, allocate with libc, call the
 * library (but hmm_devmem_done()), or take a lock whose holder does such a
 * thing or touches memory that can move. What they start must end without any callback
 * (invalidate) having to end first. @copies and the host pages stay valid until done, also
 * when the library has given the transfer up meanwhile (timeout, hmm_devmem_lost()); the frames
 * may be freed then, and given out again.
 * frame_alloc runs in the thread that migrates, frame_free there or as the transfers. A host frame
 * is not touched in frame_free: its page has left.
 */
struct hmm_devmem_ops {
	size_t size;
	void (*to_device)(void *priv, struct hmm_devmem_copy *copies, unsigned n,
			  struct hmm_transfer *transfer);
	void (*to_host)(void *priv, struct hmm_devmem_copy *copies, unsigned n,
			struct hmm_transfer *transfer);
	int (*frame_alloc)(void *priv, uint64_t frame);
	void (*frame_free)(void *priv, uint64_t frame);
};

/**
 * struct hmm_devmem_options - a devmem to be made
 * @size: sizeof(struct hmm_devmem_options)
 * @type: HMM_DEVMEM_*
 * @frames: how many; at most 2^30
 * @limit: at most so many in use at once; 0: all
 * @host_frames: the frames are host memory that the library has: the page itself moves
 *	there, nothing is copied, and the device reads it at hmm_devmem_host()
 * @timeslice_us: a page that came here less than this ago does not go home for a CPU's fault
 *	yet; the CPU waits (hmm-reference B28). At most 1 s
 * @timeout_ms: a transfer that takes longer is lost (0: 10 s): the devmem counts as dead
 * @owner: compared with hmm_range.owner, and told in HMM_EVENT_MIGRATE; not NULL
 */
struct hmm_devmem_options {
	size_t size;
	enum hmm_devmem_type type;
	uint64_t frames, limit;
	bool host_frames;
	unsigned timeslice_us, timeout_ms;
	void *owner;
};

/**
 * hmm_devmem_create() - give the library a device's memory to move pages to
 * @hmm: own mirror; the devmem takes a reference
 * @options: what it is
 * @ops: must outlive it
 * @priv: handed to @ops
 * @devmem: where the handle goes
 *
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EINVAL an option; -EPERM faults of the kernel are not delivered here
 * (userfaultfd without CAP_SYS_PTRACE: read(2) into a page that is away would fail), the
 * sentence names the cure; -EOPNOTSUPP no UFFDIO_MOVE (Linux 6.8); -ENOSPC 64 devmems;
 * -ENOMEM; -ENODEV.
 * Kernel counterpart: memremap_pages(), hmm_devmem_add() (2019).
 */
UHMM_API int hmm_devmem_create(struct hmm *hmm, const struct hmm_devmem_options *options,
			       const struct hmm_devmem_ops *ops, void *priv,
			       struct hmm_devmem **devmem);

/**
 * hmm_devmem_destroy() - everything comes home, then the devmem is gone
 * @devmem: a handle, or NULL
 * The process lives on. Pages that the driver cannot give back raise SIGBUS when touched.
 * Context: any thread, not a callback; sleeps. No migration to it may be running.
 */
UHMM_API void hmm_devmem_destroy(struct hmm_devmem *devmem);

/** hmm_devmem_id() - what hmm_pfn_devmem() says of its entries */
UHMM_API unsigned hmm_devmem_id(const struct hmm_devmem *devmem);

/**
 * hmm_devmem_host() - host_frames: where a frame that is in use lies now
 * Context: any thread; true as long as the frame's translation is (to_host ends it).
 */
UHMM_API void *hmm_devmem_host(const struct hmm_devmem *devmem, uint64_t frame);

/**
 * hmm_devmem_done() - a transfer has ended
 * @transfer: as given to to_device or to_host; dead on return
 * @err: 0, or why all of it failed (single pages: copies[i].err)
 * Pages that did not reach the device stay with the CPU. Pages that cannot be read back are
 * lost: the CPU gets SIGBUS on exactly those.
 * Context: any thread.
 */
UHMM_API void hmm_devmem_done(struct hmm_transfer *transfer, int err);

/**
 * hmm_devmem_lost() - the device died for good, and its memory with it
 * Every page that is there raises SIGBUS when the CPU touches it; nothing reads zeros. Host frames
 * survive: their pages come home. A transfer that is under way counts as failed. Context: any thread, any callback.
 */
UHMM_API void hmm_devmem_lost(struct hmm_devmem *devmem);

/**
 * hmm_devmem_frame_get() / hmm_devmem_frame_put() - keep a frame from being reused
 * Its page may leave; the frame goes to nobody else before the last put. For a device
 * that reads it on behind the library's back (a copy under way). Context: any thread.
 */
UHMM_API void hmm_devmem_frame_get(struct hmm_devmem *devmem, uint64_t frame);
UHMM_API void hmm_devmem_frame_put(struct hmm_devmem *devmem, uint64_t frame);

/**
 * hmm_devmem_evict() - bring what lies in frames home; no mapping needs to be known
 * @first: frame; @count: frames
 * Return: pages that came home; -ENODEV; -EDEADLK; -EBUSY a fork or a transfer holds them.
 * Kernel counterpart: migrate_device_range(), drm_pagemap_evict_to_ram (B14, B26).
 */
UHMM_API int64_t hmm_devmem_evict(struct hmm_devmem *devmem, uint64_t first, uint64_t count);

/** struct hmm_devmem_stats - counted since create, in pages where nothing else is said */
struct hmm_devmem_stats {
	size_t size;
	uint64_t frames, in_use, in_use_max;
	uint64_t to_device;	  /* moved here */
	uint64_t to_host;	  /* moved home by a call */
	uint64_t cpu_faults;	  /* faults of the CPU that found their page here */
	uint64_t cpu_fault_pages; /* brought home by them, fault-around included */
	uint64_t dropped;	  /* the program gave the page up while it was here */
	uint64_t declined;	  /* no frame for it */
	uint64_t failed;	  /* transfers or moves that failed; the page stayed where it was */
	uint64_t lost;		  /* could not be read back: SIGBUS */
	uint64_t timesliced;	  /* faults that had to wait for the time slice */
};
/** hmm_devmem_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void hmm_devmem_get_stats(const struct hmm_devmem *devmem,
				   struct hmm_devmem_stats *stats);

/* -------------------------------------------------------------- migrate */

/* An entry of hmm_migrate.src and dst (hmm-reference 2.3). */
#define HMM_MIGRATE_VALID (UINT64_C(1) << 0)	/* src: there is a page; dst: there is a frame */
#define HMM_MIGRATE_MIGRATE (UINT64_C(1) << 1)	/* src: it can move, and is isolated */
#define HMM_MIGRATE_WRITE (UINT64_C(1) << 3)	/* src: its mapping is writable */
#define HMM_MIGRATE_SHIFT 6

/** hmm_migrate_frame() - a dst entry for a frame */
static inline uint64_t hmm_migrate_frame(uint64_t frame)
{
	return frame << HMM_MIGRATE_SHIFT | HMM_MIGRATE_VALID;
}

/** hmm_migrate_page() - src VALID and MIGRATE: where the isolated bytes lie */
static inline void *hmm_migrate_page(uint64_t src)
{
	return (void *)(uintptr_t)((src >> HMM_MIGRATE_SHIFT) << 12);
}

#define HMM_MIGRATE_MAX 512 /* pages of one hmm_migrate */

/**
 * struct hmm_migrate - a migration in three steps, as the kernel's migrate_vma
 * @size: sizeof(struct hmm_migrate)
 * @devmem: where to
 * @start: page aligned; @end: past the last; within one aligned block of 2 MiB
 * @src: out of setup: one entry a page; out of pages: MIGRATE is gone where it stays
 * @dst: in of pages: hmm_migrate_frame() of a frame from hmm_devmem_frames(), 0: stays
 * @npages: out; @cpages: out: pages that can move
 * @transfer: the library's
 */
struct hmm_migrate {
	size_t size;
	struct hmm_devmem *devmem;
	uintptr_t start, end;
	uint64_t *src, *dst;
	unsigned npages, cpages;
	struct hmm_transfer *transfer;
};

/**
 * hmm_migrate_setup() - isolate pages
 * Devices are told (HMM_EVENT_MIGRATE), then the pages leave the address space: a CPU that
 * touches one waits until finalize. Holes and zero pages of anonymous memory are MIGRATE
 * without VALID: fill the frame with zeros. Not an error but left in place (src 0): file,
 * shared and hugetlb pages; pages that are locked, pinned, guarded, read-only or the library's.
 * Each setup that returned 0 needs its finalize, soon, whatever happens.
 * Context: any thread, not a callback.
 * Return: 0, also if cpages is 0; -EINVAL empty, unaligned, more than one block, not one
 * mapping, or PROT_NONE; -EBUSY it keeps changing, or a fork runs; -ENOMEM;
 * -ENODEV; -EDEADLK.
 * Kernel counterpart: migrate_vma_setup() (B10).
 */
UHMM_API int hmm_migrate_setup(struct hmm_migrate *migrate);
/**
 * hmm_devmem_frames() - take free frames, for dst
 * @frames: out; @n: how many are wanted
 * Return: how many there are: 0 to @n. Consecutive where that can be had.
 */
UHMM_API unsigned hmm_devmem_frames(struct hmm_devmem *devmem, uint64_t *frames, unsigned n);
/**
 * hmm_devmem_frames_free() - give back what hmm_devmem_frames() gave and no dst took
 * @frames: that no hmm_migrate_pages() has had; @n: how many
 * Those in dst are the library's: what did not move is given back by finalize.
 * Context: any thread.
 */
UHMM_API void hmm_devmem_frames_free(struct hmm_devmem *devmem, const uint64_t *frames,
				     unsigned n);
/**
 * hmm_migrate_pages() - the bytes are in the frames of dst: the device owns those pages
 * Clears MIGRATE in src where the page stays: dst 0, or the program dropped it meanwhile
 * (then the frame is freed). The driver maps only what is MIGRATE still.
 * Return: how many moved; -EINVAL a dst that is no frame in use, or is named twice.
 * Kernel counterpart: migrate_vma_pages() (B12).
 */
UHMM_API int hmm_migrate_pages(struct hmm_migrate *migrate);
/** hmm_migrate_finalize() - who waits goes on; what has not moved is where it was (B13) */
UHMM_API void hmm_migrate_finalize(struct hmm_migrate *migrate);

/**
 * hmm_migrate_to_device() - move what can be moved of a range
 * @devmem: where to
 * @start: page aligned; @length: bytes, a multiple of 4096
 *
 * In blocks of 2 MiB; what cannot move stays (as in setup), is no error, and is still
 * valid for the device as system memory. So do pages beside a thread's control block, and
 * whole mappings in which libc, the library or a driver has data. Pages of another devmem come by way of the host.
 * Context: any thread, not a callback; sleeps.
 * Return: pages of the range that are in @devmem now; -EINVAL unaligned, empty, or nothing
 * mapped there; -EBUSY all of it is the library's or libc's own, or keeps changing; -ENOSPC
 * no frame is free; -ENODEV the device is lost, or the mirror; -EIO the driver failed;
 * -EDEADLK.
 */
UHMM_API int64_t hmm_migrate_to_device(struct hmm_devmem *devmem, uintptr_t start,
				       size_t length);
/**
 * hmm_migrate_to_host() - bring a range home, whatever devmem it is in
 * Return: pages that came; 0 is fine; -EINVAL; -EIO some were lost; -ENODEV; -EDEADLK.
 */
UHMM_API int64_t hmm_migrate_to_host(struct hmm *hmm, uintptr_t start, size_t length);

/* ------------------------------------------------------------ exclusive */

/**
 * hmm_make_exclusive() - one page for the device alone, for its atomics
 * @devmem: with host_frames: the page stays host memory, out of the CPU's reach
 * @addr: an address in the page
 * @frame: out: read and write it at hmm_devmem_host()
 *
 * The page comes locked: a CPU that touches it waits for hmm_exclusive_release(). After
 * that the device keeps it until a CPU touches it (to_host), as in the kernel. Who asks for a page that
 * another thread of the driver has made exclusive waits for that release, up to 10 s.
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EOPNOTSUPP not private anonymous memory; -EPERM read-only; -EFAULT not
 * mapped; -EBUSY it cannot be moved (pinned, locked, the library's), or is not released; -ENOSPC;
 * -ENODEV.
 * Kernel counterpart: make_device_exclusive() (B17).
 */
UHMM_API int hmm_make_exclusive(struct hmm_devmem *devmem, uintptr_t addr, uint64_t *frame);
/** hmm_exclusive_release() - a CPU may have it back from now on. Context: any thread. */
UHMM_API void hmm_exclusive_release(struct hmm_devmem *devmem, uint64_t frame);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_DEVMEM_H */
