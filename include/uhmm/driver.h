/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: driver - what a driver tells the `uhmm drivers` command about itself
 *
 * Each folder in drivers/ defines one `const struct uhmm_driver` in selftest.c,
 * named uhmm_driver_<folder>; Meson collects the folders into the tool's table. No symbol of
 * libuhmm is involved.
 */
#ifndef UHMM_DRIVER_H
#define UHMM_DRIVER_H

#include <stddef.h>

/**
 * struct uhmm_driver - an entry of the table
 * @name: of the folder
 * @stands_for: the kernel driver it is after
 * @what: one line
 * @usable: 0, or negative errno and a sentence in @why: can this machine run it?
 * @selftest: a few seconds of real work; 0, or negative errno and a sentence in @why
 */
struct uhmm_driver {
	const char *name, *stands_for, *what;
	int (*usable)(char *why, size_t size);
	int (*selftest)(char *why, size_t size);
};

#endif
