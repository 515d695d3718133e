/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_svm_slice - the time slice of a block that two GPUs want, on a clock of our own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "slice.h"

#define BASE 100u
#define MOST 450u

static const char one, two;

static uint64_t move(struct svm_slice *slice, const void *to, uint64_t now)
{
	svm_slice_moved(slice, 7, to, now, BASE, MOST);
	return slice->ns;
}

static void the_first_comer_waits_for_nobody(void **state)
{
	struct svm_slice slice = { .to = NULL };

	assert_int_equal(svm_slice_left(&slice, 0, &one, 5), 0);
	assert_int_equal(move(&slice, &one, 1000), BASE);
	assert_int_equal(svm_slice_left(&slice, 7, &one, 1001), 0);
	assert_int_equal(svm_slice_left(&slice, 8, &two, 1001), 0);
}

static void the_other_waits_until_it_is_over(void **state)
{
	struct svm_slice slice = { .to = NULL };

	move(&slice, &one, 1000);
	assert_int_equal(svm_slice_left(&slice, 7, &two, 1000), BASE);
	assert_int_equal(svm_slice_left(&slice, 7, &two, 1099), 1);
	assert_int_equal(svm_slice_left(&slice, 7, &two, 1100), 0);
	assert_int_equal(svm_slice_left(&slice, 7, &two, UINT64_MAX), 0);
}

static void a_fight_doubles_it_up_to_the_most(void **state)
{
	struct svm_slice slice = { .to = NULL };
	const uint64_t lengths[] = { 100, 200, 400, MOST, MOST };
	uint64_t now = 1000;

	for (unsigned i = 0; i < 5; i++) {
		const void *to = i % 2 ? &two : &one;

		now += svm_slice_left(&slice, 7, to, now);
		assert_int_equal(move(&slice, to, now), lengths[i]);
	}
	/* Another piece of it for the same GPU: it has it from now on, no longer than before. */
	assert_int_equal(move(&slice, &one, now + 3), MOST);
	assert_int_equal(svm_slice_left(&slice, 7, &two, now + 4), MOST - 1);
}

static void peace_and_another_block_begin_anew(void **state)
{
	struct svm_slice slice = { .to = NULL };

	move(&slice, &one, 1000);
	assert_int_equal(move(&slice, &two, 1100), 200);
	assert_int_equal(move(&slice, &one, 1100 + 399), 400);
	assert_int_equal(move(&slice, &two, 1499 + 800), BASE);
	assert_int_equal(move(&slice, &one, 2400), 200);
	svm_slice_moved(&slice, 9, &two, 2500, BASE, MOST);
	assert_int_equal(slice.ns, BASE);
	/* A most that is the base: never longer. */
	svm_slice_moved(&slice, 9, &one, 2600, BASE, BASE);
	assert_int_equal(slice.ns, BASE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_comer_waits_for_nobody),
		cmocka_unit_test(the_other_waits_until_it_is_over),
		cmocka_unit_test(a_fight_doubles_it_up_to_the_most),
		cmocka_unit_test(peace_and_another_block_begin_anew),
	};

	return cmocka_run_group_tests_name("svm_slice", tests, NULL, NULL);
}
