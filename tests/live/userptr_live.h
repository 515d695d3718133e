/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* userptr_live - what the cases of test_userptr share. */
#ifndef LIVE_USERPTR_LIVE_H
#define LIVE_USERPTR_LIVE_H

#include <stddef.h>
#include <stdint.h>

#include <uhmm/userptr.h>

#include "live.h"

#define PAGE ((size_t)4096)
#define MIB ((size_t)1 << 20)
#define SPACE (2 * MIB) /* of memory that a case works on: a huge page */

/* By which rules a device works; the cases run on each. */
struct rules {
	const char *name;
	enum userptr_mode mode;
	unsigned flags;
};
extern const struct rules live_rules[];
extern const unsigned live_rules_count;

enum kernel_name { SAXPY, HISTOGRAM, SPMV, REDUCE, SLOW, GRIND, WILD, KERNELS };

struct cl {
	struct userptr *dev;
	struct userptr_kernel *kernel[KERNELS]; /* that have been launched */
	bool shares;
	struct userptr_object *object; /* a case's own */
};

enum verdict cl_begin(struct cl *cl, const struct rules *rules);
void cl_end(struct cl *cl);
/* Its counts now. */
struct userptr_stats cl_stats(const struct cl *cl);

/* SPACE bytes of a kind of memory. */
struct memory {
	const char *kind;
	char *at;
	int fd; /* -1: none */
	int flags;
};
extern const char *const live_memories[];
extern const unsigned live_memories_count;
enum verdict memory_make(struct memory *m, const char *kind);
/* The same kind again at the same place: as it is when it is new. */
enum verdict memory_renew(struct memory *m);
void memory_end(struct memory *m);
/* Is it mapped (not of malloc), so that it can be unmapped? */
bool memory_is_mapped(const struct memory *m);

static inline struct userptr_arg arg_value(const void *value, size_t length)
{
	return (struct userptr_arg){ .kind = USERPTR_ARG_VALUE, .pointer = value,
				     .length = length };
}

static inline struct userptr_arg arg_pointer(const void *at, size_t length, unsigned access)
{
	return (struct userptr_arg){ .kind = USERPTR_ARG_POINTER, .pointer = at,
				     .length = length, .access = access };
}

static inline struct userptr_arg arg_object(struct userptr_object *object, unsigned access)
{
	return (struct userptr_arg){ .kind = USERPTR_ARG_OBJECT, .object = object,
				     .access = access };
}

#define RW (USERPTR_READ | USERPTR_WRITE)

/* userptr_run() or userptr_submit() (job not NULL) of `kernel`. */
int cl_launch(struct cl *cl, enum kernel_name kernel, const struct userptr_arg *args,
	      unsigned n_args, size_t global, size_t local, struct userptr_job **job);

/* ---- userptr_kernels.c ---- */
/* Each of the four kernels on `at`, SPACE bytes that an object covers; results are compared. */
enum verdict kernels_agree(struct cl *cl, char *at, unsigned seed);
/* saxpy alone, on the first `n` floats of each; `allowed`: besides 0, an errno that it may be. */
enum verdict saxpy_agrees(struct cl *cl, float *x, float *y, size_t n, unsigned seed,
			  int allowed);

/* ---- userptr_changes.c, userptr_races.c, userptr_refusals.c ---- */
enum verdict userptr_on_memory(const void *arg);
enum verdict userptr_churn(const void *arg);
enum verdict userptr_dropped(const void *arg);
enum verdict userptr_waits(const void *arg);
enum verdict userptr_restored(const void *arg);
enum verdict userptr_gone_while_running(const void *arg);
enum verdict userptr_replaced_while_stored(const void *arg);
enum verdict userptr_only_changed(const void *arg);
enum verdict userptr_bad_objects(const void *arg);
enum verdict userptr_bad_launches(const void *arg);
enum verdict userptr_bad_kernels(const void *arg);
enum verdict userptr_faults(const void *arg);
enum verdict userptr_forked(const void *arg);
enum verdict userptr_beside_gpu(const void *arg);
enum verdict userptr_midway(const void *arg);
enum verdict userptr_no_platform(const void *arg);
enum verdict userptr_other_platform(const void *arg);

#endif
