/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * bench - `uhmm bench`: what it costs, against the plain way, in one run.
 *
 *	bench.c		 command line, alternation, statistics, table
 *	bench_dev.c	 the device that mirrors for the others
 *	bench_raw.c	 the plain way: PAGEMAP_SCAN, a userfaultfd context of one's own
 *	bench_fence.c	 fence
 *	bench_storm.c	 fence_storm
 *	bench_hit.c	 hit, tlb_hit, gpu_load
 *	bench_look.c	 snapshot, sparse_1tib
 *	bench_fault.c	 device_fault_512, file_first_touch
 *	bench_unmap.c	 munmap_mirrored
 *	bench_scale.c	 notifiers_100k, vmas_60k
 *	bench_missing.c	 the plain way to have pages elsewhere: a userfaultfd loop
 *	bench_away.c	 migrate_out_2m, migrate_back_2m
 *	bench_vram.c	 migrate_out_2m_gpu, oversubscribe_4x
 *	bench_svm.c	 svm_fault_2m, svm_prefetch_64m, svm_oversubscribe
 *	bench_dma.c	 dma_map_2m, dma_unmap_2m, fsdax
 *	bench_odp.c	 odp_get, odp_*_cold, odp_clients
 *	bench_fabric.c	 the plain way to read a peer's memory: RDMA of libfabric
 *	bench_regcache.c regcache_hit, regcache_hit_fenced, regcache_miss
 *	bench_ucx.c	 ucx_rcache_hit
 *	bench_uvmem.c	 uvmem_page_out, uvmem_page_in, uvmem_load
 *	bench_userptr.c	 userptr_launch, userptr_launch_dirty, userptr_launch_checksum
 *	bench_cpu_fault.c cpu_fault_random, cpu_fault_seq, ping_pong, exclusive
 *
 * Law: a figure alone says little on a machine that is not this one. So each row is a pair
 * measured in short batches that take turns, and its value is the median of its batches.
 */
#ifndef UHMM_BENCH_BENCH_H
#define UHMM_BENCH_BENCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uhmm/hmm.h>
#include <uhmm/ptable.h>

#include "common.h"
#include "vram.h"

#define BENCH_PAGE 4096ul
#define BENCH_WINDOW 512ul /* pages */

/* ---- bench.c ---- */

struct bench {
	double seconds;	  /* for one row */
	const char *name; /* of the family that runs */
	json_t *rows;
	bool failed;
};

/* What a row is called, and what it is compared with. */
struct bench_title {
	const char *name, *unit, *against;
	const char *target; /* of the design, in words; NULL: none */
};

/* Percentiles of single operations, for rows that have them. */
struct bench_spread {
	double p50, p99, max;
};

/* One batch: 0 and what one operation cost, or negative errno. */
typedef int (*bench_batch)(void *arg, double *cost);

/* Alternate both for bench->seconds, and add the row. */
void bench_pair(struct bench *bench, const struct bench_title *title, bench_batch ours,
		bench_batch theirs, void *arg);
/* For families that alternate by themselves. */
void bench_add(struct bench *bench, const struct bench_title *title, double value,
	       double against_value, const struct bench_spread *spread);
/* A row that cannot be measured here. */
void bench_skip(struct bench *bench, const char *name, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Sorts. */
double bench_percentile(double *samples, size_t count, double percent);
/* Private anonymous memory without huge pages; NULL: no memory. */
char *bench_map(size_t length);

/* Each family: adds its rows. */
void bench_fence(struct bench *bench);
void bench_fence_storm(struct bench *bench);
void bench_hit(struct bench *bench);
void bench_tlb_hit(struct bench *bench);
void bench_gpu_load(struct bench *bench);
void bench_snapshot(struct bench *bench);
void bench_sparse(struct bench *bench);
void bench_device_fault(struct bench *bench);
void bench_file_touch(struct bench *bench);
void bench_munmap(struct bench *bench);
void bench_notifiers(struct bench *bench);
void bench_vmas(struct bench *bench);
void bench_migrate_out(struct bench *bench);
void bench_migrate_back(struct bench *bench);
void bench_cpu_fault_random(struct bench *bench);
void bench_cpu_fault_seq(struct bench *bench);
void bench_migrate_gpu(struct bench *bench);
void bench_dma(struct bench *bench);
void bench_edu(struct bench *bench);
void bench_fsdax(struct bench *bench);
void bench_odp(struct bench *bench);
void bench_regcache(struct bench *bench);
void bench_oversubscribe(struct bench *bench);
void bench_svm(struct bench *bench);
void bench_ping_pong(struct bench *bench);
void bench_exclusive(struct bench *bench);
void bench_ucx(struct bench *bench);
void bench_uvmem(struct bench *bench);
void bench_userptr(struct bench *bench);

/* ---- bench_dev.c ---- */

/* A device with a page table, told of the whole address space. */
struct bench_dev {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	pthread_mutex_t lock; /* the update lock */
	struct uhmm_ptable table;
};

int bench_dev_open(struct bench_dev *dev);
void bench_dev_close(struct bench_dev *dev);
/* Fault [memory, memory + pages) into the device's table, window by window. */
int bench_dev_fault(struct bench_dev *dev, const void *memory, size_t pages, bool write);

/* ---- bench_raw.c ---- */

/* PAGEMAP_SCAN of [start, end): count of runs, or negative errno. */
int raw_scan_open(void);
int raw_scan(int pagemap, const void *start, size_t length);

/* A context with UNMAP events and a thread that polls and reads. */
struct raw_uffd {
	int fd, quit;
	pthread_t thread;
};

int raw_uffd_open(struct raw_uffd *raw);
void raw_uffd_close(struct raw_uffd *raw);
int raw_uffd_register(const struct raw_uffd *raw, void *start, size_t length);

/* ---- bench_missing.c ---- */

/* A region whose missing pages a thread copies in, one for each message. */
struct raw_missing {
	char *memory, *source;
	size_t length;
	int fd, quit;
	pthread_t thread;
};

int raw_missing_open(struct raw_missing *raw, size_t length);
void raw_missing_close(struct raw_missing *raw);
/* The first pages are missing again. */
void raw_missing_arm(const struct raw_missing *raw, size_t length);

/* ---- bench_away.c ---- */

/* So many pages a device copies itself; more are worth waking its engine. */
#define BENCH_AT_ONCE 16

/* Memory that goes to a device and comes back. */
struct bench_away {
	struct hmm *hmm;
	struct vram *vram;
	char *mapped, *memory; /* memory: aligned to 2 MiB, touched, without huge pages */
	size_t length;
};

int bench_away_open(struct bench_away *away, bool host_frames, size_t length, bool huge);
void bench_away_close(struct bench_away *away);
/* Pages of it, from @at on; -EAGAIN: some stayed. */
int bench_away_out(struct bench_away *away, size_t at, size_t length);
int bench_away_home(struct bench_away *away, size_t at, size_t length);

#endif
