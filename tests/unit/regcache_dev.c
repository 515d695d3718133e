/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* regcache_dev - a driver that registers, and who uses its cache (regcache_dev.h). */
#include "regcache_dev.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

struct regcache_dev dev;

/* ---- the driver ---- */

static int pin(struct key *key)
{
	for (size_t i = 0; i < key->length / PAGE && i < 64; i++) {
		struct fake_page *p = fake_page(key->start + i * PAGE);

		if (!p->mapped || ((key->access & WRITE) && !(p->prot & PROT_WRITE)) ||
		    (!p->frame && p->guard))
			return -EFAULT;
		fake_make_present(p, key->access & WRITE);
		key->frame[i] = p->frame;
	}
	return 0;
}

static int reg(void *priv, uintptr_t start, size_t length, unsigned access, void **handle)
{
	struct key *key;
	uint64_t begun = dev.begun;
	int err = fake_point(FAKE_OP_DRIVER, FAKE_BEFORE, REG);

	assert_ptr_equal(priv, &dev);
	assert_int_equal((start | length) & (PAGE - 1), 0);
	if (!err && dev.longest && length > dev.longest)
		err = -EINVAL;
	if (!err) {
		key = &dev.key[dev.keys++];
		assert_true(key < dev.key + KEYS);
		*key = (struct key){ .start = start, .length = length, .access = access };
		key->begun = begun;
		fake_lock();
		err = pin(key);
		fake_unlock();
		key->used = !err;
		*handle = key;
		dev.deregs += !!err;
	}
	fake_point(FAKE_OP_DRIVER, FAKE_AFTER, REG);
	return err;
}

static void dereg(void *priv, void *handle, uintptr_t start, size_t length)
{
	struct key *key = handle;

	fake_point(FAKE_OP_DRIVER, FAKE_BEFORE, DEREG);
	assert_ptr_equal(priv, &dev);
	assert_true(key->start == start && key->length == length);
	assert_true(atomic_exchange(&key->used, false)); /* once (R2) */
	dev.deregs++;
}

const struct hmm_regcache_ops dev_ops = { .size = sizeof(dev_ops), .reg = reg, .dereg = dereg };

void open_with(struct hmm *hmm, struct hmm_regcache_options options)
{
	memset(&dev, 0, sizeof(dev));
	fail_at = failed = 0;
	dev.hmm = hmm;
	options.size = sizeof(options);
	assert_int_equal(hmm_regcache_create(hmm, &options, &dev_ops, &dev, &dev.cache), 0);
}

void open_dev(struct hmm *hmm)
{
	open_with(hmm, (struct hmm_regcache_options){ 0 });
}

void open_pinned(struct hmm *hmm)
{
	open_with(hmm, (struct hmm_regcache_options){ .pinned = true });
}

unsigned registered(void)
{
	return dev.keys - dev.deregs;
}

void close_dev(void)
{
	hmm_regcache_destroy(dev.cache);
	assert_int_equal(registered(), 0);
}

/* ---- and its user ---- */

int get_at(uintptr_t addr, size_t length, unsigned access, unsigned flags,
		  struct hmm_region **r)
{
	return hmm_regcache_get(dev.cache, addr, length, access, flags, r);
}

struct hmm_region *get(unsigned page, unsigned n, unsigned access)
{
	struct hmm_region *r = NULL;
	const struct key *key;

	assert_int_equal(get_at(fake_addr(page), n * PAGE, access, 0, &r), 0);
	key = hmm_region_handle(r);
	assert_true(key->used);
	assert_true(key->start <= fake_addr(page));
	assert_true(key->start + key->length >= fake_addr(page + n));
	assert_true((key->access & access) == access);
	assert_int_equal(hmm_region_start(r), key->start);
	return r;
}

bool put(struct hmm_region *r)
{
	assert_true(((struct key *)hmm_region_handle(r))->used);
	return hmm_regcache_put(r);
}

bool is_true(const struct hmm_region *r, unsigned page, unsigned n)
{
	const struct key *key = hmm_region_handle(r);

	for (unsigned i = page; i < page + n; i++)
		if (key->frame[(fake_addr(i) - key->start) / PAGE] != fake.page[i].frame)
			return false;
	return true;
}

struct hmm_regcache_stats stats(void)
{
	struct hmm_regcache_stats s = { .size = sizeof(s) };

	hmm_regcache_get_stats(dev.cache, &s);
	assert_int_equal(s.size, sizeof(s));
	return s;
}
