/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fake_threads - waiting, time, and the library's threads.
 *
 * The library's threads are the test: thread_start() runs the reader's beginning and
 * remembers the rest, wait() and sleep() let reader and worker take a step. With
 * fake.threads they are threads, and wait() is a futex.
 */
#include "fake_os.h"

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct os_thread {
	os_thread_fn fn;
	void *arg;
	pthread_t thread;
	enum { WORKER, READER, HELPER, THREADS } is;
};

static struct os_thread thread[THREADS];

static void futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(timeout_ns / 1000000000),
			       .tv_nsec = (long)(timeout_ns % 1000000000) };

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns ? &ts : NULL, NULL, 0);
}

void fake_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	fake_point(FAKE_OP_WAIT, FAKE_BEFORE, -1);
	if (fake_reading && !fake.starting)
		fake_fail("the reader waits");
	if (fake.threads) {
		futex_wait(word, expected, timeout_ns);
		return;
	}
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected)
		return;
	if (timeout_ns) {
		fake_reader();
		fake_worker();
		if (__atomic_load_n(word, __ATOMIC_SEQ_CST) == expected)
			fake.clock += timeout_ns;
		return;
	}
	fake_go_on();
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected)
		fake.idle = 0;
}

void fake_wake_word(const uint32_t *word)
{
	if (fake.threads)
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

void fake_sleep(uint64_t ns)
{
	fake_point(FAKE_OP_SLEEP, FAKE_BEFORE, -1);
	if (fake.threads) {
		usleep((useconds_t)(ns / 1000));
		return;
	}
	fake.clock += ns;
	fake_reader(); /* nothing, when it is the reader that sleeps */
	fake_worker();
	if (fake_reading && fake.engine)
		fake.engine(fake.engine_arg);
}

uint64_t fake_now(void)
{
	struct timespec ts;

	if (!fake.threads)
		return fake.clock += 100;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void *reader_thread(void *arg)
{
	struct os_thread *t = arg;

	fake_reading = true;
	return t->fn(t->arg);
}

/*
 * Without threads the reader runs as far as its loop, and stops there. The helper
 * never runs: here a test says when a storm ends, and pages are made when they are needed.
 */
int fake_thread_start(struct os_thread **out, const char *name, bool critical, os_thread_fn fn,
		      void *arg)
{
	unsigned is = critical ? READER : strcmp(name, "uhmm-helper") ? WORKER : HELPER;
	struct os_thread *t = &thread[is];
	struct hmm *hmm = arg;

	*t = (struct os_thread){ .fn = fn, .arg = arg, .is = is };
	*out = t;
	if (fake.threads)
		return -pthread_create(&t->thread, NULL, critical ? reader_thread : fn,
				       critical ? t : arg);
	if (critical) {
		fake.starting = fake.kicked = fake_reading = true;
		hmm->stop = true;
		fn(arg);
		hmm->stop = false;
		fake.starting = fake_reading = false;
	}
	return 0;
}

void fake_thread_join(struct os_thread *t)
{
	struct hmm *hmm = t->arg;

	if (fake.threads)
		pthread_join(t->thread, NULL);
	else if (t->is == WORKER)
		t->fn(t->arg); /* stop is set: the last step */
	else if (t->is == READER && hmm->perf)
		fake_perf_close(hmm->perf);
	if (t->is != READER)
		return;
	fake.reader_gone = true;
	fake_quiet_gone();
}

static struct {
	os_thread_fn fn;
	void *arg;
} detached;

static void *detached_main(void *arg)
{
	detached.fn(detached.arg);
	fake.detached_done = true;
	return NULL;
}

/* It ends the mirror while the worker still runs: nothing for one thread to play. */
int fake_run_detached(os_thread_fn fn, void *arg)
{
	pthread_attr_t attr;
	pthread_t id;
	int err;

	if (!fake.threads)
		fake_fail("the last reference was dropped inside a callback");
	detached.fn = fn;
	detached.arg = arg;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = -pthread_create(&id, &attr, detached_main, NULL);
	pthread_attr_destroy(&attr);
	return err;
}

/* ---- by hand ---- */

bool fake_worker(void)
{
	return !lock_held && !in_callback() && worker_step(fake.hmm);
}

void fake_reader(void)
{
	/* The reader does not call itself: an action inside its read is another thread's. */
	if (fake.reader_runs)
		return;
	fake.reader_runs = fake_reading = true;
	reader_step(fake.hmm, 0);
	fake.reader_runs = fake_reading = false;
}

void fake_settle(void)
{
	do
		fake_reader();
	while (fake_worker() || fake_readable());
}
