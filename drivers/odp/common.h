/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * common - what both sides do alike and has nothing of the fabric: the time; public structs,
 * which begin with their size and may be of an older or a newer header.
 */
#ifndef ODP_COMMON_H
#define ODP_COMMON_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The options that were given (NULL: none) to *known, `size` bytes, which is all zero. -E2BIG: they
 * have more, and it is not zero. */
static inline int options_take(void *known, size_t size, const void *given)
{
	const char *bytes = given;
	size_t has;

	if (!given)
		return 0;
	memcpy(&has, given, sizeof(has));
	if (has < sizeof(has))
		return -EINVAL;
	memcpy(known, given, has < size ? has : size);
	for (size_t i = size; i < has; i++)
		if (bytes[i])
			return -E2BIG;
	return 0;
}

/* An answer, as much of it as the caller's struct has room for. */
static inline void stats_give(void *to, void *all, size_t size)
{
	size_t room;

	memcpy(&room, to, sizeof(room));
	if (room < size)
		size = room;
	memcpy(all, &size, sizeof(size));
	memcpy(to, all, size);
}

#endif
