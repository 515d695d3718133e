/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * range_log - what happened to which ranges lately, for who looked before and asks whether that holds.
 */
#include "core/core.h"

void range_log_add(const struct range_log *log, uintptr_t start, uintptr_t end)
{
	struct logged *slot = &log->slot[*log->added % log->slots];

	slot->start = start;
	slot->end = end;
	atomic_fetch_add(log->added, 1);
}

bool range_log_since(const struct range_log *log, uint64_t since, uintptr_t start,
		     uintptr_t end)
{
	uint64_t added = *log->added;

	/* One less than there are slots: the next one may be being written. */
	if (added - since >= log->slots - 1)
		return true;
	for (uint64_t i = since; i < added; i++) {
		const struct logged *slot = &log->slot[i % log->slots];

		if (slot->start < end && slot->end > start)
			return true;
	}
	return *log->added - since >= log->slots - 1;
}
