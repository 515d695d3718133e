/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * owned - which mappings of this process are the library's.
 *
 * Model: a table of slots, each the [start, end) of a mapping. The start tells
 * the state: SLOT_FREE, SLOT_BUSY while its taker writes the end, else an address.
 *
 * Laws:
 * 1. The end is written only while the start says SLOT_BUSY. A reader that loads
 *    start, end and again the same start therefore has a pair that was true at
 *    some moment of its call.
 * 2. The table has no lock, so none can be held by a thread that fork() leaves behind:
 *    the child of a fork in the middle of arena_adopt() loses that slot and no more.
 *    The lock of arena_changing() has its holder's process in it: a child's is another.
 * 3. Slots are taken lowest first and `slots_used` only grows, so that a question costs
 *    what was in use at once, not the size of the table.
 *
 * A range adopted before arena_owns() is called and not disowned before it returns
 * is seen. One that comes or goes meanwhile may be seen or not.
 *
 * Locks: arena_changing(), a leaf.
 */
#include <errno.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/arena.h"

#define SLOTS 4096
#define SLOT_FREE ((uintptr_t)0)
#define SLOT_BUSY ((uintptr_t)1)

#define PAGE ((size_t)4096)

struct slot {
	uintptr_t start, end;
};

static struct slot slots[SLOTS];
static unsigned slots_used; /* slots at and above were never taken */

static void used_at_least(unsigned count)
{
	unsigned seen = __atomic_load_n(&slots_used, __ATOMIC_RELAXED);

	while (seen < count &&
	       !__atomic_compare_exchange_n(&slots_used, &seen, count, true,
					    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
		;
}

/* Law 1. false: the slot is not in use. */
static bool slot_read(const struct slot *slot, uintptr_t *start, uintptr_t *end)
{
	uintptr_t again = __atomic_load_n(&slot->start, __ATOMIC_ACQUIRE);

	do {
		*start = again;
		if (*start <= SLOT_BUSY)
			return false;
		*end = __atomic_load_n(&slot->end, __ATOMIC_ACQUIRE);
		again = __atomic_load_n(&slot->start, __ATOMIC_ACQUIRE);
	} while (again != *start);
	return true;
}

bool arena_owns(uintptr_t start, uintptr_t end)
{
	unsigned used = __atomic_load_n(&slots_used, __ATOMIC_ACQUIRE);
	uintptr_t from, to;
	unsigned i;

	if (start >= end)
		return false;
	for (i = 0; i < used; i++)
		if (slot_read(&slots[i], &from, &to) && from < end && start < to)
			return true;
	return false;
}

int arena_adopt(uintptr_t start, uintptr_t end)
{
	unsigned i;

	if (start >= end || start < PAGE)
		return -EINVAL;
	for (i = 0; i < SLOTS; i++) {
		uintptr_t seen = __atomic_load_n(&slots[i].start, __ATOMIC_RELAXED);

		if (seen != SLOT_FREE)
			continue;
		if (!__atomic_compare_exchange_n(&slots[i].start, &seen, SLOT_BUSY, false,
						 __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			continue;
		used_at_least(i + 1);
		__atomic_store_n(&slots[i].end, end, __ATOMIC_RELEASE);
		__atomic_store_n(&slots[i].start, start, __ATOMIC_RELEASE);
		return 0;
	}
	return -ENOSPC;
}

void arena_disown(uintptr_t start, uintptr_t end)
{
	unsigned used = __atomic_load_n(&slots_used, __ATOMIC_ACQUIRE);
	uintptr_t from, to;
	unsigned i;

	for (i = 0; i < used; i++)
		if (slot_read(&slots[i], &from, &to) && from == start && to == end &&
		    __atomic_compare_exchange_n(&slots[i].start, &from, SLOT_FREE, false,
						__ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return;
}

/* MS_ASYNC does nothing but to say whether all of it is mapped. */
void arena_disown_gone(void)
{
	unsigned used = __atomic_load_n(&slots_used, __ATOMIC_ACQUIRE);
	uintptr_t start, end;

	for (unsigned i = 0; i < used; i++)
		if (slot_read(&slots[i], &start, &end) &&
		    msync((void *)start, end - start, MS_ASYNC) && errno == ENOMEM)
			arena_disown(start, end);
}

static pid_t changing; /* the process a thread of which holds it; 0 nobody */
static __thread bool never_waits;

void arena_never_wait(void)
{
	never_waits = true;
}

bool arena_changing(void)
{
	pid_t mine = getpid(), seen = 0;

	while (!__atomic_compare_exchange_n(&changing, &seen, mine, false, __ATOMIC_ACQUIRE,
					    __ATOMIC_RELAXED)) {
		if (seen != mine)
			continue; /* inherited, from a thread that is not here: taken over */
		if (never_waits)
			return false;
		seen = 0;
		sched_yield();
	}
	return true;
}

void arena_changed(void)
{
	__atomic_store_n(&changing, 0, __ATOMIC_RELEASE);
}

/* 0: too large to be rounded. */
static size_t whole_pages(size_t size)
{
	if (size > SIZE_MAX - 4 * PAGE)
		return 0;
	return (size + !size + PAGE - 1) & ~(PAGE - 1);
}

/* Not dumped, for it is empty; so it is not merged with a reservation of the program's beside it, which is. */
void arena_edge(uintptr_t page)
{
	madvise((void *)page, PAGE, MADV_DONTDUMP);
}

void *arena_map(size_t size)
{
	size_t inner = whole_pages(size);
	char *outer, *memory = NULL;

	if (!inner || !arena_changing())
		return NULL;
	outer = mmap(NULL, inner + 2 * PAGE, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (outer == MAP_FAILED)
		goto changed;
	if (mprotect(outer + PAGE, inner, PROT_READ | PROT_WRITE) ||
	    arena_adopt((uintptr_t)outer, (uintptr_t)outer + inner + 2 * PAGE))
		munmap(outer, inner + 2 * PAGE);
	else
		memory = outer + PAGE;
	if (memory) {
		arena_edge((uintptr_t)outer);
		arena_edge((uintptr_t)memory + inner);
	}
changed:
	arena_changed();
	return memory;
}

void arena_unmap(void *memory, size_t size)
{
	size_t length = whole_pages(size) + 2 * PAGE;
	uintptr_t start = (uintptr_t)memory - PAGE;

	if (!memory || !arena_changing())
		return;
	/* disowned first: afterwards the address may be the program's again */
	arena_disown(start, start + length);
	/* what cannot be unmapped (sealed; no kernel memory for the split) stays ours */
	if (munmap((void *)start, length))
		arena_adopt(start, start + length);
	arena_changed();
}
