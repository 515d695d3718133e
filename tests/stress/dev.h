/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * dev - the test device: a few translations, two threads that use them, a copy engine.
 *
 * Everything lies in hmm_alloc() memory. The update lock is held by the device's own
 * threads, the engine and invalidate only, and whoever holds it touches nothing that can
 * move. A frame is read and written under it; system memory is not: the access is announced
 * (busy), made without the lock, and invalidate waits for it. So the engine never waits for
 * what waits for a page.
 */
#ifndef STRESS_DEV_H
#define STRESS_DEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uhmm/hmm.h>

struct dev;
struct job;

struct dev_options {
	uint64_t frames, limit;
	bool host_frames;
	unsigned timeslice_us, timeout_ms;
	/* One in so many; 0: never. */
	unsigned fail;	  /* a page that to_device does not copy */
	unsigned decline; /* a frame that is not had */
	unsigned die;	  /* a page during whose copy the engine's thread ends */
	unsigned slow;	  /* a transfer that takes up to 2 ms */
	uint64_t seed;
};

int dev_open(struct hmm *hmm, const struct dev_options *options, struct dev **dev);
void dev_close(struct dev *dev);
struct hmm_devmem *dev_devmem(const struct dev *dev);
const struct dev_options *dev_options(const struct dev *dev);
/* Engine threads that have died, and transfers that were done again. */
uint64_t dev_deaths(const struct dev *dev);
/* Where a frame of copied memory lies, for who copies himself. */
void *dev_frame(const struct dev *dev, uint64_t frame);

/* By the device, within one page: 0, or why it could not. -EBUSY: it keeps changing. */
int dev_read(struct dev *dev, uintptr_t addr, void *to, size_t length);
/* The same, and the caller goes on meanwhile. */
struct job *dev_read_begin(struct dev *dev, uintptr_t addr, size_t length);
int dev_read_end(struct job *job, void *to);
int dev_write(struct dev *dev, uintptr_t addr, const void *from, size_t length);
/* Words addr, addr + 8 * step, ... get `value`, in that order. */
int dev_words(struct dev *dev, uintptr_t addr, unsigned step, unsigned n, uint64_t value);

/*
 * A job that runs: it reads one word of the page again and again by the translation that it
 * has, asking nothing, until that is taken away or dev_let_go(). Meanwhile the program may
 * do anything to the page: what is read is `tag` in the bits of `mask`, or 0; never what
 * is another's. dev_let_go: 0, or -EILSEQ and the word.
 */
struct job *dev_hold(struct dev *dev, uintptr_t addr, uint64_t tag, uint64_t mask);
int dev_let_go(struct job *job, uint64_t *word);

/* How the device would be answered, without a fault: a snapshot's entries. */
int dev_look(struct dev *dev, uintptr_t start, unsigned pages, uint64_t *pfns);

/* It dies for good: says so, or just answers no more (then the time limit says it). */
void dev_die(struct dev *dev, bool silent);
/* From now on it cannot read back odd frames. */
void dev_spoil(struct dev *dev);

#endif
