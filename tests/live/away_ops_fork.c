/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away_ops_fork - children of a process whose pages are away, and its end.
 *
 * A child has the bytes as they were, and from then on its own. It has no thread that could
 * bring a page home, so what it does not have when fork() returns it will never have.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "away_table.h"

#define BYTES ((PAST - FIRST) * PAGE)

extern char **environ;

static char *middle(const struct cell *cell)
{
	return page_at(cell, FIRST);
}

static pid_t raw_clone(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static enum verdict child_reads(void *arg)
{
	struct cell *cell = arg;
	long page = zone_differs(&cell->zone);

	CHECK(page < 0, "page %ld of the child is wrong: its byte 100 is %#x", page,
	      (unsigned char)page_at(cell, (size_t)page)[100]);
	return PASS;
}

/* A model of the child's own: the one that it shares goes on with the parent. */
static enum verdict child_writes(void *arg)
{
	struct cell *cell = arg;
	void *own = live_map(ZONE_MAX * PAGE, RW);

	TRY(child_reads(cell));
	memcpy(own, cell->zone.shadow, cell->zone.pages * PAGE);
	cell->zone.shadow = own;
	zone_fill(&cell->zone, 0, CELL_PAGES, 60);
	usleep(3000);
	return zone_check(&cell->zone, "in the child");
}

static enum verdict fork_reads(struct cell *cell)
{
	return live_child(child_reads, cell, 10);
}

static enum verdict clone_reads(struct cell *cell)
{
	live_child_prepare();
	return live_child_of(raw_clone(), child_reads, cell, 10);
}

static enum verdict both_write(struct cell *cell, pid_t (*make)(void))
{
	unsigned char *parents = cell->zone.shadow;
	enum verdict verdict;
	struct zone *zone = &cell->zone;
	pid_t pid;

	/* Its model in private memory: each has one of its own after the fork. */
	zone->shadow = (unsigned char *)live_map(ZONE_MAX * PAGE, RW);
	memcpy(zone->shadow, parents, zone->pages * PAGE);
	live_child_prepare();
	pid = make();
	if (pid > 0)
		zone_fill(zone, 0, CELL_PAGES, 61);
	verdict = live_child_of(pid, child_writes, cell, 10);
	if (verdict == PASS)
		verdict = zone_check(zone, "in the parent");
	memcpy(parents, zone->shadow, zone->pages * PAGE);
	munmap(zone->shadow, ZONE_MAX * PAGE);
	zone->shadow = parents;
	return verdict;
}

static enum verdict fork_both_write(struct cell *cell)
{
	return both_write(cell, fork);
}

static enum verdict clone_both_write(struct cell *cell)
{
	return both_write(cell, raw_clone);
}

static enum verdict grandchild(void *arg)
{
	TRY(child_reads(arg));
	return live_child(child_reads, arg, 10);
}

static enum verdict fork_twice(struct cell *cell)
{
	return live_child(grandchild, cell, 10);
}

/* Threads read all the time; out, fork, out, raw clone. */
struct watcher {
	struct cell *cell;
	atomic_bool stop;
	_Atomic long wrong;
};

static void *watch(void *arg)
{
	struct watcher *w = arg;

	while (!w->stop) {
		long page = zone_differs(&w->cell->zone);

		if (page >= 0)
			w->wrong = page;
	}
	return NULL;
}

static enum verdict storm_rounds(struct cell *cell)
{
	for (int i = 0; i < 30; i++) {
		pid_t pid = i % 2 ? raw_clone() : fork();
		int status;

		if (!pid)
			_exit(zone_differs(&cell->zone) >= 0);
		SYS(pid);
		/* While the child may still be waiting for its pages. */
		for (unsigned d = 0; d < 2; d++)
			hmm_migrate_to_device(away_devmem(cell->dev[d]),
					      (uintptr_t)cell->zone.at +
						      d * CELL_PAGES / 2 * PAGE,
					      CELL_PAGES / 2 * PAGE);
		status = live_wait(pid, 10);
		CHECK(!status, "child %d: %s", i,
		      status == -1 ? "hangs" : "has other bytes");
	}
	return PASS;
}

static enum verdict fork_storm(struct cell *cell)
{
	struct watcher w = { .cell = cell, .wrong = -1 };
	enum verdict verdict;
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		CHECK(!pthread_create(&threads[i], NULL, watch, &w), "no thread");
	verdict = storm_rounds(cell);
	w.stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	CHECK(w.wrong < 0, "a thread read a wrong byte in page %ld", (long)w.wrong);
	return verdict;
}

static enum verdict exec_ends(pid_t pid)
{
	int status = pid > 0 ? live_wait(pid, 10) : -2;

	CHECK(status == 5 << 8, "the child's status is %#x", status);
	return PASS;
}

static enum verdict vfork_exec(struct cell *cell)
{
	pid_t pid = vfork();

	if (!pid) {
		execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
		_exit(99);
	}
	return exec_ends(pid);
}

static enum verdict spawn(struct cell *cell)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"exit 5", NULL };
	pid_t pid;

	EXPECT(0, posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ));
	return exec_ends(pid);
}

static enum verdict shell(struct cell *cell)
{
	EXPECT(5 << 8, system("exit 5"));
	return PASS;
}

/* The child has zeros there, wherever the pages are. */
static enum verdict child_is_wiped(void *arg)
{
	struct cell *cell = arg;
	size_t n = CELL_PAGES - PAST;

	for (size_t i = 0; i < BYTES; i++)
		CHECK(!middle(cell)[i], "byte %zu of a WIPEONFORK page is %#x in the child",
		      i, (unsigned char)middle(cell)[i]);
	CHECK(!memcmp(cell->zone.at, cell->zone.shadow, FIRST * PAGE) &&
		      !memcmp(page_at(cell, PAST), cell->zone.shadow + PAST * PAGE,
			      n * PAGE),
	      "the pages beside it are wrong");
	return PASS;
}

static enum verdict wiped(struct cell *cell, pid_t (*make)(void))
{
	enum verdict verdict;

	SYS(madvise(middle(cell), BYTES, MADV_WIPEONFORK));
	live_child_prepare();
	verdict = live_child_of(make(), child_is_wiped, cell, 10);
	SYS(madvise(middle(cell), BYTES, MADV_KEEPONFORK));
	return verdict;
}

static enum verdict wipe_fork(struct cell *cell)
{
	return wiped(cell, fork);
}

static enum verdict wipe_clone(struct cell *cell)
{
	return wiped(cell, raw_clone);
}

static enum verdict child_lacks(void *arg)
{
	struct cell *cell = arg;
	char byte;
	struct iovec here = { &byte, 1 }, there = { middle(cell), 1 };

	EXPECT(-1, process_vm_readv(getpid(), &here, 1, &there, 1, 0));
	CHECK(!memcmp(cell->zone.at, cell->zone.shadow, FIRST * PAGE),
	      "the pages beside it are wrong");
	return PASS;
}

static enum verdict dont_fork(struct cell *cell)
{
	SYS(madvise(middle(cell), BYTES, MADV_DONTFORK));
	TRY(live_child(child_lacks, cell, 10));
	live_child_prepare();
	TRY(live_child_of(raw_clone(), child_lacks, cell, 10));
	SYS(madvise(middle(cell), BYTES, MADV_DOFORK));
	return PASS;
}

/* ---- ends ---- */

static enum verdict end_exit(struct cell *cell)
{
	exit(5);
}

static enum verdict end_kill(struct cell *cell)
{
	raise(SIGKILL);
	return PASS;
}

static enum verdict end_exec(struct cell *cell)
{
	execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
	return PASS;
}

static void *exec_main(void *arg)
{
	end_exec(arg);
	return NULL;
}

static enum verdict end_exec_in_thread(struct cell *cell)
{
	pthread_t thread;

	pthread_create(&thread, NULL, exec_main, cell);
	for (;;)
		pause();
	return PASS;
}

static void *migrate_main(void *arg)
{
	struct cell *cell = arg;

	for (unsigned i = 0;; i++)
		hmm_migrate_to_device(away_devmem(cell->dev[i % 2]),
				      (uintptr_t)cell->zone.at, CELL_PAGES * PAGE);
	return NULL;
}

static void *touch_main(void *arg)
{
	struct cell *cell = arg;

	for (;;)
		zone_differs(&cell->zone);
	return NULL;
}

/* In the middle of everything: pages on their way out and home. */
static void keep_moving(struct cell *cell)
{
	static pthread_t threads[2];

	if (pthread_create(&threads[0], NULL, migrate_main, cell) ||
	    pthread_create(&threads[1], NULL, touch_main, cell))
		_exit(99);
	usleep(5000);
}

static enum verdict end_exit_moving(struct cell *cell)
{
	keep_moving(cell);
	exit(5);
}

static enum verdict end_kill_moving(struct cell *cell)
{
	keep_moving(cell);
	return end_kill(cell);
}

static enum verdict end_exec_moving(struct cell *cell)
{
	keep_moving(cell);
	return end_exec(cell);
}

/* Who lives on looks when its parent is gone, and says what it saw. */
static void outlive(struct cell *cell, pid_t parent)
{
	long page;

	prctl(PR_SET_PDEATHSIG, 0);
	while (getppid() == parent)
		usleep(200);
	usleep(5000);
	page = zone_differs(&cell->zone);
	*cell->outlived = page < 0 ? 1 : (int)page + 2;
	_exit(0);
}

static enum verdict end_daemon(struct cell *cell)
{
	pid_t parent = getpid(), pid = fork();

	if (!pid)
		outlive(cell, parent);
	_exit(pid < 0 ? 99 : 5);
}

static enum verdict end_daemon_twice(struct cell *cell)
{
	pid_t pid = fork();

	if (!pid) {
		pid_t parent = getpid();

		pid = fork();
		if (!pid)
			outlive(cell, parent);
		_exit(0);
	}
	_exit(pid < 0 ? 99 : 5);
}

static enum verdict core_dump(struct cell *cell)
{
	return live_skip("a core dump lacks what is away: the kernel does not wait for a "
			 "missing page while it dumps");
}

#define EXITS (1 + (5 << 8))

const struct away_op away_ops_fork[] = {
	{ .name = "fork-reads", .run = fork_reads },
	{ .name = "fork-both-write", .run = fork_both_write },
	{ .name = "fork-twice", .run = fork_twice },
	{ .name = "fork-storm", .run = fork_storm },
	{ .name = "clone-reads", .run = clone_reads },
	{ .name = "clone-both-write", .run = clone_both_write },
	{ .name = "vfork-exec", .run = vfork_exec },
	{ .name = "posix_spawn", .run = spawn },
	{ .name = "system", .run = shell },
	{ .name = "wipeonfork", .run = wipe_fork },
	{ .name = "wipeonfork-clone", .run = wipe_clone },
	{ .name = "dontfork", .run = dont_fork },
	{ .name = "exit", .run = end_exit, .ends = EXITS },
	{ .name = "SIGKILL", .run = end_kill, .ends = 1 + SIGKILL },
	{ .name = "exec", .run = end_exec, .ends = EXITS },
	{ .name = "exec-in-thread", .run = end_exec_in_thread, .ends = EXITS },
	{ .name = "exit-moving", .run = end_exit_moving, .ends = EXITS },
	{ .name = "SIGKILL-moving", .run = end_kill_moving, .ends = 1 + SIGKILL },
	{ .name = "exec-moving", .run = end_exec_moving, .ends = EXITS },
	{ .name = "daemon", .run = end_daemon, .ends = EXITS, .outlived = true },
	{ .name = "daemon-twice",
	  .run = end_daemon_twice,
	  .ends = EXITS,
	  .outlived = true },
	{ .name = "core-dump", .run = core_dump },
};
const unsigned away_ops_fork_count = sizeof(away_ops_fork) / sizeof(away_ops_fork[0]);
