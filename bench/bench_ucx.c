// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_ucx - ucx_rcache_hit: a region found in UCX's registration cache, get and put;
 * against the same behind the fence of ucxmon, which is what exactness costs there.
 *
 * In a child, because libucs patches libc as it is loaded, and the other rows are of a libc
 * as it is.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "litmus_against.h"

#define LENGTH 65536ul
#define LOOKUPS 20000u
#define BATCHES_MAX 1024u

struct answer {
	int err;
	double plain, fenced;
	char why[200];
};

static int batch(int (*look)(char *addr, size_t length), char *memory, double *cost)
{
	uint64_t start = tool_now();
	int err = 0;

	for (unsigned i = 0; i < LOOKUPS && !err; i++)
		err = look(memory, LENGTH);
	*cost = (double)(tool_now() - start) / LOOKUPS;
	return err;
}

static void measure(struct answer *answer, double seconds)
{
	static double plain[BATCHES_MAX], fenced[BATCHES_MAX];
	uint64_t end = tool_now() + (uint64_t)(seconds * 1e9);
	char *memory = bench_map(LENGTH);
	size_t turns = 0;
	int err =
		memory ? against_ucx_open_cache(answer->why, sizeof(answer->why)) : -ENOMEM;

	if (!err)
		memset(memory, 1, LENGTH);
	while (!err && (turns < 5 || (turns < BATCHES_MAX && tool_now() < end))) {
		err = batch(against_ucx_get_put, memory, &plain[turns]);
		if (!err)
			err = batch(against_ucx_fenced, memory, &fenced[turns]);
		turns++;
	}
	answer->err = err;
	answer->plain = bench_percentile(plain, turns, 50);
	answer->fenced = bench_percentile(fenced, turns, 50);
}

void bench_ucx(struct bench *bench)
{
	static const struct bench_title title = { "ucx_rcache_hit", "ns",
						  "the same, fenced by ucxmon", NULL };
	struct answer answer = { .err = -EIO, .why = "the child died" };
	int fds[2], status;
	pid_t child;

	fflush(stdout);
	if (pipe(fds)) {
		bench_skip(bench, title.name, "no pipe");
		return;
	}
	child = fork();
	if (!child) {
		measure(&answer, bench->seconds);
		_exit(write(fds[1], &answer, sizeof(answer)) != sizeof(answer));
	}
	close(fds[1]);
	if (child > 0 && read(fds[0], &answer, sizeof(answer)) != sizeof(answer))
		answer.err = -EIO;
	close(fds[0]);
	if (child > 0)
		waitpid(child, &status, 0);
	if (answer.err)
		bench_skip(bench, title.name, "%s", answer.why);
	else
		bench_add(bench, &title, answer.plain, answer.fenced, NULL);
}
