/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * tell - from the library's event to libfabric's notify, by a thread that may wait.
 *
 * The worker must not call notify itself: notify takes mm_lock, and who holds mm_lock may
 * be in subscribe or valid, or in libfabric's own munmap of a pool. A worker that waits
 * there holds up every fence of the process.
 */
#include <errno.h>

#include "fabricmon_private.h"

static bool overlaps(const struct span *span, uintptr_t start, uintptr_t end)
{
	return span->start < end && start < span->end;
}

/* L1. The lock is held. When there is no room the last grows: more is forgotten than need
 * be. */
static void put(struct monitor *m, uintptr_t start, uintptr_t end)
{
	struct span *last = &m->pending[FABRICMON_PENDING - 1];

	if (m->pending_count < FABRICMON_PENDING) {
		m->pending[m->pending_count++] = (struct span){ start, end };
		return;
	}
	last->start = start < last->start ? start : last->start;
	last->end = end > last->end ? end : last->end;
}

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct monitor *m = priv;

	/* What is registered is pinned; of a pinned page the child gets the copy. */
	if (event->kind == HMM_EVENT_FORK)
		return;
	pthread_mutex_lock(&m->lock);
	put(m, event->start, event->end);
	pthread_cond_signal(&m->to_tell);
	pthread_mutex_unlock(&m->lock);
}

const struct hmm_notifier_ops fabricmon_notifier_ops = {
	.size = sizeof(fabricmon_notifier_ops),
	.invalidate = invalidate,
};

bool fabricmon_is_pending(struct monitor *m, uintptr_t start, uintptr_t end)
{
	bool found = false;

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < m->pending_count && !found; i++)
		found = overlaps(&m->pending[i], start, end);
	pthread_mutex_unlock(&m->lock);
	return found;
}

/*
 * L3. A range stays pending until notify has returned. While one is told the next goes to
 * the second place, so the one that grows (put) is never the one being told.
 */
void *fabricmon_teller(void *monitor)
{
	struct monitor *m = monitor;

	pthread_mutex_lock(&m->lock);
	while (!m->quit) {
		struct span span = m->pending[0];

		if (!m->pending_count) {
			pthread_cond_wait(&m->to_tell, &m->lock);
			continue;
		}
		pthread_mutex_unlock(&m->lock);
		m->fid.import_ops->notify(&m->fid, (void *)span.start,
					  span.end - span.start);
		atomic_fetch_add(&m->notified, 1);
		pthread_mutex_lock(&m->lock);
		m->pending_count--;
		for (unsigned i = 0; i < m->pending_count; i++)
			m->pending[i] = m->pending[i + 1];
	}
	pthread_mutex_unlock(&m->lock);
	return NULL;
}
