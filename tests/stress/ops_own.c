/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ops_own - memory that the program does not think of: the heap, stacks, .bss.
 *
 * Pages of them leave while other threads allocate, free, return and are created. Nothing
 * here has a lock: what a migration finds is chance, and so is what it answers.
 */
#include <errno.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ops_own.h"

extern char **environ;
/* The linker's: where .bss begins and ends. */
extern char __bss_start[], _end[];

/* Anything may lie there, or nothing. */
static void send_away(struct worker *w, uintptr_t start, size_t pages)
{
	struct dev *dev = dev_take(w);
	int64_t moved =
		hmm_migrate_to_device(dev_devmem(dev), start & ~(PAGE - 1), pages * PAGE);

	if (moved < 0 && moved != -EINVAL && !migrate_may_fail(w, moved))
		fail("migration of %zu pages at %#lx: %s", pages, start,
		     hmm_strerror((int)moved));
	dev_leave(w);
}

static void block_fill(struct block *b, size_t from, unsigned char seed)
{
	b->seed = seed;
	for (size_t i = from; i < b->size; i++)
		b->at[i] = (unsigned char)(seed + i * 31 + (i >> 8));
}

static void block_check(const struct block *b, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (b->at[i] != (unsigned char)(b->seed + i * 31 + (i >> 8)))
			fail("WRONG: byte %zu of %zu of a malloc block at %p is %#x, "
			     "expected "
			     "%#x",
			     i, b->size, (void *)b->at, b->at[i],
			     (unsigned char)(b->seed + i * 31 + (i >> 8)));
}

static void op_malloc(struct worker *w, struct area *a)
{
	struct block *b = &w->own->block[pick(w, BLOCKS)];
	size_t size = 1 + pick(w, 1u << (4 + pick(w, one_in(w, 8) ? 15 : 9)));

	if (b->at)
		block_check(b, b->size);
	switch (pick(w, 4)) {
	case 0:
		free(b->at);
		b->at = NULL;
		break;
	case 1:
		if (b->at)
			send_away(w, (uintptr_t)b->at, 1 + pick(w, 16));
		break;
	default: {
		size_t kept = b->at ? (b->size < size ? b->size : size) : 0;
		unsigned char *at = realloc(b->at, size);

		if (!at)
			return;
		b->at = at;
		b->size = size;
		block_check(b, kept);
		block_fill(b, kept, kept ? b->seed : (unsigned char)pick(w, 256));
	}
	}
}

/* Deep in a recursion the stack above leaves; each frame on the way back looks. */
static __attribute__((noinline)) unsigned deep(struct worker *w, unsigned depth)
{
	volatile unsigned char bytes[3000];
	unsigned seed = pick(w, 256), sum = 0;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(seed + i);
	if (depth)
		sum = deep(w, depth - 1);
	else
		send_away(w, (uintptr_t)bytes - 4 * PAGE, 8 + pick(w, 24));
	for (size_t i = 0; i < sizeof(bytes); i++)
		if (bytes[i] != (unsigned char)(seed + i))
			fail("WRONG: byte %zu of a stack frame at %p is %#x, expected %#x",
			     i, (void *)(uintptr_t)bytes, bytes[i],
			     (unsigned char)(seed + i));
	return sum + bytes[7];
}

static void op_own_stack(struct worker *w, struct area *a)
{
	deep(w, pick(w, 24));
}

static void op_other_stack(struct worker *w, struct area *a)
{
	const struct worker *other = &w->world->worker[pick(w, w->world->threads)];
	size_t pages = (other->stack_high - other->stack_low) / PAGE;

	/* Where it is likely to be: near the top. */
	if (other->ended || pages < 64)
		return;
	send_away(w, other->stack_high - (1 + pick(w, 32)) * PAGE, 1 + pick(w, 16));
}

static void op_bss(struct worker *w, struct area *a)
{
	uintptr_t start = ((uintptr_t)__bss_start + PAGE - 1) & ~(PAGE - 1);
	size_t pages = ((uintptr_t)_end - start) / PAGE, first = pick(w, (unsigned)pages);

	send_away(w, start + first * PAGE, 1 + pick(w, (unsigned)(pages - first)));
}

/* Anywhere near an area: other areas, their neighbours, gaps. */
static void op_wild(struct worker *w, struct area *a)
{
	uintptr_t at = a->page[pick(w, a->pages)].addr;

	if (at)
		send_away(w, at + ((uintptr_t)pick(w, 4096) - 2048) * PAGE,
			  1 + pick(w, 2048));
}

/* Somebody else's area, whatever he does to it now: also just where he unmaps or drops. */
static void op_meddle(struct worker *w, struct area *a)
{
	const struct area *other = &w->world->area[pick(w, w->world->areas)];
	const struct page *p = &other->page[pick(w, other->pages)];
	uintptr_t at = __atomic_load_n(&p->addr, __ATOMIC_RELAXED);

	if (!at)
		return;
	if (one_in(w, 6)) {
		hmm_migrate_to_host(w->world->hmm, at, (1 + pick(w, 64)) * PAGE);
		return;
	}
	send_away(w, at, 1 + pick(w, one_in(w, 4) ? 256 : 8));
}

bool own_duel(struct worker *w)
{
	uintptr_t at = w->world->duel;
	unsigned pages = w->world->duel_pages;

	if (!at || !pages)
		return false;
	doing(w, "duel", NULL, 0);
	send_away(w, at, pages);
	return true;
}

static void *thread_main(void *arg)
{
	char bytes[5000];

	memset(bytes, 3, sizeof(bytes));
	return memchr(bytes, 4, sizeof(bytes));
}

/* A thread begins and ends: its stack is mapped, or one that has been used before. */
static void op_thread(struct worker *w, struct area *a)
{
	pthread_t thread;
	void *wrong;

	if (pthread_create(&thread, NULL, thread_main, NULL))
		return;
	pthread_join(thread, &wrong);
	if (wrong)
		fail("WRONG: bytes on the stack of a new thread");
}

static void op_spawn(struct worker *w, struct area *a)
{
	static char *const args[] = { (char *)"true", NULL };
	pid_t pid;
	int status;

	if (posix_spawn(&pid, "/bin/true", NULL, NULL, args, environ))
		return;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return; /* fork_reap() of another thread took it, and looked */
	if (status)
		fail("a spawned program ended with %#x", status);
}

void own_begin(struct worker *w)
{
	struct own *own = calloc(1, sizeof(*own));

	if (!own || pipe2(own->pipe, O_CLOEXEC))
		fail("no memory or no pipe: %m");
	own->file = memfd_create("stress", MFD_CLOEXEC);
	if (own->file < 0)
		fail("memfd_create: %m");
	own->has_ring = !io_uring_queue_init(4, &own->ring, 0);
	w->own = own;
}

void own_end(struct worker *w)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		if (w->own->block[i].at)
			block_check(&w->own->block[i], w->own->block[i].size);
		free(w->own->block[i].at);
	}
	if (w->own->has_ring)
		io_uring_queue_exit(&w->own->ring);
	close(w->own->file);
	close(w->own->pipe[0]);
	close(w->own->pipe[1]);
	free(w->own);
	w->own = NULL;
}

const struct op ops_own[] = {
	{ "malloc", op_malloc, 120, false },
	{ "own-stack", op_own_stack, 15, false },
	{ "other-stack", op_other_stack, 10, false },
	{ "bss", op_bss, 3, false },
	{ "wild", op_wild, 3, false },
	{ "meddle", op_meddle, 150, false },
	{ "thread", op_thread, 4, false },
	{ "spawn", op_spawn, 1, false },
	{ NULL, NULL, 0, false },
};
