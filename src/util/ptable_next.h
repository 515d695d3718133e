/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ptable_next - walk what is set in a table of <uhmm/ptable.h>.
 */
#ifndef UHMM_UTIL_PTABLE_NEXT_H
#define UHMM_UTIL_PTABLE_NEXT_H

#include <stdbool.h>

#include <uhmm/ptable.h>

/*
 * The first 4 KiB entry at or above *va and below end: its address and value. Costs what is
 * set. 2 MiB entries are not seen. Locks: as uhmm_ptable_clear(); without them it finds what was
 * set before, and may find what is being cleared.
 */
bool ptable_next(const struct uhmm_ptable *table, uintptr_t *va, uintptr_t end,
		 uint64_t *entry);

#endif
