/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices_edu - QEMU's edu device as a row of the table. It is in no list of devices: it is
 * there only in the lab's VM, and too slow for every case.
 */
#ifndef LIVE_DEVICES_EDU_H
#define LIVE_DEVICES_EDU_H

#include "devices.h"

extern const struct driver live_edu;
/* Why it is not here; NULL: it is. */
const char *live_edu_absent(void);

#endif
