/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * kernel - OpenCL C becomes something that can be launched.
 */
#include <stdio.h>

#include "userptr_private.h"

/* The compiler's own words, as far as there is room. */
static int say_log(const struct userptr *dev, cl_program program, int err)
{
	size_t size = 0;
	char *log;

	if (clGetProgramBuildInfo(program, dev->device, CL_PROGRAM_BUILD_LOG, 0, NULL, &size) ||
	    !size)
		return err;
	log = calloc(1, size + 1);
	if (log && !clGetProgramBuildInfo(program, dev->device, CL_PROGRAM_BUILD_LOG, size, log,
					  NULL))
		userptr_say(err, "the kernel does not build: %.1000s", log);
	free(log);
	return err;
}

static void look_at_args(struct userptr_kernel *k)
{
	for (cl_uint i = 0; i < k->n_args && i < USERPTR_ARGS_MAX; i++)
		if (clGetKernelArgInfo(k->kernel, i, CL_KERNEL_ARG_ADDRESS_QUALIFIER,
				       sizeof(k->where[i]), &k->where[i], NULL))
			k->where[i] = 0;
}

int userptr_check_arg(const struct userptr_kernel *k, unsigned i, const struct userptr_arg *arg)
{
	bool memory = arg->kind == USERPTR_ARG_OBJECT || arg->kind == USERPTR_ARG_POINTER;

	switch (k->where[i]) {
	case CL_KERNEL_ARG_ADDRESS_GLOBAL:
	case CL_KERNEL_ARG_ADDRESS_CONSTANT:
		return memory ? 0 : userptr_say(-EINVAL, "argument %u of the kernel is memory: it wants "
							 "an OBJECT or a POINTER", i);
	case CL_KERNEL_ARG_ADDRESS_LOCAL:
		return arg->kind == USERPTR_ARG_LOCAL
			       ? 0
			       : userptr_say(-EINVAL, "argument %u of the kernel wants a LOCAL", i);
	case CL_KERNEL_ARG_ADDRESS_PRIVATE:
		return arg->kind == USERPTR_ARG_VALUE
			       ? 0
			       : userptr_say(-EINVAL, "argument %u of the kernel wants a VALUE", i);
	default:
		return 0;
	}
}

static int build(struct userptr_kernel *k, const char *source, const char *name,
		 const char *options)
{
	cl_int result;
	int err;

	k->program = clCreateProgramWithSource(k->dev->context, 1, &source, NULL, &result);
	err = userptr_cl(result, "a program");
	if (err)
		return err;
	err = userptr_cl(clBuildProgram(k->program, 1, &k->dev->device, options, NULL, NULL),
			 "building");
	if (err == -ENOEXEC)
		return say_log(k->dev, k->program, err);
	if (err)
		return err;
	k->kernel = clCreateKernel(k->program, name, &result);
	err = userptr_cl(result, name);
	if (!err)
		err = userptr_cl(clGetKernelInfo(k->kernel, CL_KERNEL_NUM_ARGS, sizeof(k->n_args),
						 &k->n_args, NULL),
				 "the kernel's arguments");
	if (!err)
		look_at_args(k);
	return err;
}

int userptr_kernel_create(struct userptr *dev, const char *source, const char *name,
			  const char *options, struct userptr_kernel **out)
{
	struct userptr_kernel *k;
	int err = begin_call(source && name && out ? dev : NULL);

	if (err)
		return err;
	k = calloc(1, sizeof(*k));
	if (!k)
		return -ENOMEM;
	k->dev = dev;
	userptr_guard_begin(); /* a platform may start its threads as late as this */
	err = build(k, source, name, options);
	userptr_guard_end();
	if (err)
		userptr_kernel_destroy(k);
	else
		*out = k;
	return err;
}

void userptr_kernel_destroy(struct userptr_kernel *k)
{
	if (!k || check_process(k->dev))
		return;
	if (k->kernel)
		clReleaseKernel(k->kernel);
	if (k->program)
		clReleaseProgram(k->program);
	free(k);
}
