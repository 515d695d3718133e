/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * demo - what is asked of the demo and what came of it.
 */
#ifndef UHMM_TOOLS_DEMO_H
#define UHMM_TOOLS_DEMO_H

#include "churn.h"
#include "deb_graph.h"

#define DEMO_TOP 10

struct demo_options {
	double seconds; /* begin no epoch that would end much later */
	uint64_t seed;
	unsigned launches; /* in an epoch */
	uint64_t vram;	   /* bytes of the GPU's own memory; 0: none */
	unsigned gpus;	   /* more than one: of an svm, and they take the steps in turn */
};

struct demo_result {
	unsigned epochs;
	uint64_t launches;
	double elapsed; /* seconds */
	uint64_t ranks_compared;
	uint64_t ranks_differ;
	uint64_t names_compared;
	uint64_t names_differ;
	struct churn_tally tally;
	struct gpu_stats stats;
	char no_vram[240]; /* why it has none, though some was asked for; "" it has */
	struct demo_top {
		const struct node *node;
		double rank;
	} top[DEMO_TOP];
	unsigned top_count;
	char bad_pointer[160]; /* what the GPU said about the last bad pointer */
	uint64_t bad_pointers;
	char failed[240]; /* what the demo could not do at all; "" nothing */
};

/* Everything but printing. Return: whether all is as it should be. */
bool demo_run(const struct demo_options *options, struct deb_graph *deb,
	      struct demo_result *result);

#endif
