// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_unmap - what munmap of a range costs the program when a device has mapped it.
 *
 * The kernel holds the caller until the message is read, so any notifier built on
 * userfaultfd pays one round trip to its reader. The plain way is the least of them: a
 * context of its own and a thread that polls, reads and does nothing.
 */
#include <errno.h>
#include <sys/mman.h>

#include "bench.h"

#define CALLS 50
#define BYTES (16 * BENCH_PAGE)

struct unmap {
	struct bench_dev dev;
	struct raw_uffd raw;
};

static int one(struct unmap *unmap, bool mirror, uint64_t *ns)
{
	char *memory = bench_map(BYTES);
	uint64_t start;
	int err;

	if (!memory)
		return -ENOMEM;
	*memory = 1;
	err = mirror ? bench_dev_fault(&unmap->dev, memory, 1, false)
		     : raw_uffd_register(&unmap->raw, memory, BYTES);
	start = tool_now();
	munmap(memory, BYTES);
	*ns += tool_now() - start;
	return err;
}

static int batch(struct unmap *unmap, bool mirror, double *cost)
{
	uint64_t ns = 0;
	int err = 0;

	for (int i = 0; i < CALLS && !err; i++)
		err = one(unmap, mirror, &ns);
	*cost = (double)ns / CALLS;
	return err;
}

static int mirrored_batch(void *arg, double *cost)
{
	return batch(arg, true, cost);
}

static int raw_batch(void *arg, double *cost)
{
	return batch(arg, false, cost);
}

void bench_munmap(struct bench *bench)
{
	static const struct bench_title title = { "munmap_mirrored", "ns",
						  "userfaultfd UNMAP, poll and read",
						  "<= 1.15x" };
	struct unmap unmap;
	int err = bench_dev_open(&unmap.dev);

	if (err) {
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
		return;
	}
	err = raw_uffd_open(&unmap.raw);
	if (err) {
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
	} else {
		bench_pair(bench, &title, mirrored_batch, raw_batch, &unmap);
		raw_uffd_close(&unmap.raw);
	}
	bench_dev_close(&unmap.dev);
}
