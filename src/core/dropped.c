/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dropped - events and pages that are not at home.
 *
 * REMOVE takes the entries at once: the page is given up, whatever comes after.
 *
 * UNMAP does not say that the mapping is gone (the call may have failed), and REMAP may be read
 * after the end of what it made, or before the next move of it. So both only put the
 * range on the list of what is to be judged; REMAP first brings the entries to where the pages
 * belong now, if they belong anywhere.
 *
 * Judging: look whose the mapping is, then ask whether a change of the context is pending. If not,
 * nothing has happened since the look that we have not read: the verdict is true. Else
 * it is asked again. Until there is one nothing is moved there or taken from there, and no look
 * of a device is answered (judging()).
 *
 * The mapping is the one that the entries are of if it is registered with their context, MISSING
 * (smaps), and not by a REGISTER of ours that may have hit its successor (doubts_none_at).
 */
#include <errno.h>

#include "core/pager.h"

/* An event that devices have heard of when its queue is `done` so far. */
struct event_id {
	unsigned queue;
	uint64_t number;
};

/* The page at `addr` is the program's no more: entry away, bytes to limbo. */
static void drop(struct hmm *hmm, uintptr_t addr, uint64_t entry, struct event_id id,
		 bool unmapped)
{
	struct pager *pager = hmm->pager;
	struct hmm_devmem *devmem;
	struct hmm_transfer *t;

	if (books_get(hmm, addr) == entry) /* it may have been aside */
		books_erase(hmm, addr);
	if (book_state(entry) == BOOK_MOVING) {
		t = &pager->transfer[book_transfer(entry)];
		t->page[book_index(entry)].is = PAGE_DROPPED;
		t->page[book_index(entry)].number = id.number;
		t->page[book_index(entry)].queue = id.queue;
		t->page[book_index(entry)].unmapped = unmapped;
		devmem = t->devmem;
	} else {
		devmem = pager->devmem[book_devmem(entry)];
		limbo_add(hmm, &(struct limbo_entry){
			.devmem = devmem, .frame = book_frame(entry), .number = id.number,
			.queue = id.queue, .addr = addr, .ctx = book_ctx(entry), .unmapped = unmapped,
			.host = devmem->options.host_frames && book_state(entry) == BOOK_AWAY });
	}
	atomic_fetch_add(&devmem->count.dropped, 1);
}

void dropped_remove(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
		    uint64_t number)
{
	uint64_t entry;

	unsettled_add(hmm, start, end);
	for (uintptr_t at = start; books_next(hmm, &at, end, &entry); at += PAGE)
		if (book_ctx(entry) == ctx)
			drop(hmm, at, entry, (struct event_id){ ctx, number }, false);
}

/*
 * Is a raw clone under way, whose FORK may be read after what is read now although it came before?
 * From when it copies the address space until its last message is read the sentinel is busy,
 * and no storm touches that one.
 */
static bool cloning(struct hmm *hmm)
{
	return !hmm->sentinel || hmm->os->ctx_probe(&hmm->os_ctx[CONTEXTS]) == -EAGAIN;
}

/* ---- the list ---- */

static void judge_add(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
		      uint64_t number, bool unmap)
{
	struct pager *pager = hmm->pager;
	uintptr_t at = start;
	uint64_t entry;

	if (!books_next(hmm, &at, end, &entry))
		return;
	for (unsigned i = 0; i < JUDGE; i++) {
		struct to_judge *j = &pager->judge[i];
		bool last = i == JUDGE - 1;

		/* The last one takes all that finds no room. */
		if (j->end && !last)
			continue;
		j->start = j->end && j->start < start ? j->start : start;
		j->ctx = j->end && j->ctx != ctx ? CONTEXTS : ctx;
		j->queue = ctx;
		j->number = number;
		j->cloning = cloning(hmm);
		j->unmap = unmap || (j->end && j->unmap);
		j->end = j->end > end ? j->end : end;
		atomic_fetch_add(&pager->judging, 1);
		return;
	}
}

bool judging(const struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	const struct pager *pager = hmm->pager;

	if (!pager || !pager->judging)
		return false;
	for (unsigned i = 0; i < JUDGE; i++)
		if (pager->judge[i].end > start && pager->judge[i].start < end)
			return true;
	return false;
}

/* Has an UNMAP of it been read, and may be true? */
static bool was_unmapped(const struct hmm *hmm, uintptr_t page)
{
	const struct pager *pager = hmm->pager;

	for (unsigned i = 0; pager->judging && i < JUDGE; i++) {
		const struct to_judge *j = &pager->judge[i];

		if (j->unmap && j->start <= page && page < j->end)
			return true;
	}
	return false;
}

/* Until where a verdict holds. */
struct verdict {
	uintptr_t end;
	bool alive;
};

static struct verdict look_at(struct hmm *hmm, unsigned ctx, uintptr_t page)
{
	struct verdict v = { .end = page + PAGE };
	struct os_vma vma;
	unsigned flags = 0;
	int err;

	err = hmm->os->vma_find_fast(&hmm->reader_mm, page, &vma);
	if (err && err != -ENOENT) { /* it cannot be told: nothing is given up */
		v.alive = true;
		return v;
	}
	if (err || vma.start > page)
		return v;
	v.end = vma.end;
	if (!belongs(hmm, ctx, page) || !doubts_none_at(hmm, ctx, page))
		return v;
	err = hmm->os->vma_flags(page, &flags);
	/* As above. */
	v.alive = err == -EIO || (!err && (flags & OS_VMA_MISSING));
	return v;
}

bool dropped_replaced(struct hmm *hmm, unsigned ctx, uintptr_t page)
{
	return !look_at(hmm, ctx, page).alive;
}

/* One verdict, and what follows from it. -EAGAIN: a change is pending, it may not be true. */
static int judge_piece(struct hmm *hmm, const struct to_judge *j, uintptr_t *at)
{
	uint64_t entry = books_get(hmm, *at);
	unsigned ctx = book_ctx(entry);
	struct verdict v = look_at(hmm, ctx, *at);
	uintptr_t end = v.end < j->end ? v.end : j->end;

	if (hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
		return -EAGAIN;
	for (; books_next(hmm, at, end, &entry); *at += PAGE)
		if (!v.alive && book_ctx(entry) == ctx)
			drop(hmm, *at, entry, (struct event_id){ j->queue, j->number },
			     j->cloning);
		else if (book_ctx(entry) != ctx)
			break; /* another one's: a verdict of its own */
	return 0;
}

static int judge_one(struct hmm *hmm, struct to_judge *j)
{
	uintptr_t at = j->start;
	uint64_t entry;

	while (books_next(hmm, &at, j->end, &entry)) {
		if (j->ctx != CONTEXTS && book_ctx(entry) != j->ctx)
			at += PAGE;
		else if (judge_piece(hmm, j, &at))
			return -EAGAIN;
	}
	return 0;
}

static void drop_aside(struct hmm *hmm);

void judge_all(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	unsigned left = 0;

	if (pager->aside_n)
		drop_aside(hmm);
	aside_settle(hmm);
	if (pager->moved_n && !cloning(hmm))
		pager->moved_n = 0;
	if (!pager->judging)
		return;
	for (unsigned i = 0; i < JUDGE; i++) {
		struct to_judge *j = &pager->judge[i];

		if (!j->end)
			continue;
		if (!judge_one(hmm, j))
			j->end = 0;
		else
			left++;
	}
	pager->judging = left;
	if (left)
		pager_again(hmm);
}

/* ---- UNMAP, REMAP ---- */

void dropped_unmap(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
		   uint64_t number)
{
	doubts_accuse(hmm, ctx, start, end);
	judge_add(hmm, ctx, start, end, number, true);
}

static void rekey(struct hmm *hmm, uintptr_t from, uintptr_t to, uint64_t entry,
		  uint64_t number)
{
	struct pager *pager = hmm->pager;

	/* Without memory for it the page has no place: it is as good as unmapped. */
	if (books_set(hmm, to, entry)) {
		drop(hmm, from, entry, (struct event_id){ book_ctx(entry), number }, true);
		return;
	}
	if (books_get(hmm, from) == entry)
		books_erase(hmm, from);
	if (book_state(entry) == BOOK_MOVING)
		pager->transfer[book_transfer(entry)].page[book_index(entry)].addr = to;
	else
		pager->devmem[book_devmem(entry)]->frame[book_frame(entry)].addr = to;
}

static void move_unsettled(struct hmm *hmm, const struct os_msg *msg)
{
	struct pager *pager = hmm->pager;
	unsigned n = pager->unsettled_n;

	for (unsigned i = 0; i < n && i < pager->unsettled_n; i++) {
		const struct unsettled one = pager->unsettled[i];
		uintptr_t start = one.start > msg->start ? one.start : msg->start;
		uintptr_t end = one.end < msg->end ? one.end : msg->end;

		if (start < end)
			unsettled_add(hmm, start - msg->start + msg->to,
				      end - msg->start + msg->to);
	}
}

/*
 * What is at the destination. Its UNMAP was read before: it went with the move, and so did another context's.
 * (But what another context has there may have come after what was moved had gone on.) No UNMAP:
 * it has moved on itself, and that REMAP is not read yet: kept aside for it.
 */
static void clear_destination(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
			      uint64_t number)
{
	uint64_t entry;

	for (uintptr_t at = start; books_next(hmm, &at, end, &entry); at += PAGE) {
		if (book_ctx(entry) != ctx && belongs(hmm, book_ctx(entry), at))
			continue;
		if (!was_unmapped(hmm, at) &&
		    hmm->os->ctx_probe(&hmm->os_ctx[book_ctx(entry)]) &&
		    aside_put(hmm, at, entry)) {
			aside_newcomer(hmm, ctx, start, end, true);
			books_erase(hmm, at);
		} else {
			drop(hmm, at, entry, (struct event_id){ ctx, number }, true);
		}
	}
}

/* All has been read: what is aside still has gone without a trace. */
static void drop_aside(struct hmm *hmm)
{
	uint64_t entry;

	for (uintptr_t at = 0; aside_take_gone(hmm, &at, &entry); at += PAGE) {
		unsigned ctx = book_ctx(entry);

		drop(hmm, at, entry, (struct event_id){ ctx, hmm->gate[ctx].queue.pushed }, true);
	}
	if (hmm->pager->aside_n)
		pager_again(hmm);
}

/* A child that was made before has the pages where they were. */
static void note_moved(struct hmm *hmm, unsigned ctx, const struct os_msg *msg)
{
	struct pager *pager = hmm->pager;

	if (hmm->sentinel && cloning(hmm))
		pager->moved[pager->moved_n++ % MOVED] =
			(struct moved){ .ctx = ctx, .start = msg->start, .end = msg->end,
					.to = msg->to };
}

/*
 * To where it has been moved. If something else has an entry there, which clear_destination() has left, it
 * has moved on from there as well.
 */
static void place(struct hmm *hmm, uintptr_t from, uintptr_t to, uint64_t entry, uint64_t number)
{
	if (!books_get(hmm, to))
		rekey(hmm, from, to, entry, number);
	else if (!aside_put(hmm, to, entry))
		drop(hmm, from, entry, (struct event_id){ book_ctx(entry), number }, true);
	else if (books_get(hmm, from) == entry)
		books_erase(hmm, from);
}

static bool is_populated(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct os_run run;
	uintptr_t next;

	return hmm->os->scan(&hmm->reader_mm, start, end, OS_SCAN_POPULATED, &run, 1, &next) > 0;
}

/* Is what came lately to an entry's place there still? (Or what has come after it.) A verdict holds for a mapping. */
static bool is_there(struct hmm *hmm, unsigned ctx, uintptr_t at, struct verdict *v)
{
	if (!aside_over(hmm->pager, ctx, at))
		return false;
	if (at >= v->end)
		*v = look_at(hmm, ctx, at);
	return v->alive;
}

#define LOOKS 64u

/*
 * Has a REMAP from where something has come lately been read late: is it of what was there before? Its
 * entries are aside; or it has none, and takes a page along to where a page of the newcomer's is away, which
 * is a hole wherever that is. That something is there proves nothing: it can have come after the newcomer
 * has gone on, or be what MREMAP_DONTUNMAP leaves.
 */
static bool is_late(struct hmm *hmm, unsigned ctx, const struct os_msg *msg)
{
	bool late = aside_has(hmm, ctx, msg->start, msg->end), any = false;
	struct verdict v = { 0 };
	unsigned looks = 0;
	uint64_t entry;

	if (!hmm->pager->newcomers)
		return false; /* without a walk through all that is moved */
	for (uintptr_t at = msg->start; looks < LOOKS && books_next(hmm, &at, msg->end, &entry);
	     at += PAGE) {
		uintptr_t to = at - msg->start + msg->to;

		if (book_ctx(entry) != ctx || !is_there(hmm, ctx, at, &v))
			continue;
		if (is_populated(hmm, at, at + PAGE))
			return false;
		any = true;
		late |= is_populated(hmm, to, to + PAGE);
		looks++;
	}
	return any && late;
}

void dropped_remap(struct hmm *hmm, unsigned ctx, const struct os_msg *msg, uint64_t number)
{
	uintptr_t to_end = msg->to + (msg->end - msg->start);
	bool late = is_late(hmm, ctx, msg), own = false, placed = false;
	struct verdict v = { 0 };
	uint64_t entry;

	clear_destination(hmm, ctx, msg->to, to_end, number);
	if (!late)
		doubts_accuse(hmm, ctx, msg->start, msg->end);
	doubts_excuse(hmm, ctx, msg->to, to_end);
	note_moved(hmm, ctx, msg);
	move_unsettled(hmm, msg);
	for (uintptr_t at = msg->start; books_next(hmm, &at, msg->end, &entry); at += PAGE) {
		if (book_ctx(entry) != ctx || (late && is_there(hmm, ctx, at, &v)))
			continue;
		own |= !late && aside_displaced(hmm->pager, at);
		placed = true;
		place(hmm, at, at - msg->start + msg->to, entry, number);
	}
	/* What is aside is of this one, unless this was the newcomer's own. */
	for (uintptr_t at = msg->start; !own && aside_take(hmm, ctx, &at, msg->end, &entry);
	     at += PAGE) {
		placed = true;
		place(hmm, at, at - msg->start + msg->to, entry, number);
	}
	if (placed)
		aside_newcomer(hmm, ctx, msg->to, to_end, false);
	judge_add(hmm, ctx, msg->to, to_end, number, false);
}

/* They are of something that left without a message (docs/limits.md); if nothing is pending that would
 * tell. */
int dropped_strangers(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	struct verdict v = { 0 };
	uint64_t entry;

	for (uintptr_t at = start; books_next(hmm, &at, end, &entry); at += PAGE) {
		if (at >= v.end)
			v = look_at(hmm, book_ctx(entry), at);
		if (v.alive)
			continue;
		if (hmm->os->ctx_probe(&hmm->os_ctx[book_ctx(entry)]))
			return -EAGAIN;
		drop(hmm, at, entry, (struct event_id){ 0 }, true);
	}
	return 0;
}
