/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * frames - which page of the machine's memory a CPU finds at an address.
 *
 * /proc/self/pagemap has it, for whoever has CAP_SYS_ADMIN (to others every number is 0). As long
 * as a page is pinned its number is nobody else's, so equal numbers are the same page.
 */
#include <errno.h>
#include <unistd.h>

#include "os/live.h"

#define AT_ONCE 512u
#define PRESENT (UINT64_C(1) << 63)
#define NUMBER ((UINT64_C(1) << 55) - 1)

static ssize_t read_entries(const struct os_mm *mm, uint64_t *entry, size_t n, off_t at)
{
	ssize_t got = pread(mm->pagemap_fd, entry, n * sizeof(*entry), at);
	int fd;

	if (got >= 0 || (errno != EBADF && errno != EINVAL && errno != ESPIPE))
		return got;
	fd = proc_open(mm->pid, "pagemap"); /* the program has closed ours */
	if (fd < 0)
		return fd;
	got = pread(fd, entry, n * sizeof(*entry), at);
	close(fd);
	return got;
}

int live_page_frames(const struct os_mm *mm, uintptr_t start, size_t n, uint64_t *frames)
{
	uint64_t entry[AT_ONCE];

	for (size_t done = 0; done < n;) {
		size_t some = n - done < AT_ONCE ? n - done : AT_ONCE;
		off_t at = (off_t)((start / OS_PAGE_SIZE + done) * sizeof(*entry));
		ssize_t got = read_entries(mm, entry, some, at);

		if (got < (ssize_t)sizeof(*entry))
			return got < 0 && errno ? -errno : -EIO;
		for (size_t i = 0; i < (size_t)got / sizeof(*entry); i++) {
			frames[done] = entry[i] & PRESENT ? entry[i] & NUMBER : 0;
			if ((entry[i] & PRESENT) && !frames[done])
				return -EPERM;
			done++;
		}
	}
	return 0;
}
