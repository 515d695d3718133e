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
 * the test takes those steps itself.
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

#define FAKE_BASE ((uintptr_t)0x100000000000)
#define FAKE_PAGES 8192u
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
	uint8_t object;
	uint8_t prot;
	int16_t ctx;
	uint32_t offset; /* pages into the object */
	unsigned flags;	 /* OS_PAGE_*, 0 absent */
	uint64_t identity;
	uint64_t seen[2]; /* by fake.level, so that a look inside another does not hide it */
};

enum fake_state { FAKE_LET_GO, FAKE_QUEUED, FAKE_READ, FAKE_GONE };

struct fake_change {
	struct fake_change *next; /* older first */
	unsigned ctx;
	struct os_msg msg;
	enum fake_state state;
	uint64_t order; /* of queueing */
	bool hold_resume;
};

struct fake_ctx {
	bool open;
	unsigned changing;
	int lost; /* what a probe answers instead, -EBADF */
};

enum fake_op {
	FAKE_OP_PROBE, FAKE_OP_READ, FAKE_OP_REGISTER, FAKE_OP_UNREGISTER, FAKE_OP_FIND,
	FAKE_OP_FIND_FAST, FAKE_OP_SCAN, FAKE_OP_POPULATE, FAKE_OP_PENDING, FAKE_OP_DRAIN,
	FAKE_OP_RECORD, FAKE_OP_WAIT, FAKE_OP_SLEEP, FAKE_OPS,
};

enum fake_when { FAKE_BEFORE, FAKE_AFTER };

/* Non-zero before an operation: it answers that instead. */
typedef int (*fake_action)(void *arg);

struct fake {
	struct hmm *hmm;
	struct fake_page page[FAKE_PAGES];
	unsigned pages; /* in use; FAKE_PAGES unless the test takes fewer */
	struct fake_ctx ctx[CONTEXTS];
	unsigned contexts; /* opened so far */
	struct fake_change *changes;
	uint64_t stamp;	   /* of the newest change */
	uint64_t order;
	uint64_t clock;

	/* For the changes made while they are set. */
	bool hold_queue, hold_resume;

	bool no_perf, starting;
	struct { uintptr_t start, end; int prot; } record[FAKE_RECORDS];
	uint64_t head, tail; /* of the ring */
	bool overflow;

	unsigned level; /* which `seen` a scan sets */
	bool threads;	/* run the library's threads */
	bool kicked;
	unsigned calls[FAKE_OPS];
	_Atomic bool detached_done; /* the thread of run_detached() has ended */
};

extern struct fake fake;
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
void fake_fork(void);
/* A store by the CPU: the page is present and the program's own. */
void fake_touch(unsigned page, unsigned n);
/* Only a read: the zero page, or the file's. */
void fake_look(unsigned page, unsigned n);

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

/* fake_mm.c, for the table: what the calls of the system see */
bool fake_vma_at(uintptr_t addr, struct os_vma *vma);
int fake_scan(uintptr_t start, uintptr_t end, unsigned how, struct os_run *runs, unsigned max,
	      uintptr_t *next);
int fake_populate(uintptr_t start, uintptr_t end, bool write);
int fake_register(unsigned ctx, uintptr_t start, uintptr_t end);
int fake_unregister(unsigned ctx, uintptr_t start, uintptr_t end);
int fake_read(unsigned ctx, struct os_msg *msgs, unsigned max);
void fake_lock(void);
void fake_unlock(void);

#endif
