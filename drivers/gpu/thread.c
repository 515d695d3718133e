/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * thread - a thread of the GPU's.
 *
 * Its stack is memory that never moves (gpu_private.h), libc's part of the thread included.
 * Asynchronous signals are the program's; faults must reach the thread that made them.
 */
#include <signal.h>

#include "gpu_private.h"

static int create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *),
		  void *arg)
{
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
	sigset_t mask, before;
	size_t i;
	int err;

	sigfillset(&mask);
	for (i = 0; i < sizeof(own) / sizeof(*own); i++)
		sigdelset(&mask, own[i]);
	pthread_sigmask(SIG_SETMASK, &mask, &before);
	err = pthread_create(thread, attr, fn, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -err;
}

/* On failure nothing is left of it. */
int gpu_thread_start(struct gpu_thread *thread, void *(*fn)(void *), void *arg)
{
	char *stack = hmm_alloc(GPU_STACK);
	pthread_attr_t attr;
	int err;

	if (!stack)
		return -ENOMEM;
	thread->stack = stack; /* before it runs: it may ask */
	pthread_attr_init(&attr);
	err = -pthread_attr_setstack(&attr, stack, GPU_STACK);
	if (!err)
		err = create(&thread->thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	if (err) {
		thread->stack = NULL;
		hmm_free(stack, GPU_STACK);
	}
	return err;
}

/* One that was never started is nothing to wait for. */
void gpu_thread_join(struct gpu_thread *thread)
{
	if (!thread->stack)
		return;
	pthread_join(thread->thread, NULL);
	hmm_free(thread->stack, GPU_STACK);
	thread->stack = NULL;
}
