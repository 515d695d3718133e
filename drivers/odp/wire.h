/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * wire - what target and initiator say to each other.
 *
 *	initiator -> target	request [bytes of a short put]
 *	target -> initiator	hello, once; response [bytes of a short get]
 *	both			bye, where the provider has no connections
 *
 * A connection begins with `connect`: in the provider's connection request, or in a message to
 * the target's well-known endpoint. Without connections of the provider's both greetings go on
 * with who it is: the process, and the name of the endpoint that this client has to itself.
 *
 * All else is RDMA by the target: it writes what is got to the initiator's buffer and reads
 * what is put from there, so it takes bytes when it has room for them (back-pressure).
 *
 * Numbers are little-endian. Law: nothing that came from a peer is used before decode has
 * said that it is well formed; what decode does not know (is the slot free, does the key fit)
 * its caller checks.
 */
#ifndef ODP_WIRE_H
#define ODP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uhmm/odp.h>

#include "fabric.h"

#define WIRE_VERSION 1u
#define WIRE_SLOTS 16u	  /* requests under way for each connection */
#define WIRE_INLINE 4096u /* bytes that travel in a message */

#define WIRE_REQUEST 80u /* bytes, encoded, without what follows */
#define WIRE_RESPONSE 40u
#define WIRE_HELLO 16u
#define WIRE_CONNECT 16u /* in the connection request */
#define WIRE_NAMED (WIRE_HELLO + 8u + FABRIC_NAME) /* a greeting with a name */
#define WIRE_BYE 16u
#define WIRE_MAX (WIRE_REQUEST + WIRE_INLINE)

struct wire_name {
	uint64_t pid;
	char name[FABRIC_NAME];
};

struct wire_request {
	enum odp_opcode code;
	bool with_bytes; /* the bytes of the put follow, or those of the get are to */
	uint16_t slot;	 /* below WIRE_SLOTS */
	struct odp_key key;
	uint64_t remote, length;      /* GET, PUT, ADVISE; 8 for atomics */
	uint64_t buffer, buffer_key;  /* the initiator's, for RDMA */
	uint64_t operand, compare;
};

struct wire_response {
	uint16_t slot;
	int result; /* 0, or negative errno */
	enum hmm_reason reason;
	uint64_t fault_addr, old;
	uint64_t length; /* of the bytes that follow */
};

/* Bytes written. */
size_t wire_put_request(void *to, const struct wire_request *request);
size_t wire_put_response(void *to, const struct wire_response *response);
size_t wire_put_hello(void *to);
size_t wire_put_connect(void *to);

/* What follows a greeting. */
size_t wire_put_name(void *to, const struct wire_name *name);
size_t wire_put_bye(void *to);

/* false: it is not one, or a field of it is impossible. `length`: of the message. */
bool wire_get_request(struct wire_request *request, const void *from, size_t length);
bool wire_get_response(struct wire_response *response, const void *from, size_t length);
bool wire_get_hello(const void *from, size_t length);
bool wire_get_connect(const void *from, size_t length);
bool wire_get_name(struct wire_name *name, const void *from, size_t length);
bool wire_is_bye(const void *from, size_t length);

/* What follows the message proper. */
static inline const uint8_t *wire_bytes(const void *message, size_t proper)
{
	return (const uint8_t *)message + proper;
}

#endif
