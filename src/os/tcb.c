/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * tcb - what the kernel itself reads and writes when a thread ends or execs.
 *
 * There the kernel waits for no page: of a thread that ends the fault is refused, and nobody
 * is told. Then the word that pthread_join waits for is not cleared, and who waits for a
 * robust mutex waits for ever. At exec it does wait, for a pager that it has killed
 * already. So these pages never leave.
 *
 * Model: libc keeps that word (clear_child_tid) and the head of the list of robust
 * mutexes in the thread's control block, a few bytes from each other. The kernel tells
 * where the head is: its page counts, and one before and one behind.
 *
 * Laws:
 * - A thread without a head has not run yet (or its libc is one that sets the head when
 *   the first robust mutex is locked: what of that thread's counts is not known). It touches
 *   its control block before it tells the head, and so brings the page home itself.
 * - But a thread that ends has none either, from when its list is done until it has given
 *   up the address space; the word is cleared in between. Such a one is waited for.
 * - The mutexes in the list are not told: they can be anywhere.
 * - The area of rseq and the alternate signal stack are accessed on the way back to user
 *   mode, where the kernel waits for pages as ever (tests/live/test_os_tcb.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/tasks.h"

#define LIST_NS UINT64_C(1000000000)   /* threads that keep ending while they are listed */
#define ENDING_NS UINT64_C(20000000) /* the rest of a thread's life */
#define PAUSE_NS 20000u
#define PF_EXITING 4u /* the kernel's, in a thread's flags */

/*
 * Is it between the end of its code and the end of its use of the address space? "TID (NAME)
 * STATE PPID PGRP SESSION TTY TPGID FLAGS ... VSIZE": the 9th and the 23rd word.
 */
static bool is_ending(pid_t tid)
{
	unsigned long long word = 0, flags = 0;
	char text[512], *at;

	if (!task_read(tid, "stat", text, sizeof(text)))
		return false; /* gone */
	at = strrchr(text, ')');
	if (!at || strlen(at) < 4)
		return true;
	at += 3;
	for (unsigned i = 4; i <= 23; i++) {
		word = strtoull(at, &at, 10);
		if (i == 9)
			flags = word;
	}
	return (flags & PF_EXITING) && word;
}

/* -ESRCH; -EBUSY: it keeps ending. */
static int find_head(struct task *task)
{
	uint64_t deadline = live_now() + ENDING_NS;

	for (;;) {
		void *found = NULL;
		size_t size;

		if (syscall(SYS_get_robust_list, task->tid, &found, &size))
			return -errno;
		task->head = (uintptr_t)found;
		if (found || !is_ending(task->tid))
			return 0;
		if (live_now() >= deadline)
			return -EBUSY;
		live_sleep(PAUSE_NS);
	}
}

/* The pages of [start, end) that are a thread's: first and last. */
static bool touches(const struct task *task, uintptr_t start, uintptr_t end, size_t *first,
		    size_t *last)
{
	uintptr_t head = task->head & ~(OS_PAGE_SIZE - 1);
	uintptr_t low = head - OS_PAGE_SIZE, high = head + OS_PAGE_SIZE;

	if (!head || low >= end || high + OS_PAGE_SIZE <= start)
		return false;
	*first = low > start ? (low - start) / OS_PAGE_SIZE : 0;
	*last = ((high < end ? high : end - 1) - start) / OS_PAGE_SIZE;
	return true;
}

static void set(uint64_t *pages, size_t first, size_t last)
{
	for (size_t i = first; pages && i <= last && i < OS_THREAD_PAGES; i++)
		pages[i / 64] |= UINT64_C(1) << i % 64;
}

bool live_thread_pages(const struct os_mm *mm, uintptr_t start, uintptr_t end, uint64_t *pages)
{
	struct tasks tasks;
	bool found;

	if (pages)
		memset(pages, 0, OS_THREAD_PAGES / 8);
	/* Whoever cannot be asked may have anything there. */
	found = tasks_list(&tasks, mm, 0, live_now() + LIST_NS, find_head) != 0;
	if (found)
		set(pages, 0, OS_THREAD_PAGES - 1);
	for (unsigned i = 0; i < tasks.count; i++) {
		size_t first, last;

		if (!touches(&tasks.task[i], start, end, &first, &last))
			continue;
		set(pages, first, last);
		found = true;
	}
	tasks_free(&tasks);
	return found;
}
