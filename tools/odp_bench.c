/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bench - `uhmm odp bench`: how long gets of a range of a target take, and how many bytes a
 * second come.
 *
 * The first round over the range, in which the target faults it in, is not timed. What it
 * is against the plain way is for `uhmm bench odp`, which has both ends in one run.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "odp.h"

#define SHORT ((size_t)4 << 10)
#define LONG ((size_t)1 << 20)
#define AT_ONCE 8u
#define SAMPLES ((size_t)1 << 18)

struct options {
	struct peer peer;
	bool json;
	double seconds;
	uint64_t length;
};

struct row {
	const char *name;
	size_t bytes;	  /* of a get */
	unsigned at_once; /* gets that overlap; a sample is of all of them */
	size_t samples;
	double median_us, p99_us, mib_per_s;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct options *options = state->input;
	const char *length;
	error_t err;

	switch (key) {
	case 's':
		options->seconds = tool_seconds(state, arg);
		return 0;
	case 'n':
		options->peer.no_cache = true;
		return 0;
	}
	err = peer_key(key, arg, state, &options->peer, 1, 2, &options->json);
	if (key == ARGP_KEY_END) {
		length = peer_word(&options->peer, 1);
		options->length = length ? peer_length(state, length) : LONG;
		if (options->length < SHORT)
			tool_usage(state, "'%s': a range of at least 4 KiB, please",
				   length);
	}
	return err;
}

static const struct argp_option argp_options[] = {
	PEER_OPTIONS,
	{ "seconds", 's', "SECONDS", 0, "time for each row (1)", 0 },
	{ "no-cache", 'n', NULL, 0, "register the buffer for each transfer", 0 },
	TOOL_OPTION_JSON,
	{ 0 },
};

static const struct argp argp = {
	.options = argp_options,
	.parser = parse,
	.args_doc = "ADDRESS KEY REMOTE [LENGTH]\n--from FILE REMOTE [LENGTH]",
	.doc = "Get 4 KiB, 1 MiB, and 8 times 1 MiB at once, over and over, going round in "
	       "the "
	       "LENGTH bytes (1M) from REMOTE on: median and 99th percentile of the time, "
	       "and "
	       "bytes a second.\vREMOTE is as in 'uhmm odp get'. Of a range shorter than 1 "
	       "MiB "
	       "the long gets are of all of it.",
};

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

struct place {
	struct peer *peer;
	char *local;
	uint64_t start, length, at;
};

/* One sample, a step further in the range. */
static bool step(struct place *place, const struct row *row)
{
	struct odp_op ops[AT_ONCE];
	unsigned good;

	for (unsigned i = 0; i < row->at_once; i++) {
		if (place->at > place->length - row->bytes)
			place->at = 0;
		ops[i] = (struct odp_op){ .code = ODP_GET,
					  .remote = place->start + place->at,
					  .local = place->local + i * LONG,
					  .length = row->bytes };
		place->at += row->bytes;
	}
	return peer_run(place->peer, ops, row->at_once, &good);
}

static bool warm(struct place *place, const struct row *row)
{
	uint64_t round = place->length / row->bytes + 1;

	place->at = 0;
	for (uint64_t i = 0; i < round; i += row->at_once)
		if (!step(place, row))
			return false;
	return true;
}

static bool measure(struct place *place, struct row *row, double seconds, uint64_t *sample)
{
	uint64_t limit = (uint64_t)(seconds * 1e9), began, sum = 0;
	size_t n = 0;

	if (!warm(place, row))
		return false;
	do {
		began = tool_now();
		if (!step(place, row))
			return false;
		sample[n] = tool_now() - began;
		sum += sample[n++];
	} while (n < SAMPLES && sum < limit);
	qsort(sample, n, sizeof(*sample), compare);
	row->samples = n;
	row->median_us = (double)sample[n / 2] / 1000;
	row->p99_us = (double)sample[n * 99 / 100] / 1000;
	row->mib_per_s =
		(double)(n * row->bytes * row->at_once) / (1 << 20) / ((double)sum / 1e9);
	return true;
}

static void print(const struct row *row)
{
	printf("%-10s %8zu x %u %9zu %12.1f %12.1f %10.0f\n", row->name, row->bytes,
	       row->at_once, row->samples, row->median_us, row->p99_us, row->mib_per_s);
}

static json_t *row_json(const struct row *row)
{
	return json_pack("{s:s, s:I, s:i, s:I, s:f, s:f, s:f}", "name", row->name, "bytes",
			 (json_int_t)row->bytes, "at_once", (int)row->at_once, "samples",
			 (json_int_t)row->samples, "median_us", row->median_us, "p99_us",
			 row->p99_us, "mib_per_s", row->mib_per_s);
}

static int run(struct options *options, struct place *place)
{
	size_t most = options->length < LONG ? (size_t)options->length : LONG;
	struct row rows[] = { { .name = "get_4k", .bytes = SHORT, .at_once = 1 },
			      { .name = "get_1m", .bytes = most, .at_once = 1 },
			      { .name = "get_1m_x8", .bytes = most, .at_once = AT_ONCE } };
	uint64_t *sample = tool_alloc(SAMPLES * sizeof(*sample));
	json_t *list = options->json ? json_array() : NULL;
	bool good = true;

	if (!list) {
		printf("%-10s %12s %9s %12s %12s %10s\n", "get", "bytes", "samples",
		       "median us", "p99 us", "MiB/s");
		fflush(stdout); /* to a file too: it is connected */
	}
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]) && good; i++) {
		good = measure(place, &rows[i], options->seconds, sample);
		if (good && list)
			json_array_append_new(list, row_json(&rows[i]));
		else if (good)
			print(&rows[i]);
	}
	free(sample);
	if (!good) {
		json_decref(list);
		return 1;
	}
	return list ? tool_emit(json_pack("{s:s, s:b, s:I, s:o}", "address",
					  options->peer.address, "cache",
					  !options->peer.no_cache, "length",
					  (json_int_t)options->length, "rows", list))
		    : 0;
}

int odp_cmd_bench(int argc, char **argv)
{
	struct options options = { .seconds = 1 };
	struct place place = { .peer = &options.peer };
	int status;

	tool_parse(&argp, argc, argv, &options);
	place.length = options.length;
	place.start = peer_remote(&options.peer, peer_word(&options.peer, 0));
	place.local = mmap(NULL, LONG * AT_ONCE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (place.local == MAP_FAILED) {
		fprintf(stderr, "uhmm odp bench: no memory\n");
		return 1;
	}
	if (!peer_connect(&options.peer))
		return 1;
	status = run(&options, &place);
	peer_close(&options.peer);
	return status;
}
