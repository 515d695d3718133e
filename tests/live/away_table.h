/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away_table - a cell: pages that are away in some way, and what a program does to them.
 *
 * An operation is done to a zone of CELL_PAGES and to its model. What follows is the same
 * for all: frames in use are what is away, contents and permissions are the model's, all
 * of it can go away and come home once more.
 */
#ifndef LIVE_AWAY_TABLE_H
#define LIVE_AWAY_TABLE_H

#include "away.h"

#define CELL_PAGES 48u

struct cell {
	struct away *dev[2]; /* copied frames; host frames */
	struct zone zone;
	const struct away_state *state;
	size_t away;		/* pages that are */
	struct zone other;	/* where an operation moved pages to: they count as well */
	int helper[2], back[2]; /* pipes to and from a process made before the mirror */
	pid_t pid;
	volatile int *outlived; /* shared: 0 not yet, 1 all is right, 2 + page: is not */
};

struct away_state {
	const char *name;
	/* Pages of a zone go away; how many. */
	enum verdict (*place)(struct cell *cell, struct zone *zone, size_t *away);
};

struct away_op {
	const char *name;
	enum verdict (*run)(struct cell *cell);
	bool helper; /* needs the helper process */
	/* It ends the process, which shall be seen with this wait status (plus 1, so that 0
	 * is "does not end"); what a process that outlives it found is in *cell->outlived.
	 */
	int ends;
	bool outlived;
};

/* away_ops.c: by threads and by system calls; away_ops_map.c: changes of mappings;
 * away_ops_fork.c: children, and ends. */
extern const struct away_op away_ops_use[], away_ops_map[], away_ops_fork[];
extern const unsigned away_ops_use_count, away_ops_map_count, away_ops_fork_count;

/* In the middle of the zone: not at its borders, and both kinds of page of each state. */
#define FIRST (CELL_PAGES / 4)
#define PAST (CELL_PAGES / 2)

static inline char *page_at(const struct cell *cell, size_t p)
{
	return cell->zone.at + p * PAGE;
}

/* Pages that are in one of the devices; -1: error. */
long cell_away(struct cell *cell, const void *at, size_t length);
/* Both devices' frames in use are what a look says is away, within a second. */
enum verdict cell_exact(struct cell *cell, const char *when);
/* The state once more, for another zone (mremap onto pages that are away). */
enum verdict cell_place(struct cell *cell, struct zone *zone, size_t *away);
/* All pages of the zone that a CPU may touch. */
enum verdict cell_home(struct cell *cell, const char *when);

#endif
