/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* ops - what a program does to mirrored memory. */
#ifndef LIVE_OPS_H
#define LIVE_OPS_H

#include "kinds.h"

struct op {
	const char *name;
	/* Why this cannot be done to that kind, or NULL. */
	const char *(*cannot)(const struct kind *kind);
	/* The area is warm. PASS leaves it consistent with its model. */
	enum verdict (*run)(struct area *area, struct device *dev);
};

extern const struct op live_ops[];
extern const unsigned live_op_count;

/* ops_file.c */
enum verdict op_truncate(struct area *area, struct device *dev);
enum verdict op_punch(struct area *area, struct device *dev);
enum verdict op_remove(struct area *area, struct device *dev);
/* ops_fork.c */
enum verdict op_fork(struct area *area, struct device *dev);

#endif
