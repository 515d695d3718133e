// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_against - one table: what changes, by who is told how.
 *
 * Each column is a child of its own: a peer patches libc, or hangs. A peer that this
 * machine does not have is a column without numbers and a reason, no failure.
 *
 * Exit status 1: ours served a stale registration or cached nothing, a column failed, or of
 * the others none did although some ran: then the rows prove nothing.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "litmus_against.h"

#define COLUMNS_MAX 12
#define PROGRAM "uhmm-against-libfabric"

/* Far above what a column takes: libfabric's userfaultfd monitor is known to hang. */
#define LIMIT_BASE_MS 30000
#define LIMIT_ROUND_US 5000

struct column {
	const struct against_peer *peer;
	struct against_cells cells;
};

static void say_row(const struct against_peer *peer, unsigned row)
{
	tool_progress("litmus: %s, %s", peer->name, against_row(row));
}

/* The program lies beside this one, built or installed. */
static void exec_program(const struct against_peer *peer, uint64_t rounds)
{
	char self[PATH_MAX] = "", path[PATH_MAX + sizeof(PROGRAM)], number[24];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n <= 0)
		return;
	snprintf(path, sizeof(path), "%s/%s", dirname(self), PROGRAM);
	snprintf(number, sizeof(number), "%llu", (unsigned long long)rounds);
	execl(path, PROGRAM, peer->program, number, (char *)NULL);
}

/* In the child: the column to @out; never returns. */
static void run_child(const struct against_peer *peer, uint64_t rounds, int out)
{
	struct against_cells cells = { .err = 0 };

	if (peer->program) {
		dup2(out, STDOUT_FILENO);
		exec_program(peer, rounds);
		cells.err = -EOPNOTSUPP;
		snprintf(cells.why, sizeof(cells.why), "no %s beside uhmm (%s)", PROGRAM,
			 strerror(errno));
	} else {
		against_run(peer, rounds, &cells, say_row);
		tool_progress_end();
	}
	if (write(out, &cells, sizeof(cells)) != sizeof(cells))
		_exit(1);
	_exit(0); /* not exit(): a peer's destructors are not what is tried */
}

/* All of it, or -1: it died, or the time is up. */
static int read_all(int fd, void *buf, size_t size, int limit_ms)
{
	uint64_t end = tool_now() + (uint64_t)limit_ms * 1000000;
	size_t done = 0;

	while (done < size) {
		struct pollfd fds = { .fd = fd, .events = POLLIN };
		uint64_t now = tool_now();
		ssize_t n;

		if (now >= end || poll(&fds, 1, (int)((end - now) / 1000000) + 1) <= 0)
			return -ETIMEDOUT;
		n = read(fd, (char *)buf + done, size - done);
		if (n <= 0)
			return -EIO;
		done += (size_t)n;
	}
	return 0;
}

static void fail(struct column *column, int err, const char *why)
{
	column->cells = (struct against_cells){ .err = err };
	snprintf(column->cells.why, sizeof(column->cells.why), "%s", why);
}

static void run_column(struct column *column, uint64_t rounds)
{
	uint64_t limit = LIMIT_BASE_MS + rounds * AGAINST_ROWS * LIMIT_ROUND_US / 1000;
	int fds[2], err;
	pid_t child;

	fflush(stdout);
	if (pipe(fds)) {
		fail(column, -errno, "no pipe");
		return;
	}
	child = fork();
	if (!child) {
		close(fds[0]);
		run_child(column->peer, rounds, fds[1]);
	}
	close(fds[1]);
	err = child < 0 ? -errno
			: read_all(fds[0], &column->cells, sizeof(column->cells),
				   limit < INT_MAX ? (int)limit : INT_MAX);
	close(fds[0]);
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	if (err)
		fail(column, err, err == -ETIMEDOUT ? "it hung" : "it died");
}

static bool is_wanted(const char *families, const char *family)
{
	size_t length = strlen(family);

	for (const char *at = families; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!strncmp(at, family, length) && (!at[length] || at[length] == ','))
			return true;
	}
	return false;
}

bool litmus_against_known(const char *families)
{
	char *copy = strdup(families), *save = NULL;
	bool known = copy && *copy;

	for (char *word = strtok_r(copy, ",", &save); word;
	     word = strtok_r(NULL, ",", &save))
		known &= !strcmp(word, "ucx") || !strcmp(word, "libfabric");
	free(copy);
	return known;
}

static size_t choose(struct column *columns, size_t count, const struct against_peer *peers,
		     const char *families)
{
	for (; peers->name && count < COLUMNS_MAX; peers++)
		if (is_wanted(families, peers->family))
			columns[count++].peer = peers;
	return count;
}

/* Stale hits of a column; the first row is of misses. */
static uint64_t stale(const struct column *column)
{
	uint64_t sum = 0;

	for (unsigned row = 1; against_row(row); row++)
		sum += column->cells.row[row].stale;
	return sum;
}

static bool is_there(const struct column *column, unsigned row)
{
	return !column->cells.err && column->cells.row[row].rounds;
}

static bool keeps(const struct column *column, unsigned row)
{
	return is_there(column, row) && column->cells.row[row].kept;
}

/* What the table says of itself; true: exit status 0. */
static bool judge(const struct column *columns, size_t count)
{
	bool good = true, others = false, others_ran = false;

	for (size_t i = 0; i < count; i++) {
		const struct column *c = &columns[i];

		good &= !c->cells.err || c->cells.err == -EOPNOTSUPP;
		if (c->cells.err)
			continue;
		if (c->peer->ours)
			for (unsigned row = 0; against_row(row); row++)
				good &= !is_there(c, row) || keeps(c, row);
		good &= !c->peer->ours || !stale(c);
		others |= !c->peer->ours && stale(c);
		others_ran |= !c->peer->ours;
	}
	return good && (others || !others_ran);
}

static void print_table(const struct column *columns, size_t count, uint64_t rounds)
{
	printf("stale hits of %llu rounds a cell\n%-14s", (unsigned long long)rounds, "");
	for (size_t i = 0; i < count; i++)
		printf(" %12s", columns[i].peer->name);
	printf("  what changes\n");
	for (unsigned row = 0; against_row(row); row++) {
		printf("%-14s", against_row(row));
		for (size_t i = 0; i < count; i++) {
			if (is_there(&columns[i], row) && !keeps(&columns[i], row))
				printf(" %12s", "-");
			else if (is_there(&columns[i], row))
				printf(" %12llu",
				       (unsigned long long)columns[i].cells.row[row].stale);
			else
				printf(" %12s", "n/a");
		}
		printf("  %s\n", against_row_what(row));
	}
	printf("%-14s never cached, so never stale\n", "-");
	for (size_t i = 0; i < count; i++) {
		const struct column *c = &columns[i];

		printf("%-14s %s%s%s\n", c->peer->name, c->peer->what,
		       !c->cells.err		     ? ""
		       : c->cells.err == -EOPNOTSUPP ? ": n/a: "
						     : ": FAILED: ",
		       c->cells.err ? c->cells.why : "");
	}
}

static json_t *column_json(const struct column *column)
{
	json_t *object = json_pack("{s:s, s:b}", "what", column->peer->what, "ours",
				   column->peer->ours);
	json_t *rows = json_object();

	if (column->cells.err)
		json_object_set_new(object,
				    column->cells.err == -EOPNOTSUPP ? "skipped" : "failed",
				    json_string(column->cells.why));
	for (unsigned row = 0; against_row(row); row++)
		if (keeps(column, row))
			json_object_set_new(
				rows, against_row(row),
				json_integer((json_int_t)column->cells.row[row].stale));
	json_object_set_new(object, "stale", json_integer((json_int_t)stale(column)));
	json_object_set_new(object, "rows", rows);
	return object;
}

int litmus_against(const char *families, uint64_t rounds, bool json)
{
	struct column columns[COLUMNS_MAX] = { { NULL } };
	size_t count = choose(columns, 0, against_ucx_peers, families);
	json_t *all = json_object();
	bool good;

	count = choose(columns, count, against_fabric_peers, families);
	for (size_t i = 0; i < count; i++)
		run_column(&columns[i], rounds);
	good = judge(columns, count);
	for (size_t i = 0; i < count; i++)
		json_object_set_new(all, columns[i].peer->name, column_json(&columns[i]));
	if (json)
		return tool_emit(json_pack("{s:I, s:o, s:b}", "rounds", (json_int_t)rounds,
					   "columns", all, "pass", good)) ||
		       !good;
	json_decref(all);
	print_table(columns, count, rounds);
	printf("litmus: %s\n", good ? "PASS" : "FAIL");
	return !good;
}
