/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * device - the driver of device.h.
 */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct device *device = priv;
	void (*inside)(struct device *, const struct hmm_event *);
	uintptr_t start = event->start > FAKE_BASE ? event->start : FAKE_BASE;
	uintptr_t end = event->end < fake_addr(FAKE_PAGES) ? event->end : fake_addr(FAKE_PAGES);

	pthread_mutex_lock(&device->lock);
	device->events[event->kind]++;
	device->last = *event;
	if (start < end && event->kind != HMM_EVENT_FORK)
		memset(&device->entry[fake_number(start)], 0,
		       (fake_number(end) - fake_number(start)) * sizeof(device->entry[0]));
	pthread_mutex_unlock(&device->lock);
	inside = device->inside;
	if (inside)
		inside(device, event);
}

static void release(void *priv)
{
	struct device *device = priv;

	device->released++;
}

static const struct hmm_notifier_ops ops = { sizeof(ops), invalidate, release };

void device_open(struct device *device, struct hmm *hmm, unsigned page, unsigned n)
{
	int err;

	memset(device, 0, sizeof(*device));
	device->hmm = hmm;
	pthread_mutex_init(&device->lock, NULL);
	err = hmm_notifier_insert(hmm, n ? fake_addr(page) : 0, n ? n * PAGE : UINTPTR_MAX, &ops,
				  device, &device->notifier);
	if (err)
		fake_fail("notifier: %s", hmm_strerror(err));
}

void device_close(struct device *device)
{
	hmm_notifier_remove(device->notifier);
	device->notifier = NULL;
	pthread_mutex_destroy(&device->lock);
}

static int program(const struct hmm_range *range, void *arg)
{
	unsigned first = fake_number(range->start), end = fake_number(range->end);
	struct device *device = arg;

	fake_lock();
	for (unsigned i = first; i < end; i++) {
		uint64_t pfn = range->pfns[i - first];

		device->entry[i] = (struct device_entry){
			.valid = pfn & HMM_PFN_VALID,
			.write = pfn & HMM_PFN_WRITE,
			.identity = fake.page[i].seen[fake.level],
			.stamp = fake.stamp,
		};
	}
	fake_unlock();
	return 0;
}

static int run(struct device *device, unsigned page, unsigned n, uint64_t flags)
{
	static __thread uint64_t pfns[2][FAKE_PAGES];
	struct hmm_range range = { .size = sizeof(range), .hmm = device->hmm,
				   .notifier = device->notifier, .start = fake_addr(page),
				   .end = fake_addr(page + n), .pfns = pfns[fake.level],
				   .default_flags = flags };

	memset(pfns[fake.level], 0, n * sizeof(pfns[0][0]));
	return hmm_range_program(&range, 0, &device->lock, program, device);
}

int device_fault(struct device *device, unsigned page, unsigned n, bool write)
{
	return run(device, page, n, HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0));
}

int device_snapshot(struct device *device, unsigned page, unsigned n)
{
	return run(device, page, n, 0);
}

unsigned device_told(const struct device *device)
{
	unsigned sum = 0;

	for (unsigned i = 0; i < HMM_EVENT_RELEASE; i++)
		sum += device->events[i];
	return sum;
}

void device_floor(struct device_floor *floor)
{
	fake_lock();
	floor->stamp = fake.stamp;
	for (unsigned i = 0; i < fake.pages; i++) {
		floor->page[i].mapped = fake.page[i].mapped;
		floor->page[i].prot = fake.page[i].prot;
		floor->page[i].identity = fake.page[i].identity;
	}
	fake_unlock();
}

static bool forbidden(const struct device_entry *e, int prot)
{
	return !(prot & PROT_READ) || (e->write && !(prot & PROT_WRITE));
}

/*
 * An entry that was installed after the floor is judged by the next one. Without perf the
 * library compares permissions: one that was taken and is given again by then it may miss,
 * and nobody can tell.
 */
static bool is_stale(const struct device_entry *e, const struct device_floor *floor, unsigned i)
{
	if (!e->valid || e->stamp > floor->stamp)
		return false;
	return e->identity < floor->page[i].identity || !floor->page[i].mapped ||
	       (forbidden(e, floor->page[i].prot) &&
		(!fake.no_perf || forbidden(e, fake.page[i].prot)));
}

int device_stale(const struct device *device, const struct device_floor *floor)
{
	int stale = -1;

	fake_lock();
	for (unsigned i = 0; i < fake.pages && stale < 0; i++)
		if (is_stale(&device->entry[i], floor, i))
			stale = (int)i;
	fake_unlock();
	return stale;
}

void device_fence_is_sound(struct device *device)
{
	static struct device_floor floor;
	int err;

	device_floor(&floor);
	err = hmm_notifier_fence(device->notifier);
	if (err)
		fake_fail("fence: %s", hmm_strerror(err));
	assert_int_equal(device_stale(device, &floor), -1);
}
