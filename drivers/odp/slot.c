/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * slot - a request under way.
 *
 * Short gets and puts travel in the messages, for longer ones the target gets the buffer's
 * registration, from a cache that is never stale.
 *
 * A long transfer is asked for in steps, one after the other in its slot: each answer is a sign
 * of life, which RDMA by the target is not. So the limit of time is for who hears nothing.
 */
#include "initiator.h"

#define STEP ((uint64_t)16 << 20)	   /* bytes of a get or a put */
#define STEP_ADVICE ((uint64_t)1 << 30) /* that are faulted in */
#define TRIES 16u /* of a transfer whose buffer was replaced in it */

/* ---- registrations ---- */

static int reg(void *priv, uintptr_t start, size_t length, unsigned access, void **handle)
{
	struct odp *odp = priv;
	uint64_t rights = FI_REMOTE_READ | (access & HMM_REGCACHE_WRITE ? FI_REMOTE_WRITE : 0);
	struct fid_mr *mr;
	int err = fabric_register(&odp->fabric, (void *)start, length, rights, &mr);

	if (!err)
		*handle = mr;
	return err;
}

static void dereg(void *priv, void *handle, uintptr_t start, size_t length)
{
	struct fid_mr *mr = handle;

	fi_close(&mr->fid);
}

static const struct hmm_regcache_ops cache_ops = { .size = sizeof(cache_ops), .reg = reg,
						   .dereg = dereg };

int slots_open_cache(struct odp *odp)
{
	/* Who has to name local memory to the provider has hardware behind it, which pins. */
	struct hmm_regcache_options options = { .size = sizeof(options),
						.pinned = fabric_wants_local(&odp->fabric) };
	int err = hmm_open(&odp->hmm);

	return err ? err : hmm_regcache_create(odp->hmm, &options, &cache_ops, odp, &odp->cache);
}

static int expose(struct odp *odp, struct slot *s)
{
	struct odp_op *op = s->op;
	bool write = op->code == ODP_GET;
	uintptr_t at = (uintptr_t)op->local, start = at;
	void *handle;
	int err = -EOPNOTSUPP;

	if (odp->cache)
		err = hmm_regcache_get(odp->cache, at, op->length,
				       write ? HMM_REGCACHE_WRITE : 0,
				       odp->fenced ? HMM_REGCACHE_FENCED : 0, &s->region);
	if (!err) {
		handle = hmm_region_handle(s->region);
		start = hmm_region_start(s->region);
	} else if (err == -EOPNOTSUPP) {
		/* No cache, or memory that nobody would tell us a change of. */
		err = reg(odp, at, op->length, write ? HMM_REGCACHE_WRITE : 0, &handle);
		s->mr = err ? NULL : handle;
		odp->count.uncached++;
	}
	if (err)
		return err;
	s->buffer = fabric_remote(&odp->fabric, start, at);
	s->buffer_key = fi_mr_key(handle);
	return 0;
}

/* true: the buffer is not what it was. */
static bool hide(struct slot *s)
{
	bool changed = s->region && hmm_regcache_put(s->region);

	if (s->mr)
		fi_close(&s->mr->fid);
	s->region = NULL;
	s->mr = NULL;
	return changed;
}

/* ---- requests ---- */

void slot_finish(struct slot *s, int result)
{
	hide(s);
	s->op->result = result;
	s->op = NULL;
	s->busy = s->next = false;
}

static bool is_short(const struct odp_op *op)
{
	return op->length <= WIRE_INLINE;
}

/* How much of it is asked for at a time. */
static uint64_t step_of(const struct odp_op *op)
{
	if (op->code == ODP_GET || op->code == ODP_PUT)
		return STEP;
	if (op->code == ODP_ADVISE)
		return op->compare && op->operand != ODP_PREFETCH_NO_FAULT ? STEP_ADVICE
									   : UINT64_MAX;
	return 8;
}

static uint64_t length_of(const struct odp_op *op)
{
	return op_has_length(op) ? op->length : 8;
}

static int request_of(struct odp *odp, struct slot *s, struct wire_request *r)
{
	const struct odp_op *op = s->op;
	bool moves = op->code == ODP_GET || op->code == ODP_PUT, whole = moves && is_short(op);
	uint64_t left = length_of(op) - s->done, step = step_of(op);
	int err = moves && !whole && !s->done ? expose(odp, s) : 0;

	s->step = left < step ? left : step;
	*r = (struct wire_request){ .code = op->code,
				    .with_bytes = whole,
				    .slot = (uint16_t)(s - odp->slot),
				    .key = *op->key,
				    .remote = op->remote + s->done,
				    .length = s->step,
				    .operand = op->operand,
				    .compare = op->compare };
	if (moves && !whole) {
		r->buffer = s->buffer + s->done;
		r->buffer_key = s->buffer_key;
	}
	return err;
}

/* A bad pointer of the caller's is an error, not a signal, where there is a mirror. */
static int copy_local(struct odp *odp, void *dst, const void *src, size_t n, bool in)
{
	if (!odp->hmm)
		memcpy(dst, src, n);
	else
		return in ? hmm_copy_to(odp->hmm, (uintptr_t)dst, src, n)
			  : hmm_copy_from(odp->hmm, dst, (uintptr_t)src, n);
	return 0;
}

/* Returns how many bytes the message has, or negative. */
static int64_t message(struct odp *odp, struct slot *s)
{
	uint8_t *at = message_out(odp, (unsigned)(s - odp->slot));
	struct wire_request r;
	size_t n;
	int err = request_of(odp, s, &r);

	if (err)
		return err;
	n = wire_put_request(at, &r);
	if (r.code != ODP_PUT || !r.with_bytes)
		return (int64_t)n;
	err = copy_local(odp, at + n, s->op->local, r.length, false);
	return err ? err : (int64_t)(n + r.length);
}

struct slot *slot_free(struct odp *odp)
{
	for (unsigned i = 0; i < WIRE_SLOTS; i++)
		if (!odp->slot[i].busy && !odp->slot[i].sending)
			return &odp->slot[i];
	return NULL;
}

/* The next step of it. */
static void ask(struct odp *odp, struct slot *s)
{
	int64_t n = message(odp, s);
	int err;

	s->next = false;
	if (n < 0) {
		/* A buffer that cannot be had again has gone. */
		slot_finish(s, s->tries ? -ESTALE : (int)n);
		return;
	}
	err = initiator_send(odp, (unsigned)(s - odp->slot), (size_t)n);
	s->sending = !err;
	if (err)
		initiator_give_up(odp, -ECONNRESET);
}

void slot_begin(struct odp *odp, struct slot *s, struct odp_op *op)
{
	s->op = op;
	s->busy = true;
	s->done = 0;
	s->tries = 0;
	op->result = 0;
	op->fault_addr = op->old = 0;
	op->fault_reason = HMM_REASON_NONE;
	ask(odp, s);
}

bool slots_busy(const struct odp *odp)
{
	for (unsigned i = 0; i < WIRE_SLOTS; i++)
		if (odp->slot[i].busy)
			return true;
	return false;
}

/* ---- what comes back ---- */

void slot_sent(struct odp *odp, struct slot *s)
{
	s->sending = false;
	if (s->next)
		ask(odp, s);
}

/*
 * All of it. But a provider that pins may have moved the bytes of pages that are not the buffer's any
 * more: then once more, with the pages that are. (Who uses addresses used the right ones.)
 */
static int moved(struct odp *odp, struct slot *s)
{
	if (!hide(s) || !fabric_wants_local(&odp->fabric))
		return 0;
	if (s->tries++ == TRIES)
		return -ESTALE;
	s->done = 0;
	odp->fenced = false;
	return -EAGAIN;
}

void slot_answered(struct odp *odp, const uint8_t *at, size_t length)
{
	struct wire_response r;
	struct odp_op *op;
	struct slot *s;
	int err;

	if (!wire_get_response(&r, at, length) || !odp->slot[r.slot].busy ||
	    odp->slot[r.slot].next) {
		initiator_give_up(odp, -EPROTO);
		return;
	}
	s = &odp->slot[r.slot];
	op = s->op;
	err = r.result;
	if (r.length != (!err && op->code == ODP_GET && is_short(op) ? op->length : 0)) {
		initiator_give_up(odp, -EPROTO);
		return;
	}
	if (r.length)
		err = copy_local(odp, op->local, wire_bytes(at, WIRE_RESPONSE), r.length, true);
	op->old = r.old;
	op->fault_addr = r.fault_addr;
	op->fault_reason = r.reason;
	s->done += s->step;
	if (!err && s->done == length_of(op))
		err = moved(odp, s);
	if (err != -EAGAIN && (err || s->done == length_of(op)))
		slot_finish(s, err);
	else if (s->sending)
		s->next = true;
	else
		ask(odp, s);
}
