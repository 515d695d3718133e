/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * churn_between - changes of the graph's own memory from launch to launch.
 *
 * Laws: each change is complete before the next launch is submitted and is marked
 * (gpu_verify_mark), so a translation from before it is stale from then on. What nodes
 * and ranks say is the same before and after, except that the order of edges in a
 * list may differ; the CPU's own step goes by the same lists.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "churn.h"
#include "common.h"
#include "pagerank.h"

#define PAGE ((size_t)4096)
#define SHARE 128 /* one in so many nodes moves, one in so many packages is rebuilt */

int churn_graph_init(struct churn_graph *graph, struct gpu *gpu, struct gpu_queue *queue,
		     struct churn_tally *tally, struct deb_graph *deb, uint64_t seed)
{
	memset(graph, 0, sizeof(*graph));
	graph->gpu = gpu;
	graph->queue = queue;
	graph->tally = tally;
	graph->deb = deb;
	graph->random = seed * 2 + 1; /* not 0 */
	graph->bytes = (deb->graph.count * sizeof(double) + PAGE - 1) & ~(PAGE - 1);
	for (unsigned i = 0; i < 2; i++) {
		void *rank = mmap(NULL, graph->bytes, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (rank == MAP_FAILED) {
			churn_graph_free(graph);
			return -ENOMEM;
		}
		graph->rank[i] = rank;
	}
	graph->bad = churn_area(PAGE);
	if (!graph->bad) {
		churn_graph_free(graph);
		return -ENOMEM;
	}
	munmap(graph->bad, PAGE);
	return 0;
}

void churn_graph_free(struct churn_graph *graph)
{
	for (unsigned i = 0; i < 2; i++) {
		if (graph->rank[i])
			munmap(graph->rank[i], graph->bytes);
		graph->rank[i] = NULL;
	}
}

/* The ranks lie elsewhere from now on, and nothing lies where they were. */
static int move_ranks(struct churn_graph *graph, unsigned which)
{
	double *old = graph->rank[which];
	void *place =
		mmap(NULL, graph->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (place == MAP_FAILED)
		return -errno;
	if (mremap(old, graph->bytes, graph->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, place) ==
	    MAP_FAILED) {
		int rc = -errno;

		munmap(place, graph->bytes);
		return rc;
	}
	graph->rank[which] = place;
	gpu_verify_mark(graph->gpu, old, graph->bytes);
	gpu_verify_mark(graph->gpu, place, graph->bytes);
	return 0;
}

/* The pages of the ranks go and come back as new ones with the same numbers. */
static int drop_ranks(struct churn_graph *graph, unsigned which)
{
	double *copy = tool_alloc(graph->bytes);
	int rc = 0;

	memcpy(copy, graph->rank[which], graph->bytes);
	if (madvise(graph->rank[which], graph->bytes, MADV_DONTNEED))
		rc = -errno;
	gpu_verify_mark(graph->gpu, graph->rank[which], graph->bytes);
	memcpy(graph->rank[which], copy, graph->bytes);
	free(copy);
	return rc;
}

static int protect_ranks(struct churn_graph *graph, unsigned which, int prot)
{
	if (mprotect(graph->rank[which], graph->bytes, prot))
		return -errno;
	graph->read_only[which] = !(prot & PROT_WRITE);
	gpu_verify_mark(graph->gpu, graph->rank[which], graph->bytes);
	return 0;
}

/*
 * What is read becomes read-only for one launch, which must not mind. What is written
 * becomes read-only for one launch of its own, which must end in -EPERM (G3).
 */
static int ranks_read_only(struct churn_graph *graph, unsigned now)
{
	struct pagerank_job job = {
		.nodes = graph->deb->graph.nodes,
		.rank = graph->rank[now],
		.next = graph->rank[!now],
		.count = graph->deb->graph.count,
	};
	struct gpu_error error = { .err = 0 };
	struct gpu_fence *fence;
	int rc = protect_ranks(graph, !now, PROT_READ);

	if (!rc)
		rc = gpu_submit(graph->queue, pagerank_kernel, &job, job.count, &fence);
	if (rc)
		return rc;
	rc = gpu_wait(fence, &error);
	atomic_fetch_add(&graph->tally->jobs, 1);
	if (rc == -EPERM && error.text[0])
		atomic_fetch_add(&graph->tally->cancelled, 1);
	else
		churn_bad(graph->tally, true,
			  "a launch that writes read-only ranks ended with %d (%s), not "
			  "-EPERM",
			  rc, error.text);
	rc = protect_ranks(graph, !now, PROT_READ | PROT_WRITE);
	return rc ? rc : protect_ranks(graph, now, PROT_READ);
}

static void move_nodes(struct churn_graph *graph)
{
	struct graph *nodes = &graph->deb->graph;

	for (uint32_t i = 0; i < nodes->count / SHARE + 1; i++)
		graph_move_node(nodes,
				(uint32_t)(churn_random(&graph->random) % nodes->count));
}

static void rebuild_packages(struct churn_graph *graph)
{
	uint32_t count = graph->deb->graph.count;

	for (uint32_t i = 0; i < count / SHARE + 1; i++)
		deb_graph_rebuild(graph->deb,
				  (uint32_t)(churn_random(&graph->random) % count));
}

/* What cannot move, because a fork runs or the heap's own part is in it, stays: no error.
 */
bool churn_migrate(struct churn_graph *graph, const void *start, size_t length, bool home)
{
	int64_t got = home ? gpu_migrate_home(graph->gpu, start, length)
			   : gpu_migrate(graph->gpu, start, length);

	if (got < 0 && got != -EBUSY && got != -EINVAL)
		churn_bad(graph->tally, false, "migration %s: %s",
			  home ? "home" : "to the GPU's memory", hmm_strerror((int)got));
	return got > 0;
}

/* Both, ahead of the launch; the GPU works in its own memory, the comparison brings it
 * home. */
static bool ranks_to_vram(struct churn_graph *graph)
{
	bool moved = churn_migrate(graph, graph->rank[0], graph->bytes, false);

	return churn_migrate(graph, graph->rank[1], graph->bytes, false) || moved;
}

static int move_file(struct churn_graph *graph)
{
	struct deb_files *files = graph->deb->files;
	size_t which = churn_random(&graph->random) % files->count;
	const struct deb_file *file = &files->file[which];
	const char *old = file->text;
	int rc = deb_graph_remap(graph->deb, which, churn_random(&graph->random) & 1);

	if (!rc && old) {
		gpu_verify_mark(graph->gpu, old, file->len);
		gpu_verify_mark(graph->gpu, file->text, file->len);
	}
	return rc;
}

void churn_between(struct churn_graph *graph, unsigned turn, unsigned now)
{
	enum churn_kind kind =
		CHURN_RANKS_MOVED + turn % (CHURN_FORK_UNDER - CHURN_RANKS_MOVED);
	unsigned which = churn_random(&graph->random) & 1;
	int rc = 0;

	switch (kind) {
	case CHURN_RANKS_MOVED:
		rc = move_ranks(graph, which);
		break;
	case CHURN_RANKS_DROPPED:
		rc = drop_ranks(graph, which);
		break;
	case CHURN_RANKS_READ_ONLY:
		rc = ranks_read_only(graph, now);
		break;
	case CHURN_NODES_MOVED:
		move_nodes(graph);
		break;
	case CHURN_PACKAGES_REBUILT:
		rebuild_packages(graph);
		break;
	case CHURN_RANKS_TO_VRAM:
		if (!graph->vram || !ranks_to_vram(graph))
			return;
		break;
	default:
		rc = move_file(graph);
		break;
	}
	if (rc)
		churn_bad(graph->tally, false, "%s: %s", churn_kind_name(kind),
			  hmm_strerror(rc));
	atomic_fetch_add(&graph->tally->changes[kind], 1);
}

void churn_between_end(struct churn_graph *graph)
{
	for (unsigned i = 0; i < 2; i++) {
		int rc = graph->read_only[i]
				 ? protect_ranks(graph, i, PROT_READ | PROT_WRITE)
				 : 0;

		if (rc)
			churn_bad(graph->tally, false, "mprotect: %s", strerror(-rc));
	}
}

/* GPU: follow the pointer. */
static void follow(struct gpu_sm *sm, void *arg, uint64_t index)
{
	const uint64_t *pointer = gpu_load_ptr(sm, arg);

	gpu_load_u64(sm, &pointer[index]);
}

static int follow_job(struct churn_graph *graph, struct gpu_queue *queue,
		      uint64_t **pointer, struct gpu_error *error)
{
	struct gpu_fence *fence;
	int rc = gpu_submit(queue, follow, pointer, PAGE / sizeof(**pointer), &fence);

	atomic_fetch_add(&graph->tally->jobs, 1);
	return rc ? rc : gpu_wait(fence, error);
}

void churn_bad_pointer(struct churn_graph *graph, struct gpu_queue *queue, char *text,
		       size_t size)
{
	struct gpu_error error = { .err = 0 };
	int rc;

	if (mmap(graph->bad, PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != graph->bad) {
		churn_bad(graph->tally, false, "mmap: %s", strerror(errno));
		return;
	}
	rc = follow_job(graph, queue, &graph->bad, &error);
	if (rc)
		churn_bad(graph->tally, false, "a job on a good pointer ended with %d: %s",
			  rc, error.text);
	munmap(graph->bad, PAGE);
	gpu_verify_mark(graph->gpu, graph->bad, PAGE);
	rc = follow_job(graph, queue, &graph->bad, &error);
	if (rc == -EFAULT && error.text[0]) {
		size_t len = strnlen(error.text, sizeof(error.text));

		len = len < size ? len : size - 1;
		memcpy(text, error.text, len);
		text[len] = '\0';
		atomic_fetch_add(&graph->tally->cancelled, 1);
	} else {
		churn_bad(graph->tally, true,
			  "a job on a bad pointer ended with %d (%s), not -EFAULT", rc,
			  error.text);
	}
}
