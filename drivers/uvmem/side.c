/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * side - the secure side: a function of the program's on a stack in secret memory.
 *
 * In user space the secure side can be no other machine, as POWER's ultravisor is, nor
 * another address space, since its user is a thread of the program that wants its own
 * pointers. It is a scope: from uvmem_enter() on locals lie in secret memory, signals wait
 * (a handler's frame would put the registers on an ordinary stack), and vector registers,
 * in which memcpy leaves the last bytes that it moved, are cleared at the end. Accesses go
 * by copy (access.c), not by a pointer into a frame: a page must be able to leave when a
 * CPU touches it, and a pointer cannot be called back.
 *
 * Signals that a thread makes itself (SIGSEGV, SIGBUS) are not held off: the kernel would
 * kill the program. Their handler runs here, on secret memory, unless it has a stack of its
 * own.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "uvmem_private.h"

static size_t pages_of(size_t bytes)
{
	return (bytes + UVMEM_PAGE - 1) & -UVMEM_PAGE;
}

/*
 * Each side: struct and contexts; guard; stack; bounce page; scratch. The engine's stack
 * likewise.
 */
void uvmem_layout(const struct uvmem *uv, struct uvmem_layout *layout)
{
	size_t at = 0;

	layout->sealer = at;
	at += pages_of(sizeof(struct uvmem_sealer));
	layout->number = at;
	at += UVMEM_PAGE;
	layout->owner = at;
	at += pages_of(uv->frames * sizeof(uint64_t));
	layout->side_size = pages_of(sizeof(struct uvmem_side)) + UVMEM_GUARD +
			    UVMEM_STACK + UVMEM_PAGE + pages_of(uv->scratch);
	layout->side = at;
	at += uv->side_count * layout->side_size;
	layout->engine = at;
	at += pages_of(2 * sizeof(ucontext_t)) + UVMEM_GUARD + UVMEM_STACK;
	layout->frame = at;
	at += uv->frames * UVMEM_PAGE;
	layout->size = at;
}

/* A stack that overflows hits its guard. Its page is secret memory, only out of reach. */
static int guard(char *at)
{
	return mprotect(at, UVMEM_GUARD, PROT_NONE) ? -errno : 0;
}

int uvmem_sides_create(struct uvmem *uv)
{
	struct uvmem_layout layout;
	unsigned i;
	char *at;
	int err;

	uvmem_layout(uv, &layout);
	at = uv->secret.base + layout.engine;
	uv->engine.here = (ucontext_t *)at;
	uv->engine.back = (ucontext_t *)at + 1;
	at += pages_of(2 * sizeof(ucontext_t));
	uv->engine.stack = at + UVMEM_GUARD;
	err = guard(at);
	for (i = 0; i < uv->side_count && !err; i++) {
		struct uvmem_side *side;

		at = uv->secret.base + layout.side + i * layout.side_size;
		side = (struct uvmem_side *)at;
		at += pages_of(sizeof(*side));
		err = guard(at);
		side->uv = uv;
		side->stack = at + UVMEM_GUARD;
		side->bounce = side->stack + UVMEM_STACK;
		side->scratch = side->bounce + UVMEM_PAGE;
		side->next = uv->sides.free;
		uv->sides.free = side;
	}
	return err;
}

/* On one of our stacks? */
bool uvmem_inside(const struct uvmem *uv)
{
	return uvmem_secret_has(&uv->secret, __builtin_frame_address(0), 1);
}

static void on_secret_stack(unsigned high, unsigned low)
{
	struct uvmem_side *side = (struct uvmem_side *)((uintptr_t)high << 32 | low);

	side->result = side->fn(side, side->arg);
	uvmem_clear_registers();
}

static struct uvmem_side *take(struct uvmem_sides *sides)
{
	struct uvmem_side *side;

	pthread_mutex_lock(&sides->lock);
	while (!sides->free)
		pthread_cond_wait(&sides->cond, &sides->lock);
	side = sides->free;
	sides->free = side->next;
	pthread_mutex_unlock(&sides->lock);
	return side;
}

static void give(struct uvmem_sides *sides, struct uvmem_side *side)
{
	memset(side->scratch, 0, side->used);
	side->used = 0;
	pthread_mutex_lock(&sides->lock);
	side->next = sides->free;
	sides->free = side;
	pthread_cond_signal(&sides->cond);
	pthread_mutex_unlock(&sides->lock);
}

static int run(struct uvmem_side *side)
{
	getcontext(&side->here);
	side->here.uc_stack.ss_sp = side->stack;
	side->here.uc_stack.ss_size = UVMEM_STACK;
	side->here.uc_link = &side->back;
	makecontext(&side->here, (void (*)(void))on_secret_stack, 2,
		    (unsigned)((uintptr_t)side >> 32), (unsigned)(uintptr_t)side);
	swapcontext(&side->back, &side->here);
	return side->result;
}

int uvmem_enter(struct uvmem *uv, int (*fn)(struct uvmem_side *side, void *arg), void *arg)
{
	static const int own[] = {
		SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT
	};
	struct uvmem_side *side;
	sigset_t mask, before;
	size_t i;
	int result;

	if (!uv || uv->pid != getpid() || atomic_load(&uv->dead))
		return -ENODEV;
	if (uvmem_inside(uv))
		return -EDEADLK;
	side = take(&uv->sides);
	side->fn = fn;
	side->arg = arg;
	sigfillset(&mask);
	for (i = 0; i < sizeof(own) / sizeof(*own); i++)
		sigdelset(&mask, own[i]);
	pthread_sigmask(SIG_BLOCK, &mask, &before);
	result = run(side);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	give(&uv->sides, side);
	return result;
}

int uvmem_run(struct uvmem *uv, uvmem_fn fn, void *arg)
{
	int err;

	if (!uv || uv->pid != getpid())
		return -ENODEV;
	if (!fn)
		return -EINVAL;
	if (uvmem_inside(uv))
		return -EDEADLK;
	if (uvmem_state(uv) != UVMEM_SECURE)
		return -EBADFD;
	err = hmm_notifier_fence(uv->notifier);
	if (err)
		return err;
	atomic_fetch_add(&uv->count.runs, 1);
	return uvmem_enter(uv, fn, arg);
}

void *uvmem_scratch(struct uvmem_side *side, size_t size)
{
	size_t room = side->uv->scratch - side->used;
	char *at = side->scratch + side->used;

	if (size > room || ((size + 15) & -(size_t)16) > room)
		return NULL;
	side->used += (size + 15) & -(size_t)16;
	return at;
}
