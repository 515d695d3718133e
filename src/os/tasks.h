/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * tasks - the threads of this process, as the kernel knows them; for settle.c and tcb.c.
 *
 * No lock, and no memory of libc's.
 */
#ifndef UHMM_OS_TASKS_H
#define UHMM_OS_TASKS_H

#include "os/live.h"

#define TASKS_FEW 64u

struct task {
	pid_t tid;
	bool settled; /* settle.c's */
	union {
		uint64_t cpu;	/* ns, when it was first seen */
		uintptr_t head; /* of its robust mutexes; 0: it will not need any */
	};
};

struct tasks {
	struct task *task; /* `few`, or a mapping */
	unsigned count, room;
	struct task few[TASKS_FEW];
};

/*
 * All that there were when the call began and are there still, but `except` (0: all), each with
 * what `look` puts in it: asked of all after all have been told, -ESRCH if it has ended. mm:
 * NULL, or the own, which spares an open(). Not initialised before; tasks_free() after, also
 * where it fails. -ESRCH: threads kept ending.
 */
int tasks_list(struct tasks *tasks, const struct os_mm *mm, pid_t except, uint64_t deadline,
	       int (*look)(struct task *task));
void tasks_free(struct tasks *tasks);
/* The directory of threads: a descriptor, or -1. For os_mm.tasks_fd. */
int tasks_open(void);

/* CPU time of a thread of this process. -ESRCH: it has ended. */
int task_cpu(pid_t tid, uint64_t *ns);
/* The first of /proc/self/task/TID/WHAT, as text; false: it cannot be read. */
bool task_read(pid_t tid, const char *what, char *text, size_t size);

#endif
