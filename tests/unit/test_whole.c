/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_whole - a mapping is registered whole, in one mode, or not at all, whatever it becomes
 * between the look at it and the call that registers it (or gives it up).
 *
 * The program's mremap of the whole fails (EFAULT) when its pages differ here.
 */
#include "whole.h"

#include "util/arena.h"

static struct device device;

static void begin(struct hmm *hmm)
{
	device_open(&device, hmm, 0, 0);
}

static void end(void)
{
	fake_forget();
	device_close(&device);
}

/* ---- what the program does in between ---- */

static bool in_time; /* nothing had been registered yet */

static int maps_longer(void *arg)
{
	in_time = !fake.calls[FAKE_OP_REGISTER];
	fake_map(10, 8, *(enum fake_object_name *)arg, RW);
	return 0;
}

static int maps_lower(void *arg)
{
	in_time = !fake.calls[FAKE_OP_REGISTER];
	fake_unmap(10, 4);
	fake_map(6, 8, *(enum fake_object_name *)arg, RW);
	return 0;
}

/* A new neighbour, which the kernel merges it with. */
static int maps_beside(void *arg)
{
	in_time = !fake.calls[FAKE_OP_REGISTER];
	fake_map_at(14, 4, *(enum fake_object_name *)arg, RW, 4);
	return 0;
}

static int protects_back(void *arg)
{
	fake_protect(10, 8, RW);
	return 0;
}

static const enum fake_object_name kinds[] = { FAKE_ANON, FAKE_SHMEM, FAKE_SHARED_FILE,
					       FAKE_PRIVATE_FILE };
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/*
 * The nth call of `op` finds the change done. Free address space around a mapping is registered along:
 * one call registers what it has become.
 */
static void changes_at(struct hmm *hmm, enum fake_op op, unsigned nth, fake_action action,
		       unsigned from, unsigned n)
{
	for (unsigned k = 0; k < KINDS; k++) {
		enum fake_object_name kind = kinds[k];

		begin(hmm);
		fake_map_at(10, 4, kind, RW, action == maps_lower ? 4 : 0);
		fake.calls[FAKE_OP_REGISTER] = 0;
		in_time = false;
		fake_at(op, FAKE_BEFORE, -1, nth, action, &kind);
		assert_int_equal(device_fault(&device, 11, 1, true), 0);
		if (in_time) {
			assert_int_equal(fake.calls[FAKE_OP_REGISTER], 1);
			is_whole(from, n, true);
		}
		fake_forget();
		assert_int_equal(device_fault(&device, 11, 1, true), 0);
		is_whole(fake.page[from].mapped ? from : 10, 4, true);
		fake_unmap(0, 30);
		fake_settle();
		end();
	}
}

static void changes_before(struct hmm *hmm, fake_action action, unsigned from, unsigned n)
{
	changes_at(hmm, FAKE_OP_REGISTER, 1, action, from, n);
	for (unsigned nth = 1; nth < 24; nth++) {
		changes_at(hmm, FAKE_OP_FIND, nth, action, from, n);
		changes_at(hmm, FAKE_OP_FIND_FAST, nth, action, from, n);
	}
}

static void a_longer_one_took_its_place(void **state)
{
	changes_before(*state, maps_longer, 10, 8);
}

static void a_lower_one_took_its_place(void **state)
{
	changes_before(*state, maps_lower, 6, 8);
}

static void merged_with_a_new_neighbour(void **state)
{
	changes_before(*state, maps_beside, 10, 8);
}

/* It took another mapping's place as well: cut by the call, and whole again at once. */
static void a_longer_one_took_two_places(void **state)
{
	enum fake_object_name kind = FAKE_ANON;

	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	fake_map(14, 4, FAKE_SHMEM, RW);
	fake_at(FAKE_OP_REGISTER, FAKE_BEFORE, -1, 1, maps_longer, &kind);
	assert_int_equal(device_fault(&device, 11, 1, true), 0);
	is_whole(10, 8, true);
	end();
}

/* mprotect has cut it in two; the pieces are one again when their permission is. */
static void pieces_of_two_permissions(void **state)
{
	begin(*state);
	fake_map(10, 8, FAKE_ANON, RW);
	fake_protect(10, 3, PROT_READ);
	assert_int_equal(device_fault(&device, 11, 1, false), 0);
	is_whole(10, 8, true);
	fake_protect(10, 8, RW);
	is_whole(10, 8, true);
	/* And the permission is given back while one of them is being registered. */
	fake_map(10, 8, FAKE_SHMEM, RW);
	fake_protect(13, 5, PROT_READ);
	fake_at(FAKE_OP_REGISTER, FAKE_BEFORE, -1, 1, protects_back, NULL);
	assert_int_equal(device_fault(&device, 11, 1, false), 0);
	is_whole(10, 8, true);
	end();
}

static int one_for_two(void *arg)
{
	fake_map(10, 8, FAKE_SHMEM, RW);
	fake_protect(13, 5, PROT_READ);
	return 0;
}

/* What was there before is in the map, with two contexts, when the pieces are looked at. */
static void pieces_upon_what_was_there_before(void **state)
{
	begin(*state);
	fake_map(10, 3, FAKE_SHMEM, RW);
	fake_map(13, 5, FAKE_SHARED_FILE, RW);
	assert_int_equal(device_fault(&device, 10, 3, true), 0);
	assert_int_equal(device_fault(&device, 13, 5, true), 0);
	assert_int_not_equal(fake_ctx_of(10), fake_ctx_of(13));
	fake_at(FAKE_OP_FIND_FAST, FAKE_BEFORE, -1, 1, one_for_two, NULL);
	assert_int_equal(device_fault(&device, 11, 1, true), 0);
	is_whole(10, 8, true);
	end();
}

/* The library's own mapping is never registered, whatever it lies beside. */
static void beside_the_librarys_own(void **state)
{
	begin(*state);
	fake_map(6, 4, FAKE_ANON, PROT_READ);
	fake_map(10, 4, FAKE_ANON, RW);
	fake_map(14, 1, FAKE_ANON, PROT_NONE);
	fake_map(15, 4, FAKE_ANON, RW);
	assert_int_equal(arena_adopt(fake_addr(14), fake_addr(19)), 0);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	is_whole(6, 8, true);
	is_whole(14, 5, false);
	arena_disown(fake_addr(14), fake_addr(19));
	end();
}

static unsigned finds;

static int counts_finds(void *arg)
{
	finds = fake.calls[FAKE_OP_FIND_FAST];
	return 0;
}

static int becomes_the_librarys(void *arg)
{
	fake_map(14, 1, FAKE_ANON, PROT_NONE); /* its edge */
	fake_map(15, 3, FAKE_ANON, RW);
	return arena_adopt(fake_addr(14), fake_addr(18)); /* 0: the call goes on */
}

/* It comes into the room beside a mapping, after that was looked at. */
static void the_librarys_own_comes(void **state)
{
	unsigned before;

	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	before = fake.calls[FAKE_OP_FIND_FAST];
	fake_at(FAKE_OP_REGISTER, FAKE_BEFORE, -1, 1, counts_finds, NULL);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	fake_unmap(10, 4);
	fake_settle();
	fake_map(10, 4, FAKE_ANON, RW);
	fake_at(FAKE_OP_FIND_FAST, FAKE_AFTER, -1, finds - before, becomes_the_librarys, NULL);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	assert_true(arena_owns(fake_addr(14), fake_addr(18)));
	is_whole(10, 4, true);
	is_whole(14, 4, false);
	arena_disown(fake_addr(14), fake_addr(18));
	end();
}

/* ---- asked one after the other, contexts say no although one of them has it ---- */

static unsigned moves;

static int is_elsewhere(void *arg)
{
	unsigned asked = (unsigned)(uintptr_t)arg;

	if (moves++ < 2 * CONTEXTS)
		for (unsigned i = 10; i < 14; i++)
			fake.page[i].ctx = (int16_t)((asked + 1) % CONTEXTS);
	return 0;
}

static void moved_here_while_it_was_asked(void **state)
{
	int64_t n;

	moves = 0;
	vram_open(&vram, *state, NULL);
	fake_map(10, 4, FAKE_ANON, RW);
	for (unsigned i = 0; i < CONTEXTS; i++)
		fake_at(FAKE_OP_REGISTER, FAKE_BEFORE, (int)i, 0, is_elsewhere,
			(void *)(uintptr_t)i);
	n = hmm_migrate_to_device(vram.devmem, fake_addr(10), 4 * PAGE);
	assert_true(n == 4 || n == -EBUSY); /* not that it cannot be mirrored */
	assert_true(moves > 2 * CONTEXTS);
	fake_forget();
	vram_close(&vram);
}

/* ---- given up ---- */

static void given_up_whole(void **state)
{
	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	grows(NULL);
	end();
	is_whole(10, 8, false);
}

static void grown_while_it_is_given_up(void **state)
{
	begin(*state);
	fake_map(10, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 10, 4, true), 0);
	fake_at(FAKE_OP_UNREGISTER, FAKE_BEFORE, -1, 1, grows, NULL);
	device_close(&device);
	is_whole(10, 8, false);
	fake_forget();
}

/* Of a mapping that mprotect has cut in two one piece is watched: all of it stays. */
static void one_piece_is_watched(void **state)
{
	struct device other;

	begin(*state);
	device_open(&other, *state, 15, 1);
	fake_map(10, 8, FAKE_ANON, RW);
	fake_protect(10, 3, PROT_READ);
	assert_int_equal(device_fault(&device, 11, 1, false), 0);
	end();
	is_whole(10, 8, true);
	device_close(&other);
	is_whole(10, 8, false);
}

/* ---- registered for missing pages, and back ---- */

static void grown_while_it_goes_away(void **state)
{
	missing_begins(*state, grows);
	assert_int_equal(fake.calls[FAKE_OP_REGISTER_MISSING], 2); /* cut, and made whole at once */
	is_whole(10, 8, true);
	comes_home(*state);
	assert_false(fake.page[10].missing);
	is_whole(10, 8, false);
	missing_ends();
}

static void grown_while_it_is_away(void **state)
{
	missing_begins(*state, NULL);
	grows(NULL);
	fill(14, 4);
	goes_away(14, 4);
	is_whole(10, 8, true);
	comes_home(*state);
	is_whole(10, 8, false);
	missing_ends();
}

static int are_alike(void *arg)
{
	for (unsigned i = 10; i < 18; i++) {
		assert_int_equal(fake_ctx_of(i), fake_ctx_of(10));
		assert_int_equal(fake.page[i].missing, fake.page[10].missing);
	}
	return 0;
}

/* A piece that is for reading only has nothing away, and is of the mapping all the same. */
static void pieces_go_away_together(void **state)
{
	vram_open(&vram, *state, NULL);
	fake_map(10, 8, FAKE_ANON, RW);
	fill(10, 8);
	fake_protect(10, 3, PROT_READ);
	goes_away(13, 5);
	is_whole(10, 8, true);
	a_while_passes(); /* the piece that is at home stays with the one that is not */
	is_whole(10, 8, true);
	for (unsigned i = 10; i < 18; i++)
		assert_int_equal(fake_read_page(i), 100 + i);
	fake_at(FAKE_OP_UNREGISTER, FAKE_BEFORE, -1, 0, are_alike, NULL);
	comes_home(*state);
	is_whole(10, 8, false);
	missing_ends();
}

/* What is left of it goes back to plain as well. */
static void one_piece_is_left(void **state)
{
	vram_open(&vram, *state, NULL);
	fake_map(10, 8, FAKE_ANON, RW);
	fill(10, 8);
	fake_protect(10, 3, PROT_READ);
	goes_away(13, 5);
	assert_true(fake.page[10].missing);
	fake_unmap(13, 5);
	comes_home(*state);
	assert_false(fake.page[10].missing);
	missing_ends();
}

static int moves_into_the_room(void *arg)
{
	fake_remap(*(unsigned *)arg, 1016, 4, false);
	return 0;
}

/*
 * A mapping with pages away is moved into the room beside one that is registered just then: it has not
 * come after something that was there (G5).
 */
static void what_moves_into_the_room_keeps_its_pages(void **state)
{
	unsigned from = away_beside_1000(*state);

	fake_at(FAKE_OP_REGISTER_MISSING, FAKE_BEFORE, -1, 1, moves_into_the_room, &from);
	hmm_migrate_to_device(vram.devmem, fake_addr(1000), 4 * PAGE);
	fake_settle();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_read_page(1016 + i), 100 + from + i);
	for (unsigned i = 1000; i < 1004; i++)
		assert_int_equal(fake_read_page(i), 100 + i);
	missing_ends();
}

/* Moved onto the very mapping that is registered: the same, and it was MISSING before. */
static void what_moves_over_it_keeps_its_pages(void **state)
{
	unsigned from = away_beside_1000(*state);

	fake_at(FAKE_OP_REGISTER_MISSING, FAKE_BEFORE, -1, 1, moves_over_it, &from);
	hmm_migrate_to_device(vram.devmem, fake_addr(1000), 4 * PAGE);
	fake_settle();
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(fake_read_page(1000 + i), 100 + from + i);
	missing_ends();
}

static int comes_into_the_room(void *arg)
{
	fake_map(14, 4, FAKE_ANON, RW);
	fill(14, 4);
	return 0;
}

/*
 * What comes there when the room has been registered is not (as a heap that grows): when it goes away it is
 * registered itself, or the CPU would find holes that nobody waits at (G5).
 */
static void what_comes_after_is_not_known(void **state)
{
	vram_open(&vram, *state, NULL);
	fake_map(10, 4, FAKE_ANON, RW);
	fill(10, 4);
	fake_at(FAKE_OP_REGISTER_MISSING, FAKE_AFTER, -1, 1, comes_into_the_room, NULL);
	goes_away(10, 4);
	assert_int_equal(vram_look(&vram, 14, 4), 0);
	goes_away(14, 4);
	for (unsigned i = 10; i < 18; i++)
		assert_int_equal(fake_read_page(i), 100 + i);
	missing_ends();
}

static int another_moves_into_the_room(void *arg)
{
	fake_remap(40, 1016, 4, false);
	return 0;
}

/* It is another context's: the map does not say otherwise, or a fence would ask the wrong one (G1). */
static void what_moves_into_the_room_is_not_ours(void **state)
{
	struct mirrored m;

	begin(*state);
	fake_map(40, 4, FAKE_ANON, RW);
	assert_int_equal(device_fault(&device, 40, 4, true), 0);
	fake_map(1000, 4, FAKE_ANON, RW); /* above all else: there is room */
	fake_at(FAKE_OP_REGISTER, FAKE_AFTER, -1, 1, another_moves_into_the_room, NULL);
	assert_int_equal(device_fault(&device, 1000, 4, true), 0);
	assert_int_not_equal(fake_ctx_of(1016), fake_ctx_of(1000));
	if (vmas_next(*state, fake_addr(1016), fake_addr(1020), &m))
		assert_int_equal(m.ctx, fake_ctx_of(1016));
	fake_forget();
	end();
}

/* One that is under way counts as well; what is too long ago is not known. */
static void what_was_registered_lately(void **state)
{
	struct hmm *hmm = *state;
	uint64_t before = registering_now(hmm), during;

	assert_false(registering_since(hmm, before, 0, UINTPTR_MAX));
	registering_begin(hmm, 10 * PAGE, 12 * PAGE);
	during = registering_now(hmm);
	assert_true(registering_since(hmm, before, 11 * PAGE, 20 * PAGE));
	assert_true(registering_since(hmm, during, 0, 11 * PAGE));
	assert_false(registering_since(hmm, during, 12 * PAGE, 20 * PAGE));
	assert_false(registering_since(hmm, during, 0, 10 * PAGE));
	registering_end(hmm);
	assert_true(registering_since(hmm, during, 0, 11 * PAGE));
	assert_false(registering_since(hmm, registering_now(hmm), 0, UINTPTR_MAX));
	for (unsigned i = 0; i < REGISTERINGS; i++) {
		registering_begin(hmm, 20 * PAGE, 21 * PAGE);
		registering_end(hmm);
	}
	assert_true(registering_since(hmm, before, 0, PAGE));
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
#define BOTH(test) TEST(test), cmocka_unit_test_setup_teardown(test, fake_setup_no_perf, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(a_longer_one_took_its_place),
		BOTH(a_lower_one_took_its_place),
		BOTH(merged_with_a_new_neighbour),
		BOTH(a_longer_one_took_two_places),
		BOTH(pieces_of_two_permissions),
		BOTH(pieces_upon_what_was_there_before),
		TEST(beside_the_librarys_own),
		TEST(the_librarys_own_comes),
		BOTH(moved_here_while_it_was_asked),
		BOTH(given_up_whole),
		TEST(grown_while_it_is_given_up),
		TEST(one_piece_is_watched),
		TEST(grown_while_it_goes_away),
		TEST(grown_while_it_is_away),
		TEST(pieces_go_away_together),
		TEST(one_piece_is_left),
		TEST(what_moves_into_the_room_keeps_its_pages),
		TEST(what_moves_over_it_keeps_its_pages),
		TEST(what_comes_after_is_not_known),
		TEST(what_was_registered_lately),
		TEST(what_moves_into_the_room_is_not_ours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
