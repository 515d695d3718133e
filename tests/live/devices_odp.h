/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* devices_odp - the odp driver's row of the table in devices.c. */
#ifndef LIVE_DEVICES_ODP_H
#define LIVE_DEVICES_ODP_H

#include "devices.h"

int live_odp_open(struct device *dev);
void live_odp_close(struct device *dev);
int live_odp_read(struct device *dev, void *dst, const void *src, size_t length);
int live_odp_write(struct device *dev, void *dst, const void *src, size_t length);
uint64_t live_odp_lookup(const struct device *dev, const void *addr);

#endif
