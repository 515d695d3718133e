/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dirty_live - a driver that keeps copies of pages, and is checked against memory.
 *
 * It does what <uhmm/dirty.h> says, and believes W1: a page is copied if it has its bit set, or a
 * notifier was told of it. Then every copy must be what memory is.
 */
#ifndef LIVE_DIRTY_LIVE_H
#define LIVE_DIRTY_LIVE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <uhmm/dirty.h>

#include "live.h"

#define PAGE ((size_t)4096)
#define MOST 512u /* pages of a keeper: a huge page */

struct keeper {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	struct hmm_dirty *dirty;
	char *at;
	size_t n; /* pages */
	unsigned marked; /* pages that had no bit set, of all collects */
	_Atomic bool told[MOST];
	uint64_t bits[MOST / 64];
	char copy[MOST * PAGE];
};

/* Of mapped memory. Calls keeper_update() twice: everything is marked that can be. */
enum verdict keeper_make(struct keeper **k, char *at, size_t n);
void keeper_end(struct keeper *k);
/* Collect, and copy what may have changed. Memory may change meanwhile. */
enum verdict keeper_update(struct keeper *k);
/* With nobody else at work: each copy is what memory is, by W1. */
enum verdict keeper_check(struct keeper *k);

/* New memory at a place that is aligned to a huge page, filled. */
char *dirty_memory(size_t n, int advice);

/* ---- what is done to memory: dirty_ops.c ---- */
struct dirty_op {
	const char *name;
	/* Does it to page `page` of the keeper, or more; `value` was never there. */
	enum verdict (*run)(struct keeper *k, size_t page, unsigned value);
};
extern const struct dirty_op dirty_ops[];
extern const unsigned dirty_ops_count;
/* A process of its own that writes into ours when it is told to. */
enum verdict dirty_helper_start(void);
void dirty_helper_stop(void);

/* ---- while it is collected: dirty_races.c ---- */
#define RACE_ALL (1u << 0)	/* one write is of all pages */
#define RACE_TRACKERS (1u << 1) /* others collect too */
struct race;
struct dirty_race {
	const char *name;
	bool (*write)(struct race *r, char *at, unsigned value);
	unsigned flags;
};
extern const struct dirty_race dirty_races[];
extern const unsigned dirty_races_count;
enum verdict dirty_run_race(const struct dirty_race *how, char *at, size_t pages,
			    unsigned batches);

#endif
