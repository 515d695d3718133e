/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * live - the table of the running kernel.
 */
#include "os/live.h"

static const struct os_ops live = {
	.ctx_open = live_ctx_open,
	.ctx_close = live_ctx_close,
	.ctx_forget = live_ctx_forget,
	.ctx_is_ours = live_ctx_is_ours,
	.ctx_register = live_ctx_register,
	.ctx_unregister = live_ctx_unregister,
	.ctx_register_missing = live_ctx_register_missing,
	.ctx_move = live_ctx_move,
	.ctx_copy = live_ctx_copy,
	.ctx_zero = live_ctx_zero,
	.ctx_poison = live_ctx_poison,
	.ctx_wake = live_ctx_wake,
	.quiet_open = live_quiet_open,
	.quiet_close = live_quiet_close,
	.child_copy = live_child_copy,
	.child_close = live_child_close,
	.region_map = live_region_map,
	.region_unmap = live_region_unmap,
	.region_zap = live_region_zap,
	.ctx_probe = live_ctx_probe,
	.ctx_poll = live_ctx_poll,
	.ctx_read = live_ctx_read,
	.reader_nudge = live_reader_nudge,
	.reader_isolate = live_reader_isolate,
	.reader_kick = live_reader_kick,
	.perf_open = live_perf_open,
	.perf_close = live_perf_close,
	.perf_pending = live_perf_pending,
	.perf_drain = live_perf_drain,
	.mm_open = live_mm_open,
	.mm_close = live_mm_close,
	.vma_find = live_vma_find,
	.vma_find_fast = live_vma_find_fast,
	.vma_is_dax = live_vma_is_dax,
	.vma_file_size = live_vma_file_size,
	.vma_flags = live_vma_flags,
	.critical = live_critical,
	.scan = live_scan,
	.populate = live_populate,
	.populate_resident = live_populate_resident,
	.copy_from = live_copy_from,
	.copy_to = live_copy_to,
	.access_begin = live_access_begin,
	.access_end = live_access_end,
	.access_add = live_access_add,
	.handlers_arm = live_handlers_arm,
	.wait = live_wait,
	.wake = live_wake,
	.sleep = live_sleep,
	.madvise_settled = live_madvise_settled,
	.yield = live_yield,
	.now = live_now,
	.tid = live_tid,
	.thread_start = live_thread_start,
	.thread_join = live_thread_join,
	.run_detached = live_run_detached,
};

const struct os_ops *os_live(void)
{
	return &live;
}
