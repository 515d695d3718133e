/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ops - reading, writing, and every change of a mapping.
 *
 * Each change is made to some units in the middle, so that the device has
 * translations on both sides which must go on being right. After a change that is
 * reported, area_gone(): the fence returned, so nothing older is left (G1, G4). A
 * change that is silent (guard pages, truncation, punched holes) leaves translations,
 * and reading through them is still right, because all accesses go through the address.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ops.h"
#include "uapi.h"

#define PAGE ((size_t)4096)

static unsigned first(const struct area *a)
{
	return area_units(a) / 4;
}

static unsigned past(const struct area *a)
{
	return area_units(a) / 2;
}

static char *middle(const struct area *a)
{
	return a->at + first(a) * a->unit;
}

static size_t middle_length(const struct area *a)
{
	return (past(a) - first(a)) * a->unit;
}

/* The CPU writes what it may; the device's translations are in place already. */
static void cpu_writes(struct area *a, unsigned char seed)
{
	for (unsigned u = 0; u < area_units(a); u++) {
		size_t at = u * a->unit;

		if (a->access[u] != WRITE)
			continue;
		for (size_t i = at; i < at + a->unit; i += 97)
			a->at[i] = (char)(a->model[i] = (unsigned char)(seed + i));
	}
}

static enum verdict op_read(struct area *a, struct device *dev)
{
	unsigned char seen[777];
	size_t at = a->unit - 300; /* across a border of pages and of units */

	cpu_writes(a, 40);
	TRY(area_agrees(a, dev));
	cpu_writes(a, 41);
	EXPECT(a->access[0] == NONE ? -EFAULT : 0,
	       device_read(dev, seen, a->at + at, sizeof(seen)));
	if (a->access[0] != NONE && memcmp(seen, a->model + at, sizeof(seen)))
		FAILED("an unaligned read differs");
	return area_agrees(a, dev);
}

static enum verdict op_write(struct area *a, struct device *dev)
{
	unsigned char bytes[777];
	size_t at = a->unit - 300;
	int want = a->access[0] == WRITE ? 0 : a->access[0] == READ ? -EPERM : -EFAULT;

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 3 + 1);
	EXPECT(want, device_write(dev, a->at + at, bytes, sizeof(bytes)));
	if (!want)
		memcpy(a->model + at, bytes, sizeof(bytes));
	return area_agrees(a, dev);
}

static enum verdict op_unmap(struct area *a, struct device *dev)
{
	SYS(munmap(middle(a), middle_length(a)));
	area_model_access(a, first(a), past(a), NONE);
	TRY(area_gone(a, dev, first(a), past(a)));
	return area_agrees(a, dev);
}

static enum verdict op_map_over(struct area *a, struct device *dev)
{
	SYS(mmap(middle(a), middle_length(a), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	area_model_access(a, first(a), past(a), WRITE);
	area_model_zero(a, first(a), past(a));
	TRY(area_gone(a, dev, first(a), past(a)));
	cpu_writes(a, 50);
	return area_agrees(a, dev);
}

/* The same place, but it may only be read now: an old permission must not last. */
static enum verdict op_map_over_read_only(struct area *a, struct device *dev)
{
	SYS(mmap(middle(a), middle_length(a), PROT_READ,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	area_model_access(a, first(a), past(a), READ);
	area_model_zero(a, first(a), past(a));
	/* No fence of ours: the device's own must do (G3). */
	dev->driver->mark(dev, middle(a), middle_length(a));
	return area_agrees(a, dev);
}

static char *reserve(size_t length, size_t unit)
{
	char *p = live_map(length + unit, PROT_NONE);

	return (char *)(((uintptr_t)p + unit - 1) / unit * unit);
}

/*
 * A hole cannot be read. A device with tables to grow may have had a mapping put into it meanwhile,
 * the library's own: then there is none.
 */
static enum verdict is_refused(struct device *dev, char *at)
{
	int byte = device_byte(dev, at);
	unsigned char present;
	bool hole = mincore((void *)((uintptr_t)at & -(uintptr_t)4096), 1, &present) &&
		    errno == ENOMEM;

	if (hole || byte < 0)
		EXPECT(-EFAULT, byte);
	return PASS;
}

static enum verdict op_move(struct area *a, struct device *dev)
{
	char *to = reserve(a->length, a->unit), *from = a->at;

	SYS(mremap(from, a->length, a->length, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	TRY(area_gone(a, dev, 0, area_units(a)));
	TRY(is_refused(dev, from));
	TRY(is_refused(dev, from + a->length - 1));
	a->at = to;
	return area_agrees(a, dev);
}

/* Pages leave, the mapping stays: it reads as zeros, or as the file. */
static enum verdict op_move_keep(struct area *a, struct device *dev)
{
	char *to;

	to = mremap(a->at, a->length, a->length, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (to == MAP_FAILED && errno == EINVAL)
		return live_skip("the kernel does not move this kind with DONTUNMAP");
	SYS((long)(intptr_t)to);
	TRY(area_gone(a, dev, 0, area_units(a)));
	for (unsigned u = 0; u < area_units(a); u++) {
		if (a->access[u] == NONE)
			continue;
		EXPECT((unsigned char)to[u * a->unit], device_byte(dev, to + u * a->unit));
		EXPECT(a->model[u * a->unit], device_byte(dev, to + u * a->unit));
	}
	munmap(to, a->length);
	if (!(a->kind->flags & KIND_SHARED))
		area_model_backing(a, 0, area_units(a));
	return area_agrees(a, dev);
}

static enum verdict op_grow(struct area *a, struct device *dev)
{
	unsigned units = area_units(a);
	size_t length = a->length;
	char *from = a->at, *to = mremap(from, length, 2 * length, MREMAP_MAYMOVE);

	SYS((long)(intptr_t)to);
	if (to != from) {
		TRY(area_gone(a, dev, 0, units));
		EXPECT(-EFAULT, device_byte(dev, from));
	}
	a->at = to;
	a->length = 2 * length;
	area_model_access(a, units, 2 * units,
			  a->kind->flags & KIND_OBJECT ? NONE : a->access[0]);
	area_model_backing(a, units, 2 * units);
	return area_agrees(a, dev);
}

static enum verdict op_shrink(struct area *a, struct device *dev)
{
	unsigned units = area_units(a);

	SYS(mremap(a->at, a->length, a->length / 2, 0));
	TRY(area_gone(a, dev, units / 2, units));
	EXPECT(-EFAULT, device_byte(dev, a->at + a->length / 2));
	a->length /= 2;
	return area_agrees(a, dev);
}

static enum verdict op_dontneed(struct area *a, struct device *dev)
{
	SYS(madvise(middle(a), middle_length(a), MADV_DONTNEED));
	if (!(a->kind->flags & KIND_SHARED))
		area_model_backing(a, first(a), past(a));
	TRY(area_gone(a, dev, first(a), past(a)));
	TRY(area_agrees(a, dev));
	cpu_writes(a, 60);
	return area_agrees(a, dev);
}

/* The bytes stay until the kernel wants the page; a write through the device keeps it. */
static enum verdict op_free(struct area *a, struct device *dev)
{
	unsigned char byte = 77;

	SYS(madvise(middle(a), middle_length(a), MADV_FREE));
	TRY(area_gone(a, dev, first(a), past(a)));
	for (unsigned u = first(a); u < past(a); u++) {
		char *at = a->at + u * a->unit;

		if (a->access[u] != WRITE)
			continue;
		EXPECT(0, device_write(dev, at, &byte, 1));
		if (!at[64]) /* taken: whole pages are zero then */
			area_model_zero(a, u, u + 1);
		a->model[u * a->unit] = byte;
	}
	return area_agrees(a, dev);
}

static int prot_of(enum access access)
{
	return access == WRITE	? PROT_READ | PROT_WRITE
	       : access == READ ? PROT_READ
				: PROT_NONE;
}

static enum verdict protect(struct area *a, struct device *dev, enum access to)
{
	enum access from = (enum access)a->access[0];

	SYS(mprotect(middle(a), middle_length(a), prot_of(to)));
	area_model_access(a, first(a), past(a), to);
	TRY(area_gone(a, dev, first(a), past(a)));
	TRY(area_agrees(a, dev));
	SYS(mprotect(middle(a), middle_length(a), prot_of(from)));
	area_model_access(a, first(a), past(a), from);
	return area_agrees(a, dev);
}

static enum verdict op_protect(struct area *a, struct device *dev)
{
	return protect(a, dev, a->access[0] == READ ? WRITE : READ);
}

static enum verdict op_protect_none(struct area *a, struct device *dev)
{
	return protect(a, dev, a->access[0] == NONE ? WRITE : NONE);
}

/* No message: the translation stays, and accesses through it fault safely. */
static enum verdict op_guard(struct area *a, struct device *dev)
{
	enum access from = (enum access)a->access[0];

	if (madvise(middle(a), middle_length(a), MADV_GUARD_INSTALL) && errno == EINVAL)
		return live_skip(
			"this kernel installs no guard pages here (anonymous memory: "
			"6.13, files: 6.15)");
	area_model_access(a, first(a), past(a), NONE);
	EXPECT(0, device_fence(dev, middle(a), middle_length(a)));
	TRY(area_agrees(a, dev));
	SYS(madvise(middle(a), middle_length(a), MADV_GUARD_REMOVE));
	area_model_access(a, first(a), past(a), from);
	if (!(a->kind->flags & KIND_SHARED))
		area_model_backing(a, first(a), past(a));
	return area_agrees(a, dev);
}

static const char *any(const struct kind *kind)
{
	return NULL;
}

static const char *not_stack(const struct kind *kind)
{
	return kind->flags & KIND_STACK ? "the thread that runs on it would crash" : NULL;
}

static const char *growing(const struct kind *kind)
{
	if (kind->flags & KIND_HUGETLB)
		return "mremap does not grow hugetlb mappings";
	return not_stack(kind);
}

static const char *private_anon(const struct kind *kind)
{
	if (kind->flags & (KIND_FILE | KIND_SHARED | KIND_HUGETLB))
		return "MADV_FREE is for private anonymous memory";
	return NULL;
}

static const char *not_hugetlb(const struct kind *kind)
{
	return kind->flags & KIND_HUGETLB ? "there are no guard pages in hugetlb" : NULL;
}

static const char *a_file(const struct kind *kind)
{
	return kind->flags & KIND_FILE ? NULL : "it has no descriptor";
}

static const char *shared(const struct kind *kind)
{
	return kind->flags & KIND_SHARED ? NULL : "MADV_REMOVE is for shared mappings";
}

const struct op live_ops[] = {
	{ "read", any, op_read },
	{ "write", any, op_write },
	{ "unmap", not_stack, op_unmap },
	{ "map-over", not_stack, op_map_over },
	{ "map-over-read-only", not_stack, op_map_over_read_only },
	{ "move", not_stack, op_move },
	{ "move-keep", not_stack, op_move_keep },
	{ "grow", growing, op_grow },
	{ "shrink", not_stack, op_shrink },
	{ "dontneed", any, op_dontneed },
	{ "free", private_anon, op_free },
	{ "mprotect", any, op_protect },
	{ "mprotect-none", any, op_protect_none },
	{ "truncate", a_file, op_truncate },
	{ "punch", a_file, op_punch },
	{ "remove", shared, op_remove },
	{ "guard", not_hugetlb, op_guard },
	{ "fork", any, op_fork },
};
const unsigned live_op_count = sizeof(live_ops) / sizeof(live_ops[0]);
