/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_private - the parts of secure memory and what each lock protects.
 *
 * Law of device memory (devmem.h): what serves a CPU's fault must not wait for one. Here
 * the library's reader and our engine serve them, and both take uv->lock. So who holds it
 * touches nothing but secret memory and struct uvmem, which never move, waits for nobody,
 * and is not interrupted by a signal handler of the program's: its own threads take it on a
 * side only (side.c), where signals wait and the stack is secret memory.
 *
 * Where secrets are, on their way too: frames; sides' and the engine's stacks; the pages'
 * tags and numbers (no secret, but whoever could change them could roll back); the key. All
 * in uv->secret. What comes from outside is copied into a frame before it is checked, so
 * nobody changes it between the check and the use.
 *
 * Lock order: call, sides.lock, lock. `call` is held by one hypercall at a time.
 */
#ifndef UVMEM_PRIVATE_H
#define UVMEM_PRIVATE_H

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <uhmm/uvmem.h>

#include "seal.h"
#include "secret.h"

#define UVMEM_PAGE ((uintptr_t)UVMEM_PAGE_SIZE)
#define UVMEM_STACK ((size_t)256 << 10)
#define UVMEM_SIDES_MAX 16u
#define UVMEM_BLOCK 16u /* pages that come or go together: 64 KiB, powerpc's page */
#define UVMEM_JOBS 256u /* more than the library has on the way at once */

/* A page of the range. uv->lock. */
struct uvmem_entry {
	uint64_t number; /* it was sealed by last */
	uint64_t frame;	 /* IN: frame + 1 */
	uint64_t mapped; /* frame + 1 while the secure side may use it */
	unsigned char tag[UVMEM_TAG_BYTES];
	uint8_t state;	 /* enum uvmem_page */
	bool sealed;	 /* IN: what was sealed last is what the frame holds */
	bool pristine;	 /* IN: what it was before it came in is as good */
	bool home;	 /* IN: it has been copied out, and not been found here since */
	int16_t refused; /* why it did not come in; 0 */
};

/* In secret memory, all of it. */
struct uvmem_side {
	struct uvmem *uv;
	struct uvmem_side *next; /* free ones; sides.lock */
	ucontext_t here, back;
	int (*fn)(struct uvmem_side *side, void *arg);
	void *arg;
	int result;
	bool found;  /* program() installed a translation */
	char *stack; /* UVMEM_STACK, behind a guard page */
	char *scratch;
	size_t used;
	char *bounce; /* a page */
};

struct uvmem_job {
	bool home;
	struct hmm_devmem_copy *copies;
	unsigned n;
	struct hmm_transfer *transfer;
};

struct uvmem_engine {
	struct uvmem_job job[UVMEM_JOBS];
	_Atomic uint32_t head, tail; /* the engine's, the reader's */
	_Atomic uint32_t bell;	     /* futex */
	atomic_bool stop;
	pthread_t thread;
	char *outer; /* its stack for libc's part, which cannot be secret (engine.c); NULL: not started */
	char *stack; /* UVMEM_STACK */
	ucontext_t *here, *back;
};

struct uvmem {
	struct hmm *hmm;
	struct hmm_notifier *notifier; /* of the range; NULL in UVMEM_NORMAL */
	struct uvmem *next_named;      /* hcall.c: others that have a range */
	struct hmm_devmem *devmem;
	pid_t pid;
	uint64_t frames;
	unsigned side_count;
	size_t scratch;
	bool mlocked;
	_Atomic int state;
	atomic_bool dead;      /* the mirror is */
	atomic_bool plain_out; /* an abort: pages go home plain */
	uint64_t hand; /* of evictions; atomic by `call` or not, it need not be exact */

	pthread_mutex_t call;
	pthread_mutex_t lock; /* the update lock: protects entries, owner */
	uintptr_t start;      /* of the range; these three change while no side runs */
	uint64_t pages;
	struct uvmem_entry *entry;

	struct uvmem_secret secret; /* what follows lies in it */
	struct uvmem_secret table;  /* the entries */
	struct uvmem_sealer *sealer;
	uint64_t *owner; /* of a frame: page of the range + 1; uv->lock */
	char *frame;
	uint64_t *number; /* of the last sealing; the engine's */

	struct uvmem_sides {
		pthread_mutex_t lock;
		pthread_cond_t cond;
		struct uvmem_side *free;
	} sides;
	struct uvmem_engine engine;
	struct uvmem_counters {
		_Atomic uint64_t taken, opened, sealed, refused, evicted, runs;
	} count;
};

static inline char *uvmem_frame(const struct uvmem *uv, uint64_t frame)
{
	return uv->frame + frame * UVMEM_PAGE;
}

static inline uintptr_t uvmem_address(const struct uvmem *uv, uint64_t place)
{
	return uv->start + place * UVMEM_PAGE;
}

/* UINT64_MAX: not of the range. */
static inline uint64_t uvmem_place(const struct uvmem *uv, uintptr_t addr)
{
	uintptr_t place = (addr - uv->start) / UVMEM_PAGE;

	return addr >= uv->start && place < uv->pages ? place : UINT64_MAX;
}

/* page.c: an entry and what happens to it */
int uvmem_take_in(struct uvmem *uv, const struct hmm_devmem_copy *copy);
void uvmem_stop_frames(struct uvmem *uv, const struct hmm_devmem_copy *copies, unsigned n);
int uvmem_let_out(struct uvmem *uv, const struct hmm_devmem_copy *copy);
void uvmem_frame_freed(struct uvmem *uv, uint64_t frame);
int uvmem_install(struct uvmem *uv, uint64_t place, uint64_t entry, bool *found);
void uvmem_forget(struct uvmem *uv, uintptr_t start, uintptr_t end);
void uvmem_be_sole(struct uvmem *uv);
void uvmem_reset(struct uvmem *uv, uint64_t place, uint64_t pages, enum uvmem_page state);

/* engine.c */
int uvmem_engine_start(struct uvmem *uv);
void uvmem_engine_put(struct uvmem *uv, const struct uvmem_job *job);
void uvmem_engine_stop(struct uvmem *uv);

/* devmem.c */
int uvmem_devmem_create(struct uvmem *uv);
bool uvmem_evict(struct uvmem *uv);
/* bring.c: on a side. Until the first of these pages is in, or all are. */
int uvmem_bring(struct uvmem_side *side, uint64_t place, uint64_t pages, bool all);

/* side.c */
int uvmem_sides_create(struct uvmem *uv);
bool uvmem_inside(const struct uvmem *uv);
/* Checks that this is no child and not inside. */
int uvmem_enter(struct uvmem *uv, int (*fn)(struct uvmem_side *side, void *arg), void *arg);
/* secret memory of one uvmem: how it is cut */
struct uvmem_layout {
	size_t sealer, number, owner, side, engine, frame, size;
	size_t side_size;
};
void uvmem_layout(const struct uvmem *uv, struct uvmem_layout *layout);

/* access.c: on a side, within the range; `data` is secret memory */
int uvmem_access(struct uvmem_side *side, uintptr_t addr, void *data, size_t length,
		 bool write);

/* hcall.c */
int uvmem_check_range(const struct uvmem *uv, const void *start, size_t length,
		      uint64_t *place, uint64_t *pages);
/* Out of the list of those that have a range. */
void uvmem_unlist(struct uvmem *uv);
/* On a side: all secure pages are zeros. */
int uvmem_zero_all(struct uvmem_side *side);

#endif
