/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * hold - what the kernel of the VM starts: opens a perf event, and becomes /lab/init.
 *
 * With the first event of a thread the kernel rewrites its scheduler's code, and with the
 * last it writes it back. A CPU that QEMU 7.2 emulates may run the breakpoint that stands
 * there meanwhile when it is long gone ("Oops: int3" in __schedule), and every mirror that
 * a test opens or closes would be a chance for that. While this event is open, and the
 * first process lives as long as the VM, nothing is rewritten.
 */
#include <linux/perf_event.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HELD 9 /* init closes it for what it starts */

int main(void)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_DUMMY,
		.exclude_kernel = 1,
	};
	long fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	if (fd < 0)
		perror("lab: perf_event_open");
	else if (dup2((int)fd, HELD) >= 0)
		close((int)fd);
	execl("/bin/sh", "sh", "/lab/init", (char *)NULL);
	perror("lab: /bin/sh");
	return 1;
}
