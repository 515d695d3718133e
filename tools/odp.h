/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp - what the commands of `uhmm odp` share: whom to ask, and what to say when it fails.
 *
 *	odp.c        which command
 *	odp_serve.c  serve: a program that knows nothing of it becomes a target
 *	odp_peer.c   the other side of get, put and bench: address, key, REMOTE
 *	odp_copy.c   get, put
 *	odp_bench.c  bench
 */
#ifndef UHMM_TOOLS_ODP_H
#define UHMM_TOOLS_ODP_H

#include <uhmm/odp.h>

#include "common.h"

int odp_cmd_serve(int argc, char **argv);
int odp_cmd_get(int argc, char **argv);
int odp_cmd_put(int argc, char **argv);
int odp_cmd_bench(int argc, char **argv);

struct peer {
	const char *title; /* "uhmm odp get" */
	const char *from;  /* the file of serve, or NULL */
	char address[256];
	struct odp_key key;
	pid_t pid; /* 0: it is not known */
	unsigned timeout_ms;
	bool no_cache;
	char *word[4]; /* ADDRESS KEY, unless from is set, and the command's own */
	unsigned words;
	struct odp *odp;
};

/* Options of every command that has a peer; single letters are taken by all of them. */
#define PEER_OPTIONS                                                                       \
	{                                                                                  \
		"from",                                                                    \
		'f',                                                                       \
		"FILE",                                                                    \
		0,                                                                         \
		"address and key are in this file of 'uhmm odp serve'",                    \
		0                                                                          \
	},                                                                                 \
	{                                                                                  \
		"timeout", 't', "SECONDS", 0,                                              \
			"give up when nothing comes for so long (10)", 0                   \
	}

/* Of the parser function: its own keys first. Collects words; at the end there have to be
 * min..max besides ADDRESS and KEY, which are taken. */
error_t peer_key(int key, char *arg, struct argp_state *state, struct peer *peer,
		 unsigned min, unsigned max, bool *json);

/* A word that is the command's own; NULL: it was not given. */
const char *peer_word(const struct peer *peer, unsigned i);

/* "7f12e000", "[heap]+0x10", "libc.so.6+4096". Ends the tool with a line and status 1. */
uint64_t peer_remote(const struct peer *peer, const char *text);

/* "4096", "0x1000", "64K", "1M". For the parser function's end. */
uint64_t peer_length(const struct argp_state *state, const char *text);

/* false: a line on standard error has said why not, and what to do. */
bool peer_connect(struct peer *peer);
void peer_close(struct peer *peer);

/* Several requests; false: a line has told about the lowest address that failed. `good`:
 * how many of them, from the first, succeeded. */
bool peer_run(struct peer *peer, struct odp_op *ops, unsigned n, unsigned *good);

#endif
