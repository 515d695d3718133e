/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * reader - messages to queues, and the gate (docs/gate.md).
 *
 *	seq odd; read; push; seq even; yield; no more messages: wake the worker
 *
 * Waking the worker costs as much as all the rest, and puts it in the way of the thread that
 * reading has just released, often on this CPU. So that one runs first. A fence that
 * waits for the worker wakes it itself. (A timer would cost more than what it saves.)
 *
 * Reading releases the threads whose changes the messages tell, so the gate is
 * closed (odd) before and opens (even) when the events can be waited for.
 *
 * G6: this thread waits for no lock, never allocates, never touches mirrored memory,
 * blocks all signals and makes no mapping change after its start. It waits for
 * nothing but messages.
 */
#include <errno.h>

#include "core/pager.h"

#define BATCH 16u
#define BATCHES 128u /* of one context, before the next one has its turn */

static __thread bool in_reader;

bool is_reader(void)
{
	return in_reader;
}

void gate_flip(struct hmm *hmm, struct gate *gate)
{
	atomic_fetch_add(&gate->seq, 1);
	if (gate->seq_waiters)
		hmm->os->wake((const uint32_t *)&gate->seq);
}

/*
 * What the messages mean for pages that are away (pager.h, L1): the books only, nothing moves here.
 * The last event's number does for all: a frame is kept a little longer.
 */
static void note_away(struct hmm *hmm, unsigned ctx, const struct os_msg *msgs, int n,
		      uint64_t number)
{
	for (int k = 0; k < n; k++) {
		if (hmm->pager)
			pager_message(hmm, ctx, &msgs[k], number);
		else if (msgs[k].kind == OS_MSG_FORK)
			hmm->os->child_close(msgs[k].child);
	}
}

/* One batch of one context. How many messages there were, or -errno. */
static int read_batch(struct hmm *hmm, unsigned i)
{
	struct gate *gate = &hmm->gate[i];
	struct os_msg msgs[BATCH];
	unsigned events = 0;
	int n;

	atomic_fetch_add(&gate->seq, 1);
	n = hmm->os->ctx_read(&hmm->os_ctx[i], msgs, BATCH);
	for (int k = 0; k < n; k++) {
		struct event event = { .kind = (enum event_kind)msgs[k].kind,
				       .start = msgs[k].start,
				       .end = msgs[k].end,
				       .to = msgs[k].to };

		if (msgs[k].kind == OS_MSG_FAULT)
			continue;
		queue_push(&gate->queue, &event);
		events++;
	}
	/* Before it opens: who fences and then looks shall find true books. */
	note_away(hmm, i, msgs, n, gate->queue.pushed);
	gate_flip(hmm, gate);
	if (events && worker_note(hmm) && !hmm->wake_owed)
		hmm->wake_owed = hmm->os->now();
	return n;
}

static bool undelivered(const struct hmm *hmm)
{
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (hmm->gate[i].queue.done != hmm->gate[i].queue.pushed)
			return true;
	return false;
}

static void wake_if_due(struct hmm *hmm, bool quiet)
{
	if (!hmm->wake_owed)
		return;
	if (!quiet && hmm->os->now() - hmm->wake_owed < WAKE_NS)
		return;
	hmm->wake_owed = 0;
	if (undelivered(hmm))
		worker_wake(hmm);
}

/* Every other context's FORK of these clones has been read, and the child filled. */
static void let_children_go(struct hmm *hmm)
{
	struct os_msg msgs[BATCH];
	int n = hmm->os->ctx_read(&hmm->os_ctx[CONTEXTS], msgs, BATCH);

	for (int k = 0; k < n; k++)
		if (msgs[k].kind == OS_MSG_FORK)
			hmm->os->child_close(msgs[k].child);
}

/* A FORK that finds no descriptor free stays to be read. */
static bool is_fatal(int err)
{
	return err < 0 && err != -EAGAIN && err != -EMFILE && err != -ENFILE && err != -ENOMEM;
}

bool reader_step(struct hmm *hmm, int64_t timeout_ns)
{
	int64_t pager_ns = pager_timeout(hmm);
	uint64_t ready = 0;

	if (pager_ns >= 0 && (timeout_ns < 0 || pager_ns < timeout_ns))
		timeout_ns = pager_ns;
	if (hmm->wake_owed) {
		hmm->os->yield();
		timeout_ns = 0;
	}
	hmm->os->ctx_poll(hmm->os_ctx, polled(hmm), timeout_ns, &ready);
	for (unsigned i = 0; i < CONTEXTS; i++) {
		int n = BATCH;

		/* Bounded: a thread with a signal pending asks for its page again and again. */
		for (unsigned b = 0; (ready >> i & 1) && n == (int)BATCH && b < BATCHES; b++)
			n = read_batch(hmm, i);
		if (is_fatal(n))
			mirror_kill(hmm, "a userfaultfd context cannot be read any more");
	}
	if (hmm->sentinel && (ready >> CONTEXTS & 1))
		let_children_go(hmm);
	if (hmm->pager)
		pager_turn(hmm);
	wake_if_due(hmm, !ready);
	return ready >> polled(hmm) & 1;
}

/*
 * Who kicks sleeps until the reader reads, so `stop` alone must not end it: a reader that
 * some other message woke would be gone, and the kicker asleep for ever. Without the first
 * context there is no kick.
 */
static bool at_end(struct hmm *hmm, bool kicked)
{
	return hmm->stop && (kicked || !hmm->os->ctx_is_ours(&hmm->os_ctx[0]));
}

void *reader_main(void *arg)
{
	struct hmm *hmm = arg;
	const struct os_ops *os = hmm->os;
	bool kicked = false;

	/* If it fails a closefrom() of the program would blind us: it is only less robust. */
	os->reader_isolate(hmm->os_ctx, polled(hmm));
	/* If that fails it looks by opening the files each time. */
	if (os->mm_open(&hmm->reader_mm, 0))
		hmm->reader_mm.maps_fd = hmm->reader_mm.pagemap_fd =
			hmm->reader_mm.tasks_fd = -1;
	in_reader = true;
	arena_never_wait();
	hmm->perf_err = os->perf_open(&hmm->perf);
	if (hmm->perf_err)
		hmm->perf = NULL;
	hmm->ready = 1;
	os->wake((const uint32_t *)&hmm->ready);
	while (!at_end(hmm, kicked))
		kicked = reader_step(hmm, hmm->dead ? (int64_t)TICK_NS : -1);
	if (hmm->perf)
		os->perf_close(hmm->perf);
	os->mm_close(&hmm->reader_mm);
	return NULL;
}
