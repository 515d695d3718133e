// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_against_fabric - monitors of libfabric's kind, asked by a small cache
 * (against_cache.c).
 *
 * No provider uses libfabric's own cache without hardware, and Debian's shared library does
 * not export it. Its two monitors are in the static library: `uhmm-against-libfabric`, a
 * program beside this one, has them and is run for their columns.
 */
#include <errno.h>
#include <stdio.h>

#include "litmus_against.h"

#define LIBFABRIC(monitor, says)                                                           \
	{                                                                                  \
		.name = "fi-" monitor, .family = "libfabric", .what = says,                \
		.program = monitor                                                         \
	}

#ifdef HAVE_LIBFABRIC

#include <rdma/fi_ext.h>
#include <uhmm/fabricmon.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int subscribe(void *monitor, const void *addr, size_t length)
{
	struct fid_mem_monitor *m = monitor;

	return m->export_ops->subscribe(m, addr, length);
}

static bool valid(void *monitor, const void *addr, size_t length)
{
	struct fid_mem_monitor *m = monitor;

	return m->export_ops->valid(m, addr, length);
}

static struct against_cache cache = { .lock = &lock,
				      .subscribe = subscribe,
				      .valid = valid };

static void notify(struct fid_mem_monitor *monitor, const void *addr, size_t length)
{
	pthread_mutex_lock(&lock);
	against_cache_notify(&cache, addr, length);
	pthread_mutex_unlock(&lock);
}

static int open_fabricmon(char *why, size_t size)
{
	static struct fi_ops_mem_notify import = { .size = sizeof(import),
						   .notify = notify };
	struct fid_mem_monitor *monitor = fabricmon_monitor();
	int err;

	monitor->import_ops = &import;
	cache.monitor = monitor;
	err = monitor->export_ops->start(monitor);
	if (err)
		snprintf(why, size, "fabricmon: %s", hmm_strerror(err));
	return err;
}

static int lookup(char *addr, size_t length, uint64_t *serial)
{
	return against_cache_lookup(&cache, addr, length, serial);
}

static void forget(char *addr, size_t length)
{
	notify(NULL, addr, length);
}

const struct against_peer against_fabric_peers[] = {
	LIBFABRIC("memhooks", "libfabric's monitor that patches libc"),
	LIBFABRIC("uffd", "libfabric's monitor that reads a userfaultfd"),
	{ .name = "fabricmon",
	  .family = "libfabric",
	  .what = "our monitor in their place",
	  .ours = true,
	  .open = open_fabricmon,
	  .lookup = lookup,
	  .forget = forget },
	{ .name = NULL },
};

#else /* HAVE_LIBFABRIC */

const struct against_peer against_fabric_peers[] = {
	LIBFABRIC("memhooks", "libfabric's monitor that patches libc"),
	LIBFABRIC("uffd", "libfabric's monitor that reads a userfaultfd"),
	{ .name = NULL },
};

#endif
