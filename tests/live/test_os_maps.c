/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_os_maps - mappings, files, pages, regions and attached processes through the live
 * table (src/os), on the running kernel.
 */
#include "os_test.h"

#ifndef PR_SET_MEMORY_MERGE /* Linux 6.4 */
#define PR_SET_MEMORY_MERGE 67
#endif

#define BLOCK ((size_t)2 << 20)

static const struct os_ops *os;

/* ---- mappings ---- */

/* All but name and kind, field by field: padding is anything. */
static bool same(const struct os_vma *a, const struct os_vma *b)
{
	return a->start == b->start && a->end == b->end && a->prot == b->prot &&
	       a->shared == b->shared && a->page_size == b->page_size &&
	       a->offset == b->offset && a->inode == b->inode &&
	       a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

static void expect_vma(const struct os_mm *mm, const void *p, enum os_vma_kind kind, int prot,
		       bool shared)
{
	struct os_vma vma, fast;

	assert_int_equal(os->vma_find(mm, (uintptr_t)p, &vma), 0);
	assert_true(vma.start <= (uintptr_t)p && (uintptr_t)p < vma.end);
	assert_int_equal(vma.kind, kind);
	assert_int_equal(vma.prot, prot);
	assert_int_equal(vma.shared, shared);
	assert_int_equal(os->vma_find_fast(mm, (uintptr_t)p, &fast), 0);
	assert_int_equal(fast.kind, vma.inode ? OS_VMA_FILE : OS_VMA_ANON);
	assert_string_equal(fast.name, "");
	assert_true(same(&fast, &vma));
}

static int set_hugepages(int n)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", "r+");
	int before = -1;

	if (!f || fscanf(f, "%d", &before) != 1)
		return -1;
	rewind(f);
	fprintf(f, "%d\n", n);
	fclose(f);
	return before;
}

static void test_vma_kinds(void **state)
{
	size_t huge = 2 << 20;
	int zero = open("/dev/zero", O_RDWR), mfd = memfd_create("x", 0);
	int id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | 0600), had = set_hugepages(4);
	struct os_mm mm;
	struct os_vma vma;
	char *p = anon(3), *sysv;

	assert_int_equal(os->mm_open(&mm, 0), 0);
	mprotect(p + PAGE, PAGE, PROT_NONE);
	expect_vma(&mm, p, OS_VMA_ANON, RW, false);
	expect_vma(&mm, p + PAGE, OS_VMA_ANON, PROT_NONE, false);
	assert_ptr_not_equal(sbrk((intptr_t)PAGE), (void *)-1);
	expect_vma(&mm, (char *)sbrk(0) - 1, OS_VMA_HEAP, RW, false);
	expect_vma(&mm, __builtin_frame_address(0), OS_VMA_STACK, RW, false);
	expect_vma(&mm, (void *)(uintptr_t)&test_vma_kinds, OS_VMA_FILE, PROT_READ | PROT_EXEC,
		   false);
	expect_vma(&mm, mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0), OS_VMA_SHMEM,
		   RW, true);
	expect_vma(&mm, mmap(NULL, PAGE, RW, MAP_PRIVATE, zero, 0), OS_VMA_ANON, RW, false);
	expect_vma(&mm, mmap(NULL, PAGE, RW, MAP_SHARED, zero, 0), OS_VMA_SHMEM, RW, true);
	expect_vma(&mm, mmap(NULL, PAGE, RW, MAP_SHARED, mfd, 0), OS_VMA_SHMEM, RW, true);
	expect_vma(&mm, file_map("/tmp/test_os.kind", 2, PROT_READ, MAP_SHARED), OS_VMA_FILE,
		   PROT_READ, true);
	sysv = shmat(id, NULL, 0);
	expect_vma(&mm, sysv, OS_VMA_SYSV, RW, true);
	p = mmap(NULL, huge, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (p != MAP_FAILED) {
		expect_vma(&mm, p, OS_VMA_HUGETLB, RW, false);
		os->vma_find(&mm, (uintptr_t)p, &vma);
		assert_int_equal(vma.page_size, huge);
		munmap(p, huge);
	} else {
		fprintf(stderr, "skip: no hugetlb pages\n");
	}
	assert_int_equal(os->vma_find(&mm, 0, &vma), 0); /* the next above */
	while (!os->vma_find(&mm, vma.end, &vma)) {
		if (strstr(vma.name, "[v"))
			assert_int_equal(vma.kind, OS_VMA_SPECIAL);
		assert_true(vma.end < (uintptr_t)1 << 56); /* never the kernel's half */
	}
	assert_int_equal(os->vma_find(&mm, UINTPTR_MAX, &vma), -ENOENT);
	if (had >= 0)
		set_hugepages(had);
	shmdt(sysv);
	shmctl(id, IPC_RMID, NULL);
	close(zero);
	close(mfd);
	unlink("/tmp/test_os.kind");
	os->mm_close(&mm);
	assert_int_equal(mm.maps_fd, -1);
}

static void test_mm_descriptors_lost(void **state)
{
	struct os_run run;
	struct os_vma vma;
	struct os_mm mm;
	uintptr_t next;
	char *p = anon(1);
	int fd = open("/dev/null", O_RDONLY), number;

	*p = 1;
	assert_int_equal(os->mm_open(&mm, 0), 0);
	number = mm.maps_fd;
	assert_true(mm.maps_fd >= 128 && mm.pagemap_fd >= 128);
	for (int round = 0; round < 2; round++) {
		assert_int_equal(os->vma_find(&mm, (uintptr_t)p, &vma), 0);
		assert_int_equal(os->vma_find_fast(&mm, (uintptr_t)p, &vma), 0);
		assert_int_equal(os->scan(&mm, (uintptr_t)p, (uintptr_t)p + PAGE, 0, &run, 1,
					  &next), 1);
		assert_int_equal(run.flags, OS_PAGE_PRESENT);
		dup2(fd, mm.maps_fd); /* somebody else's now */
		close(mm.pagemap_fd);
	}
	os->mm_close(&mm);
	assert_int_equal(close(number), 0); /* not ours to close */
	munmap(p, PAGE);
	close(fd);
}

static void test_file(void **state)
{
	const char *path = "/tmp/test_os.file", *other = "/tmp/test_os.other";
	char *p = file_map(path, 4, RW, MAP_SHARED), *q = anon(1);
	struct os_mm mm;
	struct os_vma vma;

	assert_int_equal(os->mm_open(&mm, 0), 0);
	os->vma_find(&mm, (uintptr_t)p, &vma);
	assert_string_equal(vma.name, path);
	assert_false(os->vma_is_dax(&mm, &vma));
	assert_int_equal(os->vma_file_size(&mm, &vma), 4 * PAGE);
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(os->vma_file_size(&mm, &vma), 100);
	munmap(file_map(other, 9, RW, MAP_SHARED), 9 * PAGE);
	rename(other, path); /* the path means another file now */
	assert_int_equal(os->vma_file_size(&mm, &vma), 100);
	unlink(path);
	os->vma_find(&mm, (uintptr_t)p, &vma);
	assert_non_null(strstr(vma.name, "(deleted)"));
	assert_int_equal(os->vma_file_size(&mm, &vma), 100);
	os->vma_find(&mm, (uintptr_t)q, &vma);
	assert_int_equal(os->vma_file_size(&mm, &vma), -ENOENT);
	strcpy(vma.name, "/dev/dax0.0");
	assert_true(os->vma_is_dax(&mm, &vma));
	os->mm_close(&mm);
	munmap(p, 4 * PAGE);
	munmap(q, PAGE);
}

static void test_attached(void **state)
{
	int go[2], status;
	uint64_t *p = (void *)anon(4), value = 0;
	struct os_run runs[4];
	struct os_vma vma;
	struct os_mm mm;
	uintptr_t next, at = (uintptr_t)p;
	pid_t pid;

	assert_int_equal(os->mm_open(&mm, 0x3ffffff), -ESRCH);
	assert_int_equal(pipe(go), 0);
	*p = 1;
	pid = fork();
	if (!pid) {
		*p = 42;
		mprotect((char *)p + PAGE, PAGE, PROT_NONE);
		if (write(go[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	assert_int_equal(read(go[0], &value, 1), 1);
	assert_int_equal(os->mm_open(&mm, pid), 0);
	assert_int_equal(os->vma_find(&mm, at, &vma), 0);
	assert_int_equal(vma.end, at + PAGE);
	assert_int_equal(os->scan(&mm, at, at + 4 * PAGE, OS_SCAN_POPULATED, runs, 4, &next), 1);
	assert_int_equal(runs[0].end, at + PAGE);
	assert_int_equal(os->copy_from(&mm, &value, at, 8), 0);
	assert_int_equal(value, 42);
	value = 43;
	assert_int_equal(os->copy_to(&mm, at + PAGE - 8, &value, 8), 0);
	assert_int_equal(os->copy_to(&mm, at + PAGE - 4, &value, 8), -EFAULT);
	assert_int_equal(*p, 1);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	assert_int_equal(os->vma_find(&mm, at, &vma), -ESRCH);
	assert_int_equal(os->copy_from(&mm, &value, at, 8), -ESRCH);
	assert_int_equal(os->scan(&mm, at, at + PAGE, 0, runs, 4, &next), -ESRCH);
	os->mm_close(&mm);
	close(go[0]);
	close(go[1]);
	munmap(p, 4 * PAGE);
}

/* ---- flags of a mapping, regions, what is critical ---- */

static unsigned flags_of(const void *p)
{
	unsigned flags = ~0u;

	assert_int_equal(os->vma_flags((uintptr_t)p, &flags), 0);
	return flags;
}

static void test_vma_flags(void **state)
{
	uintptr_t missing;
	struct os_ctx ctx = { 0 };
	char *p = anon(8);
	unsigned flags = 77;

	missing = (uintptr_t)p + PAGE;
	assert_int_equal(os->ctx_open(&ctx), 0);
	assert_int_equal(os->ctx_register_missing(&ctx, missing, missing + PAGE), 0);
	assert_int_equal(madvise(p + 3 * PAGE, PAGE, MADV_WIPEONFORK), 0);
	/* Not by libc: a sanitizer's has nothing locked. */
	assert_int_equal(syscall(SYS_mlock, p + 5 * PAGE, PAGE), 0);
	assert_int_equal(flags_of(p), 0);
	assert_int_equal(flags_of(p + PAGE + 17), OS_VMA_MISSING);
	assert_int_equal(flags_of(p + 2 * PAGE), 0);
	assert_int_equal(flags_of(p + 3 * PAGE), OS_VMA_WIPEONFORK);
	assert_int_equal(flags_of(p + 5 * PAGE), OS_VMA_LOCKED);
	assert_int_equal(flags_of(p + 7 * PAGE), 0);
	assert_int_equal(os->ctx_unregister(&ctx, missing, missing + PAGE), 0);
	assert_int_equal(flags_of((void *)missing), 0);
	os->ctx_close(&ctx);
	munmap(p + 7 * PAGE, PAGE);
	assert_int_equal(os->vma_flags((uintptr_t)p + 7 * PAGE, &flags), -ENOENT);
	assert_int_equal(os->vma_flags(0, &flags), -ENOENT);
	assert_int_equal(os->vma_flags(~(uintptr_t)0 >> 1, &flags), -ENOENT);
	assert_int_equal(flags, 77);
	munmap(p, 7 * PAGE);
}

/* In a child: it has not inherited the region. */
static char *probed;

static void not_inherited(void)
{
	unsigned char there;

	NEED(mincore(probed, PAGE, &there) && errno == ENOMEM);
}

static void test_region(void **state)
{
	static const size_t sizes[] = { 1, PAGE, BLOCK, 3 * BLOCK + PAGE };
	struct os_mm mm;
	struct os_vma vma;

	assert_int_equal(os->mm_open(&mm, 0), 0);
	for (int i = 0; i < 4; i++) {
		size_t size = (sizes[i] + PAGE - 1) & ~(PAGE - 1);
		char *p = os->region_map(sizes[i]);
		uintptr_t at = (uintptr_t)p;

		assert_int_equal(at % BLOCK, 0);
		assert_true(arena_owns(at, at + 1) && arena_owns(at + size - 1, at + size));
		assert_true(arena_owns(at - PAGE, at) && arena_owns(at + size, at + size + PAGE));
		assert_false(arena_owns(at - 2 * PAGE, at - PAGE));
		assert_int_equal(os->vma_find(&mm, at, &vma), 0);
		assert_true(vma.start == at && vma.end == at + size && vma.prot == RW);
		assert_true(vma.kind == OS_VMA_ANON && !vma.shared);
		assert_int_equal(os->vma_find(&mm, at - 1, &vma), 0);
		assert_true(vma.prot == PROT_NONE && vma.end - vma.start == PAGE);
		assert_int_equal(os->vma_find(&mm, at + size, &vma), 0);
		assert_true(vma.prot == PROT_NONE && vma.end - vma.start == PAGE);
		p[size - 1] = 1;
		probed = p;
		assert_int_equal(in_child(not_inherited), 0);
		os->region_unmap(p, sizes[i]);
		assert_false(arena_owns(at - PAGE, at + size + PAGE));
		assert_true(os->vma_find(&mm, at, &vma) || vma.start > at + size);
	}
	os->region_unmap(NULL, PAGE);
	assert_null(os->region_map(0));
	assert_null(os->region_map(SIZE_MAX));
	assert_null(os->region_map((size_t)1 << 60));
	os->mm_close(&mm);
}

/* A program that locks all it has: regions are not locked, pages go back and forth. */
static void everything_locked(void)
{
	struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	unsigned char there;
	unsigned flags;
	char *p;

	setrlimit(RLIMIT_MEMLOCK, &all);
	if (mlockall(MCL_FUTURE) || !(flags_of(anon(1)) & OS_VMA_LOCKED))
		_exit(77); /* not allowed; or a sanitizer's, which locks nothing */
	p = os->region_map(BLOCK);
	NEED(p && !os->vma_flags((uintptr_t)p, &flags) && !(flags & OS_VMA_LOCKED));
	NEED(mincore(p, PAGE, &there) == 0 && !(there & 1)); /* nor filled */
	p[0] = 1;
	mlock(p, PAGE);
	os->region_zap((uintptr_t)p, PAGE);
	munlock(p, PAGE);
	NEED(p[0] == 0);
}

static void test_region_mlockall(void **state)
{
	int status = in_child(everything_locked);
	if (WEXITSTATUS(status) == 77) {
		print_message("mlockall is not allowed here\n");
		skip();
	}
	assert_int_equal(status, 0);
}

/* Does smaps say that KSM may merge the mapping that begins there? */
static bool merged(const void *start)
{
	FILE *smaps = fopen("/proc/self/smaps", "r");
	bool here = false, is = false;
	char line[512];

	NEED(smaps);
	while (fgets(line, sizeof(line), smaps)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			here = from <= (uintptr_t)start && (uintptr_t)start < to;
		else if (here && !strncmp(line, "VmFlags:", 8))
			is = strstr(line, " mg");
	}
	fclose(smaps);
	return is;
}

/* A program that has all it maps merged (systemd's MemoryKSM=): but regions, which have to move. */
static void everything_merged(void)
{
	if (prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0) || !merged(anon(1)))
		_exit(77);
	NEED(!merged(os->region_map(BLOCK)));
}

static void test_region_merged(void **state)
{
	int status = in_child(everything_merged);

	if (WEXITSTATUS(status) == 77) {
		print_message("memory cannot be merged here\n");
		skip();
	}
	assert_int_equal(status, 0);
}

static bool critical(const void *p)
{
	return os->critical((uintptr_t)p, (uintptr_t)p + 1);
}

static int of_this_program;

/* What of the process's mappings has to be critical, by the text of maps: writable ones of libc
 * and the dynamic linker, and the nameless one behind that is their .bss. */
static unsigned check_maps(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], prot[5], path[256];
	unsigned long start, end, behind = 0;
	unsigned count = 0;

	while (fgets(line, sizeof(line), maps)) {
		bool of_system, bss;

		path[0] = '\0';
		sscanf(line, "%lx-%lx %4s %*s %*s %*s %255s", &start, &end, prot, path);
		of_system = strstr(path, "/libc.so") || strstr(path, "/ld-linux");
		bss = !path[0] && start == behind;
		behind = 0;
		if (!of_system && !bss)
			continue;
		behind = of_system && prot[1] == 'w' ? end : 0;
		if (prot[1] != 'w')
			continue;
		assert_true(critical((void *)start) && critical((void *)(end - 1)));
		assert_true(os->critical(start - PAGE, start + 1));
		count++;
	}
	fclose(maps);
	return count;
}

static void test_critical(void **state)
{
	char here, *heap = malloc(100), *p = anon(1);

	assert_true(check_maps() >= 2);
	assert_true(critical(stdout)); /* libc's own */
	assert_false(critical(p) || critical(heap) || critical(&here));
	assert_false(os->critical((uintptr_t)p, (uintptr_t)p));
	/* The library is linked into this program: they cannot be told apart. */
	print_message("the program's own data are %scritical\n",
		      critical(&of_this_program) ? "" : "not ");
	assert_true(critical(&of_this_program));
	free(heap);
	munmap(p, PAGE);
}

/* ---- pages ---- */

static void test_scan(void **state)
{
	char *p = anon(600), *thp, *file = file_map("/tmp/test_os.scan", 2, RW, MAP_SHARED);
	uintptr_t at = (uintptr_t)p, next;
	struct os_run runs[300];
	struct os_mm mm;
	size_t huge = 2 << 20;

	assert_int_equal(os->mm_open(&mm, 0), 0);
	madvise(p, 600 * PAGE, MADV_NOHUGEPAGE);
	for (int i = 0; i < 600; i += 2)
		p[(size_t)i * PAGE] = 1;
	(void)*(volatile char *)(p + PAGE);
	assert_int_equal(os->scan(&mm, at, at + 600 * PAGE, OS_SCAN_POPULATED, runs, 300, &next),
			 300);
	assert_int_equal(runs[0].start, at);
	assert_int_equal(runs[0].flags, OS_PAGE_PRESENT);
	assert_int_equal(runs[1].flags, OS_PAGE_PRESENT | OS_PAGE_ZERO);
	assert_int_equal(runs[299].end, at + 597 * PAGE);
	assert_in_range(next, at + 597 * PAGE, at + 598 * PAGE); /* full: go on from here */
	assert_int_equal(os->scan(&mm, next, at + 600 * PAGE, OS_SCAN_POPULATED, runs, 300,
				  &next), 1);
	assert_int_equal(next, at + 600 * PAGE);
	/* In small steps: the same, and a run is not cut where it need not be. */
	memset(p, 1, 600 * PAGE);
	assert_int_equal(os->scan(&mm, at, at + 600 * PAGE, 0, runs, 1, &next), 1);
	assert_int_equal(runs[0].end, at + 600 * PAGE);

	file[0] = 1;
	assert_int_equal(os->scan(&mm, (uintptr_t)file, (uintptr_t)file + PAGE, 0, runs, 1, &next),
			 1);
	assert_int_equal(runs[0].flags, OS_PAGE_PRESENT | OS_PAGE_FILE);
	thp = mmap(NULL, 2 * huge, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	thp = (char *)(((uintptr_t)thp + huge - 1) & ~(huge - 1));
	if (!madvise(thp, huge, MADV_HUGEPAGE)) {
		*thp = 1;
		os->scan(&mm, (uintptr_t)thp, (uintptr_t)thp + huge, 0, runs, 4, &next);
		if (runs[0].flags != (OS_PAGE_PRESENT | OS_PAGE_HUGE))
			fprintf(stderr, "skip: no transparent huge page was given\n");
	}
	assert_int_equal(os->scan(&mm, at, at, 0, runs, 1, &next), -EINVAL);
	os->mm_close(&mm);
	munmap(p, 600 * PAGE);
	munmap(file, 2 * PAGE);
	unlink("/tmp/test_os.scan");
}

/* Plainly, whatever is mapped is in a run, whatever it is and has; what is not is a hole. */
static void test_scan_holes(void **state)
{
	char *p = anon(4), *file = file_map("/tmp/test_os.scan", 2, RW, MAP_SHARED);
	const struct {
		char *page;
		int runs;
	} expect[] = { { p, 1 }, { p + PAGE, 1 }, { p + 2 * PAGE, 0 }, { p + 3 * PAGE, 1 },
		       { file + PAGE, 1 } };
	struct os_mm mm;

	assert_int_equal(os->mm_open(&mm, 0), 0);
	mprotect(p + PAGE, PAGE, PROT_NONE);
	munmap(p + 2 * PAGE, PAGE);
	for (size_t i = 0; i < sizeof(expect) / sizeof(expect[0]); i++) {
		uintptr_t at = (uintptr_t)expect[i].page, next;
		struct os_run run;

		assert_int_equal(os->scan(&mm, at, at + PAGE, 0, &run, 1, &next), expect[i].runs);
	}
	os->mm_close(&mm);
	munmap(p, 4 * PAGE);
	munmap(file, 2 * PAGE);
	unlink("/tmp/test_os.scan");
}

static int fill(char *p, size_t pages, bool write)
{
	return os->populate((uintptr_t)p, (uintptr_t)p + pages * PAGE, write);
}

static void test_populate(void **state)
{
	char *p = anon(8), *file = file_map("/tmp/test_os.pop", 64, RW, MAP_SHARED);
	struct os_run runs[8];
	struct os_mm mm;
	uintptr_t next;

	madvise(file, 64 * PAGE, MADV_RANDOM);
	assert_int_equal(os->mm_open(&mm, 0), 0);
	assert_int_equal(fill(p, 2, true), 0);
	assert_int_equal(os->scan(&mm, (uintptr_t)p, (uintptr_t)p + 8 * PAGE, OS_SCAN_POPULATED,
				  runs, 8, &next), 1);
	assert_int_equal(runs[0].end, (uintptr_t)p + 2 * PAGE);
	mprotect(p, PAGE, PROT_NONE);
	assert_int_equal(fill(p, 1, false), -EFAULT);
	mprotect(p, PAGE, PROT_READ);
	assert_int_equal(fill(p, 1, false), 0);
	assert_int_equal(fill(p, 1, true), -EFAULT);
	munmap(p + 7 * PAGE, PAGE);
	assert_int_equal(fill(p + 4 * PAGE, 4, false), -ENOMEM);
	assert_int_equal(truncate("/tmp/test_os.pop", 32 * (off_t)PAGE), 0);
	assert_int_equal(fill(file + 32 * PAGE, 1, false), -EFAULT);

	/* Only what the page cache has: two stretches (without read-around). */
	assert_int_equal(fill(file, 4, true), 0);
	assert_int_equal(fill(file + 8 * PAGE, 2, true), 0);
	madvise(file, 64 * PAGE, MADV_DONTNEED);
	os->populate_resident((uintptr_t)file, (uintptr_t)file + 64 * PAGE);
	assert_int_equal(os->scan(&mm, (uintptr_t)file, (uintptr_t)file + 64 * PAGE,
				  OS_SCAN_POPULATED, runs, 8, &next), 2);
	assert_int_equal(runs[0].end, (uintptr_t)file + 4 * PAGE);
	assert_int_equal(runs[1].start, (uintptr_t)file + 8 * PAGE);
	assert_int_equal(runs[1].end, (uintptr_t)file + 10 * PAGE);
	os->mm_close(&mm);
	munmap(p, 7 * PAGE);
	munmap(file, 64 * PAGE);
	unlink("/tmp/test_os.pop");
}

/* Run again without PROCMAP_QUERY: maps' text says the same as the ioctl, of every VMA. */
static void same_by_text(void)
{
	int fd = open("/proc/self/maps", O_RDONLY);
	unsigned count = 0, huge = 0;
	struct os_vma text, call;
	uintptr_t at = 0;
	struct os_mm mm;
	int err, had = set_hugepages(4);

	mmap(NULL, 2 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	NEED(mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	NEED(mmap(NULL, PAGE, RW, MAP_SHARED, memfd_create("a b  c", 0), 0) != MAP_FAILED);
	NEED(mmap(NULL, PAGE, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
	NEED(!feature_procmap_query() && !os->mm_open(&mm, 0));
	for (;; at = call.end, count++) {
		char name[4096] = "";

		err = os->vma_find(&mm, at, &text);
		NEED(err == procmap_query(fd, at, &call, name, sizeof(name)));
		if (err)
			break;
		huge += text.page_size > PAGE;
		NEED(!memcmp(text.name, name, strlen(name) + 1));
		NEED(same(&text, &call));
		NEED(!os->vma_find_fast(&mm, at, &text) && text.kind == call.kind);
		NEED(same(&text, &call) && !text.name[0]);
	}
	NEED(err == -ENOENT && count > 20);
	if (had >= 0)
		set_hugepages(had);
	fprintf(stderr, "compared %u mappings, %u of huge pages\n", count, huge);
}

static void kinds_by_text(void)
{
	test_vma_kinds(NULL);
}

static void attached_by_text(void)
{
	test_attached(NULL);
}

static const struct itself table[] = {
	{ "same", same_by_text },
	{ "kinds", kinds_by_text },
	{ "attached", attached_by_text },
	{ NULL, NULL },
};

static void test_without_query(void **state)
{
	assert_int_equal(in_itself("procmap_query", "same"), 0);
	assert_int_equal(in_itself("procmap_query", "kinds"), 0);
	assert_int_equal(in_itself("procmap_query", "attached"), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vma_kinds),
		cmocka_unit_test(test_mm_descriptors_lost),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_attached),
		cmocka_unit_test(test_scan),
		cmocka_unit_test(test_scan_holes),
		cmocka_unit_test(test_populate),
		cmocka_unit_test(test_vma_flags),
		cmocka_unit_test(test_region),
		cmocka_unit_test(test_region_mlockall),
		cmocka_unit_test(test_region_merged),
		cmocka_unit_test(test_critical),
		cmocka_unit_test(test_without_query),
	};

	alarm(60);
	os = os_live();
	itself_run(argc, argv, table);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
