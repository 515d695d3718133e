/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * pagerank_graph - a directed graph of malloc'd nodes and edges.
 *
 * Model: every node and every edge is one malloc of its own, as a program that knows
 * of no device would have it; an edge stands in two lists, out of the node it leaves
 * and into the node it enters. Names point into mapped files.
 * Laws: no edge twice, none from a node to itself. Nothing here locks: the demo
 * changes a graph between launches only.
 */
#ifndef UHMM_TOOLS_PAGERANK_GRAPH_H
#define UHMM_TOOLS_PAGERANK_GRAPH_H

#include <stddef.h>
#include <stdint.h>

struct edge;

struct node {
	const char *name; /* not terminated */
	size_t name_len;
	struct edge *in;  /* edges that enter: who depends on it */
	struct edge *out; /* edges that leave: what it depends on */
	uint32_t index;	  /* its place in graph.nodes and in arrays of ranks */
	uint32_t out_degree;
};

struct edge {
	struct node *from;
	struct edge *next_in;
	struct node *to;
	struct edge *next_out;
	struct edge *
		*in_link; /* who points here in the list `in`, to take it out at once */
};

struct graph {
	struct node **nodes;
	uint32_t count;
	uint64_t edges;
};

/* A graph of `count` nodes without edges and names. */
void graph_init(struct graph *graph, uint32_t count);
void graph_free(struct graph *graph);

/* The caller knows that the edge is not there yet. */
void graph_add_edge(struct graph *graph, struct node *from, struct node *to);

/* Free every edge that leaves the node. */
void graph_drop_out(struct graph *graph, struct node *node);

/* Have the node in other memory: malloc, copy, relink all that point to it, free. */
void graph_move_node(struct graph *graph, uint32_t index);

#endif
