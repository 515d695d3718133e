/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_rangemap - the interval B-tree against the naive model, at its edges, at
 * 100,000 entries, and with memory that runs out at each place it can.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "rangemap_model.h"
#include "util/arena.h"

#define SEED UINT64_C(0x9e3779b97f4a7c15)
#define OVERLAPPING_OPERATIONS 240000
#define ERASING_OPERATIONS 60000
#define MANY 100000
#define NODE_BLOCK 1024 /* the arena block of a rangemap node */

static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static uint64_t random_below(uint64_t limit)
{
	return random_next() % limit;
}

static int setup(void **state)
{
	static struct rangemap map;
	struct arena *arena = arena_create();

	if (!arena)
		return -1;
	random_state = SEED;
	rangemap_init(&map, arena);
	*state = &map;
	return 0;
}

static int teardown(void **state)
{
	struct rangemap *map = *state;

	rangemap_destroy(map);
	arena_destroy(map->arena);
	return 0;
}

static int put(struct rangemap *map, uintptr_t start, uintptr_t end, uint64_t id)
{
	struct range_entry entry = { start, end, id, start ^ id };

	return rangemap_insert(map, &entry);
}

static void an_empty_map_has_nothing(void **state)
{
	struct rangemap *map = *state;
	struct range_entry entry, prev = { 0, 1, 0, 0 };

	assert_true(rangemap_check(map));
	assert_false(rangemap_first(map, 0, UINTPTR_MAX, &entry));
	assert_false(rangemap_next(map, 0, UINTPTR_MAX, &prev, &entry));
	assert_false(rangemap_before(map, UINTPTR_MAX, &entry));
	assert_int_equal(rangemap_remove(map, 0, 0), -ENOENT);
	assert_int_equal(rangemap_erase(map, 0, UINTPTR_MAX), 0);
}

static void errors_change_nothing(void **state)
{
	struct rangemap *map = *state;
	struct range_entry entry;

	assert_int_equal(put(map, 5, 5, 0), -EINVAL);
	assert_int_equal(put(map, 6, 5, 0), -EINVAL);
	assert_true(rangemap_check(map));
	assert_int_equal(put(map, 10, 20, 7), 0);
	assert_int_equal(put(map, 10, 30, 7), -EEXIST);
	assert_int_equal(put(map, 10, 30, 8), 0);
	assert_int_equal(rangemap_remove(map, 10, 9), -ENOENT);
	assert_int_equal(rangemap_remove(map, 11, 7), -ENOENT);
	assert_int_equal(map->count, 2);
	assert_true(rangemap_first(map, 25, 26, &entry));
	assert_int_equal(entry.id, 8);
	entry.id = 99;
	assert_false(rangemap_first(map, 30, 31, &entry)); /* ends are exclusive */
	assert_false(rangemap_first(map, 0, 10, &entry));
	assert_false(rangemap_first(map, 15, 15, &entry)); /* nothing is in nothing */
	assert_int_equal(entry.id, 99);
	map->count++;
	assert_false(rangemap_check(map)); /* it does look */
	map->count--;
}

static void the_edges_of_the_address_space(void **state)
{
	struct rangemap *map = *state;
	struct range_entry entry;

	assert_int_equal(put(map, 0, UINTPTR_MAX, 1), 0);
	assert_int_equal(put(map, 0, 1, UINT64_MAX), 0);
	assert_int_equal(put(map, UINTPTR_MAX - 1, UINTPTR_MAX, 3), 0);
	assert_true(rangemap_first(map, 0, 1, &entry));
	assert_int_equal(entry.id, 1);
	assert_true(rangemap_next(map, 0, 1, &entry, &entry));
	assert_true(entry.id == UINT64_MAX);
	assert_false(rangemap_next(map, 0, 1, &entry, &entry));
	assert_true(rangemap_before(map, UINTPTR_MAX, &entry));
	assert_int_equal(entry.id, 3);
	assert_true(rangemap_before(map, 1, &entry));
	assert_true(entry.id == UINT64_MAX);
	assert_false(rangemap_before(map, 0, &entry));
}

/* A few wide entries over many narrow ones: the order is by start, not by reach. */
static void wide_entries_over_narrow_ones(void **state)
{
	struct rangemap *map = *state;
	struct range_entry entry;
	unsigned i, seen = 0;

	for (i = 0; i < 2000; i++)
		assert_int_equal(put(map, i * 10, i * 10 + 5, i), 0);
	for (i = 0; i < 8; i++)
		assert_int_equal(put(map, i * 1000, 100000, 5000 + i), 0);
	assert_true(rangemap_check(map));
	/* between two narrow ones, above them all */
	assert_true(rangemap_first(map, 19997, 19998, &entry));
	do
		assert_int_equal(entry.id, 5000 + seen++);
	while (rangemap_next(map, 19997, 19998, &entry, &entry));
	assert_int_equal(seen, 8);
	/* what has been taken out may still be walked from */
	assert_true(rangemap_first(map, 50000, 50001, &entry));
	assert_int_equal(rangemap_remove(map, entry.start, entry.id), 0);
	assert_true(rangemap_next(map, 50000, 50001, &entry, &entry));
	assert_int_equal(entry.id, 5001);
}

static void erase_cuts_what_reaches_in(void **state)
{
	struct rangemap *map = *state;
	struct range_entry entry;

	assert_int_equal(put(map, 10, 20, 0), 0);
	assert_int_equal(put(map, 20, 30, 0), 0);
	assert_int_equal(put(map, 30, 60, 0), 0);
	assert_int_equal(rangemap_erase(map, 15, 35), 0);
	assert_int_equal(map->count, 2);
	assert_true(rangemap_first(map, 0, 100, &entry));
	assert_true(entry.start == 10 && entry.end == 15 && entry.value == 10);
	assert_true(rangemap_next(map, 0, 100, &entry, &entry));
	assert_true(entry.start == 35 && entry.end == 60 && entry.value == 30);
	assert_int_equal(rangemap_erase(map, 40, 50), 0); /* splits */
	assert_true(rangemap_first(map, 50, 51, &entry));
	assert_true(entry.start == 50 && entry.end == 60 && entry.value == 30);
	assert_true(rangemap_before(map, 50, &entry));
	assert_true(entry.start == 35 && entry.end == 40);
	assert_int_equal(rangemap_erase(map, 50, 50), 0);
	assert_int_equal(rangemap_erase(map, 60, 10), 0);
	assert_int_equal(map->count, 3);
	assert_int_equal(rangemap_erase(map, 0, UINTPTR_MAX), 0);
	assert_int_equal(map->count, 0);
	assert_true(rangemap_check(map));
}

/* Ask both the same question. */
static void compare_queries(const struct rangemap *map, const struct rangemap_model *model,
			    uintptr_t start, uintptr_t end)
{
	struct range_entry a = { 0, 0, 0, 0 }, b = { 0, 0, 0, 0 };
	bool more = rangemap_first(map, start, end, &a);
	struct range_entry probe = { random_below(60000), 0, random_below(8), 0 };

	assert_int_equal(more, model_first(model, start, end, &b));
	assert_true(entry_equals(&a, &b));
	if (more) {
		assert_int_equal(rangemap_next(map, start, end, &a, &a),
				 model_next(model, start, end, &b, &b));
		assert_true(entry_equals(&a, &b));
	}
	assert_int_equal(rangemap_next(map, start, end, &probe, &a),
			 model_next(model, start, end, &probe, &b));
	assert_true(entry_equals(&a, &b));
	assert_int_equal(rangemap_before(map, start, &a), model_before(model, start, &b));
	assert_true(entry_equals(&a, &b));
}

/* One random insertion or removal on both; `grow`, in 8, is how likely an insertion is. */
static void mutate(struct rangemap *map, struct rangemap_model *model, unsigned grow)
{
	struct range_entry entry;
	size_t at;

	if (random_below(8) < grow) {
		entry.start = random_below(60000);
		/* mostly short, some over everything, some empty */
		entry.end = entry.start + random_below(random_below(8) ? 64 : 70000);
		entry.id = random_below(8);
		entry.value = random_next();
		assert_int_equal(rangemap_insert(map, &entry), model_insert(model, &entry));
		return;
	}
	entry.start = random_below(60000);
	entry.id = random_below(8);
	if (model->count && random_below(16)) {
		at = random_below(model->count);
		entry = model->entries[at];
	}
	assert_int_equal(rangemap_remove(map, entry.start, entry.id),
			 model_remove(model, entry.start, entry.id));
}

static void random_overlapping_entries(void **state)
{
	struct rangemap *map = *state;
	struct rangemap_model model;
	unsigned i, grow = 6;
	uintptr_t start;

	print_message("seed %#llx, %u operations\n", (unsigned long long)SEED,
		      OVERLAPPING_OPERATIONS);
	model_init(&model);
	for (i = 0; i < OVERLAPPING_OPERATIONS; i++) {
		/* several times up to about 1,500 entries and down to none */
		if (model.count > 1500)
			grow = 2;
		else if (model.count < 4)
			grow = 6;
		if (random_below(2)) {
			mutate(map, &model, grow);
			continue;
		}
		start = random_below(62000);
		compare_queries(map, &model, start, start + random_below(200));
		if (i % 512 < 2) {
			assert_true(rangemap_check(map));
			assert_true(model_equals(&model, map));
		}
	}
	model_destroy(&model);
}

static void random_erasing(void **state)
{
	struct rangemap *map = *state;
	struct rangemap_model model;
	struct range_entry entry;
	uintptr_t start, end;
	unsigned i;

	model_init(&model);
	for (i = 0; i < ERASING_OPERATIONS; i++) {
		start = random_below(60000);
		end = start + random_below(random_below(64) ? 40 : 4000);
		assert_int_equal(rangemap_erase(map, start, end), 0);
		model_erase(&model, start, end);
		entry = (struct range_entry){ start, end, 0, random_next() };
		if (random_below(4))
			assert_int_equal(rangemap_insert(map, &entry),
					 model_insert(&model, &entry));
		compare_queries(map, &model, start, end);
		if (i % 256 == 0) {
			assert_true(rangemap_check(map));
			assert_true(model_equals(&model, map));
		}
	}
	model_destroy(&model);
}

/* Entry i is [16 i, 16 i + 24), so that each point has one or two. */
static void a_hundred_thousand_entries(void **state)
{
	struct rangemap *map = *state;
	uint32_t *order = malloc(MANY * sizeof(*order)), i, other, swap, seen;
	struct range_entry entry;

	assert_non_null(order);
	for (i = 0; i < MANY; i++)
		order[i] = i;
	for (i = MANY - 1; i; i--) {
		other = (uint32_t)random_below(i + 1);
		swap = order[i];
		order[i] = order[other];
		order[other] = swap;
	}
	for (i = 0; i < MANY; i++)
		assert_int_equal(put(map, order[i] * 16ul, order[i] * 16ul + 24, order[i]),
				 0);
	assert_int_equal(map->count, MANY);
	assert_true(rangemap_check(map));
	for (i = 1; i < MANY; i++) {
		seen = 0;
		assert_true(rangemap_first(map, i * 16ul, i * 16ul + 1, &entry));
		assert_int_equal(entry.id, i - 1);
		while (rangemap_next(map, i * 16ul, i * 16ul + 1, &entry, &entry))
			seen++;
		assert_int_equal(seen, 1);
	}
	for (i = 0; i < MANY; i++) {
		assert_int_equal(rangemap_remove(map, order[i] * 16ul, order[i]), 0);
		if (i % 20000 == 0)
			assert_true(rangemap_check(map));
	}
	assert_null(map->root);
	free(order);
}

static void memory_limit(rlim_t soft)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
}

/* The calls under test run with a limit that allows no new chunk; all else may allocate. */
static int insert_limited(struct rangemap *map, const struct range_entry *entry)
{
	int err;

	memory_limit(4096);
	err = rangemap_insert(map, entry);
	memory_limit(RLIM_INFINITY);
	return err;
}

static int erase_limited(struct rangemap *map, uintptr_t start, uintptr_t end)
{
	int err;

	memory_limit(4096);
	err = rangemap_erase(map, start, end);
	memory_limit(RLIM_INFINITY);
	return err;
}

/* All nodes that an arena has left. */
struct stash {
	struct arena *arena;
	struct node {
		struct node *next;
	} *nodes;
};

static void stash_fill(struct stash *stash, struct arena *arena, unsigned at_least)
{
	struct node *node;
	unsigned i;

	*stash = (struct stash){ arena, NULL };
	for (i = 0;; i++) {
		if (i == at_least)
			memory_limit(4096);
		node = arena_alloc(arena, NODE_BLOCK);
		if (!node)
			break;
		node->next = stash->nodes;
		stash->nodes = node;
	}
	memory_limit(RLIM_INFINITY);
	assert_true(i >= at_least);
}

static void stash_give_one(struct stash *stash)
{
	struct node *node = stash->nodes;

	assert_non_null(node);
	stash->nodes = node->next;
	arena_free(stash->arena, node, NODE_BLOCK);
}

/*
 * An insertion that needs n nodes is tried with 0, 1, .. n free ones: the map is as it
 * was after each failure, and the nodes that a failed try took are free again, or n
 * would not be enough.
 */
static void insertion_without_memory(void **state)
{
	struct rangemap *map = *state;
	struct rangemap_model model;
	struct range_entry entry;
	unsigned failed = 0, most = 0, here, i;
	struct stash stash;
	int err;

	model_init(&model);
	stash_fill(&stash, map->arena, 1000);
	for (i = 0; i < 9000; i++) {
		entry = (struct range_entry){ i * 2, i * 2 + 3, i, i };
		for (here = 0; (err = insert_limited(map, &entry)) == -ENOMEM; here++) {
			assert_true(rangemap_check(map));
			if (here || i % 64 == 0)
				assert_true(model_equals(&model, map));
			stash_give_one(&stash);
		}
		assert_int_equal(err, 0);
		assert_int_equal(model_insert(&model, &entry), 0);
		failed += here;
		most = here > most ? here : most;
	}
	assert_true(model_equals(&model, map));
	print_message("%u tries without memory, up to %u nodes for one entry\n", failed,
		      most);
	assert_in_range(most, 4, 8);
	model_destroy(&model);
}

static void erasing_without_memory(void **state)
{
	struct rangemap *map = *state;
	struct rangemap_model model;
	struct range_entry entry;
	struct stash stash;
	unsigned i;
	int err = 0;

	model_init(&model);
	for (i = 0; i < 600; i++) {
		entry = (struct range_entry){ i * 10, i * 10 + 10, 0, i };
		assert_int_equal(rangemap_insert(map, &entry), 0);
		assert_int_equal(model_insert(&model, &entry), 0);
	}
	stash_fill(&stash, map->arena, 0);
	/* splits fill the leaf, until one needs another */
	for (i = 0; i < 600 && !err; i++) {
		err = erase_limited(map, i * 10 + 4, i * 10 + 6);
		if (!err)
			model_erase(&model, i * 10 + 4, i * 10 + 6);
	}
	assert_int_equal(err, -ENOMEM);
	assert_true(rangemap_check(map));
	assert_true(model_equals(&model, map));
	/* what needs no node goes on: cutting, and taking out */
	assert_int_equal(erase_limited(map, i * 10 - 5, i * 10 + 3005), 0);
	model_erase(&model, i * 10 - 5, i * 10 + 3005);
	assert_true(rangemap_check(map));
	assert_true(model_equals(&model, map));
	model_destroy(&model);
}

static void the_first_node_without_memory(void **state)
{
	struct range_entry entry = { 1, 2, 3, 4 };
	struct rangemap *map = *state;
	struct stash stash;

	stash_fill(&stash, map->arena, 0);
	assert_int_equal(insert_limited(map, &entry), -ENOMEM);
	assert_true(rangemap_check(map));
	assert_int_equal(put(map, 1, 2, 3), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(an_empty_map_has_nothing),
		TEST(errors_change_nothing),
		TEST(the_edges_of_the_address_space),
		TEST(wide_entries_over_narrow_ones),
		TEST(erase_cuts_what_reaches_in),
		TEST(random_overlapping_entries),
		TEST(random_erasing),
		TEST(a_hundred_thousand_entries),
		TEST(insertion_without_memory),
		TEST(erasing_without_memory),
		TEST(the_first_node_without_memory),
	};

	return cmocka_run_group_tests_name("rangemap", tests, NULL, NULL);
}
