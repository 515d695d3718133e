/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fake_os - the table of fake_os.h: contexts, perf, looking, copies.
 */
#include "fake_os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HOOKS 16u

struct fake fake;
__thread bool fake_reading;

static struct {
	enum fake_op op;
	enum fake_when when;
	int ctx;
	unsigned nth, seen;
	fake_action action;
	void *arg;
} hook[HOOKS];

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
	bool reading = fake_reading;
	int err = 0;

	if (when == FAKE_BEFORE)
		__atomic_fetch_add(&fake.calls[op], 1, __ATOMIC_RELAXED);
	fake_reading = false;
	if (fake.watch)
		fake.watch(fake.watch_arg);
	for (unsigned i = 0; i < HOOKS && !err; i++) {
		void *arg;
		fake_action action = due(i, op, when, ctx, &arg);

		if (action)
			err = action(arg);
	}
	fake_reading = reading;
	return err;
}

/* ---- contexts ---- */

unsigned fake_ctx_number(const struct os_ctx *ctx)
{
	return (unsigned)(ctx->fd - FAKE_FD);
}

static int ctx_open(struct os_ctx *ctx)
{
	unsigned i = fake.contexts++;

	ctx->fd = FAKE_FD + (int)i;
	ctx->fork = true;
	ctx->nudge = ctx->nudged ? FAKE_FD - 1 : -1;
	ctx->move = !fake.no_move;
	ctx->poison = !fake.no_poison;
	ctx->user_only = fake.user_only;
	ctx->unregisters_all = fake.unregisters_all;
	fake.ctx[i].open = true;
	return 0;
}

static int sentinel_open(struct os_ctx *ctx)
{
	if (fake.no_sentinel)
		return -EPERM;
	*ctx = (struct os_ctx){ .fd = FAKE_FD + (int)FAKE_SENTINEL, .fork = true, .nudge = -1,
				.sentinel = FAKE_REGION_BASE - PAGE };
	fake.ctx[FAKE_SENTINEL].open = true;
	return 0;
}

static void ctx_close(struct os_ctx *ctx)
{
	unsigned number = fake_ctx_number(ctx);

	for (unsigned i = 0; i < fake.pages; i++)
		if (fake.page[i].ctx == (int)number && !fake.ctx[number].lost)
			fake_fail("context %u is closed with page %u registered", number, i);
	fake.ctx[fake_ctx_number(ctx)].open = false;
	ctx->fd = -1;
}

static void ctx_forget(struct os_ctx *ctx)
{
	ctx->fd = -1;
}

static bool ctx_is_ours(const struct os_ctx *ctx)
{
	return !fake.ctx[fake_ctx_number(ctx)].lost;
}

static int ctx_register(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	int err = fake_point(FAKE_OP_REGISTER, FAKE_BEFORE, (int)fake_ctx_number(ctx));

	if (err)
		return err;
	fake_lock();
	err = fake_register(fake_ctx_number(ctx), start, end, false);
	fake_unlock();
	fake_point(FAKE_OP_REGISTER, FAKE_AFTER, (int)fake_ctx_number(ctx));
	return err;
}

static int ctx_unregister(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	int err = fake_point(FAKE_OP_UNREGISTER, FAKE_BEFORE, (int)fake_ctx_number(ctx));

	if (err)
		return err;
	fake_lock();
	err = fake_unregister(fake_ctx_number(ctx), start, end);
	fake_unlock();
	return err;
}

static int ctx_unmark(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	int err;

	fake_lock();
	err = fake.ctx[fake_ctx_number(ctx)].changing ? -EAGAIN : fake_unmark(start, end);
	fake_unlock();
	return err;
}

static int ctx_probe(const struct os_ctx *ctx)
{
	struct fake_ctx *c = &fake.ctx[fake_ctx_number(ctx)];
	int err = fake_point(FAKE_OP_PROBE, FAKE_BEFORE, (int)fake_ctx_number(ctx));

	if (!err) {
		fake_lock();
		err = c->lost ? c->lost : c->changing ? -EAGAIN : 0;
		fake_unlock();
	}
	fake_point(FAKE_OP_PROBE, FAKE_AFTER, (int)fake_ctx_number(ctx));
	return err;
}

/* Bits as of ctx_poll; those of kick and nudge are taken. */
static uint64_t take_mask(unsigned n)
{
	uint64_t mask = 0;

	fake_lock();
	for (const struct fake_change *c = fake.changes; c; c = c->next)
		if (c->state == FAKE_QUEUED && c->ctx < n)
			mask |= UINT64_C(1) << c->ctx;
	for (const struct fake_cpu *cpu = fake.waiting; cpu; cpu = cpu->next)
		if (!cpu->told && cpu->ctx < n)
			mask |= UINT64_C(1) << cpu->ctx;
	if (fake.kicked)
		mask |= UINT64_C(1) << n;
	if (fake.nudged)
		mask |= UINT64_C(1) << (n + 1);
	fake.kicked = fake.nudged = false;
	fake_unlock();
	return mask;
}

bool fake_readable(void)
{
	bool kicked = fake.kicked, nudged = fake.nudged, is = take_mask(FAKE_CONTEXTS);

	fake.kicked = kicked;
	fake.nudged = nudged;
	return is;
}

static int ctx_poll(const struct os_ctx *ctxs, unsigned n, int64_t timeout_ns, uint64_t *ready)
{
	int count = 0;

	*ready = take_mask(n);
	while (!*ready && fake.threads && timeout_ns) {
		usleep(50);
		*ready = take_mask(n);
		if (timeout_ns > 0)
			timeout_ns = timeout_ns > 50000 ? timeout_ns - 50000 : 0;
	}
	for (uint64_t m = *ready; m; m &= m - 1)
		count++;
	return count;
}

static int ctx_read(const struct os_ctx *ctx, struct os_msg *msgs, unsigned max)
{
	int n = fake_point(FAKE_OP_READ, FAKE_BEFORE, (int)fake_ctx_number(ctx));

	if (!n)
		n = fake_read(fake_ctx_number(ctx), msgs, max);
	fake_point(FAKE_OP_READ, FAKE_AFTER, (int)fake_ctx_number(ctx));
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

static void reader_nudge(const struct os_ctx *ctxs)
{
	fake_point(FAKE_OP_NUDGE, FAKE_BEFORE, -1);
	if (ctxs[0].nudge < 0)
		fake_fail("a nudge, but the context was opened without");
	fake_lock();
	fake.nudged = true;
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

void fake_perf_close(struct os_perf *perf)
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
	for (uintptr_t at = start; at < end && !err; at += PAGE)
		err = fake_touch_or_wait(at, write);
	fake_point(FAKE_OP_POPULATE, FAKE_AFTER, -1);
	return err;
}

static int vma_flags(uintptr_t addr, unsigned *flags)
{
	int err = fake_point(FAKE_OP_VMA_FLAGS, FAKE_BEFORE, -1);
	const struct fake_page *p;

	if (err)
		return err;
	fake_lock();
	p = fake_page(addr);
	err = p->mapped ? 0 : -ENOENT;
	*flags = (p->missing ? OS_VMA_MISSING : 0) | (p->wipe ? OS_VMA_WIPEONFORK : 0) |
		 (p->locked ? OS_VMA_LOCKED : 0);
	fake_unlock();
	fake_point(FAKE_OP_VMA_FLAGS, FAKE_AFTER, -1);
	return err;
}

static bool critical(uintptr_t start, uintptr_t end)
{
	return start < fake.critical_end && end > fake.critical_start;
}

static void critical_add(const void *function)
{
	fake.criticals++;
}

static bool thread_pages(const struct os_mm *mm, uintptr_t start, uintptr_t end,
			 uint64_t *pages)
{
	if (pages)
		memset(pages, 0, OS_THREAD_PAGES / 8);
	for (uintptr_t at = start; pages && at < end; at += PAGE)
		if (at < fake.thread_end && at + PAGE > fake.thread_start)
			pages[(at - start) / PAGE / 64] |= UINT64_C(1)
							   << (at - start) / PAGE % 64;
	return start < fake.thread_end && end > fake.thread_start;
}

static int page_frames(const struct os_mm *mm, uintptr_t start, size_t n, uint64_t *frames)
{
	fake_lock();
	for (size_t i = 0; i < n; i++)
		frames[i] = fake_page(start + i * PAGE)->frame;
	fake_unlock();
	return fake.no_frames ? -EPERM : 0;
}

static void populate_resident(uintptr_t start, uintptr_t end)
{
}

/* ---- copies: a page is its number, and zeros behind it ---- */

static int copy_check(uintptr_t at, size_t length, bool write)
{
	uintptr_t end = at + length;
	int err = 0;

	for (at = PAGE_DOWN(at); at < end && !err; at += PAGE)
		if (fake_touch_or_wait(at, write))
			err = -EFAULT;
	return err;
}

static int copy_from(const struct os_mm *mm, void *dst, uintptr_t src, size_t length)
{
	int err = copy_check(src, length, false);

	if (err)
		return err;
	memset(dst, 0, length);
	fake_lock();
	if (!(src & (PAGE - 1)))
		memcpy(dst, &fake_page(src)->value, length < 8 ? length : 8);
	fake_unlock();
	return 0;
}

static int copy_to(const struct os_mm *mm, uintptr_t dst, const void *src, size_t length)
{
	int err = copy_check(dst, length, true);

	fake_lock();
	if (!err && !(dst & (PAGE - 1)))
		memcpy(&fake_page(dst)->value, src, length < 8 ? length : 8);
	fake_unlock();
	return err;
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

static int access_cas(uintptr_t addr, size_t size, uint64_t expected, uint64_t desired,
		      uint64_t *old)
{
	return copy_check(addr, size, true);
}

static int handlers_arm(void)
{
	return 0;
}

/* ---- time ---- */

/* Who looks on instead of sleeping does not do so for long. */
static void os_yield(void)
{
	if (!fake.threads)
		fake.clock += 1000000;
}

static void hush(void *region, size_t length)
{
	usleep(100);
}

static pid_t tid(void)
{
	return (pid_t)syscall(SYS_gettid);
}

/* Is somebody between the message of a DONTNEED and its zap, or before? */
static int madvise_settled(uint64_t budget_ns, uint64_t timeout_ns)
{
	int err = fake_point(FAKE_OP_SETTLED, FAKE_BEFORE, -1);

	if (fake_reading)
		fake_fail("madvise_settled: by the reader");
	if (err)
		return err;
	fake_lock();
	for (const struct fake_change *c = fake.changes; c; c = c->next)
		if (c->msg.kind == OS_MSG_REMOVE && c->state != FAKE_GONE)
			err = -EBUSY;
	fake_unlock();
	if (!fake.threads)
		fake.clock += err ? timeout_ns : budget_ns;
	fake_point(FAKE_OP_SETTLED, FAKE_AFTER, -1);
	return err;
}

const struct os_ops fake_ops = {
	.ctx_open = ctx_open,
	.ctx_close = ctx_close,
	.ctx_forget = ctx_forget,
	.ctx_is_ours = ctx_is_ours,
	.ctx_register = ctx_register,
	.ctx_unregister = ctx_unregister,
	.ctx_register_missing = fake_ctx_register_missing,
	.ctx_move = fake_ctx_move,
	.ctx_move_present = fake_ctx_move_present,
	.ctx_copy = fake_ctx_copy,
	.ctx_zero = fake_ctx_zero,
	.ctx_poison = fake_ctx_poison,
	.ctx_wake = fake_ctx_wake,
	.quiet_open = fake_quiet_open,
	.quiet_close = fake_quiet_close,
	.child_copy = fake_child_copy,
	.child_close = fake_child_close,
	.child_read = fake_child_read,
	.sentinel_open = sentinel_open,
	.critical_add = critical_add,
	.thread_pages = thread_pages,
	.page_frames = page_frames,
	.region_map = fake_region_map,
	.region_unmap = fake_region_unmap,
	.region_zap = fake_region_zap,
	.ctx_unmark = ctx_unmark,
	.ctx_probe = ctx_probe,
	.ctx_poll = ctx_poll,
	.ctx_read = ctx_read,
	.reader_nudge = reader_nudge,
	.reader_isolate = reader_isolate,
	.reader_kick = reader_kick,
	.perf_open = perf_open,
	.perf_close = fake_perf_close,
	.perf_pending = perf_pending,
	.perf_drain = perf_drain,
	.mm_open = mm_open,
	.mm_close = mm_close,
	.vma_find = vma_find,
	.vma_find_fast = vma_find_fast,
	.vma_is_dax = vma_is_dax,
	.vma_file_size = vma_file_size,
	.vma_flags = vma_flags,
	.critical = critical,
	.scan = scan,
	.populate = populate,
	.populate_resident = populate_resident,
	.copy_from = copy_from,
	.copy_to = copy_to,
	.access_begin = access_begin,
	.access_end = access_end,
	.access_add = access_add,
	.access_cas = access_cas,
	.handlers_arm = handlers_arm,
	.wait = fake_wait,
	.wake = fake_wake_word,
	.sleep = fake_sleep,
	.madvise_settled = madvise_settled,
	.hush = hush,
	.yield = os_yield,
	.now = fake_now,
	.tid = tid,
	.thread_start = fake_thread_start,
	.thread_join = fake_thread_join,
	.run_detached = fake_run_detached,
};

/* ---- the world ---- */

void fake_reset(void)
{
	pthread_once(&lock_once, lock_make);
	while (fake.changes) {
		struct fake_change *change = fake.changes;

		fake.changes = change->next;
		free(change);
	}
	for (unsigned i = 0; i < FAKE_CHILDREN; i++)
		free(fake.child[i]);
	fake_regions_free();
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
	unsigned left;

	fake_forget();
	fake_queue_all();
	if (!fake.threads) {
		fake_settle();
		fake_resume_all();
	}
	if (hmm->refs != 1)
		fake_fail("%u references are left", hmm->refs);
	for (const struct fake_cpu *cpu = fake.waiting; cpu; cpu = cpu->next)
		fake_fail("a CPU waits at %#lx still", (unsigned long)cpu->addr);
	hmm_put(hmm);
	for (unsigned i = 0; i < FAKE_CHILDREN; i++)
		if (fake.child[i] && fake.child[i]->contexts)
			fake_fail("the context of child %u is not closed", i);
	left = fake_regions_free();
	if (fake.quiets || left)
		fake_fail("%u quiet contexts and %u regions are left", fake.quiets, left);
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
