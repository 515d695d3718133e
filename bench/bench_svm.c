// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_svm - what attributes cost: svm_fault_2m, svm_prefetch_64m, svm_oversubscribe.
 *
 * The plain way is the gpu driver without svm, told by the program what to move:
 * gpu_migrate(), then the kernel. svm finds that out by itself, from the fault. Both have a
 * GPU of their own with as much memory, and sets of their own, which are alike.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/svm.h>

#include "bench.h"

#define BLOCK (BENCH_WINDOW * BENCH_PAGE)

struct side {
	struct gpu *gpu;
	struct gpu_queue *queue;
	char *set;
};

struct on_svm {
	struct svm *svm; /* its GPU is ours.gpu */
	struct side ours, plain;
	char *mapped;
	size_t blocks; /* of a set */
	size_t next;
	uint64_t passes[2]; /* over ours, over plain's */
};

static void touch_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	uint64_t *word = (uint64_t *)((char *)arg + index * BENCH_PAGE);

	gpu_store_u64(sm, word, gpu_load_u64(sm, word) + 1);
}

static int run(struct side *side, char *at, size_t pages)
{
	struct gpu_fence *fence;
	int err = gpu_submit(side->queue, touch_kernel, at, pages, &fence);

	return err ? err : gpu_wait(fence, NULL);
}

static bool is_there(const struct side *side, const char *block)
{
	return hmm_pfn_is_device(gpu_lookup(side->gpu, block)) &&
	       hmm_pfn_is_device(gpu_lookup(side->gpu, block + BLOCK - BENCH_PAGE));
}

/* The first page of a block that is at home; then it goes home again, which is not timed.
 */
static int fault_batch(struct on_svm *on, struct side *side, double *cost)
{
	char *block = side->set + on->next++ / 2 % on->blocks * BLOCK;
	uint64_t start = tool_now();
	int64_t n = side == &on->plain ? gpu_migrate(side->gpu, block, BLOCK) : 0;
	int err = n < 0 ? (int)n : run(side, block, 1);

	*cost = (double)(tool_now() - start);
	if (!err && !is_there(side, block))
		err = -EAGAIN;
	if (!err)
		n = gpu_migrate_home(side->gpu, block, BLOCK);
	return err ? err : n < 0 ? (int)n : 0;
}

static int svm_fault_batch(void *arg, double *cost)
{
	struct on_svm *on = arg;

	return fault_batch(on, &on->ours, cost);
}

static int gpu_fault_batch(void *arg, double *cost)
{
	struct on_svm *on = arg;

	return fault_batch(on, &on->plain, cost);
}

static int svm_prefetch_batch(void *arg, double *cost)
{
	struct on_svm *on = arg;
	uint64_t start = tool_now();
	int64_t n = svm_prefetch(on->svm, on->ours.set, on->blocks * BLOCK, 0, 0);

	*cost = (double)(tool_now() - start);
	if (n >= 0 && (size_t)n < on->blocks * BENCH_WINDOW)
		return -EAGAIN;
	if (n >= 0)
		n = svm_prefetch(on->svm, on->ours.set, on->blocks * BLOCK, SVM_SYSTEM, 0);
	return n < 0 ? (int)n : 0;
}

static int gpu_prefetch_batch(void *arg, double *cost)
{
	struct on_svm *on = arg;
	uint64_t start = tool_now();
	int64_t n = gpu_migrate(on->plain.gpu, on->plain.set, on->blocks * BLOCK);

	*cost = (double)(tool_now() - start);
	if (n >= 0 && (size_t)n < on->blocks * BENCH_WINDOW)
		return -EAGAIN;
	if (n >= 0)
		n = gpu_migrate_home(on->plain.gpu, on->plain.set, on->blocks * BLOCK);
	return n < 0 ? (int)n : 0;
}

/* A pass over four times the GPU's memory, block by block. */
static int pass(struct on_svm *on, struct side *side, double *cost)
{
	bool plain = side == &on->plain;
	uint64_t start = tool_now();
	int err = 0;

	on->passes[plain]++;
	for (size_t i = 0; i < on->blocks && !err; i++) {
		char *block = side->set + i * BLOCK;
		int64_t n = plain ? gpu_migrate(side->gpu, block, BLOCK) : 0;

		err = n < 0 ? (int)n : run(side, block, BENCH_WINDOW);
	}
	*cost = (double)(tool_now() - start) / (double)(on->blocks * BENCH_WINDOW);
	return err;
}

static int svm_pass_batch(void *arg, double *cost)
{
	struct on_svm *on = arg;

	return pass(on, &on->ours, cost);
}

static int gpu_pass_batch(void *arg, double *cost)
{
	struct on_svm *on = arg;

	return pass(on, &on->plain, cost);
}

static void close_both(struct on_svm *on)
{
	svm_close(on->svm);
	gpu_close(on->plain.gpu);
	if (on->mapped)
		munmap(on->mapped, (2 * on->blocks + 2) * BLOCK);
}

static int open_sides(struct on_svm *on, uint64_t vram)
{
	const struct svm_options options = {
		.size = sizeof(options), .sms = 1, .timeslice_us = 1, .vram_bytes = vram
	};
	const struct gpu_options plain = { .size = sizeof(plain),
					   .sms = 1,
					   .timeslice_us = 1,
					   .no_exclusive = true,
					   .vram_bytes = vram };
	int err = svm_open(&options, &on->svm);

	if (err)
		return err;
	on->ours.gpu = svm_gpu(on->svm, 0);
	err = gpu_open(&plain, &on->plain.gpu);
	if (!err)
		err = gpu_queue_create(on->ours.gpu, &on->ours.queue);
	return err ? err : gpu_queue_create(on->plain.gpu, &on->plain.queue);
}

static bool open_both(struct bench *bench, struct on_svm *on, const char *name,
		      size_t blocks, uint64_t vram)
{
	int err;

	on->blocks = blocks;
	err = open_sides(on, vram);
	on->mapped = bench_map((2 * blocks + 2) * BLOCK);
	if (!err && !on->mapped)
		err = -ENOMEM;
	if (err) {
		bench_skip(bench, name, "%s", hmm_strerror(err));
		close_both(on);
		return false;
	}
	/* A block apart: else the two are one mapping. */
	on->ours.set = on->mapped + (-(uintptr_t)on->mapped & (BLOCK - 1));
	on->plain.set = on->ours.set + blocks * BLOCK;
	memset(on->ours.set, 1, 2 * blocks * BLOCK);
	return true;
}

/* No byte went astray. */
static bool all_there(const struct on_svm *on)
{
	const uint64_t one = UINT64_C(0x0101010101010101);
	const struct side *sides[] = { &on->ours, &on->plain };

	for (unsigned s = 0; s < 2; s++)
		for (size_t p = 0; p < on->blocks * BENCH_WINDOW; p++) {
			const uint64_t *page =
				(const uint64_t *)(sides[s]->set + p * BENCH_PAGE);

			if (page[0] != one + on->passes[s] ||
			    page[BENCH_PAGE / 8 - 1] != one)
				return false;
		}
	return true;
}

void bench_svm(struct bench *bench)
{
	static const struct bench_title fault = { "svm_fault_2m", "ns",
						  "gpu_migrate, then the kernel", NULL };
	static const struct bench_title prefetch = { "svm_prefetch_64m", "ns",
						     "gpu_migrate", NULL };
	static const struct bench_title over = { "svm_oversubscribe", "ns/page",
						 "gpu_migrate, then the kernel", NULL };
	struct on_svm on = { .svm = NULL };

	if (open_both(bench, &on, fault.name, 32, 64 * BLOCK)) {
		bench_pair(bench, &fault, svm_fault_batch, gpu_fault_batch, &on);
		bench_pair(bench, &prefetch, svm_prefetch_batch, gpu_prefetch_batch, &on);
		close_both(&on);
	}
	on = (struct on_svm){ .svm = NULL };
	if (!open_both(bench, &on, over.name, 16, 4 * BLOCK))
		return;
	bench_pair(bench, &over, svm_pass_batch, gpu_pass_batch, &on);
	if (!all_there(&on)) {
		bench_skip(bench, over.name,
			   "the pages do not hold what the kernels wrote");
		bench->failed = true;
	}
	close_both(&on);
}
