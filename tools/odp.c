/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp - `uhmm odp COMMAND`: find the command and hand over.
 */
#include <stdio.h>
#include <string.h>

#include "odp.h"

static const struct command {
	const char *name, *title;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "serve", "uhmm odp serve", odp_cmd_serve },
	{ "get", "uhmm odp get", odp_cmd_get },
	{ "put", "uhmm odp put", odp_cmd_put },
	{ "bench", "uhmm odp bench", odp_cmd_bench },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

struct choice {
	const struct command *command;
	int argc;
	char **argv;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct choice *choice = state->input;
	bool json;

	switch (key) {
	case ARGP_KEY_ARG:
		for (size_t i = 0; i < COMMANDS; i++) {
			if (!strcmp(arg, commands[i].name))
				choice->command = &commands[i];
		}
		if (!choice->command)
			tool_usage(state, "no command '%s'; see 'uhmm odp --help'", arg);
		choice->argc = state->argc - state->next + 1;
		choice->argv = state->argv + state->next - 1;
		state->next = state->argc; /* the rest is the command's */
		return 0;
	case ARGP_KEY_NO_ARGS:
		tool_usage(state, "serve, get, put or bench? see 'uhmm odp --help'");
	default:
		return tool_key(key, arg, state, &json);
	}
}

static const struct argp argp = {
	.parser = parse,
	.args_doc = "serve|get|put|bench [ARGUMENT...]",
	.doc = "Reach the memory of another process, here or on another host, at its own "
	       "addresses: on-demand paging over libfabric. Nothing is pinned, and the "
	       "program may map, unmap and fork as it likes.\vCommands:\n"
	       "  serve     run a program whose memory can be reached\n"
	       "  get       its bytes to standard output\n"
	       "  put       standard input to its memory\n"
	       "  bench     how fast that is\n\n"
	       "'uhmm odp COMMAND --help' tells the rest.",
};

int cmd_odp(int argc, char **argv)
{
	struct choice choice = { .command = NULL };
	static char title[32];

	if (argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &choice))
		return 2;
	snprintf(title, sizeof(title), "%s", choice.command->title);
	choice.argv[0] = title;
	return choice.command->run(choice.argc, choice.argv);
}
