// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_map - cases in which the mapping itself is changed.
 *
 * Each round: map the place, store a generation, let the device fault it; then change the
 * mapping, store the next generation in what is there now, and let the device read again.
 * All of them are changes that the kernel reports when the mapping is gone already, with
 * the caller held until the report is read (UNMAP, REMAP), so what is tested is G1 in the
 * time between the unmap and its delivery.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "litmus.h"

/* Mapped, filled, seen by the device: how each round begins. */
static int begin(struct litmus *l, uint64_t *generation)
{
	int err = litmus_map_at(l, l->page);

	if (err)
		return err;
	*generation = litmus_fill(l, l->page);
	return litmus_touch(l, l->page, *generation);
}

/* The place has been unmapped by this thread: three rounds of four something new is there.
 */
static int after_unmap(struct litmus *l, uint64_t i)
{
	uint64_t generation;
	int err;

	if (i / 2 % 4 == 3) {
		litmus_changed(l, l->page);
		return litmus_check_gone(l, l->page);
	}
	err = litmus_map_at(l, l->page);
	if (err)
		return err;
	generation = litmus_fill(l, l->page);
	litmus_changed(l, l->page);
	err = litmus_check(l, l->page, generation);
	munmap(l->page, LITMUS_PLACE);
	return err;
}

static int munmap_round(struct litmus *l, uint64_t i)
{
	uint64_t generation;
	int err = begin(l, &generation);

	if (err)
		return err;
	munmap(l->page, LITMUS_PLACE);
	return after_unmap(l, i);
}

/* What a program does that no patched libc function sees. */
static int raw_round(struct litmus *l, uint64_t i)
{
	uint64_t generation;
	long got;
	int err = begin(l, &generation);

	if (err)
		return err;
	syscall(SYS_munmap, l->page, LITMUS_PLACE);
	got = syscall(SYS_mmap, l->page, LITMUS_PLACE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (got != (long)l->page)
		return litmus_fail(l, -EEXIST, "mmap by syscall(): %s", strerror(errno));
	generation = litmus_fill(l, l->page);
	litmus_changed(l, l->page);
	err = litmus_check(l, l->page, generation);
	syscall(SYS_munmap, l->page, LITMUS_PLACE);
	return err;
}

/*
 * The race that only the probe closes: the unmap has dropped its lock, its message is not
 * queued, and we have the address already. `returned` tells how many rounds found it so.
 */
struct taken {
	char *page;
	atomic_bool returned;
};

static void taken_unmap(void *arg)
{
	struct taken *taken = arg;

	munmap(taken->page, LITMUS_PLACE);
	atomic_store(&taken->returned, true);
}

/* Take the address the moment it is free: the loop does nothing but ask. */
static int take(struct litmus *l)
{
	for (unsigned tries = 1;; tries++) {
		char *got = mmap(l->page, LITMUS_PLACE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (got == l->page)
			return 0;
		if (errno != EEXIST)
			return litmus_fail(l, -errno, "mmap: %s", strerror(errno));
		if (tries % 64 == 0)
			sched_yield(); /* the other thread may need this very CPU */
	}
}

static int taken_round(struct litmus *l, uint64_t i)
{
	struct taken taken = { .page = l->page };
	uint64_t generation;
	bool pending;
	int err = begin(l, &generation);

	if (err)
		return err;
	litmus_actor_begin(&l->young, taken_unmap, &taken);
	err = take(l);
	if (!err) {
		/* Half of the rounds ask at once, and find zeros or what is stale. */
		generation = i / 2 % 2 ? litmus_fill(l, l->page) : 0;
		litmus_changed(l, l->page);
		pending = !atomic_load(&taken.returned);
		err = litmus_check(l, l->page, generation);
		l->also_count += pending;
	}
	litmus_actor_wait(&l->young);
	munmap(l->page, LITMUS_PLACE);
	return err;
}

static int taken_setup(struct litmus *l)
{
	l->also = "pending";
	return 0;
}

static int fixed_round(struct litmus *l, uint64_t i)
{
	uint64_t generation;
	int err = begin(l, &generation);

	if (err)
		return err;
	if (mmap(l->page, LITMUS_PLACE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != l->page)
		return litmus_fail(l, -errno, "mmap over it: %s", strerror(errno));
	generation = litmus_fill(l, l->page);
	litmus_changed(l, l->page);
	err = litmus_check(l, l->page, generation);
	munmap(l->page, LITMUS_PLACE);
	return err;
}

static int move(struct litmus *l, char *from, char *to)
{
	if (mremap(from, LITMUS_PLACE, LITMUS_PLACE, MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
	    to)
		return litmus_fail(l, -errno, "mremap: %s", strerror(errno));
	litmus_changed(l, from);
	litmus_changed(l, to);
	return 0;
}

/* Away, something new at the old place, and back over it. */
static int mremap_round(struct litmus *l, uint64_t i)
{
	uint64_t moved, generation;
	int err = begin(l, &moved);

	if (!err)
		err = move(l, l->page, l->other);
	if (!err)
		err = litmus_map_at(l, l->page);
	if (err)
		return err;
	generation = litmus_fill(l, l->page);
	err = litmus_check(l, l->page, generation);
	if (!err)
		err = litmus_check(l, l->other, moved);
	if (!err)
		err = move(l, l->other, l->page);
	if (!err)
		err = litmus_check(l, l->page, moved);
	if (!err)
		err = litmus_check_gone(l, l->other);
	munmap(l->page, LITMUS_PLACE);
	return err;
}

const struct litmus_case litmus_map_cases[] = {
	{ .name = "munmap",
	  .what = "munmap and mmap at the same address",
	  .gpu = true,
	  .round = munmap_round },
	{ .name = "munmap_taken",
	  .what = "another thread's munmap, its address taken while it is pending",
	  .gpu = true,
	  .setup = taken_setup,
	  .round = taken_round },
	{ .name = "raw_syscall",
	  .what = "munmap and mmap by syscall()",
	  .gpu = true,
	  .round = raw_round },
	{ .name = "map_fixed",
	  .what = "mmap(MAP_FIXED) over it",
	  .gpu = true,
	  .round = fixed_round },
	{ .name = "mremap",
	  .what = "mremap away and back",
	  .gpu = true,
	  .round = mremap_round },
	{ .name = NULL },
};
