/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * nudge - a word to the reader that does not wait for it.
 *
 * Model: a pipe behind one descriptor, open both ways, in the program's table and, since
 * reader_isolate, in the reader's own. Whoever nudges writes a byte; the reader polls it.
 *
 * Why no eventfd: all of them, timers and more, share one inode, so that nobody could
 * tell whether the number is ours still. Each pipe has an inode of its own.
 *
 * Laws:
 * - It is never written to, nor read from, without asking whose it is. A program that
 *   closes our number and opens a file under it between question and write gets a byte
 *   into that file; numbers this high are taken by who asks for them only.
 * - A full pipe has told already.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "os/live.h"

void nudge_make(struct os_ctx *ctx)
{
	char path[48];
	int ends[2], fd;

	ctx->nudge = -1;
	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return;
	snprintf(path, sizeof(path), "/proc/thread-self/fd/%d", ends[0]);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	close(ends[0]);
	close(ends[1]);
	if (fd < 0)
		return;
	ctx->nudge = fd_move_high(fd);
	ctx->nudge_ino = fd_identity(ctx->nudge);
}

static bool is_ours(const struct os_ctx *ctx)
{
	return ctx->nudge >= 0 && fd_identity(ctx->nudge) == ctx->nudge_ino;
}

/* What is left is told the next time. Not ours: poll would say so again and again. */
bool nudge_take(const struct os_ctx *ctx)
{
	char bytes[512];

	if (is_ours(ctx))
		return read(ctx->nudge, bytes, sizeof(bytes)) > 0;
	live_sleep(1000000);
	return false;
}

void live_reader_nudge(const struct os_ctx *ctxs)
{
	if (is_ours(&ctxs[0]))
		while (write(ctxs[0].nudge, "", 1) < 0 && errno == EINTR)
			;
}
