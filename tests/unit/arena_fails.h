/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* arena_fails - allocations of the library's that fail. Linked with --wrap=arena_alloc. */
#ifndef UHMM_TESTS_ARENA_FAILS_H
#define UHMM_TESTS_ARENA_FAILS_H

extern long fail_at; /* the allocation that fails, counted down; 0: none */
extern unsigned failed;

#endif
