/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_dma_uring - the DMA API (uhmm/dma.h) on the running kernel, under the uring driver.
 *
 * Every case looks at bytes: what a CPU reads at the address after the device wrote there,
 * and what the device reads after a CPU wrote. Here are map and unmap; what they promise of
 * bounce pages, events, silent changes and races is in dma_uring_*.c.
 */
#include <fcntl.h>
#include <stdio.h>
#include <alloca.h>

#include "dma_uring.h"
#include "kinds.h"

#define FAULT HMM_PFN_REQ_FAULT
#define WRITABLE (HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE)

/* The device reaches what was mapped, at the address that was said, and nothing else. */
static enum verdict reaches(struct rig *r, char *at, unsigned page, bool write)
{
	uint32_t word = 0, next = 0x5000 + page;

	((uint32_t *)(at + page * PAGE))[1] = 0x4000 + page;
	EXPECT(0, rig_raw_get(r, &word, r->daddrs[page] + 4, 4));
	EXPECT(0x4000 + page, word);
	EXPECT(write ? 0 : -EFAULT, rig_raw_put(r, r->daddrs[page] + 4, &next, 4));
	EXPECT(write ? next : 0x4000 + page, ((volatile uint32_t *)(at + page * PAGE))[1]);
	return PASS;
}

/* Without a request: what is present, and no more. */
static enum verdict map_present(const void *arg)
{
	char *at = live_map(8 * PAGE, RW);
	struct rig r;

	TRY(rig_open(&r));
	at[PAGE] = at[5 * PAGE] = 1;
	EXPECT(2, rig_map(&r, at, 8, 0, 0));
	for (unsigned i = 0; i < 8; i++) {
		bool there = i == 1 || i == 5;

		CHECK(!r.daddrs[i] == !there, "page %u: I/O address %#llx", i,
		      (unsigned long long)r.daddrs[i]);
		CHECK(!(r.pfns[i] & HMM_PFN_DMA_MAPPED) == !there, "page %u: entry %#llx",
		      i, (unsigned long long)r.pfns[i]);
		EXPECT(there ? 0 : -EFAULT,
		       rig_raw_get(&r, &(uint32_t){ 0 }, (uintptr_t)at + i * PAGE, 4));
	}
	TRY(reaches(&r, at, 1, true));
	TRY(reaches(&r, at, 5, true));
	EXPECT(2, rig_stats(&r).mapped);
	rig_close(&r);
	return PASS;
}

/* With one, all; a second map finds the first, whoever made it. */
static enum verdict map_again(const void *arg)
{
	char *at = live_map(8 * PAGE, RW);
	uint64_t daddrs[8], mappings;
	uint32_t word = 77;
	struct rig r;

	TRY(rig_open(&r));
	EXPECT(8, rig_map(&r, at, 8, WRITABLE, 0));
	for (unsigned i = 0; i < 8; i++)
		TRY(reaches(&r, at, i, true));
	memcpy(daddrs, r.daddrs, sizeof(daddrs));
	mappings = rig_stats(&r).mappings;
	EXPECT(8, rig_map(&r, at, 8, FAULT, 0));
	EXPECT(0, memcmp(daddrs, r.daddrs, sizeof(daddrs)));
	EXPECT(0, rig_put(&r, at + 3 * PAGE, &word, sizeof(word))); /* the device itself */
	EXPECT(word, *(volatile uint32_t *)(at + 3 * PAGE));
	EXPECT(mappings, rig_stats(&r).mappings);
	rig_close(&r);
	return PASS;
}

/* Mapped for reading and now for writing: at the same address. */
static enum verdict map_upgrade(const void *arg)
{
	int fd = memfd_create("upgrade", MFD_CLOEXEC);
	uint64_t daddr;
	struct rig r;
	char *at;

	SYS(ftruncate(fd, 4 * PAGE));
	at = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
	TRY(rig_open(&r));
	EXPECT(4, rig_map(&r, at, 4, FAULT, 0));
	CHECK(!(r.pfns[2] & HMM_PFN_WRITE), "a read fault gave WRITE: %#llx",
	      (unsigned long long)r.pfns[2]);
	TRY(reaches(&r, at, 2, false));
	daddr = r.daddrs[2];
	EXPECT(1, rig_map(&r, at + 2 * PAGE, 1, WRITABLE, 0));
	EXPECT(daddr, r.daddrs[0]);
	TRY(reaches(&r, at + 2 * PAGE, 0, true));
	EXPECT(4, rig_map(&r, at, 4, FAULT, 0));
	TRY(reaches(&r, at, 2, true));
	TRY(reaches(&r, at, 1, false));
	EXPECT(4, rig_stats(&r).mapped);
	rig_close(&r);
	return PASS;
}

/* D2: nothing is mapped that was not, what was is; entries are as they were. */
static enum verdict nothing_mapped(struct rig *r, char *at, uint64_t asked, unsigned kept)
{
	for (unsigned i = 0; i < 8; i++) {
		CHECK(r->pfns[i] == asked, "entry %u is %#llx now", i,
		      (unsigned long long)r->pfns[i]);
		EXPECT(i == kept ? 0 : -EFAULT,
		       rig_raw_get(r, &(uint32_t){ 0 }, (uintptr_t)at + i * PAGE, 4));
	}
	EXPECT(1, rig_stats(r).mapped);
	return PASS;
}

static enum verdict map_all_or_nothing(const void *arg)
{
	const struct uring_options few = { .size = sizeof(few),
					   .fixed = true,
					   .buffers = 4 };
	char *at = live_map(8 * PAGE, RW);
	struct rig r;

	TRY(rig_open_with(&r, &few));
	EXPECT(1, rig_map(&r, at + PAGE, 1, WRITABLE, 0));
	/* The back-end has no more room in the middle. */
	EXPECT(-ENOMEM, rig_map(&r, at, 8, WRITABLE, 0));
	TRY(nothing_mapped(&r, at, WRITABLE, 1));
	/* A page cannot be had. */
	SYS(munmap(at + 6 * PAGE, PAGE));
	EXPECT(-EFAULT, rig_map(&r, at, 8, FAULT, 0));
	EXPECT((uintptr_t)at + 6 * PAGE, r.fault_addr);
	TRY(nothing_mapped(&r, at, FAULT, 1));
	SYS(mprotect(at + 4 * PAGE, PAGE, PROT_READ));
	EXPECT(-EPERM, rig_map(&r, at, 8, WRITABLE, 0));
	EXPECT((uintptr_t)at + 4 * PAGE, r.fault_addr);
	TRY(nothing_mapped(&r, at, WRITABLE, 1));
	/* And there is room for four. */
	EXPECT(4, rig_map(&r, at, 4, WRITABLE, 0));
	rig_close(&r);
	return PASS;
}

static enum verdict unmap_by_hand(const void *arg)
{
	char *at = live_map(8 * PAGE, RW);
	uintptr_t from = (uintptr_t)at;
	struct rig r;

	TRY(rig_open(&r));
	EXPECT(8, rig_map(&r, at, 8, WRITABLE, 0));
	EXPECT(2, hmm_range_dma_unmap(r.dma, from + 2 * PAGE, from + 4 * PAGE, false));
	for (unsigned i = 0; i < 8; i++)
		EXPECT(i == 2 || i == 3 ? -EFAULT : 0,
		       rig_raw_get(&r, &(uint32_t){ 0 }, r.daddrs[i], 4));
	EXPECT(0, hmm_range_dma_unmap(r.dma, from + 2 * PAGE, from + 4 * PAGE, false));
	EXPECT(6, hmm_range_dma_unmap(r.dma, 0, UINTPTR_MAX, true));
	EXPECT(0, rig_stats(&r).mapped);
	EXPECT(8, rig_stats(&r).unmaps);
	/* The program's memory is as it was, and can be had again. */
	EXPECT(8, rig_map(&r, at, 8, WRITABLE, 0));
	TRY(reaches(&r, at, 3, true));
	rig_close(&r);
	return PASS;
}

/* D1: a map whose read_begin came before an event maps nothing. */
static enum verdict map_stale(const void *arg)
{
	char *at = live_map(4 * PAGE, RW);
	struct hmm_range range;
	struct rig r;

	TRY(rig_open(&r));
	EXPECT(4, rig_map(&r, at, 4, WRITABLE, 0));
	range = (struct hmm_range){ .size = sizeof(range),
				    .hmm = r.hmm,
				    .notifier = r.notifier,
				    .start = (uintptr_t)at,
				    .end = (uintptr_t)at + 4 * PAGE,
				    .pfns = r.pfns,
				    .default_flags = FAULT };
	EXPECT(0, hmm_notifier_read_begin(&range));
	SYS(madvise(at + PAGE, PAGE, MADV_DONTNEED));
	EXPECT(0, hmm_fence(r.hmm, (uintptr_t)at, 4 * PAGE));
	EXPECT(-EBUSY, hmm_range_dma_map(&range, r.dma, r.daddrs, 0));
	EXPECT(3, rig_stats(&r).mapped);
	EXPECT(-EFAULT, rig_raw_get(&r, &(uint32_t){ 0 }, (uintptr_t)at + PAGE, 4));
	rig_close(&r);
	return PASS;
}

/* Chunks: few mappings, that go as a whole; hmm_dma_widen() says which. */
static enum verdict map_chunks(const void *arg)
{
	const struct uring_options chunked = { .size = sizeof(chunked),
					       .fixed = true,
					       .chunk = 16 * PAGE };
	char *area = live_map(64 * PAGE, RW);
	char *at = (char *)(((uintptr_t)area + 16 * PAGE - 1) & ~(16 * PAGE - 1));
	uintptr_t start = (uintptr_t)at + 20 * PAGE, end = start + PAGE;
	struct rig r;

	TRY(rig_open_with(&r, &chunked));
	EXPECT(32, rig_map(&r, at, 32, WRITABLE, 0));
	EXPECT(2, rig_stats(&r).mappings);
	TRY(reaches(&r, at, 0, true));
	TRY(reaches(&r, at, 31, true));
	hmm_dma_widen(r.dma, &start, &end);
	EXPECT((uintptr_t)at + 16 * PAGE, start);
	EXPECT((uintptr_t)at + 32 * PAGE, end);
	SYS(madvise(at + 20 * PAGE, PAGE, MADV_DONTNEED));
	EXPECT(0, hmm_dma_fence(r.dma, (uintptr_t)at, PAGE));
	EXPECT(16, rig_stats(&r).mapped);
	for (unsigned i = 0; i < 32; i++)
		EXPECT(i < 16 ? 0 : -EFAULT,
		       rig_raw_get(&r, &(uint32_t){ 0 }, (uintptr_t)at + i * PAGE, 4));
	for (unsigned i = 0; i < 32; i++)
		TRY(rig_agree(&r, at + i * PAGE));
	start = 5;
	end = UINTPTR_MAX;
	hmm_dma_widen(r.dma, &start, &end);
	CHECK(!start && end == UINTPTR_MAX, "widened to [%#lx, %#lx)", (long)start,
	      (long)end);
	rig_close(&r);
	return PASS;
}

/* An access that crosses into what cannot be had: the bytes before, then why. */
static enum verdict access_stops(const void *arg)
{
	char *at = live_map(8 * PAGE, RW), said[40];
	struct rig r;

	TRY(rig_open(&r));
	SYS(ftruncate(r.file, 8 * PAGE));
	SYS(munmap(at + 3 * PAGE, PAGE));
	EXPECT(3 * PAGE - 100, uring_read(r.dev, r.file, 0, at + 100, 5 * PAGE));
	EXPECT(-EFAULT, uring_read(r.dev, r.file, 0, at + 3 * PAGE, 5));
	snprintf(said, sizeof(said), "%#lx: no mapping", (unsigned long)at + 3 * PAGE);
	CHECK(strstr(hmm_strerror(-EFAULT), said), "'%s' does not have '%s'",
	      hmm_strerror(-EFAULT), said);
	SYS(mprotect(at + 6 * PAGE, PAGE, PROT_READ));
	EXPECT(2 * PAGE, uring_read(r.dev, r.file, 0, at + 4 * PAGE, 4 * PAGE));
	EXPECT(-EPERM, uring_read(r.dev, r.file, 0, at + 6 * PAGE, 1));
	EXPECT(4 * PAGE, uring_write(r.dev, r.file, 0, at + 4 * PAGE, 4 * PAGE));
	EXPECT(-EINVAL, uring_write(r.dev, STDOUT_FILENO + 100000, 0, at, 1) == -EBADF
				? -EINVAL
				: 0);
	EXPECT(-EINVAL, uring_write(r.dev, r.file, 0, (void *)UINTPTR_MAX, 2));
	rig_close(&r);
	return PASS;
}

/* A pipe may never have bytes, and everybody would wait for it. */
static enum verdict only_files(const void *arg)
{
	char *at = live_map(PAGE, RW);
	int ends[2];
	struct rig r;

	SYS(pipe(ends));
	TRY(rig_open(&r));
	EXPECT(-EINVAL, uring_read(r.dev, ends[0], 0, at, 1));
	EXPECT(-EINVAL, uring_write(r.dev, ends[1], 0, at, 1));
	rig_close(&r);
	return PASS;
}

static enum verdict bad_arguments(const void *arg)
{
	const struct uring_options bad[] = {
		{ .size = sizeof(bad[0]), .fixed = true, .chunk = 5000 },
		{ .size = sizeof(bad[0]), .fixed = true, .chunk = 2048 },
		{ .size = sizeof(bad[0]), .fixed = true, .buffers = URING_BUFFERS_MAX + 1 },
		{ .size = sizeof(bad[0]), .flags = 0x80 },
	};
	char *at = live_map(4 * PAGE, RW);
	struct uring *dev = NULL;
	struct hmm_range range;
	struct rig r;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		EXPECT(-EINVAL, uring_open(&bad[i], &dev));
	CHECK(!dev, "a handle after a failure");
	TRY(rig_open(&r));
	EXPECT(0, rig_watch(&r));
	range = (struct hmm_range){ .size = sizeof(range),
				    .hmm = r.hmm,
				    .notifier = r.notifier,
				    .start = (uintptr_t)at,
				    .end = (uintptr_t)at + PAGE,
				    .pfns = r.pfns };
	EXPECT(0, hmm_notifier_read_begin(&range));
	EXPECT(-EINVAL, hmm_range_dma_map(&range, r.dma, NULL, 0));
	EXPECT(-EINVAL, hmm_range_dma_map(&range, NULL, r.daddrs, 0));
	EXPECT(-EINVAL, hmm_range_dma_map(&range, r.dma, r.daddrs, 0x80));
	range.end++;
	EXPECT(-EINVAL, hmm_range_dma_map(&range, r.dma, r.daddrs, 0));
	EXPECT(-EINVAL, hmm_range_dma_sync(r.dma, 0, PAGE, 0));
	EXPECT(-EINVAL, hmm_range_dma_sync(r.dma, PAGE, 0, HMM_DMA_FOR_CPU));
	EXPECT(-EOVERFLOW, hmm_dma_fence(r.dma, PAGE, UINTPTR_MAX));
	EXPECT(-EINVAL, hmm_dma_fence(NULL, 0, PAGE));
	hmm_dma_destroy(NULL);
	uring_close(NULL);
	rig_close(&r);
	return PASS;
}

/* ---- kinds of memory ---- */

static bool is_bounced(const struct kind *kind, bool has_disk)
{
	return !strcmp(kind->name, "dax") || !strcmp(kind->name, "read-only") ||
	       (has_disk && !strcmp(kind->name, "shared-file"));
}

/* Mapped as the kind must be, and the bytes are the CPU's. */
static enum verdict check_kind(struct area *a, struct rig *r, bool bounced)
{
	bool write = a->access[0] == WRITE;
	uint32_t word, next = 0xabcd0000;

	EXPECT(8, rig_map(r, a->at, 8, write ? WRITABLE : FAULT, 0));
	for (unsigned i = 0; i < 8; i++, next++) {
		volatile uint32_t *at = (uint32_t *)(a->at + i * PAGE);

		CHECK(!(r->pfns[i] & HMM_PFN_DMA_BOUNCE) == !bounced,
		      "page %u is %sbounced", i, bounced ? "not " : "");
		EXPECT(0, rig_raw_get(r, &word, r->daddrs[i], 4));
		EXPECT(*at, word);
		EXPECT(write ? 0 : -EFAULT, rig_raw_put(r, r->daddrs[i], &next, 4));
		EXPECT(bounced,
		       hmm_range_dma_sync(r->dma, (uintptr_t)at, (uintptr_t)at + PAGE,
					  HMM_DMA_FOR_DEVICE + (write && bounced)));
		CHECK(!write || *at == next, "the device wrote %#x, the CPU sees %#x", next,
		      *at);
	}
	return PASS;
}

static enum verdict kind_case(const void *arg)
{
	const struct kind *kind = arg;
	int disk = rig_file(PAGE);
	struct area area;
	struct rig r;

	TRY(area_make(&area, kind));
	TRY(rig_open(&r));
	if (area.access[0] == NONE) {
		EXPECT(-EFAULT, rig_map(&r, area.at, 8, FAULT, 0));
		EXPECT((uintptr_t)area.at, r.fault_addr);
		EXPECT(0, rig_stats(&r).mapped);
	} else {
		TRY(check_kind(&area, &r, is_bounced(kind, disk >= 0)));
	}
	area_dispose(&area);
	rig_close(&r);
	return PASS;
}

/* The last page of a file is there as a whole; the next is not. */
static enum verdict kind_past_end(const void *arg)
{
	int fd = memfd_create("end", MFD_CLOEXEC);
	struct rig r;
	char *at;

	SYS(ftruncate(fd, PAGE + 100));
	at = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
	TRY(rig_open(&r));
	EXPECT(-EFAULT, rig_map(&r, at, 4, FAULT, 0));
	EXPECT((uintptr_t)at + 2 * PAGE, r.fault_addr);
	EXPECT(2, rig_map(&r, at, 2, WRITABLE, 0));
	TRY(rig_agree(&r, at + PAGE + 96));
	EXPECT(-EFAULT, rig_word(&r, at + 2 * PAGE));
	rig_close(&r);
	return PASS;
}

/* ---- the table ---- */

static const struct live_case cases[] = {
	{ .name = "map: what is present", .run = map_present },
	{ .name = "map: again", .run = map_again },
	{ .name = "map: for writing what was for reading", .run = map_upgrade },
	{ .name = "map: all or nothing", .run = map_all_or_nothing },
	{ .name = "map: stale", .run = map_stale },
	{ .name = "map: chunks", .run = map_chunks },
	{ .name = "unmap", .run = unmap_by_hand },
	{ .name = "access: stops where it must", .run = access_stops },
	{ .name = "access: files only", .run = only_files },
	{ .name = "bad arguments", .run = bad_arguments },
	{ .name = "kind: past the end of a file", .run = kind_past_end },
	{ .name = "bounce: both ways", .run = bounce_both_ways },
	{ .name = "bounce: by hand", .run = bounce_by_hand },
	{ .name = "bounce: refused", .run = bounce_refused },
	{ .name = "bounce: beside pinned pages", .run = bounce_mixed },
	{ .name = "bounce: beside pinned pages, in chunks",
	  .run = bounce_mixed,
	  .arg = "" },
	{ .name = "bounce: the file is cut", .run = bounce_truncated },
	{ .name = "bounce: for writing what was for reading", .run = bounce_upgraded },
	{ .name = "bounce: forgotten by an event", .run = bounce_forgotten },
	{ .name = "event: munmap", .run = event_unmap },
	{ .name = "event: MAP_FIXED", .run = event_map_over },
	{ .name = "event: mremap", .run = event_move },
	{ .name = "event: DONTNEED", .run = event_dontneed },
	{ .name = "event: FREE", .run = event_free },
	{ .name = "event: mprotect", .run = event_protect },
	{ .name = "event: fork", .run = event_fork },
	{ .name = "event: the child of a fork", .run = event_fork_child },
	{ .name = "event: the pin has ended", .run = event_unpinned },
	{ .name = "event: pages move to a device", .run = event_migrate },
	{ .name = "event: closefrom", .run = event_closefrom },
	{ .name = "silent: guard pages", .run = silent_guard, .arg = "" },
	{ .name = "silent: guard pages, as nobody", .run = silent_guard, .arg = "nobody" },
	{ .name = "silent: a hole is punched", .run = silent_punch, .arg = "" },
	{ .name = "silent: a hole is punched, as nobody",
	  .run = silent_punch,
	  .arg = "nobody" },
	{ .name = "silent: a file is cut", .run = silent_truncate, .arg = "" },
	{ .name = "silent: a file is cut, as nobody",
	  .run = silent_truncate,
	  .arg = "nobody" },
	{ .name = "silent: a file under private pages is cut",
	  .run = silent_truncate_private,
	  .arg = "" },
	{ .name = "silent: a file under private pages is cut, as nobody",
	  .run = silent_truncate_private,
	  .arg = "nobody" },
	{ .name = "silent: shmdt", .run = silent_shmdt, .arg = "" },
	{ .name = "silent: copied on write", .run = silent_cow, .arg = "" },
	{ .name = "race: DONTNEED", .run = race_dontneed },
	{ .name = "race: DONTNEED without pause", .run = race_dontneed_storm },
	{ .name = "race: MAP_FIXED", .run = race_map_over },
	{ .name = "race: for writing while it is read", .run = race_upgrade },
	{ .name = "race: bytes beside", .run = race_beside },
	{ .name = "race: a neighbour in the chunk", .run = race_chunk },
	{ .name = "race: too few buffers", .run = race_evict },
	{ .name = "race: requests that wait for a disk", .run = race_file },
	{ .name = "race: forks", .run = race_fork },
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

int main(int argc, char **argv)
{
	static struct live_case all[CASES + 64];
	static char names[64][60];
	char *stack = alloca(STACK_BYTES + PAGE);
	size_t n = CASES;
	int failed;

	memcpy(all, cases, sizeof(cases));
	for (unsigned k = 0; k < live_kind_count && k < 64; k++, n++) {
		snprintf(names[k], sizeof(names[k]), "kind: %s", live_kinds[k].name);
		all[n] = (struct live_case){ .name = names[k],
					     .run = kind_case,
					     .arg = &live_kinds[k] };
	}
	kinds_give_stack((char *)(((uintptr_t)stack + PAGE - 1) & ~(PAGE - 1)));
	kinds_begin();
	failed = live_main(argc, argv, all, n);
	kinds_end();
	return failed;
}
