/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * stress [--ops N] [--seconds T] [--threads N] [--seed S] [--pages N] [--inject] [--quiet]
 *	[--pageout] [--scene lost|scatter|open] [--without OP,OP...]
 *
 * Ends with "N operations, M migrations out, K home, 0 wrong bytes" and 0; 1 with what was
 * wrong; 77 with the reason where device memory cannot be had.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

#define AREAS 40u
#define HANG_S 30u
#define BSS_PAGES 700u

/* An area of its own, and what op_bss() moves. */
static char in_bss[BSS_PAGES * 4096] __attribute__((aligned(4096)));

void doing(struct worker *w, const char *what, const struct area *a, unsigned page)
{
	w->doing = what;
	w->since = now_ns();
	w->page = page;
	if (a)
		w->area = a->id;
}

/* ---- choosing ---- */

static const struct op *const tables[] = { ops_cpu, ops_io,   ops_map,
					   ops_dev, ops_fork, ops_own };

/* Is `name` one of those between commas? */
static bool is_without(const struct world *world, const char *name)
{
	size_t length = strlen(name);
	const char *at = world->without;

	for (; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
		if (!strncmp(at, name, length) && (!at[length] || at[length] == ','))
			return true;
	return false;
}

static const struct op *choose(struct worker *w)
{
	static unsigned total;
	unsigned sum = 0, at;

	if (!total) {
		for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
			for (const struct op *op = tables[t]; op->name; op++)
				sum += op->weight;
		total = sum;
	}
	at = pick(w, total);
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct op *op = tables[t]; op->name; op++) {
			if (at < op->weight)
				return op;
			at -= op->weight;
		}
	return &ops_cpu[0];
}

static void one_op(struct worker *w)
{
	const struct op *op;
	struct area *a;

	w->ops++;
	if (one_in(w, 2) && own_duel(w))
		return;
	if (one_in(w, 6) && !w->world->no_racy) {
		racy_op(w);
		return;
	}
	op = choose(w);
	a = &w->world->area[pick(w, w->world->areas)];
	if ((op->maps && a->fixed) || (w->world->without && is_without(w->world, op->name)))
		return;
	doing(w, op->name, a, 0);
	/* One that has it goes on with it; we take another. */
	if (pthread_mutex_trylock(&a->lock))
		return;
	op->run(w, a);
	pthread_mutex_unlock(&a->lock);
}

static void note_stack(struct worker *w)
{
	pthread_attr_t attr;
	size_t size;
	void *low;

	if (pthread_getattr_np(pthread_self(), &attr))
		fail("pthread_getattr_np: %m");
	pthread_attr_getstack(&attr, &low, &size);
	pthread_attr_destroy(&attr);
	w->stack_low = (uintptr_t)low;
	w->stack_high = (uintptr_t)low + size;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	note_stack(w);
	own_begin(w);
	while (!w->world->stop)
		one_op(w);
	own_end(w);
	w->ended = true;
	return NULL;
}

/* ---- the world ---- */

static const struct dev_options devs[DEVS] = {
	{ .frames = 6000, .fail = 2000, .decline = 3000, .die = 3000, .slow = 20 },
	{ .frames = 6000, .host_frames = true, .decline = 3000, .slow = 20 },
	/* Little, shared out in time slices; it comes and goes. */
	{ .frames = 600, .limit = 300, .timeslice_us = 100, .die = 1000, .slow = 10 },
};

static void open_dev(struct world *world, unsigned i)
{
	struct dev_options options = devs[i];
	int err;

	options.seed = world->seed * 7 + i;
	err = dev_open(world->hmm, &options, &world->dev[i]);
	if (err && !(world->inject && err == -ENOMEM))
		fail("no device %u: %s", i, hmm_strerror(err));
}

static void count(const struct world *world, uint64_t *out, uint64_t *home)
{
	*out = world->moved_out;
	*home = world->moved_home;
	for (unsigned i = 0; i < DEVS; i++) {
		struct hmm_devmem_stats stats = { .size = sizeof(stats) };

		if (!world->dev[i])
			continue;
		hmm_devmem_get_stats(dev_devmem(world->dev[i]), &stats);
		*out += stats.to_device;
		*home += stats.to_host + stats.cpu_fault_pages;
		if (stats.lost)
			fail("device %u has lost %llu pages", i,
			     (unsigned long long)stats.lost);
	}
}

/* Nobody uses it. */
static void close_dev(struct world *world, unsigned i)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };

	if (!world->dev[i])
		return;
	hmm_devmem_get_stats(dev_devmem(world->dev[i]), &stats);
	dev_close(world->dev[i]);
	world->dev[i] = NULL;
	world->moved_out += stats.to_device;
	/* What was still there came home then. */
	world->moved_home += stats.to_host + stats.cpu_fault_pages + stats.in_use;
}

static void come_and_go(struct world *world)
{
	pthread_rwlock_wrlock(&world->devs_lock);
	close_dev(world, DEVS - 1);
	open_dev(world, DEVS - 1);
	pthread_rwlock_unlock(&world->devs_lock);
}

int world_open(struct world **out, const struct stress_options *options)
{
	pthread_rwlockattr_t attr;
	struct world *world = hmm_alloc(sizeof(*world));
	struct dev_options probe = { .frames = 16 };
	struct dev *dev;
	int err;

	if (!world)
		fail("no memory");
	world->seed = options->seed;
	world->threads = options->threads;
	world->inject = options->inject;
	world->without = options->without;
	world->no_racy = is_without(world, "racy");
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&world->devs_lock, &attr);
	err = hmm_open(&world->hmm);
	if (!err)
		err = dev_open(world->hmm, &probe, &dev);
	if (err == -EPERM || err == -ENOSYS || err == -EOPNOTSUPP) {
		printf("skipped: no device memory here: %s\n", hmm_strerror(err));
		return SKIPPED;
	}
	if (err)
		fail("no mirror, or no device memory: %s", hmm_strerror(err));
	dev_close(dev);
	*out = world;
	return 0;
}

static void make_areas(struct world *world)
{
	uint64_t random = world->seed * 2654435761u + 1;

	world->areas = AREAS;
	world->area = mmap(NULL, AREAS * sizeof(struct area), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (world->area == MAP_FAILED)
		fail("no memory");
	for (unsigned i = 0; i < AREAS; i++) {
		/* 1 page to 8 MiB; the first is .bss. */
		unsigned most = 1u << random_of(&random) % 12;
		unsigned pages = i ? most + random_of(&random) % most : BSS_PAGES;

		if (area_init(&world->area[i], i + 16, pages, i ? NULL : in_bss,
			      i % 3 == 1))
			fail("no memory for area %u", i);
	}
}

static void check_all(struct world *world, const char *how)
{
	for (unsigned i = 0; i < world->areas; i++) {
		struct area *a = &world->area[i];
		struct run run;

		for (unsigned k = 0; k < a->pages; k += run.n ? run.n : 1) {
			run = area_run_at(a, k, a->pages);
			if (run.n)
				run_check(a, &run, how);
		}
	}
}

/* ---- the run ---- */

static uint64_t ops_of(const struct world *world)
{
	uint64_t ops = 0;

	for (unsigned i = 0; i < world->threads; i++)
		ops += world->worker[i].ops;
	return ops;
}

static void wait_for_ops(struct world *world, const struct stress_options *options)
{
	bool terminal = isatty(STDOUT_FILENO) && !options->quiet;
	uint64_t begin = now_ns(), shown = 0, changed = begin;

	for (;;) {
		uint64_t now = now_ns(), ops = ops_of(world), out, home;

		if ((options->seconds &&
		     now - begin > options->seconds * UINT64_C(1000000000)) ||
		    (options->ops && ops >= options->ops))
			return;
		if (terminal && now - shown > 500000000) {
			pthread_rwlock_rdlock(&world->devs_lock);
			count(world, &out, &home);
			pthread_rwlock_unlock(&world->devs_lock);
			printf("\r%llu operations, %llu migrations out, %llu home, %llu "
			       "forks "
			       "  ",
			       (unsigned long long)ops, (unsigned long long)out,
			       (unsigned long long)home, (unsigned long long)world->forks);
			fflush(stdout);
			shown = now;
		}
		if (now - changed > UINT64_C(1500000000)) {
			come_and_go(world);
			changed = now;
		}
		usleep(20000);
	}
}

static void start(struct world *world)
{
	for (unsigned i = 0; i < world->threads; i++) {
		struct worker *w = &world->worker[i];

		w->world = world;
		w->id = i;
		w->random = (world->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + i * 77777;
		w->random = w->random ? w->random : 1;
		if (pthread_create(&w->thread, NULL, worker_main, w))
			fail("no thread: %m");
	}
}

static int stress(const struct stress_options *options)
{
	unsigned long long swapped;
	uint64_t out, home, ops;
	struct world *world;
	int err = world_open(&world, options);

	if (err)
		return err;
	for (unsigned i = 0; i < DEVS; i++)
		open_dev(world, i);
	make_areas(world);
	fork_begin(world);
	if (racy_begin(world, 6))
		fail("no memory");
	watch_begin(world, HANG_S);
	watch_signals();
	/* One in so many system calls. */
	if (world->inject)
		inject_rate(40);
	if (options->pageout)
		pageout_begin();
	start(world);
	wait_for_ops(world, options);
	world->stop = true;
	for (unsigned i = 0; i < world->threads; i++)
		pthread_join(world->worker[i].thread, NULL);
	fork_reap(&world->worker[0], true);
	swapped = options->pageout ? pageout_end() : 0;
	check_all(world, "the CPU at the end");
	racy_end(world);
	inject_rate(0);
	ops = ops_of(world);
	for (unsigned i = 0; i < DEVS; i++)
		close_dev(world, i);
	check_all(world, "the CPU when the devices were gone");
	racy_end(world);
	count(world, &out, &home);
	hmm_put(world->hmm);
	check_all(world, "the CPU when the mirror was gone");
	if (world->inject)
		printf("%llu failures injected\n", (unsigned long long)inject_count());
	printf("seed %llu, %llu forks, %llu mremaps refused by the kernel\n",
	       (unsigned long long)world->seed, (unsigned long long)world->forks,
	       (unsigned long long)world->refused);
	printf("%llu operations, %llu migrations out, %llu home, 0 wrong bytes\n",
	       (unsigned long long)ops, (unsigned long long)out, (unsigned long long)home);
	if (options->pageout)
		printf("%llu pages went to swap\n", swapped);
	if (!out || !home || (world->inject && !inject_count()) || (options->pageout && !swapped)) {
		printf("but nothing was migrated, no failure injected or nothing swapped: this tested "
		       "nothing\n");
		return 1;
	}
	return 0;
}

static void usage(void)
{
	fprintf(stderr,
		"stress [--ops N] [--seconds T] [--threads N] [--seed S] [--pages N] "
		"[--inject] [--quiet] [--pageout] [--scene lost|scatter|open] [--without OP,...]\n");
	exit(2);
}

static const struct option long_options[] = {
	{ "ops", required_argument, NULL, 'o' },
	{ "seconds", required_argument, NULL, 't' },
	{ "threads", required_argument, NULL, 'n' },
	{ "seed", required_argument, NULL, 's' },
	{ "pages", required_argument, NULL, 'p' },
	{ "scene", required_argument, NULL, 'S' },
	{ "without", required_argument, NULL, 'w' },
	{ "inject", no_argument, NULL, 'i' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "pageout", no_argument, NULL, 'P' },
	{ NULL, 0, NULL, 0 },
};

static struct stress_options parse(int argc, char **argv)
{
	struct stress_options o = { .threads = 4, .pages = 100000 };
	int c;

	o.seed = now_ns() / 1000 % 1000000;
	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		uint64_t n = optarg && c != 'S' && c != 'w' ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 'o':
			o.ops = n;
			break;
		case 't':
			o.seconds = (unsigned)n;
			break;
		case 'n':
			o.threads = (unsigned)n;
			break;
		case 's':
			o.seed = n;
			break;
		case 'p':
			o.pages = (unsigned)n;
			break;
		case 'S':
			o.scene = optarg;
			break;
		case 'w':
			o.without = optarg;
			break;
		case 'i':
			o.inject = true;
			break;
		case 'q':
			o.quiet = true;
			break;
		case 'P':
			o.pageout = true;
			break;
		default:
			usage();
		}
	}
	if (optind != argc || !o.threads || o.threads > WORKERS_MAX || !o.pages)
		usage();
	if (!o.ops && !o.seconds)
		o.seconds = 10;
	return o;
}

int main(int argc, char **argv)
{
	struct stress_options options = parse(argc, argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (options.inject && !inject_there()) {
		fprintf(stderr, "--inject: only stress_inject can\n");
		return 2;
	}
	if (!options.scene)
		return stress(&options);
	if (!strcmp(options.scene, "lost"))
		return scene_lost(&options);
	if (!strcmp(options.scene, "scatter"))
		return scene_scatter(&options);
	if (!strcmp(options.scene, "open") && inject_there())
		return scene_open(&options);
	usage();
}
