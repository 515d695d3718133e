/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * live - the runner: a process for each case, a limit for each process.
 *
 * A case that hangs is killed by SIGKILL, which also ends a thread that waits for
 * a userfaultfd message nobody reads. Children of cases die with them.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "live.h"

#define REASON 400

/* What a child has to say. */
struct report {
	volatile int verdict; /* -1: it has not come to an end */
	char reason[REASON];
};

static char reason[REASON];
static struct report *prepared;

const char *live_reason(void)
{
	return reason;
}

enum verdict live_fail(const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	int n = snprintf(reason, sizeof(reason), "%s:%d: ", base ? base + 1 : file, line);
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason + n, sizeof(reason) - (size_t)n, fmt, args);
	va_end(args);
	return FAIL;
}

enum verdict live_skip(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(reason, sizeof(reason), fmt, args);
	va_end(args);
	return SKIP;
}

uint64_t live_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool live_race_on(uint64_t began, uint64_t ns, bool raced)
{
	return live_now_ns() - began < (raced ? ns : 5 * ns);
}

char *live_map(size_t length, int prot)
{
	char *p = mmap(NULL, length, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		       0);

	if (p == MAP_FAILED) {
		fprintf(stderr, "mmap of %zu bytes: %s\n", length, strerror(errno));
		abort();
	}
	return p;
}

/* Limits are for real CPUs; a machine that is emulated asks for a multiple (lab/init). */
static unsigned patience(void)
{
	const char *factor = getenv("UHMM_TEST_PATIENCE");

	return factor && atoi(factor) > 0 ? (unsigned)atoi(factor) : 1;
}

int live_wait(pid_t pid, unsigned limit_s)
{
	uint64_t end;
	int status;

	limit_s *= patience();
	end = live_now_ns() + limit_s * UINT64_C(1000000000);
	while (waitpid(pid, &status, WNOHANG) != pid) {
		if (live_now_ns() > end) {
			kill(pid, SIGKILL);
			waitpid(pid, &status, 0);
			return -1;
		}
		usleep(500);
	}
	return status;
}

void live_child_prepare(void)
{
	prepared = mmap(NULL, sizeof(*prepared), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (prepared == MAP_FAILED)
		abort();
	prepared->verdict = -1;
	fflush(stdout);
	fflush(stderr);
}

enum verdict live_child_of(pid_t pid, enum verdict (*fn)(void *arg), void *arg,
			   unsigned limit_s)
{
	struct report *report = prepared;
	enum verdict verdict = FAIL;
	int status;

	if (pid < 0)
		FAILED("no child: %s", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		verdict = fn(arg);
		memcpy(report->reason, reason, sizeof(reason));
		report->verdict = (int)verdict;
		_exit(0);
	}
	status = live_wait(pid, limit_s);
	if (status == -1)
		live_fail(__FILE__, __LINE__, "hung: killed after %u s", limit_s);
	else if (WIFSIGNALED(status))
		live_fail(__FILE__, __LINE__, "died of %s", strsignal(WTERMSIG(status)));
	else if (report->verdict < 0)
		live_fail(__FILE__, __LINE__, "left with status %d", WEXITSTATUS(status));
	else
		verdict = (enum verdict)report->verdict;
	if (report->verdict >= 0)
		memcpy(reason, report->reason, sizeof(reason));
	munmap(report, sizeof(*report));
	return verdict;
}

enum verdict live_child(enum verdict (*fn)(void *arg), void *arg, unsigned limit_s)
{
	live_child_prepare();
	return live_child_of(fork(), fn, arg, limit_s);
}

void live_note(struct live_count *count, const char *name, enum verdict verdict,
	       const char *why)
{
	if (verdict == PASS)
		count->passed++;
	else if (verdict == FAIL)
		count->failed++;
	else
		count->skipped++;
	if (verdict == FAIL)
		printf("FAIL %s: %s\n", name, why);
	else if (verdict == SKIP)
		printf("skip %s: %s\n", name, why);
	else if (count->verbose)
		printf("ok   %s\n", name);
	fflush(stdout);
}

int live_end(const struct live_count *count)
{
	printf("%u passed, %u failed, %u skipped\n", count->passed, count->failed,
	       count->skipped);
	if (count->failed)
		return 1;
	return count->passed ? 0 : 77;
}

static enum verdict run_case(void *arg)
{
	const struct live_case *c = arg;

	return c->run(c->arg);
}

void live_run(struct live_count *count, const struct live_case *c)
{
	uint64_t begin = live_now_ns();
	enum verdict verdict = live_child(run_case, (void *)(uintptr_t)c,
					  c->limit_s ? c->limit_s : LIVE_LIMIT);
	char name[200];

	if (count->verbose)
		snprintf(name, sizeof(name), "%s (%llu ms)", c->name,
			 (unsigned long long)((live_now_ns() - begin) / 1000000));
	live_note(count, count->verbose ? name : c->name, verdict, reason);
}

static bool chosen(int argc, char **argv, const char *name)
{
	bool any = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-v"))
			continue;
		any = true;
		if (strstr(name, argv[i]))
			return true;
	}
	return !any;
}

int live_main(int argc, char **argv, const struct live_case *cases, size_t n)
{
	struct live_count count = { 0 };

	for (int i = 1; i < argc; i++)
		count.verbose |= !strcmp(argv[i], "-v");
	for (size_t i = 0; i < n; i++)
		if (chosen(argc, argv, cases[i].name))
			live_run(&count, &cases[i]);
	return live_end(&count);
}
