/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * preload - UHMM_FABRICMON=1 LD_PRELOAD=libuhmm-fabricmon.so.0: before main(), so before
 * any cache. Not asked for, nothing is done: whoever links us calls fabricmon_install()
 * himself.
 */
#include <stdlib.h>

#include "fabricmon_private.h"

__attribute__((constructor)) static void preload(void)
{
	const char *asked = getenv("UHMM_FABRICMON");
	int err = asked && *asked && *asked != '0' ? fabricmon_install() : 0;

	if (err)
		hmm_log(HMM_LOG_WARN, "fabricmon: not installed: %s", hmm_strerror(err));
}
