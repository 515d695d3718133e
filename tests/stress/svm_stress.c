/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * svm_stress [--seconds T] [--ops N] [--seed S] [--wrong-model] [--host] - G5 by force, on two GPUs.
 *
 * Data model. Each worker has an area, and a model of it: the value of each page, of which every
 * word is a function (0: zeros). It fills and checks pages by the CPU, by either GPU and by system
 * calls, gives attributes, moves them, and changes the mapping under them; an area is larger than
 * a GPU's memory, and all share both GPUs. What a page holds is at every step what the model
 * says, whoever looks, wherever it lies.
 *
 * Ends with "N operations, M pages moved, 0 wrong pages" and 0; 1 with what was wrong; 77 with
 * the reason where device memory cannot be had.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <uhmm/svm.h>

#define PAGE ((size_t)4096)
#define WORDS (PAGE / 8)
#define BLOCK ((size_t)2 << 20)
#define PAGES 1536u /* of an area */
#define WORKERS 2u
#define GPUS 2u
#define RW (PROT_READ | PROT_WRITE)
#define PIECE 64u /* words that a kernel takes at once */

struct worker {
	unsigned id;
	uint64_t random, ops, value;
	char *at, *spare;
	uint64_t model[PAGES];
	struct gpu_queue *queue[GPUS];
	int pipe[2];
	pthread_t thread;
};

static struct {
	struct svm *svm;
	uint64_t ops, seconds;
	bool wrong_model;
	atomic_bool stop;
	_Atomic uint64_t wrong;
	struct worker worker[WORKERS];
} world;

static void wrong(const struct worker *w, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void wrong(const struct worker *w, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fprintf(stderr, "worker %u, operation %llu: ", w->id, (unsigned long long)w->ops);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
	atomic_fetch_add(&world.wrong, 1);
	atomic_store(&world.stop, true);
}

static uint64_t pick(struct worker *w, uint64_t limit)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (w->random * UINT64_C(0x2545f4914f6cdd1d) >> 24) % limit;
}

static uint64_t word_of(uint64_t value, unsigned i)
{
	return value ? value * 977 + i : 0;
}

/* ---- who looks and who writes ---- */

struct job {
	char *at;
	const uint64_t *model; /* of the first page */
	uint64_t value;
	_Atomic unsigned differ;
};

static void fill_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct job *job = arg;
	uint64_t piece[PIECE];

	for (unsigned from = 0; from < WORDS; from += PIECE) {
		for (unsigned i = 0; i < PIECE; i++)
			piece[i] = word_of(job->value, from + i);
		gpu_store(sm, job->at + index * PAGE + from * 8, piece, sizeof(piece));
	}
}

static void check_kernel(struct gpu_sm *sm, void *arg, uint64_t index)
{
	struct job *job = arg;
	uint64_t piece[PIECE];

	for (unsigned from = 0; from < WORDS; from += PIECE) {
		gpu_load(sm, piece, job->at + index * PAGE + from * 8, sizeof(piece));
		for (unsigned i = 0; i < PIECE; i++)
			if (piece[i] != word_of(job->model[index], from + i))
				atomic_store(&job->differ, (unsigned)index + 1);
	}
}

static int run(struct worker *w, unsigned gpu, gpu_kernel kernel, struct job *job,
	       unsigned pages, struct gpu_error *error)
{
	struct gpu_fence *fence;
	int err = gpu_submit(w->queue[gpu], kernel, job, pages, &fence);

	return err ? err : gpu_wait(fence, error);
}

static void gpu_fills(struct worker *w, unsigned page, unsigned n, unsigned gpu)
{
	struct job job = { .at = w->at + page * PAGE, .value = ++w->value };
	struct gpu_error error = { 0 };

	if (run(w, gpu, fill_kernel, &job, n, &error))
		wrong(w, "GPU %u fills page %u: %s", gpu, page, error.text);
	for (unsigned i = page; i < page + n; i++)
		w->model[i] = w->value;
	if (world.wrong_model && !pick(w, 10))
		w->model[page]++;
}

static void gpu_checks(struct worker *w, unsigned page, unsigned n, unsigned gpu)
{
	struct job job = { .at = w->at + page * PAGE, .model = &w->model[page] };
	struct gpu_error error = { 0 };

	if (run(w, gpu, check_kernel, &job, n, &error))
		wrong(w, "GPU %u checks page %u: %s", gpu, page, error.text);
	else if (job.differ)
		wrong(w, "GPU %u reads other words in page %u", gpu, page + job.differ - 1);
}

static void cpu_fills(struct worker *w, unsigned page, unsigned n)
{
	++w->value;
	for (unsigned p = page; p < page + n; p++) {
		uint64_t *word = (uint64_t *)(w->at + p * PAGE);

		for (unsigned i = 0; i < WORDS; i++)
			word[i] = word_of(w->value, i);
		w->model[p] = w->value;
	}
}

/* The first page that differs; n: none. */
static unsigned cpu_looks(const struct worker *w, unsigned page, unsigned n)
{
	for (unsigned p = 0; p < n; p++) {
		const uint64_t *word = (uint64_t *)(w->at + (page + p) * PAGE);

		for (unsigned i = 0; i < WORDS; i++)
			if (word[i] != word_of(w->model[page + p], i))
				return p;
	}
	return n;
}

static void cpu_checks(struct worker *w, unsigned page, unsigned n)
{
	unsigned differs = cpu_looks(w, page, n);

	if (differs < n)
		wrong(w, "the CPU reads other words in page %u", page + differs);
}

/* The kernel reads it, for a pipe. */
static void pipe_checks(struct worker *w, unsigned page)
{
	uint64_t word[WORDS];

	if (write(w->pipe[1], w->at + page * PAGE, PAGE) != (ssize_t)PAGE ||
	    read(w->pipe[0], word, PAGE) != (ssize_t)PAGE) {
		wrong(w, "a pipe does not take page %u: %s", page, strerror(errno));
		return;
	}
	for (unsigned i = 0; i < WORDS; i++)
		if (word[i] != word_of(w->model[page], i)) {
			wrong(w, "a pipe has other words of page %u", page);
			return;
		}
}

/* ---- what changes ---- */

static void advise(struct worker *w, unsigned page, unsigned n)
{
	static const struct {
		enum svm_advice advice;
		uint32_t where;
	} some[] = {
		{ SVM_ADVISE_NORMAL, 0 },	     { SVM_ADVISE_PREFERRED, 0 },
		{ SVM_ADVISE_PREFERRED, 1 },	     { SVM_ADVISE_PREFERRED, SVM_SYSTEM },
		{ SVM_ADVISE_NO_PREFERRED, 0 },	     { SVM_ADVISE_IN_PLACE, 0 },
		{ SVM_ADVISE_IN_PLACE, 1 },	     { SVM_ADVISE_ACCESSED, 0 },
		{ SVM_ADVISE_READ_MOSTLY, 0 },	     { SVM_ADVISE_NO_READ_MOSTLY, 0 },
		{ SVM_ADVISE_MAPPED, 0 },	     { SVM_ADVISE_FAULTED, 0 },
		{ SVM_ADVISE_WHOLE, 0 },	     { SVM_ADVISE_PARTS, 0 },
		{ SVM_ADVISE_ATOMIC, SVM_ATOMIC_DEVICE },
	};
	size_t i = pick(w, sizeof(some) / sizeof(some[0]));
	int err = svm_advise(world.svm, w->at + page * PAGE, n * PAGE, some[i].advice,
			     some[i].where);

	if (err)
		wrong(w, "advice %zu: %s", i, hmm_strerror(err));
}

static void granularity(struct worker *w, unsigned page, unsigned n)
{
	const struct svm_attr attr = { SVM_ATTR_GRANULARITY, (uint32_t)pick(w, 12) };
	int err = svm_set_attr(world.svm, w->at + page * PAGE, n * PAGE, &attr, 1);

	if (err)
		wrong(w, "granularity: %s", hmm_strerror(err));
}

static void prefetch(struct worker *w, unsigned page, unsigned n)
{
	uint32_t where = (uint32_t)pick(w, GPUS + 1);
	int64_t got = svm_prefetch(world.svm, w->at + page * PAGE, n * PAGE,
				   where == GPUS ? SVM_SYSTEM : where,
				   pick(w, 4) ? 0 : SVM_PREFETCH_ALL);

	if (got < 0 && got != -EBUSY)
		wrong(w, "prefetch: %s", hmm_strerror((int)got));
}

static void deny(struct worker *w, unsigned page, unsigned gpu)
{
	struct job job = { .at = w->at + page * PAGE, .value = w->value + 1 };
	bool none = pick(w, 2);
	int err = svm_advise(world.svm, job.at, PAGE,
			     none ? SVM_ADVISE_NO_ACCESS : SVM_ADVISE_READ_ONLY, gpu);

	if (!err)
		err = run(w, gpu, fill_kernel, &job, 1, NULL);
	if (err != (none ? -EACCES : -EPERM))
		wrong(w, "a store that is forbidden: %d", err);
	if (svm_advise(world.svm, job.at, PAGE, SVM_ADVISE_NORMAL, 0))
		wrong(w, "advice after that");
}

static void zeros(struct worker *w, unsigned page, unsigned n, bool unmap)
{
	char *at = w->at + page * PAGE;

	/* As munmap, without a hole in which somebody else would map. */
	if (unmap && pick(w, 2))
		mmap(at, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (unmap ? mmap(at, n * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at
		  : madvise(at, n * PAGE, MADV_DONTNEED))
		wrong(w, "zeros: %s", strerror(errno));
	for (unsigned p = page; p < page + n; p++)
		w->model[p] = 0;
}

/*
 * There and back, with a look in between. Page by page: what was mapped anew may be a mapping of
 * its own, and mremap takes one. No hole is left behind: the library or libc would map there.
 */
static bool move_page(char *from, char *to)
{
	return mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to) ==
	       to;
}

static void move(struct worker *w, unsigned page, unsigned n)
{
	char *at = w->at + page * PAGE;
	struct job job = { .at = w->spare, .model = &w->model[page] };
	struct gpu_error error = { 0 };

	n = n < 16 ? n : 16;
	for (unsigned p = 0; p < n; p++)
		if (!move_page(at + p * PAGE, w->spare + p * PAGE))
			wrong(w, "mremap: %s", strerror(errno));
	if (run(w, (unsigned)pick(w, GPUS), check_kernel, &job, n, &error))
		wrong(w, "where page %u was moved: %s", page, error.text);
	else if (job.differ)
		wrong(w, "moved: other words in page %u", page + job.differ - 1);
	for (unsigned p = 0; p < n; p++)
		if (!move_page(w->spare + p * PAGE, at + p * PAGE))
			wrong(w, "mremap back: %s", strerror(errno));
}

static void protect(struct worker *w, unsigned page, unsigned gpu)
{
	struct job job = { .at = w->at + page * PAGE, .value = w->value + 1 };
	int err;

	mprotect(job.at, PAGE, PROT_READ);
	err = run(w, gpu, fill_kernel, &job, 1, NULL);
	if (err != -EPERM && err != -EFAULT)
		wrong(w, "a store to a page that may be read only: %d", err);
	cpu_checks(w, page, 1);
	mprotect(job.at, PAGE, RW);
}

static void child(struct worker *w, unsigned page, unsigned n)
{
	int status = 0;
	pid_t pid = fork();

	if (!pid)
		_exit(cpu_looks(w, page, n) < n);
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (pid < 0 || status)
		wrong(w, "a child reads other words behind page %u (%#x)", page, status);
}

static void one(struct worker *w)
{
	unsigned n = 1 + (unsigned)pick(w, pick(w, 8) ? 24 : 700);
	unsigned page = (unsigned)pick(w, PAGES - n), gpu = (unsigned)pick(w, GPUS);

	switch (pick(w, 32)) {
	case 0: case 1: case 2: case 3: case 4: gpu_fills(w, page, n, gpu); break;
	case 5: case 6: case 7: case 8: case 9: gpu_checks(w, page, n, gpu); break;
	case 10: case 11: case 12: cpu_fills(w, page, n); break;
	case 13: case 14: case 15: cpu_checks(w, page, n); break;
	case 16: pipe_checks(w, page); break;
	case 17: case 18: case 19: case 20: advise(w, page, n); break;
	case 21: granularity(w, page, n); break;
	case 22: case 23: prefetch(w, page, n); break;
	case 24: deny(w, page, gpu); break;
	case 25: case 26: zeros(w, page, n, false); break;
	case 27: zeros(w, page, n, true); break;
	case 28: case 29: move(w, page, n); break;
	case 30: protect(w, page, gpu); break;
	default:
		if (!pick(w, 10))
			child(w, page, n);
	}
	w->ops++;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint64_t each = world.ops / WORKERS;

	while (!atomic_load(&world.stop) && (!each || w->ops < each))
		one(w);
	if (!atomic_load(&world.wrong)) {
		gpu_checks(w, 0, PAGES, w->id % GPUS);
		cpu_checks(w, 0, PAGES);
	}
	return NULL;
}

static int start(struct worker *w, unsigned id, uint64_t seed)
{
	char *at = mmap(NULL, 2 * PAGES * PAGE + 2 * BLOCK, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	w->id = id;
	w->random = seed * 2654435761u + id + 1;
	if (at == MAP_FAILED || pipe(w->pipe))
		return -errno;
	w->at = at + (-(uintptr_t)at & (BLOCK - 1));
	w->spare = w->at + PAGES * PAGE + BLOCK;
	if (mprotect(w->at, PAGES * PAGE, RW))
		return -errno;
	for (unsigned i = 0; i < GPUS; i++)
		if (gpu_queue_create(svm_gpu(world.svm, i), &w->queue[i]))
			return -ENOMEM;
	return -pthread_create(&w->thread, NULL, worker_main, w);
}

static void wait_for_end(void)
{
	const struct timespec tick = { .tv_nsec = 20000000 };

	for (uint64_t ticks = 0; !world.ops && ticks < world.seconds * 50 &&
				 !atomic_load(&world.stop);
	     ticks++)
		nanosleep(&tick, NULL);
	if (!world.ops)
		atomic_store(&world.stop, true);
	for (unsigned i = 0; i < WORKERS; i++)
		pthread_join(world.worker[i].thread, NULL);
}

/* Return: whether all is as it should be. */
static bool report(void)
{
	struct svm_stats stats = { .size = sizeof(stats) };
	struct gpu_stats gpu = { .size = sizeof(gpu) };
	uint64_t ops = 0, stale = 0;

	svm_get_stats(world.svm, &stats);
	for (unsigned i = 0; i < WORKERS; i++)
		ops += world.worker[i].ops;
	for (unsigned i = 0; i < GPUS; i++) {
		gpu_get_stats(svm_gpu(world.svm, i), &gpu);
		stale += gpu.stale;
	}
	printf("%llu operations, %llu pages moved, %llu quiesced, %llu collected, %llu stale, "
	       "%llu wrong pages\n",
	       (unsigned long long)ops, (unsigned long long)(stats.migrated + stats.prefetched),
	       (unsigned long long)stats.quiesced, (unsigned long long)stats.collected,
	       (unsigned long long)stale, (unsigned long long)world.wrong);
	return !world.wrong && !stale;
}

int main(int argc, char **argv)
{
	static const struct option known[] = { { "seconds", 1, NULL, 's' },
					       { "ops", 1, NULL, 'o' },
					       { "seed", 1, NULL, 'r' },
					       { "wrong-model", 0, NULL, 'w' },
					       { "host", 0, NULL, 'h' },
					       { 0 } };
	struct svm_options options = { .size = sizeof(options),
					     .gpus = GPUS,
					     .sms = 1,
					     .verify = true,
					     .timeslice_us = 100,
					     .restore_us = 100,
					     .vram_bytes = 2 * BLOCK };
	uint64_t seed = 1;
	bool good;
	int err;

	world.seconds = 20;
	for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;)
		switch (c) {
		case 's': world.seconds = strtoull(optarg, NULL, 0); break;
		case 'o': world.ops = strtoull(optarg, NULL, 0); break;
		case 'r': seed = strtoull(optarg, NULL, 0); break;
		case 'w': world.wrong_model = true; break;
		case 'h': options.vram_host = true; break;
		default: return 2;
		}
	err = svm_open(&options, &world.svm);
	if (err) {
		printf("skipped: no svm: %s\n", hmm_strerror(err));
		return 77;
	}
	for (unsigned i = 0; i < WORKERS && !err; i++)
		err = start(&world.worker[i], i, seed);
	if (err) {
		fprintf(stderr, "cannot start: %s\n", hmm_strerror(err));
		return 1;
	}
	wait_for_end();
	good = report();
	svm_close(world.svm);
	return good != world.wrong_model ? 0 : 1;
}
