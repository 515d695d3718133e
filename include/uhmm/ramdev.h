/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: ramdev - the smallest complete driver; read it first (drivers/ramdev)
 *
 * A device that can read and write memory by the program's own pointers, and
 * has nothing but a page table. It stands for the kernel's lib/test_hmm.c.
 */
#ifndef UHMM_RAMDEV_H
#define UHMM_RAMDEV_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ramdev;

/**
 * ramdev_open() - a device on this process, or a look at another
 * @pid: 0: this process; else another, which can then be read, written and snapshot only
 * @dev: where the handle goes
 * Return: as hmm_open(), hmm_attach(), hmm_notifier_insert().
 */
UHMM_API int ramdev_open(pid_t pid, struct ramdev **dev);

/** ramdev_close() - NULL is allowed */
UHMM_API void ramdev_close(struct ramdev *dev);

/**
 * ramdev_read() - the device reads memory; faults what is missing, page by page
 * @dev: the device; @dst: buffer; @src: the program's pointer; @length: bytes
 * Return: 0; as hmm_range_fault(). Bytes before a failing page have been copied.
 */
UHMM_API int ramdev_read(struct ramdev *dev, void *dst, const void *src, size_t length);

/** ramdev_write() - the device writes memory; as ramdev_read(), and -EPERM read-only */
UHMM_API int ramdev_write(struct ramdev *dev, void *dst, const void *src, size_t length);

/**
 * ramdev_snapshot() - what the device would see, without faulting
 * @dev: the device; @start: page aligned; @npages: entries in @pfns
 * Return: as hmm_range_snapshot(). Entries as hmm_range.pfns.
 */
UHMM_API int ramdev_snapshot(struct ramdev *dev, const void *start, size_t npages,
			     uint64_t *pfns);

/** ramdev_lookup() - the device's page table entry as it is now (HMM_PFN_*), 0 if none; no fence */
UHMM_API uint64_t ramdev_lookup(const struct ramdev *dev, const void *addr);

/** ramdev_invalidations() - how often the device was told to forget a range */
UHMM_API uint64_t ramdev_invalidations(const struct ramdev *dev);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_RAMDEV_H */
