/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_whole - what the program mapped as one it can mremap as one, whatever is mirrored,
 * migrated and given up meanwhile.
 *
 * Linux refuses (EFAULT) to move a range of which a userfaultfd has only a piece. A mapping is
 * looked at and then registered, and in between it may have become another: a longer one
 * in its place, or one that the kernel merged with its neighbour. Each case is a program that
 * changes its mappings so, as fast as it can, and mremaps each as it was mapped.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "away.h"

#define SLOT 32u /* pages that a program changes */
#define MOST 12u /* pages of a mapping */
#define SLOTS 2u /* programs at once; each has a slot, and one to move to */
#define SPAN ((size_t)1 << 30) /* they are about so far apart */
#define RUN_US 1000000u

struct whole;

struct program {
	struct whole *w;
	char *slot, *to;
	int file;
	uint64_t random;
	uint64_t rounds, refused;
	char reason[100]; /* what else went wrong; "" nothing */
	pthread_t thread;
};

struct behaviour {
	const char *name;
	/* One mapping, as large as it says, at *at; NULL: none this time. */
	size_t (*make)(struct program *p, char **at);
	bool reserved; /* slots lie in a reservation, not in free address space */
	/* So many of a thousand mremaps may be refused: while pages are mirrored and migrated, and
	 * while they are mirrored and given up. */
	unsigned mirrored, visited;
};

struct whole {
	const struct behaviour *does;
	struct hmm *hmm;
	struct away *dev; /* NULL: visitors only */
	char *area;
	struct program program[SLOTS];
	atomic_bool stop;
	_Atomic uint64_t looks;
};

static uint64_t dice(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 11;
}

static size_t pages(struct program *p)
{
	return 2 + dice(&p->random) % (MOST - 2);
}

/* ---- programs ---- */

static char *place(char *at, size_t n, int prot, int file)
{
	int how = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	char *got = mmap(at, n * PAGE, prot, how | MAP_FIXED, file, 0);

	if (got != MAP_FAILED && (prot & PROT_WRITE))
		memset(got, 1, n * PAGE);
	return got;
}

/* Shorter, and at once longer at the same place. */
static size_t make_longer(struct program *p, char **at)
{
	size_t n = pages(p);

	*at = p->slot + PAGE;
	place(*at, n, RW, -1);
	usleep(dice(&p->random) % 50);
	if (dice(&p->random) & 1)
		munmap(*at, n * PAGE);
	n += 1 + dice(&p->random) % 8;
	place(*at, n, RW, -1);
	return n;
}

/* The same of a file, whose pages are the same at the same offset. */
static size_t make_longer_file(struct program *p, char **at)
{
	size_t n = pages(p);

	*at = p->slot + PAGE;
	place(*at, n, RW, p->file);
	usleep(dice(&p->random) % 50);
	n += 1 + dice(&p->random) % 8;
	place(*at, n, RW, p->file);
	return n;
}

/* One that begins below, and ends where the one before ended. */
static size_t make_lower(struct program *p, char **at)
{
	size_t n = pages(p), more = 1 + dice(&p->random) % 8;

	*at = p->slot + 16 * PAGE;
	place(*at, n, RW, -1);
	usleep(dice(&p->random) % 50);
	munmap(*at, n * PAGE);
	*at -= more * PAGE;
	place(*at, n + more, RW, -1);
	return n + more;
}

/* Grown in place. */
static size_t make_grown(struct program *p, char **at)
{
	size_t n = pages(p), more = 1 + dice(&p->random) % 8;

	*at = p->slot + PAGE;
	place(*at, n, RW, -1);
	usleep(dice(&p->random) % 50);
	if (mremap(*at, n * PAGE, (n + more) * PAGE, 0) == MAP_FAILED)
		return n;
	return n + more;
}

/* For a while it has two permissions. */
static size_t make_protected(struct program *p, char **at)
{
	size_t n = pages(p), some = 1 + dice(&p->random) % (n - 1);
	bool low = dice(&p->random) & 1;

	*at = p->slot + PAGE;
	place(*at, n, RW, -1);
	mprotect(*at + (low ? 0 : some * PAGE), (low ? some : n - some) * PAGE, PROT_READ);
	usleep(dice(&p->random) % 50);
	mprotect(*at, n * PAGE, RW);
	return n;
}

/* Reserved first; made usable bit by bit. */
static size_t make_committed(struct program *p, char **at)
{
	size_t n = pages(p);

	*at = p->slot + PAGE;
	place(*at, n, PROT_NONE, -1);
	for (size_t i = 0; i < n; i++) {
		mprotect(*at + i * PAGE, PAGE, RW);
		(*at)[i * PAGE] = 1;
		if (dice(&p->random) % 4 == 0)
			usleep(dice(&p->random) % 20);
	}
	return n;
}

static void *program_main(void *arg)
{
	struct program *p = arg;
	struct whole *w = p->w;

	while (!atomic_load(&w->stop)) {
		char *at = NULL, *got;
		size_t n = w->does->make(p, &at);

		p->rounds++;
		if (dice(&p->random) & 1)
			usleep(dice(&p->random) % 50);
		got = mremap(at, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p->to);
		if (got == MAP_FAILED && errno != EFAULT)
			snprintf(p->reason, sizeof(p->reason), "mremap of %zu pages: %s", n,
				 strerror(errno));
		p->refused += got == MAP_FAILED;
		munmap(got == MAP_FAILED ? at : got, n * PAGE);
		if (w->does->reserved)
			place(p->slot, SLOT, PROT_NONE, -1);
	}
	return NULL;
}

/* ---- what the library is made to do meanwhile ---- */

static char *somewhere(struct whole *w, uint64_t *random)
{
	const struct program *p = &w->program[dice(random) % SLOTS];

	return p->slot + dice(random) % SLOT * PAGE;
}

static void *reader_main(void *arg)
{
	struct whole *w = arg;
	uint64_t random = live_now_ns() | 1;
	char byte;

	while (!atomic_load(&w->stop))
		w->looks += !away_read(w->dev, &byte, somewhere(w, &random), 1);
	return NULL;
}

static void *mover_main(void *arg)
{
	struct whole *w = arg;
	uint64_t random = live_now_ns() | 1;

	while (!atomic_load(&w->stop)) {
		uintptr_t at = (uintptr_t)somewhere(w, &random);
		int64_t n = dice(&random) & 1
			? hmm_migrate_to_device(away_devmem(w->dev), at, 4 * PAGE)
			: hmm_migrate_to_host(w->hmm, at, 4 * PAGE);

		if (n <= 0)
			usleep(dice(&random) % 20);
	}
	return NULL;
}

static void ignore(void *priv, const struct hmm_event *event)
{
	(void)priv;
	(void)event;
}

static const struct hmm_notifier_ops visitor_ops = { .size = sizeof(visitor_ops),
						     .invalidate = ignore };

/* Mirrors a page, and gives it up. */
static void *visitor_main(void *arg)
{
	struct whole *w = arg;
	uint64_t random = live_now_ns() | 1, pfn;

	while (!atomic_load(&w->stop)) {
		uintptr_t at = (uintptr_t)somewhere(w, &random);
		struct hmm_range range = { .size = sizeof(range), .hmm = w->hmm, .start = at,
					   .end = at + PAGE, .pfns = &pfn,
					   .default_flags = HMM_PFN_REQ_FAULT };

		if (hmm_notifier_insert(w->hmm, at, PAGE, &visitor_ops, NULL, &range.notifier))
			continue;
		pfn = 0;
		if (!hmm_notifier_read_begin(&range))
			w->looks += !hmm_range_fault(&range);
		hmm_notifier_remove(range.notifier);
	}
	return NULL;
}

/* ---- cases ---- */

#define HELPERS 2u

static enum verdict judge(const struct whole *w, unsigned of_a_thousand)
{
	uint64_t rounds = 0, refused = 0;

	for (unsigned i = 0; i < SLOTS; i++) {
		CHECK(!w->program[i].reason[0], "%s", w->program[i].reason);
		rounds += w->program[i].rounds;
		refused += w->program[i].refused;
	}
	CHECK(rounds > 100 && w->looks > 20, "%llu rounds, %llu looks", (unsigned long long)rounds,
	      (unsigned long long)w->looks);
	CHECK(refused * 1000 <= rounds * of_a_thousand, "%llu of %llu mremaps were refused",
	      (unsigned long long)refused, (unsigned long long)rounds);
	return PASS;
}

static enum verdict run(struct whole *w)
{
	void *(*const main[HELPERS])(void *) = { w->dev ? reader_main : visitor_main,
						 w->dev ? mover_main : visitor_main };
	pthread_t helper[HELPERS];

	for (unsigned i = 0; i < SLOTS; i++)
		CHECK(!pthread_create(&w->program[i].thread, NULL, program_main, &w->program[i]),
		      "no thread");
	for (unsigned i = 0; i < HELPERS; i++)
		CHECK(!pthread_create(&helper[i], NULL, main[i], w), "no thread");
	usleep(RUN_US);
	atomic_store(&w->stop, true);
	for (unsigned i = 0; i < HELPERS; i++)
		pthread_join(helper[i], NULL);
	for (unsigned i = 0; i < SLOTS; i++)
		pthread_join(w->program[i].thread, NULL);
	return PASS;
}

static enum verdict start(struct whole *w)
{
	bool reserved = w->does->reserved;

	w->area = live_map(4 * SLOTS * SPAN, PROT_NONE);
	if (!reserved)
		SYS(munmap(w->area, 4 * SLOTS * SPAN));
	for (unsigned i = 0; i < SLOTS; i++) {
		struct program *p = &w->program[i];

		*p = (struct program){ .w = w, .random = live_now_ns() + i * 77 + 1,
				       .slot = w->area + 4 * i * SPAN + SPAN / 2,
				       .to = w->area + (4 * i + 1) * SPAN + SPAN / 8 * 7,
				       .file = memfd_create("whole", 0) };
		SYS(p->file);
		SYS(ftruncate(p->file, SLOT * PAGE));
	}
	return run(w);
}

static enum verdict mirrored(const void *arg)
{
	static const struct away_options options = { .host = true };
	static struct whole w;

	w.does = arg;
	EXPECT(0, away_open(&w.dev, &options));
	w.hmm = away_hmm(w.dev);
	TRY(start(&w));
	away_close(w.dev);
	return judge(&w, w.does->mirrored);
}

static enum verdict visited(const void *arg)
{
	static struct whole w;

	w.does = arg;
	EXPECT(0, hmm_open(&w.hmm));
	TRY(start(&w));
	hmm_put(w.hmm);
	return judge(&w, w.does->visited);
}

/*
 * Without what whole.c does: 6 to 45 of a thousand, 150 to 250 of `protected` and `committed`. With it
 * up to 2, as what goes away is registered without room; more where something is taken together
 * with what lies beside it (in a reservation: up to 5), or made of what has other flags by the
 * moment it is touched (`committed` while pages of it go away: up to 25). docs/limits.md
 */
static const struct behaviour behaviours[] = {
	{ "longer", make_longer, .mirrored = 5, .visited = 5 },
	{ "longer file", make_longer_file, .mirrored = 5, .visited = 5 },
	{ "longer file, in a reservation", make_longer_file, .reserved = true, .mirrored = 7,
	  .visited = 20 },
	{ "lower", make_lower, .mirrored = 5, .visited = 5 },
	{ "grown", make_grown, .mirrored = 2, .visited = 20 },
	{ "protected", make_protected, .mirrored = 2, .visited = 20 },
	{ "committed", make_committed, .mirrored = 80, .visited = 20 },
};

#define BEHAVIOURS (sizeof(behaviours) / sizeof(behaviours[0]))

int main(int argc, char **argv)
{
	struct live_case cases[2 * BEHAVIOURS];
	static char names[2 * BEHAVIOURS][48];

	for (unsigned i = 0; i < 2 * BEHAVIOURS; i++) {
		const struct behaviour *does = &behaviours[i / 2];

		snprintf(names[i], sizeof(names[i]), "%s, %s", does->name,
			 i % 2 ? "visited" : "mirrored");
		cases[i] = (struct live_case){ names[i], i % 2 ? visited : mirrored, does, 0 };
	}
	return live_main(argc, argv, cases, 2 * BEHAVIOURS);
}
