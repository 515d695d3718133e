/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_queue_duel - the ring of queue.h between two threads, and a third that waits as a
 * fence does: whoever saw pushed == p and then done >= p has all events below p delivered,
 * singly or by an EVERYTHING after them (G1 stands on that).
 *
 * The ring has four slots here, so that it is full, and empty, all the time. Threads meet
 * where they happen to; so that they meet everywhere, one of the two is run instruction by
 * instruction besides (x86-64), and the other makes its whole call between two of them.
 */
#define QUEUE_SLOTS 4u

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>

#include "core/queue.h"

#define EVENTS 1000000u

static struct event slots[QUEUE_SLOTS];

/*
 * What each event needs: itself, or an EVERYTHING that was taken after it was pushed.
 * The consumer says of each number when it was covered, before it says `done`.
 */
static struct {
	struct queue queue;
	unsigned char covered[EVENTS];
	unsigned everythings, singles;
	uint64_t lost;
} duel;

static uint64_t random_next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void stall(uint64_t *x, unsigned odds)
{
	uint64_t r = random_next(x);

	if (r % odds == 0)
		sched_yield();
	for (volatile unsigned i = 0; r % 64 == 0 && i < (r >> 32) % 4000; i++)
		;
}

/* Now and then until all has been taken: what comes next into the empty ring, alone, is taken singly. */
static void *produce(void *arg)
{
	uint64_t x = 88172645463325252u;

	for (uint64_t i = 0; i < EVENTS; i++) {
		queue_push(&duel.queue, &(struct event){ .kind = EVENT_CLEAR, .start = i });
		stall(&x, 500);
		while (i % 10000 < 2 && duel.queue.done <= i)
			sched_yield();
	}
	return NULL;
}

static void *consume(void *arg)
{
	uint64_t x = 2463534242u, upto, done = 0;
	struct event event = { 0 };

	while (done < EVENTS) {
		if (!queue_take(&duel.queue, &event, &upto)) {
			sched_yield();
			continue;
		}
		if (event.kind == EVENT_EVERYTHING) {
			duel.everythings++;
			for (uint64_t i = done; i < upto; i++)
				__atomic_store_n(&duel.covered[i], 1, __ATOMIC_RELAXED);
		} else {
			duel.singles++;
			__atomic_store_n(&duel.covered[event.start], 1, __ATOMIC_RELAXED);
		}
		stall(&x, 3000);
		queue_done(&duel.queue, upto);
		done = upto;
	}
	return NULL;
}

/* A fence: whoever saw pushed == p and then done >= p finds all below p covered. */
static void *wait_as_a_fence_does(void *arg)
{
	uint64_t checked = 0;

	while (checked < EVENTS) {
		uint64_t pushed = duel.queue.pushed;

		while (duel.queue.done < pushed)
			sched_yield();
		for (; checked < pushed; checked++)
			if (!__atomic_load_n(&duel.covered[checked], __ATOMIC_RELAXED))
				duel.lost++;
		sched_yield();
	}
	return NULL;
}

static void nothing_is_lost_between_two_threads(void **state)
{
	pthread_t threads[3];

	memset(&duel, 0, sizeof(duel));
	duel.queue.slots = slots;
	assert_int_equal(pthread_create(&threads[0], NULL, consume, NULL), 0);
	assert_int_equal(pthread_create(&threads[1], NULL, wait_as_a_fence_does, NULL), 0);
	assert_int_equal(pthread_create(&threads[2], NULL, produce, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	print_message("%u events singly, %u times everything\n", duel.singles, duel.everythings);
	assert_true(duel.lost == 0);
	assert_true(duel.singles > 0);
}

/* ---- at every instruction ---- */

#if defined(__SANITIZE_THREAD__)
#define SINGLE_STEPS 0 /* its own machinery would be stepped through */
#elif defined(__has_feature)
#define SINGLE_STEPS !__has_feature(thread_sanitizer)
#else
#define SINGLE_STEPS 1
#endif

#if defined(__x86_64__) && SINGLE_STEPS
static struct {
	struct queue queue;
	uint64_t made;		/* events pushed so far */
	unsigned step, at;	/* the other's turn comes before instruction `at` */
	unsigned turns;		/* calls it makes then */
	void (*other)(void);
	bool wrong;
} stepped;

static void push_one(void)
{
	queue_push(&stepped.queue, &(struct event){ .kind = EVENT_CLEAR,
						    .start = stepped.made++ });
}

static bool take_one(void)
{
	uint64_t upto, done = stepped.queue.done;
	struct event event;

	if (!queue_take(&stepped.queue, &event, &upto))
		return false;
	/* A single event is the one that `done` names, and not what lay in its slot. */
	if (event.kind != EVENT_EVERYTHING && (event.start != done || upto != done + 1))
		stepped.wrong = true;
	queue_done(&stepped.queue, upto);
	return true;
}

static void take_one_only(void)
{
	take_one();
}

static void on_step(int signal)
{
	if (stepped.step++ == stepped.at)
		for (unsigned i = 0; i < stepped.turns; i++)
			stepped.other();
}

/* Past the red zone, which the compiler may be using. */
static inline void trap(bool on)
{
	if (on)
		__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; orl $0x100, (%%rsp); popfq; "
				 "lea 128(%%rsp), %%rsp" ::: "memory", "cc");
	else
		__asm__ volatile("lea -128(%%rsp), %%rsp; pushfq; andl $~0x100, (%%rsp); popfq; "
				 "lea 128(%%rsp), %%rsp" ::: "memory", "cc");
}

/* How many instructions it took. `behind`: events that are not taken yet when it begins. */
static unsigned one_meeting(void (*runs)(void), void (*other)(void), unsigned behind,
			    unsigned turns, unsigned at)
{
	memset(&stepped, 0, sizeof(stepped));
	stepped.queue.slots = slots;
	memset(slots, 0xff, sizeof(slots));
	for (unsigned i = 0; i < behind; i++)
		push_one();
	stepped.other = other;
	stepped.turns = turns;
	stepped.at = at;
	trap(true);
	runs();
	trap(false);
	while (take_one())
		;
	if (stepped.queue.done != stepped.made)
		stepped.wrong = true;
	return stepped.step;
}

static unsigned all_meetings(void (*runs)(void), void (*other)(void))
{
	unsigned meetings = 0;

	for (unsigned behind = 0; behind < 2 * QUEUE_SLOTS; behind++)
		for (unsigned turns = 1; turns <= QUEUE_SLOTS + 2; turns++)
			for (unsigned at = 0; at < one_meeting(runs, other, behind, turns, at);
			     at++) {
				assert_false(stepped.wrong);
				meetings++;
			}
	return meetings;
}

static void they_meet_at_every_instruction(void **state)
{
	struct sigaction action = { .sa_handler = on_step }, before;
	unsigned meetings;

	assert_int_equal(sigaction(SIGTRAP, &action, &before), 0);
	if (!one_meeting(push_one, take_one_only, 0, 0, 0)) {
		print_message("skipped: no single steps here (an emulated processor)\n");
		sigaction(SIGTRAP, &before, NULL);
		skip();
	}
	meetings = all_meetings(push_one, take_one_only);
	meetings += all_meetings(take_one_only, push_one);
	sigaction(SIGTRAP, &before, NULL);
	print_message("%u meetings\n", meetings);
}
#else
static void they_meet_at_every_instruction(void **state)
{
	print_message("skipped: single steps are made on x86-64 and without ThreadSanitizer\n");
	skip();
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(they_meet_at_every_instruction),
		cmocka_unit_test(nothing_is_lost_between_two_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
