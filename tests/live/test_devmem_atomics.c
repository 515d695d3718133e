/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_devmem_atomics - a million increments of the same words, by CPUs and by a GPU: not one is
 * lost, and each finds a value that no other has found.
 *
 * The words lie in a few pages, so that pages go from one to the other while some are quiet: a page
 * that CPUs want again and again ends as system memory, which is atomic too (drivers/gpu, exclusive.c).
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/gpu.h>

#include "live.h"

#define PAGE ((size_t)4096)
#define ROUNDS 40u
#define PAGES 64u	   /* of a round, a word each */
#define EACH UINT64_C(6250) /* increments of each of two CPUs and two jobs, in a round */
#define SUM (4 * EACH)
#define STAY 16u /* increments of a word before the next one's turn */

struct words {
	char *at;
	_Atomic uint8_t *seen; /* a bit for each value of each word; never migrated */
	_Atomic uint64_t twice;
};

static unsigned page_of(uint64_t i)
{
	return (unsigned)(i / STAY % PAGES);
}

static uint64_t *word_of(const struct words *words, unsigned page)
{
	return (uint64_t *)(words->at + page * PAGE + 8 * page);
}

/* The value that an increment has found. */
static void note(struct words *words, unsigned page, uint64_t old)
{
	uint64_t bit = page * SUM + old;

	if (old >= SUM ||
	    (atomic_fetch_or(&words->seen[bit / 8], (uint8_t)(1u << bit % 8)) >> bit % 8 & 1))
		atomic_fetch_add(&words->twice, 1);
}

static void *cpu_main(void *arg)
{
	struct words *words = arg;

	/* The device is slower: it begins, and gets on at each new word. */
	while (!__atomic_load_n(word_of(words, 0), __ATOMIC_SEQ_CST))
		sched_yield();
	for (uint64_t i = 0; i < EACH; i++) {
		if (i % STAY == 0)
			sched_yield();
		note(words, page_of(i),
		     __atomic_fetch_add(word_of(words, page_of(i)), 1, __ATOMIC_SEQ_CST));
	}
	return NULL;
}

static void kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct words *words = arg;
	unsigned page = page_of(index);

	note(words, page, gpu_atomic_add_u64(sm, word_of(words, page), 1));
}

static enum verdict round_of(struct gpu_queue **queue, struct words *words)
{
	struct gpu_fence *fence[2];
	pthread_t cpu[2];
	uint64_t sum = 0;

	for (unsigned k = 0; k < 2; k++)
		EXPECT(0, gpu_submit(queue[k], kernel, words, EACH, &fence[k]));
	for (unsigned k = 0; k < 2; k++)
		EXPECT(0, pthread_create(&cpu[k], NULL, cpu_main, words));
	for (unsigned k = 0; k < 2; k++) {
		struct gpu_error error = { 0 };
		int err = gpu_wait(fence[k], &error);

		CHECK(!err, "a job failed: %s", error.text);
		pthread_join(cpu[k], NULL);
	}
	for (unsigned p = 0; p < PAGES; p++)
		sum += *word_of(words, p);
	CHECK(sum == SUM, "%llu of %llu increments are there", (unsigned long long)sum,
	      (unsigned long long)SUM);
	CHECK(!words->twice, "%llu increments found a value that another had found",
	      (unsigned long long)words->twice);
	return PASS;
}

static enum verdict million(const void *arg)
{
	struct gpu_options options = { .size = sizeof(options), .sms = 2 };
	struct gpu_stats stats = { .size = sizeof(stats) };
	struct words words = { 0 };
	struct gpu_queue *queue[2];
	struct gpu *gpu;
	int err = gpu_open(&options, &gpu);

	if (err)
		return live_skip("no GPU: %s", hmm_strerror(err));
	for (unsigned k = 0; k < 2; k++)
		EXPECT(0, gpu_queue_create(gpu, &queue[k]));
	/* Other pages in each round: the driver remembers what was contested. */
	words.at = live_map(ROUNDS * PAGES * PAGE, PROT_READ | PROT_WRITE);
	words.seen = (void *)live_map(PAGES * SUM / 8, PROT_READ | PROT_WRITE);
	for (unsigned i = 0; i < ROUNDS; i++) {
		TRY(round_of(queue, &words));
		words.at += PAGES * PAGE;
		memset((void *)words.seen, 0, PAGES * SUM / 8);
	}
	gpu_get_stats(gpu, &stats);
	for (unsigned k = 0; k < 2; k++)
		gpu_queue_destroy(queue[k]);
	gpu_close(gpu);
	if (getenv("UHMM_TEST_VERBOSE"))
		fprintf(stderr, "%llu pages made exclusive, %llu returned, %llu fallbacks\n",
			(unsigned long long)stats.exclusive,
			(unsigned long long)stats.exclusive_returned,
			(unsigned long long)stats.atomic_fallbacks);
	/* Without both it was no contest. */
	CHECK(stats.exclusive > PAGES, "%llu pages were the device's alone",
	      (unsigned long long)stats.exclusive);
	CHECK(stats.exclusive_returned > PAGES, "a CPU had %llu of them back",
	      (unsigned long long)stats.exclusive_returned);
	return PASS;
}

int main(int argc, char **argv)
{
	static const struct live_case cases[] = { { .name = "million-increments", .run = million } };

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
