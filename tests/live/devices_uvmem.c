/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices_uvmem - see there. A handle is of one range for good, so an area that is elsewhere
 * now, or longer, gets a handle of its own.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uhmm/uvmem.h>

#include "devices_uvmem.h"

/* Shared pages are in none, and secret memory is dear to get. */
static const struct uvmem_options few = { .size = sizeof(few), .frames = 16 };

struct rig {
	struct uvmem *uv; /* NULL: no range yet */
	void *start;
	size_t length;
};

/* May this process have any? */
static int can_open(void)
{
	struct uvmem *uv;
	int err = uvmem_open(&few, &uv);

	if (!err)
		uvmem_close(uv);
	return err;
}

static int uvmem_device_open(struct device *dev)
{
	struct rig *rig = calloc(1, sizeof(*rig));

	dev->memory = true;
	dev->fleeting = true; /* shared pages are used where they are */
	dev->priv = rig;
	return rig ? can_open() : -ENOMEM;
}

static void let_go(struct rig *rig)
{
	uvmem_close(rig->uv);
	*rig = (struct rig){ .uv = NULL };
}

static void uvmem_device_close(struct device *dev)
{
	let_go(dev->priv);
	free(dev->priv);
}

static int share(struct rig *rig)
{
	int err = uvmem_open(&few, &rig->uv);

	if (!err)
		err = uvmem_init_start(rig->uv, rig->start, rig->length);
	if (!err)
		err = uvmem_init_done(rig->uv);
	return err ? err : uvmem_share(rig->uv, rig->start, rig->length);
}

/* Sharing discloses nothing, so pages are zeros then: their bytes are put back. */
static enum verdict uvmem_device_take(struct device *dev, void *start, size_t length)
{
	struct rig *rig = dev->priv;
	char *bytes;
	int err;

	if (rig->start == start && rig->length == length)
		return PASS;
	let_go(rig);
	rig->start = start;
	rig->length = length;
	/* Before a byte is read: there may be none. */
	err = uvmem_open(&few, &rig->uv);
	EXPECT(0, err);
	err = uvmem_init_start(rig->uv, start, length);
	if (err) {
		let_go(rig);
		return live_skip("not for secure memory: %s", uvmem_strerror(err));
	}
	uvmem_close(rig->uv);
	bytes = malloc(length);
	CHECK(bytes, "no memory");
	memcpy(bytes, start, length);
	err = share(rig);
	if (!err)
		memcpy(start, bytes, length);
	free(bytes);
	if (err == -EBUSY) {
		let_go(rig);
		return live_skip("not for secure memory: %s", uvmem_strerror(err));
	}
	EXPECT(0, err);
	return PASS;
}

struct copy {
	void *dst;
	const void *src;
	size_t length;
};

static int load(struct uvmem_side *side, void *arg)
{
	const struct copy *c = arg;

	return uvmem_load(side, c->dst, c->src, c->length);
}

static int store(struct uvmem_side *side, void *arg)
{
	const struct copy *c = arg;

	return uvmem_store(side, c->dst, c->src, c->length);
}

static int uvmem_device_read(struct device *dev, void *dst, const void *src, size_t length)
{
	struct rig *rig = dev->priv;

	return uvmem_run(rig->uv, load, &(struct copy){ dst, src, length });
}

static int uvmem_device_write(struct device *dev, void *dst, const void *src, size_t length)
{
	struct rig *rig = dev->priv;

	return uvmem_run(rig->uv, store, &(struct copy){ dst, src, length });
}

static uint64_t uvmem_device_lookup(const struct device *dev, const void *addr)
{
	return 0;
}

const struct driver live_uvmem = {
	.name = "uvmem",
	.open = uvmem_device_open,
	.close = uvmem_device_close,
	.read = uvmem_device_read,
	.write = uvmem_device_write,
	.lookup = uvmem_device_lookup,
	.mark = device_no_mark,
	.stale = device_no_stale,
	.no_fork = "a child has no secure side (`live uvmem_leaks` has it)",
	.take = uvmem_device_take,
};
