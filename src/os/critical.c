/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * critical - writable data that whoever brings a page home may touch on the way.
 *
 * Were it away, the pager would wait for itself. It is what libc, the dynamic linker, the
 * unwinder and this library have in their writable segments, .bss and what is
 * read-only after relocation included. Their heap is the program's; who serves faults
 * does not use it. Where the library is linked into the program itself, the program's
 * own data are critical: nobody can tell them apart.
 *
 * Taken once, when the first context is opened: those objects are never unloaded and
 * never moved. A driver's library is added when it says what it is; it may be unloaded
 * later, and what is mapped there then counts as critical for nothing.
 *
 * Law: ranges are only ever added. Whoever adds takes a slot, and writes its end last; a slot
 * without an end is none. So neither question nor addition takes a lock of ours.
 */
#include <link.h>
#include <pthread.h>
#include <string.h>

#include "os/live.h"
#include "util/log.h"

#define RANGES_MAX 128u
#define ADDED_MAX 32u /* objects */

static pthread_once_t learn_once = PTHREAD_ONCE_INIT;
static struct range {
	uintptr_t start, end;
} ranges[RANGES_MAX];
static unsigned taken, added;
static bool all; /* the table is too small: nothing is said to be safe */

static bool is_system(const char *path)
{
	static const char *const names[] = { "libc.so", "libc-", "libc.musl", "ld-", "ld.so",
					     "libpthread", "libdl.so", "libdl-", "libgcc_s" };
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strncmp(name, names[i], strlen(names[i])))
			return true;
	return false;
}

static bool holds(const struct dl_phdr_info *object, uintptr_t addr)
{
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &object->dlpi_phdr[i];

		if (segment->p_type == PT_LOAD &&
		    addr - object->dlpi_addr - segment->p_vaddr < segment->p_memsz)
			return true;
	}
	return false;
}

static void give_up(void)
{
	__atomic_store_n(&all, true, __ATOMIC_RELAXED);
}

static void add(uintptr_t start, uintptr_t end)
{
	unsigned slot = __atomic_fetch_add(&taken, 1, __ATOMIC_ACQ_REL);

	if (slot >= RANGES_MAX) {
		__atomic_fetch_sub(&taken, 1, __ATOMIC_ACQ_REL);
		give_up();
		return;
	}
	ranges[slot].start = start & ~(OS_PAGE_SIZE - 1);
	__atomic_store_n(&ranges[slot].end, (end + OS_PAGE_SIZE - 1) & ~(OS_PAGE_SIZE - 1),
			 __ATOMIC_RELEASE);
}

static bool is_in_table(uintptr_t start, uintptr_t end)
{
	unsigned n = __atomic_load_n(&taken, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < n && i < RANGES_MAX; i++) {
		uintptr_t to = __atomic_load_n(&ranges[i].end, __ATOMIC_ACQUIRE);

		if (start < to && ranges[i].start < end)
			return true;
	}
	return false;
}

static bool is_writable(const struct dl_phdr_info *object, unsigned i, struct range *range)
{
	const ElfW(Phdr) *segment = &object->dlpi_phdr[i];

	range->start = object->dlpi_addr + segment->p_vaddr;
	range->end = range->start + segment->p_memsz;
	return segment->p_type == PT_LOAD && (segment->p_flags & PF_W);
}

static void add_object(const struct dl_phdr_info *object)
{
	struct range range;

	for (unsigned i = 0; i < object->dlpi_phnum; i++)
		if (is_writable(object, i, &range))
			add(range.start, range.end);
}

/* Objects share no page: what overlaps is the same. */
static bool is_known(const struct dl_phdr_info *object)
{
	struct range range;

	for (unsigned i = 0; i < object->dlpi_phnum; i++)
		if (is_writable(object, i, &range) && !is_in_table(range.start, range.end))
			return false;
	return true;
}

static int learn_object(struct dl_phdr_info *object, size_t size, void *arg)
{
	if (is_system(object->dlpi_name) || holds(object, (uintptr_t)&learn_once))
		add_object(object);
	return 0;
}

static void learn(void)
{
	dl_iterate_phdr(learn_object, NULL);
}

void critical_learn(void)
{
	pthread_once(&learn_once, learn);
}

bool live_critical(uintptr_t start, uintptr_t end)
{
	critical_learn();
	return is_in_table(start, end) || __atomic_load_n(&all, __ATOMIC_RELAXED);
}

enum { NOT_FOUND, FOUND, MAIN_PROGRAM };

/* The main program's object has no name. */
static int find_object(struct dl_phdr_info *object, size_t size, void *function)
{
	if (!holds(object, (uintptr_t)function))
		return NOT_FOUND;
	if (!object->dlpi_name[0])
		return MAIN_PROGRAM;
	if (is_known(object))
		return FOUND;
	if (__atomic_fetch_add(&added, 1, __ATOMIC_ACQ_REL) < ADDED_MAX)
		add_object(object);
	else
		give_up();
	return FOUND;
}

void live_critical_add(const void *function)
{
	int found;

	critical_learn();
	found = dl_iterate_phdr(find_object, (void *)function);
	if (found != FOUND)
		hmm_log(HMM_LOG_DEBUG, "%p is code of %s: no data of its are kept", function,
			found ? "the main program" : "no object");
}
