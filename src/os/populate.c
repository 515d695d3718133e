/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * populate - fault memory in without touching it.
 *
 * MADV_POPULATE_* answers where a touch would be a signal. Its EINVAL means that the
 * permission or the kind of the mapping forbids it, EHWPOISON broken memory: to us both are
 * what a device's fault gets, -EFAULT.
 */
#include <errno.h>
#include <sys/mman.h>

#include "os/live.h"
#include "os/uapi.h"

#define BLOCK_PAGES 1024u

int live_populate(uintptr_t start, uintptr_t end, bool write)
{
	int advice = write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;

	for (;;) {
		if (!madvise((void *)start, end - start, advice))
			return 0;
		if (errno == EINTR || errno == EAGAIN)
			continue;
		return errno == EINVAL || errno == EHWPOISON ? -EFAULT : -errno;
	}
}

/*
 * mincore() does not say the truth about files that the caller neither owns nor may
 * write: there everything counts as resident, and this reads it in. A failure leaves
 * pages unmapped that the device's fault will then bring.
 */
void live_populate_resident(uintptr_t start, uintptr_t end)
{
	unsigned char resident[BLOCK_PAGES];

	while (start < end) {
		size_t pages = (end - start) >> OS_PAGE_SHIFT, i = 0;

		if (pages > BLOCK_PAGES)
			pages = BLOCK_PAGES;
		if (!pages || mincore((void *)start, pages << OS_PAGE_SHIFT, resident))
			return;
		while (i < pages) {
			size_t first = i;

			while (i < pages && (resident[i] & 1))
				i++;
			if (i > first)
				live_populate(start + (first << OS_PAGE_SHIFT),
					      start + (i << OS_PAGE_SHIFT), false);
			else
				i++;
		}
		start += pages << OS_PAGE_SHIFT;
	}
}
