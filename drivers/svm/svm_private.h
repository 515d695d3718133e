/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * svm_private - what the parts of the svm driver know of each other.
 *
 * Locks, in this order; struct svm and what they protect never move (hmm_alloc):
 *
 *	set_lock	calls that change attributes or move ranges, one at a time
 *	stripe[].lock	who moves or maps pages of one 2 MiB block: SMs that fault, prefetches,
 *			restores; sleep over migrations. One at a time; others are only tried
 *	evict.lock	who evicts and who waits for a restore; also in the callback. Not the
 *			copy engines, on which a CPU's fault waits: they write notices (homing.c)
 *	tree_lock	the tree and what goes with it; a leaf: the GPUs' handlers and the
 *			library's worker take it, so nobody waits for anything under it
 */
#ifndef SVM_PRIVATE_H
#define SVM_PRIVATE_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "attrs.h"
#include "slice.h"

#define SVM_PAGE ((uintptr_t)4096)
#define SVM_BLOCK ((uintptr_t)2 << 20)
#define SVM_STRIPES 64u
#define SVM_SPACE_BITS 47 /* of the program's addresses */
#define SVM_UNMAPS 16u

/* Chunks, largest first. */
#define SVM_SIZES 3u
#define SVM_CHUNK_64K 4u /* granularity of the one in the middle */
static const uintptr_t svm_sizes[SVM_SIZES] = {SVM_BLOCK, (uintptr_t)64 << 10, SVM_PAGE};

struct svm_stripe {
	pthread_mutex_t lock;
	struct svm_slice slice;
	_Atomic uint64_t moving; /* by us: block number + 1; 0: none (homing.c) */
};

/* An unmap that faults in flight may be older than. */
struct svm_unmap {
	uintptr_t start, end;
	uint64_t clock;
};

struct svm_span {
	uintptr_t start, end;
};

#define SVM_SPANS 32u
#define SVM_TOUCHED 16u
struct svm_evict {
	pthread_mutex_t lock; /* protects what follows, but watch, bell, thread */
	pthread_cond_t restored;
	struct svm_span span[SVM_SPANS]; /* evicted, and not mapped again yet */
	unsigned n;
	uintptr_t touched[SVM_TOUCHED]; /* pages that a CPU has fetched (follow.c) */
	unsigned touched_n;
	struct svm_span following; /* goes home behind one of them, and is evicted with it */
	bool quiet, stop, started;
	uint64_t generation;   /* of restores */
	atomic_bool watch;     /* there may be something that must be mapped */
	_Atomic uint32_t bell; /* futex: something was evicted, a notice, the end */
	pthread_t thread;
};

/* homing.c */
#define SVM_NOTICES 1024u
struct svm_notice {
	_Atomic uint32_t turn;
	bool touched; /* it was a CPU's fault, as far as can be told */
	uintptr_t start, end;
};
struct svm_homing {
	struct svm_notice notice[SVM_NOTICES];
	_Atomic uint32_t put;
	uint32_t taken; /* evict.lock */
	atomic_bool spilled;
};

struct svm {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	struct gpu_hive *hive;
	struct gpu *gpu[SVM_GPUS_MAX];
	pid_t pid;
	struct svm_options options; /* with the defaults filled in */
	pthread_mutex_t set_lock;
	pthread_mutex_t tree_lock; /* protects tree, clock, unmaps, must */
	struct svm_tree tree;
	uint64_t clock, unmaps; /* of unmaps: how many there were */
	struct svm_unmap unmap[SVM_UNMAPS];
	uint64_t sequence; /* struct gpu_policy */
	struct svm_stripe stripe[SVM_STRIPES];
	struct svm_evict evict;
	struct svm_homing homing;
	atomic_bool closing;
	struct svm_counters {
		_Atomic uint64_t collected, faults, duplicates, drained, denied;
		_Atomic uint64_t chunks[SVM_SIZES], migrated, prefetched, fallbacks, in_place;
		_Atomic uint64_t evictions, quiesced, restored, longest_ns, followed;
	} count;
};

static inline void svm_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* The most of all. */
static inline void svm_raise(_Atomic uint64_t *counter, uint64_t n)
{
	uint64_t now = atomic_load_explicit(counter, memory_order_relaxed);

	while (now < n && !atomic_compare_exchange_weak(counter, &now, n))
		;
}

/* svm.c */
unsigned svm_index(const struct svm *svm, const struct gpu *gpu);
int svm_check_range(const struct svm *svm, uintptr_t start, size_t length, uintptr_t *end);
struct svm_attrs svm_attrs_of(struct svm *svm, uintptr_t addr, uintptr_t *start,
			      uintptr_t *end);

/* fault.c: struct gpu_policy */
struct svm_stripe *svm_stripe_of(struct svm *svm, uintptr_t addr);
bool svm_needs_device(const struct svm_attrs *attrs, enum gpu_access access);
int svm_gpu_fault(void *arg, struct gpu *gpu, uintptr_t addr, enum gpu_access access, bool gone);
unsigned svm_may(void *arg, struct gpu *gpu, uintptr_t addr, uintptr_t *end);

/* chunk.c */
struct svm_chunk {
	uintptr_t start, end;
	unsigned size;	/* of svm_sizes */
	bool mapped;	/* something is there */
	bool movable;	/* private anonymous, readable and writable */
};
/* Cuts [*from, *to) to the mapping of addr. false: there is none. */
bool svm_row_at(struct svm *svm, uintptr_t addr, uintptr_t *from, uintptr_t *to, bool *movable);
/* The largest around addr in [from, to), of at most 1 << granularity pages. */
void svm_chunk_at(struct svm *svm, uintptr_t addr, uintptr_t from, uintptr_t to,
		  uint32_t granularity, struct svm_chunk *chunk);

/* place.c */
struct svm_fault {
	uintptr_t addr;
	unsigned gpu; /* whose it is */
	enum gpu_access access;
	struct svm_attrs attrs;
	struct gpu *holder; /* where the page lies; NULL: with the system */
};
int svm_bring(struct svm *svm, unsigned gpu, uintptr_t addr, enum gpu_access access);
uint64_t svm_now(void);
/* To a GPU, for a fault; in one block, whose stripe is held. Pages that are there, or an errno. */
int64_t svm_carry(struct svm *svm, uintptr_t start, uintptr_t end, uint32_t to, uint32_t flags);

/* granule.c */
void svm_granule(struct svm *svm, const struct svm_fault *fault, uint32_t where);

/* move.c */
int64_t svm_move_whole(struct svm *svm, uintptr_t start, uintptr_t end, struct gpu *gpu);
int64_t svm_move(struct svm *svm, uintptr_t start, uintptr_t end, uint32_t location,
		 unsigned flags);

/* evict.c */
bool svm_must_map(const struct svm *svm, const struct svm_attrs *attrs);
void svm_evict(struct svm *svm, uintptr_t start, uintptr_t end);
bool svm_miss(struct svm *svm);
void svm_note_mapped(struct svm *svm, uintptr_t start, uintptr_t end);
void svm_map(struct svm *svm, uintptr_t start, uintptr_t end);
void svm_bell_ring(_Atomic uint32_t *bell);
int svm_evict_start(struct svm *svm);
void svm_evict_stop(struct svm *svm);

/* homing.c */
void svm_homing_init(struct svm_homing *homing);
void svm_home(void *arg, struct gpu *gpu, uintptr_t start, uintptr_t end, bool room);
bool svm_homing_take(struct svm_homing *homing, struct svm_span *span, bool *touched);
/* The stripe of the block is held: what happens to its pages from now on is our doing. */
void svm_moving(struct svm *svm, uintptr_t addr);
void svm_moved(struct svm *svm, uintptr_t addr);

/* follow.c */
void svm_follow(struct svm *svm, uintptr_t addr);

/* collect.c */
extern const struct hmm_notifier_ops svm_notifier_ops;
bool svm_is_stale(struct svm *svm, uintptr_t addr, uint64_t since);

static inline bool svm_allows(uint64_t entry, enum gpu_access access)
{
	return entry & (access == GPU_READ ? HMM_PFN_VALID : HMM_PFN_WRITE);
}

#endif
