/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_home - one mirror a process, and none in a forked child. On the running kernel,
 * but for the mirror that ends inside its own callback.
 */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER
#endif
#endif

#define RW (PROT_READ | PROT_WRITE)

static struct device device;

/* NULL: this machine cannot run a mirror, and the test is skipped. */
static struct hmm *open_or_skip(void)
{
	struct hmm *hmm = NULL;
	int err = hmm_open(&hmm);

	if (err == -EPERM || err == -ENOSYS || err == -EOPNOTSUPP) {
		print_message("skipped: %s\n", hmm_strerror(err));
		skip();
	}
	assert_int_equal(err, 0);
	return hmm;
}

static void nothing(void *priv, const struct hmm_event *event)
{
	if (priv)
		++*(_Atomic unsigned *)priv;
}

static const struct hmm_notifier_ops ops = { sizeof(ops), nothing, NULL };

static void opened_twice_is_the_same(void **state)
{
	struct hmm *a = open_or_skip(), *b = NULL;

	assert_int_equal(hmm_open(&b), 0);
	assert_ptr_equal(a, b);
	assert_ptr_equal(hmm_get(a), a);
	assert_null(hmm_get(NULL));
	hmm_put(a);
	hmm_put(a);
	assert_int_equal(hmm_fence(b, 0, PAGE), 0);
	hmm_put(b);
	hmm_put(NULL);
	assert_int_equal(hmm_open(NULL), -EINVAL);
}

/* The same page is mirrored by each in turn: nothing of the one before is left. */
static void open_put_open(void **state)
{
	char *page = mmap(NULL, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(page, MAP_FAILED);
	for (unsigned i = 0; i < 5; i++) {
		uint64_t pfn = 0;
		struct hmm_range range = { .size = sizeof(range), .start = (uintptr_t)page,
					   .end = (uintptr_t)page + PAGE, .pfns = &pfn,
					   .default_flags = HMM_PFN_REQ_FAULT |
							    HMM_PFN_REQ_WRITE };
		_Atomic unsigned told = 0;

		range.hmm = open_or_skip();
		assert_int_equal(hmm_notifier_insert(range.hmm, range.start, PAGE, &ops, &told,
						     &range.notifier), 0);
		assert_int_equal(hmm_notifier_read_begin(&range), 0);
		assert_int_equal(hmm_range_fault(&range), 0);
		assert_true(pfn & HMM_PFN_WRITE);
		assert_int_equal(madvise(page, PAGE, MADV_DONTNEED), 0);
		assert_int_equal(hmm_fence(range.hmm, range.start, 1), 0);
		assert_int_equal(told, 1);
		hmm_notifier_remove(range.notifier);
		hmm_put(range.hmm);
	}
	munmap(page, PAGE);
}

/* In the child: 0 all is well, else the number of what is not. */
static int child(struct hmm *parents, struct hmm_notifier *notifier)
{
	struct hmm *own = NULL;
	char byte = 0;
	struct hmm_notifier *n;

	if (hmm_fence(parents, 0, PAGE) != -ENODEV)
		return 1;
	if (!strstr(hmm_strerror(-ENODEV), "forked child"))
		return 2;
	if (hmm_notifier_fence(notifier) != -ENODEV)
		return 3;
	if (hmm_copy_from(parents, &byte, (uintptr_t)&byte, 1) != -ENODEV)
		return 4;
	if (hmm_notifier_insert(parents, 0, PAGE, &ops, NULL, &n) != -ENODEV)
		return 5;
	hmm_notifier_remove(notifier);
	hmm_put(parents);
	if (hmm_open(&own) || own == parents)
		return 6;
	if (hmm_fence(own, 0, UINTPTR_MAX) || hmm_fence(parents, 0, PAGE) != -ENODEV)
		return 7;
	if (hmm_copy_from(own, &byte, (uintptr_t)&own, 1))
		return 8;
	hmm_put(own);
	return 0;
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void forked(bool raw)
{
	struct hmm *hmm = open_or_skip();
	struct hmm_notifier *n;
	pid_t pid;

	assert_int_equal(hmm_notifier_insert(hmm, 0, UINTPTR_MAX, &ops, NULL, &n), 0);
	/* raw: a clone() that no atfork handler hears of */
	pid = raw ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
	if (!pid) {
		alarm(20);
		_exit(child(hmm, n));
	}
	assert_true(pid > 0);
	assert_int_equal(wait_for(pid), 0);
	/* The parent's is as it was. */
	assert_int_equal(hmm_fence(hmm, 0, UINTPTR_MAX), 0);
	hmm_notifier_remove(n);
	hmm_put(hmm);
}

static void child_of_fork(void **state)
{
	forked(false);
}

static void child_of_raw_clone(void **state)
{
#ifdef THREAD_SANITIZER
	print_message("skipped: ThreadSanitizer takes this child's memory for the parent's\n");
	skip();
#endif
	forked(true);
}

static void attached(void **state)
{
	struct hmm *hmm = NULL;
	struct hmm_notifier *n;
	static char secret[] = "read me";
	char copy[sizeof(secret)] = "";
	pid_t pid = fork();

	if (!pid) {
		pause();
		_exit(0);
	}
	assert_int_equal(hmm_attach(pid, &hmm), 0);
	assert_int_equal(hmm_copy_from(hmm, copy, (uintptr_t)secret, sizeof(secret)), 0);
	assert_string_equal(copy, secret);
	assert_int_equal(hmm_fence(hmm, 0, PAGE), -EOPNOTSUPP);
	assert_int_equal(hmm_notifier_insert(hmm, 0, PAGE, &ops, NULL, &n), -EOPNOTSUPP);
	hmm_put(hmm);
	kill(pid, SIGKILL);
	assert_int_equal(wait_for(pid), 1000 + SIGKILL);
	assert_int_equal(hmm_attach(pid, &hmm), -ESRCH);
	assert_int_equal(hmm_attach(0, &hmm), -EINVAL);
}

/* ---- on the fake ---- */

static void remove_and_put(struct device *d, const struct hmm_event *event)
{
	hmm_notifier_remove(d->notifier);
	hmm_put(d->hmm);
}

/* The worker drops the last reference: it cannot wait for its own end. */
static void ended_inside_a_callback(void **state)
{
	fake_reset();
	fake.threads = true;
	fake_open();
	fake_map(0, 4, FAKE_ANON, RW);
	device_open(&device, fake.hmm, 0, 4);
	assert_int_equal(device_fault(&device, 1, 1, true), 0);
	device.inside = remove_and_put;
	fake_dontneed(1, 1);
	for (unsigned i = 0; i < 1000 && !fake.detached_done; i++)
		usleep(1000);
	assert_true(fake.detached_done);
	assert_int_equal(device_told(&device), 1);
	assert_int_equal(fake_ctx_of(1), FAKE_NO_CTX);
	for (unsigned i = 0; i < CONTEXTS; i++)
		assert_false(fake.ctx[i].open);
	fake_reset();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opened_twice_is_the_same),
		cmocka_unit_test(open_put_open),
		cmocka_unit_test(child_of_fork),
		cmocka_unit_test(child_of_raw_clone),
		cmocka_unit_test(attached),
		cmocka_unit_test(ended_inside_a_callback),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
