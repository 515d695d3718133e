// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_against_ucx - UCX's registration cache, and four who tell it of changes.
 *
 * libucs is loaded, not linked: it patches libc as it is loaded, so each column is a
 * process of its own and the tool itself stays clean. The cache is the real one; what it
 * registers is a serial.
 *
 * naive: a thread that reads a userfaultfd and then tells. The kernel has let the unmapper
 * go by then, so it is too late by construction (docs/gate.md); how often is what is
 * counted.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "litmus_against.h"

#ifdef HAVE_UCX

#include <linux/userfaultfd.h>
#include <ucm/api/ucm.h>
#include <ucs/memory/rcache.h>
#include <uhmm/ucxmon.h>

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

struct region {
	ucs_rcache_region_t super;
	uint64_t serial;
};

static struct {
	ucs_status_t (*create)(const ucs_rcache_params_t *params, const char *name,
			       ucs_stats_node_t *stats, ucs_rcache_t **rcache);
	ucs_status_t (*get)(ucs_rcache_t *rcache, void *address, size_t length, int prot,
			    void *arg, ucs_rcache_region_t **region);
	void (*put)(ucs_rcache_t *rcache, ucs_rcache_region_t *region);
	void (*vm_munmap)(void *addr, size_t length);
	ucs_rcache_t *rcache;
	uint64_t serials;
	int uffd;
	bool monitored; /* ucxmon is installed */
} u = { .uffd = -1 };

/* What the column's monitor wants of a region that is about to be registered. */
static int watch(const ucs_rcache_region_t *region)
{
	uintptr_t start = region->super.start & ~4095ul;
	size_t length = ((region->super.end + 4095) & ~4095ul) - start;
	struct uffdio_register wp = { .range = { start, length },
				      .mode = UFFDIO_REGISTER_MODE_WP };

	if (u.monitored)
		return ucxmon_watch((void *)start, length);
	if (u.uffd >= 0 && ioctl(u.uffd, UFFDIO_REGISTER, &wp))
		return -errno;
	return 0;
}

static ucs_status_t mem_reg(void *context, ucs_rcache_t *rcache, void *arg,
			    ucs_rcache_region_t *region, uint16_t flags)
{
	/* What cannot be watched (PROT_NONE) is registered all the same: as UCX would. */
	watch(region);
	((struct region *)region)->serial = ++u.serials;
	return UCS_OK;
}

static void mem_dereg(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region)
{
}

static void dump_region(void *context, ucs_rcache_t *rcache, ucs_rcache_region_t *region,
			char *buf, size_t max)
{
	snprintf(buf, max, "%llu", (unsigned long long)((struct region *)region)->serial);
}

static const ucs_rcache_ops_t ops = {
	.mem_reg = mem_reg,
	.mem_dereg = mem_dereg,
	.dump_region = dump_region,
};

static int load(char *why, size_t size)
{
	void *library = dlopen("libucs.so.0", RTLD_NOW);

	if (!library) {
		snprintf(why, size, "%s", dlerror());
		return -EOPNOTSUPP;
	}
	*(void **)&u.create = dlsym(library, "ucs_rcache_create");
	*(void **)&u.get = dlsym(library, "ucs_rcache_get");
	*(void **)&u.put = dlsym(library, "ucs_rcache_region_put");
	*(void **)&u.vm_munmap = dlsym(library, "ucm_vm_munmap");
	if (u.create && u.get && u.put && u.vm_munmap)
		return 0;
	snprintf(why, size, "libucs.so.0 has no ucs_rcache_create and so on");
	return -EOPNOTSUPP;
}

static int make_cache(char *why, size_t size)
{
	ucs_rcache_params_t params = {
		.region_struct_size = sizeof(struct region),
		.alignment = 64,
		.max_alignment = 4096,
		.ucm_events = UCM_EVENT_VM_UNMAPPED,
		.ucm_event_priority = 1000,
		.ops = &ops,
		.flags = UCS_RCACHE_FLAG_NO_PFN_CHECK,
		.max_regions = ULONG_MAX,
		.max_size = SIZE_MAX,
		.max_unreleased = SIZE_MAX,
	};
	ucs_status_t status = u.create(&params, "against", NULL, &u.rcache);

	if (status == UCS_OK)
		return 0;
	snprintf(why, size, "ucs_rcache_create: %d", status);
	return -EIO;
}

static int open_cache(char *why, size_t size)
{
	int err = load(why, size);

	return err ? err : make_cache(why, size);
}

int against_ucx_open_cache(char *why, size_t size)
{
	int err = load(why, size);

	if (!err) {
		err = ucxmon_install();
		if (err)
			snprintf(why, size, "ucxmon: %s", hmm_strerror(err));
	}
	u.monitored = !err;
	return err ? err : make_cache(why, size);
}

static void tell(const struct uffd_msg *message)
{
	uintptr_t start = message->arg.remove.start, end = message->arg.remove.end;

	if (message->event == UFFD_EVENT_REMAP) {
		start = message->arg.remap.from;
		end = start + message->arg.remap.len;
	}
	u.vm_munmap((void *)start, end - start);
}

static void *reader(void *arg)
{
	struct pollfd fds = { .fd = u.uffd, .events = POLLIN };
	struct uffd_msg message;

	for (;;) {
		poll(&fds, 1, -1);
		if (read(u.uffd, &message, sizeof(message)) == sizeof(message))
			tell(&message);
	}
	return NULL;
}

static int open_naive(char *why, size_t size)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMOVE |
			    UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_WP_UNPOPULATED |
			    UFFD_FEATURE_WP_ASYNC,
	};
	pthread_t thread;
	int err = load(why, size);

	if (err)
		return err;
	u.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (u.uffd < 0 || ioctl(u.uffd, UFFDIO_API, &api)) {
		snprintf(why, size, "userfaultfd: %s", strerror(errno));
		return -EOPNOTSUPP;
	}
	err = -pthread_create(&thread, NULL, reader, NULL);
	return err ? err : make_cache(why, size);
}

static int get_put(char *addr, size_t length, uint64_t *serial)
{
	ucs_rcache_region_t *region;
	ucs_status_t status =
		u.get(u.rcache, addr, length, PROT_READ | PROT_WRITE, NULL, &region);

	if (status != UCS_OK)
		return -EIO;
	*serial = ((struct region *)region)->serial;
	u.put(u.rcache, region);
	return 0;
}

int against_ucx_get_put(char *addr, size_t length)
{
	uint64_t serial;

	return get_put(addr, length, &serial);
}

static int fenced(char *addr, size_t length, uint64_t *serial)
{
	int err = ucxmon_fence(addr, length);

	return err ? err : get_put(addr, length, serial);
}

int against_ucx_fenced(char *addr, size_t length)
{
	uint64_t serial;

	return fenced(addr, length, &serial);
}

static void forget(char *addr, size_t length)
{
	u.vm_munmap(addr, length);
}

const struct against_peer against_ucx_peers[] = {
	{ .name = "ucx",
	  .family = "ucx",
	  .what = "UCX's cache with its own hooks",
	  .open = open_cache,
	  .lookup = get_put,
	  .forget = forget },
	{ .name = "ucx+naive",
	  .family = "ucx",
	  .what = "and a thread that reads a userfaultfd, then tells it",
	  .open = open_naive,
	  .lookup = get_put,
	  .forget = forget },
	{ .name = "ucx+mon-late",
	  .family = "ucx",
	  .what = "and ucxmon, without a fence before the lookup",
	  .open = against_ucx_open_cache,
	  .lookup = get_put,
	  .forget = forget },
	{ .name = "ucx+ucxmon",
	  .family = "ucx",
	  .what = "and ucxmon, with it",
	  .ours = true,
	  .open = against_ucx_open_cache,
	  .lookup = fenced,
	  .forget = forget },
	{ .name = NULL },
};

#else /* HAVE_UCX */

static int absent(char *why, size_t size)
{
	snprintf(why, size, "uhmm was built without UCX's headers");
	return -EOPNOTSUPP;
}

int against_ucx_open_cache(char *why, size_t size)
{
	return absent(why, size);
}

int against_ucx_get_put(char *addr, size_t length)
{
	return -EOPNOTSUPP;
}

int against_ucx_fenced(char *addr, size_t length)
{
	return -EOPNOTSUPP;
}

const struct against_peer against_ucx_peers[] = {
	{ .name = "ucx", .family = "ucx", .what = "UCX's cache", .open = absent },
	{ .name = NULL },
};

#endif
