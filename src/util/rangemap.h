/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * rangemap - intervals [start, end) in an augmented B-tree.
 *
 * Laws: entries are ordered by (start, id) and may overlap each other; id is
 * unique and given by the caller. Every operation costs O(log n) plus what it
 * returns. Nodes come from the arena given at init; nothing else allocates.
 * Locks: none of its own; the caller has one.
 */
#ifndef UHMM_UTIL_RANGEMAP_H
#define UHMM_UTIL_RANGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;
struct rangemap_node;

struct range_entry {
	uintptr_t start, end; /* start < end */
	uint64_t id;	      /* unique in the map */
	uint64_t value;	      /* the caller's */
};

struct rangemap {
	struct arena *arena;
	struct rangemap_node *root;
	size_t count;
};

void rangemap_init(struct rangemap *map, struct arena *arena);
/* Frees the nodes, not what the values mean. */
void rangemap_destroy(struct rangemap *map);

/* -EINVAL start >= end; -EEXIST the (start, id) is there; -ENOMEM, map unchanged. */
int rangemap_insert(struct rangemap *map, const struct range_entry *entry);

/* Take out the entry (start, id). -ENOENT. Never fails for memory. */
int rangemap_remove(struct rangemap *map, uintptr_t start, uint64_t id);

/* The first entry in order (start, id) that overlaps [start, end). false: none. */
bool rangemap_first(const struct rangemap *map, uintptr_t start, uintptr_t end,
		    struct range_entry *out);

/* The first entry after (prev->start, prev->id) in order that overlaps [start, end);
 * prev itself need not be in the map any more; out may be prev. false: none. */
bool rangemap_next(const struct rangemap *map, uintptr_t start, uintptr_t end,
		   const struct range_entry *prev, struct range_entry *out);

/* The last entry in order with entry.start < start. For neighbours. */
bool rangemap_before(const struct rangemap *map, uintptr_t start, struct range_entry *out);

/*
 * For maps whose entries do not overlap and whose ids are all 0: make [start, end) empty,
 * cutting entries that reach in; the parts outside keep their value. start >= end is
 * nothing. -ENOMEM (a split in the middle needs a node): then nothing was changed.
 */
int rangemap_erase(struct rangemap *map, uintptr_t start, uintptr_t end);

/* For the tests: order, balance and augmentation all hold. */
bool rangemap_check(const struct rangemap *map);

#endif
