/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * userptr_races - memory changes while jobs are prepared and run.
 *
 * The kernels use the first MiB of an object; another thread maps, moves, discards and writes the
 * second, so that pages are got, jobs refused, waited for and restored all the time, and
 * results must be right nevertheless. And memory that a kernel uses goes.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "userptr_live.h"

struct churner {
	pthread_t thread;
	char *at; /* a MiB */
	_Atomic bool stop;
	_Atomic unsigned changes;
};

static void map_over(char *at, size_t n)
{
	if (mmap(at, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != at)
		abort();
}

/* New pages, from elsewhere. */
static void move_over(char *at, size_t n)
{
	char *from = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (from == MAP_FAILED)
		abort();
	memset(from, 3, n);
	if (mremap(from, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, at) != at)
		abort();
}

static void *churn(void *arg)
{
	struct churner *c = arg;
	struct timespec pause = { 0, 200000 };

	for (unsigned i = 0; !atomic_load(&c->stop); i++) {
		char *at = c->at + i % 16 * (MIB / 16);

		switch (i % 4) {
		case 0:
			map_over(at, MIB / 16);
			break;
		case 1:
			madvise(at, MIB / 16, MADV_DONTNEED);
			break;
		case 2:
			move_over(at, MIB / 16);
			break;
		default:
			memset(at, (int)i, MIB / 16);
			break;
		}
		atomic_fetch_add(&c->changes, 1);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static enum verdict run_beside(struct cl *cl, char *at)
{
	struct userptr_object *object;
	struct timespec now, start;
	unsigned rounds = 0;

	EXPECT(0, userptr_object_create(cl->dev, at, 2 * MIB, USERPTR_REGISTER, &object));
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		TRY(saxpy_agrees(cl, (float *)(void *)at, (float *)(void *)(at + MIB / 2), 100000,
				 rounds++, -ESTALE));
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (rounds < 30 || now.tv_sec < start.tv_sec + 2);
	userptr_object_destroy(object);
	return PASS;
}

enum verdict userptr_churn(const void *arg)
{
	struct churner c = { .stop = false };
	struct userptr_stats stats;
	enum verdict verdict;
	struct memory m;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	TRY(memory_make(&m, "anon"));
	c.at = m.at + MIB;
	CHECK(!pthread_create(&c.thread, NULL, churn, &c), "no thread");
	verdict = run_beside(&cl, m.at);
	atomic_store(&c.stop, true);
	pthread_join(c.thread, NULL);
	TRY(verdict);
	stats = cl_stats(&cl);
	CHECK(c.changes > 20 && stats.invalidations > 20, "%u changes, %llu invalidations",
	      c.changes, (unsigned long long)stats.invalidations);
	if (((const struct rules *)arg)->mode == USERPTR_KFD)
		CHECK(stats.evictions && stats.restores, "no eviction was restored");
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}

/*
 * The memory that a kernel works on is unmapped meanwhile: an error, and the program lives. Small,
 * for each access that is left out is a signal.
 */
enum verdict userptr_gone_while_running(const void *arg)
{
	const struct timespec pause = { 0, 300000 };
	struct userptr_object *object;
	unsigned failed = 0;
	struct memory m;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	TRY(memory_make(&m, "anon"));
	EXPECT(0, userptr_object_create(cl.dev, m.at, SPACE, USERPTR_REGISTER, &object));
	for (unsigned round = 0; round < 20; round++) {
		struct userptr_arg args[] = { arg_pointer(m.at, MIB, USERPTR_READ),
					      arg_pointer(m.at + MIB, MIB, RW) };
		struct userptr_job *job;
		int err;

		for (size_t i = 0; i < SPACE / sizeof(float); i++)
			((float *)(void *)m.at)[i] = 1; /* every page will differ */
		EXPECT(0, cl_launch(&cl, GRIND, args, 2, MIB / 128, 0, &job));
		if (round % 2)
			nanosleep(&pause, NULL);
		SYS(munmap(m.at, SPACE));
		err = userptr_wait(job);
		CHECK(!err || err == -ESTALE || err == -EFAULT, "wait: %s",
		      userptr_strerror(err));
		failed += err != 0;
		CHECK(mmap(m.at, SPACE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == m.at,
		      "something was left where memory had been unmapped");
		TRY(saxpy_agrees(&cl, (float *)(void *)m.at, (float *)(void *)(m.at + MIB), 1000,
				 round, 0));
	}
	CHECK(failed, "no job noticed");
	userptr_object_destroy(object);
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}

/* ---- P3, with the change while userptr_wait() stores ---- */

#define STORED (MIB / 4)
#define NEW 0xee

struct replacer {
	char *at;
	unsigned how, spin;
	sem_t go, done;
	bool stop;
};

static void replace(const struct replacer *r)
{
	if (r->how == 0)
		munmap(r->at, STORED);
	if (r->how == 2)
		madvise(r->at, STORED, MADV_DONTNEED);
	else
		map_over(r->at, STORED);
	memset(r->at, NEW, STORED);
}

static void *replacer(void *arg)
{
	struct replacer *r = arg;

	for (;;) {
		sem_wait(&r->go);
		if (r->stop)
			return NULL;
		for (unsigned i = r->spin; i; i--)
			__asm__ volatile("");
		replace(r);
		sem_post(&r->done);
	}
}

static enum verdict one_replaced(struct cl *cl, struct replacer *r, struct userptr_object *o,
				 bool *spoiled)
{
	float a = 1;
	struct userptr_arg args[] = { arg_value(&a, sizeof(a)), arg_object(o, USERPTR_READ),
				      arg_object(o, RW) };
	struct userptr_job *job;
	int err;

	for (size_t i = 0; i < STORED / sizeof(float); i++)
		((float *)(void *)r->at)[i] = 1;
	EXPECT(0, cl_launch(cl, SAXPY, args, 3, STORED / sizeof(float), 0, &job));
	sem_post(&r->go);
	err = userptr_wait(job);
	CHECK(!err || err == -ESTALE || err == -EFAULT, "wait: %s", userptr_strerror(err));
	sem_wait(&r->done);
	*spoiled = false;
	for (size_t i = 0; i < STORED; i++)
		*spoiled |= (unsigned char)r->at[i] != NEW;
	return PASS;
}

/*
 * What was mapped anew has what was written there, and nothing of the job's. Between the last look
 * at a page and its store another thread can map it anew (drivers/userptr/README.md, "Limits"):
 * so rarely that it is one in some thousand here, where nothing else is tried.
 */
enum verdict userptr_replaced_while_stored(const void *arg)
{
	struct replacer r = { .stop = false };
	struct userptr_object *object;
	const unsigned rounds = 150;
	unsigned spoiled = 0;
	struct memory m;
	pthread_t thread;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	if (cl.shares) {
		cl_end(&cl);
		return live_skip("a device that shares memory stores nothing later");
	}
	TRY(memory_make(&m, "anon"));
	r.at = m.at;
	sem_init(&r.go, 0, 0);
	sem_init(&r.done, 0, 0);
	EXPECT(0, userptr_object_create(cl.dev, m.at, STORED, USERPTR_REGISTER, &object));
	CHECK(!pthread_create(&thread, NULL, replacer, &r), "no thread");
	for (unsigned i = 0; i < rounds; i++) {
		bool bad = false;

		r.how = i % 3;
		r.spin = (unsigned)rand() % 200000;
		TRY(one_replaced(&cl, &r, object, &bad));
		spoiled += bad;
	}
	CHECK(spoiled <= rounds / 20, "of %u new mappings %u have bytes of the job", rounds, spoiled);
	r.stop = true;
	sem_post(&r.go);
	pthread_join(thread, NULL);
	userptr_object_destroy(object);
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}
