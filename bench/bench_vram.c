// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_vram - the software GPU's video memory: migrate_out_2m_gpu, oversubscribe_4x.
 *
 * oversubscribe_4x: a working set of four times the video memory. For each block of 2 MiB
 * in turn: move it there, which makes another leave, and run a kernel over it that reads
 * every byte and writes a word of each page. The plain way is the same kernel, on the same
 * GPU, over as much memory that stays where it is. This GPU's video memory is no faster
 * than the system's, so nothing can be won here: the ratio is what moving costs.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/gpu.h>

#include "bench.h"

#define BLOCK (BENCH_WINDOW * BENCH_PAGE)
#define VRAM_BLOCKS 4ul
#define SET_BLOCKS (4 * VRAM_BLOCKS)
#define SET (SET_BLOCKS * BLOCK)
#define PIECE 512u
#define WORDS (PIECE / sizeof(uint64_t))

struct on_gpu {
	struct gpu *gpu;
	struct gpu_queue *queue;
	char *mapped, *moving, *staying; /* each SET bytes, aligned to BLOCK */
	uint64_t passes;		 /* over either set */
	size_t next;
};

/* Word 1 of each page gets the sum of all the others but word 0, which counts the passes.
 */
static void sum_page(struct gpu_sm *sm, void *arg, uint64_t index)
{
	uint64_t *page = (uint64_t *)((char *)arg + index * BENCH_PAGE), piece[WORDS];
	uint64_t sum = 0, passes = 0;

	for (unsigned at = 0; at < BENCH_PAGE / PIECE; at++) {
		gpu_load(sm, piece, page + at * WORDS, PIECE);
		if (!at) {
			passes = piece[0];
			piece[0] = piece[1] = 0;
		}
		for (unsigned i = 0; i < WORDS; i++)
			sum += piece[i];
	}
	gpu_store_u64(sm, &page[0], passes + 1);
	gpu_store_u64(sm, &page[1], sum);
}

static int pass(struct on_gpu *on, char *set, bool move, double *cost)
{
	struct gpu_fence *fence;
	uint64_t start = tool_now();
	int err = 0;

	for (unsigned i = 0; i < SET_BLOCKS && !err; i++) {
		char *block = set + i * BLOCK;
		int64_t got = move ? gpu_migrate(on->gpu, block, BLOCK) : 0;

		err = got < 0 ? (int)got : 0;
		if (!err)
			err = gpu_submit(on->queue, sum_page, block, BENCH_WINDOW, &fence);
		if (!err)
			err = gpu_wait(fence, NULL);
	}
	*cost = (double)(tool_now() - start) / (SET / BENCH_PAGE);
	return err;
}

static int moving_batch(void *arg, double *cost)
{
	struct on_gpu *on = arg;

	on->passes++;
	return pass(on, on->moving, true, cost);
}

static int staying_batch(void *arg, double *cost)
{
	struct on_gpu *on = arg;

	return pass(on, on->staying, false, cost);
}

static int gpu_out_batch(void *arg, double *cost)
{
	struct on_gpu *on = arg;
	uint64_t start = tool_now();
	char *block = on->moving + on->next++ % SET_BLOCKS * BLOCK;
	int64_t got = gpu_migrate(on->gpu, block, BLOCK);

	*cost = (double)(tool_now() - start);
	if (got >= 0 && (size_t)got < BENCH_WINDOW)
		return -EAGAIN;
	if (got >= 0)
		got = gpu_migrate_home(on->gpu, block, BLOCK);
	return got < 0 ? (int)got : 0;
}

static int memcpy_batch(void *arg, double *cost)
{
	struct on_gpu *on = arg;
	char *to = on->staying + (SET_BLOCKS / 2 + on->next % (SET_BLOCKS / 2)) * BLOCK;
	uint64_t start = tool_now();

	memcpy(to, on->staying + on->next % (SET_BLOCKS / 2) * BLOCK, BLOCK);
	*cost = (double)(tool_now() - start);
	return to[BLOCK - 1] ? 0 : -EIO;
}

static void close_gpu(struct on_gpu *on)
{
	if (on->queue)
		gpu_queue_destroy(on->queue);
	gpu_close(on->gpu);
	if (on->mapped)
		munmap(on->mapped, 2 * SET + BLOCK);
}

static bool open_gpu(struct bench *bench, struct on_gpu *on, const char *name)
{
	struct gpu_options options = {
		.size = sizeof(options),
		.sms = 1,
		.vram_bytes = VRAM_BLOCKS * BLOCK,
	};
	int err = gpu_open(&options, &on->gpu);

	if (!err)
		err = gpu_queue_create(on->gpu, &on->queue);
	on->mapped = bench_map(2 * SET + BLOCK);
	if (!err && !on->mapped)
		err = -ENOMEM;
	if (err) {
		bench_skip(bench, name, "%s", hmm_strerror(err));
		close_gpu(on);
		return false;
	}
	on->moving = on->mapped + (-(uintptr_t)on->mapped & (BLOCK - 1));
	on->staying = on->moving + SET;
	memset(on->moving, 1, 2 * SET);
	return true;
}

void bench_migrate_gpu(struct bench *bench)
{
	static const struct bench_title title = { "migrate_out_2m_gpu", "ns",
						  "memcpy of 2 MiB", "<= 1.4x" };
	struct on_gpu on = { .gpu = NULL };

	if (!open_gpu(bench, &on, title.name))
		return;
	bench_pair(bench, &title, gpu_out_batch, memcpy_batch, &on);
	close_gpu(&on);
}

/* No byte went astray: each page has been through each pass. */
static bool all_there(const struct on_gpu *on)
{
	const uint64_t one = UINT64_C(0x0101010101010101);

	for (size_t i = 0; i < SET / BENCH_PAGE; i++) {
		const uint64_t *page = (uint64_t *)(on->moving + i * BENCH_PAGE);

		if (page[0] != one + on->passes || page[1] != (BENCH_PAGE / 8 - 2) * one ||
		    page[BENCH_PAGE / 8 - 1] != one)
			return false;
	}
	return true;
}

void bench_oversubscribe(struct bench *bench)
{
	static const struct bench_title title = { "oversubscribe_4x", "ns/page",
						  "the same kernel, nothing moves", NULL };
	struct on_gpu on = { .gpu = NULL };

	if (!open_gpu(bench, &on, title.name))
		return;
	bench_pair(bench, &title, moving_batch, staying_batch, &on);
	if (!all_there(&on)) {
		bench_skip(bench, title.name,
			   "the pages do not hold what the kernels wrote");
		bench->failed = true;
	}
	close_gpu(&on);
}
