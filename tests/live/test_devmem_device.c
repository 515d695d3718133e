/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_devmem_device - the calls about a devmem, as their contracts say: limits and counts,
 * who is told, exclusive pages, drivers that fail, are late or are lost, and what is said
 * where device memory cannot be had.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "away_steps.h"

static const struct away_options copied, host = { .host = true };

/* ---- limits, counts ---- */

static enum verdict few_frames(const void *arg)
{
	struct away_options options = *(const struct away_options *)arg;
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };
	static struct steps s;

	options.frames = 5;
	TRY(steps_begin(&s, &options));
	EXPECT(5, hmm_migrate_to_device(s.m.devmem, s.m.start, PAGES * PAGE));
	EXPECT(5, away_count(s.dev, s.zone.at, PAGES * PAGE));
	/* Those that are there are counted, the others find no frame. */
	EXPECT(5, hmm_migrate_to_device(s.m.devmem, s.m.start, PAGES * PAGE));
	EXPECT(-ENOSPC, hmm_migrate_to_device(s.m.devmem, s.m.start + 10 * PAGE, 2 * PAGE));
	EXPECT(5, hmm_devmem_evict(s.m.devmem, 0, 5));
	EXPECT(2, hmm_migrate_to_device(s.m.devmem, s.m.start + 10 * PAGE, 2 * PAGE));
	EXPECT(2, hmm_migrate_to_host(away_hmm(s.dev), s.m.start, PAGES * PAGE));
	EXPECT(0, hmm_migrate_to_host(away_hmm(s.dev), s.m.start, PAGES * PAGE));
	hmm_devmem_get_stats(s.m.devmem, &stats);
	EXPECT(5, stats.frames);
	EXPECT(5, stats.in_use_max);
	EXPECT(7, stats.to_device);
	EXPECT(7, stats.to_host);
	EXPECT(0, stats.cpu_faults);
	EXPECT(0, stats.lost);
	return steps_end(&s);
}

static enum verdict held_frame(const void *arg)
{
	static struct steps s;
	uint64_t frame, next;

	TRY(steps_begin(&s, &(struct away_options){ .frames = 1 }));
	TRY(away_out(s.dev, s.zone.at, 1));
	frame = 0;
	hmm_devmem_frame_get(s.m.devmem, frame);
	EXPECT(1, hmm_migrate_to_host(away_hmm(s.dev), s.m.start, PAGE));
	usleep(50000);
	EXPECT(0, hmm_devmem_frames(s.m.devmem, &next, 1));
	EXPECT(-ENOSPC, hmm_migrate_to_device(s.m.devmem, s.m.start, PAGE));
	hmm_devmem_frame_put(s.m.devmem, frame);
	for (int i = 0; i < 1000 && away_in_use(s.dev); i++)
		usleep(1000);
	TRY(away_out(s.dev, s.zone.at, 1));
	return steps_end(&s);
}

/* A page that came a moment ago does not go home for a fault yet; the CPU waits. */
static enum verdict time_slice(const void *arg)
{
	struct away_options options = *(const struct away_options *)arg;
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };
	static struct steps s;
	uint64_t begun;

	options.timeslice_us = 200000;
	TRY(steps_begin(&s, &options));
	TRY(away_out(s.dev, s.zone.at, PAGES));
	begun = live_now_ns();
	EXPECT(s.zone.shadow[7], (unsigned char)s.zone.at[7]);
	begun = live_now_ns() - begun;
	CHECK(begun > UINT64_C(150000000) && begun < UINT64_C(1500000000),
	      "the CPU waited %llu ms of 200", (unsigned long long)begun / 1000000);
	hmm_devmem_get_stats(s.m.devmem, &stats);
	CHECK(stats.timesliced, "no fault was counted");
	/* A call does not wait. */
	TRY(away_out(s.dev, s.zone.at, PAGES));
	begun = live_now_ns();
	EXPECT(PAGES, hmm_migrate_to_host(away_hmm(s.dev), s.m.start, PAGES * PAGE));
	CHECK(live_now_ns() - begun < UINT64_C(100000000), "to_host waited for the slice");
	return steps_end(&s);
}

/* The page stays mapped; the device's frame is its own all the same. */
static enum verdict coherent(const void *arg)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };
	static struct steps s;

	TRY(steps_begin(&s, &(struct away_options){ .coherent = true }));
	TRY(away_out(s.dev, s.zone.at, PAGES));
	EXPECT(PAGES, away_in_use(s.dev));
	TRY(zone_check(&s.zone, "coherent"));
	EXPECT(PAGES, away_in_use(s.dev));
	SYS(madvise(s.zone.at, 4 * PAGE, MADV_DONTNEED));
	SYS(munmap(s.zone.at + 4 * PAGE, 4 * PAGE));
	zone_zero(&s.zone, 0, 4);
	zone_access(&s.zone, 4, 8, ZONE_NONE);
	TRY(zone_check(&s.zone, "half of it gone"));
	TRY(away_settles(s.dev, PAGES - 8));
	EXPECT(PAGES - 8, hmm_migrate_to_host(away_hmm(s.dev), s.m.start, PAGES * PAGE));
	hmm_devmem_get_stats(s.m.devmem, &stats);
	EXPECT(0, stats.cpu_faults);
	return steps_end(&s);
}

/* A driver that cannot copy some pages out: they stay. */
static enum verdict broken_out(const void *arg)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };
	static struct steps s;

	TRY(steps_begin(&s, &copied));
	away_break(s.dev, 0x11, 0);
	EXPECT(PAGES - PAGES / 4,
	       hmm_migrate_to_device(s.m.devmem, s.m.start, PAGES * PAGE));
	TRY(away_settles(s.dev, PAGES - PAGES / 4));
	hmm_devmem_get_stats(s.m.devmem, &stats);
	CHECK(stats.failed >= PAGES / 4, "only %llu failed",
	      (unsigned long long)stats.failed);
	EXPECT(0, stats.lost);
	TRY(zone_check(&s.zone, "some stayed"));
	away_break(s.dev, 0xff, 0);
	EXPECT(-EIO, hmm_migrate_to_device(s.m.devmem, s.m.start, PAGES * PAGE));
	away_break(s.dev, 0, 0);
	return steps_end(&s);
}

/* A driver that never says it is done: its device counts as dead, the pages stay. */
static enum verdict overdue(const void *arg)
{
	static struct steps s;
	uint64_t begun;
	int64_t n;

	TRY(steps_begin(&s,
			&(struct away_options){ .delay_us = 900000, .timeout_ms = 100 }));
	begun = live_now_ns();
	n = hmm_migrate_to_device(s.m.devmem, s.m.start, PAGES * PAGE);
	CHECK(n == -ENODEV || n == -EIO, "%lld", (long long)n);
	CHECK(live_now_ns() - begun < UINT64_C(800000000), "it waited for the driver");
	TRY(zone_check(&s.zone, "a driver that is late"));
	EXPECT(-ENODEV, hmm_migrate_to_device(s.m.devmem, s.m.start, PAGES * PAGE));
	usleep(1000000); /* now it says so */
	return steps_end(&s);
}

/* ---- who is told, and who is not ---- */

/* Every device is told; which one the pages go to is said. */
static enum verdict told_owner(const void *arg)
{
	struct away_told before;
	static struct steps s;
	struct away *other;
	char byte;

	TRY(steps_begin(&s, arg));
	EXPECT(0, away_open(&other, &host));
	EXPECT(0, away_read(other, &byte, s.zone.at, 1));
	before = away_told(other);
	TRY(away_out(s.dev, s.zone.at, PAGES));
	CHECK(away_told(s.dev).migrate_own > 0, "the device itself was not told");
	CHECK(away_told(other).count[HMM_EVENT_MIGRATE] > before.count[HMM_EVENT_MIGRATE],
	      "the other device was not told");
	EXPECT(0, away_told(other).migrate_own);
	away_close(other);
	return steps_end(&s);
}

/* Nobody watches what is away: it is found all the same. */
static enum verdict no_notifier(const void *arg)
{
	static struct steps s;

	TRY(steps_begin(&s, arg));
	TRY(away_out(s.dev, s.zone.at, PAGES));
	away_unwatch(s.dev);
	usleep(1000);
	TRY(zone_check(&s.zone, "without a notifier"));
	EXPECT(PAGES, hmm_migrate_to_device(s.m.devmem, s.m.start, PAGES * PAGE));
	EXPECT(PAGES, hmm_migrate_to_host(away_hmm(s.dev), s.m.start, PAGES * PAGE));
	EXPECT(PAGES, hmm_migrate_to_device(s.m.devmem, s.m.start, PAGES * PAGE));
	SYS(madvise(s.zone.at, 4 * PAGE, MADV_DONTNEED));
	zone_zero(&s.zone, 0, 4);
	SYS(munmap(s.zone.at + 4 * PAGE, 4 * PAGE));
	zone_access(&s.zone, 4, 8, ZONE_NONE);
	return steps_end(&s);
}

/* ---- exclusive ---- */

struct toucher {
	const char *at;
	_Atomic int seen; /* -1: not yet */
};

static void *touch_main(void *arg)
{
	struct toucher *t = arg;

	t->seen = *(const volatile unsigned char *)t->at;
	return NULL;
}

static enum verdict exclusive_waits(const void *arg)
{
	static struct steps s;
	struct toucher t;
	pthread_t thread;
	uint64_t frame;
	uint32_t *word;

	TRY(steps_begin(&s, &host));
	EXPECT(0, hmm_make_exclusive(s.m.devmem, s.m.start + 3 * PAGE + 40, &frame));
	word = (uint32_t *)((char *)hmm_devmem_host(s.m.devmem, frame) + 800);
	t = (struct toucher){ s.zone.at + 3 * PAGE + 800, -1 };
	CHECK(!pthread_create(&thread, NULL, touch_main, &t), "no thread");
	for (uint32_t i = 0; i < 1000; i++)
		__atomic_store_n(word, i, __ATOMIC_SEQ_CST);
	usleep(50000);
	EXPECT(-1, t.seen);
	__atomic_store_n(word, 0x17, __ATOMIC_SEQ_CST);
	hmm_exclusive_release(s.m.devmem, frame);
	pthread_join(thread, NULL);
	EXPECT(0x17, t.seen);
	memcpy(s.zone.shadow + 3 * PAGE + 800, "\x17\0\0", 4);
	return steps_end(&s);
}

static enum verdict exclusive_refused(const void *arg)
{
	char *shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char *locked = live_map(PAGE, RW), *hole = live_map(PAGE, RW);
	uint64_t frame = 4242;
	static struct steps s;

	TRY(steps_begin(&s, &host));
	SYS(munmap(hole, PAGE));
	SYS(mprotect(s.zone.at + PAGE, PAGE, PROT_READ));
	SYS(mprotect(s.zone.at + 2 * PAGE, PAGE, PROT_NONE));
	zone_access(&s.zone, 1, 2, ZONE_READ);
	zone_access(&s.zone, 2, 3, ZONE_NONE);
	EXPECT(-EOPNOTSUPP, hmm_make_exclusive(s.m.devmem, (uintptr_t)shared, &frame));
	EXPECT(-EPERM, hmm_make_exclusive(s.m.devmem, s.m.start + PAGE, &frame));
	EXPECT(-EFAULT, hmm_make_exclusive(s.m.devmem, s.m.start + 2 * PAGE, &frame));
	EXPECT(-EFAULT, hmm_make_exclusive(s.m.devmem, (uintptr_t)hole, &frame));
	if (!mlock(locked, PAGE))
		EXPECT(-EBUSY, hmm_make_exclusive(s.m.devmem, (uintptr_t)locked, &frame));
	EXPECT(4242, frame);
	EXPECT(0, away_in_use(s.dev));
	return steps_end(&s);
}

/* ---- a device that is lost ---- */

static sigjmp_buf jump;
static volatile sig_atomic_t bus_errors;

static void on_bus(int sig)
{
	bus_errors++;
	siglongjmp(jump, 1);
}

/* SIGBUS on exactly its pages. Host frames are not lost with it: they come home. */
static enum verdict lost(const void *arg)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };
	static struct steps s;

	signal(SIGBUS, on_bus);
	TRY(steps_begin(&s, arg));
	for (unsigned p = 0; p < PAGES; p += 2)
		TRY(away_out(s.dev, s.zone.at + p * PAGE, 1));
	hmm_devmem_lost(s.m.devmem);
	for (volatile unsigned p = 0; p < PAGES; p++) {
		volatile int before = bus_errors;

		if (!sigsetjmp(jump, 1))
			EXPECT(s.zone.shadow[p * PAGE + 9],
			       (unsigned char)s.zone.at[p * PAGE + 9]);
		EXPECT(p % 2 == 0 && !s.host, bus_errors - before);
	}
	hmm_devmem_get_stats(s.m.devmem, &stats);
	EXPECT(s.host ? 0 : PAGES / 2, stats.lost);
	EXPECT(-ENODEV, hmm_migrate_to_device(s.m.devmem, s.m.start + PAGE, PAGE));
	/* Who maps anew there has a page again. */
	SYS(mmap(s.zone.at, PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0));
	zone_zero(&s.zone, 0, PAGES);
	return steps_end(&s);
}

/* A driver that cannot read some pages back: SIGBUS there, for ever, and nowhere else. */
static enum verdict broken_home(const void *arg)
{
	static struct steps s;

	signal(SIGBUS, on_bus);
	TRY(steps_begin(&s, &copied));
	TRY(away_out(s.dev, s.zone.at, PAGES));
	away_break(s.dev, 0, 0x22);
	for (volatile unsigned p = 0; p < 2 * PAGES; p++) {
		size_t page = p % PAGES;
		bool broken = 0x22 >> ((uintptr_t)s.zone.at / PAGE + page) % 8 & 1;
		volatile int before = bus_errors;

		if (!sigsetjmp(jump, 1))
			EXPECT(s.zone.shadow[page * PAGE + 9],
			       (unsigned char)s.zone.at[page * PAGE + 9]);
		CHECK(bus_errors - before == broken, "page %zu: %d SIGBUS, expected %d",
		      page, (int)bus_errors - before, broken);
	}
	SYS(mmap(s.zone.at, PAGES * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0));
	zone_zero(&s.zone, 0, PAGES);
	return steps_end(&s);
}

static void no_transfer(void *priv, struct hmm_devmem_copy *copies, unsigned n,
			struct hmm_transfer *transfer)
{
	hmm_devmem_done(transfer, 0);
}

static const struct hmm_devmem_ops no_ops = { .size = sizeof(no_ops),
					      .to_host = no_transfer };

/* ---- where it cannot be had; where it must not be called ---- */

static enum verdict unavailable(const void *arg)
{
	const char *without = arg;
	bool privilege = strstr(without, "kernel_faults") || strstr(without, "event_fork");
	int want = privilege ? -EPERM : -EOPNOTSUPP;
	struct hmm_devmem_options options = { .size = sizeof(options),
					      .type = HMM_DEVMEM_PRIVATE,
					      .frames = 16,
					      .host_frames = true,
					      .owner = &options };
	struct hmm_devmem *devmem = (void *)&options;
	struct hmm *hmm;
	int err;

	setenv("UHMM_OS_WITHOUT", without, 1);
	EXPECT(0, hmm_open(&hmm));
	err = hmm_devmem_create(hmm, &options, &no_ops, NULL, &devmem);
	CHECK(err == want, "%d (%s) without %s", err, hmm_strerror(err), without);
	CHECK(strstr(hmm_strerror(err), want == -EPERM ? "CAP_SYS_PTRACE" : "6."),
	      "no cure in: %s", hmm_strerror(err));
	CHECK(devmem == (void *)&options, "outputs are untouched on failure");
	hmm_put(hmm);
	return PASS;
}

static enum verdict bad_options(const void *arg)
{
	struct hmm_devmem_options good = { .size = sizeof(good),
					   .type = HMM_DEVMEM_PRIVATE,
					   .frames = 16,
					   .host_frames = true,
					   .owner = &good };
	struct hmm_devmem_options bad[5];
	struct hmm_devmem *devmem;
	struct hmm *hmm;

	for (int i = 0; i < 5; i++)
		bad[i] = good;
	bad[0].owner = NULL;
	bad[1].frames = 0;
	bad[2].frames = (UINT64_C(1) << 30) + 1;
	bad[3].type = (enum hmm_devmem_type)77;
	bad[4].timeslice_us = 1000001;
	EXPECT(0, hmm_open(&hmm));
	for (int i = 0; i < 5; i++) {
		int err = hmm_devmem_create(hmm, &bad[i], &no_ops, NULL, &devmem);

		CHECK(err == -EINVAL, "bad options %d give %d", i, err);
	}
	EXPECT(0, hmm_devmem_create(hmm, &good, &no_ops, NULL, &devmem));
	hmm_devmem_destroy(devmem);
	good.host_frames = false; /* then somebody has to copy */
	EXPECT(-EINVAL, hmm_devmem_create(hmm, &good, &no_ops, NULL, &devmem));
	hmm_put(hmm);
	return PASS;
}

static enum verdict in_child(void *arg)
{
	struct steps *s = arg;
	uintptr_t at = s->m.start;
	uint64_t frame;

	EXPECT(-ENODEV, hmm_migrate_to_device(s->m.devmem, at, PAGE));
	EXPECT(-ENODEV, hmm_migrate_to_host(away_hmm(s->dev), at, PAGE));
	EXPECT(-ENODEV, hmm_migrate_setup(&s->m));
	EXPECT(-ENODEV, hmm_make_exclusive(s->m.devmem, at, &frame));
	EXPECT(-ENODEV, hmm_devmem_evict(s->m.devmem, 0, 16));
	EXPECT(-1, zone_differs(&s->zone));
	hmm_devmem_destroy(s->m.devmem);
	return PASS;
}

static enum verdict of_a_parent(const void *arg)
{
	static struct steps s;

	TRY(steps_begin(&s, arg));
	TRY(away_out(s.dev, s.zone.at, PAGES));
	TRY(live_child(in_child, &s, 10));
	return steps_end(&s);
}

static struct steps inside_steps;
static int inside_err = 1;

static void inside(void *priv, const struct hmm_event *event)
{
	struct steps *s = priv;
	uint64_t frame;

	if (event->kind != HMM_EVENT_CLEAR)
		return;
	inside_err = hmm_migrate_to_device(s->m.devmem, s->m.start, PAGE) != -EDEADLK ||
		     hmm_migrate_to_host(away_hmm(s->dev), s->m.start, PAGE) != -EDEADLK ||
		     hmm_migrate_setup(&s->m) != -EDEADLK ||
		     hmm_make_exclusive(s->m.devmem, s->m.start, &frame) != -EDEADLK ||
		     hmm_devmem_evict(s->m.devmem, 0, 1) != -EDEADLK;
}

static enum verdict in_a_callback(const void *arg)
{
	static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
						     .invalidate = inside };
	struct steps *s = &inside_steps;
	struct hmm_notifier *notifier;
	char byte;

	TRY(steps_begin(s, arg));
	EXPECT(0,
	       hmm_notifier_insert(away_hmm(s->dev), 0, UINTPTR_MAX, &ops, s, &notifier));
	EXPECT(0, away_read(s->dev, &byte, s->zone.at + 2 * PAGE, 1));
	SYS(madvise(s->zone.at + 2 * PAGE, PAGE, MADV_DONTNEED));
	zone_zero(&s->zone, 2, 3);
	EXPECT(0, hmm_fence(away_hmm(s->dev), s->m.start, PAGES * PAGE));
	EXPECT(0, inside_err);
	hmm_notifier_remove(notifier);
	return steps_end(s);
}

/* clang-format off */
#define ON_BOTH(fn, what)                                                                  \
	{ .name = "copied " what, .run = fn, .arg = &copied, .limit_s = 20 },              \
	{ .name = "host " what, .run = fn, .arg = &host, .limit_s = 20 }
/* clang-format on */

int main(int argc, char **argv)
{
	static const struct live_case cases[] = {
		ON_BOTH(few_frames, "few-frames"),
		ON_BOTH(time_slice, "time-slice"),
		ON_BOTH(told_owner, "told-owner"),
		ON_BOTH(no_notifier, "no-notifier"),
		ON_BOTH(lost, "lost"),
		ON_BOTH(of_a_parent, "of-a-parent"),
		ON_BOTH(in_a_callback, "in-a-callback"),
		{ .name = "held-frame", .run = held_frame },
		{ .name = "coherent", .run = coherent },
		{ .name = "broken-out", .run = broken_out },
		{ .name = "broken-home", .run = broken_home },
		{ .name = "overdue", .run = overdue },
		{ .name = "exclusive-waits", .run = exclusive_waits },
		{ .name = "exclusive-refused", .run = exclusive_refused },
		{ .name = "bad-options", .run = bad_options },
		{ .name = "without kernel_faults",
		  .run = unavailable,
		  .arg = "kernel_faults" },
		{ .name = "without event_fork", .run = unavailable, .arg = "event_fork" },
		{ .name = "without uffd_poison", .run = unavailable, .arg = "uffd_poison" },
		{ .name = "without uffd_move", .run = unavailable, .arg = "uffd_move" },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
