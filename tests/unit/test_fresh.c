/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_fresh - pages made ahead (src/core/fresh.c): what is taken is there, nothing is taken twice, and
 * a half that the pager takes while the helper fills it counts as filled for nobody.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/pager.h"

#define BASE ((uintptr_t)1 << 30)
#define HALF (BLOCK_PAGES / 2)

static struct hmm hmm;
static struct pager *pager;
static struct hmm_transfer *transfer;
static bool there[TRANSFERS * BLOCK_PAGES];
static unsigned made, no_memory; /* no_memory: the next calls that fail */
static void (*meanwhile)(void);	 /* in the next call */

static int populate(uintptr_t start, uintptr_t end, bool write)
{
	void (*now)(void) = meanwhile;

	assert_true(write && start >= BASE && end <= BASE + TRANSFERS * BLOCK && start < end);
	meanwhile = NULL;
	if (now)
		now();
	if (no_memory) {
		no_memory--;
		return -ENOMEM;
	}
	for (uintptr_t at = start; at < end; at += PAGE) {
		made += !there[(at - BASE) / PAGE];
		there[(at - BASE) / PAGE] = true;
	}
	return 0;
}

static const struct os_ops os = { .populate = populate };

static int setup(void **state)
{
	pager = calloc(1, sizeof(*pager));
	transfer = calloc(TRANSFERS, sizeof(*transfer));
	memset(there, 0, sizeof(there));
	hmm = (struct hmm){ .os = &os, .pager = pager };
	pager->fresh = BASE;
	pager->transfer = transfer;
	for (unsigned i = 0; i < TRANSFERS; i++)
		transfer[i] = (struct hmm_transfer){ .hmm = &hmm, .index = i };
	made = no_memory = 0;
	meanwhile = NULL;
	return 0;
}

static int teardown(void **state)
{
	free(transfer);
	free(pager);
	return 0;
}

/* n pages come home: all were there, and leave. Return: how many had to be made just then. */
static unsigned home(unsigned i, unsigned n)
{
	unsigned before = made;
	uintptr_t start;

	assert_int_equal(fresh_take(&transfer[i], n, &start), 0);
	assert_true(start >= BASE + i * BLOCK && start + n * PAGE <= BASE + (i + 1) * BLOCK);
	for (unsigned k = 0; k < n; k++) {
		assert_true(there[(start - BASE) / PAGE + k]);
		there[(start - BASE) / PAGE + k] = false;
	}
	fresh_over(&transfer[i]);
	return made - before;
}

static void help(void)
{
	while (fresh_fill(&hmm))
		;
}

/* The first half is made as it is needed; from the second on it is there before. */
static void test_small(void **state)
{
	for (unsigned k = 0; k < HALF / 16; k++)
		assert_int_equal(home(2, 16), 16);
	assert_false(pager->hungry);
	assert_int_equal(home(2, 16), 16); /* the second half, which nobody had wanted */
	assert_true(pager->hungry);
	help(); /* the first */
	for (unsigned k = 1; k < HALF / 16; k++)
		assert_int_equal(home(2, 16), 16);
	for (unsigned round = 0; round < 6; round++) {
		help();
		for (unsigned k = 0; k < HALF / 16; k++)
			assert_int_equal(home(2, 16), 0);
	}
	assert_int_equal(home(3, 16), 16); /* another's block is its own */
}

/* What does not fit into the rest of a half comes from the other one. */
static void test_odd(void **state)
{
	for (unsigned k = 0; k < 2000; k++) {
		home(1, 1 + k * 37 % HALF);
		if (k % 3)
			help();
	}
}

static void test_block(void **state)
{
	assert_int_equal(home(0, BLOCK_PAGES), BLOCK_PAGES);
	help();
	assert_int_equal(home(0, BLOCK_PAGES), 0);
	help();
	assert_int_equal(home(0, HALF + 1), 0);
	help();
	assert_int_equal(home(0, 16), 0);
	/* One half begun: all of it is made sure of. */
	assert_int_equal(home(0, BLOCK_PAGES), 16);
}

static void take_it(void)
{
	assert_int_equal(home(0, 16), 16);
}

/* The helper is at the first half when the pager comes to it. */
static void test_taken_while_filling(void **state)
{
	home(0, HALF);
	home(0, HALF); /* the second half; the first is wanted */
	meanwhile = take_it;
	assert_true(fresh_fill(&hmm)); /* its first step; then it sees that it was taken */
	/* Pages that it made are there all the same; but the half does not count as full. */
	memset(there, 0, sizeof(there));
	assert_int_equal(home(0, 16), 16);
}

static void test_no_memory(void **state)
{
	uintptr_t start;

	home(0, HALF);
	home(0, HALF);
	no_memory = 1;
	assert_false(fresh_fill(&hmm));
	no_memory = 1;
	assert_int_equal(fresh_take(&transfer[0], 16, &start), -ENOMEM);
	fresh_over(&transfer[0]);
	assert_int_equal(home(0, 16), 16);
}

/* A storm is more urgent, and so is the end. */
static void test_hurry(void **state)
{
	home(0, HALF);
	home(0, HALF);
	pager->hush = true;
	assert_true(fresh_fill(&hmm));
	assert_int_equal(made, 2 * HALF);
	pager->hush = false;
	help();
	assert_int_equal(made, 3 * HALF);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_small),	       TEST(test_odd),	     TEST(test_block),
		TEST(test_taken_while_filling), TEST(test_no_memory), TEST(test_hurry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
