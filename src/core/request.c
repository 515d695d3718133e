/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * request - what other threads ask of the pager.
 *
 * A thread claims a slot, posts it, nudges the reader and sleeps. The slots are the
 * arena's: the pager never looks at the asking thread's stack, which may be away itself.
 *
 * What may only be done when devices have been told something (`after`) is posted at once too, and
 * the worker nudges the reader: who asks is woken once, not twice.
 */
#include <errno.h>

#include "core/pager.h"

#define LOOK_ON_NS UINT64_C(100000)

static struct request *claim(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	for (;;) {
		uint32_t freed = pager->freed;

		for (unsigned i = 0; i < REQUESTS; i++) {
			uint32_t free = REQUEST_FREE;

			if (atomic_compare_exchange_strong(&pager->request[i].state, &free,
							   REQUEST_CLAIMED))
				return &pager->request[i];
		}
		hmm->os->wait((const uint32_t *)&pager->freed, freed, 0);
	}
}

static void post(struct request *r, const struct request *want)
{
	r->kind = want->kind;
	r->transfer = want->transfer;
	r->devmem = want->devmem;
	r->start = want->start;
	r->end = want->end;
	r->number = want->number;
	r->deadline = want->deadline;
	r->after = want->after;
	r->fork = want->fork;
	r->moved = 0;
	r->err = 0;
	r->state = REQUEST_POSTED;
}

/*
 * Before it sleeps a thread looks on for about as long as a CPU takes to wake that has nothing else
 * to do. Whoever is ready to run on this one has it meanwhile.
 */
static void look_on(struct hmm *hmm, const struct request *r)
{
	uint64_t until = hmm->os->now() + LOOK_ON_NS;

	while (r->state == REQUEST_POSTED && hmm->os->now() < until)
		hmm->os->yield();
}

int request_do(struct hmm *hmm, struct request *want)
{
	struct pager *pager = hmm->pager;
	struct request *r = claim(hmm);

	if (want->after)
		atomic_fetch_add(&pager->afters, 1);
	post(r, want);
	/* Else the worker does, who comes so far after this look. */
	if (hmm->side_queue.done >= want->after)
		hmm->os->reader_nudge(hmm->os_ctx);
	look_on(hmm, r);
	while (r->state == REQUEST_POSTED)
		hmm->os->wait((const uint32_t *)&r->state, REQUEST_POSTED, 0);
	if (want->after)
		atomic_fetch_sub(&pager->afters, 1);
	want->moved = r->moved;
	want->err = r->err;
	r->state = REQUEST_FREE;
	atomic_fetch_add(&pager->freed, 1);
	hmm->os->wake((const uint32_t *)&pager->freed);
	return want->err;
}

static int run_out(struct request *r)
{
	struct hmm_transfer *t = r->transfer;
	int err;

	if (t->state == TRANSFER_CLAIMED) {
		err = leave_take(t);
		if (err == -EAGAIN)
			return err;
		r->err = err;
		t->next = 0;
		t->state = TRANSFER_TAKEN;
		if (!err)
			transfer_start(t);
		transfers_look(t->hmm);
	}
	if (t->state == TRANSFER_COPYING)
		return -EAGAIN;
	if (t->state == TRANSFER_COPIED) {
		transfers_judge(t->hmm); /* it may have ended this moment */
		if (leave_commit(t))
			return -EAGAIN;
		t->next = 0;
		t->state = TRANSFER_TAKEN;
	}
	return leave_return(t);
}

static int run_take(struct request *r)
{
	struct hmm_transfer *t = r->transfer;
	int err = leave_take(t);

	if (err == -EAGAIN)
		return err;
	r->err = err;
	t->next = 0;
	t->state = TRANSFER_TAKEN;
	return 0;
}

static int run_commit(struct request *r)
{
	struct hmm_transfer *t = r->transfer;

	if (leave_commit(t))
		return -EAGAIN;
	t->next = 0;
	return 0;
}

/* Of isolated pages that a driver has out and a fork needs: back, and not the driver's. */
static int abort_taken(struct hmm *hmm)
{
	int err = 0;

	for (unsigned i = 0; i < TRANSFERS; i++) {
		struct hmm_transfer *t = &hmm->pager->transfer[i];

		if (t->state != TRANSFER_TAKEN || !t->out || !t->devmem)
			continue;
		t->next = 0;
		err |= leave_return(t);
		t->next = 0;
	}
	return err ? -EAGAIN : 0;
}

static bool wanted(const struct request *r, uint64_t entry)
{
	if (book_state(entry) == BOOK_MOVING)
		return !r->devmem || r->devmem->hmm->pager->transfer[book_transfer(entry)].devmem ==
					     r->devmem;
	return !r->devmem || book_devmem(entry) == r->devmem->id;
}

/* Start all that can be started. How many pages are not at home yet. */
static uint64_t home_step(struct hmm *hmm, struct request *r)
{
	/* What is aside comes back to the books, or is dropped, as soon as all is read. */
	uint64_t entry, left = hmm->pager->aside_n, stuck = 0;

	for (uintptr_t at = r->start; books_next(hmm, &at, r->end, &entry); at += PAGE) {
		uintptr_t end = (at & ~(BLOCK - 1)) + BLOCK;
		int n = 0;

		if (!wanted(r, entry))
			continue;
		left++;
		if (book_state(entry) == BOOK_MOVING || (stuck >> book_devmem(entry) & 1))
			continue;
		n = arrive_begin(hmm, at, end < r->end ? end : r->end,
				 r->fork ? WHY_FORK : WHY_CALL);
		if (n > 0)
			r->moved += (uint64_t)n;
		else if (n == -EAGAIN && !transfers_free(hmm))
			break;
		else if (n == -EAGAIN) /* one devmem's turn is over, not another's */
			stuck |= UINT64_C(1) << book_devmem(entry);
	}
	return left;
}

static int run_home(struct hmm *hmm, struct request *r)
{
	if (r->fork && abort_taken(hmm))
		return -EAGAIN;
	if (!home_step(hmm, r))
		return 0;
	transfers_look(hmm);
	if (!home_step(hmm, r))
		return 0;
	if (r->deadline && hmm->os->now() > r->deadline) {
		r->err = -EBUSY;
		return 0;
	}
	return -EAGAIN;
}

/* Neighbours in frames come too if they are neighbours in memory. Pages begun, or an error. */
static int evict_from(struct hmm *hmm, uintptr_t addr, uint64_t frames)
{
	uintptr_t end = (addr & ~(BLOCK - 1)) + BLOCK;

	if (end > addr + frames * PAGE)
		end = addr + frames * PAGE;
	return arrive_begin(hmm, addr, end, WHY_CALL);
}

static int run_evict(struct hmm *hmm, struct request *r)
{
	bool left = false;
	int n = 0;

	for (uint64_t f = r->start; f < r->end && n != -EAGAIN; f++) {
		uintptr_t addr = r->devmem->frame[f].addr;
		uint64_t entry = addr ? books_get(hmm, addr) : 0;

		if (!entry || !wanted(r, entry))
			continue;
		if (book_state(entry) != BOOK_MOVING) {
			if (book_frame(entry) != f)
				continue;
			n = evict_from(hmm, addr, r->end - f);
			r->moved += n > 0 ? (uint64_t)n : 0;
		}
		left = true;
	}
	if (left && r->deadline && hmm->os->now() > r->deadline) {
		r->err = -EBUSY;
		return 0;
	}
	return left ? -EAGAIN : 0;
}

/* It does not wait in its slot: who holds the page may need one before he releases it. */
static int lock(struct request *r, uint64_t entry)
{
	struct frame *frame;

	if (book_state(entry) == BOOK_MOVING)
		return -EAGAIN;
	if (book_state(entry) != BOOK_AWAY || book_devmem(entry) != r->devmem->id)
		return -ENOENT;
	frame = &r->devmem->frame[book_frame(entry)];
	if (frame->locked)
		return -EAGAIN;
	frame->locked = 1;
	r->moved = book_frame(entry);
	return 0;
}

/* -EAGAIN: not done. */
static int run(struct hmm *hmm, struct request *r)
{
	uint64_t entry;

	switch (r->kind) {
	case REQUEST_OUT:
		return run_out(r);
	case REQUEST_TAKE:
		return run_take(r);
	case REQUEST_COMMIT:
		return run_commit(r);
	case REQUEST_RETURN:
		return leave_return(r->transfer);
	case REQUEST_HOME:
		return run_home(hmm, r);
	case REQUEST_EVICT:
		return run_evict(hmm, r);
	case REQUEST_DRAIN:
		return limbo_has(hmm, r->devmem) ? -EAGAIN : 0;
	case REQUEST_SETTLED:
		unsettled_clear(hmm, r->number);
		return 0;
	case REQUEST_SETTLE:
		r->err = unsettled_touches(hmm, r->start, r->end) ? -EINPROGRESS : 0;
		return 0;
	case REQUEST_TRIM:
		r->err = plain_if_home(hmm, (unsigned)r->number, r->start, r->end);
		return 0;
	case REQUEST_LOCK:
		entry = books_get(hmm, r->start);
		r->err = lock(r, entry);
		return 0;
	}
	return 0;
}

void requests_after(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	if (pager && pager->afters)
		hmm->os->reader_nudge(hmm->os_ctx);
}

/* Are the reader's descriptors gone, too? Then the kernel has unregistered everything: nothing comes home. */
static bool is_blind(struct hmm *hmm)
{
	bool blind = false;

	for (unsigned i = 0; i < CONTEXTS; i++) {
		int err = hmm->os->ctx_probe(&hmm->os_ctx[i]);

		blind |= err && err != -EAGAIN;
	}
	return blind;
}

/* May it be run? If the mirror dies the worker never comes so far, and a blind one does nothing at all. */
static bool is_due(struct hmm *hmm, struct request *r, bool blind)
{
	if (blind || (hmm->dead && hmm->side_queue.done < r->after))
		r->err = -ENODEV;
	return r->err || hmm->side_queue.done >= r->after;
}

void requests_run(struct hmm *hmm)
{
	bool blind = hmm->dead && is_blind(hmm);

	for (unsigned i = 0; i < REQUESTS; i++) {
		struct request *r = &hmm->pager->request[i];

		if (r->state != REQUEST_POSTED || !is_due(hmm, r, blind))
			continue;
		if (!r->err && run(hmm, r) == -EAGAIN)
			continue;
		r->state = REQUEST_DONE;
		hmm->os->wake((const uint32_t *)&r->state);
	}
}
