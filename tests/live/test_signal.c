/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_signal - the program's own SIGSEGV and SIGBUS beside ours.
 *
 * The library's handlers stand in front of the program's, recover the accesses of
 * devices, and hand everything else on: handlers installed before and after, the
 * default action, masks, siginfo. Installed afterwards, the program's stands in front
 * until a device's access scope begins.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "devices.h"
#include "live.h"

#define PAGE ((size_t)4096)
#define RW (PROT_READ | PROT_WRITE)

static sigjmp_buf back;
static atomic_uint handled;
static void *_Atomic fault_addr;
static atomic_int fault_sig;

static void with_info(int sig, siginfo_t *info, void *context)
{
	handled++;
	fault_sig = sig;
	fault_addr = info->si_addr;
	siglongjmp(back, 1);
}

static void without_info(int sig)
{
	handled++;
	fault_sig = sig;
	siglongjmp(back, 1);
}

static void install(int sig, bool info)
{
	struct sigaction action = { .sa_flags = info ? SA_SIGINFO : 0 };

	if (info)
		action.sa_sigaction = with_info;
	else
		action.sa_handler = without_info;
	sigaction(sig, &action, NULL);
}

/* The program itself follows a bad pointer, and its own handler gets it. */
static enum verdict own_fault(char *bad, int sig, bool info)
{
	unsigned before = handled;

	fault_addr = NULL;
	if (!sigsetjmp(back, 1))
		*(volatile char *)bad = 1;
	EXPECT(before + 1, handled);
	EXPECT(sig, fault_sig);
	if (info)
		CHECK(fault_addr == bad, "si_addr %p, expected %p", fault_addr,
		      (void *)bad);
	return PASS;
}

/* A mapping of a file that ends before it. */
static char *past_end(void)
{
	int fd = memfd_create("uhmm-live", MFD_CLOEXEC);
	char *at = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0);

	close(fd);
	return at;
}

/* A device's access at a bad address is an error; the program hears nothing of it. */
static enum verdict scope(struct hmm *hmm, char *good, char *bad, char *cut)
{
	unsigned before = handled;
	uint64_t value = 0;

	EXPECT(0, hmm_access_begin(hmm));
	EXPECT(0, hmm_access_begin(hmm));
	EXPECT(0, hmm_copy_from(hmm, &value, (uintptr_t)good, sizeof(value)));
	EXPECT(-EFAULT, hmm_copy_from(hmm, &value, (uintptr_t)bad, sizeof(value)));
	EXPECT(-EFAULT, hmm_copy_to(hmm, (uintptr_t)bad, &value, sizeof(value)));
	EXPECT(-EFAULT, hmm_copy_from(hmm, &value, (uintptr_t)cut, sizeof(value)));
	hmm_access_end(hmm);
	EXPECT(-EFAULT, hmm_copy_from(hmm, good, (uintptr_t)bad - 100, 300));
	hmm_access_end(hmm);
	EXPECT(-EFAULT, hmm_copy_from(hmm, &value, (uintptr_t)bad, sizeof(value)));
	EXPECT(before, handled);
	return PASS;
}

struct when {
	bool before, info;
};

static enum verdict chained(const void *arg)
{
	const struct when *when = arg;
	char *good = live_map(2 * PAGE, RW), *bad = good + PAGE, *cut = past_end();
	struct device dev;

	SYS(mprotect(bad, PAGE, PROT_NONE));
	if (when->before) {
		install(SIGSEGV, when->info);
		install(SIGBUS, when->info);
	}
	EXPECT(0, device_open(&live_drivers[1], &dev));
	if (!when->before) {
		install(SIGSEGV, when->info);
		install(SIGBUS, when->info);
	}
	TRY(own_fault(bad, SIGSEGV, when->info));
	TRY(own_fault(cut, SIGBUS, when->info));
	for (int i = 0; i < 20; i++) {
		TRY(scope(dev.hmm, good, bad, cut));
		EXPECT(-EFAULT, device_byte(&dev, bad));
		TRY(own_fault(bad, SIGSEGV, when->info));
		TRY(own_fault(cut, SIGBUS, when->info));
	}
	device_close(&dev);
	TRY(own_fault(bad, SIGSEGV, when->info));
	return PASS;
}

/* With no handler a crash is a crash, of the signal and at the place that it was. */
static void crash(int sig)
{
	char *bad = live_map(PAGE, PROT_NONE), *cut = past_end();
	struct rlimit none = { 0, 0 };
	struct device dev;
	uint64_t value;

	setrlimit(RLIMIT_CORE, &none);
	if (device_open(&live_drivers[1], &dev) || device_byte(&dev, bad) != -EFAULT)
		_exit(1);
	if (hmm_access_begin(dev.hmm) ||
	    hmm_copy_from(dev.hmm, &value, (uintptr_t)bad, 8) != -EFAULT)
		_exit(2);
	hmm_access_end(dev.hmm);
	*(volatile char *)(sig == SIGBUS ? cut : bad) = 1;
	_exit(3);
}

static enum verdict crashes(const void *arg)
{
	static const int sigs[] = { SIGSEGV, SIGBUS };

	for (int i = 0; i < 2; i++) {
		pid_t pid = fork();

		if (!pid)
			crash(sigs[i]);
		EXPECT(sigs[i], live_wait(pid, 10) & 0x7f);
	}
	return PASS;
}

/* A signal that is sent is not a fault: the program's handler gets it. */
static enum verdict sent(const void *arg)
{
	struct device dev;

	install(SIGSEGV, true);
	EXPECT(0, device_open(&live_drivers[0], &dev));
	EXPECT(0, hmm_access_begin(dev.hmm));
	if (!sigsetjmp(back, 1))
		raise(SIGSEGV);
	EXPECT(1, handled);
	hmm_access_end(dev.hmm);
	device_close(&dev);
	return PASS;
}

/* A scope unblocks both signals, and puts the mask back. */
static enum verdict masked(const void *arg)
{
	char *bad = live_map(PAGE, PROT_NONE);
	sigset_t faults, now;
	struct device dev;
	uint64_t value;

	sigemptyset(&faults);
	sigaddset(&faults, SIGSEGV);
	sigaddset(&faults, SIGBUS);
	sigaddset(&faults, SIGUSR1);
	EXPECT(0, device_open(&live_drivers[0], &dev));
	pthread_sigmask(SIG_BLOCK, &faults, NULL);
	EXPECT(0, hmm_access_begin(dev.hmm));
	EXPECT(-EFAULT, hmm_copy_from(dev.hmm, &value, (uintptr_t)bad, 8));
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	CHECK(sigismember(&now, SIGUSR1), "another signal was unblocked");
	hmm_access_end(dev.hmm);
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	CHECK(sigismember(&now, SIGSEGV) && sigismember(&now, SIGBUS),
	      "the mask is not back");
	/* Blocked, and outside a scope. */
	EXPECT(-EFAULT, hmm_copy_from(dev.hmm, &value, (uintptr_t)bad, 8));
	device_close(&dev);
	return PASS;
}

struct adder {
	struct hmm *hmm;
	uint64_t *sum;
	int err;
};

static void *add_main(void *arg)
{
	struct adder *a = arg;

	a->err = hmm_access_begin(a->hmm);
	for (int i = 0; i < 100000 && !a->err; i++)
		a->err = hmm_access_add(a->hmm, (uintptr_t)a->sum, 8, 1, NULL);
	hmm_access_end(a->hmm);
	return NULL;
}

/* The device's atomics and the CPU's on one word: none is lost. */
static enum verdict atomics(const void *arg)
{
	uint64_t *sum = (uint64_t *)live_map(2 * PAGE, RW), old = 0;
	char *bad = (char *)sum + PAGE;
	struct adder a = { .sum = sum };
	struct device dev;
	pthread_t thread;

	SYS(mprotect(bad, PAGE, PROT_NONE));
	EXPECT(0, device_open(&live_drivers[0], &dev));
	EXPECT(-EINVAL, hmm_access_add(dev.hmm, (uintptr_t)sum, 8, 1, NULL));
	a.hmm = dev.hmm;
	CHECK(!pthread_create(&thread, NULL, add_main, &a), "no thread");
	for (int i = 0; i < 100000; i++)
		__atomic_fetch_add(sum, 1, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	if (a.err == -EOPNOTSUPP)
		return live_skip("no recoverable atomics on this architecture");
	EXPECT(0, a.err);
	EXPECT(200000, *sum);
	EXPECT(0, hmm_access_begin(dev.hmm));
	EXPECT(0, hmm_access_add(dev.hmm, (uintptr_t)sum, 4, 5, &old));
	EXPECT(200000, old);
	EXPECT(-EINVAL, hmm_access_add(dev.hmm, (uintptr_t)sum + 4, 8, 1, NULL));
	EXPECT(-EINVAL, hmm_access_add(dev.hmm, (uintptr_t)sum, 2, 1, NULL));
	EXPECT(-EFAULT, hmm_access_add(dev.hmm, (uintptr_t)bad, 8, 1, &old));
	EXPECT(200000, old);
	hmm_access_end(dev.hmm);
	device_close(&dev);
	return PASS;
}

/*
 * Two of the program's, one before us that leaves by siglongjmp and one in front of us that
 * hands down what it replaced: each fault has its frame where the last one had it.
 */
static struct sigaction replaced;

static void hand_down(int sig, siginfo_t *info, void *context)
{
	replaced.sa_sigaction(sig, info, context);
	handled = 0; /* never reached: a call, and no jump that leaves no frame of ours */
}

static enum verdict jumps_again(const void *arg)
{
	struct sigaction action = { .sa_sigaction = hand_down, .sa_flags = SA_SIGINFO };
	char *bad = live_map(PAGE, PROT_NONE);
	volatile unsigned i;
	struct hmm *hmm;

	install(SIGSEGV, true);
	EXPECT(0, hmm_open(&hmm));
	SYS(sigaction(SIGSEGV, &action, &replaced));
	for (i = 0; i < 5; i++)
		if (!sigsetjmp(back, 1))
			*(volatile char *)bad = 1;
	EXPECT(5, handled);
	hmm_put(hmm);
	return PASS;
}

int main(int argc, char **argv)
{
	static const struct when whens[] = {
		{ true, true }, { true, false }, { false, true }, { false, false }
	};
	static const struct live_case cases[] = {
		{ .name = "handler before, siginfo", .run = chained, .arg = &whens[0] },
		{ .name = "handler before, plain", .run = chained, .arg = &whens[1] },
		{ .name = "handler after, siginfo", .run = chained, .arg = &whens[2] },
		{ .name = "handler after, plain", .run = chained, .arg = &whens[3] },
		{ .name = "default action", .run = crashes },
		{ .name = "sent", .run = sent },
		{ .name = "masked", .run = masked },
		{ .name = "atomics", .run = atomics },
		{ .name = "jumps again", .run = jumps_again },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
