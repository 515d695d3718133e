/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * leave - out: from the address space into frames.
 *
 *	take: register MISSING, MOVING, MOVE to the buffer	(or straight into host frames)
 *	commit: the device has the bytes: AWAY
 *	return: the rest goes home, the buffer is discarded
 *
 * Each step goes on where it stopped (t->next) when a change was pending, after that
 * has been read.
 */
#include <errno.h>
#include <sys/mman.h>

#include "core/pager.h"

static bool coherent(const struct hmm_transfer *t)
{
	return is_coherent(t->devmem);
}

bool leave_can(const struct os_vma *vma)
{
	return !vma->shared && !vma->inode && vma->kind != OS_VMA_SPECIAL &&
	       vma->page_size == PAGE && vma->prot == (PROT_READ | PROT_WRITE);
}

/* One contiguous writable piece of private anonymous memory, as it is now. */
static int check_vma(struct hmm_transfer *t, struct os_vma *vma)
{
	struct hmm *hmm = t->hmm;

	if (hmm->os->vma_find(&hmm->reader_mm, t->start, vma) || vma->start > t->start ||
	    vma->end < t->end)
		return -ESTALE;
	return leave_can(vma) ? 0 : -ESTALE;
}

/*
 * A region that is registered with the context: MOVE asks that of its destination, and answers
 * EAGAIN then while a change of that context is pending. Not MISSING: a hole in it, touched
 * by mistake or by mlockall(), shall not wait for us.
 */
static int region_ready(struct hmm *hmm, unsigned ctx, _Atomic uintptr_t *region, size_t size)
{
	uintptr_t at;
	int err;

	if (*region)
		return 0;
	errno = 0;
	at = (uintptr_t)hmm->os->region_map(size);
	if (!at)
		return errno == EAGAIN ? -EAGAIN : -ENOMEM;
	err = hmm->os->ctx_register(&hmm->os_ctx[ctx], at, at + size);
	if (err)
		hmm->os->region_unmap((void *)at, size);
	else
		*region = at;
	return err;
}

static int buffers_ready(struct hmm_transfer *t)
{
	int err = pager_quiet(t->hmm);

	if (err || coherent(t))
		return err;
	if (t->devmem->options.host_frames)
		err = region_ready(t->hmm, t->ctx, &t->devmem->region[t->ctx],
				   frames_region(t->devmem));
	return err ? err : region_ready(t->hmm, t->ctx, &t->hmm->pager->stage[t->ctx],
					TRANSFERS * BLOCK);
}

/* Does it go straight into its frame? */
static bool at_frame(const struct hmm_transfer *t, const struct moving *page)
{
	return t->devmem->options.host_frames && page->frame != NO_FRAME;
}

static uintptr_t slot(const struct hmm_transfer *t, const struct moving *page)
{
	if (at_frame(t, page))
		return t->devmem->region[t->ctx] + page->frame * PAGE;
	return t->hmm->pager->stage[t->ctx] + t->index * BLOCK + (page->addr & (BLOCK - 1));
}

/* What must not leave now: away already, or its DONTNEED may not have zapped yet. */
static bool may_leave(struct hmm_transfer *t, struct moving *page)
{
	page->err = 0;
	if (page->kept)
		page->err = -EPERM;
	else if (books_get(t->hmm, page->addr))
		page->err = -EALREADY;
	else if (unsettled_has(t->hmm, page->addr))
		page->err = -EINPROGRESS;
	return !page->err;
}

/* From t->next on: pages in a row at both ends; their entries are written. */
static unsigned mark_row(struct hmm_transfer *t)
{
	unsigned n = 0;

	while (t->next + n < t->n) {
		struct moving *page = &t->page[t->next + n];

		if (n && (page->addr != page[-1].addr + PAGE ||
			  slot(t, page) != page[-1].host + PAGE))
			break;
		if (!may_leave(t, page))
			break;
		if (books_set(t->hmm, page->addr,
			      book_moving(t->ctx, t->index, t->next + n))) {
			page->err = -ENOMEM;
			break;
		}
		page->host = slot(t, page);
		page->is = PAGE_BUFFER;
		n++;
	}
	return n;
}

static void unmark(struct hmm_transfer *t, unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++) {
		books_erase(t->hmm, t->page[i].addr);
		t->page[i].is = PAGE_NONE;
	}
}

/* Of what was moved: what was never there, or is the zero page. */
static void find_holes(struct hmm_transfer *t, unsigned first, unsigned n)
{
	uintptr_t start = t->page[first].host, end = start + n * PAGE, at = start, next;
	struct os_run runs[32];

	for (unsigned i = first; i < first + n; i++)
		t->page[i].is = PAGE_HOLE;
	while (at < end) {
		int got = t->hmm->os->scan(&t->hmm->reader_mm, at, end, 0, runs, 32, &next);

		if (got < 0) /* then all of it counts as pages: a hole is copied as zeros */
			runs[0] = (struct os_run){ at, end, OS_PAGE_PRESENT }, got = 1, next = end;
		for (int r = 0; r < got; r++)
			for (uintptr_t p = runs[r].start; p < runs[r].end; p += PAGE)
				if ((runs[r].flags & (OS_PAGE_PRESENT | OS_PAGE_SWAPPED)) &&
				    !(runs[r].flags & OS_PAGE_ZERO))
					t->page[first + (p - start) / PAGE].is = PAGE_BUFFER;
		at = next;
	}
}

/*
 * Move a row of n into the buffer; as far as *moved. Where all of it is there, which is usual, no scan
 * is needed to know that. Who copies himself is told of the zero page too (hmm_migrate_setup).
 */
static int move_row(struct hmm_transfer *t, unsigned n, unsigned *moved)
{
	const struct os_ctx *ctx = &t->hmm->os_ctx[t->ctx];
	const struct moving *page = &t->page[t->next];
	const struct os_ops *os = t->hmm->os;
	size_t present = 0, done = 0;
	int err = -ENODATA;

	if (!t->steps)
		err = os->ctx_move_present(ctx, page->host, page->addr, n * PAGE, &present);
	if (err == -ENODATA)
		err = os->ctx_move(ctx, page->host + present, page->addr + present,
				   n * PAGE - present, &done);
	if (done)
		find_holes(t, t->next + (unsigned)(present / PAGE), (unsigned)(done / PAGE));
	*moved = (unsigned)((present + done) / PAGE);
	return err;
}

/* One row. 0 go on; -EAGAIN. */
static int take_row(struct hmm_transfer *t)
{
	unsigned n = mark_row(t), moved;
	struct hmm *hmm = t->hmm;
	int err;

	if (!n) {
		t->next++; /* page->err says why */
		return 0;
	}
	err = move_row(t, n, &moved);
	if (moved)
		doubts_end(hmm, t->ctx, t->page[t->next].addr,
			   t->page[t->next + moved - 1].addr + PAGE);
	/* Something touched the buffer: it goes, and the next try finds it empty. */
	if (err == -EEXIST && !trash(hmm, t->page[t->next].host + moved * PAGE, PAGE))
		err = -EAGAIN;
	t->staged |= moved && !at_frame(t, &t->page[t->next]);
	unmark(t, t->next + moved, n - moved);
	t->next += moved;
	if (err == -EAGAIN)
		return err;
	if (err)
		t->page[t->next++].err = err;
	return 0;
}

/* The device owns what stays where it is. */
static void take_coherent(struct hmm_transfer *t)
{
	for (; t->next < t->n; t->next++)
		if (may_leave(t, &t->page[t->next]))
			t->page[t->next].is = PAGE_BUFFER;
}

static int take_prepare(struct hmm_transfer *t)
{
	struct hmm *hmm = t->hmm;
	struct os_vma vma;
	int err = check_vma(t, &vma);

	if (!err && hmm->forking)
		err = -EBUSY;
	/* Registered MISSING now, the mapping would look like the one that was there before. */
	if (!err && judging(hmm, vma.start, vma.end))
		err = -EAGAIN;
	if (!err)
		err = missing_register(hmm, t->ctx, vma.start, vma.end);
	/* It is one VMA. A change that nobody told (docs/limits.md) shows here; */
	if (!err && !belongs(hmm, t->ctx, t->start)) {
		missing_forget(hmm, t->ctx, vma.start, vma.end);
		err = -ESTALE;
	}
	/* or here, if the mirror has registered what came there, between the list and the token. */
	if (!err && missing_outdated(hmm, t->ctx, vma.start, vma.end))
		err = -EAGAIN;
	return err ? err : buffers_ready(t);
}

int leave_take(struct hmm_transfer *t)
{
	int err = take_prepare(t);

	if (err == -EAGAIN) {
		pager_again(t->hmm);
		return err;
	}
	/* What was taken before it changed is taken. */
	if (err)
		return t->next ? 0 : err;
	if (coherent(t))
		take_coherent(t);
	while (t->next < t->n)
		if (take_row(t)) {
			pager_again(t->hmm);
			return -EAGAIN;
		}
	return 0;
}

/* The entry publishes the frame: who finds it there sees the rest. */
static void own(struct hmm_transfer *t, struct moving *page, uint32_t now_us)
{
	struct hmm_devmem *devmem = t->devmem;
	struct frame *frame = &devmem->frame[page->frame];
	enum book_state state = coherent(t) ? BOOK_COHERENT : BOOK_AWAY;

	atomic_store_explicit(&frame->ctx, (uint8_t)t->ctx, memory_order_relaxed);
	atomic_store_explicit(&frame->locked, t->exclusive, memory_order_relaxed);
	atomic_store_explicit(&frame->addr, page->addr, memory_order_relaxed);
	frame->since = now_us;
	if (books_set(t->hmm, page->addr,
		      book_away(state, t->ctx, devmem->id, page->frame)))
		return; /* coherent, and no memory: the page stays the program's alone */
	page->is = PAGE_GONE;
}

/* Without a page in it a host frame would fault under the device. A row at once. */
static int fill_holes(struct hmm_transfer *t, unsigned first)
{
	const struct moving *page = &t->page[first];
	unsigned n = 1;
	size_t done = 0;
	int err;

	while (first + n < t->n && page[n].is == PAGE_HOLE &&
	       page[n].host == page->host + n * PAGE)
		n++;
	err = t->hmm->os->ctx_zero(&t->hmm->os_ctx[t->ctx], page->host, n * PAGE, &done);
	for (unsigned i = 0; i < done / PAGE; i++)
		t->page[first + i].is = PAGE_BUFFER; /* of zeros */
	return done || err == -EEXIST ? 0 : err;
}

/* Three steps with host frames: the page goes from the buffer into the frame it was given. */
static int into_frame(struct hmm_transfer *t, struct moving *page)
{
	uintptr_t to = t->devmem->region[t->ctx] + page->frame * PAGE;
	size_t done;
	int err;

	if (page->host == to)
		return 0;
	err = t->hmm->os->ctx_move(&t->hmm->os_ctx[t->ctx], to, page->host, PAGE, &done);
	if (!err)
		page->host = to;
	return err;
}

/* A thread may have been made meanwhile, in memory that was on its way: back with that. */
static void keep_threads(struct hmm_transfer *t)
{
	uint64_t pages[BLOCK_PAGES / 64];
	struct hmm *hmm = t->hmm;

	if (coherent(t))
		return;
	hmm->os->thread_pages(&hmm->reader_mm, t->start, t->end, pages);
	for (unsigned i = 0; i < t->n; i++) {
		uintptr_t addr = t->page[i].addr;
		bool moved = addr < t->start || addr >= t->end; /* by an mremap */

		if (moved ? hmm->os->thread_pages(&hmm->reader_mm, addr, addr + PAGE, NULL)
			  : os_has_page(pages, (addr - t->start) / PAGE))
			t->page[i].err = -EBUSY;
	}
}

/* Page t->next. 0: dealt with, *owned counts what is the device's now; -EAGAIN. */
static int commit_next(struct hmm_transfer *t, uint32_t now_us, unsigned *owned)
{
	struct moving *page = &t->page[t->next];
	int err = 0;

	if (page->is != PAGE_BUFFER && page->is != PAGE_HOLE)
		return 0;
	if (!transfer_placed(t, t->next))
		return -EAGAIN;
	if (page->frame == NO_FRAME || page->err) {
		atomic_fetch_add(&t->devmem->count.failed, page->err != 0);
		return 0;
	}
	if (t->devmem->options.host_frames) {
		err = into_frame(t, page);
		if (!err && page->is == PAGE_HOLE)
			err = fill_holes(t, t->next);
	}
	if (err == -EAGAIN)
		return err;
	page->err = err;
	if (!err)
		own(t, page, now_us);
	*owned += page->is == PAGE_GONE;
	return 0;
}

int leave_commit(struct hmm_transfer *t)
{
	uint32_t now_us = (uint32_t)(t->hmm->os->now() / 1000);
	unsigned owned = 0;
	int err = 0;

	if (!t->next)
		keep_threads(t);
	while (!err && t->next < t->n) {
		err = commit_next(t, now_us, &owned);
		t->next += !err;
	}
	if (err)
		pager_again(t->hmm);
	atomic_fetch_add(&t->devmem->count.to_device, owned);
	return err;
}

/* A page that the program gave up while it was on its way. */
static int bury(struct hmm_transfer *t, struct moving *page)
{
	/* A child whose FORK is not read yet may want it. */
	if (page->unmapped && t->hmm->os->ctx_probe(&t->hmm->os_ctx[t->ctx]))
		return -EAGAIN;
	if (t->devmem->options.host_frames && page->frame != NO_FRAME && trash(t->hmm, page->host, PAGE))
		return -EAGAIN;
	page->is = PAGE_NONE;
	return 0;
}

/* Its host frame is nobody's before what lies in it has been discarded. */
static void leave_behind(struct hmm_transfer *t, struct moving *page)
{
	struct limbo_entry entry = { .devmem = t->devmem, .frame = page->frame,
				     .addr = page->addr, .ctx = t->ctx, .host = true };

	if (!t->devmem->options.host_frames || page->frame == NO_FRAME ||
	    page->host != t->devmem->region[t->ctx] + page->frame * PAGE)
		return;
	t->devmem->frame[page->frame].ctx = (uint8_t)t->ctx;
	limbo_add(t->hmm, &entry);
	page->frame = NO_FRAME;
}

static unsigned placed_row(const struct hmm_transfer *t)
{
	unsigned n = 1;

	while (t->next + n < t->n && t->page[t->next + n].is == PAGE_BUFFER &&
	       transfer_placed(t, t->next + n))
		n++;
	return n;
}

static int return_next(struct hmm_transfer *t)
{
	struct moving *page = &t->page[t->next];
	struct hmm *hmm = t->hmm;
	unsigned n = 1;
	int err = 0;

	if ((page->is == PAGE_BUFFER || page->is == PAGE_HOLE) && !transfer_placed(t, t->next))
		return -EAGAIN;
	switch (page->is) {
	case PAGE_DROPPED:
		err = bury(t, page);
		break;
	case PAGE_BUFFER:
		err = coherent(t) ? 0 : arrive_put(hmm, t->ctx, page, placed_row(t), &n);
		if (err == -EAGAIN)
			return err;
		if (!coherent(t)) /* nothing was put there, and nobody woken */
			parked_forget(hmm, t->ctx, page->addr, page->addr + n * PAGE);
		if (err) /* no such place any more, or a guard page on it */
			hmm->os->ctx_wake(&hmm->os_ctx[t->ctx], page->addr, PAGE);
		if (err || page->left)
			leave_behind(t, page);
		if (!coherent(t))
			unmark(t, t->next, n);
		err = 0;
		break;
	case PAGE_HOLE:
		unmark(t, t->next, 1);
		break;
	case PAGE_NONE:
	case PAGE_GONE:
		break;
	}
	if (!err)
		t->next += n;
	return err;
}

int leave_return(struct hmm_transfer *t)
{
	struct hmm *hmm = t->hmm;

	while (t->next < t->n)
		if (return_next(t)) {
			pager_again(hmm);
			return -EAGAIN;
		}
	transfer_unpublish(t);
	return 0;
}

void leave_sweep(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < TRANSFERS; i++) {
		struct hmm_transfer *t = &pager->transfer[i];

		if (t->state != TRANSFER_DIRTY)
			continue;
		if (!trash(hmm, pager->stage[t->ctx] + i * BLOCK, BLOCK))
			transfer_clean(t);
		else
			pager_again(hmm);
	}
}
