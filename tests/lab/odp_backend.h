/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_backend - who pages on demand: the kernel for rxe, or one in user space. The same
 * list of operations (odp_cases.c, odp_advice.c) is run with each, and what they say is
 * compared.
 *
 * A backend is one peer, and memory of this process that the peer may use after reg(). Its
 * calls are made from one thread.
 */
#ifndef ODP_BACKEND_H
#define ODP_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include <uhmm/odp.h> /* enum odp_advice: what ibv_advise_mr() has */

#include "lab.h"

/*
 * How an operation of the peer's ended. On the wire a responder has few words: rxe says
 * ODP_ACCESS for no memory, not that way and past the end. A backend that knows which says
 * it, and odp_agree() takes it for the same.
 */
enum odp_result {
	ODP_OK,
	ODP_ACCESS,
	ODP_FAULT,	/* nothing is mapped there */
	ODP_PERMISSION, /* it is, but not for that */
	ODP_BOUNDS,	/* not within the registered memory */
	ODP_REQUEST,	/* no such operation: an atomic that is not aligned */
	ODP_OPERATION,	/* the responder could not */
	ODP_SILENT,	/* nobody answered */
	ODP_BROKEN,	/* anything else: of the test's own side */
};

enum odp_may {
	ODP_MAY_READ = 1,
	ODP_MAY_WRITE = 2,
	ODP_MAY_ATOMIC = 4,
	ODP_MAY_ALL = 7,
	ODP_PINNED = 8, /* an ordinary registration, not on demand */
};

/* All return a negative errno or 0, but the four operations. */
struct odp_backend {
	const char *name;
	/* PASS and *dev; or SKIP with the reason: there is none here. */
	enum verdict (*open)(void **dev);
	int (*reg)(void *dev, void *start, size_t length, unsigned may, void **mr);
	void (*unreg)(void *dev, void *mr);
	/* The peer's read of memory at `at` into `to`, and write of what is in `from`. */
	enum odp_result (*get)(void *dev, void *mr, const void *at, void *to, size_t n);
	enum odp_result (*put)(void *dev, void *mr, void *at, const void *from, size_t n);
	enum odp_result (*fetch_add)(void *dev, void *mr, void *at, uint64_t add,
				     uint64_t *old);
	enum odp_result (*compare_swap)(void *dev, void *mr, void *at, uint64_t expected,
					uint64_t desired, uint64_t *old);
	/* May be NULL: it takes no advice. flush: return when it was followed. */
	int (*advise)(void *dev, void *mr, enum odp_advice advice, bool flush, void *at,
		      size_t length);
	void (*close)(void *dev);
};

extern const struct odp_backend odp_kernel, odp_cpu, odp_uhmm, odp_uhmm_verbs;

/* The longest operation. */
#define ODP_BYTES (2 * PAGE)

/* Of each backend that is there; the first of them is what others are compared with. */
#define ODP_BACKENDS 4u
struct odp_open {
	const struct odp_backend *backend;
	void *dev;
};
/* advised: only those that take advice. */
enum verdict odp_open_all(struct odp_open *open, unsigned *n, bool advised);
void odp_close_all(struct odp_open *open, unsigned n);

/* "error:access", ... */
const char *odp_word(enum odp_result result);
/* Is it the same, but for what the wire cannot say? */
bool odp_agree(const char *one, const char *other);

/* The cases, in two files. */
struct odp_cases {
	struct live_case *cases;
	size_t n, room;
};
void odp_add(struct odp_cases *list, enum verdict (*run)(const void *), const void *arg,
	     const char *name);
void odp_add_changes(struct odp_cases *list);
void odp_add_registrations(struct odp_cases *list);
void odp_add_advice(struct odp_cases *list);

#endif
