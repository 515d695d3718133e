// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus - `uhmm litmus`: stale translations and lost bytes, counted; there must be none.
 *
 * The rounds are divided among the cases of eight tables (litmus_map.c, litmus_zap.c,
 * litmus_kind.c, litmus_migrate.c, litmus_grown.c, litmus_owner.c, litmus_pin.c,
 * litmus_secure.c). With --naive the same cases run on devices that are broken on purpose,
 * and there must be some: a test that cannot fail says nothing.
 *
 * With --against the changes are made under other people's registration caches instead, and
 * ours beside them: litmus_against.c. With --userptr OpenCL kernels read: litmus_userptr.c.
 *
 * Exit status: 1 if something was stale or lost, or nothing was with --naive, or a case
 * failed for another reason.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common.h"
#include "litmus.h"
#include "litmus_against.h"
#include "litmus_userptr.h"

#define CASES_MAX 40
#define DEFAULT_ROUNDS 20000
#define DEFAULT_LOAD 2
#define LITMUS_VRAM ((uint64_t)4 << 20)
#define DEFAULT_AGAINST 2000

struct result {
	const struct litmus_case *what;
	bool chosen, skipped, failed;
	uint64_t rounds, stale, lost;
	bool counts_lost;
	const char *also;
	uint64_t also_count;
	char reason[240];
};

struct options {
	uint64_t rounds;
	unsigned load;
	bool naive, json, some, svm, userptr;
	const char *against; /* families of peers, or NULL */
	struct result results[CASES_MAX];
	size_t count;
};

static struct result *find_case(struct options *options, const char *name)
{
	for (size_t i = 0; i < options->count; i++) {
		if (!strcmp(options->results[i].what->name, name))
			return &options->results[i];
	}
	return NULL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	struct result *result;

	switch (key) {
	case 'n':
		options->rounds = tool_number(state, arg, 1, 1000000000);
		return 0;
	case 'N':
		options->naive = true;
		return 0;
	case 'a':
		if (!litmus_against_known(arg))
			tool_usage(state, "--against wants 'ucx', 'libfabric' or both, not '%s'",
				   arg);
		options->against = arg;
		return 0;
	case 'S':
		options->svm = true;
		return 0;
	case 'U':
		options->userptr = true;
		return 0;
	case 'l':
		options->load = (unsigned)tool_number(state, arg, 0, 64);
		return 0;
	case 'c':
		result = find_case(options, arg);
		if (!result)
			tool_usage(state, "no case '%s'; see 'uhmm litmus --help'", arg);
		result->chosen = options->some = true;
		return 0;
	default:
		return tool_key(key, arg, state, &options->json);
	}
}

static void add_cases(struct options *options, const struct litmus_case *cases)
{
	for (; cases->name && options->count < CASES_MAX; cases++)
		options->results[options->count++].what = cases;
}

/* The cases of --help come from the tables. */
static char *help_filter(int key, const char *text, void *input)
{
	struct options *options = input;
	char *list = NULL;
	size_t size = 0;
	FILE *stream;

	if (key != ARGP_KEY_HELP_POST_DOC || !options)
		return (char *)text;
	stream = open_memstream(&list, &size);
	if (!stream)
		return (char *)text;
	fputs("Cases:", stream);
	for (size_t i = 0; i < options->count; i++)
		fprintf(stream, "\n  %-16s %s", options->results[i].what->name,
			options->results[i].what->what);
	fclose(stream);
	return list; /* argp frees it */
}

/*
 * Where the cases map and unmap: far below where the kernel places mappings that ask for no
 * address, so that nobody's mmap(NULL) takes a place between an unmap and the next map.
 */
static int find_place(struct litmus *l)
{
	static const uintptr_t candidates[] = { UINT64_C(0x200000000000),
						UINT64_C(0x2000000000) };

	for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
		char *at = (char *)candidates[i];
		char *got = mmap(at, 4 * LITMUS_PLACE, PROT_NONE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (got == MAP_FAILED)
			continue;
		munmap(got, 4 * LITMUS_PLACE);
		if (got != at)
			continue;
		l->page = at;
		l->other = at + 2 * LITMUS_PLACE;
		return 0;
	}
	return litmus_fail(l, -ENOMEM, "no free place in the address space");
}

static uint64_t gpu_stale(struct litmus *l)
{
	struct gpu_stats stats = { .size = sizeof(stats) };

	gpu_get_stats(l->gpu, &stats);
	return stats.stale;
}

static int one_round(struct litmus *l, const struct litmus_case *what, uint64_t i)
{
	uint64_t before;
	int err;

	l->wrong = l->missing = false;
	l->device = i & 1;
	l->use_gpu = what->gpu && (i & 1);
	before = l->use_gpu ? gpu_stale(l) : 0;
	err = what->round(l, i);
	if (err)
		return err;
	if (l->use_gpu && gpu_stale(l) != before)
		l->wrong = true;
	l->rounds++;
	l->stale += l->wrong;
	l->lost += l->missing;
	/* A naive device is late; it must not be late with the round before. */
	if (l->naive && !l->use_gpu)
		return litmus_dev_settle(l->dev);
	return 0;
}

static void run_case(struct litmus *l, struct result *result, uint64_t rounds)
{
	const struct litmus_case *what = result->what;
	int err;

	l->rounds = l->stale = l->lost = l->also_count = 0;
	l->counts_lost = false;
	l->also = NULL;
	l->priv = NULL;
	snprintf(l->reason, sizeof(l->reason), "error");
	err = what->setup ? what->setup(l) : 0;
	result->skipped = err == -EOPNOTSUPP;
	if (!err) {
		for (uint64_t i = 0; i < rounds && !err; i++) {
			tool_progress(
				"litmus: %s %llu/%llu, %llu stale, %llu lost", what->name,
				(unsigned long long)i, (unsigned long long)rounds,
				(unsigned long long)l->stale, (unsigned long long)l->lost);
			err = one_round(l, what, i);
		}
		if (what->end)
			what->end(l);
	}
	tool_progress_end();
	/* What a round that failed left at the places, the next case must not find. */
	munmap(l->page, LITMUS_PLACE);
	munmap(l->other, LITMUS_PLACE);
	result->failed = err && !result->skipped;
	result->rounds = l->rounds;
	result->stale = l->stale;
	result->lost = l->lost;
	result->counts_lost = l->counts_lost;
	result->also = l->also;
	result->also_count = l->also_count;
	if (err)
		memcpy(result->reason, l->reason, sizeof(result->reason));
}

#define SHARE 4u

static unsigned share(const struct result *result)
{
	return result->what->dear ? 1 : SHARE;
}

/* The rounds, divided among the cases that were chosen; what is dear gets fewer, the last the rest. */
static void run_cases(struct litmus *l, struct options *options)
{
	uint64_t shares = 0, rounds = options->rounds;

	for (size_t i = 0; i < options->count; i++) {
		options->results[i].chosen |= !options->some;
		shares += options->results[i].chosen ? share(&options->results[i]) : 0;
	}
	for (size_t i = 0; i < options->count; i++) {
		struct result *result = &options->results[i];
		uint64_t part;

		if (!result->chosen)
			continue;
		part = rounds * share(result) / shares;
		run_case(l, result, part);
		rounds -= part;
		shares -= share(result);
	}
}

/* The rounds, with the load beside them. */
static int run_loaded(struct litmus *l, struct options *options)
{
	struct litmus_load *load = NULL;
	int err = litmus_actor_start(&l->young), load_err;

	if (err)
		return litmus_fail(l, err, "no thread: %s", strerror(-err));
	err = litmus_load_start(l->dev, options->load, &load);
	if (err)
		litmus_fail(l, err, "no thread: %s", strerror(-err));
	else
		run_cases(l, options);
	load_err = litmus_load_stop(load);
	if (load_err && !err)
		err = litmus_fail(l, load_err, "load: %s", hmm_strerror(load_err));
	litmus_actor_stop(&l->young);
	return err;
}

static int open_gpu(struct litmus *l, const struct options *options)
{
	const struct svm_options two = {
		.size = sizeof(two),
		.gpus = 2,
		.sms = 1,
		.verify = true,
		.vram_bytes = LITMUS_VRAM,
		.timeslice_us = 1,
	};
	const struct gpu_options one = {
		.size = sizeof(one),
		.sms = 1,
		.verify = true,
		.naive = options->naive,
	};
	int err = options->svm ? svm_open(&two, &l->svm) : gpu_open(&one, &l->gpu);

	if (!err && options->svm)
		l->gpu = svm_gpu(l->svm, 0);
	return err ? err : gpu_queue_create(l->gpu, &l->queue);
}

static void close_gpu(struct litmus *l)
{
	if (l->queue)
		gpu_queue_destroy(l->queue);
	if (l->svm)
		svm_close(l->svm);
	else
		gpu_close(l->gpu);
}

/* Devices, threads, rounds, and all of it taken down again. */
static int run(struct litmus *l, struct options *options)
{
	int err = find_place(l);

	if (err)
		return err;
	/* Before any mirror, so that one thread is older than it. */
	err = litmus_actor_start(&l->elder);
	if (err)
		return litmus_fail(l, err, "no thread: %s", strerror(-err));
	err = litmus_dev_open(options->naive, &l->dev);
	if (err) {
		litmus_fail(l, err, "%s", hmm_strerror(err));
		goto stop_elder;
	}
	err = open_gpu(l, options);
	if (err)
		litmus_fail(l, err, "gpu: %s", hmm_strerror(err));
	else
		err = run_loaded(l, options);
	close_gpu(l);
	litmus_dev_close(l->dev);
stop_elder:
	litmus_actor_stop(&l->elder);
	return err;
}

static json_t *result_json(const struct result *result)
{
	json_t *object = json_pack("{s:I, s:I}", "rounds", (json_int_t)result->rounds,
				   "stale", (json_int_t)result->stale);

	if (result->counts_lost)
		json_object_set_new(object, "lost", json_integer((json_int_t)result->lost));
	if (result->also)
		json_object_set_new(object, result->also,
				    json_integer((json_int_t)result->also_count));
	if (result->skipped)
		json_object_set_new(object, "skipped", json_string(result->reason));
	if (result->failed)
		json_object_set_new(object, "failed", json_string(result->reason));
	return object;
}

static void print_result(const struct result *result)
{
	char lost[24] = "-";

	if (result->counts_lost)
		snprintf(lost, sizeof(lost), "%llu", (unsigned long long)result->lost);
	printf("%-16s %9llu %9llu %9s  ", result->what->name,
	       (unsigned long long)result->rounds, (unsigned long long)result->stale, lost);
	if (result->skipped || result->failed)
		printf("%s: %s\n", result->skipped ? "skipped" : "FAILED", result->reason);
	else if (result->also)
		printf("%s (%llu %s)\n", result->what->what,
		       (unsigned long long)result->also_count, result->also);
	else
		printf("%s\n", result->what->what);
}

/* What all cases of one family counted: those that migrate, or the others. */
struct total {
	bool ran;
	uint64_t rounds, stale, lost;
};

static void add_result(struct total *total, const struct result *result)
{
	total->ran = true;
	total->rounds += result->rounds;
	total->stale += result->stale;
	total->lost += result->lost;
}

/* Naive devices must be seen through in each family that ran. */
static bool wrong_total(const struct total *total, bool naive)
{
	bool some = total->stale || total->lost;

	return total->ran && some != naive;
}

/* Returns the exit status. */
static int report(const struct options *options)
{
	struct total others = { .ran = false }, away = { .ran = false };
	json_t *cases = json_object();
	uint64_t rounds, stale;
	bool failed = false;

	if (!options->json)
		printf("%-16s %9s %9s %9s  %s\n", "case", "rounds", "stale", "lost",
		       "what changes");
	for (size_t i = 0; i < options->count; i++) {
		const struct result *result = &options->results[i];

		if (!result->chosen)
			continue;
		failed |= result->failed;
		failed |= options->naive && result->what->each && result->rounds && !result->stale;
		if (result->rounds)
			add_result(result->counts_lost ? &away : &others, result);
		json_object_set_new(cases, result->what->name, result_json(result));
		if (!options->json)
			print_result(result);
	}
	failed |=
		wrong_total(&others, options->naive) || wrong_total(&away, options->naive);
	rounds = others.rounds + away.rounds;
	stale = others.stale + away.stale;
	failed |= options->naive && !rounds;
	if (!options->json) {
		printf("litmus: %s, %llu stale and %llu lost of %llu rounds%s\n",
		       failed ? "FAIL" : "PASS", (unsigned long long)stale,
		       (unsigned long long)away.lost, (unsigned long long)rounds,
		       options->naive ? " (naive: there must be some)" : "");
		json_decref(cases);
		return failed;
	}
	return tool_emit(json_pack("{s:I, s:o, s:I, s:I, s:b}", "rounds",
				   (json_int_t)rounds, "cases", cases, "stale",
				   (json_int_t)stale, "lost", (json_int_t)away.lost,
				   "naive", options->naive)) ||
	       failed;
}

int cmd_litmus(int argc, char **argv)
{
	static const struct argp_option table[] = {
		{ "rounds", 'n', "N", 0, "rounds in total, divided among the cases (20000)",
		  0 },
		{ "naive", 'N', NULL, 0,
		  "devices that are late, do not fence, move by copy and DONTNEED: must be "
		  "caught",
		  0 },
		{ "case", 'c', "NAME", 0, "only this case; may be repeated", 0 },
		{ "against", 'a', "PEERS", 0,
		  "instead: stale hits of the registration caches of ucx,libfabric, and with "
		  "ours; N rounds a cell (2000)",
		  0 },
		{ "svm", 'S', NULL, 0,
		  "the GPU's rounds are those of one of two that share virtual memory, with "
		  "memory of their own: what it reads moves there",
		  0 },
		{ "userptr", 'U', NULL, 0,
		  "instead: stale answers of OpenCL kernels, on devices that share memory and that "
		  "have copies; N rounds of all together (20000)",
		  0 },
		{ "load", 'l', "T", 0, "busy threads beside the test (2)", 0 },
		TOOL_OPTION_JSON,
		{ NULL, 0, NULL, 0, NULL, 0 },
	};
	static const struct argp argp = {
		.options = table,
		.parser = parse,
		.doc = "Change memory under devices; count answers from stale translations "
		       "and bytes that a migration lost or brought back.\v ",
		.help_filter = help_filter,
	};
	struct options options = { .load = DEFAULT_LOAD };
	struct litmus l = { .naive = false };
	int err;

	add_cases(&options, litmus_map_cases);
	add_cases(&options, litmus_zap_cases);
	add_cases(&options, litmus_kind_cases);
	add_cases(&options, litmus_migrate_cases);
	add_cases(&options, litmus_grown_cases);
	add_cases(&options, litmus_owner_cases);
	add_cases(&options, litmus_pin_cases);
	add_cases(&options, litmus_secure_cases);
	tool_parse(&argp, argc, argv, &options);
	if (!options.rounds)
		options.rounds = options.against ? DEFAULT_AGAINST : DEFAULT_ROUNDS;
	if (options.against)
		return litmus_against(options.against, options.rounds, options.json);
	if (options.userptr)
		return litmus_userptr(options.rounds, options.json);
	l.naive = options.naive;
	err = run(&l, &options);
	if (err) {
		fprintf(stderr, "uhmm litmus: %s\n", l.reason);
		return 1;
	}
	return report(&options);
}
