/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * hash - a checksum of a page: has it changed?
 *
 * Eight lanes take a word in turn. A step is a bijection of the lane for any word, and of
 * the word for any lane: what differs in one word of a lane ends in another lane. Eight, because
 * a multiplication takes longer than to begin the next.
 *
 * It is no protection from somebody who wants two pages to look alike: by chance they do once in
 * 2^64.
 */
#include "userptr_private.h"

#define LANES 8
#define ODD UINT64_C(0x9e3779b97f4a7c15)

static uint64_t step(uint64_t lane, uint64_t word)
{
	lane = (lane ^ word) * ODD;
	return lane ^ lane >> 29;
}

uint64_t userptr_hash(const void *bytes, size_t n)
{
	const unsigned char *at = bytes;
	uint64_t lane[LANES], word[LANES], all = n;

	for (unsigned i = 0; i < LANES; i++)
		lane[i] = ODD * (2 * i + 1);
	for (; n >= sizeof(word); n -= sizeof(word), at += sizeof(word)) {
		memcpy(word, at, sizeof(word));
		for (unsigned i = 0; i < LANES; i++)
			lane[i] = step(lane[i], word[i]);
	}
	if (n) { /* what is missing counts as zeros: the length is in `all` */
		memset(word, 0, sizeof(word));
		memcpy(word, at, n);
		for (unsigned i = 0; i < LANES; i++)
			lane[i] = step(lane[i], word[i]);
	}
	for (unsigned i = 0; i < LANES; i++)
		all = step(all, lane[i]);
	return step(all, 0);
}
