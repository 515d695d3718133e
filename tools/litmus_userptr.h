/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* litmus_userptr - `uhmm litmus --userptr`: OpenCL kernels, on devices that share memory and not. */
#ifndef UHMM_TOOLS_LITMUS_USERPTR_H
#define UHMM_TOOLS_LITMUS_USERPTR_H

#include <stdbool.h>
#include <stdint.h>

/* @rounds: of all devices together. Return: the exit status; 77: there is no OpenCL platform. */
int litmus_userptr(uint64_t rounds, bool json);

#endif
