// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_hit - a translation that is there: hit, tlb_hit, gpu_load.
 *
 * Against a two-level array after spdk_mem_map_translate(): range check, first level,
 * second level. SPDK's second level counts 2 MiB; here it counts 4 KiB pages, so that both
 * sides touch as many entries. The working set is 1,024 random pages and fits the
 * first-level cache: what is measured is instructions, not memory.
 *
 * hit is the page table's lookup after a TLB miss, tlb_hit the SM's TLB, permission
 * included. gpu_load is a whole 8-byte load of a kernel: TLB, permission, the fault-safe
 * copy and its bookkeeping; the time is taken inside the kernel, so the submission is not in it.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <uhmm/gpu.h>

#include "bench.h"

#define PAGES 1024ul /* a power of two */
#define LOOKUPS (64 * PAGES)
#define LOADS (16 * PAGES)

/* The two-level array. */
#define FLAT_TOP_BITS 18
#define FLAT_LOW_BITS 18

struct flat {
	uint64_t *low[1u << FLAT_TOP_BITS];
};

struct hit {
	struct uhmm_ptable table;
	struct flat *flat;
	char *memory; /* PAGES pages */
	uintptr_t order[PAGES];
	struct gpu_tlb tlb;	 /* tlb_hit only */
	struct gpu_queue *queue; /* gpu_load only */
	double gpu_cost;
};

static inline uint64_t flat_lookup(const struct flat *flat, uintptr_t va)
{
	const uint64_t *low;

	if (__builtin_expect(va >> 48, 0))
		return 0;
	low = flat->low[va >> (FLAT_LOW_BITS + 12)];
	if (__builtin_expect(!low, 0))
		return 0;
	return low[(va >> 12) & ((1u << FLAT_LOW_BITS) - 1)];
}

static int flat_set(struct flat *flat, uintptr_t va, uint64_t entry)
{
	uint64_t **low = &flat->low[va >> (FLAT_LOW_BITS + 12)];

	if (!*low) {
		void *memory =
			mmap(NULL, sizeof(uint64_t) << FLAT_LOW_BITS,
			     PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			return -ENOMEM;
		*low = memory;
	}
	(*low)[(va >> 12) & ((1u << FLAT_LOW_BITS) - 1)] = entry;
	return 0;
}

static void flat_destroy(struct flat *flat)
{
	for (size_t i = 0; i < sizeof(flat->low) / sizeof(flat->low[0]); i++) {
		if (flat->low[i])
			munmap(flat->low[i], sizeof(uint64_t) << FLAT_LOW_BITS);
	}
	munmap(flat, sizeof(*flat));
}

/* Every page once, in an order that no prefetcher knows; the same in each run. */
static void shuffle(struct hit *hit)
{
	uint64_t random = 88172645463325252u;

	for (size_t i = 0; i < PAGES; i++)
		hit->order[i] = (uintptr_t)hit->memory + i * BENCH_PAGE;
	for (size_t i = PAGES - 1; i; i--) {
		uintptr_t keep = hit->order[i];
		size_t j;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		j = random % (i + 1);
		hit->order[i] = hit->order[j];
		hit->order[j] = keep;
	}
}

static void hit_close(struct hit *hit)
{
	if (hit->flat)
		flat_destroy(hit->flat);
	uhmm_ptable_destroy(&hit->table);
	if (hit->memory)
		munmap(hit->memory, PAGES * BENCH_PAGE);
	free(hit);
}

static struct hit *hit_open(void)
{
	struct hit *hit = tool_alloc(sizeof(*hit));
	void *flat;
	int err;

	hit->memory = bench_map(PAGES * BENCH_PAGE);
	flat = mmap(NULL, sizeof(*hit->flat), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	hit->flat = flat == MAP_FAILED ? NULL : flat;
	err = hit->memory && hit->flat ? uhmm_ptable_init(&hit->table) : -ENOMEM;
	if (err) {
		hit_close(hit);
		return NULL;
	}
	shuffle(hit);
	for (size_t i = 0; i < PAGES && !err; i++) {
		uint64_t entry = HMM_PFN_VALID | HMM_PFN_WRITE | hit->order[i] / BENCH_PAGE;

		hit->memory[i * BENCH_PAGE] = 1;
		err = uhmm_ptable_set(&hit->table, hit->order[i], entry);
		if (!err)
			err = flat_set(hit->flat, hit->order[i], entry);
	}
	if (!err)
		return hit;
	hit_close(hit);
	return NULL;
}

static int table_batch(void *arg, double *cost)
{
	const struct hit *hit = arg;
	uint64_t start = tool_now(), sum = 0;

	for (size_t i = 0; i < LOOKUPS; i++)
		sum += uhmm_ptable_lookup(&hit->table, hit->order[i % PAGES]);
	*cost = (double)(tool_now() - start) / LOOKUPS;
	return sum ? 0 : -EIO;
}

static int tlb_batch(void *arg, double *cost)
{
	struct hit *hit = arg;
	uint64_t start = tool_now(), sum = 0;

	for (size_t i = 0; i < LOOKUPS; i++)
		sum += gpu_tlb_lookup(&hit->tlb, hit->order[i % PAGES], HMM_PFN_VALID);
	*cost = (double)(tool_now() - start) / LOOKUPS;
	return sum ? 0 : -EIO;
}

static int flat_batch(void *arg, double *cost)
{
	const struct hit *hit = arg;
	uint64_t start = tool_now(), sum = 0;

	for (size_t i = 0; i < LOOKUPS; i++)
		sum += flat_lookup(hit->flat, hit->order[i % PAGES]);
	*cost = (double)(tool_now() - start) / LOOKUPS;
	return sum ? 0 : -EIO;
}

static void against_flat(struct bench *bench, const struct bench_title *title,
			 int (*batch)(void *arg, double *cost))
{
	struct hit *hit = hit_open();

	if (!hit) {
		bench_skip(bench, title->name, "no memory");
		return;
	}
	for (size_t i = 0; i < GPU_TLB_ENTRIES; i++)
		hit->tlb.slot[i].page = GPU_TLB_NONE;
	for (size_t i = 0; i < PAGES; i++)
		gpu_tlb_fill(&hit->tlb, hit->order[i],
			     uhmm_ptable_lookup(&hit->table, hit->order[i]));
	bench_pair(bench, title, batch, flat_batch, hit);
	hit_close(hit);
}

void bench_hit(struct bench *bench)
{
	static const struct bench_title title = { "hit", "ns", "two-level array", "<= 1.5x" };

	against_flat(bench, &title, table_batch);
}

void bench_tlb_hit(struct bench *bench)
{
	static const struct bench_title title = { "tlb_hit", "ns", "two-level array",
						  "<= 1.5x" };

	against_flat(bench, &title, tlb_batch);
}

/* Run by one SM: the first pass brings the translations in, the rest is measured. */
static void load_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct hit *hit = arg;
	uint64_t start = 0, sum = 0;

	for (size_t i = 0; i < PAGES + LOADS; i++) {
		if (i == PAGES)
			start = tool_now();
		sum += gpu_load_u64(sm, (const uint64_t *)hit->order[i % PAGES]);
	}
	hit->gpu_cost = (double)(tool_now() - start) / LOADS;
	if (!sum)
		gpu_fail(sm, -EIO);
}

static int gpu_batch(void *arg, double *cost)
{
	struct hit *hit = arg;
	struct gpu_fence *fence;
	int err = gpu_submit(hit->queue, load_kernel, hit, 1, &fence);

	if (!err)
		err = gpu_wait(fence, NULL);
	*cost = hit->gpu_cost;
	return err;
}

void bench_gpu_load(struct bench *bench)
{
	static const struct bench_title title = { "gpu_load", "ns",
						  "two-level array, without a load", NULL };
	struct gpu_options options = { .size = sizeof(options), .sms = 1 };
	struct hit *hit = hit_open();
	struct gpu *gpu;
	int err;

	if (!hit) {
		bench_skip(bench, title.name, "no memory");
		return;
	}
	err = gpu_open(&options, &gpu);
	if (!err) {
		err = gpu_queue_create(gpu, &hit->queue);
		if (!err) {
			bench_pair(bench, &title, gpu_batch, flat_batch, hit);
			gpu_queue_destroy(hit->queue);
		}
		gpu_close(gpu);
	}
	if (err)
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
	hit_close(hit);
}
