/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lab.h"

enum verdict lab_edu_open(const struct edu_options *given, struct edu **dev)
{
	struct edu_options options = *given;
	int err;

	if (!options.pci)
		options.pci = getenv("UHMM_LAB_EDU");
	err = edu_open(&options, dev);
	if (!err)
		return PASS;
	/* In the lab what it names must be there; the way need not. */
	if (err == -EOPNOTSUPP || ((err == -ENODEV || err == -ENXIO) && !options.pci))
		return live_skip("%s", edu_strerror(err));
	return live_fail(__FILE__, __LINE__, "edu_open: %d, %s", err, edu_strerror(err));
}

const char *lab_directory(const char *variable, enum verdict *verdict)
{
	const char *directory = getenv(variable);

	*verdict =
		directory
			? PASS
			: live_skip(
				  "%s names no directory on a filesystem with DAX (the lab "
				  "does)",
				  variable);
	return directory;
}

unsigned char lab_byte(size_t at, unsigned seed)
{
	return (unsigned char)(at * 7 + (at >> 12) * 13 + seed);
}

void lab_fill(void *to, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		((unsigned char *)to)[i] = lab_byte(i, seed);
}

size_t lab_differs(const void *from, size_t n, unsigned seed)
{
	size_t i = 0;

	while (i < n && ((const unsigned char *)from)[i] == lab_byte(i, seed))
		i++;
	return i;
}

bool lab_zero(const void *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const char *)from)[i])
			return false;
	return true;
}

int lab_file(const char *directory, size_t length)
{
	unsigned char *bytes = malloc(length);
	char path[300];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "%s/uhmm-lab-XXXXXX", directory);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0) {
		unlink(path);
		lab_fill(bytes, length, 0);
		n = pwrite(fd, bytes, length, 0);
	}
	free(bytes);
	if (fd >= 0 && n != (ssize_t)length) {
		close(fd);
		return -1;
	}
	return fd;
}

int lab_truncate(int fd, off_t at, off_t length)
{
	return ftruncate(fd, length) ? -errno : 0;
}

int lab_punch(int fd, off_t at, off_t length)
{
	return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, length)
		       ? -errno
		       : 0;
}

int lab_elsewhere(int (*fn)(int fd, off_t at, off_t length), int fd, off_t at, off_t length)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return -errno;
	if (!child)
		_exit(-fn(fd, at, length));
	status = live_wait(child, 10);
	return status >= 0 && WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}

int lab_log_open(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);

	if (log >= 0)
		lseek(log, 0, SEEK_END);
	return log;
}

bool lab_log_fault(int log, uint64_t iova)
{
	char line[1200], address[32];
	ssize_t n;

	snprintf(address, sizeof(address), "addr 0x%llx",
		 (unsigned long long)(iova & ~(uint64_t)(PAGE - 1)));
	for (int tries = 0; tries < 200; tries++) {
		/* A record each; EPIPE: some were lost, and reading goes on behind them. */
		while ((n = read(log, line, sizeof(line) - 1)) > 0 ||
		       (n < 0 && errno == EPIPE)) {
			line[n > 0 ? n : 0] = '\0';
			if (strstr(line, "fault") && strstr(line, address))
				return true;
		}
		usleep(10000);
	}
	return false;
}
