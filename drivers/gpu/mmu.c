/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * mmu - the GPU's page table.
 *
 * One uhmm_ptable for the whole address space, entries in the library's own format
 * (HMM_PFN_VALID, WRITE, kind, number). A 2 MiB entry holds order 9 and the number
 * of its first page. Words: "install" puts a validated answer in, "forget" takes a
 * range out and makes sure that no SM uses it any more.
 *
 * Laws: the table is written under the update lock only, by the handler alone where it
 * grows. Who forgets a range holds mmu.flush from before it clears the table until no SM
 * uses the range; the engine stops frames wholly under the update lock. So outside
 * both locks a TLB holds nothing that the table does not (permission bits aside: the table's
 * may be fewer after a fork), and a range that was not in the table needs no shootdown.
 *
 * Frames: HMM_PFN_DEVICE entries, always of 4 KiB. For each frame the page is noted for which
 * it was last mapped (rmap), and where its bytes are. One frame has one page: the mirror
 * says so, and when mremap has moved it, the old page's entry is gone before the new one can
 * be installed (G2: both ends are told). The note stays when the entry goes, because
 * somebody who forgets that page may still wait for a section that uses the frame, and the
 * engine may not wait for him: it flushes what the note says, whatever the table has.
 *
 * A 2 MiB entry does not hide a frame's: when pages leave system memory their range is
 * forgotten first (HMM_EVENT_MIGRATE), the 2 MiB entry as a whole, and it is not
 * installed again while one of its pages is not system memory.
 */
#include "gpu_private.h"

#define GPU_HUGE_ORDER (UHMM_PTABLE_HUGE_SHIFT - UHMM_PTABLE_PAGE_SHIFT)
#define GPU_HUGE_PAGES (1u << GPU_HUGE_ORDER)
#define GPU_KEPT_BITS (GPU_ACCESS_BITS | HMM_PFN_KIND_MASK | HMM_PFN_NUMBER_MASK)

int gpu_mmu_init(struct gpu *gpu)
{
	pthread_mutex_init(&gpu->mmu.flush, NULL);
	pthread_mutex_init(&gpu->mmu.lock, NULL);
	return uhmm_ptable_init(&gpu->mmu.table);
}

void gpu_mmu_destroy(struct gpu *gpu)
{
	uhmm_ptable_destroy(&gpu->mmu.table);
	pthread_mutex_destroy(&gpu->mmu.lock);
	pthread_mutex_destroy(&gpu->mmu.flush);
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
	return gpu_mmu_lookup(gpu, (uintptr_t)addr) & ~GPU_PFN_ATOMIC;
}

static bool in_hole(const struct gpu_mmu *mmu, uintptr_t start, uintptr_t end)
{
	return start < mmu->hole_end && mmu->hole_start < end;
}

/* Handler only. false: addr is unmanaged. Else [*start, *end) around it is cut to what is
 * managed. */
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

/*
 * Memory of a DAX file is no other place than the rest of the system's: it becomes that, and stops
 * being it, without a word (a hole that a CPU fills, a private page that it writes to).
 */
static uint64_t place_of(uint64_t entry)
{
	if ((entry & HMM_PFN_KIND_MASK) == HMM_PFN_DAX)
		entry &= ~HMM_PFN_KIND_MASK;
	return entry & (HMM_PFN_KIND_MASK | HMM_PFN_NUMBER_MASK);
}

/*
 * Does the table allow all that `entry` does already? Then it stays as it is. -EIO: it has
 * another page there, which nobody told us to forget.
 */
static int is_covered(const struct gpu *gpu, uintptr_t addr, uint64_t entry, bool huge)
{
	uint64_t raw = uhmm_ptable_lookup(&gpu->mmu.table, addr);
	uint64_t old = gpu_mmu_lookup(gpu, addr);

	if (old && place_of(old) != place_of(entry) && !gpu->naive)
		return -EIO;
	return !(entry & GPU_ACCESS_BITS & ~old) &&
	       (!huge || hmm_pfn_order(raw) == GPU_HUGE_ORDER);
}

/* Is pfns[i] the first of 512 pages that one entry can stand for? */
static bool is_huge(const struct gpu_window *window, const struct hmm_range *range, size_t i,
		    size_t pages)
{
	const uint64_t same = GPU_ACCESS_BITS | HMM_PFN_ERROR | HMM_PFN_KIND_MASK;
	uint64_t first = range->pfns[i];
	size_t j;

	if (((range->start >> UHMM_PTABLE_PAGE_SHIFT) + i) % GPU_HUGE_PAGES ||
	    pages - i < GPU_HUGE_PAGES || hmm_pfn_order(first) < GPU_HUGE_ORDER ||
	    !(first & HMM_PFN_VALID) || hmm_pfn_is_device(first) ||
	    window->may[i] & GPU_MAY_DEMAND)
		return false;
	for (j = 1; j < GPU_HUGE_PAGES; j++) {
		if (window->may[i + j] != window->may[i] ||
		    (range->pfns[i + j] & same) != (first & same) ||
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

/*
 * Note where a frame is mapped. 0; -ENXIO it is none of ours; -EAGAIN another page's entry has
 * it still, or the memory is lost: not now.
 */
static int note_frame(struct gpu *gpu, uintptr_t addr, uint64_t entry)
{
	struct gpu_memory *memory = gpu_memory_of(gpu, entry);
	uint64_t frame = hmm_pfn_frame(entry);
	uintptr_t before;

	if (!memory || frame >= memory->frames)
		return -ENXIO;
	if (atomic_load(&memory->home->lost))
		return -EAGAIN;
	before = memory->rmap[frame];
	if (before && before != addr &&
	    place_of(gpu_mmu_lookup(gpu, before)) == place_of(entry))
		return -EAGAIN;
	memory->rmap[frame] = addr;
	atomic_store_explicit(&memory->stopped[frame], 0, memory_order_relaxed);
	memory->where[frame] = memory->host
				       ? (uintptr_t)hmm_devmem_host(memory->devmem, frame)
				       : (uintptr_t)memory->base + frame * GPU_PAGE;
	return 0;
}

/* May atomics be done there, on a page that may be written to? */
static bool allows_atomic(const struct gpu_window *window, size_t page, uint64_t entry)
{
	bool device = hmm_pfn_is_device(entry);

	if (window->gpu->policy.size)
		return window->may[page] & (device ? GPU_MAY_ATOMIC : GPU_MAY_ATOMIC_SYSTEM);
	return device || window->system_atomics || !window->gpu->exclusive.devmem;
}

/* Of an answer: what goes into the table. */
static uint64_t kept(const struct gpu_window *window, size_t page, uint64_t entry)
{
	if (entry & HMM_PFN_WRITE && allows_atomic(window, page, entry))
		entry |= GPU_PFN_ATOMIC;
	return (entry & GPU_KEPT_BITS) | (entry & GPU_PFN_ATOMIC);
}

/* One answer. 0: installed, or nothing to install; *mapped says which. */
static int install_one(struct gpu_window *window, size_t page, uintptr_t addr, uint64_t entry,
		       bool huge, uint64_t stamp, bool *mapped)
{
	uint64_t want = window->want[page];
	int covered, err;

	*mapped = false;
	if (want & ~entry & (HMM_PFN_VALID | HMM_PFN_WRITE))
		return -EIO; /* faulted, but not there */
	if (!(entry & HMM_PFN_VALID))
		return 0;
	err = gpu_policy_judge(window, page, &entry);
	if (err || !entry)
		return err;
	entry = kept(window, page, entry);
	covered = is_covered(window->gpu, addr, entry, huge);
	if (covered < 0)
		return covered;
	err = !covered && hmm_pfn_is_device(entry) ? note_frame(window->gpu, addr, entry) : 0;
	if (err)
		return err == -EAGAIN ? 0 : err; /* it will fault again */
	err = covered ? 0 : set_entry(window->gpu, addr, entry, huge, stamp);
	*mapped = !err;
	return err;
}

/*
 * Put a window's answers into the table; update lock held, the answers are true (G2).
 * Pages that nobody asked for are taken where they are present. Nothing is said here of
 * what goes wrong: who takes the log's lines may touch memory that is away.
 */
int gpu_mmu_install(struct gpu_window *window, const struct hmm_range *range)
{
	size_t i, step, pages = (range->end - range->start) / GPU_PAGE;
	struct gpu *gpu = window->gpu;
	uint64_t stamp = gpu_verify_tick(gpu);
	bool mapped;

	window->mapped = 0;
	if (gpu->policy.size &&
	    __atomic_load_n(gpu->policy.sequence, __ATOMIC_ACQUIRE) != window->sequence)
		return -ESTALE; /* what the policy allowed was changed: ask again */
	for (i = 0; i < pages; i += step) {
		uintptr_t addr = range->start + i * GPU_PAGE;
		bool huge = is_huge(window, range, i, pages) &&
			    !in_hole(&gpu->mmu, addr, addr + GPU_HUGE);
		int err;

		step = huge ? GPU_HUGE_PAGES : 1;
		if (in_hole(&gpu->mmu, addr, addr + 1))
			continue;
		err = install_one(window, i, addr, range->pfns[i], huge, stamp, &mapped);
		if (err) {
			window->refused = addr;
			window->refused_entry = range->pfns[i];
			return err;
		}
		window->mapped += mapped ? step : 0;
	}
	return 0;
}

/* All but frames. Return: how many entries went. */
static uint64_t clear_system(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	uint64_t entry, cleared = 0;

	for (; start < end; start += GPU_PAGE) {
		entry = uhmm_ptable_lookup(&gpu->mmu.table, start);
		if (entry && !hmm_pfn_is_device(entry))
			cleared += uhmm_ptable_clear(&gpu->mmu.table, start, start + GPU_PAGE);
	}
	return cleared;
}

static void forget(struct gpu *gpu, uintptr_t start, uintptr_t end, bool keep_frames)
{
	uint64_t cleared;
	bool huge;

	pthread_mutex_lock(&gpu->mmu.flush);
	pthread_mutex_lock(&gpu->mmu.lock);
	cleared = keep_frames ? clear_system(gpu, start, end)
			      : uhmm_ptable_clear(&gpu->mmu.table, start, end);
	huge = gpu->mmu.huge;
	pthread_mutex_unlock(&gpu->mmu.lock);
	if (cleared) {
		atomic_fetch_add(&gpu->count.shootdowns, 1);
		gpu_shootdown(gpu, start, end, huge);
	}
	pthread_mutex_unlock(&gpu->mmu.flush);
}

/* Take a range out of the table and of every TLB: the body of invalidate (G4). */
void gpu_mmu_forget(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	forget(gpu, start, end, false);
}

/* The same, but what is in frames may stay: pages are about to move to our own memory. */
void gpu_mmu_forget_system(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	forget(gpu, start, end, end - start <= GPU_HUGE);
}

/*
 * The engine, before frames go home: no SM uses them any more, and none will without a
 * fault. Whoever looked the page up before is told by hmm_notifier_read_retry() that it
 * changed, under the lock that we hold here.
 */
void gpu_mmu_stop_frames(struct gpu_memory *memory, const struct hmm_devmem_copy *copies,
			 unsigned n)
{
	struct gpu *gpu = memory->gpu;
	uintptr_t pages[GPU_WINDOW_MAX];
	bool any = false;
	unsigned i, m;

	pthread_mutex_lock(&gpu->mmu.lock);
	for (; n; n -= m, copies += m) {
		m = n < GPU_WINDOW_MAX ? n : GPU_WINDOW_MAX;
		for (i = 0; i < m; i++) {
			uint64_t frame = copies[i].frame, entry;

			pages[i] = memory->rmap[frame];
			memory->rmap[frame] = 0;
			any |= pages[i] != 0;
			entry = pages[i] ? gpu_mmu_lookup(gpu, pages[i]) : 0;
			if (hmm_pfn_is_device(entry) && hmm_pfn_frame(entry) == frame &&
			    hmm_pfn_devmem(entry) == memory->id)
				uhmm_ptable_clear(&gpu->mmu.table, pages[i],
						  pages[i] + GPU_PAGE);
		}
		if (any)
			gpu_shootdown_pages(gpu, pages, m);
		for (i = 0; i < m; i++)
			atomic_store_explicit(&memory->stopped[copies[i].frame], 1,
					      memory_order_release);
	}
	pthread_mutex_unlock(&gpu->mmu.lock);
}

/* Handler only. An empty hole takes it back. */
void gpu_mmu_set_hole(struct gpu *gpu, uintptr_t start, uintptr_t end)
{
	pthread_mutex_lock(&gpu->mmu.lock);
	gpu->mmu.hole_start = start;
	gpu->mmu.hole_end = end;
	pthread_mutex_unlock(&gpu->mmu.lock);
	if (start < end)
		gpu_mmu_forget(gpu, start, end);
}
