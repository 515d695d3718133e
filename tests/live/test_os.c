/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_os - contexts, the reader, perf, threads and features of the live table
 * (src/os), on the running kernel.
 */
#include "os_test.h"

#define CTXS 2
#define LOG 4096

static const struct os_ops *os;

/* ---- a reader, as the core has one ---- */

static struct fixture {
	struct os_ctx ctx[CTXS];
	struct os_thread *thread;
	struct os_perf *perf;
	_Atomic bool with_perf, hold, stop, up;
	_Atomic unsigned count, kicks, polls, children;
	int perf_err, read_err;
	pid_t tid;
	struct os_msg log[LOG];
} r;

/* The child's context is a descriptor of this thread's table, and for it to close. */
static void keep(const struct os_msg *msg)
{
	if (msg->kind == OS_MSG_FORK) {
		r.children += fcntl(msg->child, F_GETFD) == FD_CLOEXEC;
		os->child_close(msg->child);
	}
	r.log[r.count++ % LOG] = *msg;
}

static void *reader(void *arg)
{
	uint64_t ready = 0;

	r.tid = os->tid();
	assert_int_equal(os->reader_isolate(r.ctx, CTXS), 0);
	if (r.with_perf)
		r.perf_err = os->perf_open(&r.perf);
	r.up = true;
	/* Not `stop` alone: who kicks sleeps until it has been read. */
	while (!r.stop || !(ready >> CTXS & 1)) {
		int n = os->ctx_poll(r.ctx, CTXS, -1, &ready);

		assert_int_equal(n, __builtin_popcountll(ready));
		r.polls++;
		while (r.hold)
			os->sleep(100000);
		for (unsigned i = 0; i < CTXS; i++) {
			struct os_msg msgs[16];
			int got = ready >> i & 1 ? os->ctx_read(&r.ctx[i], msgs, 16) : 0;

			if (got < 0)
				r.read_err = got;
			for (int k = 0; k < got; k++)
				keep(&msgs[k]);
		}
		r.kicks += ready >> CTXS & 1;
	}
	return NULL;
}

static void reader_start(bool with_perf)
{
	memset(&r, 0, sizeof(r));
	r.with_perf = with_perf;
	for (unsigned i = 0; i < CTXS; i++)
		assert_int_equal(os->ctx_open(&r.ctx[i]), 0);
	assert_int_equal(os->thread_start(&r.thread, "test-reader", true, reader, NULL), 0);
	while (!r.up)
		sched_yield();
}

static void reader_stop(void)
{
	r.stop = true;
	os->reader_kick(r.ctx, CTXS);
	os->thread_join(r.thread);
	if (r.perf)
		os->perf_close(r.perf);
	for (unsigned i = 0; i < CTXS; i++)
		os->ctx_close(&r.ctx[i]);
	assert_int_equal(r.read_err, 0);
}

static const struct os_msg *message(unsigned i)
{
	while (r.count <= i)
		sched_yield();
	return &r.log[i];
}

static void expect(unsigned i, enum os_msg_kind kind, const char *start, size_t pages,
		   const char *to)
{
	const struct os_msg *m = message(i);

	assert_int_equal(m->kind, kind);
	assert_int_equal(m->start, (uintptr_t)start);
	assert_int_equal(m->end, (uintptr_t)start + (start ? pages * PAGE : 0));
	assert_int_equal(m->to, (uintptr_t)to);
}

static int reg(unsigned i, const char *p, size_t pages)
{
	return os->ctx_register(&r.ctx[i], (uintptr_t)p, (uintptr_t)p + pages * PAGE);
}

/* ---- contexts ---- */

static void test_context_identity(void **state)
{
	struct os_ctx ctx = { 0 }, other = { 0 }, gone;
	int fd;

	assert_int_equal(os->ctx_open(&ctx), 0);
	assert_true(ctx.fd >= 128);
	assert_true(fcntl(ctx.fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(ctx.fd, F_GETFL) & O_NONBLOCK);
	assert_true(os->ctx_is_ours(&ctx));
	assert_true(arena_owns((uintptr_t)ctx.canary->page, (uintptr_t)ctx.canary->page + 1));
	assert_int_equal(os->ctx_probe(&ctx), 0);

	/* The program closes the number; another userfaultfd gets it. */
	assert_int_equal(os->ctx_open(&other), 0);
	close(ctx.fd);
	assert_false(os->ctx_is_ours(&ctx));
	assert_int_equal(os->ctx_probe(&ctx), -EBADF);
	assert_int_equal(dup2(other.fd, ctx.fd), ctx.fd);
	assert_int_equal(os->ctx_probe(&ctx), 0);
	assert_false(os->ctx_is_ours(&ctx));
	gone = ctx;
	os->ctx_close(&gone);
	assert_int_equal(gone.fd, -1);
	assert_int_equal(fcntl(ctx.fd, F_GETFD), 0); /* not ours to close */
	fd = open("/dev/null", O_RDONLY);
	assert_int_equal(dup2(fd, ctx.fd), ctx.fd);
	assert_int_equal(os->ctx_probe(&ctx), -ENOTTY);
	close(fd);
	close(ctx.fd);
	os->ctx_close(&other);
	os->ctx_close(&other); /* a second time does nothing */
}

static uint64_t pagemap_entry(const void *p)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	assert_int_equal(pread(fd, &entry, 8, (off_t)((uintptr_t)p / PAGE * 8)), 8);
	close(fd);
	return entry;
}

static void test_register(void **state)
{
	char *p = anon(4), *file, *ro;
	int fd = open("/proc/self/exe", O_RDONLY);

	reader_start(false);
	memset(p, 1, 4 * PAGE);
	assert_int_equal(reg(0, p, 4), 0);
	assert_int_equal(reg(0, p, 4), 0);
	assert_int_equal(reg(1, p, 4), -EBUSY);
	assert_int_equal(pagemap_entry(p) >> 57 & 1, 0); /* G7: nothing is armed */
	p[0] = 2;
	assert_int_equal(os->ctx_unregister(&r.ctx[0], (uintptr_t)p, (uintptr_t)p + 4 * PAGE), 0);
	assert_int_equal(reg(1, p, 4), 0);
	munmap(p, 4 * PAGE);
	expect(0, OS_MSG_UNMAP, p, 4, NULL);
	assert_int_equal(reg(0, p, 4), -EINVAL);

	file = file_map("/tmp/test_os.reg", 2, RW, MAP_SHARED);
	assert_int_equal(reg(0, file, 2), 0);
	munmap(file, 2 * PAGE);
	expect(1, OS_MSG_UNMAP, file, 2, NULL);
	ro = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	assert_int_equal(reg(0, ro, 1), -EPERM);
	munmap(ro, PAGE);
	ro = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	assert_int_equal(reg(0, ro, 1), 0);
	munmap(ro, PAGE);
	close(fd);
	unlink("/tmp/test_os.reg");
	reader_stop();
}

static unsigned fds_of(pid_t tid)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/self/task/%d/fd", tid);
	dir = opendir(path);
	assert_non_null(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2; /* . and .. */
}

static void test_messages(void **state)
{
	char *p = anon(16), *to = anon(16), *q;

	reader_start(false);
	munmap(to, 16 * PAGE);
	memset(p, 1, 16 * PAGE);
	assert_int_equal(reg(0, p, 16), 0);
	madvise(p + PAGE, PAGE, MADV_DONTNEED);
	expect(0, OS_MSG_REMOVE, p + PAGE, 1, NULL);
	q = mremap(p, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	assert_ptr_equal(q, to);
	expect(0, OS_MSG_REMOVE, p + PAGE, 1, NULL);
	while (r.count < 3)
		sched_yield();
	/* FIXED says UNMAP of its destination too, before or after: the order is not promised. */
	for (unsigned i = 1; i < r.count; i++)
		if (r.log[i].kind == OS_MSG_REMAP)
			expect(i, OS_MSG_REMAP, p, 16, to);
	if (r.ctx[0].fork) {
		unsigned at = r.count, fds = fds_of(r.tid);

		assert_int_equal(fds, CTXS); /* the reader has nothing but the contexts */
		assert_int_equal(in_child(sync), 0);
		expect(at, OS_MSG_FORK, NULL, 0, NULL);
		os->sleep(10000000);
		assert_int_equal(r.children, 1);
		assert_int_equal(fds_of(r.tid), CTXS);
	}
	munmap(to, 16 * PAGE);
	reader_stop();
}

static void *unmapper(void *arg)
{
	munmap(arg, PAGE);
	return NULL;
}

/* G1: the probe says "pending" from before the change's caller waits until it runs. */
static void test_probe_pending(void **state)
{
	char *p = anon(1);
	pthread_t thread;

	reader_start(false);
	assert_int_equal(reg(0, p, 1), 0);
	assert_int_equal(os->ctx_probe(&r.ctx[0]), 0);
	r.hold = true;
	pthread_create(&thread, NULL, unmapper, p);
	while (os->ctx_probe(&r.ctx[0]) != -EAGAIN)
		sched_yield();
	os->sleep(5000000);
	assert_int_equal(os->ctx_probe(&r.ctx[0]), -EAGAIN);
	assert_int_equal(os->ctx_probe(&r.ctx[1]), 0);
	r.hold = false;
	pthread_join(thread, NULL);
	assert_int_equal(os->ctx_probe(&r.ctx[0]), 0);
	reader_stop();
}

static void *kicker(void *arg)
{
	for (int i = 0; i < 200; i++)
		os->reader_kick(r.ctx, CTXS);
	return NULL;
}

static void test_kick(void **state)
{
	uintptr_t canary;
	pthread_t threads[4];
	unsigned before;

	reader_start(false);
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, kicker, NULL);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	os->sleep(5000000);
	assert_true(r.kicks > 0 && r.kicks <= 800);
	assert_int_equal(r.count, 0); /* canaries are nobody's message */
	/* Somebody took back every registration of the process: it still wakes. */
	canary = (uintptr_t)r.ctx[0].canary->page;
	assert_int_equal(os->ctx_unregister(&r.ctx[0], canary, canary + PAGE), 0);
	before = r.kicks;
	os->reader_kick(r.ctx, CTXS);
	while (r.kicks == before)
		sched_yield();
	reader_stop();
}

/* A program that closes all it does not know: the reader goes on. */
static void closed_from(void)
{
	char *p = anon(1);
	unsigned before;

	reader_start(false);
	NEED(!reg(0, p, 1));
	NEED(!syscall(SYS_close_range, 3, ~0u, 0));
	NEED(!os->ctx_is_ours(&r.ctx[0]) && os->ctx_probe(&r.ctx[0]) == -EBADF);
	munmap(p, PAGE);
	NEED(message(0)->start == (uintptr_t)p);
	before = r.kicks;
	os->reader_kick(r.ctx, CTXS);
	while (r.kicks == before)
		sched_yield();
	reader_stop();
}

static void test_closefrom(void **state)
{
	assert_int_equal(in_child(closed_from), 0);
}

/* A program that makes every descriptor blocking: no busy loop, no blind reader. */
static void test_made_blocking(void **state)
{
	char *p = anon(1);
	unsigned polls;

	reader_start(false);
	assert_int_equal(reg(1, p, 1), 0);
	polls = r.polls;
	fcntl(r.ctx[0].fd, F_SETFL, 0);
	os->reader_kick(r.ctx, CTXS);
	munmap(p, PAGE);
	expect(0, OS_MSG_UNMAP, p, 1, NULL);
	os->sleep(50000000);
	assert_true(r.polls - polls < 60);
	reader_stop();
}

/* ---- perf ---- */

static struct {
	uintptr_t at;
	unsigned count;
	int last_prot;
} seen;

static void record(void *arg, uintptr_t start, uintptr_t end, int prot)
{
	if (start <= seen.at && seen.at < end) {
		seen.count++;
		seen.last_prot = prot;
	}
}

static unsigned drained(const char *p, int *lost)
{
	memset(&seen, 0, sizeof(seen));
	seen.at = (uintptr_t)p;
	*lost = os->perf_drain(r.perf, record, NULL);
	assert_false(os->perf_pending(r.perf));
	return seen.count;
}

static struct {
	_Atomic int step;
	char *page;
} old;

/* Changes from what it is to `first`, back to the other, ...: no change, no record. */
static void protects(void *page, int times, int first)
{
	for (int i = 0; i < times; i++)
		mprotect(page, PAGE, i & 1 ? first ^ PROT_WRITE : first);
}

static void *older(void *arg)
{
	while (old.step != 1)
		sched_yield();
	protects(old.page, 1, PROT_READ);
	old.step = 2;
	return NULL;
}

static void *younger(void *arg)
{
	protects(arg, 1, PROT_READ);
	return NULL;
}

static int clone_vm_child(void *arg)
{
	protects(arg, 1, PROT_READ);
	return 0;
}

static bool perf_there(void)
{
	if (!r.perf_err)
		return true;
	fprintf(stderr, "skip: perf_open: %s\n", strerror(-r.perf_err));
	reader_stop();
	return false;
}

static void test_perf_threads(void **state)
{
	char *p = anon(3), *stack = anon(16);
	pthread_t thread;
	int lost, status;
	pid_t pid;

	old.page = p;
	old.step = 0;
	pthread_create(&thread, NULL, older, NULL);
	reader_start(true);
	if (!perf_there())
		return;
	drained(p, &lost);
	protects(p, 1, PROT_READ);
	assert_true(os->perf_pending(r.perf));
	assert_int_equal(drained(p, &lost), 1);
	assert_int_equal(seen.last_prot, PROT_READ);
	protects(p, 3, RW);
	assert_int_equal(drained(p, &lost), 3);
	assert_int_equal(seen.last_prot, RW);
	old.step = 1; /* the thread that was there before perf_open */
	while (old.step != 2)
		sched_yield();
	assert_int_equal(drained(p, &lost), 1);
	pthread_join(thread, NULL);
	pthread_create(&thread, NULL, younger, p + PAGE);
	pthread_join(thread, NULL);
	assert_true(drained(p + PAGE, &lost) >= 1);
	pid = clone(clone_vm_child, stack + 16 * PAGE, CLONE_VM | SIGCHLD, p + 2 * PAGE);
	waitpid(pid, &status, 0);
	assert_true(drained(p + 2 * PAGE, &lost) >= 1);
	sbrk((intptr_t)PAGE);
	assert_true(os->perf_pending(r.perf));
	drained(p, &lost);
	assert_int_equal(lost, 0);
	reader_stop();
	munmap(p, 3 * PAGE);
	munmap(stack, 16 * PAGE);
}

static void test_perf_overflow(void **state)
{
	char *p = anon(1);
	int lost, times = 500;

	reader_start(true);
	if (!perf_there())
		return;
	drained(p, &lost);
	for (int round = 0; round < 10; round++) { /* several times around the ring */
		protects(p, times, PROT_READ);
		assert_int_equal(drained(p, &lost), times);
		assert_int_equal(lost, 0);
	}
	/* Full: some are dropped, and no LOST record is there when we look (G1). */
	protects(p, 6000, PROT_READ);
	assert_true(drained(p, &lost) < 6000);
	assert_int_equal(lost, 1);
	protects(p, 1, PROT_READ); /* now there is one */
	drained(p, &lost);
	protects(p, 1, RW);
	assert_int_equal(drained(p, &lost), 1);
	assert_int_equal(lost, 0);
	reader_stop();
	munmap(p, PAGE);
}

/* Its descriptors were of the opener's table: here the numbers are the program's. */
static void test_perf_close_elsewhere(void **state)
{
	int fds[64], n = 0;

	reader_start(true);
	for (; n < 64; n++)
		fds[n] = open("/dev/null", O_RDONLY);
	reader_stop();
	while (n-- > 0)
		assert_int_equal(close(fds[n]), 0);
}

static void few_descriptors(void)
{
	struct rlimit few = { 6, 6 };

	memset(&r, 0, sizeof(r));
	setrlimit(RLIMIT_NOFILE, &few);
	old.step = 0;
	for (int i = 0; i < 4; i++) {
		pthread_t thread;

		pthread_create(&thread, NULL, older, NULL);
	}
	NEED(os->perf_open(&r.perf) == -EMFILE && !r.perf);
	NEED(open("/dev/null", O_RDONLY) == 3); /* all closed */
}

static void test_perf_descriptors(void **state)
{
	assert_int_equal(in_child(few_descriptors), 0);
}

/* ---- the registration token ---- */

static int token(const struct os_mm *mm, const char *p, size_t pages, unsigned how)
{
	struct os_run runs[4];
	uintptr_t next;

	return os->scan(mm, (uintptr_t)p, (uintptr_t)p + pages * PAGE, OS_SCAN_CHECK | how, runs,
			4, &next);
}

static void test_token(void **state)
{
	int id = shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600);
	char *p = anon(8), *sysv = shmat(id, NULL, 0);
	struct os_mm mm;

	reader_start(false);
	assert_int_equal(os->mm_open(&mm, 0), 0);
	assert_int_equal(token(&mm, p, 8, 0), -EPERM); /* not registered */
	assert_int_equal(reg(0, p, 8), 0);
	assert_int_equal(token(&mm, p, 8, 0), 1); /* absent, but registered */
	assert_int_equal(token(&mm, p, 8, OS_SCAN_POPULATED), 0);
	p[2 * PAGE] = 1;
	assert_int_equal(token(&mm, p, 8, 0), 3);
	assert_int_equal(token(&mm, p, 8, OS_SCAN_POPULATED), 1);
	mmap(p + 4 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	assert_int_equal(token(&mm, p, 8, 0), -EPERM); /* one page replaced */
	munmap(p + 4 * PAGE, PAGE);
	assert_int_equal(token(&mm, p, 8, 0), -EPERM); /* a hole */
	assert_int_equal(token(&mm, p, 5, OS_SCAN_POPULATED), -EPERM); /* at the end */
	assert_int_equal(token(&mm, p + 4 * PAGE, 4, 0), -EPERM);      /* at the start */
	assert_int_equal(token(&mm, p + 4 * PAGE, 1, 0), -EPERM);      /* only */
	assert_int_equal(token(&mm, p, 4, 0), 3);
	memset(sysv, 1, 4 * PAGE);
	assert_int_equal(reg(1, sysv, 4), 0);
	assert_int_equal(token(&mm, sysv, 4, 0), 1);
	shmdt(sysv); /* no message tells */
	assert_int_equal(token(&mm, sysv, 4, 0), -EPERM);
	shmctl(id, IPC_RMID, NULL);
	os->mm_close(&mm);
	munmap(p, 8 * PAGE);
	reader_stop();
}

/* ---- threads ---- */

static struct {
	struct os_thread *thread;
	uint64_t blocked;
	char name[16];
	char *stack;
	_Atomic uint32_t word;
	int woken;
} t;

static void *look_around(void *arg)
{
	char here;

	syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &t.blocked, 8);
	prctl(PR_GET_NAME, t.name);
	t.stack = &here;
	return NULL;
}

static bool blocked(int sig)
{
	return t.blocked >> (sig - 1) & 1;
}

static void test_thread(void **state)
{
	sigset_t before, after;

	pthread_sigmask(SIG_BLOCK, NULL, &before);
	for (int critical = 0; critical < 2; critical++) {
		assert_int_equal(os->thread_start(&t.thread, "a-name-longer-than-15", critical,
						  look_around, NULL), 0);
		os->thread_join(t.thread);
		assert_string_equal(t.name, "a-name-longer-t");
		assert_true(blocked(SIGINT) && blocked(SIGUSR1) && blocked(SIGALRM));
		assert_int_equal(blocked(SIGSEGV), critical);
		assert_int_equal(blocked(SIGBUS), critical);
		assert_int_equal(blocked(SIGTRAP), critical);
		assert_false(arena_owns((uintptr_t)t.stack, (uintptr_t)t.stack + 1));
	}
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	assert_memory_equal(&before, &after, 8);
}

static void *on_stack(void *arg)
{
	char here;

	t.stack = &here;
	t.word = 1;
	os->wake((uint32_t *)&t.word);
	os->wait((uint32_t *)&t.word, 1, 0);
	return NULL;
}

static void test_thread_stack_and_wake(void **state)
{
	uint64_t began = os->now();
	struct os_mm mm;
	struct os_vma vma;

	t.word = 0;
	os->wait((uint32_t *)&t.word, 0, 5000000);
	assert_true(os->now() - began >= 5000000);
	os->wait((uint32_t *)&t.word, 1, 0); /* another value: at once */
	assert_int_equal(os->thread_start(&t.thread, "t", true, on_stack, NULL), 0);
	while (t.word == 0)
		os->wait((uint32_t *)&t.word, 0, 0);
	assert_true(arena_owns((uintptr_t)t.stack, (uintptr_t)t.stack + 1));
	assert_int_equal(os->mm_open(&mm, 0), 0);
	assert_int_equal(os->vma_find(&mm, (uintptr_t)t.stack, &vma), 0);
	assert_int_equal(os->vma_find(&mm, vma.start - 1, &vma), 0);
	assert_int_equal(vma.prot, PROT_NONE); /* the guard page */
	os->mm_close(&mm);
	t.word = 2;
	os->wake((uint32_t *)&t.word);
	os->thread_join(t.thread);
}

static void *detached(void *arg)
{
	look_around(NULL);
	t.word = 7;
	os->wake((uint32_t *)&t.word);
	return NULL;
}

static void test_run_detached(void **state)
{
	t.word = 0;
	assert_int_equal(os->run_detached(detached, NULL), 0);
	while (t.word != 7)
		os->wait((uint32_t *)&t.word, 0, 0);
	assert_true(blocked(SIGSEGV) && blocked(SIGTERM));
}

/* ---- features and doing without ---- */

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
	const struct os_feature *features, *again;
	unsigned n = os_features(&features);

	assert_true(n >= 10);
	for (unsigned i = 0; i < n; i++) {
		assert_true(strlen(features[i].gives) > 10 && strlen(features[i].costs) > 10);
		assert_true(features[i].err <= 0 && features[i].err != -ECANCELED);
	}
	assert_int_equal(os_features(&again), n);
	assert_ptr_equal(again, features);
	assert_int_equal(feature("userfaultfd"), 0); /* or the tests above had failed */
	assert_int_equal(feature("wp_async"), 0);
	assert_int_equal(feature("pagemap_scan"), 0);
	assert_false(os_without("perf"));
}

static void without_userfaultfd(void)
{
	struct os_ctx ctx = { 0 };

	NEED(os->ctx_open(&ctx) == -ENOSYS);
	NEED(feature("userfaultfd") == -ECANCELED && feature("perf") != -ECANCELED);
	NEED(os_without("userfaultfd") && !os_without("user") && !os_without("faultfd"));
}

static void without_wp_async(void)
{
	struct os_ctx ctx = { 0 };

	NEED(os->ctx_open(&ctx) == -EOPNOTSUPP);
}

static void without_privilege_names(void)
{
	struct os_ctx ctx = { 0 };

	NEED(!os->ctx_open(&ctx) && !ctx.fork && ctx.user_only);
	NEED(feature("event_fork") == -ECANCELED && feature("kernel_faults") == -ECANCELED);
	NEED(os->perf_open(&r.perf) == -EACCES);
	os->ctx_close(&ctx);
}

static const struct itself table[] = {
	{ "userfaultfd", without_userfaultfd },
	{ "wp_async", without_wp_async },
	{ "privileges", without_privilege_names },
	{ NULL, NULL },
};

static void test_without(void **state)
{
	assert_int_equal(in_itself("userfaultfd", "userfaultfd"), 0);
	assert_int_equal(in_itself("x, wp_async", "wp_async"), 0);
	assert_int_equal(in_itself("event_fork,kernel_faults,perf", "privileges"), 0);
}

/* A user with no privilege: a context that is enough for the notifier, or a clear no. */
static void nobody(void)
{
	struct os_ctx ctx = { 0 };
	int err;

	NEED(!setresuid(65534, 65534, 65534));
	err = os->ctx_open(&ctx);
	NEED(err == -EPERM || (!err && !ctx.fork));
	NEED(err || os->ctx_probe(&ctx) == 0);
	NEED(feature("event_fork") == -EPERM);
	err = os->perf_open(&r.perf);
	NEED(!err || err == -EACCES || err == -EPERM);
}

static void test_unprivileged(void **state)
{
	assert_int_equal(in_child(nobody), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_context_identity),
		cmocka_unit_test(test_register),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_probe_pending),
		cmocka_unit_test(test_kick),
		cmocka_unit_test(test_closefrom),
		cmocka_unit_test(test_made_blocking),
		cmocka_unit_test(test_perf_threads),
		cmocka_unit_test(test_perf_overflow),
		cmocka_unit_test(test_perf_close_elsewhere),
		cmocka_unit_test(test_perf_descriptors),
		cmocka_unit_test(test_token),
		cmocka_unit_test(test_thread),
		cmocka_unit_test(test_thread_stack_and_wake),
		cmocka_unit_test(test_run_detached),
		cmocka_unit_test(test_unprivileged),
		cmocka_unit_test(test_features),
		cmocka_unit_test(test_without),
	};

	alarm(60);
	os = os_live();
	itself_run(argc, argv, table);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
