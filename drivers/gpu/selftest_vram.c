/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest_vram - video memory: what moves there is not changed by it, whoever touches it.
 *
 * A page counts as being in video memory if the GPU's translation says so and gpu_peek() finds
 * the right bytes there. Each step has a GPU of its own.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "selftest.h"

int test_open(struct vram_test *test, const struct gpu_options *options)
{
	int err = gpu_open(options, &test->gpu);

	return err ? err : gpu_queue_create(test->gpu, &test->queue);
}

struct gpu_stats test_stats(struct gpu *gpu)
{
	struct gpu_stats stats = {.size = sizeof(stats)};

	gpu_get_stats(gpu, &stats);
	return stats;
}

uint64_t test_value(size_t page, size_t word)
{
	return page * 1000003 + word * 7 + 1;
}

void test_fill(uint64_t *words, size_t pages)
{
	size_t page, word;

	for (page = 0; page < pages; page++)
		for (word = 0; word < WORDS; word++)
			words[page * WORDS + word] = test_value(page, word);
}

/* Every word is what test_fill() and `added` to each made it. */
int test_check(const uint64_t *words, size_t pages, uint64_t added)
{
	size_t page, word;

	for (page = 0; page < pages; page++)
		for (word = 0; word < WORDS; word++)
			if (words[page * WORDS + word] != test_value(page, word) + added)
				return WRONG;
	return 0;
}

bool test_there(struct gpu *gpu, const void *addr)
{
	return hmm_pfn_is_device(gpu_lookup(gpu, addr));
}

/* Every word of a page one more. */
void test_add_page(struct gpu_sm *sm, void *arg, uint64_t page)
{
	uint64_t *words = arg, buffer[WORDS];
	size_t word;

	gpu_load(sm, buffer, words + page * WORDS, PAGE);
	for (word = 0; word < WORDS; word++)
		buffer[word]++;
	gpu_store(sm, words + page * WORDS, buffer, PAGE);
}

/* The first word of a page one more. */
static void add_word(struct gpu_sm *sm, void *arg, uint64_t page)
{
	uint64_t *words = arg;

	gpu_store_u64(sm, &words[page * WORDS], gpu_load_u64(sm, &words[page * WORDS]) + 1);
}

void test_add_atomic(struct gpu_sm *sm, void *arg, uint64_t index)
{
	gpu_atomic_add_u64(sm, arg, 1);
}

/* ---- there and back ---- */

#define PAGES 300

static int compare_peek(struct gpu *gpu, const uint64_t *words, size_t page, uint64_t added)
{
	uint64_t seen[WORDS];
	size_t word;
	int err = gpu_peek(gpu, words + page * WORDS, seen);

	for (word = 0; word < WORDS && !err; word++)
		if (seen[word] != test_value(page, word) + added)
			err = WRONG;
	return err;
}

/* A frame is given back soon after its page is home. */
static int wait_empty(struct gpu *gpu)
{
	int tries = 1000;

	while (test_stats(gpu).vram_used && tries--)
		usleep(1000);
	return test_stats(gpu).vram_used ? WRONG : 0;
}

static int there_and_back(struct vram_test *test)
{
	uint64_t *words = (uint64_t *)test_map(NULL, PAGES * PAGE, 0);
	struct gpu_stats before, after;
	int64_t moved;
	size_t page;
	int err;

	if (!words)
		return -ENOMEM;
	test_fill(words, PAGES);
	moved = gpu_migrate(test->gpu, words, PAGES * PAGE);
	err = moved == PAGES ? 0 : moved < 0 ? (int)moved : WRONG;
	for (page = 0; page < PAGES && !err; page++)
		err = test_there(test->gpu, words + page * WORDS)
			      ? compare_peek(test->gpu, words, page, 0)
			      : WRONG;
	before = test_stats(test->gpu);
	if (!err)
		err = test_run(test->queue, test_add_page, words, PAGES, NULL);
	after = test_stats(test->gpu);
	/* The GPU used it where it was: no fault, and nothing came home for it. */
	if (!err && (after.faults != before.faults || after.cpu_faults != before.cpu_faults ||
		     after.vram_accesses == before.vram_accesses || after.vram_used != PAGES))
		err = WRONG;
	if (!err)
		err = compare_peek(test->gpu, words, PAGES / 2, 1);
	if (!err)
		err = test_check(words, PAGES, 1);
	after = test_stats(test->gpu);
	if (!err && (!after.cpu_faults || test_there(test->gpu, words)))
		err = WRONG;
	if (!err)
		err = wait_empty(test->gpu);
	munmap(words, PAGES * PAGE);
	return err;
}

/* Leave other bytes in every frame. */
static int make_dirty(struct gpu *gpu)
{
	char *memory = test_map(NULL, VRAM, 0);
	int64_t n;

	if (!memory)
		return -ENOMEM;
	memset(memory, 0xee, VRAM);
	n = gpu_migrate(gpu, memory, VRAM);
	munmap(memory, VRAM);
	return n == (int64_t)(VRAM / PAGE) ? wait_empty(gpu) : n < 0 ? (int)n : WRONG;
}

/* By a call instead of a CPU's touch, and what was never touched is zeros there too. */
static int home_by_call(struct vram_test *test)
{
	char *memory = test_map(NULL, 64 * PAGE, 0), page[PAGE];
	int64_t n;
	int i, err = make_dirty(test->gpu);

	if (!memory || err)
		return err ? err : -ENOMEM;
	memory[0] = 1;
	memory[40 * PAGE] = 41;
	n = gpu_migrate(test->gpu, memory, 64 * PAGE);
	if (n != 64)
		err = n < 0 ? (int)n : WRONG;
	if (!err)
		err = gpu_peek(test->gpu, memory + 40 * PAGE, page);
	if (!err && page[0] != 41)
		err = WRONG;
	if (!err)
		err = gpu_peek(test->gpu, memory + 41 * PAGE, page);
	for (i = 0; i < PAGE && !err; i++)
		err = page[i] ? WRONG : 0;
	/* Translations go, bytes stay, bind finds them again. */
	if (!err)
		err = gpu_set_unmanaged(test->gpu, (uintptr_t)memory, 64 * PAGE);
	if (!err)
		err = gpu_set_unmanaged(test->gpu, 0, 0);
	if (!err && (test_there(test->gpu, memory) ||
		     gpu_bind(test->gpu, memory, 64 * PAGE) != 64 ||
		     !test_there(test->gpu, memory + 63 * PAGE)))
		err = WRONG;
	n = gpu_migrate_home(test->gpu, memory, 64 * PAGE);
	if (!err && (n != 64 || test_there(test->gpu, memory)))
		err = n < 0 ? (int)n : WRONG;
	if (!err && (memory[0] != 1 || memory[40 * PAGE] != 41 || memory[41 * PAGE]))
		err = WRONG;
	munmap(memory, 64 * PAGE);
	return err;
}

/* ---- the program changes its mappings while pages are away ---- */

/* Dropped bytes do not return, to the GPU or to the CPU. */
static int dropped(struct vram_test *test)
{
	uint64_t *words = (uint64_t *)test_map(NULL, 32 * PAGE, 0), seen = 1;
	int round, err = words ? 0 : -ENOMEM;

	for (round = 0; round < 50 && !err; round++) {
		test_fill(words, 32);
		if (gpu_migrate(test->gpu, words, 32 * PAGE) <= 0)
			err = WRONG;
		if (round & 1)
			madvise(words, 16 * PAGE, MADV_DONTNEED);
		else if (munmap(words, 16 * PAGE) ||
			 test_map(words, 16 * PAGE, MAP_FIXED_NOREPLACE) != (char *)words)
			err = WRONG;
		gpu_verify_mark(test->gpu, words, 16 * PAGE);
		if (!err)
			err = gpu_read(test->queue, &seen, words + 3 * WORDS, 8);
		if (!err && (seen || words[4 * WORDS] || words[15 * WORDS + 5]))
			err = WRONG;
		if (!err)
			err = gpu_read(test->queue, &seen, words + 17 * WORDS, 8);
		if (!err && (seen != test_value(17, 0) ||
			     words[16 * WORDS] != test_value(16, 0)))
			err = WRONG;
	}
	if (words)
		munmap(words, 32 * PAGE);
	return err;
}

/* mremap takes pages that are away along. */
static int moved_on(struct vram_test *test)
{
	uint64_t *from = (uint64_t *)test_map(NULL, 32 * PAGE, 0), seen = 0;
	uint64_t *to = (uint64_t *)test_map(NULL, 32 * PAGE, 0), *now;
	int err = from && to ? 0 : -ENOMEM;

	if (!err)
		test_fill(from, 32);
	if (!err && gpu_migrate(test->gpu, from, 32 * PAGE) != 32)
		err = WRONG;
	if (!err) {
		now = mremap(from, 32 * PAGE, 32 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		if (now != to)
			return -errno;
		gpu_verify_mark(test->gpu, from, 32 * PAGE);
		gpu_verify_mark(test->gpu, to, 32 * PAGE);
		from = NULL;
	}
	if (!err)
		err = gpu_read(test->queue, &seen, to + 9 * WORDS, 8);
	if (!err && seen != test_value(9, 0))
		err = WRONG;
	if (!err)
		err = test_run(test->queue, test_add_page, to, 32, NULL);
	if (!err)
		err = test_check(to, 32, 1);
	if (from)
		munmap(from, 32 * PAGE);
	if (to)
		munmap(to, 32 * PAGE);
	return err;
}

/* A child has what its parent had, wherever it was. */
static int forked(struct vram_test *test)
{
	uint64_t *words = (uint64_t *)test_map(NULL, 64 * PAGE, 0);
	int status = -1, err = words ? 0 : -ENOMEM;
	pid_t child;

	if (err)
		return err;
	test_fill(words, 64);
	if (gpu_migrate(test->gpu, words, 64 * PAGE) != 64)
		err = WRONG;
	child = err ? -1 : fork();
	if (!child)
		_exit(test_check(words, 64, 0) ? 1 : 0);
	if (child > 0 && (waitpid(child, &status, 0) != child || status))
		err = WRONG;
	if (!err)
		err = test_run(test->queue, test_add_page, words, 64, NULL);
	if (!err)
		err = test_check(words, 64, 1);
	munmap(words, 64 * PAGE);
	return err;
}

/* The kernel reads and writes pages that are away, for system calls. */
static int system_calls(struct vram_test *test)
{
	uint64_t *words = (uint64_t *)test_map(NULL, 8 * PAGE, 0), seen = 0;
	int fd[2], err = words ? 0 : -ENOMEM;

	if (err || pipe(fd))
		return err ? err : -errno;
	test_fill(words, 8);
	if (gpu_migrate(test->gpu, words, 8 * PAGE) != 8)
		err = WRONG;
	if (!err && (write(fd[1], words + 2 * WORDS, PAGE) != PAGE ||
		     gpu_migrate(test->gpu, words, 8 * PAGE) != 8 ||
		     read(fd[0], words + 5 * WORDS, PAGE) != PAGE))
		err = WRONG;
	if (!err)
		err = gpu_read(test->queue, &seen, words + 5 * WORDS + 1, 8);
	if (!err && (seen != test_value(2, 1) ||
		     memcmp(words + 2 * WORDS, words + 5 * WORDS, PAGE)))
		err = WRONG;
	close(fd[0]);
	close(fd[1]);
	munmap(words, 8 * PAGE);
	return err;
}

/* ---- both at once ---- */

#define BOTH_PAGES 32
#define BOTH_ROUNDS 60

/* The GPU adds to the first word of pages, the CPU to the second, while they come and go. */
static int both_at_once(struct vram_test *test)
{
	uint64_t *words = (uint64_t *)test_map(NULL, BOTH_PAGES * PAGE, 0);
	struct gpu_fence *fence;
	int round, page, err = words ? 0 : -ENOMEM;

	for (round = 0; round < BOTH_ROUNDS && !err; round++) {
		gpu_migrate(test->gpu, words, BOTH_PAGES * PAGE);
		err = gpu_submit(test->queue, add_word, words, BOTH_PAGES, &fence);
		for (page = 0; page < BOTH_PAGES && !err; page++)
			((volatile uint64_t *)words)[page * WORDS + 1]++;
		if (!err)
			err = gpu_wait(fence, NULL);
	}
	for (page = 0; page < BOTH_PAGES && !err; page++)
		if (words[page * WORDS] != BOTH_ROUNDS ||
		    words[page * WORDS + 1] != BOTH_ROUNDS)
			err = WRONG;
	if (words)
		munmap(words, BOTH_PAGES * PAGE);
	return err;
}

/* ---- more than there is room for ---- */

static int four_times(struct vram_test *test)
{
	const size_t bytes = 4 * VRAM, pages = bytes / PAGE;
	uint64_t *words = (uint64_t *)test_map(NULL, bytes, 0);
	struct gpu_stats stats;
	size_t at;
	int pass, err = words ? 0 : -ENOMEM;

	if (err)
		return err;
	test_fill(words, pages);
	for (pass = 0; pass < 2 && !err; pass++) {
		for (at = 0; at < bytes && !err; at += HUGE) {
			if (gpu_migrate(test->gpu, (char *)words + at, HUGE) <= 0)
				err = WRONG;
			if (!err)
				err = test_run(test->queue, test_add_page,
					       words + at / 8, HUGE / PAGE, NULL);
		}
	}
	stats = test_stats(test->gpu);
	if (!err && (!stats.evictions || stats.vram_used > stats.vram_frames))
		err = WRONG;
	if (!err)
		err = test_check(words, pages, 2);
	munmap(words, bytes);
	return err;
}

/* ---- by the access counters ---- */

#define PASSES 2000 /* the first block moves after some, how soon is not promised */

static int by_itself(struct vram_test *test)
{
	/* More pages than a TLB has slots, so that each pass misses. */
	const size_t pages = 2 * VRAM / PAGE;
	uint64_t *words = (uint64_t *)test_map(NULL, pages * PAGE, 0);
	struct gpu_stats stats = {0};
	int pass, err = words ? 0 : -ENOMEM;

	if (err)
		return err;
	test_fill(words, pages);
	for (pass = 0; pass < PASSES && !err && (!stats.hot_blocks || !stats.vram_accesses);
	     pass++) {
		err = test_run(test->queue, test_add_page, words, pages, NULL);
		stats = test_stats(test->gpu);
	}
	if (!err && (!stats.hot_blocks || !stats.vram_accesses))
		err = WRONG;
	if (!err)
		err = test_check(words, pages, (uint64_t)pass);
	munmap(words, pages * PAGE);
	return err;
}

/* ---- which steps with which memory ---- */

static const struct gpu_options own = {
	.size = sizeof(own), .verify = true, .vram_bytes = VRAM};
static const struct gpu_options host = {
	.size = sizeof(host), .verify = true, .vram_bytes = VRAM, .vram_host = true};
static const struct gpu_options steps3 = {
	.size = sizeof(steps3), .verify = true, .vram_bytes = VRAM, .three_step = true};
static const struct gpu_options steps3_host = {.size = sizeof(steps3_host),
					       .verify = true,
					       .vram_bytes = VRAM,
					       .vram_host = true,
					       .three_step = true};
static const struct gpu_options counters = {
	.size = sizeof(counters), .verify = true, .vram_bytes = VRAM, .migrate_after = 30};

static const struct step {
	const char *what;
	int (*run)(struct vram_test *test);
	const struct gpu_options *options[5];
} steps[] = {
	{"there and back", there_and_back, {&own, &host, &steps3, &steps3_host}},
	{"home by a call", home_by_call, {&own, &host, &steps3, &steps3_host}},
	{"dropped while away", dropped, {&own, &host, &steps3}},
	{"mremap while away", moved_on, {&own, &host}},
	{"fork while away", forked, {&own, &host}},
	{"system calls on what is away", system_calls, {&own, &host}},
	{"CPU and GPU at once", both_at_once, {&own, &host, &steps3}},
	{"four times as much as there is room for", four_times, {&own, &host, &steps3}},
	{"by the access counters", by_itself, {&counters}},
};

static int run_step(const struct step *step, const struct gpu_options *options)
{
	struct vram_test test = {0};
	int err = test_open(&test, options);

	if (!err)
		err = step->run(&test);
	if (!err && test_stats(test.gpu).stale)
		err = WRONG;
	gpu_close(test.gpu);
	return err;
}

int test_vram(char *why, size_t size)
{
	size_t i, k;
	int err;

	for (i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		for (k = 0; k < 5 && steps[i].options[k]; k++) {
			const struct gpu_options *with = steps[i].options[k];

			err = run_step(&steps[i], with);
			if (!err)
				continue;
			snprintf(why, size, "%s%s%s: %s", steps[i].what,
				 with->vram_host ? ", host frames" : "",
				 with->three_step ? ", in three steps" : "",
				 err == -EIO ? test_where() : hmm_strerror(err));
			return err;
		}
	}
	return 0;
}
