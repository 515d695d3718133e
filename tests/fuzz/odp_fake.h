/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_fake - a fabric and a memory for the target's machine, which the fuzzer moves by hand.
 *
 * drivers/odp's wire, job, connection, region, access and work run as they are; of threads
 * there is one. An endpoint keeps what is posted until fake_complete() or until it is closed,
 * when it is flushed, as libfabric's are. Memory is FAKE_PAGES pages at FAKE_BASE.
 */
#ifndef ODP_FAKE_H
#define ODP_FAKE_H

#include <stdbool.h>

#include "odp_private.h"

#define FAKE_PAGES 64u
#define FAKE_REGIONS 4u
#define FAKE_BASE (UINT64_C(1) << 32)

static inline void must_(bool holds, const char *what, int line)
{
	extern _Noreturn void fake_fail(const char *what, int line);

	if (!holds)
		fake_fail(what, line);
}
#define must(cond) must_(cond, #cond, __LINE__)

void fake_begin(uint8_t how);
/* All goes on; nothing may wait; everything is closed. */
void fake_end(void);
void fake_print(void);

void fake_key(unsigned region, struct odp_key *key);
/* Destroy it if it is there; else make it, with rights of `how`. */
void fake_region(unsigned region, uint8_t how);
/* A page is mapped anew, protected, or gone; its event is not delivered yet. */
void fake_change(unsigned page, uint8_t how);
/* Events that wait are delivered. */
void fake_deliver(void);
/* The next calls of the memory fail: a bit each. */
void fake_trouble(uint8_t how);

void fake_connect(unsigned client, bool greets);
/* One that has no answer to come, from `from` on; `from` if all have. */
unsigned fake_slot(unsigned client, unsigned from);
/* `seen`: what it is, if it is a request. Nothing happens if no buffer is posted. */
void fake_receive(unsigned client, const void *bytes, size_t size,
		  const struct wire_request *seen);
/* The n-th of what is posted, receives excepted. */
void fake_complete(unsigned client, unsigned n);
/* Whether there is room from now on; `broken`: the next call is an error. */
void fake_refuses(unsigned client, bool full, bool broken);
void fake_lost(unsigned client);

/* A worker does one; the fabric's thread takes back; looks at each connection. */
bool fake_work(void);
void fake_worked(void);
void fake_pump(void);

#endif
