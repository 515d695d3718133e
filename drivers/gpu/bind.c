/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bind - ranges ahead of use: SVM_BIND (what is present), prefetch (fault it in), migrate.
 *
 * All walk the runs that hmm_snapshot_runs() reports: bind only what is populated, so
 * a sparse range costs what is in it; prefetch the mappings that allow the access, so
 * holes cost nothing. Pieces in one 2 MiB block go together, each as one command to the
 * handler. Best effort, as in nouveau: a page that cannot be had is left to fault.
 */
#include "gpu_private.h"

static int flush(struct gpu_walk *walk)
{
	int err = walk->start < walk->end ? walk->fn(walk->arg, walk->start, walk->end) : 0;

	walk->start = walk->end = 0;
	return err;
}

static int walk_run(const struct hmm_run *run, void *arg)
{
	struct gpu_walk *walk = arg;
	uintptr_t start = run->start, end;
	int err = 0;

	if ((run->flags & walk->need) != walk->need)
		return 0;
	for (; start < run->end && !err; start = end) {
		end = (start & -GPU_HUGE) + GPU_HUGE;
		if (end > run->end)
			end = run->end;
		if (walk->end && ((walk->start ^ start) >= GPU_HUGE ||
				  (!walk->gaps && start != walk->end)))
			err = flush(walk);
		if (!walk->end)
			walk->start = start;
		walk->end = end;
	}
	return err;
}

int gpu_walk(struct gpu_walk *walk, const void *addr, size_t length, unsigned flags)
{
	uintptr_t start = (uintptr_t)addr & -GPU_PAGE, end = (uintptr_t)addr + length;
	int err;

	if (end < (uintptr_t)addr || end > UINTPTR_MAX - GPU_PAGE)
		return -EOVERFLOW;
	end = (end + GPU_PAGE - 1) & -GPU_PAGE;
	if (!length)
		return 0;
	err = hmm_snapshot_runs(walk->gpu->hmm, start, end, flags, walk_run, walk);
	return err ? err : flush(walk);
}

struct map {
	struct gpu *gpu;
	uint64_t request; /* of each page */
	int64_t mapped;
};

static int map_piece(void *arg, uintptr_t start, uintptr_t end)
{
	struct map *map = arg;
	struct gpu_command command = {
		.kind = GPU_COMMAND_MAP,
		.start = start,
		.end = end,
		.request = map->request,
	};
	int err = gpu_command(map->gpu, &command);

	map->mapped += command.mapped;
	return err;
}

/*
 * What is in our own memory counts as populated, but no run says so: the notes of where frames
 * were last mapped do. They are a hint, so that it does not matter if they change.
 */
static int map_frames(struct map *map, const struct gpu_memory *memory, uintptr_t start,
		      uintptr_t end)
{
	uint64_t frame, n;
	int err = 0;

	for (frame = 0; memory->devmem && frame < memory->frames && !err; frame += n) {
		uintptr_t at = atomic_load_explicit(&memory->rmap[frame],
						    memory_order_relaxed);

		n = 1;
		if (at < start || at >= end || gpu_mmu_lookup(map->gpu, at))
			continue;
		while (frame + n < memory->frames && at + n * GPU_PAGE < end &&
		       at / GPU_HUGE == (at + n * GPU_PAGE) / GPU_HUGE &&
		       atomic_load_explicit(&memory->rmap[frame + n], memory_order_relaxed) ==
			       at + n * GPU_PAGE)
			n++;
		err = map_piece(map, at, at + n * GPU_PAGE);
	}
	return err;
}

int64_t gpu_bind(struct gpu *gpu, const void *start, size_t length)
{
	struct map map = {.gpu = gpu};
	/* A gap in a piece is looked at for nothing, that is all. */
	struct gpu_walk walk = {
		.gpu = gpu, .gaps = true, .need = HMM_RUN_READ, .fn = map_piece, .arg = &map};
	int err = gpu_walk(&walk, start, length, HMM_RUN_VALID);

	if (!err)
		err = map_frames(&map, &gpu->vram, (uintptr_t)start & -GPU_PAGE,
				 (uintptr_t)start + length);
	return err ? err : map.mapped;
}

int gpu_prefetch(struct gpu *gpu, const void *start, size_t length, enum gpu_access access)
{
	struct map map = {.gpu = gpu, .request = gpu_request(access)};
	/* A gap must not be faulted. */
	struct gpu_walk walk = {.gpu = gpu,
				.gaps = !map.request,
				.need = HMM_RUN_READ,
				.fn = map_piece,
				.arg = &map};

	if (map.request & HMM_PFN_REQ_WRITE)
		walk.need |= HMM_RUN_WRITE;
	return gpu_walk(&walk, start, length, map.request ? 0 : HMM_RUN_VALID);
}
