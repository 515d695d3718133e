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
#include <unistd.h>

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

static struct fake_region *region_at(uintptr_t addr)
{
	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		if (addr >= fake.region[i].start && addr < fake.region[i].end)
			return &fake.region[i];
	return NULL;
}

/* Elsewhere nothing is mapped. */
struct fake_page *fake_page(uintptr_t addr)
{
	static struct fake_page nothing;
	const struct fake_region *region;

	if (addr >= FAKE_BASE && addr < fake_addr(FAKE_PAGES))
		return &fake.page[fake_number(addr)];
	region = region_at(addr);
	if (region)
		return &region->page[(addr - region->start) / PAGE];
	nothing = (struct fake_page){ .ctx = FAKE_NO_CTX };
	return &nothing;
}

bool fake_is_hole(const struct fake_page *page)
{
	return !page->flags && !page->guard && !page->poisoned;
}

/* What a zap leaves: guard markers survive it. */
void fake_forget_page(struct fake_page *page)
{
	page->flags = 0;
	page->value = page->frame = 0;
	page->shared = page->pinned = page->poisoned = page->marked = false;
}

/* Are two pages in a row of one VMA? */
static bool same_vma(const struct fake_page *a, const struct fake_page *b)
{
	return a->mapped && b->mapped && a->object == b->object && a->prot == b->prot &&
	       a->ctx == b->ctx && a->missing == b->missing && a->locked == b->locked &&
	       a->wipe == b->wipe &&
	       (!fake_object[a->object].inode || a->offset + 1 == b->offset);
}

/* The region that holds addr, or the next above. */
static bool region_vma_at(uintptr_t addr, struct os_vma *vma)
{
	const struct fake_region *best = NULL;
	uintptr_t start, end;

	for (unsigned i = 0; i < FAKE_REGIONS; i++)
		if (fake.region[i].end > addr && (!best || fake.region[i].end < best->end))
			best = &fake.region[i];
	if (!best)
		return false;
	start = end = addr > best->start ? PAGE_DOWN(addr) : best->start;
	while (start > best->start && same_vma(fake_page(start - PAGE), fake_page(start)))
		start -= PAGE;
	do
		end += PAGE;
	while (end < best->end && same_vma(fake_page(end - PAGE), fake_page(end)));
	*vma = (struct os_vma){ .start = start, .end = end, .prot = PROT_READ | PROT_WRITE,
				.kind = OS_VMA_ANON, .page_size = PAGE };
	return true;
}

bool fake_vma_at(uintptr_t addr, struct os_vma *vma)
{
	unsigned at = addr < FAKE_BASE ? 0 : fake_number(addr), last;
	const struct fake_object *o;

	if (addr >= fake_addr(fake.pages))
		return region_vma_at(addr, vma);
	while (at < fake.pages && !fake.page[at].mapped)
		at++;
	if (at == fake.pages)
		return region_vma_at(addr, vma);
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
	change->hold_zap = fake.hold_zap;
	fake.ctx[ctx].changing++;
	return change;
}

/* FORK of one child: a context's message is queued when the one before was read. */
static bool must_follow(const struct fake_change *change)
{
	if (change->msg.kind != OS_MSG_FORK)
		return false;
	for (const struct fake_change *c = fake.changes; c != change; c = c->next)
		if (c->msg.kind == OS_MSG_FORK && c->state < FAKE_READ &&
		    fake_child_of(c->msg.child) == fake_child_of(change->msg.child))
			return true;
	return false;
}

static void queue_locked(struct fake_change *change)
{
	if (change->state != FAKE_LET_GO)
		return;
	change->due = true;
	if (must_follow(change))
		return;
	change->state = FAKE_QUEUED;
	change->order = ++fake.order;
}

/* DONTNEED looks its mappings up again after its message was read, and zaps what is there. */
static void zap(const struct fake_change *change)
{
	for (uintptr_t at = change->msg.start; at < change->msg.end; at += PAGE) {
		struct fake_page *p = fake_page(at);

		if (p->mapped && (p->ctx == (int)change->ctx || p->ctx == FAKE_NO_CTX))
			fake_forget_page(p);
	}
}

static void resume_locked(struct fake_change *change)
{
	if (change->state == FAKE_READ) {
		fake.ctx[change->ctx].changing--;
		change->state = FAKE_ZAPPING;
		if (change->msg.kind == OS_MSG_REMOVE && change->hold_zap)
			return;
	}
	if (change->state != FAKE_ZAPPING)
		return;
	if (change->msg.kind == OS_MSG_REMOVE)
		zap(change);
	change->state = FAKE_GONE;
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

static bool has_events(const struct fake_page *p)
{
	return p->mapped && p->ctx >= 0 && p->ctx < (int)CONTEXTS;
}

/* One message for each context that has something of the range. */
void fake_notify_range(enum os_msg_kind kind, uintptr_t start, uintptr_t end)
{
	struct os_msg msg = { .kind = kind, .start = start, .end = end };
	unsigned mask = 0;

	for (uintptr_t at = start; at < end; at += PAGE)
		if (has_events(fake_page(at)))
			mask |= 1u << fake_page(at)->ctx;
	for (unsigned c = 0; c < CONTEXTS; c++)
		if (mask >> c & 1)
			notify(c, &msg);
}

static void notify_range(enum os_msg_kind kind, unsigned page, unsigned n)
{
	fake_notify_range(kind, fake_addr(page), fake_addr(page + n));
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
		/* A device that looks from here on looks at what is about to go. */
		fake.page[i].identity = ++fake.stamp;
		if (!has_events(&fake.page[i]))
			fake_forget_page(&fake.page[i]);
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
		fake_forget_page(s);
		s->guard = false;
	}
	if (ctx >= 0 && ctx < (int)CONTEXTS)
		notify((unsigned)ctx, &msg);
	if (!dontunmap) {
		notify_range(OS_MSG_UNMAP, from, n);
		clear(from, n);
	}
	fake_unlock();
}

/* What the child has. Pages of ours are shared until one of the two writes. */
static void fork_pages(struct fake_child *child)
{
	for (unsigned i = 0; i < fake.pages; i++) {
		struct fake_page *p = &fake.page[i];

		child->page[i].mapped = p->mapped;
		child->page[i].ctx = p->ctx;
		if (!p->mapped || p->wipe || !p->flags)
			continue;
		child->page[i].present = true;
		child->page[i].value = p->value;
		if (!fake_object[p->object].shared && !(p->flags & (OS_PAGE_FILE | OS_PAGE_ZERO)))
			p->shared = true;
	}
}

/* A number whose child, if there was one, has no open descriptor. */
static unsigned new_child(void)
{
	unsigned number = fake.children % FAKE_CHILDREN;

	while (fake.child[number] && fake.child[number]->contexts) {
		number = (number + 1) % FAKE_CHILDREN;
		if (number == fake.children % FAKE_CHILDREN)
			fake_fail("more than %u children", FAKE_CHILDREN);
	}
	free(fake.child[number]);
	fake.child[number] = calloc(1, sizeof(*fake.child[number]));
	if (!fake.child[number])
		fake_fail("no memory for a child");
	fake.children = number + 1;
	return number;
}

/* One message for each context, in the order of their first mappings. */
unsigned fake_fork(void)
{
	unsigned number;
	struct fake_child *child;

	fake_lock();
	number = new_child();
	child = fake.child[number];
	fork_pages(child);
	for (unsigned i = 0; i < fake.pages; i++) {
		unsigned c = (unsigned)fake.page[i].ctx;

		if (!has_events(&fake.page[i]) || (child->contexts >> c & 1))
			continue;
		child->contexts |= 1u << c;
		notify(c, &(struct os_msg){ .kind = OS_MSG_FORK,
					    .child = fake_child_fd(number, c) });
	}
	if (fake.ctx[FAKE_SENTINEL].open) {
		child->contexts |= 1u << FAKE_SENTINEL;
		notify(FAKE_SENTINEL,
		       &(struct os_msg){ .kind = OS_MSG_FORK,
					 .child = fake_child_fd(number, FAKE_SENTINEL) });
	}
	fake_unlock();
	return number;
}

void fake_child_unmaps(unsigned number, unsigned page, unsigned n)
{
	struct os_msg msg = { .kind = OS_MSG_UNMAP, .start = fake_addr(page),
			      .end = fake_addr(page + n) };
	struct fake_child *child = fake.child[number];
	unsigned ctx = (unsigned)child->page[page].ctx;

	fake_lock();
	for (const struct fake_change *c = fake.changes; c; c = c->next)
		if (c->msg.kind == OS_MSG_FORK && c->state < FAKE_READ)
			fake_fail("a child does not run before its FORK is read");
	memset(&child->page[page], 0, n * sizeof(child->page[0]));
	if (ctx < CONTEXTS && (child->contexts >> ctx & 1)) {
		if (child->changes == 8)
			fake_fail("more than 8 changes of a child");
		child->change[child->changes].msg = msg;
		child->change[child->changes++].ctx = ctx;
	}
	fake_unlock();
}

void fake_mlock(unsigned page, unsigned n)
{
	fake_lock();
	for (unsigned i = page; i < page + n; i++) {
		fake_make_present(&fake.page[i], true);
		fake.page[i].locked = true;
	}
	fake_unlock();
}

void fake_wipeonfork(unsigned page, unsigned n)
{
	for (unsigned i = page; i < page + n; i++)
		fake.page[i].wipe = true;
}

void fake_guard(unsigned page, unsigned n, bool install)
{
	fake_lock();
	for (unsigned i = page; i < page + n; i++) {
		if (install)
			fake_forget_page(&fake.page[i]);
		fake.page[i].guard = install;
		fake.page[i].identity = ++fake.stamp;
	}
	fake_unlock();
}

void fake_make_present(struct fake_page *p, bool write)
{
	const struct fake_object *o = &fake_object[p->object];

	/* A new one where there was none, or where a write breaks the sharing. */
	if (!p->frame || (write && !o->shared && (p->flags & (OS_PAGE_ZERO | OS_PAGE_FILE))))
		p->frame = ++fake.frames;
	if (write)
		p->shared = p->marked = false;
	if (o->inode && (o->shared || !write))
		p->flags = OS_PAGE_PRESENT | OS_PAGE_FILE;
	else if (write)
		p->flags = OS_PAGE_PRESENT;
	else if (p->flags & OS_PAGE_SWAPPED)
		p->flags = OS_PAGE_PRESENT;
	else if (!(p->flags & OS_PAGE_PRESENT))
		p->flags = OS_PAGE_PRESENT | OS_PAGE_ZERO;
}

static void touch(unsigned page, unsigned n, bool write)
{
	fake_lock();
	for (unsigned i = page; i < page + n; i++) {
		if (fake.page[i].missing && !fake.page[i].flags)
			fake_fail("page %u is missing: a CPU would wait", i);
		fake_make_present(&fake.page[i], write);
	}
	fake_unlock();
}

void fake_touch(unsigned page, unsigned n)
{
	touch(page, n, true);
}

void fake_look(unsigned page, unsigned n)
{
	touch(page, n, false);
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
		c->hold_resume = c->hold_zap = false;
		resume_locked(c);
	}
	free_gone();
	fake_unlock();
}

void fake_await_changes(void)
{
	bool any;

	do {
		usleep(20);
		fake_lock();
		any = fake.changes;
		fake_unlock();
	} while (any);
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
	int n;

	fake_lock();
	n = fake_read_faults(ctx, msgs, max);
	while (n < (int)max && (change = readable(ctx))) {
		msgs[n++] = change->msg;
		change->state = FAKE_READ;
		if (!change->hold_resume)
			resume_locked(change);
		for (change = fake.changes; change; change = change->next)
			if (change->due)
				queue_locked(change);
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

	if (p->poisoned)
		return OS_PAGE_SWAPPED; /* a marker: so pagemap calls it */
	if (flags && fake_object[p->object].page_size > PAGE)
		flags |= OS_PAGE_HUGE;
	return flags;
}

/* Who asks for the mark gets it, on what is a page and not a file's; and the test fails if it
 * is not anonymous memory (G7), but where it says that it looks at that itself. -EPERM it is
 * not registered; 0: no page to be marked. */
static int mark(struct fake_page *p, unsigned *flags)
{
	bool was = p->marked;

	if (p->mapped && !token(p))
		return -EPERM;
	if (!*flags || (*flags & OS_PAGE_FILE) || p->poisoned) {
		*flags = 0;
		return 0;
	}
	if (p->object != FAKE_ANON && !fake.may_mark_others)
		fake_fail("write-protected what is not anonymous memory");
	p->marked = true;
	*flags |= was ? 0 : OS_PAGE_UNMARKED;
	return 0;
}

int fake_scan(uintptr_t start, uintptr_t end, unsigned how, struct os_run *runs, unsigned max,
	      uintptr_t *next)
{
	uintptr_t at;
	int n = 0;

	for (at = start; at < end; at += PAGE) {
		struct fake_page *p = fake_page(at);
		unsigned flags = scan_flags(p);
		/* A page that is absent is in a run too, of nothing. */
		bool empty = !flags && p->mapped && !(how & (OS_SCAN_POPULATED | OS_SCAN_MARK));

		if ((how & OS_SCAN_MARK) && n == (int)max)
			break; /* what there is no room for must not be marked */
		if ((how & OS_SCAN_MARK) && mark(p, &flags))
			return -EPERM;
		if ((how & OS_SCAN_CHECK) && p->mapped && !token(p))
			return -EPERM;
		if ((flags || empty) && n && runs[n - 1].end == at &&
		    runs[n - 1].flags == flags) {
			runs[n - 1].end = at + PAGE;
		} else if ((flags || empty) && n == (int)max) {
			break;
		} else if (flags || empty) {
			runs[n++] = (struct os_run){ at, at + PAGE, flags };
		}
		p->seen[fake.level] = p->identity;
	}
	*next = at;
	return n;
}

int fake_unmark(uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end; at += PAGE) {
		if (!token(fake_page(at)))
			return -ENOENT;
		fake_page(at)->marked = false;
	}
	return 0;
}

/* Nothing is mapped outside of the pages: whoever asks for room around them asks for far more. */
static uintptr_t clip(uintptr_t start, uintptr_t *end)
{
	const uintptr_t last = fake_addr(FAKE_PAGES);

	if (start < FAKE_BASE && *end > FAKE_BASE)
		start = FAKE_BASE;
	if (start < last && *end > last)
		*end = last;
	return start;
}

/* Plainly, what is registered MISSING stays so. Holes are allowed, but not nothing at all. */
int fake_register(unsigned ctx, uintptr_t start, uintptr_t end, bool missing)
{
	bool found = false;

	start = clip(start, &end);
	for (uintptr_t at = start; at < end; at += PAGE) {
		const struct fake_page *p = fake_page(at);

		if (!p->mapped)
			continue;
		if (fake_object[p->object].kind == OS_VMA_SPECIAL ||
		    (missing && fake_object[p->object].inode))
			return -EINVAL;
		if (p->ctx != FAKE_NO_CTX && p->ctx != (int)ctx)
			return -EBUSY;
		found = true;
	}
	for (uintptr_t at = start; at < end; at += PAGE) {
		struct fake_page *p = fake_page(at);

		if (!p->mapped)
			continue;
		p->ctx = (int16_t)ctx;
		p->missing |= missing;
	}
	return found ? 0 : -EINVAL;
}

int fake_unregister(unsigned ctx, uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end && !fake.unregisters_all; at += PAGE)
		if (fake_page(at)->ctx != FAKE_NO_CTX && fake_page(at)->ctx != (int)ctx)
			return -EINVAL;
	for (uintptr_t at = start; at < end; at += PAGE) {
		struct fake_page *p = fake_page(at);

		if (p->ctx == FAKE_NO_CTX)
			continue;
		p->ctx = FAKE_NO_CTX;
		p->missing = false;
		fake_wake(ctx, at, at + PAGE);
	}
	return 0;
}
