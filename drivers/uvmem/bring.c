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
#define PATIENCE_NS 1000000000ll

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* How it stands with some pages: 0 what is asked for is done; -EAGAIN not yet; or refused. */
static int look(struct uvmem *uv, uint64_t place, uint64_t pages, bool all)
{
	int err = 0;
	uint64_t i;

	pthread_mutex_lock(&uv->lock);
	for (i = 0; i < (all ? pages : 1) && (!err || err == -EAGAIN); i++) {
		const struct uvmem_entry *entry = &uv->entry[place + i];

		if (entry->state == UVMEM_PAGE_IN && entry->frame && !entry->refused)
			continue;
		/* While transient a page that came and had to leave again is as good. */
		if (all && entry->state == UVMEM_PAGE_OUT && !entry->refused &&
		    atomic_load(&uv->state) == UVMEM_TRANSIENT)
			continue;
		err = entry->refused			    ? entry->refused
		      : entry->state == UVMEM_PAGE_SHARED ? -EPERM
		      : entry->state == UVMEM_PAGE_LOST   ? -EBADMSG
							    : -EAGAIN;
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
	struct hmm_devmem_stats stats = {.size = sizeof(stats)};

	hmm_devmem_get_stats(uv->devmem, &stats);
	return stats.in_use >= stats.frames;
}

int uvmem_bring(struct uvmem_side *side, uint64_t place, uint64_t pages, bool all)
{
	struct uvmem *uv = side->uv;
	int64_t n, until = now() + PATIENCE_NS;
	const struct timespec delay = {.tv_nsec = 200000};
	int err;

	ask_anew(uv, place, pages);
	for (;;) {
		n = hmm_migrate_to_device(uv->devmem, uvmem_address(uv, place),
					  pages * UVMEM_PAGE);
		if (n == -ENODEV || n == -EDEADLK)
			return (int)n;
		/* Where the page was is nothing any more: it cannot be what was sealed. */
		if (n == -EINVAL)
			return atomic_load(&uv->state) == UVMEM_SECURE ? -EBADMSG : -EFAULT;
		err = look(uv, place, pages, all);
		if (err != -EAGAIN)
			return err;
		if (full(uv) && uvmem_evict(uv))
			continue;
		if (now() > until)
			return -EBUSY;
		nanosleep(&delay, NULL);
	}
}
