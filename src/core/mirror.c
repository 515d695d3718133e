/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * mirror - making and ending a struct hmm.
 *
 * Making: contexts, then the reader (which takes a descriptor table of its own,
 * then opens the perf events in it), then the worker. Ending goes backwards, and
 * before a context is closed everything on it is unregistered: a child may hold
 * a copy of its descriptor, and a munmap here would then wait for ever for a
 * message that nobody reads (probes/attacks/inherited_uffd_hangs_munmap.c).
 */
#include <errno.h>
#include <string.h>

#include "core/pager.h"
#include "util/log.h"

static int queue_init(struct queue *queue, struct arena *arena)
{
	queue->slots = arena_alloc(arena, QUEUE_SLOTS * sizeof(*queue->slots));
	return queue->slots ? 0 : -ENOMEM;
}

static struct hmm *hmm_new(const struct os_ops *os)
{
	struct arena *arena = arena_create();
	struct hmm *hmm;

	if (!arena)
		return NULL;
	hmm = arena_alloc(arena, sizeof(*hmm));
	if (!hmm) {
		arena_destroy(arena);
		return NULL;
	}
	hmm->os = os;
	hmm->arena = arena;
	hmm->refs = 1;
	hmm->mm.maps_fd = hmm->mm.pagemap_fd = hmm->mm.tasks_fd = -1;
	hmm->reader_mm = hmm->mm;
	for (unsigned i = 0; i <= CONTEXTS; i++)
		hmm->os_ctx[i].fd = -1;
	lock_init(&hmm->side, LOCK_SIDE);
	lock_init(&hmm->register_lock, LOCK_REGISTER);
	lock_init(&hmm->vmas_lock, LOCK_VMAS);
	lock_init(&hmm->notifiers_lock, LOCK_NOTIFIERS);
	rangemap_init(&hmm->vmas, arena);
	rangemap_init(&hmm->notifiers, arena);
	return hmm;
}

static void mirror_free(struct hmm *hmm)
{
	lock_destroy(&hmm->side);
	lock_destroy(&hmm->register_lock);
	lock_destroy(&hmm->vmas_lock);
	lock_destroy(&hmm->notifiers_lock);
	arena_destroy(hmm->arena); /* takes hmm with it */
}

/* Why there is no mirror here, and the cure. */
static int say_why(int err)
{
	switch (err) {
	case -EOPNOTSUPP:
		return error_say(err, "this kernel's userfaultfd lacks WP_ASYNC: run Linux 6.8 or "
				      "later");
	case -EPERM:
		return error_say(err, "userfaultfd is not permitted: sysctl "
				      "vm.unprivileged_userfaultfd=1, CAP_SYS_PTRACE, access to "
				      "/dev/userfaultfd, or a seccomp profile that allows it");
	case -ENOSYS:
		return error_say(err, "userfaultfd is blocked or absent here: allow it in the "
				      "container's seccomp profile, or run on Linux 6.8 or later");
	default:
		return err;
	}
}

static int contexts_open(struct hmm *hmm)
{
	hmm->os_ctx[0].nudged = true;
	for (unsigned i = 0; i < CONTEXTS; i++) {
		int err = hmm->os->ctx_open(&hmm->os_ctx[i]);

		if (err) {
			hmm->os_ctx[i].fd = -1;
			return say_why(err);
		}
		if (queue_init(&hmm->gate[i].queue, hmm->arena))
			return -ENOMEM;
	}
	/* Without EVENT_FORK there is none, and nothing for it to do. */
	hmm->sentinel = hmm->os_ctx[0].fork && !hmm->os->sentinel_open(&hmm->os_ctx[CONTEXTS]);
	if (!hmm->sentinel)
		hmm->os_ctx[CONTEXTS].fd = -1;
	return queue_init(&hmm->side_queue, hmm->arena);
}

static void contexts_close(struct hmm *hmm)
{
	for (unsigned i = 0; i <= CONTEXTS; i++)
		if (hmm->os_ctx[i].fd >= 0)
			hmm->os->ctx_close(&hmm->os_ctx[i]);
	hmm->os->mm_close(&hmm->mm);
}

static int threads_start(struct hmm *hmm)
{
	const struct os_ops *os = hmm->os;
	int err = os->thread_start(&hmm->reader, "uhmm-reader", true, reader_main, hmm);

	if (err)
		return err;
	/* The fence needs to know whether there are perf rings. */
	while (!hmm->ready)
		os->wait((const uint32_t *)&hmm->ready, 0, 0);
	if (!hmm->perf)
		hmm_log(HMM_LOG_WARN, "no perf records (%s): each fence reads the permissions of "
			"what it is asked for again", strerrordesc_np(-hmm->perf_err));
	return os->thread_start(&hmm->worker, "uhmm-worker", false, worker_main, hmm);
}

static void threads_stop(struct hmm *hmm)
{
	hmm->stop = true;
	if (hmm->worker) {
		worker_wake(hmm);
		hmm->os->thread_join(hmm->worker);
	}
	if (hmm->reader) {
		hmm->os->reader_kick(hmm->os_ctx, polled(hmm));
		hmm->os->thread_join(hmm->reader);
	}
}

int mirror_create(const struct os_ops *os, struct hmm **out)
{
	struct hmm *hmm = hmm_new(os);
	int err;

	if (!hmm)
		return error_say(-ENOMEM, "no memory for the mirror");
	err = os->mm_open(&hmm->mm, 0);
	if (err == -EACCES)
		err = error_say(-EPERM, "/proc/self/maps and pagemap are closed to this process: "
					"it is not dumpable (after a change of user, or "
					"PR_SET_DUMPABLE), so open the mirror before, or set it");
	if (!err)
		err = contexts_open(hmm);
	if (!err)
		err = os->handlers_arm();
	if (!err)
		err = threads_start(hmm);
	if (err) {
		threads_stop(hmm);
		contexts_close(hmm);
		mirror_free(hmm);
		return err;
	}
	*out = hmm;
	return 0;
}

void mirror_destroy(struct hmm *hmm)
{
	if (!hmm->mm.pid) {
		vmas_unregister_all(hmm);
		threads_stop(hmm);
		pager_end(hmm);
		contexts_close(hmm);
	} else {
		hmm->os->mm_close(&hmm->mm);
	}
	mirror_free(hmm);
}

void mirror_kill(struct hmm *hmm, const char *why)
{
	const char *none = NULL;

	/* The worker says it: this may be the reader, which calls no hmm_log_fn. */
	atomic_compare_exchange_strong(&hmm->why_dead, &none, why);
	if (atomic_exchange(&hmm->dead, true))
		return;
	worker_wake(hmm);
	atomic_fetch_add(&hmm->progress, 1);
	hmm->os->wake((const uint32_t *)&hmm->progress);
}

int hmm_attach(pid_t pid, struct hmm **out)
{
	struct hmm *hmm;
	int err;

	if (!out || pid <= 0)
		return error_say(-EINVAL, "no process has the number %d", (int)pid);
	hmm = hmm_new(os_live());
	if (!hmm)
		return error_say(-ENOMEM, "no memory for the handle");
	err = hmm->os->mm_open(&hmm->mm, pid);
	if (err) {
		mirror_free(hmm);
		return error_say(err, err == -ESRCH || err == -ENOENT
				 ? "there is no process %d"
				 : "process %d may not be looked at: run as its user or as root, and "
				   "see kernel.yama.ptrace_scope", (int)pid);
	}
	*out = hmm;
	return 0;
}
