/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * kinds - making an area of each kind of memory.
 *
 * A kind that this machine does not have skips with the reason. Files are as long
 * as two areas, so that a mapping can grow into them; memory that is shared
 * without a name ends where it was made to end.
 */
#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

#include "kinds.h"
#include "uapi.h"

#define SMALL ((size_t)4096)
#define HUGE ((size_t)2 << 20)
#define HUGE_PAGES 32

#define RW (PROT_READ | PROT_WRITE)
#define NR_HUGEPAGES "/proc/sys/vm/nr_hugepages"

static char *stack_buffer;
static size_t area_pages = 8;
static long huge_before = -1;

void kinds_give_stack(char *buffer)
{
	stack_buffer = buffer;
}

void kinds_be_small(void)
{
	area_pages = 4;
}

static long huge_pages(long set)
{
	char text[32] = "";
	int fd = open(NR_HUGEPAGES, set < 0 ? O_RDONLY : O_WRONLY);
	ssize_t n;

	if (fd < 0)
		return -1;
	if (set >= 0)
		snprintf(text, sizeof(text), "%ld", set);
	n = set < 0 ? read(fd, text, sizeof(text) - 1) : write(fd, text, strlen(text));
	close(fd);
	return n > 0 ? atol(text) : -1;
}

void kinds_begin(void)
{
	long before = huge_pages(-1);

	if (before >= 0 && before < HUGE_PAGES && huge_pages(HUGE_PAGES) >= 0)
		huge_before = before;
}

void kinds_end(void)
{
	if (huge_before >= 0)
		huge_pages(huge_before);
}

/* What files and areas are filled with: every byte depends on its place. */
static void pattern(unsigned char *to, size_t length, unsigned seed)
{
	for (size_t i = 0; i < length; i++)
		to[i] = (unsigned char)(i * 7 + (i >> 12) * 13 + seed);
}

static enum verdict mapped(struct area *a, void *at)
{
	if (at == MAP_FAILED)
		return live_fail(__FILE__, __LINE__, "mmap: %s", strerror(errno));
	a->at = at;
	return PASS;
}

static enum verdict anonymous(struct area *a, int flags)
{
	return mapped(a, mmap(NULL, a->length, RW, MAP_ANONYMOUS | flags, -1, 0));
}

static void unmap(struct area *a)
{
	munmap(a->at, a->length);
}

static enum verdict make_anon(struct area *a)
{
	return anonymous(a, MAP_PRIVATE);
}

static enum verdict make_shmem(struct area *a)
{
	return anonymous(a, MAP_SHARED);
}

/* An area that starts at a multiple of its own length. */
static char *reserve_aligned(size_t length)
{
	char *p = live_map(2 * length, PROT_NONE);
	char *at = (char *)(((uintptr_t)p + length - 1) / length * length);

	munmap(p, (size_t)(at - p));
	munmap(at + length, (size_t)(p + length - at));
	return at;
}

static bool has_huge_page(const char *at)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start, end, kb;
	bool inside = false, has = false;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)at && (uintptr_t)at < end;
		if (inside && sscanf(line, "AnonHugePages: %lu", &kb) == 1)
			has |= kb != 0;
	}
	if (f)
		fclose(f);
	return has;
}

static enum verdict make_thp(struct area *a)
{
	a->length = HUGE;
	a->at = reserve_aligned(HUGE);
	if (mprotect(a->at, HUGE, RW) || madvise(a->at, HUGE, MADV_HUGEPAGE))
		return live_skip("the kernel has no transparent huge pages: %s",
				 strerror(errno));
	a->at[0] = 0;
	if (!has_huge_page(a->at))
		return live_skip("the kernel gave no transparent huge page");
	return PASS;
}

/* The area's bytes are the file's to begin with. */
static enum verdict map_file(struct area *a, int fd, int flags)
{
	unsigned char *bytes = malloc(2 * a->length);
	enum verdict verdict = PASS;

	if (fd < 0 || !bytes)
		return live_fail(__FILE__, __LINE__, "no file: %s", strerror(errno));
	pattern(bytes, 2 * a->length, 1);
	a->fd = fd;
	a->backing = bytes;
	if (a->kind->flags & KIND_HUGETLB) {
		/* hugetlb files cannot be written but through a mapping */
		char *all = MAP_FAILED;

		if (!ftruncate(fd, (off_t)(2 * a->length)))
			all = mmap(NULL, 2 * a->length, RW, MAP_SHARED, fd, 0);
		if (all == MAP_FAILED)
			return live_skip(
				"no huge pages: %s (write vm.nr_hugepages as root)",
				strerror(errno));
		memcpy(all, bytes, 2 * a->length);
		munmap(all, 2 * a->length);
	} else if (pwrite(fd, bytes, 2 * a->length, 0) != (ssize_t)(2 * a->length)) {
		return live_fail(__FILE__, __LINE__, "write: %s", strerror(errno));
	}
	verdict = mapped(a, mmap(NULL, a->length, RW, flags, fd, 0));
	if (verdict == PASS)
		memcpy(a->model, bytes, 2 * a->length);
	return verdict;
}

static int open_file(const char *dir)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/uhmm-live-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0)
		unlink(path);
	return fd;
}

static enum verdict make_private_file(struct area *a)
{
	return map_file(a, open_file("/var/tmp"), MAP_PRIVATE);
}

static enum verdict make_shared_file(struct area *a)
{
	return map_file(a, open_file("/var/tmp"), MAP_SHARED);
}

static enum verdict make_memfd(struct area *a)
{
	return map_file(a, memfd_create("uhmm-live", MFD_CLOEXEC), MAP_SHARED);
}

/* Free huge pages: a fork doubles what is private, and others may have taken them. */
static bool has_free_huge_pages(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned free_pages = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "HugePages_Free: %u", &free_pages);
	if (f)
		fclose(f);
	return free_pages >= HUGE_PAGES / 2;
}

static enum verdict make_hugetlb(struct area *a)
{
	if (!has_free_huge_pages())
		return live_skip(
			"fewer than %u huge pages are free (write vm.nr_hugepages as "
			"root)",
			HUGE_PAGES / 2);
	a->unit = HUGE;
	a->length = 4 * HUGE;
	a->at = mmap(NULL, a->length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (a->at == MAP_FAILED)
		return live_skip("no huge pages: %s (write vm.nr_hugepages as root)",
				 strerror(errno));
	return PASS;
}

static enum verdict make_hugetlb_memfd(struct area *a)
{
	a->unit = HUGE;
	a->length = 4 * HUGE;
	return map_file(a, memfd_create("uhmm-live", MFD_CLOEXEC | MFD_HUGETLB),
			MAP_SHARED);
}

/* A directory on a filesystem that is mounted with DAX, or what the tester names. */
static bool dax_directory(char *dir, size_t size)
{
	const char *named = getenv("UHMM_TEST_DAX");
	struct mntent *m;
	bool found = false;
	FILE *f;

	if (named) {
		snprintf(dir, size, "%s", named);
		return true;
	}
	f = setmntent("/proc/self/mounts", "re");
	while (f && !found && (m = getmntent(f)))
		if (hasmntopt(m, "dax") || hasmntopt(m, "dax=always")) {
			snprintf(dir, size, "%s", m->mnt_dir);
			found = true;
		}
	if (f)
		endmntent(f);
	return found;
}

static enum verdict make_dax(struct area *a)
{
	char dir[256];

	if (!dax_directory(dir, sizeof(dir)))
		return live_skip(
			"no filesystem is mounted with DAX here (set UHMM_TEST_DAX to "
			"a directory of one)");
	return map_file(a, open_file(dir), MAP_SHARED);
}

static enum verdict make_read_only(struct area *a)
{
	if (make_anon(a) != PASS)
		return FAIL;
	pattern(a->model, a->length, 3);
	memcpy(a->at, a->model, a->length);
	area_model_access(a, 0, area_units(a), READ);
	return mprotect(a->at, a->length, PROT_READ) ? FAIL : PASS;
}

static enum verdict make_prot_none(struct area *a)
{
	if (make_anon(a) != PASS)
		return FAIL;
	pattern(a->model, a->length, 4);
	memcpy(a->at, a->model, a->length);
	area_model_access(a, 0, area_units(a), NONE);
	return mprotect(a->at, a->length, PROT_NONE) ? FAIL : PASS;
}

static enum verdict make_stack(struct area *a)
{
	a->at = stack_buffer;
	memset(a->at, 0, a->length);
	return PASS;
}

static void dispose_stack(struct area *a)
{
}

/*
 * Another thread's stack: it lies in wait on it until the area is disposed of. The stack
 * is given to the thread, for libc gives its own to the next thread that a forked child
 * makes.
 */
#define SLEEPER_STACK ((size_t)1 << 20)

struct sleeper {
	pthread_t thread;
	pthread_barrier_t up, down;
	char *stack, *buffer;
};

static void *sleeper_main(void *arg)
{
	struct sleeper *s = arg;
	char buffer[STACK_BYTES + SMALL];

	s->buffer = (char *)(((uintptr_t)buffer + SMALL - 1) & ~(SMALL - 1));
	memset(s->buffer, 0, STACK_BYTES);
	pthread_barrier_wait(&s->up);
	pthread_barrier_wait(&s->down);
	return NULL;
}

static enum verdict make_thread_stack(struct area *a)
{
	struct sleeper *s = calloc(1, sizeof(*s));
	pthread_attr_t attr;

	s->stack = mmap(NULL, SLEEPER_STACK, RW,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	pthread_attr_init(&attr);
	if (pthread_attr_setstack(&attr, s->stack, SLEEPER_STACK))
		return live_fail(__FILE__, __LINE__, "no stack");
	pthread_barrier_init(&s->up, NULL, 2);
	pthread_barrier_init(&s->down, NULL, 2);
	if (pthread_create(&s->thread, &attr, sleeper_main, s))
		return live_fail(__FILE__, __LINE__, "no thread");
	pthread_barrier_wait(&s->up);
	a->priv = s;
	a->at = s->buffer;
	return PASS;
}

static void dispose_thread_stack(struct area *a)
{
	struct sleeper *s = a->priv;

	pthread_barrier_wait(&s->down);
	pthread_join(s->thread, NULL);
	munmap(s->stack, SLEEPER_STACK);
	free(s);
}

/* The break as it was before; what was moved away is unmapped where it is. */
static enum verdict make_heap(struct area *a)
{
	char *old = sbrk(0);
	char *at = (char *)(((uintptr_t)old + SMALL - 1) & ~(SMALL - 1));

	if (brk(at + a->length))
		return live_fail(__FILE__, __LINE__, "brk: %s", strerror(errno));
	a->at = at;
	a->priv = old;
	return PASS;
}

static void dispose_heap(struct area *a)
{
	char *old = a->priv;
	char *base = (char *)(((uintptr_t)old + SMALL - 1) & ~(SMALL - 1));

	munmap(a->at, a->length);
	/* Unless malloc has gone on behind it. */
	if ((char *)sbrk(0) == base + area_pages * SMALL)
		brk(old);
}

static enum verdict make_sysv(struct area *a)
{
	int id = shmget(IPC_PRIVATE, a->length, IPC_CREAT | 0600);

	if (id < 0)
		return live_skip("no SysV shared memory: %s", strerror(errno));
	a->at = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	return a->at == (char *)-1 ? FAIL : PASS;
}

const struct kind live_kinds[] = {
	{ "anon", 0, make_anon, unmap },
	{ "thp", 0, make_thp, unmap },
	{ "private-file", KIND_FILE, make_private_file, unmap },
	{ "shared-file", KIND_FILE | KIND_SHARED, make_shared_file, unmap },
	{ "shmem", KIND_SHARED | KIND_OBJECT, make_shmem, unmap },
	{ "memfd", KIND_FILE | KIND_SHARED, make_memfd, unmap },
	{ "hugetlb", KIND_HUGETLB, make_hugetlb, unmap },
	{ "hugetlb-memfd", KIND_HUGETLB | KIND_FILE | KIND_SHARED, make_hugetlb_memfd,
	  unmap },
	{ "dax", KIND_FILE | KIND_SHARED, make_dax, unmap },
	{ "read-only", 0, make_read_only, unmap },
	{ "prot-none", 0, make_prot_none, unmap },
	{ "stack", KIND_STACK, make_stack, dispose_stack },
	{ "thread-stack", KIND_STACK, make_thread_stack, dispose_thread_stack },
	{ "heap", 0, make_heap, dispose_heap },
	{ "sysv", KIND_SHARED | KIND_OBJECT, make_sysv, unmap },
};
const unsigned live_kind_count = sizeof(live_kinds) / sizeof(live_kinds[0]);

enum verdict area_make(struct area *a, const struct kind *kind)
{
	enum verdict verdict;

	*a = (struct area){ .kind = kind, .unit = SMALL, .length = area_pages * SMALL,
			    .fd = -1 };
	a->model = calloc(1, 16 * HUGE);
	memset(a->access, WRITE, sizeof(a->access));
	verdict = kind->make(a);
	if (verdict == PASS)
		return PASS;
	if (a->fd >= 0)
		close(a->fd);
	free(a->model);
	free(a->backing);
	return verdict;
}

void area_dispose(struct area *a)
{
	a->kind->dispose(a);
	if (a->fd >= 0)
		close(a->fd);
	free(a->model);
	free(a->backing);
}
