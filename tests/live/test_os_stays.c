/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_os_stays - why read-only memory and the written pages of private files stay at home: what
 * the kernel has for taking them away would lose bytes (docs/migration.md, "What differs").
 *
 * mremap(MREMAP_DONTUNMAP) takes pages that UFFDIO_MOVE refuses. But it takes what is mapped there
 * now, whosever that is, and nothing makes it wait until the message of a change was read.
 */
#include "os_test.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

static const struct os_ops *os;
static struct os_ctx ctx;

static int setup(void **state)
{
	ctx = (struct os_ctx){ 0 };
	return os->ctx_open(&ctx);
}

static int teardown(void **state)
{
	os->ctx_close(&ctx);
	return 0;
}

static int reg(const char *p)
{
	return os->ctx_register_missing(&ctx, (uintptr_t)p, (uintptr_t)p + PAGE);
}

static int move(const char *to, const char *from)
{
	size_t done;

	return os->ctx_move(&ctx, (uintptr_t)to, (uintptr_t)from, PAGE, &done);
}

static char *take_by_mremap(char *page)
{
	char *taken = mremap(page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	assert_ptr_not_equal(taken, MAP_FAILED);
	return taken;
}

/* ---- whose page is taken ---- */

static bool is_mapped(char *page)
{
	unsigned char vec;

	return !mincore(page, PAGE, &vec);
}

static void *unmaps(void *page)
{
	munmap(page, PAGE);
	return NULL;
}

/*
 * A page is looked at, and taken. In between the program unmaps it and maps another one there; the
 * message of that is not read yet.
 */
static void test_successor(void **state)
{
	char *page = anon(1), *buffer = anon(1), *taken;
	pthread_t program;
	struct os_msg msg;

	page[0] = 1;
	assert_int_equal(reg(page), 0);
	assert_int_equal(reg(buffer), 0);
	assert_int_equal(pthread_create(&program, NULL, unmaps, page), 0);
	while (is_mapped(page))
		sched_yield();
	assert_ptr_equal(mmap(page, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 page);
	page[0] = 2;
	/* MOVE knows, and the program's byte is where it was. */
	assert_int_equal(move(buffer, page), -EAGAIN);
	assert_int_equal(page[0], 2);
	/* mremap does not, and the program reads zeros: nobody will bring the byte back. */
	taken = take_by_mremap(page);
	assert_int_equal(taken[0], 2);
	assert_int_equal(page[0], 0);
	while (!os->ctx_read(&ctx, &msg, 1))
		sched_yield();
	assert_int_equal(msg.kind, OS_MSG_UNMAP);
	pthread_join(program, NULL);
	os->ctx_unregister(&ctx, (uintptr_t)buffer, (uintptr_t)buffer + PAGE);
	munmap(taken, PAGE);
	munmap(page, PAGE);
	munmap(buffer, PAGE);
}

/* Made writable for the moment of a MOVE it would take stores that have to fail. */
static void test_read_only(void **state)
{
	char *page = anon(1), *buffer = anon(1);

	page[0] = 1;
	assert_int_equal(mprotect(page, PAGE, PROT_READ), 0);
	assert_int_equal(reg(page), 0);
	assert_int_equal(reg(buffer), 0);
	assert_int_equal(move(buffer, page), -EINVAL);
	assert_int_equal(mprotect(buffer, PAGE, PROT_READ), 0);
	assert_int_equal(move(buffer, page), -EINVAL); /* neither if both are read-only */
	assert_int_equal(page[0], 1);
	os->ctx_unregister(&ctx, (uintptr_t)page, (uintptr_t)page + PAGE);
	os->ctx_unregister(&ctx, (uintptr_t)buffer, (uintptr_t)buffer + PAGE);
	munmap(page, PAGE);
	munmap(buffer, PAGE);
}

/* ---- what is read where a page was ---- */

/* The program's own page of a private file: taken, its touch reads the file, and waits for nobody. */
static void test_private_file(void **state)
{
	char *page = file_map("test_os_stays.tmp", 1, RW, MAP_PRIVATE), *buffer = anon(1), *taken;

	unlink("test_os_stays.tmp");
	page[0] = 1;
	assert_int_equal(reg(page), -EINVAL); /* no MISSING for it */
	assert_int_equal(os->ctx_register(&ctx, (uintptr_t)page, (uintptr_t)page + PAGE), 0);
	assert_int_equal(reg(buffer), 0);
	assert_int_equal(move(buffer, page), -EINVAL);
	os->ctx_unregister(&ctx, (uintptr_t)page, (uintptr_t)page + PAGE);
	taken = take_by_mremap(page);
	assert_int_equal(taken[0], 1);
	assert_int_equal(page[0], 0); /* the file's */
	os->ctx_unregister(&ctx, (uintptr_t)buffer, (uintptr_t)buffer + PAGE);
	munmap(taken, PAGE);
	munmap(page, PAGE);
	munmap(buffer, PAGE);
}

#define IN_CONTEXT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_CONTEXT(test_successor),
		IN_CONTEXT(test_read_only),
		IN_CONTEXT(test_private_file),
	};

	alarm(60);
	os = os_live();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
