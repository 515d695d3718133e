/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * limits_map - changes of mappings that are silent, come out of order, or are said
 * although they did not happen.
 *
 * Every case ends with the same questions: does the device see what the CPU sees, and may
 * it do what the CPU may? And as its accesses go through the address, where the CPU's own
 * page tables stop what is wrong, its page table is looked at too.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "limits.h"
#include "uapi.h"

enum verdict warm_pages(const struct driver *driver, struct device *dev, char *at,
			size_t pages)
{
	EXPECT(0, device_open(driver, dev));
	for (size_t i = 0; i < pages; i++) {
		char byte = (char)(i + 1);

		EXPECT(0, device_write(dev, at + i * LPAGE, &byte, 1));
		EXPECT(byte, at[i * LPAGE]);
	}
	return PASS;
}

enum verdict not_writable(struct device *dev, const char *at)
{
	EXPECT(0, device_fence(dev, at, LPAGE));
	CHECK(!(device_lookup(dev, at) & HMM_PFN_WRITE),
	      "the fence left a translation for writing to what may only be read");
	return PASS;
}

enum verdict not_translated(struct device *dev, const char *at)
{
	EXPECT(0, device_fence(dev, at, LPAGE));
	CHECK(!device_lookup(dev, at), "the fence left a translation of what is gone");
	return PASS;
}

pid_t clone_vm(int (*fn)(void *arg), void *arg)
{
	size_t size = 16 * LPAGE;
	char *stack = live_map(size, LRW);

	return clone(fn, stack + size, CLONE_VM | SIGCHLD, arg);
}

/* shmdt sends no message, and what takes its place may be read only. */
enum verdict limit_shmdt(const struct driver *driver)
{
	int id = shmget(IPC_PRIVATE, 4 * LPAGE, IPC_CREAT | 0600);
	struct device dev;
	char byte = 1, *at;

	if (id < 0)
		return live_skip("no SysV shared memory: %s", strerror(errno));
	at = shmat(id, NULL, 0);
	shmctl(id, IPC_RMID, NULL);
	TRY(warm_pages(driver, &dev, at, 4));
	SYS(shmdt(at));
	EXPECT(0, device_fence(&dev, at, 4 * LPAGE));
	CHECK(!device_lookup(&dev, at),
	      "the fence left a translation of a segment that is gone");
	EXPECT(-EFAULT, device_byte(&dev, at));
	SYS(mmap(at, 4 * LPAGE, PROT_READ,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
	TRY(not_writable(&dev, at + LPAGE));
	EXPECT(0, device_byte(&dev, at + LPAGE));
	EXPECT(-EPERM, device_write(&dev, at + LPAGE, &byte, 1));
	/* And it is mirrored as what it is now. */
	SYS(munmap(at, 4 * LPAGE));
	TRY(not_translated(&dev, at + LPAGE));
	device_close(&dev);
	return PASS;
}

struct victim {
	char *at, *to;
	unsigned round;
};

/* Raw calls only: the task has our libc's state, which other threads use. */
static int victim_main(void *arg)
{
	struct victim *v = arg;

	if (v->round % 2)
		munmap(v->at, 4 * LPAGE);
	else
		mremap(v->at, 4 * LPAGE, 4 * LPAGE, MREMAP_MAYMOVE | MREMAP_FIXED, v->to);
	_exit(0);
}

static enum verdict clone_vm_killed_once(struct device *dev, struct victim *v)
{
	char byte = 7;
	pid_t pid;

	SYS(mmap(v->at, 4 * LPAGE, LRW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT(0, device_write(dev, v->at, &byte, 1));
	pid = clone_vm(victim_main, v);
	for (unsigned i = 0; i < v->round * 50; i++)
		__asm__ volatile("" ::: "memory");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, __WALL);
	/* Gone or not, now the place is read-only and has other bytes. */
	SYS(mmap(v->at, 4 * LPAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0));
	TRY(not_writable(dev, v->at));
	EXPECT(0, device_byte(dev, v->at));
	EXPECT(-EPERM, device_write(dev, v->at, &byte, 1));
	SYS(munmap(v->at, 4 * LPAGE));
	TRY(not_translated(dev, v->at));
	return PASS;
}

/* Killed while it waits for its message, a task takes the message along. */
enum verdict limit_clone_vm_killed(const struct driver *driver)
{
	char *room = live_map(64 * LPAGE, PROT_NONE);
	struct victim v = { .at = room, .to = room + 32 * LPAGE };
	struct device dev;

	EXPECT(0, device_open(driver, &dev));
	for (v.round = 0; v.round < 300; v.round++)
		TRY(clone_vm_killed_once(&dev, &v));
	device_close(&dev);
	return PASS;
}

enum verdict limit_guard(const struct driver *driver)
{
	char *at = live_map(4 * LPAGE, LRW);
	struct device dev;

	TRY(warm_pages(driver, &dev, at, 4));
	if (madvise(at + LPAGE, LPAGE, MADV_GUARD_INSTALL))
		return live_skip("no guard pages (6.13): %s", strerror(errno));
	EXPECT(-EFAULT, device_byte(&dev, at + LPAGE));
	EXPECT(3, device_byte(&dev, at + 2 * LPAGE));
	SYS(madvise(at + LPAGE, LPAGE, MADV_GUARD_REMOVE));
	EXPECT(0, device_byte(&dev, at + LPAGE));
	device_close(&dev);
	return PASS;
}

/* munmap of a range whose second half is sealed: an UNMAP message, and nothing unmapped. */
enum verdict limit_sealed(const struct driver *driver)
{
	char *at = live_map(4 * LPAGE, LRW);
	struct device dev;

	TRY(warm_pages(driver, &dev, at, 4));
	if (syscall(SYS_mseal, at + 2 * LPAGE, 2 * LPAGE, 0))
		return live_skip("mseal (6.10): %s", strerror(errno));
	EXPECT(-1, munmap(at, 4 * LPAGE));
	for (int i = 0; i < 4; i++)
		EXPECT(i + 1, device_byte(&dev, at + i * LPAGE));
	EXPECT(-1, mprotect(at, 4 * LPAGE, PROT_NONE));
	for (int i = 0; i < 4; i++)
		EXPECT((unsigned char)at[3 * LPAGE], device_byte(&dev, at + 3 * LPAGE));
	device_close(&dev);
	return PASS;
}

/* MAP_FIXED that finds no room in RLIMIT_AS has said UNMAP before it fails. */
enum verdict limit_no_room(const struct driver *driver)
{
	char *at = live_map(4 * LPAGE, LRW);
	struct rlimit before, little;
	struct device dev;
	void *p;

	TRY(warm_pages(driver, &dev, at, 4));
	SYS(getrlimit(RLIMIT_AS, &before));
	little = before;
	little.rlim_cur = (size_t)256 << 20;
	SYS(setrlimit(RLIMIT_AS, &little));
	p = mmap(at, (size_t)8 << 30, LRW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	SYS(setrlimit(RLIMIT_AS, &before));
	CHECK(p == MAP_FAILED, "8 GiB were mapped in spite of RLIMIT_AS");
	for (int i = 0; i < 4; i++)
		EXPECT(i + 1, device_byte(&dev, at + i * LPAGE));
	device_close(&dev);
	return PASS;
}

struct order {
	char *from, *to;
	atomic_bool stop;
};

static void *move_it(void *arg)
{
	struct order *o = arg;

	mremap(o->from, 4 * LPAGE, 4 * LPAGE, MREMAP_MAYMOVE | MREMAP_FIXED, o->to);
	return NULL;
}

/* As soon as the source is gone, map over the destination: REMAP is then read last. */
static void *map_over_it(void *arg)
{
	struct order *o = arg;
	unsigned char in;

	while (!mincore(o->from, LPAGE, &in))
		;
	mmap(o->to, 4 * LPAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return NULL;
}

static enum verdict order_once(struct device *dev, struct order *o)
{
	pthread_t a, b;
	char byte = 9;

	for (int i = 0; i < 2; i++) {
		char *at = i ? o->to : o->from;

		SYS(mmap(at, 4 * LPAGE, LRW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			 0));
		EXPECT(0, device_write(dev, at, &byte, 1));
	}
	CHECK(!pthread_create(&a, NULL, move_it, o) &&
		      !pthread_create(&b, NULL, map_over_it, o),
	      "no thread");
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	TRY(not_translated(dev, o->from));
	TRY(not_writable(dev, o->to));
	EXPECT(-EFAULT, device_byte(dev, o->from));
	EXPECT(o->to[0], device_byte(dev, o->to));
	EXPECT(-EPERM, device_write(dev, o->to, &byte, 1));
	return PASS;
}

enum verdict limit_order_remap(const struct driver *driver)
{
	char *room = live_map(64 * LPAGE, PROT_NONE);
	struct order o = { .from = room, .to = room + 32 * LPAGE };
	struct device dev;

	EXPECT(0, device_open(driver, &dev));
	for (int i = 0; i < 200; i++)
		TRY(order_once(&dev, &o));
	device_close(&dev);
	return PASS;
}

static void *unmap_and_map(void *arg)
{
	struct order *o = arg;

	while (!o->stop) {
		munmap(o->from, 4 * LPAGE);
		mmap(o->from, 4 * LPAGE, LRW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		     0);
		o->from[0] = 1;
	}
	return NULL;
}

/* FORK may be read after an UNMAP that came after it. */
enum verdict limit_order_fork(const struct driver *driver)
{
	char *room = live_map(64 * LPAGE, LRW);
	struct order o = { .from = room + 32 * LPAGE };
	struct device dev;
	pthread_t thread;

	TRY(warm_pages(driver, &dev, room, 4));
	EXPECT(0, device_byte(&dev, o.from));
	CHECK(!pthread_create(&thread, NULL, unmap_and_map, &o), "no thread");
	for (int i = 0; i < 100; i++) {
		int seen = device_byte(&dev, o.from);
		pid_t pid = fork();

		if (!pid)
			_exit(room[LPAGE] == 2 ? 0 : 1);
		EXPECT(0, live_wait(pid, 10));
		CHECK(seen == 0 || seen == 1 || seen == -EFAULT, "the device sees %d",
		      seen);
		EXPECT(2, device_byte(&dev, room + LPAGE));
	}
	o.stop = true;
	pthread_join(thread, NULL);
	EXPECT(1, device_byte(&dev, o.from));
	device_close(&dev);
	return PASS;
}

/* The device touched one page; the program moves and grows the whole mapping. */
enum verdict limit_whole_mremap(const struct driver *driver)
{
	char *at = live_map(64 * LPAGE, LRW), *to;
	struct device dev;

	TRY(warm_pages(driver, &dev, at, 1));
	at[63 * LPAGE] = 5;
	to = mremap(at, 64 * LPAGE, 256 * LPAGE, MREMAP_MAYMOVE);
	CHECK(to != MAP_FAILED, "mremap of a whole mirrored mapping: %s", strerror(errno));
	EXPECT(1, device_byte(&dev, to));
	EXPECT(5, device_byte(&dev, to + 63 * LPAGE));
	EXPECT(0, device_byte(&dev, to + 255 * LPAGE));
	if (to != at)
		EXPECT(-EFAULT, device_byte(&dev, at));
	device_close(&dev);
	return PASS;
}

/* Pages of a file that are touched for the first time after the file was registered. */
enum verdict limit_first_touch(const struct driver *driver)
{
	size_t pages = 1024;
	char path[] = "/var/tmp/uhmm-live-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	struct device dev;
	char *at;

	SYS(fd);
	unlink(path);
	for (size_t i = 0; i < pages; i++) {
		unsigned char byte = (unsigned char)(i * 3);

		SYS(pwrite(fd, &byte, 1, (off_t)(i * LPAGE + 100)));
	}
	at = mmap(NULL, pages * LPAGE, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED, "mmap: %s", strerror(errno));
	EXPECT(0, device_open(driver, &dev));
	EXPECT(0, device_byte(&dev, at + 100));
	for (size_t i = 0; i < pages; i += 2)
		EXPECT((unsigned char)(i * 3), (unsigned char)at[i * LPAGE + 100]);
	for (size_t i = 0; i < pages; i++)
		EXPECT((unsigned char)(i * 3), device_byte(&dev, at + i * LPAGE + 100));
	device_close(&dev);
	return PASS;
}

struct replacer {
	char *from, *to;
	bool move;
	atomic_bool stop;
};

/* Memory takes the place of memory: at no moment is there none, for the program. */
static void *replace(void *arg)
{
	struct replacer *r = arg;

	while (!r->stop)
		if (r->move)
			mremap(r->from, LPAGE, LPAGE,
			       MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, r->to);
		else
			mmap(r->to, LPAGE, LRW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	return NULL;
}

static enum verdict read_beside(struct device *dev, struct replacer *r)
{
	const uint64_t end = live_now_ns() + 300000000;
	unsigned rounds = 0;
	pthread_t thread;
	bool there;
	int seen;

	r->stop = false;
	CHECK(!pthread_create(&thread, NULL, replace, r), "no thread");
	do {
		seen = device_byte(dev, r->to);
		there = seen >= 0 || seen == -EBUSY; /* what changes all the time is given up */
	} while (++rounds && there && live_now_ns() < end);
	r->stop = true;
	pthread_join(thread, NULL);
	CHECK(there, "%s: read %u: %s", r->move ? "mremap" : "mmap", rounds, strerror(-seen));
	return PASS;
}

/* A look at the mappings takes no lock, and in the midst of an mremap it finds none there. */
enum verdict limit_replaced(const struct driver *driver)
{
	char *room = live_map(16 * LPAGE, PROT_NONE);
	struct replacer r = { .from = room, .to = room + 8 * LPAGE };
	struct device dev;

	/* Two mappings: what nobody mirrors moves without waiting for anybody. */
	SYS(mprotect(r.from, LPAGE, LRW));
	SYS(mprotect(r.to, LPAGE, LRW));
	EXPECT(0, device_open(driver, &dev));
	TRY(read_beside(&dev, &r));
	r.move = true;
	TRY(read_beside(&dev, &r));
	device_close(&dev);
	return PASS;
}
