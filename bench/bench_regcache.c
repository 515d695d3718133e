// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_regcache - a registration that is found: regcache_hit, with its fence
 * regcache_hit_fenced; and one that is not: regcache_miss.
 *
 * What a hit is compared with is how others keep registrations (libfabric's ofi_mr_cache):
 * a red-black tree of ranges behind a mutex, a use count, and a list of those that nobody
 * uses.
 */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <uhmm/regcache.h>

#include "bench.h"

#define MANY 10000u
#define CALLS 20000u
#define FENCED_CALLS 1000u
#define MISSES 256u

/* As others have it. */
struct item {
	uintptr_t start, end;
	unsigned used;
	struct item *next, *prev; /* while unused */
};

struct tree {
	pthread_mutex_t lock;
	void *root;
	struct item unused;
	struct item *item;
};

struct regcache_bench {
	struct hmm *hmm;
	struct hmm_regcache *cache;
	struct hmm_notifier *notifier; /* miss: of the loop by hand */
	struct tree tree;
	char *memory;
	unsigned regions;
	uint32_t order[CALLS];
};

static int reg(void *priv, uintptr_t start, size_t length, unsigned access, void **handle)
{
	*handle = priv;
	return 0;
}

static void dereg(void *priv, void *handle, uintptr_t start, size_t length)
{
}

static const struct hmm_regcache_ops ops = { .size = sizeof(ops),
					     .reg = reg,
					     .dereg = dereg };

static void ignore(void *priv, const struct hmm_event *event)
{
}

static const struct hmm_notifier_ops notifier_ops = { .size = sizeof(notifier_ops),
						      .invalidate = ignore };

/* ---- a tree behind a mutex ---- */

/* Ranges that overlap are the same. */
static int compare(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->end <= y->start ? -1 : x->start >= y->end;
}

static void unused_remove(struct item *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
}

static void unused_add(struct tree *tree, struct item *item)
{
	item->next = &tree->unused;
	item->prev = tree->unused.prev;
	item->prev->next = item->next->prev = item;
}

static struct item *tree_get(struct tree *tree, uintptr_t start, size_t length)
{
	struct item key = { .start = start, .end = start + length }, **found;
	struct item *item = NULL;

	pthread_mutex_lock(&tree->lock);
	found = tfind(&key, &tree->root, compare);
	if (found && (*found)->start <= start && start + length <= (*found)->end) {
		item = *found;
		if (item->used++ == 0)
			unused_remove(item);
	}
	pthread_mutex_unlock(&tree->lock);
	return item;
}

static void tree_put(struct tree *tree, struct item *item)
{
	pthread_mutex_lock(&tree->lock);
	if (--item->used == 0)
		unused_add(tree, item);
	pthread_mutex_unlock(&tree->lock);
}

static void tree_open(struct regcache_bench *b)
{
	struct tree *tree = &b->tree;

	pthread_mutex_init(&tree->lock, NULL);
	tree->unused.next = tree->unused.prev = &tree->unused;
	tree->item = tool_alloc(b->regions * sizeof(*tree->item));
	for (unsigned i = 0; i < b->regions; i++) {
		struct item *item = &tree->item[i];

		item->start = (uintptr_t)b->memory + 2 * i * BENCH_PAGE;
		item->end = item->start + BENCH_PAGE;
		unused_add(tree, item);
		tsearch(item, &tree->root, compare);
	}
}

static void no_free(void *item)
{
}

static void tree_close(struct tree *tree)
{
	tdestroy(tree->root, no_free);
	free(tree->item);
	pthread_mutex_destroy(&tree->lock);
}

/* ---- batches ---- */

static uintptr_t at(const struct regcache_bench *b, unsigned i)
{
	return (uintptr_t)b->memory + b->order[i] * BENCH_PAGE + 128;
}

static int gets(struct regcache_bench *b, unsigned calls, unsigned flags, double *cost)
{
	uint64_t start = tool_now();
	struct hmm_region *region;
	int err = 0;

	for (unsigned i = 0; i < calls && !err; i++) {
		err = hmm_regcache_get(b->cache, at(b, i), 1024, HMM_REGCACHE_WRITE, flags,
				       &region);
		if (!err)
			hmm_regcache_put(region);
	}
	*cost = (double)(tool_now() - start) / calls;
	return err;
}

static int hit_batch(void *arg, double *cost)
{
	return gets(arg, CALLS, HMM_REGCACHE_FENCED, cost);
}

static int fenced_batch(void *arg, double *cost)
{
	return gets(arg, FENCED_CALLS, 0, cost);
}

static int tree_batch(void *arg, double *cost)
{
	struct regcache_bench *b = arg;
	uint64_t start = tool_now();
	int err = 0;

	for (unsigned i = 0; i < CALLS && !err; i++) {
		struct item *item = tree_get(&b->tree, at(b, i), 1024);

		if (item)
			tree_put(&b->tree, item);
		else
			err = -EIO;
	}
	*cost = (double)(tool_now() - start) / CALLS;
	return err;
}

static int getppid_batch(void *arg, double *cost)
{
	uint64_t start = tool_now();

	for (unsigned i = 0; i < FENCED_CALLS; i++)
		syscall(SYS_getppid);
	*cost = (double)(tool_now() - start) / FENCED_CALLS;
	return 0;
}

static int miss_batch(void *arg, double *cost)
{
	struct regcache_bench *b = arg;
	int err;

	hmm_regcache_flush(b->cache);
	for (unsigned i = 0; i < MISSES; i++)
		b->order[i] = 2 * i;
	err = gets(b, MISSES, HMM_REGCACHE_FENCED, cost);
	return err;
}

/* What any registration needs first. */
static int look_batch(void *arg, double *cost)
{
	struct regcache_bench *b = arg;
	uint64_t start = tool_now(), pfn = 0;
	int err = 0;

	for (unsigned i = 0; i < MISSES && !err; i++) {
		struct hmm_range range = {
			.size = sizeof(range),
			.hmm = b->hmm,
			.notifier = b->notifier,
			.start = (uintptr_t)b->memory + 2 * i * BENCH_PAGE,
			.pfns = &pfn,
			.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
		};

		range.end = range.start + BENCH_PAGE;
		err = hmm_notifier_read_begin(&range);
		if (!err)
			err = hmm_range_fault(&range);
		if (!err && hmm_notifier_read_retry(&range))
			err = -EBUSY;
	}
	*cost = (double)(tool_now() - start) / MISSES;
	return err;
}

/* ---- rows ---- */

static int fill(struct regcache_bench *b)
{
	struct hmm_region *region;
	uint32_t random = 2463534242u;

	for (unsigned i = 0; i < b->regions; i++) {
		int err = hmm_regcache_get(b->cache,
					   (uintptr_t)b->memory + 2 * i * BENCH_PAGE,
					   BENCH_PAGE, HMM_REGCACHE_WRITE, 0, &region);

		if (err)
			return err;
		hmm_regcache_put(region);
	}
	for (unsigned i = 0; i < CALLS; i++) {
		random ^= random << 13;
		random ^= random >> 17;
		random ^= random << 5;
		b->order[i] = 2 * (random % b->regions);
	}
	return 0;
}

static int open_cache(struct regcache_bench *b, unsigned regions)
{
	struct hmm_regcache_options options = { .size = sizeof(options),
						.max_regions = 2 * MANY };
	int err;

	*b = (struct regcache_bench){ .regions = regions };
	b->memory = bench_map(2 * regions * BENCH_PAGE);
	err = b->memory ? hmm_open(&b->hmm) : -ENOMEM;
	if (!err)
		err = hmm_regcache_create(b->hmm, &options, &ops, NULL, &b->cache);
	if (!err)
		err = fill(b);
	if (!err)
		tree_open(b);
	return err;
}

static void close_cache(struct regcache_bench *b)
{
	if (b->tree.item)
		tree_close(&b->tree);
	hmm_regcache_destroy(b->cache);
	hmm_put(b->hmm);
	if (b->memory)
		munmap(b->memory, 2 * b->regions * BENCH_PAGE);
}

void bench_regcache(struct bench *bench)
{
	static const struct {
		struct bench_title title;
		unsigned regions;
		bench_batch ours, theirs;
	} rows[] = {
		{ { "regcache_hit", "ns", "mutex, red-black tree", "<= 10 ns" },
		  1,
		  hit_batch,
		  tree_batch },
		{ { "regcache_hit/10k", "ns", "mutex, red-black tree", NULL },
		  MANY,
		  hit_batch,
		  tree_batch },
		{ { "regcache_hit_fenced", "ns", "getppid()", NULL },
		  1,
		  fenced_batch,
		  getppid_batch },
		{ { "regcache_hit_fenced/10k", "ns", "getppid()", NULL },
		  MANY,
		  fenced_batch,
		  getppid_batch },
		{ { "regcache_miss", "ns", "read_begin, fault, retry", NULL },
		  MISSES,
		  miss_batch,
		  look_batch },
	};
	static struct regcache_bench b;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int err = open_cache(&b, rows[i].regions);

		if (!err)
			err = hmm_notifier_insert(b.hmm, 0, UINTPTR_MAX, &notifier_ops,
						  NULL, &b.notifier);
		if (err)
			bench_skip(bench, rows[i].title.name, "%s", hmm_strerror(err));
		else
			bench_pair(bench, &rows[i].title, rows[i].ours, rows[i].theirs, &b);
		hmm_notifier_remove(b.notifier);
		close_cache(&b);
	}
}
