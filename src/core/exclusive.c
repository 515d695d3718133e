/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * exclusive - one page for a device alone, as long as its atomics need it.
 *
 * It is a migration of one page to a devmem of host frames, which comes locked: a CPU's fault
 * waits for the release (pager.c). A page that is there already is only locked.
 */
#include <errno.h>
#include <sys/mman.h>

#include "core/migrate.h"

#define ROUNDS 6u
/* How long a page that another has, or that is on its way, is waited for; and between two looks. */
#define PATIENCE_NS UINT64_C(10000000000)
#define PAUSE_MIN_NS UINT64_C(10000)
#define PAUSE_MAX_NS UINT64_C(1000000)

/* Is it a page that a device can have for itself? */
static int check(struct hmm *hmm, uintptr_t page, struct os_vma *vma)
{
	bool hole = hmm->os->vma_find(&hmm->mm, page, vma) || vma->start > page;

	if (hole && hole_end(hmm, page, page + PAGE) == page)
		return -EBUSY;
	if (hole || !(vma->prot & PROT_READ))
		return error_say(-EFAULT, "nothing readable is mapped there");
	if (vma->shared || vma->inode || vma->kind == OS_VMA_SPECIAL)
		return error_say(-EOPNOTSUPP, "only private anonymous memory can be exclusive");
	if (!(vma->prot & PROT_WRITE))
		return error_say(-EPERM, "the mapping is read-only");
	if (!leave_can(vma) || migrate_is_ours(hmm, vma) ||
	    page >= migrate_end(hmm, vma, page + PAGE))
		return error_say(-EBUSY, "the page cannot be moved");
	return 0;
}

/* A page that `devmem` has; -ENOENT it has it not; -EAGAIN another has it all the time. */
static int lock_there(struct hmm_devmem *devmem, uintptr_t page, uint64_t *frame)
{
	struct request lock = { .kind = REQUEST_LOCK, .devmem = devmem, .start = page };
	struct hmm *hmm = devmem->hmm;
	uint64_t until = hmm->os->now() + PATIENCE_NS, pause = PAUSE_MIN_NS;
	int err;

	for (;;) {
		uint32_t released = hmm->pager->released;

		err = books_get(hmm, page) ? request_do(hmm, &lock) : -ENOENT;
		if (err != -EAGAIN || hmm->os->now() >= until)
			break;
		hmm->os->wait((const uint32_t *)&hmm->pager->released, released, pause);
		pause = pause * 2 < PAUSE_MAX_NS ? pause * 2 : PAUSE_MAX_NS;
	}
	if (!err)
		*frame = lock.moved;
	return err;
}

static int try(struct hmm_devmem *devmem, uintptr_t page, uint64_t *frame)
{
	struct hmm *hmm = devmem->hmm;
	struct os_vma vma;
	int err = lock_there(devmem, page, frame);

	if (err != -ENOENT)
		return err;
	err = check(hmm, page, &vma);
	if (!err)
		err = hmm->os->populate(page, page + PAGE, true);
	if (!err)
		err = migrate_piece(devmem, &vma, page, page + PAGE, frame);
	return err;
}

int hmm_make_exclusive(struct hmm_devmem *devmem, uintptr_t addr, uint64_t *frame)
{
	uintptr_t page = PAGE_DOWN(addr);
	uint64_t got = NO_FRAME;
	int err = migrate_check(devmem);

	if (!err && (!frame || !devmem->options.host_frames))
		err = error_say(-EINVAL, "exclusive pages need a devmem of host frames");
	if (err)
		return err;
	for (unsigned round = 0; !err && got == NO_FRAME && round < ROUNDS; round++) {
		err = try(devmem, page, &got);
		if (err == -EBUSY || err == -ESTALE || err == -EFAULT)
			err = round + 1 < ROUNDS ? 0 : err;
	}
	if (err == -EAGAIN)
		return error_say(-EBUSY, "another has the page for itself, and does not release it");
	if (!err && got == NO_FRAME)
		err = -EBUSY;
	if (err == -EFAULT || err == -EOPNOTSUPP || err == -EPERM)
		return err;
	if (err)
		return migrate_say_why(err);
	*frame = got;
	return 0;
}

void hmm_exclusive_release(struct hmm_devmem *devmem, uint64_t frame)
{
	if (!devmem || frame >= devmem->options.frames)
		return;
	devmem->frame[frame].locked = 0;
	atomic_fetch_add(&devmem->hmm->pager->released, 1);
	devmem->hmm->os->wake((const uint32_t *)&devmem->hmm->pager->released);
	devmem->hmm->os->reader_nudge(devmem->hmm->os_ctx);
}
