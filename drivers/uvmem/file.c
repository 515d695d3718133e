/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * file - the range to a file and back, sealed with a key of the caller's.
 *
 *	header | page 0 | page 1 | ... | end
 *	page: kind (1 byte), tag (16), sealed bytes (4096); of a shared one the kind only
 *	end: a MAC of all kinds and tags
 *
 * Laws:
 *  - The keys of a file are made of the caller's key and the whole header, which has a random
 *    salt. So no header can be changed, no page of one file fits another, and its place is
 *    nonce enough.
 *  - The end says that every page was there. What is behind it does not belong to it.
 *  - Only who remembers a generation can tell an old file from a new one.
 *
 * All of it happens on a side: plain bytes and keys are in secret memory, and what read(2)
 * and write(2) are given is sealed. The cipher is always XChaCha20-Poly1305, so that any
 * machine can read it.
 */
#include <unistd.h>

#include "uvmem_private.h"

struct header {
	char magic[8];
	uint64_t pages, generation;
	unsigned char salt[32];
};

struct record {
	unsigned char kind; /* KIND_* */
	unsigned char tag[UVMEM_TAG_BYTES];
	unsigned char page[UVMEM_PAGE_SIZE];
};
#define RECORD_SHORT offsetof(struct record, tag)
_Static_assert(sizeof(struct record) == 17 + UVMEM_PAGE_SIZE, "a record has no gaps");

enum { KIND_SHARED = 0, KIND_SECRET = 1 };

static const char magic[8] = "uhmmuv1";

/* What a file takes; lies on a side's stack. */
struct file {
	struct uvmem_side *side;
	int fd;
	struct header header;
	struct record record;
	struct uvmem_sealer sealer;
	crypto_generichash_state mac;
};

static int put(const struct file *file, const void *bytes, size_t length)
{
	while (length) {
		ssize_t n = write(file->fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		bytes = (const char *)bytes + n;
		length -= (size_t)n;
	}
	return 0;
}

/* -EBADMSG: it ends before. */
static int get(const struct file *file, void *bytes, size_t length)
{
	while (length) {
		ssize_t n = read(file->fd, bytes, length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EBADMSG;
		bytes = (char *)bytes + n;
		length -= (size_t)n;
	}
	return 0;
}

/* Of the caller's key and the header: a key for pages, and one for the end. */
static int make_keys(struct file *file, const void *key)
{
	unsigned char both[2 * UVMEM_KEY_BYTES];
	int err;

	if (sodium_init() < 0)
		return -EIO;
	crypto_generichash(both, sizeof(both), (unsigned char *)&file->header,
			   sizeof(file->header), key, UVMEM_KEY_BYTES);
	crypto_generichash_init(&file->mac, both + UVMEM_KEY_BYTES, UVMEM_KEY_BYTES,
				crypto_generichash_BYTES);
	err = uvmem_sealer_init(&file->sealer, UVMEM_CIPHER_XCHACHA20POLY1305, both);
	sodium_memzero(both, sizeof(both));
	return err;
}

static struct uvmem_stamp stamp_of(const struct file *file, uint64_t place)
{
	return (struct uvmem_stamp){ .place = place,
				     .pages = file->header.pages,
				     .number = place };
}

/* ---- export ---- */

static bool is_shared(struct uvmem *uv, uint64_t place)
{
	bool shared;

	pthread_mutex_lock(&uv->lock);
	shared = uv->entry[place].state == UVMEM_PAGE_SHARED;
	pthread_mutex_unlock(&uv->lock);
	return shared;
}

static int export_page(struct file *file, uint64_t place)
{
	struct uvmem *uv = file->side->uv;
	struct uvmem_stamp stamp = stamp_of(file, place);
	struct record *record = &file->record;
	int err;

	record->kind = is_shared(uv, place) ? KIND_SHARED : KIND_SECRET;
	if (record->kind == KIND_SHARED) {
		crypto_generichash_update(&file->mac, &record->kind, RECORD_SHORT);
		return put(file, record, RECORD_SHORT);
	}
	err = uvmem_access(file->side, uvmem_address(uv, place), record->page, UVMEM_PAGE,
			   false);
	if (err)
		return err;
	uvmem_seal(&file->sealer, &stamp, record->page, record->page, record->tag);
	crypto_generichash_update(&file->mac, &record->kind, offsetof(struct record, page));
	return put(file, record, sizeof(*record));
}

int uvmem_export(struct uvmem_side *side, int fd, const void *key, uint64_t generation)
{
	struct file file = { .side = side, .fd = fd };
	unsigned char end[crypto_generichash_BYTES];
	uint64_t place;
	int err;

	if (!key)
		return -EINVAL;
	memcpy(file.header.magic, magic, sizeof(magic));
	file.header.pages = side->uv->pages;
	file.header.generation = generation;
	randombytes_buf(file.header.salt, sizeof(file.header.salt));
	err = make_keys(&file, key);
	if (!err)
		err = put(&file, &file.header, sizeof(file.header));
	for (place = 0; place < side->uv->pages && !err; place++)
		err = export_page(&file, place);
	if (err)
		return err;
	crypto_generichash_final(&file.mac, end, sizeof(end));
	return put(&file, end, sizeof(end));
}

/* ---- import ---- */

static int import_page(struct file *file, uint64_t place)
{
	struct uvmem *uv = file->side->uv;
	struct uvmem_stamp stamp = stamp_of(file, place);
	struct record *record = &file->record;
	int err = get(file, record, RECORD_SHORT);

	if (!err && record->kind == KIND_SHARED) {
		crypto_generichash_update(&file->mac, &record->kind, RECORD_SHORT);
		return 0;
	}
	if (!err)
		err = record->kind == KIND_SECRET
			      ? get(file, record->tag, sizeof(*record) - RECORD_SHORT)
			      : -EBADMSG;
	if (err)
		return err;
	crypto_generichash_update(&file->mac, &record->kind, offsetof(struct record, page));
	err = uvmem_open_sealed(&file->sealer, &stamp, record->page, record->tag);
	/* What is shared here stays so: a secret is not written to it. */
	if (err || is_shared(uv, place))
		return err;
	return uvmem_access(file->side, uvmem_address(uv, place), record->page, UVMEM_PAGE,
			    true);
}

static int import_end(struct file *file)
{
	unsigned char end[crypto_generichash_BYTES], said[sizeof(end)];
	int err = get(file, said, sizeof(said));

	crypto_generichash_final(&file->mac, end, sizeof(end));
	return err ? err : sodium_memcmp(end, said, sizeof(end)) ? -EBADMSG : 0;
}

static int import_pages(struct file *file, const void *key)
{
	struct uvmem *uv = file->side->uv;
	uint64_t place;
	int err = get(file, &file->header, sizeof(file->header));

	if (!err && memcmp(file->header.magic, magic, sizeof(magic)))
		err = -EBADMSG;
	if (!err && file->header.pages != uv->pages)
		err = -EINVAL;
	if (!err)
		err = make_keys(file, key);
	for (place = 0; place < uv->pages && !err; place++)
		err = import_page(file, place);
	return err ? err : import_end(file);
}

int uvmem_import(struct uvmem_side *side, int fd, const void *key, uint64_t at_least,
		 uint64_t *generation)
{
	struct file file = { .side = side, .fd = fd };
	int err;

	if (!key)
		return -EINVAL;
	err = uvmem_zero_all(side);
	if (!err)
		err = import_pages(&file, key);
	if (!err && file.header.generation < at_least)
		err = -ESTALE;
	if (err)
		uvmem_zero_all(side);
	else if (generation)
		*generation = file.header.generation;
	return err;
}
