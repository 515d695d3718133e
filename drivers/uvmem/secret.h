/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * secret - memory that nobody but this process reaches, and only by its own instructions.
 *
 * memfd_secret(2): the pages are in no other page table, the kernel's included, so
 * /proc/PID/mem, ptrace, process_vm_readv, pinning for I/O, core dumps, swap and
 * hibernation do not have them. What the flag does not do is done here: no forked child
 * inherits the mapping (it is a shared one), and no descriptor of it is left that could be
 * mapped again.
 */
#ifndef UVMEM_SECRET_H
#define UVMEM_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#define UVMEM_GUARD 4096u

struct uvmem_secret {
	char *base;
	size_t size; /* whole pages */
};

/*
 * Zeroed, and all of it present, so that no touch can fail later. `mlocked`: ordinary
 * memory instead. 0; -EOPNOTSUPP no memfd_secret; -ENOMEM; and a sentence in `why` if not
 * NULL.
 */
int uvmem_secret_map(struct uvmem_secret *secret, size_t size, bool mlocked, char *why,
		     size_t why_size);
/* Clears it first. One that is all zero is allowed. */
void uvmem_secret_unmap(struct uvmem_secret *secret);
static inline bool uvmem_secret_has(const struct uvmem_secret *secret, const void *p,
				    size_t length)
{
	size_t at = (size_t)((const char *)p - secret->base);

	return at < secret->size && length <= secret->size - at;
}
/*
 * What this thread's registers hold is cleared, as far as a function's caller does not own
 * it.
 */
void uvmem_clear_registers(void);

#endif
