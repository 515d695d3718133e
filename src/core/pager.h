/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * pager - pages that are away: what the parts of device memory share.
 *
 *	books.c     address -> where its page is, for pages that are not at home
 *	frames.c    frames of a devmem, taken and given back without a lock
 *	devmem.c    making and ending a devmem; what drivers call
 *	transfer.c  pages on their way, and the driver's copies
 *	request.c   what other threads ask of the pager
 *	pager.c     the pager's turn: events, requests, faults
 *	leave.c     out: from the address space into frames
 *	arrive.c    home: from frames into the address space
 *	limbo.c     frames that devices may still use, until they cannot
 *	unsettled.c addresses whose DONTNEED may not have zapped yet
 *	dropped.c   events and pages that are not at home
 *	helper.c    a thread for what the pager may not do itself
 *	hush.c      getting through a storm of changes
 *	fresh.c     pages to copy home to, made ahead
 *	aside.c     entries that have moved on already
 *	forked.c    fork: everything home before, the child's copies after a raw clone
 *	missing.c   VMAs that are registered MISSING
 *	doubts.c    MISSING that proves nothing
 *	plain.c     back from MISSING
 *	migrate.c   the one-call migrations
 *	setup.c     a migration in three steps
 *	exclusive.c a page for a device alone
 *
 * Laws (docs/migration.md has the argument):
 * L1. The pager is the reader's thread between two reads. It alone writes the books and it alone
 *     moves pages. UFFDIO ops of a context fail with EAGAIN from when a change begins until
 *     its message is read, and nobody reads but us: so whatever succeeds between two reads
 *     happened when the books, which have all that was read, were true.
 * L2. The pager waits for nobody: no lock, no callback, no thread of the program. A driver's
 *     transfer is started and looked at again later. It touches arena memory only.
 * L3. A page has one owner: at home the books have no entry; else exactly one entry names
 *     where its bytes are. The entry is written before the page leaves and erased after
 *     it is back.
 * L4. Before a page leaves, every device has forgotten it (MIGRATE), and no look gives it to
 *     one while its transfer is published. Before it comes home, its device has stopped using the
 *     frame (to_host), and read_retry says "changed" to who looked before (homing log).
 * L5. A page that came from the program goes back to its own address or is discarded.
 */
#ifndef UHMM_CORE_PAGER_H
#define UHMM_CORE_PAGER_H

#include "core/core.h"
#include <uhmm/ptable.h>

#define BLOCK ((uintptr_t)2 << 20)
#define BLOCK_PAGES 512u
#define TRANSFERS 16u
#define REQUESTS 16u
#define DEVMEMS 64u
#define PARKED 1024u
#define FORK_PAGES 64u /* of the buffer for a child's pages */
#define LIMBO 65536u
#define UNSETTLED 64u
#define HOMING_LOG 4096u

/* ---- books.c: an entry of hmm->pager.books; 0: at home, or nothing there ---- */

#define BOOK_STATE_SHIFT 60
#define BOOK_CTX_SHIFT 56
enum book_state {
	BOOK_HOME = 0,
	BOOK_AWAY = 1,	   /* devmem and frame */
	BOOK_MOVING = 2,   /* transfer and index */
	BOOK_COHERENT = 3, /* devmem and frame; the page is at home too */
};

static inline enum book_state book_state(uint64_t entry)
{
	return (enum book_state)(entry >> BOOK_STATE_SHIFT);
}
static inline unsigned book_ctx(uint64_t entry)
{
	return (unsigned)(entry >> BOOK_CTX_SHIFT) & 15;
}
static inline unsigned book_devmem(uint64_t entry)
{
	return (unsigned)(entry >> HMM_PFN_DEVMEM_SHIFT) & 127;
}
static inline uint64_t book_frame(uint64_t entry)
{
	return entry & HMM_PFN_FRAME_MASK;
}
static inline unsigned book_transfer(uint64_t entry)
{
	return (unsigned)(entry & 0xffffff) / BLOCK_PAGES;
}
static inline unsigned book_index(uint64_t entry)
{
	return (unsigned)(entry & 0xffffff) % BLOCK_PAGES;
}
uint64_t book_away(enum book_state state, unsigned ctx, unsigned devmem, uint64_t frame);
uint64_t book_moving(unsigned ctx, unsigned transfer, unsigned index);

/* The entry of a page; any thread. */
uint64_t books_get(const struct hmm *hmm, uintptr_t page);
/* Is anything of it not at home? By page: books_next() is the pager's. */
bool books_any(const struct hmm *hmm, uintptr_t start, uintptr_t end);
/* The rest is the pager's. -ENOMEM: nothing was changed. */
int books_set(struct hmm *hmm, uintptr_t page, uint64_t entry);
void books_erase(struct hmm *hmm, uintptr_t page);
void books_erase_row(struct hmm *hmm, uintptr_t page, unsigned n);
/* The first page at or above *at and below end that has an entry. */
bool books_next(struct hmm *hmm, uintptr_t *at, uintptr_t end, uint64_t *entry);

/* ---- frames.c ---- */

struct frame {
	_Atomic uintptr_t addr; /* the page whose bytes it has; 0: none */
	_Atomic uint32_t held;	/* hmm_devmem_frame_get() */
	_Atomic uint8_t locked; /* exclusive */
	_Atomic uint8_t ctx;	/* host frames: in whose region the page lies */
	uint32_t since;		/* us, low bits: when it came here; pager only */
};

struct hmm_devmem {
	struct hmm *hmm;
	unsigned id;
	struct hmm_devmem_options options;
	struct hmm_devmem_ops ops; /* a copy: the driver's may be away */
	void *priv;
	struct frame *frame;
	_Atomic uint64_t *used; /* a bit each */
	_Atomic uint64_t in_use, hint;
	_Atomic bool lost, ending;
	_Atomic bool ended; /* the struct can be used again; it is never freed: a look may read it */
	uint64_t lost_said; /* worker only */
	_Atomic uintptr_t region[CONTEXTS]; /* host frames: for each context, made when needed */
	struct {
		_Atomic uint64_t in_use_max, to_device, to_host, cpu_faults, cpu_fault_pages,
			dropped, declined, failed, lost, timesliced;
	} count;
};

static inline bool is_coherent(const struct hmm_devmem *devmem)
{
	return devmem->options.type == HMM_DEVMEM_COHERENT;
}

int frames_init(struct hmm_devmem *devmem);
void frames_destroy(struct hmm_devmem *devmem);
/* Up to n frames, in a row where there are; the first is congruent to `align` modulo 512
 * if that can be had. Asks the driver's frame_alloc. Not the pager. */
unsigned frames_take(struct hmm_devmem *devmem, uint64_t *frames, unsigned n, uint64_t align);
/* Any thread. The frames' pages are gone already, and no device uses them. */
void frames_give(struct hmm_devmem *devmem, uint64_t first, unsigned n);
bool frame_is_used(const struct hmm_devmem *devmem, uint64_t frame);
/* Host frames: where one that has a page lies; and the length of a context's region of them. */
uintptr_t frame_host(const struct hmm_devmem *devmem, uint64_t frame);
size_t frames_region(const struct hmm_devmem *devmem);

/* ---- transfer.c: up to a block of pages on their way ---- */

enum transfer_state {
	TRANSFER_FREE,
	TRANSFER_CLAIMED, /* by a thread, or by the pager */
	TRANSFER_TAKEN,	  /* isolated: in the buffer */
	TRANSFER_COPYING, /* the driver has it */
	TRANSFER_COPIED,  /* it is done with it; the pager's turn */
	TRANSFER_DIRTY,	  /* over, but what was copied is in its buffer still */
	TRANSFER_STRAY,	  /* the driver never said that it is done: not to be used again */
};

enum page_is {
	PAGE_NONE,    /* is not part of it, or stays at home */
	PAGE_BUFFER,  /* its bytes are in the buffer, or about to be */
	PAGE_HOLE,    /* out: zeros */
	PAGE_DROPPED, /* the program gave it up */
	PAGE_GONE,    /* out: at the device now */
};

struct moving {
	uintptr_t addr;
	uint64_t frame; /* NO_FRAME: none yet */
	uintptr_t host; /* where its bytes lie in the buffer, or in its host frame */
	uint64_t number; /* DROPPED: the event that did it, */
	unsigned queue;	 /* and of which context */
	bool unmapped;	 /* DROPPED: a child whose FORK is not read yet may have it */
	enum page_is is;
	bool kept;	/* not to be moved */
	bool left;	/* copied home: what was copied is in its buffer or frame still */
	int err;	/* why it stays, or could not be read back */
};

#define NO_FRAME UINT64_MAX

/* For the statistics. */
enum transfer_why { WHY_OUT, WHY_CALL, WHY_FAULT, WHY_FORK };

struct hmm_transfer {
	struct hmm *hmm;
	unsigned index;
	_Atomic uint32_t state;
	_Atomic bool out;
	bool exclusive;
	bool steps;  /* hmm_migrate_setup(): the program copies */
	bool staged; /* its block of the stage is not empty */
	bool judged; /* copy[].err are in page[].err */
	enum transfer_why why;
	struct hmm_devmem *_Atomic devmem;
	unsigned ctx;
	/* Out, published: looks at [start, end) are put off while end != 0. */
	_Atomic uintptr_t start, end;
	unsigned n, next; /* next: how far the pager is with it */
	struct moving page[BLOCK_PAGES];
	struct hmm_devmem_copy copy[BLOCK_PAGES];
	uint16_t copy_of[BLOCK_PAGES]; /* copy i is of page copy_of[i] */
	unsigned copies;
	_Atomic int err;
	_Atomic bool stray; /* given up; the driver has not said that it is done */
	uint64_t deadline;  /* ns; of the copy */
};

/* NULL: all are in use. */
struct hmm_transfer *transfer_claim(struct hmm *hmm);
void transfer_free(struct hmm_transfer *t);
/* The pager: its buffer is empty. */
void transfer_clean(struct hmm_transfer *t);
/* From now on no look at the range is answered; then tell(MIGRATE). */
void transfer_publish(struct hmm_transfer *t, uintptr_t start, uintptr_t end);
void transfer_unpublish(struct hmm_transfer *t);
/* Does a published transfer touch [start, end)? Any thread. */
bool transfers_cover(const struct hmm *hmm, uintptr_t start, uintptr_t end);
/* Its driver is gone: what it never ended is over. */
void transfers_release(struct hmm_devmem *devmem);
unsigned transfers_free(const struct hmm *hmm);
/* May the devmem have one more? No more than half of what others leave: a driver that never ends its copies takes
 * slots with it. (Who migrates may be waiting for what a fault brings home: that does not count for a way home.) */
bool transfers_fair(const struct hmm_devmem *devmem, bool out);
/* The pager: what the drivers have said of copies that ended, into the pages. */
void transfers_judge(struct hmm *hmm);
/* Do the books say that page i, which is on its way, belongs at its address? */
bool transfer_placed(const struct hmm_transfer *t, unsigned i);
/* The pager: start the driver's copy of what is PAGE_BUFFER or PAGE_HOLE. */
void transfer_start(struct hmm_transfer *t);
/* The pager: those whose copy has ended, or is overdue. */
void transfers_look(struct hmm *hmm);

/* ---- request.c ---- */

enum request_kind {
	REQUEST_OUT,	 /* take, copy, commit: `transfer` */
	REQUEST_TAKE,	 /* isolate: `transfer` */
	REQUEST_COMMIT,	 /* the driver has copied: pages with a frame are its own */
	REQUEST_RETURN,	 /* the rest goes home; the transfer is nobody's afterwards */
	REQUEST_HOME,	 /* [start, end) of `devmem` (NULL: all) */
	REQUEST_EVICT,	 /* frames [start, end) of `devmem` */
	REQUEST_DRAIN,	 /* until no frame of `devmem` is in limbo */
	REQUEST_SETTLED, /* madvise calls up to event `number` are over */
	REQUEST_SETTLE,	 /* is [start, end) settled? -EINPROGRESS */
	REQUEST_TRIM,	 /* unregister [start, end) of context `number`, if all is at home */
	REQUEST_LOCK,	 /* exclusive: lock the page at `start`; -ENOENT `devmem` does not have it; -EAGAIN
			  * it is locked, or on its way */
};

enum request_state { REQUEST_FREE, REQUEST_CLAIMED, REQUEST_POSTED, REQUEST_DONE };

struct request {
	_Atomic uint32_t state;
	enum request_kind kind;
	struct hmm_transfer *transfer;
	struct hmm_devmem *devmem;
	uintptr_t start, end;
	uint64_t number, moved, deadline;
	uint64_t after; /* not before the worker has delivered the side queue so far */
	bool fork;   /* HOME: isolated pages too */
	int err;
};

/* Hand `want` to the pager and wait; what it answers is in it. Not from reader or worker's
 * callbacks of... any thread but the reader. */
int request_do(struct hmm *hmm, struct request *want);
/* The worker, when it has delivered something of the side queue. */
void requests_after(struct hmm *hmm);
/* The pager. */
void requests_run(struct hmm *hmm);

/* ---- pager.c ---- */

struct parked {
	uintptr_t addr;
	unsigned ctx;
	uint64_t until; /* ns: the time slice; 0 */
	bool counted, sliced; /* in the statistics */
};

struct limbo_entry {
	struct hmm_devmem *devmem;
	uint64_t frame, number;
	uintptr_t addr;
	unsigned ctx;
	unsigned queue; /* the context whose event `number` is */
	bool host;     /* host frames: the page lies in its frame still */
	bool unmapped; /* a child whose FORK is not read yet may have it */
};

struct unsettled {
	uintptr_t start, end;
	uint64_t number;
};

#define JUDGE 32u

/* Entries whose mapping may be gone (dropped.c). */
struct to_judge {
	_Atomic uintptr_t start, end; /* end 0: free */
	unsigned ctx;		      /* CONTEXTS: of any */
	unsigned queue;		      /* the event, and of which context */
	uint64_t number;
	bool cloning; /* a child may have it */
	bool unmap;   /* for an UNMAP that was read; else for a REMAP to there */
};

#define MOVED 32u

/* An mremap that was read while a clone was under way. */
struct moved {
	unsigned ctx;
	uintptr_t start, end, to;
};

#define NEWCOMERS 16u

/* What has come to a place lately, perhaps of what has moved on from there (aside.c). */
struct newcomer {
	uintptr_t start, end;
	unsigned ctx; /* CONTEXTS: of several */
	bool displaced; /* something is aside since, that was there */
};

#define MISSING_VMAS 256u
#define DOUBTS 256u
/* So many come of registering; the rest is for what an excuse cuts (doubts.c). */
#define DOUBTS_NEW 32u

/* Registered MISSING while a change was pending: the flag does not say which VMA it is. */
struct doubt {
	uintptr_t start, end;
	unsigned ctx;
	bool excused; /* what is there was moved there since, and is what it was */
};

/* A VMA that was registered MISSING. */
struct missing {
	uintptr_t start, end;
	unsigned ctx;
	bool sure;	     /* no: an event has touched it; it may be MISSING still */
	bool given_up;	     /* by the mirror, when that was not possible: plain, MISSING or not */
	uint64_t home_since; /* ns; 0: something is away */
	uint64_t known;	     /* registering_now(), before it was found to be MISSING */
};

/* Pages of a transfer's block that nobody has used; the pager's but for the states. */
struct fresh {
	_Atomic uint32_t half[2]; /* states (fresh.c) */
	unsigned now;		  /* the half that pages are taken from, */
	unsigned used;		  /* how many, */
	bool full;		  /* and whether all of it was there */
	bool both;		  /* a transfer has taken both halves */
};

struct pager {
	struct uhmm_ptable books;
	struct hmm_transfer *transfer; /* TRANSFERS */
	struct request request[REQUESTS];
	_Atomic uint32_t freed;	 /* futex: a request or transfer slot is free */
	_Atomic uint32_t released; /* futex: an exclusive page is */
	_Atomic uint32_t afters; /* requests that wait for the worker: it nudges the reader */
	struct hmm_devmem *_Atomic devmem[DEVMEMS];
	struct hmm_transfer *fork_transfer; /* claimed for good: forked.c */
	_Atomic uint64_t lost; /* pages, of all devmems */

	/* buffers */
	_Atomic uintptr_t stage[CONTEXTS]; /* out: a block for each transfer; registered */
	uintptr_t fresh;	   /* home: the same, registered with nothing */
	uintptr_t trash;	   /* a block; registered with `quiet` */
	struct os_ctx quiet;

	/* what read_retry compares; written by the pager, sequence after content */
	struct logged homing[HOMING_LOG];
	_Atomic uint64_t homing_seq;

	/* the rest is the pager's alone */
	struct parked parked[PARKED];
	unsigned parked_n;
	struct limbo_entry *limbo; /* LIMBO */
	unsigned limbo_n;
	struct unsettled unsettled[UNSETTLED];
	unsigned unsettled_n;
	_Atomic uint64_t removes; /* REMOVE messages read; read by who settles */
	_Atomic uint64_t settled; /* so many of them are known to be over */
	struct to_judge judge[JUDGE];
	_Atomic unsigned judging; /* read by every look */
	struct uhmm_ptable aside; /* aside.c */
	uint64_t aside_n;
	struct newcomer newcomer[NEWCOMERS];
	unsigned newcomers;
	struct moved moved[MOVED];
	unsigned moved_n;
	struct missing missing[MISSING_VMAS];
	unsigned missing_n;
	struct doubt doubt[DOUBTS];
	unsigned doubts;
	unsigned wholes_refused; /* in a row (missing.c) */
	uint64_t trimmed; /* ns */
	uintptr_t around_end; /* where the last fault-around ended */
	unsigned around;      /* pages */
	bool again;
	uint64_t again_since; /* ns; 0 */

	struct fresh fresh_of[TRANSFERS];
	bool hungry; /* a half is wanted, and the helper was not told yet */

	/* helper.c, hush.c */
	_Atomic uint32_t helper_work; /* futex: bumped when there is something to do */
	_Atomic bool helper_stop, hush;
	struct os_thread *helper;
	uintptr_t hush_region;
};

/* Any thread: the pager of this mirror is there, for a devmem, or to remember DONTNEEDs. */
int pager_need(struct hmm *hmm);
/* The pager: the context that its trash is registered with is there. */
int pager_quiet(struct hmm *hmm);
void pager_end(struct hmm *hmm);
/* The reader, for each message that it read from context ctx; `number` is what the queue's
 * `done` reaches when the worker has delivered it. */
void pager_message(struct hmm *hmm, unsigned ctx, const struct os_msg *msg, uint64_t number);
void pager_turn(struct hmm *hmm);
/* How long the reader may sleep: ns, -1 for ever. */
int64_t pager_timeout(struct hmm *hmm);
/* MOVE, COPY, ... said EAGAIN: try again when what is pending was read. */
void pager_again(struct hmm *hmm);
/* Who waited for [start, end) of a context was woken by what put pages there: only then. (Who waits at the same place
 * of another context's, which was there before, was not.) */
void parked_forget(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);

/* ---- helper.c ---- */
int helper_start(struct hmm *hmm);
void helper_end(struct hmm *hmm);
void helper_wake(struct hmm *hmm);
/* The helper: leave off, there is something more urgent. */
bool helper_hurries(const struct pager *pager);

/* ---- hush.c ---- */
int hush_prepare(struct hmm *hmm);
void hush_release(struct hmm *hmm);
/* The helper, while it is on. */
void hush_shout(struct hmm *hmm);
/* The pager: a storm of changes keeps it from moving pages; and: it is through. */
void hush(struct hmm *hmm, bool on);

/* ---- fresh.c ---- */
/* The pager: n pages in a row of t's block, which are there. -ENOMEM. */
int fresh_take(struct hmm_transfer *t, unsigned n, uintptr_t *start);
/* The transfer is over: what it took has left. */
void fresh_over(struct hmm_transfer *t);
/* The helper: fill what is wanted. true: there may be more to do. */
bool fresh_fill(struct hmm *hmm);

/* ---- leave.c ---- */
/* Private anonymous memory that MOVE takes. */
bool leave_can(const struct os_vma *vma);
/* Isolate; 0, -EAGAIN not all yet, or why none. */
int leave_take(struct hmm_transfer *t);
/* The copies are done: make pages the device's. -EAGAIN: something has to go back first. */
int leave_commit(struct hmm_transfer *t);
/* Discard what transfers that are over have left in their buffers. */
void leave_sweep(struct hmm *hmm);
/* What is still in the buffer goes home. -EAGAIN. */
int leave_return(struct hmm_transfer *t);

/* ---- arrive.c ---- */
/* Begin to bring home what is away of [start, end), which lies in one block, from one devmem;
 * pages begun, 0: nothing there; -EAGAIN no transfer is free; -ENOMEM. */
int arrive_begin(struct hmm *hmm, uintptr_t start, uintptr_t end, enum transfer_why why);
/* A copy has ended. -EAGAIN: not all are home yet. */
int arrive_finish(struct hmm_transfer *t);
/* Put one page of a buffer at its address: 0 it is there; -EAGAIN; -ENOENT there is no such place
 * any more; -ENOMEM. */
int arrive_put(struct hmm *hmm, unsigned ctx, struct moving *page, unsigned pages,
	       unsigned *done);
/* Is the VMA there registered with that context? True as long as no change of it is pending. */
bool belongs(struct hmm *hmm, unsigned ctx, uintptr_t page);
void homing_log(struct hmm *hmm, uintptr_t start, uintptr_t end);
bool homing_changed(const struct hmm *hmm, uint64_t since, uintptr_t start, uintptr_t end);

/* ---- limbo.c ---- */
void limbo_add(struct hmm *hmm, const struct limbo_entry *entry);
void limbo_drain(struct hmm *hmm);
bool limbo_has(const struct hmm *hmm, const struct hmm_devmem *devmem);
/* Discard what lies in [start, +length) of a buffer. -EAGAIN: not now. */
int trash(struct hmm *hmm, uintptr_t start, size_t length);

/* ---- unsettled.c ---- */
void unsettled_add(struct hmm *hmm, uintptr_t start, uintptr_t end);
bool unsettled_has(const struct hmm *hmm, uintptr_t page);
bool unsettled_touches(const struct hmm *hmm, uintptr_t start, uintptr_t end);
void unsettled_clear(struct hmm *hmm, uint64_t number);
/* Not the pager: until every DONTNEED that was read is over, if one of them was about [start, end).
 * 0 none was; 1 it had to wait; -EBUSY. */
int unsettled_wait(struct hmm *hmm, uintptr_t start, uintptr_t end);
/* The same, whatever they were about. */
int unsettled_end(struct hmm *hmm);

/* ---- dropped.c: events and pages that are not at home ---- */
void dropped_remove(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
		    uint64_t number);
void dropped_unmap(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end,
		   uint64_t number);
void dropped_remap(struct hmm *hmm, unsigned ctx, const struct os_msg *msg, uint64_t number);

/* Every verdict that can be given now. */
void judge_all(struct hmm *hmm);
/* Is a verdict on entries of [start, end) outstanding? Any thread. */
bool judging(const struct hmm *hmm, uintptr_t start, uintptr_t end);
/* Before [start, end) is registered: entries there of something that left without a message.
 * -EAGAIN: a change is pending, its message may say so. */
int dropped_strangers(struct hmm *hmm, uintptr_t start, uintptr_t end);
/* Is what is mapped at a page with an entry of that context another mapping? True as long as no
 * change of the context is pending. */
bool dropped_replaced(struct hmm *hmm, unsigned ctx, uintptr_t page);

/* ---- aside.c ---- */
/* The entry of `at` has moved on. false: there is one, or no memory. */
bool aside_put(struct hmm *hmm, uintptr_t at, uint64_t entry);
bool aside_has(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
/* The first one of a context at or above *at and below end, which is there no more. */
bool aside_take(struct hmm *hmm, unsigned ctx, uintptr_t *at, uintptr_t end, uint64_t *entry);
/* The same of those whose REMAP must have been read by now. */
bool aside_take_gone(struct hmm *hmm, uintptr_t *at, uint64_t *entry);
/* Something of that context has come to a place, from where something has been put aside (`displaced`), or may have moved on; */
void aside_newcomer(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end, bool displaced);
/* has it, as long as not all is quiet? */
bool aside_over(const struct pager *pager, unsigned ctx, uintptr_t page);
/* And of whatever context, where something was put aside? */
bool aside_displaced(const struct pager *pager, uintptr_t page);
/* Each turn. */
void aside_settle(struct hmm *hmm);

/* ---- forked.c ---- */
void forked_child(struct hmm *hmm, unsigned ctx, int child);
/* pthread_atfork: everything home before, migrations again after. */
void fork_prepare(struct hmm *hmm);
void fork_done(struct hmm *hmm);

/* ---- missing.c ---- */
/* Register [start, end), all of a VMA of context ctx, MISSING. -EBUSY another context has it. */
int missing_register(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
/* Has the list forgotten something there that it cannot know any more? */
bool missing_outdated(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
void missing_forget(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
/* An event: what it touched is not known to be registered any more; nor what was moved, where it is now. */
void missing_touched(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
void missing_moved(struct hmm *hmm, unsigned ctx, const struct os_msg *msg);
/* What is registered MISSING, and was before something else has been registered there (`known`). */
void missing_note(struct pager *pager, unsigned ctx, uintptr_t start, uintptr_t end,
		  uint64_t known);
/* Something that is registered, MISSING or not, and shall be plain. */
void missing_give_up(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
/* Is nothing of it away, or on its way? */
bool missing_nothing(struct hmm *hmm, uintptr_t start, uintptr_t end);

/* ---- doubts.c ---- */
/* Before what may come into doubt is done: doubts that are too many would give up pages. */
bool doubts_have_room(const struct pager *pager);
/* It was registered, and a change is pending. */
void doubts_add(struct pager *pager, unsigned ctx, uintptr_t start, uintptr_t end);
/* Each turn: doubts end as soon as all has been read, and judged. */
void doubts_settle(struct hmm *hmm);
/* A REMAP to, and an UNMAP or a REMAP from, that was read: what is there is not in doubt, or is again. */
void doubts_excuse(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
void doubts_accuse(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
/* Something was moved from there, so no change was pending: it is what was registered. */
void doubts_end(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
/* Does MISSING prove here that the VMA is the one that was registered? */
bool doubts_none_at(const struct hmm *hmm, unsigned ctx, uintptr_t page);

/* ---- plain.c ---- */
/* Take the registration back. -EBUSY: something of it is away, or on its way, or it changes. */
int plain_if_home(struct hmm *hmm, unsigned ctx, uintptr_t start, uintptr_t end);
/* Now and then: VMAs whose pages are all home go back to plain. */
void plain_trim(struct hmm *hmm);

#endif
