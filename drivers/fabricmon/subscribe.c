/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * subscribe - a range is watched from now on; and valid: nothing has happened to it since.
 *
 * Both are called with mm_lock held. Registering a range waits for a fence, so for every
 * callback in the process, and one of them (another driver's, that closes a libfabric
 * object) may be waiting for mm_lock. So the watcher thread does it, and who asks waits
 * WATCH_NS at most: an answer that comes later is nobody's, the range is watched and
 * libfabric does not know (L4).
 */
#include <errno.h>
#include <sched.h>
#include <time.h>

#include "../watch/watch.h"
#include "fabricmon_private.h"

#define WATCH_NS 200000000l /* on two CPUs with ten busy threads 65 ms were seen */
#define WATCH_NS_GIB 100000000l /* and for each GiB: four times what it takes in small pages */
#define VALID_TRIES 20u	   /* looks at a mirror that is about to be quiet */

void *fabricmon_watcher(void *monitor)
{
	struct monitor *m = monitor;

	pthread_mutex_lock(&m->lock);
	while (!m->quit) {
		struct span span = m->question;
		int err;

		if (m->asked == m->answered) {
			pthread_cond_wait(&m->to_watch, &m->lock);
			continue;
		}
		pthread_mutex_unlock(&m->lock);
		err = watch_range(m->hmm, m->notifier, span.start, span.end - span.start);
		pthread_mutex_lock(&m->lock);
		m->answer = err;
		m->answered = m->asked;
		pthread_cond_broadcast(&m->watched);
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}

static struct timespec deadline(size_t length)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_nsec += WATCH_NS + (long)(length >> 30) * WATCH_NS_GIB;
	at.tv_sec += at.tv_nsec / 1000000000l;
	at.tv_nsec %= 1000000000l;
	return at;
}

/* The lock is held. Until the watcher has answered question @number, if there is time. */
static bool answered_by(struct monitor *m, uint64_t number, const struct timespec *at)
{
	while (m->answered < number)
		if (pthread_cond_timedwait(&m->watched, &m->lock, at))
			return m->answered >= number;
	return true;
}

static int ask(struct monitor *m, uintptr_t start, uintptr_t end)
{
	struct timespec at = deadline(end - start);
	int err = -EAGAIN;

	pthread_mutex_lock(&m->lock);
	if (m->running && answered_by(m, m->asked, &at)) {
		uint64_t number = ++m->asked;

		m->question = (struct span){ start, end };
		pthread_cond_signal(&m->to_watch);
		/* Whoever asks next waits for this answer first, so it is still there. */
		if (answered_by(m, number, &at) && m->answered == number)
			err = m->answer;
	}
	pthread_mutex_unlock(&m->lock);
	return err;
}

int fabricmon_subscribe(struct fid_mem_monitor *fid, const void *addr, size_t len)
{
	struct monitor *m = (struct monitor *)fid;
	uintptr_t start = (uintptr_t)addr;
	int err;

	/* F3: in a child neither the thread nor the state of our lock is to be relied on.
	 */
	err = hmm_try_fence(m->hmm, start, len);
	if (!err || err == -EAGAIN)
		err = ask(m, start, start + len);
	atomic_fetch_add(err ? &m->refused : &m->subscribed, 1);
	return err;
}

/*
 * F1. First that the mirror is quiet, then the pending: the other way round an event could
 * pass from one to the other between the looks. A change that is neither has been told;
 * notify had mm_lock then, which the caller has now, so what it found was put there
 * afterwards.
 */
bool fabricmon_valid(struct fid_mem_monitor *fid, const void *addr, size_t len)
{
	struct monitor *m = (struct monitor *)fid;
	uintptr_t start = (uintptr_t)addr;
	int err = hmm_try_fence(m->hmm, start, len);
	bool valid;

	for (unsigned tries = 1; err == -EAGAIN && tries < VALID_TRIES; tries++) {
		sched_yield();
		err = hmm_try_fence(m->hmm, start, len);
	}
	valid = !err && !fabricmon_is_pending(m, start, start + len);
	atomic_fetch_add(valid ? &m->valid : &m->invalid, 1);
	return valid;
}
