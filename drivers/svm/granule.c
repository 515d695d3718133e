/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * granule - what goes to a GPU behind the chunk of a fault: a granularity above that of the largest
 * chunk (kfd: the aligned 1 << granularity pages, cut to the range).
 *
 * One block of 2 MiB after the other, from the fault upwards and then downwards from it, until the
 * GPU's memory is full of them: more would only drive out what has just come. The fault's stripe is
 * held. Stripes have no order, so those of other blocks are only tried: where somebody else brings
 * something, or another GPU has its time slice, the block is left to its own fault.
 */
#include "svm_private.h"

/* Pages that are there. */
static int64_t bring_block(struct svm *svm, const struct svm_fault *fault, uint32_t where,
			   uintptr_t start, uintptr_t end)
{
	struct svm_stripe *stripe = svm_stripe_of(svm, start);
	bool ours = stripe == svm_stripe_of(svm, fault->addr);
	int64_t n = 0;

	if (!ours && pthread_mutex_trylock(&stripe->lock))
		return 0;
	if (!svm_slice_left(&stripe->slice, start / SVM_BLOCK, svm->gpu[where], svm_now()))
		n = svm_carry(svm, start, end, where, fault->attrs.flags);
	if (!ours)
		pthread_mutex_unlock(&stripe->lock);
	if (n > 0)
		svm_count(&svm->count.chunks[0], end - start == SVM_BLOCK);
	return n > 0 ? n : 0;
}

void svm_granule(struct svm *svm, const struct svm_fault *fault, uint32_t where)
{
	const uint32_t granularity = fault->attrs.granularity;
	const uintptr_t block = fault->addr & -SVM_BLOCK;
	uintptr_t size, from, to, at;
	uint64_t room = svm->options.vram_bytes / SVM_PAGE, most = SVM_BLOCK / SVM_PAGE;

	if (granularity <= SVM_GRANULARITY)
		return;
	/* All of the address space, where the shift would be too far. */
	size = granularity < SVM_SPACE_BITS - 12 ? SVM_PAGE << granularity
						 : (uintptr_t)1 << SVM_SPACE_BITS;
	from = fault->addr & -size;
	to = from + size;
	svm_attrs_of(svm, fault->addr, &from, &to);
	room -= room < most ? room : most; /* the fault's own */
	for (at = block + SVM_BLOCK; at < to && room >= most; at += SVM_BLOCK)
		room -= (uint64_t)bring_block(svm, fault, where, at,
					      to - at < SVM_BLOCK ? to : at + SVM_BLOCK);
	for (at = block; at > from && room >= most; at -= SVM_BLOCK)
		room -= (uint64_t)bring_block(svm, fault, where,
					      at - from < SVM_BLOCK ? from : at - SVM_BLOCK, at);
}
