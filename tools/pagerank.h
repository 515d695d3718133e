/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * pagerank - one step of PageRank, by the CPU and by the GPU, equal bit for bit.
 *
 * Model: rank flows from a package to what it needs. A step pulls: the new rank of a
 * node is made from the old ranks of those that enter it, in the order of its list, so
 * each node is one index of a launch and no two indices write the same place.
 * Laws: both sides do the same floating point operations in the same order; the one
 * expression that a compiler may contract to a fused multiply-add, pagerank_blend(), is
 * one function that both call. The rest is a division and an addition, which cannot be
 * contracted. What flows into a node without a way out leaves the sum: by linearity this
 * scales every rank and changes no order.
 */
#ifndef UHMM_TOOLS_PAGERANK_H
#define UHMM_TOOLS_PAGERANK_H

#include <uhmm/gpu.h>

#include "pagerank_graph.h"

/* What a launch works on; lies in the program's memory, and the GPU reads it there. */
struct pagerank_job {
	struct node *const *nodes;
	const double *rank; /* by index, the step before */
	double *next;	    /* by index, this step */
	uint64_t *hash;	    /* by index, for pagerank_names_kernel() */
	uint32_t count;
};

double pagerank_blend(double sum, uint32_t count);

/* The CPU's step over all nodes. */
void pagerank_step(const struct graph *graph, const double *rank, double *next);

/* The GPU's step for one node: every load and store goes through its page table. */
void pagerank_kernel(struct gpu_sm *sm, void *arg, uint64_t index);

/* hash[index] of each name, read in the mapped file by the GPU. */
void pagerank_names_kernel(struct gpu_sm *sm, void *arg, uint64_t index);
uint64_t pagerank_name_hash(const struct node *node);

/* How many of count numbers differ in any bit; *first is the first that does. */
uint32_t pagerank_differ(const double *one, const double *other, uint32_t count,
			 uint32_t *first);

#endif
