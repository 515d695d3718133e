/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_arena - blocks, mappings, and the table of what the library owns: beside
 * threads that change it, and in a child that forked in the middle of a change.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "util/arena.h"

#define PAGE ((size_t)4096)
#define TABLE 4096
#define SYS_MSEAL 462 /* Linux 6.10; newer than our headers */

static bool all_are(const unsigned char *memory, size_t size, unsigned char byte)
{
	size_t i;

	for (i = 0; i < size; i++)
		if (memory[i] != byte)
			return false;
	return true;
}

static bool owns(const void *memory, size_t size)
{
	return arena_owns((uintptr_t)memory, (uintptr_t)memory + size);
}

static void blocks_are_zeroed_aligned_and_owned(void **state)
{
	struct arena *arena = arena_create();
	unsigned char *memory;
	unsigned round;
	size_t size;

	assert_non_null(arena);
	for (round = 0; round < 2; round++) /* the second time from what was freed */
		for (size = 0; size < 70000; size += 1 + size / 3) {
			memory = arena_alloc(arena, size);
			assert_non_null(memory);
			assert_int_equal((uintptr_t)memory % 64, 0);
			assert_true(all_are(memory, size, 0));
			assert_true(owns(memory, size + !size));
			memset(memory, 0xa5, size);
			arena_free(arena, memory, size);
		}
	arena_free(arena, NULL, 100);
	arena_destroy(arena);
	arena_destroy(NULL);
}

static void blocks_do_not_overlap(void **state)
{
	struct arena *arena = arena_create();
	unsigned char *memory[600];
	size_t size[600], i;
	unsigned round;

	assert_non_null(arena);
	memset(memory, 0, sizeof(memory));
	for (round = 0; round < 3; round++) {
		/* all; every second; every third */
		for (i = round; i < 600; i += 1 + round) {
			arena_free(arena, memory[i], memory[i] ? size[i] : 0);
			size[i] = (i * 7919 + round * 31) % 36000;
			memory[i] = arena_alloc(arena, size[i]);
			assert_non_null(memory[i]);
			memset(memory[i], (int)i, size[i]);
		}
		for (i = 0; i < 600; i++)
			assert_true(all_are(memory[i], size[i], (unsigned char)i));
	}
	arena_destroy(arena);
}

static void a_destroyed_arena_owns_nothing(void **state)
{
	struct arena *arena = arena_create();
	void *small, *big;

	assert_non_null(arena);
	small = arena_alloc(arena, 100);
	big = arena_alloc(arena, 1 << 20);
	assert_true(owns(small, 1));
	assert_true(owns(big, 1 << 20));
	assert_true(owns(arena, 1));
	arena_free(arena, big, 1 << 20);
	assert_false(owns(big, 1 << 20));
	arena_destroy(arena);
	assert_false(owns(small, 1));
	assert_false(owns(arena, 1));
}

static unsigned count_vmas(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned lines = 0;
	int byte;

	assert_non_null(maps);
	while ((byte = fgetc(maps)) != EOF)
		lines += byte == '\n';
	fclose(maps);
	return lines;
}

static void many_objects_need_few_mappings(void **state)
{
	struct arena *arena = arena_create();
	unsigned before = count_vmas(), after, i;

	assert_non_null(arena);
	for (i = 0; i < 100000; i++)
		assert_non_null(arena_alloc(arena, 1024));
	after = count_vmas();
	print_message("100,000 blocks of 1 KiB: %u more VMAs\n", after - before);
	assert_true(after - before <= 40);
	arena_destroy(arena);
}

/* The VMA that holds an address; false: none. */
static bool vma_at(uintptr_t address, uintptr_t *start, uintptr_t *end)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	bool found = false;
	unsigned long from, to;

	assert_non_null(maps);
	while (!found && fgets(line, sizeof(line), maps)) {
		found = sscanf(line, "%lx-%lx", &from, &to) == 2 && from <= address &&
			address < to;
		*start = from;
		*end = to;
	}
	fclose(maps);
	return found;
}

/* A VMA is registered as a whole: merged with ours the program's could not be. */
static void mappings_do_not_merge_with_the_programs(void **state)
{
	char *ours[8], *theirs[8];
	uintptr_t start, end;
	unsigned i;

	for (i = 0; i < 8; i++) {
		theirs[i] = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		ours[i] = arena_map(5 * PAGE - 100);
		assert_ptr_not_equal(theirs[i], MAP_FAILED);
		assert_non_null(ours[i]);
	}
	for (i = 0; i < 8; i++) {
		assert_true(vma_at((uintptr_t)ours[i], &start, &end));
		assert_int_equal(start, (uintptr_t)ours[i]);
		assert_int_equal(end, start + 5 * PAGE);
		assert_true(arena_owns(start, end));
		assert_true(vma_at((uintptr_t)theirs[i], &start, &end));
		assert_false(arena_owns(start, end));
	}
	for (i = 0; i < 8; i++) {
		arena_unmap(ours[i], 5 * PAGE - 100);
		munmap(theirs[i], 3 * PAGE);
		/* the guard pages went too */
		assert_false(vma_at((uintptr_t)ours[i] - 1, &start, &end) &&
			     start == (uintptr_t)ours[i] - PAGE);
	}
	arena_unmap(NULL, 0);
}

/* In a child, which takes the sealed mapping with it when it ends. */
static void what_cannot_be_unmapped_stays_ours(void **state)
{
	enum { STAYED, LOST, NO_MSEAL, NO_MEMORY };
	pid_t pid = fork();
	char *memory;
	int status;

	assert_true(pid >= 0);
	if (!pid) {
		memory = arena_map(PAGE);
		if (!memory)
			_exit(NO_MEMORY);
		if (syscall(SYS_MSEAL, memory, PAGE, 0ul))
			_exit(NO_MSEAL);
		arena_unmap(memory, PAGE);
		_exit(owns(memory, 1) ? STAYED : LOST);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_MSEAL) {
		print_message("this kernel has no mseal\n");
		skip();
	}
	assert_int_equal(status, STAYED);
}

static void adopting_and_disowning(void **state)
{
	uintptr_t base = UINT64_C(1) << 40, i;

	assert_int_equal(arena_adopt(base, base), -EINVAL);
	assert_int_equal(arena_adopt(base + 1, base), -EINVAL);
	assert_int_equal(arena_adopt(0, base), -EINVAL);
	assert_int_equal(arena_adopt(base, base + 10), 0);
	assert_true(arena_owns(base, base + 1));
	assert_true(arena_owns(base + 9, base + 10));
	assert_true(arena_owns(0, UINTPTR_MAX));
	assert_true(arena_owns(base - 1, base + 11));
	assert_false(arena_owns(base - 1, base));
	assert_false(arena_owns(base + 10, base + 11));
	assert_false(arena_owns(base + 5, base + 5));
	arena_disown(base, base + 9); /* not what was adopted */
	arena_disown(base + 1, base + 10);
	assert_true(arena_owns(base, base + 1));
	arena_disown(base, base + 10);
	assert_false(arena_owns(base, base + 10));

	for (i = 0; i < TABLE; i++)
		assert_int_equal(arena_adopt(base + i * 16, base + i * 16 + 8), 0);
	assert_int_equal(arena_adopt(base - 8, base), -ENOSPC);
	assert_null(arena_create());
	assert_true(arena_owns(base + (TABLE - 1) * 16, base + TABLE * 16));
	assert_false(arena_owns(base + 8, base + 16));
	arena_disown(base + 160, base + 168);
	assert_int_equal(arena_adopt(base - 8, base), 0);
	arena_disown(base - 8, base);
	for (i = 0; i < TABLE; i++)
		arena_disown(base + i * 16, base + i * 16 + 8);
	assert_false(arena_owns(base, base + TABLE * 16));
}

static void memory_limit(rlim_t soft)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_AS, &limit), 0);
	limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
}

static void without_memory(void **state)
{
	struct arena *arena = arena_create(), *other;
	void *big, *small, *last = NULL;

	assert_non_null(arena);
	assert_null(arena_alloc(arena, SIZE_MAX));
	assert_null(arena_alloc(arena, SIZE_MAX - 100));
	assert_null(arena_map(SIZE_MAX - PAGE));
	memory_limit(4096);
	other = arena_create();
	big = arena_alloc(arena, 40000);
	while ((small = arena_alloc(arena, 32768)))
		last = small;
	memory_limit(RLIM_INFINITY);
	assert_null(other);
	assert_null(big);
	assert_non_null(last);
	/* what is freed can be had again; and with memory all goes on */
	arena_free(arena, last, 32768);
	memory_limit(4096);
	small = arena_alloc(arena, 30000);
	memory_limit(RLIM_INFINITY);
	assert_ptr_equal(small, last);
	assert_non_null(arena_alloc(arena, 32768));
	arena_destroy(arena);
}

/* ---- threads ---- */

struct job {
	struct arena *arena;
	unsigned number;
	bool stop;
	uint64_t rounds, wrong;
};

static void *allocate_and_free(void *arg)
{
	struct job *job = arg;
	unsigned char *memory[16] = { NULL };
	size_t size[16] = { 0 };
	unsigned i, at;

	for (i = 0; i < 20000; i++) {
		at = i % 16;
		if (memory[at] &&
		    !all_are(memory[at], size[at], (unsigned char)job->number))
			job->wrong++;
		arena_free(job->arena, memory[at], size[at]);
		size[at] = 1 + (i * 37) % (i % 500 ? 700 : 50000);
		memory[at] = arena_alloc(job->arena, size[at]);
		if (!memory[at] || !all_are(memory[at], size[at], 0)) {
			job->wrong++;
			return NULL;
		}
		memset(memory[at], (int)job->number, size[at]);
	}
	return NULL;
}

static void threads_share_an_arena(void **state)
{
	struct arena *arena = arena_create();
	struct job job[4];
	pthread_t thread[4];
	unsigned i;

	assert_non_null(arena);
	for (i = 0; i < 4; i++) {
		job[i] = (struct job){ .arena = arena, .number = i + 1 };
		assert_int_equal(
			pthread_create(&thread[i], NULL, allocate_and_free, &job[i]), 0);
	}
	for (i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		assert_true(job[i].wrong == 0);
	}
	arena_destroy(arena);
}

/*
 * Two ranges, far apart, that go through the same slot. A start of the one with the
 * end of the other would own GAP, which nobody ever adopts.
 */
#define LOW (UINT64_C(1) << 42)
#define HIGH (UINT64_C(3) << 42)
#define GAP (UINT64_C(2) << 42)
#define STEADY (UINT64_C(5) << 42)

static void *adopt_in_turns(void *arg)
{
	struct job *job = arg;

	while (!__atomic_load_n(&job->stop, __ATOMIC_ACQUIRE)) {
		uintptr_t at = (job->rounds++ & 1 ? HIGH : LOW) + job->number * PAGE;

		if (arena_adopt(at, at + PAGE) || !arena_owns(at, at + PAGE))
			job->wrong++;
		arena_disown(at, at + PAGE);
		if (arena_owns(at, at + PAGE))
			job->wrong++;
	}
	return NULL;
}

static void adopters_start(struct job *job, pthread_t *thread, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		job[i] = (struct job){ .number = i };
		assert_int_equal(pthread_create(&thread[i], NULL, adopt_in_turns, &job[i]),
				 0);
	}
}

static void adopters_stop(struct job *job, pthread_t *thread, unsigned count)
{
	unsigned i;

	for (i = 0; i < count; i++) {
		__atomic_store_n(&job[i].stop, true, __ATOMIC_RELEASE);
		pthread_join(thread[i], NULL);
		assert_true(job[i].wrong == 0);
		assert_true(job[i].rounds > 0);
	}
}

/* A question has to lose the CPU between two loads, so time counts, not rounds: without the
 * second look at the start this fails in most runs. */
#define SECONDS 2

static void questions_beside_adopters(void **state)
{
	struct timespec now, until;
	struct job job[3];
	pthread_t thread[3];
	unsigned i, missed = 0, torn = 0;

	assert_int_equal(arena_adopt(STEADY, STEADY + PAGE), 0);
	adopters_start(job, thread, 3);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += SECONDS;
	do {
		for (i = 0; i < 1000; i++) {
			missed += !arena_owns(STEADY + 1, STEADY + 2);
			torn += arena_owns(GAP, GAP + PAGE);
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < until.tv_sec ||
		 (now.tv_sec == until.tv_sec && now.tv_nsec < until.tv_nsec));
	adopters_stop(job, thread, 3);
	arena_disown(STEADY, STEADY + PAGE);
	assert_int_equal(missed, 0);
	assert_int_equal(torn, 0);
}

/* In the child; nothing here may wait for a thread that is not there. 0: all is well. */
static int child_checks(struct arena *inherited, void *block)
{
	struct arena *own;
	void *memory;

	if (!arena_owns(STEADY, STEADY + PAGE) || !owns(block, 1))
		return 1;
	if (arena_adopt(GAP, GAP + PAGE) || !arena_owns(GAP, GAP + 1))
		return 2;
	arena_disown(GAP, GAP + PAGE);
	if (arena_owns(GAP, GAP + 1))
		return 3;
	own = arena_create();
	memory = own ? arena_alloc(own, 100) : NULL;
	if (!memory || !owns(memory, 100))
		return 4;
	arena_destroy(inherited);
	if (owns(block, 1) || !owns(memory, 1))
		return 5;
	arena_destroy(own);
	return 0;
}

static void forks_beside_adopters(void **state)
{
	struct arena *arena = arena_create();
	struct job job[2];
	pthread_t thread[2];
	int i, status;
	void *block;
	pid_t pid;

	assert_non_null(arena);
	block = arena_alloc(arena, 1000);
	assert_non_null(block);
	assert_int_equal(arena_adopt(STEADY, STEADY + PAGE), 0);
	adopters_start(job, thread, 2);
	for (i = 0; i < 100; i++) {
		pid = fork();
		assert_true(pid >= 0);
		if (!pid) {
			alarm(20);
			_exit(child_checks(arena, block));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
	adopters_stop(job, thread, 2);
	arena_disown(STEADY, STEADY + PAGE);
	arena_destroy(arena);
}

static void *asks_without_waiting(void *arg)
{
	void **got = arg;

	arena_never_wait();
	got[0] = arena_map(PAGE);
	arena_unmap(got[1], PAGE); /* it stays, and stays ours */
	return NULL;
}

/* Who does not wait goes without; a child finds the lock free. */
static void mappings_change_one_at_a_time(void **state)
{
	void *got[2] = { &got, arena_map(PAGE) };
	pthread_t thread;
	int status;
	pid_t pid;

	assert_non_null(got[1]);
	assert_true(arena_changing());
	assert_int_equal(pthread_create(&thread, NULL, asks_without_waiting, got), 0);
	pthread_join(thread, NULL);
	assert_null(got[0]);
	assert_true(owns(got[1], PAGE));
	*(volatile char *)got[1] = 1;
	pid = fork();
	if (!pid) {
		alarm(10);
		_exit(arena_map(PAGE) ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	arena_changed();
	arena_unmap(got[1], PAGE);
	assert_false(owns(got[1], PAGE));
}

/* The edges are ours, too: what lies beside us is not registered across them. */
static void edges_are_owned(void **state)
{
	char *memory = arena_map(3 * PAGE), *reserved;
	uintptr_t start, end;

	assert_non_null(memory);
	assert_true(owns(memory - PAGE, PAGE) && owns(memory + 3 * PAGE, PAGE));
	/* A reservation that comes beside it stays a mapping of its own. */
	reserved = mmap(memory - 3 * PAGE, 2 * PAGE, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (reserved == memory - 3 * PAGE) {
		assert_true(vma_at((uintptr_t)reserved, &start, &end));
		assert_int_equal(end, (uintptr_t)memory - PAGE);
	}
	if (reserved != MAP_FAILED)
		munmap(reserved, 2 * PAGE);
	arena_unmap(memory, 3 * PAGE);
	assert_false(owns(memory - PAGE, 5 * PAGE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_are_zeroed_aligned_and_owned),
		cmocka_unit_test(blocks_do_not_overlap),
		cmocka_unit_test(a_destroyed_arena_owns_nothing),
		cmocka_unit_test(many_objects_need_few_mappings),
		cmocka_unit_test(mappings_do_not_merge_with_the_programs),
		cmocka_unit_test(what_cannot_be_unmapped_stays_ours),
		cmocka_unit_test(without_memory),
		cmocka_unit_test(threads_share_an_arena),
		cmocka_unit_test(questions_beside_adopters),
		cmocka_unit_test(forks_beside_adopters),
		/* last: afterwards every slot has been in use, and questions look at all */
		cmocka_unit_test(adopting_and_disowning),
		cmocka_unit_test(mappings_change_one_at_a_time),
		cmocka_unit_test(edges_are_owned),
	};

	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
