/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * arrive - home: from frames into the address space.
 *
 *	MOVING; homing log; to_host (stops the device, copies); MOVE; erase
 *
 * The driver's lock, which to_host takes, comes after both: a look that began before the log
 * is found out by read_retry under that lock, one that began after it finds MOVING.
 */
#include <errno.h>
#include <sys/mman.h>

#include "core/pager.h"

static struct range_log homings(struct pager *pager)
{
	return (struct range_log){ pager->homing, HOMING_LOG, &pager->homing_seq };
}

void homing_log(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	const struct range_log log = homings(hmm->pager);

	range_log_add(&log, start, end);
}

bool homing_changed(const struct hmm *hmm, uint64_t since, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;
	struct range_log log;

	if (!pager)
		return false;
	log = homings(pager);
	return range_log_since(&log, since, start, end);
}

static bool is_host(const struct hmm_devmem *devmem)
{
	return devmem->options.host_frames;
}

/* Does the driver copy nothing? */
static bool ends_at_once(const struct hmm_devmem *devmem)
{
	return is_host(devmem) || is_coherent(devmem) || devmem->lost;
}

/* Pages that the driver copies to are there before. */
static int make_fresh(struct hmm_transfer *t)
{
	uintptr_t start;
	int err = fresh_take(t, t->n, &start);

	for (unsigned i = 0; i < t->n; i++)
		t->page[i].host = start + i * PAGE;
	return err;
}

/* Which pages go: of one devmem and one context, the first one's. */
static bool may_come(struct hmm_transfer *t, uint64_t entry)
{
	enum book_state state = book_state(entry);
	struct hmm_devmem *devmem;

	if (state != BOOK_AWAY && state != BOOK_COHERENT)
		return false;
	devmem = t->hmm->pager->devmem[book_devmem(entry)];
	if (!t->devmem) {
		t->devmem = devmem;
		t->ctx = book_ctx(entry);
	}
	if (devmem != t->devmem || book_ctx(entry) != t->ctx)
		return false;
	return !devmem->frame[book_frame(entry)].locked;
}

static void collect(struct hmm_transfer *t, uintptr_t start, uintptr_t end)
{
	uint64_t entry;

	for (uintptr_t at = start; books_next(t->hmm, &at, end, &entry); at += PAGE) {
		struct moving *page = &t->page[t->n];

		if (!may_come(t, entry))
			continue;
		*page = (struct moving){ .addr = at, .frame = book_frame(entry),
					 .is = PAGE_BUFFER };
		if (is_host(t->devmem))
			page->host = frame_host(t->devmem, page->frame);
		t->n++;
	}
}

static void over(struct hmm_transfer *t)
{
	fresh_over(t);
	transfer_free(t);
}

static int come(struct hmm_transfer *t, enum transfer_why why)
{
	struct hmm_devmem *devmem = t->devmem;
	int err = ends_at_once(devmem) ? 0 : make_fresh(t);

	if (err)
		return err;
	t->why = why;
	t->next = 0;
	/* The books first: a look that begins after the log must not find AWAY any more. */
	for (unsigned i = 0; i < t->n; i++)
		books_set(t->hmm, t->page[i].addr, book_moving(t->ctx, t->index, i));
	homing_log(t->hmm, t->page[0].addr, t->page[t->n - 1].addr + PAGE);
	transfer_start(t);
	return (int)t->n;
}

/* What ends at once may have the last slot. */
static bool is_fair(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	const struct hmm_devmem *devmem;
	uint64_t entry;

	for (uintptr_t at = start; books_next(hmm, &at, end, &entry); at += PAGE) {
		if (book_state(entry) == BOOK_MOVING)
			continue;
		devmem = hmm->pager->devmem[book_devmem(entry)];
		return ends_at_once(devmem) || transfers_fair(devmem, false);
	}
	return true;
}

int arrive_begin(struct hmm *hmm, uintptr_t start, uintptr_t end, enum transfer_why why)
{
	struct hmm_transfer *t = is_fair(hmm, start, end) ? transfer_claim(hmm) : NULL;
	int n = 0;

	if (!t)
		return -EAGAIN;
	collect(t, start, end);
	if (t->n)
		n = come(t, why);
	if (n <= 0)
		over(t);
	return n;
}

/* How many pages from `page` on lie in a row, at both ends. */
static unsigned in_a_row(const struct moving *page, unsigned pages)
{
	unsigned n = 1;

	while (n < pages && page[n].is == page->is && page[n].addr == page->addr + n * PAGE &&
	       page[n].host == page->host + n * PAGE)
		n++;
	return n;
}

bool belongs(struct hmm *hmm, unsigned ctx, uintptr_t page)
{
	return vmas_has_token(hmm, &hmm->reader_mm, page) &&
	       !hmm->os->ctx_register(&hmm->os_ctx[ctx], page, page + PAGE);
}

static int no_place(struct hmm *hmm, unsigned ctx)
{
	return hmm->os->ctx_probe(&hmm->os_ctx[ctx]) ? -EAGAIN : -ENOENT;
}

/*
 * COPY goes where MOVE refuses: a mapping that became read-only, or whose permission or lock differ,
 * a page of the buffer that somebody pins. But it does not look whose the mapping is. Where it
 * refuses as well, the mapping may be another one of our context, which came without a message.
 */
static int put_copy(struct hmm *hmm, unsigned ctx, struct moving *page, size_t *bytes)
{
	int err;

	if (!belongs(hmm, ctx, page->addr))
		return no_place(hmm, ctx);
	err = hmm->os->ctx_copy(&hmm->os_ctx[ctx], page->addr, page->host, PAGE, bytes);
	if (err == -EINVAL && dropped_replaced(hmm, ctx, page->addr))
		return no_place(hmm, ctx);
	page->left = !err && trash(hmm, page->host, PAGE);
	return err;
}

/* ENOENT: the place is gone. EEXIST: a guard page was put there, which drops what was
 * below. What we do not know keeps the bytes, and is tried again. */
int arrive_put(struct hmm *hmm, unsigned ctx, struct moving *page, unsigned pages,
	       unsigned *done)
{
	const struct os_ops *os = hmm->os;
	unsigned n = in_a_row(page, pages);
	size_t bytes = 0;
	int err = os->ctx_move(&hmm->os_ctx[ctx], page->addr, page->host, n * PAGE, &bytes);

	if ((err == -EINVAL || err == -EBUSY) && !bytes)
		err = put_copy(hmm, ctx, page, &bytes);
	/* What succeeds does so while nothing is pending; that there is no such place may be said of a
	 * change that has begun: the kernel looks for the mapping first. */
	if (err == -ENOENT && !bytes)
		err = no_place(hmm, ctx);
	*done = bytes ? (unsigned)(bytes / PAGE) : 1;
	if (bytes || err == -ENOENT || err == -EEXIST)
		return bytes ? 0 : err;
	return err ? -EAGAIN : 0;
}

/* Its frame is nobody's as soon as its page has left it. */
static bool is_free(const struct hmm_transfer *t, const struct moving *page)
{
	return page->is == PAGE_BUFFER && !page->left && !t->devmem->frame[page->frame].held;
}

/* The frame's page has left it, or was dropped; `page` stays in a host frame in that case. */
static void let_go(struct hmm_transfer *t, struct moving *page)
{
	struct hmm_devmem *devmem = t->devmem;
	bool dropped = page->is == PAGE_DROPPED;
	struct limbo_entry entry = { .devmem = devmem, .frame = page->frame,
				     .number = page->number, .queue = page->queue, .addr = page->addr, .ctx = t->ctx,
				     .host = (dropped || page->left) && is_host(devmem),
				     .unmapped = dropped && page->unmapped };

	if (is_free(t, page))
		frames_give(devmem, page->frame, 1);
	else
		limbo_add(t->hmm, &entry);
	page->is = PAGE_NONE;
}

/* Frames in a row at once. How many pages that was. */
static unsigned let_row_go(struct hmm_transfer *t, struct moving *page, unsigned pages)
{
	unsigned n = 0;

	while (n < pages && page[n].frame == page->frame + n && is_free(t, &page[n]))
		page[n++].is = PAGE_NONE;
	if (n)
		frames_give(t->devmem, page->frame, n);
	else
		let_go(t, page);
	return n ? n : 1;
}

/* n pages in a row. */
static void arrived(struct hmm_transfer *t, unsigned first, unsigned n)
{
	books_erase_row(t->hmm, t->page[first].addr, n);
	for (unsigned i = 0; i < n;)
		i += let_row_go(t, &t->page[first + i], n - i);
	if (t->why == WHY_FAULT)
		atomic_fetch_add(&t->devmem->count.cpu_fault_pages, n);
	else
		atomic_fetch_add(&t->devmem->count.to_host, n);
}

/* Touching it is SIGBUS: it never reads as zeros. */
static int poison(struct hmm_transfer *t, struct moving *page)
{
	size_t done = 0;
	int err = -ENOENT;

	if (belongs(t->hmm, t->ctx, page->addr))
		err = t->hmm->os->ctx_poison(&t->hmm->os_ctx[t->ctx], page->addr, PAGE, &done);
	if (err == -ENOENT)
		err = no_place(t->hmm, t->ctx);
	if (err == -EAGAIN || err == -ENOMEM)
		return -EAGAIN;
	atomic_fetch_add(&t->devmem->count.lost, 1);
	atomic_fetch_add(&t->hmm->pager->lost, 1);
	t->hmm->os->ctx_wake(&t->hmm->os_ctx[t->ctx], page->addr, PAGE);
	return 0;
}

/* Where nothing was copied the page is here, whatever the driver says. */
static bool failed(const struct hmm_transfer *t, unsigned i)
{
	return t->page[i].err && !is_host(t->devmem) && !is_coherent(t->devmem);
}

/* One page, or several in a row, at t->next. */
static int put_next(struct hmm_transfer *t)
{
	struct moving *page = &t->page[t->next];
	struct hmm *hmm = t->hmm;
	unsigned n = 1;
	int err = 0;

	if (page->is == PAGE_NONE) {
		t->next++;
		return 0;
	}
	if (page->is == PAGE_DROPPED) {
		let_go(t, page);
		t->next++;
		return 0;
	}
	if (!transfer_placed(t, t->next))
		return -EAGAIN;
	if (failed(t, t->next)) {
		err = poison(t, page);
	} else if (!is_coherent(t->devmem)) {
		unsigned row = 1;

		while (t->next + row < t->n && !failed(t, t->next + row) &&
		       t->page[t->next + row].is == PAGE_BUFFER &&
		       transfer_placed(t, t->next + row))
			row++;
		err = arrive_put(hmm, t->ctx, page, row, &n);
	}
	if (err == -EAGAIN || err == -ENOMEM)
		return -EAGAIN;
	if (!is_coherent(t->devmem))
		parked_forget(hmm, t->ctx, page->addr, page->addr + n * PAGE);
	if (err) { /* there is no such place any more, or a guard page */
		page->is = PAGE_DROPPED;
		page->number = 0;
		books_erase(hmm, page->addr);
		atomic_fetch_add(&t->devmem->count.dropped, 1);
		hmm->os->ctx_wake(&hmm->os_ctx[t->ctx], page->addr, PAGE);
		return 0;
	}
	arrived(t, t->next, n);
	t->next += n;
	return 0;
}

int arrive_finish(struct hmm_transfer *t)
{
	while (t->next < t->n)
		if (put_next(t)) {
			pager_again(t->hmm);
			return -EAGAIN;
		}
	over(t);
	return 0;
}
