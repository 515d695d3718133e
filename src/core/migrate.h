/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * migrate - what the one-call migrations (migrate.c), the three steps (setup.c) and exclusive pages
 * (exclusive.c) share.
 */
#ifndef UHMM_CORE_MIGRATE_H
#define UHMM_CORE_MIGRATE_H

#include "core/pager.h"

/* 0; -EINVAL; -ENODEV lost; as hmm_check_sleep(). */
int migrate_check(struct hmm_devmem *devmem);
/* The library's, libc's or a driver's own: never touched. */
bool migrate_is_ours(struct hmm *hmm, const struct os_vma *vma);
/* Where what is below `upto` may leave ends: before the top of a thread's stack. */
uintptr_t migrate_end(struct hmm *hmm, const struct os_vma *vma, uintptr_t upto);
/* Mirror the VMA at `at`, which has just been found; its context. */
int migrate_ctx(struct hmm *hmm, const struct os_vma *found, uintptr_t at, unsigned *ctx);
/* A transfer out; sleeps until one is free. NULL: none was for long (-ETIME). */
struct hmm_transfer *migrate_claim(struct hmm_devmem *devmem, unsigned ctx);
/* Publish, and tell every device: they have forgotten the range when the side queue has been
 * delivered so far (request.after). */
uint64_t migrate_tell(struct hmm_transfer *t, uintptr_t start, uintptr_t end);
/* Unshare, settle. -EAGAIN: what stayed could move now; 0; why it cannot. */
int migrate_prepare_again(struct hmm_transfer *t);
/* Move a piece of one VMA and one block. exclusive: NULL, or where the frame of the page, which comes
 * locked, goes to. 0; -EBUSY; -ESTALE it is not that VMA any more; -ENOSPC; -ENODEV; -EIO. */
int migrate_piece(struct hmm_devmem *devmem, const struct os_vma *vma, uintptr_t start,
		  uintptr_t end, uint64_t *exclusive);
/* Leave the sentence for one of these errors; what the program is told. */
int migrate_say_why(int err);
/* Frames of pages that did not become the device's. */
void migrate_give_back(struct hmm_transfer *t);

#endif
