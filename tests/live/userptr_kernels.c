/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * userptr_kernels - saxpy, histogram, sparse matrix-vector product, reduction: each with what a
 * CPU makes of the same bytes. Numbers are small integers, so floats are exact in any order.
 *
 * All arrays are parts of one piece of memory, and arguments are plain pointers into it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "userptr_live.h"

static const char source[] =
	"kernel void saxpy(float a, global const float *x, global float *y)\n"
	"{ size_t i = get_global_id(0); y[i] = a * x[i] + y[i]; }\n"
	"kernel void histogram(global const uchar *in, uint n, volatile global uint *bins)\n"
	"{ for (size_t i = get_global_id(0); i < n; i += get_global_size(0))\n"
	"    atomic_inc(&bins[in[i]]); }\n"
	"kernel void spmv(global const uint *row, global const uint *column,\n"
	"                 global const float *value, global const float *x, global float *y)\n"
	"{ size_t r = get_global_id(0); float sum = 0;\n"
	"  for (uint i = row[r]; i < row[r + 1]; i++) sum += value[i] * x[column[i]];\n"
	"  y[r] = sum; }\n"
	"kernel void reduce(global const uint *in, local uint *part, global uint *out)\n"
	"{ size_t i = get_local_id(0); part[i] = in[get_global_id(0)];\n"
	"  for (size_t n = get_local_size(0) / 2; n; n /= 2) {\n"
	"    barrier(CLK_LOCAL_MEM_FENCE); if (i < n) part[i] += part[i + n]; }\n"
	"  if (!i) out[get_group_id(0)] = part[0]; }\n"
	"kernel void slow(global float *y, int rounds)\n"
	"{ float f = y[0]; for (int i = 0; i < rounds; i++) f = f * 0.999f + 1; y[1] = f; }\n"
	"kernel void grind(global const float *x, global float *y)\n"
	"{ size_t i = get_global_id(0); float f = y[i];\n"
	"  for (int r = 0; r < 2000; r++) f = f * 0.5f + 1;\n"
	"  y[i] = f + x[i]; }\n"
	"kernel void wild(global float *y, long at)\n"
	"{ y[at + get_global_id(0) * 1024] += 1; }\n";

static const char *const names[KERNELS] = { "saxpy", "histogram", "spmv",
					    "reduce", "slow",	   "grind", "wild" };

const struct rules live_rules[] = {
	{ "gfx shared", USERPTR_GFX, 0 },
	{ "gfx copy", USERPTR_GFX, USERPTR_COPY },
	{ "gfx checksum", USERPTR_GFX, USERPTR_COPY | USERPTR_CHECKSUM },
	{ "kfd shared", USERPTR_KFD, 0 },
	{ "kfd copy", USERPTR_KFD, USERPTR_COPY },
};
const unsigned live_rules_count = sizeof(live_rules) / sizeof(*live_rules);

enum verdict cl_begin(struct cl *cl, const struct rules *rules)
{
	struct userptr_options options = { .size = sizeof(options), .mode = rules->mode,
					   .flags = rules->flags };
	int err;

	memset(cl, 0, sizeof(*cl));
	err = userptr_open(&options, &cl->dev);
	if (err == -ENODEV)
		return live_skip("%s", userptr_strerror(err));
	EXPECT(0, err);
	cl->shares = cl_stats(cl).shares;
	return PASS;
}

void cl_end(struct cl *cl)
{
	for (unsigned i = 0; i < KERNELS; i++)
		userptr_kernel_destroy(cl->kernel[i]);
	userptr_close(cl->dev);
}

struct userptr_stats cl_stats(const struct cl *cl)
{
	struct userptr_stats stats = { .size = sizeof(stats) };

	userptr_get_stats(cl->dev, &stats);
	return stats;
}

/* Built when it is first launched: each costs a tenth of a second, and few cases need all. */
static int cl_kernel(struct cl *cl, enum kernel_name kernel)
{
	if (cl->kernel[kernel])
		return 0;
	return userptr_kernel_create(cl->dev, source, names[kernel], NULL, &cl->kernel[kernel]);
}

int cl_launch(struct cl *cl, enum kernel_name kernel, const struct userptr_arg *args,
	      unsigned n_args, size_t global, size_t local, struct userptr_job **job)
{
	struct userptr_launch launch = { .size = sizeof(launch), .args = args,
					 .n_args = n_args, .dims = 1, .global = { global },
					 .local = { local } };
	int err = cl_kernel(cl, kernel);

	if (err)
		return err;
	launch.kernel = cl->kernel[kernel];
	if (!job)
		return userptr_run(cl->dev, &launch);
	do
		err = userptr_submit(cl->dev, &launch, job);
	while (err == -EAGAIN);
	return err;
}

enum verdict saxpy_agrees(struct cl *cl, float *x, float *y, size_t n, unsigned seed,
			  int allowed)
{
	float a = (float)(seed % 5 + 1);
	struct userptr_arg args[] = { arg_value(&a, sizeof(a)),
				      arg_pointer(x, n * sizeof(*x), USERPTR_READ),
				      arg_pointer(y, n * sizeof(*y), RW) };
	int err;

	for (size_t i = 0; i < n; i++) {
		x[i] = (float)((i + seed) % 1000);
		y[i] = (float)(seed % 100);
	}
	err = cl_launch(cl, SAXPY, args, 3, n, 0, NULL);
	CHECK(!err || err == allowed, "saxpy: %s (round %u)", userptr_strerror(err), seed);
	for (size_t i = 0; i < n; i++)
		CHECK(y[i] == a * (float)((i + seed) % 1000) + (float)(seed % 100),
		      "saxpy: y[%zu] is %f (round %u)", i, (double)y[i], seed);
	return PASS;
}

static enum verdict histogram_agrees(struct cl *cl, unsigned char *in, unsigned n,
				     unsigned *bins, unsigned seed)
{
	struct userptr_arg args[] = { arg_pointer(in, n, USERPTR_READ),
				      arg_value(&n, sizeof(n)),
				      arg_pointer(bins, 256 * sizeof(*bins), RW) };
	unsigned want[256] = { 0 };

	memset(bins, 0, 256 * sizeof(*bins));
	for (unsigned i = 0; i < n; i++)
		want[in[i] = (unsigned char)(i * i + seed)]++;
	EXPECT(0, cl_launch(cl, HISTOGRAM, args, 3, 512, 0, NULL));
	CHECK(!memcmp(bins, want, sizeof(want)), "the histogram differs (round %u)", seed);
	return PASS;
}

#define ROWS 4096u
#define IN_ROW 6u

static enum verdict spmv_agrees(struct cl *cl, char *at, unsigned seed)
{
	unsigned *row = (unsigned *)(void *)at, *column = row + 2 * ROWS;
	float *value = (float *)(void *)(column + ROWS * IN_ROW);
	float *x = value + ROWS * IN_ROW, *y = x + ROWS;
	struct userptr_arg args[] = {
		arg_pointer(row, (ROWS + 1) * sizeof(*row), USERPTR_READ),
		arg_pointer(column, ROWS * IN_ROW * sizeof(*column), USERPTR_READ),
		arg_pointer(value, ROWS * IN_ROW * sizeof(*value), USERPTR_READ),
		arg_pointer(x, ROWS * sizeof(*x), USERPTR_READ),
		arg_pointer(y, ROWS * sizeof(*y), USERPTR_WRITE),
	};

	for (unsigned i = 0; i <= ROWS; i++)
		row[i] = i * IN_ROW;
	for (unsigned i = 0; i < ROWS * IN_ROW; i++) {
		column[i] = (i * 797 + seed) % ROWS;
		value[i] = (float)((i + seed) % 11);
	}
	for (unsigned i = 0; i < ROWS; i++)
		x[i] = (float)((i * 3 + seed) % 13);
	EXPECT(0, cl_launch(cl, SPMV, args, 5, ROWS, 0, NULL));
	for (unsigned r = 0; r < ROWS; r++) {
		float sum = 0;

		for (unsigned i = row[r]; i < row[r + 1]; i++)
			sum += value[i] * x[column[i]];
		CHECK(y[r] == sum, "spmv: row %u is %f, not %f", r, (double)y[r], (double)sum);
	}
	return PASS;
}

static enum verdict reduction_agrees(struct cl *cl, unsigned *in, unsigned n, unsigned *out,
				     unsigned seed)
{
	const unsigned group = 64;
	struct userptr_arg args[] = {
		arg_pointer(in, n * sizeof(*in), USERPTR_READ),
		{ .kind = USERPTR_ARG_LOCAL, .length = group * sizeof(unsigned) },
		arg_pointer(out, n / group * sizeof(*out), USERPTR_WRITE),
	};
	unsigned want = 0, sum = 0;

	for (unsigned i = 0; i < n; i++)
		want += in[i] = i * 7 + seed;
	EXPECT(0, cl_launch(cl, REDUCE, args, 3, n, group, NULL));
	for (unsigned i = 0; i < n / group; i++)
		sum += out[i];
	CHECK(sum == want, "the sum is %u, not %u (round %u)", sum, want, seed);
	return PASS;
}

enum verdict kernels_agree(struct cl *cl, char *at, unsigned seed)
{
	TRY(saxpy_agrees(cl, (float *)(void *)at, (float *)(void *)(at + MIB), 50000, seed, 0));
	TRY(histogram_agrees(cl, (unsigned char *)at, 100000,
			     (unsigned *)(void *)(at + MIB / 2), seed));
	TRY(spmv_agrees(cl, at, seed));
	TRY(reduction_agrees(cl, (unsigned *)(void *)at, 65536,
			     (unsigned *)(void *)(at + MIB), seed));
	return PASS;
}
