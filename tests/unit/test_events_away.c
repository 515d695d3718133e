/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_events_away - what the program's changes do to pages that are away, in the orders in
 * which their messages can be read (G5; docs/migration.md). Fork: test_events_fork.c.
 */
#include "core/pager.h"
#include "events_away.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* ---- a frame is nobody's only when its device knows ---- */

/* By a thread that is preempted before its message is queued. */
static void remap_late(unsigned from, unsigned to, unsigned n)
{
	fake.hold_queue = true;
	away_remap(from, to, n, false);
	fake.hold_queue = false;
}

/* Something of A's context is, from now on. */
static void stays_pending(void)
{
	fake.hold_resume = true;
	away_dontneed(A + 15, 1);
	fake.hold_resume = false;
	fake_reader();
}

static void dropped_frames_wait_for_the_worker(void **state)
{
	static void (*const drops[])(unsigned, unsigned) = { away_dontneed, away_unmap };

	EACH_KIND(k)
		for (unsigned d = 0; d < 2; d++) {
			uint64_t frame;

			begin(*state, k);
			frame = away.vram.entry[P].frame;
			drops[d](P, 1);
			for (unsigned i = 0; i < 5; i++)
				fake_reader();
			assert_true(uses(P)); /* the worker has not run */
			assert_true(away.vram.used[frame]);
			fake_settle();
			assert_false(uses(P));
			fake_settle();
			assert_false(away.vram.used[frame]);
			assert_int_equal(vram_stats(&away.vram).dropped, 1);
			away_end(true);
		}
}

static void dropped_frames_wait_for_who_holds_them(void **state)
{
	EACH_KIND(k) {
		uint64_t frame;

		begin(*state, k);
		frame = away.vram.entry[P].frame;
		hmm_devmem_frame_get(away.vram.devmem, frame);
		away_dontneed(P, 1);
		away_settle();
		assert_true(away.vram.used[frame]);
		if (k) /* the device reads on what was there */
			assert_int_equal(vram_frame(&away.vram, frame), 1000 + P);
		hmm_devmem_frame_put(away.vram.devmem, frame);
		away_settle();
		assert_false(away.vram.used[frame]);
		away_end(true);
	}
}

/* ---- one change ---- */

static void dontneed_of_what_is_away(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		away_dontneed(P, 2);
		away_settle();
		assert_int_equal(away_count(P - 1, 4), 2);
		assert_int_equal(fake_read_page(P), 0);
		away_end(true);
	}
}

static void a_failed_unmap_drops_nothing(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		fake_unmap_fails(A, LEN);
		away_settle();
		assert_int_equal(away_count(P - 1, 4), 4);
		assert_int_equal(away_device_reads(P), 0);
		assert_true(uses(P));
		assert_int_equal(vram_stats(&away.vram).dropped, 0);
		/* And of a part, and twice. */
		fake_unmap_fails(P, 1);
		fake_unmap_fails(P, 2);
		away_end(true);
	}
}

static void a_new_mapping_at_the_address(void **state)
{
	EACH_KIND(k)
		for (unsigned later = 0; later < 2; later++) {
			begin(*state, k);
			fake.hold_queue = later;
			away_unmap(A, LEN);
			fake.hold_queue = false;
			away_map(A, LEN);
			away_write(P, 3);
			if (later) {
				/* It can neither leave nor be filled: the message is unread. */
				to_device(P + 1, 2);
				fake_queue_all();
			}
			away_settle();
			assert_int_equal(fake_read_page(P), 3);
			assert_int_equal(fake_read_page(P + 1), 0);
			away_end(true);
		}
}

/*
 * The new one is registered MISSING by a migration of its own, before the message of the old
 * one's end is read: what smaps says of it then proves nothing.
 */
static void a_new_mapping_that_is_migrated(void **state)
{
	EACH_KIND(k)
		for (unsigned nth = 2; nth < 12; nth += 3) {
			begin(*state, k);
			fake.hold_queue = true;
			away_unmap(A, LEN);
			away_map(A, LEN);
			fake.hold_queue = false;
			fake_at(FAKE_OP_WAIT, FAKE_BEFORE, -1, nth, read_now, NULL);
			to_device(P + 6, 2);
			away_settle();
			assert_int_equal(fake_read_page(P), 0);
			away_end(true);
		}
}

/* A new mapping is there, and registered, and the message of the old one's end not queued. */
static void begin_exchanged(struct hmm *hmm, unsigned kind)
{
	unsigned ctx;

	begin(hmm, kind);
	ctx = (unsigned)fake_ctx_of(A);
	fake.hold_queue = true;
	away_unmap(A, LEN);
	away_map(A, LEN);
	fake.hold_queue = false;
	fake_register(ctx, fake_addr(A), fake_addr(A + LEN), false);
}

static void end_exchanged(void)
{
	fake_queue_all();
	away_settle();
	assert_int_equal(fake_read_page(P), 0);
	assert_int_equal(vram_used(&away.vram), 0);
	away_end(true);
}

/*
 * The new one is registered before the message of the old one's end is read. (Who mirrors it waits
 * for that, if he finds it unregistered. It may have been exchanged after that look.)
 */
static void a_new_mapping_that_is_mirrored(void **state)
{
	EACH_KIND(k) {
		begin_exchanged(*state, k);
		vram_look(&away.vram, P, 1);
		fake_register((unsigned)fake_ctx_of(B) % CONTEXTS, fake_addr(A),
			      fake_addr(A + LEN), false);
		end_exchanged();
	}
}

/*
 * A fence that meets a storm does not wait for the message: it tells CLEAR, and the device asks
 * again. The books have the old page then. (The new mapping is registered already, as above.)
 */
static void a_new_mapping_in_a_storm(void **state)
{
	EACH_KIND(k) {
		begin_exchanged(*state, k);
		assert_int_equal(hmm_fence(*state, fake_addr(P), PAGE), 0);
		assert_false(away.vram.entry[P].valid);
		assert_int_equal(vram_look(&away.vram, P, 1), 0);
		assert_false(uses(P));
		end_exchanged();
	}
}

static void mremap_takes_them_along(void **state)
{
	EACH_KIND(k)
		for (unsigned dontunmap = 0; dontunmap < 2; dontunmap++) {
			begin(*state, k);
			away_remap(A, Q, LEN, dontunmap);
			away_settle();
			assert_int_equal(away_count(Q + P - 1 - A, 4), 4);
			if (dontunmap)
				assert_int_equal(away_count(A, LEN), 0);
			assert_int_equal(away_device_reads(Q + P - A), 0);
			assert_true(uses(Q + P - A));
			assert_int_equal(fake_read_page(Q + P - A), 1000 + P);
			away_end(true);
		}
}

/* Evicting by frames needs to know where a page is now. */
static void mremap_then_evict(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		away_remap(P, Q, 2, false);
		away_settle();
		assert_int_equal(hmm_devmem_evict(away.vram.devmem, 0, VRAM_FRAMES), 4);
		away_end(true);
	}
}

static void mremap_onto_what_is_away(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		away_move(B, 2);
		away_unmap(P, 2);
		away_remap(B, P, 2, false);
		away_settle();
		assert_int_equal(fake_read_page(P), 1000 + B);
		assert_int_equal(fake_read_page(P + 1), 1001 + B);
		away_end(true);
	}
}

/* ---- messages out of order ---- */

/* Thread 1 moves P to Q; before its message is queued thread 2 has unmapped Q, and mapped anew. */
static void remap_after_the_unmap_of_its_destination(void **state)
{
	EACH_KIND(k)
		for (unsigned again = 0; again < 3; again++) {
			begin(*state, k);
			fake.hold_queue = true;
			away_remap(P, Q, 2, false);
			away_unmap(Q, 2);
			if (again)
				away_map(Q, 2);
			if (again == 2)
				away_write(Q, 5);
			fake.hold_queue = false;
			fake_queue(change_of(OS_MSG_UNMAP, Q));
			fake_reader();
			away_settle();
			assert_int_equal(away_count(P - 1, 4), 2);
			if (again)
				assert_int_equal(fake_read_page(Q), again == 2 ? 5 : 0);
			away_end(true);
		}
}

/* The same, and what is at Q now has been moved out itself before the REMAP is read. */
static void a_new_mapping_at_the_destination_of_a_late_remap(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		fake.hold_queue = true;
		away_remap(P, Q, 2, false);
		away_unmap(Q, 2);
		away_map(Q, 2);
		away_write(Q, 5);
		away_write(Q + 1, 6);
		fake.hold_queue = false;
		fake_queue(change_of(OS_MSG_UNMAP, Q));
		fake_settle();
		assert_true(to_device(Q, 2) <= 2);
		away_end(true);
	}
}

/* Another mapping, with pages away, is moved to where the first has been moved from. */
static void a_chain_of_mremaps(void **state)
{
	for (unsigned order = 0; order < 2; order++)
		EACH_KIND(k) {
			begin(*state, k);
			away_move(B, 2);
			fake.hold_queue = order;
			away_remap(P, Q, 2, false);
			away_remap(B, P, 2, false);
			fake.hold_queue = false;
			if (order)
				fake_queue(change_of(OS_MSG_REMAP, B));
			fake_settle();
			away_end(true);
		}
}

/* One mapping twice, the second before the first message is read, from another thread. */
static void moved_on_by_another_thread(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		away_remap(P, Q, 2, false);
		away_remap(Q, Q + 10, 2, false);
		away_settle();
		assert_int_equal(fake_read_page(Q + 10), 1000 + P);
		away_end(true);
	}
}

static int move_on(void *arg)
{
	away_remap(Q, Q + 10, 2, false);
	return 0;
}

static int fail_to_unmap(void *arg)
{
	fake_unmap_fails(P, 2);
	return 0;
}

static int move_from_p(void *arg)
{
	away_remap(P, Q, 2, false);
	return 0;
}

/* By the same thread: it runs as soon as its message was read. */
static void moved_on_by_the_same_thread(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		away_remap(P, Q, 2, false);
		fake_at(FAKE_OP_READ, FAKE_AFTER, -1, 1, move_on, NULL);
		away_settle();
		assert_int_equal(fake_read_page(Q + 10), 1000 + P);
		away_end(true);

		begin(*state, k);
		fail_to_unmap(NULL);
		fake_at(FAKE_OP_READ, FAKE_AFTER, -1, 1, move_from_p, NULL);
		away_settle();
		assert_int_equal(fake_read_page(Q), 1000 + P);
		away_end(true);
	}
}

/*
 * Zeros around a fault, and beside it what another context's REMAP, not read yet, has
 * brought: ZEROPAGE does not look whose the mapping is.
 */
static void zeros_beside_a_late_remap(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		away_move(B, 2);
		assert_int_not_equal(fake_ctx_of(A), fake_ctx_of(B));
		hmm_migrate_to_host(*state, fake_addr(A), LEN * PAGE);
		away_dontneed(P + 2, 1);
		away_unmap(P + 3, 2);
		away_settle();
		remap_late(B, P + 3, 2);
		assert_int_equal(fake_read_page(P + 2), 0);
		away_settle();
		assert_int_equal(fake_read_page(P + 3), 1000 + B);
		away_end(true);
	}
}

/* ---- DONTNEED begins and does not end ---- */

static int write_p(void *arg)
{
	away_write(P, 5);
	return 0;
}

/* Written as soon as the caller runs: at the latest moment before the books know. */
static void data_written_after_the_zap_stays(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		away_dontneed(P, 2);
		fake_at(FAKE_OP_READ, FAKE_AFTER, -1, 1, write_p, NULL);
		away_settle();
		assert_int_equal(fake_read_page(P), 5);
		to_device(P, 2);
		assert_int_equal(fake_read_page(P), 5);
		away_end(true);
	}
}

/* Read, not zapped: what is there stays there until it is. */
static void not_zapped_yet(void **state)
{
	EACH_KIND(k) {
		away_begin(*state, &kinds[k]);
		away_move(A, 1); /* registered */
		fake.hold_zap = true;
		away_dontneed(P, 2);
		fake.hold_zap = false;
		fake_reader();
		assert_int_equal(fake.page[P].value, 1000 + P);
		assert_int_equal(to_device(P - 1, 4), 2); /* those beside move */
		assert_int_equal(away_count(P, 2), 0);
		assert_true(to_device(P, 2) <= 0);
		away_settle(); /* zapped now */
		assert_int_equal(to_device(P, 2), 2);
		assert_int_equal(fake_read_page(P), 0);
		away_end(true);
	}
}

/* It was away when it was read, came back as new data, and the zap is still to come. */
static void not_zapped_yet_and_written_to(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		fake.hold_zap = true;
		away_dontneed(P, 2);
		fake.hold_zap = false;
		fake_reader();
		/* The program writes while its own DONTNEED runs: old, new or zeros, then one. */
		away.page[P].old = 5;
		fake_write_page(P, 5);
		to_device(P, 2);
		away_settle();
		to_device(P, 2);
		assert_int_equal(fake_read_page(P), 0);
		away_end(true);
	}
}

/* More ranges than are remembered one by one. */
static void unsettled_without_end(void **state)
{
	away_begin(*state, NULL);
	away_move(A, 1);
	fake.hold_zap = true;
	for (unsigned i = 0; i < 200; i++)
		away_dontneed(A + 4 + i % 5, 1 + i % 7);
	fake.hold_zap = false;
	fake_reader();
	for (unsigned i = 0; i < 20; i++)
		fake_reader();
	assert_true(to_device(A + 4, 10) <= 0);
	away_settle();
	assert_int_equal(to_device(A, LEN), LEN);
	away_end(true);
}

/* ---- looks ---- */

/* L4: what a device read before a page came home is not programmed. */
static void retry_after_homing(void **state)
{
	uint64_t pfn[4] = { 0 };
	struct hmm_range range = { .size = sizeof(range), .hmm = *state, .pfns = pfn,
				   .start = fake_addr(P - 1), .end = fake_addr(P + 3),
				   .default_flags = HMM_PFN_REQ_FAULT };

	EACH_KIND(k) {
		begin(*state, k);
		range.notifier = away.vram.notifier;
		range.owner = away.vram.options.owner;
		assert_int_equal(hmm_notifier_read_begin(&range), 0);
		assert_int_equal(hmm_range_fault(&range), 0);
		assert_true(hmm_pfn_is_device(pfn[1]));
		assert_false(hmm_notifier_read_retry(&range));
		fake_read_page(P);
		assert_true(hmm_notifier_read_retry(&range));
		assert_int_equal(hmm_range_fault(&range), -EBUSY);
		/* Elsewhere it does not count. */
		range.start = fake_addr(B);
		range.end = fake_addr(B + 1);
		assert_int_equal(hmm_notifier_read_begin(&range), 0);
		away_move(P, 1);
		fake_read_page(P);
		assert_false(hmm_notifier_read_retry(&range));
		range.start = fake_addr(P - 1);
		range.end = fake_addr(P + 3);
		away_end(true);
	}
}

/* Between isolation and the end nobody is told anything of the pages. */
static void no_answer_during_a_transfer(void **state)
{
	uint64_t src[4] = { 0 }, dst[4] = { 0 };

	EACH_KIND(k) {
		struct hmm_migrate m = { .size = sizeof(m), .start = fake_addr(P),
					 .end = fake_addr(P + 4), .src = src, .dst = dst };

		away_begin(*state, &kinds[k]);
		m.devmem = away.vram.devmem;
		assert_int_equal(vram_look(&away.vram, P - 1, 6), 0);
		assert_true(away.vram.entry[P].valid);
		assert_int_equal(hmm_migrate_setup(&m), 0);
		assert_int_equal(m.cpages, 4);
		assert_false(away.vram.entry[P].valid);
		assert_int_equal(vram_look(&away.vram, P - 1, 2), -EBUSY);
		assert_int_equal(vram_look(&away.vram, P + 3, 2), -EBUSY);
		assert_int_equal(vram_look(&away.vram, P + 4, 2), 0);
		assert_int_equal(hmm_migrate_pages(&m), 0);
		hmm_migrate_finalize(&m);
		assert_int_equal(vram_look(&away.vram, P - 1, 6), 0);
		assert_true(away.vram.entry[P].valid);
		away_end(true);
	}
}

/* ---- many ---- */

/* More CPUs than the pager keeps in mind. */
static void a_crowd_waits(void **state)
{
	static struct fake_cpu cpu[PARKED + 200];
	static const struct hmm_devmem_options slow = { .type = HMM_DEVMEM_PRIVATE,
							.frames = VRAM_FRAMES };

	away_begin(*state, &slow);
	away_unmap(B, B_LEN);
	fake_settle();
	fake_map(2048, 2048, FAKE_ANON, RW);
	assert_true(hmm_migrate_to_device(away.vram.devmem, fake_addr(2048), PAGE) == 1);
	for (unsigned i = 0; i < PARKED + 200; i++)
		fake_cpu_read(&cpu[i], 2048 + i);
	for (unsigned i = 0; i < 50; i++)
		fake_settle();
	for (unsigned i = 0; i < PARKED + 200; i++)
		assert_false(cpu[i].waiting);
	fake_unmap(2048, 2048);
	away_end(true);
}

/* Over the border of a block, and over that of a mapping. */
static void pieces(void **state)
{
	away_begin(*state, NULL);
	fake_map(500, 20, FAKE_ANON, RW);
	fake_map(530, 4, FAKE_ANON, RW);
	for (unsigned i = 0; i < 20; i++)
		fake_write_page(500 + i, 5000 + i);
	assert_int_equal(to_device(490, 60), 24);
	assert_int_equal(away_count(500, 20), 20);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(fake_read_page(500 + i), 5000 + i);
	fake_unmap(500, 40);
	away_end(true);
}

/* All is home for a while: the mapping is as any other again. */
static void back_to_plain(void **state)
{
	EACH_KIND(k) {
		unsigned faults;

		begin(*state, k);
		assert_true(fake.page[A].missing);
		fake.clock += 1000000000;
		fake_settle();
		assert_true(fake.page[A].missing); /* something is away */
		hmm_migrate_to_host(*state, fake_addr(A), LEN * PAGE);
		assert_int_equal(away_device_reads(P), 0);
		for (unsigned i = 0; i < 20; i++) {
			fake.clock += 100000000;
			fake_settle();
		}
		assert_false(fake.page[A].missing);
		assert_false(away.vram.entry[P].valid); /* nobody would tell it of changes */
		away_dontneed(P, 1);
		away_settle();
		faults = (unsigned)vram_stats(&away.vram).cpu_faults;
		assert_int_equal(fake_read_page(P), 0);
		assert_int_equal(vram_stats(&away.vram).cpu_faults, faults);
		assert_int_equal(away_device_reads(P), 0);
		away_unmap(P, 1);
		assert_int_equal(hmm_notifier_fence(away.vram.notifier), 0);
		assert_false(away.vram.entry[P].valid);
		away_move(P + 1, 2);
		away_end(true);
	}
}

/* Not all of what has moved on is covered by what came in its place: the rest goes along. */
static void moved_on_and_partly_covered(void **state)
{
	EACH_KIND(k) {
		away_begin(*state, &kinds[k]);
		away_move(A, 4);
		away_move(B, 1);
		remap_late(A, SPAN - 4, 4);
		away_remap(B, A, 1, false);
		fake_reader();
		away_settle();
		away_end(true);
	}
}

/* Twice: where it has been moved to there is something else already, when that is read. */
static void moved_on_twice(void **state)
{
	EACH_KIND(k)
		for (unsigned aside = 0; aside < 2; aside++) {
			away_begin(*state, &kinds[k]);
			away_map(50, 1);
			away_settle();
			away_write(50, 1050);
			away_settle();
			away_move(A, 1);
			away_move(B, 1);
			away_move(50, 1);
			remap_late(A, 70, 1);
			if (aside) {
				away_remap(B, A, 1, false);
				fake_reader();
			}
			remap_late(70, 74, 1);
			away_remap(50, 70, 1, false);
			fake_reader();
			away_settle();
			away_end(true);
		}
}

/* What has been there before had nothing away, and its REMAP is read after that of what came to its place. */
static void moved_on_with_nothing_away(void **state)
{
	EACH_KIND(k) {
		away_begin(*state, &kinds[k]);
		away_move(A + 8, 2);
		remap_late(A, Q, 2);
		away_remap(A + 8, A, 2, false);
		fake_reader();
		away_settle();
		assert_int_equal(away_count(A, 2), 2);
		away_end(true);
	}
}

/* What came goes on again, and its second REMAP is read before the first of what was there. */
static void the_newcomer_goes_on(void **state)
{
	EACH_KIND(k) {
		away_begin(*state, &kinds[k]);
		away_move(A, 2);
		away_move(A + 8, 2);
		remap_late(A, Q, 2);
		away_remap(A + 8, A, 2, false);
		fake_reader();
		away_remap(A, Q + 10, 2, false);
		fake_reader();
		away_settle();
		away_end(true);
	}
}

/* Its place is taken by something else of the context before that is read. Something is pending all the time. */
static void the_newcomer_goes_on_and_another_comes(void **state)
{
	EACH_KIND(k)
		for (unsigned hole = 0; hole < 2; hole++) {
			away_begin(*state, &kinds[k]);
			away_dontneed(A + hole, 1);
			away_settle();
			away_move(A + 8, 2);
			stays_pending();
			away_remap(A + 8, Q, 2, false);
			fake_reader();
			away_remap(Q, Q + 10, 2, false);
			away_remap(A, Q, 2, false);
			fake_reader();
			away_settle();
			away_end(true);
		}
}

/* What has come in a part of its place was there before, too: the rest of it goes along. */
static void the_newcomer_is_covered_in_part(void **state)
{
	EACH_KIND(k)
		for (unsigned at = 0; at < 4; at++) {
			unsigned from = at < 2 ? A + 8 : B; /* of another context */

			away_begin(*state, &kinds[k]);
			away_move(A, 3);
			away_move(from, 1);
			stays_pending();
			away_remap(A, Q, 3, false);
			fake_reader();
			remap_late(Q, Q + 10, 3);
			away_remap(from, Q + 2 * (at & 1), 1, false);
			fake_reader();
			away_settle();
			away_end(true);
		}
}

/* And where a mapping is left behind. Something of the context is pending all the time. */
static void the_newcomer_goes_on_and_leaves_a_mapping(void **state)
{
	EACH_KIND(k)
		for (unsigned n = 1; n < 4; n++) {
			away_begin(*state, &kinds[k]);
			away_move(A + 8, n);
			stays_pending();
			away_remap(A + 8, Q, 3, false);
			fake_reader();
			away_remap(Q, Q + 10, 3, true);
			fake_reader();
			away_settle();
			away_end(true);
		}
}

static int cannot_look(void *arg)
{
	return -EACCES;
}

/* Where mappings cannot be looked up (chroot, before Linux 6.11) nothing is taken for gone. */
static void nothing_is_given_up_unseen(void **state)
{
	EACH_KIND(k) {
		begin(*state, k);
		fake_at(FAKE_OP_FIND_FAST, FAKE_BEFORE, -1, 0, cannot_look, NULL);
		fake_unmap_fails(P, 2);
		fake_settle();
		fake_forget();
		assert_int_equal(away_count(P - 1, 4), 4);
		away_end(true);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		TEST(dropped_frames_wait_for_the_worker),
		TEST(dropped_frames_wait_for_who_holds_them),
		TEST(dontneed_of_what_is_away),
		TEST(a_failed_unmap_drops_nothing),
		TEST(nothing_is_given_up_unseen),
		TEST(a_new_mapping_at_the_address),
		TEST(a_new_mapping_that_is_mirrored),
		TEST(a_new_mapping_in_a_storm),
		TEST(a_new_mapping_that_is_migrated),
		TEST(mremap_takes_them_along),
		TEST(mremap_then_evict),
		TEST(mremap_onto_what_is_away),
		TEST(remap_after_the_unmap_of_its_destination),
		TEST(a_new_mapping_at_the_destination_of_a_late_remap),
		TEST(a_chain_of_mremaps),
		TEST(moved_on_by_another_thread),
		TEST(moved_on_by_the_same_thread),
		TEST(moved_on_and_partly_covered),
		TEST(moved_on_twice),
		TEST(moved_on_with_nothing_away),
		TEST(the_newcomer_goes_on),
		TEST(the_newcomer_goes_on_and_another_comes),
		TEST(the_newcomer_is_covered_in_part),
		TEST(the_newcomer_goes_on_and_leaves_a_mapping),
		TEST(zeros_beside_a_late_remap),
		TEST(data_written_after_the_zap_stays),
		TEST(not_zapped_yet),
		TEST(not_zapped_yet_and_written_to),
		TEST(unsettled_without_end),
		TEST(retry_after_homing),
		TEST(no_answer_during_a_transfer),
		TEST(a_crowd_waits),
		TEST(pieces),
		TEST(back_to_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
