/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * edu_kinds - the device reads, writes and copies each kind of memory at the program's own
 * addresses.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "lab_edu.h"

static enum verdict mapped(struct edu_area *a, size_t length, int flags, int fd)
{
	void *at = mmap(NULL, length, RW, flags, fd, 0);

	if (at == MAP_FAILED)
		FAILED("mmap: %s", strerror(errno));
	a->at = at;
	a->length = length;
	a->fd = fd;
	return PASS;
}

static enum verdict make_anon(struct edu_area *a)
{
	return mapped(a, EDU_AREA, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

/* Whether the kernel gives a huge page is its own affair; where it does, one is pinned. */
static enum verdict make_thp(struct edu_area *a)
{
	char *aligned;

	TRY(mapped(a, 2 * HUGE, MAP_PRIVATE | MAP_ANONYMOUS, -1));
	aligned = (char *)(((uintptr_t)a->at + HUGE - 1) & ~(HUGE - 1));
	if (madvise(aligned, HUGE, MADV_HUGEPAGE))
		return live_skip("no transparent huge pages: %s", strerror(errno));
	a->use = aligned;
	return PASS;
}

static enum verdict make_hugetlb(struct edu_area *a)
{
	void *at = mmap(NULL, HUGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (at == MAP_FAILED)
		return live_skip("no huge pages: %s (write vm.nr_hugepages)",
				 strerror(errno));
	a->at = at;
	a->length = HUGE;
	return PASS;
}

static enum verdict make_memfd(struct edu_area *a)
{
	int fd = memfd_create("uhmm-lab", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)EDU_AREA))
		FAILED("memfd: %s", strerror(errno));
	return mapped(a, EDU_AREA, MAP_SHARED, fd);
}

static enum verdict make_sysv(struct edu_area *a)
{
	int id = shmget(IPC_PRIVATE, EDU_AREA, IPC_CREAT | 0600);
	void *at = id < 0 ? MAP_FAILED : shmat(id, NULL, 0);

	if (id >= 0)
		shmctl(id, IPC_RMID, NULL); /* when it is detached */
	if (at == MAP_FAILED)
		FAILED("a SysV segment: %s", strerror(errno));
	a->at = at;
	a->length = EDU_AREA;
	return PASS;
}

static enum verdict make_heap(struct edu_area *a)
{
	const char *end = sbrk(0);

	a->length = EDU_AREA;
	a->at = aligned_alloc(PAGE, EDU_AREA);
	if (!a->at)
		FAILED("no memory");
	/* Or it would be one more case of anonymous memory. */
	CHECK(a->at < end || a->at < (char *)sbrk(0), "malloc took it from a mapping");
	return PASS;
}

/* Below what the case will use of it, and above what the next one gets. */
static enum verdict make_stack(struct edu_area *a)
{
	static unsigned taken;
	char *here = (char *)((uintptr_t)__builtin_frame_address(0) & ~(PAGE - 1));

	a->length = EDU_AREA;
	a->at = here - (64 + 8 * taken++) * PAGE;
	/* It grows to what is touched, and has holes above. */
	*(volatile char *)(a->at - PAGE) = 0;
	return PASS;
}

static enum verdict make_file(struct edu_area *a, const char *directory, int flags)
{
	int fd = lab_file(directory, EDU_AREA);

	if (fd < 0)
		FAILED("a file in %s: %s", directory, strerror(errno));
	return mapped(a, EDU_AREA, flags, fd);
}

static enum verdict make_private_file(struct edu_area *a)
{
	return make_file(a, "/var/tmp", MAP_PRIVATE);
}

static enum verdict make_shared_file(struct edu_area *a)
{
	return make_file(a, "/var/tmp", MAP_SHARED);
}

static enum verdict make_tmpfs(struct edu_area *a)
{
	return make_file(a, "/dev/shm", MAP_SHARED);
}

static enum verdict make_dax(struct edu_area *a, const char *variable, int flags)
{
	enum verdict verdict;
	const char *directory = lab_directory(variable, &verdict);

	return directory ? make_file(a, directory, flags) : verdict;
}

static enum verdict make_ext4(struct edu_area *a)
{
	return make_dax(a, "UHMM_LAB_EXT4", MAP_SHARED);
}

static enum verdict make_xfs(struct edu_area *a)
{
	return make_dax(a, "UHMM_LAB_XFS", MAP_SHARED);
}

/* Written to: the pages are the process's own copies. */
static enum verdict make_private_ext4(struct edu_area *a)
{
	return make_dax(a, "UHMM_LAB_EXT4", MAP_PRIVATE);
}

static enum verdict make_private_xfs(struct edu_area *a)
{
	return make_dax(a, "UHMM_LAB_XFS", MAP_PRIVATE);
}

static enum verdict make_devdax(struct edu_area *a)
{
	const char *path = getenv("UHMM_LAB_DEVDAX");
	int fd;

	if (!path)
		return live_skip("UHMM_LAB_DEVDAX names no device (the lab does)");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		FAILED("%s: %s", path, strerror(errno));
	return mapped(a, HUGE, MAP_SHARED, fd);
}

const struct edu_kind edu_kinds[] = {
	{ "anon", make_anon, PINNED, PINNED, false },
	{ "thp", make_thp, PINNED, PINNED, false },
	{ "hugetlb", make_hugetlb, PINNED, PINNED, false },
	{ "memfd", make_memfd, PINNED, PINNED, true },
	{ "private-file", make_private_file, PINNED, PINNED, false },
	{ "shared-file", make_shared_file, BOUNCED, PINNED, true },
	{ "ext4", make_ext4, BOUNCED, BOUNCED, true },
	{ "xfs", make_xfs, BOUNCED, BOUNCED, true },
	{ "private-ext4", make_private_ext4, BOUNCED_BY_TYPE1, BOUNCED, false },
	{ "private-xfs", make_private_xfs, BOUNCED_BY_TYPE1, BOUNCED, false },
	{ "devdax", make_devdax, PINNED, PINNED, false },
	{ "heap", make_heap, PINNED, PINNED, false },
	{ "stack", make_stack, PINNED, PINNED, false },
	{ "tmpfs", make_tmpfs, PINNED, PINNED, true },
	{ "sysv", make_sysv, PINNED, PINNED, false },
};
const unsigned edu_kind_count = sizeof(edu_kinds) / sizeof(edu_kinds[0]);

enum verdict edu_area_make(struct edu_area *a, const struct edu_kind *kind)
{
	*a = (struct edu_area){ .fd = -1 };
	TRY(kind->make(a));
	if (!a->use)
		a->use = a->at;
	return PASS;
}

/* How the page is mapped: for writing or not, and by a pin or a copy. */
static enum verdict check_mapped(const struct edu_case *c, struct edu *dev, const char *at,
				 bool write)
{
	enum edu_pin expected = write ? c->kind->pin : c->kind->read_pin;
	uint64_t entry = edu_lookup(dev, at);
	bool bounced = entry & HMM_PFN_DMA_BOUNCE;

	CHECK(!!(entry & HMM_PFN_WRITE) == write, "its translation is %#llx",
	      (unsigned long long)entry);
	CHECK(bounced || hmm_pfn_number(entry) == (uintptr_t)at / PAGE,
	      "it is mapped at %#llx, not at its own address %p",
	      (unsigned long long)hmm_pfn_number(entry) * PAGE, (const void *)at);
	if (expected == BOUNCED_BY_TYPE1 && c->way == EDU_IOMMUFD)
		expected = PINNED;
	CHECK(bounced == (expected != PINNED), "for %s it is %s",
	      write ? "writing" : "reading", bounced ? "bounced" : "pinned");
	return PASS;
}

/* Memory that nobody has touched, and that may be read only; and then written to as well.
 */
static enum verdict only_read(const struct edu_case *c, struct edu *dev, struct edu_area *a)
{
	unsigned char seen[64];

	SYS(mprotect(a->at, a->length, PROT_READ));
	EXPECT(0, edu_read(dev, seen, a->use, sizeof(seen)));
	CHECK(!memcmp(seen, a->use, sizeof(seen)), "the device reads %#x, the CPU %#x",
	      seen[0], (unsigned char)a->use[0]);
	TRY(check_mapped(c, dev, a->use, false));
	EXPECT(-EPERM, edu_write(dev, a->use, seen, sizeof(seen)));
	SYS(mprotect(a->at, a->length, RW));
	lab_fill(a->use, sizeof(seen), 4);
	EXPECT(0, edu_read(dev, seen, a->use, sizeof(seen)));
	CHECK(lab_differs(seen, sizeof(seen), 4) == sizeof(seen),
	      "the device does not see what the CPU wrote");
	return PASS;
}

#define BORDER 300 /* bytes on either side */

static enum verdict read_and_write(const struct edu_case *c, struct edu *dev,
				   struct edu_area *a)
{
	char *at = a->use + PAGE - BORDER, *other = a->use + 2 * PAGE + 100;
	unsigned char seen[2 * BORDER], bytes[2 * BORDER];

	lab_fill(at, sizeof(seen), 1);
	EXPECT(0, edu_read(dev, seen, at, sizeof(seen)));
	CHECK(lab_differs(seen, sizeof(seen), 1) == sizeof(seen),
	      "the device reads %#x at +%zu", seen[lab_differs(seen, sizeof(seen), 1)],
	      lab_differs(seen, sizeof(seen), 1));
	/* What the CPU writes from now on is seen too: what was read is not kept. */
	lab_fill(at, sizeof(seen), 2);
	EXPECT(0, edu_copy(dev, other, at, 64));
	CHECK(lab_differs(other, 64, 2) == 64, "the device copied something else");
	lab_fill(bytes, sizeof(bytes), 3);
	EXPECT(0, edu_write(dev, at, bytes, sizeof(bytes)));
	CHECK(!memcmp(at, bytes, sizeof(bytes)),
	      "the CPU does not see what the device wrote");
	TRY(check_mapped(c, dev, a->use, true));
	TRY(check_mapped(c, dev, a->use + 2 * PAGE, true));
	/* And nothing else was written. */
	CHECK(lab_differs(other, 64, 2) == 64, "a write went elsewhere");
	if (!c->kind->file)
		return PASS;
	SYS(msync(a->use, 4 * PAGE, MS_SYNC));
	SYS(pread(a->fd, seen, sizeof(seen), (off_t)(PAGE - BORDER)));
	CHECK(!memcmp(seen, bytes, sizeof(bytes)),
	      "the file does not have what the device wrote");
	return PASS;
}

enum verdict edu_run_kind(const void *arg)
{
	const struct edu_case *c = arg;
	struct edu_area fresh, area;
	struct edu *dev;

	TRY(edu_area_make(&fresh, c->kind));
	TRY(edu_area_make(&area, c->kind));
	TRY(edu_open_way(c, 0, &dev));
	TRY(only_read(c, dev, &fresh));
	TRY(read_and_write(c, dev, &area));
	edu_close(dev);
	return PASS;
}
