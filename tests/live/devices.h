/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices - every driver behind one table, so that each case runs on each.
 */
#ifndef LIVE_DEVICES_H
#define LIVE_DEVICES_H

#include <stddef.h>
#include <stdint.h>

#include <uhmm/hmm.h>

#include "live.h"

/* An open device. */
struct device {
	const struct driver *driver;
	void *priv;
	struct hmm *hmm; /* a reference of our own, for fences */
	bool fleeting;	 /* a translation need not outlive its access */
	bool memory;	 /* of its own, which not everybody may have */
};

struct driver {
	const char *name;
	int (*open)(struct device *dev);
	void (*close)(struct device *dev);
	int (*read)(struct device *dev, void *dst, const void *src, size_t length);
	int (*write)(struct device *dev, void *dst, const void *src, size_t length);
	uint64_t (*lookup)(const struct device *dev, const void *addr);
	/* A translation older than now is stale in that range; and how often one was used.
	 */
	void (*mark)(struct device *dev, const void *start, size_t length);
	uint64_t (*stale)(struct device *dev);
	/* Why this machine has none, or NULL; may be NULL: it always has. */
	const char *(*absent)(void);
	const char *no_fork; /* why a child can have none, or NULL */
	/* It must be told which memory it is to reach, or that cannot be; may be NULL. */
	enum verdict (*take)(struct device *dev, void *start, size_t length);
};

extern const struct driver live_drivers[];
extern const unsigned live_driver_count;

/* For who has no count of its own. */
void device_no_mark(struct device *dev, const void *start, size_t length);
uint64_t device_no_stale(struct device *dev);

int device_open(const struct driver *driver, struct device *dev);
void device_close(struct device *dev);

static inline int device_read(struct device *dev, void *dst, const void *src, size_t length)
{
	return dev->driver->read(dev, dst, src, length);
}

static inline int device_write(struct device *dev, void *dst, const void *src,
			       size_t length)
{
	return dev->driver->write(dev, dst, src, length);
}

static inline uint64_t device_lookup(const struct device *dev, const void *addr)
{
	return dev->driver->lookup(dev, addr);
}

/* One byte; -errno if it cannot be read. */
int device_byte(struct device *dev, const void *addr);
/* hmm_fence() of the range. */
int device_fence(struct device *dev, const void *start, size_t length);

#endif
