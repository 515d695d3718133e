/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * pagerank_graph - making, changing and freeing the graph (pagerank_graph.h).
 */
#include <stdlib.h>

#include "common.h"
#include "pagerank_graph.h"

void graph_init(struct graph *graph, uint32_t count)
{
	graph->nodes = tool_alloc(((size_t)count + 1) * sizeof(*graph->nodes));
	graph->count = count;
	graph->edges = 0;
	for (uint32_t i = 0; i < count; i++) {
		graph->nodes[i] = tool_alloc(sizeof(struct node));
		graph->nodes[i]->index = i;
	}
}

void graph_free(struct graph *graph)
{
	for (uint32_t i = 0; i < graph->count; i++)
		graph_drop_out(graph, graph->nodes[i]);
	for (uint32_t i = 0; i < graph->count; i++)
		free(graph->nodes[i]);
	free(graph->nodes);
	graph->nodes = NULL;
	graph->count = 0;
}

void graph_add_edge(struct graph *graph, struct node *from, struct node *to)
{
	struct edge *edge = tool_alloc(sizeof(*edge));

	edge->from = from;
	edge->to = to;
	edge->next_out = from->out;
	from->out = edge;
	from->out_degree++;
	edge->next_in = to->in;
	if (to->in)
		to->in->in_link = &edge->next_in;
	edge->in_link = &to->in;
	to->in = edge;
	graph->edges++;
}

void graph_drop_out(struct graph *graph, struct node *node)
{
	while (node->out) {
		struct edge *edge = node->out;

		node->out = edge->next_out;
		*edge->in_link = edge->next_in;
		if (edge->next_in)
			edge->next_in->in_link = edge->in_link;
		free(edge);
		graph->edges--;
	}
	node->out_degree = 0;
}

void graph_move_node(struct graph *graph, uint32_t index)
{
	struct node *old = graph->nodes[index];
	struct node *node = tool_alloc(sizeof(*node));

	*node = *old;
	for (struct edge *edge = node->out; edge; edge = edge->next_out)
		edge->from = node;
	for (struct edge *edge = node->in; edge; edge = edge->next_in)
		edge->to = node;
	if (node->in)
		node->in->in_link = &node->in;
	graph->nodes[index] = node;
	free(old);
}
