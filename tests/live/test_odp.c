/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_odp - the contract of <uhmm/odp.h> on the running kernel: each request on each kind of
 * memory, in sizes around what travels in a message and in pieces (here); after changes
 * (odp_changes.c); keys, rights, bounds (odp_keys.c); counts, limits, forks (odp_rest.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kinds.h"
#include "odp_live.h"
#include "uapi.h"

/* ---- for all ---- */

enum verdict pair_begin(struct pair *p, const void *start, size_t length, unsigned access)
{
	memset(p, 0, sizeof(*p));
	EXPECT(0, odp_target_open(NULL, &p->target));
	EXPECT(0, odp_region_create(p->target, length ? (uintptr_t)start : 0,
				    length ? length : UINTPTR_MAX, access, &p->region));
	odp_region_key(p->region, &p->key);
	EXPECT(0, odp_connect(odp_target_address(p->target), NULL, &p->odp));
	return PASS;
}

void pair_end(struct pair *p)
{
	odp_close(p->odp);
	odp_region_destroy(p->region);
	odp_target_close(p->target);
}

enum verdict refused(struct pair *p, enum odp_opcode code, uint64_t remote, size_t length,
		     int err, uint64_t fault_addr, enum hmm_reason reason)
{
	char *buffer = calloc(1, length < 16 * MIB ? length + 8 : 8);
	struct odp_op op = { .code = code, .key = &p->key, .remote = remote, .local = buffer,
			     .length = length };

	EXPECT(1, odp_run(p->odp, &op, 1));
	free(buffer);
	CHECK(op.result == err && op.fault_addr == fault_addr && op.fault_reason == reason,
	      "opcode %d of %zu at %#llx: %s at %#llx, %s; expected %d at %#llx, %s", code,
	      length, (unsigned long long)remote, hmm_strerror(op.result),
	      (unsigned long long)op.fault_addr, hmm_reason_text(op.fault_reason), err,
	      (unsigned long long)fault_addr, hmm_reason_text(reason));
	return PASS;
}

enum verdict gets(struct pair *p, const void *at, size_t length)
{
	unsigned char *buffer = malloc(length);

	memset(buffer, 0xa5, length);
	EXPECT(0, odp_get(p->odp, &p->key, buffer, address(at), length));
	CHECK(!memcmp(buffer, at, length), "a get of %zu at %p has other bytes than the CPU",
	      length, at);
	free(buffer);
	return PASS;
}

enum verdict puts_bytes(struct pair *p, void *at, size_t length, unsigned seed)
{
	unsigned char *buffer = calloc(1, length);

	for (size_t i = 0; i < length; i++)
		buffer[i] = (unsigned char)(i * 7 + (i >> 12) * 13 + seed);
	EXPECT(0, odp_put(p->odp, &p->key, address(at), buffer, length));
	CHECK(!memcmp(buffer, at, length), "a put of %zu at %p is not what the CPU sees", length,
	      at);
	free(buffer);
	return PASS;
}

/* ---- each kind ---- */

static enum verdict readable(struct pair *p, const struct area *a)
{
	static const size_t sizes[] = { 1, 8, 100, INLINE - 1, INLINE, INLINE + 1,
					3 * 4096 + 5, 5 * 4096 };
	static const size_t offsets[] = { 0, 1, 4090, 2 * 4096 - 1 };

	for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
		for (unsigned o = 0; o < sizeof(offsets) / sizeof(offsets[0]); o++)
			TRY(gets(p, a->at + offsets[o], sizes[s]));
	TRY(gets(p, a->at, a->length));
	TRY(gets(p, a->at + a->length - 1, 1));
	return PASS;
}

static enum verdict writable(struct pair *p, const struct area *a)
{
	static const size_t sizes[] = { 1, 8, INLINE - 1, INLINE, INLINE + 1, 3 * 4096 + 5 };
	uint64_t *word = (uint64_t *)(a->at + 3 * PAGE + 64), old;

	for (unsigned s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		TRY(puts_bytes(p, a->at + s, sizes[s], s));
		TRY(puts_bytes(p, a->at + a->length - sizes[s], sizes[s], s + 3));
	}
	TRY(puts_bytes(p, a->at, a->length, 99));
	*word = 5;
	EXPECT(0, odp_fetch_add(p->odp, &p->key, address(word), 10, &old));
	CHECK(old == 5 && *word == 15, "fetch-add: %llu, then %llu", (unsigned long long)old,
	      (unsigned long long)*word);
	EXPECT(0, odp_compare_swap(p->odp, &p->key, address(word), 14, 99, &old));
	CHECK(old == 15 && *word == 15, "compare-swap stored though it does not match");
	EXPECT(0, odp_compare_swap(p->odp, &p->key, address(word), 15, 16, &old));
	CHECK(old == 15 && *word == 16, "compare-swap did not store");
	EXPECT(0, odp_atomic_write(p->odp, &p->key, address(word), UINT64_MAX));
	CHECK(*word == UINT64_MAX, "atomic write");
	return PASS;
}

static enum verdict kind_case(const void *arg)
{
	const struct kind *kind = arg;
	struct area a;
	struct pair p;

	TRY(area_make(&a, kind));
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	if (a.access[0] == NONE) {
		TRY(refused(&p, ODP_GET, address(a.at) + 7, 10, -EFAULT, address(a.at),
			    HMM_REASON_PROT_NONE));
		TRY(refused(&p, ODP_PUT, address(a.at) + 7, 10000, -EFAULT, address(a.at),
			    HMM_REASON_PROT_NONE));
	} else {
		TRY(readable(&p, &a));
	}
	if (a.access[0] == READ) {
		TRY(refused(&p, ODP_PUT, address(a.at) + PAGE + 7, 10, -EPERM,
			    address(a.at) + PAGE, HMM_REASON_READ_ONLY));
		TRY(refused(&p, ODP_PUT, address(a.at), 5 * PAGE, -EPERM, address(a.at),
			    HMM_REASON_READ_ONLY));
		TRY(refused(&p, ODP_FETCH_ADD, address(a.at), 8, -EPERM, address(a.at),
			    HMM_REASON_READ_ONLY));
	}
	if (a.access[0] == WRITE) {
		TRY(writable(&p, &a));
		TRY(readable(&p, &a));
	}
	pair_end(&p);
	area_dispose(&a);
	return PASS;
}

/* ---- what is no memory ---- */

/* Two that the pieces find at the same time: the lowest is named, whichever piece is faster.
 * The first one has much to fault in before. */
static enum verdict holes(const void *arg)
{
	char *at = live_map(MIB, PROT_READ | PROT_WRITE);
	struct pair p;

	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	madvise(at, MIB, MADV_NOHUGEPAGE);
	SYS(munmap(at + 60 * PAGE, PAGE));
	SYS(munmap(at + 64 * PAGE, PAGE));
	SYS(munmap(at + 128 * PAGE, PAGE));
	for (unsigned i = 0; i < 100; i++) {
		SYS(madvise(at, 60 * PAGE, MADV_DONTNEED));
		TRY(refused(&p, i % 2 ? ODP_GET : ODP_PUT, address(at), MIB, -EFAULT,
			    address(at + 60 * PAGE), HMM_REASON_NO_MAPPING));
	}
	pair_end(&p);
	return PASS;
}

static enum verdict hole(const void *arg)
{
	char *at = live_map(4 * MIB, PROT_READ | PROT_WRITE);
	struct pair p;

	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	SYS(munmap(at + 3 * PAGE, 2 * PAGE));
	SYS(munmap(at + 2 * MIB + 5 * PAGE, PAGE));
	for (unsigned i = 0; i < 20; i++) {
		TRY(refused(&p, ODP_GET, address(at), 8 * PAGE, -EFAULT, address(at + 3 * PAGE),
			    HMM_REASON_NO_MAPPING));
		TRY(refused(&p, ODP_GET, address(at), 4 * MIB, -EFAULT, address(at + 3 * PAGE),
			    HMM_REASON_NO_MAPPING));
		TRY(refused(&p, ODP_PUT, address(at), 4 * MIB, -EFAULT, address(at + 3 * PAGE),
			    HMM_REASON_NO_MAPPING));
		TRY(refused(&p, ODP_PUT, address(at + 3 * PAGE) - 4, 8, -EFAULT,
			    address(at + 3 * PAGE), HMM_REASON_NO_MAPPING));
		TRY(refused(&p, ODP_GET, address(at + MIB), 3 * MIB, -EFAULT,
			    address(at + 2 * MIB + 5 * PAGE), HMM_REASON_NO_MAPPING));
	}
	TRY(refused(&p, ODP_FETCH_ADD, address(at + 4 * PAGE), 8, -EFAULT, address(at + 4 * PAGE),
		    HMM_REASON_NO_MAPPING));
	TRY(gets(&p, at + 5 * PAGE, MIB));
	pair_end(&p);
	return PASS;
}

static enum verdict past_eof(const void *arg)
{
	int fd = memfd_create("odp", MFD_CLOEXEC);
	struct pair p;
	char *at;

	SYS(ftruncate(fd, 2 * PAGE + 100));
	at = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	TRY(gets(&p, at, 3 * PAGE));
	TRY(refused(&p, ODP_GET, address(at), 4 * PAGE, -EFAULT, address(at + 3 * PAGE),
		    HMM_REASON_PAST_EOF));
	TRY(refused(&p, ODP_PUT, address(at + 3 * PAGE) - 1, 2, -EFAULT, address(at + 3 * PAGE),
		    HMM_REASON_PAST_EOF));
	SYS(ftruncate(fd, 8 * PAGE));
	TRY(puts_bytes(&p, at, 8 * PAGE, 1));
	SYS(ftruncate(fd, PAGE));
	TRY(refused(&p, ODP_GET, address(at), 8 * PAGE, -EFAULT, address(at + PAGE),
		    HMM_REASON_PAST_EOF));
	pair_end(&p);
	return PASS;
}

static enum verdict guard(const void *arg)
{
	char *at = live_map(8 * PAGE, PROT_READ | PROT_WRITE);
	struct pair p;

	memset(at, 1, 8 * PAGE);
	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	TRY(gets(&p, at, 8 * PAGE));
	if (madvise(at + 2 * PAGE, PAGE, MADV_GUARD_INSTALL))
		return live_skip("the kernel has no guard pages: %s", strerror(errno));
	TRY(refused(&p, ODP_GET, address(at), 8 * PAGE, -EFAULT, address(at + 2 * PAGE),
		    HMM_REASON_GUARD_OR_POISON));
	TRY(refused(&p, ODP_PUT, address(at + 2 * PAGE), 8, -EFAULT, address(at + 2 * PAGE),
		    HMM_REASON_GUARD_OR_POISON));
	SYS(madvise(at + 2 * PAGE, PAGE, MADV_GUARD_REMOVE));
	TRY(gets(&p, at, 8 * PAGE));
	pair_end(&p);
	return PASS;
}

/* Addresses where nothing can be, up to the last there is; and the library's own. */
static enum verdict nowhere(const void *arg)
{
	static const uint64_t places[] = { 0, PAGE, UINT64_C(1) << 47, UINT64_C(1) << 48,
					   UINT64_C(0xffff800000000000), UINT64_MAX - 2 * PAGE,
					   UINT64_MAX - 4096 };
	char *own = hmm_alloc(4 * PAGE);
	struct pair p;

	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		uint64_t page = places[i] & ~(uint64_t)(PAGE - 1);

		TRY(refused(&p, ODP_GET, places[i], 4, -EFAULT, page, HMM_REASON_NO_MAPPING));
		TRY(refused(&p, ODP_PUT, places[i], 4, -EFAULT, page, HMM_REASON_NO_MAPPING));
	}
	TRY(refused(&p, ODP_GET, UINT64_MAX - 8, 7, -EFAULT, UINT64_MAX - 4095,
		    HMM_REASON_NO_MAPPING));
	TRY(refused(&p, ODP_GET, address(own), 8, -EOPNOTSUPP, address(own),
		    HMM_REASON_NOT_MIRRORABLE));
	TRY(refused(&p, ODP_PUT, address(own), PAGE, -EOPNOTSUPP, address(own),
		    HMM_REASON_NOT_MIRRORABLE));
	pair_end(&p);
	return PASS;
}

/* ---- much of it ---- */

/* In pieces, unaligned, from memory that nobody has touched, and around each border. */
static enum verdict large(const void *arg)
{
	static const size_t lengths[] = { 3 * MIB + 1, 256 * 1024 - 1, 256 * 1024,
					  256 * 1024 + 1, MIB, 4 * 256 * 1024 + 1 };
	char *at = live_map(5 * MIB, PROT_READ | PROT_WRITE);
	struct pair p;

	TRY(pair_begin(&p, NULL, 0, ODP_ALL));
	TRY(gets(&p, at + 1, 3 * MIB + 1));
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		TRY(puts_bytes(&p, at + 4095 - i, lengths[i], i));
		TRY(gets(&p, at + 4094 - i, lengths[i] + 2));
	}
	pair_end(&p);
	return PASS;
}

static const struct live_case own_cases[] = {
	{ .name = "hole", .run = hole },
	{ .name = "holes", .run = holes },
	{ .name = "past-eof", .run = past_eof },
	{ .name = "guard", .run = guard },
	{ .name = "nowhere", .run = nowhere },
	{ .name = "large", .run = large },
};

int main(int argc, char **argv)
{
	struct live_case cases[100];
	char names[32][40], on_stack[STACK_BYTES + PAGE];
	unsigned n = 0;
	int status;

	memset(on_stack, 0, sizeof(on_stack));
	kinds_give_stack((char *)(((uintptr_t)on_stack + PAGE - 1) & ~(PAGE - 1)));
	for (; n < live_kind_count && n < 32; n++) {
		snprintf(names[n], sizeof(names[n]), "kind-%s", live_kinds[n].name);
		cases[n] = (struct live_case){ .name = names[n], .run = kind_case,
					       .arg = &live_kinds[n] };
	}
	for (unsigned i = 0; i < sizeof(own_cases) / sizeof(own_cases[0]); i++)
		cases[n++] = own_cases[i];
	for (unsigned i = 0; i < odp_changes_n; i++)
		cases[n++] = odp_changes[i];
	for (unsigned i = 0; i < odp_keys_n; i++)
		cases[n++] = odp_keys[i];
	for (unsigned i = 0; i < odp_rest_n; i++)
		cases[n++] = odp_rest[i];
	kinds_begin();
	status = live_main(argc, argv, cases, n);
	kinds_end();
	return status;
}
