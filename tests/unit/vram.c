/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * vram - the driver of vram.h.
 */
#include "vram.h"

#include <errno.h>
#include <string.h>

#define OPEN 4u

static struct vram *open_ones[OPEN];

static void forget(struct vram *v, uintptr_t start, uintptr_t end)
{
	uintptr_t lo = start > FAKE_BASE ? start : FAKE_BASE;
	uintptr_t hi = end < fake_addr(FAKE_PAGES) ? end : fake_addr(FAKE_PAGES);

	if (lo < hi)
		memset(&v->entry[fake_number(lo)], 0,
		       (fake_number(hi) - fake_number(lo)) * sizeof(v->entry[0]));
}

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct vram *v = priv;

	pthread_mutex_lock(&v->lock);
	v->events[event->kind]++;
	if (event->kind != HMM_EVENT_FORK)
		forget(v, event->start, event->end);
	pthread_mutex_unlock(&v->lock);
}

static bool in_table(const struct vram *v, uint64_t frame)
{
	for (unsigned i = 0; i < fake.pages; i++)
		if (v->entry[i].valid && v->entry[i].device && v->entry[i].frame == frame)
			return true;
	return false;
}

static void must_be_unused(const struct vram *v, uint64_t frame, const char *when)
{
	if (in_table(v, frame))
		fake_fail("frame %u is %s while the device uses it", (unsigned)frame, when);
}

static int frame_alloc(void *priv, uint64_t frame)
{
	struct vram *v = priv;

	if (v->declines[frame])
		return -ENOSPC;
	pthread_mutex_lock(&v->lock);
	if (v->used[frame])
		fake_fail("frame %u is given twice", (unsigned)frame);
	must_be_unused(v, frame, "given");
	v->used[frame] = true;
	pthread_mutex_unlock(&v->lock);
	return 0;
}

static void frame_free(void *priv, uint64_t frame)
{
	struct vram *v = priv;

	pthread_mutex_lock(&v->lock);
	if (!v->used[frame])
		fake_fail("frame %u is freed twice", (unsigned)frame);
	must_be_unused(v, frame, "freed");
	v->used[frame] = false;
	v->frame[frame] = 0xdead0000 + frame;
	pthread_mutex_unlock(&v->lock);
}

static void copy_out(struct vram *v, struct hmm_devmem_copy *copy)
{
	must_be_unused(v, copy->frame, "written to");
	v->frame[copy->frame] = copy->host ? fake_load((uintptr_t)copy->host) : 0;
}

static void copy_home(struct vram *v, struct hmm_devmem_copy *copy)
{
	for (unsigned i = 0; i < fake.pages; i++)
		if (v->entry[i].device && v->entry[i].frame == copy->frame)
			v->entry[i].valid = false;
	if (copy->host)
		fake_store((uintptr_t)copy->host, v->frame[copy->frame]);
}

static void finish(struct vram *v, const struct vram_job *job)
{
	int err = v->dead ? -EIO : v->fail;

	v->fail = 0;
	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < job->n && !err; i++) {
		struct hmm_devmem_copy *copy = &job->copies[i];

		if (!v->used[copy->frame])
			fake_fail("frame %u is copied and not in use", (unsigned)copy->frame);
		if (v->fail_addr && v->fail_addr == copy->addr)
			copy->err = v->fail_err;
		else if (job->out)
			copy_out(v, copy);
		else
			copy_home(v, copy);
	}
	pthread_mutex_unlock(&v->lock);
	hmm_devmem_done(job->transfer, err);
}

/*
 * The start of a transfer stops the device already: an engine may be slow, a device that goes
 * on storing to a frame that was copied loses what it stores.
 */
static void start(struct vram *v, const struct vram_job *job)
{
	fake_point(FAKE_OP_DRIVER, FAKE_BEFORE, job->out);
	if (!job->out) {
		pthread_mutex_lock(&v->lock);
		for (unsigned i = 0; i < job->n; i++)
			for (unsigned k = 0; k < fake.pages; k++)
				if (v->entry[k].device && v->entry[k].frame == job->copies[i].frame)
					v->entry[k].valid = false;
		pthread_mutex_unlock(&v->lock);
	}
	if (!v->late && !v->defer) {
		finish(v, job);
	} else {
		if (v->jobs == VRAM_JOBS)
			fake_fail("more than %u transfers", VRAM_JOBS);
		v->job[v->jobs++] = *job;
	}
	fake_point(FAKE_OP_DRIVER, FAKE_AFTER, job->out);
}

static void to_device(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		      struct hmm_transfer *transfer)
{
	struct vram *v = priv;

	v->outs++;
	start(v, &(struct vram_job){ copies, n, transfer, true });
}

static void to_host(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		    struct hmm_transfer *transfer)
{
	struct vram *v = priv;

	v->homes++;
	start(v, &(struct vram_job){ copies, n, transfer, false });
}

bool vram_engine(struct vram *v)
{
	struct vram_job job;

	if (!v->jobs)
		return false;
	job = v->job[0];
	v->jobs--;
	memmove(v->job, v->job + 1, v->jobs * sizeof(job));
	finish(v, &job);
	return true;
}

bool vram_engines(void *arg)
{
	bool did = false;

	for (unsigned i = 0; i < OPEN; i++)
		if (open_ones[i] && !open_ones[i]->defer)
			did |= vram_engine(open_ones[i]);
	return did;
}

static const struct hmm_notifier_ops notifier_ops = { sizeof(notifier_ops), invalidate, NULL };
static const struct hmm_devmem_ops copying = { sizeof(copying), to_device, to_host, frame_alloc,
					       frame_free };
static const struct hmm_devmem_ops hosted = { sizeof(hosted), NULL, to_host, frame_alloc,
					      frame_free };

int vram_try_open(struct vram *v, struct hmm *hmm, const struct hmm_devmem_options *options)
{
	unsigned slot = 0;
	int err;

	memset(v, 0, sizeof(*v));
	v->hmm = hmm;
	v->options = (struct hmm_devmem_options){ .type = HMM_DEVMEM_PRIVATE,
						  .frames = VRAM_FRAMES };
	if (options)
		v->options = *options;
	v->options.size = sizeof(v->options);
	if (!v->options.owner)
		v->options.owner = v;
	pthread_mutex_init(&v->lock, NULL);
	err = hmm_devmem_create(hmm, &v->options, v->options.host_frames ? &hosted : &copying, v,
				&v->devmem);
	if (err)
		return err;
	err = hmm_notifier_insert(hmm, 0, UINTPTR_MAX, &notifier_ops, v, &v->notifier);
	if (err)
		fake_fail("notifier: %s", hmm_strerror(err));
	if (!fake.engine) /* a new world */
		memset(open_ones, 0, sizeof(open_ones));
	while (slot < OPEN && open_ones[slot])
		slot++;
	if (slot == OPEN)
		fake_fail("more than %u drivers", OPEN);
	open_ones[slot] = v;
	fake.engine = vram_engines;
	return 0;
}

void vram_open(struct vram *v, struct hmm *hmm, const struct hmm_devmem_options *options)
{
	int err = vram_try_open(v, hmm, options);

	if (err)
		fake_fail("devmem: %s", hmm_strerror(err));
}

unsigned vram_used(const struct vram *v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < VRAM_FRAMES; i++)
		n += v->used[i];
	return n;
}

void vram_close(struct vram *v)
{
	v->defer = false;
	hmm_devmem_destroy(v->devmem);
	v->devmem = NULL;
	if (vram_used(v))
		fake_fail("%u frames are left", vram_used(v));
	hmm_notifier_remove(v->notifier);
	pthread_mutex_destroy(&v->lock);
	for (unsigned i = 0; i < OPEN; i++)
		if (open_ones[i] == v)
			open_ones[i] = NULL;
}

/* ---- what its threads do ---- */

static int program(const struct hmm_range *range, void *arg)
{
	struct vram *v = arg;

	for (uintptr_t at = range->start; at < range->end; at += PAGE) {
		uint64_t pfn = range->pfns[(at - range->start) / PAGE];
		struct vram_entry *e = &v->entry[fake_number(at)];

		*e = (struct vram_entry){ .valid = pfn & HMM_PFN_VALID,
					  .write = pfn & HMM_PFN_WRITE,
					  .device = hmm_pfn_is_device(pfn) };
		if (!e->device)
			continue;
		e->frame = hmm_pfn_frame(pfn);
		if (hmm_pfn_devmem(pfn) != hmm_devmem_id(v->devmem))
			fake_fail("page %u is answered as a frame of another devmem",
				  fake_number(at));
		if (e->frame >= VRAM_FRAMES || !v->used[e->frame])
			fake_fail("page %u is answered as frame %u, which is free",
				  fake_number(at), (unsigned)e->frame);
	}
	return 0;
}

static int run(struct vram *v, unsigned page, unsigned n, uint64_t flags)
{
	uint64_t pfns[512] = { 0 };
	struct hmm_range range = { .size = sizeof(range), .hmm = v->hmm, .notifier = v->notifier,
				   .start = fake_addr(page), .end = fake_addr(page + n),
				   .pfns = pfns, .owner = v->options.owner,
				   .default_flags = flags };

	return hmm_range_program(&range, 10, &v->lock, program, v);
}

int vram_program(struct vram *v, unsigned page, unsigned n, bool write)
{
	return run(v, page, n, HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0));
}

int vram_look(struct vram *v, unsigned page, unsigned n)
{
	return run(v, page, n, 0);
}

static struct vram_entry *entry_for(struct vram *v, unsigned page, bool write)
{
	struct vram_entry *e = &v->entry[page];
	int err = 0;

	if (!e->valid || (write && !e->write))
		err = vram_program(v, page, 1, write);
	if (err)
		fake_fail("the device cannot have page %u: %s", page, hmm_strerror(err));
	return e;
}

void vram_die(struct vram *v)
{
	v->dead = true;
	hmm_devmem_lost(v->devmem);
}

uint64_t vram_frame(struct vram *v, uint64_t frame)
{
	if (v->options.host_frames)
		return fake_load((uintptr_t)hmm_devmem_host(v->devmem, frame));
	return v->frame[frame];
}

uint64_t vram_read(struct vram *v, unsigned page)
{
	const struct vram_entry *e = entry_for(v, page, false);

	return e->device ? vram_frame(v, e->frame) : fake_read_page(page);
}

void vram_write(struct vram *v, unsigned page, uint64_t value)
{
	const struct vram_entry *e = entry_for(v, page, true);

	if (!e->device)
		fake_write_page(page, value);
	else if (v->options.host_frames)
		fake_store((uintptr_t)hmm_devmem_host(v->devmem, e->frame), value);
	else
		v->frame[e->frame] = value;
}

struct hmm_devmem_stats vram_stats(const struct vram *v)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };

	hmm_devmem_get_stats(v->devmem, &stats);
	return stats;
}
