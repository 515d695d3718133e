// SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause
/*
 * against - the rows, and a round.
 *
 * A row is said twice where it matters: by libc's function, which can be hooked, and by the
 * system call, which allocators, language run-times and sandboxes make themselves.
 *
 * Moved by growing it into what lies behind: UCX's hook of mremap drops the fifth argument,
 * so with MREMAP_FIXED the call would fail under it (1.13), or move the memory anywhere.
 *
 * A round begins clean: what the place had is unmapped and the cache forgets it, so that a
 * stale entry is counted once. An event that is still on its way from that is in the peer's
 * favour.
 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "against.h"

#define FLAGS (MAP_PRIVATE | MAP_ANONYMOUS)
#define RW (PROT_READ | PROT_WRITE)

/* Of the one run in this process. */
static struct {
	char *place;
	char *behind; /* a page that nobody uses */
	void *moved;  /* where mremap put what was there: twice as long */
	int shm[2];
	char *shm_kept[2]; /* attached, so that they live on */
	atomic_int turn;   /* of the thread that unmaps: 1 go, 2 done, -1 end */
} a;

static int raw_map(char *addr, int flags)
{
	long got = syscall(SYS_mmap, addr, AGAINST_PLACE, RW, FLAGS | flags, -1, 0);

	return got == (long)addr ? 0 : -errno;
}

static int raw_unmap(char *addr)
{
	return syscall(SYS_munmap, addr, AGAINST_PLACE) ? -errno : 0;
}

static int map_anew(void)
{
	char *got = mmap(a.place, AGAINST_PLACE, RW, FLAGS | MAP_FIXED_NOREPLACE, -1, 0);

	return got == a.place ? 0 : -errno;
}

/* ---- the changes ---- */

static int nothing(void)
{
	return 0;
}

static int libc_munmap(void)
{
	return munmap(a.place, AGAINST_PLACE) ? -errno : map_anew();
}

static int libc_fixed(void)
{
	return mmap(a.place, AGAINST_PLACE, RW, FLAGS | MAP_FIXED, -1, 0) == a.place
		       ? 0
		       : -errno;
}

static int libc_dontneed(void)
{
	return madvise(a.place, AGAINST_PLACE, MADV_DONTNEED) ? -errno : 0;
}

static int libc_mremap(void)
{
	a.moved = mremap(a.place, AGAINST_PLACE, 2 * AGAINST_PLACE, MREMAP_MAYMOVE);
	return a.moved == MAP_FAILED ? -errno : map_anew();
}

static int raw_munmap(void)
{
	int err = raw_unmap(a.place);

	return err ? err : raw_map(a.place, MAP_FIXED_NOREPLACE);
}

static int raw_fixed(void)
{
	return raw_map(a.place, MAP_FIXED);
}

static int raw_dontneed(void)
{
	return syscall(SYS_madvise, a.place, AGAINST_PLACE, MADV_DONTNEED) ? -errno : 0;
}

static int raw_mremap(void)
{
	a.moved = (void *)syscall(SYS_mremap, a.place, AGAINST_PLACE, 2 * AGAINST_PLACE,
				  MREMAP_MAYMOVE);
	if (a.moved == MAP_FAILED)
		return -errno;
	return raw_map(a.place, MAP_FIXED_NOREPLACE);
}

/* What was registered may not be used any more; a lookup should find that out by
 * registering. */
static int none(void)
{
	return mprotect(a.place, AGAINST_PLACE, PROT_NONE) ? -errno : 0;
}

static int libc_shmdt(void)
{
	if (shmdt(a.place))
		return -errno;
	return shmat(a.shm[1], a.place, 0) == a.place ? 0 : -errno;
}

static int raw_shmdt(void)
{
	if (syscall(SYS_shmdt, a.place))
		return -errno;
	return shmat(a.shm[1], a.place, 0) == a.place ? 0 : -errno;
}

/* Its unmap has let go of the address, but may not have returned, when we have mapped it.
 */
static int race(void)
{
	int err;

	atomic_store(&a.turn, 1);
	do {
		err = raw_map(a.place, MAP_FIXED_NOREPLACE);
	} while (err == -EEXIST);
	return err;
}

static void *unmapper(void *arg)
{
	int turn;

	while ((turn = atomic_load(&a.turn)) >= 0) {
		if (turn == 1) {
			raw_unmap(a.place);
			atomic_compare_exchange_strong(&a.turn, &turn, 2);
		}
		sched_yield();
	}
	return NULL;
}

static void await_unmapper(void)
{
	while (atomic_load(&a.turn) == 1)
		sched_yield();
	atomic_store(&a.turn, 0);
}

static const struct row {
	const char *name, *what;
	int (*change)(void);
	bool shm;
} rows[] = {
	{ "unchanged", "nothing changes: these are misses, not stale hits", nothing,
	  false },
	{ "munmap", "libc's munmap, and mmap there", libc_munmap, false },
	{ "fixed", "libc's mmap(MAP_FIXED) over it", libc_fixed, false },
	{ "dontneed", "libc's madvise(DONTNEED)", libc_dontneed, false },
	{ "mremap", "libc's mremap away, and mmap there", libc_mremap, false },
	{ "shmdt", "libc's shmdt, and another segment there", libc_shmdt, true },
	{ "raw-munmap", "the system call, and mmap there", raw_munmap, false },
	{ "raw-fixed", "the system call mmap(MAP_FIXED) over it", raw_fixed, false },
	{ "raw-dontneed", "the system call madvise(DONTNEED)", raw_dontneed, false },
	{ "raw-mremap", "the system call mremap away, and mmap there", raw_mremap, false },
	{ "raw-shmdt", "the system call shmdt, and another segment there", raw_shmdt,
	  true },
	{ "mprotect-none", "mprotect(PROT_NONE)", none, false },
	{ "raw-race", "another thread's munmap; mapped as soon as it lets go", race,
	  false },
};

#define ROWS (sizeof(rows) / sizeof(*rows))
_Static_assert(ROWS <= AGAINST_ROWS, "a column has room for the rows");

const char *against_row(unsigned row)
{
	return row < ROWS ? rows[row].name : NULL;
}

const char *against_row_what(unsigned row)
{
	return row < ROWS ? rows[row].what : NULL;
}

/* ---- the rounds ---- */

/* Where nobody's mmap(NULL) takes the place between an unmap and the next map. */
static int find_place(void)
{
	char *at = (char *)UINT64_C(0x200000000000);

	if (raw_map(at, MAP_FIXED_NOREPLACE))
		return -ENOMEM;
	raw_unmap(at);
	a.place = at;
	a.behind = at + AGAINST_PLACE;
	return raw_map(a.behind, MAP_FIXED_NOREPLACE);
}

static int make_segments(void)
{
	for (int i = 0; i < 2; i++) {
		a.shm[i] = shmget(IPC_PRIVATE, AGAINST_PLACE, IPC_CREAT | 0600);
		if (a.shm[i] < 0)
			return -errno;
		a.shm_kept[i] = shmat(a.shm[i], NULL, 0);
		shmctl(a.shm[i], IPC_RMID, NULL);
		if (a.shm_kept[i] == (void *)-1)
			return -errno;
	}
	return 0;
}

static int begin(const struct against_peer *peer, const struct row *row, uint64_t *serial)
{
	int err = 0;

	raw_unmap(a.place);
	if (a.moved)
		syscall(SYS_munmap, a.moved, 2 * AGAINST_PLACE);
	a.moved = NULL;
	peer->forget(a.place, AGAINST_PLACE);
	if (!row->shm)
		err = raw_map(a.place, MAP_FIXED_NOREPLACE);
	else if (shmat(a.shm[0], a.place, 0) != a.place)
		err = -errno;
	if (err)
		return err;
	for (size_t i = 0; i < AGAINST_PLACE; i += 4096)
		((volatile char *)a.place)[i] = 1;
	return peer->lookup(a.place, AGAINST_PLACE, serial);
}

static int one_round(const struct against_peer *peer, unsigned r, uint64_t i,
		     struct against_cells *cells)
{
	uint64_t first = 0, before = 0, after = 0;
	const struct row *row = &rows[r];
	bool wrong;
	int err = 0;

	/* That nothing has changed is meant: the rounds share one mapping. */
	if (row->change != nothing || !i)
		err = begin(peer, row, &first);
	if (!err)
		err = peer->lookup(a.place, AGAINST_PLACE, &before);
	if (!err)
		err = row->change();
	if (!err)
		err = peer->lookup(a.place, AGAINST_PLACE, &after);
	if (row->change == race)
		await_unmapper();
	if (err)
		return err;
	wrong = row->change == nothing ? after != before : after == before;
	cells->row[r].rounds++;
	cells->row[r].stale += wrong;
	cells->row[r].kept += row->change == nothing ? !wrong : before == first;
	return 0;
}

static int run_rounds(const struct against_peer *peer, unsigned row, uint64_t rounds,
		      struct against_cells *cells)
{
	int err = 0;

	for (uint64_t i = 0; i < rounds && !err; i++)
		err = one_round(peer, row, i, cells);
	return err;
}

static int run_row(const struct against_peer *peer, unsigned row, uint64_t rounds,
		   struct against_cells *cells)
{
	pthread_t thread;
	int err;

	if (rows[row].change != race)
		return run_rounds(peer, row, rounds, cells);
	atomic_store(&a.turn, 0);
	err = -pthread_create(&thread, NULL, unmapper, NULL);
	if (err)
		return err;
	err = run_rounds(peer, row, rounds, cells);
	atomic_store(&a.turn, -1);
	pthread_join(thread, NULL);
	return err;
}

void against_run(const struct against_peer *peer, uint64_t rounds,
		 struct against_cells *cells,
		 void (*progress)(const struct against_peer *peer, unsigned row))
{
	bool segments = !make_segments();
	int err = find_place();

	snprintf(cells->why, sizeof(cells->why), "no free place in the address space");
	if (!err)
		err = peer->open(cells->why, sizeof(cells->why));
	for (unsigned row = 0; row < ROWS && !err; row++) {
		if (rows[row].shm && !segments)
			continue; /* no rounds: it says so */
		if (progress)
			progress(peer, row);
		err = run_row(peer, row, rounds, cells);
		if (err)
			snprintf(cells->why, sizeof(cells->why), "%s: %s", rows[row].name,
				 strerror(-err));
	}
	cells->err = err;
}
