/* SPDX-License-Identifier: LGPL-2.1-or-later OR BSD-2-Clause */
/*
 * log - where a line goes: nowhere, to standard error, or to the program's taker.
 *
 * Model: the taker is a pair (fn, arg) in one of a few slots, each stamped with a
 * ticket; `current` names the ticket of the one in force, 0 none.
 *
 * Laws:
 * 1. A slot in force is not written, so that a line sees a pair that was set as one:
 *    a writer takes a slot that is neither in force nor being written, fills it in and
 *    only then puts its ticket into `current`. A reader whose slot was taken again
 *    meanwhile sees another stamp and reads anew.
 * 2. There is no lock: the child of a fork in the middle of hmm_set_log() loses that
 *    slot and no more, and a taker that sets another taker cannot deadlock.
 * 3. errno is the caller's: a line on the way to a failing return leaves it as it was.
 *
 * Locks: none.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/log.h"

#define TAKERS 16
#define BUSY ((uint64_t)1) /* in a stamp: being written; the ticket is above it */
#define LINE 512
#define LEVEL_UNREAD (-1)
#define LEVEL_UNSET 0 /* no UHMM_LOG */

struct taker {
	uint64_t stamp;
	hmm_log_fn fn;
	void *arg;
};

static struct taker takers[TAKERS];
static uint64_t tickets, current;
static int env_level = LEVEL_UNREAD;

static const char *const level_name[] = {
	[HMM_LOG_ERROR] = "error",
	[HMM_LOG_WARN] = "warn",
	[HMM_LOG_INFO] = "info",
	[HMM_LOG_DEBUG] = "debug",
};

/* To standard error. A line that cannot be written is lost: there is nobody to tell. */
static void line_write(const char *level, const char *text)
{
	char line[LINE + 16]; /* what stands in front takes 13 bytes at most */
	int saved = errno;
	int length = snprintf(line, sizeof(line), "uhmm: %s: %s\n", level, text);

	assert(length > 0 && (size_t)length < sizeof(line));
	if (write(STDERR_FILENO, line, (size_t)length) < 0)
		errno = saved; /* law 3 */
}

/* UHMM_LOG, read once. A word that it does not know is said, once. */
static int level_from_env(void)
{
	int level = __atomic_load_n(&env_level, __ATOMIC_RELAXED), found = LEVEL_UNSET, i;
	const char *text;
	char line[LINE];

	if (level != LEVEL_UNREAD)
		return level;
	text = getenv("UHMM_LOG");
	for (i = HMM_LOG_ERROR; text && i <= HMM_LOG_DEBUG; i++)
		if (!strcmp(text, level_name[i]))
			found = i;
	if (!__atomic_compare_exchange_n(&env_level, &level, found, false, __ATOMIC_RELAXED,
					 __ATOMIC_RELAXED))
		return level; /* another thread was first, and has said it */
	if (text && *text && found == LEVEL_UNSET) {
		snprintf(line, sizeof(line),
			 "UHMM_LOG=%s is none of error, warn, info, debug: ignored", text);
		line_write(level_name[HMM_LOG_ERROR], line);
	}
	return found;
}

void hmm_set_log(hmm_log_fn fn, void *arg)
{
	struct taker *taker;
	uint64_t ticket, stamp;

	if (!fn) {
		__atomic_store_n(&current, 0, __ATOMIC_RELEASE);
		return;
	}
	for (;;) {
		ticket = __atomic_add_fetch(&tickets, 1, __ATOMIC_RELAXED) << 1;
		taker = &takers[(ticket >> 1) % TAKERS];
		/* stamp first: a slot put in force since has another, and is not taken */
		stamp = __atomic_load_n(&taker->stamp, __ATOMIC_ACQUIRE);
		if (stamp & BUSY)
			continue;
		if (stamp && stamp == __atomic_load_n(&current, __ATOMIC_ACQUIRE))
			continue;
		if (__atomic_compare_exchange_n(&taker->stamp, &stamp, ticket | BUSY, false,
						__ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			break;
	}
	__atomic_store_n(&taker->fn, fn, __ATOMIC_RELEASE);
	__atomic_store_n(&taker->arg, arg, __ATOMIC_RELEASE);
	__atomic_store_n(&current, ticket, __ATOMIC_RELEASE);
	__atomic_store_n(&taker->stamp, ticket, __ATOMIC_RELEASE);
}

/* Law 1. NULL: no taker. */
static hmm_log_fn taker_get(void **arg)
{
	const struct taker *taker;
	uint64_t ticket, stamp;
	hmm_log_fn fn;

	do {
		ticket = __atomic_load_n(&current, __ATOMIC_ACQUIRE);
		if (!ticket)
			return NULL;
		taker = &takers[(ticket >> 1) % TAKERS];
		fn = __atomic_load_n(&taker->fn, __ATOMIC_ACQUIRE);
		*arg = __atomic_load_n(&taker->arg, __ATOMIC_ACQUIRE);
		stamp = __atomic_load_n(&taker->stamp, __ATOMIC_ACQUIRE);
	} while ((stamp & ~BUSY) != ticket);
	return fn;
}

static bool level_wanted(enum hmm_log_level level, bool taker)
{
	int limit = level_from_env();

	if (limit == LEVEL_UNSET && taker)
		limit = HMM_LOG_WARN;
	return (int)level >= HMM_LOG_ERROR && (int)level <= limit;
}

bool log_wants(enum hmm_log_level level)
{
	return level_wanted(level, __atomic_load_n(&current, __ATOMIC_ACQUIRE) != 0);
}

void hmm_log(enum hmm_log_level level, const char *fmt, ...)
{
	int saved = errno, length;
	char line[LINE], *at;
	void *arg = NULL;
	hmm_log_fn fn = taker_get(&arg);
	va_list args;

	if (!level_wanted(level, fn != NULL))
		return;
	va_start(args, fmt);
	errno = saved; /* for %m */
	length = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (length >= (int)sizeof(line)) /* cut, and said to be */
		memcpy(line + sizeof(line) - 4, "...", 4);
	for (at = line; length >= 0 && *at; at++)
		if (*at == '\n')
			*at = ' ';
	if (length < 0)
		snprintf(line, sizeof(line), "(a line that cannot be formatted: %s)", fmt);
	if (fn)
		fn(arg, level, line);
	else
		line_write(level_name[level], line);
	errno = saved;
}
