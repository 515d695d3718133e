/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_plain - a mapping goes back from MISSING to plain, or is given up, whatever moves there, or on from
 * there, in that moment; and doubt of what has been registered is no more than that (G5).
 */
#include "whole.h"

/* What the mirror asks when it gives up pages 1000 to 1003. */
static struct request trim_of_1000(void)
{
	return (struct request){ .kind = REQUEST_TRIM, .start = fake_addr(1000),
				 .end = fake_addr(1004), .number = (unsigned)fake_ctx_of(1000) };
}

static void grown_while_it_becomes_plain(void **state)
{
	missing_begins(*state, NULL);
	fake_at(FAKE_OP_UNREGISTER, FAKE_BEFORE, -1, 1, grows, NULL);
	comes_home(*state);
	is_whole(10, 8, false);
	missing_ends();
}

/*
 * Moved onto a mapping that goes back to plain at this moment: it keeps its registration, and so its pages
 * (G5). The same where the mirror gives it up (`trims`).
 */
static void moves_onto_what_becomes_plain(struct hmm *hmm, bool trims)
{
	unsigned from = away_beside_1000(hmm);
	struct request trim = trim_of_1000();

	goes_away(1000, 4);
	hmm_migrate_to_host(hmm, fake_addr(1000), 4 * PAGE);
	fake_at(FAKE_OP_UNREGISTER, FAKE_BEFORE, -1, 1, moves_over_it, &from);
	if (trims)
		assert_int_equal(request_do(hmm, &trim), -EBUSY);
	else
		a_while_passes();
	fake_settle();
	assert_int_equal(fake.calls[FAKE_OP_UNREGISTER], 1);
	assert_true(fake.page[1000].missing);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_read_page(1000 + i), 100 + from + i);
	comes_home(hmm);
	is_whole(1000, 4, false);
	missing_ends();
}

static void what_moves_onto_plain_keeps_its_pages(void **state)
{
	moves_onto_what_becomes_plain(*state, false);
}

static void what_moves_onto_what_is_given_up_keeps_its_pages(void **state)
{
	moves_onto_what_becomes_plain(*state, true);
}

static int moves_over_it_and_ends(void *arg)
{
	fake_remap(*(unsigned *)arg, 1000, 4, false);
	fake_unmap(1000, 4);
	fake_map(1000, 4, FAKE_ANON, RW);
	return 0;
}

/* But what has come after that it is not: no byte of it comes back there. */
static void what_comes_after_it_is_new(void **state)
{
	unsigned from = away_beside_1000(*state);

	goes_away(1000, 4);
	hmm_migrate_to_host(*state, fake_addr(1000), 4 * PAGE);
	fake_at(FAKE_OP_UNREGISTER, FAKE_BEFORE, -1, 1, moves_over_it_and_ends, &from);
	a_while_passes();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_read_page(1000 + i), 0);
	comes_home(*state);
	missing_ends();
}

static int moves_over_it_and_shrinks(void *arg)
{
	moves_over_it(arg);
	fake_unmap(1003, 1);
	return 0;
}

/* What has been moved there and is unmapped in part at once: doubt comes back of that part only. */
static void what_is_left_of_it_keeps_its_pages(void **state)
{
	for (unsigned plain = 0; plain < 2; plain++) {
		unsigned from = away_beside_1000(*state);

		if (plain) {
			goes_away(1000, 4);
			hmm_migrate_to_host(*state, fake_addr(1000), 4 * PAGE);
		}
		fake_at(plain ? FAKE_OP_UNREGISTER : FAKE_OP_REGISTER_MISSING, FAKE_BEFORE, -1, 1,
			moves_over_it_and_shrinks, &from);
		if (!plain)
			hmm_migrate_to_device(vram.devmem, fake_addr(1000), 4 * PAGE);
		a_while_passes();
		for (unsigned i = 0; i < 3; i++)
			assert_int_equal(fake_read_page(1000 + i), 100 + from + i);
		fake_unmap(0, 1040);
		fake_settle();
		missing_ends();
	}
}

static int unmaps_beside(void *arg)
{
	fake.hold_resume = true;
	fake_unmap(40, 1);
	fake.hold_resume = false;
	return 0;
}

static int resumes(void *arg)
{
	fake_resume_all();
	return 0;
}

static int fails_to_unmap(void *arg)
{
	fake_unmap_fails(1000, 4);
	return 0;
}

/* What was moved away proves that there is no doubt any more; a munmap that fails gives nothing up. */
static void what_has_gone_away_is_not_in_doubt(void **state)
{
	unsigned from = away_beside_1000(*state);
	int ctx = fake_ctx_of(1000);

	fake_map(40, 4, FAKE_ANON, RW);
	for (unsigned i = 40; i < 44; i++)
		fake.page[i].ctx = (int16_t)ctx;
	fake_at(FAKE_OP_REGISTER_MISSING, FAKE_BEFORE, -1, 1, unmaps_beside, NULL);
	fake_at(FAKE_OP_MOVE, FAKE_BEFORE, ctx, 2, resumes, NULL);
	fake_at(FAKE_OP_MOVE, FAKE_AFTER, ctx, 2, fails_to_unmap, NULL);
	assert_int_equal(hmm_migrate_to_device(vram.devmem, fake_addr(1000), 4 * PAGE), 4);
	fake_settle();
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(fake_read_page(1000 + i), 1100 + i);
		assert_int_equal(fake_read_page(from + i), 100 + from + i);
	}
	missing_ends();
}

static int drops_elsewhere(void *arg)
{
	fake_dontneed(*(unsigned *)arg, 1);
	return 0;
}

/* What the pager needs itself never becomes MISSING. */
static void what_is_critical_is_registered_as_it_was(void **state)
{
	unsigned from = away_beside_1000(*state);
	struct request trim = trim_of_1000();

	fake.critical_start = fake_addr(1000);
	fake.critical_end = fake_addr(1004);
	fake_at(FAKE_OP_UNREGISTER, FAKE_BEFORE, -1, 1, drops_elsewhere, &from);
	assert_int_equal(request_do(*state, &trim), -EBUSY);
	assert_int_not_equal(fake_ctx_of(1000), FAKE_NO_CTX);
	assert_false(fake.page[1000].missing);
	fake.critical_start = fake.critical_end = 0;
	missing_ends();
}

/* A change was pending when it was given up: later. */
static void what_cannot_be_given_up_is_given_up_later(void **state)
{
	unsigned from = away_beside_1000(*state);
	struct request trim = trim_of_1000();

	fake.hold_resume = true;
	fake_dontneed(from, 1);
	fake.hold_resume = false;
	assert_int_equal(request_do(*state, &trim), -EBUSY);
	is_whole(1000, 4, true);
	fake_resume_all();
	comes_home(*state);
	is_whole(1000, 4, false);
	missing_ends();
}

/* Also where an event has touched what was there before. */
static void what_cannot_be_given_up_where_something_was(void **state)
{
	unsigned from = away_beside_1000(*state), ctx = (unsigned)fake_ctx_of(1000);
	struct request trim = trim_of_1000();

	goes_away(1000, 4);
	hmm_migrate_to_host(*state, fake_addr(1000), 4 * PAGE);
	fake_unmap(1000, 4);
	fake_settle();
	fake_map(1000, 4, FAKE_ANON, RW);
	fill(1000, 4);
	fake_register(ctx, fake_addr(1000), fake_addr(1004), false);
	fake.hold_resume = true;
	fake_dontneed(from, 1);
	fake.hold_resume = false;
	assert_int_equal(request_do(*state, &trim), -EBUSY);
	fake_resume_all();
	comes_home(*state);
	is_whole(1000, 4, false);
	missing_ends();
}

static int moves_away(void *arg)
{
	fake_remap(10, 30, 4, false);
	return 0;
}

/* Moved while it was looked at to become plain. */
static void what_moves_on_becomes_plain(void **state)
{
	missing_begins(*state, NULL);
	hmm_migrate_to_host(*state, fake_addr(0), 40 * PAGE);
	fake_settle();
	fake.clock += 60000000;
	fake_settle();
	fake.clock += 250000000;
	fake_at(FAKE_OP_FIND, FAKE_BEFORE, -1, 1, moves_away, NULL);
	fake_settle();
	assert_true(fake.page[30].mapped && !fake.page[10].mapped);
	comes_home(*state);
	is_whole(30, 4, false);
	missing_ends();
}

/* However much is moved in a short time: what the list is sure of has its place. */
static void what_moves_often_leaves_room(void **state)
{
	const struct pager *pager;
	unsigned at = 10;

	missing_begins(*state, NULL);
	pager = ((struct hmm *)*state)->pager;
	for (unsigned i = 0; i < 20; i++) {
		fake_remap(i % 2 ? 30 : 10, i % 2 ? 10 : 30, 4, false);
		fake_settle();
		assert_true(pager->missing_n <= 2);
	}
	for (unsigned i = 0; i < 300; i++, at += 10) {
		fake_remap(at, at + 10, 4, false);
		fake_settle();
	}
	for (unsigned i = 0; i < 3; i++) {
		fake_map(4000 + 10 * i, 4, FAKE_ANON, RW);
		fill(4000 + 10 * i, 4);
		goes_away(4000 + 10 * i, 4);
	}
	fake_unmap(4010, 1);
	fake_settle();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_read_page(at + i), 110 + i);
	hmm_migrate_to_host(*state, fake_addr(0), 8000 * PAGE);
	comes_home(*state);
	is_whole(4011, 3, false);
	missing_ends();
}

/* What has been moved when something of it was away goes back to plain when all is home. */
static void what_was_moved_becomes_plain(void **state)
{
	missing_begins(*state, NULL);
	fake_remap(10, 30, 4, false);
	fake_settle();
	assert_true(fake.page[30].missing);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_read_page(30 + i), 110 + i);
	comes_home(*state);
	is_whole(30, 4, false);
	missing_ends();
}

/* And what a munmap told of that failed (mseal). */
static void what_stayed_becomes_plain(void **state)
{
	missing_begins(*state, NULL);
	fake_unmap_fails(10, 4);
	fake_settle();
	for (unsigned i = 10; i < 14; i++)
		assert_int_equal(fake_read_page(i), 100 + i);
	comes_home(*state);
	is_whole(10, 4, false);
	missing_ends();
}

static int another_moves_over_it(void *arg)
{
	fake_remap(40, 1000, 4, false);
	return 0;
}

/* Another context's: the kernel refuses, or, before Linux 6.15, nothing is unregistered while it has anything
 * away. */
static void what_another_moves_onto_plain_keeps_its_pages(void **state)
{
	bool old = fake.unregisters_all;

	vram_open(&vram, *state, NULL);
	fake_map(1000, 4, FAKE_ANON, RW);
	fake_map(40, 4, FAKE_ANON, RW);
	fill(1000, 4);
	fill(40, 4);
	goes_away(1000, 4);
	goes_away(40, 4);
	assert_int_not_equal(fake_ctx_of(40), fake_ctx_of(1000));
	hmm_migrate_to_host(*state, fake_addr(1000), 4 * PAGE);
	fake_at(FAKE_OP_UNREGISTER, FAKE_BEFORE, -1, 1, another_moves_over_it, NULL);
	a_while_passes();
	assert_int_equal(fake.calls[FAKE_OP_UNREGISTER], !old);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_read_page((old ? 40 : 1000) + i), 140 + i);
	comes_home(*state);
	is_whole(1000, 4, false);
	missing_ends();
}

static int setup_old_kernel(void **state)
{
	fake_reset();
	fake.unregisters_all = true;
	*state = fake_open();
	return 0;
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(grown_while_it_becomes_plain),
		TEST(what_comes_after_it_is_new),
		TEST(what_is_left_of_it_keeps_its_pages),
		TEST(what_has_gone_away_is_not_in_doubt),
		TEST(what_is_critical_is_registered_as_it_was),
		TEST(what_cannot_be_given_up_is_given_up_later),
		TEST(what_cannot_be_given_up_where_something_was),
		TEST(what_moves_on_becomes_plain),
		TEST(what_moves_often_leaves_room),
		TEST(what_was_moved_becomes_plain),
		TEST(what_stayed_becomes_plain),
		TEST(what_moves_onto_plain_keeps_its_pages),
		TEST(what_moves_onto_what_is_given_up_keeps_its_pages),
		TEST(what_another_moves_onto_plain_keeps_its_pages),
		cmocka_unit_test_setup_teardown(what_another_moves_onto_plain_keeps_its_pages,
						setup_old_kernel, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
