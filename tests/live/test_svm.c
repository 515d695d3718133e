/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_svm - shared virtual memory with attributes on two software GPUs, on real memory.
 *
 *	svm_place.c	where pages go, in which chunks, and who uses them in place
 *	svm_changes.c	what is left when memory and attributes change, under running jobs
 *too
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "svm_live.h"

enum verdict two_open(struct two *two, const struct svm_options *options)
{
	int err = svm_open(options, &two->svm);

	if (err == -EPERM || err == -EOPNOTSUPP)
		return live_skip("no svm: %s", hmm_strerror(err));
	EXPECT(0, err);
	for (unsigned i = 0; i < GPUS; i++)
		EXPECT(0, gpu_queue_create(svm_gpu(two->svm, i), &two->queue[i]));
	return PASS;
}

void two_close(struct two *two)
{
	svm_close(two->svm);
}

char *two_map(size_t length)
{
	char *at = live_map(length + 2 * BLOCK, PROT_NONE);
	char *from = at + (-(uintptr_t)at & (BLOCK - 1));

	if (from == at)
		from += BLOCK;
	/* A guard below it, and a sanitizer's MADV_NOHUGEPAGE, would make it a thread's stack. */
	if (mprotect(from - PAGE, PAGE, PROT_READ) ||
	    mmap(from, length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != from)
		return NULL;
	return from;
}

struct add {
	char *at;
	uint64_t what;
};

static void add_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct add *add = arg;
	uint64_t *word = (uint64_t *)(add->at + index * PAGE);

	gpu_store_u64(sm, word, gpu_load_u64(sm, word) + add->what);
}

int two_add(struct two *two, unsigned gpu, void *at, size_t pages, uint64_t what)
{
	struct add add = { at, what };
	struct gpu_fence *fence;
	int err = gpu_submit(two->queue[gpu], add_kernel, &add, pages, &fence);

	return err ? err : gpu_wait(fence, NULL);
}

int two_load(struct two *two, unsigned gpu, const void *at, uint64_t *word)
{
	return gpu_read(two->queue[gpu], word, at, sizeof(*word));
}

long two_there(struct two *two, unsigned gpu, const void *at, size_t pages)
{
	struct gpu *where[GPU_LOCATE_MAX];
	long n = 0;

	for (size_t p = 0; p < pages; p += GPU_LOCATE_MAX) {
		unsigned some =
			pages - p < GPU_LOCATE_MAX ? (unsigned)(pages - p) : GPU_LOCATE_MAX;

		if (gpu_locate(svm_gpu(two->svm, gpu), (const char *)at + p * PAGE, some,
			       where))
			return -1;
		for (unsigned i = 0; i < some; i++)
			n += where[i] == svm_gpu(two->svm, gpu);
	}
	return n;
}

long two_mapped(struct two *two, unsigned gpu, const void *at, size_t pages)
{
	long n = 0;

	for (size_t p = 0; p < pages; p++)
		n += gpu_lookup(svm_gpu(two->svm, gpu), (const char *)at + p * PAGE) != 0;
	return n;
}

struct svm_stats two_stats(struct two *two)
{
	struct svm_stats stats = { .size = sizeof(stats) };

	svm_get_stats(two->svm, &stats);
	return stats;
}

uint64_t two_stale(struct two *two)
{
	struct gpu_stats stats = { .size = sizeof(stats) };
	uint64_t stale = 0;

	for (unsigned i = 0; i < GPUS; i++) {
		gpu_get_stats(svm_gpu(two->svm, i), &stats);
		stale += stats.stale;
	}
	return stale;
}

int64_t two_get(struct two *two, const void *at, size_t length, uint32_t type,
		uint32_t value)
{
	struct svm_attr attr = { type, value };
	int err = svm_get_attr(two->svm, at, length, &attr, 1);

	if (err)
		return err;
	return type == SVM_ATTR_ACCESS ? attr.type : attr.value;
}

/* ---- calls that are wrong ---- */

static enum verdict bad_calls(const void *arg)
{
	struct svm_attr good = { SVM_ATTR_PREFERRED, 1 };
	struct svm_attr bad[] = { { SVM_ATTR_PREFERRED, 0 }, { 99, 0 } };
	struct svm_options options = *TWO_VRAM;
	char *at = two_map(BLOCK);
	struct two two;
	struct svm *none;

	TRY(two_open(&two, TWO_VRAM));
	EXPECT(-EINVAL, svm_set_attr(two.svm, at, 0, &good, 1));
	EXPECT(-EINVAL, svm_set_attr(two.svm, at + 1, PAGE, &good, 1));
	EXPECT(-EINVAL, svm_set_attr(two.svm, at, PAGE + 1, &good, 1));
	EXPECT(-EINVAL, svm_set_attr(two.svm, at, PAGE, NULL, 1));
	EXPECT(-EOVERFLOW, svm_set_attr(two.svm, at, (size_t)0 - PAGE, &good, 1));
	EXPECT(-EFAULT, svm_set_attr(two.svm, at, 64 * BLOCK, &good, 1));
	EXPECT(-EFAULT, svm_set_attr(two.svm, NULL, PAGE, &good, 1));
	EXPECT(-EINVAL, svm_set_attr(two.svm, at, PAGE, bad, 2));
	EXPECT(-EINVAL, svm_get_attr(two.svm, at, PAGE, bad, 2));
	EXPECT(SVM_UNDEFINED, two_get(&two, at, PAGE, SVM_ATTR_PREFERRED, 0));
	EXPECT(0, svm_set_attr(two.svm, at, PAGE, NULL, 0));
	EXPECT(-EINVAL, svm_advise(two.svm, at, PAGE, SVM_ADVISE_PREFERRED, GPUS));
	EXPECT(-EINVAL, svm_advise(two.svm, at, PAGE, (enum svm_advice)77, 0));
	EXPECT(-EINVAL, svm_advise(two.svm, at, PAGE, SVM_ADVISE_ATOMIC, 4));
	EXPECT(-EINVAL, svm_advise(two.svm, at, 0, SVM_ADVISE_NORMAL, 0));
	EXPECT(-EOVERFLOW, svm_advise(two.svm, at, SIZE_MAX, SVM_ADVISE_NORMAL, 0));
	EXPECT(-EINVAL, svm_prefetch(two.svm, at, PAGE, GPUS, 0));
	EXPECT(-EINVAL, svm_prefetch(two.svm, at, PAGE, SVM_UNDEFINED, 0));
	EXPECT(-EINVAL, svm_prefetch(two.svm, at, PAGE, 0, 2));
	EXPECT(0, two_stats(&two).ranges);
	CHECK(!svm_gpu(two.svm, GPUS), "a GPU that is not there");
	two_close(&two);
	options.gpus = SVM_GPUS_MAX + 1;
	EXPECT(-EINVAL, svm_open(&options, &none));
	options.gpus = 1;
	options.timeslice_us = 2;
	options.timeslice_most_us = 1;
	EXPECT(-EINVAL, svm_open(&options, &none));
	options.timeslice_most_us = 1000001;
	EXPECT(-EINVAL, svm_open(&options, &none));
	options.timeslice_most_us = 0;
	options.vram_bytes = 1;
	EXPECT(-EINVAL, svm_open(&options, &none));
	svm_close(NULL);
	return PASS;
}

static enum verdict no_memory_of_its_own(const void *arg)
{
	const struct svm_options options = { .size = sizeof(options), .gpus = GPUS };
	char *at = two_map(BLOCK);
	struct two two;

	TRY(two_open(&two, &options));
	EXPECT(-ENODEV, svm_prefetch(two.svm, at, PAGE, 0, 0));
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_PREFERRED, 1));
	EXPECT(0, two_add(&two, 0, at, BLOCK_PAGES, 3));
	EXPECT(0, two_add(&two, 1, at, BLOCK_PAGES, 3));
	EXPECT(6, *(uint64_t *)(at + BLOCK - PAGE));
	two_close(&two);
	return PASS;
}

static enum verdict in_child(void *arg)
{
	struct two *two = arg;
	char *at = live_map(PAGE, RW);

	EXPECT(-ENODEV, svm_advise(two->svm, at, PAGE, SVM_ADVISE_NORMAL, 0));
	EXPECT(-ENODEV, two_get(two, at, PAGE, SVM_ATTR_PREFERRED, 0));
	EXPECT(-ENODEV, svm_prefetch(two->svm, at, PAGE, 0, 0));
	two_close(two);
	return PASS;
}

static enum verdict forked(const void *arg)
{
	char *at = two_map(BLOCK);
	struct two two;

	TRY(two_open(&two, TWO_VRAM));
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_PREFERRED, 1));
	EXPECT(0, two_add(&two, 0, at, BLOCK_PAGES, 3));
	TRY(live_child(in_child, &two, 10));
	EXPECT(0, two_add(&two, 0, at, BLOCK_PAGES, 3));
	EXPECT(6, *(uint64_t *)(at + PAGE));
	EXPECT(1, two_get(&two, at, BLOCK, SVM_ATTR_PREFERRED, 0));
	two_close(&two);
	return PASS;
}

/* Mappings and descriptors of the process. */
static unsigned count_lines(const char *command)
{
	FILE *stream = popen(command, "r");
	unsigned n = 0;

	if (!stream || fscanf(stream, "%u", &n) != 1)
		n = 0;
	if (stream)
		pclose(stream);
	return n;
}

static unsigned things(void)
{
	char command[120];

	snprintf(command, sizeof(command), "cat /proc/%d/maps | wc -l", getpid());
	return count_lines(command);
}

static unsigned descriptors(void)
{
	char command[120];

	snprintf(command, sizeof(command), "ls /proc/%d/fd | wc -l", getpid());
	return count_lines(command);
}

/* As many as there can be; the one that cannot is taken back in the middle. */
static enum verdict too_many(const void *arg)
{
	const struct svm_options options = { .size = sizeof(options),
					     .gpus = SVM_GPUS_MAX,
					     .sms = 1,
					     .vram_bytes = PAGE };
	unsigned before[2] = { 0 }, after[2] = { 0 }, n;
	struct svm *svm[16];
	struct two two;
	char *at = two_map(PAGE);

	for (unsigned round = 0; round < 3; round++) {
		int err = 0;

		for (n = 0; n < 16 && !err; n += !err)
			err = svm_open(&options, &svm[n]);
		if (err == -EPERM || err == -EOPNOTSUPP)
			return live_skip("no svm: %s", hmm_strerror(err));
		CHECK(n && (err == -ENOSPC || err == -ENOMEM || err == -EAGAIN),
		      "the %uth svm: %s", n + 1, hmm_strerror(err));
		while (n)
			svm_close(svm[--n]);
		TRY(two_open(&two, TWO_VRAM));
		EXPECT(0, two_add(&two, 0, at, 1, 1));
		two_close(&two);
		EXPECT(round + 1, *(uint64_t *)at);
		memcpy(before, after, sizeof(before));
		after[0] = things();
		after[1] = descriptors();
	}
	/* What the first round needs once the second has; one may still be on its way out. */
	CHECK(after[1] <= before[1] + 1, "%u descriptors, then %u", before[1], after[1]);
	CHECK(after[0] <= before[0] + 2, "%u mappings, then %u", before[0], after[0]);
	return PASS;
}

/* ---- what may be used ---- */

static enum verdict allowed(const void *arg)
{
	char *at = two_map(BLOCK);
	struct two two;
	uint64_t word;

	memset(at, 0, BLOCK);
	TRY(two_open(&two, TWO_VRAM));
	/* The neighbour's fault maps a window: not what is not allowed. */
	EXPECT(0, svm_advise(two.svm, at + 8 * PAGE, 8 * PAGE, SVM_ADVISE_NO_ACCESS, 0));
	EXPECT(0, svm_advise(two.svm, at + 32 * PAGE, 8 * PAGE, SVM_ADVISE_READ_ONLY, 0));
	EXPECT(0, svm_advise(two.svm, at + 48 * PAGE, 8 * PAGE, SVM_ADVISE_READ_MOSTLY, 0));
	EXPECT(0, two_load(&two, 0, at, &word));
	EXPECT(0, two_load(&two, 0, at + 20 * PAGE, &word));
	EXPECT(0, two_mapped(&two, 0, at + 8 * PAGE, 8));
	EXPECT(-EACCES, two_load(&two, 0, at + 9 * PAGE, &word));
	EXPECT(0, two_add(&two, 1, at + 9 * PAGE, 1, 5));
	EXPECT(0, two_load(&two, 0, at + 33 * PAGE, &word));
	EXPECT(-EPERM, two_add(&two, 0, at + 33 * PAGE, 1, 5));
	EXPECT(-EPERM, two_add(&two, 1, at + 33 * PAGE, 1, 5));
	EXPECT(0, two_load(&two, 0, at + 49 * PAGE, &word));
	CHECK(!(gpu_lookup(svm_gpu(two.svm, 0), at + 49 * PAGE) & HMM_PFN_WRITE),
	      "a read of a read-mostly page maps it writable");
	EXPECT(0, two_there(&two, 0, at + 48 * PAGE, 8));
	EXPECT(0, two_add(&two, 0, at + 49 * PAGE, 1, 5));
	CHECK(gpu_lookup(svm_gpu(two.svm, 0), at + 49 * PAGE) & HMM_PFN_WRITE,
	      "a write of a read-mostly page does not");
	EXPECT(5, *(uint64_t *)(at + 9 * PAGE));
	EXPECT(0, *(uint64_t *)(at + 33 * PAGE));
	EXPECT(5, *(uint64_t *)(at + 49 * PAGE));
	EXPECT(3, two_stats(&two).denied);
	/* And all of it is again, at once. */
	EXPECT(0, svm_advise(two.svm, at, BLOCK, SVM_ADVISE_NORMAL, 0));
	EXPECT(0, two_stats(&two).ranges);
	EXPECT(0, two_add(&two, 0, at, BLOCK_PAGES, 1));
	EXPECT(6, *(uint64_t *)(at + 9 * PAGE));
	two_close(&two);
	return PASS;
}

/* A bad pointer ends its job and nothing else. */
static enum verdict bad_pointer(const void *arg)
{
	char *at = two_map(BLOCK);
	struct two two;
	uint64_t word;

	TRY(two_open(&two, TWO_VRAM));
	EXPECT(-EFAULT, two_load(&two, 0, (void *)64, &word));
	EXPECT(-EFAULT, two_load(&two, 1, at + BLOCK, &word));
	EXPECT(0, two_add(&two, 0, at, 1, 1));
	SYS(mprotect(at, PAGE, PROT_READ));
	EXPECT(-EPERM, two_add(&two, 1, at, 1, 1));
	EXPECT(1, *(uint64_t *)at);
	two_close(&two);
	return PASS;
}

static const struct live_case cases[] = {
	{ "bad calls", bad_calls, NULL, 0 },
	{ "no memory of its own", no_memory_of_its_own, NULL, 0 },
	{ "a forked child", forked, NULL, 0 },
	{ "too many", too_many, NULL, 0 },
	{ "what attributes allow", allowed, NULL, 0 },
	{ "a bad pointer", bad_pointer, NULL, 0 },
	{ "chunks", svm_chunks, NULL, 0 },
	{ "best location", svm_best, NULL, 0 },
	{ "peers", svm_peers, NULL, 0 },
	{ "peers in host memory", svm_peers, "host", 0 },
	{ "peers under a CPU", svm_peers_racing, NULL, 0 },
	{ "no peers", svm_no_peers, NULL, 0 },
	{ "all or nothing", svm_all_or_nothing, NULL, 0 },
	{ "large granules", svm_granules, NULL, 0 },
	{ "a CPU's granule", svm_followed, NULL, 0 },
	{ "all or nothing by faults", svm_whole_by_fault, NULL, 0 },
	{ "atomics by attributes", svm_atomics, NULL, 0 },
	{ "atomics without retry faults", svm_atomics_mapped, NULL, 0 },
	{ "pressure", svm_pressure, NULL, 0 },
	{ "two GPUs fight", svm_fight, NULL, 0 },
	{ "fallback", svm_fallback, NULL, 0 },
	{ "collected", svm_collected, NULL, 0 },
	{ "duplicates, and faults older than an unmap", svm_filters, NULL, 0 },
	{ "quiet queues", svm_quiet, NULL, 0 },
	{ "revoked under a job", svm_revoked, NULL, 0 },
	{ "evicted and restored", svm_restored, NULL, 0 },
	{ "evictions are counted", svm_counted, NULL, 0 },
	{ "unregistered while it is mapped", svm_unregistered, NULL, 0 },
	{ "always mapped", svm_always_mapped, NULL, 0 },
	{ "storm", svm_storm, NULL, 0 },
	{ "storm without retry faults", svm_storm_mapped, NULL, 0 },
};

int main(int argc, char **argv)
{
	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
