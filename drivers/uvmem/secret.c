/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * secret - see secret.h.
 *
 * A child that is forked between mmap and MADV_DONTFORK would share the memory for good. So
 * fork() waits while one is made (pthread_atfork). A raw clone() in just that moment is not
 * kept off; the README says so.
 *
 * It is filled by read(2) from /dev/zero: a touch that finds no memory is a SIGBUS, a
 * system call that does not is an errno.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "secret.h"

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void fork_waits(void)
{
	pthread_mutex_lock(&making);
}

static void fork_is_over(void)
{
	pthread_mutex_unlock(&making);
}

static void register_atfork(void)
{
	pthread_atfork(fork_waits, fork_is_over, fork_is_over);
}

static int say(char *why, size_t size, int err, const char *text)
{
	if (why)
		snprintf(why, size, "%s", text);
	return err;
}

static int no_memory(char *why, size_t size)
{
	return say(
		why, size, -ENOMEM,
		"secret memory counts for RLIMIT_MEMLOCK: raise it (ulimit -l), or ask for "
		"fewer frames");
}

static int map_mlocked(struct uvmem_secret *secret, size_t size, char *why, size_t why_size)
{
	char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	if (base == MAP_FAILED)
		return say(why, why_size, -ENOMEM, "no memory");
	if (madvise(base, size, MADV_DONTDUMP) || madvise(base, size, MADV_WIPEONFORK) ||
	    mlock(base, size)) {
		munmap(base, size);
		return no_memory(why, why_size);
	}
	*secret = (struct uvmem_secret){ base, size };
	return 0;
}

static int no_memfd_secret(char *why, size_t size)
{
	return say(why, size, -EOPNOTSUPP,
		   errno == ENOSYS ? "no memfd_secret: it takes Linux 5.14 with "
				     "CONFIG_SECRETMEM, not booted "
				     "with secretmem.enable=0 (before 6.5: booted with "
				     "secretmem.enable=1), "
				     "and a seccomp filter that allows it; mlocked memory "
				     "has to be asked "
				     "for by name"
				   : "memfd_secret is refused here; mlocked memory has to "
				     "be asked for by "
				     "name");
}

/* `making` is held. The descriptor is closed in any case. */
static int map_secret(struct uvmem_secret *secret, size_t size, char *why, size_t why_size)
{
	int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
	char *base = MAP_FAILED;

	if (fd < 0)
		return errno == EMFILE || errno == ENFILE
			       ? say(why, why_size, -errno, "no descriptor is left")
			       : no_memfd_secret(why, why_size);
	if (!ftruncate(fd, (off_t)size))
		base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (base == MAP_FAILED)
		return no_memory(why, why_size);
	if (madvise(base, size, MADV_DONTFORK)) {
		munmap(base, size);
		return say(why, why_size, -EOPNOTSUPP, "MADV_DONTFORK is refused");
	}
	*secret = (struct uvmem_secret){ base, size };
	return 0;
}

static int fill(const struct uvmem_secret *secret)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	size_t done = 0;

	while (zero >= 0 && done < secret->size) {
		ssize_t n = read(zero, secret->base + done, secret->size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	if (zero >= 0)
		close(zero);
	return done == secret->size ? 0 : -ENOMEM;
}

int uvmem_secret_map(struct uvmem_secret *secret, size_t size, bool mlocked, char *why,
		     size_t why_size)
{
	int err;

	/* Nothing else limits who has CAP_IPC_LOCK, and this memory cannot be swapped out. */
	if (size > (size_t)sysconf(_SC_PHYS_PAGES) / 2 * UVMEM_GUARD)
		return say(why, why_size, -ENOMEM,
			   "that is more than half of this machine's memory, and secret "
			   "memory "
			   "is never swapped out");
	pthread_once(&once, register_atfork);
	size = (size + UVMEM_GUARD - 1) & -(size_t)UVMEM_GUARD;
	pthread_mutex_lock(&making);
	err = mlocked ? map_mlocked(secret, size, why, why_size)
		      : map_secret(secret, size, why, why_size);
	pthread_mutex_unlock(&making);
	if (!err && fill(secret)) {
		munmap(secret->base, secret->size);
		*secret = (struct uvmem_secret){ 0 };
		err = say(why, why_size, -ENOMEM, "no memory for so many frames");
	}
	return err;
}

/* Guard pages in it cannot be cleared, and hold nothing: whoever made them opens them. */
void uvmem_secret_unmap(struct uvmem_secret *secret)
{
	if (!secret->base)
		return;
	mprotect(secret->base, secret->size, PROT_READ | PROT_WRITE);
	sodium_memzero(secret->base, secret->size);
	munmap(secret->base, secret->size);
	*secret = (struct uvmem_secret){ 0 };
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void clear_high(void)
{
	/* memcpy of libc uses those, and vzeroall leaves them. */
#define CLEAR(n) __asm__ volatile("vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n ::: "memory")
	CLEAR(16);
	CLEAR(17);
	CLEAR(18);
	CLEAR(19);
	CLEAR(20);
	CLEAR(21);
	CLEAR(22);
	CLEAR(23);
	CLEAR(24);
	CLEAR(25);
	CLEAR(26);
	CLEAR(27);
	CLEAR(28);
	CLEAR(29);
	CLEAR(30);
	CLEAR(31);
#undef CLEAR
}

__attribute__((target("avx"))) static void clear_low(void)
{
	__asm__ volatile("vzeroall" ::: "memory");
}

void uvmem_clear_registers(void)
{
	if (__builtin_cpu_supports("avx512f"))
		clear_high();
	if (__builtin_cpu_supports("avx"))
		clear_low();
	else
		__asm__ volatile("pxor %%xmm0, %%xmm0\n\tpxor %%xmm1, %%xmm1\n\t"
				 "pxor %%xmm2, %%xmm2\n\tpxor %%xmm3, %%xmm3\n\t"
				 "pxor %%xmm4, %%xmm4\n\tpxor %%xmm5, %%xmm5\n\t"
				 "pxor %%xmm6, %%xmm6\n\tpxor %%xmm7, %%xmm7\n\t"
				 "pxor %%xmm8, %%xmm8\n\tpxor %%xmm9, %%xmm9\n\t"
				 "pxor %%xmm10, %%xmm10\n\tpxor %%xmm11, %%xmm11\n\t"
				 "pxor %%xmm12, %%xmm12\n\tpxor %%xmm13, %%xmm13\n\t"
				 "pxor %%xmm14, %%xmm14\n\tpxor %%xmm15, %%xmm15" ::
					 : "memory");
}
#else
/* Not done on this architecture (README). */
void uvmem_clear_registers(void)
{
}
#endif
