/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * live - what the files of the live table share; src/os only.
 *
 * live.c is the table; each other file has one noun and says its laws itself.
 */
#ifndef UHMM_OS_LIVE_H
#define UHMM_OS_LIVE_H

#include <time.h>

#include "os/os.h"

/* ---- fd.c: descriptors that we keep in the program's table ---- */

/* `fd` under a number that programs do not count on; fd itself where there is none. */
int fd_move_high(int fd);
/* Which file it is, inode and device in one word; 0: no descriptor. */
uint64_t fd_identity(int fd);
/* Close what is still the file it was; a number that is somebody else's now is left alone. */
void fd_close_if(int fd, uint64_t identity);

/* ---- uffd.c, move.c, reader.c, nudge.c, sentinel.c ---- */

int uffd_new(bool *user_only);
int uffd_enable(int fd, uint64_t features);
/* Both, into ctx->fd and ctx->user_only. */
int uffd_open_with(struct os_ctx *ctx, uint64_t features);
/* UFFD_FEATURE_* that every context has. */
extern const uint64_t uffd_features_needed;

/* Two pages: DONTNEED of the second, which is registered, wakes the reader. */
struct canary {
	bool kicked; /* the reader's own: the canary's message was read */
	char to_page[OS_PAGE_SIZE - sizeof(bool)];
	char page[OS_PAGE_SIZE];
};

int live_ctx_open(struct os_ctx *ctx);
void live_ctx_close(struct os_ctx *ctx);
void live_ctx_forget(struct os_ctx *ctx);
bool live_ctx_is_ours(const struct os_ctx *ctx);
int live_ctx_register(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
int live_ctx_unregister(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
int live_ctx_register_missing(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
int live_ctx_move(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done);
int live_ctx_move_present(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src,
			  size_t length, size_t *done);
int live_ctx_copy(const struct os_ctx *ctx, uintptr_t dst, uintptr_t src, size_t length,
		  size_t *done);
int live_ctx_zero(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done);
int live_ctx_poison(const struct os_ctx *ctx, uintptr_t dst, size_t length, size_t *done);
int live_ctx_wake(const struct os_ctx *ctx, uintptr_t start, size_t length);
int live_quiet_open(struct os_ctx *ctx);
void live_quiet_close(struct os_ctx *ctx);
int live_child_copy(int child, uintptr_t dst, uintptr_t src, size_t length, size_t *done);
int live_child_read(int child, struct os_msg *msgs, unsigned max);
void live_child_close(int child);
int live_sentinel_open(struct os_ctx *ctx);
/* Its page, if it is a sentinel. */
void sentinel_unmap(struct os_ctx *ctx);
int live_ctx_unmark(const struct os_ctx *ctx, uintptr_t start, uintptr_t end);
int live_ctx_probe(const struct os_ctx *ctx);
int live_ctx_poll(const struct os_ctx *ctxs, unsigned n, int64_t timeout_ns,
		  uint64_t *ready);
int live_ctx_read(const struct os_ctx *ctx, struct os_msg *msgs, unsigned max);
/* Open ctx->nudge; -1 where it cannot be had, and then the reader polls in ticks. */
void nudge_make(struct os_ctx *ctx);
/* Reader only: empty it. Was there anything? */
bool nudge_take(const struct os_ctx *ctx);
void live_reader_nudge(const struct os_ctx *ctxs);
int live_reader_isolate(const struct os_ctx *ctxs, unsigned n);
void live_reader_kick(const struct os_ctx *ctxs, unsigned n);

/* ---- iommu.c, frames.c ---- */
int live_iommu_info(const struct os_iommu *iommu, struct os_iommu_info *info);
int live_iommu_map(const struct os_iommu *iommu, uint64_t iova, uintptr_t va, size_t length,
		   bool write);
int live_iommu_unmap(const struct os_iommu *iommu, uint64_t iova, size_t length);
int live_page_frames(const struct os_mm *mm, uintptr_t start, size_t n, uint64_t *frames);

/* ---- perf.c ---- */

/* One event on a CPU of a thread (0: the caller), its records into `ring` or, -1, its own. */
int perf_event_new(pid_t tid, unsigned cpu, int ring);
int live_perf_open(struct os_perf **perf);
void live_perf_close(struct os_perf *perf);
bool live_perf_pending(const struct os_perf *perf);
int live_perf_drain(struct os_perf *perf, os_perf_fn fn, void *arg);

/* ---- vma.c, maps.c, file.c, scan.c, populate.c ---- */

/* "/proc/PID/WHAT", of our own memory where pid is 0; O_RDONLY. -ESRCH no such process. */
int proc_open(pid_t pid, const char *what);
/* PROCMAP_QUERY of the VMA at addr or the next; `name` may be NULL. */
int procmap_query(int maps_fd, uintptr_t addr, struct os_vma *vma, char *name, size_t size);
/* The same by reading /proc/PID/maps. */
int maps_find(pid_t pid, uintptr_t addr, struct os_vma *vma);

int live_mm_open(struct os_mm *mm, pid_t pid);
void live_mm_close(struct os_mm *mm);
int live_vma_find(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma);
int live_vma_find_fast(const struct os_mm *mm, uintptr_t addr, struct os_vma *vma);
bool live_vma_is_dax(const struct os_mm *mm, const struct os_vma *vma);
int64_t live_vma_file_size(const struct os_mm *mm, const struct os_vma *vma);
int live_vma_flags(uintptr_t addr, unsigned *flags);
int live_scan(const struct os_mm *mm, uintptr_t start, uintptr_t end, unsigned how,
	      struct os_run *runs, unsigned max, uintptr_t *next);
int live_populate(uintptr_t start, uintptr_t end, bool write);
void live_populate_resident(uintptr_t start, uintptr_t end);

/* ---- region.c, critical.c, tcb.c, settle.c ---- */

void *live_region_map(size_t length);
void live_region_unmap(void *region, size_t length);
void live_region_zap(uintptr_t start, size_t length);
/* Make the table of critical() now: later it takes no lock of the dynamic linker's. */
void critical_learn(void);
bool live_critical(uintptr_t start, uintptr_t end);
void live_critical_add(const void *function);
bool live_thread_pages(const struct os_mm *mm, uintptr_t start, uintptr_t end,
		       uint64_t *pages);
int live_madvise_settled(uint64_t budget_ns, uint64_t timeout_ns);

/* ---- safecopy.c, handlers.c ---- */

int live_copy_from(const struct os_mm *mm, void *dst, uintptr_t src, size_t length);
int live_copy_to(const struct os_mm *mm, uintptr_t dst, const void *src, size_t length);
int live_access_begin(void);
void live_access_end(void);
int live_access_add(uintptr_t addr, size_t size, uint64_t operand, uint64_t *old);
int live_access_cas(uintptr_t addr, size_t size, uint64_t expected, uint64_t desired,
		    uint64_t *old);
int live_handlers_arm(void);

/* ---- hush.c ---- */

void live_hush(void *region, size_t length);

/* ---- thread.c ---- */

void live_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void live_wake(const uint32_t *word);
void live_sleep(uint64_t ns);
void live_yield(void);
struct timespec live_timespec(uint64_t ns);
uint64_t live_now(void);
pid_t live_tid(void);
int live_thread_start(struct os_thread **thread, const char *name, bool critical,
		      os_thread_fn fn, void *arg);
void live_thread_join(struct os_thread *thread);
int live_run_detached(os_thread_fn fn, void *arg);

/* ---- feature.c: what other files ask for while they run ---- */

bool feature_procmap_query(void);
/* Copies of our own memory by process_vm_readv: asked before, and told when it was refused. */
bool feature_process_vm(void);
void feature_process_vm_refused(void);

#endif
