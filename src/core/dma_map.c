/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_map - map and unmap; the driver's loop.
 *
 *	settle; look (fault); [ sequence; the back-end's map; the book ] in runs; fill bounced
 *	pages
 *
 * A run is pages in a row, in one chunk, with one permission.
 */
#include <errno.h>

#include "core/dma.h"
#include "core/pager.h"
#include "util/ptable_next.h"

/* One call of hmm_range_dma_map(). */
struct map {
	struct hmm_dma *dma;
	struct hmm_range *range;
	unsigned flags;
	uint64_t pages; /* that were mapped by it */
};

bool dma_next(const struct hmm_dma *dma, uintptr_t *at, uintptr_t end, uint64_t *entry)
{
	return ptable_next(&dma->book, at, end, entry);
}

static uint64_t entry_of(const struct hmm_dma *dma, uintptr_t at)
{
	return uhmm_ptable_lookup(&dma->book, at);
}

void dma_extent(const struct hmm_dma *dma, uintptr_t at, uintptr_t *start, uintptr_t *end)
{
	uint64_t entry;

	while (!(entry_of(dma, at) & DMA_HEAD))
		at -= PAGE;
	*start = at;
	do {
		at += PAGE;
		entry = entry_of(dma, at);
	} while ((entry & DMA_MAPPED) && !(entry & DMA_HEAD));
	*end = at;
}

void dma_drop(struct hmm_dma *dma, uintptr_t start, uintptr_t end)
{
	uint64_t head = entry_of(dma, start), pages = (end - start) / PAGE;

	if (!dma->host)
		dma->ops.unmap(dma->priv, head & DMA_ADDRESS, end - start);
	if (head & DMA_WINDOW)
		iova_give(dma, head & DMA_ADDRESS);
	if (head & DMA_BOUNCE)
		bounce_give(dma, (struct bounce *)(uintptr_t)uhmm_ptable_lookup(&dma->behind,
										start));
	uhmm_ptable_clear(&dma->behind, start, end);
	uhmm_ptable_clear(&dma->book, start, end);
	atomic_fetch_sub(&dma->count.mapped, pages);
	atomic_fetch_add(&dma->count.unmaps, pages);
}

/* Nothing is behind the book there. */
static int64_t drop_host(struct hmm_dma *dma, uintptr_t start, uintptr_t end)
{
	uint64_t pages = uhmm_ptable_clear(&dma->book, start, end);

	atomic_fetch_sub(&dma->count.mapped, pages);
	atomic_fetch_add(&dma->count.unmaps, pages);
	return (int64_t)pages;
}

static void count_mapped(struct hmm_dma *dma, uint64_t pages)
{
	uint64_t now = atomic_fetch_add(&dma->count.mapped, pages) + pages;

	if (now > dma->count.mapped_max)
		dma->count.mapped_max = now;
	atomic_fetch_add(&dma->count.maps, pages);
	atomic_fetch_add(&dma->count.mappings, 1);
}

/* Into the book. -ENOMEM: nothing of it is in there. */
static int enter(struct hmm_dma *dma, uintptr_t start, uintptr_t end, uint64_t entry)
{
	for (uintptr_t at = start; at < end; at += PAGE) {
		if (uhmm_ptable_set(&dma->book, at, entry + (at - start))) {
			uhmm_ptable_clear(&dma->book, start, at);
			return -ENOMEM;
		}
		/* The host can have any part of it back. */
		if (!dma->host)
			entry &= ~DMA_HEAD;
	}
	return 0;
}

/* The back-end's call, of memory at `from` (its own, or a bounce page) for the pages at start. */
static int map_at(struct hmm_dma *dma, uintptr_t start, uintptr_t end, uintptr_t from,
		  uint64_t flags)
{
	bool window;
	uint64_t iova;
	int err = iova_take(dma, start, end - start, &iova, &window);

	if (err)
		return err == -ENOSPC ? error_say(err, "no I/O address of %s is free", dma->name) : err;
	if (!dma->host)
		err = dma->ops.map(dma->priv, iova, from, end - start, flags & DMA_WRITE);
	if (!err) {
		flags |= DMA_MAPPED | DMA_HEAD | DMA_FRESH | (window ? DMA_WINDOW : 0);
		err = enter(dma, start, end, iova | flags);
		if (err && !dma->host)
			dma->ops.unmap(dma->priv, iova, end - start);
	}
	if (err && window)
		iova_give(dma, iova);
	if (err)
		return err;
	count_mapped(dma, (end - start) / PAGE);
	atomic_fetch_add(&dma->count.window, window ? (end - start) / PAGE : 0);
	return 0;
}

/* A granule, by a copy of its own. */
static int map_bounced(struct map *m, uintptr_t start, uint64_t flags)
{
	struct hmm_dma *dma = m->dma;
	size_t granule = dma->options.granule;
	struct bounce *bounce;
	int err;

	if (m->flags & HMM_DMA_NO_BOUNCE) {
		m->range->fault_addr = start;
		return error_say(-EOPNOTSUPP, "%#lx: this memory cannot be pinned for %s, and shall "
				 "not be bounced", (unsigned long)start, dma->name);
	}
	bounce = bounce_take(dma);
	if (!bounce)
		return error_say(-ENOMEM, "no memory for bounce pages");
	err = uhmm_ptable_set(&dma->behind, start, (uintptr_t)bounce);
	if (!err)
		err = map_at(dma, start, start + granule, bounce_at(bounce), flags | DMA_BOUNCE);
	if (!err) {
		atomic_fetch_add(&dma->count.bounced, granule / PAGE);
		return 0;
	}
	uhmm_ptable_clear(&dma->behind, start, start + granule);
	bounce_give(dma, bounce);
	return err;
}

/*
 * -EFAULT: of a file it means that it cannot be pinned; of other memory that it is gone. Of a long run
 * it may be one page's: then each granule for itself.
 */
static int map_run(struct map *m, uintptr_t start, uintptr_t end, bool write)
{
	struct hmm_dma *dma = m->dma;
	uint64_t flags = write ? DMA_WRITE : 0;
	size_t granule = dma->options.granule;
	int err;

	/* Under the lock that unmap takes: what is stale is not mapped (D1). */
	if (hmm_notifier_read_retry(m->range))
		return -EBUSY;
	if (dma->options.pinned)
		dma_note(dma, start, end);
	err = map_at(dma, start, end, start, flags);
	if (!err && dma->options.pinned && !dma_holds(dma, start, end)) {
		/* Exchanged meanwhile; or the pin has moved it, and will not do so again. */
		dma_drop(dma, start, end);
		return -EBUSY;
	}
	if (!err)
		return 0;
	uhmm_ptable_clear(&dma->behind, start, end);
	if ((err == -EOPNOTSUPP || err == -EFAULT) && end - start == granule)
		return map_bounced(m, start, flags);
	if (err == -EOPNOTSUPP || err == -EFAULT) {
		for (err = 0; start < end && !err; start += granule)
			err = map_run(m, start, start + granule, write);
		return err;
	}
	if (err == -ENOMEM)
		return error_say(err, "%s: no memory, or a limit: RLIMIT_MEMLOCK (ulimit -l), the "
				 "number of mappings", dma->name);
	return err;
}

static size_t index_of(const struct map *m, uintptr_t at)
{
	return (at - m->range->start) >> OS_PAGE_SHIFT;
}

static bool is_wanted(const struct map *m, uintptr_t at, bool *write)
{
	uint64_t pfn = m->range->pfns[index_of(m, at)];

	*write = pfn & HMM_PFN_WRITE;
	return (pfn & HMM_PFN_VALID) && (pfn & HMM_PFN_KIND_MASK) != HMM_PFN_DEVICE;
}

/* Where the run that begins at `at` ends: pages that are wanted alike and are not mapped. */
static uintptr_t run_end(const struct map *m, uintptr_t at, bool write)
{
	size_t chunk = m->dma->host ? BLOCK : m->dma->options.chunk;
	uintptr_t end = (at & ~(chunk - 1)) + chunk;
	bool also = write;

	if (end > m->range->end)
		end = m->range->end;
	for (at += PAGE; at < end; at += PAGE)
		if (!is_wanted(m, at, &also) || also != write || entry_of(m->dma, at))
			break;
	return at;
}

/* The first mapping of the range that is for reading, and is wanted for writing. */
static bool find_too_little(const struct map *m, uintptr_t *at, uintptr_t *end)
{
	struct hmm_dma *dma = m->dma;
	bool found = false, write;
	uint64_t entry;

	lock_take(&dma->lock);
	for (; !found && dma_next(dma, at, m->range->end, &entry); *at += found ? 0 : PAGE)
		found = !(entry & DMA_WRITE) && is_wanted(m, *at, &write) && write;
	if (found)
		dma_extent(dma, *at, at, end);
	lock_drop(&dma->lock);
	return found;
}

/*
 * No back-end changes a mapping, and while one is taken away and made anew a device that is
 * using it finds nothing there. So it goes as by any change: who uses it is told to stop, and
 * forgets its neighbours too. -EBUSY: so it was; begin again.
 */
static int make_room(struct map *m)
{
	uintptr_t at = m->range->start, end;
	bool again = false;
	int err = 0;

	if (m->dma->host)
		return 0;
	for (; !err && at < m->range->end && find_too_little(m, &at, &end); at = end) {
		again = true;
		err = dma_clear(m->dma, at, end);
	}
	return err ? err : again ? -EBUSY : 0;
}

/* The host has nothing to change; else another map has just made it: begin again. */
static int widen_permission(struct map *m, uintptr_t at, uint64_t entry)
{
	return m->dma->host ? uhmm_ptable_set(&m->dma->book, at, entry | DMA_WRITE) : -EBUSY;
}

static int map_all(struct map *m)
{
	size_t granule = m->dma->options.granule;
	uintptr_t at = m->range->start;
	int err = 0;

	while (at < m->range->end && !err) {
		uint64_t entry = entry_of(m->dma, at);
		uintptr_t end = at + PAGE;
		bool write;

		if (is_wanted(m, at, &write)) {
			if (!entry) {
				end = run_end(m, at, write);
				err = ((at | end) & (granule - 1))
					      ? error_say(-EINVAL, "%#lx: memory that is not aligned to "
							  "%zu bytes, which %s maps at once",
							  (unsigned long)at, granule, m->dma->name)
					      : map_run(m, at, end, write);
			} else if (write && !(entry & DMA_WRITE)) {
				err = widen_permission(m, at, entry);
			}
		}
		at = end;
	}
	return err ? err : hmm_notifier_read_retry(m->range) ? -EBUSY : 0;
}

/* What this call has made is taken back. */
static void undo(struct map *m)
{
	struct hmm_dma *dma = m->dma;
	uintptr_t at = m->range->start, start, end;
	uint64_t entry;

	for (; dma_next(dma, &at, m->range->end, &entry); at += PAGE) {
		if (!(entry & DMA_FRESH))
			continue;
		dma_extent(dma, at, &start, &end);
		dma_drop(dma, start, end);
	}
}

/* daddrs and flags, as the book has them now: nothing is fresh any more. How many are mapped. */
static int64_t answer(struct map *m, uint64_t *daddrs)
{
	int64_t mapped = 0;

	for (uintptr_t at = m->range->start; at < m->range->end; at += PAGE) {
		uint64_t *pfn = &m->range->pfns[index_of(m, at)], entry = entry_of(m->dma, at);

		if (entry & DMA_FRESH)
			uhmm_ptable_set(&m->dma->book, at, entry & ~DMA_FRESH);
		*pfn &= ~(HMM_PFN_DMA_MAPPED | HMM_PFN_DMA_BOUNCE);
		if (entry & DMA_MAPPED)
			*pfn |= HMM_PFN_DMA_MAPPED;
		if (entry & DMA_BOUNCE)
			*pfn |= HMM_PFN_DMA_BOUNCE;
		daddrs[index_of(m, at)] = entry & DMA_ADDRESS;
		mapped += entry & DMA_MAPPED ? 1 : 0;
	}
	return mapped;
}

static int64_t map_looked(struct map *m, uint64_t *daddrs)
{
	struct hmm_dma *dma = m->dma;
	int64_t mapped;
	int err;

	pthread_mutex_lock(&dma->maps);
	lock_take(&dma->lock);
	err = map_all(m);
	lock_drop(&dma->lock);
	/* Before anybody is told of them. Gone meanwhile: the sequence says so, or the next fault. */
	if (!err && bounce_sync(dma, m->range->start, m->range->end, HMM_DMA_FOR_DEVICE, true) < 0)
		err = -EBUSY;
	lock_take(&dma->lock);
	if (err)
		undo(m);
	mapped = err ? err : answer(m, daddrs);
	lock_drop(&dma->lock);
	pthread_mutex_unlock(&dma->maps);
	return mapped;
}

/*
 * A pin must not find a page that a DONTNEED is about to discard, whose message was read
 * already. What is read from here on raises the sequence.
 */
static int settle(struct hmm_dma *dma, const struct hmm_range *range)
{
	int err = dma->options.pinned ? unsettled_wait(dma->hmm, range->start, range->end) : 0;

	if (err > 0)
		atomic_fetch_add(&dma->count.settled, 1);
	return err < 0 ? err : 0;
}

int64_t hmm_range_dma_map(struct hmm_range *range, struct hmm_dma *dma, uint64_t *daddrs,
			  unsigned flags)
{
	struct map m = { .dma = dma, .range = range, .flags = flags };
	struct range_kept kept;
	int64_t mapped;
	int err = dma_check(dma);

	if (!err)
		err = range_check(range, true);
	if (!err && (!range->notifier || range->hmm != dma->hmm || !daddrs))
		err = error_say(-EINVAL, "mapping needs a notifier, addresses, and the same mirror");
	if (!err && (flags & ~(HMM_DMA_NO_BOUNCE | HMM_DMA_SHORT_JOBS)))
		err = error_say(-EINVAL, "an unknown flag");
	if (!err)
		err = range_keep(&kept, range);
	if (err)
		return err;
	err = flags & HMM_DMA_SHORT_JOBS ? 0 : settle(dma, range);
	if (!err)
		err = hmm_notifier_read_retry(range) ? -EBUSY : look(range, true);
	if (!err)
		err = make_room(&m);
	mapped = err ? err : map_looked(&m, daddrs);
	if (mapped < 0)
		range_restore(&kept, range);
	range_drop(&kept, range->hmm);
	return mapped == -EBUSY ? range_stale() : mapped;
}

int64_t hmm_range_dma_unmap(struct hmm_dma *dma, uintptr_t start, uintptr_t end, bool dirty)
{
	uintptr_t first, last;
	int64_t pages = 0, synced = 0;
	uint64_t entry;

	if (!dma)
		return error_say(-EINVAL, "the I/O address space is NULL");
	if (dma->hmm->pid != hmm_pid())
		return hmm_check(dma->hmm);
	if (dirty && end <= UINTPTR_MAX - PAGE)
		end = PAGE_DOWN(end + PAGE - 1);
	if (dirty)
		synced = bounce_sync(dma, PAGE_DOWN(start), end, HMM_DMA_FOR_CPU, false);
	lock_take(&dma->lock);
	if (dma->host)
		pages = drop_host(dma, PAGE_DOWN(start), end);
	for (uintptr_t at = PAGE_DOWN(start); dma_next(dma, &at, end, &entry); at = last) {
		dma_extent(dma, at, &first, &last);
		dma_drop(dma, first, last);
		pages += (int64_t)((last - first) / PAGE);
	}
	lock_drop(&dma->lock);
	return synced < 0 ? synced : pages;
}

int64_t hmm_range_dma_sync(struct hmm_dma *dma, uintptr_t start, uintptr_t end,
			   enum hmm_dma_direction direction)
{
	int err = dma_check(dma);

	if (!err && (start > end || (direction != HMM_DMA_FOR_DEVICE &&
				     direction != HMM_DMA_FOR_CPU)))
		err = error_say(-EINVAL, "the range ends before it begins, or no direction");
	if (err || !dma->count.bounced)
		return err;
	/* What has changed before is not ours any more. */
	if (direction == HMM_DMA_FOR_CPU && start < end)
		err = hmm_fence(dma->hmm, start, end - start);
	return err ? err : bounce_sync(dma, start, end, direction, false);
}

void hmm_dma_widen(const struct hmm_dma *dma, uintptr_t *start, uintptr_t *end)
{
	uintptr_t mask = dma->options.chunk - 1;

	*start &= ~mask;
	*end = *end > UINTPTR_MAX - mask ? UINTPTR_MAX : (*end + mask) & ~mask;
}

/* ---- the loop ---- */

struct program {
	struct hmm_dma *dma;
	uint64_t *daddrs;
	unsigned flags;
	pthread_mutex_t *update_lock;
	hmm_dma_program_fn fn;
	void *arg;
};

/*
 * A page of the range may be mapped together with neighbours that are not in it: what takes
 * those away takes it too, and says nothing of the range itself.
 */
static bool changed(const struct hmm_dma *dma, const struct hmm_range *range)
{
	struct hmm_range wide = *range;

	hmm_dma_widen(dma, &wide.start, &wide.end);
	return hmm_notifier_read_retry(&wide);
}

static int try_program(struct hmm_range *range, void *arg)
{
	struct program *p = arg;
	int64_t mapped;
	int err = hmm_notifier_read_begin(range);

	mapped = err ? err : hmm_range_dma_map(range, p->dma, p->daddrs, p->flags);
	if (mapped < 0)
		return (int)mapped;
	pthread_mutex_lock(p->update_lock);
	err = changed(p->dma, range) ? -EBUSY : p->fn(range, p->daddrs, p->arg);
	pthread_mutex_unlock(p->update_lock);
	/* What was mapped by it is another's too, or will be unmapped by the event. */
	return err;
}

int hmm_range_dma_program(struct hmm_range *range, struct hmm_dma *dma, uint64_t *daddrs,
			  unsigned flags, unsigned timeout_ms, pthread_mutex_t *update_lock,
			  hmm_dma_program_fn program, void *arg)
{
	struct program p = { .dma = dma, .daddrs = daddrs, .flags = flags,
			     .update_lock = update_lock, .fn = program, .arg = arg };
	int err = dma_check(dma);

	if (!err)
		err = range_check(range, true);
	if (!err && (!range->notifier || !update_lock || !program || !daddrs))
		err = error_say(-EINVAL, "programming needs a notifier, addresses, a lock and a "
					 "function");
	return err ? err : range_again(range, timeout_ms, try_program, &p);
}
