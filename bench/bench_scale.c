// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_scale - does it cost more when there is more of it: notifiers_100k, vmas_60k.
 *
 * Here a side of the pair is a state of the whole mirror, so the turns are few: grow to the
 * large state, measure, shrink to the small one, measure.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "bench.h"

#define TURNS 3

#define FEW_NOTIFIERS 100ul
#define MANY_NOTIFIERS 100000ul
#define FEW_VMAS 60ul
#define MANY_VMAS 60000ul
#define OPERATIONS 2000ul /* notifiers: zaps in a turn */
#define BATCHES 50ul	  /* mappings: batches in a turn, of */
#define BATCH 1000ul	  /* fences */

static void add_medians(struct bench *bench, const struct bench_title *title,
			double large[TURNS], double small[TURNS], int err)
{
	if (err) {
		bench_skip(bench, title->name, "%s", hmm_strerror(err));
		bench->failed = true;
	} else {
		bench_add(bench, title, bench_percentile(large, TURNS, 50),
			  bench_percentile(small, TURNS, 50), NULL);
	}
}

/* ---- notifiers ---- */

struct notifiers {
	struct hmm *hmm;
	char *memory; /* MANY_NOTIFIERS pages; a notifier for each */
	struct hmm_notifier **list;
	size_t count;
	pthread_mutex_t lock;
	atomic_ulong calls;
};

static void count_call(void *priv, const struct hmm_event *event)
{
	struct notifiers *n = priv;

	pthread_mutex_lock(&n->lock);
	n->calls++;
	pthread_mutex_unlock(&n->lock);
}

static const struct hmm_notifier_ops count_ops = {
	.size = sizeof(count_ops),
	.invalidate = count_call,
};

static int grow_notifiers(struct notifiers *n, size_t count)
{
	int err = 0;

	while (n->count < count && !err) {
		err = hmm_notifier_insert(n->hmm,
					  (uintptr_t)n->memory + n->count * BENCH_PAGE,
					  BENCH_PAGE, &count_ops, n, &n->list[n->count]);
		n->count += !err;
	}
	return err;
}

static void shrink_notifiers(struct notifiers *n, size_t count)
{
	while (n->count > count)
		hmm_notifier_remove(n->list[--n->count]);
}

static int nothing(const struct hmm_range *range, void *arg)
{
	return 0;
}

/* Zap one page, wait until its notifier has been told; the page is among the first few. */
static int measure_notifiers(struct notifiers *n, double *cost)
{
	char *page = n->memory + FEW_NOTIFIERS / 2 * BENCH_PAGE;
	uint64_t pfn = 0, before = n->calls, start;
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = n->hmm,
		.notifier = n->list[FEW_NOTIFIERS / 2],
		.start = (uintptr_t)page,
		.end = (uintptr_t)page + BENCH_PAGE,
		.pfns = &pfn,
		.default_flags = HMM_PFN_REQ_FAULT,
	};
	int err = hmm_range_program(&range, 0, &n->lock, nothing, NULL);

	start = tool_now();
	for (size_t i = 0; i < OPERATIONS && !err; i++) {
		madvise(page, BENCH_PAGE, MADV_DONTNEED);
		err = hmm_fence(n->hmm, (uintptr_t)page, BENCH_PAGE);
	}
	*cost = (double)(tool_now() - start) / OPERATIONS;
	if (!err && n->calls - before != OPERATIONS)
		err = -EIO; /* told too often or too rarely: another thing was measured */
	return err;
}

static int turn_notifiers(struct notifiers *n, double *large, double *small)
{
	int err = grow_notifiers(n, MANY_NOTIFIERS);

	if (!err)
		err = measure_notifiers(n, large);
	shrink_notifiers(n, FEW_NOTIFIERS);
	return err ? err : measure_notifiers(n, small);
}

void bench_notifiers(struct bench *bench)
{
	static const struct bench_title title = { "notifiers_100k", "ns",
						  "the same among 100 notifiers", NULL };
	struct notifiers n = { .lock = PTHREAD_MUTEX_INITIALIZER };
	double large[TURNS], small[TURNS];
	int err = hmm_open(&n.hmm);

	if (err) {
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
		return;
	}
	n.list = tool_alloc(MANY_NOTIFIERS * sizeof(struct hmm_notifier *));
	n.memory = bench_map(MANY_NOTIFIERS * BENCH_PAGE);
	err = n.memory ? grow_notifiers(&n, FEW_NOTIFIERS) : -ENOMEM;
	for (int i = 0; i < TURNS && !err; i++) {
		tool_progress("bench: %s, turn %d", title.name, i + 1);
		err = turn_notifiers(&n, &large[i], &small[i]);
	}
	add_medians(bench, &title, large, small, err);
	shrink_notifiers(&n, 0);
	if (n.memory)
		munmap(n.memory, MANY_NOTIFIERS * BENCH_PAGE);
	hmm_put(n.hmm);
	free(n.list);
}

/* ---- mappings ---- */

struct vmas {
	struct bench_dev dev;
	char *memory; /* MANY_VMAS pages */
};

/* Every other page is read-only, so that no two merge. */
static int grow_vmas(struct vmas *v, size_t from, size_t count)
{
	char *first = v->memory + from * BENCH_PAGE;
	char *got = mmap(first, (count - from) * BENCH_PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (got != first)
		return -errno;
	for (size_t i = from + 1; i < count; i += 2) {
		if (mprotect(v->memory + i * BENCH_PAGE, BENCH_PAGE, PROT_READ))
			return -errno;
	}
	return 0;
}

static bool all_there(const struct vmas *v, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (!uhmm_ptable_lookup(&v->dev.table,
					(uintptr_t)v->memory + i * BENCH_PAGE))
			return false;
	}
	return true;
}

/*
 * The device faults all of them, again if it must: thousands of mprotect calls overflow the
 * record rings, and then everything counts as changed; once when that is seen, and once
 * more when the kernel's own record of the loss arrives behind the next mmap.
 */
static int fault_vmas(struct vmas *v, size_t count)
{
	int err = 0;

	for (int tries = 0; tries < 4 && !err; tries++) {
		if (all_there(v, count))
			return 0;
		err = bench_dev_fault(&v->dev, v->memory, count, false);
	}
	return err ? err : -EBUSY;
}

/* Fence and lookup of pages all over the set: a prime step visits them in no order. */
static int fence_batch(struct vmas *v, size_t count, size_t from, double *cost)
{
	uint64_t start = tool_now();
	int err = 0;

	for (size_t i = from; i < from + BATCH && !err; i++) {
		uintptr_t page = (uintptr_t)v->memory + i * 7919 % count * BENCH_PAGE;

		err = hmm_fence(v->dev.hmm, page, BENCH_PAGE);
		if (!err && !uhmm_ptable_lookup(&v->dev.table, page))
			err = -EIO;
	}
	*cost = (double)(tool_now() - start) / BATCH;
	return err;
}

static int measure_vmas(struct vmas *v, size_t count, double *cost)
{
	double costs[BATCHES];
	/* What brought this state about is waited for first. */
	int err = hmm_notifier_fence(v->dev.notifier);

	if (!err)
		err = fault_vmas(v, count);
	for (size_t i = 0; i < BATCHES && !err; i++)
		err = fence_batch(v, count, i * BATCH, &costs[i]);
	if (!err)
		*cost = bench_percentile(costs, BATCHES, 50);
	return err;
}

static int turn_vmas(struct vmas *v, double *large, double *small)
{
	size_t rest = (MANY_VMAS - FEW_VMAS) * BENCH_PAGE;
	int err = grow_vmas(v, FEW_VMAS, MANY_VMAS);

	if (!err)
		err = measure_vmas(v, MANY_VMAS, large);
	/* One hole to the eye of the kernel, kept from others by PROT_NONE. */
	if (mmap(v->memory + FEW_VMAS * BENCH_PAGE, rest, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
		 0) == MAP_FAILED)
		return -errno;
	return err ? err : measure_vmas(v, FEW_VMAS, small);
}

static uint64_t max_map_count(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned long count = 0;

	if (file) {
		if (fscanf(file, "%lu", &count) != 1)
			count = 0;
		fclose(file);
	}
	return count;
}

void bench_vmas(struct bench *bench)
{
	static const struct bench_title title = { "vmas_60k", "ns",
						  "the same with 60 mappings", NULL };
	const uint64_t margin = 1000; /* for the program's own mappings */
	double large[TURNS], small[TURNS];
	struct vmas v;
	int err;

	if (max_map_count() < MANY_VMAS + margin) {
		bench_skip(bench, title.name, "vm.max_map_count is below %lu",
			   (unsigned long)(MANY_VMAS + margin));
		return;
	}
	err = bench_dev_open(&v.dev);
	if (err) {
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
		return;
	}
	v.memory = bench_map(MANY_VMAS * BENCH_PAGE);
	err = v.memory ? grow_vmas(&v, 0, FEW_VMAS) : -ENOMEM;
	for (int i = 0; i < TURNS && !err; i++) {
		tool_progress("bench: %s, turn %d", title.name, i + 1);
		err = turn_vmas(&v, &large[i], &small[i]);
	}
	add_medians(bench, &title, large, small, err);
	if (v.memory)
		munmap(v.memory, MANY_VMAS * BENCH_PAGE);
	bench_dev_close(&v.dev);
}
