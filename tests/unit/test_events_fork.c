/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_events_fork - fork and raw clones while pages are away: the child has what was there, in
 * whatever order the messages are read (G5; docs/migration.md).
 */
#include "core/pager.h"
#include "events_away.h"

#include <errno.h>

/* Read in any order with a munmap that came later: the child has what was there. */
static void fork_read_after_a_later_unmap(void **state)
{
	EACH_KIND(k)
		for (unsigned anew = 0; anew < 2; anew++) {
			begin(*state, k);
			fake.hold_queue = true;
			away_fork();
			away_unmap(P, 2);
			if (anew)
				away_map(P, 2);
			fake.hold_queue = false;
			fake_queue(change_of(OS_MSG_UNMAP, P));
			fake_settle();
			away_end(true);
		}
}

/* The same while they are on their way. */
static int fork_then_unmap(void *arg)
{
	fake.hold_queue = true;
	away_fork();
	away_unmap(P, 2);
	fake.hold_queue = false;
	fake_queue(change_of(OS_MSG_UNMAP, P));
	return 0;
}

static void fork_read_late_during_a_transfer(void **state)
{
	EACH_KIND(k)
		for (unsigned out = 0; out < 2; out++)
			for (unsigned nth = 1; nth < 6; nth++) {
				away_begin(*state, &kinds[k]);
				away.vram.late = true;
				if (!out)
					away_move(P - 1, 4);
				fake_at(FAKE_OP_WAIT, FAKE_BEFORE, -1, nth, fork_then_unmap, NULL);
				fake_at(FAKE_OP_WAIT, FAKE_BEFORE, -1, nth + 3, read_now, NULL);
				if (out)
					to_device(P - 1, 4);
				else
					hmm_migrate_to_host(*state, fake_addr(P - 1), 4 * PAGE);
				away_end(true);
			}
}

static void fork_of_several_contexts(void **state)
{
	EACH_KIND(k)
		for (unsigned late = 0; late < 2; late++) {
			begin(*state, k);
			away.vram.late = late;
			away_move(B, 2);
			assert_int_not_equal(fake_ctx_of(P), fake_ctx_of(B));
			away_fork();
			away_settle();
			for (unsigned i = P - 1; i < P + 3; i++)
				assert_true(fake.child[away.child[0].number]->page[i].copied);
			away_fork();
			away_end(true);
		}
}

static void the_child_cannot_be_filled(void **state)
{
	begin(*state, 0);
	fake_refuse(FAKE_OP_CHILD_COPY, fake_addr(P), -ESRCH, 1);
	away_fork();
	away.child[0].value[P] = 0; /* it is gone: nobody will look */
	away_end(true);

	begin(*state, 0);
	fake_refuse(FAKE_OP_CHILD_COPY, fake_addr(P), -EAGAIN, 3);
	away_fork();
	away_end(true);
}

static int child_unmaps(void *arg)
{
	for (const struct fake_change *c = fake.changes; c; c = c->next)
		if (c->msg.kind == OS_MSG_FORK && c->state < FAKE_READ) {
			fake_at(FAKE_OP_CHILD_COPY, FAKE_BEFORE, -1, 1, child_unmaps, arg);
			return 0;
		}
	fake_child_unmaps(away.child[0].number, P, 1);
	++*(unsigned *)arg;
	away.child[0].value[P] = 0;
	return 0;
}

/* Without a sentinel the child runs, and changes what it has, before it is filled. */
static void the_child_runs_before_it_is_filled(void **state)
{
	unsigned ran = 0;

	for (unsigned late = 0; late < 2; late++)
		EACH_KIND(k) {
			fake_reset();
			fake.no_sentinel = true;
			*state = fake_open();
			begin(*state, k);
			away.vram.late = late;
			away_fork();
			fake_at(FAKE_OP_CHILD_COPY, FAKE_BEFORE, -1, 1, child_unmaps, &ran);
			away_settle();
			away_end(true);
			if (late + k < 2)
				fake_close(*state);
		}
	assert_true(ran > 0);
}

/* pthread_atfork: everything is home before, also what a driver has isolated. */
static void home_before_fork(void **state)
{
	uint64_t src[2] = { 0 }, dst[2] = { 0 }, frame[2];

	EACH_KIND(k) {
		struct hmm_migrate m = { .size = sizeof(m), .start = fake_addr(P + 4),
					 .end = fake_addr(P + 6), .src = src, .dst = dst };

		begin(*state, k);
		m.devmem = away.vram.devmem;
		assert_int_equal(hmm_migrate_setup(&m), 0);
		assert_int_equal(hmm_devmem_frames(m.devmem, frame, 2), 2);
		dst[0] = hmm_migrate_frame(frame[0]);
		dst[1] = hmm_migrate_frame(frame[1]);
		fork_prepare(*state);
		for (unsigned i = A; i < A + LEN; i++)
			assert_int_equal(fake_count(1000 + i), 1);
		for (unsigned i = A; i < A + LEN; i++)
			assert_int_equal(fake.page[i].value, 1000 + i);
		away_fork();
		fork_done(*state);
		assert_int_equal(hmm_migrate_pages(&m), 0);
		assert_false((src[0] | src[1]) & HMM_MIGRATE_MIGRATE);
		hmm_migrate_finalize(&m);
		away_settle();
		assert_int_equal(vram_used(&away.vram), 0);
		assert_int_equal(to_device(P, 2), 2);
		away_end(true);
	}
}

/* The first devmem is made while another thread forks: nothing leaves until that is over, and then it does. */
static void the_first_devmem_during_a_fork(void **state)
{
	struct hmm *hmm = *state;

	fork_prepare(hmm);
	vram_open(&away.vram, hmm, NULL);
	assert_int_equal(hmm->forking, 1);
	fork_done(hmm);
	assert_int_equal(hmm->forking, 0);
	fake_map(10, 1, FAKE_ANON, RW);
	fake_write_page(10, 7);
	assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(10), PAGE), 1);
	vram_close(&away.vram);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_first_devmem_during_a_fork),
		TEST(fork_read_after_a_later_unmap),
		TEST(fork_read_late_during_a_transfer),
		TEST(fork_of_several_contexts),
		TEST(the_child_cannot_be_filled),
		TEST(the_child_runs_before_it_is_filled),
		TEST(home_before_fork),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
