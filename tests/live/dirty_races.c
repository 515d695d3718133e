/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dirty_races - pages are written to while they are collected.
 *
 * In each batch another thread writes to every page once, so that a write that was missed is not
 * hidden by a later one; the keeper collects and copies all the while. Then all is quiet, and its
 * copies are compared.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/gpu.h>

#include "dirty_live.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

struct race {
	struct keeper *k;
	const struct dirty_race *how;
	unsigned batch, start;
	_Atomic bool done, stop;
	_Atomic int failed; /* errno of a write, or 0 */
	sem_t go;
};

static bool store(struct race *r, char *at, unsigned value)
{
	*(volatile unsigned *)(void *)(at + 8) = value;
	return true;
}

static bool copy_to(struct race *r, char *at, unsigned value)
{
	return !hmm_copy_to(r->k->hmm, (uintptr_t)at + 1, &value, sizeof(value));
}

static bool copy_to_all(struct race *r, char *at, unsigned value)
{
	static char bytes[15 * PAGE];

	memset(bytes, (int)r->batch, sizeof(bytes));
	return !hmm_copy_to(r->k->hmm, (uintptr_t)r->k->at, bytes, sizeof(bytes));
}

static bool read_into(struct race *r, char *at, unsigned value)
{
	static int fds[2];

	if (!fds[1] && pipe(fds))
		return false;
	return write(fds[1], &value, sizeof(value)) == sizeof(value) &&
	       read(fds[0], at, sizeof(value)) == sizeof(value);
}

/* Written to in a child too, and by the parent while the page is shared. */
static bool forked(struct race *r, char *at, unsigned value)
{
	pid_t pid;

	if (value % 16) /* a fork takes as long as a batch */
		return store(r, at, value);
	pid = fork();
	if (!pid) {
		*(volatile unsigned *)(void *)at = ~value;
		_exit(0);
	}
	*(volatile unsigned *)(void *)(at + 8) = value;
	return pid > 0 && waitpid(pid, NULL, 0) == pid;
}

static bool moved(struct race *r, char *at, unsigned value)
{
	static char *other;

	if (!other)
		other = live_map(PAGE, PROT_NONE);
	if (mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other) != other)
		return false;
	*(volatile unsigned *)(void *)(other + 8) = value;
	return mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at;
}

static bool discarded(struct race *r, char *at, unsigned value)
{
	bool good = !madvise(at, PAGE, value % 2 ? MADV_DONTNEED : MADV_FREE);

	if (value % 3)
		*(volatile unsigned *)(void *)(at + 8) = value;
	return good && !madvise(at, PAGE, MADV_PAGEOUT);
}

static bool cleared(struct race *r, char *at, unsigned value)
{
	static int fd;

	if (!fd)
		fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	return write(fd, "4", 1) == 1 && store(r, at, value);
}

static bool collapsed(struct race *r, char *at, unsigned value)
{
	char *base = (char *)((uintptr_t)at & -(MOST * PAGE));

	if (r->k->n == MOST)
		madvise(base, MOST * PAGE, MADV_COLLAPSE);
	return store(r, at, value);
}

/* For the message: errno, as of a system call. */
static bool says(int64_t err)
{
	if (err < 0)
		errno = (int)-err;
	return err >= 0;
}

/* To a GPU's memory, written to by it or by a CPU, which brings the page home. */
static bool away(struct race *r, char *at, unsigned value)
{
	static struct gpu_options options = { .size = sizeof(options), .vram_bytes = 4 << 20 };
	static struct gpu_queue *queue;
	static struct gpu *gpu;
	int64_t err = 0;

	if (value % 4)
		return store(r, at, value);
	options.vram_host = value % 8;
	if (!gpu && (gpu_open(&options, &gpu) || gpu_queue_create(gpu, &queue)))
		return false;
	err = gpu_migrate(gpu, at, PAGE);
	if (err < 0 && err != -EBUSY) /* it is marked at that moment, each time: it stays */
		return says(err);
	if (value % 12)
		return store(r, at, value);
	return says(gpu_write(queue, at + 16, &value, sizeof(value)));
}

const struct dirty_race dirty_races[] = {
	{ "store", store, 0 },
	{ "store beside others", store, RACE_TRACKERS },
	{ "copy-to", copy_to, 0 },
	{ "copy-to-all", copy_to_all, RACE_ALL },
	{ "read", read_into, 0 },
	{ "fork", forked, 0 },
	{ "move", moved, 0 },
	{ "discard", discarded, 0 },
	{ "clear-refs", cleared, 0 },
	{ "collapse", collapsed, RACE_TRACKERS },
	{ "vram", away, 0 },
};
const unsigned dirty_races_count = sizeof(dirty_races) / sizeof(*dirty_races);

/* Of parts of the keeper's range and beyond it: what they collect is not lost to him. */
static void *others(void *arg)
{
	struct race *r = arg;
	uint64_t bits[2 * MOST / 64];
	unsigned seed = 1;

	while (!r->stop) {
		size_t from = (size_t)rand_r(&seed) % r->k->n, n = 1 + (size_t)rand_r(&seed) % MOST;
		struct hmm_dirty *d;

		if (hmm_dirty_begin(r->k->hmm, (uintptr_t)r->k->at + from * PAGE, n * PAGE, &d))
			abort();
		for (unsigned i = 0; i < 3; i++)
			if (hmm_dirty_collect(d, bits) < 0)
				abort();
		hmm_dirty_end(d);
	}
	return NULL;
}

static void write_all(struct race *r)
{
	size_t n = r->how->flags & RACE_ALL ? 1 : r->k->n;

	for (unsigned spin = (unsigned)rand() % 30000; spin; spin--)
		__asm__ volatile("");
	for (size_t i = 0; i < n; i++) {
		size_t page = (i * 7 + r->start) % r->k->n; /* n is no multiple of 7 */

		if (!r->how->write(r, r->k->at + page * PAGE, r->batch * MOST + (unsigned)i + 1))
			r->failed = errno ? errno : EIO;
	}
}

static void *writer(void *arg)
{
	struct race *r = arg;

	for (;;) {
		sem_wait(&r->go);
		if (r->stop)
			return NULL;
		write_all(r);
		r->done = true;
	}
}

static enum verdict batches(struct race *r, unsigned n)
{
	for (r->batch = 1; r->batch <= n; r->batch++) {
		r->start = (unsigned)rand();
		r->done = false;
		sem_post(&r->go);
		while (!r->done)
			TRY(keeper_update(r->k));
		CHECK(!r->failed, "a write failed: %s", strerror(r->failed));
		TRY(keeper_check(r->k));
	}
	return PASS;
}

/* A case is a process of its own: what fails is not tidied up. */
enum verdict dirty_run_race(const struct dirty_race *how, char *at, size_t pages, unsigned n)
{
	struct race r = { .how = how };
	pthread_t thread[2];

	TRY(keeper_make(&r.k, at, pages));
	sem_init(&r.go, 0, 0);
	CHECK(!pthread_create(&thread[0], NULL, writer, &r), "no thread");
	if (how->flags & RACE_TRACKERS)
		CHECK(!pthread_create(&thread[1], NULL, others, &r), "no thread");
	TRY(batches(&r, n));
	r.stop = true;
	sem_post(&r.go);
	pthread_join(thread[0], NULL);
	if (how->flags & RACE_TRACKERS)
		pthread_join(thread[1], NULL);
	CHECK(r.k->marked, "no page was ever marked");
	keeper_end(r.k);
	return PASS;
}
