/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * connection - a client: accepted, fed, ended.
 *
 * Every buffer is its own (O4), in one block: WIRE_SLOTS messages, as many answers, `depth`
 * pieces. As many messages are posted as it may have requests under way.
 *
 * It is freed when no worker has work of it, and the queue was found empty after its
 * endpoint was closed: until then completions that name it may come. With verbs even later
 * (seen with rxe: requests that are flushed), so there it stays for a second, without its buffers.
 */
#include <errno.h>
#include <unistd.h>

#include "odp_private.h"

#define ANSWER_BYTES (WIRE_RESPONSE + WIRE_INLINE)
#define MESSAGES ((size_t)WIRE_SLOTS * WIRE_MAX)
#define ANSWERS ((size_t)WIRE_SLOTS * ANSWER_BYTES)

/* ---- its memory ---- */

uint8_t *received_buffer(const struct connection *c, unsigned i)
{
	return (uint8_t *)c->memory + (size_t)i * WIRE_MAX;
}

uint8_t *answer_buffer(const struct connection *c, unsigned slot)
{
	return (uint8_t *)c->memory + MESSAGES + (size_t)slot * ANSWER_BYTES;
}

void *connection_desc(const struct connection *c)
{
	return c->mr ? fi_mr_desc(c->mr) : NULL;
}

static int memory_make(struct connection *c)
{
	struct odp_target *target = c->target;
	size_t before = (MESSAGES + ANSWERS + PAGE - 1) & ~(PAGE - 1);

	c->bytes = before + target->depth * target->piece;
	c->memory = hmm_alloc(c->bytes);
	if (!c->memory)
		return -ENOMEM;
	for (unsigned i = 0; i < target->depth; i++)
		c->piece[i].buffer = (uint8_t *)c->memory + before + i * target->piece;
	return fabric_wants_local(&target->fabric)
		       ? fabric_register(&target->fabric, c->memory, c->bytes,
					 FI_SEND | FI_RECV | FI_READ | FI_WRITE, &c->mr)
		       : 0;
}

static void tags_make(struct connection *c)
{
	for (unsigned i = 0; i < WIRE_SLOTS; i++) {
		c->received[i] = (struct tag){ .of = c, .what = TAG_RECEIVED, .index = i };
		c->job[i].tag = (struct tag){ .of = c, .what = TAG_ANSWER, .index = i };
	}
	for (unsigned i = 0; i < DEPTH_MAX; i++)
		c->piece[i].tag = (struct tag){ .of = c, .what = TAG_PIECE, .index = i };
	c->hello = (struct tag){ .of = c, .what = TAG_HELLO };
}

static void memory_free(struct connection *c)
{
	if (c->mr)
		fi_close(&c->mr->fid);
	if (c->process >= 0)
		close(c->process);
	hmm_free(c->memory, c->bytes);
	c->mr = NULL;
	c->process = -1;
	c->memory = NULL;
}

/* ---- messages ---- */

void receive_again(struct connection *c, unsigned i)
{
	ssize_t err = fi_recv(c->ep, received_buffer(c, i), WIRE_MAX, connection_desc(c),
			      FI_ADDR_UNSPEC, &c->received[i]);

	c->unposted &= ~(1u << i);
	if (!err)
		return;
	if (err != -FI_EAGAIN) {
		connection_end(c, "no message can be received", false);
		return;
	}
	c->unposted |= 1u << i;
	c->again = true;
}

/* The first message is ours. Its buffer is that of answer 0, which nobody has asked for yet. */
static void greet(struct connection *c)
{
	uint8_t *at = answer_buffer(c, 0);
	size_t n = wire_put_hello(at);
	struct wire_name name = { .pid = (uint64_t)getpid() };
	ssize_t err = 0;

	if (!fabric_has_connections(&c->target->fabric)) {
		err = fabric_name(c->ep, name.name);
		n += wire_put_name(at + n, &name);
	}
	if (!err)
		err = fi_send(c->ep, at, n, connection_desc(c), c->peer, &c->hello);
	if (!err)
		c->greeted = true;
	else if (err == -FI_EAGAIN)
		c->again = true;
	else
		connection_end(c, "it cannot be greeted", false);
}

void connection_completed(struct tag *tag, size_t length)
{
	struct connection *c = tag->of;

	if (c->closing)
		return;
	switch (tag->what) {
	case TAG_CALL:
		break; /* not of a connection */
	case TAG_RECEIVED:
		if (wire_is_bye(received_buffer(c, tag->index), length))
			connection_end(c, "the peer has closed it", false);
		else if (!job_begin(c, tag->index, received_buffer(c, tag->index), length))
			connection_end(c, "it breaks the protocol", true);
		break;
	case TAG_HELLO:
		break;
	case TAG_ANSWER:
		job_answered(c, &c->job[tag->index]);
		break;
	case TAG_PIECE:
		job_travelled(c, &c->piece[tag->index]);
		break;
	}
}

bool connection_pump(struct connection *c)
{
	c->again = false;
	for (unsigned i = 0; i < WIRE_SLOTS && !c->closing; i++)
		if (c->unposted >> i & 1)
			receive_again(c, i);
	if (!c->closing && c->connected && !c->greeted)
		greet(c);
	return !c->closing && c->greeted && jobs_pump(c);
}

/* ---- its life ---- */

static int open_endpoint(struct connection *c, struct fi_info *info)
{
	int err = fabric_endpoint(&c->target->fabric, info, c, &c->ep);

	for (unsigned i = 0; i < WIRE_SLOTS && !err && !c->closing; i++)
		receive_again(c, i);
	if (err || c->closing)
		return err ? err : -EIO;
	return info ? fabric_errno(fi_accept(c->ep, NULL, 0)) : 0;
}

/* NULL: the request is still to be refused. Else one of the two lists has it. */
static struct connection *make(struct odp_target *target, struct fi_info *info)
{
	struct connection *c = hmm_alloc(sizeof(*c));
	int err;

	if (!c)
		return NULL;
	c->target = target;
	c->process = -1;
	c->since = now_ns();
	tags_make(c);
	err = memory_make(c);
	if (!err)
		err = open_endpoint(c, info);
	if (!c->ep) {
		memory_free(c);
		hmm_free(c, sizeof(*c));
		return NULL;
	}
	/* Its endpoint has the request now, and messages are posted that have completions. */
	c->next = target->connections;
	target->connections = c;
	target->count.clients++;
	if (err) {
		c->closing = false;
		connection_end(c, "it cannot be accepted", false);
	}
	return c;
}

void connection_accept(struct odp_target *target, struct fi_eq_cm_entry *request,
		       size_t data_length)
{
	struct connection *c = NULL;

	/* What is not one of ours costs nothing. */
	if (wire_get_connect(request->data, data_length) &&
	    target->count.clients < target->max_clients)
		c = make(target, request->info);
	if (!c)
		fi_reject(target->pep, request->info->handle, NULL, 0);
	if (c && !c->closing)
		target->count.accepted++;
	else
		target->count.refused++;
	fi_freeinfo(request->info);
}

/* Nobody is told of a refusal: who hears nothing gives up. */
void connection_called(struct odp_target *target, const void *message, size_t length)
{
	struct connection *c = NULL;
	struct wire_name name;

	if (length == WIRE_NAMED && wire_get_connect(message, length) &&
	    wire_get_name(&name, wire_bytes(message, WIRE_CONNECT), length - WIRE_CONNECT) &&
	    target->count.clients < target->max_clients)
		c = make(target, NULL);
	if (!c || c->closing) {
		target->count.refused++;
		return;
	}
	target->count.accepted++;
	c->process = fabric_process(name.pid);
	c->connected = true;
	if (fabric_peer(&target->fabric, name.name, &c->peer)) {
		c->peer = FI_ADDR_UNSPEC;
		connection_end(c, "its name is nobody's", true);
	}
}

bool connection_lives(const struct connection *c)
{
	return fabric_has_connections(&c->target->fabric) || fabric_lives(c->process);
}

void connection_up(struct connection *c)
{
	c->connected = true;
	fabric_tend(&c->ep->fid);
}

void connection_end(struct connection *c, const char *why, bool broken)
{
	struct odp_target *target = c->target;
	struct connection **at = &target->connections;

	if (c->closing)
		return;
	c->closing = true;
	hmm_log(HMM_LOG_INFO, "odp: a connection ends: %s", why);
	target->count.broken += broken;
	while (*at && *at != c)
		at = &(*at)->next;
	if (!*at)
		return; /* make() will */
	*at = c->next;
	c->next = target->ended;
	target->ended = c;
	target->count.clients--;
}

/* The peer is told, and forgotten. */
static void part(struct connection *c)
{
	struct fabric *f = &c->target->fabric;
	uint8_t bye[WIRE_BYE];

	if (fabric_has_connections(f)) {
		fi_shutdown(c->ep, 0);
	} else if (c->peer != FI_ADDR_UNSPEC) {
		if (connection_lives(c))
			fi_inject(c->ep, bye, wire_put_bye(bye), c->peer);
		fabric_forget(f, c->peer);
	}
}

void connections_free(struct odp_target *target)
{
	struct connection **at = &target->ended;

	while (*at) {
		struct connection *c = *at;

		if (c->ep) {
			part(c);
			fi_close(&c->ep->fid);
			c->ep = NULL; /* what it had on the queue is read before the next time */
			c->since = now_ns();
		} else if (!c->works) {
			memory_free(c);
			if (!target->fabric.cq || now_ns() - c->since >= target->fabric.late_ns) {
				*at = c->next;
				hmm_free(c, sizeof(*c));
				continue;
			}
		}
		at = &c->next;
	}
}
