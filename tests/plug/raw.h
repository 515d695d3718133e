/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * raw - changes of SIZE bytes by the system calls themselves, which those who patch libc do not
 * hear of; afterwards other memory is there. 0: it was done.
 */
#ifndef PLUG_RAW_H
#define PLUG_RAW_H

#define SIZE 65536ul
#define FLAGS (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

int raw_munmap(char *at);
int raw_fixed(char *at);
int raw_dontneed(char *at);
int raw_mremap(char *at);

#endif
