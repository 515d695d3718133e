/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * target - listens; and the thread that drives the fabric.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "odp_private.h"

#define AT_ONCE 32
#define LOOK_NS UINT64_C(500000000)   /* between two looks whether peers live */
#define TURN 64 /* looks at a queue; then others have their turn */
#define GREET_NS UINT64_C(10000000000) /* for a connection to come up */

/* ---- events of connections ---- */

static void event_error(struct odp_target *target)
{
	struct fi_eq_err_entry error = { 0 };

	if (fi_eq_readerr(target->fabric.eq, &error, 0) < 0 || !error.fid)
		return;
	if (error.fid->fclass == FI_CLASS_EP)
		connection_end(error.fid->context, "it was lost", false);
}

static bool one_event(struct odp_target *target)
{
	union {
		struct fi_eq_cm_entry cm;
		uint8_t bytes[sizeof(struct fi_eq_cm_entry) + 256];
	} entry;
	uint32_t event;
	ssize_t n = fi_eq_read(target->fabric.eq, &event, &entry, sizeof(entry), 0);

	if (n == -FI_EAVAIL) {
		event_error(target);
		return true;
	}
	if (n < (ssize_t)sizeof(entry.cm))
		return false;
	if (event == FI_CONNREQ)
		connection_accept(target, &entry.cm, (size_t)n - sizeof(entry.cm));
	else if (event == FI_CONNECTED)
		connection_up(entry.cm.fid->context);
	else if (event == FI_SHUTDOWN)
		connection_end(entry.cm.fid->context, "the peer has closed it", false);
	return true;
}

/* ---- completions ---- */

static void completion_error(struct odp_target *target)
{
	struct fi_cq_err_entry error = { 0 };
	struct tag *tag;

	if (fi_cq_readerr(target->fabric.cq, &error, 0) < 0 || !error.op_context)
		return;
	tag = error.op_context;
	if (tag->of)
		connection_end(tag->of, fi_strerror(error.err), false);
}

/* ---- where initiators introduce themselves ---- */

static int listen_for(struct odp_target *target, unsigned i)
{
	return fabric_errno(fi_recv(target->reception, target->calls[i], WIRE_NAMED, NULL,
				    FI_ADDR_UNSPEC, &target->call[i]));
}

static void completed(struct odp_target *target, struct tag *tag, size_t length)
{
	if (tag->what != TAG_CALL) {
		connection_completed(tag, length);
		return;
	}
	connection_called(target, target->calls[tag->index], length);
	if (listen_for(target, tag->index))
		hmm_log(HMM_LOG_ERROR, "odp: no more initiators can introduce themselves");
}

/* true: the queue is empty. Who is quick enough to keep it full does not keep the others from
 * what workers have done for them. */
static bool completions(struct odp_target *target)
{
	struct fi_cq_msg_entry entry[AT_ONCE];
	ssize_t n;

	for (unsigned looks = 0; looks < TURN; looks++) {
		n = fi_cq_read(target->fabric.cq, entry, AT_ONCE);
		if (n == -FI_EAVAIL) {
			completion_error(target);
			continue;
		}
		if (n <= 0)
			return true;
		fabric_came(&target->fabric);
		for (ssize_t i = 0; i < n; i++)
			completed(target, entry[i].op_context, entry[i].len);
	}
	return false;
}

static void worked(struct odp_target *target)
{
	struct work *next;

	for (struct work *work = work_taken(target); work; work = next) {
		next = work->next; /* it is used for the next piece right away */
		job_worked(work->connection, work);
	}
}

/* Who connects and says nothing has no place for ever. */
static void pump(struct odp_target *target)
{
	bool look = now_ns() - target->looked > LOOK_NS;
	struct connection *next;

	if (look)
		target->looked = now_ns();
	for (struct connection *c = target->connections; c; c = next) {
		next = c->next;
		if (!c->connected && now_ns() - c->since > GREET_NS)
			connection_end(c, "it never came up", false);
		else if (look && !connection_lives(c))
			connection_end(c, "its process is gone", false);
		else if (connection_pump(c))
			fabric_came(&target->fabric);
	}
}

/* How long nothing can happen that the queues do not tell. */
static int sleep_ms(const struct odp_target *target)
{
	for (struct connection *c = target->connections; c; c = c->next)
		if (c->again)
			return 1;
	return target->ended ? 10 : 1000;
}

static void *fabric_thread(void *arg)
{
	struct odp_target *target = arg;
	eventfd_t value;
	bool empty;

	while (!target->stop) {
		int woken = fabric_wait(&target->fabric, target->wake, sleep_ms(target));

		if (woken < 0) {
			hmm_log(HMM_LOG_ERROR, "odp: the program has closed the target's "
					       "descriptors; nobody is served any more");
			break;
		}
		if (woken)
			eventfd_read(target->wake, &value);
		for (unsigned n = 0; target->fabric.eq && n < TURN && one_event(target); n++)
			;
		empty = completions(target);
		worked(target);
		pump(target);
		if (empty)
			connections_free(target);
	}
	return NULL;
}

/* ---- opening ---- */

/* A name that was cut might be another's. */
static bool take_text(char *to, size_t size, const char *given, const char *otherwise)
{
	return snprintf(to, size, "%s", given ? given : otherwise) < (int)size;
}

static int take_options(struct odp_target *target, const struct odp_target_options *given,
			struct odp_place *place)
{
	struct odp_target_options o = { 0 };
	int err = options_take(&o, sizeof(o), given);

	if (err)
		return err;
	target->piece = o.piece ? o.piece : (size_t)64 << 10;
	target->depth = o.depth ? o.depth : 8;
	target->max_clients = o.max_clients ? o.max_clients : 64;
	target->n_workers = o.workers ? o.workers : 2;
	if (target->piece < PAGE || target->piece > PIECE_MAX ||
	    (target->piece & (target->piece - 1)) || target->depth > DEPTH_MAX ||
	    target->max_clients > CLIENTS_MAX || target->n_workers > WORKERS_MAX)
		return -EINVAL;
	return take_text(place->provider, sizeof(place->provider), o.provider, "tcp") &&
			       take_text(place->node, sizeof(place->node), o.node, "127.0.0.1") &&
			       take_text(place->service, sizeof(place->service), o.service, "")
		       ? 0
		       : -EINVAL;
}

/* The name that the endpoint has got. */
static int name(struct odp_target *target, const struct odp_place *place)
{
	struct sockaddr_storage at = { 0 };
	char node[INET6_ADDRSTRLEN], service[16];
	size_t length = sizeof(at);
	int err = fi_getname(&target->pep->fid, &at, &length);

	if (err)
		return fabric_errno(err);
	if (getnameinfo((struct sockaddr *)&at, (socklen_t)length, node, sizeof(node), service,
			sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV))
		return -EADDRNOTAVAIL;
	snprintf(target->address, sizeof(target->address),
		 at.ss_family == AF_INET6 ? "%s://[%s]:%s" : "%s://%s:%s", place->provider, node,
		 service);
	return 0;
}

/* Without connections: an endpoint whose name is known. */
static int receive(struct odp_target *target)
{
	char name[FABRIC_NAME];
	int err = fabric_endpoint(&target->fabric, NULL, target, &target->reception);

	target->calls = err ? NULL : hmm_alloc(CALLS * sizeof(*target->calls));
	if (!err && !target->calls)
		err = -ENOMEM;
	for (unsigned i = 0; i < CALLS && !err; i++) {
		target->call[i] = (struct tag){ .what = TAG_CALL, .index = i };
		err = listen_for(target, i);
	}
	if (!err)
		err = fabric_name(target->reception, name);
	if (!err)
		snprintf(target->address, sizeof(target->address), "shm://%s", name);
	return err;
}

static int listen_at(struct odp_target *target, const struct odp_place *place)
{
	struct fabric *f = &target->fabric;
	/* For each connection: messages, answers, pieces, and its greeting. */
	int err = fabric_open(f, place, true, target->max_clients * 64);

	if (err)
		return err;
	if (!fabric_has_connections(f))
		return receive(target);
	err = fi_passive_ep(f->fabric, f->info, &target->pep, target);
	if (!err)
		err = fi_pep_bind(target->pep, &f->eq->fid, 0);
	if (!err)
		err = fi_listen(target->pep);
	if (err)
		return fabric_errno(err);
	fabric_tend(&target->pep->fid);
	return name(target, place);
}

static int threads_start(struct odp_target *target)
{
	sigset_t all, before;
	int err;

	/* The program's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	err = workers_start(target);
	if (!err && pthread_create(&target->thread, NULL, fabric_thread, target)) {
		workers_stop(target);
		err = -EAGAIN;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

static void release(struct odp_target *target)
{
	if (target->pep)
		fi_close(&target->pep->fid);
	if (target->reception)
		fi_close(&target->reception->fid);
	hmm_free(target->calls, CALLS * sizeof(*target->calls));
	fabric_close(&target->fabric);
	if (target->wake >= 0)
		close(target->wake);
	hmm_put(target->hmm);
	hmm_free(target, sizeof(*target));
}

int odp_target_open(const struct odp_target_options *options, struct odp_target **out)
{
	struct odp_target *target;
	struct odp_place place;
	struct hmm *hmm;
	int err;

	if (!out)
		return -EINVAL;
	err = hmm_open(&hmm);
	if (err)
		return err;
	target = hmm_alloc(sizeof(*target));
	if (!target) {
		hmm_put(hmm);
		return -ENOMEM;
	}
	target->hmm = hmm;
	target->pid = getpid();
	pthread_mutex_init(&target->regions_lock, NULL);
	pthread_cond_init(&target->regions_free, NULL);
	pthread_mutex_init(&target->work_lock, NULL);
	pthread_cond_init(&target->work_there, NULL);
	target->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = take_options(target, options, &place);
	if (!err && target->wake < 0)
		err = -errno;
	if (!err)
		err = listen_at(target, &place);
	if (!err)
		err = threads_start(target);
	if (err) {
		release(target);
		return err;
	}
	*out = target;
	return 0;
}

void odp_target_close(struct odp_target *target)
{
	if (!target || target->pid != getpid())
		return;
	target->stop = true;
	eventfd_write(target->wake, 1);
	pthread_join(target->thread, NULL);
	/* First: what a worker hands back must not begin anything, for nobody would do it. */
	while (target->connections)
		connection_end(target->connections, "the target closes", false);
	workers_stop(target);
	worked(target);
	connections_free(target); /* their endpoints */
	while (!completions(target))
		;
	fabric_deaf(&target->fabric);
	connections_free(target);
	release(target);
}

const char *odp_target_address(const struct odp_target *target)
{
	return target->address;
}

void odp_target_get_stats(struct odp_target *target, struct odp_target_stats *stats)
{
	struct odp_target_stats all = {
		.clients = target->count.clients,
		.accepted = target->count.accepted,
		.refused = target->count.refused,
		.broken = target->count.broken,
		.requests = target->count.requests,
		.failed = target->count.failed,
		.bytes_out = target->count.bytes_out,
		.bytes_in = target->count.bytes_in,
		.inline_pieces = target->count.inline_pieces,
		.worked = target->count.worked,
	};

	stats_give(stats, &all, sizeof(all));
}
