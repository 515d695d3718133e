/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest_away - programs whose own stacks, buffers and heap are away while they use the GPU.
 *
 * The law of the device-memory section of hmm.h: what serves a CPU's fault must not wait for
 * one. A driver that breaks it stops for ever sooner or later, so the alarm is the check,
 * besides every byte.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "selftest.h"

#define USERS 3
#define STACK ((size_t)1 << 20)
#define STACK_USED ((size_t)256 << 10) /* its upper end */
#define OWN_PAGES 16
#define ALL_PAGES (OWN_PAGES + 2) /* behind them: BYTES from a buffer */
#define TURNS 400
#define SECONDS 1 /* or fewer turns, but not fewer than TURNS_LEAST */
#define TURNS_LEAST 20
#define HANG_SECONDS 60 /* far beyond the above, on a slow machine too */
#define BYTES 5000

struct crowd {
	struct vram_test gpu[2];
	atomic_bool stop;
	atomic_int err;
	char *stack[USERS];
	_Atomic uint64_t rounds, moved;
};

struct user {
	struct crowd *crowd;
	struct vram_test *with;
	pthread_t thread;
};

static void note(struct crowd *crowd, int err)
{
	int none = 0;

	if (err)
		atomic_compare_exchange_strong(&crowd->err, &none, err);
}

static void add_word(struct gpu_sm *sm, void *arg, uint64_t page)
{
	uint64_t *word = (uint64_t *)arg + page * WORDS;

	gpu_store_u64(sm, word, gpu_load_u64(sm, word) + 1);
}

/* From and to buffers on this stack, which the GPUs take away now and then. */
static int through_buffers(struct gpu_queue *queue, char *memory, uint64_t round)
{
	char out[BYTES], back[BYTES];
	int err;

	memset(out, (int)round, sizeof(out));
	memset(back, 0, sizeof(back));
	err = gpu_write(queue, memory + 8, out, sizeof(out));
	if (!err)
		err = gpu_read(queue, back, memory + 8, sizeof(back));
	return err ? err : memcmp(out, back, sizeof(out)) ? WRONG : 0;
}

/* A job, and all the calls that need the update lock. */
static int one_round(struct user *user, struct gpu_queue *queue, uint64_t *words,
		     uint64_t round)
{
	struct gpu *gpu = user->with->gpu;
	uint64_t total = 0;
	char *piece = malloc(64 + round % 1000);
	int page, err;

	if (piece)
		memset(piece, 1, 64);
	err = test_run(queue, add_word, words, OWN_PAGES, NULL);
	for (page = 0; page < OWN_PAGES && !err; page++)
		err = words[page * WORDS] == round ? 0 : WRONG;
	if (!err)
		err = through_buffers(queue, (char *)words + OWN_PAGES * PAGE, round);
	if (!err)
		err = gpu_prefetch(gpu, words, OWN_PAGES * PAGE, GPU_WRITE);
	if (!err && gpu_bind(gpu, &total, sizeof(total)) < 0)
		err = WRONG;
	if (!err && !(round % 7))
		err = gpu_set_unmanaged(gpu, PAGE * 16, PAGE);
	if (!err && !(round % 5))
		err = test_run(queue, test_add_atomic, &total, 20, NULL);
	if (!err && total && total != 20)
		err = WRONG;
	if (!err && !(round % 3))
		gpu_migrate(gpu, words, ALL_PAGES * PAGE);
	/* The stack that this runs on. */
	gpu_migrate(gpu, &total, PAGE);
	free(piece);
	return err;
}

static void *user_main(void *arg)
{
	struct user *user = arg;
	uint64_t *words = (uint64_t *)test_map(NULL, ALL_PAGES * PAGE, 0), round = 0;
	struct gpu_queue *queue;
	int err = words ? gpu_queue_create(user->with->gpu, &queue) : -ENOMEM;

	while (!err && !atomic_load(&user->crowd->stop)) {
		err = one_round(user, queue, words, ++round);
		atomic_fetch_add(&user->crowd->rounds, 1);
	}
	note(user->crowd, err);
	if (words)
		munmap(words, ALL_PAGES * PAGE);
	return NULL;
}

static int start_users(struct crowd *crowd, struct user *users, int *started)
{
	pthread_attr_t attr;
	int err = 0;

	for (*started = 0; *started < USERS && !err; *started += !err) {
		struct user *user = &users[*started];

		crowd->stack[*started] = test_map(NULL, STACK, 0);
		if (!crowd->stack[*started])
			return -ENOMEM;
		*user = (struct user){.crowd = crowd, .with = &crowd->gpu[*started % 2]};
		pthread_attr_init(&attr);
		pthread_attr_setstack(&attr, crowd->stack[*started], STACK);
		err = -pthread_create(&user->thread, &attr, user_main, user);
		pthread_attr_destroy(&attr);
	}
	return err;
}

/* Take it all away, again and again; engines die under it. */
static void take_away(struct crowd *crowd)
{
	char *heap = (char *)((uintptr_t)crowd & -(uintptr_t)PAGE);
	time_t end = time(NULL) + SECONDS + 1;
	unsigned turn;

	for (turn = 0; turn < TURNS && !crowd->err && (turn < TURNS_LEAST || time(NULL) < end);
	     turn++) {
		struct gpu *gpu = crowd->gpu[turn / USERS % 2].gpu;
		int64_t n = gpu_migrate(gpu, crowd->stack[turn % USERS] + STACK - STACK_USED,
					STACK_USED);

		crowd->moved += n > 0 ? (uint64_t)n : 0;
		if (turn % 8 == 0)
			gpu_migrate(gpu, heap, 16 * PAGE);
		if (turn % 16 == 0)
			gpu_engine_kill(gpu, GPU_ENGINE_TAKEN + turn / 16 % 4);
		usleep(1000);
	}
}

static int run_crowd(struct crowd *crowd)
{
	struct user users[USERS] = {0};
	int started, i, err = start_users(crowd, users, &started);

	if (!err)
		take_away(crowd);
	atomic_store(&crowd->stop, true);
	for (i = 0; i < started; i++)
		pthread_join(users[i].thread, NULL);
	for (i = 0; i < USERS; i++)
		if (crowd->stack[i])
			munmap(crowd->stack[i], STACK);
	if (!err)
		err = crowd->err;
	if (!err && (!crowd->moved || crowd->rounds < USERS))
		err = WRONG;
	return err;
}

/* ---- what the GPU reads is replaced by what is away ---- */

#define OVER_PAGES 16
#define OVER_ROUNDS 60

struct over {
	uint64_t *words;
	atomic_bool stop;
	_Atomic uint64_t wrong;
};

/* Until told to stop: each page has one value, whichever. */
static void read_on(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct over *over = arg;
	size_t page;

	while (!atomic_load(&over->stop))
		for (page = 0; page < OVER_PAGES; page++)
			if (gpu_load_u64(sm, over->words + page * WORDS) % OVER_PAGES != page)
				atomic_fetch_add(&over->wrong, 1);
}

/*
 * mremap puts pages that are away over pages for which SMs have translations. Until the GPU
 * has been told, an access through an old one sleeps for the reader and the engine, and
 * the invalidate waits for that access: so the engine may not wait for the invalidate.
 */
static int moved_over(struct vram_test *test, struct over *over)
{
	struct gpu_fence *fence;
	uint64_t *from;
	int round, page, err = gpu_submit(test->queue, read_on, over, 1, &fence), job;

	for (round = 0; round < OVER_ROUNDS && !err; round++) {
		from = (uint64_t *)test_map(NULL, OVER_PAGES * PAGE, 0);
		if (!from)
			return -ENOMEM;
		for (page = 0; page < OVER_PAGES; page++)
			from[page * WORDS] = (uint64_t)(round * OVER_PAGES + page);
		gpu_migrate(test->gpu, from, OVER_PAGES * PAGE);
		/* What they replace is system memory, and mapped. */
		for (page = 0; page < OVER_PAGES; page++)
			(void)((volatile uint64_t *)over->words)[page * WORDS];
		gpu_prefetch(test->gpu, over->words, OVER_PAGES * PAGE, GPU_READ);
		if (mremap(from, OVER_PAGES * PAGE, OVER_PAGES * PAGE,
			   MREMAP_MAYMOVE | MREMAP_FIXED, over->words) != over->words)
			err = -errno;
	}
	atomic_store(&over->stop, true);
	/* It may have read while nothing was mapped there. */
	job = gpu_wait(fence, NULL);
	if (!err && job && job != -EFAULT)
		err = job;
	return err ? err : over->wrong ? WRONG : 0;
}

static int test_moved_over(void)
{
	const struct gpu_options options = {
		.size = sizeof(options), .verify = true, .vram_bytes = VRAM};
	struct over over = {.words = (uint64_t *)test_map(NULL, OVER_PAGES * PAGE, 0)};
	struct vram_test test = {0};
	int page, err = over.words ? test_open(&test, &options) : -ENOMEM;

	for (page = 0; page < OVER_PAGES && !err; page++)
		over.words[page * WORDS] = (uint64_t)page;
	if (!err)
		err = moved_over(&test, &over);
	gpu_close(test.gpu);
	if (over.words)
		munmap(over.words, OVER_PAGES * PAGE);
	return err;
}

/* ---- the stacks of SMs do not move, whoever asks ---- */

static void tell_local(struct gpu_sm *sm, void *arg, uint64_t index)
{
	uintptr_t local = (uintptr_t)&local;

	gpu_store(sm, arg, &local, sizeof(local));
}

static int test_stacks_stay(void)
{
	const struct gpu_options options = {.size = sizeof(options), .vram_bytes = VRAM};
	struct vram_test test = {0};
	uintptr_t local = 0;
	int err = test_open(&test, &options);

	if (!err)
		err = test_run(test.queue, tell_local, &local, 1, NULL);
	if (!err &&
	    (!local || gpu_migrate(test.gpu, (void *)(local & -(uintptr_t)PAGE), PAGE) > 0))
		err = WRONG;
	gpu_close(test.gpu);
	return err;
}

static int test_crowd(void)
{
	/* Little memory, so that they also push each other out. */
	struct gpu_options options = {
		.size = sizeof(options), .verify = true, .vram_bytes = 64 * PAGE,
		.migrate_after = 20};
	struct crowd *crowd = calloc(1, sizeof(*crowd));
	int err = crowd ? test_open(&crowd->gpu[0], &options) : -ENOMEM;

	options.vram_host = true;
	if (!err)
		err = test_open(&crowd->gpu[1], &options);
	if (!err)
		err = run_crowd(crowd);
	if (!err &&
	    (test_stats(crowd->gpu[0].gpu).stale || test_stats(crowd->gpu[1].gpu).stale))
		err = WRONG;
	if (crowd) {
		gpu_close(crowd->gpu[0].gpu);
		gpu_close(crowd->gpu[1].gpu);
	}
	free(crowd);
	return err;
}

int test_away(void)
{
	int err;

	alarm(HANG_SECONDS);
	err = test_stacks_stay();
	if (!err)
		err = test_moved_over();
	if (!err)
		err = test_crowd();
	alarm(0);
	return err;
}
