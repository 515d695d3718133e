/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * migrate - what the one-call migrations (migrate.c) and the three steps (setup.c) share.
 */
#ifndef UHMM_CORE_MIGRATE_H
#define UHMM_CORE_MIGRATE_H

#include "core/pager.h"

/* 0; -EINVAL; -ENODEV lost; as hmm_check_sleep(). */
int migrate_check(struct hmm_devmem *devmem);
/* The library's, libc's or a driver's own: never touched. */
bool migrate_is_ours(struct hmm *hmm, const struct os_vma *vma);
/* What lies above does not leave: the top of a thread's stack. */
uintptr_t migrate_end(struct hmm *hmm, const struct os_vma *vma);
/* Mirror the VMA at `at`; its context. */
int migrate_ctx(struct hmm *hmm, uintptr_t at, unsigned *ctx);
/* A transfer out; sleeps until one is free. */
struct hmm_transfer *migrate_claim(struct hmm_devmem *devmem, unsigned ctx);
/* Publish, and tell every device; they have forgotten the range on return. */
int migrate_tell(struct hmm_transfer *t, uintptr_t start, uintptr_t end);
/* Unshare, settle. -EAGAIN: what stayed could move now; 0; why it cannot. */
int migrate_prepare_again(struct hmm_transfer *t);
/* Frames of pages that did not become the device's. */
void migrate_give_back(struct hmm_transfer *t);

#endif
