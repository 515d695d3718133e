/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * shootdown - no SM uses a translation of a range any more (G4).
 *
 * An SM looks up and uses a translation inside an access section only: its `section`
 * is odd from before the lookup until after the access, and a section holds exactly
 * one lookup. To refill its TLB it reads the page table, inside the section too.
 * Entering and leaving cost the SM two plain stores; the store-load barrier between
 * "I am inside" and "what does the table say" is bought here, by membarrier(2), which
 * runs one on every CPU that runs a thread of ours. Where membarrier is refused each
 * section pays for a full fence itself (sm->fenced).
 *
 * The order, and why nothing stale is left. The caller has cleared the table (C).
 *
 *	F1  empty the slots of the range in each TLB
 *	    full fence; is any SM active?
 *	B1  if so: barrier, then wait until each section that was open has ended
 *	F2  empty the slots again; did one hold a translation of the range?
 *	B2  if so: barrier, wait again
 *
 *  - A section that began after B1's barrier sees C: it refills nothing old. One that
 *    began before it has ended when B1 is over. So after B1 no old translation enters
 *    a TLB any more. If no SM was active there was no section open, and an SM that
 *    becomes active later fences after it has said so, hence sees C too.
 *  - After B1 an old translation can be used only out of a slot that a section refilled
 *    between F1 and the end of B1. A section that uses it now leaves the slot alone
 *    (one lookup a section), so F2 finds it: then B2 waits for that section, and later
 *    ones see the empty slot. If F2 finds nothing, nobody uses one.
 *  - Emptying a slot that its SM refills meanwhile can at worst throw a good
 *    translation away. Only the owner writes anything else into a slot, so it never
 *    reads half of one (gpu.h).
 *
 * The wait is bounded: a section does one access of at most a page, by fault-safe copy,
 * to memory that was mirrored when it was looked up. It may sleep in a page fault that
 * the kernel serves, never for the reader or the worker (G6).
 */
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gpu_private.h"

/* Spins before the first yield; a hit's section is over within some of them. */
#define GPU_SPINS 100

static int membarrier(int command)
{
	return (int)syscall(__NR_membarrier, command, 0, 0);
}

/* Before the SMs and the notifier: every slot is empty. */
void gpu_shootdown_init(struct gpu *gpu)
{
	bool fenced = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0;
	unsigned i, slot;

	if (fenced)
		hmm_log(HMM_LOG_WARN, "gpu: membarrier is refused (errno %d): each access "
			"pays for a full fence", errno);
	for (i = 0; i < gpu->sms; i++) {
		gpu->sm[i].fenced = fenced;
		for (slot = 0; slot < GPU_TLB_ENTRIES; slot++)
			gpu->sm[i].tlb.slot[slot].page = GPU_TLB_NONE;
	}
}

/* Empty the slots of pages [first, first + pages). Return: was there one? */
static bool flush_one(struct gpu_tlb *tlb, uintptr_t first, uintptr_t pages)
{
	uintptr_t i, n = pages < GPU_TLB_ENTRIES ? pages : GPU_TLB_ENTRIES;
	bool found = false;

	for (i = 0; i < n; i++) {
		struct gpu_tlb_slot *slot = gpu_tlb_at(tlb, first + i);

		if (__atomic_load_n(&slot->page, __ATOMIC_RELAXED) - first >= pages)
			continue;
		__atomic_store_n(&slot->page, GPU_TLB_NONE, __ATOMIC_RELAXED);
		found = true;
	}
	return found;
}

static bool flush_all(struct gpu *gpu, uintptr_t first, uintptr_t pages)
{
	bool found = false;
	unsigned i;

	for (i = 0; i < gpu->sms; i++)
		found |= flush_one(&gpu->sm[i].tlb, first, pages);
	return found;
}

static bool any_active(struct gpu *gpu)
{
	unsigned i;

	atomic_thread_fence(memory_order_seq_cst);
	for (i = 0; i < gpu->sms; i++) {
		if (atomic_load_explicit(&gpu->sm[i].active, memory_order_acquire))
			return true;
	}
	return false;
}

static unsigned section_of(struct gpu_sm *sm)
{
	return atomic_load_explicit(&sm->section, memory_order_acquire);
}

/* The barrier, then the end of every section that was open at it. */
static void quiesce(struct gpu *gpu)
{
	unsigned i, spins, seen;

	atomic_thread_fence(memory_order_seq_cst);
	if (!gpu->sm[0].fenced)
		membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	for (i = 0; i < gpu->sms; i++) {
		seen = section_of(&gpu->sm[i]);
		for (spins = 0; (seen & 1) && section_of(&gpu->sm[i]) == seen; spins++) {
			if (spins >= GPU_SPINS)
				sched_yield();
		}
	}
}

/* Update lock held, the table is cleared of the range. */
void gpu_shootdown(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	const uintptr_t block = GPU_HUGE / GPU_PAGE;
	uintptr_t first = start >> UHMM_PTABLE_PAGE_SHIFT;
	uintptr_t last = (end >> UHMM_PTABLE_PAGE_SHIFT) + !!(end % GPU_PAGE);

	/* A 2 MiB entry goes as a whole, so all that TLBs took out of it must go. */
	if (gpu->mmu.huge) {
		first -= first % block;
		last += (block - last % block) % block;
	}
	flush_all(gpu, first, last - first);
	if (any_active(gpu))
		quiesce(gpu);
	if (flush_all(gpu, first, last - first))
		quiesce(gpu);
}
