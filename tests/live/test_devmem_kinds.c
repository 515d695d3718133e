/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_devmem_kinds - what can move and what stays: every kind of memory, each way to pin
 * or to share a page, huge pages.
 *
 * Staying is no error: the call says how many pages moved, and every byte is where it was,
 * for the CPU and for the device.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "away.h"
#include "uapi.h"

#define PAGES 8u
#define LENGTH (PAGES * PAGE)

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

struct memory {
	char *at;
	size_t pages, unit;
	bool read_only;
	int fd[2];
	struct io_uring ring;
};

struct kind {
	const char *name;
	enum verdict (*make)(struct memory *memory);
	unsigned least, most;			      /* pages of it that move */
	enum verdict (*after)(struct memory *memory); /* or NULL */
};

static void write_all(struct memory *m)
{
	for (size_t i = 0; i < m->pages * PAGE; i += 8)
		*(uint64_t *)(m->at + i) = i * 3 + 5;
}

static enum verdict has_all(const struct memory *m, const char *when)
{
	for (size_t i = 0; i < m->pages * PAGE; i += 8)
		CHECK(*(uint64_t *)(m->at + i) == i * 3 + 5, "%s: byte %zu of it is wrong",
		      when, i);
	return PASS;
}

/* ---- kinds ---- */

static enum verdict map_fd(struct memory *m, int fd, int flags)
{
	SYS(fd);
	SYS(ftruncate(fd, LENGTH));
	m->pages = PAGES;
	m->at = mmap(NULL, LENGTH, RW, flags, fd, 0);
	SYS((long)m->at);
	close(fd);
	return PASS;
}

static enum verdict map_anon(struct memory *m)
{
	m->pages = PAGES;
	m->at = live_map((PAGES + 2) * PAGE, PROT_NONE) + PAGE;
	SYS(mprotect(m->at, LENGTH, RW));
	write_all(m);
	return PASS;
}

static int temporary(void)
{
	char name[] = "/tmp/uhmm-live-XXXXXX";
	int fd = mkstemp(name);

	if (fd >= 0)
		unlink(name);
	return fd;
}

/* Not written: pages of the page cache, mapped privately. */
static enum verdict private_clean(struct memory *m)
{
	int fd = temporary();
	char *side;

	SYS(fd);
	SYS(ftruncate(fd, LENGTH));
	side = mmap(NULL, LENGTH, RW, MAP_SHARED, fd, 0);
	SYS((long)side);
	m->at = side;
	m->pages = PAGES;
	write_all(m);
	m->at = mmap(NULL, LENGTH, RW, MAP_PRIVATE, fd, 0);
	SYS((long)m->at);
	close(fd);
	return has_all(m, "before");
}

static enum verdict private_written(struct memory *m)
{
	TRY(map_fd(m, temporary(), MAP_PRIVATE));
	write_all(m);
	return PASS;
}

static enum verdict shared_file(struct memory *m)
{
	TRY(map_fd(m, temporary(), MAP_SHARED));
	write_all(m);
	return PASS;
}

static enum verdict memfd(struct memory *m)
{
	TRY(map_fd(m, memfd_create("uhmm-live", MFD_CLOEXEC), MAP_SHARED));
	write_all(m);
	return PASS;
}

static enum verdict shared_anon(struct memory *m)
{
	m->pages = PAGES;
	m->at = mmap(NULL, LENGTH, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	SYS((long)m->at);
	write_all(m);
	return PASS;
}

static enum verdict hugetlb(struct memory *m)
{
	m->pages = 512;
	m->at = mmap(NULL, BLOCK, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (m->at == MAP_FAILED)
		return live_skip("no huge pages: %s", strerror(errno));
	write_all(m);
	return PASS;
}

static enum verdict secret(struct memory *m)
{
	int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);

	if (fd < 0)
		return live_skip("memfd_secret: %s", strerror(errno));
	TRY(map_fd(m, fd, MAP_SHARED));
	write_all(m);
	return PASS;
}

static enum verdict locked(struct memory *m)
{
	TRY(map_anon(m));
	if (mlock(m->at, LENGTH))
		return live_skip("mlock: %s", strerror(errno));
	return PASS;
}

static enum verdict read_only(struct memory *m)
{
	TRY(map_anon(m));
	SYS(mprotect(m->at, LENGTH, PROT_READ));
	m->read_only = true;
	return PASS;
}

static enum verdict wipe_on_fork(struct memory *m)
{
	TRY(map_anon(m));
	SYS(madvise(m->at, LENGTH, MADV_WIPEONFORK));
	return PASS;
}

static enum verdict is_wiped(void *arg)
{
	struct memory *m = arg;

	for (size_t i = 0; i < LENGTH; i++)
		CHECK(!m->at[i], "byte %zu is %#x in the child", i, m->at[i]);
	return PASS;
}

static enum verdict child_is_wiped(struct memory *m)
{
	TRY(live_child(is_wiped, m, 10));
	live_child_prepare();
	return live_child_of((pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), is_wiped, m,
			     10);
}

static enum verdict sealed(struct memory *m)
{
	TRY(map_anon(m));
	if (syscall(SYS_mseal, m->at, LENGTH, 0))
		return live_skip("mseal (6.10): %s", strerror(errno));
	return PASS;
}

static enum verdict library(struct memory *m)
{
	m->pages = PAGES;
	m->at = hmm_alloc(LENGTH);
	CHECK(m->at, "hmm_alloc");
	write_all(m);
	return PASS;
}

/* Pages 2 and 3 are registered with io_uring: the kernel holds them where they are. */
static enum verdict pinned(struct memory *m)
{
	struct iovec v;
	int err = io_uring_queue_init(4, &m->ring, 0);

	if (err < 0)
		return live_skip("no io_uring: %s", strerror(-err));
	TRY(map_anon(m));
	v = (struct iovec){ m->at + 2 * PAGE, 2 * PAGE };
	EXPECT(0, io_uring_register_buffers(&m->ring, &v, 1));
	return PASS;
}

/* The pin still is on the page that the CPU sees. */
static enum verdict pin_holds(struct memory *m)
{
	int fd = memfd_create("uhmm-live", MFD_CLOEXEC);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&m->ring);
	struct io_uring_cqe *cqe;
	char news[PAGE];

	memset(news, 42, PAGE);
	EXPECT(PAGE, pwrite(fd, news, PAGE, 0));
	io_uring_prep_read_fixed(sqe, fd, m->at + 2 * PAGE, (unsigned)PAGE, 0, 0);
	EXPECT(1, io_uring_submit_and_wait(&m->ring, 1));
	EXPECT(0, io_uring_wait_cqe(&m->ring, &cqe));
	EXPECT(PAGE, cqe->res);
	CHECK(!memcmp(m->at + 2 * PAGE, news, PAGE), "the page was replaced under its pin");
	return PASS;
}

static enum verdict guarded(struct memory *m)
{
	TRY(map_anon(m));
	if (madvise(m->at + 2 * PAGE, PAGE, MADV_GUARD_INSTALL))
		return live_skip("no guard pages (6.13): %s", strerror(errno));
	/* What is checked is beside it. */
	m->at += 3 * PAGE;
	m->pages = PAGES - 3;
	write_all(m);
	return PASS;
}

/* In a pipe: the kernel has no word for that, so it may move; the pipe must not notice. */
static enum verdict spliced(struct memory *m)
{
	struct iovec v;

	TRY(map_anon(m));
	SYS(pipe(m->fd));
	v = (struct iovec){ m->at, LENGTH };
	EXPECT(LENGTH, vmsplice(m->fd[1], &v, 1, 0));
	return PASS;
}

static enum verdict pipe_has_it(struct memory *m)
{
	static char seen[LENGTH];
	struct memory copy = { .at = seen, .pages = PAGES };

	memset(m->at, 99, LENGTH); /* after the move these are other pages, or not */
	EXPECT(LENGTH, read(m->fd[0], seen, LENGTH));
	if (seen[0] == 99)
		return PASS; /* it stayed, and the program wrote to what the pipe has */
	return has_all(&copy, "from the pipe");
}

static const struct kind kinds[] = {
	{ "anon", map_anon, PAGES, PAGES, NULL },
	{ "private-file", private_clean, 0, 0, NULL },
	{ "private-file-written", private_written, 0, 0, NULL },
	{ "shared-file", shared_file, 0, 0, NULL },
	{ "memfd", memfd, 0, 0, NULL },
	{ "shared-anon", shared_anon, 0, 0, NULL },
	{ "hugetlb", hugetlb, 0, 0, NULL },
	{ "secret", secret, 0, 0, NULL },
	{ "locked", locked, 0, 0, NULL },
	{ "read-only", read_only, 0, 0, NULL },
	{ "wipe-on-fork", wipe_on_fork, 0, PAGES, child_is_wiped },
	{ "sealed", sealed, 0, PAGES, NULL },
	{ "library", library, 0, 0, NULL },
	{ "pinned", pinned, PAGES - 2, PAGES - 2, pin_holds },
	{ "guarded", guarded, PAGES - 3, PAGES - 3, NULL },
	{ "spliced", spliced, 0, PAGES, pipe_has_it },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* As three steps: src of what stays is 0, or loses MIGRATE in setup. */
static enum verdict in_steps(struct away *dev, const struct memory *m,
			     const struct kind *kind)
{
	static uint64_t src[HMM_MIGRATE_MAX], dst[HMM_MIGRATE_MAX];
	struct hmm_migrate migrate = { .size = sizeof(migrate),
				       .devmem = away_devmem(dev),
				       .start = (uintptr_t)m->at,
				       .end = (uintptr_t)m->at + m->pages * PAGE,
				       .src = src,
				       .dst = dst };
	int err = hmm_migrate_setup(&migrate);

	if (err == -EBUSY && kind->make == library)
		return PASS;
	EXPECT(0, err);
	EXPECT(m->pages, migrate.npages);
	for (size_t i = 0; i < m->pages; i++)
		CHECK(kind->most || !(src[i] & HMM_MIGRATE_MIGRATE), "page %zu can move",
		      i);
	CHECK(migrate.cpages >= kind->least && migrate.cpages <= kind->most,
	      "%u pages can move, expected %u to %u", migrate.cpages, kind->least,
	      kind->most);
	hmm_migrate_finalize(&migrate);
	return has_all(m, "after setup and finalize");
}

static enum verdict device_agrees(struct away *dev, struct memory *m,
				  const struct kind *kind)
{
	uint64_t word;

	for (size_t i = 0; i < m->pages; i++) {
		size_t at = i * PAGE + 16;
		int err = away_read(dev, &word, m->at + at, 8);

		/* Not mirrorable, or no copy by anybody else (secret memory): as ever. */
		if (err == -EOPNOTSUPP || (err == -EFAULT && kind->make == secret))
			return PASS;
		EXPECT(0, err);
		EXPECT(at * 3 + 5, word);
	}
	return PASS;
}

struct pair {
	const struct kind *kind;
	bool host;
};

static enum verdict run_pair(const void *arg)
{
	const struct pair *pair = arg;
	const struct kind *kind = pair->kind;
	struct memory m = { 0 };
	struct away *dev;
	int64_t n;

	EXPECT(0, away_open(&dev, &(struct away_options){ .host = pair->host }));
	TRY(kind->make(&m));
	TRY(in_steps(dev, &m, kind));
	n = hmm_migrate_to_device(away_devmem(dev), (uintptr_t)m.at, m.pages * PAGE);
	CHECK((n >= kind->least && n <= kind->most) ||
		      (n == -EBUSY && kind->make == library),
	      "%lld pages moved, expected %u to %u (%s)", (long long)n, kind->least,
	      kind->most, n < 0 ? hmm_strerror((int)n) : "");
	EXPECT(n < 0 ? 0 : n, away_count(dev, m.at, m.pages * PAGE));
	TRY(device_agrees(dev, &m, kind));
	if (kind->after)
		TRY(kind->after(&m));
	else
		TRY(has_all(&m, "after to_device"));
	if (!m.read_only && kind->make != library) {
		write_all(&m);
		TRY(has_all(&m, "written again"));
	}
	if (!kind->after)
		TRY(away_settles(dev, 0));
	away_close(dev);
	return kind->after ? PASS : has_all(&m, "after the device is closed");
}

/* ---- shared with a child, copy on write ---- */

struct family {
	struct zone *zone;
	int go[2];
	const unsigned char *before;
};

static enum verdict child_keeps(void *arg)
{
	struct family *f = arg;
	char byte;

	SYS(read(f->go[0], &byte, 1));
	CHECK(!memcmp(f->zone->at, f->before, LENGTH), "the child's pages have changed");
	memset(f->zone->at, 1, LENGTH);
	return PASS;
}

/* Between fork and wait no way out may leave the child waiting. */
static enum verdict migrate_beside(struct away *dev, struct zone *zone,
				   const struct family *f)
{
	int64_t n = hmm_migrate_to_device(away_devmem(dev), (uintptr_t)zone->at, LENGTH);
	long there = away_count(dev, zone->at, LENGTH);
	char byte = 9;
	int err = away_write(dev, zone->at + 10, &byte, 1);

	zone->shadow[10] = 9;
	zone_fill(zone, 4, PAGES, 77);
	SYS(write(f->go[1], &byte, 1));
	EXPECT(PAGES, n);
	EXPECT(PAGES, there);
	EXPECT(0, err);
	return PASS;
}

static enum verdict shared_with_child(const void *arg)
{
	unsigned char *before = (unsigned char *)live_map(LENGTH, RW);
	struct family f = { .before = before };
	enum verdict verdict, childs;
	struct away *dev;
	struct zone zone;
	pid_t pid;

	TRY(zone_make(&zone, PAGES, 5));
	memcpy(before, zone.shadow, LENGTH);
	f.zone = &zone;
	SYS(pipe(f.go));
	EXPECT(0, away_open(&dev, arg));
	live_child_prepare();
	pid = fork();
	verdict = pid ? migrate_beside(dev, &zone, &f) : PASS;
	childs = live_child_of(pid, child_keeps, &f, 10);
	TRY(childs);
	if (verdict != PASS)
		FAILED("not all of what a child shares moved, or the device could not "
		       "write");
	TRY(zone_check(&zone, "in the parent"));
	away_close(dev);
	return PASS;
}

/* ---- huge pages ---- */

static long anon_huge(const char *at)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long start, end;
	bool inside = false;
	char line[300];
	long kb = -1;

	while (f && kb < 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start <= (uintptr_t)at && (uintptr_t)at < end;
		else if (inside)
			sscanf(line, "AnonHugePages: %ld kB", &kb);
	}
	if (f)
		fclose(f);
	return kb;
}

static enum verdict huge_zone(struct zone *zone)
{
	char *room = live_map(3 * BLOCK, PROT_NONE);

	*zone = (struct zone){ .pages = 512,
			       .at = (char *)(((uintptr_t)room + BLOCK - 1) & -BLOCK) };
	zone->shadow = mmap(NULL, BLOCK, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(zone->shadow != MAP_FAILED, "no memory");
	SYS(mmap(zone->at, BLOCK, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	SYS(madvise(zone->at, BLOCK, MADV_HUGEPAGE));
	zone_access(zone, 0, 512, ZONE_WRITE);
	zone_fill(zone, 0, 512, 6);
	if (anon_huge(zone->at) != 2048)
		return live_skip("the kernel gives no huge page (AnonHugePages: %ld kB)",
				 anon_huge(zone->at));
	return PASS;
}

/*
 * Moved whole. It comes home whole by a call, if the frames are host memory: nothing is
 * copied then, and the page that left comes back. By faults it comes in pieces.
 */
static enum verdict huge(const void *arg)
{
	const struct away_options *options = arg;
	struct away *dev;
	struct zone zone;

	TRY(huge_zone(&zone));
	EXPECT(0, away_open(&dev, options));
	for (int i = 0; i < 3; i++) {
		TRY(away_out(dev, zone.at, 512));
		EXPECT(0, anon_huge(zone.at));
		EXPECT(512, hmm_migrate_to_host(away_hmm(dev), (uintptr_t)zone.at, BLOCK));
		if (options->host)
			EXPECT(2048, anon_huge(zone.at));
		TRY(zone_check(&zone, "home by a call"));
	}
	TRY(away_out(dev, zone.at, 512));
	TRY(zone_check(&zone, "home by faults"));
	TRY(away_settles(dev, 0));
	away_close(dev);
	return zone_check(&zone, "closed");
}

/* A piece of a huge page leaves; the rest stays. */
static enum verdict huge_piece(const void *arg)
{
	struct away *dev;
	struct zone zone;

	TRY(huge_zone(&zone));
	EXPECT(0, away_open(&dev, arg));
	TRY(away_out(dev, zone.at + 100 * PAGE, 30));
	EXPECT(30, away_count(dev, zone.at, BLOCK));
	TRY(zone_check(&zone, "a piece was away"));
	TRY(away_settles(dev, 0));
	away_close(dev);
	return PASS;
}

/* More than a block, not aligned to one. */
static enum verdict many_blocks(const void *arg)
{
	struct away *dev;
	struct zone zone;

	TRY(zone_make(&zone, ZONE_MAX, 8));
	EXPECT(0, away_open(&dev, arg));
	TRY(away_out(dev, zone.at, ZONE_MAX));
	EXPECT(ZONE_MAX, away_in_use(dev));
	EXPECT(ZONE_MAX, hmm_migrate_to_device(away_devmem(dev), (uintptr_t)zone.at,
					       ZONE_MAX * PAGE));
	TRY(zone_check(&zone, "home by faults"));
	TRY(away_out(dev, zone.at + 13 * PAGE, ZONE_MAX - 20));
	EXPECT(ZONE_MAX - 20,
	       hmm_migrate_to_host(away_hmm(dev), (uintptr_t)zone.at, ZONE_MAX * PAGE));
	TRY(zone_check(&zone, "home by a call"));
	TRY(away_settles(dev, 0));
	away_close(dev);
	return PASS;
}

/* ---- the system's huge pages: taken for the case, and given back ---- */

static int huge_pages(int set)
{
	FILE *f = fopen("/proc/sys/vm/nr_hugepages", set < 0 ? "re" : "we");
	int n = 0;

	if (!f)
		return 0;
	if (set < 0)
		n = fscanf(f, "%d", &n) == 1 ? n : 0;
	else
		fprintf(f, "%d\n", set);
	fclose(f);
	return n;
}

/* clang-format off */
#define ON_BOTH(fn, what)                                                                  \
	{ .name = "copied " what, .run = fn, .arg = &copied, .limit_s = 20 },              \
	{ .name = "host " what, .run = fn, .arg = &host, .limit_s = 20 }
/* clang-format on */

int main(int argc, char **argv)
{
	static const struct away_options copied, host = { .host = true };
	static struct live_case cases[8 + 2 * KINDS] = {
		ON_BOTH(shared_with_child, "shared-with-child"),
		ON_BOTH(huge, "huge"),
		ON_BOTH(huge_piece, "huge-piece"),
		ON_BOTH(many_blocks, "many-blocks"),
	};
	static struct pair pairs[2 * KINDS];
	static char names[2 * KINDS][48];
	int before = huge_pages(-1), result;

	for (size_t i = 0; i < 2 * KINDS; i++) {
		pairs[i] = (struct pair){ &kinds[i / 2], i % 2 };
		snprintf(names[i], sizeof(names[i]), "%s %s", i % 2 ? "host" : "copied",
			 kinds[i / 2].name);
		cases[8 + i] = (struct live_case){ .name = names[i],
						   .run = run_pair,
						   .arg = &pairs[i] };
	}
	huge_pages(before + 2);
	result = live_main(argc, argv, cases, 8 + 2 * KINDS);
	huge_pages(before);
	return result;
}
