/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/**
 * DOC: userptr - OpenCL buffers over memory that the program has (drivers/userptr)
 *
 * An object names a range of the program's memory, of any kind; a launch runs an OpenCL kernel on
 * such objects, or on pointers into them. Nothing is copied where the device shares memory with
 * the CPU; a device with memory of its own gets the pages that have changed since the last
 * launch, and gives back those that the kernel has written.
 *
 * It stands for the userptr of radeon and amdgpu (gfx), and of amdkfd:
 *
 * P1  A job begins with what its objects' addresses are at userptr_submit(): no change that was
 *     made before it is missing (G3), and one that is made while it is prepared is -EAGAIN.
 * P2  When invalidate() returns no job uses the object's memory (G4): it waits for those that do.
 * P3  What a job would have written to memory that is unmapped, moved away or discarded before
 *     userptr_wait() has stored it is dropped, not stored in what is mapped there now, and the
 *     wait says so (-ESTALE). A page that the kernel did not write to is not stored. (Not in all
 *     cases if another thread unmaps while userptr_wait() runs: drivers/userptr/README.md, Limits.)
 *
 * On a device that shares memory a job is like a thread of the program: memory that goes while it
 * runs is gone for it too. What its accesses do then is said at userptr_wait().
 *
 * The device is one of an OpenCL platform that the ICD loader knows: the first, or the first whose name
 * has what UHMM_OPENCL_PLATFORM says in it.
 */
#ifndef UHMM_USERPTR_H
#define UHMM_USERPTR_H

#include <uhmm/hmm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct userptr;
struct userptr_object;
struct userptr_kernel;
struct userptr_job;

/* ---------------------------------------------------------------- device */

/** enum userptr_mode - whose rules */
enum userptr_mode {
	/* amdgpu's graphics queues: an invalidate waits for the jobs that use the object; the next
	 * submit gets its pages anew, or is -EAGAIN. */
	USERPTR_GFX = 0,
	/* amdkfd's user queues: the first invalidate stops the queue, and 1 ms later a thread
	 * gets the pages of all objects anew and starts it again. Submits wait meanwhile. */
	USERPTR_KFD = 1,
};

/* Flags of struct userptr_options. */
#define USERPTR_COPY (1u << 0)	   /* as if the device had memory of its own */
#define USERPTR_CHECKSUM (1u << 1) /* look for changes by a checksum a page only */

/**
 * struct userptr_options - which device, and how
 * @size: sizeof(struct userptr_options)
 * @platform: part of a platform's name; NULL: as UHMM_OPENCL_PLATFORM says, else the first
 * @mode: see enum userptr_mode
 * @flags: USERPTR_COPY, USERPTR_CHECKSUM
 * @restore_delay_ms: USERPTR_KFD: from the first invalidate to the first try; 0: 1
 */
struct userptr_options {
	size_t size;
	const char *platform;
	enum userptr_mode mode;
	unsigned flags;
	unsigned restore_delay_ms;
};

/**
 * userptr_open() - a device of an OpenCL platform on this process
 * @options: NULL: all zero
 * @dev: where the handle goes
 *
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -ENODEV there is no OpenCL platform, none of that name, or it has no device, or this
 * is a forked child of a process that uses one (OpenCL does not survive that: exec() first);
 * -EINVAL an option; -E2BIG; -ENOMEM; -EIO the platform failed; as hmm_open().
 */
UHMM_API int userptr_open(const struct userptr_options *options, struct userptr **dev);

/**
 * userptr_close() - NULL is allowed
 * All objects, kernels and jobs of it must be gone. In a forked child it only forgets.
 * Context: any thread, not a callback; sleeps.
 */
UHMM_API void userptr_close(struct userptr *dev);

/** userptr_strerror() - what an error of this driver means: the last one's own sentence, if it left one */
UHMM_API const char *userptr_strerror(int err);

/** struct userptr_stats - counted since open, but for the names */
struct userptr_stats {
	size_t size;
	const char *platform, *device; /* good until userptr_close() */
	uint64_t shares;	       /* 1: it shares memory with the CPU, nothing is copied */
	uint64_t jobs, failed;	       /* launched; those whose wait had an error */
	uint64_t again;		       /* submits that were -EAGAIN */
	uint64_t validations;	       /* times that an object's pages were got */
	uint64_t invalidations;	       /* callbacks that it did not ignore */
	uint64_t waits;		       /* jobs that an invalidate had to wait for */
	uint64_t evictions, quiesced, restores; /* kfd: objects; queue stopped; started again */
	uint64_t retries;		       /* kfd: restores that something came between */
	uint64_t pages_up, pages_down; /* that were copied to the device; and stored in memory */
	uint64_t pages_hashed;	       /* that a checksum was made of, to see whether they changed */
	uint64_t pages_dropped;	       /* P3 */
};

/** userptr_get_stats() - fills in as much of @stats as @stats->size says */
UHMM_API void userptr_get_stats(struct userptr *dev, struct userptr_stats *stats);

/* --------------------------------------------------------------- objects */

/* Flags of an object; the numbers are those of struct drm_radeon_gem_userptr. */
#define USERPTR_READONLY (1u << 0) /* no job writes to it; the memory may be read-only */
#define USERPTR_ANONONLY (1u << 1) /* only anonymous memory will do */
#define USERPTR_VALIDATE (1u << 2) /* get its pages at once */
#define USERPTR_REGISTER (1u << 3) /* be told when the memory changes */

/**
 * userptr_object_create() - name a range
 * @dev: the device
 * @start: any address; whole pages are watched, exactly these bytes are used
 * @length: bytes, not 0
 * @flags: USERPTR_*
 * @object: where the handle goes
 *
 * The memory need not exist, without USERPTR_VALIDATE. Objects may overlap. An object without
 * USERPTR_REGISTER is looked at anew by each submit, page by page, and nothing is waited for.
 *
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EINVAL @length is 0, or an unknown flag; -EACCES neither READONLY nor REGISTER: who
 * writes must be told of changes (radeon, amdgpu); -EOVERFLOW the range wraps; -E2BIG more than
 * the device can have in one buffer; -ENOMEM; -ENODEV; with VALIDATE as userptr_validate().
 * Kernel counterpart: DRM_IOCTL_RADEON_GEM_USERPTR, DRM_IOCTL_AMDGPU_GEM_USERPTR.
 */
UHMM_API int userptr_object_create(struct userptr *dev, const void *start, size_t length,
				   unsigned flags, struct userptr_object **object);

/**
 * userptr_object_destroy() - NULL is allowed
 * Waits for the jobs that use it to end; what they wrote and no userptr_wait() has stored is
 * dropped. Context: any thread, not a callback.
 */
UHMM_API void userptr_object_destroy(struct userptr_object *object);

/**
 * userptr_validate() - get an object's pages now
 * @object: an object
 *
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EPERM ANONONLY, and there is a file or shared memory, or not READONLY, and the memory is;
 * -EFAULT no mapping, PROT_NONE, past the end of a file, guard page; -EOPNOTSUPP it cannot be
 * mirrored; -EBUSY it changes all the time; -ENOMEM; -ENODEV.
 * Kernel counterpart: amdgpu_ttm_tt_get_user_pages().
 */
UHMM_API int userptr_validate(struct userptr_object *object);

/**
 * userptr_object_valid() - has it pages that no change has been told of since? No fence
 * False for NULL, and in a forked child.
 */
UHMM_API bool userptr_object_valid(struct userptr_object *object);

/* --------------------------------------------------------------- kernels */

/**
 * userptr_kernel_create() - build a kernel from source
 * @dev: the device
 * @source: OpenCL C
 * @name: of the kernel in it
 * @options: of the compiler, or NULL
 * @kernel: where the handle goes
 *
 * Context: any thread, not a callback; may take seconds.
 * Return: 0; -ENOEXEC it does not build: userptr_strerror() has the beginning of the compiler's
 * message; -ENOENT no kernel of that name; -EINVAL; -ENOMEM; -EIO; -ENODEV.
 */
UHMM_API int userptr_kernel_create(struct userptr *dev, const char *source, const char *name,
				   const char *options, struct userptr_kernel **kernel);

/** userptr_kernel_destroy() - NULL is allowed. Context: any thread, not a callback. */
UHMM_API void userptr_kernel_destroy(struct userptr_kernel *kernel);

/* -------------------------------------------------------------- launches */

/** enum userptr_arg_kind - what an argument of a kernel is */
enum userptr_arg_kind {
	USERPTR_ARG_VALUE = 0,	 /* the @length bytes at @pointer */
	USERPTR_ARG_OBJECT = 1,	 /* an object's memory, from its start */
	USERPTR_ARG_POINTER = 2, /* memory at @pointer, in some object of the device */
	USERPTR_ARG_LOCAL = 3,	 /* @length bytes of local memory */
};

/* What a kernel does with an OBJECT or POINTER. */
#define USERPTR_READ (1u << 0)
#define USERPTR_WRITE (1u << 1)

/**
 * struct userptr_arg - an argument of a kernel
 * @kind: see there
 * @access: OBJECT, POINTER: USERPTR_READ, USERPTR_WRITE or both
 * @object: OBJECT
 * @pointer: VALUE, POINTER
 * @length: bytes; OBJECT, POINTER: the kernel touches no more than so many; 0: to the object's end
 */
struct userptr_arg {
	enum userptr_arg_kind kind;
	unsigned access;
	struct userptr_object *object;
	const void *pointer;
	size_t length;
};

#define USERPTR_ARGS_MAX 32u

/**
 * struct userptr_launch - a kernel, and what it runs on
 * @size: sizeof(struct userptr_launch)
 * @kernel: of the same device
 * @args: all of its arguments, in order
 * @n_args: at most USERPTR_ARGS_MAX
 * @dims: 1 to 3
 * @global: work items, less than 2^32 in all
 * @local: of a work group, in each dimension; all 0: the platform's choice
 */
struct userptr_launch {
	size_t size;
	struct userptr_kernel *kernel;
	const struct userptr_arg *args;
	unsigned n_args;
	unsigned dims;
	size_t global[3], local[3];
};

/**
 * userptr_submit() - start a job
 * @dev: the device
 * @launch: what; may be forgotten on return
 * @job: where the handle goes
 *
 * Fences its objects (P1), gets the pages of those that have none, gives the device what has
 * changed, and starts the kernel if nothing has changed meanwhile. Jobs of a device run one after the
 * other. One that is not waited for stores nothing on a device with memory of its own, but a later
 * job sees what it did there.
 *
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -EAGAIN the memory changed in between, submit again (gfx); -EINVAL the launch, an
 * argument, overlapping objects one of which is written to on a device with memory of its own,
 * or a pointer there that is not aligned as the device needs it; -EFAULT a pointer into no object,
 * or @length beyond its end, and as userptr_validate(); -EACCES a write to a READONLY object;
 * -EBUSY kfd: the queue could not be started again within a second; -ENOMEM; -EIO the platform
 * failed; -ENODEV.
 * Kernel counterpart: DRM_IOCTL_RADEON_CS, DRM_IOCTL_AMDGPU_CS; amdgpu_cs_submit().
 */
UHMM_API int userptr_submit(struct userptr *dev, const struct userptr_launch *launch,
			    struct userptr_job **job);

/**
 * userptr_wait() - until a job has ended and what it wrote is in memory; frees it
 * @job: dead on return
 *
 * Context: any thread, not a callback; sleeps.
 * Return: 0; -ESTALE P3: part of what it wrote was dropped, or on a device that shares memory
 * an object changed while it ran; -EFAULT an access of the kernel failed, or what it wrote
 * could not be stored (the memory is read-only or gone); -EIO the platform failed. Everything that
 * can be stored is, also on failure.
 *
 * On a device that shares memory an access that fails is a signal in a thread of the platform. Where
 * the driver knows those threads (x86-64; they were started by userptr_open()) the access is skipped, as a
 * GPU would, and the job ends with -EFAULT. Elsewhere the signal is the program's.
 */
UHMM_API int userptr_wait(struct userptr_job *job);

/**
 * userptr_run() - submit, again while it is -EAGAIN, and wait
 * @dev: the device; @launch: what
 * Context, return: as userptr_submit() and userptr_wait(); -EBUSY it was -EAGAIN for a second.
 */
UHMM_API int userptr_run(struct userptr *dev, const struct userptr_launch *launch);

#ifdef __cplusplus
}
#endif
#endif /* UHMM_USERPTR_H */
