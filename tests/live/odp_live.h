/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* odp_live - a target, a region and a connection to it, for the cases of test_odp. */
#ifndef ODP_LIVE_H
#define ODP_LIVE_H

#include <uhmm/odp.h>

#include "live.h"

#define PAGE ((size_t)4096)
#define MIB ((size_t)1 << 20)
#define ODP_ALL (ODP_READ | ODP_WRITE | ODP_ATOMIC)
#define INLINE ((size_t)4096) /* bytes that travel in a message: drivers/odp/wire.h */

struct pair {
	struct odp_target *target;
	struct odp_region *region;
	struct odp_key key;
	struct odp *odp;
};

/* length 0: all memory. */
enum verdict pair_begin(struct pair *p, const void *start, size_t length, unsigned access);
void pair_end(struct pair *p);

static inline uint64_t address(const volatile void *at)
{
	return (uint64_t)(uintptr_t)at;
}

/* One request; 0, or the line of what is not as wanted (live_reason() says it). */
enum verdict refused(struct pair *p, enum odp_opcode code, uint64_t remote, size_t length,
		     int err, uint64_t fault_addr, enum hmm_reason reason);
/* A get that has to be what the CPU sees there. */
enum verdict gets(struct pair *p, const void *at, size_t length);
/* A put of bytes of `seed`, which the CPU has to see. */
enum verdict puts_bytes(struct pair *p, void *at, size_t length, unsigned seed);

/* odp_kinds.c, odp_changes.c, odp_keys.c, odp_rest.c */
extern const struct live_case odp_changes[], odp_keys[], odp_rest[];
extern const unsigned odp_changes_n, odp_keys_n, odp_rest_n;

#endif
