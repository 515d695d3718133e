/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uring - what its files share.
 *
 * Locks, in this order: `miss` (nobody who calls back takes it), `lock` (the update lock:
 * invalidate takes it), the library's, `buffers.lock` (the back-end's, taken inside the
 * library's).
 *
 * All of struct uring is memory that never moves (devmem.h). Who holds `lock` may still
 * wait for a page of the program that is away: who serves it needs no lock of ours.
 */
#ifndef URING_PRIVATE_H
#define URING_PRIVATE_H

#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <unistd.h>

#include <uhmm/ptable.h>
#include <uhmm/uring.h>

#define PAGE ((uintptr_t)4096)
#define PIECE ((size_t)2 << 20) /* of an access: at most so much under one lock */
#define PIECE_PAGES (PIECE / PAGE)
#define BATCH 64u  /* requests to the ring at once */
#define TRIES 1000 /* memory that changes more often under one piece is given up */

/* A registered buffer: I/O addresses [iova, +length) are [va, +length). */
struct buffer {
	uint64_t iova;
	uintptr_t va; /* the program's memory, or the library's bounce page */
	size_t length;
	bool write;
	unsigned next; /* if it is free: 1 + the next free one; 0 none */
};

/* The kernel's table of buffers, and the ring: to the device an IOMMU and a DMA engine. */
struct buffers {
	/* Protects all of it. Nothing is in flight while it is free. */
	pthread_mutex_t lock;
	struct io_uring ring;
	struct uhmm_ptable slots; /* I/O page: 1 + its buffer */
	struct buffer *all;	  /* hmm_alloc() */
	unsigned n, fresh, free;  /* how many; from fresh on never used; 1 + a free one */
	_Atomic unsigned used;
	bool open, dead;
	unsigned want[BATCH]; /* of the requests under way: bytes, */
	int res[BATCH];	      /* and what came of it */
	_Atomic uint64_t requests, late;
};

struct uring {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	struct hmm_dma *dma;
	pid_t pid;
	bool fixed;
	unsigned map_flags; /* HMM_DMA_* */
	size_t piece, chunk;

	pthread_mutex_t lock;	  /* protects the table and its use */
	struct uhmm_ptable table; /* page: HMM_PFN_* and the I/O page number */

	/* Held by whoever maps, and by whoever uses copies. Protects what follows. */
	pthread_mutex_t miss;
	uint64_t pfns[PIECE_PAGES], daddrs[PIECE_PAGES];

	struct buffers buffers;
	_Atomic uint64_t invalidations, misses, again, refused, evictions, unregistered;
};

/* A piece of an access: n bytes of memory at addr, and of a file. */
struct piece {
	uintptr_t addr;
	size_t n;
	int fd;
	uint64_t offset;
	bool to_memory; /* the device writes memory */
};

/* Beside bytes and errnos: what becomes of a try. */
enum {
	MISS = -5000,	 /* no translation, or not for this, or it has changed */
	GONE = -5001,	 /* there is one, but the memory behind it went before its event */
	BOUNCED = -5002, /* there are pages that are copies */
	ALIEN = -5003,	 /* it has to be done without a translation */
};

/* The locks and the ring of a forked child are its parent's. */
static inline int uring_check(const struct uring *dev)
{
	return dev->pid == getpid() ? 0 : -ENODEV;
}

/* ---- buffers.c ---- */
extern const struct hmm_dma_ops uring_dma_ops;
int uring_buffers_open(struct uring *dev, unsigned n);
/* Every buffer is free again: after hmm_dma_destroy(). */
void uring_buffers_close(struct uring *dev);
/*
 * The transfer itself: `piece->n` bytes at I/O address `daddr`, in order. Bytes, as
 * pread(2); -EFAULT the device cannot reach the memory; -ENODEV.
 */
int64_t uring_transfer(struct uring *dev, const struct piece *piece, uint64_t daddr);

/* ---- miss.c ---- */
/*
 * The device missed a translation: fault, map, put it into the table. If the piece can be
 * had in part only, piece->n is that part, and nothing has been done. 0; ALIEN; as
 * uring_read().
 */
int uring_miss(struct uring *dev, struct piece *piece);
/* Under `lock`: no translation of [start, end) is left, nor a mapping. */
void uring_forget(struct uring *dev, uintptr_t start, uintptr_t end);

#endif
