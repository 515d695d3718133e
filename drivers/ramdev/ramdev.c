/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * ramdev - the smallest complete driver: nothing but a page table. Every driver's laws:
 *  1. Using a translation takes dev->lock, dropping it too: invalidate() is final (G4).
 *  2. Translations enter by hmm_range_program() only: true then, under that lock (G2).
 *  3. A fence comes before each look at the table: no older change is missing (G1, G3).
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <uhmm/ptable.h>
#include <uhmm/ramdev.h>

#define PAGE ((uintptr_t)4096)

struct ramdev {
	struct hmm *hmm;
	struct hmm_notifier *notifier; /* NULL: a look at another process */
	pthread_mutex_t lock;	       /* the update lock: protects the table and its use */
	struct uhmm_ptable table;      /* HMM_PFN_VALID, HMM_PFN_WRITE and a page number */
	_Atomic uint64_t invalidations;
};

/* Law 1. Whatever the event was, forgetting is right: the next access faults anew. */
static void invalidate(void *priv, const struct hmm_event *event)
{
	struct ramdev *dev = priv;

	atomic_fetch_add(&dev->invalidations, 1);
	pthread_mutex_lock(&dev->lock);
	uhmm_ptable_clear(&dev->table, event->start, event->end);
	pthread_mutex_unlock(&dev->lock);
}
static const struct hmm_notifier_ops ops = {.size = sizeof(ops), .invalidate = invalidate};

void ramdev_close(struct ramdev *dev)
{
	if (dev) {
		hmm_notifier_remove(dev->notifier); /* from here on no callback runs ... */
		hmm_put(dev->hmm);
		uhmm_ptable_destroy(&dev->table); /* ... so nobody clears this table */
	}
	free(dev);
}

int ramdev_open(pid_t pid, struct ramdev **out)
{
	struct ramdev *dev = calloc(1, sizeof(*dev));
	int err = dev ? uhmm_ptable_init(&dev->table) : -ENOMEM;

	if (!err) /* of another process: a look, no notifier */
		err = pid ? hmm_attach(pid, &dev->hmm) : hmm_open(&dev->hmm);
	if (!err)
		pthread_mutex_init(&dev->lock, NULL);
	if (!err && !pid) /* over everything: what no device faulted costs nothing */
		err = hmm_notifier_insert(dev->hmm, 0, UINTPTR_MAX, &ops, dev,
					  &dev->notifier);
	if (err)
		return ramdev_close(dev), err;
	*out = dev;
	return 0;
}

/* Law 2. Called by hmm_range_program() under dev->lock with an answer that is true. */
static int program(const struct hmm_range *range, void *table)
{
	return uhmm_ptable_set(table, range->start, range->pfns[0]);
}

static int copy(struct ramdev *dev, uintptr_t addr, void *buf, size_t n, bool write)
{
	return write ? hmm_copy_to(dev->hmm, addr, buf, n)
		     : hmm_copy_from(dev->hmm, buf, addr, n);
}

/* Within one page: law 3, look up, check permission, copy; on a miss fault and again. */
static int access_page(struct ramdev *dev, uintptr_t addr, void *buf, size_t n, bool write)
{
	uint64_t pfn = 0, need = write ? HMM_PFN_WRITE : HMM_PFN_VALID;
	struct hmm_range range = {
		.size = sizeof(range), .hmm = dev->hmm, .notifier = dev->notifier,
		.start = addr & -PAGE, .end = (addr & -PAGE) + PAGE, .pfns = &pfn,
		.default_flags = HMM_PFN_REQ_FAULT | (write ? HMM_PFN_REQ_WRITE : 0),
	};
	int tries, done, err = dev->notifier ? hmm_fence(dev->hmm, addr, n) : -EOPNOTSUPP;

	for (tries = 100; !err && tries; tries--) { /* changing that often: given up */
		done = -EFAULT;
		pthread_mutex_lock(&dev->lock);
		if (uhmm_ptable_lookup(&dev->table, addr) & need)
			done = copy(dev, addr, buf, n, write);
		if (done == -EFAULT) /* a miss, or the mapping went before its event */
			uhmm_ptable_clear(&dev->table, addr, addr + n);
		pthread_mutex_unlock(&dev->lock);
		if (done != -EFAULT)
			return done;
		err = hmm_range_program(&range, 0, &dev->lock, program, &dev->table);
	}
	/* Not mirrorable, as all of another process: no translation, the CPU's own. */
	return err == -EOPNOTSUPP ? copy(dev, addr, buf, n, write) : err ? err : -EFAULT;
}

static int access_all(struct ramdev *dev, uintptr_t addr, char *buf, size_t n, bool write)
{
	size_t part;
	int err = 0;

	for (; n && !err; n -= part, addr += part, buf += part) {
		part = n < PAGE - addr % PAGE ? n : PAGE - addr % PAGE;
		err = access_page(dev, addr, buf, part, write);
	}
	return err;
}

int ramdev_read(struct ramdev *dev, void *dst, const void *src, size_t length)
{
	return access_all(dev, (uintptr_t)src, dst, length, false);
}

int ramdev_write(struct ramdev *dev, void *dst, const void *src, size_t length)
{
	return access_all(dev, (uintptr_t)dst, (char *)src, length, true);
}

/* Nothing is programmed, so no lock is needed: read_retry makes it one moment's look. */
int ramdev_snapshot(struct ramdev *dev, const void *start, size_t n, uint64_t *pfns)
{
	struct hmm_range range = {
		.size = sizeof(range), .hmm = dev->hmm, .notifier = dev->notifier,
		.start = (uintptr_t)start, .end = (uintptr_t)start + n * PAGE, .pfns = pfns,
	};
	int err;

	do {
		err = dev->notifier ? hmm_notifier_read_begin(&range) : 0;
		if (!err)
			err = hmm_range_snapshot(&range);
	} while (err ? err == -EBUSY : dev->notifier && hmm_notifier_read_retry(&range));
	return err;
}

uint64_t ramdev_lookup(const struct ramdev *dev, const void *addr)
{
	return uhmm_ptable_lookup(&dev->table, (uintptr_t)addr);
}

uint64_t ramdev_invalidations(const struct ramdev *dev)
{
	return atomic_load(&dev->invalidations);
}
