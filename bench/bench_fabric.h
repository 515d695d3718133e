/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bench_fabric - the plain way: a connection of libfabric, and RDMA reads of memory that the
 * peer has registered. After fi_rma(3); the objects are made by the odp driver's fabric.c.
 */
#ifndef UHMM_BENCH_FABRIC_H
#define UHMM_BENCH_FABRIC_H

#include <stddef.h>
#include <stdint.h>

#include "../drivers/odp/fabric.h"

struct bare_server {
	struct fabric fabric;
	struct fid_pep *pep;
	struct fid_ep *ep;
	struct fid_mr *mr;
	char *memory;
};

/* Listen on the loopback; where. */
int bare_listen(struct bare_server *server, char *address, size_t size);
/* Present memory that a peer may read. */
int bare_expose(struct bare_server *server, size_t length, uint64_t *remote, uint64_t *key);
/* What there is to be done, or until other_fd can be read. */
void bare_serve(struct bare_server *server, int other_fd);

struct bare {
	struct fabric fabric;
	struct fid_ep *ep;
	struct fid_mr *mr;
	void *buffer;
	uint64_t remote, key;
};

int bare_connect(struct bare *bare, const char *address, uint64_t remote, uint64_t key,
		 void *buffer, size_t length);
void bare_disconnect(struct bare *bare);
/* One read, to its completion. */
int bare_read(struct bare *bare, size_t length);

#endif
