/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_attacks - what broke earlier designs, or the interfaces themselves, done to a
 * program that uses the library.
 *
 * Each way to change an address space that we know of, under a device with translations
 * of it; changes from many threads without pause; copies of descriptors in children.
 * Others of that family are cases of test_limits (shmdt, clone-vm-killed, sealed,
 * remap-after-unmap, fork-after-unmap, perf-overflow, child-outlives-mirror, raw-clone)
 * and of test_deadlock (malloc in a callback while another thread forks).
 *
 * Those that concern pages on the move are in test_devmem_attacks. Not here, because nothing
 * of the library pins pages yet: the write-protect bit as the identity of a page.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices.h"
#include "live.h"
#include "uapi.h"

#define PAGE ((size_t)4096)
#define RW (PROT_READ | PROT_WRITE)
#define PAGES 16
#define BLOCK ((size_t)2 << 20)

/* ---- every call that changes a mapping ---- */

struct change {
	const char *name;
	/* Change pages [4, 8) of `at`; 0, or errno: this kernel refuses. */
	int (*make)(char *at);
	bool file; /* of a memfd instead of anonymous memory */
};

static int errno_of(long result)
{
	return result == -1 ? errno : 0;
}

static int c_process_madvise(char *at)
{
	struct iovec v = { at + 4 * PAGE, 4 * PAGE };
	int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0), err;

	err = errno_of(syscall(SYS_process_madvise, pidfd, &v, 1, MADV_DONTNEED, 0));
	close(pidfd);
	return err;
}

static int c_dontneed_locked(char *at)
{
	int err = errno_of(mlock(at + 4 * PAGE, PAGE));

	return err ? err : errno_of(madvise(at + 4 * PAGE, 4 * PAGE, MADV_DONTNEED_LOCKED));
}

static int c_pageout(char *at)
{
	return errno_of(madvise(at, PAGES * PAGE, MADV_PAGEOUT));
}

static int c_cold(char *at)
{
	return errno_of(madvise(at, PAGES * PAGE, MADV_COLD));
}

static int c_collapse(char *at)
{
	return errno_of(madvise(at, BLOCK, MADV_COLLAPSE));
}

static int c_mergeable(char *at)
{
	return errno_of(madvise(at + 4 * PAGE, 4 * PAGE, MADV_MERGEABLE));
}

static int c_wipeonfork(char *at)
{
	pid_t pid;

	if (madvise(at + 4 * PAGE, 4 * PAGE, MADV_WIPEONFORK))
		return errno;
	pid = fork();
	if (!pid)
		_exit(at[4 * PAGE] || !at[0]);
	return live_wait(pid, 10);
}

static int c_dontfork(char *at)
{
	pid_t pid;

	if (madvise(at + 4 * PAGE, 4 * PAGE, MADV_DONTFORK))
		return errno;
	pid = fork();
	if (!pid)
		_exit(!at[0]);
	return live_wait(pid, 10);
}

static int c_pkey_mprotect(char *at)
{
	return errno_of(syscall(SYS_pkey_mprotect, at + 4 * PAGE, 4 * PAGE, PROT_READ, -1));
}

static int c_mem_write(char *at)
{
	int fd = open("/proc/self/mem", O_RDWR), err;
	char byte = 99;

	if (mprotect(at + 4 * PAGE, PAGE, PROT_READ))
		return errno;
	err = errno_of(pwrite(fd, &byte, 1, (off_t)(uintptr_t)(at + 4 * PAGE)));
	close(fd);
	/* Where only a debugger may (CONFIG_PROC_MEM_FORCE_PTRACE). */
	return err == EIO ? EOPNOTSUPP : err;
}

static int c_keep(char *at)
{
	char *to = mremap(at + 4 * PAGE, 4 * PAGE, 4 * PAGE,
			  MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	return errno_of((long)(intptr_t)to);
}

static int c_shm_over(char *at)
{
	int id = shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600);
	char *to = shmat(id, at + 4 * PAGE, SHM_REMAP);
	int err = errno_of((long)(intptr_t)to);

	shmctl(id, IPC_RMID, NULL);
	if (!err)
		memset(to, 5, PAGE);
	return err;
}

static int c_file_over(char *at)
{
	int fd = open("/proc/self/exe", O_RDONLY);
	void *p = mmap(at + 4 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);

	close(fd);
	return errno_of((long)(intptr_t)p);
}

static int c_remap_file_pages(char *at)
{
	return errno_of(syscall(SYS_remap_file_pages, at + 4 * PAGE, 2 * PAGE, 0, 12, 0));
}

/* mremap of length 0 of a shared mapping: a second mapping of the same pages. */
static int c_twin(char *at)
{
	char *twin = mremap(at, 0, PAGES * PAGE, MREMAP_MAYMOVE);

	if (twin == MAP_FAILED)
		return errno;
	twin[5 * PAGE] = 88;
	return errno_of(munmap(twin, PAGES * PAGE));
}

static int c_exchange(char *at)
{
	char *side = live_map(4 * PAGE, RW);

	side[0] = 77;
	side = mremap(side, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		      at + 4 * PAGE);
	return errno_of((long)(intptr_t)side);
}

static int c_vfork(char *at)
{
	pid_t pid = vfork();

	if (!pid)
		_exit(0);
	return live_wait(pid, 10);
}

static int c_system(char *at)
{
	return system(":") ? EAGAIN : 0;
}

static const struct change changes[] = {
	{ "process_madvise", c_process_madvise, false },
	{ "dontneed-locked", c_dontneed_locked, false },
	{ "pageout", c_pageout, false },
	{ "cold", c_cold, false },
	{ "collapse", c_collapse, false },
	{ "mergeable", c_mergeable, false },
	{ "wipeonfork", c_wipeonfork, false },
	{ "dontfork", c_dontfork, false },
	{ "pkey_mprotect", c_pkey_mprotect, false },
	{ "/proc/self/mem", c_mem_write, false },
	{ "mremap-dontunmap-piece", c_keep, false },
	{ "shmat-remap", c_shm_over, false },
	{ "file-over", c_file_over, false },
	{ "mremap-onto", c_exchange, false },
	{ "vfork", c_vfork, false },
	{ "system", c_system, false },
	{ "memfd-remap_file_pages", c_remap_file_pages, true },
	{ "memfd-mremap-0", c_twin, true },
	{ "memfd-dontneed-locked", c_dontneed_locked, true },
	{ "memfd-pageout", c_pageout, true },
	{ "memfd-mremap-dontunmap", c_keep, true },
	{ "memfd-file-over", c_file_over, true },
};

static char *memory(bool file)
{
	int fd = file ? memfd_create("uhmm-live", MFD_CLOEXEC) : -1;
	char *at;

	/* In a block that can become one huge page. */
	if (!file)
		return (char *)(((uintptr_t)live_map(2 * BLOCK, RW) + BLOCK - 1) & -BLOCK);
	if (ftruncate(fd, PAGES * PAGE))
		return NULL;
	at = mmap(NULL, PAGES * PAGE, RW, MAP_SHARED, fd, 0);
	close(fd);
	return at == MAP_FAILED ? NULL : at;
}

/* Is a store to the page allowed? The kernel's word for it, without a signal. */
static bool writable(const char *at)
{
	return !madvise((void *)(uintptr_t)at, PAGE, MADV_POPULATE_WRITE);
}

/* Page by page: what the CPU sees, and whether it may write, the device sees and may. */
static enum verdict agree(struct device *dev, char *at)
{
	for (size_t i = 0; i < PAGES; i++) {
		char *p = at + i * PAGE, byte;

		EXPECT((unsigned char)*p, device_byte(dev, p));
		byte = (char)(*p + 1);
		EXPECT(writable(p) ? 0 : -EPERM, device_write(dev, p, &byte, 1));
		if (writable(p))
			EXPECT(byte, *p);
		EXPECT((unsigned char)*p, device_byte(dev, p));
	}
	CHECK(!dev->driver->stale(dev), "stale translations were used");
	return PASS;
}

static enum verdict each_change(const void *arg)
{
	const struct change *change = arg;

	for (unsigned d = 0; d < live_driver_count; d++) {
		char *at = memory(change->file);
		struct device dev;
		int err;

		CHECK(at, "no memory");
		EXPECT(0, device_open(&live_drivers[d], &dev));
		for (size_t i = 0; i < PAGES; i++) {
			char byte = (char)(i + 1);

			EXPECT(0, device_write(&dev, at + i * PAGE, &byte, 1));
		}
		err = change->make(at);
		if (err && err != EINVAL && err != ENOSYS && err != EOPNOTSUPP &&
		    err != EBUSY && err != EAGAIN)
			FAILED("%s: %s", change->name, strerror(err));
		if (err)
			return live_skip("this kernel refuses it: %s", strerror(err));
		TRY(agree(&dev, at));
		device_close(&dev);
		munmap(at, PAGES * PAGE);
	}
	return PASS;
}

/* ---- storms ---- */

struct storm {
	char *at;
	atomic_bool *stop;
};

static void *dontneed_loop(void *arg)
{
	struct storm *s = arg;

	while (!*s->stop) {
		madvise(s->at, 4 * PAGE, MADV_DONTNEED);
		s->at[0] = 1;
	}
	return NULL;
}

/*
 * Threads in a DONTNEED loop keep "a change is pending" up for good. A fence must end all
 * the same: of other memory, and of theirs.
 */
static enum verdict storm(const void *arg)
{
	char *at = live_map(64 * PAGE, RW), *other = live_map(4 * PAGE, RW);
	const struct driver *driver = arg;
	struct storm storms[4];
	uint64_t worst = 0, began;
	atomic_bool stop = false;
	pthread_t threads[4];
	struct device dev;
	unsigned fences = 0;

	EXPECT(0, device_open(driver, &dev));
	other[0] = 9;
	for (int i = 0; i < 4; i++) {
		storms[i] = (struct storm){ at + i * 8 * PAGE, &stop };
		EXPECT(0, device_byte(&dev, storms[i].at));
		CHECK(!pthread_create(&threads[i], NULL, dontneed_loop, &storms[i]),
		      "no thread");
	}
	began = live_now_ns();
	while (live_race_on(began, UINT64_C(1500000000), fences > 20)) {
		uint64_t begin = live_now_ns();
		int byte = device_byte(&dev, fences % 2 ? other : at);

		begin = live_now_ns() - begin;
		worst = begin > worst ? begin : worst;
		if (fences++ % 2)
			EXPECT(9, byte);
		else
			CHECK(byte == 0 || byte == 1 || byte == -EBUSY, "reads %d", byte);
	}
	stop = true;
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	EXPECT((unsigned char)at[0], device_byte(&dev, at));
	CHECK(worst < UINT64_C(2000000000), "an access took %llu ms beside the storm",
	      (unsigned long long)(worst / 1000000));
	CHECK(fences > 20, "only %u accesses beside the storm", fences);
	device_close(&dev);
	return PASS;
}

/* New data that is written after DONTNEED has returned is never lost, device or not. */
static enum verdict new_data(const void *arg)
{
	char *at = live_map(6 * PAGE, RW); /* the storm takes the last four */
	const struct driver *driver = arg;
	struct storm s = { .at = at + 2 * PAGE };
	atomic_bool stop = false;
	pthread_t thread;
	struct device dev;

	s.stop = &stop;
	EXPECT(0, device_open(driver, &dev));
	EXPECT(0, device_byte(&dev, s.at));
	CHECK(!pthread_create(&thread, NULL, dontneed_loop, &s), "no thread");
	for (int i = 0; i < 700; i++) {
		unsigned char byte = (unsigned char)(i % 250 + 1);

		SYS(madvise(at, PAGE, MADV_DONTNEED));
		CHECK(!at[0], "the page still has old bytes after DONTNEED");
		at[1] = (char)byte;
		EXPECT(byte, device_byte(&dev, at + 1));
		EXPECT(0, device_write(&dev, at, &byte, 1));
		EXPECT(byte, (unsigned char)at[0]);
		EXPECT(byte, (unsigned char)at[1]);
	}
	stop = true;
	pthread_join(thread, NULL);
	device_close(&dev);
	return PASS;
}

/* ---- children ---- */

/* A child whose parent is gone: its memory is its own and whole. */
static enum verdict orphan(const void *arg)
{
	const struct driver *driver = arg;
	char *at = live_map(PAGES * PAGE, RW);
	volatile int *seen = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid = fork();

	if (!pid) {
		struct device dev;

		if (device_open(driver, &dev))
			_exit(1);
		for (size_t i = 0; i < PAGES; i++)
			if (device_write(&dev, at + i * PAGE, "x", 1))
				_exit(1);
		pid = fork();
		if (pid)
			_exit(pid < 0);
		while (getppid() != 1 && !seen[1]) /* a subreaper may adopt us instead */
			usleep(1000);
		*seen = 1;
		for (size_t i = 0; i < PAGES; i++)
			if (at[i * PAGE] != 'x')
				*seen = 2;
		_exit(0);
	}
	EXPECT(0, live_wait(pid, 10));
	seen[1] = 1;
	for (int i = 0; i < 5000 && !*seen; i++)
		usleep(1000);
	EXPECT(1, *seen);
	return PASS;
}

/* Where the parent's rings and canaries were there is nothing in a child: it may map there,
 * and mirror that. */
static enum verdict child_maps_in_the_gaps(void *arg)
{
	struct device dev;
	char *at[200];

	for (size_t i = 0; i < 200; i++)
		at[i] = mmap(NULL, PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	EXPECT(0, device_open(arg, &dev));
	for (size_t i = 0; i < 200; i++)
		EXPECT(0, device_byte(&dev, at[i]) < 0 || !device_lookup(&dev, at[i]));
	device_close(&dev);
	return PASS;
}

static enum verdict gaps(const void *arg)
{
	char *at = live_map(PAGE, RW);
	struct device dev;

	EXPECT(0, device_open(arg, &dev));
	EXPECT(0, device_byte(&dev, at));
	TRY(live_child(child_maps_in_the_gaps, (void *)(uintptr_t)arg, 20));
	device_close(&dev);
	return PASS;
}

/* A callback forks, and its child opens a mirror of its own. */
static _Atomic int forked;

static void fork_in_callback(void *priv, const struct hmm_event *event)
{
	struct device dev;
	pid_t pid;

	if (forked)
		return;
	forked = 1;
	pid = fork();
	if (!pid)
		_exit(device_open(priv, &dev) || device_byte(&dev, live_map(PAGE, RW)));
	forked = live_wait(pid, 20) ? 3 : 2;
}

static enum verdict fork_inside(const void *arg)
{
	static const struct hmm_notifier_ops ops = { .size = sizeof(ops),
						     .invalidate = fork_in_callback };
	char *at = live_map(4 * PAGE, RW);
	struct hmm_notifier *notifier;
	struct device dev;

	EXPECT(0, device_open(arg, &dev));
	EXPECT(0, hmm_notifier_insert(dev.hmm, (uintptr_t)at, PAGE, &ops,
				      (void *)(uintptr_t)arg, &notifier));
	EXPECT(0, device_byte(&dev, at));
	SYS(munmap(at, PAGE));
	EXPECT(0, device_fence(&dev, at, PAGE));
	EXPECT(2, forked);
	hmm_notifier_remove(notifier);
	device_close(&dev);
	return PASS;
}

/* Guard pages in a mirrored file: were it write-protected, this would never return (G7). */
static enum verdict guard_in_file(const void *arg)
{
	char *at = memory(true);
	struct device dev;

	EXPECT(0, device_open(arg, &dev));
	EXPECT(0, device_byte(&dev, at));
	at[PAGE] = 3;
	EXPECT(3, device_byte(&dev, at + PAGE));
	if (madvise(at + PAGE, PAGE, MADV_GUARD_INSTALL))
		return live_skip("no guard pages in files (6.15): %s", strerror(errno));
	EXPECT(-EFAULT, device_byte(&dev, at + PAGE));
	SYS(madvise(at + PAGE, PAGE, MADV_GUARD_REMOVE));
	EXPECT(3, device_byte(&dev, at + PAGE));
	device_close(&dev);
	return PASS;
}

#define CHANGES (sizeof(changes) / sizeof(changes[0]))
/* clang-format off */
#define ON_EACH(fn, what)                                                                  \
	{ .name = "ramdev " what, .run = fn, .arg = &live_drivers[0] },                    \
	{ .name = "gpu " what, .run = fn, .arg = &live_drivers[1] }
/* clang-format on */

int main(int argc, char **argv)
{
	static struct live_case cases[CHANGES + 12] = {
		ON_EACH(storm, "dontneed-storm"),
		ON_EACH(new_data, "new-data-after-dontneed"),
		ON_EACH(orphan, "orphan"),
		ON_EACH(guard_in_file, "guard-in-file"),
		ON_EACH(gaps, "child-maps-in-the-gaps"),
		ON_EACH(fork_inside, "fork-in-a-callback"),
	};
	size_t n = 12;

	for (size_t i = 0; i < CHANGES; i++)
		cases[n++] = (struct live_case){ .name = changes[i].name,
						 .run = each_change,
						 .arg = &changes[i] };
	return live_main(argc, argv, cases, n);
}
