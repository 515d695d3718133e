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
 * never moved, and the question takes no lock afterwards.
 */
#include <link.h>
#include <pthread.h>
#include <string.h>

#include "os/live.h"

#define RANGES_MAX 64u

static pthread_once_t learn_once = PTHREAD_ONCE_INIT;
static struct {
	uintptr_t start, end;
} ranges[RANGES_MAX];
static unsigned count;
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

static void add(uintptr_t start, uintptr_t end)
{
	if (count == RANGES_MAX) {
		all = true;
		return;
	}
	ranges[count].start = start & ~(OS_PAGE_SIZE - 1);
	ranges[count++].end = (end + OS_PAGE_SIZE - 1) & ~(OS_PAGE_SIZE - 1);
}

static int learn_object(struct dl_phdr_info *object, size_t size, void *arg)
{
	if (!is_system(object->dlpi_name) && !holds(object, (uintptr_t)&learn_once))
		return 0;
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
		uintptr_t start = object->dlpi_addr + segment->p_vaddr;

		if (segment->p_type == PT_LOAD && (segment->p_flags & PF_W))
			add(start, start + segment->p_memsz);
	}
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
	for (unsigned i = 0; i < count; i++)
		if (ranges[i].start < end && start < ranges[i].end)
			return true;
	return all;
}
