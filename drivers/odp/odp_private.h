/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_private - the target: what its parts share.
 *
 *	target.c     opening and closing; the thread of the fabric
 *	connection.c connections: accepted, fed, ended
 *	job.c        a request, in pieces
 *	work.c       the threads that serve page faults
 *	region.c     regions, their keys
 *	access.c     a region's page table, and memory accesses through it
 *
 *	fabric.c     libfabric, for both sides; library.c loads it
 *	wire.c       messages, for both sides
 *	initiator.h  the other side
 *	serve.c      a target in a program that knows nothing of it
 *
 * Threads: one drives the fabric and owns connections and jobs; it never waits for memory.
 * What may sleep (a fence, a fault) is a struct work, done by a worker and handed back.
 *
 * Laws:
 * - Program memory is touched in access.c only, through a translation that is looked up under
 *   the region's `use` lock, which invalidate() takes for writing (G4).
 * - Before the first piece of a request comes a fence of its whole range (O1, G3).
 * - A region is found anew by its key for every piece: revoking waits for copies only.
 */
#ifndef ODP_PRIVATE_H
#define ODP_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include <uhmm/odp.h>
#include <uhmm/ptable.h>

#include "common.h"
#include "fabric.h"
#include "wire.h"

#define PAGE ((uintptr_t)4096)
#define PAGE_DOWN(a) ((a) & ~(PAGE - 1))
#define REGIONS 4096u
#define CLIENTS_MAX 1024u
#define DEPTH_MAX 16u
#define WORKERS_MAX 16u
#define CALLS 8u /* introductions at a time */
#define PIECE_MAX ((size_t)4 << 20)
#define ADVICE_STEP ((size_t)2 << 20) /* bytes; then others have their turn */
#define ADVICE_WAITS 16u	      /* advice of a client, that nobody waits for */

static inline uintptr_t page_up(uintptr_t at)
{
	return at > UINTPTR_MAX - PAGE ? UINTPTR_MAX : PAGE_DOWN(at + PAGE - 1);
}

struct odp_region {
	struct odp_target *target;
	struct odp_key key;
	uintptr_t start, end;
	unsigned access;
	unsigned users; /* under target->regions_lock: who found it and has not put it back */
	struct hmm_notifier *notifier;
	pthread_mutex_t update_lock; /* translations enter and leave */
	pthread_rwlock_t use;	     /* for reading: translations are used */
	struct uhmm_ptable table;    /* HMM_PFN_VALID, HMM_PFN_WRITE */
	struct {
		_Atomic uint64_t faults, invalidations, prefetches, mapped;
	} count;
};

enum access_kind { ACCESS_LOAD, ACCESS_STORE, ACCESS_ADD, ACCESS_SWAP, ACCESS_SET };

/* One access to program memory, and what became of it. */
struct access {
	enum access_kind kind;
	uintptr_t addr;
	size_t length;
	void *buffer; /* the driver's, for LOAD and STORE */
	uint64_t operand, compare, old;
	uint64_t fault_addr;
	enum hmm_reason reason;
};

enum work_kind { WORK_FENCE, WORK_ACCESS, WORK_ADVISE };

#define OF_JOB (-1)    /* the job's own */
#define OF_NOBODY (-2) /* advice that nobody waits for: freed when it is done */

/* What a worker does for a job; one at a time for each piece and for each job. */
struct work {
	struct work *next;
	enum work_kind kind;
	struct connection *connection; /* NULL: of the target's own, OF_NOBODY */
	unsigned slot;
	int piece; /* or OF_* */
	struct odp_key key;
	unsigned need; /* ODP_* */
	struct access access;
	enum odp_advice advice;
	int result;
};

/* What a completion is of; its address is the operation's context. */
struct tag {
	struct fi_context2 provider; /* first: the provider's own */
	struct connection *of;
	enum { TAG_RECEIVED, TAG_HELLO, TAG_ANSWER, TAG_PIECE, TAG_CALL } what;
	unsigned index;
};

/* WAITS: the provider had no room for its RDMA */
enum piece_state { PIECE_FREE, PIECE_WORKED, PIECE_WAITS, PIECE_TRAVELS };

struct piece {
	struct tag tag; /* of its RDMA */
	enum piece_state state;
	unsigned slot;
	uint8_t *buffer;
	uint64_t offset;
	size_t length;
	struct work work;
};

enum job_state { JOB_IDLE, JOB_RUNS, JOB_ANSWERS };

struct job {
	enum job_state state;
	uint64_t number; /* older jobs first */
	struct wire_request request;
	unsigned received; /* the message: its bytes are used until the answer */
	bool fenced, working;
	uint64_t next;	  /* bytes for which a piece was begun */
	unsigned pieces;  /* under way */
	struct wire_response answer;
	bool sent;	  /* the answer is posted */
	bool early;	  /* the next request came before the provider said that it was sent */
	unsigned early_received;
	struct wire_request early_request;
	struct tag tag;	  /* of its answer */
	struct work work;
};

struct connection {
	struct odp_target *target;
	struct connection *next;
	struct fid_ep *ep;
	fi_addr_t peer; /* without connections: the initiator's; else 0 */
	int process;	/* likewise: a pidfd; -1 */
	bool connected, greeted;
	_Atomic bool closing; /* workers drop its advice then */
	bool again; /* the provider had no room for something of it: try soon */
	uint64_t since; /* ns: when it was accepted */
	unsigned works;	 /* that workers have */
	unsigned advice; /* of them, that nobody waits for */
	uint64_t numbers;
	unsigned unposted; /* a bit for each buffer of a message that had no room to be posted */
	void *memory;	  /* all buffers */
	size_t bytes;
	struct fid_mr *mr; /* NULL: the provider wants none */
	struct tag received[WIRE_SLOTS], hello;
	struct job job[WIRE_SLOTS];
	struct piece piece[DEPTH_MAX];
};

struct work_queue {
	struct work *first, **end;
};

struct odp_target {
	struct hmm *hmm;
	pid_t pid;
	struct fabric fabric;
	struct fid_pep *pep;	  /* of a provider with connections; else */
	struct fid_ep *reception; /* where initiators introduce themselves */
	uint8_t (*calls)[WIRE_NAMED]; /* what they send there */
	struct tag call[CALLS];
	uint64_t looked; /* ns: whether peers' processes live */
	char address[192];
	size_t piece;
	unsigned depth, max_clients, n_workers;
	pthread_t thread, worker[WORKERS_MAX];
	int wake; /* eventfd: something is done, or stop */
	_Atomic bool stop;
	struct connection *connections, *ended;

	pthread_mutex_t regions_lock;
	pthread_cond_t regions_free; /* users of a region became 0 */
	struct odp_region *region[REGIONS];

	pthread_mutex_t work_lock;
	pthread_cond_t work_there;
	struct work_queue todo, advice; /* advice has its turn when nobody waits, and at times */
	struct work *done;
	unsigned turns, advising; /* workers that are at advice */
	unsigned own_advice;	  /* that waits */
	bool work_stop;

	struct {
		_Atomic uint64_t clients, accepted, refused, broken, requests, failed, bytes_out,
			bytes_in, inline_pieces, worked;
	} count;
};

/* ---- region.c ---- */
/* A use of the region that the key is of; NULL: it is of none. */
struct odp_region *region_find(struct odp_target *target, const struct odp_key *key);
void region_put(struct odp_region *region);
/* 0; -EACCES: not this range, or not for this. */
int region_allows(const struct odp_region *region, uint64_t addr, uint64_t length, unsigned need);

/* ---- access.c ---- */
int table_open(struct odp_region *region);
void table_close(struct odp_region *region);
/* 0, or -EAGAIN: not everything is mapped, or somebody changes it: access_wait(). */
int access_try(struct odp_region *region, struct access *access);
/* Faults in what it needs. As hmm_range_program(). */
int access_wait(struct odp_region *region, struct access *access);
/* A step of it: -EINPROGRESS, and *start is where to go on. */
int access_map_present(struct odp_region *region, uintptr_t *start, uintptr_t end);
/* A step of it: -EINPROGRESS, and addr and length are what is left. */
int access_advise(struct odp_region *region, struct access *access, enum odp_advice advice);

/* ---- work.c ---- */
void work_queues_init(struct odp_target *target);
int workers_start(struct odp_target *target);
void workers_stop(struct odp_target *target);
void work_give(struct odp_target *target, struct work *work);
/* Do one that waits, or a step of it. false: there is none. For workers, and tests. */
bool work_one(struct odp_target *target);
/* The target's own, which nobody waits for. -EBUSY: there is too much of it. */
int work_advise(struct odp_target *target, const struct odp_key *key, uintptr_t start,
		size_t length, enum odp_advice advice);
/* All that is done, since the last time. */
struct work *work_taken(struct odp_target *target);

/* ---- job.c; all in the fabric's thread ---- */
/* A message has come. false: it breaks the protocol. */
bool job_begin(struct connection *c, unsigned received, const void *message, size_t length);
void job_worked(struct connection *c, struct work *work);
void job_travelled(struct connection *c, struct piece *piece);
void job_answered(struct connection *c, struct job *job);
/* Everything that can go on. true: there are some. */
bool jobs_pump(struct connection *c);

/* ---- connection.c; all in the fabric's thread ---- */
void connection_accept(struct odp_target *target, struct fi_eq_cm_entry *request,
		       size_t data_length);
/* Without connections: somebody introduces himself. */
void connection_called(struct odp_target *target, const void *message, size_t length);
void connection_up(struct connection *c);
/* Does the peer's process live? */
bool connection_lives(const struct connection *c);
void connection_end(struct connection *c, const char *why, bool broken);
/* Those that have ended: endpoints are closed, and what the last call closed is freed. Between two
 * calls the queue of completions is read until it is empty. */
void connections_free(struct odp_target *target);
/* Everything that can go on. true: there are requests under way. */
bool connection_pump(struct connection *c);
void connection_completed(struct tag *tag, size_t length);
void *connection_desc(const struct connection *c);
uint8_t *received_buffer(const struct connection *c, unsigned i);
uint8_t *answer_buffer(const struct connection *c, unsigned slot);
/* The bytes of a message are used no more: the next one may come there. */
void receive_again(struct connection *c, unsigned received);

#endif
