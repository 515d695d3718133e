/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * userptr_beside - another device has the memory meanwhile: pages move to a GPU's video memory, the
 * GPU writes to them there, and an OpenCL kernel works on what they are then.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/gpu.h>

#include "userptr_live.h"

#define FLOATS (MIB / 2 / sizeof(float))

static enum verdict one_round(struct cl *cl, struct gpu *gpu, struct gpu_queue *queue,
			      char *at, unsigned round)
{
	float *x = (float *)(void *)at, *y = x + FLOATS, a = 2, new = (float)(round + 7);
	struct userptr_arg args[] = { arg_value(&a, sizeof(a)),
				      arg_pointer(x, FLOATS * sizeof(*x), USERPTR_READ),
				      arg_pointer(y, FLOATS * sizeof(*y), RW) };

	for (size_t i = 0; i < FLOATS; i++) {
		x[i] = (float)(i % 100);
		y[i] = (float)round;
	}
	EXPECT(0, cl_launch(cl, SAXPY, args, 3, FLOATS, 0, NULL));
	CHECK(gpu_migrate(gpu, at, MIB) >= 0, "the GPU took no pages");
	EXPECT(0, gpu_write(queue, &x[5000], &new, sizeof(new)));
	if (round % 2) /* some come home by themselves */
		EXPECT(0, gpu_write(queue, &y[FLOATS - 1], &new, sizeof(new)));
	else
		y[FLOATS - 1] = new;
	EXPECT(0, cl_launch(cl, SAXPY, args, 3, FLOATS, 0, NULL));
	for (size_t i = 0; i < FLOATS - 1; i++) {
		float was = (float)(i % 100), now = i == 5000 ? new : was;

		CHECK(y[i] == (float)round + a * was + a * now, "y[%zu] is %f (round %u)", i,
		      (double)y[i], round);
	}
	CHECK(y[FLOATS - 1] == new + a * x[FLOATS - 1], "what was written last is lost");
	return PASS;
}

static enum verdict beside(struct cl *cl, bool host_frames)
{
	struct gpu_options options = { .size = sizeof(options), .vram_bytes = 8 * MIB,
				       .vram_host = host_frames };
	struct gpu_stats stats = { .size = sizeof(stats) };
	struct userptr_object *object;
	struct gpu_queue *queue;
	struct memory m;
	struct gpu *gpu;

	TRY(memory_make(&m, "anon"));
	madvise(m.at, SPACE, MADV_NOHUGEPAGE);
	EXPECT(0, gpu_open(&options, &gpu));
	EXPECT(0, gpu_queue_create(gpu, &queue));
	EXPECT(0, userptr_object_create(cl->dev, m.at, MIB, USERPTR_REGISTER, &object));
	for (unsigned round = 0; round < 12; round++)
		TRY(one_round(cl, gpu, queue, m.at, round));
	/* kfd's way is to get the pages of an object back soon: some rounds may see none there. */
	gpu_get_stats(gpu, &stats);
	CHECK(stats.to_vram, "no page ever moved to the GPU");
	userptr_object_destroy(object);
	gpu_queue_destroy(queue);
	gpu_close(gpu);
	memory_end(&m);
	return PASS;
}

enum verdict userptr_beside_gpu(const void *arg)
{
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	TRY(beside(&cl, true));
	TRY(beside(&cl, false));
	cl_end(&cl);
	return PASS;
}
