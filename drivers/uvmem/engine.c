/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * engine - seals and opens pages, in the order in which the library asks.
 *
 * A ring that the reader fills and the engine empties, without a lock between them: the
 * reader has every CPU's fault on it. The engine takes uv->lock, whose holders wait for
 * nobody.
 *
 * What ciphers leave on a stack is worth the key. So it works on a stack in secret memory.
 * That cannot be the thread's own: libc keeps the thread's block there, and the kernel ends
 * a thread with a futex wake by the page, which secret memory does not have; pthread_join()
 * would wait for ever. The thread starts on ordinary memory that never moves and
 * changes over.
 */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uvmem_private.h"

#define OUTER ((size_t)128 << 10)

static void sleep_on(_Atomic uint32_t *word, uint32_t seen)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void ring_bell(struct uvmem_engine *engine)
{
	atomic_fetch_add(&engine->bell, 1);
	syscall(SYS_futex, &engine->bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* The reader. A full ring cannot be: the library has not so many transfers. */
void uvmem_engine_put(struct uvmem *uv, const struct uvmem_job *job)
{
	struct uvmem_engine *engine = &uv->engine;
	uint32_t tail = atomic_load_explicit(&engine->tail, memory_order_relaxed);

	if (tail - atomic_load(&engine->head) == UVMEM_JOBS) {
		hmm_devmem_done(job->transfer, -EBUSY);
		return;
	}
	engine->job[tail % UVMEM_JOBS] = *job;
	atomic_store(&engine->tail, tail + 1);
	ring_bell(engine);
}

static void run_job(struct uvmem *uv, const struct uvmem_job *job)
{
	unsigned i;

	if (job->home)
		uvmem_stop_frames(uv, job->copies, job->n);
	for (i = 0; i < job->n; i++) {
		struct hmm_devmem_copy *copy = &job->copies[i];

		if (!job->home)
			copy->err = uvmem_take_in(uv, copy);
		else if (copy->host)
			copy->err = uvmem_let_out(uv, copy);
	}
	uvmem_clear_registers();
}

static void serve(struct uvmem *uv)
{
	struct uvmem_engine *engine = &uv->engine;
	struct uvmem_job job;
	uint32_t bell, head;

	for (;;) {
		bell = atomic_load(&engine->bell);
		head = atomic_load_explicit(&engine->head, memory_order_relaxed);
		if (head != atomic_load(&engine->tail)) {
			job = engine->job[head % UVMEM_JOBS];
			run_job(uv, &job);
			atomic_store(&engine->head, head + 1);
			hmm_devmem_done(job.transfer, 0);
		} else if (atomic_load(&engine->stop)) {
			return;
		} else {
			sleep_on(&engine->bell, bell);
		}
	}
}

static void on_secret_stack(unsigned high, unsigned low)
{
	serve((struct uvmem *)((uintptr_t)high << 32 | low));
}

static void *engine_main(void *arg)
{
	struct uvmem *uv = arg;
	struct uvmem_engine *engine = &uv->engine;

	getcontext(engine->here);
	engine->here->uc_stack.ss_sp = engine->stack;
	engine->here->uc_stack.ss_size = UVMEM_STACK;
	engine->here->uc_link = engine->back;
	makecontext(engine->here, (void (*)(void))on_secret_stack, 2,
		    (unsigned)((uintptr_t)uv >> 32), (unsigned)(uintptr_t)uv);
	swapcontext(engine->back, engine->here);
	return NULL;
}

/* Asynchronous signals are the program's. On failure nothing is left of it. */
int uvmem_engine_start(struct uvmem *uv)
{
	static const int own[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	char *outer = hmm_alloc(OUTER);
	sigset_t mask, before;
	pthread_attr_t attr;
	size_t i;
	int err;

	if (!outer)
		return -ENOMEM;
	sigfillset(&mask);
	for (i = 0; i < sizeof(own) / sizeof(*own); i++)
		sigdelset(&mask, own[i]);
	pthread_attr_init(&attr);
	err = pthread_attr_setstack(&attr, outer, OUTER);
	pthread_sigmask(SIG_SETMASK, &mask, &before);
	if (!err)
		err = pthread_create(&uv->engine.thread, &attr, engine_main, uv);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	if (err)
		hmm_free(outer, OUTER);
	else
		uv->engine.outer = outer;
	return -err;
}

/* No devmem is left that could ask for anything. */
void uvmem_engine_stop(struct uvmem *uv)
{
	if (!uv->engine.outer)
		return;
	atomic_store(&uv->engine.stop, true);
	ring_bell(&uv->engine);
	pthread_join(uv->engine.thread, NULL);
	hmm_free(uv->engine.outer, OUTER);
	uv->engine.outer = NULL;
}
