/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_os_faults - safe copies and the chain of signal handlers of the live table
 * (src/os), on the running kernel.
 *
 * Each way of handling a signal runs in a child of its own, because levels that were
 * saved stay.
 */
#include "os_test.h"

static const struct os_ops *os;
static struct os_mm mm;

/* ---- copies ---- */

static int from(void *dst, const void *src, size_t length)
{
	return os->copy_from(&mm, dst, (uintptr_t)src, length);
}

static int to(void *dst, const void *src, size_t length)
{
	return os->copy_to(&mm, (uintptr_t)dst, src, length);
}

static void copies_of_size(char *good, char *none, char *ro, char *past, size_t size)
{
	static char buffer[3 << 16], back[3 << 16];

	for (size_t i = 0; i < size; i++)
		buffer[i] = (char)(i * 7 + size);
	assert_int_equal(to(good + 8, buffer, size), 0);
	assert_int_equal(from(back, good + 8, size), 0);
	assert_memory_equal(back, buffer, size);
	assert_int_equal(to(good + 3, buffer, size), 0); /* not aligned */
	assert_int_equal(from(back, good + 3, size), 0);
	assert_memory_equal(back, buffer, size);
	assert_int_equal(from(back, ro, size), 0);
	assert_int_equal(to(ro, buffer, size), -EFAULT);
	assert_int_equal(from(back, none, size), -EFAULT);
	assert_int_equal(to(none, buffer, size), -EFAULT);
	assert_int_equal(from(back, past, size), -EFAULT); /* SIGBUS */
	assert_int_equal(to(past, buffer, size), -EFAULT);
	assert_int_equal(from(back, (void *)8, size), -EFAULT);
	assert_int_equal(from(back, (void *)0x8000000000000000, size), -EFAULT);
	assert_int_equal(from(back, (void *)0xffffffff81000000, size), -EFAULT);
	if (size > 1) /* the failing byte is not the first */
		assert_int_equal(from(back, none - size / 2, size), -EFAULT);
}

static void test_copies(void **state)
{
	static const size_t sizes[] = { 1, 2, 3, 4, 7, 8, 9, 64, 4097, 65535, 65536, 150000 };
	char *good = anon(128), *ro = good + 48 * PAGE, *none = good + 96 * PAGE;
	char *past = file_map("/tmp/test_os.past", 64, RW, MAP_SHARED);

	assert_int_equal(truncate("/tmp/test_os.past", 0), 0);
	mprotect(ro, 48 * PAGE, PROT_READ);
	mprotect(none, 32 * PAGE, PROT_NONE);
	for (int scope = 0; scope < 3; scope++) { /* none, one, nested */
		for (int i = 0; i < scope; i++)
			assert_int_equal(os->access_begin(), 0);
		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
			copies_of_size(good, none, ro, past, sizes[i]);
		assert_int_equal(from(NULL, NULL, 0), 0);
		for (int i = 0; i < scope; i++)
			os->access_end();
	}
	os->access_end(); /* one too many does nothing */
	munmap(good, 128 * PAGE);
	munmap(past, 64 * PAGE);
	unlink("/tmp/test_os.past");
}

static void test_mask_of_scope(void **state)
{
	sigset_t faults, now;
	char *none = anon(1), c;

	mprotect(none, PAGE, PROT_NONE);
	sigemptyset(&faults);
	sigaddset(&faults, SIGSEGV);
	pthread_sigmask(SIG_BLOCK, &faults, NULL);
	assert_int_equal(os->access_begin(), 0);
	assert_int_equal(os->access_begin(), 0);
	assert_int_equal(from(&c, none, 1), -EFAULT);
	os->access_end();
	assert_int_equal(from(&c, none, 1), -EFAULT);
	sigaddset(&faults, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &faults, NULL); /* the program's own, in the scope */
	pthread_sigmask(SIG_UNBLOCK, &faults, NULL);
	sigdelset(&faults, SIGSEGV);
	pthread_sigmask(SIG_BLOCK, &faults, NULL);
	os->access_end();
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	assert_true(sigismember(&now, SIGSEGV) && sigismember(&now, SIGUSR1));
	assert_false(sigismember(&now, SIGBUS));
	sigemptyset(&faults);
	pthread_sigmask(SIG_SETMASK, &faults, NULL);
	munmap(none, PAGE);
}

static struct {
	uint64_t *word;
	_Atomic bool stop;
} shared;

static void *writes_patterns(void *arg)
{
	for (uint64_t i = 0; !shared.stop; i++)
		__atomic_store_n(shared.word, (i & 0xff) * 0x0101010101010101u, __ATOMIC_RELAXED);
	return NULL;
}

static void *adds(void *arg)
{
	for (int i = 0; i < 200000; i++)
		__atomic_fetch_add(shared.word, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void test_one_access(void **state)
{
	pthread_t thread;
	uint64_t value, old;

	shared.word = (void *)anon(1);
	shared.stop = false;
	pthread_create(&thread, NULL, writes_patterns, NULL);
	for (int i = 0; i < 200000; i++) {
		if (i == 100000)
			os->access_begin();
		assert_int_equal(from(&value, shared.word, 8), 0);
		assert_int_equal(value, (value & 0xff) * 0x0101010101010101u);
	}
	shared.stop = true;
	pthread_join(thread, NULL);

	*shared.word = 0;
	pthread_create(&thread, NULL, adds, NULL);
	for (int i = 0; i < 200000; i++)
		assert_int_equal(os->access_add((uintptr_t)shared.word, 8, 1, NULL), 0);
	pthread_join(thread, NULL);
	assert_int_equal(*shared.word, 400000);
	*shared.word = UINT64_MAX;
	assert_int_equal(os->access_add((uintptr_t)shared.word, 4, 1, &old), 0);
	assert_int_equal(old, UINT32_MAX);
	assert_int_equal(*shared.word, UINT64_MAX << 32);
	assert_int_equal(os->access_add((uintptr_t)shared.word + 4, 8, 1, &old), -EINVAL);
	assert_int_equal(os->access_add((uintptr_t)shared.word, 2, 1, &old), -EINVAL);
	assert_int_equal(os->access_add(64, 8, 1, &old), -EFAULT);

	*shared.word = UINT64_C(0x100000005);
	assert_int_equal(os->access_cas((uintptr_t)shared.word, 8, 5, 7, &old), 0);
	assert_true(old == UINT64_C(0x100000005) && *shared.word == old);
	assert_int_equal(os->access_cas((uintptr_t)shared.word, 4, 5, UINT64_MAX, &old), 0);
	assert_true(old == 5 && *shared.word == UINT64_C(0x1ffffffff));
	assert_int_equal(os->access_cas((uintptr_t)shared.word, 8, *shared.word, 9, NULL), 0);
	assert_int_equal(*shared.word, 9);
	assert_int_equal(os->access_cas((uintptr_t)shared.word + 4, 8, 9, 1, &old), -EINVAL);
	assert_int_equal(os->access_cas(64, 8, 0, 1, &old), -EFAULT);
	os->access_end();
	assert_int_equal(os->access_add((uintptr_t)shared.word, 8, 1, &old), -EINVAL);
	munmap(shared.word, PAGE);
}

/* ---- handlers: what they saw, in memory that outlives the child ---- */

static struct seen {
	_Atomic int a, b, code;
	void *addr;
	bool usr1_blocked, segv_blocked, on_altstack;
} *seen;

static char *bad; /* a page that nobody may touch; opened by handlers that repair */
static struct sigaction before_a, before_b;
static sigjmp_buf jump;
static char altstack[1 << 16];

static void look(siginfo_t *info)
{
	sigset_t mask;
	char here;

	pthread_sigmask(SIG_BLOCK, NULL, &mask);
	seen->usr1_blocked = sigismember(&mask, SIGUSR1);
	seen->segv_blocked = sigismember(&mask, SIGSEGV);
	seen->on_altstack = &here >= altstack && &here < altstack + sizeof(altstack);
	if (info) {
		seen->code = info->si_code;
		seen->addr = info->si_addr;
	}
}

static void repairs(int sig, siginfo_t *info, void *context)
{
	seen->a++;
	look(info);
	mprotect(bad, PAGE, RW);
}

static void repairs_plainly(int sig)
{
	seen->a++;
	mprotect(bad, PAGE, RW);
}

static void returns(int sig, siginfo_t *info, void *context)
{
	seen->a++;
	look(info);
}

static void jumps(int sig, siginfo_t *info, void *context)
{
	seen->a++;
	siglongjmp(jump, 1);
}

static void nests(int sig, siginfo_t *info, void *context)
{
	if (seen->a++ == 0)
		*(volatile char *)(bad + PAGE) = 1; /* faults again */
	mprotect(bad, 2 * PAGE, RW);
}

static void chains_a(int sig, siginfo_t *info, void *context)
{
	seen->a++;
	before_a.sa_sigaction(sig, info, context);
}

static void chains_b(int sig, siginfo_t *info, void *context)
{
	seen->b++;
	before_b.sa_sigaction(sig, info, context);
}

/* One without SA_SIGINFO, which has no frame to hand on. */
static void chains_plainly(int sig)
{
	seen->b++;
	((void (*)(int, siginfo_t *, void *))before_b.sa_sigaction)(sig, NULL, NULL);
}

static void install(void (*handler)(int, siginfo_t *, void *), int flags, struct sigaction *was)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGUSR1);
	sigaction(SIGSEGV, &action, was);
}

static void touch(void)
{
	*(volatile char *)bad = 1;
}

static void recovers(void)
{
	char c;

	NEED(!os->access_begin());
	NEED(from(&c, bad, 1) == -EFAULT);
	os->access_end();
}

static void arm(void)
{
	NEED(!os->handlers_arm());
}

static void installed_before(void)
{
	install(repairs, 0, NULL);
	arm();
	recovers();
	NEED(seen->a == 0);
	touch();
	NEED(seen->a == 1 && seen->addr == bad && seen->code == SEGV_ACCERR);
	NEED(seen->usr1_blocked && seen->segv_blocked && !seen->on_altstack);
	look(NULL);
	NEED(!seen->usr1_blocked && !seen->segv_blocked);
}

static void plain_before(void)
{
	signal(SIGSEGV, repairs_plainly);
	arm();
	recovers();
	touch();
	NEED(seen->a == 1);
}

static void installed_after(void)
{
	arm();
	install(repairs, SA_NODEFER, NULL);
	recovers(); /* the scope puts us in front again */
	NEED(seen->a == 0);
	touch();
	NEED(seen->a == 1 && seen->usr1_blocked && !seen->segv_blocked);
}

/* In front of us in the middle of a scope, but it chains: our fault is still ours. */
static void installed_in_scope(void)
{
	char c;

	arm();
	NEED(!os->access_begin());
	install(chains_a, 0, &before_a);
	NEED(from(&c, bad, 1) == -EFAULT && seen->a == 1);
	os->access_end();
}

static void chain_of_two(void)
{
	install(repairs, 0, NULL);
	arm();
	install(chains_b, 0, &before_b);
	arm();
	recovers();
	touch();
	NEED(seen->a == 1 && seen->b == 1 && seen->addr == bad);
}

static void chain_without_frame(void)
{
	install(repairs, 0, NULL);
	arm();
	sigaction(SIGSEGV, NULL, &before_b);
	signal(SIGSEGV, chains_plainly);
	arm();
	touch();
	NEED(seen->a == 1 && seen->b == 1 && seen->addr == bad);
}

/* What the program puts back is what it replaced, not the handler in between. */
static void put_back(void)
{
	install(repairs, 0, NULL);
	arm();
	install(chains_b, 0, &before_b);
	arm();
	sigaction(SIGSEGV, &before_b, NULL);
	arm();
	touch();
	NEED(seen->a == 1 && seen->b == 0);
}

static void chains_to_itself(void)
{
	install(chains_a, 0, &before_a);
	arm();
	install(chains_a, 0, &before_a);
	arm();
	touch(); /* dies: below it is only the default */
}

static void resethand(void)
{
	install(returns, SA_RESETHAND, NULL);
	arm();
	touch(); /* once to the handler, then dies */
}

static void nested_nodefer(void)
{
	install(nests, SA_NODEFER, NULL);
	arm();
	touch();
	NEED(seen->a == 2);
	mprotect(bad, 2 * PAGE, PROT_NONE);
	recovers();
	touch();
	NEED(seen->a == 3);
}

static void nested_deferred(void)
{
	install(nests, 0, NULL);
	arm();
	touch(); /* dies: blocked while it is handled */
}

static void longjmp_many(void)
{
	install(jumps, 0, NULL);
	arm();
	for (int i = 0; i < 1000; i++)
		if (!sigsetjmp(jump, 1))
			touch();
	NEED(seen->a == 1000);
	install(chains_b, 0, &before_b);
	arm();
	if (!sigsetjmp(jump, 1))
		touch();
	NEED(seen->a == 1001 && seen->b == 1);
	recovers();
}

static void dies_by_default(void)
{
	arm();
	recovers();
	touch();
}

static void dies_of_bus(void)
{
	char *past = file_map("/tmp/test_os.bus", 1, RW, MAP_SHARED);

	NEED(!truncate("/tmp/test_os.bus", 0));
	unlink("/tmp/test_os.bus");
	arm();
	*(volatile char *)past = 1;
}

static void ignored_fault(void)
{
	signal(SIGSEGV, SIG_IGN);
	arm();
	kill(getpid(), SIGSEGV); /* sent, so ignored */
	recovers();
	seen->b = 1;
	touch(); /* a fault, so it dies */
}

static void sent_by_kill(void)
{
	install(returns, 0, NULL);
	arm();
	kill(getpid(), SIGSEGV);
	NEED(seen->a == 1 && seen->code == SI_USER);
	signal(SIGSEGV, SIG_DFL);
	arm();
	kill(getpid(), SIGSEGV);
}

static void on_stacks(void)
{
	stack_t stack = { .ss_sp = altstack, .ss_size = sizeof(altstack) };

	sigaltstack(&stack, NULL);
	install(repairs, SA_ONSTACK, NULL);
	arm();
	touch();
	NEED(seen->a == 1 && seen->on_altstack);
	mprotect(bad, PAGE, PROT_NONE);
	recovers();
	install(repairs, 0, NULL);
	arm();
	touch();
	NEED(seen->a == 2 && !seen->on_altstack);
}

static void too_many(void)
{
	struct sigaction action = { .sa_sigaction = repairs, .sa_flags = SA_SIGINFO };
	int armed = 0, err;

	arm();
	do {
		sigemptyset(&action.sa_mask);
		sigaddset(&action.sa_mask, SIGRTMIN + armed % 24);
		if (armed >= 24)
			sigaddset(&action.sa_mask, SIGUSR2);
		sigaction(SIGSEGV, &action, NULL);
		err = os->handlers_arm();
	} while (!err && armed++ < 100);
	NEED(err == -ENOBUFS && armed == 31); /* and the default, which was first */
	touch(); /* the program's last is left in front */
	NEED(seen->a == 1);
}

static void *arms(void *arg)
{
	while (!shared.stop)
		os->handlers_arm();
	return NULL;
}

static void repairs_b(int sig, siginfo_t *info, void *context)
{
	seen->b++;
	mprotect(bad, PAGE, RW);
}

/* Whatever the order, the handler that was installed last is the one that is called. */
static void race(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, arms, NULL);
	for (int i = 1; i <= 4000; i++) {
		mprotect(bad, PAGE, PROT_NONE);
		install(i & 1 ? repairs : repairs_b, 0, NULL);
		touch();
		NEED(seen->a == (i + 1) / 2 && seen->b == i / 2);
	}
	shared.stop = true;
	pthread_join(thread, NULL);
}

/*
 * sigaction() of this program, the library's calls included: a thread that has set hooks
 * runs them around its next call that changes something.
 */
int __sigaction(int sig, const struct sigaction *action, struct sigaction *was);

static __thread void (*before_change)(void), (*after_change)(void);

int sigaction(int sig, const struct sigaction *action, struct sigaction *was)
{
	void (*before)(void) = before_change, (*after)(void) = after_change;
	int err;

	if (action)
		before_change = after_change = NULL;
	if (action && before)
		before();
	err = __sigaction(sig, action, was);
	if (action && after)
		after();
	return err;
}

static _Atomic int step;

static void wait_step(int n)
{
	while (step != n)
		sched_yield();
}

static void let_install(void)
{
	step = 1;
	wait_step(2);
}

static void let_fault(void)
{
	step = 3;
	os->sleep(20000000);
	NEED(step == 3); /* the fault is not served by what we displaced it with */
}

static void *arms_with_hooks(void *arg)
{
	before_change = let_install;
	after_change = let_fault;
	arm();
	return NULL;
}

/* Installed between the look and the change of who arms, and faulted upon at once. */
static void installed_while_arming(void)
{
	pthread_t thread;

	step = 0;
	install(repairs, 0, NULL);
	pthread_create(&thread, NULL, arms_with_hooks, NULL);
	wait_step(1);
	install(repairs_b, 0, NULL);
	step = 2;
	wait_step(3);
	touch();
	step = 4;
	pthread_join(thread, NULL);
	NEED(seen->a == 0 && seen->b == 1);
	mprotect(bad, PAGE, PROT_NONE);
	recovers();
}

static void let_fork(void)
{
	step = 1;
	wait_step(2);
}

static void *arms_for_fork(void *arg)
{
	before_change = let_fork;
	arm();
	return NULL;
}

/* Our lock is held by a thread that the child does not have. */
static void fork_while_arming(void)
{
	pthread_t thread;

	step = 0;
	pthread_create(&thread, NULL, arms_for_fork, NULL);
	wait_step(1);
	NEED(in_child(recovers) == 0);
	step = 2;
	pthread_join(thread, NULL);
	recovers();
}

#define EXIT 0
static const struct way {
	const char *name;
	void (*fn)(void);
	int dies, a, b; /* by which signal; calls of the handlers a and b */
} ways[] = {
	{ "installed before", installed_before, EXIT, 1, 0 },
	{ "plain, before", plain_before, EXIT, 1, 0 },
	{ "installed after", installed_after, EXIT, 1, 0 },
	{ "installed in a scope", installed_in_scope, EXIT, 1, 0 },
	{ "chain of two", chain_of_two, EXIT, 1, 1 },
	{ "chain without a frame", chain_without_frame, EXIT, 1, 1 },
	{ "put back", put_back, EXIT, 1, 0 },
	{ "chains to itself", chains_to_itself, SIGSEGV, 1, 0 },
	{ "SA_RESETHAND", resethand, SIGSEGV, 1, 0 },
	{ "nested, SA_NODEFER", nested_nodefer, EXIT, 3, 0 },
	{ "nested, deferred", nested_deferred, SIGSEGV, 1, 0 },
	{ "longjmp", longjmp_many, EXIT, 1001, 1 },
	{ "default", dies_by_default, SIGSEGV, 0, 0 },
	{ "default of SIGBUS", dies_of_bus, SIGBUS, 0, 0 },
	{ "ignored", ignored_fault, SIGSEGV, 0, 1 },
	{ "sent by kill", sent_by_kill, SIGSEGV, 1, 0 },
	{ "stacks", on_stacks, EXIT, 2, 0 },
	{ "too many", too_many, EXIT, 1, 0 },
	{ "race with arming", race, EXIT, 2000, 2000 },
	{ "installed while arming", installed_while_arming, EXIT, 0, 1 },
	{ "fork while arming", fork_while_arming, EXIT, 0, 0 },
};

static const struct way *way;

static void go(void)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	signal(SIGSEGV, SIG_DFL); /* cmocka and AddressSanitizer have handlers of theirs */
	signal(SIGBUS, SIG_DFL);
	shared.stop = false;
	way->fn();
}

static void test_handlers(void **state)
{
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		int status;

		way = &ways[i];
		memset(seen, 0, sizeof(*seen));
		mprotect(bad, 2 * PAGE, PROT_NONE);
		status = in_child(go);
		if (way->dies ? !WIFSIGNALED(status) || WTERMSIG(status) != way->dies : status)
			fail_msg("%s: wait status %#x", way->name, status);
		if (seen->a != way->a || seen->b != way->b)
			fail_msg("%s: called %d and %d times", way->name, seen->a, seen->b);
	}
}

/* ---- without process_vm ---- */

static void copies_again(void)
{
	NEED(!feature_process_vm());
	test_copies(NULL);
	test_one_access(NULL);
}

static void test_without_process_vm(void **state)
{
	assert_int_equal(in_itself("process_vm", "copies"), 0);
}

static const struct itself table[] = {
	{ "copies", copies_again },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	/* The children of test_handlers are forked before this process is armed. */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handlers),
		cmocka_unit_test(test_copies),
		cmocka_unit_test(test_mask_of_scope),
		cmocka_unit_test(test_one_access),
		cmocka_unit_test(test_without_process_vm),
	};

	alarm(60);
	os = os_live();
	seen = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bad = mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (os->mm_open(&mm, 0) || seen == MAP_FAILED || bad == MAP_FAILED)
		return 1;
	itself_run(argc, argv, table);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
