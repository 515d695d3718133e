/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * runs - what is mapped and present, pages that look the same in one piece.
 *
 * The cost follows the runs: absent stretches are walked by the kernel, and
 * with HMM_RUN_VALID not even reported.
 */
#include <errno.h>
#include <sys/mman.h>

#include "core/core.h"

#define RUNS 64u
#define TRIES 16u

struct walk {
	struct hmm *hmm;
	hmm_run_fn fn;
	void *arg;
	bool populated; /* only what is present or in swap */
	struct hmm_run run; /* not yet told; start == end: none */
};

static enum hmm_vma_kind kind_of(const struct os_vma *vma)
{
	switch (vma->kind) {
	case OS_VMA_ANON:
		return HMM_VMA_ANON;
	case OS_VMA_HEAP:
		return HMM_VMA_HEAP;
	case OS_VMA_STACK:
		return HMM_VMA_STACK;
	case OS_VMA_FILE:
		return HMM_VMA_FILE;
	case OS_VMA_SHMEM:
	case OS_VMA_SYSV:
		return HMM_VMA_SHMEM;
	case OS_VMA_HUGETLB:
		return HMM_VMA_HUGETLB;
	case OS_VMA_SPECIAL:
		break;
	}
	return HMM_VMA_SPECIAL;
}

static unsigned vma_flags(struct hmm *hmm, const struct os_vma *vma)
{
	return (vma->prot & PROT_READ ? HMM_RUN_READ : 0) |
	       (vma->prot & PROT_WRITE ? HMM_RUN_WRITE : 0) |
	       (vma->prot & PROT_EXEC ? HMM_RUN_EXEC : 0) |
	       (vma->shared ? HMM_RUN_SHARED : 0) |
	       (vma->inode && hmm->os->vma_is_dax(&hmm->mm, vma) ? HMM_RUN_DAX : 0);
}

static unsigned page_flags(const struct os_run *run)
{
	return (run->flags & OS_PAGE_PRESENT ? HMM_RUN_VALID : 0) |
	       (run->flags & OS_PAGE_SWAPPED ? HMM_RUN_SWAPPED : 0) |
	       (run->flags & OS_PAGE_ZERO ? HMM_RUN_ZERO : 0) |
	       (run->flags & OS_PAGE_FILE ? HMM_RUN_FILE : 0) |
	       (run->flags & OS_PAGE_HUGE ? HMM_RUN_HUGE : 0);
}

static int flush(struct walk *w)
{
	int err = 0;

	if (w->run.start < w->run.end)
		err = w->fn(&w->run, w->arg);
	w->run.start = w->run.end;
	return err;
}

/* Pages [start, end) look like `flags`: more of the same, or a new run. */
static int extend(struct walk *w, uintptr_t start, uintptr_t end, unsigned flags, unsigned order)
{
	int err;

	if (start >= end || (w->populated && !(flags & (HMM_RUN_VALID | HMM_RUN_SWAPPED))))
		return 0;
	if (w->run.start < w->run.end && w->run.end == start && w->run.flags == flags) {
		w->run.end = end;
		return 0;
	}
	err = flush(w);
	w->run.start = start;
	w->run.end = end;
	w->run.flags = flags;
	w->run.order = order;
	return err;
}

static int walk_vma(struct walk *w, const struct os_vma *vma, uintptr_t at, uintptr_t end)
{
	unsigned common = vma_flags(w->hmm, vma), how = w->populated ? OS_SCAN_POPULATED : 0;
	unsigned huge = vma->page_size > PAGE
				? (unsigned)__builtin_ctzll(vma->page_size) - OS_PAGE_SHIFT : 9;
	struct os_run runs[RUNS];
	int err = 0;

	w->run = (struct hmm_run){ .size = sizeof(w->run), .kind = kind_of(vma),
				   .name = vma->name };
	while (!err && at < end) {
		uintptr_t next = end;
		int n = w->hmm->os->scan(&w->hmm->mm, at, end, how, runs, RUNS, &next);

		if (n < 0)
			return n;
		for (int i = 0; i < n && !err; i++) {
			unsigned flags = common | page_flags(&runs[i]);

			err = extend(w, at, runs[i].start, common, 0);
			if (!err)
				err = extend(w, runs[i].start, runs[i].end, flags,
					     flags & HMM_RUN_HUGE ? huge : 0);
			at = runs[i].end;
		}
		if (!err)
			err = extend(w, at, next, common, 0);
		at = next;
	}
	return err ? err : flush(w);
}

/* From *at on to a mapping. -ENOENT none is below `end`; -EBUSY one after the other comes there. */
static int next_vma(struct hmm *hmm, uintptr_t *at, uintptr_t end, struct os_vma *vma)
{
	for (unsigned tries = 0; tries < TRIES; tries++) {
		uintptr_t start = *at, stop;
		int err = hmm->os->vma_find(&hmm->mm, start, vma);

		if (err && err != -ENOENT)
			return err;
		if (!err && vma->start <= start)
			return 0;
		stop = err || vma->start > end ? end : vma->start;
		*at = hole_end(hmm, start, stop);
		if (*at == stop)
			return stop < end ? 0 : -ENOENT;
		if (*at > start)
			tries = 0;
	}
	return -EBUSY;
}

int hmm_snapshot_runs(struct hmm *hmm, uintptr_t start, uintptr_t end, unsigned flags,
		      hmm_run_fn fn, void *arg)
{
	struct walk w = { .hmm = hmm, .fn = fn, .arg = arg, .populated = flags };
	int err = hmm_check(hmm);

	if (err)
		return err;
	if (end == UINTPTR_MAX)
		end = PAGE_DOWN(end);
	if (!fn || ((start | end) & (PAGE - 1)) || (flags & ~HMM_RUN_VALID))
		return error_say(-EINVAL, "the range is not aligned to pages, a flag is unknown, or "
					  "there is no function");
	if (in_callback())
		return error_say(-EDEADLK, "a snapshot cannot be taken inside a callback");
	while (start < end) {
		struct os_vma vma;

		err = next_vma(hmm, &start, end, &vma);
		if (err)
			return err == -ENOENT ? 0 : err;
		err = walk_vma(&w, &vma, start, vma.end < end ? vma.end : end);
		if (err)
			return err;
		start = vma.end;
	}
	return 0;
}
