/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * inject - system calls and allocations that fail, now and then, as they may.
 *
 * Linked in the place of os_live() and arena_alloc() (-Wl,--wrap). What fails has done
 * nothing, or the first pages of it, as the contract in os/os.h says. Not injected is what
 * would be a lie: -ENOENT of a move home says that the mapping is gone, and the page may be
 * dropped. The table is read by the reader's thread, so it lies in .data: that is private
 * memory of a file, which does not move.
 */
#include <errno.h>
#include <stdlib.h>

#include "os/os.h"
#include "stress.h"
#include "util/arena.h"

const struct os_ops *__real_os_live(void);
const struct os_ops *__wrap_os_live(void);
void *__real_arena_alloc(struct arena *arena, size_t size);
void *__wrap_arena_alloc(struct arena *arena, size_t size);

#define FIXED __attribute__((section(".data")))

static const struct os_ops *real FIXED;
static struct os_ops table FIXED;
static _Atomic unsigned every FIXED;
static _Atomic uint64_t state FIXED = 88172645463325252u, injected FIXED;
static _Atomic unsigned thread_nth FIXED, arena_nth FIXED;

bool inject_there(void)
{
	return true;
}

void inject_rate(unsigned rate)
{
	every = rate;
}

uint64_t inject_count(void)
{
	return injected;
}

void inject_thread_start(unsigned nth)
{
	thread_nth = nth;
}

void inject_arena(unsigned nth)
{
	arena_nth = nth;
}

static uint64_t chance(void)
{
	uint64_t x = atomic_fetch_add(&state, UINT64_C(0x9e3779b97f4a7c15));

	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static bool now_fails(void)
{
	unsigned n = every;

	if (!n || chance() % n)
		return false;
	injected++;
	return true;
}

/* The n-th of a countdown? */
static bool is_nth(_Atomic unsigned *nth)
{
	unsigned n = *nth;

	while (n)
		if (atomic_compare_exchange_weak(nth, &n, n - 1)) {
			injected += n == 1;
			return n == 1;
		}
	return false;
}

static int one_of(const int *errs, unsigned n)
{
	return errs[chance() % n];
}

/* How much of `length` is done before it fails: often nothing, never all of it. */
static size_t some_of(size_t length)
{
	size_t pages = length / OS_PAGE_SIZE;

	return chance() % 2 || pages < 2 ? 0 : (chance() % pages) * OS_PAGE_SIZE;
}

typedef int (*move_fn)(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		       size_t *done);

static int try_move(move_fn move, const struct os_ctx *ctx, uintptr_t dst, uintptr_t src,
		    size_t length, size_t *done)
{
	static const int out[] = { -EAGAIN, -EBUSY, -ENOMEM, -ENOENT };
	static const int home[] = { -EAGAIN, -EBUSY, -ENOMEM };
	bool leaves = arena_owns(dst, dst + OS_PAGE_SIZE);
	size_t part;
	int err;

	if (!now_fails())
		return move(ctx, dst, src, length, done);
	part = some_of(length);
	*done = 0;
	if (part) {
		err = move(ctx, dst, src, part, done);
		if (err || *done < part)
			return err;
	}
	return leaves ? one_of(out, 4) : one_of(home, 3);
}

static int f_move(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done)
{
	return try_move(real->ctx_move, ctx, dst, src, length, done);
}

static int f_move_present(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src,
			  size_t length, size_t *done)
{
	return try_move(real->ctx_move_present, ctx, dst, src, length, done);
}

static int f_copy(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done)
{
	static const int errs[] = { -EAGAIN, -ENOMEM };
	size_t part;
	int err;

	if (!now_fails())
		return real->ctx_copy(ctx, dst, src, length, done);
	part = some_of(length);
	*done = 0;
	if (part) {
		err = real->ctx_copy(ctx, dst, src, part, done);
		if (err || *done < part)
			return err;
	}
	return one_of(errs, 2);
}

static int f_zero(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done)
{
	static const int errs[] = { -EAGAIN, -ENOMEM };
	size_t part;
	int err;

	if (!now_fails())
		return real->ctx_zero(ctx, dst, length, done);
	part = some_of(length);
	*done = 0;
	if (part) {
		err = real->ctx_zero(ctx, dst, part, done);
		if (err || *done < part)
			return err;
	}
	return one_of(errs, 2);
}

static int f_register_missing(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	return now_fails() ? -ENOMEM : real->ctx_register_missing(ctx, start, end);
}

static void *f_region_map(size_t length)
{
	return now_fails() ? NULL : real->region_map(length);
}

static int f_populate(uintptr_t start, uintptr_t end, bool write)
{
	/* The library's own buffers are there or the machine has no page left. */
	if (arena_owns(start, end))
		return real->populate(start, end, write);
	return now_fails() ? -ENOMEM : real->populate(start, end, write);
}

static int f_settled(uint64_t budget_ns, uint64_t timeout_ns)
{
	return now_fails() ? -EBUSY : real->madvise_settled(budget_ns, timeout_ns);
}

static int f_thread_start(struct os_thread **thread, const char *name, bool critical,
			  os_thread_fn fn, void *arg)
{
	return is_nth(&thread_nth) ? -EAGAIN
				   : real->thread_start(thread, name, critical, fn, arg);
}

const struct os_ops *__wrap_os_live(void)
{
	if (real)
		return &table;
	real = __real_os_live();
	table = *real;
	table.ctx_move = f_move;
	table.ctx_move_present = f_move_present;
	table.ctx_copy = f_copy;
	table.ctx_zero = f_zero;
	table.ctx_register_missing = f_register_missing;
	table.region_map = f_region_map;
	table.populate = f_populate;
	table.madvise_settled = f_settled;
	table.thread_start = f_thread_start;
	return &table;
}

void *__wrap_arena_alloc(struct arena *arena, size_t size)
{
	if (is_nth(&arena_nth))
		return NULL;
	/* They are few beside the rest: each tenth as often is still seen. */
	return chance() % 10 == 0 && now_fails() ? NULL : __real_arena_alloc(arena, size);
}
