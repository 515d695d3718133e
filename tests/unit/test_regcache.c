/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_regcache - registrations that are kept, on the fake kernel: R1, R2, R3
 * (include/uhmm/regcache.h), with each change placed at each call of the system and of the driver.
 *
 * What is registered keeps the frames that it found, and when it was. A region that is not what a
 * CPU finds, one that is used after it was deregistered, and one that is deregistered twice or
 * never is so found out.
 *
 * The linker sends arena_alloc() through __wrap_arena_alloc() here, which can say no.
 */
#include "fake_os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/regcache.h"

#define RW (PROT_READ | PROT_WRITE)
#define P 16u /* the first page of most tests */
#define N 16u
#define WRITE HMM_REGCACHE_WRITE
#define KEYS 65536u
/* fake_at()'s ctx of the two calls of the driver. */
#define REG 0
#define DEREG 1

/* A registration. */
struct key {
	uintptr_t start;
	size_t length;
	unsigned access;
	_Atomic bool used;
	uint64_t begun; /* changes when it was made: of no later one it can be */
	uint64_t frame[64];
};

static struct {
	struct hmm *hmm;
	struct hmm_regcache *cache;
	struct key key[KEYS];
	_Atomic unsigned keys; /* made so far */
	_Atomic unsigned deregs;
	_Atomic uint64_t begun, ended; /* duel: changes */
	size_t longest;		  /* that can be registered; 0: any */
} dev;

static long fail_at; /* the allocation that fails, counted down; 0: none */
static unsigned failed;

void *__real_arena_alloc(struct arena *arena, size_t size);
void *__wrap_arena_alloc(struct arena *arena, size_t size);

void *__wrap_arena_alloc(struct arena *arena, size_t size)
{
	if (fail_at && --fail_at == 0) {
		failed++;
		return NULL;
	}
	return __real_arena_alloc(arena, size);
}

/* ---- the driver ---- */

static int pin(struct key *key)
{
	for (size_t i = 0; i < key->length / PAGE && i < 64; i++) {
		struct fake_page *p = fake_page(key->start + i * PAGE);

		if (!p->mapped || ((key->access & WRITE) && !(p->prot & PROT_WRITE)) ||
		    (!p->frame && p->guard))
			return -EFAULT;
		fake_make_present(p, key->access & WRITE);
		key->frame[i] = p->frame;
	}
	return 0;
}

static int reg(void *priv, uintptr_t start, size_t length, unsigned access, void **handle)
{
	struct key *key;
	uint64_t begun = dev.begun;
	int err = fake_point(FAKE_OP_DRIVER, FAKE_BEFORE, REG);

	assert_ptr_equal(priv, &dev);
	assert_int_equal((start | length) & (PAGE - 1), 0);
	if (!err && dev.longest && length > dev.longest)
		err = -EINVAL;
	if (!err) {
		key = &dev.key[dev.keys++];
		assert_true(key < dev.key + KEYS);
		*key = (struct key){ .start = start, .length = length, .access = access };
		key->begun = begun;
		fake_lock();
		err = pin(key);
		fake_unlock();
		key->used = !err;
		*handle = key;
		dev.deregs += !!err;
	}
	fake_point(FAKE_OP_DRIVER, FAKE_AFTER, REG);
	return err;
}

static void dereg(void *priv, void *handle, uintptr_t start, size_t length)
{
	struct key *key = handle;

	fake_point(FAKE_OP_DRIVER, FAKE_BEFORE, DEREG);
	assert_ptr_equal(priv, &dev);
	assert_true(key->start == start && key->length == length);
	assert_true(atomic_exchange(&key->used, false)); /* once (R2) */
	dev.deregs++;
}

static const struct hmm_regcache_ops ops = { .size = sizeof(ops), .reg = reg, .dereg = dereg };

static void open_with(struct hmm *hmm, struct hmm_regcache_options options)
{
	memset(&dev, 0, sizeof(dev));
	fail_at = failed = 0;
	dev.hmm = hmm;
	options.size = sizeof(options);
	assert_int_equal(hmm_regcache_create(hmm, &options, &ops, &dev, &dev.cache), 0);
}

static void open_dev(struct hmm *hmm)
{
	open_with(hmm, (struct hmm_regcache_options){ 0 });
}

static void open_pinned(struct hmm *hmm)
{
	open_with(hmm, (struct hmm_regcache_options){ .pinned = true });
}

static unsigned registered(void)
{
	return dev.keys - dev.deregs;
}

static void close_dev(void)
{
	hmm_regcache_destroy(dev.cache);
	assert_int_equal(registered(), 0);
}

/* ---- and its user ---- */

static int get_at(uintptr_t addr, size_t length, unsigned access, unsigned flags,
		  struct hmm_region **r)
{
	return hmm_regcache_get(dev.cache, addr, length, access, flags, r);
}

static struct hmm_region *get(unsigned page, unsigned n, unsigned access)
{
	struct hmm_region *r = NULL;
	const struct key *key;

	assert_int_equal(get_at(fake_addr(page), n * PAGE, access, 0, &r), 0);
	key = hmm_region_handle(r);
	assert_true(key->used);
	assert_true(key->start <= fake_addr(page));
	assert_true(key->start + key->length >= fake_addr(page + n));
	assert_true((key->access & access) == access);
	assert_int_equal(hmm_region_start(r), key->start);
	return r;
}

static bool put(struct hmm_region *r)
{
	assert_true(((struct key *)hmm_region_handle(r))->used);
	return hmm_regcache_put(r);
}

/* Is it what a CPU finds? */
static bool is_true(const struct hmm_region *r, unsigned page, unsigned n)
{
	const struct key *key = hmm_region_handle(r);

	for (unsigned i = page; i < page + n; i++)
		if (key->frame[(fake_addr(i) - key->start) / PAGE] != fake.page[i].frame)
			return false;
	return true;
}

static struct hmm_regcache_stats stats(void)
{
	struct hmm_regcache_stats s = { .size = sizeof(s) };

	hmm_regcache_get_stats(dev.cache, &s);
	assert_int_equal(s.size, sizeof(s));
	return s;
}

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
	struct hmm_regcache_ops none = { .size = sizeof(none), .reg = reg };
	struct hmm_regcache *cache = (void *)1;
	struct hmm_region *r = (void *)1;

	open_dev(*state);
	assert_int_equal(hmm_regcache_create(*state, &options, &ops, NULL, &cache), -EINVAL);
	assert_int_equal(hmm_regcache_create(*state, NULL, &none, NULL, &cache), -EINVAL);
	assert_int_equal(hmm_regcache_create(*state, NULL, NULL, NULL, &cache), -EINVAL);
	assert_int_equal(hmm_regcache_create(NULL, NULL, &ops, NULL, &cache), -EINVAL);
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

/* ---- R1: changes ---- */

static int unmaps_it(void *arg)
{
	fake_unmap(P + 1, 2);
	return 0;
}

static int maps_over(void *arg)
{
	fake_map(P + 1, 2, FAKE_ANON, RW);
	fake_touch(P + 1, 2);
	return 0;
}

static int discards(void *arg)
{
	fake_dontneed(P + 1, 2);
	return 0;
}

static int moves_away(void *arg)
{
	fake_remap(P + 1, P + 64, 2, false);
	return 0;
}

static int moves_over(void *arg)
{
	fake_map(P + 80, 2, FAKE_ANON, RW);
	fake_touch(P + 80, 2);
	fake_remap(P + 80, P + 1, 2, false);
	return 0;
}

static int forbids(void *arg)
{
	fake_protect(P + 1, 2, PROT_NONE);
	return 0;
}

/* In place, and nobody is told. */
static int exchanges(void *arg)
{
	fake_guard(P + 1, 2, true);
	fake_guard(P + 1, 2, false);
	fake_touch(P + 1, 2);
	return 0;
}

static const fake_action changes[] = { unmaps_it, maps_over, discards, moves_away, moves_over,
				       forbids, exchanges };

/*
 * A region that is found is what a CPU finds (R1, with pins R3); or there is no memory to have one
 * of.
 */
static void found_is_true(void)
{
	struct hmm_region *r;
	int err = get_at(fake_addr(P), 4 * PAGE, WRITE, 0, &r);

	if (err) {
		assert_true(err == -EFAULT || err == -EPERM);
		return;
	}
	if (!is_true(r, P, 4))
		fake_fail("a region that is found is of other pages than a CPU finds");
	assert_false(put(r));
}

/*
 * At every call of the system and of the driver that a get makes, before and after. `held`: of a
 * union with what is held.
 */
static void change_at_any_step(struct hmm *hmm, bool held)
{
	unsigned placed = 0, told = 0;

	for (unsigned c = 0; c < sizeof(changes) / sizeof(changes[0]); c++)
		for (unsigned op = 0; op < FAKE_OPS; op++)
			for (unsigned nth = 1; nth < 12; nth++) {
				struct hmm_region *r = NULL, *other = NULL;
				unsigned calls;

				fake_map(P, N, FAKE_ANON, RW);
				fake_touch(P, N);
				fake_settle();
				if (held)
					other = get(P + 2, 3, 0);
				calls = fake.calls[op];
				fake_at(op, nth % 2 ? FAKE_BEFORE : FAKE_AFTER, -1, (nth + 1) / 2,
					changes[c], NULL);
				get_at(fake_addr(P), 4 * PAGE, WRITE, 0, &r);
				placed += fake.calls[op] - calls >= (nth + 1) / 2;
				fake_forget();
				fake_settle();
				found_is_true();
				if (other)
					put(other);
				told += r && put(r);
				found_is_true();
				hmm_regcache_flush(dev.cache);
				assert_int_equal(registered(), 0);
				fake_unmap(P, N);
				fake_unmap(P + 64, 2);
				fake_unmap(P + 80, 2);
				fake_settle();
			}
	assert_true(placed > 60);
	assert_true(told > 5);
}

static void changed_at_any_step(void **state)
{
	open_pinned(*state);
	change_at_any_step(*state, false);
	change_at_any_step(*state, true);
	close_dev();
}

/* Between the look into the memory and its registration; and between that and its publication. */
static void changed_around_reg(void **state)
{
	for (unsigned when = 0; when < 2; when++) {
		struct hmm_region *r;

		open_dev(*state);
		fake_map(P, N, FAKE_ANON, RW);
		fake_touch(P, N);
		fake_at(FAKE_OP_DRIVER, when ? FAKE_AFTER : FAKE_BEFORE, REG, 1, maps_over, NULL);
		r = get(P, 4, WRITE);
		fake_settle();
		/* Delivered afterwards, or before and then it was made anew. */
		assert_true(is_true(r, P, 4) || (r->state & REGION_CHANGED));
		put(r);
		found_is_true();
		close_dev();
	}
}

static int settles(void *arg)
{
	fake_settle();
	return 0;
}

/* Its message is delivered before it is published: then it is not. */
static void delivered_before_publication(void **state)
{
	struct hmm_region *r;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 1, maps_over, NULL);
	fake_at(FAKE_OP_DRIVER, FAKE_AFTER, REG, 1, settles, NULL);
	r = get(P, 4, WRITE);
	assert_int_equal(dev.keys, 2); /* the first was taken back */
	assert_int_equal(registered(), 1);
	assert_true(is_true(r, P, 4));
	assert_false(put(r));
	close_dev();
}

static int changes_again(void *arg)
{
	maps_over(NULL);
	return settles(NULL);
}

static void changes_all_the_time(void **state)
{
	struct hmm_region *r = (void *)1;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_at(FAKE_OP_DRIVER, FAKE_AFTER, REG, 0, changes_again, NULL);
	assert_int_equal(get_at(fake_addr(P), 4 * PAGE, WRITE, 0, &r), -EBUSY);
	assert_ptr_equal(r, (void *)1);
	assert_int_equal(registered(), 0);
	fake_forget();
	r = get(P, 4, WRITE);
	assert_false(put(r));
	close_dev();
}

/* R2: what is in use is not taken away; its put says so; nobody else finds it. */
static void changed_in_use(void **state)
{
	struct hmm_region *r, *same, *other, *next;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	r = get(P, 4, WRITE);
	same = get(P, 4, 0);
	other = get(P + 8, 4, 0);
	fake_map(P + 3, 1, FAKE_ANON, RW);
	assert_int_equal(hmm_regcache_fence(dev.cache), 0);
	assert_int_equal(registered(), 2);
	assert_int_equal(stats().regions, 1);
	assert_int_equal(stats().busy, 1);
	next = get(P, 4, WRITE);
	assert_ptr_not_equal(next, r);
	assert_true(put(r));
	assert_int_equal(registered(), 3);
	assert_true(put(same));
	assert_int_equal(registered(), 2);
	assert_false(put(next));
	assert_false(put(other));
	/* Idle: deregistered when the event is delivered. */
	fake_unmap(P, N);
	fake_settle();
	assert_int_equal(registered(), 0);
	assert_int_equal(stats().invalidations, 3);
	assert_int_equal(stats().busy, 1);
	close_dev();
}

static void kinds_of_changes(void **state)
{
	static const bool over[] = { true, true, true, true, true, true, false };

	open_dev(*state);
	for (unsigned c = 0; c < sizeof(changes) / sizeof(changes[0]); c++) {
		fake_map(P, N, FAKE_ANON, RW);
		put(get(P, N, WRITE));
		changes[c](NULL);
		assert_int_equal(hmm_fence(dev.hmm, fake_addr(P), N * PAGE), 0);
		assert_int_equal(registered(), over[c] ? 0 : 1);
		fake_unmap(P, 128);
		fake_settle();
		assert_int_equal(registered(), 0);
	}
	close_dev();
}

/* ---- a get that is late ---- */

/* It has read where the region is, and goes on when that is over; and another; and held. */
static void late_lookup(void **state)
{
	struct hmm_region *r, *again;
	uintptr_t at = fake_addr(P), end = fake_addr(P + 2);

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	r = get(P, 2, WRITE);
	put(r);
	assert_true(region_hold(r, at, end, WRITE));
	assert_false(put(r));
	/* Over, and free. */
	fake_unmap(P, 2);
	fake_settle();
	assert_int_equal(registered(), 0);
	assert_false(region_hold(r, at, end, WRITE));
	/* Of other memory. */
	again = get(P + 4, 2, 0);
	assert_ptr_equal(again, r);
	assert_false(region_hold(r, at, end, WRITE));
	assert_false(region_hold(r, fake_addr(P + 4), fake_addr(P + 6), WRITE));
	assert_true(region_hold(r, fake_addr(P + 4), fake_addr(P + 6), 0));
	assert_false(put(r));
	/* Over and held. */
	fake_unmap(P + 4, 2);
	fake_settle();
	assert_false(region_hold(r, fake_addr(P + 4), fake_addr(P + 6), 0));
	assert_true(put(again));
	assert_int_equal(registered(), 0);
	/* Of the same addresses, anew: a hit as good as any. */
	fake_map(P, N, FAKE_ANON, RW);
	again = get(P, 2, WRITE);
	assert_ptr_equal(again, r);
	assert_true(region_hold(r, at, end, WRITE));
	assert_true(is_true(r, P, 2));
	put(r);
	put(again);
	assert_int_equal(stats().misses, 3);
	assert_int_equal(stats().hits, 0 + 3); /* those of region_hold() */
	close_dev();
}

/* Its reference is the last one when the region ends: then it is who deregisters. Once. */
static void late_lookup_is_last(void **state)
{
	struct hmm_region *r, *again;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	r = get(P, 2, WRITE);
	fake_unmap(P, 2);
	fake_settle();
	/* As the first step of region_hold(). */
	atomic_fetch_add(&r->state, REGION_REF + REGION_GET);
	assert_true(put(r));
	assert_int_equal(registered(), 1);
	region_drop(r, REGION_REF + REGION_GET);
	assert_int_equal(registered(), 0);
	/* And on one that is free, made, shown and over while it is passing by. */
	atomic_fetch_add(&r->state, REGION_REF + REGION_GET);
	again = get(P + 4, 2, WRITE);
	assert_ptr_equal(again, r);
	put(again);
	fake_unmap(P + 4, 2);
	fake_settle();
	assert_int_equal(registered(), 1);
	assert_int_equal(stats().regions, 0);
	region_drop(r, REGION_REF + REGION_GET);
	assert_int_equal(registered(), 0);
	assert_int_equal(stats().hits, 0);
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
		assert_int_equal(hmm_regcache_create(*state, NULL, &ops, NULL, &cache), -ENOMEM);
		fail_at = 0;
		assert_ptr_equal(cache, (void *)1);
	}
}

/* ---- R3: pins ---- */

static void exchanged_in_place(void **state)
{
	struct hmm_region *r, *held;

	open_pinned(*state);
	fake_map(P, N, FAKE_ANON, RW);
	held = get(P, 8, WRITE);
	exchanges(NULL);
	/* Of other pages: not its business. */
	r = get(P + 3, 5, WRITE);
	assert_ptr_equal(r, held);
	assert_false(put(r));
	/* Of one of them: also if the caller has fenced. */
	assert_int_equal(get_at(fake_addr(P) + 50, PAGE, WRITE, HMM_REGCACHE_FENCED, &r), 0);
	assert_ptr_not_equal(r, held);
	assert_true(is_true(r, P, 1));
	assert_int_equal(stats().stale, 1);
	assert_int_equal(stats().invalidations, 1);
	assert_int_equal(stats().busy, 1);
	assert_true(put(held));
	assert_false(put(r));
	assert_int_equal(registered(), 1);
	/* Idle. */
	put(get(P, 8, WRITE));
	exchanges(NULL);
	put(get(P, 8, WRITE));
	assert_int_equal(stats().stale, 2);
	assert_int_equal(stats().busy, 1);
	assert_int_equal(registered(), 1);
	found_is_true();
	/* Gone is not the same either. */
	fake_guard(P + 1, 1, true);
	assert_int_equal(get_at(fake_addr(P), 8 * PAGE, WRITE, 0, &r), -EFAULT);
	assert_int_equal(registered(), 0);
	close_dev();
}

/* After the pin, before its number is noted: a note of the new page would hold for ever. */
static void exchanged_after_the_pin(void **state)
{
	struct hmm_region *r;

	open_pinned(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_touch(P, N);
	fake_at(FAKE_OP_DRIVER, FAKE_AFTER, REG, 1, exchanges, NULL);
	r = get(P, 4, WRITE);
	assert_true(is_true(r, P, 4));
	assert_int_equal(dev.keys, 2);
	put(r);
	fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 1, exchanges, NULL);
	hmm_regcache_flush(dev.cache);
	found_is_true();
	assert_int_equal(registered(), 1);
	close_dev();
}

static void not_told_numbers(void **state)
{
	struct hmm_region *a, *b;

	open_pinned(*state);
	fake.no_frames = true;
	fake_map(P, N, FAKE_ANON, RW);
	a = get(P, 4, WRITE);
	exchanges(NULL);
	b = get(P, 4, WRITE);
	assert_ptr_not_equal(a, b);
	assert_true(is_true(b, P, 4));
	assert_int_equal(stats().regions, 0);
	assert_false(put(a)); /* nobody can know */
	assert_false(put(b));
	assert_int_equal(registered(), 0);
	assert_int_equal(stats().misses, 2);
	close_dev();
}

static void dontneed_does_not_end(void **state)
{
	struct hmm_region *r;

	open_pinned(*state);
	fake_map(P, N, FAKE_ANON, RW);
	put(get(P, N, WRITE));
	fake.hold_zap = true;
	fake_dontneed(P + 2, 2);
	fake.hold_zap = false;
	fake_settle();
	assert_int_equal(registered(), 0);
	assert_int_equal(get_at(fake_addr(P), N * PAGE, WRITE, 0, &r), -EBUSY);
	put(get(P + 8, 4, WRITE)); /* others are not held up */
	fake_resume_all();
	found_is_true();
	close_dev();
}

/* ---- fork ---- */

/* What an address reads is the same: nothing is over, until the parent has a copy of a page. */
static void forked(void **state)
{
	struct hmm_region *r;

	for (unsigned pinned = 0; pinned < 2; pinned++) {
		open_with(*state, (struct hmm_regcache_options){ .pinned = pinned });
		fake_map(P, N, FAKE_ANON, RW);
		r = get(P, 4, WRITE);
		fake_fork();
		fake_settle();
		assert_ptr_equal(get(P, 4, WRITE), r);
		assert_false(put(r));
		/* A driver whose pins are none: its page stays the child's. */
		if (pinned)
			fake.page[P + 1].frame = ++fake.frames;
		found_is_true();
		assert_int_equal(stats().stale, pinned);
		assert_int_equal(put(r), pinned);
		close_dev();
		fake_unmap(P, N);
		fake_settle();
	}
}

/* A child has the parent's handles: nothing is called, nothing is touched. */
static void in_a_child(void **state)
{
	struct hmm_region *r;
	pid_t pid;
	int status;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	r = get(P, 4, WRITE);
	lock_take(&dev.cache->lock); /* another thread of the parent has it */
	pid = fork();
	if (!pid) {
		struct hmm_regcache_stats s = { .size = sizeof(s) };
		struct hmm_region *mine = NULL;
		unsigned deregs = dev.deregs, keys = dev.keys;
		int bad = 0;

		lock_held = 0;
		bad |= get_at(fake_addr(P), PAGE, 0, 0, &mine) != -ENODEV;
		bad |= get_at(fake_addr(P), PAGE, 0, HMM_REGCACHE_FENCED, &mine) != -ENODEV;
		bad |= hmm_regcache_fence(dev.cache) != -ENODEV;
		bad |= hmm_regcache_flush(dev.cache) != 0;
		hmm_regcache_get_stats(dev.cache, &s);
		bad |= s.regions != 0;
		r->state &= ~REGION_LIVE; /* over: its last put would deregister */
		hmm_regcache_put(r);
		hmm_regcache_destroy(dev.cache);
		_exit(bad || dev.deregs != deregs || dev.keys != keys);
	}
	lock_drop(&dev.cache->lock);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_false(put(r));
	close_dev();
}

/* The mirror dies: everything is over, and a get says so. */
static void mirror_dies(void **state)
{
	struct hmm_region *r, *none;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	r = get(P, 4, WRITE);
	put(get(P + 8, 4, WRITE));
	mirror_kill(*state, "a test");
	fake_worker();
	assert_int_equal(registered(), 1);
	assert_int_equal(get_at(fake_addr(P), PAGE, 0, HMM_REGCACHE_FENCED, &none), -ENODEV);
	assert_true(put(r));
	assert_int_equal(registered(), 0);
	close_dev();
}

/* ---- inside callbacks ---- */

static struct hmm_region *to_put;
static int inside_err;

static void puts_inside(void *priv, const struct hmm_event *event)
{
	struct hmm_region *r;

	inside_err = get_at(fake_addr(P), PAGE, 0, 0, &r);
	if (to_put)
		put(to_put);
	to_put = NULL;
}

static void put_inside(void **state)
{
	static const struct hmm_notifier_ops nops = { .size = sizeof(nops),
						      .invalidate = puts_inside };
	struct hmm_notifier *n;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	to_put = get(P, 4, WRITE);
	assert_int_equal(hmm_notifier_insert(*state, 0, UINTPTR_MAX, &nops, NULL, &n), 0);
	fake_unmap(P, 4);
	fake_settle();
	assert_null(to_put);
	assert_int_equal(inside_err, -EDEADLK);
	assert_int_equal(registered(), 0);
	hmm_notifier_remove(n);
	close_dev();
}

/* ---- threads ---- */

#define DUEL_PAGES 8u
#define DUEL_MS 700u

static _Atomic bool over;
static _Atomic unsigned gets;

static int setup_threads(void **state)
{
	fake_reset();
	fake.threads = true;
	*state = fake_open();
	return 0;
}

static uint32_t random_of(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	return *x ^= *x << 5;
}

/* R1: registered after every change that had ended before. R2: while it is held it is. */
static void *gets_and_puts(void *arg)
{
	uint32_t x = 12345 + (uint32_t)(uintptr_t)arg;

	while (!over) {
		unsigned page = random_of(&x) % DUEL_PAGES, n = 1 + random_of(&x) % 2;
		unsigned access = random_of(&x) % 4 ? 0 : WRITE;
		uint64_t ended = dev.ended;
		struct hmm_region *r;
		const struct key *key;
		int err = get_at(fake_addr(P + page), n * PAGE, access, 0, &r);

		if (err) {
			assert_true(err == -EBUSY || err == -EFAULT || err == -EPERM || err == -ENOMEM);
			continue;
		}
		key = hmm_region_handle(r);
		assert_true(key->used);
		if (key->begun < ended)
			fake_fail("a region of change %lu, after change %lu",
				  (unsigned long)key->begun, (unsigned long)ended);
		gets++;
		if (random_of(&x) % 64 == 0)
			usleep(100);
		assert_true(key->used);
		hmm_regcache_put(r);
	}
	return NULL;
}

/* Everything each time, so that one number says all. */
static void *changes_it(void *arg)
{
	for (unsigned i = 0; !over; i++) {
		dev.begun++;
		if (i % 2)
			fake_map(P, DUEL_PAGES + 2, FAKE_ANON, RW);
		else
			fake_protect(P, DUEL_PAGES + 2, i % 4 ? PROT_READ : RW);
		fake_await_changes();
		dev.ended++;
		usleep(i % 3 ? 200 : 2000);
	}
	return NULL;
}

static void *flushes(void *arg)
{
	while (!over) {
		hmm_regcache_flush(dev.cache);
		stats();
		usleep(300);
	}
	return NULL;
}

static void duel(void **state)
{
	static void *(*const mains[])(void *) = { gets_and_puts, gets_and_puts, gets_and_puts,
						  changes_it, flushes };
	pthread_t thread[5];

	open_with(*state, (struct hmm_regcache_options){ .max_regions = 3 });
	fake_map(P, DUEL_PAGES + 2, FAKE_ANON, RW);
	over = false;
	gets = 0;
	for (uintptr_t i = 0; i < 5; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, mains[i], (void *)i), 0);
	usleep(DUEL_MS * 1000);
	over = true;
	for (unsigned i = 0; i < 5; i++)
		pthread_join(thread[i], NULL);
	print_message("%u gets, %u registrations, %u changes\n", gets, dev.keys,
		      (unsigned)dev.ended);
	assert_true(gets > 100);
	close_dev();
}

/* Both miss the same: one registers, the other waits for it. */
static void *gets_one(void *arg)
{
	*(struct hmm_region **)arg = get(P, 4, WRITE);
	return NULL;
}

static int lets_others_come(void *arg)
{
	pthread_t *thread = arg;

	assert_int_equal(pthread_create(thread, NULL, gets_one, thread + 1), 0);
	while (!dev.cache->waiters)
		usleep(100);
	return 0;
}

static void made_by_two(void **state)
{
	struct {
		pthread_t thread;
		struct hmm_region *region;
	} other;
	struct hmm_region *r;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_at(FAKE_OP_DRIVER, FAKE_BEFORE, REG, 1, lets_others_come, &other);
	r = get(P, 4, WRITE);
	pthread_join(other.thread, NULL);
	assert_ptr_equal(other.region, r);
	assert_int_equal(dev.keys, 1);
	assert_int_equal(stats().misses, 1);
	assert_int_equal(stats().hits, 1);
	put(r);
	put(r);
	close_dev();
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
#define THREADS(test) cmocka_unit_test_setup_teardown(test, setup_threads, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(found_again),
		TEST(refused),
		TEST(unions),
		TEST(replaced_and_changed),
		TEST(union_fails),
		TEST(changed_at_any_step),
		TEST(changed_around_reg),
		TEST(delivered_before_publication),
		TEST(changes_all_the_time),
		TEST(changed_in_use),
		TEST(kinds_of_changes),
		TEST(late_lookup),
		TEST(late_lookup_is_last),
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
		TEST(exchanged_in_place),
		TEST(exchanged_after_the_pin),
		TEST(not_told_numbers),
		TEST(dontneed_does_not_end),
		TEST(forked),
		TEST(in_a_child),
		TEST(mirror_dies),
		TEST(put_inside),
		THREADS(duel),
		THREADS(made_by_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
