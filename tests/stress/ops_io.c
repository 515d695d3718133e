/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ops_io - the kernel reads and writes pages that are away, for files, pipes and rings.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ops_own.h"
#include "stress.h"

#define IO_PAGES 16u

static bool io_run(struct worker *w, struct area *a, struct run *run, const char *what)
{
	if (!area_run(w, a, run))
		return false;
	run->n = run->n < IO_PAGES ? run->n : IO_PAGES;
	area_note(w, a, run, what);
	return true;
}

/* What the file has at page k is what the page has. */
static void check_file(struct worker *w, struct area *a, const struct run *run,
		       const char *how)
{
	for (unsigned k = 0; k < run->n; k++) {
		if (pread(w->own->file, w->buffer, PAGE, (off_t)(k * PAGE)) !=
		    (ssize_t)PAGE)
			fail("pread of our own file: %m");
		page_check(a, run->i + k, w->buffer, how);
	}
}

/* New pages for the run, in the file; the model has them already. */
static void fill_file(struct worker *w, struct area *a, const struct run *run)
{
	run_writable(w, a, run);
	for (unsigned k = 0; k < run->n; k++) {
		page_write(a, run->i + k, 0xff, w->buffer);
		if (pwrite(w->own->file, w->buffer, PAGE, (off_t)(k * PAGE)) !=
		    (ssize_t)PAGE)
			fail("pwrite of our own file: %m");
	}
}

static void want(ssize_t got, const struct run *run, const char *what)
{
	if (got != (ssize_t)(run->n * PAGE))
		fail("%s of %u pages at %#lx: %zd (%s)", what, run->n, run->addr, got,
		     got < 0 ? strerror(errno) : "short");
}

static void op_write_file(struct worker *w, struct area *a)
{
	struct run run;

	if (!io_run(w, a, &run, "pwrite(2) from it"))
		return;
	want(pwrite(w->own->file, (void *)run.addr, run.n * PAGE, 0), &run, "pwrite");
	check_file(w, a, &run, "pwrite(2)");
}

static void op_read_file(struct worker *w, struct area *a)
{
	struct run run;

	if (!io_run(w, a, &run, "pread(2) into it"))
		return;
	fill_file(w, a, &run);
	want(pread(w->own->file, (void *)run.addr, run.n * PAGE, 0), &run, "pread");
	run_check(a, &run, "the CPU after pread(2)");
}

static int ring_io(struct worker *w, const struct run *run, bool write)
{
	struct io_uring *ring = &w->own->ring;
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int err, got;

	if (write)
		io_uring_prep_write(sqe, w->own->file, (void *)run->addr, run->n * PAGE, 0);
	else
		io_uring_prep_read(sqe, w->own->file, (void *)run->addr, run->n * PAGE, 0);
	/* By a worker thread of the kernel's. */
	if (one_in(w, 2))
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	err = io_uring_submit(ring);
	if (err == 1)
		do
			err = io_uring_wait_cqe(ring, &cqe);
		while (err == -EINTR);
	if (err < 0)
		fail("io_uring: %s", strerror(-err));
	got = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	errno = got < 0 ? -got : 0;
	return got;
}

static void op_ring_read(struct worker *w, struct area *a)
{
	struct run run;

	if (!w->own->has_ring || !io_run(w, a, &run, "io_uring read into it"))
		return;
	fill_file(w, a, &run);
	want(ring_io(w, &run, false), &run, "io_uring read");
	run_check(a, &run, "the CPU after an io_uring read");
}

static void op_ring_write(struct worker *w, struct area *a)
{
	struct run run;

	if (!w->own->has_ring || !io_run(w, a, &run, "io_uring write from it"))
		return;
	want(ring_io(w, &run, true), &run, "io_uring write");
	check_file(w, a, &run, "an io_uring write");
}

/* Through a pipe, into itself. */
static void op_pipe(struct worker *w, struct area *a)
{
	struct run run;

	if (!io_run(w, a, &run, "write(2) to a pipe"))
		return;
	run.n = run.n < 4 ? run.n : 4;
	run_writable(w, a, &run);
	want(write(w->own->pipe[1], (void *)run.addr, run.n * PAGE), &run,
	     "write to a pipe");
	for (unsigned k = 0; k < run.n; k++) {
		/* What was written is what it was: the pages may be anything now. */
		if (read(w->own->pipe[0], (void *)(run.addr + k * PAGE), PAGE) !=
		    (ssize_t)PAGE)
			fail("read from a pipe: %m");
		a->page[run.i + k].settled = true;
	}
	run_check(a, &run, "the CPU after a pipe");
}

/* ---- vmsplice: the pipe has the page itself ---- */

struct spliced {
	uint64_t old[SECTIONS], now[SECTIONS];
	bool dropped; /* given up since: the pipe has the old page */
};

/* The page's bytes of then, or those that were written there since; never another's. */
static void check_spliced(struct worker *w, struct area *a, unsigned page,
			  const struct spliced *s)
{
	const uint64_t *words = (const void *)w->buffer;
	char got[80], old[80];

	for (unsigned i = 0; i < WORDS; i++) {
		unsigned sec = i / SECTION_WORDS;

		if (words[i] == stamp_word(s->old[sec], i) ||
		    (!s->dropped && words[i] == stamp_word(s->now[sec], i)))
			continue;
		fail("WRONG: a pipe that page %u of area %u was spliced to reads %s at "
		     "word "
		     "%u, spliced was %s%s",
		     page, a->id, word_text(words[i], got, sizeof(got)), i,
		     word_text(stamp_word(s->old[sec], i), old, sizeof(old)),
		     s->dropped ? ", dropped since" : "");
	}
}

static void change_spliced(struct worker *w, struct area *a, const struct run *run,
			   struct spliced *spliced)
{
	struct dev *dev = dev_take(w);
	int64_t moved = hmm_migrate_to_device(dev_devmem(dev), run->addr, run->n * PAGE);

	if (moved < 0 && !migrate_may_fail(w, moved))
		fail("migration of spliced pages: %s", hmm_strerror((int)moved));
	for (unsigned k = 0; k < run->n; k++) {
		unsigned page = run->i + k;
		struct page *p = &a->page[page];

		if (one_in(w, 4)) {
			if (madvise((void *)p->addr, PAGE, MADV_DONTNEED))
				fail("DONTNEED: %m");
			page_zero(p, p->addr);
			spliced[k].dropped = true;
		}
		if (one_in(w, 2)) {
			page_write(a, page, 0xff, (void *)p->addr);
		} else {
			uint64_t stamps[SECTIONS];
			int err;

			memcpy(stamps, p->stamp, sizeof(stamps));
			page_write(a, page, 0xff, w->buffer);
			err = dev_write(dev, p->addr, w->buffer, PAGE);
			if (err)
				memcpy(p->stamp, stamps, sizeof(stamps));
			if (err && err != -EBUSY && !(w->world->inject && err == -ENOMEM))
				fail("device write of a spliced page: %s",
				     hmm_strerror(err));
		}
		memcpy(spliced[k].now, p->stamp, sizeof(spliced[k].now));
	}
	dev_leave(w);
}

static void op_vmsplice(struct worker *w, struct area *a)
{
	struct spliced spliced[8] = { 0 };
	struct iovec v;
	struct run run;
	ssize_t got;

	if (!io_run(w, a, &run, "vmsplice"))
		return;
	run.n = run.n < 8 ? run.n : 8;
	run_writable(w, a, &run);
	run_check(a, &run, "the CPU");
	for (unsigned k = 0; k < run.n; k++) {
		if (a->page[run.i + k].maybe)
			return;
		memcpy(spliced[k].old, a->page[run.i + k].stamp, sizeof(spliced[k].old));
	}
	v = (struct iovec){ (void *)run.addr, run.n * PAGE };
	got = vmsplice(w->own->pipe[1], &v, 1, 0);
	if (got < (ssize_t)PAGE || got % (ssize_t)PAGE)
		fail("vmsplice of %u pages: %zd, %m", run.n, got);
	run.n = (unsigned)((size_t)got / PAGE);
	change_spliced(w, a, &run, spliced);
	for (unsigned k = 0; k < run.n; k++) {
		if (read(w->own->pipe[0], w->buffer, PAGE) != (ssize_t)PAGE)
			fail("read from a pipe: %m");
		check_spliced(w, a, run.i + k, &spliced[k]);
	}
	run_check(a, &run, "the CPU after vmsplice");
}

const struct op ops_io[] = {
	{ "pwrite", op_write_file, 20, false },
	{ "pread", op_read_file, 20, false },
	{ "ring-read", op_ring_read, 15, false },
	{ "ring-write", op_ring_write, 15, false },
	{ "pipe", op_pipe, 15, false },
	{ "vmsplice", op_vmsplice, 20, false },
	{ NULL, NULL, 0, false },
};
