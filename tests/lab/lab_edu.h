/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* lab_edu - kinds of memory and what becomes of them, under a device that does DMA. */
#ifndef LAB_EDU_H
#define LAB_EDU_H

#include "lab.h"

#define EDU_AREA (4 * PAGE)

struct edu_area {
	char *at;
	size_t length;
	char *use; /* where the four pages are that are used */
	int fd;	   /* -1: none */
};

/* What the kernel says to a pin. */
enum edu_pin { PINNED, BOUNCED, BOUNCED_BY_TYPE1 };

struct edu_kind {
	const char *name;
	enum verdict (*make)(struct edu_area *area);
	enum edu_pin pin;      /* for writing */
	enum edu_pin read_pin; /* for reading, of what was not written to */
	bool file;	       /* what is written is in a->fd */
};

extern const struct edu_kind edu_kinds[];
extern const unsigned edu_kind_count;
enum verdict edu_area_make(struct edu_area *area, const struct edu_kind *kind);

/* One case: a kind, or a change; by a way. */
struct edu_case {
	enum edu_way way;
	const struct edu_kind *kind;
	const struct edu_change *change;
};
enum verdict edu_run_kind(const void *edu_case);
/* The device by the way of c, with EDU_* flags. */
enum verdict edu_open_way(const struct edu_case *c, unsigned flags, struct edu **dev);

struct edu_change {
	const char *name;
	enum verdict (*run)(const struct edu_case *c);
	const char *kind; /* for changes of files: of which; NULL: none */
};

/* edu_changes.c: of the memory; edu_device.c: of the device and who has it. */
extern const struct edu_change edu_changes[];
extern const unsigned edu_change_count;
extern const struct edu_change edu_devices[];
extern const unsigned edu_device_count;
/* edu_pins.c: what keeps a page */
extern const struct edu_change edu_pins[];
extern const unsigned edu_pin_count;

#endif
