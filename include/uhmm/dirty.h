/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: dirty - which pages the CPU has written to
 *
 * A device with memory of its own works on copies of the program's pages. Before each job they
 * must be what memory is, and most of memory has not changed since. The kernel knows which has:
 * a page that is write-protected through a userfaultfd in WP_ASYNC mode loses that mark when it
 * is written to, and nobody waits.
 *
 *	hmm_dirty_begin(hmm, start, length, &dirty);
 *	again:
 *		make the range present through a notifier (hmm_range_fault(), ...)
 *		hmm_dirty_collect(dirty, bits);
 *		copy the pages that have their bit set;		// not before
 *		run the job
 *
 * W1  If a page's bit is not set, and no notifier was told of the page since the last collect of the
 *     same tracker, then its bytes are what they were then: no thread has written to it, nor has
 *     the kernel for one of this process. What changes after a collect has its bit set in the next.
 *
 * Only private anonymous memory is ever marked (G7). All other pages, and those that are not
 * there, have their bits set always: the driver has to look at them in some other way, by a
 * checksum for instance.
 *
 * "Told": what happened before a fence is told when it returns. So the fence (which reading begins
 * with) comes before the collect.
 *
 * Not seen is what writes without a page fault, to a page that it has pinned before the collect: DMA
 * (io_uring's registered buffers, VFIO, RDMA, a read with O_DIRECT under way), and the kernel itself
 * in process_vm_writev(), in ptrace and in a write to /proc/PID/mem, by this process or another,
 * that are under way during the collect. Who has such writers looks at their pages in some other
 * way too, or holds them up meanwhile. (hmm_copy_to() and devices of this library are seen.)
 *
 * Costs: a collect some 50 ns a page; the CPU's first write to a page after each collect a fault
 * of some microseconds, and a huge page is split by it.
 */
#ifndef UHMM_DIRTY_H
#define UHMM_DIRTY_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hmm_dirty;

/**
 * hmm_dirty_begin() - keep track of a range
 * @hmm: own mirror; the tracker takes a reference
 * @start: page aligned
 * @length: bytes, a multiple of 4096, not 0
 * @dirty: where the handle goes
 *
 * Trackers may overlap; what one collects is not lost to the others. Nothing is marked yet.
 *
 * Context: any thread, not a callback.
 * Return: 0; -EINVAL unaligned or empty; -EOVERFLOW it wraps, or is above all addresses;
 * -EOPNOTSUPP an attached process; -ENOMEM; -ENODEV; -EDEADLK.
 */
UHMM_API int hmm_dirty_begin(struct hmm *hmm, uintptr_t start, size_t length,
			     struct hmm_dirty **dirty);

/**
 * hmm_dirty_collect() - which pages may have changed since the last time, and begin anew
 * @dirty: a tracker; one call at a time
 * @bits: a bit a page, page i at bit i % 64 of word i / 64; written as a whole
 *
 * The first time all bits are set. What is not mirrored (no device has faulted it through a
 * notifier) cannot be marked, and has its bit set.
 *
 * Context: any thread, not a callback; sleeps. Locks: none that a callback takes.
 * Return: how many bits are set; -EINVAL; -ENODEV; -EDEADLK.
 * Kernel counterpart: none in mm/hmm.c; drivers/vfio and iommufd have dirty tracking of DMA.
 */
UHMM_API int64_t hmm_dirty_collect(struct hmm_dirty *dirty, uint64_t *bits);

/**
 * hmm_dirty_end() - keep track no more; NULL is allowed
 * Marks stay until the pages are written to, and cost nothing else.
 * Context: any thread, not a callback. In a forked child it only forgets.
 */
UHMM_API void hmm_dirty_end(struct hmm_dirty *dirty);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_DIRTY_H */
