/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices_odp - the odp driver as a device of the table: a target on this process, and an
 * initiator that asks it, in the same process and over the loopback.
 *
 * What the initiator's buffers are the table does not ask: they are not the memory under test.
 */
#include <errno.h>
#include <stdlib.h>

#include <uhmm/odp.h>

#include "devices_odp.h"

struct pair {
	struct odp_target *target;
	struct odp_region *region;
	struct odp_key key;
	struct odp *odp;
};

int live_odp_open(struct device *dev)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int err = pair ? odp_target_open(NULL, &pair->target) : -ENOMEM;

	dev->priv = pair;
	if (!err)
		err = odp_region_create(pair->target, 0, UINTPTR_MAX,
					ODP_READ | ODP_WRITE | ODP_ATOMIC, &pair->region);
	if (!err) {
		odp_region_key(pair->region, &pair->key);
		err = odp_connect(odp_target_address(pair->target), NULL, &pair->odp);
	}
	if (err && pair)
		live_odp_close(dev);
	return err;
}

void live_odp_close(struct device *dev)
{
	struct pair *pair = dev->priv;

	odp_close(pair->odp);
	odp_region_destroy(pair->region);
	odp_target_close(pair->target);
	free(pair);
}

int live_odp_read(struct device *dev, void *dst, const void *src, size_t length)
{
	struct pair *pair = dev->priv;

	return odp_get(pair->odp, &pair->key, dst, (uintptr_t)src, length);
}

int live_odp_write(struct device *dev, void *dst, const void *src, size_t length)
{
	struct pair *pair = dev->priv;

	return odp_put(pair->odp, &pair->key, (uintptr_t)dst, src, length);
}

uint64_t live_odp_lookup(const struct device *dev, const void *addr)
{
	const struct pair *pair = dev->priv;

	return odp_region_lookup(pair->region, addr);
}
