/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * setup - a migration in three steps, by a driver that copies itself: isolate, own, finish.
 */
#include <errno.h>
#include <sys/mman.h>

#include "core/migrate.h"

static int check_range(const struct hmm_migrate *m)
{
	if (m->start >= m->end || ((m->start | m->end) & (PAGE - 1)))
		return error_say(-EINVAL, "the range is empty or not aligned to pages");
	if ((m->start & ~(BLOCK - 1)) != ((m->end - 1) & ~(BLOCK - 1)))
		return error_say(-EINVAL, "the range reaches over a border of 2 MiB");
	if (!m->src || !m->dst)
		return error_say(-EINVAL, "no source or destination entries");
	return 0;
}

static int check_setup(const struct hmm_migrate *m, struct os_vma *vma)
{
	int err = m ? struct_check(m, m->size, sizeof(*m)) : -EINVAL;
	struct hmm *hmm;

	if (!err)
		err = migrate_check(m->devmem);
	if (!err)
		err = check_range(m);
	if (err)
		return err;
	hmm = m->devmem->hmm;
	if (hmm->os->vma_find(&hmm->mm, m->start, vma) || vma->start > m->start ||
	    vma->end < m->end || !(vma->prot & PROT_READ))
		return error_say(-EINVAL, "the range is not one readable mapping");
	return 0;
}

static void answer(struct hmm_migrate *m, const struct hmm_transfer *t)
{
	m->cpages = 0;
	for (unsigned i = 0; i < m->npages; i++) {
		const struct moving *page = &t->page[i];

		m->src[i] = 0;
		if (page->is == PAGE_HOLE)
			m->src[i] = HMM_MIGRATE_MIGRATE | HMM_MIGRATE_WRITE;
		else if (page->is == PAGE_BUFFER)
			m->src[i] = (page->host >> OS_PAGE_SHIFT) << HMM_MIGRATE_SHIFT |
				    HMM_MIGRATE_VALID | HMM_MIGRATE_MIGRATE | HMM_MIGRATE_WRITE;
		m->cpages += m->src[i] != 0;
	}
}

/* All of it, but for what threads need when they end. */
static void fill(struct hmm_migrate *m, struct hmm_transfer *t, uintptr_t usable)
{
	struct hmm *hmm = t->hmm;
	uint64_t threads[BLOCK_PAGES / 64];

	hmm->os->thread_pages(&hmm->mm, m->start, m->end, threads);
	t->n = m->npages;
	for (unsigned i = 0; i < t->n; i++) {
		uintptr_t at = m->start + i * PAGE;

		t->page[i] = (struct moving){ .addr = at, .frame = NO_FRAME };
		t->page[i].kept = at >= usable || os_has_page(threads, i);
	}
}

/* -EAGAIN: once more, what stayed could move now. */
static int take(struct hmm_migrate *m, const struct os_vma *vma, uintptr_t usable, bool last)
{
	struct request take = { .kind = REQUEST_TAKE }, back = { .kind = REQUEST_RETURN };
	struct hmm *hmm = m->devmem->hmm;
	struct hmm_transfer *t;
	unsigned ctx;
	int err = migrate_ctx(hmm, vma, m->start, &ctx);

	if (err)
		return err;
	t = migrate_claim(m->devmem, ctx);
	if (!t)
		return -ETIME;
	t->steps = true;
	fill(m, t, usable);
	take.transfer = back.transfer = t;
	take.after = migrate_tell(t, m->start, m->end);
	err = request_do(hmm, &take);
	if (!err && !last)
		err = migrate_prepare_again(t) == -EAGAIN ? -EAGAIN : 0;
	if (!err) {
		answer(m, t);
		m->transfer = t;
		return 0;
	}
	if (t->state == TRANSFER_TAKEN)
		request_do(hmm, &back);
	transfer_free(t);
	return err == -ESTALE ? -EAGAIN : err;
}

int hmm_migrate_setup(struct hmm_migrate *m)
{
	struct os_vma vma;
	uintptr_t usable;
	int err = check_setup(m, &vma);

	if (err)
		return err;
	m->npages = (unsigned)((m->end - m->start) >> OS_PAGE_SHIFT);
	m->cpages = 0;
	m->transfer = NULL;
	for (unsigned i = 0; i < m->npages; i++)
		m->src[i] = m->dst[i] = 0;
	if (!leave_can(&vma) || migrate_is_ours(m->devmem->hmm, &vma))
		return 0;
	usable = migrate_end(m->devmem->hmm, &vma, m->end);
	err = -EAGAIN;
	for (unsigned round = 0; round < 4 && err == -EAGAIN; round++)
		err = take(m, &vma, usable, round == 3);
	if (err == -ETIME)
		return migrate_say_why(err);
	return err == -EAGAIN || err == -EBUSY
		       ? error_say(-EBUSY, "the range keeps changing, or a fork runs") : err;
}

static bool named_twice(const struct hmm_migrate *m, unsigned i)
{
	for (unsigned k = 0; k < i; k++)
		if (m->dst[k] == m->dst[i])
			return true;
	return false;
}

static int check_frames(const struct hmm_migrate *m)
{
	for (unsigned i = 0; i < m->npages; i++) {
		uint64_t frame = m->dst[i] >> HMM_MIGRATE_SHIFT;

		if (!m->dst[i])
			continue;
		if (!frame_is_used(m->devmem, frame) || m->devmem->frame[frame].addr ||
		    named_twice(m, i))
			return error_say(-EINVAL, "a dst entry is no frame from hmm_devmem_frames()");
	}
	return 0;
}

int hmm_migrate_pages(struct hmm_migrate *m)
{
	struct request commit = { .kind = REQUEST_COMMIT };
	struct hmm_transfer *t = m ? m->transfer : NULL;
	int err, moved = 0;

	if (!t)
		return 0;
	err = check_frames(m);
	if (err)
		return err;
	for (unsigned i = 0; i < t->n; i++)
		if (m->dst[i])
			t->page[i].frame = m->dst[i] >> HMM_MIGRATE_SHIFT;
	commit.transfer = t;
	request_do(t->hmm, &commit);
	for (unsigned i = 0; i < t->n; i++) {
		if (t->page[i].is == PAGE_GONE)
			moved++;
		else
			m->src[i] &= ~HMM_MIGRATE_MIGRATE;
	}
	return moved;
}

void hmm_migrate_finalize(struct hmm_migrate *m)
{
	struct request back = { .kind = REQUEST_RETURN };
	struct hmm_transfer *t = m ? m->transfer : NULL;

	if (!t)
		return;
	back.transfer = t;
	request_do(t->hmm, &back);
	migrate_give_back(t);
	transfer_free(t);
	m->transfer = NULL;
}
