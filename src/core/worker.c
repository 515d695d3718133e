/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * worker - queues to notifiers; runs every callback.
 *
 * For each event: the map of VMAs first (who finds no entry afterwards looks
 * anew), then the notifiers, then queue_done(), which fences wait for.
 *
 * A thread of its own, because a callback may malloc, free or munmap: fork()
 * holds malloc's locks while it waits for its message to be *read*, which the
 * reader does without us (probes/attacks/one_thread_malloc_fork_deadlock.c).
 */
#include <errno.h>

#include "core/pager.h"

/* Events of one queue before the next queue has its turn. */
#define TURN 32u
/* How often descriptors are looked at for having been taken away. */
#define IDENTITY_NS UINT64_C(1000000000)

/* What hmm->worker_idle says: until the next tick, or, nothing being mirrored, until woken. */
enum { BUSY, IDLE, IDLE_FOR_EVER };

bool worker_note(struct hmm *hmm)
{
	atomic_fetch_add(&hmm->work, 1);
	return hmm->worker_idle;
}

void worker_wake(struct hmm *hmm)
{
	if (worker_note(hmm))
		hmm->os->wake((const uint32_t *)&hmm->work);
}

void worker_entered(struct hmm *hmm)
{
	if (hmm->worker_idle == IDLE_FOR_EVER)
		worker_wake(hmm);
}

static void tell_progress(struct hmm *hmm)
{
	atomic_fetch_add(&hmm->progress, 1);
	if (hmm->waiters)
		hmm->os->wake((const uint32_t *)&hmm->progress);
}

bool worker_wait(struct hmm *hmm, const struct queue *queue, uint64_t target)
{
	if (queue->done >= target)
		return true;
	worker_wake(hmm); /* the reader may have left that to whoever waits first */
	atomic_fetch_add(&hmm->waiters, 1);
	for (;;) {
		uint32_t progress = hmm->progress;

		if (queue->done >= target || hmm->dead)
			break;
		hmm->os->wait((const uint32_t *)&hmm->progress, progress, 0);
	}
	atomic_fetch_sub(&hmm->waiters, 1);
	return queue->done >= target;
}

static void tell(struct hmm *hmm, enum hmm_event_kind kind, uintptr_t start, uintptr_t end)
{
	struct hmm_event event = { .size = sizeof(event), .kind = kind, .start = start,
				   .end = end };

	notifiers_tell(hmm, &event);
}

static void tell_remap(struct hmm *hmm, const struct event *e)
{
	struct hmm_event event = { .size = sizeof(event), .kind = HMM_EVENT_REMAP,
				   .start = e->start, .end = e->end, .peer = e->to,
				   .to_peer = true };

	notifiers_tell(hmm, &event);
	event.start = e->to;
	event.end = e->to + (e->end - e->start);
	event.peer = e->start;
	event.to_peer = false;
	notifiers_tell(hmm, &event);
}

static void tell_migrate(struct hmm *hmm, const struct event *e)
{
	struct hmm_event event = { .size = sizeof(event), .kind = HMM_EVENT_MIGRATE,
				   .start = e->start, .end = e->end, .owner = (void *)e->to };

	notifiers_tell(hmm, &event);
}

/* ctx: CONTEXTS for the side queue, whose events change no registration. */
static void deliver(struct hmm *hmm, unsigned ctx, const struct event *e)
{
	uintptr_t to_end = e->to + (e->end - e->start);
	struct leaving leaving = { .ctx = ctx, .start = { e->start }, .end = { e->end } };

	switch (e->kind) {
	case EVENT_UNMAP:
		if (ctx < CONTEXTS)
			vmas_leave(hmm, &leaving);
		tell(hmm, HMM_EVENT_UNMAP, e->start, e->end);
		break;
	case EVENT_CLEAR:
		tell(hmm, HMM_EVENT_CLEAR, e->start, e->end);
		break;
	case EVENT_REMAP:
		leaving.start[1] = e->to;
		leaving.end[1] = to_end;
		vmas_leave(hmm, &leaving);
		tell_remap(hmm, e);
		vmas_claim(hmm, ctx, e->to, to_end);
		vmas_claim(hmm, ctx, e->start, e->end);
		break;
	case EVENT_FORK:
		tell(hmm, HMM_EVENT_FORK, 0, UINTPTR_MAX);
		break;
	case EVENT_MIGRATE:
		tell_migrate(hmm, e);
		break;
	case EVENT_PLAIN:
		vmas_leave(hmm, &leaving);
		tell(hmm, HMM_EVENT_CLEAR, e->start, e->end);
		break;
	case EVENT_PROTECTION:
		tell(hmm, HMM_EVENT_PROTECTION, e->start, e->end);
		break;
	case EVENT_RELEASE:
		tell(hmm, HMM_EVENT_RELEASE, 0, UINTPTR_MAX);
		break;
	case EVENT_EVERYTHING:
		/* Lost with the events is which entries ended, and what another context's
		 * mapping was moved to: the token does not tell whose it is. */
		if (ctx < CONTEXTS)
			vmas_leave(hmm, &leaving);
		tell(hmm, HMM_EVENT_CLEAR, 0, UINTPTR_MAX);
		break;
	}
}

static bool turn(struct hmm *hmm, unsigned ctx, struct queue *queue)
{
	struct event event;
	uint64_t upto;
	unsigned n = 0;

	while (n < TURN && queue_take(queue, &event, &upto)) {
		deliver(hmm, ctx, &event);
		queue_done(queue, upto);
		tell_progress(hmm);
		n++;
	}
	return n != 0;
}

bool worker_step(struct hmm *hmm)
{
	bool did = false;

	for (unsigned i = 0; i < CONTEXTS; i++)
		did |= turn(hmm, i, &hmm->gate[i].queue);
	if (turn(hmm, CONTEXTS, &hmm->side_queue)) {
		requests_after(hmm);
		did = true;
	}
	if (hmm->dead && !atomic_exchange(&hmm->release_told, true)) {
		struct event release = { .kind = EVENT_RELEASE };

		hmm_log(HMM_LOG_ERROR, "the mirror is dead: %s", hmm->why_dead);
		deliver(hmm, CONTEXTS, &release);
	}
	return did;
}

static void check_identity(struct hmm *hmm, uint64_t now)
{
	if (hmm->dead || now - hmm->identity_checked < IDENTITY_NS)
		return;
	hmm->identity_checked = now;
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (!hmm->os->ctx_is_ours(&hmm->os_ctx[i]))
			mirror_kill(hmm, "a descriptor of it was closed by the program");
}

static bool anything_mirrored(const struct hmm *hmm)
{
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (hmm->gate[i].vmas)
			return true;
	return false;
}

/* The pager logs nothing itself: the taker of lines is the program's. */
static void say_lost(struct hmm *hmm)
{
	for (unsigned i = 0; hmm->pager && i < DEVMEMS; i++) {
		struct hmm_devmem *devmem = hmm->pager->devmem[i];
		uint64_t lost = devmem ? devmem->count.lost : 0;

		if (!devmem || lost == devmem->lost_said)
			continue;
		hmm_log(HMM_LOG_ERROR, "%llu pages were in the memory of a device that cannot give "
			"them back: touching them is SIGBUS",
			(unsigned long long)(lost - devmem->lost_said));
		devmem->lost_said = lost;
	}
}

/*
 * mprotect does not wait for us: a running job's permission is looked at in ticks. What
 * costs system calls is done by the clock, not at each wake-up: a fence may be waiting.
 */
static void tick(struct hmm *hmm)
{
	uint64_t now;

	if (!anything_mirrored(hmm))
		return;
	records_drain(hmm);
	now = hmm->os->now();
	if (now - hmm->ticked < TICK_NS)
		return;
	hmm->ticked = now;
	say_lost(hmm);
	hmm->os->handlers_arm();
	check_identity(hmm, now);
}

void *worker_main(void *arg)
{
	struct hmm *hmm = arg;

	while (!hmm->stop) {
		uint32_t work = hmm->work;
		bool ticks;

		if (worker_step(hmm))
			continue;
		ticks = anything_mirrored(hmm);
		hmm->worker_idle = ticks ? IDLE : IDLE_FOR_EVER;
		/* Who enters a first VMA after this look sees the line above. And `work` may have
		 * been read after threads_stop() had bumped it: `stop` was there before. */
		if (hmm->work == work && !hmm->stop && ticks == anything_mirrored(hmm))
			hmm->os->wait((const uint32_t *)&hmm->work, work, ticks ? TICK_NS : 0);
		hmm->worker_idle = BUSY;
		tick(hmm);
	}
	/* The last put has fenced: what is left was pushed by its own unregistering. */
	worker_step(hmm);
	return NULL;
}
