/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * engine - the copy engine: moves bytes between pages and frames, in order.
 *
 * A ring that the library's reader fills and the engine empties. There is no lock: the
 * reader never waits, and must not, since every CPU's fault waits for it. The engine in
 * turn waits for nobody but the update lock and the SMs' sections of frames (mmu.c),
 * and touches only memory that never moves. It calls nothing of libc that may allocate.
 *
 * The engine is a role, and two threads stand ready to play it: the owner does, the other
 * sleeps. A job stays at the head of the ring until it is done, just before the library is
 * told. So when the owner dies in the middle of one (gpu_engine_kill) the other takes over
 * and does it again from the start, which is right because nothing of a transfer has an
 * effect before its end: frames that are being filled are nobody's, pages that are being filled
 * are not mapped, and frames that have been stopped stay so. Nobody has to start a thread
 * then, which could need malloc's lock, and its holder could be waiting for us. The dead one
 * is replaced by whoever kills next.
 */
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "gpu_private.h"

static void sleep_on(_Atomic uint32_t *word, uint32_t seen)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, GPU_ENGINE_THREADS, NULL, NULL, 0);
}

static void ring_bell(struct gpu_engine *engine)
{
	atomic_fetch_add(&engine->bell, 1);
	wake(&engine->bell);
}

/* The reader. Jobs of a full ring would be lost: the library has not that many. */
void gpu_engine_put(struct gpu *gpu, const struct gpu_engine_job *job)
{
	struct gpu_engine *engine = &gpu->engine;
	uint32_t tail = atomic_load_explicit(&engine->tail, memory_order_relaxed);

	if (tail - atomic_load(&engine->head) == GPU_ENGINE_JOBS) {
		hmm_devmem_done(job->transfer, -EBUSY); /* nothing may be logged here */
		return;
	}
	engine->job[tail % GPU_ENGINE_JOBS] = *job;
	atomic_store(&engine->tail, tail + 1);
	ring_bell(engine);
}

/* ---- what the owner does ---- */

/* A hook for tests: shall the engine die here? */
static bool dies(struct gpu_engine *engine, enum gpu_engine_step step)
{
	unsigned want = step;

	return atomic_load_explicit(&engine->kill, memory_order_relaxed) == want &&
	       atomic_compare_exchange_strong(&engine->kill, &want, 0);
}

/* Another: can this page not be read? */
static bool is_broken(struct gpu_engine *engine)
{
	unsigned left = atomic_load_explicit(&engine->broken, memory_order_relaxed);

	while (left && !atomic_compare_exchange_weak(&engine->broken, &left, left - 1))
		;
	return left;
}

static void stall(struct gpu_engine *engine)
{
	unsigned ms = atomic_load_explicit(&engine->stall_ms, memory_order_relaxed);
	const struct timespec delay = {ms / 1000, ms % 1000 * 1000000L};

	if (ms)
		nanosleep(&delay, NULL);
}

static void copy_page(struct gpu_engine *engine, const struct gpu_engine_job *job,
		      struct hmm_devmem_copy *copy)
{
	char *frame = job->memory->base + copy->frame * GPU_PAGE;

	copy->err = 0;
	if (job->home && is_broken(engine))
		copy->err = -EIO;
	else if (job->home)
		memcpy(copy->host, frame, GPU_PAGE);
	else if (copy->host)
		memcpy(frame, copy->host, GPU_PAGE);
	else
		memset(frame, 0, GPU_PAGE);
}

/* false: the engine died. */
static bool run_job(struct gpu_engine *engine, const struct gpu_engine_job *job)
{
	unsigned i;

	stall(engine);
	if (dies(engine, GPU_ENGINE_TAKEN))
		return false;
	if (job->home) {
		gpu_policy_home(job->memory, job->copies, job->n);
		gpu_hive_stop_frames(job->memory, job->copies, job->n);
	}
	if (job->home && dies(engine, GPU_ENGINE_STOPPED))
		return false;
	for (i = 0; i < job->n; i++) {
		if (i == job->n / 2 && dies(engine, GPU_ENGINE_HALF))
			return false;
		if (job->memory->base && (job->copies[i].host || !job->home))
			copy_page(engine, job, &job->copies[i]);
	}
	return !dies(engine, GPU_ENGINE_COPIED);
}

/* false: died. */
static bool serve(struct gpu_engine *engine)
{
	uint32_t bell, head;

	for (;;) {
		bell = atomic_load(&engine->bell);
		head = atomic_load_explicit(&engine->head, memory_order_relaxed);
		if (head != atomic_load(&engine->tail)) {
			const struct gpu_engine_job *job = &engine->job[head % GPU_ENGINE_JOBS];
			struct hmm_transfer *transfer = job->transfer;

			if (!run_job(engine, job))
				return false;
			/* Counted and off the ring first: who is told may look at both. */
			atomic_fetch_add(&engine->jobs, 1);
			atomic_store(&engine->head, head + 1);
			hmm_devmem_done(transfer, 0);
		} else if (atomic_load(&engine->stop)) {
			return true;
		} else {
			sleep_on(&engine->bell, bell);
		}
	}
}

/* ---- who is the owner ---- */

/* false: there will be nothing to own any more. */
static bool become_owner(struct gpu_engine *engine, uint32_t number)
{
	uint32_t owner = 0;

	while (!atomic_compare_exchange_strong(&engine->owner, &owner, number)) {
		if (atomic_load(&engine->stop))
			return false;
		sleep_on(&engine->owner, owner);
		owner = 0;
	}
	return true;
}

static void *engine_main(void *arg)
{
	struct gpu_engine_thread *self = arg;
	struct gpu_engine *engine = &self->gpu->engine;
	bool lives;

	if (!become_owner(engine, self->number))
		return NULL;
	lives = serve(engine);
	if (!lives) {
		atomic_store(&self->dead, true);
		atomic_fetch_add(&engine->deaths, 1);
	}
	atomic_store(&engine->owner, 0);
	wake(&engine->owner);
	return NULL;
}

/* Start those threads that are not there. */
static int fill_up(struct gpu *gpu)
{
	unsigned i;
	int err = 0;

	for (i = 0; i < GPU_ENGINE_THREADS && !err; i++) {
		struct gpu_engine_thread *thread = &gpu->engine.thread[i];

		if (atomic_load(&thread->dead)) {
			gpu_thread_join(&thread->thread);
			atomic_store(&thread->dead, false);
		}
		if (thread->thread.stack)
			continue;
		thread->gpu = gpu;
		thread->number = i + 1;
		err = gpu_thread_start(&thread->thread, engine_main, thread);
	}
	return err;
}

/* On failure gpu_engine_stop() takes back what was started. */
int gpu_engine_start(struct gpu *gpu)
{
	return fill_up(gpu);
}

/* No devmem is left that could ask for anything. */
void gpu_engine_stop(struct gpu *gpu)
{
	unsigned i;

	atomic_store(&gpu->engine.stop, true);
	ring_bell(&gpu->engine);
	wake(&gpu->engine.owner);
	for (i = 0; i < GPU_ENGINE_THREADS; i++)
		gpu_thread_join(&gpu->engine.thread[i].thread);
}

/* ---- hooks for tests; one thread at a time ---- */

int gpu_engine_kill(struct gpu *gpu, enum gpu_engine_step step)
{
	const struct timespec delay = {.tv_nsec = 1000000};
	int err;

	if (step < GPU_ENGINE_TAKEN || step > GPU_ENGINE_COPIED)
		return -EINVAL;
	if (gpu->pid != getpid())
		return -ENODEV;
	/* Never arm a second one before the first's successor has one of his own. */
	while (atomic_load(&gpu->engine.deaths) != gpu->engine.armed)
		nanosleep(&delay, NULL);
	err = fill_up(gpu);
	if (!err) {
		gpu->engine.armed++;
		atomic_store(&gpu->engine.kill, step);
	}
	return err;
}

void gpu_engine_stall(struct gpu *gpu, unsigned ms)
{
	atomic_store(&gpu->engine.stall_ms, ms);
}

void gpu_engine_break(struct gpu *gpu, unsigned pages)
{
	atomic_store(&gpu->engine.broken, pages);
}
