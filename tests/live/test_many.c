/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_many - many devices, many notifiers, many mappings: still right, still ending.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices.h"
#include "live.h"

#define PAGE ((size_t)4096)
#define RW (PROT_READ | PROT_WRITE)

#define DEVICES 32u
#define NOTIFIERS 100000u
#define VMAS 60000u
/* Mappings that the process and the library need beside the many. */
#define VMAS_KEPT 3000u

static enum verdict devices(const void *arg)
{
	static struct device devs[DEVICES];
	char *at = live_map(DEVICES * PAGE, RW), byte;

	for (unsigned i = 0; i < DEVICES; i++) {
		EXPECT(0, device_open(&live_drivers[i % live_driver_count], &devs[i]));
		CHECK(devs[i].hmm == devs[0].hmm, "a second mirror for the same process");
		byte = (char)(i + 1);
		EXPECT(0, device_write(&devs[i], at + i * PAGE, &byte, 1));
	}
	for (unsigned i = 0; i < DEVICES; i++)
		for (unsigned k = 0; k < DEVICES; k++)
			EXPECT(k + 1, device_byte(&devs[i], at + k * PAGE));
	SYS(munmap(at + 3 * PAGE, PAGE));
	SYS(mprotect(at + 5 * PAGE, PAGE, PROT_READ));
	EXPECT(0, device_fence(&devs[0], at, DEVICES * PAGE));
	for (unsigned i = 0; i < DEVICES; i++) {
		CHECK(!device_lookup(&devs[i], at + 3 * PAGE), "device %u has it still", i);
		CHECK(!(device_lookup(&devs[i], at + 5 * PAGE) & HMM_PFN_WRITE),
		      "device %u may write still", i);
	}
	for (unsigned i = 0; i < DEVICES; i++) {
		EXPECT(-EFAULT, device_byte(&devs[i], at + 3 * PAGE));
		EXPECT(-EPERM, device_write(&devs[i], at + 5 * PAGE, &byte, 1));
	}
	for (unsigned i = 0; i < DEVICES; i++)
		device_close(&devs[i]);
	return PASS;
}

/* ---- notifiers ---- */

struct counted {
	struct hmm_notifier *notifier;
	unsigned calls;
};

static void count(void *priv, const struct hmm_event *event)
{
	((struct counted *)priv)->calls++;
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops), .invalidate = count };

static enum verdict told(struct hmm *hmm, struct counted *all, char *at, size_t from,
			 size_t to)
{
	for (size_t i = 0; i < NOTIFIERS; i++)
		all[i].calls = 0;
	SYS(madvise(at + from * PAGE, (to - from) * PAGE, MADV_DONTNEED));
	EXPECT(0, hmm_fence(hmm, (uintptr_t)at, NOTIFIERS * PAGE));
	for (size_t i = 0; i < NOTIFIERS; i++)
		CHECK(all[i].calls == (i >= from && i < to),
		      "pages [%zu, %zu) changed; the notifier of page %zu was called %u "
		      "times",
		      from, to, i, all[i].calls);
	return PASS;
}

static enum verdict notifiers(const void *arg)
{
	struct counted *all = calloc(NOTIFIERS, sizeof(*all));
	char *at = live_map(NOTIFIERS * PAGE, RW);
	struct device dev;

	CHECK(all, "no memory");
	EXPECT(0, device_open(&live_drivers[0], &dev));
	for (size_t i = 0; i < NOTIFIERS; i++)
		EXPECT(0, hmm_notifier_insert(dev.hmm, (uintptr_t)at + i * PAGE, PAGE, &ops,
					      &all[i], &all[i].notifier));
	for (size_t i = 0; i < NOTIFIERS; i += 1000)
		EXPECT(0, device_byte(&dev, at + i * PAGE));
	TRY(told(dev.hmm, all, at, 5, 6));
	TRY(told(dev.hmm, all, at, NOTIFIERS - 1, NOTIFIERS));
	TRY(told(dev.hmm, all, at, 20000, 70000));
	TRY(told(dev.hmm, all, at, 0, NOTIFIERS));
	for (size_t i = 0; i < NOTIFIERS; i++)
		hmm_notifier_remove(all[(i * 7919) % NOTIFIERS].notifier);
	EXPECT(0, device_byte(&dev, at));
	device_close(&dev);
	free(all);
	return PASS;
}

/* ---- mappings ---- */

static size_t most_vmas(void)
{
	FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
	size_t most = 0;

	if (f && fscanf(f, "%zu", &most) != 1)
		most = 0;
	if (f)
		fclose(f);
	return most < VMAS + VMAS_KEPT ? most < VMAS_KEPT ? 0 : most - VMAS_KEPT : VMAS;
}

/*
 * How many of the pages a device looks at: all, but for the gpu. At each fault it looks at
 * the mappings of the 2 MiB around, here 512 of them: 0.75 ms a fault, 45 s for all.
 */
static size_t stride(const struct device *dev)
{
	return dev->driver == &live_drivers[1] ? 8 : 1;
}

static enum verdict check_some(struct device *dev, char *at, size_t n)
{
	char byte = 1;

	for (size_t i = 0; i < 4000 / stride(dev); i++) {
		size_t p = i * 104729 % n;

		EXPECT((unsigned char)at[p * PAGE], device_byte(dev, at + p * PAGE));
		EXPECT(p % 2 ? -EPERM : 0, device_write(dev, at + p * PAGE + 8, &byte, 1));
	}
	return PASS;
}

/* Every other page may not be written: each page a mapping of its own. */
static enum verdict mappings(const void *arg)
{
	size_t n = most_vmas();
	char *at = live_map(VMAS * PAGE, RW);
	struct device dev;

	if (n < 1000)
		return live_skip("vm.max_map_count leaves room for %zu mappings", n);
	for (size_t i = 0; i < n; i++)
		at[i * PAGE] = (char)(i * 31);
	for (size_t i = 1; i < n; i += 2)
		SYS(mprotect(at + i * PAGE, PAGE, PROT_READ));
	EXPECT(0, device_open(arg, &dev));
	for (size_t i = 0; i < n; i += stride(&dev))
		EXPECT((unsigned char)(i * 31), device_byte(&dev, at + i * PAGE));
	TRY(check_some(&dev, at, n));
	SYS(munmap(at + n / 4 * PAGE, n / 4 * PAGE));
	EXPECT(0, device_fence(&dev, at, n * PAGE));
	for (size_t i = 0; i < n; i++)
		CHECK(i < n / 4 || i >= n / 2 || !device_lookup(&dev, at + i * PAGE),
		      "page %zu is unmapped, and translated", i);
	EXPECT(-EFAULT, device_byte(&dev, at + n / 3 * PAGE));
	TRY(check_some(&dev, at, n / 4));
	device_close(&dev);
	SYS(munmap(at, VMAS * PAGE));
	return PASS;
}

int main(int argc, char **argv)
{
	static const struct live_case cases[] = {
		{ .name = "32 devices", .run = devices },
		{ .name = "100000 notifiers", .run = notifiers, .limit_s = 60 },
		{ .name = "60000 mappings, ramdev",
		  .run = mappings,
		  .arg = &live_drivers[0],
		  .limit_s = 90 },
		{ .name = "60000 mappings, gpu",
		  .run = mappings,
		  .arg = &live_drivers[1],
		  .limit_s = 90 },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
