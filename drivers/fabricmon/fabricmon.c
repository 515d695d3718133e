/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fabricmon - the monitor as libfabric sees it: import, start, stop.
 *
 * libfabric is looked up when it is needed: the program may have loaded it itself,
 * privately (as MPI's plug-ins do), and whoever links us need not have it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fabricmon_private.h"

/* Started and installed by one thread after another. */
static pthread_mutex_t install_lock = PTHREAD_MUTEX_INITIALIZER;

/* Ends those threads that were started. */
static void end_threads(struct monitor *m, bool teller, bool watcher)
{
	pthread_mutex_lock(&m->lock);
	m->running = false;
	m->quit = true;
	pthread_cond_broadcast(&m->to_tell);
	pthread_cond_broadcast(&m->to_watch);
	pthread_mutex_unlock(&m->lock);
	if (teller)
		pthread_join(m->teller, NULL);
	if (watcher)
		pthread_join(m->watcher, NULL);
}

static void init_threads(struct monitor *m)
{
	pthread_condattr_t clock;

	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&m->watched, &clock);
	pthread_cond_init(&m->to_tell, NULL);
	pthread_cond_init(&m->to_watch, NULL);
	pthread_condattr_destroy(&clock);
	m->quit = false;
	m->pending_count = 0;
	m->asked = m->answered = 0;
}

/* A signal of the program is not for a thread of ours. */
static int begin_thread(pthread_t *thread, void *(*run)(void *monitor), struct monitor *m)
{
	sigset_t all, was;
	int err;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	err = pthread_create(thread, NULL, run, m);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return -err;
}

/* Context: libfabric holds mm_state_lock, not mm_lock. A failure makes it do without a
 * cache. */
static int start(struct fid_mem_monitor *fid)
{
	struct monitor *m = (struct monitor *)fid;
	int err;

	if (m->running && m->owner == getpid())
		return 0;
	init_threads(m); /* in a child too: the parent's may be locked */
	m->owner = getpid();
	err = hmm_open(&m->hmm);
	if (err)
		return err;
	err = hmm_notifier_insert(m->hmm, 0, UINTPTR_MAX, &fabricmon_notifier_ops, m,
				  &m->notifier);
	if (err)
		goto put;
	err = begin_thread(&m->teller, fabricmon_teller, m);
	if (err)
		goto remove;
	err = begin_thread(&m->watcher, fabricmon_watcher, m);
	if (err) {
		end_threads(m, true, false);
		goto remove;
	}
	m->running = true;
	return 0;
remove:
	hmm_notifier_remove(m->notifier);
put:
	hmm_put(m->hmm);
	m->hmm = NULL;
	return err;
}

/* Context: as start(); the caches are gone, so notify, if it is being called, ends. */
static void stop(struct fid_mem_monitor *fid)
{
	struct monitor *m = (struct monitor *)fid;

	if (!m->running)
		return;
	if (m->owner == getpid())
		end_threads(m, true, true);
	m->running = false;
	hmm_notifier_remove(m->notifier);
	hmm_put(m->hmm);
	m->hmm = NULL;
}

/* May be called by notify, so by the teller: nothing to do, what is watched costs nothing.
 */
static void unsubscribe(struct fid_mem_monitor *fid, const void *addr, size_t len)
{
}

static struct fi_ops_mem_monitor export_ops = {
	.size = sizeof(export_ops),
	.start = start,
	.stop = stop,
	.subscribe = fabricmon_subscribe,
	.unsubscribe = unsubscribe,
	.valid = fabricmon_valid,
};

struct monitor fabricmon = {
	.fid = { .fid = { .fclass = FI_CLASS_MEM_MONITOR }, .export_ops = &export_ops },
};

struct fid_mem_monitor *fabricmon_monitor(void)
{
	return &fabricmon.fid;
}

typedef int (*open_fn)(uint32_t version, const char *name, void *attr, size_t attr_len,
		       uint64_t flags, struct fid **fid, void *context);

/* The one that the program uses, however it came by it. */
static open_fn find_open(void)
{
	void *library = dlopen("libfabric.so.1", RTLD_LAZY | RTLD_NOLOAD);
	open_fn found = (open_fn)dlsym(library ? library : RTLD_DEFAULT, "fi_open");

	if (found)
		return found;
	library = dlopen("libfabric.so.1", RTLD_LAZY);
	return library ? (open_fn)dlsym(library, "fi_open") : NULL;
}

int fabricmon_install(void)
{
	struct monitor *m = &fabricmon;
	open_fn open = find_open();
	struct fid *cache = NULL;
	int err;

	if (!open)
		return -ENOSYS;
	pthread_mutex_lock(&install_lock);
	err = m->cache || m->running ? -EBUSY : 0;
	if (!err)
		err = open(FI_VERSION(1, 13), "mr_cache", NULL, 0, 0, &cache, NULL);
	if (!err) {
		err = fi_import_fid(cache, &m->fid.fid, 0);
		if (err)
			fi_close(cache);
		else
			m->cache = cache;
	}
	pthread_mutex_unlock(&install_lock);
	return err;
}

int fabricmon_remove(void)
{
	struct monitor *m = &fabricmon;
	int err = 0;

	pthread_mutex_lock(&install_lock);
	if (!m->cache)
		err = -ENOENT;
	else if (m->running)
		err = -EBUSY; /* libfabric would call what it no longer has */
	if (!err) {
		fi_close(&m->fid.fid);
		fi_close(m->cache);
		m->cache = NULL;
	}
	pthread_mutex_unlock(&install_lock);
	return err;
}

int fabricmon_get_stats(struct fabricmon_stats *stats)
{
	const struct monitor *m = &fabricmon;
	struct fabricmon_stats all = {
		.size = stats->size,
		.subscribed = m->subscribed,
		.refused = m->refused,
		.valid = m->valid,
		.invalid = m->invalid,
		.notified = m->notified,
	};

	if (stats->size > sizeof(all))
		return -E2BIG;
	memcpy(stats, &all, stats->size);
	return 0;
}
