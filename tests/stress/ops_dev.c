/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* ops_dev - pages go to devices, are used there, and come home. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "stress.h"
#include "uapi.h"

bool migrate_may_fail(const struct worker *w, int64_t err)
{
	/* -EIO: the devices here fail on purpose now and then. */
	return err == -EBUSY || err == -ENOSPC || err == -EIO ||
	       (w->world->inject && err == -ENOMEM);
}

/* By a device: -EBUSY when it keeps changing; then nothing was done. */
static bool access_may_fail(const struct worker *w, int err)
{
	return err == -EBUSY || (w->world->inject && err == -ENOMEM);
}

struct dev *dev_take(struct worker *w)
{
	struct world *world = w->world;
	struct dev *dev;

	pthread_rwlock_rdlock(&world->devs_lock);
	dev = world->dev[pick(w, DEVS)];
	return dev ? dev : world->dev[0];
}

void dev_leave(struct worker *w)
{
	pthread_rwlock_unlock(&w->world->devs_lock);
}

static void out(struct worker *w, struct area *a, const struct run *run, struct dev *dev)
{
	int64_t moved;

	area_note(w, a, run,
		  dev_options(dev)->host_frames ? "migrate to host frames"
						: "migrate to copied frames");
	moved = hmm_migrate_to_device(dev_devmem(dev), run->addr, run->n * PAGE);
	if (moved < 0 ? !migrate_may_fail(w, moved) : moved > run->n)
		fail("migration of area %u pages %u to %u: %lld (%s)", a->id, run->i,
		     run->i + run->n, (long long)moved,
		     moved < 0 ? hmm_strerror((int)moved) : "more than there are");
}

static void op_out(struct worker *w, struct area *a)
{
	struct run run;

	if (!area_run(w, a, &run))
		return;
	if (one_in(w, 20))
		run = area_run_at(a, run.i, a->pages);
	out(w, a, &run, dev_take(w));
	dev_leave(w);
	if (one_in(w, 8))
		run_check(a, &run, "the CPU after a migration");
}

static void op_home(struct worker *w, struct area *a)
{
	int64_t moved;
	struct run run;

	if (!area_run(w, a, &run))
		return;
	area_note(w, a, &run, "migrate home");
	moved = hmm_migrate_to_host(w->world->hmm, run.addr, run.n * PAGE);
	if (moved < 0 && moved != -EBUSY && !(w->world->inject && moved == -ENOMEM))
		fail("migration home of area %u page %u: %s", a->id, run.i,
		     hmm_strerror((int)moved));
	if (one_in(w, 8))
		run_check(a, &run, "the CPU after a migration home");
}

/* Frames of whoever they are. */
static void op_evict(struct worker *w, struct area *a)
{
	struct dev *dev = dev_take(w);
	uint64_t frames = dev_options(dev)->frames, first = pick(w, (unsigned)frames);
	int64_t came = hmm_devmem_evict(dev_devmem(dev), first,
					1 + pick(w, (unsigned)(frames - first) / 8 + 1));

	if (came < 0 && came != -EBUSY && !(w->world->inject && came == -ENOMEM))
		fail("eviction: %s", hmm_strerror((int)came));
	dev_leave(w);
}

static void op_dev_read(struct worker *w, struct area *a)
{
	struct dev *dev;
	struct run run;
	int err;

	if (!area_run(w, a, &run))
		return;
	run.n = run.n < 8 ? run.n : 8;
	dev = dev_take(w);
	if (one_in(w, 2))
		out(w, a, &run, dev);
	area_note(w, a, &run, "device read");
	for (unsigned k = 0; k < run.n; k++) {
		err = dev_read(dev, run.addr + k * PAGE, w->buffer, PAGE);
		if (!err)
			page_check(a, run.i + k, w->buffer, "a device");
		else if (!access_may_fail(w, err))
			fail("device read of area %u page %u: %s", a->id, run.i + k,
			     hmm_strerror(err));
	}
	dev_leave(w);
}

/* A section of one page, and the model goes with it only if it was done. */
static void dev_write_section(struct worker *w, struct area *a, struct dev *dev,
			      unsigned page)
{
	unsigned s = pick(w, SECTIONS), at = s * SECTION_WORDS * 8;
	struct page *p = &a->page[page];
	uint64_t old = p->stamp[s];
	uint8_t maybe = p->maybe;
	bool settled = p->settled;
	int err;

	page_write(a, page, 1u << s, w->buffer);
	err = dev_write(dev, p->addr + at, w->buffer + at, SECTION_WORDS * 8);
	if (p->read_only ? err == -EPERM : !err) {
		if (!err)
			return;
	} else if (!access_may_fail(w, err)) {
		fail("device write of area %u page %u%s: %d (%s)", a->id, page,
		     p->read_only ? ", read-only" : "", err, err ? hmm_strerror(err) : "");
	}
	p->stamp[s] = old;
	p->maybe = maybe;
	p->settled = settled;
}

static void op_dev_write(struct worker *w, struct area *a)
{
	struct dev *dev;
	struct run run;

	if (!area_run(w, a, &run))
		return;
	run.n = run.n < 8 ? run.n : 8;
	dev = dev_take(w);
	if (one_in(w, 2))
		out(w, a, &run, dev);
	area_note(w, a, &run, "device write");
	for (unsigned k = 0; k < run.n; k++)
		dev_write_section(w, a, dev, run.i + k);
	dev_leave(w);
	if (one_in(w, 4))
		run_check(a, &run, "the CPU after a device write");
}

/* Take the pages away, in one of the ways there are. The model goes with it. */
static const char *take_away(struct worker *w, struct area *a, struct run *run)
{
	void *to;

	switch (pick(w, 4)) {
	case 0:
		if (munmap((void *)run->addr, run->n * PAGE))
			fail("munmap: %m");
		for (unsigned k = 0; k < run->n; k++)
			page_forget(&a->page[run->i + k]);
		return "munmap";
	case 1:
		if (madvise((void *)run->addr, run->n * PAGE, MADV_DONTNEED))
			fail("DONTNEED: %m");
		break;
	case 2:
		if (mmap((void *)run->addr, run->n * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
			fail("mmap(MAP_FIXED): %m");
		break;
	default:
		if (!run_is_one_mapping(run))
			return "nothing";
		to = mremap((void *)run->addr, run->n * PAGE, run->n * PAGE,
			    MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
		if (to == MAP_FAILED) {
			w->world->refused++;
			return "nothing";
		}
		munmap((void *)run->addr, run->n * PAGE);
		for (unsigned k = 0; k < run->n; k++)
			a->page[run->i + k].addr = (uintptr_t)to + k * PAGE;
		return "mremap";
	}
	for (unsigned k = 0; k < run->n; k++)
		page_zero(&a->page[run->i + k], run->addr + k * PAGE);
	return "DONTNEED or MAP_FIXED";
}

/* The device reads on by what it has, while the page is taken from under it and others
 * come. */
static void op_dev_hold(struct worker *w, struct area *a)
{
	unsigned word = pick(w, WORDS);
	const char *how;
	struct dev *dev;
	struct run run;
	struct job *job;
	uint64_t got;

	if (!area_run(w, a, &run))
		return;
	run.n = run.n < 4 ? run.n : 4;
	dev = dev_take(w);
	run_writable(w, a, &run);
	out(w, a, &run, dev);
	area_note(w, a, &run, "device reads on");
	if (!dev_read(dev, run.addr, w->buffer, PAGE)) {
		struct run other;

		page_check(a, run.i, w->buffer, "a device");
		job = dev_hold(dev, run.addr + word * 8,
			       UINT64_C(1) << 63 | (uint64_t)a->id << 51 |
				       (uint64_t)run.i << 39 | word,
			       UINT64_C(0x1ffffff) << 39 | 511);
		how = take_away(w, a, &run);
		/* Who takes frames now may not get that one. */
		if (area_run(w, a, &other))
			out(w, a, &other, dev);
		if (dev_let_go(job, &got))
			fail("WRONG: a device that read on at area %u page %u (%#lx, in %s "
			     "frames) beside %s got %#llx at word %u",
			     a->id, run.i, run.addr,
			     dev_options(dev)->host_frames ? "host" : "copied", how,
			     (unsigned long long)got, word);
	}
	dev_leave(w);
}

/* ---- three steps ---- */

/* What the driver does between setup and pages: frames, and for copied ones the bytes. */
static void fill_frames(struct worker *w, struct dev *dev, struct hmm_migrate *m)
{
	unsigned n = hmm_devmem_frames(dev_devmem(dev), w->frames, m->cpages), f = 0;

	for (unsigned i = 0; i < m->npages; i++) {
		m->dst[i] = 0;
		if (!(m->src[i] & HMM_MIGRATE_MIGRATE) || f == n)
			continue;
		m->dst[i] = hmm_migrate_frame(w->frames[f]);
		if (!dev_options(dev)->host_frames) {
			if (m->src[i] & HMM_MIGRATE_VALID)
				memcpy(dev_frame(dev, w->frames[f]),
				       hmm_migrate_page(m->src[i]), PAGE);
			else
				memset(dev_frame(dev, w->frames[f]), 0, PAGE);
		}
		f++;
	}
	if (f < n)
		fail("hmm_migrate_setup said %u pages can move; it is %u of %u", m->cpages,
		     f, m->npages);
}

static void op_three_steps(struct worker *w, struct area *a)
{
	struct hmm_migrate m = { .size = sizeof(m), .src = w->src, .dst = w->dst };
	struct dev *dev;
	struct run run;
	int err;

	if (!area_run(w, a, &run))
		return;
	run.n = run.n < (unsigned)((BLOCK - run.addr % BLOCK) / PAGE)
			? run.n
			: (unsigned)((BLOCK - run.addr % BLOCK) / PAGE);
	area_note(w, a, &run, "migrate in three steps");
	dev = dev_take(w);
	m.devmem = dev_devmem(dev);
	m.start = run.addr;
	m.end = run.addr + run.n * PAGE;
	err = hmm_migrate_setup(&m);
	if (err && !migrate_may_fail(w, err) &&
	    (err != -EINVAL || run_is_one_mapping(&run)))
		fail("hmm_migrate_setup of area %u page %u: %s", a->id, run.i,
		     hmm_strerror(err));
	if (!err) {
		if (m.npages != run.n)
			fail("hmm_migrate_setup says %u pages of %u", m.npages, run.n);
		/* Now and then the driver thinks better of it. */
		if (one_in(w, 8))
			memset(m.dst, 0, sizeof(w->dst));
		else
			fill_frames(w, dev, &m);
		err = hmm_migrate_pages(&m);
		hmm_migrate_finalize(&m);
		if (err < 0 && !migrate_may_fail(w, err))
			fail("hmm_migrate_pages of area %u page %u: %s", a->id, run.i,
			     hmm_strerror(err));
	}
	dev_leave(w);
	if (one_in(w, 4))
		run_check(a, &run, "the CPU after three steps");
}

/* ---- exclusive ---- */

static void op_exclusive(struct worker *w, struct area *a)
{
	struct dev *dev;
	uint64_t frame;
	struct run run;
	int err;

	if (!area_run(w, a, &run))
		return;
	run.n = 1;
	dev = dev_take(w);
	if (!dev_options(dev)->host_frames)
		dev = w->world->dev[1];
	area_note(w, a, &run, "exclusive");
	err = hmm_make_exclusive(dev_devmem(dev), run.addr, &frame);
	if (!err) {
		void *at = hmm_devmem_host(dev_devmem(dev), frame);

		page_check(a, run.i, at, "a device, exclusive");
		if (!a->page[run.i].read_only)
			page_write(a, run.i, 1u << pick(w, SECTIONS), at);
		hmm_exclusive_release(dev_devmem(dev), frame);
	} else if (!migrate_may_fail(w, err) &&
		   !(err == -EPERM && a->page[run.i].read_only)) {
		fail("hmm_make_exclusive of area %u page %u: %s", a->id, run.i,
		     hmm_strerror(err));
	}
	dev_leave(w);
	if (one_in(w, 2))
		run_check(a, &run, "the CPU after exclusive");
}

const struct op ops_dev[] = {
	{ "migrate", op_out, 300, false },
	{ "home", op_home, 40, false },
	{ "evict", op_evict, 8, false },
	{ "device-read", op_dev_read, 80, false },
	{ "device-write", op_dev_write, 80, false },
	{ "three-steps", op_three_steps, 40, false },
	{ "device-reads-on", op_dev_hold, 30, true },
	{ "exclusive", op_exclusive, 30, false },
	{ NULL, NULL, 0, false },
};
