// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_grown - a case in which memory comes beside what goes to a device at that moment, as when a heap
 * grows or a mapping is made next to another.
 *
 * It is no part of what was registered, even if the space that it came to was: when it goes to
 * the device itself, a CPU that touches it must find its bytes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common.h"
#include "litmus_away.h"

#define HALF (LITMUS_PLACE / 2)
#define WAIT_NS 60000 /* at most, before it comes */

struct grown {
	struct litmus *l;
	struct litmus_actor actor;
	int err;
};

static void take(void *arg)
{
	struct grown *g = arg;

	g->err = away_out(g->l, g->l->page);
}

static int grown_setup(struct litmus *l)
{
	struct grown *g = tool_alloc(sizeof(*g));
	int err = litmus_actor_start(&g->actor);

	if (!err) {
		g->l = l;
		l->priv = g;
		err = away_setup(l);
		if (!err)
			return 0;
		litmus_actor_stop(&g->actor);
	}
	free(g);
	return err;
}

static void grown_end(struct litmus *l)
{
	struct grown *g = l->priv;

	away_end(l);
	litmus_actor_stop(&g->actor);
	free(g);
}

static int map_half(struct litmus *l, char *at, uint64_t generation)
{
	char *got = mmap(at, HALF, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (got != at)
		return litmus_fail(l, -errno, "mmap: %s", strerror(errno));
	madvise(at, HALF, MADV_NOHUGEPAGE);
	for (unsigned page = 0; page < AWAY_PAGES / 2; page++)
		away_store(at, page, generation);
	return 0;
}

static int grown_round(struct litmus *l, uint64_t i)
{
	struct grown *g = l->priv;
	bool below = i / 2 % 4; /* mostly: below there is room */
	uint64_t generation = ++l->generation, end;
	int err = map_half(l, l->page + (below ? HALF : 0), generation);

	if (err)
		return err;
	litmus_actor_begin(&g->actor, take, g);
	end = tool_now() + generation * 7919 % WAIT_NS;
	while (tool_now() < end)
		;
	err = map_half(l, l->page + (below ? 0 : HALF), generation);
	litmus_actor_wait(&g->actor);
	err = err ? err : g->err;
	if (!err)
		err = away_out(l, l->page);
	if (!err)
		err = away_check(l, l->page, i, generation, generation);
	if (!err && i / 8 % 2)
		err = away_out(l, l->page);
	if (!err)
		err = away_check(l, l->page, i / 2, generation, generation);
	munmap(l->page, LITMUS_PLACE);
	return err;
}

const struct litmus_case litmus_grown_cases[] = {
	{ .name = "away_grown",
	  .what = "memory that comes beside what goes to a device",
	  .setup = grown_setup,
	  .round = grown_round,
	  .end = grown_end },
	{ .name = NULL },
};
