/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_changes - which memory can be secure, and what the program can do to a range that
 * is.
 *
 * The table of kinds x operations of all drivers (test_table.c) compares what CPU and device
 * read at one address: they must agree. Of shared pages they do, and those are in it; of secure
 * pages they must not. So these have a table of their own: of each kind, whether it can be
 * secure, and of each operation, whether the bytes are there afterwards, refused, or zeros.
 */
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <uhmm/gpu.h>

#include "uvmem_cases.h"

/* ---- kinds ---- */

static void *map(int flags, int prot, int fd)
{
	/* Into the middle of what vault_map() gives. */
	void *at = mmap(vault_map(4 * PAGE), 4 * PAGE, prot, flags | MAP_FIXED, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

static int file_of_pages(void)
{
	int fd = memfd_create("uhmm-live-uvmem", MFD_CLOEXEC);

	return fd >= 0 && !ftruncate(fd, 4 * PAGE) ? fd : -1;
}

static enum verdict try_kind(const char *name, char *at, size_t length, int want)
{
	struct uvmem *uv;
	int got;

	CHECK(at, "%s: cannot be mapped", name);
	EXPECT(0, uvmem_open(NULL, &uv));
	got = uvmem_init_start(uv, at, length);
	CHECK(got == want, "%s: %d (%s), expected %d", name, got, uvmem_strerror(got),
	      want);
	if (got) {
		EXPECT(UVMEM_NORMAL, uvmem_state(uv));
	} else {
		at[0] = 'k';
		got = uvmem_init_done(uv);
		CHECK(!got, "%s: init done: %s", name, uvmem_strerror(got));
	}
	uvmem_close(uv);
	return PASS;
}

enum verdict uvmem_kinds(const void *arg)
{
	char *at, why[300];
	void *heap;

	if (uvmem_available(why, sizeof(why)))
		return live_skip("%s", why);
	TRY(try_kind("anonymous",
		     map(MAP_PRIVATE | MAP_ANONYMOUS, PROT_READ | PROT_WRITE, -1), 4 * PAGE,
		     0));
	heap = sbrk(8 * PAGE);
	TRY(try_kind("heap", (char *)(((uintptr_t)heap + PAGE - 1) & -(uintptr_t)PAGE),
		     4 * PAGE, 0));
	TRY(try_kind("shared anonymous",
		     map(MAP_SHARED | MAP_ANONYMOUS, PROT_READ | PROT_WRITE, -1), 4 * PAGE,
		     -EOPNOTSUPP));
	TRY(try_kind("memfd", map(MAP_SHARED, PROT_READ | PROT_WRITE, file_of_pages()),
		     4 * PAGE, -EOPNOTSUPP));
	TRY(try_kind("private file",
		     map(MAP_PRIVATE, PROT_READ | PROT_WRITE, file_of_pages()), 4 * PAGE,
		     -EOPNOTSUPP));
	TRY(try_kind("read-only", map(MAP_PRIVATE | MAP_ANONYMOUS, PROT_READ, -1), 4 * PAGE,
		     -EPERM));
	TRY(try_kind("PROT_NONE", map(MAP_PRIVATE | MAP_ANONYMOUS, PROT_NONE, -1), 4 * PAGE,
		     -EPERM));
	at = map(MAP_PRIVATE | MAP_ANONYMOUS, PROT_READ | PROT_WRITE, -1);
	SYS(munmap(at + PAGE, PAGE));
	TRY(try_kind("a hole in it", at, 4 * PAGE, -EFAULT));
	TRY(try_kind("nothing", (char *)(uintptr_t)0x10000, 4 * PAGE, -EFAULT));
	at = map(MAP_PRIVATE | MAP_ANONYMOUS, PROT_READ | PROT_WRITE, -1);
	SYS(mprotect(at + PAGE, PAGE, PROT_READ));
	SYS(mprotect(at + PAGE, PAGE, PROT_READ | PROT_WRITE));
	SYS(madvise(at + 2 * PAGE, PAGE, MADV_DONTDUMP));
	TRY(try_kind("several mappings", at, 4 * PAGE, 0));
	TRY(try_kind("the stack", (char *)((uintptr_t)&at & -(uintptr_t)PAGE), PAGE,
		     -EOPNOTSUPP));
	return PASS;
}

/* ---- operations ---- */

enum after { THERE, REFUSED, BUSY };

static int op_none(unsigned char *at)
{
	return 0;
}

static int op_read(unsigned char *at)
{
	return *(volatile unsigned char *)(at + 7) * 0;
}

static int op_write(unsigned char *at)
{
	at[7]++;
	return 0;
}

static int op_write_back(unsigned char *at)
{
	*(volatile unsigned char *)(at + 7) = at[7]; /* the byte that is there */
	return 0;
}

static int op_protect(unsigned char *at)
{
	return mprotect(at, PAGE, PROT_READ) || mprotect(at, PAGE, PROT_READ | PROT_WRITE);
}

static int op_protect_none_while_in(unsigned char *at)
{
	return mprotect(at, PAGE, PROT_NONE) || mprotect(at, PAGE, PROT_READ | PROT_WRITE);
}

static int op_read_only(unsigned char *at)
{
	return *(volatile unsigned char *)at * 0 + mprotect(at, PAGE, PROT_READ);
}

static int op_dontneed(unsigned char *at)
{
	return madvise(at, PAGE, MADV_DONTNEED);
}

/* FREE of a page that is in drops it; and it is told at once. */
static int op_free(unsigned char *at)
{
	return madvise(at, PAGE, MADV_FREE);
}

static int op_pageout(unsigned char *at)
{
	return *(volatile unsigned char *)at * 0 + madvise(at, PAGE, MADV_PAGEOUT);
}

static int op_map_over(unsigned char *at)
{
	return mmap(at, PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at;
}

static int op_move_and_back(unsigned char *at)
{
	unsigned char *other = (unsigned char *)live_map(PAGE, PROT_NONE);

	return mremap(at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, other) != other ||
	       mremap(other, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at;
}

static int op_read_into(unsigned char *at)
{
	int fds[2];

	return pipe(fds) || write(fds[1], "xyz", 3) != 3 || read(fds[0], at, 3) != 3;
}

static int op_write_from(unsigned char *at)
{
	int fds[2];

	return pipe(fds) || write(fds[1], at, PAGE) != PAGE;
}

static int op_fork(unsigned char *at)
{
	pid_t pid = fork();

	if (!pid)
		_exit(*(volatile unsigned char *)(at + 3) * 0);
	return live_wait(pid, 10);
}

static int op_fork_writes(unsigned char *at)
{
	pid_t pid = fork();

	if (!pid) {
		memset(at, 0, PAGE);
		_exit(0);
	}
	return live_wait(pid, 10);
}

static int op_merge(unsigned char *at)
{
	madvise(at, PAGE, MADV_MERGEABLE); /* a kernel without KSM refuses, which is fine */
	return 0;
}

static const struct {
	const char *name;
	int (*run)(unsigned char *at);
	enum after after;
} operations[] = {
	{ "none", op_none, THERE },
	{ "read", op_read, THERE },
	{ "write", op_write, REFUSED },
	{ "write of the same byte", op_write_back, THERE },
	{ "mprotect", op_protect, THERE },
	{ "mprotect none", op_protect_none_while_in, THERE },
	{ "read, then read-only", op_read_only, BUSY },
	{ "MADV_DONTNEED", op_dontneed, REFUSED },
	{ "MADV_FREE", op_free, REFUSED },
	{ "MADV_PAGEOUT", op_pageout, THERE },
	{ "MAP_FIXED over it", op_map_over, REFUSED },
	{ "mremap and back", op_move_and_back, THERE },
	{ "read(2) into it", op_read_into, REFUSED },
	{ "write(2) from it", op_write_from, THERE },
	{ "fork", op_fork, THERE },
	{ "fork, the child writes", op_fork_writes, THERE },
	{ "MADV_MERGEABLE", op_merge, THERE },
};

/* MADV_FREE of a page that is out is lazy: the sealed bytes may survive, or be zeros. */
static bool may(unsigned op, bool out, int got)
{
	switch (operations[op].after) {
	case THERE:
		return !got;
	case BUSY:
		return got == -EBUSY;
	default:
		return got == -EBADMSG || (!got && out && operations[op].run == op_free);
	}
}

enum verdict uvmem_operations(const void *arg)
{
	struct vault v;

	for (unsigned op = 0; op < sizeof(operations) / sizeof(operations[0]); op++) {
		for (unsigned out = 0; out < 2; out++) {
			int got;

			TRY(vault_begin(&v, NULL));
			if (out)
				CHECK(uvmem_page_out(v.uv, v.at, PAGES * PAGE) >= 0, "out");
			CHECK(!operations[op].run(v.at + 3 * PAGE), "%s: %s",
			      operations[op].name, strerror(errno));
			got = vault_check_page(&v, 3);
			CHECK(may(op, out, got), "%s, page %s: %d (%s)",
			      operations[op].name, out ? "out" : "in", got,
			      uvmem_strerror(got));
			EXPECT(0, vault_check_page(&v, 2));
			EXPECT(0, vault_check_page(&v, 4));
			if (operations[op].after == REFUSED) {
				EXPECT(0, uvmem_erase(v.uv, v.at + 3 * PAGE, PAGE));
				EXPECT(0, vault_write_page(&v, 3));
				EXPECT(0, vault_check(&v));
			}
			vault_end(&v);
		}
	}
	return PASS;
}

/*
 * A GPU is outside, too: it reads sealed bytes, may have them in its own memory, and may
 * spoil them.
 */
enum verdict uvmem_other_device(const void *arg)
{
	const struct gpu_options options = { .size = sizeof(options),
					     .vram_bytes = 1 << 20 };
	static unsigned char page[PAGE];
	struct gpu_queue *queue;
	struct gpu *gpu;
	struct vault v;

	TRY(vault_begin(&v, NULL));
	EXPECT(0, gpu_open(&options, &gpu));
	EXPECT(0, gpu_queue_create(gpu, &queue));
	for (unsigned p = 0; p < PAGES; p++) {
		EXPECT(0, gpu_read(queue, page, v.at + p * PAGE, PAGE));
		CHECK(!vault_is_plain(&v, page, p), "page %u is plain to a GPU", p);
	}
	EXPECT(0, vault_check(&v));
	CHECK(gpu_migrate(gpu, v.at, PAGES * PAGE) > 0, "nothing went to the GPU's memory");
	for (unsigned p = 0; p < PAGES; p++) {
		EXPECT(0, gpu_read(queue, page, v.at + p * PAGE, PAGE));
		CHECK(!vault_is_plain(&v, page, p), "page %u is plain in a GPU's memory",
		      p);
	}
	EXPECT(0, vault_check(&v));
	EXPECT(0, gpu_write(queue, v.at + 2 * PAGE, "a GPU was here", 14));
	EXPECT(-EBADMSG, vault_check_page(&v, 2));
	EXPECT(0, vault_check_page(&v, 1));
	gpu_close(gpu);
	EXPECT(0, vault_check_page(&v, 3));
	vault_end(&v);
	return PASS;
}

/*
 * A page that the program has locked cannot leave: init done says so, and an abort is
 * possible.
 */
enum verdict uvmem_pinned(const void *arg)
{
	char *at = (char *)vault_map(4 * PAGE), why[300];
	struct uvmem *uv;

	if (uvmem_available(why, sizeof(why)))
		return live_skip("%s", why);
	memset(at, 'p', 4 * PAGE);
	EXPECT(0, uvmem_open(NULL, &uv));
	EXPECT(0, uvmem_init_start(uv, at, 4 * PAGE));
	SYS(mlock(at + PAGE, PAGE));
	EXPECT(-EBUSY, uvmem_init_done(uv));
	EXPECT(UVMEM_TRANSIENT, uvmem_state(uv));
	EXPECT('p', at[PAGE]);
	EXPECT(0, uvmem_init_abort(uv));
	for (unsigned i = 0; i < 4 * PAGE; i++)
		CHECK(at[i] == 'p', "byte %u: %#x", i, at[i]);
	EXPECT(0, uvmem_init_start(uv, at, 4 * PAGE));
	SYS(munlock(at + PAGE, PAGE));
	EXPECT(0, uvmem_init_done(uv));
	uvmem_close(uv);
	return PASS;
}
