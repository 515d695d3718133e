/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_advice - what memory may be registered, and the three kinds of advice: followed
 * before the call returns, or some time later.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "odp_backend.h"
#include "odp_place.h"

#define LENGTH (2 * PAGE)
/* For advice that is followed later: an emulated CPU may take as long; and until it is
 * taken for not followed. */
#define LATER_MS 5000
#define NEVER_MS 100

/* Memory that advice is about; the advice is given for `at`, LENGTH. */
struct advised {
	void *mr;
	unsigned char *at;
};

static int fresh(const struct odp_open *o, unsigned may, struct advised *a)
{
	a->at = (unsigned char *)live_map(LENGTH, RW);
	/* Each page by itself: present is what was prefetched. */
	madvise(a->at, LENGTH, MADV_NOHUGEPAGE);
	return o->backend->reg(o->dev, a->at, LENGTH, may, &a->mr);
}

static int untouched(const struct odp_open *o, struct advised *a)
{
	return fresh(o, ODP_MAY_ALL, a);
}

static int unmapped(const struct odp_open *o, struct advised *a)
{
	int err = fresh(o, ODP_MAY_ALL, a);

	munmap(a->at, LENGTH);
	return err;
}

static int protected_read(const struct odp_open *o, struct advised *a)
{
	int err = fresh(o, ODP_MAY_ALL, a);

	mprotect(a->at, LENGTH, PROT_READ);
	return err;
}

static int for_reading(const struct odp_open *o, struct advised *a)
{
	return fresh(o, ODP_MAY_READ, a);
}

static int past_end(const struct odp_open *o, struct advised *a)
{
	int err = fresh(o, ODP_MAY_ALL, a);

	a->at += PAGE;
	return err;
}

static const struct {
	const char *name;
	enum odp_advice advice;
} advices[] = {
	{ "prefetch", ODP_PREFETCH },
	{ "prefetch-write", ODP_PREFETCH_WRITE },
	{ "prefetch-no-fault", ODP_PREFETCH_NO_FAULT },
};
#define ADVICES (sizeof(advices) / sizeof(advices[0]))

/* "0 present": the call returned 0, and then the pages were there. */
static const struct situation {
	const char *name;
	int (*make)(const struct odp_open *o, struct advised *a);
	const char *words[ADVICES][2]; /* later, and with flush */
	/* What rxe says instead, to all: it looks for memory that it may write. */
	const char *rxe;
	/* And the odp driver: what it knows already it says at once. */
	const char *uhmm;
} situations[] = {
	{ "untouched",
	  untouched,
	  { { "0 present", "0 present" },
	    { "0 present", "0 present" },
	    { "0 absent", "0 absent" } },
	  NULL,
	  NULL },
	{ "unmapped",
	  unmapped,
	  { { "0 absent", "EFAULT" },
	    { "0 absent", "EFAULT" },
	    { "0 absent", "0 absent" } },
	  NULL,
	  NULL },
	{ "prot-read",
	  protected_read,
	  { { "0 present", "0 present" },
	    { "0 absent", "EPERM" },
	    { "0 absent", "0 absent" } },
	  NULL,
	  NULL },
	{ "for-reading",
	  for_reading,
	  { { "0 present", "0 present" },
	    { "EPERM", "EPERM" },
	    { "0 absent", "0 absent" } },
	  "EINVAL",
	  NULL },
	{ "past-the-end",
	  past_end,
	  { { "0 absent", "EFAULT" }, { "0 absent", "EFAULT" }, { "0 absent", "EFAULT" } },
	  NULL,
	  "EFAULT" },
};
#define SITUATIONS (sizeof(situations) / sizeof(situations[0]))

static bool present(const void *at)
{
	unsigned char pages[LENGTH / PAGE] = { 0 };

	return !mincore((void *)(uintptr_t)at, LENGTH, pages) && (pages[0] & 1) &&
	       (pages[1] & 1);
}

struct advice_case {
	unsigned advice, situation;
	bool flush;
};

static const char *expected(const struct advice_case *c)
{
	return situations[c->situation].words[c->advice][c->flush];
}

static bool comes(const struct advice_case *c, const void *at)
{
	unsigned limit = strstr(expected(c), "present") ? LATER_MS : NEVER_MS;

	for (unsigned ms = 0; !c->flush && ms < limit && !present(at); ms += 5)
		usleep(5000);
	return present(at);
}

static enum verdict advise(const struct odp_open *o, const struct advice_case *c)
{
	const struct situation *s = &situations[c->situation];
	struct advised a = { 0 };
	int err = s->make(o, &a);
	char word[40];

	CHECK(!err, "%s: no registration: %s", o->backend->name, strerror(-err));
	err = o->backend->advise(o->dev, a.mr, advices[c->advice].advice, c->flush, a.at,
				 LENGTH);
	if (err)
		snprintf(word, sizeof(word), "%s", strerrorname_np(-err));
	else
		snprintf(word, sizeof(word), "0 %s", comes(c, a.at) ? "present" : "absent");
	o->backend->unreg(o->dev, a.mr);
	printf("%-6s | %s%s | %s | %s\n", o->backend->name, advices[c->advice].name,
	       c->flush ? " flush" : "", s->name, word);
	fflush(stdout);
	CHECK(!strcmp(word, expected(c)) ||
		      (o->backend == &odp_kernel && s->rxe && !strcmp(word, s->rxe)) ||
		      (o->backend == &odp_uhmm && s->uhmm && !strcmp(word, s->uhmm)),
	      "%s: \"%s\", expected \"%s\"", o->backend->name, word, expected(c));
	return PASS;
}

static enum verdict run_advice(const void *arg)
{
	struct odp_open open[ODP_BACKENDS];
	unsigned n, asked = 0;

	TRY(odp_open_all(open, &n, true));
	for (unsigned b = 0; b < n; b++, asked++)
		TRY(advise(&open[b], arg));
	odp_close_all(open, n);
	return asked ? PASS : SKIP;
}

/* ---- registrations ---- */

/* All of the address space, or a hole in it, or memory of a kind. */
struct registration {
	const struct odp_kind *kind;
	enum { MEMORY, HOLE, ALL } what;
	unsigned may;
	int want, or ; /* of the kernel's; both: it depends on its age */
};

static int try_register(const struct odp_open *o, const struct registration *r,
			const struct odp_place *p)
{
	size_t length = r->kind ? ODP_UNITS * r->kind->unit : PAGE;
	void *start = r->kind ? (void *)p->at : live_map(PAGE, RW), *mr;
	int err;

	if (r->what == HOLE)
		munmap(start, PAGE);
	if (r->what == ALL) {
		start = NULL;
		length = SIZE_MAX;
	}
	err = o->backend->reg(o->dev, start, length, r->may, &mr);
	if (!err)
		o->backend->unreg(o->dev, mr);
	return err;
}

static enum verdict run_registration(const void *arg)
{
	const struct registration *r = arg;
	struct odp_open open[ODP_BACKENDS];
	struct odp_place p;
	unsigned n;
	int err;

	TRY(odp_open_all(open, &n, true));
	if (!n || open[0].backend != &odp_kernel)
		return SKIP;
	if (r->kind)
		TRY(odp_place_make(r->kind, &p));
	err = try_register(&open[0], r, &p);
	printf("%-6s | %s | %s | %s\n", open[0].backend->name,
	       r->may & ODP_PINNED ? "pinned" : "on demand",
	       r->kind		 ? r->kind->name
	       : r->what == HOLE ? "a hole"
				 : "all",
	       err ? strerrorname_np(-err) : "0");
	fflush(stdout);
	CHECK(err == r->want || err == r->or, "%s, expected %s", strerror(-err),
	      strerror(-r->want));
	if (r->kind)
		odp_place_free(&p);
	odp_close_all(open, n);
	return PASS;
}

void odp_add_registrations(struct odp_cases *list)
{
	static struct registration cases[20] = {
		{ NULL, HOLE, ODP_MAY_ALL, 0, 0 },
		{ NULL, HOLE, ODP_MAY_ALL | ODP_PINNED, -EFAULT, -EFAULT },
		{ NULL, ALL, ODP_MAY_ALL, -EINVAL, -EOPNOTSUPP },
	};
	size_t n = 3;
	char name[80];

	odp_add(list, run_registration, &cases[0], "register on demand: a hole");
	odp_add(list, run_registration, &cases[1], "register pinned: a hole");
	odp_add(list, run_registration, &cases[2], "register on demand: all");
	for (unsigned k = 0; k < odp_kind_count; k++) {
		cases[n] = (struct registration){ .kind = &odp_kinds[k],
						  .may = ODP_MAY_ALL | ODP_PINNED };
		/* No pin for writing may outlast a filesystem's own care for its file: not
		 * since 6.5 of one that it writes back, never of what is the file itself.
		 */
		if (!strcmp(odp_kinds[k].name, "shared-file"))
			cases[n].or = -EFAULT;
		if (!strcmp(odp_kinds[k].name, "fsdax"))
			cases[n].want = cases[n].or = -EOPNOTSUPP;
		snprintf(name, sizeof(name), "register pinned: %s", odp_kinds[k].name);
		odp_add(list, run_registration, &cases[n++], name);
	}
}

/* ---- the list ---- */

void odp_add_advice(struct odp_cases *list)
{
	static struct advice_case cases[2 * ADVICES * SITUATIONS];
	char name[80];
	size_t n = 0;

	for (unsigned a = 0; a < ADVICES; a++)
		for (unsigned flush = 0; flush < 2; flush++)
			for (unsigned s = 0; s < SITUATIONS; s++) {
				cases[n] = (struct advice_case){ a, s, flush };
				snprintf(name, sizeof(name), "advice %s%s %s",
					 advices[a].name, flush ? " flush" : "",
					 situations[s].name);
				odp_add(list, run_advice, &cases[n++], name);
			}
}
