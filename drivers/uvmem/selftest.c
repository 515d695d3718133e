/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * selftest of uvmem - what `uhmm drivers --selftest uvmem` and `uhmm secure selftest` run:
 * a secret goes in, is counted on, and every way to look at it from outside is tried.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <uhmm/driver.h>
#include <uhmm/uvmem.h>

#define PAGE 4096u
#define PAGES 64u
#define SIZE (PAGES * PAGE)

struct test {
	struct uvmem *uv;
	unsigned char *mapped, *memory;
};

/* Of page p, byte i. */
static unsigned char plain(unsigned p, unsigned i)
{
	return (unsigned char)(p * 31 + i * 7 + 1);
}

static int is_plain(const unsigned char *bytes, unsigned p)
{
	unsigned i, same = 0;

	for (i = 0; i < PAGE; i++)
		same += bytes[i] == plain(p, i);
	return same > PAGE / 4; /* by chance it is a 256th */
}

static int begin(struct test *t)
{
	const struct uvmem_options options = { .size = sizeof(options), .frames = PAGES };
	int err = uvmem_open(&options, &t->uv);
	unsigned i;

	if (err)
		return err;
	t->mapped = mmap(NULL, SIZE + 2 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (t->mapped == MAP_FAILED)
		return -ENOMEM;
	t->memory = t->mapped + PAGE; /* not beside libc's (devmem.h) */
	for (i = 0; i < SIZE; i++)
		t->memory[i] = plain(i / PAGE, i % PAGE);
	err = uvmem_init_start(t->uv, t->memory, SIZE);
	return err ? err : uvmem_init_done(t->uv);
}

/* On the secure side: all pages hold what they did. */
static int check(struct uvmem_side *side, void *arg)
{
	struct test *t = arg;
	unsigned char page[PAGE];
	unsigned p, i;
	int err;

	for (p = 0; p < PAGES; p++) {
		err = uvmem_load(side, page, t->memory + p * PAGE, PAGE);
		if (err)
			return err;
		for (i = 0; i < PAGE; i++)
			if (page[i] != plain(p, i))
				return -EIO;
	}
	return 0;
}

static int secure_side(struct test *t)
{
	return uvmem_run(t->uv, check, t);
}

static int plain_load(struct test *t)
{
	unsigned p;

	for (p = 0; p < PAGES; p++)
		if (is_plain(t->memory + p * PAGE, p))
			return -EIO;
	return uvmem_run(t->uv, check, t);
}

/* The kernel does not wait for a page that is in: an error, as good as sealed bytes. */
static int proc_mem(struct test *t)
{
	int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC), err = 0;
	unsigned char page[PAGE];
	unsigned p, round;

	if (fd < 0)
		return -errno;
	for (round = 0; round < 2 && !err; round++) {
		for (p = 0; p < PAGES && !err; p++) {
			off_t at = (off_t)(uintptr_t)t->memory + p * PAGE;
			ssize_t n = pread(fd, page, PAGE, at);

			if ((n != PAGE && (round || n >= 0)) ||
			    (n == PAGE && is_plain(page, p)))
				err = -EIO;
		}
		if (!err && uvmem_page_out(t->uv, t->memory, SIZE) < 0)
			err = -EIO;
	}
	close(fd);
	return err;
}

static int forked_child(struct test *t)
{
	int status = 0;
	pid_t child = fork();
	unsigned p, bad = 0;

	if (child < 0)
		return -errno;
	if (!child) {
		for (p = 0; p < PAGES; p++)
			bad += (unsigned)is_plain(t->memory + p * PAGE, p);
		bad += uvmem_run(t->uv, check, t) != -ENODEV;
		_exit(bad ? 1 : 0);
	}
	if (waitpid(child, &status, 0) != child || status)
		return -EIO;
	return uvmem_run(t->uv, check, t);
}

/*
 * Changed; older; and another's. Each is refused, and then the right bytes are taken again.
 */
static int forgeries(struct test *t)
{
	unsigned char old[PAGE], now[PAGE];

	if (uvmem_page_out(t->uv, t->memory, 2 * PAGE) < 0)
		return -EIO;
	t->memory[100] ^= 1;
	if (uvmem_run(t->uv, check, t) != -EBADMSG)
		return -EIO;
	t->memory[100] ^= 1;
	memcpy(old, t->memory, PAGE);
	if (uvmem_run(t->uv, check, t) || uvmem_page_out(t->uv, t->memory, 2 * PAGE) < 0)
		return -EIO;
	memcpy(now, t->memory, PAGE);
	if (!memcmp(old, now, PAGE))
		return -EIO; /* one number for two sealings */
	memcpy(t->memory, old, PAGE);
	if (uvmem_run(t->uv, check, t) != -EBADMSG)
		return -EIO;
	memcpy(t->memory, t->memory + PAGE, PAGE);
	if (uvmem_run(t->uv, check, t) != -EBADMSG)
		return -EIO;
	memcpy(t->memory, now, PAGE);
	return uvmem_run(t->uv, check, t);
}

struct filing {
	struct test *t;
	int fd;
};

/* The key of a real program would not lie in ordinary memory. */
static const unsigned char key[UVMEM_KEY_BYTES] = "not a secret of anybody";

static int put(struct uvmem_side *side, void *arg)
{
	const struct filing *filing = arg;

	return uvmem_export(side, filing->fd, key, 5);
}

static int get(struct uvmem_side *side, void *arg)
{
	const struct filing *filing = arg;
	uint64_t generation = 0;
	int err = uvmem_import(side, filing->fd, key, 5, &generation);

	return err || generation == 5 ? err : -EIO;
}

static int file(struct test *t)
{
	struct filing filing = { t, memfd_create("uhmm-uvmem-selftest", MFD_CLOEXEC) };
	int err = filing.fd < 0 ? -errno : uvmem_run(t->uv, put, &filing);

	if (!err)
		err = uvmem_erase(t->uv, t->memory, SIZE);
	if (!err && lseek(filing.fd, 0, SEEK_SET))
		err = -EIO;
	if (!err)
		err = uvmem_run(t->uv, get, &filing);
	if (!err)
		err = uvmem_run(t->uv, check, t);
	if (filing.fd >= 0)
		close(filing.fd);
	return err;
}

static int selftest(char *why, size_t size)
{
	static const struct {
		const char *what;
		int (*run)(struct test *t);
	} steps[] = {
		{ "256 KiB become secure", begin },
		{ "the secure side reads them", secure_side },
		{ "a plain load sees sealed bytes", plain_load },
		{ "/proc/self/mem sees sealed bytes", proc_mem },
		{ "a forked child sees sealed bytes", forked_child },
		{ "changed, replayed and swapped pages are refused", forgeries },
		{ "to a file and back", file },
	};
	struct test t = { .memory = MAP_FAILED };
	struct uvmem_stats stats = { .size = sizeof(stats) };
	size_t i;
	int err = 0;

	for (i = 0; i < sizeof(steps) / sizeof(*steps) && !err; i++) {
		err = steps[i].run(&t);
		if (err)
			snprintf(why, size, "%s: %s", steps[i].what,
				 err == -EIO ? "wrong answer" : uvmem_strerror(err));
	}
	if (!err) {
		uvmem_get_stats(t.uv, &stats);
		snprintf(why, size, "%zu steps, %llu pages sealed, %llu refused, %s", i,
			 (unsigned long long)stats.sealed,
			 (unsigned long long)stats.refused,
			 stats.cipher == UVMEM_CIPHER_AES256GCM ? "AES-256-GCM"
								: "XChaCha20-Poly1305");
	}
	uvmem_close(t.uv);
	if (t.mapped != MAP_FAILED)
		munmap(t.mapped, SIZE + 2 * PAGE);
	return err;
}

static int usable(char *why, size_t size)
{
	const struct uvmem_options small = { .size = sizeof(small),
					     .frames = 16,
					     .sides = 1 };
	int err = uvmem_available(why, size);
	struct uvmem *uv;

	if (err)
		return err;
	err = uvmem_open(&small, &uv); /* the mirror, and device memory */
	if (err)
		snprintf(why, size, "%s", hmm_strerror(err));
	else
		uvmem_close(uv);
	return err;
}

extern const struct uhmm_driver uhmm_driver_uvmem;
const struct uhmm_driver uhmm_driver_uvmem = {
	.name = "uvmem",
	.stands_for = "book3s_hv_uvmem",
	.what = "secure memory: what leaves it leaves sealed",
	.usable = usable,
	.selftest = selftest,
};
