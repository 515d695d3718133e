/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * place - where a page belongs, and how it gets there in chunks.
 *
 * The best location for a GPU's fault (svm_range_best_restore_location): the preferred one
 * if it is that GPU, the system, or a peer; else the GPU itself if it has access; else, in
 * place, where the page is if the GPU reaches that, and the system if not. What reads a
 * read-mostly page uses it in place, whatever it prefers.
 *
 * A chunk is the largest of 2 MiB, 64 KiB, 4 KiB that is aligned, no larger than the
 * granularity, and lies wholly in what has the attributes and in one mapping (drm_gpusvm's
 * chunks, cut by kfd's granule). If it does not get there the page is used where it is:
 * only if the GPU cannot reach it there it goes home.
 *
 * Two GPUs that both want a block do not steal it from each other before its time slice is
 * over, or neither would get on (between a GPU and a CPU the library sees to that).
 */
#include <string.h>
#include <time.h>

#include "svm_private.h"

#define ALL_PAGES (SVM_BLOCK / SVM_PAGE)

/* A row of runs that may be one mapping, around addr. */
struct row {
	uintptr_t addr, start, end;
	unsigned flags;
	enum hmm_vma_kind kind;
};

static int row_run(const struct hmm_run *run, void *arg)
{
	const unsigned same = HMM_RUN_READ | HMM_RUN_WRITE | HMM_RUN_EXEC | HMM_RUN_SHARED;
	struct row *row = arg;

	if (run->start > row->addr && run->start != row->end)
		return 1;
	if (row->end == run->start && row->end > row->start && row->kind == run->kind &&
	    row->flags == (run->flags & same)) {
		row->end = run->end;
		return 0;
	}
	if (row->addr < row->end)
		return 1;
	row->start = run->start;
	row->end = run->end;
	row->kind = run->kind;
	row->flags = run->flags & same;
	return 0;
}

void svm_chunk_at(struct svm *svm, uintptr_t addr, uintptr_t from, uintptr_t to,
		  uint32_t granularity, struct svm_chunk *chunk)
{
	const uintptr_t block = addr & -SVM_BLOCK;
	struct row row = { .addr = addr };
	unsigned i;

	from = from > block ? from : block;
	to = to < block + SVM_BLOCK ? to : block + SVM_BLOCK;
	hmm_snapshot_runs(svm->hmm, from, to, 0, row_run, &row);
	*chunk = (struct svm_chunk){ .start = addr & -SVM_PAGE, .size = SVM_SIZES - 1 };
	chunk->end = chunk->start + SVM_PAGE;
	chunk->mapped = row.start <= addr && addr < row.end;
	if (!chunk->mapped)
		return;
	chunk->movable = (row.kind == HMM_VMA_ANON || row.kind == HMM_VMA_HEAP ||
			  row.kind == HMM_VMA_STACK) &&
			 !(row.flags & HMM_RUN_SHARED) && row.flags & HMM_RUN_READ &&
			 row.flags & HMM_RUN_WRITE;
	for (i = 0; i < SVM_SIZES; i++) {
		uintptr_t size = svm_sizes[i], start = addr & -size;

		if (granularity < 9 && size > SVM_PAGE << granularity)
			continue;
		if (size == SVM_PAGE || (start >= row.start && start + size <= row.end)) {
			chunk->start = start;
			chunk->end = start + size;
			chunk->size = i;
			return;
		}
	}
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool reaches(const struct svm *svm, unsigned gpu, const struct gpu *holder)
{
	return !holder || holder == svm->gpu[gpu] || svm->hive;
}

/* A location; SVM_UNDEFINED: where it is. */
static uint32_t best(const struct svm *svm, unsigned gpu, const struct svm_attrs *attrs,
		     enum gpu_access access, const struct gpu *holder)
{
	uint32_t preferred = attrs->preferred;
	bool in_place = attrs->flags & SVM_FLAG_READ_MOSTLY && access == GPU_READ;

	if (!in_place && (preferred == gpu || preferred == SVM_SYSTEM))
		return preferred;
	if (!in_place && preferred != SVM_UNDEFINED && svm->hive)
		return preferred;
	if (!in_place && attrs->access >> gpu & 1)
		return gpu;
	return reaches(svm, gpu, holder) ? SVM_UNDEFINED : SVM_SYSTEM;
}

/* The stripe is held: sleep until who got the block last has had his time. */
static void wait_for_slice(struct svm *svm, struct svm_stripe *stripe, uintptr_t addr,
			   const struct gpu *to)
{
	uint64_t slice = (uint64_t)svm->options.timeslice_us * 1000, now = now_ns();
	struct timespec rest;

	if (stripe->block != addr / SVM_BLOCK || !stripe->to || stripe->to == to ||
	    now - stripe->moved_ns >= slice)
		return;
	slice -= now - stripe->moved_ns;
	rest = (struct timespec){ (time_t)(slice / 1000000000),
				  (long)(slice % 1000000000) };
	nanosleep(&rest, NULL);
}

/* To a GPU. Return: is the page there? */
static bool carry(struct svm *svm, uintptr_t addr, uint32_t to,
		  const struct svm_chunk *chunk)
{
	uint64_t block = addr / SVM_BLOCK;
	struct svm_stripe *stripe =
		&svm->stripe[(block ^ block >> 6 ^ block >> 12) % SVM_STRIPES];
	struct gpu *there = NULL;
	int64_t n;

	if (!svm->options.vram_bytes || !chunk->movable)
		return false;
	wait_for_slice(svm, stripe, addr, svm->gpu[to]);
	n = gpu_migrate(svm->gpu[to], (void *)chunk->start, chunk->end - chunk->start);
	if (n <= 0 || gpu_locate(svm->gpu[to], (void *)(addr & -SVM_PAGE), 1, &there) ||
	    there != svm->gpu[to])
		return false;
	stripe->block = block;
	stripe->to = svm->gpu[to];
	stripe->moved_ns = now_ns();
	svm_count(&svm->count.chunks[chunk->size], 1);
	svm_count(&svm->count.migrated, (uint64_t)n);
	return true;
}

/*
 * The stripe is held, the attributes allow the access. Nothing here fails a fault: what is
 * wrong with the address the GPU's handler finds out.
 */
int svm_bring(struct svm *svm, unsigned gpu, uintptr_t addr, enum gpu_access access)
{
	uintptr_t page = addr & -SVM_PAGE, from = 0, to = UINTPTR_MAX;
	struct gpu *holder = NULL;
	struct svm_attrs attrs;
	struct svm_chunk chunk;
	uint32_t where;

	if (gpu_locate(svm->gpu[gpu], (void *)page, 1, &holder))
		holder = NULL;
	from = page & -SVM_BLOCK;
	to = from + SVM_BLOCK;
	attrs = svm_attrs_of(svm, addr, &from, &to);
	where = best(svm, gpu, &attrs, access, holder);
	if (where == SVM_UNDEFINED || (where == SVM_SYSTEM && !holder)) {
		svm_count(&svm->count.in_place, where == SVM_UNDEFINED);
		return 0;
	}
	if (where < svm->options.gpus && holder == svm->gpu[where])
		return 0;
	svm_chunk_at(svm, addr, from, to, attrs.granularity, &chunk);
	if (where == SVM_SYSTEM) {
		gpu_migrate_home(svm->gpu[gpu], (void *)chunk.start,
				 chunk.end - chunk.start);
		return 0;
	}
	if (!chunk.mapped || carry(svm, addr, where, &chunk))
		return 0;
	svm_count(&svm->count.fallbacks, 1);
	/* The handler maps a peer's memory only where that is meant (svm_may). */
	if (holder && holder != svm->gpu[gpu])
		gpu_migrate_home(svm->gpu[gpu], (void *)page, SVM_PAGE);
	return 0;
}

/* ---- ranges, ahead of use ---- */

/* Pages of a piece of at most 2 MiB that are there. */
static int64_t count_at(struct svm *svm, uintptr_t start, uintptr_t end,
			const struct gpu *gpu, bool *each)
{
	unsigned pages = (unsigned)((end - start) / SVM_PAGE), i;
	struct gpu *where[ALL_PAGES];
	int64_t n = 0;
	int err = gpu_locate(gpu ? (struct gpu *)gpu : svm->gpu[0], (void *)start, pages,
			     where);

	for (i = 0; i < pages && !err; i++) {
		bool there = where[i] == gpu;

		n += there;
		if (each)
			each[i] = there;
	}
	return err ? err : n;
}

/* All of the chunk or none: what came and was not there before goes home again. */
static int64_t move_whole(struct svm *svm, uintptr_t start, uintptr_t end, struct gpu *gpu)
{
	int64_t pages = (int64_t)((end - start) / SVM_PAGE), n, i;
	bool before[ALL_PAGES];

	n = count_at(svm, start, end, gpu, before);
	if (n < 0 || n == pages)
		return n;
	gpu_migrate(gpu, (void *)start, end - start);
	n = count_at(svm, start, end, gpu, NULL);
	if (n < 0 || n == pages)
		return n;
	for (i = 0; i < pages; i++) {
		if (!before[i])
			gpu_migrate_home(gpu, (void *)(start + (uintptr_t)i * SVM_PAGE),
					 SVM_PAGE);
	}
	return -EBUSY;
}

static int64_t move_piece(struct svm *svm, uintptr_t start, uintptr_t end,
			  uint32_t location, unsigned flags)
{
	int64_t n;

	if (location == SVM_SYSTEM) {
		n = gpu_migrate_home(svm->gpu[0], (void *)start, end - start);
		return n < 0 ? n : count_at(svm, start, end, NULL, NULL);
	}
	if (flags & SVM_PREFETCH_ALL)
		return move_whole(svm, start, end, svm->gpu[location]);
	n = gpu_migrate(svm->gpu[location], (void *)start, end - start);
	return n == -ENODEV ? n : n < 0 ? 0 : n;
}

/* Without a hive a GPU knows only its own memory: others' pages count as the system's then.
 */
int64_t svm_move(struct svm *svm, uintptr_t start, uintptr_t end, uint32_t location,
		 unsigned flags)
{
	int64_t moved = 0, n;

	if (location != SVM_SYSTEM && !svm->options.vram_bytes)
		return -ENODEV;
	while (start < end) {
		uintptr_t to = (start & -SVM_BLOCK) + SVM_BLOCK;

		to = to < end ? to : end;
		n = move_piece(svm, start, to, location, flags);
		if (n < 0)
			return n;
		moved += n;
		start = to;
	}
	svm_count(&svm->count.prefetched, (uint64_t)moved);
	return moved;
}
