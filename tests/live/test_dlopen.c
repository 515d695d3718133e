/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_dlopen - the library comes and goes in a program that is not linked with it.
 *
 * It stays loaded after dlclose(): its signal and atfork handlers may stand in chains of
 * others. So faults, forks and a second dlopen() after it must all be safe.
 *
 *	test_dlopen PATH-OF-LIBUHMM
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/hmm.h>

#include "live.h"

struct entry {
	void *library;
	int (*open)(struct hmm **hmm);
	void (*put)(struct hmm *hmm);
	int (*insert)(struct hmm *hmm, uintptr_t start, size_t length,
		      const struct hmm_notifier_ops *ops, void *priv,
		      struct hmm_notifier **n);
	void (*remove)(struct hmm_notifier *n);
	int (*begin)(struct hmm_range *range);
	int (*fault)(struct hmm_range *range);
	int (*fence)(struct hmm *hmm, uintptr_t start, size_t length);
};

static void *find(struct entry *e, const char *name)
{
	return e->library ? dlsym(e->library, name) : NULL;
}

/* dlsym's void pointer becomes a function's, as POSIX has it. */
#define FIND(e, member, name) (*(void **)&(e)->member = find(e, name))

static bool load(struct entry *e, const char *path)
{
	e->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	return FIND(e, open, "hmm_open") && FIND(e, put, "hmm_put") &&
	       FIND(e, insert, "hmm_notifier_insert") &&
	       FIND(e, remove, "hmm_notifier_remove") &&
	       FIND(e, begin, "hmm_notifier_read_begin") &&
	       FIND(e, fault, "hmm_range_fault") && FIND(e, fence, "hmm_fence");
}

static void invalidate(void *priv, const struct hmm_event *event)
{
	++*(volatile unsigned *)priv;
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
					     .invalidate = invalidate };

static enum verdict use(struct entry *e)
{
	uint64_t pfn = 0;
	struct hmm_range range = { .size = sizeof(range),
				   .pfns = &pfn,
				   .default_flags = HMM_PFN_REQ_FAULT };
	volatile unsigned told = 0;
	char *at = live_map(4096, PROT_READ | PROT_WRITE);

	CHECK(!e->open(&range.hmm), "hmm_open");
	CHECK(!e->insert(range.hmm, 0, UINTPTR_MAX, &ops, (void *)&told, &range.notifier),
	      "insert");
	range.start = (uintptr_t)at;
	range.end = range.start + 4096;
	CHECK(!e->begin(&range) && !e->fault(&range), "fault");
	CHECK(!munmap(at, 4096), "munmap");
	CHECK(!e->fence(range.hmm, range.start, 4096), "fence");
	CHECK(told, "the notifier was not told");
	e->remove(range.notifier);
	e->put(range.hmm);
	return PASS;
}

static enum verdict come_and_go(const void *path)
{
	for (int i = 0; i < 20; i++) {
		struct entry e = { 0 };
		pid_t pid;

		CHECK(load(&e, path), "dlopen: %s", dlerror());
		TRY(use(&e));
		CHECK(!dlclose(e.library), "dlclose: %s", dlerror());
		pid = fork();
		if (!pid)
			_exit(0);
		CHECK(!live_wait(pid, 10), "a fork after dlclose");
	}
	return PASS;
}

int main(int argc, char **argv)
{
	struct live_case c = { .name = "come and go", .run = come_and_go };

	if (argc < 2) {
		fprintf(stderr, "usage: %s PATH-OF-LIBUHMM\n", argv[0]);
		return 2;
	}
	c.arg = argv[1];
	return live_main(1, argv, &c, 1);
}
