/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * job - the device reads and writes memory of the program, a piece within a page at a time.
 *
 * A piece: fence; look the page up, on a miss fault and begin anew; if it is bounced copy
 * it to the device; under the update lock, unless the page was forgotten since it was
 * looked up, the DMA; if it is bounced and written copy it back.
 *
 * Why nothing is reported written that was not. A page that is pinned was the page of its
 * address at the DMA's start, and the update lock kept it mapped to the end. A bounced
 * page's bytes arrive with the copy back, which finds nothing to copy, or memory that it
 * may not write, if the page was unmapped meanwhile: then, and if the page was forgotten at
 * any moment before the copy had ended, the piece is done again. It can be: the device's
 * buffer still has the bytes.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "edu_private.h"

#define TRIES 100 /* a page that changes more often under one piece is given up */

/* ---- one job at a time ---- */

static int job_begin(struct edu *dev)
{
	edu_hush();
	if (getpid() != dev->owner)
		return edu_say(-ENODEV,
			       "the device is the parent's: a forked child opens another");
	pthread_mutex_lock(&dev->jobs);
	if (!dev->dead)
		return 0;
	pthread_mutex_unlock(&dev->jobs);
	return edu_say(-EIO, "the device did not answer before, and was given up");
}

static void job_end(struct edu *dev)
{
	pthread_mutex_unlock(&dev->jobs);
}

/* ---- memory of the program ---- */

static uint64_t look_up(struct edu *dev, uintptr_t addr)
{
	uint64_t entry;

	pthread_mutex_lock(&dev->lock);
	dev->job.page = addr & -PAGE;
	dev->job.forgotten = false;
	entry = uhmm_ptable_lookup(&dev->table, addr);
	pthread_mutex_unlock(&dev->lock);
	return entry;
}

static bool forgotten(struct edu *dev)
{
	bool is;

	pthread_mutex_lock(&dev->lock);
	is = dev->job.forgotten;
	pthread_mutex_unlock(&dev->lock);
	return is;
}

/* Within a bounced page. -EAGAIN: it is not what it was when it was looked up. */
static int sync_bounced(struct edu *dev, uintptr_t addr, size_t n,
			enum hmm_dma_direction direction)
{
	int64_t pages = hmm_range_dma_sync(dev->dma, addr, addr + n, direction);

	/* Gone or read-only, and no event may ever say so (a file that was truncated): the
	 * next fault has the reason. */
	if (pages == -EFAULT)
		edu_forget(dev, addr & -PAGE, (addr & -PAGE) + PAGE);
	if (pages < 0)
		return pages == -EFAULT ? -EAGAIN : (int)pages;
	atomic_fetch_add(&dev->count.syncs, (uint64_t)pages);
	return pages ? 0 : -EAGAIN;
}

/* Law 1. */
static int run(struct edu *dev, uint64_t entry, uintptr_t addr, size_t n, bool write)
{
	int err = -EAGAIN;

	pthread_mutex_lock(&dev->lock);
	if (!dev->job.forgotten)
		err = edu_engine_run(dev, edu_iova(entry, addr), n, write);
	pthread_mutex_unlock(&dev->lock);
	return err;
}

/* Law 3. */
static int fence(struct edu *dev, uintptr_t addr, size_t n)
{
	return dev->flags & EDU_NAIVE ? hmm_fence(dev->hmm, addr, n)
				      : hmm_dma_fence(dev->dma, addr, n);
}

/* Law 4. -EAGAIN: begin anew. */
static int attempt(struct edu *dev, uintptr_t addr, size_t n, bool write)
{
	int err = fence(dev, addr, n);
	uint64_t entry;
	bool bounced;

	if (err)
		return err;
	entry = look_up(dev, addr);
	if (!(entry & (write ? HMM_PFN_WRITE : HMM_PFN_VALID))) {
		err = edu_fault(dev, addr, write);
		return err ? err : -EAGAIN;
	}
	bounced = entry & HMM_PFN_DMA_BOUNCE;
	/* Before a write too: all of the page goes back. */
	if (bounced)
		err = sync_bounced(dev, addr, n, HMM_DMA_FOR_DEVICE);
	if (!err)
		err = run(dev, entry, addr, n, write);
	if (!err && bounced && write)
		err = sync_bounced(dev, addr, n, HMM_DMA_FOR_CPU);
	if (!err && bounced && write && forgotten(dev))
		err = -EAGAIN;
	return err;
}

/* Between the device's buffer and memory of the program; within a page. */
static int transfer(struct edu *dev, uintptr_t addr, size_t n, bool write)
{
	int tries, err = -EAGAIN;

	for (tries = 0; err == -EAGAIN && tries < TRIES; tries++) {
		if (tries > 1) /* the first is a miss */
			atomic_fetch_add(&dev->count.again, 1);
		err = attempt(dev, addr, n, write);
	}
	if (!err)
		atomic_fetch_add(write ? &dev->count.bytes_written : &dev->count.bytes_read,
				 n);
	return err == -EAGAIN ? edu_say(-EBUSY, "%#lx changed %d times under one DMA",
					(unsigned long)addr, TRIES)
			      : err;
}

/* ---- the driver's own page ---- */

/* The device always reaches it, so no lock is needed and nothing can come between. */
static int load(struct edu *dev, const void *bytes, size_t n)
{
	memcpy(dev->page, bytes, n);
	return edu_engine_run(dev, (uintptr_t)dev->page, n, false);
}

static int unload(struct edu *dev, void *bytes, size_t n)
{
	int err = edu_engine_run(dev, (uintptr_t)dev->page, n, true);

	if (!err)
		memcpy(bytes, dev->page, n);
	return err;
}

/* ---- what users call ---- */

/* As much as one DMA does: within a page, and of the buffer's size. */
static size_t piece(uintptr_t addr, size_t n)
{
	size_t left = PAGE - addr % PAGE;

	if (n > EDU_PIECE)
		n = EDU_PIECE;
	return n < left ? n : left;
}

int edu_read(struct edu *dev, void *dst, const void *src, size_t length)
{
	unsigned char bytes[EDU_PIECE], *to = dst;
	uintptr_t from = (uintptr_t)src;
	size_t n;
	int err = 0;

	for (; length && !err; length -= n, from += n, to += n) {
		n = piece(from, length);
		err = job_begin(dev);
		if (err)
			break;
		err = transfer(dev, from, n, false);
		if (!err)
			err = unload(dev, bytes, n);
		job_end(dev);
		/* Without any lock: whoever serves a fault in the buffer may need us. */
		if (!err)
			memcpy(to, bytes, n);
	}
	return err;
}

int edu_write(struct edu *dev, void *dst, const void *src, size_t length)
{
	unsigned char bytes[EDU_PIECE];
	const unsigned char *from = src;
	uintptr_t to = (uintptr_t)dst;
	size_t n;
	int err = 0;

	for (; length && !err; length -= n, from += n, to += n) {
		n = piece(to, length);
		memcpy(bytes, from, n);
		err = job_begin(dev);
		if (err)
			break;
		err = load(dev, bytes, n);
		if (!err)
			err = transfer(dev, to, n, true);
		job_end(dev);
	}
	return err;
}

int edu_copy(struct edu *dev, void *dst, const void *src, size_t length)
{
	uintptr_t from = (uintptr_t)src, to = (uintptr_t)dst;
	size_t n;
	int err = 0;

	for (; length && !err; length -= n, from += n, to += n) {
		n = piece(to, piece(from, length));
		err = job_begin(dev);
		if (err)
			break;
		err = transfer(dev, from, n, false);
		if (!err)
			err = transfer(dev, to, n, true);
		job_end(dev);
	}
	return err;
}

int edu_dma_raw(struct edu *dev, uint64_t iova, void *bytes, size_t n, bool write)
{
	int err;

	if (n > EDU_PIECE || n > PAGE - iova % PAGE)
		return -EINVAL;
	err = job_begin(dev);
	if (err)
		return err;
	err = load(dev, bytes, n);
	if (!err)
		err = edu_engine_run(dev, iova, n, write);
	if (!err && !write)
		err = unload(dev, bytes, n);
	job_end(dev);
	return err;
}
