// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * against_libfabric - `uhmm-against-libfabric memhooks|uffd ROUNDS`: a column, on standard
 * output.
 *
 * Linked with Debian's libfabric.a, whose monitors are global symbols there; with the lock
 * that they are under in the library, and the small cache in the place of its cache. What
 * is known here of 1.17's insides is the order of the first members of a monitor. The
 * linker's --wrap sends ofi_mr_cache_notify(), which a monitor calls for each cache on its
 * list, to us.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "against.h"

struct node {
	struct node *next, *prev;
};

struct fi_monitor {
	struct node caches;
	int iface, state;
	void (*init)(struct fi_monitor *monitor);
	void (*cleanup)(struct fi_monitor *monitor);
	int (*start)(struct fi_monitor *monitor);
	void (*stop)(struct fi_monitor *monitor);
	int (*subscribe)(struct fi_monitor *monitor, const void *addr, size_t length,
			 void *info);
	void (*unsubscribe)(struct fi_monitor *monitor, const void *addr, size_t length,
			    void *info);
	bool (*valid)(struct fi_monitor *monitor, const void *addr, size_t length,
		      void *info);
};

extern pthread_mutex_t mm_lock;
extern struct fi_monitor *memhooks_monitor, *uffd_monitor;
void ofi_mem_init(void);
uint32_t fi_version(void);
void __wrap_ofi_mr_cache_notify(void *cache, const void *addr, size_t length);

static int subscribe(void *monitor, const void *addr, size_t length)
{
	struct fi_monitor *m = monitor;

	return m->subscribe(m, addr, length, NULL);
}

static bool valid(void *monitor, const void *addr, size_t length)
{
	struct fi_monitor *m = monitor;

	return m->valid(m, addr, length, NULL);
}

static struct against_cache cache = {
	.lock = &mm_lock,
	.subscribe = subscribe,
	.valid = valid,
};

void __wrap_ofi_mr_cache_notify(void *unused, const void *addr, size_t length)
{
	against_cache_notify(&cache, addr, length);
}

static struct fi_monitor *chosen;

static int open_monitor(char *why, size_t size)
{
	static struct node
		entry; /* stands for a cache: only its place on the list is used */
	uint32_t version = fi_version();
	int err;

	if (version != (1u << 16 | 17)) {
		snprintf(why, size, "libfabric.a is %u.%u, and what is known is 1.17", version >> 16,
			 version & 0xffff);
		return -EOPNOTSUPP;
	}
	entry.next = entry.prev = &chosen->caches;
	chosen->caches.next = chosen->caches.prev = &entry;
	cache.monitor = chosen;
	err = chosen->start(chosen);
	if (err)
		snprintf(why, size, "libfabric: start: %s", strerror(-err));
	return err ? -EOPNOTSUPP : 0;
}

static int lookup(char *addr, size_t length, uint64_t *serial)
{
	return against_cache_lookup(&cache, addr, length, serial);
}

static void forget(char *addr, size_t length)
{
	pthread_mutex_lock(&mm_lock);
	against_cache_notify(&cache, addr, length);
	pthread_mutex_unlock(&mm_lock);
}

int main(int argc, char **argv)
{
	struct against_peer peer = { .open = open_monitor,
				     .lookup = lookup,
				     .forget = forget };
	struct against_cells cells = { .err = 0 };

	if (argc != 3)
		return 2;
	ofi_mem_init(); /* page sizes, and the monitors' init */
	chosen = strcmp(argv[1], "uffd") ? memhooks_monitor : uffd_monitor;
	against_run(&peer, strtoull(argv[2], NULL, 10), &cells, NULL);
	return write(STDOUT_FILENO, &cells, sizeof(cells)) != sizeof(cells);
}
