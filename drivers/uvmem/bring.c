/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bring - pages of the program come into secret memory, and others leave for them.
 *
 * What the library answers is about moves; what counts is in the entries afterwards: which
 * pages are in, and why the engine refused one.
 */
#include <time.h>

#include "uvmem_private.h"

/* A page that cannot be moved for this long is held by somebody. */
#define PATIENCE_NS 2000000000ll

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/*
 * How it stands with some pages: 0 what is asked for is done; -EAGAIN `*missing` is not in
 * yet; or
 * one is refused. */
static int look(struct uvmem *uv, uint64_t place, uint64_t pages, bool all,
		uint64_t *missing)
{
	int err = 0, why;
	uint64_t i;

	pthread_mutex_lock(&uv->lock);
	for (i = 0; i < (all ? pages : 1) && (!err || err == -EAGAIN); i++) {
		const struct uvmem_entry *entry = &uv->entry[place + i];

		bool in = entry->state == UVMEM_PAGE_IN,
		     out = entry->state == UVMEM_PAGE_OUT;

		if (in && !entry->home && !entry->refused)
			continue;
		/* While transient a page that came and had to leave again is as good. */
		if (all && (out || (in && entry->sealed)) && !entry->refused &&
		    atomic_load(&uv->state) == UVMEM_TRANSIENT)
			continue;
		why = entry->refused			  ? entry->refused
		      : entry->state == UVMEM_PAGE_SHARED ? -EPERM
		      : entry->state == UVMEM_PAGE_LOST	  ? -EBADMSG
							  : -EAGAIN;
		if (why == -EAGAIN && !err)
			*missing = place + i;
		err = why;
	}
	pthread_mutex_unlock(&uv->lock);
	return err;
}

static void ask_anew(struct uvmem *uv, uint64_t place, uint64_t pages)
{
	pthread_mutex_lock(&uv->lock);
	while (pages--)
		uv->entry[place + pages].refused = 0;
	pthread_mutex_unlock(&uv->lock);
}

static bool full(struct uvmem *uv)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };

	hmm_devmem_get_stats(uv->devmem, &stats);
	return stats.in_use >= stats.frames;
}

/*
 * One that does not come with the others is asked for alone: then the answer is about it.
 */
int uvmem_bring(struct uvmem_side *side, uint64_t place, uint64_t pages, bool all)
{
	struct uvmem *uv = side->uv;
	int64_t n, until = now() + PATIENCE_NS;
	const struct timespec delay = { .tv_nsec = 200000 };
	uint64_t at = place, count = pages;
	int err;

	ask_anew(uv, place, pages);
	for (;;) {
		n = hmm_migrate_to_device(uv->devmem, uvmem_address(uv, at),
					  count * UVMEM_PAGE);
		if (n == -ENODEV || n == -EDEADLK)
			return (int)n;
		/* Where the page was is nothing any more: it cannot be what was sealed. */
		if (n == -EINVAL && count == 1)
			return atomic_load(&uv->state) == UVMEM_SECURE ? -EBADMSG : -EFAULT;
		err = look(uv, place, pages, all, &at);
		if (err != -EAGAIN)
			return err;
		if (full(uv) && uvmem_evict(uv)) {
			count = place + pages - at;
			continue;
		}
		if (now() > until)
			return -EBUSY;
		if (count == 1)
			nanosleep(&delay, NULL);
		count = 1;
	}
}
