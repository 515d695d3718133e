/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* odp_stress_target - the process whose memory it is, and the threads that change it. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "odp_stress.h"

#define RW (PROT_READ | PROT_WRITE)

/* Far from where the kernel and libc put things: a hole here is nobody else's. Each area and
 * each thread's spare page has a place of its own, apart from the others. */
#define PLACE(n) (((uintptr_t)1 << 44) + (uintptr_t)(n) * ((uintptr_t)1 << 24))
enum place { PLACE_STAMPED, PLACE_COUNTERS, PLACE_SPARE, PLACE_OWNED = PLACE_SPARE + 3 };

static uint64_t *map(unsigned place, size_t pages)
{
	void *at = mmap((void *)PLACE(place), pages * PAGE, RW,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (at != (void *)PLACE(place)) {
		fprintf(stderr, "stress_odp: no memory at %#lx\n", (unsigned long)PLACE(place));
		abort();
	}
	madvise(at, pages * PAGE, MADV_NOHUGEPAGE);
	return at;
}

static void move(void *from, void *to)
{
	if (mremap(from, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to)
		return;
	perror("stress_odp: mremap");
	abort();
}

static void *anew(void *at, size_t length)
{
	return mmap(at, length, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static uint64_t *row_at(unsigned row)
{
	return shared->stamped + row * WORDS;
}

/* ---- stamped rows ---- */

/* A page that is filled elsewhere, and moved here: it is never seen unstamped. */
static void move_in(unsigned row, uint64_t generation)
{
	uint64_t *spare = map(PLACE_SPARE + row % 2, 1);

	for (unsigned i = 0; i < WORDS; i++)
		spare[i] = stamp(row, generation);
	move(spare, row_at(row));
}

static void change(unsigned how, unsigned row)
{
	switch (how) {
	case 0:
		madvise(row_at(row), PAGE, MADV_DONTNEED);
		break;
	case 1:
		anew(row_at(row), PAGE);
		break;
	case 2:
		munmap(row_at(row), PAGE);
		anew(row_at(row), PAGE);
		break;
	case 3:
		mprotect(row_at(row), PAGE, PROT_NONE);
		mprotect(row_at(row), PAGE, RW);
		break;
	}
}

/* One row at a time belongs to one changer: rows are dealt out by number. */
static void change_row(unsigned row, unsigned how)
{
	uint64_t generation = shared->next[row] + 1;
	uint64_t *at = row_at(row);

	shared->next[row] = generation;
	if (how == 4)
		move_in(row, generation);
	else
		change(how, row);
	for (unsigned i = 0; how != 4 && i < WORDS; i++)
		__atomic_store_n(&at[i], stamp(row, generation), __ATOMIC_RELAXED);
	shared->done[row] = generation;
	shared->changes[how]++;
}

struct changer {
	unsigned id, of;
	uint64_t random;
	pthread_t thread;
};

static void *change_main(void *arg)
{
	struct changer *c = arg;

	while (!shared->target_stop) {
		unsigned row = (unsigned)(random_of(&c->random) % (STAMPED / c->of)) * c->of + c->id;

		change_row(row, (unsigned)(random_of(&c->random) % 5));
		if (!(random_of(&c->random) % 4))
			usleep((useconds_t)(random_of(&c->random) % 200));
	}
	return NULL;
}

/* ---- what keeps bytes; owned pages, counters ---- */

/* There and back; between them a client gets -EFAULT, which its law allows. */
static void move_away_and_back(uint64_t *at)
{
	void *there = (void *)PLACE(PLACE_SPARE + 2);

	move(at, there);
	move(there, at);
}

/* The puts of a client that is quiet are what the CPU sees. */
static void check_owned(unsigned id)
{
	struct client *c = &shared->client[id];
	uint64_t quiet = c->quiet, seen, words = OWNED_EACH * WORDS;

	if (!(quiet & 1))
		return;
	for (uint64_t i = 0; i < words; i += 61) {
		seen = __atomic_load_n(&shared->owned[id][i], __ATOMIC_RELAXED);
		if (seen != quiet * 1000003 + i && c->quiet == quiet) {
			violation("client %u has put %llu, the CPU sees %llu in word %llu", id,
				  (unsigned long long)(quiet * 1000003 + i),
				  (unsigned long long)seen, (unsigned long long)i);
			return;
		}
	}
	c->checked++;
}

static void one_fork(void)
{
	pid_t pid = fork();

	if (!pid) {
		/* Its own copy is its own: no put arrives here. */
		uint64_t first = shared->counters[0];

		usleep(1000);
		_exit(__atomic_load_n(&shared->counters[0], __ATOMIC_RELAXED) == first ? 0 : 1);
	}
	int status = 0;

	if (pid > 0 && waitpid(pid, &status, 0) == pid && status)
		violation("a forked child saw a client's write");
	shared->forks++;
}

static void keep(uint64_t *random)
{
	unsigned id = (unsigned)(random_of(random) % CLIENTS);
	uint64_t *page = shared->owned[id] + random_of(random) % OWNED_EACH * WORDS;
	unsigned counter = (unsigned)(random_of(random) % COUNTERS);

	switch (random_of(random) % 16) {
	case 0:
		mprotect(page, PAGE, PROT_READ);
		mprotect(page, PAGE, RW);
		shared->changes[5]++;
		break;
	case 1:
		move_away_and_back(page);
		shared->changes[6]++;
		break;
	case 2:
		if (!(random_of(random) % 8))
			one_fork();
		break;
	case 3:
	case 4:
		check_owned(id);
		break;
	default:
		__atomic_fetch_add(&shared->counters[counter * 8], 1, __ATOMIC_SEQ_CST);
		shared->cpu_added[counter]++;
		break;
	}
}

int target_main(uint64_t seed)
{
	struct changer changer[2];
	struct odp_region *region;
	struct odp_target *target;
	uint64_t random = seed * 77 + 5;

	shared->stamped = map(PLACE_STAMPED, STAMPED);
	shared->counters = map(PLACE_COUNTERS, 1);
	for (unsigned i = 0; i < CLIENTS; i++)
		shared->owned[i] = map(PLACE_OWNED + i, OWNED_EACH);
	for (unsigned row = 0; row < STAMPED; row++)
		change_row(row, 1);
	if (odp_target_open(NULL, &target) ||
	    odp_region_create(target, 0, UINTPTR_MAX, ODP_READ | ODP_WRITE | ODP_ATOMIC, &region))
		return 1;
	odp_region_key(region, &shared->key);
	strcpy(shared->address, odp_target_address(target));
	shared->up = true;
	for (unsigned i = 0; i < 2; i++) {
		changer[i] = (struct changer){ .id = i, .of = 2, .random = seed + i * 31 + 1 };
		pthread_create(&changer[i].thread, NULL, change_main, &changer[i]);
	}
	while (!shared->target_stop) {
		keep(&random);
		if (!(random_of(&random) % 8))
			usleep(50);
	}
	for (unsigned i = 0; i < 2; i++)
		pthread_join(changer[i].thread, NULL);
	for (unsigned i = 0; i < COUNTERS; i++) {
		uint64_t sum = shared->cpu_added[i];

		for (unsigned c = 0; c < CLIENTS; c++)
			sum += shared->client[c].added[i];
		if (shared->counters[i * 8] != sum)
			violation("counter %u is %llu, %llu was added", i,
				  (unsigned long long)shared->counters[i * 8],
				  (unsigned long long)sum);
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		check_owned(i);
	odp_region_destroy(region);
	odp_target_close(target);
	return 0;
}
