/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * exclusive - pages that an atomic has for itself (nouveau_atomic_range_fault).
 *
 * An atomic on a page in video memory needs nothing: nobody else can reach it. One on
 * system memory gets the page made exclusive: it moves into a frame of the exclusive
 * devmem, out of the CPU's reach, and all accesses of the GPU go there until a CPU touches
 * it. The page comes locked, and stays so until the SM has tried its atomic once.
 *
 * Where that cannot be had (a file, shared memory, a page that is pinned or locked) the atomic
 * is the CPU's own, on system memory, which is as atomic as on a GPU that has a coherent
 * link. Then the translation says that it is allowed (GPU_PFN_ATOMIC), and is good until
 * the page changes. So it is, too, for a page that CPUs take back again and again:
 * each time costs more than thousands of atomics.
 */
#include <time.h>

#include "gpu_private.h"

/* When every frame is taken: so many of the oldest go home. */
#define MAKE_ROOM 64
/* So often in such a time a page is made exclusive, then it is system memory's turn. */
#define CONTESTED 8
#define CONTESTED_NS UINT64_C(1000000000)

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* Is this page wanted by CPUs too much? Slots by hash: who loses his starts anew. */
static bool is_contested(struct gpu *gpu, uintptr_t addr)
{
	uintptr_t page = addr / GPU_PAGE;
	struct gpu_contest *contest = &gpu->contest[page % GPU_CONTESTS];
	uint64_t now = now_ns();

	if (contest->page != page || now - contest->since > CONTESTED_NS)
		*contest = (struct gpu_contest){.page = page, .since = now};
	return contest->count++ >= CONTESTED;
}

static int serve(struct gpu_window *window, struct gpu_fault *fault, bool system_atomics)
{
	int err;

	window->start = fault->addr & -GPU_PAGE;
	window->end = window->start + GPU_PAGE;
	window->want[0] = gpu_request(GPU_ATOMIC);
	window->system_atomics = system_atomics;
	err = gpu_window_map(window, 0);
	window->system_atomics = false;
	fault->err = err;
	fault->reason = err ? window->fault_reason : HMM_REASON_NONE;
	return err;
}

static int make_exclusive(struct gpu *gpu, uintptr_t addr, uint64_t *frame)
{
	struct gpu_memory *memory = &gpu->exclusive;
	int err = hmm_make_exclusive(memory->devmem, addr, frame);

	if (err == -ENOSPC && gpu_memory_make_room(memory, MAKE_ROOM))
		err = hmm_make_exclusive(memory->devmem, addr, frame);
	return err;
}

/* Handler only; the page has no translation that allows an atomic. */
void gpu_exclusive_serve(struct gpu_window *window, struct gpu_fault *fault)
{
	struct gpu *gpu = window->gpu;
	uint64_t frame;
	int err;

	/* First as a write: it says what is wrong with the page, and finds our own memory. */
	if (serve(window, fault, false) || (gpu_mmu_lookup(gpu, fault->addr) & GPU_PFN_ATOMIC))
		return;
	err = is_contested(gpu, fault->addr) ? -EBUSY
					     : make_exclusive(gpu, fault->addr, &frame);
	switch (err) {
	case 0:
		atomic_fetch_add(&gpu->count.exclusive, 1);
		fault->locked = frame + 1;
		if (serve(window, fault, false) != -EBUSY)
			break;
		/* Changes without end: then it is the CPU's atomic. */
		fault->locked = 0;
		hmm_exclusive_release(gpu->exclusive.devmem, frame);
		atomic_fetch_add(&gpu->count.atomic_fallbacks, 1);
		serve(window, fault, true);
		break;
	case -EFAULT:
	case -EPERM: /* changed meanwhile: the next fault says how */
		break;
	default: /* not such a page, or not now */
		atomic_fetch_add(&gpu->count.atomic_fallbacks, 1);
		serve(window, fault, true);
	}
}
