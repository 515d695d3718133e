/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * slice - how long a 2 MiB block stays with the GPU that fetched it before another gets it.
 *
 * Two GPUs that both want a block would take it from each other before either got on. So who
 * fetched it has it for a time; and who takes it as soon as that is over keeps it twice as long,
 * up to a most, so that a fight costs less and less (xe doubles with each retry). A block that
 * nobody fights for begins anew. Times are ns of any clock that does not go back.
 *
 * No call locks: the owner does (svm_stripe).
 */
#ifndef SVM_SLICE_H
#define SVM_SLICE_H

#include <stdint.h>

struct svm_slice {
	uint64_t block;	    /* that moved last, by number */
	const void *to;	    /* there; NULL: none did yet */
	uint64_t moved, ns; /* then, and so long it stays */
};

/* How long `to` has to wait for the block. */
uint64_t svm_slice_left(const struct svm_slice *slice, uint64_t block, const void *to,
			uint64_t now);
/* It has moved there. base, most: lengths. */
void svm_slice_moved(struct svm_slice *slice, uint64_t block, const void *to, uint64_t now,
		     uint64_t base, uint64_t most);

#endif
