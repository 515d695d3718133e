/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fake_os - a kernel of one small address space, for placing races exactly.
 *
 * Model: FAKE_PAGES pages from FAKE_BASE on. Each page knows the object mapped there, its
 * permission, its context and whether it is present; a VMA is a run of equal pages, so
 * splitting and merging need no code. A page has an `identity`, a stamp of the last change
 * of what its address means, and `seen`, the identity that the last scan looked at: a test
 * device keeps `seen` as its translation and can tell a stale one (device.h).
 *
 * A change (munmap, mremap, madvise, fork) is what the kernel makes of it, in steps:
 *
 *	LET_GO	the address space is changed, `changing` of the context is up, its lock is
 *		dropped: others may map there already
 *	QUEUED	the message can be read
 *	READ	the reader has it; the caller may run
 *	GONE	the caller runs: `changing` is down again
 *
 * Changes go to QUEUED at once and from READ to GONE at once, unless fake.hold says that
 * the test takes those steps itself. A DONTNEED has one more, between READ and GONE: its
 * caller runs, `changing` is down, and the pages are there still (ZAPPING).
 *
 * A page has a content, one number, and so have the pages of regions (region_map), which
 * lie above and are mapped nowhere either. A CPU is a struct fake_cpu: it loads or stores
 * one page, and where that is missing in a VMA registered MISSING it waits, its message is
 * read before any event's, and what wakes the place lets it try again. The operations that
 * move pages keep the kernel's laws: fake_move.c.
 *
 * Laws: no thread but the test's runs the library, unless fake.threads is set. wait()
 * lets the reader and the worker go on, and is a deadlock where neither can. Around each
 * call of the table a test may place an action: fake_at().
 */
#ifndef UHMM_TESTS_FAKE_OS_H
#define UHMM_TESTS_FAKE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/core.h"

#define FAKE_FD 1000
#define FAKE_BASE ((uintptr_t)0x100000000000)
#define FAKE_PAGES 8192u
#define FAKE_REGION_BASE ((uintptr_t)0x200000000000)
#define FAKE_REGIONS 256u
#define FAKE_SENTINEL CONTEXTS
#define FAKE_CONTEXTS (CONTEXTS + 8u) /* behind the sentinel are quiet ones */
#define FAKE_CHILDREN 256u
#define FAKE_REFUSALS 16u
#define FAKE_RECORDS 64u /* the perf ring */
#define FAKE_NO_CTX (-1)
#define FAKE_FOREIGN 100       /* the program's own userfaultfd has it */
#define FAKE_FOREIGN_ASYNC 101 /* the same, in WP_ASYNC mode: it has the token too */

/* What can be mapped. Private anonymous memory is object 0. */
struct fake_object {
	enum os_vma_kind kind;
	bool shared, dax;
	uint64_t inode; /* 0: anonymous */
	uint64_t page_size;
	uint64_t file_pages;
};

enum fake_object_name {
	FAKE_ANON,
	FAKE_SHARED_FILE,
	FAKE_PRIVATE_FILE,
	FAKE_DAX_FILE,
	FAKE_SHMEM,
	FAKE_SYSV,
	FAKE_SYSV_OTHER,
	FAKE_HUGETLB,
	FAKE_SPECIAL,
	FAKE_OBJECTS,
};

extern struct fake_object fake_object[FAKE_OBJECTS];

struct fake_page {
	bool mapped, guard;
	bool missing;	   /* registered MISSING: a hole makes a CPU wait */
	bool locked, wipe; /* mlock, MADV_WIPEONFORK */
	bool shared;	   /* with a child, until it is written to */
	bool pinned;	   /* for DMA */
	bool poisoned;	   /* SIGBUS */
	bool marked;	   /* userfaultfd-wp, until it is written to */
	uint8_t object;
	uint8_t prot;
	int16_t ctx;
	uint32_t offset; /* pages into the object */
	unsigned flags;	 /* OS_PAGE_*, 0 absent */
	uint64_t value;	 /* its content; absent: 0 */
	uint64_t frame;	 /* which page of the machine's it is; 0 none */
	uint64_t identity;
	uint64_t seen[2]; /* by fake.level, so that a look inside another does not hide it */
};

enum fake_state { FAKE_LET_GO, FAKE_QUEUED, FAKE_READ, FAKE_ZAPPING, FAKE_GONE };

struct fake_change {
	struct fake_change *next; /* older first */
	unsigned ctx;
	struct os_msg msg;
	enum fake_state state;
	uint64_t order; /* of queueing */
	bool hold_resume, hold_zap;
	bool due; /* to be queued as soon as it can be */
};

/* A thread of the program that loads or stores one page. */
struct fake_cpu {
	struct fake_cpu *next; /* of those that wait, oldest first */
	uintptr_t addr;
	uint64_t value;	 /* what it stores, or has loaded */
	unsigned ctx, faults;
	int signal;	 /* how it ended: 0, SIGSEGV, SIGBUS */
	bool write, add; /* add: `value` to what is there */
	bool waiting;
	bool told;	 /* its message was read */
};

/* Memory of the library's for pages on their way. */
struct fake_region {
	uintptr_t start, end; /* 0: free */
	struct fake_page *page;
};

/* A forked child: what its pages hold. Its descriptor of context c is fake_child_fd(i, c). */
struct fake_child {
	unsigned contexts; /* bit c: the descriptor is open */
	struct {
		struct os_msg msg;
		unsigned ctx;
	} change[8]; /* what it did itself and nobody has read */
	unsigned changes;
	struct {
		bool mapped, present, copied;
		int16_t ctx;
		uint64_t value;
	} page[FAKE_PAGES];
};

struct fake_ctx {
	bool open;
	unsigned changing;
	int lost; /* what a probe answers instead, -EBADF */
};

enum fake_op {
	FAKE_OP_PROBE, FAKE_OP_READ, FAKE_OP_REGISTER, FAKE_OP_UNREGISTER, FAKE_OP_FIND,
	FAKE_OP_FIND_FAST, FAKE_OP_SCAN, FAKE_OP_POPULATE, FAKE_OP_PENDING, FAKE_OP_DRAIN,
	FAKE_OP_RECORD, FAKE_OP_WAIT, FAKE_OP_SLEEP, FAKE_OP_REGISTER_MISSING, FAKE_OP_MOVE,
	FAKE_OP_COPY, FAKE_OP_ZERO, FAKE_OP_POISON, FAKE_OP_WAKE, FAKE_OP_CHILD_COPY,
	FAKE_OP_CHILD_CLOSE, FAKE_OP_REGION_MAP, FAKE_OP_REGION_UNMAP, FAKE_OP_REGION_ZAP,
	FAKE_OP_VMA_FLAGS, FAKE_OP_SETTLED, FAKE_OP_NUDGE,
	FAKE_OP_DRIVER, /* not the system's: a call of a test driver (vram.h) */
	FAKE_OPS,
};

enum fake_when { FAKE_BEFORE, FAKE_AFTER };

/* Non-zero before an operation: it answers that instead. */
typedef int (*fake_action)(void *arg);

/* An operation refuses one page: MOVE as source or destination, the others as destination. */
struct fake_refusal {
	enum fake_op op;
	uintptr_t addr;
	int err;
	unsigned times;
};

struct fake {
	struct hmm *hmm;
	struct fake_page page[FAKE_PAGES];
	unsigned pages; /* in use; FAKE_PAGES unless the test takes fewer */
	struct fake_ctx ctx[FAKE_CONTEXTS];
	unsigned contexts, quiets; /* opened so far */
	struct fake_region region[FAKE_REGIONS];
	uintptr_t region_next;
	struct fake_cpu *waiting;
	struct fake_child *child[FAKE_CHILDREN];
	unsigned children; /* the newest's number, plus one */
	struct fake_refusal refusal[FAKE_REFUSALS];
	struct fake_change *changes;
	uint64_t frames;   /* so many were given out */
	uint64_t stamp;	   /* of the newest change */
	uint64_t order;
	uint64_t clock;

	/* For the changes made while they are set. */
	bool hold_queue, hold_resume, hold_zap;

	bool no_perf, no_frames, starting;
	bool no_move, no_poison, user_only, unregisters_all; /* what a context says of itself */
	bool no_sentinel;
	bool may_mark_others; /* G7 */
	uintptr_t critical_start, critical_end;
	uintptr_t thread_start, thread_end; /* what the kernel touches when a thread ends */
	unsigned criticals;		    /* objects added */
	struct { uintptr_t start, end; int prot; } record[FAKE_RECORDS];
	uint64_t head, tail; /* of the ring */
	bool overflow;

	unsigned level; /* which `seen` a scan sets */
	bool threads;	/* run the library's threads */
	bool kicked, nudged;
	bool reader_runs; /* what happens now happens during its turn */
	bool reader_gone; /* its thread has ended */
	unsigned idle;	  /* waits in a row in which nothing happened */
	/* At every point, before the actions: what must hold at any moment. May be NULL. */
	void (*watch)(void *arg);
	/* When somebody waits and nobody has anything to do: a driver's engine. true: it had. May
	 * be NULL. */
	bool (*engine)(void *arg);
	void *watch_arg, *engine_arg;
	unsigned calls[FAKE_OPS];
	_Atomic bool detached_done; /* the thread of run_detached() has ended */
};

extern struct fake fake;
/* This thread is the reader now. An action is another thread's. */
extern __thread bool fake_reading;
extern const struct os_ops fake_ops;

/* A fresh world and a mirror of it. */
void fake_reset(void);
struct hmm *fake_open(void);
/* Drop the last reference; everything must have been given back. */
void fake_close(struct hmm *hmm);
/* The same as cmocka's setup and teardown; *state is the mirror. */
int fake_setup(void **state);
int fake_setup_no_perf(void **state);
int fake_teardown(void **state);

/* At the nth (from 1; 0: each) time that `op` is called for `ctx` (-1: any), counted from
 * now. At most 16 at once; an nth one is forgotten when it was made. */
void fake_at(enum fake_op op, enum fake_when when, int ctx, unsigned nth, fake_action action,
	     void *arg);
void fake_forget(void);
/* For the operations of the table. */
int fake_point(enum fake_op op, enum fake_when when, int ctx);

static inline uintptr_t fake_addr(unsigned page)
{
	return FAKE_BASE + (uintptr_t)page * PAGE;
}

static inline unsigned fake_number(uintptr_t addr)
{
	return (unsigned)((addr - FAKE_BASE) >> OS_PAGE_SHIFT);
}

/* ---- what the program does; pages by number ---- */
/* mmap(MAP_FIXED): unmaps first what is there. */
void fake_map(unsigned page, unsigned n, enum fake_object_name object, int prot);
void fake_map_at(unsigned page, unsigned n, enum fake_object_name object, int prot,
		 unsigned offset);
void fake_unmap(unsigned page, unsigned n);
/* A munmap that sends its messages and then fails (mseal). */
void fake_unmap_fails(unsigned page, unsigned n);
void fake_shmdt(unsigned page, unsigned n);
void fake_protect(unsigned page, unsigned n, int prot);
void fake_dontneed(unsigned page, unsigned n);
/* mremap(MREMAP_FIXED); dontunmap leaves the source mapped and registered. */
void fake_remap(unsigned from, unsigned to, unsigned n, bool dontunmap);
/* clone() without any handler: which child it is. Numbers of closed ones come again, late. */
unsigned fake_fork(void);
/* The child runs, and unmaps: nothing can be copied to it until that is read. */
void fake_child_unmaps(unsigned child, unsigned page, unsigned n);
void fake_mlock(unsigned page, unsigned n);
void fake_wipeonfork(unsigned page, unsigned n);
/* MADV_GUARD_INSTALL and REMOVE: no message. */
void fake_guard(unsigned page, unsigned n, bool install);
/* A store by the CPU of what is there already: the page is present and the program's own. */
void fake_touch(unsigned page, unsigned n);
/* Only a read: the zero page, or the file's. */
void fake_look(unsigned page, unsigned n);

/* ---- its CPUs ---- */
/* Begin a load or a store; it ends at once, or waits (cpu->waiting). */
void fake_cpu_read(struct fake_cpu *cpu, unsigned page);
void fake_cpu_write(struct fake_cpu *cpu, unsigned page, uint64_t value);
/* A signal ends the wait of a CPU. */
void fake_cpu_kill(struct fake_cpu *cpu);
/* The same, to the end: reader, worker and engine go on while it waits. */
uint64_t fake_read_page(unsigned page);
void fake_write_page(unsigned page, uint64_t value);
/* An atomic one. */
void fake_add_to_page(unsigned page, uint64_t value);
/* In a thread: what was changed by it has been read, and its callers go on. */
void fake_await_changes(void);

/* What a CPU that touched the page now would see. */
enum fake_sight { FAKE_SEES, FAKE_WAITS, FAKE_SIGSEGV, FAKE_SIGBUS };
enum fake_sight fake_sight(unsigned page, uint64_t *value);
/* What a driver's engine does with the library's memory; never with the program's. */
uint64_t fake_load(uintptr_t addr);
void fake_store(uintptr_t addr, uint64_t value);
/* Pages of regions that hold a value; and of the program. */
unsigned fake_count(uint64_t value);

/* ---- steps of changes ---- */
/* The nth of what is not GONE yet, oldest first; NULL. */
struct fake_change *fake_pending(unsigned nth);
void fake_queue(struct fake_change *change);
void fake_resume(struct fake_change *change);
/* Every step that is held back, and what follows of it. */
void fake_queue_all(void);
void fake_resume_all(void);
unsigned fake_changing(unsigned ctx);

/* ---- the library's threads, by hand ---- */
/* Does nothing where the real worker would sleep for a lock or runs a callback already. */
bool fake_worker(void);
void fake_reader(void);
/* Reader and worker until both rest. */
void fake_settle(void);
/* The context a page is registered with. */
int fake_ctx_of(unsigned page);
/* Say what is wrong and end the test. */
void fake_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* `op` refuses a page with err, `times` times. */
void fake_refuse(enum fake_op op, uintptr_t addr, int err, unsigned times);

/* fake_mm.c, for the table: what the calls of the system see */
struct fake_page *fake_page(uintptr_t addr);
/* Is there anything in the page: of its own, the file's, in swap, or a marker? */
bool fake_is_hole(const struct fake_page *page);
void fake_forget_page(struct fake_page *page);
void fake_notify_range(enum os_msg_kind kind, uintptr_t start, uintptr_t end);
bool fake_vma_at(uintptr_t addr, struct os_vma *vma);
int fake_scan(uintptr_t start, uintptr_t end, unsigned how, struct os_run *runs, unsigned max,
	      uintptr_t *next);
int fake_register(unsigned ctx, uintptr_t start, uintptr_t end, bool missing);
int fake_unmark(uintptr_t start, uintptr_t end);
int fake_unregister(unsigned ctx, uintptr_t start, uintptr_t end);
int fake_read(unsigned ctx, struct os_msg *msgs, unsigned max);
void fake_lock(void);
void fake_unlock(void);
unsigned fake_ctx_number(const struct os_ctx *ctx);
/* Is there a message, or a kick, or a nudge? */
bool fake_readable(void);
void fake_perf_close(struct os_perf *perf);

/* fake_threads.c, for the table: waiting, time, and the library's threads */
void fake_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void fake_wake_word(const uint32_t *word);
void fake_sleep(uint64_t ns);
uint64_t fake_now(void);
int fake_thread_start(struct os_thread **out, const char *name, bool critical, os_thread_fn fn,
		      void *arg);
void fake_thread_join(struct os_thread *thread);
int fake_run_detached(os_thread_fn fn, void *arg);

/* fake_cpu.c, for the rest of the fake */
/* Touch it, and sleep until it can be had; as populate(). */
int fake_touch_or_wait(uintptr_t addr, bool write);
void fake_wake(unsigned ctx, uintptr_t start, uintptr_t end);
int fake_read_faults(unsigned ctx, struct os_msg *msgs, unsigned max);
/* Let everybody go on once; false: nobody had anything to do. */
bool fake_go_on(void);
void fake_make_present(struct fake_page *page, bool write);

/* fake_move.c: the table's operations that move pages */
static inline int fake_child_fd(unsigned child, unsigned ctx)
{
	return 2000 + (int)(child * (CONTEXTS + 1) + ctx);
}

static inline unsigned fake_child_of(int fd)
{
	return (unsigned)(fd - 2000) / (CONTEXTS + 1);
}

int fake_ctx_register_missing(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
int fake_ctx_move(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done);
int fake_ctx_move_present(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src,
			  size_t length, size_t *done);
int fake_ctx_copy(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done);
int fake_ctx_zero(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done);
int fake_ctx_poison(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done);
int fake_ctx_wake(const struct os_ctx *ctx, uintptr_t start, size_t length);
int fake_child_copy(int child, uintptr_t dst, uintptr_t src, size_t length, size_t *done);
void fake_child_close(int child);
int fake_child_read(int child, struct os_msg *msgs, unsigned max);

/* fake_region.c: quiet contexts and regions */
int fake_quiet_open(struct os_ctx *ctx);
void fake_quiet_close(struct os_ctx *ctx);
/* The reader's thread has ended. */
void fake_quiet_gone(void);
void *fake_region_map(size_t length);
void fake_region_unmap(void *region, size_t length);
void fake_region_zap(uintptr_t start, size_t length);
/* Those that are left: an error of the library's, unless a test has failed. */
unsigned fake_regions_free(void);

#endif
