/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * by_seed - a libFuzzer target as an ordinary test, with input of its own making.
 *
 *	PROGRAM [RUNS [SEED]]	FUZZ_SEEDS in the environment: say each seed
 *
 * Each input has a seed of its own, so that a failure can be run alone.
 */
#ifndef UHMM_TESTS_BY_SEED_H
#define UHMM_TESTS_BY_SEED_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t random_next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void run_seed(uint64_t seed, uint8_t *data, size_t room)
{
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	size_t size = 50 + random_next(&x) % (room - 50);

	for (size_t i = 0; i < size; i++)
		data[i] = (uint8_t)(random_next(&x) >> 24);
	LLVMFuzzerTestOneInput(data, size);
}

/* Of at most `room` bytes each, in `data`; `runs` if the command line says nothing. How many ran. */
static uint64_t run_seeds(int argc, char **argv, uint64_t runs, uint8_t *data, size_t room)
{
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;

	if (argc > 1)
		runs = strtoull(argv[1], NULL, 0);
	for (uint64_t i = 0; i < runs; i++) {
		if (getenv("FUZZ_SEEDS"))
			fprintf(stderr, "seed %llu\n", (unsigned long long)(seed + i));
		run_seed(seed + i, data, room);
	}
	return runs;
}

#endif
