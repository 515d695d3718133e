/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * object - a range of the program's memory, its pages, and the buffer that stands for it.
 *
 * The device goes by addresses, as the CPU does, or has copies: so "getting the pages" is to make them
 * present, with the permission that is needed, and to note since when (`seen`). Who uses them
 * later asks hmm_notifier_read_retry() under `lock` whether that is true still.
 */
#include "userptr_private.h"

#define WINDOW 512u /* pages that are faulted at once */
#define KNOWN_FLAGS (USERPTR_READONLY | USERPTR_ANONONLY | USERPTR_VALIDATE | USERPTR_REGISTER)

static int other_than_anonymous(const struct hmm_run *run, void *arg)
{
	return run->kind == HMM_VMA_ANON || run->kind == HMM_VMA_HEAP ||
			       run->kind == HMM_VMA_STACK
		       ? 0
		       : userptr_say(-EPERM, "%#lx is %s memory, and the object ANONONLY",
				     (unsigned long)run->start, hmm_vma_kind_text(run->kind));
}

static int fault_window(const struct hmm_range *all, uintptr_t at, bool write)
{
	uint64_t pfns[WINDOW] = { 0 };
	struct hmm_range part = *all;
	int err;

	part.start = at;
	part.end = all->end - at < WINDOW * PAGE ? all->end : at + WINDOW * PAGE;
	part.pfns = pfns;
	part.default_flags = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0);
	err = hmm_range_fault(&part);
	if (err == -EFAULT || err == -EPERM || err == -EOPNOTSUPP)
		userptr_say(err, "%#lx: %s", (unsigned long)part.fault_addr,
			    hmm_reason_text(part.fault_reason));
	return err;
}

static int fault_all(const struct userptr_object *o, const struct hmm_range *range)
{
	int err = 0;

	if (o->flags & USERPTR_ANONONLY)
		err = hmm_snapshot_runs(o->dev->hmm, range->start, range->end, 0,
					other_than_anonymous, NULL);
	for (uintptr_t at = range->start; at < range->end && !err; at += WINDOW * PAGE)
		err = fault_window(range, at, !(o->flags & USERPTR_READONLY));
	return err;
}

bool userptr_has_changed(struct userptr *dev, const struct hmm_range *since)
{
	bool changed;

	if (!since->notifier || hmm_fence(dev->hmm, since->start, since->end - since->start))
		return false;
	pthread_mutex_lock(&dev->lock);
	changed = hmm_notifier_read_retry(since);
	pthread_mutex_unlock(&dev->lock);
	return changed;
}

/* 0; -EBUSY something changed meanwhile. */
static int get_once(struct userptr_object *o, struct hmm_range *range)
{
	struct userptr *dev = o->dev;
	int err = hmm_notifier_read_begin(range);

	if (!err)
		err = fault_all(o, range);
	if (err)
		return userptr_has_changed(dev, range) ? -EBUSY : err;
	pthread_mutex_lock(&dev->lock);
	if (hmm_notifier_read_retry(range)) {
		err = -EBUSY;
	} else {
		o->seen = *range;
		o->valid = true;
		o->evicted = false;
	}
	pthread_mutex_unlock(&dev->lock);
	return err;
}

static int get_pages(struct userptr_object *o, struct hmm_range *range)
{
	uint64_t end = userptr_ms() + AGAIN_MS;
	int err;

	atomic_fetch_add(&o->dev->count.validations, 1);
	do
		err = o->notifier ? get_once(o, range) : fault_all(o, range);
	while (err == -EBUSY && userptr_ms() < end);
	return err;
}

/* After a fence: has it pages that will do, and since when? (A fork, which invalidate ignores, counts
 * as a change for who got pages before it.) */
static bool has_pages(struct userptr_object *o, struct hmm_range *since)
{
	bool valid;

	pthread_mutex_lock(&o->dev->lock);
	valid = o->valid && !hmm_notifier_read_retry(&o->seen);
	if (valid)
		*since = o->seen;
	pthread_mutex_unlock(&o->dev->lock);
	return valid;
}

/*
 * A device that has copies finds out by copying that a page has gone without a message (a file
 * was truncated, a guard page). One that goes by addresses would run into it: it asks each time.
 */
int userptr_get_pages(struct use *use)
{
	struct userptr_object *o = use->object;
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = o->dev->hmm,
		.notifier = o->notifier,
		.start = first_page(o),
		.end = past_pages(o),
	};
	int err;

	if (o->notifier && o->dev->reach == REACH_COPY) {
		err = hmm_fence(o->dev->hmm, range.start, range.end - range.start);
		if (err)
			return err;
		if (has_pages(o, &use->begun))
			return 0;
	}
	err = get_pages(o, &range);
	use->begun = range;
	return err;
}

/* ---- buffers ---- */

static int make_buffer(struct userptr_object *o)
{
	bool shared = o->dev->reach == REACH_SHARED;
	cl_int result;
	cl_mem mem;

	if (o->mem)
		return 0;
	mem = clCreateBuffer(o->dev->context,
			     CL_MEM_READ_WRITE | (shared ? CL_MEM_USE_HOST_PTR : 0), o->length,
			     shared ? (void *)o->start : NULL, &result);
	if (!result)
		o->mem = mem;
	return userptr_cl(result, "a buffer");
}

/* A part of an object that no sub-buffer can be: its memory is the buffer. */
static int make_part(struct userptr_object *o, uintptr_t addr, cl_mem *part)
{
	cl_buffer_region region = { addr - o->start, o->start + o->length - addr };
	cl_int result;

	if (region.origin % o->dev->align == 0)
		*part = clCreateSubBuffer(o->mem, 0, CL_BUFFER_CREATE_TYPE_REGION, &region,
					  &result);
	else if (o->dev->reach == REACH_SHARED)
		*part = clCreateBuffer(o->dev->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR,
				       region.size, (void *)addr, &result);
	else
		return userptr_say(-EINVAL,
				   "%#lx is %zu bytes into its object: this device needs a "
				   "multiple of %zu",
				   (unsigned long)addr, region.origin, o->dev->align);
	return userptr_cl(result, "a part of a buffer");
}

int userptr_buffer(struct userptr_job *job, struct userptr_object *o, uintptr_t addr,
		   cl_mem *mem)
{
	int err;

	*mem = NULL;
	if (o->dev->reach == REACH_POINTER)
		return 0;
	err = make_buffer(o);
	if (err)
		return err;
	*mem = o->mem;
	if (addr == o->start)
		return 0;
	err = make_part(o, addr, mem);
	if (!err)
		job->parts[job->n_parts++] = *mem;
	return err;
}

/* ---- made and gone ---- */

static int check_range(const struct userptr *dev, uintptr_t start, size_t length,
		       unsigned flags)
{
	if (!length || flags & ~KNOWN_FLAGS)
		return userptr_say(-EINVAL, length ? "unknown flags" : "an object of no bytes");
	if (start + length < start || start + length > UINTPTR_MAX - PAGE)
		return userptr_say(-EOVERFLOW, "the range wraps");
	if (!(flags & (USERPTR_READONLY | USERPTR_REGISTER)))
		return userptr_say(-EACCES, "an object that is written to needs REGISTER: who "
					    "writes must be told of changes");
	if (dev->max_length && length > dev->max_length)
		return userptr_say(-E2BIG, "the device has no buffers above %zu bytes",
				   dev->max_length);
	return 0;
}

static void put_object(struct userptr_object *o)
{
	hmm_notifier_remove(o->notifier);
	userptr_unwatch(o);
	if (o->mem)
		clReleaseMemObject(o->mem);
	free(o->pages);
	free(o);
}

static int prepare(struct userptr_object *o)
{
	size_t n = page_count(o);

	int err = 0;

	if (o->dev->reach == REACH_COPY) {
		o->pages = calloc(n, sizeof(*o->pages));
		if (!o->pages)
			return -ENOMEM;
	}
	if (o->flags & USERPTR_REGISTER)
		err = hmm_notifier_insert(o->dev->hmm, first_page(o), n * PAGE,
					  &userptr_notifier_ops, o, &o->notifier);
	return !err && o->pages ? userptr_watch(o) : err;
}

static void publish(struct userptr_object *o)
{
	pthread_mutex_lock(&o->dev->lock);
	o->next = o->dev->objects;
	o->dev->objects = o;
	pthread_mutex_unlock(&o->dev->lock);
}

int userptr_object_create(struct userptr *dev, const void *start, size_t length,
			  unsigned flags, struct userptr_object **out)
{
	struct userptr_object *o;
	int err = begin_call(out ? dev : NULL);

	if (!err)
		err = check_range(dev, (uintptr_t)start, length, flags);
	if (err)
		return err;
	o = calloc(1, sizeof(*o));
	if (!o)
		return -ENOMEM;
	*o = (struct userptr_object){
		.dev = dev, .start = (uintptr_t)start, .length = length, .flags = flags
	};
	err = prepare(o);
	if (err) {
		put_object(o);
		return err;
	}
	publish(o);
	if (flags & USERPTR_VALIDATE)
		err = userptr_validate(o);
	if (err)
		userptr_object_destroy(o);
	else
		*out = o;
	return err;
}

/* What jobs have to store is dropped with the object: their use of it ends. */
static void leave_jobs(struct userptr_object *o)
{
	struct userptr_job *job;

	for (job = o->dev->jobs; job; job = job->next)
		for (unsigned i = 0; i < job->n_uses; i++)
			if (job->uses[i].object == o)
				job->uses[i].object = NULL;
}

void userptr_object_destroy(struct userptr_object *o)
{
	struct userptr_object **at;
	struct userptr *dev;

	if (!o || check_process(o->dev))
		return;
	dev = o->dev;
	pthread_mutex_lock(&dev->turn);
	pthread_mutex_lock(&dev->lock);
	userptr_idle(dev, o, false);
	leave_jobs(o);
	for (at = &dev->objects; *at && *at != o;)
		at = &(*at)->next;
	if (*at)
		*at = o->next;
	pthread_mutex_unlock(&dev->lock);
	pthread_mutex_unlock(&dev->turn);
	put_object(o);
}

int userptr_validate(struct userptr_object *o)
{
	struct use use = { .object = o };
	int err = begin_call(o ? o->dev : NULL);

	if (err)
		return err;
	pthread_mutex_lock(&o->dev->turn);
	err = userptr_get_pages(&use);
	pthread_mutex_unlock(&o->dev->turn);
	return err;
}

bool userptr_object_valid(struct userptr_object *o)
{
	bool valid;

	if (!o || check_process(o->dev))
		return false;
	pthread_mutex_lock(&o->dev->lock);
	valid = o->valid;
	pthread_mutex_unlock(&o->dev->lock);
	return valid;
}
