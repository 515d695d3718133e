/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_devmem_attacks - what broke earlier designs of migration, or the interfaces
 * themselves, done to a program whose pages are away.
 *
 * Each is a race or an order of messages that a bare userfaultfd loses: new data taken for
 * old (DONTNEED), a page that somebody else still reads, messages that are late, twice, or
 * of calls that failed, children that outlive who could give them their pages.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "away.h"
#include "uapi.h"

#define PAGES 16u
#define LENGTH (PAGES * PAGE)

/* ---- DONTNEED: an old byte never returns, a new one never goes ---- */

struct mover {
	struct away *dev;
	uintptr_t at;
	atomic_bool stop;
	_Atomic uint64_t moved;
	_Atomic int err;
};

static void *move_main(void *arg)
{
	struct mover *m = arg;

	while (!m->stop && !m->err) {
		int64_t n = hmm_migrate_to_device(away_devmem(m->dev), m->at, LENGTH);

		if (n < 0 && n != -EBUSY)
			m->err = (int)n;
		m->moved += n > 0 ? (uint64_t)n : 0;
		if (n <= 0)
			usleep(10);
	}
	return NULL;
}

/* Old data must have a chance to leave just before the next DONTNEED. */
static void let_it_leave(struct mover *m)
{
	uint64_t before = m->moved, end = live_now_ns() + UINT64_C(30000000);

	while (m->moved == before && live_now_ns() < end)
		;
}

static enum verdict drop_and_write(struct mover *m, char *at)
{
	uint64_t end = live_now_ns() + UINT64_C(3000000000);

	for (unsigned i = 0; live_now_ns() < end; i++) {
		memset(at, 1, LENGTH);
		if (i % 4 == 0)
			let_it_leave(m);
		SYS(madvise(at, LENGTH, MADV_DONTNEED));
		at[0] = 77;
		at[PAGE] = 78;
		for (volatile int k = 0; k < 500; k++)
			;
		CHECK(at[0] == 77 && at[PAGE] == 78, "round %u: new data is lost: %d %d", i,
		      at[0], at[PAGE]);
		for (unsigned p = 0; p < PAGES; p++)
			CHECK(!at[p * PAGE + 9], "round %u, page %u: an old byte is back",
			      i, p);
		CHECK(at[0] == 77 && at[PAGE] == 78, "round %u: new data is lost later", i);
		if (i % 4 == 2)
			let_it_leave(m);
		CHECK(at[0] == 77 && at[PAGE] == 78 && !at[2 * PAGE],
		      "round %u: new data that left is wrong", i);
	}
	return PASS;
}

/* With a thread that does nothing else than send the pages away. */
static enum verdict dropped_data(const void *arg)
{
	char *at = away_map(LENGTH);
	struct mover m = { .at = (uintptr_t)at };
	enum verdict verdict;
	pthread_t thread;

	EXPECT(0, away_open(&m.dev, arg));
	CHECK(!pthread_create(&thread, NULL, move_main, &m), "no thread");
	verdict = drop_and_write(&m, at);
	m.stop = true;
	pthread_join(thread, NULL);
	TRY(verdict);
	EXPECT(0, m.err);
	CHECK(m.moved > 2 * PAGES, "only %llu pages moved", (unsigned long long)m.moved);
	SYS(munmap(at, LENGTH));
	TRY(away_settles(m.dev, 0));
	away_close(m.dev);
	return PASS;
}

/* ---- a page that a pipe has is nobody else's ---- */

static enum verdict others_come_and_go(struct away *dev, char *others)
{
	for (int i = 0; i < 8; i++) {
		memset(others, 'C' + i, 8 * LENGTH);
		TRY(away_out(dev, others, 8 * PAGES));
		for (size_t p = 0; p < 8 * PAGES; p++)
			CHECK(others[p * PAGE] == 'C' + i, "another page is wrong");
	}
	return PASS;
}

static enum verdict spliced(const void *arg)
{
	char *at = away_map(LENGTH), *others = away_map(8 * LENGTH);
	static char seen[LENGTH];
	struct iovec v = { at, LENGTH };
	struct away *dev;
	int fd[2];

	EXPECT(0, away_open(&dev, arg));
	for (int i = 0; i < 5; i++) {
		memset(at, 'A', LENGTH);
		SYS(pipe(fd));
		EXPECT(LENGTH, vmsplice(fd[1], &v, 1, 0));
		CHECK(hmm_migrate_to_device(away_devmem(dev), (uintptr_t)at, LENGTH) >= 0,
		      "to_device");
		TRY(others_come_and_go(dev, others));
		if (i % 2)
			EXPECT('A', at[PAGE]); /* home again, before the pipe is read */
		TRY(others_come_and_go(dev, others));
		EXPECT(LENGTH, read(fd[0], seen, LENGTH));
		for (size_t k = 0; k < LENGTH; k++)
			CHECK(seen[k] == 'A', "the pipe gives '%c' in byte %zu", seen[k],
			      k);
		for (size_t k = 0; k < LENGTH; k += 100)
			EXPECT('A', at[k]);
		close(fd[0]);
		close(fd[1]);
	}
	away_close(dev);
	return PASS;
}

/* ---- children that outlive their parent ---- */

struct orphan {
	const struct away_options *options;
	bool wipe;
	volatile int *seen; /* 1: right; 2 + page */
	char *reason;	    /* shared: why the parent could not begin */
};

static void be_orphan(const struct orphan *o, const char *at, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, 0);
	while (getppid() == parent)
		usleep(100);
	usleep(3000);
	*o->seen = 1;
	for (int p = PAGES - 1; p >= 0; p--)
		if (at[(size_t)p * PAGE] != (o->wipe && p >= 4 ? 0 : 42))
			*o->seen = 2 + p;
	_exit(0);
}

static void be_parent(const struct orphan *o)
{
	char *at = away_map(LENGTH);
	struct away *dev;
	pid_t parent = getpid(), pid;

	memset(at, 42, LENGTH);
	if (away_open(&dev, o->options))
		_exit(98);
	if (away_out(dev, at, PAGES) != PASS) {
		snprintf(o->reason, 200, "%s", live_reason());
		_exit(99);
	}
	if (o->wipe && madvise(at + 4 * PAGE, LENGTH - 4 * PAGE, MADV_WIPEONFORK))
		_exit(97);
	pid = fork();
	if (!pid)
		be_orphan(o, at, parent);
	_exit(pid < 0 ? 96 : 5);
}

static enum verdict orphans(const struct away_options *options, bool wipe)
{
	volatile int *seen = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct orphan o = { options, wipe, seen, (char *)(uintptr_t)(seen + 1) };

	CHECK(seen != MAP_FAILED, "no memory");
	for (int i = 0; i < 16; i++) {
		int status;
		pid_t pid;

		*seen = 0;
		pid = fork();
		if (!pid)
			be_parent(&o);
		status = live_wait(pid, 10);
		CHECK(status == 5 << 8, "the parent's status is %#x: %s", status, o.reason);
		for (int k = 0; k < 5000 && !*seen; k++)
			usleep(1000);
		CHECK(*seen == 1, "round %d: %s (page %d)", i,
		      *seen ? "the child has wrong bytes" : "the child hangs", *seen - 2);
	}
	return PASS;
}

static enum verdict parent_exits(const void *arg)
{
	return orphans(arg, false);
}

static enum verdict parent_exits_wiped(const void *arg)
{
	return orphans(arg, true);
}

/* ---- FORK is read after a later UNMAP ---- */

struct unmapper {
	char *at;
	_Atomic int stage; /* 1: unmap it; 2: done; 3: end */
};

/* mincore() waits as long as fork holds the address space; then it is this thread's turn.
 */
static void *unmap_main(void *arg)
{
	struct unmapper *u = arg;
	unsigned char present;

	while (u->stage != 3) {
		if (u->stage != 1)
			continue;
		for (int i = 0; i < 3; i++)
			mincore(u->at, PAGE, &present);
		munmap(u->at, LENGTH);
		u->stage = 2;
	}
	return NULL;
}

static bool child_sees(const char *at)
{
	unsigned char present[PAGES];

	if (mincore((void *)(uintptr_t)at, LENGTH, present))
		return true; /* unmapped before the fork */
	for (size_t p = 0; p < PAGES; p++)
		for (size_t i = 0; i < PAGE; i += 64)
			if (at[p * PAGE + i] != (char)(p + 1))
				return false;
	return true;
}

static enum verdict fork_after_unmap_rounds(struct away *dev, struct unmapper *u)
{
	uint64_t end = live_now_ns() + UINT64_C(3000000000);

	for (unsigned i = 0; live_now_ns() < end; i++) {
		int status;
		pid_t pid;

		SYS(mmap(u->at, LENGTH, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			 0));
		for (size_t p = 0; p < PAGES; p++)
			memset(u->at + p * PAGE, (int)(p + 1), PAGE);
		CHECK(hmm_migrate_to_device(away_devmem(dev), (uintptr_t)u->at, LENGTH) >=
			      0,
		      "to_device");
		u->stage = 1;
		pid = i % 4 ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
		if (!pid)
			_exit(!child_sees(u->at));
		status = live_wait(pid, 10);
		CHECK(!status, "round %u: the child %s", i,
		      status == -1 ? "hangs" : "has wrong bytes");
		while (u->stage != 2)
			usleep(10);
	}
	return away_settles(dev, 0);
}

static enum verdict fork_after_unmap(const void *arg)
{
	size_t big = (size_t)64 << 20; /* so that a fork takes its time */
	char *room = live_map((size_t)4 << 20, PROT_NONE), *slow = live_map(big, RW);
	struct unmapper u = { .at = room + ((size_t)1 << 20) };
	enum verdict verdict;
	struct away *dev;
	pthread_t thread;

	memset(slow, 1, big);
	EXPECT(0, away_open(&dev, arg));
	CHECK(!pthread_create(&thread, NULL, unmap_main, &u), "no thread");
	verdict = fork_after_unmap_rounds(dev, &u);
	u.stage = 3;
	pthread_join(thread, NULL);
	TRY(verdict);
	away_close(dev);
	return PASS;
}

/* ---- REMAP is read after the UNMAP of its destination ---- */

/* What is being judged when it is asked for stays: ask again. */
static enum verdict out_in_the_end(struct away *dev, char *at)
{
	int64_t n = 0;

	for (int i = 0; i < 3 && n != PAGES; i++)
		n = hmm_migrate_to_device(away_devmem(dev), (uintptr_t)at, LENGTH);
	EXPECT(PAGES, n);
	return PASS;
}

struct remapper {
	char *from, *to;
	_Atomic int done;
};

static void *remap_main(void *arg)
{
	struct remapper *r = arg;

	if (mremap(r->from, LENGTH, LENGTH, MREMAP_MAYMOVE | MREMAP_FIXED, r->to) != r->to)
		r->done = 100;
	r->done++;
	return NULL;
}

/* As soon as the source is gone the move is done: take the destination from it. */
static void *take_main(void *arg)
{
	struct remapper *r = arg;
	unsigned char present;

	while (!mincore(r->from, PAGE, &present))
		;
	mmap(r->to, LENGTH, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	*(volatile char *)(r->to + 3) = 9;
	r->done++;
	return NULL;
}

static enum verdict remap_after_unmap(const void *arg)
{
	char *room = live_map((size_t)4 << 20, PROT_NONE);
	struct remapper r = { room + PAGE, room + ((size_t)2 << 20), 0 };
	struct away *dev;

	EXPECT(0, away_open(&dev, arg));
	for (int i = 0; i < 200; i++) {
		pthread_t a, b;

		SYS(mmap(r.from, LENGTH, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			 0));
		SYS(mmap(r.to, LENGTH, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		memset(r.from, 1, LENGTH);
		memset(r.to, 2, LENGTH);
		TRY(out_in_the_end(dev, r.from));
		if (i % 2)
			TRY(out_in_the_end(dev, r.to));
		r.done = 0;
		pthread_create(&a, NULL, remap_main, &r);
		pthread_create(&b, NULL, take_main, &r);
		pthread_join(a, NULL);
		pthread_join(b, NULL);
		EXPECT(2, r.done);
		EXPECT(9, r.to[3]);
		for (size_t k = 0; k < LENGTH; k += 256)
			CHECK(!r.to[k], "round %d: byte %zu of a new mapping is %d", i, k,
			      r.to[k]);
		/* And what is there now can go away and come home. */
		memset(r.to, 3, LENGTH);
		TRY(out_in_the_end(dev, r.to));
		for (size_t k = 0; k < LENGTH; k += 256)
			EXPECT(3, r.to[k]);
	}
	TRY(away_settles(dev, 0));
	away_close(dev);
	return PASS;
}

/* ---- UNMAP of a call that fails ---- */

static enum verdict failed_by_limit(const void *arg)
{
	struct rlimit before, little;
	struct away *dev;
	struct zone zone;
	void *p;

	TRY(zone_make(&zone, PAGES, 12));
	EXPECT(0, away_open(&dev, arg));
	SYS(getrlimit(RLIMIT_AS, &before));
	for (int i = 0; i < 20; i++) {
		TRY(away_out(dev, zone.at, PAGES));
		little = before;
		little.rlim_cur = (size_t)256 << 20;
		SYS(setrlimit(RLIMIT_AS, &little));
		p = mmap(zone.at, (size_t)8 << 30, RW,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		SYS(setrlimit(RLIMIT_AS, &before));
		CHECK(p == MAP_FAILED, "8 GiB were mapped in spite of RLIMIT_AS");
		TRY(zone_check(&zone, "after a mmap that failed"));
		TRY(away_settles(dev, 0));
	}
	away_close(dev);
	return PASS;
}

static enum verdict failed_by_seal(const void *arg)
{
	struct away *dev;
	struct zone zone;

	TRY(zone_make(&zone, PAGES, 12));
	EXPECT(0, away_open(&dev, arg));
	TRY(away_out(dev, zone.at, PAGES));
	if (syscall(SYS_mseal, zone.at + 8 * PAGE, 8 * PAGE, 0))
		return live_skip("mseal (6.10): %s", strerror(errno));
	for (int i = 0; i < 5; i++) {
		EXPECT(-1, munmap(zone.at, LENGTH));
		EXPECT(-1, mremap(zone.at, LENGTH, LENGTH / 4, 0) == MAP_FAILED ? -1 : 0);
		TRY(zone_check(&zone, "after a munmap that failed"));
		CHECK(hmm_migrate_to_device(away_devmem(dev), (uintptr_t)zone.at, LENGTH) >=
			      0,
		      "once more");
	}
	TRY(zone_check(&zone, "in the end"));
	away_close(dev);
	return PASS;
}

/* What comes in its place is new, whether the call before failed or not. */
static enum verdict failed_then_real(const void *arg)
{
	struct rlimit before, little;
	struct away *dev;
	struct zone zone;

	TRY(zone_make(&zone, PAGES, 13));
	EXPECT(0, away_open(&dev, arg));
	SYS(getrlimit(RLIMIT_AS, &before));
	little = before;
	little.rlim_cur = (size_t)256 << 20;
	for (int i = 0; i < 50; i++) {
		zone_fill(&zone, 0, PAGES, 13);
		TRY(away_out(dev, zone.at, PAGES));
		SYS(setrlimit(RLIMIT_AS, &little));
		mmap(zone.at, (size_t)8 << 30, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		     -1, 0);
		SYS(setrlimit(RLIMIT_AS, &before));
		SYS(mmap(zone.at + 4 * PAGE, 4 * PAGE, RW,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		zone_zero(&zone, 4, 8);
		TRY(zone_check(&zone, "after one that failed and one that did not"));
	}
	TRY(away_settles(dev, 0));
	away_close(dev);
	return PASS;
}

/* ---- shmat(SHM_REMAP), of which nothing tells, over what is away ---- */

struct over {
	struct away *dev;
	struct zone zone;
	char *at; /* the segment, or what came after it */
	size_t first, pages;
};

static enum verdict over_home(struct over *o)
{
	int64_t n = hmm_migrate_to_host(away_hmm(o->dev), (uintptr_t)o->zone.at, LENGTH);

	CHECK(n >= 0, "to_host: %lld", (long long)n);
	return PASS;
}

static enum verdict over_evict(struct over *o)
{
	int64_t n = hmm_devmem_evict(away_devmem(o->dev), 0, UINT64_MAX);

	CHECK(n >= 0, "evict: %lld", (long long)n);
	return PASS;
}

static enum verdict over_close(struct over *o)
{
	struct away *dev = o->dev;

	o->dev = NULL;
	away_close(dev);
	return PASS;
}

static enum verdict over_touch(struct over *o)
{
	for (size_t p = 0; p < PAGES; p++)
		((volatile char *)o->zone.at)[p * PAGE];
	return PASS;
}

static enum verdict over_fork(struct over *o)
{
	pid_t pid = fork();

	if (!pid)
		_exit(zone_differs(&o->zone) >= 0);
	EXPECT(0, live_wait(pid, 10));
	return PASS;
}

static enum verdict over_clone(struct over *o)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (!pid)
		_exit(zone_differs(&o->zone) >= 0);
	EXPECT(0, live_wait(pid, 10));
	return PASS;
}

static enum verdict over_again(struct over *o)
{
	int64_t n = hmm_migrate_to_device(away_devmem(o->dev), (uintptr_t)o->zone.at, LENGTH);

	CHECK(n >= 0 || n == -EBUSY, "to_device: %lld", (long long)n);
	return PASS;
}

/* Pages that are away themselves, moved over it. */
static enum verdict over_mremap(struct over *o)
{
	char *from = away_map(LENGTH);
	size_t length = o->pages * PAGE;

	for (size_t i = 0; i < length; i++)
		from[i] = o->zone.shadow[o->first * PAGE + i] = (char)(i / 64 + 7);
	TRY(away_out(o->dev, from, o->pages));
	CHECK(mremap(from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, o->at) == o->at,
	      "mremap: %s", strerror(errno));
	return PASS;
}

static enum verdict over_shmdt(struct over *o)
{
	SYS(shmdt(o->at));
	zone_access(&o->zone, o->first, o->first + o->pages, ZONE_NONE);
	return PASS;
}

/* Anonymous memory anew after it, which is private and may be taken for the old one. */
static enum verdict over_map(struct over *o)
{
	size_t length = o->pages * PAGE;

	SYS(shmdt(o->at));
	SYS(mmap(o->at, length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	zone_zero(&o->zone, o->first, o->first + o->pages);
	return over_again(o);
}

/* The same, and the device looks at it first. */
static enum verdict over_seen(struct over *o)
{
	size_t length = o->pages * PAGE;
	unsigned char *seen = hmm_alloc(LENGTH);

	SYS(shmdt(o->at));
	SYS(mmap(o->at, length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	zone_zero(&o->zone, o->first, o->first + o->pages);
	EXPECT(0, away_read(o->dev, seen, o->at, length));
	for (size_t i = 0; i < length; i++)
		CHECK(!seen[i], "the device reads %d in new memory", seen[i]);
	hmm_free(seen, LENGTH);
	return over_home(o);
}

/* Anew, written to, looked at, and away: what was known of the old mapping is not of this one. */
static enum verdict over_anew(struct over *o)
{
	size_t length = o->pages * PAGE;
	unsigned char *seen = hmm_alloc(LENGTH), *shadow = o->zone.shadow + o->first * PAGE;

	SYS(shmdt(o->at));
	SYS(mmap(o->at, length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	for (size_t i = 0; i < length; i++)
		o->at[i] = (char)(shadow[i] = (unsigned char)(i / 64 + 9));
	EXPECT(0, away_read(o->dev, seen, o->at, length));
	EXPECT(0, memcmp(seen, shadow, length));
	hmm_free(seen, LENGTH);
	return over_again(o);
}

static const struct over_op {
	const char *name;
	enum verdict (*run)(struct over *o);
} over_ops[] = {
	{ "touch", over_touch },   { "home", over_home },     { "evict", over_evict },
	{ "close", over_close },   { "fork", over_fork },     { "clone", over_clone },
	{ "again", over_again },   { "mremap", over_mremap }, { "shmdt", over_shmdt },
	{ "mapped", over_map },	   { "seen", over_seen },     { "anew", over_anew },
};

/* Every other page of the segment has been written to. */
static enum verdict over_attach(struct over *o)
{
	size_t length = o->pages * PAGE;
	int id = shmget(IPC_PRIVATE, length, IPC_CREAT | 0600);
	char *elsewhere = shmat(id, NULL, 0);

	CHECK(elsewhere != (void *)-1, "shmat: %s", strerror(errno));
	zone_zero(&o->zone, o->first, o->first + o->pages);
	for (size_t p = 0; p < o->pages; p += 2)
		elsewhere[p * PAGE] = o->zone.shadow[(o->first + p) * PAGE] = 'S';
	o->at = shmat(id, o->zone.at + o->first * PAGE, SHM_REMAP);
	CHECK(o->at == o->zone.at + o->first * PAGE, "shmat: %s", strerror(errno));
	shmctl(id, IPC_RMID, NULL);
	SYS(shmdt(elsewhere));
	return PASS;
}

/* looked: the device has, so that the segment is mirrored when the pages would come home. */
static enum verdict over_one(const struct away_options *options, const struct over_op *op,
			     bool part, bool looked)
{
	struct over o = { .first = part ? 4 : 0, .pages = part ? 8 : PAGES };
	size_t length = o.pages * PAGE;
	char *seen = hmm_alloc(LENGTH);

	TRY(zone_make(&o.zone, PAGES, 15));
	EXPECT(0, away_open(&o.dev, options));
	TRY(away_out(o.dev, o.zone.at, PAGES));
	TRY(over_attach(&o));
	if (looked) {
		EXPECT(0, away_read(o.dev, seen, o.at, length));
		EXPECT(0, memcmp(seen, o.zone.shadow + o.first * PAGE, length));
	}
	TRY(op->run(&o));
	TRY(zone_check(&o.zone, op->name));
	if (o.dev) {
		TRY(over_home(&o));
		TRY(away_settles(o.dev, 0));
		away_close(o.dev);
	}
	TRY(zone_check(&o.zone, "closed"));
	zone_dispose(&o.zone);
	hmm_free(seen, LENGTH);
	return PASS;
}

static enum verdict shmat_over(const void *arg)
{
	for (unsigned i = 0; i < sizeof(over_ops) / sizeof(over_ops[0]); i++)
		for (unsigned how = 0; how < 4; how++) {
			const struct over_op *op = &over_ops[i];
			char why[200];

			if (over_one(arg, op, how & 1, how & 2) == PASS)
				continue;
			snprintf(why, sizeof(why), "%s", live_reason());
			FAILED("%s, %s%s: %s", op->name, how & 1 ? "part" : "whole",
			       how & 2 ? ", looked at" : "", why);
		}
	return PASS;
}

/* ---- a child has copies of our descriptors ---- */

static enum verdict inherited(const void *arg)
{
	pid_t children[2];
	struct away *dev;
	struct zone zone;

	TRY(zone_make(&zone, PAGES, 14));
	EXPECT(0, away_open(&dev, arg));
	for (int i = 0; i < 2; i++) {
		TRY(away_out(dev, zone.at, PAGES));
		children[i] = i ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
		if (!children[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;)
				pause();
		}
	}
	TRY(away_out(dev, zone.at, PAGES));
	away_close(dev); /* the last reference: everything is taken back */
	TRY(zone_check(&zone, "closed"));
	SYS(madvise(zone.at, PAGE, MADV_DONTNEED));
	SYS(munmap(zone.at, LENGTH)); /* would wait for ever */
	for (int i = 0; i < 2; i++) {
		kill(children[i], SIGKILL);
		waitpid(children[i], NULL, 0);
	}
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
		ON_BOTH(dropped_data, "remove-by-move-loses-new-data"),
		ON_BOTH(spliced, "vmsplice-page-reuse"),
		ON_BOTH(parent_exits, "fork-parent-exits"),
		ON_BOTH(parent_exits_wiped, "fork-parent-exits-wipeonfork"),
		ON_BOTH(fork_after_unmap, "fork-event-after-unmap"),
		ON_BOTH(remap_after_unmap, "remap-after-unmap-order"),
		ON_BOTH(failed_by_limit, "unmap-event-of-failed-call"),
		ON_BOTH(failed_by_seal, "unmap-event-of-failed-call-sealed"),
		ON_BOTH(failed_then_real, "unmap-event-of-failed-call-then-real"),
		ON_BOTH(shmat_over, "shmat-remap"),
		ON_BOTH(inherited, "inherited-uffd-hangs-munmap"),
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
