// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_away - 2 MiB to a device and home: migrate_out_2m, migrate_back_2m.
 *
 * The device is the least that has memory (tools/vram.h): with host frames nothing is
 * copied, and what is measured is the library and UFFDIO_MOVE; with copies its engine does
 * one memcpy of as much. The plain way is memcpy of 2 MiB between two buffers that were
 * touched before, which is what a program does that has a device and no library. Each batch
 * is one trip; only the half that the row is about is timed.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"

#define BLOCK (BENCH_WINDOW * BENCH_PAGE)

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

int bench_away_out(struct bench_away *away, size_t length)
{
	int64_t got = vram_take(away->vram, away->memory, length);

	if (got < 0)
		return (int)got;
	return (size_t)got == length / BENCH_PAGE ? 0 : -EAGAIN;
}

int bench_away_home(struct bench_away *away, size_t length)
{
	int64_t got = vram_give(away->vram, away->memory, length);

	return got < 0 ? (int)got : 0;
}

struct trip {
	struct bench_away away;
	bool back; /* which half is timed */
	char *from, *to;
};

static int trip_batch(void *arg, double *cost)
{
	struct trip *trip = arg;
	uint64_t start = tool_now(), middle;
	int err = bench_away_out(&trip->away, BLOCK);

	middle = tool_now();
	if (!err)
		err = bench_away_home(&trip->away, BLOCK);
	*cost = (double)(trip->back ? tool_now() - middle : middle - start);
	return err;
}

static int memcpy_batch(void *arg, double *cost)
{
	struct trip *trip = arg;
	uint64_t start = tool_now();

	memcpy(trip->to, trip->from, BLOCK);
	*cost = (double)(tool_now() - start);
	return trip->to[BLOCK - 1] ? 0 : -EIO;
}

/* The first aligned block of two, touched. */
static char *map_block(bool huge)
{
	char *mapped = bench_map(2 * BLOCK), *block;

	if (!mapped)
		return NULL;
	block = mapped + (-(uintptr_t)mapped & (BLOCK - 1));
	if (huge)
		madvise(block, BLOCK, MADV_HUGEPAGE);
	memset(block, 1, BLOCK);
	munmap(mapped, (size_t)(block - mapped));
	munmap(block + BLOCK, (size_t)(mapped + BLOCK - block));
	return block;
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

static void trip_row(struct bench *bench, const struct bench_title *title, bool host,
		     bool back, bool huge)
{
	struct trip trip = { .back = back };
	int err = bench_away_open(&trip.away, host, BLOCK, huge);

	if (err) {
		bench_skip(bench, title->name, "%s", hmm_strerror(err));
		return;
	}
	trip.from = map_block(huge);
	trip.to = map_block(huge);
	if (!trip.from || !trip.to)
		bench_skip(bench, title->name, "%s", hmm_strerror(-ENOMEM));
	else if (huge && !is_huge(trip.away.hmm, trip.away.memory))
		bench_skip(bench, title->name, "the kernel has no huge page to give");
	else
		bench_pair(bench, title, trip_batch, memcpy_batch, &trip);
	if (trip.from)
		munmap(trip.from, BLOCK);
	if (trip.to)
		munmap(trip.to, BLOCK);
	bench_away_close(&trip.away);
}

void bench_migrate_out(struct bench *bench)
{
	static const struct bench_title host = { "migrate_out_2m", "ns", "memcpy of 2 MiB",
						 "<= 0.5x" };
	static const struct bench_title thp = { "migrate_out_2m_thp", "ns",
						"memcpy of 2 MiB, huge pages", NULL };
	static const struct bench_title copy = { "migrate_out_2m_copy", "ns",
						 "memcpy of 2 MiB", "<= 1.4x" };

	trip_row(bench, &host, true, false, false);
	trip_row(bench, &thp, true, false, true);
	trip_row(bench, &copy, false, false, false);
}

void bench_migrate_back(struct bench *bench)
{
	static const struct bench_title host = { "migrate_back_2m", "ns", "memcpy of 2 MiB",
						 NULL };
	static const struct bench_title copy = { "migrate_back_2m_copy", "ns",
						 "memcpy of 2 MiB", NULL };

	trip_row(bench, &host, true, true, false);
	trip_row(bench, &copy, false, true, false);
}
