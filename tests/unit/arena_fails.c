/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* arena_fails - stands between the core and the arena. */
#include "arena_fails.h"

#include "util/arena.h"

long fail_at;
unsigned failed;

void *__real_arena_alloc(struct arena *arena, size_t size);
void *__wrap_arena_alloc(struct arena *arena, size_t size);

void *__wrap_arena_alloc(struct arena *arena, size_t size)
{
	if (fail_at && --fail_at == 0) {
		failed++;
		return NULL;
	}
	return __real_arena_alloc(arena, size);
}
