/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* limits - the cases of test_limits, by what they are about; each runs once a driver. */
#ifndef LIVE_LIMITS_H
#define LIVE_LIMITS_H

#include <signal.h>

#include "devices.h"
#include "live.h"

#define LPAGE ((size_t)4096)
#define LRW (PROT_READ | PROT_WRITE)

typedef enum verdict limit_fn(const struct driver *driver);

/* limits_map.c: changes that are silent, out of order, or did not happen */
limit_fn limit_shmdt, limit_clone_vm_killed, limit_guard, limit_sealed, limit_no_room,
	limit_order_remap, limit_order_fork, limit_whole_mremap, limit_first_touch,
	limit_replaced;
/* limits_prot.c: permissions, and accesses that run */
limit_fn limit_perf_overflow, limit_older_thread, limit_clone_vm_protects,
	limit_protect_running, limit_unmap_running;
/* limits_fork.c: children, and descriptors that are taken away */
limit_fn limit_fork, limit_raw_clone, limit_child_lives_on, limit_closefrom,
	limit_numbers_reused;
/* limits_uffd.c: what cannot be mirrored */
limit_fn limit_own_userfaultfd, limit_read_only_file;

/* A device, and memory that it has written: byte i of page p is p + 1. */
enum verdict warm_pages(const struct driver *driver, struct device *dev, char *at,
			size_t pages);
/* After a fence: no translation of the page lets the device write (or, `gone`, be used). */
enum verdict not_writable(struct device *dev, const char *at);
enum verdict not_translated(struct device *dev, const char *at);
/* A child that shares our memory without being a thread of ours; its stack is new. */
pid_t clone_vm(int (*fn)(void *arg), void *arg);

#endif
