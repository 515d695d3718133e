/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devmem - a device's memory: made, ended, asked about.
 */
#include <errno.h>
#include <string.h>

#include "core/pager.h"

#define FRAMES_MAX (UINT64_C(1) << 30)
#define TIMEOUT_MS 10000u
#define SLICE_MAX_US 1000000u
#define HOME_NS UINT64_C(30000000000)

void *hmm_alloc(size_t size)
{
	return arena_map(size);
}

void hmm_free(void *memory, size_t size)
{
	arena_unmap(memory, size);
}

static int check_options(const struct hmm_devmem_options *o, const struct hmm_devmem_ops *ops)
{
	bool copies = o->type == HMM_DEVMEM_PRIVATE && !o->host_frames;

	if (o->type != HMM_DEVMEM_PRIVATE && o->type != HMM_DEVMEM_COHERENT)
		return error_say(-EINVAL, "a devmem is PRIVATE or COHERENT");
	if (!o->frames || o->frames > FRAMES_MAX || o->limit > o->frames)
		return error_say(-EINVAL, "a devmem has 1 to 2^30 frames, and a limit below that");
	if (!o->owner)
		return error_say(-EINVAL, "a devmem needs an owner");
	if (o->timeslice_us > SLICE_MAX_US)
		return error_say(-EINVAL, "a time slice is at most 1 s");
	if (o->type == HMM_DEVMEM_COHERENT && o->host_frames)
		return error_say(-EINVAL, "coherent memory stays where it is: no host frames");
	if (!ops->to_host || (copies && !ops->to_device))
		return error_say(-EINVAL, "a devmem needs to_host, and to_device if it copies");
	return 0;
}

static int check_create(struct hmm *hmm, const struct hmm_devmem_options *options,
			const struct hmm_devmem_ops *ops, struct hmm_devmem **out)
{
	int err = hmm_check_sleep(hmm);

	if (!err && (!options || !ops || !out))
		err = error_say(-EINVAL, "no options, no operations, or nowhere for the handle");
	if (!err)
		err = struct_check(options, options->size, sizeof(*options));
	if (!err)
		err = struct_check(ops, ops->size, sizeof(*ops));
	if (!err)
		err = check_options(options, ops);
	if (!err && !hmm->os_ctx[0].poison)
		err = error_say(-EOPNOTSUPP, "this kernel has no UFFDIO_POISON (Linux 6.6), or it is "
					     "turned off: pages of a lost device would read zeros");
	if (!err && !hmm->os_ctx[0].move)
		err = error_say(-EOPNOTSUPP, "this kernel has no UFFDIO_MOVE: run Linux 6.8 or "
					     "later for device memory");
	if (!err && !hmm->os_ctx[0].fork)
		err = error_say(-EPERM, "userfaultfd does not tell of forks here, so a child made by a "
					"raw clone() would read zeros in pages that are away: give "
					"CAP_SYS_PTRACE");
	if (!err && hmm->os_ctx[0].user_only)
		err = error_say(-EPERM, "userfaultfd does not deliver the kernel's own faults here, "
					"so read(2) into a page that is away would fail: give "
					"CAP_SYS_PTRACE, access to /dev/userfaultfd, or sysctl "
					"vm.unprivileged_userfaultfd=1");
	return err;
}

/* A struct that ended, else a new one. What another thread still reads of it is an owner. */
static struct hmm_devmem *take_slot(struct hmm *hmm)
{
	struct pager *pager = hmm->pager;

	for (unsigned i = 0; i < DEVMEMS; i++) {
		struct hmm_devmem *devmem = pager->devmem[i], *none = NULL;
		bool ended = true;

		if (devmem && atomic_compare_exchange_strong(&devmem->ended, &ended, false))
			return devmem;
		if (devmem)
			continue;
		devmem = arena_alloc(hmm->arena, sizeof(*devmem));
		if (!devmem)
			return error_say(-ENOMEM, "no memory for a devmem"), NULL;
		devmem->id = i;
		devmem->hmm = hmm;
		if (atomic_compare_exchange_strong(&pager->devmem[i], &none, devmem))
			return devmem;
		arena_free(hmm->arena, devmem, sizeof(*devmem));
	}
	return error_say(-ENOSPC, "there are %u devmems already", DEVMEMS), NULL;
}

static void fill(struct hmm_devmem *devmem, const struct hmm_devmem_options *options,
		 const struct hmm_devmem_ops *ops, void *priv)
{
	devmem->options = *options;
	devmem->ops = *ops;
	/* Static data of the driver's library never move (hmm.h). */
	devmem->hmm->os->critical_add((const void *)(uintptr_t)ops->to_host);
	devmem->priv = priv;
	devmem->lost = devmem->ending = false;
	devmem->in_use = devmem->hint = devmem->lost_said = 0;
	memset(&devmem->count, 0, sizeof(devmem->count));
	if (!devmem->options.limit)
		devmem->options.limit = options->frames;
	if (!devmem->options.timeout_ms)
		devmem->options.timeout_ms = TIMEOUT_MS;
}

int hmm_devmem_create(struct hmm *hmm, const struct hmm_devmem_options *options,
		      const struct hmm_devmem_ops *ops, void *priv, struct hmm_devmem **out)
{
	struct hmm_devmem *devmem;
	int err = check_create(hmm, options, ops, out);

	if (err)
		return err;
	err = pager_need(hmm);
	if (err)
		return error_say(err, "no memory for moving pages");
	devmem = take_slot(hmm);
	if (!devmem)
		return error_last();
	fill(devmem, options, ops, priv);
	if (frames_init(devmem)) {
		frames_destroy(devmem);
		devmem->ended = true;
		return error_say(-ENOMEM, "no memory for the frames");
	}
	hmm_get(hmm);
	*out = devmem;
	return 0;
}

static void regions_unmap(struct hmm_devmem *devmem)
{
	size_t size = frames_region(devmem);
	struct hmm *hmm = devmem->hmm;

	for (unsigned i = 0; i < CONTEXTS; i++)
		if (devmem->region[i]) {
			hmm->os->ctx_unregister(&hmm->os_ctx[i], devmem->region[i],
						devmem->region[i] + size);
			hmm->os->region_unmap((void *)devmem->region[i], size);
			devmem->region[i] = 0;
		}
}

void hmm_devmem_destroy(struct hmm_devmem *devmem)
{
	struct request r = { .kind = REQUEST_HOME, .devmem = devmem, .end = UINTPTR_MAX };
	struct hmm *hmm;

	if (!devmem)
		return;
	hmm = devmem->hmm;
	if (hmm->pid != hmm_pid()) /* a forked child: it was the parent's */
		return;
	devmem->ending = true;
	for (uint64_t f = 0; f < devmem->options.frames; f++) {
		devmem->frame[f].locked = 0;
		devmem->frame[f].held = 0;
	}
	r.deadline = hmm->os->now() + HOME_NS;
	if (request_do(hmm, &r)) {
		devmem->lost = true;
		hmm_log(HMM_LOG_ERROR, "pages of a devmem did not come home: touching them is SIGBUS");
		r.deadline = 0;
		request_do(hmm, &r);
	}
	r = (struct request){ .kind = REQUEST_DRAIN, .devmem = devmem };
	request_do(hmm, &r);
	transfers_release(devmem);
	regions_unmap(devmem);
	frames_destroy(devmem);
	devmem->ended = true;
	hmm_put(hmm);
}

unsigned hmm_devmem_id(const struct hmm_devmem *devmem)
{
	return devmem->id;
}

void *hmm_devmem_host(const struct hmm_devmem *devmem, uint64_t frame)
{
	if (!devmem->options.host_frames || !frame_is_used(devmem, frame))
		return NULL;
	return (void *)frame_host(devmem, frame);
}

void hmm_devmem_lost(struct hmm_devmem *devmem)
{
	if (!devmem)
		return;
	devmem->lost = true;
	devmem->hmm->os->reader_nudge(devmem->hmm->os_ctx);
}

void hmm_devmem_frame_get(struct hmm_devmem *devmem, uint64_t frame)
{
	if (frame < devmem->options.frames)
		atomic_fetch_add(&devmem->frame[frame].held, 1);
}

void hmm_devmem_frame_put(struct hmm_devmem *devmem, uint64_t frame)
{
	if (frame < devmem->options.frames && devmem->frame[frame].held)
		atomic_fetch_sub(&devmem->frame[frame].held, 1);
}

unsigned hmm_devmem_frames(struct hmm_devmem *devmem, uint64_t *frames, unsigned n)
{
	return devmem && frames ? frames_take(devmem, frames, n, 0) : 0;
}

void hmm_devmem_frames_free(struct hmm_devmem *devmem, const uint64_t *frames, unsigned n)
{
	for (unsigned i = 0; devmem && frames && i < n; i++)
		if (frame_is_used(devmem, frames[i]) && !devmem->frame[frames[i]].addr)
			frames_give(devmem, frames[i], 1);
}

void hmm_devmem_get_stats(const struct hmm_devmem *devmem, struct hmm_devmem_stats *stats)
{
	struct hmm_devmem_stats all = {
		.frames = devmem->options.frames,
		.in_use = devmem->in_use,
		.in_use_max = devmem->count.in_use_max,
		.to_device = devmem->count.to_device,
		.to_host = devmem->count.to_host,
		.cpu_faults = devmem->count.cpu_faults,
		.cpu_fault_pages = devmem->count.cpu_fault_pages,
		.dropped = devmem->count.dropped,
		.declined = devmem->count.declined,
		.failed = devmem->count.failed,
		.lost = devmem->count.lost,
		.timesliced = devmem->count.timesliced,
	};
	size_t size = stats->size < sizeof(all) ? stats->size : sizeof(all);

	all.size = size;
	memcpy(stats, &all, size);
}
