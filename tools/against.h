/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * against - the same changes under other people's registration caches.
 *
 *	against.c		the rows: what changes, and the rounds
 *	against_cache.c		a small cache that asks a monitor as libfabric's does
 *	against_libfabric.c	a program of its own: libfabric's monitors, from its static
 *library litmus_against.c	`uhmm litmus --against`: columns, children, table
 *	litmus_against_ucx.c, litmus_against_fabric.c	the columns
 *
 * Words: a *peer* is a cache and whoever tells it of changes; a registration has a
 **serial*. A round looks a place up twice, changes it, and looks again: the serial of
 *before is a stale hit. Where the second never finds the first's, nothing was cached, and
 *nothing can be stale. Nothing is registered with anything, so what is counted is the
 *caches' doing alone.
 */
#ifndef UHMM_TOOLS_AGAINST_H
#define UHMM_TOOLS_AGAINST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AGAINST_PLACE 65536ul

struct against_peer {
	const char *name;   /* column */
	const char *family; /* as --against names it */
	const char *what;
	bool ours; /* must cache, and serve nothing stale */
	/* 0; or negative errno with a sentence: -EOPNOTSUPP cannot be here. */
	int (*open)(char *why, size_t size);
	/* The serial of the registration that serves it. */
	int (*lookup)(char *addr, size_t length, uint64_t *serial);
	/* Whatever is cached of it goes. */
	void (*forget)(char *addr, size_t length);
	/* Instead of all that: a program that writes its struct against_cells to standard
	 * output. */
	const char *program;
};

#define AGAINST_ROWS 16

/* A column of the table. */
struct against_cells {
	int err; /* with a sentence, the rows that follow are not there */
	char why[200];
	struct {
		uint64_t rounds, stale;
		uint64_t kept; /* rounds in which a lookup before the change was a hit */
	} row[AGAINST_ROWS];
};

/* Rows, in order; NULL past the last. The first is no change at all: its number is misses.
 */
const char *against_row(unsigned row);
const char *against_row_what(unsigned row);

/* All rows. @progress may be NULL. */
void against_run(const struct against_peer *peer, uint64_t rounds,
		 struct against_cells *cells,
		 void (*progress)(const struct against_peer *peer, unsigned row));

/* ---- against_cache.c ---- */

/* One range and its serial; the lock is the monitor's as well, as mm_lock is libfabric's.
 */
struct against_cache {
	pthread_mutex_t *lock;
	void *monitor;
	int (*subscribe)(void *monitor, const void *addr, size_t length);
	bool (*valid)(void *monitor, const void *addr, size_t length);
	uint64_t serials;
	uintptr_t start, end; /* 0: nothing is cached */
	uint64_t serial;
};

int against_cache_lookup(struct against_cache *cache, char *addr, size_t length,
			 uint64_t *serial);
/* The lock is held. */
void against_cache_notify(struct against_cache *cache, const void *addr, size_t length);

#endif
