/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * work - the threads that may sleep, so that the fabric's need not: fences, page faults.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "odp_private.h"

#define OWN_ADVICE 64u /* of the target's own, that may wait */
#define TURNS 8u       /* one of them is advice's, where others wait */

static void do_work(struct odp_target *target, struct work *work)
{
	struct access *a = &work->access;
	struct odp_region *region = region_find(target, &work->key);

	if (!region) {
		work->result = -EACCES; /* revoked meanwhile */
		return;
	}
	switch (work->kind) {
	case WORK_FENCE:
		work->result = hmm_fence(target->hmm, a->addr, a->length);
		break;
	case WORK_ACCESS:
		work->result = access_wait(region, a);
		break;
	case WORK_ADVISE:
		work->result = access_advise(region, a, work->advice);
		break;
	}
	region_put(region);
}

/* ---- the queues; under work_lock ---- */

static void append(struct odp_target *target, struct work *work)
{
	struct work_queue *queue = work->kind == WORK_ADVISE ? &target->advice : &target->todo;

	work->next = NULL;
	*queue->end = work;
	queue->end = &work->next;
	pthread_cond_signal(&target->work_there);
}

static struct work *take_of(struct work_queue *queue)
{
	struct work *work = queue->first;

	queue->first = work->next;
	if (!queue->first)
		queue->end = &queue->first;
	return work;
}

/* O4: much advice must not stand before a fault that somebody waits for. So it has one turn in
 * TURNS, and never the last worker that there is for others. */
static struct work *take(struct odp_target *target)
{
	bool may = target->advice.first &&
		   (!target->advising || target->advising + 1 < target->n_workers);

	if (target->todo.first && !(may && ++target->turns % TURNS == 0))
		return take_of(&target->todo);
	return may ? take_of(&target->advice) : NULL;
}

static void hand_back(struct odp_target *target, struct work *work)
{
	if (!work->connection) {
		free(work);
		target->own_advice--;
		return;
	}
	work->next = target->done;
	target->done = work;
	if (!work->next)
		eventfd_write(target->wake, 1);
}

/* ---- the workers ---- */

/* Under work_lock, which it gives up meanwhile. */
static bool one(struct odp_target *target)
{
	struct work *work = take(target);
	bool advice;

	if (!work)
		return false;
	advice = work->kind == WORK_ADVISE;
	target->advising += advice;
	pthread_mutex_unlock(&target->work_lock);
	do_work(target, work);
	pthread_mutex_lock(&target->work_lock);
	target->advising -= advice;
	/* A long one goes behind the others. */
	if (work->result == -EINPROGRESS && !target->work_stop &&
	    !(work->connection && work->connection->closing))
		append(target, work);
	else
		hand_back(target, work);
	/* Who found advice, and might not take it, sleeps. */
	if (advice && target->advice.first)
		pthread_cond_signal(&target->work_there);
	return true;
}

bool work_one(struct odp_target *target)
{
	bool did;

	pthread_mutex_lock(&target->work_lock);
	did = one(target);
	pthread_mutex_unlock(&target->work_lock);
	return did;
}

static void *worker(void *arg)
{
	struct odp_target *target = arg;

	pthread_mutex_lock(&target->work_lock);
	for (;;) {
		if (one(target))
			continue;
		if (target->work_stop)
			break;
		pthread_cond_wait(&target->work_there, &target->work_lock);
	}
	pthread_mutex_unlock(&target->work_lock);
	return NULL;
}

void work_give(struct odp_target *target, struct work *work)
{
	work->connection->works++;
	pthread_mutex_lock(&target->work_lock);
	append(target, work);
	pthread_mutex_unlock(&target->work_lock);
}

struct work *work_taken(struct odp_target *target)
{
	struct work *done;

	pthread_mutex_lock(&target->work_lock);
	done = target->done;
	target->done = NULL;
	pthread_mutex_unlock(&target->work_lock);
	return done;
}

int work_advise(struct odp_target *target, const struct odp_key *key, uintptr_t start,
		size_t length, enum odp_advice advice)
{
	struct work *work = calloc(1, sizeof(*work));
	int err = 0;

	if (!work)
		return -ENOMEM;
	*work = (struct work){ .kind = WORK_ADVISE,
			       .piece = OF_NOBODY,
			       .key = *key,
			       .advice = advice,
			       .access = { .addr = start, .length = length } };
	pthread_mutex_lock(&target->work_lock);
	if (target->own_advice >= OWN_ADVICE)
		err = -EBUSY;
	else
		target->own_advice++, append(target, work);
	pthread_mutex_unlock(&target->work_lock);
	if (err)
		free(work);
	return err;
}

void work_queues_init(struct odp_target *target)
{
	target->todo.end = &target->todo.first;
	target->advice.end = &target->advice.first;
}

int workers_start(struct odp_target *target)
{
	unsigned n;

	work_queues_init(target);
	for (n = 0; n < target->n_workers; n++)
		if (pthread_create(&target->worker[n], NULL, worker, target))
			break;
	if (n == target->n_workers)
		return 0;
	target->n_workers = n;
	workers_stop(target);
	return -EAGAIN;
}

void workers_stop(struct odp_target *target)
{
	pthread_mutex_lock(&target->work_lock);
	target->work_stop = true;
	pthread_cond_broadcast(&target->work_there);
	pthread_mutex_unlock(&target->work_lock);
	for (unsigned n = 0; n < target->n_workers; n++)
		pthread_join(target->worker[n], NULL);
}
