/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_migrate - the calls that move pages to a device, what they refuse, and what fails on
 * the way out (G5; docs/migration.md). Each race at each step: test_migrate_steps.c.
 */
#include "away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static struct vram other;

static int64_t to_device(unsigned page, unsigned n)
{
	return hmm_migrate_to_device(away.vram.devmem, fake_addr(page), n * PAGE);
}

static int64_t to_host(unsigned page, unsigned n)
{
	return hmm_migrate_to_host(away.hmm, fake_addr(page), n * PAGE);
}

static bool is_away(unsigned page)
{
	return away_count(page, 1) == 1;
}

/* ---- there and back ---- */

static void there_and_back(void **state)
{
	uint64_t frame;

	away_begin(*state, NULL);
	assert_int_equal(to_device(A, LEN), LEN);
	assert_int_equal(away_count(A, LEN), LEN);
	assert_int_equal(vram_used(&away.vram), LEN);
	for (unsigned i = A; i < A + LEN; i++)
		assert_int_equal(fake_count(1000 + i), 0);
	assert_int_equal(away_device_reads(A + 3), 0);
	assert_true(away.vram.entry[A + 3].device);
	frame = away.vram.entry[A + 3].frame;
	assert_int_equal(vram_frame(&away.vram, frame), 1000 + A + 3);
	assert_int_equal(away_device_writes(A + 3, 5), 0);
	assert_int_equal(fake_count(5), 0);
	assert_int_equal(to_device(A, LEN), LEN); /* there already */
	assert_int_equal(vram_stats(&away.vram).to_device, LEN);
	assert_int_equal(fake_read_page(A + 3), 5);
	assert_false(away.vram.entry[A + 3].valid);
	assert_true(to_host(A, LEN) > 0);
	assert_int_equal(away_count(A, LEN), 0);
	assert_int_equal(to_host(A, LEN), 0);
	away_end(true);
}

static void host_frames_are_the_pages(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
					      .frames = VRAM_FRAMES, .host_frames = true };

	away_begin(*state, &options);
	assert_int_equal(to_device(A, 4), 4);
	assert_int_equal(away_device_reads(A), 0);
	assert_int_equal(fake_count(1000 + A), 1); /* moved, not copied */
	assert_int_equal(away.vram.outs, 0);
	assert_int_equal(away_device_writes(A, 6), 0);
	assert_int_equal(fake_count(6), 1);
	assert_null(hmm_devmem_host(away.vram.devmem, VRAM_FRAMES));
	assert_int_equal(fake_read_page(A), 6);
	away_end(true);
}

/* What was never touched, or only read, is zeros in its frame. */
static void holes_and_zero_pages(void **state)
{
	for (unsigned host = 0; host < 2; host++) {
		struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
						      .frames = VRAM_FRAMES,
						      .host_frames = host };

		away_begin(*state, &options);
		away_unmap(A, LEN);
		away_map(A, LEN);
		fake_settle();
		fake_look(A + 1, 1);
		away_move(A, 3);
		for (unsigned i = A; i < A + 3; i++)
			assert_int_equal(away_device_reads(i), 0);
		assert_int_equal(away_device_writes(A, 9), 0);
		assert_int_equal(fake_read_page(A), 9);
		assert_int_equal(fake_read_page(A + 1), 0);
		away_end(true);
	}
}

/* A first touch of a hole that is nobody's, beside pages that are away. */
static void holes_beside_are_zeros(void **state)
{
	away_begin(*state, NULL);
	away_dontneed(A + 8, 4);
	fake_settle();
	away_move(A, 4);
	assert_int_equal(fake_read_page(A + 8), 0);
	away_write(A + 9, 4);
	away_settle();
	assert_int_equal(fake_read_page(A + 9), 4);
	assert_int_equal(away_count(A, 4), 4);
	away_end(true);
}

static void coherent_pages_stay_mapped(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_COHERENT,
					      .frames = VRAM_FRAMES };
	uint64_t value;

	away_begin(*state, &options);
	assert_int_equal(to_device(P, 2), 2);
	assert_int_equal(vram_used(&away.vram), 2);
	assert_true(fake_sight(P, &value) == FAKE_SEES && value == 1000 + P);
	away_write(P, 3);
	assert_int_equal(fake_read_page(P), 3);
	assert_int_equal(to_host(P, 2), 2);
	assert_int_equal(vram_used(&away.vram), 0);
	assert_int_equal(to_device(P, 2), 2);
	away_dontneed(P, 1);
	away_end(true);
}

/* ---- what stays ---- */

static int refuse_with(void *arg)
{
	return *(int *)arg;
}

static void what_cannot_move_stays(void **state)
{
	unsigned at = A;

	away_begin(*state, NULL);
	fake_mlock(at, 1);
	fake_map(at + 1, 1, FAKE_SHARED_FILE, RW);
	away.page[at + 1].value = 0;
	fake_map(at + 2, 1, FAKE_PRIVATE_FILE, RW);
	away.page[at + 2].value = 0;
	fake_protect(at + 3, 1, PROT_READ);
	fake.page[at + 4].pinned = true;
	away_guard(at + 5);
	fake_map(at + 6, 1, FAKE_SHMEM, RW);
	away.page[at + 6].value = 0;
	fake.critical_start = fake_addr(at + 7);
	fake.critical_end = fake_addr(at + 8);
	fake_protect(at + 8, 1, PROT_READ); /* so that the rest is a mapping of its own */
	away_settle();
	assert_int_equal(to_device(at, 11), 2); /* the last two */
	for (unsigned i = at; i < at + 9; i++)
		if (i != at + 5)
			assert_false(is_away(i));
	assert_true(is_away(at + 9) && is_away(at + 10));
	for (unsigned i = at; i < at + 9; i++)
		assert_true(to_device(i, 1) <= 0);
	fake.page[at + 4].pinned = false;
	fake.critical_end = 0;
	away_end(true);
}

/* What the kernel writes to when a thread ends: it would not wait for it. */
static void what_a_thread_ends_with_stays(void **state)
{
	away_begin(*state, NULL);
	fake.thread_start = fake_addr(P);
	fake.thread_end = fake_addr(P + 1);
	assert_int_equal(to_device(P - 1, 4), 3);
	assert_false(is_away(P));
	assert_int_equal(fake.page[P].value, 1000 + P);
	away_end(true);
}

/* MADV_WIPEONFORK: a child must not get its bytes; it stays, or the child has zeros. */
static void what_a_child_has_empty(void **state)
{
	away_begin(*state, NULL);
	fake_wipeonfork(A, LEN);
	to_device(P, 2);
	away_fork();
	for (unsigned i = A; i < A + LEN; i++)
		away.child[0].value[i] = 0;
	away_end(true);
}

/* Shared with a child: written to first, then they move; the child keeps what it had. */
static void what_is_shared_with_a_child_moves(void **state)
{
	away_begin(*state, NULL);
	away_move(A, 1); /* registered */
	away_fork();
	away_settle();
	assert_true(fake.page[P].shared);
	away_move(P, 2);
	assert_int_equal(away_device_writes(P, 8), 0);
	away_end(true);
}

static void swapped_pages_move(void **state)
{
	away_begin(*state, NULL);
	fake.page[P].flags = OS_PAGE_SWAPPED;
	away_move(P, 1);
	assert_int_equal(away_device_reads(P), 0);
	assert_int_equal(fake_read_page(P), 1000 + P);
	away_end(true);
}

/* As many as there are frames. */
static void limit_and_declined_frames(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
					      .frames = VRAM_FRAMES, .limit = 6 };

	away_begin(*state, &options);
	assert_int_equal(to_device(A, 10), 6);
	assert_int_equal(away_count(A, 10), 6);
	assert_int_equal(vram_used(&away.vram), 6);
	assert_int_equal(to_device(A + 10, 2), -ENOSPC);
	assert_int_equal(to_host(A, 2), 2);
	assert_int_equal(to_device(A + 10, 2), 2);
	assert_int_equal(vram_stats(&away.vram).in_use_max, 6);
	away_end(true);

	away_begin(*state, NULL);
	memset(away.vram.declines, true, sizeof(away.vram.declines));
	assert_int_equal(to_device(A, 4), -ENOSPC);
	away.vram.declines[7] = away.vram.declines[33] = false;
	assert_int_equal(to_device(A, 4), 2);
	assert_true(vram_stats(&away.vram).declined > 0);
	away_end(true);
}

/* ---- errors ---- */

static void inside_a_callback(void *priv, const struct hmm_event *event)
{
	struct hmm_migrate m = { .size = sizeof(m), .devmem = away.vram.devmem,
				 .start = fake_addr(A), .end = fake_addr(A + 1) };
	uint64_t frame;

	assert_int_equal(to_device(A, 1), -EDEADLK);
	assert_int_equal(to_host(A, 1), -EDEADLK);
	assert_int_equal(hmm_migrate_setup(&m), -EDEADLK);
	assert_int_equal(hmm_devmem_evict(away.vram.devmem, 0, 1), -EDEADLK);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(A), &frame), -EDEADLK);
	++*(unsigned *)priv;
}

static void errors_of_calls(void **state)
{
	static const struct hmm_notifier_ops ops = { sizeof(ops), inside_a_callback, NULL };
	struct hmm_notifier *notifier;
	unsigned called = 0;

	away_begin(*state, NULL);
	assert_int_equal(hmm_migrate_to_device(NULL, fake_addr(A), PAGE), -EINVAL);
	assert_int_equal(to_device(A, 0), -EINVAL);
	assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(A) + 1, PAGE), -EINVAL);
	assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(A), PAGE + 1), -EINVAL);
	assert_int_equal(hmm_migrate_to_device(away.vram.devmem, ~(PAGE - 1), 2 * PAGE), -EINVAL);
	assert_int_equal(to_device(100, 4), -EINVAL);
	assert_int_equal(hmm_migrate_to_host(NULL, fake_addr(A), PAGE), -EINVAL);
	assert_int_equal(hmm_migrate_to_host(*state, PAGE, ~(uintptr_t)0), -EINVAL);
	assert_int_equal(hmm_devmem_evict(NULL, 0, 1), -EINVAL);
	fake.critical_start = fake_addr(A);
	fake.critical_end = fake_addr(A + LEN);
	assert_int_equal(to_device(A, LEN), -EBUSY);
	fake.critical_end = 0;

	assert_int_equal(vram_program(&away.vram, P, 1, true), 0);
	assert_int_equal(hmm_notifier_insert(*state, 0, UINTPTR_MAX, &ops, &called, &notifier), 0);
	fake_dontneed(P, 1);
	away.page[P].value = 0;
	away.page[P].old = 1000 + P;
	away.page[P].old_too = true;
	fake_settle();
	hmm_notifier_remove(notifier);
	assert_int_equal(called, 1);
	away_end(true);
}

static void options_of_a_devmem(void **state)
{
	struct hmm_devmem_options o = { .type = HMM_DEVMEM_PRIVATE, .frames = 4 };

	o.type = 0;
	assert_int_equal(vram_try_open(&other, *state, &o), -EINVAL);
	o.type = 3;
	assert_int_equal(vram_try_open(&other, *state, &o), -EINVAL);
	o.type = HMM_DEVMEM_PRIVATE;
	o.frames = 0;
	assert_int_equal(vram_try_open(&other, *state, &o), -EINVAL);
	o.frames = (UINT64_C(1) << 30) + 1;
	assert_int_equal(vram_try_open(&other, *state, &o), -EINVAL);
	o.frames = 4;
	o.limit = 5;
	assert_int_equal(vram_try_open(&other, *state, &o), -EINVAL);
	o.limit = 0;
	o.timeslice_us = 1000001;
	assert_int_equal(vram_try_open(&other, *state, &o), -EINVAL);
	o.timeslice_us = 0;
	assert_int_equal(vram_try_open(&other, NULL, &o), -EINVAL);
	hmm_devmem_destroy(NULL);
	hmm_devmem_lost(NULL);
}

static void without_what_it_needs(void **state)
{
	fake_reset();
	fake.no_move = true;
	*state = fake_open();
	assert_int_equal(vram_try_open(&other, *state, NULL), -EOPNOTSUPP);
	fake_close(*state);
	fake_reset();
	fake.user_only = true;
	*state = fake_open();
	assert_int_equal(vram_try_open(&other, *state, NULL), -EPERM);
}

/* ---- what fails on the way out: the page stays where it was ---- */

static void move_is_refused(void **state)
{
	static const int errs[] = { -EAGAIN, -EBUSY, -ENOMEM, -ENOENT, -ESRCH, -EINVAL, -EFAULT };

	for (unsigned host = 0; host < 2; host++)
		for (unsigned e = 0; e < sizeof(errs) / sizeof(errs[0]); e++)
			for (unsigned times = 1; times < 20; times += 18) {
				struct hmm_devmem_options options = {
					.type = HMM_DEVMEM_PRIVATE, .frames = VRAM_FRAMES,
					.host_frames = host };
				int64_t moved;

				away_begin(*state, &options);
				fake_refuse(FAKE_OP_MOVE, fake_addr(P), errs[e], times);
				moved = to_device(P - 1, 4);
				memset(fake.refusal, 0, sizeof(fake.refusal));
				assert_in_range(moved, errs[e] == -EAGAIN ? 4 : 3, 4);
				assert_int_equal(away_count(P - 1, 4), moved);
				away_end(true);
			}
}

/* The whole call, at its start. */
static void every_move_is_refused(void **state)
{
	static int errs[] = { -EAGAIN, -EBUSY, -ENOMEM, -EINVAL };

	for (unsigned e = 0; e < 4; e++)
		for (unsigned nth = 1; nth < 4; nth++) {
			away_begin(*state, NULL);
			fake_at(FAKE_OP_MOVE, FAKE_BEFORE, -1, nth, refuse_with, &errs[e]);
			to_device(P - 1, 4);
			away_end(true);
		}
}

static void registering_is_refused(void **state)
{
	static int errs[] = { -EBUSY, -ENOMEM, -EINVAL };

	for (unsigned e = 0; e < 3; e++) {
		away_begin(*state, NULL);
		fake_at(FAKE_OP_REGISTER_MISSING, FAKE_BEFORE, -1, 0, refuse_with, &errs[e]);
		assert_true(to_device(P, 2) <= 0);
		fake_forget();
		assert_int_equal(vram_used(&away.vram), 0);
		away_end(true);
	}
}

static void no_memory_for_a_region(void **state)
{
	static int enomem = -ENOMEM;

	for (unsigned nth = 1; nth < 5; nth++) {
		int err;

		fake_at(FAKE_OP_REGION_MAP, FAKE_BEFORE, -1, nth, refuse_with, &enomem);
		err = vram_try_open(&other, *state, NULL);
		assert_true(!err || err == -ENOMEM);
		if (!err) {
			vram_close(&other);
			away_begin(*state, NULL);
			assert_true(to_device(P, 2) == 2 || to_device(P, 2) == 2);
			away_end(true);
		}
		fake_forget();
	}
}

static void the_driver_cannot_copy(void **state)
{
	for (unsigned late = 0; late < 2; late++) {
		away_begin(*state, NULL);
		away.vram.late = late;
		away.vram.fail = -EIO;
		assert_int_equal(to_device(P, 4), -EIO);
		assert_int_equal(away_count(P, 4), 0);
		assert_int_equal(vram_used(&away.vram), 0);
		away.vram.fail_addr = fake_addr(P + 1);
		away.vram.fail_err = -EIO;
		assert_int_equal(to_device(P, 4), 3);
		assert_false(is_away(P + 1));
		away.vram.fail_addr = 0;
		assert_true(vram_stats(&away.vram).failed > 0);
		away_end(true);
	}
}

/* It never says that it is done: the pages stay, the device counts as lost. */
static void the_driver_is_stuck(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
					      .frames = VRAM_FRAMES, .timeout_ms = 20 };

	away_begin(*state, &options);
	away.vram.defer = true;
	assert_int_equal(to_device(P, 4), -ENODEV);
	away_check();
	assert_int_equal(to_device(P, 4), -ENODEV);
	away.vram.fail = -EIO;
	assert_true(vram_engine(&away.vram)); /* it wakes up after all */
	away_end(true);
}

static int lose(void *arg)
{
	vram_die(&away.vram);
	return 0;
}

/* While it is copied: the bytes are in the buffer still. */
static void lost_on_the_way_out(void **state)
{
	for (unsigned when = FAKE_BEFORE; when <= FAKE_AFTER; when++) {
		away_begin(*state, NULL);
		away.vram.late = true;
		fake_at(FAKE_OP_DRIVER, when, -1, 1, lose, NULL);
		assert_int_equal(to_device(P, 4), -ENODEV);
		away_check();
		away_end(true);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		TEST(there_and_back),
		TEST(host_frames_are_the_pages),
		TEST(holes_and_zero_pages),
		TEST(holes_beside_are_zeros),
		TEST(coherent_pages_stay_mapped),
		TEST(what_cannot_move_stays),
		TEST(what_a_thread_ends_with_stays),
		TEST(what_a_child_has_empty),
		TEST(what_is_shared_with_a_child_moves),
		TEST(swapped_pages_move),
		TEST(limit_and_declined_frames),
		TEST(errors_of_calls),
		TEST(options_of_a_devmem),
		TEST(without_what_it_needs),
		TEST(move_is_refused),
		TEST(every_move_is_refused),
		TEST(registering_is_refused),
		TEST(no_memory_for_a_region),
		TEST(the_driver_cannot_copy),
		TEST(the_driver_is_stuck),
		TEST(lost_on_the_way_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
