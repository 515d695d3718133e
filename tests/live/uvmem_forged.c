/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_forged - U1 to U3: what the range shows, and what of it is taken back.
 */
#include "uvmem_cases.h"

static unsigned char saved[PAGES * PAGE];

/* Sealed bytes, each time others, and no two pages alike. */
enum verdict uvmem_plain_load(const void *arg)
{
	struct vault v;

	TRY(vault_begin(&v, NULL));
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned p = 0; p < PAGES; p++) {
			unsigned char *page = v.at + p * PAGE;

			CHECK(!vault_is_plain(&v, page, p), "page %u is plain", p);
			CHECK(!round || memcmp(page, saved + p * PAGE, PAGE),
			      "page %u was sealed twice by one number", p);
			CHECK(!p || memcmp(page, page - PAGE, PAGE), "pages are alike");
			memcpy(saved + p * PAGE, page, PAGE);
		}
		EXPECT(UVMEM_PAGE_OUT, uvmem_page(v.uv, v.at));
		EXPECT(0, vault_check(&v));
		EXPECT(UVMEM_PAGE_IN, uvmem_page(v.uv, v.at));
	}
	vault_end(&v);
	return PASS;
}

enum verdict uvmem_changed(const void *arg)
{
	struct uvmem_stats stats = { .size = sizeof(stats) };
	struct vault v;

	TRY(vault_begin(&v, NULL));
	for (unsigned i = 0; i < PAGE; i += 371) {
		EXPECT(1, uvmem_page_out(v.uv, v.at + PAGE, PAGE));
		v.at[PAGE + i] ^= (unsigned char)(1u << i % 8);
		EXPECT(-EBADMSG, vault_check_page(&v, 1));
		EXPECT(-EBADMSG, uvmem_page_in(v.uv, v.at + PAGE, PAGE));
		/* A store is refused, too, though it asks for no byte of it. */
		EXPECT(-EBADMSG, vault_write_page(&v, 1));
		EXPECT(0, vault_check_page(&v, 2));
		v.at[PAGE + i] ^= (unsigned char)(1u << i % 8);
		EXPECT(0, vault_check_page(&v, 1));
	}
	uvmem_get_stats(v.uv, &stats);
	CHECK(stats.refused >= 3 * (PAGE / 371), "only %llu were refused",
	      (unsigned long long)stats.refused);
	/* Zeros are a change as any other; erase makes them true. */
	CHECK(uvmem_page_out(v.uv, v.at, PAGE) >= 0, "out");
	memset(v.at, 0, PAGE);
	EXPECT(-EBADMSG, vault_check_page(&v, 0));
	EXPECT(0, uvmem_erase(v.uv, v.at, PAGE));
	v.erased = 1;
	EXPECT(0, vault_check(&v));
	/* Bytes that somebody leaves in an erased page are nobody's. */
	EXPECT(0, uvmem_erase(v.uv, v.at, PAGE));
	v.at[77] = 1;
	EXPECT(-EBADMSG, vault_check_page(&v, 0));
	vault_end(&v);
	return PASS;
}

enum verdict uvmem_swapped(const void *arg)
{
	unsigned char *a, *b;
	struct vault v;

	TRY(vault_begin(&v, NULL));
	a = v.at;
	b = v.at + 5 * PAGE;
	CHECK(uvmem_page_out(v.uv, v.at, PAGES * PAGE) >= 0, "out");
	memcpy(saved, a, PAGE);
	memcpy(a, b, PAGE);
	memcpy(b, saved, PAGE);
	EXPECT(-EBADMSG, vault_check_page(&v, 0));
	EXPECT(-EBADMSG, vault_check_page(&v, 5));
	memcpy(b, a, PAGE);
	memcpy(a, saved, PAGE);
	EXPECT(0, vault_check(&v));
	vault_end(&v);
	return PASS;
}

enum verdict uvmem_replayed(const void *arg)
{
	static unsigned char now[PAGE];
	struct vault v;

	TRY(vault_begin(&v, NULL));
	CHECK(uvmem_page_out(v.uv, v.at, PAGES * PAGE) >= 0, "out");
	memcpy(saved, v.at, PAGES * PAGE);
	v.seed++;
	for (unsigned p = 0; p < PAGES; p++)
		EXPECT(0, vault_write_page(&v, p));
	CHECK(uvmem_page_out(v.uv, v.at, PAGES * PAGE) >= 0, "out");
	memcpy(now, v.at, PAGE);
	/* The whole range as it was. */
	memcpy(v.at, saved, PAGE);
	EXPECT(-EBADMSG, vault_check_page(&v, 0));
	memcpy(v.at, now, PAGE);
	EXPECT(0, vault_check(&v));
	/* While a page is in, other memory with sealed bytes at its place. */
	EXPECT(0, vault_check_page(&v, 0));
	CHECK(mmap(v.at, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == v.at,
	      "mmap");
	memcpy(v.at, now, PAGE);
	EXPECT(-EBADMSG, vault_check_page(&v, 0));
	memcpy(v.at, saved, PAGE);
	EXPECT(-EBADMSG, vault_check_page(&v, 0));
	vault_end(&v);
	return PASS;
}

/*
 * Pages that mremap moves while they are in: found out where they arrive; good again at
 * home.
 */
enum verdict uvmem_remapped(const void *arg)
{
	unsigned char *away;
	struct vault v;

	TRY(vault_begin(&v, NULL));
	away = (unsigned char *)live_map(4 * PAGE, PROT_NONE);
	for (unsigned round = 0; round < 2; round++) {
		EXPECT(0, vault_check(&v));
		if (round)
			CHECK(uvmem_page_out(v.uv, v.at, PAGES * PAGE) >= 0, "out");
		/* Pages 0 and 1 change places. */
		CHECK(mremap(v.at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, away) == away,
		      "1");
		EXPECT(-EBADMSG, vault_check_page(&v, 0));
		CHECK(mremap(v.at + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			     v.at) == v.at,
		      "2");
		CHECK(mremap(away, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			     v.at + PAGE) == v.at + PAGE,
		      "3");
		EXPECT(-EBADMSG, vault_check_page(&v, 0));
		EXPECT(-EBADMSG, vault_check_page(&v, 1));
		CHECK(!vault_is_plain(&v, v.at, 1) && !vault_is_plain(&v, v.at + PAGE, 0),
		      "plain");
		/* And back. */
		CHECK(mremap(v.at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, away) == away,
		      "4");
		CHECK(mremap(v.at + PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			     v.at) == v.at,
		      "5");
		CHECK(mremap(away, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
			     v.at + PAGE) == v.at + PAGE,
		      "6");
		EXPECT(0, vault_check(&v));
	}
	vault_end(&v);
	return PASS;
}

static enum verdict gone(struct vault *v, unsigned page)
{
	EXPECT(-EBADMSG, vault_check_page(v, page));
	EXPECT(-EBADMSG, vault_write_page(v, page));
	EXPECT(-EBADMSG, uvmem_page_in(v->uv, v->at + page * PAGE, PAGE));
	/* Others are as they were. */
	EXPECT(0, vault_check_page(v, page + 1));
	return PASS;
}

/* U3: zeros that nobody meant are not read. In and out, by each way to discard. */
enum verdict uvmem_discarded(const void *arg)
{
	struct vault v;

	TRY(vault_begin(&v, NULL));
	SYS(madvise(v.at, PAGE, MADV_DONTNEED));
	TRY(gone(&v, 0));
	CHECK(uvmem_page_out(v.uv, v.at + 2 * PAGE, PAGE) >= 0, "out");
	SYS(madvise(v.at + 2 * PAGE, PAGE, MADV_DONTNEED));
	TRY(gone(&v, 2));
	SYS(munmap(v.at + 4 * PAGE, PAGE));
	TRY(gone(&v, 4));
	EXPECT(-EFAULT, uvmem_erase(v.uv, v.at + 4 * PAGE, PAGE));
	CHECK(mmap(v.at + 4 * PAGE, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == v.at + 4 * PAGE,
	      "mmap");
	TRY(gone(&v, 4));
	for (unsigned p = 0; p < 5; p++)
		EXPECT(0, uvmem_erase(v.uv, v.at + p * PAGE, PAGE));
	v.erased = 5;
	EXPECT(0, vault_check(&v));
	v.erased = 0;
	for (unsigned p = 0; p < 5; p++)
		EXPECT(0, vault_write_page(&v, p));
	EXPECT(0, vault_check(&v));
	vault_end(&v);
	return PASS;
}
