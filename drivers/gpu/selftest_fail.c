/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest_fail - devices that fail, several devices, and atomics.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "selftest.h"

static const struct gpu_options own = {
	.size = sizeof(own), .verify = true, .vram_bytes = VRAM};
static const struct gpu_options host = {
	.size = sizeof(host), .verify = true, .vram_bytes = VRAM, .vram_host = true};

/* Can the kernel read a byte there? SIGBUS for a CPU is EFAULT for a system call. */
static bool is_readable(const void *addr)
{
	int fd[2];
	bool yes;

	if (pipe(fd))
		return false;
	yes = write(fd[1], addr, 1) == 1;
	close(fd[0]);
	close(fd[1]);
	return yes;
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Pages with known words, in video memory. NULL: they are not there. */
static uint64_t *moved_pages(struct gpu *gpu, size_t pages)
{
	uint64_t *words = (uint64_t *)test_map(NULL, pages * PAGE, 0);

	if (!words)
		return NULL;
	test_fill(words, pages);
	if (gpu_migrate(gpu, words, pages * PAGE) == (int64_t)pages)
		return words;
	munmap(words, pages * PAGE);
	return NULL;
}

/* ---- the engine's thread dies, at every step, both ways ---- */

#define KILLED_PAGES 40

static int kill_once(struct vram_test *test, enum gpu_engine_step step, bool homewards)
{
	uint64_t *words = (uint64_t *)test_map(NULL, KILLED_PAGES * PAGE, 0);
	uint64_t deaths = test_stats(test->gpu).engine_deaths;
	int err = words ? 0 : -ENOMEM;

	if (err)
		return err;
	test_fill(words, KILLED_PAGES);
	if (!homewards)
		err = gpu_engine_kill(test->gpu, step);
	if (!err && gpu_migrate(test->gpu, words, KILLED_PAGES * PAGE) != KILLED_PAGES)
		err = WRONG;
	if (!err)
		err = test_run(test->queue, test_add_page, words, KILLED_PAGES, NULL);
	if (!err && homewards)
		err = gpu_engine_kill(test->gpu, step);
	if (!err)
		err = test_check(words, KILLED_PAGES, 1);
	if (!err && test_stats(test->gpu).engine_deaths != deaths + 1)
		err = WRONG;
	munmap(words, KILLED_PAGES * PAGE);
	return err;
}

static int engine_killed(struct vram_test *test)
{
	int step, err = 0;

	for (step = GPU_ENGINE_TAKEN; step <= GPU_ENGINE_COPIED && !err; step++) {
		err = kill_once(test, step, true);
		if (!err && step != GPU_ENGINE_STOPPED)
			err = kill_once(test, step, false);
	}
	return err;
}

/* Host frames: nothing is copied on the way out, so the engine dies on the way home. */
static int engine_killed_host(struct vram_test *test)
{
	int step, err = 0;

	for (step = GPU_ENGINE_TAKEN; step <= GPU_ENGINE_COPIED && !err; step++)
		err = kill_once(test, step, true);
	return err;
}

/* ---- memory that cannot be read back ---- */

static int broken_pages(struct vram_test *test)
{
	uint64_t *words = moved_pages(test->gpu, 16);
	int page, lost = 0, err = words ? 0 : WRONG;

	if (err)
		return err;
	gpu_engine_break(test->gpu, 3);
	for (page = 0; page < 16; page++) {
		if (!is_readable(words + page * WORDS))
			lost++;
		else if (words[page * WORDS + 9] != test_value((size_t)page, 9))
			err = WRONG;
	}
	gpu_engine_break(test->gpu, 0);
	if (!err && lost != 3)
		err = WRONG;
	munmap(words, 16 * PAGE);
	return err;
}

/* ---- the device is gone ---- */

static int died_with(struct vram_test *test, bool host_frames)
{
	uint64_t *words = moved_pages(test->gpu, 16), *other, seen;
	struct gpu_error error = {0};
	int page, err = words ? 0 : WRONG;

	other = (uint64_t *)test_map(NULL, 16 * PAGE, 0);
	if (err || !other)
		return WRONG;
	test_fill(other, 16);
	err = gpu_read(test->queue, &seen, other, 8);
	gpu_die(test->gpu);
	/* Frames of host memory did not die with it: those pages are whole. */
	for (page = 0; page < 16 && !err; page++)
		if (is_readable(words + page * WORDS) &&
		    (!host_frames || words[page * WORDS + 3] != test_value((size_t)page, 3)))
			err = WRONG;
	if (!err && (test_run(test->queue, test_add_page, other, 1, &error) != -ENODEV ||
		     !*error.text || gpu_migrate(test->gpu, other, PAGE) >= 0))
		err = WRONG;
	if (!err)
		err = test_check(other, 16, 0);
	/* What was lost is the program's to give up. */
	if (!err && (munmap(words, 16 * PAGE) ||
		     test_map(words, 16 * PAGE, MAP_FIXED_NOREPLACE) != (char *)words ||
		     words[5]))
		err = WRONG;
	munmap(words, 16 * PAGE);
	munmap(other, 16 * PAGE);
	return err;
}

static int died(struct vram_test *test)
{
	return died_with(test, false);
}

static int died_host(struct vram_test *test)
{
	return died_with(test, true);
}

/* A copy that takes too long is lost like that, and the engine's late answer harms nobody. */
static int too_late(struct vram_test *test)
{
	const struct gpu_options slow = {
		.size = sizeof(slow), .vram_bytes = VRAM, .timeout_ms = 50};
	struct vram_test late = {0};
	uint64_t *words;
	int err = test_open(&late, &slow);

	words = err ? NULL : moved_pages(late.gpu, 4);
	if (!err && !words)
		err = WRONG;
	if (!err) {
		gpu_engine_stall(late.gpu, 300);
		err = is_readable(words) ? WRONG : 0;
		gpu_engine_stall(late.gpu, 0);
	}
	gpu_close(late.gpu);
	if (words)
		munmap(words, 4 * PAGE);
	return err;
}

/* ---- close: everything comes home, the process lives on ---- */

static int closed(struct vram_test *test)
{
	struct vram_test ending = {0};
	uint64_t *words;
	int err = test_open(&ending, &host);

	if (err)
		return err;
	words = moved_pages(ending.gpu, 100);
	gpu_close(ending.gpu);
	err = words ? test_check(words, 100, 0) : WRONG;
	/* And what was home already is another GPU's to use. */
	if (!err)
		err = test_run(test->queue, test_add_page, words, 100, NULL);
	if (!err)
		err = test_check(words, 100, 1);
	if (words)
		munmap(words, 100 * PAGE);
	return err;
}

/* ---- two GPUs: what is in the one's memory comes by way of the host ---- */

static int two_gpus(struct vram_test *test)
{
	struct vram_test other = {0};
	uint64_t *words = NULL;
	int round, err = test_open(&other, &host);

	if (!err)
		words = moved_pages(test->gpu, 64);
	if (!err && !words)
		err = WRONG;
	for (round = 0; round < 10 && !err; round++) {
		struct vram_test *who = round & 1 ? test : &other;

		if (round >= 4 && gpu_migrate(who->gpu, words, 64 * PAGE) != 64)
			err = WRONG;
		if (!err)
			err = test_run(who->queue, test_add_page, words, 64, NULL);
		if (!err && round >= 4 && !test_there(who->gpu, words + 63 * WORDS))
			err = WRONG;
	}
	if (!err)
		err = test_check(words, 64, 10);
	if (words)
		munmap(words, 64 * PAGE);
	gpu_close(other.gpu);
	return err;
}

/* ---- a page that has just come stays for a while ---- */

#define SLICE_US 50000

static int timeslice(struct vram_test *test)
{
	const struct gpu_options options = {
		.size = sizeof(options), .vram_bytes = VRAM, .timeslice_us = SLICE_US};
	struct vram_test slow = {0};
	uint64_t *words = NULL, start = 0, took;
	int err = test_open(&slow, &options);

	if (!err) {
		words = (uint64_t *)test_map(NULL, PAGE, 0);
		err = words ? 0 : -ENOMEM;
	}
	if (!err) {
		words[0] = 1;
		start = now_us();
		err = gpu_migrate(slow.gpu, words, PAGE) == 1 ? 0 : WRONG;
	}
	if (!err) {
		words[0]++;
		took = now_us() - start;
		err = words[0] != 2 || took < SLICE_US ? WRONG : 0;
	}
	if (words)
		munmap(words, PAGE);
	gpu_close(slow.gpu);
	return err;
}

/* ---- atomics ---- */

#define ADDS 5000

/* The GPU's and the CPU's, on one word. */
static int add_both(struct vram_test *test, uint64_t *word)
{
	struct gpu_fence *fence;
	uint64_t i, before = *word;
	int err = gpu_submit(test->queue, test_add_atomic, word, ADDS, &fence);

	for (i = 0; i < ADDS && !err; i++)
		__atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
	if (!err)
		err = gpu_wait(fence, NULL);
	return err ? err : *word - before == 2 * ADDS ? 0 : WRONG;
}

/* One page at which GPU and CPU take turns: in the end it stays with the CPU. */
static int contested(struct vram_test *test)
{
	uint64_t *word = (uint64_t *)test_map(NULL, PAGE, 0);
	uint64_t fallbacks = test_stats(test->gpu).atomic_fallbacks;
	int turn, err = word ? 0 : -ENOMEM;

	for (turn = 0; turn < 1000 && !err; turn++) {
		err = test_run(test->queue, test_add_atomic, word, 1, NULL);
		if (!err && __atomic_add_fetch(word, 1, __ATOMIC_SEQ_CST) !=
				    2 * (uint64_t)turn + 2)
			err = WRONG;
	}
	if (!err && test_stats(test->gpu).atomic_fallbacks == fallbacks)
		err = WRONG;
	if (word)
		munmap(word, PAGE);
	return err == -EOPNOTSUPP ? 0 : err;
}

static int atomics(struct vram_test *test)
{
	uint64_t *alone = (uint64_t *)test_map(NULL, PAGE, 0);
	uint64_t *shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				-1, 0);
	struct gpu_stats before = test_stats(test->gpu), after;
	int err = alone && shared != MAP_FAILED ? 0 : -ENOMEM;

	if (err)
		return err;
	err = add_both(test, alone); /* a page of its own */
	after = test_stats(test->gpu);
	if (!err && (after.exclusive == before.exclusive || !after.exclusive_returned))
		err = WRONG;
	if (!err && gpu_migrate(test->gpu, alone, PAGE) != 1)
		err = WRONG;
	before = test_stats(test->gpu);
	if (!err)
		err = test_run(test->queue, test_add_atomic, alone, ADDS, NULL);
	after = test_stats(test->gpu); /* in video memory: nothing has to move for it */
	if (!err && (after.exclusive != before.exclusive || *alone != 3 * ADDS))
		err = WRONG;
	if (!err) {
		err = add_both(test, shared);
		/* Where there is no recoverable atomic, it says so. */
		err = err == -EOPNOTSUPP ? 0 : err;
		if (!err && test_stats(test->gpu).atomic_fallbacks == before.atomic_fallbacks)
			err = WRONG;
	}
	munmap(alone, PAGE);
	munmap(shared, PAGE);
	return err;
}

/* More pages than there are exclusive frames: the oldest make room. */
static void add_everywhere(struct gpu_sm *sm, void *arg, uint64_t page)
{
	gpu_atomic_add_u64(sm, (uint64_t *)arg + page * WORDS, page);
}

static int many_atomics(struct vram_test *test)
{
	const size_t pages = 1500;
	uint64_t *words = (uint64_t *)test_map(NULL, pages * PAGE, 0);
	struct gpu_stats before = test_stats(test->gpu);
	size_t page;
	int err = words ? test_run(test->queue, add_everywhere, words, pages, NULL) : -ENOMEM;

	if (!err && test_stats(test->gpu).exclusive - before.exclusive < pages)
		err = WRONG;
	for (page = 0; page < pages && !err; page++)
		err = words[page * WORDS] == page ? 0 : WRONG;
	if (words)
		munmap(words, pages * PAGE);
	return err;
}

static const struct step {
	const char *what;
	int (*run)(struct vram_test *test);
	const struct gpu_options *options;
} steps[] = {
	{"the engine dies at each step", engine_killed, &own},
	{"the engine dies at each step, host frames", engine_killed_host, &host},
	{"pages that cannot be read back", broken_pages, &own},
	{"the device dies", died, &own},
	{"the device dies, host frames", died_host, &host},
	{"a copy that takes too long", too_late, &own},
	{"close with a live process", closed, &own},
	{"two GPUs", two_gpus, &own},
	{"time slice", timeslice, &own},
	{"atomics of GPU and CPU", atomics, &own},
	{"atomics of GPU and CPU in turns", contested, &own},
	{"atomics on many pages", many_atomics, &own},
};

int test_fail(char *why, size_t size)
{
	size_t i;

	for (i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		struct vram_test test = {0};
		int err = test_open(&test, steps[i].options);

		if (!err)
			err = steps[i].run(&test);
		if (!err && test_stats(test.gpu).stale)
			err = WRONG;
		gpu_close(test.gpu);
		if (err) {
			snprintf(why, size, "%s: %s", steps[i].what,
				 err == -EIO ? test_where() : hmm_strerror(err));
			return err;
		}
	}
	return 0;
}
