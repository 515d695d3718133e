/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_uhmm - paging on demand in user space: the odp driver, over tcp on the loopback, and
 * over the same RDMA device as the kernel's. Target and initiator are in this process.
 */
#include <stdio.h>
#include <stdlib.h>

#include "odp_backend.h"

struct pair {
	struct odp_target *target;
	struct odp *odp;
};

/* A registration, and its key. */
struct mr {
	struct odp_region *region;
	struct odp_key key;
};

static enum verdict open_at(const struct odp_target_options *options, void **dev)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int err = odp_target_open(options, &pair->target);

	if (!err)
		err = odp_connect(odp_target_address(pair->target), NULL, &pair->odp);
	CHECK(!err, "odp over %s: %s",
	      options && options->provider ? options->provider : "tcp", strerror(-err));
	*dev = pair;
	return PASS;
}

static enum verdict tcp_open(void **dev)
{
	return open_at(NULL, dev);
}

static enum verdict verbs_open(void **dev)
{
	struct odp_target_options options = { .size = sizeof(options),
					      .provider = "verbs",
					      .node = getenv("UHMM_LAB_RDMA_ADDRESS") };

	if (!options.node)
		return live_skip("UHMM_LAB_RDMA_ADDRESS names no address of an RDMA device (the "
				 "lab does)");
	return open_at(&options, dev);
}

static void uhmm_close(void *dev)
{
	struct pair *pair = dev;

	odp_close(pair->odp);
	odp_target_close(pair->target);
	free(pair);
}

static int uhmm_reg(void *dev, void *start, size_t length, unsigned may, void **out)
{
	struct pair *pair = dev;
	unsigned access = (may & ODP_MAY_READ ? ODP_READ : 0) |
			  (may & ODP_MAY_WRITE ? ODP_WRITE : 0) |
			  (may & ODP_MAY_ATOMIC ? ODP_ATOMIC : 0);
	struct mr *mr = calloc(1, sizeof(*mr));
	int err = may & ODP_PINNED ? -EOPNOTSUPP
				   : odp_region_create(pair->target, (uintptr_t)start, length,
						       access, &mr->region);

	if (err) {
		free(mr);
		return err;
	}
	odp_region_key(mr->region, &mr->key);
	*out = mr;
	return 0;
}

static void uhmm_unreg(void *dev, void *handle)
{
	struct mr *mr = handle;

	odp_region_destroy(mr->region);
	free(mr);
}

static enum odp_result result_of(int err)
{
	switch (err) {
	case 0:
		return ODP_OK;
	case -EACCES:
		return ODP_BOUNDS;
	case -EFAULT:
		return ODP_FAULT;
	case -EPERM:
		return ODP_PERMISSION;
	case -EINVAL:
		return ODP_REQUEST;
	case -ETIMEDOUT:
		return ODP_SILENT;
	case -EBUSY:
	case -EOPNOTSUPP:
		return ODP_OPERATION;
	default:
		return ODP_BROKEN;
	}
}

static enum odp_result uhmm_get(void *dev, void *handle, const void *at, void *to, size_t n)
{
	struct pair *pair = dev;
	struct mr *mr = handle;

	return result_of(odp_get(pair->odp, &mr->key, to, (uintptr_t)at, n));
}

static enum odp_result uhmm_put(void *dev, void *handle, void *at, const void *from, size_t n)
{
	struct pair *pair = dev;
	struct mr *mr = handle;

	return result_of(odp_put(pair->odp, &mr->key, (uintptr_t)at, from, n));
}

static enum odp_result uhmm_fetch_add(void *dev, void *handle, void *at, uint64_t add,
				      uint64_t *old)
{
	struct pair *pair = dev;
	struct mr *mr = handle;

	return result_of(odp_fetch_add(pair->odp, &mr->key, (uintptr_t)at, add, old));
}

static enum odp_result uhmm_compare_swap(void *dev, void *handle, void *at, uint64_t expected,
					 uint64_t desired, uint64_t *old)
{
	struct pair *pair = dev;
	struct mr *mr = handle;

	return result_of(
		odp_compare_swap(pair->odp, &mr->key, (uintptr_t)at, expected, desired, old));
}

static int uhmm_advise(void *dev, void *handle, enum odp_advice advice, bool flush, void *at,
		       size_t length)
{
	struct mr *mr = handle;

	return odp_region_advise(mr->region, (uintptr_t)at, length, advice, flush);
}

const struct odp_backend odp_uhmm = {
	.name = "uhmm",
	.open = tcp_open,
	.reg = uhmm_reg,
	.unreg = uhmm_unreg,
	.get = uhmm_get,
	.put = uhmm_put,
	.fetch_add = uhmm_fetch_add,
	.compare_swap = uhmm_compare_swap,
	.advise = uhmm_advise,
	.close = uhmm_close,
};

const struct odp_backend odp_uhmm_verbs = {
	.name = "verbs",
	.open = verbs_open,
	.reg = uhmm_reg,
	.unreg = uhmm_unreg,
	.get = uhmm_get,
	.put = uhmm_put,
	.fetch_add = uhmm_fetch_add,
	.compare_swap = uhmm_compare_swap,
	.close = uhmm_close,
};
