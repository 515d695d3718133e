/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * settle - is every other thread out of the madvise that it may have been in?
 *
 * Model: REMOVE is told before the kernel discards pages; reading it lets the caller go on,
 * and nothing tells when it has. But a thread that is asleep in another system call is
 * not in madvise, nor is one that is asleep outside of any (at a fault), nor one that has
 * ended. Of one that runs, its CPU time tells that it has come from the message to the
 * address space's lock (mmap_lock), which it holds for reading as long as it discards. How
 * long that is nobody can tell. So whoever wants to know takes the lock for writing once.
 * A thread that was preempted in madvise before it has asked for the lock is runnable and
 * gets no time, or is asleep with madvise as its call.
 *
 * Laws:
 * - What is seen is seen after the call began, thread by thread. A thread that is made
 *   meanwhile was in no madvise before.
 * - CPU time counts only of a thread that is not asleep in madvise: there it may wait
 *   for the lock, and a writer may overtake it. Asleep until a message is read it has done
 *   with all that it told before.
 * - The kernel discards memory that is registered with a userfaultfd under mmap_lock, not under
 *   a lock of the one mapping (Linux 6.18, madvise.c).
 * - io_uring carries out madvise in its worker threads. They are in the list. Their call is
 *   the one in which they were made, their user stack is at 0. Asleep in the worker's
 *   own loop they are idle.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "os/tasks.h"

#define SLEEP_FIRST_NS 50000u
#define SLEEP_MAX_NS 1000000u
/* Who is only ready to run, and has got no CPU, is waited for that many times as long. */
#define STARVED 10u

enum where { RUNS, ELSEWHERE, INSIDE };

struct verdict {
	bool all;
	bool by_time; /* one may be discarding still, but under the lock */
	bool asleep;  /* one that is not settled is asleep in madvise */
};

/* The main thread, ended before the others, stays as a zombie. */
static bool ended(pid_t tid)
{
	char text[128];
	const char *name;

	if (!task_read(tid, "stat", text, sizeof(text)))
		return false;
	name = strrchr(text, ')');
	return name && (!strncmp(name, ") Z", 3) || !strncmp(name, ") X", 3));
}

/* Asleep in this function of the kernel's? */
static bool sleeps_in(pid_t tid, const char *function)
{
	char text[64];

	return task_read(tid, "wchan", text, sizeof(text)) && !strcmp(text, function);
}

/* Of a thread that the kernel made. */
static bool idle(pid_t tid)
{
	return sleeps_in(tid, "io_wq_worker") || sleeps_in(tid, "io_sq_thread");
}

/* "0 0x7f.. 0x.. 0x.. 0x.. 0x.. 0x.. SP PC", "-1 SP PC", or "running". */
static enum where where_is(pid_t tid)
{
	static const char nowhere[] = " 0x0 0x0\n";
	size_t length, tail = sizeof(nowhere) - 1;
	char text[256], *at;
	long call;

	/* Of a zombie it is root's only. */
	if (!task_read(tid, "syscall", text, sizeof(text)))
		return ended(tid) ? ELSEWHERE : INSIDE;
	call = strtol(text, &at, 10);
	if (at == text)
		return RUNS;
	if (call == SYS_madvise || call == SYS_process_madvise)
		return INSIDE;
	length = strlen(at);
	if (length >= tail && !strcmp(at + length - tail, nowhere))
		return idle(tid) || ended(tid) ? ELSEWHERE : INSIDE;
	return ELSEWHERE;
}

static bool settled(struct task *task, uint64_t budget_ns, struct verdict *v)
{
	enum where where;
	uint64_t cpu;
	int err;

	if (task->settled)
		return true;
	err = task_cpu(task->tid, &cpu);
	where = where_is(task->tid);
	if (err == -ESRCH || where == ELSEWHERE)
		return task->settled = true;
	v->asleep |= where == INSIDE;
	if (err || cpu - task->cpu < budget_ns)
		return false;
	if (where == INSIDE && !sleeps_in(task->tid, "userfaultfd_event_wait_completion"))
		return false;
	return task->settled = v->by_time = true;
}

static bool all_settled(struct tasks *tasks, uint64_t budget_ns, struct verdict *v)
{
	v->all = true;
	v->asleep = false;
	for (unsigned i = 0; i < tasks->count; i++)
		v->all &= settled(&tasks->task[i], budget_ns, v);
	return v->all;
}

/*
 * Returns when whoever held the address space's lock has let go of it. Nothing is changed:
 * that the page is part of a core dump is as it was.
 */
static int pass_lock(void)
{
	static _Alignas(OS_PAGE_SIZE) char page[OS_PAGE_SIZE];

	return madvise(page, OS_PAGE_SIZE, MADV_DODUMP) ? -errno : 0;
}

static int note_cpu(struct task *task)
{
	return task_cpu(task->tid, &task->cpu);
}

/* What cannot be told counts as not settled. */
int live_madvise_settled(uint64_t budget_ns, uint64_t timeout_ns)
{
	uint64_t began = live_now(), pause = SLEEP_FIRST_NS;
	struct verdict v = { 0 };
	struct tasks tasks;
	int err;

	err = tasks_list(&tasks, NULL, live_tid(), began + timeout_ns, note_cpu) ? -EBUSY : 0;
	while (!err && !all_settled(&tasks, budget_ns, &v)) {
		if (live_now() - began >= (v.asleep ? timeout_ns : STARVED * timeout_ns))
			err = -EBUSY;
		else
			live_sleep(pause);
		pause = pause * 2 < SLEEP_MAX_NS ? pause * 2 : SLEEP_MAX_NS;
	}
	tasks_free(&tasks);
	if (!err && v.by_time && pass_lock())
		err = -EBUSY;
	return err;
}
