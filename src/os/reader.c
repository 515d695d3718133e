/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * reader - the one thread that reads messages: its descriptors, sleep and wake-up.
 *
 * Model: reader_isolate gives the thread a private table of descriptors that holds the
 * contexts only; so closefrom() of the program cannot blind it, and the child
 * descriptors that FORK messages bring land where nobody sees them. What it was made with
 * it keeps: reader_nudge writes to a descriptor that both tables have (nudge.c). But
 * the program may close that in its own, so what must not fail goes another way:
 * reader_kick zaps a canary page that is registered with the first context, and the
 * kernel sends the message.
 *
 * Laws:
 * - G6: no lock, no allocation, no mapping change.
 * - The canary's message is swallowed by ctx_read, and only the ctx_poll after it
 *   says "kicked": a reader that ends at once then leaves no kicker asleep.
 * - A kicker sleeps until the reader reads. Never kick from a thread that the reader
 *   waits for, nor when no reader runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/live.h"
#include "os/uapi.h"

#define CTXS_MAX 62u
#define BATCH 16u
/* Between looks at a descriptor that has nothing but an error to tell. */
#define ERROR_PAUSE_NS 1000000u

static bool take_kick(const struct os_ctx *ctxs, unsigned n)
{
	struct canary *canary = n ? ctxs[0].canary : NULL;

	if (!canary || !canary->kicked)
		return false;
	canary->kicked = false;
	return true;
}

/*
 * POLLERR is what a userfaultfd says that somebody made blocking: O_NONBLOCK is of the
 * file, which the program's table shares. Put it back; if that does not help, read tells.
 */
static void mend(int fd)
{
	fcntl(fd, F_SETFL, O_NONBLOCK);
	live_sleep(ERROR_PAUSE_NS);
}

int live_ctx_poll(const struct os_ctx *ctxs, unsigned n, int64_t timeout_ns, uint64_t *ready)
{
	bool kicked = take_kick(ctxs, n);
	struct timespec timeout = { 0 };
	struct pollfd fds[CTXS_MAX + 1];

	if (n > CTXS_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++)
		fds[i] = (struct pollfd){ .fd = ctxs[i].fd, .events = POLLIN };
	/* A negative number is left out by the kernel. */
	fds[n] = (struct pollfd){ .fd = n ? ctxs[0].nudge : -1, .events = POLLIN };
	*ready = kicked ? UINT64_C(1) << n : 0;
	if (!kicked && timeout_ns > 0)
		timeout = live_timespec((uint64_t)timeout_ns);
	if (ppoll(fds, n + 1, !kicked && timeout_ns < 0 ? NULL : &timeout, NULL) < 0)
		return errno == EINTR ? 0 : -errno;
	for (unsigned i = 0; i < n; i++) {
		if (fds[i].revents & (POLLERR | POLLHUP | POLLNVAL))
			mend(fds[i].fd);
		if (fds[i].revents)
			*ready |= UINT64_C(1) << i;
	}
	if (fds[n].revents && nudge_take(&ctxs[0]))
		*ready |= UINT64_C(1) << (n + 1);
	return __builtin_popcountll(*ready);
}

/* 1 a message for the caller; 0 the canary's; -EPROTO a kind that was never asked for. */
static int translate(const struct os_ctx *ctx, const struct uffd_msg *raw, struct os_msg *msg)
{
	struct canary *canary = ctx->canary;

	memset(msg, 0, sizeof(*msg));
	switch (raw->event) {
	case UFFD_EVENT_FORK:
		/* The child's VMAs are plain again when its context is closed. */
		msg->kind = OS_MSG_FORK;
		msg->child = (int)raw->arg.fork.ufd;
		return 1;
	case UFFD_EVENT_PAGEFAULT:
		msg->kind = OS_MSG_FAULT;
		msg->start = (uintptr_t)raw->arg.pagefault.address & ~(OS_PAGE_SIZE - 1);
		msg->end = msg->start + OS_PAGE_SIZE;
		msg->write = raw->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE;
		return 1;
	case UFFD_EVENT_REMAP:
		msg->kind = OS_MSG_REMAP;
		msg->start = raw->arg.remap.from;
		msg->to = raw->arg.remap.to;
		msg->end = msg->start + raw->arg.remap.len;
		return 1;
	case UFFD_EVENT_REMOVE:
		if (canary && raw->arg.remove.start == (uintptr_t)canary->page) {
			canary->kicked = true;
			return 0;
		}
		msg->kind = OS_MSG_REMOVE;
		break;
	case UFFD_EVENT_UNMAP:
		msg->kind = OS_MSG_UNMAP;
		break;
	default:
		return -EPROTO;
	}
	msg->start = raw->arg.remove.start;
	msg->end = raw->arg.remove.end;
	return 1;
}

int live_ctx_read(const struct os_ctx *ctx, struct os_msg *msgs, unsigned max)
{
	struct uffd_msg raw[BATCH];
	size_t want = sizeof(raw[0]) * (max < BATCH ? max : BATCH);
	ssize_t got = read(ctx->fd, raw, want);
	unsigned count = 0;
	int err = 0;

	if (got < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	for (size_t i = 0; i < (size_t)got / sizeof(raw[0]); i++) {
		int one = translate(ctx, &raw[i], &msgs[count]);

		if (one < 0)
			err = one;
		else
			count += (unsigned)one;
	}
	return err ? err : (int)count;
}

int live_child_read(int child, struct os_msg *msgs, unsigned max)
{
	const struct os_ctx ctx = { .fd = child };

	return live_ctx_read(&ctx, msgs, max);
}

static int close_between(unsigned first, unsigned last, unsigned flags)
{
	if (first > last)
		return 0;
	return syscall(SYS_close_range, first, last, flags) ? -errno : 0;
}

static void insert(unsigned *keep, unsigned count, unsigned fd)
{
	for (; count && keep[count - 1] > fd; count--)
		keep[count] = keep[count - 1];
	keep[count] = fd;
}

int live_reader_isolate(const struct os_ctx *ctxs, unsigned n)
{
	unsigned keep[CTXS_MAX + 1], count = 0, first = 0;
	int err;

	if (!n || n > CTXS_MAX)
		return -EINVAL;
	for (unsigned i = 0; i < n; i++) {
		if (ctxs[i].fd < 0)
			return -EBADF;
		insert(keep, count++, (unsigned)ctxs[i].fd);
	}
	if (ctxs[0].nudge >= 0)
		insert(keep, count++, (unsigned)ctxs[0].nudge);
	/* The first call makes the table private. unshare() would too, but is what the
	 * seccomp profiles of containers refuse. */
	err = close_between(keep[count - 1] + 1, ~0u, CLOSE_RANGE_UNSHARE);
	for (unsigned i = 0; i < count && !err; i++) {
		if (keep[i])
			err = close_between(first, keep[i] - 1, 0);
		first = keep[i] + 1;
	}
	return err;
}

void live_reader_kick(const struct os_ctx *ctxs, unsigned n)
{
	struct canary *canary = n ? ctxs[0].canary : NULL;
	uintptr_t page = canary ? (uintptr_t)canary->page : 0;

	if (!canary)
		return;
	/* Again: who takes back every registration of the process takes back this one. Refused
	 * when the program closed our number; then the first registration stands. */
	live_ctx_register(&ctxs[0], page, page + OS_PAGE_SIZE);
	madvise(canary->page, OS_PAGE_SIZE, MADV_DONTNEED);
}
