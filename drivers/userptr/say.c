/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * say - errors in words: OpenCL's, the driver's own sentence, else the library's.
 */
#include <stdarg.h>
#include <stdio.h>

#include "userptr_private.h"

static __thread struct {
	int err; /* 0: nothing was said */
	char text[1200];
} said;

int userptr_say(int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(said.text, sizeof(said.text), fmt, args);
	va_end(args);
	said.err = err;
	return err;
}

void userptr_hush(void)
{
	said.err = 0;
}

const char *userptr_strerror(int err)
{
	err = -abs(err);
	return err && said.err == err ? said.text : hmm_strerror(err);
}

static const struct meaning {
	cl_int result;
	int err;
	const char *text;
} meanings[] = {
	{ -1001, -ENODEV, "no platform is installed (pocl-opencl-icd makes one of the CPU)" },
	{ CL_DEVICE_NOT_FOUND, -ENODEV, "it has no device" },
	{ CL_DEVICE_NOT_AVAILABLE, -ENODEV, "the device is not available" },
	{ CL_MEM_OBJECT_ALLOCATION_FAILURE, -ENOMEM, "no memory for a buffer" },
	{ CL_OUT_OF_RESOURCES, -ENOMEM, "the device is out of resources" },
	{ CL_OUT_OF_HOST_MEMORY, -ENOMEM, "no memory" },
	{ CL_INVALID_BUFFER_SIZE, -E2BIG, "larger than a buffer can be" },
	{ CL_BUILD_PROGRAM_FAILURE, -ENOEXEC, "it does not build" },
	{ CL_COMPILER_NOT_AVAILABLE, -EIO, "the platform has no compiler" },
	{ CL_INVALID_BUILD_OPTIONS, -EINVAL, "the compiler does not know an option" },
	{ CL_INVALID_KERNEL_NAME, -ENOENT, "no kernel of that name" },
	{ CL_INVALID_ARG_INDEX, -EINVAL, "there is no such argument" },
	{ CL_INVALID_ARG_VALUE, -EINVAL, "the argument's value" },
	{ CL_INVALID_ARG_SIZE, -EINVAL, "the argument has another size" },
	{ CL_INVALID_KERNEL_ARGS, -EINVAL, "the arguments are not all set" },
	{ CL_INVALID_WORK_DIMENSION, -EINVAL, "the number of dimensions" },
	{ CL_INVALID_WORK_GROUP_SIZE, -EINVAL,
	  "the work items are no multiple of a work group, or it is larger than the device's" },
	{ CL_INVALID_WORK_ITEM_SIZE, -EINVAL, "the size of a work group" },
	{ CL_INVALID_GLOBAL_WORK_SIZE, -EINVAL, "the number of work items" },
	{ CL_MISALIGNED_SUB_BUFFER_OFFSET, -EINVAL, "the device needs it aligned" },
};

int userptr_cl(cl_int result, const char *what)
{
	if (result >= 0)
		return 0;
	for (size_t i = 0; i < sizeof(meanings) / sizeof(*meanings); i++)
		if (meanings[i].result == result)
			return userptr_say(meanings[i].err, "%s: %s (OpenCL %d)", what,
					   meanings[i].text, result);
	return userptr_say(-EIO, "%s: the platform failed (OpenCL %d)", what, result);
}
