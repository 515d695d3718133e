/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fabric - libfabric, as far as both sides use it alike: a provider, its domain, one queue of
 * completions and one of connection events.
 */
#ifndef ODP_FABRIC_H
#define ODP_FABRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_rma.h>

struct fabric {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_cq *cq;
	struct fid_eq *eq;
	int cq_fd, eq_fd;
	_Atomic uint64_t next_key;
};

struct odp_place {
	char provider[32], node[128], service[32];
};

/* "tcp://10.0.0.1:7000". -EINVAL. */
int place_parse(struct odp_place *place, const char *address);

/* `listens`: the place is this host's. 0, -ENODEV no such provider or address, ... */
int fabric_open(struct fabric *f, const struct odp_place *place, bool listens,
		unsigned completions);
void fabric_close(struct fabric *f);

/* The tcp provider reads a peer's request to connect from a socket that blocks: who announced
 * more than he sent held the target for as long as he liked (seen with 1.17), and who sent
 * nothing held a descriptor. Sockets that listen at `name` wait a moment for the one, and let
 * the kernel hold the other. */
void fabric_guard(const struct sockaddr_storage *name, socklen_t length);

/* libfabric's errors are errno's, but for its own. */
int fabric_errno(int64_t fi_error);

/* Memory that a provider sends from, receives to, or lets the peer reach (FI_* access). */
int fabric_register(struct fabric *f, void *at, size_t length, uint64_t access,
		    struct fid_mr **mr);
/* Does the provider want descriptors of the memory that is sent from? */
bool fabric_wants_local(const struct fabric *f);
/* How a peer names an address in a registration that begins at `start`. */
uint64_t fabric_remote(const struct fabric *f, uintptr_t start, uintptr_t at);

/* Sleep until a queue has something, or other_fd (-1: none) is readable, or the time is up. */
void fabric_wait(struct fabric *f, int other_fd, int timeout_ms);

/* An endpoint on both queues, enabled; `info`: of the connection request, or NULL. */
int fabric_endpoint(struct fabric *f, struct fi_info *info, void *context,
		    struct fid_ep **ep);

#endif
