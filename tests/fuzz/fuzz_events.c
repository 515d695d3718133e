/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * fuzz_events - a program, two devices, the reader and the worker, in any order.
 *
 * Each byte of the input is a step of somebody, or what a step is done to. At every call
 * that the library makes of the system, before and after, bytes are read, too: there the
 * others may take steps "meanwhile", as far as real threads could (nobody takes a lock that
 * is held, nobody fences inside a callback).
 *
 * Checked, with the fake's identities as the model: after a fence no device has a
 * translation of what was over, or forbidden, when the fence was called (G1); nor does a
 * fault install one that a fence does not take away (G2). Nothing waits for ever. In the end,
 * when all is quiet, every page that can be had is had, and nothing stays registered.
 *
 * Built by clang with -fsanitize=fuzzer it is a libFuzzer target; with FUZZ_MAIN it is a
 * test that makes its own input from a fixed seed: fuzz_events [runs [seed]].
 */
#include "device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RW (PROT_READ | PROT_WRITE)
#define PAGES 16u
#define HALF 8u /* pages the second device watches, from DEVICE_FROM */
#define DEVICE_FROM 4u

static struct {
	const uint8_t *data;
	size_t left;
	bool verbose;
} input;

static struct device device[2];
static struct device_floor floors[2];

static uint8_t next(void)
{
	if (!input.left)
		return 255;
	input.left--;
	return *input.data++;
}

static void say(const char *what, unsigned a, unsigned b)
{
	if (input.verbose)
		fprintf(stderr, "%*s%s %u %u%s%s\n", (int)fake.level * 4, "", what, a, b,
			lock_held ? " (locked)" : "", in_callback() ? " (callback)" : "");
}

/* ---- the program ---- */

struct place {
	unsigned page, n;
};

static struct place place(void)
{
	struct place p = { .page = next() % PAGES };

	p.n = 1 + next() % 6;
	if (p.n > PAGES - p.page)
		p.n = PAGES - p.page;
	return p;
}

/* Are all of them mapped, and (with `object` set) of that object? */
static bool all_mapped(struct place p, int object)
{
	for (unsigned i = p.page; i < p.page + p.n; i++)
		if (!fake.page[i].mapped || (object >= 0 && fake.page[i].object != object))
			return false;
	return true;
}

static void map(struct place p)
{
	static const enum fake_object_name objects[] = { FAKE_ANON, FAKE_ANON, FAKE_SHARED_FILE,
							 FAKE_PRIVATE_FILE, FAKE_SYSV };
	static const int prots[] = { RW, RW, PROT_READ, PROT_NONE };
	uint8_t how = next();

	fake_map_at(p.page, p.n, objects[how % 5], prots[how / 5 % 4], p.page);
}

static void remap(struct place p)
{
	unsigned to = next() % PAGES, one = fake.page[p.page].object;

	if (to + p.n > PAGES || (to < p.page + p.n && p.page < to + p.n) ||
	    !all_mapped(p, (int)one))
		return;
	for (unsigned i = p.page; i < p.page + p.n; i++)
		if (fake.page[i].ctx != fake.page[p.page].ctx ||
		    fake.page[i].prot != fake.page[p.page].prot)
			return; /* mremap takes one VMA */
	fake_remap(p.page, to, p.n, one == FAKE_ANON && next() % 2);
}

static void program_step(void)
{
	uint8_t what = next() % 12;
	struct place p = place();

	say("program", what, p.page * 100 + p.n);
	switch (what) {
	case 0:
	case 1:
		map(p);
		break;
	case 2:
	case 3:
		fake_unmap(p.page, p.n);
		break;
	case 4:
		fake_unmap_fails(p.page, p.n);
		break;
	case 5:
		if (all_mapped(p, -1))
			fake_dontneed(p.page, p.n);
		break;
	case 6:
	case 7:
		remap(p);
		break;
	case 8:
		if (all_mapped(p, -1))
			fake_protect(p.page, p.n, p.n % 2 ? PROT_READ : RW);
		break;
	case 9:
		fake_fork();
		break;
	case 10:
		if (all_mapped(p, FAKE_SYSV))
			fake_shmdt(p.page, p.n);
		break;
	case 11:
		if (all_mapped(p, -1))
			fake_touch(p.page, p.n);
		break;
	}
}

/* A step of a change that is on its way. */
static void change_step(void)
{
	struct fake_change *change = fake_pending(next() % 4);

	if (!change)
		return;
	say("change", change->state, change->ctx);
	fake_queue(change);
	fake_resume(change);
}

/* ---- the devices ---- */

static void judge(unsigned d, const char *after)
{
	int page = device_stale(&device[d], &floors[fake.level]);

	if (page >= 0)
		fake_fail("device %u is stale at page %d after a %s", d, page, after);
}

static void fence(unsigned d)
{
	int err;

	say("fence", d, 0);
	device_floor(&floors[fake.level]);
	err = hmm_notifier_fence(device[d].notifier);
	if (err)
		fake_fail("a fence says %s", hmm_strerror(err));
	judge(d, "fence");
	say("fenced", d, 0);
}

/* Looks at one place that the library takes before it says that it changes all the time. */
#define TRIES 16u

static void fault(unsigned d, struct place p, uint8_t how)
{
	uint64_t stamp = fake.stamp;
	int err;

	if (d) {
		p.page = DEVICE_FROM + p.page % HALF;
		if (p.n > DEVICE_FROM + HALF - p.page)
			p.n = DEVICE_FROM + HALF - p.page;
	}
	say("fault", d, p.page * 100 + p.n);
	err = how % 4 == 3 ? device_snapshot(&device[d], p.page, p.n)
			   : device_fault(&device[d], p.page, p.n, how % 4 == 0);
	if (err == -ENOMEM && fake.stamp - stamp >= TRIES)
		err = -EBUSY;
	if (err && err != -EFAULT && err != -EPERM && err != -EBUSY)
		fake_fail("a fault says %s", hmm_strerror(err));
	say("faulted", d, (unsigned)-err);
}

static void replace_device(void)
{
	if (fake.level) /* a fault or fence of it may be running below */
		return;
	say("notifier", 1, 0);
	device_close(&device[1]);
	device_open(&device[1], fake.hmm, DEVICE_FROM, HALF);
}

static void device_step(void)
{
	uint8_t what = next();
	unsigned d = what & 1;

	switch (what >> 1 & 7) {
	case 0:
		replace_device();
		break;
	case 1:
	case 2:
		fence(d);
		break;
	default:
		fault(d, place(), what >> 4);
		break;
	}
}

/* ---- everybody ---- */

static void step(void)
{
	uint8_t who = next();

	switch (who % 16) {
	case 0:
	case 1:
	case 2:
	case 3:
		program_step();
		break;
	case 4:
	case 5:
		say("reader", 0, 0);
		fake_reader();
		break;
	case 6:
	case 7:
		say("worker", 0, 0);
		fake_worker();
		break;
	case 8:
	case 9:
		change_step();
		break;
	case 10:
		fake.hold_queue = who & 16;
		fake.hold_resume = who & 32;
		break;
	case 11:
		if (!lock_held && !in_callback())
			records_drain(fake.hmm);
		break;
	default:
		if (!lock_held && !in_callback())
			device_step();
		break;
	}
}

static int meanwhile(void *arg)
{
	unsigned steps;

	if (!input.left || fake.level)
		return 0;
	steps = next();
	steps = steps < 40 ? 1 : steps < 50 ? 3 : 0;
	fake.level = 1;
	while (steps--)
		step();
	fake.level = 0;
	return 0;
}

static void inside(struct device *d, const struct hmm_event *event)
{
	uint8_t steps = next();

	for (steps = steps < 40 ? 1 : 0; steps; steps--)
		step();
}

static void place_actions(void)
{
	static const enum fake_op ops[] = { FAKE_OP_PROBE, FAKE_OP_REGISTER, FAKE_OP_FIND,
					    FAKE_OP_FIND_FAST, FAKE_OP_SCAN, FAKE_OP_POPULATE,
					    FAKE_OP_PENDING };

	fake_forget();
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		fake_at(ops[i], FAKE_BEFORE, -1, 0, meanwhile, NULL);
		fake_at(ops[i], FAKE_AFTER, -1, 0, meanwhile, NULL);
	}
	fake_at(FAKE_OP_SLEEP, FAKE_BEFORE, -1, 0, meanwhile, NULL);
}

/* Nobody disturbs any more: what can be had is had. */
static void quiet_end(void)
{
	input.left = 0;
	fake_forget();
	fake.hold_queue = fake.hold_resume = false;
	fake_queue_all();
	fake_settle();
	fake_resume_all();
	fence(0);
	fence(1);
	for (unsigned i = 0; i < PAGES; i++) {
		bool can = fake.page[i].mapped && (fake.page[i].prot & PROT_READ);
		int err = device_fault(&device[0], i, 1, false);

		if ((err == 0) != can)
			fake_fail("page %u cannot be had: %s", i, hmm_strerror(err));
		if (!can)
			continue;
		fake_dontneed(i, 1);
		fence(0);
		if (device[0].entry[i].valid)
			fake_fail("page %u is not told of", i);
	}
}

static void run(const uint8_t *data, size_t size)
{
	uint8_t flags = size ? data[0] : 0;

	fake_reset();
	fake.pages = PAGES;
	fake.no_perf = flags & 1;
	fake_open();
	input.data = size ? data + 1 : data;
	input.left = size ? size - 1 : 0;
	device_open(&device[0], fake.hmm, 0, 0);
	device_open(&device[1], fake.hmm, DEVICE_FROM, HALF);
	if (flags & 2)
		device[0].inside = inside;
	place_actions();
	while (input.left)
		step();
	quiet_end();
	device_close(&device[0]);
	device_close(&device[1]);
	fake_close(fake.hmm);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input.verbose = getenv("FUZZ_VERBOSE") != NULL;
	run(data, size);
	return 0;
}

#ifdef FUZZ_MAIN
#include "by_seed.h"

int main(int argc, char **argv)
{
	static uint8_t data[600];

	printf("%llu runs\n", (unsigned long long)run_seeds(argc, argv, 20000, data, sizeof(data)));
	return 0;
}
#endif
