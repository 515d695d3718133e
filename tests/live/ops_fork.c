/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ops_fork - parent and child each see their own bytes.
 *
 * The device writes to the parent's memory after the fork: private pages part
 * (copy on write), shared ones do not. The child is told -ENODEV by the parent's
 * handles, opens a device of its own and uses it.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "ops.h"

struct family {
	struct area *area;
	struct device *dev;
	int go[2]; /* the parent's device has written */
};

/* What the parent's device writes after the fork, and the child's. */
#define PARENT 201
#define CHILD 202

static enum verdict child(void *arg)
{
	struct family *f = arg;
	struct area *a = f->area;
	struct device own;
	unsigned char byte;

	EXPECT(-ENODEV, device_byte(f->dev, a->at));
	SYS(read(f->go[0], &byte, 1));
	if (a->access[0] == WRITE && a->kind->flags & KIND_SHARED)
		a->model[0] = PARENT;
	EXPECT(0, device_open(f->dev->driver, &own));
	TRY(area_agrees(a, &own));
	if (a->access[0] == WRITE) {
		byte = CHILD;
		EXPECT(0, device_write(&own, a->at + 1, &byte, 1));
		CHECK((unsigned char)a->at[1] == CHILD,
		      "the child does not see its device");
	}
	device_close(&own);
	return PASS;
}

/* Between fork and wait there must be no way out that leaves the child waiting. */
static enum verdict parent(struct family *f, pid_t pid)
{
	struct area *a = f->area;
	unsigned char byte = PARENT;
	int err = 0;

	if (pid && a->access[0] == WRITE)
		err = device_write(f->dev, a->at, &byte, 1);
	if (pid && write(f->go[1], &byte, 1) != 1)
		err = -errno;
	TRY(live_child_of(pid, child, f, 20));
	EXPECT(0, err);
	return PASS;
}

enum verdict op_fork(struct area *a, struct device *dev)
{
	struct family f = { .area = a, .dev = dev };

	SYS(pipe(f.go));
	live_child_prepare();
	TRY(parent(&f, fork()));
	close(f.go[0]);
	close(f.go[1]);
	if (a->access[0] == WRITE)
		a->model[0] = PARENT;
	/* The child's own checks wrote to memory that it shares with us. */
	if (a->access[0] == WRITE && a->kind->flags & KIND_SHARED) {
		CHECK((unsigned char)a->at[1] == CHILD, "the child's write is not seen");
		memcpy(a->model, a->at, a->length);
	}
	return area_agrees(a, dev);
}
