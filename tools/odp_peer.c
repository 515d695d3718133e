/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * peer - whom get, put and bench ask: command line, connection, and what to say of
 * failures.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "odp.h"

#define LINE 4096

/* A line, and status 1. */
static void __attribute__((noreturn, format(printf, 2, 3)))
stop(const struct peer *peer, const char *format, ...)
{
	va_list args;

	fprintf(stderr, "%s: ", peer->title);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* ---- command line ---- */

/* "ADDRESS KEY PID" */
static void read_file(struct peer *peer)
{
	FILE *file = fopen(peer->from, "re");
	char line[LINE] = "", key[LINE];

	if (!file)
		stop(peer, "%s: %s; 'uhmm odp serve' writes it when the program is up",
		     peer->from, strerror(errno));
	if (!fgets(line, sizeof(line), file) ||
	    sscanf(line, "%255s %4095s %d", peer->address, key, &peer->pid) != 3 ||
	    odp_key_parse(&peer->key, key))
		stop(peer, "%s is no file of 'uhmm odp serve'", peer->from);
	fclose(file);
}

static void take_words(const struct argp_state *state, struct peer *peer, unsigned min)
{
	unsigned all = min + (peer->from ? 0 : 2);

	if (peer->words < all)
		tool_usage(state, "%u arguments are too few; see --help", peer->words);
	if (peer->from) {
		read_file(peer);
		return;
	}
	if (strlen(peer->word[0]) >= sizeof(peer->address))
		tool_usage(state, "the address is too long");
	strcpy(peer->address, peer->word[0]);
	if (odp_key_parse(&peer->key, peer->word[1]))
		tool_usage(state, "'%s' is no key: that has %d hexadecimal digits",
			   peer->word[1], ODP_KEY_TEXT - 1);
	memmove(peer->word, peer->word + 2, sizeof(peer->word) - 2 * sizeof(peer->word[0]));
	peer->words -= 2;
}

error_t peer_key(int key, char *arg, struct argp_state *state, struct peer *peer,
		 unsigned min, unsigned max, bool *json)
{
	double seconds;

	switch (key) {
	case 'f':
		peer->from = arg;
		return 0;
	case 't':
		seconds = tool_seconds(state, arg);
		peer->timeout_ms = seconds < 0.001 ? 1 : (unsigned)(seconds * 1000);
		return 0;
	case ARGP_KEY_ARG:
		/* Options come first, wherever they stand. */
		if (peer->words == max + (peer->from ? 0 : 2))
			tool_usage(state, "unexpected argument '%s'", arg);
		peer->word[peer->words++] = arg;
		return 0;
	case ARGP_KEY_END:
		peer->title = state->name;
		take_words(state, peer, min);
		return 0;
	default:
		return tool_key(key, arg, state, json);
	}
}

const char *peer_word(const struct peer *peer, unsigned i)
{
	return i < peer->words ? peer->word[i] : NULL;
}

uint64_t peer_length(const struct argp_state *state, const char *text)
{
	static const char units[] = "KMG";
	unsigned long long value;
	const char *unit;
	unsigned shift = 0;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 0);
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (errno || end == text || *end || *text == '-' || !value ||
	    value > UINT64_MAX >> shift)
		tool_usage(state, "'%s' is no length: bytes, or with K, M or G", text);
	return value << shift;
}

/* ---- REMOTE ---- */

/* The first mapping of that name, or whose file's name ends with it. 0: there is none. */
static uint64_t find_mapping(const struct peer *peer, const char *name, size_t length,
			     bool *served)
{
	char path[64], line[LINE];
	uint64_t found = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)peer->pid);
	maps = fopen(path, "re");
	if (!maps)
		stop(peer,
		     "%s: %s; names of mappings are found where the target runs, by who "
		     "may "
		     "look at it; else give an address",
		     path, strerror(errno));
	while (fgets(line, sizeof(line), maps)) {
		uint64_t start;
		int at = 0;
		char *full, *base;

		line[strcspn(line, "\n")] = '\0';
		if (sscanf(line, "%" SCNx64 "-%*x %*s %*s %*s %*s %n", &start, &at) != 1 ||
		    !at)
			continue;
		full = line + at;
		base = strrchr(full, '/') ? strrchr(full, '/') + 1 : full;
		*served |= !strncmp(base, "libuhmm-odp.so", 14);
		if (!found && ((strlen(full) == length && !memcmp(full, name, length)) ||
			       (strlen(base) == length && !memcmp(base, name, length))))
			found = start;
	}
	fclose(maps);
	return found;
}

uint64_t peer_remote(const struct peer *peer, const char *text)
{
	const char *plus = strrchr(text, '+');
	size_t length = plus ? (size_t)(plus - text) : strlen(text);
	uint64_t address, offset = 0;
	bool served = false;
	char *end;

	errno = 0;
	address = strtoull(text, &end, 16);
	if (!errno && end != text && !*end && *text != '-')
		return address;
	if (plus) {
		offset = strtoull(plus + 1, &end, 0);
		if (errno || end == plus + 1 || *end)
			stop(peer, "'%s': what follows the + is no number", text);
	}
	if (!peer->pid)
		stop(peer,
		     "'%s' is no hexadecimal address; names of mappings need --from FILE",
		     text);
	address = find_mapping(peer, text, length, &served);
	if (!served)
		stop(peer,
		     "process %d of this host is not the target (another host's, or it has "
		     "ended); give an address in place of '%s'",
		     (int)peer->pid, text);
	if (!address)
		stop(peer, "process %d has no mapping '%.*s'; see 'uhmm snapshot %d'",
		     (int)peer->pid, (int)length, text, (int)peer->pid);
	return address + offset;
}

/* ---- the connection ---- */

static const char *why_not_connected(int err)
{
	switch (err) {
	case -EINVAL:
		return "this is no address such as tcp://127.0.0.1:7000";
	case -ENODEV:
		return "libfabric has no such provider here (fi_info -l), or no way to "
		       "that "
		       "address";
	case -ECONNREFUSED:
		return "nobody serves there, or too many clients: does the program still "
		       "run?";
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		return "there is no way to that host (ip route get, ip link)";
	case -ETIMEDOUT:
		return "no answer; is the host reachable? (--timeout)";
	case -EPROTO:
		return "what listens there is another program, or another version of this "
		       "one";
	default:
		return hmm_strerror(err);
	}
}

bool peer_connect(struct peer *peer)
{
	struct odp_options options = { .size = sizeof(options),
				       .timeout_ms = peer->timeout_ms,
				       .no_cache = peer->no_cache };
	int err = odp_connect(peer->address, &options, &peer->odp);

	if (err)
		fprintf(stderr, "%s: %s: %s\n", peer->title, peer->address,
			why_not_connected(err));
	return !err;
}

void peer_close(struct peer *peer)
{
	odp_close(peer->odp);
	peer->odp = NULL;
}

static void complain(const struct peer *peer, const struct odp_op *op)
{
	const char *verb = op->code == ODP_PUT ? "write" : "read";
	uint64_t end = op->remote + op->length;

	switch (op->result) {
	case -EACCES:
		fprintf(stderr,
			"%s: the key does not allow to %s [%" PRIx64 ", %" PRIx64
			"): it is "
			"not of this target, was revoked, or --access of 'uhmm odp serve' "
			"excludes it\n",
			peer->title, verb, op->remote, end);
		break;
	case -EFAULT:
	case -EPERM:
	case -EOPNOTSUPP:
		fprintf(stderr, "%s: the target cannot %s %" PRIx64 ": %s\n", peer->title,
			verb, op->fault_addr ? op->fault_addr : op->remote,
			op->fault_reason ? hmm_reason_text(op->fault_reason)
					 : hmm_strerror(op->result));
		break;
	case -ETIMEDOUT:
		fprintf(stderr,
			"%s: %s: nothing has come for %g s, given up; is the host "
			"reachable, "
			"does the program still run? (--timeout)\n",
			peer->title, peer->address,
			(peer->timeout_ms ? peer->timeout_ms : 10000) / 1000.0);
		break;
	case -ECONNRESET:
		fprintf(stderr,
			"%s: %s: the target has ended the connection; does the program "
			"still "
			"run?\n",
			peer->title, peer->address);
		break;
	case -EBUSY:
		fprintf(stderr,
			"%s: the target's memory from %" PRIx64
			" on changes all the time; try "
			"again, or less of it\n",
			peer->title, op->remote);
		break;
	default:
		fprintf(stderr, "%s: [%" PRIx64 ", %" PRIx64 "): %s\n", peer->title,
			op->remote, end, hmm_strerror(op->result));
	}
}

bool peer_run(struct peer *peer, struct odp_op *ops, unsigned n, unsigned *good)
{
	int failed;

	for (unsigned i = 0; i < n; i++)
		ops[i].key = &peer->key;
	failed = odp_run(peer->odp, ops, n);
	*good = 0;
	if (failed < 0)
		stop(peer, "%s", hmm_strerror(failed));
	while (*good < n && !ops[*good].result)
		++*good;
	if (failed)
		complain(peer, &ops[*good]);
	return !failed;
}
