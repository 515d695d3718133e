/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * rangemap_model - what rangemap.h promises, done the naive way: one sorted array.
 *
 * Each function does what its namesake of src/util/rangemap.h does, by walking all
 * entries. The unit test and the fuzzer run both and compare. Aborts without memory.
 */
#ifndef UHMM_TESTS_RANGEMAP_MODEL_H
#define UHMM_TESTS_RANGEMAP_MODEL_H

#include "util/rangemap.h"

struct rangemap_model {
	struct range_entry *entries; /* by (start, id) */
	size_t count, room;
};

void model_init(struct rangemap_model *model);
void model_destroy(struct rangemap_model *model);
int model_insert(struct rangemap_model *model, const struct range_entry *entry);
int model_remove(struct rangemap_model *model, uintptr_t start, uint64_t id);
bool model_first(const struct rangemap_model *model, uintptr_t start, uintptr_t end,
		 struct range_entry *out);
bool model_next(const struct rangemap_model *model, uintptr_t start, uintptr_t end,
		const struct range_entry *prev, struct range_entry *out);
bool model_before(const struct rangemap_model *model, uintptr_t start,
		  struct range_entry *out);
void model_erase(struct rangemap_model *model, uintptr_t start, uintptr_t end);

/* Does the map hold exactly the model's entries, in order? */
bool model_equals(const struct rangemap_model *model, const struct rangemap *map);
bool entry_equals(const struct range_entry *a, const struct range_entry *b);

#endif
