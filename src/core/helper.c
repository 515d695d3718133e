/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * helper - a thread for what the pager may not do itself, because it would have to wait:
 * quieting a storm of changes (hush.c), and making pages ahead (fresh.c).
 *
 * Nobody waits for it: without it faults may have to wait for the end of a storm, and pages are
 * made when they are needed.
 */
#include "core/pager.h"

bool helper_hurries(const struct pager *pager)
{
	return pager->hush || pager->helper_stop;
}

void helper_wake(struct hmm *hmm)
{
	atomic_fetch_add(&hmm->pager->helper_work, 1);
	hmm->os->wake((const uint32_t *)&hmm->pager->helper_work);
}

static void *helper_main(void *arg)
{
	struct hmm *hmm = arg;
	struct pager *pager = hmm->pager;

	while (!pager->helper_stop) {
		uint32_t work = pager->helper_work;

		if (pager->hush)
			hush_shout(hmm);
		else if (!fresh_fill(hmm))
			hmm->os->wait((const uint32_t *)&pager->helper_work, work, 0);
	}
	return NULL;
}

int helper_start(struct hmm *hmm)
{
	int err = hush_prepare(hmm);

	return err ? err : hmm->os->thread_start(&hmm->pager->helper, "uhmm-helper", false,
						 helper_main, hmm);
}

void helper_end(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	pager->helper_stop = true;
	if (pager->helper) {
		helper_wake(hmm);
		hmm->os->thread_join(pager->helper);
	}
	hush_release(hmm);
}
