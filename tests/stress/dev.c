/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "dev_private.h"

static uintptr_t page_of(uintptr_t addr)
{
	return addr & ~(uintptr_t)(PAGE - 1);
}

/* ---- translations; all under the update lock ---- */

static struct slot *slot_for(struct dev *dev, uintptr_t page)
{
	uint64_t hash = (uint64_t)(page >> 12) * UINT64_C(0x9e3779b97f4a7c15);

	return &dev->slot[hash >> 52];
}

static void slot_clear(struct dev *dev, struct slot *slot)
{
	if (slot->page && hmm_pfn_is_device(slot->entry))
		dev->slot_of[hmm_pfn_frame(slot->entry)] = 0;
	slot->page = 0;
}

static void slot_set(struct dev *dev, uintptr_t page, uint64_t entry)
{
	struct slot *slot = slot_for(dev, page);

	slot_clear(dev, slot);
	if (hmm_pfn_is_device(entry)) {
		uint64_t frame = hmm_pfn_frame(entry);

		if (hmm_pfn_devmem(entry) != hmm_devmem_id(dev->devmem) ||
		    frame >= dev->options.frames || !dev->had[frame])
			fail("page %#lx is told to be in frame %llu of devmem %u, which is "
			     "not in use",
			     page, (unsigned long long)frame, hmm_pfn_devmem(entry));
		if (dev->slot_of[frame])
			slot_clear(dev, &dev->slot[dev->slot_of[frame] - 1]);
		dev->slot_of[frame] = (uint32_t)(slot - dev->slot) + 1;
	}
	slot->page = page;
	slot->entry = entry;
}

void dev_stop_frames(struct dev *dev, const struct hmm_devmem_copy *copies, unsigned n)
{
	pthread_mutex_lock(&dev->update);
	for (unsigned i = 0; i < n; i++) {
		uint32_t slot = dev->slot_of[copies[i].frame];

		if (slot)
			slot_clear(dev, &dev->slot[slot - 1]);
	}
	pthread_mutex_unlock(&dev->update);
}

static bool busy_in(const struct dev *dev, uintptr_t start, uintptr_t end)
{
	for (unsigned i = 0; i < SMS; i++)
		if (dev->sm[i].busy >= start && dev->sm[i].busy < end && dev->sm[i].busy)
			return true;
	return false;
}

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct dev *dev = priv;

	if (event->kind == HMM_EVENT_FORK)
		return; /* what an address reads is unchanged */
	pthread_mutex_lock(&dev->update);
	if ((event->end - event->start) / PAGE < SLOTS) {
		for (uintptr_t page = event->start; page < event->end; page += PAGE)
			if (slot_for(dev, page)->page == page)
				slot_clear(dev, slot_for(dev, page));
	} else {
		for (unsigned i = 0; i < SLOTS; i++)
			if (dev->slot[i].page >= event->start &&
			    dev->slot[i].page < event->end)
				slot_clear(dev, &dev->slot[i]);
	}
	while (busy_in(dev, event->start, event->end))
		pthread_cond_wait(&dev->idle, &dev->update);
	pthread_mutex_unlock(&dev->update);
}

static const struct hmm_notifier_ops notifier_ops = { .size = sizeof(notifier_ops),
						      .invalidate = invalidate };

/* ---- jobs ---- */

static void at_frame(struct job *job, unsigned char *page)
{
	unsigned char *at = page + job->addr % PAGE;

	if (job->n)
		for (unsigned i = 0; i < job->n; i++)
			((volatile uint64_t *)at)[i * job->step] = job->value;
	else if (job->write)
		memcpy(at, job->buffer, job->length);
	else
		memcpy(job->buffer, at, job->length);
}

static unsigned char *frame_at(struct dev *dev, uint64_t frame)
{
	unsigned char *at;

	if (!dev->options.host_frames)
		return dev->vram + frame * PAGE;
	at = hmm_devmem_host(dev->devmem, frame);
	if (!at)
		fail("frame %llu is nowhere, and the device has a translation to it",
		     (unsigned long long)frame);
	return at;
}

/* Device memory: done now. System memory: announce it, for sm_system(). */
static void sm_use(struct sm *sm, uint64_t entry)
{
	struct dev *dev = sm->dev;
	uint64_t frame = hmm_pfn_frame(entry);

	sm->used = true;
	if (!hmm_pfn_is_device(entry))
		sm->busy = page_of(sm->job->addr);
	else
		at_frame(sm->job, frame_at(dev, frame));
}

static int program(const struct hmm_range *range, void *arg)
{
	struct sm *sm = arg;

	slot_set(sm->dev, range->start, range->pfns[0]);
	sm_use(sm, range->pfns[0]);
	return 0;
}

static int sm_system(struct sm *sm)
{
	struct dev *dev = sm->dev;
	struct job *job = sm->job;
	int err = 0;

	for (unsigned i = 0; !err && i < job->n; i++)
		err = hmm_copy_to(dev->hmm, job->addr + (uintptr_t)i * job->step * 8,
				  &job->value, 8);
	if (!job->n && job->write)
		err = hmm_copy_to(dev->hmm, job->addr, job->buffer, job->length);
	else if (!job->n)
		err = hmm_copy_from(dev->hmm, job->buffer, job->addr, job->length);
	if (err)
		fprintf(stderr, "a device's access to system memory at %#lx fails: %s\n",
			job->addr, hmm_strerror(err));
	pthread_mutex_lock(&dev->update);
	sm->busy = 0;
	pthread_cond_broadcast(&dev->idle);
	pthread_mutex_unlock(&dev->update);
	return err;
}

static int sm_job(struct sm *sm)
{
	struct dev *dev = sm->dev;
	struct job *job = sm->job;
	uintptr_t page = page_of(job->addr);
	struct slot *slot = slot_for(dev, page);
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = dev->hmm,
		.notifier = dev->notifier,
		.start = page,
		.end = page + PAGE,
		.pfns = &sm->pfn,
		.default_flags = HMM_PFN_REQ_FAULT | (job->write ? HMM_PFN_REQ_WRITE : 0),
		.owner = dev,
	};
	int err = hmm_fence(dev->hmm, page, PAGE);

	if (err)
		return err;
	sm->used = false;
	pthread_mutex_lock(&dev->update);
	if (slot->page == page && (!job->write || slot->entry & HMM_PFN_WRITE))
		sm_use(sm, slot->entry);
	/* A slow device: who waits for the lock now has looked before, and may be late. */
	if (dev_chance(dev, dev->options.slow))
		nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
	pthread_mutex_unlock(&dev->update);
	if (!sm->used) {
		sm->pfn = 0;
		err = hmm_range_program(&range, 3000, &dev->update, program, sm);
	}
	if (err == -EFAULT)
		fprintf(stderr, "a device's fault at %#lx fails: %s, %s\n",
			range.fault_addr, hmm_reason_text(range.fault_reason),
			hmm_strerror(err));
	return !err && sm->busy ? sm_system(sm) : err;
}

/* Frames only: what is at system memory is read by address, as the CPU does. */
static void sm_hold(struct sm *sm)
{
	struct dev *dev = sm->dev;
	struct job *job = sm->job;
	struct slot *slot = slot_for(dev, page_of(job->addr));
	bool there = true;

	job->err = 0;
	while (there && !job->let_go && !job->err) {
		uint64_t word = 0, frame;

		pthread_mutex_lock(&dev->update);
		there = slot->page == page_of(job->addr) && hmm_pfn_is_device(slot->entry);
		frame = hmm_pfn_frame(slot->entry);
		if (there)
			word = *(volatile uint64_t *)(frame_at(dev, frame) +
						      job->addr % PAGE);
		pthread_mutex_unlock(&dev->update);
		if (word && (word & job->mask) != job->value) {
			job->value = word;
			job->err = -EILSEQ;
		}
	}
}

static void *sm_main(void *arg)
{
	struct sm *sm = arg;
	struct dev *dev = sm->dev;

	for (;;) {
		while (sem_wait(&dev->jobs))
			;
		if (dev->stop)
			return NULL;
		for (unsigned i = 0; i < JOBS; i++) {
			uint32_t ready = JOB_READY;

			sm->job = &dev->job[i];
			if (atomic_compare_exchange_strong(&sm->job->state, &ready,
							   JOB_RUNNING)) {
				if (sm->job->hold)
					sm_hold(sm);
				else
					sm->job->err = sm_job(sm);
				sem_post(&sm->job->done);
				break;
			}
		}
	}
}

static struct job *job_take(struct dev *dev)
{
	for (unsigned i = 0;; i = (i + 1) % JOBS) {
		uint32_t none = JOB_FREE;

		if (atomic_compare_exchange_strong(&dev->job[i].state, &none,
						   JOB_FILLING)) {
			dev->job[i].hold = false;
			return &dev->job[i];
		}
	}
}

static void job_start(struct dev *dev, struct job *job)
{
	job->state = JOB_READY;
	sem_post(&dev->jobs);
}

/* The job is still the caller's. */
static int job_wait(struct job *job)
{
	while (sem_wait(&job->done))
		;
	return job->err;
}

static int job_run(struct dev *dev, struct job *job)
{
	job_start(dev, job);
	return job_wait(job);
}

struct job *dev_read_begin(struct dev *dev, uintptr_t addr, size_t length)
{
	struct job *job = job_take(dev);

	job->addr = addr;
	job->length = length;
	job->write = false;
	job->n = 0;
	job_start(dev, job);
	return job;
}

int dev_read_end(struct job *job, void *to)
{
	int err = job_wait(job);

	if (!err)
		memcpy(to, job->buffer, job->length);
	job->state = JOB_FREE;
	return err;
}

int dev_read(struct dev *dev, uintptr_t addr, void *to, size_t length)
{
	return dev_read_end(dev_read_begin(dev, addr, length), to);
}

int dev_write(struct dev *dev, uintptr_t addr, const void *from, size_t length)
{
	struct job *job = job_take(dev);
	int err;

	job->addr = addr;
	job->length = length;
	job->write = true;
	job->n = 0;
	memcpy(job->buffer, from, length);
	err = job_run(dev, job);
	job->state = JOB_FREE;
	return err;
}

int dev_words(struct dev *dev, uintptr_t addr, unsigned step, unsigned n, uint64_t value)
{
	struct job *job = job_take(dev);
	int err;

	job->addr = addr;
	job->write = true;
	job->step = step;
	job->n = n;
	job->value = value;
	err = job_run(dev, job);
	job->state = JOB_FREE;
	return err;
}

struct job *dev_hold(struct dev *dev, uintptr_t addr, uint64_t tag, uint64_t mask)
{
	struct job *job = job_take(dev);

	job->addr = addr;
	job->value = tag;
	job->mask = mask;
	job->hold = true;
	job->let_go = false;
	job_start(dev, job);
	return job;
}

int dev_let_go(struct job *job, uint64_t *word)
{
	int err;

	job->let_go = true;
	err = job_wait(job);
	*word = job->value;
	job->state = JOB_FREE;
	return err;
}

/* ---- device memory ---- */

static void to_device(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		      struct hmm_transfer *transfer)
{
	engine_push(priv, &(struct work){ true, copies, n, transfer });
}

static void to_host(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		    struct hmm_transfer *transfer)
{
	engine_push(priv, &(struct work){ false, copies, n, transfer });
}

static int frame_alloc(void *priv, uint64_t frame)
{
	struct dev *dev = priv;

	if (frame >= dev->options.frames)
		fail("frame %llu of %llu is allocated", (unsigned long long)frame,
		     (unsigned long long)dev->options.frames);
	if (dev_chance(dev, dev->options.decline))
		return -ENOSPC;
	if (atomic_exchange(&dev->had[frame], 1))
		fail("frame %llu is allocated twice", (unsigned long long)frame);
	return 0;
}

static void frame_free(void *priv, uint64_t frame)
{
	struct dev *dev = priv;

	/* A read of it from now on is seen. */
	if (dev->vram)
		memset(dev->vram + frame * PAGE, 0xdf, PAGE);
	if (frame >= dev->options.frames || !atomic_exchange(&dev->had[frame], 0))
		fail("frame %llu is freed, and is not in use", (unsigned long long)frame);
}

static const struct hmm_devmem_ops copied_ops = { sizeof(copied_ops), to_device, to_host,
						  frame_alloc, frame_free };
static const struct hmm_devmem_ops host_ops = { sizeof(host_ops), NULL, to_host,
						frame_alloc, frame_free };

/* ---- open and close ---- */

static void dev_free(struct dev *dev)
{
	if (dev->vram)
		hmm_free(dev->vram, dev->options.frames * PAGE);
	if (dev->had)
		hmm_free(dev->had, dev->options.frames);
	if (dev->slot_of)
		hmm_free(dev->slot_of, dev->options.frames * sizeof(uint32_t));
	hmm_free(dev, sizeof(*dev));
}

static struct dev *dev_alloc(struct hmm *hmm, const struct dev_options *options)
{
	struct dev *dev = hmm_alloc(sizeof(*dev));

	if (!dev)
		return NULL;
	dev->hmm = hmm;
	dev->options = *options;
	dev->random = options->seed;
	dev->had = hmm_alloc(options->frames);
	dev->slot_of = hmm_alloc(options->frames * sizeof(uint32_t));
	if (!options->host_frames)
		dev->vram = hmm_alloc(options->frames * PAGE);
	if (dev->had && dev->slot_of && (dev->vram || options->host_frames))
		return dev;
	dev_free(dev);
	return NULL;
}

static int dev_threads(struct dev *dev)
{
	int err = engine_begin(dev);

	for (unsigned i = 0; !err && i < SMS; i++) {
		struct sm *sm = &dev->sm[i];

		sm->dev = dev;
		sm->stack = hmm_alloc(STACK);
		err = sm->stack
			      ? thread_on_stack(&sm->thread, sm->stack, STACK, sm_main, sm)
			      : -ENOMEM;
	}
	return err;
}

int dev_open(struct hmm *hmm, const struct dev_options *options, struct dev **out)
{
	struct dev *dev = dev_alloc(hmm, options);
	struct hmm_devmem_options devmem = {
		.size = sizeof(devmem),
		.type = HMM_DEVMEM_PRIVATE,
		.frames = options->frames,
		.limit = options->limit,
		.host_frames = options->host_frames,
		.timeslice_us = options->timeslice_us,
		.timeout_ms = options->timeout_ms,
		.owner = dev,
	};
	int err;

	if (!dev)
		return -ENOMEM;
	pthread_mutex_init(&dev->update, NULL);
	pthread_cond_init(&dev->idle, NULL);
	sem_init(&dev->jobs, 0, 0);
	for (unsigned i = 0; i < JOBS; i++)
		sem_init(&dev->job[i].done, 0, 0);
	err = hmm_devmem_create(hmm, &devmem,
				options->host_frames ? &host_ops : &copied_ops, dev,
				&dev->devmem);
	if (err) {
		dev_free(dev);
		return err;
	}
	err = hmm_notifier_insert(hmm, 0, UINTPTR_MAX, &notifier_ops, dev, &dev->notifier);
	if (!err)
		err = dev_threads(dev);
	/* What is half made is left: the caller gives up, and no page has gone there. */
	if (!err)
		*out = dev;
	return err;
}

void dev_close(struct dev *dev)
{
	hmm_devmem_destroy(dev->devmem);
	hmm_notifier_remove(dev->notifier);
	for (uint64_t i = 0; i < dev->options.frames; i++)
		if (dev->had[i] && !dev->dead)
			fail("frame %llu was never freed", (unsigned long long)i);
	dev->stop = true;
	engine_end(dev);
	for (unsigned i = 0; i < SMS; i++)
		sem_post(&dev->jobs);
	for (unsigned i = 0; i < SMS; i++) {
		pthread_join(dev->sm[i].thread, NULL);
		hmm_free(dev->sm[i].stack, STACK);
	}
	dev_free(dev);
}

struct hmm_devmem *dev_devmem(const struct dev *dev)
{
	return dev->devmem;
}

const struct dev_options *dev_options(const struct dev *dev)
{
	return &dev->options;
}

uint64_t dev_deaths(const struct dev *dev)
{
	return dev->deaths;
}

void *dev_frame(const struct dev *dev, uint64_t frame)
{
	return dev->vram ? dev->vram + frame * PAGE : NULL;
}

int dev_look(struct dev *dev, uintptr_t start, unsigned pages, uint64_t *pfns)
{
	struct hmm_range range = { .size = sizeof(range),
				   .hmm = dev->hmm,
				   .notifier = dev->notifier,
				   .start = start,
				   .end = start + pages * PAGE,
				   .pfns = pfns,
				   .owner = dev };
	int err;

	memset(pfns, 0, pages * sizeof(*pfns));
	do {
		err = hmm_notifier_read_begin(&range);
		if (!err)
			err = hmm_range_snapshot(&range);
	} while (err == -EBUSY);
	return err;
}

void dev_die(struct dev *dev, bool silent)
{
	dev->silent = silent;
	dev->dead = true;
	if (!silent)
		hmm_devmem_lost(dev->devmem);
}

void dev_spoil(struct dev *dev)
{
	dev->spoiled = true;
}
