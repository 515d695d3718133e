/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * gpu_private - the parts of the software GPU and what each lock protects.
 *
 * Law of device memory (hmm.h): what serves a CPU's fault must not wait for one. The
 * library's reader and our copy engine serve them; so
 *  - what they touch lies in memory that never moves: struct gpu and all that hangs on it,
 *    the stacks of all our threads, video memory (hmm_alloc), page tables (ptable.h);
 *  - the update lock (mmu.lock) is theirs too, so whoever holds it touches nothing else
 *    and waits for no section but those that use frames (shootdown.c). Only the fault
 *    handler, the worker (invalidate) and the engine take it: the program's threads,
 *    whose stacks can be away, ask the handler (command.c).
 * Fences and what other threads ask for are the program's memory: nobody touches them inside
 * a section or under that lock.
 *
 * Lock order: mmu.flush before mmu.lock. sched.lock, verify.lock, migrate.lock, the
 * faults' and a fence's are leaves, and not held together with mmu.lock. No lock is held
 * inside a section (sm.c), while a kernel runs, or while the library is called, except
 * that hmm_range_program() takes the update lock for us.
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

#define GPU_STACK ((size_t)1 << 20)

/* In the page table only, a bit that HMM_PFN_* leaves free: atomics may be done here. */
#define GPU_PFN_ATOMIC (UINT64_C(1) << 59)
#define GPU_ACCESS_BITS (HMM_PFN_VALID | HMM_PFN_WRITE | GPU_PFN_ATOMIC)

struct gpu_thread {
	pthread_t thread;
	char *stack; /* GPU_STACK bytes that never move; NULL: not started */
};

#define GPU_JOB_CANCELLED 1u
#define GPU_JOB_QUIET 2u /* rest until sched.quiet is over */
struct gpu_job {
	struct gpu_queue *queue;
	struct gpu_job *next; /* behind this one in the queue */
	gpu_kernel kernel;
	void *arg;
	uint64_t id;
	uint64_t begin;		      /* verify clock when it was submitted */
	uint64_t count, taken, chunk; /* taken: indices given to SMs; sched.lock */
	unsigned running;	      /* SMs inside it; sched.lock */
	atomic_uint attention;	      /* GPU_JOB_*; read by SMs at each access and index */
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
	pthread_cond_t resumed; /* quiet is over */
	bool quiet;
	struct gpu_queue *turn; /* ring: whose turn it is; NULL: no queue */
	uint64_t ids;
	bool stop;
	union piece *free; /* memory of jobs and queues (queue.c) */
	struct gpu_slab *slabs;
};

struct gpu_sm {
	struct gpu_tlb tlb;
	uint64_t stamp[GPU_TLB_ENTRIES]; /* verify: when each slot's PTE was installed */
	/* A section's number times 4, plus GPU_SECTION_* while inside. */
	_Alignas(64) atomic_uint section;
	bool fenced;			 /* membarrier is refused: fence each section */
	atomic_bool active;		 /* has a job, so may use its TLB */
	_Atomic uint64_t hits, misses, vram;
	struct gpu *gpu;
	struct hmm *hmm; /* a reference of its own */
	struct gpu_job *job;
	uint64_t begin; /* job->begin, for inside sections */
	unsigned frames_used; /* verify mode */
	uint64_t hot;	/* a block that shall migrate, number + 1; 0: none (migrate.c) */
	unsigned index;
	bool scope; /* hmm_access_begin() is open */
	sigjmp_buf cancel;
	struct gpu_thread thread;
	char bounce[4096]; /* between a section and the caller's buffer (access.c) */
	char carry[4096];  /* gpu_copy(): one lookup in each section */
};

struct gpu_mmu {
	pthread_mutex_t flush; /* held while a range is forgotten, waits included */
	pthread_mutex_t lock;  /* the update lock: protects table writes and what follows */
	struct uhmm_ptable table;
	uintptr_t hole_start, hole_end; /* unmanaged */
	bool huge;			/* a 2 MiB entry was ever set */
	/* TLB flushes, by anybody (shootdown.c) */
	_Atomic uint64_t flushes_begun, flushes_ended;
};

/* Frames of one devmem (vram.c). All arrays have an element for each frame or block. */
struct gpu_memory {
	struct gpu *gpu;
	struct hmm_devmem *devmem; /* NULL: there is none */
	unsigned id;		   /* hmm_devmem_id() */
	uint64_t frames;
	bool host; /* the library's host memory */
	atomic_bool lost;
	char *base;	  /* not host: the memory itself */
	_Atomic uintptr_t *rmap; /* the page it was last mapped for; 0: none. Update lock */
	uintptr_t *where;	 /* its bytes. Update lock; read inside sections */
	_Atomic uint8_t *stopped; /* verify mode: no section may use it */
	_Atomic uint16_t *used;	 /* of a block of 16 frames: how many are */
	_Atomic uint32_t *touched; /* of a block: clock at its last use */
	_Atomic uint32_t clock;	   /* of evictions and migrations */
	atomic_bool making_room;
	struct gpu_memory *home;   /* itself; a peer's view: the peer's own */
};
#define GPU_BLOCK_SHIFT 4 /* frames: 64 KiB */
#define GPU_BLOCK ((uint64_t)1 << GPU_BLOCK_SHIFT)

/* engine.c */
#define GPU_ENGINE_THREADS 2
#define GPU_ENGINE_JOBS 256u /* more than the library has on the way at once */
struct gpu_engine_job {
	struct gpu_memory *memory;
	bool home;
	struct hmm_devmem_copy *copies;
	unsigned n;
	struct hmm_transfer *transfer;
};
struct gpu_engine {
	struct gpu_engine_job job[GPU_ENGINE_JOBS];
	_Atomic uint32_t head, tail; /* the engine's, the reader's */
	_Atomic uint32_t bell;	     /* futex: rung for a job, and for the end */
	_Atomic uint32_t owner;	     /* futex: the thread that is the engine, 0 none */
	atomic_bool stop;
	_Atomic unsigned kill, stall_ms, broken; /* hooks for tests */
	_Atomic uint64_t jobs, deaths;
	uint64_t armed; /* kills asked for */
	struct gpu_engine_thread {
		struct gpu *gpu;
		struct gpu_thread thread;
		atomic_bool dead;
		unsigned number;
	} thread[GPU_ENGINE_THREADS];
};

/* hive.c. A slot is one GPU's for the life of the hive. */
struct gpu_hive {
	struct gpu *_Atomic member[GPU_HIVE_MAX];
	_Atomic unsigned slots;	  /* given out */
	_Atomic unsigned walkers; /* engines that look at members */
};

/* migrate.c */
#define GPU_HEAT_SLOTS 4096u
#define GPU_HOT 64u
struct gpu_migrate {
	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t put, done;
	struct gpu_request *first, **last; /* of the program's threads, which wait */
	uint64_t hot[GPU_HOT];		   /* blocks, by number */
	unsigned head, tail;
	bool stop;
	struct gpu_thread thread;
	_Atomic uint64_t heat[GPU_HEAT_SLOTS]; /* block number << 16 | misses */
	unsigned after;
};

struct gpu_verify {
	bool on;
	_Atomic uint64_t clock;
	/* By page: when the PTE was installed. Written under the update lock. */
	struct uhmm_ptable stamps;
	pthread_mutex_t lock; /* protects writing what follows */
	/* By page: the last mark, and the last one before the oldest unfinished job. */
	struct uhmm_ptable marks, floors;
	struct gpu_marks *marks_made; /* slabs, newest first */
};

/* An entry of the fault buffer; lies on the stack of the SM that waits for it. */
struct gpu_fault {
	uintptr_t addr;
	enum gpu_access access;
	bool gone; /* in: there was a translation, but the memory behind it is gone */
	int err;
	enum hmm_reason reason;
	uint64_t locked; /* out: exclusive frame + 1 that the SM must release */
	bool answered;
};

/* What another thread asks of the handler (command.c). Lies on the asker's stack. */
enum gpu_command_kind {
	GPU_COMMAND_MAP,
	GPU_COMMAND_HOLE,
	GPU_COMMAND_FORGET,
	GPU_COMMAND_PEEK,
	GPU_COMMAND_DIE,
};
struct gpu_command {
	enum gpu_command_kind kind;
	uintptr_t start, end; /* MAP: within one aligned block of 2 MiB */
	uint64_t request;     /* MAP: HMM_PFN_REQ_* of each page */
	int err;
	int64_t mapped; /* out, MAP: pages */
	void *page;	/* PEEK: where to */
	bool answered;
	struct gpu_command *next;
};

/* exclusive.c: how often a page was made exclusive lately. The handler's. */
#define GPU_CONTESTS 256u
struct gpu_contest {
	uintptr_t page;
	uint64_t since; /* ns */
	unsigned count;
};

struct gpu_faults {
	pthread_mutex_t lock; /* protects ring, list, and each entry's answered */
	pthread_cond_t put, answered;
	struct gpu_fault *ring[GPU_SMS_MAX]; /* an SM has one fault at most: never full */
	unsigned head, tail;
	struct gpu_command *first, **last;
	bool stop;
	struct gpu_thread thread;
};

/* naive mode only (late.c) */
struct gpu_late {
	pthread_mutex_t lock; /* protects the list and stop */
	pthread_cond_t put;
	struct gpu_late_range *first, **last;
	bool stop;
	struct gpu_thread thread;
};

struct gpu {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	pid_t pid; /* a forked child has the memory, not the threads */
	unsigned sms, fault_window;
	unsigned started; /* SMs that have a thread; the opener's and closer's */
	bool naive, log;
	const char *_Atomic dead; /* why: the mirror is, or the device; NULL */
	struct gpu_sm *sm;
	struct gpu_mmu mmu;
	struct gpu_sched sched;
	struct gpu_faults faults;
	struct gpu_verify verify;
	struct gpu_late late;
	struct gpu_memory vram, exclusive;
	struct gpu_memory peer[GPU_HIVE_MAX]; /* views; devmem is NULL where there is none */
	struct gpu_hive *hive;		      /* NULL: none */
	unsigned slot;			      /* in it; GPU_HIVE_MAX: not in it yet */
	void *owner;			      /* of our devmems, and of the hive's */
	struct gpu_policy policy;	      /* size 0: none */
	struct gpu_contest contest[GPU_CONTESTS];
	struct gpu_engine engine;
	struct gpu_migrate migrate;
	struct gpu_options options; /* as given, 0 where not */
	struct gpu_counters {
		_Atomic uint64_t jobs, cancelled, faults, faults_merged, replays;
		_Atomic uint64_t invalidations, shootdowns, unmirrored, stale;
		_Atomic uint64_t evictions, hot_blocks, exclusive, atomic_fallbacks;
	} count;
};

/* A piece of address space that is mapped in one go. */
struct gpu_window {
	struct gpu *gpu;
	uintptr_t start, end;	       /* at most GPU_WINDOW_MAX pages */
	uint64_t want[GPU_WINDOW_MAX]; /* in: HMM_PFN_REQ_* of each page */
	bool system_atomics;	       /* in: atomics on system memory are allowed here */
	uint8_t may[GPU_WINDOW_MAX];   /* policy.c: GPU_MAY_* */
	uint64_t sequence;	       /* of the policy when it said so */
	uint64_t mapped;	       /* out: pages that have a translation now */
	uintptr_t refused;	       /* out, -EIO, -ENXIO: the answer of this page ... */
	uint64_t refused_entry;	       /* ... is this, and cannot be used */
	uintptr_t fault_addr;	       /* out, as in struct hmm_range */
	enum hmm_reason fault_reason;
	uint64_t pfns[GPU_WINDOW_MAX];
};

static inline uint64_t gpu_need(enum gpu_access access)
{
	return access == GPU_ATOMIC ? GPU_PFN_ATOMIC
	       : access == GPU_WRITE ? HMM_PFN_WRITE
				     : HMM_PFN_VALID;
}

static inline uint64_t gpu_request(enum gpu_access access)
{
	if (access == GPU_PREFETCH)
		return 0;
	return access == GPU_READ ? HMM_PFN_REQ_FAULT : HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
}

/* thread.c: a thread that the program's signals do not reach, on a stack that never moves */
int gpu_thread_start(struct gpu_thread *thread, void *(*fn)(void *), void *arg);
void gpu_thread_join(struct gpu_thread *thread);

/* mmu.c */
int gpu_mmu_init(struct gpu *gpu);
void gpu_mmu_destroy(struct gpu *gpu);
uint64_t gpu_mmu_lookup(const struct gpu *gpu, uintptr_t addr);
int gpu_mmu_install(struct gpu_window *window, const struct hmm_range *range);
void gpu_mmu_forget(struct gpu *gpu, uintptr_t start, uintptr_t end);
void gpu_mmu_forget_system(struct gpu *gpu, uintptr_t start, uintptr_t end);
void gpu_mmu_stop_frames(struct gpu_memory *memory, const struct hmm_devmem_copy *copies,
			 unsigned n);
void gpu_mmu_set_hole(struct gpu *gpu, uintptr_t start, uintptr_t end);
bool gpu_mmu_managed(struct gpu *gpu, uintptr_t addr, uintptr_t *start, uintptr_t *end);

/* shootdown.c */
void gpu_shootdown_init(struct gpu *gpu);
void gpu_shootdown(struct gpu *gpu, uintptr_t start, uintptr_t end, bool huge);
void gpu_shootdown_pages(struct gpu *gpu, const uintptr_t *pages, unsigned n);

/* sm.c */
int gpu_sms_start(struct gpu *gpu);
void gpu_sms_stop(struct gpu *gpu);
uint64_t gpu_sm_translate(struct gpu_sm *sm, uintptr_t addr, uint64_t need);

/* The access section; the argument is in shootdown.c. */
#define GPU_SECTION_FRAME 1u  /* it has not looked up yet, or found a frame: never sleeps */
#define GPU_SECTION_SYSTEM 2u /* it uses system memory and may sleep for the reader */
#define GPU_SECTION_MASK 3u

static inline void gpu_sm_enter(struct gpu_sm *sm)
{
	unsigned section = atomic_load_explicit(&sm->section, memory_order_relaxed);

	atomic_store_explicit(&sm->section, section + GPU_SECTION_FRAME, memory_order_relaxed);
	if (sm->fenced)
		atomic_thread_fence(memory_order_seq_cst);
	else
		atomic_signal_fence(memory_order_seq_cst);
}

/* Inside: the translation is one of system memory. */
static inline void gpu_sm_system(struct gpu_sm *sm)
{
	unsigned section = atomic_load_explicit(&sm->section, memory_order_relaxed);

	atomic_store_explicit(&sm->section, section + GPU_SECTION_SYSTEM - GPU_SECTION_FRAME,
			      memory_order_release);
}

static inline void gpu_sm_leave(struct gpu_sm *sm)
{
	unsigned section = atomic_load_explicit(&sm->section, memory_order_relaxed);

	atomic_store_explicit(&sm->section, (section | GPU_SECTION_MASK) + 1,
			      memory_order_release);
}

/* queue.c */
bool gpu_sched_take(struct gpu_sm *sm, uint64_t *from, uint64_t *to, bool wait);
void gpu_sched_done(struct gpu_sm *sm);
void gpu_sched_fail(struct gpu_job *job, const struct gpu_error *error);
void gpu_sched_rest(struct gpu_sm *sm);
void gpu_sched_kill(struct gpu *gpu, const char *why);
void gpu_sched_destroy(struct gpu *gpu);
uint64_t gpu_sched_oldest(struct gpu *gpu);

/* error.c: end the job of this SM; does not return */
void gpu_cancel(struct gpu_sm *sm, int err, uintptr_t addr, size_t length,
		enum gpu_access access, enum hmm_reason reason) __attribute__((noreturn));

/* fault.c */
int gpu_faults_start(struct gpu *gpu);
void gpu_faults_stop(struct gpu *gpu);
void gpu_fault_raise(struct gpu *gpu, struct gpu_fault *fault);
/* exclusive.c: handler only */
void gpu_exclusive_serve(struct gpu_window *window, struct gpu_fault *fault);

/* command.c */
int gpu_command(struct gpu *gpu, struct gpu_command *command);
void gpu_command_run(struct gpu *gpu, struct gpu_command *command);

/* bind.c: pieces of the mappings (of what is populated) of a range, each in a 2 MiB block */
typedef int (*gpu_piece_fn)(void *arg, uintptr_t start, uintptr_t end);
struct gpu_walk {
	struct gpu *gpu;
	bool gaps;	 /* pieces may have gaps in them, where nothing is populated */
	unsigned need;	 /* HMM_RUN_* without which a run is left out */
	gpu_piece_fn fn; /* non-zero stops */
	void *arg;
	uintptr_t start, end; /* piece not told yet; empty if equal */
};
int gpu_walk(struct gpu_walk *walk, const void *addr, size_t length, unsigned flags);

/* vram.c */
int gpu_memories_create(struct gpu *gpu);
void gpu_memories_destroy(struct gpu *gpu);
void gpu_memories_free(struct gpu *gpu);
/* The memory that a HMM_PFN_DEVICE entry is about; NULL: none of ours. */
struct gpu_memory *gpu_memory_of(struct gpu *gpu, uint64_t entry);
/* hive.c: the view of the peer that has it; NULL: none. Inside sections: has one. */
struct gpu_memory *gpu_hive_view(const struct gpu *gpu, uint64_t entry);
/* Inside sections: the bytes of an entry's page. */
static inline char *gpu_frame_at(const struct gpu *gpu, uint64_t entry)
{
	const struct gpu_memory *memory =
		hmm_pfn_devmem(entry) == gpu->vram.id && gpu->vram.devmem ? &gpu->vram
		: gpu->hive ? gpu_hive_view(gpu, entry)
			    : &gpu->exclusive;

	return (char *)memory->where[hmm_pfn_frame(entry)];
}
void gpu_memory_touch(struct gpu *gpu, uint64_t entry);
int gpu_memory_arrays(struct gpu_memory *memory, bool view);
void gpu_memory_free_arrays(struct gpu_memory *memory);
uint64_t gpu_memory_make_room(struct gpu_memory *memory, uint64_t frames);

/* engine.c */
int gpu_engine_start(struct gpu *gpu);
void gpu_engine_stop(struct gpu *gpu);
void gpu_engine_put(struct gpu *gpu, const struct gpu_engine_job *job);

/* migrate.c */
int gpu_migrate_start(struct gpu *gpu);
void gpu_migrate_stop(struct gpu *gpu);
void gpu_migrate_heat(struct gpu_sm *sm, uintptr_t addr);
void gpu_migrate_hot(struct gpu *gpu, uint64_t block);

/* window.c */
int gpu_window_map(struct gpu_window *window, unsigned timeout_ms);
void gpu_window_clip(struct gpu_window *window, uintptr_t addr);

/* hive.c */
int gpu_hive_join(struct gpu *gpu);
void gpu_hive_leave(struct gpu *gpu);
void gpu_hive_free_views(struct gpu *gpu);
void gpu_hive_stop_frames(struct gpu_memory *memory, const struct hmm_devmem_copy *copies,
			  unsigned n);
void gpu_hive_forget(struct gpu *gpu);

/* policy.c */
int gpu_policy_fault(struct gpu_sm *sm, const struct gpu_fault *fault);
void gpu_policy_ask(struct gpu_window *window);
void gpu_policy_home(const struct gpu_memory *memory, const struct hmm_devmem_copy *copies,
		     unsigned n);
int gpu_policy_judge(const struct gpu_window *window, size_t page, uint64_t *entry);

/* verify.c */
int gpu_verify_init(struct gpu *gpu); /* also when verify is off */
void gpu_verify_destroy(struct gpu *gpu);
uint64_t gpu_verify_tick(struct gpu *gpu);
void gpu_verify_access(struct gpu_sm *sm, uintptr_t addr);
void gpu_verify_frame(struct gpu_sm *sm, uint64_t entry);

/* late.c */
int gpu_late_start(struct gpu *gpu);
void gpu_late_stop(struct gpu *gpu);
void gpu_late_put(struct gpu *gpu, uintptr_t start, uintptr_t end);

#endif
