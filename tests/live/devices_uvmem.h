/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices_uvmem - the shared pages of secure memory as a device of the table.
 *
 * Of secure pages the table's law does not hold: what the CPU writes there is a forgery, what it
 * reads is sealed (uvmem_changes.c has those). Of shared ones it does: the secure side and
 * everybody else find the same bytes, whatever the program does to the mapping.
 */
#ifndef LIVE_DEVICES_UVMEM_H
#define LIVE_DEVICES_UVMEM_H

#include "devices.h"

int live_uvmem_open(struct device *dev);
void live_uvmem_close(struct device *dev);
int live_uvmem_read(struct device *dev, void *dst, const void *src, size_t length);
int live_uvmem_write(struct device *dev, void *dst, const void *src, size_t length);
uint64_t live_uvmem_lookup(const struct device *dev, const void *addr);
enum verdict live_uvmem_take(struct device *dev, void *start, size_t length);

#define LIVE_UVMEM_NO_FORK "a child has no secure side (`live uvmem_leaks` has it)"

#endif
