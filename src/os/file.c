/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * file - the file behind a mapping.
 *
 * Model: a mapping names its file by path, which may since mean another file, be deleted
 * or lie in another mount namespace. So a path counts only if device and inode are the
 * mapping's. Else the kernel's own link, /proc/PID/map_files, is asked; following
 * it needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN. There the inode alone must agree:
 * some file systems (btrfs, overlayfs) have mappings of another device than their files.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "os/live.h"

static bool ask(const char *path, const struct os_vma *vma, bool device, struct statx *file)
{
	if (statx(AT_FDCWD, path, AT_STATX_SYNC_AS_STAT, STATX_TYPE | STATX_INO | STATX_SIZE,
		  file))
		return false;
	return file->stx_ino == vma->inode &&
	       (!device || (file->stx_dev_major == vma->dev_major &&
			    file->stx_dev_minor == vma->dev_minor));
}

static bool file_of(const struct os_mm *mm, const struct os_vma *vma, struct statx *file)
{
	char pid[16] = "self", path[80];

	if (!vma->inode)
		return false;
	if (vma->name[0] == '/' && ask(vma->name, vma, true, file))
		return true;
	if (mm->pid)
		snprintf(pid, sizeof(pid), "%d", (int)mm->pid);
	snprintf(path, sizeof(path), "/proc/%s/map_files/%lx-%lx", pid,
		 (unsigned long)vma->start, (unsigned long)vma->end);
	return ask(path, vma, false, file);
}

bool live_vma_is_dax(const struct os_mm *mm, const struct os_vma *vma)
{
	struct statx file;

	if (!strncmp(vma->name, "/dev/dax", 8))
		return true;
	return file_of(mm, vma, &file) && (file.stx_attributes & STATX_ATTR_DAX);
}

/* A device has no size that says how far its mapping reaches. */
int64_t live_vma_file_size(const struct os_mm *mm, const struct os_vma *vma)
{
	struct statx file;

	if (!file_of(mm, vma, &file) || !S_ISREG(file.stx_mode))
		return -ENOENT;
	return (int64_t)file.stx_size;
}
