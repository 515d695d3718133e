/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * records - changes of permission: perf's mapping records, or a second look.
 *
 * Every mmap, mprotect and brk of every thread is in a perf ring before its
 * system call returns. Whoever fences drains the rings (the reader never), and
 * pushes what touches a mirrored VMA to the side queue. Records of mmap count
 * too: they find what is reused without a message (shmdt; a CLONE_VM task that
 * was killed while it waited, probes/attacks/sigkill_of_clone_vm_task.c).
 *
 * Without perf the permissions of the mirrored VMAs of a range are read again
 * at each fence of it, and SysV segments, which leave without a message, always.
 */
#include <errno.h>

#include "core/core.h"

static void record(void *arg, uintptr_t start, uintptr_t end, int prot)
{
	struct hmm *hmm = arg;
	struct event event = { .kind = EVENT_PROTECTION, .start = start, .end = end };

	(void)prot;
	if (start < end && vmas_overlap(hmm, start, end))
		queue_push(&hmm->side_queue, &event);
}

/*
 * The rings may look drained to one thread before another has pushed what it drained.
 * `draining` is up from before the first until after the second: then wait for the lock.
 */
void records_drain(struct hmm *hmm)
{
	struct event everything = { .kind = EVENT_EVERYTHING, .end = UINTPTR_MAX };
	uint64_t before;

	if (!hmm->perf || (!hmm->os->perf_pending(hmm->perf) && !hmm->draining))
		return;
	lock_take(&hmm->side);
	before = hmm->side_queue.pushed;
	hmm->draining = true;
	if (hmm->os->perf_drain(hmm->perf, record, hmm) > 0)
		queue_push(&hmm->side_queue, &everything);
	hmm->draining = false;
	if (hmm->side_queue.pushed != before)
		worker_wake(hmm);
	lock_drop(&hmm->side);
}

uint64_t side_push(struct hmm *hmm, const struct event *event)
{
	uint64_t target;

	lock_take(&hmm->side);
	queue_push(&hmm->side_queue, event);
	target = hmm->side_queue.pushed;
	worker_wake(hmm);
	lock_drop(&hmm->side);
	return target;
}

/* Is this VMA still the SysV segment that was registered? Another mapping with the token may
 * have been moved here. */
static bool segment_holds(struct hmm *hmm, const struct mirrored *m, const struct os_vma *vma,
			  uintptr_t start)
{
	return (uint32_t)vma->inode == m->segment && vmas_has_token(hmm, &hmm->mm, start);
}

/*
 * Pushed first: who finds the map's entry changed, or gone, waits for what was pushed. And
 * all under the register lock, so that what was compared is still what the map says.
 */
static void changed(struct hmm *hmm, uintptr_t start, uintptr_t end, int prot)
{
	struct event event = { .kind = EVENT_PROTECTION, .start = start, .end = end };

	side_push(hmm, &event);
	vmas_set_prot(hmm, start, end, prot);
}

static void gone(struct hmm *hmm, const struct mirrored *m, uintptr_t start, uintptr_t end)
{
	struct event event = { .kind = EVENT_UNMAP, .start = start, .end = end };

	side_push(hmm, &event);
	vmas_erase(hmm, m->ctx, start, end);
}

/* One mirrored VMA: each mapping that is there now, and the holes between. */
static void compare_one(struct hmm *hmm, const struct mirrored *m)
{
	uintptr_t at = m->start;

	while (at < m->end) {
		struct os_vma vma;
		int err = hmm->os->vma_find_fast(&hmm->mm, at, &vma);
		uintptr_t from = err || vma.start > m->end ? m->end : vma.start;
		uintptr_t to;

		if (from > at)
			gone(hmm, m, at, from);
		else
			from = at;
		if (err || from >= m->end)
			return;
		to = vma.end < m->end ? vma.end : m->end;
		if (m->sysv && !segment_holds(hmm, m, &vma, from))
			gone(hmm, m, from, to);
		else if (vma.prot != m->prot)
			changed(hmm, from, to, vma.prot);
		at = to;
	}
}

void records_compare(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct mirrored m;

	lock_take(&hmm->register_lock);
	for (; start < end && vmas_next(hmm, start, end, &m); start = m.end)
		if (m.sysv || !hmm->perf)
			compare_one(hmm, &m);
	lock_drop(&hmm->register_lock);
}
