/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_search - is a secret in these bytes, or in that process? The secret is known by its
 * number (uvmem_live.h); a control has a number of its own.
 */
#ifndef LIVE_UVMEM_SEARCH_H
#define LIVE_UVMEM_SEARCH_H

#include "uvmem_live.h"

#define CONTROL_SEED 0x5eed5eedu

struct found {
	bool secret, control;
	size_t bytes;
};

void uvmem_search(struct found *found, unsigned seed, const unsigned char *hay,
		  size_t size);
/* All that /proc/PID/maps has: by /proc/PID/mem, or by process_vm_readv. */
enum verdict uvmem_search_maps(pid_t pid, unsigned seed, struct found *found, bool by_vm);
/* And the control was. */
enum verdict uvmem_nothing_found(const struct found *found);

#endif
