/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * collect - what the address space does to ranges.
 *
 * Attributes are of addresses. They go when the address is unmapped, in whole or in part,
 * and when mremap moves what was there, at both ends: so it is in kfd and in xe, where an
 * mremap is an unmap of its source. Translations are not our business: each GPU has a
 * notifier for those. kfd and xe put the rest off to a worker, because their callback may
 * hold locks that it must not wait under; ours may not only sleep, it takes a leaf lock for
 * as long as a tree takes.
 *
 * What was unmapped last is remembered, for faults that are older: such a fault is about
 * memory that is no longer there, and is not served but tried again (stale-fault drain,
 * kfd's checkpoint_ts). Without that it would bring chunks of what the program has just
 * mapped at the address by attributes that were meant for something else.
 *
 * Every other change of ranges that must be mapped evicts them (evict.c).
 */
#include "svm_private.h"

/* Of a fault that began at clock `since`: was its address unmapped meanwhile? tree_lock is
 * ours. */
bool svm_is_stale(struct svm *svm, uintptr_t addr, uint64_t since)
{
	bool stale = false;
	uint64_t n, i;

	pthread_mutex_lock(&svm->tree_lock);
	n = svm->unmaps < SVM_UNMAPS ? svm->unmaps : SVM_UNMAPS;
	for (i = 0; i < n && !stale; i++) {
		const struct svm_unmap *unmap = &svm->unmap[i];

		stale = unmap->clock > since && addr >= unmap->start && addr < unmap->end;
	}
	/* More than are remembered: any of them may have been it. */
	stale |= svm->clock - since > SVM_UNMAPS;
	pthread_mutex_unlock(&svm->tree_lock);
	return stale;
}

static void forget(struct svm *svm, uintptr_t start, uintptr_t end)
{
	size_t n;

	pthread_mutex_lock(&svm->tree_lock);
	__atomic_store_n(&svm->clock, svm->clock + 1, __ATOMIC_RELEASE);
	svm->unmap[svm->unmaps++ % SVM_UNMAPS] =
		(struct svm_unmap){ start, end, svm->clock };
	n = svm_tree_clear(&svm->tree, start, end);
	if (n)
		__atomic_add_fetch(&svm->sequence, 1, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&svm->tree_lock);
	svm_count(&svm->count.collected, n);
}

/*
 * What is unmapped, or moved away, is not mapped again: it is collected, and no eviction, as in
 * kfd. A fork changes nothing of what a GPU reads; of a dead mirror the GPUs are told.
 */
static void invalidate(void *priv, const struct hmm_event *event)
{
	struct svm *svm = priv;

	switch (event->kind) {
	case HMM_EVENT_FORK:
	case HMM_EVENT_RELEASE:
		break;
	case HMM_EVENT_UNMAP:
	case HMM_EVENT_REMAP:
		forget(svm, event->start, event->end);
		break;
	default:
		svm_evict(svm, event->start, event->end);
	}
}

const struct hmm_notifier_ops svm_notifier_ops = {
	.size = sizeof(svm_notifier_ops),
	.invalidate = invalidate,
};
