/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_dma - I/O address spaces on the fake kernel: D1, D2, D3 (include/uhmm/dma.h), with each change
 * placed at each call of the system and of the back-end.
 *
 * The back-end pins: a mapping keeps the frames that it found. What a device reaches by it can so be
 * compared with what a CPU finds.
 */
#include "fake_os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <uhmm/dma.h>

#define RW (PROT_READ | PROT_WRITE)
#define P 16u /* the first page of most tests: begins a block of 16 */
#define N 16u
#define MAPPINGS 4096u
#define FAULT HMM_PFN_REQ_FAULT
#define WRITE (HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE)

struct mapping {
	uint64_t iova;
	uintptr_t va;
	size_t length;
	bool write, used;
	uint64_t frame[512]; /* what was pinned; not of the library's own memory */
};

/* The device and its driver. */
static struct {
	struct hmm *hmm;
	struct hmm_notifier *notifier;
	struct hmm_dma *dma;
	pthread_mutex_t lock;
	struct mapping mapping[MAPPINGS];
	unsigned calls, fail_at; /* of map; fail_at 0: none */
	int fail_with;
	bool no_files;	      /* pages of files cannot be pinned */
	uint64_t pfns[1024], daddrs[1024];
	unsigned programmed, invalidated;
} dev;

static bool is_program(uintptr_t va)
{
	return va >= FAKE_BASE && va < fake_addr(FAKE_PAGES);
}

static struct mapping *mapping_at(uint64_t iova)
{
	for (unsigned i = 0; i < MAPPINGS; i++)
		if (dev.mapping[i].used && iova >= dev.mapping[i].iova &&
		    iova < dev.mapping[i].iova + dev.mapping[i].length)
			return &dev.mapping[i];
	return NULL;
}

static int pin(struct mapping *m)
{
	for (size_t i = 0; i < m->length / PAGE && is_program(m->va); i++) {
		struct fake_page *p = fake_page(m->va + i * PAGE);

		if (!p->mapped || (m->write && !(p->prot & PROT_WRITE)) ||
		    (!p->frame && p->guard))
			return -EFAULT;
		if (dev.no_files && fake_object[p->object].inode && fake_object[p->object].shared)
			return -EOPNOTSUPP;
		fake_make_present(p, m->write);
		m->frame[i] = p->frame;
	}
	return 0;
}

static int map(void *priv, uint64_t iova, uintptr_t va, size_t length, bool write)
{
	struct mapping *m = dev.mapping;
	int err = fake_point(FAKE_OP_DRIVER, FAKE_BEFORE, -1);

	assert_ptr_equal(priv, &dev);
	if (!err && dev.fail_at && ++dev.calls == dev.fail_at)
		err = dev.fail_with;
	while (m->used)
		m++;
	assert_true(m < dev.mapping + MAPPINGS);
	*m = (struct mapping){ .iova = iova, .va = va, .length = length, .write = write };
	fake_lock();
	for (uint64_t at = iova; at < iova + length; at += PAGE)
		assert_null(mapping_at(at));
	if (!err)
		err = pin(m);
	fake_unlock();
	m->used = !err;
	fake_point(FAKE_OP_DRIVER, FAKE_AFTER, -1);
	return err;
}

static void unmap(void *priv, uint64_t iova, size_t length)
{
	struct mapping *m = mapping_at(iova);

	assert_non_null(m);
	assert_true(m->iova == iova && m->length == length); /* whole, or the kernel refuses */
	m->used = false;
}

static const struct hmm_dma_ops ops = { .size = sizeof(ops), .map = map, .unmap = unmap };

static void invalidate(void *priv, const struct hmm_event *event)
{
	uintptr_t start = event->start, end = event->end;

	dev.invalidated++;
	if (event->kind == HMM_EVENT_FORK)
		return;
	pthread_mutex_lock(&dev.lock);
	hmm_dma_widen(dev.dma, &start, &end);
	hmm_range_dma_unmap(dev.dma, start, end, false);
	pthread_mutex_unlock(&dev.lock);
}

static const struct hmm_notifier_ops notifier_ops = { .size = sizeof(notifier_ops),
						      .invalidate = invalidate };

static void open_with(struct hmm *hmm, struct hmm_dma_options options)
{
	memset(&dev, 0, sizeof(dev));
	dev.hmm = hmm;
	pthread_mutex_init(&dev.lock, NULL);
	options.size = sizeof(options);
	options.pinned = true;
	assert_int_equal(hmm_notifier_insert(hmm, 0, UINTPTR_MAX, &notifier_ops, NULL,
					     &dev.notifier), 0);
	assert_int_equal(hmm_dma_create(hmm, &options, &ops, &dev, &dev.dma), 0);
}

static void open_dev(struct hmm *hmm)
{
	open_with(hmm, (struct hmm_dma_options){ .name = "test" });
}

static unsigned mapped(void)
{
	unsigned pages = 0;

	for (unsigned i = 0; i < MAPPINGS; i++)
		pages += dev.mapping[i].used ? (unsigned)(dev.mapping[i].length / PAGE) : 0;
	return pages;
}

static unsigned mappings(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MAPPINGS; i++)
		n += dev.mapping[i].used;
	return n;
}

static void close_dev(void)
{
	hmm_notifier_remove(dev.notifier);
	hmm_dma_destroy(dev.dma);
	assert_int_equal(mapped(), 0);
}

static struct hmm_range range_of(unsigned page, unsigned n, uint64_t request)
{
	memset(dev.pfns, 0, sizeof(dev.pfns));
	memset(dev.daddrs, 0xee, sizeof(dev.daddrs));
	return (struct hmm_range){ .size = sizeof(struct hmm_range), .hmm = dev.hmm,
				   .notifier = dev.notifier, .start = fake_addr(page),
				   .end = fake_addr(page + n), .pfns = dev.pfns,
				   .default_flags = request };
}

static int64_t map_flags(unsigned page, unsigned n, uint64_t request, unsigned flags)
{
	struct hmm_range range = range_of(page, n, request);

	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	return hmm_range_dma_map(&range, dev.dma, dev.daddrs, flags);
}

static int64_t map_pages(unsigned page, unsigned n, uint64_t request)
{
	return map_flags(page, n, request, 0);
}

static int program(const struct hmm_range *range, const uint64_t *daddrs, void *arg)
{
	dev.programmed++;
	for (size_t i = 0; i < (range->end - range->start) / PAGE; i++)
		if (range->pfns[i] & HMM_PFN_DMA_MAPPED)
			assert_non_null(mapping_at(daddrs[i]));
	return 0;
}

static int map_by_loop(unsigned page, unsigned n, uint64_t request)
{
	struct hmm_range range = range_of(page, n, request);

	return hmm_range_dma_program(&range, dev.dma, dev.daddrs, 0, 0, &dev.lock, program, NULL);
}

/* What the device reaches for a page is what a CPU finds there; or it reaches nothing. */
static bool is_true(unsigned page)
{
	struct mapping *m = NULL;

	for (unsigned i = 0; i < MAPPINGS && !m; i++)
		if (dev.mapping[i].used && fake_addr(page) >= dev.mapping[i].va &&
		    fake_addr(page) < dev.mapping[i].va + dev.mapping[i].length)
			m = &dev.mapping[i];
	return !m || m->frame[(fake_addr(page) - m->va) / PAGE] == fake.page[page].frame;
}

static void all_true(unsigned page, unsigned n)
{
	for (unsigned i = page; i < page + n; i++)
		if (!is_true(i))
			fake_fail("page %u: the device reaches another page than the CPU", i);
}

/* ---- map ---- */

static void runs(void **state)
{
	struct hmm_dma_stats stats = { .size = sizeof(stats) };

	open_with(*state, (struct hmm_dma_options){ .chunk = 16 * PAGE });
	fake_map(P, 2 * N, FAKE_ANON, RW);
	fake_map(P + 5, 1, FAKE_ANON, PROT_READ);
	/* Without a request: what is there, and nothing else. */
	fake_touch(P, 3);
	assert_int_equal(map_pages(P, 2 * N, 0), 3);
	assert_int_equal(mappings(), 1);
	for (unsigned i = 0; i < 2 * N; i++) {
		assert_int_equal(dev.daddrs[i], i < 3 ? fake_addr(P + i) : 0);
		assert_int_equal(!!(dev.pfns[i] & HMM_PFN_DMA_MAPPED), i < 3);
	}
	/* All of it: permission, what is mapped already, and the border of a chunk end a run. */
	assert_int_equal(map_pages(P, 5, WRITE), 5);
	assert_int_equal(map_pages(P, 2 * N, FAULT), 2 * N);
	assert_int_equal(mapped(), 2 * N);
	assert_int_equal(mappings(), 4); /* 0-2 3-4 5-15 16-31 */
	assert_false(mapping_at(fake_addr(P + 5))->write);
	all_true(P, 2 * N);
	hmm_dma_get_stats(dev.dma, &stats);
	assert_int_equal(stats.mapped, 2 * N);
	assert_int_equal(stats.mappings, 4);
	assert_int_equal(hmm_range_dma_unmap(dev.dma, 0, UINTPTR_MAX, false), 2 * N);
	close_dev();
}

static void again(void **state)
{
	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_look(P, N);
	assert_int_equal(map_pages(P, N, FAULT), N);
	assert_false(mapping_at(fake_addr(P))->write);
	assert_int_equal(map_pages(P, N, FAULT), N);
	assert_int_equal(mapped(), N);
	/* Written to: it is another page then (it was the zero page), at the same address. What was
	 * mapped goes first, as by any change. */
	assert_int_equal(map_pages(P + 2, 1, WRITE), -EBUSY);
	assert_true(dev.invalidated);
	assert_int_equal(mapped(), N - 1);
	assert_int_equal(map_by_loop(P + 2, 1, WRITE), 0);
	assert_int_equal(dev.daddrs[0], fake_addr(P + 2));
	assert_true(mapping_at(fake_addr(P + 2))->write);
	assert_int_equal(mapped(), N);
	all_true(P, N);
	close_dev();
}

/* An upgrade takes a chunk away; neighbours come back when they are asked for, as they were. */
static void upgrade_of_a_chunk(void **state)
{
	open_with(*state, (struct hmm_dma_options){ .chunk = 16 * PAGE });
	fake_map(P, N, FAKE_SHMEM, RW);
	fake_look(P, N);
	assert_int_equal(map_pages(P, N, FAULT), N);
	assert_int_equal(mappings(), 1);
	assert_int_equal(map_by_loop(P + 4, 2, WRITE), 0);
	assert_int_equal(mapped(), 2);
	assert_true(mapping_at(fake_addr(P + 4))->write);
	assert_int_equal(map_pages(P, N, FAULT), N);
	assert_false(mapping_at(fake_addr(P))->write);
	assert_int_equal(mappings(), 3);
	all_true(P, N);
	close_dev();
}

/* D2: it fails at each call of the back-end. */
static void fails_whole(void **state)
{
	static const int errs[] = { -ENOMEM, -EINVAL };

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_touch(P, N);
	assert_int_equal(map_pages(P + 3, 2, WRITE), 2);
	for (unsigned at = 1; at <= N - 2; at++) {
		uint64_t before[N];

		dev.calls = 0;
		dev.fail_at = at;
		dev.fail_with = errs[at % 2];
		memset(before, 0xee, sizeof(before));
		assert_int_equal(map_pages(P, N, WRITE), errs[at % 2]);
		assert_int_equal(mapped(), 2);
		assert_memory_equal(dev.daddrs, before, sizeof(before));
		for (unsigned i = 0; i < N; i++)
			assert_int_equal(dev.pfns[i], 0);
	}
	dev.fail_at = 0;
	assert_int_equal(map_pages(P, N, WRITE), N);
	close_dev();
}

static void refused(void **state)
{
	struct hmm_dma_options options = { .size = sizeof(options), .granule = 12345 };
	struct hmm_dma_ops none = { .size = sizeof(none) };
	struct hmm_dma *dma = (void *)1;
	struct hmm_range range;

	open_dev(*state);
	assert_int_equal(hmm_dma_create(*state, &options, &ops, NULL, &dma), -EINVAL);
	options.granule = 8192;
	options.chunk = 4096;
	assert_int_equal(hmm_dma_create(*state, &options, &ops, NULL, &dma), -EINVAL);
	options.chunk = 0;
	options.address_bits = 5;
	assert_int_equal(hmm_dma_create(*state, &options, &ops, NULL, &dma), -EINVAL);
	options.address_bits = 0;
	options.n_apertures = 1;
	assert_int_equal(hmm_dma_create(*state, &options, &ops, NULL, &dma), -EINVAL);
	options.n_apertures = 0;
	assert_int_equal(hmm_dma_create(*state, &options, &none, NULL, &dma), -EINVAL);
	options.size = 8;
	assert_int_equal(hmm_dma_create(*state, &options, &ops, NULL, &dma), -EINVAL);
	assert_ptr_equal(dma, (void *)1);
	fake_map(P, N, FAKE_ANON, RW);
	range = range_of(P, N, FAULT);
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_dma_map(&range, NULL, dev.daddrs, 0), -EINVAL);
	assert_int_equal(hmm_range_dma_map(&range, dev.dma, NULL, 0), -EINVAL);
	assert_int_equal(hmm_range_dma_map(&range, dev.dma, dev.daddrs, 1u << 7), -EINVAL);
	range.notifier = NULL;
	assert_int_equal(hmm_range_dma_map(&range, dev.dma, dev.daddrs, 0), -EINVAL);
	assert_int_equal(hmm_range_dma_unmap(NULL, 0, 1, false), -EINVAL);
	assert_int_equal(hmm_range_dma_sync(dev.dma, 2, 1, HMM_DMA_FOR_CPU), -EINVAL);
	assert_int_equal(hmm_dma_fence(NULL, 0, 1), -EINVAL);
	/* As a fault would. */
	assert_int_equal(map_pages(P, N + 1, FAULT), -EFAULT);
	fake_protect(P + 2, 1, PROT_READ);
	assert_int_equal(map_pages(P, N, WRITE), -EPERM);
	assert_int_equal(mapped(), 0);
	hmm_dma_destroy(NULL);
	close_dev();
}

/* ---- addresses ---- */

static void windows(void **state)
{
	const struct hmm_dma_aperture apertures[] = { { 0x100000, 0x104000 },
						      { 0x200000, 0x202000 } };
	uint64_t seen[6];

	open_with(*state, (struct hmm_dma_options){ .address_bits = 32, .apertures = apertures,
						    .n_apertures = 2 });
	fake_map(P, N, FAKE_ANON, RW);
	assert_int_equal(map_pages(P, 6, WRITE), 6);
	for (unsigned i = 0; i < 6; i++) {
		seen[i] = dev.daddrs[i];
		assert_true((seen[i] >= 0x100000 && seen[i] < 0x104000) ||
			    (seen[i] >= 0x200000 && seen[i] < 0x202000));
		for (unsigned k = 0; k < i; k++)
			assert_int_not_equal(seen[i], seen[k]);
		assert_int_equal(mapping_at(seen[i])->va, fake_addr(P + i));
	}
	assert_int_equal(map_pages(P + 6, 1, WRITE), -ENOSPC);
	assert_int_equal(hmm_range_dma_unmap(dev.dma, fake_addr(P + 2), fake_addr(P + 4), false),
			 2);
	assert_int_equal(map_pages(P + 6, 2, WRITE), 2);
	assert_int_equal(map_pages(P, 2, WRITE), 2);
	assert_int_equal(dev.daddrs[1], seen[1]);
	close_dev();
}

/* Its own address where that is allowed; what lies outside does not take one of those. */
static void own_addresses(void **state)
{
	const struct hmm_dma_aperture apertures[] = { { fake_addr(P), fake_addr(P + 8) } };

	open_with(*state, (struct hmm_dma_options){ .apertures = apertures, .n_apertures = 1 });
	fake_map(P, N, FAKE_ANON, RW);
	assert_int_equal(map_pages(P, 4, WRITE), 4);
	assert_int_equal(dev.daddrs[3], fake_addr(P + 3));
	assert_int_equal(map_pages(P + 8, 4, WRITE), 4); /* those of P + 4 on, which are free */
	assert_true(dev.daddrs[0] >= fake_addr(P + 4) && dev.daddrs[0] < fake_addr(P + 8));
	assert_int_equal(map_pages(P + 4, 1, WRITE), -ENOSPC);
	hmm_range_dma_unmap(dev.dma, fake_addr(P), fake_addr(P + 1), false);
	assert_int_equal(map_pages(P + 4, 1, WRITE), 1); /* at P's */
	assert_int_equal(dev.daddrs[0], fake_addr(P));
	close_dev();
}

static void granules(void **state)
{
	open_with(*state, (struct hmm_dma_options){ .granule = 4 * PAGE, .chunk = 8 * PAGE });
	fake_map(P, N, FAKE_ANON, RW);
	assert_int_equal(map_pages(P + 1, 4, WRITE), -EINVAL);
	assert_int_equal(mapped(), 0);
	assert_int_equal(map_pages(P + 4, 12, WRITE), 12);
	assert_int_equal(mappings(), 2);
	fake_unmap(P + 9, 1);
	fake_settle();
	assert_int_equal(mapped(), 4); /* with its neighbours */
	close_dev();
}

/* ---- D1 ---- */

static int unmaps_it(void *arg)
{
	fake_unmap(P + 1, 2);
	return 0;
}

static int maps_over(void *arg)
{
	fake_map(P + 1, 2, FAKE_ANON, RW);
	fake_touch(P + 1, 2);
	return 0;
}

static int discards(void *arg)
{
	fake_dontneed(P + 1, 2);
	return 0;
}

/* At every call of the system and of the back-end that a map makes, before and after. */
static void changed_at_any_step(void **state)
{
	static const fake_action changes[] = { unmaps_it, maps_over, discards };
	unsigned placed = 0;

	open_dev(*state);
	for (unsigned c = 0; c < 3; c++)
		for (unsigned op = 0; op < FAKE_OPS; op++)
			for (unsigned nth = 1; nth < 12; nth++) {
				unsigned before;

				fake_map(P, N, FAKE_ANON, RW);
				fake_touch(P, N);
				fake_settle();
				before = dev.invalidated;
				fake_at(op, nth % 2 ? FAKE_BEFORE : FAKE_AFTER, -1, (nth + 1) / 2,
					changes[c], NULL);
				map_by_loop(P, 4, FAULT);
				fake_forget();
				fake_settle();
				placed += dev.invalidated != before;
				assert_int_equal(hmm_dma_fence(dev.dma, fake_addr(P), N * PAGE), 0);
				all_true(P, N);
				hmm_range_dma_unmap(dev.dma, 0, UINTPTR_MAX, false);
				fake_unmap(P, N);
				fake_settle();
				assert_int_equal(mapped(), 0);
			}
	assert_true(placed > 30);
	close_dev();
}

/* The look is stale when the map comes to it: nothing is mapped. */
static void stale_before_map(void **state)
{
	struct hmm_range range;

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_touch(P, N);
	assert_int_equal(map_pages(P, N, WRITE), N);
	range = range_of(P, N, WRITE);
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	fake_unmap(P + 3, 1);
	fake_settle();
	assert_int_equal(mapped(), N - 1);
	assert_int_equal(hmm_range_dma_map(&range, dev.dma, dev.daddrs, 0), -EBUSY);
	assert_int_equal(mapped(), N - 1);
	close_dev();
}

/* ---- D3 ---- */

/* The message was read, the pages are there still: a pin would keep them. */
static void dontneed_begins_and_does_not_end(void **state)
{
	struct hmm_dma_stats stats = { .size = sizeof(stats) };

	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_touch(P, N);
	assert_int_equal(map_pages(P, N, WRITE), N);
	fake.hold_zap = true;
	fake_dontneed(P + 2, 2);
	fake.hold_zap = false;
	fake_settle();
	assert_int_equal(mapped(), N - 2);
	assert_int_equal(map_pages(P, N, WRITE), -EBUSY); /* it does not end */
	assert_int_equal(mapped(), N - 2);
	assert_int_equal(map_pages(P + 8, 4, WRITE), 4); /* others are not held up */
	fake_resume_all();
	assert_int_equal(map_pages(P, N, WRITE), N);
	all_true(P, N);
	hmm_dma_get_stats(dev.dma, &stats);
	assert_int_equal(stats.settled, 2); /* and the first of all: what was before nobody knew */
	close_dev();
}

/* What no event tells. */
static void guard(unsigned page)
{
	fake_guard(page, 2, true);
	fake_guard(page, 2, false);
}

static void guard_and_touch(unsigned page)
{
	guard(page);
	fake_touch(page, 2);
}

static void punch(unsigned page)
{
	fake_forget_page(&fake.page[page]);
	fake_forget_page(&fake.page[page + 1]);
}

static void punch_and_touch(unsigned page)
{
	punch(page);
	fake_touch(page, 2);
}

static void silent_changes(void **state)
{
	static void (*const changes[])(unsigned page) = { guard, guard_and_touch, punch,
							  punch_and_touch };
	struct hmm_dma_stats stats = { .size = sizeof(stats) };

	open_dev(*state);
	for (unsigned c = 0; c < 4; c++) {
		fake_map(P, N, c < 2 ? FAKE_ANON : FAKE_SHMEM, RW);
		fake_touch(P, N);
		assert_int_equal(map_pages(P, N, WRITE), N);
		assert_int_equal(hmm_dma_fence(dev.dma, fake_addr(P), N * PAGE), 0);
		assert_int_equal(mapped(), N);
		changes[c](P + 5);
		assert_false(is_true(P + 5) && is_true(P + 6));
		/* Of other pages: not its business. */
		assert_int_equal(hmm_dma_fence(dev.dma, fake_addr(P), 5 * PAGE), 0);
		assert_int_equal(mapped(), N);
		dev.invalidated = 0;
		assert_int_equal(hmm_dma_fence(dev.dma, fake_addr(P) + 100, N * PAGE - 200), 0);
		assert_true(dev.invalidated);
		assert_int_equal(mapped(), N - 2);
		all_true(P, N);
		hmm_range_dma_unmap(dev.dma, 0, UINTPTR_MAX, false);
		fake_unmap(P, N);
		fake_settle();
	}
	hmm_dma_get_stats(dev.dma, &stats);
	assert_int_equal(stats.stale, 8);
	close_dev();
}

static int exchange(void *arg)
{
	guard_and_touch(P + 1);
	return 0;
}

/* D3: silently, when the back-end has pinned it and before anybody has looked what it is. */
static void exchanged_after_the_pin(void **state)
{
	open_dev(*state);
	fake_map(P, N, FAKE_ANON, RW);
	fake_touch(P, N);
	fake_at(FAKE_OP_DRIVER, FAKE_AFTER, -1, 2, exchange, NULL);
	assert_int_equal(map_pages(P, 4, WRITE), -EBUSY);
	assert_int_equal(mapped(), 0); /* D2 */
	assert_int_equal(map_pages(P, 4, WRITE), 4);
	assert_int_equal(hmm_dma_fence(dev.dma, fake_addr(P), N * PAGE), 0);
	all_true(P, N);
	close_dev();
}

/* Numbers of pages are not told: what is pinned lasts until the next fence, and is not trusted. */
static void numbers_not_told(void **state)
{
	open_dev(*state);
	fake.no_frames = true;
	fake_map(P, N, FAKE_ANON, RW);
	fake_touch(P, N);
	assert_int_equal(map_pages(P, N, WRITE), N);
	guard_and_touch(P + 5);
	assert_int_equal(hmm_dma_fence(dev.dma, fake_addr(P + 4), 4 * PAGE), 0);
	assert_int_equal(mapped(), N - 4);
	assert_int_equal(map_pages(P, N, WRITE), N);
	all_true(P, N);
	close_dev();
}

/* ---- bounce ---- */

static uint64_t *bounced(unsigned i)
{
	return (uint64_t *)mapping_at(dev.daddrs[i])->va;
}

static void bounce(void **state)
{
	open_dev(*state);
	dev.no_files = true;
	fake_map(P, N, FAKE_DAX_FILE, RW);
	fake_touch(P, N);
	for (unsigned i = 0; i < N; i++)
		fake.page[P + i].value = 100 + i;
	assert_int_equal(map_flags(P, N, WRITE, HMM_DMA_NO_BOUNCE), -EOPNOTSUPP);
	assert_int_equal(mapped(), 0);
	assert_int_equal(map_pages(P, N, WRITE), N);
	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(dev.daddrs[i], fake_addr(P + i)); /* its own, all the same */
		assert_true(dev.pfns[i] & HMM_PFN_DMA_BOUNCE);
		assert_int_equal(*bounced(i), 100 + i);
	}
	/* To and fro. */
	fake.page[P + 3].value = 7;
	*bounced(4) = 8;
	assert_int_equal(*bounced(3), 103);
	assert_int_equal(hmm_range_dma_sync(dev.dma, fake_addr(P + 3), fake_addr(P + 4),
					    HMM_DMA_FOR_DEVICE), 1);
	assert_int_equal(*bounced(3), 7);
	assert_int_equal(hmm_range_dma_sync(dev.dma, fake_addr(P + 4), fake_addr(P + 5),
					    HMM_DMA_FOR_CPU), 1);
	assert_int_equal(fake.page[P + 4].value, 8);
	/* A fence leaves them alone, an unmap loses what was not synced, or writes it back. */
	assert_int_equal(hmm_dma_fence(dev.dma, fake_addr(P), N * PAGE), 0);
	assert_int_equal(mapped(), N);
	*bounced(5) = 9;
	*bounced(6) = 10;
	assert_int_equal(hmm_range_dma_unmap(dev.dma, fake_addr(P + 5), fake_addr(P + 6), false),
			 1);
	assert_int_equal(fake.page[P + 5].value, 105);
	assert_int_equal(hmm_range_dma_unmap(dev.dma, fake_addr(P + 6), fake_addr(P + 7), true),
			 1);
	assert_int_equal(fake.page[P + 6].value, 10);
	close_dev();
}

/* Memory that is gone is an error, and other memory is not written to. */
static void bounce_to_nowhere(void **state)
{
	open_dev(*state);
	dev.no_files = true;
	fake_map(P, N, FAKE_DAX_FILE, RW);
	fake_touch(P, N);
	assert_int_equal(map_pages(P, N, WRITE), N);
	*bounced(2) = 55;
	*bounced(9) = 66;
	fake_map(P + 2, 1, FAKE_ANON, RW); /* another mapping, whose message nobody has read */
	assert_int_equal(hmm_range_dma_sync(dev.dma, fake_addr(P), fake_addr(P + N),
					    HMM_DMA_FOR_CPU), N - 1);
	assert_int_equal(fake.page[P + 2].value, 0);
	assert_int_equal(fake.page[P + 9].value, 66);
	fake.page[P + 3].guard = true;
	fake_forget_page(&fake.page[P + 3]);
	*bounced(10) = 77;
	assert_int_equal(hmm_range_dma_sync(dev.dma, fake_addr(P), fake_addr(P + N),
					    HMM_DMA_FOR_CPU), -EFAULT);
	assert_int_equal(fake.page[P + 10].value, 77);
	close_dev();
}

static int unmaps_bounced(void *arg)
{
	hmm_range_dma_unmap(dev.dma, fake_addr(P), fake_addr(P + N), false);
	return 0;
}

/* Unmapped while it is copied: its granule is not another's before the copying has ended. */
static void unmapped_while_copied(void **state)
{
	open_dev(*state);
	dev.no_files = true;
	fake_map(P, N, FAKE_DAX_FILE, RW);
	fake_touch(P, N);
	assert_int_equal(map_pages(P, 2, WRITE), 2);
	fake_at(FAKE_OP_PROBE, FAKE_BEFORE, -1, 1, unmaps_bounced, NULL);
	assert_int_equal(hmm_range_dma_sync(dev.dma, fake_addr(P), fake_addr(P + 2),
					    HMM_DMA_FOR_CPU), 0);
	fake_forget();
	assert_int_equal(map_pages(P, N, WRITE), N);
	assert_int_equal(mapped(), N);
	close_dev();
}

/* ---- host ---- */

static void host(void **state)
{
	struct hmm_dma_stats stats = { .size = sizeof(stats) };

	open_dev(*state);
	hmm_dma_destroy(dev.dma);
	assert_int_equal(hmm_dma_host(*state, &dev.dma), 0);
	fake_map(P, N, FAKE_ANON, RW);
	assert_int_equal(map_pages(P, N, WRITE), N);
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(dev.daddrs[i], fake_addr(P + i));
	guard_and_touch(P + 5); /* no pin: nothing can be stale */
	assert_int_equal(hmm_dma_fence(dev.dma, fake_addr(P), N * PAGE), 0);
	fake_unmap(P + 1, 2);
	fake_settle();
	hmm_dma_get_stats(dev.dma, &stats);
	assert_int_equal(stats.mapped, N - 2);
	assert_int_equal(stats.stale, 0);
	hmm_notifier_remove(dev.notifier);
	hmm_dma_destroy(dev.dma);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(runs),
		TEST(again),
		TEST(upgrade_of_a_chunk),
		TEST(fails_whole),
		TEST(refused),
		TEST(windows),
		TEST(own_addresses),
		TEST(granules),
		TEST(changed_at_any_step),
		TEST(stale_before_map),
		TEST(dontneed_begins_and_does_not_end),
		TEST(silent_changes),
		TEST(exchanged_after_the_pin),
		TEST(numbers_not_told),
		TEST(bounce),
		TEST(bounce_to_nowhere),
		TEST(unmapped_while_copied),
		TEST(host),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
