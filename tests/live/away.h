/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away - a small device with memory, and memory of the program that goes there.
 *
 * The device has frames that its copy engine fills and empties, or frames that are host
 * memory; and a thread that reads and writes addresses as a device does: in the frame
 * where the page is away, through the address where it is at home. It keeps the law of
 * device memory: all that its threads touch is hmm_alloc() memory, their stacks too, so
 * heap, stacks and .bss of the test may all be away.
 */
#ifndef LIVE_AWAY_H
#define LIVE_AWAY_H

#include <stdatomic.h>

#include <uhmm/hmm.h>

#include "live.h"

#define PAGE ((size_t)4096)
#define BLOCK ((size_t)2 << 20)
#define RW (PROT_READ | PROT_WRITE)
#define AWAY_FRAMES 2048u

struct away;

struct away_options {
	bool host;	   /* host frames */
	uint64_t frames;   /* 0: AWAY_FRAMES */
	unsigned delay_us; /* each transfer takes so much longer */
	unsigned timeslice_us, timeout_ms;
	bool coherent;
};

/* One devmem on the process's mirror. 0 or what hmm_open() or hmm_devmem_create() said. */
int away_open(struct away **dev, const struct away_options *options);
/* Everything comes home. NULL is allowed. */
void away_close(struct away *dev);
/* As away_close, but the devmem is left as it is: for who ends with pages away. */
void away_leave(struct away *dev);

/* The device is told nothing any more. */
void away_unwatch(struct away *dev);
/* Of each eight pages the ones with their bit set cannot be copied out, or home. */
void away_break(struct away *dev, unsigned out, unsigned home);

struct hmm *away_hmm(const struct away *dev);
struct hmm_devmem *away_devmem(const struct away *dev);
/* What hmm_range.owner and hmm_event.owner are for it: itself. */
/* Where the device has the bytes of a frame. */
void *away_frame(const struct away *dev, uint64_t frame);

/* As a device: -EFAULT, -EPERM and so on from hmm_range_fault(). */
int away_read(struct away *dev, void *dst, const void *src, size_t length);
int away_write(struct away *dev, void *dst, const void *src, size_t length);
/* How many pages of those accesses were done in a frame. */
uint64_t away_touched(const struct away *dev);

/* Events told to the device's notifier (the whole address space) since it was opened. */
struct away_told {
	uint64_t count[HMM_EVENT_MIGRATE + 1];
	uint64_t migrate_own; /* HMM_EVENT_MIGRATE whose owner is this device */
	uintptr_t start, end; /* of the last of those */
};
struct away_told away_told(const struct away *dev);

/* Pages of [at, at + length) that a look says are in a device, whichever it is. -1: error.
 */
long away_count(struct away *dev, const void *at, size_t length);
uint64_t away_in_use(const struct away *dev);
/* Frames wait in limbo until devices were told: in_use gets to `want` within a second. */
enum verdict away_settles(const struct away *dev, uint64_t want);
/* Memory with nothing beside it: pages next to a thread's control block do not leave. */
char *away_map(size_t length);
/* All of [at, at + pages) there, or FAIL. */
enum verdict away_out(struct away *dev, void *at, size_t pages);

/* ---- a zone: private anonymous memory with a model of what each byte is ---- */

#define ZONE_MAX 1024u

enum zone_access { ZONE_NONE = '-', ZONE_READ = 'r', ZONE_WRITE = 'w' };

struct zone {
	char *at;
	size_t pages;
	unsigned char *shadow; /* of ZONE_MAX pages, shared with children */
	char access[ZONE_MAX];
};

/* Filled with what depends on page, offset and seed. */
enum verdict zone_make(struct zone *zone, size_t pages, unsigned seed);
void zone_dispose(struct zone *zone);
/* CPU stores to pages [from, to). */
void zone_fill(struct zone *zone, size_t from, size_t to, unsigned seed);
/* The model only: those bytes are zeros, or may be accessed so, from now on. */
void zone_zero(struct zone *zone, size_t from, size_t to);
void zone_access(struct zone *zone, size_t from, size_t to, enum zone_access access);
/* Bytes are the model's; what must not be read or written cannot be, by a system call. */
enum verdict zone_check(const struct zone *zone, const char *when);
/* Without a message, for children: the first page that differs, or -1. */
long zone_differs(const struct zone *zone);

#endif
