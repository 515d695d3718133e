/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * buffers - the kernel's table of registered buffers, and the ring that uses them.
 *
 * To the device this is its IOMMU and its DMA engine: what is not in the table it cannot reach.
 *
 * Laws:
 * - A slot of the kernel's table is in use exactly while `slots` names it.
 * - Whoever submits waits for all of it, with `lock` held: nothing is in flight while it is
 *   free. So a slot that is cleared under `lock` has no request on it; still its pin may end
 *   later, if a worker thread of the kernel is slow to let go of its request. Each buffer has
 *   a tag, which the kernel posts when the pin has ended, and unmap waits for that.
 * - The kernel pins for writing, whatever for: `write` says what the mapping is for.
 */
#include <string.h>

#include "uring_private.h"

#define TAG UINT64_MAX /* user_data of "the pin has ended"; others count requests */

/* The ring's descriptor was closed, or is another's: no request and no answer will come. */
static int lost(struct buffers *b, int err)
{
	if (!b->dead)
		hmm_log(HMM_LOG_ERROR, "uring: the ring is lost: %s", strerror(-err));
	b->dead = true;
	return -ENODEV;
}

/* The next completion. 0; -ENODEV. */
static int reap(struct buffers *b, uint64_t *user_data, int *res)
{
	struct io_uring_cqe *cqe;
	int err;

	do
		err = io_uring_wait_cqe(&b->ring, &cqe);
	while (err == -EINTR || err == -EAGAIN);
	if (err)
		return lost(b, err);
	*user_data = cqe->user_data;
	*res = cqe->res;
	io_uring_cqe_seen(&b->ring, cqe);
	return 0;
}

static int update(struct buffers *b, unsigned slot, uintptr_t va, size_t length)
{
	struct iovec v = { (void *)va, length };
	__u64 tag = length ? TAG : 0;
	int n = io_uring_register_buffers_update_tag(&b->ring, slot, &v, &tag, 1);

	return n == 1 ? 0 : n ? n : -EINVAL;
}

/* ---- the back-end ---- */

static int name_pages(struct buffers *b, const struct buffer *buffer)
{
	uint64_t slot = (uint64_t)(buffer - b->all) + 1, at = buffer->iova;
	int err = 0;

	for (; at < buffer->iova + buffer->length && !err; at += PAGE)
		err = uhmm_ptable_set(&b->slots, at, slot);
	if (err)
		uhmm_ptable_clear(&b->slots, buffer->iova, buffer->iova + buffer->length);
	return err;
}

static void put_free(struct buffers *b, struct buffer *buffer)
{
	uhmm_ptable_clear(&b->slots, buffer->iova, buffer->iova + buffer->length);
	buffer->next = b->free;
	b->free = (unsigned)(buffer - b->all) + 1;
	b->used--;
}

static struct buffer *take(struct buffers *b)
{
	struct buffer *buffer = NULL;

	if (b->free) {
		buffer = &b->all[b->free - 1];
		b->free = buffer->next;
	} else if (b->fresh < b->n) {
		buffer = &b->all[b->fresh++];
	}
	b->used += buffer != NULL;
	return buffer;
}

static int map(void *priv, uint64_t iova, uintptr_t va, size_t length, bool write)
{
	struct uring *dev = priv;
	struct buffers *b = &dev->buffers;
	struct buffer *buffer;
	int err = -ENOMEM;

	pthread_mutex_lock(&b->lock);
	buffer = b->dead ? NULL : take(b);
	if (buffer) {
		*buffer = (struct buffer){
			.iova = iova, .va = va, .length = length, .write = write
		};
		err = name_pages(b, buffer);
		if (!err)
			err = update(b, (unsigned)(buffer - b->all), va, length);
		if (err)
			put_free(b, buffer);
	}
	if (b->dead || err == -EBADF)
		err = lost(b, err);
	pthread_mutex_unlock(&b->lock);
	return err;
}

static void unmap(void *priv, uint64_t iova, size_t length)
{
	struct uring *dev = priv;
	struct buffers *b = &dev->buffers;
	struct buffer *buffer;
	uint64_t slot, what = 0;
	int res, err;

	if (uring_check(dev))
		return;
	pthread_mutex_lock(&b->lock);
	slot = uhmm_ptable_lookup(&b->slots, iova);
	if (slot) {
		buffer = &b->all[slot - 1];
		err = b->dead ? -ENODEV : update(b, (unsigned)slot - 1, 0, 0);
		if (err)
			lost(b, err);
		if (!err && !io_uring_cq_ready(&b->ring))
			atomic_fetch_add(&b->late, 1);
		while (!err && what != TAG)
			err = reap(b, &what, &res);
		put_free(b, buffer);
	}
	pthread_mutex_unlock(&b->lock);
}

const struct hmm_dma_ops uring_dma_ops = {
	.size = sizeof(uring_dma_ops),
	.map = map,
	.unmap = unmap,
};

/* ---- transfers ---- */

/* The buffer that has `daddr`, if the device may use it so; how much of it follows. */
static struct buffer *find(struct buffers *b, uint64_t daddr, bool to_memory, size_t *n)
{
	uint64_t slot = uhmm_ptable_lookup(&b->slots, daddr);
	struct buffer *buffer = slot ? &b->all[slot - 1] : NULL;

	if (!buffer || (to_memory && !buffer->write))
		return NULL;
	if (*n > buffer->iova + buffer->length - daddr)
		*n = buffer->iova + buffer->length - daddr;
	return buffer;
}

static void prepare(struct io_uring_sqe *sqe, const struct piece *p, size_t done,
		    uintptr_t va, unsigned n, const struct buffers *b,
		    const struct buffer *buffer)
{
	void *at = (void *)va;

	if (!buffer && p->to_memory)
		io_uring_prep_read(sqe, p->fd, at, n, p->offset + done);
	else if (!buffer)
		io_uring_prep_write(sqe, p->fd, at, n, p->offset + done);
	else if (p->to_memory)
		io_uring_prep_read_fixed(sqe, p->fd, at, n, p->offset + done,
					 (int)(buffer - b->all));
	else
		io_uring_prep_write_fixed(sqe, p->fd, at, n, p->offset + done,
					  (int)(buffer - b->all));
}

/*
 * A chain of requests for what follows `done`: each begins when the one before has been
 * done in full, so what a short one left out nobody overtakes. How many there are; -EFAULT:
 * none, the device cannot reach the memory.
 */
static int chain(struct uring *dev, const struct piece *p, uint64_t daddr, size_t done)
{
	struct buffers *b = &dev->buffers;
	struct io_uring_sqe *sqe = NULL;
	int n = 0;

	for (; done < p->n && n < (int)BATCH; done += b->want[n++]) {
		uintptr_t va = daddr + done;
		struct buffer *buffer = NULL;
		size_t part = p->n - done;

		if (dev->fixed) {
			buffer = find(b, va, p->to_memory, &part);
			if (!buffer)
				break;
			va = buffer->va + (va - buffer->iova);
		}
		sqe = io_uring_get_sqe(&b->ring);
		b->want[n] = (unsigned)part;
		prepare(sqe, p, done, va, b->want[n], b, buffer);
		sqe->user_data = (uint64_t)n;
		sqe->flags |= IOSQE_IO_LINK;
	}
	if (sqe)
		sqe->flags &= (__u8)~IOSQE_IO_LINK;
	atomic_fetch_add(&b->requests, (uint64_t)n);
	return n ? n : -EFAULT;
}

/* Submit and wait for all of it. */
static int run(struct buffers *b, int n)
{
	int submitted = 0, err, one;
	uint64_t which;

	while (submitted < n) {
		err = io_uring_submit(&b->ring);
		if (err < 0 && err != -EINTR && err != -EAGAIN && err != -EBUSY)
			return lost(b, err);
		submitted += err > 0 ? err : 0;
	}
	for (int i = 0; i < n; i++) {
		err = reap(b, &which, &one);
		if (err)
			return err;
		b->res[which] = one;
	}
	return 0;
}

/* What a chain of n did, up to the first that was not done in full: bytes; the error of
 * that. */
static size_t in_order(const struct buffers *b, int n, int *err)
{
	size_t done = 0;

	for (int i = 0; i < n && !*err; i++) {
		if (b->res[i] < 0)
			*err = b->res[i];
		else
			done += (size_t)b->res[i];
		if (b->res[i] != (int)b->want[i])
			break;
	}
	return done;
}

int64_t uring_transfer(struct uring *dev, const struct piece *p, uint64_t daddr)
{
	struct buffers *b = &dev->buffers;
	size_t done = 0, some;
	int n, err;

	pthread_mutex_lock(&b->lock);
	do {
		some = 0;
		n = b->dead ? -ENODEV : chain(dev, p, daddr, done);
		err = n < 0 ? n : run(b, n);
		if (!err)
			some = in_order(b, n, &err);
		done += some;
	} while (!err && some && done < p->n);
	pthread_mutex_unlock(&b->lock);
	return done ? (int64_t)done : err;
}

/* ---- open, close ---- */

int uring_buffers_open(struct uring *dev, unsigned n)
{
	struct buffers *b = &dev->buffers;
	int err;

	pthread_mutex_init(&b->lock, NULL);
	err = io_uring_queue_init(BATCH, &b->ring, IORING_SETUP_SUBMIT_ALL);
	if (err)
		return err;
	b->open = true;
	if (!dev->fixed)
		return 0;
	err = uhmm_ptable_init(&b->slots);
	if (!err)
		err = io_uring_register_buffers_sparse(&b->ring, n);
	if (err)
		return err;
	b->all = hmm_alloc(n * sizeof(*b->all));
	if (!b->all)
		return -ENOMEM;
	b->n = n;
	return 0;
}

void uring_buffers_close(struct uring *dev)
{
	struct buffers *b = &dev->buffers;

	if (b->open)
		io_uring_queue_exit(&b->ring);
	uhmm_ptable_destroy(&b->slots);
	hmm_free(b->all, b->n * sizeof(*b->all));
}
