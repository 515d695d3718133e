// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_storm - hmm_fence() while threads change mirrored memory without a pause.
 *
 * Why it is measured: while a change is pending on a userfaultfd context, the probe of the
 * fence says "wait" (G1), and enough threads in a madvise(DONTNEED) loop keep it so for
 * ever. A fence must come back all the same.
 *
 * "other": the fence asks one mapping, the threads change others, each its own. "same": the
 * threads change pieces of the mapping that the fence asks. Idle and storm take turns: the
 * threads are parked for the idle batches.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"

#define THREADS_MAX 4
#define TURNS 5
#define SAMPLES_MAX 1000000
#define PIECE (4 * BENCH_PAGE)
#define AREA (64 * BENCH_PAGE)

struct storm {
	struct bench *bench;
	struct bench_dev dev;
	bool unmap, same;
	unsigned threads;
	char *area;	      /* what the fence asks */
	pthread_mutex_t lock; /* protects running, quit, parked, next */
	pthread_cond_t changed;
	atomic_bool running;
	bool quit;
	unsigned parked, next;
	atomic_int err;
	double *idle, *storm;
	size_t idle_count, storm_count;
};

/*
 * Where the pieces are that a thread unmaps and maps again: far below where the kernel
 * places mappings that ask for no address, so that nobody else takes the hole.
 */
static char *map_area(bool same)
{
	char *at = (char *)UINT64_C(0x210000000000);
	char *got;

	if (!same)
		return bench_map(AREA);
	got = mmap(at, AREA, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	return got == MAP_FAILED ? NULL : got;
}

static int unmap_once(struct storm *storm, char *piece)
{
	char *memory = piece;
	int err;

	if (storm->same) {
		munmap(piece, PIECE);
		memory = mmap(piece, PIECE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		return memory == piece ? bench_dev_fault(&storm->dev, piece, 1, false)
				       : -errno;
	}
	memory = bench_map(PIECE);
	if (!memory)
		return -ENOMEM;
	err = bench_dev_fault(&storm->dev, memory, 1, false);
	munmap(memory, PIECE);
	return err;
}

/* Until told to run; false: to end. */
static bool parked(struct storm *storm)
{
	bool run;

	pthread_mutex_lock(&storm->lock);
	storm->parked++;
	pthread_cond_broadcast(&storm->changed);
	while (!atomic_load(&storm->running) && !storm->quit)
		pthread_cond_wait(&storm->changed, &storm->lock);
	storm->parked--;
	run = !storm->quit;
	pthread_mutex_unlock(&storm->lock);
	return run;
}

static void *storm_thread(void *arg)
{
	struct storm *storm = arg;
	char *piece;
	int err = 0;

	pthread_mutex_lock(&storm->lock);
	piece = storm->area + (2 * storm->next++ + 1) * PIECE;
	pthread_mutex_unlock(&storm->lock);
	if (!storm->same && !storm->unmap) {
		piece = bench_map(PIECE);
		err = piece ? bench_dev_fault(&storm->dev, piece, 1, true) : -ENOMEM;
	}
	while (parked(storm)) {
		while (!err &&
		       atomic_load_explicit(&storm->running, memory_order_relaxed)) {
			if (storm->unmap)
				err = unmap_once(storm, piece);
			else
				madvise(piece, PIECE, MADV_DONTNEED);
		}
		if (err)
			atomic_store(&storm->err, err);
	}
	if (!storm->same && !storm->unmap && piece)
		munmap(piece, PIECE);
	return NULL;
}

static void set_running(struct storm *storm, bool running)
{
	pthread_mutex_lock(&storm->lock);
	atomic_store(&storm->running, running);
	pthread_cond_broadcast(&storm->changed);
	while (!running && storm->parked < storm->threads)
		pthread_cond_wait(&storm->changed, &storm->lock);
	pthread_mutex_unlock(&storm->lock);
}

static int fences(struct storm *storm, double *samples, size_t *count)
{
	uint64_t begin, end, stop;
	int err;

	end = tool_now();
	stop = end + (uint64_t)(storm->bench->seconds * 1e9 / (2 * TURNS));
	while (end < stop && *count < SAMPLES_MAX) {
		begin = tool_now();
		err = hmm_fence(storm->dev.hmm, (uintptr_t)storm->area, AREA);
		if (err)
			return err;
		end = tool_now();
		samples[(*count)++] = (double)(end - begin);
	}
	return 0;
}

static int take_turns(struct storm *storm)
{
	int err = 0;

	for (int turn = 0; turn < TURNS && !err; turn++) {
		set_running(storm, false);
		err = fences(storm, storm->idle, &storm->idle_count);
		set_running(storm, true);
		if (!err)
			err = fences(storm, storm->storm, &storm->storm_count);
	}
	set_running(storm, false);
	return err ? err : atomic_load(&storm->err);
}

static int with_threads(struct storm *storm)
{
	pthread_t threads[THREADS_MAX];
	unsigned wanted = storm->threads;
	int err = 0;

	for (storm->threads = 0; storm->threads < wanted && !err;) {
		err = -pthread_create(&threads[storm->threads], NULL, storm_thread, storm);
		if (!err)
			storm->threads++;
	}
	if (!err)
		err = take_turns(storm);
	pthread_mutex_lock(&storm->lock);
	storm->quit = true;
	pthread_cond_broadcast(&storm->changed);
	pthread_mutex_unlock(&storm->lock);
	for (unsigned i = 0; i < storm->threads; i++)
		pthread_join(threads[i], NULL);
	return err;
}

static int measure(struct storm *storm)
{
	int err = bench_dev_open(&storm->dev);

	if (err)
		return err;
	storm->area = map_area(storm->same);
	err = storm->area
		      ? bench_dev_fault(&storm->dev, storm->area, AREA / BENCH_PAGE, true)
		      : -ENOMEM;
	if (!err)
		err = with_threads(storm);
	if (storm->area)
		munmap(storm->area, AREA);
	bench_dev_close(&storm->dev);
	return err;
}

static void one_row(struct storm *storm)
{
	struct bench *bench = storm->bench;
	struct bench_spread spread;
	char name[64];
	struct bench_title title = { name, "ns", "the same fence, idle",
				     "p99 <= 1 ms, max <= 50 ms" };
	double idle;
	int err;

	snprintf(name, sizeof(name), "fence_storm/%s/%s/%u",
		 storm->unmap ? "munmap" : "dontneed", storm->same ? "same" : "other",
		 storm->threads);
	tool_progress("bench: %s", name);
	err = measure(storm);
	if (err) {
		bench_skip(bench, name, "%s", hmm_strerror(err));
		bench->failed = true;
		return;
	}
	idle = bench_percentile(storm->idle, storm->idle_count, 50);
	spread.p50 = bench_percentile(storm->storm, storm->storm_count, 50);
	spread.p99 = bench_percentile(storm->storm, storm->storm_count, 99);
	spread.max = bench_percentile(storm->storm, storm->storm_count, 100);
	bench_add(bench, &title, spread.p50, idle, &spread);
}

void bench_fence_storm(struct bench *bench)
{
	double *idle = tool_alloc(SAMPLES_MAX * sizeof(*idle));
	double *storming = tool_alloc(SAMPLES_MAX * sizeof(*storming));

	for (unsigned kind = 0; kind < 4; kind++) {
		for (unsigned threads = 1; threads <= THREADS_MAX; threads *= 2) {
			struct storm storm = {
				.bench = bench,
				.unmap = kind & 2,
				.same = kind & 1,
				.threads = threads,
				.lock = PTHREAD_MUTEX_INITIALIZER,
				.changed = PTHREAD_COND_INITIALIZER,
				.idle = idle,
				.storm = storming,
			};

			one_row(&storm);
		}
	}
	free(idle);
	free(storming);
}
