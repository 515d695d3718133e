/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* dma_uring - the rig. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "dma_uring.h"

/* The law of a driver: what is told is unmapped. */
static void invalidate(void *priv, const struct hmm_event *event)
{
	struct rig *r = priv;

	atomic_fetch_add(&r->told, 1);
	pthread_mutex_lock(&r->lock);
	if (event->kind != HMM_EVENT_FORK)
		hmm_range_dma_unmap(r->dma, event->start, event->end, false);
	pthread_mutex_unlock(&r->lock);
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
					     .invalidate = invalidate };

enum verdict rig_open_with(struct rig *r, const struct uring_options *options)
{
	memset(r, 0, sizeof(*r));
	pthread_mutex_init(&r->lock, NULL);
	r->file = memfd_create("uhmm-dma", MFD_CLOEXEC);
	EXPECT(0, hmm_open(&r->hmm));
	EXPECT(0, uring_open(options, &r->dev));
	r->dma = uring_dma(r->dev);
	return PASS;
}

int rig_watch(struct rig *r)
{
	return r->notifier
		       ? 0
		       : hmm_notifier_insert(r->hmm, 0, UINTPTR_MAX, &ops, r, &r->notifier);
}

enum verdict rig_open(struct rig *r)
{
	return rig_open_with(r,
			     &(struct uring_options){ .size = sizeof(struct uring_options),
						      .fixed = true });
}

void rig_close(struct rig *r)
{
	hmm_notifier_remove(r->notifier);
	uring_close(r->dev);
	hmm_put(r->hmm);
	close(r->file);
}

static int whole(int64_t got, size_t n)
{
	return got < 0 ? (int)got : got == (int64_t)n ? 0 : -ENODATA;
}

int rig_put(struct rig *r, void *at, const void *bytes, size_t n)
{
	if (pwrite(r->file, bytes, n, 0) != (ssize_t)n)
		return -errno;
	return whole(uring_read(r->dev, r->file, 0, at, n), n);
}

int rig_get(struct rig *r, void *bytes, const void *at, size_t n)
{
	int err = whole(uring_write(r->dev, r->file, 0, at, n), n);

	if (!err && pread(r->file, bytes, n, 0) != (ssize_t)n)
		err = -errno;
	return err;
}

int64_t rig_word(struct rig *r, const void *at)
{
	uint32_t word = 0;
	int err = rig_get(r, &word, at, sizeof(word));

	return err ? (int64_t)err : (int64_t)word;
}

enum verdict rig_agree(struct rig *r, void *at)
{
	static uint32_t last;
	volatile uint32_t *word = at;
	uint32_t next = ++last;

	*word = next;
	EXPECT(next, rig_word(r, at));
	next = ++last;
	EXPECT(0, rig_put(r, at, &next, sizeof(next)));
	CHECK(*word == next, "the device wrote %u, the CPU sees %u", next, *word);
	return PASS;
}

int64_t rig_map(struct rig *r, const void *at, unsigned pages, uint64_t want,
		unsigned flags)
{
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = r->hmm,
		.start = (uintptr_t)at,
		.end = (uintptr_t)at + pages * PAGE,
		.pfns = r->pfns,
		.pfn_flags_mask = ~UINT64_C(0),
	};
	int64_t mapped = rig_watch(r);

	if (mapped)
		return mapped;
	range.notifier = r->notifier;
	for (unsigned tries = 0; tries < 100; tries++) {
		for (unsigned i = 0; i < pages; i++)
			r->pfns[i] = want;
		mapped = hmm_notifier_read_begin(&range);
		if (!mapped)
			mapped = hmm_range_dma_map(&range, r->dma, r->daddrs, flags);
		if (mapped != -EBUSY)
			break;
	}
	r->fault_addr = range.fault_addr;
	return mapped;
}

int rig_raw_put(struct rig *r, uint64_t daddr, const void *bytes, size_t n)
{
	if (pwrite(r->file, bytes, n, 0) != (ssize_t)n)
		return -errno;
	return whole(uring_dma_raw(r->dev, r->file, 0, daddr, n, true), n);
}

int rig_raw_get(struct rig *r, void *bytes, uint64_t daddr, size_t n)
{
	int err = whole(uring_dma_raw(r->dev, r->file, 0, daddr, n, false), n);

	if (!err && pread(r->file, bytes, n, 0) != (ssize_t)n)
		err = -errno;
	return err;
}

struct hmm_dma_stats rig_stats(struct rig *r)
{
	struct hmm_dma_stats stats = { .size = sizeof(stats) };

	hmm_dma_get_stats(r->dma, &stats);
	return stats;
}

struct uring_stats rig_device(struct rig *r)
{
	struct uring_stats stats = { .size = sizeof(stats) };

	uring_get_stats(r->dev, &stats);
	return stats;
}

#define TMPFS_MAGIC 0x01021994

int rig_file(size_t length)
{
	char path[] = "/var/tmp/uhmm-dma-XXXXXX";
	struct statfs fs;
	int fd = mkostemp(path, O_CLOEXEC);

	if (fd < 0)
		return -1;
	unlink(path);
	if (!fstatfs(fd, &fs) && fs.f_type != TMPFS_MAGIC && !ftruncate(fd, (off_t)length))
		return fd;
	close(fd);
	return -1;
}

enum verdict rig_cannot_bounce(void)
{
	return live_skip("/var/tmp has no filesystem that keeps its files on a disk");
}
