/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * initiator - a connection of the side that asks: made, driven, ended.
 */
#include <stdlib.h>
#include <unistd.h>

#include "initiator.h"

#define TIMEOUT_MS 10000u
#define SPIN_NS 20000u /* a short answer is nearer than a sleep and a wake-up */
#define NEAR_NS 2000000u /* where no sleep can be ended by the provider: until then none */
#define ROOM_NS 1000000000u /* for a provider to have room for a message */
#define MEMORY ((size_t)(2 * WIRE_SLOTS + 1) * MESSAGE)

static uint8_t *message_in(const struct odp *odp, unsigned i)
{
	return odp->memory + (size_t)i * MESSAGE;
}

/* ---- its end ---- */

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

/* Its endpoint goes first, so that no buffer is written to afterwards. */
void initiator_give_up(struct odp *odp, int why)
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
			slot_finish(&odp->slot[i], why);
	/* No more will be asked for: nothing of the program's need be pinned. */
	if (odp->cache)
		hmm_regcache_flush(odp->cache);
}

/* ---- messages ---- */

/* There are slots enough in every provider's queue, but not before it has met the peer. */
int initiator_send(struct odp *odp, unsigned slot, size_t length)
{
	uint64_t began = now_ns();
	ssize_t err;

	for (;;) {
		err = fi_send(odp->ep, message_out(odp, slot), length, initiator_desc(odp),
			      odp->peer, &odp->slot[slot].sent);
		if (err != -FI_EAGAIN || now_ns() - began >= ROOM_NS)
			break;
		fi_cq_read(odp->fabric.cq, NULL, 0);
	}
	return fabric_errno(err);
}

static void post_receive(struct odp *odp, unsigned i)
{
	ssize_t err = fi_recv(odp->ep, message_in(odp, i), MESSAGE, initiator_desc(odp),
			      FI_ADDR_UNSPEC, &odp->received[i]);

	if (err)
		initiator_give_up(odp, err == -FI_EAGAIN ? -ENOBUFS : -ECONNRESET);
}

/* From here on requests go to the endpoint that is ours there. */
static void greeted(struct odp *odp, const uint8_t *at, size_t length)
{
	struct wire_name name;

	odp->greeted = true;
	if (fabric_has_connections(&odp->fabric))
		return;
	if (!wire_get_name(&name, wire_bytes(at, WIRE_HELLO), length - WIRE_HELLO)) {
		initiator_give_up(odp, -EPROTO);
		return;
	}
	fabric_forget(&odp->fabric, odp->peer);
	odp->process = fabric_process(name.pid);
	if (fabric_peer(&odp->fabric, name.name, &odp->peer))
		initiator_give_up(odp, -EPROTO);
}

static void received(struct odp *odp, unsigned i, size_t length)
{
	const uint8_t *at = message_in(odp, i);

	if (wire_is_bye(at, length))
		initiator_give_up(odp, -ECONNRESET);
	else if (odp->greeted)
		slot_answered(odp, at, length);
	else if (wire_get_hello(at, length))
		greeted(odp, at, length);
	else
		initiator_give_up(odp, -EPROTO);
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
		slot_sent(odp, s);
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
			initiator_give_up(odp, -ECONNRESET);
		return;
	}
	n = fi_eq_read(odp->fabric.eq, &event, &entry, sizeof(entry), 0);
	if (n == -FI_EAVAIL) {
		struct fi_eq_err_entry error = { 0 };

		fi_eq_readerr(odp->fabric.eq, &error, 0);
		initiator_give_up(odp, odp->connected ? -ECONNRESET : refused(error.err));
	} else if (n >= (ssize_t)sizeof(entry) && event == FI_CONNECTED) {
		odp->connected = true;
		fabric_tend(&odp->ep->fid);
	} else if (n >= (ssize_t)sizeof(entry) && event == FI_SHUTDOWN) {
		initiator_give_up(odp, odp->connected ? -ECONNRESET : -ECONNREFUSED);
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
		initiator_give_up(odp, -ECONNRESET);
		return true;
	}
	if (n > 0)
		fabric_came(&odp->fabric);
	for (ssize_t i = 0; i < n && !odp->failed; i++)
		completed(odp, &entry[i]);
	return n > 0;
}

/* Until something came, or the connection has ended. */
void initiator_wait(struct odp *odp)
{
	uint64_t began = now_ns(), now = began;

	while (!odp->failed && !progress(odp)) {
		now = now_ns();
		if (now - odp->heard > odp->timeout_ms * UINT64_C(1000000)) {
			initiator_give_up(odp, -ETIMEDOUT);
			return;
		}
		if (now - began < SPIN_NS)
			continue;
		connection_event(odp);
		if (now - began < NEAR_NS)
			fabric_came(&odp->fabric); /* RDMA needs this side too */
		if (!odp->failed && fabric_wait(&odp->fabric, -1, 100) < 0)
			initiator_give_up(odp, -ECONNRESET);
	}
}

/* ---- connecting ---- */

/* Without connections: to the target's reception, with our name. */
static int introduce(struct odp *odp, const struct odp_place *place)
{
	uint8_t *at = message_out(odp, 0);
	struct wire_name name = { .pid = (uint64_t)getpid() };
	size_t n = wire_put_connect(at);
	int err = fabric_name(odp->ep, name.name);

	if (!err)
		err = fabric_peer(&odp->fabric, place->node, &odp->peer);
	n += wire_put_name(at + n, &name);
	odp->connected = true;
	if (!err)
		err = initiator_send(odp, 0, n);
	return err == -EAGAIN ? 0 : err; /* then nobody will greet us in time */
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
			initiator_wait(odp);
			continue;
		}
		connection_event(odp);
		progress(odp);
		if (!odp->failed && !odp->connected && fabric_wait(&odp->fabric, -1, 100) < 0)
			initiator_give_up(odp, -ECONNRESET);
		if (now_ns() - odp->heard > odp->timeout_ms * UINT64_C(1000000))
			initiator_give_up(odp, -ETIMEDOUT);
	}
	return odp->failed;
}

static int take_options(struct odp *odp, const struct odp_options *given, bool *no_cache)
{
	struct odp_options o = { 0 };
	int err = options_take(&o, sizeof(o), given);

	if (err)
		return err;
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
	initiator_give_up(odp, -ECONNRESET);
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
		err = slots_open_cache(odp);
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
