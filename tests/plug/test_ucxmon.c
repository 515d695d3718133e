/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_ucxmon - UCX's own registration cache, with ucxmon preloaded: this program knows
 * nothing of it but the counters.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ucm/api/ucm.h>
#include <ucs/memory/rcache.h>
#include <uhmm/ucxmon.h>

#include "live.h"
#include "raw.h"

struct region {
	ucs_rcache_region_t super;
	uint64_t serial;
};

static atomic_uint regs, deregs;

static ucs_status_t mem_reg(void *context, ucs_rcache_t *rcache, void *arg,
			    ucs_rcache_region_t *region, uint16_t flags)
{
	if (context != &regs)
		return UCS_ERR_INVALID_PARAM; /* the wrapping must not show */
	((struct region *)region)->serial = atomic_fetch_add(&regs, 1) + 1;
	return UCS_OK;
}

static void mem_dereg(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region)
{
	if (context == &regs)
		atomic_fetch_add(&deregs, 1);
}

static void dump_region(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region,
			char *buf, size_t max)
{
	if (max)
		*buf = 0;
}

static ucs_rcache_t *rcache;

static enum verdict make(void)
{
	static const ucs_rcache_ops_t ops = { mem_reg, mem_dereg, dump_region };
	const ucs_rcache_params_t params = {
		.region_struct_size = sizeof(struct region),
		.alignment = 64,
		.max_alignment = 4096,
		.ucm_events = UCM_EVENT_VM_UNMAPPED,
		.ucm_event_priority = 1000,
		.ops = &ops,
		.context = &regs,
		.flags = UCS_RCACHE_FLAG_NO_PFN_CHECK,
		.max_regions = SIZE_MAX,
		.max_size = SIZE_MAX,
		.max_unreleased = SIZE_MAX,
	};

	EXPECT(UCS_OK, ucs_rcache_create(&params, "test", NULL, &rcache));
	return PASS;
}

/* 0: it failed. */
static uint64_t get_put(char *at)
{
	ucs_rcache_region_t *region;
	uint64_t serial;

	if (ucs_rcache_get(rcache, at, SIZE, RW, NULL, &region) != UCS_OK)
		return 0;
	serial = ((struct region *)region)->serial;
	ucs_rcache_region_put(rcache, region);
	return serial;
}

static bool stats(struct ucxmon_stats *stats)
{
	int (*get)(struct ucxmon_stats * stats);

	*(void **)&get = dlsym(RTLD_DEFAULT, "ucxmon_get_stats");
	memset(stats, 0, sizeof(*stats));
	stats->size = sizeof(*stats);
	return get && !get(stats);
}

static int libc_munmap(char *at)
{
	return munmap(at, SIZE) ||
	       mmap(at, SIZE, RW, FLAGS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)at;
}

static int libc_dontneed(char *at)
{
	return madvise(at, SIZE, MADV_DONTNEED);
}

static int protection(char *at)
{
	return mprotect(at, SIZE, PROT_READ) || mprotect(at, SIZE, RW);
}

static const struct change {
	const char *name;
	int (*change)(char *at);
	unsigned rounds;
} changes[] = {
	{ "raw munmap and mmap", raw_munmap, 50000 },
	{ "raw MAP_FIXED over it", raw_fixed, 20000 },
	{ "raw madvise(DONTNEED)", raw_dontneed, 20000 },
	{ "raw mremap away", raw_mremap, 10000 },
	{ "libc's munmap and mmap", libc_munmap, 10000 },
	{ "libc's madvise", libc_dontneed, 10000 },
	{ "mprotect and back", protection, 10000 },
};

static enum verdict changed(const void *arg)
{
	const struct change *c = arg;
	char *memory = live_map(SIZE, RW);
	struct ucxmon_stats s;

	TRY(make());
	for (unsigned i = 0; i < c->rounds; i++) {
		uint64_t began = live_now_ns(), before, after;

		memory[0] = 1;
		/* What is told late of the round before takes a region away; but once it is
		 * told the region stays, or a cache that keeps nothing passes. */
		while ((before = get_put(memory)) != get_put(memory)) {
			CHECK(live_now_ns() - began < 5000000000u,
			      "round %u: no region stays, though nothing changes", i);
			sched_yield();
		}
		EXPECT(0, c->change(memory));
		after = get_put(memory);
		CHECK(before && after, "round %u: get failed", i);
		CHECK(before != after, "round %u: stale", i);
	}
	ucs_rcache_destroy(rcache);
	EXPECT(regs, deregs);
	CHECK(stats(&s), "no counters: is it preloaded?");
	CHECK(s.watched && s.events && s.fenced && !s.unwatched,
	      "%lu watched, %lu unwatched, %lu events, %lu fenced", (long)s.watched,
	      (long)s.unwatched, (long)s.events, (long)s.fenced);
	return PASS;
}

/* A region in use: the unmap does not wait for it, and it is deregistered at its last put.
 */
static enum verdict in_use(const void *arg)
{
	ucs_rcache_region_t *region;
	char *memory = live_map(SIZE, RW);

	TRY(make());
	for (int i = 0; i < 1000; i++) {
		unsigned before = deregs;

		EXPECT(UCS_OK, ucs_rcache_get(rcache, memory, SIZE, RW, NULL, &region));
		EXPECT(0, raw_munmap(memory));
		CHECK(get_put(memory) != ((struct region *)region)->serial, "stale");
		EXPECT(before, deregs);
		ucs_rcache_region_put(rcache, region);
		get_put(memory); /* what the event left to be collected is */
		EXPECT(before + 1, deregs);
		EXPECT(0, raw_munmap(memory));
		get_put(memory);
		get_put(memory);
	}
	ucs_rcache_destroy(rcache);
	EXPECT(regs, deregs);
	return PASS;
}

/* What cannot be watched is registered all the same, and counted. */
static enum verdict unwatched(const void *arg)
{
	char *memory = live_map(SIZE, PROT_NONE);
	struct ucxmon_stats s;

	TRY(make());
	CHECK(get_put(memory), "not registered");
	CHECK(stats(&s) && s.unwatched == 1, "not counted");
	ucs_rcache_destroy(rcache);
	return PASS;
}

static atomic_bool over;

static void *user(void *memory)
{
	while (!over)
		get_put(memory);
	return NULL;
}

static void *changer(void *memory)
{
	for (unsigned i = 0; !over; i++)
		if (changes[i % 4].change(memory))
			abort();
	return NULL;
}

/* Looked up by two while a third changes it: nobody hangs, nothing is freed twice. */
static enum verdict threads(const void *arg)
{
	char *memory = live_map(SIZE, RW);
	pthread_t thread[3];

	TRY(make());
	for (int i = 0; i < 3; i++)
		EXPECT(0, pthread_create(&thread[i], NULL, i ? user : changer, memory));
	sleep(2);
	over = true;
	for (int i = 0; i < 3; i++)
		EXPECT(0, pthread_join(thread[i], NULL));
	ucs_rcache_destroy(rcache);
	EXPECT(regs, deregs);
	return PASS;
}

static enum verdict in_child(void *memory)
{
	CHECK(get_put(memory), "get failed in the child");
	SYS(munmap(memory, SIZE));
	return PASS;
}

static enum verdict forked(const void *arg)
{
	char *memory = live_map(SIZE, RW);
	uint64_t serial;

	TRY(make());
	for (int i = 0; i < 50; i++) {
		serial = get_put(memory);
		TRY(live_child(in_child, memory, 20));
		EXPECT(serial, get_put(memory));
	}
	return PASS;
}

int main(int argc, char **argv)
{
	const struct live_case cases[] = {
		{ changes[0].name, changed, &changes[0], 60 },
		{ changes[1].name, changed, &changes[1], 60 },
		{ changes[2].name, changed, &changes[2], 60 },
		{ changes[3].name, changed, &changes[3], 60 },
		{ changes[4].name, changed, &changes[4], 60 },
		{ changes[5].name, changed, &changes[5], 60 },
		{ changes[6].name, changed, &changes[6], 60 },
		{ "a region in use", in_use, NULL, 0 },
		{ "what cannot be watched", unwatched, NULL, 0 },
		{ "threads", threads, NULL, 0 },
		{ "a forked child", forked, NULL, 0 },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(*cases));
}
