/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * migrate - what moves to video memory, and what leaves to make room.
 *
 * One thread decides. The program asks it (gpu_migrate), and the SMs' access counters do: a
 * miss that the page table serves with system memory counts for its block of 64 KiB, and a
 * block that was missed gpu_options.migrate_after times is hot. Counters are a table of
 * one slot for each of 4096 blocks by hash; who loses his slot starts anew, and a count that
 * two SMs make at once may be lost, which is fine for a counter of use.
 *
 * It is not the handler because a migration waits for the worker, the copy engine, and for
 * room, while SMs fault on. Nobody whom a CPU's fault waits for waits for this thread.
 */
#include <string.h>
#include <unistd.h>

#include "gpu_private.h"

#define HOT_SHIFT 16 /* of an address */
/* A block that could not move counts up from here to 65535 before it counts from 0 again. */
#define COLD 0x8000u
/* How often room is made for one piece that still does not get in. */
#define ROOM_TRIES 4

struct gpu_request {
	struct gpu_request *next;
	uintptr_t start, end; /* in one 2 MiB block */
	int64_t result;
	bool done;
};

static _Atomic uint64_t *heat_of(struct gpu *gpu, uint64_t block)
{
	return &gpu->migrate.heat[block * UINT64_C(0x9e3779b97f4a7c15) >> 52];
}

/* Inside a section of system memory: a miss. */
void gpu_migrate_heat(struct gpu_sm *sm, uintptr_t addr)
{
	uint64_t block = addr >> HOT_SHIFT;
	_Atomic uint64_t *heat = heat_of(sm->gpu, block);
	uint64_t now = atomic_load_explicit(heat, memory_order_relaxed);
	unsigned count = now >> 16 == block ? (now + 1) & 0xffff : 1;

	atomic_store_explicit(heat, block << 16 | count, memory_order_relaxed);
	if (count == sm->gpu->migrate.after)
		sm->hot = block + 1;
}

/* An SM, outside sections. A block that finds no room here will be hot again. */
void gpu_migrate_hot(struct gpu *gpu, uint64_t block)
{
	struct gpu_migrate *migrate = &gpu->migrate;

	atomic_store(heat_of(gpu, block), 0);
	pthread_mutex_lock(&migrate->lock);
	if (migrate->tail - migrate->head < GPU_HOT) {
		migrate->hot[migrate->tail++ % GPU_HOT] = block;
		pthread_cond_signal(&migrate->put);
	}
	pthread_mutex_unlock(&migrate->lock);
}

/* ---- the thread ---- */

/* What the library does in between, done by ourselves. */
static void copy_steps(struct gpu_memory *memory, struct hmm_migrate *steps)
{
	uint64_t frame[GPU_WINDOW_MAX];
	unsigned i, next = 0, got = hmm_devmem_frames(memory->devmem, frame, steps->cpages);

	for (i = 0; i < steps->npages; i++) {
		steps->dst[i] = 0;
		if (!(steps->src[i] & HMM_MIGRATE_MIGRATE) || next == got)
			continue;
		if (memory->base && (steps->src[i] & HMM_MIGRATE_VALID))
			memcpy(memory->base + frame[next] * GPU_PAGE,
			       hmm_migrate_page(steps->src[i]), GPU_PAGE);
		else if (memory->base)
			memset(memory->base + frame[next] * GPU_PAGE, 0, GPU_PAGE);
		steps->dst[i] = hmm_migrate_frame(frame[next++]);
	}
	hmm_devmem_frames_free(memory->devmem, frame + next, got - next);
}

/* Return: pages that moved; -ENOSPC some did not for want of a frame. */
static int64_t move_by_steps(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	uint64_t src[GPU_WINDOW_MAX], dst[GPU_WINDOW_MAX];
	struct hmm_migrate steps = {
		.size = sizeof(steps),
		.devmem = gpu->vram.devmem,
		.start = start,
		.end = end,
		.src = src,
		.dst = dst,
	};
	unsigned i, without = 0;
	int moved = 0, err = hmm_migrate_setup(&steps);

	if (err)
		return err;
	copy_steps(&gpu->vram, &steps);
	for (i = 0; i < steps.npages; i++)
		without += (src[i] & HMM_MIGRATE_MIGRATE) && !dst[i];
	moved = hmm_migrate_pages(&steps);
	hmm_migrate_finalize(&steps);
	return moved < 0 ? moved : without ? -ENOSPC : moved;
}

/* setup takes one mapping; where two meet, the halves are tried. Return: as above. */
static int64_t move_halves(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	uintptr_t middle = start + (end - start) / 2 / GPU_PAGE * GPU_PAGE;
	int64_t n = move_by_steps(gpu, start, end), more;

	if (n != -EINVAL || middle == start)
		return n;
	n = move_halves(gpu, start, middle);
	more = move_halves(gpu, middle, end);
	return n < 0 ? n : more < 0 ? more : n + more;
}

static uint64_t declined(struct gpu *gpu)
{
	struct hmm_devmem_stats stats = {.size = sizeof(stats)};

	hmm_devmem_get_stats(gpu->vram.devmem, &stats);
	return stats.declined;
}

static int64_t move(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	uint64_t before = declined(gpu);
	int64_t n;

	if (gpu->options.three_step)
		return move_halves(gpu, start, end);
	n = hmm_migrate_to_device(gpu->vram.devmem, start, end - start);
	return n >= 0 && declined(gpu) != before ? -ENOSPC : n;
}

/* Maps what is where it is now; best effort. Return: pages in video memory. */
static int64_t map_and_count(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	struct gpu_command command = {.kind = GPU_COMMAND_MAP, .start = start, .end = end};
	int64_t n = 0;

	gpu_command(gpu, &command);
	for (; start < end; start += GPU_PAGE) {
		uint64_t entry = gpu_mmu_lookup(gpu, start);

		n += hmm_pfn_is_device(entry) && hmm_pfn_devmem(entry) == gpu->vram.id;
	}
	return n;
}

/* A piece of one 2 MiB block, with what must leave for it. */
static int64_t move_in(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	uint64_t room, pages = (end - start) / GPU_PAGE;
	int64_t n, there;
	int tries = 0;

	atomic_fetch_add(&gpu->vram.clock, 1);
	do {
		n = move(gpu, start, end);
		room = 0;
		if (n == -ENOSPC) {
			room = gpu_memory_make_room(&gpu->vram, pages);
			atomic_fetch_add(&gpu->count.evictions, room);
		}
	} while (room && ++tries < ROOM_TRIES);
	there = map_and_count(gpu, start, end);
	if (gpu->policy.size && n > there)
		there = n; /* it may lie here and be for others */
	return !there && n < 0 && n != -ENOSPC ? n : there;
}

static void move_hot(struct gpu *gpu, uint64_t block)
{
	uintptr_t start = block << HOT_SHIFT, end = start + ((uintptr_t)1 << HOT_SHIFT);

	if (move_in(gpu, start, end) > 0)
		atomic_fetch_add(&gpu->count.hot_blocks, 1);
	else
		atomic_store(heat_of(gpu, block), block << 16 | COLD);
}

static void *migrate_main(void *arg)
{
	struct gpu *gpu = arg;
	struct gpu_migrate *migrate = &gpu->migrate;
	struct gpu_request *request;
	uint64_t block = 0;
	int64_t result;

	pthread_mutex_lock(&migrate->lock);
	for (;;) {
		while (!migrate->first && migrate->head == migrate->tail && !migrate->stop)
			pthread_cond_wait(&migrate->put, &migrate->lock);
		if (migrate->stop)
			break;
		request = migrate->first;
		if (request)
			migrate->first = request->next;
		else
			block = migrate->hot[migrate->head++ % GPU_HOT];
		if (!migrate->first)
			migrate->last = &migrate->first;
		pthread_mutex_unlock(&migrate->lock);
		result = request ? move_in(gpu, request->start, request->end) : 0;
		if (!request)
			move_hot(gpu, block);
		pthread_mutex_lock(&migrate->lock);
		if (request) {
			request->result = result;
			request->done = true;
			pthread_cond_broadcast(&migrate->done);
		}
	}
	pthread_mutex_unlock(&migrate->lock);
	return NULL;
}

int gpu_migrate_start(struct gpu *gpu)
{
	gpu->migrate.last = &gpu->migrate.first;
	return gpu->vram.devmem
		       ? gpu_thread_start(&gpu->migrate.thread, migrate_main, gpu)
		       : 0;
}

/* Nobody is left that asks; blocks that are hot stay where they are. */
void gpu_migrate_stop(struct gpu *gpu)
{
	pthread_mutex_lock(&gpu->migrate.lock);
	gpu->migrate.stop = true;
	pthread_cond_signal(&gpu->migrate.put);
	pthread_mutex_unlock(&gpu->migrate.lock);
	gpu_thread_join(&gpu->migrate.thread);
}

/* ---- who asks ---- */

struct moving {
	struct gpu *gpu;
	int64_t there;
	int err; /* of the first piece that failed */
};

/* A piece that cannot move keeps the others from nothing. */
static int ask(void *arg, uintptr_t start, uintptr_t end)
{
	struct moving *moving = arg;
	struct gpu_migrate *migrate = &moving->gpu->migrate;
	struct gpu_request request = {.start = start, .end = end};

	pthread_mutex_lock(&migrate->lock);
	*migrate->last = &request;
	migrate->last = &request.next;
	pthread_cond_signal(&migrate->put);
	while (!request.done)
		pthread_cond_wait(&migrate->done, &migrate->lock);
	pthread_mutex_unlock(&migrate->lock);
	if (request.result > 0)
		moving->there += request.result;
	else if (request.result && !moving->err)
		moving->err = (int)request.result;
	return request.result == -ENODEV ? -ENODEV : 0;
}

int64_t gpu_migrate(struct gpu *gpu, const void *start, size_t length)
{
	struct moving moving = {.gpu = gpu};
	struct gpu_walk walk = {
		.gpu = gpu, .need = HMM_RUN_READ | HMM_RUN_WRITE, .fn = ask, .arg = &moving};
	int err;

	if (!gpu->vram.devmem || gpu->pid != getpid())
		return -ENODEV;
	err = gpu_walk(&walk, start, length, 0);
	if (err)
		return err;
	return moving.there ? moving.there : moving.err;
}

int64_t gpu_migrate_home(struct gpu *gpu, const void *start, size_t length)
{
	uintptr_t from = (uintptr_t)start & -GPU_PAGE, to = (uintptr_t)start + length;

	if (to < (uintptr_t)start || to > UINTPTR_MAX - GPU_PAGE)
		return -EOVERFLOW;
	to = (to + GPU_PAGE - 1) & -GPU_PAGE;
	return length ? hmm_migrate_to_host(gpu->hmm, from, to - from) : 0;
}
