/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ops_map - mappings that change while their pages are away.
 *
 * Addresses are the kernel's choice: a place that is left may be another thread's at once.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "stress.h"
#include "uapi.h"

#define RW (PROT_READ | PROT_WRITE)

static void forget(struct area *a, const struct run *run)
{
	for (unsigned k = 0; k < run->n; k++)
		page_forget(&a->page[run->i + k]);
}

static void zero(struct area *a, const struct run *run)
{
	for (unsigned k = 0; k < run->n; k++)
		page_zero(&a->page[run->i + k], run->addr + k * PAGE);
}

static void place(struct area *a, const struct run *run, uintptr_t addr)
{
	for (unsigned k = 0; k < run->n; k++)
		a->page[run->i + k].addr = addr + k * PAGE;
}

static void unmap(struct area *a, const struct run *run)
{
	if (munmap((void *)run->addr, run->n * PAGE))
		fail("munmap of area %u page %u: %m", a->id, run->i);
	forget(a, run);
}

static void op_map(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_gap(w, a, &run))
		return;
	area_note(w, a, &run, "mmap");
	if (!area_map(w, a, run.i, run.n))
		fail("mmap of %u pages: %m", run.n);
}

static void op_unmap(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "munmap");
	unmap(a, &run);
}

/* Gone, and at once something new in its place; or another thread takes it first. */
static void op_map_again(struct worker *w, struct area *a)
{
	struct run run;
	void *at;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "munmap and mmap again");
	unmap(a, &run);
	at = mmap((void *)run.addr, run.n * PAGE, RW,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (at == MAP_FAILED)
		return;
	zero(a, &run);
	for (unsigned k = 0; k < run.n; k++)
		if (one_in(w, 2))
			page_write(a, run.i + k, 1u << pick(w, SECTIONS),
				   (void *)a->page[run.i + k].addr);
	run_check(a, &run, "the CPU, mapped again");
}

/* All of it anew, in one piece. */
static void op_renew(struct worker *w, struct area *a)
{
	struct run run = { 0 };

	doing(w, "renew", a, 0);
	for (unsigned i = 0; i < a->pages; i += run.n ? run.n : 1) {
		run = area_run_at(a, i, a->pages);
		if (run.n) {
			area_note(w, a, &run, "munmap of all");
			unmap(a, &run);
		}
	}
	if (!area_map(w, a, 0, a->pages))
		fail("mmap of %u pages: %m", a->pages);
}

static void op_map_over(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "mmap(MAP_FIXED) over it");
	if (mmap((void *)run.addr, run.n * PAGE, RW,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		fail("mmap(MAP_FIXED) over area %u page %u: %m", a->id, run.i);
	if (a->huge)
		madvise((void *)run.addr, run.n * PAGE, MADV_HUGEPAGE);
	zero(a, &run);
	if (one_in(w, 2))
		run_check(a, &run, "the CPU after MAP_FIXED");
}

/* ---- mremap ---- */

/*
 * The kernel may refuse (a VMA that merged with one that was being registered:
 * docs/limits.md). Then nothing has moved, but a MAP_FIXED destination may be gone.
 */
static bool moved(struct worker *w, const void *to)
{
	if (to != MAP_FAILED)
		return true;
	if (errno != EFAULT && errno != ENOMEM && errno != EAGAIN && errno != EINVAL)
		fail("mremap: %m");
	w->world->refused++;
	return false;
}

static bool remap_run(struct worker *w, struct area *a, struct run *run, const char *what)
{
	if (!area_run(w, a, run))
		return false;
	doing(w, what, a, run->i);
	if (!run_is_one_mapping(run))
		run->n = 1;
	area_note(w, a, run, what);
	return true;
}

static void op_move(struct worker *w, struct area *a)
{
	void *to, *at;
	struct run run;

	if (!remap_run(w, a, &run, "mremap, move"))
		return;
	to = mmap(NULL, run.n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (to == MAP_FAILED)
		fail("mmap: %m");
	at = mremap((void *)run.addr, run.n * PAGE, run.n * PAGE,
		    MREMAP_MAYMOVE | MREMAP_FIXED, to);
	if (!moved(w, at))
		return; /* `to` may be somebody's: it is left */
	place(a, &run, (uintptr_t)at);
	if (one_in(w, 2))
		run_check(a, &run, "the CPU after mremap");
}

/* Onto other pages of the area, away or not. */
static void op_move_over(struct worker *w, struct area *a)
{
	struct run run, over;
	bool done;

	if (!remap_run(w, a, &run, "mremap, onto others"))
		return;
	over = area_run_at(a, pick(w, a->pages), run.n);
	if (!over.n || (over.i < run.i + run.n && run.i < over.i + over.n))
		return;
	run.n = over.n;
	area_note(w, a, &over, "mremap over it");
	done = moved(w, mremap((void *)run.addr, run.n * PAGE, run.n * PAGE,
			       MREMAP_MAYMOVE | MREMAP_FIXED, (void *)over.addr));
	forget(a, &over);
	if (done)
		place(a, &run, over.addr);
	run_check(a, &run, "the CPU after mremap over others");
}

static void op_shrink(struct worker *w, struct area *a)
{
	struct run run, tail;

	if (!remap_run(w, a, &run, "mremap, shrink") || run.n < 2)
		return;
	tail.i = run.i + run.n / 2;
	tail.n = run.n - run.n / 2;
	tail.addr = run.addr + run.n / 2 * PAGE;
	if (moved(w, mremap((void *)run.addr, run.n * PAGE, run.n / 2 * PAGE, 0)))
		forget(a, &tail);
	run.n -= tail.n;
	run_check(a, &run, "the CPU after mremap, shrink");
}

static void op_grow(struct worker *w, struct area *a)
{
	struct run run, more;
	unsigned i;
	void *at;

	if (!remap_run(w, a, &run, "mremap, grow"))
		return;
	for (i = run.i + run.n; i < a->pages && !a->page[i].addr && i < run.i + 2 * run.n;)
		i++;
	more = (struct run){ .i = run.i + run.n, .n = i - run.i - run.n };
	if (!more.n)
		return;
	at = mremap((void *)run.addr, run.n * PAGE, (run.n + more.n) * PAGE,
		    MREMAP_MAYMOVE);
	if (!moved(w, at))
		return;
	place(a, &run, (uintptr_t)at);
	more.addr = (uintptr_t)at + run.n * PAGE;
	zero(a, &more);
	/* The new ones have the protection of the old. */
	for (unsigned k = 0; k < more.n; k++)
		a->page[more.i + k].read_only = a->page[run.i].read_only;
	area_note(w, a, &more, "mremap, grown");
	run_check(a, &run, "the CPU after mremap, grow");
	run_check(a, &more, "the CPU, grown");
}

/* What stays is mapped and empty. */
static void op_dontunmap(struct worker *w, struct area *a)
{
	static const uint64_t zeros[WORDS];
	struct run run;
	void *at;

	if (!remap_run(w, a, &run, "mremap(DONTUNMAP)"))
		return;
	at = mremap((void *)run.addr, run.n * PAGE, run.n * PAGE,
		    MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (!moved(w, at))
		return;
	place(a, &run, (uintptr_t)at);
	for (unsigned k = 0; k < run.n; k++)
		if (one_in(w, 2) && memcmp((void *)(run.addr + k * PAGE), zeros, PAGE))
			fail_page(a, run.i + k, (void *)(run.addr + k * PAGE),
				  "the CPU where mremap(DONTUNMAP) should have left zeros");
	if (munmap((void *)run.addr, run.n * PAGE))
		fail("munmap after mremap(DONTUNMAP): %m");
	run_check(a, &run, "the CPU after mremap(DONTUNMAP)");
}

/* ---- protection ---- */

static void op_read_only(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "mprotect, read-only");
	if (mprotect((void *)run.addr, run.n * PAGE, PROT_READ))
		fail("mprotect of area %u page %u: %m", a->id, run.i);
	for (unsigned k = 0; k < run.n; k++)
		a->page[run.i + k].read_only = true;
	if (one_in(w, 2))
		run_check(a, &run, "the CPU, read-only");
	/* Mostly back at once: each one costs two mappings. */
	if (!one_in(w, 4)) {
		area_note(w, a, &run, "mprotect, back");
		if (mprotect((void *)run.addr, run.n * PAGE, RW))
			fail("mprotect of area %u page %u: %m", a->id, run.i);
		for (unsigned k = 0; k < run.n; k++)
			a->page[run.i + k].read_only = false;
	}
}

static void op_none(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "mprotect, none and back");
	if (mprotect((void *)run.addr, run.n * PAGE, PROT_NONE) ||
	    mprotect((void *)run.addr, run.n * PAGE, RW))
		fail("mprotect of area %u page %u: %m", a->id, run.i);
	for (unsigned k = 0; k < run.n; k++)
		a->page[run.i + k].read_only = false;
	if (one_in(w, 2))
		run_check(a, &run, "the CPU after PROT_NONE");
}

/* ---- madvise ---- */

static void op_dontneed(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "DONTNEED");
	if (madvise((void *)run.addr, run.n * PAGE, MADV_DONTNEED))
		fail("DONTNEED of area %u page %u: %m", a->id, run.i);
	for (unsigned k = 0; k < run.n; k++) {
		struct page *p = &a->page[run.i + k];
		bool read_only = p->read_only;

		page_zero(p, p->addr);
		p->read_only = read_only;
		if (one_in(w, 2) && !read_only)
			page_write(a, run.i + k, 1u << pick(w, SECTIONS), (void *)p->addr);
	}
	if (one_in(w, 2))
		run_check(a, &run, "the CPU after DONTNEED");
}

static void op_free(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	run.n = run.n < 64 ? run.n : 64;
	area_note(w, a, &run, "FREE");
	/* Whichever an earlier one has made it is looked at first. */
	run_check(a, &run, "the CPU before FREE");
	if (madvise((void *)run.addr, run.n * PAGE, MADV_FREE))
		fail("FREE of area %u page %u: %m", a->id, run.i);
	for (unsigned k = 0; k < run.n; k++) {
		struct page *p = &a->page[run.i + k];

		p->maybe = 0;
		for (unsigned s = 0; s < SECTIONS; s++)
			if (p->stamp[s])
				p->maybe |= (uint8_t)(1u << s);
		p->settled = false;
	}
}

static void op_collapse(struct worker *w, struct area *a)
{
	struct run run;

	if (!a->huge || !area_run(w, a, &run))
		return;
	area_note(w, a, &run, "COLLAPSE or PAGEOUT");
	/* Refused where it is not one block, and so on: it is advice. */
	madvise((void *)run.addr, run.n * PAGE, one_in(w, 2) ? 25 : MADV_PAGEOUT);
	if (one_in(w, 4))
		run_check(a, &run, "the CPU after COLLAPSE");
}

/* DONTNEED begins and does not end: a page that leaves in between may not come back. */
static void op_duel(struct worker *w, struct area *a)
{
	struct world *world = w->world;
	uintptr_t nobody = 0;
	struct run run;

	if (!area_run(w, a, &run))
		return;
	run.n = run.n < 3 ? run.n : 3;
	area_note(w, a, &run, "duel");
	run_writable(w, a, &run);
	world->duel_pages = run.n;
	if (!atomic_compare_exchange_strong(&world->duel, &nobody, run.addr))
		return;
	for (unsigned round = 0; round < 30; round++) {
		int err = madvise((void *)run.addr, run.n * PAGE, MADV_DONTNEED);

		if (err)
			fail("DONTNEED of area %u page %u: %m", a->id, run.i);
		for (unsigned k = 0; k < run.n; k++)
			page_zero(&a->page[run.i + k], run.addr + k * PAGE);
		run_check(a, &run, "the CPU after DONTNEED in a duel");
		for (unsigned k = 0; k < run.n; k++)
			page_write(a, run.i + k, 1u << pick(w, SECTIONS),
				   (void *)a->page[run.i + k].addr);
		for (volatile unsigned i = pick(w, 50000); i; i--)
			;
	}
	run_check(a, &run, "the CPU after a duel");
	world->duel = 0;
}

const struct op ops_map[] = {
	{ "mmap", op_map, 40, true },
	{ "munmap", op_unmap, 12, true },
	{ "mmap-again", op_map_again, 15, true },
	{ "renew", op_renew, 6, true },
	{ "mmap-over", op_map_over, 12, true },
	{ "mremap-move", op_move, 12, true },
	{ "mremap-over", op_move_over, 8, true },
	{ "mremap-shrink", op_shrink, 6, true },
	{ "mremap-grow", op_grow, 8, true },
	{ "mremap-dontunmap", op_dontunmap, 8, true },
	{ "mprotect-read-only", op_read_only, 12, false },
	{ "mprotect-none", op_none, 6, false },
	{ "dontneed", op_dontneed, 30, false },
	{ "free", op_free, 15, false },
	{ "duel", op_duel, 6, false },
	{ "collapse", op_collapse, 4, false },
	{ NULL, NULL, 0, false },
};
