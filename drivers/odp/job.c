/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * job - a request, from its message to its answer.
 *
 *	fence; then in pieces	get:	memory -> piece -> RDMA to the initiator
 *				put:	RDMA from the initiator -> piece -> memory
 *				short:	between memory and the message; atomics
 *
 * A piece whose pages are mapped is copied at once, else by a worker; while one is faulted in
 * others travel. Pieces are few for each connection, and the oldest job has them first.
 */
#include <errno.h>
#include <stdlib.h>

#include "odp_private.h"

static unsigned needs(enum odp_opcode code, uint64_t operand)
{
	switch (code) {
	case ODP_GET:
		return ODP_READ;
	case ODP_FETCH_ADD:
	case ODP_COMPARE_SWAP:
		return ODP_ATOMIC;
	case ODP_PUT:
	case ODP_ATOMIC_WRITE:
		return ODP_WRITE;
	case ODP_ADVISE:
		return operand == ODP_PREFETCH_WRITE ? ODP_WRITE : 0;
	}
	return 0;
}

static bool is_atomic(enum odp_opcode code)
{
	return code == ODP_FETCH_ADD || code == ODP_COMPARE_SWAP || code == ODP_ATOMIC_WRITE;
}

static unsigned slot_of(const struct connection *c, const struct job *job)
{
	return (unsigned)(job - c->job);
}

/* Pieces end in any order; the lowest address counts. */
static void fail(struct job *job, int err, uint64_t addr, enum hmm_reason reason)
{
	if (job->answer.result && job->answer.fault_addr <= addr)
		return;
	job->answer.result = err;
	job->answer.fault_addr = addr;
	job->answer.reason = reason;
}

static void fail_access(struct job *job, int err, const struct access *a)
{
	fail(job, err, a->fault_addr ? a->fault_addr : a->addr, a->reason);
}

/* ---- the answer ---- */

static void try_send(struct connection *c, struct job *job)
{
	unsigned slot = slot_of(c, job);
	uint8_t *at = answer_buffer(c, slot);
	size_t n = wire_put_response(at, &job->answer) + job->answer.length;
	ssize_t err = fi_send(c->ep, at, n, connection_desc(c), c->peer, &job->tag);

	if (!err)
		job->sent = true;
	else if (err == -FI_EAGAIN)
		c->again = true;
	else
		connection_end(c, "the answer cannot be sent", false);
}

/* The message's buffer goes back first: the initiator may send when it has the answer. */
static void answer(struct connection *c, struct job *job)
{
	if (job->answer.result) {
		job->answer.length = 0;
		atomic_fetch_add(&c->target->count.failed, 1);
	}
	receive_again(c, job->received);
	job->state = JOB_ANSWERS;
	try_send(c, job);
}

/* ---- accesses ---- */

static struct work *prepare(struct connection *c, struct job *job, struct piece *piece)
{
	struct work *work = piece ? &piece->work : &job->work;

	*work = (struct work){ .connection = c,
			       .slot = slot_of(c, job),
			       .piece = piece ? (int)(piece - c->piece) : OF_JOB,
			       .key = job->request.key,
			       .need = needs(job->request.code, job->request.operand) };
	return work;
}

/* At once, if all of it is mapped. -EAGAIN: by a worker, who has it now. */
static int do_access(struct connection *c, struct work *work)
{
	struct odp_target *target = c->target;
	struct odp_region *region = region_find(target, &work->key);
	int err = region ? region_allows(region, work->access.addr, work->access.length,
					 work->need) : -EACCES;

	if (!err)
		err = access_try(region, &work->access);
	if (region)
		region_put(region);
	atomic_fetch_add(err == -EAGAIN ? &target->count.worked : &target->count.inline_pieces, 1);
	if (err == -EAGAIN) {
		work->kind = WORK_ACCESS;
		work_give(target, work);
	}
	return err;
}

/* ---- pieces ---- */

static struct piece *free_piece(struct connection *c)
{
	for (unsigned i = 0; i < c->target->depth; i++)
		if (c->piece[i].state == PIECE_FREE)
			return &c->piece[i];
	return NULL;
}

static void piece_done(struct job *job, struct piece *piece)
{
	piece->state = PIECE_FREE;
	job->pieces--;
}

/* RDMA: to the initiator for a get, from it for a put. */
static void travel(struct connection *c, struct job *job, struct piece *piece)
{
	const struct wire_request *r = &job->request;
	uint64_t there = r->buffer + piece->offset;
	ssize_t err;

	if (r->code == ODP_GET)
		err = fi_write(c->ep, piece->buffer, piece->length, connection_desc(c), c->peer,
			       there, r->buffer_key, &piece->tag);
	else
		err = fi_read(c->ep, piece->buffer, piece->length, connection_desc(c), c->peer,
			      there, r->buffer_key, &piece->tag);
	piece->state = err ? PIECE_WAITS : PIECE_TRAVELS;
	if (err == -FI_EAGAIN)
		c->again = true;
	else if (err)
		connection_end(c, "RDMA was refused", false);
}

static void piece_loaded(struct connection *c, struct job *job, struct piece *piece, int err)
{
	if (err) {
		fail_access(job, err, &piece->work.access);
		piece_done(job, piece);
	} else {
		atomic_fetch_add(&c->target->count.bytes_out, piece->length);
		travel(c, job, piece);
	}
}

static void piece_stored(struct connection *c, struct job *job, struct piece *piece, int err)
{
	if (err)
		fail_access(job, err, &piece->work.access);
	else
		atomic_fetch_add(&c->target->count.bytes_in, piece->length);
	piece_done(job, piece);
}

/* Between memory and the piece's buffer. */
static int piece_access(struct connection *c, struct job *job, struct piece *piece)
{
	struct work *work = prepare(c, job, piece);

	work->access = (struct access){ .kind = job->request.code == ODP_GET ? ACCESS_LOAD
									      : ACCESS_STORE,
					.addr = job->request.remote + piece->offset,
					.length = piece->length,
					.buffer = piece->buffer };
	piece->state = PIECE_WORKED;
	return do_access(c, work);
}

static void begin_piece(struct connection *c, struct job *job, struct piece *piece)
{
	uint64_t left = job->request.length - job->next;
	int err;

	piece->slot = slot_of(c, job);
	piece->offset = job->next;
	piece->length = left < c->target->piece ? left : c->target->piece;
	job->next += piece->length;
	job->pieces++;
	if (job->request.code == ODP_PUT) {
		travel(c, job, piece);
		return;
	}
	err = piece_access(c, job, piece);
	if (err != -EAGAIN)
		piece_loaded(c, job, piece, err);
}

void job_travelled(struct connection *c, struct piece *piece)
{
	struct job *job = &c->job[piece->slot];
	int err;

	if (job->request.code == ODP_GET) {
		piece_done(job, piece);
		return;
	}
	/* What is behind a failure need not be looked at; what is before it may fail lower. */
	if (job->answer.result &&
	    job->request.remote + piece->offset >= job->answer.fault_addr) {
		piece_done(job, piece);
		return;
	}
	err = piece_access(c, job, piece);
	if (err != -EAGAIN)
		piece_stored(c, job, piece, err);
}

static void run_pieces(struct connection *c, struct job *job)
{
	struct piece *piece;

	while (!c->closing && !c->again && !job->answer.result &&
	       job->next < job->request.length && (piece = free_piece(c)))
		begin_piece(c, job, piece);
	if (!c->closing && !job->pieces &&
	    (job->answer.result || job->next == job->request.length))
		answer(c, job);
}

/* ---- what has no pieces ---- */

static void short_done(struct connection *c, struct job *job, int err)
{
	const struct work *work = &job->work;

	if (err) {
		fail_access(job, err, &work->access);
	} else if (job->request.code == ODP_GET) {
		job->answer.length = job->request.length;
		atomic_fetch_add(&c->target->count.bytes_out, job->request.length);
	} else if (job->request.code == ODP_PUT) {
		atomic_fetch_add(&c->target->count.bytes_in, job->request.length);
	}
	job->answer.old = work->access.old;
	answer(c, job);
}

static enum access_kind access_of(enum odp_opcode code)
{
	switch (code) {
	case ODP_GET:
		return ACCESS_LOAD;
	case ODP_FETCH_ADD:
		return ACCESS_ADD;
	case ODP_COMPARE_SWAP:
		return ACCESS_SWAP;
	case ODP_ATOMIC_WRITE:
		return ACCESS_SET;
	default:
		return ACCESS_STORE;
	}
}

static void run_short(struct connection *c, struct job *job)
{
	const struct wire_request *r = &job->request;
	struct work *work = prepare(c, job, NULL);
	uint8_t *bytes = r->code == ODP_PUT
				 ? received_buffer(c, job->received) + WIRE_REQUEST
				 : answer_buffer(c, slot_of(c, job)) + WIRE_RESPONSE;
	int err;

	work->access = (struct access){ .kind = access_of(r->code),
					.addr = r->remote,
					.length = r->length,
					.buffer = bytes,
					.operand = r->operand,
					.compare = r->compare };
	err = do_access(c, work);
	if (err == -EAGAIN)
		job->working = true;
	else
		short_done(c, job, err);
}

/* Advice that nobody waits for is answered before it is taken; its outcome is nobody's. */
static int give_advice(struct connection *c, const struct job *job)
{
	const struct wire_request *r = &job->request;
	struct work *work = c->advice < ADVICE_WAITS ? malloc(sizeof(*work)) : NULL;

	if (!work)
		return c->advice < ADVICE_WAITS ? -ENOMEM : -EBUSY;
	*work = (struct work){ .kind = WORK_ADVISE,
			       .connection = c,
			       .piece = OF_NOBODY,
			       .key = r->key,
			       .advice = (enum odp_advice)r->operand,
			       .access = { .addr = r->remote, .length = r->length } };
	c->advice++;
	work_give(c->target, work);
	return 0;
}

static void run_advice(struct connection *c, struct job *job)
{
	const struct wire_request *r = &job->request;
	struct work *work;
	int err;

	if (!r->compare) {
		err = give_advice(c, job);
		if (err)
			fail(job, err, 0, HMM_REASON_NONE);
		answer(c, job);
		return;
	}
	work = prepare(c, job, NULL);
	work->kind = WORK_ADVISE;
	work->advice = (enum odp_advice)r->operand;
	work->access = (struct access){ .addr = r->remote, .length = r->length };
	job->working = true;
	work_give(c->target, work);
}

/* ---- from its message on ---- */

static void run(struct connection *c, struct job *job)
{
	const struct wire_request *r = &job->request;

	if (r->code == ODP_ADVISE)
		run_advice(c, job);
	else if (is_atomic(r->code) || r->with_bytes)
		run_short(c, job);
	else
		run_pieces(c, job);
}

/* O1: what happened before is delivered, or a worker waits until it is. */
static void fence(struct connection *c, struct job *job)
{
	const struct wire_request *r = &job->request;
	int err = hmm_try_fence(c->target->hmm, r->remote, r->length);
	struct work *work;

	if (err != -EAGAIN) {
		job->fenced = !err;
		if (err) {
			fail(job, err, 0, HMM_REASON_NONE);
			answer(c, job);
		}
		return;
	}
	work = prepare(c, job, NULL);
	work->kind = WORK_FENCE;
	work->access = (struct access){ .addr = r->remote, .length = r->length };
	job->working = true;
	work_give(c->target, work);
}

/* May it be asked for at all? O3: nothing of the memory is looked at before. */
static int check(struct connection *c, const struct wire_request *r)
{
	struct odp_region *region = region_find(c->target, &r->key);
	int err = region ? region_allows(region, r->remote, r->length,
					 needs(r->code, r->operand)) : -EACCES;

	/* ibv_advise_mr() has an error of its own for that. */
	if (region && err && r->code == ODP_ADVISE && r->operand == ODP_PREFETCH_WRITE &&
	    !(region->access & ODP_WRITE))
		err = -EPERM;
	if (region)
		region_put(region);
	if (!err && is_atomic(r->code) && (r->remote & 7))
		err = -EINVAL;
	return err;
}

static void begin(struct connection *c, struct job *job, const struct wire_request *request,
		  unsigned received)
{
	int err = check(c, request);

	job->request = *request;
	job->number = ++c->numbers;
	job->received = received;
	job->fenced = job->working = job->sent = false;
	job->next = 0;
	job->pieces = 0;
	job->answer = (struct wire_response){ .slot = request->slot };
	job->state = JOB_RUNS;
	atomic_fetch_add(&c->target->count.requests, 1);
	if (err) {
		fail(job, err, request->remote, HMM_REASON_NONE);
		answer(c, job);
		return;
	}
	fence(c, job);
	if (job->fenced)
		run(c, job);
}

bool job_begin(struct connection *c, unsigned received, const void *message, size_t length)
{
	struct wire_request request;
	struct job *job;

	if (!wire_get_request(&request, message, length))
		return false;
	job = &c->job[request.slot];
	if (job->state == JOB_IDLE) {
		begin(c, job, &request, received);
		return true;
	}
	if (job->state == JOB_RUNS || !job->sent || job->early)
		return false; /* it has an answer to come */
	job->early = true;
	job->early_request = request;
	job->early_received = received;
	return true;
}

/* The initiator may have had the answer, and used the slot again, before we hear that it was sent. */
void job_answered(struct connection *c, struct job *job)
{
	job->state = JOB_IDLE;
	if (!job->early)
		return;
	job->early = false;
	begin(c, job, &job->early_request, job->early_received);
}

void job_worked(struct connection *c, struct work *work)
{
	struct job *job = &c->job[work->slot];

	c->works--;
	if (work->piece == OF_NOBODY) {
		c->advice--;
		free(work);
		return;
	}
	if (c->closing)
		return;
	if (work->piece >= 0) {
		if (job->request.code == ODP_GET)
			piece_loaded(c, job, &c->piece[work->piece], work->result);
		else
			piece_stored(c, job, &c->piece[work->piece], work->result);
		return;
	}
	job->working = false;
	if (work->kind == WORK_FENCE && !work->result) {
		job->fenced = true;
		run(c, job);
	} else {
		short_done(c, job, work->result);
	}
}

/* The oldest that may go on; its pieces first. */
static struct job *oldest(struct connection *c, uint64_t after)
{
	struct job *found = NULL;

	for (unsigned i = 0; i < WIRE_SLOTS; i++) {
		struct job *job = &c->job[i];

		if (job->state != JOB_IDLE && job->number > after &&
		    (!found || job->number < found->number))
			found = job;
	}
	return found;
}

static bool has_pieces(const struct job *job)
{
	return job->state == JOB_RUNS && job->fenced && !job->request.with_bytes &&
	       (job->request.code == ODP_GET || job->request.code == ODP_PUT);
}

bool jobs_pump(struct connection *c)
{
	struct job *job;
	bool some = false;

	for (unsigned i = 0; i < c->target->depth && !c->closing; i++)
		if (c->piece[i].state == PIECE_WAITS)
			travel(c, &c->job[c->piece[i].slot], &c->piece[i]);
	for (uint64_t after = 0; !c->closing && (job = oldest(c, after)); after = job->number) {
		some = true;
		if (has_pieces(job))
			run_pieces(c, job);
		else if (job->state == JOB_ANSWERS && !job->sent)
			try_send(c, job);
	}
	return some;
}
