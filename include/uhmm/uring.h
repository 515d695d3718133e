/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: uring - file I/O by a device that pins memory (drivers/uring)
 *
 * io_uring reads files into registered ("fixed") buffers and writes files from them. The
 * kernel pins their pages for as long as they are registered: to the memory it is a device
 * that does DMA and knows no page faults. Here any address of the program will do. What an
 * access needs is registered on demand and kept; what the program unmaps, discards or
 * re-protects is taken out before it can be used again.
 *
 * It stands for any device that pins, and every Linux has one.
 */
#ifndef UHMM_URING_H
#define UHMM_URING_H

#include <uhmm/dma.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uring;

/* Flags of struct uring_options. */
#define URING_NO_BOUNCE (1u << 0) /* memory that cannot be pinned is -EOPNOTSUPP */
/* It says that it pins nothing: for the litmus test, which must see what D3 is for. */
#define URING_NAIVE (1u << 1)

#define URING_BUFFERS_MAX 16384u /* the kernel's limit */

/**
 * struct uring_options - how the device reaches memory
 * @size: sizeof(struct uring_options)
 * @fixed: by registered buffers, which are pinned. Else by the program's own addresses, as
 *	read(2) and write(2) do: nothing is pinned (hmm_dma_host())
 * @chunk: @fixed: bytes; a power of two; pages that lie within one aligned block of so many
 *	may be registered as one buffer, and go together; what is present around an access is
 *	taken along; 0: 4096; at most 2 MiB
 * @buffers: @fixed: at most so many are registered; 0: URING_BUFFERS_MAX. When there is no
 *	more, or no more memory may be locked, all are given up
 * @flags: URING_*
 *
 * A buffer counts against RLIMIT_MEMLOCK (not for CAP_IPC_LOCK).
 */
struct uring_options {
	size_t size;
	bool fixed;
	size_t chunk;
	unsigned buffers;
	unsigned flags;
};

/**
 * uring_open() - a device on this process
 * @options: what it is; NULL: all zero
 * @dev: where the handle goes
 * Context: any thread, not a callback.
 * Return: 0; -EINVAL an option; -E2BIG; -ENOSYS, -EPERM io_uring is blocked or absent
 * (kernel.io_uring_disabled, seccomp); -EMFILE; -ENOMEM; as hmm_open(), hmm_dma_create(),
 * hmm_notifier_insert().
 */
UHMM_API int uring_open(const struct uring_options *options, struct uring **dev);

/** uring_close() - nothing is pinned any more; NULL is allowed. Context: not a callback. */
UHMM_API void uring_close(struct uring *dev);

/**
 * uring_read() - the device writes memory: bytes of a file go to [dst, dst + length)
 * @dev: the device
 * @fd: a regular file or a block device: an access must end by itself, whatever else the
 *	process does
 * @offset: in the file
 * @dst: the program's pointer, unaligned if it likes
 * @length: bytes
 *
 * Each piece of up to 2 MiB is fenced (G3, D3), then transferred under the lock that
 * invalidate takes (G4). A piece may be transferred more than once when its memory changes
 * meanwhile, each time from the same bytes of the file. Bytes that are not in
 * [dst, dst + length) are not touched.
 *
 * Memory that cannot be mirrored (another userfaultfd has it), that changes without pause, or
 * of which no more may be locked after all buffers were given up, is read into by pread(2):
 * as right, and no DMA.
 *
 * Context: any thread, not a callback; sleeps, and holds up every invalidate for as long as
 * the transfer of a piece takes. Locks: none that a callback takes.
 * Return: bytes, as pread(2): less than @length at the end of the file, or if what follows
 * cannot be had; the next call, which begins there, says why. If nothing was transferred:
 * 0 at the end of the file, or -EFAULT no mapping, PROT_NONE, past the end of a mapped file,
 * guard page; -EPERM read-only (it is the page of @dst; hmm_strerror() names address and
 * reason); -EOPNOTSUPP URING_NO_BOUNCE, and it cannot be pinned; -EINVAL no such file, or the
 * range wraps; -ENODEV the ring or the mirror is gone, or a forked child; -EDEADLK; what the
 * file says (-EBADF, -EIO, ...).
 */
UHMM_API int64_t uring_read(struct uring *dev, int fd, uint64_t offset, void *dst,
			    size_t length);

/**
 * uring_write() - the device reads memory: [src, src + length) goes to a file
 *
 * As uring_read(), but for -EPERM. Pieces are written in order; one that is written again has
 * the same place in the file.
 */
UHMM_API int64_t uring_write(struct uring *dev, int fd, uint64_t offset, const void *src,
			     size_t length);

/**
 * uring_register() - register what is present of a range, ahead of its use
 * @dev: the device; @start: page aligned; @length: a multiple of 4096
 *
 * Nothing is faulted in, and it lasts no longer than the memory. Context: as uring_read().
 * Return: pages that are registered now, those in the same chunks included; as
 * hmm_range_dma_map().
 */
UHMM_API int64_t uring_register(struct uring *dev, const void *start, size_t length);

/** uring_lookup() - the page table's entry as it is now (HMM_PFN_*), 0 if none; no fence */
UHMM_API uint64_t uring_lookup(const struct uring *dev, const void *addr);

/** uring_dma() - its I/O address space, as long as the device is open */
UHMM_API struct hmm_dma *uring_dma(struct uring *dev);

/**
 * uring_dma_raw() - for tests: the device uses an I/O address and asks no page table
 * @daddr: of hmm_range_dma_map(); @to_memory: the file is read, else written
 * Return: bytes; -EFAULT nothing is mapped there, or for reading only; as uring_read().
 */
UHMM_API int64_t uring_dma_raw(struct uring *dev, int fd, uint64_t offset, uint64_t daddr,
			       size_t length, bool to_memory);

/** struct uring_stats - counted since uring_open(), but for @registered */
struct uring_stats {
	size_t size;
	uint64_t registered;	/* pages, now */
	uint64_t buffers;	/* that were registered */
	uint64_t bounced;	/* pages of them that were copies */
	uint64_t requests;	/* to the ring, each to one buffer */
	uint64_t misses;	/* times that an access had to fault and map */
	uint64_t invalidations; /* callbacks that it did not ignore */
	uint64_t stale;		/* pages that a fence found to be other than what was pinned */
	uint64_t again;		/* transfers done again: the memory went meanwhile */
	uint64_t evictions;	/* times that all buffers were given up for room */
	uint64_t refused;	/* requests that the page table had a translation for, and the
				 * kernel no buffer: what an IOMMU reports as a fault */
	uint64_t late;		/* buffers whose pin outlived the call that took them back */
	uint64_t unregistered;	/* pieces that went by pread(2) and pwrite(2) */
};

/** uring_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void uring_get_stats(struct uring *dev, struct uring_stats *stats);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_URING_H */
