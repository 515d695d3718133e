/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * queue - queues, jobs and fences: who runs what next.
 *
 * Jobs of a queue run one after the other; the head of each queue may be running. SMs
 * take a chunk of indices of one head, then of the next queue's, round robin: a slow
 * job slows the others down but does not stop them, and a cancelled one gives its SMs
 * back at once. A job is settled (popped, counted, its fence signalled) when no SM is
 * inside it and no index is left or it is cancelled.
 *
 * Submitting is a fence of all that the GPU has mapped (G3), before the job is queued.
 *
 * Jobs and queues are the GPU's memory, not the heap's: SMs look at their job at each access,
 * and on a page of the heap that a kernel uses they would be a CPU that wants it back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gpu_private.h"

#define CHUNK_MAX 256	  /* indices an SM takes at once ... */
#define CHUNKS_PER_SM 16  /* ... or fewer, so that the SMs end together */

/* A piece of the GPU's memory. */
union piece {
	union piece *next; /* when free */
	struct gpu_job job;
	struct gpu_queue queue;
};

struct gpu_slab {
	struct gpu_slab *next;
	union piece piece[];
};
#define SLAB ((size_t)64 << 10)

/* sched.lock held. */
static int more_pieces(struct gpu_sched *sched)
{
	struct gpu_slab *slab = hmm_alloc(SLAB);
	size_t i;

	if (!slab)
		return -ENOMEM;
	slab->next = sched->slabs;
	sched->slabs = slab;
	for (i = 0; i < (SLAB - sizeof(*slab)) / sizeof(union piece); i++) {
		slab->piece[i].next = sched->free;
		sched->free = &slab->piece[i];
	}
	return 0;
}

/*
 * A forked child has no SMs. Asked before any lock: one that an SM held while the parent forked is
 * held for ever in the child.
 */
static bool is_forked(const struct gpu *gpu)
{
	return gpu->pid != getpid();
}

/* Zeroed. NULL: no memory. */
static void *piece_take(struct gpu_sched *sched)
{
	union piece *piece;

	pthread_mutex_lock(&sched->lock);
	if (!sched->free)
		more_pieces(sched);
	piece = sched->free;
	if (piece)
		sched->free = piece->next;
	pthread_mutex_unlock(&sched->lock);
	if (piece)
		memset(piece, 0, sizeof(*piece));
	return piece;
}

/* sched.lock held. NULL is allowed. */
static void piece_give(struct gpu_sched *sched, void *memory)
{
	union piece *piece = memory;

	if (!piece)
		return;
	piece->next = sched->free;
	sched->free = piece;
}

/* Nothing of it is in use. */
void gpu_sched_destroy(struct gpu *gpu)
{
	struct gpu_slab *slab;

	while ((slab = gpu->sched.slabs)) {
		gpu->sched.slabs = slab->next;
		hmm_free(slab, SLAB);
	}
}

static void fence_signal(struct gpu_fence *fence, const struct gpu_error *error)
{
	if (!fence)
		return;
	pthread_mutex_lock(&fence->lock);
	fence->error = *error;
	fence->done = true;
	pthread_cond_signal(&fence->cond);
	pthread_mutex_unlock(&fence->lock);
}

static bool is_cancelled(struct gpu_job *job)
{
	return atomic_load(&job->attention) & GPU_JOB_CANCELLED;
}

/* sched.lock held. */
static void settle(struct gpu_queue *queue)
{
	struct gpu_job *job;

	while ((job = queue->head) && !job->running &&
	       (job->taken == job->count || is_cancelled(job))) {
		queue->head = job->next;
		if (!queue->head)
			queue->tail = NULL;
		fence_signal(job->fence, &job->error);
		piece_give(&queue->gpu->sched, job);
		pthread_cond_broadcast(&queue->gpu->sched.settled);
		if (queue->head)
			pthread_cond_broadcast(&queue->gpu->sched.work);
	}
}

/* sched.lock held. The next job in turn that has indices left, or NULL. */
static struct gpu_job *pick(struct gpu_sched *sched)
{
	struct gpu_queue *queue = sched->turn;

	if (!queue || sched->quiet)
		return NULL;
	do {
		struct gpu_job *job = queue->head;

		queue = queue->next;
		if (job && job->taken < job->count && !is_cancelled(job)) {
			sched->turn = queue;
			return job;
		}
	} while (queue != sched->turn);
	return NULL;
}

/* Indices [*from, *to) of sm->job. false: none now, or, having waited, stop. */
bool gpu_sched_take(struct gpu_sm *sm, uint64_t *from, uint64_t *to, bool wait)
{
	struct gpu_sched *sched = &sm->gpu->sched;
	struct gpu_job *job;

	pthread_mutex_lock(&sched->lock);
	while (!(job = pick(sched)) && wait && !sched->stop)
		pthread_cond_wait(&sched->work, &sched->lock);
	if (job) {
		uint64_t left = job->count - job->taken;

		job->running++;
		*from = job->taken;
		job->taken += job->chunk < left ? job->chunk : left;
		*to = job->taken;
	}
	sm->job = job;
	sm->begin = job ? job->begin : 0;
	pthread_mutex_unlock(&sched->lock);
	return job;
}

/* The chunk is over, one way or the other. */
void gpu_sched_done(struct gpu_sm *sm)
{
	struct gpu_sched *sched = &sm->gpu->sched;

	pthread_mutex_lock(&sched->lock);
	sm->job->running--;
	settle(sm->job->queue);
	sm->job = NULL;
	pthread_mutex_unlock(&sched->lock);
}

/* sched.lock held. The first error is the one that is told. */
static void fail_job(struct gpu_job *job, const struct gpu_error *error)
{
	if (is_cancelled(job))
		return;
	job->error = *error;
	atomic_fetch_or(&job->attention, GPU_JOB_CANCELLED);
	atomic_fetch_add(&job->queue->gpu->count.cancelled, 1);
}

void gpu_sched_fail(struct gpu_job *job, const struct gpu_error *error)
{
	struct gpu_sched *sched = &job->queue->gpu->sched;

	pthread_mutex_lock(&sched->lock);
	fail_job(job, error);
	pthread_mutex_unlock(&sched->lock);
}

static struct gpu_error error_of_death(const char *why)
{
	struct gpu_error error = {.err = -ENODEV};

	snprintf(error.text, sizeof(error.text), "%s", why);
	return error;
}

/* The mirror or the device is dead: so is everything that was submitted. */
void gpu_sched_kill(struct gpu *gpu, const char *why)
{
	const struct gpu_error error = error_of_death(why);
	struct gpu_queue *queue;
	struct gpu_job *job;

	pthread_mutex_lock(&gpu->sched.lock);
	atomic_store(&gpu->dead, why);
	queue = gpu->sched.turn;
	if (queue) {
		do {
			for (job = queue->head; job; job = job->next)
				fail_job(job, &error);
			settle(queue);
			queue = queue->next;
		} while (queue != gpu->sched.turn);
	}
	pthread_cond_broadcast(&gpu->sched.resumed);
	pthread_mutex_unlock(&gpu->sched.lock);
}

/*
 * Quiet: no index is given out, and who has one rests at its next access. The flag of each job
 * costs the accesses nothing that they do not pay for being cancelled.
 */
static void set_quiet(struct gpu *gpu, bool quiet)
{
	struct gpu_sched *sched = &gpu->sched;
	struct gpu_queue *queue;

	pthread_mutex_lock(&sched->lock);
	sched->quiet = quiet;
	queue = sched->turn;
	if (queue) {
		do {
			struct gpu_job *job = queue->head;

			if (job && quiet)
				atomic_fetch_or(&job->attention, GPU_JOB_QUIET);
			else if (job)
				atomic_fetch_and(&job->attention, ~GPU_JOB_QUIET);
			queue = queue->next;
		} while (queue != sched->turn);
	}
	if (!quiet) {
		pthread_cond_broadcast(&sched->resumed);
		pthread_cond_broadcast(&sched->work);
	}
	pthread_mutex_unlock(&sched->lock);
}

void gpu_quiesce(struct gpu *gpu)
{
	set_quiet(gpu, true);
}

void gpu_resume(struct gpu *gpu)
{
	set_quiet(gpu, false);
}

/* An SM outside sections whose job has a flag. */
void gpu_sched_rest(struct gpu_sm *sm)
{
	struct gpu_sched *sched = &sm->gpu->sched;

	pthread_mutex_lock(&sched->lock);
	while (sched->quiet && !is_cancelled(sm->job))
		pthread_cond_wait(&sched->resumed, &sched->lock);
	pthread_mutex_unlock(&sched->lock);
}

/* Verify clock at which the oldest job that is not settled was submitted. */
uint64_t gpu_sched_oldest(struct gpu *gpu)
{
	uint64_t oldest = UINT64_MAX;
	struct gpu_queue *queue;
	struct gpu_job *job;

	pthread_mutex_lock(&gpu->sched.lock);
	queue = gpu->sched.turn;
	if (queue) {
		do {
			for (job = queue->head; job; job = job->next)
				oldest = job->begin < oldest ? job->begin : oldest;
			queue = queue->next;
		} while (queue != gpu->sched.turn);
	}
	pthread_mutex_unlock(&gpu->sched.lock);
	return oldest;
}

int gpu_queue_create(struct gpu *gpu, struct gpu_queue **out)
{
	struct gpu_queue *queue;

	if (is_forked(gpu))
		return -ENODEV;
	queue = piece_take(&gpu->sched);
	if (!queue)
		return -ENOMEM;
	queue->gpu = gpu;
	queue->next = queue;
	pthread_mutex_lock(&gpu->sched.lock);
	if (gpu->sched.turn) {
		queue->next = gpu->sched.turn->next;
		gpu->sched.turn->next = queue;
	} else {
		gpu->sched.turn = queue;
	}
	pthread_mutex_unlock(&gpu->sched.lock);
	*out = queue;
	return 0;
}

/* sched.lock held, the queue is empty. */
static void unlink_queue(struct gpu_queue *queue)
{
	struct gpu_queue *before = queue;

	while (before->next != queue)
		before = before->next;
	before->next = queue->next;
	if (queue->gpu->sched.turn == queue)
		queue->gpu->sched.turn = before == queue ? NULL : queue->next;
}

void gpu_queue_destroy(struct gpu_queue *queue)
{
	struct gpu_sched *sched;

	if (!queue || is_forked(queue->gpu))
		return;
	sched = &queue->gpu->sched;
	pthread_mutex_lock(&sched->lock);
	while (queue->head)
		pthread_cond_wait(&sched->settled, &sched->lock);
	unlink_queue(queue);
	piece_give(sched, queue);
	pthread_mutex_unlock(&sched->lock);
}

/* gpu_close(): nobody submits any more. */
void gpu_drain(struct gpu *gpu)
{
	while (gpu->sched.turn)
		gpu_queue_destroy(gpu->sched.turn);
}

static struct gpu_fence *fence_create(void)
{
	struct gpu_fence *fence = calloc(1, sizeof(*fence));

	if (fence) {
		pthread_mutex_init(&fence->lock, NULL);
		pthread_cond_init(&fence->cond, NULL);
	}
	return fence;
}

static void fence_destroy(struct gpu_fence *fence)
{
	if (!fence)
		return;
	pthread_cond_destroy(&fence->cond);
	pthread_mutex_destroy(&fence->lock);
	free(fence);
}

static void enqueue(struct gpu_queue *queue, struct gpu_job *job)
{
	struct gpu_sched *sched = &queue->gpu->sched;
	const char *why;

	pthread_mutex_lock(&sched->lock);
	job->id = ++sched->ids;
	if (queue->tail)
		queue->tail->next = job;
	else
		queue->head = job;
	queue->tail = job;
	atomic_fetch_add(&queue->gpu->count.jobs, 1);
	why = atomic_load(&queue->gpu->dead);
	if (why) {
		const struct gpu_error dead = error_of_death(why);

		fail_job(job, &dead);
	}
	pthread_cond_broadcast(&sched->work);
	settle(queue);
	pthread_mutex_unlock(&sched->lock);
}

int gpu_submit(struct gpu_queue *queue, gpu_kernel kernel, void *arg, uint64_t count,
	       struct gpu_fence **out)
{
	struct gpu *gpu = queue->gpu;
	struct gpu_fence *fence = NULL;
	struct gpu_job *job;
	int err;

	if (!kernel)
		return -EINVAL;
	if (is_forked(gpu))
		return -ENODEV;
	job = piece_take(&gpu->sched);
	if (out)
		fence = fence_create();
	err = !job || (out && !fence) ? -ENOMEM : 0;
	if (!err) {
		*job = (struct gpu_job){.queue = queue, .kernel = kernel, .arg = arg,
					.count = count, .fence = fence};
		job->chunk = count / (gpu->sms * CHUNKS_PER_SM) + 1;
		if (job->chunk > CHUNK_MAX)
			job->chunk = CHUNK_MAX;
		/* Before the fence: a mark below it is a change that the fence covers. */
		job->begin = gpu_verify_tick(gpu);
		err = gpu->naive ? 0 : hmm_notifier_fence(gpu->notifier);
	}
	if (err) {
		fence_destroy(fence);
		pthread_mutex_lock(&gpu->sched.lock);
		piece_give(&gpu->sched, job);
		pthread_mutex_unlock(&gpu->sched.lock);
		return err;
	}
	if (out)
		*out = fence; /* before anybody can see the job */
	enqueue(queue, job);
	return 0;
}

int gpu_wait(struct gpu_fence *fence, struct gpu_error *error)
{
	int err;

	pthread_mutex_lock(&fence->lock);
	while (!fence->done)
		pthread_cond_wait(&fence->cond, &fence->lock);
	pthread_mutex_unlock(&fence->lock);
	err = fence->error.err;
	if (error)
		*error = fence->error;
	fence_destroy(fence);
	return err;
}
