/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * move - pages into, out of and within an address space, by ioctl of a userfaultfd.
 *
 * Laws of the kernel (Linux 6.18, each pinned by tests/live/test_os_move.c):
 * - The whole range is checked first: both sides in one mapping each, private and
 *   anonymous, of equal permissions, writable, equally mlocked. Else EINVAL, and nothing is
 *   done. ENOENT: one of them is not mapped at its start.
 * - Then page by page. Who gets stuck behind the first page says EAGAIN and how far it came;
 *   the reason comes with the next call. EAGAIN and no progress: a change is pending.
 * - MOVE: EEXIST for whatever is at dst: page, zero page, guard, poison, write-protect marker.
 *   EFAULT for a guard or poison at src. EBUSY for a page that a child shares or has shared
 *   (a write makes it ours alone), that is pinned, or that lies in a huge page of
 *   which anything is held, also by a pipe. A small page in a pipe moves.
 * - A huge page moves whole if both sides are aligned to it and all of it is asked for;
 *   otherwise it is split first.
 * - ZEROPAGE and POISON never overwrite. COPY overwrites guard and poison, and
 *   writes where the mapping is read-only or has no access at all.
 * - MOVE refuses (EINVAL) what is registered with another context. COPY, ZEROPAGE and POISON do
 *   not: a range that is registered with any context is good enough for them. Who uses them
 *   knows from the messages of this context that the mapping is still its own.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/live.h"
#include "os/uapi.h"

/* How often an EAGAIN that no pending change explains is asked again. */
#define AGAIN_MAX 64u

/* A call of the kernel: bytes it has dealt with, or a negative errno if none. */
typedef int64_t (*step_fn)(int fd, uintptr_t dst, uintptr_t src, size_t length);

/* `dealt`: the kernel's own count; older kernels leave it alone, newer ones put the error in.
 * By address: it is read after the call. */
static int64_t answer(int failed, const __s64 *dealt)
{
	if (*dealt > 0)
		return *dealt;
	return failed ? -errno : -EIO;
}

/*
 * Is dst in a mapping that is registered at all? MOVE says EINVAL for that as for much else.
 * CONTINUE is never carried out in private memory, but looks for the registration first.
 */
static bool registered(int fd, uintptr_t dst)
{
	struct uffdio_continue arg = { .range = { dst, OS_PAGE_SIZE } };

	return !ioctl(fd, UFFDIO_CONTINUE, &arg) || errno != ENOENT;
}

/* Is a page there, if in swap? */
static bool present(uintptr_t page)
{
	const struct os_mm mm = { .maps_fd = -1, .pagemap_fd = -1, .tasks_fd = -1 };
	unsigned char mapped = 0;
	struct os_run run;
	uintptr_t next;
	int n = live_scan(&mm, page, page + OS_PAGE_SIZE, OS_SCAN_POPULATED, &run, 1, &next);

	if (n >= 0)
		return n;
	/* Without /proc, or a free descriptor: which does not tell where it is in swap. */
	return !mincore((void *)page, OS_PAGE_SIZE, &mapped) && (mapped & 1);
}

/*
 * A MOVE that stops in the middle can say some pages too few (Linux 6.18: an EAGAIN from before a batch that
 * moved is taken for that batch's; seen while another thread breaks the copy-on-write sharing
 * of the source with a child): the next one then finds the pages at dst. src and dst are the
 * caller's to fill, so they have moved.
 */
static bool has_moved(uintptr_t dst, uintptr_t src)
{
	return present(dst) && !present(src);
}

static int wake(int fd, uintptr_t start, size_t length)
{
	struct uffdio_range arg = { start, length };

	return ioctl(fd, UFFDIO_WAKE, &arg) ? -errno : 0;
}

static int64_t move(int fd, uintptr_t dst, uintptr_t src, size_t length, uint64_t mode)
{
	struct uffdio_move arg = { .dst = dst, .src = src, .len = length, .mode = mode };
	int64_t got = answer(ioctl(fd, UFFDIO_MOVE, &arg), &arg.move);

	if (got == -EEXIST && has_moved(dst, src)) {
		wake(fd, dst, OS_PAGE_SIZE); /* the kernel has, of what it counts */
		return OS_PAGE_SIZE;
	}
	return got == -EINVAL && !registered(fd, dst) ? -ENOENT : got;
}

static int64_t step_move(int fd, uintptr_t dst, uintptr_t src, size_t length)
{
	return move(fd, dst, src, length, UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES);
}

static int64_t step_move_present(int fd, uintptr_t dst, uintptr_t src, size_t length)
{
	int64_t got = move(fd, dst, src, length, 0);

	return got == -ENOENT ? -ENODATA : got;
}

static int64_t step_copy(int fd, uintptr_t dst, uintptr_t src, size_t length)
{
	struct uffdio_copy arg = { .dst = dst, .src = src, .len = length };

	return answer(ioctl(fd, UFFDIO_COPY, &arg), &arg.copy);
}

static int64_t step_zero(int fd, uintptr_t dst, uintptr_t nothing, size_t length)
{
	struct uffdio_zeropage arg = { .range = { dst, length } };

	return answer(ioctl(fd, UFFDIO_ZEROPAGE, &arg), &arg.zeropage);
}

static int64_t step_poison(int fd, uintptr_t dst, uintptr_t nothing, size_t length)
{
	struct uffdio_poison arg = { .range = { dst, length } };

	return answer(ioctl(fd, UFFDIO_POISON, &arg), &arg.updated);
}

static int probe_fd(int fd)
{
	struct os_ctx ctx = { .fd = fd };

	return live_ctx_probe(&ctx);
}

/*
 * The kernel refuses the whole range where a mapping ends or changes inside it. So a refusal
 * is asked again of half of it, down to the page that it is about, and pages before that
 * one are dealt with.
 */
static int all_of(int fd, step_fn step, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done)
{
	size_t chunk = length;
	unsigned again = 0;

	*done = 0;
	while (*done < length) {
		int64_t got;

		if (chunk > length - *done)
			chunk = length - *done;
		got = step(fd, dst + *done, src + *done, chunk);
		if (got > 0) {
			*done += (size_t)got;
			chunk *= 2;
			again = 0;
		} else if ((got == -EINVAL || got == -ENOENT) && chunk > OS_PAGE_SIZE) {
			chunk = (chunk / 2 + OS_PAGE_SIZE - 1) & ~(OS_PAGE_SIZE - 1);
		} else if (got == -EAGAIN && probe_fd(fd) != -EAGAIN) {
			if (again++ == AGAIN_MAX)
				return -EBUSY;
		} else {
			return (int)got;
		}
	}
	return 0;
}

/* And where no next one is carried out, as a change is pending by now, they are looked for. */
static int move_all(int fd, step_fn step, uintptr_t dst, uintptr_t src, size_t length,
		    size_t *done)
{
	int err = all_of(fd, step, dst, src, length, done);

	while (err == -EAGAIN && *done && *done < length && has_moved(dst + *done, src + *done)) {
		wake(fd, dst + *done, OS_PAGE_SIZE);
		*done += OS_PAGE_SIZE;
	}
	return *done < length ? err : 0;
}

int live_ctx_move(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done)
{
	return move_all(ctx->fd, step_move, dst, src, length, done);
}

int live_ctx_move_present(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src,
			  size_t length, size_t *done)
{
	return move_all(ctx->fd, step_move_present, dst, src, length, done);
}

int live_ctx_copy(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done)
{
	return all_of(ctx->fd, step_copy, dst, src, length, done);
}

int live_ctx_zero(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done)
{
	return all_of(ctx->fd, step_zero, dst, 0, length, done);
}

int live_ctx_poison(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done)
{
	if (!ctx->poison) {
		*done = 0;
		return -EOPNOTSUPP;
	}
	return all_of(ctx->fd, step_poison, dst, 0, length, done);
}

int live_ctx_wake(const struct os_ctx *ctx, uintptr_t start, size_t length)
{
	return wake(ctx->fd, start, length);
}

int live_child_copy(int child, uintptr_t dst, uintptr_t src, size_t length, size_t *done)
{
	return all_of(child, step_copy, dst, src, length, done);
}

void live_child_close(int child)
{
	close(child);
}
