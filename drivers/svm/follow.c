/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * follow - what goes home behind a page that a CPU has touched.
 *
 * kfd's and xe's CPU fault brings the granule, or the chunk, home (svm_migrate_to_ram). Here a
 * CPU's fault is the library's: it brings 64 KiB, or more to a CPU that goes on from there, and
 * the rest comes after it, by the thread of evict.c. Not from the copy engine that says so, which
 * the CPU waits for; nor while somebody moves the block, or a GPU has its time slice with it.
 */
#include "svm_private.h"

/* Is the first page home, and another one not? A fork only looks at pages, and leaves them. */
static bool is_left(struct svm *svm, uintptr_t addr, uintptr_t start, uintptr_t end)
{
	const unsigned pages = (unsigned)((end - start) / SVM_PAGE);
	struct gpu *where[GPU_LOCATE_MAX];
	bool away = false;
	unsigned gpu, i;

	/* Without a hive each knows its own. */
	for (gpu = 0; gpu < (svm->hive ? 1 : svm->options.gpus); gpu++) {
		if (gpu_locate(svm->gpu[gpu], (void *)start, pages, where) ||
		    where[(addr - start) / SVM_PAGE])
			return false;
		for (i = 0; i < pages; i++)
			away |= where[i] != NULL;
	}
	return away;
}

/* In one block. */
static void follow_in(struct svm *svm, uintptr_t addr, uintptr_t start, uintptr_t end)
{
	struct svm_stripe *stripe = svm_stripe_of(svm, addr);
	const uint64_t slice = (uint64_t)svm->options.timeslice_us * 1000;
	int64_t n = 0;

	if (pthread_mutex_trylock(&stripe->lock))
		return;
	if (svm_now() - stripe->slice.moved >= slice && is_left(svm, addr, start, end)) {
		pthread_mutex_lock(&svm->evict.lock);
		svm->evict.following = (struct svm_span){ start, end };
		pthread_mutex_unlock(&svm->evict.lock);
		svm_moving(svm, addr);
		n = gpu_migrate_home(svm->gpu[0], (void *)start, end - start);
		svm_moved(svm, addr);
	}
	pthread_mutex_unlock(&stripe->lock);
	svm_count(&svm->count.followed, n > 0 ? (uint64_t)n : 0);
}

void svm_follow(struct svm *svm, uintptr_t addr)
{
	uintptr_t start = addr & -SVM_BLOCK, end = start + SVM_BLOCK, size;
	struct svm_attrs attrs = svm_attrs_of(svm, addr, &start, &end);
	bool movable = false;

	/* What has been mapped over it meanwhile is not where those pages go home to. */
	if (!svm_row_at(svm, addr, &start, &end, &movable) || !movable)
		return;
	if (attrs.granularity < SVM_GRANULARITY) {
		size = SVM_PAGE << attrs.granularity;
		start = (addr & -size) > start ? addr & -size : start;
		end = (addr & -size) + size < end ? (addr & -size) + size : end;
	}
	if (attrs.granularity > SVM_CHUNK_64K)
		follow_in(svm, addr, start, end);
}
