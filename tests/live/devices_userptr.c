/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * devices_userptr - the userptr driver as a device of the table: a kernel copies bytes between
 * an object on the memory under test and one on memory of our own.
 *
 * Objects are kept, so that they have something to be told of: an access of the same bytes
 * finds the one that was there before the change. "A translation" is an object that is valid.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/userptr.h>

#include "devices_userptr.h"

#define KEPT 64u
#define STAGE ((size_t)32 << 20)

static const char source[] = "kernel void copy(global const uchar *from, global uchar *to)\n"
			     "{ size_t i = get_global_id(0); to[i] = from[i]; }\n";

struct kept {
	struct userptr_object *object; /* NULL: free */
	uintptr_t start;
	size_t length;
	bool write;
};

struct rig {
	struct userptr *dev;
	struct userptr_kernel *copy;
	char *stage;
	struct userptr_object *staged;
	struct kept kept[KEPT];
	unsigned next; /* to be given up */
};

static int open_rig(struct rig *rig, unsigned flags)
{
	struct userptr_options options = { .size = sizeof(options), .flags = flags };
	int err = userptr_open(&options, &rig->dev);

	if (!err)
		err = userptr_kernel_create(rig->dev, source, "copy", NULL, &rig->copy);
	if (err)
		return err;
	rig->stage = mmap(NULL, STAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return rig->stage == MAP_FAILED ? -ENOMEM : 0;
}

static void close_rig(struct device *dev)
{
	struct rig *rig = dev->priv;

	for (unsigned i = 0; i < KEPT; i++)
		userptr_object_destroy(rig->kept[i].object);
	userptr_kernel_destroy(rig->copy);
	userptr_close(rig->dev);
	if (rig->stage && rig->stage != MAP_FAILED)
		munmap(rig->stage, STAGE);
	free(rig);
}

static int open_with(struct device *dev, unsigned flags)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	int err = rig ? open_rig(rig, flags) : -ENOMEM;

	dev->priv = rig;
	if (err && rig)
		close_rig(dev);
	return err;
}

static int open_shared(struct device *dev)
{
	return open_with(dev, 0);
}

static int open_copy(struct device *dev)
{
	return open_with(dev, USERPTR_COPY);
}

static struct userptr_object *find(const struct rig *rig, uintptr_t start, size_t length,
				   bool write)
{
	for (unsigned i = 0; i < KEPT; i++) {
		const struct kept *k = &rig->kept[i];

		if (k->object && k->start == start && k->length == length && k->write == write)
			return k->object;
	}
	return NULL;
}

static int object_of(struct rig *rig, uintptr_t start, size_t length, bool write,
		     struct userptr_object **object)
{
	struct kept *k = &rig->kept[rig->next % KEPT];
	int err;

	*object = find(rig, start, length, write);
	if (*object)
		return 0;
	userptr_object_destroy(k->object);
	*k = (struct kept){ .start = start, .length = length, .write = write };
	err = userptr_object_create(rig->dev, (const void *)start, length,
				    USERPTR_REGISTER | (write ? 0 : USERPTR_READONLY),
				    &k->object);
	rig->next += !err;
	*object = err ? NULL : k->object;
	return err;
}

/* The part of our own memory is an object for this one job. */
static int run(struct rig *rig, struct userptr_object *object, size_t length, bool write)
{
	struct userptr_arg theirs = { .kind = USERPTR_ARG_OBJECT, .object = object,
				      .access = write ? USERPTR_WRITE : USERPTR_READ };
	struct userptr_arg ours = { .kind = USERPTR_ARG_POINTER, .pointer = rig->stage,
				    .access = write ? USERPTR_READ : USERPTR_WRITE };
	struct userptr_arg args[] = { write ? ours : theirs, write ? theirs : ours };
	struct userptr_launch launch = { .size = sizeof(launch), .kernel = rig->copy,
					 .args = args, .n_args = 2, .dims = 1,
					 .global = { length } };
	struct userptr_object *stage;
	int err = userptr_object_create(rig->dev, rig->stage, length, USERPTR_REGISTER, &stage);

	if (err)
		return err;
	err = userptr_run(rig->dev, &launch);
	userptr_object_destroy(stage);
	return err;
}

static int access_bytes(struct rig *rig, uintptr_t start, size_t length, bool write)
{
	struct userptr_object *object;
	int err = length > STAGE ? -E2BIG : object_of(rig, start, length, write, &object);

	return err ? err : run(rig, object, length, write);
}

static int read_bytes(struct device *dev, void *dst, const void *src, size_t length)
{
	struct rig *rig = dev->priv;
	int err = access_bytes(rig, (uintptr_t)src, length, false);

	if (!err)
		memcpy(dst, rig->stage, length);
	return err;
}

static int write_bytes(struct device *dev, void *dst, const void *src, size_t length)
{
	struct rig *rig = dev->priv;

	if (length > STAGE)
		return -E2BIG;
	memcpy(rig->stage, src, length);
	return access_bytes(rig, (uintptr_t)dst, length, true);
}

static uint64_t lookup(const struct device *dev, const void *addr)
{
	const struct rig *rig = dev->priv;
	uintptr_t page = (uintptr_t)addr & ~(uintptr_t)4095;
	uint64_t entry = 0;

	for (unsigned i = 0; i < KEPT; i++) {
		const struct kept *k = &rig->kept[i];

		if (k->object && k->start < page + 4096 && k->start + k->length > page &&
		    userptr_object_valid(k->object))
			entry |= HMM_PFN_VALID | (k->write ? HMM_PFN_WRITE : 0);
	}
	return entry;
}

static const char *absent(void)
{
	static char why[200];
	struct userptr *dev;
	int err = userptr_open(NULL, &dev);

	if (!err)
		userptr_close(dev);
	else
		snprintf(why, sizeof(why), "%s", userptr_strerror(err));
	return err ? why : NULL;
}

#define NO_FORK "OpenCL does not survive a fork (`live userptr` has one)"

const struct driver live_userptr[2] = {
	{ "userptr", open_shared, close_rig, read_bytes, write_bytes, lookup, device_no_mark,
	  device_no_stale, absent, .no_fork = NO_FORK },
	{ "userptr-copy", open_copy, close_rig, read_bytes, write_bytes, lookup, device_no_mark,
	  device_no_stale, absent, .no_fork = NO_FORK },
};
