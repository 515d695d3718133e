/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_live - what the live tests of uvmem share: a secure range whose bytes only the
 * secure side and a formula know.
 */
#ifndef LIVE_UVMEM_LIVE_H
#define LIVE_UVMEM_LIVE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/uvmem.h>

#include "live.h"

#define PAGE 4096u
#define PAGES 32u

struct vault {
	struct uvmem *uv;
	unsigned char *at; /* PAGES pages */
	unsigned seed;	   /* of the bytes */
	unsigned erased;   /* the first so many pages are zeros */
};

/*
 * A range that was empty, secure, filled from inside by the formula: its plain bytes have
 * never been anywhere else. `options` may be NULL. Skips where there is no memfd_secret.
 */
enum verdict vault_begin(struct vault *vault, const struct uvmem_options *options);
void vault_end(struct vault *vault);
/* Memory that nothing of libc's is beside (devmem.h). */
unsigned char *vault_map(size_t length);
void vault_unmap(void *at, size_t length);
/* Byte i of the range by the formula. */
unsigned char vault_byte(unsigned seed, unsigned i);
/* From inside: all is as it was. 0; -EIO other bytes; or what a load said. */
int vault_check(struct vault *vault);
/* The same of one page. */
int vault_check_page(struct vault *vault, unsigned page);
/* From inside: write page p anew by the formula. */
int vault_write_page(struct vault *vault, unsigned page);
/* Does this page's worth of bytes look like plain page p? */
bool vault_is_plain(const struct vault *vault, const unsigned char *bytes, unsigned page);
/* uvmem_export() and uvmem_import() of the whole, from inside. */
int vault_export(struct vault *vault, int fd, const void *key, uint64_t generation);
int vault_import(struct vault *vault, int fd, const void *key, uint64_t at_least,
		 uint64_t *generation);

#endif
