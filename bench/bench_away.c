// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_away - 2 MiB to a device and home: migrate_out_2m, migrate_back_2m.
 *
 * The device is the least that has memory (tools/vram.h): with host frames nothing is
 * copied, and what is measured is the library and UFFDIO_MOVE; with copies its engine does
 * one memcpy of as much. The plain way is memcpy of 2 MiB between buffers that were touched
 * before, which is what a program does that has a device and no library. Each batch is one
 * trip; only the half that the row is about is timed.
 *
 * Both sides go round over 64 MiB, as with data that is worth moving: a memcpy of the same
 * 2 MiB again and again is one inside the cache. The row "cached" is that one.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"

#define BLOCK (BENCH_WINDOW * BENCH_PAGE)
#define BLOCKS 32ul

int bench_away_open(struct bench_away *away, bool host_frames, size_t length, bool huge)
{
	struct vram_options options = {
		.host_frames = host_frames,
		/* Frames of what was dropped stay in use a while. */
		.frames = 2 * length / BENCH_PAGE,
		.at_once = BENCH_AT_ONCE,
	};
	int err = hmm_open(&away->hmm);

	if (err)
		return err;
	away->length = length;
	away->mapped = bench_map(length + BLOCK);
	if (!away->mapped) {
		hmm_put(away->hmm);
		return -ENOMEM;
	}
	away->memory = away->mapped + (-(uintptr_t)away->mapped & (BLOCK - 1));
	if (huge)
		madvise(away->memory, length, MADV_HUGEPAGE);
	memset(away->memory, 1, length);
	err = vram_open(away->hmm, &options, &away->vram);
	if (err) {
		munmap(away->mapped, length + BLOCK);
		hmm_put(away->hmm);
	}
	return err;
}

void bench_away_close(struct bench_away *away)
{
	vram_close(away->vram);
	munmap(away->mapped, away->length + BLOCK);
	hmm_put(away->hmm);
}

int bench_away_out(struct bench_away *away, size_t at, size_t length)
{
	int64_t got = vram_take(away->vram, away->memory + at, length);

	if (got < 0)
		return (int)got;
	return (size_t)got == length / BENCH_PAGE ? 0 : -EAGAIN;
}

int bench_away_home(struct bench_away *away, size_t at, size_t length)
{
	int64_t got = vram_give(away->vram, away->memory + at, length);

	return got < 0 ? (int)got : 0;
}

/* A row, and what is special about it. */
struct kind {
	struct bench_title title;
	bool copies, back, huge;
	size_t blocks; /* gone round over */
};

struct trip {
	struct bench_away away;
	const struct kind *kind;
	char *mapped, *from, *to; /* `blocks` blocks each, aligned */
	size_t next;
};

static int trip_batch(void *arg, double *cost)
{
	struct trip *trip = arg;
	size_t at = trip->next++ % trip->kind->blocks * BLOCK;
	uint64_t start = tool_now(), middle;
	int err = bench_away_out(&trip->away, at, BLOCK);

	middle = tool_now();
	if (!err)
		err = bench_away_home(&trip->away, at, BLOCK);
	*cost = (double)(trip->kind->back ? tool_now() - middle : middle - start);
	return err;
}

static int memcpy_batch(void *arg, double *cost)
{
	struct trip *trip = arg;
	size_t at = trip->next % trip->kind->blocks * BLOCK;
	uint64_t start = tool_now();

	memcpy(trip->to + at, trip->from + at, BLOCK);
	*cost = (double)(tool_now() - start);
	return trip->to[at + BLOCK - 1] ? 0 : -EIO;
}

static int find_huge(const struct hmm_run *run, void *arg)
{
	*(bool *)arg |= run->flags & HMM_RUN_HUGE;
	return 0;
}

static bool is_huge(struct hmm *hmm, const char *block)
{
	bool huge = false;

	hmm_snapshot_runs(hmm, (uintptr_t)block, (uintptr_t)block + BLOCK, HMM_RUN_VALID,
			  find_huge, &huge);
	return huge;
}

static size_t mapped_length(const struct kind *kind)
{
	return (2 * kind->blocks + 1) * BLOCK;
}

/* 0, or -ENOMEM. */
static int map_both(struct trip *trip)
{
	const struct kind *kind = trip->kind;

	trip->mapped = bench_map(mapped_length(kind));
	if (!trip->mapped)
		return -ENOMEM;
	trip->from = trip->mapped + (-(uintptr_t)trip->mapped & (BLOCK - 1));
	trip->to = trip->from + kind->blocks * BLOCK;
	if (kind->huge)
		madvise(trip->from, 2 * kind->blocks * BLOCK, MADV_HUGEPAGE);
	memset(trip->from, 1, 2 * kind->blocks * BLOCK);
	return 0;
}

static void trip_row(struct bench *bench, const struct kind *kind)
{
	struct trip trip = { .kind = kind };
	int err = bench_away_open(&trip.away, !kind->copies, kind->blocks * BLOCK,
				  kind->huge);

	if (err) {
		bench_skip(bench, kind->title.name, "%s", hmm_strerror(err));
		return;
	}
	err = map_both(&trip);
	if (err)
		bench_skip(bench, kind->title.name, "%s", hmm_strerror(err));
	else if (kind->huge && !is_huge(trip.away.hmm, trip.away.memory))
		bench_skip(bench, kind->title.name, "the kernel has no huge page to give");
	else
		bench_pair(bench, &kind->title, trip_batch, memcpy_batch, &trip);
	if (trip.mapped)
		munmap(trip.mapped, mapped_length(kind));
	bench_away_close(&trip.away);
}

void bench_migrate_out(struct bench *bench)
{
	static const struct kind kinds[] = {
		{ .title = { "migrate_out_2m", "ns", "memcpy of 2 MiB", "<= 0.5x" },
		  .blocks = BLOCKS },
		{ .title = { "migrate_out_2m_cached", "ns", "memcpy in the cache", NULL },
		  .blocks = 1 },
		{ .title = { "migrate_out_2m_thp", "ns", "memcpy of a huge page", NULL },
		  .blocks = BLOCKS,
		  .huge = true },
		{ .title = { "migrate_out_2m_copy", "ns", "memcpy of 2 MiB", "<= 1.4x" },
		  .blocks = BLOCKS,
		  .copies = true },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		trip_row(bench, &kinds[i]);
}

void bench_migrate_back(struct bench *bench)
{
	static const struct kind kinds[] = {
		{ .title = { "migrate_back_2m", "ns", "memcpy of 2 MiB", NULL },
		  .blocks = BLOCKS,
		  .back = true },
		{ .title = { "migrate_back_2m_copy", "ns", "memcpy of 2 MiB", NULL },
		  .blocks = BLOCKS,
		  .back = true,
		  .copies = true },
	};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		trip_row(bench, &kinds[i]);
}
