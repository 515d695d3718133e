/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_ptable - the radix page table: 4 KiB entries over 2 MiB ones, clearing, what
 * it costs in memory, and lookups beside the writer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <uhmm/ptable.h>

#include "util/arena.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define PAGE (4 * KIB)
#define HUGE (2 * MIB)
#define VA_END (UINT64_C(1) << UHMM_PTABLE_VA_BITS)
#define SEED UINT64_C(0x2545f4914f6cdd1d)

static uint64_t random_state = SEED;

static uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % limit;
}

static int setup(void **state)
{
	static struct uhmm_ptable table;

	*state = &table;
	return uhmm_ptable_init(&table);
}

static int teardown(void **state)
{
	uhmm_ptable_destroy(*state);
	return 0;
}

static void an_empty_table_has_nothing(void **state)
{
	struct uhmm_ptable *table = *state;

	assert_true(uhmm_ptable_lookup(table, 0) == 0);
	assert_true(uhmm_ptable_lookup(table, VA_END - 1) == 0);
	assert_true(uhmm_ptable_lookup(table, VA_END) == 0);
	assert_true(uhmm_ptable_lookup(table, UINTPTR_MAX) == 0);
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) == 0);
}

static void bad_arguments(void **state)
{
	struct uhmm_ptable *table = *state, zero = { NULL };

	assert_int_equal(uhmm_ptable_set(table, VA_END, 1), -ERANGE);
	assert_int_equal(uhmm_ptable_set_huge(table, UINTPTR_MAX, 1), -ERANGE);
	assert_int_equal(uhmm_ptable_set(table, 0, 0), -EINVAL);
	assert_int_equal(uhmm_ptable_set_huge(table, 0, 0), -EINVAL);
	assert_true(uhmm_ptable_clear(table, VA_END, UINTPTR_MAX) == 0);
	assert_true(uhmm_ptable_clear(table, PAGE, PAGE) == 0);
	assert_true(uhmm_ptable_clear(table, 2 * PAGE, PAGE) == 0);
	uhmm_ptable_destroy(&zero);
}

static void the_first_and_the_last_page(void **state)
{
	struct uhmm_ptable *table = *state;

	assert_int_equal(uhmm_ptable_set(table, 1, 11), 0);
	assert_int_equal(uhmm_ptable_set(table, VA_END - 1, UINT64_MAX), 0);
	assert_true(uhmm_ptable_lookup(table, PAGE - 1) == 11);
	assert_true(uhmm_ptable_lookup(table, PAGE) == 0);
	assert_true(uhmm_ptable_lookup(table, VA_END - PAGE) == UINT64_MAX);
	assert_true(uhmm_ptable_lookup(table, VA_END - PAGE - 1) == 0);
	assert_true(uhmm_ptable_clear(table, PAGE, VA_END - PAGE) == 0);
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) == 2);
	assert_true(uhmm_ptable_lookup(table, 0) == 0);
	assert_true(uhmm_ptable_lookup(table, VA_END - 1) == 0);
}

static void a_page_hides_the_block_around_it(void **state)
{
	struct uhmm_ptable *table = *state;
	uintptr_t block = 7 * GIB + 3 * HUGE, page = block + 5 * PAGE;

	assert_int_equal(uhmm_ptable_set_huge(table, block + HUGE - 1, 100), 0);
	assert_true(uhmm_ptable_lookup(table, block) == 100);
	assert_true(uhmm_ptable_lookup(table, block - 1) == 0);
	assert_true(uhmm_ptable_lookup(table, block + HUGE) == 0);
	assert_int_equal(uhmm_ptable_set(table, page, 5), 0);
	assert_int_equal(uhmm_ptable_set(table, page, 6), 0);
	assert_true(uhmm_ptable_lookup(table, page) == 6);
	assert_true(uhmm_ptable_lookup(table, page + PAGE) == 100);
	/* a new block entry takes the pages with it */
	assert_int_equal(uhmm_ptable_set_huge(table, block, 101), 0);
	assert_true(uhmm_ptable_lookup(table, page) == 101);
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) == 1);
	assert_true(uhmm_ptable_lookup(table, page) == 0);
}

static void clearing_part_of_a_block(void **state)
{
	struct uhmm_ptable *table = *state;
	uintptr_t block = GIB - HUGE; /* the last of its leaf */
	unsigned i;

	assert_int_equal(uhmm_ptable_set_huge(table, block, 100), 0);
	for (i = 0; i < 4; i++)
		assert_int_equal(uhmm_ptable_set(table, block + i * PAGE, 1 + i), 0);
	assert_int_equal(uhmm_ptable_set(table, GIB, 9), 0);
	/* [1.5, 2.5) pages: two page entries and the whole block */
	assert_true(uhmm_ptable_clear(table, block + PAGE + 2048,
				      block + 2 * PAGE + 2048) == 3);
	assert_true(uhmm_ptable_lookup(table, block) == 1);
	assert_true(uhmm_ptable_lookup(table, block + PAGE) == 0);
	assert_true(uhmm_ptable_lookup(table, block + 2 * PAGE) == 0);
	assert_true(uhmm_ptable_lookup(table, block + 3 * PAGE) == 4);
	assert_true(uhmm_ptable_lookup(table, block + 4 * PAGE) == 0);
	/* over the edge of the leaf */
	assert_true(uhmm_ptable_clear(table, GIB - 1, GIB + 1) == 1);
	assert_true(uhmm_ptable_lookup(table, GIB) == 0);
	assert_true(uhmm_ptable_clear(table, 0, GIB) == 2);
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) == 0);
}

/* The model: blocks at the ends of leaves, far apart; each its entry and its pages'. */
#define BLOCKS 8
#define BLOCK_PAGES (HUGE / PAGE)

static const uintptr_t block_at[BLOCKS] = {
	0, GIB - HUGE, GIB, 3 * GIB, 64 * GIB - HUGE, 64 * GIB, 4096 * GIB, VA_END - HUGE,
};

struct model {
	uint64_t huge[BLOCKS], page[BLOCKS][BLOCK_PAGES];
};

static uint64_t model_clear(struct model *model, uintptr_t start, uintptr_t end)
{
	uint64_t count = 0;
	unsigned b, p;

	for (b = 0; b < BLOCKS; b++) {
		uintptr_t at = block_at[b];

		if (start >= end || at >= end || at + HUGE <= start)
			continue;
		count += !!model->huge[b];
		model->huge[b] = 0;
		for (p = 0; p < BLOCK_PAGES; p++, at += PAGE) {
			if (at >= end || at + PAGE <= start)
				continue;
			count += !!model->page[b][p];
			model->page[b][p] = 0;
		}
	}
	return count;
}

static uintptr_t random_address(void)
{
	return block_at[random_below(BLOCKS)] + random_below(HUGE);
}

static void mutate(struct uhmm_ptable *table, struct model *model, uint64_t entry)
{
	uintptr_t start = random_address(), end;
	unsigned b = 0, kind = (unsigned)random_below(64);

	while (block_at[b] + HUGE <= start)
		b++;
	if (kind < 48) {
		assert_int_equal(uhmm_ptable_set(table, start, entry), 0);
		model->page[b][(start - block_at[b]) / PAGE] = entry;
	} else if (kind < 52) {
		assert_int_equal(uhmm_ptable_set_huge(table, start, entry), 0);
		model->huge[b] = entry;
		memset(model->page[b], 0, sizeof(model->page[b]));
	} else {
		end = kind == 63 ? random_address() : start + random_below(16 * PAGE);
		assert_true(uhmm_ptable_clear(table, start, end) ==
			    model_clear(model, start, end));
	}
}

static void random_operations(void **state)
{
	static struct model model;
	struct uhmm_ptable *table = *state;
	unsigned i, j, b, p;

	print_message("seed %#llx\n", (unsigned long long)SEED);
	for (i = 0; i < 200000; i++) {
		mutate(table, &model, i + 1);
		for (j = 0; j < 4; j++) {
			uintptr_t va = random_address();

			for (b = 0; block_at[b] + HUGE <= va;)
				b++;
			p = (unsigned)((va - block_at[b]) / PAGE);
			assert_true(uhmm_ptable_lookup(table, va) ==
				    (model.page[b][p] ? model.page[b][p] : model.huge[b]));
		}
	}
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) ==
		    model_clear(&model, 0, UINTPTR_MAX));
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) == 0);
}

/* Pages of the mapping that holds an address, that are in memory. */
static size_t resident(const void *memory, size_t size)
{
	size_t pages = size / PAGE, i, count = 0;
	unsigned char *in = malloc(pages);

	assert_non_null(in);
	assert_int_equal(mincore((void *)((uintptr_t)memory & ~(PAGE - 1)), size, in), 0);
	for (i = 0; i < pages; i++)
		count += in[i] & 1;
	free(in);
	return count;
}

static void a_sparse_table_costs_what_is_set(void **state)
{
	struct uhmm_ptable *table = *state;
	unsigned i;

	for (i = 0; i < 1000; i++)
		assert_int_equal(uhmm_ptable_set(table, i * 7 * GIB, i + 1), 0);
	/* the leaf of the last one: its page entry's page, no huge page */
	assert_true(resident(table->root[999 * 7], sizeof(struct uhmm_ptable_leaf)) <= 2);
	assert_true(uhmm_ptable_clear(table, GIB, 7 * GIB) == 0);
	assert_true(uhmm_ptable_clear(table, 7 * GIB, 8 * GIB) == 1);
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) == 999);
	assert_int_equal(uhmm_ptable_set(table, 7 * GIB, 3), 0);
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) == 1);
}

static void the_table_is_the_librarys_memory(void **state)
{
	struct uhmm_ptable table;
	uintptr_t root, leaf;

	assert_int_equal(uhmm_ptable_init(&table), 0);
	assert_int_equal(uhmm_ptable_set(&table, 5 * GIB, 1), 0);
	root = (uintptr_t)table.root;
	leaf = (uintptr_t)table.root[5];
	assert_true(arena_owns(root, root + 1));
	assert_true(arena_owns(leaf + sizeof(struct uhmm_ptable_leaf) - 1,
			       leaf + sizeof(struct uhmm_ptable_leaf)));
	uhmm_ptable_destroy(&table);
	assert_null(table.root);
	assert_false(arena_owns(root, root + 1));
	assert_false(arena_owns(leaf, leaf + 1));
}

static void memory_limit(rlim_t soft)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
}

static void without_memory(void **state)
{
	struct uhmm_ptable *table = *state, other;
	int init, set, set_huge, there;

	assert_int_equal(uhmm_ptable_set(table, 0, 1), 0);
	memory_limit(4096);
	init = uhmm_ptable_init(&other);
	set = uhmm_ptable_set(table, GIB, 1);
	set_huge = uhmm_ptable_set_huge(table, GIB, 1);
	there = uhmm_ptable_set(table, HUGE, 1);
	memory_limit(RLIM_INFINITY);
	assert_int_equal(init, -ENOMEM);
	assert_int_equal(set, -ENOMEM);
	assert_int_equal(set_huge, -ENOMEM);
	assert_int_equal(there, 0); /* its leaf is there */
	assert_true(uhmm_ptable_lookup(table, GIB) == 0);
	assert_true(uhmm_ptable_clear(table, 0, UINTPTR_MAX) == 2);
	assert_int_equal(uhmm_ptable_set(table, GIB, 1), 0);
}

/* ---- lookups beside the writer ---- */

/* An entry says what it is: where (page or block number), when, page or block. */
#define ENTRY_HUGE UINT64_C(1)
#define ENTRY(where, when, huge) ((uint64_t)(where) << 40 | (uint64_t)(when) << 1 | (huge))
#define ENTRY_WHEN(entry) ((entry) >> 1 & ((UINT64_C(1) << 39) - 1))
#define ROUNDS 4000

struct race {
	struct uhmm_ptable *table;
	uint64_t hidden; /* every block entry up to this time is hidden, or gone */
	bool stop;
	uint64_t lookups, wrong_place, shown, none;
};

static void *look(void *arg)
{
	struct race *race = arg;
	uintptr_t va = 512 * PAGE;
	uint64_t hidden, entry, where;

	while (!__atomic_load_n(&race->stop, __ATOMIC_ACQUIRE)) {
		hidden = __atomic_load_n(&race->hidden, __ATOMIC_ACQUIRE);
		entry = uhmm_ptable_lookup(race->table, va);
		where = entry & ENTRY_HUGE ? va / HUGE : va / PAGE;
		__atomic_store_n(&race->lookups, race->lookups + 1, __ATOMIC_RELEASE);
		race->none += !entry;
		if (entry && entry >> 40 != where)
			race->wrong_place++;
		if (entry & ENTRY_HUGE && ENTRY_WHEN(entry) <= hidden)
			race->shown++;
	}
	return NULL;
}

/* Every page of the block, the one looked at first: a wrong order then shows for long. */
static void hide_block(struct race *race, uintptr_t block, uint64_t when)
{
	uintptr_t va;

	for (va = block; va < block + HUGE; va += PAGE)
		assert_int_equal(
			uhmm_ptable_set(race->table, va, ENTRY(va / PAGE, when, 0)), 0);
	__atomic_store_n(&race->hidden, when, __ATOMIC_RELEASE);
}

static void race_start(struct race *race, pthread_t *thread)
{
	assert_int_equal(pthread_create(thread, NULL, look, race), 0);
	while (!__atomic_load_n(&race->lookups, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void race_stop(struct race *race, pthread_t thread)
{
	__atomic_store_n(&race->stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	print_message("%llu lookups\n", (unsigned long long)race->lookups);
	assert_true(race->wrong_place == 0);
	assert_true(race->shown == 0);
}

/* The order of the stores counts: what was hidden when it went is never seen. */
static void lookups_beside_clear(void **state)
{
	struct uhmm_ptable *table = *state;
	struct race race = { .table = table };
	uintptr_t va = 512 * PAGE;
	pthread_t thread;
	uint64_t when;

	race_start(&race, &thread);
	for (when = 1; when <= ROUNDS; when++) {
		assert_int_equal(
			uhmm_ptable_set_huge(table, va, ENTRY(va / HUGE, when, ENTRY_HUGE)),
			0);
		hide_block(&race, va, when);
		assert_true(uhmm_ptable_clear(table, va, va + HUGE) == BLOCK_PAGES + 1);
		/* leaves come into being beside the lookups too */
		assert_int_equal(uhmm_ptable_set(table, va + (when % 2000 + 1) * GIB, 1),
				 0);
	}
	race_stop(&race, thread);
}

/* A block entry that takes the place of page entries: there is one or the other. */
static void lookups_beside_set_huge(void **state)
{
	struct uhmm_ptable *table = *state;
	struct race race = { .table = table };
	uintptr_t va = 512 * PAGE;
	pthread_t thread;
	uint64_t when;

	assert_int_equal(uhmm_ptable_set(table, va, ENTRY(va / PAGE, 1, 0)), 0);
	race_start(&race, &thread);
	for (when = 1; when <= ROUNDS; when++) {
		assert_int_equal(
			uhmm_ptable_set_huge(table, va, ENTRY(va / HUGE, when, ENTRY_HUGE)),
			0);
		hide_block(&race, va, when);
	}
	race_stop(&race, thread);
	assert_true(race.none == 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(an_empty_table_has_nothing),
		TEST(bad_arguments),
		TEST(the_first_and_the_last_page),
		TEST(a_page_hides_the_block_around_it),
		TEST(clearing_part_of_a_block),
		TEST(random_operations),
		TEST(a_sparse_table_costs_what_is_set),
		cmocka_unit_test(the_table_is_the_librarys_memory),
		TEST(without_memory),
		TEST(lookups_beside_clear),
		TEST(lookups_beside_set_huge),
	};

	return cmocka_run_group_tests_name("ptable", tests, NULL, NULL);
}
