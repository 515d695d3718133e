/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * userptr - what its files share.
 *
 * Locks, in this order: `turn` (no callback takes it: who has it may fence, fault and wait for the
 * platform), `lock` (the update lock: invalidate takes it; who has it waits for nothing that
 * waits for a fence), the platform's own.
 */
#ifndef USERPTR_PRIVATE_H
#define USERPTR_PRIVATE_H

#define CL_TARGET_OPENCL_VERSION 200
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <uhmm/userptr.h>

#define PAGE ((uintptr_t)4096)
#define PIECE ((size_t)256 << 10) /* that is copied at once: it stays in a CPU's cache */
#define WRITES 256u		  /* from it, that are not waited for yet */
#define AGAIN_MS 1000		  /* as HMM_RANGE_DEFAULT_TIMEOUT */

/* How the kernel is given memory. */
enum reach {
	REACH_COPY,    /* a buffer of the device's own */
	REACH_SHARED,  /* CL_MEM_USE_HOST_PTR, and the device has no other memory */
	REACH_POINTER, /* fine-grain system SVM: any pointer will do */
};

/* What the device's buffer has of a page of memory: REACH_COPY. */
struct copied {
	uint64_t hash; /* of the bytes that are there, if `known` */
	uint64_t gone; /* the last job that was launched before the page went away; */
	uint64_t cleared; /* or may have been discarded (HMM_EVENT_CLEAR) */
	bool known;    /* under `turn` */
	/* Memory may have changed since it was copied. Set under `lock`, cleared before copying. */
	_Atomic bool stale;
};

struct userptr_object {
	struct userptr *dev;
	uintptr_t start;
	size_t length;
	unsigned flags;
	struct hmm_notifier *notifier; /* NULL: not REGISTER */
	struct userptr_object *next;   /* of the device; under `lock` */

	/* Under `lock`. */
	struct hmm_range seen;		 /* of its pages: valid as long as it need not be begun again */
	bool valid;			 /* no change has been told of since `seen` */
	bool evicted;			 /* kfd */

	/* Under `turn`. */
	cl_mem mem;
	struct hmm_dirty *dirty; /* which pages the CPU has written to; NULL: checksums say */
	uint64_t *changed;	 /* a bit a page: what `dirty` says */
	struct copied *pages;	 /* REACH_COPY */
};

/* What a launch does with an object. */
struct use {
	struct userptr_object *object;
	unsigned access;
	uintptr_t start, end;	/* no more of it is touched; */
	uintptr_t from, to;	/* nor written to, if it is */
	struct hmm_range begun; /* nothing that it got is older */
};

struct userptr_job {
	struct userptr *dev;
	struct userptr_job *next; /* that have been launched and not freed; under `lock` */
	uint64_t number;
	cl_event event;
	struct use uses[USERPTR_ARGS_MAX];
	unsigned n_uses;
	/* Buffers that were made for it alone. */
	cl_mem parts[USERPTR_ARGS_MAX];
	unsigned n_parts;
	bool stale; /* what it uses changed while it ran; under `lock` */
	/* guard.c: does it hear of failed accesses, and how many had there been before it? */
	bool watched;
	uint64_t faults;
};

struct userptr_kernel {
	struct userptr *dev;
	cl_program program;
	cl_kernel kernel;
	cl_uint n_args;
	cl_kernel_arg_address_qualifier where[USERPTR_ARGS_MAX]; /* 0: the platform does not say */
};

struct userptr {
	struct hmm *hmm;
	pid_t pid;
	enum userptr_mode mode;
	enum reach reach;
	bool checksum;
	unsigned restore_delay_ms;
	cl_device_id device;
	cl_context context;
	cl_command_queue queue;
	size_t max_length, align, local_bytes; /* 0: not known */
	char platform_name[128], device_name[128];

	pthread_mutex_t turn;
	unsigned char *piece;	/* PIECE bytes, on their way; */
	size_t filled;		/* so many, by */
	cl_event writes[WRITES];
	unsigned n_writes;

	pthread_mutex_t lock;
	struct userptr_object *objects;
	struct userptr_job *jobs;
	uint64_t number; /* of the last job */
	bool dead;	 /* the mirror is */
	/* kfd. */
	bool stopped, closing;
	uint64_t evicted; /* objects, ever */
	pthread_cond_t changed; /* stopped, closing */
	pthread_t restorer;
	bool has_restorer;

	struct {
		_Atomic uint64_t jobs, failed, again, validations, invalidations, waits,
			quiesced, restores, retries, pages_up, pages_down, pages_hashed,
			pages_dropped;
	} count;
};

static inline uintptr_t first_page(const struct userptr_object *o)
{
	return o->start & -PAGE;
}

static inline uintptr_t past_pages(const struct userptr_object *o)
{
	return (o->start + o->length + PAGE - 1) & -PAGE;
}

static inline size_t page_count(const struct userptr_object *o)
{
	return (past_pages(o) - first_page(o)) / PAGE;
}

static inline size_t page_index(const struct userptr_object *o, uintptr_t addr)
{
	return (addr - first_page(o)) / PAGE;
}

/* The locks and the queue of a forked child are its parent's. */
static inline int check_process(const struct userptr *dev)
{
	return dev->pid == getpid() ? 0 : -ENODEV;
}

/* ---- device.c ---- */
uint64_t userptr_ms(void); /* CLOCK_MONOTONIC */

/* ---- say.c ---- */
/* This thread's next userptr_strerror(err). Returns err. */
int userptr_say(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void userptr_hush(void);
/* How a call of the program begins: nothing is said yet; -EINVAL no device, -ENODEV a child's. */
static inline int begin_call(const struct userptr *dev)
{
	userptr_hush();
	return dev ? check_process(dev) : -EINVAL;
}
/* An OpenCL call's result: 0, or negative errno, said with what failed. */
int userptr_cl(cl_int result, const char *what);

/* ---- platform.c ---- */
/* Fills in device, context, queue and what is known of them. */
int userptr_find(struct userptr *dev, const struct userptr_options *options);
void userptr_lose(struct userptr *dev);

/* ---- object.c ---- */
/* Under `turn`: its pages are got, and `use->begun` says since when. */
int userptr_get_pages(struct use *use);
/*
 * An access failed: was it of memory that is being replaced? For a moment nothing seems to be
 * mapped where mmap(MAP_FIXED) or mremap() puts something else; then it has to be tried again.
 */
bool userptr_has_changed(struct userptr *dev, const struct hmm_range *since);
/* Under `turn`: the kernel's argument for [addr, end of its use). *mem: NULL: use the pointer. */
int userptr_buffer(struct userptr_job *job, struct userptr_object *object, uintptr_t addr,
		   cl_mem *mem);

/* ---- kernel.c ---- */
/* A platform believes what it is given: a value that it takes for a buffer ends the program. */
int userptr_check_arg(const struct userptr_kernel *kernel, unsigned i,
		      const struct userptr_arg *arg);

/* ---- args.c: under `turn` ---- */
/* The object that an argument names becomes one of the job's uses. */
int userptr_add_arg(struct userptr_job *job, const struct userptr_arg *arg);
int userptr_set_arg(struct userptr_job *job, cl_kernel kernel, cl_uint i,
		    const struct userptr_arg *arg);

/* ---- notify.c ---- */
extern const struct hmm_notifier_ops userptr_notifier_ops;
/* Under `lock`: wait until no launched job uses the object (NULL: any). Drops the lock meanwhile. */
void userptr_idle(struct userptr *dev, const struct userptr_object *object, bool count);

/* ---- evict.c: kfd ---- */
int userptr_restorer_start(struct userptr *dev);
void userptr_restorer_stop(struct userptr *dev);
/* Under `lock`. */
void userptr_evict(struct userptr_object *object);
/* Under `lock`: until the queue runs. -EBUSY not within a second; -ENODEV. */
int userptr_await_restore(struct userptr *dev);

/* ---- copy.c: REACH_COPY, under `turn` ---- */
/* The device's buffer has what memory has. */
int userptr_upload(const struct use *use);
/* What the job has written goes to memory. */
int userptr_download(const struct userptr_job *job, const struct use *use);

/* ---- changed.c ---- */
int userptr_watch(struct userptr_object *object);
void userptr_unwatch(struct userptr_object *object);
/* Under `turn`: mark those pages stale that may have changed since it was last asked. */
int userptr_find_changed(const struct use *use);

/* ---- hash.c ---- */
uint64_t userptr_hash(const void *bytes, size_t n);

/* ---- guard.c ---- */
/* Between these, threads that this thread starts are the platform's. */
void userptr_guard_begin(void);
void userptr_guard_end(void);
/* Accesses of the platform's threads that fail are told to such jobs. */
void userptr_guard_watch(struct userptr_job *job);
void userptr_guard_forget(struct userptr_job *job);
/* Has one failed since the job began? *where: the last. */
bool userptr_guard_fault(const struct userptr_job *job, uintptr_t *where);

#endif
