/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * svm_place - where pages go: chunks, the best location, peers, all or nothing, pressure.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "svm_live.h"

#define CHUNK_64K (((size_t)64 << 10) / PAGE)

/* What one fault moves, by granularity, attributes and mapping. */
enum verdict svm_chunks(const void *arg)
{
	const struct svm_attr g4 = { SVM_ATTR_GRANULARITY, 4 },
			      g0 = { SVM_ATTR_GRANULARITY, 0 };
	char *at = two_map(4 * BLOCK);
	struct svm_stats stats;
	struct two two;

	memset(at, 0, 4 * BLOCK);
	TRY(two_open(&two, TWO_VRAM));
	EXPECT(0, two_add(&two, 0, at + 7 * PAGE, 1, 1));
	EXPECT(BLOCK_PAGES, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(0, svm_set_attr(two.svm, at + BLOCK, BLOCK, &g4, 1));
	EXPECT(0, two_add(&two, 0, at + BLOCK + 20 * PAGE, 1, 1));
	EXPECT(CHUNK_64K, two_there(&two, 0, at + BLOCK, BLOCK_PAGES));
	EXPECT(CHUNK_64K, two_there(&two, 0, at + BLOCK + 16 * PAGE, 16));
	EXPECT(0, svm_set_attr(two.svm, at + 2 * BLOCK, PAGE, &g0, 1));
	EXPECT(0, two_add(&two, 0, at + 2 * BLOCK, 1, 1));
	EXPECT(1, two_there(&two, 0, at + 2 * BLOCK, BLOCK_PAGES));
	/* A chunk has one set of attributes: the rest of this 2 MiB is no chunk of 2 MiB.
	 */
	EXPECT(0, two_add(&two, 0, at + 2 * BLOCK + 40 * PAGE, 1, 1));
	EXPECT(1 + CHUNK_64K, two_there(&two, 0, at + 2 * BLOCK, BLOCK_PAGES));
	EXPECT(0, two_add(&two, 0, at + 2 * BLOCK + PAGE, 1, 1));
	EXPECT(2 + CHUNK_64K, two_there(&two, 0, at + 2 * BLOCK, BLOCK_PAGES));
	/* And one mapping. */
	SYS(munmap(at + 3 * BLOCK + 100 * PAGE, PAGE));
	EXPECT(0, two_add(&two, 0, at + 3 * BLOCK, 1, 1));
	EXPECT(CHUNK_64K, two_there(&two, 0, at + 3 * BLOCK, 100));
	stats = two_stats(&two);
	EXPECT(1, stats.chunks[0]);
	EXPECT(3, stats.chunks[1]);
	EXPECT(2, stats.chunks[2]);
	EXPECT(BLOCK_PAGES + 3 * CHUNK_64K + 2, stats.migrated);
	EXPECT(1, *(uint64_t *)(at + 7 * PAGE));
	EXPECT(1, *(uint64_t *)(at + BLOCK + 20 * PAGE));
	two_close(&two);
	return PASS;
}

struct best {
	const char *name;
	uint32_t preferred;
	uint32_t access; /* of GPU 0: SVM_ATTR_* */
	uint32_t flags;
	uint32_t lies; /* before GPU 0 faults: a GPU or SVM_SYSTEM */
	uint32_t read,
		written; /* where it lies after a read, after a write; else an errno */
};

#define S SVM_SYSTEM
#define U SVM_UNDEFINED
#define A SVM_ATTR_ACCESS
#define P SVM_ATTR_IN_PLACE
#define RM SVM_FLAG_READ_MOSTLY
/* Written down from kfd's rule, not from the code. */
static const struct best bests[] = {
	{ "access", U, A, 0, S, 0, 0 },
	{ "access, lies with itself", U, A, 0, 0, 0, 0 },
	{ "access, lies with a peer", U, A, 0, 1, 0, 0 },
	{ "in place", U, P, 0, S, S, S },
	{ "in place, lies with itself", U, P, 0, 0, 0, 0 },
	{ "in place, lies with a peer", U, P, 0, 1, 1, 1 },
	{ "prefers itself", 0, A, 0, S, 0, 0 },
	{ "prefers itself, in place", 0, P, 0, S, 0, 0 },
	{ "prefers itself, lies with a peer", 0, A, 0, 1, 0, 0 },
	{ "prefers the system", S, A, 0, S, S, S },
	{ "prefers the system, lies with itself", S, A, 0, 0, S, S },
	{ "prefers the system, lies with a peer", S, A, 0, 1, S, S },
	{ "prefers a peer", 1, A, 0, S, 1, 1 },
	{ "prefers a peer, in place", 1, P, 0, S, 1, 1 },
	{ "prefers a peer, lies with itself", 1, A, 0, 0, 1, 1 },
	{ "read-mostly", U, A, RM, S, S, 0 },
	{ "read-mostly, lies with a peer", U, A, RM, 1, 1, 0 },
	{ "read-mostly, prefers a peer", 1, A, RM, S, S, 1 },
};
#undef S
#undef U
#undef A
#undef P
#undef RM

static bool lies(struct two *two, const char *at, uint32_t where)
{
	for (uint32_t gpu = 0; gpu < GPUS; gpu++)
		if (two_there(two, gpu, at, BLOCK_PAGES) !=
		    (gpu == where ? (long)BLOCK_PAGES : 0))
			return false;
	return true;
}

enum verdict svm_best(const void *arg)
{
	char *at = two_map(BLOCK);
	struct two two;
	uint64_t sum = 0, word;

	TRY(two_open(&two, TWO_VRAM));
	for (unsigned i = 0; i < sizeof(bests) / sizeof(bests[0]); i++) {
		const struct best *best = &bests[i];
		const struct svm_attr attrs[] = {
			{ SVM_ATTR_PREFERRED, best->preferred },
			{ best->access, 0 },
			{ SVM_ATTR_CLR_FLAGS, SVM_FLAGS_ALL },
			{ SVM_ATTR_SET_FLAGS, best->flags },
		};

		for (int write = 0; write < 2; write++) {
			memset(at, 0, BLOCK);
			sum = 7;
			*(uint64_t *)(at + 5 * PAGE) = sum;
			EXPECT(0, svm_set_attr(two.svm, at, BLOCK, attrs, 4));
			EXPECT(BLOCK_PAGES,
			       svm_prefetch(two.svm, at, BLOCK, best->lies, 0));
			CHECK(lies(&two, at, best->lies), "%s: prefetch", best->name);
			/* Who has it mapped does not fault, and what nobody faults on
			 * stays. */
			EXPECT(0, gpu_forget(svm_gpu(two.svm, 0), at, BLOCK));
			EXPECT(0, write ? two_add(&two, 0, at + 5 * PAGE, 1, 2)
					: two_load(&two, 0, at + 5 * PAGE, &word));
			CHECK(lies(&two, at, write ? best->written : best->read),
			      "%s: not where it belongs after a %s", best->name,
			      write ? "write" : "read");
			CHECK(write || word == sum, "%s: read %llu", best->name,
			      (unsigned long long)word);
			sum += write ? 2 : 0;
			CHECK(*(uint64_t *)(at + 5 * PAGE) == sum, "%s: the CPU reads %llu",
			      best->name, (unsigned long long)*(uint64_t *)(at + 5 * PAGE));
		}
	}
	two_close(&two);
	return PASS;
}

/* Both work in the second's memory; a CPU takes pages away all the time. arg: host frames.
 */
enum verdict svm_peers(const void *arg)
{
	struct svm_options options = *TWO_VRAM;
	char *at = two_map(BLOCK);
	struct two two;

	options.verify = true;
	options.vram_host = arg != NULL;
	TRY(two_open(&two, &options));
	memset(at, 0, BLOCK);
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_PREFERRED, 1));
	for (unsigned round = 1; round <= 60; round++) {
		EXPECT(0, two_add(&two, round % 2, at, BLOCK_PAGES, 1));
		EXPECT(BLOCK_PAGES, two_there(&two, 1, at, BLOCK_PAGES));
		EXPECT(0, two_add(&two, 0, at, BLOCK_PAGES, 1));
		EXPECT(BLOCK_PAGES, two_mapped(&two, 0, at, BLOCK_PAGES));
		EXPECT(0, two_add(&two, 1, at, BLOCK_PAGES, 1));
		/* Home: neither may have it any more. */
		for (size_t p = round % 7; p < BLOCK_PAGES; p += 7) {
			uint64_t *word = (uint64_t *)(at + p * PAGE);

			CHECK(*word == 3 * round, "round %u, page %zu: %llu", round, p,
			      (unsigned long long)*word);
		}
	}
	EXPECT(0, two_stale(&two));
	/* A peer that closes leaves nothing behind; a peer that dies neither. */
	EXPECT(0, two_add(&two, 0, at, BLOCK_PAGES, 1));
	gpu_die(svm_gpu(two.svm, 1));
	EXPECT(0, two_mapped(&two, 0, at, BLOCK_PAGES));
	two_close(&two);
	return PASS;
}

struct racing {
	struct two *two;
	char *at;
	atomic_bool stop;
	_Atomic uint64_t taken;
};

/* Each add is atomic, so that none is lost, whoever has the page while it is done. */
static void *take(void *arg)
{
	struct racing *racing = arg;
	unsigned page = 0;

	while (!atomic_load(&racing->stop)) {
		page = (page + 37) % BLOCK_PAGES;
		__atomic_fetch_add((uint64_t *)(racing->at + page * PAGE), 1,
				   __ATOMIC_SEQ_CST);
		atomic_fetch_add(&racing->taken, 1);
	}
	return NULL;
}

static void add_all(struct gpu_sm *sm, void *arg, uint64_t index)
{
	gpu_atomic_add_u64(sm, (uint64_t *)((char *)arg + index % BLOCK_PAGES * PAGE), 1);
}

/* Frames leave for the CPU while both GPUs use them: a translation that is left loses a
 * count. */
enum verdict svm_peers_racing(const void *arg)
{
	struct svm_options options = *TWO_VRAM;
	struct racing racing = { .at = two_map(BLOCK) };
	const uint64_t end = live_now_ns() + UINT64_C(3000000000);
	uint64_t sum = 0, jobs = 0;
	struct two two;
	pthread_t thread;

	options.verify = true;
	TRY(two_open(&two, &options));
	racing.two = &two;
	EXPECT(0, svm_advise(two.svm, racing.at, BLOCK, SVM_ADVISE_PREFERRED, 1));
	EXPECT(0, pthread_create(&thread, NULL, take, &racing));
	for (; live_now_ns() < end; jobs += GPUS) {
		struct gpu_fence *fence[GPUS];

		for (unsigned i = 0; i < GPUS; i++)
			EXPECT(0, gpu_submit(two.queue[i], add_all, racing.at,
					     4 * BLOCK_PAGES, &fence[i]));
		for (unsigned i = 0; i < GPUS; i++) {
			struct gpu_error error;
			int err = gpu_wait(fence[i], &error);

			CHECK(!err, "GPU %u: %s", i, error.text);
		}
	}
	atomic_store(&racing.stop, true);
	pthread_join(thread, NULL);
	for (size_t p = 0; p < BLOCK_PAGES; p++)
		sum += *(uint64_t *)(racing.at + p * PAGE);
	CHECK(sum == jobs * 4 * BLOCK_PAGES + racing.taken,
	      "%llu of %llu increments are there", (unsigned long long)sum,
	      (unsigned long long)(jobs * 4 * BLOCK_PAGES + racing.taken));
	EXPECT(0, two_stale(&two));
	two_close(&two);
	return PASS;
}

enum verdict svm_no_peers(const void *arg)
{
	struct svm_options options = *TWO_VRAM;
	char *at = two_map(BLOCK);
	struct two two;

	options.no_peers = true;
	options.verify = true;
	TRY(two_open(&two, &options));
	memset(at, 0, BLOCK);
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_IN_PLACE, 0));
	for (unsigned round = 1; round <= 20; round++) {
		EXPECT(0, two_add(&two, 1, at, BLOCK_PAGES, 1));
		EXPECT(BLOCK_PAGES, two_there(&two, 1, at, BLOCK_PAGES));
		EXPECT(0, two_add(&two, 0, at, BLOCK_PAGES, 1));
		EXPECT(0, two_there(&two, 1, at, BLOCK_PAGES));
		EXPECT(0, two_there(&two, 0, at, BLOCK_PAGES));
	}
	for (size_t p = 0; p < BLOCK_PAGES; p++)
		EXPECT(40, *(uint64_t *)(at + p * PAGE));
	EXPECT(0, two_stale(&two));
	two_close(&two);
	return PASS;
}

/* A page that is locked cannot move. */
enum verdict svm_all_or_nothing(const void *arg)
{
	char *at = two_map(3 * BLOCK);
	struct two two;

	memset(at, 3, 3 * BLOCK);
	if (syscall(SYS_mlock, at + BLOCK + 9 * PAGE, PAGE)) /* a sanitizer makes mlock() do nothing */
		return live_skip("mlock: %s", strerror(errno));
	TRY(two_open(&two, TWO_VRAM));
	EXPECT(0, svm_advise(two.svm, at, 3 * BLOCK, SVM_ADVISE_NO_PREFERRED, 0));
	/* The first is there, the second stays, the third is not tried. */
	EXPECT(-EBUSY, svm_prefetch(two.svm, at, 3 * BLOCK, 1, SVM_PREFETCH_ALL));
	EXPECT(BLOCK_PAGES, two_there(&two, 1, at, 3 * BLOCK_PAGES));
	/* What was there before stays there. */
	EXPECT(0, svm_prefetch(two.svm, at + BLOCK + 9 * PAGE, PAGE, 1, 0));
	EXPECT(4, svm_prefetch(two.svm, at + BLOCK, 4 * PAGE, 1, SVM_PREFETCH_ALL));
	EXPECT(-EBUSY, svm_prefetch(two.svm, at + BLOCK, BLOCK, 1, SVM_PREFETCH_ALL));
	EXPECT(4, two_there(&two, 1, at + BLOCK, BLOCK_PAGES));
	/* Where it is not asked for, what can move does. */
	EXPECT(BLOCK_PAGES - 5,
	       svm_prefetch(two.svm, at + BLOCK + 4 * PAGE, BLOCK - 4 * PAGE, 1, 0));
	for (size_t i = 0; i < 3 * BLOCK; i++)
		CHECK(at[i] == 3, "byte %zu", i);
	two_close(&two);
	return PASS;
}

/* More than 2 MiB by one fault: what is aligned, has the attributes, and fits. */
enum verdict svm_granules(const void *arg)
{
	const struct svm_attr four = { SVM_ATTR_GRANULARITY, SVM_GRANULARITY + 1 },
			      all = { SVM_ATTR_GRANULARITY, SVM_GRANULARITY_MAX };
	char *at = two_map(12 * BLOCK);
	struct svm_stats stats;
	struct two two;

	at += (uintptr_t)at & BLOCK; /* aligned to 4 MiB */
	memset(at, 3, 11 * BLOCK);
	TRY(two_open(&two, TWO_VRAM));
	EXPECT(0, svm_set_attr(two.svm, at, 4 * BLOCK, &four, 1));
	EXPECT(0, two_add(&two, 0, at + BLOCK + 7 * PAGE, 1, 1));
	EXPECT(2 * BLOCK_PAGES, two_there(&two, 0, at, 2 * BLOCK_PAGES));
	EXPECT(0, two_there(&two, 0, at + 2 * BLOCK, 2 * BLOCK_PAGES));
	stats = two_stats(&two);
	EXPECT(2, stats.chunks[0]);
	EXPECT(2 * BLOCK_PAGES, stats.migrated);
	/* Cut to what has the attributes, at pages; a block that starts in it is begun there. */
	EXPECT(0, svm_set_attr(two.svm, at + 5 * BLOCK + 3 * PAGE, 2 * BLOCK, &all, 1));
	EXPECT(0, two_add(&two, 1, at + 6 * BLOCK, 1, 1));
	EXPECT(2 * BLOCK_PAGES, two_there(&two, 1, at + 5 * BLOCK, 3 * BLOCK_PAGES));
	EXPECT(0, two_there(&two, 1, at + 5 * BLOCK, 3));
	/* No more than a GPU has: it would drive out what it has just brought. */
	CHECK(svm_prefetch(two.svm, at, 11 * BLOCK, SVM_SYSTEM, 0) >= 0, "prefetch");
	EXPECT(0, svm_set_attr(two.svm, at, 11 * BLOCK, &all, 1));
	EXPECT(0, two_add(&two, 0, at + 8 * BLOCK + 9 * PAGE, 1, 1));
	EXPECT(4 * BLOCK_PAGES, two_there(&two, 0, at, 11 * BLOCK_PAGES));
	EXPECT(4 * BLOCK_PAGES, two_there(&two, 0, at + 7 * BLOCK, 4 * BLOCK_PAGES));
	for (size_t i = 1; i < 11 * BLOCK / 8; i += 512)
		EXPECT(0x0303030303030303, ((uint64_t *)at)[i]);
	two_close(&two);
	return PASS;
}

/* Until so many pages are in GPU 0's memory, and a little later still. */
static enum verdict stays(struct two *two, const char *at, size_t pages, long want,
			  const char *what)
{
	for (unsigned tries = 0; tries < 500 && two_there(two, 0, at, pages) != want; tries++)
		usleep(10000);
	usleep(30000);
	CHECK(two_there(two, 0, at, pages) == want, "%s: %ld pages there, not %ld", what,
	      two_there(two, 0, at, pages), want);
	return PASS;
}

/* What a CPU touches brings its granule home; what leaves for another reason brings nothing. */
enum verdict svm_followed(const void *arg)
{
	const struct svm_attr g6 = { SVM_ATTR_GRANULARITY, 6 }, g4 = { SVM_ATTR_GRANULARITY, 4 };
	char *at = two_map(5 * BLOCK);
	struct two two;

	memset(at, 3, 5 * BLOCK);
	TRY(two_open(&two, TWO_VRAM));
	EXPECT(4 * BLOCK_PAGES, svm_prefetch(two.svm, at, 4 * BLOCK, 0, 0));
	TRY(stays(&two, at, 4 * BLOCK_PAGES, 4 * BLOCK_PAGES, "nobody touches it"));
	/* Room for others. */
	EXPECT(CHUNK_64K, svm_prefetch(two.svm, at + 4 * BLOCK, CHUNK_64K * PAGE, 0, 0));
	TRY(stays(&two, at, 4 * BLOCK_PAGES, 4 * BLOCK_PAGES - CHUNK_64K, "for room"));
	/* A call. */
	EXPECT(1, svm_prefetch(two.svm, at + 2 * BLOCK, PAGE, SVM_SYSTEM, 0));
	TRY(stays(&two, at + 2 * BLOCK, BLOCK_PAGES, BLOCK_PAGES - 1, "a call"));
	EXPECT(0, two_stats(&two).followed);
	/* A touch, by granularity. */
	EXPECT(3, *(volatile char *)(at + BLOCK + 100 * PAGE));
	TRY(stays(&two, at + BLOCK, BLOCK_PAGES, 0, "a granule of 2 MiB"));
	EXPECT(0, svm_set_attr(two.svm, at + 2 * BLOCK, BLOCK, &g6, 1));
	EXPECT(3, *(volatile char *)(at + 2 * BLOCK + 100 * PAGE));
	TRY(stays(&two, at + 2 * BLOCK, BLOCK_PAGES, BLOCK_PAGES - 1 - 64, "64 pages"));
	EXPECT(64, two_there(&two, 0, at + 2 * BLOCK + 128 * PAGE, 64));
	EXPECT(0, svm_set_attr(two.svm, at + 3 * BLOCK, BLOCK, &g4, 1));
	EXPECT(3, *(volatile char *)(at + 3 * BLOCK + 100 * PAGE));
	TRY(stays(&two, at + 3 * BLOCK, BLOCK_PAGES, BLOCK_PAGES - CHUNK_64K, "64 KiB"));
	EXPECT(BLOCK_PAGES - CHUNK_64K + 64 - CHUNK_64K, two_stats(&two).followed);
	for (size_t i = 0; i < 5 * BLOCK; i++)
		CHECK(at[i] == 3, "byte %zu", i);
	two_close(&two);
	return PASS;
}

/* One locked page keeps its chunk, or only itself, or ends the job. */
enum verdict svm_whole_by_fault(const void *arg)
{
	char *at = two_map(2 * BLOCK), *locked = at + 40 * PAGE;
	struct two two;
	uint64_t fallbacks;

	memset(at, 3, 2 * BLOCK);
	if (syscall(SYS_mlock, locked, PAGE)) /* a sanitizer makes mlock() do nothing */
		return live_skip("mlock: %s", strerror(errno));
	TRY(two_open(&two, TWO_VRAM));
	EXPECT(0, svm_advise(two.svm, at, 2 * BLOCK, SVM_ADVISE_WHOLE, 0));
	/* Nothing half moved, and the job does not notice. */
	EXPECT(0, two_add(&two, 0, at, 1, 1));
	EXPECT(0, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(1, two_stats(&two).fallbacks);
	EXPECT(0, two_stats(&two).migrated);
	EXPECT(0, two_add(&two, 0, at + BLOCK, 1, 1));
	EXPECT(BLOCK_PAGES, two_there(&two, 0, at + BLOCK, BLOCK_PAGES));
	/* A smaller chunk can do without the page; the page itself cannot. */
	EXPECT(0, svm_advise(two.svm, at, 2 * BLOCK, SVM_ADVISE_MUST_MOVE, 0));
	EXPECT(0, two_add(&two, 0, at + 8 * PAGE, 1, 1));
	EXPECT(CHUNK_64K, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(0, two_add(&two, 0, locked + PAGE, 1, 1));
	EXPECT(CHUNK_64K + 1, two_there(&two, 0, at, BLOCK_PAGES));
	fallbacks = two_stats(&two).fallbacks;
	EXPECT(0, gpu_forget(svm_gpu(two.svm, 0), locked, PAGE));
	EXPECT(-EBUSY, two_add(&two, 0, locked, 1, 1));
	EXPECT(CHUNK_64K + 1, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(fallbacks + 1, two_stats(&two).fallbacks);
	/* As before, and parts. */
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_MAY_STAY, 0));
	EXPECT(0, two_add(&two, 0, locked, 1, 1));
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_PARTS, 0));
	EXPECT(0, two_add(&two, 0, at + 100 * PAGE, 1, 1));
	EXPECT(BLOCK_PAGES - 1, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(0x0303030303030304, *(uint64_t *)locked);
	EXPECT(0x0303030303030304, *(uint64_t *)at);
	for (size_t i = 1; i < 2 * BLOCK / 8; i += 512)
		EXPECT(0x0303030303030303, ((uint64_t *)at)[i]);
	two_close(&two);
	return PASS;
}

static void count_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	gpu_atomic_add_u64(sm, arg, 1);
}

static int count(struct two *two, unsigned gpu, void *at)
{
	struct gpu_fence *fence;
	int err = gpu_submit(two->queue[gpu], count_kernel, at, 10, &fence);

	return err ? err : gpu_wait(fence, NULL);
}

/* Whose atomics may be done where; a translation that is there already allows none. */
static enum verdict atomics(const struct svm_options *options)
{
	char *at = two_map(BLOCK), *shared;
	struct two two;

	shared = mmap(NULL, BLOCK, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED, "mmap");
	memset(at, 0, BLOCK);
	TRY(two_open(&two, options));
	for (unsigned gpu = 0; gpu < GPUS; gpu++) {
		EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_IN_PLACE, gpu));
		EXPECT(0, svm_advise(two.svm, shared, BLOCK, SVM_ADVISE_IN_PLACE, gpu));
	}
	EXPECT(0, two_add(&two, 0, at, 1, 1));
	EXPECT(0, count(&two, 0, at));
	EXPECT(0, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_ATOMIC, SVM_ATOMIC_CPU));
	EXPECT(SVM_ATOMIC_CPU, two_get(&two, at, BLOCK, SVM_ATTR_ATOMIC, 0));
	EXPECT(0, two_add(&two, 0, at, 1, 1));
	EXPECT(-EACCES, count(&two, 0, at));
	EXPECT(-EACCES, count(&two, 1, at));
	EXPECT(2, two_stats(&two).denied);
	EXPECT(12, *(uint64_t *)at);
	/* In a GPU's memory: it comes, and from there the other uses it in place. */
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_ATOMIC, SVM_ATOMIC_DEVICE));
	EXPECT(0, two_add(&two, 0, at, 1, 1));
	EXPECT(0, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(0, count(&two, 0, at));
	EXPECT(BLOCK_PAGES, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(0, count(&two, 1, at));
	EXPECT(BLOCK_PAGES, two_there(&two, 0, at, BLOCK_PAGES));
	EXPECT(33, *(uint64_t *)at); /* home */
	EXPECT(0, two_there(&two, 0, at, 1));
	EXPECT(0, two_add(&two, 0, at, 1, 1));
	EXPECT(0, count(&two, 1, at));
	EXPECT(1, two_there(&two, 1, at, 1));
	/* What cannot come. */
	EXPECT(0, svm_advise(two.svm, shared, BLOCK, SVM_ADVISE_ATOMIC, SVM_ATOMIC_DEVICE));
	EXPECT(0, two_add(&two, 0, shared, 1, 1));
	EXPECT(-EBUSY, count(&two, 0, shared));
	EXPECT(0, svm_advise(two.svm, shared, BLOCK, SVM_ADVISE_ATOMIC, SVM_ATOMIC_GLOBAL));
	EXPECT(0, count(&two, 0, shared));
	EXPECT(0, svm_advise(two.svm, shared, BLOCK, SVM_ADVISE_ATOMIC, SVM_ATOMIC_UNDEFINED));
	EXPECT(0, count(&two, 0, shared));
	EXPECT(21, *(uint64_t *)shared);
	EXPECT(44, *(uint64_t *)at);
	two_close(&two);
	return PASS;
}

enum verdict svm_atomics(const void *arg)
{
	return atomics(TWO_VRAM);
}

enum verdict svm_atomics_mapped(const void *arg)
{
	struct svm_options options = *TWO_VRAM;

	options.no_xnack = true;
	options.restore_us = 200;
	return atomics(&options);
}

/* Three times what fits. */
enum verdict svm_pressure(const void *arg)
{
	struct gpu_stats stats = { .size = sizeof(stats) };
	char *at = two_map(12 * BLOCK);
	struct two two;

	TRY(two_open(&two, TWO_VRAM));
	for (unsigned round = 0; round < 4; round++)
		EXPECT(0, two_add(&two, round % 2, at, 12 * BLOCK_PAGES, 1));
	CHECK(svm_prefetch(two.svm, at, 12 * BLOCK, 0, 0) > 0, "nothing fits");
	EXPECT(0, two_add(&two, 0, at, 12 * BLOCK_PAGES, 1));
	gpu_get_stats(svm_gpu(two.svm, 0), &stats);
	CHECK(stats.evictions, "nothing was evicted");
	for (size_t p = 0; p < 12 * BLOCK_PAGES; p++)
		EXPECT(5, *(uint64_t *)(at + p * PAGE));
	two_close(&two);
	return PASS;
}

static void atomic_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	gpu_atomic_add_u64(sm, (uint64_t *)((char *)arg + index % 8 * PAGE), 1);
}

/* Each pulls the block to itself; neither starves, and no increment is lost. */
enum verdict svm_fight(const void *arg)
{
	struct svm_options options = *TWO_VRAM;
	struct gpu_fence *fence[GPUS];
	struct gpu_error error;
	char *at = two_map(BLOCK);
	struct two two;
	uint64_t sum = 0;

	options.timeslice_us = 500;
	TRY(two_open(&two, &options));
	for (unsigned i = 0; i < GPUS; i++)
		EXPECT(0, gpu_submit(two.queue[i], atomic_kernel, at, 200000, &fence[i]));
	for (unsigned i = 0; i < 2000; i++)
		__atomic_fetch_add((uint64_t *)(at + i % 8 * PAGE), 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < GPUS; i++) {
		int err = gpu_wait(fence[i], &error);

		CHECK(!err, "GPU %u: %s", i, error.text);
	}
	for (size_t p = 0; p < 8; p++)
		sum += *(uint64_t *)(at + p * PAGE);
	EXPECT(402000, sum);
	CHECK(two_stats(&two).timeslice_us >= 500 && two_stats(&two).timeslice_us <= 8 * 500,
	      "a time slice of %llu us", (unsigned long long)two_stats(&two).timeslice_us);
	two_close(&two);
	return PASS;
}

/* Memory that cannot move is used where it is. */
enum verdict svm_fallback(const void *arg)
{
	char *at = two_map(BLOCK), *shared;
	struct two two;

	shared = mmap(NULL, BLOCK, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(shared != MAP_FAILED, "mmap");
	memset(at, 0, BLOCK);
	if (syscall(SYS_mlock, at, BLOCK)) /* a sanitizer makes mlock() do nothing */
		return live_skip("mlock: %s", strerror(errno));
	TRY(two_open(&two, TWO_VRAM));
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_PREFERRED, 1));
	EXPECT(0, svm_advise(two.svm, shared, BLOCK, SVM_ADVISE_PREFERRED, 1));
	for (unsigned gpu = 0; gpu < GPUS; gpu++) {
		EXPECT(0, two_add(&two, gpu, at, BLOCK_PAGES, 1));
		EXPECT(0, two_add(&two, gpu, shared, BLOCK_PAGES, 1));
	}
	EXPECT(0, two_there(&two, 1, at, BLOCK_PAGES));
	EXPECT(0, svm_prefetch(two.svm, shared, BLOCK, 1, 0));
	CHECK(two_stats(&two).fallbacks, "no fallback was counted");
	for (size_t p = 0; p < BLOCK_PAGES; p++) {
		EXPECT(2, *(uint64_t *)(at + p * PAGE));
		EXPECT(2, *(uint64_t *)(shared + p * PAGE));
	}
	two_close(&two);
	return PASS;
}
