/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * vma - one mapping by address: PROCMAP_QUERY, or the text of /proc/PID/maps (maps.c).
 *
 * Laws:
 * - Both ways fill the same struct os_vma; the tests compare them for every mapping.
 * - The kinds come from names that the kernel makes. What a file system calls its files
 *   decides nothing.
 * - Our descriptor may be closed by the program at any time. An answer that no maps
 *   file gives (EBADF, ENOTTY, ...) makes us ask once more through a new descriptor.
 * - Addresses of the kernel's half (vsyscall) are none.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "os/live.h"
#include "os/tasks.h"
#include "os/uapi.h"

int proc_open(pid_t pid, const char *what)
{
	char path[64];
	int fd;

	/* Of the calling thread: the first one may have ended before the process. */
	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	else
		snprintf(path, sizeof(path), "/proc/thread-self/%s", what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT && pid ? -ESRCH : -errno;
	return fd;
}

int live_mm_open(struct os_mm *mm, pid_t pid)
{
	struct os_mm new = { .pid = pid, .slow = !feature_procmap_query() };

	new.maps_fd = proc_open(pid, "maps");
	if (new.maps_fd < 0)
		return new.maps_fd;
	new.pagemap_fd = proc_open(pid, "pagemap");
	if (new.pagemap_fd < 0) {
		close(new.maps_fd);
		return new.pagemap_fd;
	}
	new.maps_fd = fd_move_high(new.maps_fd);
	new.pagemap_fd = fd_move_high(new.pagemap_fd);
	new.maps_ino = fd_identity(new.maps_fd);
	new.pagemap_ino = fd_identity(new.pagemap_fd);
	new.tasks_fd = pid ? -1 : fd_move_high(tasks_open());
	new.tasks_ino = fd_identity(new.tasks_fd);
	*mm = new;
	return 0;
}

void live_mm_close(struct os_mm *mm)
{
	fd_close_if(mm->maps_fd, mm->maps_ino);
	fd_close_if(mm->pagemap_fd, mm->pagemap_ino);
	fd_close_if(mm->tasks_fd, mm->tasks_ino);
	mm->maps_fd = mm->pagemap_fd = mm->tasks_fd = -1;
}

static bool begins(const char *name, const char *with)
{
	return !strncmp(name, with, strlen(with));
}

/* "[anon:x]" is a name that the program gave by prctl. */
static enum os_vma_kind kind_in_brackets(const char *name)
{
	if (begins(name, "[heap]"))
		return OS_VMA_HEAP;
	if (begins(name, "[stack"))
		return OS_VMA_STACK;
	if (begins(name, "[anon:"))
		return OS_VMA_ANON;
	if (begins(name, "[anon_shmem:"))
		return OS_VMA_SHMEM;
	return OS_VMA_SPECIAL; /* [vdso], [vvar], [vvar_vclock], [uprobes] */
}

static enum os_vma_kind kind_of(const struct os_vma *vma)
{
	const char *name = vma->name;

	/* Before huge pages: that shmdt sends no message counts more. */
	if (begins(name, "/SYSV"))
		return OS_VMA_SYSV;
	if (vma->page_size > OS_PAGE_SIZE)
		return OS_VMA_HUGETLB;
	if (name[0] == '[')
		return kind_in_brackets(name);
	if (!vma->inode)
		return OS_VMA_ANON;
	if (begins(name, "/dev/zero")) /* private: plain anonymous memory that keeps the name */
		return vma->shared ? OS_VMA_SHMEM : OS_VMA_ANON;
	if (begins(name, "/memfd:") || begins(name, "/dev/shm/"))
		return OS_VMA_SHMEM;
	return OS_VMA_FILE;
}

static void fill(struct os_vma *vma, const struct procmap_query *q)
{
	uint64_t f = q->vma_flags;

	vma->start = q->vma_start;
	vma->end = q->vma_end;
	vma->prot = (f & PROCMAP_QUERY_VMA_READABLE ? PROT_READ : 0) |
		    (f & PROCMAP_QUERY_VMA_WRITABLE ? PROT_WRITE : 0) |
		    (f & PROCMAP_QUERY_VMA_EXECUTABLE ? PROT_EXEC : 0);
	vma->shared = f & PROCMAP_QUERY_VMA_SHARED;
	vma->kind = q->inode ? OS_VMA_FILE : OS_VMA_ANON;
	vma->page_size = q->vma_page_size;
	vma->offset = q->vma_offset;
	vma->inode = q->inode;
	vma->dev_major = q->dev_major;
	vma->dev_minor = q->dev_minor;
	vma->name[0] = '\0';
}

int procmap_query(int maps_fd, uintptr_t addr, struct os_vma *vma, char *name, size_t size)
{
	struct procmap_query q = { .size = sizeof(q),
				   .query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA,
				   .query_addr = addr,
				   .vma_name_size = (uint32_t)size,
				   .vma_name_addr = (uintptr_t)name };

	if (ioctl(maps_fd, PROCMAP_QUERY, &q))
		return -errno;
	fill(vma, &q);
	if (name && !q.vma_name_size)
		name[0] = '\0';
	return 0;
}

static int query(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma, char *name,
		 size_t size)
{
	int err = procmap_query(mm->maps_fd, addr, vma, name, size), fd;

	if (!err || err == -ENOENT || err == -ESRCH || err == -ENAMETOOLONG)
		return err;
	fd = proc_open(mm->pid, "maps");
	if (fd < 0)
		return fd;
	err = procmap_query(fd, addr, vma, name, size);
	close(fd);
	return err;
}

int live_vma_find(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma)
{
	char name[PATH_MAX];
	struct os_vma found;
	int err;

	if (feature_procmap_query()) {
		err = query(mm, addr, &found, name, sizeof(name));
		if (err == -ENAMETOOLONG) {
			/* No name is better than half a one for who opens it. */
			name[0] = '\0';
			err = query(mm, addr, &found, NULL, 0);
		}
		if (err)
			return err;
		memcpy(found.name, name, strnlen(name, sizeof(found.name) - 1) + 1);
		found.name[sizeof(found.name) - 1] = '\0';
	} else {
		err = maps_find(mm->pid, addr, &found);
		if (err)
			return err;
	}
	found.kind = kind_of(&found);
	*vma = found;
	return 0;
}

int live_vma_find_fast(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma)
{
	int err;

	if (feature_procmap_query())
		return query(mm, addr, vma, NULL, 0);
	err = maps_find(mm->pid, addr, vma);
	if (!err)
		vma->name[0] = '\0';
	return err;
}
