/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * seal - a page sealed and opened again; nothing here knows where pages are.
 *
 * Laws:
 *  - A number seals one page once: it is the nonce. Who seals counts, under one key.
 *  - Place and number are associated data: a page opens at its place only, and only if the
 *    number is the one that is asked for. So "the newest" is what the caller remembers.
 *  - What does not open leaves zeros behind.
 */
#ifndef UVMEM_SEAL_H
#define UVMEM_SEAL_H

#include <sodium.h>
#include <stdint.h>

#include <uhmm/uvmem.h>

#define UVMEM_PAGE_SIZE 4096u
#define UVMEM_TAG_BYTES 16u

/* Lies in secret memory: the key, and for AES what is made of it once. */
struct uvmem_sealer {
	crypto_aead_aes256gcm_state aes; /* aligned to 16 by its type */
	unsigned char key[UVMEM_KEY_BYTES];
	enum uvmem_cipher cipher;
};

/* What tells one sealing from all others under a key. */
struct uvmem_stamp {
	uint64_t place;	 /* of the page */
	uint64_t pages;	 /* of the whole */
	uint64_t number; /* unique under the key */
};

/* `key` NULL: a random one. 0; -EOPNOTSUPP the cipher; -EIO libsodium does not start. */
int uvmem_sealer_init(struct uvmem_sealer *sealer, enum uvmem_cipher cipher,
		      const void *key);
/* `sealed` may be `plain`. */
void uvmem_seal(const struct uvmem_sealer *sealer, const struct uvmem_stamp *stamp,
		const void *plain, void *sealed, unsigned char tag[UVMEM_TAG_BYTES]);
/* In place. 0; -EBADMSG: the page is zeros now. */
int uvmem_open_sealed(const struct uvmem_sealer *sealer, const struct uvmem_stamp *stamp,
		      void *page, const unsigned char tag[UVMEM_TAG_BYTES]);

#endif
