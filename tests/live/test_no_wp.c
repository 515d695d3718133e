/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_no_wp - the live table runs with no_wp.c preloaded; here it is shown to see what it is for:
 * a program that protects a page is ended, one that only asks is not.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

static int status_of(__u64 length)
{
	struct uffdio_writeprotect protect = { .range = { 0x10000, length } };
	int status;
	pid_t pid = fork();

	if (!pid) {
		/* The descriptor is no userfaultfd: nothing is protected in any case. */
		ioctl(0, UFFDIO_WRITEPROTECT, &protect);
		_exit(0);
	}
	return waitpid(pid, &status, 0) == pid ? status : -1;
}

int main(void)
{
	int asks = status_of(0), protects = status_of(4096);
	unsigned passed = asks == 0, failed = asks != 0;

	if (WIFSIGNALED(protects) && WTERMSIG(protects) == SIGABRT)
		passed++;
	else
		failed++;
	printf("%u passed, %u failed, 0 skipped\n", passed, failed);
	return failed != 0;
}
