/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * range - snapshot, fault, and the driver's loop (hmm-reference A13, B2, B5).
 */
#include <errno.h>
#include <string.h>

#include "core/core.h"

static bool lone_write(uint64_t request)
{
	return (request & (HMM_PFN_REQ_WRITE | HMM_PFN_REQ_FAULT)) == HMM_PFN_REQ_WRITE;
}

static int check_requests(const struct hmm_range *range)
{
	size_t n = (range->end - range->start) >> OS_PAGE_SHIFT;
	bool bad = lone_write(range->default_flags);

	if (range->pfn_flags_mask)
		for (size_t i = 0; i < n && !bad; i++)
			bad = lone_write((range->pfns[i] & range->pfn_flags_mask) |
					 range->default_flags);
	return bad ? error_say(-EINVAL, "REQ_WRITE without REQ_FAULT") : 0;
}

int range_check(struct hmm_range *range, bool fault)
{
	int err = range ? struct_check(range, range->size, sizeof(*range))
			: error_say(-EINVAL, "the range is NULL");

	if (err)
		return err;
	err = hmm_check(range->hmm);
	if (!err && (range->notifier || fault))
		err = hmm_check_sleep(range->hmm);
	if (!err && in_callback())
		err = error_say(-EDEADLK, "a range cannot be looked at inside a callback");
	if (err)
		return err;
	if (range->start >= range->end || ((range->start | range->end) & (PAGE - 1)))
		return error_say(-EINVAL, "the range is empty or not aligned to pages");
	if (!range->pfns)
		return error_say(-EINVAL, "the range has no entries");
	if (range->notifier &&
	    (range->notifier->hmm != range->hmm || range->start < range->notifier->start ||
	     range->end > range->notifier->end))
		return error_say(-EINVAL, "the notifier does not cover the range");
	return fault ? check_requests(range) : 0;
}

int range_stale(void)
{
	return error_say(-EBUSY, "the range changed since hmm_notifier_read_begin(): begin again");
}

int hmm_range_snapshot(struct hmm_range *range)
{
	int err = range_check(range, false);

	if (err)
		return err;
	if (range->notifier && hmm_notifier_read_retry(range))
		return range_stale();
	err = look(range, false);
	return err == -EBUSY ? range_stale() : err;
}

int hmm_range_fault(struct hmm_range *range)
{
	int err = range_check(range, true);

	if (err)
		return err;
	if (range->notifier && hmm_notifier_read_retry(range))
		return range_stale();
	err = look(range, true);
	return err == -EBUSY ? range_stale() : err;
}

int range_keep(struct range_kept *kept, const struct hmm_range *range)
{
	kept->bytes = ((range->end - range->start) >> OS_PAGE_SHIFT) * sizeof(uint64_t);
	kept->pfns = kept->some;
	if (kept->bytes > sizeof(kept->some))
		kept->pfns = arena_alloc(range->hmm->arena, kept->bytes);
	if (!kept->pfns)
		return error_say(-ENOMEM, "no memory to keep the requests");
	memcpy(kept->pfns, range->pfns, kept->bytes);
	return 0;
}

void range_restore(const struct range_kept *kept, struct hmm_range *range)
{
	memcpy(range->pfns, kept->pfns, kept->bytes);
}

void range_drop(struct range_kept *kept, struct hmm *hmm)
{
	if (kept->pfns != kept->some)
		arena_free(hmm->arena, kept->pfns, kept->bytes);
}

int range_again(struct hmm_range *range, unsigned timeout_ms,
		int (*attempt)(struct hmm_range *range, void *arg), void *arg)
{
	struct range_kept kept;
	uint64_t deadline, pause = 1000;
	int err = range_keep(&kept, range);

	if (err)
		return err;
	if (!timeout_ms)
		timeout_ms = HMM_RANGE_DEFAULT_TIMEOUT;
	deadline = range->hmm->os->now() + (uint64_t)timeout_ms * 1000000;
	for (;;) {
		err = attempt(range, arg);
		if (err)
			range_restore(&kept, range);
		if (err != -EBUSY || range->hmm->os->now() > deadline)
			break;
		range->hmm->os->sleep(pause);
		pause = pause < 1000000 ? pause * 2 : pause;
	}
	range_drop(&kept, range->hmm);
	return err == -EBUSY ? range_stale() : err;
}

struct program {
	pthread_mutex_t *update_lock;
	hmm_program_fn fn;
	void *arg;
};

/* One try. -EBUSY: stale. */
static int try_program(struct hmm_range *range, void *arg)
{
	bool fault = range->default_flags || range->pfn_flags_mask;
	const struct program *p = arg;
	int err = hmm_notifier_read_begin(range);

	if (!err)
		err = look(range, fault);
	if (err)
		return err;
	pthread_mutex_lock(p->update_lock);
	err = hmm_notifier_read_retry(range) ? -EBUSY : p->fn(range, p->arg);
	pthread_mutex_unlock(p->update_lock);
	return err;
}

int hmm_range_program(struct hmm_range *range, unsigned timeout_ms, pthread_mutex_t *update_lock,
		      hmm_program_fn program, void *arg)
{
	struct program p = { .update_lock = update_lock, .fn = program, .arg = arg };
	int err = range_check(range, true);

	if (!err && (!range->notifier || !update_lock || !program))
		err = error_say(-EINVAL, "programming needs a notifier, a lock and a function");
	return err ? err : range_again(range, timeout_ms, try_program, &p);
}
