/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * rangemap - the interval B-tree.
 *
 * Model: a B+ tree. Leaves (level 0) hold the entries; a slot above stands for a
 * child and has the same shape: the child's first key (start, id), and as its
 * end the largest end of all that lies below.
 *
 * Laws:
 * 1. Keys ascend strictly from left to right over all leaves.
 * 2. A slot above a leaf is exactly what node_summary() of its child says.
 * 3. Every node but the root has SLOTS_MIN to SLOTS slots; a root above the leaves
 *    has at least 2. An empty map has no root.
 * 4. Nodes that an insertion needs are taken before anything is changed.
 *
 * From 2 follows the search: the first slot whose end is above x leads to the first
 * entry, in order, that ends above x. If that one starts too late for the range
 * asked, so does every later one, and every earlier one ends too early. So one
 * descent answers rangemap_first(), and at most one failed and one successful
 * descent rangemap_next().
 *
 * Locks: the caller's.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "util/arena.h"
#include "util/rangemap.h"

/* With 31 slots of 32 bytes a node fills a block of 1 KiB. */
#define SLOTS 31
#define SLOTS_MIN 15
/* Law 3: 2 * 15^15 entries are more than any memory holds. */
#define LEVELS 16

struct slot {
	uintptr_t start;
	uint64_t id;
	uintptr_t end;
	union {
		uint64_t value;		     /* level 0 */
		struct rangemap_node *child; /* above */
	};
};

struct rangemap_node {
	uint32_t level, count;
	struct slot slots[SLOTS];
};
_Static_assert(sizeof(struct rangemap_node) <= 1024, "a node fills one arena block");

/* From the root to where a key is or belongs. at[0]: slots of the leaf up to the key. */
struct path {
	struct rangemap_node *node[LEVELS];
	unsigned at[LEVELS];
	unsigned top;
};

static bool key_le(const struct slot *slot, uintptr_t start, uint64_t id)
{
	return slot->start < start || (slot->start == start && slot->id <= id);
}

/* How many slots have a key <= (start, id). */
static unsigned node_search(const struct rangemap_node *node, uintptr_t start, uint64_t id)
{
	unsigned low = 0, high = node->count;

	while (low < high) {
		unsigned middle = (low + high) / 2;

		if (key_le(&node->slots[middle], start, id))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct slot node_summary(struct rangemap_node *node)
{
	struct slot slot = {
		node->slots[0].start, node->slots[0].id, 0, { .child = node }
	};
	unsigned i;

	for (i = 0; i < node->count; i++)
		if (node->slots[i].end > slot.end)
			slot.end = node->slots[i].end;
	return slot;
}

static void node_put(struct rangemap_node *node, unsigned at, const struct slot *slot)
{
	assert(node->count < SLOTS && at <= node->count);
	memmove(&node->slots[at + 1], &node->slots[at],
		(node->count - at) * sizeof(node->slots[0]));
	node->slots[at] = *slot;
	node->count++;
}

static void node_cut(struct rangemap_node *node, unsigned at)
{
	assert(at < node->count);
	node->count--;
	memmove(&node->slots[at], &node->slots[at + 1],
		(node->count - at) * sizeof(node->slots[0]));
}

/* Move slots between neighbours until the left one has `want`. */
static void node_level_out(struct rangemap_node *left, struct rangemap_node *right,
			   unsigned want)
{
	unsigned total = left->count + right->count, n;

	assert(want <= SLOTS && want <= total && total - want <= SLOTS);
	if (left->count > want) {
		n = left->count - want;
		memmove(&right->slots[n], right->slots, right->count * sizeof(struct slot));
		memcpy(right->slots, &left->slots[want], n * sizeof(struct slot));
	} else {
		n = want - left->count;
		memcpy(&left->slots[left->count], right->slots, n * sizeof(struct slot));
		memmove(right->slots, &right->slots[n],
			(right->count - n) * sizeof(struct slot));
	}
	left->count = want;
	right->count = total - want;
}

static void path_find(const struct rangemap *map, uintptr_t start, uint64_t id,
		      struct path *path)
{
	struct rangemap_node *node = map->root;

	path->top = node->level;
	for (;;) {
		unsigned at = node_search(node, start, id);

		path->node[node->level] = node;
		path->at[node->level] = at;
		if (!node->level)
			return;
		/* a key below all others belongs into the first child */
		if (at)
			path->at[node->level] = --at;
		node = node->slots[at].child;
	}
}

/* The leaf slot that has the very key, or NULL. */
static struct slot *path_slot(const struct path *path, uintptr_t start, uint64_t id)
{
	struct slot *slot;

	if (!path->at[0])
		return NULL;
	slot = &path->node[0]->slots[path->at[0] - 1];
	return slot->start == start && slot->id == id ? slot : NULL;
}

static void path_refresh(const struct path *path, unsigned level)
{
	path->node[level]->slots[path->at[level]] = node_summary(path->node[level - 1]);
}

static struct rangemap_node *node_new(const struct rangemap *map, uint32_t level)
{
	struct rangemap_node *node = arena_alloc(map->arena, sizeof(*node));

	if (node)
		node->level = level;
	return node;
}

static void node_free(const struct rangemap *map, struct rangemap_node *node)
{
	arena_free(map->arena, node, sizeof(*node));
}

void rangemap_init(struct rangemap *map, struct arena *arena)
{
	map->arena = arena;
	map->root = NULL;
	map->count = 0;
}

static void tree_free(const struct rangemap *map, struct rangemap_node *node)
{
	unsigned i;

	if (node->level)
		for (i = 0; i < node->count; i++)
			tree_free(map, node->slots[i].child);
	node_free(map, node);
}

void rangemap_destroy(struct rangemap *map)
{
	if (map->root)
		tree_free(map, map->root);
	rangemap_init(map, map->arena);
}

/*
 * Law 4: spare[level] for each node of the path that will split, these are the full ones
 * from the leaf upwards; and a root above if the root is one of them. false: no memory.
 */
static bool spares_take(const struct rangemap *map, const struct path *path,
			struct rangemap_node *spare[LEVELS + 1])
{
	unsigned level, n = 0;

	while (n <= path->top && path->node[n]->count == SLOTS)
		n++;
	if (n > path->top)
		n++;
	assert(n <= LEVELS);
	for (level = 0; level < n; level++) {
		spare[level] = node_new(map, level);
		if (spare[level])
			continue;
		while (level--)
			node_free(map, spare[level]);
		return false;
	}
	return true;
}

/* `slot` goes to place `at` of the full `node`, half of which moves to `right`. */
static void node_split(struct rangemap_node *node, struct rangemap_node *right, unsigned at,
		       const struct slot *slot)
{
	unsigned half = (SLOTS + 1) / 2;

	if (at < half) {
		node_level_out(node, right, half - 1);
		node_put(node, at, slot);
	} else {
		node_level_out(node, right, half);
		node_put(right, at - half, slot);
	}
}

/* Put a slot into the path's leaf; nodes that are full split, from the leaf upwards. */
static void path_put(struct rangemap *map, const struct path *path, struct slot slot,
		     struct rangemap_node *spare[LEVELS + 1])
{
	unsigned level = 0, at = path->at[0];
	struct rangemap_node *root;

	while (path->node[level]->count == SLOTS) {
		node_split(path->node[level], spare[level], at, &slot);
		slot = node_summary(spare[level]);
		if (level == path->top) {
			root = spare[level + 1];
			root->count = 2;
			root->slots[0] = node_summary(path->node[level]);
			root->slots[1] = slot;
			map->root = root;
			return;
		}
		level++;
		path_refresh(path, level);
		at = path->at[level] + 1;
	}
	node_put(path->node[level], at, &slot);
	while (level < path->top)
		path_refresh(path, ++level);
}

int rangemap_insert(struct rangemap *map, const struct range_entry *entry)
{
	struct slot slot = {
		entry->start, entry->id, entry->end, { .value = entry->value }
	};
	struct rangemap_node *spare[LEVELS + 1];
	struct path path;

	if (entry->start >= entry->end)
		return -EINVAL;
	if (!map->root) {
		map->root = node_new(map, 0);
		if (!map->root)
			return -ENOMEM;
	}
	path_find(map, entry->start, entry->id, &path);
	if (path_slot(&path, entry->start, entry->id))
		return -EEXIST;
	if (!spares_take(map, &path, spare))
		return -ENOMEM;
	path_put(map, &path, slot, spare);
	map->count++;
	return 0;
}

/* The child at `at` has one slot too few: even it out with a neighbour, or join them. */
static void child_mend(const struct rangemap *map, struct rangemap_node *parent,
		       unsigned at)
{
	unsigned first = at ? at - 1 : 0;
	struct rangemap_node *left = parent->slots[first].child;
	struct rangemap_node *right = parent->slots[first + 1].child;
	unsigned total = left->count + right->count;

	if (total <= SLOTS) {
		node_level_out(left, right, total);
		node_free(map, right);
		node_cut(parent, first + 1);
	} else {
		node_level_out(left, right, total / 2);
		parent->slots[first + 1] = node_summary(right);
	}
	parent->slots[first] = node_summary(left);
}

int rangemap_remove(struct rangemap *map, uintptr_t start, uint64_t id)
{
	struct rangemap_node *root;
	struct path path;
	unsigned level;

	if (!map->root)
		return -ENOENT;
	path_find(map, start, id, &path);
	if (!path_slot(&path, start, id))
		return -ENOENT;
	node_cut(path.node[0], path.at[0] - 1);
	for (level = 1; level <= path.top; level++) {
		if (path.node[level - 1]->count < SLOTS_MIN)
			child_mend(map, path.node[level], path.at[level]);
		else
			path_refresh(&path, level);
	}
	map->count--;
	root = map->root;
	if (root->level ? root->count == 1 : root->count == 0) {
		map->root = root->level ? root->slots[0].child : NULL;
		node_free(map, root);
	}
	return 0;
}

static void slot_out(const struct slot *slot, struct range_entry *out)
{
	*out = (struct range_entry){ slot->start, slot->end, slot->id, slot->value };
}

/* The first slot from `at` on that reaches above `start`; the node's count if none. */
static unsigned node_reach(const struct rangemap_node *node, unsigned at, uintptr_t start)
{
	while (at < node->count && node->slots[at].end <= start)
		at++;
	return at;
}

/* The answer below slot `at` of the node, which reaches above `start`. */
static bool descend(const struct rangemap_node *node, unsigned at, uintptr_t start,
		    uintptr_t end, struct range_entry *out)
{
	while (node->level) {
		node = node->slots[at].child;
		at = node_reach(node, 0, start);
		assert(at < node->count);
	}
	if (node->slots[at].start >= end)
		return false;
	slot_out(&node->slots[at], out);
	return true;
}

bool rangemap_first(const struct rangemap *map, uintptr_t start, uintptr_t end,
		    struct range_entry *out)
{
	unsigned at;

	if (!map->root || start >= end)
		return false;
	at = node_reach(map->root, 0, start);
	return at < map->root->count && descend(map->root, at, start, end, out);
}

bool rangemap_next(const struct rangemap *map, uintptr_t start, uintptr_t end,
		   const struct range_entry *prev, struct range_entry *out)
{
	struct path path;
	unsigned level, at;

	if (!map->root || start >= end)
		return false;
	path_find(map, prev->start, prev->id, &path);
	for (level = 0; level <= path.top; level++) {
		/* above the leaf the path's own child has been looked through */
		at = level ? path.at[level] + 1 : path.at[level];
		at = node_reach(path.node[level], at, start);
		if (at < path.node[level]->count)
			return descend(path.node[level], at, start, end, out);
	}
	return false;
}

bool rangemap_before(const struct rangemap *map, uintptr_t start, struct range_entry *out)
{
	struct path path;

	if (!map->root || !start)
		return false;
	path_find(map, start - 1, UINT64_MAX, &path);
	if (!path.at[0])
		return false;
	slot_out(&path.node[0]->slots[path.at[0] - 1], out);
	return true;
}

/* Change an entry's ends where its place among its neighbours stays. */
static void entry_trim(struct rangemap *map, const struct range_entry *entry,
		       uintptr_t start, uintptr_t end)
{
	struct path path;
	struct slot *slot;
	unsigned level;

	path_find(map, entry->start, entry->id, &path);
	slot = path_slot(&path, entry->start, entry->id);
	assert(slot && start < end);
	slot->start = start;
	slot->end = end;
	for (level = 1; level <= path.top; level++)
		path_refresh(&path, level);
}

int rangemap_erase(struct rangemap *map, uintptr_t start, uintptr_t end)
{
	struct range_entry entry, right;
	int err;

	while (rangemap_first(map, start, end, &entry)) {
		assert(!entry.id);
		if (entry.start < start && entry.end > end) {
			/* The only entry that overlaps, so nothing was changed yet. */
			right = entry;
			right.start = end;
			err = rangemap_insert(map, &right);
			if (err)
				return err;
		}
		if (entry.start < start)
			entry_trim(map, &entry, entry.start, start);
		else if (entry.end > end)
			entry_trim(map, &entry, end, entry.end);
		else
			rangemap_remove(map, entry.start, entry.id);
	}
	return 0;
}

/* What rangemap_check() has seen so far. */
struct walk {
	size_t count;
	const struct slot *last;
};

static bool tree_check(struct rangemap_node *node, uint32_t level, bool root,
		       struct walk *walk)
{
	unsigned least = root ? (level ? 2 : 1) : SLOTS_MIN, i;
	const struct slot *slot;
	struct slot summary;

	if (node->level != level || node->count < least || node->count > SLOTS)
		return false;
	for (i = 0; i < node->count; i++) {
		slot = &node->slots[i];
		if (level) {
			if (!tree_check(slot->child, level - 1, false, walk))
				return false;
			summary = node_summary(slot->child);
			if (summary.start != slot->start || summary.id != slot->id ||
			    summary.end != slot->end)
				return false;
			continue;
		}
		if (slot->start >= slot->end)
			return false;
		if (walk->last && key_le(slot, walk->last->start, walk->last->id))
			return false;
		walk->last = slot;
		walk->count++;
	}
	return true;
}

bool rangemap_check(const struct rangemap *map)
{
	struct walk walk = { 0, NULL };

	if (!map->root)
		return !map->count;
	return tree_check(map->root, map->root->level, true, &walk) &&
	       walk.count == map->count;
}
