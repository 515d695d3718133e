/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * hush - hold the address space's lock for a moment.
 *
 * While it is held for writing no munmap, mremap or madvise of the process can begin; those that
 * have begun wait for their message to be read, and end without it. So a context that a storm of
 * changes keeps busy gets quiet, and UFFDIO_MOVE, which takes the locks of single VMAs, gets
 * through. Changing the permission of a few populated MiB of our own takes it long enough.
 */
#include <sys/mman.h>

#include "os/live.h"

void live_hush(void *region, size_t length)
{
	mprotect(region, length, PROT_READ);
	mprotect(region, length, PROT_READ | PROT_WRITE);
}
