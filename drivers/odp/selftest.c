/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of odp - what `uhmm drivers --selftest odp` runs, and a program that shows how it is
 * used: a target and an initiator in one process, over the loopback.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/driver.h>
#include <uhmm/odp.h>

#define PAGE 4096
#define SIZE ((size_t)3 << 20)
#define ROUNDS 300

struct test {
	struct odp_target *target;
	struct odp_region *region;
	struct odp_key key;
	struct odp *odp;
	unsigned char *memory, *buffer;
};

static void *map_at(void *where, size_t length)
{
	void *at = mmap(where, length, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | (where ? MAP_FIXED : 0), -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

static int begin(struct test *t)
{
	int err = odp_target_open(NULL, &t->target);

	if (!err)
		err = odp_region_create(t->target, 0, UINTPTR_MAX,
					ODP_READ | ODP_WRITE | ODP_ATOMIC, &t->region);
	if (!err) {
		odp_region_key(t->region, &t->key);
		err = odp_connect(odp_target_address(t->target), NULL, &t->odp);
	}
	t->memory = map_at(NULL, SIZE);
	t->buffer = map_at(NULL, SIZE);
	return err ? err : t->memory && t->buffer ? 0 : -ENOMEM;
}

static void end(struct test *t)
{
	odp_close(t->odp);
	odp_region_destroy(t->region);
	odp_target_close(t->target);
	if (t->memory)
		munmap(t->memory, SIZE);
	if (t->buffer)
		munmap(t->buffer, SIZE);
}

/* All of it there and back, in pieces, from memory that nobody has touched. */
static int there_and_back(struct test *t)
{
	int err;

	for (size_t i = 0; i < SIZE; i++)
		t->buffer[i] = (unsigned char)(i * 7 + i / PAGE);
	err = odp_put(t->odp, &t->key, (uintptr_t)t->memory, t->buffer, SIZE);
	if (!err && memcmp(t->memory, t->buffer, SIZE))
		err = -EIO;
	memset(t->buffer, 0, SIZE);
	if (!err)
		err = odp_get(t->odp, &t->key, t->buffer, (uintptr_t)t->memory, SIZE);
	return err ? err : memcmp(t->memory, t->buffer, SIZE) ? -EIO : 0;
}

/* The page is another one each time; so is what the initiator gets. */
static int changes(struct test *t)
{
	for (unsigned round = 1; round <= ROUNDS; round++) {
		unsigned seen = 0;
		int err;

		if (round % 3 == 0)
			madvise(t->memory, PAGE, MADV_DONTNEED);
		else if (!map_at(t->memory, PAGE))
			return -ENOMEM;
		*(unsigned *)t->memory = round;
		err = odp_get(t->odp, &t->key, &seen, (uintptr_t)t->memory, sizeof(seen));
		if (err || seen != round)
			return err ? err : -EIO;
	}
	return 0;
}

static int atomics(struct test *t)
{
	uint64_t *word = (uint64_t *)(t->memory + PAGE), old;
	int err;

	*word = 5;
	err = odp_fetch_add(t->odp, &t->key, (uintptr_t)word, 10, &old);
	if (!err && (old != 5 || *word != 15))
		err = -EIO;
	if (!err)
		err = odp_compare_swap(t->odp, &t->key, (uintptr_t)word, 15, 16, &old);
	if (!err && (old != 15 || *word != 16))
		err = -EIO;
	if (!err)
		err = odp_atomic_write(t->odp, &t->key, (uintptr_t)word, 17);
	return err ? err : *word == 17 ? 0 : -EIO;
}

/* What cannot be had fails by itself; what can is had after it. */
static int refusals(struct test *t)
{
	struct odp_key wrong = t->key;
	unsigned seen;

	wrong.secret[3] ^= 1;
	if (odp_get(t->odp, &wrong, &seen, (uintptr_t)t->memory, sizeof(seen)) != -EACCES ||
	    odp_get(t->odp, &t->key, &seen, PAGE, sizeof(seen)) != -EFAULT ||
	    odp_fetch_add(t->odp, &t->key, (uintptr_t)t->memory + 4, 1, NULL) != -EINVAL)
		return -EIO;
	mprotect(t->memory, PAGE, PROT_READ);
	if (odp_put(t->odp, &t->key, (uintptr_t)t->memory, &seen, sizeof(seen)) != -EPERM)
		return -EIO;
	mprotect(t->memory, PAGE, PROT_READ | PROT_WRITE);
	return odp_put(t->odp, &t->key, (uintptr_t)t->memory, &seen, sizeof(seen));
}

static int selftest(char *why, size_t size)
{
	static const struct {
		const char *what;
		int (*run)(struct test *t);
	} parts[] = {
		{ "a target and a connection", begin },
		{ "3 MiB there and back", there_and_back },
		{ "memory that changes", changes },
		{ "atomics", atomics },
		{ "what has to be refused", refusals },
	};
	struct test t = { 0 };
	int err = 0;

	for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]) && !err; i++) {
		err = parts[i].run(&t);
		if (err)
			snprintf(why, size, "%s: %s", parts[i].what, hmm_strerror(err));
	}
	end(&t);
	return err;
}

const struct uhmm_driver uhmm_driver_odp = {
	.name = "odp",
	.stands_for = "mlx5 and rxe on-demand paging",
	.what = "get, put and atomics on the memory of another process, over libfabric",
	.usable = uhmm_driver_needs_mirror,
	.selftest = selftest,
};
