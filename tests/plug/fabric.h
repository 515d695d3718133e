/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fabric - the far side of fabricmon's contract: what libfabric's cache does, with its lock
 * in the test's hands.
 */
#ifndef PLUG_FABRIC_H
#define PLUG_FABRIC_H

#include <pthread.h>
#include <stdatomic.h>

#include <rdma/fi_ext.h>
#include <uhmm/fabricmon.h>

#include "live.h"
#include "raw.h"

/* As libfabric's: held by whoever calls subscribe or valid, taken by notify. */
extern pthread_mutex_t mm_lock;
extern atomic_int waiting; /* notifies that have begun and not got the lock */
extern atomic_uint told;   /* that have had it */

/* A start with a fake import side; PASS. */
enum verdict fabric_start(void);
/* The operations, under the lock. */
int fabric_subscribe(const void *addr, size_t length);
bool fabric_valid(const void *addr, size_t length);
/* Nothing that was notified overlaps it since fabric_subscribe(). */
bool fabric_kept(const void *addr);

/* fabric_cases.c */
enum verdict lock_is_held(const void *arg);
enum verdict other_callback(const void *arg);
enum verdict many_pending(const void *arg);

#endif
