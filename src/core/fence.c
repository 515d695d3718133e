/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fence - G1: what has happened to a range has been delivered.
 *
 * For each context that the range uses:
 *
 *	1  s = seq; odd: wait
 *	2  probe: is a change pending? then wait; from 1
 *	3  seq == s? else from 1
 *	4  wait until done reaches what is pushed now
 *
 * A change that let go of the address space before 1 has, at 2, either its
 * message unread (the probe says so) or read. Read before 1: pushed before s
 * was even, so 4 waits for it. Read between 1 and 2: 3 sees it.
 *
 * Threads in a loop of madvise(DONTNEED) keep 2 busy for good. After STORM_NS
 * the fence tells what it was asked for CLEAR instead: no device has then any
 * translation that is older than the fence, which is more than G1 asks.
 *
 * Then the same for the perf records. docs/gate.md has the whole argument.
 */
#include <errno.h>

#include "core/core.h"

/* VMAs that a storm's CLEAR names one by one. */
#define CLEAR_SINGLY 256u

static void wait_even(struct hmm *hmm, struct gate *gate)
{
	atomic_fetch_add(&gate->seq_waiters, 1);
	for (;;) {
		uint32_t seq = gate->seq;

		if (!(seq & 1))
			break;
		hmm->os->wait((const uint32_t *)&gate->seq, seq, 1000000);
		if (hmm->dead)
			break;
	}
	atomic_fetch_sub(&gate->seq_waiters, 1);
}

static int lost(struct hmm *hmm)
{
	mirror_kill(hmm, "a descriptor of it was closed by the program");
	return hmm_check(hmm);
}

/* Steps 1 to 3, waiting for nobody. 0 quiet; -EAGAIN a change is pending or was just read; -ENODEV. */
static int look_once(struct hmm *hmm, unsigned i)
{
	struct gate *gate = &hmm->gate[i];
	uint32_t seq = gate->seq;
	int err;

	if (seq & 1)
		return -EAGAIN;
	err = hmm->os->ctx_probe(&hmm->os_ctx[i]);
	if (err && err != -EAGAIN)
		return lost(hmm);
	/* A system call orders nothing by itself, except on x86. */
	atomic_thread_fence(memory_order_seq_cst);
	return !err && gate->seq == seq ? 0 : -EAGAIN;
}

static int look_quiet(struct hmm *hmm, unsigned i)
{
	if (hmm->gate[i].seq & 1) {
		wait_even(hmm, &hmm->gate[i]);
		return hmm->dead ? hmm_check(hmm) : -EAGAIN;
	}
	return look_once(hmm, i);
}

/*
 * Step 4, also for a context whose entry has just left: the worker takes it out of the map
 * before it tells the notifiers.
 */
static int wait_pushed(struct hmm *hmm, unsigned i)
{
	const struct queue *queue = &hmm->gate[i].queue;

	return worker_wait(hmm, queue, queue->pushed) ? 0 : hmm_check(hmm);
}

int fence_quiet(struct hmm *hmm, unsigned i)
{
	uint64_t began = 0, pause = 2000;
	int err;

	while ((err = look_quiet(hmm, i)) == -EAGAIN) {
		uint64_t now = hmm->os->now();

		if (!began)
			began = now;
		else if (now - began > STORM_NS)
			return -EAGAIN;
		hmm->os->sleep(pause);
		pause = pause < 50000 ? pause * 2 : pause;
	}
	return err;
}

/* Steps 1 to 4. As fence_quiet(). */
static int fence_context(struct hmm *hmm, unsigned i)
{
	int err = fence_quiet(hmm, i);

	return err ? err : wait_pushed(hmm, i);
}

static int wait_side(struct hmm *hmm, uint64_t target)
{
	return worker_wait(hmm, &hmm->side_queue, target) ? 0 : hmm_check(hmm);
}

/*
 * Every translation lies in an entry of the map (entries leave with an invalidation), so
 * the entries of the contexts are all that has to go. Of a long list, the range.
 */
int fence_clear(struct hmm *hmm, unsigned mask, uintptr_t start, uintptr_t end)
{
	struct event event = { .kind = EVENT_CLEAR };
	unsigned pushed = 0;
	uint64_t target = 0;
	struct mirrored m;

	if (hmm->map_lost) {
		event.start = start;
		event.end = end;
		return wait_side(hmm, side_push(hmm, &event));
	}
	while (start < end && vmas_next(hmm, start, end, &m)) {
		event.start = m.start > start ? m.start : start;
		event.end = m.end < end ? m.end : end;
		if (++pushed > CLEAR_SINGLY)
			event.end = end;
		if ((mask >> m.ctx & 1) || pushed > CLEAR_SINGLY)
			target = side_push(hmm, &event);
		start = event.end;
	}
	return wait_side(hmm, target);
}

int fence_range(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct to_fence to = vmas_to_fence(hmm, start, end);
	unsigned storm = 0;

	for (unsigned i = 0; i < CONTEXTS; i++) {
		int err = 0;

		if (to.probe >> i & 1)
			err = fence_context(hmm, i);
		else if (to.wait >> i & 1)
			err = wait_pushed(hmm, i);
		if (err == -EAGAIN)
			storm |= 1u << i;
		else if (err)
			return err;
	}
	if (to.compare)
		records_compare(hmm, start, end);
	records_drain(hmm);
	if (storm) {
		int err = fence_clear(hmm, storm, start, end);

		/* An entry that was gone by then: its event is on its way. */
		for (unsigned i = 0; i < CONTEXTS && !err; i++)
			err = storm >> i & 1 ? wait_pushed(hmm, i) : 0;
		if (err)
			return err;
	}
	return wait_side(hmm, hmm->side_queue.pushed);
}

int hmm_fence(struct hmm *hmm, uintptr_t start, size_t length)
{
	int err = hmm_check_sleep(hmm);

	if (err)
		return err;
	if (length > UINTPTR_MAX - start)
		return error_say(-EOVERFLOW, "the range wraps around the end of the address space");
	return length ? fence_range(hmm, PAGE_DOWN(start), start + length) : 0;
}

/* Steps 1 to 4 as one look. */
static int try_context(struct hmm *hmm, unsigned i, bool probe)
{
	const struct queue *queue = &hmm->gate[i].queue;
	int err = probe ? look_once(hmm, i) : 0;

	return !err && queue->done < queue->pushed ? -EAGAIN : err;
}

bool fence_rests(struct hmm *hmm, unsigned i)
{
	return !try_context(hmm, i, true);
}

int hmm_try_fence(struct hmm *hmm, uintptr_t start, size_t length)
{
	uintptr_t end = start + length;
	struct to_fence to;
	int err = hmm_check(hmm);

	if (!err && hmm->mm.pid)
		err = error_say(-EOPNOTSUPP, "an attached process reports no changes");
	if (!err && length > UINTPTR_MAX - start)
		err = error_say(-EOVERFLOW, "the range wraps around the end of the address space");
	if (err || !length)
		return err;
	start = PAGE_DOWN(start);
	to = vmas_to_fence(hmm, start, end);
	for (unsigned i = 0; !err && i < CONTEXTS; i++)
		if ((to.probe | to.wait) >> i & 1)
			err = try_context(hmm, i, to.probe >> i & 1);
	if (err)
		return err;
	if (to.compare)
		records_compare(hmm, start, end);
	records_drain(hmm);
	return hmm->side_queue.done < hmm->side_queue.pushed ? -EAGAIN : 0;
}

int hmm_notifier_fence(struct hmm_notifier *notifier)
{
	struct hmm *hmm;
	int err;

	if (!notifier)
		return error_say(-EINVAL, "the notifier is NULL");
	hmm = notifier->hmm;
	err = hmm_check_sleep(hmm);
	return err ? err : fence_range(hmm, notifier->start, notifier->end);
}
