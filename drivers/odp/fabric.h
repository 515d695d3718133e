/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fabric - libfabric, as far as both sides use it alike: a provider, its domain, one queue of
 * completions and one of connection events.
 *
 * Providers with connections (tcp, verbs: FI_EP_MSG) are used by them: one that ends is told
 * to the other side. shm has none (FI_EP_RDM): endpoints have names, sides introduce each
 * other, say good-bye, and look whether the other's process lives. Nor can its queue be waited
 * for: who waits sleeps for a short time, longer the longer nothing comes.
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
	struct fid_av *av; /* without connections: names of peers */
	int cq_fd, eq_fd;  /* -1: it cannot be waited for */
	unsigned idle;	   /* waits in a row in which nothing came */
	uint64_t late_ns;  /* so long after an endpoint was closed completions of it may come */
	_Atomic uint64_t next_key;
};

struct odp_place {
	char provider[32], node[128], service[32];
};

/* "tcp://10.0.0.1:7000". -EINVAL. */
int place_parse(struct odp_place *place, const char *address);

/* library.c: libfabric itself. -ENODEV: it is not here. */
int fabric_load(void);

/* `listens`: the place is this host's. 0, -ENODEV no such provider or address, ... */
int fabric_open(struct fabric *f, const struct odp_place *place, bool listens,
		unsigned completions);
void fabric_close(struct fabric *f);
/* Before that: no completion is read any more. */
void fabric_deaf(struct fabric *f);

/* libfabric's errors are errno's, but for its own. */
int fabric_errno(int64_t fi_error);

/* Memory that a provider sends from, receives to, or lets the peer reach (FI_* access). */
int fabric_register(struct fabric *f, void *at, size_t length, uint64_t access,
		    struct fid_mr **mr);
/* Does the provider want descriptors of the memory that is sent from? */
bool fabric_wants_local(const struct fabric *f);
/* How a peer names an address in a registration that begins at `start`. */
uint64_t fabric_remote(const struct fabric *f, uintptr_t start, uintptr_t at);

static inline bool fabric_has_connections(const struct fabric *f)
{
	return !f->av;
}

#define FABRIC_NAME 96u /* bytes of an endpoint's name, with the NUL */

/* Without connections: what a peer calls this endpoint, and what we call a peer. */
int fabric_name(struct fid_ep *ep, char *name);
int fabric_peer(struct fabric *f, const char *name, fi_addr_t *peer);
void fabric_forget(struct fabric *f, fi_addr_t peer);

/* A process, to be asked whether it lives (a zombie does not). -1: it is gone already. */
int fabric_process(uint64_t pid);
bool fabric_lives(int process);

/* Something came, or is about to: the next waits are short. */
static inline void fabric_came(struct fabric *f)
{
	f->idle = 0;
}

/* Sleep until a queue has something, or other_fd (-1: none) is readable, or the time is up. 1:
 * other_fd may be; 0; -ENODEV: the program has closed our descriptors, and their numbers are for
 * others now. */
int fabric_wait(struct fabric *f, int other_fd, int timeout_ms);

/* An endpoint on both queues, enabled; `info`: of the connection request, or NULL. */
int fabric_endpoint(struct fabric *f, struct fi_info *info, void *context,
		    struct fid_ep **ep);

/* For the socket behind an endpoint that is listening or connected. It ends with this program: what
 * it executes would keep it open, and the peer would wait for somebody who is gone. And a peer
 * whose host says nothing for SILENCE_S is gone too, whether anything is on its way or not.
 *
 * One that listens: the tcp provider reads a peer's request to connect from a socket that blocks,
 * and who announced more than he sent held the target for as long as he liked (seen with 1.17);
 * who sent nothing held a descriptor. It waits a moment for the one, and the kernel holds the
 * other. */
#define SILENCE_S 120
void fabric_tend(struct fid *endpoint);

#endif
