/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* userptr_memory - the kinds of memory that kernels run on, each made anew at its place. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "userptr_live.h"

#define RWX (PROT_READ | PROT_WRITE)

const char *const live_memories[] = { "malloc", "anon", "file", "private-file", "shmem",
				      "hugetlb" };
const unsigned live_memories_count = sizeof(live_memories) / sizeof(*live_memories);

bool memory_is_mapped(const struct memory *m)
{
	return strcmp(m->kind, "malloc");
}

static int flags_of(const char *kind)
{
	if (!strcmp(kind, "file"))
		return MAP_SHARED;
	if (!strcmp(kind, "private-file"))
		return MAP_PRIVATE;
	if (!strcmp(kind, "shmem"))
		return MAP_SHARED | MAP_ANONYMOUS;
	return MAP_PRIVATE | MAP_ANONYMOUS | (strcmp(kind, "hugetlb") ? 0 : MAP_HUGETLB);
}

static enum verdict make_file(struct memory *m)
{
	char name[] = "live-userptr-XXXXXX";

	m->fd = mkstemp(name);
	SYS(m->fd);
	unlink(name);
	SYS(ftruncate(m->fd, (off_t)SPACE));
	return PASS;
}

/* A place that is aligned to a huge page, with nothing at it. */
static char *place(void)
{
	char *p = mmap(NULL, 2 * SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	munmap(p, 2 * SPACE);
	return (char *)(((uintptr_t)p + SPACE - 1) & ~(SPACE - 1));
}

static enum verdict map_at(struct memory *m)
{
	char *at = mmap(m->at, SPACE, RWX, m->flags | MAP_FIXED_NOREPLACE, m->fd, 0);

	if (at == MAP_FAILED && errno == ENOMEM && m->flags & MAP_HUGETLB)
		return live_skip("no huge pages can be had");
	CHECK(at == m->at, "mmap: %s", strerror(errno));
	return PASS;
}

enum verdict memory_make(struct memory *m, const char *kind)
{
	*m = (struct memory){ .kind = kind, .fd = -1, .flags = flags_of(kind) };
	if (!memory_is_mapped(m)) {
		m->at = malloc(SPACE); /* unaligned, with its neighbours in the same pages */
		CHECK(m->at, "no memory");
		return PASS;
	}
	if (strstr(kind, "file"))
		TRY(make_file(m));
	m->at = place();
	return map_at(m);
}

enum verdict memory_renew(struct memory *m)
{
	if (!memory_is_mapped(m))
		return PASS;
	SYS(munmap(m->at, SPACE));
	return map_at(m);
}

void memory_end(struct memory *m)
{
	if (!memory_is_mapped(m))
		free(m->at);
	else
		munmap(m->at, SPACE);
	if (m->fd >= 0)
		close(m->fd);
}
