/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * copy - `uhmm odp get` and `uhmm odp put`: a target's memory to standard output, standard
 * input to there.
 *
 * In requests of PART bytes, AT_ONCE of them overlapping: each answer counts as a sign of
 * life, so a slow network is no dead one.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "odp.h"

#define PART ((size_t)256 << 10)
#define AT_ONCE 8u
#define ROW 16u

struct options {
	struct peer peer;
	bool hex;
	uint64_t length;
};

/* No mirror of this tool: buffers are registered for each transfer (no_cache), so it runs
 * where userfaultfd is not allowed. */
#define OPTIONS                                                                            \
	{                                                                                  \
		.peer = {.no_cache = true }                                                \
	}

static error_t parse_get(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	bool json;
	error_t err;

	if (key == 'x') {
		options->hex = true;
		return 0;
	}
	err = peer_key(key, arg, state, &options->peer, 2, 2, &json);
	if (key == ARGP_KEY_END)
		options->length = peer_length(state, peer_word(&options->peer, 1));
	if (key == ARGP_KEY_END && !options->hex && isatty(STDOUT_FILENO))
		tool_usage(
			state,
			"standard output is a terminal: send the bytes to a file, or ask "
			"for --hex");
	return err;
}

static error_t parse_put(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	bool json;

	return peer_key(key, arg, state, &options->peer, 1, 1, &json);
}

#define REMOTE_DOC                                                                         \
	"\vREMOTE is a hexadecimal address. With --from and where the target runs it may " \
	"be "                                                                              \
	"the name of a mapping and an offset too: [heap]+0x10, libc.so.6+4096."

static const struct argp_option get_options[] = {
	PEER_OPTIONS,
	{ "hex", 'x', NULL, 0, "in hexadecimal, for reading", 0 },
	{ 0 },
};

static const struct argp get_argp = {
	.options = get_options,
	.parser = parse_get,
	.args_doc = "ADDRESS KEY REMOTE LENGTH\n--from FILE REMOTE LENGTH",
	.doc = "Write LENGTH bytes of the target's memory to standard output." REMOTE_DOC
	       " LENGTH may end with K, M or G.",
};

static const struct argp_option put_options[] = {
	PEER_OPTIONS,
	{ 0 },
};

static const struct argp put_argp = {
	.options = put_options,
	.parser = parse_put,
	.args_doc = "ADDRESS KEY REMOTE\n--from FILE REMOTE",
	.doc = "Write standard input to the target's memory." REMOTE_DOC,
};

static char *buffer(const struct peer *peer)
{
	char *at = mmap(NULL, PART * AT_ONCE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED) {
		fprintf(stderr, "%s: %s\n", peer->title, strerror(errno));
		exit(1);
	}
	return at;
}

/* [remote, remote + length) in parts. Return: how many bytes, from the first, have moved.
 */
static size_t move(struct peer *peer, enum odp_opcode code, uint64_t remote, char *local,
		   size_t length)
{
	struct odp_op ops[AT_ONCE] = { 0 };
	unsigned n = 0, good;
	size_t done = 0;

	for (size_t at = 0; at < length; at += PART, n++)
		ops[n] = (struct odp_op){ .code = code,
					  .remote = remote + at,
					  .local = local + at,
					  .length =
						  length - at < PART ? length - at : PART };
	peer_run(peer, ops, n, &good);
	for (unsigned i = 0; i < good; i++)
		done += ops[i].length;
	return done;
}

/* ---- get ---- */

static bool write_all(const char *at, size_t length)
{
	while (length) {
		ssize_t n = write(STDOUT_FILENO, at, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		length -= (size_t)n;
	}
	return true;
}

/* As hexdump -C, with the target's addresses. */
static bool write_hex(uint64_t remote, const unsigned char *at, size_t length)
{
	for (size_t row = 0; row < length; row += ROW) {
		size_t n = length - row < ROW ? length - row : ROW;

		printf("%012" PRIx64 " ", remote + row);
		for (size_t i = 0; i < ROW; i++) {
			if (i < n)
				printf(" %02x", at[row + i]);
			else
				printf("   ");
		}
		printf("  |");
		for (size_t i = 0; i < n; i++)
			putchar(isprint(at[row + i]) ? at[row + i] : '.');
		puts("|");
	}
	return !fflush(stdout);
}

static int get_all(struct options *options, uint64_t remote)
{
	char *local = buffer(&options->peer);

	for (uint64_t left = options->length; left;) {
		size_t n = left < PART * AT_ONCE ? (size_t)left : PART * AT_ONCE;
		size_t done = move(&options->peer, ODP_GET, remote, local, n);
		bool written = options->hex
				       ? write_hex(remote, (unsigned char *)local, done)
				       : write_all(local, done);

		if (!written) {
			fprintf(stderr, "%s: standard output: %s\n", options->peer.title,
				strerror(errno));
			return 1;
		}
		if (done < n)
			return 1;
		remote += n;
		left -= n;
	}
	return 0;
}

int odp_cmd_get(int argc, char **argv)
{
	struct options options = OPTIONS;
	uint64_t remote;
	int status;

	tool_parse(&get_argp, argc, argv, &options);
	remote = peer_remote(&options.peer, peer_word(&options.peer, 0));
	if (!peer_connect(&options.peer))
		return 1;
	status = get_all(&options, remote);
	peer_close(&options.peer);
	return status;
}

/* ---- put ---- */

/* Less than asked for only at the end. -1: errno. */
static ssize_t read_all(char *at, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t n = read(STDIN_FILENO, at + done, length - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int put_all(struct options *options, uint64_t remote)
{
	char *local = buffer(&options->peer);

	for (;;) {
		ssize_t n = read_all(local, PART * AT_ONCE);

		if (n < 0) {
			fprintf(stderr, "%s: standard input: %s\n", options->peer.title,
				strerror(errno));
			return 1;
		}
		if (!n)
			return 0;
		if (move(&options->peer, ODP_PUT, remote, local, (size_t)n) < (size_t)n)
			return 1;
		remote += (uint64_t)n;
	}
}

int odp_cmd_put(int argc, char **argv)
{
	struct options options = OPTIONS;
	uint64_t remote;
	int status;

	tool_parse(&put_argp, argc, argv, &options);
	remote = peer_remote(&options.peer, peer_word(&options.peer, 0));
	if (!peer_connect(&options.peer))
		return 1;
	status = put_all(&options, remote);
	peer_close(&options.peer);
	return status;
}
