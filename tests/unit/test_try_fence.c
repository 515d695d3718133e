/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_try_fence - hmm_try_fence(): each step of a change that is not delivered yet, and that it
 * waits at none of them (docs/gate.md, "Who may not wait").
 */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>

#define RW (PROT_READ | PROT_WRITE)
#define P 3u /* the page that everything happens to */

static struct device device;

/* G1, for those who may not wait: 0 is never said while an older change is not delivered. */
static void a_try_waits_for_nobody(void **state)
{
	struct hmm *hmm = *state;

	fake_map(0, 8, FAKE_ANON, RW);
	device_open(&device, hmm, 0, 0);
	assert_int_equal(device_fault(&device, P, 1, true), 0);
	assert_int_equal(hmm_try_fence(hmm, fake_addr(P), PAGE), 0);
	fake.hold_queue = true;
	fake_unmap(P, 1); /* it let go, and its message is not there yet */
	fake.hold_queue = false;
	fake_map(P, 1, FAKE_ANON, RW);
	assert_int_equal(hmm_try_fence(hmm, fake_addr(P), PAGE), -EAGAIN);
	fake_queue_all();
	assert_int_equal(hmm_try_fence(hmm, fake_addr(P), PAGE), -EAGAIN); /* unread */
	fake_reader();
	assert_true(device.entry[P].valid);
	assert_int_equal(hmm_try_fence(hmm, fake_addr(P), PAGE), -EAGAIN); /* read, not told */
	fake_settle();
	assert_false(device.entry[P].valid);
	assert_int_equal(hmm_try_fence(hmm, fake_addr(P), PAGE), 0);
	assert_int_equal(fake.calls[FAKE_OP_SLEEP] + fake.calls[FAKE_OP_WAIT], 0);

	assert_int_equal(device_fault(&device, P, 1, true), 0);
	fake_protect(P, 1, PROT_READ); /* a record, and no message */
	assert_int_equal(hmm_try_fence(hmm, fake_addr(P), PAGE), -EAGAIN);
	fake_settle();
	assert_int_equal(hmm_try_fence(hmm, fake_addr(P), PAGE), 0);
	assert_false(device.entry[P].write);

	assert_int_equal(hmm_try_fence(hmm, fake_addr(P), 0), 0);
	assert_int_equal(hmm_try_fence(hmm, UINTPTR_MAX - 5, 6), -EOVERFLOW);
	assert_int_equal(hmm_try_fence(NULL, 0, 1), -EINVAL);
	fake_forget();
	device_close(&device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_try_waits_for_nobody, fake_setup, fake_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
