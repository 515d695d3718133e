/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_records - changes of permission, which send no message: perf's records, and without
 * perf the second look at the fence (G1, G3). SysV segments, which leave without a word.
 */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)
#define P 3u

static struct device device, other;

static void begin(struct hmm *hmm)
{
	fake_map(0, 8, FAKE_ANON, RW);
	device_open(&device, hmm, 0, 0);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	assert_true(device.entry[P].write);
	assert_int_equal(hmm_notifier_fence(device.notifier), 0);
	memset(device.events, 0, sizeof(device.events));
}

static void end(void)
{
	fake_forget();
	device_close(&device);
}

static uint64_t pushed(struct hmm *hmm)
{
	return hmm->side_queue.pushed;
}

/* ---- with perf ---- */

/* A record of memory that nobody mirrors is nobody's business. */
static void elsewhere_is_ignored(void **state)
{
	struct hmm *hmm = *state;
	uint64_t before;

	begin(hmm);
	before = pushed(hmm);
	fake_map(100, 4, FAKE_ANON, RW);
	fake_protect(100, 2, PROT_READ);
	assert_true(fake.head != fake.tail);
	assert_int_equal(hmm_notifier_fence(device.notifier), 0);
	assert_true(fake.head == fake.tail);
	assert_true(pushed(hmm) == before);
	assert_true(device.entry[P].valid);
	end();
}

static void neighbours_are_told_exactly(void **state)
{
	begin(*state);
	assert_int_equal(device_fault(&device, 0, 8, true), 0);
	fake_protect(4, 2, PROT_READ);
	device_fence_is_sound(&device);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(device.entry[i].valid, i != 4 && i != 5);
	end();
}

/* More mprotects than the ring holds: one is missing, so everything counts as changed. */
static void full_ring(void **state)
{
	begin(*state);
	for (unsigned i = 0; i < FAKE_RECORDS; i++)
		fake_protect(100, 1, PROT_READ);
	fake_protect(P, 1, PROT_READ);
	assert_true(fake.overflow);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_true(device.last.end == UINTPTR_MAX);
	assert_int_equal(device_fault(&device, P, 1, false), 0);
	assert_false(device.entry[P].write);
	device_fence_is_sound(&device);
	assert_true(device.entry[P].valid); /* once, not for ever */
	end();
}

/* PERF_RECORD_LOST alone, with nothing else in the ring. */
static void lost_record(void **state)
{
	begin(*state);
	fake.page[P].prot = PROT_READ; /* changed, and no record of it */
	fake.overflow = true;
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	end();
}

/* What another thread does beside a fault that registers the VMA for the first time. */
static int protected_and_drained(void *arg)
{
	fake_protect(P, 1, PROT_READ);
	records_drain(arg);
	return 0;
}

static int replaced_and_drained(void *arg)
{
	fake_unmap(P, 1);
	fake_map(P, 1, FAKE_ANON, PROT_READ);
	records_drain(arg);
	return 0;
}

/*
 * The record comes after the fault has read the VMA and before the VMA is in the map:
 * whoever drains the ring there drops it (G1).
 */
static void record_while_a_vma_is_being_entered(void **state)
{
	static const enum fake_op ops[] = { FAKE_OP_FIND_FAST, FAKE_OP_FIND, FAKE_OP_REGISTER,
					    FAKE_OP_POPULATE, FAKE_OP_SCAN };
	static const fake_action actions[] = { protected_and_drained, replaced_and_drained };

	for (unsigned o = 0; o < 5; o++)
		for (unsigned when = FAKE_BEFORE; when <= FAKE_AFTER; when++)
			for (unsigned i = 0; i < 2; i++) {
				fake_map(0, 8, FAKE_ANON, RW);
				device_open(&device, *state, 0, 0);
				fake_at(ops[o], when, -1, 1, actions[i], *state);
				assert_int_equal(device_fault(&device, P, 1, false), 0);
				device_fence_is_sound(&device);
				assert_false(device.entry[P].valid && device.entry[P].write);
				assert_int_equal(fake.page[P].prot, PROT_READ);
				assert_int_equal(device_fault(&device, P, 1, false), 0);
				assert_false(device.entry[P].write);
				fake_settle();
				end();
				fake_unmap(0, 8);
				fake_settle();
			}
}

static sem_t reached;

static int rest_a_while(void *arg)
{
	sem_post(&reached);
	usleep(30000);
	return 0;
}

static void *fence(void *arg)
{
	return (void *)(intptr_t)hmm_fence(arg, fake_addr(P), 1);
}

static int setup_threads(void **state)
{
	fake_reset();
	fake.threads = true;
	*state = fake_open();
	return 0;
}

/* One thread has taken the record out of the ring and not pushed it yet: the other finds
 * the ring empty and must wait all the same (`draining`, G1). */
static void drained_but_not_pushed(void **state)
{
	pthread_t thread;
	void *err;

	sem_init(&reached, 0, 0);
	begin(*state);
	fake_at(FAKE_OP_RECORD, FAKE_BEFORE, -1, 1, rest_a_while, NULL);
	fake_protect(P, 1, PROT_READ);
	assert_int_equal(pthread_create(&thread, NULL, fence, *state), 0);
	sem_wait(&reached);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	pthread_join(thread, &err);
	assert_null(err);
	end();
	sem_destroy(&reached);
}

/* While something is mirrored the worker looks at the rings itself, in ticks. */
static void the_worker_drains_in_ticks(void **state)
{
	begin(*state);
	fake_protect(P, 1, PROT_READ);
	for (unsigned i = 0; i < 100 && !device.events[HMM_EVENT_PROTECTION]; i++)
		usleep(10000);
	assert_int_equal(hmm_notifier_fence(device.notifier), 0);
	assert_int_equal(device.events[HMM_EVENT_PROTECTION], 1);
	end();
}

/* ---- without perf ---- */

static void permission_is_read_again(void **state)
{
	begin(*state);
	fake_protect(P, 1, PROT_READ);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_int_equal(device.events[HMM_EVENT_PROTECTION], 1);
	device_fence_is_sound(&device);
	assert_int_equal(device.events[HMM_EVENT_PROTECTION], 1); /* once */
	assert_int_equal(device_fault(&device, P, 1, true), -EPERM);
	assert_int_equal(device_fault(&device, P, 1, false), 0);
	fake_protect(P, 1, RW);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	device_fence_is_sound(&device);
	assert_true(device.entry[P].write);
	end();
}

/* A fault at another part of the VMA writes the new permission into the map; the device
 * still has a page with the old one (G1). */
static void a_fault_elsewhere_swallows_nothing(void **state)
{
	begin(*state);
	fake_protect(0, 8, PROT_READ);
	assert_int_equal(device_fault(&device, 6, 1, false), 0);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].write);
	end();
}

static int protect_all(void *arg)
{
	fake_protect(0, 12, PROT_READ);
	return 0;
}

/* The VMA has grown, as a stack does, so that a fault registers it again; mprotect comes
 * at each step of that (G1). */
static void nor_does_a_vma_that_grew(void **state)
{
	static const enum fake_op ops[] = { FAKE_OP_FIND_FAST, FAKE_OP_FIND, FAKE_OP_REGISTER };

	for (unsigned o = 0; o < 3; o++)
		for (unsigned when = FAKE_BEFORE; when <= FAKE_AFTER; when++)
			for (unsigned nth = 1; nth < 6; nth++) {
				begin(*state);
				fake_map(8, 4, FAKE_ANON, RW);
				for (unsigned i = 8; i < 12; i++)
					fake.page[i].ctx = fake.page[P].ctx;
				fake_at(ops[o], when, -1, nth, protect_all, NULL);
				assert_int_equal(device_fault(&device, 10, 1, false), 0);
				fake_forget();
				device_fence_is_sound(&device);
				assert_false(device.entry[P].write &&
					     !(fake.page[P].prot & PROT_WRITE));
				end();
				fake_unmap(0, 12);
				fake_settle();
			}
}

static void a_hole_is_found(void **state)
{
	begin(*state);
	assert_int_equal(device_fault(&device, 0, 8, true), 0);
	fake_shmdt(2, 3); /* any change that sent nothing */
	device_fence_is_sound(&device);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(device.entry[i].valid, i < 2 || i > 4);
	device_fence_is_sound(&device);
	assert_int_equal(device_told(&device), 1); /* once, not at every fence */
	end();
}

/* ---- SysV segments ---- */

static void attach(struct hmm *hmm)
{
	fake_map(0, 8, FAKE_SYSV, RW);
	device_open(&device, hmm, 0, 0);
	assert_int_equal(device_fault(&device, 0, 8, true), 0);
	assert_true(hmm->sysv);
}

static void detached(void **state)
{
	attach(*state);
	fake_shmdt(0, 8);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_int_equal(device_fault(&device, P, 1, false), -EFAULT);
	assert_int_equal(((struct hmm *)*state)->sysv, 0);
	end();
}

static void another_segment_in_its_place(void **state)
{
	attach(*state);
	fake_shmdt(0, 8);
	fake_map(0, 8, FAKE_SYSV_OTHER, RW);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	fake_shmdt(0, 8);
	fake_map(0, 8, FAKE_ANON, RW);
	device_fence_is_sound(&device);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	assert_int_equal(((struct hmm *)*state)->sysv, 0);
	fake_dontneed(P, 1);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	end();
}

static int replaced_by_a_segment(void *arg)
{
	fake_map(0, 8, FAKE_SYSV, RW);
	return 0;
}

/* It was a file when it was looked at, and a segment when it was registered: the map must
 * know that it can leave without a word. */
static void becomes_a_segment(void **state)
{
	fake_map(0, 8, FAKE_SHARED_FILE, RW);
	device_open(&device, *state, 0, 0);
	fake_at(FAKE_OP_REGISTER, FAKE_BEFORE, -1, 1, replaced_by_a_segment, NULL);
	assert_int_equal(device_fault(&device, 0, 8, true), 0);
	device_fence_is_sound(&device); /* has drained the new mapping's record */
	assert_int_equal(device_fault(&device, 0, 8, true), 0);
	assert_true(device.entry[P].valid);
	fake_shmdt(0, 8);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	end();
}

/* Moved to where a segment was, token and all. */
static void another_mapping_moved_to_its_place(void **state)
{
	attach(*state);
	fake_map(20, 8, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 20, 8, true), 0);
	fake_shmdt(0, 8);
	fake.hold_queue = true; /* the fence must not hear it from the REMAP */
	fake_remap(20, 0, 8, false);
	fake.hold_queue = false;
	assert_int_equal(hmm_fence(*state, fake_addr(P), PAGE), 0);
	assert_false(device.entry[P].valid);
	fake_queue_all();
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	fake_dontneed(P, 1);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	end();
}

/* What left without a message is found by the fault that comes first; it tells the rest. */
static void silently_replaced(void **state)
{
	uint64_t pfn = 0;
	struct hmm_range range = { .size = sizeof(range), .hmm = *state,
				   .start = fake_addr(P), .end = fake_addr(P + 1),
				   .pfns = &pfn, .default_flags = HMM_PFN_REQ_FAULT };

	begin(*state);
	device_open(&other, *state, 0, 0);
	range.notifier = other.notifier;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	fake_shmdt(0, 8);
	fake_map(0, 8, FAKE_ANON, RW);
	assert_int_equal(hmm_range_fault(&range), 0);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	device_close(&other);
	end();
}

/* Another device's fault registers the new segment before anybody has fenced: the token is
 * good again, and the first device still has the old one (G1). */
static void another_segment_registered_already(void **state)
{
	attach(*state);
	device_open(&other, *state, 0, 0);
	fake_shmdt(0, 8);
	fake_map(0, 8, FAKE_SYSV_OTHER, RW);
	/* The look that finds it, without the fence of a read_begin before. */
	{
		uint64_t pfn = 0;
		struct hmm_range range = { .size = sizeof(range), .hmm = *state,
					   .notifier = other.notifier,
					   .notifier_seq = other.notifier->seq,
					   .start = fake_addr(P), .end = fake_addr(P + 1),
					   .pfns = &pfn, .default_flags = HMM_PFN_REQ_FAULT };

		assert_int_equal(hmm_range_fault(&range), 0);
		assert_true(fake_ctx_of(P) >= 0);
	}
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	device_close(&other);
	end();
}

#define PERF(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
#define NO_PERF(test) cmocka_unit_test_setup_teardown(test, fake_setup_no_perf, fake_teardown)
#define THREADS(test) cmocka_unit_test_setup_teardown(test, setup_threads, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PERF(elsewhere_is_ignored),
		PERF(neighbours_are_told_exactly),
		PERF(full_ring),
		PERF(lost_record),
		PERF(record_while_a_vma_is_being_entered),
		THREADS(drained_but_not_pushed),
		THREADS(the_worker_drains_in_ticks),
		NO_PERF(permission_is_read_again),
		NO_PERF(a_fault_elsewhere_swallows_nothing),
		NO_PERF(nor_does_a_vma_that_grew),
		NO_PERF(a_hole_is_found),
		PERF(detached),
		NO_PERF(detached),
		PERF(another_segment_in_its_place),
		NO_PERF(another_segment_in_its_place),
		PERF(becomes_a_segment),
		NO_PERF(becomes_a_segment),
		PERF(another_mapping_moved_to_its_place),
		NO_PERF(another_mapping_moved_to_its_place),
		PERF(silently_replaced),
		NO_PERF(silently_replaced),
		PERF(another_segment_registered_already),
		NO_PERF(another_segment_registered_already),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
