/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * hush - the pager gets through a storm of changes.
 *
 * Threads in a loop of madvise keep every MOVE of their context at EAGAIN, so faults on pages
 * that are away would wait as long as the storm lasts. After a millisecond of that this thread
 * takes the address space's lock again and again (src/os/hush.c), until the pager is through. Not for
 * ever: the program shall get on, so it pauses between.
 */
#include <errno.h>

#include "core/pager.h"

#define REGION (4u << 20)
#define SHOUT_NS UINT64_C(50000000)
#define PAUSE_NS UINT64_C(5000000)

static void shout(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	uint64_t until = hmm->os->now() + SHOUT_NS;

	while (pager->hush && !pager->hush_stop && hmm->os->now() < until)
		hmm->os->hush((void *)pager->hush_region, REGION);
	if (pager->hush)
		hmm->os->sleep(PAUSE_NS);
}

static void *hush_main(void *arg)
{
	struct hmm *hmm = arg;
	struct pager *pager = hmm->pager;

	while (!pager->hush_stop) {
		if (pager->hush)
			shout(hmm);
		else
			hmm->os->wait((const uint32_t *)&pager->hush, 0, 0);
	}
	return NULL;
}

int hush_start(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	pager->hush_region = (uintptr_t)hmm->os->region_map(REGION);
	if (!pager->hush_region)
		return -ENOMEM;
	/* Page tables are enough: the zero page. */
	if (hmm->os->populate(pager->hush_region, pager->hush_region + REGION, false))
		return -ENOMEM;
	return hmm->os->thread_start(&pager->hush_thread, "uhmm-hush", false, hush_main, hmm);
}

void hush_end(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	pager->hush_stop = true;
	pager->hush = 1;
	hmm->os->wake((const uint32_t *)&pager->hush);
	if (pager->hush_thread)
		hmm->os->thread_join(pager->hush_thread);
	if (pager->hush_region)
		hmm->os->region_unmap((void *)pager->hush_region, REGION);
}

void hush(struct hmm *hmm, bool on)
{
	struct pager *pager = hmm->pager;

	if (pager->hush == on || pager->hush_stop)
		return;
	pager->hush = on;
	if (on)
		hmm->os->wake((const uint32_t *)&pager->hush);
}
