/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uffd - userfaultfd contexts: one that listens and whose pages move.c moves, and the quiet
 * one, which registers the library's own regions and tells nothing. (A third: sentinel.c.)
 *
 * Laws:
 * - WP_ASYNC is what makes this work at all: with it any VMA can be registered for its
 *   events, and registering write-protects nothing. Write protection is armed nowhere here (G7: scan.c).
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

/*
 * Features of the kernel, asked of a context that is thrown away. A kernel refuses a
 * context that asks for what it does not know. 0: cannot be told now; then nothing is
 * asked for that is not needed.
 */
static uint64_t features_known(void)
{
	static uint64_t known;
	struct uffdio_api api = { .api = UFFD_API };
	uint64_t features = __atomic_load_n(&known, __ATOMIC_RELAXED);
	bool user_only;
	int fd;

	if (features)
		return features;
	fd = uffd_new(&user_only);
	if (fd < 0)
		return 0;
	if (!ioctl(fd, UFFDIO_API, &api))
		features = api.features;
	close(fd);
	__atomic_store_n(&known, features, __ATOMIC_RELAXED);
	return features;
}

/* Those of MOVE and POISON that are there and not turned off. */
static uint64_t features_of_moving(void)
{
	uint64_t features = features_known();

	if (os_without("uffd_move"))
		features &= ~(uint64_t)UFFD_FEATURE_MOVE;
	if (os_without("uffd_poison"))
		features &= ~(uint64_t)UFFD_FEATURE_POISON;
	return features & (UFFD_FEATURE_MOVE | UFFD_FEATURE_POISON);
}

int uffd_open_with(struct os_ctx *ctx, uint64_t features)
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

/*
 * Before Linux 6.15 UNREGISTER does not look whose the registration is. Another context asks for that of
 * this one's canary. Where that cannot be told it is assumed.
 */
static bool unregisters_all(const struct os_ctx *ctx)
{
	static int known = -1;
	uintptr_t page = (uintptr_t)ctx->canary->page;
	struct os_ctx other = { 0 };
	int all = __atomic_load_n(&known, __ATOMIC_RELAXED);

	if (all >= 0)
		return all;
	if (uffd_open_with(&other, 0))
		return true;
	all = !live_ctx_unregister(&other, page, page + OS_PAGE_SIZE);
	close(other.fd);
	if (all && live_ctx_register(ctx, page, page + OS_PAGE_SIZE))
		return true; /* without its kick the reader ends later */
	__atomic_store_n(&known, all, __ATOMIC_RELAXED);
	return all;
}

int live_ctx_open(struct os_ctx *ctx)
{
	struct os_ctx new = { .fork = !os_without("event_fork"), .nudged = ctx->nudged,
			      .nudge = -1 };
	uint64_t moving = features_of_moving(), needed = uffd_features_needed | moving;
	int err;

	if (os_without("userfaultfd"))
		return -ENOSYS;
	if (os_without("wp_async"))
		return -EOPNOTSUPP;
	err = uffd_open_with(&new, needed | (new.fork ? UFFD_FEATURE_EVENT_FORK : 0));
	if (err == -EPERM && new.fork) {
		new.fork = false;
		err = uffd_open_with(&new, needed);
	}
	if (err)
		return err;
	new.move = moving & UFFD_FEATURE_MOVE;
	new.poison = moving & UFFD_FEATURE_POISON;
	new.fd = fd_move_high(new.fd);
	new.ino = fd_identity(new.fd);
	err = canary_make(&new);
	if (err) {
		close(new.fd);
		return err;
	}
	new.unregisters_all = unregisters_all(&new);
	if (new.nudged)
		nudge_make(&new);
	critical_learn();
	*ctx = new;
	return 0;
}

int live_quiet_open(struct os_ctx *ctx)
{
	struct os_ctx new = { .nudge = -1, .move = true };
	int err;

	if (!(features_of_moving() & UFFD_FEATURE_MOVE))
		return -EOPNOTSUPP;
	err = uffd_open_with(&new, UFFD_FEATURE_MOVE);
	if (err)
		return err;
	new.fd = fd_move_high(new.fd);
	new.ino = fd_identity(new.fd);
	*ctx = new;
	return 0;
}

void live_quiet_close(struct os_ctx *ctx)
{
	live_ctx_forget(ctx);
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
	sentinel_unmap(ctx);
	fd_close_if(ctx->fd, ctx->ino);
	fd_close_if(ctx->nudge, ctx->nudge_ino);
	ctx->fd = ctx->nudge = -1;
}

static int register_as(const struct os_ctx *ctx, uintptr_t start, uintptr_t end, uint64_t mode)
{
	struct uffdio_register arg = { .range = { start, end - start }, .mode = mode };

	return ioctl(ctx->fd, UFFDIO_REGISTER, &arg) ? -errno : 0;
}

int live_ctx_register(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	return register_as(ctx, start, end, UFFDIO_REGISTER_MODE_WP);
}

int live_ctx_register_missing(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	return register_as(ctx, start, end,
			   UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING);
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

int live_ctx_unmark(const struct os_ctx *ctx, uintptr_t start, uintptr_t end)
{
	struct uffdio_writeprotect off = { .range = { start, end - start } };

	return ioctl(ctx->fd, UFFDIO_WRITEPROTECT, &off) ? -errno : 0;
}
