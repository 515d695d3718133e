/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * kinds - the kinds of memory, and an area of each with a model beside it.
 *
 * The model says what every byte of the area is and how each unit may be used. An
 * operation changes the area and the model; area_agrees() then compares CPU, device
 * and model.
 */
#ifndef LIVE_KINDS_H
#define LIVE_KINDS_H

#include "devices.h"
#include "live.h"

#define KIND_SHARED (1u << 0)  /* MAP_SHARED: stores are seen by other processes */
#define KIND_FILE (1u << 1)    /* has a descriptor to truncate and punch */
#define KIND_HUGETLB (1u << 2) /* pages of 2 MiB */
#define KIND_STACK (1u << 3)   /* a thread runs on it */
#define KIND_OBJECT (1u << 4)  /* shared memory that ends where the mapping ends */

#define UNITS_MAX 1024u

enum access { NONE = '-', READ = 'r', WRITE = 'w' };

struct area {
	const struct kind *kind;
	char *at;
	size_t unit, length; /* the smallest piece that can be unmapped; of the whole */
	int fd;		     /* KIND_FILE; else -1 */
	char access[UNITS_MAX];
	unsigned char *model;	/* of twice the length, for what grows */
	unsigned char *backing; /* what a private page falls back to; NULL: zeros */
	void *priv;		/* the kind's own */
};

struct kind {
	const char *name;
	unsigned flags;
	enum verdict (*make)(struct area *area);
	void (*dispose)(struct area *area);
};

extern const struct kind live_kinds[];
extern const unsigned live_kind_count;

/* A piece of the main thread's stack, page aligned, for the kind "stack". */
#define STACK_BYTES ((size_t)64 << 10)
void kinds_give_stack(char *buffer);
/* Take huge pages from the system; kinds_end() gives them back. Needs root. */
void kinds_begin(void);
void kinds_end(void);

/* Areas have four small pages from now on, as few as will do; for a slow device. */
void kinds_be_small(void);

enum verdict area_make(struct area *area, const struct kind *kind);
void area_dispose(struct area *area);

static inline unsigned area_units(const struct area *area)
{
	return (unsigned)(area->length / area->unit);
}

/* The device takes translations of everything that it may. */
enum verdict area_warm(struct area *area, struct device *dev);
/*
 * After a change of units [from, to), before the device's next access: older
 * translations count as stale from here (gpu), and after a fence none is left.
 */
enum verdict area_gone(struct area *area, struct device *dev, unsigned from, unsigned to);
/* CPU, device and model say the same, reading and writing. */
enum verdict area_agrees(struct area *area, struct device *dev);
/* Set the model of units [from, to): bytes to zero, or to what is behind. */
void area_model_zero(struct area *area, unsigned from, unsigned to);
void area_model_backing(struct area *area, unsigned from, unsigned to);
void area_model_access(struct area *area, unsigned from, unsigned to, enum access access);

#endif
