/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * chunk - what moves at once.
 *
 * A chunk is the largest of 2 MiB, 64 KiB, 4 KiB that is aligned, no larger than the
 * granularity, and lies wholly in what has the attributes and in one mapping (drm_gpusvm's
 * chunks, cut by kfd's granule). It is no object: it is found anew for each fault.
 */
#include "svm_private.h"

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

bool svm_row_at(struct svm *svm, uintptr_t addr, uintptr_t *from, uintptr_t *to, bool *movable)
{
	struct row row = { .addr = addr };

	hmm_snapshot_runs(svm->hmm, *from, *to, 0, row_run, &row);
	if (addr < row.start || addr >= row.end)
		return false;
	*from = row.start > *from ? row.start : *from;
	*to = row.end < *to ? row.end : *to;
	*movable = (row.kind == HMM_VMA_ANON || row.kind == HMM_VMA_HEAP ||
		    row.kind == HMM_VMA_STACK) &&
		   !(row.flags & HMM_RUN_SHARED) && row.flags & HMM_RUN_READ &&
		   row.flags & HMM_RUN_WRITE;
	return true;
}

void svm_chunk_at(struct svm *svm, uintptr_t addr, uintptr_t from, uintptr_t to,
		  uint32_t granularity, struct svm_chunk *chunk)
{
	const uintptr_t block = addr & -SVM_BLOCK;
	unsigned i;

	from = from > block ? from : block;
	to = to < block + SVM_BLOCK ? to : block + SVM_BLOCK;
	*chunk = (struct svm_chunk){ .start = addr & -SVM_PAGE, .size = SVM_SIZES - 1 };
	chunk->end = chunk->start + SVM_PAGE;
	chunk->mapped = svm_row_at(svm, addr, &from, &to, &chunk->movable);
	for (i = 0; i < SVM_SIZES && chunk->mapped; i++) {
		uintptr_t size = svm_sizes[i], start = addr & -size;

		if (granularity < SVM_GRANULARITY && size > SVM_PAGE << granularity)
			continue;
		if (size == SVM_PAGE || (start >= from && start + size <= to)) {
			chunk->start = start;
			chunk->end = start + size;
			chunk->size = i;
			return;
		}
	}
}
