/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * guard - a kernel's access that fails, where the device is threads of this process.
 *
 * A GPU that accesses what it has no translation for is told so: the access does nothing, and
 * somebody hears of it. A device that is the CPU gets SIGSEGV or SIGBUS, in a thread
 * that neither we nor the program has made, and the program would end. So the instruction is left
 * out, and every job that was launched and not waited for says -EFAULT at its wait.
 *
 * Only if all of this is so; else the signal goes to whoever had it before:
 * - the thread was started by the platform: it has the name that our thread bore while it called the
 *   platform (a thread begins with its maker's name);
 * - the code is of a kernel: of nothing that was loaded when those threads were found;
 * - a job is running;
 * - the instruction is an access that can be left out (skip.c).
 *
 * The handler is put in front once and stays: others may have saved it. The library's own goes in
 * front of it again, and chains.
 */
#include <dirent.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "skip.h"
#include "userptr_private.h"

#define THREADS 256u
#define MODULES 256u
#define MARK "uhmm-opencl"

struct module {
	uintptr_t start, end;
};

/* Written under `one`, read by the handler, which sees what was before `n`. */
static struct {
	pthread_mutex_t one;
	bool armed;
	struct sigaction before[2];
	char name[16]; /* of the calling thread, meanwhile */
	_Atomic unsigned n_threads;
	pid_t thread[THREADS];
	_Atomic unsigned n_modules;
	struct module module[MODULES];
	_Atomic unsigned n_jobs; /* that hear of it */
	/* Accesses that have failed, and the address of the last. */
	_Atomic uint64_t faults;
	_Atomic uintptr_t where;
} guard = { .one = PTHREAD_MUTEX_INITIALIZER };

static const int signals[2] = { SIGSEGV, SIGBUS };

/* ---- in the handler ---- */

static bool is_platforms(pid_t tid)
{
	unsigned n = atomic_load(&guard.n_threads);

	for (unsigned i = 0; i < n; i++)
		if (guard.thread[i] == tid)
			return true;
	return false;
}

static bool is_kernel_code(uintptr_t pc)
{
	unsigned n = atomic_load(&guard.n_modules);

	for (unsigned i = 0; i < n; i++)
		if (pc >= guard.module[i].start && pc < guard.module[i].end)
			return false;
	return n;
}

static bool tell_jobs(uintptr_t addr)
{
	if (!atomic_load(&guard.n_jobs))
		return false;
	atomic_store(&guard.where, addr);
	atomic_fetch_add(&guard.faults, 1);
	return true;
}

static bool leave_out(siginfo_t *info, ucontext_t *context)
{
#if defined(__x86_64__)
	greg_t *pc = &context->uc_mcontext.gregs[REG_RIP];
	unsigned length;

	if (info->si_code <= 0 || !is_platforms((pid_t)syscall(SYS_gettid)) ||
	    !is_kernel_code((uintptr_t)*pc) || (uintptr_t)info->si_addr == (uintptr_t)*pc)
		return false;
	length = userptr_skip((const unsigned char *)*pc);
	if (!length || !tell_jobs((uintptr_t)info->si_addr))
		return false;
	*pc += length;
	return true;
#else
	return false;
#endif
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *before = &guard.before[sig == SIGBUS];
	int saved = errno;

	if (leave_out(info, context)) {
		errno = saved;
		return;
	}
	if (before->sa_flags & SA_SIGINFO)
		before->sa_sigaction(sig, info, context);
	else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
		before->sa_handler(sig);
	else /* the access is made again, and ends the process */
		signal(sig, SIG_DFL);
	errno = saved;
}

/* ---- outside ---- */

static void arm(void)
{
	struct sigaction action = { .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER };

	action.sa_sigaction = on_fault;
	sigemptyset(&action.sa_mask);
	for (unsigned i = 0; i < 2; i++)
		sigaction(signals[i], NULL, &guard.before[i]);
	for (unsigned i = 0; i < 2; i++)
		sigaction(signals[i], &action, NULL);
	guard.armed = true;
}

static int note_module(struct dl_phdr_info *info, size_t size, void *arg)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		unsigned n = guard.n_modules;

		if (part->p_type != PT_LOAD || !(part->p_flags & PF_X) || n == MODULES)
			continue;
		guard.module[n].start = info->dlpi_addr + part->p_vaddr;
		guard.module[n].end = guard.module[n].start + part->p_memsz;
		atomic_store(&guard.n_modules, n + 1);
	}
	return 0;
}

static bool bears_mark(const char *tid)
{
	char path[64], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", tid);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(name, sizeof(name), file))
		name[0] = '\0';
	fclose(file);
	return !strncmp(name, MARK, strlen(MARK));
}

static void note_thread(pid_t tid)
{
	unsigned n = guard.n_threads;

	if (tid == (pid_t)syscall(SYS_gettid) || n == THREADS || is_platforms(tid))
		return;
	guard.thread[n] = tid;
	atomic_store(&guard.n_threads, n + 1);
}

static void note_threads(void)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *task;

	while (tasks && (task = readdir(tasks)))
		if (task->d_name[0] != '.' && bears_mark(task->d_name))
			note_thread((pid_t)atoi(task->d_name));
	if (tasks)
		closedir(tasks);
}

void userptr_guard_begin(void)
{
	pthread_mutex_lock(&guard.one);
	prctl(PR_GET_NAME, guard.name);
	prctl(PR_SET_NAME, MARK);
}

void userptr_guard_end(void)
{
	bool first = !guard.n_threads;

	note_threads();
	prctl(PR_SET_NAME, guard.name);
	/* Kernels are loaded later, when they are launched. */
	if (first && guard.n_threads)
		dl_iterate_phdr(note_module, NULL);
	if (!guard.armed && guard.n_threads)
		arm();
	pthread_mutex_unlock(&guard.one);
}

void userptr_guard_watch(struct userptr_job *job)
{
	atomic_fetch_add(&guard.n_jobs, 1);
	job->faults = atomic_load(&guard.faults);
	job->watched = true;
}

bool userptr_guard_fault(const struct userptr_job *job, uintptr_t *where)
{
	*where = atomic_load(&guard.where);
	return job->watched && atomic_load(&guard.faults) != job->faults;
}

void userptr_guard_forget(struct userptr_job *job)
{
	if (job->watched)
		atomic_fetch_sub(&guard.n_jobs, 1);
	job->watched = false;
}
