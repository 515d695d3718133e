/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * sentinel - a context whose FORK is the last one of its clone.
 *
 * Model: clone() tells each context of the parent's that it makes a child, one after the
 * other, in the order of the lowest mapping of each, and goes on when the message is
 * read. The child runs after the last one. A context with nothing but one page at the
 * highest address is the last. Until its FORK is read neither parent's clone nor child
 * goes on; the other contexts are quiet again by then, and pages can be moved and copied.
 *
 * Laws:
 * - Nothing that can be registered lies above: else that would be told later. Where such a
 *   thing is there (the stack, without address space randomisation) there is no sentinel.
 *   Nor is the page put below it then: a stack grows.
 * - It tells FORK only. So unmapping its page is silent, and with the page gone the
 *   context tells nothing any more: also where the program has closed our number, or a
 *   forked child still holds a copy.
 * - No thread's memory: without access, never written to. A child inherits it, and takes it
 *   away in ctx_forget.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os/live.h"
#include "os/uapi.h"
#include "util/arena.h"

#define TRIES 16u

/* Ends of the address space for user code, the largest of each architecture first. */
static const unsigned bits[] = { 56, 52, 48, 47 };

static bool is_ours(uintptr_t page)
{
	return arena_owns(page, page + OS_PAGE_SIZE);
}

/* Is there anything above that the library could register? */
static bool is_highest(uintptr_t page)
{
	const struct os_mm mm = { .maps_fd = -1, .pagemap_fd = -1 };
	uintptr_t at = page + OS_PAGE_SIZE;
	struct os_vma vma;
	int err;

	while (!(err = live_vma_find(&mm, at, &vma))) {
		if (vma.kind != OS_VMA_SPECIAL && !is_ours(vma.start))
			return false;
		at = vma.end;
	}
	return err == -ENOENT;
}

static int unmap(uintptr_t page)
{
	return (int)syscall(SYS_munmap, page, OS_PAGE_SIZE);
}

/* Not by libc: ThreadSanitizer's puts 0 for an address that it does not know, and dies of it. */
static int map_at(uintptr_t page)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
	long got = syscall(SYS_mmap, page, OS_PAGE_SIZE, PROT_NONE, flags, -1, 0);

	if (got == -1)
		return -errno;
	if ((uintptr_t)got == page)
		return 0;
	unmap((uintptr_t)got); /* an emulator that takes it for a hint */
	return -EEXIST;
}

/* 0: there is no such place. */
static uintptr_t map_highest(void)
{
	for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		uintptr_t page = ((uintptr_t)1 << bits[i]) - OS_PAGE_SIZE;

		for (unsigned tries = 0; tries < TRIES; tries++, page -= OS_PAGE_SIZE) {
			if (map_at(page))
				continue;
			if (is_highest(page))
				return page;
			unmap(page);
			return 0;
		}
	}
	return 0;
}

/* Disowned first: afterwards the address may be the program's again. */
void sentinel_unmap(struct os_ctx *ctx)
{
	uintptr_t page = ctx->sentinel;

	if (!page)
		return;
	ctx->sentinel = 0;
	arena_disown(page, page + OS_PAGE_SIZE);
	if (unmap(page))
		arena_adopt(page, page + OS_PAGE_SIZE);
}

static int place(struct os_ctx *ctx)
{
	uintptr_t page = map_highest();
	int err;

	if (!page)
		return -EEXIST;
	err = arena_adopt(page, page + OS_PAGE_SIZE);
	if (!err)
		err = live_ctx_register(ctx, page, page + OS_PAGE_SIZE);
	ctx->sentinel = page;
	if (err)
		sentinel_unmap(ctx);
	return err;
}

int live_sentinel_open(struct os_ctx *ctx)
{
	struct os_ctx new = { .nudge = -1, .fork = true };
	int err;

	if (os_without("event_fork"))
		return -EPERM;
	err = uffd_open_with(&new, UFFD_FEATURE_EVENT_FORK);
	if (err)
		return err;
	new.fd = fd_move_high(new.fd);
	new.ino = fd_identity(new.fd);
	err = place(&new);
	if (err) {
		close(new.fd);
		return err;
	}
	*ctx = new;
	return 0;
}
