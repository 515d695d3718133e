/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * demo_run - epochs of launches, each compared with the CPU's own.
 *
 * Model: an epoch starts from equal ranks and does a few steps. Before each step the
 * graph's memory is changed (churn_between); while the GPU does the step the CPU does
 * its own on ranks of its own, a thread forks and advises (churn_during), two threads
 * change memory of their own under jobs of their own (churn_beside). After the step
 * every rank of the GPU must equal the CPU's, bit for bit.
 * In the middle of each epoch a job on a third queue follows a bad pointer while the
 * step runs: it must end in -EFAULT, and the step must not notice.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/svm.h>

#include "common.h"
#include "demo.h"
#include "pagerank.h"

#define BESIDES 2
/* The CPU reads the same nodes at the same time: what it waits for, it waits for often. */
#define TIMESLICE_US 100
#define MIGRATE_AFTER 64 /* TLB misses of a block: about four launches */

struct run {
	const struct demo_options *options;
	struct demo_result *result;
	struct deb_graph *deb;
	struct svm *svm; /* NULL: one GPU, without */
	struct gpu *gpu; /* the first */
	struct gpu_queue *queue, *bad_queue;
	struct gpu_queue *queues[SVM_GPUS_MAX]; /* of each GPU; queue is the first */
	unsigned gpus;
	struct churn_graph graph;
	struct churn_during during;
	struct churn_beside *beside[BESIDES];
	struct pagerank_job *job; /* malloc'd; the GPU reads it in place */
	double *rank[2];	  /* the CPU's own */
	uint64_t *hash;		  /* of names, by the GPU */
	uint64_t started;
	bool during_runs;
};

/* The run cannot go on. */
static bool give_up(struct run *run, const char *what, int rc)
{
	if (!run->result->failed[0])
		snprintf(run->result->failed, sizeof(run->result->failed), "%s: %s", what,
			 hmm_strerror(rc));
	return false;
}

static double elapsed(const struct run *run)
{
	return (double)(tool_now() - run->started) / 1e9;
}

/* Without the privilege or the kernel for it there is no memory of its own, only a reason.
 */
static int open_gpu(struct run *run)
{
	struct gpu_options options = {
		.size = sizeof(options),
		.verify = true,
		.vram_bytes = run->options->vram,
		.migrate_after = run->options->vram ? MIGRATE_AFTER : 0,
	};
	char *why = run->result->no_vram;
	int rc = gpu_open(&options, &run->gpu);

	if (!options.vram_bytes || (rc != -EPERM && rc != -EOPNOTSUPP))
		return rc;
	snprintf(why, sizeof(run->result->no_vram), "%s", hmm_strerror(rc));
	options.vram_bytes = options.migrate_after = 0;
	return gpu_open(&options, &run->gpu);
}

/* The same with several, which have memory where one would. */
static int open_svm(struct run *run)
{
	struct svm_options options = {
		.size = sizeof(options),
		.gpus = run->options->gpus,
		.verify = true,
		.vram_bytes = run->options->vram,
		.timeslice_us = TIMESLICE_US,
	};
	char *why = run->result->no_vram;
	int rc = svm_open(&options, &run->svm);

	if (options.vram_bytes && (rc == -EPERM || rc == -EOPNOTSUPP)) {
		snprintf(why, sizeof(run->result->no_vram), "%s", hmm_strerror(rc));
		options.vram_bytes = 0;
		rc = svm_open(&options, &run->svm);
	}
	run->gpu = rc ? NULL : svm_gpu(run->svm, 0);
	run->gpus = options.gpus;
	return rc;
}

/*
 * Both sides read nodes and edges at the same time, all the time: moved to whoever touched them
 * last they would do nothing but move. So GPUs read them where they lie, and what moves is what
 * is written, the ranks. They are malloc'd: what lies elsewhere than in the heap moves.
 */
static int advise(struct run *run)
{
	const struct graph *graph = &run->deb->graph;
	uintptr_t low = (uintptr_t)sbrk(0), end = low;
	int rc;

	for (uint32_t i = 0; i < graph->count; i++)
		if ((uintptr_t)graph->nodes[i] < low)
			low = (uintptr_t)graph->nodes[i];
	if (low == end)
		return 0;
	rc = svm_advise(run->svm, (void *)low, end - low, SVM_ADVISE_READ_MOSTLY, 0);
	return rc == -EFAULT ? 0 : rc; /* not all of it is heap after all */
}

static int open_queues(struct run *run)
{
	int rc = 0;

	for (unsigned i = 0; i < run->gpus && !rc; i++)
		rc = gpu_queue_create(i ? svm_gpu(run->svm, i) : run->gpu, &run->queues[i]);
	run->queue = run->queues[0];
	return rc ? rc : gpu_queue_create(run->gpu, &run->bad_queue);
}

/* What svm decides on a fault need not be done by counting misses too. */
static int open_gpus(struct run *run)
{
	run->gpus = 1;
	return run->options->gpus > 1 ? open_svm(run) : open_gpu(run);
}

static bool setup(struct run *run)
{
	struct demo_result *result = run->result;
	uint32_t count = run->deb->graph.count;
	int rc = open_gpus(run);

	if (rc)
		return give_up(run, run->options->gpus > 1 ? "svm_open" : "gpu_open", rc);
	rc = open_queues(run);
	if (rc)
		return give_up(run, "gpu_queue_create", rc);
	rc = run->svm ? advise(run) : 0;
	if (rc)
		return give_up(run, "svm_advise", rc);
	rc = churn_graph_init(&run->graph, run->gpu, run->queue, &result->tally, run->deb,
			      run->options->seed);
	if (rc)
		return give_up(run, "ranks", rc);
	run->graph.vram = run->options->vram && !result->no_vram[0];
	run->job = tool_alloc(sizeof(*run->job));
	run->hash = tool_alloc(count * sizeof(*run->hash));
	for (unsigned i = 0; i < 2; i++)
		run->rank[i] = tool_alloc(run->graph.bytes);
	rc = churn_during_start(&run->during, &run->graph);
	if (rc)
		return give_up(run, "pthread_create", rc);
	run->during_runs = true;
	for (unsigned i = 0; i < BESIDES; i++) {
		rc = churn_beside_start(run->gpu, &result->tally,
					run->options->seed + 1 + i, &run->beside[i]);
		if (rc)
			return give_up(run, "churn beside", rc);
	}
	return true;
}

static void teardown(struct run *run)
{
	for (unsigned i = 0; i < BESIDES; i++)
		churn_beside_stop(run->beside[i]);
	if (run->during_runs)
		churn_during_stop(&run->during);
	if (run->gpu) {
		run->result->stats.size = sizeof(run->result->stats);
		gpu_get_stats(run->gpu, &run->result->stats);
		for (unsigned i = 1; i < run->gpus; i++) {
			struct gpu_stats other = { .size = sizeof(other) };

			gpu_get_stats(svm_gpu(run->svm, i), &other);
			run->result->stats.stale += other.stale;
		}
	}
	if (run->bad_queue)
		gpu_queue_destroy(run->bad_queue);
	for (unsigned i = 0; i < run->gpus; i++)
		if (run->queues[i])
			gpu_queue_destroy(run->queues[i]);
	if (run->svm)
		svm_close(run->svm);
	else
		gpu_close(run->gpu);
	churn_graph_free(&run->graph);
	free(run->rank[0]);
	free(run->rank[1]);
	free(run->hash);
	free(run->job);
}

/* Where everything lies for this launch. */
static void describe_job(struct run *run, unsigned now)
{
	*run->job = (struct pagerank_job){
		.nodes = run->deb->graph.nodes,
		.rank = run->graph.rank[now],
		.next = run->graph.rank[!now],
		.hash = run->hash,
		.count = run->deb->graph.count,
	};
}

/* Wait for a launch that must end well. */
static bool wait_launch(struct run *run, struct gpu_fence *fence, const char *what)
{
	struct gpu_error error = { .err = 0 };
	int rc = gpu_wait(fence, &error);

	run->result->launches++;
	if (!rc)
		return true;
	if (!run->result->failed[0])
		snprintf(run->result->failed, sizeof(run->result->failed),
			 "%s ended with %d: %s", what, rc, error.text);
	return false;
}

static void compare_ranks(struct run *run, unsigned which, unsigned step)
{
	struct demo_result *result = run->result;
	uint32_t first = 0;
	uint32_t differ = pagerank_differ(run->graph.rank[which], run->rank[which],
					  run->deb->graph.count, &first);

	result->ranks_compared += run->deb->graph.count;
	result->ranks_differ += differ;
	if (differ && !result->failed[0])
		snprintf(result->failed, sizeof(result->failed),
			 "epoch %u, step %u: %u ranks differ, first %.*s: GPU %a, CPU %a",
			 result->epochs + 1, step + 1, differ,
			 (int)run->deb->graph.nodes[first]->name_len,
			 run->deb->graph.nodes[first]->name, run->graph.rank[which][first],
			 run->rank[which][first]);
}

/* While a step runs, a job of another queue goes wrong on purpose. */
static void go_wrong(struct run *run)
{
	char text[sizeof(run->result->bad_pointer)] = "";

	churn_bad_pointer(&run->graph, run->bad_queue, text, sizeof(text));
	if (!text[0])
		return;
	memcpy(run->result->bad_pointer, text, sizeof(text));
	run->result->bad_pointers++;
}

/* One step: rank[now] -> rank[!now] on both sides. */
static bool run_step(struct run *run, unsigned turn, unsigned step)
{
	unsigned now = step & 1;
	struct gpu_fence *fence;
	bool good;
	int rc;

	pthread_mutex_lock(&run->during.graph);
	churn_between(&run->graph, turn, now);
	describe_job(run, now);
	rc = gpu_submit(run->queues[step % run->gpus], pagerank_kernel, run->job,
			run->job->count, &fence);
	pthread_mutex_unlock(&run->during.graph);
	if (rc)
		return give_up(run, "gpu_submit", rc);
	if (step == run->options->launches / 2)
		go_wrong(run);
	pagerank_step(&run->deb->graph, run->rank[now], run->rank[!now]);
	good = wait_launch(run, fence, "a step of PageRank");
	pthread_mutex_lock(&run->during.graph);
	churn_between_end(&run->graph);
	if (good)
		compare_ranks(run, !now, step);
	pthread_mutex_unlock(&run->during.graph);
	return good;
}

/* The GPU reads every name where it lies in its file. */
static bool run_names(struct run *run)
{
	const struct graph *graph = &run->deb->graph;
	struct gpu_fence *fence;
	int rc;

	describe_job(run, 0);
	rc = gpu_submit(run->queue, pagerank_names_kernel, run->job, graph->count, &fence);
	if (rc)
		return give_up(run, "gpu_submit", rc);
	if (!wait_launch(run, fence, "the reading of names"))
		return false;
	for (uint32_t i = 0; i < graph->count; i++)
		run->result->names_differ +=
			run->hash[i] != pagerank_name_hash(graph->nodes[i]);
	run->result->names_compared += graph->count;
	return true;
}

static bool run_epoch(struct run *run)
{
	struct demo_result *result = run->result;
	uint32_t count = run->deb->graph.count;

	pthread_mutex_lock(&run->during.graph);
	for (uint32_t i = 0; i < count; i++)
		run->graph.rank[0][i] = run->rank[0][i] = 1.0 / count;
	pthread_mutex_unlock(&run->during.graph);
	for (unsigned step = 0; step < run->options->launches; step++) {
		tool_progress("epoch %u, step %u of %u, %.0f of %.0f s", result->epochs + 1,
			      step + 1, run->options->launches, elapsed(run),
			      run->options->seconds);
		/* Offset by the epoch, so that each change meets each step once. */
		if (!run_step(run, result->epochs + step, step))
			return false;
	}
	return run_names(run);
}

static int by_rank(const void *one, const void *other)
{
	const struct demo_top *a = one, *b = other;

	return (a->rank < b->rank) - (a->rank > b->rank);
}

static void find_top(struct run *run)
{
	const struct graph *graph = &run->deb->graph;
	const double *rank = run->graph.rank[run->options->launches & 1];
	struct demo_top *all = tool_alloc(graph->count * sizeof(*all));
	struct demo_result *result = run->result;

	for (uint32_t i = 0; i < graph->count; i++)
		all[i] = (struct demo_top){ graph->nodes[i], rank[i] };
	qsort(all, graph->count, sizeof(*all), by_rank);
	result->top_count = graph->count < DEMO_TOP ? graph->count : DEMO_TOP;
	memcpy(result->top, all, result->top_count * sizeof(*all));
	free(all);
}

bool demo_run(const struct demo_options *options, struct deb_graph *deb,
	      struct demo_result *result)
{
	struct run run = { .options = options, .result = result, .deb = deb };
	bool good;

	memset(result, 0, sizeof(*result));
	churn_tally_init(&result->tally);
	run.started = tool_now();
	good = setup(&run);
	/* On, as long as half of another epoch still fits. */
	for (double used = 0; good && used <= options->seconds;) {
		good = run_epoch(&run);
		result->epochs += good;
		used = elapsed(&run) * (1 + 0.5 / (result->epochs + !good));
	}
	result->elapsed = elapsed(&run);
	if (good)
		find_top(&run);
	teardown(&run);
	tool_progress_end();
	return good && !result->failed[0] && !result->ranks_differ &&
	       !result->names_differ && !result->stats.stale &&
	       !atomic_load(&result->tally.stale) && !atomic_load(&result->tally.wrong) &&
	       result->bad_pointers == result->epochs;
}
