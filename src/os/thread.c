/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * thread - threads of the library, sleeping and waking, and the clock.
 *
 * Model: a thread's stack is a mapping of the library's with a guard page on either side
 * (arena_map); at its top lies the struct os_thread. libc allocates the thread's TLS as it
 * does for any thread: that is why threads are made when a mirror is opened, and at
 * no other time.
 *
 * Signals: all are blocked while the thread is made, so none of the program's handlers
 * ever runs on it. One that runs the program's callbacks gets those back that an
 * instruction raises: blocked, they would kill without asking the program's handler.
 */
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "os/live.h"
#include "util/arena.h"

#define STACK_CRITICAL ((size_t)256 << 10)
#define STACK_CALLBACKS ((size_t)1 << 20) /* callbacks are the program's code */

/* SCHED_FLAG_RESET_ON_FORK; <linux/sched.h> cannot be had beside libc's. */
#define RESET_ON_FORK 0x01

#define SECOND UINT64_C(1000000000)

struct os_thread {
	pthread_t thread;
	size_t size; /* of the mapping */
	os_thread_fn fn;
	void *arg;
	bool critical;
	char name[16]; /* as much as the kernel keeps */
	char *stack;
};

struct timespec live_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };
}

void live_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	struct timespec timeout = live_timespec(timeout_ns);

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns ? &timeout : NULL);
}

void live_wake(const uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX);
}

void live_sleep(uint64_t ns)
{
	struct timespec left = live_timespec(ns);

	while (nanosleep(&left, &left) && errno == EINTR)
		;
}

void live_yield(void)
{
	sched_yield();
}

uint64_t live_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

pid_t live_tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

/* The kernel's struct sched_attr, first version; libc has none before 2.41. */
struct attr {
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

/*
 * Everyone who unmaps waits for the reader to read, and every fence for the worker: they
 * shall run at once when they wake. A short slice (Linux 6.12) and a better nice value are
 * asked for, and whatever is refused is done without. Threads that a callback makes start
 * with neither. A real-time policy that was inherited is better than both.
 */
static void hurry(void)
{
	struct attr attr = { .size = sizeof(attr), .policy = SCHED_OTHER,
			     .flags = RESET_ON_FORK, .nice = -10,
			     .runtime = 100000 };

	if (sched_getscheduler(0) != SCHED_OTHER)
		return;
	if (!syscall(SYS_sched_setattr, 0, &attr, 0))
		return;
	attr.nice = getpriority(PRIO_PROCESS, 0);
	syscall(SYS_sched_setattr, 0, &attr, 0);
}

static void unblock_faults(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++)
		sigaddset(&set, faults[i]);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void *begin(void *arg)
{
	struct os_thread *thread = arg;

	pthread_setname_np(pthread_self(), thread->name);
	hurry();
	if (!thread->critical)
		unblock_faults();
	return thread->fn(thread->arg);
}

/* pthread_create with every signal blocked in the new thread. */
static int create(pthread_t *thread, const pthread_attr_t *attr, os_thread_fn fn, void *arg)
{
	sigset_t all, before;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	err = pthread_create(thread, attr, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

/* libc puts the thread's copy of every object's TLS on the stack that it is given. */
static int add_tls(struct dl_phdr_info *object, size_t size, void *total)
{
	for (unsigned i = 0; i < object->dlpi_phnum; i++)
		if (object->dlpi_phdr[i].p_type == PT_TLS)
			*(size_t *)total += object->dlpi_phdr[i].p_memsz +
					    object->dlpi_phdr[i].p_align;
	return 0;
}

static size_t stack_size_of(bool critical)
{
	size_t size = critical ? STACK_CRITICAL : STACK_CALLBACKS;

	dl_iterate_phdr(add_tls, &size);
	return (size + OS_PAGE_SIZE - 1) & ~(OS_PAGE_SIZE - 1);
}

int live_thread_start(struct os_thread **out, const char *name, bool critical,
		      os_thread_fn fn, void *arg)
{
	size_t stack_size = stack_size_of(critical), size = stack_size + OS_PAGE_SIZE;
	char *stack = arena_map(size);
	struct os_thread *thread;
	pthread_attr_t attr;
	int err;

	if (!stack)
		return -ENOMEM;
	thread = (struct os_thread *)(stack + stack_size);
	*thread = (struct os_thread){ .size = size, .fn = fn, .arg = arg, .critical = critical,
				      .stack = stack };
	strncpy(thread->name, name, sizeof(thread->name) - 1);
	pthread_attr_init(&attr);
	err = -pthread_attr_setstack(&attr, stack, stack_size);
	if (!err)
		err = create(&thread->thread, &attr, begin, thread);
	pthread_attr_destroy(&attr);
	if (err)
		arena_unmap(stack, size);
	else
		*out = thread;
	return err;
}

void live_thread_join(struct os_thread *thread)
{
	pthread_join(thread->thread, NULL);
	arena_unmap(thread->stack, thread->size);
}

int live_run_detached(os_thread_fn fn, void *arg)
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	pthread_attr_init(&attr);
	err = -pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (!err)
		err = create(&thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return err;
}
