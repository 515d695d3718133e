/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * gpu_private - the parts of the software GPU and what each lock protects.
 *
 * Lock order: the update lock (mmu.lock) and the scheduler's (sched.lock) are never
 * held together; the fault buffer's and a fence's are leaves. No lock is held inside
 * an access section (sm.c), while a kernel runs, or while the library is called,
 * except that hmm_range_program() takes the update lock for us.
 */
#ifndef GPU_PRIVATE_H
#define GPU_PRIVATE_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <uhmm/gpu.h>

#define GPU_PAGE ((uintptr_t)1 << UHMM_PTABLE_PAGE_SHIFT)
#define GPU_HUGE ((uintptr_t)1 << UHMM_PTABLE_HUGE_SHIFT)
#define GPU_VA_END ((uintptr_t)1 << UHMM_PTABLE_VA_BITS)
#define GPU_SMS_MAX 64
#define GPU_WINDOW_MAX 512 /* pages; one 2 MiB block */

#define GPU_ACCESS_BITS (HMM_PFN_VALID | HMM_PFN_WRITE)

struct gpu_job {
	struct gpu_queue *queue;
	struct gpu_job *next; /* behind this one in the queue */
	gpu_kernel kernel;
	void *arg;
	uint64_t id;
	uint64_t begin;		      /* verify clock when it was submitted */
	uint64_t count, taken, chunk; /* taken: indices given to SMs; sched.lock */
	unsigned running;	      /* SMs inside it; sched.lock */
	atomic_bool cancelled;	      /* read by SMs at each access and index */
	struct gpu_error error;	      /* set once, before cancelled; sched.lock */
	struct gpu_fence *fence;      /* NULL: nobody waits */
};

struct gpu_queue {
	struct gpu *gpu;
	struct gpu_queue *next;	   /* ring of all queues; sched.lock */
	struct gpu_job *head, *tail; /* head is the one that runs; sched.lock */
};

/* Has a lock of its own, so that it may be waited for after gpu_close(). */
struct gpu_fence {
	pthread_mutex_t lock; /* protects done and error */
	pthread_cond_t cond;
	bool done;
	struct gpu_error error;
};

struct gpu_sched {
	pthread_mutex_t lock;	/* protects all queues and jobs */
	pthread_cond_t work;	/* an index can be taken, or stop */
	pthread_cond_t settled; /* a job ended */
	struct gpu_queue *turn; /* ring: whose turn it is; NULL: no queue */
	uint64_t ids;
	bool stop;
};

struct gpu_sm {
	struct gpu_tlb tlb;
	uint64_t stamp[GPU_TLB_ENTRIES]; /* verify: when each slot's PTE was installed */
	_Alignas(64) atomic_uint section; /* odd inside an access section */
	bool fenced;			 /* membarrier is refused: fence each section */
	atomic_bool active;		 /* has a job, so may use its TLB */
	_Atomic uint64_t hits, misses;
	struct gpu *gpu;
	struct hmm *hmm; /* a reference of its own */
	struct gpu_job *job;
	unsigned index;
	bool scope; /* hmm_access_begin() is open */
	sigjmp_buf cancel;
	pthread_t thread;
	char bounce[4096]; /* gpu_copy(): one lookup in each section (sm.c) */
};

struct gpu_mmu {
	pthread_mutex_t lock; /* the update lock: protects table writes and what follows */
	struct uhmm_ptable table;
	uintptr_t hole_start, hole_end; /* unmanaged */
	bool huge;			/* a 2 MiB entry was ever set */
};

struct gpu_verify {
	bool on;
	_Atomic uint64_t clock;
	struct gpu_mark *made; /* all marks, newest first; update lock */
	/* By page, written under the update lock: when the PTE was installed, the last
	 * mark, and the last mark before the oldest unfinished job. */
	struct uhmm_ptable stamps, marks, floors;
};

/* An entry of the fault buffer; lies on the stack of the SM that waits for it. */
struct gpu_fault {
	uintptr_t addr;
	enum gpu_access access;
	int err;
	enum hmm_reason reason;
	bool answered;
};

struct gpu_faults {
	pthread_mutex_t lock; /* protects the ring and each entry's answered */
	pthread_cond_t put, answered;
	struct gpu_fault *ring[GPU_SMS_MAX]; /* an SM has one fault at most: never full */
	unsigned head, tail;
	bool stop;
	pthread_t thread;
};

/* naive mode only (late.c) */
struct gpu_late {
	pthread_mutex_t lock; /* protects the list and stop */
	pthread_cond_t put;
	struct gpu_late_range *first, **last;
	bool stop;
	pthread_t thread;
};

struct gpu {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	pid_t pid; /* a forked child has the memory, not the threads */
	unsigned sms, fault_window;
	unsigned started; /* SMs that have a thread; the opener's and closer's */
	bool naive, log;
	atomic_bool dead; /* the mirror is */
	struct gpu_sm *sm;
	struct gpu_mmu mmu;
	struct gpu_sched sched;
	struct gpu_faults faults;
	struct gpu_verify verify;
	struct gpu_late late;
	struct gpu_counters {
		_Atomic uint64_t jobs, cancelled, faults, faults_merged, replays;
		_Atomic uint64_t invalidations, shootdowns, unmirrored, stale;
	} count;
};

/* A piece of address space that is mapped in one go. */
struct gpu_window {
	struct gpu *gpu;
	uintptr_t start, end;	       /* at most GPU_WINDOW_MAX pages */
	uint64_t want[GPU_WINDOW_MAX]; /* in: HMM_PFN_REQ_* of each page */
	uint64_t mapped;	       /* out: pages that have a translation now */
	uintptr_t fault_addr;	       /* out, as in struct hmm_range */
	enum hmm_reason fault_reason;
	uint64_t pfns[GPU_WINDOW_MAX];
};

static inline uint64_t gpu_need(enum gpu_access access)
{
	return access == GPU_WRITE || access == GPU_ATOMIC ? HMM_PFN_WRITE : HMM_PFN_VALID;
}

static inline uint64_t gpu_request(enum gpu_access access)
{
	if (access == GPU_PREFETCH)
		return 0;
	return HMM_PFN_REQ_FAULT | (gpu_need(access) & HMM_PFN_REQ_WRITE);
}

/* gpu.c: a thread that the program's signals do not reach */
int gpu_thread(pthread_t *thread, void *(*fn)(void *), void *arg);

/* mmu.c */
int gpu_mmu_init(struct gpu *gpu);
void gpu_mmu_destroy(struct gpu *gpu);
uint64_t gpu_mmu_lookup(const struct gpu *gpu, uintptr_t addr);
int gpu_mmu_install(struct gpu_window *window, const struct hmm_range *range);
void gpu_mmu_forget(struct gpu *gpu, uintptr_t start, uintptr_t end);
bool gpu_mmu_managed(struct gpu *gpu, uintptr_t addr, uintptr_t *start, uintptr_t *end);

/* shootdown.c */
void gpu_shootdown_init(struct gpu *gpu);
void gpu_shootdown(struct gpu *gpu, uintptr_t start, uintptr_t end);

/* sm.c */
int gpu_sms_start(struct gpu *gpu);
void gpu_sms_stop(struct gpu *gpu);
uint64_t gpu_sm_translate(struct gpu_sm *sm, uintptr_t addr, uint64_t need);

/* The access section; the argument is in shootdown.c. */
static inline void gpu_sm_enter(struct gpu_sm *sm)
{
	unsigned section = atomic_load_explicit(&sm->section, memory_order_relaxed);

	atomic_store_explicit(&sm->section, section + 1, memory_order_relaxed);
	if (sm->fenced)
		atomic_thread_fence(memory_order_seq_cst);
	else
		atomic_signal_fence(memory_order_seq_cst);
}

static inline void gpu_sm_leave(struct gpu_sm *sm)
{
	unsigned section = atomic_load_explicit(&sm->section, memory_order_relaxed);

	atomic_store_explicit(&sm->section, section + 1, memory_order_release);
}

/* queue.c */
bool gpu_sched_take(struct gpu_sm *sm, uint64_t *from, uint64_t *to, bool wait);
void gpu_sched_done(struct gpu_sm *sm);
void gpu_sched_fail(struct gpu_job *job, const struct gpu_error *error);
void gpu_sched_kill(struct gpu *gpu);
void gpu_sched_drain(struct gpu *gpu);
uint64_t gpu_sched_oldest(struct gpu *gpu);

/* error.c: end the job of this SM; does not return */
void gpu_cancel(struct gpu_sm *sm, int err, uintptr_t addr, size_t length,
		enum gpu_access access, enum hmm_reason reason) __attribute__((noreturn));

/* fault.c */
int gpu_faults_start(struct gpu *gpu);
void gpu_faults_stop(struct gpu *gpu);
void gpu_fault_raise(struct gpu *gpu, struct gpu_fault *fault);

/* window.c */
int gpu_window_map(struct gpu_window *window, unsigned timeout_ms);
void gpu_window_clip(struct gpu_window *window, uintptr_t addr);

/* verify.c */
int gpu_verify_init(struct gpu *gpu);
void gpu_verify_destroy(struct gpu *gpu);
uint64_t gpu_verify_tick(struct gpu *gpu);
void gpu_verify_access(struct gpu_sm *sm, uintptr_t addr);

/* late.c */
int gpu_late_start(struct gpu *gpu);
void gpu_late_stop(struct gpu *gpu);
void gpu_late_put(struct gpu *gpu, uintptr_t start, uintptr_t end);

#endif
