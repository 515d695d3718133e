/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * regcache_dev - a driver that registers, and who uses its cache.
 *
 * What is registered keeps the frames that it found, and when it was. A region that is not what a
 * CPU finds, one that is used after it was deregistered, and one that is deregistered twice or
 * never is so found out.
 *
 * Its calls are FAKE_OP_DRIVER, with REG and DEREG for the context. The linker sends arena_alloc()
 * through __wrap_arena_alloc() here, which can say no.
 */
#ifndef UHMM_TESTS_REGCACHE_DEV_H
#define UHMM_TESTS_REGCACHE_DEV_H

#include <sys/mman.h>

#include "arena_fails.h"
#include "fake_os.h"

#include "core/regcache.h"

#define RW (PROT_READ | PROT_WRITE)
#define P 16u /* the first page of most tests */
#define N 16u
#define WRITE HMM_REGCACHE_WRITE
#define KEYS 65536u
/* fake_at()'s ctx of the two calls of the driver. */
#define REG 0
#define DEREG 1

/* A registration. */
struct key {
	uintptr_t start;
	size_t length;
	unsigned access;
	_Atomic bool used;
	uint64_t begun; /* changes when it was made: of no later one it can be */
	uint64_t frame[64];
};

struct regcache_dev {
	struct hmm *hmm;
	struct hmm_regcache *cache;
	struct key key[KEYS];
	_Atomic unsigned keys; /* made so far */
	_Atomic unsigned deregs;
	_Atomic uint64_t begun, ended; /* duel: changes */
	size_t longest;		  /* that can be registered; 0: any */
};

extern struct regcache_dev dev;

extern const struct hmm_regcache_ops dev_ops;

void open_with(struct hmm *hmm, struct hmm_regcache_options options);
void open_dev(struct hmm *hmm);
void open_pinned(struct hmm *hmm);
/* Everything is deregistered then. */
void close_dev(void);
/* Registrations there are. */
unsigned registered(void);

int get_at(uintptr_t addr, size_t length, unsigned access, unsigned flags,
	   struct hmm_region **r);
/* One that must succeed, and give what was asked for. */
struct hmm_region *get(unsigned page, unsigned n, unsigned access);
bool put(struct hmm_region *r);
/* Is it what a CPU finds? */
bool is_true(const struct hmm_region *r, unsigned page, unsigned n);
struct hmm_regcache_stats stats(void);

#endif
