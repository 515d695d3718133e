/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * safecopy - copies that answer -EFAULT where a touch would be a signal.
 *
 * Three ways, for our own memory:
 * - plain instructions, in an access scope: the thread has SIGSEGV and SIGBUS unblocked
 *   and our handlers are in front (handlers.c);
 * - process_vm_readv on ourselves, for what is short and not in a scope. It keeps to
 *   the permissions of the mapping. Seccomp profiles of containers refuse it: then
 *   the third way. Never process_vm_writev: it pins the pages and writes to them then, so
 *   that a page that is write-protected meanwhile changes without a fault (dirty.h, W1);
 * - a scope of our own around plain instructions, for what is long, and for aligned 2, 4
 *   and 8 bytes, which the system call does not promise to copy in one access.
 * Other processes' memory: process_vm_readv/writev.
 *
 * Other architectures than x86-64 have the system call only.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "os/live.h"
#include "os/safecopy.h"

#define SHORT ((size_t)64 << 10)
/* The kernel moves less than 2 GiB a call. */
#define CALL_MAX ((size_t)1 << 30)

#define FAULTS (UINT64_C(1) << (SIGSEGV - 1) | UINT64_C(1) << (SIGBUS - 1))

/* Of this thread. Initial-exec: a signal handler may not make libc allocate it. */
static __thread struct {
	unsigned depth;
	uint64_t blocked; /* of FAULTS, before the outermost scope */
} scope __attribute__((tls_model("initial-exec")));

static int copy_by_call(pid_t pid, void *local, uintptr_t remote, size_t length, bool write)
{
	char *at = local;

	while (length) {
		size_t part = length < CALL_MAX ? length : CALL_MAX;
		struct iovec here = { at, part }, there = { (void *)remote, part };
		ssize_t done = write ? process_vm_writev(pid, &here, 1, &there, 1, 0)
				     : process_vm_readv(pid, &here, 1, &there, 1, 0);

		if (done < 0)
			return -errno;
		if (!done)
			return -EFAULT;
		at += done;
		remote += (size_t)done;
		length -= (size_t)done;
	}
	return 0;
}

#if defined(__x86_64__)

static int copy_plain(void *dst, const void *src, size_t length)
{
	switch (length) {
	case 1:
		return safecopy_1(dst, src);
	case 2:
		return safecopy_2(dst, src);
	case 4:
		return safecopy_4(dst, src);
	case 8:
		return safecopy_8(dst, src);
	default:
		return safecopy_bytes(dst, src, length);
	}
}

static bool one_access(uintptr_t remote, size_t length)
{
	return (length == 2 || length == 4 || length == 8) && !(remote & (length - 1));
}

static int copy_in_scope(void *dst, const void *src, size_t length)
{
	int err = live_access_begin();

	if (err)
		return err;
	err = copy_plain(dst, src, length);
	live_access_end();
	return err;
}

static int copy_own(void *local, uintptr_t remote, size_t length, bool write)
{
	void *dst = write ? (void *)remote : local;
	const void *src = write ? local : (const void *)remote;
	int err;

	if (scope.depth)
		return copy_plain(dst, src, length);
	if (!write && length < SHORT && !one_access(remote, length) && feature_process_vm()) {
		/* By thread: the first one may have ended before the process. */
		err = copy_by_call(live_tid(), local, remote, length, false);
		if (err != -EPERM && err != -ENOSYS)
			return err;
		feature_process_vm_refused();
	}
	return copy_in_scope(dst, src, length);
}

static uint64_t mask_change(int how, uint64_t set)
{
	uint64_t before = 0;

	syscall(SYS_rt_sigprocmask, how, &set, &before, sizeof(before));
	return before;
}

int live_access_begin(void)
{
	int err = live_handlers_arm();

	if (err)
		return err;
	if (!scope.depth++)
		scope.blocked = mask_change(SIG_UNBLOCK, FAULTS) & FAULTS;
	return 0;
}

/* Only these two signals: the rest of the mask may have been changed in the scope. */
void live_access_end(void)
{
	if (!scope.depth || --scope.depth)
		return;
	if (scope.blocked)
		mask_change(SIG_BLOCK, scope.blocked);
}

static bool may_be_atomic(uintptr_t addr, size_t size)
{
	return (size == 4 || size == 8) && !(addr & (size - 1)) && scope.depth;
}

int live_access_add(uintptr_t addr, size_t size, uint64_t operand, uint64_t *old)
{
	uint64_t before;
	int err;

	if (!may_be_atomic(addr, size))
		return -EINVAL;
	err = size == 4 ? safecopy_add4(addr, (uint32_t)operand, &before)
			: safecopy_add8(addr, operand, &before);
	if (!err && old)
		*old = before;
	return err;
}

int live_access_cas(uintptr_t addr, size_t size, uint64_t expected, uint64_t desired,
		    uint64_t *old)
{
	uint64_t before;
	int err;

	if (!may_be_atomic(addr, size))
		return -EINVAL;
	err = size == 4 ? safecopy_cas4(addr, (uint32_t)expected, (uint32_t)desired, &before)
			: safecopy_cas8(addr, expected, desired, &before);
	if (!err && old)
		*old = before;
	return err;
}

#else

/* W1 does not hold for a write while a collect is under way. */
static int copy_own(void *local, uintptr_t remote, size_t length, bool write)
{
	return copy_by_call(live_tid(), local, remote, length, write);
}

int live_access_begin(void)
{
	scope.depth++;
	return 0;
}

void live_access_end(void)
{
	scope.depth -= !!scope.depth;
}

int live_access_add(uintptr_t addr, size_t size, uint64_t operand, uint64_t *old)
{
	return -EOPNOTSUPP;
}

int live_access_cas(uintptr_t addr, size_t size, uint64_t expected, uint64_t desired,
		    uint64_t *old)
{
	return -EOPNOTSUPP;
}

#endif

int live_copy_from(const struct os_mm *mm, void *dst, uintptr_t src, size_t length)
{
	if (!length)
		return 0;
	return mm->pid ? copy_by_call(mm->pid, dst, src, length, false)
		       : copy_own(dst, src, length, false);
}

int live_copy_to(const struct os_mm *mm, uintptr_t dst, const void *src, size_t length)
{
	if (!length)
		return 0;
	return mm->pid ? copy_by_call(mm->pid, (void *)src, dst, length, true)
		       : copy_own((void *)src, dst, length, true);
}
