/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* ops_own - what each worker has for itself. In ordinary memory. */
#ifndef STRESS_OPS_OWN_H
#define STRESS_OPS_OWN_H

#include <liburing.h>

#include "stress.h"

#define BLOCKS 64u

struct block {
	unsigned char *at;
	size_t size;
	unsigned char seed;
};

struct own {
	int file, pipe[2];
	bool has_ring; /* io_uring is there */
	struct io_uring ring;
	struct block block[BLOCKS];
};

#endif
