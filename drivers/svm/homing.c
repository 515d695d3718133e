/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * homing - pages that leave a GPU's memory, as its copy engine tells us.
 *
 * Of these no notifier hears: what an address reads is unchanged, only the GPUs that have the
 * frame mapped lose it. A CPU's fault waits for the engine, so the engine waits for nobody, not
 * even for a lock: it writes a notice into a ring and rings a bell. Several engines write; who
 * holds evict.lock reads.
 *
 * Why they leave it does not know either. Whatever svm moves is noted before, by block, and a GPU
 * that makes room says so; what is left is taken for a CPU's fault. To be wrong there moves more
 * home than had to be, or less.
 *
 * The ring: a slot whose turn is `at` may be written as the at-th notice, one whose turn is
 * at + 1 may be read as it. Who has read it makes it the turn of at + SVM_NOTICES. A notice that
 * finds no slot is spilled: then it may have been about anything.
 */
#include "svm_private.h"

void svm_homing_init(struct svm_homing *homing)
{
	uint32_t i;

	for (i = 0; i < SVM_NOTICES; i++)
		atomic_store(&homing->notice[i].turn, i);
}

void svm_moving(struct svm *svm, uintptr_t addr)
{
	atomic_store(&svm_stripe_of(svm, addr)->moving, addr / SVM_BLOCK + 1);
}

void svm_moved(struct svm *svm, uintptr_t addr)
{
	atomic_store(&svm_stripe_of(svm, addr)->moving, 0);
}

static bool is_ours(struct svm *svm, uintptr_t addr)
{
	return atomic_load(&svm_stripe_of(svm, addr)->moving) == addr / SVM_BLOCK + 1 ||
	       atomic_load(&svm->closing);
}

/* An engine: struct gpu_policy. */
void svm_home(void *arg, struct gpu *gpu, uintptr_t start, uintptr_t end, bool room)
{
	struct svm *svm = arg;
	struct svm_homing *homing = &svm->homing;
	uint32_t at = atomic_load_explicit(&homing->put, memory_order_relaxed);

	bool touched = !room && !is_ours(svm, start);

	if (!touched && !atomic_load_explicit(&svm->evict.watch, memory_order_relaxed))
		return;
	for (;;) {
		struct svm_notice *notice = &homing->notice[at % SVM_NOTICES];
		uint32_t turn = atomic_load_explicit(&notice->turn, memory_order_acquire);

		if (turn != at && (int32_t)(turn - at) < 0) {
			atomic_store(&homing->spilled, true);
			break;
		}
		if (turn != at) {
			at = atomic_load_explicit(&homing->put, memory_order_relaxed);
		} else if (atomic_compare_exchange_weak(&homing->put, &at, at + 1)) {
			notice->start = start;
			notice->end = end;
			notice->touched = touched;
			atomic_store_explicit(&notice->turn, at + 1, memory_order_release);
			break;
		}
	}
	svm_bell_ring(&svm->evict.bell);
}

/* evict.lock held. false: there is none. */
bool svm_homing_take(struct svm_homing *homing, struct svm_span *span, bool *touched)
{
	struct svm_notice *notice = &homing->notice[homing->taken % SVM_NOTICES];

	if (atomic_load_explicit(&notice->turn, memory_order_acquire) == homing->taken + 1) {
		*span = (struct svm_span){ notice->start, notice->end };
		*touched = notice->touched;
		atomic_store_explicit(&notice->turn, homing->taken + SVM_NOTICES,
				      memory_order_release);
		homing->taken++;
		return true;
	}
	*span = (struct svm_span){ 0, UINTPTR_MAX };
	*touched = false;
	return atomic_exchange(&homing->spilled, false);
}
