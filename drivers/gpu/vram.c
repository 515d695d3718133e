/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * vram - the GPU's own memory: what the library asks of it, and who is in it.
 *
 * A GPU has up to two devmems. Video memory (gpu_options.vram_bytes) is an allocation of the
 * GPU's own, to which the copy engine copies, or host memory of the library's
 * (vram_host). The exclusive one holds pages that atomics have for themselves; it is
 * always host memory. Both have the GPU as owner, so a look answers HMM_PFN_DEVICE for
 * them and for no other GPU's.
 *
 * Laws: the operations run on the library's reader, on which every CPU's fault waits. They
 * only note what shall be done and wake the engine (engine.c), without a lock; frames
 * are counted by atomics. Everything here lies in memory that never moves.
 *
 * Who has been used: each block of 16 frames (64 KiB) has the clock of when something came
 * into it or an SM looked one of its pages up, which an SM with a full TLB seldom does.
 * The clock ticks when somebody needs room. That is as near to "least recently used" as
 * a device comes that does not write accessed bits.
 */
#include <string.h>

#include "gpu_private.h"

/* Enough for the pages that atomics of a few jobs are about; then the oldest go home. */
#define EXCLUSIVE_FRAMES 1024u

static void put(struct gpu_memory *memory, bool home, struct hmm_devmem_copy *copies,
		unsigned n, struct hmm_transfer *transfer)
{
	const struct gpu_engine_job job = {
		.memory = memory,
		.home = home,
		.copies = copies,
		.n = n,
		.transfer = transfer,
	};

	gpu_engine_put(memory->gpu, &job);
}

static void to_device(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		      struct hmm_transfer *transfer)
{
	put(priv, false, copies, n, transfer);
}

static void to_host(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		    struct hmm_transfer *transfer)
{
	put(priv, true, copies, n, transfer);
}

static int frame_alloc(void *priv, uint64_t frame)
{
	struct gpu_memory *memory = priv;
	uint64_t block = frame >> GPU_BLOCK_SHIFT;

	atomic_fetch_add(&memory->used[block], 1);
	atomic_store(&memory->touched[block], atomic_load(&memory->clock));
	return 0;
}

static void frame_free(void *priv, uint64_t frame)
{
	struct gpu_memory *memory = priv;

	atomic_fetch_sub(&memory->used[frame >> GPU_BLOCK_SHIFT], 1);
}

static const struct hmm_devmem_ops copied_ops = {
	.size = sizeof(copied_ops),
	.to_device = to_device,
	.to_host = to_host,
	.frame_alloc = frame_alloc,
	.frame_free = frame_free,
};

static const struct hmm_devmem_ops host_ops = {
	.size = sizeof(host_ops),
	.to_host = to_host,
	.frame_alloc = frame_alloc,
	.frame_free = frame_free,
};

static uint64_t blocks_of(const struct gpu_memory *memory)
{
	return (memory->frames + GPU_BLOCK - 1) >> GPU_BLOCK_SHIFT;
}

void gpu_memory_free_arrays(struct gpu_memory *memory)
{
	hmm_free((void *)memory->rmap, memory->frames * sizeof(*memory->rmap));
	hmm_free(memory->where, memory->frames * sizeof(*memory->where));
	hmm_free((void *)memory->stopped, memory->frames * sizeof(*memory->stopped));
	hmm_free((void *)memory->used, blocks_of(memory) * sizeof(*memory->used));
	hmm_free((void *)memory->touched, blocks_of(memory) * sizeof(*memory->touched));
	if (memory->home == memory)
		hmm_free(memory->base, memory->frames * GPU_PAGE);
	memory->rmap = NULL;
	memory->where = NULL;
	memory->stopped = NULL;
	memory->used = NULL;
	memory->touched = NULL;
	memory->base = NULL;
}

/* A view has notes of its own; who uses which frame, and the bytes, are its home's. */
int gpu_memory_arrays(struct gpu_memory *memory, bool view)
{
	memory->rmap = hmm_alloc(memory->frames * sizeof(*memory->rmap));
	memory->where = hmm_alloc(memory->frames * sizeof(*memory->where));
	memory->stopped = hmm_alloc(memory->frames * sizeof(*memory->stopped));
	if (view)
		return memory->rmap && memory->where && memory->stopped ? 0 : -ENOMEM;
	memory->used = hmm_alloc(blocks_of(memory) * sizeof(*memory->used));
	memory->touched = hmm_alloc(blocks_of(memory) * sizeof(*memory->touched));
	if (!memory->host)
		memory->base = hmm_alloc(memory->frames * GPU_PAGE);
	if (!memory->rmap || !memory->where || !memory->stopped || !memory->used ||
	    !memory->touched || (!memory->host && !memory->base))
		return -ENOMEM;
	return 0;
}

static int create(struct gpu_memory *memory, struct gpu *gpu, uint64_t frames, bool host)
{
	const struct hmm_devmem_options options = {
		.size = sizeof(options),
		.type = HMM_DEVMEM_PRIVATE,
		.frames = frames,
		.host_frames = host,
		.timeslice_us = gpu->options.timeslice_us,
		.timeout_ms = gpu->options.timeout_ms,
		.owner = gpu->owner,
	};
	struct hmm_devmem *devmem = NULL;
	int err;

	memory->gpu = gpu;
	memory->frames = frames;
	memory->host = host;
	memory->home = memory;
	err = gpu_memory_arrays(memory, false);
	if (!err)
		err = hmm_devmem_create(gpu->hmm, &options, host ? &host_ops : &copied_ops,
					memory, &devmem);
	if (err) {
		gpu_memory_free_arrays(memory);
		return err;
	}
	memory->id = hmm_devmem_id(devmem);
	memory->devmem = devmem;
	return 0;
}

/* Without exclusive access atomics still work: they are the CPU's own then. */
int gpu_memories_create(struct gpu *gpu)
{
	int err = 0;

	if (gpu->options.vram_bytes)
		err = create(&gpu->vram, gpu, gpu->options.vram_bytes / GPU_PAGE,
			     gpu->options.vram_host);
	if (err || gpu->options.no_exclusive || gpu->naive)
		return err;
	err = create(&gpu->exclusive, gpu, EXCLUSIVE_FRAMES, true);
	if (err)
		hmm_log(HMM_LOG_INFO, "gpu: no exclusive access for atomics: %s",
			hmm_strerror(err));
	return 0;
}

/* The engine lives: everything comes home. No SM and nobody who migrates does any more. */
void gpu_memories_destroy(struct gpu *gpu)
{
	hmm_devmem_destroy(gpu->exclusive.devmem);
	hmm_devmem_destroy(gpu->vram.devmem);
	gpu->exclusive.devmem = gpu->vram.devmem = NULL;
}

/* The engine is gone, with what it was late for (a transfer that the library gave up). */
void gpu_memories_free(struct gpu *gpu)
{
	gpu_memory_free_arrays(&gpu->exclusive);
	gpu_memory_free_arrays(&gpu->vram);
	gpu_hive_free_views(gpu);
}

struct gpu_memory *gpu_memory_of(struct gpu *gpu, uint64_t entry)
{
	unsigned id = hmm_pfn_devmem(entry);

	return gpu->vram.devmem && id == gpu->vram.id		  ? &gpu->vram
	       : gpu->exclusive.devmem && id == gpu->exclusive.id ? &gpu->exclusive
								   : gpu->hive ? gpu_hive_view(gpu, entry) : NULL;
}

/* Inside a section: an SM has looked a page of it up. */
void gpu_memory_touch(struct gpu *gpu, uint64_t entry)
{
	struct gpu_memory *memory = gpu_memory_of(gpu, entry)->home;
	uint32_t now = atomic_load_explicit(&memory->clock, memory_order_relaxed);

	atomic_store_explicit(&memory->touched[hmm_pfn_frame(entry) >> GPU_BLOCK_SHIFT], now,
			      memory_order_relaxed);
}

/* The block in use that was touched longest ago; blocks_of(): none. */
static uint64_t oldest_block(const struct gpu_memory *memory)
{
	uint32_t now = atomic_load(&memory->clock), age, oldest = 0;
	uint64_t block, found = blocks_of(memory);

	for (block = 0; block < blocks_of(memory); block++) {
		if (!atomic_load_explicit(&memory->used[block], memory_order_relaxed))
			continue;
		age = now - atomic_load_explicit(&memory->touched[block],
						 memory_order_relaxed);
		if (found == blocks_of(memory) || age > oldest) {
			found = block;
			oldest = age;
		}
	}
	return found;
}

/*
 * Bring home what was used longest ago, until so many frames are free of it. A block that
 * cannot go (a fork or a transfer holds it) counts as just used. Return: pages that came.
 */
uint64_t gpu_memory_make_room(struct gpu_memory *memory, uint64_t frames)
{
	uint64_t came = 0, tries = blocks_of(memory);

	atomic_fetch_add(&memory->clock, 1);
	atomic_store(&memory->making_room, true);
	while (came < frames && tries--) {
		uint64_t block = oldest_block(memory), first = block << GPU_BLOCK_SHIFT;
		uint64_t count = memory->frames - first < GPU_BLOCK ? memory->frames - first
								     : GPU_BLOCK;
		int64_t n;

		if (block == blocks_of(memory))
			break;
		atomic_store(&memory->touched[block], atomic_load(&memory->clock));
		n = hmm_devmem_evict(memory->devmem, first, count);
		if (n == -ENODEV)
			break;
		came += n > 0 ? (uint64_t)n : 0;
	}
	atomic_store(&memory->making_room, false);
	return came;
}
