/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dirty - which pages have been written to (include/uhmm/dirty.h).
 *
 * Model: PAGEMAP_SCAN, in one step for each page, tells whether the page bears the userfaultfd-wp
 * mark, and puts it on. A page that is written to or replaced does not bear it. So "present and
 * marked" is "not written to", of a page that no event moved there.
 *
 * Laws:
 * - Marks are the address space's, not a tracker's: what one collect takes is noted for every
 *   tracker that it overlaps, and a scan that fails is noted as "all of it".
 * - Only what is said to be unmarked is copied by the driver, and it is marked before that.
 * - G7: marked are pages of private anonymous mappings only. The mapping is looked up before
 *   each scan, under the lock without which none is registered, and a mapping that is not registered
 *   is not marked. What remains is a registered mapping of a file that the program moves there
 *   (mremap) in between: of that the scan leaves out what is a page of a file. A private one has
 *   anonymous pages too, which were written to: so the mapping is looked up once more after the
 *   scan, and the marks are taken off if it is another. (Moved on once more before that, it takes
 *   them along; and where all contexts have changes pending without end, they stay.)
 * - A hole is never marked: a marker there would stand in the way of a page that comes home
 *   (UFFDIO_MOVE answers EEXIST), and in what is no anonymous memory any more.
 *
 * Locks: register_lock protects the list of trackers and their bits.
 */
#include <errno.h>
#include <string.h>

#include <uhmm/dirty.h>

#include "core/core.h"

#define RUNS 64u
/* Scanned under one hold of the lock, which device faults on new mappings wait for. */
#define WINDOW ((uintptr_t)16 << 20)

/* Some milliseconds of changes without end, in each context at once. */
#define UNMARK_TRIES 10000u

/* No mapping lies above, on any machine that we run on. */
#define ADDRESSES_END ((uintptr_t)1 << 57)

struct hmm_dirty {
	struct hmm *hmm;
	struct hmm_dirty *next;
	uintptr_t start, end;
	bool fresh;	 /* never collected: everything is set, whatever the bits say */
	uint64_t bits[]; /* what has not been collected yet */
};

static size_t bytes_of(uintptr_t start, uintptr_t end)
{
	return sizeof(struct hmm_dirty) + ((end - start) / PAGE + 63) / 64 * sizeof(uint64_t);
}

static void set(struct hmm_dirty *d, uintptr_t start, uintptr_t end)
{
	size_t i = (start - d->start) / PAGE, n = (end - d->start) / PAGE;

	for (; i < n && i % 64; i++)
		d->bits[i / 64] |= UINT64_C(1) << i % 64;
	for (; i + 64 <= n; i += 64)
		d->bits[i / 64] = UINT64_MAX;
	for (; i < n; i++)
		d->bits[i / 64] |= UINT64_C(1) << i % 64;
}

/* It was written to, or nobody knows: everybody is told, for the marks are anew. */
static void note(struct hmm *hmm, uintptr_t start, uintptr_t end)
{
	for (struct hmm_dirty *d = hmm->dirties; d; d = d->next)
		if (!d->fresh && d->start < end && start < d->end)
			set(d, start > d->start ? start : d->start, end < d->end ? end : d->end);
}

static bool is_anonymous(const struct os_vma *vma)
{
	return !vma->shared && !vma->inode &&
	       (vma->kind == OS_VMA_ANON || vma->kind == OS_VMA_HEAP ||
		vma->kind == OS_VMA_STACK);
}

/* May [at, *end) be marked? *end: how far the answer goes. */
static bool may_mark(struct hmm *hmm, uintptr_t at, uintptr_t *end)
{
	struct mirrored m;
	struct os_vma vma;

	if (!vmas_next(hmm, at, *end, &m))
		return false;
	if (m.start > at) {
		*end = m.start;
		return false;
	}
	*end = m.end < *end ? m.end : *end;
	if (!m.anon || hmm->os->vma_find(&hmm->mm, at, &vma) || vma.start > at)
		return false;
	*end = vma.end < *end ? vma.end : *end;
	return is_anonymous(&vma);
}

static bool is_still_anonymous(struct hmm *hmm, uintptr_t at, uintptr_t end)
{
	struct os_vma vma;

	return !hmm->os->vma_find(&hmm->mm, at, &vma) && vma.start <= at && end <= vma.end &&
	       is_anonymous(&vma);
}

/* Any context will do that has no change pending; most have no mapping at all. */
static void unmark(struct hmm *hmm, uintptr_t at, uintptr_t end)
{
	int err = -EAGAIN;

	for (unsigned i = 0; err == -EAGAIN && i < UNMARK_TRIES; i++)
		err = hmm->os->ctx_unmark(&hmm->os_ctx[i % CONTEXTS], at, end);
}

static bool any_marked(const struct os_run *runs, int n)
{
	for (int i = 0; i < n; i++)
		if (runs[i].flags & OS_PAGE_UNMARKED)
			return true;
	return n < 0; /* nobody knows */
}

/* [at, end) may be marked. Where the scan went to; everything it did not say is noted. */
static uintptr_t mark(struct hmm *hmm, uintptr_t at, uintptr_t end)
{
	struct os_run runs[RUNS];
	uintptr_t next = end;
	int n = hmm->os->scan(&hmm->mm, at, end, OS_SCAN_MARK, runs, RUNS, &next);

	if (any_marked(runs, n) && !is_still_anonymous(hmm, at, next)) {
		unmark(hmm, at, next);
		n = -EAGAIN;
	}
	if (n < 0) { /* some may be marked, and we were not told which */
		note(hmm, at, next);
		return next;
	}
	for (int i = 0; i < n; i++) {
		if (at < runs[i].start)
			note(hmm, at, runs[i].start);
		if (runs[i].flags & OS_PAGE_UNMARKED)
			note(hmm, runs[i].start, runs[i].end);
		at = runs[i].end;
	}
	if (at < next)
		note(hmm, at, next);
	return next;
}

static void look_window(struct hmm *hmm, uintptr_t at, uintptr_t end)
{
	while (at < end) {
		uintptr_t to = end;

		if (may_mark(hmm, at, &to)) {
			at = mark(hmm, at, to);
			continue;
		}
		note(hmm, at, to);
		at = to;
	}
}

static int64_t take(struct hmm_dirty *d, uint64_t *bits)
{
	size_t words = ((d->end - d->start) / PAGE + 63) / 64;
	int64_t n = 0;

	if (d->fresh) {
		d->fresh = false;
		set(d, d->start, d->end);
	}
	for (size_t i = 0; i < words; i++) {
		bits[i] = d->bits[i];
		d->bits[i] = 0;
		n += __builtin_popcountll(bits[i]);
	}
	return n;
}

int64_t hmm_dirty_collect(struct hmm_dirty *d, uint64_t *bits)
{
	struct hmm *hmm = d ? d->hmm : NULL;
	int64_t n;
	int err = hmm_check_sleep(hmm);

	if (!err && !bits)
		err = error_say(-EINVAL, "nowhere to put the bits");
	if (err)
		return err;
	for (uintptr_t at = d->start; at < d->end; at += WINDOW) {
		lock_take(&hmm->register_lock);
		look_window(hmm, at, d->end - at < WINDOW ? d->end : at + WINDOW);
		lock_drop(&hmm->register_lock);
	}
	lock_take(&hmm->register_lock);
	n = take(d, bits);
	lock_drop(&hmm->register_lock);
	return n;
}

int hmm_dirty_begin(struct hmm *hmm, uintptr_t start, size_t length, struct hmm_dirty **out)
{
	struct hmm_dirty *d;
	int err = hmm_check_sleep(hmm);

	if (err)
		return err;
	if (!out || !length || start % PAGE || length % PAGE)
		return error_say(-EINVAL, "the range is empty or unaligned");
	if (start + length < start || start + length > ADDRESSES_END)
		return error_say(-EOVERFLOW, "there are no such addresses");
	d = arena_alloc(hmm->arena, bytes_of(start, start + length));
	if (!d)
		return error_say(-ENOMEM, "no memory for a bit a page");
	d->start = start;
	d->end = start + length;
	d->fresh = true;
	d->hmm = hmm_get(hmm);
	lock_take(&hmm->register_lock);
	d->next = hmm->dirties;
	hmm->dirties = d;
	lock_drop(&hmm->register_lock);
	*out = d;
	return 0;
}

void hmm_dirty_end(struct hmm_dirty *d)
{
	struct hmm *hmm = d ? d->hmm : NULL;
	struct hmm_dirty **at;

	if (!d)
		return;
	if (hmm_pid() == hmm->pid) {
		lock_take(&hmm->register_lock);
		for (at = &hmm->dirties; *at != d;)
			at = &(*at)->next;
		*at = d->next;
		lock_drop(&hmm->register_lock);
		arena_free(hmm->arena, d, bytes_of(d->start, d->end));
	}
	hmm_put(hmm);
}
