/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uffd - a userfaultfd context that only listens.
 *
 * Laws:
 * - WP_ASYNC is what makes this work at all: with it any VMA can be registered for its
 *   events, and registering write-protects nothing. We never arm write protection (G7).
 * - A context whose UFFDIO_API failed must not be used again: it is closed and a new one
 *   asked for less.
 * - The number in the program's table may be closed or reused by the program: whoever
 *   closes asks for the identity first.
 * - Before a context is closed what is registered with it is unregistered. A forked child may
 *   hold a copy of the file, and our munmap would then wait for ever for a message that
 *   nobody reads. This file does so for the canary; the rest is the caller's.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/live.h"
#include "os/uapi.h"
#include "util/arena.h"

const uint64_t uffd_features_needed =
	UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
	UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP;

static int new_by_device(void)
{
	int dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	int fd, err;

	if (dev < 0)
		return -errno;
	fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	err = -errno;
	close(dev);
	return fd < 0 ? err : fd;
}

static int new_by_call(int flags)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | flags);

	return fd < 0 ? -errno : fd;
}

/* The most capable that is granted; the error is the plain system call's. */
int uffd_new(bool *user_only)
{
	int fd, err = -EPERM;

	*user_only = false;
	if (!os_without("kernel_faults")) {
		err = new_by_call(0);
		if (err != -EPERM && err != -ENOSYS)
			return err;
		fd = new_by_device();
		if (fd >= 0)
			return fd;
	}
	fd = new_by_call(UFFD_USER_MODE_ONLY);
	*user_only = fd >= 0;
	/* Refused likewise: the first answer. No descriptor left: this one. */
	return fd == -EPERM || fd == -EINVAL ? err : fd;
}

/* -EPERM EVENT_FORK is not granted; -EOPNOTSUPP a feature is unknown here. */
int uffd_enable(int fd, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (!ioctl(fd, UFFDIO_API, &api))
		return 0;
	return errno == EINVAL ? -EOPNOTSUPP : -errno;
}

static int open_with(struct os_ctx *ctx, uint64_t features)
{
	int err;

	ctx->fd = uffd_new(&ctx->user_only);
	if (ctx->fd < 0)
		return ctx->fd;
	err = uffd_enable(ctx->fd, features);
	if (err)
		close(ctx->fd);
	return err;
}

/* A child has no use for it, and shall not get a context for it. */
static int canary_make(struct os_ctx *ctx)
{
	struct canary *canary = arena_map(sizeof(*canary));
	uintptr_t page;
	int err;

	if (!canary)
		return -ENOMEM;
	page = (uintptr_t)canary->page;
	err = madvise(canary->page, OS_PAGE_SIZE, MADV_DONTFORK) ? -errno : 0;
	if (!err)
		err = live_ctx_register(ctx, page, page + OS_PAGE_SIZE);
	if (err)
		arena_unmap(canary, sizeof(*canary));
	else
		ctx->canary = canary;
	return err;
}

int live_ctx_open(struct os_ctx *ctx)
{
	struct os_ctx new = { .fork = !os_without("event_fork") };
	int err;

	if (os_without("userfaultfd"))
		return -ENOSYS;
	if (os_without("wp_async"))
		return -EOPNOTSUPP;
	err = open_with(&new, uffd_features_needed | (new.fork ? UFFD_FEATURE_EVENT_FORK : 0));
	if (err == -EPERM && new.fork) {
		new.fork = false;
		err = open_with(&new, uffd_features_needed);
	}
	if (err)
		return err;
	new.fd = fd_move_high(new.fd);
	new.ino = fd_identity(new.fd);
	err = canary_make(&new);
	if (err) {
		close(new.fd);
		return err;
	}
	*ctx = new;
	return 0;
}

bool live_ctx_is_ours(const struct os_ctx *ctx)
{
	return ctx->fd >= 0 && fd_identity(ctx->fd) == ctx->ino;
}

void live_ctx_close(struct os_ctx *ctx)
{
	struct canary *canary = ctx->canary;
	uintptr_t page = canary ? (uintptr_t)canary->page : 0;

	/* A canary that cannot be unregistered stays mapped: its munmap might never return. */
	if (canary && live_ctx_is_ours(ctx) &&
	    !live_ctx_unregister(ctx, page, page + OS_PAGE_SIZE))
		arena_unmap(canary, sizeof(*canary));
	ctx->canary = NULL;
	live_ctx_forget(ctx);
}

void live_ctx_forget(struct os_ctx *ctx)
{
	fd_close_if(ctx->fd, ctx->ino);
	ctx->fd = -1;
}

int live_ctx_register(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	struct uffdio_register arg = { .range = { start, end - start },
				       .mode = UFFDIO_REGISTER_MODE_WP };

	return ioctl(ctx->fd, UFFDIO_REGISTER, &arg) ? -errno : 0;
}

int live_ctx_unregister(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	struct uffdio_range arg = { start, end - start };

	return ioctl(ctx->fd, UFFDIO_UNREGISTER, &arg) ? -errno : 0;
}

/*
 * The kernel looks at mmap_changing before it looks at the arguments, and refuses an
 * empty range afterwards: EAGAIN or EINVAL, and nothing is ever done. G1 stands on it.
 */
int live_ctx_probe(const struct os_ctx *ctx)
{
	struct uffdio_writeprotect nothing = { .range = { 0, 0 } };

	if (!ioctl(ctx->fd, UFFDIO_WRITEPROTECT, &nothing))
		return -EBADF; /* no userfaultfd says yes to that */
	return errno == EINVAL ? 0 : -errno;
}
