/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * hush - the pager gets through a storm of changes.
 *
 * Threads in a loop of madvise keep every MOVE of their context at EAGAIN, so faults on pages
 * that are away would wait as long as the storm lasts. After a millisecond of that the helper
 * takes the address space's lock again and again (src/os/hush.c), until the pager is through. Not for
 * ever: the program shall get on, so it pauses between.
 */
#include <errno.h>

#include "core/pager.h"

#define REGION (4u << 20)
#define SHOUT_NS UINT64_C(50000000)
#define PAUSE_NS UINT64_C(5000000)

void hush_shout(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	uint64_t until = hmm->os->now() + SHOUT_NS;

	while (pager->hush && !pager->helper_stop && hmm->os->now() < until)
		hmm->os->hush((void *)pager->hush_region, REGION);
	if (pager->hush)
		hmm->os->sleep(PAUSE_NS);
}

int hush_prepare(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	pager->hush_region = (uintptr_t)hmm->os->region_map(REGION);
	if (!pager->hush_region)
		return -ENOMEM;
	/* Page tables are enough: the zero page. */
	return hmm->os->populate(pager->hush_region, pager->hush_region + REGION, false);
}

void hush_release(struct hmm *hmm)
{
	if (hmm->pager->hush_region)
		hmm->os->region_unmap((void *)hmm->pager->hush_region, REGION);
}

void hush(struct hmm *hmm, bool on)
{
	struct pager *pager = hmm->pager;

	if (pager->hush == on)
		return;
	pager->hush = on;
	if (on)
		helper_wake(hmm);
}
