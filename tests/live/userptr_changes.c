/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * userptr_changes - memory changes between jobs: kernels on each kind of memory, on each device;
 * what is copied is what changed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "userptr_live.h"

#define ROUNDS 12u

static enum verdict write_some(struct memory *m, unsigned round)
{
	memset(m->at + round % 7 * 5000, (int)round, 100);
	return PASS;
}

static enum verdict discard(struct memory *m, unsigned round)
{
	if (memory_is_mapped(m))
		SYS(madvise(m->at, SPACE, MADV_DONTNEED));
	return PASS;
}

static enum verdict renew(struct memory *m, unsigned round)
{
	return memory_renew(m);
}

/* Away and back. */
static enum verdict move(struct memory *m, unsigned round)
{
	char *other;

	if (!memory_is_mapped(m))
		return PASS;
	other = mmap(NULL, 2 * SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	SYS((long)(intptr_t)other);
	other = (char *)(((uintptr_t)other + SPACE - 1) & ~(SPACE - 1));
	SYS(mremap(m->at, SPACE, SPACE, MREMAP_MAYMOVE | MREMAP_FIXED, other));
	SYS(mremap(other, SPACE, SPACE, MREMAP_MAYMOVE | MREMAP_FIXED, m->at));
	return PASS;
}

static enum verdict protect(struct memory *m, unsigned round)
{
	if (memory_is_mapped(m)) {
		SYS(mprotect(m->at, SPACE, PROT_READ));
		SYS(mprotect(m->at, SPACE, PROT_READ | PROT_WRITE));
	}
	return PASS;
}

static enum verdict (*const changes[])(struct memory *m, unsigned round) = {
	write_some, discard, renew, move, protect,
};

static enum verdict on_kind(struct cl *cl, const char *kind)
{
	struct userptr_object *object;
	struct memory m;

	TRY(memory_make(&m, kind));
	EXPECT(0, userptr_object_create(cl->dev, m.at, SPACE, USERPTR_REGISTER, &object));
	for (unsigned round = 0; round < ROUNDS; round++) {
		TRY(kernels_agree(cl, m.at, round));
		TRY(changes[round % (sizeof(changes) / sizeof(*changes))](&m, round));
	}
	userptr_object_destroy(object);
	memory_end(&m);
	return PASS;
}

struct rules_and_kind {
	const struct rules *rules;
	const char *kind;
};

enum verdict userptr_on_memory(const void *arg)
{
	const struct rules_and_kind *what = arg;
	enum verdict verdict;
	struct cl cl;

	TRY(cl_begin(&cl, what->rules));
	verdict = on_kind(&cl, what->kind);
	cl_end(&cl);
	return verdict;
}

/* Only what was written to goes up, and only what the kernel wrote comes down. */
enum verdict userptr_only_changed(const void *arg)
{
	const struct rules *rules = arg;
	struct userptr_stats before, after;
	struct userptr_object *object;
	struct memory m;
	struct cl cl;

	TRY(cl_begin(&cl, rules));
	TRY(memory_make(&m, "anon"));
	madvise(m.at, SPACE, MADV_NOHUGEPAGE);
	memset(m.at, 1, SPACE);
	EXPECT(0, userptr_object_create(cl.dev, m.at, SPACE, USERPTR_REGISTER, &object));
	for (unsigned i = 0; i < 5; i++) {
		float a = 1;
		struct userptr_arg args[] = { arg_value(&a, sizeof(a)),
					      arg_object(object, USERPTR_READ),
					      arg_pointer(m.at + MIB, MIB, RW) };

		before = cl_stats(&cl);
		m.at[100 * PAGE] = (char)(i + 2);
		m.at[200 * PAGE] = (char)(i + 2);
		/* One page of floats. */
		EXPECT(0, cl_launch(&cl, SAXPY, args, 3, PAGE / sizeof(float), 0, NULL));
		after = cl_stats(&cl);
		if (cl.shares) {
			EXPECT(0, after.pages_up + after.pages_down + after.pages_hashed);
			continue;
		}
		EXPECT(1, after.pages_down - before.pages_down);
		EXPECT(i ? 2 : SPACE / PAGE, after.pages_up - before.pages_up);
		if (i && !(rules->flags & USERPTR_CHECKSUM)) /* up, and the MiB down again */
			CHECK(after.pages_hashed - before.pages_hashed <= 3 + MIB / PAGE,
			      "%llu pages were looked at",
			      (unsigned long long)(after.pages_hashed - before.pages_hashed));
	}
	userptr_object_destroy(object);
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}

static enum verdict submit_slow(struct cl *cl, struct userptr_object *object, int rounds,
				struct userptr_job **job)
{
	struct userptr_arg args[] = { arg_object(object, RW),
				      arg_value(&rounds, sizeof(rounds)) };

	EXPECT(0, cl_launch(cl, SLOW, args, 2, 1, 0, job));
	return PASS;
}

/* [M] An invalidate while a job runs waits for its end. Pages that the kernel uses stay. */
enum verdict userptr_waits(const void *arg)
{
	struct userptr_object *object;
	struct userptr_stats stats;
	struct userptr_job *job;
	struct memory m;
	struct hmm *hmm;
	struct cl cl;
	int err;

	TRY(cl_begin(&cl, arg));
	TRY(memory_make(&m, "anon"));
	EXPECT(0, hmm_open(&hmm));
	EXPECT(0, userptr_object_create(cl.dev, m.at, SPACE, USERPTR_REGISTER, &object));
	TRY(submit_slow(&cl, object, 1, &job));
	EXPECT(0, userptr_wait(job));
	TRY(submit_slow(&cl, object, 100000000, &job));
	SYS(madvise(m.at + MIB, MIB, MADV_DONTNEED));
	EXPECT(0, hmm_fence(hmm, (uintptr_t)m.at, SPACE));
	stats = cl_stats(&cl);
	CHECK(stats.waits, "nobody waited for the job");
	if (((const struct rules *)arg)->mode == USERPTR_GFX)
		CHECK(!userptr_object_valid(object), "the object is valid still");
	err = userptr_wait(job);
	CHECK(!err || err == -ESTALE, "wait: %s", userptr_strerror(err));
	CHECK(((float *)(void *)m.at)[1] > 900, "the kernel's result is not there");
	userptr_object_destroy(object);
	hmm_put(hmm);
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}

/* P3: what a job wrote does not go to what was mapped there afterwards. */
enum verdict userptr_dropped(const void *arg)
{
	struct userptr_object *object;
	struct userptr_job *job;
	struct memory m;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	if (cl.shares) {
		cl_end(&cl);
		return live_skip("a device that shares memory stores nothing later");
	}
	TRY(memory_make(&m, "anon"));
	EXPECT(0, userptr_object_create(cl.dev, m.at, SPACE, USERPTR_REGISTER, &object));
	for (unsigned round = 0; round < 20; round++) {
		TRY(submit_slow(&cl, object, 2000000, &job));
		TRY(memory_renew(&m));
		EXPECT(-ESTALE, userptr_wait(job));
		for (size_t i = 0; i < SPACE; i++)
			CHECK(!m.at[i], "byte %zu was written after it was mapped anew", i);
	}
	CHECK(cl_stats(&cl).pages_dropped, "no page was dropped");
	userptr_object_destroy(object);
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}

/* kfd: a change without any job stops the queue, and it comes back by itself. */
enum verdict userptr_restored(const void *arg)
{
	struct userptr_object *object, *hole;
	struct userptr_stats stats;
	struct memory m, other;
	struct hmm *hmm;
	struct cl cl;

	TRY(cl_begin(&cl, arg));
	EXPECT(0, hmm_open(&hmm));
	TRY(memory_make(&m, "anon"));
	TRY(memory_make(&other, "anon"));
	EXPECT(0, userptr_object_create(cl.dev, m.at, SPACE,
					USERPTR_REGISTER | USERPTR_VALIDATE, &object));
	EXPECT(0, userptr_object_create(cl.dev, other.at, SPACE,
					USERPTR_REGISTER | USERPTR_VALIDATE, &hole));
	TRY(memory_renew(&m));
	EXPECT(0, hmm_fence(hmm, (uintptr_t)m.at, SPACE));
	for (unsigned i = 0; i < 2000 && !userptr_object_valid(object); i++)
		usleep(1000);
	CHECK(userptr_object_valid(object), "it was not restored");
	/* Memory that is gone stays without pages, and holds up nobody. */
	SYS(munmap(other.at, SPACE));
	TRY(kernels_agree(&cl, m.at, 3));
	CHECK(!userptr_object_valid(hole), "nothing is mapped, and the object has pages");
	stats = cl_stats(&cl);
	CHECK(stats.evictions >= 2 && stats.quiesced && stats.restores,
	      "%llu evictions, %llu times stopped, %llu restored",
	      (unsigned long long)stats.evictions, (unsigned long long)stats.quiesced,
	      (unsigned long long)stats.restores);
	userptr_object_destroy(object);
	userptr_object_destroy(hole);
	hmm_put(hmm);
	memory_end(&m);
	cl_end(&cl);
	return PASS;
}
