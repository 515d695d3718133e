// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * litmus_away - two devices with memory, and a thread that moves pages (litmus_away.h).
 *
 * One device has host frames, the other copies; a page may also go from the one to the
 * other. The mover moves both places to and fro at random all the time, between the steps
 * of a round and under them. That must not matter: whatever is away, what an address reads
 * is decided by the program alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common.h"
#include "litmus_away.h"
#include "vram.h"

#define FRAMES 1024   /* of each device: what was dropped stays in use for a while */
#define REST_NS 60000 /* of the mover, at most */
#define DEVICES 2u

struct away {
	struct litmus *l;
	struct vram *vram[DEVICES];
	struct naive *naive;
	pthread_t mover;
	atomic_bool stop;
	atomic_int err; /* of the mover */
};

/* Nothing mapped, dropped meanwhile, everything still unsettled: a move may find all that.
 */
static int may_be(int64_t got)
{
	if (got >= 0 || got == -EINVAL || got == -EBUSY)
		return 0;
	return (int)got;
}

/* On a busy machine what was dropped stays in use for longer: then no frame is free for a while. */
static bool is_full(struct vram *vram)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };

	hmm_devmem_get_stats(vram_devmem(vram), &stats);
	return stats.in_use + 2 * LITMUS_PLACE / LITMUS_PAGE > FRAMES / 2;
}

static int move_out(struct away *away, char *place, unsigned device)
{
	struct vram *vram = away->vram[device % DEVICES];
	int64_t got;

	if (away->naive) {
		naive_out(away->naive, place);
		return 0;
	}
	got = vram_take(vram, place, LITMUS_PLACE);
	return got == -ENOSPC && is_full(vram) ? 0 : may_be(got);
}

static int move_home(struct away *away, char *place)
{
	if (away->naive) {
		naive_home(away->naive, place);
		return 0;
	}
	return may_be(vram_give(away->vram[0], place, LITMUS_PLACE));
}

static void *mover_main(void *arg)
{
	struct away *away = arg;
	uint64_t random = tool_now() | 1;
	int err = 0;

	while (!err && !atomic_load(&away->stop)) {
		struct timespec rest = { .tv_nsec = (long)(random % REST_NS) };
		char *place = random >> 20 & 1 ? away->l->page : away->l->other;

		nanosleep(&rest, NULL);
		if (random >> 21 & 1)
			err = move_out(away, place, (unsigned)(random >> 22));
		else
			err = move_home(away, place);
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
	}
	atomic_store(&away->err, err);
	return NULL;
}

/* One device for the naive, or two. */
static int open_devices(struct away *away)
{
	struct vram_options options = { .frames = FRAMES };
	struct litmus *l = away->l;
	int err = 0;

	if (l->naive) {
		err = naive_open(l, &away->naive);
		return err ? litmus_fail(l, err, "userfaultfd: %s", strerror(-err)) : 0;
	}
	for (unsigned i = 0; i < DEVICES && !err; i++) {
		options.host_frames = !i;
		err = vram_open(litmus_dev_hmm(l->dev), &options, &away->vram[i]);
	}
	if (err)
		litmus_fail(l, err, "device memory: %s", hmm_strerror(err));
	return err == -EPERM ? -EOPNOTSUPP : err;
}

static void close_devices(struct away *away)
{
	naive_close(away->naive);
	for (unsigned i = 0; i < DEVICES; i++)
		vram_close(away->vram[i]);
}

int away_setup(struct litmus *l)
{
	struct away *away = tool_alloc(sizeof(*away));
	int err;

	away->l = l;
	l->away = away;
	l->counts_lost = true;
	err = open_devices(away);
	if (!err) {
		err = -pthread_create(&away->mover, NULL, mover_main, away);
		if (!err)
			return 0;
		litmus_fail(l, err, "no thread: %s", strerror(-err));
	}
	close_devices(away);
	free(away);
	return err;
}

void away_end(struct litmus *l)
{
	struct away *away = l->away;

	atomic_store(&away->stop, true);
	pthread_join(away->mover, NULL);
	close_devices(away);
	free(away);
}

int away_map(struct litmus *l, char *place)
{
	int err = litmus_map_at(l, place);

	/* 64 KiB have none anyway, but a neighbour could make it more. */
	if (!err)
		madvise(place, LITMUS_PLACE, MADV_NOHUGEPAGE);
	return err;
}

int away_map_setup(struct litmus *l)
{
	int err = away_map(l, l->page);

	if (err)
		return err;
	err = away_setup(l);
	if (err)
		munmap(l->page, LITMUS_PLACE);
	return err;
}

void away_map_end(struct litmus *l)
{
	away_end(l);
	munmap(l->page, LITMUS_PLACE);
}

int away_out(struct litmus *l, char *place)
{
	int err = atomic_load(&l->away->err);

	if (err)
		return litmus_fail(l, err, "the mover: %s", hmm_strerror(err));
	err = move_out(l->away, place, l->device);
	return err ? litmus_fail(l, err, "to the device: %s", hmm_strerror(err)) : 0;
}

int away_home(struct litmus *l, char *place)
{
	int err = move_home(l->away, place);

	return err ? litmus_fail(l, err, "home: %s", hmm_strerror(err)) : 0;
}

int away_read(struct litmus *l, const char *addr, uint64_t *value)
{
	if (l->away->naive)
		return naive_read(l->away->naive, addr, value);
	return vram_read(l->away->vram[l->device], addr, value);
}

int away_write(struct litmus *l, char *addr, uint64_t value)
{
	if (l->away->naive)
		return naive_write(l->away->naive, addr, value);
	return vram_write(l->away->vram[l->device], addr, value);
}

int away_add(struct litmus *l, char *addr)
{
	uint64_t value = 0;
	int err;

	if (!l->away->naive)
		return vram_add(l->away->vram[0], addr, 1);
	err = naive_read(l->away->naive, addr, &value);
	return err ? err : naive_write(l->away->naive, addr, value + 1);
}

uint64_t away_fill(struct litmus *l, char *place)
{
	uint64_t generation = ++l->generation;

	for (unsigned i = 0; i < AWAY_PAGES; i++)
		away_store(place, i, generation);
	return generation;
}

void away_judge(struct litmus *l, uint64_t seen, uint64_t expected)
{
	if (seen == expected)
		return;
	/* A number that is not the one is one from before: it was given up. */
	if (seen)
		l->wrong = true;
	else
		l->missing = true;
}

int away_check(struct litmus *l, char *place, uint64_t i, uint64_t even, uint64_t odd)
{
	unsigned page = (unsigned)(i / 4 % AWAY_PAGES);
	uint64_t seen = 0;
	int err = away_read(l, place + page * LITMUS_PAGE, &seen);

	if (err)
		return litmus_fail(l, err, "device read of mapped memory: %s",
				   hmm_strerror(err));
	away_judge(l, seen, page & 1 ? odd : even);
	for (page = 0; page < AWAY_PAGES; page++)
		away_judge(l, away_load(place, page), page & 1 ? odd : even);
	return 0;
}
