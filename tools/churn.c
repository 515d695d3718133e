/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * churn - the tally, and what the three kinds of churn share (churn.h).
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "churn.h"

#define GIB ((uintptr_t)1 << 30)
#define TRIES 16

const char *churn_kind_name(enum churn_kind kind)
{
	static const char *const names[CHURN_KINDS] = {
		[CHURN_MUNMAP] = "munmap",
		[CHURN_FIXED] = "map_fixed",
		[CHURN_MREMAP] = "mremap",
		[CHURN_DONTNEED] = "dontneed",
		[CHURN_MPROTECT] = "mprotect",
		[CHURN_FORK] = "fork",
		[CHURN_RANKS_MOVED] = "ranks_mremap",
		[CHURN_RANKS_DROPPED] = "ranks_dontneed",
		[CHURN_RANKS_READ_ONLY] = "ranks_mprotect",
		[CHURN_NODES_MOVED] = "nodes_moved",
		[CHURN_PACKAGES_REBUILT] = "packages_rebuilt",
		[CHURN_FILE_MOVED] = "files_moved",
		[CHURN_RANKS_TO_VRAM] = "ranks_to_vram",
		[CHURN_FORK_UNDER] = "forks_under_launch",
		[CHURN_PAGEOUT] = "pageout",
		[CHURN_COLLAPSE] = "collapse",
		[CHURN_NOHUGEPAGE] = "nohugepage",
		[CHURN_TO_VRAM] = "to_vram",
		[CHURN_FROM_VRAM] = "from_vram",
	};

	return names[kind];
}

void churn_tally_init(struct churn_tally *tally)
{
	memset(tally, 0, sizeof(*tally));
	pthread_mutex_init(&tally->lock, NULL);
}

void churn_bad(struct churn_tally *tally, bool stale, const char *format, ...)
{
	va_list args;

	atomic_fetch_add(stale ? &tally->stale : &tally->wrong, 1);
	pthread_mutex_lock(&tally->lock);
	if (!tally->first[0]) {
		va_start(args, format);
		vsnprintf(tally->first, sizeof(tally->first), format, args);
		va_end(args);
	}
	pthread_mutex_unlock(&tally->lock);
}

/*
 * The kernel takes the highest gap that fits for a mapping without an address, and
 * malloc, stacks and the library's own memory come that way: a moment's gap at half the
 * height is the last that it would choose. Each call begins lower than the one before, or
 * it could take another one's gap.
 */
void *churn_area(size_t bytes)
{
	static _Atomic unsigned calls;
	void *high = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uintptr_t at;

	if (high == MAP_FAILED)
		return NULL;
	munmap(high, bytes);
	at = ((uintptr_t)high / 2) & ~(GIB - 1);
	at -= atomic_fetch_add(&calls, 1) * TRIES * GIB;
	for (unsigned i = 0; i < TRIES; i++, at -= GIB) {
		void *area = mmap((void *)at, bytes, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (area != MAP_FAILED)
			return area;
	}
	return NULL;
}

uint64_t churn_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}
