/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * attrs - what attributes do to a page, and what pages have in common (kfd's algebra).
 *
 * In kfd a range asked for is the intersection of the ranges that exist there, and gaps do
 * not count. Here a gap is pages with the defaults, and counts: the answer is the same as
 * that of asking page by page.
 */
#include <errno.h>

#include "attrs.h"

bool svm_attrs_equal(const struct svm_attrs *a, const struct svm_attrs *b)
{
	return a->preferred == b->preferred && a->prefetched == b->prefetched &&
	       a->access == b->access && a->in_place == b->in_place &&
	       a->flags == b->flags && a->granularity == b->granularity &&
	       a->atomic == b->atomic && a->mapped == b->mapped;
}

static bool is_location(uint32_t value, unsigned gpus)
{
	return value < gpus || value == SVM_SYSTEM || value == SVM_UNDEFINED;
}

static int check(unsigned gpus, const struct svm_attr *attr)
{
	switch (attr->type) {
	case SVM_ATTR_PREFERRED:
	case SVM_ATTR_PREFETCH:
		return is_location(attr->value, gpus) ? 0 : -EINVAL;
	case SVM_ATTR_ACCESS:
	case SVM_ATTR_IN_PLACE:
	case SVM_ATTR_NO_ACCESS:
		return attr->value < gpus ? 0 : -EINVAL;
	case SVM_ATTR_SET_FLAGS:
	case SVM_ATTR_CLR_FLAGS:
		return attr->value & ~SVM_FLAGS_ALL ? -EINVAL : 0;
	case SVM_ATTR_GRANULARITY:
		return attr->value <= SVM_GRANULARITY_MAX ? 0 : -EINVAL;
	case SVM_ATTR_ATOMIC:
		return attr->value <= SVM_ATOMIC_CPU ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

/* The last word on a GPU is the one that counts. */
static void give(struct svm_change *change, uint32_t *to, uint32_t gpu)
{
	const uint32_t bit = UINT32_C(1) << gpu;

	change->access &= ~bit;
	change->in_place &= ~bit;
	change->none &= ~bit;
	*to |= bit;
}

int svm_change_add(struct svm_change *change, unsigned gpus, const struct svm_attr *attr)
{
	if (check(gpus, attr))
		return -EINVAL;
	switch (attr->type) {
	case SVM_ATTR_PREFERRED:
		change->preferred_set = true;
		change->preferred = attr->value;
		break;
	case SVM_ATTR_PREFETCH:
		change->prefetched_set = true;
		change->prefetched = attr->value;
		break;
	case SVM_ATTR_ACCESS:
		give(change, &change->access, attr->value);
		break;
	case SVM_ATTR_IN_PLACE:
		give(change, &change->in_place, attr->value);
		break;
	case SVM_ATTR_NO_ACCESS:
		give(change, &change->none, attr->value);
		break;
	case SVM_ATTR_SET_FLAGS:
		change->flags_set |= attr->value;
		change->flags_clear &= ~attr->value;
		break;
	case SVM_ATTR_CLR_FLAGS:
		change->flags_clear |= attr->value;
		change->flags_set &= ~attr->value;
		break;
	case SVM_ATTR_ATOMIC:
		change->atomic_set = true;
		change->atomic = attr->value;
		break;
	default:
		change->granularity_set = true;
		change->granularity = attr->value;
	}
	return 0;
}

void svm_change_apply(const struct svm_change *change, const struct svm_attrs *defaults,
		      struct svm_attrs *attrs)
{
	const uint32_t named = change->access | change->in_place | change->none;

	if (change->reset)
		*attrs = *defaults;
	if (change->preferred_set)
		attrs->preferred = change->preferred;
	if (change->prefetched_set)
		attrs->prefetched = change->prefetched;
	if (change->granularity_set)
		attrs->granularity = change->granularity;
	if (change->atomic_set)
		attrs->atomic = change->atomic;
	if (change->mapped_set)
		attrs->mapped = change->mapped;
	attrs->access = (attrs->access & ~named) | change->access;
	attrs->in_place = (attrs->in_place & ~named) | change->in_place;
	attrs->flags = (attrs->flags & ~change->flags_clear) | change->flags_set;
}

static void join(struct svm_common *common, const struct svm_attrs *attrs)
{
	struct svm_attrs *all = &common->all;

	if (all->preferred != attrs->preferred)
		all->preferred = SVM_UNDEFINED;
	if (all->prefetched != attrs->prefetched)
		all->prefetched = SVM_UNDEFINED;
	all->access &= attrs->access;
	all->in_place &= attrs->in_place;
	all->flags &= attrs->flags;
	common->flags_any |= attrs->flags;
	if (all->atomic != attrs->atomic)
		all->atomic = SVM_ATOMIC_UNDEFINED;
	if (attrs->granularity < all->granularity)
		all->granularity = attrs->granularity;
}

struct svm_common svm_tree_common(const struct svm_tree *tree, uintptr_t start,
				  uintptr_t end)
{
	struct svm_common common;
	uintptr_t from = start, to = end;
	struct svm_attrs attrs = svm_tree_at(tree, start, &from, &to);

	common = (struct svm_common){ .all = attrs, .flags_any = attrs.flags };
	while (to < end) {
		start = to;
		from = start;
		to = end;
		attrs = svm_tree_at(tree, start, &from, &to);
		join(&common, &attrs);
	}
	return common;
}

int svm_common_get(const struct svm_common *common, unsigned gpus, struct svm_attr *attr)
{
	struct svm_attr known = *attr;

	/* Only of access the value says what is asked; of the others it may be anything. */
	if (known.type != SVM_ATTR_ACCESS && known.type != SVM_ATTR_IN_PLACE &&
	    known.type != SVM_ATTR_NO_ACCESS)
		known.value = 0;
	if (check(gpus, &known))
		return -EINVAL;
	switch (attr->type) {
	case SVM_ATTR_PREFERRED:
		attr->value = common->all.preferred;
		break;
	case SVM_ATTR_PREFETCH:
		attr->value = common->all.prefetched;
		break;
	case SVM_ATTR_SET_FLAGS:
		attr->value = common->all.flags;
		break;
	case SVM_ATTR_CLR_FLAGS:
		attr->value = SVM_FLAGS_ALL & ~common->flags_any;
		break;
	case SVM_ATTR_GRANULARITY:
		attr->value = common->all.granularity;
		break;
	case SVM_ATTR_ATOMIC:
		attr->value = common->all.atomic;
		break;
	default:
		attr->type = common->all.access >> attr->value & 1     ? SVM_ATTR_ACCESS
			     : common->all.in_place >> attr->value & 1 ? SVM_ATTR_IN_PLACE
								       : SVM_ATTR_NO_ACCESS;
	}
	return 0;
}
