// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_fence - hmm_fence() of one mirrored page, idle, against the cheapest system call.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

#define CALLS 1000

struct fence {
	struct bench_dev dev;
	char *page;
};

static int fence_batch(void *arg, double *cost)
{
	struct fence *fence = arg;
	uint64_t start = tool_now();
	int err = 0;

	for (int i = 0; i < CALLS && !err; i++)
		err = hmm_fence(fence->dev.hmm, (uintptr_t)fence->page, BENCH_PAGE);
	*cost = (double)(tool_now() - start) / CALLS;
	return err;
}

static int getppid_batch(void *arg, double *cost)
{
	uint64_t start = tool_now();

	for (int i = 0; i < CALLS; i++)
		syscall(SYS_getppid);
	*cost = (double)(tool_now() - start) / CALLS;
	return 0;
}

void bench_fence(struct bench *bench)
{
	static const struct bench_title title = { "fence", "ns", "getppid()", "<= 2.5x" };
	struct fence fence;
	int err = bench_dev_open(&fence.dev);

	if (err) {
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
		return;
	}
	fence.page = bench_map(BENCH_PAGE);
	err = fence.page ? bench_dev_fault(&fence.dev, fence.page, 1, true) : -ENOMEM;
	if (err)
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
	else
		bench_pair(bench, &title, fence_batch, getppid_batch, &fence);
	if (fence.page)
		munmap(fence.page, BENCH_PAGE);
	bench_dev_close(&fence.dev);
}
