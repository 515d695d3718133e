/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* litmus_against - `uhmm litmus --against`: see against.h. */
#ifndef UHMM_TOOLS_LITMUS_AGAINST_H
#define UHMM_TOOLS_LITMUS_AGAINST_H

#include "against.h"

/* @families: as on the command line, checked. Return: the exit status. */
int litmus_against(const char *families, uint64_t rounds, bool json);
/* Is each word of a comma list a family? */
bool litmus_against_known(const char *families);

/* Columns; the last has no name. */
extern const struct against_peer against_ucx_peers[], against_fabric_peers[];

/* For the bench, in a child: UCX's cache under ucxmon; get and put of a region, and fenced.
 */
int against_ucx_open_cache(char *why, size_t size);
int against_ucx_get_put(char *addr, size_t length);
int against_ucx_fenced(char *addr, size_t length);

#endif
