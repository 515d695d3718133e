/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_queue - the ring between reader and worker: nothing that was pushed is lost, not
 * when it is full (G1 stands on that). Between two threads: test_queue_duel.c.
 */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RW (PROT_READ | PROT_WRITE)

static struct event slots[QUEUE_SLOTS];
static struct device device;

static struct event event_of(uint64_t number)
{
	return (struct event){ .kind = EVENT_CLEAR, .start = number * PAGE,
			       .end = number * PAGE + PAGE };
}

static void push(struct queue *queue, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n; i++) {
		struct event event = event_of(i);

		queue_push(queue, &event);
	}
}

static void events_come_in_order(void **state)
{
	struct queue queue = { .slots = slots };
	struct event event = { 0 };
	uint64_t upto = 0;

	assert_false(queue_take(&queue, &event, &upto));
	for (uint64_t round = 0; round < 5; round++) {
		push(&queue, round * 700, 700);
		for (uint64_t i = round * 700; i < (round + 1) * 700; i++) {
			assert_true(queue_take(&queue, &event, &upto));
			assert_true(event.start == i * PAGE && event.kind == EVENT_CLEAR);
			assert_true(upto == i + 1);
			/* Taking is not delivering. */
			assert_true(queue.done == i);
			queue_done(&queue, upto);
		}
		assert_false(queue_take(&queue, &event, &upto));
	}
}

static void exactly_full_is_not_a_collapse(void **state)
{
	struct queue queue = { .slots = slots };
	struct event event = { 0 };
	uint64_t upto = 0;

	push(&queue, 0, QUEUE_SLOTS);
	for (uint64_t i = 0; i < QUEUE_SLOTS; i++) {
		assert_true(queue_take(&queue, &event, &upto));
		assert_true(event.start == i * PAGE);
		queue_done(&queue, upto);
	}
	assert_false(queue_take(&queue, &event, &upto));
}

/* One too many: everything counts as changed, once, and then events are single again. */
static void one_more_is_everything(void **state)
{
	struct queue queue = { .slots = slots };
	struct event event = { 0 };
	uint64_t upto = 0;

	push(&queue, 0, 3);
	assert_true(queue_take(&queue, &event, &upto));
	queue_done(&queue, upto);
	push(&queue, 3, QUEUE_SLOTS - 2);
	assert_true(queue_take(&queue, &event, &upto));
	assert_true(event.kind == EVENT_CLEAR); /* full to the last slot */
	push(&queue, QUEUE_SLOTS + 1, 2);
	assert_true(queue_take(&queue, &event, &upto));
	assert_true(event.kind == EVENT_EVERYTHING);
	assert_true(event.start == 0 && event.end == UINTPTR_MAX);
	assert_true(upto == QUEUE_SLOTS + 3);
	/* Pushed while EVERYTHING is being delivered: after it. */
	push(&queue, QUEUE_SLOTS + 3, 1);
	queue_done(&queue, upto);
	assert_true(queue_take(&queue, &event, &upto));
	assert_true(event.kind == EVENT_EVERYTHING); /* it found the ring full */
	queue_done(&queue, upto);
	push(&queue, QUEUE_SLOTS + 4, 1);
	assert_true(queue_take(&queue, &event, &upto));
	assert_true(event.kind == EVENT_CLEAR);
	assert_true(event.start == (QUEUE_SLOTS + 4) * PAGE);
	queue_done(&queue, upto);
	assert_false(queue_take(&queue, &event, &upto));
}

/* ---- in the mirror ---- */

/* More changes than the ring holds while the worker is busy: CLEAR of everything (G1). */
static void a_full_queue_collapses(void **state)
{
	struct hmm *hmm = *state;

	fake_map(0, 16, FAKE_ANON, RW);
	fake_map(100, 16, FAKE_ANON, RW);
	device_open(&device, hmm, 0, 0);
	assert_int_equal(device_fault(&device, 0, 16, true), 0);
	assert_int_equal(device_fault(&device, 100, 16, true), 0);
	for (unsigned i = 0; i < QUEUE_SLOTS + 10; i++)
		fake_dontneed(3, 1);
	fake_unmap(5, 1); /* dropped: only EVERYTHING tells */
	fake_map(5, 1, FAKE_ANON, RW);
	fake_reader();
	device_fence_is_sound(&device);
	assert_false(device.entry[5].valid);
	assert_false(device.entry[110].valid); /* everything */
	assert_true(device_told(&device) < 40);
	/* The map of VMAs has forgotten them all, and they are found again. */
	for (unsigned page = 4; page < 7; page++) {
		assert_int_equal(device_fault(&device, page, 1, true), 0);
		fake_dontneed(page, 1);
		device_fence_is_sound(&device);
		assert_false(device.entry[page].valid);
	}
	device_close(&device);
}

/*
 * What a collapse hides may be that a mapping of another context was moved over one of
 * this context. Whoever then trusts the map asks the wrong context (G1): the token is there.
 */
static void a_collapse_forgets_whose_mappings_they_are(void **state)
{
	struct hmm *hmm = *state;

	fake_map(100, 8, FAKE_ANON, RW);
	fake_map(300, 8, FAKE_SHMEM, RW);
	device_open(&device, hmm, 0, 0);
	assert_int_equal(device_fault(&device, 100, 8, true), 0);
	assert_int_equal(device_fault(&device, 300, 8, true), 0);
	assert_int_not_equal(fake_ctx_of(100), fake_ctx_of(300));
	for (unsigned i = 0; i < QUEUE_SLOTS + 10; i++) {
		fake_dontneed(101, 1);
		fake_dontneed(301, 1);
	}
	fake_remap(300, 100, 8, false); /* its messages are dropped, of both contexts */
	fake_reader();
	device_fence_is_sound(&device);
	assert_int_equal(device_fault(&device, 100, 8, true), 0);
	/* mremap leaves no record; and a fence of everything would ask every context. */
	fake_map(500, 1, FAKE_ANON, RW);
	fake_remap(500, 103, 1, false);
	assert_int_equal(hmm_fence(hmm, fake_addr(103), PAGE), 0);
	assert_false(device.entry[103].valid);
	device_close(&device);
}

/* Two fences wait for one queue; both are right when they return. */
static void *fence_it(void *arg)
{
	struct device_floor *floor = malloc(sizeof(*floor));
	long bad = 0;

	if (!floor)
		return (void *)1;
	for (unsigned i = 0; i < 200; i++) {
		fake_dontneed(1, 1);
		device_floor(floor);
		bad += hmm_notifier_fence(device.notifier) != 0;
		pthread_mutex_lock(&device.lock);
		bad += device_stale(&device, floor) >= 0;
		pthread_mutex_unlock(&device.lock);
	}
	free(floor);
	return (void *)bad;
}

static int setup_threads(void **state)
{
	fake_reset();
	fake.threads = true;
	*state = fake_open();
	return 0;
}

static void several_wait_at_once(void **state)
{
	pthread_t threads[3];
	void *bad;

	fake_map(0, 16, FAKE_ANON, RW);
	device_open(&device, *state, 0, 0);
	assert_int_equal(device_fault(&device, 0, 16, true), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, fence_it, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		pthread_join(threads[i], &bad);
		assert_null(bad);
	}
	device_close(&device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(events_come_in_order),
		cmocka_unit_test(exactly_full_is_not_a_collapse),
		cmocka_unit_test(one_more_is_everything),
		cmocka_unit_test_setup_teardown(a_full_queue_collapses, fake_setup,
						fake_teardown),
		cmocka_unit_test_setup_teardown(a_collapse_forgets_whose_mappings_they_are,
						fake_setup, fake_teardown),
		cmocka_unit_test_setup_teardown(several_wait_at_once, setup_threads,
						fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
