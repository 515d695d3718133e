/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * verify - count accesses through translations that should be gone.
 *
 * A clock ticks at each install, each mark and each submit. Shadow tables hold by page:
 *
 *	stamps	when its translation was installed
 *	marks	the last mark: {since, made}, a change lay between the two
 *	floors	an earlier mark, for jobs older than the last one
 *
 * An access is stale if a mark of its page has made < job->begin and stamp < since:
 * installed before the change, used by a job that was submitted after it (G3).
 * job->begin (sm->begin) is taken before the submit's fence, so a mark made before it lies
 * before that fence too, and what was installed in [since, made] is not judged: there is no
 * false alarm. Where marks of one page come faster than jobs end, the two that are
 * kept may miss a case; never the other way round.
 *
 * The stamp of a translation is read with it: stamp, entry, stamp again until both agree
 * (sm.c). set_entry() writes the stamp first, so an entry is never dated too old, and a
 * pair that agrees is never dated younger than an install that the entry had survived.
 *
 * An access to a frame is stale too if the engine has stopped the frame before the section
 * is over.
 *
 * Marks have a lock of their own, which is not needed by anybody whom a CPU's fault
 * waits for: the program's threads may take it.
 */
#include <sched.h>

#include "gpu_private.h"

/* So often an SM lets others run inside a section of frames. */
#define YIELD_EVERY 32

/* Shared by the pages of one call; lives as long as the GPU: jobs read without a lock. */
struct gpu_mark {
	uint64_t since, made;
};

/* Sections read marks, so they lie in memory that never moves, by the slab. */
#define SLAB ((size_t)256 << 10)
struct gpu_marks {
	struct gpu_marks *next;
	size_t used;
	struct gpu_mark mark[];
};

static const struct gpu_mark *mark_of(const struct uhmm_ptable *table, uintptr_t addr)
{
	return (const struct gpu_mark *)(uintptr_t)uhmm_ptable_lookup(table, addr);
}

int gpu_verify_init(struct gpu *gpu)
{
	struct gpu_verify *verify = &gpu->verify;
	int err;

	pthread_mutex_init(&verify->lock, NULL);
	atomic_store(&verify->clock, 1); /* 0 is "none" in the tables */
	if (!verify->on)
		return 0;
	err = uhmm_ptable_init(&verify->stamps);
	if (!err)
		err = uhmm_ptable_init(&verify->marks);
	if (!err)
		err = uhmm_ptable_init(&verify->floors);
	return err;
}

void gpu_verify_destroy(struct gpu *gpu)
{
	struct gpu_marks *slab;

	while ((slab = gpu->verify.marks_made)) {
		gpu->verify.marks_made = slab->next;
		hmm_free(slab, SLAB);
	}
	uhmm_ptable_destroy(&gpu->verify.stamps);
	uhmm_ptable_destroy(&gpu->verify.marks);
	uhmm_ptable_destroy(&gpu->verify.floors);
	pthread_mutex_destroy(&gpu->verify.lock);
}

uint64_t gpu_verify_tick(struct gpu *gpu)
{
	return gpu->verify.on ? atomic_fetch_add(&gpu->verify.clock, 1) : 0;
}

uint64_t gpu_verify_now(struct gpu *gpu)
{
	return gpu_verify_tick(gpu);
}

/* verify.lock held. */
static struct gpu_mark *new_mark(struct gpu_verify *verify)
{
	struct gpu_marks *slab = verify->marks_made;

	if (!slab || slab->used == (SLAB - sizeof(*slab)) / sizeof(struct gpu_mark)) {
		slab = hmm_alloc(SLAB);
		if (!slab)
			return NULL;
		slab->next = verify->marks_made;
		verify->marks_made = slab;
	}
	return &slab->mark[slab->used++];
}

/* verify.lock held. The floor goes in first: a reader that sees the new mark finds it. */
static int mark_page(struct gpu_verify *verify, uintptr_t addr, const struct gpu_mark *mark,
		     uint64_t oldest)
{
	const struct gpu_mark *before = mark_of(&verify->marks, addr);
	int err = 0;

	if (before && before->made < oldest)
		err = uhmm_ptable_set(&verify->floors, addr, (uintptr_t)before);
	return err ? err : uhmm_ptable_set(&verify->marks, addr, (uintptr_t)mark);
}

void gpu_verify_mark_since(struct gpu *gpu, const void *start, size_t length,
			   uint64_t since)
{
	uintptr_t addr = (uintptr_t)start & -GPU_PAGE, end = (uintptr_t)start + length;
	struct gpu_verify *verify = &gpu->verify;
	struct gpu_mark *mark;
	uint64_t oldest;
	int err;

	if (!verify->on)
		return;
	oldest = gpu_sched_oldest(gpu);
	pthread_mutex_lock(&verify->lock);
	mark = new_mark(verify);
	err = mark ? 0 : -ENOMEM;
	if (mark)
		*mark = (struct gpu_mark){since, gpu_verify_tick(gpu)};
	for (; addr < end && !err; addr += GPU_PAGE)
		err = mark_page(verify, addr, mark, oldest);
	pthread_mutex_unlock(&verify->lock);
	if (err)
		hmm_log(HMM_LOG_WARN, "gpu: verify mark of %#lx is lost: %s",
			(unsigned long)addr, hmm_strerror(err));
}

void gpu_verify_mark(struct gpu *gpu, const void *start, size_t length)
{
	gpu_verify_mark_since(gpu, start, length, gpu_verify_now(gpu));
}

/* Inside the section whose translation is judged. */
void gpu_verify_access(struct gpu_sm *sm, uintptr_t addr)
{
	struct gpu_verify *verify = &sm->gpu->verify;
	const struct gpu_mark *mark = mark_of(&verify->marks, addr);

	if (mark && mark->made >= sm->begin)
		mark = mark_of(&verify->floors, addr);
	if (mark && mark->made < sm->begin &&
	    sm->stamp[addr / GPU_PAGE % GPU_TLB_ENTRIES] < mark->since)
		atomic_fetch_add(&sm->gpu->count.stale, 1);
}

/*
 * Inside a section that has used a frame: it may not have been stopped before the section
 * is over. Sections are so short that this would seldom be seen, so now and then one lasts.
 */
void gpu_verify_frame(struct gpu_sm *sm, uint64_t entry)
{
	const struct gpu_memory *memory = gpu_memory_of(sm->gpu, entry);

	if (!(++sm->frames_used % YIELD_EVERY))
		sched_yield();
	if (atomic_load_explicit(&memory->stopped[hmm_pfn_frame(entry)], memory_order_acquire))
		atomic_fetch_add(&sm->gpu->count.stale, 1);
}
