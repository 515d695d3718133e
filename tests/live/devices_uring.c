/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices_uring - the uring driver as a device of the table: with registered buffers, with
 * larger ones, and without.
 *
 * Bytes go by way of a file in memory. What an IOMMU would report, a request for which the
 * page table had a translation and the kernel no buffer, counts as stale.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/uring.h>

#include "devices_uring.h"

struct pair {
	struct uring *uring;
	int fd;
};

static int open_with(struct device *dev, const struct uring_options *options)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int err = pair ? uring_open(options, &pair->uring) : -ENOMEM;

	if (!err) {
		pair->fd = memfd_create("uhmm-live-uring", MFD_CLOEXEC);
		err = pair->fd < 0 ? -errno : 0;
	}
	if (err)
		free(pair);
	dev->priv = err ? NULL : pair;
	/* What is pinned is given up at each fence where page numbers are not told, and for
	 * room where little may be locked. */
	dev->fleeting = options && geteuid();
	return err;
}

int live_uring_open(struct device *dev)
{
	return open_with(dev, &(struct uring_options){ .size = sizeof(struct uring_options),
						       .fixed = true });
}

int live_uring_open_chunked(struct device *dev)
{
	return open_with(dev, &(struct uring_options){ .size = sizeof(struct uring_options),
						       .fixed = true,
						       .chunk = 65536 });
}

int live_uring_open_plain(struct device *dev)
{
	return open_with(dev, NULL);
}

void live_uring_close(struct device *dev)
{
	struct pair *pair = dev->priv;

	uring_close(pair->uring);
	close(pair->fd);
	free(pair);
}

/* The device reads `src`. */
int live_uring_read(struct device *dev, void *dst, const void *src, size_t length)
{
	struct pair *pair = dev->priv;
	int64_t n = 1;

	for (size_t done = 0; done < length; done += (size_t)n) {
		n = uring_write(pair->uring, pair->fd, done, (const char *)src + done,
				length - done);
		if (n <= 0)
			return n ? (int)n : -EIO;
	}
	return pread(pair->fd, dst, length, 0) == (ssize_t)length ? 0 : -EIO;
}

/* The device writes `dst`. */
int live_uring_write(struct device *dev, void *dst, const void *src, size_t length)
{
	struct pair *pair = dev->priv;
	int64_t n = 1;

	if (pwrite(pair->fd, src, length, 0) != (ssize_t)length)
		return -EIO;
	for (size_t done = 0; done < length; done += (size_t)n) {
		n = uring_read(pair->uring, pair->fd, done, (char *)dst + done,
			       length - done);
		if (n <= 0)
			return n ? (int)n : -EIO;
	}
	return 0;
}

uint64_t live_uring_lookup(const struct device *dev, const void *addr)
{
	const struct pair *pair = dev->priv;

	return uring_lookup(pair->uring, addr);
}

uint64_t live_uring_stale(struct device *dev)
{
	struct uring_stats stats = { .size = sizeof(stats) };
	struct pair *pair = dev->priv;

	uring_get_stats(pair->uring, &stats);
	return stats.refused;
}
