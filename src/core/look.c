/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * look - mappings and pages to the entries of a range (hmm-reference B1, B2, B4).
 *
 * For each VMA of the range: refuse what cannot be given; register it (with a
 * notifier); populate what was requested; scan. The scan carries the
 * registration token, so that a VMA which was replaced since it was entered in
 * the map is found out. Nothing here is sure until read_retry says so; but a
 * hole is, for no event says that it has ended (docs/gate.md, "Holes").
 *
 * WRITE is said where a store through the address is allowed and needs no file
 * system's leave: of private pages that are ours, and of file and shared pages
 * only after a write fault (as the kernel does for clean shared pages).
 */
#include <errno.h>
#include <sys/mman.h>

#include "core/pager.h"

#define RUNS 64u
#define TRIES 16u
/* Populated around a fault in a file, as the kernel's own fault-around (64 KiB). */
#define AROUND ((uintptr_t)64 << 10)
/* Populated when a file is first mirrored: what is in the page cache, this far. */
#define RESIDENT_WINDOW ((uintptr_t)32 << 20)

struct look {
	struct hmm *hmm;
	struct hmm_range *range;
	bool fault;
	bool mapped;	  /* what has to be looked at again is the pages, not the mapping */
	bool force;	  /* the token said that the map is wrong here */
	uintptr_t answered; /* entries below are answers, no requests any more */
	bool entered;	  /* `entry` is what the map said, before the VMA was read */
	bool books;	  /* may say where pages are */
	struct mirrored entry;
};

static size_t index_of(const struct look *l, uintptr_t at)
{
	return (at - l->range->start) >> OS_PAGE_SHIFT;
}

static uint64_t request(const struct look *l, uintptr_t at)
{
	const struct hmm_range *r = l->range;

	if (!l->fault)
		return 0;
	return ((r->pfns[index_of(l, at)] & r->pfn_flags_mask) | r->default_flags) &
	       (HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE);
}

static void answer(struct look *l, uintptr_t at, uint64_t entry)
{
	uint64_t *pfn = &l->range->pfns[index_of(l, at)];

	*pfn = (*pfn & HMM_PFN_DMA_MAPPED) | entry;
	l->answered = at + PAGE;
}

static int fail(struct look *l, uintptr_t at, int err, enum hmm_reason reason)
{
	l->range->fault_addr = at;
	l->range->fault_reason = reason;
	return error_say(err, "%#lx: %s%s", (unsigned long)at, hmm_reason_text(reason),
			 err == -EOPNOTSUPP ? ": use hmm_copy_from() and hmm_copy_to()" : "");
}

/* [start, end) cannot be given: ERROR where nothing was asked, else the failure. */
static int refuse(struct look *l, uintptr_t start, uintptr_t end, int err,
		  enum hmm_reason reason)
{
	for (uintptr_t at = start; at < end; at += PAGE) {
		if (request(l, at))
			return fail(l, at, err, reason);
		answer(l, at, HMM_PFN_ERROR);
	}
	return 0;
}

/*
 * Was the mapping in the map of registered VMAs, whole and with its permission, before it
 * was read? Only then is a change of its permission since then not filtered away as one of
 * memory that nobody mirrors. (If the entry has left since, read_retry says so.)
 */
static bool is_mirrored(const struct look *l, const struct os_vma *vma)
{
	return !l->force && l->entered && l->entry.start <= vma->start &&
	       l->entry.end >= vma->end && (l->hmm->perf || l->entry.prot == vma->prot);
}

static uintptr_t clip_down(uintptr_t at, uintptr_t by, uintptr_t floor)
{
	return at - floor > by ? at - by : floor;
}

static uintptr_t clip_up(uintptr_t at, uintptr_t by, uintptr_t ceiling)
{
	return ceiling - at > by ? at + by : ceiling;
}

/*
 * 0 it was registered when it was read; 1 refused, the entries say so; -EAGAIN it is now,
 * or it changed: look again. A registered file loses the kernel's fault-around: what is
 * resident is mapped before.
 */
static int mirror(struct look *l, struct os_vma *vma, uintptr_t at, uintptr_t end)
{
	int err;

	if (arena_owns(at, end)) {
		err = refuse(l, at, end, -EOPNOTSUPP, HMM_REASON_NOT_MIRRORABLE);
		return err ? err : 1;
	}
	if (is_mirrored(l, vma))
		return 0;
	/* Replaced without a message, it may be: what devices have of it goes (G1). */
	if (l->force)
		side_push(l->hmm, &(struct event){ .kind = EVENT_CLEAR, .start = vma->start,
						   .end = vma->end });
	if (l->hmm->os->vma_find(&l->hmm->mm, at, vma) || vma->start > at || vma->end < end)
		return -EAGAIN;
	err = vma->kind == OS_VMA_SPECIAL ? -EINVAL : 0;
	if (!err && vma->inode && vma->kind != OS_VMA_HUGETLB)
		l->hmm->os->populate_resident(clip_down(at, RESIDENT_WINDOW, vma->start),
					      clip_up(at, RESIDENT_WINDOW, vma->end));
	if (!err)
		err = vmas_mirror(l->hmm, vma);
	l->force = false;
	if (err == -EINVAL)
		err = refuse(l, at, end, -EFAULT, HMM_REASON_SPECIAL);
	else if (err == -EOPNOTSUPP)
		err = refuse(l, at, end, -EOPNOTSUPP, HMM_REASON_NOT_MIRRORABLE);
	else
		return err ? err : -EAGAIN;
	return err ? err : 1;
}

/* Of what was mapped. NONE: it is no more. */
static enum hmm_reason why_not_present(struct look *l, uintptr_t at)
{
	struct os_vma vma;
	int64_t size;

	if (l->hmm->os->vma_find(&l->hmm->mm, at, &vma) || vma.start > at)
		return HMM_REASON_NONE;
	if (!vma.inode)
		return HMM_REASON_GUARD_OR_POISON;
	size = l->hmm->os->vma_file_size(&l->hmm->mm, &vma);
	if (size < 0 || vma.offset + (at - vma.start) >= (uint64_t)size)
		return HMM_REASON_PAST_EOF;
	return HMM_REASON_GUARD_OR_POISON;
}

/* Was the permission taken since the mapping was read? Then looking again says so. */
static bool permission_went(struct look *l, uintptr_t at, bool write)
{
	int need = PROT_READ | (write ? PROT_WRITE : 0);
	struct os_vma vma;

	return !l->hmm->os->vma_find_fast(&l->hmm->mm, at, &vma) && vma.start <= at &&
	       (vma.prot & need) != need;
}

/* A populate of several pages failed: which page is it? Asked one by one. */
static int find_failed(struct look *l, uintptr_t start, uintptr_t end, bool write)
{
	for (uintptr_t at = start; at < end; at += PAGE) {
		int err = l->hmm->os->populate(at, at + PAGE, write);
		enum hmm_reason why = HMM_REASON_NONE;

		if (err == -EFAULT && !permission_went(l, at, write))
			why = why_not_present(l, at);
		if (why)
			return fail(l, at, -EFAULT, why);
		if (err)
			return -EAGAIN;
	}
	return -EAGAIN;
}

/*
 * Device memory. Whether a transfer is published is asked before the books: one that ends in
 * between has written them before it is unpublished (docs/migration.md).
 */
static bool on_its_way(const struct look *l, uintptr_t start, uintptr_t end)
{
	return l->hmm->pager && l->range->notifier &&
	       (transfers_cover(l->hmm, start, end) || judging(l->hmm, start, end));
}

static const struct hmm_devmem *owners_devmem(const struct look *l, uint64_t book)
{
	const struct hmm_devmem *devmem = l->hmm->pager->devmem[book_devmem(book)];

	return devmem && devmem->options.owner == l->range->owner ? devmem : NULL;
}

/* The devmem's frames go under the lock, when nothing is in them any more. */
static bool is_exclusive(const struct look *l, uintptr_t at)
{
	const struct hmm_devmem *devmem = NULL;
	bool locked;
	uint64_t book;

	lock_take(&l->hmm->vmas_lock);
	book = books_get(l->hmm, at);
	if (book_state(book) == BOOK_AWAY)
		devmem = owners_devmem(l, book);
	locked = devmem && devmem->frame && devmem->frame[book_frame(book)].locked;
	lock_drop(&l->hmm->vmas_lock);
	return locked;
}

static bool any_exclusive(const struct look *l, uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end; at += PAGE)
		if (is_exclusive(l, at))
			return true;
	return false;
}

/*
 * May the books answer? A change that has let go of the address space before this look they know
 * when it is read. A fence waits for that, but not in a storm: it tells devices CLEAR, and they
 * ask again here. Then what is away is brought home as if no device had it, and the mapping
 * itself answers (docs/migration.md, "Storms"). But for what the owner has made exclusive: he would wait
 * for his own release.
 */
static int ask_books(struct look *l, uintptr_t start, uintptr_t end)
{
	int err;

	l->books = false;
	if (!l->hmm->pager || !l->range->owner || !l->range->notifier || !l->entered ||
	    !books_any(l->hmm, start, end))
		return 0;
	err = fence_quiet(l->hmm, l->entry.ctx);
	l->books = !err;
	if (err == -EAGAIN)
		return l->fault && any_exclusive(l, start, end) ? -EBUSY : 0;
	return err;
}

/* The page's entry if it is in memory of the range's owner; 0. */
static uint64_t device_entry(const struct look *l, const struct os_vma *vma, uintptr_t at)
{
	uint64_t book = books_get(l->hmm, at);
	const struct hmm_devmem *devmem;

	/* Another context's entry is of what was here before. */
	if (!l->books || book_state(book) != BOOK_AWAY || book_ctx(book) != l->entry.ctx)
		return 0;
	devmem = owners_devmem(l, book);
	if (!devmem || devmem->lost)
		return 0;
	return HMM_PFN_VALID | HMM_PFN_DEVICE | (vma->prot & PROT_WRITE ? HMM_PFN_WRITE : 0) |
	       (book & HMM_PFN_NUMBER_MASK);
}

/* Will a look find it without a populate? */
static bool is_on_device(const struct look *l, const struct os_vma *vma, uintptr_t at)
{
	return l->hmm->pager && device_entry(l, vma, at);
}

/* Stretches of equal requests, each by one call. -EAGAIN: the mapping changed. */
static int populate(struct look *l, const struct os_vma *vma, uintptr_t start, uintptr_t end)
{
	while (start < end) {
		uint64_t want = request(l, start);
		uintptr_t at = start + PAGE;
		int err = 0;

		while (at < end && request(l, at) == want &&
		       is_on_device(l, vma, at) == is_on_device(l, vma, start))
			at += PAGE;
		if (want && !is_on_device(l, vma, start))
			err = l->hmm->os->populate(start, at, want & HMM_PFN_REQ_WRITE);
		if (err == -EFAULT)
			return find_failed(l, start, at, want & HMM_PFN_REQ_WRITE);
		if (err)
			return err == -ENOMEM ? -EAGAIN : err;
		if (want && vma->inode && vma->page_size == PAGE && at - start < AROUND)
			l->hmm->os->populate_resident(clip_down(start, AROUND / 2, vma->start),
						      clip_up(at, AROUND / 2, vma->end));
		start = at;
	}
	return 0;
}

/* Is it memory of a DAX file? Remembered by inode: the question costs a path walk. */
static bool is_dax(struct hmm *hmm, const struct os_vma *vma)
{
	uint64_t dev = (uint64_t)vma->dev_major << 32 | vma->dev_minor;
	struct dax_file *slot;
	struct os_vma named;
	bool dax;

	if (!vma->inode)
		return false;
	slot = &hmm->dax[(vma->inode ^ dev) % DAX_FILES];
	lock_take(&hmm->vmas_lock);
	dax = slot->dax;
	if (slot->inode == vma->inode && slot->dev == dev) {
		lock_drop(&hmm->vmas_lock);
		return dax;
	}
	lock_drop(&hmm->vmas_lock);
	if (hmm->os->vma_find(&hmm->mm, vma->start, &named) || named.inode != vma->inode)
		return false;
	dax = hmm->os->vma_is_dax(&hmm->mm, &named);
	lock_take(&hmm->vmas_lock);
	*slot = (struct dax_file){ .inode = vma->inode, .dev = dev, .dax = dax };
	lock_drop(&hmm->vmas_lock);
	return dax;
}

static unsigned order_of(const struct os_vma *vma, const struct os_run *run)
{
	if (vma->page_size > PAGE)
		return (unsigned)__builtin_ctzll(vma->page_size) - OS_PAGE_SHIFT;
	return run->flags & OS_PAGE_HUGE ? 9 : 0;
}

/* What every present page of a run has in common, but for its number and WRITE by request. */
static uint64_t run_entry(const struct os_vma *vma, const struct os_run *run, bool dax)
{
	uint64_t entry = HMM_PFN_VALID | (dax ? HMM_PFN_DAX : HMM_PFN_SYSTEM);

	entry |= (uint64_t)order_of(vma, run) << HMM_PFN_ORDER_SHIFT;
	if ((vma->prot & PROT_WRITE) && !vma->shared &&
	    !(run->flags & (OS_PAGE_FILE | OS_PAGE_ZERO)))
		entry |= HMM_PFN_WRITE;
	return entry;
}

/* -EAGAIN: a page that was populated is gone again. */
static int answer_run(struct look *l, const struct os_vma *vma, const struct os_run *run,
		      bool dax)
{
	uint64_t common = run_entry(vma, run, dax && (run->flags & OS_PAGE_FILE));

	for (uintptr_t at = run->start; at < run->end; at += PAGE) {
		uint64_t want = request(l, at), entry = common | at >> OS_PAGE_SHIFT;

		if ((want & HMM_PFN_REQ_WRITE) && !(run->flags & OS_PAGE_ZERO))
			entry |= HMM_PFN_WRITE;
		if ((entry & want) != want)
			return -EAGAIN;
		answer(l, at, entry);
	}
	return 0;
}

static int absent(struct look *l, const struct os_vma *vma, uintptr_t start, uintptr_t end)
{
	for (uintptr_t at = start; at < end; at += PAGE) {
		uint64_t entry = l->hmm->pager ? device_entry(l, vma, at) : 0;

		if ((entry & request(l, at)) != request(l, at))
			return -EAGAIN;
		answer(l, at, entry);
	}
	return 0;
}

static int scan(struct look *l, const struct os_vma *vma, uintptr_t start, uintptr_t end)
{
	unsigned how = l->range->notifier ? OS_SCAN_CHECK : 0;
	struct os_run runs[RUNS];
	bool dax = is_dax(l->hmm, vma);

	while (start < end) {
		uintptr_t next = end;
		bool moving = on_its_way(l, start, end);
		int err, n;

		if (moving)
			return -EBUSY;
		n = l->hmm->os->scan(&l->hmm->mm, start, end, how, runs, RUNS, &next);

		if (n == -EPERM && how) {
			l->force = true; /* the token: what the map says is registered, is not */
			l->mapped = false;
			return -EAGAIN;
		}
		if (n < 0)
			return n;
		for (int i = 0; i < n; i++) {
			err = absent(l, vma, start, runs[i].start);
			if (!err && !(runs[i].flags & OS_PAGE_PRESENT))
				err = absent(l, vma, runs[i].start, runs[i].end);
			else if (!err)
				err = answer_run(l, vma, &runs[i], dax);
			if (err)
				return err;
			start = runs[i].end;
		}
		err = absent(l, vma, start, next);
		if (err)
			return err;
		start = next;
	}
	return 0;
}

/* What registering would find out, asked by name. */
static bool is_special(const struct look *l, const struct os_vma *vma, uintptr_t at)
{
	struct os_vma named;

	return !vma->inode && !(vma->prot & PROT_WRITE) && !l->hmm->mm.pid &&
	       !l->hmm->os->vma_find(&l->hmm->mm, at, &named) && named.start <= at &&
	       named.kind == OS_VMA_SPECIAL;
}

static int look_vma(struct look *l, struct os_vma *vma, uintptr_t start, uintptr_t end)
{
	int err;

	if (!(vma->prot & PROT_READ))
		return refuse(l, start, end, -EFAULT, HMM_REASON_PROT_NONE);
	if (!(vma->prot & PROT_WRITE))
		for (uintptr_t at = start; at < end; at += PAGE)
			if (request(l, at) & HMM_PFN_REQ_WRITE)
				return fail(l, at, -EPERM, HMM_REASON_READ_ONLY);
	if (l->range->notifier) {
		err = mirror(l, vma, start, end);
		if (err)
			return err > 0 ? 0 : err;
	} else if (is_special(l, vma, start)) {
		return refuse(l, start, end, -EFAULT, HMM_REASON_SPECIAL);
	}
	l->mapped = true;
	err = ask_books(l, start, end);
	if (err)
		return err;
	if (l->fault) {
		err = populate(l, vma, start, end);
		if (err)
			return err;
	}
	return scan(l, vma, start, end);
}

/*
 * In the midst of an mremap that puts one mapping in another's place vma_find sees neither. A scan
 * waits until it is done, and has every page of a mapping. (One that fails says nothing against the
 * hole.)
 */
uintptr_t hole_end(struct hmm *hmm, uintptr_t at, uintptr_t end)
{
	struct os_run run;
	uintptr_t next;

	return hmm->os->scan(&hmm->mm, at, end, 0, &run, 1, &next) > 0 ? run.start : end;
}

/* *end: how far it was answered. -EAGAIN: it is none. */
static int look_hole(struct look *l, uintptr_t at, uintptr_t *end)
{
	*end = hole_end(l->hmm, at, *end);
	return *end > at ? refuse(l, at, *end, -EFAULT, HMM_REASON_NO_MAPPING) : -EAGAIN;
}

static int cannot_stay(uintptr_t at)
{
	return error_say(-ENOMEM, "%#lx: cannot be made present: no memory, or it changes all the "
				  "time", (unsigned long)at);
}

/* Requests are read again when a place is looked at again, so that goes on behind the last
 * answer. */
int look(struct hmm_range *range, bool fault)
{
	struct look l = { .hmm = range->hmm, .range = range, .fault = fault };
	uintptr_t at = range->start;
	unsigned tries = 0;

	while (at < range->end) {
		uintptr_t end = range->end;
		struct os_vma vma;
		int err;

		l.mapped = false;
		l.entered = range->notifier && vmas_next(l.hmm, at, at + PAGE, &l.entry);
		err = l.hmm->os->vma_find_fast(&l.hmm->mm, at, &vma);

		if (err && err != -ENOENT)
			return err;
		if (err || vma.start > at) {
			if (!err && vma.start < end)
				end = vma.start;
			err = look_hole(&l, at, &end);
		} else {
			if (vma.end < end)
				end = vma.end;
			err = look_vma(&l, &vma, at, end);
		}
		if (err == -EAGAIN) {
			if (range->notifier && hmm_notifier_read_retry(range))
				return -EBUSY;
			if (++tries >= TRIES)
				return l.mapped ? cannot_stay(at) : -EBUSY;
			if (l.answered > at) {
				at = l.answered;
				tries = 0;
			}
			continue;
		}
		if (err)
			return err;
		at = end;
		tries = 0;
	}
	return range->notifier && hmm_notifier_read_retry(range) ? -EBUSY : 0;
}
