/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* dirty_live - see dirty_live.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "dirty_live.h"

static void invalidate(void *priv, const struct hmm_event *event)
{
	struct keeper *k = priv;
	uintptr_t start = (uintptr_t)k->at;

	/* The bytes stay: W1 must hold without these. */
	if (event->kind == HMM_EVENT_FORK || event->kind == HMM_EVENT_PROTECTION)
		return;
	for (size_t i = 0; i < k->n; i++)
		if (event->start < start + (i + 1) * PAGE && start + i * PAGE < event->end)
			atomic_store(&k->told[i], true);
}

static const struct hmm_notifier_ops ops = { .size = sizeof(ops), .invalidate = invalidate };

/* Present where it can be, and mirrored. What is not there, or not ours, is nobody's error. */
static enum verdict make_present(struct keeper *k)
{
	static uint64_t pfns[MOST];
	struct hmm_range range = {
		.size = sizeof(range), .hmm = k->hmm, .notifier = k->notifier, .pfns = pfns,
		.default_flags = HMM_PFN_REQ_FAULT,
	};
	uintptr_t at = (uintptr_t)k->at, end = at + k->n * PAGE;

	for (unsigned tries = 0; at < end && tries < 10000; tries++) {
		int err;

		range.start = at;
		range.end = end;
		err = hmm_notifier_read_begin(&range);
		if (!err)
			err = hmm_range_fault(&range);
		if (err == -EFAULT || err == -EPERM || err == -EOPNOTSUPP)
			at = (range.fault_addr & -PAGE) + PAGE;
		else if (!err)
			return PASS;
		else
			CHECK(err == -EBUSY, "fault: %s", hmm_strerror(err));
	}
	return PASS;
}

static bool is_set(const struct keeper *k, size_t i)
{
	return k->bits[i / 64] >> i % 64 & 1;
}

/* What cannot be read reads as zeros, in all copies. */
static void read_page(struct keeper *k, size_t i, char *to)
{
	if (hmm_copy_from(k->hmm, to, (uintptr_t)k->at + i * PAGE, PAGE))
		memset(to, 0, PAGE);
}

static enum verdict collect(struct keeper *k)
{
	int64_t n;

	EXPECT(0, hmm_fence(k->hmm, (uintptr_t)k->at, k->n * PAGE));
	n = hmm_dirty_collect(k->dirty, k->bits);
	CHECK(n >= 0, "collect: %s", hmm_strerror((int)n));
	k->marked += k->n - (size_t)n;
	return PASS;
}

enum verdict keeper_update(struct keeper *k)
{
	TRY(make_present(k));
	TRY(collect(k));
	for (size_t i = 0; i < k->n; i++)
		if (atomic_exchange(&k->told[i], false) | is_set(k, i))
			read_page(k, i, k->copy + i * PAGE);
	return PASS;
}

enum verdict keeper_check(struct keeper *k)
{
	static char now[PAGE];

	TRY(collect(k));
	for (size_t i = 0; i < k->n; i++) {
		bool known = !atomic_exchange(&k->told[i], false) & !is_set(k, i);

		read_page(k, i, now);
		CHECK(!known || !memcmp(now, k->copy + i * PAGE, PAGE),
		      "page %zu of %p changed, its bit is not set and nobody was told", i,
		      (void *)k->at);
		memcpy(k->copy + i * PAGE, now, PAGE);
	}
	return PASS;
}

enum verdict keeper_make(struct keeper **out, char *at, size_t n)
{
	struct keeper *k = mmap(NULL, sizeof(*k), PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(k != MAP_FAILED && n <= MOST, "no memory");
	k->at = at;
	k->n = n;
	EXPECT(0, hmm_open(&k->hmm));
	EXPECT(0, hmm_notifier_insert(k->hmm, (uintptr_t)at, n * PAGE, &ops, k, &k->notifier));
	EXPECT(0, hmm_dirty_begin(k->hmm, (uintptr_t)at, n * PAGE, &k->dirty));
	TRY(keeper_update(k));
	TRY(keeper_update(k));
	*out = k;
	return PASS;
}

void keeper_end(struct keeper *k)
{
	hmm_dirty_end(k->dirty);
	hmm_notifier_remove(k->notifier);
	hmm_put(k->hmm);
	munmap(k, sizeof(*k));
}

char *dirty_memory(size_t n, int advice)
{
	char *p = mmap(NULL, 2 * MOST * PAGE + n * PAGE, PROT_NONE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		abort();
	p = (char *)(((uintptr_t)p + MOST * PAGE - 1) & -(MOST * PAGE));
	if (mmap(p, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != p)
		abort();
	madvise(p, n * PAGE, advice);
	memset(p, 7, n * PAGE);
	return p;
}
