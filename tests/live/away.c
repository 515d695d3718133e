/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * away - the device: a copy engine, a thread that accesses, and a notifier.
 *
 * Three threads meet here. The library's reader hands transfers to the engine through a
 * ring (one writer, one reader, no lock). The engine copies; before it copies home it
 * takes and drops `update`, under which alone frames are touched: then nobody is inside,
 * and who comes later asks hmm_range_*() anew. The port's thread accesses frames under
 * `update`, and system memory without it, because that may wait for the engine.
 */
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "away.h"

#define STACK ((size_t)256 << 10)
#define RING 64u

struct job {
	struct hmm_devmem_copy *copies;
	unsigned n;
	bool home;
	struct hmm_transfer *transfer;
};

/* One access of at most a page, from a caller to the port's thread. */
struct port {
	_Atomic uint32_t state; /* futex: 0 idle, 1 asked, 2 answered, 3 end */
	uintptr_t addr;
	size_t length;
	bool write;
	bool system; /* the page is at home */
	int err;
	uint64_t pfn;
	unsigned char bounce[4096];
};

struct away {
	struct hmm *hmm;
	struct hmm_devmem *devmem;
	struct hmm_notifier *notifier;
	bool host;
	char *frames;
	uint64_t nframes;
	_Atomic unsigned delay_us, broken_out, broken_home;
	pthread_mutex_t update;

	struct job ring[RING];
	_Atomic uint32_t head, tail;
	_Atomic uint32_t bell; /* futex: something was pushed, or stop */
	_Atomic bool stop;
	pthread_t engine;
	char *engine_stack;

	pthread_mutex_t callers; /* protects port, and its one caller's wait */
	struct port port;
	pthread_t accessor;
	char *accessor_stack;
	_Atomic uint64_t touched;

	_Atomic uint64_t count[HMM_EVENT_MIGRATE + 1], migrate_own;
	_Atomic uintptr_t told_start, told_end;
	uint64_t look[512]; /* away_count's; under `callers` */
	long counted;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* ---- the engine ---- */

static void push(struct away *dev, const struct job *job)
{
	uint32_t head = dev->head;

	/* The library has at most 16 transfers: the ring is never full. */
	dev->ring[head % RING] = *job;
	dev->head = head + 1;
	dev->bell++;
	futex_wake(&dev->bell);
}

static void to_device(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		      struct hmm_transfer *transfer)
{
	push(priv, &(struct job){ copies, n, false, transfer });
}

static void to_host(void *priv, struct hmm_devmem_copy *copies, unsigned n,
		    struct hmm_transfer *transfer)
{
	push(priv, &(struct job){ copies, n, true, transfer });
}

static void copy_one(struct away *dev, const struct hmm_devmem_copy *copy, bool home)
{
	char *frame;

	if (dev->host)
		return;
	frame = dev->frames + copy->frame * PAGE;
	if (home && copy->host) {
		memcpy(copy->host, frame, PAGE);
	} else if (!home && copy->host) {
		memcpy(frame, copy->host, PAGE);
	} else if (!home) {
		memset(frame, 0, PAGE);
	}
}

/* Who still reads the frame reads rubbish. */
static void frame_free(void *priv, uint64_t frame)
{
	struct away *dev = priv;

	if (!dev->host)
		memset(dev->frames + frame * PAGE, 0xdb, PAGE);
}

static void do_job(struct away *dev, const struct job *job)
{
	if (job->home) {
		pthread_mutex_lock(&dev->update);
		pthread_mutex_unlock(&dev->update);
	}
	if (dev->delay_us) {
		struct timespec t = { .tv_nsec = (long)dev->delay_us * 1000 };

		nanosleep(&t, NULL);
	}
	for (unsigned i = 0; i < job->n; i++) {
		struct hmm_devmem_copy *copy = &job->copies[i];
		unsigned broken = job->home ? dev->broken_home : dev->broken_out;

		if (broken >> copy->addr / PAGE % 8 & 1)
			copy->err = -EIO;
		else
			copy_one(dev, copy, job->home);
	}
	hmm_devmem_done(job->transfer, 0);
}

static void *engine_main(void *arg)
{
	struct away *dev = arg;

	for (;;) {
		uint32_t bell = dev->bell;

		if (dev->tail != dev->head) {
			struct job job = dev->ring[dev->tail % RING];

			dev->tail++;
			do_job(dev, &job);
			continue;
		}
		if (dev->stop)
			return NULL;
		futex_wait(&dev->bell, bell);
	}
}

/* ---- the port ---- */

static int touch(const struct hmm_range *range, void *arg)
{
	struct away *dev = arg;
	struct port *port = &dev->port;
	uint64_t entry = range->pfns[0];
	char *at;

	port->system = !hmm_pfn_is_device(entry);
	if (port->system)
		return 0;
	if (hmm_pfn_devmem(entry) != hmm_devmem_id(dev->devmem))
		return -EXDEV; /* a frame of somebody else: never with our owner */
	at = (char *)away_frame(dev, hmm_pfn_frame(entry)) + port->addr % PAGE;
	dev->touched++;
	if (port->write)
		memcpy(at, port->bounce, port->length);
	else
		memcpy(port->bounce, at, port->length);
	return 0;
}

static int serve(struct away *dev)
{
	struct port *port = &dev->port;
	struct hmm_range range = { .size = sizeof(range),
				   .hmm = dev->hmm,
				   .notifier = dev->notifier,
				   .start = port->addr & -PAGE,
				   .pfns = &port->pfn,
				   .owner = dev,
				   .default_flags = HMM_PFN_REQ_FAULT };
	int err;

	range.end = range.start + PAGE;
	if (port->write)
		range.default_flags |= HMM_PFN_REQ_WRITE;
	port->pfn = 0;
	err = hmm_range_program(&range, 0, &dev->update, touch, dev);
	if (err || !port->system)
		return err;
	if (port->write)
		return hmm_copy_to(dev->hmm, port->addr, port->bounce, port->length);
	return hmm_copy_from(dev->hmm, port->bounce, port->addr, port->length);
}

static void *accessor_main(void *arg)
{
	struct away *dev = arg;
	struct port *port = &dev->port;

	for (;;) {
		uint32_t state = port->state;

		if (state == 3)
			return NULL;
		if (state != 1) {
			futex_wait(&port->state, state);
			continue;
		}
		port->err = serve(dev);
		port->state = 2;
		futex_wake(&port->state);
	}
}

/* The caller's buffer may be away: it is touched here, where nobody waits for it. */
static int access_piece(struct away *dev, char *buffer, uintptr_t addr, size_t length,
			bool write)
{
	struct port *port = &dev->port;

	port->addr = addr;
	port->length = length;
	port->write = write;
	if (write)
		memcpy(port->bounce, buffer, length);
	port->state = 1;
	futex_wake(&port->state);
	while (port->state != 2)
		futex_wait(&port->state, 1);
	port->state = 0;
	if (!port->err && !write)
		memcpy(buffer, port->bounce, length);
	return port->err;
}

static int access_all(struct away *dev, char *buffer, uintptr_t addr, size_t length,
		      bool write)
{
	int err = 0;

	pthread_mutex_lock(&dev->callers);
	while (length && !err) {
		size_t n = PAGE - addr % PAGE;

		n = n < length ? n : length;
		err = access_piece(dev, buffer, addr, n, write);
		buffer += n;
		addr += n;
		length -= n;
	}
	pthread_mutex_unlock(&dev->callers);
	return err;
}

int away_read(struct away *dev, void *dst, const void *src, size_t length)
{
	return access_all(dev, dst, (uintptr_t)src, length, false);
}

int away_write(struct away *dev, void *dst, const void *src, size_t length)
{
	return access_all(dev, (char *)(uintptr_t)src, (uintptr_t)dst, length, true);
}

uint64_t away_touched(const struct away *dev)
{
	return dev->touched;
}

/* ---- the notifier ---- */

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct away *dev = priv;

	pthread_mutex_lock(&dev->update);
	dev->count[event->kind]++;
	if (event->kind == HMM_EVENT_MIGRATE && event->owner == dev) {
		dev->told_start = event->start;
		dev->told_end = event->end;
		dev->migrate_own++;
	}
	pthread_mutex_unlock(&dev->update);
}

struct away_told away_told(const struct away *dev)
{
	struct away_told told = { .migrate_own = dev->migrate_own,
				  .start = dev->told_start,
				  .end = dev->told_end };

	for (unsigned i = 0; i <= HMM_EVENT_MIGRATE; i++)
		told.count[i] = dev->count[i];
	return told;
}

/* ---- open and close ---- */

static const struct hmm_notifier_ops notifier_ops = { .size = sizeof(notifier_ops),
						      .invalidate = invalidate };
static const struct hmm_devmem_ops devmem_ops = { .size = sizeof(devmem_ops),
						  .to_device = to_device,
						  .to_host = to_host,
						  .frame_free = frame_free };

static int start(pthread_t *thread, char **stack, void *(*fn)(void *arg), struct away *dev)
{
	pthread_attr_t attr;
	int err;

	*stack = hmm_alloc(STACK);
	if (!*stack)
		return -ENOMEM;
	pthread_attr_init(&attr);
	err = pthread_attr_setstack(&attr, *stack, STACK);
	if (!err)
		err = pthread_create(thread, &attr, fn, dev);
	pthread_attr_destroy(&attr);
	if (err)
		hmm_free(*stack, STACK);
	return -err;
}

static int create(struct away *dev, const struct away_options *options)
{
	struct hmm_devmem_options devmem = { .size = sizeof(devmem),
					     .type = options->coherent ? HMM_DEVMEM_COHERENT
								       : HMM_DEVMEM_PRIVATE,
					     .frames = dev->nframes,
					     .timeslice_us = options->timeslice_us,
					     .timeout_ms = options->timeout_ms,
					     .host_frames = options->host,
					     .owner = dev };
	int err = hmm_open(&dev->hmm);

	if (err)
		return err;
	err = hmm_devmem_create(dev->hmm, &devmem, &devmem_ops, dev, &dev->devmem);
	if (!err)
		err = hmm_notifier_insert(dev->hmm, 0, UINTPTR_MAX, &notifier_ops, dev,
					  &dev->notifier);
	return err;
}

static void forget(struct away *dev)
{
	if (dev->frames)
		hmm_free(dev->frames, dev->nframes * PAGE);
	hmm_free(dev, sizeof(*dev));
}

int away_open(struct away **out, const struct away_options *options)
{
	static const struct away_options plain;
	struct away *dev = hmm_alloc(sizeof(*dev));
	int err;

	if (!dev)
		return -ENOMEM;
	options = options ? options : &plain;
	dev->host = options->host;
	dev->delay_us = options->delay_us;
	dev->nframes = options->frames ? options->frames : AWAY_FRAMES;
	dev->frames = dev->host ? NULL : hmm_alloc(dev->nframes * PAGE);
	pthread_mutex_init(&dev->update, NULL);
	pthread_mutex_init(&dev->callers, NULL);
	err = create(dev, options);
	if (err) {
		hmm_devmem_destroy(dev->devmem);
		hmm_put(dev->hmm);
		forget(dev);
		return err;
	}
	/* A test that has no threads has no reason to go on. */
	if (start(&dev->engine, &dev->engine_stack, engine_main, dev) ||
	    start(&dev->accessor, &dev->accessor_stack, accessor_main, dev)) {
		perror("threads of the device");
		_exit(2);
	}
	*out = dev;
	return 0;
}

static void end_accessor(struct away *dev)
{
	pthread_mutex_lock(&dev->callers);
	dev->port.state = 3;
	futex_wake(&dev->port.state);
	pthread_mutex_unlock(&dev->callers);
	pthread_join(dev->accessor, NULL);
	hmm_free(dev->accessor_stack, STACK);
}

void away_close(struct away *dev)
{
	if (!dev)
		return;
	end_accessor(dev);
	hmm_notifier_remove(dev->notifier);
	hmm_devmem_destroy(dev->devmem);
	dev->stop = true;
	dev->bell++;
	futex_wake(&dev->bell);
	pthread_join(dev->engine, NULL);
	hmm_free(dev->engine_stack, STACK);
	hmm_put(dev->hmm);
	forget(dev);
}

void away_leave(struct away *dev)
{
	end_accessor(dev);
	hmm_notifier_remove(dev->notifier);
	hmm_put(dev->hmm);
}

void away_unwatch(struct away *dev)
{
	hmm_notifier_remove(dev->notifier);
	dev->notifier = NULL;
}

void away_break(struct away *dev, unsigned out, unsigned home)
{
	dev->broken_out = out;
	dev->broken_home = home;
}

struct hmm *away_hmm(const struct away *dev)
{
	return dev->hmm;
}

struct hmm_devmem *away_devmem(const struct away *dev)
{
	return dev->devmem;
}

void *away_frame(const struct away *dev, uint64_t frame)
{
	if (dev->host)
		return hmm_devmem_host(dev->devmem, frame);
	return dev->frames + frame * PAGE;
}

/* ---- looking ---- */

static int count(const struct hmm_range *range, void *arg)
{
	size_t pages = (range->end - range->start) / PAGE;

	for (size_t i = 0; i < pages; i++)
		*(long *)arg += hmm_pfn_is_device(range->pfns[i]);
	return 0;
}

static long count_block(struct away *dev, uintptr_t start, size_t pages)
{
	struct hmm_range range = { .size = sizeof(range),
				   .hmm = dev->hmm,
				   .notifier = dev->notifier,
				   .start = start,
				   .end = start + pages * PAGE,
				   .pfns = dev->look,
				   .owner = dev };

	memset(dev->look, 0, sizeof(dev->look));
	dev->counted = 0;
	if (hmm_range_program(&range, 0, &dev->update, count, &dev->counted))
		return -1;
	return dev->counted;
}

long away_count(struct away *dev, const void *at, size_t length)
{
	uintptr_t start = (uintptr_t)at;
	long n = 0;

	pthread_mutex_lock(&dev->callers);
	for (size_t done = 0; done < length && n >= 0;) {
		size_t left = (length - done) / PAGE, pages = left < 512 ? left : 512;
		long some = count_block(dev, start + done, pages);

		n = some < 0 ? -1 : n + some;
		done += pages * PAGE;
	}
	pthread_mutex_unlock(&dev->callers);
	return n;
}

uint64_t away_in_use(const struct away *dev)
{
	struct hmm_devmem_stats stats = { .size = sizeof(stats) };

	hmm_devmem_get_stats(dev->devmem, &stats);
	return stats.in_use;
}

enum verdict away_settles(const struct away *dev, uint64_t want)
{
	uint64_t end = live_now_ns() + UINT64_C(1000000000);

	while (away_in_use(dev) != want) {
		CHECK(live_now_ns() < end, "%llu frames in use, %llu pages are away",
		      (unsigned long long)away_in_use(dev), (unsigned long long)want);
		usleep(1000);
	}
	return PASS;
}

char *away_map(size_t length)
{
	char *at = live_map(length + 4 * PAGE, PROT_NONE) + 2 * PAGE;

	if (mprotect(at, length, RW)) {
		perror("mprotect");
		_exit(2);
	}
	return at;
}

enum verdict away_out(struct away *dev, void *at, size_t pages)
{
	int64_t n = -EBUSY;

	/* "Keeps changing": on a busy machine it may only look so. */
	for (int i = 0; i < 5 && n == -EBUSY; i++)
		n = hmm_migrate_to_device(dev->devmem, (uintptr_t)at, pages * PAGE);
	CHECK(n == (int64_t)pages, "%lld of %zu pages moved to the device (%s)",
	      (long long)n, pages, n < 0 ? hmm_strerror((int)n) : "");
	return PASS;
}
