/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* cl_fails - what the preloaded library and its test share. */
#ifndef LIVE_CL_FAILS_H
#define LIVE_CL_FAILS_H

#include <stdbool.h>

struct cl_failing {
	unsigned fail_at; /* the call that fails, from 1; 0: none */
	unsigned calls;	  /* so far */
	const char *name; /* of the one that failed */
	bool harmless;	  /* it only asks; what it would have said has a default */
	int alive;	  /* references that were made, less those given back */
};

#endif
