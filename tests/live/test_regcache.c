/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_regcache - registrations that are kept, while others change the memory (R1, R2, R3).
 *
 * Memory is slots of four pages. A change of a slot has a number: `begun` says it before
 * the system calls, `ended` after them, and what the pages hold in between. A registration
 * notes which changes had begun; one that is found after a change has ended, and was made
 * before it began, is stale. With pins a device (registered buffers of io_uring) also reads
 * the slot by them, and if no change has begun meanwhile it must find the number there.
 *
 * The last two cases leave out the look at the pins, and the fence: there they must find
 * what the others may not.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/regcache.h>

#include "live.h"
#include "uapi.h"

#define PAGE ((size_t)4096)
#define RW (PROT_READ | PROT_WRITE)
#define SLOT_PAGES 4u
#define SLOT_BYTES (SLOT_PAGES * PAGE)
#define SLOTS 16u
#define GETTERS 4u
#define CHANGERS 2u
#define KEYS (1u << 20)
#define BUFFERS 4096u

/* A registration; never used twice. */
struct key {
	uintptr_t start, end;
	_Atomic bool used;
	unsigned buffer;
	uint64_t begun[SLOTS];
};

struct setting {
	bool pinned, unlooked, unfenced; /* unlooked: the cache is not told of the pins */
	unsigned max_regions;
	uint64_t rounds;
};

struct rig {
	const struct setting *how;
	struct hmm *hmm;
	struct hmm_regcache *cache;
	char *memory, *spare; /* spare: two slots for each changer, for what is moved */
	struct key *key;
	atomic_uint keys, deregs, wrong; /* wrong: a handle that is not registered */
	_Atomic uint64_t begun[SLOTS], ended[SLOTS];
	_Atomic uint64_t real[SLOTS];	   /* the last that makes a registration stale */
	_Atomic uint64_t read_only[SLOTS]; /* the last that forbids to write */
	_Atomic uint64_t rounds, stale, changed, compared, lies, refused;
	atomic_uint failed_changes;
	atomic_bool stop;
	/* Pinned. */
	pthread_mutex_t lock;
	struct io_uring ring;
	int file;
	unsigned buffer[BUFFERS], buffers; /* that are free */
};

struct actor {
	struct rig *rig;
	unsigned number;
	pthread_t thread;
};

static char *slot_at(const struct rig *rig, unsigned slot)
{
	return rig->memory + slot * SLOT_BYTES;
}

/* ---- the driver ---- */

static int set_buffer(struct rig *rig, unsigned buffer, uintptr_t start, size_t length)
{
	struct iovec iov = { .iov_base = (void *)start, .iov_len = length };
	int n = io_uring_register_buffers_update_tag(&rig->ring, buffer, &iov, NULL, 1);

	return n == 1 ? 0 : n < 0 ? n : -EIO;
}

static int pin(struct rig *rig, struct key *key)
{
	int err = -ENOSPC;

	pthread_mutex_lock(&rig->lock);
	if (rig->buffers) {
		key->buffer = rig->buffer[rig->buffers - 1];
		err = set_buffer(rig, key->buffer, key->start, key->end - key->start);
		rig->buffers -= !err;
	}
	pthread_mutex_unlock(&rig->lock);
	return err;
}

static int reg(void *priv, uintptr_t start, size_t length, unsigned access, void **handle)
{
	struct rig *rig = priv;
	unsigned number = rig->keys++;
	struct key *key = &rig->key[number % KEYS];
	int err = 0;

	if (number >= KEYS)
		return -EIO;
	key->start = start;
	key->end = start + length;
	for (unsigned i = 0; i < SLOTS; i++)
		key->begun[i] = rig->begun[i];
	if (rig->how->pinned)
		err = pin(rig, key);
	key->used = !err;
	*handle = key;
	rig->deregs += !!err;
	return err;
}

static void dereg(void *priv, void *handle, uintptr_t start, size_t length)
{
	struct rig *rig = priv;
	struct key *key = handle;

	rig->wrong += key->start != start || key->end != start + length;
	rig->wrong += !atomic_exchange(&key->used, false);
	if (rig->how->pinned) {
		pthread_mutex_lock(&rig->lock);
		rig->wrong += set_buffer(rig, key->buffer, 0, 0) != 0;
		rig->buffer[rig->buffers++] = key->buffer;
		pthread_mutex_unlock(&rig->lock);
	}
	rig->deregs++;
}

static const struct hmm_regcache_ops ops = { .size = sizeof(ops),
					     .reg = reg,
					     .dereg = dereg };

/* What the device finds: 8 bytes of it by way of a file. */
static int read_by_device(struct rig *rig, const struct key *key, const char *at,
			  unsigned number, uint64_t *value)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	int err;

	pthread_mutex_lock(&rig->lock);
	sqe = io_uring_get_sqe(&rig->ring);
	io_uring_prep_write_fixed(sqe, rig->file, at, sizeof(*value),
				  number * sizeof(*value), (int)key->buffer);
	io_uring_submit(&rig->ring);
	err = io_uring_wait_cqe(&rig->ring, &cqe);
	if (!err) {
		err = cqe->res == sizeof(*value) ? 0 : cqe->res < 0 ? cqe->res : -EIO;
		io_uring_cqe_seen(&rig->ring, cqe);
	}
	pthread_mutex_unlock(&rig->lock);
	if (!err && pread(rig->file, value, sizeof(*value),
			  (off_t)(number * sizeof(*value))) != sizeof(*value))
		err = -EIO;
	return err;
}

/* ---- who uses it ---- */

static uint32_t random_of(uint32_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 17;
	return *x ^= *x << 5;
}

static void use(struct actor *a, const struct key *key, unsigned slot, uint64_t ended,
		uint32_t random)
{
	const char *at = slot_at(a->rig, slot) + random % SLOT_PAGES * PAGE;
	struct rig *rig = a->rig;
	uint64_t value = 0;
	int err;

	if (!rig->how->pinned || rig->begun[slot] != ended)
		return;
	err = read_by_device(rig, key, at, a->number, &value);
	/* No change has begun up to here, since the one whose number it is. */
	if (rig->begun[slot] != ended)
		return;
	rig->compared++;
	rig->lies += err || value != ended;
}

static void *gets(void *arg)
{
	struct actor *a = arg;
	struct rig *rig = a->rig;
	uint32_t x = 2463534242u + a->number;

	while (!rig->stop) {
		unsigned slot = random_of(&x) % SLOTS,
			 pages = 1 + random_of(&x) % SLOT_PAGES;
		unsigned access = random_of(&x) % 4 ? HMM_REGCACHE_WRITE : 0;
		uint64_t ended = rig->ended[slot], real = rig->real[slot];
		uint64_t read_only = rig->read_only[slot];
		struct hmm_region *region;
		const struct key *key;
		/* Over its end, too: then it has more than this slot. */
		uintptr_t at =
			(uintptr_t)slot_at(rig, slot) + random_of(&x) % (SLOT_PAGES * PAGE);
		int err = hmm_regcache_get(rig->cache, at, pages * PAGE, access,
					   rig->how->unfenced ? HMM_REGCACHE_FENCED : 0,
					   &region);

		rig->rounds++;
		if (err) {
			rig->refused++;
			rig->wrong += err != -EFAULT && err != -EPERM && err != -EBUSY;
			continue;
		}
		key = hmm_region_handle(region);
		rig->wrong += !key->used;
		rig->stale += key->begun[slot] < real;
		/* It is read-only before and after; what was undone is none of R1's. */
		if (access && read_only == ended && key->begun[slot] < read_only &&
		    rig->begun[slot] == ended)
			rig->stale++;
		/* The registration may begin in the middle of the slot. */
		if (key->start <= (uintptr_t)slot_at(rig, slot) &&
		    key->end >= (uintptr_t)slot_at(rig, slot + 1))
			use(a, key, slot, ended, random_of(&x));
		if (random_of(&x) % 256 == 0)
			usleep(50);
		rig->wrong += !key->used;
		rig->changed += hmm_regcache_put(region);
	}
	return NULL;
}

/* ---- who changes it ---- */

static bool map_at(void *at, int flags)
{
	return mmap(at, SLOT_BYTES, RW, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0) == at;
}

static void stamp(char *slot, uint64_t number)
{
	for (size_t i = 0; i < SLOT_PAGES; i++)
		*(volatile uint64_t *)(slot + i * PAGE) = number;
}

static bool map_over(struct actor *a, char *slot)
{
	return map_at(slot, MAP_FIXED);
}

static bool unmap_and_map(struct actor *a, char *slot)
{
	return !munmap(slot, SLOT_BYTES) && map_at(slot, MAP_FIXED_NOREPLACE);
}

static bool discard(struct actor *a, char *slot)
{
	return !madvise(slot, SLOT_BYTES, MADV_DONTNEED);
}

static bool move_over(struct actor *a, char *slot)
{
	char *spare = a->rig->spare + 2 * a->number * SLOT_BYTES;

	if (!map_at(spare, MAP_FIXED))
		return false;
	stamp(spare, UINT64_MAX);
	return mremap(spare, SLOT_BYTES, SLOT_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, slot) ==
		       slot &&
	       map_at(spare, MAP_FIXED_NOREPLACE);
}

static bool move_away(struct actor *a, char *slot)
{
	char *spare = a->rig->spare + (2 * a->number + 1) * SLOT_BYTES;

	return mremap(slot, SLOT_BYTES, SLOT_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, spare) ==
		       spare &&
	       map_at(slot, MAP_FIXED_NOREPLACE);
}

/* The memory stays what it was. */
static bool forbid(struct actor *a, char *slot)
{
	return !mprotect(slot, SLOT_BYTES, PROT_NONE) && !mprotect(slot, SLOT_BYTES, RW);
}

/* Here too, until the next change; and until then it may not be written to. */
static bool make_read_only(struct actor *a, char *slot)
{
	return !mprotect(slot, SLOT_BYTES, PROT_READ);
}

/* No event tells of it. Without pins nothing is stale by it. */
static bool guard(struct actor *a, char *slot)
{
	return (!madvise(slot, SLOT_BYTES, MADV_GUARD_INSTALL) &&
		!madvise(slot, SLOT_BYTES, MADV_GUARD_REMOVE)) ||
	       errno == EINVAL;
}

/*
 * The child has the pages too: whose is the pinned one when they are written to? The
 * parent's. What an address reads is the same, so nothing is stale by it either.
 */
static bool fork_it(struct actor *a, char *slot)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid > 0 && waitpid(pid, NULL, 0) == pid;
}

static bool (*const changes[])(struct actor *a, char *slot) = {
	map_over,  unmap_and_map, discard, move_over,
	move_away, forbid,	  guard,   make_read_only,
};
#define CHANGES (sizeof(changes) / sizeof(changes[0]))

/* Is what was registered before of other memory? */
static bool is_real(const struct rig *rig, bool (*it)(struct actor *a, char *slot))
{
	return it != fork_it && it != forbid && it != make_read_only &&
	       (it != guard || rig->how->pinned);
}

static void *change(void *arg)
{
	struct actor *a = arg;
	struct rig *rig = a->rig;
	uint32_t x = 88172645u + a->number;

	for (unsigned i = 0; !rig->stop; i++) {
		unsigned slot = random_of(&x) % (SLOTS / CHANGERS) * CHANGERS + a->number;
		char *at = slot_at(rig, slot);
		uint64_t number = rig->begun[slot] + 1;
		bool (*it)(struct actor * a, char *slot) = changes[random_of(&x) % CHANGES];

		if (i % 128 == 127)
			it = fork_it;
		rig->begun[slot] = number;
		mprotect(at, SLOT_BYTES, RW);
		if (it == make_read_only)
			stamp(at, number);
		if (!it(a, at))
			rig->failed_changes++;
		else if (it != make_read_only)
			stamp(at, number);
		if (is_real(rig, it))
			rig->real[slot] = number;
		if (it == make_read_only)
			rig->read_only[slot] = number;
		rig->ended[slot] = number;
		/* Some in a row, and then a while in which there is something to find. */
		if (random_of(&x) % 4 == 0)
			usleep(random_of(&x) % 512);
	}
	return NULL;
}

/* ---- cases ---- */

static enum verdict open_ring(struct rig *rig)
{
	int err = io_uring_queue_init(8, &rig->ring, 0);

	if (err)
		return live_skip("io_uring: %s", strerror(-err));
	err = io_uring_register_buffers_sparse(&rig->ring, BUFFERS);
	if (err)
		return live_skip("registered buffers: %s", strerror(-err));
	for (unsigned i = 0; i < BUFFERS; i++)
		rig->buffer[rig->buffers++] = i;
	rig->file = memfd_create("regcache", MFD_CLOEXEC);
	SYS(rig->file);
	return PASS;
}

/*
 * Far below where the kernel places what asks for no address, so that nobody else takes a
 * hole.
 */
static char *area_map(unsigned which, unsigned slots)
{
	char *at = (char *)(UINT64_C(0x210000000000) + ((uint64_t)which << 30));

	return mmap(at, slots * SLOT_BYTES, RW,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static enum verdict open_rig(struct rig *rig)
{
	struct hmm_regcache_options options = { .size = sizeof(options),
						.max_regions = rig->how->max_regions,
						.pinned = rig->how->pinned &&
							  !rig->how->unlooked };
	void *keys = mmap(NULL, KEYS * sizeof(struct key), RW,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(keys != MAP_FAILED, "no memory");
	/* A forked child does not want it. */
	madvise(keys, KEYS * sizeof(struct key), MADV_DONTFORK);
	rig->key = keys;
	rig->memory = area_map(0, SLOTS + 1);
	rig->spare = area_map(1, 2 * CHANGERS);
	CHECK(rig->memory != MAP_FAILED && rig->spare != MAP_FAILED, "no memory");
	madvise(rig->memory, (SLOTS + 1) * SLOT_BYTES, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i <= SLOTS; i++)
		stamp(slot_at(rig, i), 0);
	pthread_mutex_init(&rig->lock, NULL);
	if (rig->how->pinned)
		TRY(open_ring(rig));
	EXPECT(0, hmm_open(&rig->hmm));
	EXPECT(0, hmm_regcache_create(rig->hmm, &options, &ops, rig, &rig->cache));
	return PASS;
}

static void run(struct rig *rig)
{
	struct actor actors[GETTERS + CHANGERS];

	for (unsigned i = 0; i < GETTERS + CHANGERS; i++) {
		struct actor *a = &actors[i];

		*a = (struct actor){ .rig = rig, .number = i < GETTERS ? i : i - GETTERS };
		pthread_create(&a->thread, NULL, i < GETTERS ? gets : change, a);
	}
	while (rig->rounds < rig->how->rounds)
		usleep(1000);
	rig->stop = true;
	for (unsigned i = 0; i < GETTERS + CHANGERS; i++)
		pthread_join(actors[i].thread, NULL);
}

static bool numbers_are_told(const struct rig *rig)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (pread(fd, &entry, sizeof(entry),
			  (off_t)((uintptr_t)rig->memory / PAGE * sizeof(entry))) < 0)
			entry = 0;
		close(fd);
	}
	return entry & ((UINT64_C(1) << 55) - 1);
}

static enum verdict judge(struct rig *rig, const struct hmm_regcache_stats *stats)
{
	uint64_t changed = 0;

	for (unsigned i = 0; i < SLOTS; i++)
		changed += rig->ended[i];
	printf("  %lu gets, %lu hits, %u registrations, %lu changes, %lu put after one, "
	       "%lu of the pins only, %lu refused, %lu read by the device; %lu stale, %lu "
	       "wrong bytes\n",
	       rig->rounds, stats->hits, rig->keys, changed, rig->changed, stats->stale,
	       rig->refused, rig->compared, rig->stale, rig->lies);
	fflush(stdout);
	CHECK(!rig->failed_changes, "%u changes failed", rig->failed_changes);
	CHECK(!rig->wrong, "%u times a handle was not what it should be", rig->wrong);
	CHECK(rig->keys == rig->deregs, "%u registrations, %u taken back", rig->keys,
	      rig->deregs);
	CHECK(changed > 100, "nothing happened");
	/* To others the numbers of pages are not told: then nothing that is pinned is kept.
	 */
	if (!rig->how->pinned || rig->how->unlooked || numbers_are_told(rig))
		CHECK(stats->hits > 100, "nothing was found");
	else
		CHECK(!stats->hits, "something was kept");
	if (rig->how->unfenced) {
		CHECK(rig->stale,
		      "without a fence nothing was stale: the test cannot fail");
		return PASS;
	}
	if (rig->how->unlooked) {
		CHECK(rig->lies,
		      "the device never found other bytes: the test cannot fail");
		return PASS;
	}
	CHECK(!rig->stale, "%lu stale hits", rig->stale);
	CHECK(!rig->lies, "%lu times of %lu the device found other bytes", rig->lies,
	      rig->compared);
	if (rig->how->pinned)
		CHECK(rig->compared > 100, "the device compared %lu times", rig->compared);
	return PASS;
}

static enum verdict churn(const void *arg)
{
	struct hmm_regcache_stats stats = { .size = sizeof(stats) };
	static struct rig rig;

	rig.how = arg;
	TRY(open_rig(&rig));
	run(&rig);
	hmm_regcache_get_stats(rig.cache, &stats);
	hmm_regcache_destroy(rig.cache);
	hmm_put(rig.hmm);
	return judge(&rig, &stats);
}

int main(int argc, char **argv)
{
	static const struct setting plain = { .rounds = 1000000 };
	static const struct setting few = { .rounds = 300000, .max_regions = 4 };
	static const struct setting pins = { .rounds = 50000, .pinned = true };
	static const struct setting unlooked = { .rounds = 100000,
						 .pinned = true,
						 .unlooked = true };
	static const struct setting unfenced = { .rounds = 200000, .unfenced = true };
	static const struct live_case cases[] = {
		{ .name = "churned", .run = churn, .arg = &plain },
		{ .name = "churned and evicted", .run = churn, .arg = &few },
		{ .name = "pinned", .run = churn, .arg = &pins },
		{ .name = "pinned, without a look it is other memory",
		  .run = churn,
		  .arg = &unlooked },
		{ .name = "without a fence it is stale", .run = churn, .arg = &unfenced },
	};

	return live_main(argc, argv, cases, sizeof(cases) / sizeof(cases[0]));
}
