/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of svm - what `uhmm drivers --selftest svm` runs, and a program that shows how
 * it is used: one array, two GPUs, and the attributes that say who has it where.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/driver.h>
#include <uhmm/svm.h>

#define PAGE ((size_t)4096)
#define BLOCK ((size_t)2 << 20)
#define WORDS (BLOCK / sizeof(uint64_t))
#define STEP 64 /* words of one index */
#define UNOPENED (~0u) /* instead of a step */

struct test {
	struct svm *svm;
	struct gpu_queue *queue[2];
	uint64_t *data; /* BLOCK bytes, aligned to BLOCK */
	char *mapped;
	uint64_t want; /* each word */
};

static void add_one(struct gpu_sm *sm, void *arg, uint64_t index)
{
	uint64_t *word = (uint64_t *)arg + index * STEP, value[STEP];
	unsigned i;

	gpu_load(sm, value, word, sizeof(value));
	for (i = 0; i < STEP; i++)
		value[i]++;
	gpu_store(sm, word, value, sizeof(value));
}

static int run(struct test *test, unsigned gpu)
{
	struct gpu_fence *fence;
	int err = gpu_submit(test->queue[gpu], add_one, test->data, WORDS / STEP, &fence);

	test->want++;
	return err ? err : gpu_wait(fence, NULL);
}

static int check(const struct test *test)
{
	size_t i;

	for (i = 0; i < WORDS; i++) {
		if (test->data[i] != test->want)
			return -EIO;
	}
	return 0;
}

static struct svm_stats stats_of(const struct test *test)
{
	struct svm_stats stats = { .size = sizeof(stats) };

	svm_get_stats(test->svm, &stats);
	return stats;
}

static uint64_t in_vram(const struct test *test, unsigned gpu)
{
	struct gpu_stats stats = { .size = sizeof(stats) };

	gpu_get_stats(svm_gpu(test->svm, gpu), &stats);
	return stats.vram_used;
}

/* A fault brings a chunk of 2 MiB to the GPU that faults; the CPU's touch brings it home.
 */
static int comes_and_goes(struct test *test)
{
	int err = run(test, 0);

	if (err)
		return err;
	if (in_vram(test, 0) != BLOCK / PAGE || !stats_of(test).chunks[0])
		return -EIO;
	err = check(test);
	return err ? err : in_vram(test, 0) == BLOCK / PAGE ? -EIO : 0;
}

/* Preferred there, and used from here: GPU 0 works in GPU 1's memory. */
static int in_peer(struct test *test)
{
	int err = svm_advise(test->svm, test->data, BLOCK, SVM_ADVISE_PREFERRED, 1);

	if (!err)
		err = run(test, 0);
	if (!err && (in_vram(test, 1) != BLOCK / PAGE || in_vram(test, 0)))
		err = -EIO;
	if (!err)
		err = run(test, 1);
	if (!err)
		err = run(test, 0);
	return err ? err : check(test);
}

static int prefetched(struct test *test)
{
	int64_t n = svm_prefetch(test->svm, test->data, BLOCK, 0, SVM_PREFETCH_ALL);

	if (n != (int64_t)(BLOCK / PAGE))
		return n < 0 ? (int)n : -EIO;
	n = svm_prefetch(test->svm, test->data, BLOCK, SVM_SYSTEM, 0);
	if (n != (int64_t)(BLOCK / PAGE) || in_vram(test, 0))
		return n < 0 ? (int)n : -EIO;
	return check(test);
}

/* What attributes forbid ends the job, and nothing else. */
static int forbidden(struct test *test)
{
	int err = svm_advise(test->svm, test->data, BLOCK, SVM_ADVISE_NO_ACCESS, 0);

	if (!err)
		err = run(test, 0) == -EACCES ? 0 : -EIO;
	test->want--;
	if (!err)
		err = svm_advise(test->svm, test->data, BLOCK, SVM_ADVISE_NORMAL, 0);
	if (!err)
		err = svm_advise(test->svm, test->data, BLOCK, SVM_ADVISE_READ_ONLY, 0);
	if (!err)
		err = run(test, 1) == -EPERM ? 0 : -EIO;
	test->want--;
	if (!err)
		err = svm_advise(test->svm, test->data, BLOCK, SVM_ADVISE_READ_WRITE, 0);
	if (!err)
		err = run(test, 1);
	return err ? err : check(test);
}

/* Attributes go with the mapping. */
static int collected(struct test *test)
{
	struct svm_attr attr = { SVM_ATTR_PREFERRED, 0 };
	int err = svm_advise(test->svm, test->data, BLOCK, SVM_ADVISE_PREFERRED, 1);

	if (err)
		return err;
	if (munmap(test->data + WORDS / 2, BLOCK / 2) ||
	    mmap(test->data + WORDS / 2, BLOCK / 2, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return -errno;
	err = svm_get_attr(test->svm, test->data + WORDS / 2, BLOCK / 2, &attr, 1);
	if (!err && attr.value != SVM_UNDEFINED)
		err = -EIO;
	if (!err)
		err = svm_get_attr(test->svm, test->data, BLOCK / 2, &attr, 1);
	return err ? err : attr.value == 1 ? 0 : -EIO;
}

/* Without retry faults: registered memory is mapped, also after it has changed. */
static int restored(struct test *test)
{
	int err = run(test, 0) == -EACCES ? 0 : -EIO;

	test->want = 0;
	if (!err)
		err = svm_advise(test->svm, test->data, BLOCK, SVM_ADVISE_ACCESSED, 0);
	if (!err)
		err = run(test, 0);
	if (!err)
		err = check(test);
	if (!err && madvise(test->data, BLOCK, MADV_DONTNEED))
		err = -errno;
	test->want = 0;
	if (!err)
		err = run(test, 0);
	if (!err)
		err = check(test);
	return err ? err : stats_of(test).restored ? 0 : -EIO;
}

static int try(const struct svm_options *options, int (*const *steps)(struct test *),
	       unsigned n, unsigned *at)
{
	struct test test = { .svm = NULL };
	void *mapped = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	unsigned i;
	int err;

	if (mapped == MAP_FAILED)
		return -errno;
	test.mapped = mapped;
	test.data = (uint64_t *)(test.mapped + (-(uintptr_t)test.mapped & (BLOCK - 1)));
	*at = UNOPENED;
	err = svm_open(options, &test.svm);
	for (i = 0; i < options->gpus && !err; i++)
		err = gpu_queue_create(svm_gpu(test.svm, i), &test.queue[i]);
	for (unsigned step = 0; step < n && !err; step++) {
		*at = step;
		err = steps[step](&test);
	}
	svm_close(test.svm);
	munmap(mapped, 2 * BLOCK);
	return err;
}

static int selftest(char *why, size_t size)
{
	static int (*const retried[])(struct test *) = { comes_and_goes, in_peer,
							 prefetched, forbidden, collected };
	static int (*const stays[])(struct test *) = { forbidden, collected };
	static int (*const mapped[])(struct test *) = { restored };
	const struct svm_options two = {
		.size = sizeof(two), .gpus = 2, .sms = 1, .vram_bytes = 2 * BLOCK
	};
	const struct svm_options no_xnack = {
		.size = sizeof(no_xnack), .gpus = 2, .sms = 1, .no_xnack = true
	};
	struct svm_options none = two;
	unsigned at = 0;
	int err = try(&two, retried, sizeof(retried) / sizeof(retried[0]), &at);

	/* Without privilege or kernel for memory of its own everything stays where it is. */
	none.vram_bytes = 0;
	if (at == UNOPENED && (err == -EPERM || err == -EOPNOTSUPP))
		err = try(&none, stays, sizeof(stays) / sizeof(stays[0]), &at);
	if (err)
		snprintf(why, size, "retry faults, step %u: %s", at, hmm_strerror(err));
	else if ((err = try(&no_xnack, mapped, sizeof(mapped) / sizeof(mapped[0]), &at)))
		snprintf(why, size, "no retry faults, step %u: %s", at, hmm_strerror(err));
	return err;
}

const struct uhmm_driver uhmm_driver_svm = {
	.name = "svm",
	.stands_for = "amdkfd SVM, xe SVM (drm_gpusvm)",
	.what = "shared virtual memory with attributes on software GPUs",
	.usable = uhmm_driver_needs_mirror,
	.selftest = selftest,
};
