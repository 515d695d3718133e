/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dirty_ops - ways in which the bytes of a page change, or its page does and the bytes do not.
 *
 * Each knows one page, and may take the one after it. A page that was told of is checked no more by
 * that, so ops that send messages end with a write that sends none.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dirty_live.h"
#include "uapi.h"

static char *page_of(const struct keeper *k, size_t page)
{
	return k->at + page * PAGE;
}

static void put(char *at, unsigned value)
{
	*(volatile unsigned *)(void *)at = value;
}

static unsigned get(const char *at)
{
	return *(const volatile unsigned *)(const void *)at;
}

/* ---- stores ---- */

static enum verdict store(struct keeper *k, size_t page, unsigned value)
{
	put(page_of(k, page) + value % 1000 * 4, value);
	return PASS;
}

static enum verdict atomic_store_(struct keeper *k, size_t page, unsigned value)
{
	__atomic_fetch_add((unsigned *)(void *)page_of(k, page), 1, __ATOMIC_SEQ_CST);
	return PASS;
}

/* ---- the kernel's, for this process ---- */

static enum verdict read_into(struct keeper *k, size_t page, unsigned value)
{
	int fds[2];

	SYS(pipe(fds));
	SYS(write(fds[1], &value, sizeof(value)));
	EXPECT(sizeof(value), read(fds[0], page_of(k, page), sizeof(value)));
	close(fds[0]);
	close(fds[1]);
	return PASS;
}

static enum verdict wake_op(struct keeper *k, size_t page, unsigned value)
{
	unsigned word = 0;

	SYS(syscall(SYS_futex, &word, FUTEX_WAKE_OP, 1, 1, page_of(k, page),
		    FUTEX_OP(FUTEX_OP_ADD, 1, FUTEX_OP_CMP_EQ, 0)));
	return PASS;
}

/* What dies with a mutex held: the kernel says so in its word, and clears the word for its id. */
struct dying {
	_Atomic int ready, go;
	struct robust_list_head head;
	struct robust_list lock;
	unsigned *word;
};

static int die(void *arg)
{
	struct dying *d = arg;

	d->head = (struct robust_list_head){
		.list = { &d->lock },
		.futex_offset = (char *)d->word - (char *)&d->lock,
	};
	d->lock.next = &d->head.list;
	syscall(SYS_set_robust_list, &d->head, sizeof(d->head));
	*(volatile unsigned *)d->word = (unsigned)syscall(SYS_gettid);
	atomic_store(&d->ready, 1);
	while (!atomic_load(&d->go))
		;
	return 0;
}

static enum verdict dies(struct keeper *k, size_t page, unsigned value)
{
	static char stack[4 * PAGE] __attribute__((aligned(16)));
	char *at = page_of(k, page);
	struct dying d = { .word = (unsigned *)(void *)(at + 64) };
	pid_t pid;

	put(at, value);
	pid = clone(die, stack + sizeof(stack), CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD, &d, NULL,
		    NULL, at);
	SYS(pid);
	while (!atomic_load(&d.ready))
		sched_yield();
	TRY(keeper_update(k));
	TRY(keeper_update(k));
	atomic_store(&d.go, 1);
	waitpid(pid, NULL, 0);
	CHECK(!get(at) && *d.word & FUTEX_OWNER_DIED, "the kernel wrote nothing");
	return PASS;
}

static enum verdict self_mem(struct keeper *k, size_t page, unsigned value)
{
	static int fd;

	if (!fd)
		fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	SYS(fd);
	EXPECT(sizeof(value), pwrite(fd, &value, sizeof(value), (off_t)(uintptr_t)page_of(k, page)));
	return PASS;
}

static enum verdict self_mem_read_only(struct keeper *k, size_t page, unsigned value)
{
	SYS(mprotect(page_of(k, page), PAGE, PROT_READ));
	TRY(keeper_update(k));
	TRY(self_mem(k, page, value));
	SYS(mprotect(page_of(k, page), PAGE, PROT_READ | PROT_WRITE));
	return PASS;
}

static enum verdict vm_writev(struct keeper *k, size_t page, unsigned value)
{
	struct iovec here = { &value, sizeof(value) }, there = { page_of(k, page), sizeof(value) };

	EXPECT(sizeof(value), process_vm_writev(getpid(), &here, 1, &there, 1, 0));
	return PASS;
}

/* ---- another process ---- */

struct order {
	pid_t tid;
	char *at;
	unsigned value, how;
};

static struct helper {
	pid_t pid;
	int orders[2], answers[2];
} helper;

static long obey(const struct order *o)
{
	unsigned value = o->value;
	struct iovec here = { &value, sizeof(value) }, there = { o->at, sizeof(value) };
	long err;

	if (!o->how)
		return process_vm_writev(o->tid, &here, 1, &there, 1, 0) == sizeof(value) ? 0 : -1;
	if (ptrace(PTRACE_SEIZE, o->tid, NULL, NULL) || ptrace(PTRACE_INTERRUPT, o->tid, NULL, NULL))
		return -1;
	waitpid(o->tid, NULL, __WALL);
	err = ptrace(PTRACE_POKEDATA, o->tid, o->at, (void *)(uintptr_t)o->value);
	ptrace(PTRACE_DETACH, o->tid, NULL, NULL);
	return err;
}

enum verdict dirty_helper_start(void)
{
	struct order order;

	SYS(pipe(helper.orders));
	SYS(pipe(helper.answers));
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	helper.pid = fork();
	SYS(helper.pid);
	if (helper.pid)
		return PASS;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(helper.orders[0], &order, sizeof(order)) == sizeof(order)) {
		long err = obey(&order);

		if (write(helper.answers[1], &err, sizeof(err)) != sizeof(err))
			break;
	}
	_exit(0);
}

void dirty_helper_stop(void)
{
	kill(helper.pid, SIGKILL);
	waitpid(helper.pid, NULL, 0);
}

static enum verdict by_other(struct keeper *k, size_t page, unsigned value, unsigned how)
{
	struct order order = { (pid_t)syscall(SYS_gettid), page_of(k, page), value, how };
	long err = -1;

	SYS(write(helper.orders[1], &order, sizeof(order)));
	while (read(helper.answers[0], &err, sizeof(err)) < 0)
		CHECK(errno == EINTR, "read: %s", strerror(errno));
	EXPECT(0, err);
	EXPECT(value, get(page_of(k, page)));
	return PASS;
}

static enum verdict other_writev(struct keeper *k, size_t page, unsigned value)
{
	return by_other(k, page, value, 0);
}

static enum verdict poke(struct keeper *k, size_t page, unsigned value)
{
	return by_other(k, page, value, 1);
}

/* ---- the page goes, or is another ---- */

static enum verdict dontneed(struct keeper *k, size_t page, unsigned value)
{
	SYS(madvise(page_of(k, page), PAGE, MADV_DONTNEED));
	TRY(keeper_update(k)); /* a zero page, marked */
	TRY(keeper_update(k));
	put(page_of(k, page), value);
	return PASS;
}

static enum verdict dontneed_same(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page);
	unsigned was = get(at);

	SYS(madvise(at, PAGE, MADV_DONTNEED));
	put(at, was); /* the rest is zeros now */
	return PASS;
}

/* A lazy page that is reclaimed turns to zeros without a word. */
static enum verdict lazy_free(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page);

	put(at, value);
	SYS(madvise(at, PAGE, MADV_FREE));
	TRY(keeper_update(k)); /* the bytes are still there, marked; somebody was told */
	TRY(keeper_update(k));
	if (value % 3 == 0)
		put(at, value + 1); /* kept */
	SYS(madvise(at, PAGE, MADV_PAGEOUT));
	return PASS;
}

static enum verdict move_over(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page), *from = page_of(k, page + 1);

	CHECK(mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at, "mremap: %s",
	      strerror(errno));
	CHECK(mmap(from, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == from, "mmap");
	return PASS;
}

/* Away, written to there, and back: with the mark that it had. */
static enum verdict move_away(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page);
	char *other = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	SYS((long)(intptr_t)other);
	SYS((long)(intptr_t)mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other));
	if (value % 2)
		put(other, value);
	SYS((long)(intptr_t)mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at));
	return PASS;
}

/* The pages are taken out; what is there now is new. Then they go back over it. */
static enum verdict dont_unmap(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page);
	char *other = mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	SYS((long)(intptr_t)other);
	TRY(keeper_update(k));
	TRY(keeper_update(k));
	SYS((long)(intptr_t)mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at));
	return PASS;
}

static enum verdict map_anew(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page);

	SYS(munmap(at, PAGE));
	CHECK(mmap(at, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == at, "mmap");
	if (value % 2)
		put(at, value);
	return PASS;
}

/* No message at all. */
static enum verdict guard(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page);

	if (madvise(at, PAGE, MADV_GUARD_INSTALL) && errno == EINVAL)
		return live_skip("no guard pages here");
	TRY(keeper_update(k)); /* a guard page: marked as it is */
	TRY(keeper_update(k));
	if (value % 3 == 0)
		TRY(keeper_check(k));
	SYS(madvise(at, PAGE, MADV_GUARD_REMOVE));
	if (value % 2)
		put(at, value);
	return PASS;
}

/* ---- permissions, children, marks of others ---- */

static enum verdict protect(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page);

	SYS(mprotect(at, PAGE, value % 2 ? PROT_NONE : PROT_READ));
	if (value % 3)
		TRY(keeper_update(k));
	SYS(mprotect(at, PAGE, PROT_READ | PROT_WRITE));
	put(at, value);
	return PASS;
}

/* value % 3: who writes first, or a child that has ended (the page is the parent's alone again). */
static enum verdict with_child(struct keeper *k, size_t page, unsigned value)
{
	char *at = page_of(k, page);
	int status, to_child[2];
	char byte = 0;
	pid_t pid;

	SYS(pipe(to_child));
	pid = fork();
	SYS(pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		put(at, ~value);
		_exit(read(to_child[0], &byte, 1) != 1);
	}
	if (value % 3 == 1)
		TRY(keeper_update(k)); /* marked while it is shared */
	if (value % 3)
		put(at, value);
	SYS(write(to_child[1], &byte, 1));
	waitpid(pid, &status, 0);
	if (!(value % 3)) {
		TRY(keeper_update(k));
		put(at, value);
	}
	close(to_child[0]);
	close(to_child[1]);
	return PASS;
}

static enum verdict clear_refs(struct keeper *k, size_t page, unsigned value)
{
	static const char *const what[] = { "1", "4" };
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

	SYS(fd);
	SYS(write(fd, what[value % 2], 1));
	close(fd);
	if (value % 3)
		TRY(keeper_update(k));
	put(page_of(k, page), value);
	return PASS;
}

static enum verdict advise(struct keeper *k, size_t page, unsigned value)
{
	static const int what[] = { MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_COLD, MADV_PAGEOUT,
				    MADV_DONTFORK,   MADV_DOFORK,     MADV_MERGEABLE,
				    MADV_UNMERGEABLE };

	SYS(madvise(page_of(k, page), PAGE, what[value % 8]));
	if (value / 8 % 2)
		TRY(keeper_update(k));
	put(page_of(k, page), value);
	return PASS;
}

static enum verdict lock_(struct keeper *k, size_t page, unsigned value)
{
	SYS(mlock(page_of(k, page), PAGE));
	put(page_of(k, page), value);
	TRY(keeper_check(k));
	SYS(munlock(page_of(k, page), PAGE));
	put(page_of(k, page), value + 1);
	return PASS;
}

/* A name makes it another mapping, which is anonymous memory all the same. */
static enum verdict name(struct keeper *k, size_t page, unsigned value)
{
	unsigned before;

	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, page_of(k, page), PAGE,
		  value % 2 ? "some name" : NULL))
		return live_skip("mappings have no names here: %s", strerror(errno));
	TRY(keeper_update(k));
	before = k->marked;
	TRY(keeper_update(k));
	CHECK(k->marked - before == k->n, "a page with a name is not marked");
	put(page_of(k, page), value);
	return PASS;
}

/* ---- huge pages ---- */

/* With a mark on any page the kernel refuses; without, the huge page has none. */
static enum verdict collapse(struct keeper *k, size_t page, unsigned value)
{
	if (k->n < MOST)
		return PASS;
	for (size_t i = 0; i < k->n && value % 2; i++)
		put(page_of(k, i), value);
	if (madvise(k->at, k->n * PAGE, MADV_COLLAPSE) && value % 2)
		CHECK(errno == EAGAIN || errno == ENOMEM, "collapse: %s", strerror(errno));
	TRY(keeper_check(k));
	if (value % 3)
		TRY(keeper_update(k));
	put(page_of(k, page), value + 1);
	return PASS;
}

/* All of it is one zero page of 2 MiB: marked as one, and split by a write. */
static enum verdict huge_zero(struct keeper *k, size_t page, unsigned value)
{
	SYS(madvise(k->at, k->n * PAGE, MADV_DONTNEED));
	(void)get(page_of(k, page));
	TRY(keeper_update(k));
	TRY(keeper_update(k));
	put(page_of(k, page), value);
	return PASS;
}

/* ---- mappings ---- */

/* Not ours: it cannot be marked, and counts as changed always. */
static enum verdict own_userfaultfd(struct keeper *k, size_t page, unsigned value)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { (uintptr_t)page_of(k, page), PAGE },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	SYS(fd);
	SYS(ioctl(fd, UFFDIO_API, &api));
	TRY(map_anew(k, page, value | 1));
	SYS(ioctl(fd, UFFDIO_REGISTER, &reg));
	TRY(keeper_update(k));
	put(page_of(k, page), value);
	TRY(keeper_check(k));
	put(page_of(k, page), value + 1);
	close(fd); /* and is nobody's now: what is next to it may be merged with it */
	return PASS;
}

/* The last page goes, and what is before it grows in place, which nobody is told of. */
static enum verdict grow(struct keeper *k, size_t page, unsigned value)
{
	char *last = page_of(k, k->n - 1);

	SYS(munmap(last, PAGE));
	if (value % 2)
		TRY(keeper_update(k));
	if (mremap(last - PAGE, PAGE, 2 * PAGE, 0) == MAP_FAILED)
		return map_anew(k, k->n - 1, value);
	TRY(keeper_update(k));
	put(last, value);
	return PASS;
}

const struct dirty_op dirty_ops[] = {
	{ "store", store },
	{ "atomic", atomic_store_ },
	{ "read", read_into },
	{ "futex-wake-op", wake_op },
	{ "dies-with-mutex", dies },
	{ "proc-mem", self_mem },
	{ "proc-mem-read-only", self_mem_read_only },
	{ "process-vm", vm_writev },
	{ "process-vm-other", other_writev },
	{ "ptrace", poke },
	{ "dontneed", dontneed },
	{ "dontneed-same", dontneed_same },
	{ "lazy-free", lazy_free },
	{ "move-over", move_over },
	{ "move-away", move_away },
	{ "dont-unmap", dont_unmap },
	{ "map-anew", map_anew },
	{ "guard", guard },
	{ "protect", protect },
	{ "child", with_child },
	{ "clear-refs", clear_refs },
	{ "advise", advise },
	{ "mlock", lock_ },
	{ "name", name },
	{ "collapse", collapse },
	{ "huge-zero", huge_zero },
	{ "own-userfaultfd", own_userfaultfd },
	{ "grow", grow },
};
const unsigned dirty_ops_count = sizeof(dirty_ops) / sizeof(*dirty_ops);
