/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of gpu - what `uhmm drivers --selftest gpu` runs: programs as a user of the
 * GPU writes them, each on memory of another sort.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/driver.h>

#include "selftest.h"

struct test {
	struct gpu *gpu;
	struct gpu_queue *queue, *other;
};

char *test_map(void *where, size_t size, int flags)
{
	void *memory = mmap(where, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static char where[32];

int test_wrong(int line)
{
	snprintf(where, sizeof(where), "wrong answer (line %d)", line);
	return -EIO;
}

const char *test_where(void)
{
	return where;
}

int test_run(struct gpu_queue *queue, gpu_kernel kernel, void *arg, uint64_t count,
	     struct gpu_error *error)
{
	struct gpu_fence *fence;
	int err = gpu_submit(queue, kernel, arg, count, &fence);

	return err ? err : gpu_wait(fence, error);
}

/* ---- a linked list in malloc's memory, followed by its own pointers ---- */

#define NODES 20000

struct node {
	struct node *next;
	uint64_t value;
};

struct list_job {
	struct node *head;
	uint64_t sum;
};

static void sum_list(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct list_job *job = arg;
	struct node *node = gpu_load_ptr(sm, &job->head);
	uint64_t sum = 0;

	while (node) {
		sum += gpu_load_u64(sm, &node->value);
		node = gpu_load_ptr(sm, &node->next);
	}
	gpu_store_u64(sm, &job->sum, sum);
}

static int linked_list(struct test *test)
{
	struct list_job job = {0};
	struct node *node;
	uint64_t i, want = 0;
	int err;

	for (i = 1; i <= NODES; i++) {
		node = malloc(sizeof(*node) + i % 100);
		if (!node)
			return -ENOMEM;
		*node = (struct node){.next = job.head, .value = i};
		job.head = node;
		want += i;
	}
	err = test_run(test->queue, sum_list, &job, 1, NULL);
	while ((node = job.head)) {
		job.head = node->next;
		free(node);
	}
	return err ? err : job.sum == want ? 0 : WRONG;
}

/* ---- a bad pointer ends its job with a reason; the other queue lives on ---- */

#define ADDS 20000

static void add_one(struct gpu_sm *sm, void *arg, uint64_t index)
{
	gpu_atomic_add_u64(sm, arg, index);
}

static int bad_pointer(struct test *test)
{
	char *hole = test_map(NULL, 2 * PAGE, 0);
	struct list_job job = {.head = (struct node *)(hole + PAGE)};
	struct gpu_error error = {0};
	struct gpu_fence *fence;
	uint64_t total = 0;
	int bad, err;

	if (!hole)
		return -ENOMEM;
	munmap(hole + PAGE, PAGE);
	err = gpu_submit(test->other, add_one, &total, ADDS, &fence);
	if (!err) {
		bad = test_run(test->queue, sum_list, &job, 1, &error);
		err = gpu_wait(fence, NULL);
		if (bad != -EFAULT || error.reason != HMM_REASON_NO_MAPPING ||
		    error.addr / PAGE != (uintptr_t)(hole + PAGE) / PAGE || !*error.text)
			err = WRONG;
	}
	munmap(hole, PAGE);
	return err ? err : total == (uint64_t)ADDS * (ADDS - 1) / 2 ? 0 : WRONG;
}

/* ---- memory that goes and comes at the same address ---- */

#define ROUNDS 1000

static int remapped(struct test *test)
{
	char *memory = test_map(NULL, 16 * PAGE, 0);
	uint64_t i, seen = 0;
	int err = memory ? 0 : -ENOMEM;

	for (i = 1; i <= ROUNDS && !err; i++) {
		*(uint64_t *)(memory + PAGE) = i;
		err = gpu_read(test->queue, &seen, memory + PAGE, sizeof(seen));
		if (!err && seen != i)
			err = WRONG;
		if (munmap(memory, 16 * PAGE) ||
		    test_map(memory, 16 * PAGE, MAP_FIXED_NOREPLACE) != memory)
			err = WRONG;
		gpu_verify_mark(test->gpu, memory, 16 * PAGE);
		if (!err)
			err = gpu_read(test->queue, &seen, memory + PAGE, sizeof(seen));
		if (!err && seen)
			err = WRONG;
	}
	if (memory)
		munmap(memory, 16 * PAGE);
	return err;
}

/* ---- permissions: a submitted job obeys the last mprotect ---- */

static int protections(struct test *test)
{
	char *memory = test_map(NULL, PAGE, 0);
	uint64_t word = 7;
	int i, err = memory ? 0 : -ENOMEM;

	for (i = 0; i < 100 && !err; i++) {
		err = gpu_write(test->queue, memory, &word, sizeof(word));
		if (!err && mprotect(memory, PAGE, PROT_READ))
			err = -errno;
		if (!err && gpu_write(test->queue, memory, &word, sizeof(word)) != -EPERM)
			err = WRONG;
		if (!err && mprotect(memory, PAGE, PROT_READ | PROT_WRITE))
			err = -errno;
	}
	if (memory)
		munmap(memory, PAGE);
	return err;
}

/* ---- one sum by all SMs, and by the CPU beside them ---- */

static int atomics(struct test *test)
{
	uint64_t total = 0, i;
	struct gpu_fence *fence;
	int err = gpu_submit(test->queue, add_one, &total, ADDS, &fence);

	if (err)
		return err;
	for (i = 0; i < ADDS; i++)
		__atomic_fetch_add(&total, 1, __ATOMIC_SEQ_CST);
	err = gpu_wait(fence, NULL);
	if (err == -EOPNOTSUPP)
		return 0; /* no recoverable atomic on this architecture, and it says so */
	return err ? err : total == (uint64_t)ADDS * (ADDS - 1) / 2 + ADDS ? 0 : WRONG;
}

/* ---- memory in 2 MiB pages ---- */

struct block_job {
	uint64_t *words;
	uint64_t sum;
};

static void fill(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct block_job *job = arg;

	gpu_store_u64(sm, &job->words[index * (PAGE / 8)], index + 1);
}

static void sum_up(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct block_job *job = arg;
	uint64_t word = gpu_load_u64(sm, &job->words[index * (PAGE / 8)]);

	gpu_atomic_add_u64(sm, &job->sum, word);
}

/*
 * One entry stands for the block; when a piece goes, the entry goes as a whole, and
 * what TLBs took out of it elsewhere in the block must go too: nobody would look for it
 * when the rest follows.
 */
static int huge_block(struct test *test, char *block)
{
	struct block_job job = {.words = (uint64_t *)block};
	uint64_t pages = HUGE / PAGE;
	int err;

	/* Advice: where it is not taken the block is 4 KiB pages, and must work too. */
	madvise(block, HUGE, MADV_HUGEPAGE);
	memset(block, 0xff, HUGE);
	err = test_run(test->queue, fill, &job, pages, NULL);
	if (!err)
		err = test_run(test->queue, sum_up, &job, pages, NULL);
	if (err)
		return err == -EOPNOTSUPP ? 0 : err;
	if (job.sum != pages * (pages + 1) / 2)
		return WRONG;
	if (madvise(block + 16 * PAGE, PAGE, MADV_DONTNEED) ||
	    madvise(block, HUGE, MADV_DONTNEED))
		return -errno;
	gpu_verify_mark(test->gpu, block, HUGE);
	job.sum = 0;
	err = test_run(test->queue, sum_up, &job, pages, NULL);
	return err ? err : job.sum ? WRONG : 0;
}

static int huge_pages(struct test *test)
{
	char *memory = test_map(NULL, 3 * HUGE, MAP_NORESERVE);
	int err;

	if (!memory)
		return -ENOMEM;
	err = huge_block(test, (char *)(((uintptr_t)memory + HUGE - 1) & -HUGE));
	munmap(memory, 3 * HUGE);
	return err;
}

/* ---- bind: a sparse range costs what is in it, and is mapped without a fault ---- */

#define SPARSE ((size_t)1 << 36)
#define TOUCHED 64

static int sparse_bind(struct test *test)
{
	struct gpu_stats before = {.size = sizeof(before)}, after = {.size = sizeof(after)};
	char *memory = test_map(NULL, SPARSE, MAP_NORESERVE);
	size_t i, step = SPARSE / TOUCHED;
	int64_t bound;
	int err = 0;

	if (!memory)
		return -ENOMEM;
	madvise(memory, SPARSE, MADV_NOHUGEPAGE);
	for (i = 0; i < TOUCHED; i++)
		memory[i * step] = (char)(i + 1);
	bound = gpu_bind(test->gpu, memory, SPARSE);
	if (bound != TOUCHED)
		err = bound < 0 ? (int)bound : WRONG;
	gpu_get_stats(test->gpu, &before);
	for (i = 0; i < TOUCHED && !err; i++) {
		char seen;

		err = gpu_read(test->queue, &seen, memory + i * step, 1);
		if (!err && seen != (char)(i + 1))
			err = WRONG;
	}
	gpu_get_stats(test->gpu, &after);
	if (!err && after.faults != before.faults)
		err = WRONG;
	munmap(memory, SPARSE);
	return err;
}

static const struct step {
	const char *what;
	int (*run)(struct test *test);
} steps[] = {
	{"linked list by its own pointers", linked_list},
	{"bad pointer ends one job only", bad_pointer},
	{"memory mapped anew is seen anew", remapped},
	{"mprotect holds for the next job", protections},
	{"atomics of all SMs and the CPU", atomics},
	{"2 MiB pages", huge_pages},
	{"sparse bind", sparse_bind},
};

static int run_steps(struct test *test, char *why, size_t size)
{
	struct gpu_stats stats = {.size = sizeof(stats)};
	size_t i;
	int err = gpu_queue_create(test->gpu, &test->queue);

	if (!err)
		err = gpu_queue_create(test->gpu, &test->other);
	for (i = 0; i < sizeof(steps) / sizeof(*steps) && !err; i++) {
		err = steps[i].run(test);
		if (err)
			snprintf(why, size, "%s: %s", steps[i].what,
				 err == -EIO ? test_where() : hmm_strerror(err));
	}
	gpu_get_stats(test->gpu, &stats);
	if (!err && stats.stale) {
		snprintf(why, size, "%llu stale accesses", (unsigned long long)stats.stale);
		err = -EIO;
	}
	if (!err)
		snprintf(why, size, "%zu steps, %llu faults, %llu shootdowns, 0 stale", i,
			 (unsigned long long)stats.faults,
			 (unsigned long long)stats.shootdowns);
	return err;
}

static bool can_move(void)
{
	const struct gpu_options options = {.size = sizeof(options), .vram_bytes = VRAM};
	struct gpu *gpu = NULL;
	int err = gpu_open(&options, &gpu);

	gpu_close(gpu);
	if (err)
		fprintf(stderr, "gpu: video memory is not tested: %s\n", hmm_strerror(err));
	return err != -EPERM && err != -EOPNOTSUPP;
}

static int selftest(char *why, size_t size)
{
	const struct gpu_options options = {.size = sizeof(options), .verify = true};
	struct test test = {0};
	int err = gpu_open(&options, &test.gpu);

	if (err) {
		snprintf(why, size, "open: %s", hmm_strerror(err));
		return err;
	}
	err = run_steps(&test, why, size);
	gpu_close(test.gpu); /* and the queues with it */
	/* Where pages cannot be moved at all there is no video memory to test. */
	if (!err && can_move())
		err = test_vram(why, size);
	if (!err && can_move())
		err = test_fail(why, size);
	if (!err && can_move()) {
		err = test_away();
		if (err)
			snprintf(why, size, "stacks and heap away: %s",
				 err == -EIO ? test_where() : hmm_strerror(err));
	}
	return err;
}

extern const struct uhmm_driver uhmm_driver_gpu;
const struct uhmm_driver uhmm_driver_gpu = {
	.name = "gpu",
	.stands_for = "nouveau SVM",
	.what = "software GPU: SMs with TLBs, page table, fault buffer, replay and cancel",
	.usable = uhmm_driver_needs_mirror,
	.selftest = selftest,
};
