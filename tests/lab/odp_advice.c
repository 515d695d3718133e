/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * odp_advice - what memory may be registered, and the three kinds of advice: followed before
 * the call returns, or some time later.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "odp_backend.h"
#include "odp_place.h"

#define LENGTH (2 * PAGE)
/* For advice that is followed later: an emulated CPU may take as long. */
#define LATER_MS 2000

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

static int pinned(const struct odp_open *o, struct advised *a)
{
	return fresh(o, ODP_MAY_ALL | ODP_PINNED, a);
}

static int past_end(const struct odp_open *o, struct advised *a)
{
	int err = fresh(o, ODP_MAY_ALL, a);

	a->at += PAGE;
	return err;
}

static const struct situation {
	const char *name;
	int (*make)(const struct odp_open *o, struct advised *a);
} situations[] = {
	{ "untouched", untouched },	  { "unmapped", unmapped },
	{ "prot-read", protected_read },  { "for-reading", for_reading },
	{ "pinned", pinned },		  { "past-the-end", past_end },
};
#define SITUATIONS (sizeof(situations) / sizeof(situations[0]))

static const struct {
	const char *name;
	enum odp_advice advice;
} advices[] = {
	{ "prefetch", ODP_PREFETCH },
	{ "prefetch-write", ODP_PREFETCH_WRITE },
	{ "prefetch-no-fault", ODP_PREFETCH_NO_FAULT },
};
#define ADVICES (sizeof(advices) / sizeof(advices[0]))

static bool present(const void *at)
{
	unsigned char pages[LENGTH / PAGE] = { 0 };

	return !mincore((void *)(uintptr_t)at, LENGTH, pages) && (pages[0] & 1) &&
	       (pages[1] & 1);
}

static bool comes(const void *at, bool flush)
{
	for (unsigned ms = 0; !flush && ms < LATER_MS && !present(at); ms += 5)
		usleep(5000);
	return present(at);
}

struct advice_case {
	unsigned advice, situation;
	bool flush;
};

/* "0 present": the call returned 0, and then the pages were there. */
static enum verdict advise(const struct odp_open *o, const struct advice_case *c, char *word,
			   size_t size)
{
	struct advised a = { 0 };
	int err = situations[c->situation].make(o, &a);

	if (err == -EOPNOTSUPP) {
		snprintf(word, size, "-");
		return PASS;
	}
	CHECK(!err, "%s: no registration: %s", o->backend->name, strerror(-err));
	err = o->backend->advise(o->dev, a.mr, advices[c->advice].advice, c->flush, a.at,
				 LENGTH);
	if (err)
		snprintf(word, size, "%s", strerrorname_np(-err));
	else
		snprintf(word, size, "0 %s", comes(a.at, c->flush) ? "present" : "absent");
	o->backend->unreg(o->dev, a.mr);
	return PASS;
}

static enum verdict run_advice(const void *arg)
{
	const struct advice_case *c = arg;
	struct odp_open open[ODP_BACKENDS];
	unsigned n = odp_open_all(open), asked = 0;
	char words[ODP_BACKENDS][40];

	for (unsigned b = 0; b < n; b++) {
		if (!open[b].backend->advise)
			continue;
		TRY(advise(&open[b], c, words[asked], sizeof(words[0])));
		printf("%-6s | %s%s | %s | %s\n", open[b].backend->name,
		       advices[c->advice].name, c->flush ? " flush" : "",
		       situations[c->situation].name, words[asked]);
		CHECK(!asked || !strcmp(words[0], words[asked]), "\"%s\" and \"%s\"",
		      words[0], words[asked]);
		asked++;
	}
	odp_close_all(open, n);
	return asked ? PASS : live_skip("nobody here takes advice");
}

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
