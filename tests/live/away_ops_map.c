/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away_ops_map - mappings change while their pages are away.
 *
 * What is given up reads zeros, what is moved has its bytes at the new address, and what
 * may not be accessed cannot be, although its bytes are somewhere.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "away_table.h"
#include "uapi.h"

#define BYTES ((PAST - FIRST) * PAGE)
#define WHOLE (CELL_PAGES * PAGE)

static char *middle(const struct cell *cell)
{
	return page_at(cell, FIRST);
}

/* An address where `pages` fit, between inaccessible ones. */
static char *reserve(size_t pages)
{
	return live_map((pages + 2) * PAGE, PROT_NONE) + PAGE;
}

static enum verdict unmap_part(struct cell *cell)
{
	SYS(munmap(middle(cell), BYTES));
	zone_access(&cell->zone, FIRST, PAST, ZONE_NONE);
	return cell_exact(cell, "after munmap");
}

/* Page by page, every other one: a VMA for each page that is left. */
static enum verdict unmap_comb(struct cell *cell)
{
	for (size_t p = 1; p < CELL_PAGES; p += 2) {
		SYS(munmap(page_at(cell, p), PAGE));
		zone_access(&cell->zone, p, p + 1, ZONE_NONE);
	}
	return PASS;
}

static enum verdict unmap_whole(struct cell *cell)
{
	SYS(munmap(cell->zone.at, WHOLE));
	zone_access(&cell->zone, 0, CELL_PAGES, ZONE_NONE);
	TRY(away_settles(cell->dev[0], 0));
	return away_settles(cell->dev[1], 0);
}

/* Unmapped, and something new at once: what was away must not come back. */
static enum verdict unmap_and_map(struct cell *cell)
{
	for (int i = 0; i < 20; i++) {
		SYS(munmap(middle(cell), BYTES));
		SYS(mmap(middle(cell), BYTES, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			 -1, 0));
		zone_zero(&cell->zone, FIRST, PAST);
		TRY(zone_check(&cell->zone, "mapped anew"));
		zone_fill(&cell->zone, FIRST, PAST, 20);
		TRY(away_out(cell->dev[i % 2], middle(cell), PAST - FIRST));
	}
	return PASS;
}

static enum verdict map_over(struct cell *cell)
{
	SYS(mmap(middle(cell), BYTES, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	zone_zero(&cell->zone, FIRST, PAST);
	TRY(cell_exact(cell, "after mmap"));
	TRY(zone_check(&cell->zone, "after mmap"));
	zone_fill(&cell->zone, FIRST, PAST, 21);
	return PASS;
}

static enum verdict map_over_read_only(struct cell *cell)
{
	SYS(mmap(middle(cell), BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0));
	zone_zero(&cell->zone, FIRST, PAST);
	zone_access(&cell->zone, FIRST, PAST, ZONE_READ);
	return PASS;
}

static enum verdict map_over_file(struct cell *cell)
{
	int fd = memfd_create("uhmm-live", MFD_CLOEXEC);

	SYS(fd);
	SYS(ftruncate(fd, BYTES));
	SYS(mmap(middle(cell), BYTES, RW, MAP_SHARED | MAP_FIXED, fd, 0));
	close(fd);
	zone_zero(&cell->zone, FIRST, PAST);
	TRY(zone_check(&cell->zone, "after mmap"));
	zone_fill(&cell->zone, FIRST, PAST, 22);
	return PASS;
}

/* ---- mremap ---- */

static enum verdict move(struct cell *cell)
{
	char *to = reserve(CELL_PAGES);

	SYS((long)mremap(cell->zone.at, WHOLE, WHOLE, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	cell->zone.at = to;
	EXPECT(cell->away, cell_away(cell, to, WHOLE));
	return cell_exact(cell, "after mremap");
}

/* A piece, and back to where it was. */
static enum verdict move_piece(struct cell *cell)
{
	char *to = reserve(PAST - FIRST);

	SYS((long)mremap(middle(cell), BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT((unsigned char)cell->zone.shadow[FIRST * PAGE + 1], (unsigned char)to[1]);
	SYS((long)mremap(to, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, middle(cell)));
	return PASS;
}

/* Twice at once, before anything is touched: entries follow both. */
static enum verdict move_twice(struct cell *cell)
{
	TRY(move(cell));
	return move(cell);
}

static enum verdict grow_moving(struct cell *cell)
{
	char *from = cell->zone.at, *to = mremap(from, WHOLE, 2 * WHOLE, MREMAP_MAYMOVE);

	SYS((long)to);
	CHECK(to != from, "it grew in place, between inaccessible pages");
	cell->zone.at = to;
	cell->zone.pages *= 2;
	zone_access(&cell->zone, CELL_PAGES, 2 * CELL_PAGES, ZONE_WRITE);
	EXPECT(cell->away, cell_away(cell, to, 2 * WHOLE));
	return PASS;
}

static enum verdict grow_in_place(struct cell *cell)
{
	SYS(munmap(cell->zone.at + WHOLE, WHOLE));
	CHECK(mremap(cell->zone.at, WHOLE, 2 * WHOLE, 0) == cell->zone.at, "mremap: %s",
	      strerror(errno));
	cell->zone.pages *= 2;
	zone_access(&cell->zone, CELL_PAGES, 2 * CELL_PAGES, ZONE_WRITE);
	return PASS;
}

static enum verdict shrink(struct cell *cell)
{
	SYS((long)mremap(cell->zone.at, WHOLE, WHOLE / 2, 0));
	zone_access(&cell->zone, CELL_PAGES / 2, CELL_PAGES, ZONE_NONE);
	return cell_exact(cell, "after mremap");
}

/* Pages leave with their bytes; zeros are left where they were. */
static enum verdict dont_unmap(struct cell *cell)
{
	char *from = cell->zone.at, *to;

	to = mremap(from, WHOLE, WHOLE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	SYS((long)to);
	cell->zone.at = to;
	TRY(cell_exact(cell, "after mremap"));
	for (size_t i = 0; i < WHOLE; i += 512)
		EXPECT(0, from[i]);
	memset(from, 3, WHOLE);
	TRY(zone_check(&cell->zone, "moved"));
	for (size_t i = 0; i < WHOLE; i += 512)
		EXPECT(3, from[i]);
	/* And the emptied one goes away and comes home as anything else. */
	TRY(away_out(cell->dev[0], from, CELL_PAGES));
	for (size_t i = 0; i < WHOLE; i += 512)
		EXPECT(3, from[i]);
	SYS(munmap(from, WHOLE));
	return PASS;
}

/* Onto a zone whose pages are away too: those are gone, ours are there. */
static enum verdict move_over_away(struct cell *cell)
{
	struct zone *target = &cell->other;
	size_t away;
	char *from;

	TRY(zone_make(target, CELL_PAGES, 31));
	TRY(cell_place(cell, target, &away));
	TRY(cell_exact(cell, "two zones"));
	from = cell->zone.at;
	SYS((long)mremap(from, WHOLE, WHOLE, MREMAP_MAYMOVE | MREMAP_FIXED, target->at));
	cell->zone.at = target->at;
	munmap(target->shadow, ZONE_MAX * PAGE);
	target->pages = 0;
	EXPECT(cell->away, cell_away(cell, cell->zone.at, WHOLE));
	return cell_exact(cell, "moved over pages that were away");
}

/* ---- madvise ---- */

static enum verdict dontneed(struct cell *cell)
{
	SYS(madvise(middle(cell), BYTES, MADV_DONTNEED));
	zone_zero(&cell->zone, FIRST, PAST);
	TRY(cell_exact(cell, "after DONTNEED"));
	TRY(zone_check(&cell->zone, "after DONTNEED"));
	zone_fill(&cell->zone, FIRST, PAST, 40);
	return PASS;
}

/* Written at once: new data is never lost, an old byte never comes back. */
static enum verdict dontneed_write(struct cell *cell)
{
	for (unsigned i = 0; i < 50; i++) {
		SYS(madvise(cell->zone.at, WHOLE, MADV_DONTNEED));
		zone_zero(&cell->zone, 0, CELL_PAGES);
		zone_fill(&cell->zone, FIRST, PAST, i);
		/* All that is settled goes; what is not, and holes, may stay. */
		CHECK(hmm_migrate_to_device(away_devmem(cell->dev[i % 2]),
					    (uintptr_t)cell->zone.at, WHOLE) >= 0,
		      "after DONTNEED nothing can be migrated");
		TRY(zone_check(&cell->zone, "DONTNEED, then new data"));
	}
	return PASS;
}

static enum verdict dontneed_by_pidfd(struct cell *cell)
{
	struct iovec v = { middle(cell), BYTES };
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	SYS(fd);
	if (syscall(SYS_process_madvise, fd, &v, 1, MADV_DONTNEED, 0) == -1)
		return live_skip("process_madvise: %s", strerror(errno));
	close(fd);
	zone_zero(&cell->zone, FIRST, PAST);
	return cell_exact(cell, "after process_madvise");
}

/* Old bytes or zeros, whole pages; what is written afterwards stays. */
static enum verdict free_pages(struct cell *cell)
{
	static const unsigned char zeros[4096];

	SYS(madvise(middle(cell), BYTES, MADV_FREE));
	for (size_t p = FIRST; p < PAST; p++) {
		if (!memcmp(page_at(cell, p), zeros, PAGE))
			zone_zero(&cell->zone, p, p + 1);
		page_at(cell, p)[3] = (char)(cell->zone.shadow[p * PAGE + 3] = 33);
	}
	return PASS;
}

/* Not for private memory, and it does nothing. */
static enum verdict remove_pages(struct cell *cell)
{
	EXPECT(-1, madvise(middle(cell), BYTES, MADV_REMOVE));
	EXPECT(EINVAL, errno);
	EXPECT(cell->away, cell_away(cell, cell->zone.at, WHOLE));
	return PASS;
}

/*
 * No message: a page that is away comes back when the guard is removed, with its old bytes
 * instead of zeros (docs/limits.md). While the guard is there it is a guard.
 */
static enum verdict guard(struct cell *cell)
{
	static const unsigned char zeros[4096];

	if (madvise(middle(cell), BYTES, MADV_GUARD_INSTALL))
		return live_skip("no guard pages (6.13): %s", strerror(errno));
	zone_access(&cell->zone, FIRST, PAST, ZONE_NONE);
	TRY(zone_check(&cell->zone, "guarded"));
	SYS(madvise(middle(cell), BYTES, MADV_GUARD_REMOVE));
	zone_access(&cell->zone, FIRST, PAST, ZONE_WRITE);
	for (size_t p = FIRST; p < PAST; p++)
		if (!memcmp(page_at(cell, p), zeros, PAGE))
			zone_zero(&cell->zone, p, p + 1);
	return PASS;
}

/* ---- permissions ---- */

static enum verdict protect(struct cell *cell, int prot)
{
	SYS(mprotect(middle(cell), BYTES, prot));
	zone_access(&cell->zone, FIRST, PAST,
		    prot & PROT_WRITE  ? ZONE_WRITE
		    : prot & PROT_READ ? ZONE_READ
				       : ZONE_NONE);
	return PASS;
}

static enum verdict read_only(struct cell *cell)
{
	return protect(cell, PROT_READ);
}

static enum verdict read_only_and_back(struct cell *cell)
{
	TRY(protect(cell, PROT_READ));
	/* Half of it is touched while it may only be read. */
	for (size_t p = FIRST; p < (FIRST + PAST) / 2; p++)
		EXPECT(cell->zone.shadow[p * PAGE + 2], (unsigned char)page_at(cell, p)[2]);
	TRY(protect(cell, RW));
	zone_fill(&cell->zone, FIRST, PAST, 50);
	return PASS;
}

static enum verdict prot_none(struct cell *cell)
{
	TRY(protect(cell, PROT_NONE));
	TRY(cell_home(cell, "PROT_NONE"));
	/* Called home it comes, or stays where it is; nobody can tell. */
	hmm_migrate_to_host(away_hmm(cell->dev[0]), (uintptr_t)cell->zone.at, WHOLE);
	return cell_home(cell, "PROT_NONE, called home");
}

static enum verdict prot_none_and_back(struct cell *cell)
{
	TRY(protect(cell, PROT_NONE));
	TRY(zone_check(&cell->zone, "PROT_NONE"));
	TRY(protect(cell, PROT_READ));
	TRY(zone_check(&cell->zone, "read-only"));
	return protect(cell, RW);
}

/* Every other page: as many VMAs as pages, and one again. */
static enum verdict prot_comb(struct cell *cell)
{
	for (size_t p = 0; p < CELL_PAGES; p += 2)
		SYS(mprotect(page_at(cell, p), PAGE, PROT_READ));
	for (size_t p = 0; p < CELL_PAGES; p += 2)
		EXPECT(cell->zone.shadow[p * PAGE + 2], (unsigned char)page_at(cell, p)[2]);
	SYS(mprotect(cell->zone.at, WHOLE, RW));
	return PASS;
}

const struct away_op away_ops_map[] = {
	{ .name = "munmap-part", .run = unmap_part },
	{ .name = "munmap-comb", .run = unmap_comb },
	{ .name = "munmap-whole", .run = unmap_whole },
	{ .name = "munmap-and-map", .run = unmap_and_map },
	{ .name = "map-over", .run = map_over },
	{ .name = "map-over-read-only", .run = map_over_read_only },
	{ .name = "map-over-file", .run = map_over_file },
	{ .name = "mremap-move", .run = move },
	{ .name = "mremap-piece", .run = move_piece },
	{ .name = "mremap-twice", .run = move_twice },
	{ .name = "mremap-grow-moving", .run = grow_moving },
	{ .name = "mremap-grow-in-place", .run = grow_in_place },
	{ .name = "mremap-shrink", .run = shrink },
	{ .name = "mremap-dontunmap", .run = dont_unmap },
	{ .name = "mremap-over-away", .run = move_over_away },
	{ .name = "dontneed", .run = dontneed },
	{ .name = "dontneed-write", .run = dontneed_write },
	{ .name = "process_madvise", .run = dontneed_by_pidfd },
	{ .name = "free", .run = free_pages },
	{ .name = "remove", .run = remove_pages },
	{ .name = "guard", .run = guard },
	{ .name = "read-only", .run = read_only },
	{ .name = "read-only-and-back", .run = read_only_and_back },
	{ .name = "prot-none", .run = prot_none },
	{ .name = "prot-none-and-back", .run = prot_none_and_back },
	{ .name = "prot-comb", .run = prot_comb },
};
const unsigned away_ops_map_count = sizeof(away_ops_map) / sizeof(away_ops_map[0]);
