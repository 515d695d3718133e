/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_peers - bad peers: on a bare socket; over libfabric without our protocol, or with it and
 * wrong; and those that are right but stop, or ask for all there is.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fabric.h"
#include "odp_peers.h"
#include "wire.h"

/* ---- a bare socket ---- */

static int raw(void)
{
	struct odp_place place;
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (place_parse(&place, served->address))
		return -1;
	inet_pton(AF_INET, place.node, &to.sin_addr);
	to.sin_port = htons((uint16_t)atoi(place.service));
	if (connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		close(fd);
		return -1;
	}
	return fd;
}

/* The tcp provider's own request to connect, and what a peer may write into it. */
struct tcp_request {
	uint8_t version, type;
	uint16_t size; /* of the data that follows, big-endian */
	uint8_t data[252];
};

enum raw_how { RAW_RANDOM, RAW_SILENT, RAW_SHORT, RAW_PROMISE, RAW_TOO_LONG, RAW_HTTP };

static size_t raw_bytes(enum raw_how how, unsigned round, uint8_t *to)
{
	struct tcp_request r = { .version = 3, .type = 0 };
	unsigned seed = round;

	for (unsigned i = 0; i < 512; i++, seed = seed * 1103515245 + 12345)
		to[i] = (uint8_t)(seed >> 16);
	switch (how) {
	case RAW_SILENT:
		return 0;
	case RAW_SHORT:
		return 1 + round % 7;
	case RAW_PROMISE:
		/* Its own part is 8 to 40 bytes: data is announced, and not all of it comes. */
		r.type = (uint8_t)(round / 5 % 3);
		r.size = htons(16);
		memcpy(to, &r, 48);
		return 8 + round % 5 * 8;
	case RAW_TOO_LONG:
		r.size = htons((uint16_t)(257 + round * 100));
		memcpy(to, &r, 8);
		return 512;
	case RAW_HTTP:
		memcpy(to, "GET / HTTP/1.0\r\n\r\n", 18);
		return 18;
	default:
		return 512;
	}
}

#define RAW 150u

/* Many, that stay for a while. */
static enum verdict bare(const struct bad_peer *self)
{
	uint8_t bytes[512];
	int fd[RAW];

	for (unsigned i = 0; i < RAW; i++) {
		size_t n = raw_bytes((enum raw_how)self->how, i, bytes);

		fd[i] = raw();
		if (fd[i] >= 0 && n && send(fd[i], bytes, n, MSG_NOSIGNAL) < 0)
			continue; /* it has seen enough */
	}
	usleep(PATIENCE_MS * 1500); /* longer than anybody may be kept waiting */
	for (unsigned i = 0; i < RAW; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	return PASS;
}

static enum verdict thousands(const struct bad_peer *self)
{
	for (unsigned i = 0; i < 3000; i++) {
		int fd = raw();

		if (fd < 0)
			continue;
		if (i % 3 == 0)
			send(fd, "x", 1, MSG_NOSIGNAL);
		close(fd);
	}
	return PASS;
}

/* ---- over libfabric ---- */

struct peer {
	struct fabric fabric;
	struct fid_ep *ep;
	uint8_t out[16][2 * WIRE_MAX], in[16][WIRE_MAX];
	uint8_t buffer[1 << 20];
	struct fid_mr *mr;
	struct fi_context2 context[64];
	bool up, down;
};

static void look(struct peer *p)
{
	struct fi_eq_cm_entry entry;
	struct fi_cq_msg_entry done[8];
	struct fi_cq_err_entry error = { 0 };
	struct fi_eq_err_entry lost = { 0 };
	uint32_t event;
	ssize_t n = fi_eq_read(p->fabric.eq, &event, &entry, sizeof(entry), 0);

	if (n == -FI_EAVAIL) {
		fi_eq_readerr(p->fabric.eq, &lost, 0);
		p->down = true;
	} else if (n > 0) {
		p->up |= event == FI_CONNECTED;
		p->down |= event == FI_SHUTDOWN;
	}
	if (fi_cq_read(p->fabric.cq, done, 8) == -FI_EAVAIL)
		fi_cq_readerr(p->fabric.cq, &error, 0);
}

static void look_for(struct peer *p, unsigned ms)
{
	for (uint64_t end = live_now_ns() + ms * 1000000u; live_now_ns() < end && !p->down;) {
		look(p);
		usleep(200);
	}
}

static enum verdict peer_begin(struct peer **out, bool greets, bool receives)
{
	struct peer *p = calloc(1, sizeof(*p));
	struct odp_place place;
	uint8_t hello[64] = "not one of yours";

	EXPECT(0, place_parse(&place, served->address));
	EXPECT(0, fabric_open(&p->fabric, &place, false, 128));
	EXPECT(0, fabric_endpoint(&p->fabric, NULL, p, &p->ep));
	EXPECT(0, fabric_register(&p->fabric, p->buffer, sizeof(p->buffer),
				  FI_REMOTE_READ | FI_REMOTE_WRITE, &p->mr));
	for (unsigned i = 0; receives && i < 16; i++)
		EXPECT(0, fi_recv(p->ep, p->in[i], WIRE_MAX, NULL, 0, &p->context[i]));
	EXPECT(0, fi_connect(p->ep, p->fabric.info->dest_addr, hello,
			     greets ? wire_put_connect(hello) : sizeof(hello)));
	for (uint64_t end = live_now_ns() + 3000000000u; live_now_ns() < end && !p->up && !p->down;)
		look(p);
	CHECK(p->up == greets, "the peer is %sconnected", p->up ? "" : "not ");
	*out = p;
	return PASS;
}

static void peer_end(struct peer *p)
{
	fi_close(&p->ep->fid);
	fi_close(&p->mr->fid);
	fabric_close(&p->fabric);
	free(p);
}

static void send_bytes(struct peer *p, unsigned i, size_t n)
{
	for (unsigned tries = 0; tries < 100; tries++) {
		if (fi_send(p->ep, p->out[i % 16], n, NULL, 0, &p->context[16 + i % 48]) !=
		    -FI_EAGAIN)
			return;
		look(p);
	}
}

static enum verdict ungreeted(const struct bad_peer *self)
{
	struct peer *p;

	for (unsigned i = 0; i < 20; i++) {
		TRY(peer_begin(&p, false, true));
		peer_end(p);
	}
	return PASS;
}

enum message_how { NOISE, TWICE, SLOT, TOO_LONG, LENGTH, RDMA_KEY, RDMA_PLACE, TRUNCATED };

static size_t bad_message(struct peer *p, enum message_how how, unsigned i)
{
	struct wire_request r = { .code = ODP_GET, .slot = (uint16_t)(i % 16),
				  .key = served->key, .length = 1 << 20,
				  .remote = (uintptr_t)served->memory,
				  .buffer = fabric_remote(&p->fabric, (uintptr_t)p->buffer,
							  (uintptr_t)p->buffer),
				  .buffer_key = fi_mr_key(p->mr) };
	uint8_t *out = p->out[i % 16];
	unsigned seed = i;

	if (how == TWICE)
		r.slot = 3;
	else if (how == SLOT)
		r.slot = 300;
	else if (how == LENGTH)
		r.length = 0;
	else if (how == RDMA_KEY)
		r.buffer_key += 12345;
	else if (how == RDMA_PLACE)
		r.buffer += 1 << 30;
	wire_put_request(out, &r);
	for (unsigned n = 0; how == NOISE && n < WIRE_REQUEST; n++)
		out[n] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
	return how == TOO_LONG ? 2 * WIRE_MAX : how == TRUNCATED ? 30 : WIRE_REQUEST;
}

/* Each ends by it; who is right is not asked to wait. */
static enum verdict malformed(const struct bad_peer *self)
{
	struct peer *p;

	for (unsigned round = 0; round < 10; round++) {
		TRY(peer_begin(&p, true, true));
		look_for(p, 5);
		for (unsigned i = 0; i < 32 && !p->down; i++)
			send_bytes(p, i, bad_message(p, (enum message_how)self->how, i));
		look_for(p, 3000);
		CHECK(p->down, "the target bears it");
		peer_end(p);
	}
	return PASS;
}

/* Up, and then nothing; or requests whose answers nobody takes. */
static enum verdict silent(const struct bad_peer *self)
{
	struct peer *p[8];

	for (unsigned i = 0; i < 8; i++)
		TRY(peer_begin(&p[i], true, !self->how));
	for (unsigned i = 0; self->how && i < 8; i++)
		for (unsigned n = 0; n < 16; n++) {
			struct wire_request r = { .code = ODP_GET, .slot = (uint16_t)n,
						  .key = served->key, .with_bytes = true,
						  .length = 4096,
						  .remote = (uintptr_t)served->memory };

			wire_put_request(p[i]->out[n], &r);
			send_bytes(p[i], n, WIRE_REQUEST);
		}
	for (unsigned n = 0; n < 200; n++) {
		for (unsigned i = 0; i < 8; i++)
			look(p[i]);
		usleep(1000);
	}
	for (unsigned i = 0; i < 8; i++)
		peer_end(p[i]);
	return PASS;
}

/* ---- right, but ---- */

static void greedy_main(unsigned how)
{
	static char buffer[8 << 20];
	struct odp_op ops[64];
	struct odp *odp;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (odp_connect(served->address, NULL, &odp))
		_exit(1);
	for (unsigned i = 0; i < 64; i++)
		ops[i] = (struct odp_op){ .code = how ? ODP_ADVISE : ODP_GET, .key = &served->key,
					  .local = buffer, .length = 8 << 20,
					  .remote = (uintptr_t)served->memory,
					  .operand = i % 3, .compare = i % 2 };
	for (unsigned i = 0; how && i < 64; i++) {
		ops[i].remote = (uintptr_t)served->wide;
		ops[i].length = WIDE;
	}
	for (;;)
		odp_run(odp, ops, 64);
}

/* Stopped in the middle of a large get, and let go again, or killed then. */
static enum verdict stopped(const struct bad_peer *self)
{
	pid_t pid[4];

	for (unsigned i = 0; i < 4; i++) {
		pid[i] = fork();
		if (!pid[i])
			greedy_main(0);
	}
	for (unsigned round = 0; round < 4; round++) {
		usleep(60000);
		for (unsigned i = 0; i < 4; i++)
			kill(pid[i], SIGSTOP);
		usleep(200000);
		for (unsigned i = 0; i < 4 && round < 3; i++)
			kill(pid[i], SIGCONT);
	}
	for (unsigned i = 0; i < 4; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
	}
	return PASS;
}

static enum verdict greedy(const struct bad_peer *self)
{
	pid_t pid[3];

	for (unsigned i = 0; i < 3; i++) {
		pid[i] = fork();
		if (!pid[i])
			greedy_main(self->how);
	}
	usleep(700000);
	for (unsigned i = 0; i < 3; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
	}
	return PASS;
}

const struct bad_peer bad_peers[] = {
	{ "raw-random", bare, RAW_RANDOM, false },
	{ "raw-silent", bare, RAW_SILENT, false },
	{ "raw-short", bare, RAW_SHORT, false },
	{ "raw-promise", bare, RAW_PROMISE, false },
	{ "raw-too-long", bare, RAW_TOO_LONG, false },
	{ "raw-http", bare, RAW_HTTP, false },
	{ "raw-thousands", thousands, 0, false },
	{ "ungreeted", ungreeted, 0, false },
	{ "noise", malformed, NOISE, true },
	{ "slot-used-twice", malformed, TWICE, true },
	{ "slot-too-high", malformed, SLOT, true },
	{ "message-too-long", malformed, TOO_LONG, false },
	{ "message-too-short", malformed, TRUNCATED, true },
	{ "length-0", malformed, LENGTH, true },
	{ "rdma-key", malformed, RDMA_KEY, false },
	{ "rdma-place", malformed, RDMA_PLACE, false },
	{ "silent", silent, 0, false },
	{ "takes-no-answers", silent, 1, false },
	{ "stopped", stopped, 0, false },
	{ "greedy-gets", greedy, 0, false },
	{ "greedy-advice", greedy, 1, false },
};
const unsigned bad_peers_n = sizeof(bad_peers) / sizeof(bad_peers[0]);
