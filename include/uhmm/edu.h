/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: edu - QEMU's edu PCI device through VFIO: real DMA behind a real IOMMU (drivers/edu)
 *
 * The device reads and writes memory of the process at the process's own addresses. A page
 * is mapped in the IOMMU when the device first needs it and unmapped when it changes; from
 * then on the IOMMU blocks the device. Memory that cannot be pinned (a file on a DAX
 * filesystem) goes by way of a bounce page of the library's, unless EDU_NO_BOUNCE.
 *
 * Needed: a PCI device 1234:11e8 behind an IOMMU whose addresses are as wide as the
 * process's (QEMU: `-device intel-iommu,aw-bits=48 -device edu,dma_mask=0xffffffffffffffff`,
 * Linux: intel_iommu=on), bound to vfio-pci. edu_open() says what of this is missing.
 *
 * The device has a buffer of 4 KiB, and each DMA takes 100 ms whatever its size. So one job
 * runs at a time, and others wait.
 *
 * Context of every call here: any thread, not a callback; sleeps. Locks: none that a
 * callback takes. In a forked child all answer -ENODEV and touch nothing; edu_close()
 * forgets.
 */
#ifndef UHMM_EDU_H
#define UHMM_EDU_H

#include <uhmm/dma.h>

#ifdef __cplusplus
extern "C" {
#endif

struct edu;

/** enum edu_way - who maps memory for the device */
enum edu_way {
	EDU_ANY = 0,	 /* iommufd if it is there, else type1 */
	EDU_TYPE1 = 1,	 /* a VFIO group in a container with a type1 IOMMU */
	EDU_IOMMUFD = 2, /* /dev/iommu and the device's own node (Linux 6.6) */
};

#define EDU_NO_BOUNCE (1u << 0) /* what cannot be pinned is -EOPNOTSUPP */
/* For tests: as if nothing was pinned. G1 and G3 hold, D3 does not (uhmm/dma.h). */
#define EDU_NAIVE (1u << 1)

/**
 * struct edu_options - which device, and how; zero means default
 * @size: sizeof(struct edu_options)
 * @pci: its address, "0000:00:04.0"; NULL: the first that is bound to vfio-pci
 * @way: who maps
 * @flags: EDU_*
 * @chunk: as in struct hmm_dma_options, at most 2 MiB: what of an aligned block of so many
 *	bytes is present is mapped with the page that is missed; 0: 4096
 * @timeout_ms: a DMA that takes longer has failed, and the device with it; 0: 5000
 */
struct edu_options {
	size_t size;
	const char *pci;
	enum edu_way way;
	unsigned flags;
	size_t chunk;
	unsigned timeout_ms;
};

/**
 * edu_open() - take the device
 * @options: NULL: all default
 * @dev: where the handle goes
 *
 * One process at a time has it.
 * Return: 0; -EINVAL a bad option; -E2BIG; -ENODEV no such device; -ENXIO it is not bound
 * to vfio-pci, or behind no IOMMU; -EBUSY somebody has it; -EOPNOTSUPP the way is not there,
 * or the IOMMU's addresses are too narrow; -EIO it does not answer; -EACCES, -EPERM,
 * -ENOMEM; as hmm_open(), hmm_dma_type1(), hmm_dma_iommufd(), hmm_notifier_insert().
 * edu_strerror() has the sentence, with the cure.
 */
UHMM_API int edu_open(const struct edu_options *options, struct edu **dev);

/**
 * edu_close() - the device is stopped, everything is unmapped, all is given back
 * @dev: no other call on it may be running; NULL is allowed
 */
UHMM_API void edu_close(struct edu *dev);

/**
 * edu_strerror() - hmm_strerror(), and what this driver has to say
 * @err: what the thread's last call of this driver returned
 * Return: text that is good until the thread's next call.
 */
UHMM_API const char *edu_strerror(int err);

/**
 * edu_read() - the device reads memory
 * @dev: the device
 * @dst: the caller's buffer, which the CPU writes
 * @src: any address of the program, which the device reads
 * @length: bytes
 *
 * Two DMAs for each 2 KiB or page border: to the device's buffer, and from there to a page
 * of the driver's. What changed before the call is seen as it is now (G1, G3, D3).
 *
 * Return: 0; -EFAULT no mapping, PROT_NONE, past the end of the file, a guard page;
 * -EOPNOTSUPP it cannot be mirrored, or not be pinned and shall not bounce; -EBUSY it keeps
 * changing; -EIO the device does not answer, now or before; -EOVERFLOW it wraps; -ENOMEM;
 * -ENODEV. @dst has the bytes before the piece that failed.
 */
UHMM_API int edu_read(struct edu *dev, void *dst, const void *src, size_t length);

/**
 * edu_write() - the device writes memory
 * @dst: any address of the program, which the device writes
 * @src: the caller's buffer, which the CPU reads
 *
 * Of a bounced page the bytes around those that are written are written too, with what they
 * were when the DMA began (hmm_range_dma_sync()).
 *
 * Return: as edu_read(); -EPERM a read-only mapping. On failure the pieces before were
 * written. What was reported as written reached the memory that a CPU found at @dst after
 * the call began.
 */
UHMM_API int edu_write(struct edu *dev, void *dst, const void *src, size_t length);

/** edu_copy() - from memory to memory, by the device alone; as edu_read(), edu_write() */
UHMM_API int edu_copy(struct edu *dev, void *dst, const void *src, size_t length);

/**
 * edu_lookup() - the device's translation of an address as it is now, 0 if none; no fence
 * Return: HMM_PFN_VALID, WRITE, DMA_MAPPED, DMA_BOUNCE and, as the number, I/O address / 4096.
 */
UHMM_API uint64_t edu_lookup(const struct edu *dev, const void *addr);

/** edu_dma() - the device's I/O address space, for a fence of one's own */
UHMM_API struct hmm_dma *edu_dma(struct edu *dev);

/** struct edu_stats - counted since edu_open() */
struct edu_stats {
	size_t size;
	enum edu_way way; /* EDU_TYPE1 or EDU_IOMMUFD */
	uint64_t dmas;	  /* that the device has done, the driver's own page included */
	uint64_t bytes_read, bytes_written; /* of the program's memory, by the device */
	uint64_t faults;		    /* translations that were missing */
	uint64_t again;			    /* DMAs done anew: the page changed */
	uint64_t syncs;			    /* bounced pages copied, either way */
	uint64_t invalidations;
	uint64_t mapped;   /* pages that it reaches now, but for the driver's own */
	uint64_t mappings; /* that were made for them; a chunk needs one */
};
/** edu_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void edu_get_stats(struct edu *dev, struct edu_stats *stats);

/* ---- hooks for tests and bench: a device that asks nobody ---- */

/**
 * edu_dma_raw() - a DMA at an I/O address, whatever is mapped there
 * @iova: I/O address; [iova, +n) lies in one page
 * @bytes: in: what the device's buffer holds before the DMA; out, of a read: and after it
 * @n: at most 2048
 * @write: the device writes @bytes there, else it reads
 *
 * The device cannot tell that the IOMMU blocked it: a blocked write goes nowhere, a blocked
 * read finds zeros (QEMU; elsewhere all ones, or @bytes as they were), and the kernel's log
 * has a fault.
 * Return: 0 the DMA has ended; -EINVAL; -EIO; -ENODEV.
 */
UHMM_API int edu_dma_raw(struct edu *dev, uint64_t iova, void *bytes, size_t n, bool write);

/**
 * edu_map_raw() - one bare call of the kernel: the device reaches memory at its own address
 *
 * What uhmm is measured against. The library does not know of it and forgets nothing: the pages
 * that were found stay mapped, whatever becomes of @memory, until edu_unmap_raw() of the same.
 * Return: 0; -EOPNOTSUPP the kernel does not; -ENOMEM; -ENODEV.
 */
UHMM_API int edu_map_raw(struct edu *dev, void *memory, size_t length);
/** edu_unmap_raw() - and no more */
UHMM_API void edu_unmap_raw(struct edu *dev, void *memory, size_t length);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_EDU_H */
