/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * no_wp - preloaded: whoever write-protects memory through a userfaultfd is ended (G7).
 *
 * On a mapping of a DAX file a marker of write protection makes the next read spin for ever, and the next
 * write die; on other files guard pages do. The library only ever asks with an empty
 * range, which answers whether a change is pending.
 */
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
	const struct uffdio_writeprotect *protect;
	va_list args;
	void *arg;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	protect = arg;
	if (request == UFFDIO_WRITEPROTECT && protect->range.len) {
		fprintf(stderr, "write protection of %#llx, %#llx bytes\n", protect->range.start,
			protect->range.len);
		abort();
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}
