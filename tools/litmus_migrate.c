// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_migrate - cases in which the program gives up or moves what may be away.
 *
 * DONTNEED is the hard one: its message comes before the zap, so a page that leaves in
 * between survives the zap, and its bytes come back with it. The caller is made slow there:
 * it runs at SCHED_IDLE on one CPU, together with a thread that wants that CPU in bursts
 * which begin when the call does; where the CPU is never idle it is let on after a few ms.
 * Meanwhile the place goes to the device and home. What
 * must hold after the call: dropped bytes do not come back, and what is written from then
 * on stays. After MADV_FREE a page may read old bytes or zeros, but zeros stay zeros.
 *
 * `overlapped` counts the rounds in which a whole trip to the device began and ended while
 * the call had not returned; without any the case would say little.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"
#include "litmus_away.h"

#define BURN_NS 150000	/* at most, of the thread that is in the way */
#define TRIPS 64	/* at most, in one round */
#define SLOW_NS 4000000 /* so long is the caller made slow, at most */

/* ---- madvise by a thread that is often preempted in it ---- */

struct zap {
	struct litmus *l;
	struct litmus_actor actor, rival;
	int advice;
	int cpu;
	pid_t caller;
	uint64_t fresh;
	uint64_t burn_ns;
	uint64_t seen[AWAY_PAGES]; /* right after the call */
	atomic_bool returned;
	int err;
};

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set); /* else it is only less often preempted */
}

static int last_cpu(void)
{
	cpu_set_t set;
	int last = 0;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 0;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, &set))
			last = cpu;
	}
	return last;
}

static void become_caller(void *arg)
{
	struct zap *zap = arg;

	zap->caller = (pid_t)syscall(SYS_gettid);
	pin(zap->cpu);
}

static void set_slow(const struct zap *zap, bool slow)
{
	const struct sched_param param = { .sched_priority = 0 };

	sched_setscheduler(zap->caller, slow ? SCHED_IDLE : SCHED_OTHER, &param);
}

static void become_rival(void *arg)
{
	pin(((struct zap *)arg)->cpu);
}

static void burn(void *arg)
{
	struct zap *zap = arg;
	uint64_t end = tool_now() + zap->burn_ns;

	while (tool_now() < end && !atomic_load(&zap->returned))
		;
}

static void zap_call(void *arg)
{
	struct zap *zap = arg;
	char *place = zap->l->page;

	set_slow(zap, true);
	if (madvise(place, LITMUS_PLACE, zap->advice))
		zap->err = -errno;
	for (unsigned i = 0; i < AWAY_PAGES; i++) {
		zap->seen[i] = away_load(place, i);
		if (i % 2 == 0)
			away_store(place, i, zap->fresh);
	}
	atomic_store(&zap->returned, true);
}

static int zap_setup(struct litmus *l, int advice)
{
	struct zap *zap = tool_alloc(sizeof(*zap));
	int err;

	zap->l = l;
	zap->advice = advice;
	zap->cpu = last_cpu();
	l->priv = zap;
	err = litmus_actor_start(&zap->actor);
	if (err)
		goto free_zap;
	err = litmus_actor_start(&zap->rival);
	if (err)
		goto stop_actor;
	litmus_actor_call(&zap->actor, become_caller, zap);
	litmus_actor_call(&zap->rival, become_rival, zap);
	err = away_map_setup(l);
	if (!err) {
		l->also = "overlapped";
		return 0;
	}
	litmus_actor_stop(&zap->rival);
stop_actor:
	litmus_actor_stop(&zap->actor);
free_zap:
	free(zap);
	return err;
}

static void zap_end(struct litmus *l)
{
	struct zap *zap = l->priv;

	away_map_end(l);
	litmus_actor_stop(&zap->rival);
	litmus_actor_stop(&zap->actor);
	free(zap);
}

static int dontneed_setup(struct litmus *l)
{
	return zap_setup(l, MADV_DONTNEED);
}

static int free_setup(struct litmus *l)
{
	return zap_setup(l, MADV_FREE);
}

/* To the device and home, as long as the call goes on. */
static int trips(struct litmus *l, struct zap *zap)
{
	uint64_t end = tool_now() + SLOW_NS;
	bool overlapped = false;
	int err = 0;

	for (unsigned n = 0;
	     n < TRIPS && !err && !atomic_load(&zap->returned) && tool_now() < end; n++) {
		err = away_out(l, l->page);
		if (!err)
			err = away_home(l, l->page);
		overlapped |= !atomic_load(&zap->returned);
	}
	set_slow(zap, false);
	l->also_count += overlapped;
	return err;
}

/* An odd page, which nobody has written since: `before` is what the caller saw there. */
static void judge_dropped(struct litmus *l, const struct zap *zap, uint64_t before,
			  uint64_t now, uint64_t old)
{
	if (zap->advice == MADV_DONTNEED)
		away_judge(l, before, 0);
	else if (before && before != old)
		l->wrong = true;
	/* What read zero once has been dropped. */
	if (!before || zap->advice == MADV_DONTNEED)
		away_judge(l, now, 0);
	else if (now && now != old)
		l->wrong = true;
}

static int zap_round(struct litmus *l, uint64_t i)
{
	struct zap *zap = l->priv;
	uint64_t old = away_fill(l, l->page);
	int err = i / 2 % 2 ? away_out(l, l->page) : 0;

	if (err)
		return err;
	zap->fresh = ++l->generation;
	zap->burn_ns = l->generation * 7919 % BURN_NS;
	zap->err = 0;
	atomic_store(&zap->returned, false);
	litmus_actor_begin(&zap->rival, burn, zap);
	litmus_actor_begin(&zap->actor, zap_call, zap);
	err = trips(l, zap);
	litmus_actor_wait(&zap->actor);
	litmus_actor_wait(&zap->rival);
	if (err)
		return err;
	if (zap->err)
		return litmus_fail(l, zap->err, "madvise: %s", strerror(-zap->err));
	for (unsigned page = 1; page < AWAY_PAGES; page += 2)
		judge_dropped(l, zap, zap->seen[page], away_load(l->page, page), old);
	for (unsigned page = 0; page < AWAY_PAGES; page += 2)
		away_judge(l, away_load(l->page, page), zap->fresh);
	if (zap->advice == MADV_DONTNEED)
		return away_check(l, l->page, i, zap->fresh, 0);
	return 0;
}

/* ---- munmap and something new at the place ---- */

static int replace(struct litmus *l, uint64_t i)
{
	if (i / 4 % 2) {
		if (mmap(l->page, LITMUS_PLACE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != l->page)
			return litmus_fail(l, -errno, "mmap over it: %s", strerror(errno));
		return 0;
	}
	munmap(l->page, LITMUS_PLACE);
	return away_map(l, l->page);
}

static int unmap_round(struct litmus *l, uint64_t i)
{
	uint64_t fresh;
	int err = away_map(l, l->page);

	if (err)
		return err;
	away_fill(l, l->page);
	if (i / 2 % 2)
		err = away_out(l, l->page);
	if (!err)
		err = replace(l, i);
	if (err)
		return err;
	fresh = ++l->generation;
	for (unsigned page = 0; page < AWAY_PAGES; page += 2)
		away_store(l->page, page, fresh);
	if (i / 8 % 2)
		err = away_out(l, l->page);
	if (!err)
		err = away_check(l, l->page, i, fresh, 0);
	munmap(l->page, LITMUS_PLACE);
	return err;
}

/* ---- mremap ---- */

static int move(struct litmus *l, char *from, char *to)
{
	if (mremap(from, LITMUS_PLACE, LITMUS_PLACE, MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
	    to)
		return litmus_fail(l, -errno, "mremap: %s", strerror(errno));
	return 0;
}

/* Away, something new at the old place, and back over it. */
static int mremap_round(struct litmus *l, uint64_t i)
{
	uint64_t moved, fresh;
	int err = away_map(l, l->page);

	if (err)
		return err;
	moved = away_fill(l, l->page);
	if (i / 2 % 2)
		err = away_out(l, l->page);
	if (!err)
		err = move(l, l->page, l->other);
	if (!err)
		err = away_map(l, l->page);
	if (err)
		return err;
	fresh = away_fill(l, l->page);
	if (i / 4 % 2)
		err = away_out(l, l->other);
	if (!err && i / 8 % 2)
		err = away_out(l, l->page);
	if (!err)
		err = away_check(l, l->page, i, fresh, fresh);
	if (!err)
		err = away_check(l, l->other, i, moved, moved);
	if (!err && i / 16 % 2)
		err = away_out(l, l->other);
	if (!err)
		err = move(l, l->other, l->page);
	if (!err)
		err = away_check(l, l->page, i, moved, moved);
	munmap(l->page, LITMUS_PLACE);
	return err;
}

const struct litmus_case litmus_migrate_cases[] = {
	{ .name = "away_dontneed",
	  .what = "DONTNEED, preempted in it, while pages go to a device and home",
	  .setup = dontneed_setup,
	  .round = zap_round,
	  .end = zap_end },
	{ .name = "away_free",
	  .what = "the same with MADV_FREE",
	  .setup = free_setup,
	  .round = zap_round,
	  .end = zap_end },
	{ .name = "away_munmap",
	  .what = "munmap of pages that are away, and new ones at their place",
	  .setup = away_setup,
	  .round = unmap_round,
	  .end = away_end },
	{ .name = "away_mremap",
	  .what = "mremap of pages that are away, and back",
	  .setup = away_setup,
	  .round = mremap_round,
	  .end = away_end },
	{ .name = NULL },
};
