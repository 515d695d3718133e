/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* test_exclusive - a page that a device has for itself until it is released (B17). */
#include "away.h"
#include "core/pager.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>

static void exclusive_until_released(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE, .frames = 8,
					      .host_frames = true };
	struct fake_cpu cpu;
	uint64_t frame = 99;

	away_begin(*state, &options);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P) + 8, &frame), 0);
	assert_int_equal(vram_frame(&away.vram, frame), 1000 + P);
	fake_cpu_read(&cpu, P);
	for (unsigned i = 0; i < 50; i++) {
		fake.clock += 10000000;
		fake_settle();
	}
	assert_true(cpu.waiting);
	away.page[P].old = 1000 + P;
	away.page[P].old_too = true;
	away.page[P].value = 1;
	fake_store((uintptr_t)hmm_devmem_host(away.vram.devmem, frame), 1);
	hmm_exclusive_release(away.vram.devmem, frame);
	fake_settle();
	assert_false(cpu.waiting);
	assert_int_equal(cpu.value, 1);
	assert_int_equal(away_count(P, 1), 0);

	/* Again, and released before anybody comes: it stays until somebody does. */
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), 0);
	hmm_exclusive_release(away.vram.devmem, frame);
	fake_settle();
	assert_int_equal(away_count(P, 1), 1);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), 0);
	hmm_exclusive_release(away.vram.devmem, frame);
	away_end(true);
}

/* Who asks for it meanwhile waits outside: requests of others, whoever holds it, have their turn. */
static uint64_t held;
static unsigned waited;

static int releases(void *arg)
{
	for (unsigned i = 0; i < REQUESTS; i++)
		if (away.hmm->pager->request[i].state != REQUEST_FREE)
			return 0;
	if (++waited == 3)
		hmm_exclusive_release(away.vram.devmem, held);
	return 0;
}

static void exclusive_is_waited_for(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE, .frames = 8,
					      .host_frames = true };
	uint64_t frame = 99;

	away_begin(*state, &options);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &held), 0);
	waited = 0;
	fake_at(FAKE_OP_WAIT, FAKE_BEFORE, -1, 0, releases, NULL);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), 0);
	assert_int_equal(frame, held);
	assert_int_equal(waited, 3);
	fake_forget();
	/* Not for ever. */
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), -EBUSY);
	hmm_exclusive_release(away.vram.devmem, frame);
	away_end(true);
}

/* While the books may not answer, for a change is pending, its owner does not wait for his own release. */
static void exclusive_in_a_storm(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE, .frames = 8,
					      .host_frames = true };
	uint64_t frame;

	away_begin(*state, &options);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), 0);
	fake.hold_queue = true;
	away_dontneed(P + 1, 1);
	assert_int_equal(vram_program(&away.vram, P, 1, true), -EBUSY);
	fake.hold_queue = false;
	fake_queue_all();
	away_settle();
	assert_int_equal(vram_program(&away.vram, P, 1, true), 0);
	assert_true(away.vram.entry[P].device);
	hmm_exclusive_release(away.vram.devmem, frame);
	away_end(true);
}

static void exclusive_errors(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE, .frames = 1,
					      .host_frames = true };
	uint64_t frame = 99, another;

	away_begin(*state, &options);
	fake_map(100, 1, FAKE_SHARED_FILE, RW);
	fake_map(102, 1, FAKE_ANON, PROT_READ);
	fake_map(104, 1, FAKE_ANON, PROT_NONE);
	fake_map(106, 1, FAKE_ANON, RW);
	fake_mlock(106, 1);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(100), &frame), -EOPNOTSUPP);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(102), &frame), -EPERM);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(104), &frame), -EFAULT);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(106), &frame), -EBUSY);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(200), &frame), -EFAULT);
	assert_int_equal(hmm_make_exclusive(NULL, fake_addr(P), &frame), -EINVAL);
	assert_int_equal(frame, 99);
	assert_int_equal(vram_used(&away.vram), 0);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), 0);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P + 1), &another), -ENOSPC);
	hmm_exclusive_release(away.vram.devmem, frame);
	fake_unmap(100, 8);
	away_end(true);
}

static int hidden(void *arg)
{
	return -ENOENT;
}

/* vma_find misses what an mremap puts in another's place: that is no hole. */
static void exclusive_while_replaced(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE, .frames = 1,
					      .host_frames = true };
	uint64_t frame;

	away_begin(*state, &options);
	fake_at(FAKE_OP_FIND, FAKE_BEFORE, -1, 0, hidden, NULL);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), -EBUSY);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(200), &frame), -EFAULT);
	assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(P), PAGE), 0);
	assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(200), PAGE), -EINVAL);
	fake_forget();
	fake_at(FAKE_OP_FIND, FAKE_BEFORE, -1, 1, hidden, NULL);
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), 0);
	hmm_exclusive_release(away.vram.devmem, frame);
	away_end(true);
}

/* A page of a child's too is made the program's own first; a hole becomes a page. */
static void exclusive_of_any_page(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE, .frames = 8,
					      .host_frames = true };
	uint64_t frame;

	away_begin(*state, &options);
	away_move(A, 1);
	away_fork();
	away_settle();
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P), &frame), 0);
	hmm_exclusive_release(away.vram.devmem, frame);
	away_dontneed(P + 1, 1);
	away_settle();
	assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(P + 1), &frame), 0);
	assert_int_equal(vram_frame(&away.vram, frame), 0);
	hmm_exclusive_release(away.vram.devmem, frame);
	away_end(true);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		TEST(exclusive_until_released),
		TEST(exclusive_is_waited_for),
		TEST(exclusive_in_a_storm),
		TEST(exclusive_errors),
		TEST(exclusive_while_replaced),
		TEST(exclusive_of_any_page),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
