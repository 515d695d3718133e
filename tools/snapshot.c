/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * snapshot - `uhmm snapshot PID|self`: what is mapped and present, run by run.
 *
 * hmm_snapshot_runs() on the own mirror or an attached process: the device's view of
 * it, without a device. It is a look, and may be stale when it is printed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uhmm/hmm.h>

#include "common.h"

#define KINDS (HMM_VMA_SPECIAL + 1)

struct options {
	pid_t pid; /* 0: none was given */
	uintptr_t start, end;
	bool populated, json;
};

/* Pages by kind of mapping. Each is in one of the first three columns, and maybe in others.
 */
struct totals {
	uint64_t runs;
	struct total {
		uint64_t present, swapped, absent, zero, huge, dax;
	} kind[KINDS], all;
};

struct printer {
	const struct options *options;
	uint64_t page_size;
	struct totals totals;
	json_t *runs; /* with -j */
};

static const struct argp_option argp_options[] = {
	{ "range", 'r', "START-END", 0,
	  "only these addresses (hexadecimal, rounded to pages)", 0 },
	{ "populated", 'p', NULL, 0, "only what is present or in swap", 0 },
	TOOL_OPTION_JSON,
	{ 0 },
};

static void parse_range(struct argp_state *state, struct options *options, const char *arg)
{
	uintptr_t mask = (uintptr_t)sysconf(_SC_PAGESIZE) - 1;
	unsigned long long start, end;
	char *rest;

	errno = 0;
	start = strtoull(arg, &rest, 16);
	if (errno || rest == arg || *rest != '-')
		tool_usage(state, "'%s' is no range START-END", arg);
	arg = rest + 1;
	end = strtoull(arg, &rest, 16);
	if (errno || rest == arg || *rest || end <= start || end > UINTPTR_MAX - mask)
		tool_usage(state,
			   "the end of the range, '%s', is no address above its start",
			   arg);
	options->start = start & ~mask;
	options->end = (end + mask) & ~mask;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 'r':
		parse_range(state, options, arg);
		return 0;
	case 'p':
		options->populated = true;
		return 0;
	case ARGP_KEY_ARG:
		if (options->pid)
			tool_usage(state, "one process at a time, not '%s' too", arg);
		options->pid = strcmp(arg, "self")
				       ? (pid_t)tool_number(state, arg, 1, INT32_MAX)
				       : getpid();
		return 0;
	case ARGP_KEY_NO_ARGS:
		tool_usage(state, "which process? give its PID, or 'self'");
	default:
		return tool_key(key, arg, state, &options->json);
	}
}

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.args_doc = "PID|self",
	.doc = "Show what a process has mapped and which of it is present, in runs of "
	       "pages that "
	       "look the same, and the totals by kind.",
};

static const char *state_text(const struct hmm_run *run)
{
	if (run->flags & HMM_RUN_VALID)
		return "present";
	return run->flags & HMM_RUN_SWAPPED ? "swapped" : "absent";
}

static void permissions(const struct hmm_run *run, char text[5])
{
	text[0] = run->flags & HMM_RUN_READ ? 'r' : '-';
	text[1] = run->flags & HMM_RUN_WRITE ? 'w' : '-';
	text[2] = run->flags & HMM_RUN_EXEC ? 'x' : '-';
	text[3] = run->flags & HMM_RUN_SHARED ? 's' : 'p';
	text[4] = '\0';
}

static void count(struct total *total, const struct hmm_run *run, uint64_t pages)
{
	if (run->flags & HMM_RUN_VALID)
		total->present += pages;
	else if (run->flags & HMM_RUN_SWAPPED)
		total->swapped += pages;
	else
		total->absent += pages;
	total->zero += run->flags & HMM_RUN_ZERO ? pages : 0;
	total->huge += run->flags & HMM_RUN_HUGE ? pages : 0;
	total->dax += run->flags & HMM_RUN_DAX ? pages : 0;
}

static void print_run(const struct hmm_run *run, uint64_t pages)
{
	char perms[5], order[16] = "";

	permissions(run, perms);
	if (run->flags & HMM_RUN_HUGE)
		snprintf(order, sizeof(order), " huge:%u", run->order);
	printf("%012" PRIxPTR "-%012" PRIxPTR " %-8s %s %-7s %8" PRIu64 "%s%s%s %s\n",
	       run->start, run->end, hmm_vma_kind_text(run->kind), perms, state_text(run),
	       pages, run->flags & HMM_RUN_ZERO ? " zero" : "", order,
	       run->flags & HMM_RUN_DAX ? " dax" : "", run->name);
}

static json_t *run_json(const struct hmm_run *run, uint64_t pages)
{
	char perms[5], start[20], end[20];
	json_t *row;

	permissions(run, perms);
	snprintf(start, sizeof(start), "%" PRIxPTR, run->start);
	snprintf(end, sizeof(end), "%" PRIxPTR, run->end);
	row = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:i, s:b, s:b}", "start",
			start, "end", end, "kind", hmm_vma_kind_text(run->kind),
			"permissions", perms, "state", state_text(run), "pages",
			(json_int_t)pages, "shared", !!(run->flags & HMM_RUN_SHARED),
			"zero", !!(run->flags & HMM_RUN_ZERO), "order", (int)run->order,
			"dax", !!(run->flags & HMM_RUN_DAX), "file",
			!!(run->flags & HMM_RUN_FILE));
	/* A path may be no UTF-8; then it has no JSON form and is left out. */
	json_object_set_new(row, "name", json_string(run->name));
	return row;
}

static int take_run(const struct hmm_run *run, void *arg)
{
	struct printer *printer = arg;
	uint64_t pages = (run->end - run->start) / printer->page_size;

	printer->totals.runs++;
	if (run->kind < KINDS)
		count(&printer->totals.kind[run->kind], run, pages);
	count(&printer->totals.all, run, pages);
	if (printer->runs)
		json_array_append_new(printer->runs, run_json(run, pages));
	else
		print_run(run, pages);
	return 0;
}

static bool is_empty(const struct total *total)
{
	return !(total->present | total->swapped | total->absent);
}

static void print_total(const char *name, const struct total *total)
{
	printf("%-8s %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64 " %12" PRIu64
	       " %12" PRIu64 "\n",
	       name, total->present, total->swapped, total->absent, total->zero,
	       total->huge, total->dax);
}

static void print_totals(const struct totals *totals)
{
	printf("\npages of     present      swapped       absent         zero         huge"
	       "          dax\n");
	for (unsigned i = 0; i < KINDS; i++) {
		if (!is_empty(&totals->kind[i]))
			print_total(hmm_vma_kind_text(i), &totals->kind[i]);
	}
	print_total("all", &totals->all);
	printf("%" PRIu64 " runs\n", totals->runs);
}

static json_t *total_json(const struct total *total)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "present",
			 (json_int_t)total->present, "swapped", (json_int_t)total->swapped,
			 "absent", (json_int_t)total->absent, "zero",
			 (json_int_t)total->zero, "huge", (json_int_t)total->huge, "dax",
			 (json_int_t)total->dax);
}

static json_t *totals_json(const struct totals *totals)
{
	json_t *root = json_object();

	for (unsigned i = 0; i < KINDS; i++) {
		if (!is_empty(&totals->kind[i]))
			json_object_set_new(root, hmm_vma_kind_text(i),
					    total_json(&totals->kind[i]));
	}
	json_object_set_new(root, "all", total_json(&totals->all));
	return root;
}

int cmd_snapshot(int argc, char **argv)
{
	struct options options = { .end = UINTPTR_MAX };
	struct printer printer = { .options = &options,
				   .page_size = (uint64_t)sysconf(_SC_PAGESIZE) };
	struct hmm *hmm = NULL;
	int rc;

	tool_parse(&argp, argc, argv, &options);
	rc = options.pid == getpid() ? hmm_open(&hmm) : hmm_attach(options.pid, &hmm);
	if (!rc) {
		printer.runs = options.json ? json_array() : NULL;
		rc = hmm_snapshot_runs(hmm, options.start, options.end,
				       options.populated ? HMM_RUN_VALID : 0, take_run,
				       &printer);
	}
	if (rc) {
		fprintf(stderr, "uhmm snapshot: process %d: %s\n", (int)options.pid,
			hmm_strerror(rc));
		json_decref(printer.runs);
		hmm_put(hmm);
		return 1;
	}
	hmm_put(hmm);
	if (!options.json) {
		print_totals(&printer.totals);
		return 0;
	}
	return tool_emit(json_pack("{s:i, s:o, s:o}", "pid", (int)options.pid, "runs",
				   printer.runs, "pages", totals_json(&printer.totals)));
}
