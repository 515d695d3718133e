/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * lock - the core's mutexes, ranked.
 *
 * Law: a thread takes locks in ascending rank only. Debug builds (no NDEBUG)
 * check it with a mask of held ranks per thread. The reader takes none (G6).
 *
 *	home        one mirror is made or ended at a time      (home.h)
 *	dma         what an I/O address space has mapped       (dma.h)
 *	register    registrations with userfaultfd             (register.c)
 *	side        draining the perf rings, pushing to the side queue
 *	notifiers   the tree of notifiers, their pins
 *	vmas        the map of registered VMAs
 *	regcache    what a registration cache has, and is making (regcache.h)
 *
 * No system call that can wait for a message to be read is made under any of
 * them, and no callback runs under any of them. (Under `dma` a back-end pins memory, which may wait
 * for the reader to fill a hole: it takes none.)
 */
#ifndef UHMM_CORE_LOCK_H
#define UHMM_CORE_LOCK_H

#include <assert.h>
#include <pthread.h>

enum lock_rank {
	LOCK_HOME = 1,
	LOCK_DMA,
	LOCK_REGISTER,
	LOCK_SIDE,
	LOCK_NOTIFIERS,
	LOCK_VMAS,
	LOCK_REGCACHE,
};

struct lock {
	pthread_mutex_t mutex;
	enum lock_rank rank;
};

extern __thread unsigned lock_held; /* bit of each rank this thread holds */

static inline void lock_init(struct lock *lock, enum lock_rank rank)
{
	pthread_mutex_init(&lock->mutex, NULL);
	lock->rank = rank;
}

static inline void lock_destroy(struct lock *lock)
{
	pthread_mutex_destroy(&lock->mutex);
}

static inline void lock_take(struct lock *lock)
{
	assert((lock_held >> lock->rank) == 0 && "locks are taken in ascending rank");
	pthread_mutex_lock(&lock->mutex);
	lock_held |= 1u << lock->rank;
}

static inline void lock_drop(struct lock *lock)
{
	lock_held &= ~(1u << lock->rank);
	pthread_mutex_unlock(&lock->mutex);
}

#endif
