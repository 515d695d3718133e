/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ucxmon - an event source of UCM (ucm/api/ucm.h), which is looked up when it is needed:
 * the program may have loaded it privately, and libucs patches libc, so we are not what
 * loads it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <ucm/api/ucm.h>

#include "../watch/watch.h"
#include "ucxmon_private.h"

/* Nothing of a process lies above it, and UCX's page tables count no further. */
#define ADDRESS_MAX (UINT64_C(1) << 47)

struct source ucxmon;
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;

static void tell(struct source *s, uintptr_t start, uintptr_t end)
{
	if (end > ADDRESS_MAX)
		end = ADDRESS_MAX;
	if (start < end)
		s->vm_munmap((void *)start, end - start);
	atomic_fetch_add(&s->events, 1);
}

/* The caches do not wait for who uses a region: it is deregistered at the last put. */
static void invalidate(void *priv, const struct hmm_event *event)
{
	/* What is registered is pinned; of a pinned page the child gets the copy. */
	if (event->kind != HMM_EVENT_FORK)
		tell(priv, event->start, event->end);
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
					     .invalidate = invalidate };

static bool hooks_are_off(void)
{
	const char *mode = getenv("UCX_MEM_MMAP_HOOK_MODE"),
		   *events = getenv("UCX_MEM_EVENTS");

	return (mode && !strcasecmp(mode, "none")) ||
	       (events && (*events == 'n' || *events == 'N' || *events == '0'));
}

static int find_ucm(struct source *s)
{
	void *library = dlopen("libucm.so.0", RTLD_LAZY);
	void (*set_external)(int events);

	if (!library)
		return -ENOSYS;
	s->vm_munmap = (void (*)(void *, size_t))dlsym(library, "ucm_vm_munmap");
	set_external = (void (*)(int))dlsym(library, "ucm_set_external_event");
	if (!s->vm_munmap || !set_external)
		return -ENOSYS;
	if (hooks_are_off())
		set_external(UCM_EVENT_VM_UNMAPPED);
	return 0;
}

static int install(struct source *s)
{
	struct hmm *hmm;
	int err = find_ucm(s);

	if (!err)
		err = hmm_open(&hmm);
	if (err)
		return err;
	err = hmm_notifier_insert(hmm, 0, UINTPTR_MAX, &ops, s, &s->notifier);
	if (err) {
		hmm_put(hmm);
		return err;
	}
	s->owner = getpid();
	s->hmm = hmm;
	return 0;
}

int ucxmon_install(void)
{
	int err;

	pthread_mutex_lock(&install_lock);
	err = ucxmon.hmm ? 0 : install(&ucxmon);
	pthread_mutex_unlock(&install_lock);
	return err;
}

void ucxmon_remove(void)
{
	pthread_mutex_lock(&install_lock);
	if (ucxmon.hmm) {
		hmm_notifier_remove(ucxmon.notifier);
		hmm_put(ucxmon.hmm);
		ucxmon.hmm = NULL;
	}
	pthread_mutex_unlock(&install_lock);
}

int ucxmon_watch(const void *addr, size_t length)
{
	struct source *s = &ucxmon;
	int err = s->hmm ? watch_range(s->hmm, s->notifier, (uintptr_t)addr, length)
			 : -ENODEV;

	if (!err)
		atomic_fetch_add(&s->watched, 1);
	return err;
}

int ucxmon_fence(const void *addr, size_t length)
{
	struct source *s = &ucxmon;
	uintptr_t start = (uintptr_t)addr;
	int err = s->hmm ? hmm_fence(s->hmm, start, length) : -ENODEV;

	atomic_fetch_add(&s->fenced, 1);
	/* Nobody tells us any more: a cache that keeps nothing is right. Not a child's
	 * affair. */
	if (err == -ENODEV && s->hmm && s->owner == getpid()) {
		tell(s, start, start + length);
		err = 0;
	}
	return err;
}

int ucxmon_get_stats(struct ucxmon_stats *stats)
{
	const struct source *s = &ucxmon;
	struct ucxmon_stats all = {
		.size = stats->size,
		.events = s->events,
		.watched = s->watched,
		.unwatched = s->unwatched,
		.fenced = s->fenced,
	};

	if (stats->size > sizeof(all))
		return -E2BIG;
	memcpy(stats, &all, stats->size);
	return 0;
}
