/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * tree - the intervals of attrs.h: cut, walk, merge. A treap by start; a node's start never
 * changes, so it never moves in the order.
 *
 * Nodes lie in memory that never moves (hmm_alloc): GPUs' threads look them up while a page
 * may be away, and the fault handler of a GPU under no lock that a copy engine waits for.
 */
#include <errno.h>
#include <string.h>

#include "attrs.h"

#define SLAB ((size_t)64 << 10)
#define SLAB_NODES ((SLAB - sizeof(struct svm_slab)) / sizeof(struct svm_node))

struct svm_slab {
	struct svm_slab *next;
};

void svm_tree_init(struct svm_tree *tree, unsigned gpus, bool access)
{
	*tree = (struct svm_tree){
		.random = UINT64_C(0x9e3779b97f4a7c15),
		.gpus = gpus,
		.defaults = {
			.preferred = SVM_UNDEFINED,
			.prefetched = SVM_UNDEFINED,
			.access = access ? (UINT32_C(1) << gpus) - 1 : 0,
			.granularity = SVM_GRANULARITY,
		},
	};
}

void svm_tree_destroy(struct svm_tree *tree)
{
	struct svm_slab *slab;

	while ((slab = tree->slabs)) {
		tree->slabs = slab->next;
		hmm_free(slab, SLAB);
	}
	tree->root = tree->free = NULL;
	tree->nodes = tree->free_nodes = 0;
}

/* So many nodes are free afterwards, and one more for svm_tree_clear(). */
static int reserve(struct svm_tree *tree, size_t n)
{
	while (tree->free_nodes < n + 1) {
		struct svm_slab *slab = hmm_alloc(SLAB);
		struct svm_node *node;
		size_t i;

		if (!slab)
			return -ENOMEM;
		slab->next = tree->slabs;
		tree->slabs = slab;
		node = (struct svm_node *)(slab + 1);
		for (i = 0; i < SLAB_NODES; i++) {
			node[i].left = tree->free;
			tree->free = &node[i];
		}
		tree->free_nodes += SLAB_NODES;
	}
	return 0;
}

static struct svm_node *merge_heaps(struct svm_node *low, struct svm_node *high)
{
	if (!low || !high)
		return low ? low : high;
	if (low->heap >= high->heap) {
		low->right = merge_heaps(low->right, high);
		return low;
	}
	high->left = merge_heaps(low, high->left);
	return high;
}

/* Nodes that start below `at`, and the others. */
static void split_heap(struct svm_node *node, uintptr_t at, struct svm_node **low,
		       struct svm_node **high)
{
	if (!node) {
		*low = *high = NULL;
	} else if (node->start < at) {
		split_heap(node->right, at, &node->right, high);
		*low = node;
	} else {
		split_heap(node->left, at, low, &node->left);
		*high = node;
	}
}

/* Reserved before. */
static struct svm_node *insert(struct svm_tree *tree, uintptr_t start, uintptr_t end,
			       const struct svm_attrs *attrs)
{
	struct svm_node *node = tree->free, *low, *high;

	tree->free = node->left;
	tree->free_nodes--;
	tree->nodes++;
	tree->random ^= tree->random << 13;
	tree->random ^= tree->random >> 7;
	tree->random ^= tree->random << 17;
	*node = (struct svm_node){ .heap = (uint32_t)(tree->random >> 16),
				   .start = start,
				   .end = end,
				   .attrs = *attrs };
	split_heap(tree->root, start, &low, &high);
	tree->root = merge_heaps(merge_heaps(low, node), high);
	return node;
}

static void take_out(struct svm_tree *tree, struct svm_node *node)
{
	struct svm_node **at = &tree->root;

	while (*at != node)
		at = node->start < (*at)->start ? &(*at)->left : &(*at)->right;
	*at = merge_heaps(node->left, node->right);
	node->left = tree->free;
	tree->free = node;
	tree->free_nodes++;
	tree->nodes--;
}

/* The first that ends above addr. */
static struct svm_node *next_of(const struct svm_tree *tree, uintptr_t addr)
{
	struct svm_node *node = tree->root, *found = NULL;

	while (node) {
		if (node->end > addr) {
			found = node;
			node = node->left;
		} else {
			node = node->right;
		}
	}
	return found;
}

const struct svm_node *svm_tree_next(const struct svm_tree *tree, uintptr_t addr)
{
	return next_of(tree, addr);
}

struct svm_attrs svm_tree_at(const struct svm_tree *tree, uintptr_t addr, uintptr_t *start,
			     uintptr_t *end)
{
	const struct svm_node *node = next_of(tree, addr), *before;
	bool inside = node && node->start <= addr;
	uintptr_t from = inside ? node->start : 0, to;

	to = inside ? node->end : node ? node->start : UINTPTR_MAX;
	if (!inside && *start < addr) {
		/* Where the gap begins matters only above *start. */
		before = next_of(tree, *start);
		while (before && before->end <= addr) {
			from = before->end;
			before = next_of(tree, before->end);
		}
	}
	if (from > *start)
		*start = from;
	if (to < *end)
		*end = to;
	return inside ? node->attrs : tree->defaults;
}

/* No node lies across `at` afterwards. Reserved before. */
static void cut(struct svm_tree *tree, uintptr_t at)
{
	struct svm_node *node = next_of(tree, at);

	if (!node || node->start >= at)
		return;
	insert(tree, at, node->end, &node->attrs);
	node->end = at;
	tree->splits++;
}

/* Nodes that a set over [start, end) makes at most: two cuts and the gaps. */
static size_t needed(const struct svm_tree *tree, uintptr_t start, uintptr_t end)
{
	const struct svm_node *node;
	size_t n = 3;

	for (node = next_of(tree, start); node && node->start < end;
	     node = next_of(tree, node->end))
		n++;
	return n;
}

static void fill_gaps(struct svm_tree *tree, uintptr_t start, uintptr_t end)
{
	while (start < end) {
		struct svm_node *node = next_of(tree, start);

		if (node && node->start <= start) {
			start = node->end;
			continue;
		}
		node = insert(tree, start, node && node->start < end ? node->start : end,
			      &tree->defaults);
		start = node->end;
	}
}

/* The laws again, from the neighbour before start to the one behind end. */
static void tidy(struct svm_tree *tree, uintptr_t start, uintptr_t end)
{
	struct svm_node *node = next_of(tree, start ? start - 1 : 0), *next;

	while (node && node->start <= end) {
		uintptr_t to = node->end;

		if (svm_attrs_equal(&node->attrs, &tree->defaults)) {
			take_out(tree, node);
			node = next_of(tree, to);
			continue;
		}
		next = next_of(tree, to);
		if (next && next->start == to &&
		    svm_attrs_equal(&node->attrs, &next->attrs)) {
			node->end = next->end;
			take_out(tree, next);
			tree->merges++;
		} else {
			node = next;
		}
	}
}

int svm_tree_set(struct svm_tree *tree, uintptr_t start, uintptr_t end,
		 const struct svm_change *change)
{
	struct svm_node *node;
	int err = reserve(tree, needed(tree, start, end));

	if (err)
		return err;
	cut(tree, start);
	cut(tree, end);
	fill_gaps(tree, start, end);
	for (node = next_of(tree, start); node && node->start < end;
	     node = next_of(tree, node->end))
		svm_change_apply(change, &tree->defaults, &node->attrs);
	tidy(tree, start, end);
	return 0;
}

/*
 * A cut in the middle of a node takes the node that reserve() keeps for it. Once that is
 * gone and no memory is to be had, what lies above a hole in the middle of a node is
 * forgotten too: attributes are advice, and here nobody could be told of an error.
 */
size_t svm_tree_clear(struct svm_tree *tree, uintptr_t start, uintptr_t end)
{
	struct svm_node *node = next_of(tree, start), *next;
	size_t n = 0;

	if (node && node->start < start && node->end > end && reserve(tree, 0) &&
	    !tree->free_nodes) {
		node->end = start;
		return 1;
	}
	while (node && node->start < end) {
		next = next_of(tree, node->end);
		n++;
		if (node->start >= start && node->end <= end) {
			take_out(tree, node);
		} else if (node->start >= start) {
			const struct svm_node old = *node; /* its start is its key */

			take_out(tree, node);
			insert(tree, end, old.end, &old.attrs);
		} else {
			if (node->end > end) {
				insert(tree, end, node->end, &node->attrs);
				tree->splits++;
			}
			node->end = start;
		}
		node = next;
	}
	return n;
}
