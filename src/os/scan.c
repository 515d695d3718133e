/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * scan - which pages are there, by PAGEMAP_SCAN.
 *
 * Model: the kernel reports stretches of equal categories, holes between mappings
 * left out. Categories become OS_PAGE_* flags.
 *
 * The registration token (OS_SCAN_CHECK): PM_SCAN_CHECK_WPASYNC fails with EPERM where a
 * mapping is not registered. A hole has no mapping that could fail, so every page is asked
 * for, present or not, and must come back as WPALLOWED; a gap is -EPERM too. That
 * is how what sends no message (shmdt) is found out.
 *
 * OS_SCAN_MARK is the only thing in the library that write-protects (G7): dirty.c says where.
 */
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "os/live.h"
#include "os/uapi.h"

#define REGIONS 128u
#define POPULATED (PAGE_IS_PRESENT | PAGE_IS_SWAPPED)
#define TOLD (POPULATED | PAGE_IS_FILE | PAGE_IS_PFNZERO | PAGE_IS_HUGE)

/* A walk over [at, end), and what it has found. */
struct walk {
	const struct os_mm *mm;
	uintptr_t at, end;
	unsigned how;
	struct os_run *runs;
	unsigned count, max;
};

static unsigned flags_of(uint64_t categories)
{
	return (categories & PAGE_IS_PRESENT ? OS_PAGE_PRESENT : 0) |
	       (categories & PAGE_IS_SWAPPED ? OS_PAGE_SWAPPED : 0) |
	       (categories & PAGE_IS_PFNZERO ? OS_PAGE_ZERO : 0) |
	       (categories & PAGE_IS_FILE ? OS_PAGE_FILE : 0) |
	       (categories & PAGE_IS_HUGE ? OS_PAGE_HUGE : 0) |
	       (categories & PAGE_IS_WRITTEN ? OS_PAGE_UNMARKED : 0);
}

static int scan_by(int fd, struct pm_scan_arg *arg)
{
	int count = ioctl(fd, PAGEMAP_SCAN, arg);

	return count < 0 ? -errno : count;
}

/* Count of regions. The descriptor may not be ours any more: see vma.c. */
static int scan_once(const struct os_mm *mm, struct pm_scan_arg *arg)
{
	int count = scan_by(mm->pagemap_fd, arg), fd;

	if (count != -EBADF && count != -ENOTTY && count != -EINVAL)
		return count;
	fd = proc_open(mm->pid, "pagemap");
	if (fd < 0)
		return fd;
	count = scan_by(fd, arg);
	close(fd);
	return count;
}

static void add(struct walk *w, const struct page_region *region)
{
	unsigned flags = flags_of(region->categories);
	struct os_run *last = w->count ? &w->runs[w->count - 1] : NULL;

	if ((w->how & OS_SCAN_POPULATED) && !(flags & (OS_PAGE_PRESENT | OS_PAGE_SWAPPED)))
		return;
	if (last && last->end == region->start && last->flags == flags) {
		last->end = region->end;
		return;
	}
	w->runs[w->count++] =
		(struct os_run){ .start = region->start, .end = region->end, .flags = flags };
}

/*
 * What the kernel reports it marks, if it is not: so it is asked for nothing but what may be. Which
 * pages are marked already is no condition, or they could not be told from holes.
 */
static void ask_to_mark(struct pm_scan_arg *arg)
{
	arg->flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
	arg->category_inverted = PAGE_IS_FILE;
	arg->category_mask = PAGE_IS_FILE;
	arg->category_anyof_mask = POPULATED;
	arg->return_mask = POPULATED | PAGE_IS_WRITTEN;
}

/* One call of the kernel; as many regions as runs have room. */
static int step(struct walk *w)
{
	bool check = w->how & OS_SCAN_CHECK, populated = w->how & OS_SCAN_POPULATED;
	struct page_region regions[REGIONS];
	unsigned room = w->max - w->count;
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = check ? PM_SCAN_CHECK_WPASYNC : 0,
		.start = w->at,
		.end = w->end,
		.vec = (uintptr_t)regions,
		.vec_len = room < REGIONS ? room : REGIONS,
		.category_anyof_mask = populated && !check ? POPULATED : 0,
		.return_mask = TOLD | (check ? PAGE_IS_WPALLOWED : 0),
	};
	uintptr_t covered = w->at;
	int count;

	if (w->how & OS_SCAN_MARK)
		ask_to_mark(&arg);
	count = scan_once(w->mm, &arg);
	if (count < 0)
		return count;
	for (int i = 0; i < count; i++) {
		if (check && (regions[i].start != covered ||
			      !(regions[i].categories & PAGE_IS_WPALLOWED)))
			return -EPERM;
		covered = regions[i].end;
		add(w, &regions[i]);
	}
	if (check && covered != arg.walk_end)
		return -EPERM;
	w->at = arg.walk_end;
	return 0;
}

int live_scan(const struct os_mm *mm, uintptr_t start, uintptr_t end, unsigned how,
	      struct os_run *runs, unsigned max, uintptr_t *next)
{
	struct walk w = { .mm = mm, .at = start, .end = end, .how = how, .runs = runs,
			  .max = max };

	if (start >= end || !max)
		return -EINVAL;
	while (w.at < end && w.count < max) {
		int err = step(&w);

		if (err)
			return err;
	}
	*next = w.at;
	return (int)w.count;
}
