/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * pager - the reader's turn with pages that are away (L1, L2).
 *
 * Faults are parked until they are served: a page on its way, a time slice, a change that
 * has to be read first. Nothing is lost if there are too many: who is woken faults again.
 */
#include <errno.h>

#include "core/pager.h"

#define AGAIN_NS 20000
#define LIMBO_NS 1000000
#define IDLE_NS 100000000
#define AROUND_MIN 16u
/* How long EAGAIN lasts before it counts as a storm. */
#define STORM_HUSH_NS 1000000

void pager_again(struct hmm *hmm)
{
	hmm->pager->again = true;
}

/* ---- faults ---- */

static void park(struct hmm *hmm, unsigned ctx, uintptr_t addr)
{
	struct pager *pager = hmm->pager;

	if (pager->parked_n == PARKED) {
		hmm->os->ctx_wake(&hmm->os_ctx[ctx], addr, PAGE);
		return;
	}
	for (unsigned i = 0; i < pager->parked_n; i++)
		if (pager->parked[i].addr == addr && pager->parked[i].ctx == ctx)
			return;
	pager->parked[pager->parked_n++] = (struct parked){ .addr = addr, .ctx = ctx };
}

void parked_forget(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end)
{
	struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < pager->parked_n; i++) {
		struct parked *p = &pager->parked[i];

		if (p->ctx == ctx && p->addr >= start && p->addr < end)
			p->addr = 0;
	}
}

/* As far as nothing is away. Zeros come in steps, as the kernel's own fault-around. */
static unsigned zero_pages(struct hmm *hmm, uintptr_t addr)
{
	uintptr_t end = (addr & ~(AROUND_MIN * PAGE - 1)) + AROUND_MIN * PAGE, at = addr;
	uint64_t entry;

	return (unsigned)(((books_next(hmm, &at, end, &entry) ? at : end) - addr) / PAGE);
}

/* Not beyond its end, where somebody else's begins. If it has changed since, ZEROPAGE says so. */
static unsigned within_mapping(struct hmm *hmm, uintptr_t addr, unsigned n)
{
	struct os_vma vma;

	if (n <= 1 || hmm->os->vma_find_fast(&hmm->reader_mm, addr, &vma) || vma.start > addr)
		return 1;
	return n * PAGE < vma.end - addr ? n : (unsigned)((vma.end - addr) / PAGE);
}

/* true: nobody waits there any more. ZEROPAGE does not look whose the mapping is. */
static bool serve_zero(struct hmm *hmm, struct parked *p)
{
	const struct os_ctx *ctx = &hmm->os_ctx[p->ctx];
	unsigned n = zero_pages(hmm, p->addr);
	size_t done = 0;
	int err = -ENOENT;

	if (belongs(hmm, p->ctx, p->addr)) {
		n = within_mapping(hmm, p->addr, n);
		err = hmm->os->ctx_zero(ctx, p->addr, n * PAGE, &done);
	} else if (hmm->os->ctx_probe(ctx)) {
		err = -EAGAIN;
	}
	if (done)
		return true;
	if (err == -EAGAIN || err == -ENOMEM) {
		pager_again(hmm);
		return false;
	}
	hmm->os->ctx_wake(ctx, p->addr, PAGE);
	return true;
}

/* A time slice that is not over yet: until when. */
static bool has_to_wait(struct hmm *hmm, struct parked *p, const struct hmm_devmem *devmem,
			uint64_t frame)
{
	uint32_t slice = devmem->options.timeslice_us;
	uint64_t now = hmm->os->now();
	uint32_t been = (uint32_t)(now / 1000) - devmem->frame[frame].since;

	if (devmem->frame[frame].locked) {
		p->until = now + IDLE_NS; /* the release nudges */
		return true;
	}
	if (!slice || been >= slice || devmem->lost)
		return false;
	p->until = now + (uint64_t)(slice - been) * 1000;
	return true;
}

/* Sequential faults bring up to a block, others 64 KiB. */
static void around(struct pager *pager, uintptr_t addr, uintptr_t *start, uintptr_t *end)
{
	uintptr_t block = addr & ~(BLOCK - 1);

	if (addr == pager->around_end && pager->around) {
		pager->around = pager->around * 4 < BLOCK_PAGES ? pager->around * 4 : BLOCK_PAGES;
		*start = addr;
	} else {
		pager->around = AROUND_MIN;
		*start = addr & ~(AROUND_MIN * PAGE - 1);
	}
	*end = *start + pager->around * PAGE;
	if (*end > block + BLOCK)
		*end = block + BLOCK;
	pager->around_end = *end;
}

static void bring(struct hmm *hmm, struct parked *p)
{
	uintptr_t start, end;
	int n;

	around(hmm->pager, p->addr, &start, &end);
	n = arrive_begin(hmm, start, end, WHY_FAULT);
	/* Of another devmem than the first one around it. */
	if ((n >= 0 || n == -EAGAIN) && book_state(books_get(hmm, p->addr)) == BOOK_AWAY)
		n = arrive_begin(hmm, p->addr, p->addr + PAGE, WHY_FAULT);
	if (n < 0)
		pager_again(hmm);
}

/* true: served; false: it stays parked. */
static bool serve(struct hmm *hmm, struct parked *p)
{
	uint64_t entry = books_get(hmm, p->addr);
	struct hmm_devmem *devmem;

	switch (book_state(entry)) {
	case BOOK_HOME:
	case BOOK_COHERENT:
		return serve_zero(hmm, p);
	case BOOK_MOVING:
		return false;
	case BOOK_AWAY:
		break;
	}
	devmem = hmm->pager->devmem[book_devmem(entry)];
	if (!p->counted)
		atomic_fetch_add(&devmem->count.cpu_faults, 1);
	p->counted = true;
	if (has_to_wait(hmm, p, devmem, book_frame(entry))) {
		if (!p->sliced)
			atomic_fetch_add(&devmem->count.timesliced, 1);
		p->sliced = true;
		return false;
	}
	p->until = 0;
	bring(hmm, p);
	return false;
}

static void faults_serve(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	unsigned kept = 0;

	for (unsigned i = 0; i < pager->parked_n; i++) {
		struct parked p = pager->parked[i];

		if (p.addr && !serve(hmm, &p))
			pager->parked[kept++] = p;
	}
	pager->parked_n = kept;
}

/* ---- the reader's calls ---- */

void pager_message(struct hmm *hmm, unsigned ctx, const struct os_msg *msg, uint64_t number)
{
	switch (msg->kind) {
	case OS_MSG_FAULT:
		park(hmm, ctx, msg->start);
		break;
	case OS_MSG_REMOVE:
		dropped_remove(hmm, ctx, msg->start, msg->end, number);
		break;
	case OS_MSG_UNMAP:
		missing_touched(hmm, ctx, msg->start, msg->end);
		dropped_unmap(hmm, ctx, msg->start, msg->end, number);
		break;
	case OS_MSG_REMAP:
		missing_moved(hmm, ctx, msg);
		dropped_remap(hmm, ctx, msg, number);
		break;
	case OS_MSG_FORK:
		forked_child(hmm, ctx, msg->child);
		break;
	}
}

static bool copies_ended(const struct pager *pager)
{
	for (unsigned i = 0; i < TRANSFERS; i++)
		if (pager->transfer[i].state == TRANSFER_COPIED)
			return true;
	return false;
}

void pager_turn(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	pager->again = false;
	for (unsigned round = 0; round < 4; round++) {
		judge_all(hmm);
		if (pager->doubts)
			doubts_settle(hmm);
		transfers_look(hmm);
		requests_run(hmm);
		faults_serve(hmm);
		if (!copies_ended(pager) || pager->again)
			break;
	}
	/* What nobody waits for. */
	leave_sweep(hmm);
	if (pager->limbo_n)
		limbo_drain(hmm);
	plain_trim(hmm);
	if (pager->hungry) {
		pager->hungry = false;
		helper_wake(hmm);
	}
	if (pager->again != !!pager->again_since)
		pager->again_since = pager->again ? hmm->os->now() : 0;
	hush(hmm, pager->again && hmm->os->now() - pager->again_since > STORM_HUSH_NS);
}

static int64_t earlier(int64_t a, uint64_t until, uint64_t now)
{
	int64_t left = until > now ? (int64_t)(until - now) : 0;

	return a < 0 || left < a ? left : a;
}

int64_t pager_timeout(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	int64_t timeout = IDLE_NS;
	uint64_t now;

	if (!pager)
		return -1;
	if (pager->again)
		return AGAIN_NS;
	now = hmm->os->now();
	for (unsigned i = 0; i < pager->parked_n; i++)
		if (pager->parked[i].until)
			timeout = earlier(timeout, pager->parked[i].until, now);
	if (pager->limbo_n && timeout > LIMBO_NS)
		timeout = LIMBO_NS;
	for (unsigned i = 0; i < TRANSFERS; i++)
		if (pager->transfer[i].state == TRANSFER_DIRTY && timeout > LIMBO_NS)
			timeout = LIMBO_NS;
		else if (pager->transfer[i].state == TRANSFER_COPYING)
			timeout = earlier(timeout, pager->transfer[i].deadline, now);
	return timeout;
}

/* ---- making and ending ---- */

static int buffers_make(struct hmm *hmm, struct pager *pager)
{
	pager->fresh = (uintptr_t)hmm->os->region_map(TRANSFERS * BLOCK);
	pager->trash = (uintptr_t)hmm->os->region_map(BLOCK);
	return pager->fresh && pager->trash ? 0 : -ENOMEM;
}

/* In the reader's own table of descriptors, so by the reader. */
int pager_quiet(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;
	int err;

	if (pager->quiet.fd >= 0)
		return 0;
	err = hmm->os->quiet_open(&pager->quiet);
	if (!err)
		err = hmm->os->ctx_register(&pager->quiet, pager->trash,
					    pager->trash + BLOCK);
	if (err && pager->quiet.fd >= 0)
		hmm->os->quiet_close(&pager->quiet);
	if (err)
		pager->quiet.fd = -1;
	return err;
}

static void pager_free(struct hmm *hmm, struct pager *pager)
{
	const struct os_ops *os = hmm->os;

	for (unsigned i = 0; i < CONTEXTS; i++)
		if (pager->stage[i]) {
			os->ctx_unregister(&hmm->os_ctx[i], pager->stage[i],
					   pager->stage[i] + TRANSFERS * BLOCK);
			os->region_unmap((void *)pager->stage[i], TRANSFERS * BLOCK);
		}
	/* `quiet` goes with the reader. */
	if (pager->fresh)
		os->region_unmap((void *)pager->fresh, TRANSFERS * BLOCK);
	if (pager->trash)
		os->region_unmap((void *)pager->trash, BLOCK);
	uhmm_ptable_destroy(&pager->books);
	uhmm_ptable_destroy(&pager->aside);
	arena_free(hmm->arena, pager->limbo, LIMBO * sizeof(*pager->limbo));
	arena_free(hmm->arena, pager->transfer, TRANSFERS * sizeof(*pager->transfer));
	arena_free(hmm->arena, pager, sizeof(*pager));
}

/* Who has found no pager unregisters without asking one, under this lock (unregister.c): before anything can
 * go away. false: another thread was quicker. */
static bool publish(struct hmm *hmm, struct pager *pager)
{
	struct pager *none = NULL;
	bool first;

	lock_take(&hmm->register_lock);
	first = atomic_compare_exchange_strong(&hmm->pager, &none, pager);
	lock_drop(&hmm->register_lock);
	return first;
}

static int make(struct hmm *hmm)
{
	struct pager *pager = arena_alloc(hmm->arena, sizeof(*pager));
	int err;

	if (!pager)
		return -ENOMEM;
	pager->quiet.fd = -1;
	pager->transfer = arena_alloc(hmm->arena, TRANSFERS * sizeof(*pager->transfer));
	pager->limbo = arena_alloc(hmm->arena, LIMBO * sizeof(*pager->limbo));
	err = pager->transfer && pager->limbo ? uhmm_ptable_init(&pager->books) : -ENOMEM;
	if (!err)
		err = uhmm_ptable_init(&pager->aside);
	if (!err)
		err = buffers_make(hmm, pager);
	for (unsigned i = 0; pager->transfer && i < TRANSFERS; i++) {
		pager->transfer[i].hmm = hmm;
		pager->transfer[i].index = i;
		/* One is for forks, of which the reader may read as soon as there is a pager. */
		pager->transfer[i].state = i ? TRANSFER_FREE : TRANSFER_CLAIMED;
	}
	pager->fork_transfer = pager->transfer;
	/* What was read before nobody has noted: all of it may be unsettled. */
	pager->removes = 1;
	pager->unsettled[0] = (struct unsettled){ .end = UINTPTR_MAX, .number = 1 };
	pager->unsettled_n = 1;
	if (!err && publish(hmm, pager)) {
		hmm->os->populate(pager->fresh, pager->fresh + FORK_PAGES * PAGE, true);
		if (helper_start(hmm))
			hmm_log(HMM_LOG_WARN, "no thread or memory to get through storms of madvise "
				"with: faults may have to wait for their end");
		return 0;
	}
	pager_free(hmm, pager);
	return err;
}

int pager_need(struct hmm *hmm)
{
	int err = hmm->pager ? 0 : make(hmm);

	return hmm->pager ? 0 : err; /* another thread may have been quicker */
}

void pager_end(struct hmm *hmm)
{
	if (!hmm->pager)
		return;
	helper_end(hmm);
	pager_free(hmm, hmm->pager);
	hmm->pager = NULL;
}
