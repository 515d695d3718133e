/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_uring_events - changes that are told: what was pinned is not used any more.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <uhmm/gpu.h>

#include "dma_uring.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef F_SEAL_WRITE
#define F_ADD_SEALS 1033
#define F_SEAL_WRITE 0x0008
#endif

/* 8 pages that the device has pinned: page i has the word i + 1. */
static enum verdict pinned(struct rig *r, char **at)
{
	*at = live_map(8 * PAGE, RW);
	for (uint32_t i = 0; i < 8; i++) {
		uint32_t word = i + 1;

		EXPECT(0, rig_put(r, *at + i * PAGE, &word, 4));
		EXPECT(i + 1, *(volatile uint32_t *)(*at + i * PAGE));
	}
	EXPECT(8, rig_stats(r).mapped);
	return PASS;
}

/* After a fence pages [from, to) are not mapped, and the others are, and are the CPU's. */
static enum verdict gone(struct rig *r, char *at, unsigned from, unsigned to)
{
	EXPECT(0, hmm_dma_fence(r->dma, (uintptr_t)at, 8 * PAGE));
	for (unsigned i = 0; i < 8; i++) {
		uint32_t word = 0;

		if (i >= from && i < to) {
			CHECK(!uring_lookup(r->dev, at + i * PAGE),
			      "page %u is in the table", i);
			EXPECT(-EFAULT, rig_raw_get(r, &word, (uintptr_t)at + i * PAGE, 4));
			continue;
		}
		EXPECT(0, rig_raw_get(r, &word, (uintptr_t)at + i * PAGE, 4));
		EXPECT(*(volatile uint32_t *)(at + i * PAGE), word);
	}
	EXPECT(8 - (to - from), rig_stats(r).mapped);
	return PASS;
}

enum verdict event_unmap(const void *arg)
{
	struct rig r;
	char *at;

	TRY(rig_open(&r));
	TRY(pinned(&r, &at));
	SYS(munmap(at + 2 * PAGE, 3 * PAGE));
	TRY(gone(&r, at, 2, 5));
	EXPECT(-EFAULT, rig_word(&r, at + 2 * PAGE));
	TRY(rig_agree(&r, at + PAGE));
	EXPECT(0, rig_device(&r).refused);
	rig_close(&r);
	return PASS;
}

enum verdict event_map_over(const void *arg)
{
	struct rig r;
	char *at;

	TRY(rig_open(&r));
	TRY(pinned(&r, &at));
	SYS(mmap(at + 2 * PAGE, 3 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0));
	EXPECT(0, rig_word(&r, at + 3 * PAGE)); /* no fence but its own */
	for (unsigned i = 0; i < 8; i++)
		TRY(rig_agree(&r, at + i * PAGE));
	rig_close(&r);
	return PASS;
}

enum verdict event_move(const void *arg)
{
	char *to = live_map(8 * PAGE, PROT_NONE);
	uint32_t word = 100;
	struct rig r;
	char *at;

	TRY(rig_open(&r));
	TRY(pinned(&r, &at));
	SYS(mremap(at, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT(3, rig_word(&r, to + 2 * PAGE));
	EXPECT(-EFAULT, rig_word(&r, at + 2 * PAGE));
	EXPECT(-EFAULT, rig_raw_put(&r, (uintptr_t)at + PAGE, &word, 4));
	for (unsigned i = 0; i < 8; i++)
		TRY(rig_agree(&r, to + i * PAGE));
	rig_close(&r);
	return PASS;
}

enum verdict event_dontneed(const void *arg)
{
	struct rig r;
	char *at;

	TRY(rig_open(&r));
	TRY(pinned(&r, &at));
	SYS(madvise(at + 2 * PAGE, 2 * PAGE, MADV_DONTNEED));
	TRY(gone(&r, at, 2, 4));
	EXPECT(0, rig_word(&r, at + 2 * PAGE));
	for (unsigned i = 0; i < 8; i++)
		TRY(rig_agree(&r, at + i * PAGE));
	rig_close(&r);
	return PASS;
}

/*
 * FREE makes pages clean, and the kernel pins a clean page without making it dirty. What
 * the device writes then must not be taken for what was freed.
 */
enum verdict event_free(const void *arg)
{
	uint32_t word = 0x600d;
	struct rig r;
	char *at;

	TRY(rig_open(&r));
	TRY(pinned(&r, &at));
	SYS(madvise(at, 8 * PAGE, MADV_FREE));
	TRY(gone(&r, at, 0, 8));
	/* Read first: that pins it for writing too, and no write fault will come. */
	for (unsigned i = 0; i < 8; i++) {
		CHECK(rig_word(&r, at + i * PAGE) >= 0, "cannot be read");
		EXPECT(0, rig_put(&r, at + i * PAGE, &word, 4));
	}
	EXPECT(8,
	       hmm_range_dma_unmap(r.dma, (uintptr_t)at, (uintptr_t)at + 8 * PAGE, false));
	SYS(madvise(at, 8 * PAGE, MADV_PAGEOUT));
	for (unsigned i = 0; i < 8; i++)
		EXPECT(word, *(volatile uint32_t *)(at + i * PAGE));
	rig_close(&r);
	return PASS;
}

enum verdict event_protect(const void *arg)
{
	uint32_t word = 50;
	struct rig r;
	char *at;

	TRY(rig_open(&r));
	TRY(pinned(&r, &at));
	SYS(mprotect(at + 2 * PAGE, 2 * PAGE, PROT_READ));
	EXPECT(-EPERM, rig_put(&r, at + 2 * PAGE, &word, 4));
	EXPECT(3, rig_word(&r, at + 2 * PAGE));
	EXPECT(3, *(volatile uint32_t *)(at + 2 * PAGE));
	EXPECT(-EFAULT, rig_raw_put(&r, (uintptr_t)at + 2 * PAGE, &word, 4));
	SYS(mprotect(at + 2 * PAGE, PAGE, PROT_NONE));
	EXPECT(-EFAULT, rig_word(&r, at + 2 * PAGE));
	EXPECT(-EFAULT, rig_raw_get(&r, &word, (uintptr_t)at + 2 * PAGE, 4));
	SYS(mprotect(at + 2 * PAGE, 2 * PAGE, RW));
	EXPECT(3, rig_word(&r, at + 2 * PAGE));
	for (unsigned i = 0; i < 8; i++)
		TRY(rig_agree(&r, at + i * PAGE));
	rig_close(&r);
	return PASS;
}

/* ---- fork ---- */

struct family {
	struct rig *r;
	char *at;
	int done[2]; /* the parent has changed everything */
};

static enum verdict child_sees_the_past(void *arg)
{
	struct family *f = arg;
	volatile uint32_t *word;
	char byte;

	for (uint32_t i = 0; i < 8; i += 2)
		*(volatile uint32_t *)(f->at + i * PAGE) = 1000 + i;
	SYS(read(f->done[0], &byte, 1));
	for (uint32_t i = 0; i < 8; i++) {
		word = (uint32_t *)(f->at + i * PAGE);
		EXPECT(i & 1 ? i + 1 : 1000 + i, *word);
	}
	EXPECT(-ENODEV, rig_word(f->r, f->at));
	EXPECT(-ENODEV, hmm_range_dma_sync(f->r->dma, 0, PAGE, HMM_DMA_FOR_CPU));
	return PASS;
}

/* A pinned page stays the parent's: no event is needed, and the device forgets nothing. */
static enum verdict parent_goes_on(struct family *f, pid_t pid)
{
	enum verdict verdict = PASS;
	char byte = 1;

	if (pid) {
		for (unsigned i = 0; i < 8 && verdict == PASS; i++)
			verdict = rig_agree(f->r, f->at + i * PAGE);
		if (write(f->done[1], &byte, 1) != 1)
			verdict = FAIL;
		if (verdict != PASS) {
			live_wait(pid, 10);
			return verdict;
		}
	}
	return live_child_of(pid, child_sees_the_past, f, 20);
}

enum verdict event_fork(const void *arg)
{
	struct uring_stats before;
	struct rig r;
	struct family f = { .r = &r };

	TRY(rig_open(&r));
	TRY(pinned(&r, &f.at));
	SYS(pipe(f.done));
	before = rig_device(&r);
	live_child_prepare();
	TRY(parent_goes_on(&f, fork()));
	for (unsigned i = 0; i < 8; i++)
		TRY(rig_agree(&r, f.at + i * PAGE));
	EXPECT(before.misses, rig_device(&r).misses);
	EXPECT(before.buffers, rig_device(&r).buffers);
	rig_close(&r);
	return PASS;
}

/* Whatever a child does with its parent's handles, the parent's buffers stay. */
static enum verdict child_closes(void *arg)
{
	struct family *f = arg;

	EXPECT(-ENODEV, rig_word(f->r, f->at));
	CHECK(hmm_range_dma_unmap(f->r->dma, 0, UINTPTR_MAX, false) <= 0,
	      "a child has unmapped what is its parent's");
	EXPECT(-ENODEV, uring_register(f->r->dev, f->at, PAGE));
	EXPECT(-ENODEV, rig_raw_put(f->r, (uintptr_t)f->at, "x", 1));
	uring_close(f->r->dev);
	TRY(rig_open(f->r));
	return rig_agree(f->r, f->at);
}

enum verdict event_fork_child(const void *arg)
{
	struct uring_stats before;
	struct rig r;
	struct family f = { .r = &r };

	TRY(rig_open(&r));
	TRY(pinned(&r, &f.at));
	before = rig_device(&r);
	TRY(live_child(child_closes, &f, 20));
	for (unsigned i = 0; i < 8; i++)
		TRY(rig_agree(&r, f.at + i * PAGE));
	EXPECT(before.misses, rig_device(&r).misses);
	EXPECT(0, rig_device(&r).refused);
	rig_close(&r);
	return PASS;
}

/* ---- pins ---- */

static long pinned_kb(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	char line[128];
	long kb = -1;

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmPin: %ld", &kb);
	if (f)
		fclose(f);
	return kb;
}

/*
 * When invalidate has returned the kernel has let go of the pages. It says so itself: a
 * memfd cannot be sealed against writing while a page of it is pinned.
 */
enum verdict event_unpinned(const void *arg)
{
	int fd = memfd_create("pins", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	long before = pinned_kb();
	struct rig r;
	char *at;

	SYS(ftruncate(fd, 8 * PAGE));
	at = mmap(NULL, 8 * PAGE, RW, MAP_SHARED, fd, 0);
	TRY(rig_open(&r));
	for (unsigned i = 0; i < 8; i++)
		TRY(rig_agree(&r, at + i * PAGE));
	/* Linux 7.3 does not count what root pins; others count a large folio whole, whatever part
	 * of it is pinned. */
	CHECK(pinned_kb() == before || pinned_kb() >= before + 32, "pinned: %ld kB, and %ld before",
	      pinned_kb(), before);
	EXPECT(0, uring_write(r.dev, r.file, 0, at, 8 * PAGE) == 8 * PAGE ? 0 : -EIO);
	SYS(munmap(at, 8 * PAGE));
	EXPECT(0, hmm_fence(r.hmm, (uintptr_t)at, 8 * PAGE));
	EXPECT(before, pinned_kb());
	CHECK(!fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), "a pin is left: %s", strerror(errno));
	/* And closing leaves none. */
	at = live_map(8 * PAGE, RW);
	TRY(rig_agree(&r, at));
	CHECK(pinned_kb() == before || pinned_kb() >= before + 4, "pinned: %ld kB, and %ld before",
	      pinned_kb(), before);
	rig_close(&r);
	EXPECT(before, pinned_kb());
	return PASS;
}

/* MIGRATE takes pins away, so that pages can leave; and what is away comes home for the
 * device. */
enum verdict event_migrate(const void *arg)
{
	struct gpu_options options = { .size = sizeof(options),
				       .vram_bytes = (uint64_t)4 << 20 };
	struct gpu *gpu;
	struct rig r;
	char *at;
	int err = gpu_open(&options, &gpu);

	if (err)
		return live_skip("no device memory: %s", hmm_strerror(err));
	TRY(rig_open(&r));
	TRY(pinned(&r, &at));
	for (unsigned round = 0; round < 20; round++) {
		EXPECT(8, gpu_migrate(gpu, at, 8 * PAGE));
		EXPECT(0, rig_stats(&r).mapped);
		EXPECT(round + 1, rig_word(&r, at) - (round ? 0 : 0));
		for (unsigned i = 0; i < 8; i++) {
			uint32_t word = i ? i + 1 : round + 2;

			EXPECT(i ? i + 1 : round + 1, rig_word(&r, at + i * PAGE));
			EXPECT(0, rig_put(&r, at + i * PAGE, &word, 4));
		}
		for (unsigned i = 0; i < 8; i++)
			EXPECT(i ? i + 1 : round + 2,
			       *(volatile uint32_t *)(at + i * PAGE));
	}
	rig_close(&r);
	gpu_close(gpu);
	return PASS;
}

/* Everything is taken away, the ring too: errors, no hang, and close works. */
enum verdict event_closefrom(const void *arg)
{
	struct rig r;
	char *at;
	int64_t n;

	TRY(rig_open(&r));
	TRY(pinned(&r, &at));
	SYS(syscall(SYS_close_range, 3, ~0u, 0));
	r.file = memfd_create("again", MFD_CLOEXEC);
	SYS(ftruncate(r.file, PAGE));
	n = uring_read(r.dev, r.file, 0, at, 4);
	CHECK(n < 0, "an access went well: %lld", (long long)n);
	SYS(munmap(at, 8 * PAGE));
	rig_close(&r);
	return PASS;
}
