/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: uhmm - Heterogeneous Memory Management for devices driven from user space
 *
 * A device here is anything that keeps translations of a process's addresses:
 * a page table of its own, a TLB, a memory registration, a pinned DMA window.
 * The library tells its driver, before a stale translation can be used, that
 * the address space changed; and it makes ranges present and reports how the
 * device may use them. The names and the calling protocol are the kernel's
 * (mm/hmm.c, mm/mmu_notifier.c); what differs is said at each entry.
 *
 * The one loop that every driver runs (hmm_range_program() is that loop):
 *
 *	again:
 *		hmm_notifier_read_begin(&range);	// includes a fence
 *		hmm_range_fault(&range);		// or hmm_range_snapshot()
 *		lock(driver);				// the lock invalidate takes
 *		if (hmm_notifier_read_retry(&range)) { unlock(driver); goto again; }
 *		program the device from range.pfns;
 *		unlock(driver);
 *
 * Guarantees (docs/guarantees.md names the test of each):
 *
 * G1  On return of a fence every change made by a thread of this process,
 *     whose system call let go of the address space before the fence was
 *     called, has been delivered to every notifier that it overlaps.
 * G2  Between a read_begin and a read_retry that says "valid", under the
 *     driver's lock, no change that happened before the first is missing from
 *     what the driver installs.
 * G3  Submitting work to a device includes a fence of what it has mapped.
 * G4  When invalidate() returns, the device uses no translation of the range.
 * G5  A page has one owner; no failure of a migration or a device loses a byte.
 *
 * Addresses: "end" is exclusive. The whole address space is [0, UINTPTR_MAX).
 * Errors: negative errno from every call; outputs are untouched on failure
 * unless said otherwise. hmm_strerror() has the sentence that names the cure.
 * Structs begin with their size and grow at the end.
 *
 * Context: "any thread" excludes signal handlers, everywhere. Where a call may
 * be made from inside a callback (invalidate, release) that is said; all the
 * others answer -EDEADLK there, because they would wait for the very thread
 * that runs the callback.
 *
 * fork(): a child inherits no mirror. In the child every call on a handle of
 * the parent answers -ENODEV and touches nothing; hmm_open() gives it its own.
 */
#ifndef UHMM_HMM_H
#define UHMM_HMM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define UHMM_API __attribute__((visibility("default")))
#else
#define UHMM_API
#endif

struct hmm;
struct hmm_notifier;

/* ------------------------------------------------------------------ hmm */

/**
 * hmm_open() - the mirror of this process's address space
 * @hmm: where the handle goes
 *
 * There is one struct hmm for each process, however many devices it has: a
 * second call takes a reference on the first. The first call starts two
 * threads (reader and worker; the first devmem one more), opens a few userfaultfd contexts and a perf
 * ring for each CPU, and puts a SIGSEGV and SIGBUS handler in front of the
 * program's own. Nothing is mirrored until a device faults on it.
 *
 * Context: any thread; sleeps. Locks: none held that a callback takes.
 * Return: 0; -EPERM, -ENOSYS userfaultfd is blocked or absent; -EOPNOTSUPP the
 * kernel is older than 6.7; -ENOMEM; -EMFILE; -EAGAIN no thread could start;
 * -EDEADLK inside a callback. hmm_strerror() then says which, and the cure.
 * Kernel counterpart: hmm_get_or_create() (2019), mmgrab().
 */
UHMM_API int hmm_open(struct hmm **hmm);

/**
 * hmm_attach() - another process's address space, to look at
 * @pid: the process; must be one this process may ptrace
 * @hmm: where the handle goes
 *
 * Only hmm_range_snapshot() without a notifier, hmm_snapshot_runs() and
 * hmm_copy_from(), hmm_copy_to() work on it: no change of another process is
 * reported to us, so there is nothing a notifier could be told, and what is
 * read may be stale at once. The others answer -EOPNOTSUPP.
 *
 * Context: any thread.
 * Return: 0; -ESRCH no such process; -EPERM, -EACCES it may not be looked at;
 * -ENOMEM. Drop it with hmm_put().
 */
UHMM_API int hmm_attach(pid_t pid, struct hmm **hmm);

/**
 * hmm_get() - one more reference
 * @hmm: a handle; NULL is passed through
 *
 * Context: any thread, any callback. Return: @hmm.
 */
UHMM_API struct hmm *hmm_get(struct hmm *hmm);

/**
 * hmm_put() - drop a reference; the last one ends the mirror
 * @hmm: a handle, or NULL
 *
 * The last put waits until every change seen so far has been delivered, takes
 * every registration back and stops the threads. Notifiers hold a reference,
 * so none is left by then. It never fails. In a forked child it only forgets.
 *
 * Context: any thread; sleeps when it is the last. Inside a callback it must
 * not be the last (a notifier that is being called holds a reference, so it is
 * not unless the caller dropped one too many).
 */
UHMM_API void hmm_put(struct hmm *hmm);

/**
 * hmm_strerror() - what an error of this library means here, and the cure
 * @err: what a call returned, negative or positive errno
 *
 * If the calling thread's last failing call of this library gave that very
 * error and left a sentence about it, that sentence; else the general one.
 *
 * Context: any thread. Return: text owned by the library, good until the
 * thread's next call.
 */
UHMM_API const char *hmm_strerror(int err);

/** enum hmm_log_level - how loud a line is */
enum hmm_log_level {
	HMM_LOG_ERROR = 1, /* the mirror or a device is lost */
	HMM_LOG_WARN = 2,  /* it works, but dearer or with less than asked */
	HMM_LOG_INFO = 3,  /* what was found and chosen, once */
	HMM_LOG_DEBUG = 4, /* each event */
};

/**
 * typedef hmm_log_fn - where log lines go
 * @arg: as given to hmm_set_log()
 * @level: how loud
 * @line: one line, without newline; dead after return
 *
 * Context: any thread of the library but the reader; must not call into it.
 */
typedef void (*hmm_log_fn)(void *arg, enum hmm_log_level level, const char *line);

/**
 * hmm_set_log() - take the library's log lines
 * @fn: the taker; NULL: back to stderr, as UHMM_LOG says
 * @arg: handed to @fn
 *
 * By default the library is silent. The environment variable UHMM_LOG
 * (error, warn, info, debug) sends lines up to that level to stderr; with a
 * taker, lines up to UHMM_LOG (default: warn) go to it instead. Another thread
 * may still be inside the old taker when this returns: keep its @arg.
 *
 * Context: any thread; not inside @fn.
 */
UHMM_API void hmm_set_log(hmm_log_fn fn, void *arg);

/**
 * hmm_log() - a driver's line in the same log
 * @level: how loud
 * @fmt: printf format
 *
 * Context: any thread but one inside a hmm_log_fn; does not allocate.
 */
UHMM_API void hmm_log(enum hmm_log_level level, const char *fmt, ...)
#if defined(__GNUC__)
	__attribute__((format(printf, 2, 3)))
#endif
	;

/**
 * hmm_fence() - wait until what has happened to a range has been delivered
 * @hmm: own mirror
 * @start: first address
 * @length: bytes; 0 is nothing
 *
 * G1. Costs one system call for each userfaultfd context that the range is
 * registered with (usually one), none where no device has faulted yet. While
 * changes of the same context never pause, the fence does not wait for ever: it
 * delivers a HMM_EVENT_CLEAR of what it was asked for instead.
 *
 * Context: any thread, not inside a callback; may sleep. Locks: none that a
 * callback takes.
 * Return: 0; -EOVERFLOW the range wraps; -ENODEV the mirror is dead, or this
 * is a forked child; -EOPNOTSUPP an attached process; -EDEADLK.
 */
UHMM_API int hmm_fence(struct hmm *hmm, uintptr_t start, size_t length);

/**
 * hmm_try_fence() - hmm_fence() for those who may not wait
 * @hmm: own mirror
 * @start: first address
 * @length: bytes; 0 is nothing
 *
 * The same looks, and 0 means the same (G1). Where hmm_fence() would wait this says so: for a
 * caller that holds a lock which an invalidate callback takes, and for an event loop.
 *
 * Context: any thread, any callback. Locks: any, those that callbacks take included.
 * Return: 0; -EAGAIN something has changed and is not delivered yet; as hmm_fence() but -EDEADLK.
 */
UHMM_API int hmm_try_fence(struct hmm *hmm, uintptr_t start, size_t length);

/* ------------------------------------------------------------- notifier */

/**
 * enum hmm_event_kind - what happened to a range
 * The kernel's mmu_notifier_event (hmm-reference B9) as far as it can be seen.
 */
enum hmm_event_kind {
	HMM_EVENT_UNMAP = 0,	  /* munmap, MAP_FIXED over it, mremap's source: gone.
				   * Said too when the call then failed. */
	HMM_EVENT_CLEAR = 1,	  /* madvise DONTNEED, FREE, REMOVE; or "look again" */
	HMM_EVENT_PROTECTION = 2, /* mprotect, or mapped anew: permission may differ */
	HMM_EVENT_REMAP = 3,	  /* mremap moved it: told for source and destination */
	HMM_EVENT_FORK = 4,	  /* pages may now be shared copy-on-write with a child;
				   * what an address reads is unchanged. Whole space. */
	HMM_EVENT_RELEASE = 5,	  /* the mirror is dead: whole space, followed by release() */
	HMM_EVENT_MIGRATE = 6,	  /* pages are about to move to the device of @owner, which
				   * may ignore it if it forgets system pages otherwise */
};

/**
 * struct hmm_event - one change, as a notifier is told
 * @size: sizeof(struct hmm_event) as the library knows it
 * @kind: what happened
 * @start: first address, page aligned
 * @end: past the last; may reach beyond the notifier's own range
 * @peer: REMAP: where the other end starts; else 0
 * @to_peer: REMAP: true when [start, end) is the source, @peer the destination
 * @owner: MIGRATE: owner of the devmem that the pages move to; else NULL
 *
 * Events of one context may arrive out of order (a REMAP after the UNMAP of
 * its destination): treat each as "forget what you have of this range".
 */
struct hmm_event {
	size_t size;
	enum hmm_event_kind kind;
	uintptr_t start, end;
	uintptr_t peer;
	bool to_peer;
	void *owner;
};

/**
 * struct hmm_notifier_ops - what a driver does when its range changes
 * @size: sizeof(struct hmm_notifier_ops)
 * @invalidate: required. When it returns the device uses no translation of
 *	[event->start, event->end) any more (G4). It takes the lock under which
 *	the driver asks hmm_notifier_read_retry(). It may sleep, malloc, free,
 *	mmap, munmap, fork, and insert or remove notifiers (itself too); it may
 *	not wait for anything that waits for a fence.
 * @release: optional. The mirror is dead (its descriptors were taken away):
 *	stop using the address space altogether; called once, after an
 *	invalidate of everything. Not called at exit().
 *
 * Context: the library's worker thread, one call at a time for all notifiers.
 * The kernel's non-blockable invalidate has no counterpart: nobody waits for
 * ours with a lock held.
 */
struct hmm_notifier_ops {
	size_t size;
	void (*invalidate)(void *priv, const struct hmm_event *event);
	void (*release)(void *priv);
};

/**
 * hmm_notifier_insert() - be told of changes of a range
 * @hmm: own mirror; the notifier takes a reference
 * @start: first address
 * @length: bytes; from 0 with UINTPTR_MAX: the whole address space
 * @ops: must outlive the notifier
 * @priv: handed to the callbacks
 * @notifier: where the handle goes
 *
 * Told are changes of what some device has faulted or snapshot through a
 * notifier; elsewhere there is nothing to invalidate. The cost of an event
 * grows with the logarithm of the number of notifiers.
 *
 * Context: any thread, any callback.
 * Return: 0; -EOVERFLOW length 0 or wrap; -EINVAL no invalidate; -E2BIG
 * @ops->size is from a newer header and the rest is not zero; -ENOMEM;
 * -ENODEV; -EOPNOTSUPP an attached process.
 * Kernel counterpart: mmu_interval_notifier_insert().
 */
UHMM_API int hmm_notifier_insert(struct hmm *hmm, uintptr_t start, size_t length,
				 const struct hmm_notifier_ops *ops, void *priv,
				 struct hmm_notifier **notifier);

/**
 * hmm_notifier_remove() - be told no more
 * @notifier: dead on return; NULL is allowed
 *
 * Waits until a callback of it that is running has returned; inside its own
 * callback it does not wait, and that call is the last. What no notifier
 * covers any more is taken out of the mirror.
 *
 * Context: any thread, any callback; sleeps. Locks: none that the callback
 * takes, outside callbacks.
 * Kernel counterpart: mmu_interval_notifier_remove().
 */
UHMM_API void hmm_notifier_remove(struct hmm_notifier *notifier);

/**
 * hmm_notifier_fence() - hmm_fence() of all that a device may have mapped
 * @notifier: its range is what is asked
 *
 * For submitting work (G3). One system call for each context in use (at most
 * eight), however large the range. Context, return: as hmm_fence().
 */
UHMM_API int hmm_notifier_fence(struct hmm_notifier *notifier);

/* ---------------------------------------------------------------- range */

/* An entry of hmm_range.pfns, in and out (hmm-reference B1, 2.1). */
#define HMM_PFN_VALID (UINT64_C(1) << 63)      /* readable by the device */
#define HMM_PFN_WRITE (UINT64_C(1) << 62)      /* writable too */
#define HMM_PFN_ERROR (UINT64_C(1) << 61)      /* a fault here would fail */
#define HMM_PFN_DMA_MAPPED (UINT64_C(1) << 60) /* kept from input to output */
#define HMM_PFN_ORDER_SHIFT 53		       /* 57..53: log2 of the CPU mapping's pages */
#define HMM_PFN_ORDER_MASK (UINT64_C(31) << HMM_PFN_ORDER_SHIFT)
#define HMM_PFN_KIND_SHIFT 51 /* 52..51: what the number below counts */
#define HMM_PFN_KIND_MASK (UINT64_C(3) << HMM_PFN_KIND_SHIFT)
#define HMM_PFN_SYSTEM (UINT64_C(0) << HMM_PFN_KIND_SHIFT) /* virtual page number */
#define HMM_PFN_DEVICE (UINT64_C(1) << HMM_PFN_KIND_SHIFT) /* frame of a devmem */
#define HMM_PFN_DAX (UINT64_C(2) << HMM_PFN_KIND_SHIFT)	   /* as system; memory of a DAX file */
#define HMM_PFN_NUMBER_MASK ((UINT64_C(1) << HMM_PFN_KIND_SHIFT) - 1)

/* HMM_PFN_DEVICE: the number is the frame, and above it which devmem. */
#define HMM_PFN_DEVMEM_SHIFT 44
#define HMM_PFN_FRAME_MASK ((UINT64_C(1) << HMM_PFN_DEVMEM_SHIFT) - 1)

/* Requests, in default_flags or an entry. */
#define HMM_PFN_REQ_FAULT HMM_PFN_VALID /* make it readable */
#define HMM_PFN_REQ_WRITE HMM_PFN_WRITE /* and writable; with REQ_FAULT only */

/** hmm_pfn_order() - log2 of the pages that the CPU maps as one block here */
static inline unsigned hmm_pfn_order(uint64_t entry)
{
	return (unsigned)((entry & HMM_PFN_ORDER_MASK) >> HMM_PFN_ORDER_SHIFT);
}

/** hmm_pfn_number() - the page number: for system memory, address / 4096 */
static inline uint64_t hmm_pfn_number(uint64_t entry)
{
	return entry & HMM_PFN_NUMBER_MASK;
}

/** hmm_pfn_is_device() - a valid entry of device memory? */
static inline bool hmm_pfn_is_device(uint64_t entry)
{
	return (entry & HMM_PFN_VALID) && (entry & HMM_PFN_KIND_MASK) == HMM_PFN_DEVICE;
}

/** hmm_pfn_frame() - HMM_PFN_DEVICE: the frame in its devmem */
static inline uint64_t hmm_pfn_frame(uint64_t entry)
{
	return entry & HMM_PFN_FRAME_MASK;
}

/** hmm_pfn_devmem() - HMM_PFN_DEVICE: hmm_devmem_id() of the devmem */
static inline unsigned hmm_pfn_devmem(uint64_t entry)
{
	return (unsigned)(hmm_pfn_number(entry) >> HMM_PFN_DEVMEM_SHIFT);
}

/** enum hmm_reason - why a device cannot have a page, for its error message */
enum hmm_reason {
	HMM_REASON_NONE = 0,
	HMM_REASON_NO_MAPPING = 1,	 /* nothing is mapped there: -EFAULT */
	HMM_REASON_PROT_NONE = 2,	 /* mapped without read permission: -EFAULT */
	HMM_REASON_READ_ONLY = 3,	 /* a write to a read-only mapping: -EPERM */
	HMM_REASON_PAST_EOF = 4,	 /* past the end of the mapped file: -EFAULT */
	HMM_REASON_GUARD_OR_POISON = 5,	 /* a guard page or broken memory: -EFAULT */
	HMM_REASON_SPECIAL = 6,		 /* device memory mapping (VM_IO, VM_PFNMAP): -EFAULT */
	HMM_REASON_NOT_MIRRORABLE = 7,	 /* another userfaultfd has it, or the library's own
					  * memory: -EOPNOTSUPP, use hmm_copy_*() */
	HMM_REASON_DEVICE_LOST = 8,	 /* it was on a device that died: -EFAULT, and the
					  * CPU gets SIGBUS there */
};

/** hmm_reason_text() - a reason in words: "no mapping", "PROT_NONE", ... */
UHMM_API const char *hmm_reason_text(enum hmm_reason reason);

/**
 * struct hmm_range - a request about a range, and its answer
 * @size: sizeof(struct hmm_range)
 * @hmm: whose memory
 * @notifier: covers the range and watches it; NULL: a look only, nothing is
 *	registered for events and read_begin and read_retry make no sense
 * @notifier_seq: set by hmm_notifier_read_begin()
 * @start: first address, page aligned
 * @end: past the last, page aligned
 * @pfns: one entry a page; in: requests and sticky bits, out: the answer
 * @default_flags: request for every page
 * @pfn_flags_mask: which bits of an input entry are a request too:
 *	request = (entry & pfn_flags_mask) | default_flags (hmm-reference B4)
 * @fault_addr: out, on -EFAULT, -EPERM, -EOPNOTSUPP: the page that failed
 * @fault_reason: out, likewise: why
 * @owner: with a notifier: whose device memory is answered as HMM_PFN_DEVICE; pages of any
 *	other devmem come home when they are requested, and are 0 in a snapshot. NULL: all of them
 * @migrate_seq: set by hmm_notifier_read_begin()
 */
struct hmm_range {
	size_t size;
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	uint64_t notifier_seq;
	uintptr_t start, end;
	uint64_t *pfns;
	uint64_t default_flags;
	uint64_t pfn_flags_mask;
	uintptr_t fault_addr;
	enum hmm_reason fault_reason;
	void *owner;
	uint64_t migrate_seq;
};

/**
 * hmm_notifier_read_begin() - open a read side section
 * @range: notifier, start and end are set
 *
 * Fences the range and notes the notifier's sequence. G2.
 * Context, return: as hmm_fence(); -EINVAL no notifier, or it does not cover
 * the range.
 * Kernel counterpart: mmu_interval_read_begin().
 */
UHMM_API int hmm_notifier_read_begin(struct hmm_range *range);

/**
 * hmm_notifier_read_retry() - has the range changed since read_begin?
 * @range: as given to read_begin
 *
 * Exact by range: changes elsewhere under a large notifier do not count (until
 * more of them come in between than the notifier remembers, at least 8, for
 * notifiers of 1 GiB or more 1024).
 *
 * Context: any thread, any callback. Locks: the driver's update lock, which
 * invalidate takes; without it the answer is a hint.
 * Return: true: discard and begin again.
 * Kernel counterpart: mmu_interval_read_retry().
 */
UHMM_API bool hmm_notifier_read_retry(const struct hmm_range *range);

/**
 * hmm_range_snapshot() - report what is present, fault nothing in
 * @range: entries are answers only; requests are ignored
 *
 * VALID for what is present, with WRITE where the device may store without
 * asking again (private pages of the process's own; not the zero page, not a
 * page of a file or of shared memory, which get WRITE by a write fault); 0 for
 * what a fault would bring, swap included; ERROR for what a fault would refuse
 * (hole, PROT_NONE, special). docs/api.md has the table by kind of memory. With
 * a notifier the VMAs are registered, so the answer may be programmed after
 * read_retry; without one it is a look, stale on return.
 *
 * Context: any thread, not inside a callback. Locks: none that a callback takes.
 * Return: 0; -EINVAL the range is empty or unaligned; -EBUSY the sequence is
 * stale, or one mapping after the other takes a place: begin again; -ENOMEM;
 * -ENODEV; -EDEADLK.
 * Kernel counterpart: hmm_range_fault() without a request; hmm_range_snapshot() (2019).
 */
UHMM_API int hmm_range_snapshot(struct hmm_range *range);

/**
 * hmm_range_fault() - make pages present and report how the device may use them
 * @range: requests by default_flags, pfn_flags_mask and pfns
 *
 * Pages without a request are reported as a snapshot would. The answer may be
 * stale on return: use it only after hmm_notifier_read_retry(), under the
 * driver's update lock, has said it is not. On failure entries at and past
 * range->fault_addr keep their input. "No mapping" is said where the program had
 * none at some moment of the call, never of a mapping that another one replaces.
 *
 * Context: any thread, not inside a callback; sleeps. Locks: none that a
 * callback takes.
 * Return: 0; -EINVAL the range is empty, unaligned or WRITE is asked without
 * FAULT; -EBUSY the sequence is stale, or one mapping after the other takes a
 * place: begin again; -EFAULT no mapping, PROT_NONE, past end of file, guard
 * page, special; -EPERM write asked of a read-only mapping; -EOPNOTSUPP it
 * cannot be mirrored (hmm_copy_from() and hmm_copy_to() still work); -ENOMEM;
 * -ENODEV; -EDEADLK.
 * Kernel counterpart: hmm_range_fault(), mm/hmm.c.
 */
UHMM_API int hmm_range_fault(struct hmm_range *range);

/** HMM_RANGE_DEFAULT_TIMEOUT - ms, for hmm_range_program() (2019: the same) */
#define HMM_RANGE_DEFAULT_TIMEOUT 1000

/**
 * typedef hmm_program_fn - put an answer into the device's page table
 * @range: whose pfns are valid as long as the update lock is held
 * @arg: as given
 *
 * Context: the caller of hmm_range_program(), update lock held; must not sleep
 * for anything that waits for a fence. Return: 0 or what program shall return.
 */
typedef int (*hmm_program_fn)(const struct hmm_range *range, void *arg);

/**
 * hmm_range_program() - the driver's loop, once and for all
 * @range: as for hmm_range_fault(); without any request it is a snapshot
 * @timeout_ms: give up retrying after this; 0: HMM_RANGE_DEFAULT_TIMEOUT
 * @update_lock: the driver's lock, which its invalidate takes
 * @program: called under the lock with an answer that is not stale
 * @arg: handed to @program
 *
 * read_begin, fault, lock, read_retry, program, unlock; from the start as long
 * as it is stale. On failure range->pfns is as it was.
 *
 * Context: as hmm_range_fault(). Locks: @update_lock not held.
 * Return: what @program returned; -EBUSY the time is up; as hmm_range_fault().
 * Kernel counterpart: the loop of hmm-reference A13 and B5, in every driver.
 */
UHMM_API int hmm_range_program(struct hmm_range *range, unsigned timeout_ms,
			       pthread_mutex_t *update_lock, hmm_program_fn program,
			       void *arg);

/** enum hmm_vma_kind - what a mapping is */
enum hmm_vma_kind {
	HMM_VMA_HOLE = 0,    /* nothing */
	HMM_VMA_ANON = 1,    /* private anonymous */
	HMM_VMA_HEAP = 2,    /* the same, grown by brk */
	HMM_VMA_STACK = 3,   /* the main thread's stack */
	HMM_VMA_FILE = 4,    /* a file */
	HMM_VMA_SHMEM = 5,   /* shared anonymous, memfd, tmpfs by its own mount name, SysV */
	HMM_VMA_HUGETLB = 6, /* hugetlb pages */
	HMM_VMA_SPECIAL = 7, /* vdso, vvar, device memory */
};

/** hmm_vma_kind_text() - "anon", "file", ... */
UHMM_API const char *hmm_vma_kind_text(enum hmm_vma_kind kind);

#define HMM_RUN_VALID (1u << 0)	   /* present */
#define HMM_RUN_SWAPPED (1u << 1)  /* not present, content in swap */
#define HMM_RUN_ZERO (1u << 2)	   /* the shared zero page */
#define HMM_RUN_FILE (1u << 3)	   /* page cache or shmem */
#define HMM_RUN_HUGE (1u << 4)	   /* mapped by a huge entry */
#define HMM_RUN_DAX (1u << 5)	   /* a file on a DAX filesystem */
#define HMM_RUN_SHARED (1u << 6)   /* MAP_SHARED */
#define HMM_RUN_READ (1u << 7)	   /* permissions of the mapping */
#define HMM_RUN_WRITE (1u << 8)
#define HMM_RUN_EXEC (1u << 9)

/**
 * struct hmm_run - pages in a row that look the same
 * @size: sizeof(struct hmm_run) as the library knows it
 * @start: first address
 * @end: past the last
 * @kind: of the mapping
 * @flags: HMM_RUN_*
 * @order: log2 of the pages mapped as one; 0 unless HUGE
 * @name: file or "[heap]"; "" if none; dead after the callback
 */
struct hmm_run {
	size_t size;
	uintptr_t start, end;
	enum hmm_vma_kind kind;
	unsigned flags;
	unsigned order;
	const char *name;
};

/** typedef hmm_run_fn - takes a run; non-zero stops and is returned */
typedef int (*hmm_run_fn)(const struct hmm_run *run, void *arg);

/**
 * hmm_snapshot_runs() - what is mapped and present, coalesced
 * @hmm: own mirror or an attached process
 * @start: first address, page aligned
 * @end: past the last; UINTPTR_MAX for all
 * @flags: 0, or HMM_RUN_VALID: only runs that are present or in swap. Then the
 *	cost follows what is populated, not what is mapped (1 TiB is fine).
 * @fn: called for each run in ascending order, holes between mappings excluded
 * @arg: handed to @fn
 *
 * A look: nothing is registered, and it may be stale on return.
 * Context: any thread, not inside a callback; no lock of ours is held in @fn.
 * Return: 0, what @fn returned, -EINVAL unaligned or unknown flag, -ENODEV, -ESRCH the
 * attached process is gone, -EBUSY one mapping after the other takes a place, -ENOMEM.
 */
UHMM_API int hmm_snapshot_runs(struct hmm *hmm, uintptr_t start, uintptr_t end,
			       unsigned flags, hmm_run_fn fn, void *arg);

/* ----------------------------------------------------------------- copy */

/**
 * hmm_copy_from() - read memory as a device would; a bad address is an error
 * @hmm: own mirror or an attached process
 * @dst: the caller's buffer; bytes before a failing one may have been written
 * @src: any address
 * @length: bytes
 *
 * An aligned access of 1, 2, 4 or 8 bytes in own memory is one access, not
 * torn. Any memory will do, mirrored or not. Inside hmm_access_begin() it costs
 * a few ns and no system call; outside, short ones cost one.
 *
 * Context: any thread, any callback. Return: 0; -EFAULT; -ENODEV; -ESRCH.
 */
UHMM_API int hmm_copy_from(struct hmm *hmm, void *dst, uintptr_t src, size_t length);

/**
 * hmm_copy_to() - write memory as a device would
 * @hmm: own mirror or an attached process
 * @dst: any address; bytes before a failing one may have been written
 * @src: the caller's buffer
 * @length: bytes
 *
 * Permissions of the mapping hold (-EFAULT on a read-only one), but not those
 * that a device's page table has: the driver checks them first.
 * Context, return: as hmm_copy_from().
 */
UHMM_API int hmm_copy_to(struct hmm *hmm, uintptr_t dst, const void *src, size_t length);

/**
 * hmm_access_begin() - this thread is a device now: make its copies fast
 * @hmm: own mirror
 *
 * From here to hmm_access_end() hmm_copy_*() and hmm_access_add() of the
 * calling thread use plain instructions that are recovered by our SIGSEGV and
 * SIGBUS handlers. It unblocks both signals for the thread (and puts its mask
 * back), and puts our handlers in front again if the program has replaced them. A program
 * that replaces its handlers while a scope is open and does not chain gets our
 * recoverable faults (docs/limits.md); close scopes when a job ends. They nest.
 *
 * Context: any thread but callbacks. Return: 0; -ENODEV; -EOPNOTSUPP an
 * attached process.
 */
UHMM_API int hmm_access_begin(struct hmm *hmm);

/** hmm_access_end() - the last scope of this thread that was begun ends */
UHMM_API void hmm_access_end(struct hmm *hmm);

/**
 * hmm_access_add() - atomic fetch-and-add at any address
 * @hmm: own mirror, inside hmm_access_begin()
 * @addr: aligned to @size
 * @size: 4 or 8
 * @operand: added
 * @old: where the previous value goes; may be NULL
 *
 * Sequentially consistent with the CPU's own atomics on that address.
 * Context: a thread in an access scope.
 * Return: 0; -EFAULT; -EINVAL size or alignment, or no scope; -EOPNOTSUPP this
 * architecture has no recoverable atomic (all but x86-64).
 */
UHMM_API int hmm_access_add(struct hmm *hmm, uintptr_t addr, size_t size, uint64_t operand,
			    uint64_t *old);

/**
 * hmm_access_cas() - atomic compare-and-swap at any address
 * @hmm: own mirror, inside hmm_access_begin()
 * @addr: aligned to @size
 * @size: 4 or 8
 * @expected: stored is @desired if this is there
 * @desired: what to store
 * @old: what was there, which is @expected if it was swapped; may be NULL
 *
 * As hmm_access_add(). The page is written to in either case.
 */
UHMM_API int hmm_access_cas(struct hmm *hmm, uintptr_t addr, size_t size, uint64_t expected,
			    uint64_t desired, uint64_t *old);

#ifdef __cplusplus
}
#endif

/* The second half: pages that move to a device and come back. */
#include <uhmm/devmem.h>

#endif /* UHMM_HMM_H */
