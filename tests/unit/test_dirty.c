/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_dirty - which pages have been written to (W1), and what may be marked (G7).
 *
 * The fake kernel fails the test if anything but anonymous memory is marked.
 */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>

#include <uhmm/dirty.h>

#define RW (PROT_READ | PROT_WRITE)
#define N 200u

static struct device device;
static struct hmm *hmm;
static struct hmm_dirty *dirty;
static uint64_t bits[(N + 63) / 64];

static struct hmm_dirty *track(unsigned page, unsigned n)
{
	struct hmm_dirty *d;

	assert_int_equal(hmm_dirty_begin(hmm, fake_addr(page), n * PAGE, &d), 0);
	return d;
}

/* Pages [10, 10 + N), warm, tracked, and collected once. */
static void begin(void **state, enum fake_object_name object)
{
	hmm = *state;
	device_open(&device, hmm, 0, 0);
	fake_map(10, N, object, RW);
	for (unsigned i = 10; i < 10 + N; i++)
		fake_write_page(i, i);
	assert_int_equal(device_fault(&device, 10, N, true), 0);
	dirty = track(10, N);
	assert_int_equal(hmm_dirty_collect(dirty, bits), N);
}

static void end(void)
{
	fake_forget();
	hmm_dirty_end(dirty);
	device_close(&device);
}

static bool is_set(unsigned page)
{
	return bits[(page - 10) / 64] >> (page - 10) % 64 & 1;
}

static void written_pages_only(void **state)
{
	begin(state, FAKE_ANON);
	assert_int_equal(hmm_dirty_collect(dirty, bits), 0);
	fake_write_page(10, 1);
	fake_write_page(77, 1);
	fake_write_page(9 + N, 1);
	assert_int_equal(hmm_dirty_collect(dirty, bits), 3);
	assert_true(is_set(10) && is_set(77) && is_set(9 + N));
	assert_int_equal(hmm_dirty_collect(dirty, bits), 0);
	end();
}

/* More runs than one scan has room for. */
static void every_other_page(void **state)
{
	begin(state, FAKE_ANON);
	for (unsigned i = 10; i < 10 + N; i += 2)
		fake_write_page(i, 1);
	assert_int_equal(hmm_dirty_collect(dirty, bits), N / 2);
	for (unsigned i = 10; i < 10 + N; i++)
		assert_int_equal(is_set(i), i % 2 == 0);
	end();
}

/* A hole reads as zeros now, whatever was there; it is not marked, but has its bit. */
static void holes_count_as_changed(void **state)
{
	begin(state, FAKE_ANON);
	fake_dontneed(20, 5);
	fake_settle();
	assert_int_equal(hmm_dirty_collect(dirty, bits), 5);
	assert_int_equal(hmm_dirty_collect(dirty, bits), 5);
	for (unsigned i = 20; i < 25; i++)
		assert_false(fake.page[i].marked);
	end();
}

/* The marks are shared: who collects takes nothing from others. */
static void two_trackers(void **state)
{
	struct hmm_dirty *other;

	begin(state, FAKE_ANON);
	other = track(50, 100);
	fake_write_page(60, 1);
	fake_write_page(20, 1);
	assert_int_equal(hmm_dirty_collect(other, bits), 100); /* its first */
	assert_int_equal(hmm_dirty_collect(dirty, bits), 2);
	assert_true(is_set(20) && is_set(60));
	fake_write_page(70, 1);
	assert_int_equal(hmm_dirty_collect(dirty, bits), 1);
	assert_int_equal(hmm_dirty_collect(other, bits), 1);
	assert_int_equal(bits[0], UINT64_C(1) << 20);
	hmm_dirty_end(other);
	fake_write_page(70, 2);
	assert_int_equal(hmm_dirty_collect(dirty, bits), 1);
	end();
}

/* G7: no file, no shared memory, nothing of hugetlb; all of it counts as changed, always. */
static void only_anonymous_memory(void **state)
{
	static const enum fake_object_name others[] = { FAKE_SHARED_FILE, FAKE_PRIVATE_FILE,
							FAKE_DAX_FILE, FAKE_SHMEM, FAKE_SYSV,
							FAKE_HUGETLB };

	for (unsigned i = 0; i < sizeof(others) / sizeof(*others); i++) {
		begin(state, others[i]);
		assert_int_equal(hmm_dirty_collect(dirty, bits), N);
		for (unsigned p = 10; p < 10 + N; p++)
			assert_false(fake.page[p].marked);
		end();
		fake_unmap(10, N);
		fake_settle();
	}
}

static void mixed(void **state)
{
	begin(state, FAKE_ANON);
	fake_map(60, 10, FAKE_DAX_FILE, RW);
	fake_settle();
	assert_int_equal(device_fault(&device, 60, 10, true), 0);
	assert_int_equal(hmm_dirty_collect(dirty, bits), 10);
	assert_true(is_set(60) && is_set(69) && !is_set(59) && !is_set(70));
	end();
}

/* What no device has faulted bears no mark: nobody would hear of its end. */
static void not_mirrored(void **state)
{
	begin(state, FAKE_ANON);
	fake_map(60, 10, FAKE_ANON, RW);
	fake_settle();
	for (unsigned i = 60; i < 70; i++)
		fake_write_page(i, 1);
	assert_int_equal(hmm_dirty_collect(dirty, bits), 10);
	assert_int_equal(hmm_dirty_collect(dirty, bits), 10);
	assert_false(fake.page[65].marked);
	end();
}

static void somebody_elses(void **state)
{
	begin(state, FAKE_ANON);
	for (unsigned i = 30; i < 40; i++) {
		fake.page[i].ctx = FAKE_FOREIGN;
		fake.page[i].marked = false;
	}
	assert_true(hmm_dirty_collect(dirty, bits) >= 10);
	for (unsigned i = 30; i < 40; i++)
		assert_true(is_set(i) && !fake.page[i].marked);
	end();
}

static int map_a_file_over(void *arg)
{
	fake_map(60, 10, FAKE_DAX_FILE, RW);
	return 0;
}

/* Mapped over between the look and the scan: it is not registered, so not marked. */
static void replaced_before_the_scan(void **state)
{
	begin(state, FAKE_ANON);
	fake_at(FAKE_OP_SCAN, FAKE_BEFORE, -1, 1, map_a_file_over, NULL);
	assert_true(hmm_dirty_collect(dirty, bits) >= 10);
	assert_true(is_set(60) && is_set(69));
	end();
}

static int move_a_file_over(void *arg)
{
	fake_remap(300, 60, 10, false);
	return 0;
}

/*
 * A private file is registered too, and its pages that were written to are anonymous: nothing but
 * another look at the mapping tells that they must not be marked. The context has a change pending.
 */
static void moved_over_before_the_scan(void **state)
{
	begin(state, FAKE_ANON);
	fake_map(300, 10, FAKE_PRIVATE_FILE, RW);
	for (unsigned i = 300; i < 310; i++)
		fake_write_page(i, 1);
	assert_int_equal(device_fault(&device, 300, 10, true), 0);
	fake.may_mark_others = true;
	fake_at(FAKE_OP_SCAN, FAKE_BEFORE, -1, 1, move_a_file_over, NULL);
	assert_true(hmm_dirty_collect(dirty, bits) >= 10);
	for (unsigned i = 60; i < 70; i++)
		assert_true(is_set(i) && !fake.page[i].marked);
	fake_settle();
	fake.may_mark_others = false;
	assert_true(hmm_dirty_collect(dirty, bits) >= 10);
	end();
}

static void bad_input(void **state)
{
	struct hmm_dirty *d;

	begin(state, FAKE_ANON);
	assert_int_equal(hmm_dirty_begin(hmm, fake_addr(1), 0, &d), -EINVAL);
	assert_int_equal(hmm_dirty_begin(hmm, fake_addr(1) + 1, PAGE, &d), -EINVAL);
	assert_int_equal(hmm_dirty_begin(hmm, fake_addr(1), PAGE + 1, &d), -EINVAL);
	assert_int_equal(hmm_dirty_begin(hmm, -(uintptr_t)PAGE, 2 * PAGE, &d), -EOVERFLOW);
	assert_int_equal(hmm_dirty_begin(hmm, fake_addr(1), (size_t)1 << 60, &d), -EOVERFLOW);
	assert_int_equal(hmm_dirty_collect(dirty, NULL), -EINVAL);
	assert_int_equal(hmm_dirty_collect(NULL, bits), -EINVAL);
	hmm_dirty_end(NULL);
	end();
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(written_pages_only), TEST(every_other_page), TEST(holes_count_as_changed),
		TEST(two_trackers),	  TEST(only_anonymous_memory), TEST(mixed),
		TEST(not_mirrored),	  TEST(somebody_elses),
		TEST(replaced_before_the_scan),
		TEST(moved_over_before_the_scan), TEST(bad_input),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
