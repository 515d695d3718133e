/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_devmem_self - nothing hangs, whatever of the process is away: its heap, the stacks
 * of its threads, its static data, while it allocates, forks, calls back and ends.
 *
 * Who brings a page home may not need one that is away. A hang is found by the runner's
 * limit; and each case asks whether the CPU did meet pages that were away.
 */
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "away_self.h"

#define RUN_NS UINT64_C(1500000000)

/* The CPU has met pages that were away: else the case has shown nothing. */
static uint64_t faults_of(const struct away *dev)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };

	if (dev)
		hmm_devmem_get_stats(away_devmem(dev), &stats);
	return stats.cpu_faults;
}

static bool hard(const struct away *dev, const struct away *other, uint64_t moved)
{
	return moved > 20 && faults_of(dev) + faults_of(other) > 2;
}

static enum verdict was_hard(const struct away *dev, const struct away *other,
			     uint64_t moved)
{
	CHECK(hard(dev, other, moved), "only %llu pages moved, %llu faults of the CPU met them",
	      (unsigned long long)moved,
	      (unsigned long long)(faults_of(dev) + faults_of(other)));
	return PASS;
}

/* ---- one kind of memory at a time ---- */

static int in_heap(const struct hmm_run *run, void *arg)
{
	uintptr_t *heap = arg;

	if (run->kind != HMM_VMA_HEAP)
		return 0;
	heap[0] = heap[0] ? heap[0] : run->start;
	heap[1] = run->end;
	return 0;
}

/* Every thread allocates from the main heap, large blocks too. */
static void one_heap(void)
{
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	mallopt(M_TRIM_THRESHOLD, 256 << 10);
}

static enum verdict heap_out(struct away *dev, uint64_t *moved)
{
	uintptr_t heap[2] = { 0, 0 };

	CHECK(!hmm_snapshot_runs(away_hmm(dev), 0, UINTPTR_MAX, HMM_RUN_VALID, in_heap,
				 heap),
	      "hmm_snapshot_runs");
	/* All of it is away already, or it was never touched. */
	return heap[0] ? self_out(dev, heap[0], heap[1], moved) : PASS;
}

static enum verdict heap(const void *arg)
{
	struct churn *churn = hmm_alloc(sizeof(*churn));
	uint64_t began = live_now_ns(), moved = 0;
	struct away *dev;

	one_heap();
	EXPECT(0, away_open(&dev, arg));
	TRY(churn_start(churn, churn_malloc));
	TRY(churn_start(churn, churn_malloc));
	TRY(churn_start(churn, churn_children));
	for (; live_race_on(began, RUN_NS, hard(dev, NULL, moved)); usleep(300)) {
		void *volatile p = malloc(3000); /* from the main arena: this thread's */

		TRY(heap_out(dev, &moved));
		free(p);
	}
	TRY(churn_end(churn));
	TRY(was_hard(dev, NULL, moved));
	away_close(dev);
	return PASS;
}

static enum verdict stacks(const void *arg)
{
	struct churn *churn = hmm_alloc(sizeof(*churn));
	uint64_t began = live_now_ns(), moved = 0;
	struct away *dev;

	EXPECT(0, away_open(&dev, arg));
	for (unsigned i = 0; i < 3; i++)
		TRY(churn_start(churn, churn_recurse));
	for (; live_race_on(began, RUN_NS, hard(dev, NULL, moved)); usleep(300))
		for (unsigned i = 0; i < 3; i++) {
			uintptr_t top = churn->churner[i].stack_end;

			if (top)
				TRY(self_out(dev, top - 64 * PAGE, top, &moved));
		}
	TRY(churn_end(churn));
	TRY(was_hard(dev, NULL, moved));
	away_close(dev);
	return PASS;
}

static enum verdict bss(const void *arg)
{
	struct churn *churn = hmm_alloc(sizeof(*churn));
	uint64_t began = live_now_ns(), moved = 0;
	struct away *dev;

	EXPECT(0, away_open(&dev, arg));
	for (unsigned i = 0; i < 3; i++)
		TRY(churn_start(churn, churn_bss));
	for (; live_race_on(began, RUN_NS, hard(dev, NULL, moved)); usleep(100))
		TRY(self_out(dev, (uintptr_t)self_bss,
			     (uintptr_t)self_bss + sizeof(self_bss), &moved));
	TRY(churn_end(churn));
	TRY(was_hard(dev, NULL, moved));
	away_close(dev);
	return PASS;
}

/* Everything, to two devices in turn, under everything. */
static enum verdict everything(const void *arg)
{
	static churn_fn *const fns[] = { churn_malloc,	 churn_recurse, churn_stdio,
					 churn_children, churn_threads, churn_bss };
	struct churn *churn = hmm_alloc(sizeof(*churn));
	uint64_t began = live_now_ns(), moved = 0;
	struct away *dev[2];
	unsigned i = 0;

	EXPECT(0, away_open(&dev[0], arg));
	EXPECT(0, away_open(&dev[1], &(struct away_options){ .host = true }));
	for (size_t k = 0; k < sizeof(fns) / sizeof(fns[0]); k++)
		TRY(churn_start(churn, fns[k]));
	for (; live_race_on(began, 2 * RUN_NS, hard(dev[0], dev[1], moved)); usleep(1000)) {
		TRY(self_all_out(dev[i++ % 2], &moved));
		if (i % 7 == 0)
			hmm_devmem_evict(away_devmem(dev[i % 2]), 0, AWAY_FRAMES);
	}
	TRY(churn_end(churn));
	TRY(was_hard(dev[0], dev[1], moved));
	away_close(dev[0]);
	away_close(dev[1]);
	return PASS;
}

/* ---- callbacks ---- */

struct inside {
	_Atomic unsigned calls;
	struct away *dev;
	char *memory;
	bool wrong;
};

/* With the heap away, and malloc's lock perhaps held by one who waits for a page. */
static void on_invalidate(void *priv, const struct hmm_event *event)
{
	struct inside *in = priv;
	unsigned char *p = malloc(2000), *q = malloc(200000);

	memset(p, 3, 2000);
	memset(q, 4, 200000);
	in->wrong |= p[1999] != 3 || q[199999] != 4;
	free(q);
	free(p);
	munmap(live_map(8 * PAGE, RW), 8 * PAGE);
	in->wrong |= in->memory[PAGE + 5] != 7; /* a page that is away, perhaps */
	if (in->calls++ % 8 == 0)
		madvise(in->memory, PAGE, MADV_DONTNEED);
}

static enum verdict callbacks(const void *arg)
{
	static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
						     .invalidate = on_invalidate };
	struct churn *churn = hmm_alloc(sizeof(*churn));
	struct inside in = { .memory = away_map(4 * PAGE) };
	struct hmm_notifier *notifier;
	uint64_t began = live_now_ns(), moved = 0;
	struct away *dev;
	char byte = 7;

	one_heap();
	EXPECT(0, away_open(&dev, arg));
	memset(in.memory, 7, 4 * PAGE);
	in.dev = dev;
	EXPECT(0, hmm_notifier_insert(away_hmm(dev), 0, UINTPTR_MAX, &ops, &in, &notifier));
	TRY(churn_start(churn, churn_malloc));
	TRY(churn_start(churn, churn_malloc));
	for (; live_race_on(began, RUN_NS, hard(dev, NULL, moved) && in.calls > 3);
	     usleep(300)) {
		void *volatile p = malloc(3000);

		EXPECT(0, away_write(dev, in.memory + PAGE, &byte, 1));
		TRY(heap_out(dev, &moved));
		TRY(self_out(dev, (uintptr_t)in.memory, (uintptr_t)in.memory + 4 * PAGE,
			     &moved));
		free(p);
	}
	TRY(churn_end(churn));
	hmm_notifier_remove(notifier);
	TRY(was_hard(dev, NULL, moved));
	CHECK(in.calls > 3, "only %u callbacks", in.calls);
	CHECK(!in.wrong, "a callback read a wrong byte");
	away_close(dev);
	return PASS;
}

/* The library's own calls by threads whose stacks are away. */
struct caller {
	pthread_t thread;
	struct away *dev;
	atomic_bool *stop;
	_Atomic uintptr_t top;
	_Atomic unsigned long rounds;
	int err;
};

static void quiet(void *priv, const struct hmm_event *event)
{
}

static int call_once(struct hmm *hmm, char *at)
{
	static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
						     .invalidate = quiet };
	uint64_t pfns[64] = { 0 };
	struct hmm_range range = { .size = sizeof(range),
				   .hmm = hmm,
				   .start = (uintptr_t)at,
				   .end = (uintptr_t)at + 64 * PAGE,
				   .pfns = pfns };
	struct hmm_notifier *notifier;
	int err = hmm_notifier_insert(hmm, (uintptr_t)at, 64 * PAGE, &ops, NULL, &notifier);

	if (err)
		return err;
	range.notifier = notifier;
	for (int i = 0; i < 3; i++) {
		err = hmm_notifier_read_begin(&range);
		err = err ? err : hmm_range_snapshot(&range);
		if (err && err != -EBUSY)
			break;
		err = hmm_notifier_fence(notifier);
	}
	hmm_notifier_remove(notifier);
	err = err ? err : hmm_fence(hmm, (uintptr_t)at, 64 * PAGE);
	hmm_put(hmm_get(hmm));
	return err;
}

static void *call_main(void *arg)
{
	struct caller *c = arg;
	char *at = live_map(64 * PAGE, RW);

	c->top = ((uintptr_t)__builtin_frame_address(0) & -PAGE) + PAGE;
	for (; !*c->stop && !c->err; c->rounds++) {
		at[c->rounds % 64 * PAGE] = 1;
		c->err = call_once(away_hmm(c->dev), at);
	}
	return NULL;
}

static enum verdict calls(const void *arg)
{
	struct caller *c = hmm_alloc(2 * sizeof(*c));
	uint64_t began = live_now_ns(), moved = 0;
	atomic_bool stop = false;
	struct away *dev;

	EXPECT(0, away_open(&dev, arg));
	for (int i = 0; i < 2; i++) {
		c[i].dev = dev;
		c[i].stop = &stop;
		CHECK(!pthread_create(&c[i].thread, NULL, call_main, &c[i]), "no thread");
	}
	for (; live_race_on(began, RUN_NS, hard(dev, NULL, moved)); usleep(300))
		for (int i = 0; i < 2; i++)
			if (c[i].top)
				TRY(self_out(dev, c[i].top - 8 * PAGE, c[i].top, &moved));
	for (int i = 0; i < 2; i++)
		while (c[i].rounds <= 3 && !c[i].err)
			usleep(1000);
	stop = true;
	for (int i = 0; i < 2; i++) {
		pthread_join(c[i].thread, NULL);
		EXPECT(0, c[i].err);
	}
	TRY(was_hard(dev, NULL, moved));
	away_close(dev);
	return PASS;
}

/* ---- signals ---- */

static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	volatile char frame[8000];

	memset((void *)(uintptr_t)frame, 5, sizeof(frame));
	signals += frame[4000] == 5;
}

static void *hear_signals(void *arg)
{
	stack_t stack = { .ss_sp = away_map(64 * PAGE), .ss_size = 64 * PAGE };

	sigaltstack(&stack, NULL);
	*(_Atomic uintptr_t *)arg = (uintptr_t)stack.ss_sp;
	for (;;)
		usleep(100000);
	return NULL;
}

/* A signal's frame goes to a stack that is away: the kernel waits for it. */
static enum verdict signal_stack(const void *arg)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	static _Atomic uintptr_t stack;
	uint64_t moved = 0;
	struct away *dev;
	pthread_t thread;

	EXPECT(0, away_open(&dev, arg));
	sigaction(SIGUSR1, &action, NULL);
	CHECK(!pthread_create(&thread, NULL, hear_signals, (void *)&stack), "no thread");
	while (!stack)
		usleep(100);
	for (int i = 1; i <= 100; i++) {
		TRY(self_out(dev, stack, stack + 64 * PAGE, &moved));
		pthread_kill(thread, SIGUSR1);
		for (int k = 0; k < 5000 && signals < i; k++)
			usleep(100);
		EXPECT(i, signals);
	}
	TRY(was_hard(dev, NULL, moved));
	away_close(dev);
	return PASS;
}

/* ---- threads that end ---- */

struct ender {
	struct away *dev;
	atomic_bool stop;
	_Atomic uintptr_t self; /* its struct pthread, at the top of its stack */
	_Atomic uint64_t moved;
	_Atomic int err;
};

static void *end_at_once(void *arg)
{
	struct ender *e = arg;

	e->self = (uintptr_t)pthread_self();
	return NULL;
}

static void *move_tcb(void *arg)
{
	struct ender *e = arg;

	while (!e->stop) {
		uintptr_t page = e->self & -PAGE;
		int64_t n =
			page ? hmm_migrate_to_device(away_devmem(e->dev), page, PAGE) : 0;

		if (n < 0 && n != -EBUSY && n != -EINVAL)
			e->err = (int)n;
		e->moved += n > 0;
	}
	return NULL;
}

/*
 * The kernel clears a word of struct pthread when a thread has ended, and who joins it
 * waits for that. It does not wait for a missing page then, and what it could not store is
 * lost: such a page must not be away.
 */
static enum verdict thread_exits(const void *arg)
{
	struct ender *e = hmm_alloc(sizeof(*e));
	uint64_t began = live_now_ns();
	unsigned long rounds = 0;
	pthread_t mover, thread;

	EXPECT(0, away_open(&e->dev, arg));
	CHECK(!pthread_create(&mover, NULL, move_tcb, e), "no thread");
	for (; live_race_on(began, 2 * RUN_NS, rounds > 20); rounds++) {
		CHECK(!pthread_create(&thread, NULL, end_at_once, e), "no thread");
		pthread_join(thread, NULL);
	}
	e->stop = true;
	pthread_join(mover, NULL);
	EXPECT(0, e->err);
	CHECK(rounds > 20, "only %lu threads", rounds);
	away_close(e->dev);
	return PASS;
}

/* ---- the end ---- */

/* The device goes with everything in it: all comes home, the process lives on. */
static enum verdict closed(const void *arg)
{
	unsigned char *block = malloc(100000);
	uint64_t moved = 0;
	struct away *dev;

	for (size_t i = 0; i < 100000; i++)
		block[i] = (unsigned char)(i * 7);
	for (int k = 0; k < 5; k++) {
		EXPECT(0, away_open(&dev, arg));
		TRY(self_all_out(dev, &moved));
		away_close(dev);
		for (size_t i = 0; i < 100000; i++)
			EXPECT((unsigned char)(i * 7), block[i]);
	}
	CHECK(moved > 20, "only %llu pages moved", (unsigned long long)moved);
	free(block);
	return PASS;
}

/* The program drops its handles and ends, and everything is still away. */
static enum verdict left(const void *arg)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		char *block = malloc(100000);
		uint64_t moved = 0;
		struct away *dev;

		memset(block, 1, 100000);
		if (away_open(&dev, arg) || self_all_out(dev, &moved) != PASS || moved < 20)
			_exit(99);
		away_leave(dev);
		self_all_out(dev, &moved);
		exit(5); /* atexit handlers, stdio: they find their memory */
	}
	status = live_wait(pid, 10);
	CHECK(status == 5 << 8, "status %#x", status);
	return PASS;
}

/* ---- what must stay ---- */

static int writable_of(struct dl_phdr_info *object, size_t size, void *arg)
{
	uintptr_t(*range)[2] = arg;

	if (!strstr(object->dlpi_name, "libc.so") &&
	    !strstr(object->dlpi_name, "ld-linux") &&
	    !strstr(object->dlpi_name, "libuhmm.so"))
		return 0;
	while ((*range)[0])
		range++;
	for (unsigned i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &object->dlpi_phdr[i];

		if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_W))
			continue;
		(*range)[0] = (object->dlpi_addr + ph->p_vaddr) & -PAGE;
		(*range)[1] =
			(object->dlpi_addr + ph->p_vaddr + ph->p_memsz + PAGE - 1) & -PAGE;
		range++;
	}
	return 0;
}

/* Data of libc, the loader and the library: the pager needs them. */
static enum verdict of_libc(const void *arg)
{
	uintptr_t ranges[8][2] = { { 0, 0 } };
	FILE *file = fopen("/dev/null", "we");
	struct away *dev;
	unsigned n = 0;

	dl_iterate_phdr(writable_of, ranges);
	EXPECT(0, away_open(&dev, arg));
	for (; ranges[n][0]; n++)
		for (uintptr_t at = ranges[n][0]; at < ranges[n][1]; at += PAGE) {
			int64_t moved = hmm_migrate_to_device(away_devmem(dev), at, PAGE);

			CHECK(moved == -EBUSY || moved == 0, "page %#lx: %lld (%s)",
			      (unsigned long)at, (long long)moved,
			      moved < 0 ? hmm_strerror((int)moved) : "it moved");
		}
	CHECK(n >= 3, "only %u objects were found", n);
	for (int i = 0; i < 10000; i++) {
		void *volatile p = malloc((size_t)i * 10 + 1);

		fprintf(file, "%d %s\n", i, getenv("PATH"));
		free(p);
	}
	fclose(file);
	away_close(dev);
	return PASS;
}

/* clang-format off */
#define ON_BOTH(fn, what)                                                                  \
	{ .name = "copied " what, .run = fn, .arg = &copied, .limit_s = 20 },              \
	{ .name = "host " what, .run = fn, .arg = &host, .limit_s = 20 }
/* clang-format on */

int main(int argc, char **argv)
{
	static const struct away_options copied, host = { .host = true };
	static const struct live_case cases[] = {
		ON_BOTH(heap, "heap"),
		ON_BOTH(stacks, "stacks"),
		ON_BOTH(bss, "bss"),
		ON_BOTH(everything, "everything"),
		ON_BOTH(callbacks, "callbacks"),
		ON_BOTH(calls, "calls"),
		ON_BOTH(signal_stack, "signal-stack"),
		ON_BOTH(thread_exits, "thread-exits"),
		ON_BOTH(closed, "closed"),
		ON_BOTH(left, "left"),
		ON_BOTH(of_libc, "of-libc"),
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
