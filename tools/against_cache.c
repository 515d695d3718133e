// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * against_cache - the order of things in libfabric's cache (util_mr_cache.c), for one
 * range: find and ask valid under the lock; if not, register without it, then enter and
 * subscribe under it; what cannot be subscribed is used once and not kept.
 */
#include "against.h"

static bool covers(const struct against_cache *cache, uintptr_t start, uintptr_t end)
{
	return cache->start <= start && end <= cache->end;
}

int against_cache_lookup(struct against_cache *cache, char *addr, size_t length,
			 uint64_t *serial)
{
	uintptr_t start = (uintptr_t)addr, end = start + length;

	pthread_mutex_lock(cache->lock);
	if (covers(cache, start, end) && cache->valid(cache->monitor, addr, length)) {
		*serial = cache->serial;
		pthread_mutex_unlock(cache->lock);
		return 0;
	}
	cache->start = cache->end = 0;
	pthread_mutex_unlock(cache->lock);

	*serial = ++cache->serials; /* here a provider registers */

	pthread_mutex_lock(cache->lock);
	cache->serial = *serial;
	cache->start = start;
	cache->end = end;
	if (cache->subscribe(cache->monitor, addr, length))
		cache->start = cache->end = 0;
	pthread_mutex_unlock(cache->lock);
	return 0;
}

void against_cache_notify(struct against_cache *cache, const void *addr, size_t length)
{
	uintptr_t start = (uintptr_t)addr;

	if (start < cache->end && cache->start < start + length)
		cache->start = cache->end = 0;
}
