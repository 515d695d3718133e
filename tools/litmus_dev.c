// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_dev - a device that pins: the strictest user of the public interface.
 *
 * A device that reads through the program's own addresses cannot see old data: whatever it
 * is late with, the CPU's page table is not. What it can be late with is the translation. A
 * device that keeps the frame (a DMA engine, a memory registration) does read old data
 * then. This one models it without a frame: on a fault it stores what the page holds, and
 * later answers from that store without looking at memory. A stale translation is then a
 * wrong number, and can be counted.
 *
 * Laws:
 * - The entry of a page is its first 8 bytes, shifted over the ENTRY_ bits. It is read
 *   between read_begin and read_retry, so G2 covers it as it covers the pfns.
 * - A lookup fences (hmm_fence, G1, G3) and then trusts the table.
 * - invalidate clears under the lock and returns: no entry of the range is used after (G4).
 *   FORK is treated like the rest: a pin keeps the page, and after a fork the one who
 * writes first gets another.
 *
 * The naive device is broken on purpose, in the order that every notifier has which reads
 * its events first and acts on them then: invalidate only queues the range, another thread
 * applies it, and lookups do not fence. It is what the count must be able to see.
 */
#include <errno.h>
#include <stdlib.h>

#include "common.h"
#include "litmus.h"

#define ENTRY_VALID (UINT64_C(1) << 0)
#define ENTRY_WRITE (UINT64_C(1) << 1)
#define ENTRY_DURING (UINT64_C(1) << 2) /* read while a change was going on */
#define ENTRY_SHIFT 3

struct late {
	uintptr_t start, end;
	struct late *next;
};

struct litmus_dev {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	pthread_mutex_t lock; /* the update lock: protects writes of table */
	struct uhmm_ptable table;
	atomic_uint changes; /* odd: a change is going on */
	bool naive;

	pthread_t applier;	   /* has work only in a naive device; so has all below */
	pthread_mutex_t late_lock; /* protects late*, applying, quit; inside no other */
	pthread_cond_t late_more, late_none;
	struct late *late_first, **late_last;
	bool applying, quit;
};

static void drop(struct litmus_dev *dev, uintptr_t start, uintptr_t end)
{
	pthread_mutex_lock(&dev->lock);
	uhmm_ptable_clear(&dev->table, start, end);
	pthread_mutex_unlock(&dev->lock);
}

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct litmus_dev *dev = priv;
	struct late *late;

	if (!dev->naive) {
		drop(dev, event->start, event->end);
		return;
	}
	late = tool_alloc(sizeof(*late));
	*late = (struct late){ .start = event->start, .end = event->end };
	pthread_mutex_lock(&dev->late_lock);
	*dev->late_last = late;
	dev->late_last = &late->next;
	pthread_cond_signal(&dev->late_more);
	pthread_mutex_unlock(&dev->late_lock);
}

static const struct hmm_notifier_ops dev_ops = {
	.size = sizeof(dev_ops),
	.invalidate = invalidate,
};

static void *apply(void *arg)
{
	struct litmus_dev *dev = arg;
	struct late *late;

	pthread_mutex_lock(&dev->late_lock);
	for (;;) {
		while (!dev->late_first && !dev->quit)
			pthread_cond_wait(&dev->late_more, &dev->late_lock);
		late = dev->late_first;
		if (!late)
			break;
		dev->late_first = late->next;
		if (!dev->late_first)
			dev->late_last = &dev->late_first;
		dev->applying = true;
		pthread_mutex_unlock(&dev->late_lock);
		drop(dev, late->start, late->end);
		free(late);
		pthread_mutex_lock(&dev->late_lock);
		dev->applying = false;
		if (!dev->late_first)
			pthread_cond_broadcast(&dev->late_none);
	}
	pthread_mutex_unlock(&dev->late_lock);
	return NULL;
}

static void stop_applier(struct litmus_dev *dev)
{
	pthread_mutex_lock(&dev->late_lock);
	dev->quit = true;
	pthread_cond_signal(&dev->late_more);
	pthread_mutex_unlock(&dev->late_lock);
	pthread_join(dev->applier, NULL);
}

int litmus_dev_open(bool naive, struct litmus_dev **out)
{
	struct litmus_dev *dev = tool_alloc(sizeof(*dev));
	int err;

	dev->naive = naive;
	dev->late_last = &dev->late_first;
	pthread_mutex_init(&dev->lock, NULL);
	pthread_mutex_init(&dev->late_lock, NULL);
	pthread_cond_init(&dev->late_more, NULL);
	pthread_cond_init(&dev->late_none, NULL);
	err = uhmm_ptable_init(&dev->table);
	if (err)
		goto free_dev;
	err = hmm_open(&dev->hmm);
	if (err)
		goto free_table;
	err = -pthread_create(&dev->applier, NULL, apply, dev);
	if (err)
		goto put;
	err = hmm_notifier_insert(dev->hmm, 0, UINTPTR_MAX, &dev_ops, dev, &dev->notifier);
	if (!err) {
		*out = dev;
		return 0;
	}
	stop_applier(dev);
put:
	hmm_put(dev->hmm);
free_table:
	uhmm_ptable_destroy(&dev->table);
free_dev:
	free(dev);
	return err;
}

void litmus_dev_close(struct litmus_dev *dev)
{
	if (!dev)
		return;
	hmm_notifier_remove(dev->notifier);
	stop_applier(dev);
	hmm_put(dev->hmm);
	uhmm_ptable_destroy(&dev->table);
	pthread_cond_destroy(&dev->late_more);
	pthread_cond_destroy(&dev->late_none);
	pthread_mutex_destroy(&dev->late_lock);
	pthread_mutex_destroy(&dev->lock);
	free(dev);
}

struct hmm *litmus_dev_hmm(struct litmus_dev *dev)
{
	return dev->hmm;
}

/* One way through the loop. 1: what was read is stale, begin again. */
static int fill_once(struct litmus_dev *dev, struct hmm_range *range, uint64_t *entry)
{
	unsigned begun, ended;
	uint64_t content;
	int err;

	begun = atomic_load(&dev->changes);
	*range->pfns = 0;
	err = hmm_notifier_read_begin(range);
	if (err)
		return err;
	err = hmm_range_fault(range);
	if (err)
		return err == -EBUSY ? 1 : err;
	err = hmm_copy_from(dev->hmm, &content, range->start, sizeof(content));
	ended = atomic_load(&dev->changes);

	pthread_mutex_lock(&dev->lock);
	/* A copy that fails on a page just faulted means that a change is on its way. */
	if (hmm_notifier_read_retry(range) || err == -EFAULT) {
		err = 1;
	} else if (!err) {
		*entry = content << ENTRY_SHIFT | ENTRY_VALID;
		if (*range->pfns & HMM_PFN_WRITE)
			*entry |= ENTRY_WRITE;
		if ((begun & 1) || begun != ended)
			*entry |= ENTRY_DURING;
		err = uhmm_ptable_set(&dev->table, range->start, *entry);
	}
	pthread_mutex_unlock(&dev->lock);
	return err;
}

/*
 * The documented loop of hmm.h (A13, B5), written out. hmm_range_program() is that loop,
 * but this device must read the page's content in the middle of it, where the sequence
 * covers it.
 */
static int fill(struct litmus_dev *dev, uintptr_t page, uint64_t request, uint64_t *entry)
{
	uint64_t pfn, deadline = tool_now() + HMM_RANGE_DEFAULT_TIMEOUT * UINT64_C(1000000);
	struct hmm_range range = {
		.size = sizeof(range),
		.hmm = dev->hmm,
		.notifier = dev->notifier,
		.start = page,
		.end = page + LITMUS_PAGE,
		.pfns = &pfn,
		.default_flags = request,
	};
	int err;

	do {
		err = fill_once(dev, &range, entry);
	} while (err == 1 && tool_now() < deadline);
	return err == 1 ? -EBUSY : err;
}

static int translate(struct litmus_dev *dev, const void *addr, bool write, uint64_t *entry)
{
	uintptr_t page = (uintptr_t)addr & ~(LITMUS_PAGE - 1);
	uint64_t need = write ? ENTRY_VALID | ENTRY_WRITE : ENTRY_VALID;
	int err;

	if (!dev->naive) {
		err = hmm_fence(dev->hmm, page, LITMUS_PAGE);
		if (err)
			return err;
	}
	*entry = uhmm_ptable_lookup(&dev->table, page);
	if ((*entry & need) == need)
		return 0;
	return fill(dev, page, HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0), entry);
}

int litmus_dev_read_when(struct litmus_dev *dev, const void *addr, uint64_t *value,
			 bool *during)
{
	uint64_t entry;
	int err = translate(dev, addr, false, &entry);

	if (!err) {
		*value = entry >> ENTRY_SHIFT;
		*during = entry & ENTRY_DURING;
	}
	return err;
}

int litmus_dev_read(struct litmus_dev *dev, const void *addr, uint64_t *value)
{
	bool during;

	return litmus_dev_read_when(dev, addr, value, &during);
}

int litmus_dev_write(struct litmus_dev *dev, const void *addr)
{
	uint64_t entry;

	return translate(dev, addr, true, &entry);
}

int litmus_dev_settle(struct litmus_dev *dev)
{
	int err = hmm_notifier_fence(dev->notifier);

	pthread_mutex_lock(&dev->late_lock);
	while (dev->late_first || dev->applying)
		pthread_cond_wait(&dev->late_none, &dev->late_lock);
	pthread_mutex_unlock(&dev->late_lock);
	return err;
}

void litmus_dev_forget(struct litmus_dev *dev, const void *addr)
{
	drop(dev, (uintptr_t)addr, (uintptr_t)addr + 1);
}

void litmus_dev_change(struct litmus_dev *dev)
{
	atomic_fetch_add(&dev->changes, 1);
}
