/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * frames - which frames of a devmem are in use.
 *
 * A bit each, taken and given back by compare-and-swap: the pager gives frames back and may
 * take no lock (L2). A block of 512 in a row, congruent to the addresses, lets a huge page
 * move whole; where there is none any frames do.
 */
#include <errno.h>
#include <string.h>

#include "core/pager.h"

#define WORD 64u

static size_t words_of(const struct hmm_devmem *devmem)
{
	return (devmem->options.frames + WORD - 1) / WORD;
}

int frames_init(struct hmm_devmem *devmem)
{
	struct arena *arena = devmem->hmm->arena;
	uint64_t frames = devmem->options.frames;

	devmem->used = arena_alloc(arena, words_of(devmem) * sizeof(*devmem->used));
	devmem->frame = arena_alloc(arena, frames * sizeof(*devmem->frame));
	if (!devmem->used || !devmem->frame)
		return -ENOMEM;
	if (frames % WORD)
		devmem->used[frames / WORD] = ~UINT64_C(0) << frames % WORD;
	return 0;
}

void frames_destroy(struct hmm_devmem *devmem)
{
	struct arena *arena = devmem->hmm->arena;

	if (devmem->used)
		arena_free(arena, (void *)devmem->used, words_of(devmem) * sizeof(*devmem->used));
	if (devmem->frame)
		arena_free(arena, devmem->frame,
			   devmem->options.frames * sizeof(*devmem->frame));
	devmem->used = NULL;
	devmem->frame = NULL;
}

bool frame_is_used(const struct hmm_devmem *devmem, uint64_t frame)
{
	return frame < devmem->options.frames &&
	       (devmem->used[frame / WORD] >> frame % WORD & 1);
}

uintptr_t frame_host(const struct hmm_devmem *devmem, uint64_t frame)
{
	return devmem->region[devmem->frame[frame].ctx] + frame * PAGE;
}

size_t frames_region(const struct hmm_devmem *devmem)
{
	return (devmem->options.frames * PAGE + BLOCK - 1) & ~(BLOCK - 1);
}

static void unuse(struct hmm_devmem *devmem, uint64_t frame)
{
	atomic_fetch_and(&devmem->used[frame / WORD], ~(UINT64_C(1) << frame % WORD));
	atomic_fetch_sub(&devmem->in_use, 1);
}

/* false: somebody has it, or the limit is reached. */
static bool use(struct hmm_devmem *devmem, uint64_t frame)
{
	uint64_t bit = UINT64_C(1) << frame % WORD, now;

	if (devmem->used[frame / WORD] & bit)
		return false;
	if (atomic_fetch_or(&devmem->used[frame / WORD], bit) & bit)
		return false;
	now = atomic_fetch_add(&devmem->in_use, 1) + 1;
	if (now > devmem->options.limit) {
		unuse(devmem, frame);
		return false;
	}
	while (now > devmem->count.in_use_max)
		devmem->count.in_use_max = now;
	return true;
}

void frame_give(struct hmm_devmem *devmem, uint64_t frame)
{
	devmem->frame[frame].addr = 0;
	devmem->frame[frame].locked = 0;
	if (devmem->ops.frame_free)
		devmem->ops.frame_free(devmem->priv, frame);
	unuse(devmem, frame);
}

/* Is the run of n from `at` free? A look only. */
static bool free_run(const struct hmm_devmem *devmem, uint64_t at, unsigned n)
{
	if (at + n > devmem->options.frames)
		return false;
	for (uint64_t i = at; i < at + n; i++)
		if (devmem->used[i / WORD] >> i % WORD & 1)
			return false;
	return true;
}

/* Where n in a row begin that are congruent to `align`; NO_FRAME: nowhere. */
static uint64_t find_run(const struct hmm_devmem *devmem, unsigned n, uint64_t align)
{
	uint64_t blocks = (devmem->options.frames + BLOCK_PAGES - 1) / BLOCK_PAGES;
	uint64_t first = devmem->hint / BLOCK_PAGES;

	for (uint64_t b = 0; b < blocks; b++) {
		uint64_t at = (first + b) % blocks * BLOCK_PAGES + align % BLOCK_PAGES;

		if (free_run(devmem, at, n))
			return at;
	}
	return NO_FRAME;
}

static bool take_one(struct hmm_devmem *devmem, uint64_t frame)
{
	if (!use(devmem, frame))
		return false;
	if (devmem->ops.frame_alloc && devmem->ops.frame_alloc(devmem->priv, frame)) {
		atomic_fetch_add(&devmem->count.declined, 1);
		unuse(devmem, frame);
		return false;
	}
	return true;
}

/* From `at` on, around the end, each frame asked once. */
static unsigned take_any(struct hmm_devmem *devmem, uint64_t *frames, unsigned n, uint64_t at)
{
	uint64_t total = devmem->options.frames;
	unsigned got = 0;

	for (uint64_t i = 0; i < total && got < n; i++) {
		uint64_t frame = (at + i) % total;

		if (devmem->in_use >= devmem->options.limit)
			break;
		if (take_one(devmem, frame))
			frames[got++] = frame;
	}
	return got;
}

unsigned frames_take(struct hmm_devmem *devmem, uint64_t *frames, unsigned n, uint64_t align)
{
	uint64_t at;
	unsigned got;

	if (devmem->lost || devmem->ending || !n)
		return 0;
	at = find_run(devmem, n, align);
	got = take_any(devmem, frames, n, at == NO_FRAME ? devmem->hint : at);
	if (got)
		devmem->hint = (frames[got - 1] + 1) % devmem->options.frames;
	return got;
}
