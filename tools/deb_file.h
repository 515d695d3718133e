/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * deb_file - a package list, mapped.
 *
 * A plain file is mapped as it is; one that apt keeps compressed is unpacked by
 * apt's own helper into a memfd, which is mapped. So the demo has both kinds of
 * mapping: a file and shared memory.
 */
#ifndef UHMM_TOOLS_DEB_FILE_H
#define UHMM_TOOLS_DEB_FILE_H

#include <stdbool.h>
#include <stddef.h>

struct deb_file {
	char *path;
	int fd;
	const char *text; /* private mapping, read-only; NULL when len is 0 */
	size_t len;
};

struct deb_files {
	struct deb_file *file;
	size_t count;
};

/* Map one more. On failure one line in why, and negative errno. */
int deb_files_add(struct deb_files *files, const char *path, char *why, size_t size);

/*
 * What this machine has: dpkg's status and apt's lists; without dpkg the small list
 * that ships with the tool. As deb_files_add().
 */
int deb_files_add_default(struct deb_files *files, char *why, size_t size);

void deb_files_close(struct deb_files *files);

/*
 * Have the mapping at another address; the old one is gone on return. move: by
 * mremap, else by a second mmap and munmap. 0, or negative errno and nothing changed.
 */
int deb_file_remap(struct deb_file *file, bool move);

#endif
