/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fake_os - the table of fake_os.h.
 *
 * The library's threads are the test: thread_start() runs the reader's beginning and
 * remembers the rest, wait() and sleep() let reader and worker take a step. With
 * fake.threads they are threads, and wait() is a futex.
 */
#include "fake_os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define HOOKS 16u
#define FAKE_FD 1000

struct fake fake;

static struct {
	enum fake_op op;
	enum fake_when when;
	int ctx;
	unsigned nth, seen;
	fake_action action;
	void *arg;
} hook[HOOKS];

struct os_thread {
	os_thread_fn fn;
	void *arg;
	pthread_t thread;
	bool critical;
};

static struct os_thread thread[2];
static pthread_mutex_t lock;
static pthread_once_t lock_once = PTHREAD_ONCE_INIT;

static void lock_make(void)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

void fake_lock(void)
{
	pthread_mutex_lock(&lock);
}

void fake_unlock(void)
{
	pthread_mutex_unlock(&lock);
}

void fake_fail(const char *fmt, ...)
{
	char text[200];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fprintf(stderr, "%s\n", text);
	/* The library is in the middle of something: there is no way back into cmocka. */
	abort();
}

/* ---- actions ---- */

void fake_at(enum fake_op op, enum fake_when when, int ctx, unsigned nth, fake_action action,
	     void *arg)
{
	unsigned i = 0;

	fake_lock();
	while (i < HOOKS && hook[i].action)
		i++;
	if (i == HOOKS)
		fake_fail("more than %u actions", HOOKS);
	hook[i].op = op;
	hook[i].when = when;
	hook[i].ctx = ctx;
	hook[i].nth = nth;
	hook[i].seen = 0;
	hook[i].arg = arg;
	hook[i].action = action;
	fake_unlock();
}

void fake_forget(void)
{
	fake_lock();
	memset(hook, 0, sizeof(hook));
	fake_unlock();
}

/* The action of slot i, if it is due here. */
static fake_action due(unsigned i, enum fake_op op, enum fake_when when, int ctx, void **arg)
{
	fake_action action;

	fake_lock();
	action = hook[i].action;
	if (action && (hook[i].op != op || hook[i].when != when ||
		       (hook[i].ctx >= 0 && hook[i].ctx != ctx)))
		action = NULL;
	if (action && ++hook[i].seen != hook[i].nth && hook[i].nth)
		action = NULL;
	else if (action && hook[i].nth)
		hook[i].action = NULL;
	*arg = hook[i].arg;
	fake_unlock();
	return action;
}

int fake_point(enum fake_op op, enum fake_when when, int ctx)
{
	int err = 0;

	if (when == FAKE_BEFORE)
		__atomic_fetch_add(&fake.calls[op], 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < HOOKS && !err; i++) {
		void *arg;
		fake_action action = due(i, op, when, ctx, &arg);

		if (action)
			err = action(arg);
	}
	return err;
}

/* ---- contexts ---- */

static unsigned number_of(const struct os_ctx *ctx)
{
	return (unsigned)(ctx->fd - FAKE_FD);
}

static int ctx_open(struct os_ctx *ctx)
{
	unsigned i = fake.contexts++;

	ctx->fd = FAKE_FD + (int)i;
	ctx->fork = true;
	fake.ctx[i].open = true;
	return 0;
}

static void ctx_close(struct os_ctx *ctx)
{
	for (unsigned i = 0; i < fake.pages; i++)
		if (fake.page[i].ctx == (int)number_of(ctx) && !fake.ctx[number_of(ctx)].lost)
			fake_fail("context %u is closed with page %u registered", number_of(ctx),
				  i);
	fake.ctx[number_of(ctx)].open = false;
	ctx->fd = -1;
}

static void ctx_forget(struct os_ctx *ctx)
{
	ctx->fd = -1;
}

static bool ctx_is_ours(const struct os_ctx *ctx)
{
	return !fake.ctx[number_of(ctx)].lost;
}

static int ctx_register(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	int err = fake_point(FAKE_OP_REGISTER, FAKE_BEFORE, (int)number_of(ctx));

	if (err)
		return err;
	fake_lock();
	err = fake_register(number_of(ctx), start, end);
	fake_unlock();
	fake_point(FAKE_OP_REGISTER, FAKE_AFTER, (int)number_of(ctx));
	return err;
}

static int ctx_unregister(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	int err = fake_point(FAKE_OP_UNREGISTER, FAKE_BEFORE, (int)number_of(ctx));

	if (err)
		return err;
	fake_lock();
	err = fake_unregister(number_of(ctx), start, end);
	fake_unlock();
	return err;
}

static int ctx_probe(const struct os_ctx *ctx)
{
	struct fake_ctx *c = &fake.ctx[number_of(ctx)];
	int err = fake_point(FAKE_OP_PROBE, FAKE_BEFORE, (int)number_of(ctx));

	if (!err) {
		fake_lock();
		err = c->lost ? c->lost : c->changing ? -EAGAIN : 0;
		fake_unlock();
	}
	fake_point(FAKE_OP_PROBE, FAKE_AFTER, (int)number_of(ctx));
	return err;
}

static uint64_t readable_mask(unsigned n)
{
	uint64_t mask = 0;

	fake_lock();
	for (const struct fake_change *c = fake.changes; c; c = c->next)
		if (c->state == FAKE_QUEUED)
			mask |= UINT64_C(1) << c->ctx;
	if (fake.kicked)
		mask |= UINT64_C(1) << n;
	fake.kicked = false;
	fake_unlock();
	return mask;
}

static int ctx_poll(const struct os_ctx *ctxs, unsigned n, int64_t timeout_ns, uint64_t *ready)
{
	*ready = readable_mask(n);
	while (!*ready && fake.threads && timeout_ns) {
		usleep(50);
		*ready = readable_mask(n);
		if (timeout_ns > 0)
			timeout_ns = timeout_ns > 50000 ? timeout_ns - 50000 : 0;
	}
	return 0;
}

static int ctx_read(const struct os_ctx *ctx, struct os_msg *msgs, unsigned max)
{
	int n = fake_point(FAKE_OP_READ, FAKE_BEFORE, (int)number_of(ctx));

	if (!n)
		n = fake_read(number_of(ctx), msgs, max);
	fake_point(FAKE_OP_READ, FAKE_AFTER, (int)number_of(ctx));
	return n;
}

static int reader_isolate(const struct os_ctx *ctxs, unsigned n)
{
	return 0;
}

static void reader_kick(const struct os_ctx *ctxs, unsigned n)
{
	fake_lock();
	fake.kicked = true;
	fake_unlock();
}

/* ---- perf ---- */

static int perf_open(struct os_perf **perf)
{
	if (fake.no_perf)
		return -EACCES;
	*perf = (struct os_perf *)&fake.head;
	return 0;
}

static void perf_close(struct os_perf *perf)
{
	if (!fake.starting)
		fake.head = fake.tail = 0;
}

static bool perf_pending(const struct os_perf *perf)
{
	bool is;

	fake_point(FAKE_OP_PENDING, FAKE_BEFORE, -1);
	fake_lock();
	is = fake.head != fake.tail || fake.overflow;
	fake_unlock();
	fake_point(FAKE_OP_PENDING, FAKE_AFTER, -1);
	return is;
}

static int perf_drain(struct os_perf *perf, os_perf_fn fn, void *arg)
{
	bool over;

	fake_point(FAKE_OP_DRAIN, FAKE_BEFORE, -1);
	fake_lock();
	while (fake.tail != fake.head) {
		uint64_t i = fake.tail++ % FAKE_RECORDS;
		uintptr_t start = fake.record[i].start, end = fake.record[i].end;
		int prot = fake.record[i].prot;

		/* drained, and not yet told: what `draining` is for */
		fake_unlock();
		fake_point(FAKE_OP_RECORD, FAKE_BEFORE, -1);
		fn(arg, start, end, prot);
		fake_lock();
	}
	over = fake.overflow;
	fake.overflow = false;
	fake_unlock();
	fake_point(FAKE_OP_DRAIN, FAKE_AFTER, -1);
	return over;
}

/* ---- looking ---- */

static int mm_open(struct os_mm *mm, pid_t pid)
{
	*mm = (struct os_mm){ .pid = pid, .maps_fd = -1, .pagemap_fd = -1 };
	return 0;
}

static void mm_close(struct os_mm *mm)
{
}

static int find(enum fake_op op, uintptr_t addr, struct os_vma *vma)
{
	int err = fake_point(op, FAKE_BEFORE, -1);

	if (err)
		return err;
	fake_lock();
	err = fake_vma_at(addr, vma) ? 0 : -ENOENT;
	fake_unlock();
	fake_point(op, FAKE_AFTER, -1);
	return err;
}

static int vma_find(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma)
{
	return find(FAKE_OP_FIND, addr, vma);
}

static int vma_find_fast(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma)
{
	int err = find(FAKE_OP_FIND_FAST, addr, vma);

	if (!err)
		vma->kind = vma->inode ? OS_VMA_FILE : OS_VMA_ANON;
	return err;
}

static bool vma_is_dax(const struct os_mm *mm, const struct os_vma *vma)
{
	return vma->inode == fake_object[FAKE_DAX_FILE].inode;
}

static int64_t vma_file_size(const struct os_mm *mm, const struct os_vma *vma)
{
	for (unsigned i = 0; i < FAKE_OBJECTS; i++)
		if (vma->inode && fake_object[i].inode == vma->inode)
			return (int64_t)(fake_object[i].file_pages * PAGE);
	return -ENOENT;
}

static int scan(const struct os_mm *mm, uintptr_t start, uintptr_t end, unsigned how,
		struct os_run *runs, unsigned max, uintptr_t *next)
{
	int n = fake_point(FAKE_OP_SCAN, FAKE_BEFORE, -1);

	if (n)
		return n;
	fake_lock();
	n = fake_scan(start, end, how, runs, max, next);
	fake_unlock();
	fake_point(FAKE_OP_SCAN, FAKE_AFTER, -1);
	return n;
}

static int populate(uintptr_t start, uintptr_t end, bool write)
{
	int err = fake_point(FAKE_OP_POPULATE, FAKE_BEFORE, -1);

	if (err)
		return err;
	fake_lock();
	err = fake_populate(start, end, write);
	fake_unlock();
	fake_point(FAKE_OP_POPULATE, FAKE_AFTER, -1);
	return err;
}

static void populate_resident(uintptr_t start, uintptr_t end)
{
}

/* ---- copies: whether the address is good is all there is to it ---- */

static int copy_check(uintptr_t at, size_t length, bool write)
{
	struct os_vma vma;
	int err = 0;

	fake_lock();
	while (!err && length) {
		if (!fake_vma_at(at, &vma) || vma.start > at || !(vma.prot & 1) ||
		    (write && !(vma.prot & 2)))
			err = -EFAULT;
		else
			length -= length < vma.end - at ? length : vma.end - at;
		at = vma.end;
	}
	fake_unlock();
	return err;
}

static int copy_from(const struct os_mm *mm, void *dst, uintptr_t src, size_t length)
{
	int err = copy_check(src, length, false);

	if (!err)
		memset(dst, 0, length);
	return err;
}

static int copy_to(const struct os_mm *mm, uintptr_t dst, const void *src, size_t length)
{
	return copy_check(dst, length, true);
}

static int access_begin(void)
{
	return 0;
}

static void access_end(void)
{
}

static int access_add(uintptr_t addr, size_t size, uint64_t operand, uint64_t *old)
{
	return copy_check(addr, size, true);
}

static int handlers_arm(void)
{
	return 0;
}

/* ---- time and threads ---- */

static void futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	struct timespec ts = { .tv_sec = (time_t)(timeout_ns / 1000000000),
			       .tv_nsec = (long)(timeout_ns % 1000000000) };

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns ? &ts : NULL, NULL, 0);
}

static void wait_for(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
	bool did;

	fake_point(FAKE_OP_WAIT, FAKE_BEFORE, -1);
	if (fake.threads) {
		futex_wait(word, expected, timeout_ns);
		return;
	}
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected)
		return;
	did = readable_mask(CONTEXTS) != 0;
	fake_reader();
	did |= fake_worker();
	if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != expected)
		return;
	if (timeout_ns)
		fake.clock += timeout_ns;
	else if (!did)
		fake_fail("deadlock: %s", in_callback() ? "a callback waits"
							: "nothing ends this wait");
}

static void wake(const uint32_t *word)
{
	if (fake.threads)
		syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void os_yield(void)
{
}

static void sleep_for(uint64_t ns)
{
	fake_point(FAKE_OP_SLEEP, FAKE_BEFORE, -1);
	if (fake.threads) {
		usleep((useconds_t)(ns / 1000));
		return;
	}
	fake.clock += ns;
	fake_reader();
	fake_worker();
}

static uint64_t now(void)
{
	struct timespec ts;

	if (!fake.threads)
		return fake.clock += 100;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static pid_t tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

/* Without threads the reader runs as far as its loop, and stops there. */
static int thread_start(struct os_thread **out, const char *name, bool critical,
			os_thread_fn fn, void *arg)
{
	struct os_thread *t = &thread[critical];
	struct hmm *hmm = arg;

	*t = (struct os_thread){ .fn = fn, .arg = arg, .critical = critical };
	*out = t;
	if (fake.threads)
		return -pthread_create(&t->thread, NULL, fn, arg);
	if (critical) {
		fake.starting = fake.kicked = true;
		hmm->stop = true;
		fn(arg);
		hmm->stop = false;
		fake.starting = false;
	}
	return 0;
}

static void thread_join(struct os_thread *t)
{
	struct hmm *hmm = t->arg;

	if (fake.threads)
		pthread_join(t->thread, NULL);
	else if (!t->critical)
		t->fn(t->arg); /* stop is set: the last step */
	else if (hmm->perf)
		perf_close(hmm->perf);
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
static int run_detached(os_thread_fn fn, void *arg)
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

const struct os_ops fake_ops = {
	.ctx_open = ctx_open,
	.ctx_close = ctx_close,
	.ctx_forget = ctx_forget,
	.ctx_is_ours = ctx_is_ours,
	.ctx_register = ctx_register,
	.ctx_unregister = ctx_unregister,
	.ctx_probe = ctx_probe,
	.ctx_poll = ctx_poll,
	.ctx_read = ctx_read,
	.reader_isolate = reader_isolate,
	.reader_kick = reader_kick,
	.perf_open = perf_open,
	.perf_close = perf_close,
	.perf_pending = perf_pending,
	.perf_drain = perf_drain,
	.mm_open = mm_open,
	.mm_close = mm_close,
	.vma_find = vma_find,
	.vma_find_fast = vma_find_fast,
	.vma_is_dax = vma_is_dax,
	.vma_file_size = vma_file_size,
	.scan = scan,
	.populate = populate,
	.populate_resident = populate_resident,
	.copy_from = copy_from,
	.copy_to = copy_to,
	.access_begin = access_begin,
	.access_end = access_end,
	.access_add = access_add,
	.handlers_arm = handlers_arm,
	.wait = wait_for,
	.wake = wake,
	.sleep = sleep_for,
	.yield = os_yield,
	.now = now,
	.tid = tid,
	.thread_start = thread_start,
	.thread_join = thread_join,
	.run_detached = run_detached,
};

/* ---- the world, and the library's threads by hand ---- */

void fake_reset(void)
{
	pthread_once(&lock_once, lock_make);
	while (fake.changes) {
		struct fake_change *change = fake.changes;

		fake.changes = change->next;
		free(change);
	}
	memset(&fake, 0, sizeof(fake));
	fake.pages = FAKE_PAGES;
	for (unsigned i = 0; i < FAKE_PAGES; i++)
		fake.page[i].ctx = FAKE_NO_CTX;
	for (unsigned i = 0; i < FAKE_OBJECTS; i++)
		if (fake_object[i].inode)
			fake_object[i].file_pages = FAKE_PAGES;
	fake_forget();
}

struct hmm *fake_open(void)
{
	int err = mirror_create(&fake_ops, &fake.hmm);

	if (err)
		fake_fail("mirror_create: %s", hmm_strerror(err));
	home_adopt(fake.hmm);
	return fake.hmm;
}

void fake_close(struct hmm *hmm)
{
	fake_forget();
	fake_queue_all();
	if (!fake.threads) {
		fake_settle();
		fake_resume_all();
	}
	if (hmm->refs != 1)
		fake_fail("%u references are left", hmm->refs);
	hmm_put(hmm);
	fake.hmm = NULL;
}

int fake_setup(void **state)
{
	fake_reset();
	*state = fake_open();
	return 0;
}

int fake_setup_no_perf(void **state)
{
	fake_reset();
	fake.no_perf = true;
	*state = fake_open();
	return 0;
}

int fake_teardown(void **state)
{
	/* A test that failed half way has not given back what it took. */
	if (fake.hmm && fake.hmm->refs != 1) {
		print_error("%u references are left\n", fake.hmm->refs - 1);
		return -1;
	}
	if (fake.hmm)
		fake_close(*state);
	fake_reset();
	return 0;
}

bool fake_worker(void)
{
	return !lock_held && !in_callback() && worker_step(fake.hmm);
}

void fake_reader(void)
{
	/* The reader does not call itself: an action inside its read is another thread's. */
	static bool inside;

	if (inside)
		return;
	inside = true;
	reader_step(fake.hmm, 0);
	inside = false;
}

void fake_settle(void)
{
	do
		fake_reader();
	while (fake_worker() || readable_mask(CONTEXTS));
}
