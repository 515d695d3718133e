/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* raw - changes by the system calls themselves. */
#include "raw.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int raw_munmap(char *at)
{
	return syscall(SYS_munmap, at, SIZE) ||
	       syscall(SYS_mmap, at, SIZE, RW, FLAGS | MAP_FIXED_NOREPLACE, -1, 0) !=
		       (long)at;
}

int raw_fixed(char *at)
{
	return syscall(SYS_mmap, at, SIZE, RW, FLAGS | MAP_FIXED, -1, 0) != (long)at;
}

int raw_dontneed(char *at)
{
	return syscall(SYS_madvise, at, SIZE, MADV_DONTNEED) != 0;
}

int raw_mremap(char *at)
{
	void *there = mmap(NULL, SIZE, PROT_NONE, FLAGS, -1, 0);

	return syscall(SYS_mremap, at, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, there) !=
		       (long)there ||
	       munmap(there, SIZE) ||
	       syscall(SYS_mmap, at, SIZE, RW, FLAGS | MAP_FIXED_NOREPLACE, -1, 0) !=
		       (long)at;
}
