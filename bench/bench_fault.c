// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_fault - first touches: device_fault_512, file_first_touch.
 *
 * device_fault_512: the device asks for 512 pages that nobody has touched, for writing, in
 * a mapping that is mirrored already: fence, fault, fill of the device's table. The plain
 * way is MADV_POPULATE_WRITE of as much in a mapping beside it. The pages are thrown away
 * between the batches, untimed; the CPU's own page tables stay on both sides.
 *
 * file_first_touch: a registered file mapping loses the kernel's fault-around. The device
 * faults the first page, untimed; then the CPU reads a byte of each page. On the other side
 * the CPU touches the first page itself.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#define BLOCK (BENCH_WINDOW * BENCH_PAGE)
#define BLOCKS 8ul
#define FILE_PAGES (UINT64_C(16) << 20 >> 12)

struct fault {
	struct bench_dev dev;
	char *mirrored, *plain; /* BLOCKS blocks each */
	size_t next;
	int fd;
};

static int device_batch(void *arg, double *cost)
{
	struct fault *fault = arg;
	char *block = fault->mirrored + fault->next++ % BLOCKS * BLOCK;
	uint64_t start = tool_now();
	int err = bench_dev_fault(&fault->dev, block, BENCH_WINDOW, true);

	*cost = (double)(tool_now() - start) / BENCH_WINDOW;
	madvise(block, BLOCK, MADV_DONTNEED);
	return err;
}

static int populate_batch(void *arg, double *cost)
{
	struct fault *fault = arg;
	char *block = fault->plain + fault->next % BLOCKS * BLOCK;
	uint64_t start = tool_now();
	int err = madvise(block, BLOCK, MADV_POPULATE_WRITE) ? -errno : 0;

	*cost = (double)(tool_now() - start) / BENCH_WINDOW;
	madvise(block, BLOCK, MADV_DONTNEED);
	return err;
}

void bench_device_fault(struct bench *bench)
{
	static const struct bench_title title = { "device_fault_512", "ns/page",
						  "MADV_POPULATE_WRITE", "<= 1.2x" };
	struct fault fault = { .next = 0 };
	int err = bench_dev_open(&fault.dev);

	if (err) {
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
		return;
	}
	fault.mirrored = bench_map(BLOCKS * BLOCK);
	fault.plain = bench_map(BLOCKS * BLOCK);
	err = fault.mirrored && fault.plain
		      ? bench_dev_fault(&fault.dev, fault.mirrored, 1, false)
		      : -ENOMEM;
	if (err)
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
	else
		bench_pair(bench, &title, device_batch, populate_batch, &fault);
	if (fault.mirrored)
		munmap(fault.mirrored, BLOCKS * BLOCK);
	if (fault.plain)
		munmap(fault.plain, BLOCKS * BLOCK);
	bench_dev_close(&fault.dev);
}

/* 16 MiB in the page cache, gone when the descriptor is closed. */
static int make_file(void)
{
	FILE *file = tmpfile();
	char page[BENCH_PAGE];
	int fd;

	if (!file)
		return -errno;
	memset(page, 1, sizeof(page));
	for (size_t i = 0; i < FILE_PAGES; i++) {
		if (fwrite(page, sizeof(page), 1, file) != 1) {
			fclose(file);
			return -EIO;
		}
	}
	fd = fflush(file) ? -1 : dup(fileno(file));
	fclose(file);
	return fd < 0 ? -EIO : fd;
}

static int touch(struct fault *fault, bool mirror, double *cost)
{
	const size_t bytes = FILE_PAGES * BENCH_PAGE;
	const volatile char *memory;
	unsigned sum = 0;
	uint64_t start;
	int err = 0;
	void *got = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fault->fd, 0);

	if (got == MAP_FAILED)
		return -errno;
	memory = got;
	if (mirror)
		err = bench_dev_fault(&fault->dev, got, 1, false);
	else
		sum = (unsigned)memory[0];
	start = tool_now();
	for (size_t i = 1; i < FILE_PAGES; i++)
		sum += (unsigned)memory[i * BENCH_PAGE];
	*cost = (double)(tool_now() - start) / (FILE_PAGES - 1);
	munmap(got, bytes);
	if (!err && sum < FILE_PAGES - 1)
		err = -EIO;
	return err;
}

static int mirrored_touch_batch(void *arg, double *cost)
{
	return touch(arg, true, cost);
}

static int plain_touch_batch(void *arg, double *cost)
{
	return touch(arg, false, cost);
}

void bench_file_touch(struct bench *bench)
{
	static const struct bench_title title = { "file_first_touch", "ns/page",
						  "the same, not mirrored", "<= 1.5x" };
	struct fault fault = { .fd = make_file() };
	int err;

	if (fault.fd < 0) {
		bench_skip(bench, title.name, "no temporary file: %s", strerror(-fault.fd));
		return;
	}
	err = bench_dev_open(&fault.dev);
	if (err) {
		bench_skip(bench, title.name, "%s", hmm_strerror(err));
	} else {
		bench_pair(bench, &title, mirrored_touch_batch, plain_touch_batch, &fault);
		bench_dev_close(&fault.dev);
	}
	close(fault.fd);
}
