/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_gate - the races that the gate is for, each placed at its one bad moment
 * (G1, G2; docs/gate.md).
 *
 * In most tests one thread plays the program, the device, the reader and the worker, and
 * an action at a call of the system is what "another thread" does there. Where somebody
 * must be found asleep in the middle of something there are threads.
 */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)
#define P 3u /* the page that everything happens to */

static struct device device, other;

/* A mapped VMA of which the device has page P. */
static void begin(struct hmm *hmm)
{
	fake_map(0, 8, FAKE_ANON, RW);
	device_open(&device, hmm, 0, 0);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	assert_true(device.entry[P].valid && device.entry[P].write);
	assert_true(device.entry[P].identity == fake.page[P].identity);
}

static bool current(const struct device *d, unsigned page)
{
	return d->entry[page].valid && d->entry[page].identity == fake.page[page].identity;
}

/* Whatever went before: the page can be had, and the next change of it is told. */
static void works_from_here(struct hmm *hmm, unsigned page)
{
	assert_int_equal(device_fault(&device, page, 1, false), 0);
	assert_true(current(&device, page));
	fake_dontneed(page, 1);
	device_fence_is_sound(&device);
	assert_false(device.entry[page].valid);
}

static void end(void)
{
	fake_forget();
	device_close(&device);
}

/* ---- actions ---- */

static int replace(void *arg)
{
	fake_unmap(P, 1);
	fake_map(P, 1, FAKE_ANON, RW);
	return 0;
}

static int replace_and_read(void *arg)
{
	replace(arg);
	fake_reader();
	return 0;
}

static int replace_and_tell(void *arg)
{
	replace(arg);
	fake_settle();
	return 0;
}

static int queue_all(void *arg)
{
	fake_queue_all();
	return 0;
}

/* ---- G1: what a fence must have delivered ---- */

static void a_change_is_told_by_the_fence(void **state)
{
	begin(*state);
	replace(NULL);
	assert_true(device.entry[P].valid); /* the device still has the old page */
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_int_equal(device.events[HMM_EVENT_UNMAP], 1);
	works_from_here(*state, P);
	end();
}

/* G1, and a fence costs nothing where nothing is mirrored. */
static void a_fence_elsewhere_asks_nobody(void **state)
{
	struct hmm *hmm = *state;
	unsigned probes;

	begin(hmm);
	probes = fake.calls[FAKE_OP_PROBE];
	assert_int_equal(hmm_fence(hmm, fake_addr(100), PAGE), 0);
	assert_int_equal(fake.calls[FAKE_OP_PROBE], probes);
	assert_int_equal(hmm_fence(hmm, fake_addr(P) + 5, 1), 0);
	assert_int_equal(fake.calls[FAKE_OP_PROBE], probes + 1);
	assert_int_equal(hmm_fence(hmm, fake_addr(P), 0), 0);
	assert_int_equal(hmm_fence(hmm, UINTPTR_MAX - 5, 5), 0);
	assert_int_equal(hmm_fence(hmm, UINTPTR_MAX - 5, 6), -EOVERFLOW);
	assert_int_equal(hmm_fence(NULL, 0, 1), -EINVAL);
	assert_int_equal(hmm_notifier_fence(NULL), -EINVAL);
	end();
}

/* The hole between an unmap and its message: only the probe knows (G1). */
static void address_reused_before_the_message_is_queued(void **state)
{
	begin(*state);
	fake.hold_queue = true;
	replace(NULL);
	fake.hold_queue = false;
	fake_at(FAKE_OP_SLEEP, FAKE_BEFORE, -1, 3, queue_all, NULL);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_int_equal(device.events[HMM_EVENT_CLEAR], 0);
	works_from_here(*state, P);
	end();
}

/* The change happens while the fence runs, at each of its steps; what G1 asks of the next
 * fence it must not have lost. */
static void changed_between_any_two_steps_of_a_fence(void **state)
{
	static const fake_action actions[] = { replace, replace_and_read, replace_and_tell };

	for (unsigned when = FAKE_BEFORE; when <= FAKE_AFTER; when++)
		for (unsigned i = 0; i < 3; i++) {
			begin(*state);
			fake_at(FAKE_OP_PROBE, when, -1, 1, actions[i], NULL);
			device_fence_is_sound(&device);
			device_fence_is_sound(&device);
			assert_false(device.entry[P].valid);
			works_from_here(*state, P);
			end();
		}
}

/* ---- G2: what may be installed ---- */

/* Replaced at every call that a fault makes of the system, told or not. */
static void changed_at_any_step_of_a_fault(void **state)
{
	static const enum fake_op ops[] = { FAKE_OP_PROBE, FAKE_OP_FIND_FAST, FAKE_OP_FIND,
					    FAKE_OP_REGISTER, FAKE_OP_POPULATE, FAKE_OP_SCAN };
	static const fake_action actions[] = { replace, replace_and_read, replace_and_tell };
	unsigned placed = 0;

	for (unsigned o = 0; o < 6; o++)
		for (unsigned when = FAKE_BEFORE; when <= FAKE_AFTER; when++)
			for (unsigned i = 0; i < 3; i++)
				for (unsigned nth = 1; nth < 4; nth++) {
					uint64_t identity;

					begin(*state);
					fake_unmap(P, 1);
					fake_map(P, 1, FAKE_ANON, RW);
					identity = fake.page[P].identity;
					fake_at(ops[o], when, -1, nth, actions[i], NULL);
					assert_int_equal(device_fault(&device, P, 1, true), 0);
					placed += identity != fake.page[P].identity;
					fake_forget();
					device_fence_is_sound(&device);
					works_from_here(*state, P);
					end();
				}
	assert_true(placed > 60);
}

/* -EBUSY between the scan and read_retry; the loop begins again (G2). */
static void invalidated_between_scan_and_retry(void **state)
{
	uint64_t pfn = 0;
	struct hmm_range range = { .size = sizeof(range), .hmm = *state,
				   .start = fake_addr(P), .end = fake_addr(P + 1), .pfns = &pfn,
				   .default_flags = HMM_PFN_REQ_FAULT };

	begin(*state);
	range.notifier = device.notifier;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_false(hmm_notifier_read_retry(&range));
	fake_at(FAKE_OP_SCAN, FAKE_AFTER, -1, 1, replace_and_tell, NULL);
	assert_int_equal(hmm_range_fault(&range), -EBUSY);
	assert_true(hmm_notifier_read_retry(&range));
	assert_int_equal(hmm_range_fault(&range), -EBUSY); /* stale before it begins */
	assert_int_equal(hmm_range_snapshot(&range), -EBUSY);
	assert_non_null(strstr(hmm_strerror(-EBUSY), "begin again"));
	fake_at(FAKE_OP_SCAN, FAKE_AFTER, -1, 1, replace_and_tell, NULL);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	assert_true(current(&device, P));
	end();
}

/* What is installed after the change and before its callback, the callback takes (G2). */
static void installed_before_the_callback(void **state)
{
	begin(*state);
	fake_dontneed(P, 1);
	device_fence_is_sound(&device);
	fake_at(FAKE_OP_SCAN, FAKE_AFTER, -1, 1, replace_and_read, NULL);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	assert_false(current(&device, P)); /* allowed: the change came after read_begin */
	assert_true(device.entry[P].valid);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	works_from_here(*state, P);
	end();
}

static void retry_inside(struct device *d, const struct hmm_event *event)
{
	assert_true(hmm_notifier_read_retry(d->arg));
}

/* Who takes the driver's lock after the callback has dropped it finds the sequence raised,
 * though the callback has not returned (G2). */
static void raised_before_the_callback(void **state)
{
	struct hmm_range range = { .size = sizeof(range), .hmm = *state,
				   .start = fake_addr(P), .end = fake_addr(P + 1) };

	begin(*state);
	range.notifier = device.notifier;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	device.arg = &range;
	device.inside = retry_inside;
	fake_dontneed(P, 1);
	fake_settle();
	assert_int_equal(device.events[HMM_EVENT_CLEAR], 1);
	end();
}

static int change_of_permission(void *arg)
{
	fake_protect(P, 1, PROT_READ);
	fake_settle();
	return 0;
}

/* A read_begin after an mprotect gives the new permission; mprotect sends no message. */
static void permission_is_part_of_the_fence(void **state)
{
	begin(*state);
	fake_protect(P, 1, PROT_READ);
	assert_true(device.entry[P].write);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].write);
	assert_int_equal(device.events[HMM_EVENT_PROTECTION], 1);
	assert_int_equal(device_fault(&device, P, 1, true), -EPERM);
	assert_int_equal(device_fault(&device, P, 1, false), 0);
	assert_false(device.entry[P].write);
	fake_protect(P, 1, RW);
	fake_at(FAKE_OP_POPULATE, FAKE_BEFORE, -1, 1, change_of_permission, NULL);
	assert_int_equal(device_fault(&device, P, 1, true), -EPERM);
	end();
}

/* ---- what never ends ---- */

static unsigned told_off;

static int patience(void *arg)
{
	if (++told_off > 1000)
		fake_fail("the fence does not end");
	return 0;
}

/* The probe is never quiet: CLEAR instead, in bounded time (G1). */
static void storm_of_pending_changes(void **state)
{
	uint64_t began;

	begin(*state);
	fake.hold_resume = true;
	fake_dontneed(P + 1, 1);
	fake.hold_resume = false;
	fake_at(FAKE_OP_SLEEP, FAKE_BEFORE, -1, 0, patience, NULL);
	told_off = 0;
	began = fake.clock;
	device_fence_is_sound(&device);
	assert_true(fake.clock - began < 4 * STORM_NS);
	assert_true(told_off > 3); /* it did wait for quiet first */
	assert_int_equal(fake_changing((unsigned)fake_ctx_of(P)), 1);
	assert_false(device.entry[P].valid);
	/* The DONTNEED's own, and the fence's. */
	assert_int_equal(device.events[HMM_EVENT_CLEAR], 2);
	/* In the storm a fault works, too, and what it gave is told of later changes. */
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	replace(NULL);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	fake_resume_all();
	works_from_here(*state, P);
	end();
}

/* The address is taken in the hole, and the storm hides it: CLEAR covers that (G1). */
static void storm_over_a_message_that_is_not_queued(void **state)
{
	begin(*state);
	fake.hold_queue = true;
	replace(NULL);
	fake.hold_queue = false;
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_int_equal(device.events[HMM_EVENT_UNMAP], 0);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	assert_true(current(&device, P));
	/* The late message erases the fresh entry: what was given is taken back. */
	fake_queue_all();
	fake_settle();
	assert_int_equal(device.events[HMM_EVENT_UNMAP], 1);
	assert_false(device.entry[P].valid);
	works_from_here(*state, P);
	end();
}

static int one_more(void *arg)
{
	fake_dontneed(P + 1, 1);
	fake_reader();
	return patience(arg);
}

static int no_worker(void *arg)
{
	return patience(arg);
}

/* Read between every look at seq and every probe: quiet, but never the same. */
static void seq_changes_for_ever(void **state)
{
	uint64_t began;

	begin(*state);
	told_off = 0;
	fake_at(FAKE_OP_PROBE, FAKE_BEFORE, -1, 0, one_more, NULL);
	fake_at(FAKE_OP_SLEEP, FAKE_BEFORE, -1, 0, no_worker, NULL);
	began = fake.clock;
	device_fence_is_sound(&device);
	assert_true(fake.clock - began < 4 * STORM_NS);
	fake_forget();
	assert_false(device.entry[P].valid); /* the CLEAR */
	works_from_here(*state, P);
	end();
}

/* ---- order, and messages that lie ---- */

static void queue_in_order(const unsigned *order)
{
	struct fake_change *change[3];

	for (unsigned i = 0; i < 3; i++)
		assert_non_null(change[i] = fake_pending(i));
	for (unsigned i = 0; i < 3; i++)
		fake_queue(change[order[i]]);
}

/* A moves over B: UNMAP of the destination, REMAP, UNMAP of the source; in each order,
 * read one by one with a fault of both places in between. */
static void remap_and_unmap_in_each_order(void **state)
{
	static const unsigned order[6][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
					      { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };

	for (unsigned i = 0; i < 6; i++)
		for (unsigned fault = 0; fault < 2; fault++) {
			begin(*state);
			fake_map(20, 4, FAKE_ANON, RW);
			assert_int_equal(device_fault(&device, 20, 4, true), 0);
			assert_int_not_equal(fake_ctx_of(20), fake_ctx_of(P));
			fake.hold_queue = true;
			fake_remap(P, 21, 1, false);
			fake.hold_queue = false;
			queue_in_order(order[i]);
			if (fault)
				assert_int_equal(device_fault(&device, 21, 1, true), 0);
			device_fence_is_sound(&device);
			assert_int_equal(device_fault(&device, 21, 1, true), 0);
			assert_true(current(&device, 21));
			assert_int_equal(device_fault(&device, P, 1, true), -EFAULT);
			works_from_here(*state, 21);
			works_from_here(*state, 20);
			end();
			fake_unmap(0, 32);
			fake_settle();
		}
}

/* Both ends of a move are told, with each other's address. */
static void remap_tells_both_ends(void **state)
{
	begin(*state);
	device_open(&other, *state, 21, 1);
	fake_remap(P, 21, 1, true);
	fake_settle();
	assert_int_equal(device.events[HMM_EVENT_REMAP], 2);
	assert_int_equal(device.events[HMM_EVENT_UNMAP], 0);
	assert_int_equal(other.events[HMM_EVENT_REMAP], 1);
	assert_false(other.last.to_peer);
	assert_true(other.last.start == fake_addr(21) && other.last.end == fake_addr(22));
	assert_true(other.last.peer == fake_addr(P));
	/* The source is still there and still ours: a change of it is told. */
	works_from_here(*state, P);
	works_from_here(*state, 21);
	device_close(&other);
	end();
}

static void fork_after_unmap(void **state)
{
	begin(*state);
	fake.hold_queue = true;
	fake_fork();
	fake_unmap(P, 1);
	fake.hold_queue = false;
	fake_queue(fake_pending(1));
	fake_map(P, 1, FAKE_ANON, RW);
	fake_at(FAKE_OP_SLEEP, FAKE_BEFORE, -1, 2, queue_all, NULL);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_int_equal(device.events[HMM_EVENT_UNMAP], 1);
	assert_int_equal(device.events[HMM_EVENT_FORK], 1);
	works_from_here(*state, P);
	end();
}

/* munmap of sealed memory: the message comes, the mapping stays. */
static void unmap_that_fails(void **state)
{
	begin(*state);
	fake_unmap_fails(0, 8);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	assert_int_equal(device.events[HMM_EVENT_UNMAP], 1);
	for (unsigned i = 0; i < CONTEXTS; i++) /* wherever the round robin stands */
		works_from_here(*state, P);
	end();
}

/* ---- the end of a mirror ---- */

static void expect_dead(struct hmm *hmm)
{
	uint64_t pfn = 0;
	struct hmm_range range = { .size = sizeof(range), .hmm = hmm,
				   .notifier = device.notifier, .start = fake_addr(P),
				   .end = fake_addr(P + 1), .pfns = &pfn };
	struct hmm_notifier *none;
	char byte;

	assert_int_equal(hmm_fence(hmm, fake_addr(P), 1), -ENODEV);
	assert_int_equal(hmm_notifier_fence(device.notifier), -ENODEV);
	assert_int_equal(hmm_notifier_read_begin(&range), -ENODEV);
	assert_true(hmm_notifier_read_retry(&range));
	assert_int_equal(hmm_range_snapshot(&range), -ENODEV);
	assert_int_equal(hmm_range_fault(&range), -ENODEV);
	assert_int_equal(device_fault(&device, P, 1, false), -ENODEV);
	assert_int_equal(hmm_copy_from(hmm, &byte, fake_addr(P), 1), -ENODEV);
	assert_int_equal(hmm_notifier_insert(hmm, 0, PAGE, device.notifier->ops, &device,
					     &none), -ENODEV);
	assert_non_null(strstr(hmm_strerror(-ENODEV), "hmm_open()"));
}

static void descriptor_lost(struct hmm *hmm, int err)
{
	begin(hmm);
	for (unsigned i = 0; i < CONTEXTS; i++)
		fake.ctx[i].lost = err;
	assert_int_equal(hmm_notifier_fence(device.notifier), -ENODEV);
	expect_dead(hmm);
	fake_settle();
	fake_worker();
	fake_worker();
	assert_int_equal(device.events[HMM_EVENT_RELEASE], 1);
	assert_int_equal(device.released, 1);
	assert_false(device.entry[P].valid);
	expect_dead(hmm);
	end();
}

static void descriptor_closed(void **state)
{
	descriptor_lost(*state, -EBADF);
}

static void descriptor_is_another_file(void **state)
{
	descriptor_lost(*state, -ENOTTY);
}

/* A waiter of the worker does not sleep for ever when the mirror dies. */
static int die(void *arg)
{
	mirror_kill(arg, "the test says so");
	return 0;
}

static void dies_while_a_fence_waits(void **state)
{
	begin(*state);
	fake_at(FAKE_OP_WAIT, FAKE_BEFORE, -1, 1, die, *state);
	replace(NULL);
	fake_reader(); /* pushed; the worker has not run */
	assert_int_equal(hmm_notifier_fence(device.notifier), -ENODEV);
	end();
}

static int read_fails(void *arg)
{
	return -EBADF;
}

static void reader_loses_its_context(void **state)
{
	begin(*state);
	fake_at(FAKE_OP_READ, FAKE_BEFORE, -1, 1, read_fails, NULL);
	fake_dontneed(P, 1);
	fake_reader();
	expect_dead(*state);
	end();
}

/* ---- inside a callback ---- */

static void calls_inside(struct device *d, const struct hmm_event *event)
{
	uint64_t pfn = 0;
	struct hmm_range range = { .size = sizeof(range), .hmm = d->hmm,
				   .notifier = d->notifier, .start = fake_addr(P),
				   .end = fake_addr(P + 1), .pfns = &pfn };
	struct hmm *hmm;
	char byte;

	assert_int_equal(hmm_fence(d->hmm, fake_addr(P), 1), -EDEADLK);
	assert_non_null(strstr(hmm_strerror(EDEADLK), "thread of yours"));
	assert_int_equal(hmm_notifier_fence(d->notifier), -EDEADLK);
	assert_int_equal(hmm_notifier_read_begin(&range), -EDEADLK);
	assert_int_equal(hmm_range_fault(&range), -EDEADLK);
	assert_int_equal(hmm_range_snapshot(&range), -EDEADLK);
	assert_int_equal(device_fault(d, P, 1, false), -EDEADLK);
	assert_int_equal(hmm_open(&hmm), -EDEADLK);
	range.notifier = NULL;
	assert_int_equal(hmm_range_snapshot(&range), -EDEADLK);
	/* These are allowed. */
	assert_int_equal(hmm_copy_from(d->hmm, &byte, fake_addr(P + 1), 1), 0);
	hmm_put(hmm_get(d->hmm));
	++*(unsigned *)d->arg;
}

static void a_callback_cannot_wait_for_itself(void **state)
{
	unsigned called = 0;

	begin(*state);
	device.inside = calls_inside;
	device.arg = &called;
	fake_dontneed(P, 1);
	device_fence_is_sound(&device);
	assert_int_equal(called, 1);
	device.inside = NULL;
	end();
}

/* ---- with threads ---- */

/* Without perf, whose record of the new mapping would tell, too. */
static int setup_threads(void **state)
{
	fake_reset();
	fake.threads = true;
	fake.no_perf = true;
	*state = fake_open();
	return 0;
}

static sem_t reached;

static int rest_a_while(void *arg)
{
	sem_post(&reached);
	usleep(30000);
	return 0;
}

/*
 * The reader sleeps after read() has released the caller and before it has pushed: the
 * gate is odd. A fence that begins then must wait (G1).
 */
static void fence_while_the_gate_is_odd(void **state)
{
	int ctx;

	sem_init(&reached, 0, 0);
	begin(*state);
	ctx = fake_ctx_of(P);
	fake_at(FAKE_OP_READ, FAKE_AFTER, -1, 1, rest_a_while, NULL);
	replace(NULL);
	sem_wait(&reached);
	assert_int_equal(fake_changing((unsigned)ctx), 0); /* a probe would be quiet */
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	end();
	sem_destroy(&reached);
}

static int queue_and_wait_for_the_reader(void *arg)
{
	fake_queue_all();
	sem_wait(&reached);
	return 0;
}

/*
 * The message is read after the fence has looked at seq and before it probes, which
 * hears nothing any more; nothing is pushed yet. Only the second look at seq knows (G1).
 */
static void message_read_between_seq_and_probe(void **state)
{
	sem_init(&reached, 0, 0);
	begin(*state);
	fake_at(FAKE_OP_READ, FAKE_AFTER, -1, 1, rest_a_while, NULL);
	fake_at(FAKE_OP_PROBE, FAKE_BEFORE, -1, 1, queue_and_wait_for_the_reader, NULL);
	fake.hold_queue = true;
	replace(NULL);
	fake.hold_queue = false;
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	end();
	sem_destroy(&reached);
}

static void rest_inside(struct device *d, const struct hmm_event *event)
{
	rest_a_while(NULL);
}

/*
 * The worker has taken the event and the entry is out of the map, but it is still in
 * another notifier's callback. A fence that finds no entry must wait all the same (G1).
 */
static void fence_while_a_callback_runs(void **state)
{
	sem_init(&reached, 0, 0);
	fake_map(0, 8, FAKE_ANON, RW);
	device_open(&other, *state, P, 1);
	other.inside = rest_inside;
	device_open(&device, *state, P, 1);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	replace(NULL);
	sem_wait(&reached);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	other.inside = NULL;
	device_close(&other);
	end();
	sem_destroy(&reached);
}

static void fence_while_a_remap_is_told(void **state)
{
	sem_init(&reached, 0, 0);
	fake_map(0, 8, FAKE_ANON, RW);
	fake_map(20, 4, FAKE_ANON, RW);
	device_open(&other, *state, 0, 40);
	device_open(&device, *state, 0, 0);
	assert_int_equal(device_fault(&device, 0, 8, true), 0);
	assert_int_equal(device_fault(&device, 20, 4, true), 0);
	other.inside = rest_inside;
	fake_remap(P, 40, 1, false);
	sem_wait(&reached);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	other.inside = NULL;
	device_close(&other);
	end();
	sem_destroy(&reached);
}

static int queue_and_wait_for_the_callback(void *arg)
{
	fake_queue_all();
	sem_wait(&reached);
	return 0;
}

/*
 * The same in a storm: when the fence looks for what to CLEAR the entry is gone. (Before
 * that it compares permissions, where the action has its place.)
 */
static void storm_while_a_callback_runs(void **state)
{
	sem_init(&reached, 0, 0);
	fake_map(0, 8, FAKE_ANON, RW);
	device_open(&other, *state, P, 1);
	other.inside = rest_inside;
	device_open(&device, *state, P, 1);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	fake.hold_queue = true;
	replace(NULL);
	fake.hold_queue = false;
	fake_at(FAKE_OP_FIND_FAST, FAKE_BEFORE, -1, 1, queue_and_wait_for_the_callback, NULL);
	device_fence_is_sound(&device);
	assert_false(device.entry[P].valid);
	other.inside = NULL;
	device_close(&other);
	end();
	sem_destroy(&reached);
}

#define ALONE(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
#define NO_PERF(test) cmocka_unit_test_setup_teardown(test, fake_setup_no_perf, fake_teardown)
#define BOTH(test) ALONE(test), NO_PERF(test)
#define THREADS(test) cmocka_unit_test_setup_teardown(test, setup_threads, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(a_change_is_told_by_the_fence),
		ALONE(a_fence_elsewhere_asks_nobody),
		BOTH(address_reused_before_the_message_is_queued),
		BOTH(changed_between_any_two_steps_of_a_fence),
		BOTH(changed_at_any_step_of_a_fault),
		BOTH(invalidated_between_scan_and_retry),
		BOTH(installed_before_the_callback),
		BOTH(permission_is_part_of_the_fence),
		BOTH(storm_of_pending_changes),
		BOTH(storm_over_a_message_that_is_not_queued),
		BOTH(seq_changes_for_ever),
		BOTH(remap_and_unmap_in_each_order),
		BOTH(remap_tells_both_ends),
		BOTH(fork_after_unmap),
		BOTH(unmap_that_fails),
		ALONE(descriptor_closed),
		ALONE(descriptor_is_another_file),
		ALONE(raised_before_the_callback),
		ALONE(dies_while_a_fence_waits),
		ALONE(reader_loses_its_context),
		ALONE(a_callback_cannot_wait_for_itself),
		THREADS(fence_while_the_gate_is_odd),
		THREADS(message_read_between_seq_and_probe),
		THREADS(fence_while_a_callback_runs),
		THREADS(fence_while_a_remap_is_told),
		THREADS(storm_while_a_callback_runs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
