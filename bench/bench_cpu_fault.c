// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_cpu_fault - the CPU touches what is in the device's memory: cpu_fault_random,
 * cpu_fault_seq, ping_pong, exclusive.
 *
 * The plain way is a userfaultfd loop of one's own (bench_missing.c) over a region of the
 * same size, touched in the same order. Going away is not timed on either side, but in
 * ping_pong and exclusive, where the device's touch is part of what is measured.
 */
#include <errno.h>

#include "bench.h"

#define PAGES 4096ul
#define BYTES (PAGES * BENCH_PAGE)
#define TURNS 64 /* of ping_pong and exclusive in a batch */

struct cpu_fault {
	struct bench_away away;
	struct raw_missing raw;
	uint32_t order[PAGES];
	bool each;   /* the cost of a fault, not of a page */
	bool atomic; /* exclusive; else ping_pong */
};

static uint64_t faults(const struct bench_away *away)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };

	hmm_devmem_get_stats(vram_devmem(away->vram), &stats);
	return stats.cpu_faults;
}

/* Every page once; the sum keeps the reads. */
static int touch(const struct cpu_fault *fault, const volatile char *memory, double *ns)
{
	uint64_t start = tool_now();
	unsigned sum = 0;

	for (size_t i = 0; i < PAGES; i++)
		sum += (unsigned)memory[fault->order[i] * BENCH_PAGE];
	*ns = (double)(tool_now() - start);
	return sum == PAGES ? 0 : -EIO;
}

static int away_batch(void *arg, double *cost)
{
	struct cpu_fault *fault = arg;
	uint64_t before = faults(&fault->away), count;
	int err = bench_away_out(&fault->away, 0, BYTES);

	if (err)
		return err;
	err = touch(fault, fault->away.memory, cost);
	count = faults(&fault->away) - before;
	*cost /= fault->each ? (double)(count ? count : 1) : (double)PAGES;
	return err;
}

static int raw_batch(void *arg, double *cost)
{
	struct cpu_fault *fault = arg;
	int err;

	raw_missing_arm(&fault->raw, BYTES);
	err = touch(fault, fault->raw.memory, cost);
	*cost /= (double)PAGES;
	return err;
}

static void make_order(struct cpu_fault *fault, bool random)
{
	uint64_t state = 88172645463325252u;

	for (uint32_t i = 0; i < PAGES; i++)
		fault->order[i] = i;
	for (uint32_t i = PAGES - 1; random && i > 0; i--) {
		uint32_t other, kept = fault->order[i];

		state ^= state << 13;
		state ^= state >> 7;
		state ^= state << 17;
		other = (uint32_t)(state % (i + 1));
		fault->order[i] = fault->order[other];
		fault->order[other] = kept;
	}
}

/* Open both sides, or say why a row is missing. */
static bool begin(struct bench *bench, struct cpu_fault *fault, const char *name, bool host)
{
	int err = bench_away_open(&fault->away, host, BYTES, false);

	if (!err) {
		err = raw_missing_open(&fault->raw, BYTES);
		if (!err)
			return true;
		bench_away_close(&fault->away);
	}
	bench_skip(bench, name, "%s", hmm_strerror(err));
	return false;
}

static void end(struct cpu_fault *fault)
{
	raw_missing_close(&fault->raw);
	bench_away_close(&fault->away);
}

void bench_cpu_fault_random(struct bench *bench)
{
	static const struct bench_title titles[2][2] = {
		{ { "cpu_fault_random", "ns/page", "userfaultfd, poll, read, COPY", NULL },
		  { "cpu_fault_random/fault", "ns/fault", "userfaultfd, poll, read, COPY",
		    "<= 1.1x" } },
		{ { "cpu_fault_random_copy", "ns/page", "userfaultfd, poll, read, COPY",
		    NULL },
		  { "cpu_fault_random_copy/fault", "ns/fault",
		    "userfaultfd, poll, read, COPY", "<= 1.1x" } },
	};
	static struct cpu_fault fault;

	make_order(&fault, true);
	for (unsigned copy = 0; copy < 2; copy++) {
		if (!begin(bench, &fault, titles[copy][0].name, !copy))
			continue;
		for (unsigned each = 0; each < 2; each++) {
			fault.each = each;
			bench_pair(bench, &titles[copy][each], away_batch, raw_batch,
				   &fault);
		}
		end(&fault);
	}
}

void bench_cpu_fault_seq(struct bench *bench)
{
	static const struct bench_title titles[2] = {
		{ "cpu_fault_seq", "ns/page", "userfaultfd, poll, read, COPY",
		  "<= 0.125x" },
		{ "cpu_fault_seq_copy", "ns/page", "userfaultfd, poll, read, COPY",
		  "<= 0.125x" },
	};
	static struct cpu_fault fault;

	fault.each = false;
	make_order(&fault, false);
	for (unsigned copy = 0; copy < 2; copy++) {
		if (!begin(bench, &fault, titles[copy].name, !copy))
			continue;
		bench_pair(bench, &titles[copy], away_batch, raw_batch, &fault);
		end(&fault);
	}
}

/* ---- one page, in turn ---- */

static int device_turn(struct cpu_fault *fault, uint64_t turn)
{
	struct vram *vram = fault->away.vram;
	char *page = fault->away.memory;
	int err;

	if (fault->atomic)
		return vram_add(vram, page, 1);
	err = bench_away_out(&fault->away, 0, BENCH_PAGE);
	return err ? err : vram_write(vram, page, turn);
}

static int turn_batch(void *arg, double *cost)
{
	struct cpu_fault *fault = arg;
	uint64_t *word = (uint64_t *)fault->away.memory, start = tool_now();
	int err = 0;

	__atomic_store_n(word, 0, __ATOMIC_SEQ_CST);
	for (uint64_t i = 0; i < TURNS && !err; i++) {
		err = device_turn(fault, 2 * i + 1);
		if (!err && __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST) != 2 * i + 1)
			err = -EIO;
	}
	*cost = (double)(tool_now() - start) / TURNS;
	return err;
}

/* The DONTNEED that takes the page away is the plain way's own, and not timed. */
static int raw_turn_batch(void *arg, double *cost)
{
	struct cpu_fault *fault = arg;
	unsigned times = fault->atomic ? 2 : 1;
	uint64_t ns = 0, start;

	for (unsigned i = 0; i < TURNS * times; i++) {
		raw_missing_arm(&fault->raw, BENCH_PAGE);
		start = tool_now();
		__atomic_fetch_add((uint64_t *)fault->raw.memory, 1, __ATOMIC_SEQ_CST);
		ns += tool_now() - start;
	}
	*cost = (double)ns / TURNS;
	return 0;
}

static void turn_row(struct bench *bench, const struct bench_title *title, bool host,
		     bool atomic)
{
	static struct cpu_fault fault;

	if (!begin(bench, &fault, title->name, host))
		return;
	fault.atomic = atomic;
	bench_pair(bench, title, turn_batch, raw_turn_batch, &fault);
	end(&fault);
}

void bench_ping_pong(struct bench *bench)
{
	static const struct bench_title host = { "ping_pong", "ns/turn", "one raw fault",
						 NULL };
	static const struct bench_title copy = { "ping_pong_copy", "ns/turn",
						 "one raw fault", NULL };

	turn_row(bench, &host, true, false);
	turn_row(bench, &copy, false, false);
}

void bench_exclusive(struct bench *bench)
{
	static const struct bench_title title = { "exclusive", "ns/pair", "two raw faults",
						  NULL };

	turn_row(bench, &title, true, true);
}
