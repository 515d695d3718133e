/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * unsettled - addresses whose DONTNEED may not have zapped yet.
 *
 * REMOVE is read before the zap. A page that left in between would come back after it.
 * So it does not leave until who wants it to has seen every other thread outside
 * madvise (os->madvise_settled) since.
 */
#include <errno.h>
#include <string.h>

#include "core/pager.h"

/* CPU time after which a thread is surely out of a zap that it was in, and how long we wait. */
#define SETTLE_BUDGET_NS UINT64_C(5000000)
#define SETTLE_TIMEOUT_NS UINT64_C(500000000)

/* Full: one that covers them all. Too much is unsettled then, for a moment. */
static void collapse(struct pager *pager)
{
	struct unsettled *all = &pager->unsettled[0];

	for (unsigned i = 1; i < pager->unsettled_n; i++) {
		const struct unsettled *one = &pager->unsettled[i];

		all->start = one->start < all->start ? one->start : all->start;
		all->end = one->end > all->end ? one->end : all->end;
		all->number = one->number > all->number ? one->number : all->number;
	}
	pager->unsettled_n = 1;
}

void unsettled_add(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;
	uint64_t number = atomic_fetch_add(&pager->removes, 1) + 1;

	for (unsigned i = 0; i < pager->unsettled_n; i++) {
		struct unsettled *one = &pager->unsettled[i];

		if (one->start == start && one->end == end) {
			one->number = number;
			return;
		}
	}
	if (pager->unsettled_n == UNSETTLED)
		collapse(pager);
	pager->unsettled[pager->unsettled_n++] =
		(struct unsettled){ .start = start, .end = end, .number = number };
}

bool unsettled_touches(const struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	const struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < pager->unsettled_n; i++)
		if (pager->unsettled[i].start < end && start < pager->unsettled[i].end)
			return true;
	return false;
}

bool unsettled_has(const struct hmm *hmm, uintptr_t page)
{
	return unsettled_touches(hmm, page, page + PAGE);
}

void unsettled_clear(struct hmm *hmm, uint64_t number)
{
	struct pager *pager = hmm->pager;
	unsigned kept = 0;

	for (unsigned i = 0; i < pager->unsettled_n; i++)
		if (pager->unsettled[i].number > number)
			pager->unsettled[kept++] = pager->unsettled[i];
	pager->unsettled_n = kept;
	if (number > pager->settled)
		pager->settled = number;
}

int unsettled_end(struct hmm *hmm)
{
	struct request settled = { .kind = REQUEST_SETTLED, .number = hmm->pager->removes };
	int err = hmm->os->madvise_settled(SETTLE_BUDGET_NS, SETTLE_TIMEOUT_NS);

	return err ? err : request_do(hmm, &settled);
}

int unsettled_wait(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct request ask = { .kind = REQUEST_SETTLE, .start = start, .end = end };

	/* What is read after this look raises a sequence. */
	if (!hmm->pager || hmm->pager->removes == hmm->pager->settled || !request_do(hmm, &ask))
		return 0;
	return unsettled_end(hmm) ? error_say(-EBUSY, "another thread discards this memory all the "
					      "time") : 1;
}
