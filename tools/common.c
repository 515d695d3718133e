/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * common - command line, JSON and progress for all objects (common.h).
 *
 * argp prints two lines for a mistake, its own and a "Try --help"; a script
 * wants one. So its error stream is switched off: what getopt says about an
 * option is the one line there, and everything else comes from tool_usage().
 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common.h"

#define USAGE_STATUS 2

error_t tool_key(int key, char *arg, struct argp_state *state, bool *json)
{
	switch (key) {
	case ARGP_KEY_INIT:
		state->err_stream = NULL;
		return 0;
	case 'j':
		*json = true;
		return 0;
	case ARGP_KEY_ARG:
		tool_usage(state, "unexpected argument '%s'", arg);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

void tool_parse(const struct argp *argp, int argc, char **argv, void *input)
{
	if (argp_parse(argp, argc, argv, 0, NULL, input))
		exit(USAGE_STATUS);
}

void tool_usage(const struct argp_state *state, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", state->name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(USAGE_STATUS);
}

uint64_t tool_number(const struct argp_state *state, const char *text, uint64_t min,
		     uint64_t max)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *end || text[0] == '-' || value < min || value > max)
		tool_usage(state, "'%s' is not a whole number from %llu to %llu", text,
			   (unsigned long long)min, (unsigned long long)max);
	return value;
}

double tool_seconds(const struct argp_state *state, const char *text)
{
	double value;
	char *end;

	errno = 0;
	value = strtod(text, &end);
	if (errno || end == text || *end || !isfinite(value) || value < 0 || value > 86400)
		tool_usage(state, "'%s' is not a number of seconds from 0 to 86400", text);
	return value;
}

int tool_emit(json_t *root)
{
	int rc = root ? json_dumpf(root, stdout, JSON_INDENT(2)) : -1;

	json_decref(root);
	if (!rc)
		putchar('\n');
	if (rc || fflush(stdout)) {
		fprintf(stderr, "uhmm: cannot write JSON to standard output\n");
		return 1;
	}
	return 0;
}

/* When the last progress line was written; 0: none is on the screen. */
static uint64_t progress_shown;

void tool_progress(const char *format, ...)
{
	uint64_t now = tool_now();
	va_list args;

	if (!isatty(STDERR_FILENO) || now - progress_shown < 100000000)
		return;
	progress_shown = now;
	fputs("\r\033[K", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fflush(stderr);
}

void tool_progress_end(void)
{
	if (!progress_shown)
		return;
	progress_shown = 0;
	fputs("\r\033[K", stderr);
	fflush(stderr);
}

void *tool_alloc(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory) {
		fprintf(stderr, "uhmm: no memory for %zu bytes\n", size);
		exit(1);
	}
	return memory;
}

uint64_t tool_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
