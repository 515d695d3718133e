/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * wire - messages to bytes and back. Every message begins with a word that says what it is.
 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "wire.h"

#define MAGIC_REQUEST 0x51504431u  /* "1DPQ" */
#define MAGIC_RESPONSE 0x52504431u /* "1DPR" */
#define MAGIC_HELLO 0x48504431u	   /* "1DPH" */
#define MAGIC_CONNECT 0x43504431u  /* "1DPC" */
#define MAGIC_BYE 0x42504431u	   /* "1DPB" */

#define ERRNO_MAX 4095

/* ---- numbers ---- */

struct cursor {
	uint8_t *at;
};

static void put64(struct cursor *c, uint64_t value)
{
	value = htole64(value);
	memcpy(c->at, &value, sizeof(value));
	c->at += sizeof(value);
}

static void put32(struct cursor *c, uint32_t value)
{
	value = htole32(value);
	memcpy(c->at, &value, sizeof(value));
	c->at += sizeof(value);
}

static uint64_t get64(struct cursor *c)
{
	uint64_t value;

	memcpy(&value, c->at, sizeof(value));
	c->at += sizeof(value);
	return le64toh(value);
}

static uint32_t get32(struct cursor *c)
{
	uint32_t value;

	memcpy(&value, c->at, sizeof(value));
	c->at += sizeof(value);
	return le32toh(value);
}

/* ---- request ---- */

size_t wire_put_request(void *to, const struct wire_request *r)
{
	struct cursor c = { to };

	memset(to, 0, WIRE_REQUEST);
	put32(&c, MAGIC_REQUEST);
	put32(&c, (uint32_t)r->code | (uint32_t)r->with_bytes << 8 | (uint32_t)r->slot << 16);
	put64(&c, r->key.region);
	memcpy(c.at, r->key.secret, sizeof(r->key.secret));
	c.at += sizeof(r->key.secret);
	put64(&c, r->remote);
	put64(&c, r->length);
	put64(&c, r->buffer);
	put64(&c, r->buffer_key);
	put64(&c, r->operand);
	put64(&c, r->compare);
	return WIRE_REQUEST;
}

static bool fits(const struct wire_request *r, size_t follows)
{
	switch (r->code) {
	case ODP_GET:
		return !follows && (!r->with_bytes || r->length <= WIRE_INLINE);
	case ODP_PUT:
		return r->with_bytes ? follows == r->length && follows <= WIRE_INLINE
				     : !follows;
	case ODP_FETCH_ADD:
	case ODP_COMPARE_SWAP:
	case ODP_ATOMIC_WRITE:
		return !follows && !r->with_bytes && r->length == 8;
	case ODP_ADVISE:
		return !follows && !r->with_bytes && r->operand <= ODP_PREFETCH_NO_FAULT &&
		       r->compare <= 1;
	}
	return false;
}

bool wire_get_request(struct wire_request *r, const void *from, size_t length)
{
	struct cursor c = { (uint8_t *)(uintptr_t)from };
	uint32_t word;

	if (length < WIRE_REQUEST || length > WIRE_MAX || get32(&c) != MAGIC_REQUEST)
		return false;
	word = get32(&c);
	*r = (struct wire_request){ .code = (enum odp_opcode)(word & 0xff),
				    .with_bytes = word >> 8 & 1,
				    .slot = (uint16_t)(word >> 16) };
	r->key.region = get64(&c);
	memcpy(r->key.secret, c.at, sizeof(r->key.secret));
	c.at += sizeof(r->key.secret);
	r->remote = get64(&c);
	r->length = get64(&c);
	r->buffer = get64(&c);
	r->buffer_key = get64(&c);
	r->operand = get64(&c);
	r->compare = get64(&c);
	return !(word & 0xfe00) && r->slot < WIRE_SLOTS && r->length &&
	       r->length <= UINT64_MAX - r->remote && r->length <= UINT64_MAX - r->buffer &&
	       fits(r, length - WIRE_REQUEST);
}

/* ---- response ---- */

size_t wire_put_response(void *to, const struct wire_response *r)
{
	struct cursor c = { to };

	memset(to, 0, WIRE_RESPONSE);
	put32(&c, MAGIC_RESPONSE);
	put32(&c, r->slot);
	put32(&c, (uint32_t)-r->result);
	put32(&c, (uint32_t)r->reason);
	put64(&c, r->fault_addr);
	put64(&c, r->old);
	put64(&c, r->length);
	return WIRE_RESPONSE;
}

bool wire_get_response(struct wire_response *r, const void *from, size_t length)
{
	struct cursor c = { (uint8_t *)(uintptr_t)from };
	uint32_t slot, result, reason;

	if (length < WIRE_RESPONSE || get32(&c) != MAGIC_RESPONSE)
		return false;
	slot = get32(&c);
	result = get32(&c);
	reason = get32(&c);
	if (slot >= WIRE_SLOTS || result > ERRNO_MAX || reason > HMM_REASON_DEVICE_LOST)
		return false;
	*r = (struct wire_response){ .slot = (uint16_t)slot, .result = -(int)result,
				     .reason = (enum hmm_reason)reason };
	r->fault_addr = get64(&c);
	r->old = get64(&c);
	r->length = get64(&c);
	return r->length <= WIRE_INLINE && r->length == length - WIRE_RESPONSE;
}

/* ---- the beginning ---- */

static size_t put_greeting(void *to, uint32_t magic)
{
	struct cursor c = { to };

	put32(&c, magic);
	put32(&c, WIRE_VERSION);
	put32(&c, WIRE_SLOTS);
	put32(&c, WIRE_INLINE);
	return WIRE_HELLO;
}

static bool get_greeting(const void *from, size_t length, uint32_t magic)
{
	struct cursor c = { (uint8_t *)(uintptr_t)from };

	/* Providers may hand over more than was given to them, filled up with zeros. */
	return length >= WIRE_HELLO && get32(&c) == magic && get32(&c) == WIRE_VERSION &&
	       get32(&c) == WIRE_SLOTS && get32(&c) == WIRE_INLINE;
}

size_t wire_put_hello(void *to)
{
	return put_greeting(to, MAGIC_HELLO);
}

size_t wire_put_connect(void *to)
{
	return put_greeting(to, MAGIC_CONNECT);
}

bool wire_get_hello(const void *from, size_t length)
{
	return get_greeting(from, length, MAGIC_HELLO);
}

bool wire_get_connect(const void *from, size_t length)
{
	return get_greeting(from, length, MAGIC_CONNECT);
}

size_t wire_put_name(void *to, const struct wire_name *name)
{
	struct cursor c = { to };

	put64(&c, name->pid);
	memcpy(c.at, name->name, FABRIC_NAME);
	return 8 + FABRIC_NAME;
}

bool wire_get_name(struct wire_name *name, const void *from, size_t length)
{
	struct cursor c = { (uint8_t *)(uintptr_t)from };

	if (length < 8 + FABRIC_NAME)
		return false;
	name->pid = get64(&c);
	memcpy(name->name, c.at, FABRIC_NAME);
	return name->pid && name->pid <= INT32_MAX && *name->name &&
	       memchr(name->name, 0, FABRIC_NAME);
}

size_t wire_put_bye(void *to)
{
	return put_greeting(to, MAGIC_BYE);
}

bool wire_is_bye(const void *from, size_t length)
{
	return length == WIRE_BYE && get_greeting(from, length, MAGIC_BYE);
}
