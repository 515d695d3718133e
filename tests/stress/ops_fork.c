/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ops_fork - children have their parent's bytes, however they are made, whoever ends first.
 *
 * The parent holds the areas that a child looks at while it forks, and gives them up as
 * soon as it can: from then on it writes and migrates beside the child. What the child
 * finds comes back through shared memory; who is left behind by a parent that ends at once
 * is adopted.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stress.h"

#define CHILDREN 6u
#define HELD 6u
#define CHILD_LIMIT_S 60u
#define FORK_PAUSE_NS UINT64_C(300000000)
/* Not more than this many pages: children are to be many, not long. */
#define CHILD_PAGES 3000u

enum child_state { CHILD_NONE, CHILD_RUNS };

/* In shared memory. */
struct child {
	_Atomic uint32_t state;
	_Atomic pid_t pid;
	char text[12000];
};

static struct child *children;

void fork_begin(struct world *world)
{
	children = mmap(NULL, CHILDREN * sizeof(*children), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (children == MAP_FAILED || prctl(PR_SET_CHILD_SUBREAPER, 1))
		fail("no memory for children: %m");
}

static void child_over(struct worker *w, struct child *child, int status)
{
	if (WIFSIGNALED(status))
		fail("a forked child died of signal %d%s%s", WTERMSIG(status),
		     WTERMSIG(status) == SIGALRM ? ": it hung" : "", child->text);
	if (WEXITSTATUS(status))
		fail("in a forked child: %s", child->text);
	w->world->children--;
	child->pid = 0;
	child->state = CHILD_NONE;
}

void fork_reap(struct worker *w, bool wait)
{
	for (unsigned i = 0; i < CHILDREN; i++) {
		struct child *child = &children[i];
		pid_t pid = child->pid;
		int status;

		if (child->state != CHILD_RUNS || !pid)
			continue;
		/* Only who takes it out of there waits for it. */
		if (!atomic_compare_exchange_strong(&child->pid, &pid, 0))
			continue;
		if (waitpid(pid, &status, wait ? 0 : WNOHANG) == pid)
			child_over(w, child, status);
		else
			child->pid = pid;
	}
}

static struct child *child_take(struct worker *w)
{
	for (unsigned i = 0; i < CHILDREN; i++) {
		uint32_t none = CHILD_NONE;

		if (atomic_compare_exchange_strong(&children[i].state, &none, CHILD_RUNS)) {
			memset(children[i].text, 0, sizeof(children[i].text));
			w->world->children++;
			return &children[i];
		}
	}
	return NULL;
}

/* ---- in the child ---- */

struct held {
	struct area *area[HELD];
	unsigned n;
};

static void look_at(struct worker *w, struct area *a)
{
	unsigned looked = 0;

	for (unsigned i = 0; i < a->pages && looked < CHILD_PAGES;) {
		struct run run = area_run_at(a, i, 256);

		i += run.n ? run.n : 1;
		if (!run.n)
			continue;
		looked += run.n;
		run_check(a, &run, "a forked child");
		/* Its own bytes are its own. */
		if (one_in(w, 4) && !a->page[run.i].read_only) {
			run.n = 1;
			page_write(a, run.i, 0xff, (void *)run.addr);
			run_check(a, &run, "a forked child that wrote");
		}
	}
}

static _Noreturn void child_main(struct worker *w, struct child *child,
				 const struct held *held, bool raw)
{
	fail_to(child->text, sizeof(child->text));
	alarm(CHILD_LIMIT_S);
	if (one_in(w, 3))
		usleep(pick(w, 20000)); /* the parent goes on meanwhile */
	if (!raw && hmm_fence(w->world->hmm, 0, PAGE) != -ENODEV)
		fail("a fence of the parent's mirror in the child is not -ENODEV");
	for (unsigned i = 0; i < held->n; i++)
		look_at(w, held->area[i]);
	_exit(0);
}

/* clone() without libc: no handler runs before it. */
static pid_t make_child(bool raw)
{
	return raw ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
}

/* ---- in the parent ---- */

static void hold(struct worker *w, struct area *a, struct held *held)
{
	held->area[0] = a;
	held->n = 1;
	for (unsigned i = 1; i < HELD; i++) {
		struct area *other = &w->world->area[pick(w, w->world->areas)];

		/* Our own lock answers EBUSY too. */
		if (!pthread_mutex_trylock(&other->lock))
			held->area[held->n++] = other;
	}
}

static void fork_note(struct worker *w, const struct held *held, const char *what)
{
	for (unsigned k = 0; k < held->n; k++) {
		struct area *a = held->area[k];

		for (unsigned i = 0; i < a->pages; i++) {
			struct page *p = &a->page[i];

			p->trace[p->traces++ % HISTORY] =
				(struct trace){ what, a->version, (uint16_t)w->id,
						(uint16_t)a->pages };
		}
	}
	doing(w, what, held->area[0], 0);
}

/* The child ends as soon as it has made the one who looks. */
static pid_t make_orphan(struct worker *w, struct child *child, const struct held *held,
			 bool raw)
{
	pid_t middle = make_child(raw), pid;
	int status;

	if (!middle) {
		alarm(CHILD_LIMIT_S);
		pid = make_child(raw);
		if (!pid) {
			child->pid = getpid();
			child_main(w, child, held, raw);
		}
		if (pid > 0)
			child->pid = pid;
		_exit(pid < 0);
	}
	if (middle < 0)
		return -1;
	while (waitpid(middle, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid: %m");
	if (WIFSIGNALED(status))
		fail("a child that only forks died of signal %d", WTERMSIG(status));
	return WEXITSTATUS(status) ? -1 : middle;
}

/* Everybody stands still in a fork: a few each second are enough. */
static bool fork_is_due(struct world *world)
{
	uint64_t last = world->last_fork, now = now_ns();

	return now - last > FORK_PAUSE_NS &&
	       atomic_compare_exchange_strong(&world->last_fork, &last, now);
}

static void fork_with(struct worker *w, struct area *a, bool raw, bool orphan)
{
	struct held held;
	struct child *child;
	pid_t pid;

	fork_reap(w, false);
	if (!fork_is_due(w->world))
		return;
	child = child_take(w);
	if (!child)
		return;
	hold(w, a, &held);
	fork_note(w, &held,
		  raw	   ? orphan ? "raw clone, twice" : "raw clone"
		  : orphan ? "fork, twice"
			   : "fork");
	if (orphan) {
		pid = make_orphan(w, child, &held, raw);
	} else {
		pid = make_child(raw);
		if (!pid)
			child_main(w, child, &held, raw);
		if (pid > 0)
			child->pid = pid;
	}
	for (unsigned i = 1; i < held.n; i++)
		pthread_mutex_unlock(&held.area[i]->lock);
	if (pid < 0) {
		w->world->children--;
		child->pid = 0;
		child->state = CHILD_NONE;
		return;
	}
	w->world->forks++;
	/* On with it, beside the child. */
	for (unsigned i = 0; i < 4; i++) {
		ops_cpu[0].run(w, a);
		ops_dev[0].run(w, a);
	}
}

static void op_fork(struct worker *w, struct area *a)
{
	fork_with(w, a, false, false);
}

static void op_fork_twice(struct worker *w, struct area *a)
{
	fork_with(w, a, false, true);
}

static void op_raw_clone(struct worker *w, struct area *a)
{
	fork_with(w, a, true, false);
}

static void op_raw_clone_twice(struct worker *w, struct area *a)
{
	fork_with(w, a, true, true);
}

const struct op ops_fork[] = {
	{ "fork", op_fork, 2, false },
	{ "fork-twice", op_fork_twice, 1, false },
	{ "raw-clone", op_raw_clone, 1, false },
	{ "raw-clone-twice", op_raw_clone_twice, 1, false },
	{ NULL, NULL, 0, false },
};
