/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * core - the mirror: what its parts share.
 *
 *	home.c      one mirror a process; who is a forked child
 *	mirror.c    making and ending it; attach, get, put
 *	vmas.c      which VMA is registered with which context: the map
 *	register.c  registering a VMA, and entering it there
 *	unregister.c  giving back what no notifier covers
 *	whole.c     what is registered together
 *	reader.c    messages -> queues; the gate
 *	worker.c    queues -> notifiers
 *	records.c   perf's mapping records, or permissions re-read at the fence
 *	fence.c     G1
 *	notifier.c  the tree of notifiers, sequences, callbacks
 *	look.c      VMAs and pages -> entries of a range
 *	range.c     snapshot, fault, the driver's loop
 *	runs.c      coalesced snapshot
 *	copy.c      copies and the access scope
 *	error.c     errors in words
 *	pager.h     pages that are away: device memory and migration
 *	dma.h       I/O address spaces
 *	regcache.h  registrations that are kept
 *
 * The protocol and why it is right: docs/gate.md. Locks: lock.h.
 */
#ifndef UHMM_CORE_CORE_H
#define UHMM_CORE_CORE_H

#include <stdatomic.h>

#include <uhmm/hmm.h>

#include "core/lock.h"
#include "core/queue.h"
#include "os/os.h"
#include "util/arena.h"
#include "util/rangemap.h"

#define CONTEXTS 8u
#define PAGE ((uintptr_t)OS_PAGE_SIZE)
#define PAGE_DOWN(a) ((a) & ~(PAGE - 1))

/* How long a fence hears "a change is pending" before it stops waiting for quiet. */
#define STORM_NS UINT64_C(200000)
/* How long messages that never pause keep the reader from waking the worker. */
#define WAKE_NS UINT64_C(50000)
/* How often the worker looks at the perf rings while something is mirrored. */
#define TICK_NS UINT64_C(20000000)

/* Whether a file is on a DAX filesystem, remembered. */
#define DAX_FILES 16u
struct dax_file {
	uint64_t inode, dev;
	bool dax;
};

/*
 * What the worker has last taken out of the map: gone from there before the notifiers know.
 * (Both ends of a REMAP.) Stale when they do; then waiting for it costs nothing.
 */
struct leaving {
	unsigned ctx;
	uintptr_t start[2], end[2];
};

/* What is being registered, and where an event of that context took anything out there since. */
struct entering {
	unsigned ctx;
	uintptr_t start, end;
	uintptr_t ended_start, ended_end;
};

/* One userfaultfd context's gate. Its os_ctx is hmm->os_ctx[i]. */
struct gate {
	/* Odd from before the reader reads messages until it has pushed them. */
	_Atomic uint32_t seq;
	_Atomic uint32_t seq_waiters;
	struct queue queue;
	_Atomic size_t vmas; /* entries of hmm->vmas with this context */
};

struct pager;

/* Ranges, the newest ones of `slots`: one writer, readers without a lock. `added`: so many were. */
struct logged {
	_Atomic uintptr_t start, end;
};
struct range_log {
	struct logged *slot;
	unsigned slots;
	_Atomic uint64_t *added;
};

#define REGISTERINGS 64u
struct registering {
	struct logged slot[REGISTERINGS];
	_Atomic uint64_t begun, done;
};

struct hmm {
	const struct os_ops *os;
	struct arena *arena;
	_Atomic unsigned refs;
	pid_t pid;	   /* who made it */
	uint64_t cookie;   /* what home says while this process owns the mirror */
	_Atomic unsigned forking; /* futex: threads in fork(); nothing leaves meanwhile */
	bool after_fork;   /* made in a child of a process that had one */
	struct os_mm mm;   /* mm.pid != 0: attached */
	struct os_mm reader_mm; /* the same in the reader's own table of descriptors */

	/* The last one is the sentinel: its FORK is the last that a clone waits for (forked.c). */
	struct os_ctx os_ctx[CONTEXTS + 1];
	bool sentinel;
	struct gate gate[CONTEXTS];

	/* Perf records and synthetic events; producers hold `side`. */
	struct lock side;
	struct queue side_queue;
	struct os_perf *perf; /* NULL: permissions are re-read at the fence */
	int perf_err;	      /* why */
	_Atomic bool draining;

	struct lock register_lock;
	struct registering registering; /* written under register_lock */
	struct hmm_dirty *dirties; /* dirty.c */
	struct lock vmas_lock; /* protects vmas, leaving, entering, sysv, dax */
	struct dax_file dax[DAX_FILES];
	struct rangemap vmas;  /* ids 0 */
	struct leaving leaving;
	struct entering entering;
	/* An entry was lost for want of memory: every context is asked, every record counts. */
	_Atomic bool map_lost;
	size_t sysv;	       /* entries of SysV segments, which leave without a message */
	unsigned next_ctx;     /* round robin; under register_lock */

	struct lock notifiers_lock; /* protects notifiers, next_id, and pins */
	struct rangemap notifiers;  /* value: struct hmm_notifier * */
	uint64_t next_id;

	_Atomic bool dead; /* descriptors lost; notifiers are told RELEASE */
	const char *_Atomic why_dead;
	_Atomic bool release_told;
	_Atomic bool stop;
	_Atomic uint32_t ready;	      /* futex: the reader runs, perf was tried */
	_Atomic uint32_t work;	      /* futex: bumped when the worker has something to do */
	_Atomic uint32_t worker_idle; /* the worker sleeps, or is about to (worker.c) */
	_Atomic uint32_t progress;    /* futex: bumped when something was delivered */
	_Atomic uint32_t waiters;     /* on progress */
	struct os_thread *reader, *worker;
	struct pager *_Atomic pager; /* NULL: no devmem was ever made */
	uint64_t wake_owed;	   /* ns, since when the worker is to be woken; reader only */
	uint64_t ticked, identity_checked; /* ns; worker only */
};

/* ---- home.c ---- */
/* Is this process the one that made the mirror (not a forked child), and does it live? */
int hmm_check(struct hmm *hmm);
/* As hmm_check, and -EOPNOTSUPP attached, -EDEADLK inside a callback. */
int hmm_check_sleep(struct hmm *hmm);
/* Make it the process's own (hmm_open; the unit tests, which fake the system below). */
void home_adopt(struct hmm *hmm);
/* This process, as hmm->pid has it. */
pid_t hmm_pid(void);

/* ---- mirror.c ---- */
/* A mirror that is nobody's singleton: hmm_open() and the unit tests. */
int mirror_create(const struct os_ops *os, struct hmm **out);
void mirror_destroy(struct hmm *hmm);
void mirror_kill(struct hmm *hmm, const char *why);

/* ---- vmas.c ---- */
/* An entry of hmm->vmas. */
struct mirrored {
	uintptr_t start, end;
	unsigned ctx;
	int prot;
	bool sysv, anon;
	uint32_t segment; /* sysv: its inode, which is its shmid */
};
struct whole;
void vmas_erase(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
bool vmas_overlap(struct hmm *hmm, uintptr_t start, uintptr_t end);
/* The first entry that overlaps. */
bool vmas_next(struct hmm *hmm, uintptr_t start, uintptr_t end, struct mirrored *out);
void vmas_set_prot(struct hmm *hmm, uintptr_t start, uintptr_t end, int prot);
/* The worker's vmas_erase(): a fence of the ranges waits for the event that took them out. */
void vmas_leave(struct hmm *hmm, const struct leaving *leaving);
/* What a fence of a range has to do; bit c is for context c. */
struct to_fence {
	unsigned probe; /* has a VMA there: fence it */
	unsigned wait;	/* had one there a moment ago: wait for what it has pushed */
	bool compare;	/* look at the mappings: SysV, or there is no perf */
};
struct to_fence vmas_to_fence(struct hmm *hmm, uintptr_t start, uintptr_t end);

/* The context of the entries that overlap; none: CONTEXTS. */
enum overlap { NOTHING, ONE_CONTEXT, SEVERAL_CONTEXTS };
unsigned vmas_context(struct hmm *hmm, const struct mirrored *want, enum overlap *overlap);
/* Has the map nothing there but this context's? Another one's leaves by its own event. */
bool vmas_only_of(struct hmm *hmm, unsigned ctx, const struct mirrored *m);
/* Does it have just that? */
bool vmas_has(struct hmm *hmm, const struct mirrored *m);
/* Which context to ask first for a VMA. `beside`: what belongs to it has that; or CONTEXTS. */
unsigned vmas_choose(struct hmm *hmm, const struct mirrored *want, unsigned beside,
		     enum overlap *overlap);
/* From before it is registered; under the register lock, so that there is one. */
void vmas_entering(struct hmm *hmm, unsigned ctx, const struct whole *whole);
/* -EAGAIN: an event of the context has come meanwhile, that may have been the mapping's end; -ENOMEM. */
int vmas_enter(struct hmm *hmm, const struct mirrored *m);

/* ---- register.c ---- */
/*
 * Register a VMA whole. 0; -EOPNOTSUPP the kernel does not give it, or somebody else's
 * userfaultfd has it; -EAGAIN it changed, look again; -EINVAL the same, or it is of a kind
 * that is refused; -ENOMEM; -ENODEV.
 */
int vmas_mirror(struct hmm *hmm, const struct os_vma *vma);
/* Worker: what a REMAP left behind belongs to the context that told of it. */
void vmas_claim(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
/* Is the page's VMA registered WP_ASYNC, by anybody? The registration token. */
bool vmas_has_token(struct hmm *hmm, const struct os_mm *mm, uintptr_t page);

/* ---- unregister.c ---- */
/* What no notifier covers of [start, end). */
void vmas_trim(struct hmm *hmm, uintptr_t start, uintptr_t end);
/* Everything, also what moved behind the map's back: the last put. */
void vmas_unregister_all(struct hmm *hmm);

/* How many contexts the reader polls. */
static inline unsigned polled(const struct hmm *hmm)
{
	return CONTEXTS + hmm->sentinel;
}

/* ---- whole.c ---- */
struct whole {
	uintptr_t from, to;   /* mappings */
	uintptr_t start, end; /* and room around them */
};
struct whole_asks {
	struct hmm *hmm;
	const struct os_mm *mm;
	unsigned ctx;
	/* May this be registered, or given up, with that context along with what it lies beside? */
	bool (*may)(struct hmm *hmm, unsigned ctx, const struct os_vma *piece);
	bool strict; /* all of it, or -EBUSY */
	/* It is the mirror that registers: also free address space around, if nothing is away there; and
	 * registering.c hears of it. */
	bool mirrors;
};
/* What belongs together with a VMA. -EAGAIN it is another one by now; -EBUSY. */
int whole_of(const struct whole_asks *asks, const struct os_vma *vma, struct whole *whole);
/* Does a mapping seem to be cut at the edge? *outer: the piece outside, which may be dealt with. */
bool whole_cut(const struct whole_asks *asks, const struct whole *whole, bool above,
	       struct os_vma *outer);
/*
 * Register it by `call`, ctx_register or so. -EBUSY: or something of the library's is in it; -EAGAIN: the
 * reader, which does not wait, has to ask again. A mapping that is cut by it all the same is made
 * whole again at once; *whole is what has been registered then.
 */
typedef int (*whole_call)(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
int whole_register(const struct whole_asks *asks, struct whole *whole, whole_call call);

/* ---- range_log.c ---- */
/* The content first, then the count. */
void range_log_add(const struct range_log *log, uintptr_t start, uintptr_t end);
/* Has anything been added that overlaps, since so many were? true, too, if that is too long ago. */
bool range_log_since(const struct range_log *log, uint64_t since, uintptr_t start,
		     uintptr_t end);

/* ---- registering.c ---- */
/* The register lock is held over both, and the system call is between them. */
void registering_begin(struct hmm *hmm, uintptr_t start, uintptr_t end);
void registering_end(struct hmm *hmm);
/* To be noted, without a lock, before something is found out about a range; */
uint64_t registering_now(const struct hmm *hmm);
/* and asked later: has the mirror registered anything there that what was found out does not know? */
bool registering_since(struct hmm *hmm, uint64_t since, uintptr_t start, uintptr_t end);

/* ---- reader.c, worker.c ---- */
void *reader_main(void *hmm);
/* The reader: the gate opens (or closes); fences that wait for that go on. */
void gate_flip(struct hmm *hmm, struct gate *gate);
/* Is the calling thread the reader? */
bool is_reader(void);
/* true: somebody kicked, for it to end. timeout_ns -1: for ever. */
bool reader_step(struct hmm *hmm, int64_t timeout_ns);
void *worker_main(void *hmm);
bool worker_step(struct hmm *hmm);
void worker_wake(struct hmm *hmm);
/* As worker_wake, but without the system call. true: the worker sleeps, and still has to be
 * woken (worker_wake), soon. */
bool worker_note(struct hmm *hmm);
/* There is something mirrored now: the worker looks at permissions in ticks. */
void worker_entered(struct hmm *hmm);
/* Until queue->done reaches `target`; false: the mirror died. */
bool worker_wait(struct hmm *hmm, const struct queue *queue, uint64_t target);

/* ---- records.c ---- */
/* Push what the rings hold to the side queue. Any thread but the reader. */
void records_drain(struct hmm *hmm);
/* Push one event to the side queue; what its queue must reach. */
uint64_t side_push(struct hmm *hmm, const struct event *event);
/* Compare mirrored VMAs of a range with what is mapped; push what differs. */
void records_compare(struct hmm *hmm, uintptr_t start, uintptr_t end);

/* ---- fence.c ---- */
/*
 * Until what has let go of the address space in context i is read. 0; -EAGAIN changes did not pause
 * for STORM_NS; -ENODEV.
 */
int fence_quiet(struct hmm *hmm, unsigned i);
/* Is there nothing of context i, at this moment, that is pending, unread or untold? Waits for nobody. */
bool fence_rests(struct hmm *hmm, unsigned i);
int fence_range(struct hmm *hmm, uintptr_t start, uintptr_t end);
/* Tell CLEAR of what contexts `mask` have in [start, end), and wait until it is delivered. */
int fence_clear(struct hmm *hmm, unsigned mask, uintptr_t start, uintptr_t end);

/* ---- notifier.c ---- */
/* What a notifier remembers of an invalidation, for an exact read_retry. */
struct told {
	_Atomic uintptr_t start, end;
};

struct hmm_notifier {
	struct hmm *hmm;
	uintptr_t start, end;
	uint64_t id;
	const struct hmm_notifier_ops *ops;
	void *priv;
	unsigned pins;	  /* callbacks that run; under notifiers_lock */
	bool removed;	  /* out of the tree; under notifiers_lock */
	bool removed_inside; /* by its own callback: the worker frees it */
	_Atomic uint64_t seq; /* invalidations begun */
	unsigned log_size; /* a power of two */
	struct told log[]; /* of invalidation i at i % log_size */
};

/* Has anything of [start, end) been invalidated since seq was `since`? */
bool notifier_changed(const struct hmm_notifier *notifier, uint64_t since, uintptr_t start,
		      uintptr_t end);
bool notifiers_overlap(struct hmm *hmm, uintptr_t start, uintptr_t end);
bool notifiers_overlap_locked(struct hmm *hmm, uintptr_t start, uintptr_t end);
/* Worker only: raise sequences, call back. */
void notifiers_tell(struct hmm *hmm, const struct hmm_event *event);
bool in_callback(void);
/* In a child that a callback forked: the worker that it would wait for is not there. */
void callback_forget(void);

/* ---- look.c ---- */
int look(struct hmm_range *range, bool fault);
/* Where the hole ends that vma_find saw at `at`; `at`: there is a mapping, look again. */
uintptr_t hole_end(struct hmm *hmm, uintptr_t at, uintptr_t end);

/* ---- range.c ---- */
/* Requests and answers share the entries: what was asked is kept for the next try. */
struct range_kept {
	uint64_t some[512];
	uint64_t *pfns;
	size_t bytes;
};

/* Is it a range that may be looked at (fault: with requests)? */
int range_check(struct hmm_range *range, bool fault);
int range_keep(struct range_kept *kept, const struct hmm_range *range);
void range_restore(const struct range_kept *kept, struct hmm_range *range);
void range_drop(struct range_kept *kept, struct hmm *hmm);
/* -EBUSY, with its sentence. */
int range_stale(void);
/* Try as long as it is -EBUSY, until the time is up; entries are restored when it fails. */
int range_again(struct hmm_range *range, unsigned timeout_ms,
		int (*attempt)(struct hmm_range *range, void *arg), void *arg);

/* ---- error.c ---- */
/* Leave a sentence for hmm_strerror() in this thread; returns err. */
int error_say(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The error of the last sentence of this thread. */
int error_last(void);
/* A size-first struct from the caller: 0, -EINVAL too small, -E2BIG has more that is not 0. */
int struct_check(const void *what, size_t size, size_t known);

#endif
