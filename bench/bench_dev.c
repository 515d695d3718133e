// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * bench_dev - the least that a driver does, so that what is measured is the library:
 * a page table, cleared by invalidate, filled by hmm_range_program().
 */
#include <errno.h>

#include "bench.h"

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct bench_dev *dev = priv;

	if (event->kind == HMM_EVENT_FORK)
		return; /* what an address reads is unchanged */
	pthread_mutex_lock(&dev->lock);
	uhmm_ptable_clear(&dev->table, event->start, event->end);
	pthread_mutex_unlock(&dev->lock);
}

static const struct hmm_notifier_ops dev_ops = {
	.size = sizeof(dev_ops),
	.invalidate = invalidate,
};

int bench_dev_open(struct bench_dev *dev)
{
	int err;

	*dev = (struct bench_dev){ .lock = PTHREAD_MUTEX_INITIALIZER };
	err = uhmm_ptable_init(&dev->table);
	if (err)
		return err;
	err = hmm_open(&dev->hmm);
	if (err)
		goto destroy;
	err = hmm_notifier_insert(dev->hmm, 0, UINTPTR_MAX, &dev_ops, dev, &dev->notifier);
	if (!err)
		return 0;
	hmm_put(dev->hmm);
destroy:
	uhmm_ptable_destroy(&dev->table);
	return err;
}

void bench_dev_close(struct bench_dev *dev)
{
	hmm_notifier_remove(dev->notifier);
	hmm_put(dev->hmm);
	uhmm_ptable_destroy(&dev->table);
	pthread_mutex_destroy(&dev->lock);
}

static int program(const struct hmm_range *range, void *arg)
{
	struct bench_dev *dev = arg;
	size_t pages = (range->end - range->start) / BENCH_PAGE;
	int err = 0;

	for (size_t i = 0; i < pages && !err; i++)
		err = uhmm_ptable_set(&dev->table, range->start + i * BENCH_PAGE,
				      range->pfns[i]);
	return err;
}

int bench_dev_fault(struct bench_dev *dev, const void *memory, size_t pages, bool write)
{
	uint64_t pfns[BENCH_WINDOW] = { 0 };
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = dev->hmm,
		.notifier = dev->notifier,
		.start = (uintptr_t)memory,
		.pfns = pfns,
		.default_flags = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0),
	};
	int err = 0;

	while (pages && !err) {
		size_t now = pages < BENCH_WINDOW ? pages : BENCH_WINDOW;

		range.end = range.start + now * BENCH_PAGE;
		err = hmm_range_program(&range, 0, &dev->lock, program, dev);
		range.start = range.end;
		pages -= now;
	}
	return err;
}
