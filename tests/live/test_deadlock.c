/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_deadlock - whatever a program does, and whatever a callback does, nothing hangs.
 *
 * Whoever changes a mapping waits for the reader; fork() does so with malloc's locks held;
 * a callback may want those locks, or change mappings itself. A hang is found by the
 * runner's limit, which kills the case and names it. The same with heap and stacks that are
 * in a device: test_devmem_self.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices.h"
#include "live.h"

#define PAGE ((size_t)4096)
#define RW (PROT_READ | PROT_WRITE)
#define RUN_NS UINT64_C(700000000)

/* ---- things done inside a callback ---- */

struct inside {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	void (*_Atomic act)(struct inside *in); /* or NULL: not yet */
	char *mirrored; /* memory with translations, for the callback to change */
	atomic_uint calls;
	int err;
};

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct inside *in = priv;

	/* What a callback does to mirrored memory calls it again: act once in eight. */
	if (in->act && in->calls++ % 8 == 0)
		in->act(in);
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
					     .invalidate = invalidate };

static void act_malloc(struct inside *in)
{
	for (size_t n = 16; n < (4u << 20); n *= 4) {
		char *volatile p = malloc(n);

		p[n / 2] = 1;
		free(p);
	}
}

static void act_munmap(struct inside *in)
{
	munmap(in->mirrored, PAGE);
	mmap(in->mirrored, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	munmap(live_map(16 * PAGE, RW), 16 * PAGE);
	madvise(in->mirrored + PAGE, PAGE, MADV_DONTNEED);
}

static void act_mprotect(struct inside *in)
{
	mprotect(in->mirrored, PAGE, PROT_READ);
	mprotect(in->mirrored, PAGE, RW);
}

static void act_fork(struct inside *in)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	in->err |= waitpid(pid, NULL, 0) != pid;
}

static void *nothing(void *arg)
{
	return malloc(100);
}

static void act_pthread_create(struct inside *in)
{
	pthread_t thread;
	void *p = NULL;

	in->err |= pthread_create(&thread, NULL, nothing, NULL);
	if (!in->err)
		pthread_join(thread, &p);
	free(p);
}

static void act_notifiers(struct inside *in)
{
	static const struct hmm_notifier_ops quiet = { .size = sizeof(quiet),
						       .invalidate = invalidate };
	static struct inside idle = { .act = act_malloc };
	struct hmm_notifier *n;

	if (hmm_notifier_insert(in->hmm, (uintptr_t)in->mirrored, PAGE, &quiet, &idle,
				&n)) {
		in->err = 1;
		return;
	}
	hmm_notifier_remove(n);
	hmm_put(hmm_get(in->hmm));
}

/* What waits for callbacks says so instead of waiting. */
static void act_forbidden(struct inside *in)
{
	struct hmm *other;

	in->err |= hmm_fence(in->hmm, (uintptr_t)in->mirrored, PAGE) != -EDEADLK;
	in->err |= hmm_notifier_fence(in->notifier) != -EDEADLK;
	in->err |= hmm_open(&other) != -EDEADLK;
}

static void act_copy(struct inside *in)
{
	uint64_t value;

	in->err |= hmm_copy_from(in->hmm, &value, (uintptr_t)in->mirrored + PAGE,
				 sizeof(value));
}

/* ---- things done by the program meanwhile ---- */

struct churner {
	pthread_t thread;
	char *mirrored;
	atomic_bool *stop;
	unsigned what;
};

static void churn_fork(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static void *churn(void *arg)
{
	struct churner *c = arg;
	char *volatile p;

	while (!*c->stop) {
		switch (c->what) {
		case 0:
			p = malloc(300000); /* an mmap and a munmap */
			p[0] = 1;
			free(p);
			break;
		case 1:
			churn_fork();
			break;
		case 2:
			madvise(c->mirrored, PAGE, MADV_DONTNEED);
			munmap(c->mirrored + PAGE, PAGE);
			mmap(c->mirrored + PAGE, PAGE, RW,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		default:
			p = malloc(1000);
			mprotect(c->mirrored, PAGE, PROT_READ);
			mprotect(c->mirrored, PAGE, RW);
			free(p);
		}
	}
	return NULL;
}

#define CHURNERS 4

/* Devices work, four threads churn, and each callback acts. */
static enum verdict act_while_churning(const void *arg)
{
	char *at = live_map(64 * PAGE, RW), byte = 1;
	struct inside in = { .mirrored = live_map(4 * PAGE, RW),
			     .act = (void (*)(struct inside *))(uintptr_t)arg };
	const uint64_t began = live_now_ns();
	struct churner churners[CHURNERS];
	atomic_bool stop = false;
	struct device devs[2];

	for (unsigned d = 0; d < 2; d++)
		EXPECT(0, device_open(&live_drivers[d], &devs[d]));
	in.hmm = devs[0].hmm;
	EXPECT(0, hmm_notifier_insert(in.hmm, 0, UINTPTR_MAX, &ops, &in, &in.notifier));
	for (unsigned i = 0; i < CHURNERS; i++) {
		churners[i] = (struct churner){ .mirrored = at + i * 4 * PAGE,
						.stop = &stop,
						.what = i };
		pthread_create(&churners[i].thread, NULL, churn, &churners[i]);
	}
	for (size_t i = 0; live_race_on(began, RUN_NS, in.calls > 20); i++) {
		struct device *dev = &devs[i % 2];
		int err = device_write(dev, at + i % 64 * PAGE, &byte, 1);

		CHECK(!err || err == -EFAULT || err == -EPERM || err == -EBUSY, "write: %s",
		      hmm_strerror(err));
		device_byte(dev, in.mirrored + i % 4 * PAGE);
	}
	stop = true;
	for (unsigned i = 0; i < CHURNERS; i++)
		pthread_join(churners[i].thread, NULL);
	EXPECT(0, device_fence(&devs[0], at, 64 * PAGE));
	CHECK(in.calls > 20, "only %u callbacks", in.calls);
	CHECK(!in.err, "something failed inside a callback");
	hmm_notifier_remove(in.notifier);
	for (unsigned d = 0; d < 2; d++)
		device_close(&devs[d]);
	return PASS;
}

/* ---- removal inside the callback, and the end of the mirror there ---- */

static void act_remove(struct inside *in)
{
	hmm_notifier_remove(in->notifier);
	in->notifier = NULL;
}

/* A mirrored page, a notifier over everything, and no other reference. */
static enum verdict alone(struct inside *in)
{
	uint64_t pfn = 0;
	struct hmm_range range = { .size = sizeof(range),
				   .pfns = &pfn,
				   .default_flags = HMM_PFN_REQ_FAULT };
	int err;

	in->mirrored = live_map(PAGE, RW);
	EXPECT(0, hmm_open(&in->hmm));
	EXPECT(0, hmm_notifier_insert(in->hmm, 0, UINTPTR_MAX, &ops, in, &in->notifier));
	range.hmm = in->hmm;
	range.notifier = in->notifier;
	range.start = (uintptr_t)in->mirrored;
	range.end = range.start + PAGE;
	do { /* what the last round changed may still be told to a notifier over everything */
		err = hmm_notifier_read_begin(&range);
		if (!err)
			err = hmm_range_fault(&range);
	} while (err == -EBUSY);
	EXPECT(0, err);
	return PASS;
}

static enum verdict removed_inside(const void *arg)
{
	for (int i = 0; i < 50; i++) {
		struct inside in = { 0 };

		/* The mirror may be the last round's still, and so may be what it tells. */
		TRY(alone(&in));
		in.act = act_remove;
		if (i %
		    2) /* then the notifier holds the last reference, and drops it inside */
			hmm_put(in.hmm);
		SYS(madvise(in.mirrored, PAGE, MADV_DONTNEED));
		if (!(i % 2)) {
			EXPECT(0, hmm_fence(in.hmm, (uintptr_t)in.mirrored, PAGE));
			EXPECT(1, in.calls);
			SYS(munmap(in.mirrored, PAGE));
			EXPECT(0, hmm_fence(in.hmm, (uintptr_t)in.mirrored, PAGE));
			EXPECT(1, in.calls);
			hmm_put(in.hmm);
		}
		for (int k = 0; k < 5000 && in.notifier; k++)
			usleep(200);
		CHECK(!in.notifier, "the callback never came");
	}
	return PASS;
}

/* Remove from another thread while the callback runs: it waits, and no call comes after. */
static void act_slow(struct inside *in)
{
	usleep(2000);
}

static void *change_for_ever(void *arg)
{
	struct churner *c = arg;

	while (!*c->stop)
		madvise(c->mirrored, PAGE, MADV_DONTNEED);
	return NULL;
}

static enum verdict removed_outside(const void *arg)
{
	for (int i = 0; i < 30; i++) {
		struct inside in = { .act = act_slow };
		atomic_bool stop = false;
		struct churner c;
		unsigned calls;

		TRY(alone(&in));
		c = (struct churner){ .mirrored = in.mirrored, .stop = &stop };
		pthread_create(&c.thread, NULL, change_for_ever, &c);
		while (!in.calls)
			usleep(50);
		hmm_notifier_remove(in.notifier);
		calls = in.calls;
		usleep(1000);
		EXPECT(calls, in.calls);
		hmm_put(in.hmm);
		stop = true;
		pthread_join(c.thread, NULL);
	}
	return PASS;
}

/* ---- ways for a process to end ---- */

struct ending {
	const char *name;
	int want; /* wait status */
	void (*end)(struct inside *in);
};

static void end_exit(struct inside *in)
{
	exit(5);
}

static void end_exit_in_callback(struct inside *in)
{
	in->act = end_exit;
	in->calls = 0;
	madvise(in->mirrored, PAGE, MADV_DONTNEED);
	for (;;)
		pause();
}

static void end_kill(struct inside *in)
{
	raise(SIGKILL);
}

static void end_exec(struct inside *in)
{
	execl("/bin/sh", "sh", "-c", "exit 5", (char *)NULL);
}

static void *exec_main(void *arg)
{
	end_exec(arg);
	return NULL;
}

static void end_exec_in_thread(struct inside *in)
{
	pthread_t thread;

	pthread_create(&thread, NULL, exec_main, in);
	for (;;)
		pause();
}

static void end_fork_and_exit(struct inside *in)
{
	pid_t pid = fork();
	char *volatile p = malloc(400000);

	free(p); /* the child has libc's allocator, without our threads */
	if (!pid)
		exit(0);
	waitpid(pid, NULL, 0);
	exit(5);
}

static void end_abort(struct inside *in)
{
	abort();
}

static const struct ending endings[] = {
	{ "exit", 5 << 8, end_exit },
	{ "exit in a callback", 5 << 8, end_exit_in_callback },
	{ "SIGKILL", SIGKILL, end_kill },
	{ "exec", 5 << 8, end_exec },
	{ "exec in a thread", 5 << 8, end_exec_in_thread },
	{ "fork without exec", 5 << 8, end_fork_and_exit },
	{ "abort", SIGABRT, end_abort },
};

static void *work_for_ever(void *arg)
{
	struct device *dev = arg;
	static char page[4096];

	for (;;)
		device_write(dev, page, "x", 1);
	return NULL;
}

/* In the middle of everything: devices that work, memory that changes, callbacks. */
static void live_and_end(const struct ending *ending)
{
	struct inside in = { .act = act_malloc };
	struct device devs[2];
	pthread_t threads[2];
	atomic_bool stop = false;
	struct churner c;

	for (unsigned d = 0; d < 2; d++)
		if (device_open(&live_drivers[d], &devs[d]) ||
		    pthread_create(&threads[d], NULL, work_for_ever, &devs[d]))
			_exit(99);
	if (alone(&in) != PASS)
		_exit(98);
	c = (struct churner){ .mirrored = live_map(4 * PAGE, RW),
			      .stop = &stop,
			      .what = 2 };
	if (device_byte(&devs[0], c.mirrored) || pthread_create(&c.thread, NULL, churn, &c))
		_exit(97);
	usleep(10000);
	ending->end(&in);
	_exit(96);
}

static enum verdict ends(const void *arg)
{
	const struct ending *ending = arg;

	for (int i = 0; i < 5; i++) {
		pid_t pid = fork();
		int status;

		if (!pid)
			live_and_end(ending);
		status = live_wait(pid, 10);
		CHECK(status != -1, "%s: the process never ends", ending->name);
		status &= ~0x80; /* whether a core was written */
		CHECK(status == ending->want, "%s: status %#x, expected %#x", ending->name,
		      status, ending->want);
	}
	return PASS;
}

/* Open and close beside each other, and beside changes of what was mirrored. */
static void *open_and_close(void *arg)
{
	struct churner *c = arg;

	while (!*c->stop) {
		struct device dev;

		if (device_open(&live_drivers[c->what % 2], &dev))
			abort();
		device_byte(&dev, c->mirrored);
		device_close(&dev);
		madvise(c->mirrored, PAGE, MADV_DONTNEED);
	}
	return NULL;
}

static enum verdict reopened(const void *arg)
{
	char *at = live_map(16 * PAGE, RW);
	struct churner churners[CHURNERS];
	atomic_bool stop = false;

	for (unsigned i = 0; i < CHURNERS; i++) {
		churners[i] = (struct churner){ .mirrored = at + i * 2 * PAGE,
						.stop = &stop,
						.what = i };
		pthread_create(&churners[i].thread, NULL, i == 3 ? churn : open_and_close,
			       &churners[i]);
	}
	usleep(1500000);
	stop = true;
	for (unsigned i = 0; i < CHURNERS; i++)
		pthread_join(churners[i].thread, NULL);
	return PASS;
}

#define INSIDE(act)                                                                        \
	{                                                                                  \
		.name = "inside " #act, .run = act_while_churning, .arg = act              \
	}
#define ENDINGS (sizeof(endings) / sizeof(endings[0]))

int main(int argc, char **argv)
{
	static struct live_case cases[11 + ENDINGS] = {
		INSIDE(act_malloc),
		INSIDE(act_munmap),
		INSIDE(act_mprotect),
		INSIDE(act_fork),
		INSIDE(act_pthread_create),
		INSIDE(act_notifiers),
		INSIDE(act_forbidden),
		INSIDE(act_copy),
		{ .name = "removed inside", .run = removed_inside },
		{ .name = "removed outside", .run = removed_outside },
		{ .name = "opened and closed all the time", .run = reopened },
	};
	size_t n = 11;

	for (size_t i = 0; i < ENDINGS; i++)
		cases[n++] = (struct live_case){ .name = endings[i].name,
						 .run = ends,
						 .arg = &endings[i] };
	return live_main(argc, argv, cases, n);
}
