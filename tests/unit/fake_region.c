/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fake_region - quiet contexts, and memory for pages on their way.
 *
 * Laws: a change of a region that belongs to a context with events sends a message, and its
 * caller waits for that to be read: the reader must not make one, and after its end nobody
 * must. A quiet context has no messages; one that the reader opened lies in the reader's own
 * table of descriptors and goes with it. Nothing of either is left behind.
 */
#include "fake_os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int fake_quiet_open(struct os_ctx *ctx)
{
	unsigned i = FAKE_SENTINEL + 1;

	if (fake.no_move)
		return -EOPNOTSUPP;
	while (i < FAKE_CONTEXTS && fake.ctx[i].open)
		i++;
	if (i == FAKE_CONTEXTS)
		return -EMFILE;
	*ctx = (struct os_ctx){ .fd = FAKE_FD + (int)i, .nudge = -1, .move = true,
				.poison = !fake.no_poison };
	fake.ctx[i].open = true;
	fake.quiets++;
	return 0;
}

void fake_quiet_close(struct os_ctx *ctx)
{
	unsigned i = fake_ctx_number(ctx);

	if (ctx->fd < 0)
		return;
	for (unsigned r = 0; r < FAKE_REGIONS; r++)
		for (uintptr_t at = fake.region[r].start; at < fake.region[r].end; at += PAGE)
			if (fake_page(at)->ctx == (int)i)
				fake_fail("quiet context %u is closed with %#lx registered", i,
					  (unsigned long)at);
	fake.ctx[i].open = false;
	fake.quiets--;
	ctx->fd = -1;
}

void fake_quiet_gone(void)
{
	for (unsigned i = FAKE_SENTINEL + 1; i < FAKE_CONTEXTS; i++)
		fake.ctx[i].open = false;
	fake.quiets = 0;
}

void *fake_region_map(size_t length)
{
	struct fake_region *r = fake.region;
	size_t pages = length / PAGE;

	if (fake_point(FAKE_OP_REGION_MAP, FAKE_BEFORE, -1))
		return NULL;
	if (!length || (length & (PAGE - 1)))
		fake_fail("a region of %zu bytes", length);
	fake_lock();
	while (r < fake.region + FAKE_REGIONS && r->end)
		r++;
	if (r == fake.region + FAKE_REGIONS)
		fake_fail("more than %u regions", FAKE_REGIONS);
	/* Aligned, and never beside another. */
	r->start = fake.region_next ? fake.region_next : FAKE_REGION_BASE;
	r->end = r->start + length;
	fake.region_next = (r->end + 2 * ((uintptr_t)2 << 20)) & ~(((uintptr_t)2 << 20) - 1);
	r->page = calloc(pages, sizeof(*r->page));
	if (!r->page || arena_adopt(r->start, r->end))
		fake_fail("no memory for a region");
	for (size_t i = 0; i < pages; i++)
		r->page[i] = (struct fake_page){ .mapped = true, .ctx = FAKE_NO_CTX,
						 .prot = PROT_READ | PROT_WRITE };
	fake_unlock();
	return (void *)r->start;
}

/* Does a change of it send a message that nobody would read? */
static void nobody_waits(const char *what, uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end; at += PAGE) {
		const struct fake_page *p = fake_page(at);

		if (p->ctx >= 0 && p->ctx < (int)CONTEXTS && (fake_reading || fake.reader_gone))
			fake_fail("%s of %#lx, of context %d: its message is never read", what,
				  (unsigned long)at, p->ctx);
	}
}

static struct fake_region *region_of(uintptr_t start)
{
	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		if (fake.region[i].start == start && start)
			return &fake.region[i];
	fake_fail("%#lx is no region", (unsigned long)start);
}

static void region_free(struct fake_region *r)
{
	arena_disown(r->start, r->end);
	free(r->page);
	memset(r, 0, sizeof(*r));
}

void fake_region_unmap(void *region, size_t length)
{
	struct fake_region *r;

	fake_point(FAKE_OP_REGION_UNMAP, FAKE_BEFORE, -1);
	fake_lock();
	r = region_of((uintptr_t)region);
	if (r->end - r->start != length)
		fake_fail("a region of %zu bytes is unmapped as %zu", (size_t)(r->end - r->start),
			  length);
	nobody_waits("unmapping", r->start, r->end);
	fake_notify_range(OS_MSG_UNMAP, r->start, r->end);
	region_free(r);
	fake_unlock();
}

void fake_region_zap(uintptr_t start, size_t length)
{
	fake_point(FAKE_OP_REGION_ZAP, FAKE_BEFORE, -1);
	fake_lock();
	for (uintptr_t at = start; at < start + length; at += PAGE) {
		struct fake_page *p = fake_page(at);

		if (at < FAKE_REGION_BASE || !p->mapped)
			fake_fail("zapping %#lx, which is no region", (unsigned long)at);
		if (p->ctx >= 0 && p->ctx < (int)CONTEXTS)
			fake_fail("zapping %#lx of context %d, which has events",
				  (unsigned long)at, p->ctx);
		fake_forget_page(p);
	}
	fake_unlock();
	fake_point(FAKE_OP_REGION_ZAP, FAKE_AFTER, -1);
}

unsigned fake_regions_free(void)
{
	unsigned left = 0;

	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		if (fake.region[i].end) {
			region_free(&fake.region[i]);
			left++;
		}
	return left;
}
