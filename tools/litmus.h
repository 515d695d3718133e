/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * litmus - counts answers from stale translations, and bytes lost or come back by
 *migration.
 *
 *	litmus.c	command line, division of the rounds, report
 *	litmus_dev.c	the pinning device: what a stale translation is made visible by
 *	litmus_round.c	touch and check: one page seen by the device or by the GPU
 *	litmus_load.c	busy threads that place the races, and the actor threads
 *	litmus_map.c	cases: munmap, MAP_FIXED, mremap
 *	litmus_zap.c	cases: madvise, io_uring
 *	litmus_kind.c	cases: mprotect, shmdt, brk
 *	litmus_pin.c	cases: what a device has pinned
 *	litmus_secure.c	cases: secure memory
 *	litmus_away.h	cases of pages that are in a device's memory
 *
 * Words: a *generation* is a number that no two contents share. Whoever makes a mapping or
 * fills it anew stores the next generation in it before the page is looked up again; so a
 * lookup that answers an older one was answered by an older translation.
 */
#ifndef UHMM_TOOLS_LITMUS_H
#define UHMM_TOOLS_LITMUS_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uhmm/svm.h>
#include <uhmm/hmm.h>
#include <uhmm/ptable.h>

#define LITMUS_PAGE 4096ul

/* ---- litmus_dev.c ---- */

struct litmus_dev;
struct away;

int litmus_dev_open(bool naive, struct litmus_dev **dev);
void litmus_dev_close(struct litmus_dev *dev);
struct hmm *litmus_dev_hmm(struct litmus_dev *dev);
/* The device reads 8 bytes at an aligned @addr: fence, lookup, fault on a miss. */
int litmus_dev_read(struct litmus_dev *dev, const void *addr, uint64_t *value);
/* May the device write at @addr? 0, -EPERM, -EFAULT: the write itself goes to its frame. */
int litmus_dev_write(struct litmus_dev *dev, const void *addr);
/* Nothing that happened so far is still on its way to the page table. */
int litmus_dev_settle(struct litmus_dev *dev);
/* As a driver that drops one page of its own accord. */
void litmus_dev_forget(struct litmus_dev *dev, const void *addr);
/* A change has begun (odd) or ended (even): see litmus_zap.c. */
void litmus_dev_change(struct litmus_dev *dev);
/* As litmus_dev_read(); @during: the answer was cached while a change was going on. */
int litmus_dev_read_when(struct litmus_dev *dev, const void *addr, uint64_t *value,
			 bool *during);

/* ---- litmus_load.c ---- */

struct litmus_load;

int litmus_load_start(struct litmus_dev *dev, unsigned threads, struct litmus_load **load);
/* 0, or what the device answered to one of them and should not have. */
int litmus_load_stop(struct litmus_load *load);

/* A thread that does one thing when told to. */
struct litmus_actor {
	pthread_t thread;
	sem_t go, done;
	void (*fn)(void *arg);
	void *arg;
	bool quit;
};

int litmus_actor_start(struct litmus_actor *actor);
void litmus_actor_stop(struct litmus_actor *actor);
void litmus_actor_begin(struct litmus_actor *actor, void (*fn)(void *arg), void *arg);
void litmus_actor_wait(struct litmus_actor *actor);
void litmus_actor_call(struct litmus_actor *actor, void (*fn)(void *arg), void *arg);

/* ---- litmus.c, litmus_round.c: what a case is given ---- */

struct litmus {
	bool naive;
	struct litmus_dev *dev;
	struct svm *svm; /* NULL, or the GPU is the first of its two */
	struct gpu *gpu;
	struct gpu_queue *queue;
	struct litmus_actor elder; /* older than the mirror */
	struct litmus_actor young; /* started after it */

	/* of the case that runs */
	bool use_gpu;	 /* this round is the GPU's; else the pinning device's */
	unsigned device; /* of the two that have memory, this round's (litmus_away.h) */
	bool wrong;	 /* this round saw a stale answer */
	bool missing;	 /* this round lost a byte that was written */
	uint64_t gpu_stale;
	uint64_t generation;
	uint64_t rounds, stale, lost;
	bool counts_lost; /* this case looks for lost bytes */
	const char *also; /* what else the case counts, NULL: nothing */
	uint64_t also_count;
	char *page;	   /* where most cases happen: LITMUS_PLACE bytes, unmapped */
	char *other;	   /* as large, beside it */
	void *priv;	   /* the case's own */
	struct away *away; /* likewise */
	char reason[240];  /* why it was skipped or failed */
};

/* Bytes at litmus.page: as in the measured race, more than a page so that munmap has work.
 */
#define LITMUS_PLACE (16 * LITMUS_PAGE)

/*
 * A case: set-up, rounds, end. setup and round return 0, or a negative errno with a
 * sentence in litmus.reason; setup -EOPNOTSUPP means "cannot run here". end is called if
 * setup returned 0.
 */
struct litmus_case {
	const char *name;
	const char *what;
	bool gpu; /* odd rounds may be the GPU's */
	bool each; /* naive, this very case must see something */
	bool dear; /* a quarter of the rounds will do: each moves pages several times */
	int (*setup)(struct litmus *l);
	int (*round)(struct litmus *l, uint64_t i);
	void (*end)(struct litmus *l);
};

extern const struct litmus_case litmus_map_cases[];
extern const struct litmus_case litmus_zap_cases[];
extern const struct litmus_case litmus_kind_cases[];
extern const struct litmus_case litmus_migrate_cases[];
extern const struct litmus_case litmus_grown_cases[];
extern const struct litmus_case litmus_owner_cases[];
extern const struct litmus_case litmus_pin_cases[];
extern const struct litmus_case litmus_secure_cases[];

/* Store the next generation at @addr; the number is what a check expects. */
uint64_t litmus_fill(struct litmus *l, char *addr);
/* New private anonymous memory at exactly @addr, which must be free; -errno. */
int litmus_map_at(struct litmus *l, char *addr);
/* The device faults the page, so that a translation is there. */
int litmus_touch(struct litmus *l, const char *addr, uint64_t expected);
/* A change of the page has returned: say so to the GPU's verify mode. */
void litmus_changed(struct litmus *l, const char *addr);
/* The device must read @expected, or must be refused with -EFAULT. */
int litmus_check(struct litmus *l, const char *addr, uint64_t expected);
int litmus_check_gone(struct litmus *l, const char *addr);
/* The device writes: the answer must be @expected (0 or -EPERM). */
int litmus_check_write(struct litmus *l, char *addr, int expected);
/* The sentence of a round that failed for another reason than staleness; returns @err. */
int litmus_fail(struct litmus *l, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
