/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * limits_fork - children, and descriptors that the program takes away.
 *
 * A child has copies of our descriptors and of our memory, and none of our threads. A
 * probe through a copy would look at the parent's memory and say "quiet"
 * (probes: child_fd_probes_parent), so every call must say -ENODEV before it asks.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "limits.h"

struct told {
	atomic_uint invalidated, released;
};

static void on_invalidate(void *priv, const struct hmm_event *event)
{
	((struct told *)priv)->invalidated++;
}

static void on_release(void *priv)
{
	((struct told *)priv)->released++;
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
					     .invalidate = on_invalidate,
					     .release = on_release };

struct inherited {
	const struct driver *driver;
	struct device dev;
	struct hmm_notifier *notifier;
	struct told told;
	char *at;
};

static int never(const struct hmm_range *range, void *arg)
{
	return 0;
}

static int no_run(const struct hmm_run *run, void *arg)
{
	return 0;
}

/* Every call that takes a handle. */
static enum verdict all_dead(struct inherited *in)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct hmm *hmm = in->dev.hmm;
	uintptr_t start = (uintptr_t)in->at;
	struct hmm_notifier *notifier;
	uint64_t pfn = 0, value;
	struct hmm_range range = { .size = sizeof(range),
				   .hmm = hmm,
				   .notifier = in->notifier,
				   .start = start,
				   .end = start + LPAGE,
				   .pfns = &pfn,
				   .default_flags = HMM_PFN_REQ_FAULT };

	EXPECT(-ENODEV, hmm_fence(hmm, start, LPAGE));
	CHECK(strstr(hmm_strerror(-ENODEV), "hmm_open"), "no cure in: %s",
	      hmm_strerror(-ENODEV));
	EXPECT(-ENODEV, hmm_notifier_insert(hmm, start, LPAGE, &ops, &in->told, &notifier));
	EXPECT(-ENODEV, hmm_notifier_fence(in->notifier));
	EXPECT(-ENODEV, hmm_notifier_read_begin(&range));
	EXPECT(-ENODEV, hmm_range_fault(&range));
	EXPECT(-ENODEV, hmm_range_program(&range, 0, &lock, never, NULL));
	EXPECT(-ENODEV, hmm_range_snapshot(&range));
	EXPECT(-ENODEV, hmm_snapshot_runs(hmm, 0, UINTPTR_MAX, 0, no_run, NULL));
	EXPECT(-ENODEV, hmm_copy_from(hmm, &value, start, sizeof(value)));
	EXPECT(-ENODEV, hmm_copy_to(hmm, start, &value, sizeof(value)));
	EXPECT(-ENODEV, hmm_access_begin(hmm));
	EXPECT(-ENODEV, hmm_access_add(hmm, start, 8, 1, NULL));
	EXPECT(-ENODEV, hmm_access_cas(hmm, start, 8, 1, 2, NULL));
	EXPECT(-ENODEV, hmm_try_fence(hmm, start, 8));
	EXPECT(-ENODEV, device_byte(&in->dev, in->at));
	return PASS;
}

/* In the child: the parent's handles are dead, its own work, and nothing hangs. */
static enum verdict in_child(void *arg)
{
	struct inherited *in = arg;
	struct device own;

	TRY(all_dead(in));
	hmm_notifier_remove(in->notifier);
	for (int i = 0; i < 4; i++)
		EXPECT(i + 1, in->at[i * LPAGE]);
	/* Nobody reads messages for the parent's contexts here. */
	SYS(munmap(in->at + 3 * LPAGE, LPAGE));
	EXPECT(0, device_open(in->driver, &own));
	EXPECT(3, device_byte(&own, in->at + 2 * LPAGE));
	EXPECT(-EFAULT, device_byte(&own, in->at + 3 * LPAGE));
	SYS(munmap(in->at + 2 * LPAGE, LPAGE));
	EXPECT(-EFAULT, device_byte(&own, in->at + 2 * LPAGE));
	device_close(&own);
	hmm_put(in->dev.hmm);
	return PASS;
}

static enum verdict begin(struct inherited *in, const struct driver *driver)
{
	memset(in, 0, sizeof(*in));
	in->driver = driver;
	in->at = live_map(4 * LPAGE, LRW);
	TRY(warm_pages(driver, &in->dev, in->at, 4));
	EXPECT(0, hmm_notifier_insert(in->dev.hmm, (uintptr_t)in->at, 4 * LPAGE, &ops,
				      &in->told, &in->notifier));
	return PASS;
}

static enum verdict end(struct inherited *in)
{
	for (int i = 0; i < 4; i++)
		EXPECT(i + 1, device_byte(&in->dev, in->at + i * LPAGE));
	SYS(munmap(in->at, LPAGE));
	EXPECT(-EFAULT, device_byte(&in->dev, in->at));
	EXPECT(0, in->told.released);
	hmm_notifier_remove(in->notifier);
	device_close(&in->dev);
	return PASS;
}

enum verdict limit_fork(const struct driver *driver)
{
	struct inherited in;

	TRY(begin(&in, driver));
	for (int i = 0; i < 10; i++)
		TRY(live_child(in_child, &in, 10));
	return end(&in);
}

/* No atfork handler hears of it. */
enum verdict limit_raw_clone(const struct driver *driver)
{
	struct inherited in;

	TRY(begin(&in, driver));
	for (int i = 0; i < 10; i++) {
		live_child_prepare();
		TRY(live_child_of((pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0), in_child,
				  &in, 10));
	}
	return end(&in);
}

/*
 * A child keeps its copies of the descriptors while the parent ends its mirror: what was
 * registered must be plain by then, or the parent's munmap waits for ever
 * (probes: inherited_uffd_hangs_munmap).
 */
enum verdict limit_child_lives_on(const struct driver *driver)
{
	struct inherited in;
	pid_t pids[2];

	TRY(begin(&in, driver));
	pids[0] = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pids[0])
		for (;;)
			pause();
	pids[1] = fork();
	if (!pids[1])
		for (;;)
			pause();
	hmm_notifier_remove(in.notifier);
	device_close(&in.dev);
	SYS(munmap(in.at, 2 * LPAGE));
	SYS(madvise(in.at + 2 * LPAGE, LPAGE, MADV_DONTNEED));
	TRY(begin(&in, driver));
	TRY(end(&in));
	for (int i = 0; i < 2; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	return PASS;
}

/* Dead within 3 s: a fence finds out at once, but for a number that is a userfaultfd. */
static enum verdict dies(struct inherited *in)
{
	uint64_t begun = live_now_ns();

	while (hmm_fence(in->dev.hmm, (uintptr_t)in->at, 4 * LPAGE) != -ENODEV) {
		CHECK(live_now_ns() - begun < UINT64_C(3000000000),
		      "the descriptors are gone, and the fence still says 0");
		usleep(1000);
	}
	CHECK(strstr(hmm_strerror(-ENODEV), "hmm_open"), "no cure in: %s",
	      hmm_strerror(-ENODEV));
	while (!in->told.released) {
		CHECK(live_now_ns() - begun < UINT64_C(4000000000),
		      "release is never told");
		usleep(1000);
	}
	CHECK(in->told.invalidated, "released without an invalidate of everything before");
	EXPECT(1, in->told.released);
	EXPECT(-ENODEV, device_byte(&in->dev, in->at));
	return PASS;
}

/* The program goes on, and can have a new mirror beside and after the old one. */
static enum verdict goes_on(struct inherited *in)
{
	struct inherited again;

	SYS(munmap(in->at + 3 * LPAGE, LPAGE));
	SYS(madvise(in->at + 2 * LPAGE, LPAGE, MADV_DONTNEED));
	EXPECT(1, in->at[0]);
	hmm_notifier_remove(in->notifier);
	device_close(&in->dev);
	SYS(munmap(in->at + 2 * LPAGE, LPAGE));
	TRY(begin(&again, in->driver));
	EXPECT(1, device_byte(&again.dev, in->at));
	return end(&again);
}

enum verdict limit_closefrom(const struct driver *driver)
{
	struct inherited in;

	TRY(begin(&in, driver));
	SYS(syscall(SYS_close_range, 3, ~0u, 0));
	TRY(dies(&in));
	return goes_on(&in);
}

enum verdict limit_numbers_reused(const struct driver *driver)
{
	struct inherited in;
	int limit = (int)sysconf(_SC_OPEN_MAX), used[2000], n = 0, uffd;

	TRY(begin(&in, driver));
	for (int fd = 3; fd < limit && n < 2000; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			used[n++] = fd;
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | 1);
	SYS(uffd);
	for (int i = 0; i < n; i++)
		SYS(dup2(uffd, used[i]));
	TRY(dies(&in));
	TRY(goes_on(&in));
	/* The numbers are the program's now: nobody has closed them. */
	for (int i = 0; i < n; i++)
		CHECK(fcntl(used[i], F_GETFD) >= 0, "descriptor %d was the program's own",
		      used[i]);
	return PASS;
}
