/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * handlers - SIGSEGV and SIGBUS: our faults are fixed up, all others are the program's.
 *
 * Model: when we find an action of the program in front, we save it as a level and put
 * an entry of our own in front that knows its level. A program that installs a handler
 * after us gets, as "what was there before", the entry of the level that was in front;
 * it may chain to that or put it back, and either reaches exactly what it replaced.
 *
 * Laws:
 * - A level, once saved, is never reused for another action: somebody may hold its entry.
 * - An action is called as the kernel would have called it: its mask, SA_NODEFER,
 *   SA_RESETHAND, SA_SIGINFO; the stack by giving our entry its SA_ONSTACK.
 * - Within one signal no level is called twice: a handler that is saved twice and
 *   chains to itself through us gets the next older one, at last the default action.
 * - Who is called with a frame that the kernel has just made begins anew. So does who is
 *   called from no deeper in the stack than the last time, for then the handlers of that time
 *   are gone, its frame's address used again. So a handler that leaves by longjmp leaves
 *   nothing behind that matters.
 *
 * Locks: arm_lock, a leaf, protects the levels against other writers. It is held with all
 * signals blocked, by process number: a forked child takes it from a thread it has not.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "os/live.h"
#include "os/safecopy.h"

#if defined(__x86_64__)

/* In the frame of a signal, siginfo follows the kernel's struct ucontext. */
#define KERNEL_UCONTEXT 304
#define KERNEL_SA_RESTORER 0x04000000

struct signal_levels {
	int sig;
	unsigned count;
	struct sigaction saved[HANDLER_LEVELS]; /* oldest first */
};

static struct signal_levels all_levels[] = { { .sig = SIGSEGV }, { .sig = SIGBUS } };
static uint32_t arm_lock; /* 0, or the process whose thread holds it */

/* The signal that this thread is handing down. */
static __thread struct handing {
	uint32_t visited; /* bit a level; 0: none */
	int sig;
	siginfo_t *info;
	void *context;
	uintptr_t sp; /* of our entry */
} handing __attribute__((tls_model("initial-exec")));

/* ---- putting ourselves in front ---- */

static bool is_ours(const struct sigaction *action)
{
	uintptr_t entry = (uintptr_t)action->sa_sigaction - (uintptr_t)handlers_enter;

	return entry < HANDLER_LEVELS * HANDLER_ENTRY_SIZE;
}

static bool same(const struct sigaction *a, const struct sigaction *b)
{
	/* libc adds a flag of its own. Of its sigset only the kernel's 64 bits are set. */
	return a->sa_sigaction == b->sa_sigaction &&
	       !((a->sa_flags ^ b->sa_flags) & ~KERNEL_SA_RESTORER) &&
	       !memcmp(&a->sa_mask, &b->sa_mask, sizeof(uint64_t));
}

/* The level that has this action saved, made if there is none. -ENOBUFS. */
static int level_of(struct signal_levels *levels, const struct sigaction *action)
{
	for (unsigned i = levels->count; i-- > 0;)
		if (same(&levels->saved[i], action))
			return (int)i;
	if (levels->count == HANDLER_LEVELS)
		return -ENOBUFS;
	levels->saved[levels->count] = *action;
	__atomic_store_n(&levels->count, levels->count + 1, __ATOMIC_RELEASE);
	return (int)levels->count - 1;
}

static struct sigaction entry_action(unsigned level, const struct sigaction *saved)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_NODEFER };
	uintptr_t entry = (uintptr_t)handlers_enter + level * HANDLER_ENTRY_SIZE;

	sigemptyset(&action.sa_mask);
	action.sa_sigaction = (void (*)(int, siginfo_t *, void *))entry;
	if (saved->sa_handler == SIG_DFL || saved->sa_handler == SIG_IGN)
		action.sa_flags |= SA_ONSTACK;
	else
		action.sa_flags |= saved->sa_flags & (SA_ONSTACK | SA_RESTART);
	return action;
}

/*
 * sigaction() says what it replaced. If that is not what we believed to be in front, the
 * program was faster, and what it put there is what has to be served.
 */
static int arm(struct signal_levels *levels)
{
	struct sigaction want, front, put;

	if (sigaction(levels->sig, NULL, &want))
		return -errno;
	front = want;
	while (!is_ours(&want) || !same(&want, &front)) {
		struct sigaction replaced;

		put = want;
		if (!is_ours(&want)) {
			int level = level_of(levels, &want);

			if (level < 0)
				return level;
			put = entry_action((unsigned)level, &want);
		}
		if (sigaction(levels->sig, &put, &replaced))
			return -errno;
		if (same(&replaced, &front))
			break;
		want = replaced;
		front = put;
	}
	return 0;
}

static void arm_lock_take(void)
{
	uint32_t mine = (uint32_t)getpid(), seen = 0;

	while (!__atomic_compare_exchange_n(&arm_lock, &seen, mine, false, __ATOMIC_ACQUIRE,
					    __ATOMIC_RELAXED)) {
		if (seen == mine) {
			sched_yield();
			seen = 0;
		}
		/* Else the holder is a thread of the process that we were forked from. */
	}
}

static bool in_front(int sig)
{
	struct sigaction now;

	return !sigaction(sig, NULL, &now) && is_ours(&now);
}

int live_handlers_arm(void)
{
	sigset_t all, before;
	int err;

	if (in_front(SIGSEGV) && in_front(SIGBUS))
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	arm_lock_take();
	err = arm(&all_levels[0]);
	if (!err)
		err = arm(&all_levels[1]);
	__atomic_store_n(&arm_lock, 0, __ATOMIC_RELEASE);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return err;
}

/* ---- handing a signal down ---- */

/* Does the instruction that faulted run again when the handler returns? */
static bool is_fault(int sig, const siginfo_t *info)
{
	return info && info->si_code > 0 && !(sig == SIGBUS && info->si_code == BUS_MCEERR_AO);
}

/* As the kernel does when nobody catches it: with the default action the fault recurs. */
static void die(int sig, siginfo_t *info)
{
	struct sigaction action = { .sa_handler = SIG_DFL };

	sigaction(sig, &action, NULL);
	if (!is_fault(sig, info))
		syscall(SYS_rt_tgsigqueueinfo, getpid(), live_tid(), sig, info);
}

/* What the kernel does to the mask and the action before it calls. */
static void enter(int sig, struct sigaction *saved, const struct sigaction *action)
{
	sigset_t mask = action->sa_mask;

	if (!(action->sa_flags & SA_NODEFER))
		sigaddset(&mask, sig);
	pthread_sigmask(SIG_BLOCK, &mask, NULL);
	if (action->sa_flags & SA_RESETHAND)
		__atomic_store_n(&saved->sa_handler, SIG_DFL, __ATOMIC_RELEASE);
}

/* `fresh`: from the kernel, not by a handler that chains (which calls a plain function). */
static void call(struct signal_levels *levels, unsigned level, bool fresh)
{
	struct sigaction *saved = &levels->saved[level], action = *saved;
	struct handing signal = handing;

	if (action.sa_handler == SIG_IGN && !is_fault(signal.sig, signal.info))
		return;
	if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) {
		die(signal.sig, signal.info);
		return;
	}
	if (fresh)
		enter(signal.sig, saved, &action);
	if (action.sa_flags & SA_SIGINFO)
		action.sa_sigaction(signal.sig, signal.info, signal.context);
	else
		action.sa_handler(signal.sig);
}

static bool fixed_up(int sig, const siginfo_t *info, ucontext_t *context)
{
	greg_t *rip;

	if (!is_fault(sig, info) || !context)
		return false;
	rip = &context->uc_mcontext.gregs[REG_RIP];
	if ((uintptr_t)*rip - (uintptr_t)safecopy_text >=
	    (uintptr_t)(safecopy_text_end - safecopy_text))
		return false;
	*rip = (greg_t)(uintptr_t)safecopy_fault;
	return true;
}

/*
 * The kernel chose our entry. While we are being armed that may be one that has just
 * displaced what the program put there a moment ago: what is in front afterwards counts.
 */
static unsigned settled(int sig, unsigned level)
{
	struct sigaction front;

	while (__atomic_load_n(&arm_lock, __ATOMIC_ACQUIRE) == (uint32_t)getpid())
		sched_yield();
	if (sigaction(sig, NULL, &front) || !is_ours(&front))
		return level;
	return (unsigned)((uintptr_t)front.sa_sigaction - (uintptr_t)handlers_enter) /
	       HANDLER_ENTRY_SIZE;
}

/* A handler that we called has called us. The frame is the one we called it with. */
static void go_on(struct signal_levels *levels, unsigned level)
{
	uint32_t visited = handing.visited;
	int sig = handing.sig;

	while (visited >> level & 1) {
		if (!level--) {
			die(sig, handing.info);
			return;
		}
	}
	handing.visited = visited | 1u << level;
	call(levels, level, false);
	handing.visited = visited;
}

/*
 * `fresh`: the kernel has pushed the frame just above our stack pointer. Otherwise somebody
 * calls: one that we called, for this signal (its frame, or no frame at all where a
 * handler without SA_SIGINFO has none to give); or one that is in front of us.
 */
void handlers_common(int sig, siginfo_t *info, void *context, uintptr_t entry_sp,
		     unsigned level)
{
	struct signal_levels *levels = &all_levels[sig == SIGBUS];
	bool fresh = (uintptr_t)context == entry_sp + sizeof(void *);
	bool frame = (uintptr_t)info == (uintptr_t)context + KERNEL_UCONTEXT;
	struct handing outer = handing;
	bool ours = !fresh && outer.visited && outer.sig == sig && entry_sp < outer.sp &&
		    (!frame || context == outer.context);

	if ((frame || !ours) && fixed_up(sig, info, context))
		return;
	if (ours) {
		go_on(levels, level);
		return;
	}
	if (fresh)
		level = settled(sig, level);
	handing = (struct handing){ .visited = 1u << level, .sig = sig, .info = info,
				    .context = context, .sp = entry_sp };
	call(levels, level, fresh);
	handing = outer;
}

#else

int live_handlers_arm(void)
{
	return 0; /* no instruction of ours is recoverable here */
}

#endif
