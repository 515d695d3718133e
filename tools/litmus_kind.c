// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_kind - cases that are reported in another way, or not at all.
 *
 * mprotect: no message; the perf ring has a record before the call returns, and it does not
 * hold the caller. So the law is G3's: a job submitted after it must not use the old
 * permission. By a thread that was there before the mirror too: perf events are per thread.
 *
 * shmdt: neither message nor record. What finds it is the registration token at the fence.
 *
 * brk: the heap shrinks (a message, as munmap) and grows again over the same addresses:
 * what the device reads there must be zero again.
 */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "common.h"
#include "litmus.h"

/* ---- mprotect ---- */

struct protect {
	struct litmus *l;
	int prot;
	int err;
};

static int protect_setup(struct litmus *l)
{
	return litmus_map_at(l, l->page);
}

static void protect_end(struct litmus *l)
{
	munmap(l->page, LITMUS_PLACE);
}

static void protect_call(void *arg)
{
	struct protect *protect = arg;

	protect->err = mprotect(protect->l->page, LITMUS_PLACE, protect->prot) ? -errno : 0;
}

/* Writable, read-only, writable again; @elder: by a thread older than the mirror. */
static int protect_round(struct litmus *l, bool elder)
{
	struct protect protect = { .l = l };
	int err = litmus_check_write(l, l->page, 0);

	for (int step = 0; step < 2 && !err; step++) {
		protect.prot = step ? PROT_READ | PROT_WRITE : PROT_READ;
		if (elder)
			litmus_actor_call(&l->elder, protect_call, &protect);
		else
			protect_call(&protect);
		if (protect.err)
			return litmus_fail(l, protect.err, "mprotect: %s",
					   strerror(-protect.err));
		litmus_changed(l, l->page);
		err = litmus_check_write(l, l->page, step ? 0 : -EPERM);
	}
	return err;
}

struct young {
	struct litmus *l;
	int err;
};

static void young_round(void *arg)
{
	struct young *young = arg;

	young->err = protect_round(young->l, false);
}

/* Change and submission by one thread, younger than the mirror. */
static int mprotect_round(struct litmus *l, uint64_t i)
{
	struct young young = { .l = l };

	litmus_actor_call(&l->young, young_round, &young);
	return young.err;
}

static int elder_round(struct litmus *l, uint64_t i)
{
	return protect_round(l, true);
}

/* ---- shmdt ---- */

struct shm {
	int id[2];
	char *memory[2]; /* attached for good: generations are stored through these */
};

static void shm_end(struct litmus *l)
{
	struct shm *shm = l->priv;

	for (int i = 0; i < 2; i++) {
		if (shm->memory[i])
			shmdt(shm->memory[i]);
	}
	free(shm);
}

static int shm_setup(struct litmus *l)
{
	struct shm *shm = tool_alloc(sizeof(*shm));

	l->priv = shm;
	for (int i = 0; i < 2; i++) {
		shm->id[i] = shmget(IPC_PRIVATE, LITMUS_PLACE, IPC_CREAT | 0600);
		if (shm->id[i] < 0)
			goto fail;
		shm->memory[i] = shmat(shm->id[i], NULL, 0);
		if (shm->memory[i] == (void *)-1) {
			shm->memory[i] = NULL;
			goto fail;
		}
		/* Gone with its last attachment; until then it can be attached again. */
		shmctl(shm->id[i], IPC_RMID, NULL);
	}
	return 0;
fail:
	litmus_fail(l, -errno, "SysV shared memory: %s", strerror(errno));
	shm_end(l);
	return -EOPNOTSUPP;
}

static int shm_attach(struct litmus *l, int which, uint64_t *generation)
{
	struct shm *shm = l->priv;

	if (shmat(shm->id[which], l->page, 0) != l->page)
		return litmus_fail(l, -errno, "shmat: %s", strerror(errno));
	*generation = litmus_fill(l, shm->memory[which]);
	return 0;
}

static int shm_round(struct litmus *l, uint64_t i)
{
	uint64_t generation;
	int err = shm_attach(l, 0, &generation);

	if (err)
		return err;
	err = litmus_touch(l, l->page, generation);
	shmdt(l->page);
	if (err)
		return err;
	if (i / 2 % 2 == 0) {
		litmus_changed(l, l->page);
		return litmus_check_gone(l, l->page);
	}
	err = shm_attach(l, 1, &generation);
	if (err)
		return err;
	litmus_changed(l, l->page);
	err = litmus_check(l, l->page, generation);
	shmdt(l->page);
	return err;
}

/* ---- brk ---- */

/*
 * malloc moves the break too. It is given enough above its top that it need not while this
 * case runs, and keeps it; the pinning device allocates nothing, so the GPU stays out.
 */
#define BRK_RESERVE (16 << 20)

struct brk {
	char *base;	/* page aligned; the break between rounds */
	long remainder; /* up to the next page when the case began */
};

static int brk_setup(struct litmus *l)
{
	struct brk *brk = tool_alloc(sizeof(*brk));
	void *reserve;

	mallopt(M_TRIM_THRESHOLD, 4 * BRK_RESERVE);
	mallopt(M_MMAP_THRESHOLD, 2 * BRK_RESERVE);
	reserve = malloc(BRK_RESERVE);
	/* Used, or the compiler may drop the pair, and with it what it is for. */
	if (reserve)
		*(volatile char *)reserve = 0;
	free(reserve);

	brk->remainder = -(long)sbrk(0) & (long)(LITMUS_PAGE - 1);
	brk->base = sbrk(brk->remainder);
	if (brk->base == (void *)-1) {
		free(brk);
		litmus_fail(l, -errno, "sbrk: %s", strerror(errno));
		return -EOPNOTSUPP;
	}
	brk->base += brk->remainder;
	l->priv = brk;
	return 0;
}

static void brk_end(struct litmus *l)
{
	struct brk *brk = l->priv;

	if (sbrk(0) == brk->base)
		sbrk(-brk->remainder);
	free(brk);
}

static int brk_move(struct litmus *l, long by)
{
	struct brk *brk = l->priv;
	char *expected = by > 0 ? brk->base : brk->base + LITMUS_PLACE;

	if (sbrk(0) != expected)
		return litmus_fail(l, -EBUSY, "malloc has moved the break");
	if (sbrk(by) != expected)
		return litmus_fail(l, -errno, "sbrk: %s", strerror(errno));
	return 0;
}

static int brk_round(struct litmus *l, uint64_t i)
{
	struct brk *brk = l->priv;
	uint64_t generation;
	int err = brk_move(l, LITMUS_PLACE);

	if (err)
		return err;
	generation = litmus_fill(l, brk->base);
	err = litmus_touch(l, brk->base, generation);
	if (!err)
		err = brk_move(l, -(long)LITMUS_PLACE);
	if (err)
		return err;
	if (i % 2)
		return litmus_check_gone(l, brk->base);
	err = brk_move(l, LITMUS_PLACE);
	if (!err)
		err = litmus_check(l, brk->base, 0);
	return err ? err : brk_move(l, -(long)LITMUS_PLACE);
}

const struct litmus_case litmus_kind_cases[] = {
	{ .name = "mprotect",
	  .what = "mprotect then submit",
	  .gpu = true,
	  .setup = protect_setup,
	  .round = mprotect_round,
	  .end = protect_end },
	{ .name = "mprotect_elder",
	  .what = "mprotect by a thread older than the mirror",
	  .gpu = true,
	  .setup = protect_setup,
	  .round = elder_round,
	  .end = protect_end },
	{ .name = "shmdt",
	  .what = "a SysV segment detached, and another at its place",
	  .gpu = true,
	  .setup = shm_setup,
	  .round = shm_round,
	  .end = shm_end },
	{ .name = "brk",
	  .what = "the heap shrunk and grown again",
	  .setup = brk_setup,
	  .round = brk_round,
	  .end = brk_end },
	{ .name = NULL },
};
