/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * evict - amdkfd's way: stop the queue, get all pages anew a little later, start it again.
 *
 * A user queue's jobs are not submitted through a driver, so there is no submit that could
 * notice and begin again. The first object that is evicted stops the queue; a thread waits
 * a moment, for changes come in bursts, then gets the pages of every object that has none. If
 * something was evicted meanwhile (the count of evictions says so) it begins again, without
 * having started the queue.
 *
 * An object whose memory is not there any more stays without pages: that is an error of who
 * launches something on it, not a reason to keep the others waiting.
 */
#include <time.h>

#include "userptr_private.h"

static struct timespec in_ms(unsigned ms)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	return t;
}

void userptr_evict(struct userptr_object *o)
{
	struct userptr *dev = o->dev;

	dev->evicted++;
	o->evicted = true;
	if (!dev->stopped) {
		dev->stopped = true;
		atomic_fetch_add(&dev->count.quiesced, 1);
		pthread_cond_broadcast(&dev->changed);
	}
	userptr_idle(dev, NULL, true);
}

int userptr_await_restore(struct userptr *dev)
{
	struct timespec end = in_ms(AGAIN_MS);
	int late = 0;

	while (dev->stopped && !dev->dead && !late)
		late = pthread_cond_timedwait(&dev->changed, &dev->lock, &end);
	if (dev->dead)
		return -ENODEV;
	return dev->stopped ? userptr_say(-EBUSY, "the queue is stopped: memory that it uses "
						  "changes all the time")
			    : 0;
}

/* Under `turn` and `lock`. */
static struct userptr_object *next_evicted(const struct userptr *dev)
{
	struct userptr_object *o = dev->objects;

	while (o && !o->evicted)
		o = o->next;
	return o;
}

/* Under `turn` and `lock`, which it drops. True: nothing has come between. */
static bool restore(struct userptr *dev)
{
	uint64_t before = dev->evicted;
	struct userptr_object *o;

	while ((o = next_evicted(dev))) {
		struct use use = { .object = o };

		o->evicted = false; /* until it is again */
		pthread_mutex_unlock(&dev->lock);
		userptr_get_pages(&use);
		pthread_mutex_lock(&dev->lock);
		if (dev->evicted != before)
			return false;
	}
	return dev->evicted == before;
}

static void try_restore(struct userptr *dev)
{
	pthread_mutex_lock(&dev->turn);
	pthread_mutex_lock(&dev->lock);
	if (restore(dev)) {
		dev->stopped = false;
		atomic_fetch_add(&dev->count.restores, 1);
		pthread_cond_broadcast(&dev->changed);
	} else {
		atomic_fetch_add(&dev->count.retries, 1);
	}
	pthread_mutex_unlock(&dev->lock);
	pthread_mutex_unlock(&dev->turn);
}

static void *restorer(void *arg)
{
	struct userptr *dev = arg;
	struct timespec until;

	pthread_mutex_lock(&dev->lock);
	while (!dev->closing) {
		if (!dev->stopped) {
			pthread_cond_wait(&dev->changed, &dev->lock);
			continue;
		}
		until = in_ms(dev->restore_delay_ms);
		while (!dev->closing &&
		       !pthread_cond_timedwait(&dev->changed, &dev->lock, &until))
			;
		pthread_mutex_unlock(&dev->lock);
		try_restore(dev);
		pthread_mutex_lock(&dev->lock);
	}
	pthread_mutex_unlock(&dev->lock);
	return NULL;
}

int userptr_restorer_start(struct userptr *dev)
{
	int err = pthread_create(&dev->restorer, NULL, restorer, dev);

	dev->has_restorer = !err;
	return -err;
}

void userptr_restorer_stop(struct userptr *dev)
{
	if (!dev->has_restorer)
		return;
	pthread_mutex_lock(&dev->lock);
	dev->closing = true;
	pthread_cond_broadcast(&dev->changed);
	pthread_mutex_unlock(&dev->lock);
	pthread_join(dev->restorer, NULL);
}
