/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * hive - GPUs that reach each other's video memory.
 *
 * All devmems of a hive have one owner, so a look answers the frames of each to each. A GPU
 * has a view of each peer's memory: notes of its own on where it has mapped which frame
 * (rmap, where, stopped; under its own update lock), and all else in the peer's struct
 * (home).
 *
 * Law: before frames go home no SM of any member uses them. The owner's engine stops them
 * at home first, then in each view, one update lock at a time. It is right in any order:
 * who looked a page up before the transfer began is told by hmm_notifier_read_retry() that
 * it changed, under whichever update lock it is; so a view that was stopped stays so. Who
 * holds a peer's update lock waits for sections of frames only, and those never sleep
 * (gpu_private.h), so an engine that takes it still waits for nobody whom a CPU's fault
 * waits for.
 *
 * Members come and go without a lock, because an engine may not take one that a thread of
 * the program holds. A slot is written once, and emptied when its GPU's own pages are home;
 * then whoever leaves waits until no engine is in the middle of the list.
 */
#include <unistd.h>

#include "gpu_private.h"

#define LEAVE_US 50

struct gpu_hive *gpu_hive_create(void)
{
	return hmm_alloc(sizeof(struct gpu_hive));
}

void gpu_hive_destroy(struct gpu_hive *hive)
{
	hmm_free(hive, sizeof(*hive));
}

struct gpu_memory *gpu_hive_view(const struct gpu *gpu, uint64_t entry)
{
	unsigned id = hmm_pfn_devmem(entry), i;

	for (i = 0; i < GPU_HIVE_MAX; i++) {
		const struct gpu_memory *view = &gpu->peer[i];

		if (__atomic_load_n(&view->devmem, __ATOMIC_ACQUIRE) && view->id == id)
			return (struct gpu_memory *)view;
	}
	return NULL;
}

/* Nobody has a page there yet, so nobody looks for the view before it is complete. */
static int see(struct gpu *gpu, struct gpu *peer)
{
	struct gpu_memory *view = &gpu->peer[peer->slot];

	if (!peer->vram.devmem)
		return 0;
	view->gpu = gpu;
	view->home = &peer->vram;
	view->frames = peer->vram.frames;
	view->host = peer->vram.host;
	view->base = peer->vram.base;
	view->id = peer->vram.id;
	if (gpu_memory_arrays(view, true)) {
		gpu_memory_free_arrays(view);
		return -ENOMEM;
	}
	__atomic_store_n(&view->devmem, peer->vram.devmem, __ATOMIC_RELEASE);
	return 0;
}

static void unsee(struct gpu *gpu, struct gpu *peer)
{
	__atomic_store_n(&gpu->peer[peer->slot].devmem, NULL, __ATOMIC_RELEASE);
}

int gpu_hive_join(struct gpu *gpu)
{
	struct gpu_hive *hive = gpu->hive;
	unsigned i;
	int err = 0;

	if (!hive)
		return 0;
	if (atomic_load(&hive->slots) == GPU_HIVE_MAX)
		return -ENOSPC;
	gpu->slot = atomic_fetch_add(&hive->slots, 1);
	for (i = 0; i < gpu->slot && !err; i++) {
		struct gpu *peer = atomic_load(&hive->member[i]);

		if (peer)
			err = see(gpu, peer);
		if (peer && !err)
			err = see(peer, gpu);
	}
	if (!err)
		atomic_store(&hive->member[gpu->slot], gpu);
	return err;
}

/* Our pages are home, our SMs have stopped; also after a join that failed. */
void gpu_hive_leave(struct gpu *gpu)
{
	struct gpu_hive *hive = gpu->hive;
	unsigned i;

	if (!hive || gpu->slot == GPU_HIVE_MAX)
		return;
	if (atomic_load(&hive->member[gpu->slot]) == gpu)
		atomic_store(&hive->member[gpu->slot], NULL);
	while (atomic_load(&hive->walkers))
		usleep(LEAVE_US);
	for (i = 0; i < GPU_HIVE_MAX; i++) {
		struct gpu *peer = atomic_load(&hive->member[i]);

		if (peer)
			unsee(peer, gpu);
	}
}

void gpu_hive_free_views(struct gpu *gpu)
{
	unsigned i;

	for (i = 0; i < GPU_HIVE_MAX; i++)
		gpu_memory_free_arrays(&gpu->peer[i]);
}

/* The engine: nobody uses the frames any more. */
void gpu_hive_stop_frames(struct gpu_memory *memory, const struct hmm_devmem_copy *copies,
			  unsigned n)
{
	struct gpu *gpu = memory->gpu;
	unsigned i;

	gpu_mmu_stop_frames(memory, copies, n);
	if (!gpu->hive)
		return;
	atomic_fetch_add(&gpu->hive->walkers, 1);
	for (i = 0; i < GPU_HIVE_MAX; i++) {
		struct gpu *peer = atomic_load(&gpu->hive->member[i]);

		if (peer && peer != gpu &&
		    __atomic_load_n(&peer->peer[gpu->slot].devmem, __ATOMIC_ACQUIRE))
			gpu_mmu_stop_frames(&peer->peer[gpu->slot], copies, n);
	}
	atomic_fetch_sub(&gpu->hive->walkers, 1);
}

/* Our memory is lost: no peer keeps a translation of it. Not while one is opened or closed.
 */
void gpu_hive_forget(struct gpu *gpu)
{
	unsigned i;

	for (i = 0; gpu->hive && i < GPU_HIVE_MAX; i++) {
		struct gpu *peer = atomic_load(&gpu->hive->member[i]);

		if (peer && peer != gpu)
			gpu_forget(peer, NULL, UINTPTR_MAX);
	}
}

static struct gpu *holder_of(struct gpu *gpu, uint64_t entry)
{
	const struct gpu_memory *memory =
		hmm_pfn_is_device(entry) ? gpu_memory_of(gpu, entry) : NULL;

	return memory && memory != &gpu->exclusive ? memory->home->gpu : NULL;
}

int gpu_locate(struct gpu *gpu, const void *start, unsigned pages, struct gpu **where)
{
	uint64_t pfns[GPU_LOCATE_MAX] = { 0 };
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = gpu->hmm,
		.notifier = gpu->notifier,
		.start = (uintptr_t)start,
		.end = (uintptr_t)start + pages * GPU_PAGE,
		.pfns = pfns,
		.owner = gpu->owner,
	};
	unsigned i, tries = 0;
	int err;

	if (!pages || pages > GPU_LOCATE_MAX || range.start % GPU_PAGE ||
	    range.end < range.start)
		return -EINVAL;
	if (gpu->pid != getpid())
		return -ENODEV;
	do {
		err = hmm_notifier_read_begin(&range);
		if (!err)
			err = hmm_range_snapshot(&range);
	} while (err == -EBUSY && ++tries < 100);
	for (i = 0; i < pages && !err; i++)
		where[i] = holder_of(gpu, pfns[i]);
	return err;
}
