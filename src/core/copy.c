/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * copy - a device's plain accesses; a bad address is an error, never a signal.
 *
 * Nothing here looks at notifiers: an access through a virtual address reads
 * what the CPU reads. Whether the device may make it is its page table's matter.
 */
#include <errno.h>

#include "core/core.h"

int hmm_copy_from(struct hmm *hmm, void *dst, uintptr_t src, size_t length)
{
	int err = hmm_check(hmm);

	if (err)
		return err;
	err = hmm->os->copy_from(&hmm->mm, dst, src, length);
	return err == -EFAULT ? error_say(err, "%#lx, %zu bytes: not readable",
					  (unsigned long)src, length) : err;
}

int hmm_copy_to(struct hmm *hmm, uintptr_t dst, const void *src, size_t length)
{
	int err = hmm_check(hmm);

	if (err)
		return err;
	err = hmm->os->copy_to(&hmm->mm, dst, src, length);
	return err == -EFAULT ? error_say(err, "%#lx, %zu bytes: not writable",
					  (unsigned long)dst, length) : err;
}

int hmm_access_begin(struct hmm *hmm)
{
	int err = hmm_check(hmm);

	if (!err && hmm->mm.pid)
		err = error_say(-EOPNOTSUPP, "plain instructions reach own memory only");
	return err ? err : hmm->os->access_begin();
}

void hmm_access_end(struct hmm *hmm)
{
	hmm->os->access_end();
}

static int check_atomic(struct hmm *hmm, uintptr_t addr, size_t size)
{
	int err = hmm_check(hmm);

	if (!err && ((size != 4 && size != 8) || (addr & (size - 1))))
		err = error_say(-EINVAL, "an atomic is of 4 or 8 bytes, and aligned");
	return err;
}

int hmm_access_add(struct hmm *hmm, uintptr_t addr, size_t size, uint64_t operand, uint64_t *old)
{
	int err = check_atomic(hmm, addr, size);

	return err ? err : hmm->os->access_add(addr, size, operand, old);
}

int hmm_access_cas(struct hmm *hmm, uintptr_t addr, size_t size, uint64_t expected,
		   uint64_t desired, uint64_t *old)
{
	int err = check_atomic(hmm, addr, size);

	return err ? err : hmm->os->access_cas(addr, size, expected, desired, old);
}
