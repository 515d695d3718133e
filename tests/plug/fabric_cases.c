/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* fabric_cases - locks: who holds mm_lock waits for nobody who wants it (F2). */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fabric.h"

#define RANGES 1000u

static void await(atomic_int *what, int at_least)
{
	while (atomic_load(what) < at_least)
		usleep(100);
}

static void *fence_all(void *hmm)
{
	return (void *)(intptr_t)hmm_fence(hmm, 0, UINTPTR_MAX);
}

/*
 * Placed: the lock is held, the change has been read, notify has begun and wants the lock.
 * What the holder calls must come back, and a fence of somebody else too.
 */
enum verdict lock_is_held(const void *arg)
{
	char *changed = live_map(SIZE, PROT_READ | PROT_WRITE);
	char *other = live_map(SIZE, PROT_READ | PROT_WRITE);
	struct fid_mem_monitor *m = fabricmon_monitor();
	struct hmm *hmm;
	pthread_t thread;
	void *fenced;
	uint64_t began;

	TRY(fabric_start());
	EXPECT(0, hmm_open(&hmm));
	EXPECT(0, fabric_subscribe(changed, SIZE));
	for (int i = 0; i < 200; i++) {
		pthread_mutex_lock(&mm_lock);
		SYS(syscall(SYS_munmap, changed, SIZE));
		await(&waiting, 1);
		began = live_now_ns();
		CHECK(!m->export_ops->valid(m, changed, SIZE), "what is gone is valid");
		EXPECT(0, m->export_ops->subscribe(m, other, SIZE));
		CHECK(m->export_ops->valid(m, other, SIZE),
		      "what is unchanged is not valid");
		EXPECT(0, pthread_create(&thread, NULL, fence_all, hmm));
		EXPECT(0, pthread_join(thread, &fenced));
		EXPECT(0, (intptr_t)fenced);
		CHECK(live_now_ns() - began < 2000000000u, "it waited");
		pthread_mutex_unlock(&mm_lock);
		while (atomic_load(&waiting))
			usleep(100);
		CHECK(mmap(changed, SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
			   0) == changed,
		      "mmap");
		EXPECT(0, fabric_subscribe(changed, SIZE));
	}
	m->export_ops->stop(m);
	hmm_put(hmm);
	return PASS;
}

static atomic_int in_callback;

/* Another driver, whose deregistration closes an object of libfabric. */
static void takes_the_lock(void *priv, const struct hmm_event *event)
{
	atomic_fetch_add(&in_callback, 1);
	pthread_mutex_lock(&mm_lock);
	pthread_mutex_unlock(&mm_lock);
	atomic_fetch_sub(&in_callback, 1);
}

/* So the worker itself waits for the holder: subscribe gives up in time, valid says no. */
enum verdict other_callback(const void *arg)
{
	static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
						     .invalidate = takes_the_lock };
	char *changed = live_map(SIZE, PROT_READ | PROT_WRITE);
	char *other = live_map(SIZE, PROT_READ | PROT_WRITE);
	struct fid_mem_monitor *m = fabricmon_monitor();
	struct hmm_notifier *notifier;
	struct hmm *hmm;

	TRY(fabric_start());
	EXPECT(0, hmm_open(&hmm));
	EXPECT(0,
	       hmm_notifier_insert(hmm, (uintptr_t)changed, SIZE, &ops, NULL, &notifier));
	for (int i = 0; i < 5; i++) {
		uint64_t began;

		EXPECT(0, fabric_subscribe(changed, SIZE));
		EXPECT(0, fabric_subscribe(other, SIZE));
		pthread_mutex_lock(&mm_lock);
		SYS(syscall(SYS_madvise, changed, SIZE, MADV_DONTNEED));
		await(&in_callback, 1);
		began = live_now_ns();
		CHECK(!m->export_ops->valid(m, changed, SIZE), "what is gone is valid");
		/* Of the same context, so not quiet: false is the only safe answer, or
		 * true. */
		m->export_ops->valid(m, other, SIZE);
		EXPECT(-EAGAIN, m->export_ops->subscribe(m, changed, SIZE));
		EXPECT(-EAGAIN, m->export_ops->subscribe(m, changed, SIZE));
		CHECK(live_now_ns() - began < 2000000000u, "it waited");
		pthread_mutex_unlock(&mm_lock);
		while (atomic_load(&in_callback) || atomic_load(&waiting))
			usleep(100);
	}
	EXPECT(0, fabric_subscribe(changed, SIZE));
	hmm_notifier_remove(notifier);
	m->export_ops->stop(m);
	hmm_put(hmm);
	return PASS;
}

/* More changes than there is room for while notify waits: none is lost. */
enum verdict many_pending(const void *arg)
{
	struct fid_mem_monitor *m = fabricmon_monitor();
	char *memory[RANGES];
	struct hmm *hmm;

	TRY(fabric_start());
	EXPECT(0, hmm_open(&hmm));
	for (unsigned i = 0; i < RANGES; i++) {
		memory[i] = live_map(SIZE, PROT_READ | PROT_WRITE);
		EXPECT(0, fabric_subscribe(memory[i], SIZE));
	}
	pthread_mutex_lock(&mm_lock);
	for (unsigned i = 0; i < RANGES; i++)
		SYS(syscall(SYS_munmap, memory[i], SIZE));
	EXPECT(0, hmm_fence(hmm, 0, UINTPTR_MAX));
	for (unsigned i = 0; i < RANGES; i++)
		CHECK(!m->export_ops->valid(m, memory[i], SIZE), "range %u is valid", i);
	pthread_mutex_unlock(&mm_lock);
	/* Stopping waits for the one that is being told, so ask first. */
	for (unsigned i = 0; i < 10000 && atomic_load(&told) < 2; i++)
		usleep(1000);
	for (unsigned i = 0; i < RANGES; i++)
		for (unsigned tries = 0; fabric_kept(memory[i]); tries++) {
			CHECK(tries < 5000, "range %u was not told", i);
			usleep(1000);
		}
	m->export_ops->stop(m);
	hmm_put(hmm);
	return PASS;
}
