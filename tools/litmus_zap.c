// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_zap - cases in which the mapping stays and its pages go: madvise(DONTNEED).
 *
 * What may be counted here. The kernel's message (REMOVE) comes before the zap, and there
 * is none after it. So
 * - what was cached before the message must be gone when the madvise has returned and the
 *   lookup has fenced: G1, counted by every case;
 * - what a device caches between the message and the zap is the old page, and nothing tells
 *   it that this page then goes. The system call had not let go of the address space yet,
 * so G1 and G2 hold to the word; a back-end that pins needs the identity token of section
 *   "what a back-end that pins pages needs besides the gate" for it.
 * "dontneed" and "io_uring" therefore look up from the thread that waits for the change,
 * and nobody refills meanwhile. In "dontneed_racing" another thread of the device looks up
 * all the time. The device notes for each entry whether a change was going on while it was
 * read: a wrong answer from an entry that was read before the change began is stale; one
 * from an entry that was read during it is counted as "refilled" beside it.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__has_include)
#if __has_include(<liburing.h>)
#include <liburing.h>
#define HAVE_LIBURING 1
#endif
#endif

#include "common.h"
#include "litmus.h"

static int map_setup(struct litmus *l)
{
	int err = litmus_map_at(l, l->page);

	if (!err)
		madvise(l->page, LITMUS_PLACE, MADV_NOHUGEPAGE);
	return err;
}

static void map_end(struct litmus *l)
{
	munmap(l->page, LITMUS_PLACE);
}

/*
 * A new generation in the page that is there. The CPU's store goes to the same frame, and a
 * pinned frame shows it; only this model, which keeps the number, must be told.
 */
static int refill(struct litmus *l, uint64_t *generation)
{
	*generation = litmus_fill(l, l->page);
	litmus_dev_forget(l->dev, l->page);
	return litmus_touch(l, l->page, *generation);
}

/* The zap has returned: the page is zero, or holds the next generation. */
static int after_zap(struct litmus *l, uint64_t i)
{
	uint64_t expected = 0;

	litmus_changed(l, l->page);
	if (i / 2 % 2)
		expected = litmus_fill(l, l->page);
	return litmus_check(l, l->page, expected);
}

static int dontneed_round(struct litmus *l, uint64_t i)
{
	uint64_t generation;
	int err = refill(l, &generation);

	if (err)
		return err;
	if (madvise(l->page, LITMUS_PLACE, MADV_DONTNEED))
		return litmus_fail(l, -errno, "madvise: %s", strerror(errno));
	return after_zap(l, i);
}

/* ---- the same, with another thread of the device looking up all the time ---- */

struct racing {
	struct litmus *l;
	pthread_t thread;
	atomic_bool stop;
	atomic_int err;
};

static void *racing_thread(void *arg)
{
	struct racing *racing = arg;
	uint64_t value;
	int err = 0;

	while (!err && !atomic_load(&racing->stop)) {
		err = litmus_dev_read(racing->l->dev, racing->l->page, &value);
		sched_yield();
	}
	atomic_store(&racing->err, err);
	return NULL;
}

static int racing_setup(struct litmus *l)
{
	struct racing *racing = tool_alloc(sizeof(*racing));
	int err = map_setup(l);

	if (err)
		goto free_racing;
	racing->l = l;
	err = -pthread_create(&racing->thread, NULL, racing_thread, racing);
	if (!err) {
		l->priv = racing;
		l->also = "refilled";
		return 0;
	}
	litmus_fail(l, err, "no thread: %s", strerror(-err));
	map_end(l);
free_racing:
	free(racing);
	return err;
}

static void racing_end(struct litmus *l)
{
	struct racing *racing = l->priv;

	atomic_store(&racing->stop, true);
	pthread_join(racing->thread, NULL);
	map_end(l);
	free(racing);
}

/* As refill(); the other thread may still install what it read before the store. */
static int racing_refill(struct litmus *l)
{
	uint64_t generation = litmus_fill(l, l->page), value = 0;
	int err;

	do {
		litmus_dev_forget(l->dev, l->page);
		err = litmus_dev_read(l->dev, l->page, &value);
	} while (!err && value != generation);
	return err ? litmus_fail(l, err, "device read: %s", hmm_strerror(err)) : 0;
}

static int racing_round(struct litmus *l, uint64_t i)
{
	struct racing *racing = l->priv;
	bool during = false;
	uint64_t value = 0;
	int err = atomic_load(&racing->err);

	if (err)
		return litmus_fail(l, err, "device thread: %s", hmm_strerror(err));
	err = racing_refill(l);
	if (err)
		return err;
	litmus_dev_change(l->dev);
	madvise(l->page, LITMUS_PLACE, MADV_DONTNEED);
	litmus_dev_change(l->dev);
	err = litmus_dev_read_when(l->dev, l->page, &value, &during);
	if (err)
		return litmus_fail(l, err, "device read: %s", hmm_strerror(err));
	if (value && during)
		l->also_count++;
	else if (value)
		l->wrong = true;
	return 0;
}

/* ---- the same, by a thread of the kernel's ---- */

#ifdef HAVE_LIBURING
static int uring_dontneed(struct io_uring *ring, char *page, bool worker)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int err;

	if (!sqe)
		return -EBUSY;
	io_uring_prep_madvise(sqe, page, LITMUS_PLACE, MADV_DONTNEED);
	if (worker)
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	err = io_uring_submit(ring);
	if (err < 0)
		return err;
	do {
		err = io_uring_wait_cqe(ring, &cqe);
	} while (err == -EINTR);
	if (err)
		return err;
	err = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return err;
}

static int uring_setup(struct litmus *l)
{
	struct io_uring *ring = tool_alloc(sizeof(*ring));
	int err = io_uring_queue_init(8, ring, 0);

	if (err) {
		free(ring);
		litmus_fail(l, err, "io_uring: %s", strerror(-err));
		return -EOPNOTSUPP;
	}
	l->priv = ring;
	err = map_setup(l);
	if (err)
		goto no_map;
	err = uring_dontneed(ring, l->page, true);
	if (!err)
		return 0;
	litmus_fail(l, err, "IORING_OP_MADVISE: %s", strerror(-err));
	err = -EOPNOTSUPP;
	map_end(l);
no_map:
	io_uring_queue_exit(ring);
	free(ring);
	return err;
}

static int uring_round(struct litmus *l, uint64_t i)
{
	uint64_t generation;
	int err = refill(l, &generation);

	if (err)
		return err;
	err = uring_dontneed(l->priv, l->page, i / 4 % 2);
	if (err)
		return litmus_fail(l, err, "IORING_OP_MADVISE: %s", strerror(-err));
	return after_zap(l, i);
}

static void uring_end(struct litmus *l)
{
	map_end(l);
	io_uring_queue_exit(l->priv);
	free(l->priv);
}
#else
static int uring_setup(struct litmus *l)
{
	litmus_fail(l, -EOPNOTSUPP, "built without liburing");
	return -EOPNOTSUPP;
}
#define uring_round NULL
#define uring_end NULL
#endif

const struct litmus_case litmus_zap_cases[] = {
	{ .name = "dontneed",
	  .what = "madvise(DONTNEED)",
	  .gpu = true,
	  .setup = map_setup,
	  .round = dontneed_round,
	  .end = map_end },
	{ .name = "dontneed_racing",
	  .what = "madvise(DONTNEED) while another device thread looks up",
	  .setup = racing_setup,
	  .round = racing_round,
	  .end = racing_end },
	{ .name = "io_uring",
	  .what = "IORING_OP_MADVISE, also by the kernel's worker",
	  .gpu = true,
	  .setup = uring_setup,
	  .round = uring_round,
	  .end = uring_end },
	{ .name = NULL },
};
