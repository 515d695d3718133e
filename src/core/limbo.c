/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * limbo - frames whose page is the program's no more, while somebody may still use them.
 *
 * A frame leaves when
 * - the worker has delivered the event that took its page: devices have forgotten it;
 * - its context is quiet: no FORK is pending whose child still wants the page (it may be
 *   read after a later UNMAP);
 * - nobody holds it (hmm_devmem_frame_get).
 * Pages that came from the program are discarded here, never used again (L5): moved into a
 * region of a context without events, and zapped there, which sends no message to ourselves.
 */
#include <errno.h>

#include "core/pager.h"

void limbo_add(struct hmm *hmm, const struct limbo_entry *entry)
{
	struct pager *pager = hmm->pager;

	/* Full: the frame is lost to the device, which is better than used twice. */
	if (pager->limbo_n < LIMBO)
		pager->limbo[pager->limbo_n++] = *entry;
	else
		atomic_fetch_add(&entry->devmem->count.failed, 1);
}

bool limbo_has(const struct hmm *hmm, const struct hmm_devmem *devmem)
{
	const struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < pager->limbo_n; i++)
		if (pager->limbo[i].devmem == devmem)
			return true;
	return false;
}

int trash(struct hmm *hmm, uintptr_t start, size_t length)
{
	struct pager *pager = hmm->pager;
	uintptr_t to = pager->trash + (start & (BLOCK - 1));
	size_t done = 0;
	int err = hmm->os->ctx_move(&pager->quiet, to, start, length, &done);

	if (done || err == -EEXIST)
		hmm->os->region_zap(to, length);
	return err;
}

static bool is_quiet(struct hmm *hmm, unsigned ctx, unsigned *known, unsigned *quiet)
{
	if (!(*known >> ctx & 1)) {
		*known |= 1u << ctx;
		if (!hmm->os->ctx_probe(&hmm->os_ctx[ctx]))
			*quiet |= 1u << ctx;
	}
	return *quiet >> ctx & 1;
}

static bool can_go(struct hmm *hmm, struct limbo_entry *e, unsigned *known, unsigned *quiet)
{
	if (e->unmapped && is_quiet(hmm, e->ctx, known, quiet))
		e->unmapped = false;
	return !e->unmapped && !e->devmem->frame[e->frame].held &&
	       hmm->gate[e->queue].queue.done >= e->number;
}

static bool go(struct hmm *hmm, const struct limbo_entry *e)
{
	struct hmm_devmem *devmem = e->devmem;

	if (e->host && trash(hmm, frame_host(devmem, e->frame), PAGE))
		return false;
	frames_give(devmem, e->frame, 1);
	return true;
}

void limbo_drain(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	unsigned kept = 0, known = 0, quiet = 0;

	for (unsigned i = 0; i < pager->limbo_n; i++) {
		struct limbo_entry *e = &pager->limbo[i];

		if (!can_go(hmm, e, &known, &quiet) || !go(hmm, e))
			pager->limbo[kept++] = *e;
	}
	pager->limbo_n = kept;
}
