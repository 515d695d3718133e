/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * error - errors in words, with the cure.
 *
 * A failing call may leave a sentence for its thread; hmm_strerror() of that
 * errno gives it, else the general meaning that the errno has in this library.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

__thread unsigned lock_held;

static __thread struct {
	int err;
	char text[200];
} said;

int error_say(int err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(said.text, sizeof(said.text), fmt, args);
	va_end(args);
	said.err = err;
	return err;
}

int error_last(void)
{
	return said.err;
}

static const char *general(int err)
{
	switch (err) {
	case 0:
		return "no error";
	case -EPERM:
		return "not permitted: a write to a read-only mapping; or, at hmm_open(), "
		       "userfaultfd is refused (see `uhmm feature` for the cure)";
	case -ENOSYS:
		return "userfaultfd is blocked here: allow the system call in the container's "
		       "seccomp profile, or run outside it";
	case -EOPNOTSUPP:
		return "not supported: a mapping that cannot be mirrored (use hmm_copy_from() and "
		       "hmm_copy_to()); or, at hmm_open(), a kernel older than 6.7";
	case -EINVAL:
		return "an argument is out of its range (unaligned, empty, NULL, or wrong size)";
	case -EFAULT:
		return "a bad address: no mapping, PROT_NONE, past the end of the file, a guard "
		       "page, or device memory";
	case -EBUSY:
		return "the range kept changing while it was looked at: try again";
	case -ENODEV:
		return "the mirror is gone: a forked child, or its descriptors were closed; "
		       "hmm_open() a new one";
	case -EDEADLK:
		return "called inside a callback, which it would wait for";
	case -ENOMEM:
		return "no memory, or the process has vm.max_map_count mappings";
	case -EMFILE:
		return "no descriptor left: raise RLIMIT_NOFILE (ulimit -n)";
	case -EAGAIN:
		return "no thread could be started: raise RLIMIT_NPROC (ulimit -u)";
	case -ESRCH:
		return "there is no such process any more";
	case -EACCES:
		return "that process may not be looked at: run as its user or as root, and see "
		       "kernel.yama.ptrace_scope";
	case -EOVERFLOW:
		return "the range is empty or wraps around the end of the address space";
	case -E2BIG:
		return "a struct of a newer header with members this library does not know: "
		       "upgrade libuhmm";
	case -ERANGE:
		return "an address above 48 bits";
	}
	return NULL;
}

const char *hmm_strerror(int err)
{
	const char *text;

	if (err > 0)
		err = -err;
	if (err && said.err == err)
		return said.text;
	text = general(err);
	if (text)
		return text;
	return strerrordesc_np(-err) ? strerrordesc_np(-err) : "an unknown error";
}

const char *hmm_reason_text(enum hmm_reason reason)
{
	switch (reason) {
	case HMM_REASON_NONE:
		return "no reason";
	case HMM_REASON_NO_MAPPING:
		return "no mapping";
	case HMM_REASON_PROT_NONE:
		return "PROT_NONE";
	case HMM_REASON_READ_ONLY:
		return "read-only mapping";
	case HMM_REASON_PAST_EOF:
		return "past end of file";
	case HMM_REASON_GUARD_OR_POISON:
		return "guard page or broken memory";
	case HMM_REASON_SPECIAL:
		return "mapping of device memory";
	case HMM_REASON_DEVICE_LOST:
		return "it was in the memory of a device that died";
	case HMM_REASON_NOT_MIRRORABLE:
		return "mapping that cannot be mirrored";
	}
	return "unknown reason";
}

const char *hmm_vma_kind_text(enum hmm_vma_kind kind)
{
	static const char *const text[] = {
		[HMM_VMA_HOLE] = "hole",   [HMM_VMA_ANON] = "anon",
		[HMM_VMA_HEAP] = "heap",   [HMM_VMA_STACK] = "stack",
		[HMM_VMA_FILE] = "file",   [HMM_VMA_SHMEM] = "shmem",
		[HMM_VMA_HUGETLB] = "hugetlb", [HMM_VMA_SPECIAL] = "special",
	};

	return (unsigned)kind < sizeof(text) / sizeof(text[0]) ? text[kind] : "unknown";
}

int struct_check(const void *what, size_t size, size_t known)
{
	const char *bytes = what;

	if (size < known)
		return error_say(-EINVAL, "a struct's size member is %zu, it must be at least %zu "
					  "(sizeof)", size, known);
	for (size_t i = known; i < size; i++)
		if (bytes[i])
			return error_say(-E2BIG, "a struct has members that this library does not "
						 "know: upgrade libuhmm");
	return 0;
}
