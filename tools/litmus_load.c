// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_load - threads beside the test.
 *
 * The load maps, mirrors, zaps and unmaps memory of its own, which gives the reader and the
 * worker something else to do, and burns CPU in bursts of random length, so that the
 * threads of the test are preempted at random places. It rests between the bursts: the
 * races are between threads that run, and a machine that is never idle makes rounds only
 * slow.
 *
 * An actor is a thread that makes one change when told to: the other thread of a race, or
 * one that is older than the mirror.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "common.h"
#include "litmus.h"

#define LOAD_BYTES (16 * LITMUS_PAGE)
#define BURN_NS 200000 /* at most */
#define REST_NS 300000 /* at most */
#define SPIN_NS 100000 /* how long an actor and its caller wait awake for each other */

struct litmus_load {
	struct litmus_dev *dev;
	atomic_bool stop;
	atomic_int err;
	unsigned count;
	pthread_t threads[];
};

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void burn(uint64_t ns)
{
	uint64_t end = tool_now() + ns;

	while (tool_now() < end)
		;
}

static int load_once(struct litmus_load *load, uint64_t *random)
{
	struct timespec rest = { .tv_nsec = (long)(next_random(random) % REST_NS) };
	char *memory = mmap(NULL, LOAD_BYTES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t value;
	int err;

	if (memory == MAP_FAILED)
		return -errno;
	*memory = 1;
	err = litmus_dev_read(load->dev, memory, &value);
	burn(next_random(random) % BURN_NS);
	if (!err && (next_random(random) & 1)) {
		madvise(memory, LOAD_BYTES, MADV_DONTNEED);
		err = litmus_dev_read(load->dev, memory, &value);
	}
	munmap(memory, LOAD_BYTES);
	nanosleep(&rest, NULL);
	return err;
}

static void *load_thread(void *arg)
{
	struct litmus_load *load = arg;
	uint64_t random = tool_now() | 1;
	int err = 0;

	while (!err && !atomic_load(&load->stop))
		err = load_once(load, &random);
	if (err)
		atomic_store(&load->err, err);
	return NULL;
}

int litmus_load_start(struct litmus_dev *dev, unsigned threads, struct litmus_load **out)
{
	struct litmus_load *load = tool_alloc(sizeof(*load) + threads * sizeof(pthread_t));
	int err;

	load->dev = dev;
	for (; load->count < threads; load->count++) {
		err = pthread_create(&load->threads[load->count], NULL, load_thread, load);
		if (err) {
			litmus_load_stop(load);
			return -err;
		}
	}
	*out = load;
	return 0;
}

int litmus_load_stop(struct litmus_load *load)
{
	int err;

	if (!load)
		return 0;
	atomic_store(&load->stop, true);
	for (unsigned i = 0; i < load->count; i++)
		pthread_join(load->threads[i], NULL);
	err = atomic_load(&load->err);
	free(load);
	return err;
}

/*
 * Spins first: a thread that is woken starts late, and often on the CPU of the one that
 * woke it, and then the two never run at the same time.
 */
static void await(sem_t *sem)
{
	uint64_t end = tool_now() + SPIN_NS;

	while (tool_now() < end) {
		if (!sem_trywait(sem))
			return;
	}
	while (sem_wait(sem) && errno == EINTR)
		;
}

static void *actor_thread(void *arg)
{
	struct litmus_actor *actor = arg;

	for (;;) {
		await(&actor->go);
		if (actor->quit)
			return NULL;
		actor->fn(actor->arg);
		sem_post(&actor->done);
	}
}

int litmus_actor_start(struct litmus_actor *actor)
{
	actor->quit = false;
	sem_init(&actor->go, 0, 0);
	sem_init(&actor->done, 0, 0);
	return -pthread_create(&actor->thread, NULL, actor_thread, actor);
}

void litmus_actor_stop(struct litmus_actor *actor)
{
	actor->quit = true;
	sem_post(&actor->go);
	pthread_join(actor->thread, NULL);
	sem_destroy(&actor->go);
	sem_destroy(&actor->done);
}

void litmus_actor_begin(struct litmus_actor *actor, void (*fn)(void *arg), void *arg)
{
	actor->fn = fn;
	actor->arg = arg;
	sem_post(&actor->go);
}

void litmus_actor_wait(struct litmus_actor *actor)
{
	await(&actor->done);
}

void litmus_actor_call(struct litmus_actor *actor, void (*fn)(void *arg), void *arg)
{
	litmus_actor_begin(actor, fn, arg);
	litmus_actor_wait(actor);
}
