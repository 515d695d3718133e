/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * churn_beside - a thread that changes memory under its own running job.
 *
 * A round: every word of a few pages carries generation g; a job begins to read them;
 * one system call takes the pages away or changes them, and generation g+1 is written;
 * the job ends; another one is submitted.
 * Laws: the first job sees g, g+1 or the zeros in between, nothing else, and may end in
 * -EFAULT if the call can leave nothing there for a moment. The second sees g+1 in every
 * word: by then the change is older than the submit, and an old translation would be
 * stale (G1, G3). A forked child writes a generation that must never be seen at all.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "churn.h"
#include "common.h"

#define PAGE ((size_t)4096)
#define PAGES 32
#define BYTES (PAGES * PAGE)
#define STRIDE 4 /* every fourth word is written and read */
#define WORDS (PAGE / sizeof(uint64_t))
#define CHILDS_GENERATION UINT64_C(0xdead000)

struct probe {
	uint64_t *base;
	uint64_t oldest, newest; /* generations that may be seen */
	bool zero;		 /* and zeros */
	uint64_t sum;		 /* by the GPU's atomics */
	_Atomic uint64_t wrong;	 /* values that may not be there */
	_Atomic uint64_t value;	 /* one of them */
};

struct churn_beside {
	pthread_t thread;
	struct gpu *gpu;
	struct gpu_queue *queue;
	struct churn_tally *tally;
	struct probe *probe;
	uint64_t *base, *spare; /* the pages, and where mremap takes them */
	uint64_t generation;
	uint64_t random;
	_Atomic bool stop;
};

static uint64_t word_of(uint64_t generation, uint64_t page, uint64_t word)
{
	return generation << 20 | page << 10 | word;
}

static void fill(uint64_t *base, uint64_t generation)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		for (uint64_t word = 0; word < WORDS; word += STRIDE)
			__atomic_store_n(&base[page * WORDS + word],
					 word_of(generation, page, word), __ATOMIC_RELAXED);
	}
}

static uint64_t sum_of(uint64_t generation)
{
	uint64_t sum = 0;

	for (uint64_t page = 0; page < PAGES; page++) {
		for (uint64_t word = 0; word < WORDS; word += STRIDE)
			sum += word_of(generation, page, word);
	}
	return sum;
}

/* GPU: one page. The counters of wrong values are the host's, not the device's memory. */
static void read_page(struct gpu_sm *sm, void *arg, uint64_t page)
{
	struct probe *probe = arg;
	const uint64_t *base = gpu_load_ptr(sm, &probe->base);
	uint64_t sum = 0;

	for (uint64_t word = 0; word < WORDS; word += STRIDE) {
		uint64_t value = gpu_load_u64(sm, &base[page * WORDS + word]);
		uint64_t generation = value >> 20;

		sum += value;
		if (!value && probe->zero)
			continue;
		if (generation < probe->oldest || generation > probe->newest ||
		    value != word_of(generation, page, word)) {
			atomic_store(&probe->value, value);
			atomic_fetch_add(&probe->wrong, 1);
		}
	}
	gpu_atomic_add_u64(sm, &probe->sum, sum);
}

/* GPU: write what is there already; only the permission counts. */
static void write_page(struct gpu_sm *sm, void *arg, uint64_t page)
{
	struct probe *probe = arg;
	uint64_t *base = gpu_load_ptr(sm, &probe->base);

	gpu_store_u64(sm, &base[page * WORDS], word_of(probe->newest, page, 0));
}

static int submit(struct churn_beside *beside, gpu_kernel kernel, uint64_t oldest,
		  uint64_t newest, bool zero, struct gpu_fence **fence)
{
	struct probe *probe = beside->probe;
	int rc;

	probe->base = beside->base;
	probe->oldest = oldest;
	probe->newest = newest;
	probe->zero = zero;
	probe->sum = 0;
	atomic_store(&probe->wrong, 0);
	atomic_fetch_add(&beside->tally->jobs, 1);
	rc = gpu_submit(beside->queue, kernel, probe, PAGES, fence);
	if (rc)
		churn_bad(beside->tally, false, "gpu_submit beside: %s", hmm_strerror(rc));
	return rc;
}

/* A job that must end in `err` because of what was just done to its memory. */
static void must_end(struct churn_beside *beside, gpu_kernel kernel, int err,
		     const char *after)
{
	uint64_t generation = beside->generation;
	struct gpu_error error = { .err = 0 };
	struct gpu_fence *fence;
	int rc;

	if (submit(beside, kernel, generation, generation, true, &fence))
		return;
	rc = gpu_wait(fence, &error);
	if (rc == err && error.text[0])
		atomic_fetch_add(&beside->tally->cancelled, 1);
	else
		churn_bad(beside->tally, true, "a job after %s ended with %d (%s), not %d",
			  after, rc, error.text, err);
}

static int map_again(struct churn_beside *beside, int flags)
{
	void *base = mmap(beside->base, BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	return base == beside->base ? 0 : -errno;
}

static int change_munmap(struct churn_beside *beside)
{
	if (munmap(beside->base, BYTES))
		return -errno;
	return map_again(beside, MAP_FIXED_NOREPLACE);
}

static int change_fixed(struct churn_beside *beside)
{
	return map_again(beside, MAP_FIXED);
}

static int change_mremap(struct churn_beside *beside)
{
	int rc;

	if (mremap(beside->base, BYTES, BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
		   beside->spare) == MAP_FAILED)
		return -errno;
	rc = map_again(beside, MAP_FIXED_NOREPLACE);
	munmap(beside->spare, BYTES);
	return rc;
}

static int change_dontneed(struct churn_beside *beside)
{
	return madvise(beside->base, BYTES, MADV_DONTNEED) ? -errno : 0;
}

/* Each step is older than the submit that follows it, so it holds for that job (G3). */
static int change_mprotect(struct churn_beside *beside)
{
	if (mprotect(beside->base, BYTES, PROT_NONE))
		return -errno;
	must_end(beside, read_page, -EFAULT, "mprotect(PROT_NONE)");
	if (mprotect(beside->base, BYTES, PROT_READ))
		return -errno;
	must_end(beside, write_page, -EPERM, "mprotect(PROT_READ)");
	return mprotect(beside->base, BYTES, PROT_READ | PROT_WRITE) ? -errno : 0;
}

static int change_fork(struct churn_beside *beside)
{
	pid_t child = fork();

	if (child < 0)
		return -errno;
	if (!child) {
		fill(beside->base, CHILDS_GENERATION);
		_exit(0);
	}
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	return 0;
}

static const struct change {
	int (*make)(struct churn_beside *beside);
	bool gap;   /* there can be nothing, or nothing readable, for a moment */
	bool apart; /* submits jobs itself, so not under a running one */
} changes[CHURN_BESIDE_KINDS] = {
	[CHURN_MUNMAP] = { change_munmap, true, false },
	[CHURN_FIXED] = { change_fixed, true, false },
	[CHURN_MREMAP] = { change_mremap, true, false },
	[CHURN_DONTNEED] = { change_dontneed, false, false },
	[CHURN_MPROTECT] = { change_mprotect, true, true },
	[CHURN_FORK] = { change_fork, false, false },
};

static void finish(struct churn_beside *beside, struct gpu_fence *fence,
		   enum churn_kind kind)
{
	struct gpu_error error = { .err = 0 };
	int rc = gpu_wait(fence, &error);

	if (rc == -EFAULT && changes[kind].gap)
		atomic_fetch_add(&beside->tally->cancelled, 1);
	else if (rc)
		churn_bad(beside->tally, false, "a job under %s ended with %d: %s",
			  churn_kind_name(kind), rc, error.text);
	if (atomic_load(&beside->probe->wrong))
		churn_bad(beside->tally, false,
			  "a job under %s read %#llx, generation is %llu",
			  churn_kind_name(kind),
			  (unsigned long long)atomic_load(&beside->probe->value),
			  (unsigned long long)beside->generation);
}

/* The job that is younger than the change: everything must be new. */
static void check_new(struct churn_beside *beside, enum churn_kind kind)
{
	uint64_t generation = beside->generation;
	struct gpu_error error = { .err = 0 };
	struct gpu_fence *fence;
	int rc;

	if (submit(beside, read_page, generation, generation, false, &fence))
		return;
	rc = gpu_wait(fence, &error);
	if (rc)
		churn_bad(beside->tally, false, "a job after %s ended with %d: %s",
			  churn_kind_name(kind), rc, error.text);
	else if (atomic_load(&beside->probe->wrong) ||
		 beside->probe->sum != sum_of(generation))
		churn_bad(beside->tally, true,
			  "a job after %s read %#llx, generation is %llu",
			  churn_kind_name(kind),
			  (unsigned long long)atomic_load(&beside->probe->value),
			  (unsigned long long)generation);
}

/* Let the job get somewhere; how far is chance, and chance is what finds races. */
static void dawdle(struct churn_beside *beside)
{
	uint64_t until = tool_now() + churn_random(&beside->random) % 200000;

	while (tool_now() < until)
		;
}

/*
 * The change, and from when on older translations are stale. Under a running job the
 * mark comes before the change: the job may have the new pages translated before a mark
 * behind it. fork leaves translations alone: what an address reads is unchanged.
 */
static int make_change(struct churn_beside *beside, enum churn_kind kind, bool under)
{
	int rc;

	if (under && kind != CHURN_FORK)
		gpu_verify_mark(beside->gpu, beside->base, BYTES);
	rc = changes[kind].make(beside);
	if (rc) {
		churn_bad(beside->tally, false, "%s: %s", churn_kind_name(kind),
			  strerror(-rc));
		return rc;
	}
	if (!under && kind != CHURN_FORK)
		gpu_verify_mark(beside->gpu, beside->base, BYTES);
	fill(beside->base, beside->generation + 1);
	return 0;
}

/* false: the pages are lost and there is nothing to go on with. */
static bool round_of(struct churn_beside *beside, enum churn_kind kind)
{
	bool under = !changes[kind].apart && churn_random(&beside->random) % 4;
	uint64_t generation = beside->generation;
	struct gpu_fence *fence = NULL;
	int rc;

	fill(beside->base, generation);
	if (submit(beside, read_page, generation, generation + 1, true, &fence))
		return false;
	if (under)
		dawdle(beside);
	else
		finish(beside, fence, kind);
	rc = make_change(beside, kind, under);
	if (under)
		finish(beside, fence, kind);
	if (rc)
		return false;
	beside->generation++;
	check_new(beside, kind);
	atomic_fetch_add(&beside->tally->changes[kind], 1);
	return true;
}

static void *run(void *arg)
{
	struct churn_beside *beside = arg;

	while (!atomic_load(&beside->stop)) {
		if (!round_of(beside, churn_random(&beside->random) % CHURN_BESIDE_KINDS))
			break;
	}
	return NULL;
}

static void free_beside(struct churn_beside *beside)
{
	if (beside->queue)
		gpu_queue_destroy(beside->queue);
	if (beside->base) {
		munmap(beside->base, BYTES);
		munmap(beside->spare, BYTES);
	}
	free(beside->probe);
	free(beside);
}

int churn_beside_start(struct gpu *gpu, struct churn_tally *tally, uint64_t seed,
		       struct churn_beside **out)
{
	struct churn_beside *beside = tool_alloc(sizeof(*beside));
	int rc;

	beside->gpu = gpu;
	beside->tally = tally;
	beside->random = seed * 2 + 1; /* not 0 */
	beside->generation = 1;
	beside->probe = tool_alloc(sizeof(*beside->probe));
	rc = gpu_queue_create(gpu, &beside->queue);
	if (!rc) {
		/* The spare place lies a page away, or the two would become one mapping. */
		beside->base = churn_area(2 * BYTES + PAGE);
		rc = beside->base ? 0 : -ENOMEM;
	}
	if (!rc) {
		beside->spare = beside->base + (BYTES + PAGE) / sizeof(*beside->base);
		munmap(beside->base + BYTES / sizeof(*beside->base), BYTES + PAGE);
		rc = -pthread_create(&beside->thread, NULL, run, beside);
	}
	if (rc) {
		free_beside(beside);
		return rc;
	}
	*out = beside;
	return 0;
}

void churn_beside_stop(struct churn_beside *beside)
{
	if (!beside)
		return;
	atomic_store(&beside->stop, true);
	pthread_join(beside->thread, NULL);
	free_beside(beside);
}
