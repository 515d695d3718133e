/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * mmu - the GPU's page table.
 *
 * One uhmm_ptable for the whole address space, entries in the library's own format
 * (HMM_PFN_VALID, WRITE, kind, number). A 2 MiB entry holds order 9 and the number
 * of its first page. Words: "install" puts a validated answer in, "forget" takes a
 * range out and makes sure that no SM uses it any more.
 *
 * Laws: the table is written under the update lock only. Whoever clears an entry runs
 * the shootdown before it drops the lock, so outside the lock a TLB holds nothing that
 * the table does not (permission bits aside: the table's may be fewer after a fork).
 * That is why a range that was not in the table needs no shootdown.
 *
 * Video memory: entries of kind HMM_PFN_DEVICE come with migration. They need the
 * owner's frames here and another copy path in access.c; until then they are refused.
 */
#include "gpu_private.h"

#define GPU_HUGE_ORDER (UHMM_PTABLE_HUGE_SHIFT - UHMM_PTABLE_PAGE_SHIFT)
#define GPU_HUGE_PAGES (1u << GPU_HUGE_ORDER)
#define GPU_KEPT_BITS (GPU_ACCESS_BITS | HMM_PFN_KIND_MASK | HMM_PFN_NUMBER_MASK)

int gpu_mmu_init(struct gpu *gpu)
{
	pthread_mutex_init(&gpu->mmu.lock, NULL);
	return uhmm_ptable_init(&gpu->mmu.table);
}

void gpu_mmu_destroy(struct gpu *gpu)
{
	uhmm_ptable_destroy(&gpu->mmu.table);
	pthread_mutex_destroy(&gpu->mmu.lock);
}

/* The translation of one page, also out of a 2 MiB entry. No lock. */
uint64_t gpu_mmu_lookup(const struct gpu *gpu, uintptr_t addr)
{
	uint64_t entry = uhmm_ptable_lookup(&gpu->mmu.table, addr);

	if (hmm_pfn_order(entry) == GPU_HUGE_ORDER)
		entry += (addr >> UHMM_PTABLE_PAGE_SHIFT) & (GPU_HUGE_PAGES - 1);
	return entry & ~HMM_PFN_ORDER_MASK;
}

uint64_t gpu_lookup(const struct gpu *gpu, const void *addr)
{
	return gpu_mmu_lookup(gpu, (uintptr_t)addr);
}

static bool in_hole(const struct gpu_mmu *mmu, uintptr_t start, uintptr_t end)
{
	return start < mmu->hole_end && mmu->hole_start < end;
}

/* false: addr is unmanaged. Else [*start, *end) around it is cut to what is managed. */
bool gpu_mmu_managed(struct gpu *gpu, uintptr_t addr, uintptr_t *start, uintptr_t *end)
{
	struct gpu_mmu *mmu = &gpu->mmu;
	bool yes;

	pthread_mutex_lock(&mmu->lock);
	yes = !in_hole(mmu, addr, addr + 1);
	if (yes && in_hole(mmu, *start, addr))
		*start = mmu->hole_end;
	if (yes && in_hole(mmu, addr, *end))
		*end = mmu->hole_start;
	pthread_mutex_unlock(&mmu->lock);
	return yes;
}

/* Does the table allow all that `entry` does already? Then it stays as it is. */
static bool is_covered(const struct gpu *gpu, uintptr_t addr, uint64_t entry, bool huge)
{
	uint64_t old = uhmm_ptable_lookup(&gpu->mmu.table, addr);

	return !(entry & GPU_ACCESS_BITS & ~old) &&
	       (!huge || hmm_pfn_order(old) == GPU_HUGE_ORDER);
}

/* Is pfns[i] the first of 512 pages that one entry can stand for? */
static bool is_huge(const struct hmm_range *range, size_t i, size_t pages)
{
	const uint64_t same = GPU_ACCESS_BITS | HMM_PFN_ERROR | HMM_PFN_KIND_MASK;
	uint64_t first = range->pfns[i];
	size_t j;

	if (((range->start >> UHMM_PTABLE_PAGE_SHIFT) + i) % GPU_HUGE_PAGES ||
	    pages - i < GPU_HUGE_PAGES || hmm_pfn_order(first) < GPU_HUGE_ORDER ||
	    !(first & HMM_PFN_VALID))
		return false;
	for (j = 1; j < GPU_HUGE_PAGES; j++) {
		if ((range->pfns[i + j] & same) != (first & same) ||
		    hmm_pfn_number(range->pfns[i + j]) != hmm_pfn_number(first) + j)
			return false;
	}
	return true;
}

/* Verify mode: the stamp goes in before the entry that it dates (verify.c). */
static int set_entry(struct gpu *gpu, uintptr_t addr, uint64_t entry, bool huge,
		     uint64_t stamp)
{
	int err = 0;

	if (gpu->verify.on)
		err = huge ? uhmm_ptable_set_huge(&gpu->verify.stamps, addr, stamp)
			   : uhmm_ptable_set(&gpu->verify.stamps, addr, stamp);
	if (err)
		return err;
	if (!huge)
		return uhmm_ptable_set(&gpu->mmu.table, addr, entry);
	gpu->mmu.huge = true;
	entry |= (uint64_t)GPU_HUGE_ORDER << HMM_PFN_ORDER_SHIFT;
	return uhmm_ptable_set_huge(&gpu->mmu.table, addr, entry);
}

/* Can this answer be used? What was asked for must be there, and be what we can map. */
static int check_entry(uintptr_t addr, uint64_t want, uint64_t entry)
{
	if (want & ~entry & GPU_ACCESS_BITS) {
		hmm_log(HMM_LOG_ERROR, "gpu: %#lx was faulted but is not there: %#llx",
			(unsigned long)addr, (unsigned long long)entry);
		return -EIO;
	}
	if ((entry & HMM_PFN_VALID) && (entry & HMM_PFN_KIND_MASK) == HMM_PFN_DEVICE) {
		hmm_log(HMM_LOG_ERROR, "gpu: %#lx is in device memory: cannot be mapped",
			(unsigned long)addr);
		return -ENXIO;
	}
	return 0;
}

/*
 * Put a window's answers into the table; update lock held, the answers are true (G2).
 * Pages that nobody asked for are taken where they are present.
 */
int gpu_mmu_install(struct gpu_window *window, const struct hmm_range *range)
{
	size_t i, step, pages = (range->end - range->start) / GPU_PAGE;
	struct gpu *gpu = window->gpu;
	uint64_t stamp = gpu_verify_tick(gpu);

	window->mapped = 0;
	for (i = 0; i < pages; i += step) {
		uintptr_t addr = range->start + i * GPU_PAGE;
		bool huge = is_huge(range, i, pages) &&
			    !in_hole(&gpu->mmu, addr, addr + GPU_HUGE);
		uint64_t entry = range->pfns[i];
		int err;

		step = huge ? GPU_HUGE_PAGES : 1;
		if (in_hole(&gpu->mmu, addr, addr + 1))
			continue;
		err = check_entry(addr, window->want[i], entry);
		if (!err && !(entry & HMM_PFN_VALID))
			continue;
		if (!err && !is_covered(gpu, addr, entry, huge))
			err = set_entry(gpu, addr, entry & GPU_KEPT_BITS, huge, stamp);
		if (err)
			return err;
		window->mapped += step;
	}
	return 0;
}

/* Take a range out of the table and of every TLB: the body of invalidate (G4). */
void gpu_mmu_forget(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	pthread_mutex_lock(&gpu->mmu.lock);
	if (uhmm_ptable_clear(&gpu->mmu.table, start, end)) {
		atomic_fetch_add(&gpu->count.shootdowns, 1);
		gpu_shootdown(gpu, start, end);
	}
	pthread_mutex_unlock(&gpu->mmu.lock);
}

int gpu_set_unmanaged(struct gpu *gpu, uintptr_t start, size_t length)
{
	if ((start | length) % GPU_PAGE)
		return -EINVAL;
	if (start + length < start)
		return -EOVERFLOW;
	pthread_mutex_lock(&gpu->mmu.lock);
	gpu->mmu.hole_start = start;
	gpu->mmu.hole_end = start + length;
	pthread_mutex_unlock(&gpu->mmu.lock);
	if (length)
		gpu_mmu_forget(gpu, start, start + length);
	return 0;
}
