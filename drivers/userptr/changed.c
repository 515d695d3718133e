/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * changed - which pages may the CPU have written to since the device got them?
 *
 * Of anonymous memory hmm_dirty_collect() says it, as long as no notifier was told something (then
 * invalidate has marked the page). Of all other memory, of objects that are not told of changes, and
 * where checksums are asked for, nobody does: every page counts, and its checksum decides.
 */
#include <uhmm/dirty.h>

#include "userptr_private.h"

int userptr_watch(struct userptr_object *o)
{
	if (o->dev->checksum || !o->notifier)
		return 0;
	o->changed = calloc((page_count(o) + 63) / 64, sizeof(*o->changed));
	if (!o->changed)
		return -ENOMEM;
	return hmm_dirty_begin(o->dev->hmm, first_page(o), page_count(o) * PAGE, &o->dirty);
}

void userptr_unwatch(struct userptr_object *o)
{
	hmm_dirty_end(o->dirty);
	free(o->changed);
}

static void all_changed(const struct use *use)
{
	const struct userptr_object *o = use->object;

	for (size_t i = page_index(o, use->start); i <= page_index(o, use->end - 1); i++)
		atomic_store_explicit(&o->pages[i].stale, true, memory_order_relaxed);
}

static void mark_word(const struct userptr_object *o, size_t word)
{
	for (uint64_t bits = o->changed[word]; bits; bits &= bits - 1)
		atomic_store_explicit(
			&o->pages[word * 64 + (size_t)__builtin_ctzll(bits)].stale, true,
			memory_order_relaxed);
}

int userptr_find_changed(const struct use *use)
{
	const struct userptr_object *o = use->object;
	int64_t n;

	if (!o->dirty) {
		all_changed(use);
		return 0;
	}
	n = hmm_dirty_collect(o->dirty, o->changed);
	for (size_t i = 0; n > 0 && i < (page_count(o) + 63) / 64; i++)
		mark_word(o, i);
	return n < 0 ? (int)n : 0;
}
