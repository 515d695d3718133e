/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_svm_homing - notices of pages that go home: several engines write, one reads; each arrives
 * once, or the reader is told that some were spilled.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sched.h>
#include <stdlib.h>

#include "svm_private.h"

#define ENGINES 3u
#define EACH 30000u
#define AHEAD 200u /* of the reader: all together they never fill the ring */

static struct svm_stripe stripe;

struct svm_stripe *svm_stripe_of(struct svm *svm, uintptr_t addr)
{
	(void)svm;
	(void)addr;
	return &stripe;
}

void svm_bell_ring(_Atomic uint32_t *bell)
{
	atomic_fetch_add(bell, 1);
}

static int setup(void **state)
{
	struct svm *svm = calloc(1, sizeof(*svm));

	if (!svm)
		return -1;
	svm_homing_init(&svm->homing);
	atomic_store(&svm->evict.watch, true);
	*state = svm;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void who_is_told_of_what(void **state)
{
	struct svm *svm = *state;
	struct svm_span span;
	bool touched;

	assert_false(svm_homing_take(&svm->homing, &span, &touched));
	svm_home(svm, NULL, 4096, 8192, false);
	svm_home(svm, NULL, 8192, 12288, true);
	svm_moving(svm, 3 * SVM_BLOCK);
	svm_home(svm, NULL, 3 * SVM_BLOCK + 4096, 4 * SVM_BLOCK, false);
	svm_home(svm, NULL, 5 * SVM_BLOCK, 6 * SVM_BLOCK, false);
	svm_moved(svm, 3 * SVM_BLOCK);
	assert_true(svm_homing_take(&svm->homing, &span, &touched));
	assert_int_equal(span.start, 4096);
	assert_int_equal(span.end, 8192);
	assert_true(touched); /* a CPU, */
	assert_true(svm_homing_take(&svm->homing, &span, &touched));
	assert_false(touched); /* room, */
	assert_true(svm_homing_take(&svm->homing, &span, &touched));
	assert_int_equal(span.start, 3 * SVM_BLOCK + 4096);
	assert_false(touched); /* ourselves */
	assert_true(svm_homing_take(&svm->homing, &span, &touched));
	assert_true(touched);
	assert_false(svm_homing_take(&svm->homing, &span, &touched));
	assert_int_equal(atomic_load(&svm->evict.bell), 4);
	/* Where nothing must be mapped only a CPU's touch matters; at the end nothing does. */
	atomic_store(&svm->evict.watch, false);
	svm_home(svm, NULL, 4096, 8192, true);
	atomic_store(&svm->closing, true);
	svm_home(svm, NULL, 4096, 8192, false);
	assert_false(svm_homing_take(&svm->homing, &span, &touched));
}

static void what_finds_no_slot_is_told_as_anything(void **state)
{
	struct svm *svm = *state;
	struct svm_span span;
	bool touched;

	for (uintptr_t i = 0; i < SVM_NOTICES + 2; i++)
		svm_home(svm, NULL, i * SVM_PAGE, (i + 1) * SVM_PAGE, true);
	for (uintptr_t i = 0; i < SVM_NOTICES; i++) {
		assert_true(svm_homing_take(&svm->homing, &span, &touched));
		assert_int_equal(span.start, i * SVM_PAGE);
	}
	assert_true(svm_homing_take(&svm->homing, &span, &touched));
	assert_int_equal(span.start, 0);
	assert_true(span.end == UINTPTR_MAX);
	assert_false(svm_homing_take(&svm->homing, &span, &touched));
	svm_home(svm, NULL, SVM_PAGE, 2 * SVM_PAGE, true);
	assert_true(svm_homing_take(&svm->homing, &span, &touched));
	assert_int_equal(span.start, SVM_PAGE);
}

struct engine {
	struct svm *svm;
	uintptr_t id;
	_Atomic uintptr_t next; /* that the reader expects */
	pthread_t thread;
};

static void *engine_main(void *arg)
{
	struct engine *engine = arg;

	for (uintptr_t i = 0; i < EACH; i++) {
		while (i > atomic_load(&engine->next) + AHEAD)
			sched_yield();
		svm_home(engine->svm, NULL, engine->id * SVM_BLOCK, i * SVM_PAGE, true);
	}
	return NULL;
}

static void each_engine_s_come_in_order_and_once(void **state)
{
	struct engine engine[ENGINES];
	struct svm *svm = *state;
	struct svm_span span;
	bool touched;

	for (unsigned i = 0; i < ENGINES; i++) {
		engine[i] = (struct engine){ .svm = svm, .id = i };
		assert_int_equal(pthread_create(&engine[i].thread, NULL, engine_main, &engine[i]),
				 0);
	}
	for (unsigned got = 0; got < ENGINES * EACH;) {
		struct engine *from;

		if (!svm_homing_take(&svm->homing, &span, &touched)) {
			sched_yield();
			continue;
		}
		assert_true(span.start / SVM_BLOCK < ENGINES);
		from = &engine[span.start / SVM_BLOCK];
		assert_int_equal(span.end / SVM_PAGE, from->next);
		atomic_fetch_add(&from->next, 1);
		got++;
	}
	for (unsigned i = 0; i < ENGINES; i++)
		pthread_join(engine[i].thread, NULL);
	assert_false(svm_homing_take(&svm->homing, &span, &touched));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(who_is_told_of_what),
		TEST(what_finds_no_slot_is_told_as_anything),
		TEST(each_engine_s_come_in_order_and_once),
	};

	return cmocka_run_group_tests_name("svm_homing", tests, NULL, NULL);
}
