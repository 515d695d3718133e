/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * registering - what the mirror has registered lately, for who must not take a mapping for the
 * one that was there before.
 *
 * A mapping that nothing registers has no token, and nothing of it is moved. So it is the moment at which
 * a mapping is registered that ends what was known of its place: what the list of missing.c says of
 * a range holds as long as nothing that overlaps has been registered since.
 *
 * One writer at a time, under the register lock; readers take no lock. `begun` is ahead of the system
 * call, `done` behind it. Who notes `done`, and later finds nothing between that and `begun`, has
 * missed no call that could have come after the note.
 */
#include "core/core.h"

void registering_begin(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct registering *r = &hmm->registering;

	r->slot[r->begun % REGISTERINGS].start = start;
	r->slot[r->begun % REGISTERINGS].end = end;
	atomic_fetch_add(&r->begun, 1);
}

void registering_end(struct hmm *hmm)
{
	atomic_fetch_add(&hmm->registering.done, 1);
}

uint64_t registering_now(const struct hmm *hmm)
{
	return hmm->registering.done;
}

bool registering_since(const struct hmm *hmm, uint64_t since, uintptr_t start, uintptr_t end)
{
	const struct registering *r = &hmm->registering;
	uint64_t begun = r->begun;

	/* One less than there are slots: the next one may be being written. */
	if (begun - since >= REGISTERINGS - 1)
		return true;
	for (uint64_t i = since; i < begun; i++)
		if (r->slot[i % REGISTERINGS].start < end && r->slot[i % REGISTERINGS].end > start)
			return true;
	return r->begun - since >= REGISTERINGS - 1;
}
