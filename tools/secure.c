/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * secure - `uhmm secure COMMAND`: the command line of export, import and selftest.
 */
#include <stdio.h>
#include <string.h>

#include <uhmm/driver.h>

#include "common.h"
#include "secure.h"

#define MIB ((uint64_t)1 << 20)

extern const struct uhmm_driver uhmm_driver_uvmem;

enum command { NONE, EXPORT, IMPORT, SELFTEST };

struct options {
	enum command command;
	struct secure secure;
};

static const struct argp_option argp_options[] = {
	{ "key", 'k', "FILE", 0,
	  "key and count of exports; export makes it if there is none. Who has it can read "
	  "the "
	  "secret, who can write it can roll it back",
	  0 },
	{ "size", 's', "MIB", 0,
	  "export: room for the secret; the file is as large, whatever is in it (default "
	  "1)",
	  0 },
	{ "mlocked", 'm', NULL, 0,
	  "mlocked memory instead of memfd_secret: a debugger can read it", 0 },
	{ 0 },
};

static void command_of(struct options *options, const char *arg, struct argp_state *state)
{
	static const char *const names[] = { "", "export", "import", "selftest" };

	for (unsigned i = EXPORT; i <= SELFTEST; i++)
		if (!strcmp(arg, names[i]))
			options->command = i;
	if (options->command == NONE)
		tool_usage(state, "no command '%s'; see 'uhmm secure --help'", arg);
}

static void check(const struct options *options, struct argp_state *state)
{
	if (options->command == NONE)
		tool_usage(state, "export, import or selftest? see 'uhmm secure --help'");
	if (options->command == SELFTEST)
		return;
	if (!options->secure.key)
		tool_usage(state, "--key FILE is needed");
	if (!options->secure.file)
		tool_usage(state, "which file?");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	bool json;

	switch (key) {
	case 'k':
		options->secure.key = arg;
		return 0;
	case 's':
		options->secure.size = tool_number(state, arg, 1, 65536) * MIB;
		return 0;
	case 'm':
		options->secure.mlocked = true;
		return 0;
	case ARGP_KEY_ARG:
		if (options->command == NONE)
			command_of(options, arg, state);
		else if (!options->secure.file && options->command != SELFTEST)
			options->secure.file = arg;
		else
			tool_usage(state, "what is '%s'?", arg);
		return 0;
	case ARGP_KEY_END:
		check(options, state);
		return 0;
	default:
		return tool_key(key, arg, state, &json);
	}
}

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.args_doc = "export FILE <secret\nimport FILE >secret\nselftest",
	.doc = "A secret to a file and back, by way of secure memory: its plain bytes and "
	       "the key "
	       "are in memfd_secret memory only, which nobody else can read, and not in "
	       "swap, a "
	       "core dump or this program's other memory. A file that was changed, cut, "
	       "mixed with another or is "
	       "older than the last export with that key is refused.\v"
	       "The key file counts the exports: one key for one secret.",
};

static int selftest(void)
{
	char why[400] = "";
	int err = uhmm_driver_uvmem.usable(why, sizeof(why));

	if (err) {
		printf("skipped: %s\n", why);
		return 0;
	}
	err = uhmm_driver_uvmem.selftest(why, sizeof(why));
	printf("%s: %s\n", err ? "FAILED" : "passed", why);
	return err ? 1 : 0;
}

int cmd_secure(int argc, char **argv)
{
	struct options options = { .secure = { .title = "uhmm secure", .size = MIB } };

	tool_parse(&argp, argc, argv, &options);
	if (options.command == SELFTEST)
		return selftest();
	return options.command == EXPORT ? secure_export(&options.secure)
					 : secure_import(&options.secure);
}
