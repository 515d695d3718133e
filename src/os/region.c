/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * region - memory for pages on their way.
 *
 * Laws:
 * - It is of one kind with the pages that move through it, or UFFDIO_MOVE refuses: private,
 *   anonymous, writable, not mlocked, not merged by KSM (also where the program has asked
 *   for all of its memory to be, before).
 * - Aligned to 2 MiB, as a block of pages is: a huge page moves whole. It is not asked
 *   to be made of huge pages: it is filled by moving, or a page at a time.
 * - A guard page on either side, as arena_map() has, and for its reason.
 * - A forked child has none of it: there the bytes of pages that are away come by
 *   OS_MSG_FORK.
 */
#include <errno.h>
#include <sys/mman.h>

#include "os/live.h"
#include "os/uapi.h"
#include "util/arena.h"

#define ALIGN ((uintptr_t)2 << 20)

/* 0: empty, or too large to be rounded. */
static size_t whole_pages(size_t length)
{
	if (length > SIZE_MAX / 2)
		return 0;
	return (length + OS_PAGE_SIZE - 1) & ~(OS_PAGE_SIZE - 1);
}

/* [outer, ...) without access; a region can begin at the aligned address that is returned. */
static uintptr_t reserve(size_t length, uintptr_t *outer, size_t *size)
{
	*size = length + ALIGN + 2 * OS_PAGE_SIZE;
	*outer = (uintptr_t)mmap(NULL, *size, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (*outer == (uintptr_t)MAP_FAILED)
		return 0;
	return (*outer + OS_PAGE_SIZE + ALIGN - 1) & ~(ALIGN - 1);
}

/* Give back what lies outside of the guards. It may fail for want of a VMA: it is only
 * address space. */
static void trim(uintptr_t outer, size_t size, uintptr_t start, size_t length)
{
	uintptr_t low = start - OS_PAGE_SIZE, high = start + length + OS_PAGE_SIZE;

	if (low > outer)
		munmap((void *)outer, low - outer);
	if (high < outer + size)
		munmap((void *)high, outer + size - high);
}

void *live_region_map(size_t length)
{
	uintptr_t outer, start;
	size_t inner = whole_pages(length), size;
	void *region = NULL;

	errno = ENOMEM;
	if (!inner)
		return NULL;
	if (!arena_changing()) {
		errno = EAGAIN;
		return NULL;
	}
	start = reserve(inner, &outer, &size);
	if (!start)
		goto changed;
	region = (void *)start;
	madvise(region, inner, MADV_UNMERGEABLE); /* EINVAL: this kernel has no KSM */
	/* First munlock: making locked memory writable fills it. */
	if (munlock(region, inner) || mprotect(region, inner, PROT_READ | PROT_WRITE) ||
	    madvise(region, inner, MADV_DONTFORK) ||
	    arena_adopt(start - OS_PAGE_SIZE, start + inner + OS_PAGE_SIZE)) {
		munmap((void *)outer, size);
		region = NULL;
	} else {
		trim(outer, size, start, inner);
		arena_edge(start - OS_PAGE_SIZE);
		arena_edge(start + inner);
	}
changed:
	arena_changed();
	return region;
}

void live_region_unmap(void *region, size_t length)
{
	uintptr_t start = (uintptr_t)region - OS_PAGE_SIZE;

	length = whole_pages(length) + 2 * OS_PAGE_SIZE;
	if (!region || !arena_changing())
		return;
	arena_disown(start, start + length);
	if (munmap((void *)start, length))
		arena_adopt(start, start + length);
	arena_changed();
}

void live_region_zap(uintptr_t start, size_t length)
{
	/* Refused where the program has locked all of its memory since. */
	if (madvise((void *)start, length, MADV_DONTNEED) && errno == EINVAL)
		madvise((void *)start, length, MADV_DONTNEED_LOCKED);
}
