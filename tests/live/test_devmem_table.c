/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_devmem_table - every way for pages to be away x everything a program does to them.
 *
 *	test_devmem_table [-v] [part of a name]...	names are "state operation"
 *
 * G5 from the program's side: what it reads is what it wrote, what it gave up is zeros, and
 * no frame stays in use for a page that is not away.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "away_table.h"

/* ---- states ---- */

static enum verdict at_home(struct cell *cell, struct zone *zone, size_t *away)
{
	*away = 0;
	return PASS;
}

static enum verdict in_copied(struct cell *cell, struct zone *zone, size_t *away)
{
	*away = zone->pages;
	return away_out(cell->dev[0], zone->at, zone->pages);
}

static enum verdict in_host(struct cell *cell, struct zone *zone, size_t *away)
{
	*away = zone->pages;
	return away_out(cell->dev[1], zone->at, zone->pages);
}

/* Four pages there, four here. */
static enum verdict half(struct cell *cell, struct zone *zone, size_t *away)
{
	*away = 0;
	for (size_t p = 0; p + 8 <= zone->pages; p += 8, *away += 4)
		TRY(away_out(cell->dev[0], zone->at + p * PAGE, 4));
	return PASS;
}

/* Page by page: copied, host, at home. */
static enum verdict mixed(struct cell *cell, struct zone *zone, size_t *away)
{
	*away = 0;
	for (size_t p = 0; p < zone->pages; p++)
		if (p % 3 != 2) {
			TRY(away_out(cell->dev[p % 3], zone->at + p * PAGE, 1));
			++*away;
		}
	return PASS;
}

static enum verdict exclusive(struct cell *cell, struct zone *zone, size_t *away)
{
	struct hmm_devmem *devmem = away_devmem(cell->dev[1]);

	for (size_t p = 0; p < zone->pages; p++) {
		uint64_t frame;

		EXPECT(0,
		       hmm_make_exclusive(devmem, (uintptr_t)zone->at + p * PAGE, &frame));
		CHECK(hmm_devmem_host(devmem, frame), "an exclusive page lies nowhere");
		CHECK(!memcmp(hmm_devmem_host(devmem, frame), zone->shadow + p * PAGE,
			      PAGE),
		      "exclusive page %zu has other bytes", p);
		hmm_exclusive_release(devmem, frame);
	}
	*away = zone->pages;
	return PASS;
}

static const struct away_state states[] = {
	{ "home", at_home }, { "copied", in_copied }, { "host", in_host },
	{ "half", half },    { "mixed", mixed },      { "exclusive", exclusive },
};
#define STATES (sizeof(states) / sizeof(states[0]))

long cell_away(struct cell *cell, const void *at, size_t length)
{
	long n = away_count(cell->dev[0], at, length);
	long m = away_count(cell->dev[1], at, length);

	return n < 0 || m < 0 ? -1 : n + m;
}

enum verdict cell_place(struct cell *cell, struct zone *zone, size_t *away)
{
	TRY(cell->state->place(cell, zone, away));
	EXPECT(*away, cell_away(cell, zone->at, zone->pages * PAGE));
	return PASS;
}

/* ---- what is asked after every operation ---- */

enum verdict cell_exact(struct cell *cell, const char *when)
{
	uint64_t end = live_now_ns() + UINT64_C(1000000000), in_use;
	long away;

	do {
		usleep(1000);
		in_use = away_in_use(cell->dev[0]) + away_in_use(cell->dev[1]);
		away = cell_away(cell, cell->zone.at, cell->zone.pages * PAGE);
		if (cell->other.pages)
			away += cell_away(cell, cell->other.at, cell->other.pages * PAGE);
	} while (in_use != (uint64_t)away && live_now_ns() < end);
	CHECK(in_use == (uint64_t)away, "%s: %llu frames in use, %ld pages are away", when,
	      (unsigned long long)in_use, away);
	return PASS;
}

enum verdict cell_home(struct cell *cell, const char *when)
{
	TRY(zone_check(&cell->zone, when));
	return cell_exact(cell, when);
}

/* What a device stores in a frame is what the page is from then on. */
static enum verdict device_stores(struct cell *cell)
{
	uint64_t before = away_touched(cell->dev[0]) + away_touched(cell->dev[1]),
		 in_frames = 0;

	for (size_t p = 0; p < CELL_PAGES; p += 4) {
		bool host = away_count(cell->dev[1], page_at(cell, p), PAGE) == 1;
		unsigned char bytes[24];

		memset(bytes, (int)(p + 1), sizeof(bytes));
		in_frames += host || away_count(cell->dev[0], page_at(cell, p), PAGE) == 1;
		EXPECT(0, away_write(cell->dev[host], page_at(cell, p) + 500, bytes,
				     sizeof(bytes)));
		memcpy(cell->zone.shadow + p * PAGE + 500, bytes, sizeof(bytes));
	}
	EXPECT(in_frames, away_touched(cell->dev[0]) + away_touched(cell->dev[1]) - before);
	EXPECT(cell->away, cell_away(cell, cell->zone.at, CELL_PAGES * PAGE));
	return PASS;
}

/* Out once more, each run of pages that may be written, and home. */
static enum verdict once_more(struct cell *cell)
{
	struct zone *zone = &cell->zone;
	size_t writable = 0;

	for (size_t p = 0; p < zone->pages; p++) {
		int64_t n;

		if (zone->access[p] != ZONE_WRITE)
			continue;
		n = hmm_migrate_to_device(away_devmem(cell->dev[p / 8 % 2]),
					  (uintptr_t)zone->at + p * PAGE, PAGE);
		/* 0: an operation locked or wiped it, which is said where it is tested. */
		CHECK(n == 0 || n == 1, "once more, page %zu: %s", p, hmm_strerror((int)n));
		writable++;
	}
	if (writable)
		TRY(zone_check(zone, "home once more"));
	return cell_exact(cell, "home once more");
}

static enum verdict cell_begin(struct cell *cell)
{
	TRY(zone_make(&cell->zone, CELL_PAGES, 7));
	EXPECT(0, away_open(&cell->dev[0], NULL));
	EXPECT(0, away_open(&cell->dev[1], &(struct away_options){ .host = true }));
	TRY(cell_place(cell, &cell->zone, &cell->away));
	return device_stores(cell);
}

static enum verdict cell_run(struct cell *cell, const struct away_op *op)
{
	TRY(cell_begin(cell));
	TRY(op->run(cell));
	TRY(cell_exact(cell, "after it"));
	TRY(cell_home(cell, "after it"));
	TRY(once_more(cell));
	zone_dispose(&cell->zone);
	if (cell->other.pages)
		zone_dispose(&cell->other);
	TRY(away_settles(cell->dev[0], 0));
	TRY(away_settles(cell->dev[1], 0));
	away_close(cell->dev[0]);
	away_close(cell->dev[1]);
	return PASS;
}

/* ---- the helper: a process from before the mirror, which reads our memory ---- */

static void helper_main(struct cell *cell, pid_t parent)
{
	struct request {
		char *at;
		size_t length;
	} request;
	static char bytes[CELL_PAGES * 4096];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(cell->helper[0], &request, sizeof(request)) == sizeof(request)) {
		struct iovec here = { bytes, request.length };
		struct iovec there = { request.at, request.length };
		ssize_t n = process_vm_readv(parent, &here, 1, &there, 1, 0);

		if (write(cell->back[1], &n, sizeof(n)) != sizeof(n) ||
		    (n > 0 && write(cell->back[1], bytes, (size_t)n) != n))
			_exit(1);
	}
	_exit(0);
}

static enum verdict helper_start(struct cell *cell)
{
	pid_t parent = getpid();

	SYS(pipe(cell->helper));
	SYS(pipe(cell->back));
	cell->pid = fork();
	SYS(cell->pid);
	if (!cell->pid)
		helper_main(cell, parent);
	return PASS;
}

/* ---- operations that end the process ---- */

/* What the process has to say, in memory that outlives it. */
struct last_words {
	volatile int outlived;
	char reason[400];
};

static void cell_live_and_end(struct cell *cell, const struct away_op *op,
			      struct last_words *words)
{
	enum verdict verdict;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	verdict = cell_begin(cell);
	if (verdict == PASS)
		op->run(cell);
	snprintf(words->reason, sizeof(words->reason), "%s",
		 verdict == PASS ? "it came back" : live_reason());
	_exit(99);
}

static enum verdict cell_end(struct cell *cell, const struct away_op *op)
{
	struct last_words *words =
		mmap(NULL, sizeof(*words), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	CHECK(words != MAP_FAILED, "no memory");
	cell->outlived = &words->outlived;
	pid = fork();
	SYS(pid);
	if (!pid)
		cell_live_and_end(cell, op, words);
	status = live_wait(pid, 10);
	CHECK(status != -1, "the process does not end");
	CHECK(status == op->ends - 1, "status %#x, expected %#x; %s", status, op->ends - 1,
	      words->reason);
	for (int i = 0; op->outlived && !words->outlived; i++) {
		CHECK(i < 5000, "the process that lives on says nothing");
		usleep(1000);
	}
	CHECK(words->outlived <= 1, "page %d of who lives on is wrong",
	      words->outlived - 2);
	return PASS;
}

struct pair {
	const struct away_state *state;
	const struct away_op *op;
};

static enum verdict run_pair(const void *arg)
{
	const struct pair *pair = arg;
	struct cell cell = { .state = pair->state };

	if (pair->op->ends)
		return cell_end(&cell, pair->op);
	if (pair->op->helper)
		TRY(helper_start(&cell));
	return cell_run(&cell, pair->op);
}

#define CASES_MAX 512u
static struct live_case cases[CASES_MAX];
static struct pair pairs[CASES_MAX];
static char names[CASES_MAX][64];
static size_t count;

static void add(const struct away_op *ops, unsigned n)
{
	for (size_t s = 0; s < STATES; s++)
		for (unsigned i = 0; i < n && count < CASES_MAX; i++, count++) {
			snprintf(names[count], sizeof(names[count]), "%s %s",
				 states[s].name, ops[i].name);
			pairs[count] = (struct pair){ &states[s], &ops[i] };
			cases[count] = (struct live_case){ .name = names[count],
							   .run = run_pair,
							   .arg = &pairs[count],
							   .limit_s = 20 };
		}
}

int main(int argc, char **argv)
{
	add(away_ops_use, away_ops_use_count);
	add(away_ops_map, away_ops_map_count);
	add(away_ops_fork, away_ops_fork_count);
	return live_main(argc, argv, cases, count);
}
