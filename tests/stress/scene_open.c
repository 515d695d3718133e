/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * scene_open - opening and creating while the n-th thread or allocation fails, for each n.
 *
 * A failure is told, leaves nothing behind, and the next try succeeds.
 */
#include <errno.h>
#include <stdio.h>

#include "stress.h"

#define NTH_MAX 60u

static void to_host(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		    struct hmm_transfer *transfer)
{
	hmm_devmem_done(transfer, 0);
}

/* 0, or what failed; all is closed again. */
static int once(void)
{
	static const struct hmm_devmem_ops ops = { .size = sizeof(ops),
						   .to_host = to_host };
	struct hmm_devmem_options options = { .size = sizeof(options),
					      .type = HMM_DEVMEM_PRIVATE,
					      .frames = 64,
					      .host_frames = true,
					      .owner = &options };
	struct hmm_devmem *devmem;
	struct hmm *hmm;
	int err = hmm_open(&hmm);

	if (err)
		return err;
	err = hmm_devmem_create(hmm, &options, &ops, NULL, &devmem);
	if (!err)
		hmm_devmem_destroy(devmem);
	hmm_put(hmm);
	return err;
}

static unsigned each(void (*inject)(unsigned nth), const char *what, int want)
{
	unsigned failed = 0;

	for (unsigned nth = 1; nth <= NTH_MAX; nth++) {
		uint64_t before = inject_count();
		int err;

		inject(nth);
		err = once();
		inject(0);
		if (inject_count() == before)
			return failed; /* there are no more */
		failed++;
		if (err && err != want)
			fail("%s %u failed: %s", what, nth, hmm_strerror(err));
		err = once();
		if (err)
			fail("after %s %u had failed: %s", what, nth, hmm_strerror(err));
	}
	return failed;
}

int scene_open(const struct stress_options *options)
{
	struct world *world;
	unsigned threads, allocations;
	int err = world_open(&world, options);

	if (err)
		return err;
	hmm_put(world->hmm);
	threads = each(inject_thread_start, "thread", -EAGAIN);
	allocations = each(inject_arena, "allocation", -ENOMEM);
	printf("%u threads and %u allocations failed, each once, and all was well after\n",
	       threads, allocations);
	return !(threads && allocations);
}
