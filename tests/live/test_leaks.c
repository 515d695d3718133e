/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_leaks - what a program does with devices, over and over, for valgrind to watch.
 *
 * Valgrind runs one thread at a time and does not let go in munmap and mremap, which wait
 * for our reader: mirrored memory is not unmapped here. (That is what most other live
 * tests do, so they cannot run there.) Without valgrind it counts descriptors, threads' stacks and
 * mappings by the length of /proc/self/fd and /proc/self/maps.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/gpu.h>
#include <uhmm/ramdev.h>

#define ROUNDS 20
#define LENGTH ((size_t)16 * 4096)

static char memory[LENGTH] __attribute__((aligned(4096)));

static void fill(struct gpu_sm *sm, void *arg, uint64_t index)
{
	gpu_store_u8(sm, (uint8_t *)arg + index, (uint8_t)index);
}

static void bad(struct gpu_sm *sm, void *arg, uint64_t index)
{
	gpu_load_u8(sm, arg);
}

/* 0, or the line that went wrong. */
static int use_gpu(void)
{
	struct gpu_options options = { .size = sizeof(options) };
	struct gpu_fence *fence;
	struct gpu_queue *queue;
	struct gpu_error error;
	struct gpu *gpu;

	if (gpu_open(&options, &gpu) || gpu_queue_create(gpu, &queue))
		return __LINE__;
	if (gpu_submit(queue, fill, memory, LENGTH, &fence) || gpu_wait(fence, &error))
		return __LINE__;
	if (gpu_submit(queue, bad, NULL, 1, &fence) || gpu_wait(fence, &error) != -EFAULT)
		return __LINE__;
	gpu_queue_destroy(queue);
	gpu_close(gpu);
	return 0;
}

static int use_ramdev(void)
{
	struct ramdev *dev;
	uint64_t pfn;
	char byte;

	if (ramdev_open(0, &dev))
		return __LINE__;
	if (ramdev_read(dev, &byte, memory + 77, 1) || byte != 77)
		return __LINE__;
	if (madvise(memory, 4096, MADV_DONTNEED) ||
	    mprotect(memory, LENGTH, PROT_READ) || ramdev_write(dev, memory, "x", 1) != -EPERM ||
	    mprotect(memory, LENGTH, PROT_READ | PROT_WRITE) || ramdev_write(dev, memory, "x", 1))
		return __LINE__;
	if (ramdev_read(dev, &byte, NULL, 1) != -EFAULT || ramdev_snapshot(dev, memory, 1, &pfn))
		return __LINE__;
	ramdev_close(dev);
	return 0;
}

static unsigned lines_of_maps(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned lines = 0;
	int c;

	while (maps && (c = getc(maps)) != EOF)
		lines += c == '\n';
	if (maps)
		fclose(maps);
	return lines;
}

static unsigned descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (dir && readdir(dir))
		count++;
	if (dir)
		closedir(dir);
	return count;
}

int main(void)
{
	unsigned fds = 0, maps = 0;

	for (int i = 0; i < ROUNDS; i++) {
		int line = use_gpu();

		if (!line)
			line = use_ramdev();
		if (line) {
			printf("round %d: line %d: %s\n0 passed, 1 failed, 0 skipped\n", i, line,
			       strerror(errno));
			return 1;
		}
		if (i == 2) { /* libc has its caches by now */
			fds = descriptors();
			maps = lines_of_maps();
		}
	}
	printf("descriptors %u, then %u; mappings %u, then %u\n", fds, descriptors(), maps,
	       lines_of_maps());
	if (descriptors() > fds || lines_of_maps() > maps + 2) {
		puts("0 passed, 1 failed, 0 skipped");
		return 1;
	}
	puts("1 passed, 0 failed, 0 skipped");
	return 0;
}
