/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * access - what a read or write does, piece by piece.
 *
 *	fence			nothing older than this call is missing (G3, D3)
 *	again:	lock
 *		is all of it in the page table, with the permission? else unlock, miss, again
 *		the transfer, and its end
 *	unlock
 *
 * Invalidate takes that lock too: when it returns nothing is in flight, and what was reported
 * as done was done to the page of that address.
 *
 * A bounced page has a step more, which is made without the lock (it waits for callbacks): what
 * the device will read goes to the copy before; what it has written comes back afterwards, and
 * not a byte beside. In between an invalidate may take the copy away; `miss`, which is held all
 * the while, keeps anybody from mapping a new one in its place. So hmm_range_dma_sync() either
 * finds exactly the pages that were bounced, or the piece is done again.
 *
 * If memory goes and its event has not come yet, the kernel or the copying says -EFAULT (GONE):
 * the translations are forgotten and the piece is done again, from the same place in the file.
 *
 * Under the lock we wait for the file, which is regular and so comes to an end by itself, and
 * for pages that are faulted in: for nothing that waits for a callback.
 */
#include <sys/mman.h>
#include <sys/stat.h>

#include "uring_private.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static size_t pages(uintptr_t addr, size_t n)
{
	return n ? (addr + n - 1) / PAGE - addr / PAGE + 1 : 0;
}

static uint64_t entry_of(const struct uring *dev, uintptr_t addr)
{
	return uhmm_ptable_lookup(&dev->table, addr);
}

/* How many pages are bounced; MISS if not all may be used so. */
static int64_t look_up(const struct uring *dev, const struct piece *p)
{
	uint64_t need = p->to_memory ? HMM_PFN_WRITE : HMM_PFN_VALID, entry;
	int64_t bounced = 0;

	for (size_t i = 0; i < pages(p->addr, p->n); i++) {
		entry = entry_of(dev, p->addr + i * PAGE);
		if (!(entry & need))
			return MISS;
		bounced += (entry & HMM_PFN_DMA_BOUNCE) != 0;
	}
	return bounced;
}

static uint64_t daddr_of(const struct uring *dev, uintptr_t addr)
{
	return hmm_pfn_number(entry_of(dev, addr)) * PAGE + addr % PAGE;
}

/* As far as the I/O addresses go on without a gap. */
static int64_t run(struct uring *dev, const struct piece *all, size_t done)
{
	struct piece p = *all;
	uint64_t daddr;

	p.addr += done;
	p.offset += done;
	daddr = daddr_of(dev, p.addr);
	p.n = PAGE - p.addr % PAGE;
	while (p.n < all->n - done && daddr_of(dev, p.addr + p.n) == daddr + p.n)
		p.n += PAGE;
	if (p.n > all->n - done)
		p.n = all->n - done;
	return uring_transfer(dev, &p, daddr);
}

/*
 * The kernel lets io_uring write to a pinned page and leaves the page clean. One that is clean
 * after MADV_FREE, or was read from swap, would be dropped with what was written as soon as the
 * pin has ended. This does what a CPU's store does. Where it fails the page has just gone.
 */
static void make_dirty(const struct piece *p, size_t done)
{
	madvise((void *)(p->addr & -PAGE), pages(p->addr, done) * PAGE,
		MADV_POPULATE_WRITE);
}

static int64_t transfer(struct uring *dev, const struct piece *p)
{
	size_t done = 0;
	int64_t some;

	do {
		some = run(dev, p, done);
		done += some > 0 ? (size_t)some : 0;
	} while (some > 0 && done < p->n);
	if (done && dev->fixed && p->to_memory)
		make_dirty(p, done);
	if (done)
		return (int64_t)done;
	if (some != -EFAULT)
		return some;
	atomic_fetch_add(&dev->refused, dev->fixed);
	return GONE;
}

/* Bytes, 0: the file's end; MISS, GONE, BOUNCED, or an error. */
static int64_t direct(struct uring *dev, const struct piece *p)
{
	int64_t done;

	pthread_mutex_lock(&dev->lock);
	done = look_up(dev, p);
	if (!done)
		done = transfer(dev, p);
	else if (done > 0)
		done = BOUNCED;
	pthread_mutex_unlock(&dev->lock);
	return done;
}

/* Exactly `bounced` pages. 0; GONE; MISS: another number is bounced now; or an error. */
static int copy_pages(struct uring *dev, const struct piece *p, size_t n, int64_t bounced,
		      enum hmm_dma_direction direction)
{
	int64_t copied = hmm_range_dma_sync(dev->dma, p->addr, p->addr + n, direction);

	if (copied == bounced)
		return 0;
	if (copied >= 0)
		return MISS;
	return copied == -EFAULT ? GONE : (int)copied;
}

/* Under `lock`, if `bounced` pages are bounced still. *back: how many must come back. */
static int64_t transfer_copies(struct uring *dev, const struct piece *p, int64_t bounced,
			       int64_t *back)
{
	struct piece written = *p;
	int64_t done = look_up(dev, p);

	if (done != bounced)
		return MISS;
	done = transfer(dev, p);
	if (done > 0 && p->to_memory) {
		written.n = (size_t)done;
		*back = look_up(dev, &written);
	}
	return done;
}

/* Under `miss`. */
static int64_t by_copies(struct uring *dev, const struct piece *p)
{
	int64_t bounced, back = 0, done;
	int err = 0;

	pthread_mutex_lock(&dev->lock);
	bounced = look_up(dev, p);
	pthread_mutex_unlock(&dev->lock);
	if (bounced < 0)
		return bounced;
	if (!p->to_memory)
		err = copy_pages(dev, p, p->n, bounced, HMM_DMA_FOR_DEVICE);
	if (err)
		return err;
	pthread_mutex_lock(&dev->lock);
	done = transfer_copies(dev, p, bounced, &back);
	pthread_mutex_unlock(&dev->lock);
	if (back)
		err = copy_pages(dev, p, (size_t)done, back, HMM_DMA_FOR_CPU);
	return err ? err : done;
}

static int64_t try_piece(struct uring *dev, const struct piece *p)
{
	int64_t done = direct(dev, p);

	if (done == BOUNCED) {
		pthread_mutex_lock(&dev->miss);
		done = by_copies(dev, p);
		pthread_mutex_unlock(&dev->miss);
	}
	if (done == GONE) {
		pthread_mutex_lock(&dev->lock);
		uring_forget(dev, p->addr & -PAGE, p->addr + p->n);
		pthread_mutex_unlock(&dev->lock);
		atomic_fetch_add(&dev->again, 1);
	}
	return done;
}

/* What has no translation: the kernel's own access, and no lock of ours. */
static int64_t unregistered(struct uring *dev, const struct piece *p)
{
	ssize_t n;

	atomic_fetch_add(&dev->unregistered, 1);
	if (p->to_memory)
		n = pread(p->fd, (void *)p->addr, p->n, (off_t)p->offset);
	else
		n = pwrite(p->fd, (const void *)p->addr, p->n, (off_t)p->offset);
	return n < 0 ? -errno : n;
}

static int64_t access_piece(struct uring *dev, struct piece *p)
{
	int64_t done = MISS;
	int err = hmm_dma_fence(dev->dma, p->addr, p->n);

	for (int tries = 0; !err && tries < TRIES; tries++) {
		done = try_piece(dev, p);
		if (done != MISS && done != GONE)
			return done;
		err = uring_miss(dev, p);
	}
	if (err == ALIEN)
		return unregistered(dev, p);
	return err ? err : -EBUSY;
}

/* Whatever the process does, an access to it ends: invalidate waits for that. */
static int check_file(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	return S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) ? 0 : -EINVAL;
}

static int64_t access_all(struct uring *dev, struct piece all)
{
	struct piece p = all;
	size_t done = 0, room;
	int64_t some = check_file(all.fd);

	if (all.addr + all.n < all.addr || all.offset + all.n < all.offset)
		some = -EINVAL;
	if (some || !all.n)
		return some;
	do {
		p.addr = all.addr + done;
		p.offset = all.offset + done;
		p.n = all.n - done;
		room = dev->piece - p.addr % dev->piece;
		if (p.n > room)
			p.n = room;
		some = access_piece(dev, &p);
		done += some > 0 ? (size_t)some : 0;
	} while (some > 0 && done < all.n);
	return done ? (int64_t)done : some;
}

int64_t uring_read(struct uring *dev, int fd, uint64_t offset, void *dst, size_t length)
{
	return access_all(dev, (struct piece){ .addr = (uintptr_t)dst,
					       .n = length,
					       .fd = fd,
					       .offset = offset,
					       .to_memory = true });
}

int64_t uring_write(struct uring *dev, int fd, uint64_t offset, const void *src,
		    size_t length)
{
	return access_all(dev, (struct piece){ .addr = (uintptr_t)src,
					       .n = length,
					       .fd = fd,
					       .offset = offset });
}

int64_t uring_dma_raw(struct uring *dev, int fd, uint64_t offset, uint64_t daddr,
		      size_t length, bool to_memory)
{
	struct piece p = {
		.n = length, .fd = fd, .offset = offset, .to_memory = to_memory
	};
	int64_t done = uring_check(dev);

	if (!done)
		done = check_file(fd);
	if (done)
		return done;
	pthread_mutex_lock(&dev->lock);
	done = uring_transfer(dev, &p, daddr);
	pthread_mutex_unlock(&dev->lock);
	return done;
}
