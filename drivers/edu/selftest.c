/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of edu - what `uhmm drivers --selftest edu` runs, and a program that shows how
 * the device is used. Each DMA takes 100 ms, so each step is as short as it can be;
 * tests/lab has the kinds of memory and what can become of them.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/driver.h>
#include <uhmm/edu.h>

#define PAGE 4096
#define SIZE (4 * PAGE)
#define ROUNDS 3

static char *map_at(void *where, int fixed)
{
	void *memory = mmap(where, SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* Write by CPU, read by device; write by device, read by CPU. Across a page border. */
static int both_ways(struct edu *dev, char *memory)
{
	char seen[1000];
	int err;

	memset(memory, 0x5a, SIZE);
	err = edu_read(dev, seen, memory + PAGE - 500, sizeof(seen));
	if (err)
		return err;
	if (memcmp(seen, memory + PAGE - 500, sizeof(seen)))
		return -EIO;
	memset(seen, 0xa5, sizeof(seen));
	err = edu_write(dev, memory + PAGE - 400, seen, sizeof(seen));
	if (err)
		return err;
	return memcmp(seen, memory + PAGE - 400, sizeof(seen)) ? -EIO : 0;
}

/* From memory to memory, and no CPU touches a byte. */
static int copied(struct edu *dev, char *memory)
{
	int err;

	snprintf(memory, PAGE, "from one page to another");
	err = edu_copy(dev, memory + 2 * PAGE + 7, memory, 100);
	if (err)
		return err;
	return strcmp(memory + 2 * PAGE + 7, memory) ? -EIO : 0;
}

/* Other memory at the same address: the device never sees the old. */
static int remapped(struct edu *dev, char *memory)
{
	unsigned i, seen;
	int err = 0;

	for (i = 1; i <= ROUNDS && !err; i++) {
		if (munmap(memory, SIZE) || map_at(memory, MAP_FIXED_NOREPLACE) != memory)
			return -errno;
		err = edu_read(dev, &seen, memory + 8, sizeof(seen));
		if (!err && seen)
			err = -EIO; /* what was there before the munmap */
		*(unsigned *)(memory + 8) = i;
		if (!err)
			err = edu_read(dev, &seen, memory + 8, sizeof(seen));
		if (!err && seen != i)
			err = -EIO;
	}
	return err;
}

static int protections(struct edu *dev, char *memory)
{
	char byte = 1;
	int err = edu_write(dev, memory, &byte, 1);

	if (err)
		return err;
	if (mprotect(memory, SIZE, PROT_READ))
		return -errno;
	if (edu_write(dev, memory, &byte, 1) != -EPERM)
		return -EIO;
	err = edu_read(dev, &byte, memory, 1);
	if (err)
		return err;
	if (mprotect(memory, SIZE, PROT_NONE))
		return -errno;
	if (edu_read(dev, &byte, memory, 1) != -EFAULT || edu_lookup(dev, memory))
		return -EIO;
	return mprotect(memory, SIZE, PROT_READ | PROT_WRITE) ? -errno : 0;
}

/*
 * The page lives on in the file, but it is no memory of ours any more: the IOMMU keeps a
 * device off it that asks nobody.
 */
static int blocked(struct edu *dev, char *memory)
{
	char before[32] = "written by the device", after[32] = "",
	     raw[32] = "written behind our back";
	int err, fd = memfd_create("uhmm-edu", MFD_CLOEXEC);
	uint64_t entry;

	if (fd < 0 || ftruncate(fd, SIZE) ||
	    mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) !=
		    memory)
		return -errno;
	err = edu_write(dev, memory, before, sizeof(before));
	entry = edu_lookup(dev, memory);
	if (!err && !(entry & HMM_PFN_WRITE))
		err = -EIO;
	if (!map_at(memory, MAP_FIXED) && !err)
		err = -errno;
	if (!err)
		err = hmm_dma_fence(edu_dma(dev), (uintptr_t)memory, SIZE);
	if (!err)
		err = edu_dma_raw(dev, hmm_pfn_number(entry) * PAGE, raw, sizeof(raw),
				  true);
	if (!err && (pread(fd, after, sizeof(after), 0) != sizeof(after) ||
		     memcmp(before, after, sizeof(after)) || *memory))
		err = -EIO;
	close(fd);
	return err;
}

static const struct step {
	const char *what;
	int (*run)(struct edu *dev, char *memory);
} steps[] = {
	{ "CPU and device read what the other wrote", both_ways },
	{ "from memory to memory", copied },
	{ "memory mapped anew is seen anew", remapped },
	{ "read-only and PROT_NONE hold for the device", protections },
	{ "the IOMMU blocks what is not ours any more", blocked },
};

static int selftest(char *why, size_t size)
{
	struct edu_stats stats = { .size = sizeof(stats) };
	char *memory = map_at(NULL, 0);
	struct edu *dev;
	size_t i;
	int err;

	if (!memory)
		return -ENOMEM;
	err = edu_open(NULL, &dev);
	if (err) {
		snprintf(why, size, "open: %s", edu_strerror(err));
		munmap(memory, SIZE);
		return err;
	}
	for (i = 0; i < sizeof(steps) / sizeof(*steps) && !err; i++) {
		err = steps[i].run(dev, memory);
		if (err)
			snprintf(why, size, "%s: %s", steps[i].what,
				 err == -EIO ? "wrong answer" : edu_strerror(err));
	}
	edu_get_stats(dev, &stats);
	if (!err)
		snprintf(why, size, "%zu steps, %llu DMAs", i,
			 (unsigned long long)stats.dmas);
	edu_close(dev);
	munmap(memory, SIZE);
	return err;
}

/* Is the device here, and free? */
static int usable(char *why, size_t size)
{
	struct edu *dev;
	int err = edu_open(NULL, &dev);

	if (err)
		snprintf(why, size, "%s", edu_strerror(err));
	else
		edu_close(dev);
	return err;
}

extern const struct uhmm_driver uhmm_driver_edu;
const struct uhmm_driver uhmm_driver_edu = {
	.name = "edu",
	.stands_for = "PCI drivers behind an IOMMU",
	.what = "QEMU's edu device through VFIO: DMA at the program's own addresses",
	.usable = usable,
	.selftest = selftest,
};
