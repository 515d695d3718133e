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
 *	forked.c    fork: everything home before, the child's copies after a raw clone
 *	migrate.c   the public calls
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
/* The rest is the pager's. -ENOMEM: nothing was changed. */
int books_set(struct hmm *hmm, uintptr_t page, uint64_t entry);
void books_erase(struct hmm *hmm, uintptr_t page);
/* The first page at or above *at and below end that has an entry. */
bool books_next(struct hmm *hmm, uintptr_t *at, uintptr_t end, uint64_t *entry);

/* ---- frames.c ---- */

struct frame {
	_Atomic uintptr_t addr; /* the page whose bytes it has; 0: none */
	_Atomic uint32_t held;	/* hmm_devmem_frame_get() */
	_Atomic uint8_t locked; /* exclusive */
	uint8_t ctx;		/* host frames: in whose region the page lies */
	uint32_t since;		/* us, low bits: when it came here */
};

struct hmm_devmem {
	struct hmm *hmm;
	unsigned id;
	struct hmm_devmem_options options;
	const struct hmm_devmem_ops *ops;
	void *priv;
	struct frame *frame;
	_Atomic uint64_t *used; /* a bit each */
	_Atomic uint64_t in_use, hint;
	_Atomic bool lost, ending;
	uintptr_t region[CONTEXTS]; /* host frames: one for each context, made when needed */
	struct {
		_Atomic uint64_t in_use_max, to_device, to_host, cpu_faults, cpu_fault_pages, dropped,
			declined, failed, lost, timesliced;
	} count;
};

/* Up to n frames, in a row where there are; `align`: the first is congruent to it mod 512. */
unsigned frames_take(struct hmm_devmem *devmem, uint64_t *frames, unsigned n, uintptr_t align);
/* Any thread. The frame's page is gone already. */
void frame_give(struct hmm_devmem *devmem, uint64_t frame);

/* ---- transfer.c: up to a block of pages on their way ---- */

enum transfer_state {
	TRANSFER_FREE,
	TRANSFER_CLAIMED, /* by a thread, or by the pager */
	TRANSFER_TAKEN,	  /* isolated: in the buffer */
	TRANSFER_COPYING, /* the driver has it */
	TRANSFER_COPIED,  /* it is done with it; the pager's turn */
};

enum page_is {
	PAGE_NONE,    /* is not part of it, or stays at home */
	PAGE_BUFFER,  /* its bytes are in the buffer (out) or are about to be (home) */
	PAGE_HOLE,    /* out: zeros */
	PAGE_DROPPED, /* the program gave it up */
};

struct moving {
	uintptr_t addr;
	uint64_t frame;
	uintptr_t host; /* where it lies in the buffer, or in its host frame */
	enum page_is is;
	bool unsettled, shared; /* why it was not taken */
	bool at_frame;		/* host frames: the page is in its frame already */
};

/* On its way home, who asked: for the statistics. */
enum transfer_why { WHY_OUT, WHY_CALL, WHY_FAULT, WHY_FORK };

struct hmm_transfer {
	struct hmm *hmm;
	unsigned index;
	_Atomic uint32_t state;
	bool out;
	enum transfer_why why;
	struct hmm_devmem *devmem;
	unsigned ctx;
	/* Published (out): looks at [start, end) are put off while end != 0. */
	_Atomic uintptr_t start, end;
	unsigned n;
	struct moving page[BLOCK_PAGES];
	struct hmm_devmem_copy copy[BLOCK_PAGES];
	uint16_t copy_of[BLOCK_PAGES]; /* copy i is of page copy_of[i] */
	unsigned copies;
	_Atomic int err;
	uint64_t deadline; /* ns; of the copy */
};

#endif
