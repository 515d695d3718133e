// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * vram - frames, a copy engine, a page table (vram.h).
 *
 * Laws:
 * - What the engine touches never moves: struct vram, the frames, the engine's stack are
 *   hmm_alloc() memory. Stacks of threads that call in are never migrated by who uses this.
 * - `lock` is the update lock. Its holder touches the table, the frames and what is above,
 *   so it never waits for a page; the engine may take it.
 * - `section` is held while the device touches system memory, which may be a hole that the
 *   library has to fill. invalidate waits for it (G4); the engine does not, since the
 *   library may wait for the engine.
 * - Before the engine copies home it takes the translations of the *frames* away, by the
 *   address that `maps` has for each, under the lock under which they are used.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/ptable.h>

#include "common.h"
#include "vram.h"

#define STACK (64ul << 10)
#define JOBS 64u /* more than transfers that the library has under way */

struct job {
	struct hmm_devmem_copy *copies;
	struct hmm_transfer *transfer;
	unsigned n;
	bool home;
};

struct vram {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	struct hmm_devmem *devmem;
	struct vram_options options;
	struct uhmm_ptable table;
	pthread_mutex_t lock;	 /* protects table, maps, and the device's use of frames */
	pthread_mutex_t section; /* before lock */
	uintptr_t *maps;	 /* of each frame: the address at which it was installed */
	char *frames;		 /* copies only */

	pthread_t engine;
	void *stack;
	sem_t more;
	pthread_mutex_t jobs_lock; /* protects jobs, first, last; inside no other */
	struct job jobs[JOBS];
	unsigned first, last;
};

static char *frame_at(const struct vram *vram, uint64_t frame)
{
	if (vram->options.host_frames)
		return hmm_devmem_host(vram->devmem, frame);
	return vram->frames + frame * VRAM_PAGE;
}

/* ---- copies ---- */

static void stop_using(struct vram *vram, const struct job *job)
{
	pthread_mutex_lock(&vram->lock);
	for (unsigned i = 0; i < job->n; i++) {
		uint64_t frame = job->copies[i].frame, entry;
		uintptr_t page = vram->maps[frame];

		if (!page)
			continue;
		vram->maps[frame] = 0;
		entry = uhmm_ptable_lookup(&vram->table, page);
		if (hmm_pfn_is_device(entry) && hmm_pfn_frame(entry) == frame)
			uhmm_ptable_clear(&vram->table, page, page + 1);
	}
	pthread_mutex_unlock(&vram->lock);
}

static void do_job(struct vram *vram, const struct job *job)
{
	if (job->home)
		stop_using(vram, job);
	for (unsigned i = 0; i < job->n && !vram->options.host_frames; i++) {
		char *frame = vram->frames + job->copies[i].frame * VRAM_PAGE;
		char *host = job->copies[i].host;

		if (job->home && host)
			memcpy(host, frame, VRAM_PAGE);
		else if (host)
			memcpy(frame, host, VRAM_PAGE);
		else if (!job->home)
			memset(frame, 0, VRAM_PAGE);
	}
	hmm_devmem_done(job->transfer, 0);
}

static void *engine_main(void *arg)
{
	struct vram *vram = arg;

	for (;;) {
		struct job job;

		while (sem_wait(&vram->more) && errno == EINTR)
			;
		pthread_mutex_lock(&vram->jobs_lock);
		if (vram->first == vram->last) { /* nothing: the end */
			pthread_mutex_unlock(&vram->jobs_lock);
			return NULL;
		}
		job = vram->jobs[vram->first++ % JOBS];
		pthread_mutex_unlock(&vram->jobs_lock);
		do_job(vram, &job);
	}
}

static void start_job(struct vram *vram, struct job job)
{
	if (job.n <= vram->options.at_once) {
		do_job(vram, &job);
		return;
	}
	pthread_mutex_lock(&vram->jobs_lock);
	if (vram->last - vram->first < JOBS) {
		vram->jobs[vram->last++ % JOBS] = job;
		pthread_mutex_unlock(&vram->jobs_lock);
		sem_post(&vram->more);
		return;
	}
	pthread_mutex_unlock(&vram->jobs_lock);
	hmm_devmem_done(job.transfer, -EBUSY);
}

static void to_device(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		      struct hmm_transfer *transfer)
{
	start_job(priv, (struct job){ copies, transfer, n, false });
}

static void to_host(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		    struct hmm_transfer *transfer)
{
	start_job(priv, (struct job){ copies, transfer, n, true });
}

static const struct hmm_devmem_ops copy_ops = {
	.size = sizeof(copy_ops),
	.to_device = to_device,
	.to_host = to_host,
};

static const struct hmm_devmem_ops host_ops = {
	.size = sizeof(host_ops),
	.to_host = to_host,
};

/* ---- the mirror ---- */

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct vram *vram = priv;

	if (event->kind == HMM_EVENT_FORK)
		return; /* what an address reads is unchanged */
	pthread_mutex_lock(&vram->lock);
	uhmm_ptable_clear(&vram->table, event->start, event->end);
	pthread_mutex_unlock(&vram->lock);
	/* Whoever uses a system translation that it had found is out now. */
	pthread_mutex_lock(&vram->section);
	pthread_mutex_unlock(&vram->section);
}

static const struct hmm_notifier_ops notifier_ops = {
	.size = sizeof(notifier_ops),
	.invalidate = invalidate,
};

static int program(const struct hmm_range *range, void *arg)
{
	struct vram *vram = arg;
	uint64_t entry = *range->pfns;
	int err = uhmm_ptable_set(&vram->table, range->start, entry);

	if (!err && hmm_pfn_is_device(entry))
		vram->maps[hmm_pfn_frame(entry)] = range->start;
	return err;
}

static int fault(struct vram *vram, uintptr_t page, bool write)
{
	uint64_t pfn = 0;
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = vram->hmm,
		.notifier = vram->notifier,
		.start = page,
		.end = page + VRAM_PAGE,
		.pfns = &pfn,
		.default_flags = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0),
		.owner = vram,
	};

	return hmm_range_program(&range, 0, &vram->lock, program, vram);
}

/* 1: no translation that is enough. */
static int try_access(struct vram *vram, uintptr_t addr, bool write, uint64_t *value)
{
	uint64_t need = HMM_PFN_VALID | (write ? HMM_PFN_WRITE : 0), entry, *word;
	bool here;
	int err = 1;

	pthread_mutex_lock(&vram->lock);
	entry = uhmm_ptable_lookup(&vram->table, addr);
	here = hmm_pfn_is_device(entry) && (entry & need) == need;
	if (here) {
		word = (uint64_t *)(frame_at(vram, hmm_pfn_frame(entry)) +
				    addr % VRAM_PAGE);
		if (write)
			__atomic_store_n(word, *value, __ATOMIC_SEQ_CST);
		else
			*value = __atomic_load_n(word, __ATOMIC_SEQ_CST);
	}
	pthread_mutex_unlock(&vram->lock);
	if (here)
		return 0;
	if ((entry & need) == need && write)
		err = hmm_copy_to(vram->hmm, addr, value, sizeof(*value));
	else if ((entry & need) == need)
		err = hmm_copy_from(vram->hmm, value, addr, sizeof(*value));
	return err == -EFAULT ? 1 : err; /* it is on its way out: ask anew */
}

static int device_access(struct vram *vram, uintptr_t addr, bool write, uint64_t *value)
{
	uint64_t deadline = tool_now() + HMM_RANGE_DEFAULT_TIMEOUT * UINT64_C(1000000);
	int err = hmm_fence(vram->hmm, addr & ~(VRAM_PAGE - 1), VRAM_PAGE);

	while (!err) {
		pthread_mutex_lock(&vram->section);
		err = try_access(vram, addr, write, value);
		pthread_mutex_unlock(&vram->section);
		if (err != 1)
			break;
		if (tool_now() > deadline)
			return -EBUSY;
		err = fault(vram, addr & ~(VRAM_PAGE - 1), write);
	}
	return err;
}

int vram_read(struct vram *vram, const void *addr, uint64_t *value)
{
	return device_access(vram, (uintptr_t)addr, false, value);
}

int vram_write(struct vram *vram, void *addr, uint64_t value)
{
	return device_access(vram, (uintptr_t)addr, true, &value);
}

int vram_add(struct vram *vram, void *addr, uint64_t operand)
{
	uint64_t frame = 0, *word;
	int err = hmm_make_exclusive(vram->devmem, (uintptr_t)addr, &frame);

	if (err)
		return err;
	word = (uint64_t *)(frame_at(vram, frame) + (uintptr_t)addr % VRAM_PAGE);
	__atomic_fetch_add(word, operand, __ATOMIC_SEQ_CST);
	hmm_exclusive_release(vram->devmem, frame);
	return 0;
}

struct hmm_devmem *vram_devmem(struct vram *vram)
{
	return vram->devmem;
}

int64_t vram_take(struct vram *vram, const void *start, size_t length)
{
	return hmm_migrate_to_device(vram->devmem, (uintptr_t)start, length);
}

int64_t vram_give(struct vram *vram, const void *start, size_t length)
{
	return hmm_migrate_to_host(vram->hmm, (uintptr_t)start, length);
}

/* ---- from here on: making and ending ---- */

static int start_engine(struct vram *vram)
{
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	err = -pthread_attr_setstack(&attr, vram->stack, STACK);
	if (!err)
		err = -pthread_create(&vram->engine, &attr, engine_main, vram);
	pthread_attr_destroy(&attr);
	return err;
}

static void stop_engine(struct vram *vram)
{
	sem_post(&vram->more);
	pthread_join(vram->engine, NULL);
}

static void free_vram(struct vram *vram)
{
	hmm_free(vram->stack, STACK);
	hmm_free(vram->frames, vram->options.frames * VRAM_PAGE);
	hmm_free(vram->maps, vram->options.frames * sizeof(*vram->maps));
	uhmm_ptable_destroy(&vram->table);
	hmm_put(vram->hmm);
	hmm_free(vram, sizeof(*vram));
}

static int alloc_vram(struct vram *vram)
{
	const struct vram_options *options = &vram->options;

	vram->stack = hmm_alloc(STACK);
	vram->maps = hmm_alloc(options->frames * sizeof(*vram->maps));
	if (!vram->stack || !vram->maps)
		return -ENOMEM;
	if (!options->host_frames) {
		vram->frames = hmm_alloc(options->frames * VRAM_PAGE);
		if (!vram->frames)
			return -ENOMEM;
		/* The rows of a bench must be alike; see bench_map(). A device's memory is
		 * there from the start. */
		madvise(vram->frames, options->frames * VRAM_PAGE, MADV_NOHUGEPAGE);
		memset(vram->frames, 0, options->frames * VRAM_PAGE);
	}
	return uhmm_ptable_init(&vram->table);
}

static int create_devmem(struct vram *vram)
{
	struct hmm_devmem_options options = {
		.size = sizeof(options),
		.type = HMM_DEVMEM_PRIVATE,
		.frames = vram->options.frames,
		.host_frames = vram->options.host_frames,
		.owner = vram,
	};

	return hmm_devmem_create(vram->hmm, &options,
				 options.host_frames ? &host_ops : &copy_ops, vram,
				 &vram->devmem);
}

int vram_open(struct hmm *hmm, const struct vram_options *options, struct vram **out)
{
	struct vram *vram = hmm_alloc(sizeof(*vram));
	int err;

	if (!vram)
		return -ENOMEM;
	vram->hmm = hmm_get(hmm);
	vram->options = *options;
	pthread_mutex_init(&vram->lock, NULL);
	pthread_mutex_init(&vram->section, NULL);
	pthread_mutex_init(&vram->jobs_lock, NULL);
	sem_init(&vram->more, 0, 0);
	err = alloc_vram(vram);
	if (!err)
		err = start_engine(vram);
	if (err)
		goto free_all;
	err = hmm_notifier_insert(hmm, 0, UINTPTR_MAX, &notifier_ops, vram,
				  &vram->notifier);
	if (err)
		goto stop;
	err = create_devmem(vram);
	if (!err) {
		*out = vram;
		return 0;
	}
	hmm_notifier_remove(vram->notifier);
stop:
	stop_engine(vram);
free_all:
	free_vram(vram);
	return err;
}

void vram_close(struct vram *vram)
{
	if (!vram)
		return;
	hmm_devmem_destroy(vram->devmem);
	hmm_notifier_remove(vram->notifier);
	stop_engine(vram);
	free_vram(vram);
}
