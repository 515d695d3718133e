/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_cpu - what the CPU would find: the measure for the others, as they promise nothing
 * else. The kernel copies, so that what is not there is an error and no signal.
 */
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "odp_backend.h"

struct memory {
	char *start;
	size_t length;
	unsigned may;
};

static enum verdict cpu_open(void **dev)
{
	*dev = NULL;
	return PASS;
}

static int cpu_reg(void *dev, void *start, size_t length, unsigned may, void **mr)
{
	struct memory *m;

	if (may & ODP_PINNED)
		return -EOPNOTSUPP;
	m = malloc(sizeof(*m));
	*m = (struct memory){ start, length, may };
	*mr = m;
	return 0;
}

static void cpu_unreg(void *dev, void *mr)
{
	free(mr);
}

static enum odp_result allowed(const struct memory *m, const char *at, size_t n,
			       unsigned may)
{
	if ((m->may & may) != may)
		return ODP_PERMISSION;
	return at >= m->start && n <= m->length && at + n <= m->start + m->length
		       ? ODP_OK
		       : ODP_BOUNDS;
}

static enum odp_result copy(const void *at, const void *mine, size_t n, bool out)
{
	struct iovec local = { (void *)(uintptr_t)mine, n };
	struct iovec remote = { (void *)(uintptr_t)at, n };
	ssize_t done = out ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0)
			   : process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	return done == (ssize_t)n ? ODP_OK : ODP_ACCESS;
}

static enum odp_result cpu_get(void *dev, void *mr, const void *at, void *to, size_t n)
{
	enum odp_result result = allowed(mr, at, n, ODP_MAY_READ);

	return result ? result : copy(at, to, n, false);
}

static enum odp_result cpu_put(void *dev, void *mr, void *at, const void *from, size_t n)
{
	enum odp_result result = allowed(mr, at, n, ODP_MAY_WRITE);

	return result ? result : copy(at, from, n, true);
}

/* An atomic of nobody else's memory: the test is all that uses it. */
static enum odp_result modify(struct memory *m, void *at, const uint64_t *expected,
			      uint64_t operand, uint64_t *old)
{
	enum odp_result result = allowed(m, at, sizeof(*old), ODP_MAY_ATOMIC);

	if (!result && (uintptr_t)at % sizeof(*old))
		result = ODP_REQUEST;
	if (!result)
		result = copy(at, old, sizeof(*old), false);
	if (!result && (!expected || *old == *expected)) {
		uint64_t value = expected ? operand : *old + operand;

		result = copy(at, &value, sizeof(value), true);
	}
	return result;
}

static enum odp_result cpu_fetch_add(void *dev, void *mr, void *at, uint64_t add,
				     uint64_t *old)
{
	return modify(mr, at, NULL, add, old);
}

static enum odp_result cpu_compare_swap(void *dev, void *mr, void *at, uint64_t expected,
					uint64_t desired, uint64_t *old)
{
	return modify(mr, at, &expected, desired, old);
}

static void cpu_close(void *dev)
{
}

const struct odp_backend odp_cpu = {
	.name = "cpu",
	.open = cpu_open,
	.reg = cpu_reg,
	.unreg = cpu_unreg,
	.get = cpu_get,
	.put = cpu_put,
	.fetch_add = cpu_fetch_add,
	.compare_swap = cpu_compare_swap,
	.close = cpu_close,
};
