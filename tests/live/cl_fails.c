/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * cl_fails - preloaded: OpenCL calls fail when it is their turn, and references are counted.
 *
 * Between the driver and the ICD loader. Not between the loader and a platform: what a platform
 * calls of itself is not ours.
 */
#define CL_TARGET_OPENCL_VERSION 200
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdlib.h>

#include "cl_fails.h"

#define SHOWN __attribute__((visibility("default")))

SHOWN struct cl_failing cl_failing;

static bool fails(const char *name, bool harmless)
{
	if (__atomic_add_fetch(&cl_failing.calls, 1, __ATOMIC_SEQ_CST) != cl_failing.fail_at)
		return false;
	cl_failing.name = name;
	cl_failing.harmless = harmless;
	return true;
}

static void count(int by)
{
	__atomic_add_fetch(&cl_failing.alive, by, __ATOMIC_SEQ_CST);
}

static void *real(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);

	if (!function)
		abort();
	return function;
}

/* Returns an error. */
#define CALL(name, params, args, made, harmless)                                           \
	SHOWN cl_int name params                                                           \
	{                                                                                  \
		static cl_int(*next) params;                                               \
		cl_int result;                                                             \
		if (!next)                                                                 \
			*(void **)&next = real(#name);                                     \
		if (fails(#name, harmless))                                                \
			return CL_OUT_OF_RESOURCES;                                        \
		result = next args;                                                        \
		if (!result && (made))                                                     \
			count(made);                                                       \
		return result;                                                             \
	}

/* Returns an object, and an error by `err`. */
#define MAKE(type, name, params, args)                                                     \
	SHOWN type name params                                                             \
	{                                                                                  \
		static type(*next) params;                                                 \
		type made;                                                                 \
		if (!next)                                                                 \
			*(void **)&next = real(#name);                                     \
		if (fails(#name, false)) {                                                 \
			*err = CL_OUT_OF_HOST_MEMORY;                                      \
			return NULL;                                                       \
		}                                                                          \
		made = next args;                                                          \
		if (made)                                                                  \
			count(1);                                                          \
		return made;                                                               \
	}

/* Cannot fail. */
#define GIVE(name, type)                                                                   \
	SHOWN cl_int name(type what)                                                       \
	{                                                                                  \
		static cl_int (*next)(type);                                               \
		if (!next)                                                                 \
			*(void **)&next = real(#name);                                     \
		count(-1);                                                                 \
		return next(what);                                                         \
	}

CALL(clGetPlatformIDs, (cl_uint n, cl_platform_id *p, cl_uint *got), (n, p, got), 0, false)
CALL(clGetDeviceIDs,
     (cl_platform_id p, cl_device_type t, cl_uint n, cl_device_id *d, cl_uint *got),
     (p, t, n, d, got), 0, false)
CALL(clGetDeviceInfo,
     (cl_device_id d, cl_device_info what, size_t n, void *value, size_t *got),
     (d, what, n, value, got), 0, true)
MAKE(cl_context, clCreateContext,
     (const cl_context_properties *props, cl_uint n, const cl_device_id *d,
      void(CL_CALLBACK *fn)(const char *, const void *, size_t, void *), void *arg,
      cl_int *err),
     (props, n, d, fn, arg, err))
MAKE(cl_command_queue, clCreateCommandQueue,
     (cl_context c, cl_device_id d, cl_command_queue_properties props, cl_int *err),
     (c, d, props, err))
MAKE(cl_program, clCreateProgramWithSource,
     (cl_context c, cl_uint n, const char **text, const size_t *lengths, cl_int *err),
     (c, n, text, lengths, err))
CALL(clBuildProgram,
     (cl_program p, cl_uint n, const cl_device_id *d, const char *options,
      void(CL_CALLBACK *fn)(cl_program, void *), void *arg),
     (p, n, d, options, fn, arg), 0, false)
MAKE(cl_kernel, clCreateKernel, (cl_program p, const char *name, cl_int *err), (p, name, err))
CALL(clGetKernelInfo, (cl_kernel k, cl_kernel_info what, size_t n, void *value, size_t *got),
     (k, what, n, value, got), 0, false)
CALL(clGetKernelArgInfo,
     (cl_kernel k, cl_uint i, cl_kernel_arg_info what, size_t n, void *value, size_t *got),
     (k, i, what, n, value, got), 0, true)
MAKE(cl_mem, clCreateBuffer,
     (cl_context c, cl_mem_flags flags, size_t n, void *host, cl_int *err),
     (c, flags, n, host, err))
MAKE(cl_mem, clCreateSubBuffer,
     (cl_mem m, cl_mem_flags flags, cl_buffer_create_type type, const void *info, cl_int *err),
     (m, flags, type, info, err))
CALL(clSetKernelArg, (cl_kernel k, cl_uint i, size_t n, const void *value), (k, i, n, value),
     0, false)
CALL(clEnqueueNDRangeKernel,
     (cl_command_queue q, cl_kernel k, cl_uint dims, const size_t *offset,
      const size_t *global, const size_t *local, cl_uint n, const cl_event *list,
      cl_event *event),
     (q, k, dims, offset, global, local, n, list, event), event ? 1 : 0, false)
CALL(clEnqueueWriteBuffer,
     (cl_command_queue q, cl_mem m, cl_bool blocking, size_t at, size_t n, const void *from,
      cl_uint n_list, const cl_event *list, cl_event *event),
     (q, m, blocking, at, n, from, n_list, list, event), event ? 1 : 0, false)
CALL(clEnqueueReadBuffer,
     (cl_command_queue q, cl_mem m, cl_bool blocking, size_t at, size_t n, void *to,
      cl_uint n_list, const cl_event *list, cl_event *event),
     (q, m, blocking, at, n, to, n_list, list, event), event ? 1 : 0, false)
CALL(clRetainEvent, (cl_event e), (e), 1, true)
GIVE(clReleaseEvent, cl_event)
GIVE(clReleaseMemObject, cl_mem)
GIVE(clReleaseKernel, cl_kernel)
GIVE(clReleaseProgram, cl_program)
GIVE(clReleaseCommandQueue, cl_command_queue)
GIVE(clReleaseContext, cl_context)
