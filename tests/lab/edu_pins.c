// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * edu_pins - a pin keeps the page that it found (D3, docs/dma.md).
 *
 * Each change is done under a device that looks, and under one that does not (EDU_NAIVE):
 * that one has to reach the old page, or the case shows nothing.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lab_edu.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

#define BYTES 64

static int guard(const struct edu_area *a)
{
	if (madvise(a->use, PAGE, MADV_GUARD_INSTALL) ||
	    madvise(a->use, PAGE, MADV_GUARD_REMOVE))
		return -errno;
	return 0;
}

static int punch(const struct edu_area *a)
{
	return lab_elsewhere(lab_punch, a->fd, 0, (off_t)PAGE);
}

static int truncated(const struct edu_area *a)
{
	int err = lab_elsewhere(lab_truncate, a->fd, 0, 0);

	return err ? err : lab_elsewhere(lab_truncate, a->fd, 0, (off_t)EDU_AREA);
}

/* The page goes and another comes, both without a word; the CPU writes to the new one. */
static enum verdict silently(const struct edu_case *c, unsigned flags, const char *kind,
			     int (*change)(const struct edu_area *a), bool *stale)
{
	unsigned char seen[BYTES], bytes[BYTES];
	struct edu_area a;
	struct edu *dev;
	int err;

	for (unsigned k = 0; k < edu_kind_count; k++) {
		if (!strcmp(edu_kinds[k].name, kind))
			TRY(edu_area_make(&a, &edu_kinds[k]));
	}
	TRY(edu_open_way(c, flags, &dev));
	lab_fill(bytes, BYTES, 1);
	EXPECT(0, edu_write(dev, a.use, bytes, BYTES));
	err = change(&a);
	if (err == -EINVAL)
		return live_skip("this kernel has no guard pages (6.13)");
	EXPECT(0, err);
	lab_fill(a.use, BYTES, 2);
	EXPECT(0, edu_read(dev, seen, a.use, BYTES));
	*stale = lab_differs(seen, BYTES, 1) == BYTES;
	CHECK(*stale || lab_differs(seen, BYTES, 2) == BYTES, "%#x is nobody's byte",
	      seen[0]);
	edu_close(dev);
	return PASS;
}

static enum verdict both(const struct edu_case *c, const char *kind,
			 int (*change)(const struct edu_area *a))
{
	bool stale;

	TRY(silently(c, EDU_NAIVE, kind, change, &stale));
	CHECK(stale, "a device that does not look sees the new page: a test of nothing");
	TRY(silently(c, 0, kind, change, &stale));
	CHECK(!stale, "the device reads the page of before");
	return PASS;
}

static enum verdict pinned_guard(const struct edu_case *c)
{
	return both(c, "anon", guard);
}

static enum verdict pinned_punch(const struct edu_case *c)
{
	return both(c, "memfd", punch);
}

static enum verdict pinned_truncate(const struct edu_case *c)
{
	return both(c, "memfd", truncated);
}

/* ---- a DONTNEED whose message was read, and whose end comes later ---- */

/* Discarded in one call; the last page is the one that the device wants. */
#define DISCARDED ((size_t)4096)
#define ROUNDS 16

struct discard {
	char *at;
	_Atomic bool begun;
};

static void *discard(void *arg)
{
	struct discard *d = arg;

	atomic_store(&d->begun, true);
	madvise(d->at, DISCARDED * PAGE, MADV_DONTNEED);
	return NULL;
}

static enum verdict one_race(struct edu *dev, struct discard *d, unsigned *stale)
{
	char *last = d->at + (DISCARDED - 1) * PAGE;
	unsigned char seen[BYTES];
	pthread_t thread;

	memset(d->at, 1, DISCARDED * PAGE);
	EXPECT(0, edu_read(dev, seen, last, BYTES));
	atomic_store(&d->begun, false);
	CHECK(!pthread_create(&thread, NULL, discard, d), "no thread");
	while (!atomic_load(&d->begun))
		;
	EXPECT(0, edu_read(dev, seen, last, BYTES));
	pthread_join(thread, NULL);
	memset(last, 2, BYTES);
	EXPECT(0, edu_read(dev, seen, last, BYTES));
	CHECK(seen[0] <= 2, "%#x is nobody's byte", seen[0]);
	*stale += seen[0] != 2;
	return PASS;
}

static enum verdict races(const struct edu_case *c, unsigned flags, unsigned rounds,
			  unsigned *stale)
{
	struct discard d = { .at = live_map(DISCARDED * PAGE, RW) };
	struct edu *dev;

	SYS(madvise(d.at, DISCARDED * PAGE, MADV_NOHUGEPAGE));
	TRY(edu_open_way(c, flags, &dev));
	*stale = 0;
	for (unsigned i = 0; i < rounds; i++)
		TRY(one_race(dev, &d, stale));
	edu_close(dev);
	SYS(munmap(d.at, DISCARDED * PAGE));
	return PASS;
}

/* How often the naive one hits it is a matter of luck: said, and not asserted. */
static enum verdict pinned_dontneed(const struct edu_case *c)
{
	unsigned stale, naive;

	TRY(races(c, 0, ROUNDS, &stale));
	CHECK(!stale, "%u of %u: the device reads a page that was discarded", stale,
	      ROUNDS);
	TRY(races(c, EDU_NAIVE, ROUNDS, &naive));
	if (!naive)
		return live_skip("the naive device met no DONTNEED under way in %d rounds",
				 ROUNDS);
	return PASS;
}

const struct edu_change edu_pins[] = {
	{ "pin-guard", pinned_guard, NULL },
	{ "pin-punch", pinned_punch, NULL },
	{ "pin-truncate", pinned_truncate, NULL },
	{ "pin-dontneed", pinned_dontneed, NULL },
};
const unsigned edu_pin_count = sizeof(edu_pins) / sizeof(edu_pins[0]);
