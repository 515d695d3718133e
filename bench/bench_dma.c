// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_dma - mapping 2 MiB for DMA and unmapping it: dma_map_2m, dma_unmap_2m, and with an
 * IOMMU edu_*; and looking at a file on a DAX filesystem: fsdax_snapshot, fsdax_fault.
 *
 * With the host back-end nothing is pinned, so what is measured is the library: the same loop
 * that ends in a table of addresses, by hand. edu_* is against the bare call of the kernel, type1's
 * or iommufd's; it needs the device. fsdax_* is the same call on anonymous memory; it needs
 * UHMM_TEST_DAX (a directory on a DAX filesystem). The lab has both.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/edu.h>

#include "bench.h"

#define BYTES (BENCH_WINDOW * BENCH_PAGE)

struct dma_bench {
	struct bench_dev dev;
	struct hmm_dma *dma;
	char *memory, *file;
	struct edu *edu;
	size_t chunk; /* of what the bare call maps at once */
	uint64_t pfns[BENCH_WINDOW], daddrs[BENCH_WINDOW];
	bool unmap, fault;
};

static struct hmm_range range_of(struct dma_bench *b, const char *memory)
{
	memset(b->pfns, 0, sizeof(b->pfns));
	return (struct hmm_range){
		.size = sizeof(struct hmm_range),
		.hmm = b->dev.hmm,
		.notifier = b->dev.notifier,
		.start = (uintptr_t)memory,
		.end = (uintptr_t)memory + BYTES,
		.pfns = b->pfns,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
	};
}

static int set_table(struct dma_bench *b, const struct hmm_range *range)
{
	int err = 0;

	pthread_mutex_lock(&b->dev.lock);
	if (hmm_notifier_read_retry(range))
		err = -EBUSY;
	for (size_t i = 0; i < BENCH_WINDOW && !err; i++)
		err = uhmm_ptable_set(&b->dev.table, range->start + i * BENCH_PAGE,
				      b->daddrs[i] | 1);
	pthread_mutex_unlock(&b->dev.lock);
	return err;
}

static int ours_batch(void *arg, double *cost)
{
	struct dma_bench *b = arg;
	struct hmm_range range = range_of(b, b->memory);
	uint64_t start = tool_now(), middle;
	int64_t n = hmm_notifier_read_begin(&range);
	int err;

	if (!n)
		n = hmm_range_dma_map(&range, b->dma, b->daddrs, 0);
	err = n < 0 ? (int)n : set_table(b, &range);
	middle = tool_now();
	pthread_mutex_lock(&b->dev.lock);
	uhmm_ptable_clear(&b->dev.table, range.start, range.end);
	n = hmm_range_dma_unmap(b->dma, range.start, range.end, false);
	pthread_mutex_unlock(&b->dev.lock);
	*cost = (double)(b->unmap ? tool_now() - middle : middle - start) / BENCH_WINDOW;
	return err ? err : n == BENCH_WINDOW ? 0 : -EIO;
}

static int bare_batch(void *arg, double *cost)
{
	struct dma_bench *b = arg;
	struct hmm_range range = range_of(b, b->memory);
	uint64_t start = tool_now(), middle;
	int err = hmm_notifier_read_begin(&range);

	if (!err)
		err = hmm_range_fault(&range);
	for (size_t i = 0; i < BENCH_WINDOW; i++)
		b->daddrs[i] = hmm_pfn_number(b->pfns[i]) << 12;
	if (!err)
		err = set_table(b, &range);
	middle = tool_now();
	pthread_mutex_lock(&b->dev.lock);
	uhmm_ptable_clear(&b->dev.table, range.start, range.end);
	pthread_mutex_unlock(&b->dev.lock);
	*cost = (double)(b->unmap ? tool_now() - middle : middle - start) / BENCH_WINDOW;
	return err;
}

/* `file` is as much memory that the library does not map. */
static int bare_edu_batch(void *arg, double *cost)
{
	struct dma_bench *b = arg;
	uint64_t start = tool_now(), middle;
	int err = 0;

	for (size_t i = 0; i < BYTES && !err; i += b->chunk)
		err = edu_map_raw(b->edu, b->file + i, b->chunk);
	middle = tool_now();
	for (size_t i = 0; i < BYTES; i += b->chunk)
		edu_unmap_raw(b->edu, b->file + i, b->chunk);
	*cost = (double)(b->unmap ? tool_now() - middle : middle - start) / BENCH_WINDOW;
	return err;
}

static bool begin(struct bench *bench, struct dma_bench *b, const char *name)
{
	int err = bench_dev_open(&b->dev);

	if (err) {
		bench_skip(bench, name, "%s", hmm_strerror(err));
		return false;
	}
	b->memory = bench_map(BYTES);
	err = b->memory ? hmm_dma_host(b->dev.hmm, &b->dma) : -ENOMEM;
	if (!err) {
		memset(b->memory, 1, BYTES);
		return true;
	}
	bench_skip(bench, name, "%s", hmm_strerror(err));
	if (b->memory)
		munmap(b->memory, BYTES);
	bench_dev_close(&b->dev);
	return false;
}

static void end(struct dma_bench *b)
{
	hmm_dma_destroy(b->dma);
	munmap(b->memory, BYTES);
	bench_dev_close(&b->dev);
}

void bench_dma(struct bench *bench)
{
	static const struct bench_title titles[2] = {
		{ "dma_map_2m", "ns/page", "fault, and a loop", NULL },
		{ "dma_unmap_2m", "ns/page", "clearing the table", NULL },
	};
	static struct dma_bench b;

	if (!begin(bench, &b, titles[0].name))
		return;
	for (unsigned i = 0; i < 2; i++) {
		b.unmap = i;
		bench_pair(bench, &titles[i], ours_batch, bare_batch, &b);
	}
	end(&b);
}

/* ---- an IOMMU ---- */

static int edu_pairs(struct bench *bench, struct dma_bench *b, size_t chunk,
		     const struct bench_title titles[2])
{
	struct edu_options options = { .size = sizeof(options), .chunk = chunk };
	struct hmm_dma *host = b->dma;
	int err = edu_open(&options, &b->edu);

	if (err)
		return err;
	b->chunk = chunk;
	b->dma = edu_dma(b->edu);
	for (unsigned i = 0; i < 2; i++) {
		b->unmap = i;
		bench_pair(bench, &titles[i], ours_batch, bare_edu_batch, b);
	}
	b->dma = host;
	edu_close(b->edu);
	return 0;
}

void bench_edu(struct bench *bench)
{
	static const struct bench_title titles[][2] = {
		{ { "edu_map_2m", "ns/page", "one ioctl", NULL },
		  { "edu_unmap_2m", "ns/page", "one ioctl", NULL } },
		{ { "edu_map_2m/4k", "ns/page", "512 ioctls", NULL },
		  { "edu_unmap_2m/4k", "ns/page", "512 ioctls", NULL } },
	};
	static struct dma_bench b;
	int err;

	if (!begin(bench, &b, "edu"))
		return;
	b.file = bench_map(BYTES);
	if (b.file)
		memset(b.file, 1, BYTES);
	err = b.file ? edu_pairs(bench, &b, BYTES, titles[0]) : -ENOMEM;
	if (!err)
		err = edu_pairs(bench, &b, BENCH_PAGE, titles[1]);
	if (err)
		bench_skip(bench, "edu", "%s", edu_strerror(err));
	if (b.file)
		munmap(b.file, BYTES);
	end(&b);
}

/* ---- a DAX filesystem ---- */

static int look_at(struct dma_bench *b, const char *memory, double *cost)
{
	struct hmm_range range = range_of(b, memory);
	uint64_t start = tool_now();
	int err = hmm_notifier_read_begin(&range);

	if (!err)
		err = b->fault ? hmm_range_fault(&range) : hmm_range_snapshot(&range);
	*cost = (double)(tool_now() - start) / BENCH_WINDOW;
	return err;
}

static int dax_batch(void *arg, double *cost)
{
	struct dma_bench *b = arg;

	return look_at(b, b->file, cost);
}

static int anon_batch(void *arg, double *cost)
{
	struct dma_bench *b = arg;

	return look_at(b, b->memory, cost);
}

/* NULL: errno says why. */
static char *map_file(const char *directory)
{
	char path[512], *memory = MAP_FAILED;
	int fd;

	snprintf(path, sizeof(path), "%s/uhmm-bench", directory);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0 && !posix_fallocate(fd, 0, BYTES))
		memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	unlink(path);
	return memory == MAP_FAILED ? NULL : memory;
}

void bench_fsdax(struct bench *bench)
{
	static const struct bench_title titles[2] = {
		{ "fsdax_snapshot", "ns/page", "anonymous memory", NULL },
		{ "fsdax_fault", "ns/page", "anonymous memory", NULL },
	};
	const char *directory = getenv("UHMM_TEST_DAX");
	static struct dma_bench b;

	if (!directory) {
		bench_skip(bench, "fsdax", "UHMM_TEST_DAX names no directory on a DAX filesystem");
		return;
	}
	if (!begin(bench, &b, titles[0].name))
		return;
	b.file = map_file(directory);
	if (b.file) {
		memset(b.file, 1, BYTES);
		for (unsigned i = 0; i < 2; i++) {
			b.fault = i;
			bench_pair(bench, &titles[i], dax_batch, anon_batch, &b);
		}
		munmap(b.file, BYTES);
	} else {
		bench_skip(bench, "fsdax", "%s: %s", directory, strerror(errno));
	}
	end(&b);
}
