/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of uring - what `uhmm drivers --selftest uring` runs, and a program that shows
 * how the device is used: files are read into memory, and written from it, at any address.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <uhmm/driver.h>
#include <uhmm/uring.h>

#define PAGE 4096
#define PAGES 64
#define SIZE (PAGES * PAGE)
#define ROUNDS 500

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

struct test {
	struct uring *dev;
	int file;     /* of SIZE bytes */
	char *memory; /* of SIZE bytes */
};

static char *map_at(void *where, int fixed)
{
	void *memory = mmap(where, SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | fixed, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* A word of the file goes to memory by the device. */
static int put(struct test *t, void *at, unsigned word)
{
	int64_t n;

	if (pwrite(t->file, &word, sizeof(word), 0) != sizeof(word))
		return -errno;
	n = uring_read(t->dev, t->file, 0, at, sizeof(word));
	return n < 0 ? (int)n : n == sizeof(word) ? 0 : -EIO;
}

/* The device reads a word; is it `word`? */
static int see(struct test *t, const void *at, unsigned word)
{
	unsigned seen = ~word;
	int64_t n = uring_write(t->dev, t->file, 0, at, sizeof(seen));

	if (n != sizeof(seen))
		return n < 0 ? (int)n : -EIO;
	if (pread(t->file, &seen, sizeof(seen), 0) != sizeof(seen))
		return -errno;
	return seen == word ? 0 : -EIO;
}

/* Across page borders: memory to the file, and from it to other memory. */
static int both_ways(struct test *t)
{
	const size_t n = SIZE / 2 - 300;

	for (size_t i = 0; i < SIZE / 2; i++)
		t->memory[i] = (char)(i * 7 + i / 4096);
	if (uring_write(t->dev, t->file, 100, t->memory + 100, n) != (int64_t)n)
		return -EIO;
	if (uring_read(t->dev, t->file, 100, t->memory + SIZE / 2 + 77, n) != (int64_t)n)
		return -EIO;
	return memcmp(t->memory + 100, t->memory + SIZE / 2 + 77, n) ? -EIO : 0;
}

/* As read(2): short at the end of the file, then nothing. */
static int file_end(struct test *t)
{
	if (uring_read(t->dev, t->file, SIZE - 5000, t->memory, SIZE) != 5000 ||
	    uring_read(t->dev, t->file, SIZE, t->memory, 1) != 0)
		return -EIO;
	return 0;
}

/* Other memory at the same address, again and again: a pin of the old is never used. */
static int remapped(struct test *t)
{
	int err = 0;

	for (unsigned i = 1; i <= ROUNDS && !err; i++) {
		if (munmap(t->memory, SIZE) ||
		    map_at(t->memory, MAP_FIXED_NOREPLACE) != t->memory)
			return -errno;
		err = see(t, t->memory + 8, 0);
		if (!err)
			err = put(t, t->memory + 8, i);
		if (!err && *(unsigned *)(t->memory + 8) != i)
			err = -EIO;
	}
	return err;
}

static int protections(struct test *t)
{
	int err = put(t, t->memory, 1);

	if (err)
		return err;
	if (mprotect(t->memory, SIZE, PROT_READ))
		return -errno;
	if (put(t, t->memory, 2) != -EPERM || see(t, t->memory, 1))
		return -EIO;
	if (mprotect(t->memory, SIZE, PROT_NONE))
		return -errno;
	if (see(t, t->memory, 1) != -EFAULT)
		return -EIO;
	if (mprotect(t->memory, SIZE, PROT_READ | PROT_WRITE))
		return -errno;
	return put(t, t->memory, 3);
}

/* Changes that nobody tells: the pinned page is no more what a CPU finds. */
static int silent(struct test *t)
{
	int err = put(t, t->memory, 4), fd = memfd_create("uhmm-uring", MFD_CLOEXEC);
	char *shared = MAP_FAILED;

	if (!err && !madvise(t->memory, PAGE, MADV_GUARD_INSTALL)) {
		if (see(t, t->memory, 4) != -EFAULT ||
		    madvise(t->memory, PAGE, MADV_GUARD_REMOVE))
			err = -EIO;
	}
	if (fd >= 0 && !ftruncate(fd, SIZE))
		shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (!err)
		err = shared == MAP_FAILED ? -ENOMEM : put(t, shared, 5);
	if (!err && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE))
		err = -errno;
	if (!err)
		err = put(t, shared + 4, 6);
	if (!err && (((unsigned *)shared)[0] != 0 || ((unsigned *)shared)[1] != 6))
		err = -EIO;
	if (shared != MAP_FAILED)
		munmap(shared, SIZE);
	close(fd);
	return err;
}

/* A shared mapping of a file is not pinned for writing: it is bounced. */
static int bounced(struct test *t)
{
	int fd = open("/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), err = 0;
	char *shared = MAP_FAILED;

	if (fd < 0 || ftruncate(fd, SIZE))
		goto out; /* no such file here: nothing to see */
	shared = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (shared == MAP_FAILED)
		goto out;
	strcpy(shared, "CPU");
	err = put(t, shared + 4, 7);
	if (!err)
		err = see(t, shared, *(unsigned *)"CPU");
	if (!err && (strcmp(shared, "CPU") || ((unsigned *)shared)[1] != 7))
		err = -EIO;
	munmap(shared, SIZE);
out:
	if (fd >= 0)
		close(fd);
	return err;
}

/* The kernel pins a clean page and leaves it clean; what the device wrote stays all the
 * same. */
static int written_is_dirty(struct test *t)
{
	int err;

	memset(t->memory, 1, PAGE);
	if (madvise(t->memory, PAGE, MADV_FREE))
		return -errno;
	err = see(t, t->memory + 4, t->memory[4] ? 0x01010101 : 0); /* pins it */
	if (!err)
		err = put(t, t->memory, 8);
	if (!err && mprotect(t->memory, SIZE, PROT_READ)) /* takes the pin away */
		err = -errno;
	if (!err)
		err = hmm_dma_fence(uring_dma(t->dev), (uintptr_t)t->memory, PAGE);
	madvise(t->memory, PAGE, MADV_PAGEOUT);
	if (!err && *(unsigned *)t->memory != 8)
		err = -EIO;
	mprotect(t->memory, SIZE, PROT_READ | PROT_WRITE);
	return err;
}

/* What is present can be registered ahead, and nothing else is. */
static int registered(struct test *t)
{
	int64_t n;

	if (munmap(t->memory, SIZE) || map_at(t->memory, MAP_FIXED_NOREPLACE) != t->memory)
		return -errno;
	t->memory[PAGE] = 1;
	n = uring_register(t->dev, t->memory, SIZE);
	if (n < 1) /* more with what is present beside it in the same chunks */
		return n < 0 ? (int)n : -EIO;
	if (!uring_lookup(t->dev, t->memory + PAGE) || uring_lookup(t->dev, t->memory))
		return -EIO;
	return see(t, t->memory + PAGE, 1);
}

static const struct step {
	const char *what;
	int (*run)(struct test *t);
	bool fixed_only;
} steps[] = {
	{ "from memory to a file and back", both_ways, false },
	{ "the end of a file", file_end, false },
	{ "memory mapped anew is seen anew", remapped, false },
	{ "read-only and PROT_NONE hold for the device", protections, false },
	{ "guard pages and punched holes", silent, false },
	{ "a shared mapping of a file", bounced, false },
	{ "what was written to a clean page stays", written_is_dirty, true },
	{ "registered ahead", registered, true },
};

static int run_steps(const struct uring_options *options, struct test *t, char *why,
		     size_t size)
{
	int err = uring_open(options, &t->dev);

	if (err) {
		snprintf(why, size, "open: %s", hmm_strerror(err));
		return err;
	}
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps) && !err; i++) {
		if (steps[i].fixed_only && !options->fixed)
			continue;
		err = steps[i].run(t);
		if (err)
			snprintf(why, size, "%s%s: %s", steps[i].what,
				 options->fixed ? "" : " (plain)",
				 err == -EIO ? "wrong answer" : hmm_strerror(err));
	}
	return err;
}

/* Registered buffers; with chunks; too few of them; and none. */
static const struct uring_options variants[] = {
	{ .size = sizeof(struct uring_options), .fixed = true },
	{ .size = sizeof(struct uring_options), .fixed = true, .chunk = 65536 },
	{ .size = sizeof(struct uring_options), .fixed = true, .buffers = 8 },
	{ .size = sizeof(struct uring_options) },
};

static int selftest(char *why, size_t size)
{
	struct uring_stats stats = { .size = sizeof(stats) };
	struct test t = { .memory = map_at(NULL, 0),
			  .file = memfd_create("uhmm-uring", MFD_CLOEXEC) };
	uint64_t requests = 0, invalidations = 0;
	int err = t.memory && t.file >= 0 && !ftruncate(t.file, SIZE) ? 0 : -ENOMEM;

	for (size_t i = 0; i < sizeof(variants) / sizeof(*variants) && !err; i++) {
		err = run_steps(&variants[i], &t, why, size);
		if (t.dev)
			uring_get_stats(t.dev, &stats);
		requests += stats.requests;
		invalidations += stats.invalidations;
		uring_close(t.dev);
		t.dev = NULL;
	}
	if (!err)
		snprintf(why, size, "%zu steps, %llu requests, %llu invalidations",
			 sizeof(steps) / sizeof(*steps), (unsigned long long)requests,
			 (unsigned long long)invalidations);
	if (t.memory)
		munmap(t.memory, SIZE);
	if (t.file >= 0)
		close(t.file);
	return err;
}

static int usable(char *why, size_t size)
{
	int err = uhmm_driver_needs_mirror(why, size);
	struct io_uring ring;

	if (err)
		return err;
	err = io_uring_queue_init(1, &ring, 0);
	if (err)
		snprintf(why, size,
			 "no io_uring: %s (see kernel.io_uring_disabled; containers block "
			 "it by seccomp)",
			 strerror(-err));
	else
		io_uring_queue_exit(&ring);
	return err;
}

extern const struct uhmm_driver uhmm_driver_uring;
const struct uhmm_driver uhmm_driver_uring = {
	.name = "uring",
	.stands_for = "a device that pins memory and knows no page faults",
	.what = "file I/O by io_uring into registered buffers at any address",
	.usable = usable,
	.selftest = selftest,
};
