/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * calls - what a program asks of its connection.
 */
#include <unistd.h>

#include "initiator.h"

static bool makes_sense(const struct odp_op *op)
{
	switch (op->code) {
	case ODP_GET:
	case ODP_PUT:
		return op->key && (op->local || !op->length);
	case ODP_FETCH_ADD:
	case ODP_COMPARE_SWAP:
	case ODP_ATOMIC_WRITE:
		return op->key;
	case ODP_ADVISE:
		return op->key && op->operand <= ODP_PREFETCH_NO_FAULT && op->compare <= 1;
	}
	return false;
}

/* What can be said without asking: nothing to be done, or an impossible range. */
static bool settled_here(struct odp *odp, struct odp_op *op)
{
	bool has_length = op_has_length(op);

	if (odp->failed)
		op->result = odp->failed;
	else if (has_length && !op->length)
		op->result = 0;
	else if (has_length && op->length > UINT64_MAX - op->remote)
		op->result = -EINVAL;
	else
		return false;
	return true;
}

static void run(struct odp *odp, struct odp_op *ops, unsigned n)
{
	unsigned next = 0;

	/* One fence for all of them. They begin later, but nobody could tell from when on. */
	odp->fenced = n > 1 && odp->cache && !hmm_regcache_fence(odp->cache);
	odp->heard = now_ns();
	while (next < n || slots_busy(odp)) {
		struct slot *s = NULL;

		while (next < n && (settled_here(odp, &ops[next]) || (s = slot_free(odp)))) {
			if (s)
				slot_begin(odp, s, &ops[next]);
			s = NULL;
			next++;
		}
		if (next < n || slots_busy(odp))
			initiator_wait(odp);
	}
}

int odp_run(struct odp *odp, struct odp_op *ops, unsigned n)
{
	int failed = 0;

	if (!odp || (n && !ops))
		return -EINVAL;
	for (unsigned i = 0; i < n; i++)
		if (!makes_sense(&ops[i]))
			return -EINVAL;
	if (odp->pid != getpid())
		return -ENODEV;
	pthread_mutex_lock(&odp->lock);
	run(odp, ops, n);
	pthread_mutex_unlock(&odp->lock);
	for (unsigned i = 0; i < n; i++)
		failed += ops[i].result != 0;
	odp->count.requests += n;
	odp->count.failed += (unsigned)failed;
	return failed;
}

static int run_one(struct odp *odp, struct odp_op *op)
{
	int err = odp_run(odp, op, 1);

	return err < 0 ? err : op->result;
}

int odp_get(struct odp *odp, const struct odp_key *key, void *dst, uint64_t src, size_t length)
{
	struct odp_op op = { .code = ODP_GET, .key = key, .local = dst, .remote = src,
			     .length = length };

	return run_one(odp, &op);
}

int odp_put(struct odp *odp, const struct odp_key *key, uint64_t dst, const void *src,
	    size_t length)
{
	struct odp_op op = { .code = ODP_PUT, .key = key, .local = (void *)(uintptr_t)src,
			     .remote = dst, .length = length };

	return run_one(odp, &op);
}

static int atomic(struct odp *odp, struct odp_op *op, uint64_t *old)
{
	int err = run_one(odp, op);

	if (!err && old)
		*old = op->old;
	return err;
}

int odp_fetch_add(struct odp *odp, const struct odp_key *key, uint64_t addr, uint64_t operand,
		  uint64_t *old)
{
	struct odp_op op = { .code = ODP_FETCH_ADD, .key = key, .remote = addr,
			     .operand = operand };

	return atomic(odp, &op, old);
}

int odp_compare_swap(struct odp *odp, const struct odp_key *key, uint64_t addr,
		     uint64_t compare, uint64_t desired, uint64_t *old)
{
	struct odp_op op = { .code = ODP_COMPARE_SWAP, .key = key, .remote = addr,
			     .compare = compare, .operand = desired };

	return atomic(odp, &op, old);
}

int odp_atomic_write(struct odp *odp, const struct odp_key *key, uint64_t addr, uint64_t value)
{
	struct odp_op op = { .code = ODP_ATOMIC_WRITE, .key = key, .remote = addr,
			     .operand = value };

	return run_one(odp, &op);
}

int odp_advise(struct odp *odp, const struct odp_key *key, uint64_t addr, size_t length,
	       enum odp_advice advice, bool flush)
{
	struct odp_op op = { .code = ODP_ADVISE, .key = key, .remote = addr, .length = length,
			     .operand = advice, .compare = flush };

	return run_one(odp, &op);
}

void odp_get_stats(struct odp *odp, struct odp_stats *stats)
{
	struct odp_stats all = { .requests = odp->count.requests,
				 .failed = odp->count.failed,
				 .uncached = odp->count.uncached,
				 .cache = { .size = sizeof(all.cache) } };

	if (odp->cache)
		hmm_regcache_get_stats(odp->cache, &all.cache);
	stats_give(stats, &all, sizeof(all));
}
