// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_userptr - launching a kernel on 64 MiB of the program's memory on a device with memory of
 * its own (userptr's USERPTR_COPY): 1 % of the pages were written to since the last launch.
 *
 *	userptr_launch		against clEnqueueWriteBuffer of everything, and the launch
 *	userptr_launch_dirty	against the same launch when nothing was written to
 *	userptr_launch_checksum	as userptr_launch, but changes are found by a checksum a page
 *
 * The CPU's writes are part of all batches: finding them costs a page fault each, which the plain
 * way does not have. The kernel reads one word: what it computes is the same for all.
 */
#define CL_TARGET_OPENCL_VERSION 200
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/userptr.h>

#include "bench.h"

#define LENGTH ((size_t)64 << 20)
#define PAGES (LENGTH / BENCH_PAGE)
#define EVERY 100u /* pages, of which one is written to */

static const char source[] = "kernel void touch(global const uint *in, global uint *out)\n"
			     "{ out[0] = in[0] + 1; }\n";

/* The plain way: a buffer that is written as a whole. */
struct plain {
	cl_context context;
	cl_command_queue queue;
	cl_program program;
	cl_kernel kernel;
	cl_mem in, out;
};

/* Ours. */
struct tracked {
	struct userptr *dev;
	struct userptr_kernel *kernel;
	struct userptr_object *in, *out;
};

struct launch_bench {
	struct plain plain;
	struct tracked tracked, checksum;
	char *memory;
	unsigned *result;
	unsigned round;
};

static void dirty(struct launch_bench *b)
{
	unsigned first = b->round++ % EVERY;

	for (size_t i = first; i < PAGES; i += EVERY)
		*(unsigned *)(b->memory + i * BENCH_PAGE) = b->round;
}

/* ---- ours ---- */

static int run(struct launch_bench *b, struct tracked *t)
{
	struct userptr_arg args[] = {
		{ .kind = USERPTR_ARG_OBJECT, .object = t->in, .access = USERPTR_READ },
		{ .kind = USERPTR_ARG_OBJECT, .object = t->out, .access = USERPTR_WRITE },
	};
	struct userptr_launch launch = { .size = sizeof(launch), .kernel = t->kernel,
					 .args = args, .n_args = 2, .dims = 1, .global = { 1 } };
	int err = userptr_run(t->dev, &launch);

	if (!err && *b->result != *(unsigned *)b->memory + 1)
		err = -EIO;
	return err;
}

static int tracked_batch(void *arg, double *cost)
{
	struct launch_bench *b = arg;
	uint64_t start = tool_now();
	int err;

	dirty(b);
	err = run(b, &b->tracked);
	*cost = (double)(tool_now() - start) / 1e3;
	return err;
}

static int checksum_batch(void *arg, double *cost)
{
	struct launch_bench *b = arg;
	uint64_t start = tool_now();
	int err;

	dirty(b);
	err = run(b, &b->checksum);
	*cost = (double)(tool_now() - start) / 1e3;
	return err;
}

static int clean_batch(void *arg, double *cost)
{
	struct launch_bench *b = arg;
	int err = run(b, &b->tracked); /* what others wrote is there now */
	uint64_t start = tool_now();

	if (!err)
		err = run(b, &b->tracked);
	*cost = (double)(tool_now() - start) / 1e3;
	return err;
}

static int tracked_open(struct launch_bench *b, struct tracked *t, unsigned flags)
{
	struct userptr_options options = { .size = sizeof(options),
					   .flags = USERPTR_COPY | flags };
	int err = userptr_open(&options, &t->dev);

	if (!err)
		err = userptr_kernel_create(t->dev, source, "touch", NULL, &t->kernel);
	if (!err)
		err = userptr_object_create(t->dev, b->memory, LENGTH,
					    USERPTR_READONLY | USERPTR_REGISTER, &t->in);
	if (!err)
		err = userptr_object_create(t->dev, b->result, BENCH_PAGE, USERPTR_REGISTER,
					    &t->out);
	return err;
}

static void tracked_close(struct tracked *t)
{
	userptr_object_destroy(t->in);
	userptr_object_destroy(t->out);
	userptr_kernel_destroy(t->kernel);
	userptr_close(t->dev);
}

/* ---- the plain way ---- */

static int plain_batch(void *arg, double *cost)
{
	struct launch_bench *b = arg;
	struct plain *p = &b->plain;
	uint64_t start = tool_now();
	size_t one = 1;
	unsigned result = 0;
	cl_int err;

	dirty(b);
	err = clEnqueueWriteBuffer(p->queue, p->in, CL_TRUE, 0, LENGTH, b->memory, 0, NULL,
				   NULL);
	if (!err)
		err = clEnqueueNDRangeKernel(p->queue, p->kernel, 1, NULL, &one, NULL, 0, NULL,
					     NULL);
	if (!err)
		err = clEnqueueReadBuffer(p->queue, p->out, CL_TRUE, 0, sizeof(result), &result,
					  0, NULL, NULL);
	*cost = (double)(tool_now() - start) / 1e3;
	return err || result != *(unsigned *)b->memory + 1 ? -EIO : 0;
}

/* The platform that userptr takes, where there is more than one: the first. */
static cl_int plain_open(struct plain *p)
{
	const char *text = source;
	cl_platform_id platform;
	cl_device_id device;
	cl_int err = clGetPlatformIDs(1, &platform, NULL);

	if (!err)
		err = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 1, &device, NULL);
	if (!err)
		p->context = clCreateContext(NULL, 1, &device, NULL, NULL, &err);
	if (!err)
		p->queue = clCreateCommandQueue(p->context, device, 0, &err);
	if (!err)
		p->in = clCreateBuffer(p->context, CL_MEM_READ_WRITE, LENGTH, NULL, &err);
	if (!err)
		p->out = clCreateBuffer(p->context, CL_MEM_READ_WRITE, BENCH_PAGE, NULL, &err);
	if (!err)
		p->program = clCreateProgramWithSource(p->context, 1, &text, NULL, &err);
	if (!err)
		err = clBuildProgram(p->program, 1, &device, NULL, NULL, NULL);
	if (!err)
		p->kernel = clCreateKernel(p->program, "touch", &err);
	if (!err)
		err = clSetKernelArg(p->kernel, 0, sizeof(p->in), &p->in);
	if (!err)
		err = clSetKernelArg(p->kernel, 1, sizeof(p->out), &p->out);
	return err;
}

static void plain_close(struct plain *p)
{
	if (p->kernel)
		clReleaseKernel(p->kernel);
	if (p->program)
		clReleaseProgram(p->program);
	if (p->in)
		clReleaseMemObject(p->in);
	if (p->out)
		clReleaseMemObject(p->out);
	if (p->queue)
		clReleaseCommandQueue(p->queue);
	if (p->context)
		clReleaseContext(p->context);
}

static int open_all(struct launch_bench *b)
{
	int err;

	b->memory = bench_map(LENGTH);
	b->result = (unsigned *)(void *)bench_map(BENCH_PAGE);
	if (!b->memory || !b->result)
		return -ENOMEM;
	memset(b->memory, 1, LENGTH);
	memset(b->result, 1, BENCH_PAGE);
	err = tracked_open(b, &b->tracked, 0);
	if (!err)
		err = tracked_open(b, &b->checksum, USERPTR_CHECKSUM);
	return err ? err : plain_open(&b->plain) ? -EIO : 0;
}

static void close_all(struct launch_bench *b)
{
	plain_close(&b->plain);
	tracked_close(&b->tracked);
	tracked_close(&b->checksum);
	if (b->memory)
		munmap(b->memory, LENGTH);
	if (b->result)
		munmap(b->result, BENCH_PAGE);
}

void bench_userptr(struct bench *bench)
{
	static const struct bench_title rows[] = {
		{ "userptr_launch", "us", "clEnqueueWriteBuffer of all", NULL },
		{ "userptr_launch_dirty", "us", "nothing written to", NULL },
		{ "userptr_launch_checksum", "us", "clEnqueueWriteBuffer of all", NULL },
	};
	struct launch_bench b = { .round = 0 };
	int err = open_all(&b);

	if (err) {
		bench_skip(bench, rows[0].name, "%s", userptr_strerror(err));
	} else {
		bench_pair(bench, &rows[0], tracked_batch, plain_batch, &b);
		bench_pair(bench, &rows[1], tracked_batch, clean_batch, &b);
		bench_pair(bench, &rows[2], checksum_batch, plain_batch, &b);
	}
	close_all(&b);
}
