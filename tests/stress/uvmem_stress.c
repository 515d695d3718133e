/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * uvmem_stress - U2 and U3 by force: threads on the secure side, each with pages of its own
 * and a model of every byte; the CPU touches all of them all the time, there are fewer
 * frames than pages, and every so often a page is forged.
 *
 *	stress_uvmem [--seconds N] [--ops N] [--seed N] [--wrong-model]
 *
 * What a load may say: the model's bytes; or -EBADMSG, if its page was forged or discarded
 * by its owner since the last erase. Never other bytes: not those of before, not those of a
 * neighbour. A forgery that meets a page just as it is sealed anew may miss; then the page
 * is whole.
 *
 * --wrong-model: now and then a byte of the model is wrong. The run has to fail, and 0 is
 * returned if so.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <uhmm/uvmem.h>

#define PAGE 4096u
#define THREADS 3u
#define PAGES 96u
#define FRAMES 40u
#define HANG_S 30u

static unsigned char *range;
static unsigned char model[PAGES][PAGE];
static bool forged[PAGES]; /* the owner's: -EBADMSG is right */
static struct uvmem *uv;
static atomic_ullong ops, violations, refusals, missed, forks;
static atomic_bool stop;
static bool wrong_model;

struct worker {
	unsigned id;
	uint64_t random;
	pthread_t thread;
	unsigned char bytes[PAGE], old[PAGE]; /* of what it does outside */
	void *other;			      /* a page's place, for mremap */
};

static void violation(const char *fmt, ...)
{
	char text[300];
	va_list args;

	if (atomic_fetch_add(&violations, 1) > 5 || wrong_model)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	fprintf(stderr, "stress_uvmem: %s\n", text);
}

static uint64_t rnd(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static unsigned char *at(unsigned page)
{
	return range + page * PAGE;
}

/* ---- the secure side ---- */

struct piece {
	unsigned page, offset, length;
	bool write;
	unsigned char *data;
};

static int move(struct uvmem_side *side, void *arg)
{
	const struct piece *p = arg;
	unsigned char *there = at(p->page) + p->offset;

	return p->write ? uvmem_store(side, there, p->data, p->length)
			: uvmem_load(side, p->data, there, p->length);
}

/* After -EBADMSG that was right: the page is zeros. */
static void erase(unsigned page)
{
	int err = uvmem_erase(uv, at(page), PAGE);

	if (err)
		violation("erase of page %u: %s", page, uvmem_strerror(err));
	memset(model[page], 0, PAGE);
	forged[page] = false;
}

/* false: it has been refused, and is zeros now. */
static bool judge(unsigned page, int err, const char *what)
{
	if (!err)
		return true;
	/* Touched all the time by others: no verdict. */
	if (err == -EBUSY)
		return false;
	if (err != -EBADMSG || !forged[page])
		violation("%s of page %u: %d (%s)", what, page, err, uvmem_strerror(err));
	else
		atomic_fetch_add(&refusals, 1);
	erase(page);
	return false;
}

static void check(struct worker *w, unsigned page)
{
	struct piece p = { page, (unsigned)(rnd(w) % PAGE), 0, false, w->bytes };

	p.length = rnd(w) % 4 ? (unsigned)(rnd(w) % (PAGE - p.offset)) + 1 : PAGE;
	p.offset = p.length == PAGE ? 0 : p.offset;
	if (!judge(page, uvmem_run(uv, move, &p), "load"))
		return;
	if (wrong_model && !(rnd(w) % 64))
		model[page][p.offset] ^= 1;
	if (memcmp(w->bytes, model[page] + p.offset, p.length))
		violation("page %u: other bytes than the model%s", page,
			  memcmp(w->bytes, w->old + p.offset, p.length) ? ""
									: ": older ones");
}

static void store(struct worker *w, unsigned page)
{
	struct piece p = { page, (unsigned)(rnd(w) % PAGE), 0, true, w->bytes };

	p.length = (unsigned)(rnd(w) % (PAGE - p.offset)) + 1;
	for (unsigned i = 0; i < p.length; i++)
		w->bytes[i] = (unsigned char)rnd(w);
	if (judge(page, uvmem_run(uv, move, &p), "store"))
		memcpy(model[page] + p.offset, w->bytes, p.length);
}

/* ---- outside ---- */

static void out(struct worker *w, unsigned page)
{
	int64_t n = uvmem_page_out(uv, at(page), PAGE);

	if (n < 0)
		violation("page out: %s", uvmem_strerror((int)n));
}

static void in(struct worker *w, unsigned page)
{
	int64_t n = uvmem_page_in(uv, at(page), PAGE);

	if (n < 0)
		judge(page, (int)n, "page in");
}

static void touch(struct worker *w, unsigned page)
{
	memcpy(w->bytes, at(page), PAGE);
	if (!memcmp(w->bytes, model[page], 64) && model[page][0])
		violation("page %u is plain", page);
}

static void tamper(struct worker *w, unsigned page)
{
	out(w, page);
	forged[page] = true;
	at(page)[rnd(w) % PAGE] ^= (unsigned char)(1u << rnd(w) % 8);
	check(w, page);
	atomic_fetch_add(&missed, forged[page]);
	if (forged[page])
		erase(page);
}

static void replay(struct worker *w, unsigned page)
{
	out(w, page);
	memcpy(w->old, at(page), PAGE); /* sealed, of one moment */
	store(w, page);
	out(w, page);
	forged[page] = true;
	memcpy(at(page), w->old, PAGE);
	check(w, page);
	if (forged[page])
		erase(page);
}

static void swap(struct worker *w, unsigned page)
{
	unsigned other = (page + THREADS) % PAGES; /* its own as well */

	out(w, page);
	out(w, other);
	memcpy(w->old, at(page), PAGE);
	forged[page] = forged[other] = true;
	memcpy(at(page), at(other), PAGE);
	memcpy(at(other), w->old, PAGE);
	check(w, page);
	check(w, other);
	if (forged[page])
		erase(page);
	if (forged[other])
		erase(other);
}

static bool is_zero(unsigned page)
{
	for (unsigned i = 0; i < PAGE; i++)
		if (model[page][i])
			return false;
	return true;
}

static void discard(struct worker *w, unsigned page)
{
	struct piece p = { page, 0, 8, false, w->bytes };
	int err;

	if (madvise(at(page), PAGE, MADV_DONTNEED))
		violation("madvise: %s", strerror(errno));
	forged[page] = true;
	err = uvmem_run(uv, move, &p);
	/* Zeros that have not been written since they were meant are as good as others. */
	if (!err && !is_zero(page))
		violation("page %u was discarded, and read", page);
	erase(page);
}

static void there_and_back(struct worker *w, unsigned page)
{
	const int how = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;

	/* Both places stay mapped: else somebody's mmap() might take one in between. */
	if (mremap(at(page), PAGE, PAGE, how, w->other) != w->other ||
	    mremap(w->other, PAGE, PAGE, how, at(page)) != at(page))
		violation("mremap: %s", strerror(errno));
	check(w, page);
}

static void sharing(struct worker *w, unsigned page)
{
	int err = uvmem_share(uv, at(page), PAGE);

	if (err) {
		violation("share: %s", uvmem_strerror(err));
		return;
	}
	memset(model[page], 0, PAGE);
	at(page)[9] = model[page][9] = 1;
	store(w, page);
	check(w, page);
	if (memcmp(at(page), model[page], PAGE))
		violation("page %u is shared, and CPU and secure side differ", page);
	err = uvmem_unshare(uv, at(page), PAGE);
	if (err)
		violation("unshare: %s", uvmem_strerror(err));
	memset(model[page], 0, PAGE);
	check(w, page);
}

static void child(struct worker *w, unsigned page)
{
	pid_t pid;
	int status;

	if (w->id || rnd(w) % 8)
		return;
	pid = rnd(w) % 4 ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid) {
		for (unsigned p = 0; p < PAGES; p += 7)
			if (!memcmp(at(p), model[p], 64) && model[p][0])
				_exit(1);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
		violation("a child: %d, %#x", pid, status);
	atomic_fetch_add(&forks, 1);
}

/* ---- all of it ---- */

static const struct {
	void (*run)(struct worker *w, unsigned page);
	unsigned weight;
} kinds[] = {
	{ check, 30 },	{ store, 24 },	       { touch, 12 },  { out, 6 },
	{ in, 6 },	{ tamper, 3 },	       { replay, 3 },  { swap, 3 },
	{ discard, 2 }, { there_and_back, 2 }, { sharing, 2 }, { child, 2 },
};

static void *work(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		unsigned page = (unsigned)(rnd(w) % (PAGES / THREADS)) * THREADS + w->id;
		unsigned i = 0, pick = (unsigned)(rnd(w) % 95);

		while (pick >= kinds[i].weight)
			pick -= kinds[i++].weight;
		kinds[i].run(w, page);
		atomic_fetch_add(&ops, 1);
	}
	return NULL;
}

static void *toucher(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stop)) {
		const struct timespec pause = { 0, 50000 };
		struct iovec there = { at((unsigned)(rnd(w) % PAGES)), 1 };
		struct iovec here = { w->bytes, 1 };

		/* By a system call: there may be no mapping just now (there_and_back). */
		process_vm_readv(getpid(), &here, 1, &there, 1, 0);
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static int begin(void)
{
	const struct uvmem_options options = { .size = sizeof(options),
					       .frames = FRAMES,
					       .sides = THREADS };
	char why[300];
	int err = uvmem_available(why, sizeof(why));

	if (err) {
		printf("skipped: %s\n0 passed, 0 failed, 1 skipped\n", why);
		exit(77);
	}
	/* With a page on either side: none is beside libc's (devmem.h). */
	range = mmap(NULL, (PAGES + 2) * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	range += PAGE;
	for (unsigned i = 0; i < PAGES * PAGE; i++)
		range[i] = model[i / PAGE][i % PAGE] =
			(unsigned char)(i * 7 + i / PAGE + 1);
	err = uvmem_open(&options, &uv);
	if (!err)
		err = uvmem_init_start(uv, range, PAGES * PAGE);
	return err ? err : uvmem_init_done(uv);
}

static void run(uint64_t seconds, uint64_t most, uint64_t seed)
{
	static struct worker workers[THREADS + 1];
	uint64_t seen = 0, still = 0;
	unsigned i;

	for (i = 0; i <= THREADS; i++) {
		workers[i].id = i;
		workers[i].random = (seed + i + 1) * UINT64_C(0x9e3779b97f4a7c15);
		workers[i].other = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		pthread_create(&workers[i].thread, NULL, i < THREADS ? work : toucher,
			       &workers[i]);
	}
	for (uint64_t ms = 0; ms < seconds * 1000 && atomic_load(&ops) < most; ms += 100) {
		usleep(100000);
		still = atomic_load(&ops) == seen ? still + 1 : 0;
		seen = atomic_load(&ops);
		if (still > HANG_S * 10) {
			fprintf(stderr, "stress_uvmem: nothing has gone on for %u s\n",
				HANG_S);
			abort();
		}
	}
	atomic_store(&stop, true);
	for (i = 0; i <= THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	for (i = 0; i < PAGES && !forged[i]; i++)
		check(&workers[0], i);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seconds", 1, NULL, 's' },
		{ "ops", 1, NULL, 'o' },
		{ "seed", 1, NULL, 'r' },
		{ "wrong-model", 0, NULL, 'w' },
		{ 0 },
	};
	uint64_t seconds = 20, most = UINT64_MAX, seed = (uint64_t)time(NULL);
	struct uvmem_stats stats = { .size = sizeof(stats) };
	bool good;
	int c, err;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		seconds = c == 's' ? strtoull(optarg, NULL, 0) : seconds;
		most = c == 'o' ? strtoull(optarg, NULL, 0) : most;
		seconds = c == 'o' && seconds == 20 ? 86400 : seconds;
		seed = c == 'r' ? strtoull(optarg, NULL, 0) : seed;
		wrong_model = wrong_model || c == 'w';
		if (c == '?')
			return 2;
	}
	err = begin();
	if (err) {
		fprintf(stderr, "stress_uvmem: %s\n", uvmem_strerror(err));
		return 1;
	}
	run(seconds, most, seed);
	uvmem_get_stats(uv, &stats);
	uvmem_close(uv);
	printf("%llu operations, seed %llu: %llu sealed, %llu opened, %llu evicted; %llu "
	       "forgeries "
	       "refused, %llu missed their page; %llu children; %llu violations\n",
	       (unsigned long long)ops, (unsigned long long)seed,
	       (unsigned long long)stats.sealed, (unsigned long long)stats.opened,
	       (unsigned long long)stats.evicted, (unsigned long long)refusals,
	       (unsigned long long)missed, (unsigned long long)forks,
	       (unsigned long long)violations);
	good = (violations != 0) == wrong_model && (refusals || wrong_model);
	printf("%d passed, %d failed, 0 skipped\n", good, !good);
	return good ? 0 : 1;
}
