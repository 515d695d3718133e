// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_odp - get from another process: odp_get_4k, odp_get_1m against the bare RDMA read of as
 * many bytes, from memory that is registered and present; odp_*_cold, from memory that the
 * target has to fault in, against the same memory when it is there; odp_clients_4 and _16, so
 * many connections at a time against one.
 *
 * The other process is a forked child: a target, and a bare libfabric endpoint beside it. The
 * provider is tcp on the loopback: what a network card would do the CPUs do, for both.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/odp.h>

#include "bench.h"
#include "bench_fabric.h"

#define MEMORY ((size_t)16 << 20)
#define LARGE ((size_t)1 << 20)
#define CLIENTS 16u
#define FOR_CLIENTS 8u /* MiB, that all of them get together in a batch */

struct odp_bench {
	pid_t child;
	int control;
	char address[128], bare_address[128];
	struct odp_key key;
	uint64_t remote;
	struct bare bare;
	struct odp *odp[CLIENTS];
	char *buffer; /* for each client LARGE bytes */
	size_t length;
	unsigned clients;
};

/* ---- the other process ---- */

struct told {
	char address[128], bare_address[128];
	struct odp_key key;
	uint64_t remote, bare_key, bare_remote;
	int err;
};

static int child_open(struct told *told, char **memory, struct bare_server *bare)
{
	struct odp_target_options options = { .size = sizeof(options) };
	struct odp_target *target;
	struct odp_region *region;
	int err;

	*memory = bench_map(MEMORY);
	if (!*memory)
		return -ENOMEM;
	memset(*memory, 7, MEMORY);
	err = odp_target_open(&options, &target);
	if (!err)
		err = odp_region_create(target, 0, UINTPTR_MAX, ODP_READ, &region);
	if (err)
		return err;
	odp_region_key(region, &told->key);
	snprintf(told->address, sizeof(told->address), "%s", odp_target_address(target));
	told->remote = (uintptr_t)*memory;
	err = bare_listen(bare, told->bare_address, sizeof(told->bare_address));
	if (!err)
		err = bare_expose(bare, LARGE, &told->bare_remote, &told->bare_key);
	return err;
}

/* A byte on `control`: discard everything, and say when it is done. Its end: end. */
static void child_run(int control)
{
	struct told told = { .err = 0 };
	struct bare_server bare;
	char *memory, byte;

	told.err = child_open(&told, &memory, &bare);
	if (write(control, &told, sizeof(told)) != sizeof(told) || told.err)
		_exit(1);
	for (;;) {
		ssize_t n;

		bare_serve(&bare, control);
		n = recv(control, &byte, 1, MSG_DONTWAIT);
		if (!n)
			_exit(0);
		if (n < 0)
			continue;
		madvise(memory, MEMORY, MADV_DONTNEED);
		if (write(control, &byte, 1) != 1)
			_exit(1);
	}
}

static int child_start(struct odp_bench *b)
{
	int pair[2];
	struct told told;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		return -errno;
	b->child = fork();
	if (b->child < 0)
		return -errno;
	if (!b->child) {
		close(pair[0]);
		child_run(pair[1]);
	}
	close(pair[1]);
	b->control = pair[0];
	if (read(b->control, &told, sizeof(told)) != sizeof(told))
		return -EPIPE;
	if (told.err)
		return told.err;
	memcpy(b->address, told.address, sizeof(b->address));
	b->key = told.key;
	b->remote = told.remote;
	return bare_connect(&b->bare, told.bare_address, told.bare_remote, told.bare_key,
			    b->buffer, LARGE);
}

static int discard(struct odp_bench *b)
{
	char byte = 0;

	return write(b->control, &byte, 1) == 1 && read(b->control, &byte, 1) == 1 ? 0 : -EPIPE;
}

/* ---- rows ---- */

static int get_batch(void *arg, double *cost)
{
	struct odp_bench *b = arg;
	uint64_t start = tool_now();
	int err = odp_get(b->odp[0], &b->key, b->buffer, b->remote, b->length);

	*cost = (double)(tool_now() - start);
	return err;
}

static int bare_batch(void *arg, double *cost)
{
	struct odp_bench *b = arg;
	uint64_t start = tool_now();
	int err = bare_read(&b->bare, b->length);

	*cost = (double)(tool_now() - start);
	return err;
}

static int cold_batch(void *arg, double *cost)
{
	struct odp_bench *b = arg;
	int err = discard(b);

	return err ? err : get_batch(arg, cost);
}

static int warm_batch(void *arg, double *cost)
{
	double unused;
	int err = get_batch(arg, &unused);

	return err ? err : get_batch(arg, cost);
}

struct client {
	pthread_t thread;
	struct odp_bench *b;
	unsigned number, gets;
	int err;
};

static void *client_run(void *arg)
{
	struct client *c = arg;
	char *buffer = c->b->buffer + c->number * LARGE;

	for (unsigned i = 0; i < c->gets && !c->err; i++)
		c->err = odp_get(c->b->odp[c->number], &c->b->key, buffer, c->b->remote, LARGE);
	return NULL;
}

/* What a MiB costs when n share the work. */
static int shared_batch(struct odp_bench *b, unsigned n, double *cost)
{
	struct client client[CLIENTS];
	unsigned gets = FOR_CLIENTS > n ? FOR_CLIENTS / n : 1;
	uint64_t start = tool_now();
	int err = 0;

	for (unsigned i = 0; i < n; i++) {
		client[i] = (struct client){ .b = b, .number = i, .gets = gets };
		if (pthread_create(&client[i].thread, NULL, client_run, &client[i]))
			abort();
	}
	for (unsigned i = 0; i < n; i++) {
		pthread_join(client[i].thread, NULL);
		err = err ? err : client[i].err;
	}
	*cost = (double)(tool_now() - start) / (gets * n);
	return err;
}

static int many_batch(void *arg, double *cost)
{
	struct odp_bench *b = arg;

	return shared_batch(b, b->clients, cost);
}

static int one_batch(void *arg, double *cost)
{
	return shared_batch(arg, 1, cost);
}

static int open_all(struct odp_bench *b)
{
	int err;

	b->control = -1;
	b->buffer = bench_map(CLIENTS * LARGE);
	if (!b->buffer)
		return -ENOMEM;
	memset(b->buffer, 1, CLIENTS * LARGE);
	err = child_start(b);
	for (unsigned i = 0; i < CLIENTS && !err; i++)
		err = odp_connect(b->address, NULL, &b->odp[i]);
	return err;
}

static void close_all(struct odp_bench *b)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		odp_close(b->odp[i]);
	bare_disconnect(&b->bare);
	if (b->control >= 0)
		close(b->control);
	if (b->child > 0) {
		kill(b->child, SIGKILL);
		waitpid(b->child, NULL, 0);
	}
	if (b->buffer)
		munmap(b->buffer, CLIENTS * LARGE);
}

void bench_odp(struct bench *bench)
{
	static const struct bench_title bare[] = {
		{ "odp_get_4k", "ns", "fi_read of 4 KiB", NULL },
		{ "odp_get_1m", "ns", "fi_read of 1 MiB", NULL },
	};
	static const struct bench_title cold[] = {
		{ "odp_get_4k_cold", "ns", "the same, present", NULL },
		{ "odp_get_1m_cold", "ns", "the same, present", NULL },
	};
	static const struct bench_title clients[] = {
		{ "odp_clients_4", "ns/MiB", "one client", NULL },
		{ "odp_clients_16", "ns/MiB", "one client", NULL },
	};
	static const size_t lengths[] = { 4096, LARGE };
	struct odp_bench b = { 0 };
	int err = open_all(&b);

	if (err) {
		bench_skip(bench, "odp_get_4k", "%s", hmm_strerror(err));
		close_all(&b);
		return;
	}
	for (unsigned i = 0; i < 2; i++) {
		b.length = lengths[i];
		bench_pair(bench, &bare[i], get_batch, bare_batch, &b);
	}
	for (unsigned i = 0; i < 2; i++) {
		b.length = lengths[i];
		bench_pair(bench, &cold[i], cold_batch, warm_batch, &b);
	}
	for (unsigned i = 0; i < 2; i++) {
		b.clients = i ? 16 : 4;
		bench_pair(bench, &clients[i], many_batch, one_batch, &b);
	}
	close_all(&b);
}
