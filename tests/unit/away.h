/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away - a program whose pages move, and what each of them must read.
 *
 * The model has one number for each page. While something changes it, a second one is
 * allowed: what the page read before. At every point of the fake it is checked that a CPU which
 * touched a page now would see what the model says, or would wait: never half of
 * something, never zeros that nobody made (G5). away_end() lets everything come to an end, then
 * asks every page by CPU and device, and that nothing is left: no frame, no page in a buffer.
 */
#ifndef UHMM_TESTS_AWAY_H
#define UHMM_TESTS_AWAY_H

#include "vram.h"

#define RW 3
#define A 8u	/* the VMA that everything happens to: pages A to A + LEN - 1 */
#define LEN 16u
#define P 10u	/* its page that the actions are done to, and the one behind it */
#define Q 40u	/* where mremap moves things to */
#define B 60u	/* another VMA, of another context */
#define B_LEN 4u
#define SPAN 80u /* pages of the model */
#define CPUS 16u

enum away_is { AWAY_UNMAPPED, AWAY_READS, AWAY_GUARD, AWAY_LOST };

struct away {
	struct hmm *hmm;
	struct vram vram;
	struct {
		enum away_is is;
		uint64_t value, old;
		bool old_too;	 /* `old` is allowed while something is pending */
		bool lost_too;	 /* it may be SIGBUS */
	} page[SPAN];
	struct fake_cpu cpu[CPUS];
	uint64_t cpu_wants[CPUS], cpu_wants_too[CPUS];
	unsigned cpus;
	struct {
		unsigned number;
		uint64_t value[SPAN];
	} child[4];
	unsigned children;
	bool only_looks; /* the device's thread may not wait */
	bool all_lost; /* whatever is in a frame may be SIGBUS */
	const char *doing; /* for the message of a failure */
};

extern struct away away;

/* `options`: of the devmem; NULL: its own. All of A and B have a value. */
void away_begin(struct hmm *hmm, const struct hmm_devmem_options *options);
/* The same again in the same mirror, with the same devmem; away_end(false) went before. */
void away_again(void);
/* close: the devmem too. */
void away_end(bool close);
/* Everything that was held goes on, until all rests. */
void away_settle(void);
/* Compare every page with the model, by a CPU's load. */
void away_check(void);

/* hmm_migrate_to_device() of pages, which all move. */
void away_move(unsigned page, unsigned n);
/* Pages of the range that are in frames. */
unsigned away_count(unsigned page, unsigned n);

/* What the program does; the model follows. */
void away_unmap(unsigned page, unsigned n);
void away_map(unsigned page, unsigned n);
void away_dontneed(unsigned page, unsigned n);
void away_remap(unsigned from, unsigned to, unsigned n, bool dontunmap);
void away_guard(unsigned page);
void away_fork(void);
/* By a CPU that may have to wait. */
void away_write(unsigned page, uint64_t value);
void away_read(unsigned page);
/* By the device; -EBUSY it could not have the page now. In the reader's turn it only looks, and
 * does what it can with what is there. */
int away_device_reads(unsigned page);
int away_device_writes(unsigned page, uint64_t value);

#endif
