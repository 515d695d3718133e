/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * window - a piece of address space that is mapped in one go.
 *
 * Faults, prefetch and bind differ only in what they ask of each page; all of them
 * end in gpu_window_map(), which is the one place where translations are born.
 */
#include <stdio.h>
#include <string.h>

#include "gpu_private.h"

#define STALE_TRIES 100 /* a policy that changes as often while one answer is got */
#define NAIVE_TRIES 1000 /* as often as an access is replayed, access.c */

static int program(const struct hmm_range *range, void *window)
{
	return gpu_mmu_install(window, range);
}

/*
 * The driver's loop done wrong, for the litmus test: the answer is installed without
 * hmm_notifier_read_retry(), so a change between fault and install goes unseen.
 */
static int map_naive(struct gpu_window *window, struct hmm_range *range)
{
	int err, tries = 0;

	do {
		err = hmm_notifier_read_begin(range);
		if (!err)
			err = hmm_range_fault(range);
	} while (err == -EBUSY && ++tries < NAIVE_TRIES);
	if (err)
		return err;
	pthread_mutex_lock(&window->gpu->mmu.lock);
	err = program(range, window);
	pthread_mutex_unlock(&window->gpu->mmu.lock);
	return err;
}

/*
 * Handler only. Make present what window->want asks for and map all of the window that is
 * present.
 * One failing page fails the window: fault_addr and fault_reason name it.
 * Return: 0; as hmm_range_program(); -EIO, -ENXIO the library's answer cannot be used.
 */
int gpu_window_map(struct gpu_window *window, unsigned timeout_ms)
{
	struct gpu *gpu = window->gpu;
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = gpu->hmm,
		.notifier = gpu->notifier,
		.start = window->start,
		.end = window->end,
		.pfns = window->pfns,
		.pfn_flags_mask = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
		.owner = gpu->owner, /* what is in our memory stays; what is in another's comes */
	};
	int err, tries = 0;

	do {
		gpu_policy_ask(window);
		memcpy(window->pfns, window->want,
		       (window->end - window->start) / GPU_PAGE * sizeof(*window->pfns));
		if (gpu->naive)
			err = map_naive(window, &range);
		else
			err = hmm_range_program(&range, timeout_ms, &gpu->mmu.lock, program,
						window);
	} while (err == -ESTALE && ++tries < STALE_TRIES);
	if (err == -ESTALE)
		err = -EBUSY;
	if (err == -EIO || err == -ENXIO)
		hmm_log(HMM_LOG_ERROR, "gpu: the answer for %#lx cannot be used: %#llx",
			(unsigned long)window->refused,
			(unsigned long long)window->refused_entry);
	window->fault_addr = range.fault_addr;
	window->fault_reason = range.fault_reason;
	return err;
}

/* What tells one mapping from its neighbour, as far as a run says it. */
struct mapping {
	enum hmm_vma_kind kind; /* HMM_VMA_HOLE: none */
	unsigned flags;
	char name[256];
};

static void mapping_of(struct mapping *mapping, const struct hmm_run *run)
{
	mapping->kind = run->kind;
	mapping->flags = run->flags & (HMM_RUN_READ | HMM_RUN_WRITE | HMM_RUN_EXEC |
				       HMM_RUN_SHARED | HMM_RUN_DAX);
	snprintf(mapping->name, sizeof(mapping->name), "%s", run->name);
}

static bool same_mapping(const struct mapping *a, const struct mapping *b)
{
	return a->kind == b->kind && a->flags == b->flags && !strcmp(a->name, b->name);
}

static int page_run(const struct hmm_run *run, void *mapping)
{
	mapping_of(mapping, run);
	return 1;
}

/* Do both ends look like one mapping? Asked first: it need not look at every page. */
static bool is_one_mapping(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct mapping first = {0}, last = {0};

	hmm_snapshot_runs(hmm, start, start + GPU_PAGE, 0, page_run, &first);
	hmm_snapshot_runs(hmm, end - GPU_PAGE, end, 0, page_run, &last);
	return first.kind && same_mapping(&first, &last);
}

/* Runs in a row that may be one mapping; the last such row seen. */
struct clip {
	uintptr_t addr, start, end;
	struct mapping mapping;
};

static int clip_run(const struct hmm_run *run, void *arg)
{
	struct clip *clip = arg;
	struct mapping mapping;

	mapping_of(&mapping, run);
	if (run->start == clip->end && same_mapping(&mapping, &clip->mapping)) {
		clip->end = run->end;
		return 0;
	}
	if (clip->addr < clip->end || run->start > clip->addr)
		return 1; /* the row around addr is complete, or there is none */
	clip->start = run->start;
	clip->end = run->end;
	clip->mapping = mapping;
	return 0;
}

/*
 * The window around an address: an aligned block of gpu->fault_window pages, cut to
 * the mapping that holds it. Neighbours in other mappings are not looked at, because
 * looking registers them with the mirror, and a registered file costs its program more.
 * Nothing but that cost depends on the answer. addr is managed (mmu.c).
 */
void gpu_window_clip(struct gpu_window *window, uintptr_t addr)
{
	uintptr_t page = addr & -GPU_PAGE, size = window->gpu->fault_window * GPU_PAGE;
	struct hmm *hmm = window->gpu->hmm;
	struct clip clip = {.addr = addr};

	window->start = page & -size;
	window->end = window->start + size;
	gpu_mmu_managed(window->gpu, addr, &window->start, &window->end);
	if (window->end - window->start == GPU_PAGE ||
	    is_one_mapping(hmm, window->start, window->end))
		return;
	hmm_snapshot_runs(hmm, window->start, window->end, 0, clip_run, &clip);
	if (clip.start <= addr && addr < clip.end) {
		window->start = clip.start;
		window->end = clip.end;
	} else {
		window->start = page; /* a hole: its own fault says why */
		window->end = page + GPU_PAGE;
	}
}
