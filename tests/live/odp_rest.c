/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* odp_rest - counts that are exact, advice, many requests at once, limits, options, forks. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "odp_live.h"

#define RW (PROT_READ | PROT_WRITE)
#define PAGES 64u

static unsigned resident(char *at, size_t pages)
{
	unsigned char vec[PAGES];
	unsigned n = 0;

	if (mincore(at, pages * PAGE, vec))
		return ~0u;
	for (size_t i = 0; i < pages; i++)
		n += vec[i] & 1;
	return n;
}

static enum verdict counts(struct pair *p, uint64_t faults, uint64_t prefetches,
			   uint64_t invalidations)
{
	struct odp_region_stats s = { .size = sizeof(s) };

	odp_region_get_stats(p->region, &s);
	CHECK(s.faults == faults && s.prefetches == prefetches &&
		      s.invalidations == invalidations &&
		      s.mapped == faults + prefetches - invalidations,
	      "faults %llu (expected %llu), prefetches %llu (%llu), invalidations %llu (%llu), "
	      "mapped %llu", (unsigned long long)s.faults, (unsigned long long)faults,
	      (unsigned long long)s.prefetches, (unsigned long long)prefetches,
	      (unsigned long long)s.invalidations, (unsigned long long)invalidations,
	      (unsigned long long)s.mapped);
	return PASS;
}

/* Registration maps what is there, and faults nothing in. */
static enum verdict exact(const void *arg)
{
	char *at = live_map(PAGES * PAGE, RW);
	struct pair p;

	madvise(at, PAGES * PAGE, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < 10; i++)
		at[i * 3 * PAGE] = 1;
	CHECK(resident(at, PAGES) == 10, "the premise");
	TRY(pair_begin(&p, at, PAGES * PAGE, ODP_ALL));
	CHECK(resident(at, PAGES) == 10, "registration faulted %u pages", resident(at, PAGES));
	TRY(counts(&p, 0, 10, 0));
	TRY(gets(&p, at, 100));
	TRY(counts(&p, 0, 10, 0));
	TRY(gets(&p, at + PAGE, 1));
	TRY(counts(&p, 1, 10, 0));
	TRY(puts_bytes(&p, at + 4 * PAGE + 1, 2 * PAGE, 1)); /* 4 and 5 are new, 6 is there */
	TRY(counts(&p, 3, 10, 0));
	EXPECT(0, odp_advise(p.odp, &p.key, address(at), PAGES * PAGE, ODP_PREFETCH, true));
	TRY(counts(&p, 3, PAGES - 3, 0));
	SYS(madvise(at + 20 * PAGE, 5 * PAGE, MADV_DONTNEED));
	TRY(gets(&p, at, 1));
	EXPECT(0, odp_advise(p.odp, &p.key, address(at), PAGES * PAGE, ODP_PREFETCH_NO_FAULT,
			     true));
	TRY(counts(&p, 3, PAGES - 3, 5));
	at[21 * PAGE] = at[23 * PAGE] = 1;
	EXPECT(0, odp_region_advise(p.region, address(at), PAGES * PAGE, ODP_PREFETCH_NO_FAULT,
				    true));
	TRY(counts(&p, 3, PAGES - 1, 5));
	SYS(munmap(at, PAGES * PAGE));
	EXPECT(-EFAULT, odp_advise(p.odp, &p.key, address(at), PAGE, ODP_PREFETCH, true));
	TRY(counts(&p, 3, PAGES - 1, 5 + PAGES - 3));
	pair_end(&p);
	return PASS;
}

static enum verdict waits_for(struct pair *p, uint64_t prefetches)
{
	struct odp_region_stats s = { .size = sizeof(s) };

	for (unsigned i = 0; i < 2000; i++, usleep(1000)) {
		odp_region_get_stats(p->region, &s);
		if (s.prefetches >= prefetches)
			return PASS;
	}
	FAILED("%llu pages were prefetched", (unsigned long long)s.prefetches);
}

/* Advice that nobody waits for is taken all the same; its errors are nobody's. */
static enum verdict advice(const void *arg)
{
	char *at = live_map(PAGES * PAGE, RW), *hole = live_map(4 * PAGE, PROT_NONE);
	struct pair p;
	int busy = 0;

	madvise(at, PAGES * PAGE, MADV_NOHUGEPAGE);
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	munmap(hole, 4 * PAGE);
	EXPECT(0, odp_advise(p.odp, &p.key, address(at), 16 * PAGE, ODP_PREFETCH_WRITE, false));
	TRY(waits_for(&p, 16));
	EXPECT(0, odp_region_advise(p.region, address(at) + 16 * PAGE, 16 * PAGE, ODP_PREFETCH,
				    false));
	TRY(waits_for(&p, 32));
	CHECK(resident(at, PAGES) >= 16, "no page is there");
	EXPECT(0, odp_advise(p.odp, &p.key, address(hole), PAGE, ODP_PREFETCH, false));
	EXPECT(-EFAULT, odp_advise(p.odp, &p.key, address(hole), PAGE, ODP_PREFETCH, true));
	EXPECT(-EFAULT, odp_region_advise(p.region, address(hole), PAGE, ODP_PREFETCH, true));
	EXPECT(0, odp_advise(p.odp, &p.key, address(hole), PAGE, ODP_PREFETCH_NO_FAULT, true));
	/* Too much is refused, and refuses nothing else. */
	at = live_map(512 * MIB, RW);
	for (unsigned i = 0; i < 100; i++) {
		int err = odp_advise(p.odp, &p.key, address(at), 512 * MIB, ODP_PREFETCH, false);

		CHECK(!err || err == -EBUSY, "%s", hmm_strerror(err));
		busy += !!err;
	}
	CHECK(busy, "a hundred times 512 MiB were taken");
	EXPECT(0, odp_region_advise(p.region, address(at), PAGE, ODP_PREFETCH, false));
	TRY(gets(&p, at, 100));
	munmap(at, 512 * MIB);
	pair_end(&p);
	return PASS;
}

#define OPS 300u

static enum verdict many(const void *arg)
{
	static char buffer[OPS][6000];
	char *at = live_map(OPS * 2 * PAGE, RW), *none = live_map(PAGE, PROT_NONE);
	struct odp_op ops[OPS];
	unsigned bad = 0;
	struct pair p;

	for (unsigned i = 0; i < OPS * 2; i++)
		memset(at + i * PAGE, (int)(i % 251), PAGE);
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	for (unsigned i = 0; i < OPS; i++) {
		bool no = i % 7 == 3;

		bad += no;
		ops[i] = (struct odp_op){ .code = i % 5 == 4 ? ODP_FETCH_ADD : ODP_GET,
					  .key = &p.key, .local = buffer[i],
					  .length = i % 2 ? 3000 : 6000, .operand = 1,
					  .remote = address(no ? none : at + i * 2 * PAGE) };
	}
	EXPECT(bad, odp_run(p.odp, ops, OPS));
	for (unsigned i = 0; i < OPS; i++) {
		const char *want = at + i * 2 * PAGE;

		if (i % 7 == 3)
			CHECK(ops[i].result == -EFAULT && ops[i].fault_addr == address(none),
			      "request %u: %s", i, hmm_strerror(ops[i].result));
		else if (i % 5 == 4)
			CHECK(!ops[i].result && ops[i].old + 1 == *(const uint64_t *)want,
			      "request %u: fetch-add", i);
		else
			CHECK(!ops[i].result && !memcmp(buffer[i], want, ops[i].length),
			      "request %u: bytes", i);
	}
	ops[5].code = (enum odp_opcode)7;
	EXPECT(-EINVAL, odp_run(p.odp, ops, OPS));
	ops[5].code = ODP_GET;
	ops[6].key = NULL;
	EXPECT(-EINVAL, odp_run(p.odp, ops, OPS));
	EXPECT(-EINVAL, odp_run(p.odp, NULL, 1));
	EXPECT(-EINVAL, odp_run(NULL, ops, 1));
	EXPECT(0, odp_run(p.odp, NULL, 0));
	pair_end(&p);
	return PASS;
}

struct half {
	struct pair *p;
	char *at;
	unsigned seed;
	enum verdict verdict;
};

static void *half_main(void *arg)
{
	struct half *h = arg;

	for (unsigned i = 0; i < 300 && h->verdict == PASS; i++) {
		size_t length = 1 + (i * 7919 + h->seed) % (MIB / 2);

		h->verdict = puts_bytes(h->p, h->at, length, i + h->seed);
		if (h->verdict == PASS)
			h->verdict = gets(h->p, h->at, length);
	}
	return NULL;
}

static enum verdict two_threads(const void *arg)
{
	char *at = live_map(2 * MIB, RW);
	struct half half[2];
	pthread_t thread[2];
	struct pair p;

	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	for (unsigned i = 0; i < 2; i++) {
		half[i] = (struct half){ .p = &p, .at = at + i * MIB, .seed = i * 77 };
		pthread_create(&thread[i], NULL, half_main, &half[i]);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	TRY(half[0].verdict);
	TRY(half[1].verdict);
	pair_end(&p);
	return PASS;
}

static enum verdict limit(const void *arg)
{
	struct odp_target_options options = { .size = sizeof(options), .max_clients = 2 };
	struct odp_target_stats s = { .size = sizeof(s) };
	struct odp *odp[3] = { 0 };
	struct odp_target *target;
	int err = -1;

	EXPECT(0, odp_target_open(&options, &target));
	for (unsigned round = 0; round < 20; round++) {
		EXPECT(0, odp_connect(odp_target_address(target), NULL, &odp[0]));
		EXPECT(0, odp_connect(odp_target_address(target), NULL, &odp[1]));
		EXPECT(-ECONNREFUSED, odp_connect(odp_target_address(target), NULL, &odp[2]));
		odp_close(odp[0]);
		for (unsigned i = 0; i < 1000 && err; i++, usleep(1000))
			err = odp_connect(odp_target_address(target), NULL, &odp[2]);
		EXPECT(0, err);
		odp_close(odp[1]);
		odp_close(odp[2]);
		for (unsigned i = 0; i < 1000; i++, usleep(1000)) {
			odp_target_get_stats(target, &s);
			if (!s.clients)
				break;
		}
		CHECK(!s.clients, "%llu clients are left", (unsigned long long)s.clients);
		err = -1;
	}
	CHECK(s.accepted == 60 && s.refused >= 20 && !s.broken, "accepted %llu, refused %llu",
	      (unsigned long long)s.accepted, (unsigned long long)s.refused);
	odp_target_close(target);
	return PASS;
}

static enum verdict options(const void *arg)
{
	static const struct {
		struct odp_target_options o;
		int err;
	} bad[] = {
		{ { .size = 4 }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .piece = 4095 }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .piece = 2048 }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .piece = 12288 }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .piece = 8 * MIB }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .depth = 17 }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .workers = 17 }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .max_clients = 100000 }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .provider = "nonsense" }, -ENODEV },
		{ { .size = sizeof(bad[0].o), .provider = "" }, -ENODEV },
		{ { .size = sizeof(bad[0].o),
		    .provider = "a name of a provider that is longer than there is" }, -EINVAL },
		{ { .size = sizeof(bad[0].o), .node = "192.0.2.1" }, -EADDRNOTAVAIL },
	};
	static const char *const addresses[] = { "",	"tcp",	"tcp://", "tcp://127.0.0.1",
						 "://127.0.0.1:1", "tcp://:1", "127.0.0.1:1" };
	struct {
		struct odp_target_options o;
		char more;
	} longer = { { .size = sizeof(longer) }, 1 };
	struct odp_options of = { .size = 3 };
	struct odp_target *target, *second;
	struct odp_target_options same = { .size = sizeof(same) };
	struct odp *odp;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int err = odp_target_open(&bad[i].o, &target);

		CHECK(err == bad[i].err, "options %u: %s", i, hmm_strerror(err));
	}
	EXPECT(-E2BIG, odp_target_open(&longer.o, &target));
	EXPECT(-EINVAL, odp_target_open(NULL, NULL));
	for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		EXPECT(-EINVAL, odp_connect(addresses[i], NULL, &odp));
	EXPECT(-EINVAL, odp_connect(NULL, NULL, &odp));
	EXPECT(0, odp_target_open(NULL, &target));
	EXPECT(-EINVAL, odp_connect(odp_target_address(target), &of, &odp));
	EXPECT(-EINVAL, odp_connect(odp_target_address(target), NULL, NULL));
	same.service = strrchr(odp_target_address(target), ':') + 1;
	EXPECT(-EADDRINUSE, odp_target_open(&same, &second));
	odp_target_close(target);
	EXPECT(-ECONNREFUSED, odp_connect("tcp://127.0.0.1:1", NULL, &odp));
	return PASS;
}

/* The smallest and the largest pieces, one and many on their way, one worker. */
static enum verdict shapes(const void *arg)
{
	static const struct {
		size_t piece;
		unsigned depth, workers;
	} shape[] = { { 4096, 1, 1 }, { 4096, 16, 1 }, { 4 * MIB, 1, 16 }, { 65536, 3, 2 } };
	char *at = live_map(9 * MIB, RW);

	for (unsigned i = 0; i < sizeof(shape) / sizeof(shape[0]); i++) {
		struct odp_target_options o = { .size = sizeof(o), .piece = shape[i].piece,
						.depth = shape[i].depth,
						.workers = shape[i].workers };
		struct odp_options no_cache = { .size = sizeof(no_cache), .no_cache = i % 2 };
		struct pair p;

		SYS(madvise(at, 9 * MIB, MADV_DONTNEED));
		EXPECT(0, odp_target_open(&o, &p.target));
		EXPECT(0, odp_region_create(p.target, address(at), 9 * MIB, ODP_ALL, &p.region));
		odp_region_key(p.region, &p.key);
		EXPECT(0, odp_connect(odp_target_address(p.target), &no_cache, &p.odp));
		TRY(gets(&p, at + 17, 8 * MIB + 3));
		TRY(puts_bytes(&p, at + 17, 8 * MIB + 3, i));
		pair_end(&p);
	}
	return PASS;
}

/*
 * Bytes that come are progress: the limit is for who hears nothing. Into 16 MiB that are
 * mapped over and over, from memory that nobody has touched: much of nothing.
 */
static enum verdict long_transfer(const void *arg)
{
	struct odp_options o = { .size = sizeof(o), .timeout_ms = 800 };
	size_t length = 4096 * MIB, part = 16 * MIB;
	char *at = live_map(length, RW), *buffer = live_map(length, PROT_NONE);
	int fd = memfd_create("odp", MFD_CLOEXEC);
	uint64_t ms = live_now_ns();
	struct odp_op op;
	struct pair p;

	SYS(ftruncate(fd, (off_t)part));
	for (size_t i = 0; i < length; i += part)
		SYS(mmap(buffer + i, part, RW, MAP_SHARED | MAP_FIXED, fd, 0));
	SYS(madvise(at, length, MADV_NOHUGEPAGE));
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	odp_close(p.odp);
	EXPECT(0, odp_connect(odp_target_address(p.target), &o, &p.odp));
	op = (struct odp_op){ .code = ODP_GET, .key = &p.key, .remote = address(at),
			      .local = buffer, .length = length };
	odp_run(p.odp, &op, 1);
	ms = (live_now_ns() - ms) / 1000000;
	CHECK(!op.result, "after %llu ms: %s", (unsigned long long)ms, hmm_strerror(op.result));
	if (ms < o.timeout_ms)
		return live_skip("4 GiB took %llu ms: too fast to say anything",
				 (unsigned long long)ms);
	pair_end(&p);
	return PASS;
}

static enum verdict in_child(void *arg)
{
	struct pair *p = arg;
	struct odp_region_stats s = { .size = sizeof(s) };
	struct odp_region *region;
	char byte;

	EXPECT(-ENODEV, odp_get(p->odp, &p->key, &byte, address(&byte), 1));
	EXPECT(-ENODEV, odp_region_create(p->target, PAGE, 1, ODP_READ, &region));
	EXPECT(-ENODEV, odp_region_advise(p->region, PAGE, 1, ODP_PREFETCH, true));
	odp_region_get_stats(p->region, &s);
	pair_end(p); /* forgets */
	/* One of its own works. */
	TRY(pair_begin(p, NULL, 0, ODP_ALL));
	TRY(gets(p, p, sizeof(*p)));
	pair_end(p);
	return PASS;
}

static enum verdict child(const void *arg)
{
	struct pair p;

	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	for (unsigned i = 0; i < 5; i++) {
		TRY(live_child(in_child, &p, 20));
		TRY(gets(&p, &p, sizeof(p)));
	}
	pair_end(&p);
	return PASS;
}

/* The initiator's own buffer is replaced in the middle of a transfer: done, or stale; the next
 * one is right. (Unmapping it is a signal: the provider copies in the caller's thread.) */
static void *take_away(void *arg)
{
	usleep(4000);
	mmap((char *)arg + 8 * MIB, 48 * MIB, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return NULL;
}

static enum verdict buffer_replaced(const void *arg)
{
	struct odp_options no_cache = { .size = sizeof(no_cache), .no_cache = true };
	char *at = live_map(64 * MIB, RW);
	struct odp *odp;
	struct pair p;

	memset(at, 1, 64 * MIB);
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	for (unsigned i = 0; i < 12; i++) {
		char *buffer = live_map(64 * MIB, RW);
		pthread_t thread;
		int err = 0;

		EXPECT(0, odp_connect(odp_target_address(p.target), i % 2 ? &no_cache : NULL, &odp));
		pthread_create(&thread, NULL, take_away, buffer);
		for (unsigned n = 0; n < 3 && !err; n++)
			err = i % 4 < 2 ? odp_get(odp, &p.key, buffer, address(at), 64 * MIB)
					: odp_put(odp, &p.key, address(at), buffer, 64 * MIB);
		pthread_join(thread, NULL);
		CHECK(!err || err == -ESTALE, "round %u: %s", i, hmm_strerror(err));
		EXPECT(0, odp_get(odp, &p.key, buffer, address(at), 64 * MIB));
		CHECK(!memcmp(buffer, at, 64 * MIB), "round %u: bytes of a buffer that is gone", i);
		odp_close(odp);
		munmap(buffer, 64 * MIB);
		TRY(gets(&p, at, MIB));
	}
	pair_end(&p);
	return PASS;
}

/* With faults under way, advice that waits, and clients that ask: it ends, and they hear. */
struct asker {
	struct pair *p;
	char *at;
	_Atomic int err;
};

static void *ask(void *arg)
{
	struct asker *a = arg;
	char *buffer = live_map(8 * MIB, RW);
	int err = 0;

	while (!err)
		err = odp_get(a->p->odp, &a->p->key, buffer, address(a->at), 8 * MIB);
	munmap(buffer, 8 * MIB);
	a->err = err;
	return NULL;
}

static enum verdict closes(const void *arg)
{
	char *at = live_map(64 * MIB, RW);

	for (unsigned i = 0; i < 25; i++) {
		struct asker a = { .at = at };
		uint64_t began;
		pthread_t thread;
		struct pair p;

		TRY(pair_begin(&p, at, 64 * MIB, ODP_ALL));
		a.p = &p;
		pthread_create(&thread, NULL, ask, &a);
		for (unsigned j = 0; j < 10; j++)
			odp_region_advise(p.region, address(at), 64 * MIB, ODP_PREFETCH, false);
		usleep(1000 * (i % 5) + 37 * i);
		madvise(at, 64 * MIB, MADV_DONTNEED);
		began = live_now_ns();
		
		odp_region_destroy(p.region);
		odp_target_close(p.target);
		CHECK(live_now_ns() - began < 3000000000u, "closing took %llu ms",
		      (unsigned long long)(live_now_ns() - began) / 1000000);
		pthread_join(thread, NULL);
		CHECK(a.err == -EACCES || a.err == -ECONNRESET, "%s", hmm_strerror(a.err));
		odp_close(p.odp);
	}
	return PASS;
}

const struct live_case odp_rest[] = {
	{ .name = "counts", .run = exact },
	{ .name = "advice", .run = advice },
	{ .name = "many", .run = many },
	{ .name = "two-threads", .run = two_threads },
	{ .name = "limit", .run = limit },
	{ .name = "options", .run = options },
	{ .name = "shapes", .run = shapes },
	{ .name = "long-transfer", .run = long_transfer },
	{ .name = "child", .run = child },
	{ .name = "buffer-replaced", .run = buffer_replaced },
	{ .name = "closes", .run = closes },
};
const unsigned odp_rest_n = sizeof(odp_rest) / sizeof(odp_rest[0]);
