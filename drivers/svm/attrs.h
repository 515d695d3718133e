/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * attrs - attributes of ranges: an ordered tree of intervals, and kfd's algebra.
 *
 * Words: "end" is exclusive. A page that no node covers has the tree's defaults.
 *
 * Laws: nodes do not overlap; none is empty; none has the defaults; two that touch differ.
 * So what a page has says what the tree looks like, and a naive array of pages is its model
 * (tests/unit/test_svm_attrs.c). No call locks: the owner does. A call that fails has changed
 * nothing. svm_tree_clear() never fails: what it needs at most, one node, is put by when nodes
 * are made.
 */
#ifndef SVM_ATTRS_H
#define SVM_ATTRS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uhmm/svm.h>

struct svm_attrs {
	uint32_t preferred, prefetched; /* locations */
	uint32_t access, in_place;	/* a bit for each GPU; never both */
	uint32_t flags, granularity;
	uint32_t atomic; /* enum svm_atomic */
	bool mapped; /* no attribute: it must be mapped, and has been since (evict.c) */
};

struct svm_node {
	struct svm_node *left, *right;
	uint32_t heap; /* a parent has no less than its children */
	uintptr_t start, end;
	struct svm_attrs attrs;
};

struct svm_tree {
	struct svm_node *root;
	struct svm_node *free; /* linked by left */
	struct svm_slab *slabs;
	size_t nodes, free_nodes;
	uint64_t random, splits, merges;
	struct svm_attrs defaults;
	unsigned gpus;
};

/* What a list of attributes does to a page. */
struct svm_change {
	bool preferred_set, prefetched_set, granularity_set, reset;
	bool mapped_set, mapped, atomic_set;
	uint32_t preferred, prefetched, granularity, atomic;
	uint32_t access, in_place, none; /* GPUs that get it */
	uint32_t flags_set, flags_clear;
};

/* defaults: all GPUs have access, or none. */
void svm_tree_init(struct svm_tree *tree, unsigned gpus, bool access);
void svm_tree_destroy(struct svm_tree *tree);

bool svm_attrs_equal(const struct svm_attrs *a, const struct svm_attrs *b);

/* -EINVAL: an unknown type, flag, location or GPU; @change is as it was. */
int svm_change_add(struct svm_change *change, unsigned gpus, const struct svm_attr *attr);
void svm_change_apply(const struct svm_change *change, const struct svm_attrs *defaults,
		      struct svm_attrs *attrs);

/* 0; -ENOMEM. */
int svm_tree_set(struct svm_tree *tree, uintptr_t start, uintptr_t end,
		 const struct svm_change *change);
/* Back to the defaults. Return: nodes that were there, whole or in part. */
size_t svm_tree_clear(struct svm_tree *tree, uintptr_t start, uintptr_t end);

/* What a page has, and around it [*start, *end), which all has it; *start, *end: in: limits. */
struct svm_attrs svm_tree_at(const struct svm_tree *tree, uintptr_t addr, uintptr_t *start,
			     uintptr_t *end);

/* What all pages of a range have in common. */
struct svm_common {
	struct svm_attrs all; /* flags: AND; access, in_place: AND; granularity: least */
	uint32_t flags_any;
};
struct svm_common svm_tree_common(const struct svm_tree *tree, uintptr_t start,
				  uintptr_t end);
/* Answer one attribute of it. -EINVAL as svm_change_add(). */
int svm_common_get(const struct svm_common *common, unsigned gpus, struct svm_attr *attr);

/* The first node that ends above addr, or NULL. */
const struct svm_node *svm_tree_next(const struct svm_tree *tree, uintptr_t addr);

#endif
