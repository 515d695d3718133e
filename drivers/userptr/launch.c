/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * launch - a job, from its submit to the end of its wait.
 *
 *	for each object: fence, pages		nothing older is missing (P1, G3)
 *	what has changed goes to the device	(memory of its own)
 *	lock
 *		has any of them changed meanwhile? then -EAGAIN
 *		the kernel is started, and can be seen by invalidate
 *	unlock
 *
 * and the wait: the kernel's end; what it wrote goes to memory. See copy.c.
 */
#include "userptr_private.h"

static void free_job(struct userptr_job *job)
{
	for (unsigned i = 0; i < job->n_parts; i++)
		clReleaseMemObject(job->parts[i]);
	if (job->event)
		clReleaseEvent(job->event);
	free(job);
}

/*
 * Platforms do not check all of it: PoCL counts work groups in 32 bits, divides by a size of 0 and
 * asserts that local memory fits.
 */
static int check_size(const struct userptr_launch *launch)
{
	bool chosen = launch->local[0];
	size_t items = 1;

	if (launch->dims < 1 || launch->dims > 3)
		return userptr_say(-EINVAL, "%u dimensions", launch->dims);
	for (unsigned i = 0; i < launch->dims; i++) {
		if (!launch->global[i])
			return userptr_say(-EINVAL, "no work items");
		if (!launch->local[i] == chosen)
			return userptr_say(-EINVAL, "a work group has a size in each dimension, or in none");
		if (__builtin_mul_overflow(items, launch->global[i], &items) || items > UINT32_MAX)
			return userptr_say(-EINVAL, "2^32 work items or more: launch them in parts");
	}
	return 0;
}

static int check_args(const struct userptr *dev, const struct userptr_launch *launch)
{
	size_t local = 0;
	int err = 0;

	if (launch->n_args != launch->kernel->n_args || launch->n_args > USERPTR_ARGS_MAX)
		return userptr_say(-EINVAL, "the kernel has %u arguments, the launch %u",
				   launch->kernel->n_args, launch->n_args);
	if (launch->n_args && !launch->args)
		return userptr_say(-EINVAL, "arguments that are nowhere");
	for (unsigned i = 0; i < launch->n_args && !err; i++) {
		const struct userptr_arg *arg = &launch->args[i];

		err = userptr_check_arg(launch->kernel, i, arg);
		if (!err && arg->kind == USERPTR_ARG_LOCAL && dev->local_bytes &&
		    (__builtin_add_overflow(local, arg->length, &local) || local > dev->local_bytes))
			err = userptr_say(-EINVAL, "the device has %zu bytes of local memory",
					  dev->local_bytes);
	}
	return err;
}

static int check_launch(const struct userptr *dev, const struct userptr_launch *launch)
{
	int err;

	if (!launch || launch->size < sizeof(*launch))
		return userptr_say(-EINVAL, "no launch, or its size is not set");
	if (!launch->kernel || launch->kernel->dev != dev)
		return userptr_say(-EINVAL, "no kernel, or one of another device");
	err = check_args(dev, launch);
	return err ? err : check_size(launch);
}

/*
 * An access failed, though no change was told: what else is thought to be there may be gone as
 * well (a guard page, a truncated file), for all objects that have it.
 */
static void distrust(const struct use *use)
{
	struct userptr *dev = use->object->dev;
	struct userptr_object *o;

	pthread_mutex_lock(&dev->lock);
	for (o = dev->objects; o; o = o->next)
		if (first_page(o) < use->end && use->start < past_pages(o))
			o->valid = false;
	pthread_mutex_unlock(&dev->lock);
}

static int get_ready(const struct use *use)
{
	int err = userptr_find_changed(use);

	if (!err)
		err = userptr_upload(use);
	if (err == -EFAULT && userptr_has_changed(use->object->dev, &use->begun))
		err = -EAGAIN;
	return err;
}

/* Pages are got, and the device has what memory has. */
static int prepare(struct userptr_job *job, const struct userptr_launch *launch)
{
	int err = 0;

	for (unsigned i = 0; i < launch->n_args && !err; i++)
		err = userptr_add_arg(job, &launch->args[i]);
	for (unsigned i = 0; i < job->n_uses && !err; i++) {
		err = userptr_get_pages(&job->uses[i]);
		if (err)
			distrust(&job->uses[i]);
	}
	for (unsigned i = 0; i < launch->n_args && !err; i++)
		err = userptr_set_arg(job, launch->kernel->kernel, i, &launch->args[i]);
	for (unsigned i = 0; i < job->n_uses && !err && job->dev->reach == REACH_COPY; i++) {
		err = get_ready(&job->uses[i]);
		if (err)
			distrust(&job->uses[i]);
	}
	return err;
}

/* Under `lock`. */
static bool still_valid(const struct userptr_job *job)
{
	for (unsigned i = 0; i < job->n_uses; i++) {
		const struct use *use = &job->uses[i];

		if (use->object->notifier && hmm_notifier_read_retry(&use->begun))
			return false;
	}
	return true;
}

/* Under `lock`. */
static int start(struct userptr_job *job, const struct userptr_launch *launch)
{
	struct userptr *dev = job->dev;
	bool chosen = launch->local[0];
	cl_int result = clEnqueueNDRangeKernel(dev->queue, launch->kernel->kernel, launch->dims,
					       NULL, launch->global,
					       chosen ? launch->local : NULL, 0, NULL,
					       &job->event);
	int err = userptr_cl(result, "starting the kernel");

	if (err) {
		job->event = NULL;
		return err;
	}
	clFlush(dev->queue);
	job->number = ++dev->number;
	job->next = dev->jobs;
	dev->jobs = job;
	atomic_fetch_add(&dev->count.jobs, 1);
	return 0;
}

static int launch_job(struct userptr_job *job, const struct userptr_launch *launch)
{
	struct userptr *dev = job->dev;
	int err = prepare(job, launch);

	if (err)
		return err;
	userptr_guard_watch(job);
	pthread_mutex_lock(&dev->lock);
	if (dev->dead)
		err = -ENODEV;
	else if (dev->stopped || !still_valid(job))
		err = userptr_say(-EAGAIN, "the memory changed while the job was prepared");
	else
		err = start(job, launch);
	pthread_mutex_unlock(&dev->lock);
	if (err)
		userptr_guard_forget(job);
	return err;
}

static int submit_once(struct userptr *dev, const struct userptr_launch *launch,
		       struct userptr_job **out)
{
	struct userptr_job *job = calloc(1, sizeof(*job));
	int err;

	if (!job)
		return -ENOMEM;
	job->dev = dev;
	pthread_mutex_lock(&dev->turn);
	err = launch_job(job, launch);
	pthread_mutex_unlock(&dev->turn);
	if (err)
		free_job(job);
	else
		*out = job;
	return err;
}

/* kfd: a job is not refused because the queue has been stopped: it waits for the queue. */
static int submit_stopped(struct userptr *dev, const struct userptr_launch *launch,
			  struct userptr_job **out)
{
	uint64_t end = userptr_ms() + AGAIN_MS;
	int err;

	do {
		pthread_mutex_lock(&dev->lock);
		err = userptr_await_restore(dev);
		pthread_mutex_unlock(&dev->lock);
		if (!err)
			err = submit_once(dev, launch, out);
	} while (err == -EAGAIN && userptr_ms() < end);
	return err == -EAGAIN ? -EBUSY : err;
}

int userptr_submit(struct userptr *dev, const struct userptr_launch *launch,
		   struct userptr_job **out)
{
	int err = begin_call(out ? dev : NULL);

	if (!err)
		err = check_launch(dev, launch);
	if (err)
		return err;
	err = dev->mode == USERPTR_KFD ? submit_stopped(dev, launch, out)
				       : submit_once(dev, launch, out);
	if (err == -EAGAIN)
		atomic_fetch_add(&dev->count.again, 1);
	return err;
}

/* ---- its end ---- */

/* 0, or what the platform says of the kernel. */
static int kernel_end(struct userptr_job *job)
{
	cl_int status = CL_COMPLETE;
	int err;

	clWaitForEvents(1, &job->event);
	err = userptr_cl(clGetEventInfo(job->event, CL_EVENT_COMMAND_EXECUTION_STATUS,
					sizeof(status), &status, NULL),
			 "a job");
	return err ? err : userptr_cl(status, "a job");
}

static void unlink_job(struct userptr_job *job)
{
	struct userptr_job **at;

	pthread_mutex_lock(&job->dev->lock);
	for (at = &job->dev->jobs; *at != job;)
		at = &(*at)->next;
	*at = job->next;
	pthread_mutex_unlock(&job->dev->lock);
}

/* Under `turn`: an object that was destroyed is NULL. */
static int store_all(const struct userptr_job *job)
{
	int result = 0, err;

	for (unsigned i = 0; i < job->n_uses; i++) {
		const struct use *use = &job->uses[i];

		if (!use->object || !(use->access & USERPTR_WRITE))
			continue;
		err = userptr_download(job, use);
		if (!result || result == -ESTALE)
			result = err ? err : result;
	}
	return result;
}

static int changed_meanwhile(const struct userptr_job *job)
{
	bool stale;

	pthread_mutex_lock(&job->dev->lock);
	stale = job->stale;
	pthread_mutex_unlock(&job->dev->lock);
	return stale ? userptr_say(-ESTALE, "memory that the job uses changed while it ran") : 0;
}

static int finish(struct userptr_job *job)
{
	int err = kernel_end(job);
	uintptr_t fault;

	if (err)
		return err;
	pthread_mutex_lock(&job->dev->turn);
	if (job->dev->reach == REACH_COPY)
		err = store_all(job);
	else
		err = changed_meanwhile(job);
	pthread_mutex_unlock(&job->dev->turn);
	if (userptr_guard_fault(job, &fault))
		err = userptr_say(-EFAULT, "the kernel's access to %#lx failed",
				  (unsigned long)fault);
	return err;
}

int userptr_wait(struct userptr_job *job)
{
	int err = begin_call(job ? job->dev : NULL);

	if (err)
		return err;
	err = finish(job);
	if (err)
		atomic_fetch_add(&job->dev->count.failed, 1);
	userptr_guard_forget(job);
	unlink_job(job);
	free_job(job);
	return err;
}

int userptr_run(struct userptr *dev, const struct userptr_launch *launch)
{
	uint64_t end = userptr_ms() + AGAIN_MS;
	struct userptr_job *job;
	int err;

	do
		err = userptr_submit(dev, launch, &job);
	while (err == -EAGAIN && userptr_ms() < end);
	if (err == -EAGAIN)
		return userptr_say(-EBUSY, "the memory changes all the time");
	return err ? err : userptr_wait(job);
}
