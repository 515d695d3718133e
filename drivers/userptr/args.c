/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * args - what a launch names: which objects, which part of them, with which right.
 */
#include "userptr_private.h"

static uintptr_t past(const struct userptr_object *o)
{
	return o->start + o->length;
}

static bool may(const struct userptr_object *o, unsigned access)
{
	return !(access & USERPTR_WRITE) || !(o->flags & USERPTR_READONLY);
}

/* Who is in the list stays there as long as we have our turn; others may come. */
static struct userptr_object *objects(struct userptr *dev)
{
	struct userptr_object *first;

	pthread_mutex_lock(&dev->lock);
	first = dev->objects;
	pthread_mutex_unlock(&dev->lock);
	return first;
}

static bool is_of(struct userptr *dev, const struct userptr_object *o)
{
	const struct userptr_object *at = objects(dev);

	while (at && at != o)
		at = at->next;
	return at;
}

/* Of several the one made last that may be used so; else one that may not. */
static struct userptr_object *object_at(struct userptr *dev, uintptr_t addr,
					size_t length, unsigned access)
{
	struct userptr_object *o, *refused = NULL;

	for (o = objects(dev); o; o = o->next) {
		if (addr < o->start || addr >= past(o) || length > past(o) - addr)
			continue;
		if (may(o, access))
			return o;
		refused = o;
	}
	return refused;
}

static int name_object(struct userptr *dev, const struct userptr_arg *arg,
		       struct userptr_object **o, uintptr_t *start)
{
	if (!arg->access || arg->access & ~(USERPTR_READ | USERPTR_WRITE))
		return userptr_say(-EINVAL, "an argument is read, written to or both: its access is %#x",
				   arg->access);
	if (arg->kind == USERPTR_ARG_POINTER) {
		*start = (uintptr_t)arg->pointer;
		*o = object_at(dev, *start, arg->length, arg->access);
		return *o ? 0
			  : userptr_say(-EFAULT, "%p: no object has %zu bytes there",
					arg->pointer, arg->length ? arg->length : 1);
	}
	*o = arg->object;
	if (!*o || !is_of(dev, *o))
		return userptr_say(-EINVAL, "an argument is no object of this device");
	*start = (*o)->start;
	return arg->length <= (*o)->length
		       ? 0
		       : userptr_say(-EFAULT, "%zu bytes of an object that has %zu", arg->length,
				     (*o)->length);
}

/*
 * Two buffers over the same bytes: on a device with memory of its own a write to one is not
 * seen in the other.
 */
static int check_overlap(const struct userptr_job *job, const struct use *use)
{
	if (job->dev->reach != REACH_COPY)
		return 0;
	for (unsigned i = 0; i < job->n_uses; i++) {
		const struct use *other = &job->uses[i];

		if (other->object == use->object || !((other->access | use->access) & USERPTR_WRITE))
			continue;
		if (other->start < use->end && use->start < other->end)
			return userptr_say(-EINVAL, "two objects overlap at %#lx, and one is "
						    "written to",
					   (unsigned long)(use->start > other->start
								   ? use->start
								   : other->start));
	}
	return 0;
}

/* An object that is named twice is used once, from the lowest to the highest byte. */
static int add_use(struct userptr_job *job, struct use use)
{
	int err = check_overlap(job, &use);

	for (unsigned i = 0; i < job->n_uses && !err; i++) {
		struct use *known = &job->uses[i];

		if (known->object != use.object)
			continue;
		if (use.access & USERPTR_WRITE && known->access & USERPTR_WRITE) {
			use.from = known->from < use.from ? known->from : use.from;
			use.to = known->to > use.to ? known->to : use.to;
		}
		if (use.access & USERPTR_WRITE) {
			known->from = use.from;
			known->to = use.to;
		}
		known->access |= use.access;
		known->start = use.start < known->start ? use.start : known->start;
		known->end = use.end > known->end ? use.end : known->end;
		return 0;
	}
	if (!err)
		job->uses[job->n_uses++] = use;
	return err;
}

int userptr_add_arg(struct userptr_job *job, const struct userptr_arg *arg)
{
	struct use use = { .access = arg->access };
	int err;

	if (arg->kind == USERPTR_ARG_VALUE && !arg->pointer)
		return userptr_say(-EINVAL, "a value that is nowhere");
	if (arg->kind == USERPTR_ARG_VALUE || arg->kind == USERPTR_ARG_LOCAL)
		return arg->length ? 0 : userptr_say(-EINVAL, "a value of no bytes");
	if (arg->kind != USERPTR_ARG_OBJECT && arg->kind != USERPTR_ARG_POINTER)
		return userptr_say(-EINVAL, "unknown kind of argument %d", (int)arg->kind);
	err = name_object(job->dev, arg, &use.object, &use.start);
	if (err)
		return err;
	if (!may(use.object, arg->access))
		return userptr_say(-EACCES, "the object is READONLY, and an argument written to");
	use.end = arg->length ? use.start + arg->length : past(use.object);
	use.from = use.start;
	use.to = use.end;
	return add_use(job, use);
}

static int set_memory(struct userptr_job *job, cl_kernel kernel, cl_uint i,
		      const struct userptr_arg *arg)
{
	struct userptr_object *o;
	uintptr_t start;
	cl_mem mem;
	int err = name_object(job->dev, arg, &o, &start);

	if (!err)
		err = userptr_buffer(job, o, start, &mem);
	if (err)
		return err;
	if (!mem)
		return userptr_cl(clSetKernelArgSVMPointer(kernel, i, (void *)start),
				  "an argument");
	return userptr_cl(clSetKernelArg(kernel, i, sizeof(mem), &mem), "an argument");
}

int userptr_set_arg(struct userptr_job *job, cl_kernel kernel, cl_uint i,
		    const struct userptr_arg *arg)
{
	bool local = arg->kind == USERPTR_ARG_LOCAL;

	if (arg->kind == USERPTR_ARG_OBJECT || arg->kind == USERPTR_ARG_POINTER)
		return set_memory(job, kernel, i, arg);
	return userptr_cl(clSetKernelArg(kernel, i, arg->length, local ? NULL : arg->pointer),
			  "an argument");
}
