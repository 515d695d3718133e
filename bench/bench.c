// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench - command line, alternation, statistics, table (bench.h).
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"

#define BATCHES_MIN 5
#define BATCHES_MAX 4096
#define DEFAULT_SECONDS 1.0

static const struct family {
	const char *name;
	void (*run)(struct bench *bench);
	const char *what;
} families[] = {
	{ "fence", bench_fence, "hmm_fence() of one page" },
	{ "fence_storm", bench_fence_storm,
	  "the same while threads change mirrored memory" },
	{ "file_first_touch", bench_file_touch, "first reads of a mirrored file mapping" },
	{ "hit", bench_hit, "a translation found in a driver's page table" },
	{ "ucx_rcache_hit", bench_ucx, "a region found in UCX's registration cache" },
	{ "tlb_hit", bench_tlb_hit, "a translation found in an SM's TLB" },
	{ "gpu_load", bench_gpu_load, "a load of a GPU kernel that hits the TLB" },
	{ "snapshot", bench_snapshot, "hmm_range_snapshot() of populated memory" },
	{ "device_fault_512", bench_device_fault,
	  "a device fault of 512 unpopulated pages" },
	{ "munmap_mirrored", bench_munmap, "munmap of what a device has mapped" },
	{ "notifiers_100k", bench_notifiers, "an invalidation among 100,000 notifiers" },
	{ "vmas_60k", bench_vmas, "fence and lookup with 60,000 mirrored mappings" },
	{ "sparse_1tib", bench_sparse, "hmm_snapshot_runs() of 1 TiB with 10,000 pages" },
	{ "migrate_out_2m", bench_migrate_out, "2 MiB to a device's memory" },
	{ "migrate_back_2m", bench_migrate_back, "2 MiB home" },
	{ "cpu_fault_random", bench_cpu_fault_random,
	  "the CPU touches pages of the device at random" },
	{ "cpu_fault_seq", bench_cpu_fault_seq, "the same, one after the other" },
	{ "ping_pong", bench_ping_pong, "the CPU and the device touch one page in turn" },
	{ "exclusive", bench_exclusive, "atomics of both on one word, in turn" },
	{ "migrate_out_2m_gpu", bench_migrate_gpu,
	  "2 MiB to the software GPU's video memory" },
	{ "dma", bench_dma, "2 MiB mapped for DMA, and unmapped" },
	{ "edu", bench_edu, "2 MiB mapped in an IOMMU, and unmapped" },
	{ "odp", bench_odp, "memory of another process, over libfabric" },
	{ "userptr", bench_userptr, "an OpenCL kernel on memory of which 1 % was written to" },
	{ "fsdax", bench_fsdax, "a look at a file on a DAX filesystem" },
	{ "regcache", bench_regcache, "a registration that is found, or is not" },
	{ "uvmem", bench_uvmem, "2 MiB out of secure memory, sealed, and back" },
	{ "oversubscribe_4x", bench_oversubscribe,
	  "a GPU kernel over four times its video memory" },
	{ "svm", bench_svm,
	  "attributes on a GPU: faults, prefetch, too little memory" },
};

#define FAMILIES (sizeof(families) / sizeof(families[0]))

struct options {
	struct bench bench;
	bool json, some, chosen[FAMILIES];
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_percentile(double *samples, size_t count, double percent)
{
	size_t at = (size_t)((double)count * percent / 100);

	qsort(samples, count, sizeof(*samples), compare);
	return count ? samples[at < count ? at : count - 1] : 0;
}

char *bench_map(size_t length)
{
	char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	/* Huge pages come and go by the kernel's own counsel; rows must be alike. */
	madvise(memory, length, MADV_NOHUGEPAGE);
	return memory;
}

void bench_add(struct bench *bench, const struct bench_title *title, double value,
	       double against_value, const struct bench_spread *spread)
{
	json_t *row = json_pack("{s:s, s:f, s:s, s:s, s:f, s:f}", "name", title->name,
				"value", value, "unit", title->unit, "against",
				title->against, "against_value", against_value, "ratio",
				against_value > 0 ? value / against_value : 0.0);

	if (title->target)
		json_object_set_new(row, "target", json_string(title->target));
	if (spread) {
		json_object_set_new(row, "p50", json_real(spread->p50));
		json_object_set_new(row, "p99", json_real(spread->p99));
		json_object_set_new(row, "max", json_real(spread->max));
	}
	json_array_append_new(bench->rows, row);
}

void bench_skip(struct bench *bench, const char *name, const char *format, ...)
{
	char reason[200];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	json_array_append_new(bench->rows,
			      json_pack("{s:s, s:s}", "name", name, "skipped", reason));
}

/* Who goes first changes each time, so that neither always finds the other's cache. */
static int one_turn(bench_batch ours, bench_batch theirs, void *arg, size_t turn,
		    double *our, double *their)
{
	int err = turn & 1 ? theirs(arg, their) : ours(arg, our);

	if (err)
		return err;
	return turn & 1 ? ours(arg, our) : theirs(arg, their);
}

void bench_pair(struct bench *bench, const struct bench_title *title, bench_batch ours,
		bench_batch theirs, void *arg)
{
	static double our[BATCHES_MAX], their[BATCHES_MAX];
	uint64_t end = tool_now() + (uint64_t)(bench->seconds * 1e9);
	size_t turns = 0;

	while (turns < BATCHES_MIN || (turns < BATCHES_MAX && tool_now() < end)) {
		int err = one_turn(ours, theirs, arg, turns, &our[turns], &their[turns]);

		if (err) {
			bench_skip(bench, title->name, "%s", hmm_strerror(err));
			bench->failed = true;
			return;
		}
		turns++;
		tool_progress("bench: %s, batch %zu", title->name, turns);
	}
	bench_add(bench, title, bench_percentile(our, turns, 50),
		  bench_percentile(their, turns, 50), NULL);
}

static const char *text_of(const json_t *row, const char *key)
{
	const char *text = json_string_value(json_object_get(row, key));

	return text ? text : "";
}

static double number_of(const json_t *row, const char *key)
{
	return json_number_value(json_object_get(row, key));
}

static void print_row(const json_t *row)
{
	if (json_object_get(row, "skipped")) {
		printf("%-30s not measured: %s\n", text_of(row, "name"),
		       text_of(row, "skipped"));
		return;
	}
	printf("%-30s %11.1f %11.1f %8.2fx  %-9s %-28s %s\n", text_of(row, "name"),
	       number_of(row, "value"), number_of(row, "against_value"),
	       number_of(row, "ratio"), text_of(row, "unit"), text_of(row, "target"),
	       text_of(row, "against"));
	if (json_object_get(row, "p99"))
		printf("%-30s p50 %.0f, p99 %.0f, max %.0f %s\n", "", number_of(row, "p50"),
		       number_of(row, "p99"), number_of(row, "max"), text_of(row, "unit"));
}

static void print_table(const json_t *rows)
{
	const json_t *row;
	size_t i;

	printf("%-30s %11s %11s %9s  %-9s %-28s %s\n", "name", "value", "against", "ratio",
	       "unit", "target", "against what");
	json_array_foreach(rows, i, row) print_row(row);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 's':
		options->bench.seconds = tool_seconds(state, arg);
		return 0;
	case ARGP_KEY_ARG:
		for (size_t i = 0; i < FAMILIES; i++) {
			if (strcmp(arg, families[i].name))
				continue;
			options->chosen[i] = options->some = true;
			return 0;
		}
		tool_usage(state, "no benchmark '%s'; see 'uhmm bench --help'", arg);
	default:
		return tool_key(key, arg, state, &options->json);
	}
}

static char *help_filter(int key, const char *text, void *input)
{
	char *list = NULL;
	size_t size = 0;
	FILE *stream;

	if (key != ARGP_KEY_HELP_POST_DOC)
		return (char *)text;
	stream = open_memstream(&list, &size);
	if (!stream)
		return (char *)text;
	fputs("Names:", stream);
	for (size_t i = 0; i < FAMILIES; i++)
		fprintf(stream, "\n  %-18s%s", families[i].name, families[i].what);
	fclose(stream);
	return list; /* argp frees it */
}

int cmd_bench(int argc, char **argv)
{
	static const struct argp_option table[] = {
		{ "seconds", 's', "S", 0, "time for each row (1)", 0 },
		TOOL_OPTION_JSON,
		{ NULL, 0, NULL, 0, NULL, 0 },
	};
	static const struct argp argp = {
		.options = table,
		.parser = parse,
		.args_doc = "[NAME...]",
		.doc = "What it costs, against the plain way, both in one run. Targets are "
		       "shown, not asserted.\v ",
		.help_filter = help_filter,
	};
	struct options options = { .bench = { .seconds = DEFAULT_SECONDS } };
	struct bench *bench = &options.bench;

	tool_parse(&argp, argc, argv, &options);
	bench->rows = json_array();
	for (size_t i = 0; i < FAMILIES; i++) {
		if (options.some && !options.chosen[i])
			continue;
		bench->name = families[i].name;
		tool_progress("bench: %s", bench->name);
		families[i].run(bench);
	}
	tool_progress_end();
	if (options.json)
		return tool_emit(bench->rows) || bench->failed;
	print_table(bench->rows);
	json_decref(bench->rows);
	return bench->failed;
}
