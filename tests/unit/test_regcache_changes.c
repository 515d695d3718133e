/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_regcache_changes - R1, R2, R3 (include/uhmm/regcache.h): each change placed at each call of the
 * system and of the driver; a get that is late; pins; fork; threads.
 */
#include "regcache_dev.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

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
		TEST(changed_at_any_step),
		TEST(changed_around_reg),
		TEST(delivered_before_publication),
		TEST(changes_all_the_time),
		TEST(changed_in_use),
		TEST(kinds_of_changes),
		TEST(late_lookup),
		TEST(late_lookup_is_last),
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
