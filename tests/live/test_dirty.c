/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_dirty - W1 of <uhmm/dirty.h> on the running kernel: no byte changes unseen.
 *
 * Each way to change a page (dirty_ops.c) on each kind of memory that is marked; writes beside
 * collects (dirty_races.c); and what is not seen, which docs/limits.md says.
 *
 * -n N: so many times the rounds.
 */
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dirty_live.h"

#define SMALL 64u
#define ROUNDS 12u
#define BATCHES 40u

static unsigned times = 1;

static char *small_pages(size_t *n)
{
	*n = SMALL;
	return dirty_memory(SMALL, MADV_NOHUGEPAGE);
}

static char *huge_page(size_t *n)
{
	*n = MOST;
	return dirty_memory(MOST, MADV_HUGEPAGE);
}

/* Begins and ends inside a huge page. */
static char *parts(size_t *n)
{
	*n = MOST - 1;
	return dirty_memory(2 * MOST, MADV_HUGEPAGE) + 100 * PAGE;
}

static char *heap(size_t *n)
{
	char *p = sbrk((SMALL + 2) * (intptr_t)PAGE);

	*n = SMALL;
	p = (char *)(((uintptr_t)p + PAGE) & -PAGE);
	memset(p, 7, SMALL * PAGE);
	return p;
}

static char *bss(size_t *n)
{
	static char pages[(SMALL + 2) * PAGE] __attribute__((aligned(4096)));

	*n = SMALL;
	memset(pages, 7, sizeof(pages));
	return pages + PAGE;
}

static const struct kind {
	const char *name;
	char *(*make)(size_t *n);
} kinds[] = {
	{ "small pages", small_pages }, { "a huge page", huge_page }, { "parts of huge pages", parts },
	{ "heap", heap },		{ "bss", bss },
};
#define KINDS (sizeof(kinds) / sizeof(*kinds))

static enum verdict do_op(const struct dirty_op *op, const struct kind *kind)
{
	struct keeper *k;
	size_t n;
	char *at = kind->make(&n);

	TRY(keeper_make(&k, at, n));
	for (unsigned r = 0; r < times * ROUNDS; r++) {
		TRY(keeper_update(k));
		TRY(keeper_update(k));
		TRY(op->run(k, (size_t)rand() % (n - 1), 1000 + r));
		TRY(keeper_check(k));
	}
	CHECK(k->marked, "no page was ever marked");
	keeper_end(k);
	return PASS;
}

static enum verdict run_op(const void *arg)
{
	enum verdict verdict = PASS;

	TRY(dirty_helper_start());
	for (unsigned i = 0; i < KINDS && verdict == PASS; i++) {
		char why[200];

		verdict = do_op(arg, &kinds[i]);
		snprintf(why, sizeof(why), "%s", live_reason());
		if (verdict == FAIL)
			live_fail(__FILE__, __LINE__, "%s: %s", kinds[i].name, why);
	}
	dirty_helper_stop();
	return verdict;
}

/* On small pages and on parts of huge ones. */
static enum verdict run_race(const void *arg)
{
	const struct dirty_race *race = arg;
	unsigned batches = times * (race->flags & RACE_ALL ? 8 * BATCHES : BATCHES);

	for (unsigned i = 0; i < 3; i += 2) {
		size_t n;
		char *at = kinds[i].make(&n);

		TRY(dirty_run_race(race, at, n, i ? batches / 8 : batches));
	}
	return PASS;
}

/* The limit: who has pinned the page before the collect writes to it unseen. */
static enum verdict registered_buffer(const void *arg)
{
	unsigned value = 99;
	int fd = memfd_create("value", MFD_CLOEXEC);
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	struct keeper *k;
	struct iovec vec;
	size_t n;
	char *at = small_pages(&n);

	if (io_uring_queue_init(4, &ring, 0))
		return live_skip("no io_uring here");
	EXPECT(sizeof(value), write(fd, &value, sizeof(value)));
	TRY(keeper_make(&k, at, n));
	vec = (struct iovec){ at, PAGE };
	EXPECT(0, io_uring_register_buffers(&ring, &vec, 1));
	TRY(keeper_update(k));
	TRY(keeper_update(k));
	io_uring_prep_read_fixed(io_uring_get_sqe(&ring), fd, at, sizeof(value), 0, 0);
	EXPECT(1, io_uring_submit_and_wait(&ring, 1));
	EXPECT(0, io_uring_peek_cqe(&ring, &cqe));
	EXPECT(sizeof(value), cqe->res);
	EXPECT(0, memcmp(at, &value, sizeof(value)));
	EXPECT(0, hmm_dirty_collect(k->dirty, k->bits));
	io_uring_queue_exit(&ring);
	return PASS;
}

#define MOST_CASES 64u

int main(int argc, char **argv)
{
	static struct live_case cases[MOST_CASES];
	static char names[MOST_CASES][40];
	unsigned n = 0;

	if (argc > 2 && !strcmp(argv[1], "-n")) {
		times = (unsigned)atoi(argv[2]);
		argv += 2;
		argc -= 2;
	}
	for (unsigned i = 0; i < dirty_ops_count; i++)
		cases[n++] = (struct live_case){ .name = dirty_ops[i].name, .run = run_op,
						 .arg = &dirty_ops[i], .limit_s = 40 * times };
	for (unsigned i = 0; i < dirty_races_count; i++, n++) {
		snprintf(names[n], sizeof(names[n]), "race: %s", dirty_races[i].name);
		cases[n] = (struct live_case){ .name = names[n], .run = run_race,
					       .arg = &dirty_races[i], .limit_s = 40 * times };
	}
	cases[n++] = (struct live_case){ .name = "registered-buffer", .run = registered_buffer };
	return live_main(argc, argv, cases, n);
}
