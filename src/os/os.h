/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * os - all that is asked of Linux, behind one table of functions.
 *
 * src/core calls the system through a `const struct os_ops *` only. os_live()
 * is the running kernel; tests/unit has a table of fakes that places every race
 * exactly. This folder knows nothing of mirrors, devices or notifiers.
 *
 * Every function returns 0 (or a count) or a negative errno, and takes no lock
 * that a caller could hold. None of them allocates from libc's malloc.
 */
#ifndef UHMM_OS_OS_H
#define UHMM_OS_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OS_PAGE_SHIFT 12
#define OS_PAGE_SIZE ((size_t)1 << OS_PAGE_SHIFT)

/* ---- a userfaultfd context in WP_ASYNC mode ---- */

struct os_ctx {
	int fd;	       /* in the program's descriptor table, moved out of its way */
	uint64_t ino;  /* which file it was (inode and device), to tell when the number is reused */
	bool fork;     /* EVENT_FORK is on (needs CAP_SYS_PTRACE) */
	bool user_only; /* UFFD_USER_MODE_ONLY */
	struct canary *canary; /* the live table's: pages that reader_kick zaps */
	bool nudged;	       /* set before ctx_open: it gets an eventfd for reader_nudge */
	int nudge;	       /* that; -1 none */
	uint64_t nudge_ino;
	bool move;	       /* UFFDIO_MOVE is there (Linux 6.8) */
	bool poison;	       /* UFFDIO_POISON is there (6.6) */
	bool unregisters_all;  /* UNREGISTER takes what another context has, too (before 6.15) */
	uintptr_t sentinel;    /* the live table's: the page of sentinel_open; else 0 */
	void *fake;    /* the unit tests' own */
};

enum os_msg_kind {
	OS_MSG_UNMAP,  /* [start, end) is unmapped already */
	OS_MSG_REMOVE, /* [start, end) is about to be zapped */
	OS_MSG_REMAP,  /* [start, end) moved to `to` already */
	OS_MSG_FORK,   /* a child was made; `child` is its context, to be closed by child_close */
	OS_MSG_FAULT,  /* a thread waits for the page `start`, which is missing */
};

struct os_msg {
	enum os_msg_kind kind;
	uintptr_t start, end, to;
	bool write; /* FAULT */
	int child;  /* FORK: descriptor in the reader's table */
};

/* ---- the ring that records mmap, mprotect and brk ---- */

struct os_perf; /* made by perf_open */

/* one mapping call: [start, end) now has `prot` (PROT_*) */
typedef void (*os_perf_fn)(void *arg, uintptr_t start, uintptr_t end, int prot);

/* ---- looking at mappings ---- */

enum os_vma_kind {
	OS_VMA_ANON, OS_VMA_HEAP, OS_VMA_STACK, OS_VMA_FILE, OS_VMA_SHMEM,
	OS_VMA_SYSV, /* SysV shared memory: shmdt sends no message; huge pages by page_size */
	OS_VMA_HUGETLB, OS_VMA_SPECIAL, /* vdso, vvar, vsyscall: never to be registered */
};

#define OS_VMA_NAME 256

struct os_vma {
	uintptr_t start, end;
	int prot;	     /* PROT_READ | PROT_WRITE | PROT_EXEC */
	bool shared;	     /* MAP_SHARED */
	enum os_vma_kind kind;
	uint64_t page_size;  /* of the mapping: 4096, or the hugetlb size */
	uint64_t offset;     /* in the file */
	uint64_t inode;
	uint32_t dev_major, dev_minor;
	char name[OS_VMA_NAME]; /* path, "[heap]", "" */
};

/* Whose address space vma_find, scan and copy look at. */
struct os_mm {
	pid_t pid;	/* 0: our own */
	int maps_fd;	/* /proc/PID/maps, or -1: opened for each question */
	int pagemap_fd;	/* /proc/PID/pagemap */
	int tasks_fd;	/* own: /proc/self/task, or -1: opened for each question */
	uint64_t pagemap_ino, maps_ino, tasks_ino; /* identity, as in os_ctx */
	bool slow; /* vma_find reads all of maps (no PROCMAP_QUERY: before Linux 6.11) */
};

#define OS_PAGE_PRESENT (1u << 0)
#define OS_PAGE_SWAPPED (1u << 1)
#define OS_PAGE_ZERO (1u << 2)
#define OS_PAGE_FILE (1u << 3)
#define OS_PAGE_HUGE (1u << 4)
#define OS_PAGE_UNMARKED (1u << 5) /* OS_SCAN_MARK: it did not bear the mark; it does now */

#define OS_VMA_MISSING (1u << 0)    /* registered MISSING with a userfaultfd */
#define OS_VMA_WIPEONFORK (1u << 1)
#define OS_VMA_LOCKED (1u << 2)	    /* mlocked */
#define OS_VMA_NOHUGE (1u << 3)	    /* no huge pages: MADV_NOHUGEPAGE, or MAP_STACK */

struct os_run {
	uintptr_t start, end;
	unsigned flags; /* OS_PAGE_* */
};

#define OS_THREAD_PAGES 512u

static inline bool os_has_page(const uint64_t *pages, size_t i)
{
	return pages[i / 64] >> i % 64 & 1;
}

#define OS_SCAN_CHECK (1u << 0)	    /* fail with -EPERM where the VMA is not registered WP_ASYNC */
#define OS_SCAN_POPULATED (1u << 1) /* report only runs that are present or swapped */
/* Mark what is present or swapped and no page of a file (userfaultfd-wp), and report that only;
 * alone. Anonymous mappings only (G7). On failure some may be marked that were not reported. */
#define OS_SCAN_MARK (1u << 2)

/* ---- mapping memory for a device ---- */

/* Whose I/O address space: a VFIO container with a type1 IOMMU, or one of an iommufd. */
struct os_iommu {
	int fd;
	bool iommufd;
	uint32_t ioas; /* iommufd */
};

#define OS_IOMMU_RANGES 16u

struct os_iommu_info {
	size_t granule; /* bytes: the smallest page */
	/* I/O addresses that may be used, both ends included; none: the kernel does not say. */
	unsigned n_ranges;
	struct {
		uint64_t first, last;
	} range[OS_IOMMU_RANGES];
};

typedef void *(*os_thread_fn)(void *arg);
struct os_thread; /* a running thread; made by thread_start */

struct os_ops {
	/* Open a context, non-blocking, with every event the privileges allow.
	 * -EPERM, -ENOSYS, -EMFILE, -EOPNOTSUPP (no WP_ASYNC). */
	int (*ctx_open)(struct os_ctx *ctx);
	void (*ctx_close)(struct os_ctx *ctx);
	/* In a forked child: close the inherited copy if the number still is it; no ioctl,
	 * which would act on the parent's memory. */
	void (*ctx_forget)(struct os_ctx *ctx);
	/* Is the descriptor still the file that ctx_open made? */
	bool (*ctx_is_ours)(const struct os_ctx *ctx);
	/* Events of [start, end). -EBUSY another context has it, -EINVAL hole or
	 * a kind that is refused, -EPERM a shared mapping of a file that was opened
	 * read-only, -ENOMEM. Arms no write protection (G7). */
	int (*ctx_register)(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
	/* -EINVAL: another context has something of it, and nothing was done; but see unregisters_all. */
	int (*ctx_unregister)(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);

	/*
	 * Moving pages. Reader only, but quiet_open and quiet_close. All but the first and ctx_wake
	 * answer -EAGAIN while a change of the context is pending, and then have done nothing beyond
	 * *done; -ENOENT where [dst, ...) is not registered with this context any more.
	 */
	/* As ctx_register, and missing pages fault (MISSING | WP). Also on top of ctx_register. It asks
	 * nobody whether a change is pending, no more than that does. */
	int (*ctx_register_missing)(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
	/* UFFDIO_MOVE, holes of the source allowed (they stay holes; *done counts them). *done is
	 * bytes from the start that were dealt with, on failure too; the error is that of the
	 * page at *done. -EEXIST a page or marker is at dst; -EBUSY the source is shared with
	 * another process (write to it first) or pinned; -EINVAL kinds, permissions or mlock
	 * differ; -EFAULT guard or poison; -ESRCH; -ENOMEM. Wakes who waits at dst. */
	int (*ctx_move)(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
			size_t *done);
	/* ctx_move of pages only: -ENODATA says that the page at *done is a hole, or that nothing is
	 * mapped there (which ctx_move tells apart), and that all before it had a page, if only
	 * the zero page. Dearer by nothing where there is no hole, and then no scan is needed. */
	int (*ctx_move_present)(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src,
				size_t length, size_t *done);
	/* UFFDIO_COPY: also into what is read-only. -EEXIST. Overwrites guard pages: only where
	 * the page is known to be away. Wakes. */
	int (*ctx_copy)(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
			size_t *done);
	/* UFFDIO_ZEROPAGE: the shared zero page where nothing is. -EEXIST. Wakes. */
	int (*ctx_zero)(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done);
	/* UFFDIO_POISON: touching it is SIGBUS. Wakes. -EEXIST, -EOPNOTSUPP. */
	int (*ctx_poison)(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done);
	/* Let who waits there fault again. */
	int (*ctx_wake)(const struct os_ctx *ctx, uintptr_t start, size_t length);
	/* A context that tells no events and registers regions only. -EOPNOTSUPP no MOVE. */
	int (*quiet_open)(struct os_ctx *ctx);
	void (*quiet_close)(struct os_ctx *ctx);
	/* The context of a forked child (OS_MSG_FORK): a copy into it; as ctx_copy. Its messages,
	 * as ctx_read: what the child does to its own memory once it runs (child_copy is -EAGAIN
	 * until that is read). It is not polled. And the end. */
	int (*child_copy)(int child, uintptr_t dst, uintptr_t src, size_t length, size_t *done);
	int (*child_read)(int child, struct os_msg *msgs, unsigned max);
	void (*child_close)(int child);
	/*
	 * A context that tells FORK only, and last: when it can be read, those of all other
	 * contexts of this clone have been read, and no change is pending in them that was
	 * not before or has begun since. Neither clone's caller nor child goes on until it is
	 * read. Polled, read, probed (-EAGAIN: a clone is under way) and closed as the others.
	 * -EPERM EVENT_FORK is not granted; -EEXIST no place above all that can be registered.
	 */
	int (*sentinel_open)(struct os_ctx *ctx);

	/* Memory for pages on their way: private, anonymous, writable, owned by the library
	 * (arena_owns), not inherited by a child, aligned to 2 MiB, nothing reserved. NULL, and
	 * errno: ENOMEM, or EAGAIN in a thread that never waits (arena.h). */
	void *(*region_map)(size_t length);
	void (*region_unmap)(void *region, size_t length);
	/* Discard pages of a region that is registered with a quiet context, or with none. */
	void (*region_zap)(uintptr_t start, size_t length);

	/* Keep changes of the address space from beginning, for a moment: region is populated. */
	void (*hush)(void *region, size_t length);

	/* Take OS_SCAN_MARK's marks off, whoever's mapping it is. -EAGAIN a change of this context is
	 * pending; -ENOENT nothing there, or not registered (then no page bears one). */
	int (*ctx_unmark)(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
	/* 0 no change is pending, -EAGAIN one is, other: the descriptor is lost. */
	int (*ctx_probe)(const struct os_ctx *ctx);
	/* Reader only. Sleep until a message is there, timeout_ns at most; -1: for ever. Sets bit i of
	 * *ready for ctxs[i]. Bit n: reader_kick woke us, and its message was read. Bit n + 1:
	 * reader_nudge was called since the last time it was said. n <= 62. Count of bits. */
	int (*ctx_poll)(const struct os_ctx *ctxs, unsigned n, int64_t timeout_ns,
			uint64_t *ready);
	/* Reader only. Up to max messages (and at most 16); 0 when there is none for the
	 * caller. Releases the callers of the changes. */
	int (*ctx_read)(const struct os_ctx *ctx, struct os_msg *msgs, unsigned max);
	/* Any thread, at most a system call, never waits: bit n + 1 of ctx_poll. Falls back on
	 * nothing: where the program has closed the eventfd the reader polls in ticks. */
	void (*reader_nudge)(const struct os_ctx *ctxs);
	/* Reader only, once, first: take a private descriptor table that holds the
	 * contexts only, so that the program's closefrom() cannot blind the reader. */
	int (*reader_isolate)(const struct os_ctx *ctxs, unsigned n);
	/* Wake ctx_poll: bit 0, and after a ctx_read of ctxs[0] bit n. From any thread that
	 * the reader does not wait for: it sleeps until the reader has read. */
	void (*reader_kick)(const struct os_ctx *ctxs, unsigned n);

	/* Reader only: one event for each thread and CPU, inherited. -EACCES or -EPERM
	 * (paranoid, seccomp, turned off), -ENOENT, -ENOSYS, -EMFILE, -ENOMEM. */
	int (*perf_open)(struct os_perf **perf);
	/* By the opener, or by another thread when the opener has ended. */
	void (*perf_close)(struct os_perf *perf);
	/* Is a record there that perf_drain has not seen? Any thread, no lock. */
	bool (*perf_pending)(const struct os_perf *perf);
	/* Under one lock: each record to fn. 1: the ring may have overflowed. */
	int (*perf_drain)(struct os_perf *perf, os_perf_fn fn, void *arg);

	int (*mm_open)(struct os_mm *mm, pid_t pid);
	void (*mm_close)(struct os_mm *mm);
	/* The VMA that holds addr, else the next above. -ENOENT none, -ESRCH gone. Without the address
	 * space's lock: what it finds is as a holder of the lock would find it, but it may miss what an
	 * mremap puts in another's place. */
	int (*vma_find)(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma);
	/* vma_find without name and kind (kind is FILE or ANON by inode): the fast path. */
	int (*vma_find_fast)(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma);
	/* Is this mapping of a file on a DAX filesystem or of /dev/dax? */
	bool (*vma_is_dax)(const struct os_mm *mm, const struct os_vma *vma);
	/* Size of the mapped file; -ENOENT if it cannot be told. */
	int64_t (*vma_file_size)(const struct os_mm *mm, const struct os_vma *vma);
	/* What smaps says of the own VMA at addr: OS_VMA_MISSING and so on. Slow (all of smaps
	 * is read); only for what nothing else tells. -ENOENT nothing is mapped there; -EIO it cannot be
	 * read (chroot, no descriptor is free). */
	int (*vma_flags)(uintptr_t addr, unsigned *flags);
	/* Does [start, end) touch writable data of libc, the dynamic linker or this library? */
	bool (*critical)(uintptr_t start, uintptr_t end);
	/* From now on the object that holds this code is critical as well. The main program
	 * never gets it. Takes the dynamic linker's lock. */
	void (*critical_add)(const void *function);
	/* Is any page of [start, end) one that the kernel itself accesses when a thread of this process
	 * ends or execs? It waits for no page then. All are where that cannot be told. `pages`:
	 * NULL, or a bit for each of up to OS_THREAD_PAGES pages. mm: the own. Any thread; it
	 * lists all threads. One may be made meanwhile: ask before a page leaves and again when it
	 * has left. */
	bool (*thread_pages)(const struct os_mm *mm, uintptr_t start, uintptr_t end,
			     uint64_t *pages);
	/* Runs of equal flags in [start, end), ascending; a page in no run, or in one
	 * without flags, is absent. Looked at with the address space's lock held; plainly (how 0)
	 * every page of a mapping is in a run, but for VM_PFNMAP.
	 * *next: where to go on (end when done). Count of runs; -EPERM (OS_SCAN_CHECK: also
	 * where nothing is mapped), -ESRCH gone. */
	int (*scan)(const struct os_mm *mm, uintptr_t start, uintptr_t end, unsigned how,
		    struct os_run *runs, unsigned max, uintptr_t *next);
	/* Of each of n pages the number of the machine's page that is mapped there, 0 if none is.
	 * -EPERM: numbers are not told to this process. */
	int (*page_frames)(const struct os_mm *mm, uintptr_t start, size_t n, uint64_t *frames);
	/* -ENOTTY, -EINVAL, -ENOENT: it is no such thing. */
	int (*iommu_info)(const struct os_iommu *iommu, struct os_iommu_info *info);
	/* Pin and map. -EOPNOTSUPP, -EFAULT it cannot be pinned; -ENOMEM, -ENOSPC a limit;
	 * -EEXIST something is mapped there. */
	int (*iommu_map)(const struct os_iommu *iommu, uint64_t iova, uintptr_t va, size_t length,
			 bool write);
	/* One mapping, as it was made. */
	int (*iommu_unmap)(const struct os_iommu *iommu, uint64_t iova, size_t length);
	/* Fault [start, end) in. -EFAULT no permission, past end of file, guard, poison;
	 * -ENOMEM not mapped, or no memory. */
	int (*populate)(uintptr_t start, uintptr_t end, bool write);
	/* As populate for reading, but only what is in the page cache already. */
	void (*populate_resident)(uintptr_t start, uintptr_t end);

	/* Fault-safe copy; -EFAULT. Own memory: in an access scope by plain
	 * instructions, else by system call or with the handlers checked first. */
	int (*copy_from)(const struct os_mm *mm, void *dst, uintptr_t src, size_t length);
	int (*copy_to)(const struct os_mm *mm, uintptr_t dst, const void *src, size_t length);
	int (*access_begin)(void); /* as handlers_arm; scopes nest */
	void (*access_end)(void);
	/* In a scope. -EFAULT; -EINVAL size, alignment, no scope; -EOPNOTSUPP not x86-64. */
	int (*access_add)(uintptr_t addr, size_t size, uint64_t operand, uint64_t *old);
	int (*access_cas)(uintptr_t addr, size_t size, uint64_t expected, uint64_t desired,
			  uint64_t *old);
	/* Put our SIGSEGV and SIGBUS handlers in front, if they are not. -ENOBUFS: the
	 * program has installed more than 32 different ones. */
	int (*handlers_arm)(void);

	/* Sleep while *word == expected, at most timeout_ns (0: for ever). */
	void (*wait)(const uint32_t *word, uint32_t expected, uint64_t timeout_ns);
	void (*wake)(const uint32_t *word);
	void (*sleep)(uint64_t ns);
	/*
	 * Has every other thread of the process, since this call began, been seen outside
	 * madvise(2) and process_madvise(2)? Either it slept in another system call, or it has
	 * had budget_ns of CPU time, enough to come from a message that was read to the
	 * address space's lock (a thread that was preempted inside has not), and has given up
	 * that lock since, or it has ended. 0; -EBUSY not within timeout_ns, or ten times that
	 * of one that is ready to run and gets no CPU (but for the lock, which may take as long
	 * as others discard memory). Any thread but reader and
	 * worker.
	 */
	int (*madvise_settled)(uint64_t budget_ns, uint64_t timeout_ns);
	/* Let others run that are ready on this CPU. */
	void (*yield)(void);
	uint64_t (*now)(void); /* ns, CLOCK_MONOTONIC */
	pid_t (*tid)(void);

	/* A thread with every asynchronous signal blocked, its stack from mmap with a
	 * guard page. `critical`: SIGSEGV and friends blocked too, short time slice. */
	int (*thread_start)(struct os_thread **thread, const char *name, bool critical,
			    os_thread_fn fn, void *arg);
	void (*thread_join)(struct os_thread *thread);
	/* A detached thread with libc's own stack, all signals blocked. */
	int (*run_detached)(os_thread_fn fn, void *arg);
};

/* The running kernel. */
const struct os_ops *os_live(void);

/* ---- what is there: src/os/feature.c, printed by `uhmm feature` ---- */

struct os_feature {
	const char *name;  /* "userfaultfd", "wp_async", "event_fork", "perf", ... */
	int err;	   /* 0 there; negative errno why not; -ECANCELED turned off by UHMM_OS_WITHOUT */
	const char *gives; /* what it is for */
	const char *costs; /* what its absence costs, and the cure */
};

/* Probe once; count of features; *features lives for ever. */
unsigned os_features(const struct os_feature **features);

/* Is `name` turned off by the environment variable UHMM_OS_WITHOUT, a comma list of
 * feature names? For tests of the fallbacks, and for a user with a bad kernel. */
bool os_without(const char *name);

#endif
