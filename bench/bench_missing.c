// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_missing - the plain way to have pages elsewhere: a userfaultfd in MISSING mode and
 * a thread that polls, reads one message and copies one page.
 *
 * Nothing of the library is in it; it hears of no change of the address space, which makes
 * it as cheap as it can be.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/userfaultfd.h>

#include "bench.h"

static void serve(const struct raw_missing *raw, uintptr_t addr)
{
	uintptr_t page = addr & ~(BENCH_PAGE - 1);
	struct uffdio_copy copy = {
		.dst = page,
		.src = (uintptr_t)raw->source + (page - (uintptr_t)raw->memory),
		.len = BENCH_PAGE,
	};

	ioctl(raw->fd, UFFDIO_COPY, &copy);
}

static void *missing_main(void *arg)
{
	struct raw_missing *raw = arg;
	struct pollfd fds[2] = { { .fd = raw->fd, .events = POLLIN },
				 { .fd = raw->quit, .events = POLLIN } };
	struct uffd_msg message;

	while (!fds[1].revents) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[0].revents &&
		    read(raw->fd, &message, sizeof(message)) == sizeof(message) &&
		    message.event == UFFD_EVENT_PAGEFAULT)
			serve(raw, message.arg.pagefault.address);
	}
	return NULL;
}

static int open_context(struct raw_missing *raw)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register missing = {
		.range = { .start = (uintptr_t)raw->memory, .len = raw->length },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int err;

	raw->fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (raw->fd < 0)
		return -errno;
	raw->quit = eventfd(0, EFD_CLOEXEC);
	if (raw->quit < 0 || ioctl(raw->fd, UFFDIO_API, &api) ||
	    ioctl(raw->fd, UFFDIO_REGISTER, &missing))
		err = -errno;
	else
		err = -pthread_create(&raw->thread, NULL, missing_main, raw);
	if (!err)
		return 0;
	if (raw->quit >= 0)
		close(raw->quit);
	close(raw->fd);
	return err;
}

int raw_missing_open(struct raw_missing *raw, size_t length)
{
	int err = -ENOMEM;

	raw->length = length;
	raw->memory = bench_map(length);
	raw->source = bench_map(length);
	if (raw->memory && raw->source) {
		memset(raw->source, 1, length);
		err = open_context(raw);
	}
	if (!err)
		return 0;
	if (raw->memory)
		munmap(raw->memory, length);
	if (raw->source)
		munmap(raw->source, length);
	return err;
}

void raw_missing_arm(const struct raw_missing *raw, size_t length)
{
	madvise(raw->memory, length, MADV_DONTNEED);
}

void raw_missing_close(struct raw_missing *raw)
{
	eventfd_write(raw->quit, 1);
	pthread_join(raw->thread, NULL);
	munmap(raw->memory, raw->length);
	munmap(raw->source, raw->length);
	close(raw->quit);
	close(raw->fd);
}
