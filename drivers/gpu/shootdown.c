/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * shootdown - no SM uses a translation of a range any more (G4), or of a frame.
 *
 * An SM looks up and uses a translation inside an access section only: its `section`
 * says so from before the lookup until after the access, and a section holds exactly
 * one lookup. To refill its TLB it reads the page table, inside the section too.
 * Entering and leaving cost the SM plain stores; the store-load barrier between
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
 *  - What is installed while we wait is not old: it was validated under the update lock
 *    after C (G2). F2 may throw it away too, and B2 then waits for nothing; that is all.
 *
 * Two kinds of sections, two kinds of waits. A section that uses system memory may sleep in
 * a fault that the library's reader serves, perhaps with the copy engine's help. It says
 * GPU_SECTION_SYSTEM before it touches anything. One that has not said so has not looked up
 * yet or uses a frame, and never sleeps: the page table, the SM's own memory and frames
 * do not move, and are not taken away before it has ended.
 *
 *  - gpu_shootdown() is for who forgets a range: the worker, the handler. It waits for all
 *    sections, so not under the update lock, which the engine needs to serve the very
 *    faults that those sections sleep in. mmu.flush is held instead, which the engine does
 *    not take: two who forget come one after the other, so who finds nothing in the table
 *    knows that nothing is in use either.
 *  - gpu_shootdown_pages() is for the engine, before frames go home. It waits for sections
 *    of frames only, under the update lock. B1 and B2 may skip a section that is seen to be
 *    of system memory: what it holds, and refilled its TLB with, is no frame. The state is
 *    stored after the lookup, so a section whose lookup gave a frame is never seen with it.
 *    It flushes the pages even when the table has nothing of them: somebody may have
 *    cleared it and not be done. Who forgets cannot come in between: its C needs the lock.
 *
 * So two of different kinds can run together, and one may empty the slot that the other's F2
 * should have found. Flushes are counted when they begin and when they end: if one of
 * another's was under way at any time from before F1 to after F2, B2 is done in any case.
 *
 * The engine's wait is as short as an access; the others' as long as a CPU's access may take.
 */
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "gpu_private.h"

/* Spins before the first yield; a hit's section is over within some of them. */
#define GPU_SPINS 100
/* Yields before the first sleep: whoever is still inside sleeps too. */
#define GPU_YIELDS 300
#define GPU_SLEEP_NS 20000

/* Whose translations go: n pages anywhere, or (pages NULL) n pages from first on. */
struct gone {
	const uintptr_t *pages; /* addresses; 0 is none */
	uintptr_t first, n;	/* page numbers */
};

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

/* Return: was there one? */
static bool flush_all(struct gpu *gpu, const struct gone *gone)
{
	bool found = false;
	uintptr_t page;
	unsigned i;

	atomic_fetch_add(&gpu->mmu.flushes_begun, 1);
	for (i = 0; i < gpu->sms; i++) {
		struct gpu_tlb *tlb = &gpu->sm[i].tlb;

		if (!gone->pages)
			found |= flush_one(tlb, gone->first, gone->n);
		for (page = 0; gone->pages && page < gone->n; page++)
			found |= gone->pages[page] &&
				 flush_one(tlb, gone->pages[page] / GPU_PAGE, 1);
	}
	atomic_fetch_add(&gpu->mmu.flushes_ended, 1);
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

static void pause_for(unsigned spins)
{
	const struct timespec delay = {.tv_nsec = GPU_SLEEP_NS};

	if (spins >= GPU_SPINS + GPU_YIELDS)
		nanosleep(&delay, NULL);
	else if (spins >= GPU_SPINS)
		sched_yield();
}

/* Is this state of a section one that is waited for? */
static bool is_open(unsigned section, bool frames)
{
	section &= GPU_SECTION_MASK;
	return frames ? section == GPU_SECTION_FRAME : section != 0;
}

/* The barrier, then the end of every section (of frames) that was open at it. */
static void quiesce(struct gpu *gpu, bool frames)
{
	unsigned i, spins, seen, now;

	atomic_thread_fence(memory_order_seq_cst);
	if (!gpu->sm[0].fenced)
		membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	for (i = 0; i < gpu->sms; i++) {
		seen = now = section_of(&gpu->sm[i]);
		for (spins = 0; is_open(now, frames) &&
				!((seen ^ now) & ~GPU_SECTION_MASK);
		     spins++) {
			pause_for(spins);
			now = section_of(&gpu->sm[i]);
		}
	}
}

/* From F1 on. */
static void shoot(struct gpu *gpu, const struct gone *gone, bool frames)
{
	uint64_t before = atomic_load(&gpu->mmu.flushes_ended);
	bool found;

	flush_all(gpu, gone);
	if (any_active(gpu))
		quiesce(gpu, frames);
	found = flush_all(gpu, gone);
	/* More begun than our two: somebody else's was not over at `before`, or came later. */
	if (found || atomic_load(&gpu->mmu.flushes_begun) != before + 2)
		quiesce(gpu, frames);
}

/* mmu.flush held, the update lock not; the table is cleared of the range. */
void gpu_shootdown(struct gpu *gpu, uintptr_t start, uintptr_t end, bool huge)
{
	const uintptr_t block = GPU_HUGE / GPU_PAGE;
	uintptr_t first = start >> UHMM_PTABLE_PAGE_SHIFT;
	uintptr_t last = (end >> UHMM_PTABLE_PAGE_SHIFT) + !!(end % GPU_PAGE);

	/* A 2 MiB entry goes as a whole, so all that TLBs took out of it must go. */
	if (huge) {
		first -= first % block;
		last += (block - last % block) % block;
	}
	shoot(gpu, &(struct gone){.first = first, .n = last - first}, false);
}

/* Update lock held, the table is cleared of the pages, which map frames. */
void gpu_shootdown_pages(struct gpu *gpu, const uintptr_t *pages, unsigned n)
{
	shoot(gpu, &(struct gone){.pages = pages, .n = n}, true);
}
