/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * safecopy - what safecopy_x86_64.S defines, for safecopy.c and handlers.c.
 *
 * Each function returns 0, or -EFAULT by way of our handlers.
 */
#ifndef UHMM_OS_SAFECOPY_H
#define UHMM_OS_SAFECOPY_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#define HANDLER_LEVELS 32
#define HANDLER_ENTRY_SIZE 16

int safecopy_1(void *dst, const void *src);
int safecopy_2(void *dst, const void *src);
int safecopy_4(void *dst, const void *src);
int safecopy_8(void *dst, const void *src);
int safecopy_bytes(void *dst, const void *src, size_t length);
int safecopy_add4(uintptr_t addr, uint32_t operand, uint64_t *old);
int safecopy_add8(uintptr_t addr, uint64_t operand, uint64_t *old);
int safecopy_cas4(uintptr_t addr, uint32_t expected, uint32_t desired, uint64_t *old);
int safecopy_cas8(uintptr_t addr, uint64_t expected, uint64_t desired, uint64_t *old);

extern const char safecopy_text[], safecopy_text_end[], safecopy_fault[];
extern const char handlers_enter[];

/* Called by the entries only. */
void handlers_common(int sig, siginfo_t *info, void *context, uintptr_t entry_sp,
		     unsigned level);

#endif
