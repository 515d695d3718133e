/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_devmem - migration in three steps: setup, pages, finalize as the kernel's
 * migrate_vma (hmm-reference B10 to B13), and CPUs that touch pages on their way.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "away_steps.h"

static const struct away_options copied, host = { .host = true };

static bool moves(const struct steps *s, unsigned i)
{
	return s->src[i] & HMM_MIGRATE_MIGRATE;
}

/* Frames for every page that can move and is chosen, and their bytes. */
static enum verdict fill(struct steps *s, bool (*chosen)(unsigned i))
{
	unsigned want = 0, got = 0;

	for (unsigned i = 0; i < s->m.npages; i++)
		want += moves(s, i) && chosen(i);
	EXPECT(want, hmm_devmem_frames(s->m.devmem, s->frames, want));
	for (unsigned i = 0; i < s->m.npages; i++) {
		void *frame;

		if (!moves(s, i) || !chosen(i))
			continue;
		s->dst[i] = hmm_migrate_frame(s->frames[got]);
		frame = away_frame(s->dev, s->frames[got++]);
		if (s->host)
			continue;
		if (s->src[i] & HMM_MIGRATE_VALID)
			memcpy(frame, hmm_migrate_page(s->src[i]), PAGE);
		else
			memset(frame, 0, PAGE);
	}
	return PASS;
}

static bool all(unsigned i)
{
	return true;
}

static bool even(unsigned i)
{
	return i % 2 == 0;
}

/* ---- arguments ---- */

static enum verdict refused(struct steps *s, uintptr_t start, uintptr_t end_,
			    const char *what)
{
	struct hmm_migrate m = s->m;
	int err;

	m.start = start;
	m.end = end_;
	m.npages = m.cpages = 4242;
	err = hmm_migrate_setup(&m);
	CHECK(err == -EINVAL, "%s: %d", what, err);
	CHECK(m.npages == 4242 && m.cpages == 4242 &&
		      s->src[0] == UINT64_C(0xeeeeeeeeeeeeeeee),
	      "%s: outputs were touched", what);
	return PASS;
}

static enum verdict arguments(const void *arg)
{
	static struct steps s;
	struct hmm_migrate m;
	uintptr_t at;

	TRY(steps_begin(&s, arg));
	at = (uintptr_t)s.zone.at;
	TRY(refused(&s, at, at, "empty"));
	TRY(refused(&s, at + PAGE, at, "backwards"));
	TRY(refused(&s, at + 1, at + PAGE, "unaligned start"));
	TRY(refused(&s, at, at + PAGE + 8, "unaligned end"));
	TRY(refused(&s, (at & -BLOCK) + BLOCK - PAGE, (at & -BLOCK) + BLOCK + PAGE,
		    "two blocks"));
	SYS(mprotect(s.zone.at + 4 * PAGE, PAGE, PROT_NONE));
	TRY(refused(&s, at, at + PAGES * PAGE, "PROT_NONE in it"));
	SYS(mprotect(s.zone.at + 4 * PAGE, PAGE, RW));
	SYS(munmap(s.zone.at + 4 * PAGE, PAGE));
	TRY(refused(&s, at, at + PAGES * PAGE, "a hole in it"));
	zone_access(&s.zone, 4, 5, ZONE_NONE);
	m = s.m;
	m.src = NULL;
	EXPECT(-EINVAL, hmm_migrate_setup(&m));
	m = s.m;
	m.dst = NULL;
	EXPECT(-EINVAL, hmm_migrate_setup(&m));
	m = s.m;
	m.size = 8;
	EXPECT(-EINVAL, hmm_migrate_setup(&m));
	EXPECT(-EINVAL, hmm_migrate_to_device(s.m.devmem, at + 1, PAGE));
	EXPECT(-EINVAL, hmm_migrate_to_device(s.m.devmem, at, 100));
	EXPECT(-EINVAL, hmm_migrate_to_device(s.m.devmem, at, 0));
	EXPECT(-EINVAL, hmm_migrate_to_device(s.m.devmem, at + 4 * PAGE, PAGE));
	EXPECT(-EINVAL, hmm_migrate_to_host(away_hmm(s.dev), at, SIZE_MAX));
	return steps_end(&s);
}

/* ---- setup ---- */

/* Pages, holes and zero pages: what src says, and what hmm_migrate_page() shows. */
static enum verdict collected(const void *arg)
{
	static struct steps s;
	struct away_told before;

	TRY(steps_begin(&s, arg));
	SYS(madvise(s.zone.at + 4 * PAGE, 4 * PAGE, MADV_DONTNEED));
	zone_zero(&s.zone, 4, 8);
	for (unsigned i = 6; i < 8; i++) /* read only: the zero page */
		EXPECT(0, s.zone.at[i * PAGE]);
	before = away_told(s.dev);
	EXPECT(0, hmm_migrate_setup(&s.m));
	EXPECT(PAGES, s.m.npages);
	EXPECT(PAGES, s.m.cpages);
	CHECK(away_told(s.dev).migrate_own > before.migrate_own, "the device was not told");
	CHECK(away_told(s.dev).start <= s.m.start && away_told(s.dev).end >= s.m.end,
	      "the event says another range");
	for (unsigned i = 0; i < PAGES; i++) {
		bool page = s.src[i] & HMM_MIGRATE_VALID;

		CHECK(moves(&s, i), "page %u cannot move", i);
		CHECK(i < 4 || i >= 8 ? page : !page, "page %u: src is %#llx", i,
		      (unsigned long long)s.src[i]);
		CHECK(!page || s.src[i] & HMM_MIGRATE_WRITE, "page %u cannot be written",
		      i);
		CHECK(!page || !memcmp(hmm_migrate_page(s.src[i]), s.zone.shadow + i * PAGE,
				       PAGE),
		      "the isolated bytes of page %u are wrong", i);
	}
	TRY(fill(&s, even));
	EXPECT(PAGES / 2, hmm_migrate_pages(&s.m));
	for (unsigned i = 0; i < PAGES; i++)
		EXPECT(even(i), moves(&s, i));
	hmm_migrate_finalize(&s.m);
	EXPECT(PAGES / 2, away_count(s.dev, s.zone.at, PAGES * PAGE));
	EXPECT(PAGES / 2, away_in_use(s.dev));
	return steps_end(&s);
}

/* Without pages() nothing has moved. */
static enum verdict given_up(const void *arg)
{
	static struct steps s;

	TRY(steps_begin(&s, arg));
	for (int i = 0; i < 20; i++) {
		EXPECT(0, hmm_migrate_setup(&s.m));
		EXPECT(PAGES, s.m.cpages);
		hmm_migrate_finalize(&s.m);
		EXPECT(0, away_count(s.dev, s.zone.at, PAGES * PAGE));
		TRY(zone_check(&s.zone, "given up"));
	}
	EXPECT(0, away_in_use(s.dev));
	return steps_end(&s);
}

/* A frame that nobody took, and one frame for two pages: -EINVAL, and nothing is lost. */
static enum verdict bad_frames(const void *arg)
{
	static struct steps s;

	TRY(steps_begin(&s, arg));
	EXPECT(0, hmm_migrate_setup(&s.m));
	s.dst[0] = hmm_migrate_frame(AWAY_FRAMES - 1);
	EXPECT(-EINVAL, hmm_migrate_pages(&s.m));
	hmm_migrate_finalize(&s.m);
	TRY(zone_check(&s.zone, "a frame that is free"));

	EXPECT(0, hmm_migrate_setup(&s.m));
	EXPECT(1, hmm_devmem_frames(s.m.devmem, s.frames, 1));
	s.dst[0] = s.dst[1] = hmm_migrate_frame(s.frames[0]);
	EXPECT(-EINVAL, hmm_migrate_pages(&s.m));
	s.dst[1] = hmm_migrate_frame(AWAY_FRAMES + 10);
	EXPECT(-EINVAL, hmm_migrate_pages(&s.m));
	/* Right after all, so that the frame is not left over. */
	s.dst[1] = 0;
	if (!s.host)
		memcpy(away_frame(s.dev, s.frames[0]), hmm_migrate_page(s.src[0]), PAGE);
	EXPECT(1, hmm_migrate_pages(&s.m));
	hmm_migrate_finalize(&s.m);
	return steps_end(&s);
}

/* Frames that were taken for nothing; and calls that have nothing to free. */
static enum verdict frames_free(const void *arg)
{
	static struct steps s;
	uint64_t none = AWAY_FRAMES + 10;

	TRY(steps_begin(&s, arg));
	EXPECT(8, hmm_devmem_frames(s.m.devmem, s.frames, 8));
	EXPECT(8, away_in_use(s.dev));
	hmm_devmem_frames_free(s.m.devmem, s.frames, 3);
	EXPECT(5, away_in_use(s.dev));
	hmm_devmem_frames_free(s.m.devmem, s.frames, 8);
	hmm_devmem_frames_free(s.m.devmem, &none, 1);
	hmm_devmem_frames_free(NULL, s.frames, 1);
	EXPECT(0, away_in_use(s.dev));
	/* A frame that has a page is not free. */
	EXPECT(0, hmm_migrate_setup(&s.m));
	TRY(fill(&s, all));
	EXPECT(PAGES, hmm_migrate_pages(&s.m));
	hmm_devmem_frames_free(s.m.devmem, s.frames, PAGES);
	hmm_migrate_finalize(&s.m);
	EXPECT(PAGES, away_in_use(s.dev));
	return steps_end(&s);
}

/* The program gives a page up while it is isolated: MIGRATE goes, and so does the frame. */
static enum verdict dropped_meanwhile(const void *arg)
{
	static struct steps s;

	TRY(steps_begin(&s, arg));
	EXPECT(0, hmm_migrate_setup(&s.m));
	SYS(madvise(s.zone.at + 4 * PAGE, 2 * PAGE, MADV_DONTNEED));
	SYS(munmap(s.zone.at + 8 * PAGE, 2 * PAGE));
	zone_zero(&s.zone, 4, 6);
	zone_access(&s.zone, 8, 10, ZONE_NONE);
	TRY(fill(&s, all));
	EXPECT(PAGES - 4, hmm_migrate_pages(&s.m));
	for (unsigned i = 0; i < PAGES; i++)
		EXPECT(!(i / 2 == 2 || i / 2 == 4), moves(&s, i));
	hmm_migrate_finalize(&s.m);
	TRY(away_settles(s.dev, PAGES - 4));
	EXPECT(PAGES - 4, away_count(s.dev, s.zone.at, PAGES * PAGE));
	return steps_end(&s);
}

/* It moves to another address meanwhile: the bytes are found there. */
static enum verdict moved_meanwhile(const void *arg)
{
	char *to = live_map((PAGES + 2) * PAGE, PROT_NONE) + PAGE;
	static struct steps s;

	TRY(steps_begin(&s, arg));
	EXPECT(0, hmm_migrate_setup(&s.m));
	SYS((long)mremap(s.zone.at, PAGES * PAGE, PAGES * PAGE,
			 MREMAP_MAYMOVE | MREMAP_FIXED, to));
	s.zone.at = to;
	TRY(fill(&s, all));
	CHECK(hmm_migrate_pages(&s.m) >= 0, "pages of what has moved");
	hmm_migrate_finalize(&s.m);
	TRY(away_settles(s.dev, (uint64_t)away_count(s.dev, to, PAGES * PAGE)));
	return steps_end(&s);
}

/* ---- a CPU that touches a page on its way waits ---- */

struct toucher {
	const char *at;
	_Atomic int seen; /* -1: not yet */
};

static void *touch_main(void *arg)
{
	struct toucher *t = arg;

	t->seen = *(const volatile unsigned char *)t->at;
	return NULL;
}

static enum verdict cpu_waits(const void *arg)
{
	static struct steps s;
	struct toucher t;
	pthread_t thread;

	TRY(steps_begin(&s, arg));
	EXPECT(0, hmm_migrate_setup(&s.m));
	t = (struct toucher){ s.zone.at + 3 * PAGE + 5, -1 };
	CHECK(!pthread_create(&thread, NULL, touch_main, &t), "no thread");
	usleep(20000);
	EXPECT(-1, t.seen);
	TRY(fill(&s, all));
	usleep(1000);
	EXPECT(-1, t.seen);
	EXPECT(PAGES, hmm_migrate_pages(&s.m));
	hmm_migrate_finalize(&s.m);
	pthread_join(thread, NULL);
	EXPECT(s.zone.shadow[3 * PAGE + 5], t.seen);
	return steps_end(&s);
}

/* ---- racing writers ---- */

#define WRITERS 3u

struct writer {
	pthread_t thread;
	char *at; /* of PAGES pages, shared by all */
	unsigned n;
	atomic_bool *stop;
	unsigned long rounds;
	char wrong[100];
};

/*
 * Of each page a writer has two words, near its start and near its end, that always say the
 * same when nobody is between the stores; and all writers add to a third one.
 */
static void *write_main(void *arg)
{
	struct writer *w = arg;

	for (; !*w->stop && !w->wrong[0]; w->rounds++) {
		for (unsigned p = 0; p < PAGES; p++) {
			volatile uint64_t *page = (uint64_t *)(w->at + p * PAGE);
			volatile uint64_t *a = page + w->n, *b = page + 511 - w->n;

			if (*a != w->rounds || *b != w->rounds)
				snprintf(w->wrong, sizeof(w->wrong),
					 "page %u: %llu and %llu instead of %lu", p,
					 (unsigned long long)*a, (unsigned long long)*b,
					 w->rounds);
			*a = w->rounds + 1;
			__atomic_fetch_add((uint64_t *)(w->at + p * PAGE) + 200, 1,
					   __ATOMIC_SEQ_CST);
			*b = w->rounds + 1;
		}
	}
	return NULL;
}

static enum verdict race(struct steps *s, struct writer *writers)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };
	const uint64_t began = live_now_ns();
	uintptr_t at = (uintptr_t)s->zone.at;

	for (unsigned i = 0; live_race_on(began, UINT64_C(1500000000), stats.cpu_faults > 2); i++) {
		int64_t n = 0;

		if (i % 3 == 2) {
			EXPECT(0, hmm_migrate_setup(&s->m));
			TRY(fill(s, even));
			CHECK(hmm_migrate_pages(&s->m) >= 0, "pages");
			hmm_migrate_finalize(&s->m);
			memset(s->dst, 0, sizeof(s->dst));
		} else if (i % 3) {
			n = hmm_migrate_to_host(away_hmm(s->dev), at, PAGES * PAGE);
		} else {
			n = hmm_migrate_to_device(s->m.devmem, at, PAGES * PAGE);
		}
		CHECK(n >= 0, "round %u: %s", i, hmm_strerror((int)n));
		hmm_devmem_get_stats(s->m.devmem, &stats);
	}
	return PASS;
}

static enum verdict racing_writers(const void *arg)
{
	struct writer writers[WRITERS];
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };
	atomic_bool stop = false;
	static struct steps s;
	enum verdict verdict;
	uint64_t sum = 0;

	TRY(steps_begin(&s, arg));
	memset(s.zone.at, 0, PAGES * PAGE);
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){ .at = s.zone.at, .n = i, .stop = &stop };
		CHECK(!pthread_create(&writers[i].thread, NULL, write_main, &writers[i]),
		      "no thread");
	}
	verdict = race(&s, writers);
	stop = true;
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i].thread, NULL);
	TRY(verdict);
	for (unsigned i = 0; i < WRITERS; i++) {
		CHECK(!writers[i].wrong[0], "writer %u: %s", i, writers[i].wrong);
		sum += writers[i].rounds;
	}
	CHECK(sum > 20, "only %llu rounds", (unsigned long long)sum);
	for (unsigned p = 0; p < PAGES; p++)
		EXPECT(sum, ((uint64_t *)(s.zone.at + p * PAGE))[200]);
	hmm_devmem_get_stats(s.m.devmem, &stats);
	CHECK(stats.cpu_faults > 2, "only %llu faults of the CPU: that was no race",
	      (unsigned long long)stats.cpu_faults);
	zone_fill(&s.zone, 0, PAGES, 3);
	return steps_end(&s);
}

/* clang-format off */
#define ON_BOTH(fn, what)                                                                  \
	{ .name = "copied " what, .run = fn, .arg = &copied, .limit_s = 20 },              \
	{ .name = "host " what, .run = fn, .arg = &host, .limit_s = 20 }
/* clang-format on */

int main(int argc, char **argv)
{
	static const struct live_case cases[] = {
		ON_BOTH(arguments, "arguments"),
		ON_BOTH(collected, "collected"),
		ON_BOTH(given_up, "given-up"),
		ON_BOTH(bad_frames, "bad-frames"),
		ON_BOTH(frames_free, "frames-free"),
		ON_BOTH(dropped_meanwhile, "dropped-meanwhile"),
		ON_BOTH(moved_meanwhile, "moved-meanwhile"),
		ON_BOTH(cpu_waits, "cpu-waits"),
		ON_BOTH(racing_writers, "racing-writers"),
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
