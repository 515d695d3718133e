/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fuzz_rangemap - the interval B-tree and the naive model do what the input says.
 *
 * The first byte chooses the map's kind: entries that overlap (ids of two bits), or
 * entries that do not (id 0; what is in the way is erased first). Then six bytes an
 * operation: what, how often, start (2), length, id. An operation repeats up to 16
 * times at ascending addresses, so that short inputs already split nodes. A
 * difference, or a broken invariant, aborts.
 */
#include <stdlib.h>
#include <string.h>

#include "../unit/rangemap_model.h"
#include "util/arena.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct both {
	struct rangemap map;
	struct rangemap_model model;
	bool overlapping;
};

struct operation {
	uint8_t what, times, start[2], length, id;
};

static void must(bool holds)
{
	if (!holds)
		abort();
}

static void same(bool a, bool b, const struct range_entry *x, const struct range_entry *y)
{
	must(a == b && (!a || entry_equals(x, y)));
}

static void insert(struct both *both, const struct range_entry *entry)
{
	if (!both->overlapping && entry->start < entry->end) {
		must(!rangemap_erase(&both->map, entry->start, entry->end));
		model_erase(&both->model, entry->start, entry->end);
	}
	must(rangemap_insert(&both->map, entry) == model_insert(&both->model, entry));
}

static void erase(struct both *both, const struct range_entry *entry)
{
	if (both->overlapping)
		return;
	must(!rangemap_erase(&both->map, entry->start, entry->end));
	model_erase(&both->model, entry->start, entry->end);
}

static void look(const struct both *both, const struct range_entry *entry)
{
	uintptr_t start = entry->start, end = entry->end;
	struct range_entry x, y;
	bool a, b;

	a = rangemap_first(&both->map, start, end, &x);
	b = model_first(&both->model, start, end, &y);
	same(a, b, &x, &y);
	a = rangemap_next(&both->map, start - 300, end, entry, &x);
	b = model_next(&both->model, start - 300, end, entry, &y);
	same(a, b, &x, &y);
	a = rangemap_before(&both->map, start, &x);
	b = model_before(&both->model, start, &y);
	same(a, b, &x, &y);
}

static void operate(struct both *both, const struct operation *op)
{
	uintptr_t start = (uintptr_t)op->start[0] << 8 | op->start[1];
	unsigned i, times = op->times % 16 + 1;
	struct range_entry entry;

	for (i = 0; i < times; i++) {
		entry.start = start + i * 17;
		/* the top lengths reach over everything */
		entry.end =
			entry.start + (op->length < 250 ? op->length : op->length * 512ul);
		entry.id = both->overlapping ? op->id % 4 : 0;
		entry.value = i;
		switch (op->what % 4) {
		case 0:
			insert(both, &entry);
			break;
		case 1:
			must(rangemap_remove(&both->map, entry.start, entry.id) ==
			     model_remove(&both->model, entry.start, entry.id));
			break;
		case 2:
			erase(both, &entry);
			break;
		case 3:
			look(both, &entry);
			break;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct arena *arena = arena_create();
	struct operation op;
	struct both both;

	must(arena != NULL);
	rangemap_init(&both.map, arena);
	model_init(&both.model);
	both.overlapping = size && data[0] & 1;
	for (data++; size > sizeof(op); size -= sizeof(op), data += sizeof(op)) {
		memcpy(&op, data, sizeof(op));
		operate(&both, &op);
		must(rangemap_check(&both.map));
	}
	must(model_equals(&both.model, &both.map));
	model_destroy(&both.model);
	rangemap_destroy(&both.map);
	arena_destroy(arena);
	return 0;
}
