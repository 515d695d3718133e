/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * queue - events on their way to the worker, in fixed memory.
 *
 * One producer at a time, one consumer. Laws:
 * - pushing never waits and never fails. When the ring is full the event's
 *   content is dropped and `dropped` raised above its number; the consumer then
 *   treats everything as changed. (A reader that waited instead would deadlock
 *   with a callback that munmaps: docs/gate.md.)
 * - `done` reaches p only after all that was pushed up to p has been delivered,
 *   singly or by a collapse. Who read `pushed` and waits for `done` to reach it
 *   has waited for every event before.
 */
#ifndef UHMM_CORE_QUEUE_H
#define UHMM_CORE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "os/os.h"

#ifndef QUEUE_SLOTS /* tests/unit/test_queue_duel.c has fewer: full more often */
#define QUEUE_SLOTS 1024u
#endif

enum event_kind {
	EVENT_UNMAP = OS_MSG_UNMAP,
	EVENT_CLEAR = OS_MSG_REMOVE,
	EVENT_REMAP = OS_MSG_REMAP,
	EVENT_FORK = OS_MSG_FORK,
	EVENT_PROTECTION = OS_MSG_FORK + 1,
	EVENT_RELEASE,
	EVENT_MIGRATE,	  /* `to` is the owner */
	EVENT_PLAIN,	  /* the reader has unregistered it: forget it */
	EVENT_EVERYTHING, /* made by queue_take from a collapse */
};

struct event {
	enum event_kind kind;
	uintptr_t start, end, to;
};

struct queue {
	struct event *slots; /* QUEUE_SLOTS of them */
	_Atomic uint64_t pushed;
	_Atomic uint64_t done;
	_Atomic uint64_t dropped; /* every dropped event's number is below this */
};

/* Producer only. */
static inline void queue_push(struct queue *queue, const struct event *event)
{
	uint64_t pushed = queue->pushed;

	if (pushed - queue->done >= QUEUE_SLOTS)
		queue->dropped = pushed + 1; /* before `pushed` says that it is there */
	else
		queue->slots[pushed % QUEUE_SLOTS] = *event;
	queue->pushed = pushed + 1;
}

/*
 * Consumer only: the next event; *upto is what queue_done() takes when it has been
 * delivered. `dropped` is a number, not a flag: a flag cleared here could be the one
 * that a push, half done, has just set for an event that `pushed` does not count yet.
 */
static inline bool queue_take(struct queue *queue, struct event *event, uint64_t *upto)
{
	uint64_t pushed = queue->pushed, done = queue->done;

	if (pushed == done)
		return false;
	if (queue->dropped > done) {
		*event = (struct event){ .kind = EVENT_EVERYTHING, .end = UINTPTR_MAX };
		*upto = pushed;
		return true;
	}
	*event = queue->slots[done % QUEUE_SLOTS];
	*upto = done + 1;
	return true;
}

static inline void queue_done(struct queue *queue, uint64_t upto)
{
	queue->done = upto;
}

#endif
