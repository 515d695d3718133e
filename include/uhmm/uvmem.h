/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: uvmem - secure memory for a program, after powerpc's book3s_hv_uvmem
 *
 * A range of the program becomes secure. From then on its pages live in memfd_secret
 * memory, which the kernel has no mapping of and lets nobody read from outside; a thread of
 * the program reads and writes them inside uvmem_run(). Whatever looks at the range any
 * other way - a plain load, /proc/PID/mem, a debugger, a core dump, a forked child, the
 * swap device, a file - finds bytes that are sealed (libsodium AEAD), and only those.
 *
 *	static int add(struct uvmem_side *side, void *arg) {
 *		long v;					// on a stack in secret memory
 *		int err = uvmem_load(side, &v, arg, sizeof(v));
 *		v++;
 *		return err ? err : uvmem_store(side, arg, &v, sizeof(v));
 *	}
 *	uvmem_init_start(uv, memory, length);		// still plain
 *	uvmem_init_done(uv);				// secure
 *	uvmem_run(uv, add, &memory[5]);
 *
 * What is promised (drivers/uvmem/README.md: how, and against whom not; the live test of
 * the same number shows it):
 *
 * U1  After uvmem_init_done() the plain bytes of the range are in secret memory and nowhere
 *     else that this driver has put them, at any time: what leaves leaves sealed.
 * U2  A page comes back only if it is the very bytes that were sealed last for its place:
 *     changed, swapped with another, or older ones are refused, and never shown.
 * U3  A page that is discarded (madvise, munmap) does not turn into zeros: it is refused
 *     until uvmem_erase() says that zeros are meant.
 * U4  Keys, versions and tags are in secret memory too. All of it is freed, and cleared by
 *     the kernel, when the process ends in whatever way; uvmem_close() clears it itself.
 * U5  A program that cannot have memfd_secret is told so, and gets nothing less unless it
 *     asks for it by name (uvmem_options.mlocked).
 *
 * Context: unless said otherwise any thread, not a callback of the library, not inside
 * uvmem_run(); sleeps. Every call in a forked child: -ENODEV. Errors are after the
 * hypercalls': H_UNSUPPORTED -EOPNOTSUPP, H_STATE -EBADFD, H_PARAMETER -EFAULT (not of the
 * range), H_P2 (flags) -EOPNOTSUPP, H_P3 (size) -EINVAL, H_AUTHORITY -EPERM, H_BUSY -EBUSY.
 * A page that is refused is -EBADMSG. uvmem_strerror() has a sentence for each.
 */
#ifndef UHMM_UVMEM_H
#define UHMM_UVMEM_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct uvmem;
struct uvmem_side;

/** enum uvmem_cipher - both are AEADs with 256 bit keys and 128 bit tags */
enum uvmem_cipher {
	UVMEM_CIPHER_ANY = 0,	    /* AES where the CPU has it, else the other */
	UVMEM_CIPHER_AES256GCM = 1, /* -EOPNOTSUPP where the CPU has no AES instructions */
	UVMEM_CIPHER_XCHACHA20POLY1305 = 2,
};

/**
 * struct uvmem_options - zero means default
 * @size: sizeof(struct uvmem_options)
 * @frames: secure pages in memory at once (default 1024, at least 16); the others are out,
 *	sealed. All of it counts for RLIMIT_MEMLOCK
 * @sides: threads that may be inside uvmem_run() at once (default 2, at most 16)
 * @scratch: bytes that uvmem_scratch() has for one uvmem_run() (default 64 KiB)
 * @cipher: of pages that leave
 * @mlocked: not memfd_secret but mlocked memory, left out of core dumps and of forked
 *	children. A debugger and /proc/PID/mem can read that: U1 holds for the named range
 *	only
 */
struct uvmem_options {
	size_t size;
	uint64_t frames;
	unsigned sides;
	size_t scratch;
	enum uvmem_cipher cipher;
	bool mlocked;
};

/**
 * uvmem_available() - can this process have secret memory?
 * @why: where a sentence with the cure goes if not; may be NULL; @size: of @why
 * Return: 0; -EOPNOTSUPP no memfd_secret: a kernel before 5.14 or without CONFIG_SECRETMEM,
 * one booted with secretmem.enable=0, or a seccomp filter; -ENOMEM RLIMIT_MEMLOCK is too
 * small.
 */
UHMM_API int uvmem_available(char *why, size_t size);

/**
 * uvmem_open() - frames, keys and the sides; nothing is secure yet
 * @options: may be NULL
 * @uv: where the handle goes
 * Return: 0; -EINVAL, -E2BIG an option; -EOPNOTSUPP as uvmem_available(), or the cipher;
 * -ENOMEM also for RLIMIT_MEMLOCK; as hmm_open() and hmm_devmem_create().
 */
UHMM_API int uvmem_open(const struct uvmem_options *options, struct uvmem **uv);

/**
 * uvmem_close() - the secret is gone; NULL is allowed
 * Pages that are in leave sealed first, so the range shows sealed bytes on, but the key is
 * cleared, and so is all other secret memory. Nobody may be inside uvmem_run().
 * Kernel counterpart: UV_SVM_TERMINATE.
 */
UHMM_API void uvmem_close(struct uvmem *uv);

/** uvmem_strerror() - what an error of this driver means; else hmm_strerror() */
UHMM_API const char *uvmem_strerror(int err);

/* -------------------------------------------------------------- states */

/** enum uvmem_state - of the whole */
enum uvmem_state {
	UVMEM_NORMAL = 0,    /* no range */
	UVMEM_TRANSIENT = 1, /* between init start and init done */
	UVMEM_SECURE = 2,
};
/** uvmem_state() - Context: any thread, any callback */
UHMM_API enum uvmem_state uvmem_state(const struct uvmem *uv);

/**
 * uvmem_init_start() - name the range that shall be secure
 * @start: page aligned; @length: bytes, a multiple of 4096; private anonymous memory that
 *	is mapped as a whole, readable and writable
 *
 * A page beside a thread's control block never leaves the program (devmem.h), and mmap() may
 * put memory just there: leave a page on either side, or uvmem_init_done() is -EBUSY.
 * Its bytes stay plain until they are paged in. The range stays where it is: pages that
 * mremap() takes elsewhere are refused there and here (U2) until they are back.
 * Return: 0; -EBADFD not UVMEM_NORMAL; -EINVAL; -EFAULT nothing is mapped in a part of it;
 * -EPERM a part may not be read and written; -EOPNOTSUPP a file, shared memory, huge pages
 * of hugetlb, the stack; -EEXIST a part is secure by another handle; -ENOMEM; -ENODEV.
 * Kernel counterpart: H_SVM_INIT_START.
 */
UHMM_API int uvmem_init_start(struct uvmem *uv, void *start, size_t length);

/**
 * uvmem_init_done() - page in what is plain still; the range is secure
 * Return: 0; -EBADFD not UVMEM_TRANSIENT; -EBUSY a page cannot leave the program (pinned
 * for I/O, mlocked, the C library's, under a guard): nothing has changed but that others
 * may be in; -EBADMSG a page that was in came back changed; -ENODEV.
 * Kernel counterpart: H_SVM_INIT_DONE.
 */
UHMM_API int uvmem_init_done(struct uvmem *uv);

/**
 * uvmem_init_abort() - back to normal: every page comes back to the program, plain
 * The program had those bytes before; the secure side has not run. Return: 0; -EBADFD not
 * UVMEM_TRANSIENT (a secure range ends with uvmem_close() only); -EBADMSG pages that were
 * changed while they were out stay as they are; the state is normal; -ENODEV.
 * Kernel counterpart: H_SVM_INIT_ABORT.
 */
UHMM_API int uvmem_init_abort(struct uvmem *uv);

/**
 * uvmem_page_in() - secure pages into secret memory
 * @start: in the range, page aligned; @length: a multiple of 4096
 * While transient: plain pages become secure. When secure: sealed ones are checked and
 * opened. Others leave if there is no room.
 * Return: pages that came in; -EBADFD normal; -EFAULT, -EINVAL; -EPERM one is shared;
 * -EBADMSG one is refused (others may have come in); -EBUSY as in uvmem_init_done();
 * -ENODEV.
 * Kernel counterpart: H_SVM_PAGE_IN.
 */
UHMM_API int64_t uvmem_page_in(struct uvmem *uv, void *start, size_t length);

/**
 * uvmem_page_out() - out of secret memory, sealed
 * The next access of the secure side brings them back. Return: pages that left; -EBADFD
 * normal; -EFAULT, -EINVAL; -ENODEV. Kernel counterpart: H_SVM_PAGE_OUT.
 */
UHMM_API int64_t uvmem_page_out(struct uvmem *uv, void *start, size_t length);

/**
 * uvmem_share() - pages that both sides use from now on, plain
 * They hold zeros: what was in them is not disclosed. The secure side must expect anything
 * there. Not beside uvmem_run() accesses of the same pages.
 * Return: 0; -EBADFD not secure; -EFAULT, -EINVAL; -EPERM one is shared; -ENODEV.
 * Kernel counterpart: H_SVM_PAGE_IN with H_PAGE_IN_SHARED.
 */
UHMM_API int uvmem_share(struct uvmem *uv, void *start, size_t length);

/**
 * uvmem_unshare() - secure again, and zeros. Return: as uvmem_share(); -EPERM one is not
 * shared
 */
UHMM_API int uvmem_unshare(struct uvmem *uv, void *start, size_t length);

/**
 * uvmem_erase() - these secure pages are zeros now, whatever they were
 * The way out of U2 and U3. Return: as uvmem_share().
 */
UHMM_API int uvmem_erase(struct uvmem *uv, void *start, size_t length);

/** enum uvmem_page - where a page is */
enum uvmem_page {
	UVMEM_PAGE_PLAIN =
		0,	   /* transient: the program's still. Secure: zeros, not used yet */
	UVMEM_PAGE_IN = 1, /* in secret memory */
	UVMEM_PAGE_OUT = 2,    /* sealed, in the program's memory */
	UVMEM_PAGE_SHARED = 3, /* plain, and both sides' */
	UVMEM_PAGE_LOST = 4,   /* discarded (U3) */
};
/** uvmem_page() - a look. Return: enum uvmem_page; -EFAULT not of the range; -ENODEV */
UHMM_API int uvmem_page(struct uvmem *uv, const void *addr);

/* --------------------------------------------------------- secure side */

/** typedef uvmem_fn - what runs on the secure side. Return: what uvmem_run() shall */
typedef int (*uvmem_fn)(struct uvmem_side *side, void *arg);

/**
 * uvmem_run() - run a function on the secure side, in the calling thread
 * @fn: what; @arg: handed to it
 *
 * It runs on a stack of 256 KiB in secret memory, so its locals are nobody else's; the
 * thread's signals wait until it is over, and vector registers are cleared then. It may
 * call anything, but what it hands out (system calls, pointers to ordinary memory) is out.
 * It returns, or the process ends: longjmp and exceptions do not leave it. A change of the
 * address space from before the call is known to it (G3).
 *
 * Return: what @fn returned; -EBADFD not secure; -EINVAL no @fn; -EDEADLK inside
 * uvmem_run(); as hmm_notifier_fence().
 */
UHMM_API int uvmem_run(struct uvmem *uv, uvmem_fn fn, void *arg);

/**
 * uvmem_load() / uvmem_store() - read and write the range, plain
 * @side: of this uvmem_run(); the address in the range is the program's own pointer
 *
 * The other end may be any memory: locals of @fn and uvmem_scratch() stay secret. Bytes
 * before a page that fails are copied. Not torn up to 8 aligned bytes; no order between
 * sides.
 * Return: 0; -EFAULT not of the range, or a shared page is unmapped; -EPERM a store to a
 * shared page that is read-only; -EBADMSG refused (U2, U3); -EBUSY as in uvmem_init_done(),
 * or the mapping is read-only; -ENODEV.
 */
UHMM_API int uvmem_load(struct uvmem_side *side, void *dst, const void *src, size_t length);
UHMM_API int uvmem_store(struct uvmem_side *side, void *dst, const void *src,
			 size_t length);

/** uvmem_scratch() - zeroed secret memory, until uvmem_run() ends. Return: NULL: no more */
UHMM_API void *uvmem_scratch(struct uvmem_side *side, size_t size);

/* ---------------------------------------------------------------- file */

#define UVMEM_KEY_BYTES 32

/**
 * uvmem_export() - the whole range to a file, sealed with a key of the caller's
 * @side: of this uvmem_run(), so that the key need not be in ordinary memory either
 * @fd: where to, a pipe will do; @key: UVMEM_KEY_BYTES; @generation: a number that grows
 *	with every export under that key
 * Shared pages are not in it. No two exports have a key in common (a salt each).
 * Return: 0; -EINVAL no @key; -EBADMSG a page is refused; of write(2); as uvmem_load().
 */
UHMM_API int uvmem_export(struct uvmem_side *side, int fd, const void *key,
			  uint64_t generation);

/**
 * uvmem_import() - the pages of such a file into the range
 * @at_least: the file's generation must be. That alone tells an old file from a new
 *	one: keep the number where you keep the key
 * @generation: out: what it is; may be NULL
 * On failure the whole range is erased. Shared pages stay. Not beside other sides.
 * Return: 0; -EBADMSG the file is not what was exported with this key: changed, mixed from
 * two, cut; -ESTALE older than @at_least (only said of a file that is true otherwise);
 * -EINVAL it is of another number of pages, or no @key; of read(2); as uvmem_store().
 */
UHMM_API int uvmem_import(struct uvmem_side *side, int fd, const void *key,
			  uint64_t at_least, uint64_t *generation);

/** struct uvmem_stats - counted since uvmem_open(), in pages */
struct uvmem_stats {
	size_t size;
	enum uvmem_cipher cipher; /* that is used */
	bool secret;		  /* memfd_secret, not mlocked memory */
	uint64_t frames, in_use;
	uint64_t taken;	  /* plain pages that became secure */
	uint64_t opened;  /* sealed pages that came in */
	uint64_t sealed;  /* pages that left, forked children's copies included */
	uint64_t refused; /* U2, U3 */
	uint64_t evicted; /* left for want of room */
	uint64_t runs;
};
/** uvmem_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void uvmem_get_stats(struct uvmem *uv, struct uvmem_stats *stats);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_UVMEM_H */
