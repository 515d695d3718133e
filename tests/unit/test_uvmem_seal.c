/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_uvmem_seal - a page sealed and opened: only at its place, only the number that is
 * asked for, only unchanged; and what does not open leaves zeros.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "../../drivers/uvmem/seal.h"

static struct uvmem_sealer sealer;
static unsigned char plain[UVMEM_PAGE_SIZE], sealed[UVMEM_PAGE_SIZE], page[UVMEM_PAGE_SIZE];
static unsigned char tag[UVMEM_TAG_BYTES];
static const struct uvmem_stamp stamp = { .place = 3, .pages = 10, .number = 77 };

static int is_zero(const unsigned char *bytes)
{
	for (unsigned i = 0; i < UVMEM_PAGE_SIZE; i++)
		if (bytes[i])
			return 0;
	return 1;
}

/* Skipped where the CPU has no AES. */
static void start(void **state)
{
	const enum uvmem_cipher *cipher = *state;
	int err = uvmem_sealer_init(&sealer, *cipher, NULL);

	if (err == -EOPNOTSUPP)
		skip();
	assert_int_equal(err, 0);
	for (unsigned i = 0; i < UVMEM_PAGE_SIZE; i++)
		plain[i] = (unsigned char)(i * 7 + (i >> 8));
	uvmem_seal(&sealer, &stamp, plain, sealed, tag);
	memcpy(page, sealed, sizeof(page));
}

static void refused(const struct uvmem_stamp *other)
{
	assert_int_equal(uvmem_open_sealed(&sealer, other, page, tag), -EBADMSG);
	assert_true(is_zero(page));
}

static void there_and_back(void **state)
{
	unsigned same = 0;

	start(state);
	for (unsigned i = 0; i < UVMEM_PAGE_SIZE; i++)
		same += sealed[i] == plain[i];
	assert_true(same < UVMEM_PAGE_SIZE / 64); /* 16 by chance */
	assert_int_equal(uvmem_open_sealed(&sealer, &stamp, page, tag), 0);
	assert_memory_equal(page, plain, sizeof(page));
	/* In place. */
	memcpy(page, plain, sizeof(page));
	uvmem_seal(&sealer, &stamp, page, page, tag);
	assert_memory_equal(page, sealed, sizeof(page));
}

static void a_changed_bit(void **state)
{
	for (unsigned bit = 0; bit < UVMEM_PAGE_SIZE * 8; bit += 997) {
		start(state);
		page[bit / 8] ^= (unsigned char)(1u << bit % 8);
		refused(&stamp);
	}
}

static void a_changed_tag(void **state)
{
	for (unsigned bit = 0; bit < UVMEM_TAG_BYTES * 8; bit++) {
		start(state);
		tag[bit / 8] ^= (unsigned char)(1u << bit % 8);
		refused(&stamp);
	}
}

static void another_place(void **state)
{
	start(state);
	refused(&(struct uvmem_stamp){ .place = 4, .pages = 10, .number = 77 });
	start(state);
	refused(&(struct uvmem_stamp){ .place = 3, .pages = 11, .number = 77 });
}

/* What was sealed before, with the tag that it had then. */
static void an_older_number(void **state)
{
	start(state);
	for (uint64_t number = 70; number < 90; number++) {
		struct uvmem_stamp other = { .place = 3, .pages = 10, .number = number };

		memcpy(page, sealed, sizeof(page));
		if (number != 77)
			refused(&other);
	}
}

/* The same page under another number has nothing in common with it. */
static void numbers_differ(void **state)
{
	const struct uvmem_stamp next = { .place = 3, .pages = 10, .number = 78 };
	unsigned char again[UVMEM_PAGE_SIZE], tag2[UVMEM_TAG_BYTES];
	unsigned same = 0;

	start(state);
	uvmem_seal(&sealer, &next, plain, again, tag2);
	for (unsigned i = 0; i < UVMEM_PAGE_SIZE; i++)
		same += sealed[i] == again[i];
	assert_true(same < UVMEM_PAGE_SIZE / 64);
	assert_memory_not_equal(tag, tag2, sizeof(tag));
}

static void half_a_page(void **state)
{
	start(state);
	memset(page + UVMEM_PAGE_SIZE / 2, 0, UVMEM_PAGE_SIZE / 2);
	refused(&stamp);
}

static void another_key(void **state)
{
	const enum uvmem_cipher *cipher = *state;
	unsigned char key[UVMEM_KEY_BYTES] = { 1 };

	start(state);
	assert_int_equal(uvmem_sealer_init(&sealer, *cipher, key), 0);
	refused(&stamp);
	/* The same key twice is the same. */
	uvmem_seal(&sealer, &stamp, plain, sealed, tag);
	assert_int_equal(uvmem_sealer_init(&sealer, *cipher, key), 0);
	assert_int_equal(uvmem_open_sealed(&sealer, &stamp, sealed, tag), 0);
	assert_memory_equal(sealed, plain, sizeof(plain));
}

static enum uvmem_cipher aes = UVMEM_CIPHER_AES256GCM,
			 xchacha = UVMEM_CIPHER_XCHACHA20POLY1305;

#define BOTH(name)                                                                         \
	{ #name " (AES)", name, NULL, NULL, &aes },                                        \
	{                                                                                  \
#name " (XChaCha20)", name, NULL, NULL, &xchacha                           \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(there_and_back), BOTH(a_changed_bit),   BOTH(a_changed_tag),
		BOTH(another_place),  BOTH(an_older_number), BOTH(numbers_differ),
		BOTH(half_a_page),    BOTH(another_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
