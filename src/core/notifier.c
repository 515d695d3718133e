/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * notifier - who is told, and what readers compare.
 *
 * Laws:
 * - an invalidation raises the notifier's sequence before it calls back. A
 *   reader that looked before the change and takes the driver's lock after the
 *   callback sees the new sequence; one that installs before the callback has
 *   it taken away by the callback (G2; docs/gate.md);
 * - callbacks run on the worker alone, one at a time, under no lock of ours;
 * - a notifier is freed when it is out of the tree and no callback of it runs.
 */
#include <errno.h>
#include <unistd.h>

#include "core/pager.h"

#define LOG_SMALL 8u
#define LOG_LARGE 1024u
#define LARGE_LENGTH ((uintptr_t)1 << 30)

/* In the worker: the notifier whose callback runs. */
static __thread struct hmm_notifier *calling;

bool in_callback(void)
{
	return calling != NULL;
}

void callback_forget(void)
{
	calling = NULL;
}

static size_t notifier_size(unsigned log_size)
{
	return sizeof(struct hmm_notifier) + log_size * sizeof(struct told);
}

int hmm_notifier_insert(struct hmm *hmm, uintptr_t start, size_t length,
			const struct hmm_notifier_ops *ops, void *priv,
			struct hmm_notifier **out)
{
	unsigned log_size = length >= LARGE_LENGTH ? LOG_LARGE : LOG_SMALL;
	struct range_entry entry = { .start = start, .end = start + length };
	struct hmm_notifier *n;
	int err = hmm_check(hmm);

	if (err)
		return err;
	if (hmm->mm.pid)
		return error_say(-EOPNOTSUPP, "an attached process reports no changes");
	if (!out || !ops)
		return error_say(-EINVAL, "no operations, or nowhere to put the handle");
	err = struct_check(ops, ops->size, sizeof(*ops));
	if (err)
		return err;
	if (!ops->invalidate)
		return error_say(-EINVAL, "a notifier needs an invalidate operation");
	if (!length || length > UINTPTR_MAX - start)
		return error_say(-EOVERFLOW, "the range is empty or wraps");
	n = arena_alloc(hmm->arena, notifier_size(log_size));
	if (!n)
		return error_say(-ENOMEM, "no memory for a notifier");
	*n = (struct hmm_notifier){ .hmm = hmm, .start = start, .end = start + length,
				    .ops = ops, .priv = priv, .log_size = log_size };
	entry.value = (uintptr_t)n;
	lock_take(&hmm->notifiers_lock);
	entry.id = n->id = ++hmm->next_id;
	err = rangemap_insert(&hmm->notifiers, &entry);
	lock_drop(&hmm->notifiers_lock);
	if (err) {
		arena_free(hmm->arena, n, notifier_size(log_size));
		return error_say(err, "no memory for a notifier");
	}
	hmm_get(hmm);
	*out = n;
	return 0;
}

static void notifier_free(struct hmm_notifier *n)
{
	struct hmm *hmm = n->hmm;
	uintptr_t start = n->start, end = n->end;

	arena_free(hmm->arena, n, notifier_size(n->log_size));
	if (!hmm->dead)
		vmas_trim(hmm, start, end);
	hmm_put(hmm);
}

static bool pinned(struct hmm *hmm, const struct hmm_notifier *n)
{
	bool is;

	lock_take(&hmm->notifiers_lock);
	is = n->pins != 0;
	lock_drop(&hmm->notifiers_lock);
	return is;
}

void hmm_notifier_remove(struct hmm_notifier *n)
{
	struct hmm *hmm;

	if (!n)
		return;
	hmm = n->hmm;
	/* In a forked child: it was the parent's, and its memory goes with the process. */
	if (hmm->pid != getpid())
		return;
	lock_take(&hmm->notifiers_lock);
	rangemap_remove(&hmm->notifiers, n->start, n->id);
	n->removed = true;
	n->removed_inside = calling == n;
	lock_drop(&hmm->notifiers_lock);
	if (calling == n)
		return;
	atomic_fetch_add(&hmm->waiters, 1);
	for (;;) {
		uint32_t progress = hmm->progress;

		if (!pinned(hmm, n))
			break;
		hmm->os->wait((const uint32_t *)&hmm->progress, progress, 0);
	}
	atomic_fetch_sub(&hmm->waiters, 1);
	notifier_free(n);
}

bool notifiers_overlap_locked(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct range_entry e;

	return rangemap_first(&hmm->notifiers, start, end, &e);
}

bool notifiers_overlap(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	bool some;

	lock_take(&hmm->notifiers_lock);
	some = notifiers_overlap_locked(hmm, start, end);
	lock_drop(&hmm->notifiers_lock);
	return some;
}

static void note(struct hmm_notifier *n, const struct hmm_event *event)
{
	struct told *told = &n->log[n->seq & (n->log_size - 1)];

	told->start = event->start;
	told->end = event->end;
	atomic_fetch_add(&n->seq, 1);
}

static void call(struct hmm_notifier *n, const struct hmm_event *event)
{
	note(n, event);
	calling = n;
	n->ops->invalidate(n->priv, event);
	if (event->kind == HMM_EVENT_RELEASE && n->ops->release && !n->removed_inside)
		n->ops->release(n->priv);
	calling = NULL;
}

/* Its last use by the worker. Nothing of n may be touched after the lock is dropped
 * when another thread removed it: that thread frees it. */
static void unpin(struct hmm *hmm, struct hmm_notifier *n)
{
	bool removed, inside;

	lock_take(&hmm->notifiers_lock);
	n->pins--;
	removed = n->removed;
	inside = n->removed_inside;
	lock_drop(&hmm->notifiers_lock);
	if (inside) {
		calling = n; /* only to say that this thread is the worker, for hmm_put() */
		notifier_free(n);
		calling = NULL;
	} else if (removed) {
		atomic_fetch_add(&hmm->progress, 1);
		hmm->os->wake((const uint32_t *)&hmm->progress);
	}
}

void notifiers_tell(struct hmm *hmm, const struct hmm_event *event)
{
	struct range_entry e;
	bool more;

	lock_take(&hmm->notifiers_lock);
	more = rangemap_first(&hmm->notifiers, event->start, event->end, &e);
	while (more) {
		struct hmm_notifier *n = (struct hmm_notifier *)(uintptr_t)e.value;

		n->pins++;
		lock_drop(&hmm->notifiers_lock);
		call(n, event);
		unpin(hmm, n);
		lock_take(&hmm->notifiers_lock);
		more = rangemap_next(&hmm->notifiers, event->start, event->end, &e, &e);
	}
	lock_drop(&hmm->notifiers_lock);
}

bool notifier_changed(const struct hmm_notifier *n, uint64_t since, uintptr_t start,
		      uintptr_t end)
{
	uint64_t seq = n->seq;

	if (seq - since >= n->log_size)
		return true;
	for (uint64_t i = since; i < seq; i++) {
		const struct told *told = &n->log[i & (n->log_size - 1)];

		if (told->start < end && told->end > start)
			return true;
	}
	/* Were the slots read while a later invalidation reused them? The one being written
	 * now is number n->seq. */
	return n->seq - since >= n->log_size;
}

static int check_notified(const struct hmm_range *range)
{
	const struct hmm_notifier *n = range->notifier;

	if (!n || range->start >= range->end || range->start < n->start || range->end > n->end)
		return error_say(-EINVAL, "the range has no notifier, or the notifier does not "
					  "cover it");
	return 0;
}

int hmm_notifier_read_begin(struct hmm_range *range)
{
	int err = range ? struct_check(range, range->size, sizeof(*range)) : -EINVAL;

	if (!err)
		err = check_notified(range);
	if (!err)
		err = hmm_check_sleep(range->notifier->hmm);
	if (!err)
		err = fence_range(range->notifier->hmm, range->start, range->end);
	if (!err)
	{
		const struct pager *pager = range->notifier->hmm->pager;

		range->migrate_seq = pager ? pager->homing_seq : 0;
		range->notifier_seq = range->notifier->seq;
	}
	return err;
}

bool hmm_notifier_read_retry(const struct hmm_range *range)
{
	return range->notifier->hmm->dead ||
	       homing_changed(range->notifier->hmm, range->migrate_seq, range->start,
			      range->end) ||
	       notifier_changed(range->notifier, range->notifier_seq, range->start, range->end);
}
