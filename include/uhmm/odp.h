/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: odp - one-sided access to the memory of another process, with page faults (drivers/odp)
 *
 * RDMA's on-demand paging (mlx5, rxe) without the hardware: a target makes memory of its
 * process reachable over a libfabric provider, an initiator elsewhere gets, puts and does
 * atomics at the target's own addresses. Nothing is pinned and nothing need be present: the
 * target faults pages in when a request asks for them, and forgets them when the program
 * unmaps, discards or re-protects them.
 *
 *	target:					initiator:
 *	  odp_target_open(NULL, &target);	  odp_connect(address, NULL, &odp);
 *	  odp_region_create(target, start,	  odp_get(odp, &key, dst, remote, length);
 *		length, ODP_READ, &region);	  odp_close(odp);
 *	  odp_region_key(region, &key);
 *
 * O1  A request reads and writes what is at its addresses after every change (G1) that
 *     happened before the target received it; never memory that was unmapped, or mapped anew
 *     and not asked for again, before it began.
 * O2  A request fails by itself: its result says why and at which address, and the
 *     connection lives. Only what breaks the protocol ends a connection.
 * O3  Who has no key that is valid for the range and the access gets -EACCES, whatever is
 *     there. A key is 128 random bits, of one region, until odp_region_destroy().
 * O4  A peer that dies, stalls or sends garbage takes its own connection's memory and no
 *     other's time: every connection has buffers of its own.
 *
 * The initiator's buffers are written by the target (RDMA): it is trusted with them. They are
 * registered by a cache (regcache.h) that is never stale.
 */
#ifndef UHMM_ODP_H
#define UHMM_ODP_H

#include <uhmm/regcache.h>

#ifdef __cplusplus
extern "C" {
#endif

struct odp_target;
struct odp_region;
struct odp;

/** struct odp_key - what an initiator needs to reach a region */
struct odp_key {
	uint64_t region;
	uint8_t secret[16];
};

#define ODP_KEY_TEXT 49 /* bytes, with the NUL */

/** odp_key_print() - a key in hexadecimal; @text: ODP_KEY_TEXT bytes. Return: @text */
UHMM_API char *odp_key_print(const struct odp_key *key, char *text);

/** odp_key_parse() - what odp_key_print() has printed. Return: 0; -EINVAL */
UHMM_API int odp_key_parse(struct odp_key *key, const char *text);

/* ---------------------------------------------------------------- target */

/**
 * struct odp_target_options - whose memory is reached, and how
 * @size: sizeof(struct odp_target_options)
 * @provider: of libfabric: "tcp", "verbs", "shm"; NULL: "tcp"
 * @node: address or name of an interface of this host to listen at; NULL: loopback only
 * @service: port; NULL: any that is free
 * @max_clients: connections at a time; more are refused; 0: 64
 * @piece: bytes; a transfer goes in pieces of at most so many, which fault and travel at the
 *	same time; a power of two from 4096 to 4 MiB; 0: 64 KiB
 * @depth: pieces on their way for each connection, 1 to 16; 0: 8. A connection has
 *	@piece times @depth bytes of memory
 * @workers: threads that serve page faults, 1 to 16; 0: 2
 */
struct odp_target_options {
	size_t size;
	const char *provider, *node, *service;
	unsigned max_clients;
	size_t piece;
	unsigned depth, workers;
};

/**
 * odp_target_open() - listen
 * @options: NULL: all zero
 * @target: where the handle goes
 *
 * Starts a thread for the fabric and the workers. Nothing is reachable before
 * odp_region_create().
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EINVAL an option; -E2BIG; -ENODEV there is no such provider here, or as
 * hmm_open(); -EADDRNOTAVAIL, -EADDRINUSE; -ENOMEM; -EAGAIN no thread.
 */
UHMM_API int odp_target_open(const struct odp_target_options *options,
			     struct odp_target **target);

/**
 * odp_target_close() - every connection ends; NULL is allowed
 * Its regions have to be destroyed before. Context: not a callback. In a forked child it only
 * forgets.
 */
UHMM_API void odp_target_close(struct odp_target *target);

/** odp_target_address() - what odp_connect() takes: "tcp://127.0.0.1:40123" */
UHMM_API const char *odp_target_address(const struct odp_target *target);

/* What may be done with a region. */
#define ODP_READ (1u << 0)   /* get */
#define ODP_WRITE (1u << 1)  /* put, atomic write */
#define ODP_ATOMIC (1u << 2) /* fetch-add, compare-swap */

/**
 * odp_region_create() - make memory reachable
 * @target: whose
 * @start: first address; @length: bytes; from 0 with UINTPTR_MAX: all memory that the process
 *	has or will have (implicit), the library's own excepted
 * @access: ODP_*, at least one
 * @region: where the handle goes
 *
 * Of an explicit region what is present is mapped at once, nothing is faulted in. The memory
 * need not exist. Context: any thread, not a callback; sleeps.
 * Return: 0; -EINVAL; -EOVERFLOW; -ENOMEM; -ENOSPC 4096 regions; -ENODEV; -EDEADLK.
 * Kernel counterpart: ib_umem_odp_get(), mlx5_ib_reg_user_mr() with IB_ACCESS_ON_DEMAND.
 */
UHMM_API int odp_region_create(struct odp_target *target, uintptr_t start, size_t length,
			       unsigned access, struct odp_region **region);

/**
 * odp_region_destroy() - revoke the key; NULL is allowed
 * When it returns the region's memory is touched no more; requests under way end with -EACCES.
 * Context: any thread, not a callback.
 */
UHMM_API void odp_region_destroy(struct odp_region *region);

/** odp_region_key() - what initiators need */
UHMM_API void odp_region_key(const struct odp_region *region, struct odp_key *key);

/**
 * enum odp_advice - what to do with a range ahead of its use
 * Kernel counterpart: ibv_advise_mr().
 */
enum odp_advice {
	ODP_PREFETCH = 0,	   /* fault in for reading */
	ODP_PREFETCH_WRITE = 1,	   /* and for writing; -EPERM if the region has no such access */
	ODP_PREFETCH_NO_FAULT = 2, /* map what is present */
};

/**
 * odp_region_advise() - the target's own advice
 * @region: a region; @start, @length: in it
 * @advice: what
 * @flush: return when it is done, and with its error; else a worker does it later
 * Context: as odp_region_create(). Return: 0; -EFAULT, -EPERM, ... as hmm_range_fault(), and
 * @start or @length outside of the region; -EINVAL; -EBUSY too much is waiting (not @flush).
 */
UHMM_API int odp_region_advise(struct odp_region *region, uintptr_t start, size_t length,
			       enum odp_advice advice, bool flush);

/** odp_region_lookup() - the page table's entry as it is now (HMM_PFN_*), 0 if none; no fence */
UHMM_API uint64_t odp_region_lookup(const struct odp_region *region, const void *addr);

/** struct odp_region_stats - pages, counted since create (mlx5: page_faults, ...) */
struct odp_region_stats {
	size_t size;
	uint64_t faults;	/* mapped because a request asked for them */
	uint64_t invalidations; /* taken away by a change */
	uint64_t prefetches;	/* mapped by advice, or at create */
	uint64_t mapped;	/* now */
};

/** odp_region_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void odp_region_get_stats(struct odp_region *region, struct odp_region_stats *stats);

/** struct odp_target_stats - counted since open, but for @clients */
struct odp_target_stats {
	size_t size;
	uint64_t clients;	/* now */
	uint64_t accepted, refused;
	uint64_t broken;	/* connections that broke the protocol */
	uint64_t requests, failed; /* requests; those that failed */
	uint64_t bytes_out, bytes_in;
	uint64_t inline_pieces; /* that were all mapped: copied at once */
	uint64_t worked;	/* that a worker had to fault in */
};

/** odp_target_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void odp_target_get_stats(struct odp_target *target, struct odp_target_stats *stats);

/* ------------------------------------------------------------- initiator */

/**
 * struct odp_options - a connection
 * @size: sizeof(struct odp_options)
 * @timeout_ms: a call that makes no progress for so long ends the connection; 0: 10,000
 * @no_cache: register each buffer for its transfer only; no mirror of this process is opened
 */
struct odp_options {
	size_t size;
	unsigned timeout_ms;
	bool no_cache;
};

/**
 * odp_connect() - to a target
 * @address: of odp_target_address()
 * @options: NULL: all zero
 * @odp: where the handle goes
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EINVAL the address; -ENODEV no such provider here; -ECONNREFUSED nobody listens,
 * or too many clients; -EHOSTUNREACH, -ENETUNREACH no way there; -EPROTO it speaks something
 * else; -ETIMEDOUT; -ENOMEM; as hmm_open().
 */
UHMM_API int odp_connect(const char *address, const struct odp_options *options,
			 struct odp **odp);

/** odp_close() - NULL is allowed. No call on it may be running. */
UHMM_API void odp_close(struct odp *odp);

/** enum odp_opcode - what an initiator asks for */
enum odp_opcode {
	ODP_GET = 1,	      /* [local] = [remote] */
	ODP_PUT = 2,	      /* [remote] = [local] */
	ODP_FETCH_ADD = 3,    /* 8 bytes, aligned: old = [remote]; [remote] += operand */
	ODP_COMPARE_SWAP = 4, /* old = [remote]; if it is compare, [remote] = operand */
	ODP_ATOMIC_WRITE = 5, /* [remote] = operand, 8 bytes at once */
	ODP_ADVISE = 6,	      /* operand: enum odp_advice; compare: 1: flush */
};

/**
 * struct odp_op - a request and its answer
 * @code: what
 * @key: of a region
 * @remote: address in the target's process
 * @local: GET, PUT: the buffer here
 * @length: bytes, GET, PUT, ADVISE
 * @operand, @compare: see enum odp_opcode
 * @result: out: 0; -EACCES no such key, or not for this range or access; -EFAULT, -EPERM,
 *	-EOPNOTSUPP the target's memory: @fault_addr, @fault_reason; -EINVAL an atomic that is not
 *	aligned; -EBUSY the target's memory changes all the time; -ENOMEM; -ESTALE the buffer here
 *	was replaced again and again meanwhile (one that is unmapped may be a signal: the provider
 *	may copy in this thread); -ECONNRESET, -ETIMEDOUT the connection has ended
 * @fault_addr, @fault_reason: out, if the target refused it: where and why
 * @old: out: of an atomic
 *
 * @fault_addr is the lowest address that failed, of a page. Transfers go in pieces, several at
 * the same time: any part of one that fails may have been transferred.
 */
struct odp_op {
	enum odp_opcode code;
	const struct odp_key *key;
	uint64_t remote;
	void *local;
	size_t length;
	uint64_t operand, compare;
	int result;
	uint64_t fault_addr;
	enum hmm_reason fault_reason;
	uint64_t old;
};

/**
 * odp_run() - several requests, overlapping
 * @odp: a connection; calls of several threads go one after the other
 * @ops: requests; their order is not kept
 * @n: how many
 * Context: any thread, not a callback; sleeps.
 * Return: how many failed (@ops[].result); negative only if nothing was tried: -EINVAL an
 * unknown code, a NULL key or buffer; -ENODEV a forked child.
 */
UHMM_API int odp_run(struct odp *odp, struct odp_op *ops, unsigned n);

/** odp_get() - one ODP_GET. Return: 0 or its result */
UHMM_API int odp_get(struct odp *odp, const struct odp_key *key, void *dst, uint64_t src,
		     size_t length);
/** odp_put() - one ODP_PUT. Return: 0 or its result */
UHMM_API int odp_put(struct odp *odp, const struct odp_key *key, uint64_t dst, const void *src,
		     size_t length);
/** odp_fetch_add() - one ODP_FETCH_ADD; @old may be NULL. Return: 0 or its result */
UHMM_API int odp_fetch_add(struct odp *odp, const struct odp_key *key, uint64_t addr,
			   uint64_t operand, uint64_t *old);
/** odp_compare_swap() - one ODP_COMPARE_SWAP. Return: 0 or its result */
UHMM_API int odp_compare_swap(struct odp *odp, const struct odp_key *key, uint64_t addr,
			      uint64_t compare, uint64_t desired, uint64_t *old);
/** odp_atomic_write() - one ODP_ATOMIC_WRITE. Return: 0 or its result */
UHMM_API int odp_atomic_write(struct odp *odp, const struct odp_key *key, uint64_t addr,
			      uint64_t value);
/** odp_advise() - one ODP_ADVISE. Return: 0 or its result */
UHMM_API int odp_advise(struct odp *odp, const struct odp_key *key, uint64_t addr,
			size_t length, enum odp_advice advice, bool flush);

/** struct odp_stats - counted since odp_connect() */
struct odp_stats {
	size_t size;
	uint64_t requests, failed;
	uint64_t uncached; /* buffers that were registered for their transfer only */
	struct hmm_regcache_stats cache; /* of the others' registrations; zeros with no_cache */
};

/** odp_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void odp_get_stats(struct odp *odp, struct odp_stats *stats);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_ODP_H */
