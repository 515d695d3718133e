/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * seal - one page through libsodium's AEAD, the tag kept apart.
 *
 * A nonce is the stamp's number, which never comes again under the key; AES has 12 bytes of
 * it, the other 24. It needs no randomness that way, and a process that is forked or a
 * machine that is resumed cannot use one twice: the key is in memory that neither has.
 *
 * The functions run on the engine's stack, and what they leave there is in secret memory
 * (engine.c). They call nothing that allocates.
 */
#include <errno.h>
#include <string.h>

#include "seal.h"

struct associated {
	char what[8];
	uint64_t place, pages, number;
};

static struct associated associate(const struct uvmem_stamp *stamp)
{
	struct associated ad = { .place = stamp->place,
				 .pages = stamp->pages,
				 .number = stamp->number };

	memcpy(ad.what, "uvmem 1", sizeof(ad.what));
	return ad;
}

int uvmem_sealer_init(struct uvmem_sealer *sealer, enum uvmem_cipher cipher,
		      const void *key)
{
	if (sodium_init() < 0)
		return -EIO;
	if (cipher == UVMEM_CIPHER_ANY)
		cipher = crypto_aead_aes256gcm_is_available()
				 ? UVMEM_CIPHER_AES256GCM
				 : UVMEM_CIPHER_XCHACHA20POLY1305;
	if (cipher == UVMEM_CIPHER_AES256GCM && !crypto_aead_aes256gcm_is_available())
		return -EOPNOTSUPP;
	if (key)
		memcpy(sealer->key, key, sizeof(sealer->key));
	else
		randombytes_buf(sealer->key, sizeof(sealer->key));
	sealer->cipher = cipher;
	if (cipher == UVMEM_CIPHER_AES256GCM)
		crypto_aead_aes256gcm_beforenm(&sealer->aes, sealer->key);
	return 0;
}

void uvmem_seal(const struct uvmem_sealer *sealer, const struct uvmem_stamp *stamp,
		const void *plain, void *sealed, unsigned char tag[UVMEM_TAG_BYTES])
{
	unsigned char nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES] = { 0 };
	struct associated ad = associate(stamp);

	memcpy(nonce, &stamp->number, sizeof(stamp->number));
	if (sealer->cipher == UVMEM_CIPHER_AES256GCM)
		crypto_aead_aes256gcm_encrypt_detached_afternm(
			sealed, tag, NULL, plain, UVMEM_PAGE_SIZE, (unsigned char *)&ad,
			sizeof(ad), NULL, nonce, &sealer->aes);
	else
		crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
			sealed, tag, NULL, plain, UVMEM_PAGE_SIZE, (unsigned char *)&ad,
			sizeof(ad), NULL, nonce, sealer->key);
}

int uvmem_open_sealed(const struct uvmem_sealer *sealer, const struct uvmem_stamp *stamp,
		      void *page, const unsigned char tag[UVMEM_TAG_BYTES])
{
	unsigned char nonce[crypto_aead_xchacha20poly1305_ietf_NPUBBYTES] = { 0 };
	struct associated ad = associate(stamp);
	int failed;

	memcpy(nonce, &stamp->number, sizeof(stamp->number));
	if (sealer->cipher == UVMEM_CIPHER_AES256GCM)
		failed = crypto_aead_aes256gcm_decrypt_detached_afternm(
			page, NULL, page, UVMEM_PAGE_SIZE, tag, (unsigned char *)&ad,
			sizeof(ad), nonce, &sealer->aes);
	else
		failed = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
			page, NULL, page, UVMEM_PAGE_SIZE, tag, (unsigned char *)&ad,
			sizeof(ad), nonce, sealer->key);
	if (failed)
		memset(page, 0, UVMEM_PAGE_SIZE);
	return failed ? -EBADMSG : 0;
}
