/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_arrive - how pages come home, what fails on that way, and frames that are still in
 * use (G5; docs/migration.md).
 */
#include "away.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static struct vram other;

static int64_t to_host(unsigned page, unsigned n)
{
	return hmm_migrate_to_host(away.hmm, fake_addr(page), n * PAGE);
}

/* The frame that a page is in. */
static uint64_t frame_of(unsigned page)
{
	if (away_device_reads(page) || !away.vram.entry[page].device)
		fake_fail("page %u is in no frame", page);
	return away.vram.entry[page].frame;
}

/* ---- a CPU's fault ---- */

static void everybody_who_waits_goes_on(void **state)
{
	struct fake_cpu cpu[6];

	away_begin(*state, NULL);
	away_move(P, 2);
	for (unsigned i = 0; i < 4; i++)
		fake_cpu_read(&cpu[i], P);
	fake_cpu_read(&cpu[4], P + 1);
	fake_cpu_read(&cpu[5], P);
	fake_cpu_kill(&cpu[5]);
	for (unsigned i = 0; i < 5; i++)
		assert_true(cpu[i].waiting);
	fake_settle();
	for (unsigned i = 0; i < 5; i++) {
		assert_false(cpu[i].waiting);
		assert_int_equal(cpu[i].value, i < 4 ? 1000 + P : 1001 + P);
	}
	assert_true(vram_stats(&away.vram).cpu_faults > 0);
	assert_int_equal(vram_stats(&away.vram).cpu_fault_pages, 2);
	away_end(true);
}

/*
 * Who waits at a page when another context's takes its place waits with the context of the first: what
 * comes home to the second does not wake it.
 */
static void who_waited_for_what_was_there_goes_on(void **state)
{
	away_begin(*state, NULL);
	away_move(P, 1);
	away_move(B, 1);
	assert_int_not_equal(fake_ctx_of(P), fake_ctx_of(B));
	away.vram.defer = true;
	away_read(P);
	away.cpu_wants_too[0] = 1000 + B;
	fake_reader();
	away_remap(B, P, 1, false);
	away_settle();
	assert_false(away.cpu[0].waiting);
	away_end(true);
}

/* A coherent page comes home without being put anywhere: who waits at a hole there is not woken by that. */
static void who_waits_at_a_coherent_hole_goes_on(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_COHERENT,
					      .frames = VRAM_FRAMES };

	away_begin(*state, &options);
	away_dontneed(P, 1);
	away_settle();
	away_move(A, LEN);
	fake_refuse(FAKE_OP_ZERO, fake_addr(P), -EAGAIN, 1);
	away_read(P);
	fake_reader();
	assert_true(away.cpu[0].waiting);
	assert_true(to_host(P, 1) >= 0);
	away_settle();
	assert_false(away.cpu[0].waiting);
	away_end(true);
}

/* A system call, too. */
static void copies_of_the_library_wait(void **state)
{
	uint64_t value = 0;

	away_begin(*state, NULL);
	away_move(P, 2);
	assert_int_equal(hmm_copy_from(*state, &value, fake_addr(P), 8), 0);
	assert_int_equal(value, 1000 + P);
	away_end(true);
}

static void neighbours_come_too(void **state)
{
	away_begin(*state, NULL);
	away_move(A, LEN);
	fake_read_page(A + 4);
	assert_true(away_count(A, LEN) < LEN);
	assert_int_equal(vram_stats(&away.vram).cpu_faults, 1);
	away_end(true);
}

static void waits_for_the_driver(void **state)
{
	struct fake_cpu cpu;

	away_begin(*state, NULL);
	away_move(P, 2);
	away.vram.defer = true;
	fake_cpu_write(&cpu, P, 4);
	away.page[P].value = 4;
	away.page[P].old = 1000 + P;
	away.page[P].old_too = true;
	for (unsigned i = 0; i < 20; i++)
		fake_settle();
	assert_true(cpu.waiting);
	assert_true(vram_engine(&away.vram));
	fake_settle();
	assert_false(cpu.waiting);
	away_end(true);
}

static void time_slice(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
					      .frames = VRAM_FRAMES, .timeslice_us = 10000 };
	struct fake_cpu cpu;

	away_begin(*state, &options);
	away_move(P, 2);
	fake_cpu_read(&cpu, P);
	for (unsigned i = 0; i < 10; i++)
		fake_settle();
	assert_true(cpu.waiting);
	assert_int_equal(vram_stats(&away.vram).timesliced, 1);
	fake.clock += 11000000;
	fake_settle();
	assert_false(cpu.waiting);
	assert_int_equal(cpu.value, 1000 + P);
	assert_int_equal(vram_stats(&away.vram).timesliced, 1);
	/* Not for a call. */
	away_move(P, 2);
	assert_int_equal(to_host(P, 2), 2);
	away_end(true);
}

/* ---- calls ---- */

static void by_frames(void **state)
{
	uint64_t frame;

	away_begin(*state, NULL);
	away_move(A, 6);
	frame = frame_of(A + 2);
	assert_int_equal(hmm_devmem_evict(away.vram.devmem, frame, 1), 1);
	assert_int_equal(away_count(A, 6), 5);
	assert_int_equal(away_count(A + 2, 1), 0);
	assert_int_equal(hmm_devmem_evict(away.vram.devmem, 0, VRAM_FRAMES), 5);
	assert_int_equal(hmm_devmem_evict(away.vram.devmem, 0, VRAM_FRAMES), 0);
	assert_int_equal(hmm_devmem_evict(away.vram.devmem, VRAM_FRAMES, 1), -EINVAL);
	away_end(true);
}

/* Only what is asked for. */
static void by_range(void **state)
{
	away_begin(*state, NULL);
	away_move(A, LEN);
	assert_int_equal(to_host(A + 3, 5), 5);
	for (unsigned i = 0; i < LEN; i++)
		assert_int_equal(away_count(A + i, 1), i < 3 || i >= 8);
	away_end(true);
}

/* Another owner's device: by way of the host. */
static void for_another_device(void **state)
{
	away_begin(*state, NULL);
	vram_open(&other, *state, NULL);
	away_move(P, 2);
	assert_int_equal(vram_read(&other, P), 1000 + P);
	assert_false(other.entry[P].device);
	assert_int_equal(away_count(P, 1), 0);
	away_move(P, 2);
	assert_false(other.entry[P].valid);
	/* And straight into its memory. */
	assert_int_equal(hmm_migrate_to_device(other.devmem, fake_addr(P), 2 * PAGE), 2);
	assert_int_equal(vram_used(&away.vram), 0);
	assert_int_equal(vram_used(&other), 2);
	assert_int_equal(vram_read(&other, P), 1000 + P);
	assert_true(other.entry[P].device);
	assert_int_equal(vram_read(&away.vram, P), 1000 + P);
	vram_close(&other);
	away_end(true);
}

/* Two devmems of one owner: the number says which. */
static void two_of_one_owner(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
					      .frames = VRAM_FRAMES };

	away_begin(*state, NULL);
	options.owner = away.vram.options.owner;
	vram_open(&other, *state, &options);
	assert_int_not_equal(hmm_devmem_id(other.devmem), hmm_devmem_id(away.vram.devmem));
	away_move(P, 1);
	assert_int_equal(hmm_migrate_to_device(other.devmem, fake_addr(P + 1), PAGE), 1);
	/* A fault at one brings both. */
	fake_read_page(P);
	fake_read_page(P + 1);
	assert_int_equal(vram_used(&other), 0);
	vram_close(&other);
	away_end(true);
}

/* ---- what was replaced without a message, as by shmat(SHM_REMAP) ---- */

static void replaced(unsigned page, unsigned n, enum fake_object_name object)
{
	for (unsigned i = page; i < page + n; i++) {
		away.page[i].is = AWAY_READS;
		away.page[i].value = 0;
		away.page[i].old_too = false;
	}
	fake_shmdt(page, n);
	fake_map(page, n, object, RW);
}

/* A device asks for it: mirrored, it is not where the old pages are, nor where they go home to. */
static void replaced_and_mirrored(void **state)
{
	for (unsigned host = 0; host < 2; host++) {
		struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
						      .frames = VRAM_FRAMES,
						      .host_frames = host };

		for (unsigned sysv = 0; sysv < 2; sysv++) {
			away_begin(*state, &options);
			away_move(A, LEN);
			replaced(P, 4, sysv ? FAKE_SYSV : FAKE_ANON);
			assert_int_equal(vram_program(&away.vram, P, 4, false), 0);
			for (unsigned i = P; i < P + 4; i++) {
				assert_false(away.vram.entry[i].device);
				assert_int_equal(vram_read(&away.vram, i), 0);
			}
			assert_int_equal(away_count(A, LEN), LEN - 4);
			assert_int_equal(to_host(A, LEN), LEN - 4);
			assert_int_equal(vram_used(&away.vram), 0);
			away_end(true);
		}
	}
}

/* What is moved beside it is registered, and not along with it what pages of before are away at. */
static void replaced_and_moved_beside(void **state)
{
	for (unsigned host = 0; host < 2; host++) {
		struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
						      .frames = VRAM_FRAMES,
						      .host_frames = host };

		away_begin(*state, &options);
		away_move(A, LEN);
		replaced(P, 4, FAKE_ANON);
		away_remap(P + 8, P + 4, 4, false);
		fake_settle();
		assert_int_equal(fake_ctx_of(P), FAKE_NO_CTX);
		assert_int_not_equal(fake_ctx_of(P + 4), FAKE_NO_CTX);
		assert_int_equal(vram_program(&away.vram, P, 4, false), 0);
		for (unsigned i = P; i < P + 4; i++)
			assert_int_equal(vram_read(&away.vram, i), 0);
		away_end(true);
	}
}

/* It is registered with the old one's context before that is noticed. */
static void replaced_and_registered(void **state)
{
	int16_t ctx;

	away_begin(*state, NULL);
	away_move(A, LEN);
	ctx = (int16_t)fake_ctx_of(P);
	replaced(P, 4, FAKE_SYSV);
	for (unsigned i = P; i < P + 4; i++)
		fake.page[i].ctx = ctx;
	assert_int_equal(to_host(A, LEN), LEN);
	assert_int_equal(vram_used(&away.vram), 0);
	away_end(true);
}

/* ---- what fails ---- */

/*
 * Nothing that MOVE says may cost a byte; only that there is no such place any more does.
 * (EFAULT: what is in the buffer cannot be read. Then it is lost, and never zeros.)
 */
static void move_is_refused(void **state)
{
	static const int errs[] = { -EAGAIN, -EBUSY, -ENOMEM, -EINVAL, -EFAULT };

	for (unsigned host = 0; host < 2; host++)
		for (unsigned e = 0; e < sizeof(errs) / sizeof(errs[0]); e++)
			for (unsigned times = 1; times < 4; times++)
				for (unsigned by = 0; by < 2; by++) {
					struct hmm_devmem_options options = {
						.type = HMM_DEVMEM_PRIVATE,
						.frames = VRAM_FRAMES, .host_frames = host };
					static char doing[80];

					away_begin(*state, &options);
					snprintf(doing, sizeof(doing), "MOVE home says %d%s",
						 errs[e], host ? " (host frames)" : "");
					away.doing = doing;
					away_move(P - 1, 4);
					away.page[P].lost_too = errs[e] == -EFAULT;
					fake_refuse(FAKE_OP_MOVE, fake_addr(P), errs[e], times);
					if (by)
						away_read(P);
					else if (to_host(P - 1, 4) != 4)
						assert_int_equal(errs[e], -EFAULT);
					away_settle();
					memset(fake.refusal, 0, sizeof(fake.refusal));
					away_end(true);
				}
}

static int moves_on(void *arg)
{
	away_remap(P, Q, 2, false);
	return -ENOENT;
}

/* The kernel looks for the mapping before it asks whether one changes: what has just been moved away is
 * "not there", and not gone. */
static void what_moves_on_is_not_gone(void **state)
{
	for (unsigned host = 0; host < 2; host++)
		for (unsigned first = A; first <= P; first += P - A) {
			struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
							      .frames = VRAM_FRAMES,
							      .host_frames = host };

			away_begin(*state, &options);
			away_move(A, LEN);
			fake_at(FAKE_OP_MOVE, FAKE_BEFORE, -1, 1, moves_on, NULL);
			to_host(first, 4);
			away_settle();
			fake_forget();
			away_end(true);
		}
}

/* Neither way, for a while. */
static void copy_is_refused_too(void **state)
{
	away_begin(*state, NULL);
	away_move(P, 4);
	fake_refuse(FAKE_OP_MOVE, fake_addr(P), -EINVAL, 3);
	fake_refuse(FAKE_OP_COPY, fake_addr(P), -ENOMEM, 2);
	away_read(P);
	away_end(true);
}

static int says_enomem(void *arg)
{
	unsigned *left = arg;

	if (!*left)
		return 0;
	--*left;
	return -ENOMEM;
}

static void no_memory_for_a_while(void **state)
{
	unsigned left = 3;

	away_begin(*state, NULL);
	away_move(P, 4);
	fake_at(FAKE_OP_POPULATE, FAKE_BEFORE, -1, 0, says_enomem, &left);
	away_read(P);
	for (unsigned i = 0; i < 8; i++) {
		fake.clock += 1000000;
		fake_settle();
	}
	assert_int_equal(left, 0);
	assert_false(away.cpu[0].waiting);
	away_end(true);
}

/* mprotect meanwhile: COPY may write there. */
static void home_to_what_is_read_only(void **state)
{
	for (unsigned host = 0; host < 2; host++) {
		struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
						      .frames = VRAM_FRAMES,
						      .host_frames = host };
		unsigned copies = fake.calls[FAKE_OP_COPY];

		away_begin(*state, &options);
		away_move(A, LEN);
		fake_protect(P, 2, PROT_READ);
		assert_int_equal(to_host(A, LEN), LEN);
		assert_true(fake.calls[FAKE_OP_COPY] > copies);
		away_check();
		fake_protect(P, 2, RW);
		away_move(A, LEN);
		away_end(true);
	}
}

static void poisoned(unsigned page)
{
	struct fake_cpu cpu;

	fake_cpu_read(&cpu, page);
	while (cpu.waiting)
		fake_go_on();
	assert_int_equal(cpu.signal, SIGBUS);
}

/* SIGBUS on exactly the pages that the driver cannot read back. */
static void the_driver_cannot_read_one_back(void **state)
{
	away_begin(*state, NULL);
	away_move(P - 1, 4);
	away.page[P].is = AWAY_LOST;
	away.vram.fail_addr = fake_addr(P);
	away.vram.fail_err = -EIO;
	assert_int_equal(fake_read_page(P + 1), 1001 + P);
	poisoned(P);
	assert_int_equal(fake_read_page(P - 1), 999 + P);
	assert_int_equal(vram_stats(&away.vram).lost, 1);
	away.vram.fail_addr = 0;
	away_end(true);

	away_begin(*state, NULL);
	away_move(P, 2);
	away.page[P].is = away.page[P + 1].is = AWAY_LOST;
	away.vram.fail = -EIO;
	assert_true(to_host(P, 2) == -EIO || away.vram.fail == 0);
	poisoned(P);
	poisoned(P + 1);
	away_end(true);
}

/* The call says so. */
static void lost_pages_are_an_error(void **state)
{
	away_begin(*state, NULL);
	away_move(P, 2);
	away.page[P].is = AWAY_LOST;
	away.vram.fail_addr = fake_addr(P);
	away.vram.fail_err = -EIO;
	assert_int_equal(to_host(P, 2), -EIO);
	away.vram.fail_addr = 0;
	away_end(true);
}

static void the_device_dies(void **state)
{
	for (unsigned late = 0; late < 2; late++) {
		struct hmm_range range;
		uint64_t pfn = HMM_PFN_REQ_FAULT;

		away_begin(*state, NULL);
		away.vram.late = late;
		away_move(P, 2);
		away.page[P].is = away.page[P + 1].is = AWAY_LOST;
		vram_die(&away.vram);
		poisoned(P);
		poisoned(P + 1);
		assert_int_equal(fake_read_page(P + 2), 1002 + P);
		range = (struct hmm_range){ .size = sizeof(range), .hmm = *state,
					    .start = fake_addr(P), .end = fake_addr(P + 1),
					    .pfns = &pfn, .pfn_flags_mask = HMM_PFN_REQ_FAULT,
					    .notifier = away.vram.notifier };
		assert_int_equal(hmm_notifier_read_begin(&range), 0);
		assert_int_equal(hmm_range_fault(&range), -EFAULT);
		assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(P), PAGE),
				 -ENODEV);
		away_end(true);
	}
}

/* Host frames are host memory: nothing is lost with the device. */
static void host_frames_survive_the_device(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
					      .frames = VRAM_FRAMES, .host_frames = true };

	away_begin(*state, &options);
	away_move(P, 2);
	vram_die(&away.vram);
	assert_int_equal(fake_read_page(P), 1000 + P);
	away_end(true);
}

static int die(void *arg)
{
	for (unsigned i = P; i < P + 2; i++)
		away.page[i].lost_too = true;
	vram_die(&away.vram);
	return 0;
}

static void dies_on_the_way_home(void **state)
{
	for (unsigned when = FAKE_BEFORE; when <= FAKE_AFTER; when++) {
		away_begin(*state, NULL);
		away.vram.late = true;
		away_move(P, 2);
		fake_at(FAKE_OP_DRIVER, when, -1, 1, die, NULL);
		away_read(P);
		away_end(true);
	}
}

/* Not now: it waits. It never reads zeros. */
static void poison_is_refused(void **state)
{
	static const int errs[] = { -EAGAIN, -ENOMEM };

	for (unsigned e = 0; e < 2; e++) {
		away_begin(*state, NULL);
		away_move(P, 2);
		away.page[P].is = away.page[P + 1].is = AWAY_LOST;
		fake_refuse(FAKE_OP_POISON, fake_addr(P), errs[e], 2);
		vram_die(&away.vram);
		poisoned(P + 1);
		poisoned(P);
		away_end(true);
	}
}

static void without_poison(void **state)
{
	fake_reset();
	fake.no_poison = true;
	*state = fake_open();
	if (vram_try_open(&other, *state, NULL) == -EOPNOTSUPP)
		return;
	vram_close(&other);
	away_begin(*state, NULL);
	away_move(P, 1);
	away.page[P].is = AWAY_LOST;
	vram_die(&away.vram);
	/* It never reads zeros: whatever else becomes of who touches it. */
	for (unsigned i = 0; i < 20; i++) {
		struct fake_cpu cpu;
		uint64_t value;

		assert_true(fake_sight(P, &value) != FAKE_SEES);
		fake_cpu_read(&cpu, P);
		fake_settle();
		fake.clock += 1000000;
		assert_true(cpu.waiting || cpu.signal);
		if (cpu.waiting)
			fake_cpu_kill(&cpu);
	}
	away_unmap(P, 1);
	away_end(true);
}

static void never_done_on_the_way_home(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
					      .frames = VRAM_FRAMES, .timeout_ms = 20 };

	away_begin(*state, &options);
	away_move(P, 2);
	away.vram.defer = true;
	away.page[P].is = away.page[P + 1].is = AWAY_LOST;
	poisoned(P);
	poisoned(P + 1);
	away.vram.fail = -EIO;
	assert_true(vram_engine(&away.vram));
	away_end(true);
}

/* ---- frames that are in use ---- */

static void held_frames_are_not_reused(void **state)
{
	uint64_t frame;

	for (unsigned host = 0; host < 2; host++) {
		struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
						      .frames = 2, .host_frames = host };

		away_begin(*state, &options);
		away_move(P, 2);
		frame = frame_of(P);
		hmm_devmem_frame_get(away.vram.devmem, frame);
		hmm_devmem_frame_get(away.vram.devmem, frame);
		assert_int_equal(to_host(P, 2), 2);
		for (unsigned i = 0; i < 5; i++)
			fake_settle();
		assert_true(away.vram.used[frame]);
		assert_int_equal(vram_used(&away.vram), 1);
		assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(P), 2 * PAGE),
				 1);
		hmm_devmem_frame_put(away.vram.devmem, frame);
		fake_settle();
		assert_true(away.vram.used[frame]);
		hmm_devmem_frame_put(away.vram.devmem, frame);
		fake_settle();
		assert_int_equal(vram_used(&away.vram), 1);
		away_move(P, 2);
		away_end(true);
	}
}

/* ---- the end ---- */

static void destroy_brings_everything_home(void **state)
{
	uint64_t frame;

	for (unsigned host = 0; host < 2; host++) {
		struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE,
						      .frames = VRAM_FRAMES,
						      .host_frames = host };

		away_begin(*state, &options);
		away.vram.late = true;
		away_move(A, LEN);
		if (host)
			assert_int_equal(hmm_make_exclusive(away.vram.devmem, fake_addr(A),
							    &frame), 0);
		vram_close(&away.vram);
		away_check();
		for (unsigned i = A; i < A + LEN; i++)
			assert_int_equal(fake_count(1000 + i), 1);
		vram_open(&away.vram, *state, NULL);
		away_end(true);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		TEST(everybody_who_waits_goes_on),
		TEST(who_waited_for_what_was_there_goes_on),
		TEST(who_waits_at_a_coherent_hole_goes_on),
		TEST(copies_of_the_library_wait),
		TEST(neighbours_come_too),
		TEST(waits_for_the_driver),
		TEST(time_slice),
		TEST(by_frames),
		TEST(by_range),
		TEST(for_another_device),
		TEST(two_of_one_owner),
		TEST(replaced_and_mirrored),
		TEST(replaced_and_moved_beside),
		TEST(replaced_and_registered),
		TEST(move_is_refused),
		TEST(what_moves_on_is_not_gone),
		TEST(copy_is_refused_too),
		TEST(no_memory_for_a_while),
		TEST(home_to_what_is_read_only),
		TEST(the_driver_cannot_read_one_back),
		TEST(lost_pages_are_an_error),
		TEST(the_device_dies),
		TEST(host_frames_survive_the_device),
		TEST(dies_on_the_way_home),
		TEST(poison_is_refused),
		TEST(without_poison),
		TEST(never_done_on_the_way_home),
		TEST(held_frames_are_not_reused),
		TEST(destroy_brings_everything_home),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
