/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fake_mm - the address space of fake_os.h and its changes.
 *
 * Everything here is atomic, as under the kernel's mmap lock: fake_lock() is taken where
 * the library's threads may run beside the test.
 */
#include "fake_os.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct fake_object fake_object[FAKE_OBJECTS] = {
	[FAKE_ANON] = { OS_VMA_ANON, false, false, 0, 4096, 0 },
	[FAKE_SHARED_FILE] = { OS_VMA_FILE, true, false, 11, 4096, FAKE_PAGES },
	[FAKE_PRIVATE_FILE] = { OS_VMA_FILE, false, false, 12, 4096, FAKE_PAGES },
	[FAKE_DAX_FILE] = { OS_VMA_FILE, true, true, 13, 4096, FAKE_PAGES },
	[FAKE_SHMEM] = { OS_VMA_SHMEM, true, false, 14, 4096, FAKE_PAGES },
	[FAKE_SYSV] = { OS_VMA_SYSV, true, false, 15, 4096, FAKE_PAGES },
	[FAKE_SYSV_OTHER] = { OS_VMA_SYSV, true, false, 16, 4096, FAKE_PAGES },
	[FAKE_HUGETLB] = { OS_VMA_HUGETLB, true, false, 17, (uint64_t)2 << 20, FAKE_PAGES },
	[FAKE_SPECIAL] = { OS_VMA_SPECIAL, true, false, 0, 4096, 0 },
};

static struct fake_page *page_at(uintptr_t addr)
{
	return &fake.page[fake_number(addr)];
}

/* Are two pages in a row of one VMA? */
static bool same_vma(const struct fake_page *a, const struct fake_page *b)
{
	return a->mapped && b->mapped && a->object == b->object && a->prot == b->prot &&
	       a->ctx == b->ctx &&
	       (!fake_object[a->object].inode || a->offset + 1 == b->offset);
}

bool fake_vma_at(uintptr_t addr, struct os_vma *vma)
{
	unsigned at = addr < FAKE_BASE ? 0 : fake_number(addr), last;
	const struct fake_object *o;

	if (addr >= fake_addr(fake.pages))
		return false;
	while (at < fake.pages && !fake.page[at].mapped)
		at++;
	if (at == fake.pages)
		return false;
	for (last = at; last + 1 < fake.pages; last++)
		if (!same_vma(&fake.page[last], &fake.page[last + 1]))
			break;
	while (at && same_vma(&fake.page[at - 1], &fake.page[at]))
		at--;
	o = &fake_object[fake.page[at].object];
	*vma = (struct os_vma){ .start = fake_addr(at), .end = fake_addr(last + 1),
				.prot = fake.page[at].prot, .shared = o->shared,
				.kind = o->kind, .page_size = o->page_size,
				.offset = (uint64_t)fake.page[at].offset * PAGE,
				.inode = o->inode, .dev_major = 8 };
	return true;
}

static struct fake_change *change_new(unsigned ctx, const struct os_msg *msg)
{
	struct fake_change *change = calloc(1, sizeof(*change)), **last = &fake.changes;

	if (!change)
		abort();
	while (*last)
		last = &(*last)->next;
	*last = change;
	change->ctx = ctx;
	change->msg = *msg;
	change->hold_resume = fake.hold_resume;
	fake.ctx[ctx].changing++;
	return change;
}

static void queue_locked(struct fake_change *change)
{
	if (change->state != FAKE_LET_GO)
		return;
	change->state = FAKE_QUEUED;
	change->order = ++fake.order;
}

static void resume_locked(struct fake_change *change)
{
	if (change->state != FAKE_READ)
		return;
	change->state = FAKE_GONE;
	fake.ctx[change->ctx].changing--;
}

static void free_gone(void)
{
	struct fake_change **at = &fake.changes;

	while (*at) {
		struct fake_change *change = *at;

		if (change->state != FAKE_GONE) {
			at = &change->next;
			continue;
		}
		*at = change->next;
		free(change);
	}
}

static void notify(unsigned ctx, const struct os_msg *msg)
{
	struct fake_change *change = change_new(ctx, msg);

	if (!fake.hold_queue)
		queue_locked(change);
}

/* One message for each context that has something of the range. */
static void notify_range(enum os_msg_kind kind, unsigned page, unsigned n)
{
	struct os_msg msg = { .kind = kind, .start = fake_addr(page), .end = fake_addr(page + n) };
	unsigned mask = 0;

	for (unsigned i = page; i < page + n; i++)
		if (fake.page[i].mapped && fake.page[i].ctx >= 0 &&
		    fake.page[i].ctx < (int)CONTEXTS)
			mask |= 1u << fake.page[i].ctx;
	for (unsigned c = 0; c < CONTEXTS; c++)
		if (mask >> c & 1)
			notify(c, &msg);
}

static void record(unsigned page, unsigned n, int prot)
{
	if (fake.no_perf)
		return;
	if (fake.head - fake.tail >= FAKE_RECORDS) {
		fake.overflow = true;
		return;
	}
	fake.record[fake.head % FAKE_RECORDS].start = fake_addr(page);
	fake.record[fake.head % FAKE_RECORDS].end = fake_addr(page + n);
	fake.record[fake.head % FAKE_RECORDS].prot = prot;
	fake.head++;
}

static void clear(unsigned page, unsigned n)
{
	for (unsigned i = page; i < page + n; i++)
		fake.page[i] = (struct fake_page){ .ctx = FAKE_NO_CTX,
						   .identity = ++fake.stamp,
						   .seen = { fake.page[i].seen[0],
							     fake.page[i].seen[1] } };
}

static bool anything_mapped(unsigned page, unsigned n)
{
	for (unsigned i = page; i < page + n; i++)
		if (fake.page[i].mapped)
			return true;
	return false;
}

void fake_map_at(unsigned page, unsigned n, enum fake_object_name object, int prot,
		 unsigned offset)
{
	fake_lock();
	if (anything_mapped(page, n))
		notify_range(OS_MSG_UNMAP, page, n);
	clear(page, n);
	for (unsigned i = page; i < page + n; i++) {
		fake.page[i].mapped = true;
		fake.page[i].object = object;
		fake.page[i].prot = (uint8_t)prot;
		fake.page[i].offset = offset + i - page;
	}
	record(page, n, prot);
	fake_unlock();
}

void fake_map(unsigned page, unsigned n, enum fake_object_name object, int prot)
{
	fake_map_at(page, n, object, prot, 0);
}

void fake_unmap(unsigned page, unsigned n)
{
	fake_lock();
	notify_range(OS_MSG_UNMAP, page, n);
	clear(page, n);
	fake_unlock();
}

void fake_unmap_fails(unsigned page, unsigned n)
{
	fake_lock();
	notify_range(OS_MSG_UNMAP, page, n);
	fake_unlock();
}

void fake_shmdt(unsigned page, unsigned n)
{
	fake_lock();
	clear(page, n);
	fake_unlock();
}

void fake_protect(unsigned page, unsigned n, int prot)
{
	fake_lock();
	for (unsigned i = page; i < page + n; i++)
		fake.page[i].prot = (uint8_t)prot;
	fake.stamp++;
	record(page, n, prot);
	fake_unlock();
}

void fake_dontneed(unsigned page, unsigned n)
{
	fake_lock();
	notify_range(OS_MSG_REMOVE, page, n);
	for (unsigned i = page; i < page + n; i++) {
		fake.page[i].flags = 0;
		fake.page[i].identity = ++fake.stamp;
	}
	fake_unlock();
}

void fake_remap(unsigned from, unsigned to, unsigned n, bool dontunmap)
{
	int ctx = fake.page[from].ctx;
	struct os_msg msg = { .kind = OS_MSG_REMAP, .start = fake_addr(from),
			      .end = fake_addr(from + n), .to = fake_addr(to) };

	fake_lock();
	if (anything_mapped(to, n))
		notify_range(OS_MSG_UNMAP, to, n);
	for (unsigned i = 0; i < n; i++) {
		struct fake_page *s = &fake.page[from + i], *d = &fake.page[to + i];
		uint64_t seen[2] = { d->seen[0], d->seen[1] };

		*d = *s;
		memcpy(d->seen, seen, sizeof(seen));
		d->identity = ++fake.stamp;
		s->identity = ++fake.stamp;
		s->flags = 0;
	}
	if (ctx >= 0 && ctx < (int)CONTEXTS)
		notify((unsigned)ctx, &msg);
	if (!dontunmap) {
		notify_range(OS_MSG_UNMAP, from, n);
		clear(from, n);
	}
	fake_unlock();
}

void fake_fork(void)
{
	struct os_msg msg = { .kind = OS_MSG_FORK };
	unsigned mask = 0;

	fake_lock();
	for (unsigned i = 0; i < fake.pages; i++)
		if (fake.page[i].mapped && fake.page[i].ctx >= 0 &&
		    fake.page[i].ctx < (int)CONTEXTS)
			mask |= 1u << fake.page[i].ctx;
	for (unsigned c = 0; c < CONTEXTS; c++)
		if (mask >> c & 1)
			notify(c, &msg);
	fake_unlock();
}

static void make_present(struct fake_page *p, bool write)
{
	const struct fake_object *o = &fake_object[p->object];

	if (o->inode && (o->shared || !write))
		p->flags = OS_PAGE_PRESENT | OS_PAGE_FILE;
	else if (write)
		p->flags = OS_PAGE_PRESENT;
	else if (!(p->flags & OS_PAGE_PRESENT))
		p->flags = OS_PAGE_PRESENT | OS_PAGE_ZERO;
}

void fake_touch(unsigned page, unsigned n)
{
	fake_lock();
	for (unsigned i = page; i < page + n; i++)
		make_present(&fake.page[i], true);
	fake_unlock();
}

void fake_look(unsigned page, unsigned n)
{
	fake_lock();
	for (unsigned i = page; i < page + n; i++)
		make_present(&fake.page[i], false);
	fake_unlock();
}

struct fake_change *fake_pending(unsigned nth)
{
	struct fake_change *change = fake.changes;

	for (; change; change = change->next)
		if (change->state != FAKE_GONE && !nth--)
			return change;
	return NULL;
}

void fake_queue(struct fake_change *change)
{
	fake_lock();
	queue_locked(change);
	fake_unlock();
}

void fake_resume(struct fake_change *change)
{
	fake_lock();
	resume_locked(change);
	free_gone();
	fake_unlock();
}

void fake_queue_all(void)
{
	fake_lock();
	for (struct fake_change *c = fake.changes; c; c = c->next)
		queue_locked(c);
	fake_unlock();
}

void fake_resume_all(void)
{
	fake_lock();
	for (struct fake_change *c = fake.changes; c; c = c->next) {
		c->hold_resume = false;
		resume_locked(c);
	}
	free_gone();
	fake_unlock();
}

unsigned fake_changing(unsigned ctx)
{
	return fake.ctx[ctx].changing;
}

int fake_ctx_of(unsigned page)
{
	return fake.page[page].ctx;
}

/* The oldest message of a context that can be read. */
static struct fake_change *readable(unsigned ctx)
{
	struct fake_change *best = NULL;

	for (struct fake_change *c = fake.changes; c; c = c->next)
		if (c->ctx == ctx && c->state == FAKE_QUEUED && (!best || c->order < best->order))
			best = c;
	return best;
}

int fake_read(unsigned ctx, struct os_msg *msgs, unsigned max)
{
	struct fake_change *change;
	int n = 0;

	fake_lock();
	while (n < (int)max && (change = readable(ctx))) {
		msgs[n++] = change->msg;
		change->state = FAKE_READ;
		if (!change->hold_resume)
			resume_locked(change);
	}
	free_gone();
	fake_unlock();
	return n;
}

/* ---- what the system says of the address space ---- */

static bool token(const struct fake_page *p)
{
	return p->ctx != FAKE_NO_CTX && p->ctx != FAKE_FOREIGN;
}

static unsigned scan_flags(const struct fake_page *p)
{
	unsigned flags = p->mapped ? p->flags : 0;

	if (flags && fake_object[p->object].page_size > PAGE)
		flags |= OS_PAGE_HUGE;
	return flags;
}

int fake_scan(uintptr_t start, uintptr_t end, unsigned how, struct os_run *runs, unsigned max,
	      uintptr_t *next)
{
	uintptr_t at;
	int n = 0;

	for (at = start; at < end; at += PAGE) {
		struct fake_page *p = page_at(at);
		unsigned flags = scan_flags(p);

		if ((how & OS_SCAN_CHECK) && p->mapped && !token(p))
			return -EPERM;
		if (flags && n && runs[n - 1].end == at && runs[n - 1].flags == flags) {
			runs[n - 1].end = at + PAGE;
		} else if (flags && n == (int)max) {
			break;
		} else if (flags) {
			runs[n++] = (struct os_run){ at, at + PAGE, flags };
		}
		p->seen[fake.level] = p->identity;
	}
	*next = at;
	return n;
}

static int populate_one(struct fake_page *p, bool write)
{
	const struct fake_object *o = &fake_object[p->object];

	if (!p->mapped)
		return -ENOMEM;
	if (p->guard || !(p->prot & PROT_READ) || (write && !(p->prot & PROT_WRITE)) ||
	    (o->inode && p->offset >= o->file_pages))
		return -EFAULT;
	make_present(p, write || (p->flags && !(p->flags & (OS_PAGE_ZERO | OS_PAGE_FILE))));
	return 0;
}

int fake_populate(uintptr_t start, uintptr_t end, bool write)
{
	for (uintptr_t at = start; at < end; at += PAGE) {
		int err = populate_one(page_at(at), write);

		if (err)
			return err;
	}
	return 0;
}

int fake_register(unsigned ctx, uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end; at += PAGE) {
		const struct fake_page *p = page_at(at);

		if (!p->mapped || fake_object[p->object].kind == OS_VMA_SPECIAL)
			return -EINVAL;
		if (p->ctx != FAKE_NO_CTX && p->ctx != (int)ctx)
			return -EBUSY;
	}
	for (uintptr_t at = start; at < end; at += PAGE)
		page_at(at)->ctx = (int16_t)ctx;
	return 0;
}

int fake_unregister(unsigned ctx, uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end; at += PAGE)
		if (page_at(at)->ctx == (int)ctx)
			page_at(at)->ctx = FAKE_NO_CTX;
	return 0;
}
