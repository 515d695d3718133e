/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_fake - endpoints that keep what is posted, and the books about who was answered.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "odp_fake_private.h"

#define CLIENTS 3u
#define POSTED 64u
#define FLUSHED 1024u

enum posted_kind { POSTED_RECEIVE, POSTED_SEND, POSTED_RDMA };

struct posted {
	enum posted_kind kind;
	void *context, *buffer;
	size_t length;
};

struct asked {
	bool waits, allowed;
	struct wire_request request;
	uint64_t moved, offsets; /* bytes by RDMA, and the sum of where they began */
};

struct client {
	struct fid_ep ep; /* first */
	struct connection *connection;
	bool open, full, broken, greets, greeted;
	bool breaks;  /* the protocol is broken, or the endpoint is: it has to end */
	unsigned n;
	struct posted posted[POSTED];
	struct asked asked[WIRE_SLOTS];
};

struct odp_target fake_target;

/* An endpoint outlives its client's place; those that are closed are flushed. */
static struct client *client[CLIENTS];
static struct {
	void *context[FLUSHED];
	unsigned n;
} flushed;
static struct {
	uint64_t requests, answers, good, rdma, ended;
} count;

_Noreturn void fake_fail(const char *what, int line);

_Noreturn void fake_fail(const char *what, int line)
{
	fprintf(stderr, "fuzz_wire: line %d: %s\n", line, what);
	abort();
}

void fake_print(void)
{
	printf("%llu requests, %llu answers (%llu good), %llu RDMAs, %llu connections ended\n",
	       (unsigned long long)count.requests, (unsigned long long)count.answers,
	       (unsigned long long)count.good, (unsigned long long)count.rdma,
	       (unsigned long long)count.ended);
}

/* ---- the endpoint ---- */

static ssize_t post(struct client *c, enum posted_kind kind, const void *buffer, size_t length,
		    void *context)
{
	must(c->open);
	if (c->broken) {
		c->breaks = true;
		return -FI_EIO;
	}
	if (c->full || c->n == POSTED)
		return -FI_EAGAIN;
	c->posted[c->n++] = (struct posted){ kind, context, (void *)(uintptr_t)buffer, length };
	return 0;
}

static ssize_t do_recv(struct fid_ep *ep, void *buf, size_t len, void *desc, fi_addr_t from,
		       void *context)
{
	must(len == WIRE_MAX);
	return post((struct client *)ep, POSTED_RECEIVE, buf, len, context);
}

static void judge_answer(struct client *c, const struct wire_response *r)
{
	struct asked *asked = &c->asked[r->slot];
	bool shorts = asked->request.code == ODP_GET && asked->request.with_bytes;

	uint64_t pieces = asked->moved / PAGE + !!(asked->moved % PAGE);

	must(asked->waits);
	must(r->result || asked->allowed);
	/* Each piece once, and all of them. */
	must(r->result || asked->request.code > ODP_PUT || asked->request.with_bytes ||
	     (asked->moved == asked->request.length &&
	      asked->offsets == pieces * (pieces - 1) / 2 * PAGE));
	must(r->length == (!r->result && shorts ? asked->request.length : 0));
	asked->waits = false;
	count.answers++;
	count.good += !r->result;
}

static ssize_t do_send(struct fid_ep *ep, const void *buf, size_t len, void *desc, fi_addr_t to,
		       void *context)
{
	struct client *c = (struct client *)ep;
	ssize_t err = post(c, POSTED_SEND, buf, len, context);
	struct wire_response r;

	if (err)
		return err;
	if (!c->greeted) {
		must(wire_get_hello(buf, len));
		c->greeted = true;
		return 0;
	}
	must(wire_get_response(&r, buf, len));
	judge_answer(c, &r);
	return 0;
}

/* Only into what a request that waits has named. */
static ssize_t rdma(struct client *c, const void *buffer, uint64_t addr, uint64_t key,
		    size_t length, enum odp_opcode code, void *context)
{
	const struct tag *tag = context;
	struct asked *a = &c->asked[c->connection->piece[tag->index].slot];
	ssize_t err;

	must(a->waits && a->allowed && a->request.code == code && !a->request.with_bytes &&
	     a->request.buffer_key == key && addr >= a->request.buffer &&
	     addr + length <= a->request.buffer + a->request.length);
	err = post(c, POSTED_RDMA, buffer, length, context);
	if (err)
		return err;
	count.rdma++;
	a->moved += length;
	a->offsets += addr - a->request.buffer;
	return 0;
}

static ssize_t do_write(struct fid_ep *ep, const void *buf, size_t len, void *desc,
			fi_addr_t to, uint64_t addr, uint64_t key, void *context)
{
	return rdma((struct client *)ep, buf, addr, key, len, ODP_GET, context);
}

static ssize_t do_read(struct fid_ep *ep, void *buf, size_t len, void *desc, fi_addr_t from,
		       uint64_t addr, uint64_t key, void *context)
{
	return rdma((struct client *)ep, buf, addr, key, len, ODP_PUT, context);
}

static int do_accept(struct fid_ep *ep, const void *param, size_t length)
{
	return ((struct client *)ep)->broken ? -FI_EIO : 0;
}

static int do_reject(struct fid_pep *pep, fid_t handle, const void *param, size_t length)
{
	return 0;
}

static int do_shutdown(struct fid_ep *ep, uint64_t flags)
{
	return 0;
}

static int do_close(struct fid *fid)
{
	struct client *c = (struct client *)fid;

	must(c->open);
	for (unsigned i = 0; i < c->n; i++) {
		must(flushed.n < FLUSHED);
		flushed.context[flushed.n++] = c->posted[i].context;
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		if (client[i] == c)
			client[i] = NULL;
	count.ended++;
	free(c);
	return 0;
}

static struct fi_ops fid_ops = { .size = sizeof(fid_ops), .close = do_close };
static struct fi_ops_msg msg_ops = { .size = sizeof(msg_ops), .recv = do_recv, .send = do_send };
static struct fi_ops_rma rma_ops = { .size = sizeof(rma_ops), .read = do_read,
				     .write = do_write };
static struct fi_ops_cm cm_ops = { .size = sizeof(cm_ops), .accept = do_accept,
				   .reject = do_reject, .shutdown = do_shutdown };

/* ---- what connection.c has of fabric.c, and of libfabric ---- */

int fabric_errno(int64_t fi_error)
{
	return (int)fi_error;
}

bool fabric_wants_local(const struct fabric *f)
{
	return false;
}

int fabric_register(struct fabric *f, void *at, size_t length, uint64_t access,
		    struct fid_mr **mr)
{
	return -EIO;
}

int fabric_endpoint(struct fabric *f, struct fi_info *info, void *context, struct fid_ep **ep)
{
	struct client *c = (struct client *)info->handle;

	c->connection = context;
	*ep = &c->ep;
	return 0;
}

void fabric_tend(struct fid *endpoint)
{
}

/* The rest is of providers without connections, and this one has them. */
int fabric_name(struct fid_ep *ep, char *name)
{
	abort();
}

int fabric_peer(struct fabric *f, const char *name, fi_addr_t *peer)
{
	abort();
}

void fabric_forget(struct fabric *f, fi_addr_t peer)
{
	abort();
}

int fabric_process(uint64_t pid)
{
	abort();
}

bool fabric_lives(int process)
{
	abort();
}

void fi_freeinfo(struct fi_info *info)
{
	free(info);
}

/* ---- clients ---- */

void fake_connect(unsigned i, bool greets)
{
	struct fi_eq_cm_entry *entry = calloc(1, sizeof(*entry) + WIRE_CONNECT);
	struct client *c = calloc(1, sizeof(*c));
	uint64_t accepted = fake_target.count.accepted;

	if (client[i] || !c || !entry) {
		free(entry);
		free(c);
		return;
	}
	c->ep = (struct fid_ep){ .fid.ops = &fid_ops, .msg = &msg_ops, .rma = &rma_ops,
				 .cm = &cm_ops };
	c->open = true;
	c->greets = greets;
	client[i] = c;
	if (greets)
		wire_put_connect(entry->data);
	entry->info = calloc(1, sizeof(*entry->info));
	entry->info->handle = &c->ep.fid;
	connection_accept(&fake_target, entry, greets ? WIRE_CONNECT : 3);
	free(entry);
	if (!c->connection) {
		client[i] = NULL;
		free(c);
		return;
	}
	must(greets);
	if (fake_target.count.accepted != accepted)
		connection_up(c->connection);
}

static unsigned needs(const struct wire_request *r)
{
	switch (r->code) {
	case ODP_GET:
		return ODP_READ;
	case ODP_PUT:
	case ODP_ATOMIC_WRITE:
		return ODP_WRITE;
	case ODP_FETCH_ADD:
	case ODP_COMPARE_SWAP:
		return ODP_ATOMIC;
	case ODP_ADVISE:
		return r->operand == ODP_PREFETCH_WRITE ? ODP_WRITE : 0;
	}
	return ~0u;
}

static void take_out(struct client *c, unsigned at)
{
	c->n--;
	memmove(&c->posted[at], &c->posted[at + 1], (c->n - at) * sizeof(c->posted[0]));
}

/* In the books, before the target has it: it may answer at once. */
static void book(struct client *c, const struct wire_request *seen)
{
	struct asked *asked = seen ? &c->asked[seen->slot] : NULL;
	bool aligned = seen && (seen->code < ODP_FETCH_ADD || seen->code > ODP_ATOMIC_WRITE ||
				!(seen->remote & 7));

	if (!seen || asked->waits) {
		c->breaks = true;
		return;
	}
	count.requests++;
	*asked = (struct asked){ .waits = true,
				 .request = *seen,
				 .allowed = aligned && fake_allowed(&seen->key, seen->remote,
								    seen->length, needs(seen)) };
}

unsigned fake_slot(unsigned i, unsigned from)
{
	for (unsigned n = 0; client[i] && n < WIRE_SLOTS; n++)
		if (!client[i]->asked[(from + n) % WIRE_SLOTS].waits)
			return (from + n) % WIRE_SLOTS;
	return from;
}

void fake_receive(unsigned i, const void *bytes, size_t size, const struct wire_request *seen)
{
	struct client *c = client[i];
	unsigned at = 0;
	struct posted p;

	/* A client speaks when it was greeted. */
	if (!c || c->connection->closing || !c->greeted)
		return;
	while (at < c->n && c->posted[at].kind != POSTED_RECEIVE)
		at++;
	if (at == c->n) /* as many are posted as it may send, unless there was no room */
		return;
	p = c->posted[at];
	take_out(c, at);
	memcpy(p.buffer, bytes, size);
	book(c, seen);
	connection_completed(p.context, size);
	must(c->connection->closing == c->breaks);
}

void fake_complete(unsigned i, unsigned n)
{
	struct client *c = client[i];
	struct posted p;

	if (!c || c->connection->closing)
		return;
	for (unsigned at = 0; at < c->n; at++) {
		if (c->posted[at].kind == POSTED_RECEIVE || n-- % 8)
			continue;
		p = c->posted[at];
		take_out(c, at);
		/* What was sent from, or read into, is the client's until now. */
		if (p.kind == POSTED_RDMA)
			memset(p.buffer, (int)n, p.length);
		connection_completed(p.context, p.length);
		must(c->connection->closing == c->breaks);
		return;
	}
}

void fake_refuses(unsigned i, bool full, bool broken)
{
	if (!client[i])
		return;
	client[i]->full = full;
	client[i]->broken = broken;
}

void fake_lost(unsigned i)
{
	struct client *c = client[i];

	if (!c || c->connection->closing)
		return;
	c->breaks = true;
	connection_end(c->connection, "the fuzzer says so", false);
}

/* ---- the target's turns ---- */

bool fake_work(void)
{
	return work_one(&fake_target);
}

void fake_worked(void)
{
	struct work *next;

	for (struct work *work = work_taken(&fake_target); work; work = next) {
		next = work->next;
		job_worked(work->connection, work);
	}
}

/* As target.c does: the queue is empty before what has ended is freed. */
static void flush(void)
{
	for (unsigned i = 0; i < flushed.n; i++) {
		struct tag *tag = flushed.context[i];

		connection_end(tag->of, "flushed", false);
	}
	flushed.n = 0;
}

void fake_pump(void)
{
	struct connection *next;

	flush();
	for (struct connection *c = fake_target.connections; c; c = next) {
		next = c->next;
		connection_pump(c);
	}
	connections_free(&fake_target);
}

/* ---- beginning and end ---- */

void fake_begin(uint8_t how)
{
	static struct fid_pep pep = { .cm = &cm_ops };

	memset(&fake_target, 0, sizeof(fake_target));
	fake_target.pid = getpid();
	fake_target.pep = &pep;
	fake_target.piece = PAGE;
	fake_target.depth = 1 + how % 4;
	fake_target.max_clients = 2 + how / 4 % 2;
	fake_target.n_workers = 1;
	fake_target.wake = -1;
	pthread_mutex_init(&fake_target.regions_lock, NULL);
	pthread_cond_init(&fake_target.regions_free, NULL);
	pthread_mutex_init(&fake_target.work_lock, NULL);
	pthread_cond_init(&fake_target.work_there, NULL);
	work_queues_init(&fake_target);
	fake_mm_begin(how);
}

static void everything(void)
{
	fake_pump();
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned n = 0; client[i] && n < POSTED; n++)
			fake_complete(i, 0);
	while (fake_work())
		;
	fake_worked();
}

static bool waits(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		for (unsigned slot = 0; client[i] && slot < WIRE_SLOTS; slot++)
			if (!client[i]->connection->closing && client[i]->asked[slot].waits)
				return true;
	return false;
}

/* Who was answered may ask again. */
static void judge_posted(void)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		unsigned receives = 0;

		if (!client[i] || client[i]->connection->closing)
			continue;
		for (unsigned at = 0; at < client[i]->n; at++)
			receives += client[i]->posted[at].kind == POSTED_RECEIVE;
		must(receives == WIRE_SLOTS);
	}
}

void fake_end(void)
{
	fake_mm_calm();
	for (unsigned i = 0; i < CLIENTS; i++)
		fake_refuses(i, false, false);
	everything();
	/* A request has 10 pages at most, or is refused. */
	for (unsigned turns = 0; waits(); turns++) {
		must(turns < 10000);
		everything();
	}
	judge_posted();
	while (fake_target.connections)
		connection_end(fake_target.connections, "the fuzzer closes", false);
	for (unsigned turns = 0; fake_target.ended; turns++) {
		must(turns < 1000);
		while (fake_work())
			;
		fake_worked();
		fake_pump();
	}
	must(!fake_target.count.clients && !fake_target.todo.first && !fake_target.advice.first);
	fake_mm_end();
}
