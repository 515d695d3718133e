/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* devices_userptr - the userptr driver's rows of the table. */
#ifndef LIVE_DEVICES_USERPTR_H
#define LIVE_DEVICES_USERPTR_H

#include "devices.h"

/*
 * Memory is shared where the OpenCL device does that; and as if it had its own. Not in
 * live_drivers[]: a platform takes half a second to start, in each of the processes that those
 * cases make.
 */
extern const struct driver live_userptr[2];

#endif
