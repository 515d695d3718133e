/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * secure - `uhmm secure`: what its commands are given, and what does their work.
 */
#ifndef UHMM_TOOLS_SECURE_H
#define UHMM_TOOLS_SECURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct secure {
	const char *title; /* for messages */
	const char *key;   /* file */
	const char *file;
	uint64_t size; /* export: bytes of the range; the secret is shorter */
	bool mlocked;
};

/* Return: the exit status. */
int secure_export(const struct secure *secure);
int secure_import(const struct secure *secure);

#endif
