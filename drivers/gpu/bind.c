/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bind - map ranges ahead of use: SVM_BIND (what is present) and prefetch (fault it in).
 *
 * Both walk the runs that hmm_snapshot_runs() reports: bind only what is populated, so
 * a sparse range costs what is in it; prefetch the mappings that allow the access, so
 * holes cost nothing. Pieces in one 2 MiB block go into one window. Best effort, as in
 * nouveau: a page that cannot be had is left to fault.
 */
#include "gpu_private.h"

struct walk {
	struct gpu_window window;
	uintptr_t start, end; /* piece not mapped yet, in one 2 MiB block; empty if equal */
	uint64_t request;     /* of each page */
	unsigned need;	      /* HMM_RUN_* without which a run is left out */
	int64_t mapped;
};

static bool is_page_error(int err)
{
	return err == -EFAULT || err == -EPERM || err == -EOPNOTSUPP;
}

static int map_piece(struct walk *walk, uintptr_t start, uintptr_t end)
{
	struct gpu_window *window = &walk->window;
	size_t i;
	int err;

	window->start = start;
	window->end = end;
	for (i = 0; i < (end - start) / GPU_PAGE; i++)
		window->want[i] = walk->request;
	err = gpu_window_map(window, 0);
	if (!err)
		walk->mapped += (int64_t)window->mapped;
	return err;
}

/* What is before a bad page is mapped by itself, then it goes on behind. */
static int map_skipping(struct walk *walk, uintptr_t start, uintptr_t end)
{
	int err = 0;

	while (start < end) {
		uintptr_t bad;

		err = map_piece(walk, start, end);
		if (!is_page_error(err))
			return err;
		bad = walk->window.fault_addr & -GPU_PAGE;
		if (bad < start || bad >= end)
			return err;
		if (bad > start) {
			err = map_piece(walk, start, bad);
			if (err && !is_page_error(err))
				return err;
		}
		start = bad + GPU_PAGE;
	}
	return 0;
}

/* Map the piece, without what is unmanaged. */
static int flush(struct walk *walk)
{
	struct gpu *gpu = walk->window.gpu;
	uintptr_t start = walk->start;
	int err = 0;

	while (start < walk->end && !err) {
		uintptr_t from = start, to = walk->end;

		if (!gpu_mmu_managed(gpu, start, &from, &to)) {
			start += GPU_PAGE;
			continue;
		}
		err = map_skipping(walk, start, to);
		start = to;
	}
	walk->start = walk->end = 0;
	return err;
}

static int walk_run(const struct hmm_run *run, void *arg)
{
	struct walk *walk = arg;
	uintptr_t start = run->start, end;
	int err = 0;

	if ((run->flags & walk->need) != walk->need)
		return 0;
	for (; start < run->end && !err; start = end) {
		end = (start & -GPU_HUGE) + GPU_HUGE;
		if (end > run->end)
			end = run->end;
		/* A gap in a piece is looked at for nothing, but may not be faulted. */
		if (walk->end && ((walk->start ^ start) >= GPU_HUGE ||
				  (walk->request && start != walk->end)))
			err = flush(walk);
		if (!walk->end)
			walk->start = start;
		walk->end = end;
	}
	return err;
}

static int walk_range(struct walk *walk, const void *addr, size_t length, unsigned flags)
{
	uintptr_t start = (uintptr_t)addr & -GPU_PAGE, end = (uintptr_t)addr + length;
	int err;

	if (end < (uintptr_t)addr || end > UINTPTR_MAX - GPU_PAGE)
		return -EOVERFLOW;
	end = (end + GPU_PAGE - 1) & -GPU_PAGE;
	if (!length)
		return 0;
	err = hmm_snapshot_runs(walk->window.gpu->hmm, start, end, flags, walk_run, walk);
	return err ? err : flush(walk);
}

int64_t gpu_bind(struct gpu *gpu, const void *start, size_t length)
{
	struct walk walk = {.window.gpu = gpu, .need = HMM_RUN_READ};
	int err = walk_range(&walk, start, length, HMM_RUN_VALID);

	return err ? err : walk.mapped;
}

int gpu_prefetch(struct gpu *gpu, const void *start, size_t length, enum gpu_access access)
{
	struct walk walk = {
		.window.gpu = gpu,
		.request = gpu_request(access),
		.need = HMM_RUN_READ,
	};

	if (walk.request & HMM_PFN_REQ_WRITE)
		walk.need |= HMM_RUN_WRITE;
	return walk_range(&walk, start, length, walk.request ? 0 : HMM_RUN_VALID);
}
