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
	struct frame *frame = devmem->frame;

	/* A look at what is exclusive holds it (look.c). */
	lock_take(&devmem->hmm->vmas_lock);
	devmem->frame = NULL;
	lock_drop(&devmem->hmm->vmas_lock);
	if (devmem->used)
		arena_free(arena, (void *)devmem->used, words_of(devmem) * sizeof(*devmem->used));
	if (frame)
		arena_free(arena, frame, devmem->options.frames * sizeof(*frame));
	devmem->used = NULL;
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

/* Bits first..first+n-1 of the word that has `first`, as far as they are in it. */
static uint64_t bits_of(uint64_t first, uint64_t n)
{
	uint64_t from = first % WORD, room = WORD - from;
	uint64_t ones = n >= WORD ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;

	return n < room ? ones << from : ~UINT64_C(0) << from;
}

/* The first frame of the next word. */
static uint64_t next_word(uint64_t frame)
{
	return (frame / WORD + 1) * WORD;
}

/* How many of n frames more the limit allows: they count as in use from now on. */
static unsigned reserve(struct hmm_devmem *devmem, unsigned n)
{
	uint64_t in_use = devmem->in_use, most = devmem->count.in_use_max, left;

	do {
		left = devmem->options.limit > in_use ? devmem->options.limit - in_use : 0;
		if (n > left)
			n = (unsigned)left;
	} while (!atomic_compare_exchange_weak(&devmem->in_use, &in_use, in_use + n));
	while (in_use + n > most &&
	       !atomic_compare_exchange_weak(&devmem->count.in_use_max, &most, in_use + n))
		;
	return n;
}

void frames_give(struct hmm_devmem *devmem, uint64_t first, unsigned n)
{
	uint64_t end = first + n;

	for (uint64_t f = first; f < end; f++) {
		atomic_store_explicit(&devmem->frame[f].addr, 0, memory_order_relaxed);
		atomic_store_explicit(&devmem->frame[f].locked, 0, memory_order_relaxed);
		if (devmem->ops.frame_free)
			devmem->ops.frame_free(devmem->priv, f);
	}
	for (uint64_t f = first; f < end; f = next_word(f))
		atomic_fetch_and(&devmem->used[f / WORD], ~bits_of(f, end - f));
	atomic_fetch_sub(&devmem->in_use, n);
}

/* Is the run of n from `at` free? A look only. */
static bool free_run(const struct hmm_devmem *devmem, uint64_t at, unsigned n)
{
	if (at + n > devmem->options.frames)
		return false;
	for (uint64_t f = at; f < at + n; f = next_word(f))
		if (devmem->used[f / WORD] & bits_of(f, at + n - f))
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

static bool declines(struct hmm_devmem *devmem, uint64_t frame)
{
	if (!devmem->ops.frame_alloc || !devmem->ops.frame_alloc(devmem->priv, frame))
		return false;
	atomic_fetch_add(&devmem->count.declined, 1);
	atomic_fetch_and(&devmem->used[frame / WORD], ~bits_of(frame, 1));
	return true;
}

/* Up to n free frames of one word, in [at, at + span): the lowest. Their bits. */
static uint64_t take_bits(struct hmm_devmem *devmem, uint64_t at, uint64_t span, unsigned n)
{
	_Atomic uint64_t *word = &devmem->used[at / WORD];
	uint64_t free = ~*word & bits_of(at, span), want = 0;

	for (; n && free; n--, free &= free - 1)
		want |= free & -free;
	return want & ~atomic_fetch_or(word, want);
}

/* Of [at, end), each frame asked once; n at most. */
static unsigned take_span(struct hmm_devmem *devmem, uint64_t *frames, unsigned n, uint64_t at,
			  uint64_t end)
{
	unsigned got = 0;

	while (at < end && got < n) {
		uint64_t base = at - at % WORD;
		uint64_t bits = take_bits(devmem, at, end - at, n - got);

		if (!bits)
			at = next_word(at);
		for (; bits; bits &= bits - 1) {
			uint64_t frame = base + (uint64_t)__builtin_ctzll(bits);

			if (!declines(devmem, frame))
				frames[got++] = frame;
			at = frame + 1;
		}
	}
	return got;
}

unsigned frames_take(struct hmm_devmem *devmem, uint64_t *frames, unsigned n, uint64_t align)
{
	uint64_t at;
	unsigned got;

	if (devmem->lost || devmem->ending || !n)
		return 0;
	n = reserve(devmem, n);
	at = find_run(devmem, n, align);
	if (at == NO_FRAME)
		at = devmem->hint;
	got = take_span(devmem, frames, n, at, devmem->options.frames);
	got += take_span(devmem, frames + got, n - got, 0, at);
	atomic_fetch_sub(&devmem->in_use, n - got);
	if (got)
		devmem->hint = (frames[got - 1] + 1) % devmem->options.frames;
	return got;
}
