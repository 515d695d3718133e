/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * device - a driver for the unit tests: a page table that remembers what it looked at.
 *
 * An entry holds the identity that the page had when the library scanned it. What a fence
 * promises (G1) can then be checked: device_floor() before the fence, device_judge() after.
 */
#ifndef UHMM_TESTS_DEVICE_H
#define UHMM_TESTS_DEVICE_H

#include "fake_os.h"

struct device_entry {
	bool valid, write;
	uint64_t identity;
	uint64_t stamp;	 /* fake.stamp when it was installed */
};

struct device {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	pthread_mutex_t lock; /* the driver's update lock */
	struct device_entry entry[FAKE_PAGES];
	_Atomic unsigned events[HMM_EVENT_MIGRATE + 1];
	unsigned released;
	struct hmm_event last;
	/* Called in the callback, after the entries are cleared. May be NULL. */
	void (*_Atomic inside)(struct device *device, const struct hmm_event *event);
	void *arg;
};

/* Watch pages [page, page + n); n 0: everything. */
void device_open(struct device *device, struct hmm *hmm, unsigned page, unsigned n);
void device_close(struct device *device);
/* hmm_range_program() of some pages. */
int device_fault(struct device *device, unsigned page, unsigned n, bool write);
/* Only what is present. */
int device_snapshot(struct device *device, unsigned page, unsigned n);
unsigned device_told(const struct device *device);

/* What was true of each page at some moment. */
struct device_floor {
	uint64_t stamp;
	struct {
		bool mapped;
		int prot;
		uint64_t identity;
	} page[FAKE_PAGES];
};

void device_floor(struct device_floor *floor);
/* Does an entry translate what was over at the floor? The page, or -1. */
int device_stale(const struct device *device, const struct device_floor *floor);
/* floor, hmm_notifier_fence(), stale: G1. Fails the test. */
void device_fence_is_sound(struct device *device);

#endif
