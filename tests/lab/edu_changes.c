/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * edu_changes - memory changes while the device has it mapped.
 *
 * What the device may then do: get an error, or what a CPU finds at the address. Never a
 * signal, and never a page that is somebody else's: the page that was there lives on in a
 * file, and shows it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lab_edu.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

#define BYTES 64

/* Two pages that the device has mapped for writing, each with other bytes. */
static enum verdict warm(struct edu *dev, char *at)
{
	unsigned char bytes[BYTES];

	for (unsigned i = 0; i < 2; i++) {
		lab_fill(bytes, BYTES, 10 + i);
		EXPECT(0, edu_write(dev, at + i * PAGE, bytes, BYTES));
		CHECK(!memcmp(at + i * PAGE, bytes, BYTES), "the CPU does not see page %u",
		      i);
	}
	return PASS;
}

/* Device and CPU see the same: zeros, and then what either writes. */
static enum verdict agrees_from_zero(struct edu *dev, char *at)
{
	unsigned char bytes[BYTES];

	EXPECT(0, edu_read(dev, bytes, at, BYTES));
	CHECK(lab_zero(bytes, BYTES), "the device sees %#x where the CPU sees %#x",
	      bytes[0], at[0]);
	CHECK(lab_zero(at, BYTES), "the CPU sees %#x", at[0]);
	lab_fill(at, BYTES, 20);
	EXPECT(0, edu_read(dev, bytes, at, BYTES));
	CHECK(lab_differs(bytes, BYTES, 20) == BYTES,
	      "the device does not see the CPU's bytes");
	lab_fill(bytes, BYTES, 21);
	EXPECT(0, edu_write(dev, at, bytes, BYTES));
	CHECK(lab_differs(at, BYTES, 21) == BYTES,
	      "the CPU does not see the device's bytes");
	return PASS;
}

static uint64_t iova_of(struct edu *dev, const void *at)
{
	return hmm_pfn_number(edu_lookup(dev, at)) * PAGE;
}

static uint64_t mapped_pages(struct edu *dev)
{
	struct edu_stats stats = { .size = sizeof(stats) };

	edu_get_stats(dev, &stats);
	return stats.mapped;
}

/* ---- the IOMMU's word ---- */

/* The page is in the file still: that is where a DMA that is not blocked would go. */
static enum verdict is_blocked(struct edu *dev, int fd, uint64_t iova)
{
	unsigned char raw[BYTES], kept[BYTES];
	int log = lab_log_open();

	SYS(pread(fd, kept, BYTES, 0));
	lab_fill(raw, BYTES, 30);
	EXPECT(0, edu_dma_raw(dev, iova, raw, BYTES, true));
	SYS(pread(fd, raw, BYTES, 0));
	CHECK(!memcmp(raw, kept, BYTES), "the device wrote to a page that is unmapped");
	CHECK(log < 0 || lab_log_fault(log, iova), "no fault in the kernel's log: written");
	lab_fill(raw, BYTES, 31);
	EXPECT(0, edu_dma_raw(dev, iova, raw, BYTES, false));
	for (unsigned i = 0; i < BYTES; i++)
		CHECK(raw[i] != kept[i] || !kept[i] || raw[i] == lab_byte(i, 31),
		      "the device read %#x at +%u of a page that is unmapped", raw[i], i);
	CHECK(lab_zero(raw, BYTES) || lab_differs(raw, BYTES, 31) == BYTES ||
		      (raw[0] == 0xff && !memcmp(raw, raw + 1, BYTES - 1)),
	      "a blocked read gave %#x %#x %#x: neither nothing nor all ones", raw[0],
	      raw[1], raw[2]);
	if (log >= 0)
		close(log);
	return PASS;
}

/* After munmap, and not before: what says "blocked" can say the other, too. */
static enum verdict unmapped(const struct edu_case *c)
{
	unsigned char raw[BYTES];
	struct edu_area a;
	struct edu *dev;
	uint64_t iova;

	TRY(edu_area_make(&a, &edu_kinds[3]));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	iova = iova_of(dev, a.use);
	EXPECT(2, mapped_pages(dev));
	lab_fill(raw, BYTES, 40);
	EXPECT(0, edu_dma_raw(dev, iova, raw, BYTES, true));
	CHECK(lab_differs(a.use, BYTES, 40) == BYTES,
	      "a raw write does nothing: a test of nothing");
	EXPECT(0, edu_dma_raw(dev, iova, raw, BYTES, false));
	CHECK(lab_differs(raw, BYTES, 40) == BYTES,
	      "a raw read reads nothing: a test of nothing");
	SYS(munmap(a.use, PAGE));
	EXPECT(0, hmm_dma_fence(edu_dma(dev), (uintptr_t)a.use, PAGE));
	CHECK(!edu_lookup(dev, a.use), "a translation outlived its fence");
	EXPECT(1, mapped_pages(dev));
	TRY(is_blocked(dev, a.fd, iova));
	EXPECT(-EFAULT, edu_read(dev, raw, a.use, BYTES));
	EXPECT(-EFAULT, edu_write(dev, a.use, raw, BYTES));
	/* Its neighbour is where it was. */
	EXPECT(0, edu_read(dev, raw, a.use + PAGE, BYTES));
	CHECK(lab_differs(raw, BYTES, 11) == BYTES, "the neighbour's bytes are others");
	edu_close(dev);
	return PASS;
}

/* ---- changes that have events ---- */

static enum verdict mapped_over(const struct edu_case *c)
{
	unsigned char kept[BYTES];
	struct edu_area a;
	struct edu *dev;

	TRY(edu_area_make(&a, &edu_kinds[3]));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	SYS(mmap(a.use, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	TRY(agrees_from_zero(dev, a.use));
	/* The page that was there has not been touched. */
	SYS(pread(a.fd, kept, BYTES, 0));
	CHECK(lab_differs(kept, BYTES, 10) == BYTES,
	      "the device wrote to the page of before");
	edu_close(dev);
	return PASS;
}

static enum verdict discarded(const struct edu_case *c)
{
	struct edu_area a;
	struct edu *dev;

	TRY(edu_area_make(&a, &edu_kinds[0]));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	for (int i = 0; i < 3; i++) {
		SYS(madvise(a.use, PAGE, MADV_DONTNEED));
		TRY(agrees_from_zero(dev, a.use));
	}
	edu_close(dev);
	return PASS;
}

static enum verdict moved(const struct edu_case *c)
{
	char *to = live_map(PAGE, PROT_NONE);
	unsigned char bytes[BYTES];
	struct edu_area a;
	struct edu *dev;

	TRY(edu_area_make(&a, &edu_kinds[0]));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	SYS(mremap(a.use, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT(-EFAULT, edu_read(dev, bytes, a.use, BYTES));
	EXPECT(0, edu_read(dev, bytes, to, BYTES));
	CHECK(lab_differs(bytes, BYTES, 10) == BYTES, "other bytes where it moved to");
	edu_close(dev);
	return PASS;
}

static enum verdict protections(const struct edu_case *c)
{
	unsigned char bytes[BYTES];
	struct edu_area a;
	struct edu *dev;

	TRY(edu_area_make(&a, &edu_kinds[0]));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	SYS(mprotect(a.use, PAGE, PROT_READ));
	EXPECT(-EPERM, edu_write(dev, a.use, bytes, BYTES));
	EXPECT(0, edu_read(dev, bytes, a.use, BYTES));
	CHECK(lab_differs(bytes, BYTES, 10) == BYTES, "the device reads something else");
	SYS(mprotect(a.use, PAGE, PROT_NONE));
	EXPECT(-EFAULT, edu_read(dev, bytes, a.use, BYTES));
	SYS(mprotect(a.use, PAGE, RW));
	lab_fill(bytes, BYTES, 12);
	EXPECT(0, edu_write(dev, a.use, bytes, BYTES));
	CHECK(lab_differs(a.use, BYTES, 12) == BYTES,
	      "the CPU does not see what was written");
	edu_close(dev);
	return PASS;
}

/* ---- changes that no event tells ---- */

static enum verdict guarded(const struct edu_case *c)
{
	unsigned char bytes[BYTES];
	struct edu_area a;
	struct edu *dev;

	TRY(edu_area_make(&a, &edu_kinds[0]));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	if (madvise(a.use, PAGE, MADV_GUARD_INSTALL) && errno == EINVAL)
		return live_skip("this kernel has no guard pages (6.13)");
	EXPECT(-EFAULT, edu_read(dev, bytes, a.use, BYTES));
	EXPECT(-EFAULT, edu_write(dev, a.use, bytes, BYTES));
	SYS(madvise(a.use, PAGE, MADV_GUARD_REMOVE));
	TRY(agrees_from_zero(dev, a.use));
	edu_close(dev);
	return PASS;
}

static enum verdict truncated(const struct edu_case *c)
{
	unsigned char bytes[BYTES];
	struct edu_area a;
	struct edu *dev;

	TRY(edu_area_make(&a, c->kind));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	EXPECT(0, lab_elsewhere(lab_truncate, a.fd, 0, (off_t)PAGE));
	EXPECT(-EFAULT, edu_read(dev, bytes, a.use + PAGE, BYTES));
	EXPECT(-EFAULT, edu_write(dev, a.use + PAGE, bytes, BYTES));
	EXPECT(0, edu_read(dev, bytes, a.use, BYTES));
	CHECK(lab_differs(bytes, BYTES, 10) == BYTES,
	      "what was not cut off reads otherwise");
	EXPECT(0, lab_elsewhere(lab_truncate, a.fd, 0, (off_t)EDU_AREA));
	TRY(agrees_from_zero(dev, a.use + PAGE));
	SYS(pread(a.fd, bytes, BYTES, (off_t)PAGE));
	CHECK(lab_differs(bytes, BYTES, 21) == BYTES,
	      "the file does not have what was written");
	edu_close(dev);
	return PASS;
}

static enum verdict punched(const struct edu_case *c)
{
	unsigned char bytes[BYTES];
	struct edu_area a;
	struct edu *dev;

	TRY(edu_area_make(&a, c->kind));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	EXPECT(0, lab_elsewhere(lab_punch, a.fd, (off_t)PAGE, (off_t)PAGE));
	TRY(agrees_from_zero(dev, a.use + PAGE));
	SYS(pread(a.fd, bytes, BYTES, (off_t)PAGE));
	CHECK(lab_differs(bytes, BYTES, 21) == BYTES,
	      "the file does not have what was written");
	edu_close(dev);
	return PASS;
}

/* ---- what cannot be pinned ---- */

static enum verdict unbounced(const struct edu_case *c)
{
	unsigned char bytes[BYTES] = { 0 };
	struct edu_area a;
	struct edu *dev;

	TRY(edu_area_make(&a, c->kind));
	TRY(edu_open_way(c, EDU_NO_BOUNCE, &dev));
	EXPECT(-EOPNOTSUPP, edu_read(dev, bytes, a.use, BYTES));
	EXPECT(-EOPNOTSUPP, edu_write(dev, a.use, bytes, BYTES));
	CHECK(!edu_lookup(dev, a.use) && !mapped_pages(dev), "something is mapped");
	edu_close(dev);
	return PASS;
}

/* A CPU writes elsewhere in a page of a file while the device writes into it. */
static void *write_beside(void *at)
{
	usleep(150000); /* the first DMA fills the buffer, the second writes */
	lab_fill((char *)at + 1000, BYTES, 77);
	return NULL;
}

static enum verdict beside(const struct edu_case *c)
{
	unsigned char bytes[BYTES];
	struct edu_area a;
	pthread_t thread;
	struct edu *dev;

	TRY(edu_area_make(&a, c->kind));
	TRY(edu_open_way(c, 0, &dev));
	TRY(warm(dev, a.use));
	CHECK(!pthread_create(&thread, NULL, write_beside, a.use), "no thread");
	lab_fill(bytes, BYTES, 13);
	EXPECT(0, edu_write(dev, a.use, bytes, BYTES));
	pthread_join(thread, NULL);
	CHECK(lab_differs(a.use, BYTES, 13) == BYTES, "the device's bytes are lost");
	CHECK(lab_differs(a.use + 1000, BYTES, 77) == BYTES, "the CPU's bytes are lost");
	edu_close(dev);
	return PASS;
}

/* ---- beside others that change it all the time ---- */

struct churn {
	char *at;
	int fd;
	_Atomic bool stop;
};

/* The page of before has 0xee only, the new one zeros or what the device writes. */
static void *churn(void *arg)
{
	struct churn *churn = arg;

	while (!atomic_load(&churn->stop)) {
		mmap(churn->at, PAGE, RW, MAP_SHARED | MAP_FIXED, churn->fd, 0);
		usleep(1000 + (unsigned)rand() % 30000);
		mmap(churn->at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		usleep(1000 + (unsigned)rand() % 30000);
		munmap(churn->at, PAGE);
		usleep(1000 + (unsigned)rand() % 30000);
	}
	return NULL;
}

static bool all(const unsigned char *bytes, unsigned char byte)
{
	return bytes[0] == byte && !memcmp(bytes, bytes + 1, BYTES - 1);
}

static enum verdict churned(const struct edu_case *c)
{
	unsigned char bytes[BYTES], page[PAGE];
	struct churn churned = { .fd = memfd_create("uhmm-lab", MFD_CLOEXEC) };
	uint64_t end = live_now_ns() + 2 * UINT64_C(1000000000);
	unsigned done = 0;
	pthread_t thread;
	struct edu *dev;

	memset(page, 0xee, PAGE);
	SYS(pwrite(churned.fd, page, PAGE, 0));
	churned.at = live_map(PAGE, PROT_NONE);
	TRY(edu_open_way(c, 0, &dev));
	CHECK(!pthread_create(&thread, NULL, churn, &churned), "no thread");
	while (live_now_ns() < end) {
		int err = edu_read(dev, bytes, churned.at, BYTES);

		CHECK(!err || err == -EFAULT || err == -EBUSY, "the read says %d (%s)", err,
		      edu_strerror(err));
		CHECK(err || all(bytes, 0xee) || all(bytes, 0), "%#x is nobody's byte",
		      bytes[0]);
		done += !err;
	}
	CHECK(done, "no read came to its end: a test of nothing");
	atomic_store(&churned.stop, true);
	pthread_join(thread, NULL);
	EXPECT(-EFAULT, edu_read(dev, bytes, churned.at, BYTES));
	EXPECT(0, mapped_pages(dev));
	edu_close(dev);
	return PASS;
}

/* Another process, until it is killed: the file ends and is as before, again and again. */
static void cut_and_mend(int fd)
{
	unsigned char page[PAGE];

	for (;;) {
		usleep(1000 + (unsigned)rand() % 50000);
		lab_truncate(fd, 0, 0);
		usleep(1000 + (unsigned)rand() % 50000);
		memset(page, 0xee, PAGE);
		if (pwrite(fd, page, PAGE, 0) < 0)
			_exit(1);
	}
}

/* Of the mapping's permission nothing changes: a write may succeed, or find no page. */
static enum verdict cut(const struct edu_case *c)
{
	unsigned char bytes[BYTES], page[PAGE];
	struct edu_area a;
	struct edu *dev;
	pid_t child;

	TRY(edu_area_make(&a, c->kind));
	memset(page, 0xee, PAGE);
	SYS(pwrite(a.fd, page, PAGE, 0));
	child = fork();
	if (!child)
		cut_and_mend(a.fd);
	TRY(edu_open_way(c, 0, &dev));
	for (int i = 0; i < 16; i++) {
		bool write = i % 4 == 3;
		int err;

		memset(bytes, 0xdd, BYTES);
		err = write ? edu_write(dev, a.use, bytes, BYTES)
			    : edu_read(dev, bytes, a.use, BYTES);
		CHECK(!err || err == -EFAULT || err == -EBUSY, "it says %d (%s)", err,
		      edu_strerror(err));
		CHECK(err || write || all(bytes, 0xee) || all(bytes, 0) || all(bytes, 0xdd),
		      "%#x is nobody's byte", bytes[0]);
	}
	kill(child, SIGKILL);
	live_wait(child, 5);
	/* And then it is as if nothing had been. */
	SYS(ftruncate(a.fd, 0));
	EXPECT(-EFAULT, edu_read(dev, bytes, a.use, BYTES));
	SYS(ftruncate(a.fd, (off_t)PAGE));
	TRY(agrees_from_zero(dev, a.use));
	edu_close(dev);
	return PASS;
}

#define FILES "memfd ext4 xfs"

const struct edu_change edu_changes[] = {
	{ "unmapped", unmapped, NULL },
	{ "mapped-over", mapped_over, NULL },
	{ "dontneed", discarded, NULL },
	{ "moved", moved, NULL },
	{ "protections", protections, NULL },
	{ "guard", guarded, NULL },
	{ "truncated", truncated, FILES },
	{ "punched", punched, FILES },
	{ "no-bounce", unbounced, "ext4 xfs" },
	{ "churn", churned, NULL },
	{ "cut", cut, FILES },
	{ "beside", beside, FILES },
};
const unsigned edu_change_count = sizeof(edu_changes) / sizeof(edu_changes[0]);
