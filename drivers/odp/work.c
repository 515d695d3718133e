/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * work - the threads that may sleep, so that the fabric's need not: fences, page faults.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "odp_private.h"

#define OWN_ADVICE 64u /* of the target's own, that may wait */

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

/* Under work_lock. */
static void append(struct odp_target *target, struct work *work)
{
	work->next = NULL;
	*target->todo_end = work;
	target->todo_end = &work->next;
	pthread_cond_signal(&target->work_there);
}

/* Under work_lock. */
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

static void *worker(void *arg)
{
	struct odp_target *target = arg;

	pthread_mutex_lock(&target->work_lock);
	for (;;) {
		struct work *work = target->todo;

		if (!work && target->work_stop)
			break;
		if (!work) {
			pthread_cond_wait(&target->work_there, &target->work_lock);
			continue;
		}
		target->todo = work->next;
		if (!target->todo)
			target->todo_end = &target->todo;
		pthread_mutex_unlock(&target->work_lock);
		do_work(target, work);
		pthread_mutex_lock(&target->work_lock);
		/* A long one goes behind the others. */
		if (work->result == -EINPROGRESS && !target->work_stop)
			append(target, work);
		else
			hand_back(target, work);
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

int workers_start(struct odp_target *target)
{
	unsigned n;

	target->todo_end = &target->todo;
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
