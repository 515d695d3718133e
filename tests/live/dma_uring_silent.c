/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_uring_silent - D3: changes that nobody tells, under a pin.
 *
 * A device that reads by address would see them (test_table has that). A pin holds the page
 * that was there before, and only the fence can know. As root it compares pages; as nobody,
 * who is not told which page is where, it gives up all of the range: each case runs both
 * ways.
 */
#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>

#include "dma_uring.h"

#define NOBODY 65534

/* The process must stay dumpable: it opens its own /proc/self/pagemap. */
static enum verdict become(const char *who)
{
	if (!*who)
		return PASS;
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY) || prctl(PR_SET_DUMPABLE, 1))
		return live_skip("root is needed to become somebody else: %s",
				 strerror(errno));
	return PASS;
}

static enum verdict warm(struct rig *r, char *at, unsigned pages)
{
	for (unsigned i = 0; i < pages; i++)
		TRY(rig_agree(r, at + i * PAGE));
	return PASS;
}

/* Another process does it: `fn` in a child that has nothing of ours but the descriptor. */
static enum verdict elsewhere(int (*fn)(int fd), int fd)
{
	pid_t pid = fork();

	if (!pid)
		_exit(fn(fd) ? errno : 0);
	EXPECT(0, live_wait(pid, 10));
	return PASS;
}

enum verdict silent_guard(const void *arg)
{
	char *at = live_map(8 * PAGE, RW);
	struct rig r;

	TRY(become(arg));
	TRY(rig_open(&r));
	TRY(warm(&r, at, 8));
	if (madvise(at + 2 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL))
		return live_skip("this kernel installs no guard pages (6.13)");
	EXPECT(-EFAULT, rig_word(&r, at + 2 * PAGE));
	EXPECT(-EFAULT, rig_put(&r, at + 3 * PAGE, "x", 1));
	TRY(rig_agree(&r, at + 4 * PAGE));
	TRY(warm(&r, at, 2));
	SYS(madvise(at + 2 * PAGE, 2 * PAGE, MADV_GUARD_REMOVE));
	EXPECT(0, rig_word(&r, at + 2 * PAGE));
	TRY(warm(&r, at, 8));
	/* On and off between two accesses: another page, and no trace. */
	for (unsigned i = 0; i < 100; i++) {
		SYS(madvise(at + 2 * PAGE, 2 * PAGE, MADV_GUARD_INSTALL));
		SYS(madvise(at + 2 * PAGE, 2 * PAGE, MADV_GUARD_REMOVE));
		if (i & 1)
			at[2 * PAGE] = at[3 * PAGE] = 0;
		TRY(rig_agree(&r, at + 2 * PAGE + 8));
		EXPECT(0, rig_word(&r, at + 3 * PAGE));
		TRY(rig_agree(&r, at + 3 * PAGE));
	}
	rig_close(&r);
	return PASS;
}

static int punch(int fd)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE,
			 2 * PAGE);
}

enum verdict silent_punch(const void *arg)
{
	int fd = memfd_create("punch", MFD_CLOEXEC);
	struct rig r;
	char *at;

	SYS(ftruncate(fd, 8 * PAGE));
	at = mmap(NULL, 8 * PAGE, RW, MAP_SHARED, fd, 0);
	TRY(become(arg));
	TRY(rig_open(&r));
	for (unsigned i = 0; i < 20; i++) {
		TRY(warm(&r, at, 8));
		CHECK(*(uint32_t *)(at + 2 * PAGE), "nothing to lose");
		if (i & 1)
			SYS(punch(fd));
		else
			TRY(elsewhere(punch, fd));
		if (i & 2)
			EXPECT(0, rig_word(&r, at + 2 * PAGE));
		TRY(rig_agree(&r, at + 2 * PAGE + 8));
		EXPECT(0, *(volatile uint32_t *)(at + 2 * PAGE));
		EXPECT(0, *(volatile uint32_t *)(at + 3 * PAGE));
	}
	rig_close(&r);
	return PASS;
}

static int cut(int fd)
{
	return ftruncate(fd, 4 * PAGE);
}

static int cut_and_grow(int fd)
{
	return ftruncate(fd, 4 * PAGE) || ftruncate(fd, 8 * PAGE);
}

static enum verdict truncated(struct rig *r, int fd, char *at)
{
	for (unsigned i = 0; i < 10; i++) {
		TRY(warm(r, at, 8));
		TRY(elsewhere(cut, fd));
		EXPECT(-EFAULT, rig_word(r, at + 5 * PAGE));
		EXPECT(-EFAULT, rig_put(r, at + 6 * PAGE, "x", 1));
		TRY(rig_agree(r, at + 3 * PAGE));
		SYS(ftruncate(fd, 8 * PAGE));
		TRY(warm(r, at, 8));
		TRY(elsewhere(cut_and_grow, fd));
		EXPECT(0, rig_word(r, at + 5 * PAGE));
		TRY(rig_agree(r, at + 6 * PAGE + 16));
		EXPECT(0, *(volatile uint32_t *)(at + 6 * PAGE));
	}
	return PASS;
}

enum verdict silent_truncate(const void *arg)
{
	int fd = memfd_create("cut", MFD_CLOEXEC);
	struct rig r;
	char *at;

	SYS(ftruncate(fd, 8 * PAGE));
	at = mmap(NULL, 8 * PAGE, RW, MAP_SHARED, fd, 0);
	TRY(become(arg));
	TRY(rig_open(&r));
	TRY(truncated(&r, fd, at));
	rig_close(&r);
	return PASS;
}

/* Private copies go too when the file is cut; and a page that was only read is pinned. */
enum verdict silent_truncate_private(const void *arg)
{
	int fd = rig_file(8 * PAGE);
	struct rig r;
	char *at;

	if (fd < 0)
		return rig_cannot_bounce();
	SYS(pwrite(fd, "disk", 4, 7 * PAGE));
	at = mmap(NULL, 8 * PAGE, RW, MAP_PRIVATE, fd, 0);
	TRY(become(arg));
	TRY(rig_open(&r));
	EXPECT(*(const uint32_t *)"disk", rig_word(&r, at + 7 * PAGE));
	TRY(elsewhere(cut, fd));
	EXPECT(-EFAULT, rig_word(&r, at + 7 * PAGE));
	SYS(ftruncate(fd, 8 * PAGE));
	EXPECT(0, rig_word(&r, at + 7 * PAGE));
	TRY(truncated(&r, fd, at));
	EXPECT(0, rig_stats(&r).bounced);
	rig_close(&r);
	return PASS;
}

enum verdict silent_shmdt(const void *arg)
{
	int id = shmget(IPC_PRIVATE, 8 * PAGE, IPC_CREAT | 0600);
	struct rig r;
	char *at;

	if (id < 0)
		return live_skip("no SysV shared memory: %s", strerror(errno));
	at = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	TRY(rig_open(&r));
	TRY(warm(&r, at, 8));
	SYS(shmdt(at));
	EXPECT(-EFAULT, rig_word(&r, at));
	SYS(mmap(at, 8 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		 0));
	EXPECT(0, rig_word(&r, at + PAGE));
	TRY(warm(&r, at, 8));
	rig_close(&r);
	return PASS;
}

/*
 * Pinned when all there was to see was the zero page, a page of a file, or one shared with
 * a child: when the CPU writes it gets another page, and so must the device.
 */
enum verdict silent_cow(const void *arg)
{
	char *zero = live_map(4 * PAGE, RW), *at, *cow = live_map(4 * PAGE, RW);
	int fd = memfd_create("cow", MFD_CLOEXEC), ends[2];
	struct rig r;
	pid_t pid;

	SYS(ftruncate(fd, 4 * PAGE));
	at = mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE, fd, 0);
	TRY(rig_open(&r));
	SYS(pipe(ends));
	memset(cow, 3, 4 * PAGE);
	pid = fork();
	if (!pid) { /* a sharer, as long as we live */
		close(ends[1]);
		_exit(read(ends[0], &pid, 1) == 0 && cow[0] == 3 && !zero[0] ? 0 : 1);
	}
	EXPECT(0, rig_word(&r, zero));
	EXPECT(0, rig_word(&r, at));
	EXPECT(0x03030303, rig_word(&r, cow));
	TRY(warm(&r, zero, 4));
	TRY(warm(&r, at, 4));
	TRY(warm(&r, cow, 4));
	close(ends[1]);
	EXPECT(0, live_wait(pid, 10));
	rig_close(&r);
	return PASS;
}
