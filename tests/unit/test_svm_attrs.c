/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_svm_attrs - svm's attributes: the algebra by example, and the tree of ranges against a
 * naive model, an array with the attributes of each page.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "attrs.h"

#define PAGE ((uintptr_t)4096)
#define PAGES 48u
#define BASE (PAGE * 1000)
#define GPUS 3u
#define ROUNDS 200000u

void *__real_hmm_alloc(size_t size);
void *__wrap_hmm_alloc(size_t size);

static bool no_memory;

void *__wrap_hmm_alloc(size_t size)
{
	return no_memory ? NULL : __real_hmm_alloc(size);
}

static uint64_t seed = UINT64_C(0x853c49e6748fea9b);

static uint32_t random_below(uint32_t limit)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 20) % limit;
}

static uintptr_t at(unsigned page)
{
	return BASE + page * PAGE;
}

static int set(struct svm_tree *tree, unsigned from, unsigned to, uint32_t type,
	       uint32_t value)
{
	struct svm_change change = {.reset = false};
	const struct svm_attr attr = {type, value};

	assert_int_equal(svm_change_add(&change, tree->gpus, &attr), 0);
	return svm_tree_set(tree, at(from), at(to), &change);
}

static struct svm_attr get(const struct svm_tree *tree, unsigned from, unsigned to,
			   uint32_t type, uint32_t value)
{
	struct svm_common common = svm_tree_common(tree, at(from), at(to));
	struct svm_attr attr = {type, value};

	assert_int_equal(svm_common_get(&common, tree->gpus, &attr), 0);
	return attr;
}

static int setup(void **state)
{
	static struct svm_tree tree;

	no_memory = false;
	svm_tree_init(&tree, GPUS, true);
	*state = &tree;
	return 0;
}

static int teardown(void **state)
{
	svm_tree_destroy(*state);
	return 0;
}

static void a_page_without_attributes_has_the_defaults(void **state)
{
	struct svm_tree *tree = *state;

	assert_int_equal(get(tree, 0, 9, SVM_ATTR_PREFERRED, 0).value, SVM_UNDEFINED);
	assert_int_equal(get(tree, 0, 9, SVM_ATTR_PREFETCH, 0).value, SVM_UNDEFINED);
	assert_int_equal(get(tree, 0, 9, SVM_ATTR_NO_ACCESS, 2).type, SVM_ATTR_ACCESS);
	assert_int_equal(get(tree, 0, 9, SVM_ATTR_SET_FLAGS, 0).value, 0);
	assert_int_equal(get(tree, 0, 9, SVM_ATTR_CLR_FLAGS, 0).value, SVM_FLAGS_ALL);
	assert_int_equal(get(tree, 0, 9, SVM_ATTR_GRANULARITY, 0).value, SVM_GRANULARITY);
}

static void without_xnack_nobody_has_access(void **state)
{
	struct svm_tree *tree = *state;

	svm_tree_init(tree, GPUS, false);
	assert_int_equal(get(tree, 0, 9, SVM_ATTR_ACCESS, 1).type, SVM_ATTR_NO_ACCESS);
}

static void a_range_answers_what_its_pages_have_in_common(void **state)
{
	struct svm_tree *tree = *state;

	set(tree, 2, 6, SVM_ATTR_PREFERRED, 1);
	set(tree, 4, 8, SVM_ATTR_SET_FLAGS, SVM_FLAG_GPU_RO | SVM_FLAG_READ_MOSTLY);
	set(tree, 5, 6, SVM_ATTR_GRANULARITY, 4);
	set(tree, 3, 4, SVM_ATTR_IN_PLACE, 2);
	assert_int_equal(get(tree, 2, 6, SVM_ATTR_PREFERRED, 0).value, 1);
	assert_int_equal(get(tree, 2, 7, SVM_ATTR_PREFERRED, 0).value, SVM_UNDEFINED);
	assert_int_equal(get(tree, 4, 8, SVM_ATTR_SET_FLAGS, 0).value,
			 SVM_FLAG_GPU_RO | SVM_FLAG_READ_MOSTLY);
	assert_int_equal(get(tree, 3, 8, SVM_ATTR_SET_FLAGS, 0).value, 0);
	assert_int_equal(get(tree, 3, 8, SVM_ATTR_CLR_FLAGS, 0).value,
			 SVM_FLAGS_ALL & ~(SVM_FLAG_GPU_RO | SVM_FLAG_READ_MOSTLY));
	assert_int_equal(get(tree, 0, 9, SVM_ATTR_GRANULARITY, 0).value, 4);
	assert_int_equal(get(tree, 3, 4, SVM_ATTR_ACCESS, 2).type, SVM_ATTR_IN_PLACE);
	assert_int_equal(get(tree, 2, 4, SVM_ATTR_ACCESS, 2).type, SVM_ATTR_NO_ACCESS);
	assert_int_equal(get(tree, 2, 4, SVM_ATTR_ACCESS, 1).type, SVM_ATTR_ACCESS);
}

static void the_last_word_on_a_gpu_counts(void **state)
{
	struct svm_tree *tree = *state;
	const struct svm_attr attrs[] = {{SVM_ATTR_NO_ACCESS, 1},
					 {SVM_ATTR_IN_PLACE, 1},
					 {SVM_ATTR_SET_FLAGS, SVM_FLAG_GPU_RO},
					 {SVM_ATTR_CLR_FLAGS, SVM_FLAG_GPU_RO}};
	struct svm_change change = {.reset = false};

	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(svm_change_add(&change, GPUS, &attrs[i]), 0);
	assert_int_equal(svm_tree_set(tree, at(0), at(1), &change), 0);
	assert_int_equal(get(tree, 0, 1, SVM_ATTR_ACCESS, 1).type, SVM_ATTR_IN_PLACE);
	assert_int_equal(get(tree, 0, 1, SVM_ATTR_SET_FLAGS, 0).value, 0);
}

static void bad_attributes_change_nothing(void **state)
{
	const struct svm_attr bad[] = {
		{9, 0},			      {UINT32_MAX, 0},
		{SVM_ATTR_ATOMIC, 4},	      {SVM_ATTR_ATOMIC, UINT32_MAX},
		{SVM_ATTR_PREFERRED, GPUS},   {SVM_ATTR_PREFETCH, UINT32_C(0xfffffffd)},
		{SVM_ATTR_ACCESS, GPUS},      {SVM_ATTR_IN_PLACE, SVM_SYSTEM},
		{SVM_ATTR_NO_ACCESS, 32},     {SVM_ATTR_SET_FLAGS, SVM_FLAGS_ALL + 1},
		{SVM_ATTR_CLR_FLAGS, 1u << 31}, {SVM_ATTR_GRANULARITY, 64}};
	const struct svm_change none = {.reset = false};
	struct svm_change change = none;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(svm_change_add(&change, GPUS, &bad[i]), -EINVAL);
	assert_memory_equal(&change, &none, sizeof(none));
}

static void ranges_split_and_merge(void **state)
{
	struct svm_tree *tree = *state;

	set(tree, 0, 10, SVM_ATTR_PREFERRED, 1);
	assert_int_equal(tree->nodes, 1);
	set(tree, 4, 6, SVM_ATTR_PREFERRED, 2);
	assert_int_equal(tree->nodes, 3);
	assert_int_equal(tree->splits, 2);
	set(tree, 4, 6, SVM_ATTR_PREFERRED, 1);
	assert_int_equal(tree->nodes, 1);
	assert_int_equal(svm_tree_clear(tree, at(3), at(4)), 1);
	assert_int_equal(tree->nodes, 2);
	set(tree, 0, 10, SVM_ATTR_PREFERRED, SVM_UNDEFINED);
	assert_int_equal(tree->nodes, 0);
}

static void the_ends_of_the_address_space(void **state)
{
	struct svm_tree *tree = *state;
	struct svm_change change = {.granularity_set = true, .granularity = 0};
	const uintptr_t top = UINTPTR_MAX & -PAGE;
	uintptr_t start = 0, end = UINTPTR_MAX;

	assert_int_equal(svm_tree_set(tree, 0, PAGE, &change), 0);
	assert_int_equal(svm_tree_set(tree, top - PAGE, top, &change), 0);
	assert_int_equal(svm_tree_at(tree, PAGE, &start, &end).granularity, SVM_GRANULARITY);
	assert_int_equal(start, PAGE);
	assert_int_equal(end, top - PAGE);
	assert_int_equal(svm_tree_clear(tree, 0, UINTPTR_MAX), 2);
	assert_int_equal(tree->nodes, 0);
}

static void without_memory_nothing_changes_and_unmaps_still_work(void **state)
{
	struct svm_tree *tree = *state;
	unsigned page;
	int err = 0;

	no_memory = true;
	assert_int_equal(set(tree, 0, 4, SVM_ATTR_PREFERRED, 1), -ENOMEM);
	assert_int_equal(tree->nodes, 0);
	no_memory = false;
	assert_int_equal(set(tree, 0, 4, SVM_ATTR_PREFERRED, 1), 0);
	no_memory = true;
	for (page = 8; !err && page < 100000; page += 2)
		err = set(tree, page, page + 1, SVM_ATTR_GRANULARITY, page % 9);
	assert_int_equal(err, -ENOMEM);
	assert_int_equal(get(tree, page - 2, page - 1, SVM_ATTR_GRANULARITY, 0).value,
			 SVM_GRANULARITY);
	/* The middle of a range, with the one node that is put by; then without any. */
	while (tree->free_nodes) {
		struct svm_node *node = tree->free;

		tree->free = node->left;
		tree->free_nodes--;
	}
	assert_int_equal(svm_tree_clear(tree, at(1), at(2)), 1);
	assert_int_equal(get(tree, 0, 1, SVM_ATTR_PREFERRED, 0).value, 1);
	assert_int_equal(get(tree, 1, 2, SVM_ATTR_PREFERRED, 0).value, SVM_UNDEFINED);
}

/* ---- against the naive model ---- */

static struct svm_attr random_attr(void)
{
	struct svm_attr attr = {random_below(9), 0};

	switch (attr.type) {
	case SVM_ATTR_PREFERRED:
	case SVM_ATTR_PREFETCH:
		attr.value = random_below(GPUS + 2);
		if (attr.value >= GPUS)
			attr.value = attr.value == GPUS ? SVM_SYSTEM : SVM_UNDEFINED;
		break;
	case SVM_ATTR_SET_FLAGS:
	case SVM_ATTR_CLR_FLAGS:
		attr.value = random_below(SVM_FLAGS_ALL + 1);
		break;
	case SVM_ATTR_GRANULARITY:
		attr.value = random_below(3) * 4 + 1;
		break;
	case SVM_ATTR_ATOMIC:
		attr.value = random_below(SVM_ATOMIC_CPU + 1);
		break;
	default:
		attr.value = random_below(GPUS);
	}
	return attr;
}

static void check_laws(const struct svm_tree *tree)
{
	const struct svm_node *node = svm_tree_next(tree, 0), *next;
	size_t nodes = 0;

	for (; node; node = next) {
		next = svm_tree_next(tree, node->end);
		nodes++;
		assert_true(node->start < node->end);
		assert_false(svm_attrs_equal(&node->attrs, &tree->defaults));
		assert_false(node->attrs.access & node->attrs.in_place);
		assert_true(!next || next->start >= node->end);
		assert_false(next && next->start == node->end &&
			     svm_attrs_equal(&node->attrs, &next->attrs));
	}
	assert_int_equal(nodes, tree->nodes);
}

static void check_pages(const struct svm_tree *tree, const struct svm_attrs *model)
{
	for (unsigned i = 0; i < PAGES; i++) {
		uintptr_t start = at(0), end = at(PAGES);
		struct svm_attrs attrs = svm_tree_at(tree, at(i) + 5, &start, &end);

		assert_true(svm_attrs_equal(&attrs, &model[i]));
		/* The interval around it is as large as it can be, and no larger. */
		assert_true(start <= at(i) && at(i + 1) <= end);
		for (unsigned j = (unsigned)((start - BASE) / PAGE);
		     j < (unsigned)((end - BASE) / PAGE); j++)
			assert_true(svm_attrs_equal(&model[j], &model[i]));
		assert_true(start == at(0) ||
			    !svm_attrs_equal(&model[(start - BASE) / PAGE - 1], &model[i]));
		assert_true(end == at(PAGES) ||
			    !svm_attrs_equal(&model[(end - BASE) / PAGE], &model[i]));
	}
}

/* Page by page, by the words of uhmm/svm.h alone. */
static struct svm_attr naive_get(const struct svm_attrs *model, unsigned from, unsigned to,
				 struct svm_attr attr)
{
	bool all_access = true, all_in_place = true;
	uint32_t flags = SVM_FLAGS_ALL, any = 0, least = UINT32_MAX, value = 0;
	bool differ = false, other = false;

	for (unsigned i = from; i < to; i++) {
		uint32_t location = attr.type == SVM_ATTR_PREFERRED ? model[i].preferred
								    : model[i].prefetched;

		other |= model[i].atomic != model[from].atomic;
		differ |= i > from && location != value;
		value = location;
		flags &= model[i].flags;
		any |= model[i].flags;
		least = model[i].granularity < least ? model[i].granularity : least;
		if (attr.type >= SVM_ATTR_ACCESS && attr.type <= SVM_ATTR_NO_ACCESS) {
			all_access &= model[i].access >> attr.value & 1;
			all_in_place &= model[i].in_place >> attr.value & 1;
		}
	}
	if (attr.type <= SVM_ATTR_PREFETCH)
		attr.value = differ ? SVM_UNDEFINED : value;
	else if (attr.type == SVM_ATTR_SET_FLAGS)
		attr.value = flags;
	else if (attr.type == SVM_ATTR_CLR_FLAGS)
		attr.value = SVM_FLAGS_ALL & ~any;
	else if (attr.type == SVM_ATTR_GRANULARITY)
		attr.value = least;
	else if (attr.type == SVM_ATTR_ATOMIC)
		attr.value = other ? SVM_ATOMIC_UNDEFINED : model[from].atomic;
	else
		attr.type = all_access	   ? SVM_ATTR_ACCESS
			    : all_in_place ? SVM_ATTR_IN_PLACE
					   : SVM_ATTR_NO_ACCESS;
	return attr;
}

static void model_set(struct svm_attrs *page, const struct svm_attr *attr)
{
	const uint32_t bit = attr->value < GPUS ? 1u << attr->value : 0;

	switch (attr->type) {
	case SVM_ATTR_PREFERRED: page->preferred = attr->value; break;
	case SVM_ATTR_PREFETCH: page->prefetched = attr->value; break;
	case SVM_ATTR_ACCESS: page->access |= bit; page->in_place &= ~bit; break;
	case SVM_ATTR_IN_PLACE: page->in_place |= bit; page->access &= ~bit; break;
	case SVM_ATTR_NO_ACCESS: page->in_place &= ~bit; page->access &= ~bit; break;
	case SVM_ATTR_SET_FLAGS: page->flags |= attr->value; break;
	case SVM_ATTR_CLR_FLAGS: page->flags &= ~attr->value; break;
	case SVM_ATTR_ATOMIC: page->atomic = attr->value; break;
	default: page->granularity = attr->value;
	}
}

static void one_set(struct svm_tree *tree, struct svm_attrs *model, unsigned from, unsigned to)
{
	struct svm_change change = {.reset = !random_below(8)};
	unsigned n = random_below(4), i;

	if (change.reset)
		for (i = from; i < to; i++)
			model[i] = tree->defaults;
	while (n--) {
		struct svm_attr attr = random_attr();

		assert_int_equal(svm_change_add(&change, GPUS, &attr), 0);
		for (i = from; i < to; i++)
			model_set(&model[i], &attr);
	}
	assert_int_equal(svm_tree_set(tree, at(from), at(to), &change), 0);
}

static void the_tree_is_what_its_pages_are(void **state)
{
	struct svm_tree *tree = *state;
	struct svm_attrs model[PAGES];
	unsigned round, i;

	for (i = 0; i < PAGES; i++)
		model[i] = tree->defaults;
	for (round = 0; round < ROUNDS; round++) {
		unsigned from = random_below(PAGES), to = from + 1 + random_below(PAGES - from);
		struct svm_attr attr = random_attr(), want, have;

		if (random_below(4)) {
			one_set(tree, model, from, to);
		} else {
			svm_tree_clear(tree, at(from), at(to));
			for (i = from; i < to; i++)
				model[i] = tree->defaults;
		}
		from = random_below(PAGES);
		to = from + 1 + random_below(PAGES - from);
		want = naive_get(model, from, to, attr);
		have = get(tree, from, to, attr.type, attr.value);
		assert_int_equal(have.type, want.type);
		assert_int_equal(have.value, want.value);
		if (!(round % 16)) {
			check_laws(tree);
			check_pages(tree, model);
		}
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_page_without_attributes_has_the_defaults),
		TEST(without_xnack_nobody_has_access),
		TEST(a_range_answers_what_its_pages_have_in_common),
		TEST(the_last_word_on_a_gpu_counts),
		TEST(bad_attributes_change_nothing),
		TEST(ranges_split_and_merge),
		TEST(the_ends_of_the_address_space),
		TEST(without_memory_nothing_changes_and_unmaps_still_work),
		TEST(the_tree_is_what_its_pages_are),
	};

	return cmocka_run_group_tests_name("svm_attrs", tests, NULL, NULL);
}
