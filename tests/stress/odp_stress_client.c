/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* odp_stress_client - asks, and holds what it is told against the model. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "odp_stress.h"

static struct odp *odp;
static struct client *me;
static unsigned my_id;
static uint64_t mine[OWNED_EACH * WORDS], back[OWNED_EACH * WORDS];

/* May memory that changes have said that? */
static bool excusable(int err)
{
	return err == -EFAULT || err == -EPERM || err == -EBUSY;
}

/* ---- gets of stamped rows ---- */

/* The oldest generation that may be seen. */
static uint64_t floor_of(unsigned row)
{
	return shared->done[row] + (shared->wrong_model ? 1 : 0);
}

static void judge(unsigned row, const uint64_t *words, unsigned n, uint64_t before, uint64_t after)
{
	for (unsigned i = 0; i < n; i++) {
		uint64_t generation = words[i] & ((UINT64_C(1) << 48) - 1);
		bool ours = words[i] == stamp(row, generation);

		if (words[i] ? ours && generation >= before && generation <= after
			     : after > before)
			continue;
		violation("row %u: a get that began at generation %llu and ended at %llu got %#llx",
			  row, (unsigned long long)before, (unsigned long long)after,
			  (unsigned long long)words[i]);
		return;
	}
}

#define RUN 12u

/* Several rows by one get, or by several gets at once. */
static void get_rows(uint64_t *random)
{
	static uint64_t buffer[RUN * WORDS];
	unsigned rows = 1 + (unsigned)(random_of(random) % RUN);
	unsigned first = (unsigned)(random_of(random) % (STAMPED - rows + 1));
	bool together = random_of(random) % 2;
	uint64_t before[RUN], after[RUN];
	struct odp_op op[RUN];
	bool changed = false;

	for (unsigned i = 0; i < rows; i++) {
		before[i] = floor_of(first + i);
		op[i] = (struct odp_op){ .code = ODP_GET, .key = &shared->key,
					 .remote = (uintptr_t)(shared->stamped + (first + i) * WORDS),
					 .local = buffer + i * WORDS, .length = PAGE };
	}
	if (together)
		op[0].length = rows * PAGE;
	odp_run(odp, op, together ? 1 : rows);
	for (unsigned i = 0; i < rows; i++) {
		after[i] = shared->next[first + i];
		changed |= after[i] > before[i];
	}
	for (unsigned i = 0; i < rows; i++) {
		const struct odp_op *o = &op[together ? 0 : i];

		if (!o->result)
			judge(first + i, buffer + i * WORDS, WORDS, before[i], after[i]);
		else if (!excusable(o->result) || !(together ? changed : after[i] > before[i]))
			violation("row %u: %s at generation %llu, which is not changed",
				  first + i, hmm_strerror(o->result), (unsigned long long)before[i]);
		me->excused += o->result != 0;
	}
	me->fetched += rows;
	me->ops += together ? 1 : rows;
}

/* ---- counters ---- */

static void count_up(uint64_t *random)
{
	unsigned counter = (unsigned)(random_of(random) % COUNTERS);
	uint64_t at = (uintptr_t)(shared->counters + counter * 8), old, seen = 0;
	int err = odp_fetch_add(odp, &shared->key, at, 3, &old);

	me->ops++;
	if (!err)
		me->added[counter] += 3;
	else
		violation("fetch-add: %s", hmm_strerror(err));
	/* By compare-and-swap, as often as others come between. */
	for (unsigned tries = 0; tries < 50; tries++) {
		err = odp_compare_swap(odp, &shared->key, at, seen, seen + 5, &old);
		me->ops++;
		if (err)
			violation("compare-swap: %s", hmm_strerror(err));
		if (err || old == seen) {
			me->added[counter] += err ? 0 : 5;
			break;
		}
		if (old < seen)
			violation("counter %u went back from %llu to %llu", counter,
				  (unsigned long long)seen, (unsigned long long)old);
		seen = old;
	}
}

/* ---- owned pages ---- */

/* Mappings are moved away and back, or read-only, for moments: then again. */
static void until_done(enum odp_opcode code, uint64_t *at, size_t from, size_t length)
{
	for (unsigned tries = 0;; tries++) {
		struct odp_op op = { .code = code, .key = &shared->key, .local = at + from,
				     .remote = (uintptr_t)(shared->owned[my_id] + from),
				     .length = length };

		odp_run(odp, &op, 1);
		me->ops++;
		if (!op.result)
			return;
		me->excused++;
		if (!excusable(op.result) || tries > 100000) {
			violation("%s of owned pages: %s, after %u tries",
				  code == ODP_PUT ? "put" : "get", hmm_strerror(op.result), tries);
			return;
		}
	}
}

/* While a page is moved away and back, a put that runs is at its new place: bytes are never
 * lost, but in which order puts of the same page end is only sure one after the other. */
static void own(uint64_t *random)
{
	static uint64_t generation = 1;

	generation += 2;
	me->quiet = generation - 1;
	for (uint64_t i = 0; i < OWNED_EACH * WORDS; i++)
		mine[i] = generation * 1000003 + i;
	if (random_of(random) % 2) {
		until_done(ODP_PUT, mine, 0, sizeof(mine));
	} else { /* short ones, across pages */
		for (size_t at = 0; at < OWNED_EACH * WORDS; at += 500) {
			size_t left = OWNED_EACH * WORDS - at;

			until_done(ODP_PUT, mine, at, (left < 500 ? left : 500) * 8);
		}
	}
	me->quiet = generation;
	until_done(ODP_GET, back, 0, sizeof(back));
	if (memcmp(mine, back, sizeof(back)) != 0)
		violation("client %u gets back what it did not put", my_id);
	/* The same words in one's own process: a pointer is a number to the target. */
	memset(back, 0, sizeof(back));
	me->put++;
}

int client_main(unsigned id, uint64_t ops, uint64_t seed)
{
	uint64_t random = seed * 1000 + id * 17 + 3;

	me = &shared->client[id];
	my_id = id;
	if (odp_connect(shared->address, NULL, &odp)) {
		violation("client %u cannot connect", id);
		return 1;
	}
	while (me->ops < ops && !shared->stop && shared->violations < 20) {
		switch (random_of(&random) % 16) {
		case 0:
			own(&random);
			break;
		case 1:
		case 2:
		case 3:
			count_up(&random);
			break;
		case 4:
			odp_advise(odp, &shared->key, (uintptr_t)shared->stamped, STAMPED * PAGE,
				   (enum odp_advice)(random_of(&random) % 3),
				   random_of(&random) % 2);
			me->ops++;
			break;
		default:
			get_rows(&random);
			break;
		}
	}
	odp_close(odp);
	return 0;
}
