/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* skip - instructions that a fault leaves out. */
#ifndef USERPTR_SKIP_H
#define USERPTR_SKIP_H

#include <stdbool.h>

/* Bytes of the instruction at `code`, if it accesses memory and may be left out; else 0. */
unsigned userptr_skip(const unsigned char *code);

#endif
