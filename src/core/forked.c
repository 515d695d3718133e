/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * forked - fork() and pages that are away.
 *
 * fork(): everything is home before, and nothing leaves until it is over. A child whose
 * parent exits at once would read zeros otherwise: nobody could fill its pages.
 *
 * A raw clone() runs no handler. Its EVENT_FORK is read in order with everything else, so the
 * frames have what the parent had: they are copied into the child, whose context is then
 * closed. The pager waits for the driver here, as nowhere else: until it has copied, nothing
 * that could change the bytes may be served.
 */
#include <errno.h>

#include "core/pager.h"

#define FORK_NS UINT64_C(5000000000)
#define CHILD_TRIES 1000

static void give_child(struct hmm *hmm, int child, uintptr_t addr, uintptr_t host)
{
	for (unsigned tries = 0; tries < CHILD_TRIES; tries++) {
		size_t done = 0;

		if (hmm->os->child_copy(child, addr, host, PAGE, &done) != -EAGAIN)
			return;
	}
}

/* A mapping that a child has empty. Asked once for each VMA. */
struct wiped {
	uintptr_t start, end;
	bool is;
};

static bool is_wiped(struct hmm *hmm, struct wiped *wiped, uintptr_t addr)
{
	struct os_vma vma;
	unsigned flags = 0;

	if (addr >= wiped->start && addr < wiped->end)
		return wiped->is;
	*wiped = (struct wiped){ .start = addr, .end = addr + PAGE };
	if (hmm->os->vma_find_fast(&hmm->mm, addr, &vma) || vma.start > addr)
		return false;
	hmm->os->vma_flags(addr, &flags);
	*wiped = (struct wiped){ .start = vma.start, .end = vma.end,
				 .is = flags & OS_VMA_WIPEONFORK };
	return wiped->is;
}

/* Until the driver has copied, or is given up. */
static void wait_copied(struct hmm_transfer *t)
{
	const struct os_ops *os = t->hmm->os;

	while (t->state == TRANSFER_COPYING && !t->devmem->lost && os->now() < t->deadline)
		os->sleep(20000);
	transfers_judge(t->hmm);
}

static void give_transfer(struct hmm *hmm, unsigned ctx, int child, struct hmm_transfer *t,
			  struct wiped *wiped)
{
	if (t->ctx != ctx)
		return;
	if (!t->out)
		wait_copied(t);
	for (unsigned i = 0; i < t->n; i++) {
		const struct moving *page = &t->page[i];

		if ((page->is == PAGE_BUFFER && (t->out || !page->err)) ||
		    (page->is == PAGE_DROPPED && page->unmapped && t->out))
			if (!is_wiped(hmm, wiped, page->addr))
				give_child(hmm, child, page->addr, page->host);
	}
}

/* What is in frames that have to be copied: bring it home, by way of the child. */
static void give_away(struct hmm *hmm, unsigned ctx, int child, uintptr_t addr,
		      struct wiped *wiped)
{
	unsigned tries = 0;

	while (book_state(books_get(hmm, addr)) == BOOK_AWAY && tries++ < TRANSFERS) {
		int n = arrive_begin(hmm, addr, (addr & ~(BLOCK - 1)) + BLOCK, WHY_FORK);
		uint64_t entry = books_get(hmm, addr);

		if (n > 0 && book_state(entry) == BOOK_MOVING) {
			give_transfer(hmm, ctx, child,
				      &hmm->pager->transfer[book_transfer(entry)], wiped);
			return;
		}
		transfers_look(hmm);
		hmm->os->sleep(20000);
	}
}

static void give_one(struct hmm *hmm, unsigned ctx, int child, uintptr_t addr, uint64_t entry,
		     struct wiped *wiped)
{
	struct hmm_devmem *devmem = hmm->pager->devmem[book_devmem(entry)];

	if (is_wiped(hmm, wiped, addr))
		return;
	if (devmem->options.host_frames)
		give_child(hmm, child, addr,
			   devmem->region[devmem->frame[book_frame(entry)].ctx] +
				   book_frame(entry) * PAGE);
	else
		give_away(hmm, ctx, child, addr, wiped);
}

void forked_child(struct hmm *hmm, unsigned ctx, int child)
{
	struct pager *pager = hmm->pager;
	struct wiped wiped = { 0 };
	uint64_t entry;

	for (unsigned i = 0; i < TRANSFERS; i++)
		if (pager->transfer[i].state != TRANSFER_FREE) /* CLAIMED: taken half */
			give_transfer(hmm, ctx, child, &pager->transfer[i], &wiped);
	for (uintptr_t at = 0; books_next(hmm, &at, UINTPTR_MAX, &entry); at += PAGE)
		if (book_state(entry) == BOOK_AWAY && book_ctx(entry) == ctx)
			give_one(hmm, ctx, child, at, entry, &wiped);
	for (unsigned i = 0; i < pager->limbo_n; i++) {
		const struct limbo_entry *e = &pager->limbo[i];

		if (e->unmapped && e->host && e->ctx == ctx)
			give_child(hmm, child, e->addr,
				   e->devmem->region[e->devmem->frame[e->frame].ctx] +
					   e->frame * PAGE);
	}
	hmm->os->child_close(child);
}

void fork_prepare(struct hmm *hmm)
{
	struct request home = { .kind = REQUEST_HOME, .end = UINTPTR_MAX, .fork = true };

	if (!hmm->pager)
		return;
	atomic_fetch_add(&hmm->pager->forking, 1);
	home.deadline = hmm->os->now() + FORK_NS;
	if (request_do(hmm, &home))
		hmm_log(HMM_LOG_ERROR, "fork: pages of a device did not come home in time: the "
			"child has zeros there if its parent exits");
}

void fork_done(struct hmm *hmm)
{
	if (!hmm->pager)
		return;
	atomic_fetch_sub(&hmm->pager->forking, 1);
	hmm->os->wake((const uint32_t *)&hmm->pager->forking);
}
