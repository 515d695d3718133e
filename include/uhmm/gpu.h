/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: gpu - a software GPU after nouveau's SVM (drivers/gpu/README.md)
 *
 * Kernels are C functions run by SM threads; they load and store through plain
 * pointers of the program. Every access is translated: a TLB in each SM, then
 * the GPU's page table, then a fault that the driver serves as nouveau does
 * (fault buffer, sort, merge, replay or cancel). A kernel that follows a bad
 * pointer is cancelled; its job ends with an error that names address, access
 * and reason; the process and the other queues live on.
 *
 * With video memory (gpu_options.vram_bytes) private anonymous pages move there: when
 * gpu_migrate() asks, or when the SMs use them enough. They come home when a CPU touches
 * them, when others need the room, and when the GPU is closed.
 *
 *	static void sum(struct gpu_sm *sm, void *arg, uint64_t index) {
 *		struct job *job = arg;	// an argument block; read it through the GPU too
 *		long v = gpu_load_i64(sm, &job->in[index]);
 *		gpu_atomic_add_u64(sm, &job->total, v);
 *	}
 *	gpu_submit(queue, sum, &job, n, &fence);
 *	if (gpu_wait(fence, &error)) fprintf(stderr, "%s\n", error.text);
 */
#ifndef UHMM_GPU_H
#define UHMM_GPU_H

#include <string.h>

#include <uhmm/hmm.h>
#include <uhmm/ptable.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gpu;
struct gpu_queue;
struct gpu_fence;
struct gpu_sm;
struct gpu_hive;

/** enum gpu_access - what a fault wanted */
enum gpu_access { GPU_READ = 0, GPU_WRITE = 1, GPU_ATOMIC = 2, GPU_PREFETCH = 3 };

/* What a policy allows of a page (struct gpu_policy). */
#define GPU_MAY_READ 1u
#define GPU_MAY_WRITE 2u
#define GPU_MAY_PEER 4u	 /* also where it lies in another GPU's video memory */
#define GPU_MAY_DEMAND 8u /* WRITE only for who faults to write; others get READ */
#define GPU_MAY_ATOMIC 16u /* atomics too, where it lies in a GPU's memory; else they fault */
#define GPU_MAY_ATOMIC_SYSTEM 32u /* and where it lies in the system's */

/**
 * struct gpu_policy - somebody who says what a GPU may map, and where it shall lie
 * @size: sizeof(struct gpu_policy)
 * @arg: handed to all
 * @fault: an SM has missed, before the fault is served: bring the page where it belongs. @gone:
 *	there was a translation, but what is behind it has changed. 0: serve it; > 0: try the access
 *	again at once; negative errno: end the job. Context: a thread of the GPU's, no lock
 *	held; may sleep, and call gpu_migrate(), gpu_migrate_home(), gpu_locate() and hmm_*().
 * @may: what of the range may be mapped: GPU_MAY_*, the same for all of [addr, *end); in: *end is
 *	the most that is asked for. Context: the fault handler; takes only locks whose holders
 *	neither sleep nor call the GPU.
 * @home: optional: pages of [start, end), in one 2 MiB block, are about to leave @gpu's memory for
 *	the system's, for whatever reason, or are copied for a forked child; right after this no GPU
 *	has them mapped, and nobody else is told. @room: the GPU is making room, so that is most
 *	likely why. Told again if the engine dies meanwhile. Context: the copy engine, on which a CPU's fault waits: touch only memory of hmm_alloc(), take no lock,
 *	call nobody.
 * @sequence: in memory of hmm_alloc(); raised by the policy when an old answer of @may becomes
 *	wrong, in an invalidate if that is why: what was answered before is not mapped from then
 *	on. What is mapped already goes by gpu_forget(). Read and written by __atomic_*.
 */
struct gpu_policy {
	size_t size;
	void *arg;
	int (*fault)(void *arg, struct gpu *gpu, uintptr_t addr, enum gpu_access access,
		     bool gone);
	unsigned (*may)(void *arg, struct gpu *gpu, uintptr_t addr, uintptr_t *end);
	void (*home)(void *arg, struct gpu *gpu, uintptr_t start, uintptr_t end, bool room);
	const uint64_t *sequence;
};

/**
 * struct gpu_options - how to build a GPU; zero means default
 * @size: sizeof(struct gpu_options)
 * @sms: SM threads (default 2, at most 64)
 * @fault_window: pages served around a fault (default 512, a power of two, at most 512)
 * @verify: stamp each translation with when it was installed, for gpu_stats.stale:
 *	accesses made through a translation that gpu_verify_mark() says is too old
 * @naive: broken on purpose: no fence at submit, no read_retry before an answer is
 *	installed, invalidations only queued and applied later, as a reader does that
 *	releases before it invalidates; for the litmus test that must see stale accesses
 * @log: taker of the library's log lines (hmm_set_log), may be NULL
 * @log_arg: handed to it
 * @vram_bytes: video memory, a multiple of 4096; 0: none
 * @vram_host: the video memory is host memory of the library's: pages move, nobody copies
 * @timeslice_us: a page stays in video memory at least this long (at most 1 s), however
 *	much a CPU wants it
 * @timeout_ms: a copy that takes longer is lost, and the video memory with it; 0: the
 *	library's default
 * @migrate_after: so often must SMs look a 64 KiB block of system memory up anew (TLB
 *	misses) before it moves to video memory by itself, at most 30000; 0: never
 * @no_exclusive: atomics are the CPU's own, on system memory. By default the page of an
 *	atomic is the GPU's alone until a CPU touches it, where the library can do that
 * @three_step: gpu_migrate() copies itself, between the library's three steps
 * @hive: GPUs of one hive reach each other's video memory; implies @no_exclusive
 * @policy: says what may be mapped; copied, what it points to outlives the GPU; implies
 *	@no_exclusive. NULL: everything that the program may use
 */
struct gpu_options {
	size_t size;
	unsigned sms;
	unsigned fault_window;
	bool verify;
	bool naive;
	hmm_log_fn log;
	void *log_arg;
	uint64_t vram_bytes;
	bool vram_host;
	bool no_exclusive;
	bool three_step;
	unsigned timeslice_us;
	unsigned timeout_ms;
	unsigned migrate_after;
	struct gpu_hive *hive;
	const struct gpu_policy *policy;
};

/** GPU_HIVE_MAX - GPUs that a hive sees in its life */
#define GPU_HIVE_MAX 8u
/** gpu_hive_create() - of GPUs that are opened and closed by one thread at a time. NULL: -ENOMEM */
UHMM_API struct gpu_hive *gpu_hive_create(void);
/** gpu_hive_destroy() - all its GPUs are closed; NULL is allowed */
UHMM_API void gpu_hive_destroy(struct gpu_hive *hive);

/**
 * gpu_open() - Return: 0; -EINVAL bad option; as hmm_open(), hmm_notifier_insert(), and
 * with video memory as hmm_devmem_create()
 */
UHMM_API int gpu_open(const struct gpu_options *options, struct gpu **gpu);
/**
 * gpu_close() - waits for jobs, destroys queues that are left; NULL is allowed
 * Everything in video memory comes home first; the process lives on.
 */
UHMM_API void gpu_close(struct gpu *gpu);

/** struct gpu_error - why a job ended */
struct gpu_error {
	int err;		/* negative errno, 0 none */
	uintptr_t addr;		/* the access that failed */
	enum gpu_access access;
	enum hmm_reason reason;
	char text[160];		/* "write of 8 bytes at 0x7f.. : read-only mapping" */
};

/** struct gpu_stats - counted since gpu_open(); TLB figures of SMs that idle */
struct gpu_stats {
	size_t size;
	uint64_t jobs, cancelled;
	uint64_t tlb_hits, tlb_misses; /* misses that the page table served */
	uint64_t faults;	       /* entries that SMs put into the fault buffer */
	uint64_t faults_merged;	       /* served by another's answer */
	uint64_t replays;	       /* once a batch of which something succeeded */
	uint64_t invalidations;	       /* callbacks, HMM_EVENT_FORK included */
	uint64_t shootdowns;	       /* invalidations that found something mapped */
	uint64_t unmirrored;	       /* accesses by copy to what cannot be mirrored */
	uint64_t stale;		       /* verify mode */
	/* Video memory, in pages where nothing else is said. */
	uint64_t vram_frames, vram_used;
	uint64_t to_vram;	     /* moved there */
	uint64_t from_vram;	     /* home by a call: gpu_migrate_home(), eviction, close */
	uint64_t cpu_faults;	     /* faults of a CPU that brought pages home */
	uint64_t evictions;	     /* pages that left because others needed the room */
	uint64_t hot_blocks;	     /* 64 KiB blocks that moved by themselves */
	uint64_t vram_accesses;	     /* TLB fills of pages in video memory */
	uint64_t exclusive;	     /* pages made the GPU's alone, for atomics */
	uint64_t exclusive_returned; /* times that a CPU had one back */
	uint64_t atomic_fallbacks;   /* pages whose atomics stay the CPU's own */
	uint64_t engine_jobs;	     /* transfers that the copy engine ended */
	uint64_t engine_deaths;	     /* times that it died in the middle of one */
};
/** gpu_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void gpu_get_stats(struct gpu *gpu, struct gpu_stats *stats);

/**
 * typedef gpu_kernel - run once for each index below count, by any SM, in any order
 * Its stack has 1 MiB.
 */
typedef void (*gpu_kernel)(struct gpu_sm *sm, void *arg, uint64_t index);

/** gpu_queue_create() - its jobs run one after the other, those of two queues together */
UHMM_API int gpu_queue_create(struct gpu *gpu, struct gpu_queue **queue);
/** gpu_queue_destroy() - waits for its jobs */
UHMM_API void gpu_queue_destroy(struct gpu_queue *queue);

/** gpu_drain() - destroys all queues, as gpu_close() does first; nobody submits any more */
UHMM_API void gpu_drain(struct gpu *gpu);

/**
 * gpu_submit() - start a job
 * @queue: where; @kernel: what; @arg: handed to it; @count: indices
 * @fence: where the job's fence goes; NULL: nobody will wait for it
 *
 * Fences the whole device first (G3): the job sees every change that happened before.
 * count 0 is a job that is done when those before it in the queue are.
 * Context: any thread, not a kernel, not a callback.
 * Return: 0; -EINVAL no kernel; -ENOMEM; -ENODEV the mirror is dead; as
 * hmm_notifier_fence().
 */
UHMM_API int gpu_submit(struct gpu_queue *queue, gpu_kernel kernel, void *arg,
			uint64_t count, struct gpu_fence **fence);

/**
 * gpu_wait() - until the job is done; frees the fence
 * @error: filled in with why it ended; may be NULL
 * Return: 0, or the job's negative errno.
 */
UHMM_API int gpu_wait(struct gpu_fence *fence, struct gpu_error *error);

/**
 * gpu_prefetch() - fault a range before it is used; bad pages are skipped
 * @access: GPU_READ, GPU_WRITE (GPU_ATOMIC is the same), or GPU_PREFETCH: only map
 *	what is present
 * Return: 0; -EOVERFLOW the range wraps; -EBUSY it changes too fast; -ENOMEM; -ENODEV.
 */
UHMM_API int gpu_prefetch(struct gpu *gpu, const void *start, size_t length,
			  enum gpu_access access);

/**
 * gpu_bind() - map what is present in a range, as nouveau's SVM bind does
 * Faults nothing in and moves nothing. Sparse ranges cost what is populated.
 * Return: pages mapped, or negative errno.
 */
UHMM_API int64_t gpu_bind(struct gpu *gpu, const void *start, size_t length);

/**
 * gpu_migrate() - move a range to video memory ahead of use, and map it
 * What cannot move stays where it is. When video memory is full, what was used longest
 * ago leaves; of a range that is larger than it the end remains.
 * Context: any thread, not a kernel, not a callback.
 * Return: pages that were in video memory when their 2 MiB block was done; -EOVERFLOW;
 * -ENODEV no video memory, or the device died; as hmm_migrate_to_device() if nothing
 * could be moved for an error.
 */
UHMM_API int64_t gpu_migrate(struct gpu *gpu, const void *start, size_t length);
/** gpu_migrate_home() - and back; whatever device has it. Return: as hmm_migrate_to_host() */
UHMM_API int64_t gpu_migrate_home(struct gpu *gpu, const void *start, size_t length);

/** GPU_LOCATE_MAX - pages of one gpu_locate() */
#define GPU_LOCATE_MAX 512u
/**
 * gpu_locate() - in whose video memory pages are; the answer may be stale on return
 * @gpu: whose hive is asked; @start: page aligned; @pages: at most GPU_LOCATE_MAX
 * @where: out: for each page its GPU; NULL: somewhere else, or nowhere
 * Context: any thread, a policy's fault too, not a callback.
 * Return: 0; -EINVAL; -EBUSY it changes too fast; as hmm_range_snapshot().
 */
UHMM_API int gpu_locate(struct gpu *gpu, const void *start, unsigned pages,
			struct gpu **where);

/**
 * gpu_forget() - no SM uses a translation of the range any more; the next access faults
 * Context: any thread, not a kernel, not a callback. Return: 0; -EOVERFLOW; -ENODEV.
 */
UHMM_API int gpu_forget(struct gpu *gpu, const void *start, size_t length);

/**
 * gpu_quiesce() - queues stop: SMs rest at their next access or index, until gpu_resume()
 * It does not wait for them. Context: any thread, any callback. A job that rests is not done,
 * and keeps gpu_close() waiting.
 */
UHMM_API void gpu_quiesce(struct gpu *gpu);
UHMM_API void gpu_resume(struct gpu *gpu);

/**
 * gpu_peek() - read a page in the GPU's own memory where it lies; it stays there
 * @addr: an address in the page; @page: 4096 bytes
 * Return: 0; -ENOENT the GPU has no translation into its own memory there; -ENODEV.
 */
UHMM_API int gpu_peek(struct gpu *gpu, const void *addr, void *page);

/**
 * gpu_set_unmanaged() - a hole of the address space that is the device's own
 * Accesses there fail with HMM_REASON_NO_MAPPING and nothing is mirrored
 * (nouveau: svmm->unmanaged). One at most; length 0 takes it back.
 * Return: 0; -EINVAL not page aligned; -EOVERFLOW it wraps.
 */
UHMM_API int gpu_set_unmanaged(struct gpu *gpu, uintptr_t start, size_t length);

/**
 * gpu_lookup() - the page's translation as it is now (HMM_PFN_*), 0 if none; no fence
 * HMM_PFN_DEVICE: it is in the GPU's own memory (exclusive pages too).
 */
UHMM_API uint64_t gpu_lookup(const struct gpu *gpu, const void *addr);

/** gpu_read() / gpu_write() - a job of one copy, waited for; return as gpu_wait() */
UHMM_API int gpu_read(struct gpu_queue *queue, void *dst, const void *src, size_t length);
UHMM_API int gpu_write(struct gpu_queue *queue, void *dst, const void *src, size_t length);

/**
 * gpu_verify_now() - the clock of verify mode; it ticks at installs, submits and marks
 */
UHMM_API uint64_t gpu_verify_now(struct gpu *gpu);

/**
 * gpu_verify_mark_since() - "a range changed, between @since and now"
 * @gpu: in verify mode; without it nothing is done
 * @start: first byte; @length: bytes
 * @since: gpu_verify_now() from before the change's system call
 *
 * Called after that call has returned. From then on an access is counted as stale if
 * its job was submitted after the mark and the translation it used was installed before
 * @since. So jobs may run before, under and after the change: what was installed while
 * the call ran may be old or new and is not judged, nor are jobs submitted before
 * the mark (mprotect does not wait for the device; the other changes wait until their
 * message is read, not until a running job is off). A count is never too high. It
 * can be too low where a page is marked twice while a job from before both runs.
 * Context: any thread, not a kernel, not a callback.
 */
UHMM_API void gpu_verify_mark_since(struct gpu *gpu, const void *start, size_t length,
				    uint64_t since);

/**
 * gpu_verify_mark() - "from now on, an older translation of this range is stale"
 * The same with @since = now, for changes under which no job ran: a job that did may
 * have translated what is new before the mark, and would be counted for it.
 */
UHMM_API void gpu_verify_mark(struct gpu *gpu, const void *start, size_t length);

/* ---- hooks for tests: a device that fails ---- */

/** enum gpu_engine_step - where in a transfer the copy engine's thread ends */
enum gpu_engine_step {
	GPU_ENGINE_TAKEN = 1,	/* it has taken the transfer and done nothing yet */
	GPU_ENGINE_STOPPED = 2, /* homewards: the SMs have stopped using the frames */
	GPU_ENGINE_HALF = 3,	/* half of the pages are copied */
	GPU_ENGINE_COPIED = 4,	/* all are, and nobody has been told */
};
/**
 * gpu_engine_kill() - the engine's thread ends the next time that it gets to @step
 * Another takes over and does the transfer again from the start. Waits first until an
 * earlier kill has happened. Return: 0; -EINVAL; -EAGAIN no thread could be started;
 * -ENODEV a forked child.
 */
UHMM_API int gpu_engine_kill(struct gpu *gpu, enum gpu_engine_step step);
/** gpu_engine_stall() - each transfer takes at least this long, from the next one on */
UHMM_API void gpu_engine_stall(struct gpu *gpu, unsigned ms);
/**
 * gpu_engine_break() - the next @pages pages that shall come home cannot be read
 * They are lost: a CPU that touches one gets SIGBUS. Not with vram_host.
 */
UHMM_API void gpu_engine_break(struct gpu *gpu, unsigned pages);
/**
 * gpu_die() - the device is gone for good, and its memory with it
 * Jobs end and are refused with -ENODEV; what was in video memory raises SIGBUS when a
 * CPU touches it. gpu_close() is still needed. Context: any thread, not a kernel.
 */
UHMM_API void gpu_die(struct gpu *gpu);

/* ---- the TLB of an SM, here so that a hit is inline ---- */

/** GPU_TLB_ENTRIES - direct mapped, by the low bits of the page number */
#define GPU_TLB_ENTRIES 1024u
/** GPU_TLB_NONE - the page number of an empty slot; no address has it */
#define GPU_TLB_NONE UINTPTR_MAX

struct gpu_tlb_slot {
	uintptr_t page; /* address / 4096, or GPU_TLB_NONE */
	uint64_t entry; /* HMM_PFN_* of that page */
};

/**
 * struct gpu_tlb - translations of 4 KiB pages
 * Law: only the SM that owns it puts entries in; everybody else may only empty
 * slots. So the owner never sees half an entry, and no order is needed.
 */
struct gpu_tlb {
	struct gpu_tlb_slot slot[GPU_TLB_ENTRIES];
};

static inline struct gpu_tlb_slot *gpu_tlb_at(struct gpu_tlb *tlb, uintptr_t page)
{
	return &tlb->slot[page & (GPU_TLB_ENTRIES - 1)];
}

/** gpu_tlb_lookup() - the entry of an address if it has any bit of @need, else 0 */
static inline uint64_t gpu_tlb_lookup(struct gpu_tlb *tlb, uintptr_t addr, uint64_t need)
{
	uintptr_t page = addr >> UHMM_PTABLE_PAGE_SHIFT;
	struct gpu_tlb_slot *slot = gpu_tlb_at(tlb, page);
	uint64_t entry;

	if (__builtin_expect(__atomic_load_n(&slot->page, __ATOMIC_RELAXED) != page, 0))
		return 0;
	entry = __atomic_load_n(&slot->entry, __ATOMIC_RELAXED);
	return entry & need ? entry : 0;
}

/** gpu_tlb_fill() - put an entry in; the owner only */
static inline void gpu_tlb_fill(struct gpu_tlb *tlb, uintptr_t addr, uint64_t entry)
{
	uintptr_t page = addr >> UHMM_PTABLE_PAGE_SHIFT;
	struct gpu_tlb_slot *slot = gpu_tlb_at(tlb, page);

	__atomic_store_n(&slot->entry, entry, __ATOMIC_RELAXED);
	__atomic_store_n(&slot->page, page, __ATOMIC_RELAXED);
}

/* ---- inside a kernel ---- */

/** gpu_fail() - end this job from inside a kernel with an errno; does not return */
UHMM_API void gpu_fail(struct gpu_sm *sm, int err) __attribute__((noreturn));

/*
 * The accesses below translate inline (TLB) and touch memory by the library's
 * fault-safe copy. They do not return if the address is bad: the job is cancelled.
 * Kernels hold no lock and own no memory across an access.
 */
UHMM_API void gpu_load(struct gpu_sm *sm, void *dst, const void *src, size_t length);
UHMM_API void gpu_store(struct gpu_sm *sm, void *dst, const void *src, size_t length);
UHMM_API void gpu_copy(struct gpu_sm *sm, void *dst, const void *src, size_t length);
UHMM_API uint64_t gpu_atomic_add_u64(struct gpu_sm *sm, void *addr, uint64_t operand);
UHMM_API uint32_t gpu_atomic_add_u32(struct gpu_sm *sm, void *addr, uint32_t operand);

#define GPU_ACCESSORS(type, name)                                                       \
	static inline type gpu_load_##name(struct gpu_sm *sm, const type *addr)         \
	{                                                                               \
		type value;                                                             \
		gpu_load(sm, &value, addr, sizeof(value));                              \
		return value;                                                           \
	}                                                                               \
	static inline void gpu_store_##name(struct gpu_sm *sm, type *addr, type value)  \
	{                                                                               \
		gpu_store(sm, addr, &value, sizeof(value));                             \
	}
GPU_ACCESSORS(uint8_t, u8)
GPU_ACCESSORS(uint32_t, u32)
GPU_ACCESSORS(uint64_t, u64)
GPU_ACCESSORS(int32_t, i32)
GPU_ACCESSORS(int64_t, i64)
GPU_ACCESSORS(float, f32)
GPU_ACCESSORS(double, f64)
#undef GPU_ACCESSORS

static inline void *gpu_load_ptr(struct gpu_sm *sm, const void *addr)
{
	void *value;
	gpu_load(sm, &value, addr, sizeof(value));
	return value;
}

#ifdef __cplusplus
}
#endif
#endif /* UHMM_GPU_H */
