/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* uapi - what the system headers may be too old to have. */
#ifndef STRESS_UAPI_H
#define STRESS_UAPI_H

#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

/* PROCMAP_QUERY (Linux 6.11) by address, without names. */
struct stress_procmap_query {
	uint64_t size, query_flags, query_addr;
	uint64_t vma_start, vma_end, vma_flags, vma_page_size, vma_offset, inode;
	uint32_t dev_major, dev_minor, vma_name_size, build_id_size;
	uint64_t vma_name_addr, build_id_addr;
};
#define STRESS_PROCMAP_QUERY _IOWR('f', 17, struct stress_procmap_query)

#endif
