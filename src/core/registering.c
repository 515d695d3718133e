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

static struct range_log calls(struct registering *r)
{
	return (struct range_log){ r->slot, REGISTERINGS, &r->begun };
}

void registering_begin(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	const struct range_log log = calls(&hmm->registering);

	range_log_add(&log, start, end);
}

void registering_end(struct hmm *hmm)
{
	atomic_fetch_add(&hmm->registering.done, 1);
}

uint64_t registering_now(const struct hmm *hmm)
{
	return hmm->registering.done;
}

bool registering_since(struct hmm *hmm, uint64_t since, uintptr_t start, uintptr_t end)
{
	const struct range_log log = calls(&hmm->registering);

	return range_log_since(&log, since, start, end);
}
