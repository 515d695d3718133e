/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * pagerank - the step on either side, and the comparison (pagerank.h).
 */
#include <string.h>

#include "pagerank.h"

#define DAMPING 0.85
#define FNV_START UINT64_C(14695981039346656037)
#define FNV_PRIME UINT64_C(1099511628211)

__attribute__((noinline)) double pagerank_blend(double sum, uint32_t count)
{
	return (1.0 - DAMPING) / count + DAMPING * sum;
}

void pagerank_step(const struct graph *graph, const double *rank, double *next)
{
	for (uint32_t i = 0; i < graph->count; i++) {
		double sum = 0.0;

		for (const struct edge *edge = graph->nodes[i]->in; edge;
		     edge = edge->next_in)
			sum += rank[edge->from->index] / edge->from->out_degree;
		next[i] = pagerank_blend(sum, graph->count);
	}
}

void pagerank_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	const struct pagerank_job *job = arg;
	struct node *const *nodes = gpu_load_ptr(sm, &job->nodes);
	const double *rank = gpu_load_ptr(sm, &job->rank);
	double *next = gpu_load_ptr(sm, &job->next);
	const struct node *node = gpu_load_ptr(sm, &nodes[index]);
	const struct edge *edge = gpu_load_ptr(sm, &node->in);
	double sum = 0.0;

	while (edge) {
		const struct node *from = gpu_load_ptr(sm, &edge->from);
		uint32_t source = gpu_load_u32(sm, &from->index);

		sum += gpu_load_f64(sm, &rank[source]) /
		       gpu_load_u32(sm, &from->out_degree);
		edge = gpu_load_ptr(sm, &edge->next_in);
	}
	gpu_store_f64(sm, &next[index], pagerank_blend(sum, gpu_load_u32(sm, &job->count)));
}

static uint64_t hash_bytes(uint64_t hash, const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (unsigned char)bytes[i]) * FNV_PRIME;
	return hash;
}

void pagerank_names_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	const struct pagerank_job *job = arg;
	struct node *const *nodes = gpu_load_ptr(sm, &job->nodes);
	const struct node *node = gpu_load_ptr(sm, &nodes[index]);
	const char *name = gpu_load_ptr(sm, &node->name);
	size_t left = gpu_load_u64(sm, &node->name_len);
	uint64_t *hashes = gpu_load_ptr(sm, &job->hash);
	uint64_t hash = FNV_START;

	while (left) {
		char piece[64];
		size_t len = left < sizeof(piece) ? left : sizeof(piece);

		gpu_load(sm, piece, name, len);
		hash = hash_bytes(hash, piece, len);
		name += len;
		left -= len;
	}
	gpu_store_u64(sm, &hashes[index], hash);
}

uint64_t pagerank_name_hash(const struct node *node)
{
	return hash_bytes(FNV_START, node->name, node->name_len);
}

uint32_t pagerank_differ(const double *one, const double *other, uint32_t count,
			 uint32_t *first)
{
	uint32_t differ = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (memcmp(&one[i], &other[i], sizeof(*one)) && !differ++)
			*first = i;
	}
	return differ;
}
