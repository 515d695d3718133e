// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_look - what is mapped and present: snapshot, snapshot_pagemap, sparse_1tib.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#define LOOK_PAGES (UINT64_C(64) << 20 >> 12)
#define SPARSE_BYTES (UINT64_C(1) << 40)
#define SPARSE_PAGES 10000ul

struct look {
	struct bench_dev dev;
	char *memory;
	uint64_t *pfns;
	int pagemap;
	char *dense, *sparse;
};

/* All that a driver does for it: begin, snapshot, lock, retry. */
static int snapshot_batch(void *arg, double *cost)
{
	struct look *look = arg;
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = look->dev.hmm,
		.notifier = look->dev.notifier,
		.start = (uintptr_t)look->memory,
		.end = (uintptr_t)look->memory + LOOK_PAGES * BENCH_PAGE,
		.pfns = look->pfns,
	};
	uint64_t start = tool_now();
	bool stale;
	int err = hmm_notifier_read_begin(&range);

	if (!err)
		err = hmm_range_snapshot(&range);
	pthread_mutex_lock(&look->dev.lock);
	stale = hmm_notifier_read_retry(&range);
	pthread_mutex_unlock(&look->dev.lock);
	*cost = (double)(tool_now() - start) / LOOK_PAGES;
	if (!err && (stale || !(look->pfns[LOOK_PAGES - 1] & HMM_PFN_VALID)))
		err = -EIO;
	return err;
}

static int scan_batch(void *arg, double *cost)
{
	struct look *look = arg;
	uint64_t start = tool_now();
	int count = raw_scan(look->pagemap, look->memory, LOOK_PAGES * BENCH_PAGE);

	*cost = (double)(tool_now() - start) / LOOK_PAGES;
	return count < 0 ? count : 0;
}

static int pagemap_batch(void *arg, double *cost)
{
	struct look *look = arg;
	size_t bytes = LOOK_PAGES * sizeof(uint64_t);
	uint64_t start = tool_now();
	ssize_t got =
		pread(look->pagemap, look->pfns, bytes,
		      (off_t)((uintptr_t)look->memory / BENCH_PAGE * sizeof(uint64_t)));

	*cost = (double)(tool_now() - start) / LOOK_PAGES;
	return got == (ssize_t)bytes ? 0 : -EIO;
}

static int look_open(struct look *look, const char *name, struct bench *bench)
{
	int err = bench_dev_open(&look->dev);

	if (err) {
		bench_skip(bench, name, "%s", hmm_strerror(err));
		return err;
	}
	look->pagemap = raw_scan_open();
	if (look->pagemap >= 0)
		return 0;
	bench_skip(bench, name, "/proc/self/pagemap: %s", strerror(-look->pagemap));
	bench_dev_close(&look->dev);
	return look->pagemap;
}

static void look_close(struct look *look)
{
	close(look->pagemap);
	bench_dev_close(&look->dev);
}

void bench_snapshot(struct bench *bench)
{
	static const struct bench_title against_scan = { "snapshot", "ns/page",
							 "PAGEMAP_SCAN of the same",
							 "<= 1.15x" };
	static const struct bench_title against_pagemap = { "snapshot_pagemap", "ns/page",
							    "read() of /proc/self/pagemap",
							    NULL };
	struct look look;

	if (look_open(&look, against_scan.name, bench))
		return;
	look.memory = bench_map(LOOK_PAGES * BENCH_PAGE);
	if (look.memory) {
		memset(look.memory, 1, LOOK_PAGES * BENCH_PAGE);
		look.pfns = tool_alloc(LOOK_PAGES * sizeof(*look.pfns));
		bench_pair(bench, &against_scan, snapshot_batch, scan_batch, &look);
		bench_pair(bench, &against_pagemap, snapshot_batch, pagemap_batch, &look);
		free(look.pfns);
		munmap(look.memory, LOOK_PAGES * BENCH_PAGE);
	} else {
		bench_skip(bench, against_scan.name, "no memory");
	}
	look_close(&look);
}

static int count_run(const struct hmm_run *run, void *arg)
{
	*(uint64_t *)arg += (run->end - run->start) / BENCH_PAGE;
	return 0;
}

static int runs(struct look *look, char *memory, uint64_t bytes, double *cost)
{
	uint64_t start = tool_now(), pages = 0;
	int err = hmm_snapshot_runs(look->dev.hmm, (uintptr_t)memory,
				    (uintptr_t)memory + bytes, HMM_RUN_VALID, count_run,
				    &pages);

	*cost = (double)(tool_now() - start) / SPARSE_PAGES;
	if (!err && pages != SPARSE_PAGES)
		err = -EIO;
	return err;
}

static int sparse_batch(void *arg, double *cost)
{
	struct look *look = arg;

	return runs(look, look->sparse, SPARSE_BYTES, cost);
}

static int dense_batch(void *arg, double *cost)
{
	struct look *look = arg;

	return runs(look, look->dense, SPARSE_PAGES * BENCH_PAGE, cost);
}

void bench_sparse(struct bench *bench)
{
	static const struct bench_title title = { "sparse_1tib", "ns/page",
						  "the same pages side by side", NULL };
	const uint64_t step = SPARSE_BYTES / SPARSE_PAGES & ~(uint64_t)(BENCH_PAGE - 1);
	struct look look;

	if (look_open(&look, title.name, bench))
		return;
	look.sparse = bench_map(SPARSE_BYTES);
	look.dense = bench_map(SPARSE_PAGES * BENCH_PAGE);
	if (look.sparse && look.dense) {
		for (uint64_t i = 0; i < SPARSE_PAGES; i++) {
			look.sparse[i * step] = 1;
			look.dense[i * BENCH_PAGE] = 1;
		}
		bench_pair(bench, &title, sparse_batch, dense_batch, &look);
	} else {
		bench_skip(bench, title.name,
			   "no 1 TiB of address space (vm.overcommit_memory?)");
	}
	if (look.sparse)
		munmap(look.sparse, SPARSE_BYTES);
	if (look.dense)
		munmap(look.dense, SPARSE_PAGES * BENCH_PAGE);
	look_close(&look);
}
