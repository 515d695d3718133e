/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * common - what the objects of the `uhmm` command share.
 *
 * Laws: results go to standard output, everything else to standard error. Bad
 * usage is one line on standard error and exit status 2; work that fails is
 * exit status 1. With -j standard output holds one JSON value and nothing else.
 */
#ifndef UHMM_TOOLS_COMMON_H
#define UHMM_TOOLS_COMMON_H

#include <argp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

/* One file an object; argv[0] is "uhmm OBJECT". Return: the exit status. */
int cmd_feature(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_litmus(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_drivers(int argc, char **argv);
int cmd_odp(int argc, char **argv);
int cmd_secure(int argc, char **argv);

/* "uhmm 0.1.0"; made by Meson. */
extern const char tool_version[];

/* For the options table of each object. */
#define TOOL_OPTION_JSON                                                                   \
	{                                                                                  \
		"json", 'j', NULL, 0, "print JSON on standard output", 0                   \
	}

/*
 * For the default case of each parser function: serves -j, refuses an argument
 * that the object did not take, keeps argp from adding lines of its own.
 */
error_t tool_key(int key, char *arg, struct argp_state *state, bool *json);

/* argp_parse(); leaves with status 2 and one line when the command line is wrong. */
void tool_parse(const struct argp *argp, int argc, char **argv, void *input);

/* "uhmm OBJECT: ..." on standard error, and exit status 2. For parser functions. */
void tool_usage(const struct argp_state *state, const char *format, ...)
	__attribute__((noreturn, format(printf, 2, 3)));

/* A whole number of min..max, or a number of seconds; else tool_usage(). */
uint64_t tool_number(const struct argp_state *state, const char *text, uint64_t min,
		     uint64_t max);
double tool_seconds(const struct argp_state *state, const char *text);

/* Print a value and drop it. Return: exit status, 1 if standard output failed or root is
 * NULL. */
int tool_emit(json_t *root);

/*
 * A line on standard error that the next one overwrites: only on a terminal,
 * at most ten a second. tool_progress_end() wipes it.
 */
void tool_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tool_progress_end(void);

/* Zeroed; never NULL: without memory the tool ends with one line and status 1. */
void *tool_alloc(size_t size);

/* ns, CLOCK_MONOTONIC */
uint64_t tool_now(void);

#endif
