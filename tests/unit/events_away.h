/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* events_away - what each test of changes under pages that are away begins with. */
#ifndef EVENTS_AWAY_H
#define EVENTS_AWAY_H

#include "away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct hmm_devmem_options kinds[] = {
	{ .type = HMM_DEVMEM_PRIVATE, .frames = VRAM_FRAMES },
	{ .type = HMM_DEVMEM_PRIVATE, .frames = VRAM_FRAMES, .host_frames = true },
};

#define EACH_KIND(k) for (unsigned k = 0; k < 2; k++)

static inline int64_t to_device(unsigned page, unsigned n)
{
	return hmm_migrate_to_device(away.vram.devmem, fake_addr(page), n * PAGE);
}

static inline bool uses(unsigned page)
{
	return away.vram.entry[page].valid && away.vram.entry[page].device;
}

/* The change of that kind which is on its way, and where it starts. */
static inline struct fake_change *change_of(enum os_msg_kind kind, unsigned page)
{
	struct fake_change *c;

	for (unsigned i = 0; (c = fake_pending(i)); i++)
		if (c->msg.kind == kind && (kind == OS_MSG_FORK || c->msg.start == fake_addr(page)))
			return c;
	fake_fail("there is no such change");
}

static inline void begin(struct hmm *hmm, unsigned kind)
{
	away_begin(hmm, &kinds[kind]);
	away_move(P - 1, 4);
	assert_int_equal(away_device_reads(P), 0);
	assert_true(uses(P));
}

static inline int read_now(void *arg)
{
	fake_queue_all();
	return 0;
}

#endif
