/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_vmas - which mapping is registered with which context, when that is not what the
 * map says, and when there is no memory to say it.
 *
 * The linker sends arena_alloc() through __wrap_arena_alloc() here, which can say no.
 */
#include "arena_fails.h"
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RW (PROT_READ | PROT_WRITE)

static struct device device, other;
static struct device_floor floor_now;

static void begin(struct hmm *hmm)
{
	device_open(&device, hmm, 0, 0);
}

static void end(void)
{
	fake_forget();
	device_close(&device);
}

static void tells(unsigned page)
{
	assert_int_equal(device_fault(&device, page, 1, true), 0);
	/* In the hole before the message only the right context's probe knows. */
	fake.hold_queue = true;
	fake_dontneed(page, 1);
	fake.hold_queue = false;
	device_fence_is_sound(&device);
	fake_queue_all();
	fake_settle();
	assert_false(device.entry[page].valid);
}

/* A piece of a VMA registered would make the program's mremap of the whole fail. */
static void whole_vmas(void **state)
{
	begin(*state);
	fake_map(10, 20, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 15, 1, true), 0);
	for (unsigned i = 10; i < 30; i++)
		assert_int_equal(fake_ctx_of(i), fake_ctx_of(15));
	assert_int_equal(fake.calls[FAKE_OP_REGISTER], 1);
	assert_int_equal(device_fault(&device, 10, 20, true), 0);
	assert_int_equal(fake.calls[FAKE_OP_REGISTER], 1);
	end();
}

/* What the kernel would merge stays mergeable; the rest is spread. */
static void neighbours_share_a_context(void **state)
{
	int ctx;

	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	ctx = fake_ctx_of(10);
	fake_map(14, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 15, 1, true), 0);
	fake_map(6, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 7, 1, true), 0);
	assert_true(fake_ctx_of(15) == ctx && fake_ctx_of(7) == ctx);
	fake_map(18, 4, FAKE_ANON, PROT_READ);
	assert_int_equal(device_fault(&device, 19, 1, false), 0);
	assert_int_equal(fake_ctx_of(19), ctx); /* mprotect may make it one */
	fake_map(22, 4, FAKE_SHMEM, PROT_READ);
	assert_int_equal(device_fault(&device, 23, 1, false), 0);
	assert_int_not_equal(fake_ctx_of(23), ctx);
	for (unsigned i = 0; i < CONTEXTS; i++) {
		fake_map(100 + 8 * i, 2, FAKE_ANON, RW);
		assert_int_equal(device_fault(&device, 100 + 8 * i, 1, true), 0);
	}
	for (unsigned i = 1; i < CONTEXTS; i++)
		assert_int_not_equal(fake_ctx_of(100 + 8 * i), fake_ctx_of(92 + 8 * i));
	end();
}

/* The program's own userfaultfd: mirrored not at all, and said so. */
static void foreign(struct hmm *hmm, int ctx)
{
	uint64_t pfns[3] = { 0 };
	struct hmm_range range = { .size = sizeof(range), .hmm = hmm, .start = fake_addr(11),
				   .end = fake_addr(14), .pfns = pfns,
				   .default_flags = HMM_PFN_REQ_FAULT };
	char byte;

	begin(hmm);
	fake_map(10, 4, FAKE_ANON, RW);
	for (unsigned i = 10; i < 14; i++)
		fake.page[i].ctx = (int16_t)ctx;
	range.notifier = device.notifier;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_fault(&range), -EOPNOTSUPP);
	assert_true(range.fault_addr == fake_addr(11));
	assert_int_equal(range.fault_reason, HMM_REASON_NOT_MIRRORABLE);
	assert_non_null(strstr(hmm_strerror(-EOPNOTSUPP), "hmm_copy_from()"));
	assert_true(pfns[0] == 0 && pfns[1] == 0);
	assert_int_equal(hmm_range_snapshot(&range), 0);
	assert_true(pfns[0] == HMM_PFN_ERROR && pfns[2] == HMM_PFN_ERROR);
	assert_int_equal(hmm_copy_from(hmm, &byte, fake_addr(11), 1), 0);
	assert_int_equal(fake_ctx_of(11), ctx); /* and left alone */
	assert_false(vmas_overlap(hmm, fake_addr(0), fake_addr(100)));
	end();
	for (unsigned i = 10; i < 14; i++)
		assert_int_equal(fake_ctx_of(i), ctx);
	fake_unmap(10, 4);
}

static void somebody_elses(void **state)
{
	foreign(*state, FAKE_FOREIGN);
	foreign(*state, FAKE_FOREIGN_ASYNC);
}

static void special(void **state)
{
	begin(*state);
	fake_map(10, 4, FAKE_SPECIAL, RW);
	assert_int_equal(device_fault(&device, 11, 1, false), -EFAULT);
	assert_non_null(strstr(hmm_strerror(EFAULT), "device memory"));
	assert_int_equal(device_snapshot(&device, 10, 4), 0);
	assert_false(device.entry[11].valid);
	end();
}

static int refused(void *arg)
{
	return -EINVAL;
}

/* Of a kind that register refuses without our knowing why: it ends. */
static void refused_for_ever(void **state)
{
	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	fake_at(FAKE_OP_REGISTER, FAKE_BEFORE, -1, 0, refused, NULL);
	assert_int_equal(device_fault(&device, 11, 1, false), -EFAULT);
	fake_forget();
	tells(11);
	end();
}

static void trimmed_with_the_last_notifier(void **state)
{
	struct hmm *hmm = *state;

	begin(hmm);
	device_open(&other, hmm, 8, 4);
	fake_map(0, 16, FAKE_ANON, RW);
	fake_map(100, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 0, 1, true), 0);
	assert_int_equal(device_fault(&device, 100, 1, true), 0);
	device_close(&device);
	/* The other one covers a part of the first VMA: all of that stays. */
	assert_true(fake_ctx_of(0) >= 0 && fake_ctx_of(15) >= 0);
	assert_int_equal(fake_ctx_of(100), FAKE_NO_CTX);
	assert_int_equal(vmas_to_fence(hmm, fake_addr(100), fake_addr(104)).probe, 0);
	assert_int_equal(vmas_to_fence(hmm, 0, UINTPTR_MAX).probe, 1u << fake_ctx_of(0));
	device_close(&other);
	assert_int_equal(fake_ctx_of(0), FAKE_NO_CTX);
	assert_int_equal(vmas_to_fence(hmm, 0, UINTPTR_MAX).probe, 0);
	for (unsigned i = 0; i < CONTEXTS; i++)
		assert_int_equal(hmm->gate[i].vmas, 0);
	/* And everything works anew. */
	begin(hmm);
	tells(3);
	tells(101);
	end();
}

/* A look without a notifier leaves no trace. */
static void a_look_registers_nothing(void **state)
{
	uint64_t pfn[4] = { 0 };
	struct hmm_range range = { .size = sizeof(range), .hmm = *state, .start = fake_addr(10),
				   .end = fake_addr(14), .pfns = pfn };

	fake_map(10, 4, FAKE_ANON, RW);
	fake_touch(11, 1);
	assert_int_equal(hmm_range_snapshot(&range), 0);
	assert_true(pfn[0] == 0 && (pfn[1] & HMM_PFN_VALID));
	range.default_flags = HMM_PFN_REQ_FAULT;
	assert_int_equal(hmm_range_fault(&range), 0);
	assert_true(pfn[0] & HMM_PFN_VALID);
	assert_int_equal(fake_ctx_of(10), FAKE_NO_CTX);
	assert_int_equal(fake.calls[FAKE_OP_REGISTER], 0);
	assert_false(vmas_overlap(*state, 0, UINTPTR_MAX));
}

/*
 * The late UNMAP of what was there before erases the entry of what is there now: same
 * context, same address. What the device got in between it loses, and the next fault
 * registers anew (G1).
 */
static void late_unmap_erases_a_fresh_entry(void **state)
{
	int ctx;

	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	ctx = fake_ctx_of(10);
	fake.hold_queue = true;
	fake_unmap(10, 4);
	fake.hold_queue = false;
	fake_map(10, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 10, 4, true), 0); /* a storm, for the fence */
	assert_int_equal(fake_ctx_of(10), ctx);
	fake_queue_all();
	fake_settle();
	assert_false(device.entry[10].valid);
	assert_false(vmas_overlap(*state, fake_addr(10), fake_addr(14)));
	assert_int_equal(fake_ctx_of(10), ctx); /* registered, and not in the map */
	tells(11);
	assert_int_equal(fake_ctx_of(10), ctx);
	end();
}

/* Moved in: the map has no entry, or another context's, or several. */
static void moved_here_behind_the_maps_back(void **state)
{
	int old_ctx, new_ctx;

	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	old_ctx = fake_ctx_of(10);
	new_ctx = (old_ctx + 3) % (int)CONTEXTS;
	/* As after an mremap of a task that was killed before its messages were read: the
	 * old VMA went and another one, registered elsewhere and longer, is there. */
	fake_shmdt(10, 4);
	fake_map(10, 8, FAKE_ANON, RW);
	for (unsigned i = 10; i < 18; i++)
		fake.page[i].ctx = (int16_t)new_ctx;
	assert_int_equal(device_fault(&device, 16, 1, true), 0);
	assert_int_equal(fake_ctx_of(16), new_ctx);
	assert_false(device.entry[12].valid); /* what was there before is forgotten */
	tells(16);
	tells(11);
	/* Two entries of different contexts under one VMA of a third. */
	fake_map(40, 4, FAKE_ANON, RW);
	fake_map(44, 4, FAKE_SHMEM, PROT_READ);
	assert_int_equal(device_fault(&device, 40, 8, false), 0);
	assert_int_not_equal(fake_ctx_of(40), fake_ctx_of(44));
	new_ctx = (fake_ctx_of(44) + 1) % (int)CONTEXTS;
	fake_shmdt(40, 8);
	fake_map(40, 8, FAKE_ANON, RW);
	for (unsigned i = 40; i < 48; i++)
		fake.page[i].ctx = (int16_t)new_ctx;
	assert_int_equal(device_fault(&device, 42, 4, true), 0);
	assert_int_equal(fake_ctx_of(45), new_ctx);
	tells(42);
	tells(45);
	end();
}

/* What was there left without a word, and its entry is still in the map; then a mapping of
 * another context is moved there: the REMAP sets the entry right. */
static void moved_onto_a_stale_entry(void **state)
{
	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	fake_map(20, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	assert_int_equal(device_fault(&device, 20, 4, true), 0);
	assert_int_not_equal(fake_ctx_of(10), fake_ctx_of(20));
	fake_shmdt(10, 4);
	fake_remap(20, 10, 4, false);
	fake_settle();
	tells(11);
	tells(12);
	end();
}

/*
 * It ends when it is registered and not entered yet, and what another context has is moved
 * there. Entered now, it would name the wrong one (M2): mremap leaves no record, so that a
 * fence of this range would see nothing of what happens there (G1).
 */
static int ends_and_is_followed(void *arg)
{
	fake_unmap(10, 4);
	fake_reader();
	worker_step(fake.hmm); /* an UNMAP needs none of the locks that are held here */
	fake_remap(20, 10, 4, false);
	fake_reader();
	return 0;
}

static void ended_before_it_was_entered(void **state)
{
	uint64_t pfns[4] = { 0 };
	struct hmm_range range = { .size = sizeof(range), .hmm = *state, .start = fake_addr(10),
				   .end = fake_addr(14), .pfns = pfns,
				   .default_flags = HMM_PFN_REQ_FAULT };

	begin(*state);
	range.notifier = device.notifier;
	fake_map(10, 4, FAKE_ANON, RW);
	fake_map(20, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 20, 4, true), 0);
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	fake_at(FAKE_OP_REGISTER, FAKE_AFTER, -1, 1, ends_and_is_followed, NULL);
	assert_int_equal(hmm_range_fault(&range), -EBUSY);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	fake_map(40, 1, FAKE_ANON, RW);
	fake_remap(40, 12, 1, false);
	assert_int_equal(hmm_fence(*state, fake_addr(12), PAGE), 0);
	assert_false(device.entry[12].valid);
	end();
}

/* mremap grows a mapping in place without a word: the new part has no registration. */
static void grown_in_place(void **state)
{
	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	fake_map(14, 4, FAKE_ANON, RW);
	for (unsigned i = 14; i < 18; i++)
		fake.page[i].ctx = fake.page[10].ctx; /* a VMA is registered whole */
	tells(16);
	tells(11);
	end();
}

/* ---- no memory ---- */

static int fault_many(unsigned first, unsigned n)
{
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++)
		err = device_fault(&device, first + 4 * i, 1, true);
	return err;
}

/*
 * Many VMAs, so that the map's nodes split; then pieces of them go. Each allocation in turn
 * says no: the call may fail with -ENOMEM, but what fences promise holds (G1), and once
 * there is memory again everything works.
 */
static void scenario(struct hmm *hmm, long nth)
{
	int err;

	begin(hmm);
	for (unsigned i = 0; i < 80; i++)
		fake_map(10 + 4 * i, 3, FAKE_ANON, RW);
	fail_at = nth;
	err = fault_many(10, 80);
	assert_true(err == 0 || err == -ENOMEM);
	fake_unmap(11, 1);
	for (unsigned i = 3; i < 40; i++)
		fake_unmap(11 + 4 * i, 1);
	fake_remap(14, 500, 3, false);
	fake_protect(50, 1, PROT_READ);
	fake_dontneed(90, 1);
	device_floor(&floor_now);
	assert_int_equal(hmm_notifier_fence(device.notifier), 0);
	assert_int_equal(device_stale(&device, &floor_now), -1);
	err = device_fault(&device, 500, 1, true);
	assert_true(err == 0 || err == -ENOMEM);
	fail_at = 0;
	tells(500);
	for (unsigned i = 0; i < 80; i++)
		if (fake.page[10 + 4 * i].mapped && (fake.page[10 + 4 * i].prot & PROT_WRITE))
			tells(10 + 4 * i);
	end();
}

static void every_allocation_fails(struct hmm *hmm)
{
	unsigned before;

	for (long nth = 2; nth < 500; nth++) { /* the first is the notifier's own */
		before = failed;
		scenario(hmm, nth);
		fake_unmap(0, 600);
		fake_settle();
		if (failed == before)
			break; /* there are no more of them */
	}
	print_message("%u allocations failed\n", failed);
	assert_true(failed > 2);
}

static void no_memory(void **state)
{
	failed = 0;
	every_allocation_fails(*state);
}

/* Without perf a fence that finds a permission changed cuts an entry in three. When the
 * last piece finds no memory the map is not trusted any more (G1 holds all the same). */
static void no_memory_to_cut(void **state)
{
	bool lost = false;

	for (unsigned n = 8; n < 70; n++)
		for (long nth = 1; nth < 4; nth++) {
			fake_reset();
			fake.no_perf = true;
			*state = fake_open();
			begin(*state);
			for (unsigned i = 0; i < n; i++)
				fake_map(10 + 4 * i, 3, FAKE_ANON, RW);
			assert_int_equal(fault_many(11, n), 0);
			fake_protect(11 + 4 * (n / 2), 1, PROT_READ);
			fail_at = nth;
			device_fence_is_sound(&device);
			fail_at = 0;
			lost |= fake.hmm->map_lost;
			assert_int_equal(device_fault(&device, 11 + 4 * (n / 2), 1, false), 0);
			fake_dontneed(11 + 4 * (n / 2), 1);
			device_fence_is_sound(&device);
			assert_false(device.entry[11 + 4 * (n / 2)].valid);
			end();
			fake_close(*state);
		}
	assert_true(lost);
}

static void no_memory_for_a_notifier(void **state)
{
	static const struct hmm_notifier_ops ops = { sizeof(ops), NULL, NULL };
	struct hmm_notifier_ops mine = ops;
	struct hmm_notifier *n = NULL;
	unsigned refs = ((struct hmm *)*state)->refs;

	mine.invalidate = (void (*)(void *, const struct hmm_event *))abort;
	for (long nth = 1; nth < 3; nth++) {
		fail_at = nth;
		if (!hmm_notifier_insert(*state, 0, PAGE, &mine, NULL, &n))
			hmm_notifier_remove(n);
		else
			assert_null(n);
		assert_int_equal(((struct hmm *)*state)->refs, refs);
	}
	fail_at = 0;
}

static void no_memory_to_keep_requests(void **state)
{
	begin(*state);
	fake_map(0, 1000, FAKE_ANON, RW);
	fail_at = 1; /* more than the stack's 512 entries come from the arena */
	assert_int_equal(device_fault(&device, 0, 1000, true), -ENOMEM);
	fail_at = 0;
	assert_int_equal(device_fault(&device, 0, 1000, true), 0);
	end();
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
#define NO_PERF(test) cmocka_unit_test_setup_teardown(test, fake_setup_no_perf, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(whole_vmas),
		TEST(neighbours_share_a_context),
		TEST(somebody_elses),
		TEST(special),
		TEST(refused_for_ever),
		TEST(trimmed_with_the_last_notifier),
		TEST(a_look_registers_nothing),
		TEST(late_unmap_erases_a_fresh_entry),
		TEST(moved_here_behind_the_maps_back),
		NO_PERF(moved_here_behind_the_maps_back),
		TEST(moved_onto_a_stale_entry),
		NO_PERF(moved_onto_a_stale_entry),
		TEST(ended_before_it_was_entered),
		TEST(grown_in_place),
		TEST(no_memory),
		NO_PERF(no_memory),
		cmocka_unit_test(no_memory_to_cut),
		TEST(no_memory_for_a_notifier),
		TEST(no_memory_to_keep_requests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
