/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fault - what a GPU's miss becomes (svm_range_restore_pages, xe_svm_handle_pagefault).
 *
 * The SM that missed comes here first, in its own thread. In turn:
 *
 *	duplicate?	somebody else's fault has been served meanwhile: try again
 *	stale?		what was there when it missed has been unmapped: try again
 *			(collect.c)
 *	allowed?	-EACCES, -EPERM by attributes; an atomic may need more than a
 *			translation: its page in a GPU's memory
 *	must be mapped?	wait while something is evicted (evict.c)
 *	else		bring the chunk to where it belongs (place.c)
 *
 * and then the GPU's handler maps what is there now, as far as svm_may() allows. SMs that
 * miss in one 2 MiB block, of whichever GPU, are let in one after the other, so most are
 * duplicates.
 */
#include "svm_private.h"

struct svm_stripe *svm_stripe_of(struct svm *svm, uintptr_t addr)
{
	uint64_t block = addr / SVM_BLOCK;

	return &svm->stripe[(block ^ block >> 6 ^ block >> 12) % SVM_STRIPES];
}

static bool is_served(struct svm *svm, struct gpu *gpu, uintptr_t addr,
		      enum gpu_access access)
{
	uint64_t entry = gpu_lookup(gpu, (void *)addr);
	uintptr_t start = addr, end = addr + 1;

	if (!svm_allows(entry, access))
		return false;
	if (access == GPU_ATOMIC) {
		struct svm_attrs attrs = svm_attrs_of(svm, addr, &start, &end);

		/* A translation is not enough then. */
		if (attrs.atomic == SVM_ATOMIC_CPU ||
		    (svm_needs_device(&attrs, access) && !hmm_pfn_is_device(entry)))
			return false;
	}
	svm_count(&svm->count.duplicates, 1);
	return true;
}

static int permit(const struct svm_attrs *attrs, unsigned gpu, enum gpu_access access)
{
	if (!((attrs->access | attrs->in_place) >> gpu & 1))
		return -EACCES;
	if (access == GPU_ATOMIC && attrs->atomic == SVM_ATOMIC_CPU)
		return -EACCES;
	return access != GPU_READ && attrs->flags & SVM_FLAG_GPU_RO ? -EPERM : 0;
}

bool svm_needs_device(const struct svm_attrs *attrs, enum gpu_access access)
{
	return access == GPU_ATOMIC && attrs->atomic == SVM_ATOMIC_DEVICE;
}

/* Its stripe is held. */
static int serve(struct svm *svm, struct gpu *gpu, uintptr_t addr, enum gpu_access access,
		 uint64_t since, bool *must)
{
	uintptr_t start = addr, end = addr + 1;
	struct svm_attrs attrs;
	unsigned index = svm_index(svm, gpu);
	int err;

	if (svm_is_stale(svm, addr, since)) {
		svm_count(&svm->count.drained, 1);
		return 1;
	}
	attrs = svm_attrs_of(svm, addr, &start, &end);
	err = permit(&attrs, index, access);
	if (err) {
		svm_count(&svm->count.denied, 1);
		return err;
	}
	*must = svm_must_map(svm, &attrs);
	return *must && !svm_needs_device(&attrs, access)
		       ? 0
		       : svm_bring(svm, index, addr, access);
}

int svm_gpu_fault(void *arg, struct gpu *gpu, uintptr_t addr, enum gpu_access access, bool gone)
{
	struct svm *svm = arg;
	struct svm_stripe *stripe = svm_stripe_of(svm, addr);
	uint64_t since = __atomic_load_n(&svm->clock, __ATOMIC_ACQUIRE);
	bool must = false;
	int err = 1;

	svm_count(&svm->count.faults, 1);
	if (!gone && is_served(svm, gpu, addr, access))
		return 1;
	pthread_mutex_lock(&stripe->lock);
	if (gone || !is_served(svm, gpu, addr, access))
		err = serve(svm, gpu, addr, access, since, &must);
	pthread_mutex_unlock(&stripe->lock);
	return must && !err && !gone ? svm_miss(svm) : err;
}

/*
 * The GPU's handler. Another GPU's memory is mapped only where pages are meant to be used
 * in place, or nobody may fault for them: elsewhere a page that lies there faults, and
 * comes.
 */
unsigned svm_may(void *arg, struct gpu *gpu, uintptr_t addr, uintptr_t *end)
{
	struct svm *svm = arg;
	uintptr_t start = addr;
	struct svm_attrs attrs = svm_attrs_of(svm, addr, &start, end);
	unsigned index = svm_index(svm, gpu), may = GPU_MAY_READ;

	if (permit(&attrs, index, GPU_READ))
		return 0;
	if (!(attrs.flags & SVM_FLAG_GPU_RO))
		may |= GPU_MAY_WRITE;
	if (attrs.flags & SVM_FLAG_READ_MOSTLY)
		may |= GPU_MAY_DEMAND;
	if (attrs.atomic != SVM_ATOMIC_CPU)
		may |= GPU_MAY_ATOMIC;
	if (attrs.atomic != SVM_ATOMIC_CPU && attrs.atomic != SVM_ATOMIC_DEVICE)
		may |= GPU_MAY_ATOMIC_SYSTEM;
	if (attrs.in_place >> index & 1 || attrs.flags & SVM_FLAG_READ_MOSTLY ||
	    svm_must_map(svm, &attrs) ||
	    (attrs.preferred < svm->options.gpus && attrs.preferred != index))
		may |= GPU_MAY_PEER;
	return may;
}
