/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * main - `uhmm OBJECT [OPTION...]`: find the object and hand over.
 *
 * Each object parses its own command line, so this file knows no option but
 * --help and --version.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const struct object {
	const char *name, *title; /* title: argv[0] of the object, for its messages */
	int (*run)(int argc, char **argv);
	const char *what;
} objects[] = {
	{ "feature", "uhmm feature", cmd_feature,
	  "what this kernel offers, and whether it is enough" },
	{ "snapshot", "uhmm snapshot", cmd_snapshot,
	  "what a process has mapped and present" },
	{ "demo", "uhmm demo", cmd_demo,
	  "PageRank on the GPU while the memory changes under it" },
	{ "litmus", "uhmm litmus", cmd_litmus,
	  "count stale translations in races; must be 0" },
	{ "bench", "uhmm bench", cmd_bench, "what it costs, against the plain way" },
	{ "drivers", "uhmm drivers", cmd_drivers, "the drivers, and their self-tests" },
	{ "odp", "uhmm odp", cmd_odp, "the memory of another process, over the network" },
	{ "secure", "uhmm secure", cmd_secure, "a secret to a sealed file and back" },
};

#define OBJECTS (sizeof(objects) / sizeof(objects[0]))

struct choice {
	const struct object *object;
	int argc;
	char **argv;
};

static error_t parse_object(int key, char *arg, struct argp_state *state)
{
	struct choice *choice = state->input;
	bool json;

	switch (key) {
	case ARGP_KEY_ARG:
		for (size_t i = 0; i < OBJECTS; i++) {
			if (!strcmp(arg, objects[i].name))
				choice->object = &objects[i];
		}
		if (!choice->object)
			tool_usage(state, "no object '%s'; see 'uhmm --help'", arg);
		choice->argc = state->argc - state->next + 1;
		choice->argv = state->argv + state->next - 1;
		state->next = state->argc; /* the rest is the object's */
		return 0;
	case ARGP_KEY_NO_ARGS:
		tool_usage(state, "which object? see 'uhmm --help'");
	default:
		return tool_key(key, arg, state, &json);
	}
}

/* The list of objects in --help comes from the table, so that it is never behind. */
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
	fputs("Objects:\n", stream);
	for (size_t i = 0; i < OBJECTS; i++)
		fprintf(stream, "  %-10s%s\n", objects[i].name, objects[i].what);
	fputs("\n'uhmm OBJECT --help' tells the rest.", stream);
	fclose(stream);
	return list; /* argp frees it */
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse_object,
		.args_doc = "OBJECT [ARGUMENT...]",
		.doc = "Heterogeneous Memory Management for devices driven from user "
		       "space.\v ",
		.help_filter = help_filter,
	};
	struct choice choice = { .object = NULL };
	char title[32];

	/* Assigned, not defined: our symbols are hidden, so libc would not see a
	 * definition. */
	argp_program_version = tool_version;
	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &choice))
		exit(2);
	snprintf(title, sizeof(title), "%s", choice.object->title);
	choice.argv[0] = title;
	return choice.object->run(choice.argc, choice.argv);
}
