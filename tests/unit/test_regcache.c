/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_regcache - registrations that are kept, on the fake kernel: hits, unions, limits, a driver
 * that refuses, no memory. What changes meanwhile is in test_regcache_changes.
 */
#include "regcache_dev.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

/* ---- hits ---- */

static void found_again(void **state)
{
	struct hmm_region *a, *b;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	assert_int_equal(get_at(fake_addr(P) + 100, 5000, WRITE, 0, &a), 0);
	assert_int_equal(((struct key *)hmm_region_handle(a))->length, 2 * PAGE);
	b = get(P + 1, 1, 0);
	assert_ptr_equal(a, b);
	assert_false(put(a));
	assert_false(put(b));
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(get_at(fake_addr(P) + i, 2, 0, HMM_REGCACHE_FENCED, &b), 0);
		assert_ptr_equal(a, b);
		assert_false(put(b));
	}
	assert_int_equal(dev.keys, 1);
	assert_int_equal(stats().hits, 11);
	assert_int_equal(stats().misses, 1);
	assert_int_equal(stats().regions, 1);
	assert_int_equal(stats().bytes, 2 * PAGE);
	close_dev();
}

static void refused(void **state)
{
	struct hmm_regcache_options options = { .size = 4 };
	struct hmm_regcache_ops none = { .size = sizeof(none), .reg = dev_ops.reg };
	struct hmm_regcache *cache = (void *)1;
	struct hmm_region *r = (void *)1;

	open_dev(*state);
	assert_int_equal(hmm_regcache_create(*state, &options, &dev_ops, NULL, &cache), -EINVAL);
	assert_int_equal(hmm_regcache_create(*state, NULL, &none, NULL, &cache), -EINVAL);
	assert_int_equal(hmm_regcache_create(*state, NULL, NULL, NULL, &cache), -EINVAL);
	assert_int_equal(hmm_regcache_create(NULL, NULL, &dev_ops, NULL, &cache), -EINVAL);
	assert_ptr_equal(cache, (void *)1);
	assert_int_equal(get_at(fake_addr(P), 0, 0, 0, &r), -EINVAL);
	assert_int_equal(get_at(fake_addr(P), 1, 2, 0, &r), -EINVAL);
	assert_int_equal(get_at(fake_addr(P), 1, 0, 2, &r), -EINVAL);
	assert_int_equal(get_at(UINTPTR_MAX - 5, 1, 0, 0, &r), -EOVERFLOW);
	assert_int_equal(get_at(4096, UINTPTR_MAX - 4096, 0, 0, &r), -EOVERFLOW);
	assert_int_equal(get_at(fake_addr(P), 1, 0, 0, NULL), -EINVAL);
	assert_int_equal(hmm_regcache_get(NULL, fake_addr(P), 1, 0, 0, &r), -EINVAL);
	assert_int_equal(get_at(fake_addr(P), 1, 0, 0, &r), -EFAULT);
	fake_map(P, N, FAKE_ANON, PROT_READ);
	assert_int_equal(get_at(fake_addr(P), 1, WRITE, 0, &r), -EPERM);
	fake_map(P, N, FAKE_SPECIAL, PROT_READ);
	assert_int_equal(get_at(fake_addr(P), 1, 0, 0, &r), -EFAULT);
	assert_ptr_equal(r, (void *)1);
	assert_false(hmm_regcache_put(NULL));
	hmm_regcache_destroy(NULL);
	assert_int_equal(hmm_regcache_fence(NULL), -EINVAL);
	assert_int_equal(hmm_regcache_flush(NULL), 0);
	assert_int_equal(dev.keys, 0);
	close_dev();
}

/* ---- unions ---- */

static void unions(void **state)
{
	struct hmm_region *a, *b, *c, *all;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	a = get(P, 2, 0);
	b = get(P + 4, 2, WRITE);
	c = get(P + 8, 2, 0); /* not in it */
	assert_false(put(a));
	all = get(P + 1, 4, 0);
	assert_int_equal(hmm_region_start(all), fake_addr(P));
	assert_int_equal(((struct key *)hmm_region_handle(all))->length, 6 * PAGE);
	assert_int_equal(((struct key *)hmm_region_handle(all))->access, WRITE);
	/* a was idle and is gone; b is held, found by nobody, and its memory is what it was. */
	assert_int_equal(registered(), 3);
	assert_int_equal(stats().regions, 2);
	assert_int_equal(stats().bytes, 8 * PAGE);
	assert_int_equal(stats().merges, 1);
	assert_int_equal(stats().invalidations, 0);
	assert_false(put(b));
	assert_int_equal(registered(), 2);
	/* The same access: a hit. More: another union, of the same pages. */
	b = get(P, 6, WRITE);
	assert_ptr_equal(b, all);
	assert_false(put(b));
	assert_false(put(all));
	b = get(P + 8, 1, WRITE);
	assert_int_equal(hmm_region_start(b), fake_addr(P + 8));
	assert_int_equal(((struct key *)hmm_region_handle(b))->length, 2 * PAGE);
	assert_ptr_not_equal(b, c);
	assert_false(put(c));
	assert_false(put(b));
	assert_int_equal(registered(), 2);
	close_dev();
}

/* One that was replaced and is held still is told of a change as all others are. */
static void replaced_and_changed(void **state)
{
	struct hmm_region *a, *all;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	a = get(P, 2, 0);
	all = get(P + 1, 4, 0);
	fake_unmap(P, 1);
	fake_settle();
	assert_int_equal(stats().regions, 0);
	assert_int_equal(stats().invalidations, 1);
	assert_int_equal(stats().busy, 1);
	assert_int_equal(registered(), 2);
	assert_true(put(a));
	assert_true(put(all));
	assert_int_equal(registered(), 0);
	close_dev();
}

/* The union cannot be had: by the driver, or by its memory. Then what was asked for. */
static void union_fails(void **state)
{
	struct hmm_region *a, *b;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	dev.longest = 2 * PAGE;
	a = get(P, 2, 0);
	b = get(P + 1, 2, 0);
	assert_int_equal(hmm_region_start(b), fake_addr(P + 1));
	assert_int_equal(stats().regions, 1);
	assert_int_equal(stats().merges, 0);
	assert_false(put(a));
	assert_false(put(b));
	assert_int_equal(registered(), 1);
	/* Neither: what is there stays. */
	assert_int_equal(get_at(fake_addr(P), 3 * PAGE, 0, 0, &a), -EINVAL);
	assert_int_equal(registered(), 1);
	assert_int_equal(stats().regions, 1);
	dev.longest = 0;
	fake_map(P, 1, FAKE_ANON, PROT_READ);
	a = get(P, 2, 0);
	b = get(P + 1, 1, WRITE); /* page P cannot be written to */
	assert_int_equal(hmm_region_start(b), fake_addr(P + 1));
	assert_false(put(a));
	assert_false(put(b));
	assert_int_equal(registered(), 1);
	close_dev();
}

/* What is counted in the word is not lost when it runs over. */
static void counts(void **state)
{
	struct hmm_region *r;
	uint64_t many = (UINT64_C(1) << 30) - 2;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	r = get(P, 2, WRITE);
	for (unsigned i = 0; i < 9; i++) {
		/* As so many gets and puts. */
		atomic_fetch_add(&r->state, many << REGION_GET_SHIFT);
		put(get(P, 2, WRITE));
		put(get(P, 2, WRITE));
	}
	put(r);
	assert_true(stats().hits == 9 * (many + 2));
	assert_true(stats().hits == 9 * (many + 2));
	close_dev();
}

/* ---- the driver refuses ---- */

static int no_memory(void *arg)
{
	return *(int *)arg;
}

static void reg_fails(void **state)
{
	static int errs[] = { -EIO, -ENOMEM, -EBUSY, -EAGAIN };
	struct hmm_region *r = (void *)1, *a;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	for (unsigned i = 0; i < 4; i++) {
		fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 0, no_memory, &errs[i]);
		assert_int_equal(get_at(fake_addr(P), PAGE, 0, 0, &r), errs[i]);
		assert_ptr_equal(r, (void *)1);
		fake_forget();
		assert_int_equal(registered(), 0);
	}
	/* Of a union the first call: then what was asked for. Both: nothing has changed. */
	a = get(P, 2, 0);
	fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 0, no_memory, &errs[0]);
	assert_int_equal(get_at(fake_addr(P + 1), 2 * PAGE, 0, 0, &r), -EIO);
	fake_forget();
	assert_ptr_equal(get(P, 2, 0), a);
	put(a);
	fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 1, no_memory, &errs[0]);
	r = get(P + 1, 2, 0);
	assert_int_equal(hmm_region_start(r), fake_addr(P + 1));
	put(a);
	put(r);
	assert_int_equal(stats().evictions, 0);
	close_dev();
}

/* No room: idle ones go, oldest first, until there is. */
static void room_for_reg(void **state)
{
	static int err = -ENOSPC;
	struct hmm_region *r, *held;

	open_dev(*state);
	fake_map(P, 2 * N, FAKE_ANON, RW);
	held = get(P, 1, 0);
	for (unsigned i = 1; i < 8; i++)
		put(get(P + 2 * i, 1, 0));
	fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 1, no_memory, &err);
	fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 1, no_memory, &err); /* once more */
	r = get(P + 20, 1, 0);
	assert_int_equal(stats().evictions, 3); /* one, then two */
	assert_int_equal(registered(), 6);
	put(r);
	fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 0, no_memory, &err);
	assert_int_equal(get_at(fake_addr(P + 22), 1, 0, 0, &r), -ENOSPC);
	fake_forget();
	assert_int_equal(registered(), 1);
	assert_ptr_equal(get(P, 1, 0), held);
	put(held);
	put(held);
	close_dev();
}

/* ---- limits ---- */

static bool is_kept(unsigned page)
{
	unsigned keys = dev.keys;

	put(get(page, 1, 0));
	return dev.keys == keys;
}

static void second_chance(void **state)
{
	open_with(*state, (struct hmm_regcache_options){ .max_regions = 4 });
	fake_map(P, 4 * N, FAKE_ANON, RW);
	for (unsigned i = 0; i < 4; i++)
		put(get(P + 2 * i, 1, 0));
	put(get(P, 1, 0)); /* used: the next one goes */
	put(get(P + 8, 1, 0));
	assert_int_equal(stats().regions, 4);
	assert_int_equal(stats().evictions, 1);
	assert_int_equal(registered(), 4);
	assert_true(is_kept(P));
	assert_true(is_kept(P + 4));
	assert_true(is_kept(P + 6));
	assert_true(is_kept(P + 8));
	assert_false(is_kept(P + 2));
	close_dev();
}

static void all_in_use(void **state)
{
	struct hmm_region *held[5], *again;

	open_with(*state, (struct hmm_regcache_options){ .max_regions = 4 });
	fake_map(P, 4 * N, FAKE_ANON, RW);
	for (unsigned i = 0; i < 5; i++)
		held[i] = get(P + 2 * i, 1, 0);
	assert_int_equal(stats().regions, 4);
	assert_int_equal(registered(), 5);
	again = get(P + 8, 1, 0); /* the fifth was for itself */
	assert_ptr_not_equal(again, held[4]);
	assert_int_equal(registered(), 6);
	put(again);
	assert_int_equal(registered(), 5);
	fake_unmap(P + 8, 1); /* and is told as well */
	fake_settle();
	assert_true(put(held[4]));
	assert_int_equal(registered(), 4);
	for (unsigned i = 0; i < 4; i++)
		assert_false(put(held[i]));
	assert_int_equal(hmm_regcache_flush(dev.cache), 4);
	assert_int_equal(registered(), 0);
	close_dev();
}

static void bytes(void **state)
{
	struct hmm_region *a, *b;

	open_with(*state, (struct hmm_regcache_options){ .max_bytes = 8 * PAGE });
	fake_map(P, 4 * N, FAKE_ANON, RW);
	put(get(P, 3, 0));
	put(get(P + 4, 4, 0));
	put(get(P + 10, 2, 0));
	assert_int_equal(stats().bytes, 6 * PAGE);
	assert_int_equal(stats().evictions, 1);
	/* More than all: for itself, and the others stay. */
	put(get(P + 16, 9, 0));
	assert_int_equal(stats().bytes, 6 * PAGE);
	/* A union that would be: what was asked for. */
	put(get(P + 6, 7, 0));
	assert_int_equal(stats().bytes, 7 * PAGE);
	assert_int_equal(stats().regions, 1);
	assert_int_equal(stats().merges, 0);
	/* What is replaced makes room for what replaces it. */
	a = get(P + 6, 7, WRITE);
	b = get(P + 6, 7, WRITE);
	assert_ptr_equal(a, b);
	put(a);
	put(b);
	assert_int_equal(stats().merges, 1);
	assert_int_equal(registered(), 1);
	close_dev();
}

static void huge(void **state)
{
	unsigned at = 512, n = 1536;
	struct hmm_region *r;

	open_dev(*state);
	fake_map(at - 8, n + 16, FAKE_ANON, RW);
	r = get(at - 3, n, WRITE);
	put(r);
	for (unsigned i = 0; i < n; i++) {
		assert_ptr_equal(get(at - 3 + i, 1, WRITE), r);
		put(r);
	}
	assert_int_equal(dev.keys, 1);
	fake_unmap(at + 600, 1);
	fake_settle();
	assert_int_equal(registered(), 0);
	for (unsigned i = 0; i < n; i += 7)
		assert_null(regcache_find(dev.cache, fake_addr(at - 3 + i), fake_addr(at - 2 + i), 0));
	close_dev();
}

/* ---- no memory ---- */

static void no_memory_at(void **state)
{
	bool pinned = fake.no_perf; /* as good a bit as any */
	unsigned times = 0;

	open_with(*state, (struct hmm_regcache_options){ .pinned = pinned });
	fake_map(P, 4 * N, FAKE_ANON, RW);
	for (long at = 1;; at++) {
		struct hmm_region *r = NULL, *held;
		int err;

		held = get(P + 2, 2, 0);
		failed = 0;
		fail_at = at;
		err = get_at(fake_addr(P), 3 * PAGE, WRITE, 0, &r);
		fail_at = 0;
		assert_true(!err || err == -ENOMEM);
		if (r)
			put(r);
		put(held);
		times += failed;
		hmm_regcache_flush(dev.cache);
		assert_int_equal(registered(), 0);
		if (!failed)
			break;
		put(get(P, 4, WRITE));
	}
	assert_true(times > 0 || !pinned);
	close_dev();
}

static void no_memory_for_many(void **state)
{
	struct hmm_region *held[200];
	unsigned got = 0;

	open_dev(*state);
	fake_map(P, 1000, FAKE_ANON, RW);
	for (unsigned i = 0; i < 200; i++) {
		int err;

		fail_at = 1 + i % 3;
		err = get_at(fake_addr(P + 2 * i), PAGE, 0, 0, &held[got]);
		fail_at = 0;
		assert_true(!err || err == -ENOMEM);
		got += !err;
	}
	assert_true(failed > 3);
	assert_true(got > 150);
	while (got > 0)
		assert_false(put(held[--got]));
	close_dev();
}

static void no_memory_for_a_cache(void **state)
{
	struct hmm_regcache *cache = (void *)1;

	for (long at = 1; at < 3; at++) {
		fail_at = at;
		assert_int_equal(hmm_regcache_create(*state, NULL, &dev_ops, NULL, &cache), -ENOMEM);
		fail_at = 0;
		assert_ptr_equal(cache, (void *)1);
	}
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(found_again),
		TEST(refused),
		TEST(unions),
		TEST(replaced_and_changed),
		TEST(union_fails),
		TEST(counts),
		TEST(reg_fails),
		TEST(room_for_reg),
		TEST(second_chance),
		TEST(all_in_use),
		TEST(bytes),
		TEST(huge),
		TEST(no_memory_at),
		cmocka_unit_test_setup_teardown(no_memory_at, fake_setup_no_perf, fake_teardown),
		TEST(no_memory_for_many),
		TEST(no_memory_for_a_cache),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
