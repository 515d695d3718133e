/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_fabricmon - the import by the real libfabric; the operations by a fake one, because
 * no provider uses its cache without hardware.
 */
#include <dlfcn.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fabric.h"

#define KEPT 1024u

pthread_mutex_t mm_lock = PTHREAD_MUTEX_INITIALIZER;
atomic_int waiting;
atomic_uint told;

/* What is cached, protected by the lock. */
static uintptr_t kept[KEPT];
static unsigned kept_count;

static void notify(struct fid_mem_monitor *monitor, const void *addr, size_t length)
{
	uintptr_t start = (uintptr_t)addr;

	atomic_fetch_add(&waiting, 1);
	pthread_mutex_lock(&mm_lock);
	for (unsigned i = 0; i < kept_count; i++)
		if (kept[i] < start + length && start < kept[i] + SIZE)
			kept[i--] = kept[--kept_count];
	pthread_mutex_unlock(&mm_lock);
	atomic_fetch_sub(&waiting, 1);
	atomic_fetch_add(&told, 1);
}

enum verdict fabric_start(void)
{
	static struct fi_ops_mem_notify import = { .size = sizeof(import),
						   .notify = notify };
	struct fid_mem_monitor *m = fabricmon_monitor();

	m->import_ops = &import;
	EXPECT(0, m->export_ops->start(m));
	return PASS;
}

int fabric_subscribe(const void *addr, size_t length)
{
	struct fid_mem_monitor *m = fabricmon_monitor();
	int err = -EAGAIN;

	pthread_mutex_lock(&mm_lock);
	/* On a machine that is busy enough the watcher does not run in time; a cache goes on. */
	for (unsigned tries = 0; tries < 20 && err == -EAGAIN; tries++)
		err = m->export_ops->subscribe(m, addr, length);
	if (!err && kept_count < KEPT)
		kept[kept_count++] = (uintptr_t)addr;
	pthread_mutex_unlock(&mm_lock);
	return err;
}

static bool find(const void *addr)
{
	for (unsigned i = 0; i < kept_count; i++)
		if (kept[i] == (uintptr_t)addr)
			return true;
	return false;
}

bool fabric_kept(const void *addr)
{
	bool found;

	pthread_mutex_lock(&mm_lock);
	found = find(addr);
	pthread_mutex_unlock(&mm_lock);
	return found;
}

/* As a cache looks up: there, and valid, in one holding of the lock. */
bool fabric_valid(const void *addr, size_t length)
{
	struct fid_mem_monitor *m = fabricmon_monitor();
	bool valid;

	pthread_mutex_lock(&mm_lock);
	valid = find(addr) && m->export_ops->valid(m, addr, length);
	if (!valid) /* as the cache does: it goes, and is registered anew */
		for (unsigned i = 0; i < kept_count; i++)
			if (kept[i] == (uintptr_t)addr)
				kept[i--] = kept[--kept_count];
	pthread_mutex_unlock(&mm_lock);
	return valid;
}

/* ---- the real libfabric ---- */

static enum verdict import(const void *arg)
{
	struct fid_mem_monitor theirs = { .fid = { .fclass = FI_CLASS_MEM_MONITOR },
					  .export_ops = fabricmon_monitor()->export_ops };
	int (*open)(uint32_t, const char *, void *, size_t, uint64_t, struct fid **,
		    void *);
	int (*getinfo)(uint32_t, const char *, const char *, uint64_t,
		       const struct fi_info *, struct fi_info **);
	void *library = dlopen("libfabric.so.1", RTLD_LAZY);
	struct fi_info *info;
	struct fid *cache;

	if (!library)
		return live_skip("%s", dlerror());
	*(void **)&open = dlsym(library, "fi_open");
	*(void **)&getinfo = dlsym(library, "fi_getinfo");
	EXPECT(0, fabricmon_install());
	/* What a program does first. Before it the monitors are not initialised, ours is no
	 * more. */
	getinfo(FI_VERSION(1, 13), NULL, NULL, 0, NULL, &info);
	CHECK(fabricmon_monitor()->import_ops && fabricmon_monitor()->import_ops->notify,
	      "libfabric gave no notify");
	EXPECT(-EBUSY, fabricmon_install());
	EXPECT(0, open(FI_VERSION(1, 13), "mr_cache", NULL, 0, 0, &cache, NULL));
	EXPECT(-EBUSY, fi_import_fid(cache, &theirs.fid, 0));
	EXPECT(0, fabricmon_remove());
	EXPECT(-ENOENT, fabricmon_remove());
	/* Ours was the one in the way. */
	EXPECT(0, fi_import_fid(cache, &theirs.fid, 0));
	EXPECT(-EBUSY, fabricmon_install());
	EXPECT(0, fi_close(&theirs.fid));
	EXPECT(0, fabricmon_install());
	/* The real notify, told of a range that no cache has: it takes its locks and
	 * returns. */
	EXPECT(0, fabricmon_monitor()->export_ops->start(fabricmon_monitor()));
	EXPECT(-EBUSY, fabricmon_remove());
	for (int i = 0; i < 100; i++) {
		struct fabricmon_stats stats = { .size = sizeof(stats) };
		char *memory = live_map(SIZE, RW);
		uint64_t before;

		EXPECT(0, fabricmon_get_stats(&stats));
		before = stats.notified;
		EXPECT(0, fabricmon_monitor()->export_ops->subscribe(fabricmon_monitor(),
								     memory, SIZE));
		SYS(munmap(memory, SIZE));
		while (stats.notified == before)
			EXPECT(0, fabricmon_get_stats(&stats));
	}
	fabricmon_monitor()->export_ops->stop(fabricmon_monitor());
	EXPECT(0, fabricmon_remove());
	return PASS;
}

/* By LD_PRELOAD, or linked: asked for before main(). */
static enum verdict by_environment(const void *arg)
{
	if (!getenv("UHMM_FABRICMON"))
		return live_skip("UHMM_FABRICMON is not set");
	EXPECT(-EBUSY, fabricmon_install());
	EXPECT(0, fabricmon_remove());
	return PASS;
}

/* ---- the contract ---- */

static enum verdict refused(const void *arg)
{
	char *memory = live_map(SIZE, RW);
	struct fabricmon_stats stats = { .size = sizeof(stats) };

	TRY(fabric_start());
	EXPECT(0, fabric_subscribe(memory, SIZE));
	EXPECT(0, fabric_subscribe(memory + 100, 1));
	SYS(mprotect(memory + 4096, 4096, PROT_NONE));
	EXPECT(-EOPNOTSUPP, fabric_subscribe(memory, SIZE));
	SYS(munmap(memory, SIZE));
	EXPECT(-EOPNOTSUPP, fabric_subscribe(memory, SIZE));
	EXPECT(-EOVERFLOW, fabric_subscribe(memory, SIZE_MAX));
	EXPECT(0, fabricmon_get_stats(&stats));
	EXPECT(2, stats.subscribed);
	EXPECT(3, stats.refused);
	stats.size++;
	EXPECT(-E2BIG, fabricmon_get_stats(&stats));
	fabricmon_monitor()->export_ops->stop(fabricmon_monitor());
	return PASS;
}

/* To and fro, one a round: back at once it would be no change, and only perf would see it. */
static int protection(char *at)
{
	static bool read_only;

	read_only = !read_only;
	return mprotect(at, SIZE, read_only ? PROT_READ : RW);
}

static const struct change {
	const char *name;
	int (*change)(char *at);
	unsigned rounds;
} changes[] = {
	{ "raw munmap and mmap", raw_munmap, 40000 },
	{ "MAP_FIXED over it", raw_fixed, 20000 },
	{ "madvise(DONTNEED)", raw_dontneed, 20000 },
	{ "mremap away", raw_mremap, 10000 },
	{ "mprotect, to and fro", protection, 10000 },
};

static enum verdict changed(const void *arg)
{
	const struct change *c = arg;
	char *memory = live_map(SIZE, RW);

	TRY(fabric_start());
	memset(memory, 1, SIZE);
	for (unsigned i = 0; i < c->rounds; i++) {
		uint64_t began = live_now_ns();

		/* What is told late of the round before takes an entry away; but once
		 * it is told the entry stays, or a cache that keeps nothing passes. */
		EXPECT(0, fabric_subscribe(memory, SIZE));
		while (!fabric_valid(memory, SIZE)) {
			CHECK(live_now_ns() - began < 5000000000u,
			      "round %u: no entry stays, though nothing changes", i);
			sched_yield();
			EXPECT(0, fabric_subscribe(memory, SIZE));
		}
		EXPECT(0, c->change(memory));
		CHECK(!fabric_valid(memory, SIZE), "round %u: stale", i);
	}
	fabricmon_monitor()->export_ops->stop(fabricmon_monitor());
	return PASS;
}

/* F1's other half: a cache that does not ask is told, a little later. */
static enum verdict notified(const void *arg)
{
	TRY(fabric_start());
	for (unsigned i = 0; i < 1000; i++) {
		char *memory = live_map(SIZE, RW);
		uint64_t began;

		EXPECT(0, fabric_subscribe(memory, SIZE));
		SYS(syscall(SYS_munmap, memory, SIZE));
		began = live_now_ns();
		while (fabric_kept(memory))
			CHECK(live_now_ns() - began < 2000000000u, "not told");
	}
	fabricmon_monitor()->export_ops->stop(fabricmon_monitor());
	return PASS;
}

static enum verdict in_child(void *memory)
{
	struct fid_mem_monitor *m = fabricmon_monitor();
	unsigned before = told;

	CHECK(!m->export_ops->valid(m, memory, SIZE), "valid in a child");
	EXPECT(-ENODEV, m->export_ops->subscribe(m, memory, SIZE));
	SYS(munmap(memory, SIZE));
	EXPECT(before, told);
	m->export_ops->stop(m);
	/* A cache of the child's own. */
	TRY(fabric_start());
	memory = live_map(SIZE, RW);
	EXPECT(0, m->export_ops->subscribe(m, memory, SIZE));
	CHECK(m->export_ops->valid(m, memory, SIZE), "not valid in the child's own");
	m->export_ops->stop(m);
	return PASS;
}

static enum verdict forked(const void *arg)
{
	char *memory = live_map(SIZE, RW);

	TRY(fabric_start());
	for (int i = 0; i < 50; i++) {
		EXPECT(0, fabric_subscribe(memory, SIZE));
		/* What the child maps is noise in the parent's perf rings: an entry may go.
		 */
		TRY(live_child(in_child, memory, 20));
	}
	fabricmon_monitor()->export_ops->stop(fabricmon_monitor());
	return PASS;
}

static enum verdict started_again(const void *arg)
{
	struct fid_mem_monitor *m = fabricmon_monitor();

	for (int i = 0; i < 200; i++) {
		char *memory = live_map(SIZE, RW);

		TRY(fabric_start());
		EXPECT(0, fabric_subscribe(memory, SIZE));
		SYS(munmap(memory, SIZE));
		m->export_ops->stop(m);
		kept_count = 0;
	}
	return PASS;
}

int main(int argc, char **argv)
{
	const struct live_case cases[] = {
		{ "libfabric imports it, and no second", import, NULL, 0 },
		{ "by the environment", by_environment, NULL, 0 },
		{ "what cannot be watched is refused", refused, NULL, 0 },
		{ changes[0].name, changed, &changes[0], 120 },
		{ changes[1].name, changed, &changes[1], 60 },
		{ changes[2].name, changed, &changes[2], 60 },
		{ changes[3].name, changed, &changes[3], 60 },
		{ changes[4].name, changed, &changes[4], 60 },
		{ "a cache that does not ask is told", notified, NULL, 0 },
		{ "notify waits for the lock of who asks", lock_is_held, NULL, 0 },
		{ "another driver's callback does", other_callback, NULL, 0 },
		{ "more changes than there is room for", many_pending, NULL, 0 },
		{ "a forked child", forked, NULL, 0 },
		{ "stopped and started again", started_again, NULL, 0 },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(*cases));
}
