/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * no_wp - preloaded: whoever write-protects memory through a userfaultfd is ended (G7).
 *
 * On a mapping of a DAX file a marker of write protection makes the next read spin for ever, and the next
 * write die; on other files guard pages do. The library only ever asks with an empty
 * range, which answers whether a change is pending; and PAGEMAP_SCAN marks private anonymous
 * memory, where a driver asks what was written to. It is allowed nothing else.
 */
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of uapi.h; Debian 12's headers are older. */
struct scan {
	uint64_t size, flags, start, end;
};

#define SCAN _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, 96)
#define SCAN_MARKS 1u

/* Is there a mapping in [start, end) that is of a file, or shared? */
static bool is_other(uint64_t start, uint64_t end)
{
	unsigned long long from, to, offset, inode;
	char line[600], shared;
	bool other = false;
	FILE *maps = fopen("/proc/self/maps", "re");

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%llx-%llx %*3c%c %llx %*x:%*x %llu", &from, &to, &shared,
			   &offset, &inode) == 5 &&
		    from < end && to > start && (inode || shared != 'p'))
			other = true;
	if (maps)
		fclose(maps);
	return other;
}

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
	if (request == SCAN) {
		const struct scan *scan = arg;

		if (scan->flags & SCAN_MARKS && is_other(scan->start, scan->end)) {
			fprintf(stderr, "marks of %#llx to %#llx\n",
				(unsigned long long)scan->start, (unsigned long long)scan->end);
			abort();
		}
	}
	return (int)syscall(SYS_ioctl, fd, request, arg);
}
