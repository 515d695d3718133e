/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * drivers - the table of drivers, made by Meson from the folders of drivers/.
 */
#ifndef UHMM_TOOLS_DRIVERS_H
#define UHMM_TOOLS_DRIVERS_H

#include <uhmm/driver.h>

extern const struct uhmm_driver *const drivers_table[]; /* ends with NULL */

#endif
