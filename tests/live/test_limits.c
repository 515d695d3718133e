/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_limits - one case for each exception that docs/limits states, for each driver.
 *
 * Linux reports most changes of an address space, some of them late, twice, in the wrong
 * order or not at all. These are the latter.
 */
#include <stdio.h>

#include "limits.h"

static const struct {
	const char *name;
	limit_fn *run;
} limits[] = {
	{ "shmdt", limit_shmdt },
	{ "clone-vm-killed", limit_clone_vm_killed },
	{ "guard", limit_guard },
	{ "munmap-of-sealed", limit_sealed },
	{ "map-fixed-without-room", limit_no_room },
	{ "remap-after-unmap", limit_order_remap },
	{ "fork-after-unmap", limit_order_fork },
	{ "mremap-of-whole", limit_whole_mremap },
	{ "file-first-touch", limit_first_touch },
	{ "replaced-while-read", limit_replaced },
	{ "perf-overflow", limit_perf_overflow },
	{ "older-thread", limit_older_thread },
	{ "clone-vm-mprotect", limit_clone_vm_protects },
	{ "mprotect-while-running", limit_protect_running },
	{ "munmap-while-running", limit_unmap_running },
	{ "fork-child", limit_fork },
	{ "raw-clone-child", limit_raw_clone },
	{ "child-outlives-mirror", limit_child_lives_on },
	{ "closefrom", limit_closefrom },
	{ "numbers-reused", limit_numbers_reused },
	{ "own-userfaultfd", limit_own_userfaultfd },
	{ "read-only-shared-file", limit_read_only_file },
};
#define LIMITS (sizeof(limits) / sizeof(limits[0]))

struct pair {
	const struct driver *driver;
	limit_fn *run;
};

static enum verdict run_pair(const void *arg)
{
	const struct pair *pair = arg;

	return pair->run(pair->driver);
}

int main(int argc, char **argv)
{
	static struct live_case cases[2 * LIMITS];
	static struct pair pairs[2 * LIMITS];
	static char names[2 * LIMITS][64];
	size_t n = 0;

	for (unsigned d = 0; d < live_driver_count && d < 2; d++)
		for (size_t i = 0; i < LIMITS; i++, n++) {
			snprintf(names[n], sizeof(names[n]), "%s %s", live_drivers[d].name,
				 limits[i].name);
			pairs[n] = (struct pair){ &live_drivers[d], limits[i].run };
			cases[n] = (struct live_case){ .name = names[n],
						       .run = run_pair,
						       .arg = &pairs[n] };
		}
	return live_main(argc, argv, cases, n);
}
