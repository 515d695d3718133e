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

/* Not in live_drivers[]: it has to be told which memory is meant. */
extern const struct driver live_uvmem;

#endif
