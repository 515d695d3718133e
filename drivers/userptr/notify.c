/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * notify - an object's memory has changed.
 *
 * Law: when invalidate returns no job uses the object, and none that begins later can have got
 * its pages before the change (`valid` is off, and hmm_notifier_read_retry() says so to who has
 * got them already). What it waits for are kernels, which end by themselves or not at all; they
 * wait for nothing of ours.
 *
 * What a job has still to store in memory that went is marked (`gone`), not waited for: its
 * userptr_wait() needs fences, and those wait for us.
 */
#include "userptr_private.h"

static bool uses(const struct userptr_job *job, const struct userptr_object *o)
{
	for (unsigned i = 0; i < job->n_uses; i++)
		if (job->uses[i].object == o)
			return true;
	return !o;
}

static bool has_ended(cl_event event)
{
	cl_int status = CL_COMPLETE;

	clGetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof(status), &status, NULL);
	return status <= CL_COMPLETE; /* negative: it failed */
}

/* A reference to the event of a job that runs and uses it. */
static bool next_running(const struct userptr *dev, const struct userptr_object *o,
			 cl_event *event)
{
	struct userptr_job *job;

	for (job = dev->jobs; job; job = job->next) {
		if (!uses(job, o) || has_ended(job->event))
			continue;
		*event = job->event;
		clRetainEvent(*event);
		return true;
	}
	return false;
}

void userptr_idle(struct userptr *dev, const struct userptr_object *o, bool count)
{
	cl_event event;

	while (next_running(dev, o, &event)) {
		pthread_mutex_unlock(&dev->lock);
		if (count)
			atomic_fetch_add(&dev->count.waits, 1);
		clWaitForEvents(1, &event);
		clReleaseEvent(event);
		pthread_mutex_lock(&dev->lock);
	}
}

/* The bytes are where they were, for who goes by addresses. */
static bool keeps_bytes(enum hmm_event_kind kind)
{
	return kind == HMM_EVENT_PROTECTION || kind == HMM_EVENT_MIGRATE;
}

static void mark_pages(struct userptr_object *o, const struct hmm_event *event)
{
	uintptr_t at = event->start > first_page(o) ? event->start : first_page(o);
	uintptr_t end = event->end < past_pages(o) ? event->end : past_pages(o);

	for (; at < end; at += PAGE) {
		struct copied *page = &o->pages[page_index(o, at)];

		atomic_store(&page->stale, true);
		if (event->kind == HMM_EVENT_CLEAR)
			page->cleared = o->dev->number;
		else if (!keeps_bytes(event->kind))
			page->gone = o->dev->number;
	}
}

static void mark_jobs(const struct userptr_object *o, const struct hmm_event *event)
{
	struct userptr_job *job;

	for (job = o->dev->jobs; job; job = job->next)
		for (unsigned i = 0; i < job->n_uses; i++) {
			const struct use *use = &job->uses[i];

			if (use->object == o && use->start < event->end &&
			    event->start < use->end && !has_ended(job->event))
				job->stale = true;
		}
}

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct userptr_object *o = priv;
	struct userptr *dev = o->dev;

	/* A child shares the pages until somebody writes: addresses go on being right. */
	if (event->kind == HMM_EVENT_FORK)
		return;
	atomic_fetch_add(&dev->count.invalidations, 1);
	pthread_mutex_lock(&dev->lock);
	o->valid = false;
	if (event->kind == HMM_EVENT_RELEASE)
		dev->dead = true;
	if (!keeps_bytes(event->kind))
		mark_jobs(o, event);
	if (o->pages)
		mark_pages(o, event);
	if (dev->mode == USERPTR_KFD)
		userptr_evict(o);
	else
		userptr_idle(dev, o, true);
	pthread_mutex_unlock(&dev->lock);
}

const struct hmm_notifier_ops userptr_notifier_ops = {
	.size = sizeof(userptr_notifier_ops),
	.invalidate = invalidate,
};
