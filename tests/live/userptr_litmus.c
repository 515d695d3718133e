/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * userptr_litmus - stale answers, counted: a page becomes another, gets a number that was never
 * there, and a kernel reads it. Every other round the change is another thread's.
 */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>

#include "userptr_live.h"

/* On the five devices together 1e5; kfd's take a millisecond each. */
#define ROUNDS 30000u
#define ROUNDS_KFD 5000u
#define READ_WRITE (PROT_READ | PROT_WRITE)
#define ANON (MAP_PRIVATE | MAP_ANONYMOUS)

struct litmus {
	char *at; /* a page, in the middle of an object of four */
	unsigned round;
	bool failed, stop;
	sem_t go, done;
};

/*
 * The object's next page comes here, with what it was given some rounds ago. It is known not to have
 * been written to since the device had it, and takes that mark along: only the event says that here
 * it is another.
 */
static bool move_over(char *at)
{
	char *from = at + PAGE;

	return mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at &&
	       mmap(from, PAGE, READ_WRITE, ANON | MAP_FIXED_NOREPLACE, -1, 0) == from;
}

static void change(struct litmus *l)
{
	switch (l->round / 2 % 5) {
	case 0:
		l->failed |= munmap(l->at, PAGE) ||
			     mmap(l->at, PAGE, READ_WRITE, ANON | MAP_FIXED_NOREPLACE, -1, 0) !=
				     l->at;
		break;
	case 1:
		l->failed |= mmap(l->at, PAGE, READ_WRITE, ANON | MAP_FIXED, -1, 0) != l->at;
		break;
	case 2:
		l->failed |= madvise(l->at, PAGE, MADV_DONTNEED) != 0;
		*(volatile unsigned *)(void *)(l->at + PAGE) = ~l->round; /* for move_over() */
		break;
	case 3:
		l->failed |= !move_over(l->at);
		return;
	default: /* only written to */
		break;
	}
	if (!l->failed && l->round % 7) /* else it reads as zero, but after a mere write */
		*(volatile unsigned *)(void *)l->at = l->round;
}

static void *other_thread(void *arg)
{
	struct litmus *l = arg;

	for (;;) {
		sem_wait(&l->go);
		if (l->stop)
			return NULL;
		change(l);
		sem_post(&l->done);
	}
}

static enum verdict one_round(struct cl *cl, struct litmus *l, struct userptr_object *in,
			      unsigned *out, unsigned *stale)
{
	struct userptr_arg args[] = { arg_object(in, USERPTR_READ),
				      arg_pointer(out, sizeof(*out), USERPTR_WRITE) };
	unsigned want;
	int err;

	if (l->round % 2) {
		sem_post(&l->go);
		sem_wait(&l->done);
	} else {
		change(l);
	}
	CHECK(!l->failed, "a change failed: %s", strerror(errno));
	err = cl_launch(cl, PEEK, args, 2, 1, 0, NULL);
	CHECK(!err, "round %u: %s", l->round, userptr_strerror(err));
	want = *(volatile unsigned *)(void *)l->at;
	*stale += *out != want;
	return PASS;
}

static enum verdict count(struct cl *cl, struct litmus *l, unsigned rounds, unsigned *stale)
{
	struct userptr_object *in, *object;
	char *base = mmap(NULL, 4 * PAGE, READ_WRITE, ANON, -1, 0);
	unsigned *out = mmap(NULL, PAGE, READ_WRITE, ANON, -1, 0);

	CHECK(base != MAP_FAILED && out != MAP_FAILED, "no memory");
	l->at = base + PAGE;
	EXPECT(0, userptr_object_create(cl->dev, base, 4 * PAGE,
					USERPTR_REGISTER | USERPTR_READONLY, &in));
	EXPECT(0, userptr_object_create(cl->dev, out, PAGE, USERPTR_REGISTER, &object));
	for (l->round = 1; l->round <= rounds; l->round++)
		TRY(one_round(cl, l, in, out, stale));
	userptr_object_destroy(in);
	userptr_object_destroy(object);
	munmap(base, 4 * PAGE);
	munmap(out, PAGE);
	return PASS;
}

enum verdict userptr_litmus(const void *arg)
{
	struct litmus l = { .failed = false };
	enum verdict verdict;
	bool kfd = ((const struct rules *)arg)->mode == USERPTR_KFD;
	unsigned rounds = kfd ? ROUNDS_KFD : ROUNDS, stale = 0;
	pthread_t thread;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	sem_init(&l.go, 0, 0);
	sem_init(&l.done, 0, 0);
	CHECK(!pthread_create(&thread, NULL, other_thread, &l), "no thread");
	verdict = count(&cl, &l, rounds, &stale);
	l.stop = true;
	sem_post(&l.go);
	pthread_join(thread, NULL);
	TRY(verdict);
	CHECK(!stale, "%u stale answers in %u rounds", stale, rounds);
	cl_end(&cl);
	return PASS;
}
