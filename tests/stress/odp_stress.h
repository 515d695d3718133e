/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_stress - 4 processes ask for memory of a fifth, which changes it all the time.
 *
 * Data model. An area of ROWS rows, a page each, of one kind:
 *
 *	stamped	every word of the page is (row, generation). The changer publishes `next`, changes
 *		the mapping in some way, stamps the page with the new generation, publishes `done`.
 *	counter	words that clients and CPU add to; the page is never changed but by fork
 *	owned	a client's own: it puts, and gets back; the CPU checks it; mappings change
 *		around it by what keeps bytes (mprotect, mremap there and back, fork)
 *
 * Law of what a get of a stamped row may return, `before` being `done` as read before the get,
 * `after` being `next` as read after it: for each word that is not zero, before <= its
 * generation <= after, and its row is right. A word may be zero (mapped anew and not stamped yet)
 * only if next > before at some time, that is if after > before. An error -EFAULT, -EPERM or
 * -EBUSY likewise. This is O1: what the changer had done before the get began is seen.
 */
#ifndef ODP_STRESS_H
#define ODP_STRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <uhmm/odp.h>

#define PAGE ((size_t)4096)
#define WORDS (PAGE / 8)
#define CLIENTS 4u
#define STAMPED 96u
#define OWNED_EACH 64u /* a get of them goes in pieces */
#define COUNTERS 64u

struct shared {
	/* of the target */
	_Atomic bool up, stop;
	_Atomic bool target_stop; /* when the clients have ended */
	char address[192];
	struct odp_key key;
	uint64_t *stamped, *counters, *owned[CLIENTS];
	_Atomic uint64_t next[STAMPED], done[STAMPED];
	_Atomic uint64_t cpu_added[COUNTERS];
	_Atomic uint64_t changes[8];
	_Atomic uint64_t forks;
	/* of the clients */
	struct client {
		_Atomic uint64_t ops, fetched, excused, added[COUNTERS], put, checked;
		/* What its owned pages hold, from when to when they may be looked at by the CPU. */
		_Atomic uint64_t quiet; /* odd: stable, of generation quiet */
		_Atomic bool ended;
	} client[CLIENTS];
	_Atomic uint64_t violations, clients_ended;
	bool wrong_model; /* the test of the test */
};

extern struct shared *shared;

static inline uint64_t stamp(unsigned row, uint64_t generation)
{
	return (uint64_t)row << 48 | (generation & ((UINT64_C(1) << 48) - 1)) | UINT64_C(1) << 63;
}

static inline uint64_t random_of(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

/* Print it, and count; the run goes on, so that one sees whether it is one or a thousand. */
void violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* odp_stress_target.c: in the target's process; returns when shared->target_stop is set. */
int target_main(uint64_t seed);
/* odp_stress_client.c */
int client_main(unsigned id, uint64_t ops, uint64_t seed);

#endif
