/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_fence - is what is pinned what a CPU finds there? (D3)
 *
 * A pin keeps the page that it found. Some changes put another page at the address, or none,
 * and nobody is told: a guard page, a hole punched or a truncation by any process, shmdt. A
 * page that is pinned is nobody else's, so as long as the CPU's page table has the same number
 * it is the same page. Who may not see the numbers cannot ask; then a pin lasts until the next
 * fence.
 */
#include <errno.h>

#include "core/dma.h"

#define AT_ONCE 256u

/*
 * Before the pin, and compared after it: what is there both times was there in between. (After the
 * pin only, the number of a page that came in between would be noted, and be equal for ever.)
 */
void dma_note(struct hmm_dma *dma, uintptr_t start, uintptr_t end)
{
	uint64_t frame[AT_ONCE];

	for (uintptr_t at = start; at < end && !dma->unverified;) {
		size_t n = (end - at) / PAGE < AT_ONCE ? (end - at) / PAGE : AT_ONCE;
		int err = dma->hmm->os->page_frames(&dma->hmm->mm, at, n, frame);

		if (err) {
			dma->unverified = true;
			hmm_log(HMM_LOG_WARN, "dma: %s: the numbers of pages are not told to this "
				"process: what is pinned is mapped again for each job (give "
				"CAP_SYS_ADMIN)", dma->name);
			return;
		}
		/* No memory for a note: it will count as changed. */
		for (size_t i = 0; i < n; i++, at += PAGE)
			uhmm_ptable_set(&dma->behind, at, frame[i] + 1);
	}
}

/* Of n pages in a row from `at`: a bit for each that is not what was pinned. */
static void compare(struct hmm_dma *dma, uintptr_t at, size_t n, bool *stale)
{
	uint64_t frame[AT_ONCE];
	bool told = !dma->unverified &&
		    !dma->hmm->os->page_frames(&dma->hmm->mm, at, n, frame);

	for (size_t i = 0; i < n; i++)
		stale[i] = !told || !frame[i] ||
			   uhmm_ptable_lookup(&dma->behind, at + i * PAGE) != frame[i] + 1;
}

bool dma_holds(struct hmm_dma *dma, uintptr_t start, uintptr_t end)
{
	bool stale[AT_ONCE];

	for (uintptr_t at = start; at < end && !dma->unverified;) {
		size_t n = (end - at) / PAGE < AT_ONCE ? (end - at) / PAGE : AT_ONCE;

		compare(dma, at, n, stale);
		for (size_t i = 0; i < n; i++)
			if (stale[i])
				return false;
		at += n * PAGE;
	}
	return true;
}

/* Pinned pages in a row from *at on, at most AT_ONCE. */
static size_t next_row(const struct hmm_dma *dma, uintptr_t *at, uintptr_t end)
{
	uint64_t entry;
	uintptr_t next;
	size_t n = 0;

	while (dma_next(dma, at, end, &entry) && (entry & DMA_BOUNCE))
		*at += PAGE;
	for (next = *at; n < AT_ONCE && next < end; n++, next += PAGE) {
		entry = uhmm_ptable_lookup(&dma->book, next);
		if (!(entry & DMA_MAPPED) || (entry & DMA_BOUNCE))
			break;
	}
	return n;
}

/* The first stretch of [*at, end) that is another page now; false: none. */
static bool find_stale(struct hmm_dma *dma, uintptr_t *at, uintptr_t end, uintptr_t *stop)
{
	bool stale[AT_ONCE];
	size_t n;

	lock_take(&dma->lock);
	while ((n = next_row(dma, at, end))) {
		size_t first = 0, last;

		compare(dma, *at, n, stale);
		while (first < n && !stale[first])
			first++;
		for (last = first; last < n && stale[last]; last++)
			;
		*stop = *at + last * PAGE;
		*at += first * PAGE;
		if (first < n)
			break;
	}
	lock_drop(&dma->lock);
	return n != 0;
}

int dma_clear(struct hmm_dma *dma, uintptr_t start, uintptr_t end)
{
	struct event event = { .kind = EVENT_CLEAR, .start = start, .end = end };
	struct hmm *hmm = dma->hmm;

	if (!worker_wait(hmm, &hmm->side_queue, side_push(hmm, &event)))
		return hmm_check(hmm);
	/* A driver that has no notifier there was told nothing. */
	hmm_range_dma_unmap(dma, start, end, false);
	return 0;
}

int hmm_dma_fence(struct hmm_dma *dma, uintptr_t start, size_t length)
{
	uintptr_t at, stop = 0, end;
	int err = dma_check(dma);

	if (!err)
		err = hmm_fence(dma->hmm, start, length);
	if (err || !length)
		return err;
	atomic_fetch_add(&dma->count.fences, 1);
	end = (start + length + PAGE - 1) & ~(PAGE - 1);
	for (at = PAGE_DOWN(start); dma->options.pinned && !err && at < end; at = stop) {
		if (!find_stale(dma, &at, end, &stop))
			break;
		atomic_fetch_add(&dma->count.stale, (stop - at) / PAGE);
		err = dma_clear(dma, at, stop);
	}
	return err;
}
