/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * access - loads, stores, copies and atomics of a kernel.
 *
 * An access is cut at page borders. Each part is one access section (shootdown.c):
 * translate, then touch memory at the address that the translation gives, by the
 * library's fault-safe copy. A miss leaves the section and raises a fault; its answer
 * is: try again, or cancel the job, or (memory that cannot be mirrored) copy without a
 * translation and outside any section, since such memory may make us sleep for
 * somebody who waits for the worker (G6).
 *
 * The CPU's mapping can be gone while our translation still stands, until its event has
 * been read: the copy says -EFAULT then. That counts as a miss: the fault says so, the
 * handler drops the page's translation and looks anew, which fences. A store of several
 * bytes may be done in part before that and is repeated whole; an atomic is done once or
 * not at all.
 *
 * A section touches the page, the page table and the SM's own memory, nothing else: the
 * caller's buffer may be away, and a section that uses a frame must not sleep
 * (shootdown.c). So data passes through the SM's bounce buffer, but for what lies on
 * its stack. Frames of the GPU's own memory are plain memory: they are touched as they are.
 *
 * An atomic needs a translation that says so (GPU_PFN_ATOMIC): a frame, or system memory
 * where exclusive access cannot be had (exclusive.c). When the page was made exclusive for
 * it, the page is locked until the atomic has been tried once, so that no CPU's touch
 * can take it away again and again before that.
 */
#include <sched.h>
#include <string.h>
#include <time.h>

#include "gpu_private.h"

/* A page that changes as often as this under one access is given up. */
#define REPLAYS_MAX 1000
/* From here on the SM sleeps before it faults again, so that who changes it gets on. */
#define REPLAYS_EAGER 16
#define BACKOFF_NS 50000

/* One part of an access, within a page. */
struct part {
	uintptr_t addr;
	void *data; /* buffer; ATOMIC: the previous value, uint64_t */
	size_t length;
	enum gpu_access access;
	uint64_t operand; /* ATOMIC */
};

static int touch(struct gpu_sm *sm, const struct part *part, uintptr_t addr)
{
	switch (part->access) {
	case GPU_WRITE:
		return hmm_copy_to(sm->hmm, addr, part->data, part->length);
	case GPU_ATOMIC:
		return hmm_access_add(sm->hmm, addr, part->length, part->operand,
				      part->data);
	default:
		return hmm_copy_from(sm->hmm, part->data, addr, part->length);
	}
}

/* Up to 8 aligned bytes in one access, as the fault-safe copy does. One end is a frame. */
static void copy_frame(char *dst, const char *src, uintptr_t frame, size_t length)
{
	if (length == 8 && !(frame % 8))
		__atomic_store_n((uint64_t *)dst,
				 __atomic_load_n((const uint64_t *)src, __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
	else if (length == 4 && !(frame % 4))
		__atomic_store_n((uint32_t *)dst,
				 __atomic_load_n((const uint32_t *)src, __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
	else if (length == 2 && !(frame % 2))
		__atomic_store_n((uint16_t *)dst,
				 __atomic_load_n((const uint16_t *)src, __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
	else
		memcpy(dst, src, length);
}

static int touch_frame(const struct part *part, char *at)
{
	switch (part->access) {
	case GPU_WRITE:
		copy_frame(at, part->data, (uintptr_t)at, part->length);
		break;
	case GPU_ATOMIC:
		*(uint64_t *)part->data =
			part->length == 8
				? __atomic_fetch_add((uint64_t *)at, part->operand,
						     __ATOMIC_SEQ_CST)
				: __atomic_fetch_add((uint32_t *)at,
						     (uint32_t)part->operand,
						     __ATOMIC_SEQ_CST);
		break;
	default:
		copy_frame(part->data, at, (uintptr_t)at, part->length);
	}
	return 0;
}

/* One section. 0; -EAGAIN no translation; -EFAULT there is one, but the memory is gone. */
static int try_part(struct gpu_sm *sm, const struct part *part)
{
	uintptr_t offset = part->addr % GPU_PAGE;
	uint64_t entry;
	int err = -EAGAIN;

	gpu_sm_enter(sm);
	entry = gpu_sm_translate(sm, part->addr, gpu_need(part->access));
	if (entry) {
		if (__builtin_expect(sm->gpu->verify.on, 0))
			gpu_verify_access(sm, part->addr);
		if (__builtin_expect(hmm_pfn_is_device(entry), 0)) {
			err = touch_frame(part, gpu_frame_at(sm->gpu, entry) + offset);
			if (__builtin_expect(sm->gpu->verify.on, 0))
				gpu_verify_frame(sm, entry);
		} else {
			gpu_sm_system(sm);
			err = touch(sm, part,
				    (uintptr_t)hmm_pfn_number(entry)
						    << UHMM_PTABLE_PAGE_SHIFT |
					    offset);
		}
	}
	gpu_sm_leave(sm);
	return err;
}

static void back_off(unsigned replays)
{
	const struct timespec delay = {.tv_nsec = BACKOFF_NS};

	if (replays > REPLAYS_EAGER)
		nanosleep(&delay, NULL);
}

/* Rest while the queues are quiet; does not return if the job is cancelled. */
static void __attribute__((noinline, cold)) attend(struct gpu_sm *sm)
{
	gpu_sched_rest(sm);
	if (atomic_load_explicit(&sm->job->attention, memory_order_relaxed) & GPU_JOB_CANCELLED)
		siglongjmp(sm->cancel, 1);
}

static inline void check_cancelled(struct gpu_sm *sm)
{
	if (__builtin_expect(atomic_load_explicit(&sm->job->attention, memory_order_relaxed) != 0,
			     0))
		attend(sm);
}

static void __attribute__((noreturn)) cancel(struct gpu_sm *sm, const struct part *part,
					     int err, enum hmm_reason reason)
{
	gpu_cancel(sm, err, part->addr, part->length, part->access, reason);
}

/* No translation can be had: the CPU's own access. Returns only if that works. */
static void touch_unmirrored(struct gpu_sm *sm, const struct part *part)
{
	int err = touch(sm, part, part->addr);

	atomic_fetch_add(&sm->gpu->count.unmirrored, 1);
	if (err)
		cancel(sm, part, err, HMM_REASON_NOT_MIRRORABLE);
}

/* Until the part is done; does not return if it cannot be. */
static void __attribute__((noinline)) resolve(struct gpu_sm *sm, const struct part *part,
					      int err)
{
	struct gpu_fault fault = {.addr = part->addr, .access = part->access};
	unsigned replays;

	for (replays = 0; err; replays++) {
		check_cancelled(sm);
		fault.gone = err == -EFAULT;
		if (err != -EFAULT && err != -EAGAIN)
			cancel(sm, part, err, HMM_REASON_NONE);
		if (replays == REPLAYS_MAX)
			cancel(sm, part, err == -EAGAIN ? -EBUSY : err, HMM_REASON_NONE);
		back_off(replays);
		fault.locked = 0;
		fault.err = gpu_policy_fault(sm, &fault);
		if (!fault.err)
			gpu_fault_raise(sm->gpu, &fault);
		else if (fault.err > 0)
			fault.err = 0;
		else
			cancel(sm, part, fault.err, HMM_REASON_NONE);
		if (!fault.err)
			err = try_part(sm, part);
		if (fault.locked)
			hmm_exclusive_release(sm->gpu->exclusive.devmem, fault.locked - 1);
		if (fault.err == -EOPNOTSUPP) {
			touch_unmirrored(sm, part);
			return;
		}
		if (fault.err)
			cancel(sm, part, fault.err, fault.reason);
	}
}

static inline void access_part(struct gpu_sm *sm, const struct part *part)
{
	int err;

	check_cancelled(sm);
	err = try_part(sm, part);
	if (__builtin_expect(err != 0, 0))
		resolve(sm, part, err);
	if (__builtin_expect(sm->hot != 0, 0)) {
		gpu_migrate_hot(sm->gpu, sm->hot - 1);
		sm->hot = 0;
	}
}

static size_t within_page(uintptr_t addr, size_t length)
{
	size_t room = GPU_PAGE - addr % GPU_PAGE;

	return length < room ? length : room;
}

/* Memory that never moves: the SM's stack, and what gpu_copy() hands on. */
static inline bool is_own(const struct gpu_sm *sm, const void *data, size_t length)
{
	uintptr_t offset = (uintptr_t)data - (uintptr_t)sm->thread.stack;

	return (offset < GPU_STACK && length <= GPU_STACK - offset) || data == sm->carry;
}

static void __attribute__((noreturn)) bad_buffer(struct gpu_sm *sm, const struct part *part,
						 const void *data, int err)
{
	gpu_cancel(sm, err, (uintptr_t)data, part->length,
		   part->access == GPU_WRITE ? GPU_READ : GPU_WRITE, HMM_REASON_NONE);
}

/* By way of the bounce buffer; the caller's is touched outside the section only. */
static void __attribute__((noinline)) bounce_part(struct gpu_sm *sm, struct part *part,
						  void *data)
{
	int err = 0;

	part->data = sm->bounce;
	if (part->access == GPU_WRITE)
		err = hmm_copy_from(sm->hmm, sm->bounce, (uintptr_t)data, part->length);
	if (err)
		bad_buffer(sm, part, data, err);
	access_part(sm, part);
	if (part->access == GPU_READ)
		err = hmm_copy_to(sm->hmm, (uintptr_t)data, sm->bounce, part->length);
	if (err)
		bad_buffer(sm, part, data, err);
}

static inline void access_all(struct gpu_sm *sm, uintptr_t addr, void *data, size_t length,
			      enum gpu_access access)
{
	struct part part = {.addr = addr, .access = access};
	bool own = is_own(sm, data, length);

	for (; length; length -= part.length) {
		part.length = within_page(part.addr, length);
		if (__builtin_expect(own, 1)) {
			part.data = data;
			access_part(sm, &part);
		} else {
			bounce_part(sm, &part, data);
		}
		part.addr += part.length;
		data = (char *)data + part.length;
	}
}

void gpu_load(struct gpu_sm *sm, void *dst, const void *src, size_t length)
{
	access_all(sm, (uintptr_t)src, dst, length, GPU_READ);
}

void gpu_store(struct gpu_sm *sm, void *dst, const void *src, size_t length)
{
	access_all(sm, (uintptr_t)dst, (void *)src, length, GPU_WRITE);
}

/* Through a buffer of the SM, because a section may hold one translation only. */
void gpu_copy(struct gpu_sm *sm, void *dst, const void *src, size_t length)
{
	while (length) {
		size_t n = within_page((uintptr_t)src, length);

		gpu_load(sm, sm->carry, src, n);
		gpu_store(sm, dst, sm->carry, n);
		src = (const char *)src + n;
		dst = (char *)dst + n;
		length -= n;
	}
}

static uint64_t atomic_add(struct gpu_sm *sm, uintptr_t addr, size_t size, uint64_t operand)
{
	uint64_t old = 0;
	struct part part = {
		.addr = addr,
		.data = &old,
		.length = size,
		.access = GPU_ATOMIC,
		.operand = operand,
	};

	/* Misaligned it might be two pages, which no section covers. */
	if (addr % size)
		gpu_cancel(sm, -EINVAL, addr, size, GPU_ATOMIC, HMM_REASON_NONE);
	access_part(sm, &part);
	return old;
}

uint64_t gpu_atomic_add_u64(struct gpu_sm *sm, void *addr, uint64_t operand)
{
	return atomic_add(sm, (uintptr_t)addr, sizeof(uint64_t), operand);
}

uint32_t gpu_atomic_add_u32(struct gpu_sm *sm, void *addr, uint32_t operand)
{
	return (uint32_t)atomic_add(sm, (uintptr_t)addr, sizeof(uint32_t), operand);
}

struct copy_job {
	void *dst;
	const void *src;
	size_t length;
};

static void read_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct copy_job *job = arg;

	gpu_load(sm, job->dst, job->src, job->length);
}

static void write_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct copy_job *job = arg;

	gpu_store(sm, job->dst, job->src, job->length);
}

static int run_copy(struct gpu_queue *queue, gpu_kernel kernel, struct copy_job *job)
{
	struct gpu_fence *fence;
	int err = gpu_submit(queue, kernel, job, 1, &fence);

	return err ? err : gpu_wait(fence, NULL);
}

int gpu_read(struct gpu_queue *queue, void *dst, const void *src, size_t length)
{
	return run_copy(queue, read_kernel, &(struct copy_job){dst, src, length});
}

int gpu_write(struct gpu_queue *queue, void *dst, const void *src, size_t length)
{
	return run_copy(queue, write_kernel, &(struct copy_job){dst, src, length});
}
