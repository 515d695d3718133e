/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fd - descriptors of ours in the program's table.
 *
 * Law: the table is the program's. We take high numbers, so that those it counts on
 * (the lowest free one, everything below FD_SETSIZE it hands to select) stay as they were,
 * and never close a number that has become another file meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/live.h"

/* Room at the top of what select() can name, for our contexts and /proc files. */
#define ROOM 64

int fd_move_high(int fd)
{
	struct rlimit limit;
	int base = FD_SETSIZE, high;

	if (fd < 0)
		return fd;
	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < FD_SETSIZE)
		base = (int)limit.rlim_cur;
	if (base < 2 * ROOM)
		return fd;
	high = fcntl(fd, F_DUPFD_CLOEXEC, base - ROOM);
	if (high < 0)
		return fd;
	close(fd);
	return high;
}

uint64_t fd_identity(int fd)
{
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return 0;
	/* Inode numbers of anonymous files are small and repeat on other devices. */
	return (uint64_t)st.st_ino ^ (uint64_t)st.st_dev << 40;
}

void fd_close_if(int fd, uint64_t identity)
{
	if (fd >= 0 && fd_identity(fd) == identity)
		close(fd);
}
