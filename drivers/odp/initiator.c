/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * initiator - the side that asks.
 *
 * A slot for each request under way. Short gets and puts travel in the messages, for longer
 * ones the target gets the buffer's registration, from a cache that is never stale.
 *
 * A long transfer is asked for in steps, one after the other in its slot: each answer is a sign
 * of life, which RDMA by the target is not. So the limit of time is for who hears nothing.
 *
 * One thread at a time, under `lock`; it drives the fabric while it waits. A connection that
 * has failed stays failed: an answer that comes later could not be told from another's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fabric.h"
#include "wire.h"

#include <pthread.h>

#define TIMEOUT_MS 10000u
#define STEP ((uint64_t)16 << 20)	   /* bytes of a get or a put */
#define STEP_ADVICE ((uint64_t)1 << 30) /* that are faulted in */
#define MESSAGE WIRE_MAX
#define SPIN_NS 20000u /* a short answer is nearer than a sleep and a wake-up */
#define TRIES 16u /* of a transfer whose buffer was replaced in it */
#define NEAR_NS 2000000u /* where no sleep can be ended by the provider: until then none */

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

#define MEMORY ((size_t)(2 * WIRE_SLOTS + 1) * MESSAGE)

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint8_t *message_in(const struct odp *odp, unsigned i)
{
	return odp->memory + (size_t)i * MESSAGE;
}

static uint8_t *message_out(const struct odp *odp, unsigned slot)
{
	return odp->memory + (size_t)(WIRE_SLOTS + 1 + slot) * MESSAGE;
}

static void *desc(const struct odp *odp)
{
	return odp->mr ? fi_mr_desc(odp->mr) : NULL;
}

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

static int cache_open(struct odp *odp)
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

static void finish(struct slot *s, int result)
{
	hide(s);
	s->op->result = result;
	s->op = NULL;
	s->busy = s->next = false;
}

static bool target_lives(const struct odp *odp)
{
	return odp->process < 0 || fabric_lives(odp->process);
}

static void part(struct odp *odp)
{
	uint8_t bye[WIRE_BYE];

	if (fabric_has_connections(&odp->fabric))
		fi_shutdown(odp->ep, 0);
	else if (odp->greeted && target_lives(odp))
		fi_inject(odp->ep, bye, wire_put_bye(bye), odp->peer);
}

/* The connection is lost: whoever waits, waits no more. Its endpoint goes first, so that no
 * buffer is written to afterwards. */
static void give_up(struct odp *odp, int why)
{
	if (odp->failed)
		return;
	odp->failed = why;
	if (odp->ep) {
		part(odp);
		fi_close(&odp->ep->fid);
		odp->ep = NULL;
	}
	for (unsigned i = 0; i < WIRE_SLOTS; i++)
		if (odp->slot[i].busy)
			finish(&odp->slot[i], why);
	/* No more will be asked for: nothing of the program's need be pinned. */
	if (odp->cache)
		hmm_regcache_flush(odp->cache);
}

static void post_receive(struct odp *odp, unsigned i)
{
	ssize_t err = fi_recv(odp->ep, message_in(odp, i), MESSAGE, desc(odp),
			      FI_ADDR_UNSPEC, &odp->received[i]);

	if (err)
		give_up(odp, err == -FI_EAGAIN ? -ENOBUFS : -ECONNRESET);
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
	bool has = op->code == ODP_GET || op->code == ODP_PUT || op->code == ODP_ADVISE;

	return has ? op->length : 8;
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

static struct slot *free_slot(struct odp *odp)
{
	for (unsigned i = 0; i < WIRE_SLOTS; i++)
		if (!odp->slot[i].busy && !odp->slot[i].sending)
			return &odp->slot[i];
	return NULL;
}

/* The next step of it. */
static void ask(struct odp *odp, struct slot *s)
{
	ssize_t err = -FI_EAGAIN;
	int64_t n = message(odp, s);

	s->next = false;
	if (n < 0) {
		/* A buffer that cannot be had again has gone. */
		finish(s, s->tries ? -ESTALE : (int)n);
		return;
	}
	/* There are slots enough in every provider's queue; it may be at its beginning. */
	for (uint64_t began = now_ns(); err == -FI_EAGAIN && now_ns() - began < 1000000000u;) {
		err = fi_send(odp->ep, message_out(odp, (unsigned)(s - odp->slot)), (size_t)n,
			      desc(odp), odp->peer, &s->sent);
		if (err == -FI_EAGAIN)
			fi_cq_read(odp->fabric.cq, NULL, 0);
	}
	s->sending = !err;
	if (err)
		give_up(odp, -ECONNRESET);
}

static void begin(struct odp *odp, struct slot *s, struct odp_op *op)
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

/* ---- what comes back ---- */

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

static void answered(struct odp *odp, const uint8_t *at, size_t length)
{
	struct wire_response r;
	struct odp_op *op;
	struct slot *s;
	int err;

	if (!wire_get_response(&r, at, length) || !odp->slot[r.slot].busy ||
	    odp->slot[r.slot].next) {
		give_up(odp, -EPROTO);
		return;
	}
	s = &odp->slot[r.slot];
	op = s->op;
	err = r.result;
	if (r.length != (!err && op->code == ODP_GET && is_short(op) ? op->length : 0)) {
		give_up(odp, -EPROTO);
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
		finish(s, err);
	else if (s->sending)
		s->next = true;
	else
		ask(odp, s);
}

/* From here on requests go to the endpoint that is ours there. */
static void greeted(struct odp *odp, const uint8_t *at, size_t length)
{
	struct wire_name name;

	odp->greeted = true;
	if (fabric_has_connections(&odp->fabric))
		return;
	if (!wire_get_name(&name, wire_bytes(at, WIRE_HELLO), length - WIRE_HELLO)) {
		give_up(odp, -EPROTO);
		return;
	}
	fabric_forget(&odp->fabric, odp->peer);
	odp->process = fabric_process(name.pid);
	if (fabric_peer(&odp->fabric, name.name, &odp->peer))
		give_up(odp, -EPROTO);
}

static void received(struct odp *odp, unsigned i, size_t length)
{
	const uint8_t *at = message_in(odp, i);

	if (wire_is_bye(at, length))
		give_up(odp, -ECONNRESET);
	else if (odp->greeted)
		answered(odp, at, length);
	else if (wire_get_hello(at, length))
		greeted(odp, at, length);
	else
		give_up(odp, -EPROTO);
	if (!odp->failed)
		post_receive(odp, i);
}

static void completed(struct odp *odp, const struct fi_cq_msg_entry *entry)
{
	struct fi_context2 *context = entry->op_context;

	odp->heard = now_ns();
	if (context >= odp->received && context < odp->received + WIRE_SLOTS + 1) {
		received(odp, (unsigned)(context - odp->received), entry->len);
		return;
	}
	for (unsigned i = 0; i < WIRE_SLOTS; i++) {
		struct slot *s = &odp->slot[i];

		if (context != &s->sent)
			continue;
		s->sending = false;
		if (s->next)
			ask(odp, s);
	}
}

/* The provider's error while connecting: no way there, or nobody there. */
static int refused(int err)
{
	switch (err) {
	case EHOSTUNREACH:
	case ENETUNREACH:
	case ETIMEDOUT:
		return -err;
	default:
		return -ECONNREFUSED;
	}
}

static void connection_event(struct odp *odp)
{
	struct fi_eq_cm_entry entry;
	uint32_t event;
	ssize_t n;

	if (!odp->fabric.eq) {
		if (!target_lives(odp))
			give_up(odp, -ECONNRESET);
		return;
	}
	n = fi_eq_read(odp->fabric.eq, &event, &entry, sizeof(entry), 0);
	if (n == -FI_EAVAIL) {
		struct fi_eq_err_entry error = { 0 };

		fi_eq_readerr(odp->fabric.eq, &error, 0);
		give_up(odp, odp->connected ? -ECONNRESET : refused(error.err));
	} else if (n >= (ssize_t)sizeof(entry) && event == FI_CONNECTED) {
		odp->connected = true;
		fabric_tend(&odp->ep->fid);
	} else if (n >= (ssize_t)sizeof(entry) && event == FI_SHUTDOWN) {
		give_up(odp, odp->connected ? -ECONNRESET : -ECONNREFUSED);
	}
}

/* Whatever has come; false: nothing had. */
static bool progress(struct odp *odp)
{
	struct fi_cq_msg_entry entry[8];
	ssize_t n = fi_cq_read(odp->fabric.cq, entry, 8);

	if (n == -FI_EAVAIL) {
		struct fi_cq_err_entry error = { 0 };

		fi_cq_readerr(odp->fabric.cq, &error, 0);
		give_up(odp, -ECONNRESET);
		return true;
	}
	if (n > 0)
		fabric_came(&odp->fabric);
	for (ssize_t i = 0; i < n && !odp->failed; i++)
		completed(odp, &entry[i]);
	return n > 0;
}

/* Until something came, or the connection has ended. */
static void wait_for_more(struct odp *odp)
{
	uint64_t began = now_ns(), now = began;

	while (!odp->failed && !progress(odp)) {
		now = now_ns();
		if (now - odp->heard > odp->timeout_ms * UINT64_C(1000000)) {
			give_up(odp, -ETIMEDOUT);
			return;
		}
		if (now - began < SPIN_NS)
			continue;
		connection_event(odp);
		if (now - began < NEAR_NS)
			fabric_came(&odp->fabric); /* RDMA needs this side too */
		if (!odp->failed && fabric_wait(&odp->fabric, -1, 100) < 0)
			give_up(odp, -ECONNRESET);
	}
}

/* ---- calls ---- */

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

static bool any_busy(const struct odp *odp)
{
	for (unsigned i = 0; i < WIRE_SLOTS; i++)
		if (odp->slot[i].busy)
			return true;
	return false;
}

/* What can be said without asking: nothing to be done, or an impossible range. */
static bool settled_here(struct odp *odp, struct odp_op *op)
{
	bool has_length = op->code == ODP_GET || op->code == ODP_PUT || op->code == ODP_ADVISE;

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
	while (next < n || any_busy(odp)) {
		struct slot *s = NULL;

		while (next < n && (settled_here(odp, &ops[next]) || (s = free_slot(odp)))) {
			if (s)
				begin(odp, s, &ops[next]);
			s = NULL;
			next++;
		}
		if (next < n || any_busy(odp))
			wait_for_more(odp);
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
	size_t size = stats->size < sizeof(all) ? stats->size : sizeof(all);

	if (odp->cache)
		hmm_regcache_get_stats(odp->cache, &all.cache);
	all.size = size;
	memcpy(stats, &all, size);
}

/* ---- connecting ---- */

/* Without connections: to the target's reception, with our name. */
static int introduce(struct odp *odp, const struct odp_place *place)
{
	uint8_t *at = message_out(odp, 0);
	struct wire_name name = { .pid = (uint64_t)getpid() };
	size_t n = wire_put_connect(at);
	ssize_t err = fabric_name(odp->ep, name.name);

	if (!err)
		err = fabric_peer(&odp->fabric, place->node, &odp->peer);
	n += wire_put_name(at + n, &name);
	odp->connected = true;
	for (uint64_t began = now_ns(); !err && now_ns() - began < 1000000000u;) {
		err = fi_send(odp->ep, at, n, desc(odp), odp->peer, &odp->slot[0].sent);
		if (err != -FI_EAGAIN)
			break;
		fi_cq_read(odp->fabric.cq, NULL, 0); /* the provider is still meeting the other */
		err = 0;
	}
	return err ? fabric_errno(err) == -EAGAIN ? -ECONNREFUSED : fabric_errno(err) : 0;
}

static int connect_endpoint(struct odp *odp, const struct odp_place *place)
{
	uint8_t hello[WIRE_CONNECT];
	int err = fabric_endpoint(&odp->fabric, NULL, odp, &odp->ep);

	for (unsigned i = 0; i < WIRE_SLOTS + 1 && !err && !odp->failed; i++)
		post_receive(odp, i);
	if (err || odp->failed)
		return err ? err : odp->failed;
	if (!fabric_has_connections(&odp->fabric))
		return introduce(odp, place);
	return fabric_errno(fi_connect(odp->ep, odp->fabric.info->dest_addr, hello,
				       wire_put_connect(hello)));
}

/* Up, and greeted by one of ours. */
static int wait_greeting(struct odp *odp)
{
	odp->heard = now_ns();
	while (!odp->failed && !odp->greeted) {
		if (odp->connected) {
			wait_for_more(odp);
			continue;
		}
		connection_event(odp);
		progress(odp);
		if (!odp->failed && !odp->connected && fabric_wait(&odp->fabric, -1, 100) < 0)
			give_up(odp, -ECONNRESET);
		if (now_ns() - odp->heard > odp->timeout_ms * UINT64_C(1000000))
			give_up(odp, -ETIMEDOUT);
	}
	return odp->failed;
}

static int take_options(struct odp *odp, const struct odp_options *given, bool *no_cache)
{
	struct odp_options o = { 0 };

	if (given && given->size < sizeof(o.size))
		return -EINVAL;
	if (given)
		memcpy(&o, given, given->size < sizeof(o) ? given->size : sizeof(o));
	for (size_t i = sizeof(o); given && i < given->size; i++)
		if (((const char *)given)[i])
			return -E2BIG;
	odp->timeout_ms = o.timeout_ms ? o.timeout_ms : TIMEOUT_MS;
	*no_cache = o.no_cache;
	return 0;
}

/* 4096-aligned, and the library's own: a device may use it while the program's memory moves. */
static int memory_make(struct odp *odp)
{
	odp->memory = hmm_alloc(MEMORY);
	if (!odp->memory)
		return -ENOMEM;
	return fabric_wants_local(&odp->fabric)
		       ? fabric_register(&odp->fabric, odp->memory, MEMORY, FI_SEND | FI_RECV,
					 &odp->mr)
		       : 0;
}

void odp_close(struct odp *odp)
{
	if (!odp || odp->pid != getpid())
		return;
	give_up(odp, -ECONNRESET);
	hmm_regcache_destroy(odp->cache);
	if (odp->mr)
		fi_close(&odp->mr->fid);
	fabric_close(&odp->fabric);
	if (odp->process >= 0)
		close(odp->process);
	hmm_free(odp->memory, MEMORY);
	hmm_put(odp->hmm);
	pthread_mutex_destroy(&odp->lock);
	free(odp);
}

int odp_connect(const char *address, const struct odp_options *options, struct odp **out)
{
	struct odp_place place;
	struct odp *odp;
	bool no_cache;
	int err = out ? place_parse(&place, address) : -EINVAL;

	if (err)
		return err;
	odp = calloc(1, sizeof(*odp));
	if (!odp)
		return -ENOMEM;
	odp->pid = getpid();
	odp->process = -1;
	pthread_mutex_init(&odp->lock, NULL);
	err = take_options(odp, options, &no_cache);
	if (!err)
		err = fabric_open(&odp->fabric, &place, false, 128);
	if (!err)
		err = memory_make(odp);
	if (!err && !no_cache)
		err = cache_open(odp);
	if (!err)
		err = connect_endpoint(odp, &place);
	if (!err)
		err = wait_greeting(odp);
	if (err) {
		odp_close(odp);
		return err;
	}
	*out = odp;
	return 0;
}
