/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * platform - which OpenCL device, and how it reaches memory.
 */
#include <stdio.h>

#include "userptr_private.h"

#define PLATFORMS 16u

/* A platform's or device's string, or "?". */
static void platform_name(cl_platform_id platform, char *name, size_t size)
{
	name[0] = '\0';
	if (clGetPlatformInfo(platform, CL_PLATFORM_NAME, size, name, NULL))
		snprintf(name, size, "?");
	name[size - 1] = '\0';
}

static int first_device(cl_platform_id platform, cl_device_id *device)
{
	return userptr_cl(clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, device, NULL),
			  "the platform's first device");
}

/* With what there is, for who has mistyped it. */
static int say_none(const cl_platform_id *all, cl_uint n, const char *want)
{
	char name[128], names[400] = "";

	for (cl_uint i = 0; i < n; i++) {
		size_t length = strlen(names);

		platform_name(all[i], name, sizeof(name));
		snprintf(names + length, sizeof(names) - length, "%s\"%s\"", i ? ", " : "", name);
	}
	return userptr_say(-ENODEV, "no OpenCL platform has \"%s\" in its name; there is %s", want,
			   names);
}

/* The first whose name has `want` in it and that has a device. */
static int choose(struct userptr *dev, const char *want, cl_platform_id *platform)
{
	cl_platform_id all[PLATFORMS];
	cl_uint n = 0;
	int err = userptr_cl(clGetPlatformIDs(PLATFORMS, all, &n), "OpenCL");

	if (!err && !n)
		err = userptr_cl(-1001, "OpenCL");
	if (err)
		return err;
	n = n < PLATFORMS ? n : PLATFORMS;
	err = say_none(all, n, want ? want : "");
	for (cl_uint i = 0; i < n; i++) {
		platform_name(all[i], dev->platform_name, sizeof(dev->platform_name));
		if (want && !strstr(dev->platform_name, want))
			continue;
		*platform = all[i];
		err = first_device(all[i], &dev->device);
		if (!err)
			return 0;
	}
	return err;
}

/* What is not said is 0. */
#define INFO(dev, what, variable) \
	clGetDeviceInfo((dev)->device, what, sizeof(variable), &(variable), NULL)

/*
 * CL_DEVICE_HOST_UNIFIED_MEMORY: the device has no memory but the CPU's. Then a buffer
 * that is made with CL_MEM_USE_HOST_PTR is that memory, and there is nothing to be copied.
 */
static enum reach how(struct userptr *dev, unsigned flags)
{
	cl_device_svm_capabilities svm = 0;
	cl_bool unified = CL_FALSE;

	INFO(dev, CL_DEVICE_SVM_CAPABILITIES, svm);
	INFO(dev, CL_DEVICE_HOST_UNIFIED_MEMORY, unified);
	if (flags & USERPTR_COPY)
		return REACH_COPY;
	if (svm & CL_DEVICE_SVM_FINE_GRAIN_SYSTEM)
		return REACH_POINTER;
	return unified ? REACH_SHARED : REACH_COPY;
}

static void look(struct userptr *dev, unsigned flags)
{
	cl_ulong max = 0, local = 0;
	cl_uint align = 0;

	INFO(dev, CL_DEVICE_MAX_MEM_ALLOC_SIZE, max);
	INFO(dev, CL_DEVICE_LOCAL_MEM_SIZE, local);
	INFO(dev, CL_DEVICE_MEM_BASE_ADDR_ALIGN, align); /* bits */
	if (clGetDeviceInfo(dev->device, CL_DEVICE_NAME, sizeof(dev->device_name),
			    dev->device_name, NULL))
		snprintf(dev->device_name, sizeof(dev->device_name), "?");
	dev->device_name[sizeof(dev->device_name) - 1] = '\0';
	dev->max_length = max;
	dev->local_bytes = local;
	dev->align = align >= 8 ? align / 8 : 1;
	dev->reach = how(dev, flags);
}

/*
 * A platform's threads are not in a forked child, but what it has noted is: it would wait for
 * them for ever.
 */
static int check_fork(void)
{
	static _Atomic pid_t user; /* of OpenCL, by us */
	pid_t none = 0;

	if (atomic_compare_exchange_strong(&user, &none, getpid()) || none == getpid())
		return 0;
	return userptr_say(-ENODEV, "this process was forked from one that uses OpenCL, which "
				    "does not survive that: exec() first");
}

int userptr_find(struct userptr *dev, const struct userptr_options *options)
{
	const char *want = options->platform;
	cl_platform_id platform = NULL;
	cl_int result;
	int err;

	if (!want)
		want = getenv("UHMM_OPENCL_PLATFORM");
	err = check_fork();
	if (!err)
		err = choose(dev, want && *want ? want : NULL, &platform);
	if (err)
		return err;
	look(dev, options->flags);
	cl_context_properties properties[] = { CL_CONTEXT_PLATFORM,
					       (cl_context_properties)platform, 0 };
	dev->context = clCreateContext(properties, 1, &dev->device, NULL, NULL, &result);
	err = userptr_cl(result, "a context");
	if (err) {
		dev->context = NULL;
		return err;
	}
	dev->queue = clCreateCommandQueue(dev->context, dev->device, 0, &result);
	err = userptr_cl(result, "a queue");
	if (err)
		dev->queue = NULL;
	return err;
}

void userptr_lose(struct userptr *dev)
{
	if (dev->queue) {
		clFinish(dev->queue);
		clReleaseCommandQueue(dev->queue);
	}
	if (dev->context)
		clReleaseContext(dev->context);
}
