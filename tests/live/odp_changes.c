/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* odp_changes - O1: a request sees each change that happened before it, and no older byte. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "odp_live.h"

#define RW (PROT_READ | PROT_WRITE)
#define AREA (16 * PAGE)

/* Mapped by the target, every page. */
static enum verdict warm(struct pair *p, char **at)
{
	*at = live_map(AREA, RW);
	memset(*at, 0x11, AREA);
	TRY(pair_begin(p, NULL, 0, ODP_ALL));
	TRY(puts_bytes(p, *at, AREA, 1));
	return gets(p, *at, AREA);
}

static enum verdict dontneed(const void *arg)
{
	struct pair p;
	char *at;

	TRY(warm(&p, &at));
	for (unsigned i = 0; i < 500; i++) {
		unsigned char seen = 1;

		SYS(madvise(at + i % 16 * PAGE, PAGE, MADV_DONTNEED));
		EXPECT(0, odp_get(p.odp, &p.key, &seen, address(at + i % 16 * PAGE), 1));
		CHECK(!seen, "round %u: an old byte", i);
		TRY(puts_bytes(&p, at + i % 16 * PAGE, 100, i));
	}
	TRY(gets(&p, at, AREA));
	pair_end(&p);
	return PASS;
}

static enum verdict unmap(const void *arg)
{
	struct pair p;
	char *at;

	TRY(warm(&p, &at));
	for (unsigned i = 0; i < 200; i++) {
		unsigned char fresh = (unsigned char)(i | 1), seen = 0;

		SYS(munmap(at + 3 * PAGE, PAGE));
		TRY(refused(&p, i % 2 ? ODP_GET : ODP_PUT, address(at), 5 * PAGE, -EFAULT,
			    address(at + 3 * PAGE), HMM_REASON_NO_MAPPING));
		SYS(mmap(at + 3 * PAGE, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		EXPECT(0, odp_get(p.odp, &p.key, &seen, address(at + 3 * PAGE), 1));
		CHECK(!seen, "a byte of the old mapping");
		at[3 * PAGE] = (char)fresh;
		EXPECT(0, odp_get(p.odp, &p.key, &seen, address(at + 3 * PAGE), 1));
		CHECK(seen == fresh, "not the new mapping's byte");
	}
	pair_end(&p);
	return PASS;
}

static enum verdict map_fixed(const void *arg)
{
	struct pair p;
	char *at;

	TRY(warm(&p, &at));
	for (unsigned i = 0; i < 500; i++) {
		unsigned seen = 0;

		SYS(mmap(at, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
		memcpy(at + PAGE, &i, sizeof(i));
		EXPECT(0, odp_get(p.odp, &p.key, &seen, address(at + PAGE), sizeof(seen)));
		CHECK(seen == i, "round %u: %u of another mapping", i, seen);
	}
	pair_end(&p);
	return PASS;
}

static enum verdict move(const void *arg)
{
	char *spare = live_map(AREA, PROT_NONE), *from, *to;
	struct pair p;

	TRY(warm(&p, &from));
	to = spare;
	for (unsigned i = 0; i < 100; i++) {
		char *was = from;

		memset(from, (int)i, PAGE);
		from = mremap(from, AREA, AREA, MREMAP_MAYMOVE | MREMAP_FIXED, to);
		CHECK(from == to, "mremap: %s", strerror(errno));
		to = was;
		TRY(refused(&p, ODP_GET, address(was), PAGE, -EFAULT, address(was),
			    HMM_REASON_NO_MAPPING));
		TRY(gets(&p, from, AREA));
		TRY(puts_bytes(&p, from + 5, 3 * PAGE, i));
	}
	pair_end(&p);
	return PASS;
}

static enum verdict protect(const void *arg)
{
	struct pair p;
	char *at;

	TRY(warm(&p, &at));
	for (unsigned i = 0; i < 100; i++) {
		SYS(mprotect(at + PAGE, PAGE, PROT_READ));
		TRY(refused(&p, ODP_PUT, address(at), 3 * PAGE, -EPERM, address(at + PAGE),
			    HMM_REASON_READ_ONLY));
		TRY(refused(&p, ODP_COMPARE_SWAP, address(at + PAGE), 8, -EPERM,
			    address(at + PAGE), HMM_REASON_READ_ONLY));
		TRY(gets(&p, at, 3 * PAGE));
		SYS(mprotect(at + PAGE, PAGE, PROT_NONE));
		TRY(refused(&p, ODP_GET, address(at), 3 * PAGE, -EFAULT, address(at + PAGE),
			    HMM_REASON_PROT_NONE));
		SYS(mprotect(at + PAGE, PAGE, RW));
		TRY(puts_bytes(&p, at, 3 * PAGE, i));
	}
	pair_end(&p);
	return PASS;
}

static enum verdict file(const void *arg)
{
	int fd = memfd_create("odp", MFD_CLOEXEC);
	unsigned char seen = 1;
	struct pair p;
	char *at;

	SYS(ftruncate(fd, AREA));
	at = mmap(NULL, AREA, RW, MAP_SHARED, fd, 0);
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	for (unsigned i = 0; i < 100; i++) {
		TRY(puts_bytes(&p, at, AREA, i + 1));
		SYS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, PAGE));
		EXPECT(0, odp_get(p.odp, &p.key, &seen, address(at + 2 * PAGE) + 5, 1));
		CHECK(!seen, "a byte that was punched out");
		SYS(ftruncate(fd, 4 * PAGE));
		TRY(refused(&p, ODP_GET, address(at), 6 * PAGE, -EFAULT, address(at + 4 * PAGE),
			    HMM_REASON_PAST_EOF));
		SYS(ftruncate(fd, AREA));
		EXPECT(0, odp_get(p.odp, &p.key, &seen, address(at + 5 * PAGE) + 5, 1));
		CHECK(!seen, "a byte from before the file was cut");
		/* Written by others: a store is a store. */
		SYS(pwrite(fd, "other", 5, 7 * PAGE));
		TRY(gets(&p, at, AREA));
	}
	pair_end(&p);
	return PASS;
}

/* Parent and child part; the target is the parent's. */
static enum verdict forks(const void *arg)
{
	struct pair p;
	char *at;

	TRY(warm(&p, &at));
	for (unsigned i = 0; i < 30; i++) {
		int status;
		pid_t pid = fork();

		if (!pid) {
			memset(at, 0xcc, AREA);
			usleep(2000);
			_exit(at[5] == (char)0xcc && at[PAGE] == (char)0xcc ? 0 : 1);
		}
		TRY(puts_bytes(&p, at, AREA, i));
		memset(at + PAGE, (int)i, 8);
		TRY(gets(&p, at, AREA));
		status = live_wait(pid, 10);
		CHECK(!status, "a put reached the child");
		TRY(gets(&p, at, AREA));
	}
	pair_end(&p);
	return PASS;
}

/* ---- while requests run ---- */

struct changer {
	char *at;
	_Atomic bool stop;
	unsigned how;
};

static void *change(void *arg)
{
	struct changer *c = arg;

	for (unsigned i = 0; !c->stop; i++) {
		char *at = c->at + i % 512 * PAGE;

		switch (c->how == 4 ? i % 4 : c->how) {
		case 0:
			madvise(at, PAGE, MADV_DONTNEED);
			break;
		case 1:
			mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		case 2:
			mprotect(at, PAGE, PROT_READ);
			mprotect(at, PAGE, RW);
			break;
		case 3:
			munmap(at, PAGE);
			mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
			break;
		}
	}
	return NULL;
}

/* Memory that changes all the time: requests end, rightly or with a reason; never a byte that
 * was not put, never a connection that is lost. */
static enum verdict while_it_changes(const void *arg)
{
	struct changer c = { .at = live_map(2 * MIB, RW), .how = *(const unsigned *)arg };
	static unsigned char ones[3 * 256 * 1024], seen[sizeof(ones)];
	unsigned good = 0, bad = 0;
	pthread_t thread;
	struct pair p;

	memset(ones, 1, sizeof(ones));
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	pthread_create(&thread, NULL, change, &c);
	for (uint64_t end = live_now_ns() + 700000000u; live_now_ns() < end;) {
		int err = odp_put(p.odp, &p.key, address(c.at + 100), ones, sizeof(ones));

		CHECK(!err || err == -EFAULT || err == -EPERM || err == -EBUSY, "put: %s",
		      hmm_strerror(err));
		err = err ? err : odp_get(p.odp, &p.key, seen, address(c.at + 100), sizeof(seen));
		CHECK(!err || err == -EFAULT || err == -EBUSY || err == -EPERM, "get: %s",
		      hmm_strerror(err));
		err ? bad++ : good++;
		for (size_t i = 0; !err && i < sizeof(seen); i++)
			CHECK(seen[i] < 2, "byte %zu is %u", i, seen[i]);
	}
	c.stop = true;
	pthread_join(thread, NULL);
	CHECK(good || c.how == 3 || c.how == 4, "nothing succeeded (%u failed)", bad);
	SYS(mmap(c.at, 2 * MIB, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	TRY(puts_bytes(&p, c.at, 2 * MIB, 3));
	pair_end(&p);
	return PASS;
}

static const unsigned hows[] = { 0, 1, 2, 3, 4 };

const struct live_case odp_changes[] = {
	{ .name = "dontneed", .run = dontneed },
	{ .name = "munmap", .run = unmap },
	{ .name = "map-fixed", .run = map_fixed },
	{ .name = "mremap", .run = move },
	{ .name = "mprotect", .run = protect },
	{ .name = "truncate-and-punch", .run = file },
	{ .name = "fork", .run = forks },
	{ .name = "while-dontneed", .run = while_it_changes, .arg = &hows[0] },
	{ .name = "while-map-fixed", .run = while_it_changes, .arg = &hows[1] },
	{ .name = "while-mprotect", .run = while_it_changes, .arg = &hows[2] },
	{ .name = "while-munmap", .run = while_it_changes, .arg = &hows[3] },
	{ .name = "while-all", .run = while_it_changes, .arg = &hows[4] },
};
const unsigned odp_changes_n = sizeof(odp_changes) / sizeof(odp_changes[0]);
