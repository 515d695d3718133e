/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * test_log - what is said, where, and with whose argument.
 *
 * UHMM_LOG is read once in a process, so each case runs in a child. Its standard
 * error is a packet pipe: what one write(2) wrote, one read(2) gives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "util/log.h"

#define LINES 32
#define CHECK(condition) ((condition) ? (void)0 : bad(__LINE__, #condition))

/* In a child, where cmocka's assertions have no way out. */
static void bad(int line, const char *what)
{
	fprintf(stdout, "line %d: %s\n", line, what);
	fflush(stdout);
	_exit(1);
}

struct said {
	unsigned count;
	char line[LINES][1024];
};

/* Run `say` in a child with this UHMM_LOG (NULL: none) and collect what it writes. */
static void collect(const char *level, void (*say)(void), struct said *said)
{
	int fds[2], status;
	ssize_t length;
	pid_t pid;

	memset(said, 0, sizeof(*said));
	assert_int_equal(pipe2(fds, O_DIRECT), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		alarm(60);
		dup2(fds[1], STDERR_FILENO);
		if (level)
			setenv("UHMM_LOG", level, 1);
		else
			unsetenv("UHMM_LOG");
		say();
		_exit(0);
	}
	close(fds[1]);
	while (said->count < LINES) {
		length = read(fds[0], said->line[said->count], sizeof(said->line[0]) - 1);
		if (length <= 0)
			break;
		said->count++;
	}
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void say_each_level(void)
{
	hmm_log(HMM_LOG_ERROR, "e%d", 1);
	hmm_log(HMM_LOG_WARN, "w%d", 2);
	hmm_log(HMM_LOG_INFO, "i%d", 3);
	hmm_log(HMM_LOG_DEBUG, "d%d", 4);
	hmm_log((enum hmm_log_level)0, "none");
	hmm_log((enum hmm_log_level)5, "none");
}

static void silent_by_default(void **state)
{
	struct said said;

	collect(NULL, say_each_level, &said);
	assert_int_equal(said.count, 0);
	collect("", say_each_level, &said);
	assert_int_equal(said.count, 0);
}

static void up_to_the_level_asked(void **state)
{
	static const char *const level[] = { "error", "warn", "info", "debug" };
	static const char *const line[] = { "uhmm: error: e1\n", "uhmm: warn: w2\n",
					    "uhmm: info: i3\n", "uhmm: debug: d4\n" };
	struct said said;
	unsigned i, j;

	for (i = 0; i < 4; i++) {
		collect(level[i], say_each_level, &said);
		assert_int_equal(said.count, i + 1);
		for (j = 0; j <= i; j++)
			assert_string_equal(said.line[j], line[j]);
	}
}

static void an_unknown_level_is_said_once(void **state)
{
	struct said said;

	collect("verbose", say_each_level, &said);
	assert_int_equal(said.count, 1);
	assert_string_equal(said.line[0], "uhmm: error: UHMM_LOG=verbose is none of error, "
					  "warn, info, debug: ignored\n");
}

static void ask_what_is_wanted(void)
{
	CHECK(log_wants(HMM_LOG_ERROR) && log_wants(HMM_LOG_INFO));
	CHECK(!log_wants(HMM_LOG_DEBUG));
	CHECK(!log_wants((enum hmm_log_level)0));
	setenv("UHMM_LOG", "debug", 1); /* too late */
	CHECK(!log_wants(HMM_LOG_DEBUG));
}

static void dear_arguments_can_be_saved(void **state)
{
	struct said said;

	collect("info", ask_what_is_wanted, &said);
	assert_int_equal(said.count, 0);
}

static void say_odd_lines(void)
{
	char text[2000];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	hmm_log(HMM_LOG_WARN, "%s", text);
	hmm_log(HMM_LOG_WARN, "two\nlines\n");
	hmm_log(HMM_LOG_WARN, "%s", "");
	errno = ENOSPC;
	hmm_log(HMM_LOG_WARN, "%m");
	CHECK(errno == ENOSPC);
	close(STDERR_FILENO);
	hmm_log(HMM_LOG_WARN, "to nobody");
	CHECK(errno == ENOSPC);
}

static void a_line_is_one_line(void **state)
{
	struct said said;

	collect("warn", say_odd_lines, &said);
	assert_int_equal(said.count, 4);
	assert_int_equal(strlen(said.line[0]), strlen("uhmm: warn: ") + 511 + 1);
	assert_string_equal(said.line[0] + strlen("uhmm: warn: ") + 507, "x...\n");
	assert_string_equal(said.line[1], "uhmm: warn: two lines \n");
	assert_string_equal(said.line[2], "uhmm: warn: \n");
	assert_string_equal(said.line[3], "uhmm: warn: No space left on device\n");
}

/* ---- takers ---- */

struct taken {
	unsigned count;
	enum hmm_log_level level[LINES];
	char line[LINES][600];
};

static void take(void *arg, enum hmm_log_level level, const char *line)
{
	struct taken *taken = arg;

	taken->level[taken->count] = level;
	snprintf(taken->line[taken->count++], sizeof(taken->line[0]), "%s", line);
}

static void say_to_a_taker(void)
{
	static struct taken taken;
	char text[2000];

	hmm_set_log(take, &taken);
	CHECK(log_wants(HMM_LOG_WARN) && !log_wants(HMM_LOG_INFO));
	say_each_level();
	CHECK(taken.count == 2);
	CHECK(taken.level[0] == HMM_LOG_ERROR && !strcmp(taken.line[0], "e1"));
	CHECK(taken.level[1] == HMM_LOG_WARN && !strcmp(taken.line[1], "w2"));
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	hmm_log(HMM_LOG_WARN, "%s", text);
	CHECK(strlen(taken.line[2]) == 511 && !strcmp(taken.line[2] + 507, "x..."));
	hmm_set_log(NULL, NULL);
	CHECK(!log_wants(HMM_LOG_ERROR));
	say_each_level();
	CHECK(taken.count == 3);
}

static void say_to_a_taker_and_back(void)
{
	static struct taken taken;

	hmm_set_log(take, &taken);
	say_each_level();
	CHECK(taken.count == 1);
	hmm_set_log(NULL, &taken);
	say_each_level();
	CHECK(taken.count == 1);
}

static void say_everything_to_a_taker(void)
{
	static struct taken taken;

	hmm_set_log(take, &taken);
	say_each_level();
	CHECK(taken.count == 4);
}

static void a_taker_has_the_lines(void **state)
{
	struct said said;

	collect(NULL, say_to_a_taker, &said);
	assert_int_equal(said.count, 0);
	collect("error", say_to_a_taker_and_back, &said);
	assert_int_equal(said.count, 1);
	assert_string_equal(said.line[0], "uhmm: error: e1\n");
	collect("debug", say_everything_to_a_taker, &said);
	assert_int_equal(said.count, 0);
}

static void take_and_set(void *arg, enum hmm_log_level level, const char *line)
{
	unsigned *count = arg;

	if (++*count % 3)
		hmm_set_log(take_and_set, arg);
	else
		hmm_set_log(NULL, NULL);
}

static void say_to_one_that_sets(void)
{
	unsigned count = 0, i;

	for (i = 0; i < 100; i++) {
		hmm_set_log(take_and_set, &count);
		hmm_log(HMM_LOG_ERROR, "line");
	}
	CHECK(count == 100);
}

static void a_taker_that_sets_another_does_not_hang(void **state)
{
	struct said said;

	collect(NULL, say_to_one_that_sets, &said);
	assert_int_equal(said.count, 0);
}

/* ---- threads: four pairs; a function with another's argument is a torn pair ---- */

static int argument[4];
static unsigned torn, lines;
static bool stop;

#define TAKER(n)                                                                           \
	static void take_##n(void *arg, enum hmm_log_level level, const char *line)        \
	{                                                                                  \
		__atomic_fetch_add(&lines, 1, __ATOMIC_RELAXED);                           \
		if (arg != &argument[n])                                                   \
			__atomic_fetch_add(&torn, 1, __ATOMIC_RELAXED);                    \
	}
TAKER(0)
TAKER(1)
TAKER(2)
TAKER(3)

static const hmm_log_fn taker[] = { take_0, take_1, take_2, take_3 };

static void *set_in_turns(void *arg)
{
	unsigned i = 0;

	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		i = (i + 1) % 4;
		hmm_set_log(taker[i], &argument[i]);
	}
	return NULL;
}

/* A reader has to lose the CPU between two loads, so time counts, not rounds: without the
 * look at the stamp this fails in most runs. */
#define SECONDS 2

static void say_beside_setters(void)
{
	struct timespec now, until;
	unsigned i, said = 0;
	pthread_t thread[3];

	hmm_set_log(take_0, &argument[0]);
	for (i = 0; i < 3; i++)
		CHECK(!pthread_create(&thread[i], NULL, set_in_turns, NULL));
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += SECONDS;
	do {
		for (i = 0; i < 100; i++, said++)
			hmm_log(HMM_LOG_ERROR, "line");
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec < until.tv_sec ||
		 (now.tv_sec == until.tv_sec && now.tv_nsec < until.tv_nsec));
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	CHECK(lines == said);
	CHECK(!torn);
}

static void a_pair_is_never_torn(void **state)
{
	struct said said;

	collect(NULL, say_beside_setters, &said);
	assert_int_equal(said.count, 0);
}

static void fork_beside_setters(void)
{
	pthread_t thread[2];
	int i, status;
	pid_t pid;

	hmm_set_log(take_0, &argument[0]);
	for (i = 0; i < 2; i++)
		CHECK(!pthread_create(&thread[i], NULL, set_in_turns, NULL));
	for (i = 0; i < 60; i++) {
		pid = fork();
		CHECK(pid >= 0);
		if (!pid) {
			alarm(20);
			lines = 0;
			hmm_log(HMM_LOG_ERROR, "inherited");
			hmm_set_log(take_1, &argument[1]);
			hmm_log(HMM_LOG_ERROR, "its own");
			_exit(lines != 2 || torn);
		}
		CHECK(waitpid(pid, &status, 0) == pid && !status);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
}

static void a_child_forked_beside_setters_can_log(void **state)
{
	struct said said;

	collect(NULL, fork_beside_setters, &said);
	assert_int_equal(said.count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(silent_by_default),
		cmocka_unit_test(up_to_the_level_asked),
		cmocka_unit_test(an_unknown_level_is_said_once),
		cmocka_unit_test(dear_arguments_can_be_saved),
		cmocka_unit_test(a_line_is_one_line),
		cmocka_unit_test(a_taker_has_the_lines),
		cmocka_unit_test(a_taker_that_sets_another_does_not_hang),
		cmocka_unit_test(a_pair_is_never_torn),
		cmocka_unit_test(a_child_forked_beside_setters_can_log),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
