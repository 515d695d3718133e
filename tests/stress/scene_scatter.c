/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * scene_scatter - every other page of a large mapping is away.
 *
 * The kernel merges what looks the same, and allows a process 65530 mappings: pages that
 * are away must not cost one each.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stress.h"

/* Lines of /proc/self/maps. */
static long mappings(void)
{
	static char text[65536];
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	long lines = 0;
	ssize_t got;

	while ((got = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < got; i++)
			lines += text[i] == '\n';
	close(fd);
	return lines;
}

static int64_t scatter(struct dev *dev, struct area *a)
{
	int64_t away = 0;

	for (unsigned i = 0; i < a->pages; i += 2) {
		int64_t moved =
			hmm_migrate_to_device(dev_devmem(dev), a->page[i].addr, PAGE);

		if (moved < 0 && moved != -ENOSPC && moved != -EBUSY)
			fail("migration of page %u: %s", i, hmm_strerror((int)moved));
		away += moved > 0;
	}
	return away;
}

static int run_scatter(struct world *world, const struct stress_options *o, bool host)
{
	struct dev_options options = { .frames = o->pages + 16,
				       .host_frames = host,
				       .seed = o->seed };
	unsigned pages = 2 * o->pages;
	struct area a;
	struct dev *dev;
	struct run run;
	long before, after;
	int64_t away;
	char *at;

	at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		  -1, 0);
	if (at == MAP_FAILED || area_init(&a, 1, pages, at, false))
		fail("no memory");
	for (unsigned i = 0; i < pages; i++)
		page_write(&a, i, 1, at + i * PAGE);
	if (dev_open(world->hmm, &options, &dev))
		fail("no device");
	before = mappings();
	away = scatter(dev, &a);
	after = mappings();
	if (after - before >= 200)
		fail("%lld scattered pages away: %ld mappings more", (long long)away,
		     after - before);
	if (away < o->pages * 9 / 10)
		fail("only %lld of %u scattered pages went", (long long)away, o->pages);
	/* The program goes on with its mappings. */
	if (mprotect(at, pages * PAGE / 2, PROT_READ) ||
	    mprotect(at, pages * PAGE / 2, PROT_READ | PROT_WRITE))
		fail("mprotect beside scattered pages: %m");
	run = area_run_at(&a, 0, pages / 2);
	run_check(&a, &run, "the CPU, scattered");
	dev_close(dev);
	run = area_run_at(&a, 0, pages);
	run_check(&a, &run, "the CPU when the device was gone");
	munmap(at, pages * PAGE);
	printf("%lld scattered pages away in %s frames: %ld mappings more\n",
	       (long long)away, host ? "host" : "copied", after - before);
	return 0;
}

/*
 * No mapping is left to be had: every second page of a large mapping has another
 * permission. Migrations may then move less, or say why not; what they have begun is whole.
 */
static int run_full(struct world *world, const struct stress_options *o)
{
	struct dev_options options = { .frames = 4096, .seed = o->seed };
	unsigned split = 0, pages = 1024;
	size_t length = (size_t)140000 * PAGE;
	int64_t moved = 0;
	struct area a;
	struct dev *dev;
	struct run run;
	char *at, *many;

	at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		  -1, 0);
	many = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (at == MAP_FAILED || many == MAP_FAILED || area_init(&a, 2, pages, at, false))
		fail("no memory");
	for (unsigned i = 0; i < pages; i++)
		page_write(&a, i, 0xff, at + i * PAGE);
	if (dev_open(world->hmm, &options, &dev))
		fail("no device");
	/* Its mapping is registered by now. */
	if (hmm_migrate_to_device(dev_devmem(dev), a.page[0].addr, PAGE) != 1)
		fail("a page does not migrate");
	while (split < 70000 && !mprotect(many + (size_t)split * 2 * PAGE, PAGE, PROT_NONE))
		split++;
	for (unsigned i = 0; i + 64 <= pages; i += 64) {
		int64_t n =
			hmm_migrate_to_device(dev_devmem(dev), a.page[i].addr, 64 * PAGE);

		if (n < 0 && n != -ENOSPC && n != -ENOMEM && n != -EBUSY)
			fail("migration without mappings: %s", hmm_strerror((int)n));
		moved += n > 0 ? n : 0;
		run = area_run_at(&a, pick(&world->worker[0], pages), 8);
		run_check(&a, &run, "the CPU, without mappings");
	}
	if (munmap(many, length))
		fail("munmap: %m");
	run = area_run_at(&a, 0, pages);
	run_check(&a, &run, "the CPU, with mappings again");
	if (hmm_migrate_to_device(dev_devmem(dev), a.page[0].addr, PAGE) != 1)
		fail("with mappings again nothing migrates");
	dev_close(dev);
	run_check(&a, &run, "the CPU when the device was gone");
	munmap(at, pages * PAGE);
	printf("%u mappings, no more can be had: %lld of %u pages moved all the same\n",
	       split, (long long)moved, pages);
	return 0;
}

int scene_scatter(const struct stress_options *options)
{
	struct world *world;
	int err = world_open(&world, options);

	if (err)
		return err;
	run_scatter(world, options, false);
	run_scatter(world, options, true);
	world->worker[0].random = options->seed + 1;
	run_full(world, options);
	hmm_put(world->hmm);
	printf("0 wrong bytes\n");
	return 0;
}
