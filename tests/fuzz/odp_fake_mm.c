/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_fake_mm - what drivers/odp asks of the library, answered from an array.
 *
 * A change is at once true for copies, and told later: hmm_try_fence() says so, and a worker's
 * hmm_fence() delivers it. Nothing may be touched but what a region that is there allows.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "odp_fake_private.h"

static struct {
	struct {
		bool mapped, writable, present, changed;
	} page[FAKE_PAGES];
	uint8_t bytes[FAKE_PAGES * PAGE];
	struct odp_region *region[FAKE_REGIONS];
	struct odp_key key[FAKE_REGIONS]; /* the last one that it had */
	struct {
		const struct hmm_notifier_ops *ops;
		void *priv;
	} notifier[FAKE_REGIONS + 1];
	uint8_t trouble;
} mm;

/* ---- regions ---- */

static uintptr_t region_start(unsigned i)
{
	return FAKE_BASE + (uintptr_t)i * (FAKE_PAGES / FAKE_REGIONS) * PAGE + i * 24;
}

#define REGION_LENGTH (FAKE_PAGES / FAKE_REGIONS * PAGE - 200)

void fake_key(unsigned region, struct odp_key *key)
{
	*key = mm.key[region];
}

void fake_region(unsigned i, uint8_t how)
{
	unsigned access = how % 8 ? how % 8 : ODP_READ;

	if (mm.region[i]) {
		odp_region_destroy(mm.region[i]);
		mm.region[i] = NULL;
		return;
	}
	if (odp_region_create(&fake_target, region_start(i), REGION_LENGTH, access, &mm.region[i]))
		return;
	odp_region_key(mm.region[i], &mm.key[i]);
}

bool fake_allowed(const struct odp_key *key, uint64_t addr, uint64_t length, unsigned need)
{
	for (unsigned i = 0; i < FAKE_REGIONS; i++) {
		if (!mm.region[i] || memcmp(key, &mm.key[i], sizeof(*key)))
			continue;
		return addr >= region_start(i) && length <= REGION_LENGTH &&
		       addr - region_start(i) <= REGION_LENGTH - length &&
		       !(need & ~mm.region[i]->access);
	}
	return false;
}

/* G4 is for the driver; that a page is touched at all is for the key. */
static void may_touch(uint64_t addr, uint64_t length, unsigned access)
{
	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		if (mm.region[i] && (mm.region[i]->access & access) && addr >= region_start(i) &&
		    addr + length <= region_start(i) + REGION_LENGTH)
			return;
	must(!"memory outside of the regions is touched");
}

/* ---- changes ---- */

void fake_change(unsigned page, uint8_t how)
{
	mm.page[page].mapped = how % 16;
	mm.page[page].writable = how % 8 > 1;
	mm.page[page].present = how & 16;
	mm.page[page].changed = true;
}

static void deliver(unsigned page)
{
	uintptr_t at = FAKE_BASE + page * PAGE;
	struct hmm_event event = { .size = sizeof(event), .kind = HMM_EVENT_CLEAR, .start = at,
				   .end = at + PAGE };

	mm.page[page].changed = false;
	for (unsigned i = 0; i < FAKE_REGIONS + 1; i++)
		if (mm.notifier[i].ops)
			mm.notifier[i].ops->invalidate(mm.notifier[i].priv, &event);
}

void fake_deliver(void)
{
	for (unsigned i = 0; i < FAKE_PAGES; i++)
		if (mm.page[i].changed)
			deliver(i);
}

void fake_trouble(uint8_t how)
{
	mm.trouble = how;
}

static bool trouble(void)
{
	bool yes = mm.trouble & 1;

	mm.trouble >>= 1;
	return yes;
}

void fake_mm_begin(uint8_t how)
{
	memset(&mm, 0, sizeof(mm));
	for (unsigned i = 0; i < FAKE_PAGES; i++) {
		fake_change(i, (uint8_t)(how + i * 37));
		mm.page[i].changed = false;
	}
	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		fake_region(i, (uint8_t)(i == 1 ? 7 : i == 2 ? ODP_READ : i == 3 ? ODP_WRITE : 7));
}

void fake_mm_calm(void)
{
	mm.trouble = 0;
}

void fake_mm_end(void)
{
	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		odp_region_destroy(mm.region[i]);
	for (unsigned i = 0; i < FAKE_REGIONS + 1; i++)
		must(!mm.notifier[i].ops);
}

/* ---- the library ---- */

void *hmm_alloc(size_t size)
{
	return trouble() ? NULL : calloc(1, size);
}

void hmm_free(void *at, size_t size)
{
	free(at);
}

int hmm_notifier_insert(struct hmm *hmm, uintptr_t start, size_t length,
			const struct hmm_notifier_ops *ops, void *priv,
			struct hmm_notifier **notifier)
{
	unsigned i = 0;

	if (trouble())
		return -ENOMEM;
	while (mm.notifier[i].ops)
		must(++i < FAKE_REGIONS + 1);
	mm.notifier[i].ops = ops;
	mm.notifier[i].priv = priv;
	*notifier = (struct hmm_notifier *)&mm.notifier[i];
	return 0;
}

void hmm_notifier_remove(struct hmm_notifier *notifier)
{
	if (notifier)
		memset(notifier, 0, sizeof(mm.notifier[0]));
}

static bool any_changed(uint64_t start, uint64_t length, bool tell)
{
	bool any = false;

	for (unsigned i = 0; i < FAKE_PAGES; i++) {
		uint64_t at = FAKE_BASE + i * PAGE;

		if (!mm.page[i].changed || at + PAGE <= start || at >= start + length)
			continue;
		any = true;
		if (tell)
			deliver(i);
	}
	return any;
}

int hmm_try_fence(struct hmm *hmm, uintptr_t start, size_t length)
{
	return any_changed(start, length, false) || trouble() ? -EAGAIN : 0;
}

int hmm_fence(struct hmm *hmm, uintptr_t start, size_t length)
{
	if (trouble())
		return -ENODEV;
	any_changed(start, length, true);
	return 0;
}

static int look(struct hmm_range *r, uintptr_t at, uint64_t *pfn)
{
	unsigned page = (unsigned)((at - FAKE_BASE) / PAGE);
	bool in = at >= FAKE_BASE && page < FAKE_PAGES && mm.page[page].mapped;
	uint64_t asked = r->default_flags;

	*pfn = 0;
	if (!asked && (!in || !mm.page[page].present))
		return 0;
	r->fault_addr = at;
	if (!in) {
		r->fault_reason = HMM_REASON_NO_MAPPING;
		return -EFAULT;
	}
	if ((asked & HMM_PFN_REQ_WRITE) && !mm.page[page].writable) {
		r->fault_reason = HMM_REASON_READ_ONLY;
		return -EPERM;
	}
	mm.page[page].present = true;
	*pfn = HMM_PFN_VALID | (mm.page[page].writable ? HMM_PFN_WRITE : 0);
	return 0;
}

int hmm_range_program(struct hmm_range *r, unsigned timeout_ms, pthread_mutex_t *lock,
		      hmm_program_fn program, void *arg)
{
	int err = trouble() ? -EBUSY : 0;

	must(r->start < r->end && !(r->start % PAGE) && !(r->end % PAGE));
	must(r->end - r->start <= 512 * PAGE);
	if (!err)
		any_changed(r->start, r->end - r->start, true);
	for (uintptr_t at = r->start; at < r->end && !err; at += PAGE)
		err = look(r, at, &r->pfns[(at - r->start) / PAGE]);
	if (err)
		return err;
	pthread_mutex_lock(lock);
	err = program(r, arg);
	pthread_mutex_unlock(lock);
	return err;
}

int hmm_snapshot_runs(struct hmm *hmm, uintptr_t start, uintptr_t end, unsigned flags,
		      hmm_run_fn fn, void *arg)
{
	int err = 0;

	must(start < end);
	for (unsigned i = 0; i < FAKE_PAGES && !err; i++) {
		struct hmm_run run = { .size = sizeof(run), .start = FAKE_BASE + i * PAGE,
				       .end = FAKE_BASE + (i + 1) * PAGE };

		if (mm.page[i].mapped && mm.page[i].present && run.end > start && run.start < end)
			err = fn(&run, arg);
	}
	return err;
}

/* ---- accesses ---- */

static bool reach(uintptr_t addr, size_t length, bool write)
{
	for (uintptr_t at = PAGE_DOWN(addr); at < addr + length; at += PAGE) {
		unsigned page = (unsigned)((at - FAKE_BASE) / PAGE);

		must(page < FAKE_PAGES);
		if (!mm.page[page].mapped || (write && !mm.page[page].writable))
			return false;
	}
	return true;
}

int hmm_copy_from(struct hmm *hmm, void *dst, uintptr_t src, size_t length)
{
	may_touch(src, length, ODP_READ);
	if (!reach(src, length, false))
		return -EFAULT;
	memcpy(dst, mm.bytes + (src - FAKE_BASE), length);
	return 0;
}

int hmm_copy_to(struct hmm *hmm, uintptr_t dst, const void *src, size_t length)
{
	may_touch(dst, length, ODP_WRITE);
	if (!reach(dst, length, true))
		return -EFAULT;
	memcpy(mm.bytes + (dst - FAKE_BASE), src, length);
	return 0;
}

int hmm_access_begin(struct hmm *hmm)
{
	return 0;
}

void hmm_access_end(struct hmm *hmm)
{
}

static int atomic_at(uintptr_t addr, uint64_t *now)
{
	must(!(addr & 7));
	may_touch(addr, 8, ODP_ATOMIC);
	if (!reach(addr, 8, true))
		return -EFAULT;
	memcpy(now, mm.bytes + (addr - FAKE_BASE), 8);
	return 0;
}

int hmm_access_add(struct hmm *hmm, uintptr_t addr, size_t size, uint64_t operand, uint64_t *old)
{
	int err = atomic_at(addr, old);
	uint64_t value = *old + operand;

	if (!err)
		memcpy(mm.bytes + (addr - FAKE_BASE), &value, 8);
	return err;
}

int hmm_access_cas(struct hmm *hmm, uintptr_t addr, size_t size, uint64_t expected,
		   uint64_t desired, uint64_t *old)
{
	int err = atomic_at(addr, old);

	if (!err && *old == expected)
		memcpy(mm.bytes + (addr - FAKE_BASE), &desired, 8);
	return err;
}
