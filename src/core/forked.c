/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * forked - fork() and pages that are away.
 *
 * fork(): everything is home before, and nothing leaves until it is over. A child whose
 * parent exits at once would read zeros otherwise: nobody could fill its pages.
 *
 * A raw clone() runs no handler. Each of our contexts tells its FORK, one after the other, and the
 * child runs after the last was read. That last one is the sentinel's, a context whose only VMA is
 * the highest of all: it is read when the child has been filled. So
 * - the child has not run, and the parent's thread is still in clone();
 * - from when the address space was copied until its FORK is read nothing of a context could
 *   move (EAGAIN): what is away now was away then.
 * Only what was read before the FORK, but happened after the copy, has to be remembered: moves
 * (the child has the pages where they were) and unmaps (limbo).
 *
 * The pager waits for the driver here, as nowhere else: until it has copied, nothing
 * that could change the bytes may be served.
 */
#include <errno.h>

#include "core/pager.h"

#define FORK_NS UINT64_C(5000000000)
#define CHILD_TRIES 1000

/* A mapping that a child has empty. Asked once for each VMA. */
struct wiped {
	uintptr_t start, end;
	bool is;
};

struct child {
	struct hmm *hmm;
	unsigned ctx;
	int fd;
	struct wiped wiped;
};

static bool is_wiped(struct child *child, uintptr_t addr)
{
	struct wiped *wiped = &child->wiped;
	struct hmm *hmm = child->hmm;
	struct os_vma vma;
	unsigned flags = 0;

	if (addr >= wiped->start && addr < wiped->end)
		return wiped->is;
	*wiped = (struct wiped){ .start = addr, .end = addr + PAGE };
	if (hmm->os->vma_find_fast(&hmm->reader_mm, addr, &vma) || vma.start > addr)
		return false;
	hmm->os->vma_flags(addr, &flags);
	*wiped = (struct wiped){ .start = vma.start, .end = vma.end,
				 .is = flags & OS_VMA_WIPEONFORK };
	return wiped->is;
}

/* -EAGAIN only where there is no sentinel, and the child runs and changes its memory. */
static int give_at(struct child *child, uintptr_t addr, uintptr_t host)
{
	struct os_msg msgs[4];
	int err = -EAGAIN;

	for (unsigned tries = 0; err == -EAGAIN && tries < CHILD_TRIES; tries++) {
		size_t done = 0;

		err = child->hmm->os->child_copy(child->fd, addr, host, PAGE, &done);
		if (err == -EAGAIN)
			child->hmm->os->child_read(child->fd, msgs, 4);
	}
	return err;
}

/* Where the page was before the moves that the child does not know, newest first. */
static void give(struct child *child, uintptr_t addr, uintptr_t host)
{
	const struct pager *pager = child->hmm->pager;
	uintptr_t at = addr;

	if (is_wiped(child, addr))
		return;
	for (unsigned i = pager->moved_n; i && i + MOVED > pager->moved_n; i--) {
		const struct moved *m = &pager->moved[(i - 1) % MOVED];

		if (m->ctx == child->ctx && at >= m->to && at - m->to < m->end - m->start)
			at = at - m->to + m->start;
	}
	if (at == addr || give_at(child, at, host) == -ENOENT)
		give_at(child, addr, host);
}

/* Until the driver has copied, or is given up. */
static void wait_copied(struct hmm_transfer *t)
{
	const struct os_ops *os = t->hmm->os;

	while (t->state == TRANSFER_COPYING && !t->devmem->lost && os->now() < t->deadline)
		os->sleep(20000);
	transfers_judge(t->hmm);
}

static void give_transfer(struct child *child, struct hmm_transfer *t)
{
	if (t->ctx != child->ctx)
		return;
	if (!t->out)
		wait_copied(t);
	for (unsigned i = 0; i < t->n; i++) {
		const struct moving *page = &t->page[i];

		if (!t->out && page->err)
			continue;
		if (page->is == PAGE_BUFFER || (page->is == PAGE_DROPPED && page->unmapped))
			give(child, page->addr, page->host);
	}
}

/*
 * Frames that have to be copied, some of one devmem at a time: into a transfer that is kept for this, whose
 * buffer was made ahead: a child may not have zeros because there is no memory just now. The page stays where it is; the device has to ask for it anew, as after any to_host.
 */
struct peek {
	struct child *child;
	struct hmm_transfer *t;
};

static void peek_flush(struct peek *peek)
{
	struct hmm_transfer *t = peek->t;
	struct hmm *hmm = t->hmm;

	if (!t->n)
		return;
	for (unsigned i = 0; i < t->n; i++)
		homing_log(hmm, t->page[i].addr, t->page[i].addr + PAGE);
	transfer_start(t);
	give_transfer(peek->child, t);
	t->state = TRANSFER_CLAIMED;
	t->n = 0;
}

static void peek_add(struct peek *peek, struct hmm_devmem *devmem, uint64_t frame,
		     uintptr_t addr)
{
	struct hmm_transfer *t = peek->t;

	if (t->n == FORK_PAGES || (t->n && t->devmem != devmem))
		peek_flush(peek);
	t->devmem = devmem;
	t->ctx = peek->child->ctx;
	t->page[t->n] = (struct moving){ .addr = addr, .frame = frame, .is = PAGE_BUFFER,
					 .host = t->hmm->pager->fresh + t->index * BLOCK +
						 t->n * PAGE };
	t->n++;
}

static void give_frame(struct peek *peek, struct hmm_devmem *devmem, uint64_t frame,
		       uintptr_t addr)
{
	if (devmem->options.host_frames)
		give(peek->child, addr, frame_host(devmem, frame));
	else if (devmem->options.type == HMM_DEVMEM_PRIVATE)
		peek_add(peek, devmem, frame, addr);
}

static void give_limbo(struct peek *peek)
{
	struct pager *pager = peek->child->hmm->pager;

	for (unsigned i = 0; i < pager->limbo_n; i++) {
		const struct limbo_entry *e = &pager->limbo[i];

		if (e->unmapped && e->ctx == peek->child->ctx &&
		    (e->host || !e->devmem->options.host_frames))
			give_frame(peek, e->devmem, e->frame, e->addr);
	}
}

void forked_child(struct hmm *hmm, unsigned ctx, int fd)
{
	struct pager *pager = hmm->pager;
	struct child child = { .hmm = hmm, .ctx = ctx, .fd = fd };
	struct peek peek = { .child = &child, .t = pager->fork_transfer };
	uint64_t entry;

	for (unsigned i = 0; i < TRANSFERS; i++)
		if (pager->transfer[i].state != TRANSFER_FREE) /* CLAIMED: taken half */
			give_transfer(&child, &pager->transfer[i]);
	for (uintptr_t at = 0; books_next(hmm, &at, UINTPTR_MAX, &entry); at += PAGE)
		if (book_state(entry) == BOOK_AWAY && book_ctx(entry) == ctx)
			give_frame(&peek, pager->devmem[book_devmem(entry)], book_frame(entry),
				   at);
	give_limbo(&peek);
	peek_flush(&peek);
	pager->fork_transfer->devmem = NULL;
	hmm->os->child_close(fd);
}

void fork_prepare(struct hmm *hmm)
{
	struct request home = { .kind = REQUEST_HOME, .end = UINTPTR_MAX, .fork = true };

	/* Before a pager is looked for: another thread may be making the first one. */
	atomic_fetch_add(&hmm->forking, 1);
	if (!hmm->pager)
		return;
	home.deadline = hmm->os->now() + FORK_NS;
	if (request_do(hmm, &home))
		hmm_log(HMM_LOG_ERROR, "fork: pages of a device did not come home in time: the "
			"child has zeros there if its parent exits");
}

void fork_done(struct hmm *hmm)
{
	atomic_fetch_sub(&hmm->forking, 1);
	hmm->os->wake((const uint32_t *)&hmm->forking);
}
