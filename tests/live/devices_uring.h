/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* devices_uring - the uring driver's rows of the table in devices.c. */
#ifndef LIVE_DEVICES_URING_H
#define LIVE_DEVICES_URING_H

#include "devices.h"

int live_uring_open(struct device *dev); /* registered buffers of a page */
int live_uring_open_chunked(struct device *dev);
int live_uring_open_plain(struct device *dev);
void live_uring_close(struct device *dev);
int live_uring_read(struct device *dev, void *dst, const void *src, size_t length);
int live_uring_write(struct device *dev, void *dst, const void *src, size_t length);
uint64_t live_uring_lookup(const struct device *dev, const void *addr);
uint64_t live_uring_stale(struct device *dev);

#endif
