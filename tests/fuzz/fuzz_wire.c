/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fuzz_wire - what a peer may send to drivers/odp, in any order, and bytes that are nothing.
 *
 * 1. Decoders get the input as it is. What they accept keeps what wire.h promises, and
 *    encoded again it is the same.
 * 2. The target's machine of connections, jobs, works and regions runs on a fabric and a
 *    memory of the fuzzer's (odp_fake.c), with no thread: messages that are valid in part
 *    arrive, operations complete, are refused, or are flushed, regions come and go, pages
 *    change, and workers do their work, in the order that the input says.
 *
 * Checked: answers are never more than requests, and each is to one; what a peer had no right
 * to never succeeds; memory outside of the regions is not touched; a connection ends if, and
 * only if, the protocol is broken or its endpoint is; in the end, when all goes on, nothing
 * waits for ever, and everything is freed.
 *
 * Built by clang with -fsanitize=fuzzer it is a libFuzzer target; with FUZZ_MAIN it is a
 * test that makes its own input from a fixed seed: fuzz_wire [runs [seed]].
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "odp_fake.h"

#define CLIENTS 3u

static struct {
	const uint8_t *data;
	size_t left;
} input;

static uint8_t next(void)
{
	if (!input.left)
		return 0;
	input.left--;
	return *input.data++;
}

static uint64_t next64(void)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < 8; i++)
		value = value << 8 | next();
	return value;
}

/* ---- decoders ---- */

static bool same_request(const struct wire_request *a, const struct wire_request *b)
{
	return a->code == b->code && a->with_bytes == b->with_bytes && a->slot == b->slot &&
	       a->key.region == b->key.region &&
	       !memcmp(a->key.secret, b->key.secret, sizeof(a->key.secret)) &&
	       a->remote == b->remote && a->length == b->length && a->buffer == b->buffer &&
	       a->buffer_key == b->buffer_key && a->operand == b->operand &&
	       a->compare == b->compare;
}

static void try_request(const uint8_t *bytes, size_t size)
{
	struct wire_request r, again;
	uint8_t out[WIRE_MAX];
	size_t follows;

	if (!wire_get_request(&r, bytes, size))
		return;
	follows = size - WIRE_REQUEST;
	must(size <= WIRE_MAX && r.slot < WIRE_SLOTS && r.length);
	must(r.remote + r.length > r.remote && r.buffer + r.length > r.buffer);
	must(!r.with_bytes || r.code == ODP_GET || r.code == ODP_PUT);
	must(!r.with_bytes || r.length <= WIRE_INLINE);
	must(follows == (r.with_bytes && r.code == ODP_PUT ? r.length : 0));
	must(r.code >= ODP_GET && r.code <= ODP_ADVISE);
	must(r.code <= ODP_PUT || r.code == ODP_ADVISE || r.length == 8);
	must(r.code != ODP_ADVISE ||
	     (r.operand <= ODP_PREFETCH_NO_FAULT && r.compare <= 1));
	must(wire_put_request(out, &r) == WIRE_REQUEST);
	memcpy(out + WIRE_REQUEST, bytes + WIRE_REQUEST, follows);
	must(wire_get_request(&again, out, size) && same_request(&r, &again));
	must(!memcmp(out, bytes, size));
}

static void try_response(const uint8_t *bytes, size_t size)
{
	struct wire_response r, again;
	uint8_t out[WIRE_RESPONSE + WIRE_INLINE];

	if (!wire_get_response(&r, bytes, size))
		return;
	must(r.slot < WIRE_SLOTS && r.result <= 0 && r.result >= -4095);
	must(r.length == size - WIRE_RESPONSE && r.length <= WIRE_INLINE);
	must(r.reason <= HMM_REASON_DEVICE_LOST);
	must(wire_put_response(out, &r) == WIRE_RESPONSE);
	memcpy(out + WIRE_RESPONSE, bytes + WIRE_RESPONSE, r.length);
	must(wire_get_response(&again, out, size));
	must(again.slot == r.slot && again.result == r.result && again.reason == r.reason &&
	     again.fault_addr == r.fault_addr && again.old == r.old &&
	     again.length == r.length);
}

/* The input in a block of exactly its size, so that a read behind it is seen. */
static void decoders(const uint8_t *data, size_t size)
{
	uint8_t *bytes = malloc(size ? size : 1), whole[WIRE_MAX] = { 0 };
	struct odp_key key, again;
	char text[ODP_KEY_TEXT + 8] = "", other[ODP_KEY_TEXT];

	must(bytes != NULL);
	memcpy(bytes, data, size);
	try_request(bytes, size);
	try_response(bytes, size);
	wire_get_hello(bytes, size);
	wire_get_connect(bytes, size);
	free(bytes);
	/* The same with words that are right, which chance would not find. */
	if (size > 8 && size <= sizeof(whole) - 4) {
		memcpy(whole + 4, data, size);
		memcpy(whole, "1DPQ", 4);
		whole[4] = whole[4] % 8;
		whole[5] &= 1;
		whole[6] %= 20;
		whole[7] = 0;
		try_request(whole, data[1] % 4 ? WIRE_REQUEST : size + 4);
		memcpy(whole, "1DPR", 4);
		memset(whole + 5, 0, 3);
		memset(whole + 10, 0, 2);
		memset(whole + 13, 0, 3);
		try_response(whole, WIRE_RESPONSE + data[2] % 3);
	}
	memcpy(text, data, size < sizeof(text) - 1 ? size : sizeof(text) - 1);
	if (!odp_key_parse(&key, text)) {
		odp_key_print(&key, other);
		must(!odp_key_parse(&again, other) && again.region == key.region &&
		     !memcmp(again.secret, key.secret, sizeof(key.secret)));
	}
}

/* ---- messages ---- */

static uint64_t a_length(uint8_t how)
{
	static const uint64_t lengths[] = {
		1, 8, 100, 4095, 4096, 4097, WIRE_INLINE + 1, 9000, 3 * 4096, 40000,
	};
	static const uint64_t odd[] = { UINT64_MAX, UINT64_MAX - FAKE_BASE, 0,
					(uint64_t)1 << 40 };

	if (how > 249)
		return odd[how % 4];
	return lengths[how % (sizeof(lengths) / sizeof(lengths[0]))];
}

static void fill(struct wire_request *r, unsigned client)
{
	uint8_t how = next(), where = next(), which = next();
	unsigned slot = where < 250 ? fake_slot(client, where % WIRE_SLOTS) : where % WIRE_SLOTS;
	uint64_t start = FAKE_BASE + which % FAKE_REGIONS * (FAKE_PAGES / FAKE_REGIONS) * PAGE;

	*r = (struct wire_request){ .code = (enum odp_opcode)(1 + how % 6),
				    .slot = (uint16_t)slot,
				    .remote = start + (uint64_t)next() * 192 + next() * 8u,
				    .length = a_length(next()),
				    .buffer = (uint64_t)next() << 20,
				    .buffer_key = next(),
				    .operand = next() % 4,
				    .compare = which >> 7 };
	fake_key(which % FAKE_REGIONS, &r->key);
	if (which % 32 == 31)
		r->key.secret[which % 16] ^= 1;
	if (r->code >= ODP_FETCH_ADD && r->code <= ODP_ATOMIC_WRITE)
		r->length = 8;
	r->with_bytes = r->code <= ODP_PUT && r->length <= WIRE_INLINE && how % 8;
	if (how > 250)
		r->remote = next64();
}

/* As much of the protocol as a client may break, without knowing how the target does it. */
static void message(unsigned client)
{
	uint8_t bytes[WIRE_MAX] = { 0 };
	struct wire_request r, seen;
	size_t size;
	uint8_t how;

	fill(&r, client);
	size = wire_put_request(bytes, &r);
	if (r.code == ODP_PUT && r.with_bytes) {
		memset(bytes + size, next(), r.length);
		size += r.length;
	}
	how = next();
	if (how > 253)
		bytes[next() % size] ^= (uint8_t)(1 + next());
	if (how == 253)
		size = next() % size;
	fake_receive(client, bytes, size,
		     wire_get_request(&seen, bytes, size) ? &seen : NULL);
}

static void step(void)
{
	uint8_t what = next(), which = next();
	unsigned client = which % CLIENTS;

	switch (what % 24) {
	case 0:
		fake_connect(client, which & 64);
		break;
	case 1:
	case 2:
	case 3:
	case 4:
	case 5:
	case 6:
		message(client);
		break;
	case 7:
	case 8:
	case 9:
	case 10:
		fake_complete(client, which >> 2);
		break;
	case 11:
		fake_refuses(client, which & 4, which > 252);
		break;
	case 12:
		if (which > 245)
			fake_lost(client);
		break;
	case 13:
	case 14:
		fake_work();
		break;
	case 15:
	case 16:
		fake_worked();
		break;
	case 17:
	case 18:
		fake_pump();
		break;
	case 19:
		if (which > 128)
			fake_region(which % FAKE_REGIONS, next());
		break;
	case 20:
	case 21:
		fake_change(which % FAKE_PAGES, next());
		break;
	case 22:
		fake_deliver();
		break;
	case 23:
		fake_trouble(which);
		break;
	}
}

static void machine(const uint8_t *data, size_t size)
{
	input.data = data;
	input.left = size;
	fake_begin(next());
	for (unsigned i = 0; i < CLIENTS; i++)
		fake_connect(i, true);
	while (input.left)
		step();
	fake_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	decoders(data, size);
	machine(data, size);
	return 0;
}

#ifdef FUZZ_MAIN
#include "by_seed.h"

int main(int argc, char **argv)
{
	static uint8_t data[3000];

	printf("%llu runs: ", (unsigned long long)run_seeds(argc, argv, 3000, data, sizeof(data)));
	fake_print();
	return 0;
}
#endif
