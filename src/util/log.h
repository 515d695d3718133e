/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * log - lines for people, silent by default (hmm_log, hmm_set_log in hmm.h).
 *
 * Laws: never allocates, never called by the reader; formats into a stack
 * buffer of 512 bytes, what does not fit is cut and ends in "..."; one write(2) a line.
 * The level is read from UHMM_LOG once.
 */
#ifndef UHMM_UTIL_LOG_H
#define UHMM_UTIL_LOG_H

#include <uhmm/hmm.h>

/* Would a line of this level go anywhere? For callers whose arguments are dear. */
bool log_wants(enum hmm_log_level level);

#endif
