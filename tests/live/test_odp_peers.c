/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_odp_peers - O4: a peer that dies, stalls or sends garbage takes no other's time.
 *
 * The target is a process of its own. A case is somebody bad, beside whom a good client asks
 * all the time: its bytes are right, and none of its requests takes longer than PATIENCE_MS.
 * Afterwards the target has as many descriptors and about as much memory as before.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "odp_peers.h"

#define RW (PROT_READ | PROT_WRITE)
#define SLACK_KB 6000u

struct served *served;

/* ---- the target ---- */

static void serve(void)
{
	struct odp_target_options o = { .size = sizeof(o), .max_clients = 16 };
	unsigned access = ODP_READ | ODP_WRITE | ODP_ATOMIC;
	struct odp_region *region;
	struct odp_target *target;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	served->memory = live_map(MEMORY, RW);
	served->gone = live_map(GONE, RW);
	served->wide = live_map(WIDE, RW);
	for (size_t i = 0; i < MEMORY; i += 8)
		*(uint64_t *)(served->memory + i) = word_at(i);
	if (odp_target_open(&o, &target) ||
	    odp_region_create(target, 0, UINTPTR_MAX, access, &region))
		_exit(1);
	odp_region_key(region, &served->key);
	strcpy(served->address, odp_target_address(target));
	served->up = true;
	for (;;) {
		struct odp_target_stats s = { .size = sizeof(s) };

		odp_target_get_stats(target, &s);
		served->stats = s;
		madvise(served->gone, GONE, MADV_DONTNEED);
		madvise(served->wide, WIDE, MADV_DONTNEED);
		usleep(2000);
	}
}

enum verdict served_begin(void)
{
	pid_t pid;

	served = mmap(NULL, sizeof(*served), RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = fork();
	if (!pid)
		serve();
	served->pid = pid;
	for (unsigned i = 0; i < 5000 && !served->up; i++)
		usleep(1000);
	CHECK(served->up, "no target");
	return PASS;
}

unsigned served_fds(void)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)served->pid);
	dir = opendir(path);
	while (dir && readdir(dir))
		n++;
	if (dir)
		closedir(dir);
	return n;
}

unsigned served_kb(void)
{
	char path[64], line[256];
	unsigned kb = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)served->pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "VmRSS: %u", &kb);
	if (f)
		fclose(f);
	return kb;
}

/* ---- the good client ---- */

static struct {
	struct odp *odp;
	pthread_t thread;
	_Atomic bool stop;
	_Atomic unsigned rounds;
	_Atomic int err;
	_Atomic uint64_t worst_ns;
	_Atomic bool wrong;
} good;

static void good_one(unsigned round, uint64_t *buffer)
{
	size_t length = round % 8 ? 64 : 1 << 20;
	size_t at = (size_t)round * 4104 % (MEMORY / 2 - length) & ~(size_t)7;
	uint64_t began = live_now_ns(), took;
	char zeros[100];
	int err = odp_get(good.odp, &served->key, buffer, (uintptr_t)served->memory + at, length);

	if (!err)
		err = odp_get(good.odp, &served->key, zeros,
			      (uintptr_t)served->gone + round * 4096 % GONE, sizeof(zeros));
	took = live_now_ns() - began;
	if (err)
		good.err = err;
	if (took > good.worst_ns)
		good.worst_ns = took;
	for (size_t i = 0; !err && i < length; i += 8)
		good.wrong |= buffer[i / 8] != word_at(at + i);
	good.rounds++;
}

static void *good_main(void *arg)
{
	uint64_t *buffer = malloc(1 << 20);

	for (unsigned round = 0; !good.stop && !good.err && !good.wrong; round++) {
		good_one(round, buffer);
		usleep(200);
	}
	free(buffer);
	return NULL;
}

static enum verdict good_begin(void)
{
	EXPECT(0, odp_connect(served->address, NULL, &good.odp));
	EXPECT(0, pthread_create(&good.thread, NULL, good_main, NULL));
	while (good.rounds < 20 && !good.err)
		usleep(1000);
	good.worst_ns = 0;
	return PASS;
}

static enum verdict good_end(void)
{
	unsigned rounds = good.rounds;

	while (good.rounds < rounds + 10 && !good.err && !good.wrong)
		usleep(1000);
	good.stop = true;
	pthread_join(good.thread, NULL);
	odp_close(good.odp);
	CHECK(!good.err, "the good client: %s", hmm_strerror(good.err));
	CHECK(!good.wrong, "the good client got wrong bytes");
	if (getenv("ODP_PEERS_SAY"))
		fprintf(stderr, "the good client: %u rounds, waited %llu us at most\n",
			good.rounds, (unsigned long long)good.worst_ns / 1000);
	CHECK(good.worst_ns / 1000000 < PATIENCE_MS, "the good client waited %llu ms",
	      (unsigned long long)good.worst_ns / 1000000);
	return PASS;
}

/* ---- a case ---- */

static enum verdict beside(const void *arg)
{
	const struct bad_peer *bad = arg;
	unsigned fds, kb, broken;

	TRY(served_begin());
	TRY(good_begin());
	/* Once, for what libraries keep; then what grows is lost. */
	TRY(bad->run(bad));
	usleep(300000);
	fds = served_fds();
	kb = served_kb();
	broken = (unsigned)served->stats.broken;
	TRY(bad->run(bad));
	for (unsigned i = 0; i < 3000 && (served_fds() > fds || served->stats.clients > 1); i++)
		usleep(1000);
	CHECK(served_fds() <= fds, "%u descriptors, then %u", fds, served_fds());
	CHECK(served_kb() <= kb + SLACK_KB, "%u KiB, then %u", kb, served_kb());
	CHECK(served->stats.clients == 1, "%llu clients are left",
	      (unsigned long long)served->stats.clients);
	CHECK(!bad->breaks || served->stats.broken > broken, "no connection was broken");
	TRY(good_end());
	CHECK(waitpid(served->pid, NULL, WNOHANG) == 0, "the target has died");
	kill(served->pid, SIGKILL);
	return PASS;
}

/* ---- kill -9 ---- */

static void client_main(unsigned seed)
{
	uint64_t *buffer = malloc(2 << 20);
	struct odp *odp;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (odp_connect(served->address, NULL, &odp))
		_exit(1);
	for (;; seed = seed * 1103515245 + 12345) {
		size_t length = seed >> 16 & 1 ? 100 : 2 << 20;

		if (seed >> 17 & 1)
			odp_put(odp, &served->key, (uintptr_t)served->memory + MEMORY / 2, buffer,
				length);
		else
			odp_get(odp, &served->key, buffer, (uintptr_t)served->memory, length);
	}
}

static enum verdict clients_die(const void *arg)
{
	unsigned fds = 0, kb = 0;

	TRY(served_begin());
	TRY(good_begin());
	for (unsigned round = 0; round < 200; round++) {
		pid_t pid = fork();

		if (!pid)
			client_main(round * 7919 + 13);
		usleep(3000 + round * 997 % 40000);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		if (round != 20)
			continue;
		usleep(300000);
		fds = served_fds();
		kb = served_kb();
	}
	for (unsigned i = 0; i < 3000 && (served_fds() > fds || served->stats.clients > 1); i++)
		usleep(1000);
	CHECK(served_fds() <= fds, "%u descriptors, then %u", fds, served_fds());
	CHECK(served_kb() <= kb + SLACK_KB, "%u KiB, then %u", kb, served_kb());
	CHECK(served->stats.clients == 1, "%llu clients are left",
	      (unsigned long long)served->stats.clients);
	return good_end();
}

static enum verdict target_dies(const void *arg)
{
	for (unsigned round = 0; round < 200; round++) {
		static uint64_t buffer[(2 << 20) / 8];
		struct odp *odp;
		uint64_t killed;
		int err = 0;
		pid_t killer;

		TRY(served_begin());
		EXPECT(0, odp_connect(served->address, NULL, &odp));
		killer = fork();
		if (!killer) {
			usleep(round * 997 % 20000);
			kill(served->pid, SIGKILL);
			_exit(0);
		}
		while (!err)
			err = odp_get(odp, &served->key, buffer, (uintptr_t)served->memory,
				      sizeof(buffer));
		killed = live_now_ns();
		waitpid(killer, NULL, 0);
		waitpid(served->pid, NULL, 0);
		CHECK(live_now_ns() - killed < 1000000000u, "it was not the kill that ended it");
		CHECK(err == -ECONNRESET || err == -ETIMEDOUT, "%s", hmm_strerror(err));
		killed = live_now_ns();
		EXPECT(err, odp_get(odp, &served->key, buffer, 0, 8));
		odp_close(odp);
		CHECK(live_now_ns() - killed < 1000000000u, "closing took its time");
		EXPECT(-ECONNREFUSED, odp_connect(served->address, NULL, &odp));
		munmap(served, sizeof(*served));
	}
	return PASS;
}

/* A client that is stopped is heard of when it goes on, or the target gives it up: nobody
 * waits for it meanwhile. And one that hears nothing ends in time. */
static enum verdict target_stops(const void *arg)
{
	struct odp_options o = { .size = sizeof(o), .timeout_ms = 300 };
	struct odp *odp;
	uint64_t began;
	char byte;

	TRY(served_begin());
	EXPECT(0, odp_connect(served->address, &o, &odp));
	EXPECT(0, odp_get(odp, &served->key, &byte, (uintptr_t)served->memory, 1));
	kill(served->pid, SIGSTOP);
	waitpid(served->pid, NULL, WUNTRACED); /* all of its threads have */
	began = live_now_ns();
	EXPECT(-ETIMEDOUT, odp_get(odp, &served->key, &byte, (uintptr_t)served->memory, 1));
	CHECK(live_now_ns() - began < 2000000000u, "it took too long");
	EXPECT(-ETIMEDOUT, odp_get(odp, &served->key, &byte, (uintptr_t)served->memory, 1));
	odp_close(odp);
	EXPECT(-ETIMEDOUT, odp_connect(served->address, &o, &odp));
	kill(served->pid, SIGKILL);
	return PASS;
}

int main(int argc, char **argv)
{
	struct live_case cases[40];
	unsigned n = 0;

	for (; n < bad_peers_n; n++)
		cases[n] = (struct live_case){ .name = bad_peers[n].name, .run = beside,
					       .arg = &bad_peers[n], .limit_s = 60 };
	cases[n++] = (struct live_case){ .name = "kill-client", .run = clients_die,
					 .limit_s = 90 };
	cases[n++] = (struct live_case){ .name = "kill-target", .run = target_dies,
					 .limit_s = 120 };
	cases[n++] = (struct live_case){ .name = "stop-target", .run = target_stops };
	return live_main(argc, argv, cases, n);
}
