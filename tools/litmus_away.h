/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * litmus_away - pages that go to a device and come back: what the migration cases share.
 *
 *	litmus_away.c	 two devices with memory, a thread that moves pages, judgement
 *	litmus_naive.c	 the same done wrong: copy, then DONTNEED
 *	litmus_migrate.c cases: the program drops, unmaps or moves what is away
 *	litmus_grown.c	 a case: something comes beside it
 *	litmus_owner.c	 cases: fork, mprotect, both sides write
 *
 * Words: *stale* is a byte that was given up and came back, *lost* one that was written and
 * is gone. Both must be 0, whoever looks: the CPU, the device, a child.
 */
#ifndef UHMM_TOOLS_LITMUS_AWAY_H
#define UHMM_TOOLS_LITMUS_AWAY_H

#include "litmus.h"

#define AWAY_PAGES ((unsigned)(LITMUS_PLACE / LITMUS_PAGE))

/*
 * The devices and the mover, for one case: litmus.page and litmus.other may be away at any
 * time from here to the end. -EOPNOTSUPP with a sentence: no device memory here.
 */
int away_setup(struct litmus *l);
void away_end(struct litmus *l);
/* A setup and an end that map litmus.page too, without huge pages. */
int away_map_setup(struct litmus *l);
void away_map_end(struct litmus *l);
int away_map(struct litmus *l, char *place);

/* Move a place to a device, or home; what cannot move stays and is no error. */
int away_out(struct litmus *l, char *place);
int away_home(struct litmus *l, char *place);
/* As the device of this round sees it; -errno is not put into words. */
int away_read(struct litmus *l, const char *addr, uint64_t *value);
int away_write(struct litmus *l, char *addr, uint64_t value);
/* An atomic increment by the device. */
int away_add(struct litmus *l, char *addr);

/* A word of each page. */
static inline uint64_t *away_word(char *place, unsigned page)
{
	return (uint64_t *)(place + page * LITMUS_PAGE);
}
static inline uint64_t away_load(char *place, unsigned page)
{
	return __atomic_load_n(away_word(place, page), __ATOMIC_SEQ_CST);
}
static inline void away_store(char *place, unsigned page, uint64_t value)
{
	__atomic_store_n(away_word(place, page), value, __ATOMIC_SEQ_CST);
}
/* The next generation into the first word of each page. */
uint64_t away_fill(struct litmus *l, char *place);
/* What somebody saw against what he must see: counts the round as stale, or as lost. */
void away_judge(struct litmus *l, uint64_t seen, uint64_t expected);
/* All pages by the CPU, and one by the device: of even ones `even`, of odd ones `odd`. */
int away_check(struct litmus *l, char *place, uint64_t i, uint64_t even, uint64_t odd);

/* ---- litmus_naive.c ---- */

struct naive;

int naive_open(struct litmus *l, struct naive **naive);
void naive_close(struct naive *naive);
void naive_out(struct naive *naive, char *place);
void naive_home(struct naive *naive, char *place);
int naive_read(struct naive *naive, const char *addr, uint64_t *value);
int naive_write(struct naive *naive, char *addr, uint64_t value);

#endif
