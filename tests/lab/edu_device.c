/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * edu_device - the device: who has it, what it maps at once, when it hangs; and beside
 * another device.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/gpu.h>

#include "lab_edu.h"

#define BYTES 64

static enum verdict open_with(const struct edu_case *c, struct edu_options options,
			      struct edu **dev)
{
	options.size = sizeof(options);
	options.way = c->way;
	return lab_edu_open(&options, dev);
}

static enum verdict bad_options(const struct edu_case *c)
{
	struct {
		struct edu_options known;
		char more[8];
	} newer = { .known = { .size = sizeof(newer) } };
	struct edu_options options = { .size = sizeof(options), .chunk = 5000 };
	struct edu *dev;

	EXPECT(-EINVAL, edu_open(&options, &dev));
	options.chunk = 0;
	options.flags = 1u << 31;
	EXPECT(-EINVAL, edu_open(&options, &dev));
	options.flags = 0;
	options.pci = "0000:00:00.0";
	EXPECT(-ENODEV, edu_open(&options, &dev));
	CHECK(strstr(edu_strerror(-ENODEV), "0000:00:00.0"), "it says: %s",
	      edu_strerror(-ENODEV));
	newer.more[3] = 1;
	EXPECT(-E2BIG, edu_open(&newer.known, &dev));
	edu_close(NULL);
	return PASS;
}

/* One at a time, and the second says so. */
static enum verdict busy(const struct edu_case *c)
{
	struct edu_options options = { .size = sizeof(options),
				       .way = c->way,
				       .pci = getenv("UHMM_LAB_EDU") };
	struct edu *dev, *second;

	TRY(open_with(c, (struct edu_options){ 0 }, &dev));
	EXPECT(-EBUSY, edu_open(&options, &second));
	edu_close(dev);
	TRY(open_with(c, (struct edu_options){ 0 }, &dev));
	edu_close(dev);
	return PASS;
}

/* A DMA takes 100 ms, and this one may take one. */
static enum verdict hangs(const struct edu_case *c)
{
	char *at = live_map(PAGE, RW), byte = 1;
	struct edu *dev;

	TRY(open_with(c, (struct edu_options){ .timeout_ms = 1 }, &dev));
	EXPECT(-EIO, edu_write(dev, at, &byte, 1));
	CHECK(strstr(edu_strerror(-EIO), "1 ms"), "it says: %s", edu_strerror(-EIO));
	EXPECT(-EIO, edu_read(dev, &byte, at, 1));
	edu_close(dev);
	CHECK(!at[0], "what was reported as failed has been done");
	/* The next owner waits for the end of it. */
	TRY(open_with(c, (struct edu_options){ 0 }, &dev));
	EXPECT(0, edu_write(dev, at, &byte, 1));
	CHECK(at[0] == 1, "it does not work any more");
	edu_close(dev);
	return PASS;
}

/* A child has no device and takes none from the parent, whose pinned pages stay its own. */
static enum verdict forked(const struct edu_case *c)
{
	unsigned char bytes[BYTES];
	char *at = live_map(PAGE, RW);
	struct edu *dev;
	int status;
	pid_t child;

	TRY(open_with(c, (struct edu_options){ 0 }, &dev));
	lab_fill(bytes, BYTES, 1);
	EXPECT(0, edu_write(dev, at, bytes, BYTES));
	child = fork();
	if (!child) {
		if (edu_read(dev, bytes, at, BYTES) != -ENODEV ||
		    edu_write(dev, at, bytes, BYTES) != -ENODEV ||
		    edu_dma_raw(dev, (uintptr_t)at, bytes, BYTES, true) != -ENODEV)
			_exit(1);
		usleep(300000); /* the parent writes meanwhile */
		if (lab_differs(at, BYTES, 1) != BYTES)
			_exit(2);
		edu_close(dev);
		_exit(0);
	}
	lab_fill(bytes, BYTES, 2);
	EXPECT(0, edu_write(dev, at, bytes, BYTES));
	CHECK(lab_differs(at, BYTES, 2) == BYTES,
	      "the parent's page is not the device's any more");
	status = live_wait(child, 10);
	CHECK(status == 0, "the child: status %#x", status);
	EXPECT(0, edu_read(dev, bytes, at, BYTES));
	CHECK(lab_differs(bytes, BYTES, 2) == BYTES, "the device reads something else");
	edu_close(dev);
	return PASS;
}

/* What is present of a block is mapped at once, and is right when a part of it goes. */
static enum verdict chunked(const struct edu_case *c)
{
	const size_t chunk = 16 * PAGE;
	char *all = live_map(2 * chunk, RW),
	     *at = (char *)(((uintptr_t)all + chunk - 1) & ~(chunk - 1));
	struct edu_stats stats = { .size = sizeof(stats) };
	unsigned char bytes[BYTES];
	struct edu *dev;

	for (size_t i = 0; i < 8; i++)
		lab_fill(at + i * PAGE, BYTES, (unsigned)i);
	SYS(mprotect(at + 8 * PAGE, PAGE, PROT_NONE));
	TRY(open_with(c, (struct edu_options){ .chunk = chunk }, &dev));
	EXPECT(0, edu_read(dev, bytes, at + 3 * PAGE, BYTES));
	CHECK(lab_differs(bytes, BYTES, 3) == BYTES, "the device reads something else");
	for (size_t i = 0; i < 16; i++)
		CHECK(!edu_lookup(dev, at + i * PAGE) == (i >= 8), "page %zu is %smapped",
		      i, i < 8 ? "not " : "");
	edu_get_stats(dev, &stats);
	EXPECT(1, stats.mappings);
	SYS(madvise(at + 5 * PAGE, PAGE, MADV_DONTNEED));
	for (size_t i = 3; i < 8; i++) {
		EXPECT(0, edu_read(dev, bytes, at + i * PAGE, BYTES));
		CHECK(i == 5 ? lab_zero(bytes, BYTES)
			     : lab_differs(bytes, BYTES, (unsigned)i) == BYTES,
		      "page %zu reads %#x", i, bytes[0]);
	}
	/* A page that was mapped for reading with others, and is written now. */
	SYS(mprotect(at, 2 * PAGE, PROT_READ));
	EXPECT(-EPERM, edu_write(dev, at + PAGE, bytes, BYTES));
	EXPECT(0, edu_read(dev, bytes, at + 2 * PAGE, BYTES));
	CHECK(lab_differs(bytes, BYTES, 2) == BYTES, "page 2 reads otherwise");
	lab_fill(bytes, BYTES, 50);
	EXPECT(0, edu_write(dev, at + 2 * PAGE, bytes, BYTES));
	CHECK(lab_differs(at + 2 * PAGE, BYTES, 50) == BYTES, "page 2 was not written");
	EXPECT(0, edu_read(dev, bytes, at, BYTES));
	CHECK(lab_differs(bytes, BYTES, 0) == BYTES, "page 0 reads otherwise");
	edu_close(dev);
	return PASS;
}

/* Threads that share the device: each piece is a job of its own, and no two meet in the
 * buffer. */
struct sharer {
	struct edu *dev;
	char *at;
	unsigned seed;
	int err;
};

static void *share(void *arg)
{
	struct sharer *s = arg;
	unsigned char bytes[BYTES];

	for (unsigned i = 0; i < 4 && !s->err; i++) {
		lab_fill(bytes, BYTES, s->seed + i);
		s->err = edu_write(s->dev, s->at, bytes, BYTES);
		memset(bytes, 0, BYTES);
		if (!s->err)
			s->err = edu_read(s->dev, bytes, s->at, BYTES);
		if (!s->err && lab_differs(bytes, BYTES, s->seed + i) != BYTES)
			s->err = -EILSEQ;
	}
	return NULL;
}

static enum verdict shared(const struct edu_case *c)
{
	struct sharer sharers[2] = { { .at = live_map(PAGE, RW), .seed = 1 },
				     { .at = live_map(PAGE, RW), .seed = 101 } };
	pthread_t threads[2];
	struct edu *dev;

	TRY(open_with(c, (struct edu_options){ 0 }, &dev));
	for (unsigned i = 0; i < 2; i++) {
		sharers[i].dev = dev;
		CHECK(!pthread_create(&threads[i], NULL, share, &sharers[i]), "no thread");
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	EXPECT(0, sharers[0].err);
	EXPECT(0, sharers[1].err);
	edu_close(dev);
	return PASS;
}

/*
 * One mapping takes pages of two permissions, as all were read; then one is written. Its
 * neighbours that may not be written go on being right, whatever becomes of their mapping.
 */
static enum verdict mixed(const struct edu_case *c)
{
	const size_t chunk = 8 * PAGE;
	char *all = live_map(2 * chunk, PROT_NONE),
	     *at = (char *)(((uintptr_t)all + chunk - 1) & ~(chunk - 1));
	int fd = memfd_create("uhmm-lab", MFD_CLOEXEC);
	unsigned char bytes[BYTES];
	char *other;
	struct edu *dev;

	SYS(ftruncate(fd, (off_t)chunk));
	other = mmap(NULL, chunk, RW, MAP_SHARED, fd, 0);
	SYS((long)(intptr_t)other);
	SYS(mmap(at, 4 * PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0));
	SYS(mmap(at + 4 * PAGE, 4 * PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 4 * PAGE));
	for (size_t i = 0; i < 8; i++)
		lab_fill(other + i * PAGE, BYTES, (unsigned)i);
	for (size_t i = 0; i < 8; i++)
		(void)*(volatile char *)(at + i * PAGE);
	TRY(open_with(c, (struct edu_options){ .chunk = chunk }, &dev));
	EXPECT(0, edu_read(dev, bytes, at, BYTES));
	lab_fill(bytes, BYTES, 60);
	EXPECT(0, edu_write(dev, at + PAGE, bytes, BYTES));
	CHECK(lab_differs(other + PAGE, BYTES, 60) == BYTES, "it was not written");
	for (size_t i = 2; i < 6; i++) {
		lab_fill(other + i * PAGE, BYTES, 70 + (unsigned)i);
		EXPECT(0, edu_read(dev, bytes, at + i * PAGE, BYTES));
		CHECK(lab_differs(bytes, BYTES, 70 + (unsigned)i) == BYTES,
		      "page %zu is not what it is now", i);
	}
	EXPECT(-EPERM, edu_write(dev, at + 5 * PAGE, bytes, BYTES));
	CHECK(!(edu_lookup(dev, at + PAGE) & HMM_PFN_DMA_BOUNCE),
	      "a page that can be pinned is bounced, for a neighbour's sake");
	edu_close(dev);
	return PASS;
}

/* A page in another device's memory comes home for a DMA, and may leave again after it. */
static enum verdict beside_gpu(const struct edu_case *c)
{
	struct gpu_options options = { .size = sizeof(options), .vram_bytes = HUGE };
	char *at = live_map(4 * PAGE, RW);
	unsigned char bytes[BYTES];
	struct gpu *gpu;
	struct edu *dev;
	int err = gpu_open(&options, &gpu);

	if (err == -EPERM || err == -EOPNOTSUPP)
		return live_skip("pages cannot be moved here: %s", hmm_strerror(err));
	EXPECT(0, err);
	TRY(open_with(c, (struct edu_options){ 0 }, &dev));
	for (unsigned i = 0; i < 2; i++) {
		lab_fill(at, BYTES, i);
		EXPECT(4, gpu_migrate(gpu, at, 4 * PAGE));
		EXPECT(0, edu_read(dev, bytes, at, BYTES));
		CHECK(lab_differs(bytes, BYTES, i) == BYTES,
		      "the device reads something else");
	}
	lab_fill(bytes, BYTES, 9);
	EXPECT(4, gpu_migrate(gpu, at, 4 * PAGE));
	CHECK(!edu_lookup(dev, at), "it has left, and is mapped still");
	EXPECT(0, edu_write(dev, at, bytes, BYTES));
	CHECK(lab_differs(at, BYTES, 9) == BYTES, "what the device wrote is lost");
	edu_close(dev);
	gpu_close(gpu);
	return PASS;
}

/* clang-format off */
const struct edu_change edu_devices[] = {
	{ "options", bad_options, NULL },
	{ "busy", busy, NULL },
	{ "hangs", hangs, NULL },
	{ "fork", forked, NULL },
	{ "threads", shared, NULL },
	{ "chunk", chunked, NULL },
	{ "mixed", mixed, NULL },
	{ "gpu", beside_gpu, NULL },
};
/* clang-format on */
const unsigned edu_device_count = sizeof(edu_devices) / sizeof(edu_devices[0]);
