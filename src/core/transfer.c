/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * transfer - up to a block of pages on their way, and the driver's copy of them.
 *
 * Life: FREE -> CLAIMED (by compare-and-swap: who migrates, or the pager) -> TAKEN ->
 * COPYING -> COPIED -> FREE. From CLAIMED on only the owner, from the request on only the
 * pager writes it; hmm_devmem_done() moves it from COPYING to COPIED and nothing else.
 *
 * A published range is compared by every look. Publishing comes before the devices
 * are told, so a look that misses it is one that their being told makes stale (L4).
 */
#include <errno.h>

#include "core/pager.h"

struct hmm_transfer *transfer_claim(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < TRANSFERS; i++) {
		struct hmm_transfer *t = &pager->transfer[i];
		uint32_t free = TRANSFER_FREE;

		if (!atomic_compare_exchange_strong(&t->state, &free, TRANSFER_CLAIMED))
			continue;
		t->out = t->exclusive = t->steps = false;
		t->n = t->next = t->copies = 0;
		t->err = 0;
		t->devmem = NULL;
		t->ctx = CONTEXTS;
		return t;
	}
	return NULL;
}

static void tell_free(struct hmm *hmm)
{
	atomic_fetch_add(&hmm->pager->freed, 1);
	hmm->os->wake((const uint32_t *)&hmm->pager->freed);
}

void transfer_free(struct hmm_transfer *t)
{
	struct hmm *hmm = t->hmm;
	uint32_t next = t->staged ? TRANSFER_DIRTY : TRANSFER_FREE;

	transfer_unpublish(t);
	t->state = t->stray ? TRANSFER_STRAY : next;
	if (t->state == TRANSFER_STRAY && !t->stray)
		t->state = next;
	tell_free(hmm);
}

void transfer_clean(struct hmm_transfer *t)
{
	t->staged = false;
	t->state = TRANSFER_FREE;
	tell_free(t->hmm);
}

void transfer_publish(struct hmm_transfer *t, uintptr_t start, uintptr_t end)
{
	t->start = start;
	t->end = end;
}

void transfer_unpublish(struct hmm_transfer *t)
{
	t->end = 0;
}

unsigned transfers_free(const struct hmm *hmm)
{
	unsigned n = 0;

	for (unsigned i = 0; i < TRANSFERS; i++)
		n += hmm->pager->transfer[i].state == TRANSFER_FREE;
	return n;
}

bool transfers_fair(const struct hmm_devmem *devmem, bool out)
{
	const struct pager *pager = devmem->hmm->pager;
	unsigned own = 0, left = 0;

	for (unsigned i = 0; i < TRANSFERS; i++) {
		const struct hmm_transfer *t = &pager->transfer[i];
		uint32_t state = t->state;

		left += state == TRANSFER_FREE;
		own += state != TRANSFER_FREE && state != TRANSFER_DIRTY && t->devmem == devmem &&
		       (out || !t->out || state == TRANSFER_STRAY);
	}
	return own < (own + left + 1) / 2;
}

bool transfers_cover(const struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	const struct pager *pager = hmm->pager;

	for (unsigned i = 0; pager && i < TRANSFERS; i++)
		if (pager->transfer[i].end > start && pager->transfer[i].start < end)
			return true;
	return false;
}

/*
 * Not while its entry is kept aside or to be judged (dropped.c): nobody knows yet where the page
 * belongs. (Whose change made it doubtful may go on at any moment, without another message.)
 */
bool transfer_placed(const struct hmm_transfer *t, unsigned i)
{
	uintptr_t addr = t->page[i].addr;

	/* (Of what a coherent device gets the books say nothing before it has it.) */
	return (t->out && is_coherent(t->devmem)) ||
	       (books_get(t->hmm, addr) == book_moving(t->ctx, t->index, i) &&
		!judging(t->hmm, addr, addr + PAGE));
}

static void add_copies(struct hmm_transfer *t)
{
	t->copies = 0;
	for (unsigned i = 0; i < t->n; i++) {
		struct moving *page = &t->page[i];

		if ((page->is != PAGE_BUFFER && page->is != PAGE_HOLE) ||
		    page->frame == NO_FRAME)
			continue;
		t->copy_of[t->copies] = (uint16_t)i;
		t->copy[t->copies++] = (struct hmm_devmem_copy){
			.addr = page->addr,
			.frame = page->frame,
			.host = page->is == PAGE_HOLE ? NULL : (void *)page->host,
		};
	}
}

/* Host frames have their pages already: there is nothing to copy. */
static void hide_host(struct hmm_transfer *t)
{
	for (unsigned i = 0; i < t->copies; i++)
		t->copy[i].host = NULL;
}

void transfer_start(struct hmm_transfer *t)
{
	struct hmm_devmem *devmem = t->devmem;
	bool nothing;

	add_copies(t);
	if (devmem->options.host_frames || is_coherent(devmem))
		hide_host(t);
	t->judged = false;
	t->deadline = t->hmm->os->now() + (uint64_t)devmem->options.timeout_ms * 1000000;
	t->state = TRANSFER_COPYING;
	nothing = !t->copies || (t->out && (devmem->options.host_frames || !devmem->ops.to_device));
	if (devmem->lost)
		hmm_devmem_done(t, -EIO);
	else if (nothing)
		hmm_devmem_done(t, 0);
	else if (t->out)
		devmem->ops.to_device(devmem->priv, t->copy, t->copies, t);
	else
		devmem->ops.to_host(devmem->priv, t->copy, t->copies, t);
}

void hmm_devmem_done(struct hmm_transfer *t, int err)
{
	uint32_t state = TRANSFER_STRAY;

	/* Given up long ago: the slot can be used again, that is all. */
	if (atomic_exchange(&t->stray, false)) {
		atomic_compare_exchange_strong(&t->state, &state,
					       t->staged ? TRANSFER_DIRTY : TRANSFER_FREE);
		return;
	}
	t->err = err;
	state = TRANSFER_COPYING;
	/* The driver may have copied before it returned: then the reader is awake. */
	if (atomic_compare_exchange_strong(&t->state, &state, TRANSFER_COPIED) && !is_reader())
		t->hmm->os->reader_nudge(t->hmm->os_ctx);
}

/*
 * The bytes are in the buffer still (out), or lost (home). What the driver may yet write to
 * is not used again until it has said that it is done.
 */
static void give_up(struct hmm_transfer *t)
{
	uint32_t copying = TRANSFER_COPYING;

	t->devmem->lost = true;
	t->stray = true;
	if (atomic_compare_exchange_strong(&t->state, &copying, TRANSFER_COPIED))
		t->err = -EIO;
	else
		t->stray = false; /* it was just done */
}

static bool overdue(const struct hmm_transfer *t)
{
	return t->devmem->lost || t->hmm->os->now() > t->deadline;
}

/* Once: what the driver said, page by page. */
static void judge(struct hmm_transfer *t)
{
	if (t->judged)
		return;
	t->judged = true;
	for (unsigned i = 0; i < t->copies; i++)
		t->page[t->copy_of[i]].err = t->err ? t->err : t->copy[i].err;
}

void transfers_judge(struct hmm *hmm)
{
	for (unsigned i = 0; i < TRANSFERS; i++) {
		struct hmm_transfer *t = &hmm->pager->transfer[i];

		if (t->state == TRANSFER_COPYING && overdue(t))
			give_up(t);
		if (t->state == TRANSFER_COPIED)
			judge(t);
	}
}

void transfers_look(struct hmm *hmm)
{
	transfers_judge(hmm);
	for (unsigned i = 0; i < TRANSFERS; i++) {
		struct hmm_transfer *t = &hmm->pager->transfer[i];

		if (t->state == TRANSFER_COPIED && !t->out && t->judged)
			arrive_finish(t);
	}
}

void transfers_release(struct hmm_devmem *devmem)
{
	for (unsigned i = 0; i < TRANSFERS; i++) {
		struct hmm_transfer *t = &devmem->hmm->pager->transfer[i];

		if (t->state == TRANSFER_STRAY && t->devmem == devmem) {
			t->stray = false;
			t->state = t->staged ? TRANSFER_DIRTY : TRANSFER_FREE;
		}
	}
}
