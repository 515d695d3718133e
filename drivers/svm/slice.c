/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * slice - who has a block, until when, and how long the next one will.
 */
#include <stdbool.h>
#include <stddef.h>

#include "slice.h"

uint64_t svm_slice_left(const struct svm_slice *slice, uint64_t block, const void *to,
			uint64_t now)
{
	uint64_t been = now - slice->moved;

	if (!slice->to || slice->to == to || slice->block != block || been >= slice->ns)
		return 0;
	return slice->ns - been;
}

void svm_slice_moved(struct svm_slice *slice, uint64_t block, const void *to, uint64_t now,
		     uint64_t base, uint64_t most)
{
	/* As long again as it lasted, nobody else wanted it: then it is no fight. */
	bool again = slice->to && slice->block == block &&
		     now - slice->moved < 2 * slice->ns;
	uint64_t ns = again ? slice->ns : base;

	if (again && slice->to != to)
		ns = ns < most / 2 ? 2 * ns : most;
	*slice = (struct svm_slice){ block, to, now, ns };
}
