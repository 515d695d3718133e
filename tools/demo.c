/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * demo - `uhmm demo`: a program's own pointers on the GPU while its memory changes.
 *
 * The dependency graph of this machine's packages, in plain malloc memory with names
 * pointing into mapped files, is ranked by the software GPU on those very pointers
 * (pagerank.h) while threads change the address space (churn.h). This file is
 * the command line and the report; demo_run.c does the work.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "demo.h"

#define DEFAULT_SECONDS 20
#define DEFAULT_LAUNCHES 20
#define DEFAULT_VRAM 16 /* MiB: less than the graph of a Debian system */

struct options {
	struct demo_options demo;
	enum deb_alternatives alternatives;
	bool json;
	char **names; /* of files */
	unsigned name_count;
	struct deb_files files;
};

static const struct argp_option argp_options[] = {
	{ "time", 't', "SECONDS", 0, "how long to go on (default 20; one epoch at least)",
	  0 },
	{ "launches", 'n', "N", 0, "steps of PageRank in an epoch (default 20)", 0 },
	{ "vram", 'v', "MIB", 0, "the GPU's own memory (default 16; 0: none)", 0 },
	{ "gpus", 'g', "N", 0,
	  "so many GPUs that share virtual memory (svm) take the steps in turn (default 1: "
	  "the gpu driver alone)",
	  0 },
	{ "seed", 's', "N", 0, "of the random numbers (default 1)", 0 },
	{ "first", 'f', NULL, 0, "of alternatives (a | b) count the first only, not all",
	  0 },
	TOOL_OPTION_JSON,
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 't':
		options->demo.seconds = tool_seconds(state, arg);
		return 0;
	case 'n':
		options->demo.launches = (unsigned)tool_number(state, arg, 1, 10000);
		return 0;
	case 'v':
		options->demo.vram = tool_number(state, arg, 0, 65536) << 20;
		return 0;
	case 'g':
		options->demo.gpus = (unsigned)tool_number(state, arg, 1, 8);
		return 0;
	case 's':
		options->demo.seed = tool_number(state, arg, 0, UINT32_MAX);
		return 0;
	case 'f':
		options->alternatives = DEB_ALTERNATIVES_FIRST;
		return 0;
	case ARGP_KEY_ARG:
		return ARGP_ERR_UNKNOWN; /* all together below */
	case ARGP_KEY_ARGS:
		options->names = state->argv + state->next;
		options->name_count = (unsigned)(state->argc - state->next);
		return 0;
	default:
		return tool_key(key, arg, state, &options->json);
	}
}

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.args_doc = "[FILE...]",
	.doc = "Rank the packages of a Debian system by what depends on them, on the GPU, "
	       "while "
	       "the memory that it reads changes; compare every rank with the CPU's.\v"
	       "FILE is in the format of dpkg's status file or of apt's lists. Without "
	       "any: "
	       "/var/lib/dpkg/status and apt's lists, or a small list that ships with this "
	       "tool. "
	       "Exit status 1 if anything differs, is stale or fails.",
};

static double hit_rate(const struct gpu_stats *stats)
{
	uint64_t all = stats->tlb_hits + stats->tlb_misses + stats->faults;

	return all ? 100.0 * (double)stats->tlb_hits / (double)all : 0;
}

static uint64_t stale(const struct demo_result *result)
{
	return result->stats.stale + atomic_load(&result->tally.stale);
}

/* The first thing that went wrong, in words. */
static const char *problem(const struct demo_result *result)
{
	if (result->failed[0])
		return result->failed;
	if (result->tally.first[0])
		return result->tally.first;
	if (result->names_differ)
		return "the GPU read other names than the CPU";
	if (result->stats.stale)
		return "the GPU used translations that were stale";
	return "a job on a bad pointer did not end in -EFAULT";
}

static void print_closing(FILE *out, const struct deb_graph *deb,
			  const struct demo_result *result, bool pass)
{
	if (pass)
		fprintf(out,
			"demo: PASS %" PRIu64
			" ranks of %u packages equal bit for bit, 0 stale, "
			"%.0f s\n",
			result->ranks_compared, deb->graph.count, result->elapsed);
	else
		fprintf(out, "demo: FAIL %s\n", problem(result));
}

static void print_vram(const struct demo_options *options, const struct demo_result *result)
{
	const struct gpu_stats *stats = &result->stats;

	if (result->no_vram[0])
		printf("VRAM       none: %s\n", result->no_vram);
	else if (options->vram)
		printf("VRAM       %" PRIu64 " MiB, %" PRIu64 " pages moved to it (%" PRIu64
		       " blocks because the SMs used them); home: by %" PRIu64
		       " faults of the CPU, %" PRIu64 " pages by calls, %" PRIu64
		       " evicted\n",
		       options->vram >> 20, stats->to_vram, stats->hot_blocks,
		       stats->cpu_faults, stats->from_vram, stats->evictions);
}

static void print_changes(const struct churn_tally *tally, unsigned from, unsigned to,
			  const char *title)
{
	printf("  %-9s", title);
	for (unsigned i = from; i < to; i++)
		printf("%s%s %" PRIu64, i == from ? " " : ", ", churn_kind_name(i),
		       atomic_load(&tally->changes[i]));
	putchar('\n');
}

/* An apt list's name begins with the mirror's, which is nobody's business here. */
static const char *list_name(const char *path)
{
	const char *dists = strstr(path, "_dists_");

	return dists ? dists + strlen("_dists_") : path;
}

static void print_report(const struct options *options, const struct deb_graph *deb,
			 const struct demo_result *result)
{
	const struct gpu_stats *stats = &result->stats;
	const struct churn_tally *tally = &result->tally;

	printf("graph      %u packages, %" PRIu64
	       " edges (alternatives: %s), %zu virtual names, "
	       "%" PRIu64 " needs that nobody meets, from\n",
	       deb->graph.count, deb->graph.edges,
	       options->alternatives == DEB_ALTERNATIVES_ALL ? "all count"
							     : "the first counts",
	       deb->virtuals, deb_graph_unresolved(deb));
	for (size_t i = 0; i < options->files.count; i++)
		printf("           %s\n", list_name(options->files.file[i].path));
	printf("work       %u epochs, %" PRIu64 " launches, %.1f s; %" PRIu64
	       " ranks and %" PRIu64 " names compared, %" PRIu64 " differ\n",
	       result->epochs, result->launches, result->elapsed, result->ranks_compared,
	       result->names_compared, result->ranks_differ + result->names_differ);
	printf("GPU        %" PRIu64 " faults, %" PRIu64 " replays, %" PRIu64
	       " invalidations (%" PRIu64 " shootdowns), TLB hit rate %.2f %%\n",
	       stats->faults, stats->replays, stats->invalidations, stats->shootdowns,
	       hit_rate(stats));
	print_vram(&options->demo, result);
	printf("changes\n");
	print_changes(tally, CHURN_MUNMAP, CHURN_BESIDE_KINDS, "beside");
	print_changes(tally, CHURN_BESIDE_KINDS, CHURN_FORK_UNDER, "between");
	print_changes(tally, CHURN_FORK_UNDER, CHURN_KINDS, "during");
	printf("other jobs %" PRIu64 ", of which %" PRIu64
	       " ended in an error as they should or might\n",
	       atomic_load(&tally->jobs), atomic_load(&tally->cancelled));
	printf("bad pointers followed on purpose: %" PRIu64 "; the last: %s\n",
	       result->bad_pointers, result->bad_pointer);
	printf("stale accesses: %" PRIu64 "\n", stale(result));
	if (result->top_count)
		printf("what most depends on:\n");
	for (unsigned i = 0; i < result->top_count; i++)
		printf("  %2u  %-24.*s %.6f\n", i + 1, (int)result->top[i].node->name_len,
		       result->top[i].node->name, result->top[i].rank);
}

static json_t *changes_json(const struct churn_tally *tally)
{
	json_t *changes = json_object();

	for (unsigned i = 0; i < CHURN_KINDS; i++)
		json_object_set_new(
			changes, churn_kind_name(i),
			json_integer((json_int_t)atomic_load(&tally->changes[i])));
	return changes;
}

static json_t *top_json(const struct demo_result *result)
{
	json_t *top = json_array();

	for (unsigned i = 0; i < result->top_count; i++)
		json_array_append_new(top, json_pack("{s:s%, s:f}", "package",
						     result->top[i].node->name,
						     result->top[i].node->name_len, "rank",
						     result->top[i].rank));
	return top;
}

#define I(value) ((json_int_t)(value))

static json_t *report_json(const struct options *options, const struct deb_graph *deb,
			   const struct demo_result *result, bool pass)
{
	const struct gpu_stats *stats = &result->stats;
	const struct churn_tally *tally = &result->tally;
	json_t *root =
		json_pack("{s:b, s:I, s:I, s:s, s:I, s:I, s:I, s:I, s:f, s:f}", "pass",
			  pass, "packages", I(deb->graph.count), "edges",
			  I(deb->graph.edges), "alternatives",
			  options->alternatives == DEB_ALTERNATIVES_ALL ? "all" : "first",
			  "virtual_names", I(deb->virtuals), "unresolved",
			  I(deb_graph_unresolved(deb)), "epochs", I(result->epochs),
			  "launches", I(result->launches), "seconds", result->elapsed,
			  "tlb_hit_rate", hit_rate(stats));
	json_t *gpu = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "device_faults",
				I(stats->faults), "replays", I(stats->replays),
				"invalidations", I(stats->invalidations), "shootdowns",
				I(stats->shootdowns), "stale", I(stale(result)), "jobs",
				I(stats->jobs), "cancelled", I(stats->cancelled));
	json_t *vram =
		json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "vram_pages",
			  I(stats->vram_frames), "to_vram", I(stats->to_vram), "from_vram",
			  I(stats->from_vram), "vram_cpu_faults", I(stats->cpu_faults),
			  "vram_evictions", I(stats->evictions), "vram_hot_blocks",
			  I(stats->hot_blocks), "no_vram", result->no_vram);
	json_t *checks = json_pack(
		"{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s}", "ranks_match",
		result->epochs && !result->ranks_differ, "ranks_compared",
		I(result->ranks_compared), "ranks_differ", I(result->ranks_differ),
		"names_compared", I(result->names_compared), "names_differ",
		I(result->names_differ), "other_jobs", I(atomic_load(&tally->jobs)),
		"other_jobs_cancelled", I(atomic_load(&tally->cancelled)), "wrong",
		I(atomic_load(&tally->wrong)), "bad_pointers", I(result->bad_pointers),
		"bad_pointer_text", result->bad_pointer);

	json_object_update_new(root, gpu);
	json_object_update_new(root, vram);
	json_object_update_new(root, checks);
	json_object_set_new(root, "changes", changes_json(tally));
	json_object_set_new(root, "top", top_json(result));
	if (!pass)
		json_object_set_new(root, "problem", json_string(problem(result)));
	return root;
}

/* 0, or negative errno and one line in why. */
static int open_files(struct options *options, char *why, size_t size)
{
	int rc = 0;

	if (!options->name_count)
		return deb_files_add_default(&options->files, why, size);
	for (unsigned i = 0; !rc && i < options->name_count; i++)
		rc = deb_files_add(&options->files, options->names[i], why, size);
	return rc;
}

int cmd_demo(int argc, char **argv)
{
	struct options options = {
		.demo = { .seconds = DEFAULT_SECONDS,
			  .seed = 1,
			  .launches = DEFAULT_LAUNCHES,
			  .vram = (uint64_t)DEFAULT_VRAM << 20 },
	};
	struct deb_graph deb;
	struct demo_result result;
	char why[400];
	int status = 0;
	bool pass;

	tool_parse(&argp, argc, argv, &options);
	if (open_files(&options, why, sizeof(why))) {
		fprintf(stderr, "demo: FAIL %s\n", why);
		return 1;
	}
	deb_graph_build(&deb, &options.files, options.alternatives);
	if (deb.graph.count) {
		pass = demo_run(&options.demo, &deb, &result);
		if (options.json)
			status = tool_emit(report_json(&options, &deb, &result, pass));
		else if (result.launches) /* else there is only why not */
			print_report(&options, &deb, &result);
		print_closing(options.json ? stderr : stdout, &deb, &result, pass);
		status |= !pass;
	} else {
		fprintf(stderr, "demo: FAIL there is no package in what was given\n");
		status = 1;
	}
	deb_graph_free(&deb);
	deb_files_close(&options.files);
	return status;
}
