/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * migrate - the one-call migrations, and what all migrations begin with.
 *
 * The thread that migrates does what may wait: it mirrors the VMA, takes frames, publishes the
 * range, tells the devices through the worker, and hands the transfer to the pager. What
 * the pager could not take it makes ready (writes to pages that are shared with a child, waits
 * until DONTNEED calls are over) and asks once more.
 */
#include <errno.h>
#include <sys/mman.h>

#include "core/migrate.h"

#define ROUNDS 6u
/* Of a thread's stack: its control block. */
#define STACK_TOP (2 * PAGE)
#define CALL_NS UINT64_C(10000000000)
#define FOR_FAULTS (TRANSFERS / 4)

int migrate_check(struct hmm_devmem *devmem)
{
	int err;

	if (!devmem)
		return error_say(-EINVAL, "the devmem is NULL");
	err = hmm_check_sleep(devmem->hmm);
	if (!err && (devmem->lost || devmem->ending))
		err = error_say(-ENODEV, "the device is lost, or being removed");
	return err;
}

/*
 * Not where the library, libc or a driver has data that the pager may touch: with any hole in
 * such a mapping registered MISSING it could wait for itself.
 */
bool migrate_is_ours(struct hmm *hmm, const struct os_vma *vma)
{
	return arena_owns(vma->start, vma->end) || hmm->os->critical(vma->start, vma->end);
}

int migrate_ctx(struct hmm *hmm, const struct os_vma *found, uintptr_t at, unsigned *ctx)
{
	struct os_vma vma = *found;

	for (unsigned tries = 0; tries < 16; tries++) {
		struct mirrored m;
		int err = tries ? hmm->os->vma_find(&hmm->mm, at, &vma) : 0;

		if (err || vma.start > at)
			return hole_end(hmm, at, at + PAGE) > at ? -EFAULT : -EBUSY;
		if (vmas_next(hmm, at, at + PAGE, &m) && m.start <= vma.start &&
		    m.end >= vma.end) {
			*ctx = m.ctx;
			return 0;
		}
		err = vmas_mirror(hmm, &vma);
		if (err && err != -EAGAIN && err != -EINVAL)
			return err;
	}
	return -EBUSY;
}

struct hmm_transfer *migrate_claim(struct hmm_devmem *devmem, unsigned ctx)
{
	struct hmm *hmm = devmem->hmm;
	struct pager *pager = hmm->pager;
	uint64_t until = hmm->os->now() + CALL_NS;
	struct hmm_transfer *t;

	for (;;) {
		uint32_t freed = pager->freed;

		/* Some are left for faults. */
		t = transfers_free(hmm) > FOR_FAULTS && transfers_fair(devmem, true)
			    ? transfer_claim(hmm) : NULL;
		/* Others may have looked at the same moment. */
		if (t && transfers_free(hmm) >= FOR_FAULTS)
			break;
		if (t)
			transfer_free(t);
		if (hmm->os->now() > until)
			return NULL;
		hmm->os->reader_nudge(hmm->os_ctx); /* it sweeps */
		hmm->os->wait((const uint32_t *)&pager->freed, freed, 1000000);
	}
	t->out = true;
	t->devmem = devmem;
	t->ctx = ctx;
	t->why = WHY_OUT;
	return t;
}

uint64_t migrate_tell(struct hmm_transfer *t, uintptr_t start, uintptr_t end)
{
	struct hmm *hmm = t->hmm;
	struct event event = { .kind = EVENT_MIGRATE, .start = start, .end = end,
			       .to = (uintptr_t)t->devmem->options.owner };

	transfer_publish(t, start, end);
	/* Who inserts a notifier from now on looks after the range was published. */
	if (!notifiers_overlap(hmm, start, end))
		return 0;
	return side_push(hmm, &event);
}

/* While a fork brings everything home nothing leaves. */
static void wait_forks(struct hmm *hmm)
{
	uint32_t forking;

	while ((forking = hmm->forking))
		hmm->os->wait((const uint32_t *)&hmm->forking, forking, 10000000);
}

/* What comes of the pages that stayed. -EAGAIN: ask again; else why they stay, 0 none. */
int migrate_prepare_again(struct hmm_transfer *t)
{
	struct hmm *hmm = t->hmm;
	bool settle = false, again = false;
	int err = 0;

	for (unsigned i = 0; i < t->n; i++) {
		const struct moving *page = &t->page[i];

		if (page->is == PAGE_GONE || page->err == -EALREADY)
			continue;
		if (page->err == -EINPROGRESS)
			settle = true;
		else if (page->err == -EBUSY && !hmm->os->populate(page->addr, page->addr + PAGE,
								  true))
			again = true;
		else if (page->err == -EIO || page->err == -ENOMEM)
			err = page->err; /* all others just stay */
	}
	if (settle && unsettled_end(hmm))
		return -EBUSY;
	return settle || again ? -EAGAIN : err;
}

void migrate_give_back(struct hmm_transfer *t)
{
	for (unsigned i = 0; i < t->n; i++)
		if (t->page[i].is != PAGE_GONE && t->page[i].frame != NO_FRAME) {
			frames_give(t->devmem, t->page[i].frame, 1);
			t->page[i].frame = NO_FRAME;
		}
}

/* ---- one call ---- */

/* Frames for what is not there yet. How many, or -ENOSPC. */
static int take_frames(struct hmm_devmem *devmem, uintptr_t start, uintptr_t end,
		       uint64_t *frames)
{
	uintptr_t first = 0;
	unsigned n = 0, got;

	for (uintptr_t at = start; at < end; at += PAGE) {
		if (book_state(books_get(devmem->hmm, at)) != BOOK_HOME)
			continue;
		first = n++ ? first : at;
	}
	if (!n)
		return 0;
	got = frames_take(devmem, frames, n, first >> OS_PAGE_SHIFT);
	atomic_fetch_add(&devmem->count.declined, n - got);
	return got ? (int)got : -ENOSPC;
}

/* The pages that get them. The kernel writes to some when a thread ends, and does not wait then. */
static void fill(struct hmm_transfer *t, uintptr_t start, uintptr_t end, const uint64_t *frames,
		 unsigned got)
{
	uint64_t threads[BLOCK_PAGES / 64];
	struct hmm *hmm = t->hmm;

	hmm->os->thread_pages(&hmm->mm, start, end, threads);
	for (uintptr_t at = start; at < end && t->n < got; at += PAGE) {
		enum book_state state = book_state(books_get(hmm, at));

		if (state != BOOK_HOME || os_has_page(threads, (at - start) / PAGE))
			continue;
		t->page[t->n] = (struct moving){ .addr = at, .frame = frames[t->n] };
		t->n++;
	}
	for (unsigned i = t->n; i < got; i++)
		frames_give(t->devmem, frames[i], 1);
}

/* Pages of another devmem come home first. */
static int others_home(struct hmm_devmem *devmem, uintptr_t start, uintptr_t end)
{
	struct hmm *hmm = devmem->hmm;
	struct request home = { .kind = REQUEST_HOME, .start = start, .end = end };

	home.deadline = hmm->os->now() + CALL_NS;
	for (uintptr_t at = start; at < end; at += PAGE) {
		uint64_t entry = books_get(hmm, at);

		if (book_state(entry) == BOOK_MOVING ||
		    (entry && book_devmem(entry) != devmem->id))
			return request_do(hmm, &home);
	}
	return 0;
}

/*
 * One round. 0, -EAGAIN there is more to try, or why not. The devices are told before the pages
 * are looked at one by one: waking the worker takes as long as that.
 */
static int move_once(struct hmm_devmem *devmem, const struct os_vma *vma, uintptr_t start,
		     uintptr_t end, uint64_t *exclusive)
{
	struct request out = { .kind = REQUEST_OUT };
	struct hmm *hmm = devmem->hmm;
	uint64_t frames[BLOCK_PAGES];
	struct hmm_transfer *t;
	unsigned ctx;
	int err = migrate_ctx(hmm, vma, start, &ctx), got;

	got = err ? err : take_frames(devmem, start, end, frames);
	if (got <= 0)
		return got;
	t = migrate_claim(devmem, ctx);
	for (int i = 0; !t && i < got; i++)
		frames_give(devmem, frames[i], 1);
	if (!t)
		return -ETIME;
	t->exclusive = exclusive != NULL;
	out.transfer = t;
	out.after = migrate_tell(t, start, end);
	fill(t, start, end, frames, (unsigned)got);
	if (t->n) {
		err = request_do(hmm, &out);
		if (!err)
			err = migrate_prepare_again(t);
		if (exclusive && t->page[0].is == PAGE_GONE)
			*exclusive = t->page[0].frame;
	}
	migrate_give_back(t);
	transfer_free(t);
	return err;
}

int migrate_piece(struct hmm_devmem *devmem, const struct os_vma *vma, uintptr_t start,
		  uintptr_t end, uint64_t *exclusive)
{
	struct hmm *hmm = devmem->hmm;
	int err = -EAGAIN;

	for (unsigned round = 0; round < ROUNDS; round++) {
		wait_forks(hmm);
		err = others_home(devmem, start, end);
		if (!err)
			err = move_once(devmem, vma, start, end, exclusive);
		if (err == -ESTALE || !err || (err != -EAGAIN && !hmm->forking))
			break;
	}
	return err == -EAGAIN ? -EBUSY : err;
}

static uint64_t count_there(const struct hmm_devmem *devmem, uintptr_t start, uintptr_t end)
{
	uint64_t n = 0;

	for (uintptr_t at = start; at < end; at += PAGE) {
		uint64_t entry = books_get(devmem->hmm, at);
		enum book_state state = book_state(entry);

		n += (state == BOOK_AWAY || state == BOOK_COHERENT) &&
		     book_devmem(entry) == devmem->id;
	}
	return n;
}

/*
 * Where a mapping ends for who asks about what lies below `upto`. The top of a thread's stack
 * has its control block, which the kernel writes to when the thread ends, without waiting for a
 * page; and a thread may be made there and end between two looks at the list of threads.
 * glibc's stacks lie above a guard, and are MAP_STACK, which says no to huge pages. That is in
 * smaps only, which is dear.
 */
uintptr_t migrate_end(struct hmm *hmm, const struct os_vma *vma, uintptr_t upto)
{
	struct os_vma below;
	unsigned flags;

	if (vma->end - vma->start <= STACK_TOP || upto <= vma->end - STACK_TOP)
		return vma->end;
	if (hmm->os->vma_find_fast(&hmm->mm, vma->start - PAGE, &below) ||
	    below.end != vma->start || below.prot)
		return vma->end;
	if (hmm->os->vma_flags(vma->start, &flags) || !(flags & OS_VMA_NOHUGE))
		return vma->end;
	return vma->end - STACK_TOP;
}

/* The end of what was dealt with. *err: the first reason why something stays. */
static uintptr_t move_next(struct hmm_devmem *devmem, uintptr_t at, uintptr_t end, int *err,
			   uint64_t *there, bool *mapped)
{
	uintptr_t stop = (at & ~(BLOCK - 1)) + BLOCK, usable;
	struct hmm *hmm = devmem->hmm;
	struct os_vma vma;
	int one = 0;

	stop = stop < end ? stop : end;
	if (hmm->os->vma_find(&hmm->mm, at, &vma) || vma.start >= end)
		return end;
	if (vma.start > at)
		return vma.start;
	*mapped = true;
	stop = stop < vma.end ? stop : vma.end;
	usable = migrate_end(hmm, &vma, stop);
	if (usable <= at)
		return stop;
	if (migrate_is_ours(hmm, &vma))
		one = -EBUSY;
	else if (leave_can(&vma))
		one = migrate_piece(devmem, &vma, at, usable < stop ? usable : stop, NULL);
	*there += count_there(devmem, at, stop);
	if (!*err || one == -ETIME)
		*err = one;
	return stop;
}

int migrate_say_why(int err)
{
	switch (err) {
	case -ENOSPC:
		return error_say(err, "no frame of the devmem is free: evict some");
	case -ENOMEM:
		return error_say(-ENOSPC, "no memory, or no mapping is free (vm.max_map_count)");
	case -ESTALE:
	case -EBUSY:
		return error_say(-EBUSY, "the pages are the library's or libc's own, pinned, shared, "
					 "or change all the time: they stay in system memory");
	case -ETIME:
		return error_say(-EBUSY, "copies of a driver do not end: no transfer was free for 10 s");
	case -EFAULT:
		return error_say(-EINVAL, "nothing is mapped there");
	case -EINVAL:
		return error_say(-EBUSY, "the page cannot be moved: locked, or its permission is not "
					 "read and write");
	case -EIO:
		return error_say(err, "the driver could not copy");
	case -ENODEV:
		return error_say(err, "the mirror is dead: hmm_open() a new one");
	default:
		return err;
	}
}

int64_t hmm_migrate_to_device(struct hmm_devmem *devmem, uintptr_t start, size_t length)
{
	uintptr_t end = start + length;
	uint64_t there = 0;
	bool mapped = false;
	int err = migrate_check(devmem), why = 0;

	if (err)
		return err;
	if (!length || end < start || ((start | length) & (PAGE - 1)))
		return error_say(-EINVAL, "the range is empty or not aligned to pages");
	for (uintptr_t at = start; at < end && why != -ENODEV && why != -ENOSPC && why != -ETIME;)
		at = move_next(devmem, at, end, &why, &there, &mapped);
	if (!mapped && hole_end(devmem->hmm, start, end) == end)
		return error_say(-EINVAL, "nothing is mapped there");
	if (devmem->lost)
		return error_say(-ENODEV, "the device was lost meanwhile: what was moving stayed");
	return there || !why ? (int64_t)there : migrate_say_why(why);
}

int64_t hmm_migrate_to_host(struct hmm *hmm, uintptr_t start, size_t length)
{
	uint64_t lost;
	struct request home = { .kind = REQUEST_HOME, .start = PAGE_DOWN(start),
				.end = start + length };
	int err = hmm_check_sleep(hmm);

	if (err)
		return err;
	if (home.end < start)
		return error_say(-EINVAL, "the range wraps around the end of the address space");
	if (!hmm->pager || !length)
		return 0;
	home.deadline = hmm->os->now() + CALL_NS;
	lost = hmm->pager->lost;
	err = request_do(hmm, &home);
	if (!err && hmm->pager->lost != lost)
		return error_say(-EIO, "a device cannot give pages back: touching them is SIGBUS");
	return err ? error_say(err, "pages are locked by a device, or still on their way")
		   : (int64_t)home.moved;
}

int64_t hmm_devmem_evict(struct hmm_devmem *devmem, uint64_t first, uint64_t count)
{
	struct request evict = { .kind = REQUEST_EVICT, .devmem = devmem, .start = first };
	int err = devmem ? hmm_check_sleep(devmem->hmm) : -EINVAL;

	if (err)
		return err;
	if (first >= devmem->options.frames)
		return error_say(-EINVAL, "the devmem has no such frame");
	if (count > devmem->options.frames - first)
		count = devmem->options.frames - first;
	evict.end = first + count;
	evict.deadline = devmem->hmm->os->now() + CALL_NS;
	err = request_do(devmem->hmm, &evict);
	return err ? error_say(err, "frames are locked, or still on their way")
		   : (int64_t)evict.moved;
}
