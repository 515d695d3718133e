/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_fallback - what is missing is said, with the cure; what can be done without is.
 *
 * UHMM_OS_WITHOUT turns features off. That everything works without perf,
 * PROCMAP_QUERY, process_vm_readv and EVENT_FORK, and as an unprivileged user, is
 * tested by running test_table again so (meson.build). Here is what cannot be
 * replaced, and the sentences.
 */
#include <errno.h>
#include <pthread.h>
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

/* A sentence that helps names one of these. */
static bool names_a_cure(const char *text)
{
	static const char *const cures[] = { "uhmm feature", "seccomp", "userfaultfd",
					     "kernel",	     "ulimit",	"UHMM_OS_WITHOUT" };

	for (size_t i = 0; i < sizeof(cures) / sizeof(cures[0]); i++)
		if (strstr(text, cures[i]))
			return true;
	return false;
}

static enum verdict refused(const char *without, int want1, int want2)
{
	struct hmm *hmm = (struct hmm *)&hmm, *before = hmm;
	struct device dev;
	int err;

	setenv("UHMM_OS_WITHOUT", without, 1);
	err = hmm_open(&hmm);
	CHECK(err == want1 || err == want2, "hmm_open without %s: %d (%s)", without, err,
	      hmm_strerror(err));
	CHECK(names_a_cure(hmm_strerror(err)), "no cure in: %s", hmm_strerror(err));
	CHECK(hmm == before, "outputs are untouched on failure");
	for (unsigned d = 0; d < live_driver_count; d++)
		EXPECT(err, device_open(&live_drivers[d], &dev));
	return PASS;
}

static enum verdict without_userfaultfd(const void *arg)
{
	return refused("userfaultfd", -ENOSYS, -EPERM);
}

static enum verdict without_wp_async(const void *arg)
{
	return refused("wp_async", -EOPNOTSUPP, -EOPNOTSUPP);
}

static enum verdict without_descriptors(const void *arg)
{
	struct rlimit few = { 5, 5 };

	SYS(setrlimit(RLIMIT_NOFILE, &few));
	return refused("", -EMFILE, -EMFILE);
}

/* After a failure the process is as it was, and can try again. */
static enum verdict tried_again(const void *arg)
{
	struct rlimit before, few;
	struct device dev;
	struct hmm *hmm;

	SYS(getrlimit(RLIMIT_NOFILE, &before));
	for (unsigned n = 4; n < 24; n++) {
		few = before;
		few.rlim_cur = n;
		SYS(setrlimit(RLIMIT_NOFILE, &few));
		if (!hmm_open(&hmm))
			hmm_put(hmm);
	}
	SYS(setrlimit(RLIMIT_NOFILE, &before));
	for (unsigned d = 0; d < live_driver_count; d++) {
		char *at = live_map(PAGE, RW);

		EXPECT(0, device_open(&live_drivers[d], &dev));
		at[0] = 6;
		EXPECT(6, device_byte(&dev, at));
		device_close(&dev);
	}
	return PASS;
}

/* What perf is for, without it: a change of permission is seen at the fence. */
static enum verdict permission_without(const void *arg)
{
	char *at = live_map(4 * PAGE, RW), byte = 1;

	setenv("UHMM_OS_WITHOUT", arg, 1);
	for (unsigned d = 0; d < live_driver_count; d++) {
		struct device dev;

		EXPECT(0, device_open(&live_drivers[d], &dev));
		for (int i = 0; i < 200; i++) {
			EXPECT(0, device_write(&dev, at + PAGE, &byte, 1));
			SYS(mprotect(at + PAGE, PAGE, PROT_READ));
			EXPECT(-EPERM, device_write(&dev, at + PAGE, &byte, 1));
			EXPECT(1, device_byte(&dev, at + PAGE));
			SYS(mprotect(at + PAGE, PAGE, PROT_NONE));
			EXPECT(-EFAULT, device_byte(&dev, at + PAGE));
			SYS(mprotect(at + PAGE, PAGE, RW));
		}
		device_close(&dev);
	}
	return PASS;
}

/* Every errno of the interface has a sentence of its own. */
static enum verdict sentences(const void *arg)
{
	static const int errs[] = { EPERM,  ENOSYS, EOPNOTSUPP, EINVAL,	   EFAULT,
				    EBUSY,  ENODEV, EDEADLK,	ENOMEM,	   EMFILE,
				    EAGAIN, ESRCH,  EACCES,	EOVERFLOW, E2BIG };

	for (size_t i = 0; i < sizeof(errs) / sizeof(errs[0]); i++) {
		char text[300];

		snprintf(text, sizeof(text), "%s", hmm_strerror(errs[i]));
		CHECK(strlen(text) > 15, "%d: %s", errs[i], text);
		CHECK(!strcmp(text, hmm_strerror(-errs[i])), "%d and -%d differ", errs[i],
		      errs[i]);
		CHECK(strcmp(text, strerror(errs[i])), "%d: only libc's words: %s", errs[i],
		      text);
	}
	CHECK(hmm_strerror(0) && hmm_strerror(-12345) && hmm_strerror(12345), "no text");
	return PASS;
}

/* A failing call leaves its own sentence, in its own thread. */
static void *elsewhere(void *arg)
{
	return strstr(hmm_strerror(-EOVERFLOW), "0x") ? arg : NULL;
}

static enum verdict left_sentence(const void *arg)
{
	char *at = live_map(2 * PAGE, RW);
	struct device dev;
	pthread_t thread;
	void *wrong;

	EXPECT(0, device_open(&live_drivers[0], &dev));
	SYS(munmap(at + PAGE,
		   PAGE)); /* not before: the library's mappings would fit there */
	EXPECT(-EFAULT, device_byte(&dev, at + PAGE));
	CHECK(strstr(hmm_strerror(-EFAULT), "no mapping"), "%s", hmm_strerror(-EFAULT));
	SYS(mprotect(at, PAGE, PROT_READ));
	EXPECT(-EPERM, device_write(&dev, at, "x", 1));
	CHECK(strstr(hmm_strerror(-EPERM), "read-only"), "%s", hmm_strerror(-EPERM));
	CHECK(!pthread_create(&thread, NULL, elsewhere, &dev), "no thread");
	pthread_join(thread, &wrong);
	CHECK(!wrong, "another thread got our sentence");
	device_close(&dev);
	return PASS;
}

int main(int argc, char **argv)
{
	static const struct live_case cases[] = {
		{ .name = "without userfaultfd", .run = without_userfaultfd },
		{ .name = "without wp_async", .run = without_wp_async },
		{ .name = "without descriptors", .run = without_descriptors },
		{ .name = "tried again", .run = tried_again },
		{ .name = "permission without perf",
		  .run = permission_without,
		  .arg = "perf" },
		{ .name = "permission without perf, procmap_query",
		  .run = permission_without,
		  .arg = "perf,procmap_query" },
		{ .name = "sentences", .run = sentences },
		{ .name = "left sentence", .run = left_sentence },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
