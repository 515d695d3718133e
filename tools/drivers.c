/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * drivers - `uhmm drivers`: the drivers, whether they can run here, their self-tests.
 *
 * Laws: a driver that this machine cannot run is skipped with its own reason, which is
 * no failure; one whose self-test fails makes the exit status 1.
 */
#include <stdio.h>
#include <string.h>

#include "common.h"
#include "drivers.h"

#define WHY 300

struct options {
	bool selftest, json;
	char **names; /* of drivers; none: all */
	unsigned name_count;
};

/* What came of one driver. */
struct outcome {
	int usable;   /* 0, or negative errno */
	int selftest; /* likewise; as usable when it was not run */
	double seconds;
	char why[WHY]; /* for the first that is not 0 */
};

static const struct argp_option argp_options[] = {
	{ "selftest", 's', NULL, 0, "run the self-tests", 0 },
	TOOL_OPTION_JSON,
	{ 0 },
};

static const struct uhmm_driver *find(const char *name)
{
	for (unsigned i = 0; drivers_table[i]; i++) {
		if (!strcmp(drivers_table[i]->name, name))
			return drivers_table[i];
	}
	return NULL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;

	switch (key) {
	case 's':
		options->selftest = true;
		return 0;
	case ARGP_KEY_ARG:
		if (!find(arg))
			tool_usage(state, "there is no driver '%s'", arg);
		/* Arguments come one after the other at the end of argv. */
		if (!options->names)
			options->names = state->argv + state->next - 1;
		options->name_count++;
		return 0;
	default:
		return tool_key(key, arg, state, &options->json);
	}
}

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.args_doc = "[NAME...]",
	.doc = "List the drivers, what each stands for and whether this machine can run "
	       "it; with "
	       "--selftest run their self-tests.\vExit status 1 if a self-test fails. A "
	       "driver "
	       "that cannot run here is skipped.",
};

static bool wanted(const struct options *options, const struct uhmm_driver *driver)
{
	for (unsigned i = 0; i < options->name_count; i++) {
		if (!strcmp(options->names[i], driver->name))
			return true;
	}
	return !options->name_count;
}

static void examine(const struct options *options, const struct uhmm_driver *driver,
		    struct outcome *outcome)
{
	uint64_t started;

	memset(outcome, 0, sizeof(*outcome));
	outcome->usable = driver->usable(outcome->why, sizeof(outcome->why));
	outcome->selftest = outcome->usable;
	if (outcome->usable || !options->selftest)
		return;
	tool_progress("self-test of %s", driver->name);
	started = tool_now();
	outcome->selftest = driver->selftest(outcome->why, sizeof(outcome->why));
	outcome->seconds = (double)(tool_now() - started) / 1e9;
	tool_progress_end();
}

static void print_driver(const struct options *options, const struct uhmm_driver *driver,
			 const struct outcome *outcome)
{
	printf("%-8s %s (stands for %s)\n", driver->name, driver->what, driver->stands_for);
	if (outcome->usable)
		printf("%-8s cannot run here: %s%s\n", "", outcome->why,
		       options->selftest ? " (skipped)" : "");
	else if (!options->selftest)
		printf("%-8s can run here\n", "");
	else if (outcome->selftest)
		printf("%-8s self-test FAILED after %.1f s: %s\n", "", outcome->seconds,
		       outcome->why);
	else
		printf("%-8s self-test passed in %.1f s\n", "", outcome->seconds);
}

static json_t *driver_json(const struct options *options, const struct uhmm_driver *driver,
			   const struct outcome *outcome)
{
	json_t *row = json_pack("{s:s, s:s, s:s, s:b}", "name", driver->name, "stands_for",
				driver->stands_for, "what", driver->what, "usable",
				!outcome->usable);

	if (outcome->usable || outcome->selftest)
		json_object_set_new(row, "why", json_string(outcome->why));
	if (options->selftest && !outcome->usable) {
		json_object_set_new(row, "passed", json_boolean(!outcome->selftest));
		json_object_set_new(row, "seconds", json_real(outcome->seconds));
	}
	return row;
}

int cmd_drivers(int argc, char **argv)
{
	struct options options = { .selftest = false };
	unsigned passed = 0, failed = 0, skipped = 0;
	json_t *rows;

	tool_parse(&argp, argc, argv, &options);
	rows = options.json ? json_array() : NULL;
	for (unsigned i = 0; drivers_table[i]; i++) {
		struct outcome outcome;

		if (!wanted(&options, drivers_table[i]))
			continue;
		examine(&options, drivers_table[i], &outcome);
		skipped += outcome.usable != 0;
		failed += !outcome.usable && outcome.selftest;
		passed += !outcome.selftest;
		if (rows)
			json_array_append_new(
				rows, driver_json(&options, drivers_table[i], &outcome));
		else
			print_driver(&options, drivers_table[i], &outcome);
	}
	if (rows && tool_emit(rows))
		return 1;
	if (!rows && options.selftest)
		printf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
	return failed ? 1 : 0;
}
