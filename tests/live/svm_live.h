/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * svm_live - what the parts of live_svm share: two GPUs, an area of blocks, jobs on it.
 */
#ifndef LIVE_SVM_LIVE_H
#define LIVE_SVM_LIVE_H

#include <uhmm/svm.h>

#include "live.h"

#define PAGE ((size_t)4096)
#define BLOCK ((size_t)2 << 20)
#define BLOCK_PAGES (BLOCK / PAGE)
#define RW (PROT_READ | PROT_WRITE)
#define GPUS 2u

struct two {
	struct svm *svm;
	struct gpu_queue *queue[GPUS];
};

/* SKIP where it cannot be had. */
enum verdict two_open(struct two *two, const struct svm_options *options);
void two_close(struct two *two);
/* Aligned to a block, nothing mapped beside it, untouched. */
char *two_map(size_t length);
/* The GPU adds to the first word of each page. Return: as gpu_wait(). */
int two_add(struct two *two, unsigned gpu, void *at, size_t pages, uint64_t what);
/* One word. */
int two_load(struct two *two, unsigned gpu, const void *at, uint64_t *word);
/* Pages that lie in a GPU's memory; -1: error. */
long two_there(struct two *two, unsigned gpu, const void *at, size_t pages);
/* Translations that a GPU has of them. */
long two_mapped(struct two *two, unsigned gpu, const void *at, size_t pages);
struct svm_stats two_stats(struct two *two);
uint64_t two_stale(struct two *two);
/* An attribute of all of the range; a failure is told as -errno. */
int64_t two_get(struct two *two, const void *at, size_t length, uint32_t type, uint32_t value);

#define TWO_VRAM                                                                           \
	(&(struct svm_options){ .size = sizeof(struct svm_options),                        \
				.gpus = GPUS,                                              \
				.sms = 1,                                                  \
				.timeslice_us = 1,                                         \
				.vram_bytes = 4 * BLOCK })

/* svm_place.c, svm_changes.c */
enum verdict svm_chunks(const void *arg);
enum verdict svm_best(const void *arg);
enum verdict svm_peers(const void *arg);
enum verdict svm_peers_racing(const void *arg);
enum verdict svm_no_peers(const void *arg);
enum verdict svm_all_or_nothing(const void *arg);
enum verdict svm_granules(const void *arg);
enum verdict svm_followed(const void *arg);
enum verdict svm_whole_by_fault(const void *arg);
enum verdict svm_atomics(const void *arg);
enum verdict svm_atomics_mapped(const void *arg);
enum verdict svm_pressure(const void *arg);
enum verdict svm_fight(const void *arg);
enum verdict svm_fallback(const void *arg);
enum verdict svm_collected(const void *arg);
enum verdict svm_filters(const void *arg);
enum verdict svm_quiet(const void *arg);
enum verdict svm_revoked(const void *arg);
enum verdict svm_restored(const void *arg);
enum verdict svm_counted(const void *arg);
enum verdict svm_unregistered(const void *arg);
enum verdict svm_always_mapped(const void *arg);
enum verdict svm_storm(const void *arg);
enum verdict svm_storm_mapped(const void *arg);

#endif
