/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * limits_prot - permissions that change, and accesses that run meanwhile.
 *
 * mprotect waits for nobody. What was submitted after it returned must see the new
 * permission (G3); what ran already may use the old one until the record is seen, but
 * the CPU's own page tables stop it, as all of its accesses go through the address.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "limits.h"

/* Of 4096 bytes a ring holds about 40 records; no ring of ours is as large as this many. */
#define FLOOD 10000

/*
 * More records than a ring holds, between two looks at it: the last one, the one that
 * matters, is dropped, and no LOST record says so in time.
 */
enum verdict limit_perf_overflow(const struct driver *driver)
{
	char *at = live_map(4 * LPAGE, LRW), byte = 1;
	/* Alone: a record tells the whole of a mapping that was merged. */
	char *other = live_map(3 * LPAGE, PROT_NONE) + LPAGE;
	struct device dev;

	TRY(warm_pages(driver, &dev, at, 4));
	for (int round = 0; round < 10; round++) {
		EXPECT(0, device_write(&dev, at + LPAGE, &byte, 1));
		for (int i = 0; i < FLOOD; i++)
			mprotect(other, LPAGE, i & 1 ? PROT_READ : LRW);
		SYS(mprotect(at + LPAGE, LPAGE, PROT_READ));
		TRY(not_writable(&dev, at + LPAGE));
		EXPECT(-EPERM, device_write(&dev, at + LPAGE, &byte, 1));
		EXPECT(0, device_write(&dev, at, &byte, 1));
		SYS(mprotect(at + LPAGE, LPAGE, LRW));
	}
	device_close(&dev);
	return PASS;
}

struct older {
	pthread_barrier_t go, done;
	char *at;
	int prot;
};

static void *older_main(void *arg)
{
	struct older *o = arg;

	for (int i = 0; i < 2; i++) {
		pthread_barrier_wait(&o->go);
		mprotect(o->at, LPAGE, o->prot);
		pthread_barrier_wait(&o->done);
	}
	return NULL;
}

/* A thread that was there before the mirror. */
enum verdict limit_older_thread(const struct driver *driver)
{
	struct older o = { .at = live_map(2 * LPAGE, LRW) };
	struct device dev;
	pthread_t thread;
	char byte = 3;

	pthread_barrier_init(&o.go, NULL, 2);
	pthread_barrier_init(&o.done, NULL, 2);
	CHECK(!pthread_create(&thread, NULL, older_main, &o), "no thread");
	TRY(warm_pages(driver, &dev, o.at, 2));
	for (int i = 0; i < 2; i++) {
		o.prot = i ? LRW : PROT_READ;
		pthread_barrier_wait(&o.go);
		pthread_barrier_wait(&o.done);
		if (!i)
			TRY(not_writable(&dev, o.at));
		EXPECT(i ? 0 : -EPERM, device_write(&dev, o.at, &byte, 1));
	}
	pthread_join(thread, NULL);
	device_close(&dev);
	return PASS;
}

static int protects(void *arg)
{
	_exit(mprotect(arg, LPAGE, PROT_READ) ? 1 : 0);
}

/* A task that shares our memory but is no thread of ours. */
enum verdict limit_clone_vm_protects(const struct driver *driver)
{
	char *at = live_map(2 * LPAGE, LRW), byte = 3;
	struct device dev;

	TRY(warm_pages(driver, &dev, at, 2));
	EXPECT(0, live_wait(clone_vm(protects, at), 10));
	TRY(not_writable(&dev, at));
	EXPECT(-EPERM, device_write(&dev, at, &byte, 1));
	EXPECT(0, device_write(&dev, at + LPAGE, &byte, 1));
	device_close(&dev);
	return PASS;
}

struct busy {
	struct device *dev;
	char *at;
	size_t length;
	bool write;
	atomic_bool stop;
	atomic_uint rounds;
	int bad; /* an answer that nothing explains */
};

/* A device that works all the time: 0, or what a change makes of it. */
static void *busy_main(void *arg)
{
	struct busy *b = arg;
	static char buffer[64 * 4096];

	while (!b->stop) {
		int err = b->write ? device_write(b->dev, b->at, buffer, b->length)
				   : device_read(b->dev, buffer, b->at, b->length);

		if (err && err != -EFAULT && err != -EPERM && err != -EBUSY)
			b->bad = err;
		b->rounds++;
	}
	return NULL;
}

static void wait_for_work(struct busy *b)
{
	unsigned seen = b->rounds;

	while (b->rounds - seen < 2)
		usleep(100);
}

enum verdict limit_protect_running(const struct driver *driver)
{
	struct busy b = { .at = live_map(16 * LPAGE, LRW),
			  .length = 16 * LPAGE,
			  .write = true };
	struct device dev, second;
	pthread_t thread;
	char byte = 3;

	TRY(warm_pages(driver, &dev, b.at, 16));
	EXPECT(0, device_open(driver, &second));
	b.dev = &dev;
	CHECK(!pthread_create(&thread, NULL, busy_main, &b), "no thread");
	for (int i = 0; i < 50; i++) {
		wait_for_work(&b);
		SYS(mprotect(b.at, LPAGE, PROT_READ));
		TRY(not_writable(&second, b.at));
		TRY(not_writable(&dev, b.at));
		EXPECT(-EPERM, device_write(&second, b.at, &byte, 1));
		SYS(mprotect(b.at, LPAGE, LRW));
		EXPECT(0, device_write(&second, b.at, &byte, 1));
	}
	b.stop = true;
	pthread_join(thread, NULL);
	EXPECT(0, b.bad);
	device_close(&second);
	device_close(&dev);
	return PASS;
}

enum verdict limit_unmap_running(const struct driver *driver)
{
	struct busy b = { .at = live_map(16 * LPAGE, LRW), .length = 16 * LPAGE };
	struct device dev;
	pthread_t thread;

	TRY(warm_pages(driver, &dev, b.at, 16));
	b.dev = &dev;
	CHECK(!pthread_create(&thread, NULL, busy_main, &b), "no thread");
	for (int i = 0; i < 1000; i++) {
		SYS(munmap(b.at, 16 * LPAGE));
		if (i % 10 == 0)
			wait_for_work(&b);
		SYS(mmap(b.at, 16 * LPAGE, LRW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			 0));
		b.at[0] = 1;
	}
	b.stop = true;
	pthread_join(thread, NULL);
	EXPECT(0, b.bad);
	EXPECT(1, device_byte(&dev, b.at));
	device_close(&dev);
	return PASS;
}
