// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_fabric - the plain way to read a peer's memory.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "bench_fabric.h"

#define SPIN_NS 20000u /* as the odp driver's initiator: then it sleeps */

int bare_listen(struct bare_server *s, char *address, size_t size)
{
	struct odp_place place = { .provider = "tcp", .node = "127.0.0.1" };
	struct sockaddr_in at;
	size_t length = sizeof(at);
	int err;

	*s = (struct bare_server){ 0 };
	err = fabric_open(&s->fabric, &place, true, 64);
	if (err)
		return err;
	err = fi_passive_ep(s->fabric.fabric, s->fabric.info, &s->pep, s);
	if (!err)
		err = fi_pep_bind(s->pep, &s->fabric.eq->fid, 0);
	if (!err)
		err = fi_listen(s->pep);
	if (!err)
		err = fi_getname(&s->pep->fid, &at, &length);
	snprintf(address, size, "tcp://127.0.0.1:%u", ntohs(at.sin_port));
	return fabric_errno(err);
}

int bare_expose(struct bare_server *s, size_t length, uint64_t *remote, uint64_t *key)
{
	int err;

	s->memory = bench_map(length);
	if (!s->memory)
		return -ENOMEM;
	memset(s->memory, 7, length);
	err = fabric_register(&s->fabric, s->memory, length, FI_REMOTE_READ, &s->mr);
	if (err)
		return err;
	*remote = fabric_remote(&s->fabric, (uintptr_t)s->memory, (uintptr_t)s->memory);
	*key = fi_mr_key(s->mr);
	return 0;
}

void bare_serve(struct bare_server *s, int other_fd)
{
	struct fi_eq_cm_entry entry;
	struct fi_cq_msg_entry done;
	uint32_t event;

	fabric_wait(&s->fabric, other_fd, 100);
	fi_cq_read(s->fabric.cq, &done, 1);
	if (fi_eq_read(s->fabric.eq, &event, &entry, sizeof(entry), 0) <= 0 || event != FI_CONNREQ)
		return;
	if (!fabric_endpoint(&s->fabric, entry.info, NULL, &s->ep))
		fi_accept(s->ep, NULL, 0);
	fi_freeinfo(entry.info);
}

int bare_connect(struct bare *b, const char *address, uint64_t remote, uint64_t key, void *buffer,
		 size_t length)
{
	struct fi_eq_cm_entry entry;
	struct odp_place place;
	uint32_t event = 0;
	int err = place_parse(&place, address);

	*b = (struct bare){ .buffer = buffer, .remote = remote, .key = key };
	if (!err)
		err = fabric_open(&b->fabric, &place, false, 64);
	if (!err)
		err = fabric_endpoint(&b->fabric, NULL, NULL, &b->ep);
	if (!err && fabric_wants_local(&b->fabric))
		err = fabric_register(&b->fabric, buffer, length, FI_READ, &b->mr);
	if (!err)
		err = fabric_errno(fi_connect(b->ep, b->fabric.info->dest_addr, NULL, 0));
	for (unsigned i = 0; i < 100 && !err && event != FI_CONNECTED; i++) {
		fabric_wait(&b->fabric, -1, 50);
		fi_cq_read(b->fabric.cq, NULL, 0);
		fi_eq_read(b->fabric.eq, &event, &entry, sizeof(entry), 0);
	}
	return err ? err : event == FI_CONNECTED ? 0 : -ETIMEDOUT;
}

void bare_disconnect(struct bare *b)
{
	if (b->ep)
		fi_close(&b->ep->fid);
	if (b->mr)
		fi_close(&b->mr->fid);
	if (b->fabric.fabric)
		fabric_close(&b->fabric);
}

int bare_read(struct bare *b, size_t length)
{
	struct fi_context2 context;
	struct fi_cq_msg_entry done;
	uint64_t began = tool_now();
	ssize_t n = fi_read(b->ep, b->buffer, length, b->mr ? fi_mr_desc(b->mr) : NULL, 0,
			    b->remote, b->key, &context);

	if (n)
		return fabric_errno(n);
	while ((n = fi_cq_read(b->fabric.cq, &done, 1)) == -FI_EAGAIN)
		if (tool_now() - began > SPIN_NS)
			fabric_wait(&b->fabric, -1, 1000);
	return n == 1 ? 0 : fabric_errno(n);
}
