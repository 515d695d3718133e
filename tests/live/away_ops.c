/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away_ops - pages that are away are used: by threads, by system calls, by other
 * processes, by devices, and by hints that want them present or gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "away_table.h"
#include "uapi.h"

#define BYTES ((PAST - FIRST) * PAGE)

static char *middle(const struct cell *cell)
{
	return page_at(cell, FIRST);
}

static unsigned char *middle_shadow(const struct cell *cell)
{
	return cell->zone.shadow + FIRST * PAGE;
}

/* In no order: each page is a fault of its own, or comes with a neighbour. */
static enum verdict use_read(struct cell *cell)
{
	for (size_t i = 0; i < CELL_PAGES; i++) {
		size_t p = i * 29 % CELL_PAGES;

		EXPECT(cell->zone.shadow[p * PAGE + i], (unsigned char)page_at(cell, p)[i]);
	}
	return PASS;
}

static enum verdict use_write(struct cell *cell)
{
	zone_fill(&cell->zone, 0, CELL_PAGES, 9);
	return PASS;
}

/* Four threads touch the same pages at once, each in words of its own. */
struct toucher {
	struct cell *cell;
	pthread_t thread;
	unsigned n;
	bool wrong;
};

static void *touch_main(void *arg)
{
	struct toucher *t = arg;

	for (size_t p = 0; p < CELL_PAGES; p++) {
		size_t at = p * PAGE + 1000 + t->n * 8;
		volatile unsigned char *byte = (unsigned char *)t->cell->zone.at + at;

		t->wrong |= *byte != t->cell->zone.shadow[at];
		*byte = t->cell->zone.shadow[at] = (unsigned char)(p + t->n);
	}
	return NULL;
}

static enum verdict use_threads(struct cell *cell)
{
	struct toucher t[4];

	for (unsigned i = 0; i < 4; i++) {
		t[i] = (struct toucher){ .cell = cell, .n = i };
		CHECK(!pthread_create(&t[i].thread, NULL, touch_main, &t[i]), "no thread");
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(t[i].thread, NULL);
	for (unsigned i = 0; i < 4; i++)
		CHECK(!t[i].wrong, "thread %u read a wrong byte", i);
	return PASS;
}

/* ---- system calls ---- */

static int file_of(const void *bytes, size_t n)
{
	int fd = memfd_create("uhmm-live", MFD_CLOEXEC);

	if (fd >= 0 && bytes && pwrite(fd, bytes, n, 0) != (ssize_t)n)
		return -1;
	return fd;
}

/* Not of this page and not of that: what a file brings. */
static const void *news(void)
{
	static unsigned char bytes[BYTES];

	for (size_t i = 0; i < BYTES; i++)
		bytes[i] = (unsigned char)(i * 7 + i / PAGE);
	return bytes;
}

static enum verdict sys_read(struct cell *cell)
{
	int fd = file_of(news(), BYTES);

	SYS(fd);
	EXPECT(BYTES, pread(fd, middle(cell), BYTES, 0));
	memcpy(middle_shadow(cell), news(), BYTES);
	lseek(fd, 0, SEEK_SET);
	EXPECT(100, read(fd, page_at(cell, PAST) - 50, 100)); /* across a border */
	memcpy(cell->zone.shadow + PAST * PAGE - 50, news(), 100);
	close(fd);
	return PASS;
}

static enum verdict file_has(int fd, const struct cell *cell)
{
	static unsigned char seen[BYTES];

	EXPECT(BYTES, pread(fd, seen, BYTES, 0));
	CHECK(!memcmp(seen, middle_shadow(cell), BYTES), "the file got other bytes");
	return PASS;
}

static enum verdict sys_write(struct cell *cell)
{
	int fd = file_of(NULL, 0);

	SYS(fd);
	EXPECT(BYTES, write(fd, middle(cell), BYTES));
	TRY(file_has(fd, cell));
	EXPECT(BYTES, pwrite(fd, middle(cell), BYTES, 0));
	TRY(file_has(fd, cell));
	close(fd);
	return PASS;
}

static enum verdict sys_pipe(struct cell *cell)
{
	unsigned char seen[PAGE];
	int fd[2];

	SYS(pipe(fd));
	for (size_t p = 0; p < CELL_PAGES; p++) {
		EXPECT(PAGE, write(fd[1], page_at(cell, p), PAGE));
		EXPECT(PAGE, read(fd[0], seen, PAGE));
		CHECK(!memcmp(seen, cell->zone.shadow + p * PAGE, PAGE),
		      "page %zu went wrong into the pipe", p);
	}
	close(fd[0]);
	close(fd[1]);
	return PASS;
}

/* Past the page cache: the device of the file reads and writes the pages themselves. */
static enum verdict sys_direct(struct cell *cell)
{
	char name[] = "/tmp/uhmm-live-XXXXXX";
	int fd = mkstemp(name);

	SYS(fd);
	unlink(name);
	if (fcntl(fd, F_SETFL, O_DIRECT)) {
		close(fd);
		return live_skip("no O_DIRECT in /tmp: %s", strerror(errno));
	}
	EXPECT(BYTES, pwrite(fd, middle(cell), BYTES, 0));
	EXPECT(BYTES, pread(fd, cell->zone.at, BYTES, 0));
	memcpy(cell->zone.shadow, middle_shadow(cell), BYTES);
	close(fd);
	return PASS;
}

/* The pipe has the page itself: what is stored there later shows, what moves does not. */
static enum verdict sys_vmsplice(struct cell *cell)
{
	struct iovec v = { middle(cell), 4 * PAGE };
	unsigned char seen[4 * PAGE];
	int fd[2];

	SYS(pipe(fd));
	EXPECT(4 * PAGE, vmsplice(fd[1], &v, 1, 0));
	hmm_migrate_to_device(away_devmem(cell->dev[0]), (uintptr_t)middle(cell), 4 * PAGE);
	zone_check(&cell->zone, "with a pipe on it");
	hmm_migrate_to_device(away_devmem(cell->dev[1]), (uintptr_t)middle(cell), 4 * PAGE);
	EXPECT(4 * PAGE, read(fd[0], seen, 4 * PAGE));
	for (size_t p = 0; p < 4; p++) /* zone_check() has changed byte 77 */
		CHECK(!memcmp(seen + p * PAGE + 78, middle_shadow(cell) + p * PAGE + 78,
			      PAGE - 78),
		      "the pipe gives other bytes in page %zu", p);
	close(fd[0]);
	close(fd[1]);
	return PASS;
}

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

struct sleeper {
	uint32_t *word, value;
};

static void *futex_main(void *arg)
{
	struct sleeper *s = arg;
	struct timespec limit = { .tv_sec = 5 };

	while (__atomic_load_n(s->word, __ATOMIC_SEQ_CST) == s->value)
		if (futex(s->word, FUTEX_WAIT, s->value, &limit) && errno == ETIMEDOUT)
			return arg;
	return NULL;
}

/* Who sleeps on a word of a page that left meanwhile is woken through the page's address.
 */
static enum verdict sys_futex(struct cell *cell)
{
	for (size_t p = FIRST; p < PAST; p++) {
		uint32_t *word = (uint32_t *)(page_at(cell, p) + 800), wrong;
		struct sleeper sleeper = { .word = word };
		pthread_t thread;
		void *late;

		memcpy(&wrong, cell->zone.shadow + p * PAGE + 800, 4);
		sleeper.value = wrong++;
		EXPECT(-1, futex(word, FUTEX_WAIT_PRIVATE, wrong, NULL));
		EXPECT(EAGAIN, errno);
		CHECK(!pthread_create(&thread, NULL, futex_main, &sleeper), "no thread");
		usleep(500);
		hmm_migrate_to_device(away_devmem(cell->dev[0]),
				      (uintptr_t)page_at(cell, p), PAGE);
		__atomic_store_n(word, wrong, __ATOMIC_SEQ_CST);
		memcpy(cell->zone.shadow + p * PAGE + 800, &wrong, 4);
		futex(word, FUTEX_WAKE, 1, NULL);
		pthread_join(thread, &late);
		CHECK(!late, "the sleeper was never woken");
	}
	return PASS;
}

static enum verdict ring_do(struct io_uring *ring, bool write, int fd, void *at, size_t n)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;

	if (write)
		io_uring_prep_write(sqe, fd, at, (unsigned)n, 0);
	else
		io_uring_prep_read(sqe, fd, at, (unsigned)n, 0);
	sqe->flags |= IOSQE_ASYNC; /* by a worker, which waits in our stead */
	EXPECT(1, io_uring_submit_and_wait(ring, 1));
	EXPECT(0, io_uring_wait_cqe(ring, &cqe));
	EXPECT(n, cqe->res);
	io_uring_cqe_seen(ring, cqe);
	return PASS;
}

static enum verdict sys_io_uring(struct cell *cell)
{
	struct io_uring ring;
	int fd = file_of(NULL, 0), err = io_uring_queue_init(8, &ring, 0);

	if (err < 0)
		return live_skip("no io_uring: %s", strerror(-err));
	SYS(fd);
	TRY(ring_do(&ring, true, fd, middle(cell), BYTES));
	TRY(file_has(fd, cell));
	EXPECT(BYTES, pwrite(fd, news(), BYTES, 0));
	TRY(cell_place(cell, &cell->zone, &cell->away));
	TRY(ring_do(&ring, false, fd, middle(cell), BYTES));
	memcpy(middle_shadow(cell), news(), BYTES);
	io_uring_queue_exit(&ring);
	close(fd);
	return PASS;
}

/* ---- other processes, and ourselves as another ---- */

static enum verdict by_child(struct cell *cell)
{
	static unsigned char seen[CELL_PAGES * 4096];
	struct {
		char *at;
		size_t length;
	} request = { cell->zone.at, CELL_PAGES * PAGE };
	ssize_t n;

	EXPECT(sizeof(request), write(cell->helper[1], &request, sizeof(request)));
	EXPECT(sizeof(n), read(cell->back[0], &n, sizeof(n)));
	EXPECT(CELL_PAGES * PAGE, n);
	for (size_t got = 0; got < (size_t)n;) {
		ssize_t some = read(cell->back[0], seen + got, (size_t)n - got);

		CHECK(some > 0, "the other process is gone");
		got += (size_t)some;
	}
	CHECK(!memcmp(seen, cell->zone.shadow, (size_t)n),
	      "another process reads other bytes");
	return PASS;
}

/*
 * The kernel does not wait for a missing page here (no retry in __access_remote_vm()): a
 * debugger gets EIO. Never other bytes, and never zeros. docs/limits.md.
 */
static enum verdict by_proc_mem(struct cell *cell)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	unsigned char seen[PAGE];

	SYS(fd);
	for (size_t p = 0; p < CELL_PAGES; p++) {
		ssize_t n = pread(fd, seen, PAGE, (off_t)(uintptr_t)page_at(cell, p));

		CHECK(n == (ssize_t)PAGE || (n == -1 && errno == EIO && cell->away),
		      "page %zu: read %zd: %s", p, n, strerror(errno));
		if (n > 0)
			CHECK(!memcmp(seen, cell->zone.shadow + p * PAGE, PAGE),
			      "page %zu of /proc/self/mem is wrong", p);
		n = pwrite(fd, "mem", 3, (off_t)(uintptr_t)page_at(cell, p) + 9);
		CHECK(n == 3 || (n == -1 && errno == EIO && cell->away),
		      "page %zu: write %zd: %s", p, n, strerror(errno));
		if (n > 0)
			memcpy(cell->zone.shadow + p * PAGE + 9, "mem", 3);
	}
	close(fd);
	return PASS;
}

/* ---- devices ---- */

/* Each device sees all of it; a page of the other one comes home for that. */
static enum verdict by_devices(struct cell *cell)
{
	static unsigned char seen[CELL_PAGES * 4096];

	for (unsigned d = 0; d < 2; d++) {
		EXPECT(0, away_read(cell->dev[d], seen, cell->zone.at, sizeof(seen)));
		CHECK(!memcmp(seen, cell->zone.shadow, sizeof(seen)),
		      "device %u sees other bytes", d);
		EXPECT(0, away_write(cell->dev[d], middle(cell) + 5, "device", 6));
		memcpy(middle_shadow(cell) + 5, "device", 6);
	}
	return PASS;
}

static enum verdict called_home(struct cell *cell)
{
	int64_t n = hmm_migrate_to_host(away_hmm(cell->dev[0]), (uintptr_t)cell->zone.at,
					CELL_PAGES * PAGE);

	EXPECT(cell->away, n);
	EXPECT(0, cell_away(cell, cell->zone.at, CELL_PAGES * PAGE));
	return PASS;
}

static enum verdict evicted(struct cell *cell)
{
	int64_t n = 0;

	for (unsigned d = 0; d < 2; d++) {
		int64_t some = hmm_devmem_evict(away_devmem(cell->dev[d]), 0, AWAY_FRAMES);

		CHECK(some >= 0, "evict: %s", hmm_strerror((int)some));
		n += some;
	}
	EXPECT(cell->away, n);
	EXPECT(0, cell_away(cell, cell->zone.at, CELL_PAGES * PAGE));
	return PASS;
}

/* From one device to the other, by way of the host. */
static enum verdict other_device(struct cell *cell)
{
	for (unsigned d = 0; d < 4; d++)
		TRY(away_out(cell->dev[d % 2], cell->zone.at, CELL_PAGES));
	EXPECT(CELL_PAGES, cell_away(cell, cell->zone.at, CELL_PAGES * PAGE));
	return PASS;
}

/* ---- hints ---- */

static enum verdict locked(struct cell *cell)
{
	unsigned char present[PAST - FIRST];

	if (mlock(middle(cell), BYTES))
		return live_skip("mlock: %s", strerror(errno));
	SYS(mincore(middle(cell), BYTES, present));
	for (size_t i = 0; i < PAST - FIRST; i++)
		CHECK(present[i] & 1, "locked page %zu is not present", i);
	EXPECT(0, cell_away(cell, middle(cell), BYTES));
	/* And it stays where it is. */
	EXPECT(0, hmm_migrate_to_device(away_devmem(cell->dev[0]), (uintptr_t)middle(cell),
					BYTES));
	TRY(cell_home(cell, "locked"));
	SYS(munlock(middle(cell), BYTES));
	return PASS;
}

static enum verdict populated(struct cell *cell, int advice)
{
	SYS(madvise(cell->zone.at, CELL_PAGES * PAGE, advice));
	EXPECT(0, cell_away(cell, cell->zone.at, CELL_PAGES * PAGE));
	return PASS;
}

static enum verdict populate_read(struct cell *cell)
{
	return populated(cell, MADV_POPULATE_READ);
}

static enum verdict populate_write(struct cell *cell)
{
	return populated(cell, MADV_POPULATE_WRITE);
}

/* Whatever the kernel makes of them, nothing may be seen of it. */
static enum verdict collapse(struct cell *cell)
{
	madvise((char *)((uintptr_t)cell->zone.at & -BLOCK), BLOCK, MADV_COLLAPSE);
	madvise(cell->zone.at, CELL_PAGES * PAGE, MADV_COLLAPSE);
	return PASS;
}

static enum verdict pageout(struct cell *cell)
{
	SYS(madvise(cell->zone.at, CELL_PAGES * PAGE, MADV_PAGEOUT));
	SYS(madvise(cell->zone.at, CELL_PAGES * PAGE, MADV_COLD));
	return PASS;
}

static enum verdict mergeable(struct cell *cell)
{
	if (madvise(middle(cell), BYTES, MADV_MERGEABLE))
		return live_skip("no KSM: %s", strerror(errno));
	TRY(cell_home(cell, "mergeable"));
	SYS(madvise(middle(cell), BYTES, MADV_UNMERGEABLE));
	return PASS;
}

const struct away_op away_ops_use[] = {
	{ .name = "read", .run = use_read },
	{ .name = "write", .run = use_write },
	{ .name = "four-threads", .run = use_threads },
	{ .name = "read(2)", .run = sys_read },
	{ .name = "write(2)", .run = sys_write },
	{ .name = "pipe", .run = sys_pipe },
	{ .name = "O_DIRECT", .run = sys_direct },
	{ .name = "vmsplice", .run = sys_vmsplice },
	{ .name = "futex", .run = sys_futex },
	{ .name = "io_uring", .run = sys_io_uring },
	{ .name = "process_vm_readv", .run = by_child, .helper = true },
	{ .name = "/proc/self/mem", .run = by_proc_mem },
	{ .name = "devices", .run = by_devices },
	{ .name = "to_host", .run = called_home },
	{ .name = "evict", .run = evicted },
	{ .name = "other-device", .run = other_device },
	{ .name = "mlock", .run = locked },
	{ .name = "populate-read", .run = populate_read },
	{ .name = "populate-write", .run = populate_write },
	{ .name = "collapse", .run = collapse },
	{ .name = "pageout", .run = pageout },
	{ .name = "mergeable", .run = mergeable },
};
const unsigned away_ops_use_count = sizeof(away_ops_use) / sizeof(away_ops_use[0]);
