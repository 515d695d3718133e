/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * area - comparing CPU, device and model.
 *
 * Order matters: area_gone() looks at the device's page table before the device's
 * next access puts anything into it again.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kinds.h"

#define PAGE ((size_t)4096)

void area_model_zero(struct area *a, unsigned from, unsigned to)
{
	memset(a->model + from * a->unit, 0, (to - from) * a->unit);
}

void area_model_backing(struct area *a, unsigned from, unsigned to)
{
	if (a->backing)
		memcpy(a->model + from * a->unit, a->backing + from * a->unit,
		       (to - from) * a->unit);
	else
		area_model_zero(a, from, to);
}

void area_model_access(struct area *a, unsigned from, unsigned to, enum access access)
{
	memset(a->access + from, access, to - from);
}

/* Past the units from `from` that are used alike. */
static unsigned alike(const struct area *a, unsigned from)
{
	unsigned to = from + 1;

	while (to < area_units(a) && a->access[to] == a->access[from])
		to++;
	return to;
}

/* A driver that has to know which memory is meant learns where the area is by now. */
static enum verdict take(struct area *a, struct device *dev)
{
	return dev->driver->take ? dev->driver->take(dev, a->at, a->length) : PASS;
}

static enum verdict refused(struct area *a, struct device *dev, unsigned from, unsigned to)
{
	for (unsigned u = from; u < to; u++) {
		char *at = a->at + u * a->unit, byte = 1;
		int err = device_write(dev, at, &byte, 1);

		EXPECT(-EFAULT, device_byte(dev, at));
		EXPECT(-EFAULT, device_byte(dev, at + a->unit - 1));
		/* -EPERM: a guard page in a read-only mapping is both. */
		CHECK(err == -EFAULT || err == -EPERM, "a write to unit %u gives %d", u,
		      err);
		CHECK(!device_lookup(dev, at), "unit %u cannot be read, but is translated",
		      u);
	}
	return PASS;
}

/* The first byte that differs, for a message. */
static size_t differs(const void *a, const void *b, size_t n)
{
	const char *x = a, *y = b;
	size_t i = 0;

	while (i < n && x[i] == y[i])
		i++;
	return i;
}

static enum verdict same_bytes(struct area *a, struct device *dev, unsigned from,
			       unsigned to)
{
	size_t at = from * a->unit, n = (to - from) * a->unit, i;
	const unsigned char *want = a->model + at;
	unsigned char *seen = malloc(n);
	int err;

	CHECK(seen, "no memory");
	err = device_read(dev, seen, a->at + at, n);
	if (err)
		FAILED("the device reads units %u to %u: %s", from, to, hmm_strerror(err));
	i = differs(a->at + at, want, n);
	if (i < n)
		FAILED("the CPU sees %#x at +%#zx, the model says %#x",
		       (unsigned char)a->at[at + i], at + i, want[i]);
	i = differs(seen, want, n);
	if (i < n)
		FAILED("the device sees %#x at +%#zx, the CPU %#x", seen[i], at + i,
		       want[i]);
	free(seen);
	return PASS;
}

/* A few bytes across the first page border of the unit, or in its middle. */
static enum verdict try_write(struct area *a, struct device *dev, unsigned u)
{
	static unsigned char counter;
	unsigned char bytes[16];
	size_t at = u * a->unit + PAGE / 2;
	int err, want = a->access[u] == WRITE ? 0 : -EPERM;

	memset(bytes, ++counter, sizeof(bytes));
	err = device_write(dev, a->at + at, bytes, sizeof(bytes));
	if (err != want)
		FAILED("the device writes to unit %u, access %c: %d (%s)", u, a->access[u],
		       err, hmm_strerror(err));
	if (!err)
		memcpy(a->model + at, bytes, sizeof(bytes));
	if (memcmp(a->at + at, a->model + at, sizeof(bytes)))
		FAILED("the CPU does not see what the device wrote to unit %u", u);
	return PASS;
}

enum verdict area_agrees(struct area *a, struct device *dev)
{
	TRY(take(a, dev));
	for (unsigned from = 0, to; from < area_units(a); from = to) {
		to = alike(a, from);
		if (a->access[from] == NONE) {
			TRY(refused(a, dev, from, to));
			continue;
		}
		TRY(same_bytes(a, dev, from, to));
		TRY(try_write(a, dev, from));
		TRY(try_write(a, dev, to - 1));
		TRY(same_bytes(a, dev, from, to));
	}
	CHECK(!dev->driver->stale(dev), "%llu accesses through stale translations",
	      (unsigned long long)dev->driver->stale(dev));
	return PASS;
}

/* A fence may tell CLEAR at any moment, if it gets no CPU for a while: then it is used once more. */
#define WARM_TRIES 5u

static enum verdict warm_units(struct area *a, struct device *dev, unsigned from,
			       unsigned to)
{
	size_t at = from * a->unit, n = (to - from) * a->unit, cold = at;
	uint64_t need = a->access[from] == WRITE ? HMM_PFN_WRITE : HMM_PFN_VALID;

	for (unsigned tries = 0; tries < WARM_TRIES && cold < at + n; tries++) {
		if (a->access[from] == WRITE) {
			for (size_t i = at; i < at + n; i += 64)
				a->model[i] = (unsigned char)(i / 64 * 5 + 17);
			EXPECT(0, device_write(dev, a->at + at, a->model + at, n));
		}
		TRY(same_bytes(a, dev, from, to));
		for (cold = at; cold < at + n; cold += PAGE)
			if (!dev->fleeting && !(device_lookup(dev, a->at + cold) & need))
				break;
	}
	CHECK(cold >= at + n, "+%#zx was just accessed, but has no translation (%#llx)", cold,
	      (unsigned long long)device_lookup(dev, a->at + cold));
	return PASS;
}

enum verdict area_warm(struct area *a, struct device *dev)
{
	TRY(take(a, dev));
	for (unsigned from = 0, to; from < area_units(a); from = to) {
		to = alike(a, from);
		if (a->access[from] == NONE)
			TRY(refused(a, dev, from, to));
		else
			TRY(warm_units(a, dev, from, to));
	}
	return PASS;
}

enum verdict area_gone(struct area *a, struct device *dev, unsigned from, unsigned to)
{
	char *start = a->at + from * a->unit;
	size_t n = (to - from) * a->unit;

	dev->driver->mark(dev, start, n);
	EXPECT(0, device_fence(dev, start, n));
	for (size_t i = 0; i < n; i += PAGE)
		CHECK(!device_lookup(dev, start + i),
		      "a translation of +%#zx outlived its fence", from * a->unit + i);
	return PASS;
}
