/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_range - what a range answers: hmm-reference B1 row by row, its errors (B2), its
 * masks (B4), and the driver's loop (A13, B5).
 */
#include "device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RW (PROT_READ | PROT_WRITE)
#define V HMM_PFN_VALID
#define W HMM_PFN_WRITE
#define E HMM_PFN_ERROR
#define FAULT HMM_PFN_REQ_FAULT
#define WRITE HMM_PFN_REQ_WRITE
#define FLAGS (V | W | E)

static struct device device;
static uint64_t pfns[1024];

static struct hmm_range range_of(struct hmm *hmm, unsigned page, unsigned n)
{
	memset(pfns, 0, sizeof(pfns));
	return (struct hmm_range){ .size = sizeof(struct hmm_range), .hmm = hmm,
				   .start = fake_addr(page), .end = fake_addr(page + n),
				   .pfns = pfns };
}

/* ---- B1, row by row ---- */

enum content { ABSENT, LOOKED, TOUCHED, GUARD, HOLE };

static const struct row {
	const char *what;
	enum fake_object_name object;
	int prot;
	enum content content;
	uint64_t snapshot;  /* FLAGS of the entry */
	int read;	    /* what a fault for reading returns ... */
	uint64_t read_gives;
	int write;	    /* ... and for writing */
	uint64_t write_gives;
} rows[] = {
	/* mapped and writable: VALID | WRITE, once it is the program's own page */
	{ "anon, touched", FAKE_ANON, RW, TOUCHED, V | W, 0, V | W, 0, V | W },
	{ "anon, absent", FAKE_ANON, RW, ABSENT, 0, 0, V, 0, V | W },
	{ "anon, zero page", FAKE_ANON, RW, LOOKED, V, 0, V, 0, V | W },
	{ "anon, read-only", FAKE_ANON, PROT_READ, LOOKED, V, 0, V, -EPERM, 0 },
	{ "anon, read-only, touched before", FAKE_ANON, PROT_READ, TOUCHED, V, 0, V, -EPERM,
	  0 },
	{ "PROT_NONE", FAKE_ANON, PROT_NONE, TOUCHED, E, -EFAULT, 0, -EFAULT, 0 },
	{ "write only", FAKE_ANON, PROT_WRITE, TOUCHED, E, -EFAULT, 0, -EFAULT, 0 },
	{ "hole", FAKE_ANON, RW, HOLE, E, -EFAULT, 0, -EFAULT, 0 },
	{ "guard page", FAKE_ANON, RW, GUARD, 0, -EFAULT, 0, -EFAULT, 0 },
	/* clean pages of a file: WRITE only after a write fault */
	{ "shared file, absent", FAKE_SHARED_FILE, RW, ABSENT, 0, 0, V, 0, V | W },
	{ "shared file, present", FAKE_SHARED_FILE, RW, TOUCHED, V, 0, V, 0, V | W },
	{ "shared file, read-only", FAKE_SHARED_FILE, PROT_READ, LOOKED, V, 0, V, -EPERM, 0 },
	{ "private file, page cache", FAKE_PRIVATE_FILE, RW, LOOKED, V, 0, V, 0, V | W },
	{ "private file, copied", FAKE_PRIVATE_FILE, RW, TOUCHED, V | W, 0, V | W, 0, V | W },
	{ "shmem", FAKE_SHMEM, RW, TOUCHED, V, 0, V, 0, V | W },
	{ "SysV", FAKE_SYSV, RW, TOUCHED, V, 0, V, 0, V | W },
	{ "DAX file", FAKE_DAX_FILE, RW, TOUCHED, V, 0, V, 0, V | W },
	{ "special", FAKE_SPECIAL, RW, ABSENT, E, -EFAULT, 0, -EFAULT, 0 },
};

static void prepare(const struct row *row, unsigned page)
{
	if (row->content != HOLE)
		fake_map(page, 1, row->object, RW);
	if (row->content == TOUCHED)
		fake_touch(page, 1);
	if (row->content == LOOKED)
		fake_look(page, 1);
	fake.page[page].guard = row->content == GUARD;
	if (row->content != HOLE)
		fake_protect(page, 1, row->prot);
}

static bool same(const struct row *row, const char *how, uint64_t got, uint64_t want)
{
	if ((got & FLAGS) == want)
		return true;
	print_error("%s, %s: %#llx, expected %#llx\n", row->what, how,
		    (unsigned long long)(got & FLAGS), (unsigned long long)want);
	return false;
}

static bool fault_row(struct hmm *hmm, const struct row *row, uint64_t request, int want,
		      uint64_t gives)
{
	struct hmm_range range = range_of(hmm, 10, 1);
	int err;

	prepare(row, 10);
	range.notifier = device.notifier;
	range.default_flags = request;
	pfns[0] = 0x123;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	err = hmm_range_fault(&range);
	fake_unmap(10, 1);
	fake_settle();
	if (err != want) {
		print_error("%s: %d, expected %d\n", row->what, err, want);
		return false;
	}
	if (!err)
		return same(row, request & WRITE ? "write" : "read", pfns[0], gives) &&
		       hmm_pfn_number(pfns[0]) == fake_addr(10) >> OS_PAGE_SHIFT;
	return pfns[0] == 0x123 && range.fault_addr == fake_addr(10) &&
	       range.fault_reason != HMM_REASON_NONE;
}

static void the_table(void **state)
{
	bool ok = true;

	device_open(&device, *state, 0, 0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct hmm_range range = range_of(*state, 10, 1);

		prepare(&rows[i], 10);
		range.notifier = device.notifier;
		assert_int_equal(hmm_notifier_read_begin(&range), 0);
		assert_int_equal(hmm_range_snapshot(&range), 0);
		ok &= same(&rows[i], "snapshot", pfns[0], rows[i].snapshot);
		if (pfns[0] & V)
			assert_true(hmm_pfn_number(pfns[0]) == fake_addr(10) >> OS_PAGE_SHIFT);
		fake_unmap(10, 1);
		fake_settle();
		ok &= fault_row(*state, &rows[i], FAULT, rows[i].read, rows[i].read_gives);
		ok &= fault_row(*state, &rows[i], FAULT | WRITE, rows[i].write,
				rows[i].write_gives);
	}
	assert_true(ok);
	device_close(&device);
}

/* The same snapshot without a notifier, but for what only registering finds out. */
static void a_look_gives_the_same(void **state)
{
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct hmm_range range = range_of(*state, 10, 1);

		prepare(&rows[i], 10);
		assert_int_equal(hmm_range_snapshot(&range), 0);
		if (rows[i].object != FAKE_SPECIAL)
			assert_true(same(&rows[i], "look", pfns[0], rows[i].snapshot));
		fake_shmdt(10, 1);
	}
	assert_int_equal(fake.calls[FAKE_OP_REGISTER], 0);
	assert_int_equal(((struct hmm *)*state)->gate[0].vmas, 0);
}

static void reasons(void **state)
{
	static const struct {
		unsigned page;
		uint64_t request;
		int err;
		enum hmm_reason reason;
		const char *text;
	} expect[] = {
		{ 20, FAULT, -EFAULT, HMM_REASON_NO_MAPPING, "no mapping" },
		{ 21, FAULT, -EFAULT, HMM_REASON_PROT_NONE, "PROT_NONE" },
		{ 22, FAULT | WRITE, -EPERM, HMM_REASON_READ_ONLY, "read-only" },
		{ 24, FAULT, -EFAULT, HMM_REASON_PAST_EOF, "past end of file" },
		{ 25, FAULT, -EFAULT, HMM_REASON_GUARD_OR_POISON, "guard page" },
		{ 26, FAULT, -EFAULT, HMM_REASON_SPECIAL, "device memory" },
	};

	device_open(&device, *state, 0, 0);
	fake_map(21, 1, FAKE_ANON, PROT_NONE);
	fake_map(22, 1, FAKE_ANON, PROT_READ);
	fake_map(23, 2, FAKE_SHARED_FILE, RW);
	fake_object[FAKE_SHARED_FILE].file_pages = 1;
	fake_map(25, 1, FAKE_ANON, RW);
	fake.page[25].guard = true;
	fake_map(26, 1, FAKE_SPECIAL, RW);
	for (unsigned i = 0; i < sizeof(expect) / sizeof(expect[0]); i++) {
		struct hmm_range range = range_of(*state, expect[i].page, 1);

		range.notifier = device.notifier;
		range.default_flags = expect[i].request;
		assert_int_equal(hmm_notifier_read_begin(&range), 0);
		assert_int_equal(hmm_range_fault(&range), expect[i].err);
		assert_int_equal(range.fault_reason, expect[i].reason);
		assert_true(range.fault_addr == range.start);
		assert_non_null(strstr(hmm_reason_text(range.fault_reason), expect[i].text));
		assert_non_null(strstr(hmm_strerror(expect[i].err), expect[i].text));
	}
	device_close(&device);
}

/* ---- B2 ---- */

static void bad_arguments(void **state)
{
	struct hmm_range range = range_of(*state, 10, 4), good = range;

	fake_map(0, 32, FAKE_ANON, RW);
	device_open(&device, *state, 10, 4);
	assert_int_equal(hmm_range_fault(NULL), -EINVAL);
	assert_int_equal(hmm_range_snapshot(NULL), -EINVAL);
	range.size--;
	assert_int_equal(hmm_range_fault(&range), -EINVAL);
	range = good, range.start++;
	assert_int_equal(hmm_range_snapshot(&range), -EINVAL);
	range = good, range.end -= 8;
	assert_int_equal(hmm_range_snapshot(&range), -EINVAL);
	range = good, range.end = range.start;
	assert_int_equal(hmm_range_fault(&range), -EINVAL);
	range = good, range.pfns = NULL;
	assert_int_equal(hmm_range_fault(&range), -EINVAL);
	range = good, range.hmm = NULL;
	assert_int_equal(hmm_range_fault(&range), -EINVAL);
	range = good, range.default_flags = WRITE;
	assert_int_equal(hmm_range_fault(&range), -EINVAL);
	range = good, range.pfn_flags_mask = WRITE | FAULT;
	pfns[3] = WRITE;
	assert_int_equal(hmm_range_fault(&range), -EINVAL);
	assert_true(pfns[0] == 0 && pfns[3] == WRITE);
	pfns[3] = 0;
	range = good, range.notifier = device.notifier, range.end += PAGE;
	assert_int_equal(hmm_range_fault(&range), -EINVAL);
	assert_int_equal(hmm_notifier_read_begin(&range), -EINVAL);
	range = good;
	assert_int_equal(hmm_range_program(&range, 0, &device.lock, NULL, NULL), -EINVAL);
	device_close(&device);
}

/* Entries at and past a failure keep their input; those before hold answers. */
static void a_hole_in_the_middle(void **state)
{
	struct hmm_range range = range_of(*state, 10, 9);

	device_open(&device, *state, 0, 0);
	fake_map(10, 3, FAKE_ANON, RW);
	fake_map(14, 5, FAKE_ANON, RW);
	range.notifier = device.notifier;
	range.default_flags = FAULT;
	for (unsigned i = 0; i < 9; i++)
		pfns[i] = 1000 + i;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_fault(&range), -EFAULT);
	assert_true(range.fault_addr == fake_addr(13));
	for (unsigned i = 0; i < 3; i++)
		assert_true((pfns[i] & V) &&
			    hmm_pfn_number(pfns[i]) == fake_addr(10 + i) >> OS_PAGE_SHIFT);
	for (unsigned i = 3; i < 9; i++)
		assert_true(pfns[i] == 1000 + i);
	/* Nothing is asked of the hole: it is an entry like others. */
	range.default_flags = 0;
	range.pfn_flags_mask = FAULT;
	for (unsigned i = 0; i < 9; i++)
		pfns[i] = i == 3 ? 0 : FAULT;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_fault(&range), 0);
	for (unsigned i = 0; i < 9; i++)
		assert_true((pfns[i] & FLAGS) == (i == 3 ? E : V));
	device_close(&device);
}

/* The failing page inside one VMA: found one by one. */
static void a_guard_page_in_the_middle(void **state)
{
	struct hmm_range range = range_of(*state, 10, 6);

	device_open(&device, *state, 0, 0);
	fake_map(10, 6, FAKE_ANON, RW);
	fake.page[14].guard = true;
	range.notifier = device.notifier;
	range.default_flags = FAULT | WRITE;
	pfns[5] = 77;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_fault(&range), -EFAULT);
	assert_true(range.fault_addr == fake_addr(14));
	assert_int_equal(range.fault_reason, HMM_REASON_GUARD_OR_POISON);
	assert_true(pfns[5] == 77);
	device_close(&device);
}

static int zap_13(void *arg)
{
	fake_dontneed(13, 1);
	fake_reader();
	return 0;
}

static int guard_11(void *arg)
{
	fake_dontneed(10, 2);
	fake_reader();
	fake.page[11].guard = true;
	return 0;
}

/* A page goes between populate and scan, so that it is looked at again: answers that are
 * there already are neither requests now nor taken for input. */
static void looked_at_again(void **state)
{
	struct hmm_range range = range_of(*state, 10, 6);
	int err;

	device_open(&device, *state, 0, 0);
	fake_map(10, 6, FAKE_ANON, RW);
	fake_touch(10, 3);
	range.notifier = device.notifier;
	range.pfn_flags_mask = FAULT | WRITE;
	pfns[1] = pfns[2] = pfns[3] = pfns[4] = FAULT;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	fake_at(FAKE_OP_POPULATE, FAKE_AFTER, -1, 1, zap_13, NULL);
	fake_at(FAKE_OP_POPULATE, FAKE_BEFORE, -1, 2, guard_11, NULL);
	err = hmm_range_fault(&range);
	if (err)
		for (unsigned i = fake_number(range.fault_addr) - 10; i < 6; i++)
			assert_true(pfns[i] == (i && i < 5 ? FAULT : 0));
	assert_int_equal(fake.page[10].flags, 0); /* nobody asked for it */
	device_close(&device);
}

static int no_memory(void *arg)
{
	return -ENOMEM;
}

static void memory_runs_out(void **state)
{
	device_open(&device, *state, 0, 0);
	fake_map(10, 2, FAKE_ANON, RW);
	fake_at(FAKE_OP_POPULATE, FAKE_BEFORE, -1, 0, no_memory, NULL);
	assert_int_equal(device_fault(&device, 10, 1, true), -ENOMEM);
	fake_forget();
	assert_int_equal(device_fault(&device, 10, 1, true), 0);
	device_close(&device);
}

/* Each VMA costs a second look when it is registered: many are not "changes all the time". */
static void a_range_of_many_vmas(void **state)
{
	device_open(&device, *state, 0, 0);
	for (unsigned i = 0; i < 100; i++)
		fake_map(100 + i, 1, FAKE_ANON, i & 1 ? RW : PROT_READ);
	assert_int_equal(device_fault(&device, 100, 100, false), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_true(device.entry[100 + i].valid);
	device_fence_is_sound(&device);
	device_close(&device);
}

/* ---- B4 ---- */

static void masks(void **state)
{
	struct hmm_range range = range_of(*state, 10, 6);

	device_open(&device, *state, 0, 0);
	fake_map(10, 6, FAKE_ANON, RW);
	fake_touch(15, 1);
	range.notifier = device.notifier;
	/* mask 0: entries are not requests */
	pfns[0] = FAULT | WRITE;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_fault(&range), 0);
	assert_true((pfns[0] & FLAGS) == 0 && (pfns[5] & FLAGS) == (V | W));
	/* each entry its own; what is not asked is reported as a snapshot would */
	memset(pfns, 0, sizeof(pfns));
	range.pfn_flags_mask = FAULT | WRITE;
	pfns[1] = FAULT;
	pfns[2] = FAULT | WRITE;
	assert_int_equal(hmm_range_fault(&range), 0);
	assert_true((pfns[0] & FLAGS) == 0 && (pfns[1] & FLAGS) == V);
	assert_true((pfns[2] & FLAGS) == (V | W) && (pfns[3] & FLAGS) == 0);
	/* default_flags on top; the mask lets only WRITE of an entry through */
	memset(pfns, 0, sizeof(pfns));
	range.pfn_flags_mask = WRITE;
	range.default_flags = FAULT;
	pfns[3] = WRITE;
	assert_int_equal(hmm_range_fault(&range), 0);
	assert_true((pfns[0] & FLAGS) == V && (pfns[3] & FLAGS) == (V | W));
	assert_true((pfns[4] & FLAGS) == V);
	device_close(&device);
}

static void dma_mapped_is_kept(void **state)
{
	struct hmm_range range = range_of(*state, 10, 3);

	device_open(&device, *state, 0, 0);
	fake_map(10, 2, FAKE_ANON, RW);
	fake_touch(10, 1);
	range.notifier = device.notifier;
	for (unsigned i = 0; i < 3; i++)
		pfns[i] = HMM_PFN_DMA_MAPPED | 5;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_snapshot(&range), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_true(pfns[i] & HMM_PFN_DMA_MAPPED);
	assert_true(hmm_pfn_number(pfns[0]) == fake_addr(10) >> OS_PAGE_SHIFT);
	assert_true((pfns[1] & ~HMM_PFN_DMA_MAPPED) == 0 && (pfns[2] & E));
	device_close(&device);
}

/* ---- kinds ---- */

static void orders(void **state)
{
	struct hmm_range range = range_of(*state, 512, 512);

	device_open(&device, *state, 0, 0);
	fake_map(512, 512, FAKE_HUGETLB, RW);
	range.notifier = device.notifier;
	range.default_flags = FAULT | WRITE;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_fault(&range), 0);
	for (unsigned i = 0; i < 512; i++)
		assert_true(hmm_pfn_order(pfns[i]) == 9 && (pfns[i] & FLAGS) == (V | W) &&
			    hmm_pfn_number(pfns[i]) == fake_addr(512 + i) >> OS_PAGE_SHIFT);
	/* A transparent huge page among small ones. */
	fake_map(1024, 513, FAKE_ANON, RW);
	fake_touch(1024, 513);
	for (unsigned i = 1024; i < 1536; i++)
		fake.page[i].flags |= OS_PAGE_HUGE;
	range = range_of(*state, 1024, 513);
	range.notifier = device.notifier;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	assert_int_equal(hmm_range_snapshot(&range), 0);
	assert_true(hmm_pfn_order(pfns[0]) == 9 && hmm_pfn_order(pfns[511]) == 9);
	assert_true(hmm_pfn_order(pfns[512]) == 0);
	device_close(&device);
}

static void dax_says_so(void **state)
{
	struct hmm_range range = range_of(*state, 10, 2);

	fake_map(10, 1, FAKE_DAX_FILE, RW);
	fake_map(11, 1, FAKE_SHARED_FILE, RW);
	fake_touch(10, 2);
	for (unsigned i = 0; i < 2; i++) { /* the second time from memory */
		memset(pfns, 0, sizeof(pfns));
		assert_int_equal(hmm_range_snapshot(&range), 0);
		assert_true((pfns[0] & HMM_PFN_KIND_MASK) == HMM_PFN_DAX);
		assert_true((pfns[1] & HMM_PFN_KIND_MASK) == HMM_PFN_SYSTEM);
	}
}

/* Runs more than one call's worth, and absent pages at every place. */
static void many_runs(void **state)
{
	struct hmm_range range = range_of(*state, 100, 1000);

	fake_map(100, 1000, FAKE_ANON, RW);
	for (unsigned i = 1; i < 999; i += 2)
		fake_touch(100 + i, 1);
	assert_int_equal(hmm_range_snapshot(&range), 0);
	for (unsigned i = 0; i < 1000; i++)
		assert_true((pfns[i] & FLAGS) == (i % 2 && i < 999 ? V | W : 0));
}

/* ---- the loop ---- */

struct call {
	unsigned times;
	int answer;
	unsigned change; /* pages changed under it the first times */
};

static int program(const struct hmm_range *range, void *arg)
{
	struct call *call = arg;

	call->times++;
	return call->answer;
}

static int change_and_tell(void *arg)
{
	unsigned *left = arg;

	if (*left) {
		--*left;
		fake_dontneed(10, 1);
		fake_settle();
	}
	return 0;
}

static void the_loop_retries(void **state)
{
	struct hmm_range range = range_of(*state, 10, 2);
	struct call call = { 0 };
	unsigned left = 5;

	device_open(&device, *state, 0, 0);
	fake_map(10, 2, FAKE_ANON, RW);
	range.notifier = device.notifier;
	range.pfn_flags_mask = FAULT | WRITE;
	pfns[0] = FAULT;
	pfns[1] = FAULT | WRITE;
	fake_at(FAKE_OP_SCAN, FAKE_AFTER, -1, 0, change_and_tell, &left);
	call.answer = 17;
	assert_int_equal(hmm_range_program(&range, 0, &device.lock, program, &call), 17);
	assert_int_equal(call.times, 1);
	assert_int_equal(left, 0);
	/* What program refused is as if it had not been asked. */
	assert_true(pfns[0] == FAULT && pfns[1] == (FAULT | WRITE));
	call.answer = 0;
	assert_int_equal(hmm_range_program(&range, 0, &device.lock, program, &call), 0);
	assert_true((pfns[0] & FLAGS) == V && (pfns[1] & FLAGS) == (V | W));
	device_close(&device);
}

static pthread_mutex_t busy_lock = PTHREAD_MUTEX_INITIALIZER;
static sem_t looked;

static int has_looked(void *arg)
{
	sem_post(&looked);
	return 0;
}

static int no_stale_answer(const struct hmm_range *range, void *arg)
{
	struct call *call = arg;

	call->times++;
	assert_false(hmm_notifier_read_retry(range));
	return 0;
}

static void *run_the_loop(void *arg)
{
	struct call call = { 0 };

	if (hmm_range_program(arg, 0, &busy_lock, no_stale_answer, &call))
		return NULL;
	return (void *)(uintptr_t)call.times;
}

/* It has its answer and waits for the driver's lock; meanwhile the driver is told. */
static void told_while_it_waits_for_the_lock(void **state)
{
	struct hmm_range range;
	pthread_t thread;
	void *times;

	fake_reset();
	fake.threads = true;
	*state = fake_open();
	sem_init(&looked, 0, 0);
	device_open(&device, *state, 0, 0);
	fake_map(10, 1, FAKE_ANON, RW);
	range = range_of(*state, 10, 1);
	range.notifier = device.notifier;
	range.default_flags = FAULT;
	assert_int_equal(device_fault(&device, 10, 1, false), 0);
	pthread_mutex_lock(&busy_lock);
	fake_at(FAKE_OP_SCAN, FAKE_AFTER, -1, 0, has_looked, NULL);
	assert_int_equal(pthread_create(&thread, NULL, run_the_loop, &range), 0);
	sem_wait(&looked);
	usleep(20000); /* to the lock */
	fake_dontneed(10, 1);
	assert_int_equal(hmm_notifier_fence(device.notifier), 0);
	pthread_mutex_unlock(&busy_lock);
	pthread_join(thread, &times);
	assert_true(times == (void *)1);
	fake_forget();
	device_close(&device);
	sem_destroy(&looked);
}

static void the_loop_gives_up(void **state)
{
	struct hmm_range range = range_of(*state, 10, 2);
	unsigned left = UINT32_MAX;
	struct call call = { 0 };
	uint64_t began = fake.clock;

	device_open(&device, *state, 0, 0);
	fake_map(10, 2, FAKE_ANON, RW);
	range.notifier = device.notifier;
	range.default_flags = FAULT;
	pfns[0] = 1, pfns[1] = 2;
	fake_at(FAKE_OP_SCAN, FAKE_AFTER, -1, 0, change_and_tell, &left);
	assert_int_equal(hmm_range_program(&range, 50, &device.lock, program, &call), -EBUSY);
	assert_int_equal(call.times, 0);
	assert_true(pfns[0] == 1 && pfns[1] == 2);
	assert_true(fake.clock - began >= 50000000 && fake.clock - began < 60000000);
	began = fake.clock;
	assert_int_equal(hmm_range_program(&range, 0, &device.lock, program, &call), -EBUSY);
	assert_true(fake.clock - began >= HMM_RANGE_DEFAULT_TIMEOUT * UINT64_C(1000000));
	fake_forget();
	assert_int_equal(hmm_range_program(&range, 50, &device.lock, program, &call), 0);
	device_close(&device);
}

/* A failure is not retried, and the lock is free afterwards. */
static void the_loop_fails(void **state)
{
	struct hmm_range range = range_of(*state, 10, 2);
	struct call call = { 0 };

	device_open(&device, *state, 0, 0);
	fake_map(10, 1, FAKE_ANON, RW);
	range.notifier = device.notifier;
	range.default_flags = FAULT;
	pfns[1] = 9;
	assert_int_equal(hmm_range_program(&range, 0, &device.lock, program, &call), -EFAULT);
	assert_true(range.fault_addr == fake_addr(11) && pfns[1] == 9);
	assert_int_equal(call.times, 0);
	assert_int_equal(pthread_mutex_trylock(&device.lock), 0);
	pthread_mutex_unlock(&device.lock);
	device_close(&device);
}

/* ---- a hole that is none: an mremap puts another mapping in the place of this one ---- */

static int takes_away(void *arg)
{
	fake.page[*(unsigned *)arg].mapped = false;
	return 0;
}

static int puts_back(void *arg)
{
	fake.page[*(unsigned *)arg].mapped = true;
	return 0;
}

/* The nth (0: each) look at the mappings sees none at a page. */
static void hide(enum fake_op op, unsigned nth, unsigned *page)
{
	fake_at(op, FAKE_BEFORE, -1, nth, takes_away, page);
	fake_at(op, FAKE_AFTER, -1, nth, puts_back, page);
}

static void no_hole(void **state)
{
	struct hmm_range range = range_of(*state, 10, 6);
	unsigned page = 12;

	device_open(&device, *state, 0, 0);
	fake_map(12, 1, FAKE_ANON, RW);
	fake_map(14, 2, FAKE_ANON, RW);
	/* A fault of the page; and one of others, of which two are in a hole indeed. */
	hide(FAKE_OP_FIND_FAST, 1, &page);
	assert_int_equal(device_fault(&device, 12, 1, true), 0);
	assert_true(device.entry[12].write);
	range.notifier = device.notifier;
	range.pfn_flags_mask = FAULT;
	pfns[2] = pfns[5] = FAULT;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	hide(FAKE_OP_FIND_FAST, 1, &page);
	assert_int_equal(hmm_range_fault(&range), 0);
	assert_true((pfns[0] & FLAGS) == E && (pfns[1] & FLAGS) == E && (pfns[3] & FLAGS) == E);
	assert_true((pfns[2] & FLAGS) == (V | W) && (pfns[5] & FLAGS) == V);
	/* Nor for a look. */
	range = range_of(*state, 12, 1);
	hide(FAKE_OP_FIND_FAST, 1, &page);
	assert_int_equal(hmm_range_snapshot(&range), 0);
	assert_true((pfns[0] & FLAGS) == (V | W));
	device_close(&device);
}

static int unmaps_10(void *arg)
{
	fake_unmap(10, 1);
	return 0;
}

static int counts(const struct hmm_run *run, void *arg)
{
	*(uintptr_t *)arg += run->end - run->start;
	return 0;
}

static void no_hole_in_runs(void **state)
{
	struct hmm *hmm = *state;
	uintptr_t bytes = 0, end = fake_addr(20);
	unsigned page = 12;

	fake_map(12, 1, FAKE_ANON, RW);
	fake_map(14, 2, FAKE_ANON, RW);
	for (unsigned nth = 1; nth <= 3; nth++) {
		hide(FAKE_OP_FIND, nth, &page);
		bytes = 0;
		assert_int_equal(hmm_snapshot_runs(hmm, fake_addr(10), end, 0, counts, &bytes), 0);
		assert_int_equal(bytes, 3 * PAGE);
		fake_forget();
	}
	hide(FAKE_OP_FIND, 0, &page);
	assert_int_equal(hmm_snapshot_runs(hmm, fake_addr(10), end, 0, counts, &bytes), -EBUSY);
	fake_forget();
	assert_int_equal(hmm_snapshot_runs(hmm, fake_addr(16), end, 0, counts, &bytes), 0);
}

/* It was one when the address space was locked, whatever comes there afterwards. */
static void a_hole_indeed(void **state)
{
	struct hmm_range range = range_of(*state, 10, 1);
	unsigned page = 10;

	fake_map(10, 1, FAKE_ANON, RW);
	range.default_flags = FAULT;
	hide(FAKE_OP_FIND_FAST, 1, &page);
	fake_at(FAKE_OP_SCAN, FAKE_BEFORE, -1, 1, unmaps_10, NULL);
	fake_at(FAKE_OP_SCAN, FAKE_AFTER, -1, 1, puts_back, &page);
	assert_int_equal(hmm_range_fault(&range), -EFAULT);
	assert_true(range.fault_addr == fake_addr(10));
	assert_int_equal(range.fault_reason, HMM_REASON_NO_MAPPING);
}

static void never_settles(void **state)
{
	struct hmm_range range = range_of(*state, 10, 1);
	struct call call = { 0 };
	unsigned page = 10;

	device_open(&device, *state, 0, 0);
	fake_map(10, 1, FAKE_ANON, RW);
	range.notifier = device.notifier;
	range.default_flags = FAULT;
	assert_int_equal(hmm_notifier_read_begin(&range), 0);
	hide(FAKE_OP_FIND_FAST, 0, &page);
	assert_int_equal(hmm_range_fault(&range), -EBUSY);
	assert_int_equal(hmm_range_program(&range, 50, &device.lock, program, &call), -EBUSY);
	assert_int_equal(call.times, 0);
	fake_forget();
	assert_int_equal(hmm_range_program(&range, 50, &device.lock, program, &call), 0);
	device_close(&device);
}

/* What lies above says neither why a page cannot be had nor what kind of memory it is. */
static void not_the_next_one(void **state)
{
	struct hmm_range range = range_of(*state, 10, 1);
	unsigned page = 10;

	fake_map(10, 1, FAKE_ANON, RW);
	fake_map(11, 1, FAKE_SPECIAL, PROT_READ);
	fake.page[10].guard = true;
	range.default_flags = FAULT;
	hide(FAKE_OP_FIND, 1, &page);
	assert_int_equal(hmm_range_fault(&range), -EFAULT);
	assert_int_equal(range.fault_reason, HMM_REASON_GUARD_OR_POISON);
	fake.page[10].guard = false;
	fake_protect(10, 1, PROT_READ);
	hide(FAKE_OP_FIND, 1, &page);
	assert_int_equal(hmm_range_fault(&range), 0);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, fake_setup, fake_teardown)
#define NO_PERF(test) cmocka_unit_test_setup_teardown(test, fake_setup_no_perf, fake_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_table),
		NO_PERF(the_table),
		TEST(a_look_gives_the_same),
		TEST(reasons),
		TEST(bad_arguments),
		TEST(a_hole_in_the_middle),
		TEST(a_guard_page_in_the_middle),
		TEST(looked_at_again),
		TEST(memory_runs_out),
		TEST(a_range_of_many_vmas),
		TEST(masks),
		TEST(dma_mapped_is_kept),
		TEST(orders),
		TEST(dax_says_so),
		TEST(many_runs),
		TEST(the_loop_retries),
		cmocka_unit_test_teardown(told_while_it_waits_for_the_lock, fake_teardown),
		TEST(the_loop_gives_up),
		TEST(the_loop_fails),
		TEST(no_hole),
		TEST(no_hole_in_runs),
		TEST(a_hole_indeed),
		TEST(never_settles),
		TEST(not_the_next_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
