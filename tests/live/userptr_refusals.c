/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * userptr_refusals - bad input, kernels that fault or do not build, a platform that fails at any
 * call, forked children, no platform: an error each, nothing lost, and the program lives.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cl_fails.h"
#include "userptr_live.h"

#define REG USERPTR_REGISTER

/* Creating is refused, and says so. */
#define REFUSED(err, dev, start, length, flags)                                            \
	do {                                                                               \
		struct userptr_object *no_ = NULL;                                         \
		EXPECT(err, userptr_object_create(dev, start, length, flags, &no_));       \
		CHECK(!no_, "an object all the same");                                     \
	} while (0)

enum verdict userptr_bad_objects(const void *arg)
{
	struct memory m, file;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	TRY(memory_make(&m, "anon"));
	TRY(memory_make(&file, "file"));
	REFUSED(-EINVAL, cl.dev, m.at, 0, REG);
	REFUSED(-EINVAL, cl.dev, m.at, PAGE, REG | 1u << 4);
	REFUSED(-EINVAL, NULL, m.at, PAGE, REG);
	REFUSED(-EACCES, cl.dev, m.at, PAGE, 0); /* radeon, amdgpu */
	REFUSED(-EACCES, cl.dev, m.at, PAGE, USERPTR_ANONONLY);
	REFUSED(-EOVERFLOW, cl.dev, m.at, SIZE_MAX, REG);
	REFUSED(-EOVERFLOW, cl.dev, (void *)-PAGE, PAGE, REG);
	REFUSED(-E2BIG, cl.dev, (void *)PAGE, (size_t)1 << 46, REG);
	REFUSED(-EPERM, cl.dev, file.at, PAGE, REG | USERPTR_ANONONLY | USERPTR_VALIDATE);
	REFUSED(-EFAULT, cl.dev, m.at, 2 * SPACE, REG | USERPTR_VALIDATE); /* a hole above? */
	SYS(mprotect(m.at, PAGE, PROT_READ));
	REFUSED(-EPERM, cl.dev, m.at, 2 * PAGE, REG | USERPTR_VALIDATE);
	SYS(mprotect(m.at, PAGE, PROT_NONE));
	REFUSED(-EFAULT, cl.dev, m.at, PAGE, REG | USERPTR_READONLY | USERPTR_VALIDATE);
	userptr_object_destroy(NULL);
	EXPECT(-EINVAL, userptr_validate(NULL));
	memory_end(&m);
	memory_end(&file);
	cl_end(&cl);
	return PASS;
}

static int saxpy_on(struct cl *cl, struct userptr_arg x, struct userptr_arg y)
{
	float a = 1;
	struct userptr_arg args[] = { arg_value(&a, sizeof(a)), x, y };

	return cl_launch(cl, SAXPY, args, 3, 256, 0, NULL);
}

static enum verdict bad_arguments(struct cl *cl, char *at, struct userptr_object *o,
				  struct userptr_object *read_only)
{
	struct userptr_arg good = arg_pointer(at, PAGE, RW), bad = good;

	bad.pointer = at - 1; /* foreign */
	EXPECT(-EFAULT, saxpy_on(cl, good, bad));
	bad = arg_pointer(at + PAGE, MIB, RW); /* beyond its end */
	EXPECT(-EFAULT, saxpy_on(cl, good, bad));
	bad = arg_pointer(at, PAGE, 0);
	EXPECT(-EINVAL, saxpy_on(cl, good, bad));
	bad = arg_object(NULL, RW);
	EXPECT(-EINVAL, saxpy_on(cl, good, bad));
	bad = arg_object(read_only, RW);
	EXPECT(-EACCES, saxpy_on(cl, good, bad));
	bad = arg_object(o, RW);
	bad.length = MIB;
	EXPECT(-EFAULT, saxpy_on(cl, good, bad));
	bad = arg_pointer(at, PAGE, RW | 4);
	EXPECT(-EINVAL, saxpy_on(cl, good, bad));
	bad = (struct userptr_arg){ .kind = USERPTR_ARG_VALUE };
	EXPECT(-EINVAL, saxpy_on(cl, good, bad));
	bad = arg_value(&at, sizeof(at)); /* what a platform would take for a buffer */
	EXPECT(-EINVAL, saxpy_on(cl, good, bad));
	bad = (struct userptr_arg){ .kind = (enum userptr_arg_kind)77, .access = RW };
	EXPECT(-EINVAL, saxpy_on(cl, good, bad));
	/* Two buffers over the same bytes would be two memories. */
	EXPECT(cl->shares ? 0 : -EINVAL, saxpy_on(cl, arg_object(o, RW),
						  arg_object(read_only, USERPTR_READ)));
	if (!cl->shares)
		EXPECT(-EINVAL, saxpy_on(cl, good, arg_pointer(at + 4, PAGE, RW)));
	EXPECT(0, saxpy_on(cl, good, good));
	return PASS;
}

/* What PoCL ends the program for. */
static enum verdict bad_sizes(struct cl *cl, char *at)
{
	unsigned n = 64;
	struct userptr_arg args[] = { arg_pointer(at, PAGE, USERPTR_READ),
				      { .kind = USERPTR_ARG_LOCAL, .length = n * sizeof(n) },
				      arg_pointer(at + PAGE, PAGE, USERPTR_WRITE) };
	struct userptr_arg value = arg_value(&n, sizeof(n)), local = args[1];
	struct userptr_launch launch = { .size = sizeof(launch), .args = args, .n_args = 3,
					 .dims = 2, .global = { n, 2 }, .local = { n, 1 } };
	struct userptr_launch bad = launch;

	EXPECT(0, cl_launch(cl, REDUCE, args, 3, n, n, NULL));
	launch.kernel = bad.kernel = cl->kernel[REDUCE];
	EXPECT(0, userptr_run(cl->dev, &launch));
	bad.local[1] = 0;
	EXPECT(-EINVAL, userptr_run(cl->dev, &bad));
	bad.local[0] = 0, bad.local[1] = 1;
	EXPECT(-EINVAL, userptr_run(cl->dev, &bad));
	bad = launch;
	bad.local[0] = 48;
	EXPECT(-EINVAL, userptr_run(cl->dev, &bad));
	bad = launch;
	bad.global[0] = bad.global[1] = (size_t)1 << 32;
	EXPECT(-EINVAL, userptr_run(cl->dev, &bad));
	bad = launch;
	bad.args = NULL;
	EXPECT(-EINVAL, userptr_run(cl->dev, &bad));
	for (unsigned i = 0; i < 2; i++) {
		args[1].length = i ? (size_t)1 << 40 : SIZE_MAX;
		EXPECT(-EINVAL, userptr_run(cl->dev, &launch));
	}
	args[1] = value;
	EXPECT(-EINVAL, userptr_run(cl->dev, &launch));
	args[1] = arg_pointer(at, PAGE, RW);
	EXPECT(-EINVAL, userptr_run(cl->dev, &launch));
	args[1] = local, args[0] = local;
	EXPECT(-EINVAL, userptr_run(cl->dev, &launch));
	return PASS;
}

enum verdict userptr_bad_launches(const void *arg)
{
	struct userptr_object *o, *read_only, *gone;
	struct userptr_launch launch = { .size = sizeof(launch), .dims = 1, .global = { 1 } };
	struct userptr_job *job;
	struct memory m;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	TRY(memory_make(&m, "anon"));
	EXPECT(0, userptr_object_create(cl.dev, m.at, 8 * PAGE, REG, &o));
	EXPECT(0, userptr_object_create(cl.dev, m.at, 8 * PAGE, USERPTR_READONLY, &read_only));
	TRY(bad_arguments(&cl, m.at, o, read_only));
	TRY(bad_sizes(&cl, m.at));
	EXPECT(-EINVAL, userptr_submit(cl.dev, NULL, &job));
	EXPECT(-EINVAL, userptr_submit(cl.dev, &launch, &job)); /* no kernel */
	launch.kernel = cl.kernel[SAXPY];
	EXPECT(-EINVAL, userptr_submit(cl.dev, &launch, &job)); /* no arguments */
	EXPECT(-EINVAL, userptr_wait(NULL));
	CHECK(!userptr_object_valid(NULL), "no object is valid");
	/* Freed while nothing runs, and named again. */
	EXPECT(0, userptr_object_create(cl.dev, m.at + MIB, PAGE, REG, &gone));
	userptr_object_destroy(gone);
	EXPECT(-EINVAL, saxpy_on(&cl, arg_object(o, RW), arg_object(gone, RW)));
	EXPECT(-EFAULT, saxpy_on(&cl, arg_object(o, RW), arg_pointer(m.at + MIB, PAGE, RW)));
	/* The memory is gone. */
	SYS(munmap(m.at, SPACE));
	EXPECT(-EFAULT, saxpy_on(&cl, arg_object(o, RW), arg_object(o, RW)));
	EXPECT(-EFAULT, userptr_validate(o));
	userptr_object_destroy(o);
	userptr_object_destroy(read_only);
	cl_end(&cl);
	return PASS;
}

enum verdict userptr_bad_kernels(const void *arg)
{
	struct userptr_kernel *kernel = NULL;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	EXPECT(-ENOEXEC, userptr_kernel_create(cl.dev, "kernel void f(global int *x) { x[0] = ",
					       "f", NULL, &kernel));
	CHECK(strstr(userptr_strerror(-ENOEXEC), "error"), "no message of the compiler's: %s",
	      userptr_strerror(-ENOEXEC));
	EXPECT(-ENOENT, userptr_kernel_create(cl.dev, "kernel void f(global int *x) {}", "g",
					      NULL, &kernel));
	EXPECT(-EINVAL, userptr_kernel_create(cl.dev, NULL, "g", NULL, &kernel));
	CHECK(!kernel, "a kernel all the same");
	cl_end(&cl);
	return PASS;
}

static int write_at(struct cl *cl, char *base, long where, struct userptr_object *o)
{
	struct userptr_arg args[] = { arg_object(o, USERPTR_READ),
				      arg_value(&where, sizeof(where)) };

	where = (where - (long)base) / (long)sizeof(float);
	return cl_launch(cl, WILD, args, 2, 4, 0, NULL);
}

/* However many others have not been waited for: it hears of it, and they may. */
static enum verdict fault_among_many(struct cl *cl, char *at, char *hole, struct userptr_object *o)
{
	struct userptr_job *job[70];
	float a = 0;
	struct userptr_arg args[] = { arg_value(&a, sizeof(a)), arg_pointer(at, PAGE, USERPTR_READ),
				      arg_pointer(at + PAGE, PAGE, RW) };
	struct userptr_object *written;

	EXPECT(0, userptr_object_create(cl->dev, at, 2 * PAGE, REG, &written));
	for (unsigned i = 0; i < 70; i++)
		EXPECT(0, cl_launch(cl, SAXPY, args, 3, 16, 0, &job[i]));
	EXPECT(-EFAULT, write_at(cl, at, (long)hole, o));
	for (unsigned i = 0; i < 70; i++) {
		int err = userptr_wait(job[i]);

		CHECK(!err || err == -EFAULT, "wait: %s", userptr_strerror(err));
	}
	userptr_object_destroy(written);
	return PASS;
}

/* Where the device is threads of this process: nowhere, at 0, and what may only be read. */
enum verdict userptr_faults(const void *arg)
{
	struct userptr_object *o;
	struct memory m, hole;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	if (!cl.shares) {
		cl_end(&cl);
		return live_skip("what is beyond a buffer of the device's own nobody knows");
	}
#if !defined(__x86_64__)
	cl_end(&cl);
	return live_skip("an access is left out on x86-64 only: here the signal is the program's");
#endif
	TRY(memory_make(&m, "anon"));
	TRY(memory_make(&hole, "anon"));
	m.at[0] = 5;
	EXPECT(0, userptr_object_create(cl.dev, m.at, SPACE, USERPTR_READONLY | REG, &o));
	SYS(munmap(hole.at, SPACE));
	EXPECT(-EFAULT, write_at(&cl, m.at, (long)hole.at, o));
	CHECK(strstr(userptr_strerror(-EFAULT), "access"), "says %s", userptr_strerror(-EFAULT));
	TRY(fault_among_many(&cl, m.at, hole.at, o));
	EXPECT(-EFAULT, write_at(&cl, m.at, 0, o));
	SYS(mprotect(m.at, SPACE, PROT_READ));
	EXPECT(-EFAULT, write_at(&cl, m.at, (long)m.at, o));
	CHECK(m.at[0] == 5, "read-only memory was written to");
	SYS(mprotect(m.at, SPACE, PROT_READ | PROT_WRITE));
	EXPECT(0, write_at(&cl, m.at, (long)m.at, o));
	userptr_object_destroy(o);
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}

static enum verdict in_child(void *arg)
{
	struct cl *cl = arg;
	struct userptr_object *o;
	struct userptr *dev;

	EXPECT(-ENODEV, userptr_object_create(cl->dev, cl, PAGE, REG, &o));
	EXPECT(-ENODEV, userptr_open(NULL, &dev));
	EXPECT(-ENODEV, userptr_validate(cl->object));
	CHECK(!userptr_object_valid(cl->object), "valid in a child");
	cl_end(cl); /* forgets */
	return PASS;
}

enum verdict userptr_forked(const void *arg)
{
	struct userptr_object *o;
	struct memory m;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	TRY(memory_make(&m, "anon"));
	EXPECT(0, userptr_object_create(cl.dev, m.at, SPACE, REG, &o));
	cl.object = o;
	for (unsigned i = 0; i < 3; i++) {
		TRY(kernels_agree(&cl, m.at, i));
		TRY(live_child(in_child, &cl, 20));
	}
	TRY(kernels_agree(&cl, m.at, 9));
	userptr_object_destroy(o);
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}

/* ---- a platform that fails ---- */

/* All that a program does; its first error. Everything that was made is given back. */
static int whole_life(const struct rules *rules, char *at)
{
	static const char source[] = "kernel void add(global int *x, global int *y)\n"
				     "{ y[get_global_id(0)] += x[get_global_id(0)]; }\n";
	struct userptr_options options = { .size = sizeof(options), .mode = rules->mode,
					   .flags = rules->flags };
	struct userptr_kernel *kernel = NULL;
	struct userptr_object *o = NULL;
	struct userptr *dev = NULL;
	struct userptr_arg args[] = { arg_pointer(at, PAGE, USERPTR_READ),
				      arg_pointer(at + PAGE, PAGE, RW) };
	struct userptr_launch launch = { .size = sizeof(launch), .args = args, .n_args = 2,
					 .dims = 1, .global = { 64 } };
	int err = userptr_open(&options, &dev);

	if (!err)
		err = userptr_kernel_create(dev, source, "add", NULL, &kernel);
	if (!err)
		err = userptr_object_create(dev, at, 4 * PAGE, REG, &o);
	launch.kernel = kernel;
	for (unsigned i = 0; i < 2 && !err; i++)
		err = userptr_run(dev, &launch);
	userptr_object_destroy(o);
	userptr_kernel_destroy(kernel);
	userptr_close(dev);
	return err;
}

/* Each call of OpenCL fails once, by its turn. */
enum verdict userptr_midway(const void *arg)
{
	struct cl_failing *failing = dlsym(RTLD_DEFAULT, "cl_failing");
	struct memory m;
	unsigned nth;
	int err;

	if (!failing)
		return live_skip("cl_fails is not preloaded");
	TRY(memory_make(&m, "anon"));
	err = whole_life(arg, m.at);
	if (err == -ENODEV)
		return live_skip("%s", userptr_strerror(err));
	EXPECT(0, err);
	EXPECT(0, failing->alive);
	for (nth = 1; nth < 500; nth++) {
		failing->calls = 0;
		failing->fail_at = nth;
		err = whole_life(arg, m.at);
		failing->fail_at = 0;
		if (failing->calls < nth)
			break;
		CHECK(err < 0 || failing->harmless, "call %u, %s, failed, and nobody said so",
		      nth, failing->name);
		CHECK(!failing->alive, "call %u, %s: %d objects of OpenCL are left", nth,
		      failing->name, failing->alive);
	}
	CHECK(nth > 10, "only %u calls", nth);
	EXPECT(0, whole_life(arg, m.at));
	memory_end(&m);
	return PASS;
}

enum verdict userptr_no_platform(const void *arg)
{
	struct userptr *dev = NULL;

	setenv("OCL_ICD_VENDORS", "/nonexistent", 1);
	EXPECT(-ENODEV, userptr_open(NULL, &dev));
	CHECK(*userptr_strerror(-ENODEV), "without a word");
	CHECK(!dev, "a device all the same");
	return PASS;
}

enum verdict userptr_other_platform(const void *arg)
{
	struct userptr_options options = { .size = sizeof(options), .platform = "no such" };
	struct userptr *dev = NULL;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	cl_end(&cl);
	EXPECT(-ENODEV, userptr_open(&options, &dev));
	setenv("UHMM_OPENCL_PLATFORM", "no such either", 1);
	EXPECT(-ENODEV, userptr_open(NULL, &dev));
	CHECK(strstr(userptr_strerror(-ENODEV), "no such either"), "says %s",
	      userptr_strerror(-ENODEV));
	setenv("UHMM_OPENCL_PLATFORM", "", 1);
	EXPECT(0, userptr_open(NULL, &dev));
	userptr_close(dev);
	return PASS;
}
