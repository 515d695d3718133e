/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away_zone - memory of the program, and a model of what each byte of it is.
 *
 * The model is shared memory, which never moves and which a child sees as its parent left
 * it. Checking touches every page that may be read, so it brings everything home.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "away.h"

enum verdict zone_make(struct zone *zone, size_t pages, unsigned seed)
{
	char *room = live_map(pages * PAGE + 2 * BLOCK, PROT_NONE);

	*zone = (struct zone){ .pages = pages };
	zone->shadow = mmap(NULL, ZONE_MAX * PAGE, RW,
			    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	CHECK(zone->shadow != MAP_FAILED && pages <= ZONE_MAX, "no memory");
	/* Between inaccessible pages: nothing merges with it, and it lies in one block. */
	zone->at =
		(char *)(((uintptr_t)room + BLOCK - 1) & -BLOCK) + (pages < 512 ? PAGE : 0);
	SYS(mmap(zone->at, pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0));
	zone_access(zone, 0, pages, ZONE_WRITE);
	zone_fill(zone, 0, pages, seed);
	return PASS;
}

void zone_dispose(struct zone *zone)
{
	munmap(zone->at, zone->pages * PAGE);
	munmap(zone->shadow, ZONE_MAX * PAGE);
}

void zone_fill(struct zone *zone, size_t from, size_t to, unsigned seed)
{
	for (size_t p = from; p < to; p++) {
		uint32_t *words = (uint32_t *)(zone->shadow + p * PAGE);

		for (size_t i = 0; i < PAGE / 4; i++)
			words[i] = (uint32_t)(seed << 24 | (p + 1) << 12 | i);
		memcpy(zone->at + p * PAGE, words, PAGE);
	}
}

void zone_zero(struct zone *zone, size_t from, size_t to)
{
	memset(zone->shadow + from * PAGE, 0, (to - from) * PAGE);
}

void zone_access(struct zone *zone, size_t from, size_t to, enum zone_access access)
{
	memset(zone->access + from, access, to - from);
}

static size_t first_difference(const unsigned char *a, const unsigned char *b)
{
	size_t i = 0;

	while (i < PAGE && a[i] == b[i])
		i++;
	return i;
}

static enum verdict same(const struct zone *zone, size_t p, const char *when)
{
	const unsigned char *at = (const unsigned char *)zone->at + p * PAGE;
	const unsigned char *want = zone->shadow + p * PAGE;
	size_t i = first_difference(at, want);

	CHECK(i == PAGE, "%s: page %zu of %zu, byte %zu is %#x, expected %#x", when, p,
	      zone->pages, i, at[i], want[i]);
	return PASS;
}

static enum verdict unreadable(const struct zone *zone, size_t p, const char *when)
{
	char byte;
	struct iovec here = { &byte, 1 }, there = { zone->at + p * PAGE, 1 };
	long n = process_vm_readv(getpid(), &here, 1, &there, 1, 0);

	CHECK(n == -1 && errno == EFAULT, "%s: page %zu can be read", when, p);
	return PASS;
}

static enum verdict unwritable(const struct zone *zone, size_t p, int zero,
			       const char *when)
{
	long n = read(zero, zone->at + p * PAGE, 1);

	CHECK(n == -1 && errno == EFAULT, "%s: page %zu can be written", when, p);
	return PASS;
}

static enum verdict check_page(const struct zone *zone, size_t p, int zero,
			       const char *when)
{
	unsigned char *at = (unsigned char *)zone->at + p * PAGE;

	if (zone->access[p] == ZONE_NONE)
		return unreadable(zone, p, when);
	TRY(same(zone, p, when));
	if (zone->access[p] == ZONE_READ)
		return unwritable(zone, p, zero, when);
	at[77] = zone->shadow[p * PAGE + 77] = (unsigned char)(at[77] + 1);
	return same(zone, p, when);
}

enum verdict zone_check(const struct zone *zone, const char *when)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	enum verdict verdict = PASS;

	SYS(zero);
	for (size_t p = 0; p < zone->pages && verdict == PASS; p++)
		verdict = check_page(zone, p, zero, when);
	close(zero);
	return verdict;
}

long zone_differs(const struct zone *zone)
{
	for (size_t p = 0; p < zone->pages; p++)
		if (zone->access[p] != ZONE_NONE &&
		    memcmp(zone->at + p * PAGE, zone->shadow + p * PAGE, PAGE))
			return (long)p;
	return -1;
}
