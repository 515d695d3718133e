/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * lab_odp - memory that a peer uses while it comes and goes: what the kernel's paging on
 * demand makes of it (rxe), what the CPU would find, and what others make of it.
 *
 *	lab_odp [-v] [NAME...]	cases of which a NAME is a part: "fsdax", "advice"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "odp_backend.h"

#define CASES 200

static const struct odp_backend *const backends[] = { &odp_kernel, &odp_cpu, &odp_uhmm,
						      &odp_uhmm_verbs };

/* One that is not here is left out. */
enum verdict odp_open_all(struct odp_open *open, unsigned *n, bool advised)
{
	*n = 0;
	for (size_t i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
		enum verdict verdict;

		if (advised && !backends[i]->advise)
			continue;
		verdict = backends[i]->open(&open[*n].dev);
		if (verdict == PASS)
			open[(*n)++].backend = backends[i];
		else if (verdict == FAIL)
			return FAIL;
	}
	return PASS;
}

void odp_close_all(struct odp_open *open, unsigned n)
{
	while (n--)
		open[n].backend->close(open[n].dev);
}

const char *odp_word(enum odp_result result)
{
	static const char *const words[] = {
		[ODP_OK] = "ok",
		[ODP_ACCESS] = "error:access",
		[ODP_FAULT] = "error:fault",
		[ODP_PERMISSION] = "error:permission",
		[ODP_BOUNDS] = "error:bounds",
		[ODP_REQUEST] = "error:request",
		[ODP_OPERATION] = "error:operation",
		[ODP_SILENT] = "error:silent",
		[ODP_BROKEN] = "broken",
	};

	return words[result];
}

static bool starts(const char *word, enum odp_result result)
{
	return !strncmp(word, odp_word(result), strlen(odp_word(result)));
}

/* A word may go on behind the result. */
static bool is_access(const char *word)
{
	return starts(word, ODP_ACCESS) || starts(word, ODP_FAULT) ||
	       starts(word, ODP_PERMISSION) || starts(word, ODP_BOUNDS);
}

bool odp_agree(const char *one, const char *other)
{
	if (is_access(one) && is_access(other)) {
		const char *rest = strchr(one, ','), *of = strchr(other, ',');

		return (starts(one, ODP_ACCESS) || starts(other, ODP_ACCESS) ||
			!strcmp(one, other)) &&
		       !strcmp(rest ? rest : "", of ? of : "");
	}
	return !strcmp(one, other);
}

void odp_add(struct odp_cases *list, enum verdict (*run)(const void *), const void *arg,
	     const char *name)
{
	if (list->n == list->room)
		abort();
	list->cases[list->n++] =
		(struct live_case){ .name = strdup(name), .run = run, .arg = arg };
}

/* Is somebody here to be compared? If not it is one skip, and not one for each case. */
static enum verdict somebody(const void *arg)
{
	struct odp_open open[ODP_BACKENDS];
	unsigned n;

	TRY(odp_open_all(open, &n, false));
	odp_close_all(open, n);
	return n > 1 ? PASS : SKIP;
}

static enum verdict probe(void *arg)
{
	return somebody(arg);
}

int main(int argc, char **argv)
{
	static struct live_case cases[CASES];
	struct odp_cases list = { .cases = cases, .room = CASES };

	odp_add(&list, somebody, NULL, "open");
	if (live_child(probe, NULL, 20) == PASS) {
		odp_add_registrations(&list);
		odp_add_advice(&list);
		odp_add_changes(&list);
	}
	return live_main(argc, argv, list.cases, list.n);
}
