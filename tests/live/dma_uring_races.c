/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_uring_races - memory that changes while the device uses it.
 *
 * While a change runs an access may see either side. Whoever disturbs can be made to stop
 * between two changes; then nothing is under way, and device and CPU must agree.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "dma_uring.h"

#define RUN_NS UINT64_C(1500000000)

/* A thread that disturbs, round after round, unless it is asked to wait. */
struct disturber {
	void (*once)(struct disturber *d, unsigned round);
	char *at;
	int fd;
	pthread_t thread;
	atomic_bool stop, wait, waits;
	atomic_uint rounds, lost;
};

static void *disturb(void *arg)
{
	struct disturber *d = arg;

	while (!d->stop) {
		if (d->wait) {
			d->waits = true;
			while (d->wait && !d->stop)
				usleep(20);
			d->waits = false;
			continue;
		}
		d->once(d, d->rounds);
		d->rounds++;
	}
	return NULL;
}

static void disturb_begin(struct disturber *d)
{
	pthread_create(&d->thread, NULL, disturb, d);
}

static void disturb_end(struct disturber *d)
{
	d->stop = true;
	pthread_join(d->thread, NULL);
}

static void quiet(struct disturber *d)
{
	d->wait = true;
	while (!d->waits)
		usleep(10);
}

static void loud(struct disturber *d)
{
	d->wait = false;
	while (d->waits)
		usleep(10);
}

/* ---- */

/* With a pause: a pin must wait until no DONTNEED is under way. */
static void discard(struct disturber *d, unsigned round)
{
	madvise(d->at, 4 * PAGE, MADV_DONTNEED);
	usleep(800 + round % 400);
}

static void discard_without_pause(struct disturber *d, unsigned round)
{
	madvise(d->at, 4 * PAGE, MADV_DONTNEED);
}

static void map_over(struct disturber *d, unsigned round)
{
	if (mmap(d->at, 4 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
	    d->at)
		abort();
	usleep(round % 100);
}

/* What the device reads while it goes on is either zero or what was written. */
static enum verdict under_way(struct rig *r, char *at, uint32_t word)
{
	int64_t seen;

	EXPECT(0, rig_put(r, at, &word, 4));
	seen = rig_word(r, at);
	CHECK(seen == 0 || seen == word, "wrote %u, reads %lld", word, (long long)seen);
	return PASS;
}

static enum verdict race(void (*once)(struct disturber *d, unsigned round), unsigned least)
{
	struct disturber d = { .once = once, .at = live_map(4 * PAGE, RW) };
	const uint64_t began = live_now_ns();
	unsigned rounds = 0;
	struct rig r;

	TRY(rig_open(&r));
	TRY(rig_agree(&r, d.at));
	disturb_begin(&d);
	while (live_race_on(began, RUN_NS, rounds >= least && d.rounds >= least)) {
		for (unsigned i = 0; i < 4; i++)
			TRY(under_way(&r, d.at + i * PAGE, ++rounds));
		quiet(&d);
		for (unsigned i = 0; i < 4; i++)
			TRY(rig_agree(&r, d.at + i * PAGE));
		loud(&d);
	}
	disturb_end(&d);
	CHECK(rounds >= least && d.rounds >= least, "only %u and %u rounds", rounds,
	      d.rounds);
	CHECK(!rig_device(&r).refused, "%llu DMAs without a mapping",
	      (unsigned long long)rig_device(&r).refused);
	rig_close(&r);
	return PASS;
}

enum verdict race_dontneed(const void *arg)
{
	return race(discard, 40);
}

/* However often it changes, an access comes to an end, and is right. */
enum verdict race_dontneed_storm(const void *arg)
{
	return race(discard_without_pause, 4);
}

enum verdict race_map_over(const void *arg)
{
	return race(map_over, 40);
}

/* ---- a bounced page is mapped anew, for writing, while another thread reads through it
 * ---- */

struct writer {
	struct disturber d; /* first */
	struct rig *r;
	int file;
};

static void write_the_same(struct disturber *d, unsigned round)
{
	struct writer *w = (struct writer *)d;

	mprotect(d->at, PAGE, PROT_READ); /* next time it is mapped for reading */
	mprotect(d->at, PAGE, RW);
	usleep(round % 50);
	if (uring_read(w->r->dev, w->file, 0, d->at, PAGE) != PAGE)
		abort();
}

enum verdict race_upgrade(const void *arg)
{
	struct rig r;
	struct writer w = { .d = { .once = write_the_same }, .r = &r };
	const uint64_t began = live_now_ns();
	unsigned char seen[PAGE];
	unsigned reads = 0;
	int fd = rig_file(PAGE);

	if (fd < 0)
		return rig_cannot_bounce();
	TRY(rig_open(&r));
	w.file = memfd_create("same", MFD_CLOEXEC);
	w.d.at = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
	memset(seen, 0x5c, PAGE);
	memset(w.d.at, 0x5c, PAGE);
	EXPECT(PAGE, pwrite(w.file, seen, PAGE, 0));
	disturb_begin(&w.d);
	for (; live_race_on(began, RUN_NS, w.d.rounds > 20 && reads > 20); reads++) {
		EXPECT(0, rig_get(&r, seen, w.d.at, PAGE));
		for (size_t i = 0; i < PAGE; i++)
			CHECK(seen[i] == 0x5c, "read %u: byte %zu is %#x", reads, i,
			      seen[i]);
	}
	disturb_end(&w.d);
	CHECK(w.d.rounds > 20 && reads > 20, "only %u and %u rounds", w.d.rounds, reads);
	CHECK(rig_device(&r).bounced, "nothing was bounced");
	rig_close(&r);
	return PASS;
}

/* ---- bytes beside ---- */

static void write_beside(struct disturber *d, unsigned round)
{
	volatile uint32_t *mine = (uint32_t *)(d->at + 2048);

	*mine = round;
	usleep(5);
	if (*mine != round)
		d->lost++;
}

/*
 * A device that writes some bytes of a bounced page, and a CPU that writes others: as with any other
 * memory, each finds its own.
 */
enum verdict race_beside(const void *arg)
{
	struct disturber d = { .once = write_beside };
	const uint64_t began = live_now_ns();
	int fd = rig_file(PAGE);
	uint32_t word = 0;
	struct rig r;

	if (fd < 0)
		return rig_cannot_bounce();
	d.at = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);
	TRY(rig_open(&r));
	disturb_begin(&d);
	for (; live_race_on(began, RUN_NS / 2, d.rounds > 20 && word > 20); word++) {
		EXPECT(0, rig_put(&r, d.at + 64, &word, 4));
		EXPECT(word, *(volatile uint32_t *)(d.at + 64));
		EXPECT(word, rig_word(&r, d.at + 64));
	}
	disturb_end(&d);
	CHECK(!d.lost, "of %u words of the CPU beside %u of the device %u were lost",
	      d.rounds, word, d.lost);
	CHECK(d.rounds > 20 && word > 20, "only %u and %u rounds", d.rounds, word);
	rig_close(&r);
	return PASS;
}

/* ---- what an unmap takes along ---- */

static void map_over_neighbour(struct disturber *d, unsigned round)
{
	char *at = d->at + (4 + round * 7 % 12) * PAGE;

	if (mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		abort();
	usleep(round % 30);
}

/*
 * Other pages of the chunk change all the time and take mappings along. The device must not
 * be left with a translation into nothing: `refused` is what an IOMMU would report.
 */
enum verdict race_chunk(const void *arg)
{
	const struct uring_options chunked = { .size = sizeof(chunked),
					       .fixed = true,
					       .chunk = 16 * PAGE };
	char *area = live_map(32 * PAGE, RW);
	struct disturber d = { .once = map_over_neighbour };
	const uint64_t began = live_now_ns();
	char bytes[12 * PAGE];
	unsigned rounds = 0;
	struct rig r;

	d.at = (char *)(((uintptr_t)area + 16 * PAGE - 1) & ~(16 * PAGE - 1));
	TRY(rig_open_with(&r, &chunked));
	disturb_begin(&d);
	for (; live_race_on(began, RUN_NS, d.rounds > 20); rounds++) {
		if (rounds % 4 == 0) /* one mapping for many */
			EXPECT(0, rig_get(&r, bytes, d.at, sizeof(bytes)));
		for (unsigned i = 0; i < 4; i++)
			TRY(rig_agree(&r, d.at + i * PAGE));
	}
	disturb_end(&d);
	CHECK(!rig_device(&r).refused, "%llu DMAs without a mapping, of %u rounds",
	      (unsigned long long)rig_device(&r).refused, rounds);
	CHECK(d.rounds > 20, "only %u rounds", d.rounds);
	rig_close(&r);
	return PASS;
}

/* ---- threads ---- */

struct worker {
	struct uring *dev;
	char *at;
	uint64_t began, ns;
	pthread_t thread;
	unsigned rounds;
	char wrong[100];
};

#define WORKER_PAGES 16u

/* Its own memory, its own file: what goes out must come back. */
static int work_round(struct worker *w, int file, unsigned char *want)
{
	size_t n = (size_t)(w->rounds * 7919 % (WORKER_PAGES * PAGE - 1)) + 1;
	size_t from = w->rounds * 104729 % (WORKER_PAGES * PAGE - n + 1);

	for (size_t i = 0; i < n; i++)
		want[i] = (unsigned char)(i * 3 + w->rounds);
	memcpy(w->at + from, want, n);
	if (uring_write(w->dev, file, 50, w->at + from, n) != (int64_t)n)
		return 1;
	memset(w->at + from, 0, n);
	if (uring_read(w->dev, file, 50, w->at + from, n) != (int64_t)n)
		return 2;
	return memcmp(w->at + from, want, n) ? 3 : 0;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned char *want = malloc(WORKER_PAGES * PAGE);
	int file = memfd_create("worker", MFD_CLOEXEC), err = 0;

	for (; live_race_on(w->began, w->ns, w->rounds > 20) && !err; w->rounds++)
		err = work_round(w, file, want);
	if (err)
		snprintf(w->wrong, sizeof(w->wrong), "round %u: %s", w->rounds,
			 err == 3 ? "other bytes came back" : "an access failed");
	close(file);
	free(want);
	return NULL;
}

static enum verdict work_all(struct rig *r, unsigned threads, uint64_t ns)
{
	struct worker w[8];

	for (unsigned i = 0; i < threads; i++) {
		w[i] = (struct worker){ .dev = r->dev,
					.began = live_now_ns(),
					.ns = ns,
					.at = live_map(WORKER_PAGES * PAGE, RW) };
		pthread_create(&w[i].thread, NULL, work, &w[i]);
	}
	for (unsigned i = 0; i < threads; i++)
		pthread_join(w[i].thread, NULL);
	for (unsigned i = 0; i < threads; i++) {
		CHECK(!w[i].wrong[0], "thread %u: %s", i, w[i].wrong);
		CHECK(w[i].rounds > 20, "thread %u: only %u rounds", i, w[i].rounds);
	}
	return PASS;
}

/* Whoever needs a buffer takes all of the others away. */
enum verdict race_evict(const void *arg)
{
	const struct uring_options few = { .size = sizeof(few),
					   .fixed = true,
					   .buffers = 20 };
	struct rig r;

	TRY(rig_open_with(&r, &few));
	TRY(work_all(&r, 4, RUN_NS));
	CHECK(rig_device(&r).evictions > 20, "only %llu evictions",
	      (unsigned long long)rig_device(&r).evictions);
	CHECK(!rig_device(&r).refused, "%llu DMAs without a mapping",
	      (unsigned long long)rig_device(&r).refused);
	EXPECT(0, rig_device(&r).unregistered);
	rig_close(&r);
	return PASS;
}

/*
 * Requests that the kernel gives to its worker threads, which let go of the buffer when
 * they like: a munmap right behind must wait for the pin, and must not wait for ever.
 */
enum verdict race_file(const void *arg)
{
	const uint64_t began = live_now_ns();
	unsigned rounds = 0;
	char bytes[PAGE];
	int fd = rig_file(64 * PAGE);
	struct rig r;

	if (fd < 0)
		return rig_cannot_bounce();
	TRY(rig_open(&r));
	for (; live_race_on(began, RUN_NS, rounds > 5); rounds++) {
		off_t at = (off_t)(rounds % 64 * PAGE);
		char *to = live_map(PAGE, RW);

		memset(bytes, (int)rounds, PAGE);
		EXPECT(PAGE, pwrite(fd, bytes, PAGE, at));
		SYS(fdatasync(fd));
		SYS(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
		EXPECT(PAGE, uring_read(r.dev, fd, (uint64_t)at, to, PAGE));
		EXPECT(0, memcmp(to, bytes, PAGE));
		EXPECT(PAGE, uring_write(r.dev, fd, (uint64_t)at, to, PAGE));
		SYS(munmap(to, PAGE));
		EXPECT(0, hmm_fence(r.hmm, (uintptr_t)to, PAGE));
		EXPECT(0, rig_stats(&r).mapped);
	}
	CHECK(rounds > 5, "only %u rounds", rounds);
	rig_close(&r);
	return PASS;
}

static void fork_once(struct disturber *d, unsigned round)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
}

/* Pages that are pinned are copied at a fork, for the child. */
enum verdict race_fork(const void *arg)
{
	struct disturber d = { .once = fork_once };
	struct rig r;

	TRY(rig_open(&r));
	disturb_begin(&d);
	TRY(work_all(&r, 2, RUN_NS));
	disturb_end(&d);
	CHECK(d.rounds > 20, "only %u forks", d.rounds);
	CHECK(!rig_device(&r).refused, "%llu DMAs without a mapping",
	      (unsigned long long)rig_device(&r).refused);
	rig_close(&r);
	return PASS;
}
