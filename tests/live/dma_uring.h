/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dma_uring - the DMA API under a device that this machine has: what its cases share.
 *
 * A rig is an open uring device, a file in memory for its bytes, and a notifier of its own
 * for ranges that a case maps by hand into the device's I/O address space.
 */
#ifndef LIVE_DMA_URING_H
#define LIVE_DMA_URING_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/uring.h>

#include "live.h"
#include "uapi.h"

#define PAGE ((size_t)4096)
#define RW (PROT_READ | PROT_WRITE)
#define RIG_PAGES 64u /* of a range that is mapped by hand */

struct rig {
	struct uring *dev;
	struct hmm_dma *dma;
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	pthread_mutex_t lock;
	int file;
	atomic_uint told;
	/* Of the last rig_map(). */
	uint64_t pfns[RIG_PAGES], daddrs[RIG_PAGES];
	uintptr_t fault_addr;
};

/* By registered buffers of a page each; or as the options say. */
enum verdict rig_open(struct rig *r);
enum verdict rig_open_with(struct rig *r, const struct uring_options *options);
void rig_close(struct rig *r);

/* The device writes memory, or reads it. 0, -errno, -ENODATA if it was short. */
int rig_put(struct rig *r, void *at, const void *bytes, size_t n);
int rig_get(struct rig *r, void *bytes, const void *at, size_t n);
/* A word that the device reads, or -errno. */
int64_t rig_word(struct rig *r, const void *at);
/* The CPU writes a word and the device reads it; the device writes one and the CPU reads
 * it. */
enum verdict rig_agree(struct rig *r, void *at);

/* The notifier of its own, which unmaps what is told: from here on the driver's is not alone. */
int rig_watch(struct rig *r);
/* hmm_range_dma_map(), until it is not stale. Entries are requests: `want` for each page.
 */
int64_t rig_map(struct rig *r, const void *at, unsigned pages, uint64_t want,
		unsigned flags);
/* By an I/O address of it. */
int rig_raw_put(struct rig *r, uint64_t daddr, const void *bytes, size_t n);
int rig_raw_get(struct rig *r, void *bytes, uint64_t daddr, size_t n);

struct hmm_dma_stats rig_stats(struct rig *r);
struct uring_stats rig_device(struct rig *r);

/* A file on a real filesystem whose shared mappings cannot be pinned; -1 and a skip
 * without. */
int rig_file(size_t length);
enum verdict rig_cannot_bounce(void);

typedef enum verdict dma_case(const void *arg);

/* dma_uring_bounce.c */
dma_case bounce_both_ways, bounce_by_hand, bounce_refused, bounce_mixed, bounce_truncated,
	bounce_upgraded, bounce_forgotten;
/* dma_uring_events.c */
dma_case event_unmap, event_map_over, event_move, event_dontneed, event_protect, event_fork,
	event_fork_child, event_free, event_unpinned, event_migrate, event_closefrom;
/* dma_uring_silent.c: arg: "" or "nobody" */
dma_case silent_guard, silent_punch, silent_truncate, silent_truncate_private, silent_shmdt,
	silent_cow;
/* dma_uring_races.c */
dma_case race_dontneed, race_dontneed_storm, race_map_over, race_upgrade, race_beside,
	race_chunk, race_evict, race_file, race_fork;

#endif
