/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_migrate_steps - everything that can happen to a page, at every step of everything
 * that moves it (G5; docs/migration.md).
 *
 * A migration is run once to count the calls that it makes of the system and of the
 * driver; then again for each of them, with one action of another thread before it, or
 * after it. The action's messages are queued and their callers go on at once, or only later.
 * away.h says what must hold at any moment and in the end.
 */
#include "away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Calls of one kind that an action is placed at; from there on they are more of the same. */
#define NTH 4u

/* ---- what another thread does meanwhile ---- */

static int cpu_reads(void *arg)
{
	away_read(P);
	return 0;
}

static int cpu_writes(void *arg)
{
	away_write(P, 77);
	return 0;
}

static int dontneed(void *arg)
{
	away_dontneed(P, 2);
	return 0;
}

static int unmap(void *arg)
{
	away_unmap(P, 2);
	return 0;
}

static int map_anew(void *arg)
{
	away_unmap(P, 2);
	away_map(P, 2);
	return 0;
}

static int map_anew_and_write(void *arg)
{
	map_anew(arg);
	away_write(P, 55);
	return 0;
}

static int remap(void *arg)
{
	away_remap(P, Q, 2, false);
	return 0;
}

static int remap_dontunmap(void *arg)
{
	away_remap(P, Q, 2, true);
	return 0;
}

static int back_again(void *arg)
{
	if (fake_pending(0))
		fake_at(FAKE_OP_READ, FAKE_AFTER, -1, 1, back_again, NULL);
	else if (away.page[Q].is == AWAY_READS)
		away_remap(Q, P, 2, false);
	return 0;
}

/* The thread comes back from its first mremap when that was read. */
static int remap_twice(void *arg)
{
	away_remap(P, Q, 2, false);
	fake_at(FAKE_OP_READ, FAKE_AFTER, -1, 1, back_again, NULL);
	return 0;
}

static int remap_and_map_anew(void *arg)
{
	away_remap(P, Q, 2, false);
	away_map(P, 2);
	away_write(P, 56);
	return 0;
}

static int remap_within(void *arg)
{
	away_unmap(P, 1);
	away_remap(P + 1, P, 1, false);
	return 0;
}

/* Onto it, from a mapping of another context. */
static int remap_onto(void *arg)
{
	away_unmap(P, 2);
	away_remap(B, P, 2, false);
	return 0;
}

static int unmap_fails(void *arg)
{
	fake_unmap_fails(P, 2);
	return 0;
}

static int make_read_only(void *arg)
{
	fake_protect(A, LEN, PROT_READ);
	return 0;
}

static int make_part_read_only(void *arg)
{
	fake_protect(P, 1, PROT_READ);
	return 0;
}

static int guard(void *arg)
{
	away_guard(P);
	return 0;
}

static int fork_raw(void *arg)
{
	away_fork();
	return 0;
}

static int fork_and_dontneed(void *arg)
{
	away_fork();
	away_dontneed(P, 2);
	return 0;
}

static int fork_and_remap(void *arg)
{
	away_fork();
	away_remap(P, Q, 2, false);
	return 0;
}

static int fork_and_unmap(void *arg)
{
	away_fork();
	away_unmap(P, 2);
	return 0;
}

static int device_reads(void *arg)
{
	int err = lock_held ? -EBUSY : away_device_reads(P);

	if (err && err != -EBUSY && err != -EAGAIN && err != -ENOMEM)
		fake_fail("%s: the device: %s", away.doing, hmm_strerror(err));
	return 0;
}

static int device_writes(void *arg)
{
	int err = lock_held ? -EBUSY : away_device_writes(P, 66);

	if (err && err != -EBUSY && err != -EAGAIN && err != -ENOMEM && err != -EPERM)
		fake_fail("%s: the device: %s", away.doing, hmm_strerror(err));
	return 0;
}

static int nothing(void *arg)
{
	return 0;
}

static const struct {
	const char *name;
	fake_action action;
} actions[] = {
	{ "nothing", nothing },
	{ "a CPU reads", cpu_reads },
	{ "a CPU writes", cpu_writes },
	{ "DONTNEED", dontneed },
	{ "munmap", unmap },
	{ "munmap, mmap", map_anew },
	{ "munmap, mmap, write", map_anew_and_write },
	{ "mremap", remap },
	{ "mremap DONTUNMAP", remap_dontunmap },
	{ "mremap to and fro", remap_twice },
	{ "mremap, mmap, write", remap_and_map_anew },
	{ "munmap, mremap onto it", remap_within },
	{ "mremap of another context onto it", remap_onto },
	{ "munmap fails", unmap_fails },
	{ "mprotect of all", make_read_only },
	{ "mprotect of one page", make_part_read_only },
	{ "guard page", guard },
	{ "fork", fork_raw },
	{ "fork, munmap", fork_and_unmap },
	{ "fork, DONTNEED", fork_and_dontneed },
	{ "fork, mremap", fork_and_remap },
	{ "the device reads", device_reads },
	{ "the device writes", device_writes },
};

#define ACTIONS (sizeof(actions) / sizeof(actions[0]))

/* ---- what moves the pages ---- */

static void may_fail(int64_t answer, const char *what)
{
	if (answer < 0 && answer != -EBUSY && answer != -EINVAL && answer != -ENOSPC)
		fake_fail("%s: %s says %s", away.doing, what, hmm_strerror((int)answer));
}

static void out(void)
{
	may_fail(hmm_migrate_to_device(away.vram.devmem, fake_addr(P - 1), 4 * PAGE), "to_device");
}

static void by_fault(void)
{
	uint64_t value;

	for (unsigned page = P - 1; page < P + 3; page++)
		if (fake_sight(page, &value) == FAKE_WAITS)
			fake_read_page(page);
}

static void by_call(void)
{
	may_fail(hmm_migrate_to_host(away.hmm, fake_addr(P - 1), 4 * PAGE), "to_host");
}

static void by_evict(void)
{
	may_fail(hmm_devmem_evict(away.vram.devmem, 0, VRAM_FRAMES), "evict");
}

static void copy_by_hand(struct hmm_migrate *m, const uint64_t *frames, unsigned got)
{
	unsigned next = 0;

	for (unsigned i = 0; i < m->npages; i++) {
		uint64_t src = m->src[i];

		if (!(src & HMM_MIGRATE_MIGRATE) || next == got)
			continue;
		m->dst[i] = hmm_migrate_frame(frames[next]);
		if (!away.vram.options.host_frames)
			away.vram.frame[frames[next]] =
				src & HMM_MIGRATE_VALID
					? fake_load((uintptr_t)hmm_migrate_page(src))
					: 0;
		next++;
		fake_point(FAKE_OP_DRIVER, FAKE_BEFORE, -1);
	}
}

static void three_steps(void)
{
	uint64_t src[4] = { 0 }, dst[4] = { 0 }, frames[4];
	struct hmm_migrate m = { .size = sizeof(m), .devmem = away.vram.devmem,
				 .start = fake_addr(P - 1), .end = fake_addr(P + 3),
				 .src = src, .dst = dst };
	int err;

	away.only_looks = true; /* else it would wait for our own finalize */
	err = hmm_migrate_setup(&m);
	may_fail(err, "setup");
	if (err)
		return;
	copy_by_hand(&m, frames, hmm_devmem_frames(away.vram.devmem, frames, m.cpages));
	may_fail(hmm_migrate_pages(&m), "pages");
	hmm_migrate_finalize(&m);
	away.only_looks = false;
}

static const struct {
	const char *name;
	void (*run)(void);
	bool home;	/* they are away before */
	bool by_hand;	/* the driver copies */
} moves[] = {
	{ "out", out, false, false },
	{ "three steps", three_steps, false, true },
	{ "home by a fault", by_fault, true, false },
	{ "home by a call", by_call, true, false },
	{ "home by frames", by_evict, true, false },
};

#define MOVES (sizeof(moves) / sizeof(moves[0]))

/* ---- one run ---- */

enum mode { AT_ONCE, QUEUED_LATER, RESUMED_LATER, ZAPPED_LATER, MODES };

static int queue_later(void *arg)
{
	fake_queue_all();
	return 0;
}

static int resume_later(void *arg)
{
	fake_resume_all();
	return 0;
}

struct placed {
	fake_action action;
	enum mode mode;
};

static int place(void *arg)
{
	const struct placed *placed = arg;

	fake.hold_queue = placed->mode == QUEUED_LATER;
	fake.hold_resume = placed->mode == RESUMED_LATER;
	fake.hold_zap = placed->mode == ZAPPED_LATER;
	placed->action(NULL);
	fake.hold_queue = fake.hold_resume = fake.hold_zap = false;
	if (placed->mode != AT_ONCE)
		for (unsigned i = 0; i < 2; i++)
			fake_at(i ? FAKE_OP_SLEEP : FAKE_OP_WAIT, FAKE_BEFORE, -1, 5,
				placed->mode == QUEUED_LATER ? queue_later : resume_later, NULL);
	return 0;
}

static void prepare(unsigned move)
{
	away_again();
	away_dontneed(P + 2, 1); /* one that is a hole */
	fake_settle();
	if (vram_program(&away.vram, B, B_LEN, true))
		fake_fail("the device cannot have B");
	fake_settle();
	if (moves[move].home)
		away_move(P - 1, 4);
}

static void count(unsigned move, unsigned *calls)
{
	away.doing = moves[move].name;
	prepare(move);
	memcpy(calls, fake.calls, sizeof(fake.calls));
	moves[move].run();
	for (unsigned op = 0; op < FAKE_OPS; op++)
		calls[op] = fake.calls[op] - calls[op];
	away_end(false);
}

static void run(unsigned move, enum fake_op op, enum fake_when when, unsigned nth,
		unsigned action, enum mode mode)
{
	static char doing[200];
	struct placed placed = { actions[action].action, mode };

	snprintf(doing, sizeof(doing), "%s%s, %s, %s call %u of op %u, mode %u",
		 moves[move].name, away.vram.options.host_frames ? " (host frames)" : "",
		 actions[action].name, when == FAKE_BEFORE ? "before" : "after", nth, op, mode);
	away.doing = doing;
	prepare(move);
	fake_at(op, when, -1, nth, place, &placed);
	moves[move].run();
	away_end(false);
}

static const enum fake_op placed_at[] = {
	FAKE_OP_PROBE, FAKE_OP_READ, FAKE_OP_REGISTER, FAKE_OP_UNREGISTER, FAKE_OP_FIND,
	FAKE_OP_FIND_FAST, FAKE_OP_SCAN, FAKE_OP_POPULATE, FAKE_OP_WAIT, FAKE_OP_SLEEP,
	FAKE_OP_REGISTER_MISSING, FAKE_OP_MOVE, FAKE_OP_COPY, FAKE_OP_ZERO, FAKE_OP_WAKE,
	FAKE_OP_REGION_ZAP, FAKE_OP_VMA_FLAGS, FAKE_OP_SETTLED, FAKE_OP_NUDGE, FAKE_OP_DRIVER,
};

static unsigned run_all(unsigned move, const unsigned *calls)
{
	unsigned runs = 0;

	for (unsigned o = 0; o < sizeof(placed_at) / sizeof(placed_at[0]); o++) {
		unsigned most = calls[placed_at[o]] < NTH ? calls[placed_at[o]] : NTH;

		for (unsigned nth = 1; nth <= most; nth++)
			for (unsigned i = 0; i < 2 * ACTIONS * MODES; i++) {
				unsigned action = i / 2 % ACTIONS, mode = i / 2 / ACTIONS;

				if (mode == ZAPPED_LATER && actions[action].action != dontneed)
					continue;
				run(move, placed_at[o], i & 1, nth, action, mode);
				runs++;
			}
	}
	return runs;
}

static void at_every_step(struct hmm *hmm, const struct hmm_devmem_options *options, bool late)
{
	unsigned calls[FAKE_OPS], runs = 0;

	away_begin(hmm, options);
	away.vram.late = late;
	away_end(false);
	for (unsigned m = 0; m < MOVES; m++) {
		count(m, calls);
		runs += run_all(m, calls);
	}
	print_message("%u runs\n", runs);
	assert_true(runs > 1000);
	away_again();
	away_end(true);
}

static void of_frames_that_are_copied_to(void **state)
{
	at_every_step(*state, NULL, true);
}

static void of_frames_that_are_copied_to_at_once(void **state)
{
	at_every_step(*state, NULL, false);
}

static void of_host_frames(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
					      .frames = VRAM_FRAMES, .host_frames = true };

	at_every_step(*state, &options, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(of_frames_that_are_copied_to, fake_setup,
						fake_teardown),
		cmocka_unit_test_setup_teardown(of_frames_that_are_copied_to_at_once, fake_setup,
						fake_teardown),
		cmocka_unit_test_setup_teardown(of_host_frames, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
