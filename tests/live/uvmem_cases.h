/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* uvmem_cases - the cases of test_uvmem.c that lie in other files. */
#ifndef LIVE_UVMEM_CASES_H
#define LIVE_UVMEM_CASES_H

#include <pthread.h>
#include <sched.h>

#include "uvmem_live.h"

/* uvmem_forged.c */
enum verdict uvmem_plain_load(const void *arg);
enum verdict uvmem_changed(const void *arg);
enum verdict uvmem_swapped(const void *arg);
enum verdict uvmem_replayed(const void *arg);
enum verdict uvmem_remapped(const void *arg);
enum verdict uvmem_discarded(const void *arg);
/* uvmem_changes.c */
enum verdict uvmem_kinds(const void *arg);
enum verdict uvmem_operations(const void *arg);
enum verdict uvmem_other_device(const void *arg);
enum verdict uvmem_pinned(const void *arg);
/* uvmem_files.c */
enum verdict uvmem_file(const void *arg);
enum verdict uvmem_file_forged(const void *arg);
enum verdict uvmem_file_old(const void *arg);
/* uvmem_less.c */
enum verdict uvmem_without(const void *arg);
enum verdict uvmem_limited(const void *arg);
enum verdict uvmem_no_leak(const void *arg);

#endif
