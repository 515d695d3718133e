/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * deb_file - finding, unpacking, mapping and moving package lists (deb_file.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "deb_file.h"

#define DPKG_STATUS "/var/lib/dpkg/status"
#define APT_LISTS "/var/lib/apt/lists/*_Packages*"
#define APT_HELPER "/usr/lib/apt/apt-helper"

extern char **environ;

/* Does apt keep it packed? It tells by the suffix, so we do too. */
static bool is_packed(const char *path)
{
	static const char *const suffixes[] = { ".lz4", ".gz",	".xz",
						".bz2", ".zst", ".lzma" };
	size_t len = strlen(path);

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		size_t suffix = strlen(suffixes[i]);

		if (len > suffix && !strcmp(path + len - suffix, suffixes[i]))
			return true;
	}
	return false;
}

/* Run apt-helper with its output going to fd. 0, or negative errno. */
static int run_helper(const char *path, int fd)
{
	char *const argv[] = { (char *)APT_HELPER, (char *)"cat-file", (char *)path, NULL };
	posix_spawn_file_actions_t actions;
	int rc, status;
	pid_t pid;

	rc = posix_spawn_file_actions_init(&actions);
	if (rc)
		return -rc;
	rc = posix_spawn_file_actions_adddup2(&actions, fd, STDOUT_FILENO);
	if (!rc)
		rc = posix_spawn(&pid, APT_HELPER, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (rc)
		return -rc;
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

/* A descriptor of the plain text; negative errno, and in *what who failed. */
static int open_text(const char *path, const char **what)
{
	int fd, rc;

	*what = "open";
	if (!is_packed(path)) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	if (access(path, R_OK))
		return -errno;
	*what = "memfd_create";
	fd = memfd_create("packages", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	*what = APT_HELPER;
	rc = run_helper(path, fd);
	if (rc) {
		close(fd);
		return rc;
	}
	return fd;
}

static const char *map_text(int fd, size_t len)
{
	void *text = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0);

	return text == MAP_FAILED ? NULL : text;
}

int deb_files_add(struct deb_files *files, const char *path, char *why, size_t size)
{
	struct deb_file file = { .path = NULL }, *grown;
	const char *what;
	struct stat st;
	int rc = 0;

	file.fd = open_text(path, &what);
	if (file.fd < 0) {
		snprintf(why, size, "%s: %s: %s", path, what, strerror(-file.fd));
		return file.fd;
	}
	if (fstat(file.fd, &st))
		rc = -errno;
	else if (!S_ISREG(st.st_mode))
		rc = -EINVAL;
	file.len = rc ? 0 : (size_t)st.st_size;
	if (file.len) {
		file.text = map_text(file.fd, file.len);
		rc = file.text ? 0 : -errno;
	}
	if (rc) {
		snprintf(why, size, "%s: %s", path,
			 rc == -EINVAL ? "is not a regular file" : strerror(-rc));
		close(file.fd);
		return rc;
	}
	file.path = strdup(path);
	grown = realloc(files->file, (files->count + 1) * sizeof(file));
	if (!file.path || !grown) {
		fprintf(stderr, "uhmm: no memory for the list of files\n");
		exit(1);
	}
	files->file = grown;
	files->file[files->count++] = file;
	return 0;
}

/* The small list: beside an installed tool, or in the source tree around the build. */
static int add_small(struct deb_files *files, char *why, size_t size)
{
	static const char *const places[] = { "../share/uhmm/packages-small",
					      "../share/packages-small" };
	char path[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", path, sizeof(path) - 1);
	size_t dir;

	if (len < 0) {
		snprintf(why, size, "no " DPKG_STATUS ", and /proc/self/exe: %s",
			 strerror(errno));
		return -ENOENT;
	}
	path[len] = '\0';
	dir = (size_t)(strrchr(path, '/') + 1 - path);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (dir + strlen(places[i]) + 1 > sizeof(path))
			break;
		strcpy(path + dir, places[i]);
		if (!access(path, R_OK))
			return deb_files_add(files, path, why, size);
	}
	snprintf(why, size, "no " DPKG_STATUS " and no packages-small beside the tool");
	return -ENOENT;
}

int deb_files_add_default(struct deb_files *files, char *why, size_t size)
{
	glob_t lists;
	int rc;

	if (access(DPKG_STATUS, R_OK))
		return add_small(files, why, size);
	rc = deb_files_add(files, DPKG_STATUS, why, size);
	if (rc || glob(APT_LISTS, 0, NULL, &lists))
		return rc;
	for (size_t i = 0; !rc && i < lists.gl_pathc; i++)
		rc = deb_files_add(files, lists.gl_pathv[i], why, size);
	globfree(&lists);
	return rc;
}

void deb_files_close(struct deb_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		struct deb_file *file = &files->file[i];

		if (file->text)
			munmap((void *)file->text, file->len);
		close(file->fd);
		free(file->path);
	}
	free(files->file);
	files->file = NULL;
	files->count = 0;
}

int deb_file_remap(struct deb_file *file, bool move)
{
	void *place;

	if (!file->text)
		return 0;
	if (!move) {
		const char *text = map_text(file->fd, file->len);

		if (!text)
			return -errno;
		munmap((void *)file->text, file->len);
		file->text = text;
		return 0;
	}
	/* mremap goes elsewhere only if told where: reserve a place and move over it. */
	place = mmap(NULL, file->len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (place == MAP_FAILED)
		return -errno;
	if (mremap((void *)file->text, file->len, file->len, MREMAP_MAYMOVE | MREMAP_FIXED,
		   place) == MAP_FAILED) {
		int rc = -errno;

		munmap(place, file->len);
		return rc;
	}
	file->text = place;
	return 0;
}
