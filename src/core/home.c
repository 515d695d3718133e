/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * home - one mirror for each process, and who is a forked child.
 *
 * What says "this process owns a mirror" lies in one MADV_WIPEONFORK page: a
 * child, made by fork() or by a raw clone() that no atfork handler hears of,
 * finds zeros there. So a parent's handle answers -ENODEV in the child, the lock
 * below is free in the child even if another thread of the parent held it, and
 * the child can open its own.
 *
 * The child's copies of our descriptors would let it probe the *parent's* memory
 * (probes/attacks/child_fd_probes_parent.c): nothing uses them after the check
 * of the cookie, and the atfork handler closes them.
 */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/pager.h"
#include "util/log.h"

struct home {
	_Atomic uint32_t lock; /* futex: 0 free, 1 held, 2 held and waited for */
	_Atomic uint64_t cookie;
	struct hmm *hmm;
};

static struct home *_Atomic home;
static struct hmm *last; /* survives fork: whose descriptors a child has copies of */
static bool child;	 /* of a process that had a mirror */
static pid_t opener;	 /* who opened last; under home's lock */
static uint64_t cookies;
static _Atomic bool atfork_set;

static struct home *home_get(void)
{
	struct home *mine = home, *none = NULL;

	if (mine)
		return mine;
	mine = mmap(NULL, OS_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (mine == MAP_FAILED)
		return NULL;
	if (madvise(mine, OS_PAGE_SIZE, MADV_WIPEONFORK) ||
	    arena_adopt((uintptr_t)mine, (uintptr_t)mine + OS_PAGE_SIZE)) {
		munmap(mine, OS_PAGE_SIZE);
		return NULL;
	}
	if (!atomic_compare_exchange_strong(&home, &none, mine)) {
		arena_disown((uintptr_t)mine, (uintptr_t)mine + OS_PAGE_SIZE);
		munmap(mine, OS_PAGE_SIZE);
		mine = none;
	}
	return mine;
}

/* A futex lock whose free state is zero, as the wiped page is. Rank: home. */
static void home_lock(struct home *h)
{
	uint32_t was = 0;

	if (atomic_compare_exchange_strong(&h->lock, &was, 1))
		return;
	while (atomic_exchange(&h->lock, 2) != 0)
		os_live()->wait((const uint32_t *)&h->lock, 2, 0);
}

static void home_unlock(struct home *h)
{
	if (atomic_exchange(&h->lock, 0) == 2)
		os_live()->wake((const uint32_t *)&h->lock);
}

static bool home_owns(const struct hmm *hmm)
{
	const struct home *h = home;

	return h && hmm->cookie && h->cookie == hmm->cookie;
}

/* In a child: nothing of the parent's mirror is ours but copies of descriptors and memory. */
static void child_forget(void)
{
	child = true;
	arena_disown_gone();
	if (!last)
		return;
	for (unsigned i = 0; i <= CONTEXTS; i++)
		last->os->ctx_forget(&last->os_ctx[i]);
	last->os->mm_close(&last->mm);
	last = NULL;
}

/* Whose pages are at home during a fork. A reference, so that it does not end meanwhile. */
static __thread struct hmm *forking;

static void before_fork(void)
{
	struct home *h = home;

	if (!h)
		return;
	home_lock(h);
	forking = h->hmm ? hmm_get(h->hmm) : NULL;
	home_unlock(h);
	if (forking)
		fork_prepare(forking);
}

static void parent_after_fork(void)
{
	struct hmm *hmm = forking;

	if (!hmm)
		return;
	forking = NULL;
	fork_done(hmm);
	hmm_put(hmm);
}

static void child_after_fork(void)
{
	forking = NULL;
	callback_forget();
	child_forget();
}

int hmm_check(struct hmm *hmm)
{
	if (!hmm)
		return error_say(-EINVAL, "the handle is NULL");
	if (hmm->mm.pid)
		return 0;
	if (hmm->dead)
		return error_say(-ENODEV,
				 "the mirror is dead: its descriptors were closed (closefrom?); "
				 "drop it with hmm_put() and hmm_open() a new one");
	if (!home_owns(hmm))
		return error_say(-ENODEV, "this process is a forked child: hmm_open() gives it a "
					  "mirror of its own");
	return 0;
}

int hmm_check_sleep(struct hmm *hmm)
{
	int err = hmm_check(hmm);

	if (err)
		return err;
	if (hmm->mm.pid)
		return error_say(-EOPNOTSUPP, "an attached process can be looked at and copied "
					      "only: its changes are not reported to us");
	if (in_callback())
		return error_say(-EDEADLK, "this call waits for callbacks, and was made inside "
					   "one: hand it to a thread of yours");
	return 0;
}

void home_adopt(struct hmm *hmm)
{
	struct home *h = home_get();

	assert(h);
	hmm->pid = getpid();
	hmm->cookie = ((uint64_t)hmm->pid << 32) | (++cookies & 0xffffffff);
	h->cookie = hmm->cookie;
	h->hmm = hmm;
}

static int open_first(struct hmm **out)
{
	struct hmm *hmm;
	int err;

	if (opener && opener != getpid()) /* a clone() that called no handler */
		child_forget();
	opener = getpid();
	err = mirror_create(os_live(), &hmm);
	if (err)
		return err;
	hmm->after_fork = child;
	home_adopt(hmm);
	last = hmm;
	*out = hmm;
	return 0;
}

int hmm_open(struct hmm **out)
{
	struct home *h;
	int err = 0;

	if (!out)
		return error_say(-EINVAL, "nowhere to put the handle");
	if (in_callback())
		return error_say(-EDEADLK, "hmm_open() inside a callback: use hmm_get()");
	h = home_get();
	if (!h)
		return -ENOMEM;
	if (!atomic_exchange(&atfork_set, true))
		pthread_atfork(before_fork, parent_after_fork, child_after_fork);
	home_lock(h);
	/* A dead mirror stays its holders'; a new opener gets a new one. */
	if (h->hmm && !h->hmm->dead)
		*out = hmm_get(h->hmm);
	else
		err = open_first(out);
	home_unlock(h);
	return err;
}

struct hmm *hmm_get(struct hmm *hmm)
{
	if (hmm)
		atomic_fetch_add(&hmm->refs, 1);
	return hmm;
}

/* Under home's lock still, which has no owner: who opens the next mirror, and faults, must
 * not find mappings that are registered with this one. */
static void *end(void *hmm)
{
	mirror_destroy(hmm);
	home_unlock(home);
	return NULL;
}

void hmm_put(struct hmm *hmm)
{
	struct home *h = home;

	if (!hmm)
		return;
	if (hmm->mm.pid) {
		if (atomic_fetch_sub(&hmm->refs, 1) == 1)
			mirror_destroy(hmm);
		return;
	}
	/* In a child there is nothing to end. (Home's cookie does not tell: a mirror that
	 * died may have been replaced there.) */
	if (hmm->pid != getpid())
		return;
	home_lock(h);
	if (atomic_fetch_sub(&hmm->refs, 1) != 1) {
		home_unlock(h);
		return;
	}
	if (h->hmm == hmm) {
		h->hmm = NULL;
		h->cookie = 0;
	}
	if (last == hmm)
		last = NULL;
	if (!in_callback()) {
		end(hmm);
	} else if (hmm->os->run_detached(end, hmm)) {
		home_unlock(h);
		/* The worker cannot wait for its own end, so it goes on with nobody to tell. */
		hmm_log(HMM_LOG_WARN, "no thread to end the mirror with: it stays open");
	}
}

pid_t hmm_pid(void)
{
	return getpid();
}
