/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * regcache_pins - is what is pinned what a CPU finds there? (R3)
 *
 * As dma_fence.c: what is pinned is nobody else's page, so as long as the CPU's page table has the
 * number that was pinned it is the same page. Here the numbers are read before the pin and compared
 * after it. Read after it only, they would be another page's if that came in between, and equal
 * for ever.
 */
#include <errno.h>

#include "core/pager.h"
#include "core/regcache.h"

#define AT_ONCE 256u

void pins_note(struct hmm_region *r)
{
	struct hmm_regcache *cache = r->cache;
	size_t n = (r->end - r->start) / PAGE;

	/* No memory for a note: it is registered for one get. */
	if (!cache->unverified)
		r->frame = arena_alloc(cache->hmm->arena, n * sizeof(*r->frame));
	if (!r->frame || !cache->hmm->os->page_frames(&cache->hmm->mm, r->start, n, r->frame))
		return;
	arena_free(cache->hmm->arena, r->frame, n * sizeof(*r->frame));
	r->frame = NULL;
	if (!atomic_exchange(&cache->unverified, true))
		hmm_log(HMM_LOG_WARN, "regcache: the numbers of pages are not told to this process: "
			"nothing that is pinned can be kept (give CAP_SYS_ADMIN)");
}

bool pins_hold(const struct hmm_region *r, uintptr_t start, uintptr_t end)
{
	const struct hmm *hmm = r->cache->hmm;
	uint64_t frame[AT_ONCE];

	if (!r->frame)
		return true;
	for (start = PAGE_DOWN(start); start < end;) {
		size_t n = (end - start + PAGE - 1) / PAGE, first = (start - r->start) / PAGE;

		if (n > AT_ONCE)
			n = AT_ONCE;
		if (hmm->os->page_frames(&hmm->mm, start, n, frame))
			return false;
		for (size_t i = 0; i < n; i++)
			if (!frame[i] || frame[i] != r->frame[first + i])
				return false;
		start += n * PAGE;
	}
	return true;
}
