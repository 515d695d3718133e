/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * unregister - what no notifier covers any more, and at the end everything, is given back.
 *
 * With what belongs to it, as it was registered (whole.c).
 */
#include "core/pager.h"

/* What has pages away stays registered; only the pager knows, and keeps it so. */
static bool unregister(struct hmm *hmm, const struct mirrored *m)
{
	struct request trim = { .kind = REQUEST_TRIM, .start = m->start, .end = m->end,
				.number = m->ctx };

	if (hmm->pager)
		return !request_do(hmm, &trim);
	hmm->os->ctx_unregister(&hmm->os_ctx[m->ctx], m->start, m->end);
	return true;
}

/* Is it this context's? */
static bool may_leave(struct hmm *hmm, unsigned ctx, const struct os_vma *piece)
{
	struct mirrored m;
	bool may;

	if (vmas_next(hmm, piece->start, piece->end, &m) && m.ctx != ctx)
		return false;
	if (!vmas_has_token(hmm, &hmm->mm, piece->start))
		return false;
	registering_begin(hmm, piece->start, piece->end);
	may = !hmm->os->ctx_register(&hmm->os_ctx[ctx], piece->start, piece->end);
	registering_end(hmm);
	return may;
}

/*
 * If no notifier covers any of it. Their lock is held over the system call: a notifier that is
 * inserted later faults later, and finds the VMA gone from the map.
 */
static bool leave(struct hmm *hmm, const struct mirrored *m)
{
	bool left;

	lock_take(&hmm->notifiers_lock);
	left = !notifiers_overlap_locked(hmm, m->start, m->end) && unregister(hmm, m);
	if (left)
		vmas_erase(hmm, m->ctx, m->start, m->end);
	lock_drop(&hmm->notifiers_lock);
	return left;
}

/*
 * With what belongs to it: the mapping may have grown, or been merged, since it was entered. (And what
 * has grown just now: it has no entry.)
 */
static void leave_whole(struct hmm *hmm, const struct mirrored *m)
{
	struct whole_asks asks = { .hmm = hmm, .mm = &hmm->mm, .ctx = m->ctx, .may = may_leave };
	struct mirrored all = *m;
	struct os_vma vma;
	struct whole whole;

	if (notifiers_overlap(hmm, m->start, m->end))
		return; /* without a look at what lies beside it */
	if (!hmm->os->vma_find(&hmm->mm, m->start, &vma) && vma.start <= m->start &&
	    !whole_of(&asks, &vma, &whole)) {
		all.start = whole.from < all.start ? whole.from : all.start;
		all.end = whole.to > all.end ? whole.to : all.end;
	}
	if (!leave(hmm, &all))
		return;
	whole = (struct whole){ .start = all.start, .end = all.end };
	for (unsigned i = 0; i < 2; i++)
		if (whole_cut(&asks, &whole, i, &vma)) {
			all.start = vma.start;
			all.end = vma.end;
			leave(hmm, &all);
		}
}

void vmas_trim(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct mirrored m;

	while (start < end && vmas_next(hmm, start, end, &m)) {
		lock_take(&hmm->register_lock);
		leave_whole(hmm, &m);
		lock_drop(&hmm->register_lock);
		start = m.end;
	}
}

static void unregister_one(struct hmm *hmm, const struct os_vma *vma)
{
	if (!vmas_has_token(hmm, &hmm->mm, vma->start))
		return;
	/* By us? Then registering again succeeds. (A number that was taken from us may be the
	 * program's own userfaultfd now.) */
	for (unsigned i = 0; i < CONTEXTS; i++) {
		if (!hmm->os->ctx_is_ours(&hmm->os_ctx[i]) ||
		    hmm->os->ctx_register(&hmm->os_ctx[i], vma->start, vma->end))
			continue;
		hmm->os->ctx_unregister(&hmm->os_ctx[i], vma->start, vma->end);
		return;
	}
}

void vmas_unregister_all(struct hmm *hmm)
{
	struct os_vma vma;
	uintptr_t at = 0;

	lock_take(&hmm->register_lock);
	while (!hmm->os->vma_find_fast(&hmm->mm, at, &vma)) {
		unregister_one(hmm, &vma);
		at = vma.end;
	}
	lock_drop(&hmm->register_lock);
}
