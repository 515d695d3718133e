/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_migrate_duel - reader, worker, CPUs, a device and who migrates, each a thread.
 *
 * CPUs and device add to pages, wherever these are; one thread moves them to and fro,
 * another gives some up and maps others. What was added must be there in the end (G5). Under
 * ThreadSanitizer it is the test of what the pager shares with the others (L1, L2).
 */
#include "vram.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)
#define FIRST 16u
#define COUNT 32u /* pages that are added to */
#define SCRATCH 64u
#define SCRATCH_LEN 16u
#define RUN_NS UINT64_C(1500000000)

static struct vram vram;
static _Atomic uint64_t sums[COUNT];
static _Atomic bool over;
static _Atomic unsigned moved, refused;

static void *cpu_main(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (unsigned i = 0; !over; i++) {
		unsigned page = (seed * 7 + i * 5) % COUNT;

		fake_add_to_page(FIRST + page, 1);
		sums[page]++;
	}
	return NULL;
}

/* In its own memory without asking anybody, as long as it may. */
static void *device_main(void *arg)
{
	for (unsigned i = 0; !over; i++) {
		unsigned page = i * 3 % COUNT;
		struct vram_entry *e = &vram.entry[FIRST + page];

		if (i % 8 == 0)
			vram_look(&vram, FIRST, COUNT);
		pthread_mutex_lock(&vram.lock);
		if (e->valid && e->write && e->device) {
			if (vram.options.host_frames) {
				uintptr_t host = (uintptr_t)hmm_devmem_host(vram.devmem, e->frame);

				fake_lock();
				fake_store(host, fake_load(host) + 1);
				fake_unlock();
			} else {
				vram.frame[e->frame]++;
			}
			sums[page]++;
		}
		pthread_mutex_unlock(&vram.lock);
	}
	return NULL;
}

static void *scratch_main(void *arg)
{
	for (unsigned i = 0; !over; i++) {
		unsigned page = SCRATCH + i % SCRATCH_LEN;

		fake_write_page(page, 77);
		hmm_migrate_to_device(vram.devmem, fake_addr(page), PAGE);
		if (i % 3 == 0)
			fake_dontneed(page, 1);
		else
			fake_map(page, 1, FAKE_ANON, RW);
		fake_await_changes();
		if (fake_read_page(page))
			fake_fail("page %u has its old content again", page);
	}
	return NULL;
}

static void *mover_main(void *arg)
{
	for (unsigned i = 0; !over; i++) {
		unsigned page = i * 11 % COUNT, n = 1 + i % 8;
		int64_t answer;

		if (n > COUNT - page)
			n = COUNT - page;
		answer = hmm_migrate_to_device(vram.devmem, fake_addr(FIRST + page), n * PAGE);
		if (answer > 0)
			moved += (unsigned)answer;
		else if (answer == -EBUSY || answer == -ENOSPC)
			refused++;
		else if (answer < 0)
			fake_fail("to_device: %s", hmm_strerror((int)answer));
		if (i % 5 == 0)
			hmm_migrate_to_host(vram.hmm, fake_addr(FIRST), COUNT * PAGE);
		if (i % 7 == 0)
			hmm_devmem_evict(vram.devmem, 0, VRAM_FRAMES);
	}
	return NULL;
}

static void duel(bool host)
{
	static void *(*const mains[])(void *) = { cpu_main, cpu_main, device_main, scratch_main,
						  mover_main };
	struct hmm_devmem_options options = { .type = HMM_DEVMEM_PRIVATE, .frames = VRAM_FRAMES,
					      .host_frames = host };
	pthread_t threads[5];
	struct hmm *hmm;

	fake_reset();
	fake.threads = true;
	hmm = fake_open();
	over = false;
	moved = refused = 0;
	for (unsigned i = 0; i < COUNT; i++)
		sums[i] = 0;
	fake_map(FIRST, COUNT, FAKE_ANON, RW);
	fake_map(SCRATCH, SCRATCH_LEN, FAKE_ANON, RW);
	vram_open(&vram, hmm, &options);
	for (uintptr_t i = 0; i < 5; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, mains[i], (void *)i), 0);
	usleep(RUN_NS / 1000);
	over = true;
	for (unsigned i = 0; i < 5; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = 0; i < COUNT; i++)
		assert_int_equal(fake_read_page(FIRST + i), sums[i]);
	print_message("%u pages moved out, %u calls refused\n", moved, refused);
	assert_true(moved > 100);
	vram_close(&vram);
	fake_close(hmm);
	fake_reset();
}

static void with_frames_that_are_copied_to(void **state)
{
	duel(false);
}

static void with_host_frames(void **state)
{
	duel(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(with_frames_that_are_copied_to),
		cmocka_unit_test(with_host_frames),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
