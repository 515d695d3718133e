/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of userptr - what `uhmm drivers --selftest userptr` runs: the same steps on a
 * device that shares memory (if this one does) and on one that does not, by the rules of
 * graphics queues and of kfd's.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/driver.h>
#include <uhmm/userptr.h>

#define PAGE 4096
#define FLOATS (64 * 1024)
#define SIZE (FLOATS * sizeof(float))

static const char source[] =
	"kernel void saxpy(float a, global const float *x, global float *y)\n"
	"{ size_t i = get_global_id(0); y[i] += a * x[i]; }\n"
	"kernel void slow(global float *y, int rounds)\n"
	"{ float f = y[0]; for (int i = 0; i < rounds; i++) f = f * 0.999f + 1; y[1] = f; }\n"
	"kernel void wild(global float *y, long at)\n"
	"{ y[at + get_global_id(0) * 1024] = 1; }\n";

struct rig {
	struct userptr *dev;
	struct userptr_kernel *saxpy, *slow, *wild;
	float *x, *y;
	struct userptr_object *in, *out;
};

static void *map_at(void *where, int fixed)
{
	void *memory = mmap(where, SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void stats_of(const struct rig *rig, struct userptr_stats *stats)
{
	stats->size = sizeof(*stats);
	userptr_get_stats(rig->dev, stats);
}

static int run_saxpy(const struct rig *rig)
{
	float a = 2;
	struct userptr_arg args[] = {
		{ .kind = USERPTR_ARG_VALUE, .pointer = &a, .length = sizeof(a) },
		{ .kind = USERPTR_ARG_OBJECT, .object = rig->in, .access = USERPTR_READ },
		{ .kind = USERPTR_ARG_POINTER, .pointer = rig->y,
		  .access = USERPTR_READ | USERPTR_WRITE },
	};
	struct userptr_launch launch = { .size = sizeof(launch), .kernel = rig->saxpy,
					 .args = args, .n_args = 3, .dims = 1,
					 .global = { FLOATS } };

	return userptr_run(rig->dev, &launch);
}

static int check_saxpy(const struct rig *rig, float x, float y)
{
	int err;

	for (unsigned i = 0; i < FLOATS; i++) {
		rig->x[i] = x + (float)(i % 7);
		rig->y[i] = y;
	}
	err = run_saxpy(rig);
	for (unsigned i = 0; i < FLOATS && !err; i++)
		if (rig->y[i] != y + 2 * (x + (float)(i % 7)))
			err = -EIO;
	return err;
}

static int computes(struct rig *rig)
{
	int err = 0;

	for (unsigned i = 0; i < 20 && !err; i++)
		err = check_saxpy(rig, (float)i, 3);
	return err;
}

/* Other memory at the same addresses: the kernel never works on the old. */
static int remapped(struct rig *rig)
{
	int err = 0;

	for (unsigned i = 0; i < 50 && !err; i++) {
		if (munmap(rig->x, SIZE) || map_at(rig->x, MAP_FIXED_NOREPLACE) != rig->x ||
		    munmap(rig->y, SIZE) || map_at(rig->y, MAP_FIXED_NOREPLACE) != rig->y)
			return -errno;
		err = run_saxpy(rig); /* zeros */
		if (!err && (rig->y[0] != 0 || rig->y[FLOATS - 1] != 0))
			err = -EIO;
		if (!err)
			err = check_saxpy(rig, (float)i, 1);
	}
	return err;
}

static int flags(struct rig *rig)
{
	struct userptr_object *o;

	if (userptr_object_create(rig->dev, rig->x, SIZE, 0, &o) != -EACCES ||
	    userptr_object_create(rig->dev, rig->x, 0, USERPTR_REGISTER, &o) != -EINVAL ||
	    userptr_object_create(rig->dev, rig->x, SIZE_MAX, USERPTR_REGISTER, &o) !=
		    -EOVERFLOW ||
	    userptr_object_create(rig->dev, rig->x, SIZE, 1u << 9, &o) != -EINVAL)
		return -EIO;
	if (mprotect(rig->x, SIZE, PROT_READ))
		return -errno;
	if (userptr_object_create(rig->dev, rig->x, SIZE, USERPTR_REGISTER | USERPTR_VALIDATE,
				  &o) != -EPERM)
		return -EIO;
	if (mprotect(rig->x, SIZE, PROT_READ | PROT_WRITE))
		return -errno;
	return 0;
}

static int submit_slow(const struct rig *rig, int rounds, struct userptr_job **job)
{
	struct userptr_arg args[] = {
		{ .kind = USERPTR_ARG_OBJECT, .object = rig->out,
		  .access = USERPTR_READ | USERPTR_WRITE },
		{ .kind = USERPTR_ARG_VALUE, .pointer = &rounds, .length = sizeof(rounds) },
	};
	struct userptr_launch launch = { .size = sizeof(launch), .kernel = rig->slow,
					 .args = args, .n_args = 2, .dims = 1, .global = { 1 } };
	int err;

	do
		err = userptr_submit(rig->dev, &launch, job);
	while (err == -EAGAIN);
	return err;
}

/* A page that the kernel does not touch goes: who tells waits, and the job says so. */
static int waits(struct rig *rig)
{
	struct userptr_stats before, after;
	struct userptr_job *job;
	struct hmm *hmm;
	int err = submit_slow(rig, 1, &job); /* it is compiled */

	if (!err)
		err = userptr_wait(job);
	if (!err)
		err = hmm_open(&hmm);
	if (err)
		return err;
	stats_of(rig, &before);
	err = submit_slow(rig, 60000000, &job);
	if (!err) {
		if (madvise((char *)rig->y + SIZE - PAGE, PAGE, MADV_DONTNEED))
			err = -errno;
		hmm_fence(hmm, (uintptr_t)rig->y, SIZE);
		stats_of(rig, &after);
		if (!err && (after.waits <= before.waits || userptr_object_valid(rig->out)))
			err = after.evictions > before.evictions ? 0 : -EIO;
		if (userptr_wait(job) < 0 && after.shares)
			err = err ? err : 0; /* -ESTALE: it changed */
	}
	hmm_put(hmm);
	return err ? err : check_saxpy(rig, 5, 5);
}

/* An access that nothing is mapped for: an error of the job, not the end of the program. */
static int wild(struct rig *rig)
{
	struct userptr_stats stats;
	float *hole = map_at(NULL, 0);
	long at = hole ? hole - rig->y : 0;
	struct userptr_arg args[] = {
		{ .kind = USERPTR_ARG_OBJECT, .object = rig->out, .access = USERPTR_WRITE },
		{ .kind = USERPTR_ARG_VALUE, .pointer = &at, .length = sizeof(at) },
	};
	struct userptr_launch launch = { .size = sizeof(launch), .kernel = rig->wild,
					 .args = args, .n_args = 2, .dims = 1, .global = { 8 } };
	int err;

	stats_of(rig, &stats);
	if (!stats.shares) /* where that would be in its own memory nobody knows */
		at = 0;
	if (!hole || munmap(hole, SIZE))
		return -ENOMEM;
	err = userptr_run(rig->dev, &launch);
	if (err != (stats.shares ? -EFAULT : 0))
		return err ? err : -EIO;
	return check_saxpy(rig, 1, 1);
}

static const struct step {
	const char *what;
	int (*run)(struct rig *rig);
} steps[] = {
	{ "saxpy", computes },
	{ "memory mapped anew is seen anew", remapped },
	{ "flags and lengths", flags },
	{ "an invalidate waits for the job", waits },
	{ "a kernel that faults", wild },
};

static int set_up(struct rig *rig, const struct userptr_options *options)
{
	int err = userptr_open(options, &rig->dev);

	if (!err)
		err = userptr_kernel_create(rig->dev, source, "saxpy", NULL, &rig->saxpy);
	if (!err)
		err = userptr_kernel_create(rig->dev, source, "slow", NULL, &rig->slow);
	if (!err)
		err = userptr_kernel_create(rig->dev, source, "wild", NULL, &rig->wild);
	if (err)
		return err;
	rig->x = map_at(NULL, 0);
	rig->y = map_at(NULL, 0);
	if (!rig->x || !rig->y)
		return -ENOMEM;
	err = userptr_object_create(rig->dev, rig->x, SIZE, USERPTR_READONLY | USERPTR_REGISTER,
				    &rig->in);
	if (!err)
		err = userptr_object_create(rig->dev, rig->y, SIZE,
					    USERPTR_REGISTER | USERPTR_ANONONLY |
						    USERPTR_VALIDATE,
					    &rig->out);
	return err;
}

static void tear_down(struct rig *rig)
{
	userptr_object_destroy(rig->in);
	userptr_object_destroy(rig->out);
	if (rig->x)
		munmap(rig->x, SIZE);
	if (rig->y)
		munmap(rig->y, SIZE);
	userptr_kernel_destroy(rig->saxpy);
	userptr_kernel_destroy(rig->slow);
	userptr_kernel_destroy(rig->wild);
	userptr_close(rig->dev);
}

static int run_on(const struct userptr_options *options, char *why, size_t size)
{
	struct rig rig = { 0 };
	int err = set_up(&rig, options);

	if (err)
		snprintf(why, size, "open: %s", userptr_strerror(err));
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps) && !err; i++) {
		err = steps[i].run(&rig);
		if (err)
			snprintf(why, size, "%s%s%s: %s",
				 options->mode == USERPTR_KFD ? "kfd, " : "",
				 options->flags & USERPTR_COPY ? "copies, " : "",
				 steps[i].what,
				 err == -EIO ? "wrong answer" : userptr_strerror(err));
	}
	if (!err) {
		struct userptr_stats stats;

		stats_of(&rig, &stats);
		snprintf(why, size, "%s: %zu steps on 4 devices", stats.platform,
			 sizeof(steps) / sizeof(*steps));
	}
	tear_down(&rig);
	return err;
}

static int selftest(char *why, size_t size)
{
	struct userptr_options options = { .size = sizeof(options) };
	int err = 0;

	for (unsigned i = 0; i < 4 && !err; i++) {
		options.mode = i & 2 ? USERPTR_KFD : USERPTR_GFX;
		options.flags = i & 1 ? USERPTR_COPY : 0;
		err = run_on(&options, why, size);
	}
	return err;
}

static int usable(char *why, size_t size)
{
	struct userptr *dev;
	int err = userptr_open(NULL, &dev);

	if (err)
		snprintf(why, size, "%s", userptr_strerror(err));
	else
		userptr_close(dev);
	return err;
}

extern const struct uhmm_driver uhmm_driver_userptr;
const struct uhmm_driver uhmm_driver_userptr = {
	.name = "userptr",
	.stands_for = "radeon, amdgpu and amdkfd userptr",
	.what = "OpenCL kernels on any memory of the program",
	.usable = usable,
	.selftest = selftest,
};
