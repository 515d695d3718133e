/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_stress - the parent: starts a target and its clients, sees that they go on, and counts.
 *
 *	stress_odp [--ops N] [--seconds N] [--seed N] [--wrong-model]
 *
 * --wrong-model: the clients hold the target to a generation that is one too high. The run has
 * to fail: who finds nothing then would find nothing ever. (Then 0 is returned.)
 */
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

#include "odp_stress.h"

#define HANG_S 20u /* without one operation of any client */
#define LEAK_KB 30000u

struct shared *shared;

void violation(const char *fmt, ...)
{
	uint64_t n = ++shared->violations;
	va_list args;
	char text[300];

	if (n > 5 || shared->wrong_model)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fprintf(stderr, "stress_odp: %s\n", text);
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static unsigned rss_kb(pid_t pid)
{
	char path[64], line[256];
	unsigned kb = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmRSS: %u", &kb);
	if (f)
		fclose(f);
	return kb;
}

static uint64_t ops_of_all(void)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < CLIENTS; i++)
		sum += shared->client[i].ops;
	return sum;
}

static pid_t start(int which, uint64_t ops, uint64_t seed)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (which < 0)
		exit(target_main(seed));
	int status = client_main((unsigned)which, ops, seed);

	shared->client[which].ended = true;
	exit(status);
}

static bool all_ended(void)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (!shared->client[i].ended)
			return false;
	return true;
}

/* Until the clients have ended, or time is up. true: somebody hangs, or has died. */
static bool watch(const pid_t *pid, unsigned seconds, unsigned *kb)
{
	uint64_t begin = now_ms(), last_ops = 0, last = begin;

	while (!all_ended()) {
		uint64_t ops = ops_of_all(), now = now_ms();

		for (unsigned i = 0; i < CLIENTS + 1; i++) {
			int status;

			if (waitpid(pid[i], &status, WNOHANG) == pid[i] &&
			    (status || !i)) {
				fprintf(stderr, "stress_odp: process %u ended with %#x\n", i, status);
				return true;
			}
		}
		if (ops != last_ops) {
			last_ops = ops;
			last = now;
		} else if (now - last > HANG_S * 1000) {
			fprintf(stderr, "stress_odp: nothing for %u s\n", HANG_S);
			return true;
		}
		if (!*kb && now - begin > 2000)
			*kb = rss_kb(pid[0]);
		if (seconds && now - begin > seconds * UINT64_C(1000))
			shared->stop = true;
		usleep(20000);
	}
	return false;
}

static void report(uint64_t ms, unsigned kb, unsigned kb_end)
{
	uint64_t fetched = 0, excused = 0, puts = 0, checked = 0, added = 0;

	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct client *c = &shared->client[i];

		fetched += c->fetched;
		excused += c->excused;
		puts += c->put;
		checked += c->checked;
		for (unsigned n = 0; n < COUNTERS; n++)
			added += c->added[n];
	}
	printf("%llu requests in %llu ms: %llu rows (%llu answers excused by a change), %llu "
	       "owned sets put (%llu looks by the CPU), %llu added\n",
	       (unsigned long long)ops_of_all(), (unsigned long long)ms,
	       (unsigned long long)fetched, (unsigned long long)excused,
	       (unsigned long long)puts, (unsigned long long)checked, (unsigned long long)added);
	printf("changes: DONTNEED %llu, MAP_FIXED %llu, munmap %llu, mprotect %llu, mremap %llu, "
	       "%llu and %llu that keep bytes, fork %llu; VmRSS %u, then %u KiB\n",
	       (unsigned long long)shared->changes[0], (unsigned long long)shared->changes[1],
	       (unsigned long long)shared->changes[2], (unsigned long long)shared->changes[3],
	       (unsigned long long)shared->changes[4], (unsigned long long)shared->changes[5],
	       (unsigned long long)shared->changes[6], (unsigned long long)shared->forks, kb,
	       kb_end);
}

int main(int argc, char **argv)
{
	uint64_t ops = UINT64_MAX, seed = 1, begin = now_ms();
	unsigned seconds = 0, kb = 0, kb_end;
	pid_t pid[CLIENTS + 1];
	int status = 0;
	bool bad;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--wrong-model"))
			shared->wrong_model = true;
		else if (!strcmp(argv[i], "--ops") && i + 1 < argc)
			ops = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			seconds = (unsigned)atoi(argv[++i]);
		else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			seed = strtoull(argv[++i], NULL, 0);
		else
			return fprintf(stderr, "usage: stress_odp [--ops N] [--seconds N] [--seed N] "
					       "[--wrong-model]\n"), 2;
	}
	if (ops == UINT64_MAX && !seconds)
		ops = 100000;
	pid[0] = start(-1, 0, seed);
	for (unsigned i = 0; i < 5000 && !shared->up; i++)
		usleep(1000);
	for (unsigned i = 0; i < CLIENTS; i++)
		pid[i + 1] = start((int)i, ops == UINT64_MAX ? ops : ops / CLIENTS, seed);
	bad = !shared->up || watch(pid, seconds, &kb);
	kb_end = rss_kb(pid[0]);
	shared->stop = shared->target_stop = true;
	for (unsigned i = 0; i < 500 && !bad && waitpid(pid[0], &status, WNOHANG) != pid[0]; i++)
		usleep(20000);
	for (unsigned i = 0; i < CLIENTS + 1; i++)
		kill(pid[i], SIGKILL);
	report(now_ms() - begin, kb, kb_end);
	bad |= status != 0 || (kb && kb_end > kb + LEAK_KB);
	if (shared->wrong_model) {
		printf("%llu violations of a model that is wrong\n%d passed, %d failed, 0 skipped\n",
		       (unsigned long long)shared->violations, shared->violations != 0,
		       !shared->violations);
		return !shared->violations;
	}
	printf("%llu violations\n", (unsigned long long)shared->violations);
	bad |= shared->violations != 0;
	printf("%d passed, %d failed, 0 skipped\n", !bad, bad);
	return bad;
}
