// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_owner - cases in which the bytes stay and somebody else looks at them, or writes.
 *
 * fork: the child must find what was there, and the parent goes on writing at once. By
 * fork(), before which everything comes home, and by a raw clone(), before which nobody
 * asks the library. mprotect: permissions hold for what is away too. write, exclusive: the
 * device and the CPU write beside each other while the page moves; each counts up, so a
 * number that falls is an old byte, and a sum that is too small a lost one.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "litmus_away.h"

#define STEPS 8u    /* of each side, in one round */
#define ADDS 20000u /* of the CPU, at most, as long as the device's go on */
#define TRIES_NS UINT64_C(5000000000)
#define CHILD_STALE 1
#define CHILD_LOST 2

/* ---- fork ---- */

/* In the child, which may do nothing but look and leave. */
static void child_main(char *place, uint64_t expected)
{
	int found = 0;

	for (unsigned i = 0; i < AWAY_PAGES; i++) {
		uint64_t seen = away_load(place, i);

		if (seen != expected)
			found |= seen ? CHILD_STALE : CHILD_LOST;
	}
	_exit(found);
}

static int wait_child(struct litmus *l, pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return litmus_fail(l, -errno, "waitpid: %s", strerror(errno));
	}
	if (WIFSIGNALED(status))
		return litmus_fail(l, -EIO, "the child was killed by signal %d",
				   WTERMSIG(status));
	l->wrong |= !!(WEXITSTATUS(status) & CHILD_STALE);
	l->missing |= !!(WEXITSTATUS(status) & CHILD_LOST);
	return 0;
}

static int fork_round(struct litmus *l, uint64_t i)
{
	uint64_t before = away_fill(l, l->page), after;
	int err = i / 4 % 4 ? away_out(l, l->page) : 0;
	pid_t child;

	if (err)
		return err;
	if (i / 2 % 2)
		child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	else
		child = fork();
	if (!child)
		child_main(l->page, before);
	if (child < 0)
		return litmus_fail(l, -errno, "fork: %s", strerror(errno));
	after = away_fill(l, l->page);
	err = wait_child(l, child);
	return err ? err : away_check(l, l->page, i, after, after);
}

/* ---- mprotect ---- */

static int set_prot(struct litmus *l, int prot)
{
	if (mprotect(l->page, LITMUS_PLACE, prot))
		return litmus_fail(l, -errno, "mprotect: %s", strerror(errno));
	return 0;
}

/* A write of the device must be refused with -EPERM, a read of PROT_NONE with -EFAULT. */
static int check_refused(struct litmus *l, int err, int expected)
{
	if (err && err != expected)
		return litmus_fail(l, err, "device access where it is forbidden: %s",
				   hmm_strerror(err));
	l->wrong |= !err;
	return 0;
}

static int none_round(struct litmus *l)
{
	uint64_t value;
	int err = set_prot(l, PROT_NONE);

	return err ? err : check_refused(l, away_read(l, l->page, &value), -EFAULT);
}

static int mprotect_round(struct litmus *l, uint64_t i)
{
	char *page = l->page + i / 4 % AWAY_PAGES * LITMUS_PAGE;
	uint64_t before = away_fill(l, l->page), after;
	int err = i / 2 % 4 ? away_out(l, l->page) : 0;

	if (!err)
		err = set_prot(l, PROT_READ);
	if (!err)
		err = check_refused(l, away_write(l, page, ++l->generation), -EPERM);
	if (!err)
		err = away_check(l, l->page, i, before, before);
	if (!err && i / 8 % 2)
		err = none_round(l);
	if (err) {
		mprotect(l->page, LITMUS_PLACE, PROT_READ | PROT_WRITE);
		return err;
	}
	err = set_prot(l, PROT_READ | PROT_WRITE);
	if (err)
		return err;
	after = ++l->generation;
	err = away_write(l, page, after);
	if (err)
		return litmus_fail(l, err, "device write: %s", hmm_strerror(err));
	away_judge(l, __atomic_load_n((uint64_t *)page, __ATOMIC_SEQ_CST), after);
	return 0;
}

/* ---- both write ---- */

struct both {
	struct litmus *l;
	struct litmus_actor cpu;
	char *page;
	uint64_t by_cpu,
		by_device; /* numbers stored last; the CPU's own and the device's */
	bool fell;	   /* the CPU saw a number that was older than the last */
	atomic_bool added; /* the device has added all */
};

static uint64_t *cpu_word(const struct both *both)
{
	return (uint64_t *)both->page;
}

static uint64_t *device_word(const struct both *both)
{
	return (uint64_t *)both->page + 1;
}

static void cpu_writes(void *arg)
{
	struct both *both = arg;
	uint64_t last = 0;

	for (unsigned i = 0; i < STEPS; i++) {
		uint64_t seen = __atomic_load_n(device_word(both), __ATOMIC_SEQ_CST);

		both->fell |= seen < last;
		last = seen;
		__atomic_store_n(cpu_word(both), ++both->by_cpu, __ATOMIC_SEQ_CST);
	}
}

static int device_writes(struct litmus *l, struct both *both)
{
	uint64_t seen = 0, last = 0;
	int err = 0;

	for (unsigned i = 0; i < STEPS && !err; i++) {
		err = away_read(l, (char *)cpu_word(both), &seen);
		l->wrong |= !err && seen < last;
		last = seen;
		if (!err)
			err = away_write(l, (char *)device_word(both), ++both->by_device);
		if (!err && i == STEPS / 2)
			err = away_out(l, l->page);
	}
	return err ? litmus_fail(l, err, "device access: %s", hmm_strerror(err)) : 0;
}

static int both_setup(struct litmus *l)
{
	struct both *both = tool_alloc(sizeof(*both));
	int err = litmus_actor_start(&both->cpu);

	if (!err) {
		both->l = l;
		l->priv = both;
		err = away_map_setup(l);
		if (!err)
			return 0;
		litmus_actor_stop(&both->cpu);
	}
	free(both);
	return err;
}

static void both_end(struct litmus *l)
{
	struct both *both = l->priv;

	away_map_end(l);
	litmus_actor_stop(&both->cpu);
	free(both);
}

/* Numbers go on from round to round, so that each page always holds an older one. */
static int write_round(struct litmus *l, uint64_t i)
{
	struct both *both = l->priv;
	uint64_t seen = 0;
	int err;

	both->page = l->page + i / 2 % AWAY_PAGES * LITMUS_PAGE;
	both->fell = false;
	litmus_actor_begin(&both->cpu, cpu_writes, both);
	err = device_writes(l, both);
	litmus_actor_wait(&both->cpu);
	if (err)
		return err;
	l->wrong |= both->fell;
	l->missing |=
		__atomic_load_n(device_word(both), __ATOMIC_SEQ_CST) != both->by_device;
	err = away_read(l, (char *)cpu_word(both), &seen);
	if (err)
		return litmus_fail(l, err, "device read: %s", hmm_strerror(err));
	l->missing |= seen != both->by_cpu;
	return 0;
}

/* ---- atomics of both on one word ---- */

static void cpu_adds(void *arg)
{
	struct both *both = arg;

	both->by_cpu = 0;
	while (both->by_cpu < STEPS ||
	       (both->by_cpu < ADDS && !atomic_load(&both->added))) {
		__atomic_fetch_add(cpu_word(both), 1, __ATOMIC_SEQ_CST);
		both->by_cpu++;
	}
}

/* -EBUSY says that it was not done: somebody else moves the page just now. */
static int device_adds(struct litmus *l, struct both *both)
{
	uint64_t deadline = tool_now() + TRIES_NS;
	unsigned done = 0;
	int err = 0;

	while (done < STEPS && !err) {
		err = away_add(l, (char *)cpu_word(both));
		if (!err)
			done++;
		else if (err == -EBUSY && tool_now() < deadline)
			err = 0;
	}
	return err ? litmus_fail(l, err, "device atomic: %s", hmm_strerror(err)) : 0;
}

static int exclusive_round(struct litmus *l, uint64_t i)
{
	struct both *both = l->priv;
	uint64_t sum, seen;
	int err;

	both->page = l->page + i / 2 % AWAY_PAGES * LITMUS_PAGE;
	__atomic_store_n(cpu_word(both), 0, __ATOMIC_SEQ_CST);
	atomic_store(&both->added, false);
	litmus_actor_begin(&both->cpu, cpu_adds, both);
	err = device_adds(l, both);
	atomic_store(&both->added, true);
	litmus_actor_wait(&both->cpu);
	if (err)
		return err;
	seen = __atomic_load_n(cpu_word(both), __ATOMIC_SEQ_CST);
	sum = both->by_cpu + STEPS;
	l->wrong |= seen > sum;
	l->missing |= seen < sum;
	return 0;
}

const struct litmus_case litmus_owner_cases[] = {
	{ .name = "away_fork",
	  .what = "fork() and raw clone() while pages are away",
	  .setup = away_map_setup,
	  .round = fork_round,
	  .end = away_map_end },
	{ .name = "away_mprotect",
	  .what = "mprotect of pages that are away",
	  .setup = away_map_setup,
	  .round = mprotect_round,
	  .end = away_map_end },
	{ .name = "away_write",
	  .what = "the device and the CPU write in a page that moves",
	  .setup = both_setup,
	  .round = write_round,
	  .end = both_end },
	{ .name = "away_exclusive",
	  .what = "atomics of the device and of the CPU on one word",
	  .setup = both_setup,
	  .round = exclusive_round,
	  .end = both_end },
	{ .name = NULL },
};
