/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * rangemap_model - see rangemap_model.h. Nothing here is clever, on purpose.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "rangemap_model.h"

void model_init(struct rangemap_model *model)
{
	memset(model, 0, sizeof(*model));
}

void model_destroy(struct rangemap_model *model)
{
	free(model->entries);
	model_init(model);
}

/* -1, 0, 1: the entry's key against (start, id). */
static int key_compare(const struct range_entry *entry, uintptr_t start, uint64_t id)
{
	if (entry->start != start)
		return entry->start < start ? -1 : 1;
	if (entry->id != id)
		return entry->id < id ? -1 : 1;
	return 0;
}

static void entries_put(struct rangemap_model *model, size_t at,
			const struct range_entry *entry)
{
	if (model->count == model->room) {
		model->room = model->room ? 2 * model->room : 64;
		model->entries =
			realloc(model->entries, model->room * sizeof(*model->entries));
		if (!model->entries)
			abort();
	}
	memmove(&model->entries[at + 1], &model->entries[at],
		(model->count - at) * sizeof(*entry));
	model->entries[at] = *entry;
	model->count++;
}

static void entries_cut(struct rangemap_model *model, size_t at)
{
	model->count--;
	memmove(&model->entries[at], &model->entries[at + 1],
		(model->count - at) * sizeof(*model->entries));
}

int model_insert(struct rangemap_model *model, const struct range_entry *entry)
{
	size_t at = 0;

	if (entry->start >= entry->end)
		return -EINVAL;
	while (at < model->count &&
	       key_compare(&model->entries[at], entry->start, entry->id) < 0)
		at++;
	if (at < model->count &&
	    key_compare(&model->entries[at], entry->start, entry->id) == 0)
		return -EEXIST;
	entries_put(model, at, entry);
	return 0;
}

int model_remove(struct rangemap_model *model, uintptr_t start, uint64_t id)
{
	size_t at;

	for (at = 0; at < model->count; at++) {
		if (key_compare(&model->entries[at], start, id))
			continue;
		entries_cut(model, at);
		return 0;
	}
	return -ENOENT;
}

static bool overlaps(const struct range_entry *entry, uintptr_t start, uintptr_t end)
{
	return start < end && entry->start < end && entry->end > start;
}

bool model_first(const struct rangemap_model *model, uintptr_t start, uintptr_t end,
		 struct range_entry *out)
{
	size_t at;

	for (at = 0; at < model->count; at++) {
		if (!overlaps(&model->entries[at], start, end))
			continue;
		*out = model->entries[at];
		return true;
	}
	return false;
}

bool model_next(const struct rangemap_model *model, uintptr_t start, uintptr_t end,
		const struct range_entry *prev, struct range_entry *out)
{
	size_t at;

	for (at = 0; at < model->count; at++) {
		if (key_compare(&model->entries[at], prev->start, prev->id) <= 0 ||
		    !overlaps(&model->entries[at], start, end))
			continue;
		*out = model->entries[at];
		return true;
	}
	return false;
}

bool model_before(const struct rangemap_model *model, uintptr_t start,
		  struct range_entry *out)
{
	bool found = false;
	size_t at;

	for (at = 0; at < model->count && model->entries[at].start < start; at++) {
		*out = model->entries[at];
		found = true;
	}
	return found;
}

void model_erase(struct rangemap_model *model, uintptr_t start, uintptr_t end)
{
	struct range_entry old, part;
	size_t at = 0;

	while (at < model->count) {
		if (!overlaps(&model->entries[at], start, end)) {
			at++;
			continue;
		}
		old = model->entries[at];
		entries_cut(model, at);
		if (old.start < start) {
			part = old;
			part.end = start;
			entries_put(model, at++, &part);
		}
		if (old.end > end) {
			part = old;
			part.start = end;
			entries_put(model, at++, &part);
		}
	}
}

bool entry_equals(const struct range_entry *a, const struct range_entry *b)
{
	return a->start == b->start && a->end == b->end && a->id == b->id &&
	       a->value == b->value;
}

bool model_equals(const struct rangemap_model *model, const struct rangemap *map)
{
	struct range_entry entry;
	bool more = rangemap_first(map, 0, UINTPTR_MAX, &entry);
	size_t at;

	for (at = 0; at < model->count; at++) {
		if (!more || !entry_equals(&entry, &model->entries[at]))
			return false;
		more = rangemap_next(map, 0, UINTPTR_MAX, &entry, &entry);
	}
	return !more && map->count == model->count;
}
