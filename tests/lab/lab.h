/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * lab - what the tests that need the lab's devices share (lab/README.md: a VM with an
 * IOMMU, QEMU's edu device and memory that filesystems use directly).
 *
 * The lab says by environment what it has: UHMM_LAB_EDU a PCI address, UHMM_LAB_EXT4 and
 * UHMM_LAB_XFS directories on filesystems mounted with DAX, UHMM_LAB_DEVDAX a character
 * device. What is not named is skipped.
 */
#ifndef LAB_H
#define LAB_H

#include <errno.h>
#include <string.h>

#include <uhmm/edu.h>

#include "live.h"

#define PAGE ((size_t)4096)
#define HUGE ((size_t)2 << 20)
#define RW (PROT_READ | PROT_WRITE)

/* The device, without options->pci the one that the lab names; skips where there is none.
 */
enum verdict lab_edu_open(const struct edu_options *options, struct edu **dev);

/* A directory, or NULL and a skip with the reason in *verdict. */
const char *lab_directory(const char *variable, enum verdict *verdict);
/* A file without a name, filled by lab_fill(, length, 0); -1 and errno. */
int lab_file(const char *directory, size_t length);
unsigned char lab_byte(size_t at, unsigned seed);
/* Fill; and the first byte of n that is not as filled: n if all are. */
void lab_fill(void *to, size_t n, unsigned seed);
size_t lab_differs(const void *from, size_t n, unsigned seed);
/* All zero? */
bool lab_zero(const void *from, size_t n);

/* Another process does it, and has ended when this returns: 0, or its negative errno. */
int lab_elsewhere(int (*fn)(int fd, off_t at, off_t length), int fd, off_t at,
		  off_t length);
/* For that: ftruncate(fd, length), and fallocate(PUNCH_HOLE). */
int lab_truncate(int fd, off_t at, off_t length);
int lab_punch(int fd, off_t at, off_t length);

/* The kernel's log from now on; -1 where it may not be read. */
int lab_log_open(void);
/* Does it say within two seconds that the IOMMU stopped an access to that page? */
bool lab_log_fault(int log, uint64_t iova);

#endif
