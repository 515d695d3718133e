/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * settle - is every other thread out of the madvise that it may have been in?
 *
 * Model: REMOVE is told before the kernel discards pages; reading it lets the caller go on,
 * and nothing tells when it has. But a thread that is asleep in another system call is
 * not in madvise, nor is one that is asleep outside of any (at a fault), nor one that has
 * ended. And one that has had more CPU time since than the rest of madvise can need has
 * left it. A thread that was preempted in madvise is none of these: it is runnable,
 * or asleep with madvise as its call, and gets no time.
 *
 * Laws:
 * - What is seen is seen after the call began, thread by thread. A thread that is made
 *   meanwhile was in no madvise before.
 * - /proc/self/task, read while threads end, may leave out others: the kernel goes on from
 *   the one that it told last, or by number. Only after one that was told has ended,
 *   though; so if all that were told are alive afterwards, none was left out.
 * - io_uring carries out madvise in its worker threads. They are in the list. Their call is
 *   the one in which they were made, their user stack is at 0. Asleep in the worker's
 *   own loop they are idle.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/live.h"
#include "util/arena.h"

#define SLEEP_FIRST_NS 50000u
#define SLEEP_MAX_NS 1000000u
#define LISTED 4096u /* bytes of directory at a time */

#define FEW 64u

struct task {
	pid_t tid;
	bool settled;
	uint64_t cpu; /* ns, when it was first seen */
};

struct tasks {
	struct task *task; /* `few`, or a mapping */
	unsigned count, room;
	struct task few[FEW];
};

/* The kernel's struct linux_dirent64. */
struct entry {
	uint64_t inode, next;
	uint16_t size;
	uint8_t type;
	char name[];
};

/* CPU time of a thread of this process. -ESRCH: it has ended. */
static int cpu_of(pid_t tid, uint64_t *ns)
{
	clockid_t clock = (clockid_t)(~(unsigned)tid << 3 | 6);
	struct timespec time;

	if (clock_gettime(clock, &time))
		return errno == EINVAL ? -ESRCH : -errno;
	*ns = (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
	return 0;
}

/* The first of /proc/self/task/TID/WHAT, as text; false: it cannot be read. */
static bool read_of(pid_t tid, const char *what, char *text, size_t size)
{
	char path[64];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%d/%s", (int)tid, what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	got = read(fd, text, size - 1);
	close(fd);
	text[got > 0 ? got : 0] = '\0';
	return got > 0;
}

/* The main thread, ended before the others, stays as a zombie. */
static bool ended(pid_t tid)
{
	char text[128];
	const char *name;

	if (!read_of(tid, "stat", text, sizeof(text)))
		return false;
	name = strrchr(text, ')');
	return name && (!strncmp(name, ") Z", 3) || !strncmp(name, ") X", 3));
}

/* Of a thread that the kernel made. */
static bool idle(pid_t tid)
{
	char text[64];

	return read_of(tid, "wchan", text, sizeof(text)) &&
	       (!strcmp(text, "io_wq_worker") || !strcmp(text, "io_sq_thread"));
}

/* "0 0x7f.. 0x.. 0x.. 0x.. 0x.. 0x.. SP PC", "-1 SP PC", or "running". */
static bool sleeps_elsewhere(pid_t tid)
{
	static const char nowhere[] = " 0x0 0x0\n";
	size_t length, tail = sizeof(nowhere) - 1;
	char text[256], *at;
	long call;

	/* Of a zombie it is root's only. */
	if (!read_of(tid, "syscall", text, sizeof(text)))
		return ended(tid);
	call = strtol(text, &at, 10);
	if (at == text || call == SYS_madvise || call == SYS_process_madvise)
		return false;
	length = strlen(at);
	if (length >= tail && !strcmp(at + length - tail, nowhere))
		return idle(tid) || ended(tid);
	return true;
}

static bool settled(struct task *task, uint64_t budget_ns)
{
	uint64_t cpu;
	int err;

	if (task->settled)
		return true;
	err = cpu_of(task->tid, &cpu);
	task->settled = err == -ESRCH || (!err && cpu - task->cpu >= budget_ns) ||
			sleeps_elsewhere(task->tid);
	return task->settled;
}

/* ---- the list ---- */

static bool grow(struct tasks *tasks)
{
	unsigned room = tasks->room * 2;
	struct task *more = arena_map(room * sizeof(*more));

	if (!more)
		return false;
	memcpy(more, tasks->task, tasks->count * sizeof(*more));
	if (tasks->task != tasks->few)
		arena_unmap(tasks->task, tasks->room * sizeof(*more));
	tasks->task = more;
	tasks->room = room;
	return true;
}

static int add(struct tasks *tasks, pid_t tid)
{
	struct task *task;

	if (tasks->count == tasks->room && !grow(tasks))
		return -ENOMEM;
	task = &tasks->task[tasks->count];
	*task = (struct task){ .tid = tid };
	tasks->count++;
	return cpu_of(tid, &task->cpu);
}

/* One reading of the directory. -ESRCH: a thread has ended meanwhile, some may be missing. */
static int list_once(struct tasks *tasks, int dir, pid_t self)
{
	_Alignas(struct entry) char text[LISTED];
	long got;
	int err = 0;

	tasks->count = 0;
	if (lseek(dir, 0, SEEK_SET))
		return -errno;
	while (!err && (got = syscall(SYS_getdents64, dir, text, sizeof(text))) > 0) {
		for (long at = 0; at < got && !err;) {
			const struct entry *entry = (const void *)(text + at);
			pid_t tid = (pid_t)atoi(entry->name);

			if (tid && tid != self)
				err = add(tasks, tid);
			at += entry->size;
		}
	}
	if (!err && got < 0)
		err = -errno;
	for (unsigned i = 0; i < tasks->count && !err; i++) {
		uint64_t cpu;

		err = cpu_of(tasks->task[i].tid, &cpu);
	}
	return err;
}

static int list(struct tasks *tasks, uint64_t deadline)
{
	int dir = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;
	pid_t self = live_tid();

	if (dir < 0)
		return -errno;
	do {
		err = list_once(tasks, dir, self);
	} while (err == -ESRCH && live_now() < deadline);
	close(dir);
	return err;
}

static bool all_settled(struct tasks *tasks, uint64_t budget_ns)
{
	bool all = true;

	for (unsigned i = 0; i < tasks->count; i++)
		all &= settled(&tasks->task[i], budget_ns);
	return all;
}

/* What cannot be told counts as not settled. */
int live_madvise_settled(uint64_t budget_ns, uint64_t timeout_ns)
{
	uint64_t deadline = live_now() + timeout_ns, pause = SLEEP_FIRST_NS;
	struct tasks tasks;
	int err;

	tasks.task = tasks.few;
	tasks.room = FEW;
	err = list(&tasks, deadline) ? -EBUSY : 0;
	while (!err && !all_settled(&tasks, budget_ns)) {
		if (live_now() >= deadline)
			err = -EBUSY;
		else
			live_sleep(pause);
		pause = pause * 2 < SLEEP_MAX_NS ? pause * 2 : SLEEP_MAX_NS;
	}
	if (tasks.task != tasks.few)
		arena_unmap(tasks.task, tasks.room * sizeof(*tasks.task));
	return err;
}
