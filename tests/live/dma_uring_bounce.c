/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_uring_bounce - memory that cannot be pinned: shared mappings of a file on a disk.
 *
 * By the device, which copies to and fro itself; and by hand, where one sees that nothing
 * but hmm_range_dma_sync() does.
 */
#include "dma_uring.h"

#define WRITABLE (HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE)

struct shared {
	int fd;
	char *at;
};

/* A file of 8 pages, page i full of i + 1, and a shared mapping of it. */
static bool shared_make(struct shared *s)
{
	s->fd = rig_file(8 * PAGE);
	if (s->fd < 0)
		return false;
	s->at = mmap(NULL, 8 * PAGE, RW, MAP_SHARED, s->fd, 0);
	for (unsigned i = 0; i < 8; i++)
		memset(s->at + i * PAGE, (int)i + 1, PAGE);
	return true;
}

enum verdict bounce_both_ways(const void *arg)
{
	char bytes[3 * PAGE], seen[3 * PAGE];
	struct shared s;
	struct rig r;

	if (!shared_make(&s))
		return rig_cannot_bounce();
	TRY(rig_open(&r));
	for (unsigned round = 0; round < 20; round++)
		TRY(rig_agree(&r, s.at + PAGE + 8));
	/* Part of a page, whole ones, part of one: the rest of them stays. */
	memset(bytes, 0x77, sizeof(bytes));
	EXPECT(0, rig_put(&r, s.at + 3 * PAGE - 100, bytes, 2 * PAGE + 300));
	for (size_t i = 2 * PAGE; i < 6 * PAGE; i++) {
		bool written = i >= 3 * PAGE - 100 && i < 5 * PAGE + 200;

		CHECK(s.at[i] == (written ? 0x77 : (char)(i / PAGE + 1)),
		      "byte %#zx is %#x", i, s.at[i]);
	}
	/* Everybody else sees it too: it is in the file. */
	EXPECT(sizeof(seen), pread(s.fd, seen, sizeof(seen), 3 * PAGE - 100));
	EXPECT(0, memcmp(seen, bytes, 2 * PAGE + 300));
	EXPECT(6, seen[2 * PAGE + 300]);
	/* What is written to the file the device reads, and what was beside it. */
	EXPECT(5, pwrite(s.fd, "hello", 5, 4 * PAGE));
	EXPECT(0, rig_get(&r, seen, s.at + 4 * PAGE, 8));
	EXPECT(0, memcmp(seen, "hello\x77\x77\x77", 8));
	CHECK(rig_device(&r).bounced >= 4, "%llu pages were bounced",
	      (unsigned long long)rig_device(&r).bounced);
	rig_close(&r);
	return PASS;
}

/* Nothing goes to or from a bounce page but by sync. */
enum verdict bounce_by_hand(const void *arg)
{
	uintptr_t start, end;
	uint32_t word = 0;
	struct shared s;
	struct rig r;

	if (!shared_make(&s))
		return rig_cannot_bounce();
	start = (uintptr_t)s.at;
	end = start + 8 * PAGE;
	TRY(rig_open(&r));
	EXPECT(8, rig_map(&r, s.at, 8, WRITABLE, 0));
	EXPECT(8, rig_stats(&r).bounced);
	CHECK(r.pfns[3] & HMM_PFN_DMA_BOUNCE && r.pfns[3] & HMM_PFN_DMA_MAPPED, "%#llx",
	      (unsigned long long)r.pfns[3]);
	EXPECT(0, rig_raw_get(&r, &word, r.daddrs[3], 4));
	EXPECT(0x04040404, word); /* the map has filled it */
	*(volatile uint32_t *)(s.at + 3 * PAGE) = 5;
	EXPECT(0, rig_raw_get(&r, &word, r.daddrs[3], 4));
	EXPECT(0x04040404, word);
	EXPECT(1, hmm_range_dma_sync(r.dma, start + 3 * PAGE, start + 4 * PAGE,
				     HMM_DMA_FOR_DEVICE));
	EXPECT(0, rig_raw_get(&r, &word, r.daddrs[3], 4));
	EXPECT(5, word);
	word = 6;
	EXPECT(0, rig_raw_put(&r, r.daddrs[3], &word, 4));
	EXPECT(5, *(volatile uint32_t *)(s.at + 3 * PAGE));
	EXPECT(8, hmm_range_dma_sync(r.dma, start, end, HMM_DMA_FOR_CPU));
	EXPECT(6, *(volatile uint32_t *)(s.at + 3 * PAGE));
	/* Unmapped: with dirty what the device wrote arrives, without it does not. */
	word = 7;
	EXPECT(0, rig_raw_put(&r, r.daddrs[3], &word, 4));
	EXPECT(0, rig_raw_put(&r, r.daddrs[4], &word, 4));
	EXPECT(1, hmm_range_dma_unmap(r.dma, start + 3 * PAGE, start + 4 * PAGE, true));
	EXPECT(1, hmm_range_dma_unmap(r.dma, start + 4 * PAGE, start + 5 * PAGE, false));
	EXPECT(7, *(volatile uint32_t *)(s.at + 3 * PAGE));
	EXPECT(0x05050505, *(volatile uint32_t *)(s.at + 4 * PAGE));
	EXPECT(6, hmm_range_dma_sync(r.dma, start, end, HMM_DMA_FOR_DEVICE));
	rig_close(&r);
	return PASS;
}

enum verdict bounce_refused(const void *arg)
{
	const struct uring_options strict = { .size = sizeof(strict),
					      .fixed = true,
					      .flags = URING_NO_BOUNCE };
	char *anon = live_map(PAGE, RW);
	struct shared s;
	struct rig r;

	if (!shared_make(&s))
		return rig_cannot_bounce();
	TRY(rig_open_with(&r, &strict));
	EXPECT(-EOPNOTSUPP, rig_word(&r, s.at));
	EXPECT(-EOPNOTSUPP, rig_put(&r, s.at, "x", 1));
	EXPECT(-EOPNOTSUPP, rig_map(&r, s.at, 8, WRITABLE, HMM_DMA_NO_BOUNCE));
	EXPECT(WRITABLE, r.pfns[7]);
	EXPECT(0, rig_stats(&r).mapped);
	TRY(rig_agree(&r, anon));
	EXPECT(1, rig_stats(&r).mapped);
	EXPECT(0, rig_stats(&r).bounced);
	rig_close(&r);
	return PASS;
}

/* One access over both: each page its own way, also if they could be one mapping. */
enum verdict bounce_mixed(const void *arg)
{
	struct uring_options options = { .size = sizeof(options),
					 .fixed = true,
					 .chunk = arg ? 16 * PAGE : 0 };
	char bytes[8 * PAGE], seen[8 * PAGE];
	struct shared s;
	struct rig r;

	if (!shared_make(&s))
		return rig_cannot_bounce();
	SYS(mmap(s.at + 2 * PAGE, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0));
	TRY(rig_open_with(&r, &options));
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)(i * 13 + i / PAGE);
	EXPECT(0, rig_put(&r, s.at + 5, bytes, sizeof(bytes) - 10));
	EXPECT(0, memcmp(s.at + 5, bytes, sizeof(bytes) - 10));
	EXPECT(1, s.at[4]);
	EXPECT(8, s.at[8 * PAGE - 1]);
	for (size_t i = 0; i < 8 * PAGE; i += 64)
		s.at[i] = (char)(i / 64);
	EXPECT(0, rig_get(&r, seen, s.at, sizeof(seen)));
	EXPECT(0, memcmp(seen, s.at, sizeof(seen)));
	EXPECT(6, rig_stats(&r).bounced);
	EXPECT(8, rig_stats(&r).mapped);
	rig_close(&r);
	return PASS;
}

/* No event says so: the copying finds it out, and the next fault has the reason. */
enum verdict bounce_truncated(const void *arg)
{
	uint32_t word = 9;
	struct shared s;
	struct rig r;

	if (!shared_make(&s))
		return rig_cannot_bounce();
	TRY(rig_open(&r));
	TRY(rig_agree(&r, s.at + 5 * PAGE));
	TRY(rig_agree(&r, s.at + PAGE));
	SYS(ftruncate(s.fd, 4 * PAGE));
	EXPECT(-EFAULT, rig_word(&r, s.at + 5 * PAGE));
	EXPECT(-EFAULT, rig_put(&r, s.at + 5 * PAGE, &word, 4));
	TRY(rig_agree(&r, s.at + PAGE));
	SYS(ftruncate(s.fd, 8 * PAGE));
	EXPECT(0, rig_word(&r, s.at + 5 * PAGE));
	TRY(rig_agree(&r, s.at + 5 * PAGE));
	EXPECT(3, rig_map(&r, s.at + 5 * PAGE, 3, WRITABLE, 0));
	SYS(ftruncate(s.fd, 6 * PAGE));
	EXPECT(-EFAULT, hmm_range_dma_sync(r.dma, (uintptr_t)s.at + 5 * PAGE,
					   (uintptr_t)s.at + 8 * PAGE, HMM_DMA_FOR_CPU));
	EXPECT(-EFAULT, hmm_range_dma_sync(r.dma, (uintptr_t)s.at + 5 * PAGE,
					   (uintptr_t)s.at + 8 * PAGE, HMM_DMA_FOR_DEVICE));
	rig_close(&r);
	return PASS;
}

enum verdict bounce_upgraded(const void *arg)
{
	uint32_t word = 0;
	struct shared s;
	uint64_t daddr;
	struct rig r;

	if (!shared_make(&s))
		return rig_cannot_bounce();
	TRY(rig_open(&r));
	EXPECT(1, rig_map(&r, s.at, 1, HMM_PFN_REQ_FAULT, 0));
	daddr = r.daddrs[0];
	EXPECT(-EFAULT, rig_raw_put(&r, daddr, "zzzz", 4));
	EXPECT(1, rig_map(&r, s.at, 1, WRITABLE, 0));
	EXPECT(daddr, r.daddrs[0]);
	EXPECT(0, rig_raw_get(&r, &word, daddr, 4));
	EXPECT(0x01010101, word); /* filled, as by any map */
	EXPECT(0, rig_raw_put(&r, daddr, "zzzz", 4));
	EXPECT(1, hmm_range_dma_sync(r.dma, (uintptr_t)s.at, (uintptr_t)s.at + PAGE,
				     HMM_DMA_FOR_CPU));
	EXPECT(0, memcmp(s.at, "zzzz\1\1\1\1", 8));
	rig_close(&r);
	return PASS;
}

/* An event takes copies away, and nothing of them comes back later. */
enum verdict bounce_forgotten(const void *arg)
{
	uint32_t word = 0x33333333;
	struct shared s;
	struct rig r;

	if (!shared_make(&s))
		return rig_cannot_bounce();
	TRY(rig_open(&r));
	EXPECT(8, rig_map(&r, s.at, 8, WRITABLE, 0));
	EXPECT(0, rig_raw_put(&r, r.daddrs[2], &word, 4));
	SYS(mmap(s.at + 2 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0));
	EXPECT(7, hmm_range_dma_sync(r.dma, (uintptr_t)s.at, (uintptr_t)s.at + 8 * PAGE,
				     HMM_DMA_FOR_CPU));
	EXPECT(0, *(volatile uint32_t *)(s.at + 2 * PAGE));
	EXPECT(-EFAULT, rig_raw_get(&r, &word, r.daddrs[2], 4));
	TRY(rig_agree(&r, s.at + 2 * PAGE));
	EXPECT(0, hmm_range_dma_sync(r.dma, (uintptr_t)s.at + 2 * PAGE,
				     (uintptr_t)s.at + 3 * PAGE, HMM_DMA_FOR_CPU));
	rig_close(&r);
	return PASS;
}
