/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * churn - what the demo does to the address space while the GPU works in it.
 *
 * Three places, one file each:
 *  beside   threads that change memory of their own while jobs of their own queues read
 *	     it: a running job may see what was there at any moment of its life or end in
 *	     -EFAULT; a job submitted after the change must see the new bytes (G1, G3);
 *  between  the demo's thread changes the graph's own memory from launch to launch;
 *  during   a thread forks, gives advice on the graph's memory and moves pieces of it
 *	     to the GPU's and home while a launch runs: nothing that an address reads
 *	     may change by it.
 *
 * Locks: struct churn_during.graph orders `between` against `during`.
 */
#ifndef UHMM_TOOLS_CHURN_H
#define UHMM_TOOLS_CHURN_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <uhmm/gpu.h>

#include "deb_graph.h"

enum churn_kind {
	/* beside */
	CHURN_MUNMAP,
	CHURN_FIXED,
	CHURN_MREMAP,
	CHURN_DONTNEED,
	CHURN_MPROTECT,
	CHURN_FORK,
	CHURN_BESIDE_KINDS,
	/* between */
	CHURN_RANKS_MOVED = CHURN_BESIDE_KINDS,
	CHURN_RANKS_DROPPED,
	CHURN_RANKS_READ_ONLY,
	CHURN_NODES_MOVED,
	CHURN_PACKAGES_REBUILT,
	CHURN_FILE_MOVED,
	CHURN_RANKS_TO_VRAM,
	/* during */
	CHURN_FORK_UNDER,
	CHURN_PAGEOUT,
	CHURN_COLLAPSE,
	CHURN_NOHUGEPAGE,
	CHURN_TO_VRAM,
	CHURN_FROM_VRAM,
	CHURN_KINDS,
};

const char *churn_kind_name(enum churn_kind kind);

/* What was done and what went wrong, by all threads together. */
struct churn_tally {
	_Atomic uint64_t changes[CHURN_KINDS];
	_Atomic uint64_t jobs; /* submitted beside and between */
	_Atomic uint64_t
		cancelled;	/* of these, ended in an error as they should or might */
	_Atomic uint64_t stale; /* values that were gone before their job was submitted */
	_Atomic uint64_t wrong; /* anything else that should not be */
	pthread_mutex_t lock;	/* protects first */
	char first[240];	/* what went wrong first; "" nothing */
};

void churn_tally_init(struct churn_tally *tally);
/* Note that something went wrong: a stale value, or anything else. */
void churn_bad(struct churn_tally *tally, bool stale, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/*
 * Addresses that nobody else will take when they are unmapped for a moment, so that what
 * is read there can only be ours; never those of an earlier call. NULL: none found.
 */
void *churn_area(size_t bytes);

/* A small random number generator, seeded; *state is not 0. */
uint64_t churn_random(uint64_t *state);

/* ---- beside ---- */

struct churn_beside;

/* Start a thread with a queue of its own. 0, or negative errno. */
int churn_beside_start(struct gpu *gpu, struct churn_tally *tally, uint64_t seed,
		       struct churn_beside **beside);
/* Stop it and wait; NULL is allowed. */
void churn_beside_stop(struct churn_beside *beside);

/* ---- between ---- */

struct churn_graph {
	struct gpu *gpu;
	struct gpu_queue *queue;
	struct churn_tally *tally;
	struct deb_graph *deb;
	double *rank[2]; /* private anonymous mappings of `bytes` */
	size_t bytes;
	bool read_only[2]; /* which may not be written for the moment */
	bool vram;	   /* the GPU has memory of its own */
	uint64_t *bad;	   /* a page that comes and goes, for bad pointers */
	uint64_t random;
};

/* 0, or -ENOMEM. */
int churn_graph_init(struct churn_graph *graph, struct gpu *gpu, struct gpu_queue *queue,
		     struct churn_tally *tally, struct deb_graph *deb, uint64_t seed);
/* Move a range to the GPU's memory or home; true: something moved. Failures are noted. */
bool churn_migrate(struct churn_graph *graph, const void *start, size_t length, bool home);
void churn_graph_free(struct churn_graph *graph);

/* One change before the launch that reads rank[now] and writes rank[!now]. */
void churn_between(struct churn_graph *graph, unsigned turn, unsigned now);
/* After that launch: take back what was for one launch only. */
void churn_between_end(struct churn_graph *graph);

/*
 * Have a job follow a pointer to memory that was unmapped for good; it must end
 * in -EFAULT. text: what the GPU says about it.
 */
void churn_bad_pointer(struct churn_graph *graph, struct gpu_queue *queue, char *text,
		       size_t size);

/* ---- during ---- */

struct churn_during {
	pthread_mutex_t graph; /* held while the graph may not be touched from beside */
	pthread_t thread;
	struct churn_graph *target;
	_Atomic bool stop;
};

/* The caller holds no lock; takes during->graph for itself. 0, or negative errno. */
int churn_during_start(struct churn_during *during, struct churn_graph *target);
/* Called without during->graph. */
void churn_during_stop(struct churn_during *during);

#endif
