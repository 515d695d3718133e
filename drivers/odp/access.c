/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * access - a region's page table, and memory accesses through it.
 *
 * After rxe_odp.c: look up under the lock that invalidate takes; what is not mapped is faulted
 * in without it, and looked up again. Memory is reached through its virtual addresses, so a
 * page that goes right after the look is an error of the copy, and a miss.
 *
 * Two locks, because hmm_range_program() wants a mutex and copies of several clients run side
 * by side: translations enter under `update_lock`, and leave under both.
 */
#include <errno.h>

#include "odp_private.h"

#define AT_ONCE 512u /* pages that are faulted in by one look */
#define TRIES 100u   /* changing that often: given up */

/* Past it there is no address to end a range at; nothing is ever mapped there. */
#define LAST_PAGE PAGE_DOWN(UINTPTR_MAX)

/* ---- changes ---- */

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct odp_region *region = priv;
	uint64_t gone;

	/* What an address reads is as it was. */
	if (event->kind == HMM_EVENT_FORK)
		return;
	pthread_mutex_lock(&region->update_lock);
	pthread_rwlock_wrlock(&region->use);
	gone = uhmm_ptable_clear(&region->table, event->start, event->end);
	pthread_rwlock_unlock(&region->use);
	pthread_mutex_unlock(&region->update_lock);
	atomic_fetch_add(&region->count.invalidations, gone);
	atomic_fetch_sub(&region->count.mapped, gone);
}

static const struct hmm_notifier_ops notifier_ops = { .size = sizeof(notifier_ops),
						      .invalidate = invalidate };

/* A writer must come in between readers: the worker of the library waits as one. */
static void use_init(pthread_rwlock_t *use)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(use, &attr);
	pthread_rwlockattr_destroy(&attr);
}

int table_open(struct odp_region *region)
{
	struct hmm *hmm = region->target->hmm;
	int err = uhmm_ptable_init(&region->table);

	if (err)
		return err;
	pthread_mutex_init(&region->update_lock, NULL);
	use_init(&region->use);
	err = hmm_notifier_insert(hmm, PAGE_DOWN(region->start),
				  page_up(region->end) - PAGE_DOWN(region->start),
				  &notifier_ops, region, &region->notifier);
	if (err)
		table_close(region);
	return err;
}

void table_close(struct odp_region *region)
{
	hmm_notifier_remove(region->notifier);
	pthread_rwlock_destroy(&region->use);
	pthread_mutex_destroy(&region->update_lock);
	uhmm_ptable_destroy(&region->table);
}

/* ---- use; under region->use ---- */

static bool is_mapped(const struct odp_region *region, const struct access *a)
{
	uint64_t need = a->kind == ACCESS_LOAD ? HMM_PFN_VALID : HMM_PFN_WRITE;

	for (uintptr_t at = PAGE_DOWN(a->addr); at < a->addr + a->length; at += PAGE)
		if (!(uhmm_ptable_lookup(&region->table, at) & need))
			return false;
	return true;
}

static int do_access(struct hmm *hmm, struct access *a)
{
	switch (a->kind) {
	case ACCESS_LOAD:
		return hmm_copy_from(hmm, a->buffer, a->addr, a->length);
	case ACCESS_STORE:
		return hmm_copy_to(hmm, a->addr, a->buffer, a->length);
	case ACCESS_ADD:
		return hmm_access_add(hmm, a->addr, 8, a->operand, &a->old);
	case ACCESS_SWAP:
		return hmm_access_cas(hmm, a->addr, 8, a->compare, a->operand, &a->old);
	case ACCESS_SET:
		return hmm_copy_to(hmm, a->addr, &a->operand, 8);
	}
	return -EINVAL;
}

static int access_mapped(struct odp_region *region, struct access *a)
{
	struct hmm *hmm = region->target->hmm;
	bool scope;
	int err;

	if (!is_mapped(region, a))
		return -EAGAIN;
	/* A short copy is one system call, a scope is four. */
	scope = a->length > PAGE || a->kind == ACCESS_ADD || a->kind == ACCESS_SWAP;
	err = scope ? hmm_access_begin(hmm) : 0;
	if (err)
		return err;
	err = do_access(hmm, a);
	if (scope)
		hmm_access_end(hmm);
	return err;
}

int access_try(struct odp_region *region, struct access *a)
{
	int err;

	if (pthread_rwlock_tryrdlock(&region->use))
		return -EAGAIN;
	err = access_mapped(region, a);
	pthread_rwlock_unlock(&region->use);
	return err == -EFAULT ? -EAGAIN : err; /* gone right now: a fault says why */
}

/* ---- faults ---- */

/* What hmm_range_program() found: under update_lock. */
struct enter {
	struct odp_region *region;
	_Atomic uint64_t *counter;
};

static int enter(const struct hmm_range *range, void *arg)
{
	const struct enter *e = arg;
	struct odp_region *region = e->region;
	uint64_t entered = 0;
	int err = 0;

	for (uintptr_t at = range->start; at < range->end; at += PAGE) {
		uint64_t pfn = range->pfns[(at - range->start) / PAGE];
		bool known;

		if (!(pfn & HMM_PFN_VALID))
			continue;
		known = uhmm_ptable_lookup(&region->table, at);
		if (uhmm_ptable_set(&region->table, at, pfn & (HMM_PFN_VALID | HMM_PFN_WRITE)))
			err = -ENOMEM;
		if (err)
			break;
		entered += !known;
	}
	atomic_fetch_add(&region->count.mapped, entered);
	atomic_fetch_add(e->counter, entered);
	return err;
}

/* [start, end) as `request` asks (0: what is present); all in pieces. */
static int map(struct odp_region *region, uintptr_t start, uintptr_t end, uint64_t request,
	       _Atomic uint64_t *counter, uint64_t *fault_addr, enum hmm_reason *reason)
{
	struct enter e = { region, counter };
	uint64_t pfns[AT_ONCE];
	bool last = end > LAST_PAGE;
	int err = 0;

	start = PAGE_DOWN(start);
	end = last ? LAST_PAGE : page_up(end);
	for (uintptr_t stop; start < end && !err; start = stop) {
		struct hmm_range range = { .size = sizeof(range),
					   .hmm = region->target->hmm,
					   .notifier = region->notifier,
					   .start = start,
					   .pfns = pfns,
					   .default_flags = request };

		stop = end - start > AT_ONCE * PAGE ? start + AT_ONCE * PAGE : end;
		range.end = stop;
		err = hmm_range_program(&range, 0, &region->update_lock, enter, &e);
		if (err) {
			*fault_addr = range.fault_addr;
			*reason = range.fault_reason;
		}
	}
	if (err || !last || !request)
		return err;
	*fault_addr = LAST_PAGE;
	*reason = HMM_REASON_NO_MAPPING;
	return -EFAULT;
}

/* A page went and its event is under way: what is known of it is not true any more. */
static void forget(struct odp_region *region, const struct access *a)
{
	uint64_t gone;

	pthread_mutex_lock(&region->update_lock);
	pthread_rwlock_wrlock(&region->use);
	gone = uhmm_ptable_clear(&region->table, a->addr, a->addr + a->length);
	pthread_rwlock_unlock(&region->use);
	pthread_mutex_unlock(&region->update_lock);
	atomic_fetch_add(&region->count.invalidations, gone);
	atomic_fetch_sub(&region->count.mapped, gone);
}

int access_wait(struct odp_region *region, struct access *a)
{
	uint64_t request = HMM_PFN_REQ_FAULT | (a->kind == ACCESS_LOAD ? 0 : HMM_PFN_REQ_WRITE);

	for (unsigned tries = 0; tries < TRIES; tries++) {
		int err;

		pthread_rwlock_rdlock(&region->use);
		err = access_mapped(region, a);
		pthread_rwlock_unlock(&region->use);
		if (err != -EAGAIN && err != -EFAULT)
			return err;
		if (err == -EFAULT)
			forget(region, a);
		err = map(region, a->addr, a->addr + a->length, request, &region->count.faults,
			  &a->fault_addr, &a->reason);
		if (err)
			return err;
	}
	return -EBUSY;
}

/* ---- advice ---- */

struct present {
	struct odp_region *region;
	uintptr_t start, end, next;
	size_t left; /* bytes of this step */
	uint64_t fault_addr;
	enum hmm_reason reason;
};

static int map_run(const struct hmm_run *run, void *arg)
{
	struct present *p = arg;
	uintptr_t start = run->start > p->start ? run->start : p->start;
	uintptr_t end = run->end < p->end ? run->end : p->end;
	int err;

	if (start >= end)
		return 0;
	if (end - start > p->left)
		end = start + p->left;
	err = map(p->region, start, end, 0, &p->region->count.prefetches, &p->fault_addr,
		  &p->reason);
	p->left -= end - start;
	p->next = end;
	return err ? err : p->left ? 0 : -EINPROGRESS;
}

/* Costs what is present, however long the range is. */
int access_map_present(struct odp_region *region, uintptr_t *start, uintptr_t end)
{
	struct present p = { .region = region,
			     .start = PAGE_DOWN(*start),
			     .end = page_up(end),
			     .left = ADVICE_STEP };
	int err;

	if (p.start >= p.end)
		return 0;
	err = hmm_snapshot_runs(region->target->hmm, p.start, p.end, HMM_RUN_VALID, map_run, &p);
	if (err == -EINPROGRESS)
		*start = p.next;
	return err;
}

int access_advise(struct odp_region *region, struct access *a, enum odp_advice advice)
{
	uint64_t request = HMM_PFN_REQ_FAULT |
			   (advice == ODP_PREFETCH_WRITE ? HMM_PFN_REQ_WRITE : 0);
	size_t step = a->length < ADVICE_STEP ? a->length : ADVICE_STEP;
	uintptr_t at = a->addr;
	int err;

	if (advice == ODP_PREFETCH_NO_FAULT) {
		err = access_map_present(region, &at, a->addr + a->length);
		a->length = at - a->addr < a->length ? a->length - (at - a->addr) : 0;
		a->addr = at;
		return err == -EINPROGRESS && !a->length ? 0 : err;
	}
	err = map(region, a->addr, a->addr + step, request, &region->count.prefetches,
		  &a->fault_addr, &a->reason);
	a->addr += step;
	a->length -= step;
	return err ? err : a->length ? -EINPROGRESS : 0;
}
