/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* odp_keys - O3: who may what, where; and that it ends when the key does. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "odp_live.h"

#define RW (PROT_READ | PROT_WRITE)

static const enum odp_opcode all_codes[] = { ODP_GET,	       ODP_PUT,		 ODP_FETCH_ADD,
					     ODP_COMPARE_SWAP, ODP_ATOMIC_WRITE, ODP_ADVISE };
#define CODES (sizeof(all_codes) / sizeof(all_codes[0]))

static enum verdict all_denied(struct pair *p, uint64_t at, size_t length)
{
	for (unsigned i = 0; i < CODES; i++)
		TRY(refused(p, all_codes[i], at, length, -EACCES, at, HMM_REASON_NONE));
	return PASS;
}

static enum verdict wrong_keys(const void *arg)
{
	char *one = live_map(4 * PAGE, RW), *two = live_map(4 * PAGE, RW);
	struct odp_region *other;
	struct odp_key right, key;
	struct pair p;

	memset(one, 1, 4 * PAGE);
	TRY(pair_begin(&p, one, 4 * PAGE, ODP_ALL));
	EXPECT(0, odp_region_create(p.target, address(two), 4 * PAGE, ODP_ALL, &other));
	right = p.key;
	odp_region_key(other, &key);
	for (unsigned bit = 0; bit < 128; bit += 7) {
		p.key = right;
		p.key.secret[bit / 8] ^= (uint8_t)(1u << bit % 8);
		TRY(all_denied(&p, address(one), 8));
	}
	p.key = right;
	p.key.region = key.region; /* the secret of another */
	TRY(all_denied(&p, address(one), 8));
	p.key.region = right.region + 4096; /* the same slot */
	TRY(all_denied(&p, address(one), 8));
	p.key.region = UINT64_MAX;
	TRY(all_denied(&p, address(one), 8));
	memset(&p.key, 0, sizeof(p.key)); /* what a slot that is free might be taken for */
	for (p.key.region = 0; p.key.region < 5; p.key.region++)
		TRY(all_denied(&p, address(one), 8));
	p.key = key; /* right, and of memory that is not asked for */
	TRY(all_denied(&p, address(one), 8));
	/* Where nothing is mapped, too: who has no key does not learn that. */
	TRY(all_denied(&p, PAGE, 8));
	p.key = right;
	TRY(gets(&p, one, 4 * PAGE));
	for (unsigned i = 0; i < 4 * PAGE; i++)
		CHECK(one[i] == 1, "who has no key has written");
	odp_region_destroy(other);
	pair_end(&p);
	return PASS;
}

static enum verdict rights(const void *arg)
{
	char *at = live_map(8 * PAGE, RW);
	struct pair p;

	for (unsigned access = 1; access < 8; access++) {
		bool may[] = { access & ODP_READ, access & ODP_WRITE, access & ODP_ATOMIC,
			       access & ODP_ATOMIC, access & ODP_WRITE };

		TRY(pair_begin(&p, at, 8 * PAGE, access));
		for (unsigned i = 0; i < 5; i++) {
			uint64_t word[2] = { 0 };
			struct odp_op op = { .code = all_codes[i], .key = &p.key, .local = word,
					     .remote = address(at + 64), .length = 8 };

			EXPECT(!may[i], odp_run(p.odp, &op, 1));
			EXPECT(may[i] ? 0 : -EACCES, op.result);
		}
		EXPECT(access & ODP_WRITE ? 0 : -EPERM,
		       odp_advise(p.odp, &p.key, address(at), PAGE, ODP_PREFETCH_WRITE, true));
		EXPECT(access & ODP_WRITE ? 0 : -EPERM,
		       odp_region_advise(p.region, address(at), PAGE, ODP_PREFETCH_WRITE, true));
		EXPECT(0, odp_advise(p.odp, &p.key, address(at), PAGE, ODP_PREFETCH, true));
		pair_end(&p);
	}
	return PASS;
}

/* To the byte, and around the end of numbers. */
static enum verdict bounds(const void *arg)
{
	char *at = live_map(8 * PAGE, RW);
	uint64_t start = address(at) + 100, length = 5000, end = start + length;
	struct pair p;

	TRY(pair_begin(&p, at + 100, length, ODP_ALL));
	TRY(gets(&p, at + 100, length));
	TRY(gets(&p, at + 100, 1));
	TRY(gets(&p, at + 100 + length - 1, 1));
	TRY(all_denied(&p, start - 8, 8));
	TRY(all_denied(&p, end, 8));
	TRY(refused(&p, ODP_GET, start - 1, 2, -EACCES, start - 1, 0));
	TRY(refused(&p, ODP_GET, end - 1, 2, -EACCES, end - 1, 0));
	TRY(refused(&p, ODP_PUT, start, length + 1, -EACCES, start, 0));
	TRY(refused(&p, ODP_GET, start - 50, length + 100, -EACCES, start - 50, 0));
	/* The last whole word ends behind it. */
	TRY(refused(&p, ODP_FETCH_ADD, end - 4, 8, -EACCES, end - 4, 0));
	TRY(refused(&p, ODP_ADVISE, start, UINT64_MAX - start, -EACCES, start, 0));
	TRY(refused(&p, ODP_ADVISE, 0, UINT64_MAX, -EACCES, 0, 0));
	EXPECT(-EINVAL, odp_get(p.odp, &p.key, at, UINT64_MAX - 3, 8));
	EXPECT(-EINVAL, odp_get(p.odp, &p.key, at, start, UINT64_MAX));
	EXPECT(-EINVAL, odp_advise(p.odp, &p.key, start, UINT64_MAX, ODP_PREFETCH, true));
	EXPECT(-EFAULT, odp_region_advise(p.region, start - 1, 2, ODP_PREFETCH, true));
	EXPECT(-EFAULT, odp_region_advise(p.region, start, length + 1, ODP_PREFETCH, true));
	EXPECT(-EFAULT, odp_region_advise(p.region, start, SIZE_MAX, ODP_PREFETCH, false));
	EXPECT(-EINVAL, odp_region_advise(p.region, start, 0, ODP_PREFETCH, false));
	EXPECT(-EINVAL, odp_region_advise(p.region, start, 1, (enum odp_advice)3, false));
	EXPECT(0, odp_get(p.odp, &p.key, NULL, start, 0));
	TRY(gets(&p, at + 100, length));
	pair_end(&p);
	return PASS;
}

static enum verdict unaligned(const void *arg)
{
	char *at = live_map(8 * PAGE, RW);
	struct pair p;

	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	for (unsigned off = 1; off < 8; off++)
		for (unsigned i = 2; i < 5; i++)
			TRY(refused(&p, all_codes[i], address(at) + off, 8, -EINVAL,
				    address(at) + off, HMM_REASON_NONE));
	pair_end(&p);
	return PASS;
}

static enum verdict bad_regions(const void *arg)
{
	struct odp_region *region, **many = (void *)live_map(4096 * sizeof(*many), RW);
	struct odp_target *target;
	unsigned n = 0;
	int err;

	EXPECT(0, odp_target_open(NULL, &target));
	EXPECT(-EINVAL, odp_region_create(NULL, 0, 1, ODP_READ, &region));
	EXPECT(-EINVAL, odp_region_create(target, PAGE, 1, ODP_READ, NULL));
	EXPECT(-EINVAL, odp_region_create(target, PAGE, 0, ODP_READ, &region));
	EXPECT(-EINVAL, odp_region_create(target, PAGE, 1, 0, &region));
	EXPECT(-EINVAL, odp_region_create(target, PAGE, 1, 8, &region));
	EXPECT(-EOVERFLOW, odp_region_create(target, PAGE, SIZE_MAX, ODP_READ, &region));
	EXPECT(-EOVERFLOW, odp_region_create(target, UINTPTR_MAX, 1, ODP_READ, &region));
	/* It need not exist, wherever it is. */
	EXPECT(0, odp_region_create(target, UINTPTR_MAX - 1, 1, ODP_READ, &region));
	odp_region_destroy(region);
	EXPECT(0, odp_region_create(target, (uintptr_t)1 << 47, UINTPTR_MAX / 4, ODP_READ, &region));
	odp_region_destroy(region);
	while (n < 4096 && !(err = odp_region_create(target, PAGE * (n + 1), 1, ODP_READ, &many[n])))
		n++;
	CHECK(n == 4096 || err == -ENOMEM, "after %u regions: %s", n, hmm_strerror(err));
	if (n == 4096)
		EXPECT(-ENOSPC, odp_region_create(target, PAGE, 1, ODP_READ, &region));
	while (n)
		odp_region_destroy(many[--n]);
	EXPECT(0, odp_region_create(target, PAGE, 1, ODP_READ, &region));
	odp_region_destroy(region);
	odp_region_destroy(NULL);
	odp_target_close(target);
	odp_target_close(NULL);
	odp_close(NULL);
	return PASS;
}

/* ---- revoked while transfers run ---- */

struct user {
	struct pair *p;
	struct odp *odp;
	char *at;
	size_t length;
	bool put;
	_Atomic unsigned good, denied;
	_Atomic int other;
	_Atomic bool stop;
};

static void *use(void *arg)
{
	struct user *u = arg;
	char *buffer = live_map(u->length, RW);

	for (unsigned i = 1; !u->stop; i++) {
		int err;

		memset(buffer, (int)(i % 100) + 1, u->length);
		err = u->put ? odp_put(u->odp, &u->p->key, address(u->at), buffer, u->length)
			     : odp_get(u->odp, &u->p->key, buffer, address(u->at), u->length);
		if (!err)
			u->good++;
		else if (err == -EACCES)
			u->denied++;
		else
			u->other = err;
	}
	munmap(buffer, u->length);
	return NULL;
}

static unsigned char sum_of(const char *at, size_t length)
{
	unsigned char sum = 0;

	for (size_t i = 0; i < length; i += 64)
		sum = (unsigned char)(sum * 31 + at[i]);
	return sum;
}

/* When odp_region_destroy() returns the memory is touched no more. */
static enum verdict revoked(const void *arg)
{
	size_t length = *(const size_t *)arg;
	char *at = live_map(2 * length, RW);
	struct user u[2];
	pthread_t thread[2];
	struct pair p;

	for (unsigned round = 0; round < 12; round++) {
		TRY(pair_begin(&p, at, 2 * length, ODP_ALL));
		for (unsigned i = 0; i < 2; i++) {
			u[i] = (struct user){ .p = &p, .at = at + i * length, .length = length,
					      .put = i };
			EXPECT(0, odp_connect(odp_target_address(p.target), NULL, &u[i].odp));
			pthread_create(&thread[i], NULL, use, &u[i]);
		}
		while (u[1].good < 3 || u[0].good < 3)
			usleep(100);
		usleep(500 * round);
		odp_region_destroy(p.region);
		p.region = NULL;
		unsigned char before = sum_of(at, 2 * length);
		for (unsigned denied = u[1].denied; u[1].denied < denied + 3 && !u[1].other;)
			usleep(100);
		CHECK(sum_of(at, 2 * length) == before, "a revoked key has written");
		for (unsigned i = 0; i < 2; i++) {
			u[i].stop = true;
			pthread_join(thread[i], NULL);
			CHECK(!u[i].other, "%s", hmm_strerror(u[i].other));
			odp_close(u[i].odp);
		}
		pair_end(&p);
	}
	return PASS;
}

static enum verdict text(const void *arg)
{
	struct odp_key key = { 0x0123456789abcdef, { 1, 2, 3, 255 } }, again;
	char printed[ODP_KEY_TEXT + 1];

	odp_key_print(&key, printed);
	CHECK(strlen(printed) == ODP_KEY_TEXT - 1, "%zu digits", strlen(printed));
	EXPECT(0, odp_key_parse(&again, printed));
	CHECK(again.region == key.region && !memcmp(again.secret, key.secret, 16), "not the same");
	strcat(printed, "0");
	EXPECT(-EINVAL, odp_key_parse(&again, printed));
	printed[ODP_KEY_TEXT - 2] = 0;
	EXPECT(-EINVAL, odp_key_parse(&again, printed));
	EXPECT(-EINVAL, odp_key_parse(&again, ""));
	EXPECT(-EINVAL, odp_key_parse(&again, NULL));
	EXPECT(-EINVAL, odp_key_parse(NULL, printed));
	EXPECT(-EINVAL, odp_key_parse(&again, "0123456789abcdefg123456789abcdef0123456789abcdef"));
	return PASS;
}

static const size_t short_one = 512, long_one = 3 * MIB;

const struct live_case odp_keys[] = {
	{ .name = "wrong-keys", .run = wrong_keys },
	{ .name = "rights", .run = rights },
	{ .name = "bounds", .run = bounds },
	{ .name = "unaligned-atomics", .run = unaligned },
	{ .name = "regions", .run = bad_regions },
	{ .name = "revoked-short", .run = revoked, .arg = &short_one },
	{ .name = "revoked-long", .run = revoked, .arg = &long_one },
	{ .name = "key-text", .run = text },
};
const unsigned odp_keys_n = sizeof(odp_keys) / sizeof(odp_keys[0]);
