/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/* test_stuck - drivers that are slow or never end, and what must not wait for them. */
#include "away.h"
#include "core/pager.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>

static struct vram other;

static void post_home(struct hmm *hmm, unsigned page, unsigned n)
{
	struct request *r = &hmm->pager->request[0];

	r->kind = REQUEST_HOME;
	r->devmem = NULL;
	r->start = fake_addr(page);
	r->end = fake_addr(page + n);
	r->deadline = hmm->os->now() + 30000000000;
	r->after = r->moved = 0;
	r->fork = false;
	r->err = 0;
	r->state = REQUEST_POSTED;
	fake.nudged = true;
	fake_reader();
}

static void time_passes(unsigned times, uint64_t ns)
{
	for (unsigned i = 0; i < times; i++) {
		fake.nudged = true;
		fake_settle();
		fake.clock += ns;
	}
}

static int a_second_passes(void *arg)
{
	fake.clock += 1000000000;
	return 0;
}

static void sixteen_blocks(struct hmm *hmm)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE, .frames = 32 };

	vram_open(&away.vram, hmm, &options);
	vram_open(&other, hmm, &options);
	for (unsigned b = 0; b < 16; b++) {
		fake_map(b * 512 + 5, 2, FAKE_ANON, RW);
		fake_write_page(b * 512 + 5, 1000 + b);
		fake_write_page(b * 512 + 6, 2000 + b);
	}
}

/* A driver that never ends its copies does not take all slots: another one's pages come home, its own are lost,
 * and it can be destroyed. */
static void a_driver_that_never_ends(void **state)
{
	struct fake_cpu healthy, lost;
	struct hmm *hmm = *state;

	sixteen_blocks(hmm);
	for (unsigned b = 0; b < 16; b++)
		assert_int_equal(hmm_migrate_to_device(away.vram.devmem,
						       fake_addr(b * 512 + 5), PAGE), 1);
	assert_int_equal(hmm_migrate_to_device(other.devmem, fake_addr(6), PAGE), 1);
	time_passes(5, 2000000);
	away.vram.defer = true;
	post_home(hmm, 0, FAKE_PAGES);
	time_passes(2, 11000000000);
	time_passes(5, 1000000);
	assert_true(away.vram.devmem->lost);
	fake_cpu_read(&healthy, 6);
	fake_cpu_read(&lost, 15 * 512 + 5);
	time_passes(20, 1000000000);
	assert_false(healthy.waiting || lost.waiting);
	assert_int_equal(healthy.value, 2000);
	assert_int_equal(lost.signal, SIGBUS);
	hmm->pager->request[0].state = REQUEST_FREE;
	fake_at(FAKE_OP_WAIT, FAKE_BEFORE, -1, 0, a_second_passes, NULL);
	vram_close(&away.vram);
	vram_close(&other);
}

/* One that is slow: what of another one lies around its pages, or behind them, does not wait for it. */
static void a_driver_that_is_slow(void **state)
{
	struct hmm *hmm = *state;
	struct fake_cpu cpu;

	sixteen_blocks(hmm);
	for (unsigned b = 0; b < 16; b++)
		assert_int_equal(hmm_migrate_to_device(away.vram.devmem,
						       fake_addr(b * 512 + 5), PAGE), 1);
	assert_int_equal(hmm_migrate_to_device(other.devmem, fake_addr(14 * 512 + 6), PAGE), 1);
	assert_int_equal(hmm_migrate_to_device(other.devmem, fake_addr(15 * 512 + 6), PAGE), 1);
	time_passes(5, 2000000);
	away.vram.defer = true;
	post_home(hmm, 0, 15 * 512);
	fake_cpu_read(&cpu, 15 * 512 + 6);
	time_passes(9, 1000000);
	assert_false(cpu.waiting);
	assert_int_equal(vram_used(&other), 0);
	away.vram.defer = false;
	while (vram_engine(&away.vram))
		time_passes(1, 1000000);
	time_passes(5, 1000000);
	assert_int_equal(hmm->pager->request[0].state, REQUEST_DONE);
	hmm->pager->request[0].state = REQUEST_FREE;
	vram_close(&away.vram);
	vram_close(&other);
}

/* Who migrates may wait for somebody who waits at a page of the same device. */
static void a_fault_while_much_is_on_its_way(void **state)
{
	uint64_t src[8] = { 0 }, dst[8] = { 0 };
	struct hmm_migrate m[8];
	struct hmm *hmm = *state;
	struct fake_cpu cpu;

	sixteen_blocks(hmm);
	assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(11 * 512 + 5), PAGE), 1);
	time_passes(5, 2000000);
	for (unsigned b = 0; b < 8; b++) {
		m[b] = (struct hmm_migrate){ .size = sizeof(m[b]), .devmem = away.vram.devmem,
					     .start = fake_addr(b * 512 + 5),
					     .end = fake_addr(b * 512 + 6),
					     .src = &src[b], .dst = &dst[b] };
		assert_int_equal(hmm_migrate_setup(&m[b]), 0);
		assert_int_equal(m[b].cpages, 1);
	}
	fake_cpu_read(&cpu, 11 * 512 + 5);
	time_passes(5, 1000000);
	assert_false(cpu.waiting);
	assert_int_equal(cpu.value, 1011);
	for (unsigned b = 0; b < 8; b++)
		hmm_migrate_finalize(&m[b]);
	vram_close(&away.vram);
	vram_close(&other);
}

/* A mapping of a coherent device that comes home while it moves, and something else comes in its place. */
static void coherent_and_moved_on(void **state)
{
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_COHERENT, .frames = 32 };
	struct fake_cpu hole, newcomer;
	struct hmm *hmm = *state;

	vram_open(&away.vram, hmm, &options);
	vram_open(&other, hmm, NULL);
	fake_map(10, 2, FAKE_ANON, RW);
	fake_map(60, 2, FAKE_ANON, RW);
	fake_write_page(10, 1010);
	fake_write_page(60, 1060);
	assert_int_equal(hmm_migrate_to_device(away.vram.devmem, fake_addr(10), 2 * PAGE), 2);
	assert_int_equal(hmm_migrate_to_device(other.devmem, fake_addr(60), 2 * PAGE), 2);
	away.vram.defer = true;
	post_home(hmm, 10, 2);
	fake.hold_queue = true;
	fake_remap(10, 30, 2, false);
	fake.hold_queue = false;
	fake_remap(60, 10, 2, false);
	fake_reader();
	away.vram.defer = false;
	vram_engine(&away.vram);
	time_passes(1, 1000000);
	fake_queue_all();
	time_passes(20, 1000000);
	fake_cpu_read(&hole, 31);
	fake_cpu_read(&newcomer, 10);
	time_passes(20, 100000000);
	assert_false(hole.waiting || newcomer.waiting);
	assert_int_equal(hole.value, 0);
	assert_int_equal(newcomer.value, 1060);
	hmm->pager->request[0].state = REQUEST_FREE;
	vram_close(&away.vram);
	vram_close(&other);
}

/* The reader's own descriptors are gone: nothing can come home, and nobody waits for that. */
static void a_blind_mirror_ends(void **state)
{
	struct hmm *hmm = *state;

	vram_open(&away.vram, hmm, NULL);
	fake_map(A, LEN, FAKE_ANON, RW);
	for (unsigned i = A; i < A + LEN; i++)
		fake_write_page(i, i);
	away_move(A, LEN);
	for (unsigned i = 0; i < CONTEXTS; i++)
		fake.ctx[i].lost = -EBADF;
	mirror_kill(hmm, "for a test");
	fake_refuse(FAKE_OP_MOVE, fake_addr(A), -EBADF, 1000);
	assert_int_equal(hmm_migrate_to_host(hmm, fake_addr(A), LEN * PAGE), -ENODEV);
	hmm_devmem_destroy(away.vram.devmem);
	for (unsigned i = 0; i < CONTEXTS; i++)
		fake.ctx[i].lost = 0;
	hmm_notifier_remove(away.vram.notifier);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
	const struct CMUnitTest tests[] = {
		TEST(a_driver_that_never_ends),
		TEST(a_driver_that_is_slow),
		TEST(a_fault_while_much_is_on_its_way),
		TEST(coherent_and_moved_on),
		TEST(a_blind_mirror_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
