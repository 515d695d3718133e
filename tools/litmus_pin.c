// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_pin - cases in which the kernel itself keeps the old page, because a device has pinned it:
 * what docs/dma.md calls D3.
 *
 * The device is drivers/uring: its DMA goes to the pages that were pinned when a buffer was
 * registered, wherever the program's addresses lead by now. The naive one says of itself that it
 * does not pin: then the library neither waits for the end of a DONTNEED nor looks whether what
 * is pinned is still there. Each case must see it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/uring.h>

#include "common.h"
#include "litmus.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

/* What is discarded in one call: the zap comes to the pinned page last. */
#define ZAPPED (256 * LITMUS_PAGE)

/* Where in the scratch file the device takes what it writes from, and puts what it reads. */
#define OUT 0
#define IN 4096

static struct pin {
	struct uring *dev;
	int scratch;
	int file; /* that is mapped; -1: anonymous memory */
	char *page;
	char *zapped; /* ends with `page` */
	_Atomic bool over;
} pin;

/* The device stores a value at an address. */
static int device_store(struct litmus *l, char *addr, uint64_t value)
{
	int64_t n;

	if (pwrite(pin.scratch, &value, sizeof(value), OUT) != sizeof(value))
		return litmus_fail(l, -EIO, "scratch file: %s", strerror(errno));
	n = uring_read(pin.dev, pin.scratch, OUT, addr, sizeof(value));
	return n == sizeof(value) ? 0 : litmus_fail(l, n < 0 ? (int)n : -EIO, "device: %s",
						    hmm_strerror((int)n));
}

static int device_load(struct litmus *l, const char *addr, uint64_t *value)
{
	int64_t n = uring_write(pin.dev, pin.scratch, IN, addr, sizeof(*value));

	if (n == sizeof(*value) &&
	    pread(pin.scratch, value, sizeof(*value), IN) == sizeof(*value))
		return 0;
	return litmus_fail(l, n < 0 ? (int)n : -EIO, "device: %s", hmm_strerror((int)n));
}

/* Both ways: the device reads what the CPU has, and the CPU finds what the device writes. */
static int compare(struct litmus *l, uint64_t expected)
{
	uint64_t *word = (uint64_t *)pin.page, value;
	int err = device_load(l, pin.page, &value);

	if (!err)
		err = device_store(l, pin.page, ~expected);
	if (err)
		return err;
	l->wrong |= value != expected || __atomic_load_n(word, __ATOMIC_SEQ_CST) != ~expected;
	return 0;
}

/* A buffer is registered, and holds the page. */
static int begin(struct litmus *l)
{
	return compare(l, litmus_fill(l, pin.page));
}

static int open_dev(struct litmus *l)
{
	struct uring_options options = { .size = sizeof(options), .fixed = true,
					 .flags = l->naive ? URING_NAIVE : 0 };
	int err = uring_open(&options, &pin.dev);

	if (err)
		return litmus_fail(l, -EOPNOTSUPP, "%s", hmm_strerror(err));
	pin.scratch = memfd_create("uhmm-litmus", MFD_CLOEXEC);
	if (pin.scratch >= 0 && !ftruncate(pin.scratch, 2 * 4096))
		return 0;
	err = -errno;
	uring_close(pin.dev);
	return litmus_fail(l, err, "memfd_create: %s", strerror(-err));
}

static void close_dev(struct litmus *l)
{
	uring_close(pin.dev);
	close(pin.scratch);
	munmap(l->page, LITMUS_PLACE);
	if (pin.file >= 0)
		close(pin.file);
}

static int anon_setup(struct litmus *l)
{
	int err = open_dev(l);

	pin.file = -1;
	pin.page = l->page;
	if (err)
		return err;
	err = litmus_map_at(l, l->page);
	if (err) {
		close_dev(l);
		return err;
	}
	madvise(l->page, LITMUS_PLACE, MADV_NOHUGEPAGE);
	return 0;
}

static int memfd_setup(struct litmus *l)
{
	int err = open_dev(l);

	if (err)
		return err;
	pin.page = l->page;
	pin.file = memfd_create("uhmm-litmus-mapped", MFD_CLOEXEC);
	if (pin.file >= 0 && !ftruncate(pin.file, LITMUS_PLACE) &&
	    mmap(l->page, LITMUS_PLACE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE,
		 pin.file, 0) == l->page)
		return 0;
	err = litmus_fail(l, -errno, "memfd: %s", strerror(errno));
	close_dev(l);
	return err;
}

/* ---- a DONTNEED begins and does not end ---- */

static void discard(void *arg)
{
	madvise(pin.zapped, ZAPPED, MADV_DONTNEED);
	pin.over = true;
}

/*
 * While a thread discards, the device writes and so registers again and again. When the thread is back
 * the device and the CPU must have the same page.
 */
static int dontneed_round(struct litmus *l, uint64_t i)
{
	int err;

	memset(pin.zapped, 1, ZAPPED);
	err = begin(l);
	if (err)
		return err;
	pin.over = false;
	litmus_actor_begin(&l->young, discard, NULL);
	while (!pin.over && !err)
		err = device_store(l, pin.page, i);
	litmus_actor_wait(&l->young);
	return err ? err : compare(l, litmus_fill(l, pin.page));
}

static int dontneed_setup(struct litmus *l)
{
	int err = open_dev(l);

	pin.file = -1;
	if (err)
		return err;
	pin.zapped = mmap(NULL, ZAPPED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pin.zapped == MAP_FAILED) {
		close_dev(l);
		return litmus_fail(l, -ENOMEM, "no memory");
	}
	madvise(pin.zapped, ZAPPED, MADV_NOHUGEPAGE);
	pin.page = pin.zapped + ZAPPED - LITMUS_PAGE;
	return 0;
}

static void dontneed_end(struct litmus *l)
{
	munmap(pin.zapped, ZAPPED);
	close_dev(l);
}

/* ---- changes that no message tells ---- */

static int guard_round(struct litmus *l, uint64_t i)
{
	int err = begin(l);

	if (err)
		return err;
	if (madvise(l->page, LITMUS_PAGE, MADV_GUARD_INSTALL) ||
	    madvise(l->page, LITMUS_PAGE, MADV_GUARD_REMOVE))
		return litmus_fail(l, -errno, "madvise: %s", strerror(errno));
	return compare(l, litmus_fill(l, pin.page));
}

static int guard_setup(struct litmus *l)
{
	int err = anon_setup(l);

	if (err || !madvise(l->page, LITMUS_PAGE, MADV_GUARD_INSTALL))
		return err ? err : madvise(l->page, LITMUS_PAGE, MADV_GUARD_REMOVE) ? -errno : 0;
	close_dev(l);
	return litmus_fail(l, -EOPNOTSUPP, "this kernel has no guard pages (6.13)");
}

/* Another process has the file too; what it does is no change of our address space. */
static int punch_round(struct litmus *l, uint64_t i)
{
	int err = begin(l), how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	if (err)
		return err;
	if (i % 2 ? ftruncate(pin.file, 0) || ftruncate(pin.file, LITMUS_PLACE)
		  : fallocate(pin.file, how, 0, LITMUS_PAGE))
		return litmus_fail(l, -errno, "memfd: %s", strerror(errno));
	return compare(l, litmus_fill(l, pin.page));
}

const struct litmus_case litmus_pin_cases[] = {
	{ .name = "pin_dontneed",
	  .what = "MADV_DONTNEED while a device pins the page again",
	  .each = true,
	  .setup = dontneed_setup,
	  .round = dontneed_round,
	  .end = dontneed_end },
	{ .name = "pin_guard",
	  .what = "a guard page in the place of a pinned page, and away again",
	  .each = true,
	  .setup = guard_setup,
	  .round = guard_round,
	  .end = close_dev },
	{ .name = "pin_punch",
	  .what = "a hole punched under a pinned page, or the file truncated",
	  .each = true,
	  .setup = memfd_setup,
	  .round = punch_round,
	  .end = close_dev },
	{ .name = NULL },
};
