/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of fabricmon - the other side of the contract in a page: a cache of one entry
 * under a lock of its own, as libfabric's under mm_lock.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <uhmm/driver.h>

#include "fabricmon_private.h"

#define SIZE 65536ul
#define ROUNDS 2000
#define TRIES 100000

static pthread_mutex_t mm_lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t cached; /* address, or 0 */

static void notify(struct fid_mem_monitor *monitor, const void *addr, size_t length)
{
	pthread_mutex_lock(&mm_lock);
	if (cached < (uintptr_t)addr + length && (uintptr_t)addr < cached + SIZE)
		cached = 0;
	pthread_mutex_unlock(&mm_lock);
}

/* 1: served from the cache; 0: entered anew; -errno. */
static int lookup(struct fid_mem_monitor *monitor, char *memory)
{
	int err = 0;

	pthread_mutex_lock(&mm_lock);
	if (cached == (uintptr_t)memory &&
	    monitor->export_ops->valid(monitor, memory, SIZE)) {
		pthread_mutex_unlock(&mm_lock);
		return 1;
	}
	cached = (uintptr_t)memory;
	err = monitor->export_ops->subscribe(monitor, memory, SIZE);
	if (err)
		cached = 0;
	pthread_mutex_unlock(&mm_lock);
	return err;
}

static int raw_again(char *memory)
{
	long got;

	if (syscall(SYS_munmap, memory, SIZE))
		return -errno;
	got = syscall(SYS_mmap, memory, SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	return got == (long)memory ? 0 : -ENOMEM;
}

/* Until it is kept: what is told late of the round before takes an entry away. */
static int lookup_again(struct fid_mem_monitor *monitor, char *memory)
{
	for (unsigned tries = 0; tries < TRIES; tries++) {
		int err = lookup(monitor, memory);

		if (err < 0)
			return err;
		if (err == 1)
			return 0;
		sched_yield();
	}
	return -EAGAIN; /* a cache that keeps nothing */
}

static int rounds(struct fid_mem_monitor *monitor, char *memory, char *why, size_t size)
{
	unsigned stale = 0;

	for (unsigned i = 0; i < ROUNDS; i++) {
		int err = lookup_again(monitor, memory);

		if (!err)
			err = raw_again(memory);
		if (err) {
			snprintf(why, size, "round %u: %s", i, hmm_strerror(err));
			return err;
		}
		stale += lookup(monitor, memory) == 1;
	}
	snprintf(why, size, "%u of %u stale after raw munmap", stale, ROUNDS);
	return stale ? -EIO : 0;
}

static int selftest(char *why, size_t size)
{
	static struct fi_ops_mem_notify import = { .size = sizeof(import),
						   .notify = notify };
	struct fid_mem_monitor *monitor = fabricmon_monitor();
	char *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	int err;

	if (memory == MAP_FAILED)
		return -ENOMEM;
	monitor->import_ops = &import;
	err = monitor->export_ops->start(monitor);
	if (!err) {
		err = rounds(monitor, memory, why, size);
		monitor->export_ops->stop(monitor);
	}
	munmap(memory, SIZE);
	return err;
}

extern const struct uhmm_driver uhmm_driver_fabricmon;
const struct uhmm_driver uhmm_driver_fabricmon = {
	.name = "fabricmon",
	.stands_for = "libfabric's memory monitors, kdreg2",
	.what = "a memory monitor for an unmodified libfabric",
	.usable = uhmm_driver_needs_mirror,
	.selftest = selftest,
};
