/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_os_tcb - pages that the kernel accesses by itself (src/os/tcb.c), and what a driver's
 * library adds to the critical (src/os/critical.c), on the running kernel.
 *
 * A thread of the test has its stack, and with it its control block, in memory of which pages
 * can be taken away. The thread of the tests is the reader, and brings them home.
 */
#include <dlfcn.h>
#include <link.h>
#include <sys/rseq.h>
#include <time.h>

#include "os_test.h"

#define MS UINT64_C(1000000)
#define PAGES 64u /* of the stack */
#define SIZE (PAGES * PAGE)
#define MARGIN (4 * PAGE) /* between it and other threads' */

static const struct os_ops *os;
static struct os_ctx ctx;
static char *stack, *away; /* where its pages are, and where they are when away */

/* AddressSanitizer thinks of what was a thread's stack as it was. */
__attribute__((no_sanitize("address"))) static void fill(char *from, char *to, char with)
{
	for (volatile char *p = from; p < to; p++)
		*p = with;
}

static int setup(void **state)
{
	ctx = (struct os_ctx){ .nudged = true };
	if (os->ctx_open(&ctx))
		return -1;
	stack = mmap(NULL, SIZE + 2 * MARGIN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack += MARGIN;
	mprotect(stack, SIZE, RW);
	fill(stack, stack + SIZE, 7); /* at holes one waits for the reader */
	away = os->region_map(SIZE);
	return os->ctx_register_missing(&ctx, (uintptr_t)stack, (uintptr_t)stack + SIZE) ||
	       os->ctx_register_missing(&ctx, (uintptr_t)away, (uintptr_t)away + SIZE);
}

static int teardown(void **state)
{
	os->ctx_unregister(&ctx, (uintptr_t)stack, (uintptr_t)stack + SIZE);
	os->ctx_unregister(&ctx, (uintptr_t)away, (uintptr_t)away + SIZE);
	os->region_unmap(away, SIZE);
	munmap(stack - MARGIN, SIZE + 2 * MARGIN);
	os->ctx_close(&ctx);
	return 0;
}

/* ---- the pager ---- */

static bool any_kept(const char *start, size_t length)
{
	return os->thread_pages(NULL, (uintptr_t)start, (uintptr_t)start + length, NULL);
}

static bool kept(const char *page)
{
	return any_kept(page, PAGE);
}

/* Takes away the pages of the stack; all, or but those that are said to be kept. */
static unsigned take(bool all)
{
	unsigned left = 0;
	size_t done;

	for (unsigned i = 0; i < PAGES; i++) {
		if (!all && kept(stack + i * PAGE))
			continue;
		assert_int_equal(os->ctx_move(&ctx, (uintptr_t)away + i * PAGE,
					      (uintptr_t)stack + i * PAGE, PAGE, &done), 0);
		left++;
	}
	return left;
}

static unsigned faults;

/* For so long. */
static void serve(uint64_t ns)
{
	uint64_t deadline = os->now() + ns, ready;
	struct os_msg msg;
	size_t done;

	while (os->now() < deadline) {
		os->ctx_poll(&ctx, 1, 1000000, &ready);
		if (!(ready & 1) || os->ctx_read(&ctx, &msg, 1) != 1)
			continue;
		assert_int_equal(msg.kind, OS_MSG_FAULT);
		faults++;
		if (msg.start - (uintptr_t)stack >= SIZE) {
			assert_int_equal(os->ctx_zero(&ctx, msg.start, PAGE, &done), 0);
			continue;
		}
		assert_int_equal(os->ctx_move(&ctx, msg.start,
					      (uintptr_t)away + msg.start - (uintptr_t)stack,
					      PAGE, &done), 0);
		/* What was a hole is one still. */
		os->ctx_zero(&ctx, msg.start, PAGE, &done);
		os->ctx_wake(&ctx, msg.start, PAGE);
	}
}

/* ---- threads ---- */

static _Atomic int tid;
static _Atomic bool stop;
static int *_Atomic tid_word; /* that the kernel clears */

static void deep(void)
{
	volatile char here[PAGES / 2 * PAGE];

	here[0] = 1;
	(void)here[0];
}

static void *lives(void *arg)
{
	int *word = NULL;

	prctl(PR_GET_TID_ADDRESS, &word);
	tid_word = word;
	tid = os->tid();
	while (!stop)
		os->sleep(MS);
	deep();
	return NULL;
}

/* pthread_create itself may touch what is a hole. */
static void *serves(void *arg)
{
	while (!tid)
		serve(MS);
	return NULL;
}

static pthread_t start_on(char *where, size_t size, void *(*fn)(void *))
{
	pthread_t thread, server;
	pthread_attr_t attr;

	stop = false;
	tid = 0;
	faults = 0;
	assert_int_equal(pthread_create(&server, NULL, serves, NULL), 0);
	pthread_attr_init(&attr);
	if (where)
		assert_int_equal(pthread_attr_setstack(&attr, where, size), 0);
	assert_int_equal(pthread_create(&thread, &attr, fn, NULL), 0);
	pthread_attr_destroy(&attr);
	pthread_join(server, NULL);
	return thread;
}

static int join_within(pthread_t thread, uint64_t ns)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(ns % (1000 * MS));
	until.tv_sec += (time_t)(ns / (1000 * MS)) + until.tv_nsec / (long)(1000 * MS);
	until.tv_nsec %= (long)(1000 * MS);
	return pthread_timedjoin_np(thread, NULL, &until);
}

/* ---- which pages ---- */

static void test_which(void **state)
{
	char *other = anon(16), *middle = other + 8 * PAGE, *block;
	uint64_t pages[OS_THREAD_PAGES / 64];
	pthread_t thread;
	struct os_mm mm;
	unsigned n = 0;

	assert_true(kept((char *)pthread_self()));
	assert_false(kept(middle) || kept(stack + SIZE - PAGE));
	thread = start_on(stack, SIZE, lives);
	block = (char *)thread;
	assert_true(block > stack && block < stack + SIZE);
	assert_true(kept(block) && kept((char *)tid_word));
	for (unsigned i = 0; i < PAGES; i++)
		n += kept(stack + i * PAGE);
	assert_true(n >= 2 && n <= 3);
	assert_true(any_kept(stack, SIZE));
	assert_false(any_kept(stack, SIZE / 2));
	assert_true(any_kept(block, 1));
	/* The same, all pages at once, from a directory that is kept open. */
	assert_int_equal(os->mm_open(&mm, 0), 0);
	assert_true(os->thread_pages(&mm, (uintptr_t)stack, (uintptr_t)stack + SIZE, pages));
	for (unsigned i = 0; i < PAGES; i++)
		assert_int_equal(os_has_page(pages, i), kept(stack + i * PAGE));
	os->mm_close(&mm);
	assert_false(kept(middle));
	stop = true;
	assert_int_equal(join_within(thread, 5000 * MS), 0);
	for (unsigned i = 0; i < PAGES; i++)
		assert_false(kept(stack + i * PAGE));
	munmap(other, 16 * PAGE);
}

enum { MANY = 150 };

static void test_many(void **state)
{
	static pthread_t threads[MANY];

	for (int i = 0; i < MANY; i++)
		threads[i] = start_on(NULL, 0, lives);
	for (int i = 0; i < MANY; i++)
		assert_true(kept((char *)threads[i]));
	stop = true;
	for (int i = 0; i < MANY; i++)
		pthread_join(threads[i], NULL);
}

/* ---- what it is for ---- */

/* All but what is kept is away when the thread ends. */
static void test_join(void **state)
{
	pthread_t thread = start_on(stack, SIZE, lives);

	assert_true(take(false) >= PAGES - 3);
	stop = true;
	serve(200 * MS);
	assert_true(faults > 0);
	assert_int_equal(join_within(thread, 5000 * MS), 0);
}

static int held[2]; /* a pipe; a thread ends when it is closed */

static void *ends_when_closed(void *arg)
{
	int *word = NULL;
	char c;

	prctl(PR_GET_TID_ADDRESS, &word);
	tid_word = word;
	tid = os->tid();
	syscall(SYS_read, held[0], &c, 1);
	syscall(SYS_exit, 0);
	return NULL;
}

/* The same, but its word is at the beginning of `stack`, which it does not use. */
static void *ends_elsewhere(void *arg)
{
	syscall(SYS_set_tid_address, stack);
	return ends_when_closed(arg);
}

static bool is_there(int thread)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%d", thread);
	return !access(path, F_OK);
}

/* The law: a word that is away is not cleared, and nobody is told. */
static void test_law(void **state)
{
	uint64_t began = os->now();
	size_t done;

	assert_int_equal(pipe(held), 0);
	start_on(NULL, 0, ends_elsewhere); /* never joined: it cannot be */
	assert_ptr_equal(tid_word, stack);
	faults = 0;
	assert_int_equal(os->ctx_move(&ctx, (uintptr_t)away, (uintptr_t)stack, PAGE, &done), 0);
	close(held[1]);
	while (is_there(tid) && os->now() - began < 5000 * MS)
		serve(MS);
	assert_true(!is_there(tid) && !faults);
	assert_int_equal(os->ctx_move(&ctx, (uintptr_t)stack, (uintptr_t)away, PAGE, &done), 0);
	assert_int_equal(*tid_word, 0x07070707); /* 0 were right */
	close(held[0]);
}

/* Whenever the answer is no the kernel has done with the word. */
static void test_ending(void **state)
{
	pthread_attr_t attr;
	unsigned asked = 0;

	os->ctx_unregister(&ctx, (uintptr_t)stack, (uintptr_t)stack + SIZE);
	pthread_attr_init(&attr);
	assert_int_equal(pthread_attr_setstack(&attr, stack, SIZE), 0);
	for (int round = 0; round < 3000; round++) {
		pthread_t thread;

		assert_int_equal(pipe(held), 0);
		tid = 0;
		assert_int_equal(pthread_create(&thread, &attr, ends_when_closed, NULL), 0);
		while (!tid)
			sched_yield();
		close(held[1]);
		for (; kept((char *)tid_word); asked++)
			;
		assert_int_equal(__atomic_load_n(tid_word, __ATOMIC_RELAXED), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
		close(held[0]);
	}
	pthread_attr_destroy(&attr);
	print_message("%u times the thread was still there\n", asked);
}

/* ---- what the kernel waits for ---- */

#define RSEQ_UNREGISTER 1
#define RSEQ_SIGNATURE 0x53053053

static _Atomic int rseq_err;

static void *has_rseq(void *arg)
{
	char *libcs = (char *)__builtin_thread_pointer() + __rseq_offset;
	bool undone = !syscall(SYS_rseq, libcs, 32, RSEQ_UNREGISTER, RSEQ_SIGNATURE);

	rseq_err = syscall(SYS_rseq, stack, 32, 0, RSEQ_SIGNATURE) ? errno : 0;
	tid = os->tid();
	while (!stop)
		os->sleep(MS);
	syscall(SYS_rseq, stack, 32, RSEQ_UNREGISTER, RSEQ_SIGNATURE);
	if (undone)
		syscall(SYS_rseq, libcs, 32, 0, RSEQ_SIGNATURE);
	return NULL;
}

/* The area of rseq is away while its thread sleeps; on its way back the kernel waits for it. */
static void test_rseq(void **state)
{
	pthread_t thread;

	fill(stack, stack + PAGE, 0);
	thread = start_on(NULL, 0, has_rseq);
	if (rseq_err) {
		stop = true;
		pthread_join(thread, NULL);
		print_message("rseq: %s\n", strerror(rseq_err));
		skip();
	}
	for (int round = 0; round < 20; round++) {
		size_t done;

		faults = 0;
		assert_int_equal(os->ctx_move(&ctx, (uintptr_t)away, (uintptr_t)stack, PAGE,
					      &done), 0);
		os->sleep(10 * MS); /* nobody serves it */
		while (!faults)
			serve(MS);
	}
	assert_true(is_there(tid));
	stop = true;
	assert_int_equal(join_within(thread, 5000 * MS), 0);
}

static char *_Atomic on_stack;

static void on_signal(int sig)
{
	char here[3 * PAGE];

	memset(here, 7, sizeof(here));
	on_stack = here + (here[PAGE] == 7 ? 0 : PAGES * PAGE);
}

static void *has_altstack(void *arg)
{
	stack_t alt = { .ss_sp = stack, .ss_size = SIZE };

	sigaltstack(&alt, NULL);
	tid = os->tid();
	while (!stop)
		os->sleep(MS);
	return NULL;
}

static void test_altstack(void **state)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK }, before;
	pthread_t thread;

	sigaction(SIGUSR1, &action, &before);
	thread = start_on(NULL, 0, has_altstack);
	for (int round = 0; round < 20; round++) {
		faults = 0;
		on_stack = NULL;
		assert_int_equal(take(true), PAGES);
		assert_int_equal(pthread_kill(thread, SIGUSR1), 0);
		while (!on_stack)
			serve(MS);
		assert_true(faults > 0 && on_stack >= stack && on_stack < stack + SIZE);
		serve(10 * MS);
		for (unsigned i = 0; i < PAGES; i++) { /* the rest */
			size_t done;

			os->ctx_move(&ctx, (uintptr_t)stack + i * PAGE,
				     (uintptr_t)away + i * PAGE, PAGE, &done);
		}
	}
	stop = true;
	assert_int_equal(join_within(thread, 5000 * MS), 0);
	sigaction(SIGUSR1, &before, NULL);
}

/* ---- critical_add ---- */

static int own_data = 1;

static bool critical(const void *p)
{
	return os->critical((uintptr_t)p, (uintptr_t)p + 1);
}

struct object {
	uintptr_t of; /* an address in it */
	uintptr_t start[8], end[8]; /* what of it is writable */
	unsigned n;
};

static int writable(struct dl_phdr_info *info, size_t size, void *arg)
{
	struct object *object = arg;
	bool is = false;

	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD &&
		    object->of - info->dlpi_addr - info->dlpi_phdr[i].p_vaddr <
			    info->dlpi_phdr[i].p_memsz)
			is = true;
	for (unsigned i = 0; is && i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD &&
		    (info->dlpi_phdr[i].p_flags & PF_W)) {
			object->start[object->n] = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
			object->end[object->n] = object->start[object->n] +
						 info->dlpi_phdr[i].p_memsz;
			object->n++;
		}
	return is;
}

/* A library that is none of the system's: cmocka. It stands for a driver's. */
static void test_critical_add(void **state)
{
	struct object object = { .of = (uintptr_t)cmocka_set_message_output };
	void *code = dlsym(RTLD_DEFAULT, "cmocka_set_message_output");

	if (code)
		object.of = (uintptr_t)code;
	assert_true(dl_iterate_phdr(writable, &object) && object.n && object.n <= 8);
	assert_false(critical((void *)object.start[0]));
	for (int times = 0; times < 100; times++) { /* the same again: once */
		os->critical_add((void *)object.of);
		os->critical_add((void *)test_critical_add); /* ours: nothing */
		os->critical_add(&times);		     /* of no object: nothing */
	}
	for (unsigned i = 0; i < object.n; i++) {
		assert_true(critical((void *)object.start[i]));
		assert_true(critical((void *)(object.end[i] - 1))); /* .bss's */
		assert_true(critical((void *)(object.end[i] | (PAGE - 1))));
	}
	assert_false(critical(stack) || critical(&object));
	own_data = 2;
	/* Linked statically, the library's data are the program's, and all of them count. */
	print_message("the main program's data are %scritical\n",
		      critical(&own_data) ? "" : "not ");
}

#define IN_CONTEXT(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_CONTEXT(test_which),
		IN_CONTEXT(test_many),
		IN_CONTEXT(test_join),
		IN_CONTEXT(test_law),
		IN_CONTEXT(test_ending),
		IN_CONTEXT(test_rseq),
		IN_CONTEXT(test_altstack),
		IN_CONTEXT(test_critical_add),
	};

	alarm(60);
	os = os_live();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
