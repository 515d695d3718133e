/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * tasks - the threads of this process, as the kernel knows them.
 *
 * Laws:
 * - /proc/self/task, read while threads end, may leave out others: the kernel goes on from
 *   the one that it told last, or was about to tell, or by number. But it has a count of
 *   threads, the directory's links. If all that were told are alive after the count was
 *   read, they were alive then; and if they are as many, none was left out.
 * - A thread that is made while the list is read may be in it or not.
 * - Kernel threads that work for io_uring are in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/tasks.h"
#include "util/arena.h"

#define SPARES 8u
#define LIST_HEAD 64u
#define LISTED 4096u /* bytes of directory at a time */

/* The kernel's struct linux_dirent64. */
struct entry {
	uint64_t inode, next;
	uint16_t size;
	uint8_t type;
	char name[];
};

int task_cpu(pid_t tid, uint64_t *ns)
{
	clockid_t clock = (clockid_t)(~(unsigned)tid << 3 | 6);
	struct timespec time;

	if (clock_gettime(clock, &time))
		return errno == EINVAL ? -ESRCH : -errno;
	*ns = (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
	return 0;
}

bool task_read(pid_t tid, const char *what, char *text, size_t size)
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

/*
 * Long lists are kept for the next one. The reader asks too, and it may not unmap: the guard page of a
 * mapping may have become one with a mapping of the program's that is registered, and the message of
 * the unmap would be for the reader itself to read.
 */
static struct long_list {
	unsigned room; /* first, in the list's own memory */
} *_Atomic spare[SPARES];

static struct task *entries_of(struct long_list *list)
{
	return (struct task *)((char *)list + LIST_HEAD);
}

static struct task *take_spare(unsigned *room)
{
	for (unsigned i = 0; i < SPARES; i++) {
		struct long_list *list = atomic_exchange(&spare[i], NULL), *none = NULL;

		if (list && list->room >= *room) {
			*room = list->room;
			return entries_of(list);
		}
		/* Too short: back, or, somebody being quicker, lost. */
		if (list)
			atomic_compare_exchange_strong(&spare[i], &none, list);
	}
	return NULL;
}

static struct task *make_long(unsigned room)
{
	struct long_list *list = arena_map(LIST_HEAD + room * sizeof(struct task));

	if (!list)
		return NULL;
	list->room = room;
	return entries_of(list);
}

static bool grow(struct tasks *tasks)
{
	unsigned room = tasks->room * 4;
	struct task *more = take_spare(&room);

	if (!more)
		more = make_long(room);
	if (!more)
		return false;
	memcpy(more, tasks->task, tasks->count * sizeof(*more));
	tasks_free(tasks);
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
	return 0;
}

/* How many there are; the directory has two links more. */
static int count_all(int dir, unsigned *count)
{
	struct stat stat;

	if (fstat(dir, &stat))
		return -errno;
	*count = stat.st_nlink - 2;
	return 0;
}

/* One reading of the directory. -ESRCH: a thread has ended, or begun, meanwhile: some may be missing. */
static int list_once(struct tasks *tasks, int dir, pid_t except,
		     int (*look)(struct task *task))
{
	_Alignas(struct entry) char text[LISTED];
	unsigned told = 0, all = 0;
	long got;
	int err = 0;

	tasks->count = 0;
	if (lseek(dir, 0, SEEK_SET))
		return -errno;
	while (!err && (got = syscall(SYS_getdents64, dir, text, sizeof(text))) > 0) {
		for (long at = 0; at < got && !err;) {
			const struct entry *entry = (const void *)(text + at);
			pid_t tid = (pid_t)atoi(entry->name);

			told += tid != 0;
			if (tid && tid != except)
				err = add(tasks, tid);
			at += entry->size;
		}
	}
	if (!err && got < 0)
		err = -errno;
	if (!err)
		err = count_all(dir, &all);
	if (!err && all != told)
		err = -ESRCH;
	for (unsigned i = 0; i < tasks->count && !err; i++)
		err = look(&tasks->task[i]);
	return err;
}

int tasks_open(void)
{
	return open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Who reads the directory that is kept open: it has one position. */
static atomic_flag reading = ATOMIC_FLAG_INIT;

static bool take_kept(const struct os_mm *mm)
{
	if (!mm || mm->tasks_fd < 0 || atomic_flag_test_and_set(&reading))
		return false;
	if (fd_identity(mm->tasks_fd) == mm->tasks_ino)
		return true;
	atomic_flag_clear(&reading);
	return false;
}

int tasks_list(struct tasks *tasks, const struct os_mm *mm, pid_t except, uint64_t deadline,
	       int (*look)(struct task *task))
{
	bool kept = take_kept(mm);
	int dir = kept ? mm->tasks_fd : tasks_open(), err;

	tasks->task = tasks->few;
	tasks->room = TASKS_FEW;
	tasks->count = 0;
	if (dir < 0)
		return -errno;
	do {
		err = list_once(tasks, dir, except, look);
	} while (err == -ESRCH && live_now() < deadline);
	if (kept)
		atomic_flag_clear(&reading);
	else
		close(dir);
	return err;
}

void tasks_free(struct tasks *tasks)
{
	struct long_list *list = (struct long_list *)((char *)tasks->task - LIST_HEAD);

	if (tasks->task == tasks->few)
		return;
	for (unsigned i = 0; i < SPARES; i++) {
		struct long_list *none = NULL;

		if (atomic_compare_exchange_strong(&spare[i], &none, list))
			return;
	}
	/* More at once than are kept: this one is never used again. */
}
