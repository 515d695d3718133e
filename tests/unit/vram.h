/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * vram - a driver with memory of its own, for the unit tests.
 *
 * A frame holds one number, as a page of the fake does. Its engine copies at once, or when
 * somebody waits and nobody else has anything to do (`late`), or when the test says so
 * (`defer`). Law, checked in each callback: a frame that is given, or freed, is in no
 * entry of the device's table; one is freed once; to_host leaves no entry of it behind.
 */
#ifndef UHMM_TESTS_VRAM_H
#define UHMM_TESTS_VRAM_H

#include "fake_os.h"

#define VRAM_FRAMES 64u
#define VRAM_JOBS 64u

struct vram_entry {
	bool valid, write, device;
	uint64_t frame;
};

struct vram_job {
	struct hmm_devmem_copy *copies;
	unsigned n;
	struct hmm_transfer *transfer;
	bool out;
};

struct vram {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	struct hmm_devmem *devmem;
	struct hmm_devmem_options options;
	pthread_mutex_t lock; /* the driver's update lock */
	struct vram_entry entry[FAKE_PAGES];
	uint64_t frame[VRAM_FRAMES];
	bool used[VRAM_FRAMES];
	bool declines[VRAM_FRAMES]; /* frame_alloc says no */

	bool late, defer;
	bool dead; /* the engine copies nothing any more */
	int fail;	     /* the next transfer as a whole; nothing is copied */
	uintptr_t fail_addr; /* of one page, each time, by fail_err */
	int fail_err;
	struct vram_job job[VRAM_JOBS];
	unsigned jobs;

	unsigned events[HMM_EVENT_MIGRATE + 1];
	unsigned outs, homes; /* transfers */
};

/* Options with no owner get this driver as theirs. NULL: VRAM_FRAMES private frames. */
int vram_try_open(struct vram *vram, struct hmm *hmm, const struct hmm_devmem_options *options);
void vram_open(struct vram *vram, struct hmm *hmm, const struct hmm_devmem_options *options);
/* Everything comes home; no frame is left. */
void vram_close(struct vram *vram);
/* Let the engine do what it has; false: nothing. */
bool vram_engine(struct vram *vram);
/* fake.engine, of all that are open. */
bool vram_engines(void *arg);

/* hmm_devmem_lost(): its memory is gone. */
void vram_die(struct vram *vram);

/* hmm_range_program() with the driver as owner. */
int vram_program(struct vram *vram, unsigned page, unsigned n, bool write);
/* The same without asking for anything: what it can have. */
int vram_look(struct vram *vram, unsigned page, unsigned n);
/* What its threads do; a page that it has no entry of it asks for. */
uint64_t vram_read(struct vram *vram, unsigned page);
void vram_write(struct vram *vram, unsigned page, uint64_t value);
/* Frames that the library has given and not taken back; what is in one. */
unsigned vram_used(const struct vram *vram);
uint64_t vram_frame(struct vram *vram, uint64_t frame);
struct hmm_devmem_stats vram_stats(const struct vram *vram);

#endif
