/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * copy - a device with memory of its own: what goes there before a job, and comes back after it.
 *
 * Of each page that the device has there is a checksum. Up goes what may have changed (`stale`)
 * and has another one; down what has another one after the job. So a page that the kernel did
 * not write to is not stored, and what the CPU writes there meanwhile is not lost.
 *
 * `stale` is cleared before the page is copied: a change from then on sets it again.
 *
 * Storing, of each page: under `lock`, which invalidate takes, a fence that does not wait; so all
 * changes up to now have marked their pages, and a page that went is not stored. Nothing keeps
 * another thread from unmapping it between that and the store: so there is nothing else between.
 */
#include "userptr_private.h"

#define TRIES 100 /* for a moment without change; then what the last fence knew must do */

/* The bytes of an object that lie in [at, at + PIECE) and below `end`. */
static size_t piece_length(uintptr_t at, uintptr_t end)
{
	uintptr_t border = (at & -PAGE) + PIECE;

	return (end < border ? end : border) - at;
}

static uintptr_t next_page(uintptr_t at, uintptr_t end)
{
	uintptr_t border = (at & -PAGE) + PAGE;

	return border < end ? border : end;
}

static struct copied *page_at(const struct userptr_object *o, uintptr_t at)
{
	return &o->pages[page_index(o, at)];
}

/* ---- up ---- */

static bool wanted(const struct copied *page)
{
	return !page->known || atomic_load(&page->stale);
}

/*
 * The pages of use begin and end where the object's do: a checksum is of a page, or of the part of
 * it that the object has.
 */
static void whole_pages(const struct userptr_object *o, uintptr_t *start, uintptr_t *end)
{
	*start = *start & -PAGE;
	*end = (*end + PAGE - 1) & -PAGE;
	if (*start < o->start)
		*start = o->start;
	if (*end > o->start + o->length)
		*end = o->start + o->length;
}

/* Until nothing reads dev->piece. */
static int settle(struct userptr *dev)
{
	cl_int result = dev->n_writes ? clWaitForEvents(dev->n_writes, dev->writes) : 0;

	while (dev->n_writes)
		clReleaseEvent(dev->writes[--dev->n_writes]);
	dev->filled = 0;
	return userptr_cl(result, "writing a buffer");
}

/* The bytes lie in dev->piece: waited for when it is full, for a wait costs more than a page. */
static int write_buffer(const struct userptr_object *o, uintptr_t at, const void *bytes,
			size_t n)
{
	struct userptr *dev = o->dev;
	cl_int result = clEnqueueWriteBuffer(dev->queue, o->mem, CL_FALSE, at - o->start, n,
					     bytes, 0, NULL, &dev->writes[dev->n_writes]);

	dev->n_writes += !result;
	return userptr_cl(result, "writing a buffer");
}

/* `bytes` are those of [at, at + n). What the device has already is not sent. */
static int send_piece(const struct userptr_object *o, uintptr_t at, size_t n,
		      const unsigned char *bytes)
{
	uintptr_t end = at + n, from = at, next;
	int err = 0;

	for (uintptr_t p = at; p < end && !err; p = next) {
		struct copied *page = page_at(o, p);
		uint64_t hash;

		next = next_page(p, end);
		hash = userptr_hash(bytes + (p - at), next - p);
		atomic_fetch_add(&o->dev->count.pages_hashed, 1);
		if (page->known && page->hash == hash) {
			if (from < p)
				err = write_buffer(o, from, bytes + (from - at), p - from);
			from = next;
			continue;
		}
		page->hash = hash;
		page->known = true;
		atomic_fetch_add(&o->dev->count.pages_up, 1);
	}
	if (!err && from < end)
		err = write_buffer(o, from, bytes + (from - at), end - from);
	return err;
}

static void mark(const struct userptr_object *o, uintptr_t at, uintptr_t end, bool stale)
{
	for (; at < end; at = next_page(at, end)) {
		struct copied *page = page_at(o, at);

		if (stale) /* what the device has of it is not known */
			page->known = false;
		atomic_store(&page->stale, stale);
	}
}

static int send(const struct userptr_object *o, uintptr_t at, size_t n)
{
	struct userptr *dev = o->dev;
	unsigned char *bytes;
	int err = 0;

	if (n > PIECE - dev->filled || dev->n_writes + n / PAGE + 2 > WRITES)
		err = settle(dev);
	bytes = dev->piece + dev->filled;
	mark(o, at, at + n, false);
	if (!err) {
		err = hmm_copy_from(dev->hmm, bytes, at, n);
		if (err)
			userptr_say(err, "%#lx: the memory cannot be read", (unsigned long)at);
	}
	if (!err)
		err = send_piece(o, at, n, bytes);
	if (err)
		mark(o, at, at + n, true);
	dev->filled += n;
	return err;
}

int userptr_upload(const struct use *use)
{
	const struct userptr_object *o = use->object;
	uintptr_t at, start = use->start, end = use->end, next;
	int err = hmm_access_begin(o->dev->hmm), late;

	if (err)
		return err;
	whole_pages(o, &start, &end);
	at = start;
	while (at < end && !err) {
		if (!wanted(page_at(o, at))) {
			at = next_page(at, end);
			continue;
		}
		next = next_page(at, end);
		while (next < end && next - at < piece_length(at, end) &&
		       wanted(page_at(o, next)))
			next = next_page(next, end);
		err = send(o, at, next - at);
		at = next;
	}
	late = settle(o->dev);
	if (late) /* nobody knows which */
		mark(o, start, end, true);
	hmm_access_end(o->dev->hmm);
	return err ? err : late;
}

/* ---- down ---- */

static int is_page(const struct hmm_run *run, void *arg)
{
	return run->flags & HMM_RUN_VALID && !(run->flags & HMM_RUN_ZERO);
}

/*
 * HMM_EVENT_CLEAR: the page was discarded, or nobody knew better. It was not if it has still the
 * bytes that the device was given: zeros may be new ones, if the page is not there, and others
 * not.
 */
static bool is_kept(const struct userptr_object *o, uintptr_t at, size_t n,
		    const struct copied *page)
{
	static const unsigned char zeros[PAGE];
	uintptr_t start = at & -PAGE;
	unsigned char now[PAGE];
	int present = hmm_snapshot_runs(o->dev->hmm, start, start + PAGE, 0, is_page, NULL);

	if (!page->known || hmm_copy_from(o->dev->hmm, now, at, n))
		return false;
	return userptr_hash(now, n) == page->hash && (present > 0 || memcmp(now, zeros, n));
}

static bool went(const struct userptr_job *job, const struct userptr_object *o, uintptr_t at,
		 size_t n)
{
	const struct copied *page = page_at(o, at);

	return page->gone >= job->number ||
	       (page->cleared >= job->number && !is_kept(o, at, n, page));
}

/*
 * A store that faults waits for a mapping that is being put there, and goes to it. So the fault is
 * taken first. (Where there is no such access, at the store.)
 */
static void touch(struct userptr *dev, uintptr_t at)
{
	hmm_access_add(dev->hmm, at & ~(uintptr_t)3, 4, 0, NULL);
}

/* 0; -ESTALE it went; -EFAULT. */
static int store_bytes(const struct userptr_job *job, const struct userptr_object *o,
		       uintptr_t at, const unsigned char *bytes, size_t n)
{
	struct userptr *dev = o->dev;
	unsigned tries = 0;
	int err = 0;

	touch(dev, at);
	pthread_mutex_lock(&dev->lock);
	while (!err && hmm_try_fence(dev->hmm, at, n) == -EAGAIN && tries++ < TRIES) {
		pthread_mutex_unlock(&dev->lock);
		err = hmm_fence(dev->hmm, at, n);
		touch(dev, at);
		pthread_mutex_lock(&dev->lock);
	}
	if (!err)
		err = went(job, o, at, n) ? -ESTALE : hmm_copy_to(dev->hmm, at, bytes, n);
	pthread_mutex_unlock(&dev->lock);
	return err;
}

/* 0; -ESTALE it went; -EFAULT. */
static int store_page(const struct userptr_job *job, const struct userptr_object *o,
		      uintptr_t at, const unsigned char *bytes, size_t n)
{
	struct copied *page = page_at(o, at);
	uint64_t hash = userptr_hash(bytes, n);
	int err;

	atomic_fetch_add(&o->dev->count.pages_hashed, 1);
	if (page->known && page->hash == hash)
		return 0;
	err = store_bytes(job, o, at, bytes, n);
	if (!err) {
		page->hash = hash;
		atomic_fetch_add(&o->dev->count.pages_down, 1);
		return 0;
	}
	atomic_fetch_add(&o->dev->count.pages_dropped, 1);
	page->known = false;
	if (err == -ESTALE)
		return userptr_say(err, "%#lx changed while the job ran: what it wrote there is "
					"dropped", (unsigned long)at);
	return userptr_say(-EFAULT, "%#lx: what the job wrote cannot be stored",
			   (unsigned long)at);
}

/* The worst: -EFAULT before -ESTALE before 0. */
static int worse(int a, int b)
{
	if (!a || !b)
		return a ? a : b;
	return a == -ESTALE ? b : a;
}

static int store_pages(const struct userptr_job *job, const struct userptr_object *o,
		       uintptr_t at, size_t n)
{
	uintptr_t end = at + n, start = at, next;
	int err = 0;

	for (; at < end; at = next) {
		next = next_page(at, end);
		err = worse(err, store_page(job, o, at, o->dev->piece + (at - start), next - at));
	}
	return err;
}

static int receive(const struct userptr_object *o, uintptr_t at, size_t n)
{
	return userptr_cl(clEnqueueReadBuffer(o->dev->queue, o->mem, CL_TRUE, at - o->start, n,
					      o->dev->piece, 0, NULL, NULL),
			  "reading a buffer");
}

int userptr_download(const struct userptr_job *job, const struct use *use)
{
	const struct userptr_object *o = use->object;
	uintptr_t at = use->from, end = use->to;
	int result = 0, err = hmm_access_begin(o->dev->hmm);

	if (err)
		return err;
	whole_pages(o, &at, &end);
	while (at < end && !err) {
		size_t n = piece_length(at, end);

		err = receive(o, at, n);
		if (!err)
			result = worse(result, store_pages(job, o, at, n));
		at += n;
	}
	hmm_access_end(o->dev->hmm);
	return err ? err : result;
}
