// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_raw - the plain way, with nothing of the library in it.
 *
 * Definitions of what headers older than the kernel lack are this file's own, so that a
 * mistake in the library's cannot be on both sides of a comparison.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "bench.h"

struct raw_region {
	uint64_t start, end, categories;
};

struct raw_scan_arg {
	uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
	uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define RAW_PAGEMAP_SCAN _IOWR('f', 16, struct raw_scan_arg)
/* PRESENT, SWAPPED: asked for; FILE, PFNZERO, HUGE: told too */
#define RAW_PRESENT_OR_SWAPPED ((1u << 3) | (1u << 4))
#define RAW_TOLD ((1u << 2) | (1u << 3) | (1u << 4) | (1u << 5) | (1u << 6))
#define RAW_REGIONS 64

#define RAW_WP_UNPOPULATED (1u << 13)
#define RAW_WP_ASYNC (1u << 15)

int raw_scan_open(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int raw_scan(int pagemap, const void *start, size_t length)
{
	struct raw_region regions[RAW_REGIONS];
	struct raw_scan_arg arg = {
		.size = sizeof(arg),
		.start = (uintptr_t)start,
		.end = (uintptr_t)start + length,
		.vec = (uintptr_t)regions,
		.vec_len = RAW_REGIONS,
		.category_anyof_mask = RAW_PRESENT_OR_SWAPPED,
		.return_mask = RAW_TOLD,
	};
	uint64_t end = arg.end;
	int count = 0, got;

	while (arg.start < end) {
		got = ioctl(pagemap, RAW_PAGEMAP_SCAN, &arg);
		if (got < 0)
			return -errno;
		count += got;
		arg.start = arg.walk_end;
	}
	return count;
}

static void *raw_read(void *arg)
{
	struct raw_uffd *raw = arg;
	struct pollfd fds[2] = { { .fd = raw->fd, .events = POLLIN },
				 { .fd = raw->quit, .events = POLLIN } };
	struct uffd_msg message;

	while (!fds[1].revents) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[0].revents && read(raw->fd, &message, sizeof(message)) < 0 &&
		    errno != EAGAIN)
			return NULL;
	}
	return NULL;
}

int raw_uffd_open(struct raw_uffd *raw)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_UNMAP | RAW_WP_UNPOPULATED | RAW_WP_ASYNC,
	};
	int err;

	raw->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (raw->fd < 0)
		return -errno;
	raw->quit = eventfd(0, EFD_CLOEXEC);
	if (raw->quit < 0 || ioctl(raw->fd, UFFDIO_API, &api)) {
		err = -errno;
		goto close_both;
	}
	err = -pthread_create(&raw->thread, NULL, raw_read, raw);
	if (!err)
		return 0;
close_both:
	if (raw->quit >= 0)
		close(raw->quit);
	close(raw->fd);
	return err;
}

void raw_uffd_close(struct raw_uffd *raw)
{
	eventfd_write(raw->quit, 1);
	pthread_join(raw->thread, NULL);
	close(raw->quit);
	close(raw->fd);
}

int raw_uffd_register(const struct raw_uffd *raw, void *start, size_t length)
{
	struct uffdio_register arg = {
		.range = { .start = (uintptr_t)start, .len = length },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(raw->fd, UFFDIO_REGISTER, &arg) ? -errno : 0;
}
