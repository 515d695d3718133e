/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_table - every kind of memory x every operation x every driver.
 *
 * A cell makes an area, lets the device take translations of all of it, does the
 * operation, and compares CPU, device and a model: before, after, and after the
 * fence. The cells of one kind and driver share a process, a mirror and a device, one
 * after the other, so that each meets what the one before left behind.
 *
 *	test_table [-v] [-d driver] [-k kind] [-o operation,...] [-u]
 *
 * -d edu: QEMU's PCI device, which has no row unless it is asked for: each DMA takes
 * 100 ms, and a cell, of half the size, ten seconds.
 * -u: as an unprivileged user. The fallbacks are tested by the same table, with
 * UHMM_OS_WITHOUT in the environment.
 */
#include <alloca.h>
#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "devices_edu.h"
#include "devices_userptr.h"
#include "devices_uvmem.h"
#include "ops.h"

#define NOBODY 65534

struct choice {
	const char *driver, *kind, *ops;
	bool unprivileged;
};

/* The cells of one kind and driver. */
struct row {
	const struct driver *driver;
	const struct kind *kind;
	const struct choice *choice;
	struct live_count *count; /* shared with the parent */
};

/* Is `name` an entry of the comma list? NULL has everything. */
static bool listed(const char *list, const char *name)
{
	size_t n = strlen(name);

	if (!list)
		return true;
	for (const char *p = list; (p = strstr(p, name)); p += n)
		if ((p == list || p[-1] == ',') && (p[n] == ',' || !p[n]))
			return true;
	return false;
}

static enum verdict cell_on(struct area *area, struct device *dev, const struct op *op)
{
	TRY(area_warm(area, dev));
	return op->run(area, dev);
}

static enum verdict cell(const struct row *row, struct device *dev, const struct op *op)
{
	const char *cannot = op->cannot(row->kind);
	enum verdict verdict;
	struct area area;

	if (cannot)
		return live_skip("%s", cannot);
	/* The op has two areas, and the driver can be told of one. */
	if (row->driver->take && !strcmp(op->name, "move-keep"))
		return live_skip("the driver stays with the old address");
	if (row->driver->no_fork && !strcmp(op->name, "fork"))
		return live_skip("%s", row->driver->no_fork);
	TRY(area_make(&area, row->kind));
	verdict = cell_on(&area, dev, op);
	area_dispose(&area);
	return verdict;
}

/* What a driver cannot be told of is skipped as one row. */
static enum verdict takes(const struct row *row, struct device *dev)
{
	enum verdict verdict;
	struct area area;

	if (!row->driver->take)
		return PASS;
	TRY(area_make(&area, row->kind));
	verdict = row->driver->take(dev, area.at, area.length);
	area_dispose(&area);
	return verdict;
}

static enum verdict run_row(void *arg)
{
	const struct row *row = arg;
	const char *absent = row->driver->absent ? row->driver->absent() : NULL;
	struct device dev;
	struct area area;
	int err;

	/* What this machine does not have is skipped as one row. */
	if (absent)
		return live_skip("%s", absent);
	if (row->driver == &live_edu)
		kinds_be_small();
	TRY(area_make(&area, row->kind));
	area_dispose(&area);
	err = device_open(row->driver, &dev);
	if (dev.memory && (err == -EPERM || err == -EOPNOTSUPP))
		return live_skip("no device memory: %s", hmm_strerror(err));
	EXPECT(0, err);
	TRY(takes(row, &dev));
	for (unsigned i = 0; i < live_op_count; i++) {
		char name[120];

		if (!listed(row->choice->ops, live_ops[i].name))
			continue;
		snprintf(name, sizeof(name), "%s %s %s", row->driver->name, row->kind->name,
			 live_ops[i].name);
		live_note(row->count, name, cell(row, &dev, &live_ops[i]), live_reason());
	}
	device_close(&dev);
	return PASS;
}

static void run_driver(const struct driver *driver, unsigned limit_s,
		       const struct choice *choice, struct live_count *count)
{
	for (unsigned k = 0; k < live_kind_count; k++) {
		struct row row = { driver, &live_kinds[k], choice, count };
		enum verdict verdict;
		char name[120];

		if (!listed(choice->kind, row.kind->name))
			continue;
		snprintf(name, sizeof(name), "%s %s", driver->name, row.kind->name);
		verdict = live_child(run_row, &row, limit_s);
		if (verdict != PASS)
			live_note(count, name, verdict, live_reason());
	}
}

static void run_rows(const struct choice *choice, struct live_count *count)
{
	for (unsigned d = 0; d < live_driver_count; d++)
		if (listed(choice->driver, live_drivers[d].name))
			run_driver(&live_drivers[d], 60, choice, count);
	for (unsigned d = 0; d < 2; d++)
		if (listed(choice->driver, live_userptr[d].name))
			run_driver(&live_userptr[d], 60, choice, count);
	if (listed(choice->driver, live_uvmem.name))
		run_driver(&live_uvmem, 60, choice, count);
	if (choice->driver && listed(choice->driver, live_edu.name))
		run_driver(&live_edu, 300, choice, count);
}

/* The process must stay dumpable: it opens its own /proc/self/pagemap. */
static int become_nobody(void)
{
	if (setgroups(0, NULL) || setresgid(NOBODY, NOBODY, NOBODY) ||
	    setresuid(NOBODY, NOBODY, NOBODY) || prctl(PR_SET_DUMPABLE, 1))
		return -errno;
	return 0;
}

static int options(int argc, char **argv, struct choice *choice, bool *verbose)
{
	for (int c; (c = getopt(argc, argv, "vud:k:o:")) != -1;) {
		switch (c) {
		case 'v':
			*verbose = true;
			break;
		case 'u':
			choice->unprivileged = true;
			break;
		case 'd':
			choice->driver = optarg;
			break;
		case 'k':
			choice->kind = optarg;
			break;
		case 'o':
			choice->ops = optarg;
			break;
		default:
			return -EINVAL;
		}
	}
	return 0;
}

/* Everything but huge pages, which the parent has taken and will give back. */
static enum verdict everything(void *arg)
{
	const struct row *row = arg;

	if (row->choice->unprivileged && become_nobody())
		return live_skip("root is needed to become somebody else: %s",
				 strerror(errno));
	run_rows(row->choice, row->count);
	return PASS;
}

int main(int argc, char **argv)
{
	struct choice choice = { 0 };
	struct row row = { .choice = &choice };
	struct live_count *count;
	char *stack = alloca(STACK_BYTES + 4096);
	enum verdict verdict;

	count = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (count == MAP_FAILED || options(argc, argv, &choice, &count->verbose))
		return 2;
	row.count = count;
	kinds_give_stack((char *)(((uintptr_t)stack + 4095) & ~(uintptr_t)4095));
	kinds_begin();
	verdict = live_child(everything, &row, 300);
	kinds_end();
	if (verdict != PASS)
		live_note(count, "everything", verdict, live_reason());
	return live_end(count);
}
