/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_os_move - what device memory asks of src/os, on the running kernel.
 *
 * The thread of the tests is the reader: what makes a message, and so waits until it is
 * read, is done by another thread (does, done).
 */
#include <linux/sched.h>
#include <sys/uio.h>
#include <sys/utsname.h>

#include "os_test.h"

#define BLOCK ((size_t)2 << 20)

static const struct os_ops *os;
static struct os_ctx ctx;

static int setup(void **state)
{
	ctx = (struct os_ctx){ .nudged = true };
	return os->ctx_open(&ctx);
}

static int teardown(void **state)
{
	os->ctx_close(&ctx);
	return 0;
}

/* ---- somebody else ---- */

static struct other {
	pthread_t thread;
	void (*fn)(char *at);
	char *at;
	_Atomic int tid, returned;
} o;

static void *other_main(void *arg)
{
	o.tid = os->tid();
	o.fn(o.at);
	o.returned = 1;
	return NULL;
}

static void does(void (*fn)(char *at), char *at)
{
	o = (struct other){ .fn = fn, .at = at };
	assert_int_equal(pthread_create(&o.thread, NULL, other_main, NULL), 0);
}

static void done(void)
{
	assert_int_equal(pthread_join(o.thread, NULL), 0);
}

static void unmaps(char *at)
{
	munmap(at, PAGE);
}

static void discards(char *at)
{
	madvise(at, PAGE, MADV_DONTNEED);
}

static char value;

static void reads(char *at)
{
	value = *(volatile char *)at;
}

static void writes(char *at)
{
	*(volatile char *)at = 9;
}

static struct os_msg next_message(struct os_ctx *from)
{
	struct os_msg msg;
	uint64_t ready;

	assert_int_equal(os->ctx_poll(from, 1, 5000000000, &ready), 1);
	assert_int_equal(ready, 1);
	assert_int_equal(os->ctx_read(from, &msg, 1), 1);
	return msg;
}

/* ---- short words ---- */

static int reg_with(struct os_ctx *with, const char *p, size_t pages)
{
	return os->ctx_register_missing(with, (uintptr_t)p, (uintptr_t)p + pages * PAGE);
}

/* Pages of memory whose holes fault. */
static char *missing(size_t pages)
{
	char *p = anon(pages);

	assert_int_equal(reg_with(&ctx, p, pages), 0);
	return p;
}

/* Pages of memory with a byte of its own in each. */
static char *filled(size_t pages)
{
	char *p = anon(pages);

	for (size_t i = 0; i < pages; i++)
		p[i * PAGE] = (char)(i + 1);
	return p;
}

static void drop(char *p, size_t pages)
{
	os->ctx_unregister(&ctx, (uintptr_t)p, (uintptr_t)p + pages * PAGE);
	munmap(p, pages * PAGE);
}

static size_t dealt; /* pages of the last move, copy, zero or poison */

static int in_pages(int err, size_t bytes)
{
	assert_int_equal(bytes % PAGE, 0);
	dealt = bytes / PAGE;
	return err;
}

static int move_by(struct os_ctx *by, const char *dst, const char *src, size_t pages)
{
	size_t bytes = 77;
	int err = os->ctx_move(by, (uintptr_t)dst, (uintptr_t)src, pages * PAGE, &bytes);

	return in_pages(err, bytes);
}

static int move(const char *dst, const char *src, size_t pages)
{
	return move_by(&ctx, dst, src, pages);
}

static int move_present(const char *dst, const char *src, size_t pages)
{
	size_t bytes = 77;
	int err = os->ctx_move_present(&ctx, (uintptr_t)dst, (uintptr_t)src, pages * PAGE,
				       &bytes);

	return in_pages(err, bytes);
}

static int copy(const char *dst, const char *src, size_t pages)
{
	size_t bytes = 77;
	int err = os->ctx_copy(&ctx, (uintptr_t)dst, (uintptr_t)src, pages * PAGE, &bytes);

	return in_pages(err, bytes);
}

static int zero(const char *dst, size_t pages)
{
	size_t bytes = 77;
	int err = os->ctx_zero(&ctx, (uintptr_t)dst, pages * PAGE, &bytes);

	return in_pages(err, bytes);
}

static int poison(const char *dst, size_t pages)
{
	size_t bytes = 77;
	int err = os->ctx_poison(&ctx, (uintptr_t)dst, pages * PAGE, &bytes);

	return in_pages(err, bytes);
}

#define expect(call, err, pages)                    \
	do {                                        \
		assert_int_equal(call, err);        \
		assert_int_equal(dealt, pages);     \
	} while (0)

/* OS_PAGE_* of a page; 0 absent. */
static unsigned page_is(const char *p)
{
	struct os_mm mm = { .maps_fd = -1, .pagemap_fd = -1 };
	struct os_run run = { 0 };
	uintptr_t next;
	int n = os->scan(&mm, (uintptr_t)p, (uintptr_t)p + PAGE, OS_SCAN_POPULATED, &run, 1,
			 &next);

	assert_true(n >= 0);
	return n ? run.flags : 0;
}

/* ---- faults ---- */

static void expect_fault(const char *page, bool write)
{
	struct os_msg msg = next_message(&ctx);

	assert_int_equal(msg.kind, OS_MSG_FAULT);
	assert_int_equal(msg.start, (uintptr_t)page);
	assert_int_equal(msg.end, (uintptr_t)page + PAGE);
	assert_int_equal(msg.write, write);
}

static void test_fault(void **state)
{
	char *p = missing(4), *s = filled(2);

	value = 5;
	does(reads, p + 100);
	expect_fault(p, false);
	os->ctx_wake(&ctx, (uintptr_t)p, PAGE); /* nothing is there: it asks again */
	expect_fault(p, false);
	expect(zero(p, 1), 0, 1);
	done();
	assert_int_equal(value, 0);
	does(writes, p + PAGE + 8);
	expect_fault(p + PAGE, true);
	expect(copy(p + PAGE, s, 1), 0, 1);
	done();
	assert_true(p[PAGE] == 1 && p[PAGE + 8] == 9);
	does(reads, p + 2 * PAGE);
	expect_fault(p + 2 * PAGE, false);
	expect(move(p + 2 * PAGE, s + PAGE, 1), 0, 1);
	done();
	assert_int_equal(value, 2);
	drop(p, 4);
	drop(s, 2);
}

/* On top of a plain registration; and what the plain one is afterwards. */
static void test_register_missing(void **state)
{
	char *p = anon(2);
	uintptr_t start = (uintptr_t)p, end = start + 2 * PAGE;
	unsigned flags = 0;

	assert_int_equal(os->ctx_register(&ctx, start, end), 0);
	assert_int_equal(os->vma_flags(start, &flags), 0);
	assert_int_equal(flags, 0);
	assert_int_equal(reg_with(&ctx, p, 2), 0);
	assert_int_equal(os->vma_flags(start, &flags), 0);
	assert_int_equal(flags, OS_VMA_MISSING);
	assert_int_equal(os->ctx_register(&ctx, start, end), 0); /* takes nothing back */
	assert_int_equal(os->vma_flags(start, &flags), 0);
	assert_int_equal(flags, OS_VMA_MISSING);
	drop(p, 2);
	assert_int_equal(reg_with(&ctx, p, 2), -EINVAL);
}

/* ---- MOVE ---- */

static void test_move(void **state)
{
	char *p = missing(16), *s = filled(16);

	expect(move(p, s, 4), 0, 4);
	assert_true(p[0] == 1 && p[3 * PAGE] == 4 && !page_is(s));
	expect(move(p, s + 4 * PAGE, 1), -EEXIST, 0);
	expect(move(p + 4 * PAGE, s, 2), 0, 2); /* holes are dealt with, and stay holes */
	assert_false(page_is(p + 4 * PAGE));
	expect(move(p + 4 * PAGE, s + 2 * PAGE, 4), 0, 4); /* two holes, two pages */
	assert_true(!page_is(p + 5 * PAGE) && p[6 * PAGE] == 5 && p[7 * PAGE] == 6);
	expect(move(p + 4 * PAGE, s + 8 * PAGE, 6), -EEXIST, 2); /* in the middle */
	assert_true(p[5 * PAGE] == 10 && s[10 * PAGE] == 11);
	/* Home again, to its own address. */
	assert_int_equal(reg_with(&ctx, s, 16), 0);
	expect(move(s, p, 4), 0, 4);
	assert_true(s[0] == 1 && s[3 * PAGE] == 4 && !page_is(p));
	drop(p, 16);
	drop(s, 16);
}

/* Pages only: a hole, or nothing mapped, is told, with what is there before it. */
static void test_move_present(void **state)
{
	char *p = missing(16), *s = filled(16);

	expect(move_present(p, s, 4), 0, 4);
	assert_true(p[0] == 1 && p[3 * PAGE] == 4 && !page_is(s));
	expect(move_present(p + 4 * PAGE, s, 2), -ENODATA, 0);
	assert_false(page_is(p + 4 * PAGE));
	madvise(s + 7 * PAGE, PAGE, MADV_DONTNEED);
	expect(move_present(p + 4 * PAGE, s + 4 * PAGE, 6), -ENODATA, 3);
	assert_true(p[6 * PAGE] == 7 && s[8 * PAGE] == 9);
	/* The zero page is a page. */
	assert_int_equal(*(volatile char *)(s + 7 * PAGE), 0);
	expect(move_present(p + 7 * PAGE, s + 7 * PAGE, 2), 0, 2);
	assert_true(page_is(p + 7 * PAGE) && p[8 * PAGE] == 9);
	munmap(s + 12 * PAGE, PAGE);
	expect(move_present(p + 10 * PAGE, s + 10 * PAGE, 4), -ENODATA, 2);
	expect(move_present(p + 9 * PAGE, s + 12 * PAGE, 1), -ENODATA, 0);
	expect(move(p + 9 * PAGE, s + 12 * PAGE, 1), -ENOENT, 0);
	drop(p, 16);
	drop(s, 16);
}

/* Where a mapping ends or changes, pages before are moved, and the error is that page's. */
static void test_move_borders(void **state)
{
	char *p = missing(16), *s = filled(16);

	drop(p + 13 * PAGE, 1);
	expect(move(p + 8 * PAGE, s, 8), -ENOENT, 5);
	assert_true(p[12 * PAGE] == 5 && s[5 * PAGE] == 6);
	os->ctx_unregister(&ctx, (uintptr_t)p + 14 * PAGE, (uintptr_t)p + 16 * PAGE);
	expect(move(p + 14 * PAGE, s + 5 * PAGE, 2), -ENOENT, 0);
	expect(copy(p + 14 * PAGE, s + 5 * PAGE, 2), -ENOENT, 0);
	expect(zero(p + 14 * PAGE, 2), -ENOENT, 0);
	expect(poison(p + 14 * PAGE, 2), -ENOENT, 0);
	mprotect(p + 3 * PAGE, 2 * PAGE, PROT_READ);
	expect(move(p, s + 5 * PAGE, 8), -EINVAL, 3);
	expect(move(p + 5 * PAGE, s + 8 * PAGE, 3), 0, 3);
	mprotect(s + 13 * PAGE, PAGE, PROT_READ);
	drop(p, 16);
	p = missing(16);
	expect(move(p, s + 11 * PAGE, 5), -EINVAL, 2);
	expect(move(p + 2 * PAGE, s + 13 * PAGE, 1), -EINVAL, 0);
	expect(move(p + 2 * PAGE, s + 14 * PAGE, 2), 0, 2);
	drop(p, 16);
	drop(s, 16);
}

static void test_move_refused(void **state)
{
	char *p = missing(16), *s = filled(16);
	struct os_ctx other = { 0 };
	char *q = anon(1), *shared;

	/* Not by libc: a sanitizer's has nothing locked. */
	assert_int_equal(syscall(SYS_mlock, s, PAGE), 0);
	expect(move(p, s, 1), -EINVAL, 0);
	syscall(SYS_munlock, s, PAGE);
	expect(move(p, s, 1), 0, 1);
	if (madvise(s + PAGE, PAGE, MADV_GUARD_INSTALL))
		print_message("no guard pages here: not tried\n");
	else
		expect(move(p + PAGE, s + PAGE, 1), -EFAULT, 0);
	expect(poison(p + 2 * PAGE, 1), 0, 1);
	expect(move(p + 3 * PAGE, p + 2 * PAGE, 1), -EFAULT, 0);
	expect(move(p + 2 * PAGE, s + 2 * PAGE, 1), -EEXIST, 0);
	expect(zero(p + 3 * PAGE, 1), 0, 1);
	expect(move(p + 3 * PAGE, s + 2 * PAGE, 1), -EEXIST, 0);
	shared = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	shared[0] = 1;
	expect(move(p + 4 * PAGE, shared, 1), -EINVAL, 0);
	munmap(shared, PAGE);
	assert_int_equal(os->ctx_open(&other), 0);
	assert_int_equal(reg_with(&other, q, 1), 0);
	expect(move(q, s + 2 * PAGE, 1), -EINVAL, 0); /* another context's */
	assert_int_equal(reg_with(&ctx, q, 1), -EBUSY);
	expect(move_by(&other, q, s + 2 * PAGE, 1), 0, 1);
	os->ctx_unregister(&other, (uintptr_t)q, (uintptr_t)q + PAGE);
	os->ctx_close(&other);
	munmap(q, PAGE);
	drop(p, 16);
	drop(s, 16);
}

/* Pages that a child has are not ours alone before they are written to. The context is one
 * that does not have to be read for the fork. */
static void test_move_shared(void **state)
{
	struct os_ctx quiet;
	char *p = anon(4), *s = filled(4);
	int hold[2];
	char c;
	pid_t pid;

	assert_int_equal(os->quiet_open(&quiet), 0);
	assert_int_equal(reg_with(&quiet, p, 4), 0);
	assert_int_equal(pipe(hold), 0);
	os->ctx_close(&ctx); /* its canary would make us wait for ourselves */
	pid = fork();
	if (!pid) {
		close(hold[1]);
		_exit(read(hold[0], &c, 1) != 0 || s[0] != 1);
	}
	expect(move_by(&quiet, p, s, 4), -EBUSY, 0);
	s[0] = 7;
	s[PAGE] = 8;
	expect(move_by(&quiet, p, s, 4), -EBUSY, 2);
	assert_true(p[0] == 7 && p[PAGE] == 8 && s[2 * PAGE] == 3);
	close(hold[1]);
	waitpid(pid, &hold[1], 0);
	assert_int_equal(hold[1], 0);
	close(hold[0]);
	munmap(p, 4 * PAGE);
	munmap(s, 4 * PAGE);
	os->quiet_close(&quiet);
}

/* ---- huge pages ---- */

/* A filled huge page of the program; NULL there are none. */
static char *huge(char *block)
{
	madvise(block, BLOCK, MADV_HUGEPAGE);
	for (size_t i = 0; i < BLOCK; i += PAGE)
		block[i] = (char)(i / PAGE + 1);
	if (page_is(block) & OS_PAGE_HUGE)
		return block;
	print_message("no huge page to be had: not tried\n");
	return NULL;
}

/* At least that? */
static bool kernel_is(int major, int minor)
{
	struct utsname name;
	int has_major = 0, has_minor = 0;

	uname(&name);
	sscanf(name.release, "%d.%d", &has_major, &has_minor);
	return has_major > major || (has_major == major && has_minor >= minor);
}

static void test_move_huge(void **state)
{
	char *to = os->region_map(2 * BLOCK), *from = os->region_map(BLOCK);
	int ends[2];
	struct iovec one;

	assert_int_equal(reg_with(&ctx, to, 1024), 0);
	if (!huge(from))
		goto out;
	expect(move(to, from, 512), 0, 512);
	assert_true(page_is(to) & OS_PAGE_HUGE); /* whole */
	assert_true(to[511 * PAGE] == (char)512 && !page_is(from));
	assert_ptr_equal(huge(from), from);
	expect(move(to + BLOCK, from + 5 * PAGE, 3), 0, 3);
	assert_false((page_is(to + BLOCK) | page_is(from)) & OS_PAGE_HUGE); /* split */
	assert_true(to[BLOCK] == 6 && !page_is(from + 5 * PAGE) && from[8 * PAGE] == 9);

	/* In a pipe: as part of a huge page it stays, alone it moves. (Other memory: where a
	 * table of pages has been, no huge page comes before 6.14, which takes it away.) */
	os->region_unmap(from, BLOCK);
	from = os->region_map(BLOCK);
	assert_ptr_equal(huge(from), from);
	if (!kernel_is(6, 18)) {
		print_message("UFFDIO_MOVE of it may not end before Linux 6.18: not tried\n");
		goto out;
	}
	assert_int_equal(pipe(ends), 0);
	one = (struct iovec){ from + 9 * PAGE, PAGE };
	assert_int_equal(vmsplice(ends[1], &one, 1, 0), PAGE);
	expect(move(to + BLOCK + 20 * PAGE, from + 20 * PAGE, 2), -EBUSY, 0);
	assert_int_equal(from[20 * PAGE], 21);
	close(ends[0]);
	close(ends[1]);
	expect(move(to + BLOCK + 20 * PAGE, from + 20 * PAGE, 2), 0, 2);
out:
	os->ctx_unregister(&ctx, (uintptr_t)to, (uintptr_t)to + 2 * BLOCK);
	os->region_unmap(to, 2 * BLOCK);
	os->region_unmap(from, BLOCK);
}

/* ---- COPY, ZEROPAGE, POISON ---- */

static void test_copy(void **state)
{
	char *p = missing(8), *s = filled(8);

	expect(copy(p, s, 2), 0, 2);
	expect(copy(p + PAGE, s, 1), -EEXIST, 0);
	expect(zero(p + 4 * PAGE, 1), 0, 1);
	expect(copy(p + 2 * PAGE, s + 2 * PAGE, 4), -EEXIST, 2);
	assert_true(p[3 * PAGE] == 4 && s[3 * PAGE] == 4);
	mprotect(p + 5 * PAGE, 2 * PAGE, PROT_READ);
	mprotect(p + 6 * PAGE, 2 * PAGE, PROT_NONE);
	expect(copy(p + 5 * PAGE, s + 5 * PAGE, 2), 0, 2); /* two mappings: never refused */
	assert_int_equal(p[5 * PAGE], 6);
	mprotect(p + 6 * PAGE, 2 * PAGE, RW);
	assert_int_equal(p[6 * PAGE], 7);
	if (!madvise(p + 7 * PAGE, PAGE, MADV_GUARD_INSTALL)) {
		expect(zero(p + 7 * PAGE, 1), -EEXIST, 0);
		expect(poison(p + 7 * PAGE, 1), -EEXIST, 0);
		expect(move(p + 7 * PAGE, s + 7 * PAGE, 1), -EEXIST, 0);
		/* Once the guard goes, since some kernel after 6.18 (7.3 has it) it stays. */
		if (copy(p + 7 * PAGE, s + 7 * PAGE, 1) != -EEXIST)
			assert_int_equal(p[7 * PAGE], 8);
	}
	drop(p, 8);
	drop(s, 8);
}

static void test_zero(void **state)
{
	char *p = missing(4);

	expect(zero(p + PAGE, 1), 0, 1);
	expect(zero(p, 4), -EEXIST, 1);
	assert_true(page_is(p) & OS_PAGE_ZERO);
	p[PAGE] = 1;
	assert_true(p[0] == 0 && p[PAGE] == 1);
	drop(p, 4);
}

static sigjmp_buf bus_jump;
static char *bus_at;

static void on_bus(int sig, siginfo_t *info, void *context)
{
	bus_at = info->si_addr;
	siglongjmp(bus_jump, 1);
}

static void test_poison(void **state)
{
	struct sigaction catch = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO }, before;
	char *p = missing(4), *s = filled(1);

	expect(poison(p, 2), 0, 2);
	expect(poison(p + PAGE, 2), -EEXIST, 0);
	sigaction(SIGBUS, &catch, &before);
	if (!sigsetjmp(bus_jump, 1)) {
		reads(p + PAGE + 5);
		fail();
	}
	sigaction(SIGBUS, &before, NULL);
	assert_ptr_equal(bus_at, p + PAGE + 5);
	expect(copy(p + PAGE, s, 1), 0, 1); /* COPY overwrites it */
	assert_int_equal(p[PAGE], 1);
	drop(p, 4);
	drop(s, 1);
}

/* ---- a change is pending ---- */

static void nothing_goes(char *p, char *s)
{
	expect(move(p, s, 2), -EAGAIN, 0);
	expect(copy(p, s, 2), -EAGAIN, 0);
	expect(zero(p, 2), -EAGAIN, 0);
	expect(poison(p, 2), -EAGAIN, 0);
	assert_int_equal(reg_with(&ctx, s, 2), 0); /* REGISTER and UNREGISTER do not ask */
	assert_int_equal(os->ctx_unregister(&ctx, (uintptr_t)s, (uintptr_t)s + 2 * PAGE), 0);
	assert_int_equal(os->ctx_wake(&ctx, (uintptr_t)p, PAGE), 0);
	assert_false(page_is(p));
	assert_int_equal(s[0], 1);
}

static void test_pending(void **state)
{
	static void (*const changes[])(char *) = { discards, unmaps };
	static const enum os_msg_kind said[] = { OS_MSG_REMOVE, OS_MSG_UNMAP };
	char *gone = missing(1);

	for (int i = 0; i < 2; i++) {
		char *p = missing(2), *s = filled(2);
		struct os_msg msg;

		does(changes[i], gone);
		while (os->ctx_probe(&ctx) != -EAGAIN)
			sched_yield();
		nothing_goes(p, s);
		msg = next_message(&ctx);
		assert_int_equal(msg.kind, said[i]);
		assert_int_equal(msg.start, (uintptr_t)gone);
		assert_int_equal(msg.end, (uintptr_t)gone + PAGE);
		done();
		expect(move(p, s, 1), 0, 1);
		expect(move(s, p, 1), -ENOENT, 0); /* s was not registered */
		drop(p, 2);
		drop(s, 2);
	}
}

/* ---- what another context has ---- */

/* Refused, before anything of it is done; or taken (Linux before 6.15), and then the context says so. */
static void test_unregister_of_anothers(void **state)
{
	char *p = missing(2);
	struct os_ctx quiet;
	int err;

	assert_int_equal(os->quiet_open(&quiet), 0);
	err = os->ctx_unregister(&quiet, (uintptr_t)p, (uintptr_t)p + 2 * PAGE);
	assert_int_equal(err, ctx.unregisters_all ? 0 : -EINVAL);
	assert_int_equal(reg_with(&quiet, p, 2), ctx.unregisters_all ? 0 : -EBUSY);
	os->quiet_close(&quiet);
	drop(p, 2);
}

/* ---- a context that tells nothing ---- */

static void test_quiet(void **state)
{
	size_t size = 8 * PAGE;
	char *region = os->region_map(size), *bin = os->region_map(size), *s = filled(8);
	struct os_ctx quiet;
	uint64_t ready;

	assert_int_equal(os->quiet_open(&quiet), 0);
	assert_true(quiet.move && quiet.fd >= 128 && quiet.nudge == -1);
	assert_true(os->ctx_is_ours(&quiet));
	assert_true(fcntl(quiet.fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(quiet.fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(reg_with(&ctx, region, 8), 0);
	assert_int_equal(reg_with(&quiet, bin, 8), 0);
	expect(move(region, s, 8), 0, 8);
	expect(move_by(&quiet, bin, region, 8), 0, 8);
	assert_true(bin[7 * PAGE] == 8 && !page_is(region));
	os->region_zap((uintptr_t)bin + PAGE, 7 * PAGE); /* by us: or we would sleep for ever */
	assert_true(page_is(bin) && !page_is(bin + PAGE) && !page_is(bin + 7 * PAGE));
	assert_int_equal(os->ctx_poll(&quiet, 1, 0, &ready), 0);
	os->region_unmap(bin, size);
	assert_int_equal(os->ctx_poll(&quiet, 1, 0, &ready), 0);
	os->ctx_unregister(&ctx, (uintptr_t)region, (uintptr_t)region + size);
	os->region_unmap(region, size);
	os->quiet_close(&quiet);
	assert_int_equal(quiet.fd, -1);
	munmap(s, 8 * PAGE);
}

/* ---- a forked child ---- */

static _Atomic int child_status;

/* What the child reads of three pages that are away; the first one it unmaps, if told so. */
static bool child_unmaps;

static void forks(char *at)
{
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		if (child_unmaps)
			munmap(at, PAGE);
		else
			NEED(at[0] == 1);
		NEED(at[PAGE] == 2 && at[2 * PAGE] == 0);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	child_status = status;
}

static int copy_to(int child, const char *dst, const char *src, size_t pages)
{
	size_t bytes = 77;
	int err = os->child_copy(child, (uintptr_t)dst, (uintptr_t)src, pages * PAGE, &bytes);

	return in_pages(err, bytes);
}

static int forked(char *p)
{
	struct os_msg msg;

	child_status = -1;
	does(forks, p);
	msg = next_message(&ctx);
	assert_int_equal(msg.kind, OS_MSG_FORK);
	assert_true(msg.child >= 0 && msg.child != ctx.fd);
	assert_true(fcntl(msg.child, F_GETFL) & O_NONBLOCK);
	return msg.child;
}

static void test_child(void **state)
{
	char *p = missing(3), *s = filled(3);
	int child;

	if (!ctx.fork) {
		print_message("EVENT_FORK is not granted here\n");
		skip();
	}
	child = forked(p);
	expect(copy_to(child, p, s, 2), 0, 2);
	expect(copy_to(child, p + PAGE, s, 1), -EEXIST, 0);
	expect(copy_to(child, s, s, 1), -ENOENT, 0);
	assert_true(!page_is(p) && !page_is(p + PAGE)); /* not ours */
	os->child_close(child); /* the third page is a hole of the child's now: zeros */
	done();
	assert_int_equal(child_status, 0);
	assert_int_equal(fcntl(child, F_GETFD), -1);
	drop(p, 3);
	drop(s, 3);
}

/* The child runs already. What it changes is pending in its own context, whose messages are
 * read as any other's. */
static void test_child_changes(void **state)
{
	char *p = missing(3), *s = filled(3);
	struct os_ctx of_child = { .fd = -1, .nudge = -1 };
	struct os_msg msg;

	if (!ctx.fork) {
		print_message("EVENT_FORK is not granted here\n");
		skip();
	}
	child_unmaps = true;
	of_child.fd = forked(p);
	while (os->ctx_probe(&of_child) != -EAGAIN)
		sched_yield();
	expect(copy_to(of_child.fd, p + PAGE, s + PAGE, 1), -EAGAIN, 0);
	msg = next_message(&of_child);
	assert_int_equal(msg.kind, OS_MSG_UNMAP);
	assert_int_equal(msg.start, (uintptr_t)p);
	while (os->ctx_probe(&of_child) == -EAGAIN)
		sched_yield();
	expect(copy_to(of_child.fd, p, s, 1), -ENOENT, 0);
	expect(copy_to(of_child.fd, p + PAGE, s + PAGE, 1), 0, 1);
	os->child_close(of_child.fd);
	done();
	assert_int_equal(child_status, 0);
	drop(p, 3);
	drop(s, 3);
}

/* ---- without ---- */

static int feature(const char *name)
{
	const struct os_feature *features;
	unsigned n = os_features(&features);

	for (unsigned i = 0; i < n; i++)
		if (!strcmp(features[i].name, name))
			return features[i].err;
	return -ENOENT;
}

static void test_features(void **state)
{
	assert_int_equal(ctx.move, !feature("uffd_move"));
	assert_int_equal(ctx.poison, !feature("uffd_poison"));
	assert_true(ctx.move && ctx.poison); /* or no test here says anything */
}

static void without_moving(void)
{
	size_t bytes = 77;
	struct os_ctx quiet;

	NEED(!setup(NULL) && !ctx.move && !ctx.poison);
	NEED(os->quiet_open(&quiet) == -EOPNOTSUPP);
	NEED(os->ctx_poison(&ctx, PAGE, PAGE, &bytes) == -EOPNOTSUPP && !bytes);
	NEED(feature("uffd_move") == -ECANCELED && feature("uffd_poison") == -ECANCELED);
	os->ctx_close(&ctx);
}

static const struct itself table[] = {
	{ "moving", without_moving },
	{ NULL, NULL },
};

static void test_without(void **state)
{
	os->ctx_close(&ctx);
	assert_int_equal(in_itself("uffd_move,uffd_poison", "moving"), 0);
}

#define IN_CONTEXT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		IN_CONTEXT(test_features),
		IN_CONTEXT(test_fault),
		IN_CONTEXT(test_register_missing),
		IN_CONTEXT(test_move),
		IN_CONTEXT(test_move_present),
		IN_CONTEXT(test_move_borders),
		IN_CONTEXT(test_move_refused),
		IN_CONTEXT(test_move_shared),
		IN_CONTEXT(test_move_huge),
		IN_CONTEXT(test_copy),
		IN_CONTEXT(test_zero),
		IN_CONTEXT(test_poison),
		IN_CONTEXT(test_pending),
		IN_CONTEXT(test_unregister_of_anothers),
		IN_CONTEXT(test_quiet),
		IN_CONTEXT(test_child),
		IN_CONTEXT(test_child_changes),
		IN_CONTEXT(test_without),
	};

	alarm(60);
	os = os_live();
	itself_run(argc, argv, table);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
