/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_uvmem - the contract of <uhmm/uvmem.h> on the running kernel: states and their
 * errors (here), forgeries (uvmem_forged.c), kinds of memory and what the program does to
 * the range (uvmem_changes.c), files (uvmem_files.c), and machines that have less
 * (uvmem_less.c).
 */
#include "uvmem_cases.h"

/* ---- states ---- */

static int nothing(struct uvmem_side *side, void *arg)
{
	return 0;
}

static enum verdict states(const void *arg)
{
	char *at = (char *)vault_map(8 * PAGE), why[300];
	struct uvmem *uv;

	if (uvmem_available(why, sizeof(why)))
		return live_skip("%s", why);
	EXPECT(0, uvmem_open(NULL, &uv));
	EXPECT(UVMEM_NORMAL, uvmem_state(uv));
	EXPECT(-EBADFD, uvmem_init_done(uv));
	EXPECT(-EBADFD, uvmem_init_abort(uv));
	EXPECT(-EBADFD, uvmem_page_in(uv, at, PAGE));
	EXPECT(-EBADFD, uvmem_page_out(uv, at, PAGE));
	EXPECT(-EBADFD, uvmem_share(uv, at, PAGE));
	EXPECT(-EBADFD, uvmem_run(uv, nothing, NULL));
	EXPECT(-EFAULT, uvmem_page(uv, at));

	memset(at, 'a', 4 * PAGE);
	EXPECT(0, uvmem_init_start(uv, at, 8 * PAGE));
	EXPECT(UVMEM_TRANSIENT, uvmem_state(uv));
	EXPECT(-EBADFD, uvmem_init_start(uv, at, 8 * PAGE));
	EXPECT(-EBADFD, uvmem_run(uv, nothing, NULL));
	EXPECT(-EBADFD, uvmem_share(uv, at, PAGE));
	EXPECT(-EBADFD, uvmem_unshare(uv, at, PAGE));
	EXPECT(-EBADFD, uvmem_erase(uv, at, PAGE));
	EXPECT('a', at[0]);
	EXPECT(UVMEM_PAGE_PLAIN, uvmem_page(uv, at));
	EXPECT(2, uvmem_page_in(uv, at, 2 * PAGE));
	EXPECT(UVMEM_PAGE_IN, uvmem_page(uv, at));
	EXPECT(0, uvmem_init_done(uv));
	EXPECT(UVMEM_SECURE, uvmem_state(uv));
	for (unsigned p = 0; p < 8; p++)
		EXPECT(UVMEM_PAGE_IN, uvmem_page(uv, at + p * PAGE));

	EXPECT(-EBADFD, uvmem_init_done(uv));
	EXPECT(-EBADFD, uvmem_init_start(uv, at, PAGE));
	EXPECT(-EBADFD, uvmem_init_abort(uv));
	EXPECT(0, uvmem_run(uv, nothing, NULL));
	uvmem_close(uv);
	uvmem_close(NULL);
	return PASS;
}

/* Everything comes back, what went in, came out by a touch, or was never paged in. */
static enum verdict abort_returns(const void *arg)
{
	const struct uvmem_options options = { .size = sizeof(options), .frames = 16 };
	char *at = (char *)vault_map(64 * PAGE);
	struct uvmem *uv;

	EXPECT(0, uvmem_open(&options, &uv));
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 48 * PAGE; i++)
			at[i] = (char)(i * 7 + i / PAGE + round);
		EXPECT(0, uvmem_init_start(uv, at, 64 * PAGE));
		CHECK(uvmem_page_in(uv, at, 40 * PAGE) >= 40, "40 pages into 16 frames");
		CHECK(at[0] != (char)round || at[PAGE] != (char)(PAGE * 7 + 1 + round) ||
			      at[1] != (char)(7 + round),
		      "a touch shows plain bytes");
		if (round == 2)
			EXPECT(0, uvmem_init_done(uv));
		if (round == 2)
			break;
		EXPECT(0, uvmem_init_abort(uv));
		EXPECT(UVMEM_NORMAL, uvmem_state(uv));
		for (unsigned i = 0; i < 64 * PAGE; i++) {
			char want = i < 48 * PAGE ? (char)(i * 7 + i / PAGE + round) : 0;

			CHECK(at[i] == want, "byte %u of round %u: %#x", i, round, at[i]);
		}
	}
	uvmem_close(uv);
	return PASS;
}

/* One that was changed while it was out does not come back as if it had not been. */
static enum verdict abort_of_a_forgery(const void *arg)
{
	char *at = (char *)vault_map(4 * PAGE);
	struct uvmem *uv;

	memset(at, 'x', 4 * PAGE);
	EXPECT(0, uvmem_open(NULL, &uv));
	EXPECT(0, uvmem_init_start(uv, at, 4 * PAGE));
	EXPECT(4, uvmem_page_in(uv, at, 4 * PAGE));
	at[PAGE + 9] ^= 1;
	EXPECT(-EBADMSG, uvmem_init_abort(uv));
	EXPECT(UVMEM_NORMAL, uvmem_state(uv));
	EXPECT('x', at[0]);
	EXPECT('x', at[3 * PAGE]);
	CHECK(at[PAGE] != 'x' || at[PAGE + 1] != 'x', "a forged page was opened");
	uvmem_close(uv);
	return PASS;
}

/* ---- arguments ---- */

static enum verdict arguments(const void *arg)
{
	struct uvmem_options bad = { .size = sizeof(bad), .frames = 15 };
	struct {
		struct uvmem_options known;
		uint64_t more;
	} newer = { .known = { .size = sizeof(newer) }, .more = 1 };
	struct vault v;
	struct uvmem *uv;

	TRY(vault_begin(&v, NULL));
	EXPECT(-EINVAL, uvmem_open(&bad, &uv));
	bad = (struct uvmem_options){ .size = sizeof(bad), .sides = 17 };
	EXPECT(-EINVAL, uvmem_open(&bad, &uv));
	bad = (struct uvmem_options){ .size = sizeof(bad), .cipher = 3 };
	EXPECT(-EINVAL, uvmem_open(&bad, &uv));
	bad = (struct uvmem_options){ .size = 1 };
	EXPECT(-EINVAL, uvmem_open(&bad, &uv));
	EXPECT(-E2BIG, uvmem_open(&newer.known, &uv));
	newer.more = 0;
	EXPECT(0, uvmem_open(&newer.known, &uv));
	EXPECT(-EINVAL, uvmem_init_start(uv, v.at + 1, PAGE));
	EXPECT(-EINVAL, uvmem_init_start(uv, v.at, PAGE + 1));
	EXPECT(-EINVAL, uvmem_init_start(uv, v.at, 0));
	EXPECT(-EINVAL, uvmem_init_start(uv, (void *)-(uintptr_t)PAGE, 2 * PAGE));
	EXPECT(-EEXIST, uvmem_init_start(uv, v.at, PAGE));
	EXPECT(-EEXIST, uvmem_init_start(uv, v.at + (PAGES - 1) * PAGE, PAGE));
	EXPECT(UVMEM_NORMAL, uvmem_state(uv));
	EXPECT(-ENOMEM,
	       uvmem_init_start(uv, live_map((size_t)1 << 40, PROT_READ | PROT_WRITE),
				(size_t)1 << 40));
	uvmem_close(uv);
	bad = (struct uvmem_options){ .size = sizeof(bad), .frames = 1 << 28 };
	EXPECT(-ENOMEM, uvmem_open(&bad, &uv));

	EXPECT(-EINVAL, uvmem_page_in(v.uv, v.at + 1, PAGE));
	EXPECT(-EINVAL, uvmem_page_in(v.uv, v.at, 0));
	EXPECT(-EFAULT, uvmem_page_in(v.uv, v.at + (PAGES - 1) * PAGE, 2 * PAGE));
	EXPECT(-EFAULT, uvmem_page_out(v.uv, v.at - PAGE, PAGE));
	EXPECT(-EFAULT, uvmem_page_out(v.uv, v.at, (size_t) - (long)PAGE));
	EXPECT(-EFAULT, uvmem_share(v.uv, v.at + PAGES * PAGE, PAGE));
	EXPECT(-EFAULT, uvmem_page(v.uv, v.at - 1));
	EXPECT(-EINVAL, uvmem_run(v.uv, NULL, NULL));
	EXPECT(-ENODEV, uvmem_run(NULL, nothing, NULL));
	EXPECT(-EINVAL, vault_export(&v, 1, NULL, 0));
	EXPECT(-EINVAL, vault_import(&v, 1, NULL, 0, NULL));
	EXPECT(0, vault_check(&v));
	vault_end(&v);
	return PASS;
}

/* ---- the secure side ---- */

struct inside {
	struct vault *v;
	char outer[3 * PAGE]; /* ordinary memory */
	unsigned line;
};

#define INSIDE(condition)                                                                  \
	do {                                                                               \
		if (!(condition)) {                                                        \
			in->line = __LINE__;                                               \
			return -EIO;                                                       \
		}                                                                          \
	} while (0)

static int inside(struct uvmem_side *side, void *arg)
{
	struct inside *in = arg;
	struct vault *v = in->v;
	unsigned char byte = 1;
	uint64_t word = 0;
	char *scratch;

	INSIDE(uvmem_run(v->uv, inside, arg) == -EDEADLK);
	INSIDE(uvmem_page_out(v->uv, v->at, PAGE) == -EDEADLK);
	INSIDE(uvmem_init_done(v->uv) == -EDEADLK);
	INSIDE(uvmem_load(side, &byte, v->at - 1, 1) == -EFAULT);
	INSIDE(uvmem_load(side, &byte, v->at + PAGES * PAGE, 1) == -EFAULT);
	INSIDE(uvmem_load(side, &byte, NULL, 1) == -EFAULT);
	INSIDE(uvmem_load(side, &byte, v->at, 0) == 0 && byte == 1);
	/* The last byte, then one that is not. */
	INSIDE(uvmem_load(side, &word, v->at + PAGES * PAGE - 4, 8) == -EFAULT);
	scratch = uvmem_scratch(side, 3 * PAGE);
	INSIDE(scratch && !((uintptr_t)scratch % 16) && !scratch[0]);
	INSIDE(!uvmem_scratch(side, 64 << 10) && !uvmem_scratch(side, SIZE_MAX));
	/* Across pages, to any kind of memory, and back. */
	INSIDE(!uvmem_load(side, scratch, v->at + 100, 2 * PAGE));
	INSIDE(!uvmem_load(side, in->outer, v->at + 100, 2 * PAGE));
	for (unsigned i = 0; i < 2 * PAGE; i++)
		INSIDE(scratch[i] == (char)vault_byte(v->seed, i + 100) &&
		       in->outer[i] == scratch[i]);
	in->outer[2 * PAGE - 1] ^= 1;
	INSIDE(!uvmem_store(side, v->at + 100, in->outer, 2 * PAGE));
	INSIDE(!uvmem_load(side, &byte, v->at + 99 + 2 * PAGE, 1));
	INSIDE(byte == (unsigned char)in->outer[2 * PAGE - 1]);
	INSIDE(!uvmem_store(side, v->at + 100, scratch, 2 * PAGE));
	return 12345;
}

static enum verdict secure_side(const void *arg)
{
	static struct inside in;
	struct vault v;

	TRY(vault_begin(&v, NULL));
	in.v = &v;
	for (unsigned round = 0; round < 3; round++) {
		int got = uvmem_run(v.uv, inside, &in);

		CHECK(got == 12345, "line %u: %s", in.line, uvmem_strerror(got));
	}
	EXPECT(0, vault_check(&v));
	vault_end(&v);
	return PASS;
}

/* Two threads count in one page on two sides while a third makes it leave all the time. */
struct counting {
	struct vault *v;
	unsigned slot;
	int err;
	volatile bool *stop;
};

static int count_up(struct uvmem_side *side, void *arg)
{
	struct counting *c = arg;
	unsigned char *at = c->v->at + c->slot * 8;
	uint64_t n = 0;
	int err = 0;

	for (unsigned i = 0; i < 300 && !err; i++) {
		err = uvmem_load(side, &n, at, 8);
		n++;
		if (!err)
			err = uvmem_store(side, at, &n, 8);
	}
	return err;
}

static void *counter(void *arg)
{
	struct counting *c = arg;

	for (unsigned i = 0; i < 10 && !c->err; i++)
		c->err = uvmem_run(c->v->uv, count_up, c);
	return NULL;
}

static void *toucher(void *arg)
{
	struct counting *c = arg;

	while (!*c->stop) {
		*(volatile unsigned char *)c->v->at;
		sched_yield();
	}
	return NULL;
}

static int read_slot(struct uvmem_side *side, void *arg)
{
	struct counting *c = arg;
	uint64_t n = 0;
	int err = uvmem_load(side, &n, c->v->at + c->slot * 8, 8);

	return err ? err : (int)n;
}

static enum verdict sides_count(const void *arg)
{
	volatile bool stop = false;
	struct vault v;
	struct counting c[3] = { { &v, 0, 0, &stop },
				 { &v, 1, 0, &stop },
				 { &v, 2, 0, &stop } };
	pthread_t thread[3];

	TRY(vault_begin(&v, NULL));
	EXPECT(0, uvmem_erase(v.uv, v.at, PAGE));
	for (unsigned i = 0; i < 3; i++)
		CHECK(!pthread_create(&thread[i], NULL, i < 2 ? counter : toucher, &c[i]),
		      "thread");
	for (unsigned i = 0; i < 3; i++) {
		stop = i == 2;
		pthread_join(thread[i], NULL);
	}
	for (unsigned i = 0; i < 2; i++) {
		EXPECT(0, c[i].err);
		EXPECT(3000, uvmem_run(v.uv, read_slot, &c[i]));
	}
	vault_end(&v);
	return PASS;
}

/* More pages than frames: those that are not in are out, sealed, and come back. */
static enum verdict oversubscribed(const void *arg)
{
	const struct uvmem_options options = { .size = sizeof(options),
					       .frames = 16,
					       .cipher = UVMEM_CIPHER_XCHACHA20POLY1305 };
	struct uvmem_stats stats = { .size = sizeof(stats) };
	struct vault v;

	TRY(vault_begin(&v, &options));
	for (unsigned round = 0; round < 3; round++)
		EXPECT(0, vault_check(&v));
	uvmem_get_stats(v.uv, &stats);
	CHECK(stats.evicted >= PAGES && stats.opened >= PAGES && !stats.refused &&
		      stats.in_use <= 16 && stats.secret &&
		      stats.cipher == UVMEM_CIPHER_XCHACHA20POLY1305,
	      "evicted %llu, opened %llu, refused %llu", (unsigned long long)stats.evicted,
	      (unsigned long long)stats.opened, (unsigned long long)stats.refused);
	vault_end(&v);
	return PASS;
}

/* A shared page is zeros, then both sides'; unshared it is zeros again. */
static enum verdict sharing(const void *arg)
{
	struct vault v;
	unsigned char byte;

	TRY(vault_begin(&v, NULL));
	EXPECT(-EPERM, uvmem_unshare(v.uv, v.at, PAGE));
	EXPECT(0, uvmem_share(v.uv, v.at, 2 * PAGE));
	EXPECT(UVMEM_PAGE_SHARED, uvmem_page(v.uv, v.at));
	EXPECT(-EPERM, uvmem_share(v.uv, v.at, 3 * PAGE));
	EXPECT(-EPERM, uvmem_erase(v.uv, v.at, PAGE));
	EXPECT(-EPERM, uvmem_page_in(v.uv, v.at, PAGE));
	for (unsigned i = 0; i < 2 * PAGE; i++)
		CHECK(!v.at[i], "byte %u of a shared page", i);
	EXPECT(0, vault_write_page(&v, 0));
	EXPECT(0, vault_check_page(&v, 0));
	CHECK(vault_is_plain(&v, v.at, 0), "a shared page is not plain");
	v.at[5] ^= 1;
	EXPECT(-EIO, vault_check_page(&v, 0));
	EXPECT(0, uvmem_unshare(v.uv, v.at, 2 * PAGE));
	v.erased = 2;
	EXPECT(0, vault_check(&v));
	byte = *(volatile unsigned char *)v.at;
	(void)byte;
	EXPECT(UVMEM_PAGE_OUT, uvmem_page(v.uv, v.at));
	EXPECT(0, vault_check(&v));
	vault_end(&v);
	return PASS;
}

int main(int argc, char **argv)
{
	static const struct live_case cases[] = {
		{ "states", states, NULL, 0 },
		{ "abort", abort_returns, NULL, 0 },
		{ "abort of a forgery", abort_of_a_forgery, NULL, 0 },
		{ "arguments", arguments, NULL, 0 },
		{ "secure side", secure_side, NULL, 0 },
		{ "sides count", sides_count, NULL, 0 },
		{ "oversubscribed", oversubscribed, NULL, 0 },
		{ "sharing", sharing, NULL, 0 },
		{ "plain-load", uvmem_plain_load, NULL, 0 },
		{ "changed", uvmem_changed, NULL, 0 },
		{ "swapped", uvmem_swapped, NULL, 0 },
		{ "replayed", uvmem_replayed, NULL, 0 },
		{ "remapped", uvmem_remapped, NULL, 0 },
		{ "discarded", uvmem_discarded, NULL, 0 },
		{ "kinds", uvmem_kinds, NULL, 0 },
		{ "operations", uvmem_operations, NULL, 0 },
		{ "another device", uvmem_other_device, NULL, 0 },
		{ "pinned", uvmem_pinned, NULL, 0 },
		{ "file-there-and-back", uvmem_file, NULL, 0 },
		{ "file-forged", uvmem_file_forged, NULL, 0 },
		{ "file-rolled-back", uvmem_file_old, NULL, 0 },
		{ "without memfd_secret", uvmem_without, NULL, 0 },
		{ "RLIMIT_MEMLOCK", uvmem_limited, NULL, 0 },
		{ "no leak", uvmem_no_leak, NULL, 0 },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
