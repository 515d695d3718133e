/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_userptr - the contract of <uhmm/userptr.h> on an OpenCL platform: real kernels on each kind of
 * memory, on a device that shares memory and on one that does not, by the rules of graphics
 * queues and of kfd's (userptr_kernels.c, userptr_changes.c); changes while jobs are prepared and
 * run (userptr_races.c); what is refused (userptr_refusals.c).
 */
#include <stdio.h>
#include <string.h>

#include "kinds.h"
#include "userptr_live.h"

struct rules_and_kind {
	const struct rules *rules;
	const char *kind;
};

static const struct {
	const char *name;
	enum verdict (*run)(const void *rules);
	int only; /* for one mode: 1 gfx, 2 kfd */
} own_cases[] = {
	{ "only-changed", userptr_only_changed, 0 },
	{ "invalidate-waits", userptr_waits, 0 },
	{ "dropped", userptr_dropped, 0 },
	{ "restored", userptr_restored, 2 },
	{ "churn", userptr_churn, 0 },
	{ "replaced-while-stored", userptr_replaced_while_stored, 1 },
	{ "beside-gpu", userptr_beside_gpu, 0 },
	{ "gone-while-running", userptr_gone_while_running, 0 },
	{ "bad-objects", userptr_bad_objects, 1 },
	{ "bad-launches", userptr_bad_launches, 1 },
	{ "bad-kernels", userptr_bad_kernels, 1 },
	{ "faults", userptr_faults, 0 },
	{ "forked", userptr_forked, 0 },
	{ "fails-midway", userptr_midway, 0 },
};

#define OWN (sizeof(own_cases) / sizeof(own_cases[0]))
#define MOST 200u
#define LIMIT_S 60u /* none takes 3 s, but others may use the CPUs */

static struct live_case cases[MOST];
static struct rules_and_kind pairs[MOST];
static char case_names[MOST][60];
static unsigned n_cases;

static void add(const char *what, const struct rules *rules,
		enum verdict (*run)(const void *arg), const void *arg)
{
	snprintf(case_names[n_cases], sizeof(case_names[0]), "%s %s", rules ? rules->name : "",
		 what);
	cases[n_cases] = (struct live_case){ .name = case_names[n_cases], .run = run,
					     .arg = arg, .limit_s = LIMIT_S };
	n_cases++;
}

static void add_rules(const struct rules *rules)
{
	for (unsigned k = 0; k < live_memories_count; k++) {
		pairs[n_cases] = (struct rules_and_kind){ rules, live_memories[k] };
		add(live_memories[k], rules, userptr_on_memory, &pairs[n_cases]);
	}
	for (unsigned i = 0; i < OWN; i++) {
		int mode = rules->mode == USERPTR_KFD ? 2 : 1;

		if (!own_cases[i].only || own_cases[i].only == mode)
			add(own_cases[i].name, rules, own_cases[i].run, rules);
	}
}

int main(int argc, char **argv)
{
	int status;

	for (unsigned r = 0; r < live_rules_count; r++)
		add_rules(&live_rules[r]);
	add("no-platform", NULL, userptr_no_platform, NULL);
	add("other-platform", NULL, userptr_other_platform, &live_rules[0]);
	kinds_begin();
	status = live_main(argc, argv, cases, n_cases);
	kinds_end();
	return status;
}
