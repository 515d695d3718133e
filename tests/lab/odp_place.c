/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "odp_place.h"

static int memfd(size_t length)
{
	return memfd_create("uhmm-odp", MFD_CLOEXEC);
}

static int huge_memfd(size_t length)
{
	return memfd_create("uhmm-odp", MFD_CLOEXEC | MFD_HUGETLB);
}

/* The tests run on an ordinary filesystem. */
static int ordinary_file(size_t length)
{
	return lab_file(".", length);
}

static int dax_file(size_t length)
{
	const char *directory = getenv("UHMM_LAB_EXT4");

	errno = ENODEV;
	return directory ? lab_file(directory, length) : -1;
}

const struct odp_kind odp_kinds[] = {
	{ "anon", PAGE, NULL, MAP_PRIVATE | MAP_ANONYMOUS },
	{ "memfd", PAGE, memfd, MAP_SHARED },
	{ "private-file", PAGE, ordinary_file, MAP_PRIVATE },
	{ "shared-file", PAGE, ordinary_file, MAP_SHARED },
	{ "fsdax", PAGE, dax_file, MAP_SHARED },
	{ "hugetlb", HUGE, NULL, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB },
	{ "hugetlb-shared", HUGE, huge_memfd, MAP_SHARED },
};
const unsigned odp_kind_count = sizeof(odp_kinds) / sizeof(odp_kinds[0]);

/* Each unit begins with the same bytes. A file gets them by a mapping of its own, so that
 * what is given back was never touched. */
static void *map_filled(const struct odp_kind *kind, void *where, unsigned units, int *fd,
			unsigned seed)
{
	size_t length = units * kind->unit;
	unsigned char *fill, *at;

	*fd = -1;
	if (kind->file) {
		*fd = kind->file(length);
		if (*fd < 0 || ftruncate(*fd, (off_t)length))
			return MAP_FAILED;
	}
	at = mmap(where, length, RW, kind->flags | (where ? MAP_FIXED : 0), *fd, 0);
	if (at == MAP_FAILED)
		return at;
	fill = *fd < 0 ? at : mmap(NULL, length, RW, MAP_SHARED, *fd, 0);
	if (fill == MAP_FAILED)
		return fill;
	for (unsigned i = 0; i < units; i++)
		lab_fill(fill + i * kind->unit, PAGE, seed);
	if (fill != at)
		munmap(fill, length);
	return at;
}

enum verdict odp_place_make(const struct odp_kind *kind, struct odp_place *p)
{
	*p = (struct odp_place){ .kind = kind, .spare = -1 };
	p->at = map_filled(kind, NULL, ODP_UNITS, &p->fd, ODP_A);
	if (p->at == MAP_FAILED)
		return live_skip("there is no memory of kind %s here: %s", kind->name,
				 strerror(errno));
	return PASS;
}

void odp_place_free(struct odp_place *p)
{
	if (p->child > 0)
		odp_child_has_a(p);
	munmap(p->at, ODP_UNITS * p->kind->unit);
	if (p->fd >= 0)
		close(p->fd);
	if (p->spare >= 0)
		close(p->spare);
}

int odp_look(const void *at, void *to, size_t n)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	ssize_t done = fd < 0 ? -1 : pread(fd, to, n, (off_t)(intptr_t)at);
	int err = done == (ssize_t)n ? 0 : -EIO;

	if (fd >= 0)
		close(fd);
	return err;
}

static unsigned char *second(struct odp_place *p)
{
	return p->at + p->kind->unit;
}

static int result_of(long result)
{
	return result == -1 ? -errno : 0;
}

int odp_nothing(struct odp_place *p)
{
	return 0;
}

int odp_touch(struct odp_place *p)
{
	lab_fill(second(p), PAGE, ODP_B);
	return 0;
}

int odp_dontneed(struct odp_place *p)
{
	return result_of(madvise(second(p), p->kind->unit, MADV_DONTNEED));
}

int odp_unmap(struct odp_place *p)
{
	return result_of(munmap(second(p), p->kind->unit));
}

int odp_unmap_and_map(struct odp_place *p)
{
	int err = odp_unmap(p);

	if (!err)
		err = result_of(
			(intptr_t)map_filled(p->kind, second(p), 1, &p->spare, ODP_B));
	return err;
}

int odp_map_over(struct odp_place *p)
{
	void *at = mmap(second(p), p->kind->unit, RW,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (at == MAP_FAILED)
		return -errno;
	return odp_touch(p);
}

/* To where there is room, at an address that a huge page may have. */
int odp_move_away(struct odp_place *p)
{
	uintptr_t room = (uintptr_t)live_map(2 * HUGE, PROT_NONE);
	void *to = (void *)((room + HUGE - 1) & ~(uintptr_t)(HUGE - 1));

	return result_of((intptr_t)mremap(second(p), p->kind->unit, p->kind->unit,
					  MREMAP_MAYMOVE | MREMAP_FIXED, to));
}

int odp_protect_none(struct odp_place *p)
{
	return result_of(mprotect(second(p), p->kind->unit, PROT_NONE));
}

int odp_protect_read(struct odp_place *p)
{
	return result_of(mprotect(second(p), p->kind->unit, PROT_READ));
}

int odp_punch(struct odp_place *p)
{
	return lab_punch(p->fd, (off_t)p->kind->unit, (off_t)p->kind->unit);
}

int odp_truncate(struct odp_place *p)
{
	return lab_truncate(p->fd, 0, (off_t)p->kind->unit);
}

int odp_fork(struct odp_place *p)
{
	char byte;

	if (pipe(p->tell))
		return -errno;
	p->child = fork();
	if (!p->child) {
		close(p->tell[1]);
		while (read(p->tell[0], &byte, 1) > 0)
			;
		_exit(lab_differs(second(p), PAGE, ODP_A) == PAGE ? 0 : 1);
	}
	close(p->tell[0]);
	return p->child < 0 ? -errno : 0;
}

bool odp_child_has_a(struct odp_place *p)
{
	int status;

	close(p->tell[1]);
	status = live_wait(p->child, 10);
	p->child = 0;
	return status >= 0 && WIFEXITED(status) && !WEXITSTATUS(status);
}
