/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* whole - what the tests of mappings that are registered whole begin with. */
#ifndef WHOLE_H
#define WHOLE_H

#include "device.h"
#include "vram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>

#include "core/pager.h"

#define RW (PROT_READ | PROT_WRITE)

static struct vram vram;

/* Are pages [page, page + n) one VMA for mremap? */
static inline void is_whole(unsigned page, unsigned n, bool registered)
{
	for (unsigned i = page; i < page + n; i++) {
		assert_int_equal(fake_ctx_of(i), fake_ctx_of(page));
		assert_int_equal(fake.page[i].missing, fake.page[page].missing);
	}
	assert_int_equal(fake_ctx_of(page) != FAKE_NO_CTX, registered);
}

/* In place, by mremap: it keeps its registration, and nothing tells. */
static inline int grows(void *arg)
{
	for (unsigned i = 14; i < 18; i++) {
		fake_map(i, 1, FAKE_ANON, RW);
		fake.page[i].ctx = fake.page[10].ctx;
		fake.page[i].missing = fake.page[10].missing;
	}
	return 0;
}

static inline void fill(unsigned page, unsigned n)
{
	for (unsigned i = page; i < page + n; i++)
		fake_write_page(i, 100 + i);
}

static inline void goes_away(unsigned page, unsigned n)
{
	assert_int_equal(hmm_migrate_to_device(vram.devmem, fake_addr(page), n * PAGE), n);
	assert_true(fake.page[page].missing);
}

/* Long enough for all that is home to be plain. */
static inline void a_while_passes(void)
{
	for (unsigned i = 0; i < 20; i++) {
		fake.clock += 100000000;
		fake_settle();
	}
}

static inline void comes_home(struct hmm *hmm)
{
	hmm_migrate_to_host(hmm, fake_addr(0), 40 * PAGE);
	a_while_passes();
}

static inline void missing_begins(struct hmm *hmm, fake_action action)
{
	vram_open(&vram, hmm, NULL);
	fake_map(10, 4, FAKE_ANON, RW);
	fill(10, 4);
	if (action)
		fake_at(FAKE_OP_REGISTER_MISSING, FAKE_BEFORE, -1, 1, action, NULL);
	goes_away(10, 4);
}

static inline void missing_ends(void)
{
	fake_forget();
	vram_close(&vram);
}


/* Pages 1000 to 1003, above all else: there is room; and four that are away, of the same context. */
static inline unsigned away_beside_1000(struct hmm *hmm)
{
	unsigned from = 40;

	vram_open(&vram, hmm, NULL);
	fake_map(1000, 4, FAKE_ANON, RW);
	fill(1000, 4);
	assert_int_equal(vram_look(&vram, 1000, 4), 0);
	for (;; from += 10) {
		assert_true(from < 40 + 20 * CONTEXTS);
		fake_map(from, 4, FAKE_ANON, RW);
		fill(from, 4);
		assert_int_equal(vram_look(&vram, from, 4), 0);
		if (fake_ctx_of(from) == fake_ctx_of(1000))
			break;
	}
	goes_away(from, 4);
	return from;
}

static inline int moves_over_it(void *arg)
{
	fake_remap(*(unsigned *)arg, 1000, 4, false);
	return 0;
}

#endif
