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
#include <stdio.h>

#include <uhmm/hmm.h>

/**
 * uhmm_driver_needs_mirror() - "usable" of a driver that needs a mirror and no more
 * @why: hmm_open()'s reason if there is none; @size: of @why
 * Return: 0, or negative errno.
 */
static inline int uhmm_driver_needs_mirror(char *why, size_t size)
{
	struct hmm *hmm;
	int err = hmm_open(&hmm);

	if (err)
		snprintf(why, size, "%s", hmm_strerror(err));
	else
		hmm_put(hmm);
	return err;
}

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
