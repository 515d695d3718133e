/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * place - where a page belongs when a GPU has faulted for it, and how it gets there.
 *
 * The best location for a GPU's fault (svm_range_best_restore_location): the preferred one
 * if it is that GPU, the system, or a peer; else the GPU itself if it has access; else, in
 * place, where the page is if the GPU reaches that, and the system if not. What reads a
 * read-mostly page uses it in place, whatever it prefers.
 *
 * It goes in its chunk (chunk.c). If it does not get there it is used where it is: only if the
 * GPU cannot reach it there it goes home. Where it must get there (xe's devmem_only), smaller
 * chunks are tried, which may do without what keeps the larger one, and then the job ends.
 *
 * Two GPUs that both want a block do not steal it from each other before its time slice is
 * over (slice.h); between a GPU and a CPU the library sees to that.
 */
#include <time.h>

#include "svm_private.h"

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

/* An atomic may need its page in a GPU's memory: then in its own, if it belongs in none. */
static uint32_t where_to(const struct svm *svm, unsigned gpu, const struct svm_attrs *attrs,
			 enum gpu_access access, const struct gpu *holder)
{
	uint32_t where = best(svm, gpu, attrs, access, holder);
	bool away = where < svm->options.gpus || (where == SVM_UNDEFINED && holder);

	return svm_needs_device(attrs, access) && !away ? gpu : where;
}

/* The stripe is held: until who got the block last has had his time. */
static void wait_for_slice(const struct svm_stripe *stripe, uintptr_t addr,
			   const struct gpu *to)
{
	uint64_t left = svm_slice_left(&stripe->slice, addr / SVM_BLOCK, to, svm_now());
	const struct timespec rest = { (time_t)(left / 1000000000),
				       (long)(left % 1000000000) };

	if (left)
		nanosleep(&rest, NULL);
}

uint64_t svm_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int64_t svm_carry(struct svm *svm, uintptr_t start, uintptr_t end, uint32_t to, uint32_t flags)
{
	struct svm_slice *slice = &svm_stripe_of(svm, start)->slice;
	struct gpu *gpu = svm->gpu[to];
	int64_t n;

	svm_moving(svm, start);
	n = flags & SVM_FLAG_WHOLE ? svm_move_whole(svm, start, end, gpu)
				   : gpu_migrate(gpu, (void *)start, end - start);
	svm_moved(svm, start);
	if (n <= 0)
		return n;
	svm_slice_moved(slice, start / SVM_BLOCK, gpu, svm_now(),
			(uint64_t)svm->options.timeslice_us * 1000,
			(uint64_t)svm->options.timeslice_most_us * 1000);
	svm_raise(&svm->count.longest_ns, slice->ns);
	svm_count(&svm->count.migrated, (uint64_t)n);
	return n;
}

static void carry_home(struct svm *svm, unsigned gpu, uintptr_t start, uintptr_t end)
{
	svm_moving(svm, start);
	gpu_migrate_home(svm->gpu[gpu], (void *)start, end - start);
	svm_moved(svm, start);
}

/* Is the page there? */
static bool carry_chunk(struct svm *svm, uintptr_t addr, const struct svm_chunk *chunk,
			uint32_t to, uint32_t flags)
{
	struct gpu *there = NULL;

	if (!svm->options.vram_bytes || !chunk->movable)
		return false;
	wait_for_slice(svm_stripe_of(svm, addr), addr, svm->gpu[to]);
	if (svm_carry(svm, chunk->start, chunk->end, to, flags) <= 0 ||
	    gpu_locate(svm->gpu[to], (void *)(addr & -SVM_PAGE), 1, &there) ||
	    there != svm->gpu[to])
		return false;
	svm_count(&svm->count.chunks[chunk->size], 1);
	return true;
}

/* The page of a fault, and what goes with it. [from, to) has the attributes, in one block. */
static int send(struct svm *svm, const struct svm_fault *fault, uint32_t where, uintptr_t from,
		uintptr_t to)
{
	const struct svm_attrs *attrs = &fault->attrs;
	bool must = attrs->flags & SVM_FLAG_MUST_MOVE || svm_needs_device(attrs, fault->access);
	uint32_t granularity = attrs->granularity;
	struct svm_chunk chunk;
	bool there;

	do {
		svm_chunk_at(svm, fault->addr, from, to, granularity, &chunk);
		if (!chunk.mapped)
			return 0; /* the handler says so */
		there = carry_chunk(svm, fault->addr, &chunk, where, attrs->flags);
		granularity = chunk.size ? 0 : SVM_CHUNK_64K;
	} while (!there && must && chunk.movable && chunk.size < SVM_SIZES - 1);
	if (there) {
		svm_granule(svm, fault, where);
		return 0;
	}
	svm_count(&svm->count.fallbacks, 1);
	if (must)
		return -EBUSY;
	/* The handler maps a peer's memory only where that is meant (svm_may). */
	if (fault->holder && fault->holder != svm->gpu[fault->gpu])
		carry_home(svm, fault->gpu, fault->addr & -SVM_PAGE,
			   (fault->addr & -SVM_PAGE) + SVM_PAGE);
	return 0;
}

/*
 * The stripe is held, the attributes allow the access. What is wrong with the address the GPU's
 * handler finds out. 0; -EBUSY it has to move, and stays.
 */
int svm_bring(struct svm *svm, unsigned gpu, uintptr_t addr, enum gpu_access access)
{
	struct svm_fault fault = { .addr = addr, .gpu = gpu, .access = access };
	uintptr_t from = addr & -SVM_BLOCK, to = from + SVM_BLOCK;
	struct svm_chunk chunk;
	uint32_t where;

	if (gpu_locate(svm->gpu[gpu], (void *)(addr & -SVM_PAGE), 1, &fault.holder))
		fault.holder = NULL;
	fault.attrs = svm_attrs_of(svm, addr, &from, &to);
	where = where_to(svm, gpu, &fault.attrs, access, fault.holder);
	if (where == SVM_UNDEFINED || (where == SVM_SYSTEM && !fault.holder)) {
		svm_count(&svm->count.in_place, where == SVM_UNDEFINED);
		return 0;
	}
	if (where < SVM_GPUS_MAX)
		return fault.holder == svm->gpu[where] ? 0
						       : send(svm, &fault, where, from, to);
	svm_chunk_at(svm, addr, from, to, fault.attrs.granularity, &chunk);
	carry_home(svm, gpu, chunk.start, chunk.end);
	return 0;
}
