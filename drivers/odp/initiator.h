/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * initiator - the side that asks: what its parts share.
 *
 *	initiator.c  a connection: made, driven, ended
 *	slot.c       a request under way: its buffer, its steps, its answer
 *	calls.c      the calls
 *
 * One thread at a time, under `lock`; it drives the fabric while it waits. A connection that
 * has failed stays failed: an answer that comes later could not be told from another's.
 */
#ifndef ODP_INITIATOR_H
#define ODP_INITIATOR_H

#include <pthread.h>
#include <sys/types.h>

#include <uhmm/odp.h>

#include "common.h"
#include "fabric.h"
#include "wire.h"

#define MESSAGE WIRE_MAX

struct slot {
	struct fi_context2 sent;
	bool busy, sending;
	bool next; /* its next step is asked for when the last message was sent */
	struct odp_op *op;
	unsigned tries;
	uint64_t done, step;	 /* bytes */
	uint64_t buffer, buffer_key; /* where the target finds all of it */
	struct hmm_region *region; /* of the cache; or */
	struct fid_mr *mr;	   /* for this transfer only */
};

struct odp {
	pid_t pid;
	struct hmm *hmm; /* NULL: no cache */
	struct hmm_regcache *cache;
	struct fabric fabric;
	struct fid_ep *ep;
	fi_addr_t peer; /* without connections: the target's reception, then our own endpoint there */
	int process;	/* likewise: the target's, a pidfd; -1: not known yet */
	bool connected, greeted;
	bool fenced; /* since the call that runs has begun */
	int failed; /* why the connection has ended, for good */
	unsigned timeout_ms;
	uint64_t heard; /* ns: when something came last */
	pthread_mutex_t lock;
	uint8_t *memory; /* messages to us, messages from us */
	struct fid_mr *mr;
	struct fi_context2 received[WIRE_SLOTS + 1];
	struct slot slot[WIRE_SLOTS];
	struct {
		_Atomic uint64_t requests, failed, uncached;
	} count;
};

static inline uint8_t *message_out(const struct odp *odp, unsigned slot)
{
	return odp->memory + (size_t)(WIRE_SLOTS + 1 + slot) * MESSAGE;
}

static inline void *initiator_desc(const struct odp *odp)
{
	return odp->mr ? fi_mr_desc(odp->mr) : NULL;
}

/* Is it of a range? Atomics are of 8 bytes. */
static inline bool op_has_length(const struct odp_op *op)
{
	return op->code == ODP_GET || op->code == ODP_PUT || op->code == ODP_ADVISE;
}

/* ---- initiator.c ---- */
/* The connection is lost: whoever waits, waits no more. */
void initiator_give_up(struct odp *odp, int why);
/* The message of a slot, to the peer. -EAGAIN: the provider has had no room for it for a second. */
int initiator_send(struct odp *odp, unsigned slot, size_t length);
/* Until something came, or the connection has ended. */
void initiator_wait(struct odp *odp);

/* ---- slot.c ---- */
int slots_open_cache(struct odp *odp);
/* NULL: all are busy. */
struct slot *slot_free(struct odp *odp);
bool slots_busy(const struct odp *odp);
void slot_begin(struct odp *odp, struct slot *slot, struct odp_op *op);
void slot_finish(struct slot *slot, int result);
/* The last message of it has left. */
void slot_sent(struct odp *odp, struct slot *slot);
/* An answer, of one of them; or what breaks the protocol. */
void slot_answered(struct odp *odp, const uint8_t *at, size_t length);

#endif
