/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away_self - threads that use heap, stacks and static data, and who sends those away.
 */
#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "away_self.h"

extern char **environ;
char self_bss[256 * 1024] __attribute__((aligned(4096)));

#define WRONG(c, ...) snprintf((c)->wrong, sizeof((c)->wrong), __VA_ARGS__)

/* ---- churners ---- */

#define SLOTS 40u

/* The first byte that is wrong, of those looked at; n: none. */
static size_t pattern_until(const unsigned char *p, size_t n)
{
	size_t i = 0;

	while (i < n && p[i] == (unsigned char)(n + i))
		i += 61;
	return i < n ? i : n;
}

static void pattern(unsigned char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)(n + i);
}

void *churn_malloc(void *arg)
{
	struct churner *c = arg;
	unsigned char *at[SLOTS] = { NULL };
	size_t size[SLOTS] = { 0 };
	unsigned seed = c->n * 77 + 5;

	for (; !*c->stop && !c->wrong[0]; c->rounds++) {
		unsigned i = rand_r(&seed) % SLOTS;
		size_t n = (size_t)1 << rand_r(&seed) % 18, bad;

		bad = at[i] ? pattern_until(at[i], size[i]) : size[i];
		if (bad < size[i])
			WRONG(c, "malloc: byte %zu of a block of %zu at %p is %#x, not %#x",
			      bad, size[i], (void *)at[i], at[i][bad],
			      (unsigned char)(size[i] + bad));
		if (c->rounds % 3 || !at[i]) {
			free(at[i]);
			at[i] = malloc(n);
		} else {
			at[i] = realloc(at[i], n);
		}
		size[i] = n;
		pattern(at[i], n);
	}
	for (unsigned i = 0; i < SLOTS; i++)
		free(at[i]);
	return NULL;
}

static unsigned long deep(struct churner *c, unsigned depth)
{
	volatile unsigned char frame[1500];
	unsigned long below = 0;

	memset((void *)(uintptr_t)frame, (int)depth, sizeof(frame));
	if (depth)
		below = deep(c, depth - 1);
	for (size_t i = 0; i < sizeof(frame); i += 50)
		if (frame[i] != (unsigned char)depth)
			WRONG(c, "stack: byte %zu of frame %u is %#x", i, depth, frame[i]);
	return below + frame[7];
}

void *churn_recurse(void *arg)
{
	struct churner *c = arg;
	pthread_attr_t attr;
	void *stack;
	size_t size;

	if (!pthread_getattr_np(pthread_self(), &attr)) {
		pthread_attr_getstack(&attr, &stack, &size);
		pthread_attr_destroy(&attr);
		c->stack_end = (uintptr_t)stack + size;
		c->stack_start = (uintptr_t)stack;
	}
	for (; !*c->stop && !c->wrong[0]; c->rounds++) {
		char buffer[30000];

		deep(c, 60);
		snprintf(buffer, sizeof(buffer), "%29000d %s", 42, "end");
		if (strcmp(buffer + 28998, "42 end"))
			WRONG(c, "stack: snprintf gave '%.20s'", buffer + 28998);
	}
	return NULL;
}

static int compare(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

void *churn_stdio(void *arg)
{
	struct churner *c = arg;
	FILE *file = fopen("/dev/null", "we");

	for (; file && !*c->stop && !c->wrong[0]; c->rounds++) {
		time_t now = time(NULL);
		struct tm tm;
		int a[100];

		for (int i = 0; i < 100; i++)
			a[i] = i * 37 % 100;
		qsort(a, 100, sizeof(a[0]), compare);
		if (a[41] != 41)
			WRONG(c, "qsort");
		fprintf(file, "%s %f %d\n", getenv("PATH"), strtod("1.5", NULL), a[3]);
		if (c->rounds % 50 == 0)
			fflush(file);
		if (!localtime_r(&now, &tm) || !strerror(EINVAL))
			WRONG(c, "localtime_r");
	}
	if (file)
		fclose(file);
	return NULL;
}

/* The wait status of a child that looks at the block: by fork, raw clone, or exec. */
static int child_of(unsigned i, const unsigned char *block)
{
	char *argv[] = { (char *)"true", NULL };
	pid_t pid = 0;

	if (i % 3 == 2) {
		if (posix_spawnp(&pid, "true", NULL, NULL, argv, environ))
			return -2;
	} else {
		pid = i % 3 ? (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
		if (!pid)
			_exit(pattern_until(block, 5000) < 5000);
	}
	return pid > 0 ? live_wait(pid, 10) : -2;
}

void *churn_children(void *arg)
{
	static const char *const how[] = { "fork", "raw clone", "posix_spawn" };
	struct churner *c = arg;
	unsigned char *block = malloc(5000);

	pattern(block, 5000);
	for (; !*c->stop && !c->wrong[0]; c->rounds++) {
		int status = child_of((unsigned)c->rounds, block);

		if (status)
			WRONG(c, "child of %s: status %#x%s", how[c->rounds % 3], status,
			      status == 0x100 ? ", its memory is wrong" : "");
		usleep(2000);
	}
	free(block);
	return NULL;
}

struct meeting {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned turn;
};

static void *meet(void *arg)
{
	struct meeting *m = arg;

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < 20; i++) {
		while (m->turn % 2 == 0)
			pthread_cond_wait(&m->changed, &m->lock);
		m->turn++;
		pthread_cond_signal(&m->changed);
	}
	pthread_mutex_unlock(&m->lock);
	return malloc(100);
}

/* The lock, the condition and the threads' stacks are what moves. */
void *churn_threads(void *arg)
{
	struct churner *c = arg;

	for (; !*c->stop && !c->wrong[0]; c->rounds++) {
		struct meeting *m = calloc(1, sizeof(*m));
		pthread_t thread;
		void *gift;

		pthread_mutex_init(&m->lock, NULL);
		pthread_cond_init(&m->changed, NULL);
		if (pthread_create(&thread, NULL, meet, m)) {
			WRONG(c, "pthread_create");
			return NULL;
		}
		pthread_mutex_lock(&m->lock);
		for (unsigned i = 0; i < 20; i++) {
			while (m->turn % 2)
				pthread_cond_wait(&m->changed, &m->lock);
			m->turn++;
			pthread_cond_signal(&m->changed);
		}
		pthread_mutex_unlock(&m->lock);
		pthread_join(thread, &gift);
		if (m->turn != 40)
			WRONG(c, "the meeting ended at turn %u", m->turn);
		free(gift);
		free(m);
	}
	return NULL;
}

void *churn_bss(void *arg)
{
	struct churner *c = arg;

	for (; !*c->stop && !c->wrong[0]; c->rounds++)
		for (size_t i = c->n * 64; i < sizeof(self_bss); i += 4096) {
			volatile uint64_t *word = (uint64_t *)(self_bss + i);

			if (*word != c->rounds)
				WRONG(c, ".bss: %llu instead of %lu",
				      (unsigned long long)*word, c->rounds);
			*word = c->rounds + 1;
		}
	return NULL;
}

enum verdict churn_start(struct churn *churn, churn_fn *fn)
{
	struct churner *c = &churn->churner[churn->count];

	CHECK(churn->count < CHURNERS_MAX, "too many churners");
	*c = (struct churner){ .stop = &churn->stop, .n = churn->count++ };
	CHECK(!pthread_create(&c->thread, NULL, fn, c), "no thread");
	return PASS;
}

enum verdict churn_end(struct churn *churn)
{
	for (unsigned i = 0; i < churn->count; i++)
		while (churn->churner[i].rounds <= 1 && !churn->churner[i].wrong[0])
			usleep(1000);
	churn->stop = true;
	for (unsigned i = 0; i < churn->count; i++)
		pthread_join(churn->churner[i].thread, NULL);
	for (unsigned i = 0; i < churn->count; i++) {
		struct churner *c = &churn->churner[i];

		CHECK(!c->wrong[0], "churner %u, round %lu: %s", i, c->rounds, c->wrong);
	}
	return PASS;
}

/* ---- who sends it away ---- */

enum verdict self_out(struct away *dev, uintptr_t start, uintptr_t end, uint64_t *moved)
{
	int64_t n = hmm_migrate_to_device(away_devmem(dev), start, end - start);

	/* -EINVAL: unmapped since we looked. */
	CHECK(n >= 0 || n == -EBUSY || n == -ENOSPC || n == -EINVAL, "%#lx to %#lx: %s",
	      (unsigned long)start, (unsigned long)end, hmm_strerror((int)n));
	*moved += n > 0 ? (uint64_t)n : 0;
	return PASS;
}

#define RUNS 1000u

struct runs {
	unsigned n;
	struct {
		uintptr_t start, end;
	} run[RUNS];
};

static int collect(const struct hmm_run *run, void *arg)
{
	struct runs *runs = arg;

	if (run->kind != HMM_VMA_ANON && run->kind != HMM_VMA_HEAP &&
	    run->kind != HMM_VMA_STACK)
		return 0;
	if (!(run->flags & HMM_RUN_WRITE) || runs->n == RUNS)
		return 0;
	runs->run[runs->n].start = run->start;
	runs->run[runs->n++].end = run->end;
	return 0;
}

enum verdict self_all_out(struct away *dev, uint64_t *moved)
{
	struct runs *runs = hmm_alloc(sizeof(*runs));
	enum verdict verdict = PASS;

	CHECK(runs, "no memory");
	CHECK(!hmm_snapshot_runs(away_hmm(dev), 0, UINTPTR_MAX, HMM_RUN_VALID, collect,
				 runs),
	      "hmm_snapshot_runs");
	for (unsigned i = 0; i < runs->n && verdict == PASS; i++)
		verdict = self_out(dev, runs->run[i].start, runs->run[i].end, moved);
	hmm_free(runs, sizeof(*runs));
	return verdict;
}
