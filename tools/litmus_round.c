// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_round - one page as the device of this round sees it.
 *
 * A round is either the pinning device's, whose stale translation shows as a wrong number
 * or a permission that is gone, or the GPU's. The GPU reads through the program's own
 * addresses, so its numbers are right whatever it does; there the verify mode counts the
 * accesses that were made through a translation older than the mark (gpu_verify_mark),
 * which the round sets when the change has returned.
 *
 * Law: a wrong answer is a stale one and is counted; an answer that no translation can
 * explain (-EFAULT for mapped memory, -EBUSY, -ENODEV) ends the case with a sentence.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "litmus.h"

int litmus_fail(struct litmus *l, int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(l->reason, sizeof(l->reason), fmt, args);
	va_end(args);
	return err ? err : -EIO;
}

uint64_t litmus_fill(struct litmus *l, char *addr)
{
	uint64_t generation = ++l->generation;

	__atomic_store_n((uint64_t *)addr, generation, __ATOMIC_SEQ_CST);
	return generation;
}

int litmus_map_at(struct litmus *l, char *addr)
{
	char *got = mmap(addr, LITMUS_PLACE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (got == addr)
		return 0;
	if (got != MAP_FAILED)
		munmap(got, LITMUS_PLACE);
	return litmus_fail(l, got == MAP_FAILED ? -errno : -EEXIST, "mmap at %p: %s",
			   (void *)addr, strerror(got == MAP_FAILED ? errno : EEXIST));
}

static int device_read(struct litmus *l, const char *addr, uint64_t *value)
{
	if (l->use_gpu)
		return gpu_read(l->queue, value, addr, sizeof(*value));
	return litmus_dev_read(l->dev, addr, value);
}

static int read_must_be(struct litmus *l, const char *addr, uint64_t expected)
{
	uint64_t value = 0;
	int err = device_read(l, addr, &value);

	if (err)
		return litmus_fail(l, err, "%s read of mapped memory: %s",
				   l->use_gpu ? "gpu" : "device", hmm_strerror(err));
	if (value != expected)
		l->wrong = true;
	return 0;
}

int litmus_touch(struct litmus *l, const char *addr, uint64_t expected)
{
	return read_must_be(l, addr, expected);
}

void litmus_changed(struct litmus *l, const char *addr)
{
	if (l->use_gpu)
		gpu_verify_mark(l->gpu, addr, LITMUS_PAGE);
}

int litmus_check(struct litmus *l, const char *addr, uint64_t expected)
{
	return read_must_be(l, addr, expected);
}

int litmus_check_gone(struct litmus *l, const char *addr)
{
	uint64_t value;
	int err = device_read(l, addr, &value);

	if (!err)
		l->wrong = true;
	else if (err != -EFAULT)
		return litmus_fail(l, err, "%s read of a hole: %s",
				   l->use_gpu ? "gpu" : "device", hmm_strerror(err));
	return 0;
}

int litmus_check_write(struct litmus *l, char *addr, int expected)
{
	uint64_t value = l->generation;
	int err;

	if (l->use_gpu)
		err = gpu_write(l->queue, addr, &value, sizeof(value));
	else
		err = litmus_dev_write(l->dev, addr);
	if (err != expected && err != 0 && err != -EPERM)
		return litmus_fail(l, err, "%s write: %s", l->use_gpu ? "gpu" : "device",
				   hmm_strerror(err));
	if (err != expected)
		l->wrong = true;
	return 0;
}
