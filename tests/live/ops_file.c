/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ops_file - changes of what is behind a mapping: truncation, holes.
 *
 * Truncation and hole punching send no message to an address space (kernel-wide they
 * are an rmap walk). The device reads through the address: it sees the change at
 * once, as a fault past the end of the file or as zeros.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ops.h"

/* Past the end -EFAULT; when the file grows again, zeros: private copies went too. */
enum verdict op_truncate(struct area *a, struct device *dev)
{
	unsigned units = area_units(a), half = units / 2;

	SYS(ftruncate(a->fd, (off_t)(a->length / 2)));
	area_model_access(a, half, units, NONE);
	TRY(area_agrees(a, dev));
	SYS(ftruncate(a->fd, (off_t)(2 * a->length)));
	area_model_access(a, half, units, WRITE);
	area_model_zero(a, half, units);
	return area_agrees(a, dev);
}

/* Shared pages read as zeros; pages that a private mapping has copied stay. */
enum verdict op_punch(struct area *a, struct device *dev)
{
	unsigned from = area_units(a) / 4, to = area_units(a) / 2;

	if (fallocate(a->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)(from * a->unit), (off_t)((to - from) * a->unit))) {
		if (errno == EOPNOTSUPP)
			return live_skip("this filesystem punches no holes");
		FAILED("fallocate: %s", strerror(errno));
	}
	if (a->kind->flags & KIND_SHARED)
		area_model_zero(a, from, to);
	return area_agrees(a, dev);
}

enum verdict op_remove(struct area *a, struct device *dev)
{
	unsigned from = area_units(a) / 4, to = area_units(a) / 2;

	SYS(madvise(a->at + from * a->unit, (to - from) * a->unit, MADV_REMOVE));
	area_model_zero(a, from, to);
	TRY(area_gone(a, dev, from, to));
	return area_agrees(a, dev);
}
