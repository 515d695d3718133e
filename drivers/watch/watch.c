/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * watch - a look with a notifier, for its side effect: the mappings are registered.
 *
 * No read_retry at the end: the answer is used for nothing. A change after a mapping was
 * registered is an event, also if it comes before we return, and that is all that is
 * promised.
 */
#include <errno.h>

#include "watch.h"

#define PAGE ((uintptr_t)4096)
#define PIECE 512u /* pages a look: what its entries take on the stack is a page */
#define TRIES 200u /* of a piece that changes under each look */

static int watch_piece(struct hmm *hmm, struct hmm_notifier *notifier, uintptr_t start,
		       uintptr_t end)
{
	uint64_t pfns[PIECE] = { 0 };
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = hmm,
		.notifier = notifier,
		.start = start,
		.end = end,
		.pfns = pfns,
	};
	int err = -EBUSY;

	for (unsigned tries = 0; tries < TRIES && err == -EBUSY; tries++) {
		err = hmm_notifier_read_begin(&range);
		if (!err)
			err = hmm_range_snapshot(&range);
	}
	if (err)
		return err == -EBUSY ? -EAGAIN : err;
	for (size_t i = 0; i < (end - start) / PAGE; i++)
		if (pfns[i] & HMM_PFN_ERROR)
			return -EOPNOTSUPP;
	return 0;
}

int watch_range(struct hmm *hmm, struct hmm_notifier *notifier, uintptr_t addr,
		size_t length)
{
	uintptr_t at = addr & -PAGE, end;
	int err, first = 0;

	if (!length)
		return 0;
	if (length > UINTPTR_MAX - PAGE - addr)
		return -EOVERFLOW;
	end = (addr + length + PAGE - 1) & -PAGE;
	/* After a piece that cannot be, the others still are: better than none. */
	for (; at < end; at += PIECE * PAGE) {
		err = watch_piece(hmm, notifier, at,
				  end - at > PIECE * PAGE ? at + PIECE * PAGE : end);
		if (err && err != -EOPNOTSUPP)
			return err;
		first = first ? first : err;
	}
	return first;
}
