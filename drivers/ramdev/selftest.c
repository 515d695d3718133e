/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of ramdev - what `uhmm drivers --selftest ramdev` runs, and a program that
 * shows how the device is used. Each step is one thing a kernel driver's user relies on.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/driver.h>
#include <uhmm/ramdev.h>

#define PAGE 4096
#define PAGES 64
#define SIZE (PAGES * PAGE)
#define ROUNDS 2000

static char *map_at(void *where, int fixed)
{
	void *memory = mmap(where, SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* Write by CPU, read by device; write by device, read by CPU. Across page borders. */
static int both_ways(struct ramdev *dev, char *memory)
{
	char seen[SIZE / 2];
	int err;

	memset(memory, 0x5a, SIZE);
	err = ramdev_read(dev, seen, memory + 100, sizeof(seen));
	if (err)
		return err;
	if (memcmp(seen, memory + 100, sizeof(seen)))
		return -EIO;
	memset(seen, 0xa5, sizeof(seen));
	err = ramdev_write(dev, memory + 200, seen, sizeof(seen));
	if (err)
		return err;
	return memcmp(seen, memory + 200, sizeof(seen)) ? -EIO : 0;
}

/* Other memory at the same address, again and again: the device never sees the old. */
static int remapped(struct ramdev *dev, char *memory)
{
	unsigned i, seen;
	int err = 0;

	for (i = 1; i <= ROUNDS && !err; i++) {
		if (munmap(memory, SIZE) || map_at(memory, MAP_FIXED_NOREPLACE) != memory)
			return -errno;
		err = ramdev_read(dev, &seen, memory + 8, sizeof(seen));
		if (!err && seen)
			err = -EIO; /* what was there before the munmap */
		*(unsigned *)(memory + 8) = i;
		if (!err)
			err = ramdev_read(dev, &seen, memory + 8, sizeof(seen));
		if (!err && seen != i)
			err = -EIO;
	}
	return err;
}

static int protections(struct ramdev *dev, char *memory)
{
	char byte = 1;
	int err = ramdev_write(dev, memory, &byte, 1);

	if (err)
		return err;
	if (mprotect(memory, SIZE, PROT_READ))
		return -errno;
	if (ramdev_write(dev, memory, &byte, 1) != -EPERM)
		return -EIO;
	err = ramdev_read(dev, &byte, memory, 1);
	if (err)
		return err;
	if (mprotect(memory, SIZE, PROT_NONE))
		return -errno;
	if (ramdev_read(dev, &byte, memory, 1) != -EFAULT)
		return -EIO;
	if (mprotect(memory, SIZE, PROT_READ | PROT_WRITE))
		return -errno;
	return ramdev_write(dev, memory, &byte, 1);
}

/* Present pages are seen, absent ones are not brought, and nothing is left of a hole. */
static int snapshots(struct ramdev *dev, char *memory)
{
	uint64_t pfns[PAGES];
	char byte;
	int err;

	if (munmap(memory, SIZE) || map_at(memory, MAP_FIXED_NOREPLACE) != memory)
		return -errno;
	memory[0] = 1;
	err = ramdev_snapshot(dev, memory, PAGES, pfns);
	if (err)
		return err;
	if (!(pfns[0] & HMM_PFN_VALID) || (pfns[PAGES - 1] & HMM_PFN_VALID))
		return -EIO;
	err = ramdev_read(dev, &byte, memory, 1);
	if (err)
		return err;
	if (munmap(memory, SIZE))
		return -errno;
	if (ramdev_read(dev, &byte, memory, 1) != -EFAULT || ramdev_lookup(dev, memory))
		return -EIO;
	return map_at(memory, MAP_FIXED_NOREPLACE) == memory ? 0 : -errno;
}

/* A look at another process: a child that waits with a word of its own at `memory`. */
static int another_process(struct ramdev *own, char *memory)
{
	struct ramdev *dev;
	int err, seen = 0, ready[2];
	pid_t child;

	if (pipe(ready))
		return -errno;
	child = fork();
	if (child < 0)
		return -errno;
	if (!child) {
		*(int *)memory = 12345;
		_exit(write(ready[1], "", 1) == 1 ? pause() : 1);
	}
	err = read(ready[0], &seen, 1) == 1 ? ramdev_open(child, &dev) : -EIO;
	if (!err) {
		err = ramdev_read(dev, &seen, memory, sizeof(seen));
		ramdev_close(dev);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	close(ready[0]);
	close(ready[1]);
	return err ? err : seen == 12345 ? 0 : -EIO;
}

static const struct step {
	const char *what;
	int (*run)(struct ramdev *dev, char *memory);
} steps[] = {
	{"CPU and device read what the other wrote", both_ways},
	{"memory mapped anew is seen anew", remapped},
	{"read-only and PROT_NONE hold for the device", protections},
	{"snapshot, and a hole", snapshots},
	{"a look at another process", another_process},
};

static int selftest(char *why, size_t size)
{
	char *memory = map_at(NULL, 0);
	struct ramdev *dev;
	size_t i;
	int err;

	if (!memory)
		return -ENOMEM;
	err = ramdev_open(0, &dev);
	if (err) {
		snprintf(why, size, "open: %s", hmm_strerror(err));
		munmap(memory, SIZE);
		return err;
	}
	for (i = 0; i < sizeof(steps) / sizeof(*steps) && !err; i++) {
		err = steps[i].run(dev, memory);
		if (err)
			snprintf(why, size, "%s: %s", steps[i].what,
				 err == -EIO ? "wrong answer" : hmm_strerror(err));
	}
	if (!err)
		snprintf(why, size, "%zu steps, %llu invalidations", i,
			 (unsigned long long)ramdev_invalidations(dev));
	ramdev_close(dev);
	munmap(memory, SIZE);
	return err;
}

extern const struct uhmm_driver uhmm_driver_ramdev;
const struct uhmm_driver uhmm_driver_ramdev = {
	.name = "ramdev",
	.stands_for = "lib/test_hmm",
	.what = "the smallest driver: reads and writes by the program's pointers",
	.usable = uhmm_driver_needs_mirror,
	.selftest = selftest,
};
