/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * os_test - what the tests of src/os share.
 *
 * What has to die, or takes descriptors away, runs in a forked child. What needs the
 * environment variable UHMM_OS_WITHOUT runs the program again (in_itself).
 */
#ifndef UHMM_TESTS_OS_TEST_H
#define UHMM_TESTS_OS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/live.h"
#include "os/uapi.h"
#include "util/arena.h"

#define PAGE OS_PAGE_SIZE
#define RW (PROT_READ | PROT_WRITE)

static inline char *anon(size_t pages)
{
	char *p = mmap(NULL, pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(p, MAP_FAILED);
	return p;
}

static inline char *file_map(const char *path, int pages, int prot, int flags)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	char *p;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, pages * (off_t)PAGE), 0);
	p = mmap(NULL, (size_t)pages * PAGE, prot, flags, fd, 0);
	assert_ptr_not_equal(p, MAP_FAILED);
	close(fd);
	return p;
}

/* The wait status of a child that runs fn and then exits 0; it says what fails by _exit. */
static inline int in_child(void (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

#define NEED(condition)                                                                 \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "child: line %d: %s\n", __LINE__, #condition);  \
			_exit(1);                                                       \
		}                                                                       \
	} while (0)


/* As in_child, in a new run of this program with UHMM_OS_WITHOUT and one argument. */
static inline int in_itself(const char *without, const char *what)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		setenv("UHMM_OS_WITHOUT", without, 1);
		execl("/proc/self/exe", "test_os", what, (char *)NULL);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* The argument of in_itself to the function that it names; then the program ends. */
struct itself {
	const char *name;
	void (*fn)(void);
};

static inline void itself_run(int argc, char **argv, const struct itself *table)
{
	for (; argc > 1 && table->name; table++) {
		if (strcmp(argv[1], table->name))
			continue;
		table->fn();
		exit(0);
	}
}

#endif
