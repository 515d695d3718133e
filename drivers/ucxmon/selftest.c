/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of ucxmon - UCM alone, in a child: loading libucs would patch this process's
 * libc. A handler of UCM_EVENT_VM_UNMAPPED must have been told by the end of the fence.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ucm/api/ucm.h>
#include <uhmm/driver.h>

#include "ucxmon_private.h"

#define SIZE 65536ul
#define ROUNDS 2000

static char *memory;
static atomic_uint told;

static void handler(ucm_event_type_t type, ucm_event_t *event, void *arg)
{
	uintptr_t start = (uintptr_t)event->vm_unmapped.address;

	if (start < (uintptr_t)memory + SIZE &&
	    (uintptr_t)memory < start + event->vm_unmapped.size)
		atomic_fetch_add(&told, 1);
}

static int one_round(void)
{
	unsigned before;
	int err = ucxmon_watch(memory, SIZE);

	if (err)
		return err;
	before = told;
	if (syscall(SYS_munmap, memory, SIZE) ||
	    syscall(SYS_mmap, memory, SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		    0) != (long)memory)
		return -errno;
	err = ucxmon_fence(memory, SIZE);
	return err ? err : told == before ? -EIO : 0;
}

/* Return: what the child exits with, a positive errno. */
static int child(void)
{
	ucs_status_t (*set)(int events, int priority, ucm_event_callback_t cb, void *arg);
	void *library = dlopen("libucs.so.0", RTLD_NOW);
	int err = library ? ucxmon_install() : -ENOSYS;

	if (err)
		return -err;
	*(void **)&set = dlsym(library, "ucm_set_event_handler");
	if (!set || set(UCM_EVENT_VM_UNMAPPED, 0, handler, NULL) != UCS_OK)
		return ENOSYS;
	for (unsigned i = 0; i < ROUNDS && !err; i++)
		err = one_round();
	return -err;
}

static int selftest(char *why, size_t size)
{
	int status = 0;
	pid_t pid;

	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	pid = fork();
	if (!pid)
		_exit(child());
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	munmap(memory, SIZE);
	if (!WIFEXITED(status) || WEXITSTATUS(status)) {
		status = WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
		snprintf(why, size, "%s",
			 status == EIO ? "a raw munmap was told too late or not"
				       : hmm_strerror(-status));
		return -status;
	}
	snprintf(why, size, "%u raw munmaps, each told by the end of the fence", ROUNDS);
	return 0;
}

/* Asked in a child as well. */
static int usable(char *why, size_t size)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid)
		_exit(!dlopen("libucs.so.0", RTLD_NOW));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	if (!status)
		return uhmm_driver_needs_mirror(why, size);
	snprintf(why, size, "libucs.so.0 cannot be loaded");
	return -ENOSYS;
}

extern const struct uhmm_driver uhmm_driver_ucxmon;
const struct uhmm_driver uhmm_driver_ucxmon = {
	.name = "ucxmon",
	.stands_for = "UCX's memory hooks",
	.what = "an event source for UCX's registration caches",
	.usable = usable,
	.selftest = selftest,
};
