/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * hcall - the hypercalls: states of the whole, and pages in and out at the program's word.
 *
 * One at a time (uv->call). They run on a side like everything that takes uv->lock, so
 * those that have the program's threads inside uvmem_run() wait for a free one.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "uvmem_private.h"

#define STEP 512u /* pages at once; one block of the library's */

/* What a hypercall is about; result: pages. */
struct span {
	uint64_t place, pages;
	int64_t result;
};

int uvmem_check_range(const struct uvmem *uv, const void *start, size_t length,
		      uint64_t *place, uint64_t *pages)
{
	uintptr_t addr = (uintptr_t)start;

	if (addr % UVMEM_PAGE || length % UVMEM_PAGE || !length)
		return -EINVAL;
	*place = uvmem_place(uv, addr);
	*pages = length / UVMEM_PAGE;
	return *place == UINT64_MAX || *pages > uv->pages - *place ? -EFAULT : 0;
}

/* The call is ours if this answers 0. */
static int begin(struct uvmem *uv, bool transient, bool secure)
{
	enum uvmem_state state;

	if (!uv || uv->pid != getpid())
		return -ENODEV;
	if (uvmem_inside(uv))
		return -EDEADLK;
	pthread_mutex_lock(&uv->call);
	state = uvmem_state(uv);
	if ((state == UVMEM_TRANSIENT && transient) || (state == UVMEM_SECURE && secure))
		return 0;
	pthread_mutex_unlock(&uv->call);
	return -EBADFD;
}

static int end(struct uvmem *uv, int result)
{
	pthread_mutex_unlock(&uv->call);
	return result;
}

/* ---- init start ---- */

static void invalidate(void *priv, const struct hmm_event *event)
{
	uvmem_forget(priv, event->start, event->end);
}

/* The mirror is dead: devices use nothing any more. */
static void released(void *priv)
{
	struct uvmem *uv = priv;

	atomic_store(&uv->dead, true);
	uvmem_forget(uv, 0, UINTPTR_MAX);
}

static const struct hmm_notifier_ops notifier_ops = {
	.size = sizeof(notifier_ops),
	.invalidate = invalidate,
	.release = released,
};

/*
 * All that have a range, so that no two have the same: each would refuse what the other
 * seals.
 */
static pthread_mutex_t named_lock = PTHREAD_MUTEX_INITIALIZER;
static struct uvmem *named;

static int list(struct uvmem *uv)
{
	const struct uvmem *other;
	int err = 0;

	pthread_mutex_lock(&named_lock);
	for (other = named; other && !err; other = other->next_named)
		if (other->pid == uv->pid && other->start < uvmem_address(uv, uv->pages) &&
		    uv->start < uvmem_address(other, other->pages))
			err = -EEXIST;
	if (!err) {
		uv->next_named = named;
		named = uv;
	}
	pthread_mutex_unlock(&named_lock);
	return err;
}

void uvmem_unlist(struct uvmem *uv)
{
	struct uvmem **at = &named;

	pthread_mutex_lock(&named_lock);
	while (*at && *at != uv)
		at = &(*at)->next_named;
	if (*at)
		*at = uv->next_named;
	pthread_mutex_unlock(&named_lock);
}

struct mapped {
	uintptr_t at; /* all is well up to here */
};

static int run_is_fit(const struct hmm_run *run, void *arg)
{
	struct mapped *mapped = arg;

	if (run->start > mapped->at)
		return -EFAULT;
	if ((run->kind != HMM_VMA_ANON && run->kind != HMM_VMA_HEAP) ||
	    run->flags & HMM_RUN_SHARED)
		return -EOPNOTSUPP;
	if (!(run->flags & HMM_RUN_READ) || !(run->flags & HMM_RUN_WRITE))
		return -EPERM;
	mapped->at = run->end;
	return 0;
}

static int is_fit(struct uvmem *uv, uintptr_t start, uintptr_t stop)
{
	struct mapped mapped = { start };
	int err = hmm_snapshot_runs(uv->hmm, start, stop, 0, run_is_fit, &mapped);

	return err ? err : mapped.at < stop ? -EFAULT : 0;
}

static void name_nothing(struct uvmem *uv)
{
	uvmem_unlist(uv);
	hmm_notifier_remove(uv->notifier);
	uv->notifier = NULL;
	pthread_mutex_lock(&uv->lock); /* no entry is in use, and no side runs */
	uv->start = 0;
	uv->pages = 0;
	/* Frames that wait to be freed are nobody's: the next range has places of its own. */
	memset(uv->owner, 0, uv->frames * sizeof(*uv->owner));
	pthread_mutex_unlock(&uv->lock);
	uv->entry = NULL;
	uvmem_secret_unmap(&uv->table);
}

static int name_range(struct uvmem *uv, uintptr_t start, size_t length)
{
	uint64_t pages = length / UVMEM_PAGE;
	int err = is_fit(uv, start, start + length);

	if (!err)
		err = uvmem_secret_map(&uv->table, pages * sizeof(struct uvmem_entry),
				       uv->mlocked, NULL, 0);
	if (err)
		return err;
	uv->entry = (struct uvmem_entry *)uv->table.base;
	uv->start = start;
	uv->pages = pages;
	err = list(uv);
	if (!err)
		err = hmm_notifier_insert(uv->hmm, start, length, &notifier_ops, uv,
					  &uv->notifier);
	if (err)
		name_nothing(uv);
	return err;
}

int uvmem_init_start(struct uvmem *uv, void *start, size_t length)
{
	uintptr_t addr = (uintptr_t)start;
	int err;

	if (!uv || uv->pid != getpid())
		return -ENODEV;
	if (addr % UVMEM_PAGE || length % UVMEM_PAGE || !length || addr + length < addr)
		return -EINVAL;
	if (uvmem_inside(uv))
		return -EDEADLK;
	pthread_mutex_lock(&uv->call);
	err = uvmem_state(uv) == UVMEM_NORMAL ? name_range(uv, addr, length) : -EBADFD;
	if (!err)
		atomic_store(&uv->state, UVMEM_TRANSIENT);
	return end(uv, err);
}

/* ---- page in and out ---- */

static int bring_all(struct uvmem_side *side, void *arg)
{
	struct uvmem *uv = side->uv;
	struct span *span = arg;
	uint64_t step = uv->frames / 2 < STEP ? uv->frames / 2 : STEP, n;
	uint64_t place = span->place, stop = span->place + span->pages;
	uint64_t before = atomic_load(&uv->count.taken) + atomic_load(&uv->count.opened);
	int err = 0, first = 0;

	for (; place < stop; place += n) {
		n = stop - place < step ? stop - place : step;
		err = uvmem_bring(side, place, n, true);
		if (err == -ENODEV)
			return err;
		first = first ? first : err;
	}
	span->result = (int64_t)(atomic_load(&uv->count.taken) +
				 atomic_load(&uv->count.opened) - before);
	return first;
}

int64_t uvmem_page_in(struct uvmem *uv, void *start, size_t length)
{
	struct span span = { 0 };
	int err = begin(uv, true, true);

	if (err)
		return err;
	err = uvmem_check_range(uv, start, length, &span.place, &span.pages);
	if (!err)
		err = uvmem_enter(uv, bring_all, &span);
	end(uv, 0);
	return err ? err : span.result;
}

int64_t uvmem_page_out(struct uvmem *uv, void *start, size_t length)
{
	uint64_t place, pages;
	int64_t n = begin(uv, true, true);

	if (n)
		return n;
	n = uvmem_check_range(uv, start, length, &place, &pages);
	if (!n)
		n = hmm_migrate_to_host(uv->hmm, (uintptr_t)start, length);
	end(uv, 0);
	return n;
}

/* ---- done, abort ---- */

static int finish(struct uvmem_side *side, void *arg)
{
	int err = bring_all(side, arg);

	if (!err) {
		uvmem_be_sole(side->uv);
		atomic_store(&side->uv->state, UVMEM_SECURE);
	}
	return err;
}

int uvmem_init_done(struct uvmem *uv)
{
	struct span span = { 0 };
	int err = begin(uv, true, false);

	if (err)
		return err;
	span.pages = uv->pages;
	return end(uv, uvmem_enter(uv, finish, &span));
}

/* Pages that are out sealed come in, and all go home plain. */
static int give_back(struct uvmem_side *side, void *arg)
{
	struct uvmem *uv = side->uv;
	uint64_t place;
	int err, bad = 0;

	for (place = 0; place < uv->pages; place++) {
		bool out;

		pthread_mutex_lock(&uv->lock);
		out = uv->entry[place].state == UVMEM_PAGE_OUT ||
		      (uv->entry[place].home && uv->entry[place].sealed);
		pthread_mutex_unlock(&uv->lock);
		err = out ? uvmem_bring(side, place, 1, false) : 0;
		if (err == -ENODEV)
			return err;
		bad = bad ? bad : err;
		if (!(place % UVMEM_BLOCK) ||
		    out) /* soon, so that there is room for the next */
			hmm_migrate_to_host(uv->hmm, uvmem_address(uv, place), UVMEM_PAGE);
	}
	hmm_migrate_to_host(uv->hmm, uv->start, uv->pages * UVMEM_PAGE);
	return bad;
}

int uvmem_init_abort(struct uvmem *uv)
{
	int err = begin(uv, true, false);

	if (err)
		return err;
	atomic_store(&uv->plain_out, true);
	err = uvmem_enter(uv, give_back, NULL);
	if (err != -ENODEV) {
		/* What was moved elsewhere (mremap) comes home, too, plain. */
		hmm_devmem_evict(uv->devmem, 0, uv->frames);
		name_nothing(uv);
		atomic_store(&uv->plain_out, false);
		atomic_store(&uv->state, UVMEM_NORMAL);
	}
	return end(uv, err);
}

/* ---- share, unshare, erase ---- */

struct change {
	struct span span;
	enum uvmem_page want,
		is; /* want: the state; is: it must not be (share), or must be (unshare) */
	bool must;
	bool skip; /* pages that do not fit are left alone, not refused */
};

static bool fits(const struct change *change, enum uvmem_page state)
{
	return (state == change->is) == change->must;
}

/*
 * First the bytes, then the entry: in between the page is LOST or refused, never another's.
 */
static int change_pages(struct uvmem_side *side, void *arg)
{
	struct change *change = arg;
	struct uvmem *uv = side->uv;
	uint64_t place = change->span.place, stop = place + change->span.pages, i;
	bool fit = true;

	pthread_mutex_lock(&uv->lock);
	for (i = place; i < stop && !change->skip; i++)
		fit = fit && fits(change, uv->entry[i].state);
	pthread_mutex_unlock(&uv->lock);
	if (!fit)
		return -EPERM;
	for (i = place; i < stop; i++) {
		pthread_mutex_lock(&uv->lock);
		fit = fits(change, uv->entry[i].state);
		pthread_mutex_unlock(&uv->lock);
		if (!fit)
			continue;
		if (madvise((void *)uvmem_address(uv, i), UVMEM_PAGE, MADV_DONTNEED))
			return errno == ENOMEM ? -EFAULT : -errno;
		uvmem_reset(uv, i, 1, change->want);
	}
	return 0;
}

int uvmem_zero_all(struct uvmem_side *side)
{
	struct change what = {
		.span = { .pages = side->uv->pages },
		.want = UVMEM_PAGE_PLAIN,
		.is = UVMEM_PAGE_SHARED,
		.skip = true,
	};

	return change_pages(side, &what);
}

static int change(struct uvmem *uv, void *start, size_t length, struct change what)
{
	int err = begin(uv, false, true);

	if (err)
		return err;
	err = uvmem_check_range(uv, start, length, &what.span.place, &what.span.pages);
	if (!err)
		err = uvmem_enter(uv, change_pages, &what);
	return end(uv, err);
}

int uvmem_share(struct uvmem *uv, void *start, size_t length)
{
	return change(
		uv, start, length,
		(struct change){ .want = UVMEM_PAGE_SHARED, .is = UVMEM_PAGE_SHARED });
}

int uvmem_unshare(struct uvmem *uv, void *start, size_t length)
{
	return change(uv, start, length,
		      (struct change){ .want = UVMEM_PAGE_PLAIN,
				       .is = UVMEM_PAGE_SHARED,
				       .must = true });
}

int uvmem_erase(struct uvmem *uv, void *start, size_t length)
{
	return change(uv, start, length,
		      (struct change){ .want = UVMEM_PAGE_PLAIN, .is = UVMEM_PAGE_SHARED });
}

static int look_at(struct uvmem_side *side, void *arg)
{
	const uint64_t *place = arg;
	struct uvmem *uv = side->uv;
	int state;

	pthread_mutex_lock(&uv->lock);
	state = uv->entry[*place].home ? UVMEM_PAGE_OUT : uv->entry[*place].state;
	pthread_mutex_unlock(&uv->lock);
	return state;
}

int uvmem_page(struct uvmem *uv, const void *addr)
{
	uint64_t place;
	int state = begin(uv, true, true);

	if (state == -EBADFD)
		return -EFAULT;
	if (state)
		return state;
	place = uvmem_place(uv, (uintptr_t)addr);
	return end(uv, place == UINT64_MAX ? -EFAULT : uvmem_enter(uv, look_at, &place));
}
