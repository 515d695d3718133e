/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * stress - G5 by force: threads do what programs do to memory that is on its way.
 *
 *	stress.c    options, threads, the last line
 *	watch.c     who hangs, and what was wrong
 *	pageout.c   all of it goes to swap, again and again
 *	area.c      memory whose every byte is known, and how it looks
 *	dev.c       the test device; engine.c its copy engine, which may die
 *	ops_*.c     the operations; racy.c those without a lock
 *	inject.c    failing system calls (stress_inject only; else inject_none.c)
 *	scene_*.c   what needs a stage of its own: a lost device, scattered pages, failing
 *opens
 *
 * Laws:
 * 1. An area belongs to who holds its lock, so its model is exact. Racy areas have no lock:
 *    there every word has one writer.
 * 2. What the watchdog, the devices and the engines touch lies in hmm_alloc() memory: they
 *go on while everything else is away.
 * 3. The first wrong byte ends the run.
 */
#ifndef STRESS_H
#define STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uhmm/hmm.h>

#include "area.h"
#include "dev.h"

#define PAGE ((size_t)4096)
#define BLOCK ((size_t)2 << 20)
#define WORKERS_MAX 16u
#define SKIPPED 77

struct world;

/* A thread that does operations. In hmm_alloc() memory: the watchdog reads it. */
struct worker {
	struct world *world;
	unsigned id;
	uint64_t random;
	pthread_t thread;
	_Atomic uint64_t ops;
	/* What it does now: op, since when, to what. */
	const char *_Atomic doing;
	_Atomic uint64_t since;
	_Atomic unsigned area, page;
	_Atomic uintptr_t stack_low, stack_high;
	_Atomic bool ended;
	struct own *own; /* ops_own.c: malloc blocks and files; not in hmm_alloc() memory */
	uint64_t src[HMM_MIGRATE_MAX], dst[HMM_MIGRATE_MAX], frames[HMM_MIGRATE_MAX];
	unsigned char buffer[4096];
};

#define DEVS 3u

/* All of a run. In hmm_alloc() memory. */
struct world {
	struct hmm *hmm;
	uint64_t seed;
	unsigned threads, areas, racies;
	bool inject;
	const char *without;
	bool no_racy;
	struct dev *dev[DEVS];
	/* dev[DEVS - 1] comes and goes; who uses a device holds this for reading. */
	pthread_rwlock_t devs_lock;
	struct area *area; /* areas of them */
	struct racy *racy;
	struct worker worker[WORKERS_MAX];
	_Atomic bool stop;
	_Atomic bool failing; /* somebody prints what is wrong */
	_Atomic unsigned children;
	_Atomic uint64_t last_fork;
	/* Pages whose owner drops them again and again: the others migrate them meanwhile.
	 */
	_Atomic uintptr_t duel;
	_Atomic unsigned duel_pages;
	_Atomic uint64_t forks, moved_out, moved_home; /* of devices that are gone */
	_Atomic uint64_t refused;		       /* mremaps that the kernel refused */
};

/* ---- random numbers ---- */

static inline uint64_t random_of(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	*state = x;
	return x * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

static inline unsigned pick(struct worker *w, unsigned below)
{
	return below ? (unsigned)(random_of(&w->random) % below) : 0;
}

static inline bool one_in(struct worker *w, unsigned n)
{
	return !pick(w, n);
}

/* ---- operations ---- */

struct op {
	const char *name;
	void (*run)(struct worker *w, struct area *a);
	unsigned weight;
	bool maps; /* changes mappings: not for areas that stay where they are */
};

extern const struct op ops_cpu[], ops_io[], ops_map[], ops_dev[], ops_fork[], ops_own[];

/* Said before each step that may hang; `what` is a literal. */
void doing(struct worker *w, const char *what, const struct area *a, unsigned page);

/* A device to use, and the end of it. */
struct dev *dev_take(struct worker *w);
void dev_leave(struct worker *w);

/* ops_own.c */
void own_begin(struct worker *w);
void own_end(struct worker *w);
/* Take part in the duel that another thread has begun, if there is one. */
bool own_duel(struct worker *w);
/* ops_dev.c: may this error come out of a migration here? */
bool migrate_may_fail(const struct worker *w, int64_t err);
/* ops_fork.c */
void fork_reap(struct worker *w, bool wait);
void fork_begin(struct world *world);

/* ---- racy.c ---- */
int racy_begin(struct world *world, unsigned racies);
void racy_op(struct worker *w);
void racy_end(struct world *world);

/* ---- watch.c ---- */
uint64_t now_ns(void);
/* Until the process ends: aborts it when a worker does the same for limit_s. */
void watch_begin(struct world *world, unsigned limit_s);
/* SIGBUS and SIGSEGV end the run, and say where. */
void watch_signals(void);
/* Print and end the run with 1. In a forked child: to the parent. */
_Noreturn void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same of a page, with its history. `bytes` is what was got. */
_Noreturn void fail_page(const struct area *a, unsigned page, const void *bytes,
			 const char *how);
/* In a forked child: what fails from now on is written there (`size` bytes, shared). */
void fail_to(char *text, size_t size);
/* A stack that never moves, for pthread_attr_setstack(). */
int thread_on_fixed_stack(pthread_t *thread, void *(*fn)(void *), void *arg);

/* ---- pageout.c ---- */
void pageout_begin(void);
/* How many pages have gone to swap since. */
unsigned long long pageout_end(void);

/* ---- inject.c, inject_none.c ---- */
bool inject_there(void);
/* One in `rate` of the calls that can fail does; 0: none. */
void inject_rate(unsigned rate);
uint64_t inject_count(void);
/* The n-th call of thread_start from now fails; 0: none. */
void inject_thread_start(unsigned nth);
/* Arena allocations: the n-th from now fails; 0: none. */
void inject_arena(unsigned nth);

/* ---- scene_*.c: 0, 1 or SKIPPED ---- */
struct stress_options {
	uint64_t ops, seed;
	unsigned threads, seconds, pages;
	bool inject, quiet, pageout;
	const char *scene;
	const char *without; /* operations not to do, by name, between commas */
};
int scene_lost(const struct stress_options *options);
int scene_scatter(const struct stress_options *options);
int scene_open(const struct stress_options *options);
/* hmm_open and a devmem can be had here? 0, or SKIPPED with the reason said. */
int world_open(struct world **world, const struct stress_options *options);

#endif
