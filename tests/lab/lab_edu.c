/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * lab_edu - QEMU's edu device, which does DMA behind an IOMMU, on every kind of memory and
 * under every change of it; by VFIO type1 and by iommufd.
 *
 *	lab_edu [-v] [NAME...]	cases of which a NAME is a part: "type1 memory", "guard"
 *
 * Each DMA takes 100 ms, so a case takes one to three seconds.
 */
#include <stdio.h>

#include "lab_edu.h"

#define CASES 160

static const struct {
	enum edu_way way;
	const char *name;
} ways[] = {
	{ EDU_TYPE1, "type1" },
	{ EDU_IOMMUFD, "iommufd" },
};

static struct live_case cases[CASES];
static struct edu_case args[CASES];
static char names[CASES][64];
static size_t n_cases;

enum verdict edu_open_way(const struct edu_case *c, unsigned flags, struct edu **dev)
{
	struct edu_options options = { .size = sizeof(options),
				       .way = c->way,
				       .flags = flags };

	return lab_edu_open(&options, dev);
}

/* Is the way there? Its skip is one line, and not one for each case. */
static enum verdict open_and_close(const void *arg)
{
	const struct edu_case *c = arg;
	struct edu_stats stats = { .size = sizeof(stats) };
	struct edu *dev;

	TRY(edu_open_way(c, 0, &dev));
	edu_get_stats(dev, &stats);
	EXPECT(c->way, stats.way);
	edu_close(dev);
	return PASS;
}

static enum verdict probe(void *arg)
{
	return open_and_close(arg);
}

static enum verdict run_change(const void *arg)
{
	const struct edu_case *c = arg;

	return c->change->run(c);
}

static void add(const struct edu_case *c, enum verdict (*run)(const void *),
		const char *way, const char *what, const char *kind)
{
	snprintf(names[n_cases], sizeof(names[0]), "%s %s%s%s", way, what, *kind ? " " : "",
		 kind);
	args[n_cases] = *c;
	cases[n_cases] = (struct live_case){ .name = names[n_cases],
					     .run = run,
					     .arg = &args[n_cases] };
	n_cases++;
}

static void add_changes(enum edu_way way, const char *name,
			const struct edu_change *changes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct edu_case c = { .way = way, .change = &changes[i] };

		if (!changes[i].kind)
			add(&c, run_change, name, changes[i].name, "");
		for (unsigned k = 0; changes[i].kind && k < edu_kind_count; k++) {
			c.kind = &edu_kinds[k];
			if (strstr(changes[i].kind, c.kind->name))
				add(&c, run_change, name, changes[i].name, c.kind->name);
		}
	}
}

static void add_way(enum edu_way way, const char *name)
{
	struct edu_case c = { .way = way };
	bool there = live_child(probe, &c, 20) == PASS;

	add(&c, open_and_close, name, "open", "");
	for (unsigned k = 0; there && k < edu_kind_count; k++) {
		c.kind = &edu_kinds[k];
		add(&c, edu_run_kind, name, "memory", c.kind->name);
	}
	if (there)
		add_changes(way, name, edu_changes, edu_change_count);
	if (there)
		add_changes(way, name, edu_pins, edu_pin_count);
	if (there)
		add_changes(way, name, edu_devices, edu_device_count);
}

int main(int argc, char **argv)
{
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
		add_way(ways[i].way, ways[i].name);
	return live_main(argc, argv, cases, n_cases);
}
