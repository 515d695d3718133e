/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * svm_changes - memory and attributes that change, also under running jobs.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "svm_live.h"

/* Of a range of ten: what prefers GPU 1, as '1' and '.'. */
static const char *prefers(struct two *two, const char *at)
{
	static char text[11];

	for (size_t p = 0; p < 10; p++)
		text[p] = two_get(two, at + p * PAGE, PAGE, SVM_ATTR_PREFERRED, 0) == 1
				  ? '1'
				  : '.';
	return text;
}

#define IS(what)                                                                           \
	CHECK(!strcmp(prefers(&two, at), what), "attributes are %s, not %s",               \
	      prefers(&two, at), what)

/* touched: GPUs have mapped it; else no device has ever seen it. */
static enum verdict collected(bool touched)
{
	char *at = two_map(64 * PAGE), *to = two_map(64 * PAGE);
	struct two two;

	TRY(two_open(&two, TWO_VRAM));
	EXPECT(0, svm_advise(two.svm, at, 10 * PAGE, SVM_ADVISE_PREFERRED, 1));
	if (touched)
		EXPECT(0, two_add(&two, 0, at, 10, 1));
	IS("1111111111");
	/* These change nothing of what the addresses are for. */
	SYS(madvise(at, 10 * PAGE, MADV_DONTNEED));
	SYS(mprotect(at, 2 * PAGE, PROT_READ));
	SYS(mprotect(at, 2 * PAGE, RW));
	IS("1111111111");
	SYS(munmap(at + 3 * PAGE, 2 * PAGE));
	IS("111..11111");
	EXPECT(-EFAULT, svm_advise(two.svm, at, 10 * PAGE, SVM_ADVISE_PREFERRED, 1));
	IS("111..11111");
	/* Mapped anew, with new attributes at once: no late unmap takes them. */
	CHECK(mmap(at + 3 * PAGE, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == at + 3 * PAGE,
	      "mmap");
	EXPECT(0, svm_advise(two.svm, at + 3 * PAGE, PAGE, SVM_ADVISE_PREFERRED, 1));
	usleep(20000);
	IS("1111.11111");
	/* mremap is an unmap of its source; what is moved has none where it arrives. */
	CHECK(mremap(at + 6 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		     to) == to,
	      "mremap: %s", strerror(errno));
	IS("1111.1..11");
	EXPECT(SVM_UNDEFINED, two_get(&two, to, 2 * PAGE, SVM_ATTR_PREFERRED, 0));
	/* And what it lands on is unmapped too. */
	CHECK(mremap(to, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at + 8 * PAGE) ==
		      at + 8 * PAGE,
	      "mremap: %s", strerror(errno));
	IS("1111.1...1");
	/* Pages that leave without an unmap leave no attributes behind. */
	CHECK(mremap(at + 9 * PAGE, PAGE, PAGE,
		     MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) == to,
	      "mremap: %s", strerror(errno));
	IS("1111.1....");
	CHECK(mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at,
	      "mmap");
	IS(".111.1....");
	SYS(munmap(at, 10 * PAGE));
	IS(".........."); /* a fence: the message may be on its way */
	EXPECT(0, two_stats(&two).ranges);
	CHECK(two_stats(&two).collected >= 5, "%llu collected",
	      (unsigned long long)two_stats(&two).collected);
	two_close(&two);
	return PASS;
}

enum verdict svm_collected(const void *arg)
{
	TRY(collected(true));
	return collected(false);
}

/* ---- faults that wait for their turn ---- */

static void one_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	gpu_store_u64(sm, arg, gpu_load_u64(sm, arg) + 1);
}

/*
 * GPU 0 has fetched a block, so the first of GPU 1 that wants it waits for the time slice,
 * and those that want it too wait for him. Meanwhile what one of them waits for is
 * unmapped.
 */
enum verdict svm_filters(const void *arg)
{
	const struct svm_options options = { .size = sizeof(options),
					     .gpus = GPUS,
					     .sms = 3,
					     .timeslice_us = 300000,
					     .vram_bytes = 4 * BLOCK };
	char *at = two_map(BLOCK);
	const struct svm_attr page = { SVM_ATTR_GRANULARITY, 0 };
	char *const wants[3] = { at, at + 8, at + 9 * PAGE };
	struct gpu_queue *queue[3];
	struct gpu_fence *fence[3];
	struct svm_stats before, stats;
	uint64_t began;
	struct two two;

	memset(at, 0, BLOCK);
	TRY(two_open(&two, &options));
	/* Page by page, or the first would bring what the third waits for. */
	EXPECT(0, svm_set_attr(two.svm, at, BLOCK, &page, 1));
	began = live_now_ns();
	EXPECT(0, two_add(&two, 0, at + PAGE, 1, 1));
	before = two_stats(&two);
	for (unsigned i = 0; i < 3; i++) {
		EXPECT(0, gpu_queue_create(svm_gpu(two.svm, 1), &queue[i]));
		EXPECT(0, gpu_submit(queue[i], one_kernel, wants[i], 1, &fence[i]));
		usleep(30000);
	}
	CHECK(mmap(at + 9 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == at + 9 * PAGE,
	      "mmap");
	for (unsigned i = 0; i < 3; i++)
		EXPECT(0, gpu_wait(fence[i], NULL));
	CHECK(live_now_ns() - began > (uint64_t)options.timeslice_us * 1000,
	      "stolen before its time");
	stats = two_stats(&two);
	CHECK(stats.duplicates > before.duplicates, "no duplicate");
	EXPECT(before.drained + 1, stats.drained);
	EXPECT(1, *(uint64_t *)at);
	EXPECT(1, *(uint64_t *)(at + 8));
	EXPECT(1, *(uint64_t *)(at + PAGE));
	EXPECT(1, *(uint64_t *)(at + 9 * PAGE));
	two_close(&two);
	return PASS;
}

/* ---- attributes that change under a job ---- */

struct spin {
	char *at;
	atomic_bool stop;
};

static void spin_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct spin *spin = arg;
	uint64_t n = 0;

	while (!atomic_load(&spin->stop)) {
		n++;
		gpu_store_u64(sm, (uint64_t *)(spin->at + n % 16 * PAGE), n);
	}
}

/* When the call returns, the job has made its last store. */
enum verdict svm_revoked(const void *arg)
{
	static const struct svm_attr take[] = { { SVM_ATTR_NO_ACCESS, 0 },
						{ SVM_ATTR_SET_FLAGS, SVM_FLAG_GPU_RO } };
	static const struct svm_attr give[] = { { SVM_ATTR_ACCESS, 0 },
						{ SVM_ATTR_CLR_FLAGS, SVM_FLAG_GPU_RO } };
	char *at = two_map(BLOCK);
	struct two two;

	TRY(two_open(&two, TWO_VRAM));
	for (unsigned round = 0; round < 200; round++) {
		struct spin spin = { .at = at };
		struct gpu_fence *fence;
		uint64_t before[16];
		unsigned how = round % 2;

		EXPECT(0, svm_set_attr(two.svm, at, BLOCK, give, 2));
		EXPECT(0, gpu_submit(two.queue[0], spin_kernel, &spin, 1, &fence));
		while (!((volatile uint64_t *)at)[round % 16 * PAGE / 8])
			usleep(50);
		EXPECT(0, svm_set_attr(two.svm, at, BLOCK, &take[how], 1));
		for (size_t p = 0; p < 16; p++)
			before[p] = *(uint64_t *)(at + p * PAGE);
		EXPECT(how ? -EPERM : -EACCES, gpu_wait(fence, NULL));
		for (size_t p = 0; p < 16; p++)
			CHECK(before[p] == *(uint64_t *)(at + p * PAGE),
			      "round %u: a store after the call", round);
		memset(at, 0, BLOCK);
	}
	two_close(&two);
	return PASS;
}

/* Sum of what the job has stored, by the CPU, with a pause before. */
static uint64_t stored(const struct spin *spin)
{
	uint64_t most = 0;

	usleep(20000);
	for (size_t p = 0; p < 16; p++) {
		uint64_t word = *(volatile uint64_t *)(spin->at + p * PAGE);

		most = word > most ? word : most;
	}
	return most;
}

/* Within five seconds: others may have the CPUs. */
static bool goes_on(const struct spin *spin)
{
	uint64_t before = stored(spin);

	for (unsigned tries = 0; tries < 250; tries++)
		if (stored(spin) > before)
			return true;
	return false;
}

/* A store that had begun may still be made, whenever its SM gets a CPU. */
static bool rests(const struct spin *spin)
{
	uint64_t before = stored(spin), now;

	for (unsigned tries = 0; tries < 20; tries++, before = now) {
		now = stored(spin);
		if (now == before)
			return true;
	}
	return false;
}

/* A job that runs rests, one that is submitted does not begin, and one that ends may. */
enum verdict svm_quiet(const void *arg)
{
	struct spin spin = { .at = two_map(BLOCK) };
	char *late = two_map(PAGE);
	struct gpu_fence *fence[2];
	struct gpu_queue *other;
	struct two two;
	uint64_t seen;

	TRY(two_open(&two, &(struct svm_options){
				   .size = sizeof(struct svm_options), .gpus = GPUS, .sms = 2 }));
	EXPECT(0, gpu_queue_create(svm_gpu(two.svm, 0), &other));
	EXPECT(0, gpu_submit(two.queue[0], spin_kernel, &spin, 1, &fence[0]));
	for (unsigned round = 0; round < 20; round++) {
		CHECK(goes_on(&spin), "it does not run");
		gpu_quiesce(svm_gpu(two.svm, 0));
		CHECK(rests(&spin), "it does not rest");
		gpu_resume(svm_gpu(two.svm, 0));
	}
	gpu_quiesce(svm_gpu(two.svm, 0));
	EXPECT(0, gpu_submit(other, one_kernel, late, 1, &fence[1]));
	CHECK(rests(&spin), "it does not rest");
	seen = stored(&spin);
	atomic_store(&spin.stop, true);
	CHECK(seen == stored(&spin), "it goes on");
	EXPECT(0, *(volatile uint64_t *)late);
	gpu_resume(svm_gpu(two.svm, 0));
	EXPECT(0, gpu_wait(fence[0], NULL));
	EXPECT(0, gpu_wait(fence[1], NULL));
	EXPECT(1, *(uint64_t *)late);
	two_close(&two);
	return PASS;
}

/* ---- without retry faults ---- */

#define NO_XNACK                                                                           \
	(&(struct svm_options){ .size = sizeof(struct svm_options),                        \
				.gpus = GPUS,                                              \
				.sms = 1,                                                  \
				.no_xnack = true,                                          \
				.restore_us = 200,                                         \
				.timeslice_us = 1,                                         \
				.vram_bytes = 4 * BLOCK })

enum verdict svm_restored(const void *arg)
{
	const struct svm_attr both[] = { { SVM_ATTR_ACCESS, 0 }, { SVM_ATTR_IN_PLACE, 1 } };
	char *at = two_map(BLOCK);
	struct svm_stats stats;
	struct two two;

	TRY(two_open(&two, NO_XNACK));
	EXPECT(-EACCES, two_add(&two, 0, at, 1, 1));
	EXPECT(0, svm_set_attr(two.svm, at, 64 * PAGE, both, 2));
	/* Mapped by the call, on both. */
	EXPECT(64, two_mapped(&two, 0, at, 64));
	EXPECT(64, two_mapped(&two, 1, at, 64));
	EXPECT(0, two_add(&two, 0, at, 64, 1));
	EXPECT(0, two_add(&two, 1, at, 64, 1));
	EXPECT(0, two_stats(&two).quiesced);
	EXPECT(-EACCES, two_add(&two, 0, at + 64 * PAGE, 1, 1));
	/* Each change stops the queues, and they go on. */
	SYS(madvise(at, 8 * PAGE, MADV_DONTNEED));
	EXPECT(0, two_add(&two, 0, at, 64, 1));
	CHECK(two_stats(&two).evictions && two_stats(&two).quiesced, "nothing was evicted");
	EXPECT(1, *(uint64_t *)at);
	EXPECT(3, *(uint64_t *)(at + 8 * PAGE));
	/* Pages that move are evicted as well. */
	for (unsigned tries = 0; tries < 100 && two_there(&two, 1, at, 64) != 64; tries++) {
		/* Without perf a madvise is over when its time is. */
		CHECK(svm_prefetch(two.svm, at, 64 * PAGE, 1, 0) >= 0, "prefetch");
		usleep(tries ? 20000 : 0);
	}
	EXPECT(64, two_there(&two, 1, at, 64));
	EXPECT(0, two_add(&two, 0, at, 64, 1));
	EXPECT(0, two_add(&two, 1, at, 64, 1));
	EXPECT(5, *(uint64_t *)(at + 63 * PAGE)); /* and home, by our touch */
	EXPECT(0, two_add(&two, 0, at, 64, 1));
	EXPECT(6, *(uint64_t *)(at + 63 * PAGE));
	/* What is unmapped is no longer registered, whatever is mapped there next. */
	SYS(munmap(at + 4 * PAGE, PAGE));
	EXPECT(-EACCES, two_add(&two, 0, at + 4 * PAGE, 1, 1));
	EXPECT(0, two_add(&two, 0, at + 5 * PAGE, 59, 1));
	SYS(mprotect(at, PAGE, PROT_NONE));
	EXPECT(-EFAULT, two_add(&two, 0, at, 1, 1));
	stats = two_stats(&two);
	CHECK(stats.restored && stats.restored <= stats.evictions, "%llu restored",
	      (unsigned long long)stats.restored);
	two_close(&two);
	return PASS;
}

/* When the queues have gone on. */
static struct svm_stats settled(struct two *two)
{
	struct svm_stats stats = two_stats(two);

	for (unsigned tries = 0; tries < 500 && stats.restored != stats.quiesced; tries++) {
		usleep(10000);
		stats = two_stats(two);
	}
	return stats;
}

/*
 * Since `before` so many ranges were evicted and queues stopped once, or not at all; they have
 * gone on, and all pages are mapped on both. The mirror's messages may be on their way.
 */
static enum verdict counted(struct two *two, const struct svm_stats *before, uint64_t evictions,
			    const char *at, const char *what)
{
	const uint64_t quiesced = before->quiesced + !!evictions;
	struct svm_stats stats;

	EXPECT(SVM_ATTR_ACCESS, two_get(two, at, 64 * PAGE, SVM_ATTR_ACCESS, 0));
	for (unsigned tries = 0; tries < 500; tries++) {
		stats = two_stats(two);
		if (stats.evictions >= before->evictions + evictions &&
		    stats.restored >= quiesced)
			break;
		usleep(10000);
	}
	CHECK(stats.evictions == before->evictions + evictions, "%s: %lld evictions, not %llu",
	      what, (long long)(stats.evictions - before->evictions),
	      (unsigned long long)evictions);
	CHECK(stats.quiesced == quiesced && stats.restored == quiesced,
	      "%s: stopped %lld times, resumed %lld", what,
	      (long long)(stats.quiesced - before->quiesced),
	      (long long)(stats.restored - before->restored));
	for (unsigned gpu = 0; gpu < GPUS; gpu++)
		CHECK(two_mapped(two, gpu, at, 64) == 64, "%s: %ld pages mapped", what,
		      two_mapped(two, gpu, at, 64));
	return PASS;
}

/* One eviction for each change of each mapped range, none for what is no eviction. */
enum verdict svm_counted(const void *arg)
{
	const struct svm_attr both[] = { { SVM_ATTR_ACCESS, 0 }, { SVM_ATTR_ACCESS, 1 } };
	char *at = two_map(BLOCK);
	struct spin spin = { .at = at };
	struct gpu_fence *fence;
	struct svm_stats before;
	struct two two;

	TRY(two_open(&two, NO_XNACK));
	before = two_stats(&two);
	EXPECT(0, svm_set_attr(two.svm, at, 64 * PAGE, both, 2));
	EXPECT(0, two_add(&two, 0, at, 64, 1));
	TRY(counted(&two, &before, 0, at, "registered"));
	SYS(madvise(at, 8 * PAGE, MADV_DONTNEED));
	TRY(counted(&two, &before, 1, at, "a madvise"));
	/* Beside it there is nobody's memory. */
	before = two_stats(&two);
	EXPECT(0, two_get(&two, at + 64 * PAGE, PAGE, SVM_ATTR_SET_FLAGS, 0));
	SYS(madvise(at + 64 * PAGE, 8 * PAGE, MADV_DONTNEED));
	TRY(counted(&two, &before, 0, at, "a madvise beside it"));
	/* Two ranges, and a third that the change does not touch. */
	EXPECT(0, svm_advise(two.svm, at + 16 * PAGE, 16 * PAGE, SVM_ADVISE_PREFERRED, 1));
	before = two_stats(&two);
	SYS(madvise(at + 8 * PAGE, 12 * PAGE, MADV_DONTNEED));
	TRY(counted(&two, &before, 2, at, "a madvise of two ranges"));
	/* A page that goes home for a CPU, and its neighbours with it. */
	for (unsigned tries = 0; tries < 100 && two_there(&two, 1, at, 64) != 64; tries++) {
		CHECK(svm_prefetch(two.svm, at, 64 * PAGE, 1, 0) >= 0, "prefetch");
		usleep(tries ? 20000 : 0);
	}
	before = settled(&two);
	EXPECT(64, two_there(&two, 1, at, 64));
	EXPECT(1, *(volatile uint64_t *)(at + 33 * PAGE));
	TRY(counted(&two, &before, 1, at, "a CPU's fault"));
	before = two_stats(&two);
	EXPECT(1, *(volatile uint64_t *)(at + 34 * PAGE));
	TRY(counted(&two, &before, 0, at, "a CPU's touch of what is at home"));
	/* Attributes that change under a job, which misses, and goes on. */
	EXPECT(0, gpu_submit(two.queue[0], spin_kernel, &spin, 1, &fence));
	CHECK(goes_on(&spin), "it does not run");
	before = settled(&two);
	for (unsigned round = 0; round < 20; round++) {
		EXPECT(0, svm_set_attr(two.svm, at, 64 * PAGE, both, 2));
		EXPECT(0, svm_advise(two.svm, at, 64 * PAGE, SVM_ADVISE_PREFERRED, round % 2));
	}
	TRY(counted(&two, &before, 0, at, "attributes"));
	CHECK(goes_on(&spin), "it does not go on");
	atomic_store(&spin.stop, true);
	EXPECT(0, gpu_wait(fence, NULL));
	before = settled(&two);
	/* What is unmapped is nobody's any more. */
	SYS(munmap(at + 60 * PAGE, PAGE));
	EXPECT(SVM_ATTR_NO_ACCESS, two_get(&two, at + 60 * PAGE, PAGE, SVM_ATTR_ACCESS, 0));
	EXPECT(before.evictions, two_stats(&two).evictions);
	EXPECT(0, two_add(&two, 0, at, 60, 1));
	EXPECT(before.quiesced, two_stats(&two).quiesced);
	two_close(&two);
	return PASS;
}

/* What is mapped anew is nobody's, also if a restore was about to map what was there before. */
enum verdict svm_unregistered(const void *arg)
{
	char *at = two_map(64 * PAGE);
	struct two two;

	TRY(two_open(&two, NO_XNACK));
	for (unsigned round = 0; round < 400; round++) {
		EXPECT(0, svm_advise(two.svm, at, 64 * PAGE, SVM_ADVISE_ACCESSED, 0));
		SYS(madvise(at, 64 * PAGE, MADV_DONTNEED));
		usleep(200 + round % 40 * 20);
		CHECK(mmap(at, 64 * PAGE, RW,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE, -1,
			   0) == at,
		      "mmap: %s", strerror(errno));
		EXPECT(SVM_ATTR_NO_ACCESS, two_get(&two, at, 64 * PAGE, SVM_ATTR_ACCESS, 0));
		usleep(1000);
		EXPECT(0, two_mapped(&two, 0, at, 64));
	}
	two_close(&two);
	return PASS;
}

enum verdict svm_always_mapped(const void *arg)
{
	char *at = two_map(BLOCK);
	struct two two;
	uint64_t faults;

	TRY(two_open(&two, TWO_VRAM));
	EXPECT(0, svm_advise(two.svm, at, 64 * PAGE, SVM_ADVISE_MAPPED, 0));
	EXPECT(64, two_mapped(&two, 0, at, 64));
	EXPECT(64, two_mapped(&two, 1, at, 64));
	faults = two_stats(&two).faults;
	EXPECT(0, two_add(&two, 0, at, 64, 1));
	EXPECT(0, two_add(&two, 1, at, 64, 1));
	EXPECT(faults, two_stats(&two).faults);
	SYS(madvise(at, 8 * PAGE, MADV_DONTNEED));
	EXPECT(0, two_add(&two, 0, at, 64, 1));
	EXPECT(1, *(uint64_t *)at);
	CHECK(two_stats(&two).restored, "nothing was restored");
	/* Beside it faults are retried. */
	EXPECT(0, two_add(&two, 0, at + 64 * PAGE, 8, 1));
	two_close(&two);
	return PASS;
}

/* ---- all at once ---- */

#define STORM_PAGES 64u

struct storm {
	struct two *two;
	char *at, *other;
	atomic_bool stop;
	_Atomic uint64_t changes;
	bool mapped;
};

static void *changer(void *arg)
{
	const int how = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
	struct storm *storm = arg;
	uint64_t n = 1;

	while (!atomic_load(&storm->stop)) {
		char *at = storm->at + n % 8 * 8 * PAGE;
		size_t length = (1 + n % 7) * PAGE;

		n *= UINT64_C(6364136223846793005);
		n += 1442695040888963407;
		switch (n >> 40 & 7) {
		case 0: /* no holes: others map there meanwhile */
			mmap(at, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			     -1, 0);
			mmap(at, length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			     0);
			break;
		case 1:
			madvise(at, length, MADV_DONTNEED);
			break;
		case 2:
			mprotect(at, length, PROT_READ);
			mprotect(at, length, RW);
			break;
		case 3:
			mremap(at, PAGE, PAGE, how, storm->other);
			mremap(storm->other, PAGE, PAGE, how, at);
			break;
		case 4:
			svm_advise(storm->two->svm, at, length, SVM_ADVISE_PREFERRED,
				   n >> 50 & 1);
			break;
		case 5:
			svm_prefetch(storm->two->svm, at, length,
				     n >> 51 & 1 ? SVM_SYSTEM : (uint32_t)(n >> 50 & 1), 0);
			break;
		case 6:
			svm_advise(storm->two->svm, at, length, SVM_ADVISE_NORMAL, 0);
			break;
		default:
			(*(volatile char *)at)++;
		}
		if (storm->mapped)
			for (uint32_t gpu = 0; gpu < GPUS; gpu++)
				svm_advise(storm->two->svm, storm->at, STORM_PAGES * PAGE,
					   SVM_ADVISE_ACCESSED, gpu);
		atomic_fetch_add(&storm->changes, 1);
	}
	return NULL;
}

static enum verdict storm_on(const struct svm_options *from)
{
	struct svm_options options = *from;
	uint64_t end = live_now_ns() + UINT64_C(3000000000), jobs = 0, good = 0;
	struct storm storm = { .mapped = from->no_xnack };
	struct svm_stats stats;
	struct two two;
	pthread_t thread;

	storm.at = two_map(STORM_PAGES * PAGE);
	storm.other = two_map(STORM_PAGES * PAGE);
	options.verify = true;
	TRY(two_open(&two, &options));
	storm.two = &two;
	EXPECT(0, pthread_create(&thread, NULL, changer, &storm));
	while (live_now_ns() < end) {
		int err = two_add(&two, jobs % GPUS, storm.at, STORM_PAGES, 1);

		jobs++;
		good += !err;
		CHECK(!err || err == -EFAULT || err == -EPERM || err == -EACCES ||
			      err == -EBUSY,
		      "a job: %s", hmm_strerror(err));
	}
	atomic_store(&storm.stop, true);
	pthread_join(thread, NULL);
	stats = two_stats(&two);
	EXPECT(0, two_stale(&two));
	CHECK(good && storm.changes > 100, "%llu of %llu jobs, %llu changes",
	      (unsigned long long)good, (unsigned long long)jobs,
	      (unsigned long long)storm.changes);
	CHECK(stats.collected, "nothing was collected");
	/* It ends as it began. */
	SYS(munmap(storm.at, STORM_PAGES * PAGE));
	SYS(munmap(storm.other, STORM_PAGES * PAGE));
	EXPECT(SVM_UNDEFINED,
	       two_get(&two, storm.at, STORM_PAGES * PAGE, SVM_ATTR_PREFERRED, 0));
	EXPECT(0, two_stats(&two).ranges);
	two_close(&two);
	return PASS;
}

enum verdict svm_storm(const void *arg)
{
	return storm_on(TWO_VRAM);
}

enum verdict svm_storm_mapped(const void *arg)
{
	return storm_on(NO_XNACK);
}
