/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * arena - the library's own memory, in mappings of its own.
 *
 * Laws: never libc's malloc (a callback's thread may hold its lock, and fork
 * holds it while it waits for our reader). Every byte handed out lies in a
 * mapping that arena_owns() knows, so that the library never mirrors itself.
 * Chunks are mapped with MADV_DONTFORK unset: a child may read what it inherits.
 * One arena belongs to one struct hmm; a forked child makes its own.
 *
 * Locks: one of its own, a leaf; arena_owns() takes none.
 *
 * arena.c cuts chunks into blocks; owned.c has the mappings and the table of them.
 */
#ifndef UHMM_UTIL_ARENA_H
#define UHMM_UTIL_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;

/* NULL: no memory. */
struct arena *arena_create(void);
/* Unmaps every chunk, the arena itself included. NULL is allowed. Takes no lock: nobody
 * else may use the arena any more, and a forked child may call it on what it inherited. */
void arena_destroy(struct arena *arena);

/* Zeroed, aligned to 64. NULL: no memory. Sizes above 32 KiB get a mapping of their own. */
void *arena_alloc(struct arena *arena, size_t size);
/* NULL is allowed. `size` as given to arena_alloc. */
void arena_free(struct arena *arena, void *memory, size_t size);

/* Does [start, end) touch a mapping of any arena of this process? No lock; may be
 * asked beside everything. Stacks and rings are added by arena_adopt(). */
bool arena_owns(uintptr_t start, uintptr_t end);
/* Count memory that somebody else mapped for the library as owned; and forget it, exactly
 * as it was adopted and before it is unmapped (a range that is not there is left alone).
 * -ENOSPC: the table (4096 mappings) is full. -EINVAL: empty, or in the first page. */
int arena_adopt(uintptr_t start, uintptr_t end);
void arena_disown(uintptr_t start, uintptr_t end);
/* In a forked child: what it has not inherited (canaries, perf rings) is not the library's
 * there, and the program may map at those addresses. No lock. */
void arena_disown_gone(void);

/*
 * A lock: from before a mapping of the library's is made until it is adopted, and from before it is
 * disowned until it is unmapped. Who holds it finds each of them owned. A leaf: nothing but system
 * calls on address space that is registered with nobody is made in it. A forked child finds it free.
 * false: not taken, because somebody has it and this is a thread that does not wait.
 */
bool arena_changing(void);
void arena_changed(void);
/* The calling thread does not wait for it from now on (the reader: who has it may wait for a page
 * that is away). Then arena_map() may answer NULL, and what should be unmapped may stay, owned. */
void arena_never_wait(void);

/*
 * Zeroed memory in an adopted mapping of its own, rounded up to pages; NULL: no memory, or
 * the table is full. An inaccessible page lies on either side, owned as well: without it
 * the kernel merges the mapping with the program's memory beside it into one VMA, and whoever
 * then asks arena_owns() about that VMA is told that the program's memory is ours. Nor are these pages merged
 * with inaccessible memory of the program's.
 */
void *arena_map(size_t size);
/* Of an inaccessible page that is owned. */
void arena_edge(uintptr_t page);
/* `size` as given to arena_map. NULL is allowed. */
void arena_unmap(void *memory, size_t size);

#endif
