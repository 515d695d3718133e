/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_os_fork - a raw clone and the contexts: the sentinel (src/os/sentinel.c) and the
 * child's own messages, on the running kernel.
 *
 * The thread of the tests is the reader; another one clones. What the child has seen stands in
 * memory that it shares.
 */
#include <sys/personality.h>

#include "os_test.h"

#define LISTENERS 8u
#define BOTH (LISTENERS + 1) /* and the sentinel, the last */

static const struct os_ops *os;
static struct os_ctx ctxs[BOTH];
static struct os_ctx *const sentinel = &ctxs[LISTENERS];
static char *pages[LISTENERS]; /* one registered with each, its page away */
static char *bytes;

static struct seen {
	_Atomic int ran, wrong;
} *seen;

static int setup(void **state)
{
	int err = 0;

	seen = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bytes = anon(1);
	bytes[0] = 'O';
	madvise(bytes, PAGE, MADV_DONTFORK);
	for (unsigned i = 0; i < LISTENERS && !err; i++) {
		ctxs[i] = (struct os_ctx){ 0 };
		err = os->ctx_open(&ctxs[i]);
	}
	/* The order of the addresses is not the order of the numbers. */
	for (unsigned i = 0; i < LISTENERS && !err; i++) {
		unsigned k = (i * 5 + 3) % LISTENERS;

		pages[k] = anon(1);
		err = os->ctx_register_missing(&ctxs[k], (uintptr_t)pages[k],
					       (uintptr_t)pages[k] + PAGE);
	}
	*sentinel = (struct os_ctx){ .fd = -1, .nudge = -1 };
	return err;
}

static int teardown(void **state)
{
	os->ctx_close(sentinel);
	for (unsigned i = 0; i < LISTENERS; i++) {
		os->ctx_unregister(&ctxs[i], (uintptr_t)pages[i], (uintptr_t)pages[i] + PAGE);
		munmap(pages[i], PAGE);
		os->ctx_close(&ctxs[i]);
	}
	munmap(bytes, PAGE);
	munmap(seen, PAGE);
	return 0;
}

/* ---- who clones ---- */

static bool child_unmaps;
static pthread_t cloner;
static _Atomic int cloned;

/* Nothing of libc's in the child: its locks may be held. */
static void child(void)
{
	seen->ran = 1;
	if (child_unmaps)
		munmap(pages[0], PAGE);
	for (unsigned i = child_unmaps; i < LISTENERS; i++)
		if (*(volatile char *)pages[i] != 'O')
			seen->wrong++;
	syscall(SYS_exit_group, 0);
}

static void *clones(void *arg)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	int status;

	if (!pid)
		child();
	cloned = 1;
	if (pid < 0 || waitpid((pid_t)pid, &status, 0) != pid || status)
		cloned = -1;
	return NULL;
}

static void clone_start(bool unmaps)
{
	child_unmaps = unmaps;
	cloned = 0;
	*seen = (struct seen){ 0 };
	assert_int_equal(pthread_create(&cloner, NULL, clones, NULL), 0);
}

static void clone_end(void)
{
	assert_int_equal(pthread_join(cloner, NULL), 0);
	assert_int_equal(cloned, 1);
	assert_int_equal(seen->ran, 1);
	assert_int_equal(seen->wrong, 0);
}

static bool need_sentinel(void)
{
	int err = os->sentinel_open(sentinel);

	if (err == -EPERM || err == -EEXIST) {
		print_message("no sentinel here: %s\n", strerror(-err));
		return false;
	}
	assert_int_equal(err, 0);
	return true;
}

/* ---- the order ---- */

static int next_fork(unsigned *who)
{
	struct os_msg msg;
	uint64_t ready = 0;

	assert_int_equal(os->ctx_poll(ctxs, BOTH, 5000000000, &ready), 1);
	*who = (unsigned)__builtin_ctzll(ready);
	assert_true(*who < BOTH);
	assert_int_equal(os->ctx_read(&ctxs[*who], &msg, 1), 1);
	assert_int_equal(msg.kind, OS_MSG_FORK);
	assert_true(msg.child >= 0);
	return msg.child;
}

static void expect_held(void)
{
	uint64_t ready = 0;

	assert_int_equal(os->ctx_poll(ctxs, BOTH, 20000000, &ready), 1);
	assert_int_equal(ready, UINT64_C(1) << LISTENERS);
	assert_int_equal(os->ctx_probe(sentinel), -EAGAIN);
	assert_true(!seen->ran && !cloned);
	for (unsigned i = 0; i < LISTENERS; i++)
		assert_int_equal(os->ctx_probe(&ctxs[i]), 0);
}

static int fill(int fd, unsigned i)
{
	size_t done;

	return os->child_copy(fd, (uintptr_t)pages[i], (uintptr_t)bytes, PAGE, &done);
}

static void copy_to(int fd, unsigned i)
{
	assert_int_equal(fill(fd, i), 0);
	os->child_close(fd);
}

static void test_order(void **state)
{
	int child_of[LISTENERS];
	unsigned who;
	int last;

	if (!need_sentinel())
		skip();
	for (int round = 0; round < 20; round++) {
		assert_int_equal(os->ctx_probe(sentinel), 0);
		memset(child_of, -1, sizeof(child_of));
		clone_start(round & 1);
		for (unsigned i = 0; i < LISTENERS; i++) {
			int fd = next_fork(&who);

			assert_true(who < LISTENERS && child_of[who] < 0);
			child_of[who] = fd;
		}
		expect_held();
		for (unsigned i = 0; i < LISTENERS; i++)
			copy_to(child_of[i], i);
		expect_held();
		last = next_fork(&who);
		assert_int_equal(who, LISTENERS);
		os->child_close(last);
		clone_end();
	}
}

/* Pages of this process move while the clone is held; and a change of another thread's is told
 * as ever. */
static void *discards(void *arg)
{
	madvise(arg, PAGE, MADV_DONTNEED);
	return NULL;
}

static void test_moves_meanwhile(void **state)
{
	char *home = pages[2], *source = anon(1);
	struct os_msg msg;
	pthread_t thread;
	uint64_t ready;
	unsigned who;
	size_t done;

	if (!need_sentinel())
		skip();
	madvise(source, PAGE, MADV_DONTFORK);
	source[0] = 7;
	clone_start(false);
	for (unsigned i = 0; i < LISTENERS; i++) {
		int fd = next_fork(&who);

		copy_to(fd, who);
	}
	expect_held();
	assert_int_equal(os->ctx_move(&ctxs[2], (uintptr_t)home, (uintptr_t)source, PAGE, &done),
			 0);
	assert_int_equal(home[0], 7);
	assert_int_equal(pthread_create(&thread, NULL, discards, home), 0);
	do {
		assert_true(os->ctx_poll(ctxs, BOTH, 5000000000, &ready) >= 1);
	} while (!(ready & 1 << 2));
	assert_int_equal(os->ctx_read(&ctxs[2], &msg, 1), 1);
	assert_int_equal(msg.kind, OS_MSG_REMOVE);
	pthread_join(thread, NULL);
	expect_held();
	os->child_close(next_fork(&who));
	clone_end();
	munmap(source, PAGE);
}

/* A reader with a table of its own has it too. */
static _Atomic bool heard;

static void *hears(void *arg)
{
	struct os_msg msg;
	uint64_t ready;

	NEED(!os->reader_isolate(ctxs, BOTH));
	for (unsigned n = 0; n < BOTH;) {
		os->ctx_poll(ctxs, BOTH, -1, &ready);
		for (unsigned i = 0; i < BOTH; i++)
			if ((ready >> i & 1) && os->ctx_read(&ctxs[i], &msg, 1) == 1) {
				NEED(msg.kind == OS_MSG_FORK);
				NEED((i == LISTENERS) == (++n == BOTH));
				if (i < LISTENERS)
					fill(msg.child, i);
				os->child_close(msg.child);
			}
	}
	heard = true;
	return NULL;
}

static void test_isolated(void **state)
{
	struct os_thread *reader;

	if (!need_sentinel())
		skip();
	heard = false;
	assert_int_equal(os->thread_start(&reader, "hears", true, hears, NULL), 0);
	clone_start(false);
	clone_end();
	assert_true(heard);
	os->thread_join(reader);
}

/* ---- the place ---- */

static bool is_mapped(uintptr_t page)
{
	return !msync((void *)page, PAGE, MS_ASYNC);
}

static void test_place(void **state)
{
	struct os_ctx second = { 0 };
	uintptr_t page;
	int number;

	if (!need_sentinel())
		skip();
	page = sentinel->sentinel;
	assert_true(page >= UINT64_C(0x7ffffff00000));
	assert_true(arena_owns(page, page + PAGE) && is_mapped(page));
	assert_true(os->ctx_is_ours(sentinel) && sentinel->fd >= 128 && sentinel->nudge == -1);
	assert_true(fcntl(sentinel->fd, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(os->sentinel_open(&second), 0); /* another mirror's */
	assert_true(second.sentinel < page && second.sentinel >= page - 16 * PAGE);
	os->ctx_close(&second);
	number = sentinel->fd;
	os->ctx_close(sentinel);
	assert_false(is_mapped(page) || arena_owns(page, page + PAGE));
	assert_int_equal(fcntl(number, F_GETFD), -1);

	/* The program takes page or number away. */
	assert_int_equal(os->sentinel_open(sentinel), 0);
	assert_int_equal(sentinel->sentinel, page);
	munmap((void *)page, PAGE); /* waits for nobody */
	os->ctx_close(sentinel);
	assert_int_equal(os->sentinel_open(sentinel), 0);
	close(sentinel->fd);
	os->ctx_close(sentinel);
	assert_false(is_mapped(page));
}

/* A child drops what it has inherited, and gets one of its own. */
static void *forks(void *arg)
{
	uintptr_t page = sentinel->sentinel;
	struct os_ctx own = { 0 };
	int status = -1;
	pid_t pid = fork();

	if (!pid) {
		NEED(is_mapped(page));
		os->ctx_forget(sentinel);
		NEED(!is_mapped(page) && !arena_owns(page, page + PAGE));
		NEED(!os->sentinel_open(&own) && own.sentinel == page);
		os->ctx_close(&own);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	cloned = status ? -1 : 1;
	return NULL;
}

static void test_in_child(void **state)
{
	unsigned who;

	if (!need_sentinel())
		skip();
	cloned = 0;
	assert_int_equal(pthread_create(&cloner, NULL, forks, NULL), 0);
	for (unsigned i = 0; i < BOTH; i++)
		os->child_close(next_fork(&who));
	pthread_join(cloner, NULL);
	assert_int_equal(cloned, 1);
}

/* Without randomisation the stack ends where the address space does. */
static void at_the_top(void)
{
	struct os_ctx ctx = { 0 };
	int err = os->sentinel_open(&ctx);
	uintptr_t top = (uintptr_t)1 << 47;

	NEED(!is_mapped(top - 2 * PAGE) || err != -EPERM);
	if (!err)
		NEED(ctx.sentinel >= top); /* a larger address space */
	else
		NEED(err == -EEXIST && !ctx.sentinel);
}

static void test_stack_above(void **state)
{
	int status;
	pid_t pid;

	if (!need_sentinel())
		skip();
	for (unsigned i = 0; i < BOTH; i++)
		os->ctx_close(&ctxs[i]); /* nobody reads while we fork */
	pid = fork();
	if (!pid) {
		personality(ADDR_NO_RANDOMIZE);
		execl("/proc/self/exe", "test_os", "top", (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void without(void)
{
	struct os_ctx ctx = { .fd = 5 };

	NEED(os->sentinel_open(&ctx) == -EPERM && ctx.fd == 5);
}

static void as_nobody(void)
{
	struct os_ctx ctx = { .fd = 5 };
	int err;

	NEED(!setresuid(65534, 65534, 65534) || getuid());
	err = os->sentinel_open(&ctx);
	NEED(err == -EPERM && ctx.fd == 5);
}

static void test_refused(void **state)
{
	for (unsigned i = 0; i < LISTENERS; i++)
		os->ctx_close(&ctxs[i]);
	assert_int_equal(in_itself("event_fork", "without"), 0);
	assert_int_equal(in_child(as_nobody), 0);
}

/* ---- the child's own messages ---- */

static void test_child_read(void **state)
{
	struct os_msg msgs[4];
	int child_of[LISTENERS], n;
	unsigned who;

	if (!ctxs[0].fork) {
		print_message("EVENT_FORK is not granted here\n");
		skip();
	}
	clone_start(true);
	for (unsigned i = 0; i < LISTENERS; i++) {
		int fd = next_fork(&who);

		child_of[who] = fd;
		assert_int_equal(os->child_read(fd, msgs, 4), 0);
	}
	/* It runs, and nobody holds it: it unmaps and waits. */
	while (fill(child_of[0], 0) != -EAGAIN)
		sched_yield();
	assert_int_equal(seen->ran, 1);
	while (!(n = os->child_read(child_of[0], msgs, 4)))
		sched_yield();
	assert_int_equal(n, 1);
	assert_int_equal(msgs[0].kind, OS_MSG_UNMAP);
	assert_int_equal(msgs[0].start, (uintptr_t)pages[0]);
	assert_int_equal(msgs[0].end, (uintptr_t)pages[0] + PAGE);
	assert_int_equal(os->child_read(child_of[0], msgs, 4), 0);
	os->child_close(child_of[0]);
	for (unsigned i = 1; i < LISTENERS; i++)
		copy_to(child_of[i], i);
	clone_end();
	assert_true(os->child_read(-1, msgs, 4) < 0);
}

static const struct itself table[] = {
	{ "top", at_the_top },
	{ "without", without },
	{ NULL, NULL },
};

#define IN_CONTEXTS(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		IN_CONTEXTS(test_order),
		IN_CONTEXTS(test_moves_meanwhile),
		IN_CONTEXTS(test_isolated),
		IN_CONTEXTS(test_place),
		IN_CONTEXTS(test_in_child),
		IN_CONTEXTS(test_stack_above),
		IN_CONTEXTS(test_refused),
		IN_CONTEXTS(test_child_read),
	};

	alarm(60);
	os = os_live();
	itself_run(argc, argv, table);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
