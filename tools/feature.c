/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * feature - `uhmm feature`: what this kernel offers, what a lack costs, and the cure.
 *
 * The list is the library's own (os_features), so it says what the library will do. The
 * last line is not derived from it: hmm_open() is called.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <uhmm/hmm.h>

#include "common.h"
#include "os/os.h"

static const struct argp_option argp_options[] = { TOOL_OPTION_JSON, { 0 } };

static error_t parse(int key, char *arg, struct argp_state *state)
{
	return tool_key(key, arg, state, state->input);
}

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.doc = "Show what this kernel and these privileges offer, and whether a mirror can "
	       "be "
	       "opened here.\vExit status 1 if it cannot.",
};

static const char *absence(int err)
{
	return err == -ECANCELED ? "turned off by UHMM_OS_WITHOUT" : strerror(-err);
}

static void print_table(const struct os_feature *features, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const struct os_feature *feature = &features[i];

		printf("%-20s %-4s %s\n", feature->name, feature->err ? "no" : "yes",
		       feature->gives);
		if (feature->err)
			printf("%-25s (%s) %s\n", "", absence(feature->err),
			       feature->costs);
	}
}

/* "with a, b, c" of those that are there, or "without" of those that are not. */
static void print_names(const struct os_feature *features, unsigned count, bool there,
			const char *title)
{
	const char *comma = title;

	for (unsigned i = 0; i < count; i++) {
		if (!features[i].err != there)
			continue;
		printf("%s%s", comma, features[i].name);
		comma = ", ";
	}
}

static json_t *table_json(const struct os_feature *features, unsigned count)
{
	json_t *table = json_array();

	for (unsigned i = 0; i < count; i++) {
		const struct os_feature *feature = &features[i];
		json_t *row = json_pack("{s:s, s:b, s:s, s:s}", "name", feature->name,
					"there", !feature->err, "gives", feature->gives,
					"costs", feature->costs);

		if (feature->err)
			json_object_set_new(row, "error",
					    json_string(absence(feature->err)));
		json_array_append_new(table, row);
	}
	return table;
}

int cmd_feature(int argc, char **argv)
{
	const struct os_feature *features;
	unsigned count;
	struct hmm *hmm = NULL;
	bool json = false;
	int rc, status = 0;

	tool_parse(&argp, argc, argv, &json);
	count = os_features(&features);
	rc = hmm_open(&hmm);
	if (json) {
		json_t *root = json_pack("{s:o, s:b}", "features",
					 table_json(features, count), "hmm_open", !rc);

		if (rc)
			json_object_set_new(root, "why_not", json_string(hmm_strerror(rc)));
		status = tool_emit(root);
	} else {
		print_table(features, count);
		if (rc) {
			printf("hmm_open: does not work here: %s", hmm_strerror(rc));
		} else {
			printf("hmm_open: works here");
			print_names(features, count, true, ", with ");
			print_names(features, count, false, "; without ");
		}
		putchar('\n');
	}
	hmm_put(hmm);
	return rc ? 1 : status;
}
