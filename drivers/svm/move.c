/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * move - ranges that go to a place as they are told to, and what goes as a whole or not at all.
 *
 * Which pages can move is known only when they do. So what must go as a whole is tried, and if
 * some of it stays, what came goes home again.
 */
#include "svm_private.h"

#define ALL_PAGES (SVM_BLOCK / SVM_PAGE)

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
int64_t svm_move_whole(struct svm *svm, uintptr_t start, uintptr_t end, struct gpu *gpu)
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

/* The stripe is held. */
static int64_t move_locked(struct svm *svm, uintptr_t start, uintptr_t end,
			   uint32_t location, unsigned flags)
{
	int64_t n;

	if (location == SVM_SYSTEM) {
		n = gpu_migrate_home(svm->gpu[0], (void *)start, end - start);
		return n < 0 ? n : count_at(svm, start, end, NULL, NULL);
	}
	if (flags & SVM_PREFETCH_ALL)
		return svm_move_whole(svm, start, end, svm->gpu[location]);
	n = gpu_migrate(svm->gpu[location], (void *)start, end - start);
	return n == -ENODEV ? n : n < 0 ? 0 : n;
}

static int64_t move_piece(struct svm *svm, uintptr_t start, uintptr_t end, uint32_t location,
			  unsigned flags)
{
	struct svm_stripe *stripe = svm_stripe_of(svm, start);
	int64_t n;

	pthread_mutex_lock(&stripe->lock);
	svm_moving(svm, start);
	n = move_locked(svm, start, end, location, flags);
	svm_moved(svm, start);
	pthread_mutex_unlock(&stripe->lock);
	return n;
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
